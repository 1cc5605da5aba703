//! The envelope: read from a received frame without a copy, written in front of the JSON in one
//! allocation.
//!
//! By hand, because both lie on the path of every call: the generated [`wire`](super::wire) types copy
//! each text, build a tree of the headers and need the JSON finished before they can start. That both say
//! the same is tested and fuzzed.

use std::ops::Range;

use bytes::{Buf as _, Bytes};
use prost::encoding::{self, DecodeContext, WireType};

use super::Message;
use crate::grpc;

/// Headers a payload may have. SDKs send about ten; more than this is no SDK, and each would cost more
/// memory than its bytes.
pub const HEADERS_MAX: usize = 256;

/// One received message: its type, its headers, its JSON. It holds the bytes it came in.
#[derive(Debug, Clone)]
pub struct Payload {
    /// Whole protobuf message; the ranges point into it.
    bytes: Bytes,
    /// UTF-8, checked.
    type_name: Range<usize>,
    /// UTF-8, checked.
    client_ip: Range<usize>,
    /// Keys and values in the order received, UTF-8, checked. Of a key given twice the last counts.
    headers: Vec<(Range<usize>, Range<usize>)>,
    /// The JSON, unchecked.
    json: Range<usize>,
}

/// The bytes of a frame are no payload. The call cannot be answered in its own terms.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// Not protobuf, or broken off.
    #[error("not a Nacos payload: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// A field is longer than what is left of the message.
    #[error("not a Nacos payload: a field of {length} bytes where {left} are left")]
    BrokenOff {
        /// As announced.
        length: u64,
        /// What there is.
        left: usize,
    },
    /// Type, address or a header is not UTF-8.
    #[error("not a Nacos payload: its type, address or a header is not UTF-8")]
    NotText,
    /// More than [`HEADERS_MAX`].
    #[error("a payload with more than {HEADERS_MAX} headers")]
    TooManyHeaders,
}

/// The body is not the JSON it should be. Answered with error 502.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Empty, or not an object at all.
    #[error("the body is not a JSON object")]
    NoObject,
    /// Broken off, malformed, or a field of an impossible type.
    #[error("the body is not the JSON expected: {0}")]
    Json(#[from] serde_json::Error),
}

impl Payload {
    /// The payload in a frame's bytes, without the five bytes before it.
    ///
    /// # Errors
    /// When the bytes are not a payload. Unknown fields are skipped; what is missing is empty.
    pub fn decode(bytes: Bytes) -> Result<Self, PayloadError> {
        let mut payload = Self {
            type_name: 0..0,
            client_ip: 0..0,
            headers: Vec::new(),
            json: 0..0,
            bytes: Bytes::new(),
        };
        each_field(&bytes, 0..bytes.len(), |number, range| match number {
            2 => payload.metadata(&bytes, range),
            // Field 1 of an Any, the type's address, is never interpreted.
            3 => each_field(&bytes, range, |number, value| {
                if number == 2 {
                    payload.json = value;
                }
                Ok(())
            }),
            _ => Ok(()),
        })?;
        payload.bytes = bytes;
        Ok(payload)
    }

    fn metadata(&mut self, bytes: &[u8], range: Range<usize>) -> Result<(), PayloadError> {
        each_field(bytes, range, |number, value| {
            match number {
                3 => self.type_name = text(bytes, value)?,
                7 => {
                    let (mut key, mut header) = (0..0, 0..0);
                    each_field(bytes, value, |number, part| {
                        match number {
                            1 => key = text(bytes, part)?,
                            2 => header = text(bytes, part)?,
                            _ => {}
                        }
                        Ok(())
                    })?;
                    if self.headers.len() == HEADERS_MAX {
                        return Err(PayloadError::TooManyHeaders);
                    }
                    self.headers.push((key, header));
                }
                8 => self.client_ip = text(bytes, value)?,
                _ => {}
            }
            Ok(())
        })
    }

    /// Simple name of the message; empty when there is none, which no handler is registered for.
    #[must_use]
    pub fn type_name(&self) -> &str {
        self.str(&self.type_name)
    }

    /// The client's own idea of its address; empty when it has none.
    #[must_use]
    pub fn client_ip(&self) -> &str {
        self.str(&self.client_ip)
    }

