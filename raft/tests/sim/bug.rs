//! Bugs of the parts around the core, put there on purpose. The core's own are `raft::Bug`, behind the
//! feature `seeded-bugs`. A simulator is trusted only while it finds each of them.

/// One wrong line in the simulated storage, state machine or runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SimBug {
    /// R1, R2: what waits for a write leaves when the write is handed over.
    SendsBeforeSync,
    /// R15: the log is reset to a snapshot whose file is not on the disk yet.
    ResetBeforeSnapshot,
    /// R16: the applied index is written apart from the effects of the entries it names.
    AppliedIndexApart,
    /// R17: a repeated operation is applied again.
    NoDedup,
    /// R30: a wiped node comes back as the member it was.
    WipeKeepsIncarnation,
    /// R43: a suspicion ends when the log reaches the mark again.
    SuspicionEndsAtMark,
    /// R44: the mark is not lowered before a truncation below it.
    MarkNotLowered,
    /// R48: the highest counter stands for all below it.
    DedupByHighest,
    /// R48: counters start anew in the old session after a restart.
    SessionReused,
    /// R50: a founder with an empty disk forms a cluster beside the living one.
    FoundsTwice,
    /// R51: a suspicion lasts for one boot only.
    SuspicionForgotten,
    /// R52: what the page cache shows after a failed sync is taken for durable.
    CacheTrusted,
}

impl SimBug {
    /// All of them.
    pub(crate) const ALL: [SimBug; 12] = [
        SimBug::SendsBeforeSync,
        SimBug::ResetBeforeSnapshot,
        SimBug::AppliedIndexApart,
        SimBug::NoDedup,
        SimBug::WipeKeepsIncarnation,
        SimBug::SuspicionEndsAtMark,
        SimBug::MarkNotLowered,
        SimBug::DedupByHighest,
        SimBug::SessionReused,
        SimBug::FoundsTwice,
        SimBug::SuspicionForgotten,
        SimBug::CacheTrusted,
    ];
}
