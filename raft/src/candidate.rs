//! Elections with pre-vote (paper §5.2, thesis §9.6).

use std::collections::BTreeMap;

use crate::bugs::Bug;
use crate::core::Core;
use crate::message::{Body, VoteReply, VoteRequest};
use crate::quorum::Tally;
use crate::role::Timer;
use crate::types::{NodeId, Term, Token};

/// What only a candidate has.
#[derive(Debug)]
pub(crate) struct Candidate {
    /// Only asks whether it would win; its term is not raised yet.
    pub(crate) is_pre: bool,
    /// The term asked for.
    asked: Term,
    /// Answers so far, the own vote included once it counts.
    votes: BTreeMap<NodeId, bool>,
    /// The write that makes the own vote durable; it counts from then on (R1).
    own_vote: Option<Token>,
    timer: Timer,
}

impl Candidate {
    /// Asks whether this node would win, without disturbing anyone: a node that was cut off cannot
    /// win, so it does not raise its term, so its return does not depose the leader.
    pub(crate) fn pre(core: &mut Core) -> Candidate {
        let asked = core.term.next();
        let request = VoteRequest {
            term: asked,
            last: core.log.last(),
            transfer: false,
        };
        for id in other_voters(core) {
            core.send(id, Body::PreVote(request));
        }
        Candidate {
            is_pre: true,
            asked,
            votes: BTreeMap::from([(core.id(), true)]),
            own_vote: None,
            timer: Timer::new(core.draw_timeout()),
        }
    }

    /// Raises the term and asks for votes. The requests leave once the term and the own vote are
    /// durable: after a crash this node must not vote for another in the same term.
    pub(crate) fn real(core: &mut Core, transfer: bool) -> Candidate {
        core.term = core.term.next();
        core.vote = Some(core.id());
        let request = VoteRequest {
            term: core.term,
            last: core.log.last(),
            transfer,
        };
        let is_early = core.has_bug(Bug::R1);
        for id in other_voters(core) {
            if is_early {
                core.send(id, Body::Vote(request));
            } else {
                core.send_durably(id, Body::Vote(request));
            }
        }
        let mut candidate = Candidate {
            is_pre: false,
            asked: core.term,
            votes: BTreeMap::new(),
            own_vote: Some(core.writes.next_token()),
            timer: Timer::new(core.draw_timeout()),
        };
        if is_early {
            candidate.own_vote = None;
            candidate.votes.insert(core.id(), true);
        }
        candidate
    }

    /// A tick. True when the time for answers is over. It begins when the own vote is durable and the
    /// requests have left: on a disk that stalls for longer than a timeout a candidate would otherwise
    /// raise its term again and again before anyone has heard of the first one.
    pub(crate) fn tick(&mut self) -> bool {
        self.own_vote.is_none() && self.timer.tick()
    }

    /// Writes became durable: perhaps the own vote.
    pub(crate) fn on_persisted(&mut self, core: &Core) {
        if self.own_vote.is_some_and(|token| core.writes.is_durable(token)) {
            self.own_vote = None;
            self.votes.insert(core.id(), true);
        }
    }

    /// An answer. Only the first of a voter counts, and only to the question that stands.
    pub(crate) fn on_reply(&mut self, from: NodeId, reply: VoteReply, is_pre: bool) {
        if self.is_pre == is_pre && reply.term == self.asked {
            self.votes.entry(from).or_insert(reply.granted);
        }
    }

    pub(crate) fn tally(&self, core: &Core) -> Tally {
        core.configuration().tally(|id| self.votes.get(&id).copied())
    }
}

fn other_voters(core: &Core) -> Vec<NodeId> {
    let configuration = core.configuration();
    let voters = configuration
        .members
        .keys()
        .filter(|id| configuration.is_voter(**id));
    voters.filter(|id| **id != core.id()).copied().collect()
}
