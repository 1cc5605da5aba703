//! The loop that owns the core.
//!
//! A turn: wait for something, take what else is there up to a limit, step the core with all of it, then
//! carry out its effects: messages leave (peers and the own disk work at the same time), the write goes to
//! the log writer, committed entries to the applier, loads to the loader. Acks and votes travel inside
//! the write they depend on and leave from the log writer's thread once it is synced.

use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use raft::{
    Effects, EntryId, Identity, Index, Input, LoadId, Loaded, NodeId, Proposal, ProposalId, Raft, ReadId,
    Refusal, RoleChange, RoleKind, SnapshotMeta, SnapshotWork, Space, Token,
};
use storage::{Completion, LogReader, LogWriter, Snapshots, WriterHandle, WriterMetrics};
use tokio::sync::{mpsc, oneshot, watch};

use super::applier::{Applier, Parts, Work};
use super::handle::{Handle, ProposeError, REQUESTS_MAX, Request, Shared};
use super::loader::Loader;
use super::pending::{Pending, Ready, first_id};
use super::ports::Transport;
use super::queues::{Batch, Gauges, Inbox, InboxLoad, MESSAGES_MAX};
use super::status::{Counts, NodeStatus};
use crate::model::OperationId;
use crate::seeded;
use crate::shutdown::Shutdown;
use crate::state::{self, Command, Outcome, State};

/// Length of a tick. The core counts heartbeats (5) and elections (25 to 50) in ticks.
pub(super) const TICK: Duration = Duration::from_millis(20);

/// Things taken from each queue in one turn, so that a flood of one kind cannot keep ticks waiting.
const TURN_MAX: usize = 1_024;

/// Completions of the disk threads that may wait; their threads then wait, the loop never does.
const EVENTS_MAX: usize = 65_536;

/// Ids of control requests lie above all operation counters.
const CONTROL_IDS: u64 = 1 << 63;

/// Ticks between two looks for operations that need another attempt (100 ms).
const RETRY_TICKS: u64 = 5;

/// What the threads around the loop tell it.
#[derive(Debug)]
pub(super) enum Event {
    Persisted(Token),
    Space(Space),
    Applied {
        index: Index,
        /// What came of this node's own operations among them, by counter.
        outcomes: Vec<(u64, Outcome)>,
    },
    Compact(Index),
    Loaded {
        id: LoadId,
        result: Loaded,
    },
    SnapshotMade(Option<SnapshotMeta>),
    Installed(SnapshotMeta),
    /// A received snapshot is damaged.
    SnapshotRefused {
        meta: SnapshotMeta,
        reason: &'static str,
    },
    /// The log or the state has failed; final.
    Failed(String),
}

/// What a node is made of.
pub struct NodeParts {
    /// Settings of the core.
    pub config: raft::Config,
    /// Who this node is.
    pub identity: Identity,
    /// What its disk holds.
    pub recovered: raft::Recovered,
    /// Seed of the election timeouts.
    pub seed: u64,
    /// Reads the log.
    pub reader: LogReader,
    /// Writes the log.
    pub writer: LogWriter,
    /// Snapshot files.
    pub snapshots: Snapshots,
    /// The state machine.
    pub state: State,
    /// The network.
    pub transport: Arc<dyn Transport>,
    /// Applied bytes after which the state is synced and the log cut to what the core retains.
    pub compact_every_bytes: usize,
    /// Told of every change of the state in log order, on the applier's thread: it must not wait.
    pub on_change: Box<dyn FnMut(Vec<state::Event>) + Send>,
    /// Stops this node; given after everything that still wants to write has been drained.
    pub shutdown: Shutdown,
}

