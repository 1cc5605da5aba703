//! What still has to be told to one client, and what it has not acknowledged yet: a value without a clock.
//!
//! ```text
//!            mark                 take                  acked
//!  (nothing) ─────▶ ready ───────────────────▶ sent ───────────▶ (nothing)
//!                     ▲                        │  ▲ │   acked, marked meanwhile
//!                     │      rest is over      │  └─┼──────────▶ ready
//!                     └──── resting ◀──────────┘    │
//!                                    failed         └ a mark while sent is remembered
//! ```
//!
//! - At most one push of a subject is outstanding; a change meanwhile is told as soon as that one is
//!   acknowledged, so *the last of a burst always arrives*.
//! - Subjects do not wait for each other, but for the bound on what is outstanding.
//! - A push that fails is sent again after a rest, as often as [`Retries`] says; then the client counts as
//!   dead. A retry tells the present, so it also tells what has changed since.

use std::collections::hash_map::Entry as MapEntry;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

/// Pushes of one client that may wait for their acknowledgement. At the bound the rest waits until one is
/// acknowledged or has timed out.
pub(super) const OUTSTANDING_MAX: usize = 256;

/// When a push that failed is sent again (contract 01 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// Rest after the first failure.
    first: Duration,
    /// What the rest grows by with each further one.
    step: Duration,
    /// Times a push is sent again before the client is given up.
    max: u32,
}

impl Retries {
    /// After 2, 4, 6, … seconds, 50 times (`nacos.config.push.maxRetryTime`).
    pub const GROWING: Retries = Retries {
        first: Duration::from_secs(2),
        step: Duration::from_secs(2),
        max: 50,
    };
    /// Every second, as long as the client is connected.
    pub const STEADY: Retries = Retries {
        first: Duration::from_secs(1),
        step: Duration::ZERO,
        max: u32::MAX,
    };

    /// The rest after so many failures in a row.
    fn rest(self, failures: u32) -> Duration {
        self.first + self.step * failures.saturating_sub(1)
    }
}

/// What still has to be told to one client. `K` is the subject of a push.
#[derive(Debug)]
pub struct Outbox<K> {
    subjects: HashMap<K, Subject>,
    /// Those in state `Ready`, oldest first; exact.
    ready: VecDeque<K>,
    /// Those in state `Resting`, by the end of their rest; exact.
    resting: BTreeSet<(Instant, K)>,
    /// Number of those in state `Sent`.
    outstanding: usize,
    /// Pushes taken again after a failure, since somebody counted them.
    retried: u64,
    retries: Retries,
}

#[derive(Debug)]
struct Subject {
    state: State,
    /// Pushes that failed since one was acknowledged.
    failures: u32,
    /// The oldest change the client does not know of.
    since: Instant,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Ready,
    Sent {
        /// The oldest change since it was sent.
        marked: Option<Instant>,
    },
    Resting {
        until: Instant,
    },
}

/// What follows from a push that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// It is sent again later.
    Rests,
    /// It was sent often enough: the client is dead.
    GiveUp,
}

impl<K> Default for Outbox<K> {
    fn default() -> Outbox<K> {
        Outbox::new(Retries::GROWING)
    }
}

impl<K> Outbox<K> {
    /// Nothing is to be told yet.
    pub fn new(retries: Retries) -> Outbox<K> {
        Outbox {
            subjects: HashMap::new(),
            ready: VecDeque::new(),
            resting: BTreeSet::new(),
            outstanding: 0,
            retried: 0,
            retries,
        }
    }
}

impl<K: Clone + Eq + Hash + Ord> Outbox<K> {
    /// The client has to be told of this.
    pub fn mark(&mut self, subject: K, since: Instant) {
        match self.subjects.entry(subject) {
            MapEntry::Vacant(entry) => {
                self.ready.push_back(entry.key().clone());
                entry.insert(Subject {
                    state: State::Ready,
                    failures: 0,
                    since,
                });
            }
            MapEntry::Occupied(mut entry) => {
                if let State::Sent { marked } = &mut entry.get_mut().state {
                    marked.get_or_insert(since);
                }
            }
        }
    }

