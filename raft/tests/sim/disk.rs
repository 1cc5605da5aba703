//! The disk of a node: log, mark, snapshots and state tables, by rules 1-6 of "The log" in the design.
//!
//! What is modelled: persists wait in a queue, some of them are folded into one write, and the write is
//! synced some time later. A crash in between leaves the write there or not (a torn last batch is cut by
//! the scanner as a whole, so a prefix of what was queued survives), and the mark behind it or not. A
//! failed sync may leave the write visible in the page cache and absent from the platter (R52). Rot cuts
//! the log; a scan may see it, otherwise the mark tells.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use raft::{
    Boot, Configuration, Entry, EntryId, EntryKind, HardState, Identity, Index, Loaded, LogBase, Persist,
    Recovered, SnapshotMeta,
};

use super::bug::SimBug;
use super::dice::Dice;
use super::machine::{Machine, decode_configuration};

/// A log from its base on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    pub(crate) base: LogBase,
    pub(crate) entries: VecDeque<Entry>,
}

impl Log {
    pub(crate) fn last(&self) -> LogBase {
        match self.entries.back() {
            Some(entry) => LogBase {
                id: entry.id,
                checksum: entry.checksum,
            },
            None => self.base,
        }
    }

    pub(crate) fn get(&self, index: Index) -> Option<&Entry> {
        let offset = index.0.checked_sub(self.base.id.index.0 + 1)?;
        self.entries.get(offset as usize)
    }

    /// Id and checksum at an index, the base included.
    pub(crate) fn at(&self, index: Index) -> Option<LogBase> {
        if index == self.base.id.index {
            return Some(self.base);
        }
        self.get(index).map(|entry| LogBase {
            id: entry.id,
            checksum: entry.checksum,
        })
    }

    fn truncate_from(&mut self, index: Index) {
        assert!(
            index > self.base.id.index,
            "truncation at {index} reaches the base {:?}",
            self.base.id
        );
        self.entries
            .truncate((index.0 - self.base.id.index.0 - 1) as usize);
    }

    fn append(&mut self, entry: &Entry) {
        let last = self.last();
        assert!(
            entry.id.index == last.id.index.next(),
            "gap: {:?} after {:?}",
            entry.id,
            last.id
        );
        assert!(
            entry.previous == last.checksum,
            "the chain breaks at {:?}",
            entry.id
        );
        assert!(
            entry.is_intact(),
            "entry {:?} does not match its checksum",
            entry.id
        );
        self.entries.push_back(entry.clone());
    }

    fn compact_to(&mut self, base: LogBase) {
        if base.id.index <= self.base.id.index {
            return;
        }
        let here = self.at(base.id.index);
        assert!(
            here == Some(base),
            "the log is cut at {base:?} but holds {here:?} there"
        );
        self.entries
            .drain(..(base.id.index.0 - self.base.id.index.0) as usize);
        self.base = base;
    }
}

/// The file beside the log (rule 2).
#[derive(Clone, Debug, Default)]
pub(crate) struct Mark {
    /// Term and vote; its `commit` is not used.
    pub(crate) hard_state: HardState,
    /// Last entry known to be synced; at most the durable log.
    pub(crate) synced: EntryId,
    /// The log is about to be restarted after this snapshot, whose file is complete.
    pub(crate) resetting: Option<EntryId>,
    pub(crate) boot: Boot,
    pub(crate) suspicion: Option<Boot>,
}

/// A snapshot file.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotFile {
    pub(crate) meta: SnapshotMeta,
    pub(crate) bytes: Bytes,
}

/// A write that is being synced.
#[derive(Clone, Copy, Debug)]
struct Flight {
    /// The first so many of the queue.
    count: usize,
    fails: bool,
}

/// What a completed sync did; the world tells the oracle.
pub(crate) enum Completion {
    /// These are durable, in order.
    Done(Vec<Persist>),
    /// The sync failed: nothing will ever be durable again in this run of the process.
    Failed {
        /// The page cache goes on showing the write.
        cached: bool,
    },
}

