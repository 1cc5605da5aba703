//! The state tables: what the state machine holds, in a fjall database of its own (`state/`).
//!
//! One keyspace; a key is the table's number (one byte) and the row's key. A batch carries the point in
//! the log it brings the tables to, so that rows and point can never part. Batches are not synced: the
//! log is the durable copy, and what a power cut takes here is applied again. Before the log is cut,
//! [`Tables::sync`] makes the rows durable.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{BufMut, Bytes, BytesMut};
use fjall::compaction::Leveled;
use fjall::config::BlockSizePolicy;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};
use raft::LogBase;

use crate::codec::Fields;
use crate::dir::Lock;
use crate::error::StorageError;
use crate::fault::{Faults, Point};
use crate::hard_state::{put_base, seal, take_base, unseal};
use crate::log::{make_room, open_database, rest};
use crate::snapshot::SnapshotFile;

/// A memtable is flushed beyond this many bytes.
const MEMTABLE_BYTES: u64 = 8 << 20;

/// Flushed memtables that are gathered before they are merged into what is there. Rows of all configs change
/// in any order, so each merge rewrites everything: with fjall's 4 of 8 MiB each it did so after every 13,000
/// publishes of 1 KiB. More of them cost reads of history and details a look into each; fjall slows writers
/// down from 20 on.
const RUNS_MAX: u8 = 12;

/// Bytes of a block in a table. Rows are mostly written, seldom read one by one, and scanned at a start.
const BLOCK_BYTES: u32 = 16 << 10;

/// Blocks of tables kept in memory. Hot rows are kept by the state machine itself, ready-made.
const CACHE_BYTES: u64 = 4 << 20;

/// Rows of one batch while a snapshot is installed, in bytes.
const INSTALL_BATCH_BYTES: usize = 4 << 20;

/// Longest row key. fjall's own limit is 65,535 with the table's byte.
pub const KEY_BYTES_MAX: usize = 60_000;

/// A table: the first byte of its rows' keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Table(pub u8);

/// This crate's own rows: the applied point and the marker of an unfinished install. Not for users, and
/// not in snapshots.
const OWN: Table = Table(0);
const APPLIED_KEY: [u8; 2] = [0, b'a'];
const INSTALLING_KEY: [u8; 2] = [0, b'i'];

/// The state tables. Cheap to clone; all clones are the same tables.
#[derive(Clone)]
pub struct Tables(Arc<Inner>);

struct Inner {
    db: Database,
    data: Keyspace,
    folder: PathBuf,
    /// The applied point, as the newest committed batch says. The lock is held over a commit, so that
    /// a view can be opened together with its point.
    applied: Mutex<LogBase>,
    /// Up to which point the rows are durable; (0, 0) until the first sync of this start, because what
    /// the page cache shows after a restart is no proof.
    durable: Mutex<LogBase>,
    /// What was recovered from the journal is also in a table file (synced by its flush).
    flushed: AtomicBool,
    faults: Faults,
    /// The folder stays locked as long as anyone can write to it.
    _lock: Arc<Lock>,
}

impl Tables {
    /// Opens or makes the tables. The scanner must have passed over the folder before.
    ///
    /// `Ok(None)` when the record of the applied point is damaged.
    pub(crate) fn open(
        folder: &Path,
        faults: &Faults,
        lock: &Arc<Lock>,
    ) -> Result<Option<Tables>, StorageError> {
        let error = |source| StorageError::State {
            folder: folder.to_owned(),
            source,
        };
        let db = open_database(folder, CACHE_BYTES).map_err(error)?;
        let options = || {
            let leveled = Leveled::default().with_l0_threshold(RUNS_MAX);
            KeyspaceCreateOptions::default()
                .max_memtable_size(MEMTABLE_BYTES)
                .data_block_size_policy(BlockSizePolicy::all(BLOCK_BYTES))
                .compaction_strategy(Arc::new(leveled))
        };
        let data = db.keyspace("data", options).map_err(error)?;
        let applied = match data.get(APPLIED_KEY).map_err(error)? {
            Some(value) => match decode_applied(&value) {
                Some(applied) => applied,
                None => return Ok(None),
            },
            None if data.is_empty().map_err(error)? => LogBase::default(),
            None if data.get(INSTALLING_KEY).map_err(error)?.is_some() => LogBase::default(),
            None => return Ok(None),
        };
        Ok(Some(Tables(Arc::new(Inner {
            db,
            data,
            folder: folder.to_owned(),
            applied: Mutex::new(applied),
            durable: Mutex::new(LogBase::default()),
            flushed: AtomicBool::new(false),
            faults: faults.clone(),
            _lock: lock.clone(),
        }))))
    }

