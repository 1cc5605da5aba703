//! What this node does with what peers say: messages go to the loop, calls to the leader, and a sign that
//! this node is listed in another cluster stops it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use raft::{Change, EntryId, Incarnation, Member, Message, NodeId, Refusal};
use storage::ClusterId;
use tokio::sync::watch;

use crate::clock;
use crate::cluster::{
    BoxFuture, Call, CallReply, Done, Identity, Kind, Local, PeerIdentity, PeerService, Presence, Refused,
    StatusReport, Target, WhyRefused,
};
use crate::consensus::{Handle, Inbox, NodeStatus};
use crate::service::Services;
use crate::state::Reader;

/// A membership change is applied within this, or it is not known whether it will be.
const CHANGE_WITHIN: Duration = Duration::from_secs(10);

/// Longer than the core counts a silent member as active (an election timeout, 0.5 s).
const HEARD_WITHIN: Duration = Duration::from_millis(700);

/// A transfer is given up by the core within an election timeout (0.5 s); it may then be asked for again.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(2);

/// Nodes whose feature level is remembered before they are members; a cluster has at most 64 members.
const LEVELS_MAX: usize = 1_024;

/// Another cluster counts this node as its own: it has lost its data there (hazard R50).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Conflict {
    /// The other cluster.
    pub(super) cluster_id: ClusterId,
    /// Who told.
    pub(super) told_by: NodeId,
}

/// The receiving end of the peer door.
#[derive(Debug)]
pub(super) struct Peers {
    local: Local,
    running: OnceLock<Running>,
    /// Weak, because the door that holds this stands longer than they do.
    services: OnceLock<Weak<Services>>,
    /// What the binary of each node knew when it was met last. As many as there ever were members.
    levels: Mutex<HashMap<NodeId, (Incarnation, u32)>>,
    conflict: watch::Sender<Option<Conflict>>,
}

#[derive(Debug)]
struct Running {
    handle: Handle,
    inbox: Inbox,
    reader: Arc<Reader>,
}

impl Peers {
    pub(super) fn new(local: Local) -> Arc<Peers> {
        let (conflict, _) = watch::channel(None);
        Arc::new(Peers {
            local,
            running: OnceLock::new(),
            services: OnceLock::new(),
            levels: Mutex::default(),
            conflict,
        })
    }

    /// From now on there is a core to talk to.
    pub(super) fn attach(&self, handle: Handle, inbox: Inbox, reader: Arc<Reader>) {
        let running = Running {
            handle,
            inbox,
            reader,
        };
        assert!(self.running.set(running).is_ok(), "a node is started once");
    }

    /// From now on questions of other nodes are answered.
    pub(super) fn attach_services(&self, services: &Arc<Services>) {
        assert!(
            self.services.set(Arc::downgrade(services)).is_ok(),
            "a node is started once"
        );
    }

    /// The feature level that this member's binary knows, as it said when it was met last; `None` when
    /// this life of it was never met.
    pub(super) fn feature_level(&self, member: &Member) -> Option<u32> {
        let levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        let (incarnation, level) = levels.get(&member.id)?;
        (*incarnation == member.incarnation).then_some(*level)
    }

    /// Tells of a [`Conflict`].
    pub(super) fn conflicts(&self) -> watch::Receiver<Option<Conflict>> {
        self.conflict.subscribe()
    }

    /// `told` is a member of some cluster and has dialled this node's address. Before this node belongs to
    /// one, that cluster lists the address or the id, and founding another would split it. Afterwards only
    /// the id counts: an address may have been another node's before.
    fn note_listing(&self, told: &PeerIdentity, target: &Target) {
        let local = self.local.get();
        let Some(theirs) = told.identity.cluster_id else {
            return;
        };
        let means_us = target.node_id == Some(local.node_id);
        let listed = means_us || local.cluster_id.is_none();
        if told.kind == Kind::Member && listed && local.cluster_id != Some(theirs) {
            self.conflict.send_replace(Some(Conflict {
                cluster_id: theirs,
                told_by: told.identity.node_id,
            }));
        }
    }

