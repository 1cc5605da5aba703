//! Following: appends, heartbeats, votes, and questions for the leader.

use crate::bugs::Bug;
use crate::core::{Core, PLAUSIBLE_MAX};
use crate::entry::{Entry, EntryKind};
use crate::error::Refusal;
use crate::membership::Configuration;
use crate::message::{
    Append, AppendReply, Body, Heartbeat, HeartbeatReply, Proposal, ProposalOutcome, ReadIndexReply,
    VoteReply, VoteRequest,
};
use crate::replication::LOW_SPACE_BATCH_BYTES_MAX;
use crate::role::Timer;
use crate::types::{Index, NodeId, Space};

/// What only a follower (or learner) has.
#[derive(Debug)]
pub(crate) struct Follower {
    /// The leader of the term, once it was heard of.
    pub(crate) leader: Option<NodeId>,
    /// Wound up by the leader, and by a vote given.
    pub(crate) timer: Timer,
}

impl Follower {
    pub(crate) fn new(core: &mut Core, leader: Option<NodeId>) -> Follower {
        Follower {
            leader,
            timer: Timer::new(core.draw_timeout()),
        }
    }

    /// The leader was heard.
    pub(crate) fn hear(&mut self, leader: NodeId) {
        self.leader = Some(leader);
        self.timer.elapsed = 0;
    }

    /// True while a leader was heard of within the shortest election timeout: until then no other
    /// candidate gets a vote of this node, so one that cannot hear the leader does not depose it
    /// (thesis §4.2.3).
    pub(crate) fn has_live_leader(&self, election_ticks: u32) -> bool {
        self.leader.is_some() && self.timer.elapsed < election_ticks
    }
}

impl Core {
    // --- votes --------------------------------------------------------------------------------

    /// Would this node vote so? Never while suspect (its log may lack what was committed with its
    /// help), never before it was told of a cluster (two wiped nodes must not elect each other, R47).
    /// A learner may: the candidate's log can be ahead with the entry that promotes it (R6).
    fn may_grant(&self, request: &VoteRequest) -> bool {
        let is_barred = self.has_bug(Bug::R6) && self.configuration().is_learner(self.id());
        self.suspicion.is_none()
            && !self.configuration().members.is_empty()
            && !is_barred
            && request.last.is_up_to_date_with(self.log.last())
    }

    pub(crate) fn on_pre_vote(&mut self, from: NodeId, request: VoteRequest, has_live_leader: bool) {
        let granted = request.term > self.term && !has_live_leader && self.may_grant(&request);
        // Promises nothing, so it does not wait for the disk. A refusal tells the candidate our term.
        self.send(
            from,
            Body::PreVoteReply(VoteReply {
                term: request.term,
                granted,
            }),
        );
    }

    /// A question for a vote in the present term. True when the vote was given.
    pub(crate) fn on_vote(&mut self, from: NodeId, request: VoteRequest, leader: Option<NodeId>) -> bool {
        let is_free = match self.vote {
            Some(vote) => vote == from,
            None => leader.is_none(),
        };
        let granted = is_free && self.may_grant(&request);
        if granted {
            self.vote = Some(from);
        }
        let reply = Body::VoteReply(VoteReply {
            term: request.term,
            granted,
        });
        if self.has_bug(Bug::R1) {
            self.send(from, reply);
        } else {
            self.reply(from, reply);
        }
        granted
    }

    // --- appends ------------------------------------------------------------------------------

