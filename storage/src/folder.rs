//! The data folder before it is opened: whose it is, how far its forming got, and forming it.
//!
//! Forming is three durable steps, in this order: the mark (who this node is), `wal/` and `state/`,
//! FORMAT. A crash between any two is finished or begun anew by the next start (hazard R47), and only
//! ever by moving aside what holds nothing.

use std::path::Path;
use std::sync::Arc;

use raft::{Checksum, Configuration, Entry, EntryId, EntryKind, HardState, Incarnation, Index, NodeId, Term};

use crate::dir::{self, FORMAT_VERSION, Format, Lock, Paths};
use crate::error::{OpenError, StorageError};
use crate::fault::{Faults, Point};
use crate::hard_state::{BaseRecord, HardRecord};
use crate::journal;
use crate::log::{Wal, WalChange, base_of};
use crate::mark::{Mark, MarkFile, Slots};
use crate::open::{self, Mode};
use crate::table::Tables;
use crate::{ClusterId, Opened, Options, codec, membership};

/// A locked data folder.
#[derive(Debug)]
pub struct Folder {
    pub(crate) paths: Paths,
    pub(crate) lock: Arc<Lock>,
    pub(crate) faults: Faults,
    pub(crate) format: Option<Format>,
    pub(crate) slots: Slots,
}

/// How far the forming of a folder got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing is there: the node decides whether it founds or joins.
    Empty,
    /// This node has decided who it is; [`Folder::finish`] completes the folder.
    Begun {
        /// The node.
        node_id: NodeId,
        /// The incarnation drawn for it.
        incarnation: Incarnation,
        /// The cluster; `None` when a joining node has not been told yet.
        cluster_id: Option<ClusterId>,
    },
    /// Complete: [`Folder::start`] opens it.
    Formed,
}

impl Folder {
    /// Locks the folder, making it when it is missing, and looks at what it is. Changes nothing else.
    ///
    /// # Errors
    /// Taken by another process, unreadable, of r-nacos, of a newer version, or holding data that
    /// belongs to nobody: each with the next step in its text.
    pub fn open(dir: impl AsRef<Path>) -> Result<Folder, OpenError> {
        Folder::open_with(dir, Faults::default())
    }

    /// As [`Folder::open`], with a test's faults.
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub fn open_with(dir: impl AsRef<Path>, faults: Faults) -> Result<Folder, OpenError> {
        let paths = Paths {
            root: dir.as_ref().to_owned(),
        };
        dir::make_folder(&paths.root).map_err(|error| match error {
            StorageError::File { what, path, source } => OpenError::io(what, path, source),
            other => other.into(),
        })?;
        dir::refuse_foreign(&paths)?;
        let lock = Arc::new(Lock::take(&paths)?);
        let format = Format::load(&paths)?;
        let slots = Slots::read(&paths.mark())?;
        Ok(Folder {
            paths,
            lock,
            faults,
            format,
            slots,
        })
    }

    /// How far the forming got.
    ///
    /// # Errors
    /// [`OpenError::UnknownData`] when neither FORMAT nor mark is there and yet there is data.
    pub fn stage(&self) -> Result<Stage, OpenError> {
        if self.format.is_some() {
            return Ok(Stage::Formed);
        }
        match self.slots {
            Slots::Read { mark, .. } if mark.boot.0 > 0 => Ok(Stage::Formed),
            Slots::Read { mark, .. } => Ok(Stage::Begun {
                node_id: mark.node_id,
                incarnation: mark.incarnation,
                cluster_id: mark.cluster_id,
            }),
            Slots::Missing | Slots::Lost => {
                self.refuse_data()?;
                Ok(Stage::Empty)
            }
        }
    }

