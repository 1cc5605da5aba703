//! Raft as a value.
//!
//! [`Raft`] is stepped: [`Raft::step`] takes one [`Input`], [`Raft::take_effects`] gives the
//! [`Effects`] that the owner must carry out. There is no clock, disk, socket, thread or log output in
//! here, no map with a random order, and the only chance is a seeded generator for election timeouts.
//! Same inputs and seed: same effects.

mod config;
mod effects;
mod entry;
mod error;
mod input;
mod membership;
mod message;
mod recovered;
mod status;
mod types;

pub use config::Config;
pub use effects::{ChunkWrite, Effects, Load, LoadWhat, Persist, ReadOutcome, RoleChange, RoleKind, SnapshotWork};
pub use entry::{Entry, EntryKind};
pub use error::{ConfigError, Refusal};
pub use input::{Input, Loaded};
pub use membership::{Change, Configuration, Member};
pub use message::{
    Append, AppendReply, Body, Cleared, Heartbeat, HeartbeatReply, Message, Proposal, ProposalOutcome,
    ReadIndexReply, Sender, SnapshotChunk, SnapshotMeta, SnapshotReply, VoteReply, VoteRequest,
};
pub use recovered::{Identity, Recovered};
pub use status::{PeerStatus, Status};
pub use types::{
    Boot, Checksum, EntryId, HardState, Incarnation, Index, LoadId, LogBase, NodeId, ProposalId, ReadId, Space,
    Term, Token,
};
