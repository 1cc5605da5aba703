//! Everything that can happen to the core.

use bytes::Bytes;

use crate::entry::Entry;
use crate::membership::Change;
use crate::message::{Message, Proposal, SnapshotMeta};
use crate::types::{Index, LoadId, NodeId, ProposalId, ReadId, Space, Token};

/// One thing that happened. The owner feeds them in the order in which they happened to it.
#[derive(Clone, Debug)]
pub enum Input {
    /// One tick of the owner's clock has passed ([`crate::Config`] counts in ticks).
    Tick,
    /// A message came from an authenticated member.
    Message(Message),
    /// Local clients want these appended. On a follower they travel to the leader.
    Propose(Vec<Proposal>),
    /// A membership change. Refused on any node but the leader.
    Change {
        /// The asker's name for it; comes back in [`crate::Effects::outcomes`].
        id: ProposalId,
        /// The change.
        change: Change,
    },
    /// Local readers want an index at which a read is linearizable.
    ReadIndex(Vec<ReadId>),
    /// Hand leadership to this member (`None`: to the best one). Refused on any node but the leader.
    Transfer {
        /// The asker's name for it; comes back in [`crate::Effects::outcomes`] when it was refused.
        id: ProposalId,
        /// The next leader.
        to: Option<NodeId>,
    },
    /// Every [`crate::Persist`] up to and including this token is durable.
    Persisted(Token),
    /// Everything up to this index is applied to the state machine.
    Applied(Index),
    /// The state machine holds everything up to this index durably: the log may be cut to it.
    Compact(Index),
    /// What a [`crate::Load`] asked for.
    Loaded {
        /// The load.
        id: LoadId,
        /// What was read.
        result: Loaded,
    },
    /// A snapshot asked for by [`crate::SnapshotWork::Make`] lies complete and synced on this node's
    /// disk; `None` when it could not be made (it is asked for again when needed).
    SnapshotMade(Option<SnapshotMeta>),
    /// The snapshot of [`crate::SnapshotWork::Install`] is what the state machine now holds.
    Installed(SnapshotMeta),
    /// The snapshot whose last piece was written is not what it was announced as, and not used. Must
    /// come before the [`Input::Persisted`] of that piece, and the answer to that piece must not leave.
    SnapshotRefused(SnapshotMeta),
    /// A message to this member may have been lost, or its connection broke.
    Unreachable(NodeId),
    /// Room on the disk has changed.
    Space(Space),
}

/// The answer to a [`crate::Load`].
#[derive(Clone, Debug)]
pub enum Loaded {
    /// Entries from the start of the range on, contiguous, at least one, at most what was asked for.
    Entries(Vec<Entry>),
    /// A piece of a snapshot file; as long as asked for unless the file ends.
    Chunk(Bytes),
    /// No longer there (compacted, or the snapshot was replaced).
    Gone,
}
