//! The listener of the gRPC port (HTTP port + 1000): accepts and limits connections. What happens on one
//! of them is the business of `session`.
//!
//! Limits, and what happens at them:
//!
//! | limit | default | at the limit |
//! |---|---|---|
//! | connections | 16,384 | closed at once, but for the reserve |
//! | reserve for peers | 64 connections beyond it | closed after 5 s unless it proved itself a peer; serves nothing else |
//! | preface of HTTP/2 | 5 s | closed |
//! | first request | 30 s | closed |
//! | registration of a connection that has asked | 60 s, again and again | closed, unless it is being answered |
//! | concurrent streams of a connection | 1,000 | HTTP/2 refuses the stream |
//! | tasks of a connection | 1,000 | the stream is reset: a client that resets what it asked for (rapid reset) gains nothing |
//! | resets not yet seen by us | 100 | the connection is closed, ENHANCE_YOUR_CALM |
//! | headers of a request | 16 KiB | 431, by HTTP/2 |
//! | window of a connection / stream | 1 MiB / 256 KiB, 8 MiB for a proved peer | the client waits |
//! | stop | 10 s | streams still open are cut |
//!
//! Pings of HTTP/2 are answered, however many: Go pings each minute on idle connections. A host that is gone
//! is found by TCP keepalive (30 s, then each 10 s), a client that is silent by `detection`.
//!
//! Who breaks these rules is named in the log, once a minute for each address.
//!
//! TLS and clear text are told apart by the first byte; without a certificate TLS is closed.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use http::{HeaderValue, Response};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::line::{Line, Order, Wire, WireKind};
use super::session::{Http, Session};
use super::tls::Tls;
use crate::clock;
use crate::cluster::{BoxFuture, Door, Exchange, Failures};
use crate::metrics::Grpc;
use crate::shutdown::Shutdown;

/// Limits of the listener; the table in the module's documentation says what happens at each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time.
    pub connections_max: usize,
    /// Connections beyond it, for peers.
    pub peer_reserve: usize,
    /// From accept to the end of the HTTP/2 preface.
    pub preface_within: Duration,
    /// From there to the first request.
    pub first_request_within: Duration,
    /// How long a connection that has asked may stay without registering, unless it is being answered.
    pub registered_within: Duration,
    /// In which a connection of the reserve must have proved itself.
    pub proof_within: Duration,
    /// Streams of a connection at a time, and tasks for them.
    pub streams_max: u32,
    /// Streams that the client reset before this side has seen them.
    pub unseen_resets_max: usize,
    /// Header list of a request, in bytes.
    pub header_bytes_max: u32,
    /// Between the stop signal and the cut.
    pub drain_within: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections_max: 16_384,
            peer_reserve: 64,
            preface_within: Duration::from_secs(5),
            first_request_within: Duration::from_secs(30),
            registered_within: Duration::from_secs(60),
            proof_within: Duration::from_secs(5),
            streams_max: 1_000,
            unseen_resets_max: 100,
            header_bytes_max: 16 << 10,
            drain_within: Duration::from_secs(10),
        }
    }
}

/// Serves the connections that are not (or not only) the peer door's.
pub trait Handler: Send + Sync + 'static {
    /// Somebody on this connection asks for something the door does not have: called once for each
    /// connection, before its first such request.
    fn open(self: Arc<Self>, line: &Arc<Line>) -> Arc<dyn Guest>;
}

/// One connection as its [`Handler`] sees it.
pub trait Guest: Send + Sync {
    /// The work that answers a request. It is polled once by the loop of the connection, so that what can
    /// be answered at once needs no task, and becomes a task of its own when it has to wait. It is dropped
    /// when the listener stops for good.
    fn handle(self: Arc<Self>, exchange: Exchange) -> BoxFuture<'static, ()>;

    /// The connection is to go: streams that would stand for ever are ended, what is being answered is not
    /// disturbed. May be called more than once.
    fn leave(&self) {}

    /// It has said who it is, so it may stay although nothing is asked.
    fn is_registered(&self) -> bool {
        true
    }

    /// The connection is gone; called once.
    fn closed(&self) {}
}

/// Answers everything with the gRPC status UNIMPLEMENTED.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unimplemented;

impl Handler for Unimplemented {
    fn open(self: Arc<Self>, _: &Arc<Line>) -> Arc<dyn Guest> {
        self
    }
}

impl Guest for Unimplemented {
    fn handle(self: Arc<Self>, (_, respond): Exchange) -> BoxFuture<'static, ()> {
        refuse(respond, UNIMPLEMENTED);
        Box::pin(std::future::ready(()))
    }
}

/// The port cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} (gRPC port): {}", advice(.source))]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// What the system says.
    #[source]
    pub source: io::Error,
}

fn advice(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another process listens there; stop it or set RNACOS_GRPC_PORT to a free port".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
        io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege".to_owned(),
        _ => error.to_string(),
    }
}

/// A port that is listened on; [`Listener::serve`] starts to answer.
pub struct Listener {
    tcp: TcpListener,
    local: SocketAddr,
    limits: Limits,
    tls: Option<Arc<Tls>>,
}

