//! What the owner of the cluster code gives it: where messages, calls and sightings go.

use std::future::Future;
use std::pin::Pin;

use raft::{Message, NodeId};

use super::calls::{Call, CallReply};
use super::identity::{PeerIdentity, Target};
use super::refused::Refused;

/// A future that can be boxed and sent.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the runtime does with what peers say. Nothing here may wait (but [`PeerService::call`]): it is
/// called from the tasks that read the connections.
pub trait PeerService: Send + Sync + 'static {
    /// Messages of a member, in the order in which it sent them on one lane. Their sender *is* the
    /// member that proved itself on this connection. What cannot be taken is dropped: raft sends again.
    fn raft(&self, from: &PeerIdentity, messages: Vec<Message>);

    /// A call that this kind of caller may make.
    fn call<'a>(&'a self, from: &'a PeerIdentity, call: Call) -> BoxFuture<'a, CallReply>;

    /// A message to this member may have been lost, or its connection broke.
    fn unreachable(&self, peer: NodeId);

    /// A member proved itself, on a connection of its own or on our control lane, which then carries
    /// messages: its boot, feature level and address are these.
    fn met(&self, peer: &PeerIdentity) {
        let _ = peer;
    }

    /// Someone who has proved the token came here and was refused. `target` is whom it meant to reach:
    /// a *member* of another cluster that means this node id, or dialled this address, belongs to a
    /// cluster that lists it (a founder must not form then, and a formed one must stop: R50).
    fn turned_away(&self, caller: &PeerIdentity, target: &Target, why: &Refused) {
        let _ = (caller, target, why);
    }

    /// This node was refused by what answers at a member's address.
    fn refused_by(&self, peer: NodeId, why: &Refused) {
        let _ = (peer, why);
    }
}