    /// Entries, or a question, of the leader of the term (paper §5.3).
    pub(crate) fn on_append(&mut self, from: NodeId, append: Append) {
        let Some(configurations) = checked(&append, self) else {
            return;
        };
        let end = Index(append.previous.index.0 + append.entries.len() as u64);
        let base = self.log.base().id.index;
        if append.previous.index >= base && !self.log.holds(append.previous) {
            let hint = self.log.agreeable(append.previous);
            let asked = append.previous.index;
            self.reply(from, Body::AppendReply(AppendReply::Rejected { asked, hint }));
            return;
        }
        // Everything up to the base is committed, and so equal in the leader's log.
        let skipped = self.matching(&append.entries, base);
        let fresh = &append.entries[skipped..];
        if let Some(first) = fresh.first() {
            if !self.takes(&append.entries) {
                self.reply(from, Body::AppendReply(AppendReply::NoSpace));
                return;
            }
            if first.index() <= self.committed || !self.chains(first) {
                // Against the paper's guarantees: not a message of an honest leader.
                return;
            }
        }
        let is_old_truncated = self.has_bug(Bug::R12) && fresh.is_empty() && end > self.committed;
        let is_truncating = fresh
            .first()
            .is_some_and(|first| first.index() <= self.log.last().index);
        if is_truncating {
            self.truncate_from(fresh[0].index(), fresh[0].previous);
        } else if is_old_truncated
            && end < self.log.last().index
            && end > base
            && let Some(checksum) = self.log.checksum(end)
        {
            self.truncate_from(end.next(), checksum);
        }
        let mut entries = append.entries;
        for entry in entries.drain(skipped..) {
            self.append(entry);
        }
        for (index, configuration) in configurations {
            if index > self.memberships.index() {
                self.adopt(index, configuration);
            }
        }
        self.commit_to(self.committed.max(append.commit.min(end)));
        self.acknowledge(from, end.max(base));
    }

    /// How many of the entries are in the log already. An old or repeated append is one of which all
    /// are: it changes nothing, and above all truncates nothing (R12).
    fn matching(&self, entries: &[Entry], base: Index) -> usize {
        let is_new = |entry: &&Entry| entry.index() > base && !self.log.holds(entry.id);
        entries
            .iter()
            .position(|entry| is_new(&entry))
            .unwrap_or(entries.len())
    }

    /// True when the first new entry hangs on the chain that is here, and its term is not below that
    /// of the entry before it (which an append that begins before the base does not name).
    fn chains(&self, first: &Entry) -> bool {
        let before = first.index().prev();
        let is_linked = self
            .log
            .checksum(before)
            .is_none_or(|known| known == first.previous);
        is_linked && self.log.term(before).is_some_and(|term| term <= first.term())
    }

    /// Is there room for these? What is essential only the leader can tell, so a follower that is low
    /// on space takes everything small: deletes, trims and memberships are, and the reserve bounds
    /// what else slips through. At the critical level nothing passes.
    fn takes(&self, entries: &[Entry]) -> bool {
        match self.space {
            Space::Ample => true,
            Space::Low => {
                entries.iter().all(|entry| entry.kind != EntryKind::Command)
                    || entries.iter().map(Entry::size_bytes).sum::<usize>() <= LOW_SPACE_BATCH_BYTES_MAX
            }
            Space::Critical => false,
        }
    }

    /// Says that the log equals the leader's up to `matched`, once that is durable (R2).
    fn acknowledge(&mut self, to: NodeId, matched: Index) {
        let reply = Body::AppendReply(AppendReply::Accepted { matched });
        if matched <= self.log.durable() || self.has_bug(Bug::R2) {
            self.reply(to, reply);
        } else {
            self.send_durably(to, reply);
        }
    }

    pub(crate) fn on_heartbeat(&mut self, from: NodeId, heartbeat: Heartbeat) {
        // The leader cut it to what it knows to be here; a suspect may hold less.
        self.commit_to(self.committed.max(heartbeat.commit.min(self.log.last().index)));
        let durable = self.log.durable();
        self.reply(
            from,
            Body::HeartbeatReply(HeartbeatReply {
                round: heartbeat.round,
                durable,
            }),
        );
    }

    /// A leader of an older term: it is told ours, or it would lead on while this node can neither
    /// follow it nor be elected (pre-vote with check-quorum, R7).
    pub(crate) fn on_outdated_leader(&mut self, from: NodeId) {
        if self.has_bug(Bug::R7) {
            return;
        }
        let durable = Index(0);
        self.reply(from, Body::HeartbeatReply(HeartbeatReply { round: 0, durable }));
    }

