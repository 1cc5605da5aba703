//! What goes out comes in as it was, and nonsense is refused.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::naming::PAGE_COUNT;

struct Maker(StdRng);

impl Maker {
    fn number(&mut self) -> u64 {
        match self.0.random_range(0..4) {
            0 => 0,
            1 => self.0.random_range(0..1_000),
            2 => u64::MAX,
            _ => self.0.random(),
        }
    }

    fn chance(&mut self) -> bool {
        self.0.random()
    }

    fn text(&mut self) -> String {
        let texts = ["", "a", "a@@b", "10.0.0.1", "ä b", "x\0y"];
        texts[self.0.random_range(0..texts.len())].to_owned()
    }

    fn origin(&mut self) -> Origin {
        Origin {
            node: self.number(),
            boot: self.number(),
        }
    }

    fn service(&mut self) -> ServiceKey {
        let namespace = NamespaceId::new(&self.text());
        let (group, name) = (self.text(), self.text());
        ServiceKey::new(&namespace, &group, &name)
    }

    fn endpoint(&mut self) -> Endpoint {
        Endpoint {
            ip: self.text().into(),
            port: self.0.random(),
            cluster: self.text().into(),
        }
    }

    fn instance(&mut self) -> Instance {
        let pairs = self.0.random_range(0..4);
        Instance {
            weight: self.0.random_range(0.0..10_000.0),
            enabled: self.chance(),
            metadata: (0..pairs).map(|_| (self.text(), self.text())).collect(),
        }
    }

    fn delta(&mut self, service: &ServiceKey, service_stamp: Stamp) -> Delta {
        let beats = self.chance();
        let owner = match beats {
            true => Owner::Beats,
            false => Owner::Connection(format!("c{}", self.number()).into()),
        };
        let body = match self.0.random_range(0..3) {
            0 => None,
            1 if beats => Some(Body::Tombstone {
                keep_ms: self.number(),
            }),
            _ => Some(Body::Live {
                instance: Arc::new(self.instance()),
                healthy: self.chance(),
            }),
        };
        Delta {
            key: RecordKey {
                service: service.clone(),
                endpoint: self.endpoint(),
                owner,
            },
            revision: Revision(self.number()),
            written: body.map(|body| (Stamp(self.number()), body)),
            service_stamp,
        }
    }

    fn times(&mut self) -> Times {
        Times {
            lists: Stamp(self.number()),
            acts: Stamp(self.number()),
        }
    }

    fn deltas(&mut self) -> Vec<Delta> {
        let mut all = Vec::new();
        for _ in 0..self.0.random_range(0..4) {
            let (service, stamp) = (self.service(), Stamp(self.number()));
            for _ in 0..self.0.random_range(1..4) {
                all.push(self.delta(&service, stamp));
            }
        }
        all
    }

    fn heard(&mut self) -> Heard {
        let mut sums = Box::new([0; BUCKETS]);
        sums.iter_mut().for_each(|sum| *sum = self.number());
        let (known, newest) = (self.number(), self.number());
        Heard {
            origin: self.origin(),
            known: Revision(known),
            newest: Revision(newest.max(known)),
            sums,
            silent_ms: self.number(),
            absent_ms: self.chance().then(|| self.number()),
        }
    }

    fn message(&mut self) -> Message {
        match self.0.random_range(0..9) {
            0 => Message::Hello {
                origin: self.origin(),
                knows: self.chance().then(|| (self.origin(), Revision(self.number()))),
                lacks: self.chance().then(|| Lacks {
                    awaits_ms: self.number(),
                }),
            },
            1 => Message::Changes(Arc::new(Batch {
                origin: self.origin(),
                from: Revision(self.number()),
                through: Revision(self.number()),
                deltas: self.deltas(),
            })),
            2 => Message::Known {
                origin: self.origin(),
                known: Revision(self.number()),
                go_on: self.chance(),
            },
            3 => Message::Verify {
                heard: (0..self.0.random_range(0..3)).map(|_| self.heard()).collect(),
                times: self.times(),
                lacks: self.chance().then(|| Lacks {
                    awaits_ms: self.number(),
                }),
                begin_again: self.chance(),
            },
            4 => Message::Alive { times: self.times() },
            5 => Message::Tell,
            7 => Message::Stamps((0..3).map(|_| (self.service(), Stamp(self.number()))).collect()),
            6 => Message::Ask {
                origin: self.origin(),
                buckets: vec![self.0.random_range(0..BUCKETS), 0],
                after: self
                    .chance()
                    .then(|| self.deltas().pop())
                    .flatten()
                    .map(|delta| delta.key),
            },
            _ => Message::Bucket(Bucket {
                origin: self.origin(),
                bucket: self.0.random_range(0..BUCKETS),
                through: Revision(self.number()),
                after: self
                    .chance()
                    .then(|| self.deltas().pop())
                    .flatten()
                    .map(|delta| delta.key),
                more: self.chance(),
                deltas: self.deltas(),
            }),
        }
    }

