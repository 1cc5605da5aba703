//! The log writer: one thread that alone writes `wal/`, the mark and snapshots that are received.
//!
//! It drains what is queued, folds it into one final operation per key, commits one synced fjall batch
//! and completes all of it in order. While a sync runs the next batch gathers by itself; nobody waits
//! for company.
//!
//! Order of one turn (each step is durable before the next begins):
//! 1. pieces of snapshots, as they come;
//! 2. a *lower* mark, when the batch takes away entries at or below it (hazard R44: else a crash after
//!    the batch makes a healthy node look as if it had lost something);
//! 3. the batch;
//! 4. the mark, when term or vote changed or the suspicion is lifted: a vote must be in both places
//!    before it is given (hazard R45);
//! 5. the answers.
//!
//! Between turns the mark is raised to what is durable: after 8 MiB or one second of writes, and to the
//! exact end once nothing comes for a moment. After a longer pause memtables are flushed: their memory,
//! sealed journals and replaced tables are given back.
//!
//! The first failed write or sync is the last: nothing is written or answered after it.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use raft::{
    Body, Boot, Entry, EntryKind, HardState, Index, LogBase, Message, NodeId, Persist, SnapshotMeta, Space,
    Token,
};

use crate::codec;
use crate::error::StorageError;
use crate::fault::{Faults, Point};
use crate::hard_state::{BaseRecord, HardRecord};
use crate::log::{Wal, WalChange, base_of};
use crate::mark::{Mark, MarkFile};
use crate::membership::{self, Memberships};
use crate::metrics::WriterMetrics;
use crate::snapshot::{self, Snapshots};
use crate::space::SpaceWatch;
use crate::table::Tables;

/// Entries' bytes in one batch; the rest of the queue waits for the next one. Bounds the time of a sync
/// and the memory of a batch; one larger persist still goes alone.
const BATCH_BYTES_MAX: usize = 16 << 20;

/// Persists in one batch.
const BATCH_PERSISTS_MAX: usize = 4_096;

/// The mark may lag behind the log by this many bytes,
const MARK_LAG_BYTES: u64 = 8 << 20;

/// or for this long.
const MARK_LAG: Duration = Duration::from_secs(1);

/// With nothing to write for this long, the mark is raised to the exact end.
const IDLE: Duration = Duration::from_millis(100);

/// Room on the disk is looked at before a batch unless it was this shortly before: a busy writer writes
/// thousands of batches a second, and no disk fills by a reserve within this time.
const SPACE_LOOK: Duration = Duration::from_millis(10);

/// A pause of this long has the memtables flushed, once.
const REST_AFTER: Duration = Duration::from_secs(10);

/// How often an idle writer looks at the disk space and at fjall's health.
const WATCH: Duration = Duration::from_secs(2);

/// What became of what was submitted. Called on the log writer's thread, in order; must not block.
#[derive(Debug)]
pub enum Completion {
    /// This persist and every one before it is durable: `then_send` may leave.
    Persisted {
        /// The persist.
        token: Token,
        /// Its attached messages, unchanged.
        then_send: Vec<(NodeId, Message)>,
    },
    /// A snapshot that was received is not what it was announced as; its file gets no name, and the answer
    /// to its last piece was taken out of the [`Completion::Persisted`] that follows.
    SnapshotRefused {
        /// What was announced.
        meta: SnapshotMeta,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Room on the disk has changed. Said once at the start and at every change.
    Space(Space),
    /// A write or sync has failed. Nothing that is not completed yet will be; the process should say
    /// so, step down, and exit after draining.
    Failed(Arc<StorageError>),
}

/// The log writer before its thread runs.
pub struct LogWriter {
    pub(crate) state: WriterState,
}

/// Says that pieces of this snapshot are here.
fn answers_piece(message: &Message, meta: &SnapshotMeta) -> bool {
    matches!(&message.body, Body::SnapshotReply(reply) if reply.last == meta.last)
}

/// Everything the thread owns.
pub(crate) struct WriterState {
    pub(crate) wal: Wal,
    pub(crate) mark: MarkFile,
    pub(crate) boot: Boot,
    /// Term, vote and commit as the log holds them.
    pub(crate) hard: HardState,
    /// The entry before the first one.
    pub(crate) base: LogBase,
    /// The last durable entry; the base for an empty log.
    pub(crate) last: LogBase,
    /// The membership in force at the base and every later one in the log.
    pub(crate) memberships: Memberships,
    /// Shared with the readers.
    pub(crate) first: Arc<AtomicU64>,
    pub(crate) snapshots: Snapshots,
    /// Must be durable up to a point before the log is cut there.
    pub(crate) tables: Tables,
    pub(crate) space: SpaceWatch,
    pub(crate) members_path: std::path::PathBuf,
    pub(crate) metrics: Arc<WriterMetrics>,
    pub(crate) faults: Faults,
}

impl LogWriter {
    /// Starts the thread. `on_completion` is called on it.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start(
        self,
        on_completion: impl FnMut(Completion) + Send + 'static,
    ) -> std::io::Result<WriterHandle> {
        // Bounded by who submits: the core gives out no more than `uncommitted_bytes_max` before it hears
        // that a write is durable, and whoever waits here would keep heartbeats waiting.
        let (submit, queue) = mpsc::channel();
        let metrics = self.state.metrics.clone();
        let thread = std::thread::Builder::new()
            .name("log-writer".into())
            .spawn(move || run(self.state, &queue, Box::new(on_completion)))?;
        Ok(WriterHandle {
            submit: Some(submit),
            thread: Some(thread),
            metrics,
        })
    }

