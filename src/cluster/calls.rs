//! Questions with one answer, asked through the peer door: joining, looking, changing the membership.

use bytes::Bytes;
use prost::Message as _;
use raft::{
    Boot, Change, Configuration, EntryId, Index, Member, NodeId, PeerStatus, Refusal, RoleKind, Space,
    Status, Term,
};
use storage::ClusterId;

use super::identity::{Identity, Kind, cluster_id, cluster_id_bytes};
use super::wire::{
    change_from_proto, change_to_proto, configuration_from_proto, configuration_to_proto,
    entry_id_from_proto, entry_id_to_proto, member_from_proto, member_to_proto, refusal_from_proto,
    refusal_to_proto, space_from_number, space_to_number,
};
use proto::cluster as pb;

/// A call. Any node may be asked; one that cannot do it names the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Make this node a learner. Asking again succeeds and changes nothing.
    Join(Member),
    /// Where does the core of the node asked stand?
    Status,
    /// Change the membership.
    Change(Change),
    /// Hand leadership over (`None`: to the best one).
    Transfer(Option<NodeId>),
    /// Who is there, and which members does it know?
    WhoAreYou,
    /// A question of the services, which know what it means.
    Ask(Bytes),
}

impl Call {
    /// What a caller of this kind may ask. A joiner may not change anything but its own joining; an
    /// operator's command is no node and cannot join.
    pub fn is_allowed_for(&self, kind: Kind) -> bool {
        match kind {
            Kind::Member => true,
            Kind::Joiner => matches!(self, Call::Join(_) | Call::WhoAreYou),
            Kind::Operator => !matches!(self, Call::Join(_) | Call::Ask(_)),
        }
    }
}

/// The answer to a [`Call`].
#[derive(Clone, Debug, PartialEq)]
pub enum CallReply {
    /// Joined, changed or handed over.
    Done(Done),
    /// Answer to [`Call::Status`].
    Status(Box<StatusReport>),
    /// Answer to [`Call::WhoAreYou`].
    Presence(Presence),
    /// Answer to [`Call::Ask`].
    Told(Bytes),
    /// Not done, and it will not happen later.
    Refused(CallRefused),
}

/// Done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Where the change stands in the log; `None` when nothing had to change.
    pub at: Option<EntryId>,
    /// The cluster it was done in.
    pub cluster_id: Option<ClusterId>,
    /// Its membership now.
    pub configuration: Configuration,
}

/// Who answers, and whom it counts as members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    /// Who answers.
    pub identity: Identity,
    /// The membership in force there.
    pub configuration: Configuration,
}

/// Where a node stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusReport {
    /// Who answers.
    pub identity: Identity,
    /// Its core.
    pub status: Status,
    /// Room on its data volume.
    pub space: Space,
    /// Why its log has failed: it takes no writes and is about to stop.
    pub failure: Option<String>,
}

/// Why a call was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{sentence}")]
pub struct CallRefused {
    /// The reason, for programs.
    pub why: WhyRefused,
    /// For people: what is wrong and what to do next.
    pub sentence: String,
}

/// See [`CallRefused`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhyRefused {
    /// Another node leads; ask it, when it is known.
    NotLeader(Option<Member>),
    /// The core's reason.
    Core(Refusal),
    /// Not now.
    Unavailable,
    /// Not for a caller of this kind.
    NotAllowed,
    /// The node asked does not know such a call (an older version).
    UnknownCall,
}

impl CallReply {
    /// A refusal.
    pub fn refused(why: WhyRefused, sentence: impl Into<String>) -> CallReply {
        CallReply::Refused(CallRefused {
            why,
            sentence: sentence.into(),
        })
    }
}

/// Bytes are not a call or its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallDecodeError {
    /// Of a newer version.
    #[error("a call or an answer that this version does not know")]
    Unknown,
    /// Of no version.
    #[error("a malformed call or answer")]
    Malformed,
}

