//! What one waiting client has to look at again.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::listeners::Slot;
use super::marks::{Due, Marks};
use crate::config::Client;
use crate::seeded::{self, Bug};

/// A client that waits, and its marks: which of its watches have changed since it looked last.
#[derive(Debug, Default)]
pub struct Session {
    /// Address of the client.
    ip: Box<str>,
    /// Tag of the client.
    tag: Mutex<Option<Box<str>>>,
    marks: Marks<Slot>,
}

impl Session {
    /// Nothing has changed yet for the client with this address, and this tag if it has one.
    pub(super) fn new(ip: &str, tag: Option<&str>) -> Session {
        Session {
            ip: ip.into(),
            tag: Mutex::new(tag.map(Box::from)),
            marks: Marks::default(),
        }
    }

    /// Address of the client.
    pub fn ip(&self) -> &str {
        &self.ip
    }

    /// Gives the client another tag.
    pub fn set_tag(&self, tag: Option<&str>) {
        let mut own = self.tag();
        if own.as_deref() != tag {
            *own = tag.map(Box::from);
        }
    }

    /// Looks with the eyes of the client. `look` must not wait.
    pub fn as_client<R>(&self, look: impl FnOnce(&Client<'_>) -> R) -> R {
        let tag = self.tag();
        look(&Client {
            ip: &self.ip,
            tag: tag.as_deref(),
        })
    }

    /// A watch has to be looked at again.
    pub fn mark(&self, slot: Slot, since: Instant) {
        if !seeded::has(Bug::NeverTold) {
            self.marks.mark(slot, since);
        }
    }

    /// Every watch has to be looked at again.
    pub fn mark_all(&self, since: Instant) {
        self.marks.mark_all(since);
    }

    /// As [`Marks::due`].
    ///
    /// # Cancel safety
    /// As there.
    pub async fn due(&self) -> Due<Slot> {
        self.marks.due().await
    }

    /// Nothing panics while it holds the lock.
    fn tag(&self) -> MutexGuard<'_, Option<Box<str>>> {
        self.tag.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