    /// The counters.
    pub fn metrics(&self) -> Arc<WriterMetrics> {
        self.state.metrics.clone()
    }
}

/// Gives work to the log writer. Dropping it (or [`WriterHandle::close`]) lets the thread finish what is
/// queued, raises the mark to the exact end and joins it.
pub struct WriterHandle {
    submit: Option<Sender<Persist>>,
    thread: Option<JoinHandle<()>>,
    metrics: Arc<WriterMetrics>,
}

impl WriterHandle {
    /// Queues a persist. Never blocks: the queue is bounded by what the core lets be uncommitted and in
    /// flight. After a failure it is dropped unanswered.
    pub fn submit(&self, persist: Persist) {
        if let Some(submit) = &self.submit {
            // The thread is gone only after it has said Failed.
            let _ = submit.send(persist);
        }
    }

    /// The counters.
    pub fn metrics(&self) -> Arc<WriterMetrics> {
        self.metrics.clone()
    }

    /// Writes what is queued, raises the mark and ends the thread.
    pub fn close(mut self) {
        self.finish();
    }

    fn finish(&mut self) {
        self.submit = None;
        if let Some(thread) = self.thread.take() {
            // A panic was caught inside and reported as Failed.
            let _ = thread.join();
        }
    }
}

impl Drop for WriterHandle {
    fn drop(&mut self) {
        self.finish();
    }
}

type OnCompletion = Box<dyn FnMut(Completion) + Send>;

/// The thread. A panic in it (an assertion: we are wrong) is reported like a failed write, because a
/// silent dead thread would leave the node waiting for ever.
fn run(state: WriterState, queue: &Receiver<Persist>, on_completion: OnCompletion) {
    let on_completion = std::sync::Mutex::new(on_completion);
    let metrics = state.metrics.clone();
    let complete = |completion| (on_completion.lock().unwrap_or_else(PoisonError::into_inner))(completion);
    let work = std::panic::AssertUnwindSafe(|| Writer::new(state).run(queue, &complete));
    let result = std::panic::catch_unwind(work).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(StorageError::Panicked(text.unwrap_or_default()))
    });
    if let Err(error) = result {
        metrics.failed.store(1, Ordering::Relaxed);
        complete(Completion::Failed(Arc::new(error)));
        // Refuse what comes until the handle goes: the channel must not fill up.
        for refused in queue {
            drop(refused);
        }
    }
}

struct Writer {
    state: WriterState,
    receiving: Option<snapshot::Receiver>,
    cleaner: Cleaner,
    /// Bytes written since the mark was raised.
    unmarked_bytes: u64,
    /// When the mark last stood at the end of the log.
    marked_at: Instant,
    /// The commit index the core knows; written with the next batch, never alone.
    commit: Index,
    /// When the last turn began; `None` once the pause after it has been used.
    busy_at: Option<Instant>,
    /// When room on the disk was looked at.
    looked_at: Instant,
    /// A batch was written since without looking.
    must_look: bool,
}

impl Writer {
    fn new(state: WriterState) -> Writer {
        let commit = state.hard.commit;
        let cleaner = Cleaner::start(state.wal.clone(), state.base.id.index);
        Writer {
            state,
            receiving: None,
            cleaner,
            unmarked_bytes: 0,
            marked_at: Instant::now(),
            commit,
            busy_at: Some(Instant::now()),
            looked_at: Instant::now(),
            must_look: true,
        }
    }

