//! Clients over a registry that runs, in virtual time; the network is a courier that obeys the test.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::super::naming_client::AFTER_ANSWER;
use super::*;
use crate::discovery::{Discovery, Form, Parts};
use crate::model::{Endpoint, NamespaceId, ServiceKey};
use crate::naming::{Filter, Instance, Origin, Registry, StampClock};
use crate::push::{NamingPush, Who};
use crate::shutdown::Shutdown;

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);

fn service() -> ServiceKey {
    ServiceKey::new(&NamespaceId::default(), "g", "shop")
}

fn at(port: u16) -> (Endpoint, Instance, bool) {
    (Endpoint::new("10.0.0.1", port, ""), Instance::default(), true)
}

/// A node: its registry and its pusher, which run.
struct World {
    discovery: Arc<Discovery>,
    push: Arc<NamingPush>,
    stopping: Shutdown,
    folder: TempDir,
    /// The registry's task.
    running: tokio::task::JoinHandle<()>,
}

impl World {
    async fn new() -> World {
        let world = World::begin(tempfile::tempdir().expect("a folder"));
        while world.discovery.readiness() != crate::discovery::Readiness::Ready {
            tokio::time::sleep(MS).await;
        }
        world
    }

    fn begin(folder: TempDir) -> World {
        let push = NamingPush::new();
        let told = Arc::clone(&push);
        let discovery = Discovery::open(Parts {
            node: 1,
            folder: folder.path().to_owned(),
            on_events: Box::new(move |events| told.on_events(events)),
            rows: Box::new(|| Ok(Vec::new())),
        });
        let discovery = discovery.expect("a folder");
        discovery.set_members([1].into());
        let running = tokio::spawn(Arc::clone(&discovery).run());
        let rendered = Arc::clone(&discovery);
        let bytes_of = move |key: &ServiceKey| rendered.query(key, &Filter::default(), Form::Grpc).len();
        drop(tokio::spawn(Arc::clone(&push).run(bytes_of)));
        World {
            discovery,
            push,
            stopping: Shutdown::new(),
            folder,
            running,
        }
    }

    fn client(&self, id: &str) -> Arc<NamingClient> {
        let who = Who {
            id: id.into(),
            ip: "10.9.9.9".into(),
            port: 1,
            agent: "".into(),
            app: "".into(),
        };
        Arc::new(NamingClient::new(
            &self.discovery,
            &self.push,
            &self.stopping,
            who,
        ))
    }

    /// A client that is served.
    fn served(&self, id: &str) -> (Arc<NamingClient>, Courier) {
        let (client, courier) = (self.client(id), Courier::default());
        let (own, carried) = (Arc::clone(&client), courier.clone());
        drop(tokio::spawn(async move {
            serve(&own, &carried, &AtomicU64::new(0)).await;
        }));
        (client, courier)
    }

    fn ports(&self) -> Vec<u16> {
        ports(&self.discovery.query(&service(), &Filter::default(), Form::Grpc))
    }
}

fn ports(bytes: &[u8]) -> Vec<u16> {
    let info: Value = serde_json::from_slice(bytes).expect("JSON");
    let hosts = info["hosts"].as_array().expect("hosts").iter();
    hosts
        .map(|host| {
            host["port"]
                .as_u64()
                .and_then(|port| port.try_into().ok())
                .expect("a port")
        })
        .collect()
}

/// Carries pushes as the test wants.
#[derive(Clone, Default)]
struct Courier(Arc<Mutex<Carried>>);

#[derive(Default)]
struct Carried {
    pushed: Vec<(Instant, Vec<u16>, u64)>,
    /// Services with a push under way.
    under_way: BTreeSet<String>,
    /// Acknowledges after this; `None`: never, and gives up after five seconds.
    ack: Option<Duration>,
    asked: usize,
    lives: bool,
}

impl Courier {
    fn with<T>(&self, look: impl FnOnce(&mut Carried) -> T) -> T {
        look(&mut self.0.lock().expect("no panics"))
    }