impl Call {
    pub(super) fn encode(&self) -> Vec<u8> {
        let body = match self {
            Call::Join(member) => pb::call::Body::Join(member_to_proto(member)),
            Call::Status => pb::call::Body::Status(pb::Empty {}),
            Call::Change(change) => pb::call::Body::Change(change_to_proto(change)),
            Call::Transfer(to) => pb::call::Body::Transfer(pb::Transfer {
                to: to.map_or(0, |id| id.0),
            }),
            Call::WhoAreYou => pb::call::Body::WhoAreYou(pb::Empty {}),
            Call::Ask(question) => pb::call::Body::Ask(question.clone()),
        };
        pb::Call { body: Some(body) }.encode_to_vec()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Call, CallDecodeError> {
        use CallDecodeError::Malformed;
        let call = pb::Call::decode(bytes).map_err(|_| Malformed)?;
        Ok(match call.body.ok_or(CallDecodeError::Unknown)? {
            pb::call::Body::Join(member) => Call::Join(member_from_proto(member).ok_or(Malformed)?),
            pb::call::Body::Status(pb::Empty {}) => Call::Status,
            pb::call::Body::Change(change) if change.body.is_none() => return Err(CallDecodeError::Unknown),
            pb::call::Body::Change(change) => Call::Change(change_from_proto(change).ok_or(Malformed)?),
            pb::call::Body::Transfer(transfer) => {
                Call::Transfer((transfer.to != 0).then_some(NodeId(transfer.to)))
            }
            pb::call::Body::WhoAreYou(pb::Empty {}) => Call::WhoAreYou,
            pb::call::Body::Ask(question) => Call::Ask(question),
        })
    }
}

impl CallReply {
    pub(super) fn encode(&self) -> Vec<u8> {
        let body = match self {
            CallReply::Done(done) => pb::call_reply::Body::Done(pb::Done {
                at: done.at.map(entry_id_to_proto),
                cluster_id: cluster_id_bytes(done.cluster_id),
                configuration: Some(configuration_to_proto(&done.configuration)),
            }),
            CallReply::Status(report) => pb::call_reply::Body::Status(status_to_proto(report)),
            CallReply::Presence(presence) => pb::call_reply::Body::Presence(pb::Presence {
                identity: Some(presence.identity.to_proto()),
                configuration: Some(configuration_to_proto(&presence.configuration)),
            }),
            CallReply::Told(answer) => pb::call_reply::Body::Told(answer.clone()),
            CallReply::Refused(refused) => pb::call_reply::Body::Refused(refused_to_proto(refused)),
        };
        pb::CallReply { body: Some(body) }.encode_to_vec()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<CallReply, CallDecodeError> {
        use CallDecodeError::Malformed;
        let reply = pb::CallReply::decode(bytes).map_err(|_| Malformed)?;
        Ok(match reply.body.ok_or(CallDecodeError::Unknown)? {
            pb::call_reply::Body::Done(done) => CallReply::Done(Done {
                at: done.at.map(|at| entry_id_from_proto(Some(at))),
                cluster_id: cluster_id(&done.cluster_id).ok_or(Malformed)?,
                configuration: membership(done.configuration)?,
            }),
            pb::call_reply::Body::Status(status) => CallReply::Status(Box::new(status_from_proto(status)?)),
            pb::call_reply::Body::Presence(presence) => CallReply::Presence(Presence {
                identity: identity(presence.identity)?,
                configuration: membership(presence.configuration)?,
            }),
            pb::call_reply::Body::Told(answer) => CallReply::Told(answer),
            pb::call_reply::Body::Refused(refused) => CallReply::Refused(refused_from_proto(refused)?),
        })
    }
}

fn identity(identity: Option<pb::Identity>) -> Result<Identity, CallDecodeError> {
    identity
        .and_then(Identity::from_proto)
        .ok_or(CallDecodeError::Malformed)
}

fn membership(configuration: Option<pb::Configuration>) -> Result<Configuration, CallDecodeError> {
    configuration_from_proto(configuration.unwrap_or_default()).ok_or(CallDecodeError::Malformed)
}

fn refused_to_proto(refused: &CallRefused) -> pb::CallRefused {
    let mut result = pb::CallRefused {
        sentence: refused.sentence.clone(),
        ..Default::default()
    };
    result.kind = match &refused.why {
        WhyRefused::NotLeader(leader) => {
            result.leader = leader.as_ref().map(member_to_proto);
            1
        }
        WhyRefused::Core(refusal) => {
            result.refusal = Some(refusal_to_proto(*refusal));
            2
        }
        WhyRefused::Unavailable => 3,
        WhyRefused::NotAllowed => 4,
        WhyRefused::UnknownCall => 5,
    };
    result
}

/// A reason of a newer version is told as "not now", with its sentence.
fn refused_from_proto(refused: pb::CallRefused) -> Result<CallRefused, CallDecodeError> {
    let why = match refused.kind {
        1 => WhyRefused::NotLeader(match refused.leader {
            None => None,
            Some(leader) => Some(member_from_proto(leader).ok_or(CallDecodeError::Malformed)?),
        }),
        2 => refused
            .refusal
            .and_then(|refusal| refusal_from_proto(&refusal))
            .map_or(WhyRefused::Unavailable, WhyRefused::Core),
        4 => WhyRefused::NotAllowed,
        5 => WhyRefused::UnknownCall,
        _ => WhyRefused::Unavailable,
    };
    Ok(CallRefused {
        why,
        sentence: refused.sentence,
    })
}

fn role_to_number(role: RoleKind) -> u32 {
    match role {
        RoleKind::Learner => 0,
        RoleKind::Follower => 1,
        RoleKind::PreCandidate => 2,
        RoleKind::Candidate => 3,
        RoleKind::Leader => 4,
    }
}

fn role_from_number(number: u32) -> Option<RoleKind> {
    Some(match number {
        0 => RoleKind::Learner,
        1 => RoleKind::Follower,
        2 => RoleKind::PreCandidate,
        3 => RoleKind::Candidate,
        4 => RoleKind::Leader,
        _ => return None,
    })
}

fn status_to_proto(report: &StatusReport) -> pb::Status {
    let status = &report.status;
    pb::Status {
        identity: Some(report.identity.to_proto()),
        term: status.term.0,
        role: role_to_number(status.role),
        leader: status.leader.map_or(0, |id| id.0),
        base: status.base.0,
        last: status.last.0,
        durable: status.durable.0,
        committed: status.committed.0,
        applied: status.applied.0,
        suspicion: status.suspicion.map(|boot| boot.0),
        configuration: Some(configuration_to_proto(&status.configuration)),
        uncommitted_bytes: status.uncommitted_bytes as u64,
        peers: status.peers.iter().map(peer_to_proto).collect(),
        space: space_to_number(report.space),
        failure: report.failure.clone().unwrap_or_default(),
    }
}

fn status_from_proto(status: pb::Status) -> Result<StatusReport, CallDecodeError> {
    let identity = identity(status.identity)?;
    let space = space_from_number(status.space).ok_or(CallDecodeError::Unknown)?;
    let core = Status {
        term: Term(status.term),
        role: role_from_number(status.role).ok_or(CallDecodeError::Unknown)?,
        leader: (status.leader != 0).then_some(NodeId(status.leader)),
        base: Index(status.base),
        last: Index(status.last),
        durable: Index(status.durable),
        committed: Index(status.committed),
        applied: Index(status.applied),
        suspicion: status.suspicion.map(Boot),
        configuration: membership(status.configuration)?,
        uncommitted_bytes: status.uncommitted_bytes as usize,
        peers: status
            .peers
            .iter()
            .map(peer_from_proto)
            .collect::<Result<_, _>>()?,
    };
    Ok(StatusReport {
        identity,
        status: core,
        space,
        failure: (!status.failure.is_empty()).then_some(status.failure),
    })
}

fn peer_to_proto(peer: &PeerStatus) -> pb::PeerStatus {
    pb::PeerStatus {
        id: peer.id.0,
        matched: peer.matched.0,
        next: peer.next.0,
        inflight: peer.inflight as u64,
        in_snapshot: peer.in_snapshot,
        active: peer.active,
        suspect: peer.suspect,
        space: space_to_number(peer.space),
    }
}

fn peer_from_proto(peer: &pb::PeerStatus) -> Result<PeerStatus, CallDecodeError> {
    Ok(PeerStatus {
        id: NodeId(peer.id),
        matched: Index(peer.matched),
        next: Index(peer.next),
        inflight: peer.inflight as usize,
        in_snapshot: peer.in_snapshot,
        active: peer.active,
        suspect: peer.suspect,
        space: space_from_number(peer.space).ok_or(CallDecodeError::Unknown)?,
    })
}

#[cfg(test)]
mod tests;
