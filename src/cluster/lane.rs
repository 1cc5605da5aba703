//! One lane to one peer: a supervised task that dials, carries what its queue holds, and dials again.
//!
//! ```text
//!          +--------- pause (50 ms .. 0.9 s, jitter) <---- failed: drop the queue, tell the core
//!          v                                                  ^
//!   wait for a message (lanes on demand) --> dial, shake hands
//!          ^                                                  v
//!          +--- idle, or the peer left: end the stream <-- carry: queue -> frames -> one HTTP/2 stream
//! ```
//!
//! A lane has a connection of its own, so that pieces of snapshots and long appends never stand before a
//! heartbeat in a socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::client::ResponseFuture;
use h2::{Ping, PingPong, SendStream};
use raft::{Body, Message};
use rand::RngExt;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, error, info};

use super::dial::{DialError, Dialled, dial, is_answer, open_stream};
use super::door::RAFT_PATH;
use super::handshake::HandshakeError;
use super::limits::{
    BACKOFF_MAX, BACKOFF_MIN, BULK_QUEUE_BYTES, CHUNK_BYTES, CHUNK_MESSAGES, CONTROL_QUEUE_BYTES,
    DIAL_WITHIN, IDLE_LANE, LEAVE_WITHIN, LOG_QUEUE_BYTES, LOST_REPORT_EVERY, PING_EVERY, PING_WITHIN,
};
use super::peer::Peer;
use super::queue::Queue;
use super::stream::{StreamError, capacity, next_chunk, send_all};
use super::wire;
use crate::clock;

/// Which messages share a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Heartbeats, votes, acks, read indices: small, and what leadership hangs on.
    Control,
    /// Appends and forwarded proposals.
    Log,
    /// Pieces of snapshots.
    Bulk,
}

impl Class {
    /// All of them.
    pub const ALL: [Class; 3] = [Class::Control, Class::Log, Class::Bulk];

    /// The lane of a message. Order is kept within a lane only; the core survives any order.
    pub(super) fn of(message: &Message) -> Class {
        match &message.body {
            Body::Append(_) | Body::Forward(_) => Class::Log,
            Body::Snapshot(_) => Class::Bulk,
            _ => Class::Control,
        }
    }

    fn queue_bytes(self) -> usize {
        match self {
            Class::Control => CONTROL_QUEUE_BYTES,
            Class::Log => LOG_QUEUE_BYTES,
            Class::Bulk => BULK_QUEUE_BYTES,
        }
    }
}

/// The part of a lane that others see.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) class: Class,
    pub(super) queue: Queue,
    /// A proved connection carries this lane now.
    pub(super) connected: AtomicBool,
    /// Connections made.
    pub(super) connects: AtomicU64,
    /// Messages given to a connection.
    pub(super) messages: AtomicU64,
    /// Bytes of their frames.
    pub(super) bytes: AtomicU64,
    /// Messages too large for a frame: dropped, logged.
    pub(super) oversize: AtomicU64,
}

/// Why a connection of a lane ended.
#[derive(Debug)]
enum End {
    /// Nothing to send for long, or the peer left: all was sent.
    Finished,
    /// The connection, the stream or the peer.
    Broken(StreamError),
    /// Pings are not answered.
    Silent,
    /// The peer has another address now, or another lane found it gone.
    Renew,
}

impl Lane {
    pub(super) fn new(class: Class) -> Lane {
        Lane {
            class,
            queue: Queue::new(class.queue_bytes()),
            connected: AtomicBool::new(false),
            connects: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            oversize: AtomicU64::new(0),
        }
    }

    /// The task of the lane. Ends when the peer has left and all was sent or [`LEAVE_WITHIN`] is over.
    pub(super) async fn run(self: Arc<Lane>, peer: Arc<Peer>) {
        tokio::select! {
            () = self.work(&peer) => {}
            () = self.report_losses(&peer) => {}
            () = async {
                peer.left().await;
                sleep(LEAVE_WITHIN).await;
            } => {}
        }
        self.connected.store(false, Ordering::Release);
        self.queue.drop_all(false);
    }

    /// Tells the core of losses: the first at once, then at most every [`LOST_REPORT_EVERY`].
    async fn report_losses(&self, peer: &Peer) {
        loop {
            self.queue.lost().await;
            peer.service().unreachable(peer.id());
            sleep(LOST_REPORT_EVERY).await;
        }
    }

