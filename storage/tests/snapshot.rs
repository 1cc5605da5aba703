//! Snapshots: made, sent in pieces, installed; with a crash at every step of it.

use std::io::Cursor;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use raft::{
    Body, Boot, ChunkWrite, HardState, Heartbeat, Incarnation, Index, Message, NodeId, Persist, Sender,
    SnapshotMeta, SnapshotReply, Space, Term,
};
use storage::fault::{Faults, Point};
use storage::snapshot::SnapshotStream;
use storage::{Completion, SnapshotFile, StorageError, Table};

use crate::support::{Node, copy_folder, form, members, open, temp_dir};

const ROWS: u64 = 20;

/// A node with 20 applied entries and a snapshot of them.
fn source() -> (tempfile::TempDir, Node, SnapshotMeta) {
    let dir = temp_dir();
    form(dir.path(), &[1, 2]);
    let mut node = Node::open(dir.path());
    for n in 2..=ROWS {
        node.append(1, &[format!("row {n}").as_bytes()]).unwrap();
    }
    node.apply_to(ROWS);
    let meta = node
        .snapshots
        .make(&node.tables.view(), &members(&[1, 2]))
        .unwrap();
    assert_eq!(meta.last.index, Index(ROWS));
    (dir, node, meta)
}

fn pieces(node: &Node, meta: &SnapshotMeta, len: usize) -> Vec<ChunkWrite> {
    let mut pieces = Vec::new();
    let mut offset = 0;
    while offset < meta.size_bytes {
        let data = node.snapshots.read_chunk(meta, offset, len).unwrap().unwrap();
        let end = offset + data.len() as u64;
        pieces.push(ChunkWrite {
            meta: meta.clone(),
            offset,
            data,
            last: end == meta.size_bytes,
        });
        offset = end;
    }
    pieces
}

fn rows(node: &Node) -> Vec<Bytes> {
    node.tables
        .scan(Table(1), b"")
        .map(|row| row.unwrap().1)
        .collect()
}

/// A follower with another history: some applied entries, more that are not (up to `last`), rows the
/// snapshot lacks.
fn follower(dir: &Path, last: u64) {
    form(dir, &[1, 2]);
    let mut node = Node::open(dir);
    node.append(1, &[b"row 2", b"row 3"]).unwrap();
    for _ in 4..=last {
        node.append(1, &[b"theirs"]).unwrap();
    }
    node.apply_to(3);
    let mut batch = node.tables.batch();
    batch.put(Table(9), b"only here", "x");
    let point = node.point(4);
    batch.commit(point).unwrap();
    node.tables.sync().unwrap();
    node.close();
}

fn receive(node: &mut Node, pieces: &[ChunkWrite]) -> Result<(), String> {
    for piece in pieces {
        node.persist(Persist {
            chunk: Some(piece.clone()),
            ..Persist::default()
        })?;
    }
    Ok(())
}

fn reset(node: &mut Node, meta: &SnapshotMeta) -> Result<(), String> {
    node.last = raft::LogBase {
        id: meta.last,
        checksum: meta.checksum,
    };
    let hard_state = HardState {
        term: Term(2),
        vote: None,
        ..node.hard_state
    };
    let reset_to = Some(meta.clone());
    node.persist(Persist {
        reset_to,
        hard_state: Some(hard_state),
        ..Persist::default()
    })
}

#[test]
fn r15_a_snapshot_travels_in_pieces_and_replaces_log_and_rows() {
    let (_dir, source, meta) = source();
    let dir = temp_dir();
    follower(dir.path(), 5);
    let mut node = Node::open(dir.path());
    let mut pieces = pieces(&source, &meta, 100);
    // Pieces that come twice change nothing.
    pieces.insert(2, pieces[1].clone());
    receive(&mut node, &pieces).unwrap();
    assert_eq!(node.snapshots.latest().as_ref(), Some(&meta));
    reset(&mut node, &meta).unwrap();
    let file = node.snapshots.file(&meta).unwrap();
    assert_eq!(node.tables.install(&file).unwrap().id.index, Index(ROWS));
    assert_eq!(rows(&node), rows(&source));
    assert_eq!(node.tables.get(Table(9), b"only here").unwrap(), None);
    node.append(2, &[b"next"]).unwrap();
    node.close();
    let node = Node::open(dir.path());
    assert_eq!(node.recovered.base.id.index, Index(ROWS));
    assert_eq!(node.recovered.last.index, Index(ROWS + 1));
    assert_eq!(node.recovered.applied, Index(ROWS));
    assert_eq!(node.recovered.suspicion, None, "{:?}", node.findings);
    assert_eq!(
        node.recovered.configurations,
        vec![(Index(ROWS), members(&[1, 2]))]
    );
}

