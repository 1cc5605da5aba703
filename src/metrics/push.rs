//! Counts of what clients are told of changes: of configs, and of services.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::histogram::Histogram;
use super::names;
use super::render::Page;

/// Counters of changes of configs on their way to clients.
#[derive(Debug, Default)]
pub struct Push {
    /// Configs named as changed in answers, those found by the first comparison included.
    pub notifications: AtomicU64,
    /// Listeners refused for want of room.
    pub refused: AtomicU64,
    /// From the apply of a change to the answer that names it, for clients that were waiting.
    pub delay: Histogram,
}

impl Push {
    /// Adds the families.
    pub fn render(&self, page: &mut Page) {
        page.count(&names::PUSH_NOTIFICATIONS, &[], self.notifications.load(Relaxed));
        page.count(&names::PUSH_REFUSED, &[], self.refused.load(Relaxed));
        page.histogram(&names::PUSH_DELAY, &[], &self.delay.read());
    }
}

/// Counters of changes of services on their way to subscribers.
#[derive(Debug, Default)]
pub struct NamingPush {
    /// Pushes that subscribers acknowledged.
    pub succeeded: AtomicU64,
    /// Pushes that were not taken, or not acknowledged in time; each is tried again.
    pub failed: AtomicU64,
    /// Subscriptions refused for want of room.
    pub refused: AtomicU64,
    /// From the change on this node to the push that tells it, in which it may have waited for company.
    pub delay: Histogram,
    /// From a push to its acknowledgement.
    pub cost: Histogram,
    /// The same, the sum and the longest, in microseconds, since somebody reset them.
    cost_us: AtomicU64,
    cost_max_us: AtomicU64,
    cost_count: AtomicU64,
}

/// What became of pushes, as `/v1/ns/operator/push/state` tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PushState {
    /// Pushes that ended.
    pub total: u64,
    /// Those that were acknowledged.
    pub succeeded: u64,
    /// From a push to its acknowledgement, ms; 0 while there was none.
    pub average_ms: f64,
    /// The longest, ms.
    pub longest_ms: f64,
}

impl NamingPush {
    /// A push was acknowledged after so long.
    pub fn acknowledged(&self, cost: Duration) {
        let us = u64::try_from(cost.as_micros()).unwrap_or(u64::MAX);
        self.succeeded.fetch_add(1, Relaxed);
        self.cost.observe(cost);
        self.cost_count.fetch_add(1, Relaxed);
        self.cost_us.fetch_add(us, Relaxed);
        self.cost_max_us.fetch_max(us, Relaxed);
    }

    /// What became of pushes. `reset` begins the average and the longest anew.
    pub fn state(&self, reset: bool) -> PushState {
        let read = |count: &AtomicU64| match reset {
            true => count.swap(0, Relaxed),
            false => count.load(Relaxed),
        };
        let (count, sum_us, longest_us) = (
            read(&self.cost_count),
            read(&self.cost_us),
            read(&self.cost_max_us),
        );
        let succeeded = self.succeeded.load(Relaxed);
        PushState {
            total: succeeded + self.failed.load(Relaxed),
            succeeded,
            average_ms: sum_us as f64 / 1e3 / count.max(1) as f64,
            longest_ms: longest_us as f64 / 1e3,
        }
    }

    /// Adds the families.
    pub fn render(&self, page: &mut Page) {
        for (count, result) in [(&self.succeeded, "acked"), (&self.failed, "failed")] {
            page.count(&names::NAMING_PUSHES, &[("result", result)], count.load(Relaxed));
        }
        page.count(
            &names::NAMING_SUBSCRIBERS_REFUSED,
            &[],
            self.refused.load(Relaxed),
        );
        page.histogram(&names::NAMING_PUSH_DELAY, &[], &self.delay.read());
        page.histogram(&names::NAMING_PUSH_COST, &[], &self.cost.read());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn average_and_longest_begin_anew_when_they_were_reset() {
        let pushes = NamingPush::default();
        assert_eq!(pushes.state(false), PushState::default());
        pushes.acknowledged(Duration::from_millis(1));
        pushes.acknowledged(Duration::from_millis(3));
        pushes.failed.fetch_add(1, Relaxed);
        let expected = PushState {
            total: 3,
            succeeded: 2,
            average_ms: 2.0,
            longest_ms: 3.0,
        };
        assert_eq!(pushes.state(true), expected);
        let after = PushState {
            average_ms: 0.0,
            longest_ms: 0.0,
            ..expected
        };
        assert_eq!(pushes.state(false), after);
    }
}
