//! HTTP/2, gRPC and protobuf written byte by byte, so that it can be written wrongly.
//!
//! Nothing here reads an answer: what comes back is thrown away, or, on purpose, not even taken.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// A server that takes nothing for so long has stopped reading this connection.
const WRITE_PATIENCE: Duration = Duration::from_secs(2);
/// A frame of HTTP/2 holds at most so much unless the server says otherwise.
const FRAME_BYTES: usize = 16_384;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;
const CANCEL: u32 = 8;

/// Path of unary requests.
pub(super) const UNARY: &str = "/Request/request";
/// Path of the stream that registers.
pub(super) const STREAM: &str = "/BiRequestStream/requestBiStream";

/// A connection on which anything can be sent. Dropping it closes it.
#[derive(Debug)]
pub(super) struct Raw {
    out: OwnedWriteHalf,
    /// What comes is thrown away by this task; `None`: it is not taken at all.
    drain: Option<AbortHandle>,
    _not_read: Option<OwnedReadHalf>,
    next_stream: u32,
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(drain) = &self.drain {
            drain.abort();
        }
    }
}

impl Raw {
    /// A connection from a loopback address of its own on which nothing was sent yet.
    pub(super) async fn open(from: Ipv4Addr, to: SocketAddr, reads: bool) -> io::Result<Raw> {
        let socket = TcpSocket::new_v4()?;
        if !reads {
            socket.set_recv_buffer_size(4096)?;
        }
        socket.bind(SocketAddr::new(from.into(), 0))?;
        let connected = timeout(WRITE_PATIENCE, socket.connect(to)).await;
        let (mut back, out) = connected.map_err(|_| io::ErrorKind::TimedOut)??.into_split();
        let (drain, not_read) = match reads {
            false => (None, Some(back)),
            true => {
                let drain = tokio::spawn(async move {
                    let mut sink = vec![0; 64 << 10];
                    while back.read(&mut sink).await.is_ok_and(|read| read > 0) {}
                });
                (Some(drain.abort_handle()), None)
            }
        };
        Ok(Raw {
            out,
            drain,
            _not_read: not_read,
            next_stream: 1,
        })
    }

    /// The same with HTTP/2 begun as it should be.
    pub(super) async fn http2(from: Ipv4Addr, to: SocketAddr, reads: bool) -> io::Result<Raw> {
        let mut raw = Raw::open(from, to, reads).await?;
        let mut hello = PREFACE.to_vec();
        hello.extend(frame(SETTINGS, 0, 0, &[]));
        if reads {
            hello.extend(frame(WINDOW_UPDATE, 0, 0, &0x7ffe_0000_u32.to_be_bytes()));
        }
        raw.send(&hello).await?;
        // The server's settings count from here on; that it has sent them by now is likely enough.
        tokio::time::sleep(Duration::from_millis(20)).await;
        raw.send(&frame(SETTINGS, ACK, 0, &[])).await?;
        Ok(raw)
    }

    /// The same, registered as SDKs are. The stream is number 1.
    pub(super) async fn registered(from: Ipv4Addr, to: SocketAddr, reads: bool) -> io::Result<Raw> {
        let mut raw = Raw::http2(from, to, reads).await?;
        let stream = raw.stream();
        let mut bytes = head(stream, STREAM, &[], false);
        let setup = br#"{"clientVersion":"hostile","tenant":"","labels":{"source":"sdk"},"abilityTable":{}}"#;
        bytes.extend(data(
            stream,
            &message("ConnectionSetupRequest", setup, false),
            false,
        ));
        raw.send(&bytes).await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
        Ok(raw)
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The server has closed the connection, or does not read.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        timeout(WRITE_PATIENCE, self.out.write_all(bytes))
            .await
            .map_err(|_| io::ErrorKind::TimedOut)?
    }

    /// Sends the body of a unary request, whole.
    pub(super) async fn ask(&mut self, body: &[u8], headers: &[(&str, &str)]) -> io::Result<()> {
        let stream = self.stream();
        let mut bytes = head(stream, UNARY, headers, false);
        bytes.extend(data(stream, body, true));
        self.send(&bytes).await
    }

    /// Number of the next stream.
    pub(super) fn stream(&mut self) -> u32 {
        self.next_stream += 2;
        self.next_stream - 2
    }
}

