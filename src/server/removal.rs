//! Finds out that this node is no longer a member.
//!
//! A voter that is taken out is not sent the entry that says so (thesis §4.2.3): it hears nothing any more,
//! asks for votes in vain, and would serve what it last knew for ever. So a node that has heard of no leader
//! for a while asks the members it knows where they stand.
//!
//! What a leader says of the membership may still be uncommitted, and be taken back by the next leader. It
//! is believed in two looks: in the first, a leader of a term not below ours does not list this incarnation,
//! and its log ends at `last`; in the second, the same leader in the same term has committed `last` and
//! still does not. Whatever membership it had in the first look lies at or below `last`, so it is committed,
//! and a removal that is committed is final for this incarnation.

use std::fmt;
use std::time::Duration;

use raft::{Index, NodeId, RoleKind, Term};
use tokio::sync::watch;

use crate::cluster::{Call, CallReply, StatusReport, Transport};
use crate::consensus::{Handle, NodeStatus};

/// Between two looks. A node without a leader for so long is past every ordinary election.
const LOOK_EVERY: Duration = Duration::from_millis(1_500);

/// The same for a node that has not heard of any leader since it started. A member hears of one within two
/// heartbeats of its first connection; one that was taken out while it was down must not show for long what
/// it knew then.
const LOOK_FIRST: Duration = Duration::from_millis(250);

/// One question to one member.
const ASK_WITHIN: Duration = Duration::from_secs(1);

/// This node was taken out of its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Removal {
    /// This node.
    node: NodeId,
    /// The leader that says so.
    told_by: NodeId,
}

impl fmt::Display for Removal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Removal { node, told_by } = self;
        write!(
            f,
            "node {node} was removed from the cluster (leader node {told_by} says so) and serves nothing any more. Its \
             data folder is left as it is; to let the node join again, start it on an empty folder with \
             RNACOS_RAFT_JOIN_ADDR set to a member and RNACOS_RAFT_AUTO_INIT=false"
        )
    }
}

/// A leader that does not list this node, in the first look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sighting {
    leader: NodeId,
    term: Term,
    last: Index,
}

/// Looks until this node is found removed; that is told once, by `removal`.
pub(super) async fn watch(handle: Handle, transport: Transport, removal: watch::Sender<Option<Removal>>) {
    let mut sighting = None;
    let mut was_alone = false;
    let mut pause = LOOK_FIRST;
    loop {
        tokio::time::sleep(pause).await;
        let status = handle.status();
        if status.leader().is_some() {
            pause = LOOK_EVERY;
            (sighting, was_alone) = (None, false);
            continue;
        }
        if !std::mem::replace(&mut was_alone, true) {
            continue;
        }
        let Some(report) = ask(&transport, &status).await else {
            sighting = None;
            continue;
        };
        let seen = Sighting {
            leader: report.identity.node_id,
            term: report.status.term,
            last: report.status.last,
        };
        match sighting {
            Some(first) if confirms(&first, &report) => {
                let found = Removal {
                    node: status.identity.id,
                    told_by: seen.leader,
                };
                tracing::error!("{found}");
                removal.send_replace(Some(found));
                return;
            }
            // The same leader is not through with its log yet: the first look stands.
            Some(first) if (first.leader, first.term) == (seen.leader, seen.term) => {}
            _ => sighting = Some(seen),
        }
    }
}

/// The report of a leader that does not list this node; `None`: there is none, or it does.
async fn ask(transport: &Transport, status: &NodeStatus) -> Option<StatusReport> {
    let members = status.raft.configuration.members.values();
    for member in members.filter(|member| member.id != status.identity.id) {
        let Ok(CallReply::Status(report)) = transport.call(member, &Call::Status, ASK_WITHIN).await else {
            continue;
        };
        if speaks_without(&report, status) {
            return Some(*report);
        }
    }
    None
}

fn speaks_without(report: &StatusReport, status: &NodeStatus) -> bool {
    let own = &status.identity;
    report.status.role == RoleKind::Leader
        && report.status.term >= status.raft.term
        && report.status.configuration.incarnation_of(own.id) != Some(own.incarnation)
}

fn confirms(first: &Sighting, report: &StatusReport) -> bool {
    first.leader == report.identity.node_id
        && first.term == report.status.term
        && report.status.committed >= first.last
}
