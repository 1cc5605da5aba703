//! The state tables: what the state machine holds, in a fjall database of its own (`state/`).
//!
//! One keyspace; a key is the table's number (one byte) and the row's key. A batch carries the point in
//! the log it brings the tables to, so that rows and point can never part. Rows are gathered in memory
//! and stored many at once (`store.rs`): the log is the durable copy, and what a crash takes here is
//! applied again. Before the log is cut, [`Tables::sync`] makes the rows durable.

use std::path::Path;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use fjall::compaction::Leveled;
use fjall::config::BlockSizePolicy;
use fjall::{KeyspaceCreateOptions, Readable};
use raft::LogBase;

use crate::codec::Fields;
use crate::dir::Lock;
use crate::error::StorageError;
use crate::fault::Faults;
use crate::gather::Change;
use crate::hard_state::{put_base, seal, take_base, unseal};
use crate::log::open_database;
use crate::store::{Layered, Store, Stored};

/// A memtable is flushed beyond this many bytes. Only installs of snapshots fill one.
pub(crate) const MEMTABLE_BYTES: u64 = 8 << 20;

/// Stored runs that are gathered before they are merged into what is there. Rows of all configs change
/// in any order, so each merge rewrites everything. More of them cost reads of history and details a look
/// into each.
pub(crate) const RUNS_MAX: u8 = 12;

/// Bytes of a block in a table. Rows are mostly written, seldom read one by one, and scanned at a start.
const BLOCK_BYTES: u32 = 16 << 10;

/// Blocks of tables kept in memory. Hot rows are kept by the state machine itself, ready-made.
const CACHE_BYTES: u64 = 4 << 20;

/// Longest row key. fjall's own limit is 65,535 with the table's byte.
pub const KEY_BYTES_MAX: usize = 60_000;

/// A table: the first byte of its rows' keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Table(pub u8);

/// This crate's own rows: the applied point and the marker of an unfinished install. Not for users, and
/// not in snapshots.
const OWN: Table = Table(0);
pub(crate) const APPLIED_KEY: [u8; 2] = [0, b'a'];
pub(crate) const INSTALLING_KEY: [u8; 2] = [0, b'i'];

/// The state tables. Cheap to clone; all clones are the same tables. The last one that goes leaves what
/// is not stored yet to the log: sync before a planned end.
#[derive(Clone)]
pub struct Tables(Arc<Stored>);

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
        let store = Store::new(
            (db, data),
            folder.to_owned(),
            applied,
            faults.clone(),
            lock.clone(),
        );
        Ok(Some(Tables(Arc::new(Stored::start(store)?))))
    }

    pub(crate) fn store(&self) -> &Store {
        &self.0.store
    }

    /// The point in the log that the rows stand at.
    pub fn applied(&self) -> LogBase {
        self.store().applied()
    }

    /// The point up to which the rows are durable, as far as this run has proved it. It moves with each
    /// [`Tables::sync`], and by itself when enough rows have gathered.
    pub fn durable(&self) -> LogBase {
        self.store().durable()
    }

    /// The value of a row.
    ///
    /// # Errors
    /// A failed read.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        let key = row_key(table, key);
        if let Some(gathered) = self.store().gathered(&key) {
            return Ok(gathered);
        }
        let value = self.store().data.get(key);
        Ok(value
            .map_err(|source| self.store().error(source))?
            .map(Bytes::from))
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
    /// as needed: it keeps overwritten rows in memory and on the disk.
    pub fn view(&self) -> TablesView {
        let (gathered, stored) = self.store().layered(|| self.store().db.snapshot());
        TablesView {
            tables: self.clone(),
            gathered,
            stored,
        }
    }

    /// Makes all rows up to the applied point durable and returns that point.
    ///
    /// # Errors
    /// A failed write or sync; it is final.
    pub fn sync(&self) -> Result<LogBase, StorageError> {
        self.store().sync()
    }

    /// Nothing is written for a while: gives back memory and journals. Waits for nothing.
    pub(crate) fn rest(&self) -> Result<(), StorageError> {
        self.store().rest()
    }

    /// An error when rows could not be stored.
    pub(crate) fn check(&self) -> Result<(), StorageError> {
        self.store().check()
    }
}

