//! Applying a committed range.

mod naming;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use raft::{Configuration, ConfigurationError, Entry as LogEntry, EntryKind, Index, LogBase};
use storage::{StorageError, Tables, TablesBatch};

use super::command::{Command, CommandError, Envelope};
use super::dedup::Verdict;
use super::event::Event;
use super::outcome::{Outcome, Refused};
use super::rows::{self, HistoryHead, RowError};
use super::{HEADS_MAX, HISTORY_SURPLUS_MAX, OpenError, State, TRIM_ROWS_MAX};
use crate::config::change::{self, After, Before, Numbers};
use crate::config::{
    ConfigId, Edit, Entry, GrayVersions, History, HistoryId, Operation, Origin, Publish, Removal, Versions,
};
use crate::model::{ConfigKey, NamespaceId, OperationId};
use crate::namespace::{Namespaces, Refusal as NamespaceRefusal};

/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;

/// Bits of an id that number the things one entry makes; the rest is its log index. JSON numbers of
/// browsers stay exact up to index 2^41.
const POSITION_BITS: u32 = 12;

/// What an applied range brought.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use]
pub struct AppliedRange {
    /// One per command, in log order; entries without a command have none.
    pub applied: Vec<Applied>,
    /// In log order; readers see what they tell of.
    pub events: Vec<Event>,
}

/// An applied command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Where it stands in the log.
    pub index: Index,
    /// Who proposed it; `None` when it could not even be read.
    pub operation: Option<OperationId>,
    /// What came of it.
    pub outcome: Outcome,
}

