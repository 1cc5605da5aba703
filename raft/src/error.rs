//! Why something was not done. A refusal is definite: the proposal is not in the log and never will be.

use crate::types::NodeId;

/// Why a proposal, a change or a read was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No leader is known; try again after the next election.
    #[error("no leader is known")]
    NoLeader,
    /// Another node leads; ask it.
    #[error("node {0} leads")]
    NotLeader(NodeId),
    /// Too many bytes wait to be committed; try again later.
    #[error("too many uncommitted bytes")]
    Overloaded,
    /// The disk of this node, or of too many members, is nearly full.
    #[error("disk space is low on a quorum")]
    LowOnSpace,
    /// The entry is larger than an entry may be.
    #[error("the entry is larger than the limit")]
    TooLarge,
    /// Leadership is being handed over.
    #[error("leadership is being transferred")]
    Transferring,
    /// Another membership change is under way.
    #[error("another membership change is under way")]
    ChangeInProgress,
    /// The leader's first entry is not committed yet.
    #[error("the leader has not committed an entry of its term yet")]
    TermNotCommitted,
    /// The node named is no member.
    #[error("node {0} is not a member")]
    UnknownMember(NodeId),
    /// The node id belongs to a member with another incarnation: remove that one first.
    #[error("node {0} is a member under another incarnation")]
    OtherIncarnation(NodeId),
    /// The address belongs to another member.
    #[error("the address belongs to node {0}")]
    AddressTaken(NodeId),
    /// The change would leave no voter.
    #[error("the last voter cannot be removed")]
    LastVoter,
    /// The target of a transfer is not able to lead (learner, suspect, low on space or far behind).
    #[error("node {0} cannot lead now")]
    CannotLead(NodeId),
}

/// The core was asked for something its owner must never ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A limit is too small for two of the largest entry.
    #[error("{name} must be at least {minimum} bytes")]
    LimitTooSmall {
        /// The setting.
        name: &'static str,
        /// What it must reach.
        minimum: usize,
    },
    /// Election must be longer than the heartbeat, at least twice.
    #[error(
        "election_ticks must be at least twice heartbeat_ticks and at most 1048576, heartbeat_ticks at least 1"
    )]
    Ticks,
}
