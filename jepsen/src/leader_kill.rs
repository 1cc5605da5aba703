//! kill -9 of the leader under load, again and again.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use loadtest::content::Dice;
use loadtest::process::Scratch;
use tokio::time::{Instant, sleep};

use crate::cluster::{Cluster, HEAL_PATIENCE, START_PATIENCE};
use crate::disk_probe::DiskProbe;
use crate::ledger::{Ledger, Said, Writers, first_acknowledged};
use crate::verdict::{Durations, Report, tell};

/// Promise: the first acknowledged write comes this soon after the kill, in 99 of 100 cases.
const FAILOVER_P99: Duration = Duration::from_millis(1500);

/// A failover needs two votes on disk. When a sync of the disk, measured beside the servers, takes longer
/// than this, the failover's time says nothing about the server; it is reported and not judged.
const STALL: Duration = Duration::from_millis(250);

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
    let (mut failovers, mut on_a_sound_disk) = (Durations::default(), Durations::default());
    let probe = DiskProbe::start(scratch.path())?;
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
        let killed = Instant::now();
        cluster.nodes[leader].kill_now()?;
        let survivors: Vec<_> = addresses
            .iter()
            .copied()
            .enumerate()
            .filter(|(place, _)| *place != leader)
            .collect();
        match first_acknowledged(&ledger, &survivors, killed, FAILOVER_PATIENCE).await {
            Some(taken) => {
                let stall = probe.slowest(killed.into_std(), (killed + taken).into_std());
                let (node, ms, stall_ms) = (leader + 1, taken.as_millis(), stall.as_millis());
                tell(format!(
                    "kill {kill} of {}: node {node}, first write after {ms} ms; slowest sync of the disk {stall_ms} ms",
                    plan.count
                ));
                failovers.add(taken);
                if stall < STALL {
                    on_a_sound_disk.add(taken);
                }
            }
            None => report.violate(format!(
                "kill {kill}: no write acknowledged within {} s",
                FAILOVER_PATIENCE.as_secs()
            )),
        }
        cluster.nodes[leader].kill()?;
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
    report.figure("of these, while the disk itself did not stall", &on_a_sound_disk);
    report.figure("a sync of the disk beside the servers", probe.durations());
    ledger.check(&addresses, &mut report).await;
    if on_a_sound_disk.percentile(99) > FAILOVER_P99 {
        report.violate(format!(
            "p99 of the failovers is above {} ms",
            FAILOVER_P99.as_millis()
        ));
    }
    report.demand(on_a_sound_disk.count() * 2 > plan.count, || {
        format!(
            "the disk stalled during {} of {} failovers",
            plan.count - on_a_sound_disk.count(),
            plan.count
        )
    });
    report.demand(failovers.count() == plan.count, || {
        format!("only {} of {} kills", failovers.count(), plan.count)
    });
    let done = ledger.count(Said::Done);
    report.demand(done >= plan.count * 10, || {
        format!("only {done} writes were acknowledged: that is no load")
    });
    Ok(report)
}
