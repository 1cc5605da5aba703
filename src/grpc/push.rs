//! Pushes to a client, and their acknowledgements.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use proto::nacos::remote::Ack;
use proto::nacos::{self, Message, Text};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::connection::Client;
use super::outbox::{Frame, NotTaken, Outbox};
use crate::metrics::Grpc;

/// Pushes of one client that wait for their acknowledgement. Beyond: busy.
const WAITING_ACKS_MAX: usize = 1_024;

/// What is shared by many and smaller than this is copied into each message: as a piece of its own it would cost
/// more, a frame of HTTP/2 each.
const COPIED_BELOW: usize = 8 << 10;

/// A push did not arrive, as far as this node knows. In every case the caller decides whether to try again,
/// with what is true by then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The client takes nothing at the moment; nothing was sent.
    #[error("the client reads too slowly")]
    Busy,
    /// No acknowledgement came in time. The client may have handled the push all the same.
    #[error("no acknowledgement in time")]
    Late,
    /// The client could not handle it.
    #[error("the client answered error {code}: {message}")]
    Refused {
        /// `errorCode` of its answer.
        code: i32,
        /// Its words.
        message: String,
    },
    /// The client is not connected any more. There is nothing to try again.
    #[error("the client is gone")]
    Gone,
}

/// The pushes of one client.
#[derive(Debug)]
pub(super) struct Pushes {
    outbox: Arc<Outbox>,
    acks: Mutex<Acks>,
    metrics: Arc<Grpc>,
}

#[derive(Debug, Default)]
struct Acks {
    /// The id that was given last; ids are numbers from 1, unique for a connection.
    last: u64,
    /// Who waits for which. Small: an entry goes with its waiter.
    waiting: HashMap<u64, Waiting>,
    ended: bool,
}

/// Who waits for an answer.
#[derive(Debug)]
enum Waiting {
    /// It is an acknowledgement, and no more.
    Ack(oneshot::Sender<Result<(), PushError>>),
    /// What it says is asked for: the JSON of the client's message.
    Words(oneshot::Sender<Result<Bytes, PushError>>),
}

impl Waiting {
    /// Whoever waited may have given up.
    fn tell(self, outcome: Result<&[u8], PushError>) {
        match self {
            Waiting::Ack(waiter) => drop(waiter.send(outcome.map(drop))),
            Waiting::Words(waiter) => drop(waiter.send(outcome.map(Bytes::copy_from_slice))),
        }
    }
}

impl Client {
    /// Pushes a message and waits until the client has acknowledged it. `message` makes it from its request
    /// id. Several may be under way at a time; they leave in the order of the calls.
    ///
    /// # Errors
    /// See [`PushError`].
    ///
    /// # Cancel safety
    /// Dropped before its first poll it sends nothing; later, the push is on its way and its
    /// acknowledgement is ignored.
    pub async fn push<M: Message>(
        &self,
        ack_within: Duration,
        message: impl FnOnce(Text<'static>) -> M,
    ) -> Result<(), PushError> {
        let begun = self.pushes.begin(|id| nacos::frame(&message(id)).into())?;
        self.await_answer(ack_within, begun).await
    }

    /// As [`Client::push`], with one more field whose JSON is ready: its name, and what many are told. If that
    /// is large it is not copied, however many it is pushed to.
    ///
    /// # Errors
    /// See [`PushError`].
    ///
    /// # Cancel safety
    /// As there.
    pub async fn push_with<M: Message>(
        &self,
        ack_within: Duration,
        message: impl FnOnce(Text<'static>) -> M,
        (name, json): (&str, Bytes),
    ) -> Result<(), PushError> {
        let begun = self.pushes.begin(|id| match json.len() {
            ..COPIED_BELOW => nacos::frame_with(&message(id), name, &json).into(),
            _ => nacos::frame_around(&message(id), name, json).into(),
        })?;
        self.await_answer(ack_within, begun).await
    }

    /// Asks the client something, and gives the JSON of its answer.
    ///
    /// # Errors
    /// See [`PushError`].
    ///
    /// # Cancel safety
    /// As [`Client::push`].
    pub async fn ask<M: Message>(
        &self,
        within: Duration,
        message: impl FnOnce(Text<'static>) -> M,
    ) -> Result<Bytes, PushError> {
        let frame = |id| nacos::frame(&message(id)).into();
        let begun = self.pushes.begin_for(Waiting::Words, frame)?;
        self.await_answer(within, begun).await
    }

    async fn await_answer<T>(
        &self,
        within: Duration,
        (waiter, waiting): Begun<'_, T>,
    ) -> Result<T, PushError> {
        let outcome = match timeout(within, waiting).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(PushError::Gone),
            Err(_) => Err(PushError::Late),
        };
        drop(waiter);
        self.pushes.count(&outcome);
        outcome
    }

    /// Pushes a message for whose acknowledgement nobody waits.
    ///
    /// # Errors
    /// [`PushError::Busy`] or [`PushError::Gone`].
    pub fn push_unacknowledged<M: Message>(
        &self,
        message: impl FnOnce(Text<'static>) -> M,
    ) -> Result<(), PushError> {
        let id = {
            let mut acks = self.pushes.acks();
            acks.last += 1;
            acks.last
        };
        self.pushes
            .send(nacos::frame(&message(id.to_string().into())).into())
    }
}

/// Takes the waiter off the list, however the wait ends.
struct Waiter<'a> {
    pushes: &'a Pushes,
    id: u64,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.pushes.acks().waiting.remove(&self.id);
    }
}

type Begun<'a, T> = (Waiter<'a>, oneshot::Receiver<Result<T, PushError>>);

