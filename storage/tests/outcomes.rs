//! Damage that one sees only after a long life, end to end: older journals, applied points. What an
//! open makes of it is the table in docs/storage-format.md.

use std::path::Path;

use raft::{Checksum, Index, LogBase};
use storage::{Finding, Table};

use crate::support::{Node, form, newest_journal, open, read_sparse, temp_dir};

/// A member with entries 2 to 6 in batches of their own, applied one by one, closed in order.
fn member() -> tempfile::TempDir {
    let dir = temp_dir();
    form(dir.path(), &[1, 2, 3]);
    let mut node = Node::open(dir.path());
    for n in 2..=6u64 {
        node.append(1, &[format!("entry {n}").as_bytes()]).unwrap();
        node.apply_journaled_to(n);
    }
    node.tables.sync().unwrap();
    node.close();
    dir
}

/// Turns the only journal of a database into two, as a rotation leaves them. Gives the older one.
fn rotate(database: &Path) -> std::path::PathBuf {
    let only = newest_journal(database);
    let (bytes, _) = read_sparse(&only).unwrap();
    let scan = storage::journal::scan(&bytes);
    let end = usize::try_from(scan.valid_bytes).unwrap();
    // The last batch goes into a journal of its own.
    let last = (1..end)
        .rev()
        .find(|at| {
            let scan = storage::journal::scan(&bytes[*at..end]);
            scan.batches == 1 && scan.bad.is_none()
        })
        .unwrap();
    let number: u64 = only.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    std::fs::write(&only, &bytes[..last]).unwrap();
    std::fs::write(database.join(format!("{}.jnl", number + 1)), &bytes[last..end]).unwrap();
    only
}

fn flip_in_the_middle(journal: &Path) {
    let mut bytes = std::fs::read(journal).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(journal, bytes).unwrap();
}

fn rows(node: &Node) -> usize {
    node.tables.scan(Table(1), b"").count()
}

#[test]
fn a_rotated_journal_is_read_like_one() {
    let dir = member();
    rotate(&dir.path().join("wal"));
    rotate(&dir.path().join("state"));
    let node = Node::open(dir.path());
    assert_eq!(node.findings, []);
    assert_eq!(
        (node.recovered.last.index, node.recovered.applied),
        (Index(6), Index(6))
    );
    assert_eq!(rows(&node), 6);
}

#[test]
fn r21_a_bad_older_journal_of_the_log_is_suspect_and_its_hole_is_not_bridged() {
    let dir = member();
    flip_in_the_middle(&rotate(&dir.path().join("wal")));
    let mut node = Node::open(dir.path());
    assert!(node.recovered.suspicion.is_some(), "{:?}", node.findings);
    assert!(
        node.findings
            .iter()
            .any(|finding| matches!(finding, Finding::Damage { .. }))
    );
    // The rows were synced up to 6, so the log starts anew there; nothing behind the hole is used.
    assert_eq!(node.recovered.base.id.index, Index(6));
    assert_eq!(node.recovered.last.index, Index(6));
    node.append(1, &[b"from the leader"]).unwrap();
    node.close();
    assert_eq!(open(dir.path()).unwrap().recovered.last.index, Index(7));
}

#[test]
fn r21_a_bad_older_journal_of_the_rows_moves_them_aside_and_the_log_brings_them_back() {
    let dir = member();
    flip_in_the_middle(&rotate(&dir.path().join("state")));
    let node = Node::open(dir.path());
    assert_eq!(node.recovered.suspicion, None, "{:?}", node.findings);
    assert!(
        node.findings
            .iter()
            .any(|finding| matches!(finding, Finding::StateMoved { .. }))
    );
    assert_eq!(
        (node.recovered.applied, node.recovered.last.index),
        (Index(0), Index(6))
    );
    node.apply_to(6);
    assert_eq!(rows(&node), 6);
}

