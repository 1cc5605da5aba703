//! What goes wrong, within what the design survives: at any time, in every membership that a node may
//! act on, a majority of the voters has lost nothing. (Beyond it there is only the recovery command.)

use raft::Space;

use super::bug::SimBug;
use super::disk::Disk;
use super::invariants::{Checked, is_quorum};
use super::plan::{MS, NODES_MAX};
use super::world::{Event, World, founding_entry};

/// Does its harm to the node at this place.
type Fault = fn(&mut World, usize) -> Checked;

impl World {
    /// The next fault.
    pub(crate) fn fault(&mut self) -> Checked {
        let weights = self.plan.faults.clone();
        let table: [(u64, Fault); 11] = [
            (weights.kill, World::kill),
            (weights.power_cut, World::power_cut),
            (weights.blackout, World::blackout),
            (weights.rot, World::rot),
            (weights.wipe, World::wipe),
            (weights.partition, World::partition),
            (weights.one_way, World::cut_one_way),
            (weights.isolate, World::isolate),
            (weights.pause, World::pause),
            (weights.low_space, World::fill_disk),
            (weights.slow_disk, World::slow_disk),
        ];
        let total: u64 = table.iter().map(|(weight, _)| weight).sum();
        if total == 0 {
            return Ok(());
        }
        let mut draw = self.dice.below(total);
        // Half of the faults hit the leader, where it hurts.
        let any = self.dice.below(self.nodes.len() as u64) as usize;
        let victim = if self.dice.one_in(2) {
            self.leader().unwrap_or(any)
        } else {
            any
        };
        for (weight, fault) in table {
            if draw < weight {
                return fault(self, victim);
            }
            draw -= weight;
        }
        Ok(())
    }

    fn kill(&mut self, at: usize) -> Checked {
        self.counters.kills += 1;
        self.stop(at, false)
    }

    fn power_cut(&mut self, at: usize) -> Checked {
        self.counters.power_cuts += 1;
        self.stop(at, true)
    }

    /// R37: the power of all nodes at once.
    fn blackout(&mut self, _: usize) -> Checked {
        self.counters.blackouts += 1;
        for at in 0..self.nodes.len() {
            self.stop(at, true)?;
        }
        Ok(())
    }

    // ---- damage ------------------------------------------------------------------------------------

    /// The node may lose what it has promised: every membership in force anywhere keeps a clean quorum.
    fn may_be_harmed(&self, victim: usize) -> bool {
        if self.damages >= self.plan.damage_max || self.now < self.changing_until {
            return false;
        }
        let harmed = self.nodes[victim].id;
        let committed = self.oracle.history.last();
        let stays_clean = |member: &raft::Member| member.id != harmed && self.is_clean_member(member);
        self.nodes
            .iter()
            .flat_map(|node| node.configurations(committed))
            .all(|mut configuration| {
                // A learner may be promoted before its leader hears what became of it.
                let learners: Vec<raft::Member> = configuration.members.values().cloned().collect();
                for member in learners.into_iter().filter(|member| !stays_clean(member)) {
                    configuration.voters.insert(member.id);
                }
                !configuration.is_joint() && is_quorum(&configuration, stays_clean)
            })
    }

    fn rot(&mut self, at: usize) -> Checked {
        if !self.may_be_harmed(at) {
            return Ok(());
        }
        // Rot is found when the folder is opened, so the process goes down first.
        self.stop(at, self.nodes[at].life.is_multiple_of(2))?;
        if self.nodes[at].disk.rot(&mut self.dice) {
            self.damages += 1;
            self.counters.rots += 1;
            if self.trace {
                let disk = &self.nodes[at].disk;
                self.say(&format!(
                    "n{} rots: {:?} left, {:?}",
                    at + 1,
                    disk.log.last().id,
                    disk.mark
                ));
            }
        }
        Ok(())
    }