    async fn answer(&self, from: &PeerIdentity, call: Call) -> CallReply {
        let Some(Running { handle, reader, .. }) = self.running.get() else {
            return CallReply::refused(WhyRefused::Unavailable, "the node is starting: ask again");
        };
        match call {
            Call::Status => self.status(handle),
            Call::WhoAreYou => CallReply::Presence(Presence {
                identity: (*self.local.get()).clone(),
                configuration: handle.status().raft.configuration.clone(),
            }),
            Call::Join(member) => match too_old(reader.feature_level(), from) {
                Some(sentence) if handle.status().leads() => {
                    CallReply::refused(WhyRefused::NotAllowed, sentence)
                }
                _ => self.join(handle, from, member).await,
            },
            Call::Change(change) => self.change(handle, change).await,
            Call::Transfer(to) => self.transfer(handle, to).await,
            Call::Ask(question) => self.ask(question).await,
        }
    }

    async fn ask(&self, question: Bytes) -> CallReply {
        let Some(services) = self.services.get().and_then(Weak::upgrade) else {
            return CallReply::refused(
                WhyRefused::Unavailable,
                "the node is starting or stopping: ask again",
            );
        };
        match services.answer_node(question).await {
            Some(answer) => CallReply::Told(answer),
            None => CallReply::refused(
                WhyRefused::UnknownCall,
                "this version does not know the question: upgrade it",
            ),
        }
    }

    fn status(&self, handle: &Handle) -> CallReply {
        let status = handle.status();
        let mut core = status.raft.clone();
        // The loop's view is up to a tick old; what is applied was committed and in the log.
        core.applied = core.applied.max(handle.applied());
        core.committed = core.committed.max(core.applied);
        core.last = core.last.max(core.applied);
        CallReply::Status(Box::new(StatusReport {
            identity: (*self.local.get()).clone(),
            status: core,
            space: status.space,
            failure: status.failure.clone(),
        }))
    }

    async fn transfer(&self, handle: &Handle, to: Option<NodeId>) -> CallReply {
        let status = handle.status();
        if status.leads() && to == Some(status.identity.id) {
            return self.done(handle, None);
        }
        match handle.transfer(to, clock::now() + HAND_OVER_WITHIN).await {
            Ok(()) => self.done(handle, None),
            Err(refusal) => refused(handle, refusal),
        }
    }

    async fn join(&self, handle: &Handle, from: &PeerIdentity, member: Member) -> CallReply {
        let status = handle.status();
        if !status.leads() {
            return not_leader(&status);
        }
        if let Some(sentence) = self.unreachable_for(&status, from, &member) {
            return CallReply::refused(WhyRefused::NotAllowed, sentence);
        }
        let change = match status.raft.configuration.members.get(&member.id) {
            // Perhaps by a change that is not committed yet, and whoever is told that he has joined asks
            // no more: the core names the change, and its commit is waited for.
            Some(known) if *known == member => Change::Add(member),
            Some(known) if known.incarnation == member.incarnation => Change::Readdress(member),
            Some(_) => {
                let id = member.id;
                return CallReply::refused(
                    WhyRefused::Core(Refusal::OtherIncarnation(id)),
                    format!(
                        "node {id} is a member already, with data that this folder does not have: if that node is \
                         gone, run `rnacos cluster remove {id}` on a member and start this one again; if it lives, \
                         give this node another RNACOS_RAFT_NODE_ID"
                    ),
                );
            }
            None => Change::Add(member),
        };
        self.change(handle, change).await
    }

