//! The name of one attempt to change something.

use raft::{Boot, Incarnation, NodeId};

/// Names a command for its proposer and for the state machine: whatever is sent twice under one id is
/// applied once. Node, incarnation and boot together are a *session*, opened through the log at each
/// start of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct OperationId {
    /// The proposer.
    pub node: NodeId,
    /// Which member of that id.
    pub incarnation: Incarnation,
    /// Which start of that incarnation, as the mark file counts them.
    pub boot: Boot,
    /// Position among the commands of the session, from 1; 0 names the session itself.
    pub counter: u64,
}

impl OperationId {
    /// True when both belong to the same session, whatever their counters.
    pub fn is_of_session(&self, other: &OperationId) -> bool {
        OperationId {
            counter: other.counter,
            ..*self
        } == *other
    }
}