    /// The point in the log that the rows stand at.
    pub fn applied(&self) -> LogBase {
        *self.0.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The point up to which [`Tables::sync`] has made the rows durable in this run.
    pub fn durable(&self) -> LogBase {
        *self.0.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value of a row.
    ///
    /// # Errors
    /// A failed read.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        let value = self
            .0
            .data
            .get(row_key(table, key))
            .map_err(|source| self.error(source))?;
        Ok(value.map(Bytes::from))
    }

    /// Rows of `table` whose key starts with `prefix`, ascending, as they are at this moment. Keys come
    /// without the table's byte.
    pub fn scan(&self, table: Table, prefix: &[u8]) -> Rows {
        self.view().scan(table, prefix)
    }

    /// A batch of changes; nothing happens before its commit.
    pub fn batch(&self) -> TablesBatch {
        TablesBatch {
            tables: self.clone(),
            rows: Vec::new(),
            bytes: 0,
        }
    }

    /// The rows and their applied point at this moment, unmoved by later batches. Hold it only as long
    /// as needed: it keeps overwritten rows on the disk.
    pub fn view(&self) -> TablesView {
        let applied = self.0.applied.lock().unwrap_or_else(PoisonError::into_inner);
        let view = self.0.db.snapshot();
        TablesView {
            tables: self.clone(),
            view,
            applied: *applied,
        }
    }

    /// Makes all rows up to the applied point durable and returns that point.
    ///
    /// The first sync after an open also writes what was recovered from the journal into a table file:
    /// if the run before ended by a failed sync, the kernel counts the journal's pages as clean and a
    /// sync of them would prove nothing (hazard R52).
    ///
    /// # Errors
    /// A failed write or sync; it is final.
    pub fn sync(&self) -> Result<LogBase, StorageError> {
        let file = |source| StorageError::file("cannot sync", &self.0.folder, source);
        let applied = self.applied();
        self.0.faults.at(Point::StateSync).map_err(file)?;
        if !self.0.flushed.load(Ordering::Acquire) {
            self.flush()?;
            self.0.flushed.store(true, Ordering::Release);
        }
        self.0
            .db
            .persist(PersistMode::SyncAll)
            .map_err(|source| self.error(source))?;
        *self.0.durable.lock().unwrap_or_else(PoisonError::into_inner) = applied;
        Ok(applied)
    }

    /// Writes the memtable into a table file and waits for it.
    fn flush(&self) -> Result<(), StorageError> {
        self.0
            .data
            .rotate_memtable()
            .map_err(|source| self.error(source))?;
        while self.0.data.sealed_memtable_count() > 0 {
            // A worker that failed has poisoned the database and will never flush: say so.
            self.0
                .db
                .persist(PersistMode::Buffer)
                .map_err(|source| self.error(source))?;
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        Ok(())
    }

    /// Replaces all rows by those of a snapshot.
    ///
    /// A marker goes first, synced; the rows follow in batches; the applied point and the marker's
    /// removal are one last batch, synced. After a crash in between, the next open finds the marker and
    /// does it again from the file. Readers see a mixture meanwhile: nothing may be applied or served
    /// from the tables until this returns.
    ///
    /// # Errors
    /// A damaged snapshot (the tables are then only good for another install) or a failed disk.
    pub fn install(&self, file: &SnapshotFile) -> Result<LogBase, StorageError> {
        let meta = file.meta();
        let point = LogBase {
            id: meta.last,
            checksum: meta.checksum,
        };
        if self.applied() == point && self.installing()?.is_none() {
            return Ok(point);
        }
        file.verify()?;
        let mut marker = Vec::new();
        put_base(&mut marker, point);
        self.commit_rows(vec![(Bytes::from_static(&INSTALLING_KEY), Some(seal(marker)))])?;
        self.sync()?;
        self.fault(Point::InstallBegun)?;
        self.replace_rows(file)?;
        let mut applied = self.0.applied.lock().unwrap_or_else(PoisonError::into_inner);
        self.commit_rows(vec![
            (Bytes::from_static(&INSTALLING_KEY), None),
            (Bytes::from_static(&APPLIED_KEY), Some(encode_applied(point))),
        ])?;
        *applied = point;
        drop(applied);
        self.sync()?;
        self.fault(Point::InstallDone)?;
        Ok(point)
    }

    /// The point of a snapshot whose install did not finish.
    pub(crate) fn installing(&self) -> Result<Option<LogBase>, StorageError> {
        let value = self
            .0
            .data
            .get(INSTALLING_KEY)
            .map_err(|source| self.error(source))?;
        let Some(value) = value else { return Ok(None) };
        let body = unseal(&value).ok_or(StorageError::StateRecord { what: "install" })?;
        Ok(Some(take_base(&mut Fields(body))))
    }

    /// Walks the rows there are and the rows of the file side by side (both ascend): what is only here
    /// goes, what differs is written, what is equal stays untouched.
    fn replace_rows(&self, file: &SnapshotFile) -> Result<(), StorageError> {
        let mut here = self.view().rows_from_first_table();
        let mut old = here.next().transpose()?;
        let mut changes = Changes {
            tables: self,
            rows: Vec::new(),
            bytes: 0,
        };
        for row in file.rows()? {
            let (key, value) = row?;
            while let Some((old_key, _)) = old.as_ref().filter(|(old_key, _)| *old_key < key) {
                changes.push(old_key.clone(), None)?;
                old = here.next().transpose()?;
            }
            match old.as_ref().filter(|(old_key, _)| *old_key == key) {
                Some((_, old_value)) => {
                    if *old_value != value {
                        changes.push(key, Some(value))?;
                    }
                    old = here.next().transpose()?;
                }
                None => changes.push(key, Some(value))?,
            }
        }
        while let Some((old_key, _)) = old {
            changes.push(old_key, None)?;
            old = here.next().transpose()?;
        }
        changes.flush()
    }

    /// One buffered batch of whole keys.
    fn commit_rows(&self, rows: Vec<(Bytes, Option<Bytes>)>) -> Result<(), StorageError> {
        self.fault(Point::StateCommit)?;
        let mut batch = fjall::OwnedWriteBatch::with_capacity(self.0.db.clone(), rows.len())
            .durability(Some(PersistMode::Buffer));
        for (key, value) in rows {
            match value {
                Some(value) => batch.insert(&self.0.data, key, value),
                None => batch.remove(&self.0.data, key),
            }
        }
        batch.commit().map_err(|source| self.error(source))
    }

    /// Before a batch, without the lock of the applied point: readers must not wait with the writer.
    fn make_room(&self) -> Result<(), StorageError> {
        make_room(&self.0.db, &self.0.data, MEMTABLE_BYTES)
            .map(drop)
            .map_err(|source| self.error(source))
    }

    /// Nothing is written for a while: gives back memory and journals. Does not wait for the flush.
    pub(crate) fn rest(&self) -> Result<(), StorageError> {
        rest(&self.0.db, &self.0.data).map_err(|source| self.error(source))
    }

    fn fault(&self, point: Point) -> Result<(), StorageError> {
        self.0
            .faults
            .at(point)
            .map_err(|source| StorageError::file("cannot write", &self.0.folder, source))
    }

    fn error(&self, source: fjall::Error) -> StorageError {
        StorageError::State {
            folder: self.0.folder.clone(),
            source,
        }
    }
}

/// Rows collected into batches of a bounded size.
struct Changes<'a> {
    tables: &'a Tables,
    rows: Vec<(Bytes, Option<Bytes>)>,
    bytes: usize,
}

impl Changes<'_> {
    fn push(&mut self, key: Bytes, value: Option<Bytes>) -> Result<(), StorageError> {
        self.bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
        self.rows.push((key, value));
        if self.bytes >= INSTALL_BATCH_BYTES {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        self.bytes = 0;
        let rows = std::mem::take(&mut self.rows);
        if rows.is_empty() {
            return Ok(());
        }
        self.tables.make_room()?;
        self.tables.commit_rows(rows)?;
        self.tables.fault(Point::InstallPart)
    }
}

/// Changes of one applied range. A later operation on the same row wins.
pub struct TablesBatch {
    tables: Tables,
    rows: Vec<(Bytes, Option<Bytes>)>,
    /// Bytes of keys and values so far.
    bytes: usize,
}

impl TablesBatch {
    /// Sets a row.
    pub fn put(&mut self, table: Table, key: &[u8], value: impl Into<Bytes>) {
        let value = value.into();
        self.bytes += key.len() + value.len();
        self.rows.push((user_key(table, key), Some(value)));
    }

