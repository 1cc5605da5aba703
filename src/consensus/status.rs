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
    /// What happened since it runs.
    pub counts: Counts,
}

/// What happened to a node since it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Elections it has started.
    pub elections: u64,
    /// Elections it has won.
    pub elections_won: u64,
    /// Changes of leader it has seen.
    pub leader_changes: u64,
    /// Ticks (of 20 ms) during which it knew no leader.
    pub leaderless_ticks: u64,
    /// Snapshots it has made.
    pub snapshots_made: u64,
    /// Snapshots it has installed.
    pub snapshots_installed: u64,
    /// Snapshots it has received and refused, because they were damaged.
    pub snapshots_refused: u64,
}

impl NodeStatus {
    /// A node that has just started and knows nothing yet.
    pub fn of(identity: Identity) -> NodeStatus {
        NodeStatus {
            identity,
            raft: Status::default(),
            space: Space::Ample,
            failure: None,
            counts: Counts::default(),
        }
    }

    /// True when this node leads.
    pub fn leads(&self) -> bool {
        self.raft.role == RoleKind::Leader
    }

    /// The leader of the term, when known.
    pub fn leader(&self) -> Option<NodeId> {
        self.raft.leader
    }
}