/// What an open found.
pub(crate) struct Opened {
    pub(crate) identity: Identity,
    pub(crate) recovered: Recovered,
    /// The node became suspect by this open.
    pub(crate) newly_suspect: bool,
}

/// One node's disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    /// As reads see it: the page cache.
    pub(crate) log: Log,
    hard_state: HardState,
    /// The membership at the base of the log; empty when none is known.
    base_configuration: Arc<Configuration>,
    pub(crate) mark: Mark,
    pub(crate) snapshot: Option<SnapshotFile>,
    partial: Option<(SnapshotMeta, Vec<u8>)>,
    /// State tables: what is in the page cache, and what a power cut leaves at least.
    pub(crate) machine: Machine,
    pub(crate) machine_synced: Machine,
    queue: VecDeque<Persist>,
    flight: Option<Flight>,
    /// A sync failed: no write of this process will be synced any more.
    pub(crate) poisoned: bool,
    /// The platter, when a failed sync has left it behind the page cache.
    behind: Option<Box<Platter>>,
    /// The scanner sees a hole.
    scanned_damage: bool,
    /// Damage was done on purpose: a suspicion is right.
    pub(crate) damaged: bool,
    /// The snapshot before the newest one, while that one is not synced ([`SimBug::ResetBeforeSnapshot`]).
    previous_snapshot: Option<Option<SnapshotFile>>,
    bug: Option<SimBug>,
    /// A suspect that has lost more is suspect anew, by the number of this boot. Without it the leader
    /// has to mistrust every boot of a suspect.
    pub(crate) renews_suspicion: bool,
}

#[derive(Clone, Debug)]
struct Platter {
    log: Log,
    hard_state: HardState,
    base_configuration: Arc<Configuration>,
    /// Writes after the lost one were synced: the scanner finds valid batches after a hole.
    later_writes: bool,
}

impl Disk {
    /// An empty folder.
    pub(crate) fn empty(bug: Option<SimBug>) -> Disk {
        Disk {
            bug,
            ..Disk::default()
        }
    }

    /// A founder's disk: configuration entry 1 in term 1, mark written.
    pub(crate) fn founded(entry: &Entry, bug: Option<SimBug>) -> Disk {
        let mut disk = Disk::empty(bug);
        disk.log.append(entry);
        disk.hard_state = HardState {
            term: entry.term(),
            vote: None,
            commit: Index(0),
        };
        disk.mark.hard_state = disk.hard_state;
        disk.mark.synced = entry.id;
        disk
    }

    // ---- writes ------------------------------------------------------------------------------------

    /// Hands a write to the log writer.
    pub(crate) fn submit(&mut self, persist: Persist) {
        self.queue.push_back(persist);
    }

    /// Starts a sync when there is something to write and none is under way. True when it began.
    pub(crate) fn start_sync(&mut self, fold_max: usize, fails: bool) -> bool {
        if self.flight.is_some() || self.queue.is_empty() || self.poisoned {
            return false;
        }
        let count = self.queue.len().min(fold_max);
        self.flight = Some(Flight { count, fails });
        if self.bug != Some(SimBug::MarkNotLowered) {
            self.lower_mark(count);
        }
        true
    }

    /// Rule 2: before a batch that truncates at or below the mark, or an install that discards entries
    /// up to it, a lower mark is written and synced first.
    fn lower_mark(&mut self, count: usize) {
        for persist in self.queue.iter().take(count) {
            if let Some(meta) = &persist.reset_to {
                self.mark.synced = meta.last;
                self.mark.resetting = Some(meta.last);
            }
            if let Some(from) = persist
                .truncate_from
                .filter(|from| *from <= self.mark.synced.index)
            {
                // An index below the base is covered by it.
                let stays = self.log.at(from.prev()).map_or(self.log.base.id, |at| at.id);
                self.mark.synced = stays;
            }
        }
    }

