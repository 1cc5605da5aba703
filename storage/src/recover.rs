//! The operator's tools for a folder that cannot help itself: `rnacos recover inspect | accept-loss |
//! force-single`. Each works on a stopped node and returns a report; whoever calls it asks first.

use std::fmt;
use std::path::Path;

use raft::{Boot, Configuration, Entry, EntryId, EntryKind, HardState, Index, Member, NodeId};

use crate::dir::{self, FORMAT_VERSION, Format};
use crate::error::OpenError;
use crate::folder::Folder;
use crate::hard_state::HardRecord;
use crate::journal::{self, Database, FolderScan};
use crate::log::{WalChange, base_of};
use crate::mark::{Mark, Slots};
use crate::membership::{self, Memberships};
use crate::open::{self, Mode};
use crate::{ClusterId, Finding, Opened, Options, Paths};

/// What [`inspect`] saw. Printed, it says what would be lost.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// FORMAT, when it is readable.
    pub format: Option<Format>,
    /// The mark.
    pub slots: Slots,
    /// Journals of the log.
    pub log: FolderScan,
    /// Journals of the state tables.
    pub state: FolderScan,
    /// Newest index that the readable journals of the log hold; table files are not counted.
    pub journal_last: Option<Index>,
    /// Members, by the copy beside the log.
    pub members: Vec<Member>,
    /// This node is the only voter.
    pub lone: bool,
}

/// Looks at a folder, changing nothing but its lock.
///
/// # Errors
/// A folder in use, unreadable, or of a newer version.
pub fn inspect(dir: impl AsRef<Path>) -> Result<Inspection, OpenError> {
    let folder = Folder::open(dir)?;
    let paths = &folder.paths;
    let scan = |path: &Path, database| -> Result<FolderScan, OpenError> {
        if !path.is_dir() {
            let missing = vec!["the folder is missing".to_owned()];
            return Ok(FolderScan {
                missing,
                ..FolderScan::default()
            });
        }
        Ok(journal::scan_folder(path, database)?)
    };
    let log = scan(&paths.wal(), Database::Wal)?;
    let state = scan(&paths.state(), Database::State)?;
    let memberships = membership::load(&paths.members()).unwrap_or_default();
    let node = folder.identity().map_or(NodeId(0), |(node, _, _)| node);
    Ok(Inspection {
        format: folder.format,
        slots: folder.slots,
        log,
        state,
        journal_last: last_in_journals(paths)?,
        members: newest(&memberships)
            .map(|it| it.members.values().cloned().collect())
            .unwrap_or_default(),
        lone: membership::is_lone(&memberships, node),
    })
}

/// What [`accept_loss`] or [`force_single`] did.
#[derive(Clone, Debug)]
pub struct Recovery {
    /// What was found and done.
    pub findings: Vec<Finding>,
    /// Last entry of the log now.
    pub last: EntryId,
    /// Up to which entry the log had once been synced, by the mark; `None` when the mark was lost.
    pub synced_before: Option<Index>,
    /// What the state tables hold now.
    pub applied: Index,
    /// The start the repair counted as.
    pub boot: Boot,
}

/// Goes on without what is missing: cuts damage, lifts the suspicion. For a lone node, or for one of a
/// cluster that has lost its quorum of clean nodes.
///
/// # Errors
/// A folder that is in use, of a newer version, or has lost its mark and is a member of a cluster (it
/// must be removed there and start anew: it no longer knows whom it voted for).
pub fn accept_loss(dir: impl AsRef<Path>) -> Result<Recovery, OpenError> {
    if let Some(report) = free_unknown_data(dir.as_ref())? {
        return Ok(report);
    }
    let (opened, synced_before) = repair(dir)?;
    Ok(report(&opened, synced_before))
}

