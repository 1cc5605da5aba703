//! `raft::Raft`: one node, stepped with any inputs in any order, its disk and state machine modelled, its
//! peers free to say anything.
//!
//! * No message panics, however odd; nor does a restart from what it left on the disk.
//! * Term and commit index never fall within a run; applied <= committed <= last, durable <= last.
//! * What is given out to be applied is contiguous and on the disk, each entry once in a run.
//! * Nothing is promised that a crash would take back: a vote, and a term that is led, are on the disk before
//!   a message tells of them, one vote for each term, over restarts too; so are acknowledged entries.
//! * Writes carry rising tokens and fit the log they are for; every reader gets one answer.
//!
//! What whole clusters promise (with honest peers) is the business of the simulator, `raft/tests/sim`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use raft::{
    AppendReply, Body, Boot, Change, Checksum, Config, Configuration, Entry, EntryId, EntryKind, HardState,
    Identity, Index, Input as Step, Load, LoadWhat, Loaded, LogBase, Message, NodeId, Persist, Proposal,
    ProposalId, Raft, ReadId, Recovered, SnapshotMeta, SnapshotWork, Space, Status, Term, Token,
};

use crate::input::Input;
use crate::messages::{Near, configuration, incarnation, member, membership, message};
use crate::mutate::Dice;

/// Inputs of a run.
const STEPS_MAX: usize = 600;

const ME: NodeId = NodeId(1);

/// See the module.
pub fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let mut node = Node::new(&mut input);
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        node.act(&mut input);
        // Sometimes several inputs share a turn.
        if !input.one_in(6) {
            node.turn();
        }
    }
    node.turn();
    node.restart(usize::MAX);
    node.turn();
}

// --- the disk -------------------------------------------------------------------------------------

/// What a disk holds.
#[derive(Clone, Debug, Default)]
struct Disk {
    log: Near,
    /// In force at the base.
    configuration: Configuration,
    hard: HardState,
    suspicion: Option<Boot>,
    snapshot: Option<SnapshotMeta>,
}

impl Disk {
    fn last(&self) -> Index {
        Index(self.log.last())
    }

    /// Carries out a write, field by field in the order that the contract gives.
    fn write(&mut self, persist: &Persist) {
        if let Some(chunk) = persist.chunk.as_ref().filter(|chunk| chunk.last) {
            self.snapshot = Some(chunk.meta.clone());
        }
        if let Some(meta) = &persist.reset_to {
            assert!(
                self.snapshot.as_ref() == Some(meta),
                "a restart after a file that is not there"
            );
            self.log.base = LogBase {
                id: meta.last,
                checksum: meta.checksum,
            };
            self.log.log.clear();
            // The record of the base takes its bytes.
            let decoded = Configuration::decode(&meta.configuration.encode());
            self.configuration = decoded.expect("a membership that comes back");
        }
        if let Some(from) = persist.truncate_from {
            assert!(
                from > self.log.base.id.index && from <= self.last(),
                "a truncation beside the log"
            );
            self.log
                .log
                .truncate((from.0 - self.log.base.id.index.0 - 1) as usize);
        }
        for entry in &persist.entries {
            assert!(
                entry.id.index == self.last().next(),
                "a gap before {}",
                entry.id.index
            );
            let last = self.log.point(self.log.last()).expect("the end of the log");
            assert!(
                entry.previous == last.checksum,
                "entry {} hangs on another chain",
                entry.id.index
            );
            assert!(entry.id.term >= last.id.term, "terms fall at {}", entry.id.index);
            assert!(entry.is_intact(), "entry {} is not intact", entry.id.index);
            self.log.log.push(entry.clone());
        }
        if let Some(hard) = persist.hard_state {
            assert!(hard.term >= self.hard.term, "the term falls");
            let same = hard.term == self.hard.term && self.hard.vote.is_some();
            assert!(!same || hard.vote == self.hard.vote, "the vote of a term changes");
            self.hard = hard;
        }
        if let Some(base) = persist
            .compact_to
            .filter(|base| base.id.index > self.log.base.id.index)
        {
            assert!(
                self.log.point(base.id.index.0) == Some(base),
                "a cut beside the log"
            );
            if let Some((_, configuration)) = self
                .configurations()
                .into_iter()
                .rfind(|(at, _)| *at <= base.id.index)
            {
                self.configuration = configuration;
            }
            self.log
                .log
                .drain(..(base.id.index.0 - self.log.base.id.index.0) as usize);
            self.log.base = base;
        }
        if persist.clear_suspicion {
            self.suspicion = None;
        }
    }

