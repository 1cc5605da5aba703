//! Bugs put in on purpose (feature `seeded-bugs`), for the harness that has to find them.
//!
//! `jepsen seeded` starts servers built with the feature, one bug at a time, and is content when chaos finds
//! each. Without the feature nothing can be switched on: every check below is a constant `false`, and
//! `SEEDED_BUG` is a variable like any other.

/// What to do wrong; the value of `SEEDED_BUG` stands beside each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// `stale-read`: a node answers linearizable reads from what it has, without asking the leader. (A leader
    /// that answers without asking whether it still leads, R9 of the core, is not found by real processes:
    /// it steps down before anybody else is elected. The simulator finds that.)
    StaleRead,
    /// `lost-ack`: a leader acknowledges what it has appended and not committed.
    LostAck,
    /// `double-apply`: a second copy of an operation is applied like the first.
    DoubleApply,
    /// `unsynced-ack`: followers acknowledge, and a leader counts itself, before the sync (R2 of the core).
    UnsyncedAck,
}

/// Whether this bug is switched on.
#[cfg(not(feature = "seeded-bugs"))]
#[must_use]
pub const fn has(_bug: Bug) -> bool {
    false
}

/// Whether this bug is switched on.
#[cfg(feature = "seeded-bugs")]
#[must_use]
pub fn has(bug: Bug) -> bool {
    chosen() == Some(bug)
}

/// Switches on what the core itself can do wrong.
#[cfg(not(feature = "seeded-bugs"))]
pub const fn in_core(_config: &mut raft::Config) {}

/// Switches on what the core itself can do wrong.
#[cfg(feature = "seeded-bugs")]
pub fn in_core(config: &mut raft::Config) {
    let chosen = chosen();
    tracing::warn!(?chosen, "this server is built to be wrong: seeded bug");
    config.bug = match chosen {
        Some(Bug::UnsyncedAck) => Some(raft::Bug::R2),
        Some(Bug::StaleRead | Bug::LostAck | Bug::DoubleApply) | None => None,
    };
}

/// # Panics
/// `SEEDED_BUG` names no bug: a misspelt one would prove that the harness finds nothing.
#[cfg(feature = "seeded-bugs")]
fn chosen() -> Option<Bug> {
    static CHOSEN: std::sync::OnceLock<Option<Bug>> = std::sync::OnceLock::new();
    *CHOSEN.get_or_init(|| match std::env::var("SEEDED_BUG").as_deref() {
        Err(_) => None,
        Ok("stale-read") => Some(Bug::StaleRead),
        Ok("lost-ack") => Some(Bug::LostAck),
        Ok("double-apply") => Some(Bug::DoubleApply),
        Ok("unsynced-ack") => Some(Bug::UnsyncedAck),
        Ok(other) => panic!("SEEDED_BUG={other}: no such bug"),
    })
}
