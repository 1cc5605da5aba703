//! The thread that owns the state machine: applies committed ranges, answers the writers that wait for
//! them, installs and makes snapshots, and has the state synced before the log is cut.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use raft::{Entry, Index, SnapshotMeta};
use storage::Snapshots;
use tokio::sync::{mpsc, watch};

use super::node::{Event, panicked, tell};
use crate::model::OperationId;
use crate::state::{self, State};

/// Ranges that may wait. The core gives out at most `unapplied_bytes_max` (32 MiB) of entries of at
/// least 64 bytes each, so this cannot fill.
const WORK_MAX: usize = (32 << 20) / Entry::OVERHEAD_BYTES;

/// What the loop asks for.
#[derive(Debug)]
pub(super) enum Work {
    Apply(Vec<Entry>),
    Install(SnapshotMeta),
    MakeSnapshot,
}

/// The loop's end of the applier.
#[derive(Debug)]
pub(super) struct Applier {
    work: Option<mpsc::Sender<Work>>,
    thread: Option<JoinHandle<()>>,
}

/// Everything the thread works with.
pub(super) struct Parts {
    pub(super) state: State,
    pub(super) snapshots: Snapshots,
    /// Operations of this session are this node's own; all others have their writer elsewhere.
    pub(super) session: OperationId,
    pub(super) applied: watch::Sender<Index>,
    pub(super) events: mpsc::Sender<Event>,
    /// Applied bytes after which the state is synced and the log may be cut.
    pub(super) compact_every_bytes: usize,
    /// Told of every change in log order, on the applier's thread: it must not wait.
    pub(super) on_change: Box<dyn FnMut(Vec<state::Event>) + Send>,
}

impl Applier {
    pub(super) fn start(parts: Parts) -> std::io::Result<Applier> {
        let (work, queue) = mpsc::channel(WORK_MAX);
        let worker = Worker {
            parts,
            bytes_since_compaction: 0,
            compacted: Index(0),
            syncing: Arc::default(),
            snapshotting: Arc::default(),
        };
        let thread = std::thread::Builder::new()
            .name("applier".into())
            .spawn(move || worker.run_guarded(queue))?;
        Ok(Applier {
            work: Some(work),
            thread: Some(thread),
        })
    }

    /// The queue, to look how full it is.
    pub(super) fn queue(&self) -> Option<mpsc::WeakSender<Work>> {
        self.work.as_ref().map(mpsc::Sender::downgrade)
    }

    pub(super) fn submit(&self, work: Work) {
        if let Some(sender) = &self.work
            && let Err(mpsc::error::TrySendError::Full(_)) = sender.try_send(work)
        {
            panic!("more than {WORK_MAX} ranges wait to be applied: the core's limit was passed");
        }
        // A closed queue means that the applier has failed; it has told the loop so.
    }

    /// Lets the thread finish what it has and waits for it.
    pub(super) fn stop(mut self) {
        self.work = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the applier has panicked");
        }
    }
}

struct Worker {
    parts: Parts,
    bytes_since_compaction: usize,
    /// The last point the loop was told to cut the log at.
    compacted: Index,
    /// A sync before a compaction is under way; another one would only wait behind it.
    syncing: Arc<AtomicBool>,
    /// A snapshot is being made; another one would only take the disk from it.
    snapshotting: Arc<AtomicBool>,
}

