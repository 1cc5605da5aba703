//! What an open found besides a healthy folder, for the log and the operator.

use std::path::PathBuf;

use raft::{Boot, Index};

/// Something worth telling. All of it has been dealt with as the text says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// The usual trace of a crash.
    #[error(
        "{journal} ended in a write that was never acknowledged ({reason}); \
             cut at byte {offset}, a copy is in {copy}"
    )]
    TornTail {
        /// The journal.
        journal: PathBuf,
        /// What was wrong with the batch.
        reason: &'static str,
        /// Where it was cut.
        offset: u64,
        /// What was cut off.
        copy: PathBuf,
    },
    /// Something synced is gone.
    #[error("{journal} is damaged ({reason}); cut at byte {offset}, a copy of all of it is in {copy}")]
    Damage {
        /// The journal.
        journal: PathBuf,
        /// What was wrong.
        reason: &'static str,
        /// Where it was cut.
        offset: u64,
        /// The whole journal as it was.
        copy: PathBuf,
    },
    /// This node may have lost what it had acknowledged.
    #[error(
        "this node is suspect since boot {since}: {reason}; it counts for nothing until a leader \
             has seen it catch up"
    )]
    Suspect {
        /// Since when.
        since: Boot,
        /// Why.
        reason: String,
    },
    /// One slot of the mark could not be read.
    #[error("one slot of the mark was unreadable (a torn write); it is written anew")]
    MarkSlot,
    /// FORMAT was missing from a formed folder.
    #[error("the FORMAT file was missing; it is written anew from the mark")]
    FormatRestored,
    /// A snapshot file cannot be used.
    #[error("the snapshot {0} is damaged and not used; it was moved aside")]
    SnapshotDamaged(PathBuf),
    /// An install was finished.
    #[error("the state tables were brought to {0} from the snapshot there")]
    StateInstalled(Index),
    /// The tables could not be used.
    #[error("the state tables cannot be used ({reason}); they were moved to {moved}")]
    StateMoved {
        /// Why.
        reason: String,
        /// Where they are now.
        moved: PathBuf,
    },
    /// The log could not be used.
    #[error("the log cannot be opened ({reason}); it was moved to {moved}")]
    LogMoved {
        /// Why.
        reason: String,
        /// Where it is now.
        moved: PathBuf,
    },
    /// The log starts anew.
    #[error("the log starts anew after {0}")]
    LogRestarted(Index),
    /// Entries were dropped from the end of the log.
    #[error("{count} keys of the log after {after} are not linked to it and were removed")]
    EntriesRemoved {
        /// Last index that stays.
        after: Index,
        /// Keys removed.
        count: usize,
    },
}