#[test]
fn r15_r26_r27_a_crash_at_every_step_of_an_install_is_finished_or_begun_anew() {
    install_with_crashes(5);
}

/// The mark lies beyond the snapshot: it must be lowered to it first.
#[test]
fn r44_an_install_that_discards_entries_up_to_the_mark_makes_nobody_suspect() {
    install_with_crashes(ROWS + 10);
}

fn install_with_crashes(last: u64) {
    let (_dir, source, meta) = source();
    let (dir, album) = (temp_dir(), temp_dir());
    follower(dir.path(), last);
    let (from, to) = (dir.path().to_owned(), album.path().to_owned());
    let images: Arc<Mutex<Vec<(Point, bool)>>> = Arc::default();
    let reset_acknowledged = Arc::new(Mutex::new(false));
    let (taken, acknowledged) = (images.clone(), reset_acknowledged.clone());
    let faults = Faults::new(move |point| {
        let mut images = taken.lock().unwrap();
        copy_folder(&from, &to.join(images.len().to_string()));
        images.push((point, *acknowledged.lock().unwrap()));
        Ok(())
    });
    let mut node = Node::open_with(dir.path(), faults);
    receive(&mut node, &pieces(&source, &meta, 300)).unwrap();
    reset(&mut node, &meta).unwrap();
    *reset_acknowledged.lock().unwrap() = true;
    let file = node.snapshots.file(&meta).unwrap();
    node.tables.install(&file).unwrap();
    node.close();
    let images = images.lock().unwrap();
    for point in [
        Point::SnapshotRename,
        Point::SnapshotRenamed,
        Point::InstallBegun,
        Point::InstallPart,
    ] {
        assert!(
            images.iter().any(|(seen, _)| *seen == point),
            "{point:?} was never met"
        );
    }
    for (n, (point, acknowledged)) in images.iter().enumerate() {
        let opened = open(&album.path().join(n.to_string()));
        let node = Node::start(opened.unwrap_or_else(|error| panic!("image {n} at {point:?}: {error}")));
        assert_eq!(
            node.recovered.suspicion, None,
            "image {n} at {point:?}: {:?}",
            node.findings
        );
        let at_snapshot = node.recovered.applied == Index(ROWS);
        assert!(
            at_snapshot || !acknowledged,
            "image {n} at {point:?}: the reset is forgotten"
        );
        if at_snapshot {
            assert_eq!(rows(&node), rows(&source), "image {n} at {point:?}");
            assert_eq!(node.recovered.last.index, Index(ROWS));
        } else {
            assert_eq!(node.recovered.last.index, Index(last), "image {n} at {point:?}");
            assert_eq!(node.recovered.applied, Index(4), "image {n} at {point:?}");
        }
        node.close();
    }
}

#[test]
fn r15_without_its_snapshot_a_state_behind_the_log_is_suspect() {
    let (dir, node, meta) = source();
    node.tables.sync().unwrap();
    node.close();
    let mut node = Node::open(dir.path());
    node.tables.sync().unwrap();
    let compact_to = Some(node.point(ROWS));
    node.persist(Persist {
        compact_to,
        ..Persist::default()
    })
    .unwrap();
    node.close();
    // The state is lost; the snapshot meets the log: rebuilt, and clean.
    std::fs::remove_dir_all(dir.path().join("state")).unwrap();
    let opened = open(dir.path()).unwrap();
    assert_eq!(
        (opened.recovered.suspicion, opened.recovered.applied),
        (None, Index(ROWS))
    );
    drop(opened);
    // Without the snapshot too, nothing is left to go on from.
    std::fs::remove_dir_all(dir.path().join("state")).unwrap();
    std::fs::remove_dir_all(dir.path().join("snapshots")).unwrap();
    let opened = open(dir.path()).unwrap();
    assert!(opened.recovered.suspicion.is_some());
    assert_eq!(opened.recovered.base.id.index, Index(0));
    assert_eq!(opened.recovered.last.index, Index(0));
    assert!(opened.recovered.hard_state.term >= meta.last.term);
}

#[test]
fn every_flipped_bit_of_a_snapshot_is_found() {
    let (_dir, node, meta) = source();
    let bytes = node
        .snapshots
        .read_chunk(&meta, 0, usize::MAX)
        .unwrap()
        .unwrap()
        .to_vec();
    let read = |bytes: &[u8]| -> Result<u64, String> {
        let stream = SnapshotStream::new(Cursor::new(bytes), bytes.len() as u64);
        let mut rows = 0;
        for row in stream.map_err(|error| error.to_string())? {
            row.map_err(|error| error.to_string())?;
            rows += 1;
        }
        Ok(rows)
    };
    assert_eq!(read(&bytes), Ok(ROWS));
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(read(&flipped).is_err(), "bit {bit} passed");
    }
    for length in 0..bytes.len() {
        assert!(read(&bytes[..length]).is_err(), "cut at {length} passed");
    }
}

