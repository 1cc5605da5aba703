//! Clients: writes with retries under their operation id, reads by read index from any node, membership
//! changes, transfers.

use raft::{Change, Index, Input, NodeId, ProposalId, ProposalOutcome, ReadId, ReadOutcome, RoleKind};

use super::bug::SimBug;
use super::invariants::{Checked, is_quorum, linearizable_reads};
use super::machine::Outcome;
use super::node::{PendingRead, SessionState};
use super::plan::MS;
use super::world::World;

/// A write is sent again when it got no answer for so long.
const RETRY_US: u64 = 150 * MS;

/// Readers that may wait on one node; more would only slow the run.
const READS_MAX: usize = 64;

/// Proposal ids of membership changes and transfers: of no life.
const OPERATOR: ProposalId = ProposalId(u64::MAX);

impl World {
    /// The next operation of some client.
    pub(crate) fn client_operation(&mut self) -> Checked {
        let at = self.dice.below(self.nodes.len() as u64) as usize;
        let work = self.plan.work.clone();
        let total = work.write + work.read + work.change + work.transfer;
        let draw = self.dice.below(total);
        if self.healing || draw < work.write {
            self.client_write(at)
        } else if draw < work.write + work.read {
            self.client_read(at)
        } else if draw < work.write + work.read + work.change {
            self.operator_change()
        } else {
            self.operator_transfer()
        }
    }

    fn is_reachable(&self, at: usize) -> bool {
        self.nodes[at].is_up() && self.nodes[at].paused_until <= self.now
    }

    // ---- writes ------------------------------------------------------------------------------------

    /// A write through this node, of a random key.
    pub(crate) fn client_write(&mut self, at: usize) -> Checked {
        if !self.is_reachable(at) {
            return Ok(());
        }
        let key = self.dice.below(u64::from(self.plan.keys)) as u8;
        let bytes = self.dice.size(0, self.plan.payload_max);
        let (now, stamp) = (self.now, self.stamps);
        let Some(process) = &mut self.nodes[at].process else {
            return Ok(());
        };
        match process.proposer.session {
            SessionState::Closed => {
                // Its operator starts it again: a new boot may open a new session.
                if self.dice.one_in(20) {
                    self.stop(at, false)
                } else {
                    Ok(())
                }
            }
            SessionState::Opening { asked_us } => {
                if asked_us.is_some_and(|asked| asked + RETRY_US > now) {
                    return Ok(());
                }
                process.proposer.session = SessionState::Opening { asked_us: Some(now) };
                let open = process.proposer.open();
                self.step(at, Input::Propose(vec![open]))
            }
            SessionState::Open => match process.proposer.write(stamp, key, bytes, now) {
                Some(proposal) => {
                    self.stamps += 1;
                    self.step(at, Input::Propose(vec![proposal]))
                }
                None => Ok(()),
            },
        }
    }

    /// Sends again what has waited for too long.
    pub(crate) fn retry_writes(&mut self, at: usize) -> Checked {
        let Some(then) = self.now.checked_sub(RETRY_US) else {
            return Ok(());
        };
        let now = self.now;
        let Some(process) = &mut self.nodes[at].process else {
            return Ok(());
        };
        if process.proposer.pending.is_empty() {
            return Ok(());
        }
        let proposals = process.proposer.retry(then, now);
        if proposals.is_empty() {
            return Ok(());
        }
        self.counters.retries += proposals.len() as u64;
        self.step(at, Input::Propose(proposals))
    }

    /// The core has appended a proposal or refused it.
    pub(crate) fn proposal_answered(&mut self, at: usize, outcome: ProposalOutcome) -> Checked {
        if outcome.result.is_ok() {
            return Ok(());
        }
        self.counters.refusals += 1;
        let give_up = self.dice.one_in(2);
        let Some(process) = &mut self.nodes[at].process else {
            return Ok(());
        };
        let Some(counter) = process.proposer.counter_of(outcome.id) else {
            return Ok(());
        };
        let Some(write) = process.proposer.pending.get(&counter) else {
            return Ok(());
        };
        // Sent once: the refusal speaks of all there ever was, unless the network made copies.
        if write.sent > 1 || !give_up || self.plan.duplicate_ppm > 0 {
            return Ok(());
        }
        let stamp = write.stamp;
        process.proposer.pending.remove(&counter);
        self.oracle
            .refusals
            .refused(stamp, self.oracle.once.took_effect(stamp))
    }

