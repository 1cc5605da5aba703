//! The queues around the node loop: how long they are, and the one of peer messages with its bound in bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use raft::{Body, Entry, Message, NodeId};
use storage::WriterMetrics;
use tokio::sync::mpsc;

use super::applier::Work;
use super::node::Event;

/// Batches of peer messages that may wait; beyond it they are dropped, and raft sends again.
pub(super) const MESSAGES_MAX: usize = 4_096;

/// Bytes of peer messages that may wait; beyond it they are dropped. Twice the window that a leader may have
/// under way to this node (`raft::Config::inflight_bytes_max`), so that one leader alone never meets it.
pub(super) const MESSAGES_BYTES_MAX: usize = 64 << 20;

/// What a message takes besides its payload, about.
const MESSAGE_BYTES: usize = 128;

/// Where peer messages are handed in.
#[derive(Clone, Debug)]
pub struct Inbox {
    pub(super) messages: mpsc::Sender<Batch>,
    pub(super) unreachable: mpsc::Sender<NodeId>,
    pub(super) load: Arc<InboxLoad>,
}

/// Messages that came together, and what they weigh.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) messages: Vec<Message>,
    bytes: usize,
}

/// What waits in an inbox, and what was dropped.
#[derive(Debug, Default)]
pub(super) struct InboxLoad {
    bytes: AtomicUsize,
    dropped: AtomicU64,
}

impl InboxLoad {
    /// A batch was taken out.
    pub(super) fn taken(&self, batch: &Batch) {
        self.bytes.fetch_sub(batch.bytes, Relaxed);
    }
}

impl Inbox {
    /// Hands in messages of an authenticated member; false when they were dropped because too many wait.
    #[must_use]
    pub fn deliver(&self, messages: Vec<Message>) -> bool {
        let bytes = messages.iter().map(bytes).sum::<usize>();
        let count = messages.len() as u64;
        let before = self.load.bytes.fetch_add(bytes, Relaxed);
        // One batch is taken however large it is: it was read already, and nothing else waits.
        let fits = before == 0 || before.saturating_add(bytes) <= MESSAGES_BYTES_MAX;
        let delivered = fits && self.messages.try_send(Batch { messages, bytes }).is_ok();
        if !delivered {
            self.load.bytes.fetch_sub(bytes, Relaxed);
            self.load.dropped.fetch_add(count, Relaxed);
        }
        delivered
    }

    /// Tells that messages to a member may have been lost.
    pub fn unreachable(&self, peer: NodeId) {
        // Full: many such notes wait already, and the core asks again by itself.
        let _full = self.unreachable.try_send(peer);
    }
}

/// Memory of a message, about.
fn bytes(message: &Message) -> usize {
    let payload = match &message.body {
        Body::Append(append) => append.entries.iter().map(Entry::size_bytes).sum(),
        Body::Snapshot(chunk) => chunk.data.len(),
        Body::Forward(proposals) => proposals
            .iter()
            .map(|proposal| proposal.payload.len() + Entry::OVERHEAD_BYTES)
            .sum(),
        Body::ForwardReply(outcomes) => outcomes.len() * 32,
        Body::ReadIndex(ids) => ids.len() * 8,
        Body::ReadIndexReply(reply) => reply.ids.len() * 8,
        _ => 0,
    };
    payload + MESSAGE_BYTES
}

/// How full the queues are, read from the queues themselves.
#[derive(Debug)]
pub(crate) struct Gauges {
    pub(super) messages: mpsc::WeakSender<Batch>,
    pub(super) inbox: Arc<InboxLoad>,
    pub(super) events: mpsc::WeakSender<Event>,
    pub(super) apply: Option<mpsc::WeakSender<Work>>,
    pub(super) load: Option<mpsc::WeakSender<raft::Load>>,
    pub(super) log: Arc<WriterMetrics>,
    /// Writes given to the log writer.
    pub(super) submitted: Arc<AtomicU64>,
}

/// What waits in the queues of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueLengths {
    /// Batches of peer messages.
    pub messages: usize,
    /// Bytes of them.
    pub messages_bytes: usize,
    /// Peer messages dropped because too many waited, ever.
    pub messages_dropped: u64,
    /// Proposals, reads and control requests.
    pub requests: usize,
    /// Completions of the threads around the loop.
    pub events: usize,
    /// Writes at the log writer.
    pub log: usize,
    /// Ranges at the applier.
    pub apply: usize,
    /// Reads of older entries and of pieces of snapshots.
    pub load: usize,
}

impl Gauges {
    /// Everything but the requests, whose sender the handle has.
    pub(super) fn read(&self) -> QueueLengths {
        let written = self.log.persists.load(Relaxed);
        QueueLengths {
            messages: length(Some(&self.messages)),
            messages_bytes: self.inbox.bytes.load(Relaxed),
            messages_dropped: self.inbox.dropped.load(Relaxed),
            requests: 0,
            events: length(Some(&self.events)),
            log: usize::try_from(self.submitted.load(Relaxed).saturating_sub(written)).unwrap_or(usize::MAX),
            apply: length(self.apply.as_ref()),
            load: length(self.load.as_ref()),
        }
    }
}

/// Zero once the receiver is gone.
fn length<T>(queue: Option<&mpsc::WeakSender<T>>) -> usize {
    let queue = queue.and_then(mpsc::WeakSender::upgrade);
    queue.map_or(0, |queue| waiting(&queue))
}

/// What waits in a queue.
pub(super) fn waiting<T>(queue: &mpsc::Sender<T>) -> usize {
    queue.max_capacity() - queue.capacity()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use raft::{Boot, Incarnation, Proposal, ProposalId, Sender, Space, Term};

    use super::*;

    fn forward(payload_bytes: usize) -> Vec<Message> {
        let proposal = Proposal {
            id: ProposalId(1),
            payload: Bytes::from(vec![0; payload_bytes]),
            essential: false,
        };
        vec![Message {
            sender: Sender {
                id: NodeId(2),
                incarnation: Incarnation(2),
                boot: Boot(1),
                suspicion: None,
                space: Space::Ample,
            },
            term: Term(1),
            body: Body::Forward(vec![proposal]),
        }]
    }

    /// A loop that is held up (a stalled disk of the process, a debugger) must not let peers fill the memory:
    /// 4,096 batches of 1 MiB each would.
    #[tokio::test]
    async fn waiting_messages_are_bounded_by_bytes_and_what_is_taken_makes_room() {
        let (messages, mut queue) = mpsc::channel(MESSAGES_MAX);
        let (unreachable, _notes) = mpsc::channel(1);
        let load = Arc::new(InboxLoad::default());
        let inbox = Inbox {
            messages,
            unreachable,
            load: Arc::clone(&load),
        };
        let mut taken = 0;
        while inbox.deliver(forward(1 << 20)) {
            taken += 1;
            assert!(taken < MESSAGES_MAX, "nothing bounds the bytes");
        }
        assert_eq!(taken, 63, "with what each takes besides its payload");
        assert_eq!(load.dropped.load(Relaxed), 1);
        load.taken(&queue.recv().await.expect("a batch"));
        assert!(inbox.deliver(forward(1 << 20)));
        while let Ok(batch) = queue.try_recv() {
            load.taken(&batch);
        }
        assert_eq!(load.bytes.load(Relaxed), 0);
        assert!(
            inbox.deliver(forward(MESSAGES_BYTES_MAX)),
            "one alone is always taken"
        );
    }
}
