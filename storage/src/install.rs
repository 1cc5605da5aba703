//! Putting a snapshot in the place of the state's rows.

use bytes::Bytes;
use fjall::PersistMode;
use raft::LogBase;

use crate::codec::Fields;
use crate::error::StorageError;
use crate::fault::Point;
use crate::gather::Change;
use crate::hard_state::{put_base, seal, take_base, unseal};
use crate::log::make_room;
use crate::snapshot::SnapshotFile;
use crate::table::{APPLIED_KEY, INSTALLING_KEY, MEMTABLE_BYTES, Tables, encode_applied};

/// Rows of one batch, in bytes.
const BATCH_BYTES: usize = 4 << 20;

impl Tables {
    /// Replaces all rows by those of a snapshot.
    ///
    /// What is gathered is stored first. Then a marker goes in, synced; the rows follow in batches through
    /// fjall's journal; the applied point and the marker's removal are one last batch, synced. After a crash
    /// in between, the next open finds the marker and does it again from the file. Readers see a mixture
    /// meanwhile: nothing may be applied or served from the tables until this returns.
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
        self.sync()?;
        let store = self.store();
        let mut marker = Vec::new();
        put_base(&mut marker, point);
        self.write_rows(vec![(Bytes::from_static(&INSTALLING_KEY), Some(seal(marker)))])?;
        self.sync_rows()?;
        store.fault(Point::InstallBegun)?;
        self.replace_rows(file)?;
        self.write_rows(vec![
            (Bytes::from_static(&INSTALLING_KEY), None),
            (Bytes::from_static(&APPLIED_KEY), Some(encode_applied(point))),
        ])?;
        self.sync_rows()?;
        store.installed(point);
        store.fault(Point::InstallDone)?;
        Ok(point)
    }

    /// The point of a snapshot whose install did not finish.
    pub(crate) fn installing(&self) -> Result<Option<LogBase>, StorageError> {
        let value = self.store().data.get(INSTALLING_KEY);
        let Some(value) = value.map_err(|source| self.store().error(source))? else {
            return Ok(None);
        };
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
    fn write_rows(&self, rows: Vec<Change>) -> Result<(), StorageError> {
        let store = self.store();
        store.fault(Point::InstallWrite)?;
        let mut batch = fjall::OwnedWriteBatch::with_capacity(store.db.clone(), rows.len())
            .durability(Some(PersistMode::Buffer));
        for (key, value) in rows {
            match value {
                Some(value) => batch.insert(&store.data, key, value),
                None => batch.remove(&store.data, key),
            }
        }
        batch.commit().map_err(|source| store.error(source))
    }

    fn sync_rows(&self) -> Result<(), StorageError> {
        self.store().fault(Point::StateSync)?;
        self.store().sync_journal()
    }
}

/// Rows collected into batches of a bounded size.
struct Changes<'a> {
    tables: &'a Tables,
    rows: Vec<Change>,
    bytes: usize,
}

impl Changes<'_> {
    fn push(&mut self, key: Bytes, value: Option<Bytes>) -> Result<(), StorageError> {
        self.bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
        self.rows.push((key, value));
        if self.bytes >= BATCH_BYTES {
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
        let store = self.tables.store();
        make_room(&store.db, &store.data, MEMTABLE_BYTES).map_err(|source| store.error(source))?;
        self.tables.write_rows(rows)?;
        store.fault(Point::InstallPart)
    }
}

#[cfg(feature = "fault")]
impl crate::TablesBatch {
    /// For tests of folders that earlier versions have left: writes the rows at once through fjall's journal,
    /// unsynced, as those did.
    ///
    /// # Errors
    /// A failed write.
    pub fn commit_journaled(self, point: LogBase) -> Result<(), StorageError> {
        let (tables, mut rows) = self.into_parts();
        tables.sync()?;
        // One sequence number per batch: of two operations on one key fjall would keep either.
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        rows.reverse();
        rows.dedup_by(|later, kept| later.0 == kept.0);
        rows.push((Bytes::from_static(&APPLIED_KEY), Some(encode_applied(point))));
        tables.write_rows(rows)?;
        tables.store().installed(point);
        Ok(())
    }
}
