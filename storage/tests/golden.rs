//! The bytes of every format, and a folder of the first version that must open for ever.
//!
//! `REWRITE_FIXTURES=1 cargo test -p storage golden` writes the fixture of the *current* version anew.
//! Do that only for a version that nobody has run yet; for a released one a failing test here means that
//! old folders no longer open.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use raft::{Checksum, Entry, EntryId, EntryKind, Index, LogBase, NodeId, Persist, Term};
use storage::codec::{CodecError, HEADER_BYTES, decode, decode_slice, encode};
use storage::mark::{Mark, decode_slot, encode_slot};
use storage::{ClusterId, Stage, Table};

use crate::support::{Node, form, members, read_sparse, temp_dir, write_sparse};

fn entry(payload: &'static [u8]) -> Entry {
    let id = EntryId {
        term: Term(3),
        index: Index(0x0102),
    };
    Entry::seal(
        id,
        EntryKind::Command,
        Bytes::from_static(payload),
        Checksum(0xaabb_ccdd),
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[test]
fn a_log_record_has_these_bytes() {
    let mut bytes = Vec::new();
    encode(&entry(b"hello"), &mut bytes);
    let checksum = hex(&entry(b"hello").checksum.0.to_le_bytes());
    let fields = [
        "01",
        "01",
        "05000000",
        "0201000000000000",
        "0300000000000000",
        "ddccbbaa",
        &checksum,
    ];
    assert_eq!(hex(&bytes), format!("{}68656c6c6f", fields.concat()));
    assert_eq!(decode_slice(&bytes).unwrap(), (entry(b"hello"), bytes.len()));
    assert_eq!(decode(&bytes.into()).unwrap().0, entry(b"hello"));
}

#[test]
fn every_flipped_bit_and_every_cut_of_a_record_is_found() {
    let mut bytes = Vec::new();
    encode(&entry(b"some payload, longer than a word"), &mut bytes);
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(decode_slice(&flipped).is_err(), "bit {bit} passed");
        assert!(decode(&flipped.into()).is_err(), "bit {bit} passed");
    }
    for length in 0..bytes.len() {
        let short = matches!(decode_slice(&bytes[..length]), Err(CodecError::Short { .. }));
        assert!(short, "{length} bytes passed");
    }
    let mut long = bytes[..HEADER_BYTES].to_vec();
    long[2..6].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(
        matches!(decode_slice(&long), Err(CodecError::Length(_))),
        "a length is believed"
    );
}

#[test]
fn a_mark_slot_has_these_bytes() {
    let mark = Mark {
        cluster_id: Some(ClusterId(0x11)),
        node_id: NodeId(2),
        incarnation: raft::Incarnation(3),
        boot: raft::Boot(4),
        suspicion: Some(raft::Boot(5)),
        term: Term(6),
        vote: Some(NodeId(7)),
        synced: LogBase {
            id: EntryId {
                index: Index(8),
                term: Term(9),
            },
            checksum: Checksum(10),
        },
        snapshot: EntryId {
            index: Index(11),
            term: Term(12),
        },
    };
    let slot = encode_slot(1, &mark);
    let expected = [
        "726e61636f734d4b", // rnacosMK
        "01000000",
        "0100000000000000",
        "11000000000000000000000000000000",
        "0200000000000000",
        "0300000000000000",
        "0400000000000000",
        "0500000000000000",
        "0600000000000000",
        "0700000000000000",
        "0800000000000000",
        "0900000000000000",
        "0a000000",
        "0b00000000000000",
        "0c00000000000000",
    ];
    assert!(hex(&slot).starts_with(&expected.concat()), "{}", hex(&slot));
    assert_eq!(decode_slot(&slot), Ok((1, mark)));
}

/// What the fixture holds, written by this version.
fn write_folder(dir: &Path) {
    form(dir, &[1]);
    let mut node = Node::open(dir);
    node.append(1, &[b"two", b"three", b"four"]).unwrap();
    node.vote(2, 1).unwrap();
    // Folders of the first versions have the state's rows in fjall's journal, too.
    node.apply_journaled_to(4);
    node.snapshots.make(&node.tables.view(), &members(&[1])).unwrap();
    node.tables.sync().unwrap();
    let compact_to = Some(node.point(2));
    node.persist(Persist {
        compact_to,
        ..Persist::default()
    })
    .unwrap();
    let configuration = members(&[1]).encode();
    let entry = node.next_entry(2, EntryKind::Configuration, &configuration);
    node.persist(Persist {
        entries: vec![entry],
        ..Persist::default()
    })
    .unwrap();
    node.append(2, &[b"six"]).unwrap();
    node.close();
}

fn check_folder(dir: &Path, version: &str) {
    assert_eq!(
        storage::Folder::open(dir).unwrap().stage().unwrap(),
        Stage::Formed
    );
    let node = Node::open(dir);
    assert_eq!(node.findings, vec![], "{version}");
    assert_eq!(node.recovered.suspicion, None);
    assert_eq!(
        node.recovered.base.id,
        EntryId {
            index: Index(2),
            term: Term(1)
        }
    );
    assert_eq!(
        node.recovered.terms,
        vec![(Index(3), Term(1)), (Index(5), Term(2))]
    );
    assert_eq!(
        node.recovered.last,
        EntryId {
            index: Index(6),
            term: Term(2)
        }
    );
    assert_eq!(node.recovered.applied, Index(4));
    let hard_state = node.recovered.hard_state;
    assert_eq!((hard_state.term, hard_state.vote), (Term(2), Some(NodeId(1))));
    assert_eq!(
        node.recovered.configurations,
        vec![(Index(1), members(&[1])), (Index(5), members(&[1]))]
    );
    assert_eq!(node.recovered.snapshot.as_ref().unwrap().last.index, Index(4));
    let rows: Vec<_> = node
        .tables
        .scan(Table(1), b"")
        .map(|row| row.unwrap().1)
        .collect();
    assert_eq!(rows[1..], ["two", "three", "four"]);
    let entries = node.reader.entries(Index(3)..Index(7), usize::MAX).unwrap();
    assert_eq!(entries[3].payload, "six");
    assert!(
        node.reader.entries(Index(2)..Index(3), usize::MAX).is_err(),
        "compacted"
    );
    let file = node
        .snapshots
        .file(node.recovered.snapshot.as_ref().unwrap())
        .unwrap();
    file.verify().unwrap();
    let mut node = node;
    node.append(2, &[b"it goes on"]).unwrap();
    node.close();
}

fn fixture(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(version)
        .join("folder.archive")
}

#[test]
fn folders_of_every_version_open() {
    if std::env::var_os("REWRITE_FIXTURES").is_some() {
        let dir = temp_dir();
        write_folder(dir.path());
        std::fs::create_dir_all(fixture("v1").parent().unwrap()).unwrap();
        std::fs::write(fixture("v1"), pack(dir.path())).unwrap();
    }
    let dir = temp_dir();
    unpack(&std::fs::read(fixture("v1")).unwrap(), dir.path());
    check_folder(dir.path(), "v1");
}

/// A folder as one file: per entry a line `path length content`, then that many bytes. A journal is
/// 64 MiB of mostly nothing: only its content is kept, and its length.
fn pack(dir: &Path) -> Vec<u8> {
    let mut archive = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        let mut entries: Vec<_> = std::fs::read_dir(&folder)
            .unwrap()
            .flatten()
            .map(|it| it.path())
            .collect();
        entries.sort();
        for path in entries {
            let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                archive.extend_from_slice(format!("{name}/ 0 0\n").as_bytes());
                folders.push(path);
                continue;
            }
            let (mut bytes, length) = read_sparse(&path).unwrap();
            let end = bytes
                .iter()
                .rposition(|byte| *byte != 0)
                .map_or(0, |last| last + 1);
            bytes.truncate(end);
            archive.extend_from_slice(format!("{name} {length} {end}\n").as_bytes());
            archive.extend_from_slice(&bytes);
        }
    }
    archive
}

