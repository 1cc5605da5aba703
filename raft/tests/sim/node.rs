//! One node: a disk that stays, and a process that comes and goes.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use raft::{
    EntryKind, Incarnation, Index, NodeId, Proposal, ProposalId, Raft, ReadId, RoleKind, SnapshotMeta, Space,
    Term,
};

use super::disk::Disk;
use super::invariants::Uid;
use super::invariants::configuration_safety::Memberships;
use super::invariants::linearizable_reads::Told;
use super::invariants::monotone_progress::Cursors;
use super::invariants::suspects_do_not_count::Grants;
use super::machine::{Command, OpId, WINDOW};
use super::plan::NODES_MAX;

/// A node of the world.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) incarnation: Incarnation,
    pub(crate) uid: Uid,
    pub(crate) disk: Disk,
    /// What was committed when it became suspect: it counts again only with all of it. (What it loses while
    /// it is suspect it had promised to nobody.)
    pub(crate) lost_at: Index,
    /// The running process; `None` while it is down.
    pub(crate) process: Option<Process>,
    /// Rises at every start and end; events of an earlier life are dropped. No two lives of a world
    /// have the same number.
    pub(crate) life: u64,
    /// A start is on its way.
    pub(crate) starting: bool,
    /// Nothing reaches the process before this time (R36).
    pub(crate) paused_until: u64,
    /// Syncs take twenty times as long until then (R25).
    pub(crate) slow_until: u64,
}

/// A running process.
pub(crate) struct Process {
    pub(crate) raft: Raft,
    pub(crate) role: RoleKind,
    pub(crate) term: Term,
    pub(crate) leader: Option<NodeId>,
    pub(crate) space: Space,
    pub(crate) memberships: Memberships,
    pub(crate) cursors: Cursors,
    /// Last index the core gave out to be applied.
    pub(crate) given: Index,
    pub(crate) apply_queue: VecDeque<raft::Entry>,
    pub(crate) apply_scheduled: bool,
    pub(crate) installing: Option<SnapshotMeta>,
    pub(crate) votes: Grants,
    pub(crate) pre_votes: Grants,
    /// The term that a leader's order to start an election leads to.
    pub(crate) asked: Option<Term>,
    /// Commit index when it became leader; `None` once its first own commit was checked.
    pub(crate) commit_at_election: Option<Index>,
    /// Index that is applied and not yet told to the core to compact.
    pub(crate) compacted: u64,
    pub(crate) proposer: Proposer,
    pub(crate) reads: Vec<PendingRead>,
    pub(crate) next_read: u64,
    /// The incarnation heard last of each node id.
    pub(crate) heard: [Option<Incarnation>; NODES_MAX + 1],
}

/// A reader that waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PendingRead {
    pub(crate) id: ReadId,
    pub(crate) key: u8,
    pub(crate) before: Told,
    pub(crate) index: Option<Index>,
}

/// State of a proposer's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionState {
    /// Not open yet; asked at this time.
    Opening {
        asked_us: Option<u64>,
    },
    Open,
    /// Closed by others: this boot can write no more.
    Closed,
}

/// A write that waits for its answer.
#[derive(Clone, Debug)]
pub(crate) struct PendingWrite {
    pub(crate) stamp: u64,
    pub(crate) payload: Bytes,
    /// How often it was handed to the core.
    pub(crate) sent: u32,
    pub(crate) sent_us: u64,
}

/// The part of the runtime that proposes for clients: sessions, operation ids, retries.
#[derive(Clone, Debug)]
pub(crate) struct Proposer {
    /// Node, incarnation and boot of the session; the counter is the next free one.
    pub(crate) next: OpId,
    life: u64,
    pub(crate) session: SessionState,
    pub(crate) pending: BTreeMap<u64, PendingWrite>,
}

impl Proposer {
    pub(crate) fn new(next: OpId, life: u64) -> Proposer {
        Proposer {
            next,
            life,
            session: SessionState::Opening { asked_us: None },
            pending: BTreeMap::new(),
        }
    }

