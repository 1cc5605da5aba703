//! When what has changed is told: at once where it was quiet, less and less often where telling costs much.
//!
//! ```text
//!           mark            take                told                window over
//!  (quiet) ─────▶ due now ───────▶ being told ───────▶ in its window ───────────▶ (quiet)
//!                    ▲                                   │ marked meanwhile
//!                    └───────────────────────────────────┘ (when the window is over)
//! ```
//!
//! So one change reaches subscribers at once, a storm of them is a few pushes, and the last one always
//! arrives: what is marked in a window is due at its end.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

/// No window is longer, unless very much is told: what users of Nacos know as the time in which changes are merged.
const WINDOW_MAX: Duration = Duration::from_millis(500);
/// No window is longer even then. (A thousand subscribers of a thousand instances are told 340 MB each time.)
const WINDOW_WIDE_MAX: Duration = Duration::from_secs(1);
/// So many bytes to all subscribers together are very much.
const WIDE_BYTES: u64 = 64 << 20;
/// No window is shorter: an SDK that is told compares all hosts.
const WINDOW_MIN: Duration = Duration::from_millis(10);
/// What telling one subscriber costs this node, besides the bytes (`docs/benchmarks.md`).
const TELL_NS: u64 = 20_000;
/// What a byte costs: copying it into a frame, through TLS or the kernel.
const BYTE_NS: u64 = 2;
/// A service takes at most the tenth part of one processor by being told.
const SHARE: u64 = 10;

/// After a service was told to so many, in so many bytes each: how long the next change waits.
pub fn window(subscribers: usize, bytes: usize) -> Duration {
    let (subscribers, bytes) = (subscribers as u64, bytes as u64);
    let each_ns = bytes.saturating_mul(BYTE_NS).saturating_add(TELL_NS);
    let cost_ns = each_ns.saturating_mul(subscribers).saturating_mul(SHARE);
    let max = match bytes.saturating_mul(subscribers) > WIDE_BYTES {
        true => WINDOW_WIDE_MAX,
        false => WINDOW_MAX,
    };
    Duration::from_nanos(cost_ns).clamp(WINDOW_MIN, max)
}

/// What has changed and when it is told: a value without a clock.
#[derive(Debug)]
pub struct Pacing<K> {
    subjects: HashMap<K, Subject>,
    /// When a subject is to be looked at; exact.
    timers: BTreeSet<(Instant, K)>,
}

#[derive(Debug)]
struct Subject {
    /// The oldest change that was not told; `None` in a quiet window.
    since: Option<Instant>,
}

impl<K> Default for Pacing<K> {
    fn default() -> Pacing<K> {
        Pacing {
            subjects: HashMap::new(),
            timers: BTreeSet::new(),
        }
    }
}

impl<K: Clone + Eq + Hash + Ord> Pacing<K> {
    /// Something has changed.
    pub fn mark(&mut self, subject: K, now: Instant) {
        match self.subjects.entry(subject) {
            Entry::Vacant(entry) => {
                self.timers.insert((now, entry.key().clone()));
                entry.insert(Subject { since: Some(now) });
            }
            Entry::Occupied(mut entry) => {
                entry.get_mut().since.get_or_insert(now);
            }
        }
    }

    /// What is to be told now, with the moment of the oldest change it is about. [`Pacing::told`] has to follow
    /// for each.
    pub fn take(&mut self, now: Instant) -> Vec<(K, Instant)> {
        let mut due = Vec::new();
        while let Some((at, _)) = self.timers.first()
            && *at <= now
            && let Some((_, subject)) = self.timers.pop_first()
        {
            match self
                .subjects
                .get_mut(&subject)
                .and_then(|found| found.since.take())
            {
                Some(since) => due.push((subject, since)),
                None => drop(self.subjects.remove(&subject)),
            }
        }
        due
    }

    /// It was told; the next change waits until then.
    pub fn told(&mut self, subject: K, until: Instant) {
        if self.subjects.contains_key(&subject) {
            self.timers.insert((until, subject));
        }
    }

    /// When [`Pacing::take`] has something to do next.
    pub fn wakes_at(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Subjects that are to be told, or were told a moment ago.
    pub fn len(&self) -> usize {
        self.subjects.len()
    }

    /// True when everything is quiet.
    pub fn is_empty(&self) -> bool {
        self.subjects.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn the_first_change_is_told_at_once_and_the_last_at_the_end_of_the_window() {
        let (mut pacing, now) = (Pacing::default(), clock::now());
        pacing.mark("s", now);
        assert_eq!(pacing.take(now), [("s", now)]);
        pacing.told("s", now + 100 * MS);
        for ms in 1..100 {
            pacing.mark("s", now + ms * MS);
            assert_eq!(pacing.take(now + ms * MS), []);
        }
        assert_eq!(pacing.wakes_at(), Some(now + 100 * MS));
        assert_eq!(pacing.take(now + 100 * MS), [("s", now + MS)]);
        pacing.told("s", now + 200 * MS);
        assert_eq!(pacing.take(now + 200 * MS), []);
        assert!(pacing.is_empty() && pacing.wakes_at().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_while_it_is_told_is_told_afterwards() {
        let (mut pacing, now) = (Pacing::default(), clock::now());
        pacing.mark("s", now);
        assert_eq!(pacing.take(now), [("s", now)]);
        pacing.mark("s", now + MS);
        assert_eq!(pacing.take(now + 5 * MS), []);
        pacing.told("s", now + 20 * MS);
        assert_eq!(pacing.take(now + 20 * MS), [("s", now + MS)]);
    }

    #[tokio::test(start_paused = true)]
    async fn services_do_not_wait_for_each_other() {
        let (mut pacing, now) = (Pacing::default(), clock::now());
        pacing.mark("loud", now);
        pacing.take(now);
        pacing.told("loud", now + 500 * MS);
        pacing.mark("loud", now + MS);
        pacing.mark("quiet", now + 2 * MS);
        assert_eq!(pacing.take(now + 2 * MS), [("quiet", now + 2 * MS)]);
    }

    #[test]
    fn the_window_grows_with_what_telling_costs_and_ends_at_what_users_know() {
        assert_eq!(window(0, 0), WINDOW_MIN);
        assert_eq!(window(1, 300), WINDOW_MIN);
        assert_eq!(window(100, 10_000), Duration::from_millis(40));
        assert_eq!(window(1_000, 60_000), WINDOW_MAX);
        assert_eq!(window(1_000, 300_000), WINDOW_WIDE_MAX);
        assert_eq!(window(usize::MAX, usize::MAX), WINDOW_WIDE_MAX);
        // A storm of a thousand registrations within a second, a hundred subscribers: a few pushes each.
        let pushes = Duration::from_secs(1).as_millis() / window(100, 150_000).as_millis();
        assert!(pushes <= 4, "{pushes}");
    }
}
