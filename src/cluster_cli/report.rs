//! `rnacos cluster status`: every member asked at once, beside what the leader knows of it.

use std::fmt;

use raft::{Configuration, Member, NodeId, PeerStatus, RoleKind, Space};
use serde::Serialize;
use tokio::task::JoinSet;

use super::Failure;
use super::ask::{Operator, exactly, leader_of};
use crate::cluster::StatusReport;

/// A cluster, as its leader and its members describe it at this moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct View {
    /// Cluster id, 32 hexadecimal digits.
    pub cluster: String,
    /// Node id of the leader; `None`: nobody leads, or it does not answer.
    pub leader: Option<u64>,
    /// Term of the one whose membership is shown: the leader, else the node that answered.
    pub term: u64,
    /// Its commit index.
    pub committed: u64,
    /// A membership change is under way (joint consensus).
    pub changing: bool,
    /// By id.
    pub members: Vec<MemberView>,
    /// What needs attention, and what to do about it. Empty: all is well.
    pub attention: Vec<String>,
}

/// One member. Numbers are `None` when it does not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemberView {
    /// Node id.
    pub id: u64,
    /// Where the others reach it.
    pub address: String,
    /// Which life of that node id, 16 hexadecimal digits.
    pub incarnation: String,
    /// It answered.
    pub reachable: bool,
    /// `leader`, `follower`, `candidate`; `learner` until it is promoted; `leaving` while it is taken out.
    pub role: &'static str,
    /// Its vote counts.
    pub voter: bool,
    /// Its term.
    pub term: Option<u64>,
    /// Last index of its log.
    pub last: Option<u64>,
    /// Commit index it knows.
    pub committed: Option<u64>,
    /// Last index in its state.
    pub applied: Option<u64>,
    /// Entries its state is behind the leader's commit index.
    pub lag: Option<u64>,
    /// It may have lost what it acknowledged, and counts for nothing: since which of its starts.
    pub suspect_since_boot: Option<u64>,
    /// Room on its disk: `ample`, `low`, `critical`; by its own word, else by the leader's.
    pub space: Option<&'static str>,
    /// The leader is sending it a snapshot.
    pub in_snapshot: bool,
    /// Newest feature level its binary supports.
    pub feature_level: Option<u32>,
    /// In a few words.
    pub state: String,
}

/// Asks a member, the leader it names, and then everybody.
pub(super) async fn look(operator: &Operator) -> Result<View, Failure> {
    let first = operator.first_status().await?;
    let mut base = first.clone();
    // Whoever leads knows the membership; a member that is cut off, or was removed, shows an old one.
    // One more round when a member turns out to lead a newer term than the one that was believed.
    for _ in 0..2 {
        base = leader_instead_of(operator, base).await;
        let reports = ask_all(operator, &base).await;
        let newer = reports
            .iter()
            .filter_map(|(_, report)| report.as_ref().ok())
            .find(|report| report.status.role == RoleKind::Leader && report.status.term > base.status.term);
        match newer {
            Some(newer) => base = newer.clone(),
            None => return Ok(view(&first, &base, &reports)),
        }
    }
    let reports = ask_all(operator, &base).await;
    Ok(view(&first, &base, &reports))
}

async fn leader_instead_of(operator: &Operator, report: StatusReport) -> StatusReport {
    let leader = match leader_of(&report) {
        Some(leader) if leader.id != report.identity.node_id => leader,
        _ => return report,
    };
    match operator
        .status(&leader.address, exactly(&report, leader.id))
        .await
    {
        Ok(better) if better.status.role == RoleKind::Leader => better,
        _ => report,
    }
}

pub(super) type Reports = Vec<(Member, Result<StatusReport, String>)>;

