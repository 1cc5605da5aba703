//! The log in fjall: keyspace `log` (key: index, 8 bytes big-endian; value: [`crate::codec`] record) and
//! keyspace `hard` ([`crate::hard_state`]).
//!
//! *Every* commit to this database is synced before it returns. No buffered commit exists here: the
//! scanner's proof ("a later batch means the earlier ones were synced") rests on it.

use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use fjall::config::{BlockSizePolicy, FilterPolicy};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};
use raft::{Checksum, Configuration, Entry, EntryId, EntryKind, Index, LogBase, Term};

use crate::codec;
use crate::dir::Lock;
use crate::error::{ReadError, StorageError};
use crate::hard_state::{BaseRecord, HardRecord};
use crate::membership::Memberships;

/// A memtable is flushed beyond this many bytes: short flushes, and journals that can go early. As fjall
/// counts them: key, value, and about 70 bytes.
const MEMTABLE_BYTES: u64 = 8 << 20;

/// Memtables of one keyspace that may wait for their flush. At the bound the writer waits.
const SEALED_MAX: usize = 2;

/// Less than this in a memtable stays there in a pause: many small tables would cost more than they free.
pub(crate) const REST_BYTES_MIN: u64 = 256 << 10;

/// How often it looks again.
const SEALED_POLL: Duration = Duration::from_millis(1);

/// Journals kept before fjall flushes whatever still pins the oldest one. fjall's least value.
const JOURNAL_BYTES: u64 = 64 << 20;

/// Bytes of a block in a table of the log. Each is a checksum and a system call when it is written; fjall's
/// 4 KiB are for reads of single rows.
const BLOCK_BYTES: u32 = 64 << 10;

/// Blocks of tables kept in memory. Only a slow peer reads the log back, and it reads forward once.
const CACHE_BYTES: u64 = 1 << 20;

/// Keys of the `hard` keyspace.
const HARD_KEY: &[u8] = b"hard";
const BASE_KEY: &[u8] = b"base";

/// The open log.
#[derive(Clone)]
pub(crate) struct Wal {
    db: Database,
    log: Keyspace,
    hard: Keyspace,
    folder: PathBuf,
    /// The folder stays locked as long as anyone can write to it.
    _lock: Arc<Lock>,
}

/// What one commit changes; at most one operation per key.
#[derive(Default)]
pub(crate) struct WalChange {
    /// Written at their own index.
    pub(crate) entries: Vec<Entry>,
    /// Indices to be deleted; disjoint from `entries`.
    pub(crate) removed: Vec<u64>,
    pub(crate) hard: Option<HardRecord>,
    pub(crate) base: Option<BaseRecord>,
}

