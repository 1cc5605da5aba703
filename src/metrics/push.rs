//! Counts of what clients are told of changes.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

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
