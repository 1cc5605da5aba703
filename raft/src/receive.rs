//! Receiving a snapshot and taking it for the log.
//!
//! Order is everything here (R15):
//!
//! 1. pieces are written in order, each answered once it is durable;
//! 2. once the last one is durable the file is complete; only then the log is restarted after it
//!    (`Persist::reset_to`);
//! 3. once that is durable the state machine loads the file ([`crate::SnapshotWork::Install`]);
//! 4. then the leader is told, and applying goes on.
//!
//! Restarting the log any sooner would leave, after a crash, a log that begins after a state nobody
//! has. And at each point the log may meanwhile have come to hold what the snapshot covers; then the
//! log is kept: a tail that matches is never thrown away, others may count on it (paper §7).

use bytes::{Bytes, BytesMut};

use crate::bugs::Bug;
use crate::core::Core;
use crate::effects::{ChunkWrite, SnapshotWork};
use crate::message::{AppendReply, Body, SnapshotChunk, SnapshotMeta, SnapshotReply};
use crate::types::{NodeId, Space, Token};

/// A snapshot that is being received or installed.
#[derive(Debug)]
pub(crate) struct Receiving {
    meta: SnapshotMeta,
    /// Everything before this offset was given to the disk.
    received: u64,
    stage: Stage,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Pieces are missing.
    Pieces,
    /// The last piece is being written.
    Completing(Token),
    /// The restart of the log is being written.
    Resetting(Token),
    /// The state machine is loading it.
    Installing,
}

impl Core {
    /// True while the log starts after a state that the state machine does not hold yet.
    pub(crate) fn is_installing(&self) -> bool {
        self.receiving
            .as_ref()
            .is_some_and(|receiving| matches!(receiving.stage, Stage::Resetting(_) | Stage::Installing))
    }

    /// A piece of a snapshot from the leader of the term.
    pub(crate) fn on_snapshot_chunk(&mut self, from: NodeId, chunk: SnapshotChunk) {
        // What a leader has committed is of its own term or an earlier one.
        if !is_sound(&chunk) || chunk.meta.last.term > self.term {
            return;
        }
        if self.covers(&chunk.meta) {
            self.tell_installed(from, &chunk.meta);
            return;
        }
        if self.is_installing() {
            // An older one is on its way into the state machine; the leader will ask again.
            return;
        }
        if self.space == Space::Critical {
            self.reply(from, Body::AppendReply(AppendReply::NoSpace));
            return;
        }
        if self
            .receiving
            .as_ref()
            .is_none_or(|receiving| receiving.meta != chunk.meta)
        {
            self.receiving = Some(Receiving {
                meta: chunk.meta.clone(),
                received: 0,
                stage: Stage::Pieces,
            });
        }
        self.take_piece(chunk);
        let Some(receiving) = &self.receiving else { return };
        let reply = SnapshotReply {
            last: receiving.meta.last,
            next_offset: receiving.received,
            installed: None,
        };
        if self.writes.is_idle() && self.draft.chunk.is_none() {
            self.reply(from, Body::SnapshotReply(reply));
        } else {
            self.send_durably(from, Body::SnapshotReply(reply));
        }
    }

    /// Writes a piece if it is the next one.
    fn take_piece(&mut self, chunk: SnapshotChunk) {
        let token = self.writes.next_token();
        let is_reset_early = self.has_bug(Bug::R15);
        let Some(receiving) = &mut self.receiving else {
            return;
        };
        if receiving.stage != Stage::Pieces || chunk.data.is_empty() || chunk.offset != receiving.received {
            return;
        }
        receiving.received += chunk.data.len() as u64;
        let last = receiving.received == chunk.meta.size_bytes;
        if last {
            receiving.stage = Stage::Completing(token);
        }
        let (offset, data) = match self.draft.chunk.take() {
            // Two pieces of one file in one turn become one write.
            Some(earlier) if earlier.meta == chunk.meta && chunk.offset > 0 => {
                (earlier.offset, joined(&earlier.data, &chunk.data))
            }
            _ => (chunk.offset, chunk.data),
        };
        let meta = chunk.meta;
        self.draft.chunk = Some(ChunkWrite {
            meta: meta.clone(),
            offset,
            data,
            last,
        });
        if is_reset_early {
            self.reset_to(&meta);
            if let Some(receiving) = &mut self.receiving {
                receiving.stage = Stage::Resetting(token);
            }
        }
    }

