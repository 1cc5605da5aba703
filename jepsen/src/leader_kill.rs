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
use crate::node::POLL;
use crate::verdict::{Durations, Report, tell};

/// Promise: the first acknowledged write comes this soon after the kill, in 99 of 100 cases.
pub const FAILOVER_P99: Duration = Duration::from_millis(1500);

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
    /// What 99 of 100 failovers may take, [`FAILOVER_P99`]; `None` measures and does not judge.
    pub failover_p99: Option<Duration>,
}

/// Acknowledged writes before each kill, so that there is something to lose.
const WRITES_PER_KILL: usize = 10;

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
        wait_for_writes(&ledger, kill * WRITES_PER_KILL).await;
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
                tell_kill(kill, plan.count, leader + 1, taken, stall);
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
    if let Some(limit) = plan.failover_p99 {
        judge_time(&on_a_sound_disk, limit, plan.count, &mut report);
    }
    demand_load(
        failovers.count(),
        plan.count,
        ledger.count(Said::Done),
        &mut report,
    );
    Ok(report)
}

fn demand_load(kills: usize, wanted: usize, writes: usize, report: &mut Report) {
    report.demand(kills == wanted, || format!("only {kills} of {wanted} kills"));
    report.demand(writes >= wanted * WRITES_PER_KILL, || {
        format!("only {writes} writes were acknowledged: that is no load")
    });
}

/// A slow machine is given time; on any other nothing is left to be waited for.
async fn wait_for_writes(ledger: &Ledger, count: usize) {
    let deadline = Instant::now() + HEAL_PATIENCE;
    while ledger.count(Said::Done) < count && Instant::now() < deadline {
        sleep(POLL).await;
    }
}

fn tell_kill(kill: usize, of: usize, node: usize, taken: Duration, stall: Duration) {
    let (ms, stall_ms) = (taken.as_millis(), stall.as_millis());
    tell(format!(
        "kill {kill} of {of}: node {node}, first write after {ms} ms; slowest sync of the disk {stall_ms} ms"
    ));
}

fn judge_time(on_a_sound_disk: &Durations, limit: Duration, kills: usize, report: &mut Report) {
    if on_a_sound_disk.percentile(99) > limit {
        report.violate(format!("p99 of the failovers is above {} ms", limit.as_millis()));
    }
    report.demand(on_a_sound_disk.count() * 2 > kills, || {
        format!(
            "the disk stalled during {} of {kills} failovers",
            kills - on_a_sound_disk.count()
        )
    });
}
