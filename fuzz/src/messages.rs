//! Raft messages chosen by an input: mostly what a peer could say, sometimes what none would.

use std::collections::BTreeSet;

use bytes::Bytes;
use raft::{
    Append, AppendReply, Body, Boot, Checksum, Cleared, Configuration, Entry, EntryId, EntryKind, Heartbeat,
    HeartbeatReply, Incarnation, Index, LogBase, Member, Message, NodeId, Proposal, ProposalId,
    ProposalOutcome, ReadId, ReadIndexReply, Refusal, Sender, SnapshotChunk, SnapshotMeta, SnapshotReply,
    Space, Term, VoteReply, VoteRequest,
};

use crate::input::Input;

/// What a message is chosen near to: the state of the node that it is sent to.
#[derive(Clone, Debug, Default)]
pub struct Near {
    /// Its term.
    pub term: u64,
    /// Its boot and suspicion.
    pub boot: u64,
    /// Where its log begins.
    pub base: LogBase,
    /// The entries of its log.
    pub log: Vec<Entry>,
}

impl Near {
    /// The entry (or base) at an index.
    pub fn point(&self, index: u64) -> Option<LogBase> {
        let base = self.base.id.index.0;
        if index == base {
            return Some(self.base);
        }
        let entry = self
            .log
            .get(usize::try_from(index.checked_sub(base + 1)?).ok()?)?;
        Some(LogBase {
            id: entry.id,
            checksum: entry.checksum,
        })
    }

    /// Last index.
    pub fn last(&self) -> u64 {
        self.base.id.index.0 + self.log.len() as u64
    }
}

/// The incarnation of a node in these clusters.
pub fn incarnation(id: u64) -> Incarnation {
    Incarnation(70 + id)
}

/// A member of these clusters.
pub fn member(id: u64) -> Member {
    Member {
        id: NodeId(id),
        incarnation: incarnation(id),
        address: format!("10.0.0.{id}:9848"),
    }
}

/// A membership of these voters.
pub fn membership(voters: impl IntoIterator<Item = u64>) -> Configuration {
    let voters: BTreeSet<NodeId> = voters.into_iter().map(NodeId).collect();
    Configuration {
        members: voters.iter().map(|id| (*id, member(id.0))).collect(),
        voters,
        ..Configuration::default()
    }
}

/// A message of any kind.
pub fn message(input: &mut Input<'_>, near: &Near) -> Message {
    let term = term(input, near);
    let sender = sender(input);
    let body = body(input, near, term);
    Message {
        sender,
        term: Term(term),
        body,
    }
}

fn sender(input: &mut Input<'_>) -> Sender {
    let id = match input.u8() {
        byte @ 0..=239 => 2 + u64::from(byte) % 2,
        byte => u64::from(byte) % 6,
    };
    let odd = input.u8();
    Sender {
        id: NodeId(id),
        incarnation: if odd == 0xff {
            Incarnation(input.number())
        } else {
            incarnation(id)
        },
        boot: Boot(1 + u64::from(odd & 3)),
        suspicion: (odd & 0x1c == 0x1c).then_some(Boot(1)),
        space: match odd & 0xe0 {
            0x20 => Space::Low,
            0x40 => Space::Critical,
            _ => Space::Ample,
        },
    }
}

/// The node's own term, the next ones, earlier ones, any.
fn term(input: &mut Input<'_>, near: &Near) -> u64 {
    match input.u8() {
        0..=159 => near.term,
        160..=199 => near.term.saturating_add(1),
        200..=219 => near.term.saturating_add(2),
        220..=239 => near.term.saturating_sub(1),
        _ => input.number(),
    }
}

/// An index in or around the log.
fn index(input: &mut Input<'_>, near: &Near) -> u64 {
    match input.u8() {
        byte @ 0..=239 => near.last().saturating_add(3).saturating_sub(u64::from(byte) % 16),
        _ => input.number(),
    }
}

fn entry_id(input: &mut Input<'_>, near: &Near) -> EntryId {
    let index = index(input, near);
    match near.point(index) {
        Some(point) if !input.one_in(4) => point.id,
        _ => EntryId {
            term: Term(term(input, near)),
            index: Index(index),
        },
    }
}

