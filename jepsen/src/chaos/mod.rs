//! Chaos from a seed: clients on registers while servers are killed, paused and cut off, and a checker.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use loadtest::content::Dice;
use tokio::time::Instant;

use crate::cluster::{Cluster, HEAL_PATIENCE, START_PATIENCE};
use crate::ledger::{Ledger, Said, Writers};
use crate::node::Node;
use crate::verdict::{Report, tell};
use checker::Finding;
use clients::{Clients, Registers, content, data_id};
use history::{Action, Answer, History, Operation};
use nemesis::{Group, Nemesis};
use network::{Kind, Network};

pub mod checker;
pub mod clients;
pub mod cutter;
pub mod history;
pub mod nemesis;
pub mod network;
pub mod timeline;

/// Clients on registers.
const CLIENTS: usize = 12;

/// Writers of the ledger, and their writes per second.
const LEDGER: (usize, f64) = (3, 20.0);

/// Fewest successful operations per second, over the whole run, for it to count.
const SUCCESSES_PER_SECOND: usize = 20;

/// A run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Seed of faults, moments, registers and choices.
    pub seed: u64,
    /// Length of the part with faults.
    pub duration: Duration,
    /// Number of nodes.
    pub nodes: usize,
    /// Groups of faults that must happen.
    pub faults: Vec<Group>,
    /// How links are cut.
    pub network: Kind,
}

/// Runs, checks, and leaves `history.json`, `timeline.html` and `report.json` in `output`.
pub async fn run(server: &Path, directory: &Path, output: &Path, plan: &Plan) -> anyhow::Result<Report> {
    let mut report = Report::new("chaos");
    report.figure("seed", plan.seed);
    fs::create_dir_all(directory)?;
    fs::create_dir_all(output)?;
    let mut specs = Cluster::specs(server, plan.nodes, directory)?;
    let mut network = Network::make(plan.network, &mut specs, directory).await?;
    report.figure("links are cut by", network.kind());
    let mut cluster = form(specs, &network).await?;

    let history = Arc::new(History::begin());
    let registers = Arc::new(Registers::new(plan.seed));
    let ledger = Arc::new(Ledger::default());
    let first_term = term(&mut cluster).await;
    let mut nemesis = Nemesis::new(plan.seed, &plan.faults);
    let clients = Clients::start(CLIENTS, &cluster.addresses(), plan.seed, &registers, &history);
    let writers = Writers::start(&ledger, &cluster.addresses(), LEDGER.0, LEDGER.1);
    let end = Instant::now() + plan.duration;
    let raged = nemesis.rage(&mut cluster, &mut network, &history, end).await;
    let healed = Instant::now();
    clients.stop().await;
    writers.stop().await;
    ledger.settle().await;
    if let Err(error) = raged {
        report.violate(format!("{error:#}"));
    }
    match heal(&mut cluster).await {
        Ok(()) => {
            report.figure(
                "equal after the last fault within",
                format!("{} ms", healed.elapsed().as_millis()),
            );
            last_words(&cluster, &registers, &history, &mut report).await;
            ledger.check(&cluster.addresses(), &mut report).await;
        }
        Err(error) => report.violate(format!("after healing: {error:#}")),
    }
    let leader_changes = term(&mut cluster).await.saturating_sub(first_term);
    report.figure("terms begun", leader_changes);
    drop(cluster);
    judge(plan, &nemesis, &history, &ledger, leader_changes, &mut report);
    leave(output, plan, &history, &report)?;
    Ok(report)
}

