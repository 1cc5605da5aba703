//! Opening a formed folder: every check before the first message, and the repairs a crash asks for.
//!
//! The order is the point. Nothing is cut, moved or overwritten before a suspicion that follows from it
//! is in the mark and synced (hazard R51: else a second crash makes the loss look like health):
//!
//! 1. identity, version, mark;
//! 2. scan `wal/`, read-only; damage makes the node suspect: *mark, synced*; then cut, and write what
//!    stays of the newest journal again (hazard R52, as 6);
//! 3. open the log, walk the chain from its base, compare with the mark;
//! 4. scan, cut and open `state/`; its applied point must lie on the log; finish an unfinished install;
//! 5. *mark, synced*, when 3 or 4 made the node suspect; a lone suspect stops here;
//! 6. write again, as one synced batch: the entries above the mark, term and vote (what the page cache
//!    shows is no proof that an earlier sync succeeded, hazard R52);
//! 7. *mark, synced*, both slots: the new boot, term and vote, the end of the log.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use raft::{Boot, Configuration, HardState, Identity, Index, LogBase, Recovered};

use crate::dir::{self, FORMAT_VERSION, Format};
use crate::error::{OpenError, StorageError};
use crate::finding::Finding;
use crate::folder::Folder;
use crate::hard_state::{BaseRecord, HardRecord};
use crate::journal::{self, Cut, Database, FolderScan};
use crate::log::{Chain, LogReader, Wal, WalChange, base_of};
use crate::mark::{Mark, MarkFile, Slots};
use crate::membership::{self, Memberships};
use crate::metrics::WriterMetrics;
use crate::snapshot::{SnapshotFile, Snapshots};
use crate::space::{SpaceWatch, statvfs};
use crate::table::Tables;
use crate::writer::{LogWriter, WriterState};
use crate::{Opened, Options};

/// Who opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A server: a lone suspect is refused.
    Normal,
    /// The operator, who has accepted the loss: no suspicion remains.
    AcceptLoss,
}

pub(crate) fn open(folder: Folder, options: Options, mode: Mode) -> Result<Opened, OpenError> {
    let mut opening = Opening::begin(folder, &options, mode)?;
    opening.scan_log()?;
    let mut log = opening.open_log()?;
    opening.check_mark(&mut log)?;
    let tables = opening.open_state(&mut log)?;
    let hard_state = opening.write_again(&mut log)?;
    opening.finish(log, tables, hard_state, options)
}

/// What is known so far while a folder is being opened.
struct Opening {
    folder: Folder,
    mode: Mode,
    mark_file: MarkFile,
    /// The mark as it was found.
    mark: Mark,
    boot: Boot,
    suspicion: Option<Boot>,
    /// Why, as far as this open has found it out.
    reason: Option<String>,
    /// The best-known memberships: the copy beside the log, then the log's own.
    memberships: Memberships,
    one_slot_bad: bool,
    log_was_cut: bool,
    snapshots: Snapshots,
    findings: Vec<Finding>,
}

/// The log as it was found, and what is to become of it.
struct Log {
    wal: Wal,
    hard: HardRecord,
    /// Where it starts (after the plan).
    base: BaseRecord,
    chain: Chain,
    /// The chain is given up: the log starts anew after `base`.
    restart: bool,
}

impl Log {
    /// The last entry, by the plan.
    fn last(&self) -> LogBase {
        if self.restart {
            self.base.base
        } else {
            self.chain.last
        }
    }

    /// What stands at `index`, when it is the base or an entry of the log.
    fn point_at(&self, index: Index) -> Result<Option<LogBase>, StorageError> {
        if index == self.base.base.id.index {
            return Ok(Some(self.base.base));
        }
        if self.restart || index < self.base.base.id.index || index > self.chain.last.id.index {
            return Ok(None);
        }
        Ok(self.wal.entry(index)?.map(|entry| base_of(&entry)))
    }

    /// Gives up the entries: the log starts anew after `point`.
    fn restart_at(&mut self, point: LogBase, membership: Option<(Index, Configuration)>) {
        self.base = BaseRecord {
            base: point,
            membership,
        };
        self.restart = true;
    }
}

