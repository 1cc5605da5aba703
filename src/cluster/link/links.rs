//! All links of a node: who has one, what is read from it and written to it, how it ends.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{BufMut, Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{Response, StatusCode};
use raft::NodeId;
use tracing::{debug, warn};

use super::super::door::Exchange;
use super::super::failures::Failures;
use super::super::identity::PeerIdentity;
use super::super::limits::CHUNK_BYTES;
use super::super::peer::Peer;
use super::super::stream::{StreamError, capacity, next_chunk, send_all};
use super::super::transport::Transport;
use super::dialled;
use super::frames::Frames;
use super::{Link, LinkId, LinkKind, LinkService, Malformed};
use crate::clock;
use crate::shutdown::Shutdown;

/// A frame below this is copied behind others, so that many small ones leave in one piece.
const COPIED_BYTES: usize = 16 << 10;

/// The links of a node. Clones are the same.
#[derive(Clone)]
pub struct Links(Arc<Hub>);

/// What the links of a node share.
pub(in crate::cluster) struct Hub {
    pub(super) transport: Transport,
    service: Arc<dyn LinkService>,
    pub(super) shutdown: Shutdown,
    /// Those that the service has been told of, and not yet that they are closed: one per peer and kind.
    open: Mutex<BTreeMap<(LinkKind, NodeId), Link>>,
    /// How often each kind was reset.
    epochs: [AtomicU64; 2],
    newest: AtomicU64,
    counts: LinkCounts,
    malformed: Failures<NodeId>,
}

/// What happened on links since the start.
#[derive(Debug, Default)]
pub struct LinkCounts {
    /// Links that stood.
    pub opened: AtomicU64,
    /// Frames handed to the service.
    pub received: AtomicU64,
    /// Bytes of them.
    pub received_bytes: AtomicU64,
    /// Frames given to connections.
    pub sent: AtomicU64,
    /// Bytes of them.
    pub sent_bytes: AtomicU64,
    /// Links ended because of what they brought.
    pub malformed: AtomicU64,
    /// Links ended because this node was late: by what it found in them, or by [`Links::reset`].
    pub late: AtomicU64,
}

/// A link, for metrics and the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkView {
    /// What it carries.
    pub kind: LinkKind,
    /// Who is at the other end.
    pub peer: NodeId,
    /// Which one it is.
    pub id: LinkId,
    /// See [`Link::waiting_bytes`].
    pub waiting_bytes: usize,
}

/// Why a link ended.
#[derive(Debug)]
pub(super) enum End {
    /// Somebody closed it, a newer one took its place, or it was reset before it stood.
    Closed,
    /// This node was late.
    Late,
    /// The other side ended it, or the way there.
    Broken(StreamError),
    /// It brought what nobody sends.
    Malformed(String),
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Links").field(&self.views()).finish()
    }
}

impl Links {
    /// Links to the members that `transport` knows, now and whenever it is told of others: to those above this
    /// node's id they are dialled from now on, those of the others are taken at the door
    /// ([`super::super::Door::with_links`]). All end with `shutdown`.
    pub fn new(transport: &Transport, service: Arc<dyn LinkService>, shutdown: Shutdown) -> Links {
        let hub = Arc::new(Hub {
            transport: transport.clone(),
            service,
            shutdown,
            open: Mutex::default(),
            epochs: Default::default(),
            newest: AtomicU64::new(0),
            counts: LinkCounts::default(),
            malformed: Failures::new(),
        });
        transport.attach(&hub);
        Links(hub)
    }

    /// Ends all links of a kind at once: no frame that was read, waits in a buffer or waits to be sent is
    /// handed on or sent, except one that is being handed on at this moment. New ones are dialled at once.
    ///
    /// Whoever notices that its time stood still calls this *before* [`LinkService::is_late`] says no again.
    /// Then nothing that waited is acted on: a reader asks `is_late` first and looks second at whether its
    /// link was closed. If it hears "not late" because the owner has caught up, the reset has come before and
    /// the link is closed; if it hears it because the owner was not late yet, the frame did not wait. A link
    /// that stands between (its peer may have sent something while this node was away) remembers the count of
    /// resets from before its peer could send, and does not stand.
    pub fn reset(&self, kind: LinkKind) {
        self.0.epoch_of(kind).fetch_add(1, Ordering::SeqCst);
        let open = self.0.open();
        for link in open.values().filter(|link| link.kind() == kind) {
            self.0.counts.late.fetch_add(1, Ordering::Relaxed);
            link.close();
        }
    }

    /// What happened on links.
    pub fn counts(&self) -> &LinkCounts {
        &self.0.counts
    }

    /// The links that stand, by kind and peer.
    pub fn views(&self) -> Vec<LinkView> {
        let open = self.0.open();
        open.values()
            .map(|link| LinkView {
                kind: link.kind(),
                peer: link.peer(),
                id: link.id(),
                waiting_bytes: link.waiting_bytes(),
            })
            .collect()
    }

