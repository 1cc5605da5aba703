//! Raft as a value.
//!
//! [`Raft`] is stepped: [`Raft::step`] takes one [`Input`], [`Raft::take_effects`] gives the
//! [`Effects`] that the owner must carry out. There is no clock, disk, socket, thread or log output in
//! here, no map with a random order, and the only chance is a seeded generator for election timeouts.
//! Same inputs and seed: same effects.
//!
//! This page is the contract: it should be enough to write another owner ("driver").
//!
//! # A turn
//!
//! ```text
//! loop {
//!     wait for one input; step it; step everything else that is there already
//!     let effects = raft.take_effects();   // gathered over all of these
//!     start all of it; nothing below waits for anything else in the same turn
//! }
//! ```
//!
//! Stepping several inputs before taking the effects is what makes batches: proposals of one turn share
//! an append and a sync, readers share a heartbeat round. Ticks and peer messages should not wait behind
//! proposals. [`Raft::has_effects`] is true after every step until the effects are taken; the effects
//! may be empty.
//!
//! # What the owner does with effects
//!
//! | field | what to do | answer |
//! |---|---|---|
//! | `send` | put on the wire now; may be lost, doubled or reordered | [`Input::Unreachable`] when a connection broke |
//! | `persist` | write, in token order, never skipping one; several may be folded into one sync. Then release `then_send` | [`Input::Persisted`] |
//! | `load` | read from disk, in any order, on any thread | [`Input::Loaded`], always exactly one |
//! | `apply` | apply to the state machine, in order | [`Input::Applied`] of the last one (or of any prefix) |
//! | `reads` | serve once that index is applied | - |
//! | `outcomes` | tell proposers what was refused, and where the rest was appended | - |
//! | `snapshot` | make one, or install the one received. If `apply` is there too, it comes first | [`Input::SnapshotMade`], [`Input::Installed`] |
//! | `role`, `configuration` | tell whoever cares; dial the members | - |
//!
//! # Ordering rules
//!
//! 1. *Messages in [`Persist::then_send`] leave after the write is durable, never before, and only if
//!    it is.* Votes, vote requests, acknowledgements and everything that first speaks in a new term
//!    travel there; no other rule about "sync before answer" is needed (R1, R2).
//! 2. Writes become durable in token order; [`Input::Persisted`] confirms its token *and all before*.
//!    Folding is allowed: the final state of several writes may be written at once, if the messages of
//!    all of them then leave in order.
//! 3. A [`Persist`] with nothing but `then_send` needs no sync of its own: it only waits for the
//!    earlier ones.
//! 4. A changed term or vote must be durable wherever recovery looks for it before `then_send` leaves.
//!    `hard_state` comes along with entries too, then only `commit` is new, and that may be lost.
//! 5. Inputs are fed in the order in which they happened to the owner. `Applied`, `Loaded`,
//!    `SnapshotMade` and `Installed` may come late; what no longer fits is ignored.
//! 6. A failed write is final: feed nothing further, start anew from the disk. There is no input for it.
//! 7. After a crash everything comes from [`Recovered`]: an index may be given out to be applied again
//!    if it is above `Recovered::applied`, so that must be stored together with its effects (R16).
//! 8. A snapshot made by the owner must carry [`Raft::configuration_at`] its last index.
//! 9. [`Input::Compact`] only for what the state machine holds *durably*.
//! 10. The file of a snapshot whose last piece was confirmed stays until its [`Input::Installed`], even
//!     when a snapshot of this node's own making is finished meanwhile.
//! 11. Whoever finds, when the last piece is there, that the file is not what its [`SnapshotMeta`] says,
//!     feeds [`Input::SnapshotRefused`] before that piece's [`Input::Persisted`], and takes the
//!     [`SnapshotReply`] for it out of `then_send`: the one message that may stay behind (R15).
//!
//! # What the core promises
//!
//! - Entries in `apply` are committed and durable on this node (min(commit, durable)), contiguous, each
//!   exactly once per run, within [`Config::unapplied_bytes_max`] of unconfirmed bytes.
//! - A [`Refusal`] is definite: the proposal is in no log and never will be. The reverse is not known:
//!   an appended proposal may be truncated, and a forwarded one may be lost on the way; its proposer
//!   learns its fate only from the state machine. Forwarded proposals that were appended are not
//!   reported; refusals of them come back as outcomes.
//! - Every reader gets exactly one [`ReadOutcome`]. The index is at least the commit index of the whole
//!   cluster at the moment of asking. Without an answer for two election timeouts it is
//!   [`Refusal::NoLeader`]; a leader that steps down asks its successor for the readers it has left.
//! - No message, however odd, panics: broken ones are dropped. Own broken invariants, and owners that
//!   break the rules above, do panic, in release builds too.
//!
//! # What the owner must not do
//!
//! - Use a [`ProposalId`] or a [`ReadId`] twice, *also not in another boot or incarnation* of the node and
//!   not for another attempt of the same command: answers from elsewhere are matched by them, may arrive
//!   late or twice, and may have been meant for an earlier life of this node id. (Boot number in the
//!   upper bits, below them a start that is drawn from the incarnation.)
//! - Feed messages of peers that have not proved who they are. A message is believed to come from its
//!   [`Sender`].
//!
//! # Disk space
//!
//! A leader whose own disk is low, or that has no quorum with room, refuses all but essential proposals
//! ([`Proposal::essential`]) with [`Refusal::LowOnSpace`]; at [`Space::Critical`] it refuses those too.
//! The first time its own disk gets low it hands leadership to a member with room, if there is one.
//! A follower cannot tell what is essential. Low on space it takes appends of no-ops, memberships, or at
//! most 64 KiB (deletes and trims are small; what else slips through is bounded by the reserve), and the
//! leader cuts its appends to that size; at `Critical` it takes none ([`AppendReply::NoSpace`]). Term
//! and vote are always written. A member low on space is neither promoted nor a target of a transfer,
//! and at `Critical` it does not campaign.
//!
//! # Suspicion
//!
//! A node that may have lost what it had acknowledged starts with [`Recovered::suspicion`] and says so
//! in every [`Sender`]. It then does not vote, campaign, or get promoted; leaders set its match to 0,
//! count neither its acks nor its echoes, and ignore replies of its earlier boots. Once a leader that has
//! committed its own no-op sees it durable up to the leader's last index (as of the later of that commit
//! and the moment it learned of the suspicion), it sends [`Body::Cleared`]; the node makes that durable
//! ([`Persist::clear_suspicion`]) and counts again (R43, R51).
//!
//! # Words
//!
//! - *last, durable, committed, applied*: end of the log in memory; end of what a crash leaves; end of
//!   what no leader can take back; end of what the state machine has confirmed.
//!   applied <= min(committed, durable), and both <= last.
//! - *base*: the entry that the log starts after.
//! - *match, next*: up to where a peer's log is known to equal the leader's, durably; what to send next.
//! - *promise*: term and vote.
//! - *round*: a numbered heartbeat of a leader; also, for a learner, a stretch of catching up.
//! - *incarnation, boot*: which member of a node id (drawn anew when its folder is made), which start.
//!
//! # What it follows
//!
//! | what | where | source |
//! |---|---|---|
//! | terms, roles, dispatch | `node`, `role` | paper §5.1 |
//! | elections, pre-vote | `candidate`, `follower` | paper §5.2, §5.4.1; thesis §9.6 |
//! | leader stickiness, check-quorum | `follower`, `leader` | thesis §4.2.3, §6.2 |
//! | replication, pipelining | `replication`, `progress`, `inflight` | paper §5.3; thesis §10.2 |
//! | own disk in parallel | `writes`, `core` | thesis §10.2.1 |
//! | commit rule | `leader` | paper §5.4.2 |
//! | membership, learners | `membership`, `leader`, `quorum` | thesis §4.1-4.3 |
//! | transfer | `transfer` | thesis §3.10 |
//! | snapshots, compaction | `send`, `receive`, `log` | paper §7; thesis §5 |
//! | ReadIndex | `read`, `leader` | thesis §6.4 |
//!
//! # Seeded bugs
//!
//! With the feature `seeded-bugs`, [`Config`] has a field `bug: Option<Bug>` that switches one guard off;
//! see [`Bug`] for the list: R1, R2, R3, R4, R5, R5Rollback, R6, R7, R9, R12, R13, R14, R15, R16, R30,
//! R43, R44, R46, R51.

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
