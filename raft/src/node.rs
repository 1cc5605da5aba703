//! The state machine of one node: inputs in, effects out.

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::bugs::Bug;
use crate::candidate::Candidate;
use crate::config::Config;
use crate::core::{Core, LoadFor, PLAUSIBLE_MAX};
use crate::effects::{Effects, Persist, RoleChange, RoleKind};
use crate::error::{ConfigError, Refusal};
use crate::follower::Follower;
use crate::inflight::Sizes;
use crate::input::{Input, Loaded};
use crate::leader::Leader;
use crate::log::Log;
use crate::membership::{Change, Configuration, Memberships};
use crate::message::{Body, Cleared, Message, Proposal, ReadIndexReply, VoteReply};
use crate::progress::Mode;
use crate::quorum::Tally;
use crate::read::{AskedReads, Reader};
use crate::recovered::{Identity, Recovered};
use crate::role::{Role, Timer};
use crate::status::{PeerStatus, Status};
use crate::types::{Boot, Index, LoadId, NodeId, ProposalId, ReadId, Space, Term, Token};
use crate::writes::Writes;

/// One node of a raft group. See the crate documentation for the contract with its owner.
#[derive(Debug)]
pub struct Raft {
    core: Core,
    role: Role,
    /// What was told of the role last.
    reported: RoleChange,
}

impl Raft {
    /// Starts a node from what its disk holds. `seed` decides its election timeouts, nothing else.
    ///
    /// # Errors
    /// A setting contradicts another.
    ///
    /// # Panics
    /// When `recovered` contradicts itself: storage checks all of it before.
    pub fn new(
        config: Config,
        identity: Identity,
        recovered: Recovered,
        seed: u64,
    ) -> Result<Raft, ConfigError> {
        config.validate()?;
        let log = Log::new(&recovered, config.retained_bytes_max);
        let base = recovered.base.id.index;
        let last = recovered.last.index;
        assert!(
            recovered.applied >= base,
            "applied {} before the base {base}",
            recovered.applied
        );
        assert!(
            recovered.applied <= last,
            "applied {} beyond the log's {last}",
            recovered.applied
        );
        assert!(
            recovered.hard_state.term >= recovered.last.term,
            "the log is ahead of the term"
        );
        let core = Core {
            config,
            identity,
            rng: ChaCha8Rng::seed_from_u64(seed),
            now: 0,
            term: recovered.hard_state.term,
            vote: recovered.hard_state.vote,
            log,
            writes: Writes::new(recovered.hard_state, last),
            memberships: Memberships::new(recovered.configurations, base),
            committed: recovered.hard_state.commit.min(last).max(recovered.applied),
            applying: recovered.applied,
            applied: recovered.applied,
            unapplied: Sizes::default(),
            apply_load: None,
            apply_paused_until: 0,
            suspicion: recovered.suspicion,
            clearing: None,
            space: Space::Ample,
            snapshot: recovered.snapshot,
            making: None,
            receiving: None,
            cutting: None,
            boots: BTreeMap::new(),
            loads: BTreeMap::new(),
            next_load: LoadId(1),
            forwards: Vec::new(),
            asked: AskedReads::default(),
            out: Effects::default(),
            draft: Persist::default(),
            is_dirty: true,
        };
        let role = Role::Follower(Follower {
            leader: None,
            timer: Timer::new(0),
        });
        let reported = RoleChange {
            term: Term(0),
            role: RoleKind::Learner,
            leader: None,
        };
        let mut raft = Raft { core, role, reported };
        raft.seed_bugs(base);
        raft.role = Role::Follower(Follower::new(&mut raft.core, None));
        raft.reported = raft.role_now();
        Ok(raft)
    }

    /// Guards of the start that can be switched off.
    fn seed_bugs(&mut self, base: Index) {
        if self.core.has_bug(Bug::R16) {
            self.core.applying = base;
            self.core.applied = base;
        }
        if self.core.has_bug(Bug::R51) {
            self.core.suspicion = None;
        }
    }

