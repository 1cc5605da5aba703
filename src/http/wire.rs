//! The bytes of a connection, between the socket and hyper.
//!
//! Two things hyper cannot do for us:
//! 1. **Over-long request lines.** Old Python clients publish with everything in the query, up to a
//!    megabyte of it, and `http::Uri` ends at 64 KiB. The line of a POST or PUT that is longer is gathered
//!    here, its query is put aside for the handler ([`Exchange::take_long_query`]), and hyper sees the line
//!    without it.
//! 2. **Two clocks.** A head must be complete soon after its first byte; an idle connection may stay much
//!    longer. hyper has one timer for both.
//!
//! # When a line is looked at
//! Only at the start of a request, and what that is must be certain: a body that looks like a request line
//! may not be rewritten, or a proxy in front and this server would disagree about where a request ends. So
//! bytes handed out are counted; a request whose head and body add up to what was handed out has left
//! nothing in hyper's buffer, and the next byte starts a request. A connection on which they do not
//! (pipelining, chunked bodies) loses the rescue, and nothing else.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::limits::{
    HEAD_WAIT, KEEP_ALIVE, LONG_LINE_BYTES_MAX, LONG_LINES_MAX, READ_BUFFER_BYTES_MAX, SHORT_LINE_BYTES_MAX,
};
use crate::clock;

/// How long a closed connection is still read from, so that the client sees the answer and not a reset.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes read while lingering; a client that still sends more gets its reset.
const LINGER_BYTES_MAX: usize = 4 << 20;
/// What hyper reads instead of a request that is refused here; the handler's side knows by the query.
const STAND_IN: &[u8] = b"POST / HTTP/1.1\r\nhost: -\r\nconnection: close\r\n\r\n";

/// Over-long lines being read in this process.
static LONG_LINES: AtomicUsize = AtomicUsize::new(0);

/// What became of an over-long request line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LongQuery {
    /// Its query.
    Query(Bytes),
    /// Longer than [`LONG_LINE_BYTES_MAX`].
    TooLong,
    /// [`LONG_LINES_MAX`] others are being read.
    TooMany,
}

/// Where a connection stands between two of its requests; shared by the reader and the handler's side,
/// which run in one task. Relaxed atomics, because only the borrow checker cannot know that.
#[derive(Debug)]
pub(super) struct Exchange {
    phase: AtomicU8,
    /// Bytes given to hyper since the first one of this request.
    handed: AtomicU64,
    /// Length of this request's head; 0 when not known.
    head: AtomicU64,
    /// The next byte is certain to start a request, as far as the past requests tell.
    in_step: AtomicBool,
    /// A request was answered before its body was read.
    unread: AtomicBool,
    /// Milliseconds since `born` at which the present phase began.
    since_ms: AtomicU64,
    born: Instant,
    has_long_query: AtomicBool,
    long_query: Mutex<Option<LongQuery>>,
}

/// Nothing of the next request has arrived.
const BETWEEN: u8 = 0;
/// Its head is arriving.
const HEAD: u8 = 1;
/// It is being served.
const BUSY: u8 = 2;

impl Exchange {
    pub(super) fn new(now: Instant) -> Exchange {
        Exchange {
            phase: AtomicU8::new(HEAD),
            handed: AtomicU64::new(0),
            head: AtomicU64::new(0),
            in_step: AtomicBool::new(true),
            unread: AtomicBool::new(false),
            since_ms: AtomicU64::new(0),
            born: now,
            has_long_query: AtomicBool::new(false),
            long_query: Mutex::new(None),
        }
    }

    /// hyper has parsed a head.
    pub(super) fn begin(&self) {
        if self.phase.swap(BUSY, Relaxed) != HEAD {
            // It came out of hyper's buffer: the client pipelines.
            self.in_step.store(false, Relaxed);
        }
    }

    /// The request is answered. `body`: its length if it was read to its end and announced.
    pub(super) fn end(&self, body: Option<u64>, now: Instant) {
        match body {
            Some(length) if self.handed.load(Relaxed) == self.head.load(Relaxed) + length => {}
            Some(_) => self.in_step.store(false, Relaxed),
            None => {
                self.in_step.store(false, Relaxed);
                self.unread.store(true, Relaxed);
            }
        }
        self.set_since(now);
        self.phase.store(BETWEEN, Relaxed);
    }

    /// The query that [`Wire`] has put aside for this request.
    pub(super) fn take_long_query(&self) -> Option<LongQuery> {
        if !self.has_long_query.swap(false, Relaxed) {
            return None;
        }
        self.long_query
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    fn put_long_query(&self, query: LongQuery) {
        *self.long_query.lock().unwrap_or_else(PoisonError::into_inner) = Some(query);
        self.has_long_query.store(true, Relaxed);
    }

    fn set_since(&self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.born).as_millis();
        self.since_ms
            .store(u64::try_from(elapsed).unwrap_or(u64::MAX), Relaxed);
    }

