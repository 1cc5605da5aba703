//! The only place that asks what time it is, so that tests can move it and the replicated state cannot see
//! it (clippy.toml bans the other ways).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Monotonic time, for deadlines and durations. Follows tokio's clock: a test that pauses it moves it.
pub fn now() -> Instant {
    Instant::now()
}

/// The wall clock, milliseconds since 1970. It may jump either way: it is shown to people and travels in
/// commands, and decides nothing.
pub fn wall_ms() -> i64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}
