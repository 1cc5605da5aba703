//! What waits for one lane of one peer: bounded by bytes, never waited on by its writers.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use raft::Message;
use tokio::sync::Notify;

/// A queue with many writers and one reader.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    bytes_max: usize,
    /// The queue was empty and is not any more.
    filled: Notify,
    /// Something was dropped since the last time somebody asked.
    lost: Notify,
    /// Messages dropped, ever.
    dropped: AtomicU64,
}

#[derive(Debug)]
struct State {
    messages: VecDeque<(usize, Message)>,
    /// Weight of `messages`, in bytes; at most `bytes_max`, but for one larger message alone.
    bytes: usize,
    /// False while nobody is there to read: what comes is dropped at once, so that a peer that comes
    /// back is not met with what was true long ago.
    open: bool,
}

impl Queue {
    pub(super) fn new(bytes_max: usize) -> Queue {
        Queue {
            state: Mutex::new(State {
                messages: VecDeque::new(),
                bytes: 0,
                open: true,
            }),
            bytes_max,
            filled: Notify::new(),
            lost: Notify::new(),
            dropped: AtomicU64::new(0),
        }
    }

    /// Puts a message at the end, or drops it: when the queue is full or nobody reads.
    pub(super) fn push(&self, message: Message, weight: usize) {
        let was_empty = {
            let mut state = self.lock();
            let was_empty = state.messages.is_empty();
            let fits = was_empty || state.bytes + weight <= self.bytes_max;
            if !state.open || !fits {
                drop(state);
                return self.count_lost(1);
            }
            state.bytes += weight;
            state.messages.push_back((weight, message));
            was_empty
        };
        if was_empty {
            self.filled.notify_one();
        }
    }

    /// Moves messages from the front to `batch`, until about `bytes` are taken or `count`; at least one
    /// when there is one.
    pub(super) fn take(&self, batch: &mut Vec<Message>, bytes: usize, count: usize) {
        let mut state = self.lock();
        let mut taken = 0;
        while taken < bytes && batch.len() < count {
            let Some((weight, message)) = state.messages.pop_front() else {
                break;
            };
            state.bytes -= weight;
            taken += weight;
            batch.push(message);
        }
    }

    /// Waits until there is something.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it. For one reader only.
    pub(super) async fn filled(&self) {
        while self.is_empty() {
            self.filled.notified().await;
        }
    }

    /// Waits until something was dropped since the last call.
    ///
    /// # Cancel safety
    /// As [`Queue::filled`].
    pub(super) async fn lost(&self) {
        self.lost.notified().await;
    }

    /// Takes messages from now on.
    pub(super) fn open(&self) {
        self.lock().open = true;
    }

    /// Drops what is there. `keep_open`: what comes from now on may wait for the next connection.
    pub(super) fn drop_all(&self, keep_open: bool) {
        let dropped = {
            let mut state = self.lock();
            state.open = keep_open;
            state.bytes = 0;
            std::mem::take(&mut state.messages).len() as u64
        };
        if dropped > 0 {
            self.count_lost(dropped);
        }
    }

    /// Messages that were on their way on a connection that broke.
    pub(super) fn count_lost(&self, messages: u64) {
        self.dropped.fetch_add(messages, Ordering::Relaxed);
        self.lost.notify_one();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().messages.is_empty()
    }

    /// Weight of what waits.
    pub(super) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Messages dropped, ever.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
