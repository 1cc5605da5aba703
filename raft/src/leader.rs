//! Leading: proposals, acknowledgements, the commit rule, check-quorum and membership changes.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::bugs::Bug;
use crate::core::Core;
use crate::entry::{Entry, EntryKind};
use crate::error::Refusal;
use crate::inflight::Sizes;
use crate::membership::{Change, Configuration};
use crate::message::{
    AppendReply, Body, Cleared, Heartbeat, HeartbeatReply, Proposal, ProposalOutcome, ReadIndexReply, Sender,
};
use crate::progress::{Mode, Progress};
use crate::read::{LeaderReads, Reader};
use crate::transfer::Transfer;
use crate::types::{Boot, EntryId, Index, NodeId, ProposalId, ReadId, Space};

/// What only a leader has.
#[derive(Debug)]
pub(crate) struct Leader {
    /// Every other member, learners included.
    pub(crate) peers: BTreeMap<NodeId, Progress>,
    /// The first entry of this term: nothing else is certain before it is committed.
    noop: Index,
    /// Ticks since the last heartbeat.
    heartbeat_elapsed: u32,
    /// Number of the newest heartbeat; strictly rising in the term.
    pub(crate) round: u64,
    reads: LeaderReads,
    pub(crate) transfer: Option<Transfer>,
    /// Sizes of what this leader appended and has not committed.
    uncommitted: Sizes,
    /// It must step down at the end of the turn: no quorum answers, or it is no longer a member.
    is_over: bool,
}

