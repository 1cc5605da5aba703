//! Writes with unique keys and values, what was said of each, and where it must be found.
//!
//! No key is written twice, so the check is simple and strong: an acknowledged write is on every node
//! with its value, a refused one is on none, an unknown one may be anywhere but never with another value;
//! and none was carried out twice.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use crate::api::{Client, Outcome};
use crate::verdict::Report;

/// Patience of a writer that goes round the nodes: short, since one of them may be paused.
const WRITER_PATIENCE: Duration = Duration::from_secs(2);

/// Patience of a write sent to measure a failover.
const PROBE_PATIENCE: Duration = Duration::from_secs(5);

/// Patience of one read of the check.
const READ_PATIENCE: Duration = Duration::from_secs(5);

/// A follower may be this far behind when the check begins.
const CATCH_UP: Duration = Duration::from_secs(10);

/// Reads of the check that go on at the same time, per node.
const CHECKERS: usize = 16;

/// What was said of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// Acknowledged.
    Done,
    /// Certainly not carried out.
    Refused,
    /// May have been carried out.
    Unknown,
}

/// One write.
#[derive(Debug, Clone)]
struct Line {
    number: u64,
    said: Said,
    /// Place of the node it was sent to.
    node: usize,
}

/// All writes of a run.
#[derive(Debug, Default)]
pub struct Ledger {
    next: AtomicU64,
    lines: Mutex<Vec<Line>>,
}

/// Key and value of a write.
fn key(number: u64) -> String {
    format!("ledger.{number}")
}

fn value(number: u64) -> String {
    format!("value of write {number}, which no other write has")
}

