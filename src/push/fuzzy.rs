//! Names that come and go, of configs or of services, brought to those who watch patterns.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::patterns::{FuzzyIndex, FuzzyPattern, Look, TooManyPatterns};
use crate::model::Named;
use crate::seeded::{self, Bug};

/// Names that came or went and are not told yet. At the bound everybody looks at everything.
const DUE_MAX: usize = 100_000;

/// Who watches which pattern on this node.
#[derive(Debug)]
pub struct FuzzyPush<K> {
    index: Mutex<FuzzyIndex<K, Arc<FuzzySession<K>>>>,
    due: Mutex<Due<K>>,
    changed: Notify,
    watchers: AtomicU64,
}

#[derive(Debug)]
struct Due<K> {
    /// Whether it exists now, by the newest event.
    keys: HashMap<K, bool>,
    everything: bool,
}

/// What one watcher has to look at.
#[derive(Debug)]
pub struct FuzzySession<K> {
    marks: Mutex<FuzzyMarks<K>>,
    woken: Notify,
}

/// See [`FuzzySession`].
#[derive(Debug, PartialEq, Eq)]
pub struct FuzzyMarks<K> {
    /// Names that came or went.
    pub keys: BTreeSet<K>,
    /// Everything: the state was replaced.
    pub everything: bool,
    /// The watcher itself has something new to do.
    pub nudged: bool,
}

impl<K> Default for FuzzyPush<K> {
    fn default() -> FuzzyPush<K> {
        FuzzyPush {
            index: Mutex::default(),
            due: Mutex::default(),
            changed: Notify::new(),
            watchers: AtomicU64::new(0),
        }
    }
}

impl<K> Default for Due<K> {
    fn default() -> Due<K> {
        Due {
            keys: HashMap::new(),
            everything: false,
        }
    }
}

impl<K> Default for FuzzySession<K> {
    fn default() -> FuzzySession<K> {
        FuzzySession {
            marks: Mutex::default(),
            woken: Notify::new(),
        }
    }
}

impl<K> Default for FuzzyMarks<K> {
    fn default() -> FuzzyMarks<K> {
        FuzzyMarks {
            keys: BTreeSet::new(),
            everything: false,
            nudged: false,
        }
    }
}

impl<K: Named> FuzzySession<K> {
    /// Has the one task that looks look at what the watcher wants.
    pub fn nudge(&self) {
        self.mark(|marks| marks.nudged = true);
    }

    /// Waits until there is something to look at, and takes it. For one task at a time.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub async fn due(&self) -> FuzzyMarks<K> {
        loop {
            let taken = std::mem::take(&mut *lock(&self.marks));
            if taken != FuzzyMarks::default() {
                return taken;
            }
            self.woken.notified().await;
        }
    }

    fn mark(&self, change: impl FnOnce(&mut FuzzyMarks<K>)) {
        change(&mut lock(&self.marks));
        self.woken.notify_one();
    }
}

impl<K: Named> FuzzyPush<K> {
    /// Notes that a name came or went. Called on the applier's thread, in log order, after readers can see
    /// it.
    pub(super) fn on_existence(&self, key: K, exists: bool) {
        if self.watchers.load(Relaxed) == 0 || seeded::has(Bug::FuzzyNeverTold) {
            return;
        }
        let mut due = lock(&self.due);
        due.keys.insert(key, exists);
        if due.keys.len() > DUE_MAX {
            due.keys.clear();
            due.everything = true;
        }
        drop(due);
        self.changed.notify_one();
    }

    /// Notes that the whole state was replaced.
    pub(super) fn on_reload(&self) {
        lock(&self.due).everything = true;
        self.changed.notify_one();
    }

    /// Brings what came and went to those who watch, for ever.
    pub(super) async fn run(&self) {
        loop {
            self.changed.notified().await;
            self.tell_all();
        }
    }

    fn tell_all(&self) {
        let Due { keys, everything } = std::mem::take(&mut *lock(&self.due));
        if everything {
            let mut index = self.index();
            index.forget_found();
            for session in index.watchers() {
                session.mark(|marks| marks.everything = true);
            }
        }
        for (key, exists) in keys {
            let told = self.index().touched(&key, exists);
            for session in told {
                session.mark(|marks| {
                    marks.keys.insert(key.clone());
                });
            }
        }
    }

    /// A number for a new watcher.
    pub fn open(&self) -> u64 {
        self.watchers.fetch_add(1, Relaxed) + 1
    }

    /// Has a watcher watch a pattern; true when what matches has to be looked for, see [`FuzzyIndex`].
    ///
    /// # Errors
    /// There is no room for another pattern on this node.
    pub fn watch(
        &self,
        text: &str,
        pattern: &FuzzyPattern,
        watcher: u64,
        session: &Arc<FuzzySession<K>>,
    ) -> Result<bool, TooManyPatterns> {
        self.index().watch(text, pattern, (watcher, Arc::clone(session)))
    }

    /// Ends a watch.
    pub fn unwatch(&self, text: &str, watcher: u64) {
        self.index().unwatch(text, watcher);
    }

    /// Somebody is going to look for what matches; `None` when nobody has to, see [`FuzzyIndex`].
    pub fn begin_look(&self, text: &str) -> Option<Look> {
        self.index().begin_look(text)
    }

    /// What matches the pattern was looked for.
    pub fn found(&self, text: &str, began: Look, keys: Vec<K>) {
        self.index().found(text, began, keys);
    }

    /// What matches, and whether there is more than that; `None` when it has to be looked for.
    pub fn matched(&self, text: &str) -> Option<(BTreeSet<K>, bool)> {
        let index = self.index();
        let (keys, is_over) = index.matched(text)?;
        Some((keys.clone(), is_over))
    }

    fn index(&self) -> MutexGuard<'_, FuzzyIndex<K, Arc<FuzzySession<K>>>> {
        lock(&self.index)
    }
}

/// Nothing panics while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