#[test]
fn what_rotted_here_never_travels_and_a_torn_piece_is_no_snapshot() {
    let (dir, node, meta) = source();
    let folder = dir.path().join("snapshots");
    let path = std::fs::read_dir(&folder)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    assert!(matches!(
        SnapshotFile::open(&path).unwrap().verify(),
        Err(StorageError::SnapshotDamaged { .. })
    ));
    assert_eq!(node.snapshots.read_chunk(&meta, 0, 100).unwrap(), None);
    // A new one is made in its place.
    let again = node
        .snapshots
        .make(&node.tables.view(), &members(&[1, 2]))
        .unwrap();
    assert_eq!(again, meta);
    assert!(node.snapshots.read_chunk(&meta, 0, 100).unwrap().is_some());
    node.close();
    std::fs::write(folder.join("receiving.tmp"), b"half").unwrap();
    std::fs::write(&path, &bytes[..10]).unwrap();
    let opened = open(dir.path()).unwrap();
    assert_eq!(opened.recovered.snapshot, None);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    assert_eq!(opened.findings.len(), 1, "{:?}", opened.findings);
}

/// What another node sends wrong is no fault of this disk: it is told, gets no name, nobody hears that it is
/// here, and the same snapshot sent again is taken.
#[test]
fn a_snapshot_that_arrives_damaged_is_refused_and_taken_when_it_comes_again() {
    let (_dir, source, meta) = source();
    let dir = temp_dir();
    follower(dir.path(), 5);
    let mut node = Node::open(dir.path());
    let pieces = pieces(&source, &meta, 100);
    let mut damaged = pieces.clone();
    let mut data = damaged[1].data.to_vec();
    data[50] ^= 1;
    damaged[1].data = Bytes::from(data);
    let (last, others) = damaged.split_last().unwrap();
    receive(&mut node, others).unwrap();
    let sender = Sender {
        id: NodeId(2),
        incarnation: Incarnation(20),
        boot: Boot(1),
        suspicion: None,
        space: Space::Ample,
    };
    let answer = |body| {
        let message = Message {
            sender,
            term: Term(1),
            body,
        };
        (NodeId(1), message)
    };
    let here = answer(Body::SnapshotReply(SnapshotReply {
        last: meta.last,
        next_offset: meta.size_bytes,
        installed: None,
    }));
    let other = answer(Body::Heartbeat(Heartbeat {
        commit: Index(0),
        round: 1,
    }));
    node.submit(Persist {
        chunk: Some(last.clone()),
        then_send: vec![here, other.clone()],
        ..Persist::default()
    });
    let refused = node.completed(|completion| match completion {
        Completion::SnapshotRefused { meta, .. } => Some(meta),
        _ => None,
    });
    assert_eq!(refused, meta);
    let sent = node.completed(|completion| match completion {
        Completion::Persisted { then_send, .. } => Some(then_send),
        _ => None,
    });
    assert_eq!(sent, [other]);
    assert_eq!(node.snapshots.latest(), None);
    node.append(1, &[b"the log goes on"]).unwrap();
    receive(&mut node, &pieces).unwrap();
    assert_eq!(node.snapshots.latest(), Some(meta));
}

#[test]
fn a_newer_snapshot_replaces_the_older_one_and_a_running_transfer_goes_on() {
    let (dir, mut node, old) = source();
    let beginning = node.snapshots.read_chunk(&old, 0, 50).unwrap().unwrap();
    node.append(1, &[b"one more"]).unwrap();
    node.apply_to(ROWS + 1);
    let new = node
        .snapshots
        .make(&node.tables.view(), &members(&[1, 2]))
        .unwrap();
    assert_eq!(node.snapshots.latest().as_ref(), Some(&new));
    assert_eq!(
        std::fs::read_dir(dir.path().join("snapshots")).unwrap().count(),
        1
    );
    assert_eq!(
        node.snapshots.read_chunk(&old, 0, 50).unwrap().unwrap(),
        beginning
    );
    assert!(node.snapshots.file(&old).is_none());
}

#[test]
fn an_older_snapshot_left_by_a_crash_is_removed_at_the_next_start() {
    let (dir, mut node, old) = source();
    let folder = dir.path().join("snapshots");
    let old_path = std::fs::read_dir(&folder)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let bytes = std::fs::read(&old_path).unwrap();
    node.append(1, &[b"one more"]).unwrap();
    node.apply_to(ROWS + 1);
    let new = node
        .snapshots
        .make(&node.tables.view(), &members(&[1, 2]))
        .unwrap();
    assert_ne!(new, old);
    node.close();
    std::fs::write(&old_path, bytes).unwrap();
    let node = Node::open(dir.path());
    assert_eq!(node.snapshots.latest(), Some(new));
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
}