    /// An entry was applied on this node: its own operations are answered.
    pub(crate) fn operation_applied(&mut self, at: usize, index: Index, outcome: Outcome) -> Checked {
        let node = &mut self.nodes[at];
        let Some(process) = &mut node.process else {
            return Ok(());
        };
        let proposer = &mut process.proposer;
        let op = match outcome {
            Outcome::Written { op, .. } | Outcome::Duplicate(op) | Outcome::Unknown(op) => op,
            Outcome::Opened(op) | Outcome::OpenIgnored(op) => {
                let own = (op.node, op.incarnation, op.boot)
                    == (proposer.next.node, proposer.next.incarnation, proposer.next.boot);
                let opening = matches!(proposer.session, SessionState::Opening { .. });
                if own && opening {
                    let open = matches!(outcome, Outcome::Opened(_));
                    proposer.session = if open {
                        SessionState::Open
                    } else {
                        SessionState::Closed
                    };
                }
                return Ok(());
            }
            Outcome::Nothing | Outcome::Membership => return Ok(()),
        };
        if (op.node, op.incarnation, op.boot)
            != (proposer.next.node, proposer.next.incarnation, proposer.next.boot)
        {
            return Ok(());
        }
        let Some(write) = proposer.pending.remove(&op.counter) else {
            return Ok(());
        };
        match outcome {
            Outcome::Unknown(_) => {
                self.counters.unknowns += 1;
                proposer.session = SessionState::Closed;
                return Ok(());
            }
            Outcome::Written { key, version, .. } => self.oracle.told.tell(key, version),
            _ => {}
        }
        self.counters.writes_acked += 1;
        self.oracle.told.tell_index(index);
        self.oracle.once.answered(write.stamp)
    }

    /// [`SimBug::SessionReused`]: the new boot writes on in the session of the first, from 0.
    pub(crate) fn reuse_session(&mut self, at: usize) {
        if self.plan.bug != Some(SimBug::SessionReused) {
            return;
        }
        let proposer = &mut self.nodes[at].process.as_mut().expect("just started").proposer;
        if proposer.next.boot > 1 {
            proposer.next.boot = 1;
            proposer.session = SessionState::Open;
        }
    }

    // ---- reads -------------------------------------------------------------------------------------

    /// A linearizable read of a random key on this node.
    pub(crate) fn client_read(&mut self, at: usize) -> Checked {
        let key = self.dice.below(u64::from(self.plan.keys)) as u8;
        let batch = if self.dice.one_in(4) {
            self.dice.range(2, 4)
        } else {
            1
        };
        self.read(at, key, batch)
    }

    /// Reads of one key on this node, asked together.
    pub(crate) fn read(&mut self, at: usize, key: u8, batch: u64) -> Checked {
        if !self.is_reachable(at) {
            return Ok(());
        }
        let before = self.oracle.told;
        let Some(process) = &mut self.nodes[at].process else {
            return Ok(());
        };
        if process.reads.len() > READS_MAX {
            process.reads.drain(..READS_MAX / 2);
        }
        let mut ids = Vec::new();
        for _ in 0..batch {
            process.next_read += 1;
            let id = ReadId(process.next_read);
            process.reads.push(PendingRead {
                id,
                key,
                before,
                index: None,
            });
            ids.push(id);
        }
        self.step(at, Input::ReadIndex(ids))
    }

    /// The core has an index for a reader, or none.
    pub(crate) fn read_answered(&mut self, at: usize, outcome: ReadOutcome) -> Checked {
        let Some(process) = &mut self.nodes[at].process else {
            return Ok(());
        };
        let Some(place) = process.reads.iter().position(|read| read.id == outcome.id) else {
            return Ok(());
        };
        match outcome.result {
            Err(_) => {
                process.reads.swap_remove(place);
                self.counters.reads_refused += 1;
                Ok(())
            }
            Ok(index) => {
                linearizable_reads::index(&process.reads[place].before, index)?;
                process.reads[place].index = Some(index);
                self.serve_reads(at)
            }
        }
    }

