//! Side by side: peers started from a small file, taking turns A B A B, ratios at the end.
//!
//! On a machine whose noise is larger than the differences, only two things are worth quoting: CPU per
//! operation, and ratios between runs that lay next to each other. So every round gives each peer one
//! short run per kind of work, and the report shows medians and the spread of the rounds' ratios.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout};

use crate::figures::Figures;
use crate::http::{Connection, encode, write_form, write_request};
use crate::ports::{self, GRPC_OFFSET};
use crate::process::{Child, Program, Scratch};
use crate::run::{CONFIGS, Check, Plan, Work, run};

/// A peer must serve what it acknowledged within this time after its start (Java takes up to a minute).
const START_PATIENCE: Duration = Duration::from_secs(120);

/// A single question whether a peer serves may take this long.
const PROBE_PATIENCE: Duration = Duration::from_secs(5);

/// The comparison, as the file says it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// Turns each peer takes.
    #[serde(default = "default_rounds")]
    pub rounds: usize,
    /// Length of a measured part, in seconds.
    #[serde(default = "default_seconds")]
    pub seconds: f64,
    /// Load before each measured part, in seconds.
    #[serde(default = "default_warm_up")]
    pub warm_up_seconds: f64,
    /// Numbers of connections to run with, each on its own.
    #[serde(default = "default_connections")]
    pub connections: Vec<usize>,
    /// Kinds of work to run, each on its own.
    #[serde(default = "default_work")]
    pub work: Vec<Work>,
    /// Bytes of a content.
    #[serde(default = "default_size")]
    pub size: usize,
    /// Number of different configs.
    #[serde(default = "default_keys")]
    pub keys: u32,
    /// Whom to compare; ratios are to the first.
    pub peers: Vec<Peer>,
}

/// One of those compared: a lone server or a cluster.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Name in the report.
    pub name: String,
    /// Its processes, started one after the other.
    pub nodes: Vec<Node>,
    /// How closely its answers are looked at; `length` is for the floor.
    #[serde(default = "default_check")]
    pub check: Check,
    /// Counter of syncs in its `/metrics`, if it has one.
    #[serde(default)]
    pub sync_metric: String,
}

/// One process of a peer.
///
/// In command and environment these are replaced: `{http}` and `{grpc}` (a free pair), `{spare}` (another
/// free port), `{dir}` (an empty folder of its own), and `{http.N}`, `{grpc.N}` of the peer's N-th node.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Its whole environment (besides PATH, HOME and TMPDIR).
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
}

fn default_rounds() -> usize {
    5
}
fn default_seconds() -> f64 {
    4.0
}
fn default_warm_up() -> f64 {
    1.0
}
fn default_connections() -> Vec<usize> {
    vec![32]
}
fn default_work() -> Vec<Work> {
    vec![Work::Write, Work::Read]
}
fn default_size() -> usize {
    1024
}
fn default_keys() -> u32 {
    1000
}
fn default_check() -> Check {
    Check::Content
}

/// A started peer; its processes end with it.
struct Running {
    peer: Peer,
    addresses: Vec<String>,
    children: Vec<Child>,
}

/// All runs of a comparison and what follows from them.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Every run, in the order it happened.
    pub runs: Vec<Figures>,
    /// One row per kind of work, number of connections and peer.
    pub rows: Vec<Row>,
}

/// Medians of one peer over the rounds.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Name of the peer.
    pub name: String,
    /// Kind of work.
    pub work: &'static str,
    /// Number of connections.
    pub connections: usize,
    /// Median of right answers per second.
    pub per_second: f64,
    /// Median of server CPU per operation, in µs, all processes of the peer.
    pub cpu_us_per_op: f64,
    /// CPU ratio to the first peer in the same round: lowest, median and highest. Below 1 is better.
    pub cpu_ratio: [f64; 3],
    /// Wrong, refused, missing and lost answers over all rounds.
    pub errors: u64,
}

