//! The page of metrics: cursors and queues are read from their owners when somebody asks.

use raft::{Index, RoleKind, Space};

use super::Services;
use crate::clock;
use crate::consensus::NodeStatus;
use crate::metrics::{Buckets, Page, names, process};

impl Services {
    /// The page in Prometheus' text form; `None` when metrics are switched off.
    pub fn metrics_page(&self) -> Option<String> {
        if !self.metrics_enabled {
            return None;
        }
        let mut page = Page::new();
        page.count(&names::BUILD, &[("version", env!("CARGO_PKG_VERSION"))], 1);
        let uptime = clock::now().saturating_duration_since(self.started);
        page.number(&names::UPTIME, &[], uptime.as_secs_f64());
        self.metrics.http.render(&mut page);
        let status = self.consensus.status();
        raft(&mut page, &status, self.consensus.applied());
        let (operations, bytes) = self.consensus.load();
        page.count(&names::PENDING_OPERATIONS, &[], operations as u64);
        page.count(&names::PENDING_BYTES, &[], bytes as u64);
        self.log_page(&mut page);
        page.count(&names::CONFIGS, &[], self.state.config_count() as u64);
        page.count(&names::CONFIG_VARIANTS, &[], self.state.gray_count() as u64);
        page.count(
            &names::NAMESPACES,
            &[],
            self.state.namespaces().len().saturating_sub(1) as u64,
        );
        let (waiting, keys, watches) = self.push.load();
        page.count(&names::PUSH_WAITING, &[], waiting as u64);
        page.count(&names::PUSH_KEYS, &[], keys as u64);
        page.count(&names::PUSH_WATCHES, &[], watches as u64);
        self.push.metrics.render(&mut page);
        process::render(&mut page);
        page.count(&names::LOG_LINES_DROPPED, &[], (self.log_lines_dropped)());
        Some(page.finish())
    }

    fn log_page(&self, page: &mut Page) {
        use std::sync::atomic::Ordering::Relaxed;
        let log = &self.log;
        page.count(&names::LOG_SYNCS, &[], log.syncs.load(Relaxed));
        page.histogram(
            &names::LOG_SYNC_DURATION,
            &[],
            &buckets(&log.sync_us.counts(), log.sync_us.sum(), 1e-6),
        );
        page.histogram(
            &names::LOG_BATCH,
            &[],
            &buckets(&log.batch_entries.counts(), log.batch_entries.sum(), 1.0),
        );
        page.count(&names::LOG_ENTRIES, &[], log.entries.load(Relaxed));
        page.count(&names::LOG_BYTES, &[], log.bytes.load(Relaxed));
        page.count(&names::LOG_MARKS, &[], log.mark_writes.load(Relaxed));
        page.count(&names::DISK_FREE, &[], log.free_bytes.load(Relaxed));
    }
}

/// Numbers of a histogram of the log writer in the unit of the family.
fn buckets(counts: &[(Option<u64>, u64)], sum: u64, unit: f64) -> Buckets {
    Buckets {
        bounds: counts
            .iter()
            .filter_map(|(bound, _)| bound.map(|bound| bound as f64 * unit))
            .collect(),
        counts: counts.iter().map(|(_, count)| *count).collect(),
        sum: sum as f64 * unit,
    }
}

/// The status is up to a tick old, `applied` is not: what is applied is committed and durable.
fn raft(page: &mut Page, status: &NodeStatus, applied: Index) {
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
    page.count(&names::RAFT_ELECTIONS, &[], status.elections);
    page.count(&names::RAFT_LEADER_CHANGES, &[], status.leader_changes);
    page.count(&names::RAFT_SNAPSHOTS, &[], status.snapshots_installed);
    let ids: Vec<String> = raft.peers.iter().map(|peer| peer.id.to_string()).collect();
    let peers = || raft.peers.iter().zip(&ids);
    for (peer, id) in peers() {
        page.count(&names::RAFT_PEER_MATCHED, &[("peer", id)], peer.matched.0);
    }
    for (peer, id) in peers() {
        page.count(&names::RAFT_PEER_INFLIGHT, &[("peer", id)], peer.inflight as u64);
    }
    for (peer, id) in peers() {
        page.count(&names::RAFT_PEER_ACTIVE, &[("peer", id)], u64::from(peer.active));
    }
    let space = match status.space {
        Space::Ample => 0,
        Space::Low => 1,
        Space::Critical => 2,
    };
    page.count(&names::DISK_SPACE, &[], space);
    page.count(&names::LOG_FAILED, &[], u64::from(status.failure.is_some()));
}