    /// Makes it durable who this node is. Only on an empty folder; what an interrupted forming left is
    /// moved aside.
    ///
    /// # Errors
    /// A folder in another stage, or a failed disk.
    pub fn begin(
        &mut self,
        node_id: NodeId,
        incarnation: Incarnation,
        cluster_id: Option<ClusterId>,
    ) -> Result<(), OpenError> {
        if self.stage()? != Stage::Empty {
            return Err(self.wrong_stage("empty"));
        }
        for leftover in [self.paths.wal(), self.paths.state(), self.paths.mark()] {
            dir::move_aside(&self.paths, &leftover)?;
        }
        let mark = Mark {
            cluster_id,
            node_id,
            incarnation,
            ..Mark::default()
        };
        MarkFile::create(&self.paths.mark(), mark, &self.faults)?;
        self.slots = Slots::read(&self.paths.mark())?;
        self.fault(Point::FormationMark)
    }

    /// Makes `wal/` and `state/`, and FORMAT last. A founder gives the membership that becomes entry 1
    /// of term 1; a joining node gives none and starts with an empty log.
    ///
    /// # Errors
    /// A folder in another stage, data where there should be none, or a failed disk.
    pub fn finish(
        &mut self,
        cluster_id: ClusterId,
        founding: Option<&Configuration>,
    ) -> Result<(), OpenError> {
        let Stage::Begun {
            node_id, incarnation, ..
        } = self.stage()?
        else {
            return Err(self.wrong_stage("begun"));
        };
        self.refuse_data()?;
        for leftover in [self.paths.wal(), self.paths.state()] {
            dir::move_aside(&self.paths, &leftover)?;
        }
        let first = founding.map(founding_entry);
        self.make_wal(first.as_ref())?;
        self.fault(Point::FormationWal)?;
        drop(Tables::open(&self.paths.state(), &self.faults, &self.lock)?);
        dir::make_folder(&self.paths.snapshots())?;
        dir::sync_folder(&self.paths.root)?;
        self.fault(Point::FormationState)?;
        let memberships = founding.map(|configuration| (Index(1), configuration.clone()));
        membership::store(&self.paths.members(), memberships.as_slice(), &self.faults)?;
        let Slots::Read { mark, sequence, .. } = self.slots else {
            return Err(self.wrong_stage("begun"));
        };
        let mut file = MarkFile::open(&self.paths.mark(), mark, sequence, &self.faults)?;
        let synced = first.as_ref().map(base_of).unwrap_or_default();
        let cluster_id_known = Some(cluster_id);
        file.write_both(Mark {
            cluster_id: cluster_id_known,
            term: synced.id.term,
            synced,
            ..mark
        })?;
        let format = Format {
            version: FORMAT_VERSION,
            cluster_id,
            node_id,
            incarnation,
        };
        format.store(&self.paths, &self.faults)?;
        self.format = Some(format);
        self.slots = Slots::read(&self.paths.mark())?;
        Ok(())
    }

    /// Opens a formed folder: checks everything, repairs what a crash may leave, and starts a new boot.
    ///
    /// # Errors
    /// See [`OpenError`]; each tells the next step.
    pub fn start(self, options: Options) -> Result<Opened, OpenError> {
        open::open(self, options, Mode::Normal)
    }

    /// The identity the folder has, from the mark or else from FORMAT.
    pub fn identity(&self) -> Option<(NodeId, Incarnation, Option<ClusterId>)> {
        match (self.slots, self.format) {
            (Slots::Read { mark, .. }, _) => Some((mark.node_id, mark.incarnation, mark.cluster_id)),
            (_, Some(format)) => Some((format.node_id, format.incarnation, Some(format.cluster_id))),
            _ => None,
        }
    }

