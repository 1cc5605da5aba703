//! What the owner of a [`crate::Raft`] must carry out.

use std::ops::Range;

use bytes::Bytes;

use crate::entry::Entry;
use crate::error::Refusal;
use crate::membership::Configuration;
use crate::message::{Message, ProposalOutcome, SnapshotMeta};
use crate::types::{HardState, Index, LoadId, LogBase, NodeId, ReadId, Term, Token};

/// Work for the owner. Fields are independent of one another unless a doc says otherwise: the leader's
/// own disk and its followers start at the same time.
#[derive(Debug, Default)]
#[must_use]
pub struct Effects {
    /// May leave before anything below is durable. Messages to one member keep their order where the
    /// transport can; the core survives when they do not.
    pub send: Vec<(NodeId, Message)>,
    /// To be written in token order, never skipped; several may be folded into one sync.
    pub persist: Option<Persist>,
    /// Reads from the disk; answered by [`crate::Input::Loaded`], in any order.
    pub load: Vec<Load>,
    /// The next committed range, contiguous with the one before it; empty when there is none.
    /// Every entry in it is durable on this node.
    pub apply: Vec<Entry>,
    /// Local readers that may be served (or not).
    pub reads: Vec<ReadOutcome>,
    /// What became of local proposals and changes. Appended is not committed: the answer to the
    /// client comes from the apply.
    pub outcomes: Vec<ProposalOutcome>,
    /// Snapshots to make or to install.
    pub snapshot: Option<SnapshotWork>,
    /// Term, role or known leader changed.
    pub role: Option<RoleChange>,
    /// The membership in force changed: on append, and back again on truncation.
    pub configuration: Option<Configuration>,
}

/// One write, all of it or nothing. Fields are applied in the order in which they stand here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Persist {
    /// Confirms this write and every earlier one.
    pub token: Token,
    /// A piece of a snapshot that is being received.
    pub chunk: Option<ChunkWrite>,
    /// Forget the whole log; it starts anew after this snapshot, whose file is complete and synced.
    pub reset_to: Option<SnapshotMeta>,
    /// Forget this entry and all that follow.
    pub truncate_from: Option<Index>,
    /// Append; contiguous with what is there after the truncation.
    pub entries: Vec<Entry>,
    /// Term, vote, commit. A changed term or vote must reach the log and the mark file before
    /// `then_send` leaves.
    pub hard_state: Option<HardState>,
    /// Forget everything up to this base; it is durably in the state machine.
    pub compact_to: Option<LogBase>,
    /// The suspicion is lifted.
    pub clear_suspicion: bool,
    /// Votes, vote requests and acks: true only once all of the above is durable, so they leave then
    /// and not before (etcd-io/raft calls these attached responses).
    pub then_send: Vec<(NodeId, Message)>,
}

/// A piece of a snapshot file to be written at its offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkWrite {
    /// The snapshot.
    pub meta: SnapshotMeta,
    /// Where `data` goes, in bytes from the start of the file. 0 starts the file anew.
    pub offset: u64,
    /// The bytes.
    pub data: Bytes,
    /// `offset + data.len() == meta.size_bytes`: verify the file, sync it, give it its name.
    pub last: bool,
}

/// Something to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// Comes back with the answer.
    pub id: LoadId,
    /// What to read.
    pub what: LoadWhat,
}

/// What to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadWhat {
    /// Entries of the log, from the start of the range, until its end or `bytes_max`; at least one.
    Entries {
        /// Half-open.
        range: Range<Index>,
        /// Counted by [`Entry::size_bytes`].
        bytes_max: usize,
    },
    /// A piece of a snapshot file.
    Chunk {
        /// The snapshot.
        meta: SnapshotMeta,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        bytes_max: usize,
    },
}

/// What became of a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadOutcome {
    /// The reader.
    pub id: ReadId,
    /// Serve it once this index is applied, or why not.
    pub result: Result<Index, Refusal>,
}

/// Work on snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotWork {
    /// A member is behind the log: make a snapshot at the applied index, at least at `at_least`;
    /// answer with [`crate::Input::SnapshotMade`].
    Make {
        /// The snapshot must cover this index.
        at_least: Index,
    },
    /// The file is complete and the log starts after it: load it into the state machine and answer
    /// with [`crate::Input::Installed`]. Nothing is applied in between.
    Install(SnapshotMeta),
}

/// Which role a node plays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RoleKind {
    /// Not a voter: replicates, never campaigns.
    #[default]
    Learner,
    /// Follows a leader or waits for one.
    Follower,
    /// Asks whether it could win (thesis §9.6).
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

/// Term, role or leader changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoleChange {
    /// The term now.
    pub term: Term,
    /// The role now.
    pub role: RoleKind,
    /// The leader of the term, when known.
    pub leader: Option<NodeId>,
}
