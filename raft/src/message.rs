//! What nodes tell one another. Plain values: the runtime puts them on the wire.

use bytes::Bytes;

use crate::entry::Entry;
use crate::error::Refusal;
use crate::membership::Configuration;
use crate::types::{Boot, Checksum, EntryId, Incarnation, Index, NodeId, ProposalId, ReadId, Space, Term};

/// A message between two members, with who sent it and in which term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The sender and how far it can be trusted.
    pub sender: Sender,
    /// The sender's term. Pre-vote requests and their grants carry the term asked for inside the
    /// body; this field never makes the receiver of a pre-vote move on (thesis §9.6).
    pub term: Term,
    /// What is said.
    pub body: Body,
}

/// The sender of a message. It travels with every message, so that no reply can be mistaken for one
/// of another life of the same node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// Node id.
    pub id: NodeId,
    /// Which member of that id: a wiped node that came back is another one.
    pub incarnation: Incarnation,
    /// Which start of that incarnation; replies of earlier boots are ignored.
    pub boot: Boot,
    /// The boot at which the sender became suspect of having lost what it had acknowledged; its acks,
    /// votes and echoes count for nothing while this is set.
    pub suspicion: Option<Boot>,
    /// Room on the sender's disk.
    pub space: Space,
}

/// The bodies, a request beside its reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Would you vote for me? Changes nothing at the receiver.
    PreVote(VoteRequest),
    /// Answer to [`Body::PreVote`].
    PreVoteReply(VoteReply),
    /// Vote for me.
    Vote(VoteRequest),
    /// Answer to [`Body::Vote`]; a grant leaves only after the vote is durable.
    VoteReply(VoteReply),
    /// Entries, or none: then it tells the commit index or probes.
    Append(Append),
    /// Answer to [`Body::Append`]; an acceptance leaves only after the entries are durable.
    AppendReply(AppendReply),
    /// I lead; also the round of read-index and check-quorum.
    Heartbeat(Heartbeat),
    /// Answer to [`Body::Heartbeat`].
    HeartbeatReply(HeartbeatReply),
    /// A piece of a snapshot.
    Snapshot(SnapshotChunk),
    /// Answer to [`Body::Snapshot`]; leaves only after the piece is written (the last: synced).
    SnapshotReply(SnapshotReply),
    /// Proposals on their way to the leader.
    Forward(Vec<Proposal>),
    /// What became of them.
    ForwardReply(Vec<ProposalOutcome>),
    /// A follower asks for an index at which a read is linearizable (thesis §6.4).
    ReadIndex(Vec<ReadId>),
    /// Answer to [`Body::ReadIndex`].
    ReadIndexReply(ReadIndexReply),
    /// Start an election at once: leadership is handed to you (thesis §3.10).
    TimeoutNow,
    /// The suspicion named is lifted: you hold again what you could have acknowledged.
    Cleared(Cleared),
}

/// A candidate's question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VoteRequest {
    /// The term the candidate wants to lead (for a pre-vote: one above its own).
    pub term: Term,
    /// The end of the candidate's log.
    pub last: EntryId,
    /// The leader itself asked for this election: live leaders do not stand in its way.
    pub transfer: bool,
}

/// The answer to a [`VoteRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VoteReply {
    /// The term asked for, as in the request: an answer to an older question is told by it.
    pub term: Term,
    /// Yes or no.
    pub granted: bool,
}

/// Replication (paper §5.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// The entry before `entries`.
    pub previous: EntryId,
    /// Contiguous, chained; may be empty.
    pub entries: Vec<Entry>,
    /// The leader's commit index.
    pub commit: Index,
}

/// The answer to an [`Append`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendReply {
    /// The follower's log equals the leader's up to here, and it is durable.
    Accepted {
        /// The index up to which it holds.
        matched: Index,
    },
    /// The entry before the range is not in the follower's log.
    Rejected {
        /// `previous.index` of the refused append: tells which one this answers.
        asked: Index,
        /// Where to try next: the follower's log can match at most up to this entry. The index is
        /// its last one, or the last one of a term not above the asked one; the term is the one the
        /// follower has there.
        hint: EntryId,
    },
    /// The follower has no room for these entries.
    NoSpace,
}

/// The leader's sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The leader's commit index, cut to what this follower is known to hold.
    pub commit: Index,
    /// Strictly rising within a term; an echo proves the leader still led when this round was sent.
    pub round: u64,
}

/// The answer to a [`Heartbeat`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatReply {
    /// The round of the heartbeat that this answers.
    pub round: u64,
    /// The follower's last durable index: wakes a replication that lost its last message.
    pub durable: Index,
}

/// Which snapshot; two snapshots are the same only if all of this is equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// Last entry it covers.
    pub last: EntryId,
    /// Checksum of that entry: the base of the chain that follows.
    pub checksum: Checksum,
    /// The membership in force at `last`.
    pub configuration: Configuration,
    /// Size of the file in bytes.
    pub size_bytes: u64,
    /// crc32 of the whole file.
    pub file_checksum: u32,
}

/// A piece of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotChunk {
    /// The snapshot it is from.
    pub meta: SnapshotMeta,
    /// Where `data` begins in the file, in bytes. An empty `data` at 0 only asks how far the
    /// receiver already is.
    pub offset: u64,
    /// The bytes.
    pub data: Bytes,
    /// crc32 of `data`.
    pub checksum: u32,
}

/// How far a receiver is with a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotReply {
    /// `meta.last` of the snapshot meant.
    pub last: EntryId,
    /// The receiver has everything before this offset on its disk and wants the piece that starts here.
    pub next_offset: u64,
    /// The whole snapshot is installed (or not needed): the log matches up to here.
    pub installed: Option<Index>,
}

/// Something to be appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The proposer's name for it.
    pub id: ProposalId,
    /// The command.
    pub payload: Bytes,
    /// Passes when space is low: it frees space or keeps the cluster alive.
    pub essential: bool,
}

/// What became of a proposal, as far as the leader knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProposalOutcome {
    /// The proposal.
    pub id: ProposalId,
    /// Where it was appended (not yet committed), or why it never will be.
    pub result: Result<EntryId, Refusal>,
}

/// The answer to [`Body::ReadIndex`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadIndexReply {
    /// The readers that asked.
    pub ids: Vec<ReadId>,
    /// Serve them once this index is applied, or why not.
    pub result: Result<Index, Refusal>,
    /// The boot of the node that asked: ids start anew with each boot.
    pub asker: Boot,
}

/// Lifts a suspicion; valid for exactly what it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cleared {
    /// The suspicion, by the boot at which it began.
    pub suspicion: Boot,
    /// The boot that was seen to have caught up.
    pub boot: Boot,
}
