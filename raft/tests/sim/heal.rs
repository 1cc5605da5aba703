//! The second phase: no faults any more. Within a bounded time there must be a leader, every member must
//! have caught up, every suspicion must be gone, wiped nodes must be members again, and one write and one
//! read of every key must succeed. Then all replicas are equal and hold every answered write.

use super::invariants::{Checked, Violation, acknowledged_writes};
use super::machine::KEYS_MAX;
use super::node::SessionState;
use super::plan::MS;
use super::world::World;

/// Virtual time the cluster has for it. Elections take at most some seconds with the longest timeouts a
/// plan draws; removing and adding members one by one takes the rest.
const HEAL_US: u64 = 120_000 * MS;

/// How often the operator looks.
const LOOK_US: u64 = 50 * MS;

impl World {
    /// Runs the phase.
    pub(crate) fn heal(&mut self) -> Checked {
        self.end_faults()?;
        // No more client load of its own: what is written below must settle.
        self.plan.client_every_us = 5 * MS;
        // The log writer takes all that waits, or a disk that is slow by plan never catches up.
        self.plan.fold_max = usize::MAX;
        // With one entry of one append under way at a time, thousands of them to send again, and the slowest
        // disks and links, being far behind would look like being stuck.
        self.plan.sync_max_us = self.plan.sync_max_us.min(self.plan.sync_min_us + MS);
        self.plan.delay_max_us = self.plan.delay_max_us.min(self.plan.delay_min_us + MS);
        self.run_for_settling(
            |world| world.writes_and_reads_done(),
            "one write and one read of every key",
        )?;
        self.quiet = true;
        self.run_for_settling(|world| world.settled(), "a settled cluster")?;
        self.check_end()
    }

    /// Lets time pass, with an operator at hand, until `done`.
    fn run_for_settling(
        &mut self,
        mut done: impl FnMut(&mut World) -> Result<bool, Violation>,
        what: &str,
    ) -> Checked {
        let end = self.now + HEAL_US;
        let mut look = self.now;
        while self.now < end {
            self.advance()?;
            if self.now < look {
                continue;
            }
            look = self.now + LOOK_US;
            self.operator_heals()?;
            if done(self)? {
                return Ok(());
            }
        }
        let nodes: Vec<String> = self.nodes.iter().map(|node| self.describe(node)).collect();
        let text = format!(
            "no sign of {what} after {} s without faults:\n{}",
            HEAL_US / MS / 1_000,
            nodes.join("\n")
        );
        Err(Violation::new("liveness", text))
    }

    fn describe(&self, node: &super::node::Node) -> String {
        let status = node.process.as_ref().map(|process| process.raft.status());
        let session = node.process.as_ref().map(|process| process.proposer.session);
        let applied = node.disk.machine.applied.id;
        format!(
            "n{} incarnation {} applied {applied:?} {session:?} {:?} {status:?}",
            node.id, node.incarnation, node.disk.mark
        )
    }

    /// Removes wiped members, adds what is no member, starts what cannot write any more.
    fn operator_heals(&mut self) -> Checked {
        if let Some(leader) = self.leader()
            && let Some(change) = self.needed_change(leader)
        {
            let id = raft::ProposalId(u64::MAX);
            self.step(leader, raft::Input::Change { id, change })?;
        }
        for at in 0..self.nodes.len() {
            let closed = self.nodes[at]
                .process
                .as_ref()
                .is_some_and(|process| process.proposer.session == SessionState::Closed);
            if closed {
                self.stop(at, false)?;
            }
        }
        Ok(())
    }

    /// Every key was written and read since the faults ended. Asks for what is missing.
    fn writes_and_reads_done(&mut self) -> Result<bool, Violation> {
        let goal = *self.heal_goal.get_or_insert_with(|| {
            let mut goal = self.oracle.told.versions;
            for version in &mut goal {
                *version += 1;
            }
            goal
        });
        let keys = usize::from(self.plan.keys).min(KEYS_MAX);
        let told = self.oracle.told.versions;
        if told.iter().zip(goal).take(keys).any(|(told, goal)| *told < goal) {
            let at = self.dice.below(self.nodes.len() as u64) as usize;
            self.client_write(at)?;
            return Ok(false);
        }
        let served = self.counters.reads_served;
        let base = *self.heal_reads.get_or_insert(served);
        if served >= base + keys as u64 {
            return Ok(true);
        }
        for key in 0..keys {
            let at = self.dice.below(self.nodes.len() as u64) as usize;
            self.read(at, key as u8, 1)?;
        }
        Ok(false)
    }

    /// A leader, a simple membership of living nodes, all caught up, no suspects.
    fn settled(&mut self) -> Result<bool, Violation> {
        let Some(leader) = self.leader() else {
            return Ok(false);
        };
        let status = match &self.nodes[leader].process {
            Some(process) => process.raft.status(),
            None => return Ok(false),
        };
        if status.configuration.is_joint() || status.committed != status.last || status.applied != status.last
        {
            return Ok(false);
        }
        for node in &self.nodes {
            let Some(process) = &node.process else {
                return Ok(false);
            };
            let member = status.configuration.members.get(&node.id);
            let present = member.is_some_and(|member| member.incarnation == node.incarnation);
            let promoted = status.configuration.voters.contains(&node.id);
            let caught_up = node.disk.machine.applied.id.index == status.last;
            if !present || !promoted || !caught_up || node.disk.mark.suspicion.is_some() {
                return Ok(false);
            }
            if !process.proposer.pending.is_empty() || process.term != status.term {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn check_end(&self) -> Checked {
        for node in &self.nodes {
            acknowledged_writes::check(
                &self.oracle.history,
                self.oracle.told.index,
                node.id,
                &node.disk.machine,
            )?;
        }
        Ok(())
    }
}