impl Comparison {
    /// Reads the file; it is JSON.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let comparison: Self =
            serde_json::from_str(&text).with_context(|| format!("understand {}", path.display()))?;
        anyhow::ensure!(!comparison.peers.is_empty(), "{} names no peers", path.display());
        anyhow::ensure!(
            comparison.rounds > 0,
            "{}: rounds must be at least 1",
            path.display()
        );
        Ok(comparison)
    }

    /// Starts the peers, lets them take turns, and reports. `tell` gets a line per run as it happens.
    pub async fn run(&self, scratch: &Scratch, mut tell: impl FnMut(&str)) -> anyhow::Result<Report> {
        let mut running = Vec::new();
        for (number, peer) in self.peers.iter().enumerate() {
            let started = Running::start(peer, &scratch.path().join(format!("peer{}", number + 1))).await;
            running.push(started.with_context(|| format!("start {}", peer.name))?);
            tell(&format!("{} serves what it acknowledges", peer.name));
        }
        let mut runs = Vec::new();
        for round in 0..self.rounds {
            for work in &self.work {
                for connections in &self.connections {
                    for peer in &mut running {
                        let figures = run(self.plan(peer, *work, *connections, round)).await?;
                        tell(&figures.line());
                        runs.push(figures);
                        peer.still_alive()?;
                    }
                }
            }
        }
        let rows = self.rows(&runs);
        Ok(Report { runs, rows })
    }

    fn plan(&self, running: &Running, work: Work, connections: usize, round: usize) -> Plan {
        Plan {
            name: running.peer.name.clone(),
            addresses: running.addresses.clone(),
            work,
            connections,
            duration: Duration::from_secs_f64(self.seconds),
            warm_up: Duration::from_secs_f64(self.warm_up_seconds),
            size: self.size,
            keys: self.keys,
            rate: None,
            check: running.peer.check,
            seed: round as u64 + 1,
            pids: running.children.iter().map(Child::pid).collect(),
            sync_metric: running.peer.sync_metric.clone(),
        }
    }

    fn rows(&self, runs: &[Figures]) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut groups: BTreeMap<(&'static str, usize), BTreeMap<&str, Vec<&Figures>>> = BTreeMap::new();
        for figures in runs {
            let group = groups.entry((figures.work, figures.connections)).or_default();
            group.entry(&figures.name).or_default().push(figures);
        }
        for ((work, connections), of_peers) in &groups {
            let first = self
                .peers
                .first()
                .and_then(|peer| of_peers.get(peer.name.as_str()));
            for peer in &self.peers {
                let Some(mine) = of_peers.get(peer.name.as_str()) else {
                    continue;
                };
                let cpu = |figures: &&Figures| figures.server_cpu_us_per_op.unwrap_or(0.0);
                let ratios = mine
                    .iter()
                    .zip(first.into_iter().flatten())
                    .map(|(mine, first)| cpu(mine) / cpu(first));
                let mut ratios: Vec<f64> = ratios.filter(|ratio| ratio.is_finite()).collect();
                let middle = median(&mut ratios);
                rows.push(Row {
                    name: peer.name.clone(),
                    work,
                    connections: *connections,
                    per_second: median(
                        &mut mine.iter().map(|figures| figures.per_second).collect::<Vec<_>>(),
                    ),
                    cpu_us_per_op: median(&mut mine.iter().map(cpu).collect::<Vec<_>>()),
                    cpu_ratio: [
                        ratios.first().copied().unwrap_or(0.0),
                        middle,
                        ratios.last().copied().unwrap_or(0.0),
                    ],
                    errors: mine.iter().map(|figures| figures.errors.total()).sum(),
                });
            }
        }
        rows
    }
}

/// Sorts and returns the middle value; 0 of nothing.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

impl Report {
    /// The rows as a table in Markdown.
    #[must_use]
    pub fn table(&self) -> String {
        let mut out = Vec::new();
        let _ = writeln!(
            out,
            "| work | conns | peer | op/s | server CPU µs/op | CPU ratio to the first (low, median, high) | errors |"
        );
        let _ = writeln!(out, "|---|---|---|---|---|---|---|");
        for row in &self.rows {
            let [low, middle, high] = row.cpu_ratio;
            let _ = writeln!(
                out,
                "| {} | {} | {} | {:.0} | {:.1} | {low:.2}, **{middle:.2}**, {high:.2} | {} |",
                row.work, row.connections, row.name, row.per_second, row.cpu_us_per_op, row.errors
            );
        }
        String::from_utf8_lossy(&out).into_owned()
    }
}

