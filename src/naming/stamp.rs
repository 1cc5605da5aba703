//! Logical time of the registry.
//!
//! There are two clocks of it, since two things are asked of it that do not go together.
//!
//! - *Lists* must never seem older than what a subscriber was told before, whatever has happened to this node since:
//!   after a restart their clock begins above all that the run before may have drawn, up to a minute ahead, and
//!   a burst of changes to one service pushes it on by a millisecond each.
//! - *Acts* of clients, of which the later one counts, are ordered by when they were done, on whatever nodes. A clock
//!   that jumps ahead spoils that: what came to a node that has not heard of the jump would count as older than what
//!   was done elsewhere before it, and an instance that was deregistered there would stay. So this one runs as the wall
//!   clock does, over restarts too.

/// A point of logical time, in milliseconds by origin. Of two stamps of one service (`lastRefTime` of Nacos), and of
/// two of one instance, the higher one is the later one, on whatever nodes they were drawn. Those of services are never
/// compared with those of instances: they come from different clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(pub u64);

/// Where stamps come from: a monotonic clock that begins at the wall clock (or above what an earlier run of
/// this node may have drawn) and is pushed forward, never back, by every stamp heard from a peer. So a node
/// with a slow clock draws above what a dead peer had pushed to subscribers, who drop what does not rise.
#[derive(Clone, Debug)]
pub struct StampClock {
    /// The stamp at the monotonic time 0.
    base: u64,
}

impl StampClock {
    /// Begins at `floor`, the higher one of the wall clock (ms since 1970) and the high-water mark of
    /// earlier runs, at the monotonic time `now_ms`.
    pub fn new(floor: u64, now_ms: u64) -> StampClock {
        StampClock {
            base: floor.saturating_sub(now_ms),
        }
    }

    /// The present.
    pub fn now(&self, now_ms: u64) -> Stamp {
        Stamp(self.base.saturating_add(now_ms))
    }

    /// A stamp above `last`, and never below the present.
    pub fn draw(&mut self, now_ms: u64, last: Stamp) -> Stamp {
        let stamp = self.now(now_ms).max(Stamp(last.0.saturating_add(1)));
        self.hear(now_ms, stamp);
        stamp
    }

    /// From now on no stamp below `heard` is drawn.
    pub fn hear(&mut self, now_ms: u64, heard: Stamp) {
        self.base = self.base.max(heard.0.saturating_sub(now_ms));
    }
}

/// The clocks of a registry.
#[derive(Clone, Debug)]
pub struct Clocks {
    /// Stamps of services: what readers and subscribers are told.
    pub lists: StampClock,
    /// Stamps of records: which of several acts on an instance counts.
    pub acts: StampClock,
}

/// Both alike.
impl From<StampClock> for Clocks {
    fn from(clock: StampClock) -> Clocks {
        Clocks {
            lists: clock.clone(),
            acts: clock,
        }
    }
}

impl Clocks {
    /// The present.
    pub fn now(&self, now_ms: u64) -> Times {
        Times {
            lists: self.lists.now(now_ms),
            acts: self.acts.now(now_ms),
        }
    }

    /// From now on nothing below `heard` is drawn.
    pub fn hear(&mut self, now_ms: u64, heard: Times) {
        self.lists.hear(now_ms, heard.lists);
        self.acts.hear(now_ms, heard.acts);
    }
}

/// What the clocks of a registry show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// See [`Clocks::lists`].
    pub lists: Stamp,
    /// See [`Clocks::acts`]. 0 from a node of a version that has one clock.
    pub acts: Stamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_rise_whatever_was_heard() {
        let mut clock = StampClock::new(1_000, 50);
        assert_eq!(clock.now(50), Stamp(1_000));
        assert_eq!(clock.draw(60, Stamp(0)), Stamp(1_010));
        assert_eq!(clock.draw(60, Stamp(1_010)), Stamp(1_011));
        clock.hear(61, Stamp(5_000));
        assert_eq!(clock.draw(61, Stamp(0)), Stamp(5_000));
        assert_eq!(clock.draw(61, Stamp(5_000)), Stamp(5_001));
        clock.hear(62, Stamp(3));
        assert_eq!(clock.now(62), Stamp(5_002), "never back");
    }
}
