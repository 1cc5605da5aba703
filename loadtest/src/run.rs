//! Closed and open loops over configs and instances.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use hdrhistogram::Histogram;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::content::{Contents, Dice};
use crate::figures::{Errors, Figures, Latency, Spent, histogram, record};
use crate::grpc::{self, CallError};
use crate::grpc_work::{Expected, Line};
use crate::http::{Connection, ExchangeError, encode, push_pair, write_form, write_request};
use crate::metrics::metric;
use crate::naming::work::{self as naming, Part};
use crate::procfs;
use crate::stored::{publish_all, read_back};
pub use crate::work::{Check, Work};

/// Path of config publish and get on every Nacos-compatible server.
pub const CONFIGS: &str = "/nacos/v1/cs/configs";

/// One request may take this long; longer counts as broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A follower may be this far behind when acknowledged writes are looked for on it.
pub(crate) const CATCH_UP: Duration = Duration::from_secs(5);

/// Pause after a broken connection, so that a dead server is not dialled in a tight loop.
pub(crate) const REDIAL: Duration = Duration::from_millis(20);

/// A run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Whom it is about, for the report.
    pub name: String,
    /// `host:port` of each node; connections are spread over them in turn.
    pub addresses: Vec<String>,
    /// What is done.
    pub work: Work,
    /// Connections; each has one request in flight.
    pub connections: usize,
    /// Length of the measured part.
    pub duration: Duration,
    /// Load before it that is not counted.
    pub warm_up: Duration,
    /// Bytes of a content.
    pub size: usize,
    /// Number of different configs.
    pub keys: u32,
    /// Requests per second of an open loop over all connections; `None` is a closed loop.
    pub rate: Option<f64>,
    /// How closely answers are looked at.
    pub check: Check,
    /// Seed of contents and of the choice of keys.
    pub seed: u64,
    /// Server processes whose usage is reported; may be empty.
    pub pids: Vec<u32>,
    /// Name of the counter of syncs in the servers' `/metrics`.
    pub sync_metric: String,
}

/// What all connections of a run share.
struct Shared {
    plan: Plan,
    addresses: Vec<SocketAddr>,
    contents: Contents,
    /// Latencies and counts are kept only while this is set.
    measuring: AtomicBool,
    start: Instant,
    end: Instant,
}

/// What one connection found.
struct Tally {
    histogram: Histogram<u64>,
    operations: u64,
    errors: Errors,
    /// Last acknowledged version of each own key, by its place in the connection's ring; 0 = none.
    acknowledged: Vec<u32>,
    /// What it registered.
    part: Part,
    /// Kept until what was registered over it has been looked for.
    line: Option<Line>,
}

/// Carries out the plan and returns its figures. Fails only if it could not be carried out at all;
/// wrong and missing answers are counted in [`Figures::errors`].
pub async fn run(plan: Plan) -> anyhow::Result<Figures> {
    let addresses = resolve(&plan.addresses)?;
    let contents = Contents::new(plan.seed, plan.size);
    if plan.work.is_read() && plan.check == Check::Content {
        publish_all(&plan, &addresses, &contents).await?;
    }
    if plan.work.is_grpc() {
        grpc::wait_until_open(&addresses).await?;
    }
    // Held until the end: it owns what is asked for.
    let _prepared = match plan.work.is_naming() {
        true => naming::prepare(&plan, &addresses).await?,
        false => naming::Prepared::default(),
    };
    let start = Instant::now();
    let end = start + plan.warm_up + plan.duration;
    let shared = Arc::new(Shared {
        addresses,
        contents,
        measuring: AtomicBool::new(false),
        start,
        end,
        plan,
    });
    let clients: Vec<_> = (0..shared.plan.connections)
        .map(|number| tokio::spawn(Client::new(Arc::clone(&shared), number).run()))
        .collect();

    sleep_until(start + shared.plan.warm_up).await;
    let before = spent(&shared).await?;
    shared.measuring.store(true, Ordering::Relaxed);
    let measured_from = Instant::now();
    sleep_until(end).await;
    shared.measuring.store(false, Ordering::Relaxed);
    let seconds = measured_from.elapsed().as_secs_f64();
    let after = spent(&shared).await?;

    let mut tallies = Vec::new();
    for client in clients {
        tallies.push(client.await.context("a connection's task")?);
    }
    let mut lost = Errors::default();
    if shared.plan.work.is_write() && shared.plan.check == Check::Content {
        let acknowledged = acknowledged(&shared.plan, &tallies);
        lost = read_back(&shared.plan, &shared.addresses, &shared.contents, &acknowledged).await?;
    }
    if shared.plan.work.is_register() && shared.plan.check == Check::Content {
        let parts = tallies.iter().map(|tally| &tally.part);
        lost = naming::look_back(&shared.plan, &shared.addresses, parts).await?;
    }
    let figures = figures(&shared, &tallies, seconds, difference(before, after), lost);
    // Connections go first, and with them what they own.
    let parts = tallies.into_iter().map(|tally| tally.part).collect();
    naming::clear(&shared.plan, &shared.addresses, parts).await?;
    Ok(figures)
}

