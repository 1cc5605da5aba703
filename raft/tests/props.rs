//! Properties over random values; the seed is printed on failure.

#[path = "scenarios/cluster.rs"]
#[expect(dead_code, reason = "the cluster serves several tests")]
mod cluster;

use std::collections::BTreeSet;

use bytes::Bytes;
use cluster::{Cluster, member, small_config};
use raft::{
    Append, AppendReply, Body, Boot, Checksum, Cleared, Configuration, Entry, EntryId, EntryKind, Heartbeat,
    HeartbeatReply, Incarnation, Index, Input, Member, Message, NodeId, Proposal, ProposalId,
    ProposalOutcome, ReadId, ReadIndexReply, Refusal, Sender, SnapshotChunk, SnapshotMeta, SnapshotReply,
    Space, Tally, Term, VoteReply, VoteRequest,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

struct Dice(ChaCha8Rng);

impl Dice {
    fn new(seed: u64) -> Dice {
        Dice(ChaCha8Rng::seed_from_u64(seed))
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0.next_u64() % end
    }

    fn coin(&mut self) -> bool {
        self.below(2) == 0
    }

    /// Mostly small, sometimes at the edges.
    fn odd(&mut self) -> u64 {
        match self.below(12) {
            0 => u64::MAX,
            1 => u64::MAX / 2,
            2 => u64::MAX - self.below(4),
            3 => self.0.next_u64(),
            _ => self.below(8),
        }
    }
}

fn random_configuration(dice: &mut Dice) -> Configuration {
    let mut configuration = Configuration::founding(member(1 + dice.below(9)));
    for _ in 0..dice.below(9) {
        let id = NodeId(1 + dice.below(9));
        let address = "x".repeat(dice.below(40) as usize);
        let incarnation = Incarnation(dice.odd());
        configuration.members.insert(
            id,
            Member {
                id,
                incarnation,
                address,
            },
        );
        if dice.coin() {
            configuration.voters.insert(id);
        }
        if dice.below(3) == 0 {
            configuration.outgoing.insert(id);
        }
    }
    configuration
}

/// Counted the way the thesis says it, set by set.
fn naive_majority(voters: &BTreeSet<NodeId>, yes: &BTreeSet<NodeId>) -> bool {
    2 * voters.intersection(yes).count() > voters.len()
}

#[test]
fn quorums_are_majorities_of_both_sets() {
    for seed in 0..2_000 {
        let mut dice = Dice::new(seed);
        let configuration = random_configuration(&mut dice);
        let yes: BTreeSet<NodeId> = (1..=10).filter(|_| dice.coin()).map(NodeId).collect();
        let no: BTreeSet<NodeId> = (1..=10)
            .map(NodeId)
            .filter(|id| !yes.contains(id) && dice.coin())
            .collect();
        let has = |set: &BTreeSet<NodeId>| {
            naive_majority(&configuration.voters, set)
                && (configuration.outgoing.is_empty() || naive_majority(&configuration.outgoing, set))
        };
        assert_eq!(
            configuration.has_quorum(|id| yes.contains(&id)),
            has(&yes),
            "seed {seed}"
        );
        let possible: BTreeSet<NodeId> = (1..=10).map(NodeId).filter(|id| !no.contains(id)).collect();
        let expected = match (has(&yes), has(&possible)) {
            (true, _) => Tally::Won,
            (false, true) => Tally::Open,
            (false, false) => Tally::Lost,
        };
        let vote = |id: NodeId| (yes.contains(&id) || no.contains(&id)).then(|| yes.contains(&id));
        assert_eq!(configuration.tally(vote), expected, "seed {seed}");
    }
}

#[test]
fn agreed_is_the_highest_value_a_quorum_has_reached() {
    for seed in 0..2_000 {
        let mut dice = Dice::new(seed);
        let configuration = random_configuration(&mut dice);
        let values: Vec<u64> = (0..=10).map(|_| dice.below(20)).collect();
        let value = |id: NodeId| values[id.0 as usize];
        let reached = |level: u64| configuration.has_quorum(|id| value(id) >= level);
        let expected = (0..=20).rev().find(|level| reached(*level));
        assert_eq!(configuration.agreed(value), expected, "seed {seed}");
    }
}

#[test]
fn configurations_survive_their_encoding() {
    for seed in 0..2_000 {
        let mut dice = Dice::new(seed);
        let configuration = random_configuration(&mut dice);
        let bytes = configuration.encode();
        assert_eq!(Configuration::decode(&bytes), Ok(configuration), "seed {seed}");
    }
    let empty = Configuration::default();
    assert_eq!(Configuration::decode(&empty.encode()), Ok(empty));
}

/// What decodes at all is exactly what would be encoded: nothing is read leniently.
#[test]
fn damaged_configurations_are_refused_or_canonical() {
    for seed in 0..5_000 {
        let mut dice = Dice::new(seed);
        let mut bytes = random_configuration(&mut dice).encode().to_vec();
        for _ in 0..1 + dice.below(3) {
            match dice.below(3) {
                0 => {
                    let at = dice.below(bytes.len() as u64) as usize;
                    bytes[at] ^= 1 << dice.below(8);
                }
                1 => bytes.truncate(1 + dice.below(bytes.len() as u64) as usize),
                _ => bytes.push(dice.below(256) as u8),
            }
        }
        if let Ok(decoded) = Configuration::decode(&bytes) {
            assert_eq!(decoded.encode(), bytes, "seed {seed}");
        }
    }
}

/// R38, R40: whatever a peer says, in whatever role the receiver is, nothing panics, and the node goes
/// on working.
#[test]
fn odd_messages_never_panic() {
    for seed in 0..300 {
        let played = std::panic::catch_unwind(|| receive_odd_messages(seed));
        assert!(played.is_ok(), "seed {seed}");
    }
}

fn receive_odd_messages(seed: u64) {
    let mut dice = Dice::new(seed);
    let mut cluster = Cluster::new(&[1, 2, 3], small_config());
    if dice.coin() {
        cluster.elect(1);
        cluster.propose(1, &["a", "b", "c"]);
        cluster.settle();
    }
    let receiver = 1 + dice.below(2);
    for _ in 0..200 {
        match dice.below(10) {
            0 => cluster.tick(receiver, 1 + dice.below(12) as u32),
            1 => cluster.propose(receiver, &["x"]),
            2 => cluster.read(receiver),
            _ => {
                let message = random_message(&mut dice);
                cluster.step(receiver, Input::Message(message));
            }
        }
        cluster.network.clear();
        cluster.trace.clear();
    }
}

fn random_message(dice: &mut Dice) -> Message {
    let id = NodeId(dice.below(5));
    let incarnation = if dice.below(8) == 0 {
        Incarnation(dice.odd())
    } else {
        Incarnation(id.0 * 10)
    };
    let suspicion = (dice.below(6) == 0).then(|| Boot(dice.below(3)));
    let space = [Space::Ample, Space::Ample, Space::Low, Space::Critical][dice.below(4) as usize];
    let boot = Boot(1 + dice.below(10) / 9);
    // One absurd term that is believed ends the conversation, so they are rare.
    let term = Term(if dice.below(60) == 0 {
        dice.odd()
    } else {
        1 + dice.below(4)
    });
    let body = random_body(dice, term);
    Message {
        sender: Sender {
            id,
            incarnation,
            boot,
            suspicion,
            space,
        },
        term,
        body,
    }
}

fn random_body(dice: &mut Dice, term: Term) -> Body {
    let entry_id = EntryId {
        term: Term(dice.odd().min(term.0)),
        index: Index(dice.odd()),
    };
    let result = if dice.coin() {
        Ok(Index(dice.odd()))
    } else {
        Err(Refusal::NoLeader)
    };
    match dice.below(17) {
        0 => Body::PreVote(VoteRequest {
            term: Term(term.0.saturating_add(1)),
            last: entry_id,
            transfer: dice.coin(),
        }),
        1 => Body::PreVoteReply(VoteReply {
            term: Term(dice.odd()),
            granted: dice.coin(),
        }),
        2 => Body::Vote(VoteRequest {
            term,
            last: entry_id,
            transfer: dice.coin(),
        }),
        3 => Body::VoteReply(VoteReply {
            term,
            granted: dice.coin(),
        }),
        4..=6 => Body::Append(random_append(dice, entry_id)),
        7 => Body::AppendReply(AppendReply::Accepted {
            matched: Index(dice.odd()),
        }),
        8 => Body::AppendReply(AppendReply::Rejected {
            asked: Index(dice.odd()),
            hint: entry_id,
        }),
        9 => Body::AppendReply(AppendReply::NoSpace),
        10 => Body::Heartbeat(Heartbeat {
            commit: Index(dice.odd()),
            round: dice.odd(),
        }),
        11 => Body::HeartbeatReply(HeartbeatReply {
            round: dice.odd(),
            durable: Index(dice.odd()),
        }),
        12 => Body::Snapshot(random_chunk(dice, entry_id)),
        13 => Body::SnapshotReply(SnapshotReply {
            last: entry_id,
            next_offset: dice.odd(),
            installed: dice.coin().then(|| Index(dice.odd())),
        }),
        14 => {
            let payload = Bytes::from(vec![1; dice.below(700) as usize]);
            Body::Forward(vec![Proposal {
                id: ProposalId(dice.odd()),
                payload,
                essential: dice.coin(),
            }])
        }
        15 => match dice.below(4) {
            0 => Body::TimeoutNow,
            1 => Body::Cleared(Cleared {
                suspicion: Boot(dice.odd()),
                boot: Boot(dice.odd()),
            }),
            2 => Body::ReadIndex(vec![ReadId(dice.odd()), ReadId(dice.odd())]),
            _ => {
                let outcome = ProposalOutcome {
                    id: ProposalId(dice.odd()),
                    result: Err(Refusal::NoLeader),
                };
                Body::ForwardReply(vec![outcome])
            }
        },
        _ => Body::ReadIndexReply(ReadIndexReply {
            ids: vec![ReadId(dice.odd())],
            result,
            asker: Boot(dice.below(3)),
        }),
    }
}

fn random_append(dice: &mut Dice, previous: EntryId) -> Append {
    let mut entries: Vec<Entry> = Vec::new();
    let mut checksum = Checksum(dice.odd() as u32);
    let mut id = previous;
    for _ in 0..dice.below(4) {
        let skip = if dice.below(8) == 0 { dice.odd() } else { 1 };
        id = EntryId {
            term: id.term,
            index: Index(id.index.0.wrapping_add(skip)),
        };
        let kind = [EntryKind::Noop, EntryKind::Command, EntryKind::Configuration][dice.below(3) as usize];
        let mut payload = random_configuration(dice).encode();
        if dice.below(4) == 0 {
            payload.truncate(dice.below(30) as usize);
        }
        let mut entry = Entry::seal(id, kind, payload, checksum);
        if dice.below(8) == 0 {
            entry.checksum = Checksum(0);
        }
        checksum = entry.checksum;
        entries.push(entry);
    }
    Append {
        previous,
        entries,
        commit: Index(dice.odd()),
    }
}

fn random_chunk(dice: &mut Dice, last: EntryId) -> SnapshotChunk {
    let data = Bytes::from(vec![3; dice.below(20) as usize]);
    let mut checksum = crc32fast::hash(&data);
    if dice.below(4) == 0 {
        checksum ^= 1;
    }
    // Never complete: the pieces of a liar would have to add up to the checksum of the whole file.
    let meta = SnapshotMeta {
        last,
        checksum: Checksum(1),
        configuration: random_configuration(dice),
        size_bytes: 1_000_000 + dice.below(3),
        file_checksum: 1,
    };
    SnapshotChunk {
        meta,
        offset: dice.odd(),
        data,
        checksum,
    }
}