    /// When the connection is given up if nothing more arrives; `None` while a request is served.
    fn deadline(&self) -> Option<Instant> {
        let wait = match self.phase.load(Relaxed) {
            BETWEEN => KEEP_ALIVE,
            HEAD => HEAD_WAIT,
            _ => return None,
        };
        Some(self.born + Duration::from_millis(self.since_ms.load(Relaxed)) + wait)
    }
}

/// A socket as hyper sees it.
#[derive(Debug)]
pub(super) struct Wire<S> {
    socket: S,
    exchange: Arc<Exchange>,
    mode: Mode,
    timer: Pin<Box<Sleep>>,
    lingered: usize,
    closing: bool,
}

#[derive(Debug)]
enum Mode {
    /// Bytes go through.
    Pass,
    /// The request line of a POST or PUT is incomplete.
    Gather(Line),
    /// What was gathered goes to hyper, from this offset on.
    Give(Vec<u8>, usize),
    /// The request was refused: what still arrives of it is not hyper's business.
    Refused,
}

impl<S> Wire<S> {
    pub(super) fn new(socket: S, exchange: Arc<Exchange>) -> Wire<S> {
        let timer = Box::pin(tokio::time::sleep_until(exchange.born + HEAD_WAIT));
        Wire {
            socket,
            exchange,
            mode: Mode::Pass,
            timer,
            lingered: 0,
            closing: false,
        }
    }

    /// What to do while nothing arrives: `Ready` when it took too long, which reads as the end of the
    /// connection.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let Some(deadline) = self.exchange.deadline() else {
                return Poll::Pending;
            };
            // Only ever moved forward when it fires, or back for a head: a busy connection re-arms nothing.
            if self.timer.deadline() > deadline {
                self.timer.as_mut().reset(deadline);
            }
            ready!(self.timer.as_mut().poll(cx));
            if clock::now() >= deadline {
                return Poll::Ready(Ok(()));
            }
            self.timer.as_mut().reset(deadline);
        }
    }

    /// Bytes arrived: are they the start of a request whose line has to be gathered?
    fn take_in(&mut self, fresh: &[u8]) -> Option<Line> {
        let exchange = &self.exchange;
        let first = match exchange.phase.load(Relaxed) {
            BETWEEN => true,
            HEAD => exchange.handed.load(Relaxed) == 0,
            _ => false,
        };
        if !first {
            exchange.handed.fetch_add(fresh.len() as u64, Relaxed);
            return None;
        }
        if exchange.phase.swap(HEAD, Relaxed) == BETWEEN {
            exchange.set_since(clock::now());
        }
        if exchange.in_step.load(Relaxed) && is_start_of_long_line(fresh) {
            return Some(Line {
                bytes: fresh.to_vec(),
                searched: fresh.len(),
                end: None,
                permit: None,
            });
        }
        exchange.handed.store(fresh.len() as u64, Relaxed);
        exchange.head.store(head_length(fresh), Relaxed);
        None
    }

    /// More of a gathered line arrived, or its end.
    fn gathered(&mut self, mut line: Line) -> Mode {
        if line.end.is_none() {
            let end = line
                .bytes
                .iter()
                .skip(line.searched)
                .position(|byte| *byte == b'\n');
            line.end = end.map(|end| end + line.searched + 1);
        }
        if let Some(end) = line.end {
            if end > LONG_LINE_BYTES_MAX {
                return self.refuse(LongQuery::TooLong);
            }
            // Of a line that will be rewritten the whole head is gathered, so that its length is known.
            let headers = line.bytes.get(end.saturating_sub(2)..).unwrap_or_default();
            let complete = head_length(headers) > 0 || headers.len() > READ_BUFFER_BYTES_MAX;
            if end <= SHORT_LINE_BYTES_MAX || complete {
                return self.line_complete(line, end);
            }
            return Mode::Gather(line);
        }
        line.searched = line.bytes.len();
        if line.searched > LONG_LINE_BYTES_MAX {
            return self.refuse(LongQuery::TooLong);
        }
        if line.searched > SHORT_LINE_BYTES_MAX && line.permit.is_none() {
            line.permit = Permit::take();
            if line.permit.is_none() {
                return self.refuse(LongQuery::TooMany);
            }
        }
        Mode::Gather(line)
    }

    fn line_complete(&mut self, line: Line, end: usize) -> Mode {
        let bytes = match split_query(&line.bytes, end) {
            Some((without, query)) if end > SHORT_LINE_BYTES_MAX => {
                self.exchange.put_long_query(LongQuery::Query(query));
                without
            }
            _ => line.bytes,
        };
        self.exchange.handed.store(bytes.len() as u64, Relaxed);
        self.exchange.head.store(head_length(&bytes), Relaxed);
        Mode::Give(bytes, 0)
    }

    fn refuse(&mut self, why: LongQuery) -> Mode {
        self.exchange.put_long_query(why);
        self.exchange.unread.store(true, Relaxed);
        Mode::Give(STAND_IN.to_vec(), 0)
    }
}

