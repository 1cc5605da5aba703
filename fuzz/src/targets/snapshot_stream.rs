//! `storage::snapshot::SnapshotStream`: snapshot files, of this node and of others.
//!
//! * Any bytes: rows ascend strictly; after an error nothing more is given out; memory stays within a small
//!   multiple of the input.
//! * A file that was written gives back its point, its membership and its rows. Damaged (flipped bits, zeroed
//!   sectors, an early end, bytes behind its end) it gives a prefix of its rows and then an error: it never
//!   ends well.

use raft::{Checksum, Configuration, EntryId, Incarnation, Index, LogBase, Member, NodeId, Term};
use storage::snapshot::SnapshotStream;

use crate::alloc::bounded;
use crate::damage::Damage;
use crate::input::Input;

/// What a stream may hold besides its input: the membership, and the current block, are copied once.
const OVERHEAD_BYTES: usize = 16 << 10;

type Row = (Vec<u8>, Vec<u8>);

/// What a stream came to: its head, the rows before the first error, and whether it ended without one.
struct Read {
    head: Option<(LogBase, Configuration)>,
    rows: Vec<Row>,
    is_whole: bool,
}

/// See the module.
pub fn check(data: &[u8]) {
    let found = bounded("a snapshot", 8 * data.len() + OVERHEAD_BYTES, || read(data));
    assert!(found.rows.is_sorted_by(|a, b| a.0 < b.0), "rows out of order");
    a_file(data);
}

fn read(data: &[u8]) -> Read {
    let mut found = Read {
        head: None,
        rows: Vec::new(),
        is_whole: false,
    };
    let Ok(mut stream) = SnapshotStream::new(data, data.len() as u64) else {
        return found;
    };
    found.head = Some((stream.point(), stream.configuration().clone()));
    for row in stream.by_ref() {
        match row {
            Ok((key, value)) => found.rows.push((key.to_vec(), value.to_vec())),
            Err(_) => {
                assert!(stream.next().is_none(), "a stream goes on after an error");
                return found;
            }
        }
    }
    found.is_whole = true;
    found
}

fn a_file(data: &[u8]) {
    let mut input = Input::new(data);
    let point = LogBase {
        id: EntryId {
            term: Term(input.number()),
            index: Index(input.number()),
        },
        checksum: Checksum(input.u32()),
    };
    let configuration = membership(1 + input.below(3) as u64);
    let rows = rows(&mut input);
    let file = write(point, &configuration, &rows, 1 + input.below(200));
    let whole = read(&file);
    assert!(whole.is_whole);
    assert_eq!(whole.head, Some((point, configuration.clone())));
    assert_eq!(whole.rows, rows);
    let mut damaged = file.clone();
    for _ in 0..1 + input.below(3) {
        if let Some(damage) = Damage::choose(&mut input, file.len()) {
            damage.apply(&mut damaged);
        }
    }
    if input.one_in(8) {
        damaged.push(input.u8());
    }
    if damaged == file {
        return;
    }
    let found = read(&damaged);
    assert!(!found.is_whole, "damage that is not told");
    assert!(rows.starts_with(&found.rows), "a row that was not written");
    if let Some(head) = found.head {
        assert_eq!(head, (point, configuration), "another head");
    }
}

fn rows(input: &mut Input<'_>) -> Vec<Row> {
    let mut key = vec![1, 0];
    let mut rows = Vec::new();
    for _ in 0..input.below(20) {
        // The next key is above the one before it.
        match key.last_mut() {
            Some(last) if *last < 0xff => *last += 1,
            _ => key.push(0),
        }
        rows.push((key.clone(), input.short_bytes().to_vec()));
    }
    rows
}

fn membership(voters: u64) -> Configuration {
    let member = |id| Member {
        id: NodeId(id),
        incarnation: Incarnation(70 + id),
        address: format!("10.0.0.{id}:9848"),
    };
    Configuration {
        members: (1..=voters).map(|id| (NodeId(id), member(id))).collect(),
        voters: (1..=voters).map(NodeId).collect(),
        ..Configuration::default()
    }
}

