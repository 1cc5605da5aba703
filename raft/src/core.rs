//! What a node has in every role: its log, its promises, its cursors, and the effects it is gathering.

use std::collections::BTreeMap;

use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;

use crate::bugs::Bug;
use crate::config::Config;
use crate::effects::{Effects, Load, LoadWhat, Persist, ReadOutcome};
use crate::entry::{Entry, EntryKind};
use crate::error::Refusal;
use crate::inflight::Sizes;
use crate::input::Loaded;
use crate::log::Log;
use crate::membership::{Configuration, Memberships};
use crate::message::{Body, Message, Proposal, ProposalOutcome, Sender, SnapshotMeta};
use crate::read::AskedReads;
use crate::recovered::Identity;
use crate::replication::are_ours;
use crate::types::{
    Boot, Checksum, EntryId, HardState, Index, LoadId, LogBase, NodeId, ProposalId, ReadId, Space, Term,
    Token,
};
use crate::writes::Writes;

/// Largest term and index that are believed. Honest ones cannot get there; beyond it the arithmetic of
/// "one more" would be in danger (R40).
pub(crate) const PLAUSIBLE_MAX: u64 = u64::MAX / 2;

/// State common to all roles.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) identity: Identity,
    pub(crate) rng: ChaCha8Rng,
    /// Ticks since the start: the only clock there is.
    pub(crate) now: u64,

    /// Newest term seen.
    pub(crate) term: Term,
    /// Whom this node voted for in `term`.
    pub(crate) vote: Option<NodeId>,
    pub(crate) log: Log,
    pub(crate) writes: Writes,
    pub(crate) memberships: Memberships,

    /// Known to be committed. committed <= last; it may be ahead of what is durable here.
    pub(crate) committed: Index,
    /// Given out to be applied. applied <= applying <= min(committed, durable).
    pub(crate) applying: Index,
    /// Confirmed by the owner.
    pub(crate) applied: Index,
    /// Sizes of (applied, applying].
    pub(crate) unapplied: Sizes,
    /// The entries to apply next are being read from the disk.
    pub(crate) apply_load: Option<LoadId>,
    /// Tick before which they are not read again, after a read that gave nothing usable.
    pub(crate) apply_paused_until: u64,

    /// Since which boot this node may have lost what it acknowledged.
    pub(crate) suspicion: Option<Boot>,
    /// The write that lifts it.
    pub(crate) clearing: Option<Token>,
    /// Room on the own disk.
    pub(crate) space: Space,

    /// Newest complete snapshot file of this node.
    pub(crate) snapshot: Option<SnapshotMeta>,
    /// A snapshot was asked for and has not come.
    pub(crate) making: Option<Making>,
    /// The snapshot that is being received and installed.
    pub(crate) receiving: Option<crate::receive::Receiving>,
    /// A cut of the log that waits for the checksum of its last entry.
    pub(crate) cutting: Option<(LoadId, EntryId)>,

    /// Newest boot seen of each member: replies of earlier ones are not believed.
    pub(crate) boots: BTreeMap<NodeId, Boot>,
    /// What each read from the disk is for.
    pub(crate) loads: BTreeMap<LoadId, LoadFor>,
    pub(crate) next_load: LoadId,
    /// Proposals that wait for the end of this turn, to travel to the leader together.
    pub(crate) forwards: Vec<Proposal>,
    /// Readers of this node that wait for the leader's answer.
    pub(crate) asked: AskedReads,

    /// What this turn asks of the owner.
    pub(crate) out: Effects,
    /// The write that is being put together.
    pub(crate) draft: Persist,
    /// Something happened since effects were taken last.
    pub(crate) is_dirty: bool,
}

/// A snapshot that the owner is making.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Making {
    /// Tick at which it was asked for last.
    pub(crate) asked: u64,
    /// Tick at which it was asked for first.
    pub(crate) since: u64,
    /// What was applied then: the snapshot will end here or later.
    pub(crate) from: Index,
}

/// What a read from the disk is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LoadFor {
    /// Entries to be applied.
    Apply,
    /// Entries for this peer.
    Peer(NodeId),
    /// A piece of a snapshot for this peer.
    Chunk(NodeId),
    /// The entry at which the log is to be cut.
    Cut,
}

impl Core {
    pub(crate) fn id(&self) -> NodeId {
        self.identity.id
    }

    /// True when the bug is seeded; a constant `false` without the test feature.
    #[cfg(feature = "seeded-bugs")]
    pub(crate) fn has_bug(&self, bug: Bug) -> bool {
        self.config.bug == Some(bug)
    }

