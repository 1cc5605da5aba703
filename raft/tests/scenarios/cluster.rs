//! A cluster in memory for tests that tell a story: nodes, a network that delivers when told, disks
//! that finish when told. Everything that happens can be written down.
//!
//! It injects nothing by itself; the simulator does that. Delivery is in the order of sending.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use raft::{
    Body, Boot, Config, Configuration, Effects, Entry, EntryKind, HardState, Identity, Incarnation, Index,
    Input, Load, LoadWhat, Loaded, LogBase, Member, Message, NodeId, Persist, Proposal, ProposalId, Raft,
    ReadId, Recovered, SnapshotMeta, SnapshotWork, Term,
};

/// What a node's disk holds.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    pub(crate) hard_state: HardState,
    pub(crate) base: LogBase,
    pub(crate) base_configuration: Configuration,
    pub(crate) entries: Vec<Entry>,
    pub(crate) suspicion: Option<Boot>,
    pub(crate) snapshot: Option<(SnapshotMeta, Vec<u8>)>,
    partial: Vec<u8>,
    /// What the state machine holds: index and payload of every command.
    pub(crate) state: Vec<(Index, Bytes)>,
    pub(crate) applied: Index,
}

impl Disk {
    pub(crate) fn last(&self) -> Index {
        Index(self.base.id.index.0 + self.entries.len() as u64)
    }

    pub(crate) fn entry(&self, index: Index) -> Option<&Entry> {
        let offset = index.0.checked_sub(self.base.id.index.0 + 1)?;
        self.entries.get(offset as usize)
    }

    fn configurations(&self) -> Vec<(Index, Configuration)> {
        let mut all = vec![(self.base.id.index, self.base_configuration.clone())];
        let found = self
            .entries
            .iter()
            .filter(|entry| entry.kind == EntryKind::Configuration);
        all.extend(found.map(|entry| (entry.index(), Configuration::decode(&entry.payload).unwrap())));
        all
    }

    fn configuration_at(&self, index: Index) -> Configuration {
        let all = self.configurations();
        all.into_iter()
            .rev()
            .find(|(at, _)| *at <= index)
            .map(|(_, configuration)| configuration)
            .unwrap()
    }

    pub(crate) fn recovered(&self) -> Recovered {
        let mut terms: Vec<(Index, Term)> = Vec::new();
        for entry in &self.entries {
            if terms.last().is_none_or(|run| run.1 != entry.term()) {
                terms.push((entry.index(), entry.term()));
            }
        }
        Recovered {
            hard_state: self.hard_state,
            base: self.base,
            terms,
            last: self.entries.last().map_or(self.base.id, |entry| entry.id),
            last_checksum: self
                .entries
                .last()
                .map_or(self.base.checksum, |entry| entry.checksum),
            configurations: self.configurations(),
            applied: self.applied,
            snapshot: self.snapshot.as_ref().map(|(meta, _)| meta.clone()),
            suspicion: self.suspicion,
        }
    }

    fn write(&mut self, persist: &Persist) {
        if let Some(chunk) = &persist.chunk {
            self.partial.truncate(chunk.offset as usize);
            assert_eq!(
                self.partial.len() as u64,
                chunk.offset,
                "a gap in the snapshot file"
            );
            self.partial.extend_from_slice(&chunk.data);
            if chunk.last {
                assert_eq!(crc32fast::hash(&self.partial), chunk.meta.file_checksum);
                self.snapshot = Some((chunk.meta.clone(), std::mem::take(&mut self.partial)));
            }
        }
        if let Some(meta) = &persist.reset_to {
            assert_eq!(self.snapshot.as_ref().map(|(held, _)| held), Some(meta));
            self.base = LogBase {
                id: meta.last,
                checksum: meta.checksum,
            };
            self.base_configuration = meta.configuration.clone();
            self.entries.clear();
        }
        if let Some(from) = persist.truncate_from {
            self.entries
                .truncate((from.0 - self.base.id.index.0 - 1) as usize);
        }
        for entry in &persist.entries {
            assert_eq!(entry.index(), self.last().next(), "a gap in the log");
            self.entries.push(entry.clone());
        }
        self.hard_state = persist.hard_state.unwrap_or(self.hard_state);
        if let Some(base) = persist.compact_to {
            self.base_configuration = self.configuration_at(base.id.index);
            self.entries
                .drain(..(base.id.index.0 - self.base.id.index.0) as usize);
            self.base = base;
        }
        if persist.clear_suspicion {
            self.suspicion = None;
        }
    }
}

