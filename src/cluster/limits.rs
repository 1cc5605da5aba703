//! Every limit of the peer door and the transport, with its unit and what happens at it.

use std::time::Duration;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Version of the protocol that this binary speaks, and the oldest it understands.
pub const VERSION: u32 = 1;
/// See [`VERSION`].
pub const VERSION_MIN: u32 = 1;

/// Largest handshake frame. A larger one ends the connection.
pub(super) const HANDSHAKE_BYTES_MAX: usize = 4 * KIB;
/// From the opened handshake stream to its end. Later: the connection is closed.
pub(super) const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);
/// Longest `host:port` of a member.
pub(super) const ADDRESS_BYTES_MAX: usize = 512;

/// Largest frame of one message (head and tail). A sender drops a larger one and says so; a receiver
/// ends the stream.
pub const FRAME_BYTES_MAX: usize = 16 * MIB;
/// Proposals forwarded in one message; more are split over several.
pub(super) const FORWARD_BYTES_MAX: usize = 4 * MIB;
/// What a writer takes from its queue and puts on the wire at a time. One larger message passes alone.
pub(super) const CHUNK_BYTES: usize = 128 * KIB;
/// Messages taken from a queue at a time, so that its lock is held shortly.
pub(super) const CHUNK_MESSAGES: usize = 4096;

/// Bytes that wait for one peer, by lane. A message beyond it is dropped and the core is told.
pub(super) const CONTROL_QUEUE_BYTES: usize = 8 * MIB;
/// Holds twice the core's window (`inflight_bytes_max`).
pub(super) const LOG_QUEUE_BYTES: usize = 64 * MIB;
/// Holds several times the core's window of snapshot pieces.
pub(super) const BULK_QUEUE_BYTES: usize = 16 * MIB;

/// Largest frame of a link. A sender does not take a larger one; a receiver ends the link.
pub const LINK_FRAME_BYTES_MAX: usize = 64 * MIB;
/// Bytes that wait in a link for records: one largest frame and some. Beyond it the sender is told and
/// begins the link again.
pub(super) const DISTRO_OUTBOX_BYTES: usize = 96 * MIB;
/// Bytes that wait in a link for what clients ask. Beyond it the sender is told and acts itself.
pub(super) const FORWARD_OUTBOX_BYTES: usize = 8 * MIB;

/// Largest call (forming, control, questions).
pub(super) const CALL_BYTES_MAX: usize = MIB;
/// Largest answer to one. Whoever answers a question keeps below it; a larger one counts as none.
pub const ANSWER_BYTES_MAX: usize = 8 * MIB;
/// How long the door works on one call; the caller may give up earlier.
pub(super) const CALL_WITHIN: Duration = Duration::from_secs(30);

/// Resolving, connecting and shaking hands, together. Short: a node that is there answers within
/// milliseconds, and a lost one must be dialled at least once a second.
pub(super) const DIAL_WITHIN: Duration = Duration::from_millis(1_000);
/// Shortest pause after a failed dial; doubles up to [`BACKOFF_MAX`].
pub(super) const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// Longest time from the start of one dial to the next, jitter included.
pub(super) const BACKOFF_MAX: Duration = Duration::from_millis(900);
/// While a peer is away the core is told of lost messages at most this often.
pub(super) const LOST_REPORT_EVERY: Duration = Duration::from_millis(100);

/// A ping on each control lane, so that a peer that went away without a word is noticed.
pub(super) const PING_EVERY: Duration = Duration::from_millis(500);
/// No answer to a ping: the connections to this peer are made anew. Otherwise a healed partition would
/// wait for TCP's own retransmission, which backs off to minutes.
pub(super) const PING_WITHIN: Duration = Duration::from_millis(2_000);
/// The same on a link for records, where an answer may stand behind a window of them. The peer's control lane
/// is sooner.
pub(super) const DISTRO_PING_WITHIN: Duration = Duration::from_millis(5_000);
/// Bytes on the way that nobody acknowledged for so long break a connection (TCP_USER_TIMEOUT).
pub(super) const UNACKED_WITHIN: Duration = Duration::from_secs(3);
/// A lane that is dialled on demand is closed after so long without a message.
pub(super) const IDLE_LANE: Duration = Duration::from_secs(60);
/// A member that left gets what is queued for it for so long.
pub(super) const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// Callers that are in no membership this node knows (yet) and may be answered. Beyond it: the one
/// unseen for longest is forgotten.
pub(super) const GUESTS_MAX: usize = 64;
/// Sources whose failures are remembered, to log each once a minute. Beyond it: one line for all others.
pub(super) const SOURCES_MAX: usize = 1024;
/// See [`SOURCES_MAX`].
pub(super) const LOG_EVERY: Duration = Duration::from_secs(60);

/// HTTP/2 window of a connection that has proved itself, and of a stream on it. The receiver hands
/// messages on without waiting, so little of it is ever used; it only must hide the round trip.
pub const WINDOW_BYTES: u32 = 8 << 20;
/// What a sender may have given to HTTP/2 and not yet to the socket.
pub(super) const SEND_BUFFER_BYTES: usize = 512 * KIB;