    /// True when the bug is seeded; a constant `false` without the test feature.
    #[cfg(not(feature = "seeded-bugs"))]
    #[inline]
    pub(crate) fn has_bug(&self, _: Bug) -> bool {
        false
    }

    /// The membership in force.
    pub(crate) fn configuration(&self) -> &Configuration {
        self.memberships.current()
    }

    /// True when this incarnation is a voter. A node that was wiped is not the voter of its id (R30).
    pub(crate) fn is_voter(&self) -> bool {
        let configuration = self.configuration();
        configuration.is_voter(self.id())
            && configuration.incarnation_of(self.id()) == Some(self.identity.incarnation)
    }

    /// True when the membership in force took the vote away from this node and is not known to be
    /// committed. Then it may hold the only log that can win, and has to lead once more to let the
    /// others have it (thesis §4.2.2); its own vote does not count.
    fn was_voter(&self) -> bool {
        let index = self.memberships.index();
        let before = self
            .memberships
            .at(index.prev())
            .filter(|_| index > self.committed);
        before.is_some_and(|before| {
            before.is_voter(self.id()) && before.incarnation_of(self.id()) == Some(self.identity.incarnation)
        })
    }

    /// True when nobody else's vote is needed.
    pub(crate) fn is_sole_voter(&self) -> bool {
        let me = self.id();
        self.is_voter() && self.configuration().has_quorum(|id| id == me)
    }

    /// May this node ask to lead? A suspect may have lost entries that it helped to commit; a node in
    /// the middle of an install has no state to serve; one without space could not even append its
    /// no-op.
    pub(crate) fn may_campaign(&self) -> bool {
        (self.is_voter() || self.was_voter())
            && self.suspicion.is_none()
            && !self.is_installing()
            && self.space != Space::Critical
            && self.term.0 < PLAUSIBLE_MAX
    }

    /// A new election timeout (paper §5.2, thesis §3.4: drawn anew each time).
    pub(crate) fn draw_timeout(&mut self) -> u32 {
        let ticks = self.config.election_ticks;
        ticks + self.rng.next_u32() % ticks
    }

    // --- messages -----------------------------------------------------------------------------

    pub(crate) fn message(&self, body: Body) -> Message {
        let sender = Sender {
            id: self.identity.id,
            incarnation: self.identity.incarnation,
            boot: self.identity.boot,
            suspicion: self.suspicion,
            space: self.space,
        };
        Message {
            sender,
            term: self.term,
            body,
        }
    }

    /// Sends what is true whatever becomes of the disk.
    pub(crate) fn send(&mut self, to: NodeId, body: Body) {
        let message = self.message(body);
        self.out.send.push((to, message));
    }

    /// Sends what becomes true when this turn's write, and all before it, are durable.
    pub(crate) fn send_durably(&mut self, to: NodeId, body: Body) {
        let message = self.message(body);
        self.draft.then_send.push((to, message));
    }

    /// Answers in the present term: such a message promises the term, so it waits for the term (and the
    /// vote) to be durable, which nearly always they are already.
    pub(crate) fn reply(&mut self, to: NodeId, body: Body) {
        if self.writes.is_promise_durable(self.term, self.vote) {
            self.send(to, body);
        } else {
            self.send_durably(to, body);
        }
    }

    pub(crate) fn outcome(&mut self, id: ProposalId, result: Result<EntryId, Refusal>) {
        self.out.outcomes.push(ProposalOutcome { id, result });
    }

    pub(crate) fn read_outcome(&mut self, id: ReadId, result: Result<Index, Refusal>) {
        self.out.reads.push(ReadOutcome { id, result });
    }

    pub(crate) fn load(&mut self, purpose: LoadFor, what: LoadWhat) -> LoadId {
        let id = self.next_load;
        self.next_load = LoadId(id.0 + 1);
        self.loads.insert(id, purpose);
        self.out.load.push(Load { id, what });
        id
    }

    // --- the log ------------------------------------------------------------------------------

    /// Appends an entry of this leader's own.
    pub(crate) fn append_own(&mut self, kind: EntryKind, payload: Bytes) -> EntryId {
        let entry = self.log.seal_next(self.term, kind, payload);
        let id = entry.id;
        self.append(entry);
        id
    }

    /// Appends an entry, to memory now and to the disk with this turn's write.
    pub(crate) fn append(&mut self, entry: Entry) {
        self.draft.entries.push(entry.clone());
        self.log.append(entry);
    }

