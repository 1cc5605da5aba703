//! Tells the cluster when this node's address has changed since it joined.

use std::time::Duration;

use raft::{Change, Member};

use crate::cluster::{Call, CallReply, Transport, WhyRefused};
use crate::consensus::{Handle, NodeStatus};

/// Between two attempts.
const RETRY: Duration = Duration::from_secs(1);

/// One attempt over the network.
const CALL_WITHIN: Duration = Duration::from_secs(5);

/// Proposes `address` as this node's own until the membership says so. Ends at once where it does already.
pub(super) async fn announce(handle: Handle, transport: Transport, address: String) {
    loop {
        let status = handle.status();
        let id = status.identity.id;
        match status.raft.configuration.members.get(&id) {
            Some(own) if own.incarnation == status.identity.incarnation && own.address != address => {
                let member = Member {
                    address: address.clone(),
                    ..own.clone()
                };
                tracing::info!(
                    from = own.address,
                    to = address,
                    "this node's address has changed: telling the cluster"
                );
                if let Err(obstacle) = attempt(&handle, &transport, &status, member).await {
                    tracing::warn!(
                        obstacle,
                        "the new address is not known to the cluster yet, trying again"
                    );
                }
            }
            Some(own) if own.address == address => return,
            // Not a member (yet): a join brings the address along.
            _ => {}
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn attempt(
    handle: &Handle,
    transport: &Transport,
    status: &NodeStatus,
    member: Member,
) -> Result<(), String> {
    if status.leads() {
        return match handle.change(Change::Readdress(member)).await {
            Ok(_) => Ok(()),
            Err(refusal) => Err(refusal.to_string()),
        };
    }
    let members = &status.raft.configuration.members;
    let leader = status.leader().and_then(|leader| members.get(&leader));
    let mut obstacle = "no other member is known".to_owned();
    for peer in leader
        .into_iter()
        .chain(members.values().filter(|peer| peer.id != member.id))
    {
        match transport
            .call(peer, &Call::Join(member.clone()), CALL_WITHIN)
            .await
        {
            Ok(CallReply::Done(_)) => return Ok(()),
            Ok(CallReply::Refused(refused)) => match refused.why {
                WhyRefused::NotLeader(_) | WhyRefused::Unavailable => obstacle = refused.sentence,
                _ => return Err(refused.sentence),
            },
            Ok(other) => obstacle = format!("an unexpected answer: {other:?}"),
            Err(error) => obstacle = error.to_string(),
        }
    }
    Err(obstacle)
}
