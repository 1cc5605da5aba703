//! Every write that was answered is there at the end, on every member, and all members are equal
//! (design, "The simulator": the phase without faults).

use raft::Index;

use super::super::machine::Machine;
use super::state_machine_safety::History;
use super::{Checked, Violation};

/// At the end: a member's state against the history. The history holds every answered write by
/// [`super::exactly_once`], and the state is the one of its index by [`super::state_machine_safety`].
pub(crate) fn check(history: &History, told: Index, member: raft::NodeId, machine: &Machine) -> Checked {
    let applied = machine.applied.id.index;
    if applied < told || applied != history.last() {
        let text = format!(
            "member {member} holds {applied}, answered {told}, committed {}",
            history.last()
        );
        return Err(Violation::new("acknowledged_writes", text));
    }
    history.holds(machine)
}
