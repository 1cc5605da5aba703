//! What a node takes to hold many configs: memory, disk, and the time to be there again.
//!
//! Every config is published once, so each has one history row; contents are random, so compressing them
//! gains nothing. After the last write the node is left alone for a while, because what it then still
//! holds is what its operator has to pay for; then every config is read back.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::content::Contents;
use crate::procfs;
use crate::run::{Plan, resolve};
use crate::stored::{publish_all, read_back};

/// How often memory and disk are looked at while the node settles.
const SAMPLE: Duration = Duration::from_secs(1);

/// What a filled node takes.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Footprint {
    /// Configs that were published.
    pub configs: u32,
    /// Bytes of one content.
    pub content_bytes: usize,
    /// How long publishing them took, in seconds.
    pub fill_seconds: f64,
    /// CPU of the server for each of them, in µs.
    pub server_cpu_us_per_write: f64,
    /// How long the node was left alone, in seconds.
    pub settle_seconds: f64,
    /// Resident memory after that.
    pub rss_mib: f64,
    /// Highest resident memory so far.
    pub rss_peak_mib: f64,
    /// Blocks of all files in its data folder after that.
    pub disk_mib: f64,
    /// The most of them that was seen since the last write.
    pub disk_peak_mib: f64,
    /// Configs that were not given back as they were published.
    pub unreadable: u64,
    /// Before it held anything; known when the harness started it.
    pub empty: Option<Start>,
    /// The same folder after a restart; known when the harness started it.
    pub again: Option<Start>,
}

/// A start of the server.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Start {
    /// From the start of the process until it gave back what it had acknowledged, in seconds.
    pub seconds: f64,
    /// Resident memory some seconds later.
    pub rss_mib: f64,
    /// Blocks of all files in its data folder.
    pub disk_mib: f64,
    /// Configs that were not given back as they were published.
    pub unreadable: u64,
}

/// Fills the node behind `plan.addresses`, lets it settle and looks at it. `plan.pids` and `folder` are its
/// processes and data folder. Fails when it could not be filled; what it does not give back is counted.
pub async fn fill(plan: &Plan, folder: &Path, settle: Duration) -> anyhow::Result<Footprint> {
    let addresses = resolve(&plan.addresses)?;
    let contents = Contents::new(plan.seed, plan.size);
    let before = procfs::usage(&plan.pids)?;
    let started = Instant::now();
    publish_all(plan, &addresses, &contents).await?;
    let fill_seconds = started.elapsed().as_secs_f64();
    let cpu = procfs::usage(&plan.pids)?.since(before).cpu;
    let mut disk_peak = 0;
    let settled_at = Instant::now() + settle;
    while Instant::now() < settled_at {
        disk_peak = disk_peak.max(disk_bytes(folder)?);
        sleep(SAMPLE.min(settled_at - Instant::now())).await;
    }
    let usage = procfs::usage(&plan.pids)?;
    let disk = disk_bytes(folder)?;
    Ok(Footprint {
        configs: plan.keys,
        content_bytes: plan.size,
        fill_seconds,
        server_cpu_us_per_write: cpu.as_secs_f64() * 1e6 / f64::from(plan.keys.max(1)),
        settle_seconds: settle.as_secs_f64(),
        rss_mib: mib(usage.rss_bytes),
        rss_peak_mib: mib(usage.rss_peak_bytes),
        disk_mib: mib(disk),
        disk_peak_mib: mib(disk_peak.max(disk)),
        unreadable: unreadable(plan, &contents).await?,
        empty: None,
        again: None,
    })
}

/// Looks at a server that was started `seconds` before it answered.
pub async fn look(plan: &Plan, folder: &Path, seconds: f64, filled: bool) -> anyhow::Result<Start> {
    let mut start = Start {
        seconds,
        rss_mib: mib(procfs::usage(&plan.pids)?.rss_bytes),
        disk_mib: mib(disk_bytes(folder)?),
        unreadable: 0,
    };
    if filled {
        let contents = Contents::new(plan.seed, plan.size);
        start.unreadable = unreadable(plan, &contents).await?;
    }
    Ok(start)
}

/// Number of configs that are not given back as they were published.
async fn unreadable(plan: &Plan, contents: &Contents) -> anyhow::Result<u64> {
    let published: Vec<_> = (0..plan.keys).map(|key| (key, 0)).collect();
    let errors = read_back(plan, &resolve(&plan.addresses)?, contents, &published).await?;
    Ok(errors.lost)
}

impl Footprint {
    /// Configs that were not given back, at any time.
    #[must_use]
    pub fn wrong(&self) -> u64 {
        self.unreadable + self.again.map_or(0, |start| start.unreadable)
    }

    /// Some lines for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!(
            "{} configs of {} B in {:.0} s, {:.1} µs CPU/write\n\
             {:.0} s later: {:.0} MiB RSS (peak {:.0}), {:.0} MiB on disk (peak {:.0}), {} not readable",
            self.configs,
            self.content_bytes,
            self.fill_seconds,
            self.server_cpu_us_per_write,
            self.settle_seconds,
            self.rss_mib,
            self.rss_peak_mib,
            self.disk_mib,
            self.disk_peak_mib,
            self.unreadable
        );
        for (name, start) in [("empty", self.empty), ("started again", self.again)] {
            let Some(start) = start else { continue };
            text += &format!(
                "\n{name}: {:.2} s to the first answer, {:.0} MiB RSS, {:.0} MiB on disk, {} not readable",
                start.seconds, start.rss_mib, start.disk_mib, start.unreadable
            );
        }
        text
    }
}

/// Blocks of all files below `folder`, in bytes: what a sparse file does not fill takes nothing.
pub fn disk_bytes(folder: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // A server deletes files meanwhile.
        sum += match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => match disk_bytes(&entry.path()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
                found => found?,
            },
            Ok(metadata) => metadata.blocks() * 512,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
    }
    Ok(sum)
}

fn mib(bytes: u64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "bytes of one machine stay far below 2^52"
    )]
    let bytes = bytes as f64;
    bytes / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Scratch;

    #[test]
    fn blocks_of_all_files_are_counted_and_holes_are_not() {
        let scratch = Scratch::new(None, "loadtest-footprint").expect("scratch");
        fs::create_dir(scratch.path().join("in")).expect("a folder");
        fs::write(scratch.path().join("in/full"), vec![7; 256 << 10]).expect("a file");
        let sparse = fs::File::create(scratch.path().join("sparse")).expect("a file");
        sparse.set_len(64 << 20).expect("a hole");
        drop(sparse);
        let bytes = disk_bytes(scratch.path()).expect("reads");
        assert!(bytes < 32 << 20, "{bytes}");
        assert!(disk_bytes(&scratch.path().join("none")).is_err());
    }
}
