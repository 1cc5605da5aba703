//! A rolling restart seen by subscribers: the instances of one service are restarted one after the other, each
//! a connection that is closed and another one that is opened and registers another address, as a pod that is
//! replaced does, while many clients subscribe. What counts is how much is pushed, and how soon after the last
//! restart every subscriber has the whole: all that are new, and none that is gone.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use proto::nacos::naming::NotifySubscriberRequest;
use proto::nacos::{Message as _, Payload};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Listed;
use super::fanout::{register, subscribe};
use crate::figures::{Latency, histogram, record};
use crate::grpc::{OnPush, Sdk, beside, silent, wait_until_open};
use crate::procfs;
use crate::run::resolve;
use crate::sessions::open_many;

/// Opening a connection and registering over it may take this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// After the last restart every subscriber has the whole within this time, or is counted as missing.
const SETTLE: Duration = Duration::from_secs(30);

/// How often it is looked who has it.
const POLL: Duration = Duration::from_millis(20);

/// Before the storm the pushes of registrations and subscriptions must have ended for so long.
const QUIET: Duration = Duration::from_secs(3);

/// Restarts under way at one time.
const RESTARTING_MAX: usize = 64;

/// A storm.
#[derive(Debug, Clone)]
pub struct StormPlan {
    /// Whom it is about, for the report.
    pub name: String,
    /// HTTP `host:port` of each node; connections are spread over them in turn.
    pub addresses: Vec<String>,
    /// Subscribing connections.
    pub clients: usize,
    /// Instances, a connection each.
    pub instances: u32,
    /// The restarts are spread evenly over this time.
    pub duration: Duration,
    /// Server processes whose usage is reported; may be empty.
    pub pids: Vec<u32>,
}

/// What a storm measured.
#[derive(Debug, Clone, Serialize)]
pub struct StormFigures {
    /// Whom it is about.
    pub name: String,
    /// Subscribing connections.
    pub clients: usize,
    /// Instances that were restarted.
    pub instances: u32,
    /// How long the restarts took, in seconds; longer than planned if the server was too slow.
    pub seconds: f64,
    /// Pushes that came, from the first restart until all was told.
    pub pushes: u64,
    /// Their bytes, JSON only.
    pub pushed_bytes: u64,
    /// Pushes without any instance.
    pub empty: u64,
    /// Fewest instances in a push.
    pub fewest: u64,
    /// From the acknowledgement of the last restart until a subscriber had the whole.
    pub settled_us: Latency,
    /// Subscribers that did not have it after thirty seconds.
    pub missing: u64,
    /// Fewest restarted instances in what any subscriber was told last.
    pub fewest_restarted: u64,
    /// CPU of the servers, in seconds, and in percent of one core.
    pub server_cpu_seconds: Option<f64>,
    /// Highest resident memory of the servers, in MiB.
    pub server_rss_peak_mib: Option<f64>,
}

impl fmt::Display for StormFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_client = |amount: u64| amount / self.clients.max(1) as u64;
        write!(
            f,
            "{:<24} storm {} restarts in {:.1} s, {} subscribers: {} pushes ({} each), {} MiB ({} KiB each), \
             {} empty, fewest hosts {}, settled p50 {} max {} µs",
            self.name,
            self.instances,
            self.seconds,
            self.clients,
            self.pushes,
            per_client(self.pushes),
            self.pushed_bytes >> 20,
            per_client(self.pushed_bytes) >> 10,
            self.empty,
            self.fewest,
            self.settled_us.p50,
            self.settled_us.max
        )?;
        if let (Some(cpu), Some(rss)) = (self.server_cpu_seconds, self.server_rss_peak_mib) {
            write!(f, "  {cpu:.2} s CPU, peak {rss:.0} MiB")?;
        }
        if self.missing > 0 {
            write!(
                f,
                "  MISSING {}, who were told last of no more than {} restarts",
                self.missing, self.fewest_restarted
            )?;
        }
        Ok(())
    }
}

/// What the clients' push handlers share.
struct Board {
    epoch: Instant,
    pushes: AtomicU64,
    bytes: AtomicU64,
    empty: AtomicU64,
    fewest: AtomicU64,
    /// The newest push of each client and when it came; read only when somebody looks whether it is the whole.
    newest: Vec<Mutex<Option<(u64, Payload)>>>,
}

