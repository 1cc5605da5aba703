//! `storage::mark`: the two slots of the mark file.
//!
//! * Any bytes are an error, or a slot whose mark means the same when it is written again; a file is read
//!   as its better slot by the rule "the higher readable sequence number counts".
//! * A write that was torn, flipped bits and zeroed sectors never make a mark that was not written: what is
//!   read is the older mark, the newer one, or nothing, and one damaged slot is told.

use raft::{Boot, Checksum, EntryId, Incarnation, Index, LogBase, NodeId, Term};
use storage::ClusterId;
use storage::mark::{Mark, SLOT_BYTES, SLOT_STRIDE, SlotError, Slots, decode_slot, encode_slot};

use crate::alloc::bounded;
use crate::damage::SECTOR_BYTES;
use crate::input::Input;

const STRIDE: usize = SLOT_STRIDE as usize;

/// Where the fields of a slot end and its zeros begin.
const FIELDS_END: usize = 120;

/// Flipped bits of a slot that its crc32 finds for certain: with three, its distance (six at this length)
/// is not reached whatever the bytes are.
const FLIPS_MAX: usize = 3;

/// See the module.
pub fn check(data: &[u8]) {
    any_bytes(data);
    a_file(data);
}

fn any_bytes(data: &[u8]) {
    let slot = bounded("decode_slot", 0, || decode_slot(data));
    let parsed = bounded("Slots::parse", 0, || Slots::parse(data));
    let second = decode_slot(data.get(STRIDE..).unwrap_or_default());
    assert_eq!(parsed, better(slot, second));
    if let Ok((sequence, mark)) = slot {
        let again = encode_slot(sequence, &mark);
        assert_eq!(decode_slot(&again), Ok((sequence, mark)));
        assert_eq!(
            again[..FIELDS_END],
            data[..FIELDS_END],
            "two slots with one meaning"
        );
    }
}

/// The rule, said once more.
fn better(first: Result<(u64, Mark), SlotError>, second: Result<(u64, Mark), SlotError>) -> Slots {
    let one_bad = first.is_err() || second.is_err();
    let newest = [first, second]
        .into_iter()
        .flatten()
        .rev()
        .max_by_key(|(sequence, _)| *sequence);
    match newest {
        Some((sequence, mark)) => Slots::Read {
            mark,
            sequence,
            one_bad,
        },
        None => Slots::Lost,
    }
}

/// A file as the log writer leaves it, and what a disk makes of it.
fn a_file(data: &[u8]) {
    let mut input = Input::new(data);
    let sequence = input.number().min(u64::MAX - 1);
    let marks = [mark_from(&mut input), mark_from(&mut input)];
    let mut file = vec![0; 2 * STRIDE];
    // The newer one goes into either slot.
    let newer = input.below(2);
    let sequences = if newer == 1 {
        [sequence, sequence + 1]
    } else {
        [sequence + 1, sequence]
    };
    for slot in 0..2 {
        let bytes = encode_slot(sequences[slot], &marks[slot]);
        file[slot * STRIDE..slot * STRIDE + SLOT_BYTES].copy_from_slice(&bytes);
    }
    expect(&file, newer, marks, [false; 2]);
    every_flip(&file, newer, marks, input.below(8));
    let damaged = [damage(&mut input, &mut file, 0), damage(&mut input, &mut file, 1)];
    expect(&file, newer, marks, damaged);
}

/// One bit of each byte of each slot, another one in each run.
fn every_flip(file: &[u8], newer: usize, marks: [Mark; 2], bit: usize) {
    let mut file = file.to_vec();
    for slot in 0..2 {
        let mut damaged = [false; 2];
        damaged[slot] = true;
        for byte in slot * STRIDE..slot * STRIDE + SLOT_BYTES {
            file[byte] ^= 1 << bit;
            expect(&file, newer, marks, damaged);
            file[byte] ^= 1 << bit;
        }
    }
}

/// Damages a slot, or the zeros beside it; true when its own bytes are others now.
fn damage(input: &mut Input<'_>, file: &mut [u8], slot: usize) -> bool {
    let start = slot * STRIDE;
    let before = file[start..start + SLOT_BYTES].to_vec();
    match input.u8() % 4 {
        0 => {}
        1 => {
            for _ in 0..1 + input.below(FLIPS_MAX) {
                file[start + input.below(SLOT_BYTES)] ^= 1 << input.below(8);
            }
        }
        2 => file[start..start + SECTOR_BYTES].fill(0),
        _ => {
            let beside = start + SLOT_BYTES..start + STRIDE;
            let byte = beside.start + input.below(beside.len());
            file[byte] = input.u8();
        }
    }
    file[start..start + SLOT_BYTES] != before
}

fn expect(file: &[u8], newer: usize, marks: [Mark; 2], damaged: [bool; 2]) {
    let older = 1 - newer;
    let expected = match (damaged[newer], damaged[older]) {
        (true, true) => None,
        (true, false) => Some((marks[older], true)),
        (false, other) => Some((marks[newer], other)),
    };
    let found = match Slots::parse(file) {
        Slots::Read { mark, one_bad, .. } => Some((mark, one_bad)),
        Slots::Lost | Slots::Missing => None,
    };
    assert_eq!(found, expected, "damaged: {damaged:?}, newer: {newer}");
}

fn mark_from(input: &mut Input<'_>) -> Mark {
    let some = |number: u64| (number != 0).then_some(number);
    let cluster_id = input.u128();
    Mark {
        cluster_id: (cluster_id != 0).then_some(ClusterId(cluster_id)),
        node_id: NodeId(input.number()),
        incarnation: Incarnation(input.u64()),
        boot: Boot(input.number()),
        suspicion: some(input.number()).map(Boot),
        term: Term(input.number()),
        vote: some(input.number()).map(NodeId),
        synced: LogBase {
            id: entry_id(input),
            checksum: Checksum(input.u32()),
        },
        snapshot: entry_id(input),
    }
}

fn entry_id(input: &mut Input<'_>) -> EntryId {
    EntryId {
        term: Term(input.number()),
        index: Index(input.number()),
    }
}

/// A slot, a file, and the worst of both.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let mark = Mark {
        cluster_id: Some(ClusterId(0xc1)),
        node_id: NodeId(1),
        incarnation: Incarnation(77),
        boot: Boot(3),
        suspicion: Some(Boot(2)),
        term: Term(5),
        vote: Some(NodeId(2)),
        ..Mark::default()
    };
    let slot = encode_slot(9, &mark).to_vec();
    let mut file = slot.clone();
    file.resize(STRIDE, 0);
    file.extend(encode_slot(
        10,
        &Mark {
            term: Term(6),
            ..mark
        },
    ));
    let mut newer_version = slot.clone();
    newer_version[8] = 2;
    let crc = crc32fast::hash(&newer_version[..SLOT_BYTES - 4]);
    newer_version[SLOT_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    let fields: Vec<u8> = (1..=100).collect();
    let mut edges = vec![0xff; 60];
    edges.extend([0xfe; 60]);
    let seeds = [
        ("seed-slot", slot.clone()),
        ("seed-file", file),
        ("seed-cut", slot[..SLOT_BYTES - 1].to_vec()),
        ("seed-version", newer_version),
        ("seed-fields", fields),
        ("seed-edges", edges),
        ("seed-empty", Vec::new()),
    ];
    seeds.map(|(name, data)| (name.to_owned(), data)).into()
}