impl Opening {
    fn begin(folder: Folder, options: &Options, mode: Mode) -> Result<Opening, OpenError> {
        let (mark, mark_file, one_slot_bad) = find_mark(&folder, mode)?;
        if let Some(expected) = options.node_id.filter(|expected| *expected != mark.node_id) {
            return Err(OpenError::OtherNode {
                folder: folder.paths.root.clone(),
                found: mark.node_id,
                expected,
            });
        }
        let mut findings = Vec::new();
        if folder.format.is_none() {
            findings.push(Finding::FormatRestored);
        }
        if one_slot_bad {
            findings.push(Finding::MarkSlot);
        }
        let (snapshots, damaged) = Snapshots::open(&folder.paths.snapshots(), &folder.faults)?;
        for path in damaged {
            dir::move_aside(&folder.paths, &path)?;
            findings.push(Finding::SnapshotDamaged(path));
        }
        Ok(Opening {
            memberships: membership::load(&folder.paths.members()).unwrap_or_default(),
            folder,
            mode,
            mark_file,
            boot: Boot(mark.boot.0 + 1),
            suspicion: mark.suspicion,
            mark,
            reason: None,
            one_slot_bad,
            log_was_cut: false,
            snapshots,
            findings,
        })
    }

    /// Makes this node suspect, durably, before anything else happens. A suspect that has lost more is
    /// suspect anew: what a leader has seen it catch up with since the earlier loss may be gone again.
    fn suspect(&mut self, reason: String) -> Result<(), OpenError> {
        let since = self.boot;
        self.suspicion = Some(since);
        self.findings.push(Finding::Suspect {
            since,
            reason: reason.clone(),
        });
        self.reason.get_or_insert(reason);
        if self.mark_file.mark().suspicion != self.suspicion {
            let mark = Mark {
                boot: self.boot,
                suspicion: self.suspicion,
                ..self.mark
            };
            self.mark_file.write_both(mark)?;
        }
        self.refuse_lone()
    }

    /// Nobody can give back what the only voter has lost: only its operator may go on.
    fn refuse_lone(&self) -> Result<(), OpenError> {
        let Some(since) = self.suspicion.filter(|_| self.mode == Mode::Normal) else {
            return Ok(());
        };
        if !membership::is_lone(&self.memberships, self.mark.node_id) {
            return Ok(());
        }
        let reason = self.reason.clone();
        let reason = reason.unwrap_or_else(|| format!("found at start number {since}, not accepted yet"));
        Err(OpenError::LoneSuspect {
            folder: self.folder.paths.root.clone(),
            reason,
            since,
        })
    }

    /// Step 2.
    fn scan_log(&mut self) -> Result<(), OpenError> {
        let wal = self.folder.paths.wal();
        if !wal.join("version").is_file() {
            return Ok(());
        }
        let scan = journal::scan_folder(&wal, Database::Wal)?;
        if scan.is_damaged() {
            self.suspect(format!("the log is damaged: {}", scan.describe()))?;
        }
        if self.one_slot_bad && !scan.torn.is_empty() {
            // One crash tears the log or the mark, never both: one of the two has rotted.
            self.suspect("a slot of the mark and the end of the log are both unreadable".to_owned())?;
        }
        self.refuse_lone()?;
        self.log_was_cut = !scan.torn.is_empty() || !scan.damaged.is_empty();
        self.apply_cuts(&scan)?;
        journal::write_again(&wal, &self.folder.faults)?;
        Ok(())
    }

    fn apply_cuts(&mut self, scan: &FolderScan) -> Result<(), OpenError> {
        for cut in &scan.torn {
            let copy = self.cut(cut, false)?;
            let (journal, reason, offset) = (cut.path.clone(), cut.reason, cut.offset);
            self.findings.push(Finding::TornTail {
                journal,
                reason,
                offset,
                copy,
            });
        }
        for cut in &scan.damaged {
            let copy = self.cut(cut, true)?;
            let (journal, reason, offset) = (cut.path.clone(), cut.reason, cut.offset);
            self.findings.push(Finding::Damage {
                journal,
                reason,
                offset,
                copy,
            });
        }
        Ok(())
    }

    fn cut(&self, cut: &Cut, whole: bool) -> Result<std::path::PathBuf, StorageError> {
        journal::apply_cut(&self.folder.paths, cut, whole, &self.folder.faults)
    }