impl Board {
    fn new(clients: usize) -> Self {
        Self {
            epoch: Instant::now(),
            pushes: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            empty: AtomicU64::new(0),
            fewest: AtomicU64::new(u64::MAX),
            newest: (0..clients).map(|_| Mutex::default()).collect(),
        }
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn take(&self, client: usize, push: &Payload) {
        if push.type_name() != NotifySubscriberRequest::TYPE {
            return;
        }
        let now_us = self.now_us();
        let json = push.json();
        self.pushes.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(json.len() as u64, Ordering::Relaxed);
        // Reading thousands of lists of a thousand would be the load itself: one client's are counted.
        if client == 0 {
            let hosts = hosts_in(push, 0);
            self.fewest.fetch_min(hosts, Ordering::Relaxed);
            if hosts == 0 {
                self.empty.fetch_add(1, Ordering::Relaxed);
            }
        }
        if let Some(newest) = self.newest.get(client) {
            *newest.lock().unwrap_or_else(PoisonError::into_inner) = Some((now_us, push.clone()));
        }
    }

    /// When the client's newest push came, how many instances it shows, and how many of them are new: numbered
    /// from `old` on.
    fn newest(&self, client: usize, old: u32) -> Option<(u64, u64, u64)> {
        let newest = self.newest.get(client)?;
        let taken = newest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (at_us, push) = taken?;
        Some((at_us, hosts_in(&push, 0), hosts_in(&push, old)))
    }

    /// When the client's newest push came, if it shows the whole: as many new ones as there were old ones.
    fn has_whole(&self, client: usize, old: u32) -> Option<u64> {
        let (at_us, hosts, new) = self.newest(client, old)?;
        (new == u64::from(old) && hosts == new).then_some(at_us)
    }

    fn reset(&self) {
        for counter in [&self.pushes, &self.bytes, &self.empty] {
            counter.store(0, Ordering::Relaxed);
        }
        self.fewest.store(u64::MAX, Ordering::Relaxed);
    }
}

/// Instances in a push whose number is at least `from`.
fn hosts_in(push: &Payload, from: u32) -> u64 {
    let Ok(notify) = push.read::<NotifySubscriberRequest<'_>>() else {
        return 0;
    };
    let instances = Listed::of(notify.service_info).instances();
    instances.iter().filter(|instance| **instance >= from).count() as u64
}

/// Carries out the plan.
pub async fn run(plan: &StormPlan) -> anyhow::Result<StormFigures> {
    let http = resolve(&plan.addresses)?;
    wait_until_open(&http).await?;
    let service = format!("load.storm.{}", std::process::id());
    let board = Arc::new(Board::new(plan.clients));
    let mut owners: VecDeque<(u32, Sdk)> = VecDeque::new();
    for (instance, mut sdk) in (0..).zip(open_many(plan.instances as usize, &http, &|_| silent()).await?) {
        register(&mut sdk, &service, instance, &[]).await?;
        owners.push_back((instance, sdk));
    }
    let on_push = |client: usize| -> OnPush {
        let board = Arc::clone(&board);
        Arc::new(move |push: &Payload| board.take(client, push))
    };
    let mut clients = open_many(plan.clients, &http, &on_push).await?;
    for client in &mut clients {
        subscribe(client, &service).await?;
    }
    wait_for_quiet(&board).await;

    board.reset();
    let before = procfs::usage(&plan.pids)?;
    let begun = Instant::now();
    let restarted = restart_all(plan, &http, &service, owners).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let last_us = board.now_us();
    let mut settled = histogram();
    let mut waiting: Vec<usize> = (0..plan.clients).collect();
    let deadline = Instant::now() + SETTLE;
    while !waiting.is_empty() && Instant::now() < deadline {
        sleep(POLL).await;
        waiting.retain(|client| match board.has_whole(*client, plan.instances) {
            None => true,
            Some(at_us) => {
                record(&mut settled, Duration::from_micros(at_us.saturating_sub(last_us)));
                false
            }
        });
    }
    let usage = procfs::usage(&plan.pids)?;
    let restarted_in = |client| board.newest(client, plan.instances).map_or(0, |(_, _, new)| new);
    let fewest_restarted = (0..plan.clients).map(restarted_in).min().unwrap_or(0);
    drop(restarted);
    let known = !plan.pids.is_empty();
    #[expect(clippy::cast_precision_loss, reason = "bytes stay far below 2^52")]
    let peak_mib = usage.rss_peak_bytes as f64 / f64::from(1 << 20);
    Ok(StormFigures {
        name: plan.name.clone(),
        clients: plan.clients,
        instances: plan.instances,
        seconds,
        pushes: board.pushes.load(Ordering::Relaxed),
        pushed_bytes: board.bytes.load(Ordering::Relaxed),
        empty: board.empty.load(Ordering::Relaxed),
        fewest: board.fewest.load(Ordering::Relaxed),
        settled_us: Latency::of(&settled),
        missing: waiting.len() as u64,
        fewest_restarted,
        server_cpu_seconds: known.then_some(usage.since(before).cpu.as_secs_f64()),
        server_rss_peak_mib: known.then_some(peak_mib),
    })
}

