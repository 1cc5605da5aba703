//! Who is sent which entries now (paper §5.3, thesis §10.2).
//!
//! Runs once at the end of a turn, so that all proposals of the turn share their messages. A peer is
//! probed until its log is known to meet the leader's, then sent entries ahead of its
//! acknowledgements, within a window; a peer behind the log gets a snapshot.

use crate::core::{Core, LoadFor};
use crate::effects::LoadWhat;
use crate::entry::Entry;
use crate::input::Loaded;
use crate::leader::Leader;
use crate::message::{Append, Body, HeartbeatReply};
use crate::progress::{Mode, Progress};
use crate::send::Sending;
use crate::types::{EntryId, Index, LoadId, NodeId, Space};

/// Entries of one append to (and accepted by) a member whose disk is low on space, in bytes. Commands
/// that free space are small; what is larger waits until there is room again.
pub(crate) const LOW_SPACE_BATCH_BYTES_MAX: usize = 64 << 10;

/// What there is to do for a peer.
enum Step {
    /// Nothing until something is heard.
    Wait,
    /// Nothing to send but, perhaps, the commit index.
    Idle,
    /// Ask whether the logs meet before `next`.
    Probe,
    /// Send entries.
    Entries,
    /// The entries before `next` are gone.
    Snapshot,
}

impl Leader {
    /// Sends every peer what it can take.
    pub(crate) fn replicate(&mut self, core: &mut Core) {
        let ids: Vec<NodeId> = self.peers.keys().copied().collect();
        for id in ids {
            self.replicate_to(core, id);
        }
    }

    fn replicate_to(&mut self, core: &mut Core, id: NodeId) {
        let round = self.round;
        loop {
            let Some(peer) = self.peers.get_mut(&id) else {
                return;
            };
            match next_step(peer, core) {
                Step::Wait => return,
                Step::Idle => return tell_commit(core, id, peer, round),
                Step::Probe => return probe(core, id, peer, round),
                Step::Entries => {
                    if !send_entries(core, id, peer, round) {
                        return tell_commit(core, id, peer, round);
                    }
                }
                Step::Snapshot => {
                    if !matches!(peer.mode, Mode::Snapshot(_)) {
                        peer.inflight.clear();
                        peer.load = None;
                        peer.mode = Mode::Snapshot(Sending::boxed());
                    }
                    return self.send_snapshot(core, id);
                }
            }
        }
    }

    /// A heartbeat came back: whatever was sent before it and is unanswered may be lost (R14).
    ///
    /// A slow disk looks the same: the entries are there and wait for the sync. So nothing is sent
    /// again on suspicion; an empty append asks, and its answer (a rejection at once, or an
    /// acceptance once all is durable) tells.
    pub(crate) fn wake(&mut self, core: &mut Core, from: NodeId, reply: HeartbeatReply) {
        let round = self.round;
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        match &mut peer.mode {
            Mode::Probe { is_waiting, is_retry } => {
                *is_retry |= *is_waiting;
                *is_waiting = false;
            }
            Mode::Replicate => {
                let is_unanswered = peer.next.prev() > peer.matched && reply.round > peer.sent_round;
                let is_quiet = core.now - peer.sent_at >= u64::from(core.config.heartbeat_ticks);
                if is_unanswered && is_quiet {
                    send_empty(core, from, peer, round);
                }
            }
            Mode::Snapshot(_) => {}
        }
    }

    pub(crate) fn on_rejected(&mut self, core: &mut Core, from: NodeId, asked: Index, hint: EntryId) {
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        // What it has acknowledged it has; such an answer is an old one.
        if asked <= peer.matched || asked >= peer.next {
            return;
        }
        match peer.mode {
            Mode::Probe { .. } if asked != peer.next.prev() => return,
            Mode::Snapshot(_) => return,
            Mode::Probe { .. } | Mode::Replicate => {}
        }
        let meets_at = if hint.index < core.log.base().id.index {
            hint.index
        } else {
            core.log.agreeable(hint).index
        };
        peer.probe_from(meets_at.next().min(asked));
    }

    /// A message to the peer may be lost: nothing that is under way is relied on.
    pub(crate) fn on_unreachable(&mut self, id: NodeId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        match &mut peer.mode {
            Mode::Probe { .. } => {}
            Mode::Replicate => peer.start_over(),
            Mode::Snapshot(sending) => {
                sending.rewind();
                // A piece that is being read was asked for at another offset.
                peer.load = None;
            }
        }
    }

    /// Entries that were read for a peer.
    pub(crate) fn on_entries_loaded(&mut self, core: &mut Core, id: NodeId, load: LoadId, loaded: Loaded) {
        let round = self.round;
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if peer.load != Some(load) {
            return;
        }
        peer.load = None;
        match loaded {
            Loaded::Entries(entries)
                if are_ours(core, peer.next, &entries) && has_room_for(peer, &entries[0]) =>
            {
                send(core, id, peer, entries, round);
            }
            // Compacted meanwhile (then the next step is a snapshot), read wrongly, or no longer wanted:
            // ask anew after the next heartbeat rather than at once and for ever.
            _ => {
                peer.probe_from(peer.next);
                peer.mode = Mode::Probe {
                    is_waiting: true,
                    is_retry: true,
                };
            }
        }
    }
}