/// As [`Cluster::form`], telling the network each process as soon as it is there: a joining node dials.
async fn form(specs: Vec<crate::node::Spec>, network: &Network) -> anyhow::Result<Cluster> {
    let mut cluster = Cluster {
        nodes: specs.into_iter().map(Node::new).collect(),
    };
    for place in 0..cluster.nodes.len() {
        cluster.nodes[place].start()?;
        network.know(&cluster.nodes.iter().map(Node::pid).collect::<Vec<_>>());
        cluster.nodes[place].wait_until_it_writes(START_PATIENCE).await?;
    }
    cluster.wait_until_equal(HEAL_PATIENCE).await?;
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

async fn heal(cluster: &mut Cluster) -> anyhow::Result<()> {
    cluster.repair().await?;
    cluster.wait_for_leader(HEAL_PATIENCE).await?;
    cluster.wait_until_equal(HEAL_PATIENCE).await
}

/// After healing: one write and one linearizable read per register succeed, noted in the history so that
/// the checker judges them too; then all nodes hold the same, by local reads.
async fn last_words(cluster: &Cluster, registers: &Registers, history: &History, report: &mut Report) {
    let patience = Duration::from_secs(10);
    let mut of_node: Vec<_> = cluster.nodes.iter().map(|node| node.client(patience)).collect();
    let count = of_node.len();
    for key in 0..registers.used() {
        let (node, id) = (key as usize % count, data_id(key));
        let client = &mut of_node[node];
        let invoked = history.now();
        let found = client.get(&id, true).await;
        let returned = history.now();
        let crate::api::Outcome::Done(found) = found else {
            report.violate(format!(
                "after healing, register {key} cannot be read at node {}: {found:?}",
                node + 1
            ));
            continue;
        };
        let value = found
            .as_deref()
            .map_or(history::ABSENT, |found| clients::value(found).unwrap_or(u32::MAX));
        let answer = Answer::Value(value);
        history.note(Operation {
            client: CLIENTS,
            node,
            key,
            action: Action::Read,
            invoked,
            returned,
            answer,
        });
        // The last value of each register is above all others: values of a run are far below.
        let last = u32::MAX - 1 - key;
        let invoked = history.now();
        let written = client.publish(&id, &content(last)).await;
        let returned = history.now();
        if written.is_done() {
            let (action, answer) = (Action::Write(last), Answer::Applied);
            history.note(Operation {
                client: CLIENTS,
                node,
                key,
                action,
                invoked,
                returned,
                answer,
            });
        } else {
            report.violate(format!(
                "after healing, register {key} cannot be written at node {}: {written:?}",
                node + 1
            ));
        }
    }
    for (place, client) in of_node.iter_mut().enumerate() {
        let deadline = Instant::now() + Duration::from_secs(10);
        for key in 0..registers.used() {
            let expected = crate::api::Outcome::Done(Some(content(u32::MAX - 1 - key)));
            let mut found = client.get(&data_id(key), false).await;
            while found != expected && Instant::now() < deadline {
                tokio::time::sleep(crate::node::POLL).await;
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
}

/// Checks the history and the rules for void runs.
fn judge(
    plan: &Plan,
    nemesis: &Nemesis,
    history: &History,
    ledger: &Ledger,
    leader_changes: u64,
    report: &mut Report,
) {
    let operations = history.operations();
    let findings = checker::check(&operations);
    for (key, finding) in &findings {
        match finding {
            Finding::Linearizable => {}
            Finding::Violation(what) => report.violate(format!("register {key} is not linearizable: {what}")),
            Finding::Undecided => report.void(format!("register {key}: too many unknown outcomes to decide")),
        }
    }
    let count =
        |which: fn(&Operation) -> bool| operations.iter().filter(|operation| which(operation)).count();
    let reads = count(|operation| matches!(operation.answer, Answer::Value(_)));
    let writes = count(|operation| operation.answer == Answer::Applied);
    let compared = count(|o| matches!(o.action, Action::Cas { .. }) && matches!(o.answer, Answer::Applied));
    let unknown = count(|operation| operation.answer == Answer::Unknown);
    report.figure("registers checked", findings.len());
    report.figure(
        "operations",
        format!(
            "{} ({reads} reads, {writes} writes of which {compared} CAS, {unknown} unknown)",
            operations.len()
        ),
    );
    report.figure("faults", format!("{:?}", nemesis.done()));
    for group in nemesis.missing() {
        report.void(format!("the demanded fault {group:?} did not happen"));
    }
    let seconds = usize::try_from(plan.duration.as_secs())
        .unwrap_or(usize::MAX)
        .max(1);
    let wanted = SUCCESSES_PER_SECOND * seconds;
    report.demand(reads + writes >= wanted, || {
        format!(
            "only {} operations succeeded, fewer than {wanted}",
            reads + writes
        )
    });
    report.demand(compared > 0, || "no CAS succeeded".to_owned());
    report.demand(plan.faults.is_empty() || leader_changes > 0, || {
        "the leader never changed".to_owned()
    });
    let ledger = ledger.count(Said::Done);
    report.demand(ledger >= seconds, || {
        format!("only {ledger} ledger writes were acknowledged")
    });
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
        "chaos, seed {}, {} nodes, {:?}",
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
