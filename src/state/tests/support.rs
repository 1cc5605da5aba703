//! A node's state on a real folder, and a log to feed it with.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, mpsc};

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use proto::command as wire;
use raft::{
    Boot, ChunkWrite, Configuration, Entry, EntryId, EntryKind, HardState, Incarnation, Index, LogBase,
    Member, NodeId, Persist, SnapshotMeta, Term, Token,
};
use storage::{ClusterId, Completion, Folder, Opened, Options, Snapshots, Table, Volume, WriterHandle};
use tempfile::TempDir;

use crate::config::{Origin, Publish};
use crate::model::{ConfigKey, NamespaceId, OperationId};
use crate::state::{COMMAND_LEVEL, Command, ENVELOPE_VERSION, Outcome, Reader, State};

/// Members with these ids; the incarnation of each is ten times its id.
pub(super) fn members(ids: &[u64]) -> Configuration {
    let member = |id: &u64| {
        let address = format!("127.0.0.1:{id}");
        (
            NodeId(*id),
            Member {
                id: NodeId(*id),
                incarnation: Incarnation(id * 10),
                address,
            },
        )
    };
    Configuration {
        members: ids.iter().map(member).collect(),
        voters: ids.iter().map(|id| NodeId(*id)).collect(),
        ..Configuration::default()
    }
}

pub(super) fn key(data_id: &str) -> ConfigKey {
    ConfigKey::new(&NamespaceId::default(), "g", data_id)
}

pub(super) fn origin(now_ms: i64) -> Origin {
    Origin {
        now_ms,
        user: "u".into(),
        ip: "127.0.0.1".into(),
        message: String::new(),
        history_max: 100,
    }
}

pub(super) fn put(data_id: &str, content: &str, now_ms: i64) -> Command {
    Command::ConfigPut(Box::new(Publish::new(
        key(data_id),
        content.to_owned(),
        origin(now_ms),
    )))
}

pub(super) fn put_without_md5() -> wire::envelope::Command {
    let key = Some(wire::ConfigKey {
        namespace: String::new(),
        group: "g".into(),
        data_id: "d".into(),
    });
    wire::envelope::Command::ConfigPut(wire::ConfigPut {
        key,
        origin: Some(wire::Origin::default()),
        ..wire::ConfigPut::default()
    })
}

/// The session of this start of a node.
pub(super) fn session(node: u64, boot: u64) -> OperationId {
    OperationId {
        node: NodeId(node),
        incarnation: Incarnation(node * 10),
        boot: Boot(boot),
        counter: 0,
    }
}

/// A log that grows, and the session that proposes into it.
pub(super) struct Log {
    pub(super) entries: Vec<Entry>,
    pub(super) session: OperationId,
    pub(super) low_watermark: u64,
}

impl Log {
    pub(super) fn new(founding: Entry) -> Log {
        Log {
            entries: vec![founding],
            session: session(1, 1),
            low_watermark: 1,
        }
    }

    pub(super) fn last_index(&self) -> Index {
        self.last().index()
    }

    fn last(&self) -> &Entry {
        self.entries.last().expect("the founding entry")
    }

    pub(super) fn entry(&mut self, kind: EntryKind, payload: Bytes) -> Entry {
        let last = self.last();
        let id = EntryId {
            term: last.term(),
            index: last.index().next(),
        };
        let entry = Entry::seal(id, kind, payload, last.checksum);
        self.entries.push(entry.clone());
        entry
    }

    /// The next command of the session.
    pub(super) fn command(&mut self, command: Command) -> Entry {
        self.session.counter += 1;
        self.command_as(command, self.session, self.low_watermark)
    }

    pub(super) fn command_as(
        &mut self,
        command: Command,
        operation: OperationId,
        low_watermark: u64,
    ) -> Entry {
        self.entry(EntryKind::Command, command.encode(operation, low_watermark))
    }

