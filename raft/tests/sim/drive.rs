//! Carries out the effects of a core, as the runtime does, and checks every one of them.

use raft::{
    Body, Effects, EntryKind, Index, Input, Load, Message, NodeId, Persist, RoleChange, RoleKind,
    SnapshotWork, Space,
};

use super::bug::SimBug;
use super::disk::Completion;
use super::invariants::{
    Checked, Violation, bounded_terms, configuration_safety, durable_promises, leader_completeness,
    monotone_progress, quorum_durability, suspects_do_not_count,
};
use super::machine::Outcome;
use super::network::Envelope;
use super::node::{Process, is_configuration};
use super::plan::MS;
use super::world::{Event, World};

impl World {
    /// Gives the core an input and carries out what follows from it.
    pub(crate) fn step(&mut self, at: usize, input: Input) -> Checked {
        match &mut self.nodes[at].process {
            Some(process) => process.raft.step(input),
            None => return Ok(()),
        }
        self.drain(at)
    }

    /// Carries out effects until there are none.
    pub(crate) fn drain(&mut self, at: usize) -> Checked {
        loop {
            let Some(process) = &mut self.nodes[at].process else {
                return Ok(());
            };
            if !process.raft.has_effects() {
                return Ok(());
            }
            let effects = process.raft.take_effects();
            self.carry_out(at, effects)?;
        }
    }

    fn process(&mut self, at: usize) -> &mut Process {
        self.nodes[at]
            .process
            .as_mut()
            .expect("effects of a running process")
    }

    fn carry_out(&mut self, at: usize, effects: Effects) -> Checked {
        let Effects {
            send,
            persist,
            load,
            apply,
            reads,
            outcomes,
            snapshot,
            role,
            configuration,
        } = effects;
        // The role first: entries in the same effects were appended in it.
        if let Some(change) = role {
            self.note_role(at, change)?;
        }
        let elected = role.is_some_and(|change| change.role == RoleKind::Leader);
        if elected {
            self.check_elected(at)?;
        }
        if let Some(persist) = persist {
            self.submit(at, persist)?;
        }
        if let Some(configuration) = configuration {
            self.process(at).memberships.reported(&configuration)?;
        }
        for (to, message) in send {
            self.send(at, to, message)?;
        }
        for load in load {
            self.counters.loads += 1;
            let delay = self.dice.range(50, 3 * MS);
            let life = self.nodes[at].life;
            self.schedule(
                delay,
                Event::Loaded {
                    node: at,
                    life,
                    load: Box::new(load),
                },
            );
        }
        for read in reads {
            self.read_answered(at, read)?;
        }
        for outcome in outcomes {
            self.proposal_answered(at, outcome)?;
        }
        match snapshot {
            Some(SnapshotWork::Make { at_least }) => {
                let delay = self.dice.range(100, 10 * MS);
                let life = self.nodes[at].life;
                self.schedule(
                    delay,
                    Event::MakeSnapshot {
                        node: at,
                        life,
                        at_least,
                    },
                );
            }
            Some(SnapshotWork::Install(meta)) => {
                let delay = self.dice.range(100, 10 * MS);
                let life = self.nodes[at].life;
                self.process(at).installing = Some(meta);
                self.schedule(delay, Event::Install { node: at, life });
            }
            None => {}
        }
        if !apply.is_empty() {
            self.take_committed(at, apply)?;
        }
        Ok(())
    }

    // ---- roles -------------------------------------------------------------------------------------

    fn note_role(&mut self, at: usize, change: RoleChange) -> Checked {
        if self.trace {
            self.say(&format!("n{} is {change:?}", at + 1));
        }
        let uid = self.nodes[at].uid;
        let suspect = self.nodes[at].disk.mark.suspicion.is_some();
        let process = self.nodes[at].process.as_mut().expect("running");
        process.cursors.term(change.term)?;
        process.term = change.term;
        process.role = change.role;
        process.leader = change.leader;
        process.commit_at_election = None;
        let Some(configuration) = process.memberships.in_force() else {
            return Ok(());
        };
        let roll = &self.oracle.roll;
        if change.role == RoleKind::Candidate {
            bounded_terms::campaigns(
                roll,
                configuration,
                uid,
                change.term,
                process.pre_votes,
                process.asked,
            )?;
        }
        if change.role == RoleKind::Leader {
            suspects_do_not_count::elected(roll, configuration, uid, change.term, process.votes, suspect)?;
            process.commit_at_election = Some(process.raft.status().committed);
            self.counters.elections += 1;
            self.oracle.elections.leads(uid, change.term)?;
        }
        Ok(())
    }

