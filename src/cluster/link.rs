//! Links: ordered streams of frames between members, both ways, for what does not go through the log.
//!
//! ```text
//!   node 1 (the lower id dials)                                         node 2
//!   LinkService <-- opened, received, closed -- Links ==== HTTP/2 ==== Door -- Links --> LinkService
//!                         Link::send -> outbox --^                              ^-- outbox <- Link::send
//! ```
//!
//! Of each pair of members the one with the lower id dials, once for each [`LinkKind`], on a connection of its
//! own, and again after at most a second while that fails. What a frame means is the service's business: here
//! it is bytes behind a length.
//!
//! | bytes | on `/Distro` and `/Forward`, both ways |
//! |---|---|
//! | 4 | length of the frame, big-endian, at most 64 MiB |
//! | n | the frame |
//!
//! **Order.** Frames of one link arrive in the order in which they were sent, or not at all: what waits when a
//! link ends is dropped on both sides, and nothing of it appears on the next one. For each link the service
//! hears `opened`, then each `received`, then `closed`, one after the other. A newer link of the same peer and
//! kind takes the place of the older one, whose `closed` comes first.
//!
//! **Nothing late.** A process that was stopped for a while finds frames that waited for it: in sockets, in the
//! buffers of HTTP/2, or read already. [`LinkService::is_late`] is asked right before each of them is handed
//! on, and [`Links::reset`] ends all links of a kind; see there for why nothing slips through between the two.
//!
//! **A peer that is gone** ends its links: by what the socket says, by pings on those that are dialled here, and
//! by the pings of the control lane (`lane`), which speak for every connection of that peer, whoever dialled.
//! The owner may know more and calls [`Link::close`].

mod dialled;
mod frames;
mod links;
mod outbox;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use raft::NodeId;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use super::limits::{DISTRO_OUTBOX_BYTES, FORWARD_OUTBOX_BYTES};
pub(super) use links::Hub;
pub use links::{LinkCounts, LinkView, Links};
use outbox::Outbox;

pub(super) const DISTRO_PATH: &str = "/rnacos.cluster.Peer/Distro";
pub(super) const FORWARD_PATH: &str = "/rnacos.cluster.Peer/Forward";

/// Which frames share a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkKind {
    /// Records of the registry, from each node to each other.
    Distro,
    /// What clients ask, on its way to the node that is responsible, and the answers. Small frames that must
    /// not wait behind records.
    Forward,
}

impl LinkKind {
    /// All of them.
    pub const ALL: [LinkKind; 2] = [LinkKind::Distro, LinkKind::Forward];

    pub(super) fn of_path(path: &str) -> Option<LinkKind> {
        LinkKind::ALL.into_iter().find(|kind| kind.path() == path)
    }

    fn path(self) -> &'static str {
        match self {
            LinkKind::Distro => DISTRO_PATH,
            LinkKind::Forward => FORWARD_PATH,
        }
    }

    fn outbox_bytes(self) -> usize {
        match self {
            LinkKind::Distro => DISTRO_OUTBOX_BYTES,
            LinkKind::Forward => FORWARD_OUTBOX_BYTES,
        }
    }
}

/// Names a link among all that this process ever had. A newer one is higher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// A frame is not taken and will not be sent: what waits for the peer has reached the bound of its kind, the
/// frame alone is larger than one may be, or the link has ended ([`LinkService::closed`] has come or will).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the link takes no more")]
pub struct Full;

/// A frame is not what any version sends: the link cannot be trusted any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

/// Who is told of links.
///
/// Nothing here may wait: it is called from the tasks that read the connections, of several links at once.
/// Everything of [`Link`] and [`Links`] may be called from in here, and with locks held that are taken in here:
/// none of it calls the service back.
pub trait LinkService: Send + Sync + fmt::Debug + 'static {
    /// A link stands, and takes frames. The first call for each link.
    fn opened(&self, kind: LinkKind, peer: NodeId, link: Link);

    /// The next frame of a link.
    ///
    /// # Errors
    /// [`Malformed`] ends the link; it is counted and logged, each peer once a minute.
    fn received(&self, kind: LinkKind, peer: NodeId, link: LinkId, frame: Bytes) -> Result<(), Malformed>;

    /// A link has ended; what waited in it is dropped. The last call for each link.
    fn closed(&self, kind: LinkKind, peer: NodeId, link: LinkId);

    /// True when what may have waited in links of this kind must not be acted on: this node's own time stood
    /// still for too long. Asked right before each frame is handed on or sent; true ends the link instead.
    ///
    /// A cheap comparison of the clock with the owner's last tick. Between the answer and the act the process
    /// may be stopped once more: whoever acts by a time of its own (a deadline, a stamp) reads the clock once,
    /// compares *that* reading here, and acts by it.
    fn is_late(&self, kind: LinkKind) -> bool {
        let _ = kind;
        false
    }
}

/// One link, from `opened` to `closed`. Clones are the same link.
#[derive(Clone)]
pub struct Link(Arc<Shared>);

struct Shared {
    id: LinkId,
    kind: LinkKind,
    peer: NodeId,
    /// [`Links::reset`]s of this kind before anything of this link could have been sent by the peer.
    epoch: u64,
    outbox: Outbox,
    /// To be ended: nothing is handed on or sent from now on.
    closing: CancellationToken,
    /// The service has been told that it is closed.
    ended: CancellationToken,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared { id, kind, peer, .. } = &*self.0;
        write!(f, "Link({} {kind:?} to {peer:?})", id.0)
    }
}

impl Link {
    fn new(id: LinkId, kind: LinkKind, peer: NodeId, epoch: u64) -> Link {
        Link(Arc::new(Shared {
            id,
            kind,
            peer,
            epoch,
            outbox: Outbox::new(kind.outbox_bytes()),
            closing: CancellationToken::new(),
            ended: CancellationToken::new(),
        }))
    }

    /// Which one it is.
    pub fn id(&self) -> LinkId {
        self.0.id
    }

    /// What it carries.
    pub fn kind(&self) -> LinkKind {
        self.0.kind
    }

    /// Who is at the other end.
    pub fn peer(&self) -> NodeId {
        self.0.peer
    }

    /// Puts a frame behind those that wait. Never waits; that it was taken does not mean that it arrives.
    ///
    /// # Errors
    /// [`Full`]: nothing was taken. Who needs every frame closes the link and begins again with the next one.
    pub fn send(&self, frame: Bytes) -> Result<(), Full> {
        self.0.outbox.push(frame)
    }

    /// Bytes of frames that were taken and not yet given to the connection, and some for each frame.
    pub fn waiting_bytes(&self) -> usize {
        self.0.outbox.bytes()
    }

    /// Ends the link, soon: no frame is handed on that was not before, and what waits is dropped. The service
    /// hears `closed` from the task of the link. Doing it twice changes nothing.
    pub fn close(&self) {
        self.0.closing.cancel();
        self.0.outbox.close();
    }

    fn is_closing(&self) -> bool {
        self.0.closing.is_cancelled()
    }

    fn closing(&self) -> WaitForCancellationFuture<'_> {
        self.0.closing.cancelled()
    }

    fn ended(&self) -> WaitForCancellationFuture<'_> {
        self.0.ended.cancelled()
    }
}
