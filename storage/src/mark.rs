//! The mark: what this node has promised, kept outside of fjall.
//!
//! fjall can lose a whole suffix of its journal without an error. The mark is the witness: it says who
//! this node is, for whom it voted, and up to which entry the log was once synced. A log that ends
//! before the mark has lost something.
//!
//! Two slots of one file are overwritten in turn, each with a sequence number and a crc32, so a crash
//! during a write spoils at most the slot being written. Only the log writer writes it, between
//! batches, so one crash tears the log or the mark, never both.
//!
//! Invariant: **mark ≤ durable log**. It is raised after the log's sync has returned, and lowered,
//! synced, before a batch takes entries away.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::BufMut;
use raft::{Boot, Checksum, EntryId, Incarnation, Index, LogBase, NodeId, Term};

use crate::ClusterId;
use crate::codec::Fields;
use crate::error::StorageError;
use crate::fault::{Faults, Point};

/// Bytes of a slot that carry something; the rest of its page stays zero and is never read.
pub const SLOT_BYTES: usize = 160;

/// Distance of the slots: a page each, so that no device tears both.
pub const SLOT_STRIDE: u64 = 4096;

const MAGIC: &[u8; 8] = b"rnacosMK";
const VERSION: u32 = 1;
const CRC_OFFSET: usize = SLOT_BYTES - 4;

/// What the mark says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The cluster; `None` for a node that has begun to join and has not been told yet.
    pub cluster_id: Option<ClusterId>,
    /// This node.
    pub node_id: NodeId,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// Number of the newest start; 0 while the folder is being formed.
    pub boot: Boot,
    /// The boot at which this node became suspect.
    pub suspicion: Option<Boot>,
    /// Newest term.
    pub term: Term,
    /// The vote in `term`.
    pub vote: Option<NodeId>,
    /// Last entry known to be synced: the log holds it, or starts after it.
    pub synced: LogBase,
    /// Last entry of the newest snapshot the log was started from; (0, 0) when there is none.
    pub snapshot: EntryId,
}

/// Why bytes are not a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SlotError {
    /// Too few bytes.
    #[error("the slot is cut off")]
    Short,
    /// Never written, or overwritten by something else.
    #[error("the slot does not start as one")]
    Magic,
    /// crc32 does not fit.
    #[error("the checksum of the slot does not fit")]
    Checksum,
    /// Intact, of another version.
    #[error("the slot has version {0}")]
    Version(u32),
}

/// The bytes of a slot.
pub fn encode_slot(sequence: u64, mark: &Mark) -> [u8; SLOT_BYTES] {
    let mut slot = [0u8; SLOT_BYTES];
    {
        let mut out = &mut slot[..];
        out.put_slice(MAGIC);
        out.put_u32_le(VERSION);
        out.put_u64_le(sequence);
        out.put_u128_le(mark.cluster_id.map_or(0, |id| id.0));
        out.put_u64_le(mark.node_id.0);
        out.put_u64_le(mark.incarnation.0);
        out.put_u64_le(mark.boot.0);
        out.put_u64_le(mark.suspicion.map_or(0, |boot| boot.0));
        out.put_u64_le(mark.term.0);
        out.put_u64_le(mark.vote.map_or(0, |id| id.0));
        out.put_u64_le(mark.synced.id.index.0);
        out.put_u64_le(mark.synced.id.term.0);
        out.put_u32_le(mark.synced.checksum.0);
        out.put_u64_le(mark.snapshot.index.0);
        out.put_u64_le(mark.snapshot.term.0);
    }
    let (body, crc) = slot.split_at_mut(CRC_OFFSET);
    crc.copy_from_slice(&crc32fast::hash(body).to_le_bytes());
    slot
}

/// Reads a slot: its sequence number and the mark.
///
/// # Errors
/// A [`SlotError`]; never a mark that was not written.
pub fn decode_slot(bytes: &[u8]) -> Result<(u64, Mark), SlotError> {
    let Some((slot, _)) = bytes.split_first_chunk::<SLOT_BYTES>() else {
        return Err(SlotError::Short);
    };
    let (body, crc) = slot.split_at(CRC_OFFSET);
    if !body.starts_with(MAGIC) {
        return Err(SlotError::Magic);
    }
    if crc32fast::hash(body).to_le_bytes() != crc {
        return Err(SlotError::Checksum);
    }
    let mut fields = Fields(body.get(MAGIC.len()..).unwrap_or_default());
    let version = fields.u32();
    if version != VERSION {
        return Err(SlotError::Version(version));
    }
    let sequence = fields.u64();
    let some = |id: u64| (id != 0).then_some(id);
    let cluster_id = fields.u128();
    let mark = Mark {
        cluster_id: (cluster_id != 0).then_some(ClusterId(cluster_id)),
        node_id: NodeId(fields.u64()),
        incarnation: Incarnation(fields.u64()),
        boot: Boot(fields.u64()),
        suspicion: some(fields.u64()).map(Boot),
        term: Term(fields.u64()),
        vote: some(fields.u64()).map(NodeId),
        synced: {
            let index = Index(fields.u64());
            let term = Term(fields.u64());
            LogBase {
                id: EntryId { term, index },
                checksum: Checksum(fields.u32()),
            }
        },
        snapshot: {
            let index = Index(fields.u64());
            let term = Term(fields.u64());
            EntryId { term, index }
        },
    };
    Ok((sequence, mark))
}