    /// A member asks at the door for a link.
    pub(in crate::cluster) async fn accept(
        self,
        from: Arc<PeerIdentity>,
        kind: LinkKind,
        (request, mut respond): Exchange,
    ) {
        let hub = &*self.0;
        // Both before the answer: the caller sends nothing before that.
        let epoch = hub.epoch(kind);
        let Some(peer) = hub.caller(&from) else {
            return turn_away(respond);
        };
        let mut renewal = peer.renewal();
        let Ok(mut stream) = respond.send_response(Response::new(()), false) else {
            return;
        };
        let link = hub.link(kind, peer.id(), epoch);
        let mut body = request.into_body();
        let end = tokio::select! {
            biased;
            end = hub.talk(&link, &mut body, &mut stream) => end,
            () = peer.left() => End::Closed,
            // Somebody found the peer gone, or it has moved.
            _ = renewal.changed() => End::Closed,
            () = hub.shutdown.begun() => End::Closed,
        };
        hub.note(&link, &end);
        stream.send_reset(end.reason());
    }
}

fn turn_away(mut respond: SendResponse<Bytes>) {
    let mut refusal = Response::new(());
    *refusal.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let _ = respond.send_response(refusal, true);
}

impl End {
    pub(super) fn reason(&self) -> Reason {
        match self {
            End::Malformed(_) => Reason::PROTOCOL_ERROR,
            End::Closed | End::Late | End::Broken(_) => Reason::CANCEL,
        }
    }
}

impl From<StreamError> for End {
    fn from(error: StreamError) -> End {
        End::Broken(error)
    }
}

