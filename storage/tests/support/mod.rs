//! A small driver: forms folders, appends, and speaks to the log writer as the runtime does.

use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use bytes::Bytes;
use raft::{
    Configuration, Entry, EntryId, EntryKind, HardState, Incarnation, Index, LogBase, Member, NodeId,
    Persist, Term, Token,
};
use storage::fault::Faults;
use storage::{
    ClusterId, Completion, Folder, LogReader, OpenError, Opened, Options, Snapshots, Tables, WriterHandle,
};

pub(crate) const CLUSTER: ClusterId = ClusterId(0xc1);
pub(crate) const NODE: NodeId = NodeId(1);
pub(crate) const INCARNATION: Incarnation = Incarnation(77);

/// Nothing a test waits for takes longer; only a broken one meets it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A membership of these voters.
pub(crate) fn members(ids: &[u64]) -> Configuration {
    let member = |id: &u64| {
        let address = format!("10.0.0.{id}:9848");
        (
            NodeId(*id),
            Member {
                id: NodeId(*id),
                incarnation: INCARNATION,
                address,
            },
        )
    };
    Configuration {
        members: ids.iter().map(member).collect(),
        voters: ids.iter().map(|id| NodeId(*id)).collect(),
        outgoing: Default::default(),
    }
}

/// Forms a folder whose first entry is the membership of `ids`; this node is 1.
pub(crate) fn form(dir: &Path, ids: &[u64]) {
    form_with(dir, ids, Faults::default()).expect("a folder can be formed");
}

pub(crate) fn form_with(dir: &Path, ids: &[u64], faults: Faults) -> Result<(), OpenError> {
    let mut folder = Folder::open_with(dir, faults)?;
    if folder.stage()? == storage::Stage::Empty {
        folder.begin(NODE, INCARNATION, Some(CLUSTER))?;
    }
    folder.finish(CLUSTER, Some(&members(ids)))
}

pub(crate) fn open(dir: &Path) -> Result<Opened, OpenError> {
    open_with(dir, Faults::default())
}

pub(crate) fn open_with(dir: &Path, faults: Faults) -> Result<Opened, OpenError> {
    Folder::open_with(dir, faults)?.start(options())
}

/// Plenty of room, whatever the disk of the machine says.
pub(crate) fn options() -> Options {
    let volume = storage::Volume {
        free_bytes: 1 << 40,
        total_bytes: 1 << 41,
    };
    Options {
        space_probe: Some(std::sync::Arc::new(move || Ok(volume))),
        ..Options::default()
    }
}

/// A running node's storage, with the end of its log in hand.
pub(crate) struct Node {
    pub(crate) handle: Option<WriterHandle>,
    pub(crate) completions: Receiver<Completion>,
    pub(crate) reader: LogReader,
    pub(crate) tables: Tables,
    pub(crate) snapshots: Snapshots,
    pub(crate) recovered: raft::Recovered,
    pub(crate) identity: raft::Identity,
    pub(crate) findings: Vec<storage::Finding>,
    pub(crate) last: LogBase,
    pub(crate) hard_state: HardState,
    token: u64,
}

impl Node {
    pub(crate) fn start(opened: Opened) -> Node {
        let (completed, completions) = mpsc::channel();
        let last = LogBase {
            id: opened.recovered.last,
            checksum: opened.recovered.last_checksum,
        };
        let hard_state = opened.recovered.hard_state;
        let handle = opened.writer.start(move |completion| {
            let _ = completed.send(completion);
        });
        Node {
            handle: Some(handle.expect("a thread")),
            completions,
            reader: opened.reader,
            tables: opened.tables,
            snapshots: opened.snapshots,
            recovered: opened.recovered,
            identity: opened.identity,
            findings: opened.findings,
            last,
            hard_state,
            token: 0,
        }
    }

    pub(crate) fn open(dir: &Path) -> Node {
        Node::start(open(dir).unwrap_or_else(|error| panic!("does not open: {error}")))
    }

    pub(crate) fn open_with(dir: &Path, faults: Faults) -> Node {
        Node::start(open_with(dir, faults).unwrap_or_else(|error| panic!("does not open: {error}")))
    }

    /// The next entries after the end of the log.
    pub(crate) fn next_entries(&mut self, term: u64, payloads: &[&[u8]]) -> Vec<Entry> {
        payloads
            .iter()
            .map(|payload| self.next_entry(term, EntryKind::Command, payload))
            .collect()
    }

    pub(crate) fn next_entry(&mut self, term: u64, kind: EntryKind, payload: &[u8]) -> Entry {
        let id = EntryId {
            term: Term(term),
            index: self.last.id.index.next(),
        };
        let entry = Entry::seal(id, kind, Bytes::copy_from_slice(payload), self.last.checksum);
        self.last = LogBase {
            id,
            checksum: entry.checksum,
        };
        entry
    }

    /// Submits without waiting; gives the token.
    pub(crate) fn submit(&mut self, persist: Persist) -> Token {
        self.token += 1;
        let token = Token(self.token);
        if let Some(hard_state) = persist.hard_state {
            self.hard_state = hard_state;
        }
        self.handle
            .as_ref()
            .expect("running")
            .submit(Persist { token, ..persist });
        token
    }

    /// Waits until `token` is completed; `Err` when the writer failed first.
    pub(crate) fn wait(&self, token: Token) -> Result<(), String> {
        loop {
            match self.completions.recv_timeout(PATIENCE).expect("an answer") {
                Completion::Persisted { token: done, .. } if done >= token => return Ok(()),
                Completion::Failed(error) => return Err(error.to_string()),
                Completion::Persisted { .. } | Completion::SnapshotRefused { .. } | Completion::Space(_) => {}
            }
        }
    }

