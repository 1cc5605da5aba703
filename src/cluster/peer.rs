//! A node this one sends to: its lanes, its address, what was heard of it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use raft::{Incarnation, Message, NodeId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::dial::{Credentials, DialError};
use super::failures::Failures;
use super::identity::Target;
use super::lane::{Class, Lane, Renewal, refusal};
use super::service::PeerService;
use crate::clock;
use crate::shutdown::Shutdown;

/// One life of a node, and the way to it.
pub(super) struct Peer {
    id: NodeId,
    incarnation: Incarnation,
    credentials: Credentials,
    /// A caller that the membership does not list (yet): answered while it is connected here.
    guest: bool,
    address: Mutex<String>,
    /// Raised when every connection to this peer is to be made anew.
    renewals: watch::Sender<u64>,
    /// Raised when it has called: whoever waits to dial it need not.
    calls: watch::Sender<u64>,
    leaving: CancellationToken,
    /// Tasks that dial links to it have been started.
    links_begun: AtomicBool,
    lanes: [Arc<Lane>; 3],
    service: Arc<dyn PeerService>,
    last_error: Mutex<Option<String>>,
    failures: Failures<String>,
    failed_dials: AtomicU64,
}

/// What is known of a peer, for metrics, health and the console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerView {
    /// The node.
    pub id: NodeId,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// Where it is dialled.
    pub address: String,
    /// Not a member as far as this node knows.
    pub guest: bool,
    /// Why the last dial failed; `None` once one succeeded.
    pub last_error: Option<String>,
    /// Dials that failed, ever.
    pub failed_dials: u64,
    /// Its lanes.
    pub lanes: Vec<LaneView>,
}

/// A lane of a [`PeerView`]. Counts run since the peer was first known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneView {
    /// Which.
    pub class: Class,
    /// A proved connection carries it now.
    pub connected: bool,
    /// Connections made.
    pub connects: u64,
    /// Messages given to a connection.
    pub messages: u64,
    /// Bytes of their frames.
    pub bytes: u64,
    /// Messages dropped: no connection, queue full, or larger than a frame.
    pub dropped: u64,
    /// Bytes that wait.
    pub queued_bytes: usize,
}

/// What a new peer is made of.
pub(super) struct PeerParts {
    pub(super) id: NodeId,
    pub(super) incarnation: Incarnation,
    pub(super) address: String,
    pub(super) guest: bool,
    pub(super) credentials: Credentials,
    pub(super) service: Arc<dyn PeerService>,
}

impl Peer {
    /// Starts the lanes of a peer; they end with `shutdown` or [`Peer::leave`].
    pub(super) fn start(parts: PeerParts, shutdown: &Shutdown) -> Arc<Peer> {
        let PeerParts {
            id,
            incarnation,
            address,
            guest,
            credentials,
            service,
        } = parts;
        let ((renewals, _), (calls, _)) = (watch::channel(0), watch::channel(0));
        let peer = Arc::new(Peer {
            id,
            incarnation,
            credentials,
            guest,
            address: Mutex::new(address),
            renewals,
            calls,
            leaving: CancellationToken::new(),
            links_begun: AtomicBool::new(false),
            lanes: Class::ALL.map(|class| Arc::new(Lane::new(class))),
            service,
            last_error: Mutex::new(None),
            failures: Failures::new(),
            failed_dials: AtomicU64::new(0),
        });
        for lane in &peer.lanes {
            let (lane, peer, stop) = (lane.clone(), peer.clone(), shutdown.begun());
            drop(shutdown.spawn(async move {
                tokio::select! {
                    () = Box::pin(lane.run(peer)) => {}
                    () = stop => {}
                }
            }));
        }
        peer
    }

    /// Puts a message into its lane, or drops it.
    pub(super) fn push(&self, message: Message, weight: usize) {
        let class = Class::of(&message);
        for lane in &self.lanes {
            if lane.class == class {
                lane.queue.push(message, weight);
                return;
            }
        }
    }

