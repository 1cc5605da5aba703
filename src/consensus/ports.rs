//! What the loop needs of the network.

use raft::{Configuration, Message, NodeId};

/// Carries messages to the other members. Nothing here waits: what cannot be taken is dropped, and
/// raft sends again.
pub trait Transport: Send + Sync + 'static {
    /// Puts a message on its way. Messages to one member keep their order within one connection.
    fn send(&self, to: NodeId, message: Message);

    /// The members and addresses from now on.
    fn set_members(&self, configuration: &Configuration);
}