pub(crate) struct Node {
    pub(crate) raft: Raft,
    pub(crate) identity: Identity,
    pub(crate) disk: Disk,
    /// Writes that wait, when the disk was told to.
    pub(crate) queue: VecDeque<Persist>,
    pub(crate) is_disk_held: bool,
    /// Snapshots that were begun and not told of, while they take long.
    held_snapshots: Option<Vec<SnapshotMeta>>,
    pub(crate) is_up: bool,
    seed: u64,
}

/// Nodes, what is under way between them, and a log of it all.
pub(crate) struct Cluster {
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    pub(crate) network: VecDeque<(NodeId, NodeId, Message)>,
    /// Directed links that lose everything.
    pub(crate) cut: BTreeSet<(NodeId, NodeId)>,
    pub(crate) config: Config,
    pub(crate) trace: Vec<String>,
    next_id: u64,
}

/// Small limits, so that stories stay short.
pub(crate) fn small_config() -> Config {
    Config {
        heartbeat_ticks: 2,
        election_ticks: 10,
        entry_bytes_max: 512,
        append_bytes_max: 400,
        inflight_count_max: 4,
        inflight_bytes_max: 2_000,
        uncommitted_bytes_max: 2_000,
        unapplied_bytes_max: 2_000,
        cache_bytes_max: 500,
        retained_bytes_max: 0,
        chunk_bytes_max: 16,
        chunk_inflight_max: 2,
        ..Config::default()
    }
}

pub(crate) fn member(id: u64) -> Member {
    Member {
        id: NodeId(id),
        incarnation: Incarnation(id * 10),
        address: format!("n{id}:1"),
    }
}

pub(crate) fn voters(ids: &[u64]) -> Configuration {
    let mut configuration = Configuration::founding(member(ids[0]));
    for id in &ids[1..] {
        configuration.members.insert(NodeId(*id), member(*id));
        configuration.voters.insert(NodeId(*id));
    }
    configuration
}

impl Cluster {
    /// `ids` are voters of a cluster that has no entries yet.
    pub(crate) fn new(ids: &[u64], config: Config) -> Cluster {
        let mut cluster = Cluster {
            nodes: BTreeMap::new(),
            network: VecDeque::new(),
            cut: BTreeSet::new(),
            config,
            trace: Vec::new(),
            next_id: 1,
        };
        let configuration = voters(ids);
        for id in ids {
            let disk = Disk {
                base_configuration: configuration.clone(),
                ..Disk::default()
            };
            cluster.start(*id, disk, Boot(1));
        }
        cluster
    }

    pub(crate) fn start(&mut self, id: u64, disk: Disk, boot: Boot) {
        let identity = Identity {
            id: NodeId(id),
            incarnation: Incarnation(id * 10),
            boot,
        };
        let seed = id * 1_000 + boot.0;
        let raft = Raft::new(self.config, identity, disk.recovered(), seed).unwrap();
        let node = Node {
            raft,
            identity,
            disk,
            queue: VecDeque::new(),
            is_disk_held: false,
            held_snapshots: None,
            is_up: true,
            seed,
        };
        self.nodes.insert(NodeId(id), node);
    }

    pub(crate) fn node(&self, id: u64) -> &Node {
        &self.nodes[&NodeId(id)]
    }

    pub(crate) fn note(&mut self, line: String) {
        self.trace.push(line);
    }

    pub(crate) fn crash(&mut self, id: u64) {
        let node = self.nodes.get_mut(&NodeId(id)).unwrap();
        node.is_up = false;
        node.queue.clear();
        self.note(format!("{id} crashes"));
    }

    pub(crate) fn restart(&mut self, id: u64, change: impl FnOnce(&mut Disk, Boot)) {
        let node = &self.nodes[&NodeId(id)];
        let boot = Boot(node.identity.boot.0 + 1);
        let mut disk = node.disk.clone();
        change(&mut disk, boot);
        self.start(id, disk, boot);
        let seed = self.node(id).seed;
        self.note(format!(
            "{id} starts, boot {boot}, log {}, seed {seed}",
            self.node(id).disk.last()
        ));
    }

