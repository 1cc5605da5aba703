//! Round trips of random messages, and bytes that are none. Seeds are printed by the assertions.

use raft::{
    Append, AppendReply, Boot, Checksum, Cleared, Configuration, EntryId, EntryKind, Heartbeat,
    HeartbeatReply, Incarnation, Index, Member, NodeId, Proposal, ProposalId, ProposalOutcome, ReadId,
    ReadIndexReply, Refusal, Sender, SnapshotChunk, SnapshotMeta, SnapshotReply, Space, Term, VoteReply,
    VoteRequest,
};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::*;

const SEEDS: u64 = 2_000;

#[test]
fn what_is_encoded_is_what_is_decoded() {
    for seed in 0..SEEDS {
        let mut random = StdRng::seed_from_u64(seed);
        let messages: Vec<Message> = (0..random.random_range(1..8))
            .map(|_| message(&mut random))
            .collect();
        let mut stream = BytesMut::new();
        for message in &messages {
            encode(message, &mut stream).unwrap();
        }
        assert_eq!(unframe(&stream, &mut random).unwrap(), messages, "seed {seed}");
    }
}

#[test]
fn damaged_bytes_give_an_error_or_a_message_but_never_another_entry() {
    for seed in 0..SEEDS {
        let mut random = StdRng::seed_from_u64(seed);
        let original = message(&mut random);
        let mut stream = BytesMut::new();
        encode(&original, &mut stream).unwrap();
        let mut frame = stream.split_off(LENGTH_BYTES);
        for _ in 0..random.random_range(1..4) {
            let place = random.random_range(0..frame.len());
            frame[place] ^= 1 << random.random_range(0..8);
        }
        let cut = random.random_range(frame.len() / 2..=frame.len());
        let Ok(decoded) = decode(&frame[..cut]) else {
            continue;
        };
        if let (Body::Append(before), Body::Append(after)) = (&original.body, &decoded.body) {
            assert!(
                after.entries.iter().all(|entry| before.entries.contains(entry)),
                "seed {seed}"
            );
        }
    }
}

#[test]
fn garbage_is_refused_without_a_panic() {
    for seed in 0..SEEDS {
        let mut random = StdRng::seed_from_u64(seed);
        let mut bytes = vec![0; random.random_range(0..512)];
        random.fill_bytes(&mut bytes);
        let _ = decode(&bytes);
        let _ = unframe(&bytes, &mut random);
    }
}

#[test]
fn a_frame_beyond_the_limit_is_refused_by_both_sides() {
    let mut random = StdRng::seed_from_u64(1);
    let payload = Bytes::from(vec![7; FRAME_BYTES_MAX]);
    let large = Message {
        body: Body::Append(append_of(&[payload], &mut random)),
        ..message(&mut random)
    };
    let mut out = BytesMut::from(&b"before"[..]);
    assert!(matches!(
        encode(&large, &mut out),
        Err(EncodeError::TooLarge { .. })
    ));
    assert_eq!(&out[..], b"before");

    let length = (FRAME_BYTES_MAX as u32 + 1).to_be_bytes();
    let result = Unframer::default().feed(&length, |_| Ok(()));
    assert_eq!(result, Err(DecodeError::Malformed("a frame longer than 16 MiB")));
}

#[test]
fn the_largest_entry_fits_a_frame() {
    let mut random = StdRng::seed_from_u64(1);
    let entry = Bytes::from(vec![7; raft::Config::default().entry_bytes_max]);
    let largest = Message {
        body: Body::Append(append_of(&[entry], &mut random)),
        ..message(&mut random)
    };
    let mut out = BytesMut::new();
    encode(&largest, &mut out).unwrap();
    assert_eq!(unframe(&out, &mut random).unwrap(), [largest]);
}

/// A frame of 16 MiB holds eight million empty proposals, which would take 590 MB in memory.
#[test]
fn more_values_than_are_ever_sent_are_refused_before_they_are_taken_apart() {
    let frame = |body| {
        let head = pb::Message {
            sender_id: 1,
            body: Some(body),
            ..Default::default()
        }
        .encode_to_vec();
        let mut frame = (head.len() as u32).to_be_bytes().to_vec();
        frame.extend_from_slice(&head);
        frame
    };
    let forward = |count| {
        pb::message::Body::Forward(pb::Forward {
            proposals: vec![pb::Proposal::default(); count],
        })
    };
    let too_many = DecodeError::Malformed("more values in one message than are ever sent");
    assert!(decode(&frame(forward(VALUES_MAX))).is_ok());
    assert_eq!(decode(&frame(forward(VALUES_MAX + 1))), Err(too_many.clone()));
    assert_eq!(decode(&frame(forward(8_000_000))), Err(too_many.clone()));
    let replies = pb::message::Body::ForwardReply(pb::ForwardReply {
        outcomes: vec![pb::ProposalOutcome::default(); VALUES_MAX + 1],
    });
    assert_eq!(decode(&frame(replies)), Err(too_many));
    let readers = |count| {
        pb::message::Body::ReadIndex(pb::ReadIndex {
            ids: vec![u64::MAX; count],
        })
    };
    assert!(decode(&frame(readers(raft::Config::default().readers_max))).is_ok());
    assert_eq!(
        decode(&frame(readers(500_000))),
        Err(DecodeError::Malformed("a head larger than any that is sent"))
    );
}