/// Waits until no push has come for a while.
async fn wait_for_quiet(board: &Board) {
    let mut seen = u64::MAX;
    let patience = Instant::now() + SETTLE;
    while Instant::now() < patience {
        let now = board.pushes.load(Ordering::Relaxed);
        if now == seen {
            return;
        }
        seen = now;
        sleep(QUIET).await;
    }
}

/// Restarts each instance at its moment and returns their new connections.
async fn restart_all(
    plan: &StormPlan,
    http: &[SocketAddr],
    service: &str,
    mut owners: VecDeque<(u32, Sdk)>,
) -> anyhow::Result<Vec<Sdk>> {
    let begun = Instant::now();
    let gap = plan.duration / plan.instances.max(1);
    let mut restarting = JoinSet::new();
    let mut restarted = Vec::new();
    while let Some((instance, old)) = owners.pop_front() {
        sleep_until(begun + gap * instance).await;
        while restarting.len() >= RESTARTING_MAX {
            let one: anyhow::Result<Sdk> = restarting.join_next().await.context("none is under way")??;
            restarted.push(one?);
        }
        let (address, service) = (beside(http[instance as usize % http.len()]), service.to_owned());
        let old_count = plan.instances;
        restarting.spawn(async move {
            drop(old);
            let mut sdk = timeout(PATIENCE, Sdk::open(address, silent()))
                .await
                .context("no answer")??;
            register(&mut sdk, &service, instance + old_count, &[]).await?;
            Ok(sdk)
        });
    }
    while let Some(one) = restarting.join_next().await {
        restarted.push(one??);
    }
    Ok(restarted)
}

#[cfg(test)]
mod tests {
    use proto::nacos::naming::{Instance, ServiceInfo};

    use super::*;
    use crate::naming::ip;

    fn push(instances: &[u32]) -> Payload {
        let instance = |number: &u32| Instance {
            ip: ip(*number).to_string().into(),
            ..Default::default()
        };
        let push = NotifySubscriberRequest {
            service_info: ServiceInfo {
                hosts: instances.iter().map(instance).collect(),
                ..Default::default()
            },
            ..Default::default()
        };
        Payload::decode(proto::nacos::payload(&push)).expect("a payload")
    }

    #[test]
    fn the_whole_is_all_that_are_new_and_none_that_is_gone() {
        let board = Board::new(2);
        assert_eq!(board.has_whole(0, 2), None);
        for wrong in [&[0, 3][..], &[1, 2, 3], &[2]] {
            board.take(0, &push(wrong));
            assert_eq!(board.has_whole(0, 2), None, "{wrong:?}");
        }
        board.take(0, &push(&[2, 3]));
        assert!(board.has_whole(0, 2).is_some());
        assert_eq!(board.has_whole(1, 2), None);
        board.take(0, &push(&[]));
        let counts = [&board.pushes, &board.empty, &board.fewest].map(|count| count.load(Ordering::Relaxed));
        assert_eq!(counts, [5, 1, 0]);
    }
}