async fn ask_all(operator: &Operator, base: &StatusReport) -> Reports {
    let mut asking = JoinSet::new();
    for member in base.status.configuration.members.values() {
        let (operator, member, target) = (operator.clone(), member.clone(), exactly(base, member.id));
        let known = (member.id == base.identity.node_id).then(|| base.clone());
        asking.spawn(async move {
            let report = match known {
                Some(report) => Ok(report),
                None => operator.status(&member.address, target).await,
            };
            (member, report)
        });
    }
    let mut reports = asking.join_all().await;
    reports.sort_by_key(|(member, _)| member.id);
    reports
}

/// Puts together what was heard: `first` is the node that was asked, `base` the one that is believed.
pub(super) fn view(first: &StatusReport, base: &StatusReport, reports: &Reports) -> View {
    let status = &base.status;
    let leads = status.role == RoleKind::Leader;
    let members: Vec<_> = reports
        .iter()
        .map(|(member, report)| {
            let seen = status.peers.iter().find(|peer| peer.id == member.id);
            member_view(base, member, report, seen)
        })
        .collect();
    let mut attention = Vec::new();
    if !leads {
        attention.push(format!(
            "no leader answers: this is the membership as node {} knows it, and writes are refused; a majority of \
             the voters must run and reach one another",
            base.identity.node_id
        ));
    }
    if !is_listed(&status.configuration, first) {
        let id = first.identity.node_id;
        attention.push(format!(
            "node {id}, which was asked first, is no member of this cluster (any more): stop it, or empty its data \
             folder and let it join again with RNACOS_RAFT_JOIN_ADDR"
        ));
    }
    attention.extend(
        members
            .iter()
            .zip(reports)
            .filter_map(|(member, (_, report))| advice(member, report)),
    );
    View {
        cluster: base
            .identity
            .cluster_id
            .map_or_else(String::new, |id| id.to_string()),
        leader: leads.then_some(base.identity.node_id.0),
        term: status.term.0,
        committed: status.committed.0,
        changing: status.configuration.is_joint(),
        members,
        attention,
    }
}

fn is_listed(configuration: &Configuration, report: &StatusReport) -> bool {
    configuration.incarnation_of(report.identity.node_id) == Some(report.identity.incarnation)
}

fn member_view(
    base: &StatusReport,
    member: &Member,
    report: &Result<StatusReport, String>,
    seen: Option<&PeerStatus>,
) -> MemberView {
    let configuration = &base.status.configuration;
    let heard = report.as_ref().ok();
    let status = heard.map(|report| &report.status);
    let space = heard.map(|report| report.space).or(seen.map(|peer| peer.space));
    let lag = status.map(|status| base.status.committed.0.saturating_sub(status.applied.0));
    let in_snapshot = seen.is_some_and(|peer| peer.in_snapshot);
    MemberView {
        id: member.id.0,
        address: member.address.clone(),
        incarnation: format!("{:016x}", member.incarnation.0),
        reachable: heard.is_some(),
        role: role(configuration, member.id, status.map(|status| status.role)),
        voter: configuration.is_voter(member.id),
        term: status.map(|status| status.term.0),
        last: status.map(|status| status.last.0),
        committed: status.map(|status| status.committed.0),
        applied: status.map(|status| status.applied.0),
        lag,
        suspect_since_boot: status.and_then(|status| status.suspicion).map(|boot| boot.0),
        space: space.map(space_word),
        in_snapshot,
        feature_level: heard.map(|report| report.identity.feature_level),
        state: state(report, seen, in_snapshot),
    }
}

/// By its own word; by the membership when that says more, or when it does not answer.
fn role(configuration: &Configuration, id: NodeId, own: Option<RoleKind>) -> &'static str {
    let is_leaving =
        configuration.is_joint() && !configuration.voters.contains(&id) && configuration.is_voter(id);
    match own {
        Some(RoleKind::Leader) => "leader",
        _ if is_leaving => "leaving",
        _ if configuration.is_learner(id) => "learner",
        Some(RoleKind::Candidate | RoleKind::PreCandidate) => "candidate",
        Some(RoleKind::Follower | RoleKind::Learner) => "follower",
        None => "voter",
    }
}

fn space_word(space: Space) -> &'static str {
    match space {
        Space::Ample => "ample",
        Space::Low => "low",
        Space::Critical => "critical",
    }
}

