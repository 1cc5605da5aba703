//! A cluster in virtual time: a queue of events, the nodes, the network between them, and the oracle.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use raft::{
    Body, Configuration, Entry, EntryId, EntryKind, Incarnation, Index, Input, Load, NodeId, Raft, RoleKind,
    Term,
};

use super::counters::Counters;
use super::dice::Dice;
use super::disk::Disk;
use super::invariants::configuration_safety::Memberships;
use super::invariants::monotone_progress::Cursors;
use super::invariants::suspects_do_not_count::Grants;
use super::invariants::{Checked, justified_suspicion};
use super::machine::{KEYS_MAX, OpId};
use super::network::Network;
use super::node::{Node, Process, Proposer};
use super::oracle::Oracle;
use super::plan::{MS, NODES_MAX, Plan};

/// Something that is due. Events of a process carry its life.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Tick {
        node: usize,
        life: u64,
    },
    Deliver(u32),
    Synced {
        node: usize,
        life: u64,
    },
    Loaded {
        node: usize,
        life: u64,
        load: Box<Load>,
    },
    Apply {
        node: usize,
        life: u64,
    },
    MakeSnapshot {
        node: usize,
        life: u64,
        at_least: Index,
    },
    Install {
        node: usize,
        life: u64,
    },
    /// A process that has seen a sync fail exits.
    Exit {
        node: usize,
        life: u64,
    },
    Start {
        node: usize,
    },
    SpaceReturns {
        node: usize,
        life: u64,
    },
    Client,
    Fault,
    Mend,
}

struct Scheduled {
    at: u64,
    /// Order of scheduling: events of the same time happen in it.
    order: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Scheduled) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Scheduled) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Scheduled) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// The bug switched on inside the core.
#[cfg(feature = "seeded-bugs")]
pub(crate) type CoreBug = raft::Bug;
/// Without the feature there is none to choose.
#[cfg(not(feature = "seeded-bugs"))]
#[derive(Clone, Copy, Debug)]
pub(crate) enum CoreBug {}

/// What a world is asked for beyond its seed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wish {
    pub(crate) sim_bug: Option<super::bug::SimBug>,
    pub(crate) core_bug: Option<CoreBug>,
    pub(crate) trace: bool,
}

/// A cluster.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) dice: Dice,
    /// µs since the beginning.
    pub(crate) now: u64,
    queue: BinaryHeap<Reverse<Scheduled>>,
    order: u64,
    pub(crate) nodes: Vec<Node>,
    pub(crate) net: Network,
    pub(crate) oracle: Oracle,
    pub(crate) counters: Counters,
    /// Faults are over; liveness is demanded.
    pub(crate) healing: bool,
    pub(crate) trace: bool,
    lives: u64,
    incarnations: u64,
    pub(crate) stamps: u64,
    /// Rots and wipes so far.
    pub(crate) damages: u32,
    /// No damage before this time: a change of membership may be under way.
    pub(crate) changing_until: u64,
    /// Incarnations of wiped nodes that have become members.
    pub(crate) rejoined: std::collections::BTreeSet<u64>,
    /// Clients have stopped, so that the cluster can settle.
    pub(crate) quiet: bool,
    /// Version of each key to be reached while healing.
    pub(crate) heal_goal: Option<[u64; KEYS_MAX]>,
    /// Reads that had been served when those of the healing began.
    pub(crate) heal_reads: Option<u64>,
}

impl World {
    /// The world of a seed, with its first cluster started.
    pub(crate) fn new(seed: u64, wish: Wish) -> Result<World, super::invariants::Violation> {
        let mut dice = Dice::new(seed);
        let mut plan = Plan::draw(&mut dice, wish.sim_bug);
        set_core_bug(&mut plan, wish.core_bug);
        plan.config
            .validate()
            .expect("the plan keeps to the limits of the core");
        if wish.trace {
            eprintln!("plan {plan:#?}");
        }
        let mut world = World {
            plan,
            dice,
            now: 0,
            queue: BinaryHeap::with_capacity(1_024),
            order: 0,
            nodes: Vec::with_capacity(NODES_MAX),
            net: Network::default(),
            oracle: Oracle::default(),
            counters: Counters::default(),
            healing: false,
            trace: wish.trace,
            lives: 0,
            incarnations: 0,
            stamps: 0,
            damages: 0,
            changing_until: 0,
            rejoined: Default::default(),
            quiet: false,
            heal_goal: None,
            heal_reads: None,
        };
        world.found()?;
        let first_client = world.plan.client_every_us;
        world.schedule(first_client, Event::Client);
        if let Some(every) = world.plan.fault_every_us {
            world.schedule(every, Event::Fault);
        }
        Ok(world)
    }

