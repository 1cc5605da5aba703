//! What strace shows: a sync on a majority before each answer, and how many writes share one.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use loadtest::process::Scratch;
use loadtest::run::{Check, Plan, Work};
use tokio::time::sleep;

use crate::api::{Client, Outcome};
use crate::cluster::Cluster;
use crate::strace::{self, Call};
use crate::verdict::{Report, tell};

/// Writes that are followed one by one.
const FOLLOWED: usize = 30;

/// What is written to a disk synced, or to a client.
const CALLS: &str = "fdatasync,fsync,write,pwrite64,writev,sendto,sendmsg";

/// Numbers of clients for which writes per sync are counted.
const CLIENTS: [usize; 3] = [1, 32, 256];

/// Length of each of these runs.
const COUNTING: Duration = Duration::from_secs(3);

/// Follows single writes through a cluster of three, then counts syncs under load with one node and three.
pub async fn run(server: &Path, scratch: &Scratch) -> anyhow::Result<Report> {
    let mut report = Report::new("syncs");
    if !strace::available() {
        report.void("strace cannot be used here (not installed, or tracing is forbidden)");
        return Ok(report);
    }
    follow(server, scratch, &mut report)
        .await
        .context("follow single writes")?;
    for nodes in [1, 3] {
        count(server, scratch, nodes, &mut report)
            .await
            .with_context(|| format!("count syncs of {nodes} nodes"))?;
    }
    Ok(report)
}

/// Nodes under strace in a folder of their own, and the files of what they called.
async fn traced(
    server: &Path,
    directory: &Path,
    nodes: usize,
    calls: &str,
) -> anyhow::Result<(Cluster, Vec<PathBuf>)> {
    let mut specs = Cluster::specs(server, nodes, directory)?;
    let mut files = Vec::new();
    for spec in &mut specs {
        let file = spec.directory.join("calls.strace");
        spec.wrapper = strace::wrapper(calls, 48, &file);
        files.push(file);
    }
    Ok((Cluster::form(specs).await?, files))
}

fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

/// Finished syncs of the log (not of the mark file, nor of the state) within a span of time.
fn log_syncs(calls: &[Call], from: f64, to: f64) -> usize {
    let within = |call: &&Call| call.entered >= from && call.returned <= to;
    calls.iter().filter(is_log_sync).filter(within).count()
}

fn is_log_sync(call: &&Call) -> bool {
    matches!(call.name.as_str(), "fdatasync" | "fsync") && call.succeeded && call.arguments.contains("/wal/")
}

fn is_answer(call: &&Call) -> bool {
    call.arguments.contains("HTTP/1.1 200")
}

async fn follow(server: &Path, scratch: &Scratch, report: &mut Report) -> anyhow::Result<()> {
    let (cluster, files) = traced(server, &scratch.path().join("follow"), 3, CALLS).await?;
    let addresses = cluster.addresses();
    let mut writes = Vec::new();
    for number in 0..FOLLOWED {
        let node = number % addresses.len();
        let mut client = Client::new(addresses[node], Duration::from_secs(10));
        let sent = now();
        let outcome = client.publish(&format!("sync.{number}"), "followed").await;
        if outcome == Outcome::Done(()) {
            writes.push((node, sent, now()));
        }
        // Apart from each other, so that no write is covered by the sync of another.
        sleep(Duration::from_millis(30)).await;
    }
    // strace writes its lines after the calls; the servers' end makes it finish the files.
    drop(cluster);
    let calls: Vec<Vec<Call>> = files
        .iter()
        .map(|file| read_calls(file))
        .collect::<Result<_, _>>()?;
    let mut on_majority = 0;
    let mut fewest = usize::MAX;
    for (node, sent, received) in &writes {
        let answer = calls[*node]
            .iter()
            .filter(is_answer)
            .find(|call| call.entered >= *sent && call.entered <= *received);
        let Some(answer) = answer else {
            report.void(format!(
                "the answer sent by node {} is not in its trace",
                node + 1
            ));
            continue;
        };
        let synced = calls
            .iter()
            .filter(|calls| log_syncs(calls, *sent, answer.entered) > 0)
            .count();
        fewest = fewest.min(synced);
        if synced * 2 > calls.len() {
            on_majority += 1;
        } else {
            report.violate(format!(
                "a write was answered by node {} when {synced} of 3 nodes had synced",
                node + 1
            ));
        }
    }
    report.figure(
        "answers after a sync on a majority",
        format!("{on_majority} of {}", writes.len()),
    );
    report.demand(writes.len() == FOLLOWED, || {
        format!("only {} of {FOLLOWED} writes were acknowledged", writes.len())
    });
    tell(format!(
        "followed {} writes, at least {fewest} nodes had synced before each answer",
        writes.len()
    ));
    Ok(())
}

async fn count(server: &Path, scratch: &Scratch, nodes: usize, report: &mut Report) -> anyhow::Result<()> {
    let directory = scratch.path().join(format!("count{nodes}"));
    let (mut cluster, files) = traced(server, &directory, nodes, "fdatasync,fsync").await?;
    let leader = cluster.leader().await.context("no leader")?;
    let mut runs = Vec::new();
    for clients in CLIENTS {
        let from = now();
        let figures = loadtest::run::run(load(&cluster, clients)).await?;
        runs.push((clients, figures, from, now()));
    }
    drop(cluster);
    let calls = read_calls(&files[leader])?;
    for (clients, figures, from, to) in runs {
        let syncs = log_syncs(&calls, from, to);
        report.demand(figures.operations > 0 && syncs > 0, || {
            format!(
                "{clients} clients: {} writes, {syncs} syncs in the trace",
                figures.operations
            )
        });
        if figures.errors.total() > 0 {
            report.violate(format!("{clients} clients: {:?}", figures.errors));
        }
        #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
        let share = figures.operations as f64 / syncs.max(1) as f64;
        let name = format!("{nodes} node(s), {clients} clients: writes per sync on the leader");
        report.figure(
            &name,
            format!("{share:.1} ({} writes, {syncs} syncs)", figures.operations),
        );
    }
    Ok(())
}

fn load(cluster: &Cluster, clients: usize) -> Plan {
    Plan {
        name: "syncs".to_owned(),
        addresses: cluster.addresses().iter().map(ToString::to_string).collect(),
        work: Work::Write,
        connections: clients,
        duration: COUNTING,
        warm_up: Duration::ZERO,
        size: 256,
        keys: 1000,
        rate: None,
        check: Check::Content,
        seed: clients as u64,
        pids: Vec::new(),
        sync_metric: String::new(),
    }
}

fn read_calls(file: &Path) -> anyhow::Result<Vec<Call>> {
    let bytes = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
    Ok(strace::parse(&String::from_utf8_lossy(&bytes)))
}
