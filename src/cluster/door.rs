//! The door: what a connection from outside may do here.
//!
//! A connection starts as a stranger. For a stranger one path of this module exists, the handshake, and
//! that once; every other path is answered as if it did not exist, by whoever answers unknown paths. Only
//! a connection that has passed the handshake has the others:
//!
//! | path | who | what |
//! |---|---|---|
//! | `/rnacos.cluster.Peer/Handshake` | stranger | [`super::handshake`] |
//! | `/rnacos.cluster.Peer/Raft` | member | frames of messages, one way, until either side ends it |
//! | `/rnacos.cluster.Peer/Call` | by kind | one `cluster.Call`, one `cluster.CallReply` |
//! | `/rnacos.cluster.Peer/Distro`, `/Forward` | member | [`super::link`]: frames, both ways |

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use h2::server::SendResponse;
use http::{Request, Response, StatusCode};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::calls::{Call, CallDecodeError, CallReply, WhyRefused};
use super::failures::Failures;
use super::handshake::{self, Frame, Verdict};
use super::identity::{Kind, Local, PeerIdentity, Target};
use super::limits::{CALL_BYTES_MAX, CALL_WITHIN, HANDSHAKE_WITHIN, VERSION};
use super::link::{LinkKind, Links};
use super::refused::Refused;
use super::service::{BoxFuture, PeerService};
use super::stream::{StreamError, next_chunk, next_frame, read_all, send_all};
use super::token::{ClusterToken, fresh_nonce};
use super::transport::Transport;
use super::wire::{self, DecodeError, Unframer};
use crate::clock;
use crate::shutdown::Shutdown;

pub(super) const HANDSHAKE_PATH: &str = "/rnacos.cluster.Peer/Handshake";
pub(super) const RAFT_PATH: &str = "/rnacos.cluster.Peer/Raft";
pub(super) const CALL_PATH: &str = "/rnacos.cluster.Peer/Call";

/// Whether an address is on this machine.
pub type IsLocal = fn(IpAddr) -> bool;

/// The usual [`IsLocal`]: a loopback address.
pub fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// The server side of the peer door.
pub struct Door {
    local: Local,
    token: ClusterToken,
    service: Arc<dyn PeerService>,
    /// Told who came, so that it can answer callers this node's membership does not list (yet).
    /// `None` while this node only listens (before it is part of a cluster).
    transport: Option<Transport>,
    /// Without them their paths do not exist.
    links: Option<Links>,
    is_local: IsLocal,
    failures: Failures<IpAddr>,
    counts: DoorCounts,
    stop: Shutdown,
}

/// What happened at the door since the start.
#[derive(Debug, Default)]
pub struct DoorCounts {
    /// Connections that proved the token and were let in.
    pub admitted: AtomicU64,
    /// Handshakes that were refused or not finished.
    pub refused: AtomicU64,
    /// Messages handed on.
    pub messages: AtomicU64,
    /// Bytes of frames received.
    pub bytes: AtomicU64,
    /// Messages of a kind this version does not know: ignored (R38).
    pub unknown: AtomicU64,
    /// Streams that were ended because of what they brought.
    pub malformed: AtomicU64,
}

impl Door {
    /// A door for this node. `stop` ends the streams that stand open.
    pub fn new(
        local: Local,
        token: ClusterToken,
        service: Arc<dyn PeerService>,
        transport: Option<Transport>,
        stop: Shutdown,
    ) -> Door {
        Door {
            local,
            token,
            service,
            transport,
            links: None,
            is_local: is_loopback,
            failures: Failures::new(),
            counts: DoorCounts::default(),
            stop,
        }
    }

    /// Another idea of which addresses are on this machine; for tests, which have no other.
    #[must_use]
    pub fn with_is_local(mut self, is_local: IsLocal) -> Door {
        self.is_local = is_local;
        self
    }

    /// Members may open links here.
    #[must_use]
    pub fn with_links(mut self, links: Links) -> Door {
        self.links = Some(links);
        self
    }

