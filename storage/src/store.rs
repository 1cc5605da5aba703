//! How applied rows reach fjall.
//!
//! ```text
//!  commit ──▶ gathering ──(full, a sync, a pause)──▶ storing ──▶ one sorted run of table files in fjall
//!             (memory)                               (memory)     rows and their applied point, synced
//! ```
//!
//! The log is the durable copy of what was applied, so a row need not be written before it is read: it is
//! gathered in memory with 8 MiB of others, and one thread hands them to fjall as a sorted run
//! (`Keyspace::start_ingestion`), past its journal and memtable. The run carries the applied point it
//! brings the tables to, and becomes visible and durable in one act, the switch of fjall's manifest. What
//! was not stored when the process ends is applied again from the log, which is cut behind the stored
//! point only ([`crate::Tables::sync`], [`crate::Tables::durable`]).
//!
//! What must hold, and what else would go wrong:
//! 1. *Whoever looks takes the gathers first and fjall's snapshot afterwards*, and a gather goes only once
//!    its run is visible: else a row on its way would be seen in neither.
//! 2. *Nothing older may lie in fjall's memtable when a run is finished*: fjall looks there first, and would
//!    find the older row. Only an install, and what a crash has left in the journal, get there; both are
//!    flushed before the next run ([`Store::flush`]).
//! 3. *One thread makes runs, oldest gather first.* There are two gathers at most; who commits waits when
//!    the second is full before the first is stored.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use fjall::{AbstractTree, Database, Keyspace, PersistMode};
use raft::LogBase;

use crate::dir::Lock;
use crate::error::StorageError;
use crate::fault::{Faults, Point};
use crate::gather::{Change, Gather, GatherView};
use crate::log::{REST_BYTES_MIN, rest};
use crate::table::{APPLIED_KEY, encode_applied};

/// A gather is stored beyond this many bytes. The memory, the work of a restart after a crash, and how often
/// runs are merged are bounded by twice this; what changes often within it is stored once.
const GATHER_BYTES: usize = 8 << 20;

/// Runs that may wait to be merged into what is there; the next one waits then. Merging begins at
/// [`crate::table::RUNS_MAX`], so it is far behind.
const RUNS_WAITING_MAX: usize = 24;

/// How often it looks again.
const POLL: Duration = Duration::from_millis(2);

/// The state's database, and the rows on their way into it.
pub(crate) struct Store {
    pub(crate) db: Database,
    pub(crate) data: Keyspace,
    pub(crate) folder: PathBuf,
    pub(crate) faults: Faults,
    layers: Mutex<Layers>,
    /// A gather was sealed, stored, or the end has come.
    changed: Condvar,
    /// What was recovered from the journal is also in a table file (synced by its flush).
    flushed: AtomicBool,
    /// The folder stays locked as long as anyone can write to it.
    _lock: Arc<Lock>,
}

/// What lies over fjall's rows, newest first.
struct Layers {
    /// Number of the newest commit of this run.
    commit: u64,
    /// The point the rows stand at, gathered ones included.
    applied: LogBase,
    gathering: Arc<Gather>,
    gathered_bytes: usize,
    /// A sealed gather and the point it brings the tables to.
    storing: Option<(Arc<Gather>, LogBase)>,
    /// The point in fjall.
    stored: LogBase,
    /// Up to which point the rows are durable; (0, 0) until the first store or sync of this start, because
    /// what the page cache shows after a restart is no proof.
    durable: LogBase,
    /// After this store fjall shall let go of what merges have replaced.
    tidy: bool,
    failure: Option<Failure>,
    closing: bool,
}

/// Why nothing is stored any more.
struct Failure {
    /// Told once; whoever asks later is told that there was one.
    error: Option<StorageError>,
}

/// What a reader looks at before fjall, at one moment.
pub(crate) struct Layered {
    pub(crate) gathering: GatherView,
    pub(crate) storing: Option<Arc<Gather>>,
    pub(crate) applied: LogBase,
}

