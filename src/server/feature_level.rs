//! Raises the feature level of the cluster once every member's binary knows the next one.
//!
//! New kinds of commands may appear in the log only when no node would stop at them (hazard R49). So during a
//! rolling upgrade the cluster goes on at the old level; when the last member runs the new version, the
//! leader of the time has the level raised by a logged command. From then on an older version refuses to
//! start on this data and says why, and one that would join is refused. There is no way back.
//!
//! What a member's binary knows is what it said in the handshake of the newest connection with it. A member
//! that was restarted with an older binary a moment ago is away first (it counts as silent then, and nothing
//! is raised) and says its level before it is heard again.

use std::sync::Arc;
use std::time::Duration;

use super::peers::Peers;
use crate::clock;
use crate::consensus::{Handle, NodeStatus};
use crate::state::{Command, Outcome, Reader};

/// Between two looks. Nothing waits for it but the first use of a new feature.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The raise is applied within this, or tried again at the next look.
const RAISE_WITHIN: Duration = Duration::from_secs(10);

/// Looks for ever; ends with its task. `supported` is what this binary knows.
pub(super) async fn raise(handle: Handle, reader: Arc<Reader>, peers: Arc<Peers>, supported: u32) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let level = reader.feature_level();
        let Some(next) = common_level(&handle.status(), &peers, supported).filter(|next| *next > level)
        else {
            continue;
        };
        let command = Command::RaiseFeatureLevel(next);
        match handle.propose(command, clock::now() + RAISE_WITHIN).await {
            Ok(Outcome::FeatureLevel(reached)) => {
                tracing::info!(
                    from = level,
                    to = reached,
                    "every member knows the next feature level: raised; older versions cannot be members any more"
                );
            }
            Ok(other) => tracing::warn!(outcome = ?other, "the feature level was not raised"),
            Err(error) => tracing::debug!(%error, "the feature level was not raised yet"),
        }
    }
}

/// The level that all members know; `None` on all but a leader, and while one of them is silent, was not met
/// or is about to come or go.
fn common_level(status: &NodeStatus, peers: &Peers, supported: u32) -> Option<u32> {
    let configuration = &status.raft.configuration;
    if !status.leads() || configuration.is_joint() {
        return None;
    }
    let others = configuration
        .members
        .values()
        .filter(|member| member.id != status.identity.id);
    let mut level = supported;
    for member in others {
        let mut heard = status.raft.peers.iter().filter(|peer| peer.active);
        if !heard.any(|peer| peer.id == member.id) {
            return None;
        }
        level = level.min(peers.feature_level(member)?);
    }
    Some(level)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use raft::{Boot, Configuration, Incarnation, Member, NodeId, PeerStatus, RoleKind, Space, Status};

    use super::*;
    use crate::cluster::{Identity, Kind, Local, PeerIdentity, PeerService as _};

    fn identity(id: u64, incarnation: u64, feature_level: u32) -> Identity {
        Identity {
            cluster_id: None,
            node_id: NodeId(id),
            incarnation: Incarnation(incarnation),
            boot: Boot(1),
            feature_level,
            address: String::new(),
        }
    }

    fn meet(peers: &Peers, id: u64, incarnation: u64, feature_level: u32) {
        peers.met(&PeerIdentity {
            kind: Kind::Member,
            version: 1,
            identity: identity(id, incarnation, feature_level),
            remote: SocketAddr::from(([127, 0, 0, 1], 1)),
        });
    }

    /// Node 1 leads 1 to 3; `silent` has not answered lately.
    fn leading(silent: Option<u64>) -> NodeStatus {
        let members = (1..=3).map(|id| {
            let member = Member {
                id: NodeId(id),
                incarnation: Incarnation(id),
                address: String::new(),
            };
            (member.id, member)
        });
        let configuration = Configuration {
            members: members.collect(),
            voters: (1..=2).map(NodeId).collect(),
            ..Configuration::default()
        };
        let peers = (2..=3).map(|id| PeerStatus {
            id: NodeId(id),
            matched: raft::Index(0),
            next: raft::Index(1),
            inflight: 0,
            in_snapshot: false,
            active: silent != Some(id),
            suspect: false,
            space: Space::Ample,
        });
        NodeStatus {
            raft: Status {
                role: RoleKind::Leader,
                configuration,
                peers: peers.collect(),
                ..Status::default()
            },
            ..NodeStatus::of(raft::Identity {
                id: NodeId(1),
                incarnation: Incarnation(1),
                boot: Boot(1),
            })
        }
    }

    #[test]
    fn the_slowest_member_decides_learners_too() {
        let peers = Peers::new(Local::new(identity(1, 1, 3)));
        let level = |status: &NodeStatus| common_level(status, &peers, 3);
        meet(&peers, 2, 2, 3);
        assert_eq!(level(&leading(None)), None, "the learner was never met");
        meet(&peers, 3, 30, 3);
        assert_eq!(level(&leading(None)), None, "another life of it was");
        meet(&peers, 3, 3, 2);
        assert_eq!(level(&leading(None)), Some(2));
        meet(&peers, 3, 3, 4);
        assert_eq!(level(&leading(None)), Some(3), "no more than this node knows");
        meet(&peers, 2, 2, 1);
        assert_eq!(level(&leading(None)), Some(1), "it went back");
    }

    #[test]
    fn nobody_is_passed_over_and_only_a_leader_decides() {
        let peers = Peers::new(Local::new(identity(1, 1, 2)));
        meet(&peers, 2, 2, 2);
        meet(&peers, 3, 3, 2);
        assert_eq!(common_level(&leading(None), &peers, 2), Some(2));
        assert_eq!(common_level(&leading(Some(3)), &peers, 2), None, "a silent one");
        let mut following = leading(None);
        following.raft.role = RoleKind::Follower;
        assert_eq!(common_level(&following, &peers, 2), None);
        let mut joint = leading(None);
        joint.raft.configuration.outgoing = [NodeId(1)].into();
        assert_eq!(common_level(&joint, &peers, 2), None);
    }
}