    /// The log of a new leader, before it appends anything.
    fn check_elected(&mut self, at: usize) -> Checked {
        let node = &self.nodes[at];
        let term = node.process.as_ref().expect("running").term;
        let base = node.disk.submitted_base();
        leader_completeness::check(&self.oracle.history, term, base, |index| {
            node.disk.submitted_at(index)
        })
    }

    // ---- the disk ----------------------------------------------------------------------------------

    fn submit(&mut self, at: usize, mut persist: Persist) -> Checked {
        self.check_submitted(at, &persist)?;
        self.counters.truncations += u64::from(persist.truncate_from.is_some());
        self.counters.compactions += u64::from(persist.compact_to.is_some());
        self.counters.snapshot_chunks += u64::from(persist.chunk.is_some());
        if self.plan.bug == Some(SimBug::SendsBeforeSync) {
            for (to, message) in std::mem::take(&mut persist.then_send) {
                self.send(at, to, message)?;
            }
        }
        self.nodes[at].disk.submit(persist);
        self.maybe_sync(at);
        Ok(())
    }

    fn check_submitted(&mut self, at: usize, persist: &Persist) -> Checked {
        let node = &mut self.nodes[at];
        let process = node.process.as_mut().expect("running");
        process.cursors.token(persist.token)?;
        if let Some(hard_state) = persist.hard_state {
            process.cursors.commit(hard_state.commit)?;
        }
        if let Some(base) = persist.compact_to {
            let synced = node.disk.machine_synced.applied.id.index;
            if base.id.index > synced {
                let text = format!(
                    "the log is cut at {} and the state is durable up to {synced}",
                    base.id.index
                );
                return Err(Violation::new("monotone_progress", text));
            }
        }
        process.memberships.submit(persist);
        for entry in &persist.entries {
            let fresh = self.oracle.logs.taken(entry)?;
            if is_configuration(entry) {
                let before = process.memberships.append(entry)?;
                if fresh && process.role == RoleKind::Leader {
                    self.counters.changes_accepted += 1;
                    let status = process.raft.status();
                    let commit_term = node.disk.submitted_at(status.committed).map(|held| held.id.term);
                    configuration_safety::appended_by_leader(
                        process.term,
                        before,
                        status.committed,
                        commit_term,
                    )?;
                }
            }
        }
        Ok(())
    }

    /// The log writer takes what is queued, if it is idle.
    fn maybe_sync(&mut self, at: usize) {
        let fails = !self.healing && self.dice.chance_ppm(self.plan.sync_fail_ppm);
        let node = &mut self.nodes[at];
        if !node.disk.start_sync(self.plan.fold_max, fails) {
            return;
        }
        let mut delay = self.dice.range(self.plan.sync_min_us, self.plan.sync_max_us);
        if node.slow_until > self.now {
            delay *= 20;
        }
        let life = node.life;
        self.schedule(delay, Event::Synced { node: at, life });
    }

    /// A sync has returned.
    pub(crate) fn synced(&mut self, at: usize) -> Checked {
        let raise_mark = self.dice.chance_ppm(self.plan.mark_raise_ppm);
        let node = &mut self.nodes[at];
        let was_suspect = node.disk.mark.suspicion.is_some();
        match node.disk.finish_sync(&mut self.dice, raise_mark) {
            Completion::Done(persists) => self.persisted(at, persists, was_suspect),
            Completion::Failed { cached } => {
                self.counters.failed_syncs += 1;
                self.counters.failed_syncs_cached += u64::from(cached);
                if self.trace {
                    self.say(&format!("n{}: a sync fails, cached: {cached}", at + 1));
                }
                let delay = self.dice.range(1, 30 * MS);
                let life = self.nodes[at].life;
                self.schedule(delay, Event::Exit { node: at, life });
                Ok(())
            }
        }
    }

    fn persisted(&mut self, at: usize, persists: Vec<Persist>, was_suspect: bool) -> Checked {
        let node = &mut self.nodes[at];
        let uid = node.uid;
        if node.is_clean() {
            for entry in persists.iter().flat_map(|persist| &persist.entries) {
                self.oracle.logs.is_durable(entry, uid);
            }
        }
        if was_suspect && node.disk.mark.suspicion.is_none() {
            self.counters.suspicions_cleared += 1;
            suspects_do_not_count::cleared(node.id, &node.disk, node.lost_at, &self.oracle.history)?;
            for entry in &node.disk.log.entries {
                self.oracle.logs.is_durable(entry, uid);
            }
        }
        self.maybe_sync(at);
        // One completion each or one for all: the core must not care.
        let together = self.dice.one_in(2);
        let newest = persists.last().expect("a sync of something").token;
        for persist in persists {
            for (to, message) in persist.then_send {
                self.send(at, to, message)?;
            }
            if !together || persist.token == newest {
                self.step(at, Input::Persisted(persist.token))?;
            }
        }
        Ok(())
    }

