//! The way out: one [`Transport`] per node, three lanes per member.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use raft::{Body, Configuration, Member, Message, NodeId, Proposal};
use tokio::time::Instant;
use tracing::debug;

use super::calls::{Call, CallReply};
use super::client::{CallError, PeerClient};
use super::dial::Credentials;
use super::identity::{Identity, PeerIdentity, Target};
use super::limits::{DIAL_WITHIN, FORWARD_BYTES_MAX, GUESTS_MAX};
use super::link::Hub;
use super::peer::{Peer, PeerParts, PeerView};
use super::service::PeerService;
use super::wire::weight_bytes;
use crate::clock;
use crate::shutdown::Shutdown;

/// Sends messages to members. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Transport(Arc<Shared>);

struct Shared {
    /// Kind `Member`, with the cluster id.
    credentials: Credentials,
    service: Arc<dyn PeerService>,
    routes: ArcSwap<Routes>,
    /// Held while the routes are replaced.
    change: Mutex<()>,
    /// Messages to nodes that nobody knows.
    unknown: AtomicU64,
    /// Told of the members, once there is one; it holds this transport.
    links: OnceLock<Weak<Hub>>,
    shutdown: Shutdown,
}

/// Who is reached how; replaced as a whole, so that sending takes no lock that others hold.
#[derive(Clone, Default)]
struct Routes {
    /// The membership, without this node.
    members: BTreeMap<NodeId, Arc<Peer>>,
    /// Nodes of this cluster that called and are not in the membership, or not in this incarnation: a
    /// new member must answer a leader that it does not know yet.
    guests: BTreeMap<NodeId, Guest>,
}

#[derive(Clone)]
struct Guest {
    peer: Arc<Peer>,
    /// Its connections here.
    visits: usize,
    seen: Instant,
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport").finish_non_exhaustive()
    }
}

impl Transport {
    /// A transport without members; [`Transport::set_members`] names them. `credentials` are this
    /// node's, of kind [`super::Kind::Member`], once it belongs to a cluster.
    pub fn new(credentials: Credentials, service: Arc<dyn PeerService>, shutdown: Shutdown) -> Transport {
        Transport(Arc::new(Shared {
            credentials,
            service,
            routes: ArcSwap::default(),
            change: Mutex::new(()),
            unknown: AtomicU64::new(0),
            links: OnceLock::new(),
            shutdown,
        }))
    }

    /// Puts a message on its way. Never waits; what cannot be taken is dropped, and
    /// [`PeerService::unreachable`] says so soon after. Order is kept within a lane.
    pub fn send(&self, to: NodeId, message: Message) {
        let routes = self.0.routes.load();
        let Some(peer) = routes.peer(to) else {
            self.0.unknown.fetch_add(1, Ordering::Relaxed);
            debug!(to = to.0, "a message to a node that nobody knows was dropped");
            return;
        };
        if weight_bytes(&message) > FORWARD_BYTES_MAX && matches!(message.body, Body::Forward(_)) {
            split_forward(message)
                .into_iter()
                .for_each(|message| push(peer, message));
        } else {
            push(peer, message);
        }
    }

    /// The members and their addresses from now on. Those that are gone get what is queued for them.
    pub fn set_members(&self, configuration: &Configuration) {
        let own = self.0.credentials.identity.node_id;
        self.update(|routes| {
            let mut before = std::mem::take(&mut routes.members);
            for member in configuration.members.values().filter(|member| member.id != own) {
                let peer = match before.remove(&member.id) {
                    Some(peer) if peer.incarnation() == member.incarnation => {
                        peer.readdress(&member.address);
                        peer
                    }
                    other => {
                        other.iter().for_each(|peer| peer.leave());
                        self.start(member, false)
                    }
                };
                routes.members.insert(member.id, peer);
                routes.dismiss_if_member(member);
            }
            before.values().for_each(|peer| peer.leave());
        });
        self.tell_links();
    }

    /// From now on these links follow the members. Done once.
    pub(super) fn attach(&self, links: &Arc<Hub>) {
        let first = self.0.links.set(Arc::downgrade(links));
        assert!(first.is_ok(), "a transport has one set of links");
        // Members that came before. Those that come meanwhile are told by whoever sets them.
        self.tell_links();
    }

    fn tell_links(&self) {
        if let Some(links) = self.0.links.get().and_then(Weak::upgrade) {
            links.follow(self.0.routes.load().members.values());
        }
    }

    /// This node.
    pub(super) fn own_id(&self) -> NodeId {
        self.0.credentials.identity.node_id
    }

    /// A member that this node knows.
    pub(super) fn member(&self, id: NodeId) -> Option<Arc<Peer>> {
        self.0.routes.load().members.get(&id).cloned()
    }