    /// A member on another machine could never answer a founder that calls itself 127.0.0.1.
    fn unreachable_for(&self, status: &NodeStatus, from: &PeerIdentity, member: &Member) -> Option<String> {
        let elsewhere = !from.remote.ip().to_canonical().is_loopback();
        let loopback = status
            .raft
            .configuration
            .members
            .values()
            .find(|known| is_loopback(&known.address));
        match loopback {
            Some(known) if elsewhere => Some(format!(
                "node {} of this cluster has the address {}, which means nothing on another machine: set its \
                 RNACOS_RAFT_NODE_ADDR to an address that all nodes reach, restart it, then let node {} join",
                known.id, known.address, member.id
            )),
            _ if elsewhere && is_loopback(&member.address) => Some(format!(
                "node {} gives its address as {}, which means nothing on another machine: set its \
                 RNACOS_RAFT_NODE_ADDR to an address that all nodes reach",
                member.id, member.address
            )),
            _ => None,
        }
    }

    /// Makes a change of the membership and answers once it is committed.
    async fn change(&self, handle: &Handle, change: Change) -> CallReply {
        if let Change::Remove(id) = change
            && handle.status().leads()
        {
            // Whoever is counted as answering then has answered since the question came: a member that has
            // just died would count a little longer otherwise.
            tokio::time::sleep(HEARD_WITHIN).await;
            let status = handle.status();
            if status.leads()
                && let Some(sentence) = without_majority(&status, id)
            {
                return CallReply::refused(WhyRefused::NotAllowed, sentence);
            }
        }
        let at = match handle.change(change.clone()).await {
            Ok(at) => at,
            Err(refusal) => return refused(handle, refusal),
        };
        let applied = handle.wait_applied(at.index, clock::now() + CHANGE_WITHIN).await;
        let obstacle = match applied {
            // The entry at that index is ours only if this node still leads the term in which it was
            // appended (or the change stood there before it led): another leader may have put its own
            // in that place. It may have led again since: so the membership must show the change, too.
            Ok(()) if is_leading_since(&handle.status(), at) && shows(&handle.status(), &change) => {
                return self.done(handle, Some(at));
            }
            Ok(()) => "the leader has changed".to_owned(),
            Err(error) => error.to_string(),
        };
        CallReply::refused(
            WhyRefused::Unavailable,
            format!("the change was begun and is not known to be made ({obstacle}): ask again"),
        )
    }

    fn done(&self, handle: &Handle, at: Option<EntryId>) -> CallReply {
        CallReply::Done(Done {
            at,
            cluster_id: self.local.get().cluster_id,
            configuration: handle.status().raft.configuration.clone(),
        })
    }
}

impl PeerService for Peers {
    fn raft(&self, from: &PeerIdentity, messages: Vec<Message>) {
        let Some(Running { inbox, .. }) = self.running.get() else {
            return;
        };
        let count = messages.len();
        if !inbox.deliver(messages) {
            tracing::debug!(
                peer = from.identity.node_id.0,
                count,
                "messages dropped: the loop is behind"
            );
        }
    }

    fn call<'a>(&'a self, from: &'a PeerIdentity, call: Call) -> BoxFuture<'a, CallReply> {
        Box::pin(self.answer(from, call))
    }

    fn unreachable(&self, peer: NodeId) {
        if let Some(running) = self.running.get() {
            running.inbox.unreachable(peer);
        }
    }

    fn met(&self, peer: &PeerIdentity) {
        let Identity {
            node_id,
            incarnation,
            feature_level,
            ..
        } = peer.identity;
        let is_member = self.running.get().is_some_and(|running| {
            let status = running.handle.status();
            status.raft.configuration.incarnation_of(node_id) == Some(incarnation)
        });
        let mut levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        if is_member || levels.len() < LEVELS_MAX {
            levels.insert(node_id, (incarnation, feature_level));
        }
    }

    fn turned_away(&self, caller: &PeerIdentity, target: &Target, _why: &Refused) {
        self.note_listing(caller, target);
    }
}

/// Why a node may not join: it could not understand what the cluster does.
fn too_old(level: u32, from: &PeerIdentity) -> Option<String> {
    let known = from.identity.feature_level;
    (known < level).then(|| {
        format!(
            "the cluster has reached feature level {level}, the version of node {} knows levels up to {known}: start \
             it with the version that the members run, or a newer one",
            from.identity.node_id
        )
    })
}

