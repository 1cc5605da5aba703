//! `raft::Message` to the head of its frame, and back.

use bytes::Bytes;
use raft::{
    Append, AppendReply, Body, Boot, Checksum, Cleared, Entry, Heartbeat, HeartbeatReply, Incarnation, Index,
    Message, NodeId, Proposal, ProposalId, ProposalOutcome, ReadId, ReadIndexReply, Sender, SnapshotChunk,
    SnapshotMeta, SnapshotReply, Term, VoteReply, VoteRequest,
};
use storage::codec;

use super::DecodeError;
use super::part::{
    configuration_from_proto, configuration_to_proto, entry_id_from_proto, entry_id_to_proto,
    refusal_from_proto, refusal_to_proto, space_from_number, space_to_number,
};
use proto::cluster as pb;
use proto::cluster::message::Body as Head;

pub(super) fn to_proto(message: &Message) -> pb::Message {
    let sender = message.sender;
    pb::Message {
        sender_id: sender.id.0,
        sender_incarnation: sender.incarnation.0,
        sender_boot: sender.boot.0,
        sender_suspicion: sender.suspicion.map(|boot| boot.0),
        sender_space: space_to_number(sender.space),
        term: message.term.0,
        body: Some(body_to_proto(&message.body)),
    }
}

fn body_to_proto(body: &Body) -> Head {
    match body {
        Body::PreVote(request) => Head::PreVote(vote_request_to_proto(request)),
        Body::PreVoteReply(reply) => Head::PreVoteReply(vote_reply_to_proto(*reply)),
        Body::Vote(request) => Head::Vote(vote_request_to_proto(request)),
        Body::VoteReply(reply) => Head::VoteReply(vote_reply_to_proto(*reply)),
        Body::Append(append) => Head::Append(pb::Append {
            previous: Some(entry_id_to_proto(append.previous)),
            commit: append.commit.0,
            entry_count: append.entries.len() as u32,
        }),
        Body::AppendReply(reply) => Head::AppendReply(append_reply_to_proto(*reply)),
        Body::Heartbeat(beat) => Head::Heartbeat(pb::Heartbeat {
            commit: beat.commit.0,
            round: beat.round,
        }),
        Body::HeartbeatReply(reply) => Head::HeartbeatReply(pb::HeartbeatReply {
            round: reply.round,
            durable: reply.durable.0,
        }),
        Body::Snapshot(chunk) => Head::Snapshot(pb::SnapshotChunk {
            meta: Some(meta_to_proto(&chunk.meta)),
            offset: chunk.offset,
            checksum: chunk.checksum,
        }),
        Body::SnapshotReply(reply) => Head::SnapshotReply(pb::SnapshotReply {
            last: Some(entry_id_to_proto(reply.last)),
            next_offset: reply.next_offset,
            installed: reply.installed.map(|index| index.0),
        }),
        Body::Forward(proposals) => Head::Forward(forward_to_proto(proposals)),
        Body::ForwardReply(outcomes) => Head::ForwardReply(pb::ForwardReply {
            outcomes: outcomes.iter().map(outcome_to_proto).collect(),
        }),
        Body::ReadIndex(ids) => Head::ReadIndex(pb::ReadIndex {
            ids: ids.iter().map(|id| id.0).collect(),
        }),
        Body::ReadIndexReply(reply) => Head::ReadIndexReply(read_index_reply_to_proto(reply)),
        Body::TimeoutNow => Head::TimeoutNow(pb::TimeoutNow {}),
        Body::Cleared(cleared) => Head::Cleared(pb::Cleared {
            suspicion: cleared.suspicion.0,
            boot: cleared.boot.0,
        }),
    }
}

fn vote_request_to_proto(request: &VoteRequest) -> pb::VoteRequest {
    pb::VoteRequest {
        term: request.term.0,
        last: Some(entry_id_to_proto(request.last)),
        transfer: request.transfer,
    }
}

fn vote_reply_to_proto(reply: VoteReply) -> pb::VoteReply {
    pb::VoteReply {
        term: reply.term.0,
        granted: reply.granted,
    }
}

fn append_reply_to_proto(reply: AppendReply) -> pb::AppendReply {
    let body = match reply {
        AppendReply::Accepted { matched } => pb::append_reply::Body::Accepted(matched.0),
        AppendReply::Rejected { asked, hint } => pb::append_reply::Body::Rejected(pb::Rejected {
            asked: asked.0,
            hint: Some(entry_id_to_proto(hint)),
        }),
        AppendReply::NoSpace => pb::append_reply::Body::NoSpace(true),
    };
    pb::AppendReply { body: Some(body) }
}