    /// Removes a row; one that is not there stays away.
    pub fn delete(&mut self, table: Table, key: &[u8]) {
        self.bytes += key.len();
        self.rows.push((user_key(table, key), None));
    }

    /// Bytes of keys and values so far.
    pub fn size_bytes(&self) -> usize {
        self.bytes
    }

    /// Writes the rows and the point they bring the tables to, all or nothing. Not synced.
    ///
    /// # Errors
    /// A failed write; it is final: the process should stop and start again.
    ///
    /// # Panics
    /// When `applied` does not lie above the present point: ranges are applied once and in order.
    pub fn commit(self, applied: LogBase) -> Result<(), StorageError> {
        let mut rows = self.rows;
        self.tables.make_room()?;
        let mut point = self
            .tables
            .0
            .applied
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        assert!(
            applied.id.index > point.id.index,
            "applied {} twice: the tables stand at {}",
            applied.id.index,
            point.id.index
        );
        assert!(applied.id.term >= point.id.term, "terms go back");
        // NOTE: one sequence number per batch: of two operations on one key fjall would keep either.
        dedup_last(&mut rows);
        rows.push((Bytes::from_static(&APPLIED_KEY), Some(encode_applied(applied))));
        self.tables.commit_rows(rows)?;
        *point = applied;
        Ok(())
    }
}

/// Keeps the last operation per key.
fn dedup_last(rows: &mut Vec<(Bytes, Option<Bytes>)>) {
    // Stable, so the last operation of a key comes last among its equals.
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    rows.reverse();
    rows.dedup_by(|later, kept| later.0 == kept.0);
    rows.reverse();
}

/// The tables at one point in time.
pub struct TablesView {
    tables: Tables,
    view: fjall::Snapshot,
    applied: LogBase,
}

impl TablesView {
    /// The point in the log that this view stands at.
    pub fn applied(&self) -> LogBase {
        self.applied
    }