    /// Makes the log: hard state and base always stand in it, so that their absence later is damage.
    fn make_wal(&self, first: Option<&Entry>) -> Result<(), StorageError> {
        let wal = Wal::open(&self.paths.wal(), &self.lock)?;
        let term = first.map_or(Term(0), |entry| entry.id.term);
        let commit = first.map_or(Index(0), |entry| entry.id.index);
        let hard_state = HardState {
            term,
            vote: None,
            commit,
        };
        wal.commit(WalChange {
            entries: first.cloned().into_iter().collect(),
            removed: Vec::new(),
            hard: Some(HardRecord {
                hard_state,
                ..HardRecord::default()
            }),
            base: Some(BaseRecord::default()),
        })
    }

    /// Refuses `wal/` and `state/` that hold more than the forming itself puts there.
    fn refuse_data(&self) -> Result<(), OpenError> {
        match data_in(&self.paths)? {
            Some(what) => Err(OpenError::UnknownData {
                folder: self.paths.root.clone(),
                what,
            }),
            None => Ok(()),
        }
    }

    fn wrong_stage(&self, needed: &'static str) -> OpenError {
        let found = match self.stage() {
            Ok(Stage::Empty) => "empty",
            Ok(Stage::Begun { .. }) => "begun",
            Ok(Stage::Formed) | Err(_) => "formed",
        };
        OpenError::WrongStage {
            folder: self.paths.root.clone(),
            found,
            needed,
        }
    }

    fn fault(&self, point: Point) -> Result<(), OpenError> {
        self.faults
            .at(point)
            .map_err(|source| OpenError::io("cannot form", &self.paths.root, source))
    }
}

/// Entry 1 of a new cluster.
fn founding_entry(configuration: &Configuration) -> Entry {
    let id = EntryId {
        term: Term(1),
        index: Index(1),
    };
    Entry::seal(id, EntryKind::Configuration, configuration.encode(), Checksum(0))
}

/// What the folder holds beyond what an interrupted forming leaves, in words.
pub(crate) fn data_in(paths: &Paths) -> Result<Option<String>, StorageError> {
    for (folder, name) in [(paths.wal(), "wal"), (paths.state(), "state")] {
        if has_tables(&folder) {
            return Ok(Some(format!("{name}/ has table files")));
        }
        for journal in journals_in(&folder)? {
            let content = journal::read_content(&journal)?;
            let mut more = false;
            let scan = journal::scan_items(&content, &mut |item| {
                more |= name == "state" || !is_formation_item(&item);
            });
            // A bad batch is what a crash while forming leaves, unless something follows it.
            if more || scan.bad.is_some_and(|bad| bad.batches_after > 0) {
                return Ok(Some(format!("{name}/ has entries")));
            }
        }
    }
    let snapshots = std::fs::read_dir(paths.snapshots()).is_ok_and(|mut files| files.next().is_some());
    Ok(snapshots.then(|| "snapshots/ has files".to_owned()))
}

/// Something [`Folder::finish`] writes into a new log.
fn is_formation_item(item: &journal::Item<'_>) -> bool {
    match <[u8; 8]>::try_from(item.key).map(u64::from_be_bytes) {
        Ok(index) => {
            let entry = codec::decode_slice(item.value);
            index == 1 && entry.is_ok_and(|(entry, _)| entry.kind == EntryKind::Configuration)
        }
        Err(_) => true,
    }
}

fn journals_in(folder: &Path) -> Result<Vec<std::path::PathBuf>, StorageError> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Ok(Vec::new());
    };
    let mut journals = Vec::new();
    for entry in entries {
        let path = entry
            .map_err(|source| StorageError::file("cannot read", folder, source))?
            .path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            journals.push(path);
        }
    }
    Ok(journals)
}

/// True when a keyspace besides fjall's own (number 0) has a table file.
fn has_tables(database: &Path) -> bool {
    let Ok(keyspaces) = std::fs::read_dir(database.join("keyspaces")) else {
        return false;
    };
    keyspaces
        .flatten()
        .filter(|keyspace| keyspace.file_name() != "0")
        .any(|keyspace| {
            std::fs::read_dir(keyspace.path().join("tables")).is_ok_and(|mut tables| tables.next().is_some())
        })
}