    /// Puts the membership of the entry at `index` into force.
    pub(crate) fn adopt(&mut self, index: Index, configuration: Configuration) {
        self.memberships.push(index, configuration);
        self.configuration_changed();
    }

    fn configuration_changed(&mut self) {
        self.boots
            .retain(|id, _| self.memberships.current().members.contains_key(id));
        self.out.configuration = Some(self.configuration().clone());
    }

    /// Takes back the entry at `from` and all after it: memory, disk, membership, and what completions
    /// under way may prove.
    pub(crate) fn truncate_from(&mut self, from: Index, previous: Checksum) {
        assert!(
            from > self.committed,
            "truncation at {from} reaches the committed {}",
            self.committed
        );
        self.log.truncate_from(from, previous);
        if !self.has_bug(Bug::R13) {
            self.writes.truncate_from(from);
        }
        while self
            .draft
            .entries
            .last()
            .is_some_and(|entry| entry.index() >= from)
        {
            self.draft.entries.pop();
        }
        if from <= self.writes.submitted() {
            let earlier = self.draft.truncate_from.unwrap_or(from);
            self.draft.truncate_from = Some(earlier.min(from));
            self.writes.rewind_to(from.prev());
        }
        if !self.has_bug(Bug::R5Rollback) && self.memberships.truncate_from(from) {
            self.configuration_changed();
        }
    }

    /// Restarts the log after a snapshot whose file is complete and durable.
    pub(crate) fn reset_to(&mut self, meta: &SnapshotMeta) {
        // What was committed is covered by the snapshot; everything else is no longer promised.
        let promised = self.log.durable().min(self.committed);
        self.writes.truncate_from(self.committed.next());
        self.log.reset(
            LogBase {
                id: meta.last,
                checksum: meta.checksum,
            },
            promised,
        );
        self.writes.rewind_to(meta.last.index);
        self.draft.entries.clear();
        self.draft.truncate_from = None;
        self.draft.compact_to = None;
        self.draft.reset_to = Some(meta.clone());
        self.committed = self.committed.max(meta.last.index);
        self.memberships
            .reset(meta.last.index, meta.configuration.clone());
        self.configuration_changed();
        self.cutting = None;
    }

    /// Moves the commit index; never back, never beyond the log.
    pub(crate) fn commit_to(&mut self, index: Index) {
        assert!(
            index <= self.log.last().index,
            "commit {index} beyond the log's {}",
            self.log.last().index
        );
        self.committed = self.committed.max(index);
    }

    // --- the end of a turn --------------------------------------------------------------------

    /// Hands out what may be applied: committed and durable here, within the bound. The rest follows
    /// when the owner confirms.
    pub(crate) fn hand_out_applies(&mut self) {
        if self.is_installing() || self.apply_load.is_some() {
            return;
        }
        let durable = if self.has_bug(Bug::R46) {
            self.log.last().index
        } else {
            self.log.durable()
        };
        let end = self.committed.min(durable);
        while self.applying < end {
            let Some(room) = self.apply_room() else { return };
            let next = self.applying.next();
            match self.log.cached_from(next, end.next(), room) {
                Some(entries) => self.apply(entries),
                None if self.now < self.apply_paused_until => return,
                None => {
                    let stop = self.log.first_cached().min(end.next());
                    let what = LoadWhat::Entries {
                        range: next..stop,
                        bytes_max: room,
                    };
                    self.apply_load = Some(self.load(LoadFor::Apply, what));
                    return;
                }
            }
        }
    }

    /// Entries that were read to be applied.
    pub(crate) fn on_apply_loaded(&mut self, id: LoadId, loaded: Loaded) {
        if self.apply_load != Some(id) {
            return;
        }
        self.apply_load = None;
        match loaded {
            Loaded::Entries(entries)
                if !self.is_installing() && are_ours(self, self.applying.next(), &entries) =>
            {
                self.apply(entries);
            }
            // The disk gave what is not the log; its reader reports that itself. Not at once again.
            _ => self.apply_paused_until = self.now + 1,
        }
    }

    /// Bytes that may be given out to be applied; `None` when the bound is reached.
    fn apply_room(&self) -> Option<usize> {
        let room = self
            .config
            .unapplied_bytes_max
            .saturating_sub(self.unapplied.bytes());
        (room > 0 || self.unapplied.is_empty()).then_some(room)
    }

