//! Scaling real processes out and in while clients write: 1, 3, 5 and 3 nodes, a rolling restart by
//! SIGTERM, and a node that lost its disk and comes back, all by `rnacos cluster` as an operator would.

use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use loadtest::process::Scratch;
use tokio::time::Instant;

use crate::cluster::{Cluster, HEAL_PATIENCE, START_PATIENCE};
use crate::ledger::{Ledger, Writers};
use crate::node::Node;
use crate::verdict::{Durations, Report, tell};

/// Nodes at the most, and those that stay.
const MOST: usize = 5;
const STAY: usize = 3;

/// A node that was taken out finds out and ends within this.
const FINDS_OUT: Duration = Duration::from_secs(30);

/// Promise: a node without load of its own ends this soon after SIGTERM, handing over included.
const STOPS_WITHIN: Duration = Duration::from_secs(2);

/// Runs the whole story once.
pub async fn run(server: &Path, scratch: &Scratch, writers: usize, rate: f64) -> anyhow::Result<Report> {
    let mut report = Report::new("scale");
    let specs = Cluster::specs(server, MOST, scratch.path())?;
    let mut cluster = Cluster {
        nodes: specs.into_iter().map(Node::new).collect(),
    };
    start(&mut cluster.nodes[0]).await?;
    // Those that are not there yet refuse the connection, which is a definite answer.
    let addresses = cluster.addresses()[..STAY].to_vec();
    let ledger = Arc::new(Ledger::default());
    let load = Writers::start(&ledger, &addresses, writers, rate);
    for node in &mut cluster.nodes[1..] {
        start(node).await?;
    }
    tell(format!("{MOST} nodes"));
    leave(server, &mut cluster, &mut report).await?;
    restart_all(&mut cluster, &mut report).await?;
    lose_a_disk(server, &mut cluster, &mut report).await?;
    load.stop().await;
    ledger.settle().await;
    if let Err(error) = cluster.wait_until_equal(HEAL_PATIENCE).await {
        report.violate(format!("at the end: {error:#}"));
    }
    let status = operator(server, &cluster.nodes[0], &["status"]).await?;
    report.demand(status.status.code() == Some(0), || {
        format!("`rnacos cluster status` at the end: {}", said(&status))
    });
    ledger.check(&addresses, &mut report).await;
    Ok(report)
}

async fn start(node: &mut Node) -> anyhow::Result<()> {
    node.start()?;
    node.wait_until_it_writes(START_PATIENCE).await?;
    Ok(())
}

/// Five nodes become three; the two that leave say so and end.
async fn leave(server: &Path, cluster: &mut Cluster, report: &mut Report) -> anyhow::Result<()> {
    let mut removals = Durations::default();
    while cluster.nodes.len() > STAY {
        let id = cluster.nodes.len();
        let began = Instant::now();
        let output = operator(server, &cluster.nodes[0], &["remove", &id.to_string()]).await?;
        removals.add(began.elapsed());
        ensure!(output.status.code() == Some(0), "remove {id}: {}", said(&output));
        let mut gone = cluster.nodes.pop().context("more nodes than stay")?;
        let ended = wait_for_exit(&mut gone).await?;
        report.demand(
            ended.code == Some(1) && ended.said.contains("was removed from the cluster"),
            || {
                format!(
                    "node {id} was taken out and ended with {:?}: {}",
                    ended.code, ended.said
                )
            },
        );
    }
    report.figure("removal of a node", &removals);
    tell(format!("{STAY} nodes"));
    Ok(())
}

/// SIGTERM, start again, wait until it serves: one node after the other.
async fn restart_all(cluster: &mut Cluster, report: &mut Report) -> anyhow::Result<()> {
    let mut stops = Durations::default();
    for place in 0..cluster.nodes.len() {
        let node = &mut cluster.nodes[place];
        let began = Instant::now();
        let status = node.terminate(FINDS_OUT).await?;
        stops.add(began.elapsed());
        report.demand(status.is_some_and(|status| status.success()), || {
            format!("node {} after SIGTERM: {status:?}", place + 1)
        });
        start(node).await?;
    }
    report.figure("SIGTERM to the end of the process", &stops);
    report.demand(stops.max() < STOPS_WITHIN, || {
        format!("a stop took more than {} ms", STOPS_WITHIN.as_millis())
    });
    tell("restarted one after the other");
    Ok(())
}

/// The last node loses its disk: it is refused until it is taken out, and then joins anew.
async fn lose_a_disk(server: &Path, cluster: &mut Cluster, report: &mut Report) -> anyhow::Result<()> {
    let place = cluster.nodes.len() - 1;
    let id = (place + 1).to_string();
    cluster.nodes[place].kill()?;
    std::fs::remove_dir_all(&cluster.nodes[place].spec.data)?;
    cluster.nodes[place].start()?;
    let refused = wait_for_exit(&mut cluster.nodes[place]).await?;
    report.demand(
        refused.said.contains(&format!("rnacos cluster remove {id}")),
        || {
            format!(
                "node {id} started without its data ended with {:?}: {}",
                refused.code, refused.said
            )
        },
    );
    let output = operator(server, &cluster.nodes[0], &["remove", &id]).await?;
    ensure!(output.status.code() == Some(0), "remove {id}: {}", said(&output));
    start(&mut cluster.nodes[place]).await?;
    tell(format!("node {id} lost its disk and is back"));
    Ok(())
}

/// How a process ended by itself.
struct Ended {
    code: Option<i32>,
    said: String,
}

async fn wait_for_exit(node: &mut Node) -> anyhow::Result<Ended> {
    let deadline = Instant::now() + FINDS_OUT;
    loop {
        let said = node.said();
        if let Some(status) = node.ended()? {
            // What it said last may arrive after its end.
            let said = if node.said().is_empty() { said } else { node.said() };
            node.wait_for_end(Duration::ZERO).await?;
            return Ok(Ended {
                code: status.code(),
                said,
            });
        }
        if Instant::now() > deadline {
            node.kill()?;
            return Ok(Ended { code: None, said });
        }
        tokio::time::sleep(crate::node::POLL).await;
    }
}

/// `rnacos cluster …` by way of this node.
async fn operator(server: &Path, node: &Node, arguments: &[&str]) -> anyhow::Result<Output> {
    let mut command = std::process::Command::new(server);
    command
        .arg("cluster")
        .args(arguments)
        .args(["--at", &node.spec.advertised]);
    // A setting of this machine's is none of the run's.
    command.env_clear().current_dir(&node.spec.directory);
    Ok(tokio::task::spawn_blocking(move || command.output()).await??)
}

fn said(output: &Output) -> String {
    format!(
        "status {:?}: {}{}",
        output.status.code(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