    fn run(mut self, queue: &Receiver<Persist>, complete: &dyn Fn(Completion)) -> Result<(), StorageError> {
        self.state.space.look();
        complete(Completion::Space(self.state.space.level()));
        self.publish();
        let mut watched_at = Instant::now();
        loop {
            let timeout = if self.is_marked() { WATCH } else { IDLE };
            match queue.recv_timeout(timeout) {
                Ok(first) => self.turn(first, queue, complete)?,
                Err(RecvTimeoutError::Timeout) => {
                    self.raise_mark()?;
                    if self.must_look {
                        self.say_space(complete);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if watched_at.elapsed() >= WATCH {
                watched_at = Instant::now();
                self.watch(complete)?;
            }
        }
        self.raise_mark()?;
        self.cleaner.stop();
        Ok(())
    }

    /// Drains the queue up to the limits and writes it.
    fn turn(
        &mut self,
        first: Persist,
        queue: &Receiver<Persist>,
        complete: &dyn Fn(Completion),
    ) -> Result<(), StorageError> {
        self.busy_at = Some(Instant::now());
        if self.is_marked() {
            // The lag counts from the first byte beyond the mark, not from the end of a quiet hour.
            self.marked_at = Instant::now();
        }
        if self.looked_at.elapsed() >= SPACE_LOOK {
            self.say_space(complete);
        } else {
            self.must_look = true;
        }
        let mut fold = Fold::new(&self.state);
        let mut bytes = size_bytes(&first);
        let mut answers = Vec::new();
        let mut next = Some(first);
        while let Some(persist) = next {
            self.add(persist, &mut fold, &mut answers, complete)?;
            next = if bytes < BATCH_BYTES_MAX && answers.len() < BATCH_PERSISTS_MAX {
                queue
                    .try_recv()
                    .ok()
                    .inspect(|persist| bytes += size_bytes(persist))
            } else {
                None
            };
        }
        self.write(fold)?;
        self.state
            .metrics
            .persists
            .fetch_add(answers.len() as u64, Ordering::Relaxed);
        for (token, then_send) in answers {
            complete(Completion::Persisted { token, then_send });
        }
        if self.unmarked_bytes >= MARK_LAG_BYTES || self.marked_at.elapsed() >= MARK_LAG {
            self.raise_mark()?;
        }
        Ok(())
    }

    fn add(
        &mut self,
        persist: Persist,
        fold: &mut Fold,
        answers: &mut Vec<(Token, Vec<(NodeId, Message)>)>,
        complete: &dyn Fn(Completion),
    ) -> Result<(), StorageError> {
        let mut persist = persist;
        if let Some(chunk) = &persist.chunk {
            match self.state.snapshots.receive(&mut self.receiving, chunk) {
                // What another node sent is no fault of this disk.
                Err(StorageError::SnapshotDamaged { reason, .. }) if chunk.last => {
                    self.receiving = None;
                    let meta = chunk.meta.clone();
                    persist
                        .then_send
                        .retain(|(_, message)| !answers_piece(message, &meta));
                    complete(Completion::SnapshotRefused { meta, reason });
                }
                received => received?,
            }
        }
        if let Some(hard) = &persist.hard_state {
            self.commit = self.commit.max(hard.commit);
        }
        answers.push((persist.token, fold.add(persist, &self.state)?));
        Ok(())
    }

    /// Steps 2 to 4 of a turn.
    fn write(&mut self, fold: Fold) -> Result<(), StorageError> {
        if let Some(lower) = self.lower_mark(&fold)? {
            self.write_mark(lower)?;
        }
        let clear_suspicion = fold.clear_suspicion;
        let hard = HardState {
            commit: self.commit,
            ..fold.hard
        };
        if fold.changes_log || (hard.term, hard.vote) != (self.state.hard.term, self.state.hard.vote) {
            self.commit_batch(fold, hard)?;
        }
        let mark = *self.state.mark.mark();
        let promised = (mark.term, mark.vote) != (self.state.hard.term, self.state.hard.vote);
        if promised || (clear_suspicion && mark.suspicion.is_some()) {
            let suspicion = mark.suspicion.filter(|_| !clear_suspicion);
            self.write_mark(Mark {
                suspicion,
                ..self.mark_at_end()
            })?;
        }
        Ok(())
    }

    fn commit_batch(&mut self, fold: Fold, hard: HardState) -> Result<(), StorageError> {
        let removed = fold.removed(&self.state);
        let Fold {
            entries,
            base,
            base_membership,
            memberships,
            last,
            ..
        } = fold;
        let base_moved = base != self.state.base;
        let record = base_moved.then_some(BaseRecord {
            base,
            membership: base_membership,
        });
        let bytes: usize = entries.iter().map(codec::encoded_len).sum();
        let count = entries.len() as u64;
        let change = WalChange {
            entries: entries.into(),
            removed,
            hard: Some(HardRecord {
                hard_state: hard,
                boot: self.state.boot,
            }),
            base: record,
        };
        self.fault(Point::WalCommit)?;
        let started = Instant::now();
        self.state.wal.commit(change)?;
        self.state.metrics.batch(count, bytes as u64, started.elapsed());
        self.fault(Point::WalCommitted)?;
        self.unmarked_bytes += bytes as u64;
        self.state.hard = hard;
        self.state.base = base;
        self.state.last = last;
        if let Some(memberships) = memberships {
            membership::store(&self.state.members_path, &memberships, &self.state.faults)?;
            self.state.memberships = memberships;
        }
        self.publish();
        if base_moved {
            self.cleaner.clean_before(base.id.index.next());
        }
        Ok(())
    }

    /// The mark that must be on the disk before this batch: entries at or below the present one go.
    fn lower_mark(&self, fold: &Fold) -> Result<Option<Mark>, StorageError> {
        let mark = *self.state.mark.mark();
        if let Some(snapshot) = fold.reset_to {
            return Ok(Some(Mark {
                synced: snapshot,
                snapshot: snapshot.id,
                ..mark
            }));
        }
        let Some(removed_from) = fold.removed_from.filter(|from| *from <= mark.synced.id.index) else {
            return Ok(None);
        };
        let stays = removed_from.prev();
        let synced = match self.state.wal.entry(stays)? {
            Some(entry) if stays > self.state.base.id.index => base_of(&entry),
            // The log starts after what stays: its base is durable.
            _ => self.state.base,
        };
        Ok(Some(Mark { synced, ..mark }))
    }

    /// The mark as it may stand now.
    fn mark_at_end(&self) -> Mark {
        let (term, vote) = (self.state.hard.term, self.state.hard.vote);
        Mark {
            synced: self.state.last,
            term,
            vote,
            ..*self.state.mark.mark()
        }
    }

    fn is_marked(&self) -> bool {
        self.state.mark.mark().synced == self.state.last
    }

    fn raise_mark(&mut self) -> Result<(), StorageError> {
        if self.is_marked() {
            self.marked_at = Instant::now();
            return Ok(());
        }
        self.write_mark(self.mark_at_end())
    }

    fn write_mark(&mut self, mark: Mark) -> Result<(), StorageError> {
        if mark.suspicion == self.state.mark.mark().suspicion {
            self.state.mark.write(mark)?;
        } else {
            self.state.mark.write_both(mark)?;
        }
        self.state
            .metrics
            .mark_writes
            .store(self.state.mark.writes(), Ordering::Relaxed);
        self.unmarked_bytes = 0;
        self.marked_at = Instant::now();
        Ok(())
    }

    /// While idle: room on the disk, and whether fjall's own threads have failed.
    fn watch(&mut self, complete: &dyn Fn(Completion)) -> Result<(), StorageError> {
        self.say_space(complete);
        if let Some(error) = self.cleaner.failure() {
            return Err(error);
        }
        if self.state.wal.is_poisoned() {
            return Err(StorageError::Poisoned);
        }
        self.state.tables.check()?;
        if self.busy_at.take_if(|at| at.elapsed() >= REST_AFTER).is_some() {
            self.state.wal.rest()?;
            self.state.tables.rest()?;
        }
        Ok(())
    }

    /// Looks at the room on the disk and says so when it has changed.
    fn say_space(&mut self, complete: &dyn Fn(Completion)) {
        (self.looked_at, self.must_look) = (Instant::now(), false);
        let changed = self.state.space.look();
        let free_bytes = self.state.space.free_bytes();
        self.state.metrics.free_bytes.store(free_bytes, Ordering::Relaxed);
        if let Some(space) = changed {
            complete(Completion::Space(space));
        }
    }

    /// Lets readers and metrics see what is durable.
    fn publish(&self) {
        let first = self.state.base.id.index.next();
        self.state.first.store(first.0, Ordering::Release);
        self.state.metrics.first_index.store(first.0, Ordering::Relaxed);
        self.state
            .metrics
            .durable_index
            .store(self.state.last.id.index.0, Ordering::Relaxed);
    }

    fn fault(&self, point: Point) -> Result<(), StorageError> {
        self.state.faults.at(point).map_err(|source| StorageError::Wal {
            folder: Path::new("wal").to_owned(),
            source: fjall::Error::Io(source),
        })
    }
}

/// Several persists as one change of the log.
struct Fold {
    /// Entries to be written: contiguous, ending at `last`.
    entries: VecDeque<Entry>,
    /// Entries of the durable log from here on go (or are overwritten by `entries`).
    removed_from: Option<Index>,
    /// The log starts anew after this snapshot.
    reset_to: Option<LogBase>,
    base: LogBase,
    base_membership: Option<(Index, raft::Configuration)>,
    last: LogBase,
    hard: HardState,
    /// The memberships after the change; `None` when they do not change.
    memberships: Option<Memberships>,
    clear_suspicion: bool,
    /// Something besides term and vote is to be written.
    changes_log: bool,
}

impl Fold {
    fn new(state: &WriterState) -> Fold {
        Fold {
            entries: VecDeque::new(),
            removed_from: None,
            reset_to: None,
            base: state.base,
            base_membership: None,
            last: state.last,
            hard: state.hard,
            memberships: None,
            clear_suspicion: false,
            changes_log: false,
        }
    }

    /// Applies the fields of `persist` in their order; gives back what is to be sent afterwards.
    fn add(&mut self, persist: Persist, state: &WriterState) -> Result<Vec<(NodeId, Message)>, StorageError> {
        if let Some(meta) = &persist.reset_to {
            self.reset(
                LogBase {
                    id: meta.last,
                    checksum: meta.checksum,
                },
                meta.configuration.clone(),
            );
        }
        if let Some(from) = persist.truncate_from {
            self.truncate(from, state)?;
        }
        for entry in persist.entries {
            self.append(entry, state);
        }
        if let Some(hard) = persist.hard_state {
            assert!(hard.term >= self.hard.term, "the term goes back");
            if hard.term == self.hard.term && self.hard.vote.is_some() {
                assert!(hard.vote == self.hard.vote, "a second vote in term {}", hard.term);
            }
            self.hard = hard;
        }
        if let Some(base) = persist.compact_to {
            self.compact(base, state)?;
        }
        self.clear_suspicion |= persist.clear_suspicion;
        Ok(persist.then_send)
    }

    fn reset(&mut self, base: LogBase, configuration: raft::Configuration) {
        self.entries.clear();
        self.removed_from = Some(base.id.index.next());
        self.reset_to = Some(base);
        self.base = base;
        self.last = base;
        self.base_membership = Some((base.id.index, configuration.clone()));
        self.memberships = Some(vec![(base.id.index, configuration)]);
        self.changes_log = true;
    }

    fn truncate(&mut self, from: Index, state: &WriterState) -> Result<(), StorageError> {
        assert!(
            from > self.base.id.index,
            "truncation at {from} below the base {}",
            self.base.id.index
        );
        if from > self.last.id.index {
            return Ok(());
        }
        while self.entries.back().is_some_and(|entry| entry.id.index >= from) {
            self.entries.pop_back();
        }
        let stays = from.prev();
        self.last = match self.entries.back() {
            Some(entry) => base_of(entry),
            None if stays == self.base.id.index => self.base,
            // Nothing pending is left, so what stays is in the durable log.
            None => match state.wal.entry(stays)? {
                Some(entry) => base_of(&entry),
                None => panic!("entry {stays} is not in the log that is cut after it"),
            },
        };
        if self.entries.is_empty() {
            self.removed_from = Some(self.removed_from.map_or(from, |earlier| earlier.min(from)));
        }
        let memberships = self.memberships(state);
        if memberships.last().is_some_and(|(index, _)| *index >= from) {
            memberships.retain(|(index, _)| *index < from);
        }
        self.changes_log = true;
        Ok(())
    }

    fn append(&mut self, entry: Entry, state: &WriterState) {
        assert!(
            entry.id.index == self.last.id.index.next(),
            "entry {} after {}",
            entry.id.index,
            self.last.id.index
        );
        assert!(
            entry.id.term >= self.last.id.term,
            "entry {} of an older term",
            entry.id.index
        );
        assert!(
            entry.previous == self.last.checksum,
            "entry {} is not linked",
            entry.id.index
        );
        assert!(entry.is_intact(), "entry {} is not intact", entry.id.index);
        if entry.kind == EntryKind::Configuration {
            let Ok(configuration) = raft::Configuration::decode(&entry.payload) else {
                panic!("entry {} holds an unreadable membership", entry.id.index)
            };
            self.memberships(state).push((entry.id.index, configuration));
        }
        self.last = base_of(&entry);
        self.entries.push_back(entry);
        self.changes_log = true;
    }

    fn compact(&mut self, base: LogBase, state: &WriterState) -> Result<(), StorageError> {
        if base.id.index <= self.base.id.index {
            return Ok(());
        }
        assert!(
            base.id.index <= self.last.id.index,
            "compaction beyond the end of the log"
        );
        if state.tables.durable().id.index < base.id.index {
            // The owner syncs before it lets the log be cut, and then this costs nothing; a cut log
            // whose rows a power cut takes away could not be applied again.
            state.tables.sync()?;
        }
        let applied = state.tables.durable().id.index;
        assert!(
            applied >= base.id.index,
            "the log is cut at {} above the rows at {applied}",
            base.id.index
        );
        while self
            .entries
            .front()
            .is_some_and(|entry| entry.id.index <= base.id.index)
        {
            self.entries.pop_front();
        }
        self.base = base;
        let memberships = self.memberships(state);
        let at = memberships.iter().rposition(|(index, _)| *index <= base.id.index);
        let in_force = at.and_then(|at| memberships.get(at).cloned());
        if let Some(at) = at.filter(|at| *at > 0) {
            memberships.drain(..at);
        }
        self.base_membership = in_force;
        self.changes_log = true;
        Ok(())
    }

    fn memberships(&mut self, state: &WriterState) -> &mut Memberships {
        self.memberships.get_or_insert_with(|| state.memberships.clone())
    }

    /// Indices of the durable log that are to be deleted and are not written anew.
    fn removed(&self, state: &WriterState) -> Vec<u64> {
        let Some(from) = self.removed_from else {
            return Vec::new();
        };
        let written = self.entries.front().map_or(0, |entry| entry.id.index.0)
            ..self.entries.back().map_or(0, |entry| entry.id.index.0 + 1);
        (from.0..=state.last.id.index.0)
            .filter(|index| !written.contains(index))
            .collect()
    }
}

fn size_bytes(persist: &Persist) -> usize {
    persist.entries.iter().map(Entry::size_bytes).sum::<usize>()
        + persist.chunk.as_ref().map_or(0, |chunk| chunk.data.len())
}

/// Frees tables of the compacted prefix on a thread of its own: it waits for a running compaction, and
/// the log writer must not.
struct Cleaner {
    submit: Option<Sender<Index>>,
    thread: Option<JoinHandle<Result<(), StorageError>>>,
}

impl Cleaner {
    fn start(wal: Wal, base: Index) -> Cleaner {
        let (submit, queue) = mpsc::channel::<Index>();
        let work = move || {
            while let Ok(mut first) = queue.recv() {
                while let Ok(newer) = queue.try_recv() {
                    first = first.max(newer);
                }
                wal.drop_before(first)?;
            }
            Ok(())
        };
        let thread = std::thread::Builder::new()
            .name("log-cleaner".into())
            .spawn(work)
            .ok();
        let this = Cleaner {
            submit: Some(submit),
            thread,
        };
        if base.0 > 0 {
            // What the run before left behind, or a recovery brought back.
            this.clean_before(base.next());
        }
        this
    }

    fn clean_before(&self, first: Index) {
        if let Some(submit) = &self.submit {
            let _ = submit.send(first);
        }
    }

    /// Why the thread has ended before it was told to.
    fn failure(&mut self) -> Option<StorageError> {
        let thread = self.thread.take_if(|thread| thread.is_finished())?;
        match thread.join() {
            Ok(result) => result.err(),
            Err(_) => Some(StorageError::Panicked("the log cleaner panicked".into())),
        }
    }

    fn stop(&mut self) {
        self.submit = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Cleaner {
    fn drop(&mut self) {
        self.stop();
    }
}