impl Leader {
    /// Begins a term: appends its no-op (paper §8, R4) and supposes that every peer has the whole log.
    pub(crate) fn new(core: &mut Core) -> Leader {
        let mut leader = Leader {
            peers: BTreeMap::new(),
            noop: Index(0),
            heartbeat_elapsed: 0,
            round: 0,
            reads: LeaderReads::default(),
            transfer: None,
            uncommitted: Sizes::default(),
            is_over: false,
        };
        leader.meet_members(core);
        leader.noop = leader.append(core, EntryKind::Noop, Bytes::new()).index;
        for id in core.asked.take_all() {
            leader.read(core, Reader { asker: None, id });
        }
        leader
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    pub(crate) fn uncommitted_bytes(&self) -> usize {
        self.uncommitted.bytes()
    }

    pub(crate) fn is_noop_committed(&self, core: &Core) -> bool {
        core.committed >= self.noop
    }

    /// Keeps one progress for each other member of the membership in force.
    fn meet_members(&mut self, core: &mut Core) {
        let last = core.log.last().index;
        let members = &core.memberships.current().members;
        self.peers.retain(|id, _| members.contains_key(id));
        for id in members.keys().filter(|id| **id != core.identity.id) {
            let boot = core.boots.get(id).copied().unwrap_or_default();
            self.peers
                .entry(*id)
                .or_insert_with(|| Progress::new(last, boot, core.now));
        }
    }

    fn append(&mut self, core: &mut Core, kind: EntryKind, payload: Bytes) -> EntryId {
        let size = payload.len() + Entry::OVERHEAD_BYTES;
        let id = core.append_own(kind, payload);
        self.uncommitted.push(id.index, size);
        id
    }

    // --- time ---------------------------------------------------------------------------------

    pub(crate) fn tick(&mut self, core: &mut Core) {
        self.heartbeat_elapsed += 1;
        if self.heartbeat_elapsed >= core.config.heartbeat_ticks {
            self.heartbeat(core);
        }
        self.tick_transfer(core);
        self.tick_snapshots(core);
        self.tick_reads(core);
        self.check_quorum(core);
    }

    /// Readers that no round could take in time are told so; asking again is always safe.
    fn tick_reads(&mut self, core: &mut Core) {
        let late = self
            .reads
            .take_expired(core.now, 2 * u64::from(core.config.election_ticks));
        answer_readers(core, late, Err(Refusal::TermNotCommitted));
    }

    /// A leader that a quorum does not answer within an election timeout is none: another may lead by
    /// now, and clients should not wait for this one (thesis §6.2).
    fn check_quorum(&mut self, core: &Core) {
        let is_heard = |id: NodeId| {
            id == core.id()
                || self.peers.get(&id).is_some_and(|peer| {
                    peer.suspect.is_none() && peer.is_active(core.now, core.config.election_ticks)
                })
        };
        if !core.configuration().has_quorum(is_heard) {
            self.is_over = true;
        }
    }

    /// One round: keeps followers quiet, tells them what is committed, proves leadership to readers.
    fn heartbeat(&mut self, core: &mut Core) {
        self.heartbeat_elapsed = 0;
        self.round += 1;
        for (id, peer) in &self.peers {
            let commit = core.committed.min(peer.matched);
            core.send(
                *id,
                Body::Heartbeat(Heartbeat {
                    commit,
                    round: self.round,
                }),
            );
        }
    }

    // --- proposals ----------------------------------------------------------------------------

    /// Appends what may be appended. Refusals go back to `from`, or to the own clients.
    pub(crate) fn propose(&mut self, core: &mut Core, proposals: Vec<Proposal>, from: Option<NodeId>) {
        let ample = self.space_refusal(core, false);
        let scarce = self.space_refusal(core, true);
        let mut refused = Vec::new();
        for proposal in proposals {
            let space = if proposal.essential { scarce } else { ample };
            let refusal = self.refusal(core, &proposal, space);
            match (refusal, from) {
                (Some(refusal), Some(_)) => {
                    refused.push(ProposalOutcome {
                        id: proposal.id,
                        result: Err(refusal),
                    });
                }
                (Some(refusal), None) => core.outcome(proposal.id, Err(refusal)),
                (None, from) => {
                    let id = self.append(core, EntryKind::Command, proposal.payload);
                    if from.is_none() {
                        core.outcome(proposal.id, Ok(id));
                    }
                }
            }
        }
        if let (Some(from), false) = (from, refused.is_empty()) {
            core.send(from, Body::ForwardReply(refused));
        }
    }

    fn refusal(&self, core: &Core, proposal: &Proposal, space: Option<Refusal>) -> Option<Refusal> {
        if self.transfer.is_some() {
            return Some(Refusal::Transferring);
        }
        if core.is_too_large(&proposal.payload) {
            return Some(Refusal::TooLarge);
        }
        if space.is_some() {
            return space;
        }
        let bytes = self.uncommitted.bytes() + proposal.payload.len() + Entry::OVERHEAD_BYTES;
        // An empty pipeline lets any entry through, or the largest one could wait for ever.
        let is_over = bytes > core.config.uncommitted_bytes_max && !self.uncommitted.is_empty();
        is_over.then_some(Refusal::Overloaded)
    }

    /// Why the disks do not take another entry: the own one, or those of too many members (then the
    /// entry could not be committed, so it is refused before it is appended).
    fn space_refusal(&self, core: &Core, essential: bool) -> Option<Refusal> {
        let takes = |space: Space| match space {
            Space::Ample => true,
            Space::Low => essential,
            Space::Critical => false,
        };
        let quorum_takes = core.configuration().has_quorum(|id| {
            let space = if id == core.id() {
                Some(core.space)
            } else {
                self.peers.get(&id).map(|peer| peer.space)
            };
            space.is_some_and(takes)
        });
        (!takes(core.space) || !quorum_takes).then_some(Refusal::LowOnSpace)
    }

    // --- membership ---------------------------------------------------------------------------

    /// Starts a membership change that was asked for.
    pub(crate) fn change(&mut self, core: &mut Core, id: ProposalId, change: &Change) {
        let result = self.try_change(core, change);
        core.outcome(id, result);
    }

    fn try_change(&mut self, core: &mut Core, change: &Change) -> Result<EntryId, Refusal> {
        let Some(next) = core.configuration().changed(change)? else {
            let index = core.memberships.index();
            let term = core.log.term(index).unwrap_or_default();
            return Ok(EntryId { term, index });
        };
        if let Some(refusal) = self.change_refusal(core) {
            return Err(refusal);
        }
        Ok(self.adopt(core, next))
    }

    /// One change at a time, and none before the no-op is committed: a leader that does not know what
    /// is committed could overlap two changes of different leaders (R4, R5; Ongaro's note of 2015).
    fn change_refusal(&self, core: &Core) -> Option<Refusal> {
        if !self.is_noop_committed(core) && !core.has_bug(Bug::R4) {
            return Some(Refusal::TermNotCommitted);
        }
        if self.transfer.is_some() {
            return Some(Refusal::Transferring);
        }
        let is_pending = core.memberships.index() > core.committed || core.configuration().is_joint();
        if is_pending && !core.has_bug(Bug::R5) {
            return Some(Refusal::ChangeInProgress);
        }
        self.space_refusal(core, true)
    }

    /// Appends a configuration, in force from here on.
    fn adopt(&mut self, core: &mut Core, next: Configuration) -> EntryId {
        let id = self.append(core, EntryKind::Configuration, next.encode());
        core.adopt(id.index, next);
        self.meet_members(core);
        id
    }

    /// The changes a leader makes by itself: leaving a joint membership, and promoting a learner that
    /// has caught up.
    fn advance_membership(&mut self, core: &mut Core) {
        if !self.is_noop_committed(core) || core.memberships.index() > core.committed {
            return;
        }
        if core.space == Space::Critical {
            return;
        }
        if core.configuration().is_joint() {
            let next = core.configuration().left();
            self.adopt(core, next);
            self.maybe_commit(core);
            return;
        }
        if self.change_refusal(core).is_some() {
            return;
        }
        let is_ready = |id: &NodeId| {
            self.peers.get(id).is_some_and(|peer| {
                peer.round.is_done
                    && peer.suspect.is_none()
                    && peer.space == Space::Ample
                    && peer.is_active(core.now, core.config.election_ticks)
            })
        };
        let configuration = core.configuration();
        let ready = configuration
            .members
            .keys()
            .find(|id| configuration.is_learner(**id) && is_ready(id));
        if let Some(learner) = ready.copied() {
            let next = core.configuration().promoted(learner);
            self.adopt(core, next);
        }
    }

    // --- acknowledgements ---------------------------------------------------------------------

    /// Every message of a member says who it is now; every reply is a sign of life.
    pub(crate) fn observe(&mut self, core: &mut Core, sender: &Sender, is_reply: bool) {
        let target = self.is_noop_committed(core).then_some(core.log.last().index);
        let Some(peer) = self.peers.get_mut(&sender.id) else {
            return;
        };
        if sender.boot < peer.boot {
            return;
        }
        if peer.observe(sender, core.has_bug(Bug::R44))
            && let Some(suspect) = &mut peer.suspect
        {
            suspect.target = target;
        }
        if is_reply {
            peer.heard_at = core.now;
        }
    }

    pub(crate) fn on_append_reply(&mut self, core: &mut Core, from: NodeId, reply: AppendReply) {
        match reply {
            AppendReply::Accepted { matched } => self.on_accepted(core, from, matched),
            AppendReply::Rejected { asked, hint } => self.on_rejected(core, from, asked, hint),
            AppendReply::NoSpace => {
                let Some(peer) = self.peers.get_mut(&from) else {
                    return;
                };
                // Asked again at the next heartbeat, or for a snapshot once it has been idle for long
                // enough, not sooner: a full disk does not change that fast.
                if matches!(peer.mode, Mode::Snapshot(_)) {
                    return;
                }
                peer.start_over();
                peer.mode = Mode::Probe {
                    is_waiting: true,
                    is_retry: true,
                };
            }
        }
    }

    fn on_accepted(&mut self, core: &mut Core, from: NodeId, matched: Index) {
        let last = core.log.last().index;
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        if matched > last {
            return;
        }
        peer.acknowledge(matched);
        match &peer.mode {
            Mode::Probe { .. } => peer.replicate(),
            Mode::Replicate => {}
            Mode::Snapshot(_) if peer.matched >= core.log.base().id.index => peer.replicate(),
            Mode::Snapshot(_) => {}
        }
        self.advance(core, from);
    }

    /// The match of a peer has (perhaps) moved.
    pub(crate) fn advance(&mut self, core: &mut Core, id: NodeId) {
        let last = core.log.last().index;
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.catch_up(last, core.now, core.config.election_ticks);
        }
        self.maybe_clear(core, id);
        self.maybe_commit(core);
    }