    /// A call to another member, by its own connection: rare, and never behind messages.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call(&self, to: &Member, call: &Call, within: Duration) -> Result<CallReply, CallError> {
        let credentials = &self.0.credentials;
        let target = Target {
            cluster_id: credentials.identity.cluster_id,
            node_id: Some(to.id),
            incarnation: Some(to.incarnation),
        };
        let mut client =
            PeerClient::connect(&to.address, credentials, target, within.min(DIAL_WITHIN)).await?;
        client.call(call, within).await
    }

    /// What is known of every peer, members first, by id.
    pub fn peers(&self) -> Vec<PeerView> {
        let routes = self.0.routes.load();
        let guests = routes.guests.values().map(|guest| &guest.peer);
        routes
            .members
            .values()
            .chain(guests)
            .map(|peer| peer.view())
            .collect()
    }

    /// Messages dropped because nobody knew the way, ever.
    pub fn unknown(&self) -> u64 {
        self.0.unknown.load(Ordering::Relaxed)
    }

    /// A node of this cluster has proved itself here.
    pub(super) fn arrived(&self, caller: &PeerIdentity) {
        let Identity {
            node_id: id,
            incarnation,
            ref address,
            ..
        } = caller.identity;
        self.update(|routes| {
            if let Some(member) = routes.members.get(&id)
                && member.incarnation() == incarnation
            {
                // It knows best where it is. The membership may list where it was, and when a majority has
                // moved there is nobody to change that until some of them have found each other.
                member.readdress(address);
                member.called();
                return;
            }
            if let Some(guest) = routes.guests.get_mut(&id) {
                if guest.peer.incarnation() == incarnation {
                    guest.visits += 1;
                    guest.seen = clock::now();
                    guest.peer.readdress(address);
                    return;
                }
                guest.peer.leave();
            }
            routes.make_room_for_guest();
            let peer = self.start(
                &Member {
                    id,
                    incarnation,
                    address: address.clone(),
                },
                true,
            );
            routes.guests.insert(
                id,
                Guest {
                    peer,
                    visits: 1,
                    seen: clock::now(),
                },
            );
        });
    }

    /// One of its connections here is gone.
    pub(super) fn departed(&self, caller: &PeerIdentity) {
        let id = caller.identity.node_id;
        let has_guest = self.0.routes.load().guests.contains_key(&id);
        if !has_guest {
            return;
        }
        self.update(|routes| {
            let Some(guest) = routes.guests.get_mut(&id) else {
                return;
            };
            if guest.peer.incarnation() != caller.identity.incarnation {
                return;
            }
            guest.visits = guest.visits.saturating_sub(1);
            if guest.visits == 0 {
                guest.peer.leave();
                routes.guests.remove(&id);
            }
        });
    }

    fn start(&self, member: &Member, guest: bool) -> Arc<Peer> {
        let parts = PeerParts {
            id: member.id,
            incarnation: member.incarnation,
            address: member.address.clone(),
            guest,
            credentials: self.0.credentials.clone(),
            service: self.0.service.clone(),
        };
        Peer::start(parts, &self.0.shutdown)
    }

    fn update(&self, change: impl FnOnce(&mut Routes)) {
        let _one_at_a_time = self
            .0
            .change
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut routes = Routes::clone(&self.0.routes.load());
        change(&mut routes);
        self.0.routes.store(Arc::new(routes));
    }
}

impl Routes {
    /// The member, or the guest of that id while the member cannot be reached: after a node was removed
    /// and added anew, a member that lags behind knows only its earlier incarnation, and must still be
    /// able to answer the new one.
    fn peer(&self, id: NodeId) -> Option<&Peer> {
        let guest = self.guests.get(&id).map(|guest| &*guest.peer);
        match self.members.get(&id) {
            Some(member) if guest.is_none() || member.is_up() => Some(member),
            _ => guest,
        }
    }

    fn dismiss_if_member(&mut self, member: &Member) {
        if self
            .guests
            .get(&member.id)
            .is_some_and(|guest| guest.peer.incarnation() == member.incarnation)
            && let Some(guest) = self.guests.remove(&member.id)
        {
            guest.peer.leave();
        }
    }

    fn make_room_for_guest(&mut self) {
        while self.guests.len() >= GUESTS_MAX {
            let Some(oldest) = self
                .guests
                .iter()
                .min_by_key(|(_, guest)| guest.seen)
                .map(|(id, _)| *id)
            else {
                return;
            };
            if let Some(guest) = self.guests.remove(&oldest) {
                guest.peer.leave();
            }
        }
    }
}

fn push(peer: &Peer, message: Message) {
    let weight = weight_bytes(&message);
    peer.push(message, weight);
}

/// Forwarded proposals that would not fit one frame (or would hold up others), as several messages that
/// mean the same.
fn split_forward(message: Message) -> Vec<Message> {
    let Message { sender, term, body } = message;
    let Body::Forward(proposals) = body else {
        return vec![Message { sender, term, body }];
    };
    let mut parts: Vec<Vec<Proposal>> = Vec::new();
    let mut bytes = 0;
    for proposal in proposals {
        let size = proposal.payload.len() + 16;
        match parts.last_mut() {
            Some(part) if bytes + size <= FORWARD_BYTES_MAX => {
                bytes += size;
                part.push(proposal);
            }
            _ => {
                bytes = size;
                parts.push(vec![proposal]);
            }
        }
    }
    parts
        .into_iter()
        .map(|part| Message {
            sender,
            term,
            body: Body::Forward(part),
        })
        .collect()
}
