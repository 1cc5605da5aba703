//! `storage::journal::scan`: fjall's journals, read before fjall reads them.
//!
//! * Any bytes: the scan agrees with a plain reader of the documented format (below) about what is intact;
//!   what it calls intact is intact by itself; zeros behind it change nothing; nothing is allocated.
//! * A journal that was written and then damaged (flipped bits, zeroed sectors, an early end) gives a prefix
//!   of what was written, never another item. When an intact batch lies behind the damage, the scan says so:
//!   that is what tells rot from a write that never ended.

use storage::journal::{Item, Scan, scan, scan_items};

use crate::alloc::bounded;
use crate::damage::Damage;
use crate::input::Input;

/// Batches of a written journal.
const BATCHES_MAX: usize = 12;

/// An operation, as a test keeps it: keyspace, key, value, removed.
type Operation = (u64, Vec<u8>, Vec<u8>, bool);

/// See the module.
pub fn check(data: &[u8]) {
    any_bytes(data);
    a_journal(data);
}

// --- any bytes ------------------------------------------------------------------------------------

fn any_bytes(data: &[u8]) {
    let found = bounded("scan", 0, || scan(data));
    let (again, operations) = scan_all(data);
    assert_eq!(found, again);
    assert_eq!(
        (found.batches, found.valid_bytes, operations.clone()),
        plainly(data)
    );
    let (intact, same) = scan_all(&data[..found.valid_bytes as usize]);
    assert_eq!(
        intact,
        Scan {
            bad: None,
            ..found.clone()
        }
    );
    assert_eq!(same, operations);
    let mut longer = data.to_vec();
    longer.resize(data.len() + 64, 0);
    let padded = scan(&longer);
    assert_eq!(
        (padded.batches, padded.valid_bytes),
        (found.batches, found.valid_bytes)
    );
    assert_eq!(padded.bad.is_some(), found.bad.is_some());
    if let Some(bad) = found.bad {
        assert!(found.valid_bytes < bad.ends_at && bad.ends_at <= data.len() as u64);
    } else {
        assert!(data[found.valid_bytes as usize..].iter().all(|byte| *byte == 0));
    }
}

fn scan_all(bytes: &[u8]) -> (Scan, Vec<Operation>) {
    let mut operations = Vec::new();
    let found = scan_items(bytes, &mut |item| operations.push(owned(&item)));
    (found, operations)
}

fn owned(item: &Item<'_>) -> Operation {
    (
        item.keyspace,
        item.key.to_vec(),
        item.value.to_vec(),
        item.removed,
    )
}

/// The table of docs/storage-format.md, read as simply as possible: batches, bytes, operations.
fn plainly(data: &[u8]) -> (u64, u64, Vec<Operation>) {
    let (mut batches, mut end, mut operations) = (0, 0, Vec::new());
    let mut last = None;
    while let Some((sequence, length, more)) = plain_batch(&data[end..]) {
        let follows = last.is_none_or(|last| sequence > last && sequence - last <= 1 << 32);
        if !follows || sequence >= 1 << 62 {
            break;
        }
        last = Some(sequence);
        batches += 1;
        end += length;
        operations.extend(more);
    }
    (batches, end as u64, operations)
}

fn plain_batch(data: &[u8]) -> Option<(u64, usize, Vec<Operation>)> {
    let number = |at: usize, length: usize| {
        let bytes = data.get(at..at + length)?;
        Some(
            bytes
                .iter()
                .rev()
                .fold(0, |number, byte| number << 8 | u64::from(*byte)),
        )
    };
    if number(0, 1)? != 1 {
        return None;
    }
    let (count, sequence) = (number(1, 4)?, number(5, 8)?);
    let mut at = 13;
    let mut operations = Vec::new();
    for _ in 0..count {
        let keyspace_at = if number(at, 1)? == 4 { at + 1 } else { at + 3 };
        let keyspace = number(keyspace_at, 8)?;
        if number(at, 1)? == 4 {
            at += 9;
            continue;
        }
        let (kind, compression) = (number(at + 1, 1)?, number(at + 2, 1)?);
        let (key, value, stored) = (number(at + 11, 2)?, number(at + 13, 4)?, number(at + 17, 4)?);
        if number(at, 1)? != 2 || kind > 2 || compression != 0 || value != stored {
            return None;
        }
        at += 21;
        let key = data.get(at..at + key as usize)?;
        let value = data.get(at + key.len()..at + key.len() + value as usize)?;
        at += key.len() + value.len();
        operations.push((keyspace, key.to_vec(), value.to_vec(), kind != 0));
    }
    let checksum = xxhash_rust::xxh3::xxh3_64(&data[13..at]);
    let is_end = number(at, 1)? == 3 && number(at + 1, 8)? == checksum;
    let is_trailer = data.get(at + 9..at + 13)? == b"FJL\x03";
    (is_end && is_trailer && count > 0).then_some((sequence, at + 13, operations))
}

// --- a journal ------------------------------------------------------------------------------------

/// A journal as it was written.
struct Journal {
    bytes: Vec<u8>,
    /// Where each batch begins and ends, and how many operations the journal holds at its end.
    batches: Vec<(usize, usize, usize)>,
    operations: Vec<Operation>,
}

