//! `rnacos::discovery::wire`: what registries say to each other, and what they forward, as frames.
//!
//! * Any bytes are an error, a message of a kind that is not known, or one that comes back from its own frame.
//! * Memory stays within a multiple of the input that protobuf and its smallest elements ask for; the bound
//!   that holds for large frames (a change takes some 200 bytes and may take two on the wire) has tests of
//!   its own in that module.

use std::sync::Arc;

use bytes::Bytes;
use rnacos::discovery::forward::{Frame, Reply, Request};
use rnacos::discovery::wire::{decode_forward, decode_message, encode_forward, encode_message};
use rnacos::discovery::{Act, Done, What};
use rnacos::distro::{Heard, Lacks, Message};
use rnacos::model::{Endpoint, NamespaceId, ServiceKey};
use rnacos::naming::{
    BUCKETS, Batch, Body, Bucket, Delta, Instance, Kind, Origin, Owner, RecordKey, Revision, Stamp, Times,
};

use crate::alloc::bounded;

/// Bytes of memory for a byte of input: an empty change, twice while its list grows, and what it becomes.
const EXPANSION_MAX: usize = 640;

/// See the module.
pub fn check(data: &[u8]) {
    let frame = Bytes::copy_from_slice(data);
    let bytes_max = EXPANSION_MAX * data.len() + (4 << 10);
    let message = bounded("a message", bytes_max, || decode_message(frame.clone()));
    if let Ok(Some(message)) = message {
        assert_eq!(decode_message(encode_message(&message)), Ok(Some(message)));
    }
    let forward = bounded("a forwarded act", bytes_max, || decode_forward(frame));
    if let Ok(Some(forward)) = forward {
        assert_eq!(decode_forward(encode_forward(&forward)), Ok(Some(forward)));
    }
}

/// A frame of each kind.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut seeds = vec![("seed-empty".to_owned(), Vec::new())];
    for (number, message) in messages().iter().enumerate() {
        seeds.push((format!("seed-message-{number}"), encode_message(message).to_vec()));
    }
    for (number, frame) in forwards().iter().enumerate() {
        seeds.push((
            format!("seed-forward-{number:02}"),
            encode_forward(frame).to_vec(),
        ));
    }
    seeds
}

const ORIGIN: Origin = Origin { node: 2, boot: 7 };

fn messages() -> Vec<Message> {
    let times = Times {
        lists: Stamp(1_790_000_060_000),
        acts: Stamp(1_790_000_000_000),
    };
    let heard = |absent_ms| Heard {
        origin: ORIGIN,
        known: Revision(300),
        newest: Revision(302),
        sums: Box::new(std::array::from_fn(|bucket| bucket as u64 * 0x0101_0101)),
        silent_ms: 40,
        absent_ms,
    };
    vec![
        Message::Hello {
            origin: ORIGIN,
            knows: Some((Origin { node: 1, boot: 3 }, Revision(12))),
            lacks: Some(Lacks { awaits_ms: 14_000 }),
        },
        Message::Changes(Arc::new(Batch {
            origin: ORIGIN,
            from: Revision(1),
            through: Revision(4),
            deltas: deltas(),
        })),
        Message::Known {
            origin: ORIGIN,
            known: Revision(4),
            go_on: true,
        },
        Message::Verify {
            heard: vec![heard(None), heard(Some(1_500))],
            times,
            lacks: None,
            begin_again: true,
        },
        Message::Alive { times },
        Message::Tell,
        Message::Ask {
            origin: ORIGIN,
            buckets: vec![0, 7, BUCKETS - 1],
            after: None,
        },
        Message::Ask {
            origin: ORIGIN,
            buckets: vec![7],
            after: deltas().pop().map(|delta| delta.key),
        },
        Message::Bucket(Bucket {
            origin: ORIGIN,
            bucket: 7,
            through: Revision(4),
            after: deltas().pop().map(|delta| delta.key),
            more: true,
            deltas: deltas(),
        }),
    ]
}

/// One of each kind, of two services.
fn deltas() -> Vec<Delta> {
    let live = Body::Live {
        instance: instance(),
        healthy: true,
    };
    let bodies = [
        (Owner::Beats, Some(live.clone())),
        (
            Owner::Connection("1790000000000_10.0.0.9_40000".into()),
            Some(live),
        ),
        (Owner::Beats, Some(Body::Tombstone { keep_ms: 90_000 })),
        (Owner::Beats, None),
    ];
    let numbered = bodies.into_iter().zip(1u16..);
    numbered
        .map(|((owner, body), number)| Delta {
            key: RecordKey {
                service: service(if number < 4 { "orders" } else { "users" }),
                endpoint: Endpoint::new("10.0.0.1", 8_080 + number, ""),
                owner,
            },
            revision: Revision(number.into()),
            written: body.map(|body| (Stamp(1_790_000_000_000), body)),
            service_stamp: Stamp(1_790_000_000_001),
        })
        .collect()
}

fn service(name: &str) -> ServiceKey {
    ServiceKey::new(&NamespaceId::new("dev"), "DEFAULT_GROUP", name)
}

fn instance() -> Arc<Instance> {
    Arc::new(Instance {
        weight: 2.5,
        enabled: false,
        metadata: [("version", "1.2"), ("preserved.heart.beat.interval", "2000")]
            .into_iter()
            .collect(),
    })
}

fn forwards() -> Vec<Frame> {
    let full = instance();
    let acts = [
        What::Register {
            instance: Arc::clone(&full),
            healthy: true,
        },
        What::Deregister,
        What::DeregisterAnywhere,
        What::Beat { full: None },
        What::Beat { full: Some(full) },
    ];
    let done = [
        Done::Yes,
        Done::Beat { interval_ms: 5_000 },
        Done::UnknownBeat,
        Done::WrongKind(Kind::Ephemeral),
        Done::WrongKind(Kind::Persistent),
        Done::Full,
        Done::NotHere,
    ];
    let requests = acts.map(|what| {
        Frame::Request(Request {
            id: 300,
            asked: Stamp(1_790_000_000_000),
            above: Stamp(1_789_999_999_000),
            act: Act {
                service: service("orders"),
                endpoint: Endpoint::new("host.example", 80, "c1"),
                what,
            },
        })
    });
    let mut words = deltas().into_iter();
    let replies = done.map(|done| {
        let word = words.next().map(|delta| (ORIGIN, delta));
        Frame::Reply(Reply { id: 301, done, word })
    });
    requests.into_iter().chain(replies).collect()
}