impl Listener {
    /// Takes the port.
    ///
    /// # Errors
    /// [`BindError`], which says what to do.
    pub fn bind(address: SocketAddr, limits: Limits) -> Result<Listener, BindError> {
        Listener::try_bind(address, limits).map_err(|source| BindError { address, source })
    }

    fn try_bind(address: SocketAddr, limits: Limits) -> io::Result<Listener> {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        // A restart must not wait for connections of the last run to time out.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let tcp = socket.listen(1024)?;
        let local = tcp.local_addr()?;
        Ok(Listener {
            tcp,
            local,
            limits,
            tls: None,
        })
    }

    /// Serves TLS, too.
    #[must_use]
    pub fn with_tls(mut self, tls: Option<Arc<Tls>>) -> Listener {
        self.tls = tls;
        self
    }

    /// The address, with the port the system chose for port 0.
    pub fn local_address(&self) -> SocketAddr {
        self.local
    }

    /// Answers until `network` begins: `door` what peers ask, `other` the rest. When `clients` begins,
    /// connections that are not of peers finish their streams and end, and no more of them are served;
    /// peers stay until `network` begins. The connections are tasks of `network`, the work of clients
    /// that has to wait are tasks of `clients`.
    pub fn serve(
        self,
        door: Option<Arc<Door>>,
        other: Arc<dyn Handler>,
        metrics: Arc<Grpc>,
        clients: &Shutdown,
        network: &Shutdown,
    ) {
        let Listener {
            tcp,
            local,
            limits,
            tls,
        } = self;
        let mut server = Server::new(door, other, limits, local, metrics, clients, network);
        server.tls = tls;
        let server = Arc::new(server);
        drop(network.spawn(server.clone().accept(tcp)));
        drop(network.spawn(server.tell_when_to_go()));
    }

    /// As [`Listener::serve`] with one signal for everybody, and counters that nobody reads.
    pub fn serve_until(self, door: Option<Arc<Door>>, other: Arc<dyn Handler>, shutdown: &Shutdown) {
        let metrics = Arc::new(Grpc::new(std::iter::empty()));
        self.serve(door, other, metrics, shutdown, shutdown);
    }
}

/// What the connections of a listener share.
pub(super) struct Server {
    pub(super) door: Option<Arc<Door>>,
    pub(super) other: Arc<dyn Handler>,
    local: SocketAddr,
    tls: Option<Arc<Tls>>,
    pub(super) limits: Limits,
    slots: Arc<Semaphore>,
    reserve: Arc<Semaphore>,
    /// Every open connection, by its id; no more than the slots and the reserve.
    lines: Mutex<HashMap<u64, Arc<Line>>>,
    pub(super) metrics: Arc<Grpc>,
    /// Clients are served until this begins.
    pub(super) clients: Shutdown,
    /// Peers are served until this begins.
    pub(super) network: Shutdown,
    /// Whose nonsense was logged lately.
    nonsense: Failures<IpAddr>,
}

/// The right to be one of the connections.
struct Slot {
    _permit: OwnedSemaphorePermit,
    /// Of the reserve: a peer, or nobody.
    reserved: bool,
}

impl Server {
    pub(super) fn new(
        door: Option<Arc<Door>>,
        other: Arc<dyn Handler>,
        limits: Limits,
        local: SocketAddr,
        metrics: Arc<Grpc>,
        clients: &Shutdown,
        network: &Shutdown,
    ) -> Server {
        Server {
            door,
            other,
            local,
            tls: None,
            limits,
            slots: Arc::new(Semaphore::new(limits.connections_max)),
            reserve: Arc::new(Semaphore::new(limits.peer_reserve)),
            lines: Mutex::default(),
            metrics,
            clients: clients.clone(),
            network: network.clone(),
            nonsense: Failures::new(),
        }
    }

