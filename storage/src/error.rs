//! What can go wrong, said so that an operator knows the next step.

use std::io;
use std::path::PathBuf;

use raft::{Boot, Index, NodeId, Term};

use crate::codec::CodecError;

/// A failed write, sync or read of a running store. A failed write or sync is final: what it covered
/// is unknown, and a second sync that succeeds proves nothing (the kernel has marked the pages clean).
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The log could not be written or synced.
    #[error(
        "the log in {folder} could not be written: {source}; \
             check the disk, then restart: what was acknowledged is checked again at the start"
    )]
    Wal {
        /// `wal/`.
        folder: PathBuf,
        /// Cause.
        #[source]
        source: fjall::Error,
    },
    /// The state tables could not be read, written or synced.
    #[error(
        "the state tables in {folder} failed: {source}; \
             check the disk, then restart: the log brings back what is missing"
    )]
    State {
        /// `state/`.
        folder: PathBuf,
        /// Cause.
        #[source]
        source: fjall::Error,
    },
    /// A file could not be read, written, synced or renamed.
    #[error("{what} {path}: {source}; check the disk and the rights of the data folder, then restart")]
    File {
        /// What was being done.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// A snapshot file is not what its name and checksums promise.
    #[error("the snapshot {path} is damaged ({reason}); it is not used")]
    SnapshotDamaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// A row of the state tables that this crate keeps for itself cannot be read.
    #[error(
        "the state tables hold a damaged {what} record; \
             stop the node and run `rnacos recover inspect`"
    )]
    StateRecord {
        /// Which record.
        what: &'static str,
    },
    /// An earlier write or sync failed; nothing is written any more.
    #[error("an earlier write or sync failed; nothing is written until the node is restarted")]
    Poisoned,
    /// The log writer met something that must never happen.
    #[error(
        "the log writer stopped: {0}; this is a bug, please report it; \
             a restart recovers from the log"
    )]
    Panicked(String),
}

/// Why a folder could not be opened. Nothing was changed unless the text says so.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds the folder.
    #[error(
        "the data folder {folder} is in use by process {pid}; \
             stop that process or set another RNACOS_DATA_DIR"
    )]
    Locked {
        /// The folder.
        folder: PathBuf,
        /// What the lock file says; "unknown" when it says nothing.
        pid: String,
    },
    /// The folder cannot be made, read or written.
    #[error(
        "{what} {path}: {source}; \
             check that the folder exists, belongs to this user and is not on a read-only volume"
    )]
    Io {
        /// What was being done.
        what: &'static str,
        /// File or folder.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The data of r-nacos lies there.
    #[error(
        "{folder} holds data of r-nacos ({file}); it was left untouched; \
             set RNACOS_DATA_DIR to an empty folder and import the configs from an export of r-nacos"
    )]
    ForeignFolder {
        /// The folder.
        folder: PathBuf,
        /// What it was recognised by.
        file: String,
    },
    /// Written by a newer version.
    #[error(
        "{folder} has format {found}, this version knows formats up to {known}; \
             start the newer version again, or restore a backup made before the upgrade"
    )]
    NewerFormat {
        /// The folder.
        folder: PathBuf,
        /// What FORMAT says.
        found: u32,
        /// The newest this version can read.
        known: u32,
    },
    /// FORMAT is not readable.
    #[error(
        "{path} is damaged ({reason}); \
             nothing was changed; run `rnacos recover inspect`"
    )]
    FormatDamaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// The folder belongs to another node.
    #[error(
        "{folder} belongs to node {found}, this node is {expected}; \
             set RNACOS_RAFT_NODE_ID={found}, or RNACOS_DATA_DIR to this node's own folder"
    )]
    OtherNode {
        /// The folder.
        folder: PathBuf,
        /// Who it belongs to.
        found: NodeId,
        /// Who asks.
        expected: NodeId,
    },
    /// Called in the wrong stage of forming.
    #[error("the data folder {folder} is {found}, {needed} is needed for this step")]
    WrongStage {
        /// The folder.
        folder: PathBuf,
        /// The stage it is in.
        found: &'static str,
        /// The stage that was needed.
        needed: &'static str,
    },
    /// Neither FORMAT nor mark, and yet something is in there.
    #[error(
        "{folder} has neither a FORMAT file nor a valid mark, but data ({what}); \
             nothing was changed; if the node may lose it, run `rnacos recover accept-loss`, \
             otherwise restore the missing files from a backup of this node"
    )]
    UnknownData {
        /// The folder.
        folder: PathBuf,
        /// What was found.
        what: String,
    },
    /// FORMAT is there, the mark is not: this node no longer knows what it had promised.
    #[error(
        "both slots of the mark file in {folder} are unreadable: what this node voted for and \
             acknowledged is lost; if it is a member of a cluster, remove it there, move the folder \
             away and start it anew with RNACOS_RAFT_JOIN_ADDR; if it is alone, run \
             `rnacos recover accept-loss`"
    )]
    MarkLost {
        /// The folder.
        folder: PathBuf,
    },
    /// Two different votes in one term.
    #[error(
        "{folder} holds two different votes of term {term} (for nodes {log} and {mark}): \
             this node can no longer be trusted as a member; remove it from its cluster, move the folder \
             away and start it anew with RNACOS_RAFT_JOIN_ADDR; if it is alone, run \
             `rnacos recover accept-loss`"
    )]
    TwoVotes {
        /// The folder.
        folder: PathBuf,
        /// The term.
        term: Term,
        /// The vote in the log.
        log: NodeId,
        /// The vote in the mark.
        mark: NodeId,
    },
    /// The only voter of a cluster has lost something: nobody can give it back.
    #[error(
        "this node is the only voter and may have lost what it had acknowledged ({reason}); \
             it does not serve in this state; run `rnacos recover inspect` to see what is missing and \
             `rnacos recover accept-loss` to go on without it, or restore a backup of {folder}"
    )]
    LoneSuspect {
        /// The folder.
        folder: PathBuf,
        /// What was found.
        reason: String,
        /// The suspicion, now in the mark.
        since: Boot,
    },
    /// A running store's error met while opening.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why entries or a piece of a snapshot could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Compacted away, or not there yet.
    #[error("entry {asked} is not in the log (it starts at {first})")]
    Gone {
        /// First index of the range that was asked for.
        asked: Index,
        /// First index of the log.
        first: Index,
    },
    /// An entry is there and is not intact.
    #[error(
        "entry {index} of the log is damaged: {source}; \
             stop the node and run `rnacos recover inspect`"
    )]
    Damaged {
        /// Which.
        index: Index,
        /// What is wrong.
        #[source]
        source: CodecError,
    },
    /// The disk failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl StorageError {
    pub(crate) fn file(what: &'static str, path: impl Into<PathBuf>, source: io::Error) -> StorageError {
        StorageError::File {
            what,
            path: path.into(),
            source,
        }
    }
}

impl OpenError {
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>, source: io::Error) -> OpenError {
        OpenError::Io {
            what,
            path: path.into(),
            source,
        }
    }
}