    pub(crate) fn step(&mut self, id: u64, input: Input) {
        self.feed(NodeId(id), input);
    }

    fn feed(&mut self, id: NodeId, input: Input) {
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.is_up) else {
            return;
        };
        node.raft.step(input);
        self.take(id);
    }

    /// Carries out what a node asks for, until it asks for nothing.
    fn take(&mut self, id: NodeId) {
        while self.nodes[&id].is_up && self.nodes[&id].raft.has_effects() {
            let effects = self.nodes.get_mut(&id).unwrap().raft.take_effects();
            self.note_effects(id, &effects);
            for (to, message) in effects.send {
                self.network.push_back((id, to, message));
            }
            let node = self.nodes.get_mut(&id).unwrap();
            for load in effects.load {
                let answer = answer_load(&node.disk, load);
                node.raft.step(answer);
            }
            if let Some(last) = effects.apply.last().map(Entry::index) {
                let commands = effects
                    .apply
                    .iter()
                    .filter(|entry| entry.kind == EntryKind::Command);
                node.disk
                    .state
                    .extend(commands.map(|entry| (entry.index(), entry.payload.clone())));
                node.disk.applied = last;
                node.raft.step(Input::Applied(last));
            }
            if let Some(work) = effects.snapshot {
                self.do_snapshot(id, work);
            }
            if let Some(persist) = effects.persist {
                let node = self.nodes.get_mut(&id).unwrap();
                node.queue.push_back(persist);
                if !node.is_disk_held {
                    self.sync(id);
                }
            }
        }
    }

    /// Finishes the writes that wait.
    fn sync(&mut self, id: NodeId) {
        while let Some(persist) = self.nodes.get_mut(&id).unwrap().queue.pop_front() {
            let node = self.nodes.get_mut(&id).unwrap();
            node.disk.write(&persist);
            node.raft.step(Input::Persisted(persist.token));
            for (to, message) in persist.then_send {
                self.network.push_back((id, to, message));
            }
        }
    }

    pub(crate) fn hold_disk(&mut self, id: u64, is_held: bool) {
        self.nodes.get_mut(&NodeId(id)).unwrap().is_disk_held = is_held;
        if !is_held {
            self.sync(NodeId(id));
            self.take(NodeId(id));
        }
    }

    /// Snapshots take long: they are begun at once and done when this is taken back. Gives how many were
    /// begun meanwhile.
    pub(crate) fn hold_snapshots(&mut self, id: u64, is_held: bool) -> usize {
        let node = self.nodes.get_mut(&NodeId(id)).unwrap();
        let made = node.held_snapshots.take().unwrap_or_default();
        node.held_snapshots = is_held.then(Vec::new);
        let count = made.len();
        for meta in made {
            self.step(id, Input::SnapshotMade(Some(meta)));
        }
        count
    }

    fn do_snapshot(&mut self, id: NodeId, work: SnapshotWork) {
        let node = self.nodes.get_mut(&id).unwrap();
        match work {
            SnapshotWork::Make { .. } => {
                let (meta, file) = make_snapshot(&node.disk, &node.raft);
                node.disk.snapshot = Some((meta.clone(), file));
                if let Some(made) = &mut node.held_snapshots {
                    made.push(meta);
                } else {
                    node.raft.step(Input::SnapshotMade(Some(meta)));
                }
            }
            SnapshotWork::Install(meta) => {
                let (held, file) = node.disk.snapshot.clone().unwrap();
                assert_eq!(held, meta);
                node.disk.state = read_snapshot(&file);
                node.disk.applied = meta.last.index;
                node.raft.step(Input::Installed(meta));
            }
        }
    }

    /// Delivers everything that is under way and what follows from it.
    pub(crate) fn settle(&mut self) {
        self.deliver(100_000);
        assert!(self.network.is_empty(), "the cluster never comes to rest");
    }

    /// Delivers so many messages.
    pub(crate) fn deliver(&mut self, count: usize) {
        for _ in 0..count {
            let Some((from, to, message)) = self.network.pop_front() else {
                return;
            };
            let is_up = self.nodes.get(&to).is_some_and(|node| node.is_up);
            let text = describe(&message);
            if self.cut.contains(&(from, to)) || !is_up {
                self.note(format!("{from}->{to} {text} LOST"));
            } else {
                self.note(format!("{from}->{to} {text}"));
                self.feed(to, Input::Message(message));
            }
        }
    }

    pub(crate) fn tick(&mut self, id: u64, count: u32) {
        for _ in 0..count {
            self.feed(NodeId(id), Input::Tick);
        }
    }

    /// Time passes for all, with delivery after each tick.
    pub(crate) fn pass(&mut self, ticks: u32) {
        for _ in 0..ticks {
            let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
            for id in ids {
                self.feed(id, Input::Tick);
            }
            self.settle();
        }
    }

    /// Lets one node campaign, and whoever hears it answer.
    pub(crate) fn elect(&mut self, id: u64) {
        for _ in 0..20 {
            let ids: Vec<NodeId> = self
                .nodes
                .keys()
                .copied()
                .filter(|other| *other != NodeId(id))
                .collect();
            for other in ids {
                // The others' patience must end too, yet none of them may campaign first.
                let node = self.nodes.get_mut(&other).unwrap();
                if node.is_up && node.raft.status().leader.is_some() {
                    for _ in 0..self.config.election_ticks {
                        node.raft.step(Input::Tick);
                    }
                    self.take(other);
                }
            }
            self.network.clear();
            let mut patience = 2 * self.config.election_ticks;
            while self.network.is_empty() && patience > 0 {
                self.tick(id, 1);
                patience -= 1;
            }
            self.settle();
            if self.node(id).raft.status().leader == Some(NodeId(id)) {
                return;
            }
        }
        panic!("node {id} cannot be elected:\n{}", self.trace.join("\n"));
    }

    pub(crate) fn propose(&mut self, id: u64, payloads: &[&str]) {
        let proposals = payloads.iter().map(|payload| self.proposal(payload)).collect();
        self.step(id, Input::Propose(proposals));
    }

    pub(crate) fn proposal(&mut self, payload: &str) -> Proposal {
        let id = ProposalId(self.next_id);
        self.next_id += 1;
        Proposal {
            id,
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            essential: payload.starts_with('!'),
        }
    }

    pub(crate) fn read(&mut self, id: u64) {
        let read = ReadId(self.next_id);
        self.next_id += 1;
        self.step(id, Input::ReadIndex(vec![read]));
    }

    pub(crate) fn next_proposal_id(&mut self) -> ProposalId {
        self.next_id += 1;
        ProposalId(self.next_id - 1)
    }

    pub(crate) fn partition(&mut self, left: &[u64], right: &[u64]) {
        for a in left {
            for b in right {
                self.cut.insert((NodeId(*a), NodeId(*b)));
                self.cut.insert((NodeId(*b), NodeId(*a)));
            }
        }
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
    }

    fn note_effects(&mut self, id: NodeId, effects: &Effects) {
        for line in describe_effects(effects) {
            self.trace.push(format!("{id} {line}"));
        }
    }
}

