//! What a leader knows of one peer.

use crate::inflight::Inflight;
use crate::message::Sender;
use crate::send::Sending;
use crate::types::{Boot, Index, LoadId, Space};

/// A peer as its leader sees it.
#[derive(Debug)]
pub(crate) struct Progress {
    /// Its log equals the leader's up to here, durably. A suspect starts from 0 again, and while it is
    /// suspect nobody counts this ([`Progress::counted`]).
    pub(crate) matched: Index,
    /// First entry to send next: a guess while probing, ahead of acknowledgements while replicating.
    /// matched < next <= last + 1.
    pub(crate) next: Index,
    pub(crate) mode: Mode,
    /// Appends with entries that are under way; empty unless replicating.
    pub(crate) inflight: Inflight,
    /// Highest commit index it was told.
    pub(crate) commit_told: Index,
    /// Entries for it are being read from the disk.
    pub(crate) load: Option<LoadId>,

    /// Tick of its last reply in this term.
    pub(crate) heard_at: u64,
    /// Highest heartbeat round it has echoed in this term.
    pub(crate) echoed: u64,
    /// Heartbeat round after which the last append was sent. An answer to a later round while that
    /// append is unanswered means that it, or the answer, may be lost.
    pub(crate) sent_round: u64,
    /// Tick at which that was.
    pub(crate) sent_at: u64,

    /// Newest boot heard of; 0 before the first message.
    pub(crate) boot: Boot,
    /// Set while the peer says that it may have lost what it acknowledged.
    pub(crate) suspect: Option<Suspect>,
    /// Room on its disk, as it last said.
    pub(crate) space: Space,
    /// The catch-up round of a learner.
    pub(crate) round: CatchUp,
}

/// How entries are sent to a peer (thesis §10.2.2; etcd-io/raft calls these states the same).
#[derive(Debug)]
pub(crate) enum Mode {
    /// Where its log meets ours is not known: one append at a time.
    Probe {
        /// The append was sent; wait for the answer, or for a heartbeat's.
        is_waiting: bool,
        /// It was sent without an answer before: ask with an empty one this time, in case the peer has
        /// the entries and is slow to write them.
        is_retry: bool,
    },
    /// Entries are sent as they come, ahead of the acknowledgements.
    Replicate,
    /// It needs entries that are no longer in the log.
    Snapshot(Box<Sending>),
}

/// A peer that counts for nothing until it is seen to hold again what it could have acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Suspect {
    /// The boot at which the suspicion began: its name.
    pub(crate) since: Boot,
    /// Durable up to here, the suspicion is lifted: the leader's last index as of the later of the
    /// commit of its no-op and the moment it learned of this. `None` before that commit.
    pub(crate) target: Option<Index>,
}

/// A learner catches up in rounds (thesis §4.2.1): when a round was shorter than an election timeout,
/// the next would be shorter still, and it may vote.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CatchUp {
    /// The leader's last index at the start of the round.
    pub(crate) target: Index,
    /// Tick at which it began.
    pub(crate) started: u64,
    /// It has reached the target in time.
    pub(crate) is_done: bool,
}

impl Progress {
    /// A peer of which nothing is known but that it was a member when this leadership (or its
    /// membership) began.
    pub(crate) fn new(last: Index, boot: Boot, now: u64) -> Progress {
        Progress {
            matched: Index(0),
            next: last.next(),
            mode: Mode::Probe {
                is_waiting: false,
                is_retry: false,
            },
            inflight: Inflight::default(),
            commit_told: Index(0),
            load: None,
            heard_at: now,
            echoed: 0,
            sent_round: 0,
            sent_at: now,
            boot,
            suspect: None,
            space: Space::Ample,
            round: CatchUp {
                target: last,
                started: now,
                is_done: false,
            },
        }
    }

    /// What counts towards a quorum.
    pub(crate) fn counted(&self) -> Index {
        if self.suspect.is_some() {
            Index(0)
        } else {
            self.matched
        }
    }

    /// What counts towards a round of reads.
    pub(crate) fn counted_echo(&self) -> u64 {
        if self.suspect.is_some() { 0 } else { self.echoed }
    }

    pub(crate) fn is_active(&self, now: u64, election_ticks: u32) -> bool {
        now.saturating_sub(self.heard_at) <= u64::from(election_ticks)
    }

    /// Notes what every message of the peer says about it. True when it has become suspect.
    pub(crate) fn observe(&mut self, sender: &Sender, keep_match: bool) -> bool {
        self.space = sender.space;
        if sender.boot > self.boot {
            // It restarted: what was under way is lost, what it had synced is not. Of a peer that was
            // never heard of before, nothing is known to have been lost.
            let is_restart = self.boot > Boot(0);
            self.boot = sender.boot;
            if is_restart {
                // A suspect disk may go on losing: what an earlier boot of it said is worth nothing.
                if sender.suspicion.is_some() && !keep_match {
                    self.matched = Index(0);
                }
                self.start_over();
            }
        }
        let known = self.suspect.map(|suspect| suspect.since);
        if known == sender.suspicion {
            return false;
        }
        self.suspect = sender.suspicion.map(|since| Suspect { since, target: None });
        if self.suspect.is_none() {
            return false;
        }
        // It may have lost any part of what it acknowledged; acks of earlier boots are ignored from
        // here on, so the match grows only from what this boot says.
        if !keep_match {
            self.matched = Index(0);
        }
        self.round.is_done = false;
        self.start_over();
        true
    }

    /// Nothing that is under way is relied on. Goes on after what is known to be there; where nothing
    /// is known yet the present guess stays, a refusal tells more.
    pub(crate) fn start_over(&mut self) {
        let next = if self.matched == Index(0) {
            self.next
        } else {
            self.matched.next()
        };
        self.probe_from(next);
    }

    /// Starts over at `next`.
    pub(crate) fn probe_from(&mut self, next: Index) {
        self.mode = Mode::Probe {
            is_waiting: false,
            is_retry: false,
        };
        self.next = next.max(self.matched.next());
        self.inflight.clear();
        self.load = None;
    }

    /// The logs are known to meet: from now on optimistic.
    pub(crate) fn replicate(&mut self) {
        self.mode = Mode::Replicate;
        self.inflight.clear();
        self.load = None;
    }

    /// It holds everything up to `index`, durably.
    pub(crate) fn acknowledge(&mut self, index: Index) {
        if index > self.matched {
            self.matched = index;
            self.inflight.free_to(index);
        }
        self.next = self.next.max(self.matched.next());
    }

    /// A learner's round, after its match has moved.
    pub(crate) fn catch_up(&mut self, last: Index, now: u64, election_ticks: u32) {
        if self.round.is_done || self.matched < self.round.target {
            return;
        }
        let is_short = now.saturating_sub(self.round.started) <= u64::from(election_ticks);
        self.round = CatchUp {
            target: last,
            started: now,
            is_done: is_short,
        };
    }
}