    /// The sync returned.
    pub(crate) fn finish_sync(&mut self, dice: &mut Dice, raise_mark: bool) -> Completion {
        let flight = self.flight.take().expect("a sync is under way");
        if flight.fails {
            self.poisoned = true;
            let cached = dice.one_in(2);
            if cached {
                self.remember_platter();
                self.write_log(flight.count);
            }
            return Completion::Failed { cached };
        }
        self.write_log(flight.count);
        self.write_mark(flight.count, raise_mark && self.queue.len() == flight.count);
        if let Some(platter) = &mut self.behind {
            platter.later_writes = true;
        }
        Completion::Done(self.queue.drain(..flight.count).collect())
    }

    fn remember_platter(&mut self) {
        if self.behind.is_none() {
            self.behind = Some(Box::new(Platter {
                log: self.log.clone(),
                hard_state: self.hard_state,
                base_configuration: self.base_configuration.clone(),
                later_writes: false,
            }));
        }
    }

    fn write_log(&mut self, count: usize) {
        for at in 0..count {
            let persist = self.queue[at].clone();
            self.write(&persist);
        }
    }

    fn write(&mut self, persist: &Persist) {
        if let Some(chunk) = &persist.chunk {
            self.write_chunk(&chunk.meta, chunk.offset, &chunk.data, chunk.last);
        }
        if let Some(meta) = &persist.reset_to {
            self.log = Log {
                base: LogBase {
                    id: meta.last,
                    checksum: meta.checksum,
                },
                entries: VecDeque::new(),
            };
            self.base_configuration = Arc::new(meta.configuration.clone());
        }
        if let Some(from) = persist.truncate_from {
            self.log.truncate_from(from);
        }
        for entry in &persist.entries {
            self.log.append(entry);
        }
        if let Some(hard_state) = persist.hard_state {
            assert!(
                hard_state.term >= self.hard_state.term,
                "the term went back on the disk"
            );
            self.hard_state = hard_state;
        }
        if let Some(base) = persist.compact_to {
            self.note_base_configuration(base.id.index);
            self.log.compact_to(base);
        }
    }

    fn write_chunk(&mut self, meta: &SnapshotMeta, offset: u64, data: &[u8], last: bool) {
        if offset == 0 {
            self.partial = Some((meta.clone(), Vec::new()));
        }
        let (partial, bytes) = self.partial.as_mut().expect("a snapshot begins at 0");
        assert!(partial == meta, "a piece of another snapshot");
        assert!(
            offset as usize == bytes.len(),
            "a piece at {offset} of a file of {}",
            bytes.len()
        );
        bytes.extend_from_slice(data);
        if last {
            let (meta, bytes) = self.partial.take().expect("just written");
            assert!(
                bytes.len() as u64 == meta.size_bytes,
                "a snapshot of another size"
            );
            assert!(
                crc32fast::hash(&bytes) == meta.file_checksum,
                "a snapshot with another checksum"
            );
            let file = SnapshotFile {
                meta,
                bytes: Bytes::from(bytes),
            };
            let previous = self.snapshot.replace(file);
            if self.bug == Some(SimBug::ResetBeforeSnapshot) {
                self.previous_snapshot = Some(previous);
            }
        }
    }

    /// Remembers the newest membership among entries that are about to be cut.
    fn note_base_configuration(&mut self, index: Index) {
        let cut = self.log.entries.iter().take_while(|entry| entry.index() <= index);
        if let Some(entry) = cut.filter(|entry| entry.kind == EntryKind::Configuration).last() {
            self.base_configuration = Arc::new(decode_configuration(&entry.payload));
        }
    }

    fn write_mark(&mut self, count: usize, raise: bool) {
        self.mark.hard_state = self.hard_state;
        self.mark.resetting = None;
        if raise {
            self.mark.synced = self.log.last().id;
        }
        if self
            .queue
            .iter()
            .take(count)
            .any(|persist| persist.clear_suspicion)
        {
            self.mark.suspicion = None;
            self.damaged = false;
        }
    }

    // ---- what is there -----------------------------------------------------------------------------

    /// The log a power cut cannot take.
    pub(crate) fn durable_log(&self) -> &Log {
        self.behind.as_ref().map_or(&self.log, |platter| &platter.log)
    }