impl Running {
    /// Starts the nodes one after the other, each once the one before serves what it acknowledged.
    async fn start(peer: &Peer, directory: &Path) -> anyhow::Result<Self> {
        let ports = ports::pairs(peer.nodes.len() * 2)?;
        let http: Vec<u16> = ports.iter().copied().step_by(2).collect();
        let mut running = Self {
            peer: peer.clone(),
            addresses: Vec::new(),
            children: Vec::new(),
        };
        for (number, node) in peer.nodes.iter().enumerate() {
            let own = directory.join(format!("node{}", number + 1));
            std::fs::create_dir_all(&own)?;
            let fill = |text: &String| fill(text, number, &http, ports[number * 2 + 1], &own);
            let mut words = node.command.iter().map(fill);
            let path = words.next().context("a node's command is empty")?;
            // A path relative to where the harness was called; a bare name is looked up on the PATH.
            let path = if path.contains('/') {
                std::fs::canonicalize(&path).with_context(|| format!("find {path}"))?
            } else {
                path.into()
            };
            let program = Program {
                path,
                arguments: words.map(Into::into).collect(),
                environment: node
                    .environment
                    .iter()
                    .map(|(name, value)| (name.clone(), fill(value)))
                    .collect(),
                directory: own.clone(),
                output: own.join("output.log"),
            };
            running.children.push(program.start()?);
            running.addresses.push(format!("127.0.0.1:{}", http[number]));
            let address = running.addresses[number].clone();
            let served = wait_until_it_serves(&address, peer.check, || running.still_alive()).await;
            served.with_context(|| format!("node {}", number + 1))?;
        }
        Ok(running)
    }

    fn still_alive(&mut self) -> anyhow::Result<()> {
        for (number, child) in self.children.iter_mut().enumerate() {
            if let Some(status) = child.ended()? {
                let how = crate::process::describe(status);
                anyhow::bail!(
                    "{}: node {} ended ({how}); it said:\n{}",
                    self.peer.name,
                    number + 1,
                    child.said()
                );
            }
        }
        Ok(())
    }
}

fn fill(text: &str, number: usize, http: &[u16], spare: u16, directory: &Path) -> String {
    let mut out = text
        .replace("{http}", &http[number].to_string())
        .replace("{grpc}", &(http[number] + GRPC_OFFSET).to_string())
        .replace("{spare}", &spare.to_string())
        .replace("{dir}", &directory.to_string_lossy());
    for (other, port) in http.iter().enumerate() {
        out = out
            .replace(&format!("{{http.{}}}", other + 1), &port.to_string())
            .replace(
                &format!("{{grpc.{}}}", other + 1),
                &(port + GRPC_OFFSET).to_string(),
            );
    }
    out
}

/// Waits until the address gives back what it acknowledged; fails after two minutes, or as soon as
/// `alive`, asked before each try, fails.
pub async fn wait_until_it_serves(
    address: &str,
    check: Check,
    mut alive: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + START_PATIENCE;
    let mut last = String::new();
    while Instant::now() < deadline {
        alive()?;
        match timeout(PROBE_PATIENCE, serves(address, check)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => last = error.to_string(),
            Err(_) => last = format!("no answer within {} s", PROBE_PATIENCE.as_secs()),
        }
        sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("{address} does not serve what it acknowledges: {last}")
}

/// Publishes one config and reads it back: r-nacos may acknowledge what it does not serve.
async fn serves(address: &str, check: Check) -> anyhow::Result<()> {
    let mut connection = Connection::open(address.parse()?).await?;
    let mut request = Vec::new();
    let form = encode(&[
        ("dataId", "loadtest.probe"),
        ("group", "loadtest"),
        ("content", "here"),
    ]);
    write_form(&mut request, "POST", address, CONFIGS, form.as_bytes());
    let answer = connection.exchange(&request).await?;
    anyhow::ensure!(
        answer.status == 200 && answer.body == b"true",
        "publish: {} {}",
        answer.status,
        answer.text()
    );
    let query = encode(&[("dataId", "loadtest.probe"), ("group", "loadtest")]);
    write_request(&mut request, "GET", address, &format!("{CONFIGS}?{query}"));
    let answer = connection.exchange(&request).await?;
    let right = check == Check::Length || answer.body == b"here";
    anyhow::ensure!(
        answer.status == 200 && right,
        "read back: {} {}",
        answer.status,
        answer.text()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_name_own_and_other_ports() {
        let text = "{http} {grpc} {spare} {dir} {http.1} {grpc.1}";
        let filled = fill(text, 1, &[20000, 22000], 24000, Path::new("/x"));
        assert_eq!(filled, "22000 23000 24000 /x 20000 21000");
    }

    #[test]
    fn a_misspelt_field_is_an_error() {
        let wrong = r#"{"peers": [], "round": 3}"#;
        assert!(serde_json::from_str::<Comparison>(wrong).is_err());
    }

    #[test]
    fn the_median_is_the_middle_of_the_sorted_values() {
        assert!((median(&mut [3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!(median(&mut []).abs() < f64::EPSILON);
    }
}