fn unpack(mut archive: &[u8], dir: &Path) {
    while let Some(end) = archive.iter().position(|byte| *byte == b'\n') {
        let line = std::str::from_utf8(&archive[..end]).unwrap().to_owned();
        archive = &archive[end + 1..];
        let [name, length, content] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let path = dir.join(name);
        if name.ends_with('/') {
            std::fs::create_dir_all(path).unwrap();
            continue;
        }
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let content: usize = content.parse().unwrap();
        write_sparse(&path, &archive[..content], length.parse().unwrap());
        archive = &archive[content..];
    }
}

/// fjall's journal format is read by our scanner: when fjall changes it, this test is the first to know.
#[test]
fn the_scanner_understands_the_journals_that_fjall_writes() {
    let dir = temp_dir();
    write_folder(dir.path());
    for (name, database) in [
        ("wal", storage::journal::Database::Wal),
        ("state", storage::journal::Database::State),
    ] {
        let scan = storage::journal::scan_folder(&dir.path().join(name), database).unwrap();
        assert!(
            !scan.is_damaged() && scan.torn.is_empty(),
            "{name}: {}",
            scan.describe()
        );
        assert!(scan.batches > 0, "{name}");
    }
    let journal = crate::support::newest_journal(&dir.path().join("wal"));
    let (bytes, _) = read_sparse(&journal).unwrap();
    let mut payloads = Vec::new();
    let scan = storage::journal::scan_items(&bytes, &mut |item| {
        if let Ok((entry, _)) = decode_slice(item.value) {
            payloads.push(entry.payload);
        }
    });
    assert!(scan.bad.is_none());
    assert!(payloads.iter().any(|payload| payload == "six"));
}