    /// Term and vote a power cut cannot take: log and mark both have them (rule 3).
    pub(crate) fn durable_vote(&self) -> HardState {
        self.behind
            .as_ref()
            .map_or(self.hard_state, |platter| platter.hard_state)
    }

    /// The entry at an index once everything submitted is written.
    pub(crate) fn submitted_at(&self, index: Index) -> Option<LogBase> {
        for persist in self.queue.iter().rev() {
            if let Some(entry) = persist.entries.iter().find(|entry| entry.index() == index) {
                return Some(LogBase {
                    id: entry.id,
                    checksum: entry.checksum,
                });
            }
            if persist.truncate_from.is_some_and(|from| from <= index) {
                return None;
            }
            if let Some(meta) = persist.reset_to.as_ref().filter(|meta| index <= meta.last.index) {
                return (index == meta.last.index).then_some(LogBase {
                    id: meta.last,
                    checksum: meta.checksum,
                });
            }
        }
        self.log.at(index)
    }

    /// First index that is not covered by the base, as submitted.
    pub(crate) fn submitted_base(&self) -> Index {
        let resets = self
            .queue
            .iter()
            .filter_map(|persist| persist.reset_to.as_ref().map(|meta| meta.last.index));
        resets.last().unwrap_or(self.log.base.id.index)
    }