    /// Entry 1 on every voter, empty folders on the spares.
    fn found(&mut self) -> Checked {
        let total = self.plan.voters + self.plan.spares;
        for at in 0..total {
            let id = NodeId(at as u64 + 1);
            let incarnation = self.next_incarnation();
            let uid = self.oracle.roll.uid(id, incarnation);
            let disk = Disk::empty(self.plan.bug);
            self.nodes.push(Node {
                id,
                incarnation,
                uid,
                disk,
                lost_at: Index(0),
                process: None,
                life: 0,
                starting: false,
                paused_until: 0,
                slow_until: 0,
            });
        }
        let members = self.nodes[..self.plan.voters]
            .iter()
            .map(|node| (node.id, node.member()));
        let members: std::collections::BTreeMap<_, _> = members.collect();
        let voters = members.keys().copied().collect();
        let founding = Configuration {
            members,
            voters,
            outgoing: Default::default(),
        };
        let entry = founding_entry(&founding);
        self.oracle.logs.taken(&entry)?;
        for at in 0..self.plan.voters {
            self.nodes[at].disk = Disk::founded(&entry, self.plan.bug);
        }
        for at in 0..total {
            self.start(at)?;
        }
        Ok(())
    }

    pub(crate) fn next_incarnation(&mut self) -> Incarnation {
        self.incarnations += 1;
        Incarnation(self.incarnations)
    }

    // ---- time --------------------------------------------------------------------------------------

    /// Makes an event due after `delay` µs.
    pub(crate) fn schedule(&mut self, delay: u64, event: Event) {
        self.schedule_at(self.now + delay, event);
    }

    pub(crate) fn schedule_at(&mut self, at: u64, event: Event) {
        self.order += 1;
        self.queue.push(Reverse(Scheduled {
            at,
            order: self.order,
            event,
        }));
    }

    /// The next event happens.
    pub(crate) fn advance(&mut self) -> Checked {
        let Reverse(scheduled) = self.queue.pop().expect("ticks and clients never end");
        self.now = scheduled.at;
        match scheduled.event {
            Event::Deliver(slot) => self.deliver(slot),
            Event::Client => {
                self.counters.steps += 1;
                let mean = self.plan.client_every_us;
                let delay = self.dice.around(mean);
                self.schedule(delay, Event::Client);
                if self.quiet {
                    Ok(())
                } else {
                    self.client_operation()
                }
            }
            Event::Fault => {
                if self.healing {
                    return Ok(());
                }
                self.counters.steps += 1;
                let mean = self.plan.fault_every_us.expect("a world with faults");
                let delay = self.dice.around(mean);
                self.schedule(delay, Event::Fault);
                self.fault()
            }
            Event::Mend => {
                self.net.mend();
                Ok(())
            }
            Event::Start { node } => self.start(node),
            event => self.process_event(event),
        }
    }