impl std::fmt::Debug for NodeParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeParts")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// The node: the core and everything it is wired to.
pub struct Node {
    raft: Raft,
    identity: Identity,
    transport: Arc<dyn Transport>,
    applier: Applier,
    loader: Loader,
    pending: Arc<Pending>,
    messages: mpsc::Receiver<Batch>,
    inbox: Arc<InboxLoad>,
    unreachable: mpsc::Receiver<NodeId>,
    events: mpsc::Receiver<Event>,
    requests: mpsc::Receiver<Request>,
    /// After `events`: fields are dropped in order, and dropping this waits for the log's thread, which may
    /// wait for room in there.
    log: WriterHandle,
    /// Writes given to it, ever.
    submitted: Arc<AtomicU64>,
    reads: HashMap<ReadId, oneshot::Sender<Result<Index, Refusal>>>,
    control: HashMap<ProposalId, Control>,
    next_control: u64,
    /// Ticks since the start: the clock of the retries.
    tick: u64,
    /// Term and role as of the last change.
    role: RoleChange,
    /// Operations of this turn, not yet given to the core.
    proposals: Vec<Proposal>,
    readers: Vec<ReadId>,
    status: watch::Sender<Arc<NodeStatus>>,
    space: Space,
    failure: Option<String>,
    counts: Counts,
    /// The last damaged snapshot that was told of.
    refused_snapshot: Option<SnapshotMeta>,
    shutdown: Shutdown,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

enum Control {
    Change(oneshot::Sender<Result<EntryId, Refusal>>),
    Transfer(oneshot::Sender<Refusal>),
}

impl Control {
    /// Nobody waits for the answer any more.
    fn is_closed(&self) -> bool {
        match self {
            Control::Change(answer) => answer.is_closed(),
            Control::Transfer(answer) => answer.is_closed(),
        }
    }
}

impl Node {
    /// Starts the threads and wires the loop. [`Node::run`] then drives it; before, nothing moves.
    ///
    /// # Errors
    /// The core refuses its settings, or no thread could be started.
    pub fn start(parts: NodeParts) -> anyhow::Result<(Node, Handle, Inbox)> {
        let NodeParts {
            mut config,
            identity,
            recovered,
            seed,
            reader,
            writer,
            snapshots,
            state,
            transport,
            compact_every_bytes,
            on_change,
            shutdown,
        } = parts;
        let session = OperationId {
            node: identity.id,
            incarnation: identity.incarnation,
            boot: identity.boot,
            counter: 0,
        };
        let applied_at_start = recovered.applied;
        seeded::in_core(&mut config);
        let raft = Raft::new(config, identity, recovered, seed)?;
        let (message_sender, messages) = mpsc::channel(MESSAGES_MAX);
        let (unreachable_sender, unreachable) = mpsc::channel(MESSAGES_MAX);
        let (event_sender, events) = mpsc::channel(EVENTS_MAX);
        let (request_sender, requests) = mpsc::channel(REQUESTS_MAX);
        let (applied_sender, applied) = watch::channel(applied_at_start);
        let events_weak = event_sender.downgrade();
        let pending = Arc::new(Pending::new(&identity));
        let log = start_log(writer, transport.clone(), event_sender.clone())?;
        let loader = Loader::start(reader, snapshots.clone(), event_sender.clone())?;
        let applier = Applier::start(Parts {
            state,
            snapshots,
            session,
            applied: applied_sender,
            events: event_sender,
            compact_every_bytes,
            on_change,
        })?;
        let inbox = Inbox {
            messages: message_sender,
            unreachable: unreachable_sender,
            load: Arc::default(),
        };
        let submitted = Arc::new(AtomicU64::new(0));
        let gauges = Gauges {
            messages: inbox.messages.downgrade(),
            inbox: Arc::clone(&inbox.load),
            events: events_weak,
            apply: applier.queue(),
            load: loader.queue(),
            log: log.metrics(),
            submitted: Arc::clone(&submitted),
        };
        let first = NodeStatus {
            raft: raft.status(),
            ..NodeStatus::of(identity)
        };
        transport.set_members(&first.raft.configuration);
        let role = RoleChange {
            term: first.raft.term,
            role: first.raft.role,
            leader: first.raft.leader,
        };
        let (status, status_receiver) = watch::channel(Arc::new(first));
        let (session_sender, session_open) = watch::channel(false);
        let handle = Handle {
            shared: Arc::new(Shared {
                requests: request_sender,
                pending: pending.clone(),
                reads: first_id(identity.incarnation, identity.boot).into(),
                session,
                status: status_receiver,
                applied,
                session_open,
                gauges,
            }),
        };
        let node = Node {
            raft,
            identity,
            transport,
            applier,
            loader,
            pending,
            messages,
            inbox: Arc::clone(&inbox.load),
            unreachable,
            events,
            requests,
            log,
            submitted,
            reads: HashMap::new(),
            control: HashMap::new(),
            next_control: CONTROL_IDS,
            tick: 0,
            role,
            proposals: Vec::new(),
            readers: Vec::new(),
            status,
            space: Space::Ample,
            failure: None,
            counts: Counts::default(),
            refused_snapshot: None,
            shutdown: shutdown.clone(),
        };
        drop(shutdown.spawn(open_session(handle.clone(), session_sender, shutdown.clone())));
        Ok((node, handle, inbox))
    }

