//! Cuts what a stream brings into frames.

use bytes::{Buf, Bytes, BytesMut};

use super::super::limits::LINK_FRAME_BYTES_MAX;

/// Of the length in front of a frame.
pub(super) const LENGTH_BYTES: usize = 4;

/// A frame that says it is longer than [`LINK_FRAME_BYTES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame longer than 64 MiB")]
pub(super) struct TooLong;

/// The start of a frame whose end has not come yet.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// Empty, or the length (or some of it) and what has come of the frame. It grows with what comes, not with
    /// what the length promises.
    partial: BytesMut,
}

impl Frames {
    /// The next frame, taken out of `chunk`; `None` once all of it is used.
    ///
    /// A frame within one chunk is not copied and keeps the chunk's memory alive: whoever keeps parts of a
    /// frame for long copies them.
    pub(super) fn next(&mut self, chunk: &mut Bytes) -> Result<Option<Bytes>, TooLong> {
        if self.partial.is_empty()
            && let Some(length) = chunk.first_chunk::<LENGTH_BYTES>()
        {
            let length = checked(length)?;
            if chunk.len() >= LENGTH_BYTES + length {
                chunk.advance(LENGTH_BYTES);
                return Ok(Some(chunk.split_to(length)));
            }
        }
        loop {
            let missing = match self.partial.first_chunk::<LENGTH_BYTES>() {
                None => LENGTH_BYTES - self.partial.len(),
                Some(length) => LENGTH_BYTES + checked(length)? - self.partial.len(),
            };
            if missing == 0 {
                let mut frame = std::mem::take(&mut self.partial).freeze();
                frame.advance(LENGTH_BYTES);
                return Ok(Some(frame));
            }
            if chunk.is_empty() {
                return Ok(None);
            }
            let now = chunk.split_to(missing.min(chunk.len()));
            self.partial.extend_from_slice(&now);
        }
    }
}

fn checked(length: &[u8; LENGTH_BYTES]) -> Result<usize, TooLong> {
    let length = u32::from_be_bytes(*length) as usize;
    if length > LINK_FRAME_BYTES_MAX {
        return Err(TooLong);
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(frames: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for frame in frames {
            out.extend_from_slice(&(frame.len() as u32).to_be_bytes());
            out.extend_from_slice(frame);
        }
        out
    }

    #[test]
    fn frames_survive_any_cut() {
        let sent: [&[u8]; 5] = [b"one", b"", b"three", &[7; 300], b""];
        let bytes = stream(&sent);
        for size in 1..=bytes.len() {
            let mut frames = Frames::default();
            let mut received = Vec::new();
            for piece in bytes.chunks(size) {
                let mut chunk = Bytes::copy_from_slice(piece);
                while let Some(frame) = frames.next(&mut chunk).unwrap() {
                    received.push(frame);
                }
                assert!(chunk.is_empty());
            }
            assert_eq!(received, sent, "pieces of {size} bytes");
            assert!(frames.partial.is_empty());
        }
    }

    #[test]
    fn a_length_alone_takes_no_memory_and_a_wrong_one_is_refused() {
        let mut frames = Frames::default();
        let longest = (LINK_FRAME_BYTES_MAX as u32).to_be_bytes();
        assert_eq!(frames.next(&mut Bytes::copy_from_slice(&longest)), Ok(None));
        assert!(frames.partial.capacity() < 1_000);
        let too_long = (LINK_FRAME_BYTES_MAX as u32 + 1).to_be_bytes();
        for cut in 0..LENGTH_BYTES {
            let (first, second) = too_long.split_at(cut);
            let mut frames = Frames::default();
            assert_eq!(frames.next(&mut Bytes::copy_from_slice(first)), Ok(None));
            assert_eq!(frames.next(&mut Bytes::copy_from_slice(second)), Err(TooLong));
        }
    }
}
