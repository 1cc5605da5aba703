//! What this node last knew, on its disk, for the first moments after a restart.
//!
//! A lone node that restarts has nobody to load from but its clients, who take seconds to notice and to register
//! again (contract 05 §2.5; the Python SDK up to 30 s). So what it changes is appended to a file, some
//! moments later, as it would be told to a peer; after a restart these are the copies of a node that is gone:
//! kept for the grace, covered by whatever a client says. In a cluster nobody is told them before the
//! clients have had their time: other nodes have better ones.
//!
//! Nothing depends on the file. It is not synced; its damaged end is cut off; a disk that fails is told once
//! and tried again.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use storage::FrameFile;
use tokio::time::sleep;

use super::node::{Discovery, Shared};
use super::wire;
use crate::distro::{GRACE_MS, Message};
use crate::naming::{Batch, Origin, Registry, Revision};

/// So long after a change a lone node has it on its way to the disk.
const EVERY: Duration = Duration::from_millis(100);
/// In a cluster the file is of use when all nodes have ended at once, so that more changes of one record can be
/// gathered to one.
const EVERY_OF_MANY: Duration = Duration::from_secs(1);
/// Changes of one frame, and of one look at the registry.
const BATCH_COUNT: usize = 256;
/// Batches that are taken back in one turn: some 8 ms under the lock.
const BATCHES_A_TURN: usize = 16;
/// The file is written anew when it is more than twice as long as it was, and so much, bytes; not while at least every
/// second change in it still counts, as where instances only come: nothing would be gained.
const SLACK_BYTES: u64 = 4 << 20;
/// After a failure of the disk it is left alone for so long, ms.
const AGAIN_MS: u64 = 10_000;
/// Of a node that was away for longer nobody wants to know what it knew, ms.
const AWAY_MAX_MS: u64 = 600_000;

/// What the last run has left, in order. Empty once it has been taken back or is of no use.
pub(super) type LastKnown = std::collections::VecDeque<Batch>;

/// Writes the file.
#[derive(Debug)]
pub(super) struct Keeper {
    path: PathBuf,
    /// `None` until the first round, and after a failure.
    file: Option<FrameFile>,
    /// Whose changes.
    of: Option<Origin>,
    /// Up to which change of them the file goes.
    known: Revision,
    /// How long it was when it had been written as a whole.
    whole_bytes: u64,
    /// How many changes stand in it, as far as this run has written it.
    changes: usize,
    /// When it is written anew at the latest, monotonic ms: what the last run left has served then.
    anew_ms: u64,
    failed: bool,
}

impl Keeper {
    /// Reads what the last run of `me` has left, `away_ms` ago. Blocks.
    pub(super) fn open(path: PathBuf, me: Origin, away_ms: u64, now_ms: u64) -> (Keeper, LastKnown) {
        let mut found = LastKnown::new();
        let opened = FrameFile::open(&path, |frame| {
            if let Ok(Some(Message::Changes(batch))) = wire::decode_message(frame)
                && batch.origin.node == me.node
                && batch.origin.boot < me.boot
            {
                found.push_back(Arc::unwrap_or_clone(batch));
            }
        });
        let opened = opened.unwrap_or_else(|error| {
            tracing::warn!(%error, path = %path.display(), "the instances of the last run cannot be read");
            None
        });
        // What it holds may be needed once more if this run ends before the clients are back.
        let file = opened.filter(|_| away_ms <= AWAY_MAX_MS);
        if file.is_none() {
            found.clear();
        }
        let keeper = Keeper {
            path,
            file,
            of: None,
            known: Revision::default(),
            whole_bytes: 0,
            changes: 0,
            anew_ms: now_ms + GRACE_MS,
            failed: false,
        };
        (keeper, found)
    }

    /// Brings the file up to what the node knows. Blocks.
    fn round(&mut self, node: &Discovery) {
        let kept = match self.write(node) {
            Ok(()) => {
                self.failed = false;
                Some(self.known)
            }
            Err(error) => {
                self.file = None;
                self.anew_ms = node.now_ms() + AGAIN_MS;
                if !self.failed {
                    self.failed = true;
                    tracing::error!(%error, path = %self.path.display(),
                        "what instances there are cannot be kept for a restart: free the disk; tried again");
                }
                None
            }
        };
        node.lock().distro.set_kept(kept);
    }

