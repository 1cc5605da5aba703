//! The high-water mark of stamps on the disk.

use storage::{Watermark, WatermarkFile};

/// So far ahead of the logical clock the mark is set, ms.
const AHEAD_MS: u64 = 60_000;
/// With so little left it is set anew, ms.
const RENEW_MS: u64 = 30_000;
/// So far the clock of acts may move against the wall clock before that is written, ms.
const MOVED_MS: u64 = 500;

/// What the last run has left.
#[derive(Debug)]
pub(super) struct Left {
    /// The mark of this run.
    pub(super) reserve: Reserve,
    /// Where stamps of lists begin: the higher one of the wall clock and the mark.
    pub(super) floor: u64,
    /// Where stamps of acts begin: as if their clock had run on.
    pub(super) acts_floor: u64,
    /// Whether clients of the last run will bring back what it held.
    pub(super) held: bool,
    /// For how long there was no run, by the wall clock and to half a minute, ms.
    pub(super) away_ms: u64,
}

/// What the next run is to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// The present on the clock of lists.
    pub(super) lists_ms: u64,
    /// By how much the clock of acts is ahead of the wall clock, ms: other nodes' wall clocks are, or this one's was
    /// set back.
    pub(super) ahead_ms: u64,
    /// This node holds something that clients will bring again.
    pub(super) in_use: bool,
}

/// What lies on the disk, and when it is to be replaced.
#[derive(Debug)]
pub(super) struct Reserve {
    file: WatermarkFile,
    /// What was stored last.
    stored: Watermark,
    /// The last try failed, and it was said.
    failed: bool,
}

impl Reserve {
    /// Reads what the last run left and reserves for this one. Blocks.
    ///
    /// # Errors
    /// The disk.
    pub(super) fn open(file: WatermarkFile, wall_ms: u64) -> Result<Left, storage::StorageError> {
        let last = match file.load() {
            Ok(last) => last.unwrap_or_default(),
            Err(error) => {
                tracing::error!(%error, "the high-water mark of naming (`naming` in the data folder) cannot be read: \
                    stamps begin at the wall clock, and clients of the last run are waited for");
                Watermark {
                    reserved: 0,
                    in_use: true,
                    ahead_ms: 0,
                }
            }
        };
        let floor = last.reserved.max(wall_ms);
        let stored = Watermark {
            reserved: floor + AHEAD_MS,
            ..last
        };
        file.store(stored)?;
        let reserve = Reserve {
            file,
            stored,
            failed: false,
        };
        Ok(Left {
            reserve,
            floor,
            acts_floor: wall_ms.saturating_add(last.ahead_ms),
            held: last.in_use,
            away_ms: wall_ms.saturating_sub(last.reserved.saturating_sub(AHEAD_MS)),
        })
    }

    /// True when the mark has to be set anew. That nothing is held any more can wait for the next time.
    pub(super) fn is_due(&self, known: Known) -> bool {
        known.lists_ms + RENEW_MS >= self.stored.reserved
            || (known.in_use && !self.stored.in_use)
            || known.ahead_ms.abs_diff(self.stored.ahead_ms) > MOVED_MS
    }

    /// Sets the mark ahead of the clock of lists. Blocks. A disk that fails keeps nobody from registering: stamps
    /// then rise over a restart as long as the wall clock does, and it is tried again.
    pub(super) fn renew(&mut self, known: Known) {
        let wanted = Watermark {
            reserved: known.lists_ms + AHEAD_MS,
            in_use: known.in_use,
            ahead_ms: known.ahead_ms,
        };
        match self.file.store(wanted) {
            Ok(()) => {
                self.stored = wanted;
                self.failed = false;
            }
            Err(error) if !self.failed => {
                self.failed = true;
                tracing::error!(%error, "the high-water mark of naming cannot be written: free the disk; tried again");
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_begins_above_what_was_given_out() {
        let folder = tempfile::tempdir().unwrap();
        let file = WatermarkFile::in_folder(folder.path());
        let left = Reserve::open(file.clone(), 1_000_000).unwrap();
        assert_eq!((left.floor, left.held), (1_000_000, false));
        let mut reserve = left.reserve;
        let known = |lists_ms, in_use| Known {
            lists_ms,
            ahead_ms: 7,
            in_use,
        };
        assert!(!reserve.is_due(known(1_000_001, false)));
        assert!(
            reserve.is_due(known(1_000_001, true)),
            "that there is something is told at once"
        );
        reserve.renew(known(1_040_000, true));
        assert!(!reserve.is_due(known(1_050_000, true)));
        assert!(!reserve.is_due(known(1_050_000, false)));
        assert!(reserve.is_due(known(1_070_000, true)));
        let moved = Known {
            ahead_ms: 600,
            ..known(1_050_000, true)
        };
        assert!(reserve.is_due(moved), "by that much acts would be out of order");
        // The clock was set back.
        let left = Reserve::open(file.clone(), 5).unwrap();
        assert_eq!((left.floor, left.held, left.away_ms), (1_100_000, true, 0));
        assert_eq!(left.acts_floor, 12, "what is reserved is no matter for acts");
        let left = Reserve::open(file, 2_000_000).unwrap();
        assert_eq!(left.away_ms, 900_000, "it began at 1,100,000 by its own clock");
    }
}
