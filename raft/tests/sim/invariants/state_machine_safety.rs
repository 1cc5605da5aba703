//! State Machine Safety (Raft paper, figure 3; §5.4.3): no two nodes apply different entries at an index.
//! And determinism (R16, R49): after the same entries every state machine is the same.

use raft::{Entry, EntryId, Index, LogBase, Term};

use super::super::machine::Machine;
use super::{Checked, Violation};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Committed {
    pub(crate) at: LogBase,
    /// The term of the node that applied it first; the commit happened in this term or before.
    pub(crate) seen_in: Term,
    fingerprint: u64,
}

/// The one history of the cluster.
#[derive(Debug, Default)]
pub(crate) struct History {
    entries: Vec<Committed>,
}

impl History {
    /// Highest index anybody has applied.
    pub(crate) fn last(&self) -> Index {
        Index(self.entries.len() as u64)
    }

    /// What was committed at an index (1 is the first).
    pub(crate) fn get(&self, index: Index) -> Option<&Committed> {
        self.entries.get((index.0 as usize).checked_sub(1)?)
    }

    /// A node applied this entry and holds this state now. True when it was the first to do so.
    pub(crate) fn applied(
        &mut self,
        entry: &Entry,
        machine: &Machine,
        term: Term,
    ) -> Result<bool, Violation> {
        let at = LogBase {
            id: entry.id,
            checksum: entry.checksum,
        };
        let fingerprint = fingerprint(machine);
        match self.get(entry.index()) {
            Some(first) => check(*first, at, fingerprint).map(|()| false),
            None => {
                if entry.index() != self.last().next() {
                    let text = format!("index {} is applied after {}", entry.index(), self.last());
                    return Err(Violation::new("state_machine_safety", text));
                }
                self.entries.push(Committed {
                    at,
                    seen_in: term,
                    fingerprint,
                });
                Ok(true)
            }
        }
    }

    /// A node loaded a state from a snapshot, or found it on its disk.
    pub(crate) fn holds(&self, machine: &Machine) -> Checked {
        if machine.applied.id == EntryId::default() {
            return Ok(());
        }
        match self.get(machine.applied.id.index) {
            Some(first) => check(*first, machine.applied, fingerprint(machine)),
            None => Err(Violation::new(
                "state_machine_safety",
                format!(
                    "a state holds index {} that nobody applied",
                    machine.applied.id.index
                ),
            )),
        }
    }
}

fn check(first: Committed, at: LogBase, fingerprint: u64) -> Checked {
    if first.at != at {
        let text = format!(
            "index {}: {:?} was applied, now {:?}",
            at.id.index, first.at.id, at.id
        );
        return Err(Violation::new("state_machine_safety", text));
    }
    if first.fingerprint != fingerprint {
        let text = format!("the states after index {} differ", at.id.index);
        return Err(Violation::new("state_machine_safety", text));
    }
    Ok(())
}

fn fingerprint(machine: &Machine) -> u64 {
    machine.versions.iter().fold(machine.digest, |hash, version| {
        hash.rotate_left(11).wrapping_add(*version)
    })
}
