//! The part of the page of metrics that tells of the core and of the other nodes.

use raft::{Index, RoleKind, Space};

use crate::cluster::{Class, LaneView, PeerView};
use crate::consensus::{NodeStatus, QueueLengths};
use crate::metrics::{Page, names};

/// Ticks of the core in a second.
const TICKS_PER_SECOND: f64 = 50.0;

/// The status is up to a tick old, `applied` is not: what is applied is committed and durable.
pub(super) fn raft(page: &mut Page, status: &NodeStatus, applied: Index) {
    let raft = &status.raft;
    page.count(&names::RAFT_TERM, &[], raft.term.0);
    let roles = [
        (RoleKind::Leader, "leader"),
        (RoleKind::Follower, "follower"),
        (RoleKind::Learner, "learner"),
        (RoleKind::PreCandidate, "pre_candidate"),
        (RoleKind::Candidate, "candidate"),
    ];
    for (role, name) in roles {
        page.count(&names::RAFT_ROLE, &[("role", name)], u64::from(raft.role == role));
    }
    page.count(&names::RAFT_LEADER, &[], raft.leader.map_or(0, |id| id.0));
    page.count(&names::RAFT_LAST, &[], raft.last.max(applied).0);
    page.count(&names::RAFT_DURABLE, &[], raft.durable.max(applied).0);
    page.count(&names::RAFT_COMMITTED, &[], raft.committed.max(applied).0);
    page.count(&names::RAFT_APPLIED, &[], applied.0);
    page.count(&names::RAFT_BASE, &[], raft.base.0);
    page.count(&names::RAFT_UNCOMMITTED, &[], raft.uncommitted_bytes as u64);
    let members = raft.configuration.members.len();
    let voters = raft.configuration.voters.len();
    page.count(&names::RAFT_MEMBERS, &[("kind", "voter")], voters as u64);
    page.count(
        &names::RAFT_MEMBERS,
        &[("kind", "other")],
        members.saturating_sub(voters) as u64,
    );
    page.count(&names::RAFT_SUSPECT, &[], u64::from(raft.suspicion.is_some()));
    let counts = &status.counts;
    page.count(&names::RAFT_ELECTIONS, &[], counts.elections);
    page.count(&names::RAFT_ELECTIONS_WON, &[], counts.elections_won);
    let leaderless = counts.leaderless_ticks as f64 / TICKS_PER_SECOND;
    page.number(&names::RAFT_LEADERLESS, &[], leaderless);
    page.count(&names::RAFT_LEADER_CHANGES, &[], counts.leader_changes);
    page.count(&names::RAFT_SNAPSHOTS, &[], counts.snapshots_installed);
    page.count(&names::RAFT_SNAPSHOTS_MADE, &[], counts.snapshots_made);
    page.count(&names::RAFT_SNAPSHOTS_REFUSED, &[], counts.snapshots_refused);
    followers(page, status);
    let space = match status.space {
        Space::Ample => 0,
        Space::Low => 1,
        Space::Critical => 2,
    };
    page.count(&names::DISK_SPACE, &[], space);
    page.count(&names::LOG_FAILED, &[], u64::from(status.failure.is_some()));
}

/// What a leader knows of each peer.
fn followers(page: &mut Page, status: &NodeStatus) {
    let peers = &status.raft.peers;
    let ids: Vec<String> = peers.iter().map(|peer| peer.id.to_string()).collect();
    let peers = || peers.iter().zip(&ids);
    for (peer, id) in peers() {
        page.count(&names::RAFT_PEER_MATCHED, &[("peer", id)], peer.matched.0);
    }
    for (peer, id) in peers() {
        page.count(&names::RAFT_PEER_INFLIGHT, &[("peer", id)], peer.inflight as u64);
    }
    for (peer, id) in peers() {
        page.count(&names::RAFT_PEER_ACTIVE, &[("peer", id)], u64::from(peer.active));
    }
    for (peer, id) in peers() {
        page.count(
            &names::RAFT_PEER_SNAPSHOT,
            &[("peer", id)],
            u64::from(peer.in_snapshot),
        );
    }
}

/// How full the queues of the core are.
pub(super) fn queues(page: &mut Page, queues: &QueueLengths) {
    let lengths = [
        ("peer_messages", queues.messages),
        ("requests", queues.requests),
        ("completions", queues.events),
        ("log", queues.log),
        ("apply", queues.apply),
        ("load", queues.load),
    ];
    for (queue, length) in lengths {
        page.count(&names::QUEUE_LENGTH, &[("queue", queue)], length as u64);
    }
    page.count(&names::INBOX_BYTES, &[], queues.messages_bytes as u64);
    page.count(&names::INBOX_DROPPED, &[], queues.messages_dropped);
}

/// The way to each peer. A node that is known in two lives at once shows its newer one.
pub(super) fn peers(page: &mut Page, peers: &[PeerView], unknown: u64) {
    let mut shown: Vec<(String, &PeerView)> = Vec::new();
    for peer in peers {
        let id = peer.id.to_string();
        shown.retain(|(earlier, _)| *earlier != id);
        shown.push((id, peer));
    }
    let lanes: [LaneFamily; 6] = [
        (&names::PEER_CONNECTED, |lane| u64::from(lane.connected)),
        (&names::PEER_QUEUE, |lane| lane.queued_bytes as u64),
        (&names::PEER_SENT_MESSAGES, |lane| lane.messages),
        (&names::PEER_SENT_BYTES, |lane| lane.bytes),
        (&names::PEER_DROPPED, |lane| lane.dropped),
        (&names::PEER_CONNECTS, |lane| lane.connects),
    ];
    for (family, value) in lanes {
        for (id, peer) in &shown {
            for lane in &peer.lanes {
                let labels = [("peer", id.as_str()), ("lane", lane_name(lane.class))];
                page.count(family, &labels, value(lane));
            }
        }
    }
    for (id, peer) in &shown {
        page.count(&names::PEER_FAILED_DIALS, &[("peer", id)], peer.failed_dials);
    }
    page.count(&names::PEER_UNKNOWN, &[], unknown);
}

/// A family, and what a lane has of it.
type LaneFamily = (&'static names::Family, fn(&LaneView) -> u64);

fn lane_name(class: Class) -> &'static str {
    match class {
        Class::Control => "control",
        Class::Log => "log",
        Class::Bulk => "bulk",
    }
}
