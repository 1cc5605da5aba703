//! What has to be looked at again, noted by many and taken by one.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

/// Marks of one who waits.
///
/// The pusher marks, one task takes. Marks of one thing are one mark, so this never holds more than the client
/// watches, however slow it is.
#[derive(Debug)]
pub struct Marks<K> {
    due: Mutex<Option<Due<K>>>,
    woken: Notify,
}

/// What has to be looked at again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due<K> {
    /// What of it.
    pub which: Which<K>,
    /// When the oldest of the changes happened.
    pub since: Instant,
}

/// What of all that a client watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which<K> {
    /// All of it.
    All,
    /// This.
    Some(BTreeSet<K>),
}

impl<K> Default for Marks<K> {
    fn default() -> Marks<K> {
        Marks {
            due: Mutex::new(None),
            woken: Notify::new(),
        }
    }
}

impl<K: Ord> Marks<K> {
    /// Something has to be looked at again.
    pub fn mark(&self, what: K, since: Instant) {
        let mut marks = self.lock();
        let due = marks.get_or_insert_with(|| Due {
            which: Which::Some(BTreeSet::new()),
            since,
        });
        due.since = due.since.min(since);
        if let Which::Some(marked) = &mut due.which {
            marked.insert(what);
        }
        drop(marks);
        self.woken.notify_one();
    }

    /// Everything has to be looked at again.
    pub fn mark_all(&self, since: Instant) {
        let mut marks = self.lock();
        let since = marks.as_ref().map_or(since, |due| due.since.min(since));
        *marks = Some(Due {
            which: Which::All,
            since,
        });
        drop(marks);
        self.woken.notify_one();
    }

    /// Waits for marks and takes them. For one task at a time.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it: marks are taken in the poll that returns them.
    pub async fn due(&self) -> Due<K> {
        loop {
            if let Some(due) = self.take() {
                return due;
            }
            // A mark set between the look and here has left its permit behind.
            self.woken.notified().await;
        }
    }

    /// Takes the marks that are there.
    pub fn take(&self) -> Option<Due<K>> {
        self.lock().take()
    }

    /// Nothing panics while it holds the lock, and the marks are whole between two calls anyway.
    fn lock(&self) -> MutexGuard<'_, Option<Due<K>>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;

    #[tokio::test(start_paused = true)]
    async fn marks_are_coalesced_and_the_oldest_change_counts() {
        let marks = Marks::default();
        let early = clock::now();
        let late = early + Duration::from_secs(1);
        for (slot, since) in [(2, late), (1, early), (2, late)] {
            marks.mark(slot, since);
        }
        let due = marks.due().await;
        assert_eq!(due.which, Which::Some([1, 2].into()));
        assert_eq!(due.since, early);
        marks.mark(3, late);
        marks.mark_all(late);
        marks.mark(4, early);
        assert_eq!(
            marks.due().await,
            Due {
                which: Which::All,
                since: early
            }
        );
        // The permit of the marks already taken wakes once for nothing, and that is not seen outside.
        let nothing = tokio::time::timeout(Duration::from_secs(60), marks.due()).await;
        assert!(nothing.is_err());
    }

    #[tokio::test]
    async fn a_mark_wakes_the_one_who_waits() {
        let marks = Marks::default();
        let (due, ()) = tokio::join!(marks.due(), async { marks.mark(0, clock::now()) });
        assert_eq!(due.which, Which::Some([0].into()));
    }
}