    /// Tells a suspect that holds again what it could have acknowledged that it counts again (design,
    /// rule 5). Repeated until its messages say so.
    fn maybe_clear(&mut self, core: &mut Core, id: NodeId) {
        let Some(peer) = self.peers.get(&id) else { return };
        let Some(suspect) = peer.suspect else { return };
        let is_refilled = suspect.target.is_some_and(|target| peer.matched >= target);
        if is_refilled || core.has_bug(Bug::R43) {
            let boot = peer.boot;
            core.send(
                id,
                Body::Cleared(Cleared {
                    suspicion: suspect.since,
                    boot,
                }),
            );
        }
    }

    /// Moves the commit index to what a quorum holds, if that is an entry of this term: an older one
    /// may still be replaced although a majority holds it (paper §5.4.2 and figure 8; R3).
    pub(crate) fn maybe_commit(&mut self, core: &mut Core) {
        let own = if core.has_bug(Bug::R2) {
            core.log.last().index
        } else {
            core.log.durable()
        };
        let matched = |id: NodeId| {
            if id == core.id() {
                own
            } else {
                self.peers.get(&id).map_or(Index(0), Progress::counted)
            }
        };
        let Some(agreed) = core.configuration().agreed(matched) else {
            return;
        };
        if agreed <= core.committed {
            return;
        }
        if core.log.term(agreed) != Some(core.term) && !core.has_bug(Bug::R3) {
            return;
        }
        let was_noop_committed = self.is_noop_committed(core);
        core.commit_to(agreed);
        self.uncommitted.free_to(agreed);
        if !was_noop_committed && self.is_noop_committed(core) {
            self.on_noop_committed(core);
        }
        if core.memberships.index() <= core.committed && !core.is_voter() {
            // It led the way out (thesis §4.2.2); the others hear of it in this turn's messages.
            self.is_over = true;
        }
    }

