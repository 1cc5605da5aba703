//! Which faults there are, and the order in which a seed brings them.

use std::collections::BTreeSet;

use loadtest::content::Dice;
use serde::Serialize;

/// Groups of faults a run may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// kill -9 of the leader, of one, of all; SIGTERM.
    Kill,
    /// SIGSTOP and SIGCONT of the leader or of one.
    Pause,
    /// Cut links: a node alone, mute, deaf, one link; of five nodes also halves and a ring of majorities.
    Partition,
    /// Power cuts of the leader, of one, of all: what was not synced is gone (root and loop devices).
    Power,
    /// Disks nearly full, of the leader, of all (root and loop devices).
    Disk,
}

impl Group {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Kill, Self::Pause, Self::Partition, Self::Power, Self::Disk];

    /// Whether it needs disks of its own.
    #[must_use]
    pub fn needs_disks(self) -> bool {
        matches!(self, Self::Power | Self::Disk)
    }
}

/// One kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    KillLeader,
    KillOne,
    KillAll,
    Terminate,
    PauseLeader,
    PauseOne,
    /// The leader in a minority of one, both directions.
    IsolateLeader,
    IsolateOne,
    /// The leader's words are lost; it hears the others.
    MuteLeader,
    MuteOne,
    /// The leader hears nothing; the others hear it.
    DeafLeader,
    /// A follower hears nothing: what it forwards is carried out, and it does not learn of it.
    DeafOne,
    /// One link between the leader and a follower, both directions: a third node hears both.
    OneLink,
    /// The leader with a minority on one side, a majority on the other.
    LeaderInMinority,
    /// Each node hears its two neighbours on a ring only: a majority each, and another one each.
    MajoritiesRing,
    /// Everything that was not synced is gone.
    PowerLeader,
    PowerOne,
    PowerAll,
    /// No room below the reserve.
    FillLeader,
    FillAll,
}

/// Fewest nodes with which two sides, or a ring, are something other than a node alone or one link.
const MANY_NODES: usize = 5;

/// A row of the table: what, to which group it belongs, its name, fewest nodes.
pub(super) type Row = (Fault, Group, &'static str, usize);

/// The first row of each group stands before the second one of any.
const FAULTS: [Row; 20] = [
    (Fault::KillLeader, Group::Kill, "kill leader", 1),
    (Fault::IsolateLeader, Group::Partition, "isolate leader", 1),
    (Fault::PauseLeader, Group::Pause, "pause leader", 1),
    (Fault::FillAll, Group::Disk, "fill all disks", 1),
    (Fault::PowerAll, Group::Power, "cut the power of all", 1),
    (Fault::KillAll, Group::Kill, "kill all", 1),
    (Fault::MuteLeader, Group::Partition, "mute leader", 1),
    (Fault::KillOne, Group::Kill, "kill one", 1),
    (Fault::PauseOne, Group::Pause, "pause one", 1),
    (Fault::DeafLeader, Group::Partition, "deafen leader", 1),
    (Fault::Terminate, Group::Kill, "terminate leader", 1),
    (Fault::OneLink, Group::Partition, "cut one link", 1),
    (Fault::IsolateOne, Group::Partition, "isolate one", 1),
    (Fault::MuteOne, Group::Partition, "mute one", 1),
    (Fault::DeafOne, Group::Partition, "deafen one", 1),
    (
        Fault::LeaderInMinority,
        Group::Partition,
        "leader in a minority",
        MANY_NODES,
    ),
    (
        Fault::MajoritiesRing,
        Group::Partition,
        "ring of majorities",
        MANY_NODES,
    ),
    (Fault::PowerLeader, Group::Power, "cut the power of the leader", 1),
    (Fault::PowerOne, Group::Power, "cut the power of one", 1),
    (Fault::FillLeader, Group::Disk, "fill the leader's disk", 1),
];

/// Faults still to come: pass after pass, each with every kind once in an order of its own.
#[derive(Debug)]
pub(super) struct Passes {
    groups: BTreeSet<Group>,
    nodes: usize,
    pass: Vec<Row>,
    is_first: bool,
}

impl Passes {
    pub(super) fn new(groups: &BTreeSet<Group>, nodes: usize) -> Self {
        Self {
            groups: groups.clone(),
            nodes,
            pass: Vec::new(),
            is_first: true,
        }
    }

    /// The next fault. Even a short run meets every group: the first pass begins with one of each.
    pub(super) fn draw(&mut self, dice: &mut Dice) -> Option<Row> {
        if self.pass.is_empty() {
            let mut all: Vec<_> = FAULTS
                .into_iter()
                .filter(|(_, group, _, nodes)| self.groups.contains(group) && *nodes <= self.nodes)
                .collect();
            let fixed = if std::mem::take(&mut self.is_first) {
                self.groups.len()
            } else {
                0
            };
            for at in (fixed + 1..all.len()).rev() {
                all.swap(at, fixed + dice.below(at - fixed + 1));
            }
            all.reverse();
            self.pass = all;
        }
        self.pass.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_comes_first_and_every_kind_in_each_pass() {
        let all: BTreeSet<Group> = Group::ALL.into();
        let without_disks: BTreeSet<Group> = [Group::Kill, Group::Pause, Group::Partition].into();
        for seed in 0..50 {
            for (groups, nodes, kinds) in [(&all, 5, 20), (&all, 3, 18), (&without_disks, 3, 13)] {
                let (mut passes, mut dice) = (Passes::new(groups, nodes), Dice::new(seed));
                let pass: Vec<_> = (0..kinds).filter_map(|_| passes.draw(&mut dice)).collect();
                let first: BTreeSet<_> = pass.iter().take(groups.len()).map(|row| row.1).collect();
                assert_eq!(first, *groups, "seed {seed}: {pass:?}");
                let drawn: BTreeSet<_> = pass.iter().map(|row| row.0).collect();
                assert_eq!(drawn.len(), kinds, "seed {seed}: {pass:?}");
            }
        }
    }

    #[test]
    fn only_what_was_asked_for_is_drawn() {
        let mut dice = Dice::new(3);
        let mut passes = Passes::new(&[Group::Pause].into(), 3);
        assert!((0..20).all(|_| passes.draw(&mut dice).is_some_and(|row| row.1 == Group::Pause)));
        assert!(Passes::new(&BTreeSet::new(), 3).draw(&mut dice).is_none());
    }
}
