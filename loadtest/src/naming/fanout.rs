//! Push fan-out: many clients subscribe to one service, one of its instances changes again and again, and the
//! time is taken until each has been told.
//!
//! Every client is a connection of its own, as SDKs are. One change at a time: the next one goes out once all
//! were told of the last, or are given up. A push counts for a change if it holds the changed instance with
//! the change's number in its metadata; what an earlier change or the subscription itself caused does not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use proto::nacos::naming::{
    InstanceResponse, NotifySubscriberRequest, SubscribeServiceRequest, SubscribeServiceResponse,
};
use proto::nacos::{Message as _, Payload};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::{GROUP, Listed, REGISTER, Registration, instance_of};
use crate::fanout::{FanoutFigures, FanoutPlan};
use crate::figures::{Latency, histogram, record};
use crate::grpc::{OnPush, Sdk, beside, silent, understood, wait_until_open};
use crate::procfs;
use crate::run::resolve;
use crate::sessions::open_many;

/// A client that has not been told by then is missing.
const PATIENCE: Duration = Duration::from_secs(30);

/// Pause between two changes. Longer than any server gathers changes for, so that each meets a quiet service.
const PAUSE: Duration = Duration::from_millis(1500);

/// Instances of the service besides the one that changes.
const OTHERS: u32 = 9;

/// The key in the metadata under which the number of a change stands.
pub const CHANGE: &str = "change";

/// What the clients' push handlers share.
struct Board {
    epoch: Instant,
    /// Number of the change that is out.
    round: AtomicU32,
    told: AtomicU64,
    repeated: AtomicU64,
    wanted: u64,
    all_told: Notify,
}

/// Last change a client was told of, and when, in µs since the epoch.
#[derive(Default)]
struct Slot {
    round: AtomicU32,
    at_us: AtomicU64,
}

impl Board {
    fn now_us(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn take(&self, slot: &Slot, push: &Payload) {
        // First, so that reading the push is not counted.
        let now_us = self.now_us();
        if push.type_name() != NotifySubscriberRequest::TYPE {
            return;
        }
        let round = self.round.load(Ordering::Acquire);
        if change_in(push) != Some(round) {
            return;
        }
        if slot.round.swap(round, Ordering::AcqRel) == round {
            self.repeated.fetch_add(1, Ordering::Relaxed);
            return;
        }
        slot.at_us.store(now_us, Ordering::Release);
        if self.told.fetch_add(1, Ordering::AcqRel) + 1 == self.wanted {
            self.all_told.notify_one();
        }
    }
}

/// The number of the change that a push shows.
fn change_in(push: &Payload) -> Option<u32> {
    let notify: NotifySubscriberRequest<'_> = push.read().ok()?;
    let listed = Listed::of(notify.service_info);
    let changed = listed
        .hosts
        .iter()
        .find(|host| instance_of(&host.ip) == Some(0))?;
    changed.metadata.get(CHANGE)?.parse().ok()
}

/// Subscribes to a service over a connection.
pub async fn subscribe(sdk: &mut Sdk, service: &str) -> anyhow::Result<()> {
    let request = SubscribeServiceRequest {
        service_name: service.into(),
        group_name: GROUP.into(),
        subscribe: true,
        ..Default::default()
    };
    let answer = timeout(PATIENCE, sdk.ask(&request))
        .await
        .context("subscribe")??;
    understood::<SubscribeServiceResponse<'_>>(&answer)?;
    Ok(())
}

/// Registers an instance over a connection.
pub async fn register(
    sdk: &mut Sdk,
    service: &str,
    instance: u32,
    metadata: &[(&str, &str)],
) -> anyhow::Result<()> {
    let registration = Registration {
        service,
        instance,
        metadata: "",
    };
    let request = registration.message(REGISTER, metadata);
    let answer = timeout(PATIENCE, sdk.ask(&request)).await.context("register")??;
    understood::<InstanceResponse<'_>>(&answer)?;
    Ok(())
}

/// Carries out the plan; its `publishes` are changes of an instance.
pub async fn run(plan: &FanoutPlan) -> anyhow::Result<FanoutFigures> {
    let http = resolve(&plan.addresses)?;
    wait_until_open(&http).await?;
    let board = Arc::new(Board {
        epoch: Instant::now(),
        round: AtomicU32::new(0),
        told: AtomicU64::new(0),
        repeated: AtomicU64::new(0),
        wanted: plan.clients as u64,
        all_told: Notify::new(),
    });
    // Another name each time: what an earlier run left does not matter.
    let service = format!("load.fanout.{}.{}", std::process::id(), plan.clients);
    let mut owners = owners(&service, &http).await?;
    let before = procfs::usage(&plan.pids)?.rss_bytes;
    let slots: Arc<Vec<Slot>> = Arc::new((0..plan.clients).map(|_| Slot::default()).collect());
    // Held until the end: a dropped connection is no subscriber any more.
    let _clients = subscribers(plan, &http, &service, &board, &slots).await?;
    let held = procfs::usage(&plan.pids)?.rss_bytes;
    sleep(PAUSE).await;

    // One that is not measured: every path is warm.
    let changing = &mut owners[0];
    Collected::new()
        .change(&board, &slots, changing, &service, 1)
        .await?;
    sleep(PAUSE).await;
    board.repeated.store(0, Ordering::Relaxed);
    let mut collected = Collected::new();
    let cpu = procfs::usage(&plan.pids)?.cpu;
    for number in 0..plan.publishes {
        collected
            .change(&board, &slots, changing, &service, number + 2)
            .await?;
        sleep(PAUSE).await;
    }
    let cpu = procfs::usage(&plan.pids)?.cpu.saturating_sub(cpu);
    let told = collected.told.len();
    #[expect(clippy::cast_precision_loss, reason = "counts and bytes stay far below 2^52")]
    let per = |amount: f64, count: u64| (!plan.pids.is_empty()).then_some(amount / count.max(1) as f64);
    #[expect(clippy::cast_precision_loss, reason = "bytes stay far below 2^52")]
    let grown_kib = held.saturating_sub(before) as f64 / 1024.0;
    Ok(FanoutFigures {
        name: plan.name.clone(),
        clients: plan.clients,
        publishes: plan.publishes,
        told,
        missing: collected.missing,
        repeated: board.repeated.load(Ordering::Relaxed),
        publish_us: Latency::of(&collected.changed),
        told_us: Latency::of(&collected.told),
        last_us: Latency::of(&collected.last),
        server_cpu_us_per_push: per(cpu.as_secs_f64() * 1e6, told),
        server_kib_per_client: per(grown_kib, plan.clients as u64),
    })
}

/// A connection for each instance of the service; the first one's instance is to change.
async fn owners(service: &str, http: &[SocketAddr]) -> anyhow::Result<Vec<Sdk>> {
    let mut owners = Vec::new();
    for instance in 0..=OTHERS {
        let mut sdk = timeout(PATIENCE, Sdk::open(beside(http[0]), silent()))
            .await
            .context("no answer")??;
        register(&mut sdk, service, instance, &[]).await?;
        owners.push(sdk);
    }
    Ok(owners)
}

async fn subscribers(
    plan: &FanoutPlan,
    http: &[SocketAddr],
    service: &str,
    board: &Arc<Board>,
    slots: &Arc<Vec<Slot>>,
) -> anyhow::Result<Vec<Sdk>> {
    let on_push = |number: usize| -> OnPush {
        let (board, slots) = (Arc::clone(board), Arc::clone(slots));
        Arc::new(move |push: &Payload| {
            if let Some(slot) = slots.get(number) {
                board.take(slot, push);
            }
        })
    };
    let mut clients = open_many(plan.clients, http, &on_push).await?;
    for client in &mut clients {
        subscribe(client, service).await?;
    }
    Ok(clients)
}

/// Figures on their way.
struct Collected {
    changed: hdrhistogram::Histogram<u64>,
    told: hdrhistogram::Histogram<u64>,
    last: hdrhistogram::Histogram<u64>,
    missing: u64,
}

impl Collected {
    fn new() -> Self {
        Self {
            changed: histogram(),
            told: histogram(),
            last: histogram(),
            missing: 0,
        }
    }

