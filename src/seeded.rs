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
    /// `never-told`: those who listen to configs or subscribe to services are not told of a change.
    NeverTold,
    /// `listen-blind`: over gRPC, listening registers and does not compare: what changed while a client was
    /// away is not told.
    ListenBlind,
    /// `clients-unasked`: whoever asks what clients hold of a config is answered that there are none.
    ClientsUnasked,
    /// `fuzzy-never-told`: those who watch a pattern hear of what was there when they began, and of nothing
    /// after.
    FuzzyNeverTold,
    /// `words-lost`: the weight and the metadata that a client says of an instance are not kept.
    WordsLost,
    /// `not-deregistered`: deregistering an instance says yes and does nothing.
    NotDeregistered,
    /// `batch-adds`: what a batch leaves out stays.
    BatchAdds,
    /// `redo-changes`: registering again what is there makes its weight one more.
    RedoChanges,
    /// `redo-ignored`: registering what is listed already, by whichever node, says yes and does nothing.
    RedoIgnored,
    /// `pushed-empty`: subscribers are pushed the service without its instances.
    PushedEmpty,
    /// `dead-stay`: nobody notices that beats, connections and nodes have ended; what they kept alive stays.
    DeadStay,
    /// `one-takes-all`: an instance goes with one of its owners, however many there are on the node.
    OneTakesAll,
    /// `beats-ignored`: beats say yes and keep nothing alive.
    BeatsIgnored,
    /// `disabled-shown`: disabled instances are listed like others.
    DisabledShown,
    /// `clusters-ignored`: whoever names clusters gets all of them.
    ClustersIgnored,
    /// `groups-mixed`: a service is the same one in every group.
    GroupsMixed,
    /// `pages-ignored`: each page of services is the first.
    PagesIgnored,
    /// `persistent-forgotten`: a persistent instance is kept in the memory of the node that was asked, alone.
    PersistentForgotten,
    /// `empty-at-once`: a node that has just begun lists nothing for three seconds, and goes on with what it knows.
    EmptyAtOnce,
    /// `no-grace`: what a node said is dropped as soon as it is not heard.
    NoGrace,
}

/// Every bug by the value of `SEEDED_BUG`.
#[cfg(feature = "seeded-bugs")]
const NAMES: &[(&str, Bug)] = &[
    ("stale-read", Bug::StaleRead),
    ("lost-ack", Bug::LostAck),
    ("double-apply", Bug::DoubleApply),
    ("unsynced-ack", Bug::UnsyncedAck),
    ("cas-ignored", Bug::CasIgnored),
    ("gray-is-formal", Bug::GrayIsFormal),
    ("content-changed", Bug::ContentChanged),
    ("remove-ignored", Bug::RemoveIgnored),
    ("public-apart", Bug::PublicApart),
    ("never-told", Bug::NeverTold),
    ("listen-blind", Bug::ListenBlind),
    ("clients-unasked", Bug::ClientsUnasked),
    ("fuzzy-never-told", Bug::FuzzyNeverTold),
    ("words-lost", Bug::WordsLost),
    ("not-deregistered", Bug::NotDeregistered),
    ("batch-adds", Bug::BatchAdds),
    ("redo-changes", Bug::RedoChanges),
    ("redo-ignored", Bug::RedoIgnored),
    ("pushed-empty", Bug::PushedEmpty),
    ("dead-stay", Bug::DeadStay),
    ("one-takes-all", Bug::OneTakesAll),
    ("beats-ignored", Bug::BeatsIgnored),
    ("disabled-shown", Bug::DisabledShown),
    ("clusters-ignored", Bug::ClustersIgnored),
    ("groups-mixed", Bug::GroupsMixed),
    ("pages-ignored", Bug::PagesIgnored),
    ("persistent-forgotten", Bug::PersistentForgotten),
    ("empty-at-once", Bug::EmptyAtOnce),
    ("no-grace", Bug::NoGrace),
];

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
    *CHOSEN.get_or_init(|| {
        let given = std::env::var("SEEDED_BUG").ok()?;
        let known = NAMES.iter().find(|(name, _)| *name == given);
        let Some((_, bug)) = known else {
            panic!("SEEDED_BUG={given}: no such bug")
        };
        Some(*bug)
    })
}
