//! Crash points and failing I/O, for tests.
//!
//! Every place where bytes become durable, and every rename, asks the [`Faults`] before it acts (and
//! after it, where a crash in between matters). A server is built without the feature `fault`: the
//! value is then empty and the question costs nothing.

use std::io;

/// A place at which a test may fail the I/O, or look at (copy) the folder as a crash would leave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Point {
    /// The log writer is about to write and sync a batch.
    WalCommit,
    /// The batch is synced; nothing is answered yet.
    WalCommitted,
    /// The mark is about to be written.
    MarkWrite,
    /// The mark is written, not synced.
    MarkSync,
    /// The mark is synced.
    MarkSynced,
    /// Gathered rows of the state are about to be written into a table file.
    StateCommit,
    /// They are in one, synced, together with their applied point.
    StateStored,
    /// The state tables are about to be synced.
    StateSync,
    /// A piece of a snapshot is about to be written.
    SnapshotWrite,
    /// A complete snapshot file is about to be synced.
    SnapshotSync,
    /// A complete, synced snapshot file is about to get its name.
    SnapshotRename,
    /// It has its name; the folder is not synced yet.
    SnapshotRenamed,
    /// A batch of an install is about to be written.
    InstallWrite,
    /// The state tables are marked as "being replaced by this snapshot"; nothing else has changed.
    InstallBegun,
    /// A part of the rows is replaced.
    InstallPart,
    /// All rows are replaced and the applied point is moved.
    InstallDone,
    /// A small file (FORMAT, membership) is about to be renamed into place.
    FileRename,
    /// It is in place; the folder is not synced yet.
    FileRenamed,
    /// A journal is about to be cut by the scanner.
    JournalCut,
    /// The newest journal is about to be written again at a start.
    JournalWrittenAgain,
    /// A formation step is done: the mark lies there.
    FormationMark,
    /// A formation step is done: `wal/` is made.
    FormationWal,
    /// A formation step is done: `state/` is made.
    FormationState,
}

/// What a test does at a [`Point`].
pub type Hook = dyn Fn(Point) -> io::Result<()> + Send + Sync;

/// Asked at every [`Point`]. The default lets everything pass.
#[derive(Clone, Default)]
pub struct Faults {
    #[cfg(feature = "fault")]
    hook: Option<std::sync::Arc<Hook>>,
}

impl Faults {
    /// Calls `hook` at every point; an error it returns is what the I/O there returns.
    #[cfg(feature = "fault")]
    pub fn new(hook: impl Fn(Point) -> io::Result<()> + Send + Sync + 'static) -> Faults {
        Faults {
            hook: Some(std::sync::Arc::new(hook)),
        }
    }

    /// Fails the n-th visit of `point` (0 is the first) and lets everything else pass.
    #[cfg(feature = "fault")]
    pub fn fail_nth(point: Point, n: usize) -> Faults {
        let visits = std::sync::atomic::AtomicUsize::new(0);
        Faults::new(move |at| {
            if at == point && visits.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == n {
                return Err(io::Error::other(format!("injected at {point:?}")));
            }
            Ok(())
        })
    }

    /// Passes, or fails as the test wants.
    #[cfg(feature = "fault")]
    pub(crate) fn at(&self, point: Point) -> io::Result<()> {
        self.hook.as_ref().map_or(Ok(()), |hook| hook(point))
    }

    /// Passes.
    #[cfg(not(feature = "fault"))]
    #[inline]
    pub(crate) fn at(&self, _point: Point) -> io::Result<()> {
        Ok(())
    }
}

impl std::fmt::Debug for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Faults")
    }
}
