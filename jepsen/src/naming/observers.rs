//! Who looks: for each node a client that lists the services in turn, and a subscriber to all of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use loadtest::grpc::{OnPush, Sdk, beside, understood};
use loadtest::naming::{GROUP, Listed, instance_of, list_request};
use proto::nacos::naming::{
    NotifySubscriberRequest, ServiceInfo, SubscribeServiceRequest, SubscribeServiceResponse,
};
use proto::nacos::{Message as _, Payload};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::clients::{KEEPER, PATIENCE, SERVICES, World, service};
use super::record::{Micros, Seen, Shown, Via, Way, What};
use crate::api::{Client, Outcome, Reply};

/// Between two lists of one node.
const PACE: Duration = Duration::from_millis(15);

/// Before a subscriber connects anew.
const AGAIN: Duration = Duration::from_millis(200);

/// Between two looks whether a subscriber's connection lives.
const LOOK: Duration = Duration::from_millis(500);

/// What each subscriber was told last, by node and service.
pub type Told = Arc<Mutex<BTreeMap<(usize, u32), Vec<Shown>>>>;

/// Numbers the connections of subscribers.
static CONNECTIONS: AtomicU32 = AtomicU32::new(1);

/// Starts them; they run until aborted.
#[must_use]
pub fn start(world: &Arc<World>, told: &Told) -> Vec<JoinHandle<()>> {
    let nodes = 0..world.addresses.len();
    let listing = nodes
        .clone()
        .map(|node| tokio::spawn(list(Arc::clone(world), node)));
    let subscribing =
        nodes.map(|node| tokio::spawn(subscribe_always(Arc::clone(world), node, Arc::clone(told))));
    listing.chain(subscribing).collect()
}

/// What a list shows.
#[must_use]
pub fn shown(listed: &Listed<'_>) -> Vec<Shown> {
    let mut shown: Vec<Shown> = listed
        .hosts
        .iter()
        .filter_map(|host| {
            let keeper = host.metadata.get(KEEPER).and_then(|keeper| keeper.parse().ok());
            Some((instance_of(&host.ip)?, keeper.unwrap_or(0), host.healthy))
        })
        .collect();
    shown.sort_unstable();
    shown
}

/// One list; the outcome in words if it was not answered with one.
pub async fn list_once(
    world: &World,
    client: &mut Client,
    node: usize,
    number: u32,
) -> Result<Vec<Shown>, String> {
    let mut request = Vec::new();
    list_request(&mut request, &world.addresses[node].to_string(), &service(number));
    let (asked, connections) = (world.log.now(), client.connections());
    let outcome = client.send(&request).await;
    if connections > 0 && connections == client.connections() && matches!(outcome, Outcome::Unknown(_)) {
        // It was idle and may have ended meanwhile.
        return Err("a connection has ended".to_owned());
    }
    let reply = match outcome {
        Outcome::Done(Reply { status: 200, body }) => Ok(body),
        Outcome::Done(Reply { status, body }) => Err(format!("{status} {body}")),
        Outcome::Refused(why) | Outcome::Unknown(why) => Err(why),
    };
    let found = reply.and_then(|body| {
        let listed = Listed::read(body.as_bytes()).map_err(|error| format!("{error}: {body}"))?;
        Ok((shown(&listed), listed.last_ref_time))
    });
    world.note(node, What::List, Way::Http, asked, found.as_ref().err().cloned());
    let (hosts, stamp) = found?;
    world.log.saw(Seen {
        node,
        service: number,
        via: Via::List,
        asked,
        answered: world.log.now(),
        stamp,
        hosts: hosts.clone(),
    });
    Ok(hosts)
}

async fn list(world: Arc<World>, node: usize) {
    let mut client = Client::new(world.addresses[node], PATIENCE);
    loop {
        for number in 0..SERVICES {
            let _ = list_once(&world, &mut client, node, number).await;
            sleep(PACE).await;
        }
    }
}

async fn subscribe_always(world: Arc<World>, node: usize, told: Told) {
    loop {
        let connection = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
        if let Ok(sdk) = subscribe(&world, node, connection, &told).await {
            while sdk.usable() {
                sleep(LOOK).await;
            }
        }
        sleep(AGAIN).await;
    }
}

async fn subscribe(world: &Arc<World>, node: usize, connection: u32, told: &Told) -> anyhow::Result<Sdk> {
    let (log, board) = (Arc::clone(world), Arc::clone(told));
    let on_push: OnPush = Arc::new(move |push: &Payload| {
        if push.type_name() != NotifySubscriberRequest::TYPE {
            return;
        }
        if let Ok(notify) = push.read::<NotifySubscriberRequest<'_>>() {
            take(&log, node, connection, notify.service_info, &board);
        }
    });
    // What the connection before was told does not count any more.
    told.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .retain(|(of, _), _| *of != node);
    let mut sdk = timeout(PATIENCE, Sdk::open(beside(world.addresses[node]), on_push)).await??;
    for number in 0..SERVICES {
        let name = service(number);
        let request = SubscribeServiceRequest {
            service_name: name.as_str().into(),
            group_name: GROUP.into(),
            subscribe: true,
            ..Default::default()
        };
        // A push may overtake the answer, and is then the newer one.
        let answer = timeout(PATIENCE, sdk.ask(&request)).await??;
        let answer: SubscribeServiceResponse<'_> = understood(&answer)?;
        let mut board = told.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(info) = answer.service_info {
            board
                .entry((node, number))
                .or_insert_with(|| shown(&Listed::of(info)));
        }
    }
    Ok(sdk)
}

fn take(world: &World, node: usize, connection: u32, info: ServiceInfo<'_>, told: &Told) {
    let now: Micros = world.log.now();
    let Some(number) = number_of(&info.name) else {
        return;
    };
    let listed = Listed::of(info);
    let hosts = shown(&listed);
    told.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert((node, number), hosts.clone());
    world.log.saw(Seen {
        node,
        service: number,
        via: Via::Push(connection),
        asked: now,
        answered: now,
        stamp: listed.last_ref_time,
        hosts,
    });
}

/// Number of a service; some servers put its group before its name.
fn number_of(name: &str) -> Option<u32> {
    let plain = name.rsplit("@@").next()?;
    (0..SERVICES).find(|number| service(*number) == plain)
}