impl Worker {
    /// A panic (an assertion of the state machine) is told like any other fault: a node whose applier died
    /// silently would go on leading and never answer anybody.
    fn run_guarded(self, queue: mpsc::Receiver<Work>) {
        let events = self.parts.events.clone();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.run(queue))) {
            let reason = panicked("the state machine", &*panic);
            // The loop has gone: then the node is stopping anyway.
            drop(events.blocking_send(Event::Failed(reason)));
        }
    }

    fn run(mut self, mut queue: mpsc::Receiver<Work>) {
        while let Some(work) = queue.blocking_recv() {
            let done = match work {
                Work::Apply(entries) => self.apply(entries, &mut queue),
                Work::Install(meta) => self.install(meta),
                Work::MakeSnapshot => {
                    self.make_snapshot();
                    Ok(())
                }
            };
            if let Err(reason) = done {
                self.tell(Event::Failed(reason));
                return;
            }
        }
        // A planned end: the next start has nothing to apply again. The log has all of it, should this fail.
        if let Err(error) = self.parts.state.sync() {
            tracing::error!(%error, "the state could not be stored before the end");
        }
    }

    /// Applies a range, together with the ones that came meanwhile: one batch, one write.
    fn apply(&mut self, mut entries: Vec<Entry>, queue: &mut mpsc::Receiver<Work>) -> Result<(), String> {
        let mut after = None;
        while entries.len() < APPLY_ENTRIES_MAX && after.is_none() {
            match queue.try_recv() {
                Ok(Work::Apply(more)) => entries.extend(more),
                Ok(other) => after = Some(other),
                Err(_) => break,
            }
        }
        self.apply_batch(&entries)?;
        match after {
            None => Ok(()),
            Some(Work::Install(meta)) => self.install(meta),
            Some(Work::MakeSnapshot) => {
                self.make_snapshot();
                Ok(())
            }
            Some(Work::Apply(more)) => self.apply_batch(&more),
        }
    }

    fn apply_batch(&mut self, entries: &[Entry]) -> Result<(), String> {
        let Some(last) = entries.last() else { return Ok(()) };
        let batch = self
            .parts
            .state
            .apply(entries)
            .map_err(|fault| fault.to_string())?;
        let own = batch.applied.iter().filter_map(|applied| {
            let operation = applied.operation.as_ref()?;
            let is_own = operation.is_of_session(&self.parts.session);
            is_own.then_some((operation.counter, applied.outcome))
        });
        let outcomes = own.collect();
        // Before it counts as applied: whoever waits for an index finds in the registry what stands below it.
        if !batch.events.is_empty() {
            (self.parts.on_change)(batch.events);
        }
        // Before the writers are told: who has his answer reads his write.
        self.parts.applied.send_replace(last.index());
        // The loop answers the writers: it runs among their tasks, so that a batch of them is woken without
        // a system call each. From this thread every single one would be a message to a sleeping worker.
        self.tell(Event::Applied {
            index: last.index(),
            outcomes,
        });
        self.bytes_since_compaction += entries.iter().map(Entry::size_bytes).sum::<usize>();
        if self.bytes_since_compaction >= self.parts.compact_every_bytes {
            self.compact();
        }
        Ok(())
    }

    /// Lets the log be cut: what the state holds durably the log need not keep. Under load rows become
    /// durable by themselves, many at once; only where too few have gathered they are synced for this.
    fn compact(&mut self) {
        let durable = self.parts.state.tables().durable().id.index;
        if durable > self.compacted {
            (self.compacted, self.bytes_since_compaction) = (durable, 0);
            self.tell(Event::Compact(durable));
        } else {
            self.sync_for_compaction();
        }
    }

    /// Syncs the tables beside the applying, then lets the log be cut.
    fn sync_for_compaction(&mut self) {
        if self.syncing.swap(true, Ordering::AcqRel) {
            return;
        }
        self.bytes_since_compaction = 0;
        let syncing = self.syncing.clone();
        let tables = self.parts.state.tables().clone();
        let events = self.parts.events.clone();
        let spawned = std::thread::Builder::new()
            .name("state-sync".into())
            .spawn(move || {
                let event = match tables.sync() {
                    Ok(synced) => Event::Compact(synced.id.index),
                    Err(error) => Event::Failed(format!("the state could not be synced: {error}")),
                };
                syncing.store(false, Ordering::Release);
                // The loop has gone: then nothing is left to be cut.
                drop(events.blocking_send(event));
            });
        if let Err(error) = spawned {
            self.syncing.store(false, Ordering::Release);
            tracing::warn!(%error, "no thread for the sync before a compaction; it is tried again later");
        }
    }

    fn install(&mut self, meta: SnapshotMeta) -> Result<(), String> {
        tracing::info!(
            index = meta.last.index.0,
            size_bytes = meta.size_bytes,
            "installing a snapshot"
        );
        let events = self
            .parts
            .state
            .install(&self.parts.snapshots, &meta)
            .map_err(|fault| fault.to_string())?;
        self.bytes_since_compaction = 0;
        (self.parts.on_change)(events);
        self.parts.applied.send_replace(meta.last.index);
        self.tell(Event::Installed(meta));
        Ok(())
    }

    /// Writes the file on a thread of its own, from a view of this moment.
    ///
    /// The core asks again when it has waited for some seconds; a large state takes longer, and the answer
    /// to the first request answers the later ones.
    fn make_snapshot(&mut self) {
        if self.snapshotting.swap(true, Ordering::AcqRel) {
            return;
        }
        let snapshotting = self.snapshotting.clone();
        let view = self.parts.state.tables().view();
        let configuration = self.parts.state.configuration();
        let snapshots = self.parts.snapshots.clone();
        let events = self.parts.events.clone();
        let spawned = std::thread::Builder::new().name("snapshot".into()).spawn(move || {
            let made = match snapshots.make(&view, &configuration) {
                Ok(meta) => Some(meta),
                Err(error) => {
                    tracing::error!(%error, "a snapshot could not be made; it is tried again when needed");
                    None
                }
            };
            // Before it is told: the core may ask for the next one at once.
            snapshotting.store(false, Ordering::Release);
            drop(events.blocking_send(Event::SnapshotMade(made)));
        });
        if let Err(error) = spawned {
            tracing::error!(%error, "no thread for a snapshot");
            self.snapshotting.store(false, Ordering::Release);
            self.tell(Event::SnapshotMade(None));
        }
    }

    fn tell(&self, event: Event) {
        tell(&self.parts.events, event);
    }
}

/// Entries folded into one batch of the state's tables.
const APPLY_ENTRIES_MAX: usize = 4_096;