    /// Step 3, first half. A log that cannot be opened, or has lost its own records, is moved aside and
    /// begun anew; where it starts then follows from the state tables.
    fn open_log(&mut self) -> Result<Log, OpenError> {
        let path = self.folder.paths.wal();
        let found = if path.join("version").is_file() {
            match Wal::open(&path, &self.folder.lock) {
                Ok(wal) => read_records(&wal).map(|(hard, base)| (wal, hard, base)),
                Err(error) => Err(error.to_string()),
            }
        } else {
            Err("it is missing".to_owned())
        };
        let (wal, hard, base) = match found {
            Ok(found) => found,
            Err(reason) => return self.replace_log(reason),
        };
        self.boot = self.boot.max(Boot(hard.boot.0 + 1));
        let chain = wal.walk(base.base, self.mark.synced.id.index);
        let mut memberships: Memberships = base.membership.clone().into_iter().collect();
        memberships.extend(chain.memberships.iter().cloned());
        if !memberships.is_empty() {
            self.memberships = memberships;
        }
        self.refuse_lone()?;
        let broken = chain.broken.clone();
        let log = Log {
            wal,
            hard,
            base,
            chain,
            restart: false,
        };
        if let Some(reason) = broken {
            self.suspect(format!("the log is not whole: {reason}"))?;
        }
        Ok(log)
    }

    fn replace_log(&mut self, reason: String) -> Result<Log, OpenError> {
        self.suspect(format!("the log cannot be used: {reason}"))?;
        let path = self.folder.paths.wal();
        if let Some(moved) = dir::move_aside(&self.folder.paths, &path)? {
            self.findings.push(Finding::LogMoved { reason, moved });
        }
        let wal = Wal::open(&path, &self.folder.lock)?;
        dir::sync_folder(&self.folder.paths.root)?;
        let chain = wal.walk(LogBase::default(), Index(0));
        Ok(Log {
            wal,
            hard: HardRecord::default(),
            base: BaseRecord::default(),
            chain,
            restart: true,
        })
    }

    /// Step 3, second half: the log must hold what the mark says was synced.
    fn check_mark(&mut self, log: &mut Log) -> Result<(), OpenError> {
        let synced = self.mark.synced;
        if log.restart || synced.id.index < log.base.base.id.index {
            return Ok(());
        }
        if log.point_at(synced.id.index)? == Some(synced) {
            return Ok(());
        }
        if let Some(snapshot) = self
            .snapshot_at(synced)
            .filter(|_| self.mark.snapshot == synced.id)
        {
            // A crash between "the mark says: from this snapshot" and the batch that restarts the log.
            let configuration = snapshot.meta().configuration.clone();
            self.memberships = vec![(synced.id.index, configuration.clone())];
            log.restart_at(synced, Some((synced.id.index, configuration)));
            self.findings.push(Finding::LogRestarted(synced.id.index));
            return Ok(());
        }
        let end = log.last().id;
        self.suspect(format!(
            "the log was synced up to entry {} of term {} and now ends at entry {} of term {} without it",
            synced.id.index, synced.id.term, end.index, end.term
        ))
    }

    /// The newest snapshot, when it stands exactly at `point` and is intact.
    fn snapshot_at(&self, point: LogBase) -> Option<SnapshotFile> {
        self.snapshots
            .latest_file()
            .filter(|file| file.point() == point && file.verify().is_ok())
    }

    /// Step 4.
    fn open_state(&mut self, log: &mut Log) -> Result<Tables, OpenError> {
        let tables = match self.try_open_state()? {
            Ok(tables) => tables,
            Err(reason) => self.replace_state(log, reason)?,
        };
        let tables = self.finish_install(log, tables)?;
        self.meet_log(log, tables)
    }

    /// The tables, or why they cannot be used.
    fn try_open_state(&mut self) -> Result<Result<Tables, String>, OpenError> {
        let path = self.folder.paths.state();
        if !path.join("version").is_file() {
            return Ok(Err("they are missing".to_owned()));
        }
        let scan = journal::scan_folder(&path, Database::State)?;
        if scan.is_damaged() {
            return Ok(Err(scan.describe()));
        }
        self.apply_cuts(&scan)?;
        Ok(
            match Tables::open(&path, &self.folder.faults, &self.folder.lock) {
                Ok(Some(tables)) => Ok(tables),
                Ok(None) => Err("their applied point is damaged".to_owned()),
                Err(error) => Err(error.to_string()),
            },
        )
    }

