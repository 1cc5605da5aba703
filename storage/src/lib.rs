//! What is stored where, and what survives which crash.
//!
//! | name in the data folder | what | durable |
//! |---|---|---|
//! | `FORMAT` | version of the folder, identity | written last when the folder is formed |
//! | `LOCK` | held by the one process that uses the folder | – |
//! | `mark` | identity, boot, term, vote, "synced up to", suspicion | synced on every write |
//! | `members` | copy of the memberships in the log | replaced as a whole, synced |
//! | `wal/` | fjall: the log, term and vote, the base of the log | every batch synced |
//! | `state/` | fjall: the tables of the state machine and their applied point | before the log is cut |
//! | `snapshots/` | the newest snapshot | before it gets its name |
//! | `naming` | high-water mark of naming's stamps | replaced as a whole, synced |
//! | `instances` | the instances that came by this node, as it last knew them | never synced: no promise |
//! | `aside/` | what could not be used; never deleted by us | – |
//!
//! Everything blocks; there is no async runtime in here. The life of a folder:
//!
//! ```text
//! Folder::open ── stage ──► Empty ── begin ──► Begun ── finish ──► Formed ── start ──► Opened
//! ```
//!
//! [`Opened`] gives the pieces to their owners: [`LogWriter`] to its thread, [`LogReader`] to whoever
//! feeds slow peers, [`Tables`] to the applier, [`Snapshots`] to the snapshotter; and
//! [`raft::Recovered`] to the core.
//!
//! # What is promised
//! * A [`Completion::Persisted`] means: synced, in the log and, for a term or vote, in the mark too.
//! * After a crash or power cut, an open gives back everything that was completed, or says that it
//!   cannot: the node is *suspect* (it starts, and counts for nothing until a leader has seen it catch
//!   up), or the open is refused with the next step in its text. Damage is never passed over in silence.
//! * Known limit: a last batch that was completed, lies above the mark (at most one second or 8 MiB of
//!   log) and then rots on the disk looks the same as one that was never completed.
//! * A failed write or sync is final.
//!
//! Byte tables: `docs/storage-format.md`.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)
)]

pub mod codec;
mod dir;
mod error;
pub mod fault;
mod finding;
mod folder;
mod frames;
mod gather;
mod hard_state;
mod install;
pub mod journal;
mod log;
mod manifest;
pub mod mark;
mod membership;
mod metrics;
mod open;
pub mod recover;
pub mod snapshot;
mod space;
mod store;
mod table;
mod watermark;
mod writer;

use std::fmt;
use std::str::FromStr;

pub use dir::{FORMAT_VERSION, Format, Paths};
pub use error::{OpenError, ReadError, StorageError};
pub use finding::Finding;
pub use folder::{Folder, Stage};
pub use frames::FrameFile;
pub use log::LogReader;
pub use metrics::{BATCH_BUCKETS, Histogram, SYNC_BUCKETS_US, WriterMetrics};
pub use snapshot::{SnapshotFile, Snapshots};
pub use space::{RESERVE_BYTES, SpaceProbe, Volume, statvfs};
pub use table::{KEY_BYTES_MAX, Rows, Table, Tables, TablesBatch, TablesView};
pub use watermark::{Watermark, WatermarkFile};
pub use writer::{Completion, LogWriter, WriterHandle};

/// Names a cluster: drawn at random by its founder. 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClusterId(pub u128);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for ClusterId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<ClusterId, Self::Err> {
        u128::from_str_radix(text, 16).map(ClusterId)
    }
}

/// How to open a formed folder.
#[derive(Clone, Default)]
pub struct Options {
    /// The node the caller believes to be; a folder of another one is refused.
    pub node_id: Option<raft::NodeId>,
    /// Free bytes below which proposals are refused. Default [`RESERVE_BYTES`], or a tenth of a volume
    /// below 5 GiB.
    pub reserve_bytes: Option<u64>,
    /// Asks for the room on the disk; default [`statvfs`] of the data folder.
    pub space_probe: Option<SpaceProbe>,
}

/// An open folder, in pieces for their owners. The lock is held until the last of them is gone.
pub struct Opened {
    /// Who this node is; the boot number is new and durable.
    pub identity: raft::Identity,
    /// The cluster it belongs to.
    pub cluster_id: ClusterId,
    /// What the core starts from.
    pub recovered: raft::Recovered,
    /// Reads entries.
    pub reader: LogReader,
    /// Writes entries; to be started.
    pub writer: LogWriter,
    /// The state tables.
    pub tables: Tables,
    /// Snapshot files.
    pub snapshots: Snapshots,
    /// What was found and dealt with; to be logged.
    pub findings: Vec<Finding>,
}
