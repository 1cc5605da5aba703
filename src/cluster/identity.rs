//! Who a node is, towards others.

use std::net::SocketAddr;
use std::sync::{Arc, RwLock};

use bytes::Bytes;
use raft::{Boot, Incarnation, NodeId};
use storage::ClusterId;

use super::limits::ADDRESS_BYTES_MAX;
use proto::cluster as pb;

/// A node, in one of its lives, as it names itself in the handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its cluster; `None` before it belongs to one.
    pub cluster_id: Option<ClusterId>,
    /// Its id; 0 only for an operator's command, which is no node.
    pub node_id: NodeId,
    /// Which member of that id.
    pub incarnation: Incarnation,
    /// Which start of that incarnation. 0 before the first.
    pub boot: Boot,
    /// Newest feature level of the replicated state that its binary supports.
    pub feature_level: u32,
    /// `host:port` of its own peer door, as other nodes are to dial it.
    pub address: String,
}

/// As what a caller comes; decides what it may do ([`super::Call`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A node of this cluster: raft messages and every call.
    Member,
    /// A node that wants to become one: it may ask to join.
    Joiner,
    /// `rnacos cluster …`: it may look and ask for changes.
    Operator,
}

impl Kind {
    fn as_number(self) -> u32 {
        match self {
            Kind::Member => 1,
            Kind::Joiner => 2,
            Kind::Operator => 3,
        }
    }

    fn from_number(number: u32) -> Option<Kind> {
        match number {
            1 => Some(Kind::Member),
            2 => Some(Kind::Joiner),
            3 => Some(Kind::Operator),
            _ => None,
        }
    }
}

/// A caller or a door that has proved the token, for as long as its connection lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// As what it came; a door is always a member.
    pub kind: Kind,
    /// Protocol version agreed on.
    pub version: u32,
    /// Who it says it is; everyone with the token may say so.
    pub identity: Identity,
    /// Where the connection comes from.
    pub remote: SocketAddr,
}

/// Who this node is now. It changes once, when the node becomes part of a cluster. Clones are the same.
#[derive(Clone, Debug)]
pub struct Local(Arc<RwLock<Arc<Identity>>>);

impl Local {
    /// This node, as known so far.
    pub fn new(identity: Identity) -> Local {
        Local(Arc::new(RwLock::new(Arc::new(identity))))
    }

    /// This node.
    pub fn get(&self) -> Arc<Identity> {
        self.0
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .clone()
    }

    /// From now on this node is that. Connections made before keep what they were told.
    pub fn set(&self, identity: Identity) {
        *self.0.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = Arc::new(identity);
    }
}

/// What a caller says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    /// Protocol version of the caller.
    pub(super) version: u32,
    /// `None`: a kind this binary does not know.
    pub(super) kind: Option<Kind>,
    /// The caller's nonce is of the right length. Its bytes matter for the proof only.
    pub(super) has_nonce: bool,
    /// Who calls.
    pub(super) caller: Identity,
    /// Whom it means to reach.
    pub(super) target: Target,
}

/// Whom a caller means to reach. Each `None`: whoever answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// The cluster.
    pub cluster_id: Option<ClusterId>,
    /// The node.
    pub node_id: Option<NodeId>,
    /// That member of the id.
    pub incarnation: Option<Incarnation>,
}

impl Hello {
    pub(super) fn to_proto(&self, kind: Kind, nonce: &[u8]) -> pb::Hello {
        pb::Hello {
            version: self.version,
            kind: kind.as_number(),
            nonce: Bytes::copy_from_slice(nonce),
            caller: Some(self.caller.to_proto()),
            target_cluster_id: cluster_id_bytes(self.target.cluster_id),
            target_node_id: self.target.node_id.map_or(0, |id| id.0),
            target_incarnation: self.target.incarnation.map_or(0, |incarnation| incarnation.0),
        }
    }

    /// `None`: nothing a caller of any version would say.
    pub(super) fn from_proto(hello: pb::Hello) -> Option<Hello> {
        Some(Hello {
            version: hello.version,
            kind: Kind::from_number(hello.kind),
            has_nonce: hello.nonce.len() == 32,
            caller: Identity::from_proto(hello.caller?)?,
            target: Target {
                cluster_id: cluster_id(&hello.target_cluster_id)?,
                node_id: (hello.target_node_id != 0).then_some(NodeId(hello.target_node_id)),
                incarnation: (hello.target_incarnation != 0).then_some(Incarnation(hello.target_incarnation)),
            },
        })
    }
}

impl Identity {
    /// An operator's command: no node, of no cluster.
    pub fn operator() -> Identity {
        Identity {
            cluster_id: None,
            node_id: NodeId(0),
            incarnation: Incarnation(0),
            boot: Boot(0),
            feature_level: 0,
            address: String::new(),
        }
    }

    pub(super) fn to_proto(&self) -> pb::Identity {
        pb::Identity {
            cluster_id: cluster_id_bytes(self.cluster_id),
            node_id: self.node_id.0,
            incarnation: self.incarnation.0,
            boot: self.boot.0,
            feature_level: self.feature_level,
            address: self.address.clone(),
            software: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// `None`: a cluster id of a wrong length or an address that is none.
    pub(super) fn from_proto(identity: pb::Identity) -> Option<Identity> {
        if identity.address.len() > ADDRESS_BYTES_MAX || identity.address.contains(char::is_control) {
            return None;
        }
        Some(Identity {
            cluster_id: cluster_id(&identity.cluster_id)?,
            node_id: NodeId(identity.node_id),
            incarnation: Incarnation(identity.incarnation),
            boot: Boot(identity.boot),
            feature_level: identity.feature_level,
            address: identity.address,
        })
    }
}

/// 16 bytes, or none.
pub(super) fn cluster_id_bytes(id: Option<ClusterId>) -> Bytes {
    id.map(|id| Bytes::copy_from_slice(&id.0.to_be_bytes()))
        .unwrap_or_default()
}

/// The reverse of [`cluster_id_bytes`]; the outer `None` for a wrong length.
pub(super) fn cluster_id(bytes: &[u8]) -> Option<Option<ClusterId>> {
    if bytes.is_empty() {
        return Some(None);
    }
    let id = u128::from_be_bytes(bytes.try_into().ok()?);
    Some((id != 0).then_some(ClusterId(id)))
}