    /// An envelope as no proposer of this version makes it: a put, then changed.
    pub(super) fn raw(&mut self, change: impl FnOnce(&mut wire::Envelope)) -> Entry {
        self.session.counter += 1;
        let bytes = put("raw", "raw", 1).encode(self.session, self.low_watermark);
        let mut envelope = wire::Envelope::decode(bytes.slice(1..)).expect("an envelope");
        assert_eq!(envelope.level, COMMAND_LEVEL);
        change(&mut envelope);
        let mut payload = BytesMut::new();
        payload.put_u8(ENVELOPE_VERSION);
        envelope.encode(&mut payload).expect("room");
        self.entry(EntryKind::Command, payload.freeze())
    }

    /// The newest command once more, as a retry would bring it.
    pub(super) fn repeat_last_command(&mut self) -> Entry {
        let newest = self
            .entries
            .iter()
            .rev()
            .find(|entry| entry.kind == EntryKind::Command);
        let payload = newest.expect("a command").payload.clone();
        self.entry(EntryKind::Command, payload)
    }
}

/// A folder, the state on it, and how far its log is written.
pub(super) struct Node {
    open: Option<Open>,
    written: LogBase,
    dir: Arc<TempDir>,
}

struct Open {
    state: State,
    writer: WriterHandle,
    completions: mpsc::Receiver<Completion>,
    snapshots: Snapshots,
    token: u64,
}

impl Node {
    /// A founder that has applied its founding entry.
    pub(super) fn founder() -> (Node, Log) {
        let dir = TempDir::new().expect("a folder");
        form(dir.path(), 1, Some(&members(&[1])));
        let opened = open(dir.path());
        let mut entries = opened
            .reader
            .entries(Index(1)..Index(2), usize::MAX)
            .expect("the founding entry");
        let founding = entries.remove(0);
        let mut node = Node::start(opened, Arc::new(dir));
        node.state_mut()
            .apply(std::slice::from_ref(&founding))
            .map(drop)
            .expect("applies");
        (node, Log::new(founding))
    }

    /// A founder with the session of node 1 opened.
    pub(super) fn with_session() -> (Node, Log) {
        let (mut node, mut log) = Node::founder();
        let entry = log.command(Command::OpenSession);
        let done = node.state_mut().apply(&[entry]).expect("applies");
        assert_eq!(done.applied[0].outcome, Outcome::SessionOpened);
        (node, log)
    }

    /// A node with an empty log, as one that joins.
    pub(super) fn joining(id: u64) -> Node {
        let dir = TempDir::new().expect("a folder");
        form(dir.path(), id, None);
        let opened = open(dir.path());
        Node::start(opened, Arc::new(dir))
    }

    fn start(opened: Opened, dir: Arc<TempDir>) -> Node {
        let (completed, completions) = mpsc::channel();
        // The receiver is gone only when the test is over.
        let writer = opened
            .writer
            .start(move |completion| drop(completed.send(completion)))
            .expect("a thread");
        let (state, _) = State::open(opened.tables).expect("opens");
        let recovered = &opened.recovered;
        assert_eq!(recovered.suspicion, None, "suspect: {:?}", opened.findings);
        let written = LogBase {
            id: recovered.last,
            checksum: recovered.last_checksum,
        };
        let open = Open {
            state,
            writer,
            completions,
            snapshots: opened.snapshots,
            token: 0,
        };
        Node {
            open: Some(open),
            written,
            dir,
        }
    }

    fn open(&self) -> &Open {
        self.open.as_ref().expect("open")
    }

    fn open_mut(&mut self) -> &mut Open {
        self.open.as_mut().expect("open")
    }

    pub(super) fn state(&self) -> &State {
        &self.open().state
    }

    pub(super) fn state_mut(&mut self) -> &mut State {
        &mut self.open_mut().state
    }

    pub(super) fn reader(&self) -> Arc<Reader> {
        self.state().reader().clone()
    }

    pub(super) fn snapshots(&self) -> &Snapshots {
        &self.open().snapshots
    }

    /// Every row of every table, as a snapshot would carry them.
    pub(super) fn rows(&self) -> BTreeMap<(u8, Bytes), Bytes> {
        let tables = self.state().tables();
        let rows =
            (1..=u8::MAX).flat_map(|table| tables.scan(Table(table), &[]).map(move |row| (table, row)));
        rows.map(|(table, row)| row.map(|(key, value)| ((table, key), value)).expect("reads"))
            .collect()
    }