fn answer_load(disk: &Disk, load: Load) -> Input {
    let result = match load.what {
        LoadWhat::Entries { range, bytes_max } => {
            let mut entries: Vec<Entry> = Vec::new();
            let mut bytes = 0;
            let mut index = range.start;
            while index < range.end {
                let Some(entry) = disk.entry(index) else { break };
                bytes += entry.size_bytes();
                if bytes > bytes_max && !entries.is_empty() {
                    break;
                }
                entries.push(entry.clone());
                index = index.next();
            }
            if entries.is_empty() {
                Loaded::Gone
            } else {
                Loaded::Entries(entries)
            }
        }
        LoadWhat::Chunk {
            meta,
            offset,
            bytes_max,
        } => match &disk.snapshot {
            Some((held, file)) if *held == meta => {
                let end = (offset as usize + bytes_max).min(file.len());
                Loaded::Chunk(Bytes::copy_from_slice(&file[offset as usize..end]))
            }
            _ => Loaded::Gone,
        },
    };
    Input::Loaded { id: load.id, result }
}

fn make_snapshot(disk: &Disk, raft: &Raft) -> (SnapshotMeta, Vec<u8>) {
    let index = disk.applied;
    let (id, checksum) = match disk.entry(index) {
        Some(entry) => (entry.id, entry.checksum),
        None => (disk.base.id, disk.base.checksum),
    };
    assert_eq!(id.index, index);
    let mut file = b"snapshot ".to_vec();
    for (index, payload) in &disk.state {
        file.extend_from_slice(format!("{index}={};", String::from_utf8_lossy(payload)).as_bytes());
    }
    let meta = SnapshotMeta {
        last: id,
        checksum,
        configuration: raft.configuration_at(index).unwrap().clone(),
        size_bytes: file.len() as u64,
        file_checksum: crc32fast::hash(&file),
    };
    (meta, file)
}