#[test]
fn an_applied_point_of_another_history_moves_the_rows_aside_and_is_suspect() {
    let dir = member();
    let mut node = Node::open(dir.path());
    node.append(1, &[b"entry 7"]).unwrap();
    let point = node.point(7);
    let other = LogBase {
        checksum: Checksum(point.checksum.0 ^ 1),
        ..point
    };
    let mut batch = node.tables.batch();
    batch.put(Table(1), b"of another history", "x");
    batch.commit(other).unwrap();
    node.tables.sync().unwrap();
    node.close();
    let node = Node::open(dir.path());
    assert!(node.recovered.suspicion.is_some());
    assert_eq!(
        (node.recovered.applied, node.recovered.last.index),
        (Index(0), Index(7))
    );
    node.apply_to(7);
    assert_eq!(rows(&node), 7, "nothing of the other history is left");
}

#[test]
fn a_damaged_applied_point_moves_the_rows_aside_and_the_log_brings_them_back() {
    let dir = member();
    {
        let database = fjall::Database::builder(dir.path().join("state"))
            .journal_compression(fjall::CompressionType::None)
            .worker_threads(1)
            .open()
            .unwrap();
        let data = database
            .keyspace("data", fjall::KeyspaceCreateOptions::default)
            .unwrap();
        data.insert([0, b'a'], [7; 26]).unwrap();
    }
    let node = Node::open(dir.path());
    assert_eq!(node.recovered.suspicion, None, "{:?}", node.findings);
    assert_eq!(node.recovered.applied, Index(0));
    node.apply_to(6);
    assert_eq!(rows(&node), 6);
}

/// A row that a table file holds is newer than its older version in the journal, by its sequence number. One
/// that rots upwards must not turn that round: the applied point would be an old one above newer rows.
#[test]
fn r21_a_rotten_sequence_number_brings_back_no_older_applied_point() {
    // The first batch, and one in the middle; both raised as far as the order between journals allows.
    for batch in [0, 2] {
        let dir = member();
        let journal = newest_journal(&dir.path().join("state"));
        let (mut bytes, length) = read_sparse(&journal).unwrap();
        let start = starts(&bytes)[batch];
        bytes[start + 5 + 3] ^= 0x40;
        crate::support::write_sparse(&journal, &bytes, length);
        for _ in 0..2 {
            let node = Node::open(dir.path());
            assert_eq!(
                rows(&node) as u64,
                node.tables.applied().id.index.0,
                "batch {batch}"
            );
            assert_eq!(
                node.recovered.suspicion, None,
                "the log is whole and brings the rest back"
            );
            node.close();
        }
    }
}

/// fjall believes its lists of tables, and some that have rotted end the process where nobody can catch it.
#[test]
fn a_rotten_manifest_is_found_before_fjall_reads_it() {
    let dir = member();
    for (database, is_suspect) in [("wal", true), ("state", false)] {
        for keyspace in ["0", "1"] {
            let folder = Path::new(database).join("keyspaces").join(keyspace);
            let current = std::fs::read(dir.path().join(&folder).join("current")).unwrap();
            let newest = format!("v{}", current[0]);
            for file in ["current", &newest] {
                let length = std::fs::read(dir.path().join(&folder).join(file)).unwrap().len();
                for byte in (0..length).step_by(7) {
                    let copy = temp_dir();
                    crate::support::copy_folder(dir.path(), copy.path());
                    let path = copy.path().join(&folder).join(file);
                    let mut bytes = std::fs::read(&path).unwrap();
                    bytes[byte] ^= 1 << (byte % 8);
                    std::fs::write(&path, bytes).unwrap();
                    let opened = open(copy.path()).unwrap();
                    let place = format!("{}/{file}, byte {byte}", folder.display());
                    assert_eq!(opened.recovered.suspicion.is_some(), is_suspect, "{place}");
                    let moved = |finding: &Finding| {
                        matches!(finding, Finding::LogMoved { .. } | Finding::StateMoved { .. })
                    };
                    assert!(opened.findings.iter().any(moved), "{place}");
                }
            }
        }
    }
}

/// Where the batches of a journal begin.
fn starts(bytes: &[u8]) -> Vec<usize> {
    let whole = storage::journal::scan(bytes).batches;
    let is_boundary = |at: &usize| {
        let (before, behind) = bytes.split_at(*at);
        let (before, behind) = (storage::journal::scan(before), storage::journal::scan(behind));
        before.bad.is_none() && behind.bad.is_none() && before.batches + behind.batches == whole
    };
    (0..bytes.len())
        .filter(|at| bytes[*at] == 1)
        .filter(is_boundary)
        .collect()
}