impl Ledger {
    /// Sends the next write by this client and notes what was said of it.
    ///
    /// Not cancel safe: a dropped future leaves no line, though the write may happen; a later check then
    /// does not look for it, which is right for a write nobody was told about.
    pub async fn write(&self, client: &mut Client, node: usize) -> Said {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let said = match client.publish(&key(number), &value(number)).await {
            Outcome::Done(()) => Said::Done,
            Outcome::Refused(_) => Said::Refused,
            Outcome::Unknown(_) => Said::Unknown,
        };
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Line { number, said, node });
        said
    }

    /// Number of writes of which this was said.
    #[must_use]
    pub fn count(&self, said: Said) -> usize {
        self.copy().iter().filter(|line| line.said == said).count()
    }

    fn copy(&self) -> Vec<Line> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until every write that was begun has been noted; at most a little longer than a writer's patience.
    pub async fn settle(&self) {
        let deadline = Instant::now() + PROBE_PATIENCE + Duration::from_secs(1);
        let begun = self.next.load(Ordering::Relaxed);
        while (self.copy().len() as u64) < begun && Instant::now() < deadline {
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Looks for every write on every address by local reads and notes what is missing, wrong or there
    /// although refused. A follower gets 10 s to catch up. Also notes the counts as figures.
    pub async fn check(self: &Arc<Self>, addresses: &[SocketAddr], report: &mut Report) {
        let lines = Arc::new(self.copy());
        let of = |said| lines.iter().filter(|line| line.said == said).count();
        report.figure(
            "writes",
            format!(
                "{} acknowledged, {} refused, {} unknown",
                of(Said::Done),
                of(Said::Refused),
                of(Said::Unknown)
            ),
        );
        let deadline = Instant::now() + CATCH_UP;
        if let Some(address) = addresses.first() {
            check_once(&lines, *address, report).await;
        }
        for (place, address) in addresses.iter().enumerate() {
            let checkers: Vec<_> = (0..CHECKERS)
                .map(|first| {
                    let part: Vec<Line> = lines.iter().skip(first).step_by(CHECKERS).cloned().collect();
                    tokio::spawn(check_part(part, *address, deadline))
                })
                .collect();
            for checker in checkers {
                match checker.await {
                    Ok(findings) => findings
                        .into_iter()
                        .for_each(|what| report.violate(format!("node {}: {what}", place + 1))),
                    Err(error) => report.void(format!("a checker of node {} failed: {error}", place + 1)),
                }
            }
        }
    }
}

async fn check_part(lines: Vec<Line>, address: SocketAddr, deadline: Instant) -> Vec<String> {
    let mut client = Client::new(address, READ_PATIENCE);
    let mut findings = Vec::new();
    for line in lines {
        loop {
            let finding = look(&mut client, &line).await;
            // Only what may still change is looked for again: a write that has not arrived here yet.
            match finding {
                Some(Finding { waits: true, .. }) if Instant::now() < deadline => {
                    sleep(Duration::from_millis(50)).await
                }
                Some(finding) => break findings.push(finding.what),
                None => break,
            }
        }
    }
    findings
}

/// Every write was carried out at most once, also those that a node sent again on its own: the history of
/// its key has one row. One node is asked: all apply the same log.
async fn check_once(lines: &[Line], address: SocketAddr, report: &mut Report) {
    let mut client = Client::new(address, READ_PATIENCE);
    for Line { number, node, .. } in lines {
        let deadline = Instant::now() + CATCH_UP;
        let mut times = client.times_written(&key(*number)).await;
        while !times.is_done() && Instant::now() < deadline {
            sleep(Duration::from_millis(50)).await;
            times = client.times_written(&key(*number)).await;
        }
        match times {
            Outcome::Done(0 | 1) => {}
            Outcome::Done(times) => report.violate(format!(
                "write {number}, sent once to node {}, was carried out {times} times",
                node + 1
            )),
            Outcome::Refused(why) | Outcome::Unknown(why) => {
                report.void(format!("the history of write {number} cannot be read: {why}"));
                return;
            }
        }
    }
}

struct Finding {
    what: String,
    /// Whether waiting may help.
    waits: bool,
}

async fn look(client: &mut Client, line: &Line) -> Option<Finding> {
    let Line { number, said, node } = line;
    let found = client.get(&key(*number), false).await;
    let sent_to = node + 1;
    match (said, found) {
        (_, Outcome::Done(Some(found))) if found != value(*number) => Some(Finding {
            what: format!("write {number} (sent to node {sent_to}) reads {found:?}"),
            waits: false,
        }),
        (Said::Refused, Outcome::Done(Some(_))) => Some(Finding {
            what: format!("write {number} was refused by node {sent_to} and is there"),
            waits: false,
        }),
        (Said::Done, Outcome::Done(None)) => Some(Finding {
            what: format!("write {number} was acknowledged by node {sent_to} and is not there"),
            waits: true,
        }),
        (Said::Done, Outcome::Refused(why) | Outcome::Unknown(why)) => Some(Finding {
            what: format!("acknowledged write {number} cannot be read: {why}"),
            waits: true,
        }),
        _ => None,
    }
}

/// Clients that write to the ledger until they are stopped.
#[derive(Debug)]
pub struct Writers {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Writers {
    /// Starts `count` writers of `rate` writes per second each. They go round the nodes.
    #[must_use]
    pub fn start(ledger: &Arc<Ledger>, addresses: &[SocketAddr], count: usize, rate: f64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let tasks = (0..count)
            .map(|first| {
                let (ledger, stop, addresses) = (Arc::clone(ledger), Arc::clone(&stop), addresses.to_vec());
                tokio::spawn(async move {
                    let mut clients: Vec<Client> = addresses
                        .iter()
                        .map(|address| Client::new(*address, WRITER_PATIENCE))
                        .collect();
                    let mut due = Instant::now();
                    let mut node = first;
                    while !stop.load(Ordering::Relaxed) {
                        node = (node + 1) % clients.len();
                        ledger.write(&mut clients[node], node).await;
                        // What was missed during a stall is not made up for: the load stays what was asked.
                        due = Instant::now().max(due + Duration::from_secs_f64(1.0 / rate));
                        sleep_until(due).await;
                    }
                })
            })
            .collect();
        Self { stop, tasks }
    }

    /// Lets each writer finish its write and waits for it.
    pub async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            // A writer that panicked has left its lines behind; the check goes on with them.
            let _ = task.await;
        }
    }
}

/// After a fault: sends a new write every 20 ms to the given nodes in turn, each on a connection of its
/// own, until one is acknowledged, and returns the time from `since` to that answer.
///
/// The writes are sent after the fault, so none of them can have been committed before it; and they do
/// not wait for each other, so one that is stuck delays nothing. `None` after `patience`.
pub async fn first_acknowledged(
    ledger: &Arc<Ledger>,
    nodes: &[(usize, SocketAddr)],
    since: Instant,
    patience: Duration,
) -> Option<Duration> {
    const EVERY: Duration = Duration::from_millis(20);
    let (answered, mut answers) = tokio::sync::mpsc::channel(1);
    let mut due = Instant::now();
    let deadline = since + patience;
    for turn in 0_usize.. {
        let (node, address) = nodes[turn % nodes.len()];
        let (ledger, answered) = (Arc::clone(ledger), answered.clone());
        tokio::spawn(async move {
            let mut client = Client::new(address, PROBE_PATIENCE);
            if ledger.write(&mut client, node).await == Said::Done {
                // Only the first answer is received; the others may find nobody.
                let _ = answered.try_send(Instant::now());
            }
        });
        due += EVERY;
        tokio::select! {
            at = answers.recv() => return at.map(|at| at - since),
            () = sleep_until(due) => {}
        }
        if Instant::now() > deadline {
            return None;
        }
    }
    None
}