/// The worst thing first.
fn state(report: &Result<StatusReport, String>, seen: Option<&PeerStatus>, in_snapshot: bool) -> String {
    let report = match report {
        Ok(report) => report,
        Err(_) if seen.is_some_and(|peer| peer.active) => {
            return "unreachable from here, the leader hears it".to_owned();
        }
        Err(_) => return "unreachable".to_owned(),
    };
    if report.failure.is_some() {
        return "log failed".to_owned();
    }
    if let Some(since) = report.status.suspicion {
        return format!("suspect since boot {}", since.0);
    }
    match report.space {
        Space::Critical => return "disk full".to_owned(),
        Space::Low => return "low on space".to_owned(),
        Space::Ample => {}
    }
    match report.status.leader {
        _ if in_snapshot => "takes a snapshot".to_owned(),
        None => "knows no leader".to_owned(),
        Some(_) => "ok".to_owned(),
    }
}

/// What to do about a member; `None`: nothing.
fn advice(member: &MemberView, report: &Result<StatusReport, String>) -> Option<String> {
    let id = member.id;
    let report = match report {
        Ok(report) => report,
        Err(obstacle) => {
            return Some(format!(
                "node {id} does not answer ({obstacle}): start it; if its data is lost, `rnacos cluster remove {id}`, \
                 then start it on an empty folder with RNACOS_RAFT_JOIN_ADDR set to another member"
            ));
        }
    };
    if let Some(failure) = &report.failure {
        return Some(format!(
            "node {id} has failed ({failure}): see its log, mend the disk, start it again"
        ));
    }
    if member.suspect_since_boot.is_some() {
        return Some(format!(
            "node {id} may have lost what it acknowledged and counts for nothing until a leader has refilled it; if \
             that does not happen, `rnacos recover inspect` on it"
        ));
    }
    if report.space != Space::Ample {
        return Some(format!(
            "node {id} is low on disk space: free some on its data volume"
        ));
    }
    (report.status.leader.is_none())
        .then(|| format!("node {id} hears no leader: check the network between it and the others"))
}

impl View {
    /// True when a leader is known and nothing needs attention.
    pub fn is_well(&self) -> bool {
        self.leader.is_some() && self.attention.is_empty()
    }
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let leader = self
            .leader
            .map_or_else(|| "no leader".to_owned(), |id| format!("leader node {id}"));
        let changing = if self.changing {
            ", a membership change is under way"
        } else {
            ""
        };
        writeln!(
            f,
            "cluster {}: {leader}, term {}, committed {}{changing}\n",
            self.cluster, self.term, self.committed
        )?;
        let mut table = vec![HEAD.map(str::to_owned)];
        table.extend(self.members.iter().map(MemberView::row));
        let widths: [usize; HEAD.len()] = std::array::from_fn(|column| {
            table
                .iter()
                .filter_map(|row| row.get(column))
                .map(String::len)
                .max()
                .unwrap_or(0)
        });
        for row in &table {
            let cells: Vec<_> = row
                .iter()
                .zip(widths)
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect();
            writeln!(f, "{}", cells.join("  ").trim_end())?;
        }
        if !self.attention.is_empty() {
            writeln!(f)?;
        }
        self.attention
            .iter()
            .try_for_each(|sentence| writeln!(f, "! {sentence}"))
    }
}

const HEAD: [&str; 10] = [
    "ID",
    "ADDRESS",
    "ROLE",
    "TERM",
    "LAST",
    "COMMITTED",
    "APPLIED",
    "LAG",
    "SPACE",
    "STATE",
];

impl MemberView {
    fn row(&self) -> [String; HEAD.len()] {
        let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        [
            self.id.to_string(),
            self.address.clone(),
            self.role.to_owned(),
            number(self.term),
            number(self.last),
            number(self.committed),
            number(self.applied),
            number(self.lag),
            self.space.unwrap_or("-").to_owned(),
            self.state.clone(),
        ]
    }
}
