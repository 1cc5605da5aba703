//! Sending a snapshot to a peer that is behind the log (paper §7).
//!
//! The leader asks how far the peer already is (an empty piece at 0), then keeps a few pieces under
//! way. Pieces arrive in order or are refused with where to go on; silence for an election timeout
//! starts over from the last acknowledged piece.

use crate::core::{Core, LoadFor, Making};
use crate::effects::{LoadWhat, SnapshotWork};
use crate::input::Loaded;
use crate::leader::Leader;
use crate::message::{Body, SnapshotChunk, SnapshotMeta, SnapshotReply};
use crate::progress::{Mode, Progress};
use crate::types::{Index, LoadId, NodeId, Space};

/// A snapshot on its way to a peer.
#[derive(Debug)]
pub(crate) struct Sending {
    /// Which; `None` while none that meets the log exists.
    meta: Option<SnapshotMeta>,
    /// The peer has everything before this offset.
    acked: u64,
    /// Everything before this offset is sent. acked <= sent.
    sent: u64,
    /// The question how far the peer is has been sent.
    is_asked: bool,
    /// And was answered.
    is_known: bool,
    /// Ticks without news from the peer about this snapshot.
    idle: u32,
    /// Ticks since the peer got further.
    stalled: u32,
    /// `sent` was set back to this offset before: a second refusal of the same gap changes nothing.
    rewound: Option<u64>,
}

impl Sending {
    pub(crate) fn boxed() -> Box<Sending> {
        Box::new(Sending {
            meta: None,
            acked: 0,
            sent: 0,
            is_asked: false,
            is_known: false,
            idle: 0,
            stalled: 0,
            rewound: None,
        })
    }

    pub(crate) fn meta(&self) -> Option<&SnapshotMeta> {
        self.meta.as_ref()
    }

    /// Asks again and goes on from the answer.
    pub(crate) fn rewind(&mut self) {
        self.sent = self.acked;
        self.is_asked = false;
        self.is_known = false;
        self.idle = 0;
        self.rewound = None;
    }

    fn size(&self) -> u64 {
        self.meta.as_ref().map_or(0, |meta| meta.size_bytes)
    }
}

impl Core {
    /// A snapshot after which the log goes on, or `None` after asking for one.
    fn usable_snapshot(&mut self) -> Option<SnapshotMeta> {
        let base = self.log.base().id.index;
        if let Some(meta) = &self.snapshot
            && meta.last.index >= base
            && self.log.holds(meta.last)
        {
            return Some(meta.clone());
        }
        let patience = u64::from(self.config.election_ticks) * SNAPSHOT_PATIENCE_TIMEOUTS;
        if self
            .making
            .is_none_or(|making| self.now - making.asked >= patience)
        {
            let (asked, since, from) = (self.now, self.now, self.applied);
            let first = self.making.unwrap_or(Making { asked, since, from });
            self.making = Some(Making { asked, ..first });
            self.out.snapshot = Some(SnapshotWork::Make { at_least: base });
        }
        None
    }

    /// The owner has made a snapshot, or could not.
    pub(crate) fn on_snapshot_made(&mut self, made: Option<SnapshotMeta>) {
        let Some(meta) = made else {
            // Asked for again after a while, not at once: what was wrong is hardly mended yet.
            let asked = self.now;
            self.making = self.making.map(|making| Making { asked, ..making });
            return;
        };
        self.making = None;
        assert!(
            meta.last.index <= self.applying,
            "snapshot of {} ahead of {}",
            meta.last.index,
            self.applying
        );
        if let Some(configuration) = self.memberships.at(meta.last.index)
            && meta.last.index >= self.log.base().id.index
        {
            assert!(
                self.log.holds(meta.last),
                "the snapshot ends with an entry that the log does not hold"
            );
            assert!(
                *configuration == meta.configuration,
                "the snapshot carries another membership"
            );
        }
        if self
            .snapshot
            .as_ref()
            .is_none_or(|old| old.last.index <= meta.last.index)
        {
            self.snapshot = Some(meta);
        }
    }
}

/// Election timeouts after which a snapshot that was asked for and did not come is asked for again.
const SNAPSHOT_PATIENCE_TIMEOUTS: u64 = 4;

/// Election timeouts for which a snapshot that is being made holds the log (a minute of them). One that
/// takes longer is overtaken by the log on a busy cluster, and made anew.
const MAKING_TIMEOUTS_MAX: u32 = 120;

/// Election timeouts for which a transfer that does not get further still holds the log.
const STALLED_TIMEOUTS_MAX: u32 = 20;

impl Leader {
    /// Sends what a peer in snapshot mode can take.
    pub(crate) fn send_snapshot(&mut self, core: &mut Core, id: NodeId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let Mode::Snapshot(sending) = &mut peer.mode else {
            return;
        };
        if sending.meta.is_none() {
            sending.meta = core.usable_snapshot();
        }
        let Some(meta) = &sending.meta else { return };
        if !sending.is_known {
            if !sending.is_asked {
                sending.is_asked = true;
                let chunk = SnapshotChunk {
                    meta: meta.clone(),
                    offset: 0,
                    data: bytes::Bytes::new(),
                    checksum: crc32fast::hash(&[]),
                };
                core.send(id, Body::Snapshot(chunk));
            }
            return;
        }
        let chunk_bytes = core.config.chunk_bytes_max.max(1);
        let under_way = (sending.sent - sending.acked).div_ceil(chunk_bytes as u64);
        let is_full = under_way >= core.config.chunk_inflight_max.max(1) as u64;
        if is_full || sending.sent >= meta.size_bytes || peer.load.is_some() || peer.space == Space::Critical
        {
            return;
        }
        // One piece is read at a time: pieces must leave in order.
        let what = LoadWhat::Chunk {
            meta: meta.clone(),
            offset: sending.sent,
            bytes_max: chunk_bytes,
        };
        peer.load = Some(core.load(LoadFor::Chunk(id), what));
    }

