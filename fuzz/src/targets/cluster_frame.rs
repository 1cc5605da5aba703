//! `rnacos::cluster`: raft messages as frames between nodes.
//!
//! * Any bytes are an error, or a message that comes back from its own frame.
//! * A message that was made comes back as it was, or is refused when it contradicts itself (entries that are
//!   not intact or not chained, memberships with voters that are no members).
//! * With flipped bits or a cut in a frame, the entries in what is decoded are entries that were sent.
//! * Memory stays within a multiple of the input that protobuf and its smallest elements ask for.

use bytes::BytesMut;
use raft::{ADDRESS_BYTES_MAX, Append, Body, Configuration, Message};
use rnacos::cluster::{decode, encode};

use crate::alloc::bounded;
use crate::damage::Damage;
use crate::input::Input;
use crate::messages::{Near, message};

/// Bytes of memory for a byte of input; see [`super::command`].
const EXPANSION_MAX: usize = 160;

/// Bytes of the length in front of a frame.
const LENGTH_BYTES: usize = 4;

/// See the module.
pub fn check(data: &[u8]) {
    let decoded = bounded("a frame", EXPANSION_MAX * data.len() + (4 << 10), || decode(data));
    if let Ok(message) = decoded {
        assert_eq!(decode(&frame(&message)).as_ref(), Ok(&message));
    }
    a_message(data);
}

fn a_message(data: &[u8]) {
    let mut input = Input::new(data);
    let message = message(&mut input, &Near::default());
    let frame = frame(&message);
    match decode(&frame) {
        Ok(decoded) => assert_eq!(decoded, message),
        Err(error) => assert!(!is_sound(&message), "{error}: {message:?}"),
    }
    let mut damaged = frame.clone();
    for _ in 0..1 + input.below(3) {
        if let Some(damage) = Damage::choose(&mut input, frame.len()) {
            damage.apply(&mut damaged);
        }
    }
    if let (Ok(decoded), Body::Append(sent)) = (decode(&damaged), &message.body)
        && let Body::Append(found) = decoded.body
    {
        let were_sent = found.entries.iter().all(|entry| sent.entries.contains(entry));
        assert!(were_sent, "an entry that was not sent");
    }
}

/// The frame of a message, without its length.
fn frame(message: &Message) -> Vec<u8> {
    let mut out = BytesMut::new();
    encode(message, &mut out).expect("a small message");
    let length = u32::from_be_bytes([out[0], out[1], out[2], out[3]]) as usize;
    assert_eq!(length, out.len() - LENGTH_BYTES);
    out[LENGTH_BYTES..].to_vec()
}

/// What every peer sends.
fn is_sound(message: &Message) -> bool {
    match &message.body {
        Body::Append(append) => is_chained(append),
        Body::Snapshot(chunk) => is_membership(&chunk.meta.configuration),
        _ => true,
    }
}

fn is_chained(append: &Append) -> bool {
    let mut index = append.previous.index.0;
    let contiguous = append.entries.iter().all(|entry| {
        index = index.wrapping_add(1);
        index != 0 && entry.id.index.0 == index && entry.is_intact()
    });
    let pairs = append.entries.windows(2);
    contiguous && pairs.into_iter().all(|pair| pair[0].checksum == pair[1].previous)
}

fn is_membership(configuration: &Configuration) -> bool {
    let known = |id| configuration.members.contains_key(id);
    let short = |member: &raft::Member| member.address.len() <= ADDRESS_BYTES_MAX;
    configuration
        .voters
        .iter()
        .chain(&configuration.outgoing)
        .all(known)
        && configuration.members.values().all(short)
}

/// A frame of each kind, and the bytes that make a message of each kind.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut seeds = vec![("seed-empty".to_owned(), Vec::new())];
    for kind in 0..22u8 {
        let mut bytes = vec![0, 0, 0, kind];
        for n in 0..40u8 {
            bytes.extend([n, 3, n.wrapping_mul(7), 1]);
        }
        let message = message(&mut Input::new(&bytes), &Near::default());
        seeds.push((format!("seed-frame-{kind:02}"), frame(&message)));
        seeds.push((format!("seed-made-{kind:02}"), bytes));
    }
    seeds
}