/// R38: a newer version may send what this one does not know.
#[test]
fn unknown_kinds_are_told_from_damage() {
    // Field 99, a length-delimited body; and no body at all.
    let head = pb::Message {
        sender_id: 1,
        ..Default::default()
    }
    .encode_to_vec();
    let mut unknown = head.clone();
    unknown.extend_from_slice(&[0x9a, 0x06, 0x01, 0x00]);
    for head in [head, unknown] {
        let mut frame = (head.len() as u32).to_be_bytes().to_vec();
        frame.extend_from_slice(&head);
        frame.extend_from_slice(b"a tail of its own");
        assert_eq!(decode(&frame), Err(DecodeError::Unknown));
    }
    let space = pb::Message {
        sender_space: 9,
        body: Some(pb::message::Body::TimeoutNow(pb::TimeoutNow {})),
        ..Default::default()
    };
    let head = space.encode_to_vec();
    let frame = [&(head.len() as u32).to_be_bytes()[..], &head].concat();
    assert_eq!(decode(&frame), Err(DecodeError::Unknown));
}

#[test]
fn entries_must_be_contiguous_and_chained() {
    let mut random = StdRng::seed_from_u64(3);
    let payloads = [
        Bytes::from_static(b"a"),
        Bytes::from_static(b"b"),
        Bytes::from_static(b"c"),
    ];
    let good = append_of(&payloads, &mut random);
    let mut gap = good.clone();
    gap.entries.remove(1);
    let mut unchained = good.clone();
    let other = Entry::seal(good.entries[1].id, EntryKind::Command, Bytes::new(), Checksum(1));
    unchained.entries[1] = other;
    for (append, why) in [
        (gap, "entries that are not contiguous"),
        (unchained, "entries that are not chained"),
    ] {
        let mut out = BytesMut::new();
        let message = Message {
            body: Body::Append(append),
            ..message(&mut random)
        };
        encode(&message, &mut out).unwrap();
        assert_eq!(decode(&out[LENGTH_BYTES..]), Err(DecodeError::Malformed(why)));
    }
}

/// Feeds a stream in pieces of random sizes.
fn unframe(mut stream: &[u8], random: &mut StdRng) -> Result<Vec<Message>, DecodeError> {
    let mut unframer = Unframer::default();
    let mut messages = Vec::new();
    while !stream.is_empty() {
        let longest = if random.random() { 16 } else { stream.len() };
        let (piece, rest) = stream.split_at(random.random_range(1..=longest.min(stream.len())));
        unframer.feed(piece, |frame| {
            messages.push(decode(frame)?);
            Ok(())
        })?;
        stream = rest;
    }
    Ok(messages)
}

fn message(random: &mut StdRng) -> Message {
    let sender = Sender {
        id: NodeId(number(random)),
        incarnation: Incarnation(random.random()),
        boot: Boot(number(random)),
        suspicion: random.random::<bool>().then(|| Boot(number(random))),
        space: [Space::Ample, Space::Low, Space::Critical][random.random_range(0..3)],
    };
    Message {
        sender,
        term: Term(number(random)),
        body: body(random),
    }
}