fn is_leading_since(status: &NodeStatus, at: EntryId) -> bool {
    status.leads() && status.raft.term >= at.term
}

fn shows(status: &NodeStatus, change: &Change) -> bool {
    let configuration = &status.raft.configuration;
    match change {
        Change::Add(member) | Change::Readdress(member) => {
            configuration.members.get(&member.id) == Some(member)
        }
        // While joint it is still listed, and votes only in the set that goes.
        Change::Remove(id) => !configuration.voters.contains(id) && !configuration.is_learner(*id),
    }
}

/// Why voter `id` must not be taken out now: those who stay could not decide anything, not even to let
/// somebody in, and the cluster would stand still for good. No operator can want that: the members that
/// are gone have to be removed first, while the ones that live still make a majority.
fn without_majority(status: &NodeStatus, id: NodeId) -> Option<String> {
    let configuration = &status.raft.configuration;
    if !configuration.voters.contains(&id) {
        return None;
    }
    let is_well = |voter: NodeId| {
        voter == status.identity.id
            || status
                .raft
                .peers
                .iter()
                .any(|peer| peer.id == voter && peer.active && !peer.suspect)
    };
    let staying = configuration.voters.iter().filter(|voter| **voter != id);
    let (well, silent): (Vec<NodeId>, Vec<NodeId>) = staying.copied().partition(|voter| is_well(*voter));
    let majority = (well.len() + silent.len()) / 2 + 1;
    if well.len() >= majority || silent.is_empty() {
        // Nobody else at all: the core has its own word for that.
        return None;
    }
    let silent: Vec<String> = silent.iter().map(ToString::to_string).collect();
    let silent = silent.join(", ");
    Some(format!(
        "without node {id} the cluster would have no majority, because node {silent} does not answer or may have lost \
         data: start node {silent} again, or remove it first"
    ))
}

fn refused(handle: &Handle, refusal: Refusal) -> CallReply {
    match refusal {
        Refusal::NotLeader(_) | Refusal::NoLeader => not_leader(&handle.status()),
        Refusal::ChangeInProgress
        | Refusal::TermNotCommitted
        | Refusal::Transferring
        | Refusal::Overloaded => CallReply::refused(WhyRefused::Unavailable, format!("{refusal}: ask again")),
        _ => CallReply::refused(
            WhyRefused::Core(refusal),
            format!("{refusal}{}", next_step(refusal)),
        ),
    }
}

/// What to do about a refusal that asking again does not mend.
fn next_step(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::LastVoter => ": to end the cluster, stop the node",
        Refusal::CannotLead(_) => {
            " (no other voter answers, or it is a learner, suspect, low on space or far behind): see \
             `rnacos cluster status`"
        }
        Refusal::UnknownMember(_) => ": see `rnacos cluster status`",
        Refusal::AddressTaken(_) => {
            ": give each node an RNACOS_RAFT_NODE_ADDR of its own, or remove the other one"
        }
        Refusal::LowOnSpace => ": free space on the data volumes",
        Refusal::TooLarge => ": a cluster has at most 64 members, an address 512 bytes",
        _ => "",
    }
}

fn not_leader(status: &NodeStatus) -> CallReply {
    let leader = status
        .leader()
        .and_then(|id| status.raft.configuration.members.get(&id))
        .cloned();
    let sentence = match &leader {
        Some(leader) => format!("node {} at {} leads: ask it", leader.id, leader.address),
        None => "no leader is known: ask again".to_owned(),
    };
    CallReply::refused(WhyRefused::NotLeader(leader), sentence)
}

/// Whether `host:port` names this machine only.
pub(super) fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn loopback_addresses_are_told_from_others() {
        for address in [
            "127.0.0.1:9848",
            "localhost:9848",
            "[::1]:9848",
            "127.8.8.8:1",
            "LOCALHOST:1",
        ] {
            assert!(is_loopback(address), "{address}");
        }
        for address in ["10.0.0.1:9848", "node-1.example:9848", "[fe80::1]:9848"] {
            assert!(!is_loopback(address), "{address}");
        }
    }
}
