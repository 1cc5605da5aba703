//! Many connections at once: opening them, and holding them idle.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use hdrhistogram::Histogram;
use proto::nacos::remote::{HealthCheckRequest, HealthCheckResponse};
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, interval_at, sleep_until, timeout};

use crate::content::Dice;
use crate::figures::{Latency, histogram, record};
use crate::grpc::{OnPush, Sdk, beside, silent, understood, wait_until_open};
use crate::procfs::{self, Usage};
use crate::run::resolve;

/// Connections being opened at one time: below every server's backlog.
const OPENING_MAX: usize = 64;

/// Opening one connection, and one heartbeat, may take this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Files this process needs besides its connections.
const FILES_BESIDES: u64 = 64;

/// Opens `count` registered connections, spread in turn over nodes given by their HTTP addresses.
/// Fails with the first that cannot be opened.
pub async fn open_many(
    count: usize,
    http: &[SocketAddr],
    on_push: &dyn Fn(usize) -> OnPush,
) -> anyhow::Result<Vec<Sdk>> {
    allow_files(count as u64 + FILES_BESIDES)?;
    let permits = Arc::new(Semaphore::new(OPENING_MAX));
    let mut opening = JoinSet::new();
    for (number, address) in http.iter().cycle().take(count).enumerate() {
        let (permits, address, on_push) = (Arc::clone(&permits), beside(*address), on_push(number));
        opening.spawn(async move {
            let _permit = permits.acquire_owned().await?;
            let sdk = timeout(PATIENCE, Sdk::open(address, on_push)).await;
            sdk.context("no answer")?
                .with_context(|| format!("connection {number} to {address}"))
        });
    }
    let mut open = Vec::with_capacity(count);
    while let Some(sdk) = opening.join_next().await {
        open.push(sdk.context("a connection's task")??);
    }
    Ok(open)
}

/// Raises the limit of open files as far as it is allowed.
fn allow_files(wanted: u64) -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let raised = Rlimit {
        current: Some(limit.maximum.unwrap_or(wanted).min(wanted)),
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised)?;
    anyhow::ensure!(
        limit.maximum.is_none_or(|maximum| maximum >= wanted),
        "{wanted} open files are needed, {:?} are allowed (ulimit -Hn)",
        limit.maximum
    );
    Ok(())
}

/// Idle connections, with heartbeats and churn.
#[derive(Debug, Clone)]
pub struct IdlePlan {
    /// Whom it is about, for the report.
    pub name: String,
    /// HTTP `host:port` of each node; connections are spread over them in turn.
    pub addresses: Vec<String>,
    /// Connections held.
    pub clients: usize,
    /// How long, after all are open.
    pub duration: Duration,
    /// Time between two heartbeats of a connection.
    pub beat: Duration,
    /// Connections closed, and opened anew, per second.
    pub churn_per_second: f64,
    /// Time between two reports.
    pub report: Duration,
    /// Server processes whose usage is reported; may be empty.
    pub pids: Vec<u32>,
    /// Seed of the choice of the connections that are closed.
    pub seed: u64,
}

/// The state of an idle run at a moment. Counts are since the run began.
#[derive(Debug, Clone, Serialize)]
pub struct IdleFigures {
    /// Whom it is about.
    pub name: String,
    /// Seconds since all connections were open.
    pub seconds: f64,
    /// Connections held.
    pub clients: usize,
    /// Connections closed and opened anew.
    pub churned: u32,
    /// Heartbeats answered rightly.
    pub beats: u64,
    /// Heartbeats that were not, and connections that ended or could not be opened.
    pub errors: u64,
    /// Of heartbeats.
    pub beat_us: Latency,
    /// Resident memory of the servers, in MiB.
    pub server_rss_mib: Option<f64>,
    /// Its growth since before the first connection, per connection, in KiB.
    pub server_kib_per_client: Option<f64>,
    /// Server CPU in percent of one core, since the last report.
    pub server_cpu_percent: Option<f64>,
}

impl IdleFigures {
    /// One line for people.
    #[must_use]
    pub fn line(&self) -> String {
        let optional = |value: Option<f64>, unit: &str| {
            value.map_or_else(String::new, |value| format!("  {value:.1} {unit}"))
        };
        let mut line = format!(
            "{:<24} idle {:>6} clients at {:>5.0} s  {} beats, p50 {} p99 {} µs  {} churned",
            self.name,
            self.clients,
            self.seconds,
            self.beats,
            self.beat_us.p50,
            self.beat_us.p99,
            self.churned
        );
        line += &optional(self.server_rss_mib, "MiB RSS");
        line += &optional(self.server_kib_per_client, "KiB/client");
        line += &optional(self.server_cpu_percent, "% CPU");
        if self.errors > 0 {
            line += &format!("  ERRORS {}", self.errors);
        }
        line
    }
}

