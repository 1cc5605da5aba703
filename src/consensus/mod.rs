//! The runtime of the raft core: one task owns the core (`node`), one thread the state machine
//! (`applier`), one the log (in `storage`), one reads old entries (`loader`). No stage waits for another
//! inside the loop, so batches grow under load by themselves and a lone write does not wait.
//!
//! Knows the state machine as the thing it feeds and the command as bytes with an operation id; what a
//! command means is none of its business.

mod applier;
mod handle;
mod loader;
mod node;
mod pending;
mod ports;
mod queues;
mod status;
#[cfg(test)]
mod tests;

pub use handle::{Handle, ProposeError, ReadError};
pub use node::{Node, NodeParts};
pub use ports::Transport;
pub use queues::{Inbox, QueueLengths};
pub use status::{Counts, NodeStatus};
