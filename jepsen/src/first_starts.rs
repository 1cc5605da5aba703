//! First starts on fresh folders while the machine is busy: N of N serve what they acknowledge.
//!
//! r-nacos 0.8.8 may acknowledge publishes after a first start on a busy machine and serve none of them.

use std::path::Path;
use std::time::Duration;

use loadtest::ports;
use loadtest::process::Scratch;
use loadtest::procfs;
use tokio::time::Instant;

use crate::api::{Client, Outcome};
use crate::cluster::START_PATIENCE;
use crate::load::Load;
use crate::node::{Node, Spec};
use crate::verdict::{Durations, Report, tell};

/// Writes per start.
const WRITES: usize = 20;

/// Patience of one request on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// Starts `count` servers one after the other, each on a fresh folder, each while the load average is
/// above `bound`. Each must give back what it acknowledged: at once, after kill -9, and after SIGTERM.
pub async fn run(
    server: &Path,
    scratch: &Scratch,
    count: usize,
    load: &str,
    bound: f64,
) -> anyhow::Result<Report> {
    let mut report = Report::new("first-starts");
    let _load = Load::start(load, scratch.path())?;
    let (mut first_writes, mut ends) = (Durations::default(), Durations::default());
    let mut lowest_load = f64::INFINITY;
    let mut right = 0;
    for round in 1..=count {
        if load != "none" && !Load::wait_until_above(bound).await? {
            report.void(format!("the load average did not rise above {bound}"));
            break;
        }
        lowest_load = lowest_load.min(procfs::load_average()?);
        let spec = Spec::lone(
            server.into(),
            1,
            ports::pairs(1)?[0],
            scratch.path().join(format!("start{round}")),
        )?;
        let mut node = Node::new(spec);
        match one_start(&mut node).await {
            Ok((first_write, end)) => {
                first_writes.add(first_write);
                ends.add(end);
                right += 1;
            }
            Err(error) => report.violate(format!("start {round}: {error:#}")),
        }
        node.kill()?;
        tell(format!(
            "start {round} of {count}: {right} right, load average {:.1}",
            procfs::load_average()?
        ));
        std::fs::remove_dir_all(&node.spec.directory)?;
    }
    report.figure("serve what they acknowledged", format!("{right} of {count}"));
    report.figure("from start to first acknowledged write", &first_writes);
    report.figure("from SIGTERM to the end", &ends);
    report.figure("lowest load average at a start", format!("{lowest_load:.1}"));
    report.demand(right > 0, || "no start succeeded".to_owned());
    Ok(report)
}

/// Time to the first acknowledged write of the first start, and from SIGTERM to the end.
async fn one_start(node: &mut Node) -> anyhow::Result<(Duration, Duration)> {
    node.start()?;
    let taken = node.wait_until_it_writes(START_PATIENCE).await?;
    let mut client = node.client(PATIENCE);
    for number in 0..WRITES {
        let published = client.publish(&format!("first.{number}"), &content(number)).await;
        anyhow::ensure!(published.is_done(), "publish {number}: {published:?}");
    }
    read_back(&mut client, "at once").await?;
    node.kill()?;
    node.start()?;
    node.wait_until_it_writes(START_PATIENCE).await?;
    read_back(&mut node.client(PATIENCE), "after kill -9").await?;
    let asked = Instant::now();
    let ended = node.terminate(Duration::from_secs(30)).await?;
    let end = asked.elapsed();
    anyhow::ensure!(ended.is_some(), "did not end within 30 s of SIGTERM");
    node.start()?;
    node.wait_until_it_writes(START_PATIENCE).await?;
    read_back(&mut node.client(PATIENCE), "after SIGTERM").await?;
    Ok((taken, end))
}

fn content(number: usize) -> String {
    format!("content {number} of a first start")
}

async fn read_back(client: &mut Client, when: &str) -> anyhow::Result<()> {
    for number in 0..WRITES {
        let found = client.get(&format!("first.{number}"), false).await;
        anyhow::ensure!(
            found == Outcome::Done(Some(content(number))),
            "read {number} {when}: {found:?}"
        );
    }
    Ok(())
}
