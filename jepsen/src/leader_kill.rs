//! kill -9 of the leader under load, again and again.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use loadtest::content::Dice;
use loadtest::process::Scratch;
use tokio::time::{Instant, sleep};

use crate::cluster::{Cluster, HEAL_PATIENCE, START_PATIENCE};
use crate::ledger::{Ledger, Said, Writers, first_acknowledged};
use crate::verdict::{Durations, Report, tell};

/// Promise: the first acknowledged write comes this soon after the kill, in 99 of 100 cases.
const FAILOVER_P99: Duration = Duration::from_millis(1500);

/// A failover that takes longer than this has failed.
const FAILOVER_PATIENCE: Duration = Duration::from_secs(30);

/// How the leader is killed.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Number of nodes.
    pub nodes: usize,
    /// Number of kills.
    pub count: usize,
    /// Writers.
    pub writers: usize,
    /// Writes per second and writer.
    pub rate: f64,
    /// Seed of the pauses between the kills.
    pub seed: u64,
}

/// Kills the leader `count` times while clients write to all nodes, restarts it each time, and looks for
/// every acknowledged write on every node at the end.
pub async fn run(server: &Path, scratch: &Scratch, plan: Plan) -> anyhow::Result<Report> {
    let mut report = Report::new("leader-kill");
    report.figure("seed", plan.seed);
    let mut cluster = Cluster::on_loopback(server, plan.nodes, scratch.path()).await?;
    let addresses = cluster.addresses();
    let ledger = Arc::new(Ledger::default());
    let writers = Writers::start(&ledger, &addresses, plan.writers, plan.rate);
    let mut dice = Dice::new(plan.seed);
    let mut failovers = Durations::default();
    for kill in 1..=plan.count {
        // At a random moment, so that the kill meets every phase of a batch and of a heartbeat.
        sleep(Duration::from_millis(dice.between(300, 1000))).await;
        let leader = match cluster.wait_for_leader(HEAL_PATIENCE).await {
            Ok(leader) => leader,
            Err(error) => {
                report.violate(format!("before kill {kill}: {error:#}"));
                break;
            }
        };
        cluster.nodes[leader].kill()?;
        let killed = Instant::now();
        let survivors: Vec<_> = addresses
            .iter()
            .copied()
            .enumerate()
            .filter(|(place, _)| *place != leader)
            .collect();
        match first_acknowledged(&ledger, &survivors, killed, FAILOVER_PATIENCE).await {
            Some(taken) => {
                tell(format!(
                    "kill {kill} of {}: node {}, first write after {} ms",
                    plan.count,
                    leader + 1,
                    taken.as_millis()
                ));
                failovers.add(taken);
            }
            None => report.violate(format!(
                "kill {kill}: no write acknowledged within {} s",
                FAILOVER_PATIENCE.as_secs()
            )),
        }
        cluster.nodes[leader].start()?;
        if let Err(error) = cluster.nodes[leader].wait_until_it_writes(START_PATIENCE).await {
            report.violate(format!("after kill {kill}: {error:#}"));
            break;
        }
    }
    writers.stop().await;
    ledger.settle().await;
    if let Err(error) = cluster.wait_until_equal(HEAL_PATIENCE).await {
        report.violate(format!("after the last kill: {error:#}"));
    }
    report.figure("leaders killed", failovers.count());
    report.figure("first acknowledged write after a kill", &failovers);
    ledger.check(&addresses, &mut report).await;
    if failovers.percentile(99) > FAILOVER_P99 {
        report.violate(format!(
            "p99 of the failovers is above {} ms",
            FAILOVER_P99.as_millis()
        ));
    }
    report.demand(failovers.count() == plan.count, || {
        format!("only {} of {} kills", failovers.count(), plan.count)
    });
    let done = ledger.count(Said::Done);
    report.demand(done >= plan.count * 10, || {
        format!("only {done} writes were acknowledged: that is no load")
    });
    Ok(report)
}
