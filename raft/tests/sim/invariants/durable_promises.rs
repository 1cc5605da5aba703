//! No message promises what a power cut could take back (R1, R2, R52; Raft paper, figure 2 "updated on
//! stable storage before responding"; design, rule 3). Checked as each message leaves, against the
//! platter and not against what the core believes.

use raft::{AppendReply, Body, EntryId, Index, Message, NodeId};

use super::super::disk::Disk;
use super::{Checked, Violation};

/// `message` leaves the node with this disk, for `to`.
pub(crate) fn check(from: NodeId, to: NodeId, message: &Message, disk: &Disk) -> Checked {
    let kept = match &message.body {
        Body::Vote(request) => {
            let vote = disk.durable_vote();
            let voted = vote.term > request.term || (vote.term == request.term && vote.vote == Some(from));
            // Whoever has an entry of the term asked for has lost to its leader meanwhile.
            let is_over = vote.term > request.term || disk.durable_log().last().id.term >= request.term;
            voted && (is_over || holds(disk, request.last))
        }
        Body::VoteReply(reply) if reply.granted => {
            let vote = disk.durable_vote();
            vote.term > reply.term || (vote.term == reply.term && vote.vote == Some(to))
        }
        Body::AppendReply(AppendReply::Accepted { matched }) => {
            // A later term may have truncated what an older one was told.
            let term = disk.durable_vote().term;
            term > message.term || (term == message.term && reaches(disk, *matched))
        }
        Body::SnapshotReply(reply) => reply.installed.is_none_or(|index| reaches(disk, index)),
        _ => true,
    };
    if kept {
        return Ok(());
    }
    let (vote, last) = (disk.durable_vote(), disk.durable_log().last().id);
    let text = format!(
        "{from} -> {to}: {:?} in term {}, the platter has {vote:?} {last:?}",
        message.body, message.term
    );
    Err(Violation::new("durable_promises", text))
}

fn reaches(disk: &Disk, index: Index) -> bool {
    disk.durable_log().last().id.index >= index
}

fn holds(disk: &Disk, id: EntryId) -> bool {
    let log = disk.durable_log();
    id.index < log.base.id.index || log.at(id.index).is_some_and(|at| at.id == id)
}
