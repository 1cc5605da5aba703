//! Log lines about failures, each source once a minute: whoever knocks all day does not fill the disk.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Mutex;

use tokio::time::Instant;

use super::limits::{LOG_EVERY, SOURCES_MAX};

/// Which sources failed lately. The key `None` stands for all sources beyond the limit.
#[derive(Debug)]
pub struct Failures<K>(Mutex<HashMap<Option<K>, Seen>>);

#[derive(Debug)]
struct Seen {
    logged: Instant,
    /// Failures since then that were not logged.
    silent: u64,
}

impl<K: Eq + Hash> Failures<K> {
    /// Nobody has failed.
    #[expect(clippy::new_without_default, reason = "one constructor is enough")]
    pub fn new() -> Failures<K> {
        Failures(Mutex::new(HashMap::new()))
    }

    /// A failure of `source`: `Some` when it is to be logged, with how many were not since the last line.
    pub fn note(&self, source: K, now: Instant) -> Option<u64> {
        let mut sources = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut key = Some(source);
        if sources.len() >= SOURCES_MAX && !sources.contains_key(&key) {
            sources.retain(|_, seen| now < seen.logged + LOG_EVERY);
            if sources.len() >= SOURCES_MAX {
                key = None;
            }
        }
        let Some(seen) = sources.get_mut(&key) else {
            sources.insert(
                key,
                Seen {
                    logged: now,
                    silent: 0,
                },
            );
            return Some(0);
        };
        if now < seen.logged + LOG_EVERY {
            seen.silent += 1;
            return None;
        }
        seen.logged = now;
        Some(std::mem::take(&mut seen.silent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[tokio::test(start_paused = true)]
    async fn each_source_is_logged_once_a_minute_and_many_share_one_line() {
        let failures = Failures::new();
        assert_eq!(failures.note(0, clock::now()), Some(0));
        assert_eq!(failures.note(0, clock::now()), None);
        assert_eq!(failures.note(0, clock::now()), None);
        let others = (1..10_000)
            .filter(|source| failures.note(*source, clock::now()).is_some())
            .count();
        assert_eq!(
            others, SOURCES_MAX,
            "one line each, and one for all that are too many"
        );
        tokio::time::advance(LOG_EVERY).await;
        assert_eq!(failures.note(0, clock::now()), Some(2));
    }
}