fn body(input: &mut Input<'_>, near: &Near, term: u64) -> Body {
    match input.u8() % 22 {
        0 => Body::PreVote(vote_request(input, near, term.saturating_add(1))),
        1 => Body::PreVoteReply(vote_reply(input, near)),
        2 => Body::Vote(vote_request(input, near, term)),
        3 | 4 => Body::VoteReply(vote_reply(input, near)),
        5..=9 => Body::Append(append(input, near, term)),
        10 => Body::AppendReply(append_reply(input, near)),
        11 => Body::Heartbeat(Heartbeat {
            commit: Index(index(input, near)),
            round: input.number(),
        }),
        12 => Body::HeartbeatReply(HeartbeatReply {
            round: input.number(),
            durable: Index(index(input, near)),
        }),
        13..=15 => Body::Snapshot(chunk(input, near)),
        16 => Body::SnapshotReply(SnapshotReply {
            last: entry_id(input, near),
            next_offset: input.number(),
            installed: input.flag().then(|| Index(index(input, near))),
        }),
        17 => Body::Forward((0..input.below(4)).map(|_| proposal(input)).collect()),
        18 => Body::ForwardReply((0..input.below(4)).map(|_| outcome(input, near)).collect()),
        19 => reads(input, near),
        20 => Body::TimeoutNow,
        _ => Body::Cleared(Cleared {
            suspicion: Boot(1 + u64::from(input.u8() % 3)),
            boot: Boot(near.boot.saturating_sub(u64::from(input.one_in(4)))),
        }),
    }
}

fn vote_request(input: &mut Input<'_>, near: &Near, term: u64) -> VoteRequest {
    VoteRequest {
        term: Term(if input.one_in(16) { input.number() } else { term }),
        last: entry_id(input, near),
        transfer: input.one_in(4),
    }
}

fn vote_reply(input: &mut Input<'_>, near: &Near) -> VoteReply {
    VoteReply {
        term: Term(term(input, near)),
        granted: !input.one_in(4),
    }
}

fn append(input: &mut Input<'_>, near: &Near, term: u64) -> Append {
    let previous = entry_id(input, near);
    let mut before = near.point(previous.index.0).unwrap_or(LogBase {
        id: previous,
        checksum: Checksum(input.u32()),
    });
    let mut entries = Vec::new();
    for _ in 0..input.below(5) {
        let entry = entry(input, before, term);
        before = LogBase {
            id: entry.id,
            checksum: entry.checksum,
        };
        entries.push(entry);
    }
    if input.one_in(16) && !entries.is_empty() {
        let place = input.below(entries.len());
        let target = input.below(entries.len());
        entries.swap(place, target);
    }
    Append {
        previous,
        entries,
        commit: Index(index(input, near)),
    }
}

/// The entry after `before`, nearly always sealed and chained as it should be.
fn entry(input: &mut Input<'_>, before: LogBase, term: u64) -> Entry {
    let odd = input.u8();
    let id = EntryId {
        term: Term(match odd & 7 {
            0..=3 => before.id.term.0.max(term),
            4 | 5 => before.id.term.0,
            6 => term,
            _ => before.id.term.0.saturating_add(1),
        }),
        index: Index(before.id.index.0.saturating_add(if odd == 0xff { 2 } else { 1 })),
    };
    let (kind, payload) = match (odd >> 3) & 7 {
        0 => (EntryKind::Noop, Bytes::new()),
        1 => (EntryKind::Configuration, configuration(input).encode()),
        2 => (
            EntryKind::Configuration,
            Bytes::copy_from_slice(input.short_bytes()),
        ),
        _ => (EntryKind::Command, Bytes::copy_from_slice(input.short_bytes())),
    };
    let previous = if odd == 0xfe {
        Checksum(input.u32())
    } else {
        before.checksum
    };
    let mut entry = Entry::seal(id, kind, payload, previous);
    if odd == 0xfd {
        entry.checksum = Checksum(input.u32());
    }
    entry
}