/// The socket address of each `host:port`.
pub(crate) fn resolve(addresses: &[String]) -> anyhow::Result<Vec<SocketAddr>> {
    anyhow::ensure!(!addresses.is_empty(), "no address given");
    addresses
        .iter()
        .map(|address| {
            let mut found = address
                .to_socket_addrs()
                .with_context(|| format!("address {address}"))?;
            found
                .next()
                .with_context(|| format!("address {address} resolves to nothing"))
        })
        .collect()
}

/// Last acknowledged version of each key written, where one is known.
fn acknowledged(plan: &Plan, tallies: &[Tally]) -> Vec<(u32, u32)> {
    let of_one = |(number, tally): (usize, &Tally)| -> Vec<(u32, u32)> {
        let versions = (0..).zip(&tally.acknowledged);
        versions
            .map(|(place, version)| (own_key(plan, number, place), *version))
            .collect()
    };
    let all = tallies.iter().enumerate().flat_map(of_one);
    all.filter(|(_, version)| *version > 0).collect()
}

async fn spent(shared: &Shared) -> anyhow::Result<Spent> {
    let plan = &shared.plan;
    let server = if plan.pids.is_empty() {
        None
    } else {
        Some(procfs::usage(&plan.pids).context("usage of the server processes")?)
    };
    let mut syncs = Some(0.0);
    for address in &shared.addresses {
        let found = metric(*address, &plan.sync_metric).await;
        syncs = syncs.zip(found).map(|(sum, one)| sum + one);
    }
    Ok(Spent {
        server,
        generator: procfs::usage(&[std::process::id()])?.cpu,
        syncs,
    })
}

fn difference(before: Spent, after: Spent) -> Spent {
    Spent {
        server: after
            .server
            .zip(before.server)
            .map(|(after, before)| after.since(before)),
        generator: after.generator.saturating_sub(before.generator),
        syncs: after
            .syncs
            .zip(before.syncs)
            .map(|(after, before)| after - before),
    }
}

fn figures(shared: &Shared, tallies: &[Tally], seconds: f64, spent: Spent, lost: Errors) -> Figures {
    let mut all = histogram();
    let mut errors = Errors::default();
    let mut operations = 0;
    for tally in tallies {
        all.add(&tally.histogram)
            .unwrap_or_else(|_| unreachable!("equal bounds"));
        errors.add(tally.errors.clone());
        operations += tally.operations;
    }
    errors.add(lost);
    let plan = &shared.plan;
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    let per_second = operations as f64 / seconds;
    let mut figures = Figures {
        name: plan.name.clone(),
        work: plan.work.name(),
        connections: plan.connections,
        offered_per_second: plan.rate,
        content_bytes: plan.size,
        seconds,
        operations,
        errors,
        per_second,
        latency_us: Latency::of(&all),
        server_pids: plan.pids.clone(),
        server_cpu_us_per_op: None,
        generator_cpu_us_per_op: 0.0,
        server_rss_mib: None,
        written_bytes_per_op: None,
        operations_per_sync: None,
    };
    figures.account(spent);
    figures
}

/// One connection of the load.
struct Client {
    shared: Arc<Shared>,
    number: usize,
    connection: Option<Connection>,
    /// Stands in for `connection` in work over gRPC.
    line: Line,
    authority: String,
    address: SocketAddr,
    dice: Dice,
    request: Vec<u8>,
    form: Vec<u8>,
    content: Vec<u8>,
    tally: Tally,
    /// Operations begun.
    begun: u32,
}

impl Client {
    fn new(shared: Arc<Shared>, number: usize) -> Self {
        let node = number % shared.addresses.len();
        let ring = ring_length(&shared.plan, number);
        Self {
            number,
            connection: None,
            line: Line::new(grpc::beside(shared.addresses[node])),
            authority: shared.plan.addresses[node].clone(),
            address: shared.addresses[node],
            dice: Dice::new(shared.plan.seed ^ (number as u64) << 32),
            request: Vec::new(),
            form: Vec::new(),
            content: Vec::new(),
            tally: Tally {
                histogram: histogram(),
                operations: 0,
                errors: Errors::default(),
                acknowledged: vec![0; ring],
                part: Part::new(&shared.plan, number, &shared.plan.addresses[node]),
                line: None,
            },
            begun: 0,
            shared,
        }
    }