    /// An event of one process: dropped when that process is gone, put off while it is paused.
    fn process_event(&mut self, event: Event) -> Checked {
        let (node, life) = match &event {
            Event::Tick { node, life }
            | Event::Synced { node, life }
            | Event::Loaded { node, life, .. }
            | Event::Apply { node, life }
            | Event::MakeSnapshot { node, life, .. }
            | Event::Install { node, life }
            | Event::Exit { node, life }
            | Event::SpaceReturns { node, life } => (*node, *life),
            other => unreachable!("not an event of a process: {other:?}"),
        };
        if self.nodes[node].life != life {
            return Ok(());
        }
        if self.nodes[node].paused_until > self.now {
            let until = self.nodes[node].paused_until;
            self.schedule_at(until, event);
            return Ok(());
        }
        match event {
            Event::Tick { .. } => self.tick(node, life),
            Event::Synced { .. } => {
                self.counters.steps += 1;
                self.synced(node)
            }
            Event::Loaded { load, .. } => {
                self.counters.steps += 1;
                self.loaded(node, *load)
            }
            Event::Apply { .. } => self.apply_queued(node),
            Event::MakeSnapshot { at_least, .. } => self.make_snapshot(node, at_least),
            Event::Install { .. } => self.install(node),
            Event::Exit { .. } => self.stop(node, false),
            Event::SpaceReturns { .. } => self.set_space(node, raft::Space::Ample),
            _ => unreachable!("matched above"),
        }
    }

    fn tick(&mut self, at: usize, life: u64) -> Checked {
        let period = self.plan.tick_us[at];
        self.schedule(period, Event::Tick { node: at, life });
        self.retry_writes(at)?;
        self.step(at, Input::Tick)
    }

    fn deliver(&mut self, slot: u32) -> Checked {
        let envelope = self.net.take(slot);
        let to = envelope.to;
        if self.nodes[to].paused_until > self.now && self.nodes[to].is_up() {
            let until = self.nodes[to].paused_until;
            let slot = self.net.put(envelope);
            self.schedule_at(until, Event::Deliver(slot));
            return Ok(());
        }
        let node = &self.nodes[to];
        let mut meant = envelope.meant.into_iter().flatten().peekable();
        let other = meant.peek().is_some() && meant.all(|meant| meant != node.incarnation);
        if !node.is_up() || other || self.net.is_cut(envelope.from, to) {
            return self.lose(envelope.from, to);
        }
        self.counters.steps += 1;
        self.note_grants(to, &envelope.message);
        if self.trace {
            let message = &envelope.message;
            self.say(&format!(
                "n{} <- n{} t{} {:?}",
                to + 1,
                envelope.from + 1,
                message.term,
                message.body
            ));
        }
        self.step(to, Input::Message(envelope.message))
    }

    /// A message does not arrive; the sender may be told.
    pub(crate) fn lose(&mut self, from: usize, to: usize) -> Checked {
        self.counters.dropped += 1;
        let told = self.nodes[from].is_up()
            && self.nodes[from].paused_until <= self.now
            && self.dice.chance_ppm(self.plan.unreachable_ppm);
        if told {
            self.step(from, Input::Unreachable(NodeId(to as u64 + 1)))
        } else {
            Ok(())
        }
    }

    /// Remembers what the candidate may count on.
    fn note_grants(&mut self, to: usize, message: &raft::Message) {
        let sender = &message.sender;
        let uid = self.oracle.roll.uid(sender.id, sender.incarnation);
        let Some(process) = &mut self.nodes[to].process else {
            return;
        };
        process.heard[sender.id.0 as usize] = Some(sender.incarnation);
        match &message.body {
            Body::VoteReply(reply) if reply.granted && sender.suspicion.is_none() => {
                process.votes.granted(reply.term, uid);
            }
            Body::PreVoteReply(reply) if reply.granted && sender.suspicion.is_none() => {
                process.pre_votes.granted(reply.term, uid);
            }
            Body::TimeoutNow => process.asked = Some(message.term.max(process.term).next()),
            _ => {}
        }
    }

    // ---- processes ---------------------------------------------------------------------------------

