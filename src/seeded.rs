//! Bugs put in on purpose (feature `seeded-bugs`), for the harness that has to find them.
//!
//! `jepsen seeded` starts servers built with the feature, one bug at a time, and is content when chaos finds
//! each. `bash tests/sdk/run --broken` does the same with what SDKs can see. Without the feature nothing can
//! be switched on: every check below is a constant `false`, and `SEEDED_BUG` is a variable like any other.

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
    /// `cas-ignored`: the md5 that a publish names is not looked at.
    CasIgnored,
    /// `gray-is-formal`: beta and tag publishes overwrite the content that everybody sees.
    GrayIsFormal,
    /// `content-changed`: contents lose their carriage returns and what comes after 150,000 bytes.
    ContentChanged,
    /// `remove-ignored`: removing says yes and does nothing.
    RemoveIgnored,
    /// `public-apart`: the namespace spelt "public" is another one than the one spelt "".
    PublicApart,
    /// `never-told`: those who listen are not woken by a change.
    NeverTold,
    /// `listen-blind`: over gRPC, listening registers and does not compare: what changed while a client was
    /// away is not told.
    ListenBlind,
    /// `fuzzy-never-told`: those who watch a pattern hear of what was there when they began, and of nothing
    /// after.
    FuzzyNeverTold,
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

/// The content as it is stored: the one given, but for [`Bug::ContentChanged`].
#[must_use]
pub fn content(given: bytes::Bytes) -> bytes::Bytes {
    if !has(Bug::ContentChanged) {
        return given;
    }
    // The tests that look for it put ASCII where it cuts.
    given
        .iter()
        .copied()
        .filter(|byte| *byte != b'\r')
        .take(150_000)
        .collect()
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
        _ => None,
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
        Ok("cas-ignored") => Some(Bug::CasIgnored),
        Ok("gray-is-formal") => Some(Bug::GrayIsFormal),
        Ok("content-changed") => Some(Bug::ContentChanged),
        Ok("remove-ignored") => Some(Bug::RemoveIgnored),
        Ok("public-apart") => Some(Bug::PublicApart),
        Ok("never-told") => Some(Bug::NeverTold),
        Ok("listen-blind") => Some(Bug::ListenBlind),
        Ok("fuzzy-never-told") => Some(Bug::FuzzyNeverTold),
        Ok(other) => panic!("SEEDED_BUG={other}: no such bug"),
    })
}
