//! What waits to be sent on a client's stream.
//!
//! A message goes straight to HTTP/2 when the client's window has room for it, without waking any task of
//! ours; otherwise it waits here, and the task of the stream sends it when there is room. There is little
//! room here on purpose: whoever pushes is told *busy* and comes back later with what is true then, so a
//! client that reads slowly gets fewer and newer messages and costs a bounded amount of memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http::{HeaderMap, HeaderValue};

use super::line::Line;

/// Bytes that may wait while others wait before them; a message that finds nothing waiting may be of any
/// size (10 MiB at most). Beyond: busy.
const WAITING_BYTES_MAX: usize = 64 << 10;

/// A framed message, in pieces that are sent one after another: what is sent to many is one of them, and shared.
#[derive(Debug)]
pub(super) struct Frame([Bytes; 3]);

impl From<Bytes> for Frame {
    fn from(whole: Bytes) -> Frame {
        Frame([whole, Bytes::new(), Bytes::new()])
    }
}

impl From<[Bytes; 3]> for Frame {
    fn from(pieces: [Bytes; 3]) -> Frame {
        Frame(pieces)
    }
}

impl Frame {
    fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// Takes up to so many bytes off its beginning, without copying any; empty when nothing is left.
    fn take(&mut self, max: usize) -> Bytes {
        let left = self.0.iter_mut().find(|piece| !piece.is_empty());
        left.map_or_else(Bytes::new, |piece| piece.split_to(max.min(piece.len())))
    }
}

/// Messages on their way to one client. Dropping it resets the stream unless it was ended.
#[derive(Debug)]
pub(super) struct Outbox {
    line: Arc<Line>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// `None` once the stream has ended.
    stream: Option<SendStream<Bytes>>,
    waiting: VecDeque<Frame>,
    waiting_bytes: usize,
    /// Some of the first waiting message is out: the stream can no longer be ended in order.
    is_amid: bool,
    /// Since when something waits, by [`Line::age_ms`].
    waiting_since_ms: u64,
    /// Of the task that sends what waits.
    sender: Option<Waker>,
}

/// A message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// The client takes nothing at the moment.
    Busy,
    /// The stream has ended.
    Gone,
}

impl Outbox {
    pub(super) fn new(line: Arc<Line>, stream: SendStream<Bytes>) -> Outbox {
        Outbox {
            line,
            state: Mutex::new(State {
                stream: Some(stream),
                waiting: VecDeque::new(),
                waiting_bytes: 0,
                is_amid: false,
                waiting_since_ms: 0,
                sender: None,
            }),
        }
    }

    /// Sends a framed message, now or as soon as there is room. Messages leave in the order of the calls.
    ///
    /// # Errors
    /// It was not taken and will not be sent.
    pub(super) fn send(&self, mut frame: Frame) -> Result<(), NotTaken> {
        let mut state = self.state();
        let state = &mut *state;
        let stream = state.stream.as_mut().ok_or(NotTaken::Gone)?;
        if self.line.is_blocked() {
            return Err(NotTaken::Busy);
        }
        if state.waiting.is_empty() {
            stream.reserve_capacity(frame.len());
            if stream.capacity() >= frame.len() {
                while let piece = frame.take(usize::MAX)
                    && !piece.is_empty()
                {
                    stream.send_data(piece, false).map_err(|_| NotTaken::Gone)?;
                }
                return Ok(());
            }
            state.waiting_since_ms = self.line.age_ms();
        } else if state.waiting_bytes + frame.len() > WAITING_BYTES_MAX {
            return Err(NotTaken::Busy);
        }
        state.waiting_bytes += frame.len();
        state.waiting.push_back(frame);
        if let Some(sender) = state.sender.take() {
            sender.wake();
        }
        Ok(())
    }

    /// Sends what waits, as the client's window permits; ready when the stream has ended.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state();
        let state = &mut *state;
        loop {
            let Some(stream) = &mut state.stream else {
                return Poll::Ready(());
            };
            let Some(first) = state.waiting.front_mut() else {
                if state
                    .sender
                    .as_ref()
                    .is_none_or(|waker| !waker.will_wake(cx.waker()))
                {
                    state.sender = Some(cx.waker().clone());
                }
                return Poll::Pending;
            };
            stream.reserve_capacity(first.len());
            let room = stream.capacity();
            if room == 0 {
                match stream.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(_))) => continue,
                    Poll::Ready(_) => {
                        state.stream = None;
                        return Poll::Ready(());
                    }
                    // Whoever adds another message need not wake anybody: the room has to come first.
                    Poll::Pending => return Poll::Pending,
                }
            }
            let piece = first.take(room);
            state.waiting_bytes -= piece.len();
            state.is_amid = first.len() > 0;
            if !state.is_amid {
                state.waiting.pop_front();
                state.waiting_since_ms = self.line.age_ms();
            }
            if stream.send_data(piece, false).is_err() {
                state.stream = None;
                return Poll::Ready(());
            }
        }
    }

    /// For how many milliseconds the oldest waiting message has waited, or nothing was taken at all.
    pub(super) fn stuck_for_ms(&self) -> u64 {
        let state = self.state();
        let waiting = match state.waiting.is_empty() {
            true => 0,
            false => self.line.age_ms().saturating_sub(state.waiting_since_ms),
        };
        waiting.max(self.line.blocked_for_ms())
    }

    /// Ends the stream: with the gRPC status UNAVAILABLE. The Python SDK reconnects only after an error; an
    /// end with OK leaves it deaf for good, because it takes 301 of its health check for healthy. What waits
    /// is dropped. Doing it twice changes nothing.
    pub(super) fn end(&self) {
        let mut state = self.state();
        let Some(mut stream) = state.stream.take() else {
            return;
        };
        if state.is_amid {
            stream.send_reset(Reason::CANCEL);
        } else {
            let mut trailers = HeaderMap::with_capacity(2);
            trailers.insert("grpc-status", HeaderValue::from_static("14"));
            trailers.insert(
                "grpc-message",
                HeaderValue::from_static("the server closes this connection"),
            );
            // The connection may be gone; then the client knows.
            let _ = stream.send_trailers(trailers);
        }
        state.waiting.clear();
        state.waiting_bytes = 0;
        if let Some(sender) = state.sender.take() {
            sender.wake();
        }
    }

    /// Nothing panics while it holds the lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_leave_in_order_and_in_any_portions() {
        for portion in 1..9 {
            let mut frame =
                Frame::from(["abc", "", "defg"].map(|piece| Bytes::from_static(piece.as_bytes())));
            let (mut taken, mut left) = (Vec::new(), frame.len());
            while left > 0 {
                let piece = frame.take(portion);
                assert!(!piece.is_empty() && piece.len() <= portion);
                left -= piece.len();
                assert_eq!(frame.len(), left);
                taken.extend_from_slice(&piece);
            }
            assert_eq!(taken, b"abcdefg");
            assert!(frame.take(portion).is_empty());
        }
    }
}
