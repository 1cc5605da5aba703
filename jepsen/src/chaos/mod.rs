//! Chaos from a seed: clients and listeners on registers while servers are killed, paused, cut off, robbed of
//! their power and of their room, and a checker.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use loadtest::content::Dice;
use tokio::time::{Instant, sleep};

use crate::api::{Client, Outcome};
use crate::cluster::{Cluster, HEAL_PATIENCE, START_PATIENCE};
use crate::ledger::{Ledger, Writers};
use crate::node::{Node, POLL, Spec};
use crate::verdict::{Report, tell};
use clients::{Clients, Registers, content, data_id};
use disks::Disks;
use faults::Group;
use history::{Action, Answer, History, Operation};
use judge::Counts;
use listeners::Listeners;
use nemesis::{Ground, Nemesis};
use network::{Kind, Network};

pub mod checker;
pub mod clients;
pub mod cutter;
pub mod disks;
pub mod faults;
pub mod history;
pub mod judge;
pub mod listeners;
pub mod nemesis;
pub mod network;
pub mod timeline;

/// Clients on registers.
const CLIENTS: usize = 12;

/// Writers of the ledger, and their writes per second.
const LEDGER: (usize, f64) = (3, 20.0);

/// A write that is tried for so long outlasts most faults: its first copy may have been carried out seconds
/// before the last one arrives, and other writes between them. Just below a patient client's patience.
pub const LONG_WRITE_TIMEOUT: Duration = Duration::from_millis(7500);

/// A run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Seed of faults, moments, registers and choices.
    pub seed: u64,
    /// Length of the part with faults; longer when the machine is too slow for what is demanded.
    pub duration: Duration,
    /// Number of nodes.
    pub nodes: usize,
    /// Groups of faults that must happen; `None` for all that are possible here.
    pub faults: Option<Vec<Group>>,
    /// How links are cut.
    pub network: Kind,
    /// How long the servers try to have a write carried out, again and again; `None` for their default with
    /// an even seed and [`LONG_WRITE_TIMEOUT`] with an odd one.
    pub write_timeout: Option<Duration>,
    /// Further variables of the servers.
    pub environment: Vec<(String, String)>,
    /// What may take how long.
    pub limits: Limits,
}

/// How long the servers may take for what they must do some time. None of these is a promise: those are
/// measured by other scenarios, on machines with nothing else to do.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A start, until the node takes writes.
    pub start: Duration,
    /// From the last fault to one leader and one state; again until each register is written and read.
    pub heal: Duration,
    /// From the last write to the listeners' knowing. Below the time a poll is held, or a listener who is
    /// not told would find out by himself.
    pub listeners: Duration,
    /// SIGTERM to the end.
    pub terminates: Duration,
    /// Longest that a run is prolonged when too little has happened.
    pub prolonged: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            start: START_PATIENCE,
            heal: HEAL_PATIENCE,
            listeners: Duration::from_secs(25),
            terminates: Duration::from_secs(20),
            prolonged: Duration::from_secs(60),
        }
    }
}

impl Limits {
    /// So many times the usual ones, for a slow machine; but for the listeners', which has an upper bound.
    #[must_use]
    pub fn times(patience: u32) -> Self {
        let usual = Self::default();
        Self {
            start: usual.start * patience,
            heal: usual.heal * patience,
            listeners: usual.listeners,
            terminates: usual.terminates * patience,
            prolonged: usual.prolonged * patience,
        }
    }
}