impl Wal {
    /// Opens or makes the database. The scanner must have passed over it before.
    pub(crate) fn open(folder: &Path, lock: &Arc<Lock>) -> Result<Wal, StorageError> {
        let error = |source| StorageError::Wal {
            folder: folder.to_owned(),
            source,
        };
        let db = open_database(folder, CACHE_BYTES).map_err(error)?;
        // The log is read in ranges of keys that are there: a filter would answer nobody, and small blocks
        // only cost their writing.
        let options = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(MEMTABLE_BYTES)
                .data_block_size_policy(BlockSizePolicy::all(BLOCK_BYTES))
                .filter_policy(FilterPolicy::disabled())
        };
        let log = db.keyspace("log", options).map_err(error)?;
        let hard = db.keyspace("hard", options).map_err(error)?;
        Ok(Wal {
            db,
            log,
            hard,
            folder: folder.to_owned(),
            _lock: lock.clone(),
        })
    }

    /// Writes and syncs one batch.
    ///
    /// All records are encoded into one buffer, and keys and values are slices of it: one allocation
    /// per batch, none per entry.
    pub(crate) fn commit(&self, change: WalChange) -> Result<(), StorageError> {
        let bytes: usize = change
            .entries
            .iter()
            .map(|entry| 8 + codec::encoded_len(entry))
            .sum();
        let count = change.entries.len() + change.removed.len() + 2;
        let mut buffer = BytesMut::with_capacity(bytes + 8 * change.removed.len());
        let mut batch = fjall::OwnedWriteBatch::with_capacity(self.db.clone(), count)
            .durability(Some(PersistMode::SyncData));
        for index in change.removed {
            buffer.put_u64(index);
            batch.remove(&self.log, buffer.split().freeze());
        }
        for entry in &change.entries {
            buffer.put_u64(entry.id.index.0);
            let key = buffer.split().freeze();
            codec::encode(entry, &mut buffer);
            batch.insert(&self.log, key, buffer.split().freeze());
        }
        if let Some(hard) = change.hard {
            batch.insert(&self.hard, HARD_KEY, hard.encode());
        }
        if let Some(base) = change.base {
            batch.insert(&self.hard, BASE_KEY, base.encode());
        }
        self.make_room().map_err(|source| self.error(source))?;
        batch.commit().map_err(|source| self.error(source))
    }

    /// `hard` gets a few bytes with every batch and would fill its memtable in days: until then it pins
    /// every journal. It is flushed together with `log` whenever a sealed journal waits for that.
    fn make_room(&self) -> fjall::Result<()> {
        if make_room(&self.db, &self.log, MEMTABLE_BYTES)? && self.db.journal_count() > 1 {
            self.hard.rotate_memtable()?;
        }
        Ok(())
    }

    /// Nothing is written for a while: gives back memory and journals. Does not wait for the flushes.
    pub(crate) fn rest(&self) -> Result<(), StorageError> {
        // In the order in which a sealed journal is let go: both flushed.
        rest(&self.db, &self.hard)
            .and_then(|()| rest(&self.db, &self.log))
            .map_err(|source| self.error(source))
    }

    /// True when an earlier write, sync, flush or compaction failed and fjall takes nothing any more.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.db.persist(PersistMode::Buffer).is_err()
    }

    /// The hard state record: `None` when there is none, `Some(Err(()))` when it is damaged.
    pub(crate) fn hard_record(&self) -> Result<Option<Result<HardRecord, ()>>, StorageError> {
        let value = self.hard.get(HARD_KEY).map_err(|source| self.error(source))?;
        Ok(value.map(|value| HardRecord::decode(&value).ok_or(())))
    }

    /// The base record, as [`Wal::hard_record`].
    pub(crate) fn base_record(&self) -> Result<Option<Result<BaseRecord, ()>>, StorageError> {
        let value = self.hard.get(BASE_KEY).map_err(|source| self.error(source))?;
        Ok(value.map(|value| BaseRecord::decode(&value).ok_or(())))
    }

    /// The entry at `index`.
    pub(crate) fn entry(&self, index: Index) -> Result<Option<Entry>, StorageError> {
        let value = self
            .log
            .get(index.0.to_be_bytes())
            .map_err(|source| self.error(source))?;
        Ok(value
            .and_then(|value| codec::decode(&Bytes::from(value)).ok())
            .map(|(entry, _)| entry))
    }

    /// Every index above `index` that has a key, intact or not.
    pub(crate) fn indices_above(&self, index: Index) -> Result<Vec<u64>, StorageError> {
        let range = (
            std::ops::Bound::Excluded(index.0.to_be_bytes()),
            std::ops::Bound::Unbounded,
        );
        let mut indices = Vec::new();
        for item in self.log.range::<[u8; 8], _>(range) {
            let key = item.key().map_err(|source| self.error(source))?;
            indices.push(key_index(&key));
        }
        Ok(indices)
    }

    /// Walks the chain from `base` on.
    pub(crate) fn walk(&self, base: LogBase, keep_above: Index) -> Chain {
        let mut chain = Chain {
            last: base,
            terms: Vec::new(),
            memberships: Memberships::new(),
            above: Vec::new(),
            broken: None,
        };
        let range = (
            std::ops::Bound::Excluded(base.id.index.0.to_be_bytes()),
            std::ops::Bound::Unbounded,
        );
        for item in self.log.range::<[u8; 8], _>(range) {
            let (key, value) = match item.into_inner() {
                Ok(item) => item,
                Err(error) => {
                    chain.broken = Some(format!("a table cannot be read ({error})"));
                    break;
                }
            };
            if let Err(reason) = chain.push(key_index(&key), &Bytes::from(value), keep_above) {
                chain.broken = Some(reason);
                break;
            }
        }
        chain
    }

    /// Frees the tables that hold nothing but entries before `first`. `first` must be durable in the
    /// base record: dropped tables can come back at a recovery, and only the record hides them then.
    pub(crate) fn drop_before(&self, first: Index) -> Result<(), StorageError> {
        use fjall::AbstractTree;
        let key = first.0.to_be_bytes();
        let version = self.log.tree.current_version();
        let mut tables = version.iter_tables();
        // Dropping nothing would still write and sync a new manifest.
        if !tables.any(|table| table.metadata.key_range.max().as_ref() < key.as_slice()) {
            return Ok(());
        }
        drop(tables);
        drop(version);
        self.log
            .tree
            .drop_range(..key)
            .map_err(|source| self.error(fjall::Error::Storage(source)))
    }

    fn error(&self, source: fjall::Error) -> StorageError {
        StorageError::Wal {
            folder: self.folder.clone(),
            source,
        }
    }
}

