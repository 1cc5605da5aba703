//! What waits for the connection of one link.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use tokio::sync::Notify;

use super::super::limits::LINK_FRAME_BYTES_MAX;
use super::Full;

/// What a frame counts besides its bytes: its length on the wire and its place in memory.
const FRAME_WEIGHT_BYTES: usize = 40;

/// Frames in the order in which they were sent, bounded by their bytes. One task takes them.
#[derive(Debug)]
pub(super) struct Outbox {
    bytes_max: usize,
    waiting: Mutex<Waiting>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<Bytes>,
    /// Of `frames`, and of those taken that the connection has not got yet.
    bytes: usize,
    closed: bool,
}

impl Outbox {
    pub(super) fn new(bytes_max: usize) -> Outbox {
        Outbox {
            bytes_max,
            waiting: Mutex::default(),
            filled: Notify::new(),
        }
    }

    pub(super) fn push(&self, frame: Bytes) -> Result<(), Full> {
        let mut waiting = self.lock();
        let bytes = waiting.bytes + weight_bytes(&frame);
        if waiting.closed || bytes > self.bytes_max || frame.len() > LINK_FRAME_BYTES_MAX {
            return Err(Full);
        }
        waiting.bytes = bytes;
        waiting.frames.push_back(frame);
        drop(waiting);
        self.filled.notify_one();
        Ok(())
    }

    /// Completes when a frame waits.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub(super) async fn filled(&self) {
        // A permit of an earlier push may be left over.
        while self.lock().frames.is_empty() {
            self.filled.notified().await;
        }
    }

    /// Takes frames until `bytes` are reached (one larger frame passes alone), and says what they count until
    /// [`Outbox::gave`].
    pub(super) fn take(&self, out: &mut Vec<Bytes>, bytes: usize) -> usize {
        let mut waiting = self.lock();
        let mut taken = 0;
        while let Some(frame) = waiting.frames.front() {
            let weight = weight_bytes(frame);
            if taken > 0 && taken + weight > bytes {
                break;
            }
            taken += weight;
            out.extend(waiting.frames.pop_front());
        }
        taken
    }

    /// The connection has got what was taken.
    pub(super) fn gave(&self, taken: usize) {
        let mut waiting = self.lock();
        waiting.bytes = waiting.bytes.saturating_sub(taken);
    }

    pub(super) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Drops what waits and takes nothing more.
    pub(super) fn close(&self) {
        let dropped = {
            let mut waiting = self.lock();
            waiting.closed = true;
            waiting.bytes = 0;
            std::mem::take(&mut waiting.frames)
        };
        // Not under the lock: there may be many.
        drop(dropped);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn weight_bytes(frame: &Bytes) -> usize {
    frame.len() + FRAME_WEIGHT_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_until_the_connection_has_it() {
        let outbox = Outbox::new(1_000);
        let frame = Bytes::from_static(&[1; 460]);
        assert_eq!(outbox.push(frame.clone()), Ok(()));
        assert_eq!(outbox.push(frame.clone()), Ok(()));
        assert_eq!(outbox.push(Bytes::new()), Err(Full), "an empty frame counts, too");
        let mut taken = Vec::new();
        let bytes = outbox.take(&mut taken, 600);
        assert_eq!((taken.len(), bytes, outbox.bytes()), (1, 500, 1_000));
        assert_eq!(outbox.push(Bytes::new()), Err(Full), "still on its way");
        outbox.gave(bytes);
        assert_eq!(outbox.push(frame.clone()), Ok(()));
        assert_eq!(outbox.take(&mut taken, 1), 500, "one alone may be larger");
        outbox.close();
        assert_eq!(outbox.push(Bytes::new()), Err(Full));
        assert_eq!((outbox.take(&mut taken, 1_000), outbox.bytes()), (0, 0));
        outbox.gave(500);
        assert_eq!(outbox.bytes(), 0);
    }

    #[test]
    fn a_frame_longer_than_any_may_be_is_not_taken() {
        let outbox = Outbox::new(usize::MAX);
        let longest = Bytes::from(vec![0; LINK_FRAME_BYTES_MAX]);
        assert_eq!(outbox.push(longest), Ok(()));
        let longer = Bytes::from(vec![0; LINK_FRAME_BYTES_MAX + 1]);
        assert_eq!(outbox.push(longer), Err(Full));
    }
}
