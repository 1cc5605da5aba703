//! How the node is, for load balancers, consoles and people.

use raft::{RoleKind, Space};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Services;

/// `RaftMetrics` of r-nacos, which its users scrape.
#[derive(Debug, Serialize)]
pub struct RaftMetrics {
    /// Node id.
    pub id: u64,
    /// `Leader`, `Follower`, `Candidate`, or `NonVoter` for a learner.
    pub state: &'static str,
    /// Term.
    pub current_term: u64,
    /// Last index of the log.
    pub last_log_index: u64,
    /// Last index in the state.
    pub last_applied: u64,
    /// Node id of the leader.
    pub current_leader: Option<u64>,
    /// Who is in the cluster.
    pub membership_config: MembershipConfig,
}

/// Voters, in the words of r-nacos.
#[derive(Debug, Serialize)]
pub struct MembershipConfig {
    /// Ids of the voters.
    pub members: Vec<u64>,
    /// Ids of the voters that are to be, while a change is under way.
    pub members_after_consensus: Option<Vec<u64>>,
}

impl Services {
    /// Why this node cannot do all of its work now; `Ok` when it can.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn health(&self) -> Result<(), String> {
        let status = self.consensus.status();
        if let Some(reason) = &status.failure {
            return Err(format!(
                "the log of this node has failed ({reason}): it takes no writes and is stopping"
            ));
        }
        if status.raft.suspicion.is_some() {
            return Err(
                "this node may have lost part of its log and counts for nothing until a leader has \
                        refilled it; if it is alone, see `rnacos recover inspect`"
                    .to_owned(),
            );
        }
        if status.space != Space::Ample {
            return Err("disk space is low: writes are refused; free space on the data volume".to_owned());
        }
        if status.raft.leader.is_none() {
            return Err("no leader is known: writes are refused, reads may be old".to_owned());
        }
        if !self.readiness.is_current() {
            return Err("this node is catching up with its leader".to_owned());
        }
        Ok(())
    }

    /// The numbers of raft in the form r-nacos has them.
    pub fn raft_metrics(&self) -> RaftMetrics {
        let status = self.consensus.status();
        let (raft, applied) = (&status.raft, self.consensus.applied());
        let ids =
            |set: &std::collections::BTreeSet<raft::NodeId>| set.iter().map(|id| id.0).collect::<Vec<_>>();
        let configuration = &raft.configuration;
        // In a joint configuration ours has the new voters in `voters`; r-nacos shows the old ones first.
        let is_joint = !configuration.outgoing.is_empty();
        let members = if is_joint {
            ids(&configuration.outgoing)
        } else {
            ids(&configuration.voters)
        };
        RaftMetrics {
            id: status.identity.id.0,
            state: match raft.role {
                RoleKind::Leader => "Leader",
                RoleKind::Candidate | RoleKind::PreCandidate => "Candidate",
                RoleKind::Follower => "Follower",
                RoleKind::Learner => "NonVoter",
            },
            current_term: raft.term.0,
            // The status is up to a tick old; what is applied was in the log.
            last_log_index: raft.last.max(applied).0,
            last_applied: applied.0,
            current_leader: raft.leader.map(|id| id.0),
            membership_config: MembershipConfig {
                members,
                members_after_consensus: is_joint.then(|| ids(&configuration.voters)),
            },
        }
    }

    /// The flat map of `/v1/console/server/state`: texts or null, as recorded from Nacos 2.5.1.
    pub fn server_state(&self) -> Map<String, Value> {
        let members = self.consensus.status().raft.configuration.members.len();
        let state = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "startup_mode": if members > 1 { "cluster" } else { "standalone" },
            "function_mode": null,
            "server_port": self.http_port.to_string(),
            "auth_enabled": "false",
            "auth_system_type": "nacos",
            "auth_admin_request": "false",
            "console_ui_enabled": "false",
            "login_page_enabled": "false",
            "datasource_platform": "",
            "plugin_datasource_log_enabled": "false",
            "config_retention_days": "30",
            "maxContent": self.config.content_bytes_max.to_string(),
            "defaultMaxSize": "102400",
            "defaultMaxAggrSize": "1024",
            "defaultMaxAggrCount": "10000",
            "defaultGroupQuota": "200",
            "defaultClusterQuota": "100000",
            "isManageCapacity": "true",
            "isCapacityLimitCheck": "false",
            "isHealthCheck": "true",
            "maxHealthCheckFailCount": "12",
            "notifyConnectTimeout": "100",
            "notifySocketTimeout": "200",
        });
        match state {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }
}