    /// Writes up to `token` are durable: the next step of an install, if it waited for this.
    pub(crate) fn advance_install(&mut self) {
        let Some(receiving) = &self.receiving else { return };
        match receiving.stage {
            Stage::Completing(token) if self.writes.is_durable(token) => self.restart_log(),
            Stage::Resetting(token) if self.writes.is_durable(token) => {
                let meta = receiving.meta.clone();
                self.set_stage(Stage::Installing);
                self.making = None;
                self.out.snapshot = Some(SnapshotWork::Install(meta));
            }
            _ => {}
        }
    }

    fn restart_log(&mut self) {
        let Some(receiving) = &self.receiving else { return };
        let meta = receiving.meta.clone();
        self.snapshot = Some(meta.clone());
        if self.covers(&meta) {
            self.receiving = None;
            return;
        }
        let token = self.writes.next_token();
        self.reset_to(&meta);
        self.set_stage(Stage::Resetting(token));
    }

    /// What was received is damaged: it is forgotten. The leader, left without an answer to the last piece,
    /// sends a piece again, is told that nothing is here, and begins anew.
    pub(crate) fn on_snapshot_refused(&mut self, meta: &SnapshotMeta) {
        let is_received = |receiving: &Receiving| {
            receiving.meta == *meta && matches!(receiving.stage, Stage::Pieces | Stage::Completing(_))
        };
        if self.receiving.as_ref().is_some_and(is_received) {
            self.receiving = None;
        }
    }

    /// The state machine holds the snapshot: true when it was the one waited for.
    pub(crate) fn on_installed(&mut self, meta: &SnapshotMeta) -> bool {
        let is_awaited = self
            .receiving
            .as_ref()
            .is_some_and(|receiving| receiving.stage == Stage::Installing && receiving.meta == *meta);
        if !is_awaited {
            return false;
        }
        self.receiving = None;
        self.applying = meta.last.index;
        self.applied = meta.last.index;
        self.unapplied.clear();
        self.apply_load = None;
        true
    }

    /// True when the log (or the state before it) holds what the snapshot covers.
    fn covers(&self, meta: &SnapshotMeta) -> bool {
        if self.is_installing() {
            return false;
        }
        meta.last.index <= self.committed || self.log.holds(meta.last)
    }

    /// "Installed" is an acknowledgement: it waits for the disk like any other.
    pub(crate) fn tell_installed(&mut self, to: NodeId, meta: &SnapshotMeta) {
        // Snapshots hold committed entries only, so what equals one is committed.
        if self.log.holds(meta.last) {
            self.commit_to(meta.last.index);
        }
        let index = meta.last.index;
        let reply = SnapshotReply {
            last: meta.last,
            next_offset: meta.size_bytes,
            installed: Some(index),
        };
        if index <= self.log.durable() {
            self.reply(to, Body::SnapshotReply(reply));
        } else {
            self.send_durably(to, Body::SnapshotReply(reply));
        }
    }

    fn set_stage(&mut self, stage: Stage) {
        if let Some(receiving) = &mut self.receiving {
            receiving.stage = stage;
        }
    }
}

/// True when a piece can be what it says.
fn is_sound(chunk: &SnapshotChunk) -> bool {
    let end = chunk.offset.checked_add(chunk.data.len() as u64);
    let fits = end.is_some_and(|end| end <= chunk.meta.size_bytes);
    let is_plausible = chunk.meta.last.index.0 > 0
        && chunk.meta.last.index.0 < crate::core::PLAUSIBLE_MAX
        && chunk.meta.configuration.is_sound();
    fits && is_plausible && chunk.checksum == crc32fast::hash(&chunk.data)
}

fn joined(first: &Bytes, second: &Bytes) -> Bytes {
    let mut both = BytesMut::with_capacity(first.len() + second.len());
    both.extend_from_slice(first);
    both.extend_from_slice(second);
    both.freeze()
}