impl<S: AsyncRead + Unpin> Wire<S> {
    fn poll_gather(&mut self, cx: &mut Context<'_>, mut line: Line) -> Poll<io::Result<()>> {
        let mut room = [0; 16 << 10];
        let mut read = ReadBuf::new(&mut room);
        match Pin::new(&mut self.socket).poll_read(cx, &mut read) {
            Poll::Ready(Ok(())) if read.filled().is_empty() => {
                // The client went away in the middle of the line: hyper is to see what there was.
                self.mode = Mode::Give(line.bytes, 0);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Ok(())) => {
                line.bytes.extend_from_slice(read.filled());
                self.mode = self.gathered(line);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                self.mode = Mode::Gather(line);
                Poll::Pending
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        loop {
            match std::mem::replace(&mut wire.mode, Mode::Pass) {
                Mode::Pass => {
                    let before = buf.filled().len();
                    match Pin::new(&mut wire.socket).poll_read(cx, buf) {
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending => return wire.poll_patience(cx),
                    }
                    let fresh = buf.filled().get(before..).unwrap_or_default();
                    if fresh.is_empty() {
                        return Poll::Ready(Ok(()));
                    }
                    let Some(line) = wire.take_in(fresh) else {
                        return Poll::Ready(Ok(()));
                    };
                    buf.set_filled(before);
                    wire.mode = wire.gathered(line);
                }
                Mode::Gather(line) => match wire.poll_gather(cx, line) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return wire.poll_patience(cx),
                },
                Mode::Give(bytes, from) => {
                    let rest = bytes.get(from..).unwrap_or_default();
                    let now = rest.len().min(buf.remaining());
                    buf.put_slice(rest.get(..now).unwrap_or_default());
                    if now < rest.len() {
                        wire.mode = Mode::Give(bytes, from + now);
                    } else if wire.exchange.unread.load(Relaxed) {
                        wire.mode = Mode::Refused;
                    }
                    return Poll::Ready(Ok(()));
                }
                Mode::Refused => {
                    wire.mode = Mode::Refused;
                    return Poll::Pending;
                }
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    /// Closes our side; if the client may still be sending, reads and drops for a moment, because closing
    /// with unread bytes makes the kernel send a reset that can overtake the answer.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        if !wire.closing {
            ready!(Pin::new(&mut wire.socket).poll_shutdown(cx))?;
            wire.closing = true;
            wire.timer.as_mut().reset(clock::now() + LINGER);
        }
        let sending = wire.exchange.unread.load(Relaxed) || wire.exchange.phase.load(Relaxed) == HEAD;
        let mut room = [0; 16 << 10];
        while sending && wire.lingered < LINGER_BYTES_MAX && wire.timer.as_mut().poll(cx).is_pending() {
            let mut read = ReadBuf::new(&mut room);
            match Pin::new(&mut wire.socket).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) if !read.filled().is_empty() => wire.lingered += read.filled().len(),
                Poll::Ready(_) => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// A request line that is not complete.
#[derive(Debug)]
struct Line {
    bytes: Vec<u8>,
    /// So many of them hold no line end.
    searched: usize,
    /// Where the line ends, once it does.
    end: Option<usize>,
    permit: Option<Permit>,
}

/// The right to keep an over-long line in memory.
#[derive(Debug)]
struct Permit;

impl Permit {
    fn take() -> Option<Permit> {
        let taken = LONG_LINES.fetch_update(Relaxed, Relaxed, |n| (n < LONG_LINES_MAX).then_some(n + 1));
        taken.is_ok().then_some(Permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        LONG_LINES.fetch_sub(1, Relaxed);
    }
}

/// A POST or PUT whose line does not end in these bytes.
fn is_start_of_long_line(bytes: &[u8]) -> bool {
    let method = [b"POST ".as_slice(), b"PUT "].iter().any(|method| {
        let common = method.len().min(bytes.len());
        method.get(..common) == bytes.get(..common)
    });
    method && !bytes.contains(&b'\n')
}

/// Length of a head that stands at the start of `bytes`; 0 when it does not end in them.
fn head_length(bytes: &[u8]) -> u64 {
    const END: &[u8] = b"\r\n\r\n";
    if bytes.ends_with(END) && bytes.starts_with(b"GET ") {
        return bytes.len() as u64;
    }
    bytes
        .windows(END.len())
        .position(|window| window == END)
        .map_or(0, |at| (at + END.len()) as u64)
}

/// Takes the query out of the request line that ends at `end`. `None`: it has none, or is no request line.
fn split_query(bytes: &[u8], end: usize) -> Option<(Vec<u8>, Bytes)> {
    let (line, rest) = bytes.split_at_checked(end)?;
    let target = line.iter().position(|byte| *byte == b' ')? + 1;
    let version = line.iter().rposition(|byte| *byte == b' ')?;
    let question = line.iter().position(|byte| *byte == b'?')?;
    if !(target < question && question < version) {
        return None;
    }
    let query = Bytes::copy_from_slice(line.get(question + 1..version)?);
    let mut without = Vec::with_capacity(bytes.len() - query.len());
    without.extend_from_slice(line.get(..question)?);
    without.extend_from_slice(line.get(version..)?);
    without.extend_from_slice(rest);
    Some((without, query))
}

#[cfg(test)]
mod tests;