    /// Counters of the log writer.
    pub fn log_metrics(&self) -> Arc<WriterMetrics> {
        self.log.metrics()
    }

    /// Drives the core until its shutdown begins or the log fails; then everything that waits is
    /// answered and the threads are joined. The failure is in the last status.
    pub async fn run(mut self) {
        let stop = self.shutdown.begun();
        tokio::pin!(stop);
        let mut ticker = tokio::time::interval(TICK);
        // After a pause of the process a burst of late ticks would depose a healthy leader.
        ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut turn = Turn::default();
        loop {
            tokio::select! {
                biased;
                () = &mut stop => break,
                _ = ticker.tick() => turn.has_ticked = true,
                Some(event) = self.events.recv() => turn.events.push(event),
                Some(batch) = self.messages.recv() => turn.messages.push(batch),
                Some(peer) = self.unreachable.recv() => turn.unreachable.push(peer),
                Some(request) = self.requests.recv() => turn.requests.push(request),
            }
            if turn.is_shared() {
                // Requests and messages come in crowds. Tasks that are ready now hand in theirs first and
                // share this turn: one write and one message per peer instead of one for each of them.
                tokio::task::yield_now().await;
            }
            // A broken invariant must not leave a process that looks alive: nothing of the core is believed
            // any more, everyone who waits is answered, and the server ends.
            let work = AssertUnwindSafe(|| self.take_turn(&mut turn));
            if let Err(panic) = catch_unwind(work) {
                self.fail(panicked("the core", &*panic));
            }
            if self.failure.is_some() {
                break;
            }
        }
        self.close().await;
    }

    fn take_turn(&mut self, turn: &mut Turn) {
        self.drain(turn);
        self.step_all(turn);
        self.carry_out();
    }

    fn on_tick(&mut self) {
        self.tick += 1;
        if self.role.leader.is_none() {
            self.counts.leaderless_ticks += 1;
        }
        self.raft.step(Input::Tick);
        if self.tick.is_multiple_of(RETRY_TICKS) {
            self.retry_operations();
        }
        self.publish();
    }

    /// Takes what else is there, so that a busy turn is one batch.
    fn drain(&mut self, turn: &mut Turn) {
        while turn.events.len() < TURN_MAX
            && let Ok(event) = self.events.try_recv()
        {
            turn.events.push(event);
        }
        while turn.messages.len() < TURN_MAX
            && let Ok(batch) = self.messages.try_recv()
        {
            turn.messages.push(batch);
        }
        while turn.unreachable.len() < TURN_MAX
            && let Ok(peer) = self.unreachable.try_recv()
        {
            turn.unreachable.push(peer);
        }
        while turn.requests.len() < TURN_MAX
            && let Ok(request) = self.requests.try_recv()
        {
            turn.requests.push(request);
        }
    }

