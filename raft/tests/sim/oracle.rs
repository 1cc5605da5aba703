//! What an observer who sees everything knows: the one history, who promised what, what clients were told.

use super::invariants::Roll;
use super::invariants::definite_refusals::DefiniteRefusals;
use super::invariants::election_safety::ElectionSafety;
use super::invariants::exactly_once::ExactlyOnce;
use super::invariants::linearizable_reads::Told;
use super::invariants::log_matching::LogMatching;
use super::invariants::state_machine_safety::History;

/// State of the invariants that look at the whole cluster.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    pub(crate) roll: Roll,
    pub(crate) elections: ElectionSafety,
    pub(crate) logs: LogMatching,
    pub(crate) history: History,
    pub(crate) once: ExactlyOnce,
    pub(crate) refusals: DefiniteRefusals,
    pub(crate) told: Told,
}
