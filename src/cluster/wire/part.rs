//! The parts that messages and calls have in common.

use raft::{Change, Configuration, EntryId, Incarnation, Index, Member, NodeId, Refusal, Space, Term};

use crate::cluster::limits::ADDRESS_BYTES_MAX;
use proto::cluster as pb;

pub(in crate::cluster) fn entry_id_to_proto(id: EntryId) -> pb::EntryId {
    pb::EntryId {
        term: id.term.0,
        index: id.index.0,
    }
}

/// A missing one is (0, 0): protobuf leaves out what is zero.
pub(in crate::cluster) fn entry_id_from_proto(id: Option<pb::EntryId>) -> EntryId {
    let id = id.unwrap_or_default();
    EntryId {
        term: Term(id.term),
        index: Index(id.index),
    }
}

pub(in crate::cluster) fn space_to_number(space: Space) -> u32 {
    match space {
        Space::Ample => 0,
        Space::Low => 1,
        Space::Critical => 2,
    }
}

pub(in crate::cluster) fn space_from_number(number: u32) -> Option<Space> {
    match number {
        0 => Some(Space::Ample),
        1 => Some(Space::Low),
        2 => Some(Space::Critical),
        _ => None,
    }
}

pub(in crate::cluster) fn member_to_proto(member: &Member) -> pb::Member {
    pb::Member {
        id: member.id.0,
        incarnation: member.incarnation.0,
        address: member.address.clone(),
    }
}

/// `None`: node 0, or an address that is none.
pub(in crate::cluster) fn member_from_proto(member: pb::Member) -> Option<Member> {
    let bad_address = member.address.len() > ADDRESS_BYTES_MAX || member.address.contains(char::is_control);
    if member.id == 0 || bad_address {
        return None;
    }
    Some(Member {
        id: NodeId(member.id),
        incarnation: Incarnation(member.incarnation),
        address: member.address,
    })
}

pub(in crate::cluster) fn configuration_to_proto(configuration: &Configuration) -> pb::Configuration {
    pb::Configuration {
        members: configuration.members.values().map(member_to_proto).collect(),
        voters: configuration.voters.iter().map(|id| id.0).collect(),
        outgoing: configuration.outgoing.iter().map(|id| id.0).collect(),
    }
}

/// `None`: a member twice, or a voter that is no member.
pub(in crate::cluster) fn configuration_from_proto(
    configuration: pb::Configuration,
) -> Option<Configuration> {
    let mut result = Configuration {
        voters: configuration.voters.into_iter().map(NodeId).collect(),
        outgoing: configuration.outgoing.into_iter().map(NodeId).collect(),
        ..Configuration::default()
    };
    for member in configuration.members {
        let member = member_from_proto(member)?;
        if result.members.insert(member.id, member).is_some() {
            return None;
        }
    }
    let known = result
        .voters
        .iter()
        .chain(&result.outgoing)
        .all(|id| result.members.contains_key(id));
    known.then_some(result)
}

pub(in crate::cluster) fn change_to_proto(change: &Change) -> pb::Change {
    let body = match change {
        Change::Add(member) => pb::change::Body::Add(member_to_proto(member)),
        Change::Remove(id) => pb::change::Body::Remove(id.0),
        Change::Readdress(member) => pb::change::Body::Readdress(member_to_proto(member)),
    };
    pb::Change { body: Some(body) }
}

pub(in crate::cluster) fn change_from_proto(change: pb::Change) -> Option<Change> {
    Some(match change.body? {
        pb::change::Body::Add(member) => Change::Add(member_from_proto(member)?),
        pb::change::Body::Remove(id) => Change::Remove(NodeId(id)),
        pb::change::Body::Readdress(member) => Change::Readdress(member_from_proto(member)?),
    })
}

/// Numbers of refusals on the wire; a number is never used twice.
pub(in crate::cluster) fn refusal_to_proto(refusal: Refusal) -> pb::Refusal {
    let (kind, node) = match refusal {
        Refusal::NoLeader => (1, NodeId(0)),
        Refusal::NotLeader(node) => (2, node),
        Refusal::Overloaded => (3, NodeId(0)),
        Refusal::LowOnSpace => (4, NodeId(0)),
        Refusal::TooLarge => (5, NodeId(0)),
        Refusal::Transferring => (6, NodeId(0)),
        Refusal::ChangeInProgress => (7, NodeId(0)),
        Refusal::TermNotCommitted => (8, NodeId(0)),
        Refusal::UnknownMember(node) => (9, node),
        Refusal::OtherIncarnation(node) => (10, node),
        Refusal::AddressTaken(node) => (11, node),
        Refusal::LastVoter => (12, NodeId(0)),
        Refusal::CannotLead(node) => (13, node),
    };
    pb::Refusal {
        kind,
        node_id: node.0,
    }
}

/// `None`: a reason of a newer version.
pub(in crate::cluster) fn refusal_from_proto(refusal: &pb::Refusal) -> Option<Refusal> {
    let node = NodeId(refusal.node_id);
    Some(match refusal.kind {
        1 => Refusal::NoLeader,
        2 => Refusal::NotLeader(node),
        3 => Refusal::Overloaded,
        4 => Refusal::LowOnSpace,
        5 => Refusal::TooLarge,
        6 => Refusal::Transferring,
        7 => Refusal::ChangeInProgress,
        8 => Refusal::TermNotCommitted,
        9 => Refusal::UnknownMember(node),
        10 => Refusal::OtherIncarnation(node),
        11 => Refusal::AddressTaken(node),
        12 => Refusal::LastVoter,
        13 => Refusal::CannotLead(node),
        _ => return None,
    })
}
