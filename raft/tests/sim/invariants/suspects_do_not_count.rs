//! A suspect neither votes nor campaigns nor leads, and says in every message what it is (design, rule 5;
//! R43, R51). And a leader was elected by votes of members of the right incarnation that are no suspects
//! (R30).

use raft::{Body, Configuration, Index, Message, NodeId, Term};

use super::super::disk::Disk;
use super::state_machine_safety::History;
use super::{Checked, Roll, Uid, Violation};

/// A message leaves the node with this disk.
pub(crate) fn message(message: &Message, disk: &Disk) -> Checked {
    let says = message.sender.suspicion;
    if disk.mark.suspicion.is_some() && says.is_none() {
        let text = format!("a suspect hides it: {message:?}");
        return Err(Violation::new("suspects_do_not_count", text));
    }
    let counts = match &message.body {
        Body::Vote(_) | Body::PreVote(_) => true,
        Body::VoteReply(reply) | Body::PreVoteReply(reply) => reply.granted,
        _ => false,
    };
    if says.is_some() && counts {
        let text = format!("a suspect takes part in an election: {message:?}");
        return Err(Violation::new("suspects_do_not_count", text));
    }
    Ok(())
}

/// The suspicion was lifted: the disk holds again everything that was committed when it was found damaged
/// (R43, R44).
pub(crate) fn cleared(id: NodeId, disk: &Disk, lost_at: Index, history: &History) -> Checked {
    let log = disk.durable_log();
    let committed = history.get(lost_at).map(|committed| committed.at);
    if lost_at < log.base.id.index || committed.is_none() || log.at(lost_at) == committed {
        return Ok(());
    }
    let text = format!(
        "node {id} counts again with {:?}, {lost_at} was committed",
        log.last().id
    );
    Err(Violation::new("suspects_do_not_count", text))
}

/// Grants that reached a node, by the term they were given for; the newest few terms asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Grants {
    by_term: [(Term, u64); 8],
}

impl Grants {
    /// A grant was delivered.
    pub(crate) fn granted(&mut self, term: Term, uid: Uid) {
        let known = self.by_term.iter().position(|(asked, _)| *asked == term);
        let place = known.unwrap_or_else(|| {
            // The oldest makes room.
            let oldest = (0..self.by_term.len())
                .min_by_key(|place| self.by_term[*place].0)
                .unwrap_or(0);
            self.by_term[oldest] = (term, 0);
            oldest
        });
        self.by_term[place].1 |= uid.bit();
    }

    /// Members that granted in this term.
    pub(crate) fn of(&self, term: Term) -> u64 {
        self.by_term
            .iter()
            .find(|(asked, _)| *asked == term)
            .map_or(0, |(_, members)| *members)
    }
}

/// The node leads in `term`.
pub(crate) fn elected(
    roll: &Roll,
    configuration: &Configuration,
    uid: Uid,
    term: Term,
    grants: Grants,
    suspect: bool,
) -> Checked {
    if suspect || !roll.is_quorum(configuration, grants.of(term) | uid.bit()) {
        let text = format!(
            "member #{} leads term {term} with the votes {:#b}",
            uid.0,
            grants.of(term)
        );
        return Err(Violation::new("suspects_do_not_count", text));
    }
    Ok(())
}