fn next_step(peer: &Progress, core: &Core) -> Step {
    let has_previous = core.log.term(peer.next.prev()).is_some();
    match &peer.mode {
        Mode::Snapshot(_) => Step::Snapshot,
        Mode::Probe { is_waiting: true, .. } if has_previous => Step::Wait,
        _ if !has_previous => Step::Snapshot,
        Mode::Probe { .. } => Step::Probe,
        Mode::Replicate => {
            let is_full = peer
                .inflight
                .is_full(core.config.inflight_count_max, core.config.inflight_bytes_max);
            let has_entries = peer.next <= core.log.last().index;
            let is_blocked = is_full
                || peer.load.is_some()
                || peer.space == Space::Critical
                || core
                    .log
                    .cached(peer.next)
                    .is_some_and(|entry| !has_room_for(peer, entry));
            if has_entries && !is_blocked {
                Step::Entries
            } else {
                Step::Idle
            }
        }
    }
}

/// Will the peer's disk take this entry? It would refuse it at each heartbeat otherwise, and a large one
/// is not for sending ten times a second.
fn has_room_for(peer: &Progress, entry: &Entry) -> bool {
    match peer.space {
        Space::Ample => true,
        Space::Low => entry.size_bytes() <= LOW_SPACE_BATCH_BYTES_MAX,
        Space::Critical => false,
    }
}

/// Bytes of one append to this peer.
fn batch_bytes_max(peer: &Progress, core: &Core) -> usize {
    match peer.space {
        Space::Ample => core.config.append_bytes_max,
        Space::Low | Space::Critical => core.config.append_bytes_max.min(LOW_SPACE_BATCH_BYTES_MAX),
    }
}

/// Sends the next batch; false when it has to be read from the disk first.
fn send_entries(core: &mut Core, id: NodeId, peer: &mut Progress, round: u64) -> bool {
    let end = core.log.last().index.next();
    let bytes_max = batch_bytes_max(peer, core);
    if let Some(entries) = core.log.cached_from(peer.next, end, bytes_max) {
        send(core, id, peer, entries, round);
        return true;
    }
    let stop = core.log.first_cached().min(end);
    let what = LoadWhat::Entries {
        range: peer.next..stop,
        bytes_max,
    };
    peer.load = Some(core.load(LoadFor::Peer(id), what));
    false
}

/// Sends entries that start at `next` to a peer that replicates.
fn send(core: &mut Core, id: NodeId, peer: &mut Progress, entries: Vec<Entry>, round: u64) {
    let last = entries.last().map(Entry::index).expect("a batch has an entry");
    let bytes = entries.iter().map(Entry::size_bytes).sum();
    send_append(core, id, peer, entries, round);
    peer.next = last.next();
    peer.inflight.push(last, bytes);
}

fn send_append(core: &mut Core, id: NodeId, peer: &mut Progress, entries: Vec<Entry>, round: u64) {
    let index = peer.next.prev();
    let term = core.log.term(index).expect("the entry before an append is known");
    let commit = core.committed;
    peer.commit_told = commit;
    peer.sent_round = round;
    peer.sent_at = core.now;
    core.send(
        id,
        Body::Append(Append {
            previous: EntryId { term, index },
            entries,
            commit,
        }),
    );
}

fn send_empty(core: &mut Core, id: NodeId, peer: &mut Progress, round: u64) {
    if core.log.term(peer.next.prev()).is_some() {
        send_append(core, id, peer, Vec::new(), round);
    }
}

/// Followers serve fresh data as soon as they know that it is committed, so they are told at once.
fn tell_commit(core: &mut Core, id: NodeId, peer: &mut Progress, round: u64) {
    if matches!(peer.mode, Mode::Replicate) && peer.commit_told < core.committed {
        send_empty(core, id, peer, round);
    }
}

/// Asks whether the logs meet, with the first batch when it is at hand: a new leader's no-op should not
/// wait for another round trip.
fn probe(core: &mut Core, id: NodeId, peer: &mut Progress, round: u64) {
    let Mode::Probe { is_retry, .. } = peer.mode else {
        return;
    };
    let end = core.log.last().index.next();
    let has_room = core
        .log
        .cached(peer.next)
        .is_some_and(|entry| has_room_for(peer, entry));
    let entries = if is_retry || !has_room {
        None
    } else {
        core.log.cached_from(peer.next, end, batch_bytes_max(peer, core))
    };
    send_append(core, id, peer, entries.unwrap_or_default(), round);
    peer.mode = Mode::Probe {
        is_waiting: true,
        is_retry,
    };
}

/// True when these are the entries of the log from `from` on: whole, chained, and of the terms that
/// the log has there. The disk answers late, and may answer wrongly.
pub(crate) fn are_ours(core: &Core, from: Index, entries: &[Entry]) -> bool {
    if entries.is_empty() {
        return false;
    }
    let mut previous = core.log.checksum(from.prev());
    for (expected, entry) in (from.0..).zip(entries) {
        let is_next = entry.index() == Index(expected) && previous.is_none_or(|it| it == entry.previous);
        if !is_next || !core.log.holds(entry.id) || !entry.is_intact() {
            return false;
        }
        previous = Some(entry.checksum);
    }
    true
}