    /// Takes one input. What follows from it is gathered until [`Raft::take_effects`]; several inputs
    /// may be stepped before that, and then share messages and writes.
    pub fn step(&mut self, input: Input) {
        self.core.is_dirty = true;
        match input {
            Input::Tick => self.on_tick(),
            Input::Message(message) => self.on_message(message),
            Input::Propose(proposals) => self.on_propose(proposals),
            Input::Change { id, change } => self.on_change(id, &change),
            Input::ReadIndex(ids) => self.on_read_index(ids),
            Input::Transfer { id, to } => self.on_transfer(id, to),
            Input::Persisted(token) => self.on_persisted(token),
            Input::Applied(index) => self.core.on_applied(index),
            Input::Compact(index) => self.on_compact(index),
            Input::Loaded { id, result } => self.on_loaded(id, result),
            Input::SnapshotMade(meta) => self.core.on_snapshot_made(meta),
            Input::Installed(meta) => self.on_installed(&meta),
            Input::SnapshotRefused(meta) => self.core.on_snapshot_refused(&meta),
            Input::Unreachable(id) => self.on_unreachable(id),
            Input::Space(space) => self.on_space(space),
        }
    }

    /// True when [`Raft::take_effects`] may have something to give: after every step, until it is
    /// called.
    pub fn has_effects(&self) -> bool {
        self.core.is_dirty
    }

    /// Gives everything that must be carried out because of the steps since the last call.
    pub fn take_effects(&mut self) -> Effects {
        if self.core.is_dirty {
            self.core.is_dirty = false;
            self.finish();
        }
        std::mem::take(&mut self.core.out)
    }

    /// The membership that was in force at `index`, from the base of the log on: what a snapshot that
    /// ends there must carry.
    pub fn configuration_at(&self, index: Index) -> Option<&Configuration> {
        self.core.memberships.at(index)
    }

    /// Where the node stands.
    pub fn status(&self) -> Status {
        let core = &self.core;
        let now = self.role_now();
        let mut status = Status {
            term: core.term,
            role: now.role,
            leader: now.leader,
            base: core.log.base().id.index,
            last: core.log.last().index,
            durable: core.log.durable(),
            committed: core.committed,
            applied: core.applied,
            suspicion: core.suspicion,
            configuration: core.configuration().clone(),
            uncommitted_bytes: 0,
            peers: Vec::new(),
        };
        if let Role::Leader(leader) = &self.role {
            status.uncommitted_bytes = leader.uncommitted_bytes();
            status.peers = leader
                .peers
                .iter()
                .map(|(id, peer)| PeerStatus {
                    id: *id,
                    matched: peer.matched,
                    next: peer.next,
                    inflight: peer.inflight.count(),
                    in_snapshot: matches!(peer.mode, Mode::Snapshot(_)),
                    active: peer.is_active(core.now, core.config.election_ticks),
                    suspect: peer.suspect.is_some(),
                    space: peer.space,
                })
                .collect();
        }
        status
    }

    // --- time ---------------------------------------------------------------------------------

    fn on_tick(&mut self) {
        self.core.now += 1;
        self.core.tick_reads();
        let is_sole_voter = self.core.is_sole_voter();
        match &mut self.role {
            Role::Leader(leader) => leader.tick(&mut self.core),
            Role::Follower(follower) => {
                // Whoever needs nobody else's vote need not wait for anybody.
                if follower.timer.tick() || is_sole_voter {
                    follower.leader = None;
                    self.campaign_if_able();
                }
            }
            Role::Candidate(candidate) => {
                if candidate.tick() {
                    self.campaign_if_able();
                }
            }
        }
    }

    fn campaign_if_able(&mut self) {
        if self.core.may_campaign() {
            self.role = Role::Candidate(Candidate::pre(&mut self.core));
            self.count_votes();
        } else if matches!(self.role, Role::Candidate(_)) {
            self.follow(self.core.term, None);
        }
    }

    fn campaign(&mut self, transfer: bool) {
        self.role = Role::Candidate(Candidate::real(&mut self.core, transfer));
        self.count_votes();
    }