/// Changes of one applied range. A later operation on the same row wins.
pub struct TablesBatch {
    tables: Tables,
    rows: Vec<Change>,
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

    /// Shows the rows and the point they bring the tables to, all or nothing. They are durable some time
    /// later, in the same way. Waits when more is gathered than can be stored.
    ///
    /// # Errors
    /// What was gathered earlier could not be stored; it is final: the process should stop and start again.
    ///
    /// # Panics
    /// When `applied` does not lie above the present point: ranges are applied once and in order.
    pub fn commit(self, applied: LogBase) -> Result<(), StorageError> {
        self.tables.store().commit(self.rows, applied)
    }

    #[cfg(feature = "fault")]
    pub(crate) fn into_parts(self) -> (Tables, Vec<Change>) {
        (self.tables, self.rows)
    }
}

/// The tables at one point in time.
pub struct TablesView {
    tables: Tables,
    gathered: Layered,
    stored: fjall::Snapshot,
}

impl TablesView {
    /// The point in the log that this view stands at.
    pub fn applied(&self) -> LogBase {
        self.gathered.applied
    }

    /// As [`Tables::get`].
    ///
    /// # Errors
    /// A failed read.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        let key = row_key(table, key);
        if let Some(gathered) = self.gathered.get(&key) {
            return Ok(gathered);
        }
        let store = self.tables.store();
        let value = self.stored.get(&store.data, key);
        Ok(value.map_err(|source| store.error(source))?.map(Bytes::from))
    }

    /// As [`Tables::scan`].
    pub fn scan(&self, table: Table, prefix: &[u8]) -> Rows {
        let prefix = row_key(table, prefix);
        let gathered = self.gathered.with_prefix(&prefix);
        let stored = self.stored.prefix(&self.tables.store().data, prefix);
        self.rows(gathered, stored, 1)
    }

    /// Every row of every user table, keys whole.
    pub(crate) fn rows_from_first_table(&self) -> Rows {
        let stored = self.stored.range(&self.tables.store().data, [OWN.0 + 1]..);
        // No batch holds a row of table 0.
        self.rows(self.gathered.with_prefix(&[]), stored, 0)
    }

    fn rows(&self, gathered: Vec<Change>, stored: fjall::Iter, strip: usize) -> Rows {
        Rows {
            gathered: gathered.into_iter().peekable(),
            stored,
            next_stored: None,
            tables: self.tables.clone(),
            strip,
        }
    }
}

/// Rows in ascending order of their keys.
pub struct Rows {
    gathered: std::iter::Peekable<std::vec::IntoIter<Change>>,
    stored: fjall::Iter,
    /// Taken from `stored`, and not given yet.
    next_stored: Option<(Bytes, Bytes)>,
    tables: Tables,
    strip: usize,
}

impl Rows {
    /// The next stored row, unless one waits already.
    fn look(&mut self) -> Result<(), StorageError> {
        if self.next_stored.is_none()
            && let Some(item) = self.stored.next()
        {
            let (key, value) = item
                .into_inner()
                .map_err(|source| self.tables.store().error(source))?;
            self.next_stored = Some((Bytes::from(key), Bytes::from(value)));
        }
        Ok(())
    }

    fn next_row(&mut self) -> Result<Option<(Bytes, Bytes)>, StorageError> {
        loop {
            self.look()?;
            let Some((changed, _)) = self.gathered.peek() else {
                return Ok(self.next_stored.take());
            };
            if let Some(row) = self.next_stored.take_if(|(key, _)| *key < *changed) {
                return Ok(Some(row));
            }
            self.next_stored.take_if(|(key, _)| *key == *changed);
            if let Some((key, Some(value))) = self.gathered.next() {
                return Ok(Some((key, value)));
            }
        }
    }
}

impl Iterator for Rows {
    type Item = Result<(Bytes, Bytes), StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        let strip = self.strip;
        let row = self.next_row().transpose()?;
        Some(row.map(|(key, value)| (key.slice(strip.min(key.len())..), value)))
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
pub(crate) fn encode_applied(applied: LogBase) -> Bytes {
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