    fn on_noop_committed(&mut self, core: &Core) {
        let last = core.log.last().index;
        for peer in self.peers.values_mut() {
            if let Some(suspect) = &mut peer.suspect
                && suspect.target.is_none()
            {
                suspect.target = Some(last);
            }
        }
    }

    // --- heartbeats and reads -----------------------------------------------------------------

    pub(crate) fn on_heartbeat_reply(&mut self, core: &mut Core, from: NodeId, reply: HeartbeatReply) {
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        if reply.round > self.round {
            return;
        }
        peer.echoed = peer.echoed.max(reply.round);
        if !core.has_bug(Bug::R14) {
            self.wake(core, from, reply);
        }
        // Not only acknowledgements end a learner's round: on an idle cluster none come any more.
        self.advance(core, from);
        self.serve_reads(core);
        self.retry_transfer(from);
    }

    /// A reader wants an index; it waits until the no-op is committed (thesis §6.4) and a round of
    /// heartbeats has come back.
    pub(crate) fn read(&mut self, core: &mut Core, reader: Reader) {
        if let Err(refusal) = self.reads.add(reader, core.now, core.config.readers_max) {
            answer_readers(core, vec![reader], Err(refusal));
        }
    }

    /// A follower asks for its readers.
    pub(crate) fn on_read_index(&mut self, core: &mut Core, from: NodeId, boot: Boot, ids: Vec<ReadId>) {
        let mut refused = Vec::new();
        for id in ids {
            let reader = Reader {
                asker: Some((from, boot)),
                id,
            };
            if self.reads.add(reader, core.now, core.config.readers_max).is_err() {
                refused.push(reader);
            }
        }
        answer_readers(core, refused, Err(Refusal::Overloaded));
    }

    fn start_reads(&mut self, core: &mut Core) {
        if core.has_bug(Bug::R9) && self.reads.has_waiting() {
            self.round += 1;
            self.reads.start_round(self.round, core.committed);
            self.serve(core, u64::MAX);
            return;
        }
        if !self.reads.wants_round() || !(self.is_noop_committed(core) || core.has_bug(Bug::R4)) {
            return;
        }
        let index = core.committed;
        self.heartbeat(core);
        self.reads.start_round(self.round, index);
        if core.is_sole_voter() {
            self.serve(core, u64::MAX);
        }
    }

    fn serve_reads(&mut self, core: &mut Core) {
        if !self.reads.has_rounds() {
            return;
        }
        let echoed = |id: NodeId| {
            if id == core.id() {
                self.round
            } else {
                self.peers.get(&id).map_or(0, Progress::counted_echo)
            }
        };
        if let Some(agreed) = core.configuration().agreed(echoed) {
            self.serve(core, agreed);
        }
    }

    fn serve(&mut self, core: &mut Core, echoed: u64) {
        for (index, readers) in self.reads.take_served(echoed) {
            answer_readers(core, readers, Ok(index));
        }
    }

    // --- the end of a turn, and of a leadership -----------------------------------------------

    /// What follows from this turn's inputs, once for all of them.
    pub(crate) fn finish(&mut self, core: &mut Core) {
        self.advance_membership(core);
        self.advance_transfer(core);
        self.start_reads(core);
        self.replicate(core);
    }

    /// Leads no longer: readers of other nodes are told, own ones ask the next leader.
    pub(crate) fn resign(mut self, core: &mut Core, leader: Option<NodeId>) {
        let refusal = leader.map_or(Refusal::NoLeader, Refusal::NotLeader);
        let (own, others) = self
            .reads
            .take_all()
            .into_iter()
            .partition(|reader| reader.asker.is_none());
        answer_readers(core, others, Err(refusal));
        let own: Vec<Reader> = own;
        for reader in own {
            core.asked.add(reader.id, core.now);
        }
    }
}

/// Answers readers: own ones at once, others by one message per node and boot.
fn answer_readers(core: &mut Core, readers: Vec<Reader>, result: Result<Index, Refusal>) {
    let mut others: BTreeMap<(NodeId, Boot), Vec<ReadId>> = BTreeMap::new();
    for reader in readers {
        match reader.asker {
            None => core.read_outcome(reader.id, result),
            Some(asker) => others.entry(asker).or_default().push(reader.id),
        }
    }
    for ((node, asker), ids) in others {
        core.send(node, Body::ReadIndexReply(ReadIndexReply { ids, result, asker }));
    }
}