impl Layered {
    /// What is gathered of a key: nothing, its value, or that it was removed.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Option<Bytes>> {
        let older = || self.storing.as_ref()?.get(key, u64::MAX);
        self.gathering.get(key).or_else(older)
    }

    /// Gathered changes of keys that begin with `prefix`, ascending; of all keys for an empty one.
    pub(crate) fn with_prefix(&self, prefix: &[u8]) -> Vec<Change> {
        let older = self.storing.as_ref();
        crate::gather::merged(
            self.gathering.with_prefix(prefix),
            older.map_or_else(Vec::new, |gather| gather.with_prefix(prefix, u64::MAX)),
        )
    }
}

/// The store and its thread. Dropping it ends the thread after the run it is at; what is gathered and not
/// stored is left to the log.
pub(crate) struct Stored {
    pub(crate) store: Arc<Store>,
    thread: Option<JoinHandle<()>>,
}

impl Stored {
    pub(crate) fn start(store: Store) -> Result<Stored, StorageError> {
        let store = Arc::new(store);
        let owned = Arc::clone(&store);
        let thread = std::thread::Builder::new()
            .name("state-writer".into())
            .spawn(move || owned.run())
            .map_err(|source| {
                StorageError::file("cannot start the thread that writes", &store.folder, source)
            })?;
        Ok(Stored {
            store,
            thread: Some(thread),
        })
    }
}

impl Drop for Stored {
    fn drop(&mut self) {
        self.store.layers().closing = true;
        self.store.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic was caught inside and reported as a failure.
            let _ = thread.join();
        }
    }
}

impl Store {
    pub(crate) fn new(
        (db, data): (Database, Keyspace),
        folder: PathBuf,
        applied: LogBase,
        faults: Faults,
        lock: Arc<Lock>,
    ) -> Store {
        Store {
            db,
            data,
            folder,
            faults,
            layers: Mutex::new(Layers {
                commit: 0,
                applied,
                gathering: Arc::default(),
                gathered_bytes: 0,
                storing: None,
                stored: applied,
                durable: LogBase::default(),
                tidy: false,
                failure: None,
                closing: false,
            }),
            changed: Condvar::new(),
            flushed: AtomicBool::new(false),
            _lock: lock,
        }
    }