    fn step_all(&mut self, turn: &mut Turn) {
        if std::mem::take(&mut turn.has_ticked) {
            self.on_tick();
        }
        for event in turn.events.drain(..) {
            self.on_event(event);
        }
        for batch in turn.messages.drain(..) {
            self.inbox.taken(&batch);
            for message in batch.messages {
                self.raft.step(Input::Message(message));
            }
        }
        for peer in turn.unreachable.drain(..) {
            self.raft.step(Input::Unreachable(peer));
        }
        for request in turn.requests.drain(..) {
            self.on_request(request);
        }
        if !self.proposals.is_empty() {
            self.raft
                .step(Input::Propose(std::mem::take(&mut self.proposals)));
        }
        if !self.readers.is_empty() {
            self.raft
                .step(Input::ReadIndex(std::mem::take(&mut self.readers)));
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Persisted(token) => self.raft.step(Input::Persisted(token)),
            Event::Space(space) => {
                if space != self.space {
                    tracing::warn!(from = ?self.space, to = ?space, "room on the data volume has changed");
                }
                self.space = space;
                self.raft.step(Input::Space(space));
            }
            Event::Applied { index, outcomes } => {
                self.pending.complete(outcomes);
                self.raft.step(Input::Applied(index));
            }
            Event::Compact(index) => self.raft.step(Input::Compact(index)),
            Event::Loaded { id, result } => self.raft.step(Input::Loaded { id, result }),
            Event::SnapshotMade(meta) => {
                if let Some(meta) = &meta {
                    self.counts.snapshots_made += 1;
                    tracing::info!(
                        index = meta.last.index.0,
                        size_bytes = meta.size_bytes,
                        "a snapshot was made"
                    );
                }
                self.raft.step(Input::SnapshotMade(meta));
            }
            Event::Installed(meta) => {
                self.counts.snapshots_installed += 1;
                self.raft.step(Input::Installed(meta));
            }
            Event::SnapshotRefused { meta, reason } => self.refuse_snapshot(&meta, reason),
            Event::Failed(reason) => self.fail(reason),
        }
    }

    /// Told once for each snapshot: the leader sends it again until it arrives whole.
    fn refuse_snapshot(&mut self, meta: &SnapshotMeta, reason: &'static str) {
        self.counts.snapshots_refused += 1;
        if self.refused_snapshot.as_ref() != Some(meta) {
            tracing::error!(
                index = meta.last.index.0,
                leader = self.role.leader.map(|leader| leader.0),
                reason,
                "a snapshot arrived damaged: it is not used and fetched again; if this goes on, check memory and disk \
                 of the leader"
            );
            self.refused_snapshot = Some(meta.clone());
        }
        self.raft.step(Input::SnapshotRefused(meta.clone()));
    }

    fn fail(&mut self, reason: String) {
        tracing::error!(
            reason,
            "the node has failed: it takes no writes, votes no more and will stop"
        );
        // The first one is the cause of those that follow.
        self.failure.get_or_insert(reason);
    }

    fn on_request(&mut self, request: Request) {
        match request {
            Request::Propose(ticket) => {
                if let Some(ready) = self.pending.start(ticket, self.role.term, self.tick) {
                    self.proposals.push(proposal(ready));
                }
            }
            Request::Read { id, answer } => {
                self.reads.insert(id, answer);
                self.readers.push(id);
            }
            Request::Change { change, answer } => {
                let id = self.control_id(Control::Change(answer));
                self.raft.step(Input::Change { id, change });
            }
            Request::Transfer { to, answer } => {
                let id = self.control_id(Control::Transfer(answer));
                self.raft.step(Input::Transfer { id, to });
            }
        }
    }

    fn control_id(&mut self, control: Control) -> ProposalId {
        self.next_control += 1;
        let id = ProposalId(self.next_control);
        self.control.insert(id, control);
        id
    }

