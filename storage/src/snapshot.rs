//! Snapshot files: all rows of the state tables at one applied point.
//!
//! A file is written under a temporary name, synced, renamed, and its folder synced; so a file that has
//! its name is complete. It is made of a header, blocks that are chained by crc32, and a trailer (byte
//! tables: docs/storage-format.md). Its name carries the crc32 of the whole file.
//!
//! Only the newest is kept. A transfer that still reads an older one holds it open, so its removal does
//! not disturb the transfer.

mod stream;

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use raft::{ChunkWrite, Configuration, LogBase, SnapshotMeta};

use crate::dir;
use crate::error::StorageError;
use crate::fault::{Faults, Point};
use crate::table::TablesView;

use stream::SnapshotWriter;
pub use stream::{BLOCK_BYTES, SnapshotStream, StreamError};

/// A file that is being received is synced each time it has grown by this much, so that its last piece
/// does not wait for all of it.
const RECEIVE_SYNC_BYTES: u64 = 16 << 20;

/// Snapshots held open for transfers.
const OPEN_MAX: usize = 4;

/// The snapshots of a folder. Cheap to clone.
#[derive(Clone)]
pub struct Snapshots(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    faults: Faults,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    latest: Option<SnapshotFile>,
    /// Files that transfers read, newest first; verified when they were opened.
    open: Vec<SnapshotFile>,
}

