//! What the replicated state says of naming, read as a whole: after a start, in the place of a snapshot, and when
//! this node begins anew.
//!
//! Reading takes as long as the disk does, so it is done without the registry's lock, on a thread of its own. What
//! the applier feeds meanwhile may or may not be among the rows that are read. It is noted and fed again behind
//! them: a row says what is, so the last word on each of them is the newest one, however often the others come.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::node::Discovery;
use crate::clock;
use crate::error::Result;
use crate::naming::Replicated;

/// After a failed read the next one waits so long.
const AGAIN: Duration = Duration::from_secs(1);
/// Changes noted during one read. Beyond it what is being read is of no use, and it is read again.
const MISSED_MAX: usize = 10_000;

/// Whether the registry holds what the replicated state says.
#[derive(Debug)]
pub(super) enum Fed {
    /// It does.
    Yes,
    /// All of it is to be read.
    No,
    /// It is being read; what was fed since that began.
    Reading(Vec<Replicated>),
}

impl Fed {
    /// Changes were fed.
    fn note(&mut self, changes: &[Replicated]) {
        let Fed::Reading(missed) = self else { return };
        if missed.len() + changes.len() > MISSED_MAX {
            *self = Fed::No;
        } else {
            missed.extend_from_slice(changes);
        }
    }
}

/// Reads under way, one at a time.
#[derive(Debug, Default)]
pub(super) struct Reads {
    under_way: Option<JoinHandle<()>>,
    /// Not before.
    next: Option<Instant>,
}

impl Discovery {
    /// What the replicated state says now, change by change. In log order, from one thread.
    pub fn feed(&self, changes: &[Replicated]) {
        let mut shared = self.lock();
        let now_ms = self.now_ms();
        for change in changes {
            shared.registry.feed(now_ms, change);
        }
        shared.fed.note(changes);
        self.tell(&mut shared);
    }

    /// The replicated state was replaced as a whole. Blocks. Called by whoever feeds.
    ///
    /// # Errors
    /// It cannot be read; readers go on to see what was there before, and it is tried again.
    pub fn reload(&self) -> Result<()> {
        let rows = (self.rows)();
        let mut shared = self.lock();
        let now_ms = self.now_ms();
        // A read that is under way may have begun before.
        let rows = rows.inspect_err(|_| shared.fed = Fed::No)?;
        shared.registry.feed_all(now_ms, rows);
        shared.fed = Fed::Yes;
        self.tell(&mut shared);
        Ok(())
    }

    /// Begins to read what is to be read, unless that is being done. Called with every turn.
    pub(super) fn read_rows(self: &Arc<Self>, reads: &mut Reads) {
        let busy = reads.under_way.as_ref().is_some_and(|read| !read.is_finished());
        if busy || reads.next.is_some_and(|next| clock::now() < next) {
            return;
        }
        {
            let mut shared = self.lock();
            if matches!(shared.fed, Fed::Yes) {
                return;
            }
            shared.fed = Fed::Reading(Vec::new());
        }
        reads.next = Some(clock::now() + AGAIN);
        let this = Arc::clone(self);
        reads.under_way = Some(tokio::task::spawn_blocking(move || this.read_rows_now()));
    }

    fn read_rows_now(&self) {
        let rows = (self.rows)();
        let mut shared = self.lock();
        let now_ms = self.now_ms();
        // Whatever took its place meanwhile is newer.
        let Fed::Reading(missed) = &mut shared.fed else {
            return;
        };
        let missed = std::mem::take(missed);
        match rows {
            Ok(rows) => {
                shared.registry.feed_all(now_ms, rows);
                for change in &missed {
                    shared.registry.feed(now_ms, change);
                }
                shared.fed = Fed::Yes;
                self.tell(&mut shared);
            }
            Err(error) => {
                shared.fed = Fed::No;
                tracing::error!(%error, "persistent instances cannot be read, lists are not answered: tried again");
            }
        }
    }
}