    /// The log writer ends the process instead of writing entries that hang on another chain. Only a leader
    /// that lies gets that far, and only where entries are replaced whose predecessor is no longer in memory:
    /// elsewhere the core itself drops what it sends.
    fn refuses(&self, persist: &Persist) -> bool {
        let Some((from, first)) = persist.truncate_from.zip(persist.entries.first()) else {
            return false;
        };
        let before = self.log.point(from.prev().0);
        persist.reset_to.is_none() && before.is_none_or(|before| before.checksum != first.previous)
    }

    fn configurations(&self) -> Vec<(Index, Configuration)> {
        let base = self.log.base.id.index;
        let is_known = base.0 > 0 || !self.configuration.members.is_empty();
        let at_base = is_known.then(|| (base, self.configuration.clone()));
        let later = self
            .log
            .log
            .iter()
            .filter(|entry| entry.kind == EntryKind::Configuration);
        let later = later.map(|entry| {
            let decoded = Configuration::decode(&entry.payload);
            (
                entry.id.index,
                decoded.expect("the core took it for a membership"),
            )
        });
        at_base.into_iter().chain(later).collect()
    }

    /// What a start finds. A snapshot that was being installed has been installed by storage.
    fn recovered(&self, applied: Index) -> Recovered {
        let base = self.log.base;
        let last = self.log.point(self.log.last()).expect("the end of the log");
        let mut terms: Vec<(Index, Term)> = Vec::new();
        for entry in &self.log.log {
            if terms.last().is_none_or(|run| run.1 != entry.id.term) {
                terms.push((entry.id.index, entry.id.term));
            }
        }
        Recovered {
            hard_state: self.hard,
            base,
            terms,
            last: last.id,
            last_checksum: last.checksum,
            configurations: self.configurations(),
            applied: applied.max(base.id.index),
            snapshot: self.snapshot.clone(),
            suspicion: self.suspicion,
        }
    }
}

// --- the node -------------------------------------------------------------------------------------

/// A node and what its owner knows.
struct Node {
    raft: Raft,
    config: Config,
    seed: u64,
    boot: u64,
    /// What a crash leaves.
    disk: Disk,
    /// The same with every write that was given out.
    page: Disk,
    /// Writes given out and not confirmed.
    queue: VecDeque<Persist>,
    token: Token,
    loads: VecDeque<Load>,
    /// Last index given out to be applied, and applied.
    given: Index,
    applied: Index,
    making: Option<Index>,
    installing: Option<SnapshotMeta>,
    /// Readers without an answer.
    readers: BTreeSet<ReadId>,
    next_id: u64,
    /// For whom this node voted, as its messages told.
    votes: BTreeMap<Term, NodeId>,
    /// Where it stood after the last turn.
    status: Status,
}

impl Node {
    fn new(input: &mut Input<'_>) -> Node {
        let choice = input.u8();
        let config = config(input);
        let disk = disk(choice);
        let applied = disk.log.base.id.index;
        let seed = u64::from(input.u8());
        let raft = start(config, 1, disk.recovered(applied), seed);
        let status = raft.status();
        Node {
            raft,
            config,
            seed,
            boot: 1,
            page: disk.clone(),
            disk,
            queue: VecDeque::new(),
            token: Token(0),
            loads: VecDeque::new(),
            given: applied,
            applied,
            making: None,
            installing: None,
            readers: BTreeSet::new(),
            next_id: 1,
            votes: BTreeMap::new(),
            status,
        }
    }

    fn act(&mut self, input: &mut Input<'_>) {
        match input.u8() % 32 {
            0..=2 => (0..=input.below(8)).for_each(|_| self.raft.step(Step::Tick)),
            3..=14 => {
                let message = message(input, &self.near());
                self.raft.step(Step::Message(message));
            }
            15 | 16 => self.propose(input),
            17 => self.change(input),
            18 => self.read(input),
            19 => {
                let (id, to) = (
                    ProposalId(self.id()),
                    input.flag().then(|| NodeId(u64::from(input.u8() % 5))),
                );
                self.raft.step(Step::Transfer { id, to });
            }
            20..=23 => self.confirm(1 + input.below(3)),
            24 => self.apply(input),
            25 => {
                let index = self.applied.0.saturating_sub(u64::from(input.u8() % 4));
                self.raft.step(Step::Compact(Index(index)));
            }
            26 | 27 => self.load(input),
            28 => self.snapshot(input),
            29 => self
                .raft
                .step(Step::Unreachable(NodeId(u64::from(input.u8() % 5)))),
            30 => {
                let space = [Space::Ample, Space::Ample, Space::Low, Space::Critical][input.below(4)];
                self.raft.step(Step::Space(space));
            }
            _ if input.one_in(4) => {
                self.turn();
                self.restart(input.below(4));
            }
            _ => self.confirm(usize::MAX),
        }
    }