/// Settings both databases share.
///
/// `journal_compression(None)`: recovery compresses values again to verify them, so another lz4 output
/// would refuse good journals. One worker: flushes are short, the machines have two cores.
pub(crate) fn open_database(folder: &Path, cache_bytes: u64) -> fjall::Result<Database> {
    crate::manifest::check(folder)?;
    let open = AssertUnwindSafe(|| {
        Database::builder(folder)
            .journal_compression(CompressionType::None)
            .max_journaling_size(JOURNAL_BYTES)
            .cache_size(cache_bytes)
            .max_cached_files(Some(64))
            .worker_threads(1)
            .open()
    });
    // NOTE: fjall expects its own small files to be what it wrote, and panics where they are not. For
    // us a damaged file is an outcome, not a bug.
    std::panic::catch_unwind(open).unwrap_or(Err(fjall::Error::Unrecoverable))
}

/// Before a write: seals the memtable when it is full, and waits while too many sealed ones are not
/// flushed yet. So a keyspace holds at most `SEALED_MAX + 1` memtables and one batch in memory.
///
/// fjall alone does not bound it: it asks its worker to seal a full memtable, and until that one has
/// finished the compaction it is at, the memtable grows with every write (measured, 380,000 entries of
/// 256 B per second: 1.3 GiB).
///
/// True when it has sealed one.
///
/// # Errors
/// The database is poisoned: a worker that failed never flushes, and waiting would have no end.
pub(crate) fn make_room(db: &Database, keyspace: &Keyspace, memtable_bytes: u64) -> fjall::Result<bool> {
    use fjall::AbstractTree;
    let is_full = keyspace.tree.active_memtable().size() > memtable_bytes;
    if is_full {
        keyspace.rotate_memtable()?;
    }
    while keyspace.sealed_memtable_count() > SEALED_MAX {
        db.persist(PersistMode::Buffer)?;
        std::thread::sleep(SEALED_POLL);
    }
    Ok(is_full)
}

/// In a pause: has the memtable flushed when that frees something worth a table file, its memory or a
/// sealed journal of 64 MiB. The flush also lets fjall delete tables that compactions have replaced.
pub(crate) fn rest(db: &Database, keyspace: &Keyspace) -> fjall::Result<()> {
    use fjall::AbstractTree;
    let size = keyspace.tree.active_memtable().size();
    if size >= REST_BYTES_MIN || (size > 0 && db.journal_count() > 1) {
        keyspace.rotate_memtable()?;
    }
    Ok(())
}