    /// A piece that was read for a peer.
    pub(crate) fn on_chunk_loaded(&mut self, core: &mut Core, id: NodeId, load: LoadId, loaded: Loaded) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if peer.load != Some(load) {
            return;
        }
        peer.load = None;
        let Mode::Snapshot(sending) = &mut peer.mode else {
            return;
        };
        let Some(meta) = sending.meta.clone() else { return };
        let rest = meta.size_bytes - sending.sent;
        match loaded {
            Loaded::Chunk(data) if !data.is_empty() && data.len() as u64 <= rest => {
                let offset = sending.sent;
                sending.sent += data.len() as u64;
                let checksum = crc32fast::hash(&data);
                core.send(
                    id,
                    Body::Snapshot(SnapshotChunk {
                        meta,
                        offset,
                        data,
                        checksum,
                    }),
                );
            }
            _ => {
                // The file was replaced: take the newer one, or ask for one.
                if core.snapshot.as_ref() == Some(&meta) {
                    core.snapshot = None;
                }
                peer.mode = Mode::Snapshot(Sending::boxed());
            }
        }
    }

    pub(crate) fn on_snapshot_reply(&mut self, core: &mut Core, from: NodeId, reply: SnapshotReply) {
        let last = core.log.last().index;
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        let Mode::Snapshot(sending) = &mut peer.mode else {
            return;
        };
        if sending.meta.as_ref().is_none_or(|meta| meta.last != reply.last) {
            return;
        }
        sending.idle = 0;
        if let Some(index) = reply.installed {
            if index <= last {
                installed(peer, index);
                self.advance(core, from);
            }
            return;
        }
        if reply.next_offset > sending.size() {
            return;
        }
        if !sending.is_known {
            sending.is_known = true;
            sending.acked = reply.next_offset;
            sending.sent = reply.next_offset;
            peer.load = None;
        } else if reply.next_offset > sending.acked && reply.next_offset <= sending.sent {
            sending.acked = reply.next_offset;
            sending.stalled = 0;
        } else if reply.next_offset <= sending.acked
            && sending.sent > reply.next_offset
            && sending.rewound != Some(reply.next_offset)
        {
            // A piece got lost: those after it were refused. One answer per lost piece moves us back.
            sending.rewound = Some(reply.next_offset);
            sending.acked = reply.next_offset;
            sending.sent = reply.next_offset;
            peer.load = None;
        }
    }

    /// Pieces or answers may be lost without a trace.
    pub(crate) fn tick_snapshots(&mut self, core: &Core) {
        for peer in self.peers.values_mut() {
            let Mode::Snapshot(sending) = &mut peer.mode else {
                continue;
            };
            sending.idle += 1;
            sending.stalled = sending.stalled.saturating_add(1);
            if sending.idle >= core.config.election_ticks {
                sending.rewind();
                peer.load = None;
            }
        }
    }

    /// How far the log may be cut without taking away what a transfer under way continues with. A
    /// transfer to a peer that has not been heard of, or that does not get further, does not hold the
    /// log: it starts over with a newer snapshot. Otherwise one broken peer would fill this disk.
    pub(crate) fn compaction_limit(&mut self, core: &Core, wanted: Index) -> Index {
        let mut limit = self.making_limit(core).map_or(wanted, |from| wanted.min(from));
        for peer in self.peers.values() {
            if let Mode::Snapshot(sending) = &peer.mode
                && let Some(meta) = sending.meta()
                && peer.is_active(core.now, core.config.election_ticks)
                && sending.stalled < core.config.election_ticks * STALLED_TIMEOUTS_MAX
            {
                limit = limit.min(meta.last.index);
            }
        }
        for peer in self.peers.values_mut() {
            if let Mode::Snapshot(sending) = &peer.mode
                && sending.meta().is_some_and(|meta| meta.last.index < limit)
            {
                peer.load = None;
                peer.mode = Mode::Snapshot(Sending::boxed());
            }
        }
        limit
    }

    /// Where a snapshot that is being made for a peer will end at the earliest. Were the log cut beyond it
    /// meanwhile, the snapshot would be useless once it is there, and so the next, for as long as writes go
    /// on: the peer would never get one. A disk that is filling up is more important, though.
    fn making_limit(&self, core: &Core) -> Option<Index> {
        let making = core.making.filter(|making| {
            let held = core.now - making.since;
            held < u64::from(core.config.election_ticks) * u64::from(MAKING_TIMEOUTS_MAX)
        })?;
        let is_waiting = |peer: &Progress| {
            matches!(&peer.mode, Mode::Snapshot(sending) if sending.meta().is_none())
                && peer.is_active(core.now, core.config.election_ticks)
        };
        (core.space == Space::Ample && self.peers.values().any(is_waiting)).then_some(making.from)
    }
}

/// The peer holds the snapshot (or has no need of it): go on with the log.
fn installed(peer: &mut Progress, index: Index) {
    peer.acknowledge(index);
    peer.probe_from(index.next());
}
