//! A small HTTP/1.1 client: one connection, one request in flight, buffers that are used again.
//!
//! It exists because a load generator on the same two cores as the server must cost little, and because
//! a checker must know of each failure whether the request may have been carried out. It understands
//! what Nacos-compatible servers send: a length, chunks, or a body that ends with the connection.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest answer that is read, in bytes, head and body together. Beyond it the exchange fails as
/// [`ExchangeError::Malformed`]: no answer of a server under test is near it.
pub const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Bytes a fresh connection reserves for an answer; it grows as needed and is kept.
const INBOUND_BYTES: usize = 8 << 10;

/// Why an exchange gave no answer.
#[derive(Debug)]
pub enum ExchangeError {
    /// Not a byte was sent: the request was certainly not carried out.
    Unsent(io::Error),
    /// Sent, at least in part, and not answered: the request *may* have been carried out.
    Unanswered(io::Error),
    /// An answer came that is not HTTP as this client knows it; the request may have been carried out.
    Malformed(&'static str),
}

impl ExchangeError {
    /// Whether the request may have been carried out although no answer came.
    #[must_use]
    pub fn may_have_happened(&self) -> bool {
        !matches!(self, Self::Unsent(_))
    }
}

impl fmt::Display for ExchangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsent(error) => write!(f, "not sent: {error}"),
            Self::Unanswered(error) => write!(f, "sent but not answered: {error}"),
            Self::Malformed(what) => write!(f, "answer is not HTTP/1.1: {what}"),
        }
    }
}

impl std::error::Error for ExchangeError {}

/// An answer, borrowed from the connection that read it.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// Status code.
    pub status: u16,
    /// Status line and header lines, without the empty line.
    pub head: &'a str,
    /// Body, chunks already joined.
    pub body: &'a [u8],
}

impl Answer<'_> {
    /// The first header of this name, in any case; `None` if there is none.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        header(self.head, name)
    }

    /// The body as text; bytes that are not UTF-8 are replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.body).into_owned()
    }
}

/// A connection with at most one request in flight.
///
/// After any error, and after an answer with `Connection: close`, it is of no further use
/// ([`Connection::usable`] is false) and a new one has to be opened.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// Bytes of the answer being read; cleared at the next request, capacity kept.
    inbound: Vec<u8>,
    /// Joined chunks of the last chunked answer.
    joined: Vec<u8>,
    usable: bool,
}

/// Where the parts of an answer lie in the buffer.
struct Frame {
    status: u16,
    head_end: usize,
    body: Body,
}

enum Body {
    /// The body is `inbound[start..end]`.
    Plain { start: usize, end: usize },
    /// The body is all of `joined`.
    Joined,
}