/// Data with neither FORMAT nor mark belongs to nobody: it is moved aside, and the folder is empty.
fn free_unknown_data(dir: &Path) -> Result<Option<Recovery>, OpenError> {
    let folder = Folder::open(dir)?;
    if !matches!(folder.stage(), Err(OpenError::UnknownData { .. })) {
        return Ok(None);
    }
    let paths = &folder.paths;
    let reason = "neither FORMAT nor mark says whose it is".to_owned();
    let mut findings = Vec::new();
    if let Some(moved) = dir::move_aside(paths, &paths.wal())? {
        findings.push(Finding::LogMoved {
            reason: reason.clone(),
            moved,
        });
    }
    for path in [paths.state(), paths.snapshots(), paths.members(), paths.mark()] {
        if let Some(moved) = dir::move_aside(paths, &path)? {
            findings.push(Finding::StateMoved {
                reason: reason.clone(),
                moved,
            });
        }
    }
    let (last, applied, boot) = Default::default();
    Ok(Some(Recovery {
        findings,
        last,
        synced_before: None,
        applied,
        boot,
    }))
}

/// Makes this node the only voter of a cluster of its own, with the data it has: the last resort when a
/// majority is gone for good.
///
/// It gets a new cluster id (draw it at random), so that members of the old cluster that still live
/// somewhere cannot be mixed with it: wipe them and let them join.
///
/// # Errors
/// As [`accept_loss`]; and a node that knows no membership at all cannot be made one.
pub fn force_single(dir: impl AsRef<Path>, cluster_id: ClusterId) -> Result<Recovery, OpenError> {
    let paths = Paths {
        root: dir.as_ref().to_owned(),
    };
    let (mut opened, synced_before) = repair(dir)?;
    let node = opened.identity;
    let address = opened
        .recovered
        .configurations
        .iter()
        .rev()
        .find_map(|(_, configuration)| configuration.members.get(&node.id))
        .map(|member| member.address.clone());
    let Some(address) = address else {
        let what = "a log that names no member".to_owned();
        return Err(OpenError::UnknownData {
            folder: paths.root,
            what,
        });
    };
    let member = Member {
        id: node.id,
        incarnation: node.incarnation,
        address,
    };
    let configuration = Configuration {
        members: [(node.id, member)].into(),
        voters: [node.id].into(),
        outgoing: Default::default(),
    };
    // A term of its own: no leader of the old cluster can have written an entry in it.
    let term = opened.recovered.hard_state.term.next();
    let entry = Entry::seal(
        EntryId {
            term,
            index: opened.recovered.last.index.next(),
        },
        EntryKind::Configuration,
        configuration.encode(),
        opened.recovered.last_checksum,
    );
    opened.recovered.last = entry.id;
    let report = report(&opened, synced_before);
    write_forced(&paths, opened, entry, configuration, cluster_id)?;
    Ok(report)
}

/// The new cluster id first, in the mark: after a crash from then on the node is a stranger to its old
/// cluster, and is forced again. With the membership first it would come up as the only voter of the
/// old cluster, beside members that may still live. Then the log, the whole mark, FORMAT last.
fn write_forced(
    paths: &Paths,
    opened: Opened,
    entry: Entry,
    configuration: Configuration,
    cluster_id: ClusterId,
) -> Result<(), OpenError> {
    let node = opened.identity;
    let mut state = opened.writer.state;
    let term = entry.id.term;
    let hard_state = HardState {
        term,
        vote: None,
        commit: state.hard.commit,
    };
    let synced = base_of(&entry);
    let mark = *state.mark.mark();
    let mark = Mark {
        cluster_id: Some(cluster_id),
        ..mark
    };
    state.mark.write_both(mark)?;
    state.memberships.push((entry.id.index, configuration));
    state.wal.commit(WalChange {
        entries: vec![entry],
        hard: Some(HardRecord {
            hard_state,
            boot: node.boot,
        }),
        ..WalChange::default()
    })?;
    membership::store(&paths.members(), &state.memberships, &state.faults)?;
    state.mark.write_both(Mark {
        term,
        vote: None,
        synced,
        ..mark
    })?;
    let (node_id, incarnation) = (node.id, node.incarnation);
    Format {
        version: FORMAT_VERSION,
        cluster_id,
        node_id,
        incarnation,
    }
    .store(paths, &state.faults)?;
    Ok(())
}

