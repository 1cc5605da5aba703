//! A read-only view for metrics, health and the console.

use crate::effects::RoleKind;
use crate::membership::Configuration;
use crate::types::{Boot, Index, NodeId, Space, Term};

/// Where the core stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Current term.
    pub term: Term,
    /// Current role.
    pub role: RoleKind,
    /// Leader of the term, when known.
    pub leader: Option<NodeId>,
    /// Index before the first entry of the log.
    pub base: Index,
    /// Last index of the log.
    pub last: Index,
    /// Last durable index.
    pub durable: Index,
    /// Commit index.
    pub committed: Index,
    /// Last index known to be applied.
    pub applied: Index,
    /// Since which boot this node is suspect.
    pub suspicion: Option<Boot>,
    /// The membership in force.
    pub configuration: Configuration,
    /// Bytes appended by this leader and not committed.
    pub uncommitted_bytes: usize,
    /// Per peer, on a leader only.
    pub peers: Vec<PeerStatus>,
}

/// What a leader knows of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// The peer.
    pub id: NodeId,
    /// Last index known to be on its disk.
    pub matched: Index,
    /// Next index it is to be sent.
    pub next: Index,
    /// Appends under way.
    pub inflight: usize,
    /// It takes a snapshot.
    pub in_snapshot: bool,
    /// It answered within the last election timeout.
    pub active: bool,
    /// It is suspect: counts for nothing.
    pub suspect: bool,
    /// Room on its disk.
    pub space: Space,
}