    fn near(&self) -> Near {
        Near {
            term: self.raft.status().term.0,
            boot: self.boot,
            ..self.page.log.clone()
        }
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn propose(&mut self, input: &mut Input<'_>) {
        let proposals = (0..input.below(3)).map(|_| Proposal {
            id: ProposalId(self.id()),
            payload: Bytes::copy_from_slice(input.short_bytes()),
            essential: input.flag(),
        });
        let proposals = proposals.collect();
        self.raft.step(Step::Propose(proposals));
    }

    fn change(&mut self, input: &mut Input<'_>) {
        let id = 1 + u64::from(input.u8() % 4);
        let mut member = member(id);
        if input.one_in(8) {
            member.address = input.text();
        }
        let change = match input.u8() % 3 {
            0 => Change::Add(member),
            1 => Change::Remove(NodeId(id)),
            _ => Change::Readdress(member),
        };
        let id = ProposalId(self.id());
        self.raft.step(Step::Change { id, change });
    }

    fn read(&mut self, input: &mut Input<'_>) {
        let ids: Vec<ReadId> = (0..input.below(4)).map(|_| ReadId(self.id())).collect();
        self.readers.extend(&ids);
        self.raft.step(Step::ReadIndex(ids));
    }

    fn apply(&mut self, input: &mut Input<'_>) {
        let waiting = self.given.0.saturating_sub(self.applied.0);
        if waiting == 0 || self.installing.is_some() {
            return;
        }
        self.applied = Index(self.applied.0 + 1 + input.u8() as u64 % waiting);
        self.raft.step(Step::Applied(self.applied));
    }

    /// Answers a read from the disk: properly, with "gone", or with what is not the log.
    fn load(&mut self, input: &mut Input<'_>) {
        if self.loads.is_empty() {
            return;
        }
        let place = input.below(self.loads.len().min(200));
        let Some(load) = self.loads.remove(place) else {
            return;
        };
        let result = match (load.what, input.u8()) {
            (_, 0xf8..) => Loaded::Gone,
            (LoadWhat::Entries { range, bytes_max }, odd) => {
                let first = range.start.0.saturating_sub(u64::from(odd == 0xf7));
                self.entries(first, range.end.0, bytes_max, odd == 0xf6)
            }
            (
                LoadWhat::Chunk {
                    meta,
                    offset,
                    bytes_max,
                },
                _,
            ) => {
                let is_there = self.disk.snapshot.as_ref() == Some(&meta);
                let end = meta.size_bytes.min(offset.saturating_add(bytes_max as u64));
                if is_there {
                    Loaded::Chunk((offset..end).map(|byte| byte as u8).collect())
                } else {
                    Loaded::Gone
                }
            }
        };
        self.raft.step(Step::Loaded { id: load.id, result });
    }

    fn entries(&self, first: u64, end: u64, bytes_max: usize, spoil: bool) -> Loaded {
        let log = &self.disk.log;
        let Some(start) = first.checked_sub(log.base.id.index.0 + 1) else {
            return Loaded::Gone;
        };
        let mut bytes = 0;
        let count = end.saturating_sub(first) as usize;
        let mut entries: Vec<Entry> = Vec::new();
        for entry in log.log.iter().skip(start as usize).take(count) {
            bytes += entry.size_bytes();
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        if let Some(entry) = entries.last_mut().filter(|_| spoil) {
            entry.payload = Bytes::from_static(b"not what was written");
        }
        if entries.is_empty() {
            Loaded::Gone
        } else {
            Loaded::Entries(entries)
        }
    }

    fn snapshot(&mut self, input: &mut Input<'_>) {
        if let Some(meta) = self.installing.take() {
            (self.applied, self.given) = (meta.last.index, meta.last.index);
            self.raft.step(Step::Installed(meta));
            return;
        }
        let Some(at_least) = self.making.take() else {
            return;
        };
        let point = self.disk.log.point(self.applied.0);
        let known = self.raft.configuration_at(self.applied).cloned();
        let meta = match (point, known) {
            (Some(point), Some(configuration)) if self.applied >= at_least && !input.one_in(4) => {
                Some(SnapshotMeta {
                    last: point.id,
                    checksum: point.checksum,
                    configuration,
                    size_bytes: 8,
                    file_checksum: 2,
                })
            }
            _ => None,
        };
        if meta.is_some() {
            self.disk.snapshot = meta.clone();
            self.page.snapshot = meta.clone();
        }
        self.raft.step(Step::SnapshotMade(meta));
    }

    /// The next writes become durable, and their messages leave.
    fn confirm(&mut self, count: usize) {
        let mut confirmed = None;
        for _ in 0..count {
            let Some(persist) = self.queue.pop_front() else {
                break;
            };
            self.disk.write(&persist);
            let is_cut = persist.truncate_from.is_some() || persist.reset_to.is_some();
            for (to, message) in &persist.then_send {
                self.expect_true(*to, message, is_cut);
            }
            confirmed = Some(persist.token);
        }
        if let Some(token) = confirmed {
            self.raft.step(Step::Persisted(token));
        }
    }

    /// The process ends; `written` of its open writes reach the disk. The next one starts from there.
    fn restart(&mut self, written: usize) {
        for persist in self.queue.drain(..).take(written) {
            self.disk.write(&persist);
        }
        self.page = self.disk.clone();
        self.boot += 1;
        if self.installing.take().is_some() || self.applied < self.disk.log.base.id.index {
            self.applied = self.applied.max(self.disk.log.base.id.index);
        }
        self.given = self.applied;
        self.loads.clear();
        self.readers.clear();
        self.making = None;
        self.token = Token(0);
        let recovered = self.disk.recovered(self.applied);
        self.raft = start(self.config, self.boot, recovered, self.seed);
        self.status = self.raft.status();
    }

    // --- what must hold -------------------------------------------------------------------------

    /// Takes the effects of a turn, checks and keeps them.
    fn turn(&mut self) {
        let effects = self.raft.take_effects();
        if effects
            .persist
            .as_ref()
            .is_some_and(|persist| self.page.refuses(persist))
        {
            self.restart(usize::MAX);
            return;
        }
        for (to, message) in &effects.send {
            self.expect_true(*to, message, false);
        }
        for entry in effects.apply {
            assert!(
                entry.id.index == self.given.next(),
                "applies {} after {}",
                entry.id.index,
                self.given
            );
            let at = entry.id.index.0;
            let found = self.disk.log.point(at).map(|point| point.id);
            assert!(
                found == Some(entry.id),
                "applies {at}, the disk has {found:?} there"
            );
            self.given = entry.id.index;
        }
        if let Some(persist) = effects.persist {
            assert!(
                persist.token > self.token,
                "write {} after {}",
                persist.token,
                self.token
            );
            self.token = persist.token;
            self.page.write(&persist);
            self.queue.push_back(persist);
        }
        self.loads.extend(effects.load);
        for read in effects.reads {
            assert!(
                self.readers.remove(&read.id),
                "reader {} was answered twice",
                read.id
            );
        }
        match effects.snapshot {
            None => {}
            Some(SnapshotWork::Make { at_least }) => self.making = Some(at_least),
            Some(SnapshotWork::Install(meta)) => {
                assert!(
                    self.disk.log.base.id == meta.last,
                    "an install before the log starts there"
                );
                assert!(
                    self.disk.snapshot.as_ref() == Some(&meta),
                    "an install without its file"
                );
                self.installing = Some(meta);
            }
        }
        self.expect_order();
    }

    fn expect_order(&mut self) {
        let (before, now) = (&self.status, self.raft.status());
        assert!(now.term >= before.term, "the term falls");
        assert!(now.committed >= before.committed, "the commit index falls");
        assert!(now.applied >= before.applied, "the applied index falls");
        assert!(now.applied <= now.committed && now.committed <= now.last);
        assert!(now.durable <= now.last && now.base <= now.last);
        assert!(
            now.durable <= self.disk.last(),
            "durable {} of {}",
            now.durable,
            self.disk.last()
        );
        assert!(
            now.last == self.page.last(),
            "the log ends at {}, it was given {}",
            now.last,
            self.page.last()
        );
        self.status = now;
    }

    /// What a message tells is on the disk when it leaves. `is_cut`: the same write took entries away, so
    /// an acknowledgement in it may speak of what a leader had meanwhile replaced.
    fn expect_true(&mut self, to: NodeId, message: &Message, is_cut: bool) {
        assert!(to != ME, "a message to itself");
        assert!(message.sender.id == ME && message.sender.boot == Boot(self.boot));
        let hard = self.disk.hard;
        let reaches = |index: Index| is_cut || index <= self.disk.last();
        match &message.body {
            Body::Vote(request) => self.expect_vote(request.term, ME),
            Body::VoteReply(reply) if reply.granted => self.expect_vote(reply.term, to),
            Body::Append(_) | Body::Heartbeat(_) | Body::Snapshot(_) => {
                assert!(
                    hard.term >= message.term,
                    "leads term {}, promised {}",
                    message.term,
                    hard.term
                );
            }
            Body::AppendReply(AppendReply::Accepted { matched }) => {
                assert!(
                    hard.term >= message.term,
                    "acknowledges in a term that is not on the disk"
                );
                assert!(
                    reaches(*matched),
                    "acknowledges {matched} of {}",
                    self.disk.last()
                );
            }
            Body::HeartbeatReply(reply) => assert!(reaches(reply.durable)),
            Body::SnapshotReply(reply) => assert!(reply.installed.is_none_or(reaches)),
            _ => {}
        }
    }

    fn expect_vote(&mut self, term: Term, vote: NodeId) {
        let hard = self.disk.hard;
        assert!(hard.term >= term, "votes in term {term}, promised {}", hard.term);
        assert!(
            hard.term > term || hard.vote == Some(vote),
            "a vote that is not on the disk"
        );
        let earlier = *self.votes.entry(term).or_insert(vote);
        assert!(earlier == vote, "two votes in term {term}: {earlier} and {vote}");
    }
}

fn start(config: Config, boot: u64, recovered: Recovered, seed: u64) -> Raft {
    let identity = Identity {
        id: ME,
        incarnation: incarnation(1),
        boot: Boot(boot),
    };
    Raft::new(config, identity, recovered, seed).expect("a sound configuration")
}

/// Small limits, so that all of them are met.
fn config(input: &mut Input<'_>) -> Config {
    let choice = input.u8();
    Config {
        heartbeat_ticks: 2,
        election_ticks: 5,
        entry_bytes_max: 128,
        append_bytes_max: 256,
        inflight_count_max: 3,
        inflight_bytes_max: 1_024,
        uncommitted_bytes_max: 1_024,
        unapplied_bytes_max: 512,
        cache_bytes_max: if choice & 1 == 0 { 0 } else { 2_048 },
        retained_bytes_max: if choice & 2 == 0 { 0 } else { 512 },
        chunk_bytes_max: 4,
        chunk_inflight_max: 2,
        readers_max: 4,
    }
}

/// A founder, a member of three, a joint membership, a node that nobody has told anything; whole or suspect,
/// from the beginning of the log or in the middle.
fn disk(choice: u8) -> Disk {
    let mut disk = Disk {
        suspicion: (choice & 0x30 == 0x30).then_some(Boot(1)),
        ..Disk::default()
    };
    let configuration = match choice & 3 {
        0 => membership([1, 2, 3]),
        1 => membership([1]),
        2 => configuration(&mut Input::new(&[0x07, 0xf5])),
        _ => return disk,
    };
    let base = LogBase {
        id: EntryId {
            term: Term(2),
            index: Index(9),
        },
        checksum: Checksum(99),
    };
    if choice & 4 == 0 {
        disk.log.base = base;
        disk.configuration = configuration;
    } else {
        let id = EntryId {
            term: Term(1),
            index: Index(1),
        };
        disk.log.log = vec![Entry::seal(
            id,
            EntryKind::Configuration,
            configuration.encode(),
            Checksum(0),
        )];
    }
    let last = disk.log.point(disk.log.last()).expect("the end");
    disk.hard = HardState {
        term: last.id.term,
        vote: None,
        commit: last.id.index,
    };
    disk
}

/// Runs of random inputs from each beginning.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let run = |n: u8| {
        let mut dice = Dice::new(u64::from(n));
        let length = 300 + dice.below(900);
        let mut bytes = dice.bytes(length);
        bytes[0] = n;
        (format!("seed-{n:02}"), bytes)
    };
    let mut seeds: Vec<_> = [
        0, 1, 2, 3, 4, 5, 6, 0x30, 0x34, 0x31, 0x36, 0x40, 0x41, 0x44, 0x45,
    ]
    .map(run)
    .into();
    seeds.push(("seed-empty".to_owned(), Vec::new()));
    seeds
}
