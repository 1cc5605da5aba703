//! Where the node stands, for health, metrics and the console.

use raft::{Identity, NodeId, RoleKind, Space, Status};

/// A snapshot of the node, refreshed with every change of role and every tick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// Who this node is.
    pub identity: Identity,
    /// The core's own view.
    pub raft: Status,
    /// Room on the data volume.
    pub space: Space,
    /// Why the log has failed; the node then serves reads only and is about to stop.
    pub failure: Option<String>,
    /// Elections this node has started since it runs.
    pub elections: u64,
    /// Changes of leader this node has seen since it runs.
    pub leader_changes: u64,
    /// Snapshots installed since it runs.
    pub snapshots_installed: u64,
}

impl NodeStatus {
    /// True when this node leads.
    pub fn leads(&self) -> bool {
        self.raft.role == RoleKind::Leader
    }

    /// The leader of the term, when known.
    pub fn leader(&self) -> Option<NodeId> {
        self.raft.leader
    }
}