    /// What was pushed since the last call.
    fn take(&self) -> Vec<Vec<u16>> {
        let pushed = self.with(|carried| std::mem::take(&mut carried.pushed));
        let stamps: Vec<u64> = pushed.iter().map(|(_, _, stamp)| *stamp).collect();
        assert!(stamps.is_sorted(), "{stamps:?}");
        pushed.into_iter().map(|(_, ports, _)| ports).collect()
    }

    fn acks_after(&self, ack: Option<Duration>) {
        self.with(|carried| carried.ack = ack);
    }
}

impl NamingCourier for Courier {
    fn carry(&self, bytes: Bytes) -> impl Future<Output = bool> + Send + 'static + use<> {
        let carried = Arc::clone(&self.0);
        async move {
            let info: Value = serde_json::from_slice(&bytes).expect("JSON");
            let name = info["name"].as_str().expect("a name").to_owned();
            let ack = {
                let mut carried = carried.lock().expect("no panics");
                let first = carried.under_way.insert(name.clone());
                assert!(first, "two pushes of one service at a time");
                let stamp = info["lastRefTime"].as_u64().expect("a stamp");
                carried.pushed.push((clock::now(), ports(&bytes), stamp));
                carried.ack
            };
            tokio::time::sleep(ack.unwrap_or(5 * S)).await;
            carried.lock().expect("no panics").under_way.remove(&name);
            ack.is_some()
        }
    }

    fn prove(&self) -> impl Future<Output = bool> + Send + 'static + use<> {
        let carried = Arc::clone(&self.0);
        async move {
            let lives = {
                let mut carried = carried.lock().expect("no panics");
                carried.asked += 1;
                carried.lives
            };
            tokio::time::sleep(MS).await;
            lives
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_is_told_of_changes_and_of_nothing_that_it_knows() {
    let world = World::new().await;
    let publisher = world.client("p");
    publisher.register(&service(), vec![at(1)]).expect("room");
    let (subscriber, courier) = world.served("s");
    courier.acks_after(Some(MS));
    let answer = subscriber.subscribe(&service(), Filter::default()).expect("room");
    assert_eq!(ports(&answer), [1]);
    tokio::time::sleep(S).await;
    assert_eq!(courier.take(), [[0; 0]; 0], "it knows that");
    publisher.register(&service(), vec![at(2)]).expect("room");
    tokio::time::sleep(5 * MS).await;
    assert_eq!(courier.take(), [[2]], "at once");
    publisher.register(&service(), vec![at(2)]).expect("room");
    tokio::time::sleep(S).await;
    assert_eq!(courier.take(), [[0; 0]; 0], "a redo changes nothing");
    subscriber.unsubscribe(&service());
    publisher.leave();
    tokio::time::sleep(S).await;
    assert_eq!(courier.take(), [[0; 0]; 0]);
    assert_eq!(world.ports(), [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_push_waits_until_the_answer_is_there() {
    let world = World::new().await;
    let (publisher, (subscriber, courier)) = (world.client("p"), world.served("s"));
    courier.acks_after(Some(MS));
    subscriber.subscribe(&service(), Filter::default()).expect("room");
    publisher.register(&service(), vec![at(1)]).expect("room");
    tokio::time::sleep(AFTER_ANSWER - 2 * MS).await;
    assert_eq!(courier.take(), [[0; 0]; 0]);
    tokio::time::sleep(5 * MS).await;
    assert_eq!(courier.take(), [[1]]);
}

#[tokio::test(start_paused = true)]
async fn of_a_storm_the_last_state_arrives_in_a_few_pushes() {
    let world = World::new().await;
    let publisher = world.client("p");
    let subscribers: Vec<_> = (0..50).map(|number| world.served(&number.to_string())).collect();
    for (subscriber, courier) in &subscribers {
        courier.acks_after(Some(MS));
        subscriber.subscribe(&service(), Filter::default()).expect("room");
    }
    tokio::time::sleep(S).await;
    let mut set = Vec::new();
    for port in 1..=500 {
        set.push(at(port));
        publisher.register(&service(), set.clone()).expect("room");
        tokio::time::sleep(2 * MS).await;
    }
    tokio::time::sleep(S).await;
    let all: Vec<u16> = (1..=500).collect();
    for (_, courier) in &subscribers {
        let pushed = courier.take();
        assert_eq!(pushed.last(), Some(&all));
        assert_eq!(pushed.first().map(Vec::len), Some(1), "the first change at once");
        assert!(pushed.len() < 30, "{}", pushed.len());
    }
}

#[tokio::test(start_paused = true)]
async fn who_does_not_acknowledge_lags_alone_and_is_told_the_present() {
    let world = World::new().await;
    let publisher = world.client("p");
    let (slow, slow_courier) = world.served("slow");
    let (fast, fast_courier) = world.served("fast");
    fast_courier.acks_after(Some(MS));
    for client in [&slow, &fast] {
        client.subscribe(&service(), Filter::default()).expect("room");
    }
    tokio::time::sleep(S).await;
    for port in 1..=40 {
        publisher.register(&service(), vec![at(port)]).expect("room");
        tokio::time::sleep(500 * MS).await;
    }
    assert_eq!(fast_courier.take().len(), 40);
    // Twenty seconds: five to wait for each acknowledgement, one to rest.
    assert_eq!(slow_courier.take(), [[1], [13], [25], [37]]);
    slow_courier.acks_after(Some(MS));
    tokio::time::sleep(10 * S).await;
    assert_eq!(slow_courier.take(), [[40]], "the present alone");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_pushed_before_the_registry_knows_what_there_is() {
    let world = World::new().await;
    world.client("p").register(&service(), vec![at(1)]).expect("room");
    // The mark that this node held instances is written on a thread of its own.
    let mark = storage::WatermarkFile::in_folder(world.folder.path());
    while mark
        .load()
        .expect("it can be read")
        .is_none_or(|mark| !mark.in_use)
    {
        tokio::time::sleep(50 * MS).await;
    }
    world.running.abort();
    let world = World::begin(world.folder);
    let (publisher, (subscriber, courier)) = (world.client("p"), world.served("s"));
    courier.acks_after(Some(MS));
    subscriber.subscribe(&service(), Filter::default()).expect("room");
    publisher.register(&service(), vec![at(1)]).expect("room");
    tokio::time::sleep(S).await;
    assert!(!subscriber.registry_is_ready_for(&service()));
    while !subscriber.registry_is_ready_for(&service()) {
        assert_eq!(courier.take(), [[0; 0]; 0]);
        tokio::time::sleep(MS).await;
    }
    tokio::time::sleep(2 * S).await;
    assert_eq!(courier.take(), [[1]]);
}

/// Another node, which has heard everything of this one, deregisters the instance.
fn deregistered_elsewhere(world: &World, node: u64) {
    let origin = Origin { node, boot: 1 };
    let mut other = Registry::new(origin, StampClock::new(1, 0));
    world.discovery.act(|registry, now_ms| {
        let (floor, all) = (Default::default(), usize::MAX);
        let batch = registry.batch(floor, all).expect("everything");
        other.apply(now_ms, batch).expect("the first");
        other.deregister(now_ms, &service(), &at(1).0);
        let batch = other.batch(floor, all).expect("everything");
        registry.apply(now_ms, batch).expect("the first");
    });
}

#[tokio::test(start_paused = true)]
async fn who_lives_is_written_again_and_who_does_not_is_not() {
    let world = World::new().await;
    let (publisher, courier) = world.served("p");
    publisher.register(&service(), vec![at(1)]).expect("room");
    deregistered_elsewhere(&world, 2);
    assert_eq!(world.ports(), [0; 0]);
    tokio::time::sleep(500 * MS).await;
    assert_eq!(
        (courier.with(|carried| carried.asked), world.ports()),
        (1, vec![])
    );
    courier.with(|carried| carried.lives = true);
    tokio::time::sleep(S).await;
    assert_eq!(
        (courier.with(|carried| carried.asked), world.ports()),
        (2, vec![1])
    );
    deregistered_elsewhere(&world, 3);
    assert_eq!(world.ports(), [0; 0]);
    tokio::time::sleep(10 * MS).await;
    assert_eq!(
        (courier.with(|carried| carried.asked), world.ports()),
        (3, vec![1])
    );
}

#[tokio::test(start_paused = true)]
async fn of_two_who_keep_one_instance_each_has_its_own_say() {
    let world = World::new().await;
    let ((old, courier), new) = (world.served("old"), world.client("new"));
    courier.with(|carried| carried.lives = true);
    old.register(&service(), vec![at(1)]).expect("room");
    new.register(&service(), vec![at(1)]).expect("room");
    new.deregister(&service(), &at(1).0);
    assert_eq!(world.ports(), [1], "not even for a moment");
    tokio::time::sleep(10 * MS).await;
    assert_eq!(courier.with(|carried| carried.asked), 1, "it may be dead");
    old.leave();
    assert_eq!(world.ports(), [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stops_takes_nothing_away() {
    let world = World::new().await;
    let publisher = world.client("p");
    publisher.register(&service(), vec![at(1)]).expect("room");
    world.stopping.begin();
    publisher.leave();
    assert_eq!(world.ports(), [1]);
}

#[tokio::test(start_paused = true)]
async fn limits_are_told_and_leave_nothing() {
    let world = World::new().await;
    let client = world.client("c");
    let many = |count: u16| (1..=count).map(at).collect::<Vec<_>>();
    let too_many = client.register(&service(), many(10_001));
    assert!(matches!(too_many, Err(crate::error::Error::Invalid(_))));
    assert_eq!(world.ports(), [0; 0]);
    client.register(&service(), many(10_000)).expect("room");
    assert_eq!(world.ports().len(), 10_000);
}

/// Property: whatever order registrations, subscriptions, acknowledgements and losses come in, in the end every
/// subscriber has been told what there is.
#[tokio::test(start_paused = true)]
async fn in_the_end_everybody_knows_what_there_is() {
    for seed in 0..30_u64 {
        let mut random = seed;
        let mut next = |below: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        let world = World::new().await;
        let publishers: Vec<_> = (0..3).map(|number| world.client(&format!("p{number}"))).collect();
        let subscribers: Vec<_> = (0..3).map(|number| world.served(&format!("s{number}"))).collect();
        let mut known: BTreeMap<usize, Vec<u16>> = BTreeMap::new();
        for _ in 0..200 {
            let who = next(3) as usize;
            let (client, courier) = &subscribers[who];
            match next(6) {
                0 => {
                    let answer = client.subscribe(&service(), Filter::default()).expect("room");
                    known.insert(who, ports(&answer));
                }
                1 => courier.acks_after([None, Some(MS), Some(800 * MS)][next(3) as usize]),
                2 | 3 => {
                    let set = (0..next(4)).map(|_| at(next(9) as u16)).collect();
                    publishers[who].register(&service(), set).expect("room");
                }
                _ => tokio::time::sleep(Duration::from_millis(next(700))).await,
            }
            for (who, (_, courier)) in subscribers.iter().enumerate() {
                if let Some(last) = courier.take().pop() {
                    known.insert(who, last);
                }
            }
        }
        for (client, courier) in &subscribers {
            courier.acks_after(Some(MS));
            assert!(client.subscribed() <= 1);
        }
        tokio::time::sleep(15 * S).await;
        for (who, (client, courier)) in subscribers.iter().enumerate() {
            let last = courier.take().pop().or_else(|| known.get(&who).cloned());
            if client.subscribed() == 1 {
                assert_eq!(last, Some(world.ports()), "seed {seed}, subscriber {who}");
            }
        }
    }
}