fn key_index(key: &[u8]) -> u64 {
    // A key of another length is none of ours; 0 breaks the chain wherever it stands.
    key.try_into().map_or(0, u64::from_be_bytes)
}

/// What a walk along the chain found.
pub(crate) struct Chain {
    /// The last entry that is linked to the base.
    pub(crate) last: LogBase,
    /// First index of each run of entries of one term.
    pub(crate) terms: Vec<(Index, Term)>,
    /// Memberships among the entries.
    pub(crate) memberships: Memberships,
    /// The entries above the index asked for.
    pub(crate) above: Vec<Entry>,
    /// Why the walk ended before the last key.
    pub(crate) broken: Option<String>,
}

impl Chain {
    fn push(&mut self, key: u64, value: &Bytes, keep_above: Index) -> Result<(), String> {
        let expected = self.last.id.index.next();
        if key != expected.0 {
            return Err(format!("entry {expected} is missing"));
        }
        let (entry, length) = codec::decode(value).map_err(|error| format!("entry {key}: {error}"))?;
        if entry.id.index != expected || length != value.len() {
            return Err(format!("entry {key} holds another entry's bytes"));
        }
        if entry.previous != self.last.checksum || entry.id.term < self.last.id.term {
            return Err(format!("entry {key} is not linked to the one before it"));
        }
        if entry.kind == EntryKind::Configuration {
            let configuration = Configuration::decode(&entry.payload);
            let configuration = configuration
                .map_err(|error| format!("entry {key} holds an unreadable membership: {error}"))?;
            self.memberships.push((entry.id.index, configuration));
        }
        if self.terms.last().is_none_or(|(_, term)| *term != entry.id.term) {
            self.terms.push((entry.id.index, entry.id.term));
        }
        self.last = LogBase {
            id: entry.id,
            checksum: entry.checksum,
        };
        if entry.id.index > keep_above {
            self.above.push(entry);
        }
        Ok(())
    }
}

/// Reads entries for peers that are behind, from any thread.
///
/// What it returns may be overwritten at the same moment; entries carry their terms, and the core
/// checks them again.
#[derive(Clone)]
pub struct LogReader {
    wal: Wal,
    /// First index that may be read, kept by the log writer. Below it keys may still exist (they are
    /// freed by whole tables, and can come back at a recovery) and mean nothing.
    first: Arc<AtomicU64>,
}

impl LogReader {
    pub(crate) fn new(wal: Wal, first: Arc<AtomicU64>) -> LogReader {
        LogReader { wal, first }
    }

    /// First index that is not compacted away.
    pub fn first(&self) -> Index {
        Index(self.first.load(Ordering::Acquire))
    }

    /// Entries from the start of the (half-open) range on: contiguous, intact and linked; at least one,
    /// then as many as fit into `bytes_max` by [`Entry::size_bytes`].
    ///
    /// # Errors
    /// [`ReadError::Gone`] when the first one is compacted away or not durable yet, otherwise damage or
    /// a failed disk.
    pub fn entries(&self, range: Range<Index>, bytes_max: usize) -> Result<Vec<Entry>, ReadError> {
        let gone = || ReadError::Gone {
            asked: range.start,
            first: self.first(),
        };
        if range.start < self.first() {
            return Err(gone());
        }
        // One point in time: a batch that is being committed is seen in full or not at all.
        let view = self.wal.db.snapshot();
        let keys = range.start.0.to_be_bytes()..range.end.0.to_be_bytes();
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        for item in view.range(&self.wal.log, keys) {
            let (key, value) = item.into_inner().map_err(|source| self.wal.error(source))?;
            let index = Index(key_index(&key));
            let expected = Index(range.start.0 + entries.len() as u64);
            if index != expected {
                break;
            }
            let (entry, _) =
                codec::decode(&Bytes::from(value)).map_err(|source| ReadError::Damaged { index, source })?;
            let linked = entries
                .last()
                .is_none_or(|before| before.checksum == entry.previous);
            if entry.id.index != index || !linked {
                let source = codec::CodecError::Chain {
                    found: entry.id.index,
                    before: index.prev(),
                };
                return Err(ReadError::Damaged { index, source });
            }
            bytes += entry.size_bytes();
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry);
        }
        // Compacted while it was read: what was found may be a leftover.
        if entries.is_empty() || range.start < self.first() {
            return Err(gone());
        }
        Ok(entries)
    }
}

