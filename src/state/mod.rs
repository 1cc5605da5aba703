//! The replicated state machine: what a committed log entry does, and what readers see of it.
//!
//! ```text
//!  committed entries ──▶ State::apply ──▶ one batch into the tables (rows + applied point; in memory first)
//!                              │                     │ then
//!                              │                     ▼
//!                              │              Reader (memory, shared)  ◀── gets, searches, history
//!                              ▼
//!                    outcomes, one per entry, and events in log order
//! ```
//!
//! **Deterministic.** Applying looks at the state, the entry and its index, nothing else. However the log
//! is cut into ranges, the tables end up with the same bytes and every operation with the same outcome
//! (tests: `tests/determinism.rs` in this module).
//!
//! **Never half-way.** A command that makes no sense is an [`Outcome::Refused`], the same on every node. An
//! entry this version cannot understand, or a failed disk, is an [`ApplyFault`]: nothing of the range
//! is shown, and the state takes no further entry. The node must stop; a restart (with a newer version)
//! goes on from the tables and the log.
//!
//! **Once.** Operation ids (`dedup.rs`) keep what was proposed twice from being applied twice, over
//! restarts and snapshots, because they lie in the same tables.
//!
//! **Not synced.** The log is the durable copy: the tables gather rows in memory and store many at once, and
//! a crash takes what was not stored. The log is cut behind [`storage::Tables::durable`] only, which its
//! owner moves with [`State::sync`] where it does not move by itself.
//!
//! **Cost**: see `docs/benchmarks.md`. By a sum over the fields, 100,000 configs of 1 KiB take about
//! 145 MiB; the allocator's holes come on top.
//!
//! What is *not* in here: who proposes, who waits for an outcome, who listens for events.

mod apply;
mod command;
mod dedup;
mod event;
mod outcome;
mod reader;
mod rows;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use raft::{Configuration, Index, LogBase, SnapshotMeta};
use storage::{Snapshots, StorageError, Tables};

pub use apply::{Applied, AppliedRange, ApplyFault};
pub use command::{
    COMMAND_LEVEL, Command, CommandError, ENVELOPE_VERSION, Envelope, NAMING_BATCH_MAX,
    NAMING_SWITCH_BYTES_MAX, REMOVE_BATCH_MAX,
};
pub use dedup::WINDOW as SESSION_WINDOW;
pub use event::Event;
pub use outcome::{Outcome, Refused};
pub use reader::{ReadError, Reader};
pub use rows::RowError;

use crate::model::ConfigKey;
use dedup::Sessions;
use reader::View;
use rows::HistoryHead;

/// The highest feature level this version knows. See [`Command::RaiseFeatureLevel`].
pub const FEATURE_LEVEL_MAX: u32 = 1;

/// The feature level of a state that was never raised.
pub const FEATURE_LEVEL_MIN: u32 = 1;

/// Longest table key of a config in bytes. Valid names stay far below.
pub const KEY_BYTES_MAX: usize = 4_096;

/// History rows that one trim removes at most: it must not hold up the entries behind it. About 10 ms.
pub const TRIM_ROWS_MAX: u32 = 1_000;

/// History rows that one publish removes beyond the config's limit, when that was lowered.
const HISTORY_SURPLUS_MAX: u64 = 64;

/// Bytes of metadata that may be set for an instance, patch by patch; a further patch is refused. One request
/// brings a KiB at most.
pub const OVERRIDE_TEXT_MAX: usize = 64 << 10;

/// Heads of histories kept in memory; forgotten all at once when there are more. About 10 MiB.
const HEADS_MAX: usize = 65_536;

/// The state machine. One owner applies; readers share the [`Reader`].
pub struct State {
    tables: Tables,
    reader: Arc<Reader>,
    sessions: Sessions,
    /// The membership in force at the applied point, and its index. `None` before the first one.
    membership: Option<(Index, Configuration)>,
    /// Commands of a higher level are refused.
    level: u32,
    /// Highest feature level this server understands; a higher one stops it.
    supported: u32,
    /// The point the tables stand at; what comes next must follow it in the chain of checksums.
    applied: LogBase,
    /// Heads of histories that were used lately; what is not in here is in the tables.
    heads: HashMap<ConfigKey, HistoryHead>,
    /// Set by the first fault: nothing is applied any more.
    failed: bool,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("applied", &self.applied)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

/// Why the state could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The tables could not be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A row makes no sense.
    #[error(transparent)]
    Row(#[from] RowError),
    /// The cluster uses features this version does not have.
    #[error(
        "the cluster has reached feature level {found}, this version of the server knows levels up to {supported}: \
         start this node with the version that the other nodes run, or a newer one; its data is untouched"
    )]
    FeatureLevel {
        /// Level of the stored state.
        found: u32,
        /// Highest level this node understands.
        supported: u32,
    },
}

impl State {
    /// Reads the tables into memory.
    ///
    /// # Errors
    /// See [`OpenError`]; nothing was changed.
    pub fn open(tables: Tables) -> Result<(State, Arc<Reader>), OpenError> {
        State::open_knowing(tables, FEATURE_LEVEL_MAX)
    }

