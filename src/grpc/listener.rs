//! The listener of the gRPC port (HTTP port + 1000): bare HTTP/2, paths dispatched to the peer door or to
//! whoever serves SDKs.
//!
//! Limits, and what happens at them:
//!
//! | limit | default | at the limit |
//! |---|---|---|
//! | connections | 16,384 | closed at once, but for the reserve |
//! | reserve for peers | 64 connections beyond it | closed after 5 s unless it proved itself a peer; serves nothing else |
//! | preface of HTTP/2 | 5 s | closed |
//! | first request | 30 s | closed |
//! | concurrent streams of a connection | 1,000 | HTTP/2 refuses the stream |
//! | tasks of a connection | 1,000 | the stream is reset: a client that resets what it asked for (rapid reset) gains nothing |
//! | resets not yet seen by us | 100 | the connection is closed, ENHANCE_YOUR_CALM |
//! | headers of a request | 16 KiB | 431, by HTTP/2 |
//! | window of a connection / stream | 1 MiB / 256 KiB, 8 MiB for a proved peer | the client waits |
//! | stop | 10 s | streams still open are cut |
//!
//! TLS and clear text are told apart by the first byte; TLS is not served yet and closed.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderValue, Request, Response};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, warn};

use crate::clock;
use crate::cluster::{BoxFuture, Door, Exchange, Standing, Visit, WINDOW_BYTES as PEER_WINDOW_BYTES};
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
            proof_within: Duration::from_secs(5),
            streams_max: 1_000,
            unseen_resets_max: 100,
            header_bytes_max: 16 << 10,
            drain_within: Duration::from_secs(10),
        }
    }
}

/// A connection, as a [`Handler`] sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Connection {
    /// Never used twice within a process.
    pub id: u64,
    /// Where it comes from.
    pub remote: SocketAddr,
    /// The address it came to.
    pub local: SocketAddr,
}

/// Answers the requests that are not for the peer door.
pub trait Handler: Send + Sync + 'static {
    /// The work that answers a request; runs as a task of its own and is dropped when the listener
    /// stops for good.
    fn handle(
        &self,
        connection: &Connection,
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
    ) -> BoxFuture<'static, ()>;

    /// The connection is gone; called once, also when it never asked anything.
    fn closed(&self, connection: &Connection) {
        let _ = connection;
    }
}

/// Answers everything with the gRPC status UNIMPLEMENTED.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unimplemented;

impl Handler for Unimplemented {
    fn handle(
        &self,
        _: &Connection,
        _: Request<RecvStream>,
        respond: SendResponse<Bytes>,
    ) -> BoxFuture<'static, ()> {
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

/// What the listener has seen since the start.
#[derive(Debug, Default)]
pub struct Counts {
    /// Connections accepted.
    pub accepted: AtomicU64,
    /// Connections closed at once because there were too many.
    pub turned_away: AtomicU64,
    /// Connections that spoke no HTTP/2, or not in time.
    pub not_http2: AtomicU64,
    /// Requests reset because the connection had too many tasks.
    pub overrun: AtomicU64,
}

/// A port that is listened on; [`Listener::serve`] starts to answer.
pub struct Listener {
    tcp: TcpListener,
    local: SocketAddr,
    limits: Limits,
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
        Ok(Listener { tcp, local, limits })
    }

    /// The address, with the port the system chose for port 0.
    pub fn local_address(&self) -> SocketAddr {
        self.local
    }

    /// Answers until `shutdown`: `door` what peers ask, `other` the rest. The connections are tasks of
    /// `shutdown`; they finish their streams and end.
    pub fn serve(self, door: Option<Arc<Door>>, other: Arc<dyn Handler>, shutdown: &Shutdown) -> Arc<Counts> {
        let Listener { tcp, local, limits } = self;
        let counts = Arc::new(Counts::default());
        let server = Arc::new(Server {
            door,
            other,
            local,
            limits,
            slots: Arc::new(Semaphore::new(limits.connections_max)),
            reserve: Arc::new(Semaphore::new(limits.peer_reserve)),
            counts: counts.clone(),
            shutdown: shutdown.clone(),
        });
        drop(shutdown.spawn(server.accept(tcp)));
        counts
    }
}

struct Server {
    door: Option<Arc<Door>>,
    other: Arc<dyn Handler>,
    local: SocketAddr,
    limits: Limits,
    slots: Arc<Semaphore>,
    reserve: Arc<Semaphore>,
    counts: Arc<Counts>,
    shutdown: Shutdown,
}

/// The right to be one of the connections.
struct Slot {
    _permit: OwnedSemaphorePermit,
    /// Of the reserve: a peer, or nobody.
    reserved: bool,
}