/// The base that an entry makes for what follows it.
pub(crate) fn base_of(entry: &Entry) -> LogBase {
    LogBase {
        id: entry.id,
        checksum: entry.checksum,
    }
}

/// Shorthand for a base.
pub(crate) fn log_base(index: u64, term: u64, checksum: u32) -> LogBase {
    LogBase {
        id: EntryId {
            term: Term(term),
            index: Index(index),
        },
        checksum: Checksum(checksum),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dir::Paths;
    use fjall::AbstractTree;

    /// The worker is held up in its first flush while 64 MiB are written: the writer must come to a
    /// halt, and go on once the flush does.
    #[test]
    fn memtables_are_bounded_while_flushes_stand_still() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::take(&Paths {
            root: dir.path().to_owned(),
        });
        let wal = Wal::open(&dir.path().join("wal"), &Arc::new(lock.unwrap())).unwrap();
        let flushes = wal.log.tree.get_flush_lock();
        let writing = std::thread::spawn({
            let wal = wal.clone();
            move || write_and_watch(&wal, 64)
        });
        while !writing.is_finished() && wal.log.sealed_memtable_count() <= SEALED_MAX {
            std::thread::yield_now();
        }
        drop(flushes);
        let (active_max, sealed_max) = writing.join().unwrap();
        let batch = 1 << 20;
        assert!(
            active_max <= MEMTABLE_BYTES + 2 * batch,
            "{active_max} bytes in one"
        );
        assert!(sealed_max <= SEALED_MAX + 1, "{sealed_max} memtables");
    }

    /// `hard` gets a record with every batch, which pins each journal until its memtable is flushed, too.
    #[test]
    fn a_pause_frees_memtables_and_sealed_journals() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::take(&Paths {
            root: dir.path().to_owned(),
        });
        let wal = Wal::open(&dir.path().join("wal"), &Arc::new(lock.unwrap())).unwrap();
        // A journal is sealed by the first flush after 64 MB.
        let _seen = write_and_watch(&wal, 80);
        let held = || wal.db.journal_count() > 1 || wal.log.tree.active_memtable().size() > 0;
        while held() || wal.log.sealed_memtable_count() > 0 {
            assert!(!wal.is_poisoned());
            wal.rest().unwrap();
            std::thread::yield_now();
        }
        assert!(wal.entry(Index(1)).unwrap().is_some());
        assert!(wal.entry(Index(80)).unwrap().is_some());
        assert!(wal.hard_record().unwrap().is_some());
    }

    /// Writes batches of one entry of 1 MiB; gives the largest memtable and the most sealed ones seen.
    fn write_and_watch(wal: &Wal, batches: u64) -> (u64, usize) {
        let mut seen = (0, 0);
        let mut previous = Checksum(0);
        for index in 1..=batches {
            let id = EntryId {
                term: Term(1),
                index: Index(index),
            };
            let entry = Entry::seal(id, EntryKind::Command, vec![7; 1 << 20].into(), previous);
            previous = entry.checksum;
            let change = WalChange {
                entries: vec![entry],
                hard: Some(HardRecord::default()),
                ..WalChange::default()
            };
            wal.commit(change).unwrap();
            seen.0 = seen.0.max(wal.log.tree.active_memtable().size());
            seen.1 = seen.1.max(wal.log.sealed_memtable_count());
        }
        seen
    }
}