    /// As [`Tables::get`].
    ///
    /// # Errors
    /// A failed read.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        let value = self.view.get(&self.tables.0.data, row_key(table, key));
        Ok(value
            .map_err(|source| self.tables.error(source))?
            .map(Bytes::from))
    }

    /// As [`Tables::scan`].
    pub fn scan(&self, table: Table, prefix: &[u8]) -> Rows {
        let iter = self.view.prefix(&self.tables.0.data, row_key(table, prefix));
        Rows {
            iter,
            tables: self.tables.clone(),
            strip: 1,
        }
    }

    /// Every row of every user table, keys whole.
    pub(crate) fn rows_from_first_table(&self) -> Rows {
        let iter = self.view.range(&self.tables.0.data, [OWN.0 + 1]..);
        Rows {
            iter,
            tables: self.tables.clone(),
            strip: 0,
        }
    }
}

/// Rows in ascending order of their keys.
pub struct Rows {
    iter: fjall::Iter,
    tables: Tables,
    strip: usize,
}

impl Iterator for Rows {
    type Item = Result<(Bytes, Bytes), StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.iter.next()?;
        Some(match item.into_inner() {
            Ok((key, value)) => {
                let key = Bytes::from(key);
                Ok((key.slice(self.strip.min(key.len())..), Bytes::from(value)))
            }
            Err(source) => Err(self.tables.error(source)),
        })
    }
}

/// The biggest row key a snapshot may hold.
pub(crate) const WHOLE_KEY_BYTES_MAX: usize = KEY_BYTES_MAX + 1;

fn user_key(table: Table, key: &[u8]) -> Bytes {
    assert!(table != OWN, "table 0 belongs to the storage");
    assert!(key.len() <= KEY_BYTES_MAX, "a row key of {} bytes", key.len());
    row_key(table, key)
}

fn row_key(table: Table, key: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(1 + key.len());
    bytes.put_u8(table.0);
    bytes.put_slice(key);
    bytes.freeze()
}

/// Version, index, term, checksum, crc32.
fn encode_applied(applied: LogBase) -> Bytes {
    let mut out = vec![1];
    put_base(&mut out, applied);
    seal(out)
}

fn decode_applied(bytes: &[u8]) -> Option<LogBase> {
    let mut fields = Fields(unseal(bytes)?);
    (fields.0.len() == 21 && fields.u8() == 1).then(|| take_base(&mut fields))
}

/// A user's whole key as it stands in a snapshot: not one of this crate's own rows.
pub(crate) fn is_user_key(key: &[u8]) -> bool {
    key.first().is_some_and(|table| *table != OWN.0) && key.len() <= WHOLE_KEY_BYTES_MAX
}
