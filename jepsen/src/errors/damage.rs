//! A flipped byte in the middle of the log of a lone node.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Instant, sleep};

use super::{Ground, SAYS_SO, Shown, missing, publish_reply, relevant};
use crate::api::{Outcome, Reply};
use crate::cluster::START_PATIENCE;
use crate::node::{Node, POLL};

/// Writes in the log; enough that its middle is far from both ends.
const WRITES: usize = 200;

/// What its words must name: the command that looks, and that something is damaged.
const WORDS: [&str; 2] = ["rnacos recover", "damage|corrupt|suspect|checksum"];

/// Writes, kills, flips one byte in the middle of the journal, starts again: the node either does not
/// start, or takes no writes; it names the recovery command, and never serves a shortened past as if it
/// were whole.
pub(super) async fn log(ground: &Ground<'_>) -> anyhow::Result<Shown> {
    let mut node = ground.node("node", 1)?;
    node.start()?;
    node.wait_until_it_writes(START_PATIENCE).await?;
    let mut client = node.client(Duration::from_secs(10));
    for number in 0..WRITES {
        let written = client
            .publish(&format!("damage.{number}"), &content(number))
            .await;
        anyhow::ensure!(written.is_done(), "write {number}: {written:?}");
    }
    // The mark of what is durable follows within a second; kill only then, so that the damage is provable.
    sleep(Duration::from_millis(1500)).await;
    node.kill()?;
    let journal = largest_journal(&node.spec.data.join("wal"))?;
    let at = flip_in_the_middle(&journal)?;
    node.start()?;
    let words = wait_for_words(&mut node).await;
    let words = words.with_context(|| format!("after a flipped byte at {at} of {}", journal.display()))?;
    Ok(Shown::Said(words))
}

fn content(number: usize) -> String {
    format!("content {number} that must not silently vanish")
}

/// Watches the started node until it has ended or complained; fails as soon as it acknowledges a write.
async fn wait_for_words(node: &mut Node) -> anyhow::Result<String> {
    let deadline = Instant::now() + SAYS_SO;
    loop {
        let ended = node.ended()?;
        anyhow::ensure!(
            !ended.is_some_and(|status| status.success()),
            "ended with success:\n{}",
            node.said()
        );
        if ended.is_none() {
            match publish_reply(node, "damage.new", "must not be taken").await {
                Outcome::Done(Reply { status: 200, .. }) => {
                    anyhow::bail!("took a write with a damaged log:\n{}", node.said())
                }
                Outcome::Done(Reply { status, body }) if missing(&body, &WORDS[..1]).is_empty() => {
                    return Ok(format!("HTTP {status}: {body}\n{}", relevant(&node.said())));
                }
                _ => {}
            }
        }
        if missing(&node.said(), &WORDS).is_empty() && ended.is_some() {
            return Ok(relevant(&node.said()));
        }
        if ended.is_some() || Instant::now() > deadline {
            let missing = missing(&node.said(), &WORDS);
            anyhow::ensure!(
                missing.is_empty(),
                "its words do not name {missing:?}:\n{}",
                node.said()
            );
            return Ok(relevant(&node.said()));
        }
        sleep(POLL).await;
    }
}

fn largest_journal(wal: &Path) -> anyhow::Result<PathBuf> {
    let mut found = None;
    for entry in fs::read_dir(wal).with_context(|| format!("read {}", wal.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            let used = used_bytes(&fs::read(&path)?);
            if found.as_ref().is_none_or(|(most, _)| used > *most) {
                found = Some((used, path));
            }
        }
    }
    found
        .map(|(_, path)| path)
        .with_context(|| format!("no journal in {}", wal.display()))
}

/// Journals are made with their full length; what is behind the last byte that is not zero is not used yet.
fn used_bytes(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1)
}

fn flip_in_the_middle(journal: &Path) -> anyhow::Result<usize> {
    let mut bytes = fs::read(journal)?;
    let at = used_bytes(&bytes) / 2;
    anyhow::ensure!(at > 0, "{} is empty", journal.display());
    bytes[at] ^= 0x40;
    fs::write(journal, bytes)?;
    Ok(at)
}