fn meta_to_proto(meta: &SnapshotMeta) -> pb::SnapshotMeta {
    pb::SnapshotMeta {
        last: Some(entry_id_to_proto(meta.last)),
        checksum: meta.checksum.0,
        configuration: Some(configuration_to_proto(&meta.configuration)),
        size_bytes: meta.size_bytes,
        file_checksum: meta.file_checksum,
    }
}

fn forward_to_proto(proposals: &[Proposal]) -> pb::Forward {
    let proposals = proposals
        .iter()
        .map(|proposal| pb::Proposal {
            id: proposal.id.0,
            payload: proposal.payload.clone(),
            essential: proposal.essential,
        })
        .collect();
    pb::Forward { proposals }
}

fn outcome_to_proto(outcome: &ProposalOutcome) -> pb::ProposalOutcome {
    let result = match outcome.result {
        Ok(id) => pb::proposal_outcome::Result::Appended(entry_id_to_proto(id)),
        Err(refusal) => pb::proposal_outcome::Result::Refused(refusal_to_proto(refusal)),
    };
    pb::ProposalOutcome {
        id: outcome.id.0,
        result: Some(result),
    }
}

fn read_index_reply_to_proto(reply: &ReadIndexReply) -> pb::ReadIndexReply {
    let result = match reply.result {
        Ok(index) => pb::read_index_reply::Result::Index(index.0),
        Err(refusal) => pb::read_index_reply::Result::Refused(refusal_to_proto(refusal)),
    };
    pb::ReadIndexReply {
        ids: reply.ids.iter().map(|id| id.0).collect(),
        result: Some(result),
        asker: reply.asker.0,
    }
}

pub(super) fn from_proto(head: pb::Message, tail: Bytes) -> Result<Message, DecodeError> {
    let sender = Sender {
        id: NodeId(head.sender_id),
        incarnation: Incarnation(head.sender_incarnation),
        boot: Boot(head.sender_boot),
        suspicion: head.sender_suspicion.map(Boot),
        space: space_from_number(head.sender_space).ok_or(DecodeError::Unknown)?,
    };
    let body = body_from_proto(head.body.ok_or(DecodeError::Unknown)?, tail)?;
    Ok(Message {
        sender,
        term: Term(head.term),
        body,
    })
}

fn body_from_proto(head: Head, tail: Bytes) -> Result<Body, DecodeError> {
    Ok(match head {
        Head::PreVote(request) => Body::PreVote(vote_request_from_proto(request)),
        Head::PreVoteReply(reply) => Body::PreVoteReply(vote_reply_from_proto(reply)),
        Head::Vote(request) => Body::Vote(vote_request_from_proto(request)),
        Head::VoteReply(reply) => Body::VoteReply(vote_reply_from_proto(reply)),
        Head::Append(append) => Body::Append(append_from_proto(append, tail)?),
        Head::AppendReply(reply) => Body::AppendReply(append_reply_from_proto(reply)?),
        Head::Heartbeat(beat) => Body::Heartbeat(Heartbeat {
            commit: Index(beat.commit),
            round: beat.round,
        }),
        Head::HeartbeatReply(reply) => Body::HeartbeatReply(HeartbeatReply {
            round: reply.round,
            durable: Index(reply.durable),
        }),
        Head::Snapshot(chunk) => Body::Snapshot(SnapshotChunk {
            meta: meta_from_proto(chunk.meta)?,
            offset: chunk.offset,
            data: tail,
            checksum: chunk.checksum,
        }),
        Head::SnapshotReply(reply) => Body::SnapshotReply(SnapshotReply {
            last: entry_id_from_proto(reply.last),
            next_offset: reply.next_offset,
            installed: reply.installed.map(Index),
        }),
        Head::Forward(forward) => Body::Forward(forward_from_proto(forward)),
        Head::ForwardReply(reply) => Body::ForwardReply(
            reply
                .outcomes
                .into_iter()
                .map(outcome_from_proto)
                .collect::<Result<_, _>>()?,
        ),
        Head::ReadIndex(read) => Body::ReadIndex(read.ids.into_iter().map(ReadId).collect()),
        Head::ReadIndexReply(reply) => Body::ReadIndexReply(read_index_reply_from_proto(reply)?),
        Head::TimeoutNow(pb::TimeoutNow {}) => Body::TimeoutNow,
        Head::Cleared(cleared) => Body::Cleared(Cleared {
            suspicion: Boot(cleared.suspicion),
            boot: Boot(cleared.boot),
        }),
    })
}

