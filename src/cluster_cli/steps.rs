//! What changes something: add, remove, transfer.

use raft::{Change, Member, NodeId, Refusal, RoleKind};

use super::Failure;
use super::ask::{Led, Operator, leader_of};
use crate::cluster::{Call, CallRefused, StatusReport, Target, WhyRefused};

/// Makes `address` the address of member `id`, once that member answers there; for an id that is no member,
/// says how it becomes one. A node joins by itself because only it knows its incarnation, drawn when its
/// folder was made: a member announced under a guessed one would be a voter that never answers.
pub(super) async fn add(operator: &Operator, id: u64, address: &str) -> Result<String, Failure> {
    let leader = led(operator).await?;
    let Some(known) = leader.status.configuration.members.get(&NodeId(id)) else {
        return Err(Failure::NotDone(
            how_to_join(operator, &leader, id, address).await,
        ));
    };
    if known.address == address {
        return Ok(format!("node {id} is a member at {address} already"));
    }
    let target = Target {
        cluster_id: leader.identity.cluster_id,
        node_id: Some(NodeId(id)),
        incarnation: Some(known.incarnation),
    };
    if let Err(obstacle) = operator.status(address, target).await {
        return Err(Failure::NotDone(format!(
            "node {id} is a member at {} and does not answer at {address} ({obstacle}): nothing was changed. Start it \
             with RNACOS_RAFT_NODE_ADDR={address}: it tells the cluster by itself",
            known.address
        )));
    }
    let member = Member {
        address: address.to_owned(),
        ..known.clone()
    };
    match operator.lead(&Call::Change(Change::Readdress(member))).await? {
        Led::Done => Ok(format!(
            "node {id} is a member at {address} now (before: {})",
            known.address
        )),
        Led::Refused { refused, .. } => Err(not_done(&refused)),
    }
}

async fn how_to_join(operator: &Operator, leader: &StatusReport, id: u64, address: &str) -> String {
    let there = match operator.status(address, Target::default()).await {
        Ok(there) if there.identity.cluster_id == leader.identity.cluster_id => format!(
            "at {address} answers node {}, which is no longer a member: stop it and empty its data folder first. ",
            there.identity.node_id
        ),
        Ok(there) => format!(
            "at {address} answers node {} of another cluster: stop it and empty its data folder first. ",
            there.identity.node_id
        ),
        Err(_) => String::new(),
    };
    let join = leader_of(leader).map_or("", |leader| leader.address.as_str());
    format!(
        "node {id} is no member, and nodes join by themselves. {there}Start it on an empty data folder with\n  \
         RNACOS_RAFT_NODE_ID={id}\n  RNACOS_RAFT_NODE_ADDR={address}\n  RNACOS_RAFT_JOIN_ADDR={join}\n  \
         RNACOS_RAFT_AUTO_INIT=false\n  RNACOS_CLUSTER_TOKEN=(that of the cluster)\n\
         and look with `rnacos cluster status`"
    )
}

/// Takes member `id` out and waits until the membership without it is in force and committed.
pub(super) async fn remove(operator: &Operator, id: u64) -> Result<String, Failure> {
    let leader = led(operator).await?;
    let id = NodeId(id);
    if !leader.status.configuration.members.contains_key(&id) {
        let members = ids(&leader);
        return Err(Failure::NotDone(format!(
            "node {id} is no member of this cluster (members: {members}): nothing was changed"
        )));
    }
    match operator.lead(&Call::Change(Change::Remove(id))).await? {
        Led::Done => {}
        // An earlier attempt of this command, whose answer was lost, has done it.
        Led::Refused {
            refused,
            maybe_done: true,
        } if refused.why == WhyRefused::Core(Refusal::UnknownMember(id)) => {}
        Led::Refused { refused, .. } => return Err(not_done(&refused)),
    }
    let is_out = |report: &StatusReport| {
        let configuration = &report.status.configuration;
        !configuration.members.contains_key(&id) && !configuration.is_joint()
    };
    let out = operator
        .wait_for("the change was begun and was not seen to end", is_out)
        .await?;
    // In force on the leader; committed once everything it had then is.
    let end = out.status.last;
    let is_committed = |report: &StatusReport| is_out(report) && report.status.committed >= end;
    let after = operator
        .wait_for(
            "the change was made and was not seen to be committed",
            is_committed,
        )
        .await?;
    Ok(format!(
        "node {id} is no longer a member; members are {}, node {} leads. Stop node {id} if it still runs; it can join \
         again on an empty data folder only",
        ids(&after),
        after.identity.node_id
    ))
}

/// Hands leadership over, and says who has it now.
pub(super) async fn transfer(operator: &Operator, id: Option<u64>) -> Result<String, Failure> {
    let before = led(operator).await?;
    let (from, term) = (before.identity.node_id, before.status.term);
    let to = id.map(NodeId);
    if to == Some(from) {
        return Ok(format!("node {from} leads already"));
    }
    match operator.lead(&Call::Transfer(to)).await? {
        Led::Done => {}
        Led::Refused { refused, .. } => return Err(not_done(&refused)),
    }
    let after = operator
        .wait_for("leadership was given up and no new leader was seen", |report| {
            report.status.term > term
        })
        .await?;
    let now = after.identity.node_id;
    match to {
        Some(to) if to != now => Err(Failure::NotDone(format!(
            "node {now} leads now, not node {to}: it was faster; ask again if it must be node {to}"
        ))),
        _ => Ok(format!(
            "node {now} leads now, in term {} (before: node {from})",
            after.status.term
        )),
    }
}

/// The leader's report.
async fn led(operator: &Operator) -> Result<StatusReport, Failure> {
    // Tells at once, and in the right words, when nobody is there at all.
    let first = operator.first_status().await?;
    if first.status.role == RoleKind::Leader {
        return Ok(first);
    }
    match operator
        .wait_for("no leader was found", |report| {
            report.status.role == RoleKind::Leader
        })
        .await
    {
        Err(Failure::Unknown(_)) => Err(Failure::NotDone(format!(
            "node {} answers and no leader is known: nothing was changed. Start enough members for a majority and look \
             with `rnacos cluster status`",
            first.identity.node_id
        ))),
        other => other,
    }
}

fn not_done(refused: &CallRefused) -> Failure {
    Failure::NotDone(format!("{}; nothing was changed", refused.sentence))
}

fn ids(report: &StatusReport) -> String {
    let members = report.status.configuration.members.keys();
    members.map(|id| id.0.to_string()).collect::<Vec<_>>().join(", ")
}