/// Why nothing can be applied any more. The node stops; others may go on.
#[derive(Debug, thiserror::Error)]
pub enum ApplyFault {
    /// The entry is of a newer version.
    #[error("entry {index} cannot be applied: {source}")]
    UnknownCommand {
        /// The entry.
        index: Index,
        /// What about it.
        #[source]
        source: CommandError,
    },
    /// The membership is of a newer version.
    #[error("the membership in entry {index} cannot be read: {source}")]
    UnknownConfiguration {
        /// The entry.
        index: Index,
        /// What about it.
        #[source]
        source: ConfigurationError,
    },
    /// The cluster goes on to features this version does not have.
    #[error(
        "the cluster goes on to feature level {level} (entry {index}), this version of the server knows levels up to \
         {supported}: start this node with the version that the other nodes run, or a newer one"
    )]
    FeatureLevel {
        /// The entry.
        index: Index,
        /// The new level.
        level: u32,
        /// Highest level this node understands.
        supported: u32,
    },
    /// The tables failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A row that must be there makes no sense.
    #[error(transparent)]
    Row(#[from] RowError),
    /// The tables could not be read anew after an install.
    #[error(transparent)]
    Reload(#[from] OpenError),
    /// The snapshot that was to be installed is not there any more.
    #[error("the snapshot at {last} that was to be installed is gone")]
    SnapshotGone {
        /// Its last entry.
        last: Index,
    },
    /// An earlier fault.
    #[error("an earlier fault stopped the state machine; restart the node")]
    Stopped,
}

/// What a range has done so far and nobody has seen yet.
struct Pending {
    batch: TablesBatch,
    /// The last entry in it; `None` for nothing yet.
    point: Option<LogBase>,
    configs: HashMap<ConfigKey, Option<Arc<Entry>>>,
    grays: HashMap<ConfigKey, GrayVersions>,
    heads: HashMap<ConfigKey, HistoryHead>,
    namespaces: Option<Namespaces>,
    naming: naming::Written,
    done: AppliedRange,
}

impl Pending {
    fn new(tables: &Tables) -> Pending {
        Pending {
            batch: tables.batch(),
            point: None,
            configs: HashMap::new(),
            grays: HashMap::new(),
            heads: HashMap::new(),
            namespaces: None,
            naming: naming::Written::default(),
            done: AppliedRange::default(),
        }
    }
}

impl State {
    /// Applies the next committed entries: one batch into the tables with their effects and the point
    /// they bring it to, after which readers see them. (A trim of history begins a batch of its own.)
    ///
    /// # Errors
    /// See [`ApplyFault`]; nothing of the batch that failed is stored or shown.
    ///
    /// # Panics
    /// When the entries do not follow the applied point in the chain of checksums.
    pub fn apply(&mut self, entries: &[LogEntry]) -> Result<AppliedRange, ApplyFault> {
        if self.failed {
            return Err(ApplyFault::Stopped);
        }
        let applied = self.apply_range(entries);
        self.failed = applied.is_err();
        applied
    }

    fn apply_range(&mut self, entries: &[LogEntry]) -> Result<AppliedRange, ApplyFault> {
        let mut done = AppliedRange::default();
        let mut pending = Pending::new(&self.tables);
        let mut last = self.applied;
        for entry in entries {
            assert!(
                entry.index() == last.id.index.next(),
                "entry {} after {}",
                entry.index(),
                last.id.index
            );
            assert!(
                entry.previous == last.checksum,
                "entry {} hangs on another log",
                entry.index()
            );
            assert!(
                entry.term() >= last.id.term,
                "entry {} goes back in terms",
                entry.index()
            );
            match entry.kind {
                EntryKind::Noop => {}
                EntryKind::Configuration => self.apply_configuration(&mut pending, entry)?,
                EntryKind::Command => self.apply_command(&mut pending, &mut done, entry)?,
            }
            last = LogBase {
                id: entry.id,
                checksum: entry.checksum,
            };
            pending.point = Some(last);
        }
        self.commit(pending, &mut done)?;
        Ok(done)
    }

    fn apply_configuration(&mut self, pending: &mut Pending, entry: &LogEntry) -> Result<(), ApplyFault> {
        let index = entry.index();
        let configuration = Configuration::decode(&entry.payload)
            .map_err(|source| ApplyFault::UnknownConfiguration { index, source })?;
        pending.batch.put(
            rows::MEMBERSHIP,
            rows::ONLY,
            rows::membership(index, &configuration),
        );
        self.sessions.close_strangers(&configuration);
        self.membership = Some((index, configuration));
        Ok(())
    }

    fn apply_command(
        &mut self,
        pending: &mut Pending,
        done: &mut AppliedRange,
        entry: &LogEntry,
    ) -> Result<(), ApplyFault> {
        let index = entry.index();
        let (operation, outcome) = match Envelope::decode(&entry.payload) {
            Ok(envelope) => {
                if let Ok(Command::TrimHistory { .. }) = envelope.command {
                    // It looks at the tables: they must have what stands before it.
                    self.commit(std::mem::replace(pending, Pending::new(&self.tables)), done)?;
                }
                (envelope.operation, self.apply_envelope(pending, envelope, index)?)
            }
            Err(CommandError::Malformed(_)) => (None, Outcome::Refused(Refused::Malformed)),
            Err(source) => return Err(ApplyFault::UnknownCommand { index, source }),
        };
        pending.done.applied.push(Applied {
            index,
            operation,
            outcome,
        });
        Ok(())
    }

    /// Applies a command unless its operation was applied before or may have been.
    fn apply_envelope(
        &mut self,
        pending: &mut Pending,
        envelope: Envelope,
        index: Index,
    ) -> Result<Outcome, ApplyFault> {
        let Some(operation) = envelope.operation.filter(|operation| operation.counter > 0) else {
            return Ok(Outcome::Refused(Refused::Anonymous));
        };
        if envelope.command == Ok(Command::OpenSession) {
            let members = self.membership.as_ref().map(|(_, configuration)| configuration);
            self.sessions.open(operation, members);
        }
        match self.sessions.check(operation, envelope.low_watermark) {
            Verdict::Unknown => return Ok(Outcome::Unknown),
            Verdict::Repeated(outcome) => return Ok(outcome),
            Verdict::Fresh => {}
        }
        let outcome = match envelope.command {
            // First, so that a node that does not know the command says the same as one that does.
            _ if envelope.level > self.level => Outcome::Refused(Refused::FeatureLevel),
            Ok(command) => self.execute(pending, command, index)?,
            Err(CommandError::Malformed(_)) => Outcome::Refused(Refused::Malformed),
            Err(source) => return Err(ApplyFault::UnknownCommand { index, source }),
        };
        self.sessions.record(operation, outcome);
        Ok(outcome)
    }

    fn execute(
        &mut self,
        pending: &mut Pending,
        command: Command,
        index: Index,
    ) -> Result<Outcome, ApplyFault> {
        match command {
            Command::OpenSession => Ok(Outcome::SessionOpened),
            Command::ConfigPut(publish) => self.put(pending, &publish, index),
            Command::ConfigRemove(removal) => {
                let removed = self.remove(pending, &removal, index, 0)?;
                Ok(Outcome::ConfigsRemoved(removed.into()))
            }
            Command::ConfigRemoveBatch { configs, origin } => {
                self.remove_batch(pending, configs, &origin, index)
            }
            Command::NamespaceCreate(wanted) => {
                let row = self.namespaces(pending).create(&wanted, index.0);
                let row = row.map(rows::namespace);
                Ok(put_namespace(pending, wanted.id, row, index))
            }
            Command::NamespaceUpdate(wanted) => {
                let row = self.namespaces(pending).update(&wanted).map(rows::namespace);
                Ok(put_namespace(pending, wanted.id, row, index))
            }
            Command::NamespaceDelete(id) => {
                let deleted = self.namespaces(pending).delete(&id);
                if deleted.is_ok() {
                    pending.batch.delete(rows::NAMESPACES, id.as_str().as_bytes());
                    pending.done.events.push(Event::NamespaceChanged { id, index });
                }
                Ok(namespace_outcome(deleted))
            }
            Command::TrimHistory { before_ms, rows_max } => self.trim_history(pending, before_ms, rows_max),
            Command::RaiseFeatureLevel(level) => self.raise_level(pending, level, index),
            Command::NamingInstancePut { .. }
            | Command::NamingInstanceRemove { .. }
            | Command::NamingHealth(_)
            | Command::NamingServiceCreate { .. }
            | Command::NamingServicePut { .. }
            | Command::NamingServiceRemove(_)
            | Command::NamingClusterPut { .. }
            | Command::NamingOverridePut { .. }
            | Command::NamingSweep { .. }
            | Command::NamingSwitchPut { .. } => self.execute_naming(pending, command, index),
        }
    }

    fn put(&mut self, pending: &mut Pending, publish: &Publish, index: Index) -> Result<Outcome, ApplyFault> {
        let (formal, grays) = self.current(pending, &publish.key);
        let before = Before {
            formal: formal.as_deref(),
            grays: &grays,
        };
        let edit = match change::publish(before, publish, numbers(index, 0)) {
            Ok(edit) => edit,
            Err(change::Refusal::CasMismatch) => return Ok(Outcome::CasMismatch),
            Err(change::Refusal::Gray(error)) => return Ok(Outcome::GrayRefused(error)),
        };
        let id = edit.history.config_id;
        let outcome = match edit.history.operation {
            Operation::Insert => Outcome::ConfigInserted(id),
            _ => Outcome::ConfigUpdated(id),
        };
        self.store(pending, (formal, grays), edit, &publish.origin, index)?;
        Ok(outcome)
    }

    /// True when there was something to remove.
    fn remove(
        &mut self,
        pending: &mut Pending,
        removal: &Removal,
        index: Index,
        position: u64,
    ) -> Result<bool, ApplyFault> {
        let (formal, grays) = self.current(pending, &removal.key);
        let before = Before {
            formal: formal.as_deref(),
            grays: &grays,
        };
        let Some(edit) = change::remove(before, removal, numbers(index, position)) else {
            return Ok(false);
        };
        self.store(pending, (formal, grays), edit, &removal.origin, index)?;
        Ok(true)
    }

    fn remove_batch(
        &mut self,
        pending: &mut Pending,
        configs: Vec<(ConfigKey, ConfigId)>,
        origin: &Origin,
        index: Index,
    ) -> Result<Outcome, ApplyFault> {
        let mut count = 0;
        for (position, (key, id)) in configs.into_iter().enumerate() {
            if self.current(pending, &key).0.is_none_or(|entry| entry.id != id) {
                continue;
            }
            let removal = Removal {
                key,
                variant: None,
                origin: origin.clone(),
            };
            count += u32::from(self.remove(pending, &removal, index, position as u64)?);
        }
        Ok(Outcome::ConfigsRemoved(count))
    }

    /// What is there under a name, with what this range has done so far.
    fn current(&self, pending: &Pending, key: &ConfigKey) -> (Option<Arc<Entry>>, GrayVersions) {
        let formal = pending
            .configs
            .get(key)
            .cloned()
            .unwrap_or_else(|| self.reader.get(key));
        let grays = pending
            .grays
            .get(key)
            .cloned()
            .unwrap_or_else(|| self.reader.grays(key));
        (formal, grays)
    }

    /// Writes what became of a config, and the history row that tells of it.
    fn store(
        &mut self,
        pending: &mut Pending,
        (formal, grays): (Option<Arc<Entry>>, GrayVersions),
        edit: Edit,
        origin: &Origin,
        index: Index,
    ) -> Result<(), ApplyFault> {
        let key = edit.history.key.clone();
        self.append_history(pending, &key, &edit.history, origin)?;
        let formal = formal.map(|entry| entry.md5);
        let before = Versions { formal, grays };
        let mut after = before.clone();
        match edit.after {
            After::Formal(detail) => {
                after.formal = Some(detail.entry.md5);
                pending
                    .batch
                    .put(rows::CONFIGS, key.as_bytes(), rows::config(&detail));
                pending.configs.insert(key.clone(), Some(Arc::new(detail.entry)));
            }
            After::NoFormal => {
                after.formal = None;
                pending.batch.delete(rows::CONFIGS, key.as_bytes());
                pending.configs.insert(key.clone(), None);
            }
            After::Gray(variant, all) => {
                pending.batch.put(
                    rows::GRAYS,
                    &rows::gray_key(&key, &variant.name),
                    rows::gray(&variant),
                );
                after.grays = all.clone();
                pending.grays.insert(key.clone(), all);
            }
            After::NoGray(name, all) => {
                pending.batch.delete(rows::GRAYS, &rows::gray_key(&key, &name));
                after.grays = all.clone();
                pending.grays.insert(key.clone(), all);
            }
        }
        if edit.noticeable {
            pending.done.events.push(Event::ConfigChanged {
                key,
                index,
                before,
                after,
            });
        }
        Ok(())
    }

    fn append_history(
        &mut self,
        pending: &mut Pending,
        key: &ConfigKey,
        row: &History,
        origin: &Origin,
    ) -> Result<(), ApplyFault> {
        let mut head = self.head(pending, key)?;
        let batch = &mut pending.batch;
        // Days do not go back within a history, whatever the proposers' clocks say: then a trim removes
        // rows from its start only, and none is left behind a newer one.
        let day = if head.is_empty() {
            day_of(row.at_ms)
        } else {
            day_of(row.at_ms).max(head.day)
        };
        batch.put(
            rows::HISTORY,
            &rows::history_key(key, head.next),
            rows::history(row, day),
        );
        if day != head.day || head.is_empty() {
            batch.put(rows::HISTORY_DAYS, &rows::day_key(day, key), &[][..]);
        }
        head.day = day;
        head.next += 1;
        for _ in 0..HISTORY_SURPLUS_MAX {
            if head.len() <= u64::from(origin.history_max) {
                break;
            }
            batch.delete(rows::HISTORY, &rows::history_key(key, head.oldest));
            head.oldest += 1;
        }
        pending.heads.insert(key.clone(), head.normal());
        Ok(())
    }

    fn head(&self, pending: &Pending, key: &ConfigKey) -> Result<HistoryHead, ApplyFault> {
        if let Some(head) = pending.heads.get(key).or_else(|| self.heads.get(key)) {
            return Ok(*head);
        }
        let row = self.tables.get(rows::HISTORY_HEADS, key.as_bytes())?;
        Ok(row.map(rows::read_history_head).transpose()?.unwrap_or_default())
    }

    /// Removes rows of days that lie wholly before the moment, oldest day first. The tables hold
    /// everything that was applied before.
    fn trim_history(
        &mut self,
        pending: &mut Pending,
        before_ms: i64,
        rows_max: u32,
    ) -> Result<Outcome, ApplyFault> {
        let end_day = day_of(before_ms);
        let steps_max = rows_max.min(TRIM_ROWS_MAX);
        // Days without rows count as a step, too: the work must be bounded.
        let (mut rows, mut steps, mut more) = (0, 0, false);
        for day_row in self.tables.scan(rows::HISTORY_DAYS, &[]) {
            let (day_key, _) = day_row?;
            let (day, key) = rows::read_day_key(&day_key)?;
            if day >= end_day {
                break;
            }
            if steps >= steps_max {
                more = true;
                break;
            }
            let mut head = self.head(pending, &key)?;
            while !head.is_empty() && steps < steps_max && self.history_day(&key, head.oldest)? < end_day {
                pending
                    .batch
                    .delete(rows::HISTORY, &rows::history_key(&key, head.oldest));
                head.oldest += 1;
                (rows, steps) = (rows + 1, steps + 1);
            }
            let unsure = steps >= steps_max && !head.is_empty();
            pending.heads.insert(key, head.normal());
            if unsure {
                more = true;
                break;
            }
            pending.batch.delete(rows::HISTORY_DAYS, &day_key);
            steps += 1;
        }
        Ok(Outcome::HistoryTrimmed { rows, more })
    }

    fn history_day(&self, key: &ConfigKey, sequence: u64) -> Result<u64, ApplyFault> {
        let row = self
            .tables
            .get(rows::HISTORY, &rows::history_key(key, sequence))?;
        let missing = || RowError {
            table: "history",
            why: format!("row {sequence} of {key} is missing"),
        };
        Ok(rows::read_history_day(row.ok_or_else(missing)?)?)
    }

    fn namespaces<'a>(&self, pending: &'a mut Pending) -> &'a mut Namespaces {
        pending
            .namespaces
            .get_or_insert_with(|| self.reader.namespaces_now().as_ref().clone())
    }

    fn raise_level(
        &mut self,
        pending: &mut Pending,
        level: u32,
        index: Index,
    ) -> Result<Outcome, ApplyFault> {
        let supported = self.supported;
        if level > supported {
            return Err(ApplyFault::FeatureLevel {
                index,
                level,
                supported,
            });
        }
        if level > self.level {
            self.level = level;
            pending.batch.put(rows::LEVEL, rows::ONLY, rows::level(level));
            pending
                .done
                .events
                .push(Event::FeatureLevelRaised { level, index });
        }
        Ok(Outcome::FeatureLevel(self.level))
    }

    /// Writes what is pending, then shows it to readers.
    fn commit(&mut self, pending: Pending, done: &mut AppliedRange) -> Result<(), ApplyFault> {
        let Pending {
            mut batch,
            point,
            configs,
            grays,
            heads,
            namespaces,
            naming: _,
            done: part,
        } = pending;
        let Some(point) = point else { return Ok(()) };
        for (key, head) in &heads {
            if head.is_empty() {
                batch.delete(rows::HISTORY_HEADS, key.as_bytes());
            } else {
                batch.put(rows::HISTORY_HEADS, key.as_bytes(), rows::history_head(*head));
            }
        }
        self.write_sessions(&mut batch);
        batch.commit(point)?;
        self.applied = point;
        if self.heads.len() + heads.len() > HEADS_MAX {
            self.heads.clear();
        }
        self.heads.extend(heads);
        self.reader
            .show(configs, grays, namespaces, point.id.index, self.level);
        done.applied.extend(part.applied);
        done.events.extend(part.events);
        Ok(())
    }

    fn write_sessions(&mut self, batch: &mut TablesBatch) {
        let changes = self.sessions.take_changes();
        for node in changes.sessions {
            if let Some(session) = self.sessions.get(node) {
                batch.put(rows::SESSIONS, &rows::session_key(node), rows::session(session));
            }
        }
        for (node, block) in changes.blocks {
            let outcomes = self
                .sessions
                .get(node)
                .and_then(|session| rows::block(session.block(block)));
            match outcomes {
                Some(row) => batch.put(rows::OUTCOMES, &rows::block_key(node, block), row),
                None => batch.delete(rows::OUTCOMES, &rows::block_key(node, block)),
            }
        }
    }
}