fn vote_request_from_proto(request: pb::VoteRequest) -> VoteRequest {
    VoteRequest {
        term: Term(request.term),
        last: entry_id_from_proto(request.last),
        transfer: request.transfer,
    }
}

fn vote_reply_from_proto(reply: pb::VoteReply) -> VoteReply {
    VoteReply {
        term: Term(reply.term),
        granted: reply.granted,
    }
}

/// The records of the tail must be as many as announced, intact, contiguous from `previous` on, and each
/// chained to the one before it.
fn append_from_proto(append: pb::Append, mut tail: Bytes) -> Result<Append, DecodeError> {
    let previous = entry_id_from_proto(append.previous);
    let mut entries: Vec<Entry> =
        Vec::with_capacity((append.entry_count as usize).min(tail.len() / codec::HEADER_BYTES));
    let mut index = previous.index;
    while !tail.is_empty() {
        let (entry, length) = codec::decode(&tail)?;
        if index.0.checked_add(1) != Some(entry.id.index.0) {
            return Err(DecodeError::Malformed("entries that are not contiguous"));
        }
        if entries.last().is_some_and(|last| last.checksum != entry.previous) {
            return Err(DecodeError::Malformed("entries that are not chained"));
        }
        index = entry.id.index;
        entries.push(entry);
        tail = tail.split_off(length);
    }
    if entries.len() != append.entry_count as usize {
        return Err(DecodeError::Malformed(
            "an append with fewer or more entries than it says",
        ));
    }
    Ok(Append {
        previous,
        entries,
        commit: Index(append.commit),
    })
}

fn append_reply_from_proto(reply: pb::AppendReply) -> Result<AppendReply, DecodeError> {
    Ok(match reply.body.ok_or(DecodeError::Unknown)? {
        pb::append_reply::Body::Accepted(matched) => AppendReply::Accepted {
            matched: Index(matched),
        },
        pb::append_reply::Body::Rejected(rejected) => AppendReply::Rejected {
            asked: Index(rejected.asked),
            hint: entry_id_from_proto(rejected.hint),
        },
        pb::append_reply::Body::NoSpace(_) => AppendReply::NoSpace,
    })
}

fn meta_from_proto(meta: Option<pb::SnapshotMeta>) -> Result<SnapshotMeta, DecodeError> {
    let meta = meta.ok_or(DecodeError::Malformed("a snapshot piece without its snapshot"))?;
    let configuration = configuration_from_proto(meta.configuration.unwrap_or_default())
        .ok_or(DecodeError::Malformed("a membership that contradicts itself"))?;
    Ok(SnapshotMeta {
        last: entry_id_from_proto(meta.last),
        checksum: Checksum(meta.checksum),
        configuration,
        size_bytes: meta.size_bytes,
        file_checksum: meta.file_checksum,
    })
}

fn forward_from_proto(forward: pb::Forward) -> Vec<Proposal> {
    forward
        .proposals
        .into_iter()
        .map(|proposal| Proposal {
            id: ProposalId(proposal.id),
            payload: proposal.payload,
            essential: proposal.essential,
        })
        .collect()
}

fn outcome_from_proto(outcome: pb::ProposalOutcome) -> Result<ProposalOutcome, DecodeError> {
    let result = match outcome.result.ok_or(DecodeError::Unknown)? {
        pb::proposal_outcome::Result::Appended(id) => Ok(entry_id_from_proto(Some(id))),
        pb::proposal_outcome::Result::Refused(refusal) => {
            Err(refusal_from_proto(&refusal).ok_or(DecodeError::Unknown)?)
        }
    };
    Ok(ProposalOutcome {
        id: ProposalId(outcome.id),
        result,
    })
}

fn read_index_reply_from_proto(reply: pb::ReadIndexReply) -> Result<ReadIndexReply, DecodeError> {
    let result = match reply.result.ok_or(DecodeError::Unknown)? {
        pb::read_index_reply::Result::Index(index) => Ok(Index(index)),
        pb::read_index_reply::Result::Refused(refusal) => {
            Err(refusal_from_proto(&refusal).ok_or(DecodeError::Unknown)?)
        }
    };
    Ok(ReadIndexReply {
        ids: reply.ids.into_iter().map(ReadId).collect(),
        result,
        asker: Boot(reply.asker),
    })
}