/// Opens the connections, holds them and calls `tell` with each report. Returns the last one.
pub async fn idle(plan: &IdlePlan, mut tell: impl FnMut(&IdleFigures)) -> anyhow::Result<IdleFigures> {
    let http = resolve(&plan.addresses)?;
    wait_until_open(&http).await?;
    let empty = procfs::usage(&plan.pids)?.rss_bytes;
    let open = open_many(plan.clients, &http, &|_| silent()).await?;
    let mut held = Held::new(plan, open);

    let begin = Instant::now();
    let end = begin + plan.duration;
    let (mut usage, mut reported) = (procfs::usage(&plan.pids)?, begin);
    loop {
        let churn = held.churn_due(begin);
        let report = (reported + plan.report).min(end);
        if churn < report {
            sleep_until(churn).await;
            held.replace_one(&http).await;
            continue;
        }
        sleep_until(report).await;
        let now = procfs::usage(&plan.pids)?;
        let figures = held.figures(begin, now, empty, now.since(usage).cpu, reported.elapsed());
        tell(&figures);
        (usage, reported) = (now, Instant::now());
        if reported >= end {
            return Ok(figures);
        }
    }
}

/// Connections with their heartbeats, one task each.
struct Held<'p> {
    plan: &'p IdlePlan,
    tasks: JoinSet<()>,
    /// The task of each connection; aborting it closes the connection.
    clients: Vec<AbortHandle>,
    found: Arc<Found>,
    churned: u32,
    dice: Dice,
}

/// What all heartbeats have found.
struct Found {
    beats: AtomicU64,
    errors: AtomicU64,
    latencies: Mutex<Histogram<u64>>,
}

impl Found {
    fn latencies(&self) -> MutexGuard<'_, Histogram<u64>> {
        self.latencies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'p> Held<'p> {
    fn new(plan: &'p IdlePlan, open: Vec<Sdk>) -> Self {
        let found = Found {
            beats: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            latencies: Mutex::new(histogram()),
        };
        let mut held = Self {
            plan,
            tasks: JoinSet::new(),
            clients: Vec::with_capacity(open.len()),
            found: Arc::new(found),
            churned: 0,
            dice: Dice::new(plan.seed),
        };
        // First heartbeats are spread over one interval, as those of clients that came one by one.
        let beat_ms = u64::try_from(plan.beat.as_millis()).unwrap_or(u64::MAX);
        for sdk in open {
            let first = Duration::from_millis(held.dice.between(0, beat_ms));
            let task = held.hold(sdk, first);
            held.clients.push(task);
        }
        held
    }

    fn hold(&mut self, sdk: Sdk, first: Duration) -> AbortHandle {
        let (found, beat) = (Arc::clone(&self.found), self.plan.beat);
        self.tasks.spawn(beat_on(sdk, first, beat, found))
    }

    /// When the next connection is to be replaced; far away when none is.
    fn churn_due(&self, begin: Instant) -> Instant {
        let rate = self.plan.churn_per_second;
        if rate <= 0.0 || self.clients.is_empty() {
            return begin + 2 * self.plan.duration + Duration::from_secs(1);
        }
        begin + Duration::from_secs_f64(f64::from(self.churned + 1) / rate)
    }

    /// Closes a connection and opens another in its place.
    async fn replace_one(&mut self, http: &[SocketAddr]) {
        // Ended tasks are taken out, or the set would grow with every replacement.
        while self.tasks.try_join_next().is_some() {}
        let number = self.dice.below(self.clients.len());
        self.clients[number].abort();
        self.churned += 1;
        let opened = Sdk::open(beside(http[number % http.len()]), silent());
        match timeout(PATIENCE, opened).await {
            Ok(Ok(sdk)) => self.clients[number] = self.hold(sdk, self.plan.beat),
            _ => drop(self.found.errors.fetch_add(1, Ordering::Relaxed)),
        }
    }

    fn figures(
        &self,
        begin: Instant,
        usage: Usage,
        empty_bytes: u64,
        spent: Duration,
        since: Duration,
    ) -> IdleFigures {
        let known = |value: f64| (!self.plan.pids.is_empty()).then_some(value);
        #[expect(clippy::cast_precision_loss, reason = "bytes and counts stay far below 2^52")]
        let (rss, empty, clients) = (
            usage.rss_bytes as f64,
            empty_bytes as f64,
            self.plan.clients.max(1) as f64,
        );
        IdleFigures {
            name: self.plan.name.clone(),
            seconds: begin.elapsed().as_secs_f64(),
            clients: self.plan.clients,
            churned: self.churned,
            beats: self.found.beats.load(Ordering::Relaxed),
            errors: self.found.errors.load(Ordering::Relaxed),
            beat_us: Latency::of(&self.found.latencies()),
            server_rss_mib: known(rss / 1_048_576.0),
            server_kib_per_client: known((rss - empty) / 1024.0 / clients),
            server_cpu_percent: known(spent.as_secs_f64() / since.as_secs_f64().max(1e-3) * 100.0),
        }
    }
}

/// Holds one connection until it is aborted or ends.
async fn beat_on(mut sdk: Sdk, first: Duration, beat: Duration, found: Arc<Found>) {
    let mut due = interval_at(Instant::now() + first, beat);
    loop {
        due.tick().await;
        let asked = Instant::now();
        let answer = timeout(PATIENCE, sdk.ask(&HealthCheckRequest::default())).await;
        let right = answer
            .ok()
            .and_then(Result::ok)
            .is_some_and(|answer| understood::<HealthCheckResponse<'_>>(&answer).is_ok());
        if right {
            found.beats.fetch_add(1, Ordering::Relaxed);
            record(&mut found.latencies(), asked.elapsed());
        } else {
            found.errors.fetch_add(1, Ordering::Relaxed);
        }
        if !sdk.usable() {
            return;
        }
    }
}
