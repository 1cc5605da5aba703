//! One transport of the gRPC port: what its owner may order from elsewhere, and whether the other side
//! still takes what is sent to it.
//!
//! A [`Line`] is a few atomics, no channel and no token: there are tens of thousands of them, and the loop
//! of a connection looks at its own before each turn.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;

use super::tls::Tls;

use crate::clock;

/// A connection, from accept to close.
#[derive(Debug)]
pub struct Line {
    /// Never used twice within a process.
    pub id: u64,
    /// Where it comes from.
    pub remote: SocketAddr,
    /// The address it came to.
    pub local: SocketAddr,
    /// When it came, milliseconds since 1970.
    pub since_ms: i64,
    /// The same by the clock that deadlines use.
    began: Instant,
    orders: AtomicU32,
    /// Of the loop that carries them out.
    waker: Mutex<Option<Waker>>,
    /// The socket took not all that there was to send, and has not taken any since.
    blocked: AtomicBool,
    /// When that began, in milliseconds of [`Line::age_ms`].
    blocked_since_ms: AtomicU64,
    /// The socket takes again.
    unblocked: Notify,
    /// What comes is acknowledged at once, see [`Line::acknowledge_at_once`].
    prompt: AtomicBool,
}

/// What the loop of a connection is told from outside. Orders are idempotent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Clients are to go; peers stay.
    ClientsGo = 1,
    /// Everybody is to go.
    AllGo = 2,
    /// This connection is to go, soon.
    HangUp = 4,
    /// The door has come to another opinion.
    LookAtStanding = 8,
}

impl Line {
    pub(super) fn new(id: u64, remote: SocketAddr, local: SocketAddr) -> Line {
        Line {
            id,
            remote,
            local,
            since_ms: clock::wall_ms(),
            began: clock::now(),
            orders: AtomicU32::new(0),
            waker: Mutex::new(None),
            blocked: AtomicBool::new(false),
            blocked_since_ms: AtomicU64::new(0),
            unblocked: Notify::new(),
            prompt: AtomicBool::new(false),
        }
    }

    /// From now on the system acknowledges at once what comes, at the price of one system call a read.
    ///
    /// The other side is to be one that sends a request in two segments without TCP_NODELAY: it sends the second
    /// when the first is acknowledged, and this side, which cannot answer half a request, would wait 40 ms
    /// before it does that.
    pub(super) fn acknowledge_at_once(&self) {
        self.prompt.store(true, Ordering::Relaxed);
    }

    /// Ends the connection: nothing new is taken, and after a second it is cut.
    pub fn hang_up(&self) {
        self.order(Order::HangUp);
    }

    /// Milliseconds since it came.
    pub fn age_ms(&self) -> u64 {
        let age = clock::now().saturating_duration_since(self.began);
        u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
    }

    /// True while the other side takes nothing although something waits for it.
    pub fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }

    /// For how many milliseconds it has taken nothing; 0 when it is not blocked.
    pub fn blocked_for_ms(&self) -> u64 {
        if !self.is_blocked() {
            return 0;
        }
        self.age_ms()
            .saturating_sub(self.blocked_since_ms.load(Ordering::Relaxed))
    }

    /// Completes when the other side takes again.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub async fn unblocked(&self) {
        loop {
            let notified = self.unblocked.notified();
            if !self.is_blocked() {
                return;
            }
            notified.await;
        }
    }

    pub(super) fn order(&self, order: Order) {
        self.orders.fetch_or(order as u32, Ordering::AcqRel);
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The loop listens with this waker. It must look at the orders after this, not before.
    pub(super) fn listen(&self, waker: &Waker) {
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker.clone());
    }

    /// Takes the orders given so far.
    pub(super) fn take_orders(&self) -> Orders {
        // The usual case is that there are none: a load is cheaper than a swap.
        if self.orders.load(Ordering::Acquire) == 0 {
            return Orders(0);
        }
        Orders(self.orders.swap(0, Ordering::AcqRel))
    }

    fn wrote(&self, some: bool) {
        if some {
            if self.blocked.swap(false, Ordering::Relaxed) {
                self.unblocked.notify_waiters();
            }
        } else if !self.blocked.load(Ordering::Relaxed) {
            self.blocked_since_ms.store(self.age_ms(), Ordering::Relaxed);
            self.blocked.store(true, Ordering::Relaxed);
        }
    }
}

/// Orders given to a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Orders(u32);

impl Orders {
    pub(super) fn has(self, order: Order) -> bool {
        self.0 & order as u32 != 0
    }
}

/// The bytes of a connection: in clear, or TLS. Tells its [`Line`] whether the other side takes them.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) kind: WireKind,
    pub(super) line: Arc<Line>,
}

