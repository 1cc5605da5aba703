//! Deadlines, found when they are due and not by looking at everybody.

use std::collections::BTreeMap;

/// Width of a slot, ms: deadlines come late by at most this.
const SLOT_MS: u64 = 100;

/// Things to look at later, in slots of 100 ms. Setting one costs the logarithm of the number of slots in
/// use (300 for the usual 30 s), taking the due ones costs what is due.
///
/// A deadline that has moved is not searched for: whoever takes the old one finds that it is early and sets
/// it again.
#[derive(Debug)]
pub(super) struct Wheel<T> {
    slots: BTreeMap<u64, Vec<T>>,
}

impl<T> Default for Wheel<T> {
    fn default() -> Wheel<T> {
        Wheel {
            slots: BTreeMap::new(),
        }
    }
}

impl<T> Wheel<T> {
    /// Has `item` looked at once `at_ms` has come.
    pub(super) fn set(&mut self, at_ms: u64, item: T) {
        self.slots.entry(at_ms.div_ceil(SLOT_MS)).or_default().push(item);
    }

    /// Takes what is due, the earliest slots first and at most `count_max`; the rest with the next call.
    pub(super) fn take_due(&mut self, now_ms: u64, count_max: usize) -> Vec<T> {
        let mut due = Vec::new();
        while let Some(mut slot) = self.slots.first_entry()
            && *slot.key() <= now_ms / SLOT_MS
        {
            let room = count_max - due.len();
            let items = slot.get_mut();
            if items.len() > room {
                due.extend(items.drain(items.len() - room..));
                break;
            }
            due.append(&mut slot.remove());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_comes_early_and_nothing_later_than_a_slot() {
        let mut wheel = Wheel::default();
        for at in [0, 1, 99, 100, 101, 250, 30_000] {
            wheel.set(at, at);
        }
        let mut taken = Vec::new();
        for now in 0..=30_000 {
            for at in wheel.take_due(now, usize::MAX) {
                assert!(at <= now && now < at + SLOT_MS, "{at} at {now}");
                taken.push(at);
            }
        }
        assert_eq!(taken, [0, 1, 99, 100, 101, 250, 30_000]);
        assert!(wheel.slots.is_empty());
    }

    #[test]
    fn of_many_that_are_due_some_are_taken_at_a_time() {
        let mut wheel = Wheel::default();
        for at in [100, 100, 100, 200, 200, 900] {
            wheel.set(at, at);
        }
        assert_eq!(wheel.take_due(300, 2), [100, 100]);
        assert_eq!(wheel.take_due(300, 2), [100, 200]);
        assert_eq!(wheel.take_due(300, 2), [200]);
        assert_eq!(wheel.take_due(300, 2), [0; 0]);
    }
}