    /// Writes the log up to the applied point, as the log writer has before anything is applied; then
    /// closes everything and opens it again: as planned, with everything stored, or (where the applied
    /// index is odd) as after a crash, which takes rows that the log brings back.
    pub(super) fn restart(mut self, log: &Log) -> Node {
        let applied = self.state().applied().id.index;
        if applied.0.is_multiple_of(2) {
            self.state().sync().expect("stored");
        }
        let missing: Vec<Entry> = log
            .entries
            .iter()
            .filter(|entry| entry.index() > self.written.id.index && entry.index() <= applied)
            .cloned()
            .collect();
        if let Some(last) = missing.last() {
            let hard_state = Some(HardState {
                term: last.term(),
                vote: None,
                commit: last.index(),
            });
            self.persist(Persist {
                entries: missing,
                hard_state,
                ..Persist::default()
            });
        }
        let dir = self.dir.clone();
        let open = self.open.take().expect("open");
        open.writer.close();
        drop((open.state, open.snapshots));
        let mut node = Node::start(open_again(dir.path()), dir);
        let stored = node.state().applied().id.index;
        let of_range = |entry: &&Entry| entry.index() > stored && entry.index() <= applied;
        let again: Vec<Entry> = log.entries.iter().filter(of_range).cloned().collect();
        let _done = node.state_mut().apply(&again).expect("applies again");
        assert_eq!(node.state().applied().id.index, applied);
        node
    }

    /// Takes a snapshot in piece by piece and starts the log after it.
    pub(super) fn receive(&mut self, from: &Snapshots, meta: &SnapshotMeta) {
        const PIECE: usize = 10_000;
        let mut offset = 0;
        while offset < meta.size_bytes {
            let data = from
                .read_chunk(meta, offset, PIECE)
                .expect("a piece")
                .expect("the snapshot is there");
            let end = offset + data.len() as u64;
            let chunk = ChunkWrite {
                meta: meta.clone(),
                offset,
                data,
                last: end == meta.size_bytes,
            };
            self.persist(Persist {
                chunk: Some(chunk),
                ..Persist::default()
            });
            offset = end;
        }
        let hard_state = HardState {
            term: Term(meta.last.term.0),
            vote: None,
            commit: meta.last.index,
        };
        self.persist(Persist {
            reset_to: Some(meta.clone()),
            hard_state: Some(hard_state),
            ..Persist::default()
        });
        self.written = LogBase {
            id: meta.last,
            checksum: meta.checksum,
        };
    }

    fn persist(&mut self, persist: Persist) {
        let open = self.open_mut();
        open.token += 1;
        let token = Token(open.token);
        open.writer.submit(Persist { token, ..persist });
        loop {
            match open.completions.recv().expect("the writer lives") {
                Completion::Persisted { token: done, .. } if done == token => return,
                Completion::Failed(error) => panic!("{error}"),
                _ => {}
            }
        }
    }
}

fn form(dir: &Path, id: u64, founding: Option<&Configuration>) {
    let mut folder = Folder::open(dir).expect("a folder");
    let cluster_id = ClusterId(0x5eed);
    folder
        .begin(NodeId(id), Incarnation(id * 10), Some(cluster_id))
        .expect("begins");
    folder.finish(cluster_id, founding).expect("finishes");
}

fn open(dir: &Path) -> Opened {
    open_again(dir)
}

/// Plenty of room, whatever the machine's disk says.
fn open_again(dir: &Path) -> Opened {
    let volume = Volume {
        free_bytes: 1 << 40,
        total_bytes: 1 << 41,
    };
    let options = Options {
        space_probe: Some(Arc::new(move || Ok(volume))),
        ..Options::default()
    };
    Folder::open(dir)
        .expect("a folder")
        .start(options)
        .unwrap_or_else(|error| panic!("does not open: {error}"))
}

/// splitmix64: a seed means the same for ever.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `end`.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True once in `n` times.
    pub(super) fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of these words.
    pub(super) fn word(&mut self, from: &[&'static str]) -> &'static str {
        from[self.below(from.len() as u64) as usize]
    }

    pub(super) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}