    /// A read for a slow member is done.
    pub(crate) fn loaded(&mut self, at: usize, load: Load) -> Checked {
        let disk = &self.nodes[at].disk;
        let result = match load.what {
            raft::LoadWhat::Entries { range, bytes_max } => {
                disk.read_entries(range.start, range.end, bytes_max)
            }
            raft::LoadWhat::Chunk {
                meta,
                offset,
                bytes_max,
            } => disk.read_chunk(&meta, offset, bytes_max),
        };
        self.step(at, Input::Loaded { id: load.id, result })
    }

    // ---- messages ----------------------------------------------------------------------------------

    fn send(&mut self, at: usize, to: NodeId, message: Message) -> Checked {
        let node = &self.nodes[at];
        durable_promises::check(node.id, to, &message, &node.disk)?;
        suspects_do_not_count::message(&message, &node.disk)?;
        let leads = matches!(
            message.body,
            Body::Append(_) | Body::Heartbeat(_) | Body::Snapshot(_) | Body::TimeoutNow | Body::Cleared(_)
        );
        if leads {
            self.oracle.elections.leads(node.uid, message.term)?;
        }
        self.counters.transfers += u64::from(matches!(message.body, Body::TimeoutNow));
        let target = to.0 as usize - 1;
        if to == node.id || target >= self.nodes.len() {
            let text = format!("{} sends to {to}: {message:?}", node.id);
            return Err(Violation::new("addressing", text));
        }
        let meant = if self.plan.handshake {
            node.meant(to)
        } else {
            [None; 2]
        };
        self.transmit(Envelope {
            from: at,
            to: target,
            meant,
            message,
        })
    }

    fn transmit(&mut self, envelope: Envelope) -> Checked {
        let (from, to) = (envelope.from, envelope.to);
        let drops = !self.healing && self.dice.chance_ppm(self.plan.drop_ppm);
        if drops || self.net.is_cut(from, to) {
            self.counters.dropped += 1;
            return Ok(());
        }
        if !self.healing && self.dice.chance_ppm(self.plan.duplicate_ppm) {
            self.counters.duplicated += 1;
            self.enqueue(envelope.clone());
        }
        self.enqueue(envelope);
        Ok(())
    }

    fn enqueue(&mut self, envelope: Envelope) {
        let at = self.net.arrival(
            &self.plan,
            &mut self.dice,
            self.healing,
            self.now,
            envelope.from,
            envelope.to,
        );
        let slot = self.net.put(envelope);
        self.schedule_at(at, Event::Deliver(slot));
    }

    // ---- the state machine -------------------------------------------------------------------------

    fn take_committed(&mut self, at: usize, entries: Vec<raft::Entry>) -> Checked {
        self.check_first_commit(at)?;
        let node = &mut self.nodes[at];
        let process = node.process.as_mut().expect("running");
        for entry in entries {
            monotone_progress::applies(&node.disk, process.given, &entry)?;
            process.given = entry.index();
            process.apply_queue.push_back(entry);
        }
        if process.apply_scheduled {
            return Ok(());
        }
        if self.plan.apply_max_us == 0 {
            return self.apply_queued(at);
        }
        process.apply_scheduled = true;
        let life = node.life;
        let delay = self.dice.range(1, self.plan.apply_max_us);
        self.schedule(delay, Event::Apply { node: at, life });
        Ok(())
    }

    /// R3: the first commit of a leader is an entry of its own term.
    fn check_first_commit(&mut self, at: usize) -> Checked {
        let node = &mut self.nodes[at];
        let process = node.process.as_mut().expect("running");
        let Some(before) = process
            .commit_at_election
            .filter(|_| process.role == RoleKind::Leader)
        else {
            return Ok(());
        };
        let committed = process.raft.status().committed;
        if committed == before {
            return Ok(());
        }
        process.commit_at_election = None;
        let Some(held) = node.disk.submitted_at(committed) else {
            return Ok(());
        };
        leader_completeness::first_commit(process.term, held.id.term)
    }

