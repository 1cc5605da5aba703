//! The envelope: read from a received frame, written in front of the JSON in one allocation.

use bytes::{Bytes, BytesMut};
use prost::Message as _;

use super::{Message, wire};
use crate::grpc;

/// One received message: its type, its headers, its JSON.
#[derive(Debug, Clone)]
pub struct Payload(wire::Payload);

/// The bytes of a frame are no payload.
#[derive(Debug, thiserror::Error)]
#[error("not a Nacos payload: {0}")]
pub struct PayloadError(#[from] prost::DecodeError);

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
    /// The payload in a frame's bytes, without the five bytes before it. The body is a slice of them.
    ///
    /// # Errors
    /// When the bytes are not a payload. Unknown fields are skipped.
    pub fn decode(bytes: Bytes) -> Result<Self, PayloadError> {
        Ok(Self(wire::Payload::decode(bytes)?))
    }

    /// Simple name of the message; empty when there is none, which no handler is registered for.
    #[must_use]
    pub fn type_name(&self) -> &str {
        self.0.metadata.as_ref().map_or("", |metadata| &metadata.r#type)
    }

    /// The client's own idea of its address; empty when it has none.
    #[must_use]
    pub fn client_ip(&self) -> &str {
        self.0
            .metadata
            .as_ref()
            .map_or("", |metadata| &metadata.client_ip)
    }

    /// The header called so, in whatever case either is written.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// All headers.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        let headers = self.0.metadata.iter().flat_map(|metadata| &metadata.headers);
        headers.map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The JSON text, unchecked.
    #[must_use]
    pub fn json(&self) -> &[u8] {
        self.0.body.as_ref().map_or(&[], |body| &body.value)
    }

    /// The message in the body, borrowing its texts from this payload. The type name is not looked at.
    ///
    /// # Errors
    /// When the body is no JSON object or a field cannot be understood even with good will.
    pub fn read<'a, M: serde::Deserialize<'a>>(&'a self) -> Result<M, ReadError> {
        read(self.json())
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
#[must_use]
pub fn frame<M: Message>(message: &M) -> Bytes {
    encode(message, &[], "", true)
}

/// A whole gRPC frame with a request of a client.
#[must_use]
pub fn request_frame<M: Message>(message: &M, headers: &[(&str, &str)], client_ip: &str) -> Bytes {
    encode(message, headers, client_ip, true)
}

/// The payload alone, without the frame's five bytes.
#[must_use]
pub fn payload<M: Message>(message: &M) -> Bytes {
    encode(message, &[], "", false)
}

/// Writes the JSON first, behind a gap for everything that goes before it, since the lengths in front
/// are known only afterwards; then fills the gap from its end. What is left of the gap is cut off.
fn encode<M: Message>(message: &M, headers: &[(&str, &str)], client_ip: &str, framed: bool) -> Bytes {
    let metadata = metadata(M::TYPE, headers, client_ip);
    let gap = grpc::PREFIX_BYTES + 1 + VARINT_BYTES_MAX + metadata.len() + 2 * (1 + VARINT_BYTES_MAX);
    let mut buffer = Vec::with_capacity(gap + message.json_size());
    buffer.resize(gap, 0);
    serde_json::to_writer(&mut buffer, message).expect("messages are plain values and a Vec takes all");
    let json_bytes = buffer.len() - gap;
    let mut front = Front {
        buffer: &mut buffer,
        start: gap,
    };
    front.varint(json_bytes);
    front.bytes(&[0x12]);
    let any_bytes = json_bytes + (gap - front.start);
    front.varint(any_bytes);
    front.bytes(&[0x1a]);
    front.bytes(&metadata);
    front.varint(metadata.len());
    front.bytes(&[0x12]);
    if framed {
        let payload_bytes = json_bytes + (gap - front.start);
        let length = u32::try_from(payload_bytes).expect("a message is far below four gigabytes");
        front.bytes(&length.to_be_bytes());
        front.bytes(&[0]);
    }
    let start = front.start;
    Bytes::from(buffer).slice(start..)
}

/// Bytes a length below four gigabytes takes at most.
const VARINT_BYTES_MAX: usize = 5;

/// Fills a buffer from `start` towards its beginning.
struct Front<'x> {
    buffer: &'x mut [u8],
    start: usize,
}

impl Front<'_> {
    fn bytes(&mut self, bytes: &[u8]) {
        let from = self.start - bytes.len();
        self.buffer[from..self.start].copy_from_slice(bytes);
        self.start = from;
    }

    fn varint(&mut self, value: usize) {
        let mut digits = [0; 10];
        let mut rest: &mut [u8] = &mut digits;
        prost::encoding::encode_varint(value as u64, &mut rest);
        let length = prost::encoding::encoded_len_varint(value as u64);
        self.bytes(&digits[..length]);
    }
}

/// `Metadata` in protobuf. An answer's is its type alone.
fn metadata(type_name: &str, headers: &[(&str, &str)], client_ip: &str) -> BytesMut {
    let metadata = wire::Metadata {
        r#type: type_name.to_owned(),
        headers: headers
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        client_ip: client_ip.to_owned(),
    };
    let mut bytes = BytesMut::with_capacity(metadata.encoded_len());
    metadata.encode(&mut bytes).expect("a BytesMut takes all");
    bytes
}
