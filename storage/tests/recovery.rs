//! A healthy life: form, write, close, open.

use crate::support::{Node, form, members, temp_dir};
use raft::{Index, LogBase, NodeId, Persist, Space, Term};
use storage::{Completion, ReadError, Table, Volume};

#[test]
fn r16_what_was_completed_is_there_after_a_restart() {
    let dir = temp_dir();
    form(dir.path(), &[1]);
    let mut node = Node::open(dir.path());
    assert_eq!(node.identity.boot.0, 1);
    assert_eq!(node.recovered.configurations, vec![(Index(1), members(&[1]))]);
    assert_eq!(node.recovered.last.index, Index(1));
    node.append(1, &[b"a", b"b"]).unwrap();
    node.vote(2, 1).unwrap();
    node.append(2, &[b"c"]).unwrap();
    node.apply_to(3);
    node.tables.sync().unwrap();
    node.apply_to(4);
    node.close();

    let node = Node::open(dir.path());
    assert_eq!(node.identity.boot.0, 2);
    assert!(node.findings.is_empty(), "{:?}", node.findings);
    assert_eq!(
        node.payloads()[1..],
        [b"a".to_vec(), b"b".to_vec(), b"c".to_vec()]
    );
    assert_eq!(
        node.recovered.terms,
        vec![(Index(1), Term(1)), (Index(4), Term(2))]
    );
    assert_eq!(node.recovered.hard_state.vote, Some(NodeId(1)));
    assert_eq!(
        node.recovered.applied,
        Index(3),
        "what was only gathered is applied again"
    );
    assert_eq!(node.recovered.suspicion, None);
    node.apply_to(4);
    assert_eq!(node.tables.scan(Table(1), b"").count(), 4);
}

#[test]
fn truncated_entries_stay_away_and_new_ones_take_their_place() {
    let dir = temp_dir();
    form(dir.path(), &[1, 2, 3]);
    let mut node = Node::open(dir.path());
    node.append(1, &[b"a", b"b", b"c", b"d"]).unwrap();
    let truncate_from = Some(node.truncation(3));
    let entries = node.next_entries(2, &[b"B"]);
    let hard_state = Some(raft::HardState {
        term: Term(2),
        ..node.hard_state
    });
    node.persist(Persist {
        truncate_from,
        entries,
        hard_state,
        ..Persist::default()
    })
    .unwrap();
    assert_eq!(node.payloads()[1..], [b"a".to_vec(), b"B".to_vec()]);
    node.close();
    let node = Node::open(dir.path());
    assert_eq!(node.payloads()[1..], [b"a".to_vec(), b"B".to_vec()]);
    assert_eq!(node.recovered.last.index, Index(3));
}

#[test]
fn readers_get_ranges_by_bytes_and_gone_for_what_is_compacted() {
    let dir = temp_dir();
    form(dir.path(), &[1]);
    let mut node = Node::open(dir.path());
    node.append(1, &[&[1; 100], &[2; 100], &[3; 100], &[4; 100]])
        .unwrap();
    let read = |from: u64, to: u64, bytes| {
        let entries = node.reader.entries(Index(from)..Index(to), bytes);
        entries.map(|entries| entries.iter().map(|entry| entry.id.index.0).collect::<Vec<_>>())
    };
    assert_eq!(read(2, 6, usize::MAX).unwrap(), [2, 3, 4, 5]);
    assert_eq!(read(2, 4, usize::MAX).unwrap(), [2, 3]);
    assert_eq!(read(2, 6, 330).unwrap(), [2, 3], "164 bytes each");
    assert_eq!(read(3, 6, 1).unwrap(), [3], "at least one");
    assert!(
        matches!(read(6, 9, usize::MAX), Err(ReadError::Gone { .. })),
        "not there yet"
    );
    node.apply_to(3);
    let compact_to = Some(node.point(3));
    node.persist(Persist {
        compact_to,
        ..Persist::default()
    })
    .unwrap();
    assert_eq!(
        node.tables.durable().id.index,
        Index(3),
        "the rows are durable before the log is cut"
    );
    let gone = node.reader.entries(Index(3)..Index(5), usize::MAX);
    assert!(matches!(
        gone,
        Err(ReadError::Gone {
            asked: Index(3),
            first: Index(4)
        })
    ));
    assert_eq!(
        node.reader.entries(Index(4)..Index(6), usize::MAX).unwrap().len(),
        2
    );
    node.close();
    let node = Node::open(dir.path());
    assert_eq!(node.reader.first(), Index(4));
    assert_eq!(node.recovered.terms, vec![(Index(4), Term(1))]);
    assert_eq!(node.recovered.configurations, vec![(Index(1), members(&[1]))]);
}