    /// Entries from the disk, as the log reader gives them.
    pub(crate) fn read_entries(&self, from: Index, end: Index, bytes_max: usize) -> Loaded {
        let mut bytes = 0;
        let mut entries = Vec::new();
        let mut index = from;
        while index < end {
            let Some(entry) = self.log.get(index) else { break };
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

    /// A piece of the snapshot, if it is still that one.
    pub(crate) fn read_chunk(&self, meta: &SnapshotMeta, offset: u64, bytes_max: usize) -> Loaded {
        let Some(file) = self.snapshot.as_ref().filter(|file| file.meta == *meta) else {
            return Loaded::Gone;
        };
        let start = (offset as usize).min(file.bytes.len());
        let end = (start + bytes_max).min(file.bytes.len());
        Loaded::Chunk(file.bytes.slice(start..end))
    }

    /// Memberships this disk knows, newest last.
    pub(crate) fn configurations(&self) -> Vec<(Index, Configuration)> {
        let mut all = Vec::new();
        if !self.base_configuration.members.is_empty() {
            all.push((self.log.base.id.index, (*self.base_configuration).clone()));
        }
        for entry in self
            .log
            .entries
            .iter()
            .filter(|entry| entry.kind == EntryKind::Configuration)
        {
            all.push((entry.index(), decode_configuration(&entry.payload)));
        }
        all
    }

    /// Makes a snapshot of the state machine and syncs it.
    pub(crate) fn make_snapshot(&mut self) -> SnapshotMeta {
        let bytes = self.machine.encode();
        let meta = SnapshotMeta {
            last: self.machine.applied.id,
            checksum: self.machine.applied.checksum,
            configuration: (*self.machine.configuration).clone(),
            size_bytes: bytes.len() as u64,
            file_checksum: crc32fast::hash(&bytes),
        };
        self.snapshot = Some(SnapshotFile {
            meta: meta.clone(),
            bytes,
        });
        meta
    }

    /// Loads the snapshot into the state machine, durably.
    pub(crate) fn install(&mut self, meta: &SnapshotMeta) -> bool {
        let Some(file) = self.snapshot.as_ref().filter(|file| file.meta == *meta) else {
            return false;
        };
        self.machine = Machine::decode(&file.bytes, &meta.configuration);
        self.machine_synced = self.machine.clone();
        self.previous_snapshot = None;
        true
    }

    // ---- crashes and damage ------------------------------------------------------------------------

    /// The process ends; with `power`, so does what no sync has returned for. Returns (a write was under
    /// way, it ended between log and mark).
    pub(crate) fn crash(&mut self, power: bool, dice: &mut Dice) -> (bool, bool) {
        let in_flight = self.flight.is_some() || !self.queue.is_empty();
        let mut between = false;
        if let Some(flight) = self.flight.take() {
            // It reached the disk whole, or the scanner cuts it whole.
            if !flight.fails && dice.one_in(2) {
                self.write_log(flight.count);
                between = dice.one_in(2);
                if !between {
                    self.write_mark(flight.count, false);
                }
            }
        }
        self.queue.clear();
        self.poisoned = false;
        if power {
            self.lose_page_cache(dice);
            if let Some(previous) = self.previous_snapshot.take() {
                self.snapshot = previous;
            }
        }
        if self.bug == Some(SimBug::AppliedIndexApart) {
            self.forget_applied_index(dice);
        }
        (in_flight, between)
    }

    /// State tables lose an end; so does a log whose failed sync was never repaired.
    fn lose_page_cache(&mut self, dice: &mut Dice) {
        let newest = self.machine.applied.id.index.0;
        let keep = dice.range(self.machine_synced.applied.id.index.0, newest);
        let mut machine = self.machine_synced.clone();
        while machine.applied.id.index.0 < keep {
            let Some(entry) = self.log.get(machine.applied.id.index.next()) else {
                break;
            };
            machine.apply(entry, None);
        }
        self.machine = machine;
        if let Some(platter) = self.behind.take() {
            self.log = platter.log;
            self.hard_state = platter.hard_state;
            self.base_configuration = platter.base_configuration;
            self.scanned_damage |= platter.later_writes;
            self.damaged |= platter.later_writes;
        }
    }

    /// [`SimBug::AppliedIndexApart`]: the effects are there, the index is an older one.
    fn forget_applied_index(&mut self, dice: &mut Dice) {
        let back = dice.below(4);
        let index = Index(self.machine.applied.id.index.0.saturating_sub(back));
        if let Some(at) = self.log.at(index).filter(|_| index > self.log.base.id.index) {
            self.machine.applied = at;
        }
    }

    /// Part of the log is gone. `seen`: the scanner finds the hole by itself; otherwise the end is lost
    /// cleanly, below the mark, so that only the mark tells (above it nobody could: a known limit).
    pub(crate) fn rot(&mut self, dice: &mut Dice) -> bool {
        let base = self.log.base.id.index.0;
        let last = self.log.last().id.index.0;
        let marked = self.mark.synced.index.0.min(last);
        let seen = dice.one_in(2);
        let highest = if seen { last } else { marked };
        if highest <= base {
            return false;
        }
        let from = dice.range(base + 1, highest);
        self.log.truncate_from(Index(from));
        self.scanned_damage |= seen;
        self.damaged = true;
        // Term and vote of the log may be old as well; the mark has them.
        if dice.one_in(2) {
            self.hard_state = HardState {
                term: self.log.last().id.term,
                vote: None,
                commit: Index(0),
            };
        }
        true
    }

    // ---- opening -----------------------------------------------------------------------------------

    /// Opens the disk as the storage does, rules 3-6.
    pub(crate) fn open(&mut self, id: raft::NodeId, incarnation: raft::Incarnation) -> Opened {
        assert!(self.flight.is_none() && self.queue.is_empty(), "opened twice");
        self.mark.boot = Boot(self.mark.boot.0 + 1);
        self.merge_votes();
        self.finish_reset();
        self.install_if_behind();
        let newly_suspect = self.judge();
        self.restart_log_at_state();
        if self.bug != Some(SimBug::CacheTrusted) {
            // Rule 6: written again and synced before the first message is answered.
            self.behind = None;
            self.mark.synced = self.log.last().id;
            self.mark.hard_state = self.hard_state;
        }
        let suspicion = self.mark.suspicion;
        if self.bug == Some(SimBug::SuspicionForgotten) {
            self.mark.suspicion = None;
        }
        let recovered = Recovered {
            suspicion,
            ..self.recovered()
        };
        Opened {
            identity: Identity {
                id,
                incarnation,
                boot: self.mark.boot,
            },
            recovered,
            newly_suspect,
        }
    }

    /// Rule 3: the higher term wins; in one term a vote beats none.
    fn merge_votes(&mut self) {
        let marked = self.mark.hard_state;
        if marked.term > self.hard_state.term {
            self.hard_state = HardState {
                commit: self.hard_state.commit,
                ..marked
            };
        } else if marked.term == self.hard_state.term && self.hard_state.vote.is_none() {
            self.hard_state.vote = marked.vote;
        }
        let last = self.log.last().id;
        self.hard_state.commit = self.hard_state.commit.min(last.index);
    }

    /// A crash between the mark that announces a reset and the reset itself: it is done now. Only then may a
    /// snapshot stand in for what the mark names. One that merely happens to cover it (of the node's own
    /// making) does not: a log that has lost what the mark names may have lost all that was promised since.
    fn finish_reset(&mut self) {
        let Some(announced) = self
            .mark
            .resetting
            .take()
            .filter(|announced| !self.holds(*announced))
        else {
            return;
        };
        let Some(meta) = self.snapshot.as_ref().map(|file| file.meta.clone()) else {
            return;
        };
        if meta.last != announced {
            return;
        }
        self.log = Log {
            base: LogBase {
                id: meta.last,
                checksum: meta.checksum,
            },
            entries: VecDeque::new(),
        };
        self.base_configuration = Arc::new(meta.configuration.clone());
        // Damage that nothing but the mark would have told is gone with the log it was in: all that was
        // promised lay before the snapshot.
        self.damaged = self.scanned_damage;
        if self.machine.applied.id.index < meta.last.index {
            assert!(self.install(&meta));
        }
    }

    fn holds(&self, id: EntryId) -> bool {
        self.log.at(id.index).is_some_and(|at| at.id == id)
    }

    /// A crash between the reset of the log and the install: the snapshot is loaded now.
    fn install_if_behind(&mut self) {
        if self.machine.applied.id.index >= self.log.base.id.index {
            return;
        }
        let meta = self.snapshot.as_ref().map(|file| file.meta.clone());
        let meta = meta.expect("a log with a base has a state or a snapshot that reaches it");
        assert!(
            meta.last.index >= self.log.base.id.index,
            "the log was cut before the snapshot was durable"
        );
        assert!(self.install(&meta));
    }

    /// Rule 5. True when the node became suspect just now.
    fn judge(&mut self) -> bool {
        let mark = self.mark.synced;
        let held = mark.index < self.log.base.id.index || self.holds(mark);
        let lost = self.scanned_damage || !held || self.state_is_off_the_log();
        self.scanned_damage = false;
        if self.bug == Some(SimBug::SuspicionEndsAtMark) && !lost {
            self.mark.suspicion = None;
        }
        let newly_suspect = lost && (self.mark.suspicion.is_none() || self.renews_suspicion);
        if newly_suspect {
            self.mark.suspicion = Some(self.mark.boot);
        }
        newly_suspect
    }

    fn state_is_off_the_log(&self) -> bool {
        let applied = self.machine.applied;
        applied.id.index >= self.log.base.id.index && self.log.at(applied.id.index) != Some(applied)
    }

    /// Rule 5: a log cut below the applied index starts anew there; the state is synced first.
    fn restart_log_at_state(&mut self) {
        if self.machine.applied.id.index <= self.log.last().id.index {
            return;
        }
        self.machine_synced = self.machine.clone();
        self.log = Log {
            base: self.machine.applied,
            entries: VecDeque::new(),
        };
        self.base_configuration = self.machine.configuration.clone();
    }

    fn recovered(&self) -> Recovered {
        let mut terms: Vec<(Index, raft::Term)> = Vec::new();
        for entry in &self.log.entries {
            if terms.last().is_none_or(|(_, term)| *term != entry.term()) {
                terms.push((entry.index(), entry.term()));
            }
        }
        let last = self.log.last();
        Recovered {
            hard_state: self.hard_state,
            base: self.log.base,
            terms,
            last: last.id,
            last_checksum: last.checksum,
            configurations: self.configurations(),
            applied: self.machine.applied.id.index,
            snapshot: self.snapshot.as_ref().map(|file| file.meta.clone()),
            suspicion: None,
        }
    }
}
