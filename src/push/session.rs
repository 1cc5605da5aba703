//! What one waiting client has to look at again.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::{Client, Slot};
use crate::seeded::{self, Bug};

/// A client that waits, and its marks: which of its watches have changed since it looked last.
///
/// The pusher marks, one task takes. Marks of one watch are one mark, so this never holds more than the
/// client watches, however slow it is.
#[derive(Debug, Default)]
pub struct Session {
    /// Address of the client.
    ip: Box<str>,
    inner: Mutex<Inner>,
    woken: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    marks: Option<Due>,
    /// Tag of the client.
    tag: Option<Box<str>>,
}

/// What has to be looked at again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Which watches.
    pub which: Which,
    /// When the oldest of the changes was applied.
    pub since: Instant,
}

/// Which watches of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// All of them: a snapshot took the place of the state.
    All,
    /// These.
    Some(BTreeSet<Slot>),
}

impl Session {
    /// Nothing has changed yet for the client with this address, and this tag if it has one.
    pub(super) fn new(ip: &str, tag: Option<&str>) -> Session {
        let inner = Inner {
            marks: None,
            tag: tag.map(Box::from),
        };
        Session {
            ip: ip.into(),
            inner: Mutex::new(inner),
            woken: Notify::new(),
        }
    }

    /// Address of the client.
    pub fn ip(&self) -> &str {
        &self.ip
    }

    /// Gives the client another tag.
    pub fn set_tag(&self, tag: Option<&str>) {
        let mut inner = self.inner();
        if inner.tag.as_deref() != tag {
            inner.tag = tag.map(Box::from);
        }
    }

    /// Looks with the eyes of the client. `look` must not wait.
    pub fn as_client<R>(&self, look: impl FnOnce(&Client<'_>) -> R) -> R {
        let inner = self.inner();
        look(&Client {
            ip: &self.ip,
            tag: inner.tag.as_deref(),
        })
    }

    /// A watch has to be looked at again.
    pub fn mark(&self, slot: Slot, since: Instant) {
        if seeded::has(Bug::NeverTold) {
            return;
        }
        let mut inner = self.inner();
        let due = inner.marks.get_or_insert_with(|| Due {
            which: Which::Some(BTreeSet::new()),
            since,
        });
        due.since = due.since.min(since);
        if let Which::Some(slots) = &mut due.which {
            slots.insert(slot);
        }
        drop(inner);
        self.woken.notify_one();
    }

    /// Every watch has to be looked at again.
    pub fn mark_all(&self, since: Instant) {
        let mut inner = self.inner();
        let since = inner.marks.as_ref().map_or(since, |due| due.since.min(since));
        inner.marks = Some(Due {
            which: Which::All,
            since,
        });
        drop(inner);
        self.woken.notify_one();
    }

    /// Waits for marks and takes them. For one task at a time.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it: marks are taken in the poll that returns them.
    pub async fn due(&self) -> Due {
        loop {
            if let Some(due) = self.inner().marks.take() {
                return due;
            }
            // A mark set between the look and here has left its permit behind.
            self.woken.notified().await;
        }
    }

    /// Nothing panics while it holds the lock, and the marks are whole between two calls anyway.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;

    #[tokio::test(start_paused = true)]
    async fn marks_are_coalesced_and_the_oldest_change_counts() {
        let session = Session::default();
        let early = clock::now();
        let late = early + Duration::from_secs(1);
        for (slot, since) in [(2, late), (1, early), (2, late)] {
            session.mark(Slot(slot), since);
        }
        let due = session.due().await;
        assert_eq!(due.which, Which::Some([Slot(1), Slot(2)].into()));
        assert_eq!(due.since, early);
        session.mark(Slot(3), late);
        session.mark_all(late);
        session.mark(Slot(4), early);
        assert_eq!(
            session.due().await,
            Due {
                which: Which::All,
                since: early
            }
        );
        // The permit of the marks already taken wakes once for nothing, and that is not seen outside.
        let nothing = tokio::time::timeout(Duration::from_secs(60), session.due()).await;
        assert!(nothing.is_err());
    }

    #[tokio::test]
    async fn a_mark_wakes_the_one_who_waits() {
        let session = Session::default();
        let (due, ()) = tokio::join!(session.due(), async { session.mark(Slot(0), clock::now()) });
        assert_eq!(due.which, Which::Some([Slot(0)].into()));
    }
}