    // --- what travels to the leader -----------------------------------------------------------

    /// Sends this turn's proposals and readers to the leader, if there is one.
    pub(crate) fn ask_leader(&mut self, leader: Option<NodeId>) {
        let proposals = std::mem::take(&mut self.forwards);
        let Some(leader) = leader else {
            for proposal in proposals {
                self.outcome(proposal.id, Err(Refusal::NoLeader));
            }
            return;
        };
        self.forward(leader, proposals);
        let now = self.now;
        let ids = self.asked.take_due(now);
        if !ids.is_empty() {
            self.send(leader, Body::ReadIndex(ids));
        }
    }

    /// In messages of bounded size; one large proposal travels alone.
    fn forward(&mut self, leader: NodeId, proposals: Vec<Proposal>) {
        let mut batch = Vec::new();
        let mut bytes = 0;
        for proposal in proposals {
            let size = proposal.payload.len() + Entry::OVERHEAD_BYTES;
            if bytes + size > self.config.append_bytes_max && !batch.is_empty() {
                self.send(leader, Body::Forward(std::mem::take(&mut batch)));
                bytes = 0;
            }
            bytes += size;
            batch.push(proposal);
        }
        if !batch.is_empty() {
            self.send(leader, Body::Forward(batch));
        }
    }

    /// Proposals that came to the wrong node: the answer is definite, they are in no log (R18).
    pub(crate) fn refuse_forward(&mut self, to: NodeId, proposals: &[Proposal], refusal: Refusal) {
        let result = Err(refusal);
        let refused = proposals
            .iter()
            .map(|proposal| ProposalOutcome {
                id: proposal.id,
                result,
            })
            .collect();
        self.send(to, Body::ForwardReply(refused));
    }

    /// The leader's answer to readers of this node.
    pub(crate) fn on_read_index_reply(&mut self, reply: ReadIndexReply) {
        if reply.asker != self.identity.boot {
            return;
        }
        // That node led no longer: the readers stay, and the next leader is asked.
        if matches!(reply.result, Err(Refusal::NoLeader | Refusal::NotLeader(_))) {
            return;
        }
        for id in reply.ids {
            if self.asked.remove(id) {
                self.read_outcome(id, reply.result);
            }
        }
    }

    /// Asks again for readers whose question may be lost; gives up on those that waited too long.
    pub(crate) fn tick_reads(&mut self) {
        if self.asked.count() == 0 {
            return;
        }
        let now = self.now;
        for id in self
            .asked
            .take_expired(now, 2 * u64::from(self.config.election_ticks))
        {
            self.read_outcome(id, Err(Refusal::NoLeader));
        }
        self.asked.retry(now, 2 * u64::from(self.config.heartbeat_ticks));
    }
}

/// Looks at an append before anything is changed: indices, terms, chain and memberships. `None` when
/// it cannot be what an honest leader sent, or was damaged on the way; otherwise its memberships.
fn checked(append: &Append, core: &Core) -> Option<Vec<(Index, Configuration)>> {
    let mut before = append.previous;
    if before.index.0 >= PLAUSIBLE_MAX || before.term > core.term {
        return None;
    }
    let mut checksum = None;
    let mut is_new = false;
    let mut configurations = Vec::new();
    for entry in &append.entries {
        let is_next = entry.index() == before.index.next() && entry.term() >= before.term;
        let is_chained = checksum.is_none_or(|previous| previous == entry.previous);
        if !is_next || !is_chained || entry.term() > core.term || core.is_too_large(&entry.payload) {
            return None;
        }
        // Entries that are here already are not looked at again: only their ids matter. Behind one that is
        // new all are: it takes what stands there away, and these are what comes in its place.
        is_new |= !core.log.holds(entry.id);
        if is_new {
            if !entry.is_intact() {
                return None;
            }
            if entry.kind == EntryKind::Configuration {
                configurations.push((entry.index(), Configuration::decode(&entry.payload).ok()?));
            }
        }
        before = entry.id;
        checksum = Some(entry.checksum);
    }
    Some(configurations)
}
