//! Mistakes made on purpose, one at a time: the simulation is trusted only while it finds each of them. Some can
//! be made by a server built to be wrong, too ([`crate::seeded`]).

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// The stamp of a service is the time, whatever it was before.
    StampsDoNotRise,
    /// A beat renews this node's record although another one stands above it.
    BeatStaysBelow,
    /// Turning unhealthy draws a stamp, as if a client had acted.
    TimerDrawsStamp,
    /// A deregistration takes away this node's records and covers nothing.
    NoTombstone,
    /// A tombstone is forgotten after two seconds, whoever has not heard of it.
    TombstoneForgotten,
    /// Records of a node that is not heard are dropped at once.
    NoGrace,
    /// Records of a node that is not heard are kept for ever.
    GraceNeverEnds,
    /// What was removed stays in the digest.
    RemovedStaysInDigest,
    /// A restarted node does not fetch what its earlier boot had said.
    OwnBootIgnored,
    /// A starting node answers at once.
    NoLoad,
    /// A connection that ends takes other connections' records of its instances along.
    DisconnectTakesAll,
    /// An instance that is heard of again stays unhealthy.
    NoRevival,
    /// Beats that go elsewhere from now on are missed here by the old deadline.
    NoFreshDeadline,
    /// Removals are not sent.
    RemovalsAreNotSent,
    /// Nobody is told with which stamp a node shows what it has heard.
    StampsAreKept,
    /// Who begins beside nodes that wait for their clients answers at once.
    NoCommonWait,
}

impl Bug {
    /// All of them.
    #[cfg(test)]
    pub(crate) const ALL: [Bug; 16] = [
        Bug::StampsDoNotRise,
        Bug::BeatStaysBelow,
        Bug::TimerDrawsStamp,
        Bug::NoTombstone,
        Bug::TombstoneForgotten,
        Bug::NoGrace,
        Bug::GraceNeverEnds,
        Bug::RemovedStaysInDigest,
        Bug::OwnBootIgnored,
        Bug::NoLoad,
        Bug::DisconnectTakesAll,
        Bug::NoRevival,
        Bug::NoFreshDeadline,
        Bug::RemovalsAreNotSent,
        Bug::StampsAreKept,
        Bug::NoCommonWait,
    ];
}

#[cfg(test)]
std::thread_local! {
    static MADE: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Makes a mistake in this thread from now on, or none.
#[cfg(test)]
pub(crate) fn make(bug: Option<Bug>) {
    MADE.set(bug);
}

/// True where a test has asked for this mistake.
#[cfg(test)]
pub(crate) fn has(bug: Bug) -> bool {
    MADE.get() == Some(bug)
}

/// Never in a server, but for one that is built to be wrong.
#[cfg(not(test))]
pub(crate) fn has(bug: Bug) -> bool {
    use crate::seeded;
    match bug {
        Bug::DisconnectTakesAll => seeded::has(seeded::Bug::OneTakesAll),
        Bug::NoGrace => seeded::has(seeded::Bug::NoGrace),
        Bug::GraceNeverEnds => seeded::has(seeded::Bug::DeadStay),
        _ => false,
    }
}