    /// What happened at the door.
    pub fn counts(&self) -> &DoorCounts {
        &self.counts
    }

    /// A connection came from `remote`: a stranger.
    pub fn open(self: &Arc<Door>, remote: SocketAddr) -> Arc<Visit> {
        let (standing, _) = watch::channel(Standing::Stranger);
        Arc::new(Visit {
            door: self.clone(),
            remote,
            standing,
            used: AtomicBool::new(false),
            arrived: OnceLock::new(),
        })
    }

    /// One line a minute for each source, without what it sent.
    fn log_failure(&self, remote: SocketAddr, why: &str) {
        self.counts.refused.fetch_add(1, Ordering::Relaxed);
        if let Some(silent) = self.failures.note(remote.ip(), clock::now()) {
            warn!(%remote, silent, "a peer was not let in: {why}");
        }
    }
}

/// What a connection has shown.
#[derive(Clone, Debug)]
pub enum Standing {
    /// Nothing yet.
    Stranger,
    /// It holds the token and may be here.
    Proven(Arc<PeerIdentity>),
    /// It tried and failed: the connection is to be closed.
    Failed,
}

/// One connection at the door, from its first byte to its last.
pub struct Visit {
    door: Arc<Door>,
    remote: SocketAddr,
    standing: watch::Sender<Standing>,
    /// The one handshake of this connection has begun.
    used: AtomicBool,
    /// The member that the transport was told of: it is told again when the connection is gone.
    arrived: OnceLock<Arc<PeerIdentity>>,
}

/// A request and where its answer goes.
pub type Exchange = (Request<RecvStream>, SendResponse<Bytes>);

