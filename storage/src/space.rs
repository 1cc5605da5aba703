//! Room on the volume, watched before it is out.
//!
//! Below the reserve the core refuses proposals and followers neither append nor ack; below a quarter of
//! it nothing passes. It lifts at 1.25 times the level that was crossed, so that it does not flap. A
//! write that fails for want of space all the same is a failed write like any other.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use raft::Space;

/// Default reserve.
pub const RESERVE_BYTES: u64 = 512 << 20;

/// Below this size of the volume the default reserve is a tenth of it.
const SMALL_VOLUME_BYTES: u64 = 5 << 30;

/// Size of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Bytes an unprivileged process may still write.
    pub free_bytes: u64,
    /// All bytes.
    pub total_bytes: u64,
}

/// Asks for the size of the volume that holds the data folder.
pub type SpaceProbe = Arc<dyn Fn() -> io::Result<Volume> + Send + Sync>;

/// A probe that asks the file system of `folder`.
pub fn statvfs(folder: &Path) -> SpaceProbe {
    let folder: PathBuf = folder.to_owned();
    Arc::new(move || {
        let stat = rustix::fs::statvfs(&folder)?;
        Ok(Volume {
            free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
            total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        })
    })
}

/// Remembers the level, because leaving one takes more room than entering it.
pub(crate) struct SpaceWatch {
    probe: SpaceProbe,
    reserve_bytes: Option<u64>,
    level: Space,
    free_bytes: u64,
}

impl SpaceWatch {
    pub(crate) fn new(probe: SpaceProbe, reserve_bytes: Option<u64>) -> SpaceWatch {
        SpaceWatch {
            probe,
            reserve_bytes,
            level: Space::Ample,
            free_bytes: 0,
        }
    }

    /// Looks again; `Some` when the level has changed. A probe that fails changes nothing: the next
    /// write will say what is wrong with the disk.
    pub(crate) fn look(&mut self) -> Option<Space> {
        let volume = (self.probe)().ok()?;
        self.free_bytes = volume.free_bytes;
        let level = next_level(self.level, volume.free_bytes, self.reserve(volume));
        let changed = level != self.level;
        self.level = level;
        changed.then_some(level)
    }

    pub(crate) fn level(&self) -> Space {
        self.level
    }

    pub(crate) fn free_bytes(&self) -> u64 {
        self.free_bytes
    }

    fn reserve(&self, volume: Volume) -> u64 {
        self.reserve_bytes
            .unwrap_or(if volume.total_bytes < SMALL_VOLUME_BYTES {
                (volume.total_bytes / 10).min(RESERVE_BYTES)
            } else {
                RESERVE_BYTES
            })
    }
}

/// The level after `level` with this much free.
fn next_level(level: Space, free: u64, reserve: u64) -> Space {
    let quarter = reserve / 4;
    let lift = |bytes: u64| bytes.saturating_add(bytes / 4);
    match level {
        _ if free < quarter => Space::Critical,
        Space::Critical if free < lift(quarter) => Space::Critical,
        _ if free < reserve => Space::Low,
        Space::Low | Space::Critical if free < lift(reserve) => Space::Low,
        _ => Space::Ample,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r23_levels_fall_at_the_reserve_and_lift_a_quarter_above() {
        let steps = [
            (1_000, Space::Ample),
            (999, Space::Low),
            (1_249, Space::Low),
            (1_250, Space::Ample),
            (250, Space::Low),
            (249, Space::Critical),
            (311, Space::Critical),
            (312, Space::Low),
            (2_000, Space::Ample),
            (0, Space::Critical),
            (1_100, Space::Low),
        ];
        let mut level = Space::Ample;
        for (free, expected) in steps {
            level = next_level(level, free, 1_000);
            assert_eq!(level, expected, "with {free} free");
        }
    }
}