fn a_journal(data: &[u8]) {
    let mut input = Input::new(data);
    let journal = Journal::write(&mut input);
    let whole = scan_all(&journal.bytes);
    assert_eq!(whole.1, journal.operations);
    assert!(whole.0.bad.is_none());
    let mut bytes = journal.bytes.clone();
    for _ in 0..1 + input.below(3) {
        if let Some(damage) = Damage::choose(&mut input, journal.bytes.len()) {
            damage.apply(&mut bytes);
        }
    }
    journal.expect_prefix(&bytes);
}

impl Journal {
    fn write(input: &mut Input<'_>) -> Journal {
        let mut journal = Journal {
            bytes: Vec::new(),
            batches: Vec::new(),
            operations: Vec::new(),
        };
        let mut sequence = u64::from(input.u32());
        for _ in 0..1 + input.below(BATCHES_MAX) {
            sequence += 1 + u64::from(input.u8());
            let operations: Vec<Operation> = (0..1 + input.below(4)).map(|_| operation(input)).collect();
            let start = journal.bytes.len();
            journal.bytes.extend(batch(sequence, &operations));
            journal.operations.extend(operations);
            let end = (journal.bytes.len(), journal.operations.len());
            journal.batches.push((start, end.0, end.1));
        }
        journal
    }

    fn expect_prefix(&self, bytes: &[u8]) {
        let (found, operations) = scan_all(bytes);
        assert!(
            self.operations.starts_with(&operations),
            "an item that was not written"
        );
        let is_boundary = |count: usize| count == 0 || self.batches.iter().any(|batch| batch.2 == count);
        assert!(is_boundary(operations.len()), "half a batch");
        if operations.len() == self.operations.len() {
            return;
        }
        let is_intact = |batch: &(usize, usize, usize)| {
            let now = bytes.get(batch.0..batch.1).unwrap_or_default();
            *now == self.bytes[batch.0..batch.1]
        };
        let behind = self.batches[found.batches as usize..]
            .iter()
            .filter(|batch| is_intact(batch));
        let behind = behind.count() as u64;
        let told = found.bad.as_ref().map_or(0, |bad| bad.batches_after);
        if behind > 0 {
            assert!(
                told > 0,
                "{behind} intact batches lie behind the damage: {found:?}"
            );
        }
        if found.bad.is_none() {
            let rest = &bytes[found.valid_bytes as usize..];
            assert!(rest.iter().all(|byte| *byte == 0), "damage that is not told");
        }
    }
}

fn operation(input: &mut Input<'_>) -> Operation {
    let keyspace = u64::from(input.u8() % 3);
    let removed = input.one_in(8);
    let key_length = input.below(12);
    let key = input.bytes(key_length).to_vec();
    let value = if removed {
        Vec::new()
    } else {
        input.short_bytes().to_vec()
    };
    (keyspace, key, value, removed)
}

fn batch(sequence: u64, operations: &[Operation]) -> Vec<u8> {
    let mut out = vec![1];
    out.extend((operations.len() as u32).to_le_bytes());
    out.extend(sequence.to_le_bytes());
    for (keyspace, key, value, removed) in operations {
        out.extend([2, u8::from(*removed), 0]);
        out.extend(keyspace.to_le_bytes());
        out.extend((key.len() as u16).to_le_bytes());
        out.extend((value.len() as u32).to_le_bytes());
        out.extend((value.len() as u32).to_le_bytes());
        out.extend(key);
        out.extend(value);
    }
    let checksum = xxhash_rust::xxh3::xxh3_64(&out[13..]);
    out.push(3);
    out.extend(checksum.to_le_bytes());
    out.extend(b"FJL\x03");
    out
}

/// Journals of a few batches, whole and damaged, and nested starts that are the worst case for a search.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let put = |key: &[u8], value: &[u8]| (1, key.to_vec(), value.to_vec(), false);
    let mut journal = batch(5, &[put(b"a", b"one"), put(b"b", b"two")]);
    let second = journal.len();
    journal.extend(batch(7, &[(2, b"a".to_vec(), Vec::new(), true)]));
    let third = journal.len();
    journal.extend(batch(8, &[put(b"c", &[7; 100])]));
    let damaged = |byte: usize, bit: u8| {
        let mut bytes = journal.clone();
        bytes[byte] ^= bit;
        bytes
    };
    let mut nested = vec![9];
    for _ in 0..40 {
        nested.extend([
            1, 255, 255, 255, 255, 1, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0,
        ]);
    }
    let mut padded = journal.clone();
    padded.resize(journal.len() + 100, 0);
    let seeds = [
        ("seed-journal", journal.clone()),
        ("seed-padded", padded),
        ("seed-value", damaged(second + 40, 1)),
        ("seed-count", damaged(second + 1, 1)),
        ("seed-sequence", damaged(second + 5 + 3, 0x40)),
        ("seed-sequence-first", damaged(5 + 2, 0x40)),
        ("seed-torn", journal[..third + 60].to_vec()),
        ("seed-nested", nested),
        ("seed-written", (0..200).collect()),
        ("seed-empty", Vec::new()),
    ];
    seeds.map(|(name, data)| (name.to_owned(), data)).into()
}