    pub(super) fn id(&self) -> NodeId {
        self.id
    }

    pub(super) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    pub(super) fn is_guest(&self) -> bool {
        self.guest
    }

    /// True once: whoever hears it starts the links to this peer.
    pub(super) fn begin_links(&self) -> bool {
        !self.links_begun.swap(true, Ordering::AcqRel)
    }

    pub(super) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    pub(super) fn service(&self) -> &dyn PeerService {
        &*self.service
    }

    /// R33: the node, the incarnation and the cluster that must answer.
    pub(super) fn target(&self) -> Target {
        Target {
            cluster_id: self.credentials.identity.cluster_id,
            node_id: Some(self.id),
            incarnation: Some(self.incarnation),
        }
    }

    pub(super) fn address(&self) -> String {
        lock(&self.address).clone()
    }

    /// The same node is somewhere else now.
    pub(super) fn readdress(&self, address: &str) {
        {
            let mut current = lock(&self.address);
            if *current == address {
                return;
            }
            info!(peer = self.id.0, from = %current, to = address, "a member has another address");
            address.clone_into(&mut current);
        }
        self.renew();
    }

    /// Every connection to this peer is made anew, at once.
    pub(super) fn renew(&self) {
        self.renewals.send_modify(|renewals| *renewals += 1);
    }

    /// It called: lanes that wait to dial it do so now.
    pub(super) fn called(&self) {
        self.calls.send_modify(|calls| *calls += 1);
    }

    /// Tells of the next [`Peer::called`].
    pub(super) fn calls(&self) -> Renewal {
        self.calls.subscribe()
    }

    /// Tells of the next [`Peer::renew`].
    pub(super) fn renewal(&self) -> Renewal {
        self.renewals.subscribe()
    }

    /// Heartbeats reach it.
    pub(super) fn is_up(&self) -> bool {
        self.lanes.iter().any(|lane| {
            lane.class == Class::Control && lane.connected.load(std::sync::atomic::Ordering::Acquire)
        })
    }

    /// It is no member any more: what is queued is sent, then the lanes end.
    pub(super) fn leave(&self) {
        self.leaving.cancel();
    }

    pub(super) fn has_left(&self) -> bool {
        self.leaving.is_cancelled()
    }

    pub(super) async fn left(&self) {
        self.leaving.cancelled().await;
    }

    pub(super) fn forget_failure(&self) {
        *lock(&self.last_error) = None;
    }

    pub(super) fn note_failure(&self, error: DialError) {
        self.failed_dials.fetch_add(1, Ordering::Relaxed);
        if let Some(refused) = refusal(&error) {
            self.service.refused_by(self.id, refused);
        }
        *lock(&self.last_error) = Some(error.to_string());
    }

    /// Each reason once a minute.
    pub(super) fn log_failure(&self, error: &DialError) {
        let sentence = error.to_string();
        if let Some(silent) = self.failures.note(sentence.clone(), clock::now()) {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            warn!(
                peer = self.id.0,
                silent, cause, "a member cannot be reached: {sentence}"
            );
        }
    }

    pub(super) fn view(&self) -> PeerView {
        let lanes = self.lanes.iter().map(|lane| LaneView {
            class: lane.class,
            connected: lane.connected.load(Ordering::Acquire),
            connects: lane.connects.load(Ordering::Relaxed),
            messages: lane.messages.load(Ordering::Relaxed),
            bytes: lane.bytes.load(Ordering::Relaxed),
            dropped: lane.queue.dropped(),
            queued_bytes: lane.queue.bytes(),
        });
        PeerView {
            id: self.id,
            incarnation: self.incarnation,
            address: self.address(),
            guest: self.guest,
            last_error: lock(&self.last_error).clone(),
            failed_dials: self.failed_dials.load(Ordering::Relaxed),
            lanes: lanes.collect(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
