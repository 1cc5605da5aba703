//! Names in the data folder, its lock, its FORMAT file, and moving things aside.
//!
//! Nothing that was ever written for the user is deleted here: what cannot be used is moved into
//! `aside/` and named in a [`crate::Finding`].

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use raft::{Incarnation, NodeId};

use crate::ClusterId;
use crate::error::{OpenError, StorageError};
use crate::fault::{Faults, Point};

/// Newest format of the folder as a whole that this version reads and writes.
pub const FORMAT_VERSION: u32 = 1;

/// Where things lie.
#[derive(Clone, Debug)]
pub struct Paths {
    /// The data folder.
    pub root: PathBuf,
}

impl Paths {
    /// The log: a fjall database of its own.
    pub fn wal(&self) -> PathBuf {
        self.root.join("wal")
    }

    /// The state tables: another fjall database.
    pub fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    /// Snapshot files.
    pub fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    /// The mark.
    pub fn mark(&self) -> PathBuf {
        self.root.join("mark")
    }

    /// A copy of the memberships in the log.
    pub fn members(&self) -> PathBuf {
        self.root.join("members")
    }

    /// Written last when a folder is formed.
    pub fn format(&self) -> PathBuf {
        self.root.join("FORMAT")
    }

    /// Held for the life of the process.
    pub fn lock(&self) -> PathBuf {
        self.root.join("LOCK")
    }

    /// What could not be used.
    pub fn aside(&self) -> PathBuf {
        self.root.join("aside")
    }
}

/// The lock on a data folder; released when dropped, and by the kernel when the process dies.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock and writes this process's id into it for whoever is refused.
    pub(crate) fn take(paths: &Paths) -> Result<Lock, OpenError> {
        let path = paths.lock();
        let error = |source| OpenError::io("cannot lock", &path, source);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        let mut file = file.map_err(error)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // Only for the message: an unreadable id is "unknown", the refusal stands.
                let _ = (&mut file).take(32).read_to_string(&mut pid);
                let pid = if pid.trim().is_empty() {
                    "unknown"
                } else {
                    pid.trim()
                }
                .to_owned();
                return Err(OpenError::Locked {
                    folder: paths.root.clone(),
                    pid,
                });
            }
            Err(fs::TryLockError::Error(source)) => return Err(error(source)),
        }
        file.set_len(0).map_err(error)?;
        writeln!(file, "{}", std::process::id()).map_err(error)?;
        Ok(Lock { _file: file })
    }
}

/// Refuses a folder of r-nacos (its raft store keeps `index`, `log_N` and `snapshot_N` in the data
/// folder itself), before anything is created in it.
pub(crate) fn refuse_foreign(paths: &Paths) -> Result<(), OpenError> {
    if paths.format().exists() || paths.mark().exists() {
        return Ok(());
    }
    let listing = fs::read_dir(&paths.root);
    let listing = listing.map_err(|source| OpenError::io("cannot read", &paths.root, source))?;
    for entry in listing {
        let entry = entry.map_err(|source| OpenError::io("cannot read", &paths.root, source))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let numbered = |prefix: &str| {
            name.strip_prefix(prefix)
                .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
        };
        let file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if file && (name == "index" || numbered("log_") || numbered("snapshot_")) {
            return Err(OpenError::ForeignFolder {
                folder: paths.root.clone(),
                file: name,
            });
        }
    }
    Ok(())
}

/// What FORMAT says. Besides the version it repeats the identity, so that a folder that has lost its
/// mark can still be told whose it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Version of the folder.
    pub version: u32,
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The node.
    pub node_id: NodeId,
    /// Its incarnation.
    pub incarnation: Incarnation,
}

impl Format {
    /// The text of the file: one `name value` per line, so that a reader of any version finds the
    /// version, and a crc32 of the lines before it.
    fn to_text(self) -> String {
        let body = format!(
            "rnacos-format {}\ncluster {}\nnode {}\nincarnation {}\n",
            self.version, self.cluster_id, self.node_id, self.incarnation
        );
        let crc = crc32fast::hash(body.as_bytes());
        format!("{body}crc32 {crc:08x}\n")
    }