    /// Waits for a completion that `wanted` takes.
    pub(crate) fn completed<T>(&self, wanted: impl Fn(Completion) -> Option<T>) -> T {
        loop {
            let completion = self.completions.recv_timeout(PATIENCE).expect("an answer");
            if let Some(found) = wanted(completion) {
                return found;
            }
        }
    }

    pub(crate) fn persist(&mut self, persist: Persist) -> Result<(), String> {
        let token = self.submit(persist);
        self.wait(token)
    }

    /// Appends commands of `term` and waits for them.
    pub(crate) fn append(&mut self, term: u64, payloads: &[&[u8]]) -> Result<(), String> {
        let entries = self.next_entries(term, payloads);
        let newer = self.hard_state.term < Term(term);
        let hard_state = newer.then_some(HardState {
            term: Term(term),
            vote: None,
            ..self.hard_state
        });
        self.persist(Persist {
            entries,
            hard_state,
            ..Persist::default()
        })
    }

    /// Cuts the log after `index` and goes on from there.
    pub(crate) fn truncation(&mut self, from: u64) -> Index {
        self.last = self.point(from - 1);
        Index(from)
    }

    /// The entry at `index` as a base.
    pub(crate) fn point(&self, index: u64) -> LogBase {
        if Index(index) == self.recovered.base.id.index {
            return self.recovered.base;
        }
        let entries = self
            .reader
            .entries(Index(index)..Index(index + 1), usize::MAX)
            .expect("an entry");
        LogBase {
            id: entries[0].id,
            checksum: entries[0].checksum,
        }
    }

    pub(crate) fn vote(&mut self, term: u64, vote: u64) -> Result<(), String> {
        let hard_state = HardState {
            term: Term(term),
            vote: Some(NodeId(vote)),
            ..self.hard_state
        };
        self.persist(Persist {
            hard_state: Some(hard_state),
            ..Persist::default()
        })
    }

    /// Applies everything up to `index`: a row per entry in table 1.
    pub(crate) fn apply_to(&self, index: u64) {
        let (batch, point) = self.applying(index);
        batch.commit(point).expect("applied");
    }

    /// The same, through fjall's journal, as versions did that gathered no rows.
    pub(crate) fn apply_journaled_to(&self, index: u64) {
        let (batch, point) = self.applying(index);
        batch.commit_journaled(point).expect("applied");
    }

    fn applying(&self, index: u64) -> (storage::TablesBatch, LogBase) {
        let from = self.tables.applied().id.index.next();
        let entries = self
            .reader
            .entries(from..Index(index + 1), usize::MAX)
            .expect("entries");
        let mut batch = self.tables.batch();
        for entry in &entries {
            batch.put(
                storage::Table(1),
                &entry.id.index.0.to_be_bytes(),
                entry.payload.clone(),
            );
        }
        let last = entries.last().expect("at least one");
        let point = LogBase {
            id: last.id,
            checksum: last.checksum,
        };
        (batch, point)
    }

    /// Ends the writer and gives up all handles, so that the folder can be opened again.
    pub(crate) fn close(mut self) {
        if let Some(handle) = self.handle.take() {
            handle.close();
        }
    }

    pub(crate) fn payloads(&self) -> Vec<Vec<u8>> {
        let first = self.reader.first();
        let end = Index(self.recovered.last.index.0.max(self.last.id.index.0) + 1);
        if first >= end {
            return Vec::new();
        }
        let entries = self.reader.entries(first..end, usize::MAX).expect("entries");
        entries.iter().map(|entry| entry.payload.to_vec()).collect()
    }
}

/// Everything below `from`, copied as a crash of the process would leave it.
pub(crate) fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("readable").flatten() {
        let target = to.join(entry.file_name());
        match entry.file_type().expect("a type") {
            kind if kind.is_dir() => copy_folder(&entry.path(), &target),
            _ => {
                // A file may vanish between the listing and the copy: fjall's worker cleans up.
                if let Ok(bytes) = read_sparse(&entry.path()) {
                    write_sparse(&target, &bytes.0, bytes.1);
                }
            }
        }
    }
}

/// The content without its trailing hole, and the full length.
pub(crate) fn read_sparse(path: &Path) -> std::io::Result<(Vec<u8>, u64)> {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    let mut end = 0;
    while let Ok(data) = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(end)) {
        end = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(data))?;
    }
    let mut bytes = vec![0; end as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok((bytes, length))
}

/// The content without the zeros at its end.
pub(crate) fn content(path: &Path) -> Vec<u8> {
    let (mut bytes, _) = read_sparse(path).expect("readable");
    let end = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    bytes.truncate(end);
    bytes
}

/// A folder in memory where there is one: these tests sync often and mean the order, not the disk.
pub(crate) fn temp_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a folder")
}

pub(crate) fn write_sparse(path: &Path, bytes: &[u8], length: u64) {
    std::fs::write(path, bytes).expect("written");
    std::fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|file| file.set_len(length))
        .expect("sized");
}

/// The newest journal of a database folder.
pub(crate) fn newest_journal(database: &Path) -> std::path::PathBuf {
    let mut journals: Vec<(u64, std::path::PathBuf)> = std::fs::read_dir(database)
        .expect("readable")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jnl"))
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().parse().unwrap(), path))
        .collect();
    journals.sort();
    journals.pop().expect("a journal").1
}
