//! Times in ticks, limits in bytes and counts.

use crate::error::ConfigError;

/// Settings of the core. The owner decides how long a tick is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Ticks between two heartbeats of a leader. Default 5 (of 20 ms: 100 ms).
    pub heartbeat_ticks: u32,
    /// Shortest election timeout; each one is drawn anew from `election_ticks..2 * election_ticks`.
    /// Also the time in which a leader must hear from a quorum and a follower refuses other
    /// candidates. Default 25 (500 ms).
    pub election_ticks: u32,
    /// Largest payload of an entry. Default 12 MiB.
    pub entry_bytes_max: usize,
    /// Entries of one append message, by [`crate::Entry::size_bytes`]; one larger entry still travels
    /// alone. Default 1 MiB.
    pub append_bytes_max: usize,
    /// Appends under way to one member without an answer. Default 256.
    pub inflight_count_max: usize,
    /// Their bytes. Default 32 MiB.
    pub inflight_bytes_max: usize,
    /// Bytes the leader has appended and not committed; beyond it proposals are refused. Default 64 MiB.
    pub uncommitted_bytes_max: usize,
    /// Bytes given out to be applied and not confirmed; the rest waits. Default 32 MiB.
    pub unapplied_bytes_max: usize,
    /// Applied and durable entries kept in memory for followers; a node without any keeps none.
    /// Default 16 MiB.
    pub cache_bytes_max: usize,
    /// Log kept behind the applied index for slow members. Default 64 MiB.
    pub retained_bytes_max: usize,
    /// One piece of a snapshot. Default 1 MiB.
    pub chunk_bytes_max: usize,
    /// Pieces under way to one member. Default 4.
    pub chunk_inflight_max: usize,
    /// Readers that may wait for an index at once; beyond it they are refused. Default 65,536.
    pub readers_max: usize,
    /// The guard that is switched off, to prove that tests notice.
    #[cfg(feature = "seeded-bugs")]
    pub bug: Option<crate::Bug>,
}

impl Default for Config {
    fn default() -> Config {
        const MIB: usize = 1 << 20;
        Config {
            heartbeat_ticks: 5,
            election_ticks: 25,
            entry_bytes_max: 12 * MIB,
            append_bytes_max: MIB,
            inflight_count_max: 256,
            inflight_bytes_max: 32 * MIB,
            uncommitted_bytes_max: 64 * MIB,
            unapplied_bytes_max: 32 * MIB,
            cache_bytes_max: 16 * MIB,
            retained_bytes_max: 64 * MIB,
            chunk_bytes_max: MIB,
            chunk_inflight_max: 4,
            readers_max: 65_536,
            #[cfg(feature = "seeded-bugs")]
            bug: None,
        }
    }
}

/// Longest election timeout in ticks; beyond it sums of ticks could overflow. No use has so many.
const TICKS_MAX: u32 = 1 << 20;

impl Config {
    /// Checks what the core relies on.
    ///
    /// # Errors
    /// A window that does not hold two of the largest entry could never let one through.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let is_out_of_range = self.heartbeat_ticks == 0 || self.election_ticks > TICKS_MAX;
        if is_out_of_range || self.election_ticks / 2 < self.heartbeat_ticks {
            return Err(ConfigError::Ticks);
        }
        let minimum = 2 * (self.entry_bytes_max + crate::Entry::OVERHEAD_BYTES);
        let windows = [
            ("inflight_bytes_max", self.inflight_bytes_max),
            ("uncommitted_bytes_max", self.uncommitted_bytes_max),
            ("unapplied_bytes_max", self.unapplied_bytes_max),
        ];
        for (name, bytes) in windows {
            if bytes < minimum {
                return Err(ConfigError::LimitTooSmall { name, minimum });
            }
        }
        Ok(())
    }
}