    fn count_votes(&mut self) {
        let Role::Candidate(candidate) = &self.role else {
            return;
        };
        match (candidate.tally(&self.core), candidate.is_pre) {
            (Tally::Open, _) => {}
            (Tally::Lost, _) => self.follow(self.core.term, None),
            (Tally::Won, true) => self.campaign(false),
            (Tally::Won, false) => {
                self.role = Role::Leader(Box::new(Leader::new(&mut self.core)));
            }
        }
    }

    /// Becomes (or stays) a follower in `term`, which is not below the present one.
    fn follow(&mut self, term: Term, leader: Option<NodeId>) {
        assert!(term >= self.core.term, "term {term} after {}", self.core.term);
        if term > self.core.term {
            self.core.term = term;
            self.core.vote = None;
        }
        if let Role::Follower(follower) = &mut self.role {
            follower.leader = leader;
            if leader.is_some() {
                follower.timer.elapsed = 0;
            }
            return;
        }
        let next = Role::Follower(Follower::new(&mut self.core, leader));
        if let Role::Leader(deposed) = std::mem::replace(&mut self.role, next) {
            deposed.resign(&mut self.core, leader);
        }
    }

    /// The leader of the term as far as this node knows.
    fn leader(&self) -> Option<NodeId> {
        match &self.role {
            Role::Leader(_) => Some(self.core.id()),
            Role::Follower(follower) => follower.leader,
            Role::Candidate(_) => None,
        }
    }

    fn has_live_leader(&self) -> bool {
        match &self.role {
            // Check-quorum: a leader that nobody hears would have stepped down.
            Role::Leader(_) => true,
            Role::Follower(follower) => follower.has_live_leader(self.core.config.election_ticks),
            Role::Candidate(_) => false,
        }
    }

    // --- messages -----------------------------------------------------------------------------

    fn on_message(&mut self, message: Message) {
        if self.is_ignored(&message) {
            return;
        }
        self.note_sender(&message);
        if self.passes_term(&message) {
            self.dispatch(message);
        }
    }

    /// Messages that must not have any effect, whatever they say.
    fn is_ignored(&self, message: &Message) -> bool {
        let sender = &message.sender;
        if sender.id == self.core.id() || sender.id == NodeId(0) || message.term.0 > PLAUSIBLE_MAX {
            return true;
        }
        let is_sound = match &message.body {
            Body::Vote(request) => request.term == message.term,
            Body::PreVote(request) => request.term == message.term.next(),
            _ => true,
        };
        if !is_sound {
            return true;
        }
        let is_reply = is_reply(&message.body);
        match self.core.configuration().incarnation_of(sender.id) {
            // A membership that is older than the sender's may not know it. Leaders and candidates are
            // believed all the same (thesis §4.1); replies to questions nobody asked are not.
            None => is_reply || is_client_like(&message.body),
            // Another incarnation has lost what this member promised, so no answer of it counts (R30).
            // What leaders and candidates say is believed all the same: a quorum that knew better has
            // elected the one and decides about the other, by their logs. A voter that lags behind the
            // re-adding of a member would otherwise refuse it for ever, and be refused by it.
            Some(incarnation) if incarnation != sender.incarnation => {
                !is_from_leader(&message.body)
                    && !is_from_candidate(&message.body)
                    && !self.core.has_bug(Bug::R30)
            }
            // A reply of an earlier boot speaks of a disk that may have lost something since.
            Some(_) => {
                is_reply
                    && self
                        .core
                        .boots
                        .get(&sender.id)
                        .is_some_and(|boot| sender.boot < *boot)
            }
        }
    }

    /// Takes in what every message tells of its sender.
    fn note_sender(&mut self, message: &Message) {
        let sender = &message.sender;
        let known = self.core.configuration().incarnation_of(sender.id);
        if known.is_none() || (known != Some(sender.incarnation) && !self.core.has_bug(Bug::R30)) {
            return;
        }
        let boot = self.core.boots.entry(sender.id).or_insert(Boot(0));
        *boot = (*boot).max(sender.boot);
        if let Role::Leader(leader) = &mut self.role
            && message.term <= self.core.term
        {
            let is_reply = is_reply(&message.body) && message.term == self.core.term;
            leader.observe(&mut self.core, sender, is_reply);
        }
    }