    /// As [`State::open`], by a server that knows the feature levels up to `supported`. Every server knows
    /// those up to [`FEATURE_LEVEL_MAX`]; tests of mixed versions play others.
    ///
    /// # Errors
    /// See [`OpenError`]; nothing was changed.
    pub fn open_knowing(tables: Tables, supported: u32) -> Result<(State, Arc<Reader>), OpenError> {
        let loaded = Loaded::read(&tables, supported)?;
        let applied = tables.applied();
        let reader = Arc::new(Reader::new(
            tables.clone(),
            loaded.view,
            applied.id.index,
            loaded.level,
        ));
        let state = State {
            tables,
            reader: reader.clone(),
            sessions: loaded.sessions,
            membership: loaded.membership,
            level: loaded.level,
            supported,
            applied,
            heads: HashMap::new(),
            failed: false,
        };
        Ok((state, reader))
    }

    /// The point in the log that the state stands at.
    pub fn applied(&self) -> LogBase {
        self.applied
    }

    /// The membership in force at the applied point; empty before the first one. A snapshot of the
    /// tables carries it.
    pub fn configuration(&self) -> Configuration {
        self.membership
            .as_ref()
            .map(|(_, configuration)| configuration.clone())
            .unwrap_or_default()
    }

    /// Nodes that ever opened a session and were not forgotten, for metrics.
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// The view that readers share.
    pub fn reader(&self) -> &Arc<Reader> {
        &self.reader
    }

    /// The tables, for views and syncs beside the applying.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Makes everything applied so far durable and returns that point: the log may be cut up to it.
    ///
    /// # Errors
    /// A failed write or sync; it is final.
    pub fn sync(&self) -> Result<LogBase, StorageError> {
        self.tables.sync()
    }

    /// Puts a snapshot in the place of everything. Readers are told [`ReadError::Reloading`] for what
    /// comes from the tables meanwhile, and go on with the memory they had.
    ///
    /// # Errors
    /// After one the state takes nothing any more. A restart finishes the install or repeats it.
    pub fn install(&mut self, snapshots: &Snapshots, meta: &SnapshotMeta) -> Result<Vec<Event>, ApplyFault> {
        let installed = self.try_install(snapshots, meta);
        self.failed |= installed.is_err();
        installed
    }

    fn try_install(&mut self, snapshots: &Snapshots, meta: &SnapshotMeta) -> Result<Vec<Event>, ApplyFault> {
        let file = snapshots.file(meta).ok_or(ApplyFault::SnapshotGone {
            last: meta.last.index,
        })?;
        self.reader.set_reloading(true);
        self.tables.install(&file)?;
        self.reload()?;
        assert!(
            self.applied.id == meta.last,
            "installed {:?}, wanted {:?}",
            self.applied.id,
            meta.last
        );
        Ok(vec![Event::Reloaded {
            index: self.applied.id.index,
        }])
    }

    /// Reads everything anew: another's rows have taken the place of the tables.
    ///
    /// # Errors
    /// See [`OpenError`]; readers keep what they had.
    pub fn reload(&mut self) -> Result<(), OpenError> {
        self.reader.set_reloading(true);
        let loaded = Loaded::read(&self.tables, self.supported)?;
        self.sessions = loaded.sessions;
        self.membership = loaded.membership;
        self.level = loaded.level;
        self.applied = self.tables.applied();
        self.heads.clear();
        self.reader
            .replace(loaded.view, self.applied.id.index, self.level);
        Ok(())
    }
}

/// What the tables hold of what is kept in memory.
struct Loaded {
    view: View,
    sessions: Sessions,
    membership: Option<(Index, Configuration)>,
    level: u32,
}

impl Loaded {
    fn read(tables: &Tables, supported: u32) -> Result<Loaded, OpenError> {
        let level = tables
            .get(rows::LEVEL, rows::ONLY)?
            .map(rows::read_level)
            .transpose()?;
        let level = level.unwrap_or(FEATURE_LEVEL_MIN);
        // Before anything else: rows of a higher level may not be readable at all.
        if level > supported {
            return Err(OpenError::FeatureLevel {
                found: level,
                supported,
            });
        }
        let membership = tables
            .get(rows::MEMBERSHIP, rows::ONLY)?
            .map(rows::read_membership)
            .transpose()?;
        let sessions = Loaded::read_sessions(tables)?;
        Ok(Loaded {
            view: View::read(tables)?,
            sessions,
            membership,
            level,
        })
    }

    fn read_sessions(tables: &Tables) -> Result<Sessions, OpenError> {
        let mut sessions = Sessions::default();
        for row in tables.scan(rows::SESSIONS, &[]) {
            let (key, row) = row?;
            let (node, session) = rows::read_session(&key, row)?;
            sessions.restore(node, session);
        }
        for row in tables.scan(rows::OUTCOMES, &[]) {
            let (key, row) = row?;
            let (node, outcomes) = rows::read_block(&key, row)?;
            for (counter, outcome) in outcomes {
                if !sessions.restore_outcome(node, counter, outcome) {
                    let why = format!("an outcome of node {node} belongs to no session");
                    return Err(RowError {
                        table: "outcomes",
                        why,
                    }
                    .into());
                }
            }
        }
        Ok(sessions)
    }
}

#[cfg(test)]
mod tests;
