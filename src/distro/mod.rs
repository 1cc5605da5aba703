//! Distro: every node holds the naming records of all, and none waits for another.
//!
//! - [`responsible()`] says which of the living members handles the HTTP writes of a service.
//! - [`Distro`] is the protocol between nodes as a plain value: it is told what came in and what time it is,
//!   and says what goes out. [`Message`] is what travels.
//!
//! **One ordered stream per peer.** Each node sends its own changes in the order of their revisions and goes
//! on from what the peer has confirmed; nothing is queued per peer. When a stream begins, both say who they
//! are and what they know of the other ([`Message::Hello`]), so it begins where the last one ended.
//!
//! **Verified.** Every few seconds each node tells a digest of its own records and of the copies it holds.
//! Buckets that differ are fetched whole. Copies of a node that cannot be reached are fetched from whoever
//! hears it.
//!
//! **Patient.** The records of a node that nobody hears are kept for the grace, and dropped only by a node
//! that sees a majority.
//!
//! What is not in here: sockets, wire forms, the registry's rules (`crate::naming`).

mod message;
mod protocol;
mod responsible;

pub use message::{Heard, Lacks, Message};
pub use protocol::{BEGINNING_MS, Distro, GRACE_MS, Out, REDO_MS, Sizes};
pub use responsible::responsible;

#[cfg(test)]
mod tests;