    /// The rule of terms (paper §5.1) with its exceptions for pre-vote and check-quorum. True when the
    /// message is to be looked at further.
    fn passes_term(&mut self, message: &Message) -> bool {
        let from = message.sender.id;
        if message.term > self.core.term {
            return match &message.body {
                Body::PreVote(_) => true,
                // Not even the term: a node that cannot hear the leader would depose it otherwise.
                Body::Vote(request) if !request.transfer && self.has_live_leader() => false,
                body => {
                    let leader = is_from_leader(body).then_some(from);
                    self.follow(message.term, leader);
                    true
                }
            };
        }
        if message.term == self.core.term {
            return true;
        }
        match &message.body {
            Body::Append(_) | Body::Heartbeat(_) | Body::Snapshot(_) => {
                self.core.on_outdated_leader(from);
                false
            }
            Body::Vote(request) => {
                let reply = VoteReply {
                    term: request.term,
                    granted: false,
                };
                self.core.reply(from, Body::VoteReply(reply));
                false
            }
            // These say nothing about terms: a question of a candidate or its answer, and what clients
            // ask of whoever leads.
            Body::PreVote(_)
            | Body::PreVoteReply(_)
            | Body::Forward(_)
            | Body::ForwardReply(_)
            | Body::ReadIndex(_)
            | Body::ReadIndexReply(_) => true,
            Body::VoteReply(_)
            | Body::AppendReply(_)
            | Body::HeartbeatReply(_)
            | Body::SnapshotReply(_)
            | Body::TimeoutNow
            | Body::Cleared(_) => false,
        }
    }

    fn dispatch(&mut self, message: Message) {
        let sender = message.sender;
        let from = sender.id;
        if is_from_leader(&message.body) && !self.recognise(from) {
            return;
        }
        match message.body {
            Body::PreVote(request) => {
                let has_live_leader = self.has_live_leader();
                self.core.on_pre_vote(from, request, has_live_leader);
            }
            Body::Vote(request) => {
                let leader = self.leader();
                if self.core.on_vote(from, request, leader)
                    && let Role::Follower(follower) = &mut self.role
                {
                    follower.timer.elapsed = 0;
                }
            }
            Body::PreVoteReply(reply) => self.on_vote_reply(from, sender.suspicion, reply, true),
            Body::VoteReply(reply) => self.on_vote_reply(from, sender.suspicion, reply, false),
            Body::Append(append) => self.core.on_append(from, append),
            Body::Heartbeat(heartbeat) => self.core.on_heartbeat(from, heartbeat),
            Body::Snapshot(chunk) => self.core.on_snapshot_chunk(from, chunk),
            Body::AppendReply(reply) => {
                self.as_leader(|leader, core| leader.on_append_reply(core, from, reply))
            }
            Body::HeartbeatReply(reply) => {
                self.as_leader(|leader, core| leader.on_heartbeat_reply(core, from, reply));
            }
            Body::SnapshotReply(reply) => {
                self.as_leader(|leader, core| leader.on_snapshot_reply(core, from, reply));
            }
            Body::Forward(proposals) => self.on_forward(from, proposals),
            Body::ForwardReply(outcomes) => self.core.out.outcomes.extend(outcomes),
            Body::ReadIndex(ids) => self.on_forwarded_reads(from, sender.boot, ids),
            Body::ReadIndexReply(reply) => self.core.on_read_index_reply(reply),
            Body::TimeoutNow => self.on_timeout_now(from),
            Body::Cleared(cleared) => self.on_cleared(from, cleared),
        }
    }

    /// A message that only the leader of the term sends. False when it cannot be.
    fn recognise(&mut self, from: NodeId) -> bool {
        match &mut self.role {
            // Two leaders of one term: at least one of them is not honest (paper §5.2).
            Role::Leader(_) => false,
            Role::Follower(follower) if follower.leader.is_some_and(|leader| leader != from) => false,
            Role::Follower(follower) => {
                follower.hear(from);
                true
            }
            Role::Candidate(_) => {
                self.follow(self.core.term, Some(from));
                true
            }
        }
    }

    fn as_leader(&mut self, act: impl FnOnce(&mut Leader, &mut Core)) {
        if let Role::Leader(leader) = &mut self.role {
            act(leader, &mut self.core);
        }
    }

