//! A node without a core: what comes is recorded as events.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use raft::{
    Body, Boot, Configuration, Heartbeat, Incarnation, Index, Member, Message, NodeId, Sender, Space, Term,
};
use storage::ClusterId;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::cluster::dial::{Dialled, dial};
use crate::cluster::*;
use crate::grpc::listener::{Limits, Listener, Unimplemented};
use crate::shutdown::Shutdown;

/// How long a test waits for something that takes milliseconds: only reached when it is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(super) const CLUSTER: ClusterId = ClusterId(0xc1);

/// What happened at a node.
#[derive(Debug)]
pub(super) enum Event {
    Messages(NodeId, Vec<Message>),
    Unreachable(NodeId),
    Met(PeerIdentity),
    TurnedAway(PeerIdentity, Target, Refused),
    RefusedBy(NodeId, Refused),
}

type Gate = Box<dyn Fn(&[Message]) + Send + Sync>;

struct Recorder {
    events: mpsc::Sender<Event>,
    /// Called with messages before they are recorded; may block.
    gate: Option<Gate>,
}

impl Recorder {
    fn record(&self, event: Event) {
        self.events
            .try_send(event)
            .expect("a test that records more than a million events");
    }
}

impl PeerService for Recorder {
    fn raft(&self, from: &PeerIdentity, messages: Vec<Message>) {
        if let Some(gate) = &self.gate {
            gate(&messages);
        }
        self.record(Event::Messages(from.identity.node_id, messages));
    }

    fn call<'a>(&'a self, _: &'a PeerIdentity, _: Call) -> BoxFuture<'a, CallReply> {
        Box::pin(async {
            CallReply::Done(Done {
                cluster_id: Some(CLUSTER),
                ..Done::default()
            })
        })
    }

    fn unreachable(&self, peer: NodeId) {
        self.record(Event::Unreachable(peer));
    }

    fn met(&self, peer: &PeerIdentity) {
        self.record(Event::Met(peer.clone()));
    }

    fn turned_away(&self, caller: &PeerIdentity, target: &Target, why: &Refused) {
        self.record(Event::TurnedAway(caller.clone(), *target, why.clone()));
    }

    fn refused_by(&self, peer: NodeId, why: &Refused) {
        self.record(Event::RefusedBy(peer, why.clone()));
    }
}

/// How a node of a test differs from the usual one.
pub(super) struct Setup {
    pub(super) token: ClusterToken,
    pub(super) identity: Identity,
    pub(super) is_local: IsLocal,
    pub(super) listen: SocketAddr,
    pub(super) gate: Option<Gate>,
    /// What it says its address is, where that is not where it listens.
    pub(super) advertised: Option<String>,
    pub(super) links: Option<Arc<dyn LinkService>>,
}

impl Setup {
    pub(super) fn new(id: u64) -> Setup {
        Setup {
            token: ClusterToken::new("secret"),
            identity: identity(id),
            is_local: is_loopback,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            gate: None,
            advertised: None,
            links: None,
        }
    }
}

pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) identity: Identity,
    pub(super) token: ClusterToken,
    pub(super) address: SocketAddr,
    pub(super) transport: Transport,
    pub(super) door: Arc<Door>,
    pub(super) links: Option<Links>,
    pub(super) shutdown: Shutdown,
    events: Mutex<mpsc::Receiver<Event>>,
}

impl Node {
    pub(super) fn start(id: u64) -> Node {
        Node::with(Setup::new(id))
    }

    pub(super) fn with(setup: Setup) -> Node {
        let Setup {
            token,
            mut identity,
            is_local,
            listen,
            gate,
            advertised,
            links,
        } = setup;
        let shutdown = Shutdown::new();
        let listener = Listener::bind(listen, Limits::default()).expect("a free port");
        let address = listener.local_address();
        identity.address = advertised.unwrap_or_else(|| address.to_string());
        let (events, received) = mpsc::channel(1 << 20);
        let service = Arc::new(Recorder { events, gate });
        let credentials =
            Credentials::new(token.clone(), Kind::Member, identity.clone()).with_is_local(is_local);
        let transport = Transport::new(credentials, service.clone(), shutdown.clone());
        let links = links.map(|service| Links::new(&transport, service, shutdown.clone()));
        let local = Local::new(identity.clone());
        let mut door = Door::new(
            local,
            token.clone(),
            service,
            Some(transport.clone()),
            shutdown.clone(),
        )
        .with_is_local(is_local);
        if let Some(links) = &links {
            door = door.with_links(links.clone());
        }
        let door = Arc::new(door);
        listener.serve_until(Some(door.clone()), Arc::new(Unimplemented), &shutdown);
        let id = identity.node_id;
        Node {
            id,
            identity,
            token,
            address,
            transport,
            door,
            links,
            shutdown,
            events: Mutex::new(received),
        }
    }