impl Visit {
    /// What the connection has shown, now and when it changes.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// The work that answers this request.
    ///
    /// # Errors
    /// The request itself, when nothing of this door exists there for this connection: it is to be
    /// answered as any unknown path.
    pub fn route(self: &Arc<Visit>, exchange: Exchange) -> Result<BoxFuture<'static, ()>, Box<Exchange>> {
        let path = exchange.0.uri().path();
        let standing = self.standing.borrow().clone();
        match standing {
            Standing::Stranger if path == HANDSHAKE_PATH && self.begin() => {
                Ok(Box::pin(self.clone().shake_hands(exchange)))
            }
            Standing::Proven(from) if path == RAFT_PATH && from.kind == Kind::Member => {
                Ok(Box::pin(self.clone().take_messages(from, exchange)))
            }
            Standing::Proven(from) if path == CALL_PATH => {
                Ok(Box::pin(self.clone().answer_call(from, exchange)))
            }
            Standing::Proven(from) if from.kind == Kind::Member => self.route_link(from, exchange),
            _ => Err(Box::new(exchange)),
        }
    }

    fn route_link(
        &self,
        from: Arc<PeerIdentity>,
        exchange: Exchange,
    ) -> Result<BoxFuture<'static, ()>, Box<Exchange>> {
        match (&self.door.links, LinkKind::of_path(exchange.0.uri().path())) {
            (Some(links), Some(kind)) => Ok(Box::pin(links.clone().accept(from, kind, exchange))),
            _ => Err(Box::new(exchange)),
        }
    }

    /// True once.
    fn begin(&self) -> bool {
        !self.used.swap(true, Ordering::AcqRel)
    }

    async fn shake_hands(self: Arc<Visit>, exchange: Exchange) {
        let standing = match timeout(HANDSHAKE_WITHIN, self.try_handshake(exchange)).await {
            Ok(Ok(Some(peer))) => Standing::Proven(peer),
            Ok(Ok(None)) => Standing::Failed,
            Ok(Err(error)) => {
                self.door
                    .log_failure(self.remote, &format!("the handshake broke off: {error}"));
                Standing::Failed
            }
            Err(_) => {
                self.door
                    .log_failure(self.remote, "the handshake was not finished in time");
                Standing::Failed
            }
        };
        self.standing.send_replace(standing);
    }

    /// `None`: refused, said so, logged.
    async fn try_handshake(&self, exchange: Exchange) -> Result<Option<Arc<PeerIdentity>>, StreamError> {
        let (request, mut respond) = exchange;
        let mut body = request.into_body();
        let mut reply = respond.send_response(Response::new(()), false)?;
        if !self.door.token.is_set() && !(self.door.is_local)(self.remote.ip()) {
            self.door.log_failure(
                self.remote,
                "it is on another machine and this node has no cluster token: \
                 set RNACOS_CLUSTER_TOKEN to the same secret on every node",
            );
            send_all(&mut reply, Frame::Refused(Refused::LoopbackOnly).to_bytes(), true).await?;
            return Ok(None);
        }
        let challenge = fresh_nonce();
        send_all(&mut reply, Frame::Challenge(challenge).to_bytes(), false).await?;
        let Frame::Hello(proof, hello) = next_frame(&mut body, &mut BytesMut::new()).await? else {
            return Err(StreamError::BadFrame);
        };
        let door = self.door.local.get();
        let verdict = handshake::judge(&self.door.token, &door, &challenge, &proof, &hello);
        let frame = verdict.reply.to_bytes();
        let peer = self.settle(verdict);
        if let Some(peer) = &peer {
            // Before the caller hears of it, so that its next request finds the paths.
            self.standing.send_replace(Standing::Proven(peer.clone()));
        }
        send_all(&mut reply, frame, true).await?;
        Ok(peer)
    }

    /// Tells the owner who came, and logs.
    fn settle(&self, verdict: Verdict) -> Option<Arc<PeerIdentity>> {
        let Some((kind, identity, target)) = verdict.caller else {
            let why = verdict
                .result
                .err()
                .map(|refused| why_not(&refused))
                .unwrap_or_default();
            self.door.log_failure(self.remote, why);
            return None;
        };
        let version = verdict.result.as_ref().copied().unwrap_or(VERSION);
        let peer = Arc::new(PeerIdentity {
            kind,
            version,
            identity,
            remote: self.remote,
        });
        if let Err(refused) = verdict.result {
            self.turn_away(&peer, &target, &refused);
            return None;
        }
        self.door.counts.admitted.fetch_add(1, Ordering::Relaxed);
        debug!(node = peer.identity.node_id.0, kind = ?peer.kind, remote = %self.remote, "a peer was let in");
        if kind == Kind::Member {
            if let Some(transport) = &self.door.transport
                && self.arrived.set(peer.clone()).is_ok()
            {
                transport.arrived(&peer);
            }
            self.door.service.met(&peer);
        }
        Some(peer)
    }

    fn turn_away(&self, peer: &PeerIdentity, target: &Target, refused: &Refused) {
        self.door.counts.refused.fetch_add(1, Ordering::Relaxed);
        if let Some(silent) = self.door.failures.note(self.remote.ip(), clock::now()) {
            info!(
                node = peer.identity.node_id.0, kind = ?peer.kind, remote = %self.remote, silent,
                "a peer with the right token was not let in; it was told: {refused}"
            );
        }
        self.door.service.turned_away(peer, target, refused);
    }

    /// Reads frames until the stream ends. Whatever is wrong with them ends this stream and nothing else.
    async fn take_messages(self: Arc<Visit>, from: Arc<PeerIdentity>, exchange: Exchange) {
        let (request, mut respond) = exchange;
        let mut body = request.into_body();
        let Ok(mut reply) = respond.send_response(Response::new(()), false) else {
            return;
        };
        let mut unframer = Unframer::default();
        let stop = self.door.stop.begun();
        tokio::pin!(stop);
        loop {
            let chunk = tokio::select! {
                chunk = next_chunk(&mut body) => chunk,
                () = &mut stop => break,
            };
            let Ok(Some(chunk)) = chunk else { break };
            if let Err(error) = self.take_chunk(&from, &mut unframer, &chunk) {
                self.door.counts.malformed.fetch_add(1, Ordering::Relaxed);
                if let Some(silent) = self.door.failures.note(self.remote.ip(), clock::now()) {
                    let node = from.identity.node_id.0;
                    warn!(node, remote = %self.remote, silent, "a peer's stream was ended: {error}");
                }
                reply.send_reset(h2::Reason::PROTOCOL_ERROR);
                return;
            }
        }
        let _ = reply.send_data(Bytes::new(), true);
    }

    fn take_chunk(
        &self,
        from: &Arc<PeerIdentity>,
        unframer: &mut Unframer,
        chunk: &[u8],
    ) -> Result<(), DecodeError> {
        let counts = &self.door.counts;
        let mut messages = Vec::new();
        let result = unframer.feed(chunk, |frame| match wire::decode(frame) {
            Ok(message) if is_from(from, &message) => {
                messages.push(message);
                Ok(())
            }
            Ok(_) => Err(DecodeError::Malformed("a message in the name of another node")),
            Err(DecodeError::Unknown) => {
                counts.unknown.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => Err(error),
        });
        counts.bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        // Those before the bad one are good.
        if !messages.is_empty() {
            counts
                .messages
                .fetch_add(messages.len() as u64, Ordering::Relaxed);
            self.door.service.raft(from, messages);
        }
        result
    }

    async fn answer_call(self: Arc<Visit>, from: Arc<PeerIdentity>, exchange: Exchange) {
        let (request, mut respond) = exchange;
        let mut body = request.into_body();
        let work = async {
            let bytes = read_all(&mut body, CALL_BYTES_MAX).await?;
            let reply = self.call(&from, &bytes).await;
            let mut stream = respond.send_response(Response::new(()), false)?;
            send_all(&mut stream, Bytes::from(reply.encode()), true).await
        };
        let outcome = tokio::select! {
            outcome = timeout(CALL_WITHIN, work) => outcome,
            () = self.door.stop.begun() => return,
        };
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(remote = %self.remote, "a call was not answered: {error}"),
            Err(_) => {
                let mut late = Response::new(());
                *late.status_mut() = StatusCode::GATEWAY_TIMEOUT;
                let _ = respond.send_response(late, true);
            }
        }
    }

    async fn call(&self, from: &PeerIdentity, bytes: &[u8]) -> CallReply {
        let call = match Call::decode(bytes) {
            Ok(call) => call,
            Err(error @ CallDecodeError::Unknown) => {
                return CallReply::refused(
                    WhyRefused::UnknownCall,
                    format!("{error}: upgrade the node asked"),
                );
            }
            Err(error @ CallDecodeError::Malformed) => {
                return CallReply::refused(WhyRefused::UnknownCall, error.to_string());
            }
        };
        if !call.is_allowed_for(from.kind) {
            return CallReply::refused(WhyRefused::NotAllowed, "not for this kind of caller");
        }
        self.door.service.call(from, call).await
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if let (Some(peer), Some(transport)) = (self.arrived.get(), &self.door.transport) {
            transport.departed(peer);
        }
    }
}

/// A message is its connection's own: the node, the incarnation and the boot that proved themselves.
fn is_from(peer: &PeerIdentity, message: &raft::Message) -> bool {
    let (identity, sender) = (&peer.identity, &message.sender);
    sender.id == identity.node_id
        && sender.incarnation == identity.incarnation
        && sender.boot == identity.boot
}

/// What the log of the refusing node says; the caller's own sentences are in [`Refused`].
fn why_not(refused: &Refused) -> &'static str {
    match refused {
        Refused::TokenUnset => "it used a cluster token, this node has none (RNACOS_CLUSTER_TOKEN)",
        Refused::TokenMissing => "it used no cluster token (RNACOS_CLUSTER_TOKEN), this node has one",
        Refused::TokenWrong => "its cluster token (RNACOS_CLUSTER_TOKEN) is not this node's",
        _ => "its handshake could not be read",
    }
}