    /// Moves unusable tables aside and makes empty ones. They are filled from a snapshot that meets the
    /// log or, where the log begins at its beginning, by applying it again; otherwise this node has
    /// nothing to apply the log to, and starts anew from what the leader sends.
    fn replace_state(&mut self, log: &mut Log, reason: String) -> Result<Tables, OpenError> {
        if self.meeting_snapshot(log).is_none() && log.base.base != LogBase::default() {
            self.suspect(format!(
                "the state tables cannot be used ({reason}) and no snapshot replaces them"
            ))?;
            log.restart_at(LogBase::default(), self.newest_membership());
        }
        let path = self.folder.paths.state();
        if let Some(moved) = dir::move_aside(&self.folder.paths, &path)? {
            self.findings.push(Finding::StateMoved { reason, moved });
        }
        let tables = Tables::open(&path, &self.folder.faults, &self.folder.lock)?;
        dir::sync_folder(&self.folder.paths.root)?;
        Ok(tables.ok_or(StorageError::StateRecord { what: "applied" })?)
    }

    /// The newest snapshot, when the log goes on from it: it is not older than the log's base, and
    /// either on the log or beyond its end.
    fn meeting_snapshot(&self, log: &Log) -> Option<SnapshotFile> {
        let file = self.snapshots.latest_file()?;
        let point = file.point();
        if point.id.index < log.base.base.id.index {
            return None;
        }
        let on_log = log
            .point_at(point.id.index)
            .ok()?
            .is_none_or(|found| found == point);
        (on_log && file.verify().is_ok()).then_some(file)
    }

    /// Finishes an install that a crash interrupted.
    fn finish_install(&mut self, log: &mut Log, tables: Tables) -> Result<Tables, OpenError> {
        let point = match tables.installing() {
            Ok(None) => return Ok(tables),
            Ok(Some(point)) => point,
            Err(_) => return self.give_up_state(log, tables, "their install marker is damaged"),
        };
        match self
            .snapshots
            .latest_file()
            .filter(|file| file.point().id.index >= point.id.index)
        {
            Some(file) if file.verify().is_ok() => {
                let installed = tables.install(&file)?;
                self.findings.push(Finding::StateInstalled(installed.id.index));
                Ok(tables)
            }
            _ => self.give_up_state(log, tables, "the snapshot they were being replaced by is gone"),
        }
    }

    fn give_up_state(&mut self, log: &mut Log, tables: Tables, reason: &str) -> Result<Tables, OpenError> {
        drop(tables);
        self.replace_state(log, reason.to_owned())
    }

    /// The applied point must lie on the log.
    fn meet_log(&mut self, log: &mut Log, tables: Tables) -> Result<Tables, OpenError> {
        let applied = tables.applied();
        let base = log.base.base;
        if applied.id.index < base.id.index {
            return self.catch_up_state(log, tables);
        }
        match log.point_at(applied.id.index)? {
            Some(found) if found == applied => Ok(tables),
            Some(_) => {
                self.suspect(format!(
                    "entry {} of the log is not the one applied",
                    applied.id.index
                ))?;
                let tables = self.give_up_state(log, tables, "they hold another history than the log")?;
                if tables.applied().id.index < log.base.base.id.index {
                    return self.catch_up_state(log, tables);
                }
                Ok(tables)
            }
            None => {
                // Hazard R46: the tables are ahead of what is left of the log.
                self.suspect(format!(
                    "the log ends at {} and the state tables are at {}",
                    log.last().id.index,
                    applied.id.index
                ))?;
                tables.sync()?;
                self.restart_log(log, applied);
                Ok(tables)
            }
        }
    }

    /// The tables end before the log begins: a snapshot must close the gap.
    fn catch_up_state(&mut self, log: &mut Log, tables: Tables) -> Result<Tables, OpenError> {
        if let Some(file) = self.meeting_snapshot(log) {
            let installed = tables.install(&file)?;
            self.findings.push(Finding::StateInstalled(installed.id.index));
            if installed.id.index > log.last().id.index {
                // Received from a leader and complete, so all of it was committed; the entries before
                // it are of no further use.
                self.restart_log(log, installed);
            }
            return Ok(tables);
        }
        let applied = tables.applied();
        self.suspect(format!(
            "the log starts after {} and the state tables are at {}, with no snapshot in between",
            log.base.base.id.index, applied.id.index
        ))?;
        tables.sync()?;
        self.restart_log(log, applied);
        Ok(tables)
    }

