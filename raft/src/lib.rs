//! Raft as a value.
//!
//! [`Raft`] is stepped: [`Raft::step`] takes one [`Input`], [`Raft::take_effects`] gives the
//! [`Effects`] that the owner must carry out. There is no clock, disk, socket, thread or log output in
//! here, no map with a random order, and the only chance is a seeded generator for election timeouts.
//! Same inputs and seed: same effects.

mod bugs;
mod candidate;
mod config;
mod core;
mod effects;
mod entry;
mod error;
mod follower;
mod inflight;
mod input;
mod leader;
mod log;
mod membership;
mod message;
mod node;
mod progress;
mod quorum;
mod read;
mod receive;
mod recovered;
mod replication;
mod role;
mod send;
mod status;
mod transfer;
mod types;
mod writes;

pub use bugs::Bug;

pub use config::Config;
pub use effects::{
    ChunkWrite, Effects, Load, LoadWhat, Persist, ReadOutcome, RoleChange, RoleKind, SnapshotWork,
};
pub use entry::{Entry, EntryKind};
pub use error::{ConfigError, Refusal};
pub use input::{Input, Loaded};
pub use membership::{ADDRESS_BYTES_MAX, Change, Configuration, ConfigurationError, MEMBERS_MAX, Member};
pub use message::{
    Append, AppendReply, Body, Cleared, Heartbeat, HeartbeatReply, Message, Proposal, ProposalOutcome,
    ReadIndexReply, Sender, SnapshotChunk, SnapshotMeta, SnapshotReply, VoteReply, VoteRequest,
};
pub use node::Raft;
pub use quorum::Tally;
pub use recovered::{Identity, Recovered};
pub use status::{PeerStatus, Status};
pub use types::{
    Boot, Checksum, EntryId, HardState, Incarnation, Index, LoadId, LogBase, NodeId, ProposalId, ReadId,
    Space, Term, Token,
};