    async fn work(&self, peer: &Peer) {
        let mut failures = 0;
        loop {
            if !self.is_eager(peer) {
                // After a failed dial the queue is closed. The next message is what makes a lane on demand
                // dial again, so it must be let in.
                self.queue.open();
            }
            tokio::select! {
                biased;
                () = self.queue.filled() => {}
                () = std::future::ready(()), if self.is_eager(peer) && !peer.has_left() => {}
                () = peer.left() => return,
            }
            let started = clock::now();
            let (renewal, calls) = (peer.renewal(), peer.calls());
            match dial(&peer.address(), peer.credentials(), peer.target(), DIAL_WITHIN).await {
                Err(error) => {
                    failures += 1;
                    self.queue.drop_all(false);
                    self.log_failure(peer, &error);
                    peer.note_failure(error);
                }
                Ok(dialled) => {
                    if self.connect_and_carry(peer, dialled, renewal).await {
                        failures = 0;
                        continue;
                    }
                    // A peer that lets this node in and hangs up at once is a failure too.
                    failures = if clock::now() < started + DIAL_WITHIN {
                        failures + 1
                    } else {
                        0
                    };
                }
            }
            self.pause(peer, started + backoff(failures), calls).await;
        }
    }

    /// Members are kept connected on the lanes that decide how fast things go; everything else when
    /// there is something to say.
    fn is_eager(&self, peer: &Peer) -> bool {
        self.class != Class::Bulk && !peer.is_guest()
    }

    /// True when the lane ended in order.
    async fn connect_and_carry(&self, peer: &Peer, dialled: Dialled, mut renewal: Renewal) -> bool {
        let identity = dialled.door.clone();
        self.connects.fetch_add(1, Ordering::Relaxed);
        self.connected.store(true, Ordering::Release);
        self.queue.open();
        if self.class == Class::Control {
            info!(peer = peer.id().0, remote = %identity.remote, "connected to a member");
            peer.service().met(&identity);
        }
        peer.forget_failure();
        let end = self.carry(peer, dialled, &mut renewal).await;
        self.connected.store(false, Ordering::Release);
        match end {
            End::Finished => return true,
            End::Renew => debug!(peer = peer.id().0, class = ?self.class, "the connection is made anew"),
            End::Silent => {
                info!(
                    peer = peer.id().0,
                    "a member does not answer pings: its connections are made anew"
                );
                peer.renew();
            }
            End::Broken(error) => {
                if self.class == Class::Control {
                    info!(peer = peer.id().0, "the connection to a member broke: {error}");
                }
            }
        }
        // What was under way may be lost; what waits is from before the break and goes too.
        self.queue.count_lost(1);
        self.queue.drop_all(true);
        false
    }

    async fn carry(&self, peer: &Peer, dialled: Dialled, renewal: &mut Renewal) -> End {
        let Dialled {
            send, mut connection, ..
        } = dialled;
        let pings = connection.ping_pong();
        let write = async {
            // Held to the end: an HTTP/2 connection without handles closes itself.
            let (_send, response, mut stream) = open_stream(send, RAFT_PATH).await?;
            let reply = watch_reply(response);
            tokio::pin!(reply);
            tokio::select! {
                biased;
                result = self.write(peer, &mut stream) => result?,
                result = &mut reply => return result,
            }
            stream.send_data(Bytes::new(), true)?;
            reply.await
        };
        tokio::select! {
            biased;
            result = write => match result {
                Ok(()) => End::Finished,
                Err(error) => End::Broken(error),
            },
            result = &mut connection => {
                End::Broken(result.err().map_or(StreamError::Ended, StreamError::Http))
            }
            () = self.ping(pings) => End::Silent,
            _ = renewal.changed() => End::Renew,
        }
    }

    /// Queue to stream, until there is nothing more to say: the peer left, or an idle lane on demand.
    async fn write(&self, peer: &Peer, stream: &mut SendStream<Bytes>) -> Result<(), StreamError> {
        let mut batch = Vec::new();
        let mut out = BytesMut::with_capacity(CHUNK_BYTES);
        loop {
            if !self.wait_for_work(peer).await {
                return Ok(());
            }
            // What waits for room stays in the queue, where its limit is.
            capacity(stream, CHUNK_BYTES).await?;
            self.queue.take(&mut batch, CHUNK_BYTES, CHUNK_MESSAGES);
            self.encode(peer, &mut batch, &mut out);
            send_all(stream, out.split().freeze(), false).await?;
        }
    }