    /// Everything in the queue is applied.
    pub(crate) fn apply_queued(&mut self, at: usize) -> Checked {
        let process = self.process(at);
        process.apply_scheduled = false;
        let entries = std::mem::take(&mut process.apply_queue);
        let Some(last) = entries.back().map(raft::Entry::index) else {
            return Ok(());
        };
        for entry in &entries {
            self.apply(at, entry)?;
        }
        self.serve_reads(at)?;
        self.step(at, Input::Applied(last))?;
        self.maybe_compact(at)
    }

    fn apply(&mut self, at: usize, entry: &raft::Entry) -> Checked {
        let node = &mut self.nodes[at];
        let process = node.process.as_mut().expect("running");
        let outcome = node.disk.machine.apply(entry, self.plan.bug);
        let first = self
            .oracle
            .history
            .applied(entry, &node.disk.machine, process.term)?;
        if first {
            self.oracle.once.applied(entry.index(), outcome)?;
            if entry.kind == EntryKind::Configuration {
                self.counters.changes_committed += 1;
                self.count_rejoins(at);
            }
            self.counters.duplicates_suppressed += u64::from(matches!(outcome, Outcome::Duplicate(_)));
            if let Outcome::Written { stamp, .. } = outcome {
                self.oracle.refusals.applied(stamp)?;
            }
            let process = self.nodes[at].process.as_ref().expect("running");
            if process.role == RoleKind::Leader {
                let configurations = process.memberships.newest();
                quorum_durability::check(&self.oracle.roll, &self.oracle.logs, entry.id, configurations)?;
            }
        }
        self.operation_applied(at, entry.index(), outcome)
    }

    /// Members that were wiped once and are members again.
    fn count_rejoins(&mut self, at: usize) {
        let first_lives = (self.plan.voters + self.plan.spares) as u64;
        let configuration = self.nodes[at].disk.machine.configuration.clone();
        for member in configuration
            .members
            .values()
            .filter(|member| member.incarnation.0 > first_lives)
        {
            if self.rejoined.insert(member.incarnation.0) {
                self.counters.rejoins += 1;
            }
        }
    }

    /// After enough entries the state is synced, and the log may be cut up to it.
    fn maybe_compact(&mut self, at: usize) -> Checked {
        let node = &mut self.nodes[at];
        let Some(process) = &mut node.process else {
            return Ok(());
        };
        let applied = node.disk.machine.applied.id.index.0;
        if self.plan.compact_every == 0 || applied < process.compacted + self.plan.compact_every {
            return Ok(());
        }
        process.compacted = applied;
        node.disk.machine_synced = node.disk.machine.clone();
        self.step(at, Input::Compact(Index(applied)))
    }

    pub(crate) fn make_snapshot(&mut self, at: usize, at_least: Index) -> Checked {
        let disk = &self.nodes[at].disk;
        let applied = disk.machine.applied.id.index;
        // One that was received meanwhile is newer than what could be made.
        let is_newest = disk
            .snapshot
            .as_ref()
            .is_none_or(|file| file.meta.last.index <= applied);
        let made = applied >= at_least && is_newest && !self.dice.one_in(10);
        let meta = made.then(|| self.nodes[at].disk.make_snapshot());
        self.counters.snapshots_made += u64::from(made);
        self.step(at, Input::SnapshotMade(meta))
    }

    pub(crate) fn install(&mut self, at: usize) -> Checked {
        self.apply_queued(at)?;
        let Some(process) = &mut self.nodes[at].process else {
            return Ok(());
        };
        let Some(meta) = process.installing.take() else {
            return Ok(());
        };
        let node = &mut self.nodes[at];
        let applied = node.disk.machine.applied.id.index;
        if meta.last.index < applied {
            let text = format!(
                "a snapshot at {} is loaded over a state at {applied}",
                meta.last.index
            );
            return Err(Violation::new("monotone_progress", text));
        }
        if !node.disk.install(&meta) {
            let text = format!(
                "the snapshot at {} is to be loaded and is not on the disk",
                meta.last.index
            );
            return Err(Violation::new("monotone_progress", text));
        }
        self.counters.snapshots_installed += 1;
        self.oracle.history.holds(&node.disk.machine)?;
        let process = node.process.as_mut().expect("running");
        process.given = meta.last.index;
        process.compacted = meta.last.index.0;
        self.serve_reads(at)?;
        self.step(at, Input::Installed(meta))
    }

    /// The watch on free space reports.
    pub(crate) fn set_space(&mut self, at: usize, space: Space) -> Checked {
        let Some(process) = &mut self.nodes[at].process else {
            return Ok(());
        };
        process.space = space;
        self.step(at, Input::Space(space))
    }
}