/// Runs, checks, and leaves `history.json`, `timeline.html` and `report.json` in `output`.
pub async fn run(server: &Path, directory: &Path, output: &Path, plan: &Plan) -> anyhow::Result<Report> {
    let mut report = Report::new("chaos");
    report.figure("seed", plan.seed);
    fs::create_dir_all(directory)?;
    fs::create_dir_all(output)?;
    // In this order, so that processes are gone before their disks are unmounted.
    let (mut disks, faults, mut network, mut cluster) = set_up(server, directory, plan, &mut report).await?;

    let history = Arc::new(History::begin());
    let registers = Arc::new(Registers::new(plan.seed));
    let ledger = Arc::new(Ledger::default());
    let first_term = term(&mut cluster).await;
    let addresses = cluster.addresses();
    let mut nemesis = Nemesis::new(plan.seed, &faults, plan.nodes);
    let clients = Clients::start(CLIENTS, &addresses, plan.seed, &registers, &history);
    let writers = Writers::start(&ledger, &addresses, LEDGER.0, LEDGER.1);
    let listeners = Listeners::start(CLIENTS + 1, &addresses, plan.seed, &registers, &history);
    let end = Instant::now() + plan.duration;
    let latest = end + plan.limits.prolonged;
    let mut ground = Ground {
        cluster: &mut cluster,
        network: &mut network,
        disks: &mut disks,
        history: &history,
        terminates: plan.limits.terminates,
    };
    let raged = nemesis.rage(&mut ground, end, latest).await;
    let healed = Instant::now();
    if let Err(error) = raged {
        report.violate(format!("{error:#}"));
    }
    while Instant::now() < latest && !Counts::new(&history, &ledger, &listeners).suffice(plan.duration) {
        sleep(POLL).await;
    }
    clients.stop().await;
    writers.stop().await;
    ledger.settle().await;
    let counts = Counts::new(&history, &ledger, &listeners);
    match heal(&mut cluster, plan.limits).await {
        Ok(()) => {
            report.figure(
                "equal after the last fault within",
                format!("{} ms", healed.elapsed().as_millis()),
            );
            let last = last_words(&cluster, &registers, &history, plan.limits, &mut report).await;
            listeners.settle(&last, plan.limits.listeners, &mut report).await;
            ledger.check(&addresses, &mut report).await;
        }
        Err(error) => report.violate(format!("after healing: {error:#}")),
    }
    let leader_changes = term(&mut cluster).await.saturating_sub(first_term);
    report.figure("terms begun", leader_changes);
    drop(cluster);
    judge::faults(&nemesis, &history, leader_changes, &mut report);
    judge::history(&history, &mut report);
    counts.judge(plan.duration, &mut report);
    leave(output, plan, &history, &report)?;
    Ok(report)
}

/// Disks, the faults that are possible with them, a network, and a cluster in it.
async fn set_up(
    server: &Path,
    directory: &Path,
    plan: &Plan,
    report: &mut Report,
) -> anyhow::Result<(Disks, Vec<Group>, Network, Cluster)> {
    // Absolute: the servers' working directories are their own.
    let server: PathBuf = std::path::absolute(server)?;
    let mut specs = Cluster::specs(&server, plan.nodes, directory)?;
    let drawn = (plan.seed % 2 == 1).then_some(LONG_WRITE_TIMEOUT);
    for spec in &mut specs {
        if let Some(timeout) = plan.write_timeout.or(drawn) {
            let name = "RNACOS_WRITE_TIMEOUT_MS".to_owned();
            spec.extra.push((name, timeout.as_millis().to_string()));
        }
        spec.extra.extend(plan.environment.iter().cloned());
    }
    let (disks, faults) = disks(plan, &mut specs, directory, report);
    let network = Network::make(plan.network, &mut specs, directory).await?;
    report.figure("links are cut by", network.kind());
    let cluster = form(specs, &network, plan.limits).await?;
    Ok((disks, faults, network, cluster))
}

/// Disks whose power can be cut, if they are wanted and possible, and the faults that then are possible.
fn disks(plan: &Plan, specs: &mut [Spec], directory: &Path, report: &mut Report) -> (Disks, Vec<Group>) {
    let wanted = plan.faults.clone().unwrap_or(Group::ALL.to_vec());
    if !wanted.iter().any(|group| group.needs_disks()) {
        return (Disks::default(), wanted);
    }
    match Disks::mount(specs, directory) {
        Ok(disks) => {
            report.figure("disks", "an ext4 image per node");
            (disks, wanted)
        }
        Err(error) => {
            let why = format!("{error:#}");
            if plan.faults.is_some() {
                report.void(format!(
                    "no disk can be mounted here (root and loop devices are needed): {why}"
                ));
            }
            report.figure("disks", format!("none: no power cuts, no full disks here: {why}"));
            let possible = wanted.into_iter().filter(|group| !group.needs_disks());
            (Disks::default(), possible.collect())
        }
    }
}

/// As [`Cluster::form`], telling the network each process as soon as it is there: a joining node dials.
pub(crate) async fn form(specs: Vec<Spec>, network: &Network, limits: Limits) -> anyhow::Result<Cluster> {
    let mut cluster = Cluster {
        nodes: specs.into_iter().map(Node::new).collect(),
    };
    for place in 0..cluster.nodes.len() {
        cluster.nodes[place].start()?;
        network.know(&cluster.nodes.iter().map(Node::pid).collect::<Vec<_>>());
        cluster.nodes[place].wait_until_it_writes(limits.start).await?;
    }
    cluster.wait_until_equal(limits.heal).await?;
    Ok(cluster)
}