impl HistoryHead {
    pub(super) fn len(self) -> u64 {
        self.next - self.oldest
    }

    pub(super) fn is_empty(self) -> bool {
        self.oldest == self.next
    }

    /// An empty history has no row for its head: numbers start anew, at once, so that it makes no
    /// difference where a batch ended.
    fn normal(self) -> HistoryHead {
        if self.is_empty() {
            HistoryHead::default()
        } else {
            self
        }
    }
}

fn numbers(index: Index, position: u64) -> Numbers {
    assert!(
        index.0 < 1 << (u64::BITS - POSITION_BITS),
        "the log is longer than ids can tell apart"
    );
    assert!(position < 1 << POSITION_BITS, "an entry makes too many things");
    let number = index.0 << POSITION_BITS | position;
    Numbers {
        config: ConfigId(number),
        history: HistoryId(number),
    }
}

/// Writes the row of a namespace that was made or renamed.
fn put_namespace(
    pending: &mut Pending,
    id: NamespaceId,
    row: Result<Bytes, NamespaceRefusal>,
    index: Index,
) -> Outcome {
    namespace_outcome(row.map(|row| {
        pending.batch.put(rows::NAMESPACES, id.as_str().as_bytes(), row);
        pending.done.events.push(Event::NamespaceChanged { id, index });
    }))
}

fn namespace_outcome(result: Result<(), NamespaceRefusal>) -> Outcome {
    match result {
        Ok(()) => Outcome::NamespaceDone,
        Err(refusal) => Outcome::NamespaceRefused(refusal),
    }
}

/// Day of the epoch in UTC; moments before the epoch count as its first day.
pub(super) fn day_of(ms: i64) -> u64 {
    ms.div_euclid(DAY_MS).try_into().unwrap_or(0)
}
