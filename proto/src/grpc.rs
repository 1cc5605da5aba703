//! gRPC's framing of messages in the DATA of an HTTP/2 stream: one flag byte, the length in four bytes,
//! big-endian, the message.
//!
//! Framing only: neither HTTP/2 nor decompression nor what is in a message.

use bytes::{Buf as _, Bytes, BytesMut};

/// Bytes before each message: flag and length.
pub const PREFIX_BYTES: usize = 5;

/// The largest message either side sends (Nacos: 10 MiB). A longer one is refused before a byte of it is
/// kept.
pub const MESSAGE_BYTES_MAX: usize = 10_485_760;

/// How much room is made for a message before its bytes are there. The length is the peer's word:
/// believing it would give ten megabytes for five bytes.
const TRUST_BYTES: usize = 64 * 1024;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Whether the message is compressed by the stream's `grpc-encoding`. The reader decompresses, with a
    /// limit of its own: the length here is that of the compressed bytes.
    pub compressed: bool,
    /// The message, a slice of what was received when it arrived in one piece.
    pub message: Bytes,
}

/// What arrives is not gRPC. The stream cannot be read any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The first byte of a message is neither 0 nor 1.
    #[error("a message begins with {0:#04x} instead of 0 or 1: not gRPC")]
    Flag(u8),
    /// Longer than the reader allows.
    #[error("a message of {length} bytes is longer than the {limit} allowed")]
    TooLong {
        /// As announced.
        length: usize,
        /// What is allowed.
        limit: usize,
    },
}

/// A message with its five bytes in front; uncompressed.
#[must_use]
pub fn frame(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).expect("a message is far below four gigabytes");
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    bytes.extend_from_slice(&[0]);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(message);
    bytes.freeze()
}

/// Cuts what arrives on a stream into messages.
///
/// [`push`](Self::push) a chunk, then take [`next_frame`](Self::next_frame) until it gives none. It keeps at most one
/// unfinished message and one chunk. After an error every further call gives the same error.
#[derive(Debug)]
pub struct FrameDecoder {
    /// Beginning of a message whose end has not arrived, five bytes of prefix included.
    partial: BytesMut,
    /// What has arrived behind it.
    rest: Bytes,
    message_bytes_max: usize,
    failed: Option<FrameError>,
}

impl Default for FrameDecoder {
    fn default() -> Self {
        Self::new(MESSAGE_BYTES_MAX)
    }
}

impl FrameDecoder {
    /// A decoder at the beginning of a stream.
    #[must_use]
    pub fn new(message_bytes_max: usize) -> Self {
        Self {
            partial: BytesMut::new(),
            rest: Bytes::new(),
            message_bytes_max,
            failed: None,
        }
    }

    /// Takes what has arrived.
    pub fn push(&mut self, chunk: Bytes) {
        if self.failed.is_some() {
            return;
        }
        if self.rest.is_empty() {
            self.rest = chunk;
        } else {
            let mut both = BytesMut::from(std::mem::take(&mut self.rest));
            both.extend_from_slice(&chunk);
            self.rest = both.freeze();
        }
    }

    /// The next whole message, or none until more arrives.
    ///
    /// # Errors
    /// When the bytes are not gRPC or a message is too long; the stream has to be given up.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let frame = self.cut();
        if let Err(error) = frame {
            self.failed = Some(error);
            self.partial = BytesMut::new();
            self.rest = Bytes::new();
        }
        frame
    }

    /// Whether the stream may end here: no message has begun.
    #[must_use]
    pub fn is_between_messages(&self) -> bool {
        self.failed.is_none() && self.partial.is_empty() && self.rest.is_empty()
    }

    /// Memory that an unfinished message and what has arrived behind it take, in bytes. More than has arrived: room
    /// is made for what is announced, 64 KiB at a time.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.partial.capacity() + self.rest.len()
    }

    fn cut(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.partial.is_empty() {
            let Some((compressed, length)) = prefix(&self.rest, self.message_bytes_max)? else {
                return Ok(self.keep(PREFIX_BYTES));
            };
            if self.rest.len() < PREFIX_BYTES + length {
                return Ok(self.keep(PREFIX_BYTES + length));
            }
            self.rest.advance(PREFIX_BYTES);
            let message = self.rest.split_to(length);
            return Ok(Some(Frame { compressed, message }));
        }
        self.keep(PREFIX_BYTES);
        let Some((compressed, length)) = prefix(&self.partial, self.message_bytes_max)? else {
            return Ok(None);
        };
        self.keep(PREFIX_BYTES + length);
        if self.partial.len() < PREFIX_BYTES + length {
            return Ok(None);
        }
        let mut message = std::mem::take(&mut self.partial).freeze();
        message.advance(PREFIX_BYTES);
        Ok(Some(Frame { compressed, message }))
    }

    /// Moves bytes from the rest until the unfinished message has `wanted`, or none are left.
    fn keep(&mut self, wanted: usize) -> Option<Frame> {
        let missing = wanted.saturating_sub(self.partial.len());
        let taken = self.rest.split_to(missing.min(self.rest.len()));
        if !taken.is_empty() {
            self.partial.reserve(missing.min(TRUST_BYTES).max(taken.len()));
            self.partial.extend_from_slice(&taken);
        }
        None
    }
}

/// Flag and length at the beginning of some bytes, or none while they are fewer than five. The flag is
/// checked as soon as it is there.
fn prefix(bytes: &[u8], message_bytes_max: usize) -> Result<Option<(bool, usize)>, FrameError> {
    let Some((&flag, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    if flag > 1 {
        return Err(FrameError::Flag(flag));
    }
    let Some(length) = rest.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*length) as usize;
    if length > message_bytes_max {
        return Err(FrameError::TooLong {
            length,
            limit: message_bytes_max,
        });
    }
    Ok(Some((flag == 1, length)))
}