/// A frame of HTTP/2.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The head of a request. Names and values are below 128 bytes, but for one that is to be too long.
pub(super) fn head(stream: u32, path: &str, headers: &[(&str, &str)], end: bool) -> Vec<u8> {
    // Literals without indexing; the names of path, authority and content type by their numbers.
    let mut block = vec![0x83, 0x86];
    literal(&mut block, &[0x04], path);
    literal(&mut block, &[0x01], "server");
    literal(&mut block, &[0x0f, 0x10], "application/grpc");
    for (name, value) in headers {
        let mut named = vec![0x00];
        text(&mut named, name);
        literal(&mut block, &named, value);
    }
    let mut bytes = Vec::new();
    let mut pieces = block.chunks(FRAME_BYTES).peekable();
    let (mut kind, ends) = (HEADERS, if end { END_STREAM } else { 0 });
    while let Some(piece) = pieces.next() {
        let last = if pieces.peek().is_none() { END_HEADERS } else { 0 };
        let flags = last | if kind == HEADERS { ends } else { 0 };
        bytes.extend(frame(kind, flags, stream, piece));
        // What does not fit goes on in CONTINUATION.
        kind = 9;
    }
    bytes
}

/// The end of a stream by force.
pub(super) fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
}

/// Content of a stream.
pub(super) fn data(stream: u32, content: &[u8], end: bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(content.len() + 64);
    let mut pieces = content.chunks(FRAME_BYTES).peekable();
    while let Some(piece) = pieces.next() {
        let flags = if end && pieces.peek().is_none() {
            END_STREAM
        } else {
            0
        };
        bytes.extend(frame(DATA, flags, stream, piece));
    }
    bytes
}

/// A gRPC message: flag, length, bytes.
pub(super) fn framed(bytes: &[u8], compressed: bool) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let mut framed = vec![u8::from(compressed)];
    framed.extend(length.to_be_bytes());
    framed.extend(bytes);
    framed
}

/// A payload of Nacos as a gRPC message: type name and JSON, or what stands in its place.
pub(super) fn message(type_name: &str, json: &[u8], compressed: bool) -> Vec<u8> {
    let mut metadata = Vec::new();
    field(&mut metadata, 3, type_name.as_bytes());
    let mut any = Vec::new();
    field(&mut any, 2, json);
    let mut payload = Vec::new();
    field(&mut payload, 2, &metadata);
    field(&mut payload, 3, &any);
    framed(&payload, compressed)
}

/// Zeros compressed by gzip, about 159 of them in a byte: one literal, then copies of 258.
pub(super) fn zeros_in_gzip(count: usize) -> Vec<u8> {
    let mut bits = Bits::default();
    // A last block with the fixed code; the zero; "copy 258 from one before" (285: 11000101, distance 0).
    bits.push(0b1, 1);
    bits.push(0b01, 2);
    bits.push_code(0b0011_0000, 8);
    for _ in 0..count / 258 {
        bits.push_code(0b1100_0101, 8);
        bits.push_code(0, 5);
    }
    bits.push_code(0, 7);
    let mut bytes = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    bytes.extend(bits.bytes);
    bytes.push(u8::try_from(bits.pending & 0xff).unwrap_or_default());
    // Neither checksum nor length are right: who reads so far has unpacked it all.
    bytes.extend([0; 8]);
    bytes
}

#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    pending: u32,
    count: u32,
}

impl Bits {
    /// Lowest bit first.
    fn push(&mut self, bits: u32, count: u32) {
        self.pending |= bits << self.count;
        self.count += count;
        while self.count >= 8 {
            self.bytes
                .push(u8::try_from(self.pending & 0xff).unwrap_or_default());
            self.pending >>= 8;
            self.count -= 8;
        }
    }

    /// A Huffman code: highest bit first.
    fn push_code(&mut self, code: u32, count: u32) {
        (0..count).rev().for_each(|bit| self.push((code >> bit) & 1, 1));
    }
}

fn field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push((number << 3) | 2);
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(u8::try_from(length & 0x7f).unwrap_or_default() | 0x80);
        length >>= 7;
    }
    out.push(u8::try_from(length).unwrap_or_default());
    out.extend(bytes);
}

fn literal(block: &mut Vec<u8>, name: &[u8], value: &str) {
    block.extend(name);
    text(block, value);
}

/// A text of HPACK, not compressed: its length with a prefix of seven bits.
fn text(block: &mut Vec<u8>, text: &str) {
    let mut length = text.len();
    if length < 127 {
        block.push(u8::try_from(length).unwrap_or_default());
    } else {
        block.push(127);
        length -= 127;
        while length >= 0x80 {
            block.push(u8::try_from(length & 0x7f).unwrap_or_default() | 0x80);
            length >>= 7;
        }
        block.push(u8::try_from(length).unwrap_or_default());
    }
    block.extend(text.as_bytes());
}
