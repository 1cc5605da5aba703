//! Who is a member, and how that changes: joint consensus (thesis §4.3) with learners (§4.2.1).

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::types::{Incarnation, NodeId};

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// Its id.
    pub id: NodeId,
    /// Its incarnation; messages of another one are not this member's.
    pub incarnation: Incarnation,
    /// `host:port` of its peer door.
    pub address: String,
}

/// A membership. While `outgoing` is not empty it is joint: decisions need a majority of both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// Every member by id: voters (incoming and outgoing) and learners.
    pub members: BTreeMap<NodeId, Member>,
    /// Ids of the voters (of the incoming set while joint).
    pub voters: std::collections::BTreeSet<NodeId>,
    /// Ids of the voters of the outgoing set; empty when not joint.
    pub outgoing: std::collections::BTreeSet<NodeId>,
}

/// A change an operator (or a joining node) asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Adds a learner; the leader promotes it once it has caught up. Adding a member that is already
    /// there with the same incarnation and address succeeds and changes nothing.
    Add(Member),
    /// Removes a voter or learner.
    Remove(NodeId),
    /// Gives a member another address.
    Readdress(Member),
}