    /// Starts a node on what its disk holds.
    pub(crate) fn start(&mut self, at: usize) -> Checked {
        self.lives += 1;
        let life = self.lives;
        let seed = self.dice.bits();
        let phase = self.dice.below(self.plan.tick_us[at]);
        let node = &mut self.nodes[at];
        node.disk.renews_suspicion = self.plan.renews_suspicion;
        node.starting = false;
        if node.is_up() {
            return Ok(());
        }
        let opened = node.disk.open(node.id, node.incarnation);
        if opened.newly_suspect {
            node.lost_at = self.oracle.history.last();
        }
        if opened.newly_suspect {
            self.counters.suspicions_raised += 1;
        }
        justified_suspicion::check(node.id, &node.disk, opened.newly_suspect)?;
        self.oracle.history.holds(&node.disk.machine)?;
        if node.is_clean() {
            for entry in &node.disk.log.entries {
                self.oracle.logs.is_durable(entry, node.uid);
            }
        }
        let (identity, recovered) = (opened.identity, opened.recovered);
        let session = OpId {
            node: node.id.0,
            incarnation: node.incarnation.0,
            boot: identity.boot.0,
            counter: 0,
        };
        let (memberships, applied) = (
            Memberships::recovered(&recovered.configurations),
            recovered.applied,
        );
        let term = recovered.hard_state.term;
        let raft =
            Raft::new(self.plan.config, identity, recovered, seed).expect("the plan keeps to the limits");
        node.life = life;
        node.paused_until = 0;
        node.process = Some(Process {
            raft,
            role: RoleKind::Learner,
            term,
            leader: None,
            space: raft::Space::Ample,
            memberships,
            cursors: Cursors::starting(term),
            given: applied,
            apply_queue: Default::default(),
            apply_scheduled: false,
            installing: None,
            votes: Grants::default(),
            pre_votes: Grants::default(),
            asked: None,
            commit_at_election: None,
            compacted: applied.0,
            proposer: Proposer::new(session, life),
            reads: Vec::new(),
            next_read: life << 32,
            heard: Default::default(),
        });
        self.reuse_session(at);
        if self.trace {
            let status = self.nodes[at]
                .process
                .as_ref()
                .expect("just started")
                .raft
                .status();
            self.say(&format!("n{} starts: {status:?}", at + 1));
        }
        self.schedule(phase, Event::Tick { node: at, life });
        self.drain(at)
    }

    /// The process ends; with `power`, unsynced data goes with it. A start is scheduled.
    pub(crate) fn stop(&mut self, at: usize, power: bool) -> Checked {
        if self.nodes[at].is_up() {
            self.end_process(at, power);
        } else if power {
            self.nodes[at].disk.crash(true, &mut self.dice);
        }
        if !self.nodes[at].starting {
            self.nodes[at].starting = true;
            let delay = if self.healing {
                MS
            } else {
                self.dice.around(60 * MS)
            };
            self.schedule(delay, Event::Start { node: at });
        }
        Ok(())
    }

    fn end_process(&mut self, at: usize, power: bool) {
        if self.trace {
            self.say(&format!("n{} ends, power cut: {power}", at + 1));
        }
        self.lives += 1;
        let node = &mut self.nodes[at];
        node.life = self.lives;
        let process = node.process.take().expect("up");
        self.counters.unknowns += process.proposer.pending.len() as u64;
        let (in_flight, between) = node.disk.crash(power, &mut self.dice);
        self.counters.crashes_in_flight += u64::from(in_flight);
        self.counters.crashes_between_log_and_mark += u64::from(between);
    }

    /// The process that leads in the highest term.
    pub(crate) fn leader(&self) -> Option<usize> {
        let leaders = (0..self.nodes.len()).filter(|at| self.nodes[*at].leads());
        leaders.max_by_key(|at| self.nodes[*at].process.as_ref().map(|process| process.term))
    }

    /// One line of the trace.
    pub(crate) fn say(&self, line: &str) {
        eprintln!("{:>10} {:>6} {line}", self.now, self.counters.steps);
    }
}

/// Configuration entry 1, as the founder writes it.
pub(crate) fn founding_entry(configuration: &Configuration) -> Entry {
    let id = EntryId {
        term: Term(1),
        index: Index(1),
    };
    Entry::seal(
        id,
        EntryKind::Configuration,
        configuration.encode(),
        Default::default(),
    )
}

#[cfg(feature = "seeded-bugs")]
fn set_core_bug(plan: &mut Plan, bug: Option<CoreBug>) {
    plan.config.bug = bug;
}

#[cfg(not(feature = "seeded-bugs"))]
fn set_core_bug(_: &mut Plan, bug: Option<CoreBug>) {
    assert!(bug.is_none());
}