    fn frame(&mut self) -> Frame {
        let id = self.number();
        if self.chance() {
            let done = [
                Done::Yes,
                Done::Beat {
                    interval_ms: self.number(),
                },
                Done::UnknownBeat,
                Done::WrongKind(Kind::Ephemeral),
                Done::WrongKind(Kind::Persistent),
                Done::Full,
                Done::NotHere,
            ];
            let done = done[self.0.random_range(0..done.len())].clone();
            let word = self.chance().then(|| self.deltas().pop()).flatten();
            let word = word.map(|delta| (self.origin(), delta));
            return Frame::Reply(Reply { id, done, word });
        }
        let what = match self.0.random_range(0..4) {
            0 => What::Register {
                instance: Arc::new(self.instance()),
                healthy: self.chance(),
            },
            1 => What::Deregister,
            2 => What::DeregisterAnywhere,
            _ => What::Beat {
                full: self.chance().then(|| Arc::new(self.instance())),
            },
        };
        let act = Act {
            service: self.service(),
            endpoint: self.endpoint(),
            what,
        };
        Frame::Request(Request {
            id,
            asked: Stamp(self.number()),
            above: Stamp(self.number()),
            act,
        })
    }
}

#[test]
fn what_goes_out_comes_in() {
    for seed in 0..2_000 {
        let mut maker = Maker(StdRng::seed_from_u64(seed));
        let message = maker.message();
        let decoded = decode_message(encode_message(&message));
        assert_eq!(decoded, Ok(Some(message)), "seed {seed}");
        let frame = maker.frame();
        assert_eq!(
            decode_forward(encode_forward(&frame)),
            Ok(Some(frame)),
            "seed {seed}"
        );
    }
}

#[test]
fn damage_is_refused_or_read_but_never_a_panic() {
    for seed in 0..500 {
        let mut maker = Maker(StdRng::seed_from_u64(seed));
        let mut bytes = encode_message(&maker.message()).to_vec();
        for _ in 0..maker.0.random_range(1..8) {
            if let Some(place) = bytes
                .len()
                .checked_sub(1)
                .map(|last| maker.0.random_range(0..=last))
            {
                bytes[place] = maker.0.random();
            }
        }
        bytes.truncate(maker.0.random_range(0..=bytes.len()));
        // Either word is right; the sender is trusted no further than its bytes go.
        let _whatever = decode_message(bytes.clone().into());
        let _whatever = decode_forward(bytes.into());
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let delta = |connection: &str, port, written| pb::Deltas {
        service: Some(pb::Service::default()),
        service_stamp: 1,
        deltas: vec![pb::Delta {
            port,
            connection: connection.to_owned(),
            written: Some(written),
            ..pb::Delta::default()
        }],
    };
    let live = |weight| {
        pb::delta::Written::Live(pb::Live {
            instance: Some(pb::Instance {
                weight,
                ..pb::Instance::default()
            }),
            unhealthy: false,
        })
    };
    let tombstone = pb::delta::Written::Tombstone(pb::Tombstone { keep_ms: 1 });
    assert!(deltas(vec![delta("", 65_535, live(1.0))]).is_ok());
    assert!(deltas(vec![delta("", 65_536, live(1.0))]).is_err());
    assert!(deltas(vec![delta("", 1, live(f64::NAN))]).is_err());
    assert!(deltas(vec![delta("", 1, tombstone.clone())]).is_ok());
    assert!(deltas(vec![delta("c", 1, tombstone)]).is_err());
    assert!(bucket(BUCKETS as u32).is_err());
    let short = pb::Heard {
        origin: Some(pb::Origin::default()),
        sums: vec![0; BUCKETS - 1],
        ..pb::Heard::default()
    };
    assert!(heard(short).is_err());
}

#[test]
fn a_page_of_the_longest_names_and_the_most_metadata_can_be_sent() {
    /// Of a frame, and what may wait for a peer (`cluster::limits`).
    const FRAME_BYTES_MAX: usize = 64 << 20;
    const WAITING_BYTES_MAX: usize = 96 << 20;
    use crate::model::validate::METADATA_MAX;
    let text = |length: usize| "\u{10348}".repeat(length);
    let delta = |number: usize| {
        let instance = Instance {
            metadata: [(&*text(METADATA_MAX / 2), &*text(METADATA_MAX / 2))]
                .into_iter()
                .collect(),
            ..Instance::default()
        };
        Delta {
            key: RecordKey {
                service: ServiceKey::new(
                    &NamespaceId::new(&text(128)),
                    &text(128),
                    &format!("{number}{}", text(512)),
                ),
                endpoint: Endpoint::exact(&text(128), 80, &text(64)),
                owner: Owner::Connection(text(128).into()),
            },
            revision: Revision(u64::MAX),
            written: Some((
                Stamp(u64::MAX),
                Body::Live {
                    instance: Arc::new(instance),
                    healthy: true,
                },
            )),
            service_stamp: Stamp(u64::MAX),
        }
    };
    let page = Message::Bucket(Bucket {
        origin: Origin { node: 1, boot: 1 },
        bucket: 0,
        through: Revision(u64::MAX),
        after: Some(delta(0).key),
        more: true,
        deltas: (0..PAGE_COUNT).map(delta).collect(),
    });
    let frame = encode_message(&page);
    // Sixteen are asked for at a time.
    assert!(frame.len() < FRAME_BYTES_MAX && 16 * frame.len() < WAITING_BYTES_MAX);
    assert_eq!(decode_message(frame), Ok(Some(page)));
}