fn repair(dir: impl AsRef<Path>) -> Result<(Opened, Option<Index>), OpenError> {
    let folder = Folder::open(dir)?;
    let synced_before = match folder.slots {
        Slots::Read { mark, .. } => Some(mark.synced.id.index),
        Slots::Missing | Slots::Lost => None,
    };
    Ok((
        open::open(folder, Options::default(), Mode::AcceptLoss)?,
        synced_before,
    ))
}

fn report(opened: &Opened, synced_before: Option<Index>) -> Recovery {
    Recovery {
        findings: opened.findings.clone(),
        last: opened.recovered.last,
        synced_before,
        applied: opened.recovered.applied,
        boot: opened.identity.boot,
    }
}

fn newest(memberships: &Memberships) -> Option<&Configuration> {
    memberships.last().map(|(_, configuration)| configuration)
}

fn last_in_journals(paths: &Paths) -> Result<Option<Index>, OpenError> {
    let Ok(entries) = std::fs::read_dir(paths.wal()) else {
        return Ok(None);
    };
    let mut last = None;
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.extension().is_none_or(|extension| extension != "jnl") {
            continue;
        }
        let content = journal::read_content(&path)?;
        journal::scan_items(&content, &mut |item| {
            if let (Ok(key), false) = (<[u8; 8]>::try_from(item.key), item.removed) {
                last = last.max(Some(Index(u64::from_be_bytes(key))));
            }
        });
    }
    Ok(last)
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        match self.synced_before {
            Some(index) => writeln!(f, "the log had been synced up to entry {index}")?,
            None => writeln!(
                f,
                "how far the log had been synced is not known: the mark was lost"
            )?,
        }
        write!(
            f,
            "it now ends at entry {} of term {}; the state holds entry {}",
            self.last.index, self.last.term, self.applied
        )
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.format {
            Some(format) => writeln!(
                f,
                "folder: format {}, node {}, cluster {}",
                format.version, format.node_id, format.cluster_id
            )?,
            None => writeln!(f, "folder: the FORMAT file is missing")?,
        }
        match &self.slots {
            Slots::Missing => writeln!(f, "mark: missing; votes and acknowledgements are forgotten")?,
            Slots::Lost => {
                writeln!(
                    f,
                    "mark: both slots unreadable; votes and acknowledgements are forgotten"
                )?;
            }
            Slots::Read { mark, one_bad, .. } => fmt_mark(f, mark, *one_bad)?,
        }
        let members: Vec<String> = self
            .members
            .iter()
            .map(|member| format!("{} ({})", member.id, member.address))
            .collect();
        writeln!(
            f,
            "members: {}{}",
            members.join(", "),
            if self.lone {
                "; this node is the only voter"
            } else {
                ""
            }
        )?;
        if let Some(last) = self.journal_last {
            writeln!(f, "log: its journals hold entries up to {last}")?;
        }
        fmt_scan(f, "log", &self.log)?;
        fmt_scan(f, "state", &self.state)
    }
}

fn fmt_mark(f: &mut fmt::Formatter<'_>, mark: &Mark, one_bad: bool) -> fmt::Result {
    write!(
        f,
        "mark: boot {}, term {}, synced up to entry {} of term {}",
        mark.boot, mark.term, mark.synced.id.index, mark.synced.id.term
    )?;
    if let Some(since) = mark.suspicion {
        write!(
            f,
            "; SUSPECT since boot {since}: what was acknowledged may be missing"
        )?;
    }
    writeln!(f, "{}", if one_bad { "; one slot is unreadable" } else { "" })
}

fn fmt_scan(f: &mut fmt::Formatter<'_>, name: &str, scan: &FolderScan) -> fmt::Result {
    writeln!(f, "{name}: {} intact batches in its journals", scan.batches)?;
    for cut in &scan.torn {
        let bytes = cut.ends_at.saturating_sub(cut.offset);
        writeln!(
            f,
            "{name}: {} ends in an unfinished write of {bytes} bytes; it is cut at the next start",
            cut.path.display()
        )?;
    }
    if scan.is_damaged() {
        writeln!(
            f,
            "{name}: DAMAGED: {}; everything behind the damage would be lost",
            scan.describe()
        )?;
    }
    Ok(())
}