/// How a [`Waiting`] is made of where it is told.
type Waits<T> = fn(oneshot::Sender<Result<T, PushError>>) -> Waiting;

impl Pushes {
    pub(super) fn new(outbox: Arc<Outbox>, metrics: Arc<Grpc>) -> Pushes {
        Pushes {
            outbox,
            acks: Mutex::default(),
            metrics,
        }
    }

    pub(super) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    fn begin(&self, frame: impl FnOnce(Text<'static>) -> Frame) -> Result<Begun<'_, ()>, PushError> {
        self.begin_for(Waiting::Ack, frame)
    }

    fn begin_for<T>(
        &self,
        waits: Waits<T>,
        frame: impl FnOnce(Text<'static>) -> Frame,
    ) -> Result<Begun<'_, T>, PushError> {
        let (sender, receiver) = oneshot::channel();
        let id = {
            let mut acks = self.acks();
            if acks.ended {
                return Err(PushError::Gone);
            }
            if acks.waiting.len() >= WAITING_ACKS_MAX {
                self.metrics.pushes.busy.fetch_add(1, Relaxed);
                return Err(PushError::Busy);
            }
            acks.last += 1;
            let id = acks.last;
            // IMPORTANT: before it is sent. The answer may be faster than this thread.
            acks.waiting.insert(id, waits(sender));
            id
        };
        let waiter = Waiter { pushes: self, id };
        self.send(frame(id.to_string().into()))?;
        Ok((waiter, receiver))
    }

    fn send(&self, frame: Frame) -> Result<(), PushError> {
        match self.outbox.send(frame) {
            Ok(()) => {
                self.metrics.pushes.sent.fetch_add(1, Relaxed);
                Ok(())
            }
            Err(NotTaken::Busy) => {
                self.metrics.pushes.busy.fetch_add(1, Relaxed);
                Err(PushError::Busy)
            }
            Err(NotTaken::Gone) => Err(PushError::Gone),
        }
    }

    /// An answer of the client: it belongs to the push whose id it has, whatever its type. One for which
    /// nobody waits (any more) is ignored.
    pub(super) fn answered(&self, ack: &Ack<'_>, json: &[u8]) {
        let id = ack.request_id.as_ref().and_then(|id| id.parse::<u64>().ok());
        let Some(waiter) = id.and_then(|id| self.acks().waiting.remove(&id)) else {
            return;
        };
        let outcome = match ack.is_success() {
            true => Ok(json),
            false => Err(PushError::Refused {
                code: ack.error_code,
                message: ack.message.as_deref().unwrap_or_default().to_owned(),
            }),
        };
        waiter.tell(outcome);
    }

    /// The client is gone: whoever waits is told.
    pub(super) fn end(&self) {
        let waiting = {
            let mut acks = self.acks();
            acks.ended = true;
            std::mem::take(&mut acks.waiting)
        };
        for waiter in waiting.into_values() {
            waiter.tell(Err(PushError::Gone));
        }
        self.outbox.end();
    }

    fn count<T>(&self, outcome: &Result<T, PushError>) {
        let counts = &self.metrics.pushes;
        match outcome {
            Ok(_) => &counts.acked,
            Err(PushError::Refused { .. }) => &counts.refused,
            Err(PushError::Late) => &counts.late,
            Err(PushError::Busy | PushError::Gone) => return,
        }
        .fetch_add(1, Relaxed);
    }

    fn acks(&self) -> MutexGuard<'_, Acks> {
        self.acks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
