//! What a client has taken notice of and not looked at since: it is told again, a few times. A value without a
//! clock.
//!
//! An SDK that acknowledges a notification may forget it all the same: Go (2.3.5) takes every config that it
//! listens to for up to date while it handles the answer to a listen, those it was notified of meanwhile included,
//! and would not look again for five minutes. Contract 01 §3 has retries of notifications end; these do, too.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

/// Rest before a client is told again, doubled each time. Python and Go look within 5 s at the latest.
const FIRST: Duration = Duration::from_secs(6);
/// Times that a client is told again of one change. Whoever does not look then does not want to, or finds out by
/// its own comparison.
const TIMES_MAX: u32 = 3;
/// From one reminder of a client to the next: SDKs forget what comes together.
const APART: Duration = Duration::from_millis(100);
/// Subjects that one client may be told of again. At the bound none is added.
const SUBJECTS_MAX: usize = 10_000;

/// What one client was told of and may have to be told again.
#[derive(Debug)]
pub struct Reminders<K> {
    subjects: HashMap<K, Reminder>,
    /// When each is due that is not on its way already; exact.
    timers: BTreeSet<(Instant, K)>,
    /// None is due before.
    rests_until: Option<Instant>,
}

#[derive(Debug, Default)]
struct Reminder {
    /// Times it was told again.
    times: u32,
    /// `None` while it is being told.
    due: Option<Instant>,
}

impl<K> Default for Reminders<K> {
    fn default() -> Reminders<K> {
        Reminders {
            subjects: HashMap::new(),
            timers: BTreeSet::new(),
            rests_until: None,
        }
    }
}

impl<K: Clone + Eq + Hash + Ord> Reminders<K> {
    /// The client has acknowledged that it was told.
    pub fn told(&mut self, subject: &K, now: Instant) {
        if self.subjects.len() >= SUBJECTS_MAX && !self.subjects.contains_key(subject) {
            return;
        }
        let reminder = self.subjects.entry(subject.clone()).or_default();
        let before = reminder.due.take();
        let rest = FIRST * 2_u32.saturating_pow(reminder.times);
        let due = (reminder.times < TIMES_MAX).then(|| now + rest);
        reminder.due = due;
        if let Some(before) = before {
            self.timers.remove(&(before, subject.clone()));
        }
        match due {
            Some(due) => drop(self.timers.insert((due, subject.clone()))),
            None => self.forget(subject),
        }
    }

    /// It has changed anew, or the client has looked: what was counted is over.
    pub fn forget(&mut self, subject: &K) {
        if let Some(reminder) = self.subjects.remove(subject)
            && let Some(due) = reminder.due
        {
            self.timers.remove(&(due, subject.clone()));
        }
        if self.subjects.is_empty() {
            // Most clients are told of nothing for hours.
            *self = Reminders {
                rests_until: self.rests_until,
                ..Reminders::default()
            };
        }
    }

    /// What may have to be told again now. [`Reminders::told`] or [`Reminders::forget`] follows.
    pub fn take(&mut self, now: Instant) -> Option<K> {
        if self.wakes_at()? > now {
            return None;
        }
        let (_, subject) = self.timers.pop_first()?;
        if let Some(reminder) = self.subjects.get_mut(&subject) {
            reminder.times += 1;
            reminder.due = None;
        }
        Some(subject)
    }

    /// The client was told again of what was taken.
    pub fn rest(&mut self, now: Instant) {
        self.rests_until = Some(now + APART);
    }

    /// When [`Reminders::take`] has something to give next.
    pub fn wakes_at(&self) -> Option<Instant> {
        let (first, _) = self.timers.first()?;
        Some(self.rests_until.map_or(*first, |until| until.max(*first)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[tokio::test(start_paused = true)]
    async fn told_again_later_each_time_and_then_no_more() {
        let (mut reminders, mut now) = (Reminders::default(), clock::now());
        reminders.told(&1, now);
        for times in 0..TIMES_MAX {
            let due = now + FIRST * 2_u32.pow(times);
            assert_eq!(reminders.wakes_at(), Some(due));
            assert_eq!(reminders.take(due - Duration::from_millis(1)), None);
            assert_eq!(reminders.take(due), Some(1));
            assert_eq!(reminders.wakes_at(), None, "it is on its way");
            reminders.rest(due);
            now = due + Duration::from_millis(3);
            reminders.told(&1, now);
        }
        assert_eq!(reminders.wakes_at(), None);
        assert!(reminders.subjects.is_empty() && reminders.timers.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_change_is_counted_anew() {
        let (mut reminders, now) = (Reminders::default(), clock::now());
        for _ in 0..10 {
            reminders.told(&1, now);
            assert_eq!(reminders.take(now + FIRST), Some(1));
            reminders.forget(&1);
        }
        reminders.told(&1, now);
        reminders.told(&1, now + FIRST);
        assert_eq!(
            reminders.take(now + FIRST),
            None,
            "told of another change meanwhile"
        );
        assert_eq!(reminders.take(now + 2 * FIRST), Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn one_at_a_time() {
        let (mut reminders, now) = (Reminders::default(), clock::now());
        for subject in 0..3 {
            reminders.told(&subject, now);
        }
        let mut at = now + FIRST;
        for subject in 0..3 {
            assert_eq!(reminders.take(at), Some(subject));
            reminders.rest(at);
            assert_eq!(reminders.take(at), None);
            at += APART;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_is_bounded() {
        let (mut reminders, now) = (Reminders::default(), clock::now());
        for subject in 0..SUBJECTS_MAX + 10 {
            reminders.told(&subject, now);
        }
        assert_eq!(reminders.subjects.len(), SUBJECTS_MAX);
        for subject in 0..SUBJECTS_MAX + 10 {
            reminders.forget(&subject);
        }
        assert!(reminders.timers.is_empty());
    }
}