    /// The folder is empty; the node is another member from now on (R30).
    fn wipe(&mut self, at: usize) -> Checked {
        if !self.may_be_harmed(at) {
            return Ok(());
        }
        self.stop(at, true)?;
        self.damages += 1;
        self.counters.wipes += 1;
        if self.trace {
            self.say(&format!("n{} is wiped", at + 1));
        }
        self.nodes[at].disk = Disk::empty(self.plan.bug);
        if self.plan.bug == Some(SimBug::WipeKeepsIncarnation) {
            return Ok(());
        }
        let incarnation = self.next_incarnation();
        let id = self.nodes[at].id;
        self.nodes[at].incarnation = incarnation;
        self.nodes[at].uid = self.oracle.roll.uid(id, incarnation);
        if self.plan.bug == Some(SimBug::FoundsTwice) && at == 0 {
            self.found_again(at);
        }
        Ok(())
    }

    /// [`SimBug::FoundsTwice`]: AUTO_INIT on an empty disk beside a living cluster (R50).
    fn found_again(&mut self, at: usize) {
        let member = self.nodes[at].member();
        let founding = raft::Configuration {
            voters: [member.id].into(),
            members: [(member.id, member)].into(),
            outgoing: Default::default(),
        };
        self.nodes[at].disk = Disk::founded(&founding_entry(&founding), self.plan.bug);
    }

    // ---- the network -------------------------------------------------------------------------------

    fn mend_later(&mut self) {
        self.counters.partitions += 1;
        let delay = self.dice.around(400 * MS);
        self.schedule(delay, Event::Mend);
    }

    /// Two groups that do not hear each other.
    fn partition(&mut self, _: usize) -> Checked {
        let side = self.dice.bits();
        for from in 0..self.nodes.len() {
            for to in 0..self.nodes.len() {
                if (side >> from ^ side >> to) & 1 == 1 {
                    self.net.cut(from, to);
                }
            }
        }
        self.mend_later();
        Ok(())
    }

    /// One node is not heard, or does not hear, by all or by one (R34).
    fn cut_one_way(&mut self, at: usize) -> Checked {
        let only = if self.dice.one_in(2) {
            Some(self.dice.below(NODES_MAX as u64) as usize)
        } else {
            None
        };
        let hears = self.dice.one_in(2);
        for other in (0..self.nodes.len()).filter(|other| *other != at) {
            if only.is_none_or(|only| only == other) {
                let (from, to) = if hears { (at, other) } else { (other, at) };
                self.net.cut(from, to);
            }
        }
        self.counters.partitions_one_way += 1;
        self.mend_later();
        Ok(())
    }

    fn isolate(&mut self, at: usize) -> Checked {
        for other in (0..self.nodes.len()).filter(|other| *other != at) {
            self.net.cut(at, other);
            self.net.cut(other, at);
        }
        self.mend_later();
        Ok(())
    }

    // ---- slowness ----------------------------------------------------------------------------------

    fn pause(&mut self, at: usize) -> Checked {
        self.counters.pauses += 1;
        let length = self.dice.around(500 * MS);
        self.nodes[at].paused_until = self.now + length;
        Ok(())
    }

    fn slow_disk(&mut self, at: usize) -> Checked {
        let length = self.dice.around(500 * MS);
        self.nodes[at].slow_until = self.now + length;
        Ok(())
    }

    fn fill_disk(&mut self, at: usize) -> Checked {
        if !self.nodes[at].is_up() || self.nodes[at].paused_until > self.now {
            return Ok(());
        }
        self.counters.low_space += 1;
        let space = self.dice.pick(&[Space::Low, Space::Low, Space::Critical]);
        let delay = self.dice.around(300 * MS);
        let life = self.nodes[at].life;
        self.schedule(delay, Event::SpaceReturns { node: at, life });
        self.set_space(at, space)
    }

    /// The end of all faults: links mended, pauses over, room on the disks, everything running.
    pub(crate) fn end_faults(&mut self) -> Checked {
        self.healing = true;
        self.net.mend();
        for at in 0..self.nodes.len() {
            let node = &mut self.nodes[at];
            node.paused_until = 0;
            node.slow_until = 0;
            if !node.is_up() && !node.starting {
                self.start(at)?;
            }
            if self.nodes[at].disk.poisoned {
                self.stop(at, false)?;
            }
            self.set_space(at, Space::Ample)?;
        }
        Ok(())
    }
}
