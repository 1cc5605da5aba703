//! Logical time of the registry.

/// A point of logical time, in milliseconds by origin: `lastRefTime` of Nacos. Of two stamps of one service
/// the higher one is the later one, on whatever nodes they were drawn.
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