fn read_snapshot(file: &[u8]) -> Vec<(Index, Bytes)> {
    let text = std::str::from_utf8(file)
        .unwrap()
        .strip_prefix("snapshot ")
        .unwrap();
    let pairs = text
        .split_terminator(';')
        .map(|pair| pair.split_once('=').unwrap());
    pairs
        .map(|(index, payload)| {
            (
                Index(index.parse().unwrap()),
                Bytes::copy_from_slice(payload.as_bytes()),
            )
        })
        .collect()
}

pub(crate) fn describe_effects(effects: &Effects) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(role) = effects.role {
        let leader = role.leader.map_or("none".to_owned(), |leader| leader.to_string());
        lines.push(format!(
            "is {:?} in term {}, leader {leader}",
            role.role, role.term
        ));
    }
    if let Some(configuration) = &effects.configuration {
        lines.push(format!("membership {}", describe_configuration(configuration)));
    }
    if let Some(persist) = &effects.persist {
        lines.push(format!("writes {}", describe_persist(persist)));
    }
    for load in &effects.load {
        lines.push(match &load.what {
            LoadWhat::Entries { range, bytes_max } => {
                format!("loads {}..{} max {bytes_max}", range.start, range.end)
            }
            LoadWhat::Chunk { meta, offset, .. } => {
                format!("loads piece at {offset} of snapshot {}", meta.last.index)
            }
        });
    }
    if let (Some(first), Some(last)) = (effects.apply.first(), effects.apply.last()) {
        lines.push(format!("applies {}..={}", first.index(), last.index()));
    }
    for read in &effects.reads {
        lines.push(match read.result {
            Ok(index) => format!("read {} at {index}", read.id),
            Err(refusal) => format!("read {} refused: {refusal}", read.id),
        });
    }
    for outcome in &effects.outcomes {
        lines.push(match outcome.result {
            Ok(id) => format!("proposal {} is {}@{}", outcome.id, id.index, id.term),
            Err(refusal) => format!("proposal {} refused: {refusal}", outcome.id),
        });
    }
    match &effects.snapshot {
        Some(SnapshotWork::Make { at_least }) => {
            lines.push(format!("makes a snapshot at {at_least} or later"))
        }
        Some(SnapshotWork::Install(meta)) => lines.push(format!("installs snapshot {}", meta.last.index)),
        None => {}
    }
    lines
}

pub(crate) fn describe_configuration(configuration: &Configuration) -> String {
    let voters: Vec<String> = configuration.voters.iter().map(|id| id.to_string()).collect();
    let mut text = format!("voters {}", voters.join(","));
    if configuration.is_joint() {
        let outgoing: Vec<String> = configuration.outgoing.iter().map(|id| id.to_string()).collect();
        text += &format!(" and {}", outgoing.join(","));
    }
    let learners = configuration
        .members
        .keys()
        .filter(|id| configuration.is_learner(**id));
    let learners: Vec<String> = learners.map(|id| id.to_string()).collect();
    if !learners.is_empty() {
        text += &format!(" learners {}", learners.join(","));
    }
    text
}

fn describe_entries(entries: &[Entry]) -> String {
    let parts = entries.iter().map(|entry| match entry.kind {
        EntryKind::Noop => format!("{}@{}:noop", entry.index(), entry.term()),
        EntryKind::Configuration => format!("{}@{}:members", entry.index(), entry.term()),
        EntryKind::Command if entry.payload.len() > 12 => {
            format!("{}@{}:{} bytes", entry.index(), entry.term(), entry.payload.len())
        }
        EntryKind::Command => {
            format!(
                "{}@{}:{}",
                entry.index(),
                entry.term(),
                String::from_utf8_lossy(&entry.payload)
            )
        }
    });
    parts.collect::<Vec<_>>().join(" ")
}