    /// Operations whose attempt came to nothing get another one as soon as a leader is known; the
    /// operation id makes sure that they are applied once.
    fn retry_operations(&mut self) {
        if self.role.leader.is_none() {
            return;
        }
        let leads = self.role.role == RoleKind::Leader;
        let again = self.pending.retry(self.role.term, self.tick, leads);
        if !again.is_empty() {
            self.raft
                .step(Input::Propose(again.into_iter().map(proposal).collect()));
        }
    }

    fn carry_out(&mut self) {
        // An effect may be answered at once (a refused proposal), never so that it goes on for ever.
        while self.raft.has_effects() {
            let effects = self.raft.take_effects();
            self.carry_out_once(effects);
        }
    }

    fn carry_out_once(&mut self, effects: Effects) {
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
        if let Some(configuration) = &configuration {
            tracing::info!(
                voters = ?configuration.voters,
                outgoing = ?configuration.outgoing,
                members = configuration.members.len(),
                "membership changed"
            );
            self.transport.set_members(configuration);
        }
        for (to, message) in send {
            self.transport.send(to, message);
        }
        if let Some(persist) = persist {
            self.submitted.fetch_add(1, Relaxed);
            self.log.submit(persist);
        }
        if !apply.is_empty() {
            self.applier.submit(Work::Apply(apply));
        }
        for load in load {
            self.loader.submit(load);
        }
        match snapshot {
            Some(SnapshotWork::Make { .. }) => self.applier.submit(Work::MakeSnapshot),
            Some(SnapshotWork::Install(meta)) => self.applier.submit(Work::Install(meta)),
            None => {}
        }
        for read in reads {
            if let Some(answer) = self.reads.remove(&read.id) {
                // The reader may have given up.
                let _gone = answer.send(read.result);
            }
        }
        for outcome in outcomes {
            self.on_outcome(outcome.id, outcome.result);
        }
        if let Some(role) = role {
            self.on_role(role);
        }
        if role.is_some() || configuration.is_some() {
            self.publish();
        }
    }

    fn on_outcome(&mut self, id: ProposalId, result: Result<EntryId, Refusal>) {
        if id.0 < CONTROL_IDS {
            match result {
                Ok(at) => self.pending.appended(id, at.term),
                Err(refusal) => self.pending.refused(id, refusal),
            }
            return;
        }
        match (self.control.remove(&id), result) {
            (Some(Control::Change(answer)), result) => drop(answer.send(result)),
            (Some(Control::Transfer(answer)), Err(refusal)) => drop(answer.send(refusal)),
            (Some(Control::Transfer(_)), Ok(_)) | (None, _) => {}
        }
    }

    fn on_role(&mut self, role: RoleChange) {
        tracing::info!(
            node = self.identity.id.0,
            term = role.term.0,
            role = ?role.role,
            leader = role.leader.map(|leader| leader.0),
            "role changed"
        );
        if role.role == RoleKind::Candidate && role.term != self.role.term {
            self.counts.elections += 1;
        }
        if role.leader != self.role.leader && role.leader.is_some() {
            self.counts.leader_changes += 1;
        }
        if role.role == RoleKind::Leader && self.role.role != RoleKind::Leader {
            self.counts.elections_won += 1;
        }
        let news = role.leader.is_some() && (role.leader, role.term) != (self.role.leader, self.role.term);
        self.role = role;
        if news {
            self.retry_operations();
        }
    }

    fn publish(&mut self) {
        // Askers that gave up leave their entry behind; they are few and swept here.
        self.reads.retain(|_, answer| !answer.is_closed());
        self.control.retain(|_, control| !control.is_closed());
        let raft = match &self.failure {
            None => self.raft.status(),
            // The core may be broken: nothing more is asked of it.
            Some(_) => self.status.borrow().raft.clone(),
        };
        let next = NodeStatus {
            identity: self.identity,
            raft,
            space: self.space,
            failure: self.failure.clone(),
            counts: self.counts,
        };
        self.status.send_if_modified(|status| {
            let changed = **status != next;
            if changed {
                *status = Arc::new(next);
            }
            changed
        });
    }