    pub(crate) fn apply(&mut self, entries: Vec<Entry>) {
        for entry in &entries {
            assert!(
                entry.index() == self.applying.next(),
                "applying {} then {}",
                self.applying,
                entry.index()
            );
            self.applying = entry.index();
            self.unapplied.push(entry.index(), entry.size_bytes());
        }
        if self.out.apply.is_empty() {
            self.out.apply = entries;
        } else {
            self.out.apply.extend(entries);
        }
    }

    /// The owner has applied everything up to `index`.
    pub(crate) fn on_applied(&mut self, index: Index) {
        assert!(
            index <= self.applying,
            "applied {index}, given out {}",
            self.applying
        );
        if index > self.applied {
            self.applied = index;
            self.unapplied.free_to(index);
        }
    }

    /// Closes this turn's write, if there is anything to write or to release.
    pub(crate) fn seal_draft(&mut self) {
        let promise = (self.term, self.vote);
        let is_promised = self.writes.is_promised(promise.0, promise.1);
        let is_log_touched = !self.draft.entries.is_empty()
            || self.draft.truncate_from.is_some()
            || self.draft.reset_to.is_some()
            || self.draft.compact_to.is_some();
        let is_empty = is_promised
            && !is_log_touched
            && self.draft.chunk.is_none()
            && !self.draft.clear_suspicion
            && self.draft.then_send.is_empty();
        if is_empty {
            return;
        }
        let mut persist = std::mem::take(&mut self.draft);
        if !is_promised || is_log_touched {
            let commit = self.committed;
            persist.hard_state = Some(HardState {
                term: self.term,
                vote: self.vote,
                commit,
            });
        }
        persist.token = self
            .writes
            .submit((!is_promised).then_some(promise), self.log.last().index);
        assert!(self.out.persist.is_none(), "two writes in one turn");
        self.out.persist = Some(persist);
    }

    // --- compaction ---------------------------------------------------------------------------

    /// Cuts the log up to `limit`, less the tail that is kept for slow members. When only the disk
    /// knows the checksum to hang the rest on, it is asked first.
    pub(crate) fn compact(&mut self, limit: Index) {
        let limit = limit.min(self.applied).min(self.log.durable());
        if self.is_installing() || self.cutting.is_some() || limit <= self.log.base().id.index {
            return;
        }
        let cut = self.log.cut_before(limit, self.config.retained_bytes_max);
        if cut <= self.log.base().id.index {
            return;
        }
        let term = self.log.term(cut).expect("a cut lies in the log");
        let id = EntryId { term, index: cut };
        match self.log.checksum(cut) {
            Some(checksum) => self.cut_at(LogBase { id, checksum }),
            None => {
                let what = LoadWhat::Entries {
                    range: cut..cut.next(),
                    bytes_max: 1,
                };
                self.cutting = Some((self.load(LoadFor::Cut, what), id));
            }
        }
    }

    /// The entry at which the log is to be cut.
    pub(crate) fn on_cut_loaded(&mut self, id: LoadId, loaded: &Loaded) {
        let Some((_, cut)) = self.cutting.take_if(|cutting| cutting.0 == id) else {
            return;
        };
        let Loaded::Entries(entries) = loaded else { return };
        let Some(entry) = entries.first() else { return };
        let is_due = cut.index > self.log.base().id.index && !self.is_installing();
        if is_due && entry.id == cut && self.log.holds(cut) && entry.is_intact() {
            self.cut_at(LogBase {
                id: cut,
                checksum: entry.checksum,
            });
        }
    }

    /// The log starts after `base` from now on.
    pub(crate) fn cut_at(&mut self, base: LogBase) {
        assert!(
            base.id.index <= self.applied,
            "cut at {} beyond the applied {}",
            base.id.index,
            self.applied
        );
        self.log.compact_to(base);
        self.memberships.compact_to(base.id.index);
        self.draft.compact_to = Some(base);
        assert!(
            self.memberships.at(base.id.index).is_some(),
            "no membership at the base"
        );
    }

    // --- memory -------------------------------------------------------------------------------

    /// Lets entries go that are on the disk: beyond the limit, and at once when there is nobody whom they
    /// could be sent to. What is still to be handed out stays in memory within the limit.
    pub(crate) fn evict(&mut self) {
        if self.configuration().members.len() <= 1 {
            self.log.forget(self.applying);
        }
        self.log.evict(self.config.cache_bytes_max);
    }

    // --- limits -------------------------------------------------------------------------------

    /// What an entry may weigh, without its overhead.
    pub(crate) fn is_too_large(&self, payload: &Bytes) -> bool {
        payload.len() > self.config.entry_bytes_max
    }
}