    /// Serves the readers whose index is applied.
    pub(crate) fn serve_reads(&mut self, at: usize) -> Checked {
        let node = &mut self.nodes[at];
        let Some(process) = &mut node.process else {
            return Ok(());
        };
        let machine = &node.disk.machine;
        let applied = machine.applied.id.index;
        let mut place = 0;
        while place < process.reads.len() {
            let read = process.reads[place];
            if read.index.is_none_or(|index| index > applied) {
                place += 1;
                continue;
            }
            process.reads.swap_remove(place);
            let version = machine.versions[usize::from(read.key)];
            linearizable_reads::served(&read.before, read.key, version)?;
            self.oracle.told.tell(read.key, version);
            self.counters.reads_served += 1;
            self.counters.reads_served_by_followers += u64::from(process.role != RoleKind::Leader);
        }
        Ok(())
    }

    // ---- the operator ------------------------------------------------------------------------------

    /// A membership change at the leader: first what a wiped node needs, else anything that keeps a
    /// quorum of clean voters.
    pub(crate) fn operator_change(&mut self) -> Checked {
        let Some(leader) = self.leader().filter(|at| self.is_reachable(*at)) else {
            return Ok(());
        };
        let change = self.needed_change(leader).or_else(|| self.random_change(leader));
        let Some(change) = change else { return Ok(()) };
        if self.trace {
            self.say(&format!("operator asks n{}: {change:?}", leader + 1));
        }
        self.changing_until = self.now + 500 * MS;
        self.step(leader, Input::Change { id: OPERATOR, change })
    }

    /// Removes a member that was wiped; adds a node that is no member.
    pub(crate) fn needed_change(&mut self, leader: usize) -> Option<Change> {
        let process = self.nodes[leader].process.as_ref()?;
        let configuration = process.memberships.in_force()?.clone();
        let gone = self.nodes.iter().find(|node| {
            configuration
                .incarnation_of(node.id)
                .is_some_and(|incarnation| incarnation != node.incarnation)
        });
        if let Some(node) = gone {
            return Some(Change::Remove(node.id));
        }
        let add = self.healing || self.dice.one_in(2);
        let outside = self
            .nodes
            .iter()
            .find(|node| !configuration.members.contains_key(&node.id));
        let node = outside.filter(|_| add)?;
        let change = Change::Add(node.member());
        self.counters.rejoins +=
            u64::from(node.incarnation.0 > self.plan.voters as u64 + self.plan.spares as u64);
        Some(change)
    }

    fn random_change(&mut self, leader: usize) -> Option<Change> {
        let at = self.dice.below(self.nodes.len() as u64) as usize;
        if self.dice.one_in(3) {
            let mut member = self.nodes[at].member();
            member.address = format!("n{}:{}", member.id, self.dice.range(1, 9));
            return Some(Change::Readdress(member));
        }
        let configuration = self.nodes[leader]
            .process
            .as_ref()?
            .memberships
            .in_force()?
            .clone();
        let mut after = (*configuration).clone();
        after.voters.remove(&self.nodes[at].id);
        let keeps_quorum =
            !after.voters.is_empty() && is_quorum(&after, |member| self.is_clean_member(member));
        keeps_quorum.then(|| Change::Remove(self.nodes[at].id))
    }

    fn operator_transfer(&mut self) -> Checked {
        let Some(leader) = self.leader().filter(|at| self.is_reachable(*at)) else {
            return Ok(());
        };
        let at = self.dice.below(self.nodes.len() as u64);
        let to = if self.dice.one_in(3) {
            None
        } else {
            Some(NodeId(at + 1))
        };
        if to == Some(self.nodes[leader].id) {
            return Ok(());
        }
        self.step(leader, Input::Transfer { id: OPERATOR, to })
    }

    /// The member is one of our nodes as it is now, with nothing lost.
    pub(crate) fn is_clean_member(&self, member: &raft::Member) -> bool {
        let node = &self.nodes[member.id.0 as usize - 1];
        node.incarnation == member.incarnation && node.is_clean()
    }
}
