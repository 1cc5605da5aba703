//! A disk that is nearly full, and has room again.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Instant, sleep};

use super::{Ground, Shown, missing, publish_reply};
use crate::api::{Outcome, Reply};
use crate::cluster::START_PATIENCE;
use crate::disk::call;
use crate::node::{Node, POLL};

/// Size of the disk. A tenth of it is the default reserve.
const DISK_BYTES: u64 = 1 << 30;

/// Room left when it is "nearly full": below the reserve, above what the server needs to stay up.
const LEFT_BYTES: u64 = 24 << 20;

/// A server notices that room has gone, or has come back, within this time.
const NOTICES: Duration = Duration::from_secs(15);

/// What the refusal must name.
const WORDS: [&str; 2] = ["space|disk", "free|RNACOS_DISK_RESERVE|make room|delete"];

/// A tmpfs; unmounted when dropped.
struct Small {
    path: PathBuf,
}

impl Small {
    fn mount(path: PathBuf) -> anyhow::Result<Self> {
        fs::create_dir_all(&path)?;
        call(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o"])
                .arg(format!("size={DISK_BYTES}"))
                .arg("tmpfs")
                .arg(&path),
        )?;
        Ok(Self { path })
    }

    fn free_bytes(&self) -> anyhow::Result<u64> {
        let output = Command::new("df")
            .args(["-B1", "--output=avail"])
            .arg(&self.path)
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines()
            .nth(1)
            .and_then(|line| line.trim().parse().ok())
            .context("df says nothing")
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = call(Command::new("umount").arg("-l").arg(&self.path));
    }
}

/// Fills the disk beside a serving node: writes are refused with a sentence, reads go on, the node stays
/// up; after room is made, writes are taken again without a restart, and nothing is lost.
pub(super) async fn run(ground: &Ground<'_>) -> anyhow::Result<Shown> {
    let mut node = ground.node("node", 1)?;
    let disk = match Small::mount(ground.directory.join("disk")) {
        Ok(disk) => disk,
        Err(error) => {
            return Ok(Shown::NotPossibleHere(format!(
                "a tmpfs cannot be mounted here: {error:#}"
            )));
        }
    };
    node.spec.data = disk.path.join("db");
    let shown = fill_and_free(&mut node, &disk).await;
    // The process first: the disk cannot be unmounted under it.
    node.kill()?;
    drop(disk);
    shown
}

async fn fill_and_free(node: &mut Node, disk: &Small) -> anyhow::Result<Shown> {
    node.start()?;
    node.wait_until_it_writes(START_PATIENCE).await?;
    let mut client = node.client(Duration::from_secs(10));
    anyhow::ensure!(
        client.publish("full", "before").await.is_done(),
        "no write before"
    );

    let filler = fill(disk)?;
    let (status, body) = wait_for(node, |reply| reply.status != 200)
        .await
        .context("writes go on with a full disk")?;
    let missing = missing(&body, &WORDS);
    anyhow::ensure!(
        missing.is_empty(),
        "the refusal ({status}) does not name {missing:?}: {body}"
    );
    let read = client.get("full", false).await;
    anyhow::ensure!(
        read == Outcome::Done(Some("before".to_owned())),
        "reads do not go on: {read:?}"
    );
    anyhow::ensure!(node.runs(), "the node ended: {}", node.said());

    fs::remove_file(filler)?;
    wait_for(node, |reply| reply.status == 200)
        .await
        .context("writes are not taken again after room was made")?;
    let read = client.get("full", true).await;
    anyhow::ensure!(
        read == Outcome::Done(Some("before".to_owned())),
        "not what was written before: {read:?}"
    );
    Ok(Shown::Said(format!("HTTP {status}: {body}")))
}

fn fill(disk: &Small) -> anyhow::Result<PathBuf> {
    let path = disk.path.join("filler");
    write_zeros(&path, disk.free_bytes()?.saturating_sub(LEFT_BYTES))?;
    Ok(path)
}

fn write_zeros(path: &Path, bytes: u64) -> anyhow::Result<()> {
    let mut file = File::create(path)?;
    let block = vec![0_u8; 1 << 20];
    for _ in 0..bytes / (1 << 20) {
        file.write_all(&block)?;
    }
    Ok(())
}

/// Publishes again and again until the answer is as wanted; returns its status and body.
async fn wait_for(node: &Node, wanted: impl Fn(&Reply) -> bool) -> anyhow::Result<(u16, String)> {
    let deadline = Instant::now() + NOTICES;
    let mut number = 0;
    loop {
        number += 1;
        match publish_reply(node, &format!("full.{number}"), "another").await {
            Outcome::Done(reply) if wanted(&reply) => return Ok((reply.status, reply.body)),
            last if Instant::now() > deadline => anyhow::bail!("after {} s: {last:?}", NOTICES.as_secs()),
            _ => sleep(POLL).await,
        }
    }
}