    async fn accept(self: Arc<Server>, tcp: TcpListener) {
        let stop = self.network.begun();
        tokio::pin!(stop);
        loop {
            let accepted = tokio::select! {
                accepted = tcp.accept() => accepted,
                () = &mut stop => return,
            };
            match accepted {
                Ok((stream, remote)) => self.admit(stream, remote),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    // Out of files, most likely: those that are open must be closed first.
                    self.metrics.accept_errors.fetch_add(1, Ordering::Relaxed);
                    warn!("cannot accept connections on the gRPC port: {error}");
                    tokio::select! {
                        () = sleep(Duration::from_millis(100)) => {}
                        () = &mut stop => return,
                    }
                }
            }
        }
    }

    /// One task for all connections, so that none of them needs a stop signal of its own.
    pub(super) async fn tell_when_to_go(self: Arc<Server>) {
        let network = self.network.begun();
        tokio::pin!(network);
        tokio::select! {
            () = self.clients.begun() => self.tell(Order::ClientsGo),
            () = &mut network => {}
        }
        network.await;
        self.tell(Order::AllGo);
    }

    fn tell(&self, order: Order) {
        let lines: Vec<_> = self.lines().values().cloned().collect();
        for line in lines {
            line.order(order);
        }
    }

    fn lines(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<Line>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(self: &Arc<Server>, stream: TcpStream, remote: SocketAddr) {
        let local = stream.local_addr().unwrap_or(self.local);
        self.attend(remote, local, WireKind::Clear(stream));
    }

    /// Serves a connection as a task of its own, if there is room for it.
    pub(super) fn attend(self: &Arc<Server>, remote: SocketAddr, local: SocketAddr, bytes: WireKind) {
        let id = self.metrics.accepted.fetch_add(1, Ordering::Relaxed);
        let slot = match self.slots.clone().try_acquire_owned() {
            Ok(permit) => Slot {
                _permit: permit,
                reserved: false,
            },
            Err(_) => match self.reserve.clone().try_acquire_owned() {
                Ok(permit) if self.door.is_some() => Slot {
                    _permit: permit,
                    reserved: true,
                },
                _ => {
                    self.metrics.turned_away.fetch_add(1, Ordering::Relaxed);
                    self.complain(remote, "was turned away", &"there are too many connections");
                    return;
                }
            },
        };
        let line = Arc::new(Line::new(id, remote, local));
        let open = Open::new(self.clone(), line.clone());
        let server = self.clone();
        drop(self.network.spawn(async move {
            Box::pin(server.serve(Wire { kind: bytes, line }, slot.reserved)).await;
            drop((open, slot));
        }));
    }

    async fn serve(self: &Arc<Server>, wire: Wire, reserved: bool) {
        let line = wire.line.clone();
        match timeout(self.limits.preface_within, self.open(wire)).await {
            Ok(Ok((http, kept_out))) => {
                let mut session = Session::new(self.clone(), line, http, reserved);
                session.kept_out = kept_out;
                session.await;
            }
            Ok(Err(error)) => {
                self.metrics.not_http2.fetch_add(1, Ordering::Relaxed);
                self.complain(line.remote, "spoke no HTTP/2", &error);
            }
            Err(_) => {
                self.metrics.not_http2.fetch_add(1, Ordering::Relaxed);
                self.complain(line.remote, "spoke no HTTP/2", &"it sent nothing in time");
            }
        }
    }

    /// Says once a minute for each source what it does wrong.
    pub(super) fn complain(&self, remote: SocketAddr, what: &str, why: &dyn fmt::Display) {
        if let Some(silent) = self.nonsense.note(remote.ip(), clock::now()) {
            warn!(%remote, silent, "a connection to the gRPC port {what}: {why}");
        }
    }

    /// The connection as HTTP/2, and whether only a peer may use it: it is in clear text, and clients may not be.
    async fn open(&self, wire: Wire) -> io::Result<(Http, bool)> {
        let wire = wire.prepare(self.tls.as_deref()).await?;
        let tls_is_required = self.tls.as_ref().is_some_and(|tls| tls.is_required());
        let kept_out = tls_is_required && matches!(wire.kind, WireKind::Clear(_));
        let http = h2::server::Builder::new()
            .max_concurrent_streams(self.limits.streams_max)
            .max_header_list_size(self.limits.header_bytes_max)
            .max_frame_size(FRAME_BYTES)
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_send_buffer_size(SEND_BUFFER_BYTES)
            .max_pending_accept_reset_streams(self.limits.unseen_resets_max)
            .max_concurrent_reset_streams(50)
            .handshake(wire)
            .await
            .map_err(io::Error::other)?;
        Ok((http, kept_out))
    }
}

/// Keeps a connection on the list while it is open, however its task ends.
struct Open {
    server: Arc<Server>,
    line: Arc<Line>,
}

impl Open {
    fn new(server: Arc<Server>, line: Arc<Line>) -> Open {
        server.metrics.open.fetch_add(1, Ordering::Relaxed);
        server.lines().insert(line.id, line.clone());
        // IMPORTANT: after it is on the list. A stop that began before this told nobody of it.
        if server.clients.has_begun() {
            line.order(Order::ClientsGo);
        }
        if server.network.has_begun() {
            line.order(Order::AllGo);
        }
        Open { server, line }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.server.lines().remove(&self.line.id);
        self.server.metrics.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A gRPC status without a body ("trailers only").
pub(super) fn refuse(mut respond: SendResponse<Bytes>, (status, message): (&'static str, &'static str)) {
    let mut response = Response::new(());
    let headers = response.headers_mut();
    headers.insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    headers.insert("grpc-status", HeaderValue::from_static(status));
    headers.insert("grpc-message", HeaderValue::from_static(message));
    // The connection may be gone; then nobody waits for it.
    let _ = respond.send_response(response, true);
}

/// Errors of `accept` that speak of the connection and not of the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

pub(super) const UNIMPLEMENTED: (&str, &str) = ("12", "unknown service or method");
pub(super) const TOO_MANY: (&str, &str) = ("14", "too many connections");
pub(super) const TLS_ONLY: (&str, &str) = ("7", "clients of this node use TLS (RNACOS_GRPC_TLS_REQUIRED)");
pub(super) const STOPPING: (&str, &str) = ("14", "this node is stopping");
const FRAME_BYTES: u32 = 64 << 10;
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// Of a stream, in h2, beyond what the socket has taken.
const SEND_BUFFER_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests;
