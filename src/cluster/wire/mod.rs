//! Raft messages as bytes.
//!
//! One frame per message; a stream is frames one after the other:
//!
//! | bytes | field |
//! |---|---|
//! | 4 | length of all that follows, big-endian, at most [`FRAME_BYTES_MAX`] |
//! | 4 | length of the head, big-endian |
//! | h | head: `cluster.Message` (proto/cluster.proto) |
//! | t | tail: the log records of an append (`storage::codec`), the piece of a snapshot; else empty |
//!
//! The bulk stands behind the head and not in it, so that it is copied once on each side. Log records are
//! the leader's bytes and checksums: the wire makes none of its own, and a record that does not fit its
//! checksum is refused here. Nothing in this module panics on any input.

mod message;
mod part;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message as _;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use raft::{Body, Entry, Message};
use storage::codec::{self, CodecError};

use super::limits::FRAME_BYTES_MAX;
pub(super) use part::{
    change_from_proto, change_to_proto, configuration_from_proto, configuration_to_proto,
    entry_id_from_proto, entry_id_to_proto, member_from_proto, member_to_proto, refusal_from_proto,
    refusal_to_proto, space_from_number, space_to_number,
};
use proto::cluster as pb;

const LENGTH_BYTES: usize = 4;
/// What a message without payload takes at most, rounded up: the weight of a message in a queue.
const MESSAGE_OVERHEAD_BYTES: usize = 96;

/// A message cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// Larger than a frame may be; nothing was written.
    #[error("a message of {bytes} bytes is larger than a frame may be ({FRAME_BYTES_MAX})")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