    /// The proposal that opens the session.
    pub(crate) fn open(&self) -> Proposal {
        let payload = Command::Open(OpId {
            counter: 0,
            ..self.next
        })
        .encode(0);
        Proposal {
            id: self.proposal_id(u64::from(u32::MAX)),
            payload,
            essential: true,
        }
    }

    /// A new write, unless the window is full.
    pub(crate) fn write(&mut self, stamp: u64, key: u8, bytes: usize, now: u64) -> Option<Proposal> {
        let first = self.pending.keys().next().copied().unwrap_or(self.next.counter);
        if self.next.counter >= first + WINDOW {
            return None;
        }
        let op = self.next;
        self.next.counter += 1;
        let payload = Command::Put { op, stamp, key }.encode(bytes);
        let write = PendingWrite {
            stamp,
            payload: payload.clone(),
            sent: 1,
            sent_us: now,
        };
        self.pending.insert(op.counter, write);
        Some(Proposal {
            id: self.proposal_id(op.counter),
            payload,
            essential: false,
        })
    }

    /// Writes that have waited since before `then`, to be sent again under their old ids.
    pub(crate) fn retry(&mut self, then: u64, now: u64) -> Vec<Proposal> {
        let life = self.life;
        let late = self.pending.iter_mut().filter(|(_, write)| write.sent_us < then);
        late.map(|(counter, write)| {
            write.sent += 1;
            write.sent_us = now;
            Proposal {
                id: proposal_id(life, *counter),
                payload: write.payload.clone(),
                essential: false,
            }
        })
        .collect()
    }

    /// The operation counter a proposal id stands for, if it is of this life.
    pub(crate) fn counter_of(&self, id: ProposalId) -> Option<u64> {
        (id.0 >> 32 == self.life).then_some(id.0 & u64::from(u32::MAX))
    }

    fn proposal_id(&self, counter: u64) -> ProposalId {
        proposal_id(self.life, counter)
    }
}

fn proposal_id(life: u64, counter: u64) -> ProposalId {
    ProposalId(life << 32 | counter)
}

impl Node {
    pub(crate) fn is_up(&self) -> bool {
        self.process.is_some()
    }

    pub(crate) fn leads(&self) -> bool {
        self.process
            .as_ref()
            .is_some_and(|process| process.role == RoleKind::Leader)
    }

    /// Which member of an id a message is for: the one of the membership, and whoever was heard last
    /// under it. (A node that lags may know only an earlier incarnation of the leader that feeds it; its
    /// answers must get through all the same.)
    pub(crate) fn meant(&self, to: NodeId) -> [Option<Incarnation>; 2] {
        let Some(process) = &self.process else {
            return [None; 2];
        };
        let heard = process.heard.get(to.0 as usize).copied().flatten();
        [
            process
                .memberships
                .in_force()
                .and_then(|known| known.incarnation_of(to)),
            heard,
        ]
    }

    /// Neither suspect nor harmed without knowing it yet.
    pub(crate) fn is_clean(&self) -> bool {
        self.disk.mark.suspicion.is_none() && !self.disk.damaged
    }

    /// The member this node is.
    pub(crate) fn member(&self) -> raft::Member {
        raft::Member {
            id: self.id,
            incarnation: self.incarnation,
            address: format!("n{}:1", self.id),
        }
    }

    /// Memberships this node may act on: the newest of its log (of its disk while it is down), and as long
    /// as that one is not known to be committed, those it would fall back to.
    pub(crate) fn configurations(&self, committed: Index) -> Vec<raft::Configuration> {
        let mut known = match &self.process {
            Some(process) => process.memberships.all(),
            None => self.disk.configurations(),
        };
        let stands = known
            .iter()
            .rposition(|(index, _)| *index <= committed)
            .unwrap_or(0);
        known
            .drain(stands..)
            .map(|(_, configuration)| configuration)
            .collect()
    }
}

/// True for entries that carry a membership.
pub(crate) fn is_configuration(entry: &raft::Entry) -> bool {
    entry.kind == EntryKind::Configuration
}