fn describe_persist(persist: &Persist) -> String {
    let mut parts = Vec::new();
    if let Some(chunk) = &persist.chunk {
        let last = if chunk.last { ", the last" } else { "" };
        parts.push(format!("piece {}+{}{last}", chunk.offset, chunk.data.len()));
    }
    if let Some(meta) = &persist.reset_to {
        parts.push(format!("restart after {}", meta.last.index));
    }
    if let Some(from) = persist.truncate_from {
        parts.push(format!("truncate from {from}"));
    }
    if !persist.entries.is_empty() {
        parts.push(format!("[{}]", describe_entries(&persist.entries)));
    }
    if let Some(hard) = persist.hard_state {
        let vote = hard.vote.map_or("none".to_owned(), |vote| vote.to_string());
        parts.push(format!("term {} vote {vote} commit {}", hard.term, hard.commit));
    }
    if let Some(base) = persist.compact_to {
        parts.push(format!("compact to {}", base.id.index));
    }
    if persist.clear_suspicion {
        parts.push("suspicion lifted".to_owned());
    }
    let sends: Vec<String> = persist
        .then_send
        .iter()
        .map(|(to, message)| format!("{to} {}", describe(message)))
        .collect();
    if !sends.is_empty() {
        parts.push(format!("then -> {}", sends.join(", ")));
    }
    parts.join("; ")
}

pub(crate) fn describe(message: &Message) -> String {
    let text = match &message.body {
        Body::PreVote(request) => {
            format!(
                "PreVote term {} last {}@{}",
                request.term, request.last.index, request.last.term
            )
        }
        Body::PreVoteReply(reply) => format!("PreVoteReply {} {}", reply.term, yes(reply.granted)),
        Body::Vote(request) => {
            let transfer = if request.transfer { " transfer" } else { "" };
            format!("Vote last {}@{}{transfer}", request.last.index, request.last.term)
        }
        Body::VoteReply(reply) => format!("VoteReply {}", yes(reply.granted)),
        Body::Append(append) => format!(
            "Append after {}@{} [{}] commit {}",
            append.previous.index,
            append.previous.term,
            describe_entries(&append.entries),
            append.commit
        ),
        Body::AppendReply(raft::AppendReply::Accepted { matched }) => format!("Accepted {matched}"),
        Body::AppendReply(raft::AppendReply::Rejected { asked, hint }) => {
            format!("Rejected {asked} hint {}@{}", hint.index, hint.term)
        }
        Body::AppendReply(raft::AppendReply::NoSpace) => "NoSpace".to_owned(),
        Body::Heartbeat(beat) => format!("Heartbeat {} commit {}", beat.round, beat.commit),
        Body::HeartbeatReply(reply) => format!("HeartbeatReply {} durable {}", reply.round, reply.durable),
        Body::Snapshot(chunk) => {
            format!(
                "Snapshot {} piece {}+{}",
                chunk.meta.last.index,
                chunk.offset,
                chunk.data.len()
            )
        }
        Body::SnapshotReply(reply) => match reply.installed {
            Some(index) => format!("SnapshotReply installed {index}"),
            None => format!("SnapshotReply next {}", reply.next_offset),
        },
        Body::Forward(proposals) => format!("Forward {} proposals", proposals.len()),
        Body::ForwardReply(outcomes) => format!("ForwardReply {} refused", outcomes.len()),
        Body::ReadIndex(ids) => format!("ReadIndex {} readers", ids.len()),
        Body::ReadIndexReply(reply) => match reply.result {
            Ok(index) => format!("ReadIndexReply {} readers at {index}", reply.ids.len()),
            Err(refusal) => format!("ReadIndexReply {refusal}"),
        },
        Body::TimeoutNow => "TimeoutNow".to_owned(),
        Body::Cleared(cleared) => format!("Cleared {}", cleared.suspicion),
    };
    let suspect = if message.sender.suspicion.is_some() {
        " (suspect)"
    } else {
        ""
    };
    format!("t{} {text}{suspect}", message.term)
}

fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}