    fn is_due(&self, node: &Discovery) -> bool {
        let look = |registry: &Registry, now_ms| (registry.me(), registry.newest(), now_ms);
        let (me, newest, now_ms) = node.look(look);
        match self.file {
            Some(_) => self.of != Some(me) || self.known != newest || now_ms >= self.anew_ms,
            None => !self.failed || now_ms >= self.anew_ms,
        }
    }

    fn write(&mut self, node: &Discovery) -> io::Result<()> {
        let me = node.look(|registry, _| registry.me());
        let first = self.of.is_none();
        if self.of.replace(me) != Some(me) {
            self.known = Revision::default();
        }
        let file = self.file.take();
        let serves = |file: &FrameFile| !self.is_long(file, node) && node.now_ms() < self.anew_ms;
        let mut file = match file.filter(|file| first || serves(file)) {
            Some(file) => file,
            None => self.write_anew(node)?,
        };
        loop {
            let known = self.known;
            let Some(batch) = node.look(|registry, _| registry.batch(known, BATCH_COUNT)) else {
                // Removals behind it are forgotten.
                file = self.write_anew(node)?;
                break;
            };
            if batch.origin != me || batch.through <= known {
                break;
            }
            self.known = batch.through;
            self.changes += batch.deltas.len();
            append(&mut file, batch)?;
        }
        self.file = Some(file);
        Ok(())
    }

    /// True when much of the file is outdated.
    fn is_long(&self, file: &FrameFile, node: &Discovery) -> bool {
        let is_longer = file.bytes() > 2 * self.whole_bytes + SLACK_BYTES;
        is_longer && self.changes > 2 * node.look(|registry, _| registry.own_records())
    }

    fn write_anew(&mut self, node: &Discovery) -> io::Result<FrameFile> {
        let mut file = FrameFile::draft(&self.path)?;
        let all = node.look(|registry, _| registry.newest());
        let mut known = Revision::default();
        self.changes = 0;
        while known < all {
            let batch = node.look(|registry, _| registry.written_batch(known, all, BATCH_COUNT));
            known = batch.through;
            self.changes += batch.deltas.len();
            append(&mut file, batch)?;
        }
        file.publish()?;
        self.known = all;
        self.whole_bytes = file.bytes();
        self.anew_ms = u64::MAX;
        Ok(file)
    }
}

/// The highest stamp that the last run gave to an act; 0 if nothing is known of it.
pub(super) fn newest_act(last_known: &LastKnown) -> u64 {
    let deltas = last_known.iter().flat_map(|batch| &batch.deltas);
    let acts = deltas.filter_map(|delta| delta.written.as_ref());
    acts.map(|(stamp, _)| stamp.0).max().unwrap_or_default()
}

fn append(file: &mut FrameFile, batch: Batch) -> io::Result<()> {
    file.append(&[wire::encode_message(&Message::Changes(Arc::new(batch)))])
}

impl Discovery {
    /// Keeps on the disk what this node changes, for ever.
    ///
    /// # Cancel safety
    /// What has not been written yet may be lost.
    pub async fn keep(self: Arc<Self>) {
        self.lock().distro.set_kept(Some(Revision::default()));
        loop {
            let every = if self.lock().is_alone() {
                EVERY
            } else {
                EVERY_OF_MANY
            };
            sleep(every).await;
            if !self.lock_keeper().is_due(&self) {
                continue;
            }
            let this = Arc::clone(&self);
            let round = tokio::task::spawn_blocking(move || this.keep_now());
            if round.await.is_err() {
                tracing::error!("what instances there are is not kept for a restart: its thread panicked");
                self.lock().distro.set_kept(None);
                return;
            }
        }
    }

    /// Brings the file up to date, if it is not. Blocks.
    pub(super) fn keep_now(&self) {
        let mut keeper = self.lock_keeper();
        if keeper.is_due(self) {
            keeper.round(self);
        }
    }

    /// Takes back some of what the last run knew, once nobody else can tell what there is; true while there is
    /// more.
    pub(super) fn take_back(shared: &mut Shared, now_ms: u64) -> bool {
        if shared.last_known.is_empty() || shared.distro.is_loading() {
            return false;
        }
        if !shared.distro.awaits_clients(now_ms) {
            shared.last_known = LastKnown::new();
            return false;
        }
        let count = shared.last_known.len().min(BATCHES_A_TURN);
        for batch in shared.last_known.drain(..count) {
            if let Err(error) = shared.registry.apply(now_ms, batch) {
                tracing::warn!(%error, "a part of what the last run knew is of no use");
            }
        }
        shared.taken_back = shared.last_known.is_empty();
        !shared.taken_back
    }
}