    async fn run(mut self) -> Tally {
        while let Some(due) = self.next_due().await {
            let (key, version) = self.choose();
            self.begun = self.begun.wrapping_add(1);
            let outcome = match timeout(PATIENCE, self.once(key, version)).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    self.hang_up();
                    Err(Problem::Broken(format!(
                        "no answer within {} s",
                        PATIENCE.as_secs()
                    )))
                }
            };
            self.account(outcome, due, version).await;
        }
        self.tally.line = Some(self.line);
        self.tally
    }

    /// Waits until the next request is due and returns the moment its latency is counted from.
    ///
    /// Closed loop: now. Open loop: requests are due at fixed moments. A connection that is idle then
    /// sends at once (the timer's slack of up to 1 ms is ours, not the server's); one that was still
    /// waiting for an answer sends late, and its latency counts from when it was due.
    async fn next_due(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let Some(rate) = self.shared.plan.rate else {
            return (now < self.shared.end).then_some(now);
        };
        let connections = self.shared.plan.connections;
        #[expect(
            clippy::cast_precision_loss,
            reason = "numbers of requests stay far below 2^52"
        )]
        let nth = f64::from(self.begun) * connections as f64 + self.number as f64;
        let due = self.shared.start + Duration::from_secs_f64(nth / rate);
        if due >= self.shared.end {
            return None;
        }
        if due <= now {
            return (now < self.shared.end + CATCH_UP).then_some(due);
        }
        sleep_until(due).await;
        Some(Instant::now())
    }

    fn choose(&mut self) -> (u32, u32) {
        match self.shared.plan.work {
            Work::Write | Work::GrpcWrite => {
                let ring = u32::try_from(self.tally.acknowledged.len()).unwrap_or(1).max(1);
                (
                    own_key(&self.shared.plan, self.number, self.begun % ring),
                    self.begun / ring + 1,
                )
            }
            _ => (self.dice.roll() as u32 % self.shared.plan.keys.max(1), 0),
        }
    }

    fn hang_up(&mut self) {
        self.connection = None;
        self.line.hang_up();
    }

    async fn once_over_grpc(&mut self, key: u32, version: u32) -> Result<(), Problem> {
        let Shared { plan, contents, .. } = &*self.shared;
        if plan.work.is_naming() {
            let sdk = self.line.sdk().await?;
            let roll = self.dice.roll() as u32;
            return self.tally.part.over_grpc(sdk, self.begun, roll).await;
        }
        self.content.clear();
        if plan.work.is_write() {
            contents.write(key, version, &mut self.content);
        }
        let expected = Expected {
            contents,
            key,
            version,
            check: plan.check,
            size: plan.size,
        };
        let data_id = data_id(plan, key);
        self.line.once(plan.work, &data_id, &self.content, expected).await
    }

    async fn once(&mut self, key: u32, version: u32) -> Result<(), Problem> {
        if self.shared.plan.work.is_grpc() {
            return self.once_over_grpc(key, version).await;
        }
        if self
            .connection
            .as_ref()
            .is_none_or(|connection| !connection.usable())
        {
            self.connection = Some(
                Connection::open(self.address)
                    .await
                    .map_err(|e| Problem::Broken(e.to_string()))?,
            );
        }
        let Some(connection) = self.connection.as_mut() else {
            return Err(Problem::Broken("no connection".into()));
        };
        let Shared { plan, contents, .. } = &*self.shared;
        if plan.work.is_naming() {
            let roll = self.dice.roll() as u32;
            return self.tally.part.over_http(connection, self.begun, roll).await;
        }
        match plan.work.is_write() {
            true => {
                self.content.clear();
                contents.write(key, version, &mut self.content);
                publish_request(
                    &mut self.request,
                    &mut self.form,
                    &self.authority,
                    plan,
                    key,
                    &self.content,
                );
                let answer = connection.exchange(&self.request).await?;
                expect(answer.status, answer.body, answer.body == b"true")
            }
            false => {
                get_request(&mut self.request, &self.authority, plan, key);
                let answer = connection.exchange(&self.request).await?;
                let right = match plan.check {
                    Check::Content => contents.matches(key, version, answer.body),
                    Check::Length => answer.body.len() == plan.size,
                };
                expect(answer.status, answer.body, right)
            }
        }
    }

    async fn account(&mut self, outcome: Result<(), Problem>, due: Instant, version: u32) {
        let measuring = self.shared.measuring.load(Ordering::Relaxed);
        match outcome {
            Ok(()) => {
                if measuring {
                    record(&mut self.tally.histogram, due.elapsed());
                    self.tally.operations += 1;
                }
                if self.shared.plan.work.is_write() {
                    let place = (self.begun as usize).wrapping_sub(1) % self.tally.acknowledged.len();
                    self.tally.acknowledged[place] = version;
                }
            }
            Err(problem) => {
                // The last version of this key is not known any more: it is not looked for afterwards.
                let place = (self.begun as usize).wrapping_sub(1) % self.tally.acknowledged.len();
                self.tally.acknowledged[place] = 0;
                let broken = matches!(problem, Problem::Broken(_));
                problem.count(&mut self.tally.errors);
                if broken {
                    self.hang_up();
                    sleep(REDIAL).await;
                }
            }
        }
    }
}