    fn on_vote_reply(&mut self, from: NodeId, suspicion: Option<Boot>, reply: VoteReply, is_pre: bool) {
        let Role::Candidate(candidate) = &mut self.role else {
            return;
        };
        let granted = reply.granted && suspicion.is_none();
        candidate.on_reply(from, VoteReply { granted, ..reply }, is_pre);
        self.count_votes();
    }

    fn on_forward(&mut self, from: NodeId, proposals: Vec<Proposal>) {
        let leader = self.leader();
        match &mut self.role {
            Role::Leader(role) => role.propose(&mut self.core, proposals, Some(from)),
            _ => self.core.refuse_forward(from, &proposals, not_leader(leader)),
        }
    }

    fn on_forwarded_reads(&mut self, from: NodeId, boot: Boot, ids: Vec<ReadId>) {
        let leader = self.leader();
        match &mut self.role {
            Role::Leader(role) => role.on_read_index(&mut self.core, from, boot, ids),
            _ => {
                let reply = ReadIndexReply {
                    ids,
                    result: Err(not_leader(leader)),
                    asker: boot,
                };
                self.core.send(from, Body::ReadIndexReply(reply));
            }
        }
    }

    fn on_timeout_now(&mut self, from: NodeId) {
        if self.leader() == Some(from) && self.core.may_campaign() {
            self.campaign(true);
        }
    }

    /// The leader has seen that this node holds again what it could have acknowledged. It counts once
    /// that is on its own disk too.
    fn on_cleared(&mut self, from: NodeId, cleared: Cleared) {
        let is_meant = self.leader() == Some(from)
            && self.core.suspicion == Some(cleared.suspicion)
            && cleared.boot == self.core.identity.boot;
        if is_meant && self.core.clearing.is_none() {
            self.core.clearing = Some(self.core.writes.next_token());
            self.core.draft.clear_suspicion = true;
        }
    }

    // --- clients ------------------------------------------------------------------------------

    fn on_propose(&mut self, proposals: Vec<Proposal>) {
        if let Role::Leader(leader) = &mut self.role {
            leader.propose(&mut self.core, proposals, None);
            return;
        }
        for proposal in proposals {
            if self.core.is_too_large(&proposal.payload) {
                self.core.outcome(proposal.id, Err(Refusal::TooLarge));
            } else {
                self.core.forwards.push(proposal);
            }
        }
    }

    fn on_change(&mut self, id: ProposalId, change: &Change) {
        let leader = self.leader();
        match &mut self.role {
            Role::Leader(role) => role.change(&mut self.core, id, change),
            _ => self.core.outcome(id, Err(not_leader(leader))),
        }
    }

    fn on_transfer(&mut self, id: ProposalId, to: Option<NodeId>) {
        let leader = self.leader();
        match &mut self.role {
            Role::Leader(role) => role.start_transfer(&mut self.core, id, to),
            _ => self.core.outcome(id, Err(not_leader(leader))),
        }
    }

    fn on_read_index(&mut self, ids: Vec<ReadId>) {
        let has_leader = self.leader().is_some();
        for id in ids {
            match &mut self.role {
                Role::Leader(leader) => leader.read(&mut self.core, Reader { asker: None, id }),
                _ if !has_leader => self.core.read_outcome(id, Err(Refusal::NoLeader)),
                _ if self.core.asked.count() >= self.core.config.readers_max => {
                    self.core.read_outcome(id, Err(Refusal::Overloaded));
                }
                _ => self.core.asked.add(id, self.core.now),
            }
        }
    }

    // --- disk, state machine and network ------------------------------------------------------

    fn on_persisted(&mut self, token: Token) {
        if let Some(index) = self.core.writes.confirm(token) {
            let index = if self.core.has_bug(Bug::R13) {
                index.min(self.core.log.last().index)
            } else {
                index
            };
            self.core.log.persisted(index);
        }
        if self
            .core
            .clearing
            .is_some_and(|token| self.core.writes.is_durable(token))
        {
            self.core.clearing = None;
            self.core.suspicion = None;
        }
        self.core.advance_install();
        match &mut self.role {
            Role::Follower(_) => {}
            Role::Candidate(candidate) => {
                candidate.on_persisted(&self.core);
                self.count_votes();
            }
            Role::Leader(leader) => leader.maybe_commit(&mut self.core),
        }
    }

