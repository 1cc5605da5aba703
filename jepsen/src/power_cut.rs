//! Power cut of all nodes: kill -9 *and* everything that was not synced is gone.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use loadtest::content::Dice;
use loadtest::process::Scratch;
use tokio::time::sleep;

use crate::cluster::{Cluster, HEAL_PATIENCE, START_PATIENCE};
use crate::disk::Disk;
use crate::ledger::{Ledger, Said, Writers};
use crate::verdict::{Report, tell};

/// Number of writers.
const WRITERS: usize = 16;

/// Writes per second and writer.
const RATE: f64 = 50.0;

/// Cuts the power of all `nodes` nodes `rounds` times under load.
///
/// In odd rounds the processes die first; in even rounds the disks die under the running processes, so
/// that a server which acknowledges although its sync failed is found out as well. Void where disks
/// cannot be mounted.
pub async fn run(
    server: &Path,
    scratch: &Scratch,
    nodes: usize,
    rounds: usize,
    seed: u64,
) -> anyhow::Result<Report> {
    let mut report = Report::new("power-cut");
    report.figure("seed", seed);
    let mut disks = Vec::new();
    for place in 1..=nodes {
        match Disk::new(scratch.path(), &format!("disk{place}")) {
            Ok(disk) => disks.push(disk),
            Err(error) => {
                report.void(format!(
                    "no disk can be mounted here (root and loop devices are needed): {error:#}"
                ));
                return Ok(report);
            }
        }
    }
    let mut specs = Cluster::specs(server, nodes, scratch.path())?;
    for (spec, disk) in specs.iter_mut().zip(&disks) {
        spec.data = disk.path().join("db");
    }
    // Declared after the disks, so that the processes are gone before the disks are unmounted.
    let mut cluster = Cluster::form(specs).await?;
    let ledger = Arc::new(Ledger::default());
    let mut dice = Dice::new(seed);
    let mut cuts = 0;
    for round in 1..=rounds {
        let before = ledger.count(Said::Done);
        let writers = Writers::start(&ledger, &cluster.addresses(), WRITERS, RATE);
        sleep(Duration::from_millis(dice.between(1000, 3000))).await;
        cut(&mut cluster, &mut disks, round % 2 == 1).await?;
        writers.stop().await;
        cuts += 1;
        if let Err(error) = cluster.repair(START_PATIENCE).await {
            report.violate(format!("round {round}: not back after the power cut: {error:#}"));
            break;
        }
        let written = ledger.count(Said::Done) - before;
        tell(format!(
            "cut {round} of {rounds}: {written} acknowledged before it"
        ));
        report.demand(written > 0, || {
            format!("round {round}: nothing was acknowledged before the cut")
        });
    }
    if let Err(error) = cluster.wait_until_equal(HEAL_PATIENCE).await {
        report.violate(format!("after the last cut: {error:#}"));
    }
    ledger.check(&cluster.addresses(), &mut report).await;
    report.figure("power cuts of all nodes", cuts);
    report.demand(cuts == rounds, || "not all cuts were carried out".to_owned());
    drop(cluster);
    Ok(report)
}

async fn cut(cluster: &mut Cluster, disks: &mut [Disk], processes_first: bool) -> anyhow::Result<()> {
    if processes_first {
        for node in &mut cluster.nodes {
            node.kill()?;
        }
    }
    for disk in disks.iter() {
        disk.cut()?;
    }
    if !processes_first {
        // Long enough for a server that ignores failed syncs to acknowledge something.
        sleep(Duration::from_millis(200)).await;
        for node in &mut cluster.nodes {
            node.kill()?;
        }
    }
    for disk in disks {
        disk.power_on()?;
    }
    Ok(())
}