    /// Changes the instance once and waits until all were told.
    async fn change(
        &mut self,
        board: &Board,
        slots: &[Slot],
        owner: &mut Sdk,
        service: &str,
        number: u32,
    ) -> anyhow::Result<()> {
        board.told.store(0, Ordering::Release);
        // From here on a push counts for this change. Numbers begin at 1: a slot's 0 is "never".
        board.round.store(number, Ordering::Release);
        let sent_us = board.now_us();
        register(owner, service, 0, &[(CHANGE, &number.to_string())]).await?;
        record(&mut self.changed, Duration::from_micros(board.now_us() - sent_us));
        // Out of patience: whoever was not told is counted below.
        let _ = timeout(PATIENCE, board.all_told.notified()).await;
        let mut last_us = 0;
        for slot in slots {
            if slot.round.load(Ordering::Acquire) != number {
                self.missing += 1;
                continue;
            }
            let took_us = slot.at_us.load(Ordering::Acquire).saturating_sub(sent_us);
            record(&mut self.told, Duration::from_micros(took_us));
            last_us = last_us.max(took_us);
        }
        record(&mut self.last, Duration::from_micros(last_us));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proto::nacos::naming::{Instance, ServiceInfo};

    use super::*;
    use crate::naming::ip;

    fn push(instance: u32, change: u32) -> Payload {
        let push = NotifySubscriberRequest {
            service_info: ServiceInfo {
                hosts: vec![Instance {
                    ip: ip(instance).to_string().into(),
                    metadata: [(CHANGE.into(), change.to_string().into())].into(),
                    ..Default::default()
                }],
                ..Default::default()
            },
            ..Default::default()
        };
        Payload::decode(proto::nacos::payload(&push)).expect("a payload")
    }

    #[test]
    fn a_push_counts_once_and_only_with_the_change_that_is_out() {
        let board = Board {
            epoch: Instant::now(),
            round: AtomicU32::new(2),
            told: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
            wanted: 2,
            all_told: Notify::new(),
        };
        let slot = Slot::default();
        let counts = || {
            (
                board.told.load(Ordering::Relaxed),
                board.repeated.load(Ordering::Relaxed),
            )
        };
        board.take(&slot, &push(0, 1));
        board.take(&slot, &push(1, 2));
        assert_eq!(counts(), (0, 0));
        board.take(&slot, &push(0, 2));
        board.take(&slot, &push(0, 2));
        assert_eq!(counts(), (1, 1));
    }
}