    fn layers(&self) -> MutexGuard<'_, Layers> {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, layers: MutexGuard<'a, Layers>) -> MutexGuard<'a, Layers> {
        self.changed.wait(layers).unwrap_or_else(PoisonError::into_inner)
    }

    /// The point the rows stand at.
    pub(crate) fn applied(&self) -> LogBase {
        self.layers().applied
    }

    /// The point up to which the rows are durable.
    pub(crate) fn durable(&self) -> LogBase {
        self.layers().durable
    }

    /// Everything that lies over fjall, with the point the whole stands at. A snapshot of fjall that belongs
    /// to it is to be taken *afterwards*; `look` does so before anything is committed meanwhile.
    pub(crate) fn layered<T>(&self, look: impl FnOnce() -> T) -> (Layered, T) {
        let layers = self.layers();
        let gathered = Layered {
            gathering: layers.gathering.view(layers.commit),
            storing: layers.storing.as_ref().map(|(gather, _)| Arc::clone(gather)),
            applied: layers.applied,
        };
        // The store may finish a run at the same time. Its rows are in `storing` all the same; a run that
        // was begun later cannot be finished, for its gather is sealed under this lock.
        let looked = look();
        (gathered, looked)
    }

    /// What is gathered of a key at this moment.
    pub(crate) fn gathered(&self, key: &[u8]) -> Option<Option<Bytes>> {
        let layers = self.layers();
        let gathering = Arc::clone(&layers.gathering);
        let storing = layers.storing.as_ref().map(|(gather, _)| Arc::clone(gather));
        drop(layers);
        gathering
            .get(key, u64::MAX)
            .or_else(|| storing?.get(key, u64::MAX))
    }

    /// Gathers the rows of a commit that brings the tables to `point`.
    ///
    /// # Errors
    /// An earlier store has failed; it is final.
    ///
    /// # Panics
    /// When `point` does not lie above the present one: ranges are applied once and in order.
    pub(crate) fn commit(&self, changes: Vec<Change>, point: LogBase) -> Result<(), StorageError> {
        let mut layers = self.layers();
        while layers.failure.is_none() && layers.storing.is_some() && layers.gathered_bytes >= GATHER_BYTES {
            layers = self.wait(layers);
        }
        layers.check()?;
        let applied = layers.applied;
        assert!(
            point.id.index > applied.id.index,
            "applied {} twice: the tables stand at {}",
            point.id.index,
            applied.id.index
        );
        assert!(point.id.term >= applied.id.term, "terms go back");
        layers.commit += 1;
        layers.gathered_bytes = layers.gathering.put(layers.commit, changes);
        layers.applied = point;
        if layers.gathered_bytes >= GATHER_BYTES && layers.storing.is_none() {
            layers.seal();
            self.changed.notify_all();
        }
        Ok(())
    }

    /// Stores all that is gathered and waits for it; what is stored is durable.
    pub(crate) fn sync(&self) -> Result<LogBase, StorageError> {
        self.fault(Point::StateSync)?;
        self.sync_journal()?;
        let mut layers = self.layers();
        let target = layers.applied;
        loop {
            layers.check()?;
            if layers.stored.id.index >= target.id.index {
                // Older rows came from table files, or were flushed above.
                layers.durable = layers.stored;
                return Ok(target);
            }
            if layers.storing.is_none() {
                layers.seal();
                self.changed.notify_all();
            }
            layers = self.wait(layers);
        }
    }

    /// Makes durable what went through fjall's journal.
    ///
    /// The first time after an open it also writes what was recovered from the journal into a table file:
    /// if the run before ended by a failed sync, the kernel counts the journal's pages as clean and a
    /// sync of them would prove nothing (hazard R52).
    pub(crate) fn sync_journal(&self) -> Result<(), StorageError> {
        if !self.flushed.load(Ordering::Acquire) {
            self.flush()?;
            self.flushed.store(true, Ordering::Release);
        }
        self.db
            .persist(PersistMode::SyncAll)
            .map_err(|source| self.error(source))
    }

    /// An install has brought everything to `point`, durably. Nothing is gathered.
    pub(crate) fn installed(&self, point: LogBase) {
        let mut layers = self.layers();
        assert!(layers.storing.is_none(), "a store during an install");
        (layers.applied, layers.stored, layers.durable) = (point, point, point);
    }

    /// Nothing is written for a while: gives back memory, journals and replaced tables. Waits for nothing.
    pub(crate) fn rest(&self) -> Result<(), StorageError> {
        let mut layers = self.layers();
        layers.check()?;
        if layers.storing.is_none() && layers.gathered_bytes as u64 >= REST_BYTES_MIN {
            layers.tidy = true;
            layers.seal();
            self.changed.notify_all();
        }
        drop(layers);
        rest(&self.db, &self.data).map_err(|source| self.error(source))
    }

    /// An error when storing has failed, so that somebody hears of it in a pause, too.
    pub(crate) fn check(&self) -> Result<(), StorageError> {
        self.layers().check()
    }

    /// The thread. A panic in it is reported like a failed write: a silent dead thread would let commits
    /// wait for ever.
    fn run(&self) {
        let work = std::panic::AssertUnwindSafe(|| self.store_gathers());
        let result = std::panic::catch_unwind(work)
            .unwrap_or_else(|_| Err(StorageError::Panicked("the state could not be stored".into())));
        if let Err(error) = result {
            self.layers().failure = Some(Failure { error: Some(error) });
            self.changed.notify_all();
        }
    }

    fn store_gathers(&self) -> Result<(), StorageError> {
        loop {
            let mut layers = self.layers();
            while layers.storing.is_none() && !layers.closing {
                layers = self.wait(layers);
            }
            let Some((gather, point)) = layers.storing.clone().filter(|_| !layers.closing) else {
                return Ok(());
            };
            let tidy = std::mem::take(&mut layers.tidy);
            drop(layers);
            self.store(&gather, point)?;
            if tidy {
                self.tidy(point)?;
            }
            // Last: nobody else writes to fjall while a gather is on its way (an install waits for it).
            let mut layers = self.layers();
            layers.storing = None;
            (layers.stored, layers.durable) = (point, point);
            drop(layers);
            self.changed.notify_all();
        }
    }

    /// One run: the rows, and the point they bring the tables to.
    fn store(&self, gather: &Gather, point: LogBase) -> Result<(), StorageError> {
        let error = |source| self.error(source);
        self.fault(Point::StateCommit)?;
        self.check_database()?;
        self.flush()?;
        self.flushed.store(true, Ordering::Release);
        while self.data.tree.l0_run_count() > RUNS_WAITING_MAX {
            self.check_database()?;
            std::thread::sleep(POLL);
        }
        let mut run = self.data.start_ingestion().map_err(error)?;
        // Table 0 comes first: keys must ascend.
        run.write(APPLIED_KEY, encode_applied(point)).map_err(error)?;
        for (key, value) in gather.all(u64::MAX) {
            match value {
                Some(value) => run.write(key, value),
                None => run.write_tombstone(key),
            }
            .map_err(error)?;
        }
        run.finish().map_err(error)?;
        self.fault(Point::StateStored)
    }

    /// Has a small memtable flushed: only then fjall deletes tables that merges have replaced, and journals.
    fn tidy(&self, point: LogBase) -> Result<(), StorageError> {
        let error = |source| self.error(source);
        let mut batch =
            fjall::OwnedWriteBatch::with_capacity(self.db.clone(), 1).durability(Some(PersistMode::Buffer));
        batch.insert(&self.data, APPLIED_KEY, encode_applied(point));
        batch.commit().map_err(error)?;
        self.data.rotate_memtable().map_err(error).map(drop)
    }

    /// Writes the memtable into a table file and waits for it.
    fn flush(&self) -> Result<(), StorageError> {
        if self.data.tree.active_memtable().size() > 0 {
            self.data.rotate_memtable().map_err(|source| self.error(source))?;
        }
        while self.data.sealed_memtable_count() > 0 {
            self.check_database()?;
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// A worker of fjall that failed has poisoned the database and will never flush or merge: say so.
    fn check_database(&self) -> Result<(), StorageError> {
        self.db
            .persist(PersistMode::Buffer)
            .map_err(|source| self.error(source))
    }

    pub(crate) fn fault(&self, point: Point) -> Result<(), StorageError> {
        self.faults
            .at(point)
            .map_err(|source| StorageError::file("cannot write", &self.folder, source))
    }

    pub(crate) fn error(&self, source: fjall::Error) -> StorageError {
        StorageError::State {
            folder: self.folder.clone(),
            source,
        }
    }
}

impl Layers {
    /// What is gathered is to be stored. Nothing else may be on its way.
    fn seal(&mut self) {
        assert!(self.storing.is_none(), "two gathers at once");
        // In a pause the memory goes; under load the next gather does not grow step by step.
        let next = if self.tidy {
            Gather::default()
        } else {
            self.gathering.next()
        };
        let gather = std::mem::replace(&mut self.gathering, Arc::new(next));
        self.gathered_bytes = 0;
        self.storing = Some((gather, self.applied));
    }

    fn check(&mut self) -> Result<(), StorageError> {
        match &mut self.failure {
            None => Ok(()),
            Some(failure) => Err(failure.error.take().unwrap_or(StorageError::Poisoned)),
        }
    }
}