/// What the two slots hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slots {
    /// No file.
    Missing,
    /// Neither slot can be read.
    Lost,
    /// At least one can.
    Read {
        /// The newer readable one.
        mark: Mark,
        /// Its sequence number.
        sequence: u64,
        /// The other slot is unreadable: a write of it was torn, or it rotted.
        one_bad: bool,
    },
}

impl Slots {
    /// Reads the file, changing nothing.
    ///
    /// # Errors
    /// Only when the file is there and cannot be read.
    pub fn read(path: &Path) -> Result<Slots, StorageError> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Slots::Missing),
            Err(error) => return Err(StorageError::file("cannot read", path, error)),
        };
        Ok(Slots::parse(&bytes))
    }

    /// Reads the bytes of a mark file.
    pub fn parse(bytes: &[u8]) -> Slots {
        let slot = |n: usize| decode_slot(bytes.get(n * SLOT_STRIDE as usize..).unwrap_or_default());
        let read = |(sequence, mark), one_bad| Slots::Read {
            mark,
            sequence,
            one_bad,
        };
        match (slot(0), slot(1)) {
            (Ok(a), Ok(b)) => read(if a.0 >= b.0 { a } else { b }, false),
            (Ok(only), Err(_)) | (Err(_), Ok(only)) => read(only, true),
            (Err(_), Err(_)) => Slots::Lost,
        }
    }
}

/// The open mark file.
#[derive(Debug)]
pub(crate) struct MarkFile {
    file: File,
    path: PathBuf,
    /// Sequence number of the newest slot.
    sequence: u64,
    mark: Mark,
    /// Synced writes since this value was made.
    writes: u64,
    faults: Faults,
}

impl MarkFile {
    /// Makes the file with both slots, synced, and syncs its folder.
    pub(crate) fn create(path: &Path, mark: Mark, faults: &Faults) -> Result<MarkFile, StorageError> {
        let error = |source| StorageError::file("cannot create", path, source);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path);
        let file = file.map_err(error)?;
        file.set_len(2 * SLOT_STRIDE).map_err(error)?;
        let mut this = MarkFile {
            file,
            path: path.to_owned(),
            sequence: 0,
            mark,
            writes: 0,
            faults: faults.clone(),
        };
        this.write_both(mark)?;
        this.file.sync_all().map_err(error)?;
        if let Some(folder) = path.parent() {
            crate::dir::sync_folder(folder)?;
        }
        Ok(this)
    }

    /// Opens the file that [`Slots::read`] found readable.
    pub(crate) fn open(
        path: &Path,
        mark: Mark,
        sequence: u64,
        faults: &Faults,
    ) -> Result<MarkFile, StorageError> {
        let file = OpenOptions::new().read(true).write(true).open(path);
        let file = file.map_err(|source| StorageError::file("cannot open", path, source))?;
        Ok(MarkFile {
            file,
            path: path.to_owned(),
            sequence,
            mark,
            writes: 0,
            faults: faults.clone(),
        })
    }

    /// What the newest slot says.
    pub(crate) fn mark(&self) -> &Mark {
        &self.mark
    }

    /// Synced writes since the file was opened.
    pub(crate) fn writes(&self) -> u64 {
        self.writes
    }

    /// Writes and syncs the older slot. After an error the file must not be used any more.
    pub(crate) fn write(&mut self, mark: Mark) -> Result<(), StorageError> {
        let sequence = self.sequence + 1;
        let slot = encode_slot(sequence, &mark);
        let error = |source| StorageError::file("cannot write", &self.path, source);
        self.faults.at(Point::MarkWrite).map_err(error)?;
        self.file
            .write_all_at(&slot, (sequence % 2) * SLOT_STRIDE)
            .map_err(error)?;
        self.faults.at(Point::MarkSync).map_err(error)?;
        self.file.sync_data().map_err(error)?;
        self.sequence = sequence;
        self.mark = mark;
        self.writes += 1;
        self.faults.at(Point::MarkSynced).map_err(error)
    }

    /// Writes and syncs one slot, then the other. For what must not be forgotten when one of them rots
    /// (a suspicion), and to heal a slot found bad.
    pub(crate) fn write_both(&mut self, mark: Mark) -> Result<(), StorageError> {
        self.write(mark)?;
        self.write(mark)
    }
}