impl Snapshots {
    /// Lists the folder: takes the newest file, removes older ones and pieces of unfinished ones, and returns the files
    /// whose name or header cannot be read.
    pub(crate) fn open(folder: &Path, faults: &Faults) -> Result<(Snapshots, Vec<PathBuf>), StorageError> {
        dir::make_folder(folder)?;
        let error = |source| StorageError::file("cannot read", folder, source);
        let mut files: Vec<SnapshotFile> = Vec::new();
        let mut damaged = Vec::new();
        for entry in fs::read_dir(folder).map_err(error)? {
            let path = entry.map_err(error)?.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                // A piece of a file that was being made or received: worthless without the rest.
                Some("tmp") => fs::remove_file(&path).map_err(error)?,
                Some("snapshot") => match SnapshotFile::open(&path) {
                    Ok(file) => files.push(file),
                    Err(StorageError::SnapshotDamaged { .. }) => damaged.push(path),
                    Err(error) => return Err(error),
                },
                _ => {}
            }
        }
        files.sort_by_key(|file| (file.meta.last.index, file.meta.last.term));
        let latest = files.pop();
        for older in files {
            // A crash between a new name and the removal of the old one left it.
            fs::remove_file(&older.path).map_err(error)?;
        }
        let state = State {
            latest,
            open: Vec::new(),
        };
        let inner = Inner {
            folder: folder.to_owned(),
            faults: faults.clone(),
            state: Mutex::new(state),
        };
        Ok((Snapshots(Arc::new(inner)), damaged))
    }

    /// The newest complete snapshot.
    pub fn latest(&self) -> Option<SnapshotMeta> {
        self.state().latest.as_ref().map(|file| file.meta.clone())
    }

    /// The file of a snapshot; `None` when it was replaced by a newer one.
    pub fn file(&self, meta: &SnapshotMeta) -> Option<SnapshotFile> {
        self.state()
            .latest
            .as_ref()
            .filter(|file| file.meta == *meta)
            .cloned()
    }

    /// The newest file.
    pub(crate) fn latest_file(&self) -> Option<SnapshotFile> {
        self.state().latest.clone()
    }

    /// Writes the rows of `view` into a new file. `configuration` is the membership in force at the
    /// view's point. When the newest snapshot stands at this point already, it is the answer.
    ///
    /// # Errors
    /// A failed disk; nothing is left behind but a temporary file, which the next open removes.
    pub fn make(
        &self,
        view: &TablesView,
        configuration: &Configuration,
    ) -> Result<SnapshotMeta, StorageError> {
        let point = view.applied();
        if let Some(meta) = self.latest().filter(|meta| meta.last == point.id) {
            return Ok(meta);
        }
        let tmp = self.0.folder.join("making.tmp");
        let error = |source| StorageError::file("cannot write", &tmp, source);
        self.fault(Point::SnapshotWrite)?;
        let mut writer = SnapshotWriter::create(&tmp, point, configuration).map_err(error)?;
        for row in view.rows_from_first_table() {
            let (key, value) = row?;
            writer.row(&key, &value).map_err(error)?;
        }
        let (file, size_bytes, file_checksum) = writer.finish().map_err(error)?;
        let meta = SnapshotMeta {
            last: point.id,
            checksum: point.checksum,
            configuration: configuration.clone(),
            size_bytes,
            file_checksum,
        };
        self.give_name(&tmp, &file, meta.clone())?;
        Ok(meta)
    }

    /// A piece of a snapshot for a peer: at most `len` bytes from `offset` on, fewer at its end. `None`
    /// when the snapshot is gone (replaced, or found damaged): the transfer starts anew with another.
    ///
    /// The first read of a snapshot verifies all of it, so that what rotted here never travels.
    ///
    /// # Errors
    /// A failed disk.
    pub fn read_chunk(
        &self,
        meta: &SnapshotMeta,
        offset: u64,
        len: usize,
    ) -> Result<Option<Bytes>, StorageError> {
        let Some(file) = self.open_for_transfer(meta)? else {
            return Ok(None);
        };
        let left = meta.size_bytes.saturating_sub(offset);
        let mut bytes = vec![0; usize::try_from(left).unwrap_or(usize::MAX).min(len)];
        let read = file.file.read_exact_at(&mut bytes, offset);
        read.map_err(|source| StorageError::file("cannot read", &file.path, source))?;
        Ok(Some(bytes.into()))
    }

    fn open_for_transfer(&self, meta: &SnapshotMeta) -> Result<Option<SnapshotFile>, StorageError> {
        let (known, file) = {
            let state = self.state();
            let open = state.open.iter().find(|file| file.meta == *meta).cloned();
            (open, state.latest.clone().filter(|file| file.meta == *meta))
        };
        if known.is_some() {
            return Ok(known);
        }
        let Some(file) = file else { return Ok(None) };
        match file.verify() {
            Ok(()) => {
                let mut state = self.state();
                state.open.insert(0, file.clone());
                state.open.truncate(OPEN_MAX);
                Ok(Some(file))
            }
            Err(StorageError::SnapshotDamaged { path, reason }) => {
                tracing::error!(path = %path.display(), reason, "a snapshot has rotted; a new one is made");
                self.state().latest = None;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Writes a piece of a snapshot that is being received; the last one verifies the whole, syncs it
    /// and gives it its name.
    pub(crate) fn receive(
        &self,
        receiver: &mut Option<Receiver>,
        chunk: &ChunkWrite,
    ) -> Result<(), StorageError> {
        if self.latest().as_ref() == Some(&chunk.meta) {
            return Ok(());
        }
        self.fault(Point::SnapshotWrite)?;
        if chunk.offset == 0 && !chunk.data.is_empty() {
            *receiver = Some(Receiver::create(
                &self.0.folder.join("receiving.tmp"),
                chunk.meta.clone(),
            )?);
        }
        let path = self.0.folder.join("receiving.tmp");
        let Some(active) = receiver.as_mut().filter(|active| active.meta == chunk.meta) else {
            return Err(StorageError::SnapshotDamaged {
                path,
                reason: "a piece without its beginning",
            });
        };
        active.append(chunk)?;
        if !chunk.last {
            return Ok(());
        }
        let Some(complete) = receiver.take() else {
            return Ok(());
        };
        complete.verify()?;
        self.give_name(&complete.path, &complete.file, complete.meta.clone())
    }

    /// Syncs a complete file, renames it, syncs the folder, makes it the newest and removes older ones.
    fn give_name(&self, tmp: &Path, file: &File, meta: SnapshotMeta) -> Result<(), StorageError> {
        let path = self.0.folder.join(file_name(&meta));
        let error = |source| StorageError::file("cannot write", &path, source);
        self.fault(Point::SnapshotSync)?;
        file.sync_all().map_err(error)?;
        self.fault(Point::SnapshotRename)?;
        fs::rename(tmp, &path).map_err(error)?;
        self.fault(Point::SnapshotRenamed)?;
        dir::sync_folder(&self.0.folder)?;
        let opened = SnapshotFile {
            file: Arc::new(File::open(&path).map_err(error)?),
            meta,
            path,
        };
        let older = {
            let mut state = self.state();
            let newer = state
                .latest
                .as_ref()
                .is_some_and(|latest| latest.meta.last.index > opened.meta.last.index);
            if newer {
                Some(opened)
            } else {
                state.latest.replace(opened)
            }
        };
        // Its removal needs no sync: an older snapshot that comes back is never the newest.
        if let Some(older) = older
            && self
                .latest()
                .is_some_and(|latest| file_name(&latest) != file_name(&older.meta))
            && let Err(error) = fs::remove_file(&older.path)
        {
            tracing::warn!(path = %older.path.display(), %error, "an old snapshot could not be removed");
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fault(&self, point: Point) -> Result<(), StorageError> {
        self.0
            .faults
            .at(point)
            .map_err(|source| StorageError::file("cannot write", &self.0.folder, source))
    }
}

/// A snapshot that is being received.
pub(crate) struct Receiver {
    meta: SnapshotMeta,
    path: PathBuf,
    file: File,
    /// Bytes written so far; the next piece starts here.
    offset: u64,
    /// Bytes at the last sync.
    synced: u64,
    hasher: crc32fast::Hasher,
}

impl Receiver {
    fn create(path: &Path, meta: SnapshotMeta) -> Result<Receiver, StorageError> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path);
        let file = file.map_err(|source| StorageError::file("cannot create", path, source))?;
        let hasher = crc32fast::Hasher::new();
        Ok(Receiver {
            meta,
            path: path.to_owned(),
            file,
            offset: 0,
            synced: 0,
            hasher,
        })
    }

    /// Appends the part of the piece that is new; a piece seen before changes nothing.
    fn append(&mut self, chunk: &ChunkWrite) -> Result<(), StorageError> {
        let damaged = |reason| StorageError::SnapshotDamaged {
            path: self.path.clone(),
            reason,
        };
        let skip = self
            .offset
            .checked_sub(chunk.offset)
            .ok_or_else(|| damaged("a piece is missing"))?;
        let skip = usize::try_from(skip).unwrap_or(usize::MAX).min(chunk.data.len());
        let new = chunk.data.slice(skip..);
        if self.offset + new.len() as u64 > self.meta.size_bytes {
            return Err(damaged("it is longer than announced"));
        }
        let error = |source| StorageError::file("cannot write", &self.path, source);
        self.file.write_all_at(&new, self.offset).map_err(error)?;
        self.hasher.update(&new);
        self.offset += new.len() as u64;
        if self.offset - self.synced >= RECEIVE_SYNC_BYTES {
            self.file.sync_data().map_err(error)?;
            self.synced = self.offset;
        }
        Ok(())
    }

    /// Size, checksum and header are what was announced.
    fn verify(&self) -> Result<(), StorageError> {
        let damaged = |reason| StorageError::SnapshotDamaged {
            path: self.path.clone(),
            reason,
        };
        if self.offset != self.meta.size_bytes {
            return Err(damaged("its size is not the announced one"));
        }
        if self.hasher.clone().finalize() != self.meta.file_checksum {
            return Err(damaged("its checksum is not the announced one"));
        }
        let reader = ReadAt {
            file: &self.file,
            offset: 0,
        };
        let stream = SnapshotStream::new(reader, self.meta.size_bytes).map_err(|error| match error {
            StreamError::Damaged(reason) => damaged(reason),
            StreamError::Io(source) => StorageError::file("cannot read", &self.path, source),
        })?;
        let point = LogBase {
            id: self.meta.last,
            checksum: self.meta.checksum,
        };
        if stream.point() != point || stream.configuration() != &self.meta.configuration {
            return Err(damaged("its header is not the announced one"));
        }
        Ok(())
    }
}

/// A complete snapshot file, open.
#[derive(Clone, Debug)]
pub struct SnapshotFile {
    meta: SnapshotMeta,
    path: PathBuf,
    file: Arc<File>,
}

impl SnapshotFile {
    /// Reads name and header; the blocks are verified by [`SnapshotFile::verify`].
    pub fn open(path: &Path) -> Result<SnapshotFile, StorageError> {
        let error = |source| StorageError::file("cannot read", path, source);
        let damaged = |reason| StorageError::SnapshotDamaged {
            path: path.to_owned(),
            reason,
        };
        let file = File::open(path).map_err(error)?;
        let size_bytes = file.metadata().map_err(error)?.len();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let file_checksum = name_checksum(name).ok_or_else(|| damaged("its name is not one"))?;
        let stream = SnapshotStream::new(
            ReadAt {
                file: &file,
                offset: 0,
            },
            size_bytes,
        );
        let stream = stream.map_err(|cause| match cause {
            StreamError::Damaged(reason) => damaged(reason),
            StreamError::Io(source) => error(source),
        })?;
        let point = stream.point();
        let configuration = stream.configuration().clone();
        let meta = SnapshotMeta {
            last: point.id,
            checksum: point.checksum,
            configuration,
            size_bytes,
            file_checksum,
        };
        if file_name(&meta) != name {
            return Err(damaged("its name is that of another one"));
        }
        Ok(SnapshotFile {
            meta,
            path: path.to_owned(),
            file: Arc::new(file),
        })
    }

    /// What it is.
    pub fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    /// The point it stands at.
    pub fn point(&self) -> LogBase {
        LogBase {
            id: self.meta.last,
            checksum: self.meta.checksum,
        }
    }

    /// Reads the whole file and compares its checksum.
    ///
    /// # Errors
    /// [`StorageError::SnapshotDamaged`], or a failed disk.
    pub fn verify(&self) -> Result<(), StorageError> {
        let mut hasher = crc32fast::Hasher::new();
        let mut buffer = vec![0u8; BLOCK_BYTES];
        let mut reader = ReadAt {
            file: &self.file,
            offset: 0,
        };
        loop {
            let read = reader.read(&mut buffer);
            let read = read.map_err(|source| StorageError::file("cannot read", &self.path, source))?;
            if read == 0 {
                break;
            }
            hasher.update(buffer.get(..read).unwrap_or_default());
        }
        if hasher.finalize() != self.meta.file_checksum || reader.offset != self.meta.size_bytes {
            let reason = "its checksum does not fit";
            return Err(StorageError::SnapshotDamaged {
                path: self.path.clone(),
                reason,
            });
        }
        Ok(())
    }

    /// The rows, ascending; every block is checked before its rows are given out.
    pub(crate) fn rows(
        &self,
    ) -> Result<impl Iterator<Item = Result<(Bytes, Bytes), StorageError>> + '_, StorageError> {
        let convert = |error| match error {
            StreamError::Damaged(reason) => StorageError::SnapshotDamaged {
                path: self.path.clone(),
                reason,
            },
            StreamError::Io(source) => StorageError::file("cannot read", &self.path, source),
        };
        let stream = SnapshotStream::new(
            ReadAt {
                file: &self.file,
                offset: 0,
            },
            self.meta.size_bytes,
        );
        Ok(stream.map_err(convert)?.map(move |row| row.map_err(convert)))
    }
}

/// `<index>-<term>-<crc32 of the file>.snapshot`
fn file_name(meta: &SnapshotMeta) -> String {
    format!(
        "{:020}-{:020}-{:08x}.snapshot",
        meta.last.index.0, meta.last.term.0, meta.file_checksum
    )
}

fn name_checksum(name: &str) -> Option<u32> {
    u32::from_str_radix(name.strip_suffix(".snapshot")?.rsplit('-').next()?, 16).ok()
}

/// Reads a shared file from an offset of its own.
struct ReadAt<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for ReadAt<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}