impl Connection {
    /// Connects, without Nagle's delay. No time limit of its own: the caller sets one.
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            inbound: Vec::with_capacity(INBOUND_BYTES),
            joined: Vec::new(),
            usable: true,
        })
    }

    /// Whether another request may be sent on this connection.
    #[must_use]
    pub fn usable(&self) -> bool {
        self.usable
    }

    /// Sends a complete request and reads the complete answer.
    ///
    /// Not cancel safe: when the future is dropped half-way (a time limit), the connection is no longer
    /// [`usable`](Self::usable) and the outcome of the request is unknown.
    pub async fn exchange(&mut self, request: &[u8]) -> Result<Answer<'_>, ExchangeError> {
        if !self.usable {
            return Err(ExchangeError::Unsent(io::ErrorKind::NotConnected.into()));
        }
        self.usable = false;
        self.inbound.clear();
        self.stream
            .write_all(request)
            .await
            .map_err(ExchangeError::Unanswered)?;
        let (frame, reusable) = self.read_answer().await?;
        self.usable = reusable;
        let head = std::str::from_utf8(&self.inbound[..frame.head_end])
            .map_err(|_| ExchangeError::Malformed("head is not text"))?;
        let body = match frame.body {
            Body::Plain { start, end } => &self.inbound[start..end],
            Body::Joined => &self.joined,
        };
        Ok(Answer {
            status: frame.status,
            head,
            body,
        })
    }

    async fn read_answer(&mut self) -> Result<(Frame, bool), ExchangeError> {
        let head_end = self.read_head().await?;
        let head = std::str::from_utf8(&self.inbound[..head_end])
            .map_err(|_| ExchangeError::Malformed("head is not text"))?;
        let status = status(head).ok_or(ExchangeError::Malformed("status line"))?;
        let close = header(head, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let chunked =
            header(head, "transfer-encoding").is_some_and(|v| v.to_ascii_lowercase().ends_with("chunked"));
        let length = match header(head, "content-length") {
            Some(text) => Some(
                text.parse::<usize>()
                    .map_err(|_| ExchangeError::Malformed("length"))?,
            ),
            None => None,
        };
        let start = head_end + 4;
        let body = if status == 204 || status == 304 {
            Body::Plain { start, end: start }
        } else if chunked {
            self.read_chunks(start).await?;
            Body::Joined
        } else if let Some(length) = length {
            let end = start.saturating_add(length);
            while self.inbound.len() < end {
                self.read_more().await?;
            }
            Body::Plain { start, end }
        } else {
            self.read_to_end().await?;
            return Ok((
                Frame {
                    status,
                    head_end,
                    body: Body::Plain {
                        start,
                        end: self.inbound.len(),
                    },
                },
                false,
            ));
        };
        Ok((
            Frame {
                status,
                head_end,
                body,
            },
            !close,
        ))
    }

    /// Reads until the empty line and returns where it begins.
    async fn read_head(&mut self) -> Result<usize, ExchangeError> {
        let mut searched = 0_usize;
        loop {
            let from = searched.saturating_sub(3);
            if let Some(at) = find(&self.inbound[from..], b"\r\n\r\n") {
                return Ok(from + at);
            }
            searched = self.inbound.len();
            self.read_more().await?;
        }
    }

    async fn read_chunks(&mut self, start: usize) -> Result<(), ExchangeError> {
        self.joined.clear();
        let mut at = start;
        loop {
            let line_end = loop {
                if let Some(found) = find(&self.inbound[at.min(self.inbound.len())..], b"\r\n") {
                    break at + found;
                }
                self.read_more().await?;
            };
            let size = chunk_size(&self.inbound[at..line_end])?;
            let from = line_end + 2;
            // The last chunk is followed by trailers, which no server under test sends, and an empty line.
            while self.inbound.len() < from + size + 2 {
                self.read_more().await?;
            }
            if size == 0 {
                return Ok(());
            }
            self.joined.extend_from_slice(&self.inbound[from..from + size]);
            at = from + size + 2;
        }
    }

    async fn read_to_end(&mut self) -> Result<(), ExchangeError> {
        loop {
            match self.read_more().await {
                Ok(()) => {}
                Err(ExchangeError::Unanswered(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn read_more(&mut self) -> Result<(), ExchangeError> {
        if self.inbound.len() >= ANSWER_BYTES_MAX {
            return Err(ExchangeError::Malformed("longer than this client reads"));
        }
        let read = self
            .stream
            .read_buf(&mut self.inbound)
            .await
            .map_err(ExchangeError::Unanswered)?;
        if read == 0 {
            return Err(ExchangeError::Unanswered(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(())
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn status(head: &str) -> Option<u16> {
    head.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()
}

fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.split("\r\n").skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn chunk_size(line: &[u8]) -> Result<usize, ExchangeError> {
    let text = std::str::from_utf8(line).map_err(|_| ExchangeError::Malformed("chunk size"))?;
    let digits = text.split(';').next().unwrap_or("").trim();
    let size = usize::from_str_radix(digits, 16).map_err(|_| ExchangeError::Malformed("chunk size"))?;
    if size > ANSWER_BYTES_MAX {
        return Err(ExchangeError::Malformed("chunk longer than this client reads"));
    }
    Ok(size)
}

/// Writes a request without a body over what `out` held.
pub fn write_request(out: &mut Vec<u8>, method: &str, authority: &str, target: &str) {
    out.clear();
    for part in [method, " ", target, " HTTP/1.1\r\nHost: ", authority, "\r\n\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// Writes a request with a form-encoded body over what `out` held.
pub fn write_form(out: &mut Vec<u8>, method: &str, authority: &str, target: &str, form: &[u8]) {
    out.clear();
    for part in [method, " ", target, " HTTP/1.1\r\nHost: ", authority] {
        out.extend_from_slice(part.as_bytes());
    }
    out.extend_from_slice(b"\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: ");
    out.extend_from_slice(form.len().to_string().as_bytes());
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(form);
}

/// Appends `name=value` to a form or query, percent-encoded, after an `&` if something stands before.
pub fn push_pair(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    if !out.is_empty() {
        out.push(b'&');
    }
    push_encoded(out, name.as_bytes());
    out.push(b'=');
    push_encoded(out, value);
}

fn push_encoded(out: &mut Vec<u8>, value: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in value {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(byte);
        } else {
            out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
}

/// Name-value pairs as a query or form.
#[must_use]
pub fn encode(pairs: &[(&str, &str)]) -> String {
    let mut out = Vec::new();
    for (name, value) in pairs {
        push_pair(&mut out, name, value.as_bytes());
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers every connection with the given bytes in pieces of `piece`, then closes.
    async fn server(answer: &'static [u8], piece: usize) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("loopback");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let mut request = [0_u8; 1024];
            let _ = stream.read(&mut request).await;
            for part in answer.chunks(piece) {
                stream.write_all(part).await.expect("client reads");
                tokio::task::yield_now().await;
            }
        });
        address
    }

    async fn answer_of(bytes: &'static [u8], piece: usize) -> Result<(u16, String, bool), ExchangeError> {
        let mut connection = Connection::open(server(bytes, piece).await)
            .await
            .expect("connects");
        let answer = connection.exchange(b"GET / HTTP/1.1\r\n\r\n").await?;
        let (status, text) = (answer.status, answer.text());
        Ok((status, text, connection.usable()))
    }

    #[tokio::test]
    async fn answers_are_read_whole_however_they_arrive() {
        for piece in [1, 2, 7, 1000] {
            let plain = b"HTTP/1.1 200 OK\r\ncontent-LENGTH: 4\r\n\r\ntrue";
            assert_eq!(
                answer_of(plain, piece).await.expect("plain"),
                (200, "true".into(), true)
            );
            let chunked = b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n";
            assert_eq!(
                answer_of(chunked, piece).await.expect("chunked"),
                (404, "abcde".into(), true)
            );
            let ended = b"HTTP/1.0 500 Oops\r\n\r\nto the end";
            assert_eq!(
                answer_of(ended, piece).await.expect("ended"),
                (500, "to the end".into(), false)
            );
            let closing = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            assert_eq!(
                answer_of(closing, piece).await.expect("closing"),
                (200, String::new(), false)
            );
        }
    }

    #[tokio::test]
    async fn a_cut_answer_is_unknown_not_failed() {
        let error = answer_of(b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\nhalf", 9)
            .await
            .expect_err("cut");
        assert!(error.may_have_happened(), "{error}");
        let error = answer_of(b"SSH-2.0-nothing\r\n\r\n", 9)
            .await
            .expect_err("not HTTP");
        assert!(matches!(error, ExchangeError::Malformed(_)), "{error}");
    }

    #[test]
    fn forms_are_percent_encoded() {
        assert_eq!(
            encode(&[("dataId", "a b&c"), ("content", "ü=1\n")]),
            "dataId=a%20b%26c&content=%C3%BC%3D1%0A"
        );
    }
}