/// Why an operation did not count.
pub(crate) enum Problem {
    Refused(String),
    Wrong(String),
    Broken(String),
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(words) => write!(f, "refused: {words}"),
            Self::Wrong(words) => write!(f, "wrong: {words}"),
            Self::Broken(words) => write!(f, "broken: {words}"),
        }
    }
}

impl Problem {
    fn count(self, errors: &mut Errors) {
        let (counter, words) = match self {
            Self::Refused(words) => (&mut errors.refused, words),
            Self::Wrong(words) => (&mut errors.wrong, words),
            Self::Broken(words) => (&mut errors.broken, words),
        };
        *counter += 1;
        errors.first.get_or_insert(words);
    }
}

/// An answer that is no success.
pub(crate) fn refused(error: CallError) -> Problem {
    Problem::Refused(error.to_string())
}

impl From<ExchangeError> for Problem {
    fn from(error: ExchangeError) -> Self {
        Self::Broken(error.to_string())
    }
}

pub(crate) fn expect(status: u16, body: &[u8], right: bool) -> Result<(), Problem> {
    let shown = || String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
    match (status, right) {
        (200, true) => Ok(()),
        (200, false) => Err(Problem::Wrong(format!(
            "200 with an unexpected body: {}",
            shown()
        ))),
        _ => Err(Problem::Refused(format!("{status}: {}", shown()))),
    }
}

/// Number of keys connection `number` writes in turn: its share of all keys, at least one.
fn ring_length(plan: &Plan, number: usize) -> usize {
    let keys = plan.keys.max(1) as usize;
    let connections = plan.connections.max(1);
    if number < keys % connections {
        keys / connections + 1
    } else {
        (keys / connections).max(1)
    }
}

/// The `place`-th own key of connection `number`. No two connections share one: with fewer keys than
/// connections the spare connections get keys above `plan.keys`.
fn own_key(plan: &Plan, number: usize, place: u32) -> u32 {
    let connections = u32::try_from(plan.connections.max(1)).unwrap_or(u32::MAX);
    place
        .wrapping_mul(connections)
        .wrapping_add(u32::try_from(number).unwrap_or(0))
}

/// Group of all configs of the load, so that they are easily told from real ones and removed.
pub(crate) const GROUP: &str = "loadtest";

pub(crate) fn data_id(plan: &Plan, key: u32) -> String {
    match plan.work.is_write() {
        true => format!("load.write.{:x}.{key}", plan.seed),
        false => format!("load.read.{:x}.{}.{key}", plan.seed, plan.size),
    }
}

pub(crate) fn publish_request(
    request: &mut Vec<u8>,
    form: &mut Vec<u8>,
    authority: &str,
    plan: &Plan,
    key: u32,
    content: &[u8],
) {
    form.clear();
    push_pair(form, "dataId", data_id(plan, key).as_bytes());
    push_pair(form, "group", GROUP.as_bytes());
    push_pair(form, "content", content);
    write_form(request, "POST", authority, CONFIGS, form);
}

pub(crate) fn get_request(request: &mut Vec<u8>, authority: &str, plan: &Plan, key: u32) {
    let query = encode(&[("dataId", &data_id(plan, key)), ("group", GROUP)]);
    write_request(request, "GET", authority, &format!("{CONFIGS}?{query}"));
}

#[cfg(test)]
impl Plan {
    pub(crate) fn for_test(work: Work, connections: usize, keys: u32) -> Self {
        Self {
            name: "test".into(),
            addresses: vec!["127.0.0.1:1".into()],
            work,
            connections,
            duration: Duration::ZERO,
            warm_up: Duration::ZERO,
            size: 64,
            keys,
            rate: None,
            check: Check::Content,
            seed: 1,
            pids: Vec::new(),
            sync_metric: "syncs".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_connections_write_the_same_key() {
        for (connections, keys) in [(1, 1), (3, 10), (32, 1000), (7, 7), (8, 3)] {
            let plan = Plan::for_test(Work::Write, connections, keys);
            let mut all: Vec<u32> = (0..connections)
                .flat_map(|number| (0..ring_length(&plan, number)).map(move |place| (number, place)))
                .map(|(number, place)| own_key(&plan, number, u32::try_from(place).expect("small")))
                .collect();
            all.sort_unstable();
            let expected = u32::try_from(connections).expect("small").max(keys);
            assert_eq!(
                all,
                (0..expected).collect::<Vec<_>>(),
                "{connections} connections, {keys} keys"
            );
        }
    }
}