/// Bytes are not a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Well formed, but of a kind this binary does not know: from a newer version. To be ignored and
    /// counted.
    #[error("a kind of message this version does not know")]
    Unknown,
    /// Not what any version sends: the stream cannot be trusted any more.
    #[error("{0}")]
    Malformed(&'static str),
    /// The head is not a protobuf message.
    #[error("head: {0}")]
    Head(#[from] prost::DecodeError),
    /// An entry is not intact.
    #[error("entry: {0}")]
    Entry(#[from] CodecError),
}

/// What limits count for a message: its payload and a flat rate for the rest.
pub fn weight_bytes(message: &Message) -> usize {
    let payload = match &message.body {
        Body::Append(append) => append.entries.iter().map(Entry::size_bytes).sum(),
        Body::Snapshot(chunk) => chunk.data.len() + 64 * chunk.meta.configuration.members.len(),
        Body::Forward(proposals) => proposals.iter().map(|proposal| proposal.payload.len() + 16).sum(),
        Body::ForwardReply(outcomes) => 32 * outcomes.len(),
        Body::ReadIndex(ids) => 10 * ids.len(),
        Body::ReadIndexReply(reply) => 10 * reply.ids.len(),
        _ => 0,
    };
    payload + MESSAGE_OVERHEAD_BYTES
}

/// Appends the frame of `message`.
///
/// # Errors
/// [`EncodeError::TooLarge`]; `out` is then as before.
pub fn encode(message: &Message, out: &mut BytesMut) -> Result<(), EncodeError> {
    let start = out.len();
    out.reserve(weight_bytes(message));
    out.put_bytes(0, 2 * LENGTH_BYTES);
    let head = message::to_proto(message);
    let head_bytes = head.encoded_len();
    head.encode_raw(out);
    match &message.body {
        Body::Append(append) => append.entries.iter().for_each(|entry| codec::encode(entry, out)),
        Body::Snapshot(chunk) => out.put_slice(&chunk.data),
        _ => {}
    }
    let bytes = out.len() - start - LENGTH_BYTES;
    if bytes > FRAME_BYTES_MAX {
        out.truncate(start);
        return Err(EncodeError::TooLarge { bytes });
    }
    // Both fit: the larger of them is below 16 MiB.
    let lengths = [(bytes as u32).to_be_bytes(), (head_bytes as u32).to_be_bytes()];
    if let Some(place) = out.get_mut(start..start + 2 * LENGTH_BYTES) {
        place.copy_from_slice(lengths.as_flattened());
    }
    Ok(())
}

/// Reads a message from a frame, without the length in front. Payloads are copied, once: a small entry
/// kept in memory for long must not keep a large receive buffer alive.
///
/// # Errors
/// See [`DecodeError`]; whatever the bytes are, there is no panic and no allocation beyond a small
/// multiple of their number.
pub fn decode(frame: &[u8]) -> Result<Message, DecodeError> {
    let (length, rest) = frame
        .split_first_chunk::<LENGTH_BYTES>()
        .ok_or(DecodeError::Malformed("a frame without head"))?;
    let (head, tail) = rest
        .split_at_checked(u32::from_be_bytes(*length) as usize)
        .ok_or(DecodeError::Malformed("a head longer than its frame"))?;
    check_size(head)?;
    let head = pb::Message::decode(head)?;
    let carries_tail = matches!(
        head.body,
        Some(pb::message::Body::Append(_) | pb::message::Body::Snapshot(_)) | None
    );
    if !tail.is_empty() && !carries_tail {
        return Err(DecodeError::Malformed("a tail where there is none"));
    }
    message::from_proto(head, Bytes::copy_from_slice(tail))
}

/// Most values that the body of one message repeats: four times what a node has under way at most. An empty
/// proposal takes two bytes on the wire and some 70 in memory: without this bound a frame of 16 MiB would
/// take 590 MB here.
const VALUES_MAX: usize = 65_536;

/// Largest head of a message that carries no proposals. The largest that is sent (65,536 reader ids) has
/// 0.7 MiB.
const HEAD_BYTES_MAX: usize = 4 << 20;

/// Number of the field with forwarded proposals, whose payloads stand in the head.
const FORWARD: u32 = 26;
/// Numbers of the bodies that this version knows; what others hold is skipped, not taken apart.
const BODIES: std::ops::RangeInclusive<u32> = 16..=31;

/// Looks at a head before it is taken apart: what it would cost in memory.
fn check_size(head: &[u8]) -> Result<(), DecodeError> {
    let mut rest = head;
    while !rest.is_empty() {
        let (number, kind) = decode_key(&mut rest)?;
        if !BODIES.contains(&number) || kind != WireType::LengthDelimited {
            skip_field(kind, number, &mut rest, DecodeContext::default())?;
            continue;
        }
        let length = usize::try_from(decode_varint(&mut rest)?).unwrap_or(usize::MAX);
        let (body, after) = rest
            .split_at_checked(length)
            .ok_or(DecodeError::Malformed("a body longer than its head"))?;
        if number != FORWARD && body.len() > HEAD_BYTES_MAX {
            return Err(DecodeError::Malformed("a head larger than any that is sent"));
        }
        check_count(body)?;
        rest = after;
    }
    Ok(())
}

fn check_count(mut body: &[u8]) -> Result<(), DecodeError> {
    let mut values = 0;
    while !body.is_empty() {
        let (number, kind) = decode_key(&mut body)?;
        skip_field(kind, number, &mut body, DecodeContext::default())?;
        values += 1;
        if values > VALUES_MAX {
            return Err(DecodeError::Malformed(
                "more values in one message than are ever sent",
            ));
        }
    }
    Ok(())
}

/// Cuts a stream of bytes into frames.
#[derive(Debug, Default)]
pub(super) struct Unframer {
    /// The start of a frame whose end has not come yet; empty or its length and some of it.
    partial: BytesMut,
}

impl Unframer {
    /// Takes the next bytes of the stream and hands every frame that is complete to `each`, in order.
    ///
    /// # Errors
    /// A frame longer than [`FRAME_BYTES_MAX`], or what `each` gives.
    pub(super) fn feed(
        &mut self,
        mut chunk: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        while !chunk.is_empty() {
            if self.partial.is_empty()
                && let Some((frame, rest)) = split_frame(chunk)?
            {
                each(frame)?;
                chunk = rest;
                continue;
            }
            // Only what this frame still needs, so that the next one starts at the chunk again.
            let (now, rest) = chunk.split_at(self.missing()?.min(chunk.len()));
            self.partial.extend_from_slice(now);
            chunk = rest;
            if let Some((frame, _)) = split_frame(&self.partial)? {
                each(frame)?;
                self.partial.clear();
                // One large frame must not keep its buffer for the life of the connection.
                if self.partial.capacity() > 1 << 20 {
                    self.partial = BytesMut::new();
                }
            }
        }
        Ok(())
    }

    /// Bytes to the end of the length, or to the end of the frame when the length is there.
    fn missing(&self) -> Result<usize, DecodeError> {
        match self.partial.first_chunk::<LENGTH_BYTES>() {
            None => Ok(LENGTH_BYTES - self.partial.len()),
            Some(length) => Ok(LENGTH_BYTES + checked_length(length)? - self.partial.len()),
        }
    }
}

type FrameAndRest<'a> = (&'a [u8], &'a [u8]);

/// The first frame of `bytes`, without its length, and what follows it; `None` while it is not complete.
fn split_frame(bytes: &[u8]) -> Result<Option<FrameAndRest<'_>>, DecodeError> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    Ok(rest.split_at_checked(checked_length(length)?))
}

fn checked_length(length: &[u8; LENGTH_BYTES]) -> Result<usize, DecodeError> {
    let length = u32::from_be_bytes(*length) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(DecodeError::Malformed("a frame longer than 16 MiB"));
    }
    Ok(length)
}

#[cfg(test)]
mod tests;
