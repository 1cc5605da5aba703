//! `storage::codec`: the records of the log, on the disk and between nodes.
//!
//! * Any bytes are an error, or a record that encodes to exactly the bytes it was read from; both decoders
//!   agree; a record cut short is an error.
//! * What is encoded decodes to itself, whatever follows it.
//! * Any flipped bit of a record is found: an error, or a length that leaves bytes over, which every reader
//!   refuses.
//! * No more memory is held than the input is long.

use bytes::Bytes;
use raft::{Checksum, Entry, EntryId, EntryKind, Index, Term};
use storage::codec::{self, HEADER_BYTES};

use crate::alloc::bounded;
use crate::input::Input;

/// What decoding may hold besides the payload: the shared header of `Bytes`.
const OVERHEAD_BYTES: usize = 128;

/// See the module.
pub fn check(data: &[u8]) {
    any_bytes(data);
    a_record(data);
}

fn any_bytes(data: &[u8]) {
    let shared = Bytes::copy_from_slice(data);
    let decoded = bounded("decode", OVERHEAD_BYTES, || codec::decode(&shared));
    let copied = bounded("decode_slice", data.len() + OVERHEAD_BYTES, || {
        codec::decode_slice(data)
    });
    assert_eq!(decoded, copied, "the two decoders disagree");
    let Ok((entry, length)) = decoded else { return };
    assert_eq!(codec::encoded_len(&entry), length);
    assert_eq!(
        encoded(&entry),
        data[..length],
        "another record has the same meaning"
    );
    for cut in [0, 1, HEADER_BYTES - 1, HEADER_BYTES, length - 1] {
        if cut < length {
            codec::decode_slice(&data[..cut]).expect_err("a record that is cut off");
        }
    }
}

fn a_record(data: &[u8]) {
    let mut input = Input::new(data);
    let id = EntryId {
        term: Term(input.number()),
        index: Index(input.number()),
    };
    let kind = [EntryKind::Noop, EntryKind::Command, EntryKind::Configuration][input.below(3)];
    let previous = Checksum(input.u32());
    let payload = Bytes::copy_from_slice(input.short_bytes());
    let entry = Entry::seal(id, kind, payload, previous);
    let record = encoded(&entry);
    let mut followed = record.clone();
    followed.extend_from_slice(input.rest());
    assert_eq!(codec::decode_slice(&followed), Ok((entry, record.len())));
    // All bits of a short record, every tenth of a long one, always all of the header.
    let step = if record.len() <= 64 { 1 } else { 10 };
    let header = 0..8 * HEADER_BYTES;
    let payload = (8 * HEADER_BYTES..8 * record.len()).step_by(step);
    for bit in header.chain(payload) {
        let mut flipped = record.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok((_, length)) = codec::decode_slice(&flipped) {
            assert!(length < record.len(), "bit {bit} was flipped and not found");
        }
    }
}

fn encoded(entry: &Entry) -> Vec<u8> {
    let mut out = Vec::new();
    codec::encode(entry, &mut out);
    out
}

/// A record of each kind, and bytes that are nearly one.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let record = |kind, payload: &'static [u8]| {
        let id = EntryId {
            term: Term(3),
            index: Index(7),
        };
        encoded(&Entry::seal(
            id,
            kind,
            Bytes::from_static(payload),
            Checksum(0x1234),
        ))
    };
    let command = record(EntryKind::Command, b"a command of some length");
    let mut two = command.clone();
    two.extend(record(EntryKind::Noop, b""));
    let mut long = command.clone();
    long[2..6].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut newer = command.clone();
    newer[0] = 2;
    let seeds = [
        ("seed-command", command.clone()),
        ("seed-noop", record(EntryKind::Noop, b"")),
        (
            "seed-membership",
            record(EntryKind::Configuration, b"\x01\x00\x00"),
        ),
        ("seed-two", two),
        ("seed-cut", command[..command.len() - 1].to_vec()),
        ("seed-long", long),
        ("seed-newer", newer),
        ("seed-empty", Vec::new()),
    ];
    seeds.map(|(name, data)| (name.to_owned(), data)).into()
}
