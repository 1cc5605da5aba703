//! kill -9 of all nodes at once, under load.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use loadtest::content::Dice;
use loadtest::process::Scratch;
use tokio::time::{Instant, sleep};

use crate::cluster::{Cluster, HEAL_PATIENCE, START_PATIENCE};
use crate::ledger::{Ledger, Said, Writers};
use crate::verdict::{Durations, Report, tell};

/// Number of writers; each writes as fast as it is answered up to [`RATE`].
const WRITERS: usize = 16;

/// Writes per second and writer.
const RATE: f64 = 50.0;

/// Kills all `nodes` nodes `rounds` times under load; after each restart everything acknowledged so far
/// must be on every node.
pub async fn run(
    server: &Path,
    scratch: &Scratch,
    nodes: usize,
    rounds: usize,
    seed: u64,
) -> anyhow::Result<Report> {
    let mut report = Report::new("kill-all");
    report.figure("seed", seed);
    let mut cluster = Cluster::on_loopback(server, nodes, scratch.path()).await?;
    let ledger = Arc::new(Ledger::default());
    let mut dice = Dice::new(seed);
    let mut recoveries = Durations::default();
    for round in 1..=rounds {
        let before = ledger.count(Said::Done);
        let writers = Writers::start(&ledger, &cluster.addresses(), WRITERS, RATE);
        sleep(Duration::from_millis(dice.between(1000, 3000))).await;
        for node in &mut cluster.nodes {
            node.kill()?;
        }
        let killed = Instant::now();
        writers.stop().await;
        if let Err(error) = cluster.repair(START_PATIENCE).await {
            report.violate(format!("round {round}: not back after kill -9 of all: {error:#}"));
            break;
        }
        recoveries.add(killed.elapsed());
        let written = ledger.count(Said::Done) - before;
        tell(format!(
            "round {round} of {rounds}: {written} acknowledged, back after {} ms",
            killed.elapsed().as_millis()
        ));
        report.demand(written > 0, || {
            format!("round {round}: nothing was acknowledged before the kill")
        });
    }
    if let Err(error) = cluster.wait_until_equal(HEAL_PATIENCE).await {
        report.violate(format!("after the last round: {error:#}"));
    }
    report.figure("rounds", recoveries.count());
    report.figure("from kill to writes on all nodes", &recoveries);
    ledger.check(&cluster.addresses(), &mut report).await;
    report.demand(recoveries.count() == rounds, || {
        "not all rounds were carried out".to_owned()
    });
    Ok(report)
}