    pub(super) fn member(&self) -> Member {
        let Identity {
            node_id: id,
            incarnation,
            ref address,
            ..
        } = self.identity;
        Member {
            id,
            incarnation,
            address: address.clone(),
        }
    }

    /// A message of this node.
    pub(super) fn message(&self, body: Body) -> Message {
        message_of(&self.identity, body)
    }

    pub(super) fn heartbeat(&self, round: u64) -> Message {
        self.message(Body::Heartbeat(Heartbeat {
            commit: Index(0),
            round,
        }))
    }

    /// The first thing `pick` finds in what happens from now on (and happened since the last wait).
    pub(super) async fn wait_for<T>(&self, what: &str, mut pick: impl FnMut(Event) -> Option<T>) -> T {
        let mut seen = Vec::new();
        let found = timeout(PATIENCE, async {
            loop {
                let event = std::future::poll_fn(|cx| self.events.lock().unwrap().poll_recv(cx)).await;
                let event = event.expect("the node lives");
                seen.push(format!("{event:?}"));
                if let Some(found) = pick(event) {
                    return found;
                }
            }
        });
        match found.await {
            Ok(found) => found,
            Err(_) => panic!("node {} waited in vain for {what}; it saw {seen:#?}", self.id),
        }
    }

    /// Waits until the transport has proved itself at this peer.
    pub(super) async fn wait_connected(&self, to: &Node) {
        self.wait_for("a connection", |event| match event {
            Event::Met(peer) if peer.remote == to.address => Some(()),
            _ => None,
        })
        .await;
    }

    /// The next `count` messages of a node.
    pub(super) async fn receive(&self, from: NodeId, count: usize) -> Vec<Message> {
        let mut all = Vec::new();
        self.wait_for("messages", |event| {
            if let Event::Messages(sender, messages) = event {
                assert_eq!(sender, from);
                all.extend(messages);
            }
            (all.len() >= count).then_some(())
        })
        .await;
        all
    }

    pub(super) async fn stop(self) -> SocketAddr {
        self.shutdown.begin();
        assert!(
            self.shutdown.drained(PATIENCE).await,
            "{} tasks are left",
            self.shutdown.running()
        );
        self.address
    }
}

pub(super) fn identity(id: u64) -> Identity {
    Identity {
        cluster_id: Some(CLUSTER),
        node_id: NodeId(id),
        incarnation: Incarnation(1000 + id),
        boot: Boot(1),
        feature_level: 1,
        address: String::new(),
    }
}

pub(super) fn message_of(identity: &Identity, body: Body) -> Message {
    let Identity {
        node_id: id,
        incarnation,
        boot,
        ..
    } = *identity;
    Message {
        sender: Sender {
            id,
            incarnation,
            boot,
            suspicion: None,
            space: Space::Ample,
        },
        term: Term(1),
        body,
    }
}

/// A membership of these, all voters.
pub(super) fn membership<'a>(members: impl IntoIterator<Item = &'a Member>) -> Configuration {
    let mut configuration = Configuration::default();
    for member in members {
        configuration.voters.insert(member.id);
        configuration.members.insert(member.id, member.clone());
    }
    configuration
}

/// Two nodes that know each other.
pub(super) async fn pair() -> (Node, Node) {
    let (first, second) = (Node::start(1), Node::start(2));
    introduce(&first, &second).await;
    (first, second)
}

pub(super) async fn introduce(first: &Node, second: &Node) {
    let members = membership(&[first.member(), second.member()]);
    first.transport.set_members(&members);
    second.transport.set_members(&members);
    first.wait_connected(second).await;
    second.wait_connected(first).await;
}

/// An HTTP/2 connection that has proved nothing; it lives as long as `shutdown` runs.
pub(super) async fn stranger(address: SocketAddr, shutdown: &Shutdown) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.expect("a listener");
    let (send, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    drop(shutdown.spawn(async move { drop(connection.await) }));
    send
}

/// A connection that has proved itself as this node, to send on it what a node never would.
pub(super) async fn proven(to: &Node, identity: &Identity, shutdown: &Shutdown) -> SendRequest<Bytes> {
    let credentials = Credentials::new(to.token.clone(), Kind::Member, identity.clone());
    let dialled = dial(&to.address.to_string(), &credentials, Target::default(), PATIENCE).await;
    let Dialled { send, connection, .. } = dialled.expect("the token is right");
    drop(shutdown.spawn(async move { drop(connection.await) }));
    send
}

pub(super) fn elsewhere(_: IpAddr) -> bool {
    false
}