impl Server {
    async fn accept(self: Arc<Server>, tcp: TcpListener) {
        let stop = self.shutdown.begun();
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
                    warn!("cannot accept connections on the gRPC port: {error}");
                    tokio::select! {
                        () = sleep(Duration::from_millis(100)) => {}
                        () = &mut stop => return,
                    }
                }
            }
        }
    }

    fn admit(self: &Arc<Server>, stream: TcpStream, remote: SocketAddr) {
        let id = self.counts.accepted.fetch_add(1, Ordering::Relaxed);
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
                    self.counts.turned_away.fetch_add(1, Ordering::Relaxed);
                    return;
                }
            },
        };
        let connection = Connection {
            id,
            remote,
            local: stream.local_addr().unwrap_or(self.local),
        };
        let server = self.clone();
        drop(self.shutdown.spawn(async move {
            Box::pin(server.serve(stream, connection, &slot)).await;
            server.other.closed(&connection);
        }));
    }

    async fn serve(self: &Arc<Server>, stream: TcpStream, connection: Connection, slot: &Slot) {
        let opened = timeout(self.limits.preface_within, self.open(stream)).await;
        let Ok(Ok(http)) = opened else {
            self.counts.not_http2.fetch_add(1, Ordering::Relaxed);
            if let Ok(Err(error)) = opened {
                debug!(remote = %connection.remote, "not an HTTP/2 connection: {error}");
            }
            return;
        };
        let visit = self.door.as_ref().map(|door| door.open(connection.remote));
        let first_deadline = if slot.reserved {
            self.limits.proof_within
        } else {
            self.limits.first_request_within
        };
        let session = Session {
            server: self,
            connection,
            tasks: Arc::new(Semaphore::new(self.limits.streams_max as usize)),
            reserved: slot.reserved,
            deadline: Some(clock::now() + first_deadline),
            draining: false,
            visit,
        };
        session.run(http).await;
    }

    async fn open(&self, stream: TcpStream) -> io::Result<Http> {
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_tcp_keepalive(
            &TcpKeepalive::new()
                .with_time(Duration::from_secs(30))
                .with_interval(Duration::from_secs(10)),
        )?;
        let mut first = [0];
        // A closed connection peeks nothing; h2 then says so.
        if stream.peek(&mut first).await? == 1 && first == [TLS_HANDSHAKE] {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "TLS is not served on this port",
            ));
        }
        h2::server::Builder::new()
            .max_concurrent_streams(self.limits.streams_max)
            .max_header_list_size(self.limits.header_bytes_max)
            .max_frame_size(FRAME_BYTES)
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_send_buffer_size(SEND_BUFFER_BYTES)
            .max_pending_accept_reset_streams(self.limits.unseen_resets_max)
            .max_concurrent_reset_streams(50)
            .handshake(stream)
            .await
            .map_err(io::Error::other)
    }
}

type Http = h2::server::Connection<TcpStream, Bytes>;

/// The loop of one connection.
struct Session<'a> {
    server: &'a Arc<Server>,
    connection: Connection,
    /// One permit for each request that is worked on.
    tasks: Arc<Semaphore>,
    reserved: bool,
    /// When it is closed unless something happens before.
    deadline: Option<Instant>,
    draining: bool,
    visit: Option<Arc<Visit>>,
}

impl Session<'_> {
    async fn run(mut self, mut http: Http) {
        let stop = self.server.shutdown.begun();
        tokio::pin!(stop);
        let mut standing = self.visit.as_ref().map(|visit| visit.standing());
        loop {
            tokio::select! {
                biased;
                () = &mut stop, if !self.draining => self.drain(&mut http),
                change = changed(&mut standing) => self.on_standing(change, &mut http),
                () = sleep_until(self.deadline.unwrap_or_else(clock::now)), if self.deadline.is_some() => return,
                request = http.accept() => match request {
                    Some(Ok((request, respond))) => self.dispatch((request, respond)),
                    Some(Err(error)) => {
                        debug!(remote = %self.connection.remote, "connection: {error}");
                        return;
                    }
                    None => return,
                },
            }
        }
    }

    /// No new streams; those that are open may finish.
    fn drain(&mut self, http: &mut Http) {
        self.draining = true;
        self.deadline = Some(clock::now() + self.server.limits.drain_within);
        http.graceful_shutdown();
    }

    fn on_standing(&mut self, standing: Standing, http: &mut Http) {
        match standing {
            Standing::Stranger => {}
            Standing::Proven(_) => {
                self.reserved = false;
                if !self.draining {
                    self.deadline = None;
                }
                http.set_target_window_size(PEER_WINDOW_BYTES);
                if let Err(error) = http.set_initial_window_size(PEER_WINDOW_BYTES) {
                    debug!("the window of a peer stays small: {error}");
                }
            }
            Standing::Failed => self.drain(http),
        }
    }

    fn dispatch(&mut self, exchange: Exchange) {
        if !self.reserved && !self.draining {
            self.deadline = None;
        }
        let Ok(permit) = self.tasks.clone().try_acquire_owned() else {
            self.server.counts.overrun.fetch_add(1, Ordering::Relaxed);
            let (_, mut respond) = exchange;
            respond.send_reset(h2::Reason::REFUSED_STREAM);
            return;
        };
        let routed = match &self.visit {
            Some(visit) => visit.route(exchange),
            None => Err(Box::new(exchange)),
        };
        let work = match routed {
            Ok(work) => work,
            Err(exchange) => {
                let (request, respond) = *exchange;
                if self.reserved {
                    refuse(respond, UNAVAILABLE);
                    return;
                }
                self.server.other.handle(&self.connection, request, respond)
            }
        };
        drop(self.server.shutdown.spawn(async move {
            work.await;
            drop(permit);
        }));
    }
}

/// The next change of standing; never when there is no door.
async fn changed(standing: &mut Option<watch::Receiver<Standing>>) -> Standing {
    let Some(receiver) = standing else {
        return std::future::pending().await;
    };
    match receiver.changed().await {
        Ok(()) => receiver.borrow_and_update().clone(),
        // The session holds the visit: its sender lives as long as this.
        Err(_) => std::future::pending().await,
    }
}

/// A gRPC status without a body ("trailers only").
fn refuse(mut respond: SendResponse<Bytes>, (status, message): (&'static str, &'static str)) {
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

/// First byte of a TLS record that begins a handshake; HTTP/2 begins with `P`.
const TLS_HANDSHAKE: u8 = 0x16;
const UNIMPLEMENTED: (&str, &str) = ("12", "unknown service or method");
const UNAVAILABLE: (&str, &str) = ("14", "too many connections");
const FRAME_BYTES: u32 = 64 << 10;
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
const SEND_BUFFER_BYTES: usize = 512 << 10;

#[cfg(test)]
mod tests;