    /// The header called so, in whatever case either is written; the last one if there are several.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut backwards = self.headers.iter().rev();
        backwards
            .find(|(key, _)| self.str(key).eq_ignore_ascii_case(name))
            .map(|(_, value)| self.str(value))
    }

    /// All headers, in the order received.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        let headers = self.headers.iter();
        headers.map(|(key, value)| (self.str(key), self.str(value)))
    }

    /// The JSON text, unchecked; empty when there is none.
    #[must_use]
    pub fn json(&self) -> &[u8] {
        self.bytes.get(self.json.clone()).unwrap_or_default()
    }

    /// The message in the body, borrowing its texts from this payload. The type name is not looked at.
    ///
    /// # Errors
    /// When the body is no JSON object or a field cannot be understood even with good will.
    pub fn read<'a, M: serde::Deserialize<'a>>(&'a self) -> Result<M, ReadError> {
        read(self.json())
    }

    /// Text was checked when it was received; `unsafe` to skip the second look saves nanoseconds.
    fn str(&self, range: &Range<usize>) -> &str {
        let bytes = self.bytes.get(range.clone()).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }
}

/// Calls `on` with number and place of each field that has a length; skips all others.
fn each_field(
    bytes: &[u8],
    range: Range<usize>,
    mut on: impl FnMut(u32, Range<usize>) -> Result<(), PayloadError>,
) -> Result<(), PayloadError> {
    let end = range.end;
    let mut rest = bytes.get(range).unwrap_or_default();
    while !rest.is_empty() {
        let (number, wire_type) = encoding::decode_key(&mut rest)?;
        if wire_type != WireType::LengthDelimited {
            encoding::skip_field(wire_type, number, &mut rest, DecodeContext::default())?;
            continue;
        }
        let length = encoding::decode_varint(&mut rest)?;
        let left = rest.len();
        let Some(taken) = usize::try_from(length).ok().filter(|taken| *taken <= left) else {
            return Err(PayloadError::BrokenOff { length, left });
        };
        let start = end - left;
        rest.advance(taken);
        on(number, start..start + taken)?;
    }
    Ok(())
}

/// The range itself, if what lies there is text.
fn text(bytes: &[u8], range: Range<usize>) -> Result<Range<usize>, PayloadError> {
    match std::str::from_utf8(bytes.get(range.clone()).unwrap_or_default()) {
        Ok(_) => Ok(range),
        Err(_) => Err(PayloadError::NotText),
    }
}

/// The message in a JSON text, borrowing from it.
///
/// # Errors
/// When the text is no JSON object or a field cannot be understood even with good will.
pub fn read<'a, M: serde::Deserialize<'a>>(json: &'a [u8]) -> Result<M, ReadError> {
    if json.trim_ascii_start().first() != Some(&b'{') {
        return Err(ReadError::NoObject);
    }
    Ok(serde_json::from_slice(json)?)
}

/// A whole gRPC frame with an answer or a push, ready to be sent: length prefix, envelope, JSON.
///
/// A push that goes to many is encoded once and its bytes cloned.
#[must_use]
pub fn frame<M: Message>(message: &M) -> Bytes {
    encode(message, &[], "", true, None)
}

/// As [`frame`], with one more field whose JSON is ready: what many are told is rendered once. The message
/// itself must have fields, and none of this name.
#[must_use]
pub fn frame_with<M: Message>(message: &M, name: &str, json: &[u8]) -> Bytes {
    let ready = Ready {
        name,
        json_bytes: json.len(),
        json: Some(json),
    };
    encode(message, &[], "", true, Some(ready))
}

/// As [`frame_with`], in three pieces to be sent one after another: that of the field is the `json` given, and
/// not copied. For what is large and sent to many.
#[must_use]
pub fn frame_around<M: Message>(message: &M, name: &str, json: Bytes) -> [Bytes; 3] {
    let ready = Ready {
        name,
        json_bytes: json.len(),
        json: None,
    };
    let mut head = encode(message, &[], "", true, Some(ready));
    let tail = head.split_off(head.len() - 1);
    [head, json, tail]
}