    /// A push to send now, which is outstanding from here on; with the moment of the change it tells of.
    pub fn take(&mut self) -> Option<(K, Instant)> {
        if self.outstanding >= OUTSTANDING_MAX {
            return None;
        }
        while let Some(subject) = self.ready.pop_front() {
            if let Some(found) = self.subjects.get_mut(&subject)
                && found.state == State::Ready
            {
                found.state = State::Sent { marked: None };
                self.outstanding += 1;
                self.retried += u64::from(found.failures > 0);
                return Some((subject, found.since));
            }
        }
        None
    }

    /// How many pushes were taken again after a failure since the last call, for the counters.
    pub fn take_retries(&mut self) -> u64 {
        std::mem::take(&mut self.retried)
    }

    /// The client is to be told of this, but not before `until`; what is under way already is not changed.
    pub fn mark_later(&mut self, subject: K, since: Instant, until: Instant) {
        match self.subjects.entry(subject) {
            MapEntry::Vacant(entry) => {
                self.resting.insert((until, entry.key().clone()));
                entry.insert(Subject {
                    state: State::Resting { until },
                    failures: 0,
                    since,
                });
            }
            MapEntry::Occupied(entry) => {
                let subject = entry.key().clone();
                self.mark(subject, since);
            }
        }
    }

    /// The client has taken the push. False if it is to be told again, of what has changed meanwhile.
    pub fn acked(&mut self, subject: &K) -> bool {
        let Some(found) = self.subjects.get_mut(subject) else {
            return true;
        };
        let State::Sent { marked } = found.state else {
            return false;
        };
        self.outstanding -= 1;
        match marked {
            Some(since) => {
                *found = Subject {
                    state: State::Ready,
                    failures: 0,
                    since,
                };
                self.ready.push_back(subject.clone());
            }
            None => drop(self.subjects.remove(subject)),
        }
        marked.is_none()
    }

    /// The client has not taken the push, or nobody knows.
    pub fn failed(&mut self, subject: &K, now: Instant) -> Failed {
        let Some(found) = self.subjects.get_mut(subject) else {
            return Failed::Rests;
        };
        let State::Sent { .. } = found.state else {
            return Failed::Rests;
        };
        self.outstanding -= 1;
        found.failures = found.failures.saturating_add(1);
        let until = now + self.retries.rest(found.failures);
        found.state = State::Resting { until };
        self.resting.insert((until, subject.clone()));
        if found.failures > self.retries.max {
            Failed::GiveUp
        } else {
            Failed::Rests
        }
    }

    /// The client is not to be told any more of what was sent; it does not count as outstanding.
    pub fn drop_sent(&mut self, subject: &K) {
        if let Some(found) = self.subjects.get(subject)
            && let State::Sent { .. } = found.state
        {
            self.outstanding -= 1;
            self.subjects.remove(subject);
        }
    }

    /// Ends the rests that are over by now.
    pub fn wake(&mut self, now: Instant) {
        while let Some((until, _)) = self.resting.first()
            && *until <= now
        {
            let Some((_, subject)) = self.resting.pop_first() else {
                return;
            };
            if let Some(found) = self.subjects.get_mut(&subject) {
                found.state = State::Ready;
                self.ready.push_back(subject);
            }
        }
    }

    /// When [`Outbox::wake`] has something to do next.
    pub fn wakes_at(&self) -> Option<Instant> {
        self.resting.first().map(|(until, _)| *until)
    }