/// The format of docs/storage-format.md, written as simply as possible.
fn write(point: LogBase, configuration: &Configuration, rows: &[Row], block_bytes: usize) -> Vec<u8> {
    let mut out = b"rnacosSN".to_vec();
    out.extend(1u32.to_le_bytes());
    out.extend(point.id.index.0.to_le_bytes());
    out.extend(point.id.term.0.to_le_bytes());
    out.extend(point.checksum.0.to_le_bytes());
    let membership = configuration.encode();
    out.extend((membership.len() as u32).to_le_bytes());
    out.extend(&membership);
    let mut chain = crc32fast::hash(&out);
    out.extend(chain.to_le_bytes());
    let mut block = Vec::new();
    for (n, (key, value)) in rows.iter().enumerate() {
        block.extend((key.len() as u32).to_le_bytes());
        block.extend((value.len() as u32).to_le_bytes());
        block.extend(key);
        block.extend(value);
        if block.len() >= block_bytes || n + 1 == rows.len() {
            let length = (block.len() as u32).to_le_bytes();
            chain = crc_of(&[&chain.to_le_bytes(), &length, &block]);
            out.extend(length);
            out.extend(chain.to_le_bytes());
            out.append(&mut block);
        }
    }
    let count = (rows.len() as u64).to_le_bytes();
    out.extend(0u32.to_le_bytes());
    out.extend(count);
    out.extend(b"rnacosND");
    out.extend(crc_of(&[&chain.to_le_bytes(), &count]).to_le_bytes());
    out
}

fn crc_of(parts: &[&[u8]]) -> u32 {
    crc32fast::hash(&parts.concat())
}

/// Files with none, one and several blocks, whole and damaged.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let point = LogBase {
        id: EntryId {
            term: Term(2),
            index: Index(40),
        },
        checksum: Checksum(0xabcd),
    };
    let rows: Vec<Row> = (0..5).map(|n| (vec![1, n], vec![n; 30])).collect();
    let one = write(point, &membership(1), &rows, 1 << 10);
    let many = write(point, &membership(3), &rows, 1);
    let mut flipped = many.clone();
    flipped[many.len() / 2] ^= 4;
    let mut backwards = rows.clone();
    backwards.swap(1, 3);
    let mut huge = write(point, &membership(1), &[], 1);
    let trailer = huge.len() - 24;
    huge[trailer..trailer + 4].copy_from_slice(&(60u32 << 20).to_le_bytes());
    let seeds = [
        ("seed-empty-tables", write(point, &membership(1), &[], 1)),
        ("seed-cut", one[..one.len() - 10].to_vec()),
        ("seed-one-block", one),
        ("seed-many-blocks", many),
        ("seed-flipped", flipped),
        (
            "seed-backwards",
            write(point, &membership(1), &backwards, 1 << 10),
        ),
        ("seed-huge-block", huge),
        ("seed-written", (0..250).collect()),
        ("seed-empty", Vec::new()),
    ];
    seeds.map(|(name, data)| (name.to_owned(), data)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The plain writer above speaks the format of the real one: a file that storage made reads the same.
    #[test]
    fn the_plain_writer_writes_what_storage_writes() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut folder = storage::Folder::open(dir.path()).expect("a folder");
        let configuration = membership(1);
        let (cluster, incarnation) = (storage::ClusterId(1), Incarnation(71));
        folder
            .begin(NodeId(1), incarnation, Some(cluster))
            .expect("begun");
        folder.finish(cluster, Some(&configuration)).expect("formed");
        let opened = folder.start(storage::Options::default()).expect("open");
        let point = LogBase {
            id: opened.recovered.last,
            checksum: opened.recovered.last_checksum,
        };
        let rows: Vec<Row> = (0..50).map(|n| (vec![1, n], vec![n; 30])).collect();
        let mut batch = opened.tables.batch();
        for (key, value) in &rows {
            batch.put(
                storage::Table(key[0]),
                &key[1..],
                bytes::Bytes::from(value.clone()),
            );
        }
        batch.commit(point).expect("written");
        let meta = opened
            .snapshots
            .make(&opened.tables.view(), &configuration)
            .expect("a snapshot");
        let all = opened
            .snapshots
            .read_chunk(&meta, 0, usize::MAX)
            .expect("readable")
            .expect("there");
        assert_eq!(
            all,
            write(point, &configuration, &rows, storage::snapshot::BLOCK_BYTES)
        );
    }
}
