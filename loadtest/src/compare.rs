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

use crate::figures::Figures;
use crate::peers::{Peer, Running};
use crate::process::Scratch;
use crate::run::{Plan, Work, run};

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

    /// Keeps these peers only, by name; all if none is named. Fails if one is not there.
    pub fn keep(&mut self, names: &[String]) -> anyhow::Result<()> {
        for name in names {
            anyhow::ensure!(
                self.peers.iter().any(|peer| peer.name == *name),
                "there is no peer {name:?} among {:?}",
                self.peers.iter().map(|peer| &peer.name).collect::<Vec<_>>()
            );
        }
        self.peers
            .retain(|peer| names.is_empty() || names.contains(&peer.name));
        Ok(())
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
            pids: running.pids(),
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

#[cfg(test)]
mod tests {
    use super::*;

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