/// A field whose JSON is ready.
#[derive(Clone, Copy)]
struct Ready<'x> {
    name: &'x str,
    json_bytes: usize,
    /// `None`: it is counted and left out; its place is before the last byte.
    json: Option<&'x [u8]>,
}

/// A whole gRPC frame with a request of a client.
#[must_use]
pub fn request_frame<M: Message>(message: &M, headers: &[(&str, &str)], client_ip: &str) -> Bytes {
    encode(message, headers, client_ip, true, None)
}

/// The payload alone, without the frame's five bytes.
#[must_use]
pub fn payload<M: Message>(message: &M) -> Bytes {
    encode(message, &[], "", false, None)
}

/// Writes the JSON first, behind a gap for everything that goes before it, since the lengths in front
/// are known only afterwards; then fills the gap from its end. What is left of the gap is cut off.
fn encode<M: Message>(
    message: &M,
    headers: &[(&str, &str)],
    client_ip: &str,
    framed: bool,
    ready: Option<Ready<'_>>,
) -> Bytes {
    let header_bytes: usize = headers
        .iter()
        .map(|(key, value)| key.len() + value.len() + 3 * FIELD_BYTES_MAX)
        .sum();
    let gap = grpc::PREFIX_BYTES + M::TYPE.len() + client_ip.len() + header_bytes + 5 * FIELD_BYTES_MAX;
    let ready_bytes = ready.map_or(0, |ready| ready.name.len() + ready.json_bytes + 4);
    let left_out = ready.map_or(0, |ready| ready.json.map_or(ready.json_bytes, |_| 0));
    let mut buffer = Vec::with_capacity(gap + message.json_size() + ready_bytes - left_out);
    buffer.resize(gap, 0);
    serde_json::to_writer(&mut buffer, message).expect("messages are plain values and a Vec takes all");
    if let Some(Ready { name, json, .. }) = ready {
        let brace = buffer.pop();
        assert!(
            brace == Some(b'}') && buffer.last() != Some(&b'{'),
            "a message is an object with fields"
        );
        for part in [b",\"", name.as_bytes(), b"\":", json.unwrap_or_default(), b"}"] {
            buffer.extend_from_slice(part);
        }
    }

    let json_bytes = buffer.len() - gap + left_out;
    let mut front = Front {
        buffer: &mut buffer,
        start: gap,
    };
    front.field(2, json_bytes);
    front.field(3, json_bytes + gap - front.start);
    let metadata_end = front.start;
    if !client_ip.is_empty() {
        front.text(8, client_ip);
    }
    for (key, value) in headers.iter().rev() {
        let header_end = front.start;
        front.text(2, value);
        front.text(1, key);
        front.field(7, header_end - front.start);
    }
    front.text(3, M::TYPE);
    front.field(2, metadata_end - front.start);
    if framed {
        let length = u32::try_from(json_bytes + gap - front.start).expect("far below four gigabytes");
        front.bytes(&length.to_be_bytes());
        front.bytes(&[0]);
    }
    let start = front.start;
    Bytes::from(buffer).slice(start..)
}

/// Bytes before a field's content: its number, and a length below four gigabytes.
const FIELD_BYTES_MAX: usize = 6;

/// Fills a buffer from `start` towards its beginning.
struct Front<'x> {
    buffer: &'x mut [u8],
    /// Where the bytes written so far begin.
    start: usize,
}

impl Front<'_> {
    fn bytes(&mut self, bytes: &[u8]) {
        let from = self.start - bytes.len();
        self.buffer[from..self.start].copy_from_slice(bytes);
        self.start = from;
    }

    fn text(&mut self, number: u8, text: &str) {
        self.bytes(text.as_bytes());
        self.field(number, text.len());
    }

    /// What stands before a field's content. Numbers up to 15 take one byte.
    fn field(&mut self, number: u8, length: usize) {
        assert!((1..16).contains(&number));
        let mut varint = [0; 10];
        let mut unwritten: &mut [u8] = &mut varint;
        encoding::encode_varint(length as u64, &mut unwritten);
        let written = encoding::encoded_len_varint(length as u64);
        self.bytes(&varint[..written]);
        self.bytes(&[(number << 3) | 2]);
    }
}
