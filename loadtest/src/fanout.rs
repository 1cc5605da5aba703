//! Fan-out: many clients are told of one thing, it changes again and again, and the time is taken until each has been
//! told. What changes is a `Subject`: a config that they listen to (`config`), or a service that they subscribe to
//! ([`crate::naming::fanout`]).
//!
//! Every client is a connection of its own, as SDKs are. One change at a time: the next one goes out once
//! all were told of the last, or are given up.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use proto::nacos::Payload;
use serde::Serialize;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use crate::figures::{Latency, histogram, record};
use crate::grpc::{OnPush, Sdk};
use crate::procfs;
use crate::sessions::open_many;

pub mod config;

/// A client that has not been told by then is missing. Nacos gives a push three seconds and tries again.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A fan-out.
#[derive(Debug, Clone)]
pub struct FanoutPlan {
    /// Whom it is about, for the report.
    pub name: String,
    /// HTTP `host:port` of each node; clients are spread over them in turn, changes are made at the first.
    pub addresses: Vec<String>,
    /// Connections that are told.
    pub clients: usize,
    /// Changes that are measured, after one that is not.
    pub publishes: u32,
    /// Server processes whose usage is reported; may be empty.
    pub pids: Vec<u32>,
}

/// What a fan-out measured. Times are from the moment the publish is sent.
#[derive(Debug, Clone, Serialize)]
pub struct FanoutFigures {
    /// Whom it is about.
    pub name: String,
    /// Listening connections.
    pub clients: usize,
    /// Publishes measured.
    pub publishes: u32,
    /// Clients that were told, over all publishes.
    pub told: u64,
    /// Clients that were not told of a publish within thirty seconds.
    pub missing: u64,
    /// Notifications beyond the first of a client and publish.
    pub repeated: u64,
    /// Until the publish was acknowledged.
    pub publish_us: Latency,
    /// Until a client was told, all clients.
    pub told_us: Latency,
    /// Until the last client was told, one value per publish.
    pub last_us: Latency,
    /// Server CPU per notification in µs, its share of the publish included.
    pub server_cpu_us_per_push: Option<f64>,
    /// Growth of the servers' resident memory per listening connection, in KiB.
    pub server_kib_per_client: Option<f64>,
}

/// True for a push that tells of the change with this number.
pub(crate) type Tells = Arc<dyn Fn(&Payload, u32) -> bool + Send + Sync>;

/// What is changed, and who is told of it.
pub(crate) trait Subject {
    /// Rest before and after each change.
    const PAUSE: Duration;

    /// How pushes of a change are known.
    fn tells(&self) -> Tells;

    /// A client is told of changes from now on.
    async fn join(&self, client: &mut Sdk) -> anyhow::Result<()>;

    /// Makes a change and returns when it is acknowledged. Numbers rise from 1.
    async fn change(&mut self, number: u32) -> anyhow::Result<()>;
}

/// What the clients' push handlers share.
struct Board {
    epoch: Instant,
    tells: Tells,
    /// Number of the change that is out; clients keep the last one they were told of.
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
    fn new(tells: Tells, wanted: usize) -> Board {
        Board {
            epoch: Instant::now(),
            tells,
            round: AtomicU32::new(0),
            told: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
            wanted: wanted as u64,
            all_told: Notify::new(),
        }
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn take(&self, slot: &Slot, push: &Payload) {
        // First, so that reading the push is not counted.
        let now_us = self.now_us();
        let round = self.round.load(Ordering::Acquire);
        if !(self.tells)(push, round) {
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

/// Carries out the plan at servers that are open.
pub(crate) async fn measure<S: Subject>(
    plan: &FanoutPlan,
    http: &[SocketAddr],
    mut subject: S,
) -> anyhow::Result<FanoutFigures> {
    let board = Arc::new(Board::new(subject.tells(), plan.clients));
    let before = rss(plan)?;
    let slots: Arc<Vec<Slot>> = Arc::new((0..plan.clients).map(|_| Slot::default()).collect());
    // Held until the end: a dropped connection is told nothing any more.
    let _clients = joined(plan, http, &subject, &board, &slots).await?;
    let held = rss(plan)?;
    sleep(S::PAUSE).await;

    // One that is not measured: what changes comes into being, and every path is warm.
    Collected::new().change(&board, &slots, &mut subject, 1).await?;
    board.repeated.store(0, Ordering::Relaxed);
    let cpu = procfs::usage(&plan.pids)?.cpu;
    let mut collected = Collected::new();
    for number in 0..plan.publishes {
        collected.change(&board, &slots, &mut subject, number + 2).await?;
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

fn rss(plan: &FanoutPlan) -> anyhow::Result<u64> {
    Ok(procfs::usage(&plan.pids)?.rss_bytes)
}

async fn joined<S: Subject>(
    plan: &FanoutPlan,
    http: &[SocketAddr],
    subject: &S,
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
        subject.join(client).await?;
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

    /// Makes one change, waits until all were told, and rests.
    async fn change<S: Subject>(
        &mut self,
        board: &Board,
        slots: &[Slot],
        subject: &mut S,
        number: u32,
    ) -> anyhow::Result<()> {
        board.told.store(0, Ordering::Release);
        // From here on a push counts for this change. Numbers begin at 1: a slot's 0 is "never".
        board.round.store(number, Ordering::Release);
        let sent_us = board.now_us();
        subject.change(number).await?;
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
        sleep(S::PAUSE).await;
        Ok(())
    }
}

impl fmt::Display for FanoutFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<24} fanout {:>6} clients  told p50 {} p99 {} µs  last p50 {} max {} µs  publish p50 {} µs",
            self.name,
            self.clients,
            self.told_us.p50,
            self.told_us.p99,
            self.last_us.p50,
            self.last_us.max,
            self.publish_us.p50
        )?;
        if let (Some(cpu), Some(kib)) = (self.server_cpu_us_per_push, self.server_kib_per_client) {
            write!(f, "  {cpu:.1} µs CPU/push  {kib:.1} KiB/client")?;
        }
        if self.missing + self.repeated > 0 {
            write!(f, "  MISSING {} REPEATED {}", self.missing, self.repeated)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proto::nacos::Message as _;
    use proto::nacos::config::ConfigChangeNotifyRequest;
    use proto::nacos::naming::NotifySubscriberRequest;

    use super::*;

    #[test]
    fn a_client_counts_once_for_a_change_and_only_for_what_tells_of_it() {
        let board = Board::new(
            Arc::new(|push, _| push.type_name() == ConfigChangeNotifyRequest::TYPE),
            2,
        );
        board.round.store(1, Ordering::Relaxed);
        let slot = Slot::default();
        let counts = || {
            (
                board.told.load(Ordering::Relaxed),
                board.repeated.load(Ordering::Relaxed),
            )
        };
        let read = |bytes| Payload::decode(bytes).expect("a payload");
        let ours = read(proto::nacos::payload(&ConfigChangeNotifyRequest::default()));
        let others = read(proto::nacos::payload(&NotifySubscriberRequest::default()));
        board.take(&slot, &others);
        assert_eq!(counts(), (0, 0));
        board.take(&slot, &ours);
        board.take(&slot, &ours);
        assert_eq!(counts(), (1, 1));
        board.round.store(2, Ordering::Relaxed);
        board.take(&slot, &ours);
        assert_eq!(counts(), (2, 1));
    }
}