    fn restart_log(&mut self, log: &mut Log, point: LogBase) {
        let known = membership::in_force_at(&self.memberships, point.id.index).cloned();
        let membership = known.map(|configuration| (point.id.index, configuration));
        log.restart_at(point, membership.or_else(|| self.newest_membership()));
        self.findings.push(Finding::LogRestarted(point.id.index));
    }

    fn newest_membership(&self) -> Option<(Index, Configuration)> {
        self.memberships
            .last()
            .map(|(_, configuration)| (Index(0), configuration.clone()))
    }

    /// Steps 5 and 6.
    fn write_again(&mut self, log: &mut Log) -> Result<HardState, OpenError> {
        let hard_state = self.merge_votes(log)?;
        if self.mode == Mode::AcceptLoss {
            self.suspicion = None;
        }
        self.refuse_lone()?;
        let last = log.last();
        let stray = log.wal.indices_above(last.id.index)?;
        if !stray.is_empty() {
            self.findings.push(Finding::EntriesRemoved {
                after: last.id.index,
                count: stray.len(),
            });
        }
        let entries = if log.restart {
            Vec::new()
        } else {
            std::mem::take(&mut log.chain.above)
        };
        let hard_state = HardState {
            commit: hard_state.commit.min(last.id.index),
            ..hard_state
        };
        log.wal.commit(WalChange {
            entries,
            removed: stray,
            hard: Some(HardRecord {
                hard_state,
                boot: self.boot,
            }),
            base: Some(log.base.clone()),
        })?;
        Ok(hard_state)
    }

    /// Term and vote are in two places: the higher term wins, and in one term a vote beats none.
    fn merge_votes(&self, log: &Log) -> Result<HardState, OpenError> {
        let (found, mark) = (log.hard.hard_state, self.mark);
        let (term, vote) = match found.term.cmp(&mark.term) {
            std::cmp::Ordering::Greater => (found.term, found.vote),
            std::cmp::Ordering::Less => (mark.term, mark.vote),
            std::cmp::Ordering::Equal => {
                if let (Some(in_log), Some(in_mark)) = (found.vote, mark.vote)
                    && in_log != in_mark
                    && self.mode == Mode::Normal
                {
                    let folder = self.folder.paths.root.clone();
                    return Err(OpenError::TwoVotes {
                        folder,
                        term: mark.term,
                        log: in_log,
                        mark: in_mark,
                    });
                }
                (mark.term, mark.vote.or(found.vote))
            }
        };
        // A log whose records are gone may hold entries of a later term than anything that is left.
        let newest = log.last().id.term;
        let (term, vote) = if newest > term {
            (newest, None)
        } else {
            (term, vote)
        };
        Ok(HardState {
            term,
            vote,
            commit: found.commit,
        })
    }

    /// Step 7, and the pieces.
    fn finish(
        mut self,
        log: Log,
        tables: Tables,
        hard_state: HardState,
        options: Options,
    ) -> Result<Opened, OpenError> {
        let memberships = self.final_memberships(&log);
        membership::store(&self.folder.paths.members(), &memberships, &self.folder.faults)?;
        let last = log.last();
        let snapshot = if log.restart {
            log.base.base.id
        } else {
            self.mark.snapshot
        };
        let mark = Mark {
            boot: self.boot,
            suspicion: self.suspicion,
            term: hard_state.term,
            vote: hard_state.vote,
            synced: last,
            snapshot,
            ..self.mark
        };
        self.mark_file.write_both(mark)?;
        let cluster_id = self.restore_format()?;
        let paths = &self.folder.paths;
        let recovered = self.recovered(&log, &tables, hard_state, &memberships);
        let first = Arc::new(AtomicU64::new(log.base.base.id.index.0 + 1));
        let probe = options.space_probe.unwrap_or_else(|| statvfs(&paths.root));
        let writer = LogWriter {
            state: WriterState {
                wal: log.wal.clone(),
                mark: self.mark_file,
                boot: self.boot,
                hard: hard_state,
                base: log.base.base,
                last,
                memberships,
                first: first.clone(),
                snapshots: self.snapshots.clone(),
                tables: tables.clone(),
                space: SpaceWatch::new(probe, options.reserve_bytes),
                members_path: paths.members(),
                metrics: Arc::new(WriterMetrics::new()),
                faults: self.folder.faults.clone(),
            },
        };
        Ok(Opened {
            identity: Identity {
                id: mark.node_id,
                incarnation: mark.incarnation,
                boot: mark.boot,
            },
            cluster_id,
            recovered,
            reader: LogReader::new(log.wal, first),
            writer,
            tables,
            snapshots: self.snapshots,
            findings: self.findings,
        })
    }

