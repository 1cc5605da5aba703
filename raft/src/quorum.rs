//! Majorities of one set of voters and of two at once (thesis §4.3).
//!
//! Nothing in here allocates: sets of voters are small, and these functions run for every
//! acknowledgement.

use std::collections::BTreeSet;

use crate::membership::Configuration;
use crate::types::NodeId;

/// How an election stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tally {
    /// A quorum said yes.
    Won,
    /// So many said no that a quorum can no longer say yes.
    Lost,
    /// Neither.
    Open,
}

/// The smallest number that is more than half of `count`.
fn majority(count: usize) -> usize {
    count / 2 + 1
}

/// True when more than half of the voters say yes. An empty set asks for nothing.
fn is_majority(voters: &BTreeSet<NodeId>, yes: &impl Fn(NodeId) -> bool) -> bool {
    voters.is_empty() || voters.iter().filter(|id| yes(**id)).count() >= majority(voters.len())
}

/// The highest value that more than half of the voters have reached; `None` for an empty set.
fn agreed_by<T: Ord + Copy>(voters: &BTreeSet<NodeId>, value: &impl Fn(NodeId) -> T) -> Option<T> {
    let needed = majority(voters.len());
    // Quadratic on purpose: at most a handful of voters, and no buffer to sort in.
    voters
        .iter()
        .map(|id| value(*id))
        .filter(|candidate| voters.iter().filter(|id| value(**id) >= *candidate).count() >= needed)
        .max()
}

impl Configuration {
    /// True when a quorum says yes: a majority, while joint of both sets. A configuration without
    /// voters has no quorum.
    pub fn has_quorum(&self, yes: impl Fn(NodeId) -> bool) -> bool {
        !self.voters.is_empty() && is_majority(&self.voters, &yes) && is_majority(&self.outgoing, &yes)
    }

    /// The highest value that a quorum has reached; `None` without voters.
    pub fn agreed<T: Ord + Copy>(&self, value: impl Fn(NodeId) -> T) -> Option<T> {
        let incoming = agreed_by(&self.voters, &value)?;
        match agreed_by(&self.outgoing, &value) {
            Some(outgoing) => Some(incoming.min(outgoing)),
            None => Some(incoming),
        }
    }

    /// Counts an election. `None` is a voter that has not answered.
    pub fn tally(&self, vote: impl Fn(NodeId) -> Option<bool>) -> Tally {
        if self.has_quorum(|id| vote(id) == Some(true)) {
            return Tally::Won;
        }
        if self.has_quorum(|id| vote(id) != Some(false)) {
            Tally::Open
        } else {
            Tally::Lost
        }
    }
}
