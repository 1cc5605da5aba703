//! How nodes reach one another: the peer door, the transport, the wire.
//!
//! ```text
//!                      this node                                   another node
//!   consensus --send--> Transport -> Peer -> Lane (queue, task) ==== HTTP/2 ====> grpc::listener
//!                          ^                  control, log, bulk                      |
//!                          | called, guests                                        Door -> Visit
//!                       PeerService <-- messages, calls, sightings -------------------+
//! ```
//!
//! - [`Door`]: what a connection from outside may do here. Nothing of it is parsed before it has proved
//!   the cluster token (`handshake`).
//! - [`Transport`]: never waits, bounds everything, drops and says so; the core sends again. One
//!   connection for each class of messages, so that a snapshot never stands before a heartbeat.
//! - `wire`: raft messages as frames; log entries travel as the records their leader made.
//! - [`Links`]: streams both ways between members, for what does not go through the log.
//! - [`PeerClient`]: calls from outside the membership (joining, `rnacos cluster …`).
//! - [`PeerService`]: what the owner does with what peers say. This module knows neither the core's rules
//!   nor the state machine; it converts and carries.
//!
//! The protocol by bytes, its limits and what it does *not* protect against are in docs/peer-protocol.md.
//! Limits with their names stand in `limits`.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)
)]

mod calls;
mod client;
mod dial;
mod door;
mod failures;
mod handshake;
mod identity;
mod lane;
mod limits;
mod link;
mod peer;
mod queue;
mod refused;
mod service;
mod stream;
mod token;
mod transport;
mod wire;

pub use calls::{Call, CallDecodeError, CallRefused, CallReply, Done, Presence, StatusReport, WhyRefused};
pub use client::{CallError, PeerClient};
pub use dial::{Credentials, DialError};
pub use door::{Door, DoorCounts, Exchange, IsLocal, Standing, Visit, is_loopback};
pub use failures::Failures;
pub use handshake::HandshakeError;
pub use identity::{Identity, Kind, Local, PeerIdentity, Target};
pub use lane::Class;
pub use limits::{
    ANSWER_BYTES_MAX, FRAME_BYTES_MAX, LINK_FRAME_BYTES_MAX, VERSION, VERSION_MIN, WINDOW_BYTES,
};
pub use link::{Full, Link, LinkCounts, LinkId, LinkKind, LinkService, LinkView, Links, Malformed};
pub use peer::{LaneView, PeerView};
pub use refused::Refused;
pub use service::{BoxFuture, PeerService};
pub use token::ClusterToken;
pub use transport::Transport;
pub use wire::{DecodeError, EncodeError, decode, encode, weight_bytes};

#[cfg(test)]
mod tests;