/// A membership that a cluster could have: one to four members, of which some vote, sometimes joint.
pub fn configuration(input: &mut Input<'_>) -> Configuration {
    let bits = input.u16();
    let chosen = |shift: u16| (1..=4u64).filter(move |id| bits >> (shift + *id as u16 - 1) & 1 == 1);
    let mut configuration = membership(chosen(0));
    if configuration.voters.is_empty() {
        configuration = membership([1]);
    }
    for learner in chosen(4) {
        configuration
            .members
            .entry(NodeId(learner))
            .or_insert_with(|| member(learner));
    }
    if bits & 0xf000 == 0xf000 {
        for id in chosen(8) {
            configuration
                .members
                .entry(NodeId(id))
                .or_insert_with(|| member(id));
            configuration.outgoing.insert(NodeId(id));
        }
    }
    configuration
}

fn append_reply(input: &mut Input<'_>, near: &Near) -> AppendReply {
    match input.u8() % 4 {
        0 | 1 => AppendReply::Accepted {
            matched: Index(index(input, near)),
        },
        2 => AppendReply::Rejected {
            asked: Index(index(input, near)),
            hint: entry_id(input, near),
        },
        _ => AppendReply::NoSpace,
    }
}

fn chunk(input: &mut Input<'_>, near: &Near) -> SnapshotChunk {
    let last = entry_id(input, near);
    let checksum = near
        .point(last.index.0)
        .map_or(Checksum(7), |point| point.checksum);
    let mut configuration = configuration(input);
    match input.u8() {
        0xff => configuration
            .members
            .extend((10..80).map(|id| (NodeId(id), member(id)))),
        0xfe => configuration.voters.extend([NodeId(90)]),
        0xfd => {
            let long = Member {
                address: "a".repeat(600),
                ..member(4)
            };
            configuration.members.insert(NodeId(4), long);
        }
        _ => {}
    }
    // The content is the same for the same size, so that pieces of several messages fit together.
    let size = u64::from(input.u8() % 4) * 4;
    let offset = if size == 0 {
        0
    } else {
        u64::from(input.u8()) % size
    };
    let length = usize::from(input.u8() % 8);
    let data: Vec<u8> = (offset..size).take(length).map(|byte| byte as u8).collect();
    let meta = SnapshotMeta {
        last,
        checksum,
        configuration,
        size_bytes: if input.one_in(32) { input.number() } else { size },
        file_checksum: 1,
    };
    SnapshotChunk {
        meta,
        offset: if input.one_in(32) { input.number() } else { offset },
        checksum: if input.one_in(32) {
            input.u32()
        } else {
            crc32fast::hash(&data)
        },
        data: data.into(),
    }
}

fn proposal(input: &mut Input<'_>) -> Proposal {
    Proposal {
        id: ProposalId(input.number()),
        payload: Bytes::copy_from_slice(input.short_bytes()),
        essential: input.one_in(4),
    }
}

fn outcome(input: &mut Input<'_>, near: &Near) -> ProposalOutcome {
    ProposalOutcome {
        id: ProposalId(input.number()),
        result: if input.flag() {
            Ok(entry_id(input, near))
        } else {
            Err(refusal(input))
        },
    }
}

fn refusal(input: &mut Input<'_>) -> Refusal {
    let node = NodeId(u64::from(input.u8()));
    match input.u8() % 13 {
        0 => Refusal::NoLeader,
        1 => Refusal::NotLeader(node),
        2 => Refusal::Overloaded,
        3 => Refusal::LowOnSpace,
        4 => Refusal::TooLarge,
        5 => Refusal::Transferring,
        6 => Refusal::ChangeInProgress,
        7 => Refusal::TermNotCommitted,
        8 => Refusal::UnknownMember(node),
        9 => Refusal::OtherIncarnation(node),
        10 => Refusal::AddressTaken(node),
        11 => Refusal::LastVoter,
        _ => Refusal::CannotLead(node),
    }
}

fn reads(input: &mut Input<'_>, near: &Near) -> Body {
    let ids: Vec<ReadId> = (0..input.below(4)).map(|_| ReadId(input.number())).collect();
    if input.flag() {
        return Body::ReadIndex(ids);
    }
    Body::ReadIndexReply(ReadIndexReply {
        ids,
        result: if input.flag() {
            Ok(Index(index(input, near)))
        } else {
            Err(refusal(input))
        },
        asker: Boot(near.boot.saturating_sub(u64::from(input.one_in(4)))),
    })
}