#[test]
fn persists_that_wait_together_share_a_sync_and_complete_in_order() {
    let dir = temp_dir();
    form(dir.path(), &[1]);
    // The first commit waits until everything else is queued.
    let (open_gate, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let faults = storage::fault::Faults::new(move |point| {
        if point == storage::fault::Point::WalCommit {
            let _ = gate.lock().unwrap().recv();
        }
        Ok(())
    });
    let mut node = Node::open_with(dir.path(), faults);
    let mut submitted = Vec::new();
    let mut before_last = node.last;
    for n in 0..50u8 {
        before_last = node.last;
        let entries = node.next_entries(1, &[&[n; 10]]);
        submitted.push(node.submit(Persist {
            entries,
            ..Persist::default()
        }));
    }
    // An overwrite in the same queue: one final operation per key.
    let truncate_from = Some(node.last.id.index);
    node.last = before_last;
    let entries = node.next_entries(1, &[b"kept"]);
    let replaced = entries[0].id.index;
    submitted.push(node.submit(Persist {
        truncate_from,
        entries,
        ..Persist::default()
    }));
    drop(open_gate);
    let mut completed = Vec::new();
    while completed.len() < submitted.len() {
        if let Completion::Persisted { token, .. } = node.completions.recv().unwrap() {
            completed.push(token);
        }
    }
    assert_eq!(completed, submitted);
    let metrics = node.handle.as_ref().unwrap().metrics();
    let syncs = metrics.syncs.load(std::sync::atomic::Ordering::Relaxed);
    assert!(syncs < 20, "{syncs} syncs for 51 persists");
    assert_eq!(
        node.reader.entries(replaced..replaced.next(), 1).unwrap()[0].payload,
        "kept"
    );
}

#[test]
fn r15_a_log_is_never_cut_above_the_rows() {
    let dir = temp_dir();
    form(dir.path(), &[1]);
    let mut node = Node::open(dir.path());
    node.append(1, &[b"a", b"b"]).unwrap();
    node.apply_to(2);
    let compact_to = Some(node.point(3));
    let error = node
        .persist(Persist {
            compact_to,
            ..Persist::default()
        })
        .unwrap_err();
    assert!(error.contains("above the rows"), "{error}");
}

#[test]
fn r23_space_is_said_at_the_start_and_at_every_change() {
    use std::sync::atomic::{AtomicU64, Ordering};
    let dir = temp_dir();
    form(dir.path(), &[1]);
    let free = std::sync::Arc::new(AtomicU64::new(400));
    let probe = free.clone();
    let options = storage::Options {
        reserve_bytes: Some(1_000),
        space_probe: Some(std::sync::Arc::new(move || {
            Ok(Volume {
                free_bytes: probe.load(Ordering::SeqCst),
                total_bytes: 1 << 40,
            })
        })),
        ..storage::Options::default()
    };
    let mut node = Node::start(storage::Folder::open(dir.path()).unwrap().start(options).unwrap());
    let space = |node: &Node| loop {
        if let Completion::Space(space) = node.completions.recv_timeout(crate::support::PATIENCE).unwrap() {
            break space;
        }
    };
    assert_eq!(space(&node), Space::Low);
    for (bytes, expected) in [(100, Space::Critical), (900, Space::Low), (2_000, Space::Ample)] {
        free.store(bytes, Ordering::SeqCst);
        // Looked at before each append; what passes is the core's decision.
        let entries = node.next_entries(1, &[b"x"]);
        node.submit(Persist {
            entries,
            ..Persist::default()
        });
        assert_eq!(space(&node), expected);
    }
}

#[test]
fn a_batch_of_rows_is_one_and_the_last_operation_wins() {
    let dir = temp_dir();
    form(dir.path(), &[1]);
    let node = Node::open(dir.path());
    let mut batch = node.tables.batch();
    batch.put(Table(3), b"k", "first");
    batch.delete(Table(3), b"k");
    batch.put(Table(3), b"k", "last");
    batch.put(Table(4), b"k", "other table");
    batch.put(Table(3), b"gone", "x");
    batch.delete(Table(3), b"gone");
    let view = node.tables.view();
    let point = LogBase {
        id: raft::EntryId {
            term: Term(1),
            index: Index(1),
        },
        checksum: node.last.checksum,
    };
    batch.commit(point).unwrap();
    assert_eq!(node.tables.applied(), point);
    assert_eq!(node.tables.get(Table(3), b"k").unwrap().unwrap(), "last");
    let rows: Vec<_> = node.tables.scan(Table(3), b"").map(Result::unwrap).collect();
    assert_eq!(rows, [("k".into(), "last".into())]);
    assert_eq!(view.get(Table(3), b"k").unwrap(), None, "a view does not move");
    assert_eq!(view.applied(), LogBase::default());
}

/// 300 MiB of entries through a log that keeps 16 MiB of them: the disk stays bounded.
#[test]
fn a_compacted_log_gives_its_disk_back() {
    let dir = temp_dir();
    form(dir.path(), &[1]);
    let mut node = Node::open(dir.path());
    let payload = vec![7u8; 64 << 10];
    let payloads: Vec<&[u8]> = vec![&payload; 64];
    let mut points = std::collections::VecDeque::new();
    for _ in 0..75 {
        node.append(1, &payloads).unwrap();
        points.push_back(node.last);
        if points.len() > 4 {
            let compact_to = points.pop_front();
            let mut batch = node.tables.batch();
            batch.put(Table(1), b"row", "applied");
            batch.commit(compact_to.unwrap()).unwrap();
            node.tables.sync().unwrap();
            node.persist(Persist {
                compact_to,
                ..Persist::default()
            })
            .unwrap();
        }
    }
    node.close();
    let bytes = allocated(&dir.path().join("wal"));
    // Live 16 MiB; two journals of 64 MiB, memtables being flushed, tables waiting to be dropped.
    assert!(bytes < 240 << 20, "{} MiB", bytes >> 20);
    let node = Node::open(dir.path());
    assert_eq!(node.recovered.suspicion, None);
    assert!(
        points
            .front()
            .is_some_and(|oldest| node.recovered.base.id.index < oldest.id.index)
    );
    assert_eq!(node.recovered.last.index.0, 75 * 64 + 1);
}

fn allocated(folder: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let metadata = entry.metadata().unwrap();
        bytes += if metadata.is_dir() {
            allocated(&entry.path())
        } else {
            metadata.blocks() * 512
        };
    }
    bytes
}
