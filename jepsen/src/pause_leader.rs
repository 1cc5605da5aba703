//! A leader that sleeps: SIGSTOP for 9 s with requests queued on it, then SIGCONT.
//!
//! While it sleeps the others elect a new leader. When it wakes it believes for a moment that it still
//! leads, with requests in its socket buffers. What it then acknowledges must stay, and what it then
//! answers to a linearizable read must not be older than what the new leader acknowledged meanwhile
//! (hazards R9, R10 and R36 of the design).

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use loadtest::process::Scratch;
use tokio::time::{Instant, sleep};

use crate::api::{Client, Outcome};
use crate::cluster::{Cluster, HEAL_PATIENCE, START_PATIENCE};
use crate::ledger::{Ledger, Said, Writers, first_acknowledged};
use crate::verdict::{Report, tell};

/// Writes queued on the sleeping leader, each on a connection of its own, opened before.
const QUEUED: usize = 32;

/// Clients that write to all nodes all the time.
const WRITERS: usize = 16;

/// Linearizable reads queued on it.
const QUEUED_READS: usize = 8;

/// Key of the register those reads ask for.
const REGISTER: &str = "pause.register";

/// Patience of a queued request: the longest pause and more.
const PATIENCE: Duration = Duration::from_secs(90);

/// A pause lasts until a new leader has taken a write, however long was asked for, but no longer than this.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What the rounds found, over all rounds.
#[derive(Debug, Default)]
struct Tally {
    acknowledged_late: usize,
    refused_late: usize,
    fresh_reads: usize,
    new_leaders: usize,
}

/// Pauses the leader `rounds` times for `pause`.
pub async fn run(server: &Path, scratch: &Scratch, rounds: usize, pause: Duration) -> anyhow::Result<Report> {
    let mut report = Report::new("pause-leader");
    let mut cluster = Cluster::on_loopback(server, 3, scratch.path()).await?;
    let addresses = cluster.addresses();
    let ledger = Arc::new(Ledger::default());
    let writers = Writers::start(&ledger, &addresses, WRITERS, 50.0);
    let mut tally = Tally::default();
    for round in 1..=rounds {
        if let Err(error) = one_round(&mut cluster, &ledger, round, pause, &mut tally, &mut report).await {
            report.violate(format!("round {round}: {error:#}"));
            break;
        }
        tell(format!("round {round} of {rounds}: {tally:?}"));
    }
    writers.stop().await;
    ledger.settle().await;
    check_twice(&mut cluster, &ledger, &mut report).await?;
    report.figure(
        "new leader while the old one slept",
        format!("{} of {rounds}", tally.new_leaders),
    );
    report.figure("queued writes acknowledged after waking", tally.acknowledged_late);
    report.figure("queued writes not acknowledged", tally.refused_late);
    report.figure("queued linearizable reads answered", tally.fresh_reads);
    report.demand(tally.new_leaders == rounds, || {
        "in some round no new leader took a write during the pause".to_owned()
    });
    let answered = tally.acknowledged_late + tally.refused_late;
    report.demand(answered > 0, || "no queued write was answered".to_owned());
    Ok(report)
}

/// "Stays for good": everything is looked for now, and again after all nodes were restarted.
async fn check_twice(cluster: &mut Cluster, ledger: &Arc<Ledger>, report: &mut Report) -> anyhow::Result<()> {
    for when in ["after the last pause", "after a restart of all"] {
        if let Err(error) = cluster.wait_until_equal(HEAL_PATIENCE).await {
            report.violate(format!("{when}: {error:#}"));
        }
        ledger.check(&cluster.addresses(), report).await;
        if when == "after the last pause" {
            for node in &mut cluster.nodes {
                node.kill()?;
            }
            cluster.repair(START_PATIENCE).await?;
        }
    }
    Ok(())
}

async fn one_round(
    cluster: &mut Cluster,
    ledger: &Arc<Ledger>,
    round: usize,
    pause: Duration,
    tally: &mut Tally,
    report: &mut Report,
) -> anyhow::Result<()> {
    let leader = cluster.wait_for_leader(HEAL_PATIENCE).await?;
    let address = cluster.nodes[leader].spec.address();
    let survivors: Vec<_> = cluster
        .addresses()
        .into_iter()
        .enumerate()
        .filter(|(place, _)| *place != leader)
        .collect();
    let mut clients = Vec::new();
    for _ in 0..QUEUED + QUEUED_READS {
        let mut client = Client::new(address, PATIENCE);
        client.connect().await?;
        clients.push(client);
    }
    let readers = clients.split_off(QUEUED);

    cluster.nodes[leader].pause()?;
    let paused = Instant::now();
    let queued: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            let ledger = Arc::clone(ledger);
            tokio::spawn(async move { ledger.write(&mut client, leader).await })
        })
        .collect();
    if first_acknowledged(ledger, &survivors, paused, pause.max(PAUSE_MAX))
        .await
        .is_some()
    {
        tally.new_leaders += 1;
    }
    // The register is set through the new leader, and only then are the reads sent to the old one.
    let mut other = Client::new(survivors[0].1, PATIENCE);
    let register = format!("round {round}");
    let set = other.publish(REGISTER, &register).await.is_done();
    let reads: Vec<_> = readers
        .into_iter()
        .map(|mut client| tokio::spawn(async move { client.get(REGISTER, true).await }))
        .collect();
    sleep((paused + pause).saturating_duration_since(Instant::now())).await;
    cluster.nodes[leader].resume()?;

    for write in queued {
        match write.await? {
            Said::Done => tally.acknowledged_late += 1,
            Said::Refused | Said::Unknown => tally.refused_late += 1,
        }
    }
    for read in reads {
        match read.await? {
            Outcome::Done(found) if set && found.as_deref() != Some(&register) => report.violate(format!(
                "round {round}: a linearizable read sent to the sleeping leader after {register:?} was acknowledged gave {found:?}"
            )),
            Outcome::Done(_) => tally.fresh_reads += 1,
            Outcome::Refused(_) | Outcome::Unknown(_) => {}
        }
    }
    cluster.nodes[leader].wait_until_it_writes(HEAL_PATIENCE).await?;
    Ok(())
}