    /// What the core starts from.
    fn recovered(
        &self,
        log: &Log,
        tables: &Tables,
        hard_state: HardState,
        memberships: &Memberships,
    ) -> Recovered {
        let applied = tables.applied().id.index;
        let commit = hard_state.commit.max(applied);
        let last = log.last();
        Recovered {
            hard_state: HardState { commit, ..hard_state },
            base: log.base.base,
            terms: if log.restart {
                Vec::new()
            } else {
                log.chain.terms.clone()
            },
            last: last.id,
            last_checksum: last.checksum,
            configurations: memberships.clone(),
            applied,
            snapshot: self.snapshots.latest(),
            suspicion: self.suspicion,
        }
    }

    fn final_memberships(&self, log: &Log) -> Memberships {
        let mut memberships: Memberships = log.base.membership.clone().into_iter().collect();
        if !log.restart {
            memberships.extend(log.chain.memberships.iter().cloned());
        }
        memberships
    }

    /// FORMAT, when it was missing; and the cluster this folder belongs to.
    fn restore_format(&self) -> Result<crate::ClusterId, OpenError> {
        if let Some(format) = self.folder.format {
            return Ok(self.mark.cluster_id.unwrap_or(format.cluster_id));
        }
        let Some(cluster_id) = self.mark.cluster_id else {
            return Err(OpenError::FormatDamaged {
                path: self.folder.paths.format(),
                reason: "it is missing, and the mark names no cluster",
            });
        };
        let (node_id, incarnation) = (self.mark.node_id, self.mark.incarnation);
        Format {
            version: FORMAT_VERSION,
            cluster_id,
            node_id,
            incarnation,
        }
        .store(&self.folder.paths, &self.folder.faults)?;
        Ok(cluster_id)
    }
}

/// The mark and its file. Without a mark the node is wiped: it no longer knows what it promised. Only
/// the operator of a lone node may go on, with the identity FORMAT repeats.
fn find_mark(folder: &Folder, mode: Mode) -> Result<(Mark, MarkFile, bool), OpenError> {
    let path = folder.paths.mark();
    if let Slots::Read {
        mark,
        sequence,
        one_bad,
    } = folder.slots
    {
        let file = MarkFile::open(&path, mark, sequence, &folder.faults)?;
        return Ok((mark, file, one_bad));
    }
    let lost = || OpenError::MarkLost {
        folder: folder.paths.root.clone(),
    };
    let format = folder.format.ok_or_else(lost)?;
    let memberships = membership::load(&folder.paths.members());
    let lone = memberships.is_some_and(|memberships| membership::is_lone(&memberships, format.node_id));
    if mode == Mode::Normal || !lone {
        return Err(lost());
    }
    let mark = Mark {
        cluster_id: Some(format.cluster_id),
        node_id: format.node_id,
        incarnation: format.incarnation,
        ..Mark::default()
    };
    dir::move_aside(&folder.paths, &path)?;
    let file = MarkFile::create(&path, mark, &folder.faults)?;
    Ok((mark, file, false))
}

/// The records that a formed log always holds.
fn read_records(wal: &Wal) -> Result<(HardRecord, BaseRecord), String> {
    let hard = wal.hard_record().map_err(|error| error.to_string())?;
    let base = wal.base_record().map_err(|error| error.to_string())?;
    match (hard, base) {
        (Some(Ok(hard)), Some(Ok(base))) => Ok((hard, base)),
        (None, _) | (_, None) => Err("its hard state or base is missing".to_owned()),
        _ => Err("its hard state or base is damaged".to_owned()),
    }
}