    /// False: finish.
    async fn wait_for_work(&self, peer: &Peer) -> bool {
        let idle = async {
            if self.is_eager(peer) {
                std::future::pending::<()>().await;
            }
            sleep(IDLE_LANE).await;
        };
        tokio::select! {
            biased;
            () = self.queue.filled() => true,
            () = peer.left() => false,
            () = idle => false,
        }
    }

    fn encode(&self, peer: &Peer, batch: &mut Vec<Message>, out: &mut BytesMut) {
        let messages = batch.len() as u64;
        for message in batch.drain(..) {
            if let Err(error) = wire::encode(&message, out) {
                self.oversize.fetch_add(1, Ordering::Relaxed);
                self.queue.count_lost(1);
                error!(peer = peer.id().0, "a message cannot be sent: {error}");
            }
        }
        self.messages.fetch_add(messages, Ordering::Relaxed);
        self.bytes.fetch_add(out.len() as u64, Ordering::Relaxed);
    }

    /// Ends when a ping is not answered in time. Only the control lane asks: behind a full log or bulk
    /// connection an answer may rightly take long.
    async fn ping(&self, pings: Option<PingPong>) {
        match (self.class, pings) {
            (Class::Control, Some(pings)) => until_silent(pings, PING_WITHIN).await,
            _ => std::future::pending().await,
        }
    }

    /// Waits for the next try. A peer that calls us, or has another address, is there again: then at
    /// once.
    async fn pause(&self, peer: &Peer, until: Instant, mut calls: Renewal) {
        let mut renewal = peer.renewal();
        tokio::select! {
            () = sleep_until(until) => {}
            _ = renewal.changed() => {}
            _ = calls.changed() => {}
            () = peer.left() => {}
        }
    }

    fn log_failure(&self, peer: &Peer, error: &DialError) {
        // One lane speaks for all.
        if self.class == Class::Bulk || (self.class == Class::Log && !peer.is_guest()) {
            return;
        }
        peer.log_failure(error);
    }
}

/// See [`Peer::renewal`].
pub(super) type Renewal = tokio::sync::watch::Receiver<u64>;

/// Asks every [`PING_EVERY`]; ends when a ping is not answered within this time.
pub(super) async fn until_silent(mut pings: PingPong, within: Duration) {
    loop {
        sleep(PING_EVERY).await;
        if !matches!(timeout(within, pings.ping(Ping::opaque())).await, Ok(Ok(_))) {
            return;
        }
    }
}

/// The other side answers when the stream begins and when it ends; anything else is a refusal.
async fn watch_reply(response: ResponseFuture) -> Result<(), StreamError> {
    let response = response.await?;
    if !is_answer(response.status(), response.headers()) {
        return Err(StreamError::Ended);
    }
    let mut body = response.into_body();
    while next_chunk(&mut body).await?.is_some() {}
    Ok(())
}

/// From the start of one dial to the next: doubles from [`BACKOFF_MIN`], a quarter of it drawn at random
/// so that nodes that lost each other do not dial in step, never above [`BACKOFF_MAX`].
pub(super) fn backoff(failures: u32) -> Duration {
    let full = BACKOFF_MIN.saturating_mul(1 << failures.min(8)).min(BACKOFF_MAX);
    full.mul_f64(rand::rng().random_range(0.75..=1.0))
}

/// The typed refusal in a failed dial, if that is what it was.
pub(super) fn refusal(error: &DialError) -> Option<&super::refused::Refused> {
    match error {
        DialError::Handshake {
            source: HandshakeError::Refused(refused),
            ..
        } => Some(refused),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_member_is_dialled_at_least_once_a_second() {
        for failures in 0..100 {
            let pause = backoff(failures);
            assert!(pause <= BACKOFF_MAX, "{pause:?}");
            assert!(pause >= BACKOFF_MIN / 2, "{pause:?}");
        }
        assert!(BACKOFF_MAX < Duration::from_secs(1));
        assert!(DIAL_WITHIN <= Duration::from_secs(1));
    }
}