#[derive(Debug)]
pub(super) enum WireKind {
    Clear(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// For tests in virtual time, which sockets would disturb.
    #[cfg(test)]
    Memory(tokio::io::DuplexStream),
}

impl Wire {
    /// A connection as it was accepted, made ready for HTTP/2: in TLS if it begins so and there is a
    /// certificate.
    ///
    /// # Errors
    /// The connection is of no use.
    pub(super) async fn prepare(self, tls: Option<&Tls>) -> io::Result<Wire> {
        let Wire { kind, line } = self;
        let kind = match kind {
            WireKind::Clear(stream) => prepare_socket(stream, tls).await?,
            other => other,
        };
        Ok(Wire { kind, line })
    }

    /// Has the system acknowledge what was read, now. It forgets to do so with each answer, so it is told each
    /// time; where there is no such thing nothing happens.
    fn acknowledge(&self) {
        #[cfg(target_os = "linux")]
        if let Some(socket) = self.kind.socket() {
            let _ = socket.set_tcp_quickack(true);
        }
    }

    fn bytes(self: Pin<&mut Self>) -> Pin<&mut dyn Bytes> {
        match &mut self.get_mut().kind {
            WireKind::Clear(stream) => Pin::new(stream),
            WireKind::Tls(stream) => Pin::new(stream),
            #[cfg(test)]
            WireKind::Memory(stream) => Pin::new(stream),
        }
    }
}

async fn prepare_socket(stream: TcpStream, tls: Option<&Tls>) -> io::Result<WireKind> {
    // Frames are written whole; waiting for more to send would only add a delayed ack.
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_keepalive(&keepalive())?;
    let mut first = [0];
    // A closed connection peeks nothing; h2 then says so.
    if stream.peek(&mut first).await? == 0 || first != [TLS_HANDSHAKE] {
        return Ok(WireKind::Clear(stream));
    }
    match tls {
        Some(tls) => Ok(WireKind::Tls(Box::new(tls.accept(stream).await?))),
        None => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "TLS, and this node has no certificate (RNACOS_GRPC_TLS_CERT_FILE)",
        )),
    }
}

/// What finds a host that is gone: silence of 30 s, then a probe each 10 s, as many as the system tries.
fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10))
}

/// First byte of a TLS record that begins a handshake; HTTP/2 begins with `P`.
const TLS_HANDSHAKE: u8 = 0x16;

/// Both directions of a connection.
trait Bytes: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Bytes for T {}

#[cfg(target_os = "linux")]
impl WireKind {
    fn socket(&self) -> Option<SockRef<'_>> {
        match self {
            WireKind::Clear(stream) => Some(stream.into()),
            WireKind::Tls(stream) => Some(stream.get_ref().0.into()),
            #[cfg(test)]
            WireKind::Memory(_) => None,
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = self.as_mut().bytes().poll_read(cx, buffer);
        if self.line.prompt.load(Ordering::Relaxed) && read.is_ready() {
            self.acknowledge();
        }
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = self.as_mut().bytes().poll_write(cx, bytes);
        self.line.wrote(wrote.is_ready());
        wrote
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = self.as_mut().bytes().poll_write_vectored(cx, pieces);
        self.line.wrote(wrote.is_ready());
        wrote
    }

    fn is_write_vectored(&self) -> bool {
        match &self.kind {
            WireKind::Clear(stream) => stream.is_write_vectored(),
            WireKind::Tls(stream) => stream.is_write_vectored(),
            #[cfg(test)]
            WireKind::Memory(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.bytes().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.bytes().poll_shutdown(cx)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// The system's own word for it: after a read nothing waits to be acknowledged later, whatever was written before.
    #[tokio::test]
    async fn each_read_is_acknowledged_at_once_if_it_was_asked_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut theirs = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, remote) = listener.accept().await.unwrap();
        SockRef::from(&stream).set_tcp_quickack(false).unwrap();
        let line = Arc::new(Line::new(1, remote, remote));
        let kind = WireKind::Clear(stream);
        let mut ours = Wire {
            kind,
            line: line.clone(),
        };
        let is_prompt = |wire: &Wire| wire.kind.socket().unwrap().tcp_quickack().unwrap();
        let mut byte = [0];
        line.acknowledge_at_once();
        for _ in 0..3 {
            theirs.write_all(b"2").await.unwrap();
            ours.read_exact(&mut byte).await.unwrap();
            assert!(is_prompt(&ours));
            ours.write_all(b"3").await.unwrap();
            // As the system does by itself, now and then.
            ours.kind.socket().unwrap().set_tcp_quickack(false).unwrap();
        }
    }
}