async fn term(cluster: &mut Cluster) -> u64 {
    cluster
        .statuses()
        .await
        .into_iter()
        .flatten()
        .map(|status| status.term)
        .max()
        .unwrap_or(0)
}

async fn heal(cluster: &mut Cluster, limits: Limits) -> anyhow::Result<()> {
    cluster.repair(limits.start).await?;
    cluster.wait_for_leader(limits.heal).await?;
    cluster.wait_until_equal(limits.heal).await
}

/// The last value of a register is above all others: values of a run are far below.
fn last_value(key: u32) -> u32 {
    u32::MAX - 1 - key
}

/// After healing: one read and one write per register succeed, noted in the history so that the checker
/// judges them too; then all nodes hold the same, by local reads. The last values.
async fn last_words(
    cluster: &Cluster,
    registers: &Registers,
    history: &History,
    limits: Limits,
    report: &mut Report,
) -> BTreeMap<u32, u32> {
    let patience = Duration::from_secs(10);
    let mut of_node: Vec<_> = cluster.nodes.iter().map(|node| node.client(patience)).collect();
    let count = of_node.len();
    let mut last = BTreeMap::new();
    for key in 0..registers.used() {
        let node = key as usize % count;
        let deadline = Instant::now() + limits.heal;
        for action in [Action::Read, Action::Write(last_value(key))] {
            if let Err(why) = until_done(&mut of_node[node], node, key, action, history, deadline).await {
                report.violate(format!(
                    "after healing, register {key}: {action:?} at node {} does not succeed: {why}",
                    node + 1
                ));
            }
        }
        last.insert(key, last_value(key));
    }
    for (place, client) in of_node.iter_mut().enumerate() {
        let deadline = Instant::now() + limits.heal;
        for key in 0..registers.used() {
            let expected = Outcome::Done(Some(content(last_value(key))));
            let mut found = client.get(&data_id(key), false).await;
            while found != expected && Instant::now() < deadline {
                sleep(POLL).await;
                found = client.get(&data_id(key), false).await;
            }
            if found != expected {
                report.violate(format!(
                    "after healing, node {} holds {found:?} in register {key}, not its last value",
                    place + 1
                ));
            }
        }
    }
    last
}

/// Asks until it is done; each attempt is an operation of its own.
async fn until_done(
    client: &mut Client,
    node: usize,
    key: u32,
    action: Action,
    history: &History,
    deadline: Instant,
) -> Result<(), String> {
    loop {
        let invoked = history.now();
        let (answer, why) = match action {
            Action::Read => match client.get(&data_id(key), true).await {
                Outcome::Done(found) => {
                    let value = found.map_or(history::ABSENT, |found| {
                        clients::value(&found).unwrap_or(u32::MAX)
                    });
                    (Answer::Value(value), String::new())
                }
                Outcome::Refused(why) | Outcome::Unknown(why) => (Answer::Unknown, why),
            },
            _ => match client.publish(&data_id(key), &content(last_value(key))).await {
                Outcome::Done(()) => (Answer::Applied, String::new()),
                Outcome::Refused(why) => (Answer::Refused, why),
                Outcome::Unknown(why) => (Answer::Unknown, why),
            },
        };
        history.note(Operation {
            client: CLIENTS,
            node,
            key,
            action,
            invoked,
            returned: history.now(),
            answer,
        });
        if matches!(answer, Answer::Value(_) | Answer::Applied) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(why);
        }
        sleep(POLL).await;
    }
}

fn leave(output: &Path, plan: &Plan, history: &History, report: &Report) -> anyhow::Result<()> {
    let (operations, faults) = (history.operations(), history.faults());
    let create = |name: &str| {
        File::create(output.join(name))
            .map(BufWriter::new)
            .with_context(|| format!("write {name}"))
    };
    serde_json::to_writer(
        create("history.json")?,
        &serde_json::json!({ "operations": operations, "faults": faults }),
    )?;
    serde_json::to_writer_pretty(create("report.json")?, report)?;
    let title = format!(
        "chaos, seed {}, {} nodes, {}",
        plan.seed,
        plan.nodes,
        report.verdict()
    );
    timeline::write(&mut create("timeline.html")?, &title, &operations, &faults)?;
    tell(format!("history and timeline are in {}", output.display()));
    Ok(())
}

/// A seed nobody has used: from the clock.
#[must_use]
pub fn fresh_seed() -> u64 {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    // Shortened, since people type it again.
    Dice::new(u64::try_from(now.as_nanos()).unwrap_or(0)).roll() % 1_000_000_000
}