impl Hub {
    /// The transport's members have changed: those that are to be dialled and are not are dialled from now on.
    /// Tasks of those that left end by themselves.
    pub(in crate::cluster) fn follow<'a>(self: &Arc<Hub>, members: impl Iterator<Item = &'a Arc<Peer>>) {
        let own = self.transport.own_id();
        for peer in members.filter(|peer| own < peer.id()) {
            if peer.begin_links() {
                for kind in LinkKind::ALL {
                    self.shutdown
                        .spawn_while_running(dialled::keep(self.clone(), peer.clone(), kind));
                }
            }
        }
    }

    /// The member that calls, if it is one of this life and the one that dials.
    fn caller(&self, from: &PeerIdentity) -> Option<Arc<Peer>> {
        let peer = self.transport.member(from.identity.node_id)?;
        let is_it = peer.incarnation() == from.identity.incarnation && peer.id() < self.transport.own_id();
        is_it.then_some(peer)
    }

    fn epoch_of(&self, kind: LinkKind) -> &AtomicU64 {
        let [distro, forward] = &self.epochs;
        match kind {
            LinkKind::Distro => distro,
            LinkKind::Forward => forward,
        }
    }

    /// Resets of this kind so far.
    pub(super) fn epoch(&self, kind: LinkKind) -> u64 {
        self.epoch_of(kind).load(Ordering::SeqCst)
    }

    /// A link that does not stand yet. `epoch` is from before its peer could send anything on it.
    pub(super) fn link(&self, kind: LinkKind, peer: NodeId, epoch: u64) -> Link {
        let id = self.newest.fetch_add(1, Ordering::Relaxed) + 1;
        Link::new(LinkId(id), kind, peer, epoch)
    }

    /// The life of a link, from `opened` to `closed`. Dropping it ends the link in order.
    pub(super) async fn talk(
        &self,
        link: &Link,
        body: &mut RecvStream,
        stream: &mut SendStream<Bytes>,
    ) -> End {
        let Some(_stands) = self.stand(link).await else {
            return End::Closed;
        };
        tokio::select! {
            biased;
            () = link.closing() => End::Closed,
            end = self.read(link, body) => end,
            end = self.write(link, stream) => end,
        }
    }

    /// Puts the link into the place of an older one, which is closed first. `None`: a newer one has the place,
    /// or this one has been reset.
    async fn stand(&self, link: &Link) -> Option<Stands<'_>> {
        while let Some(older) = self.take_place(link)? {
            older.close();
            older.ended().await;
        }
        self.counts.opened.fetch_add(1, Ordering::Relaxed);
        debug!(?link, "a link stands");
        // Before the service hears of it, so that whatever comes it hears of the end.
        let stands = Stands {
            hub: self,
            link: link.clone(),
        };
        self.service.opened(link.kind(), link.peer(), link.clone());
        Some(stands)
    }

    /// The inner `None`: done. The outer: it may not have the place. Else who has it.
    #[expect(clippy::option_option, reason = "one caller, next to it")]
    fn take_place(&self, link: &Link) -> Option<Option<Link>> {
        let place = (link.kind(), link.peer());
        let mut open = self.open();
        // Under the lock: a reset from now on finds it among the open ones.
        if self.epoch(link.kind()) != link.0.epoch {
            return None;
        }
        match open.get(&place) {
            Some(other) if other.id() > link.id() => None,
            Some(other) => Some(Some(other.clone())),
            None => {
                open.insert(place, link.clone());
                Some(None)
            }
        }
    }

    async fn read(&self, link: &Link, body: &mut RecvStream) -> End {
        let mut frames = Frames::default();
        loop {
            let mut chunk = match next_chunk(body).await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return End::Broken(StreamError::Ended),
                Err(error) => return error.into(),
            };
            loop {
                match frames.next(&mut chunk) {
                    Ok(Some(frame)) => {
                        if let Err(end) = self.hand_on(link, frame) {
                            return end;
                        }
                    }
                    Ok(None) => break,
                    Err(error) => return End::Malformed(error.to_string()),
                }
            }
            // A peer that always has more must not keep this link from writing.
            tokio::task::coop::consume_budget().await;
        }
    }

    fn hand_on(&self, link: &Link, frame: Bytes) -> Result<(), End> {
        self.check(link)?;
        self.counts.received.fetch_add(1, Ordering::Relaxed);
        self.counts
            .received_bytes
            .fetch_add(frame.len() as u64, Ordering::Relaxed);
        self.service
            .received(link.kind(), link.peer(), link.id(), frame)
            .map_err(|Malformed(why)| End::Malformed(why))
    }

    /// IMPORTANT: in this order, see [`Links::reset`].
    fn check(&self, link: &Link) -> Result<(), End> {
        if self.service.is_late(link.kind()) {
            return Err(End::Late);
        }
        if link.is_closing() {
            return Err(End::Closed);
        }
        Ok(())
    }

    async fn write(&self, link: &Link, stream: &mut SendStream<Bytes>) -> End {
        let outbox = &link.0.outbox;
        let mut frames = Vec::new();
        let mut out = BytesMut::with_capacity(COPIED_BYTES);
        loop {
            outbox.filled().await;
            // What waits for room stays in the outbox, where its limit is, and may still be dropped.
            if let Err(error) = capacity(stream, CHUNK_BYTES).await {
                return error.into();
            }
            if let Err(end) = self.check(link) {
                return end;
            }
            let taken = outbox.take(&mut frames, CHUNK_BYTES);
            let (count, bytes) = (frames.len() as u64, frames.iter().map(Bytes::len).sum::<usize>());
            if let Err(error) = send_frames(stream, &mut frames, &mut out).await {
                return error.into();
            }
            outbox.gave(taken);
            self.counts.sent.fetch_add(count, Ordering::Relaxed);
            self.counts.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    /// Counts and tells how a link ended.
    pub(super) fn note(&self, link: &Link, end: &End) {
        match end {
            End::Closed => debug!(?link, "a link was closed"),
            End::Broken(error) => debug!(?link, "a link broke: {error}"),
            End::Late => {
                self.counts.late.fetch_add(1, Ordering::Relaxed);
                debug!(?link, "a link was closed: this node was late");
            }
            End::Malformed(why) => {
                self.counts.malformed.fetch_add(1, Ordering::Relaxed);
                if let Some(silent) = self.malformed.note(link.peer(), clock::now()) {
                    let (peer, kind) = (link.peer().0, link.kind());
                    warn!(peer, ?kind, silent, "a peer's stream was ended: {why}");
                }
            }
        }
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<(LinkKind, NodeId), Link>> {
        self.open.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A link has its place and the service knows it. Its end is told by dropping this, so that it is told however
/// the task ends.
struct Stands<'a> {
    hub: &'a Hub,
    link: Link,
}

impl Drop for Stands<'_> {
    fn drop(&mut self) {
        let link = &self.link;
        link.close();
        self.hub.service.closed(link.kind(), link.peer(), link.id());
        // Only now, so that `opened` of the next one comes after it.
        self.hub.open().remove(&(link.kind(), link.peer()));
        link.0.ended.cancel();
    }
}

/// Frames to the stream: small ones together, large ones as they are.
async fn send_frames(
    stream: &mut SendStream<Bytes>,
    frames: &mut Vec<Bytes>,
    out: &mut BytesMut,
) -> Result<(), StreamError> {
    for frame in frames.drain(..) {
        // The outbox has taken none above 64 MiB.
        out.put_u32(frame.len() as u32);
        if frame.len() < COPIED_BYTES {
            out.put_slice(&frame);
        } else {
            send_all(stream, out.split().freeze(), false).await?;
            send_all(stream, frame, false).await?;
        }
    }
    send_all(stream, out.split().freeze(), false).await
}