fn body(random: &mut StdRng) -> Body {
    match random.random_range(0..16) {
        0 => Body::PreVote(vote_request(random)),
        1 => Body::PreVoteReply(VoteReply {
            term: Term(number(random)),
            granted: random.random(),
        }),
        2 => Body::Vote(vote_request(random)),
        3 => Body::VoteReply(VoteReply {
            term: Term(number(random)),
            granted: random.random(),
        }),
        4 => {
            let payloads: Vec<Bytes> = (0..random.random_range(0..5)).map(|_| payload(random)).collect();
            Body::Append(append_of(&payloads, random))
        }
        5 => Body::AppendReply(match random.random_range(0..3) {
            0 => AppendReply::Accepted {
                matched: Index(number(random)),
            },
            1 => AppendReply::Rejected {
                asked: Index(number(random)),
                hint: entry_id(random),
            },
            _ => AppendReply::NoSpace,
        }),
        6 => Body::Heartbeat(Heartbeat {
            commit: Index(number(random)),
            round: number(random),
        }),
        7 => Body::HeartbeatReply(HeartbeatReply {
            round: number(random),
            durable: Index(number(random)),
        }),
        8 => Body::Snapshot(SnapshotChunk {
            meta: meta(random),
            offset: number(random),
            data: payload(random),
            checksum: random.random(),
        }),
        9 => Body::SnapshotReply(SnapshotReply {
            last: entry_id(random),
            next_offset: number(random),
            installed: random.random::<bool>().then(|| Index(number(random))),
        }),
        10 => Body::Forward((0..random.random_range(0..5)).map(|_| proposal(random)).collect()),
        11 => Body::ForwardReply((0..random.random_range(0..5)).map(|_| outcome(random)).collect()),
        12 => Body::ReadIndex(
            (0..random.random_range(0..5))
                .map(|_| ReadId(number(random)))
                .collect(),
        ),
        13 => Body::ReadIndexReply(ReadIndexReply {
            ids: (0..random.random_range(0..5))
                .map(|_| ReadId(number(random)))
                .collect(),
            result: if random.random() {
                Ok(Index(number(random)))
            } else {
                Err(refusal(random))
            },
            asker: Boot(number(random)),
        }),
        14 => Body::TimeoutNow,
        _ => Body::Cleared(Cleared {
            suspicion: Boot(number(random)),
            boot: Boot(number(random)),
        }),
    }
}

/// Small ones, zero and the largest included.
fn number(random: &mut StdRng) -> u64 {
    match random.random_range(0..4) {
        0 => 0,
        1 => u64::MAX,
        2 => random.random(),
        _ => random.random_range(0..1000),
    }
}

fn payload(random: &mut StdRng) -> Bytes {
    let mut bytes = vec![0; random.random_range(0..600)];
    random.fill_bytes(&mut bytes);
    bytes.into()
}

fn entry_id(random: &mut StdRng) -> EntryId {
    EntryId {
        term: Term(number(random)),
        index: Index(number(random)),
    }
}

fn vote_request(random: &mut StdRng) -> VoteRequest {
    VoteRequest {
        term: Term(number(random)),
        last: entry_id(random),
        transfer: random.random(),
    }
}

fn append_of(payloads: &[Bytes], random: &mut StdRng) -> Append {
    let previous = EntryId {
        term: Term(3),
        index: Index(random.random_range(0..1000)),
    };
    let mut link = Checksum(random.random());
    let mut entries = Vec::new();
    for (offset, payload) in payloads.iter().enumerate() {
        let id = EntryId {
            term: Term(4),
            index: Index(previous.index.0 + 1 + offset as u64),
        };
        let kind = [EntryKind::Noop, EntryKind::Command, EntryKind::Configuration][random.random_range(0..3)];
        let entry = Entry::seal(id, kind, payload.clone(), link);
        link = entry.checksum;
        entries.push(entry);
    }
    Append {
        previous,
        entries,
        commit: Index(number(random)),
    }
}

fn meta(random: &mut StdRng) -> SnapshotMeta {
    let mut configuration = Configuration::default();
    for id in 1..=random.random_range(1..6) {
        let id = NodeId(id);
        let incarnation = Incarnation(random.random());
        configuration.members.insert(
            id,
            Member {
                id,
                incarnation,
                address: format!("node-{id}.example:9848"),
            },
        );
        match random.random_range(0..3) {
            0 => configuration.voters.insert(id),
            1 => configuration.outgoing.insert(id),
            _ => false,
        };
    }
    SnapshotMeta {
        last: entry_id(random),
        checksum: Checksum(random.random()),
        configuration,
        size_bytes: number(random),
        file_checksum: random.random(),
    }
}

fn proposal(random: &mut StdRng) -> Proposal {
    Proposal {
        id: ProposalId(number(random)),
        payload: payload(random),
        essential: random.random(),
    }
}

fn outcome(random: &mut StdRng) -> ProposalOutcome {
    let result = if random.random() {
        Ok(entry_id(random))
    } else {
        Err(refusal(random))
    };
    ProposalOutcome {
        id: ProposalId(number(random)),
        result,
    }
}

fn refusal(random: &mut StdRng) -> Refusal {
    let node = NodeId(number(random));
    let all = [
        Refusal::NoLeader,
        Refusal::NotLeader(node),
        Refusal::Overloaded,
        Refusal::LowOnSpace,
        Refusal::TooLarge,
        Refusal::Transferring,
        Refusal::ChangeInProgress,
        Refusal::TermNotCommitted,
        Refusal::UnknownMember(node),
        Refusal::OtherIncarnation(node),
        Refusal::AddressTaken(node),
        Refusal::LastVoter,
        Refusal::CannotLead(node),
    ];
    all[random.random_range(0..all.len())]
}