    fn on_compact(&mut self, index: Index) {
        let limit = match &mut self.role {
            Role::Leader(leader) => leader.compaction_limit(&self.core, index),
            _ => index,
        };
        self.core.compact(limit);
    }

    fn on_loaded(&mut self, id: LoadId, result: Loaded) {
        match self.core.loads.remove(&id) {
            None => {}
            Some(LoadFor::Apply) => self.core.on_apply_loaded(id, result),
            Some(LoadFor::Cut) => self.core.on_cut_loaded(id, &result),
            Some(LoadFor::Peer(peer)) => {
                self.as_leader(|leader, core| leader.on_entries_loaded(core, peer, id, result));
            }
            Some(LoadFor::Chunk(peer)) => {
                self.as_leader(|leader, core| leader.on_chunk_loaded(core, peer, id, result));
            }
        }
    }

    fn on_installed(&mut self, meta: &crate::message::SnapshotMeta) {
        if !self.core.on_installed(meta) {
            return;
        }
        if let (Role::Follower(_), Some(leader)) = (&self.role, self.leader()) {
            self.core.tell_installed(leader, meta);
        }
    }

    fn on_unreachable(&mut self, id: NodeId) {
        self.as_leader(|leader, _| leader.on_unreachable(id));
    }

    fn on_space(&mut self, space: Space) {
        let is_worse = self.core.space == Space::Ample && space != Space::Ample;
        self.core.space = space;
        if is_worse {
            self.as_leader(|leader, core| leader.hand_over(core));
        }
    }

    // --- the end of a turn --------------------------------------------------------------------

    /// What follows from the inputs of this turn together.
    fn finish(&mut self) {
        let leader = self.leader();
        match &mut self.role {
            Role::Leader(role) => {
                let forwards = std::mem::take(&mut self.core.forwards);
                if !forwards.is_empty() {
                    role.propose(&mut self.core, forwards, None);
                }
                role.finish(&mut self.core);
                if role.is_over() {
                    role.part(&mut self.core);
                    self.follow(self.core.term, None);
                }
            }
            _ => self.core.ask_leader(leader),
        }
        self.core.hand_out_applies();
        self.core.evict();
        self.core.seal_draft();
        let now = self.role_now();
        if now != self.reported {
            self.reported = now;
            self.core.out.role = Some(now);
        }
    }

    fn role_now(&self) -> RoleChange {
        let role = match &self.role {
            Role::Leader(_) => RoleKind::Leader,
            Role::Candidate(candidate) if candidate.is_pre => RoleKind::PreCandidate,
            Role::Candidate(_) => RoleKind::Candidate,
            Role::Follower(_) if self.core.is_voter() => RoleKind::Follower,
            Role::Follower(_) => RoleKind::Learner,
        };
        RoleChange {
            term: self.core.term,
            role,
            leader: self.leader(),
        }
    }
}

fn not_leader(leader: Option<NodeId>) -> Refusal {
    leader.map_or(Refusal::NoLeader, Refusal::NotLeader)
}

/// Messages that only the leader of a term sends to its followers.
fn is_from_leader(body: &Body) -> bool {
    matches!(body, Body::Append(_) | Body::Heartbeat(_) | Body::Snapshot(_))
}

/// Questions of a candidate.
fn is_from_candidate(body: &Body) -> bool {
    matches!(body, Body::PreVote(_) | Body::Vote(_))
}

/// Answers that count something of the sender.
fn is_reply(body: &Body) -> bool {
    matches!(
        body,
        Body::PreVoteReply(_)
            | Body::VoteReply(_)
            | Body::AppendReply(_)
            | Body::HeartbeatReply(_)
            | Body::SnapshotReply(_)
    )
}

/// What only members may ask of a leader.
fn is_client_like(body: &Body) -> bool {
    matches!(body, Body::Forward(_) | Body::ReadIndex(_))
}