    /// Reads the text. The version comes first and is believed before anything else is understood.
    pub fn parse(text: &str, path: &Path, folder: &Path) -> Result<Format, OpenError> {
        let damaged = |reason| OpenError::FormatDamaged {
            path: path.to_owned(),
            reason,
        };
        let mut lines = text.lines();
        let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        let version = field("rnacos-format").and_then(|value| value.parse::<u32>().ok());
        let version = version.ok_or_else(|| damaged("it does not start with a version"))?;
        if version > FORMAT_VERSION {
            return Err(OpenError::NewerFormat {
                folder: folder.to_owned(),
                found: version,
                known: FORMAT_VERSION,
            });
        }
        let cluster_id = field("cluster").and_then(|value| value.parse().ok());
        let node_id = field("node").and_then(|value| value.parse().ok());
        let incarnation = field("incarnation").and_then(|value| value.parse().ok());
        let (Some(cluster_id), Some(node_id), Some(incarnation)) = (cluster_id, node_id, incarnation) else {
            return Err(damaged("a line is missing"));
        };
        let format = Format {
            version,
            cluster_id,
            node_id: NodeId(node_id),
            incarnation: Incarnation(incarnation),
        };
        if version == 0 || format.to_text() != text {
            return Err(damaged("its checksum does not fit"));
        }
        Ok(format)
    }

    /// Reads the file; `None` when there is none.
    pub(crate) fn load(paths: &Paths) -> Result<Option<Format>, OpenError> {
        let path = paths.format();
        match fs::read(&path) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                Format::parse(&text, &path, &paths.root).map(Some)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(OpenError::io("cannot read", path, error)),
        }
    }

    pub(crate) fn store(self, paths: &Paths, faults: &Faults) -> Result<(), StorageError> {
        replace_file(&paths.format(), self.to_text().as_bytes(), faults)
    }
}

/// Makes `bytes` the content of `path`, all or nothing: a new file beside it, synced, renamed over it,
/// and the folder synced (else a power cut may bring the old name back, hazard R27).
pub(crate) fn replace_file(path: &Path, bytes: &[u8], faults: &Faults) -> Result<(), StorageError> {
    let mut tmp = path.as_os_str().to_owned();
    tmp.push(".tmp");
    let tmp = PathBuf::from(tmp);
    let error = |source| StorageError::file("cannot write", path, source);
    let mut file = File::create(&tmp).map_err(error)?;
    file.write_all(bytes).map_err(error)?;
    file.sync_all().map_err(error)?;
    faults.at(Point::FileRename).map_err(error)?;
    fs::rename(&tmp, path).map_err(error)?;
    faults.at(Point::FileRenamed).map_err(error)?;
    match path.parent() {
        Some(folder) => sync_folder(folder),
        None => Ok(()),
    }
}

/// Makes the names in `folder` durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), StorageError> {
    let error = |source| StorageError::file("cannot sync", folder, source);
    File::open(folder).map_err(error)?.sync_all().map_err(error)
}

/// Creates `folder` and the folders above it that are missing, and makes each of these names durable
/// (hazard R26: else a power cut may take away the whole folder, with everything synced in it).
pub(crate) fn make_folder(folder: &Path) -> Result<(), StorageError> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = match folder.parent() {
        // A single relative name lies in the working directory.
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => folder,
    };
    make_folder(parent)?;
    match fs::create_dir(folder) {
        // Made by someone else meanwhile.
        Err(_) if folder.is_dir() => {}
        created => created.map_err(|source| StorageError::file("cannot create", folder, source))?,
    }
    sync_folder(parent)
}

/// A name in `aside/` that is not taken yet: `<number>-<name>`.
pub(crate) fn aside_path(paths: &Paths, name: &str) -> Result<PathBuf, StorageError> {
    let folder = paths.aside();
    make_folder(&folder)?;
    let error = |source| StorageError::file("cannot read", &folder, source);
    let mut highest = 0u64;
    for entry in fs::read_dir(&folder).map_err(error)? {
        let name = entry.map_err(error)?.file_name();
        let number = name
            .to_string_lossy()
            .split('-')
            .next()
            .and_then(|number| number.parse().ok());
        highest = highest.max(number.unwrap_or(0));
    }
    Ok(folder.join(format!("{:06}-{name}", highest + 1)))
}

/// Moves `path` into `aside/` and says where it went; `None` when it was not there.
pub(crate) fn move_aside(paths: &Paths, path: &Path) -> Result<Option<PathBuf>, StorageError> {
    if !path.exists() {
        return Ok(None);
    }
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let target = aside_path(paths, &name)?;
    fs::rename(path, &target).map_err(|source| StorageError::file("cannot move", path, source))?;
    sync_folder(&paths.aside())?;
    sync_folder(&paths.root)?;
    Ok(Some(target))
}
