//! What a node knows when it starts.

use crate::membership::Configuration;
use crate::message::SnapshotMeta;
use crate::types::{Boot, Checksum, EntryId, HardState, Incarnation, Index, LogBase, NodeId, Term};

/// Who this node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Node id.
    pub id: NodeId,
    /// Drawn when the folder was made.
    pub incarnation: Incarnation,
    /// Number of this start.
    pub boot: Boot,
}

/// What was found on the disk. All of it is durable, checked and (by the storage's rule of writing it
/// again) not owed to the page cache alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Term, vote, commit.
    pub hard_state: HardState,
    /// Where the log starts.
    pub base: LogBase,
    /// First index and term of each run of entries of one term, ascending; empty for an empty log.
    pub terms: Vec<(Index, Term)>,
    /// Last entry and its checksum; equal to the base for an empty log.
    pub last: EntryId,
    /// Checksum of the last entry.
    pub last_checksum: Checksum,
    /// The membership in force at the base and every later one in the log with its index, ascending.
    /// Empty for a node that has not been told of any.
    pub configurations: Vec<(Index, Configuration)>,
    /// What the state machine holds; at least the base.
    pub applied: Index,
    /// The newest complete snapshot file, when there is one.
    pub snapshot: Option<SnapshotMeta>,
    /// Since which boot this node is suspect.
    pub suspicion: Option<Boot>,
}