    /// True when there is nothing to tell and nothing outstanding.
    pub fn is_empty(&self) -> bool {
        self.subjects.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn drain(outbox: &mut Outbox<u32>) -> Vec<u32> {
        std::iter::from_fn(|| outbox.take().map(|(subject, _)| subject)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn one_push_of_a_subject_at_a_time_and_the_last_change_is_told() {
        let (mut outbox, now) = (Outbox::default(), clock::now());
        let later = now + Duration::from_secs(1);
        outbox.mark(1, now);
        outbox.mark(1, later);
        outbox.mark(2, now);
        assert_eq!(drain(&mut outbox), [1, 2]);
        outbox.mark(1, later);
        outbox.mark(1, later + Duration::from_secs(1));
        assert_eq!(outbox.take(), None, "one is on its way");
        outbox.acked(&1);
        assert_eq!(outbox.take(), Some((1, later)));
        outbox.acked(&1);
        outbox.acked(&1);
        outbox.acked(&2);
        assert!(outbox.is_empty() && outbox.outstanding == 0);
    }

    #[tokio::test(start_paused = true)]
    async fn retries_come_later_each_time_and_end() {
        let (mut outbox, mut now) = (Outbox::default(), clock::now());
        outbox.mark(1, now);
        for failure in 1..=Retries::GROWING.max {
            assert_eq!(drain(&mut outbox), [1]);
            assert_eq!(outbox.failed(&1, now), Failed::Rests);
            let rest = Duration::from_secs(2 * u64::from(failure));
            assert_eq!(outbox.wakes_at(), Some(now + rest));
            outbox.mark(1, now);
            outbox.wake(now + rest - Duration::from_millis(1));
            assert_eq!(outbox.take(), None);
            now += rest;
            outbox.wake(now);
        }
        assert_eq!(drain(&mut outbox), [1]);
        assert_eq!(outbox.failed(&1, now), Failed::GiveUp);
        assert_eq!(outbox.take_retries(), u64::from(Retries::GROWING.max));
        assert_eq!(outbox.take_retries(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn steady_retries_never_end() {
        let (mut outbox, mut now) = (Outbox::new(Retries::STEADY), clock::now());
        outbox.mark(1, now);
        for _ in 0..1_000 {
            assert_eq!(drain(&mut outbox), [1]);
            assert_eq!(outbox.failed(&1, now), Failed::Rests);
            now += Duration::from_secs(1);
            assert_eq!(outbox.wakes_at(), Some(now));
            outbox.wake(now);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_to_be_told_later_waits_and_holds_nobody() {
        let (mut outbox, now) = (Outbox::default(), clock::now());
        let later = now + Duration::from_millis(20);
        outbox.mark_later(1, now, later);
        outbox.mark_later(1, now, later + Duration::from_secs(1));
        outbox.mark(1, now);
        outbox.mark(2, now);
        assert_eq!(drain(&mut outbox), [2]);
        assert_eq!(outbox.wakes_at(), Some(later));
        outbox.wake(later);
        assert_eq!(drain(&mut outbox), [1]);
        outbox.mark_later(1, later, later + Duration::from_secs(1));
        outbox.acked(&1);
        assert_eq!(
            drain(&mut outbox),
            [1],
            "under way when it was marked: told as soon as that is acknowledged"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_acknowledgement_ends_the_count_of_failures() {
        let (mut outbox, now) = (Outbox::default(), clock::now());
        outbox.mark(1, now);
        for _ in 0..3 {
            assert_eq!(drain(&mut outbox), [1]);
            outbox.failed(&1, now);
            outbox.wake(now + Duration::from_secs(60));
        }
        assert_eq!(drain(&mut outbox), [1]);
        outbox.mark(1, now);
        outbox.acked(&1);
        assert_eq!(drain(&mut outbox), [1]);
        outbox.failed(&1, now);
        assert_eq!(outbox.wakes_at(), Some(now + Duration::from_secs(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_outstanding_is_bounded_and_nobody_is_forgotten() {
        let (mut outbox, now) = (Outbox::default(), clock::now());
        let all = OUTSTANDING_MAX as u32 + 10;
        (0..all).for_each(|subject| outbox.mark(subject, now));
        assert_eq!(drain(&mut outbox).len(), OUTSTANDING_MAX);
        outbox.acked(&5);
        outbox.failed(&6, now);
        assert_eq!(drain(&mut outbox), [all - 10, all - 9]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_dropped_is_not_told_again_and_may_come_back() {
        let (mut outbox, now) = (Outbox::default(), clock::now());
        outbox.mark(1, now);
        assert_eq!(drain(&mut outbox), [1]);
        outbox.mark(1, now);
        outbox.drop_sent(&1);
        outbox.drop_sent(&1);
        assert_eq!(
            (drain(&mut outbox), outbox.is_empty(), outbox.outstanding),
            (vec![], true, 0)
        );
        outbox.mark(1, now);
        assert_eq!(drain(&mut outbox), [1]);
    }
}