    async fn close(mut self) {
        let reason = match &self.failure {
            Some(reason) => ProposeError::Failed(reason.clone()),
            None => ProposeError::Stopping,
        };
        while let Ok(event) = self.events.try_recv() {
            // Applied before the end: known, so it is told.
            if let Event::Applied { outcomes, .. } = event {
                self.pending.complete(outcomes);
            }
        }
        self.pending.close(&reason);
        self.publish();
        self.requests.close();
        self.reads.clear();
        self.control.clear();
        // The threads may be waiting for room in the inbox that nobody reads any more.
        self.events.close();
        let joined = tokio::task::spawn_blocking(move || {
            self.log.close();
            self.applier.stop();
            self.loader.stop();
        });
        if joined.await.is_err() {
            tracing::error!("a thread of the log could not be joined");
        }
    }
}

/// What one turn has taken from the queues; reused.
#[derive(Default)]
struct Turn {
    has_ticked: bool,
    events: Vec<Event>,
    messages: Vec<Batch>,
    unreachable: Vec<NodeId>,
    requests: Vec<Request>,
}

impl Turn {
    /// What has come may be the first of several.
    fn is_shared(&self) -> bool {
        !self.requests.is_empty() || !self.messages.is_empty() || !self.events.is_empty()
    }
}

/// The reason of a failure that was a panic: an assertion, so a bug of ours.
pub(super) fn panicked(what: &str, panic: &(dyn Any + Send)) -> String {
    let said = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no words");
    format!("{what} has met a state that must not be ({said}): start the node again and report this")
}

fn proposal(ready: Ready) -> Proposal {
    Proposal {
        id: ready.id,
        payload: ready.payload,
        essential: ready.essential,
    }
}

/// Wires the log writer: acks and votes leave on its thread, the moment their write is synced.
fn start_log(
    writer: LogWriter,
    transport: Arc<dyn Transport>,
    events: mpsc::Sender<Event>,
) -> std::io::Result<WriterHandle> {
    writer.start(move |completion| {
        let event = match completion {
            Completion::Persisted { token, then_send } => {
                for (to, message) in then_send {
                    transport.send(to, message);
                }
                Event::Persisted(token)
            }
            Completion::SnapshotRefused { meta, reason } => Event::SnapshotRefused { meta, reason },
            Completion::Space(space) => Event::Space(space),
            Completion::Failed(error) => Event::Failed(format!("the log: {error}")),
        };
        tell(&events, event);
    })
}

/// Tells the loop from a thread of its own. Waits only when the inbox is full; a closed one means that the
/// loop is gone and the node is stopping.
pub(super) fn tell(events: &mpsc::Sender<Event>, event: Event) {
    if let Err(mpsc::error::TrySendError::Full(event)) = events.try_send(event) {
        drop(events.blocking_send(event));
    }
}

/// Opens the session of this boot: until it is applied, no operation id of this node means anything.
async fn open_session(handle: Handle, open: watch::Sender<bool>, shutdown: Shutdown) {
    let session = handle.shared.session;
    loop {
        let registered = handle.shared.pending.register(true, |counter, watermark| {
            Command::OpenSession.encode(OperationId { counter, ..session }, watermark)
        });
        let Ok((ticket, outcome)) = registered else { return };
        if handle
            .shared
            .requests
            .send(Request::Propose(ticket))
            .await
            .is_err()
        {
            return;
        }
        match outcome.await {
            Ok(Ok(Outcome::SessionOpened)) => {
                tracing::debug!(boot = session.boot.0, "session opened");
                open.send_replace(true);
                // The sender lives as long as the node: a dropped one would read as "stopping".
                shutdown.begun().await;
                return;
            }
            // Refused for want of room or the like: definite, so ask again; the loop paces it.
            Ok(Err(ProposeError::Stopping | ProposeError::Failed(_))) | Err(_) => return,
            // The state refuses the session of a node it does not know as a member, yet.
            Ok(Ok(_) | Err(_)) => tokio::time::sleep(TICK * 5).await,
        }
    }
}
