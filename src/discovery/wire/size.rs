//! Looks at a frame before it is taken apart: what it would cost in memory.
//!
//! An empty change takes two bytes on the wire and some two hundred in memory: without this a frame of 64 MiB
//! would take several GB. What registries send has names in it and stays far below these bounds.

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::WireError;
use crate::naming::BUCKETS;

/// Weight that any frame may have.
const WEIGHT_MAX: usize = 65_536;
/// Bytes of a frame that allow one more: a pair of metadata with one letter each takes eight, and a change
/// has an address, too.
const BYTES_PER_WEIGHT: usize = 8;
/// A question for all buckets, or for one behind a record of the longest names, and some for fields of newer
/// versions.
const ASK_BYTES_MAX: usize = 64 * BUCKETS;

/// The messages in a message that are worth a look, by their field.
pub(super) struct Shape {
    /// What one costs, in units of some 64 bytes.
    weight: usize,
    bytes_max: usize,
    nested: &'static [(u32, &'static Shape)],
}

const fn shape(weight: usize, nested: &'static [(u32, &'static Shape)]) -> Shape {
    Shape {
        weight,
        bytes_max: usize::MAX,
        nested,
    }
}

static PAIR: Shape = shape(1, &[]);
static INSTANCE: Shape = shape(0, &[(3, &PAIR)]);
static LIVE: Shape = shape(0, &[(1, &INSTANCE)]);
static DELTA: Shape = shape(4, &[(6, &LIVE)]);
static DELTAS: Shape = shape(4, &[(3, &DELTA)]);
static RECORDS: Shape = shape(0, &[(4, &DELTAS)]);
static HEARD: Shape = shape(2, &[]);
static VERIFY: Shape = shape(0, &[(1, &HEARD)]);
static ASK: Shape = Shape {
    weight: 0,
    bytes_max: ASK_BYTES_MAX,
    nested: &[],
};
static STAMP: Shape = shape(4, &[]);
static STAMPS: Shape = shape(0, &[(1, &STAMP)]);
static BEAT: Shape = shape(0, &[(1, &INSTANCE)]);
static DONE: Shape = shape(0, &[(4, &DELTAS)]);
static ACT: Shape = shape(0, &[(5, &LIVE), (7, &BEAT)]);

/// A frame of a distro link.
pub(super) static DISTRO: Shape = shape(
    0,
    &[
        (2, &RECORDS),
        (4, &VERIFY),
        (7, &ASK),
        (8, &RECORDS),
        (9, &STAMPS),
    ],
);
/// A frame of a forwarding link.
pub(super) static FORWARD: Shape = shape(0, &[(2, &ACT), (3, &DONE)]);

/// Refuses a frame that would take more memory than some ten times its bytes.
pub(super) fn check(frame: &[u8], shape: &Shape) -> Result<(), WireError> {
    let mut left = WEIGHT_MAX + frame.len() / BYTES_PER_WEIGHT;
    walk(frame, shape, &mut left)
}

/// As deep as the shapes are.
fn walk(mut message: &[u8], shape: &Shape, left: &mut usize) -> Result<(), WireError> {
    while !message.is_empty() {
        let (number, kind) = decode_key(&mut message)?;
        let nested = shape.nested.iter().find(|(field, _)| *field == number);
        let (Some((_, inner)), WireType::LengthDelimited) = (nested, kind) else {
            skip_field(kind, number, &mut message, DecodeContext::default())?;
            continue;
        };
        let length = usize::try_from(decode_varint(&mut message)?).unwrap_or(usize::MAX);
        let (body, rest) = message
            .split_at_checked(length)
            .ok_or(WireError::Impossible("a part longer than the whole"))?;
        if length > inner.bytes_max {
            return Err(WireError::Impossible("more buckets than there are"));
        }
        *left = left
            .checked_sub(inner.weight)
            .ok_or(WireError::Impossible("more values than are ever sent"))?;
        walk(body, inner, left)?;
        message = rest;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use proto::naming as pb;

    use super::*;

    fn changes(deltas: Vec<pb::Delta>) -> Vec<u8> {
        let services = vec![pb::Deltas {
            service: None,
            service_stamp: 0,
            deltas,
        }];
        let batch = pb::Batch {
            services,
            ..pb::Batch::default()
        };
        pb::Distro {
            message: Some(pb::distro::Message::Changes(batch)),
        }
        .encode_to_vec()
    }

    #[test]
    fn many_empty_values_are_refused_and_as_many_real_ones_are_not() {
        let count = 100_000;
        let empty = changes(vec![pb::Delta::default(); count]);
        assert_eq!(
            check(&empty, &DISTRO),
            Err(WireError::Impossible("more values than are ever sent"))
        );
        // One letter for everything, ten pairs each: nobody sends less.
        let pair = pb::Pair {
            name: "a".to_owned(),
            value: "b".to_owned(),
        };
        let instance = pb::Instance {
            weight: 1.0,
            disabled: false,
            metadata: vec![pair; 10],
        };
        let real = pb::Delta {
            ip: "1.1.1.1".to_owned(),
            port: 80,
            cluster: "DEFAULT".to_owned(),
            revision: u64::MAX / 2,
            stamp: 1_700_000_000_000,
            written: Some(pb::delta::Written::Live(pb::Live {
                instance: Some(instance),
                unhealthy: false,
            })),
            ..pb::Delta::default()
        };
        assert_eq!(check(&changes(vec![real; count]), &DISTRO), Ok(()));
    }

    #[test]
    fn metadata_without_end_is_refused_on_both_kinds_of_links() {
        let full = pb::Instance {
            metadata: vec![pb::Pair::default(); 100_000],
            ..pb::Instance::default()
        };
        let beat = pb::Act {
            what: Some(pb::act::What::Beat(pb::Beat { full: Some(full) })),
            ..pb::Act::default()
        };
        let forward = pb::Forward {
            id: 1,
            frame: Some(pb::forward::Frame::Act(beat)),
            ..pb::Forward::default()
        };
        assert!(check(&forward.encode_to_vec(), &FORWARD).is_err());
    }

    #[test]
    fn all_buckets_may_be_asked_for_and_no_more() {
        let ask = |buckets: Vec<u32>| {
            let ask = pb::Ask {
                origin: Some(pb::Origin {
                    node: u64::MAX,
                    boot: u64::MAX,
                }),
                buckets,
                after: None,
            };
            pb::Distro {
                message: Some(pb::distro::Message::Ask(ask)),
            }
            .encode_to_vec()
        };
        assert_eq!(check(&ask((0..BUCKETS as u32).collect()), &DISTRO), Ok(()));
        assert!(check(&ask(vec![0; ASK_BYTES_MAX]), &DISTRO).is_err());
    }
}
