//! Why a caller is not let in, in words that say what to change.

use raft::{Incarnation, NodeId};
use storage::ClusterId;

use super::identity::{Identity, cluster_id};
use super::limits::{VERSION, VERSION_MIN};
use proto::cluster as pb;

/// Why a door let a caller not in. The first ones are said without a proof, by a number alone: whoever
/// sits at that address may say them, so they are a hint for the operator and decide nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The door has no token and the caller is on another machine.
    #[error(
        "it has no cluster token and therefore takes peers on its own machine only: \
         set RNACOS_CLUSTER_TOKEN to the same secret on every node"
    )]
    LoopbackOnly,
    /// The caller used a token, the door has none.
    #[error(
        "it has no cluster token, this node has one: set RNACOS_CLUSTER_TOKEN to the same secret on every node"
    )]
    TokenUnset,
    /// The door has a token, the caller used none.
    #[error("it asks for a cluster token: set RNACOS_CLUSTER_TOKEN to the same secret on every node")]
    TokenMissing,
    /// The caller's token is another one.
    #[error("its cluster token is another one: set RNACOS_CLUSTER_TOKEN to the same secret on every node")]
    TokenWrong,
    /// What the caller said is not of this protocol.
    #[error("it could not read the handshake: the two run versions that do not understand each other")]
    Malformed,
    /// A number this binary does not know.
    #[error(
        "it refused for a reason this version does not know (number {0}): compare the versions of the nodes"
    )]
    Unknown(u32),

    /// The door speaks other versions of the protocol.
    #[error(
        "it speaks peer protocol {min} to {max}, this node {VERSION_MIN} to {VERSION}: upgrade the older one"
    )]
    Version {
        /// The door's oldest.
        min: u32,
        /// The door's newest.
        max: u32,
    },
    /// The node there is not part of a cluster yet.
    #[error("node {node} is not part of a cluster yet")]
    NotFormed {
        /// The node there.
        node: NodeId,
        /// Its incarnation.
        incarnation: Incarnation,
    },
    /// The node there is of another cluster.
    #[error("node {node} there belongs to cluster {}, not to {}", hex(.theirs), hex(.ours))]
    OtherCluster {
        /// The cluster the caller named.
        ours: Option<ClusterId>,
        /// The cluster of the node there.
        theirs: Option<ClusterId>,
        /// The node there.
        node: NodeId,
    },
    /// Another node answers at that address.
    #[error("node {found} answers there, not node {expected}: the address was reused or is wrong")]
    OtherNode {
        /// The node meant.
        expected: NodeId,
        /// The node there.
        found: NodeId,
    },
    /// The right id, but another life of it.
    #[error(
        "node {node} there is incarnation {found:?}, the membership lists {expected:?}: it has lost its data, \
         remove it (rnacos cluster remove {node}) and let it join again"
    )]
    OtherIncarnation {
        /// The node.
        node: NodeId,
        /// The incarnation meant.
        expected: Incarnation,
        /// The incarnation there.
        found: Incarnation,
    },
    /// The caller uses the id of the node it called.
    #[error(
        "node {0} there has the same node id as this node: give each node an id of its own (RNACOS_RAFT_NODE_ID)"
    )]
    SameNode(NodeId),
}

impl Refused {
    /// The number said without a proof; `None` for reasons that are only told to those who proved the
    /// token.
    pub(super) fn unproved_number(&self) -> Option<u8> {
        match self {
            Refused::LoopbackOnly => Some(1),
            Refused::TokenUnset => Some(2),
            Refused::TokenMissing => Some(3),
            Refused::TokenWrong => Some(4),
            Refused::Malformed => Some(5),
            _ => None,
        }
    }

    /// The reverse of [`Refused::unproved_number`].
    pub(super) fn from_unproved_number(number: u8) -> Refused {
        match number {
            1 => Refused::LoopbackOnly,
            2 => Refused::TokenUnset,
            3 => Refused::TokenMissing,
            4 => Refused::TokenWrong,
            5 => Refused::Malformed,
            other => Refused::Unknown(u32::from(other)),
        }
    }

    pub(super) fn to_proto(&self, door: &Identity) -> pb::Refused {
        let reason = match self {
            Refused::Version { .. } => 16,
            Refused::NotFormed { .. } => 17,
            Refused::OtherCluster { .. } => 18,
            Refused::OtherNode { .. } => 19,
            Refused::OtherIncarnation { .. } => 20,
            Refused::SameNode(_) => 21,
            Refused::Unknown(number) => *number,
            early => early.unproved_number().map_or(0, u32::from),
        };
        pb::Refused {
            reason,
            door: Some(door.to_proto()),
            version_min: VERSION_MIN,
            version_max: VERSION,
        }
    }

    /// What the door meant, given whom the caller had named.
    pub(super) fn from_proto(refused: &pb::Refused, target: &super::identity::Target) -> Refused {
        let door = refused.door.clone().unwrap_or_default();
        let (node, incarnation) = (NodeId(door.node_id), Incarnation(door.incarnation));
        match refused.reason {
            16 => Refused::Version {
                min: refused.version_min,
                max: refused.version_max,
            },
            17 => Refused::NotFormed { node, incarnation },
            18 => Refused::OtherCluster {
                ours: target.cluster_id,
                theirs: cluster_id(&door.cluster_id).flatten(),
                node,
            },
            19 => Refused::OtherNode {
                expected: target.node_id.unwrap_or_default(),
                found: node,
            },
            20 => Refused::OtherIncarnation {
                node,
                expected: target.incarnation.unwrap_or_default(),
                found: incarnation,
            },
            21 => Refused::SameNode(node),
            number => match u8::try_from(number) {
                Ok(number) => Refused::from_unproved_number(number),
                Err(_) => Refused::Unknown(number),
            },
        }
    }
}

fn hex(id: &Option<ClusterId>) -> String {
    id.map_or_else(|| "none".to_owned(), |id| format!("{:032x}", id.0))
}
