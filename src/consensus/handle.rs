//! What the rest of the server holds of the node loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use raft::{Change, EntryId, Index, NodeId, ReadId, Refusal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::pending::{Pending, Ticket};
use super::queues::{Gauges, QueueLengths, waiting};
use super::status::NodeStatus;
use crate::model::OperationId;
use crate::seeded::{self, Bug};
use crate::state::{Command, Outcome};

/// Proposals, reads and control requests wait here for the loop; a full queue refuses.
pub(crate) const REQUESTS_MAX: usize = 65_536;

/// How long a reader waits for the answer to one round before it asks anew under a new id: a round dies
/// with the leader that was asked, and nobody tells (Raft thesis §6.4).
const READ_ROUND: std::time::Duration = std::time::Duration::from_millis(400);

/// Why a write was not done, or that it is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// No leader was found before the deadline. Nothing was written; retrying is safe.
    #[error("no leader is known: nothing was written, try again")]
    NoLeader,
    /// Too much waits already. Nothing was written; retrying later is safe.
    #[error("the cluster is overloaded: nothing was written, try again later")]
    Overloaded,
    /// Disk space is low. Nothing was written.
    #[error("disk space is low: nothing was written; free space on the data volume")]
    LowOnSpace,
    /// The command is larger than an entry may be. Nothing was written.
    #[error("the write is larger than the limit")]
    TooLarge,
    /// The node is stopping. Nothing was written; another node will serve.
    #[error("the node is stopping: nothing was written, try another node")]
    Stopping,
    /// The log failed (disk). Nothing was written by this attempt.
    #[error("the log of this node has failed ({0}): it takes no writes")]
    Failed(String),
    /// The write may or may not have happened.
    #[error("the outcome is unknown: the write may have happened")]
    Unknown,
}

/// Why a linearizable read was not possible. Reading again is always safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No leader with a quorum answered before the deadline.
    #[error("no leader with a quorum answered in time")]
    NoLeader,
    /// Too many readers wait.
    #[error("too many readers wait")]
    Overloaded,
    /// The node is stopping or has failed.
    #[error("the node is stopping")]
    Stopping,
}

/// What the loop is asked for.
#[derive(Debug)]
pub(crate) enum Request {
    Propose(Ticket),
    Read {
        id: ReadId,
        answer: oneshot::Sender<Result<Index, Refusal>>,
    },
    Change {
        change: Change,
        answer: oneshot::Sender<Result<EntryId, Refusal>>,
    },
    Transfer {
        to: Option<NodeId>,
        answer: oneshot::Sender<Refusal>,
    },
}

/// A handle of the node loop; cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) requests: mpsc::Sender<Request>,
    pub(crate) pending: Arc<Pending>,
    /// The newest reader's id; see [`super::pending::first_id`].
    pub(crate) reads: AtomicU64,
    /// The session of this boot; operation ids are made from it.
    pub(crate) session: OperationId,
    pub(crate) status: watch::Receiver<Arc<NodeStatus>>,
    /// Highest index applied to the local state.
    pub(crate) applied: watch::Receiver<Index>,
    /// True once the session of this boot is applied: nothing may be proposed before (operation ids).
    pub(crate) session_open: watch::Receiver<bool>,
    pub(crate) gauges: Gauges,
}

impl Handle {
    /// Has the command applied by the cluster and says what came of it. When this returns `Ok`, the local
    /// state has it: a read on this node sees it.
    ///
    /// # Errors
    /// All are definite but [`ProposeError::Unknown`].
    ///
    /// # Cancel safety
    /// A dropped future leaves a write that may or may not happen.
    pub async fn propose(&self, command: Command, deadline: Instant) -> Result<Outcome, ProposeError> {
        self.wait_for_session(deadline).await?;
        let essential = command.frees_space();
        let session = self.shared.session;
        let (ticket, outcome) = self.shared.pending.register(essential, |counter, watermark| {
            command.encode(OperationId { counter, ..session }, watermark)
        })?;
        let cancelled = Abandon {
            pending: &self.shared.pending,
            ticket: Some(ticket),
        };
        match self.shared.requests.try_send(Request::Propose(ticket)) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Err(ProposeError::Overloaded),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(ProposeError::Stopping),
        }
        let Ok(answer) = tokio::time::timeout_at(deadline, outcome).await else {
            return Err(cancelled.give_up());
        };
        cancelled.disarm();
        answer.unwrap_or(Err(ProposeError::Unknown))
    }

    /// Returns once the local state holds everything that was acknowledged anywhere before this call
    /// (ReadIndex, Raft thesis §6.4).
    ///
    /// # Errors
    /// See [`ReadError`]; reading again is always safe.
    pub async fn read_index(&self, deadline: Instant) -> Result<(), ReadError> {
        if seeded::has(Bug::StaleRead) {
            return Ok(());
        }
        loop {
            let round_ends = deadline.min(crate::clock::now() + READ_ROUND);
            match tokio::time::timeout_at(round_ends, self.read_round()).await {
                Ok(Ok(index)) => {
                    return self
                        .wait_applied(index, deadline)
                        .await
                        .map_err(|_late| ReadError::NoLeader);
                }
                Ok(Err(ReadRound::Failed(error))) => return Err(error),
                Ok(Err(ReadRound::Again)) => {
                    // No leader now: wait for the next change of role rather than spin.
                    let mut status = self.shared.status.clone();
                    status.mark_unchanged();
                    drop(tokio::time::timeout_at(round_ends, status.changed()).await);
                }
                Err(_round_over) => {}
            }
            if crate::clock::now() >= deadline {
                return Err(ReadError::NoLeader);
            }
        }
    }

    /// Returns once everything up to `index` is applied here.
    ///
    /// # Errors
    /// The deadline passed first, or the node stops.
    pub async fn wait_applied(&self, index: Index, deadline: Instant) -> Result<(), ReadError> {
        let mut applied = self.shared.applied.clone();
        match tokio::time::timeout_at(deadline, applied.wait_for(|at| *at >= index)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_closed)) => Err(ReadError::Stopping),
            Err(_late) => Err(ReadError::NoLeader),
        }
    }

    /// Asks the core for a membership change; `Ok` names the entry that makes it, which is in force on
    /// this leader and not yet committed.
    ///
    /// # Errors
    /// The core's refusal; `NoLeader` when the node stops.
    pub async fn change(&self, change: Change) -> Result<EntryId, Refusal> {
        let (answer, outcome) = oneshot::channel();
        if self
            .shared
            .requests
            .send(Request::Change { change, answer })
            .await
            .is_err()
        {
            return Err(Refusal::NoLeader);
        }
        outcome.await.unwrap_or(Err(Refusal::NoLeader))
    }

    /// Hands leadership to `to`, or to the best member; returns when this node leads no longer.
    ///
    /// # Errors
    /// The core's refusal; `NotLeader` or `NoLeader` when there is nothing to hand over here;
    /// `Transferring` when the deadline passed and this node still leads.
    pub async fn transfer(&self, to: Option<NodeId>, deadline: Instant) -> Result<(), Refusal> {
        let mut status = self.shared.status.clone();
        let now = self.status();
        if !now.leads() {
            return Err(now.leader().map_or(Refusal::NoLeader, Refusal::NotLeader));
        }
        let (answer, refusal) = oneshot::channel();
        if self
            .shared
            .requests
            .send(Request::Transfer { to, answer })
            .await
            .is_err()
        {
            return Err(Refusal::NoLeader);
        }
        let handed_over = status.wait_for(|status| !status.leads());
        tokio::select! {
            biased;
            Ok(refusal) = refusal => Err(refusal),
            _ = handed_over => Ok(()),
            () = tokio::time::sleep_until(deadline) => Err(Refusal::Transferring),
        }
    }

    /// Where the node stands.
    pub fn status(&self) -> Arc<NodeStatus> {
        self.shared.status.borrow().clone()
    }

    /// Tells of every change of [`Handle::status`].
    pub fn status_changes(&self) -> watch::Receiver<Arc<NodeStatus>> {
        self.shared.status.clone()
    }

    /// Highest index applied to the local state.
    pub fn applied(&self) -> Index {
        *self.shared.applied.borrow()
    }

    /// Operations and bytes that wait for their apply.
    pub fn load(&self) -> (usize, usize) {
        self.shared.pending.load()
    }

    /// What waits in the queues of the node.
    pub fn queues(&self) -> QueueLengths {
        QueueLengths {
            requests: waiting(&self.shared.requests),
            ..self.shared.gauges.read()
        }
    }

    async fn wait_for_session(&self, deadline: Instant) -> Result<(), ProposeError> {
        if *self.shared.session_open.borrow() {
            return Ok(());
        }
        let mut open = self.shared.session_open.clone();
        match tokio::time::timeout_at(deadline, open.wait_for(|open| *open)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_closed)) => Err(self.closed_reason()),
            Err(_late) => Err(self.closed_reason()),
        }
    }

    fn closed_reason(&self) -> ProposeError {
        match &self.status().failure {
            Some(reason) => ProposeError::Failed(reason.clone()),
            None => ProposeError::NoLeader,
        }
    }

    async fn read_round(&self) -> Result<Index, ReadRound> {
        let id = ReadId(self.shared.reads.fetch_add(1, Ordering::Relaxed) + 1);
        let (answer, index) = oneshot::channel();
        match self.shared.requests.try_send(Request::Read { id, answer }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Err(ReadRound::Failed(ReadError::Overloaded)),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(ReadRound::Failed(ReadError::Stopping)),
        }
        match index.await {
            Ok(Ok(index)) => Ok(index),
            Ok(Err(Refusal::Overloaded)) => Err(ReadRound::Failed(ReadError::Overloaded)),
            Ok(Err(_passing)) => Err(ReadRound::Again),
            Err(_loop_gone) => Err(ReadRound::Failed(ReadError::Stopping)),
        }
    }
}

enum ReadRound {
    Again,
    Failed(ReadError),
}

/// Takes an operation out of the pending ones when its writer goes away.
struct Abandon<'a> {
    pending: &'a Pending,
    ticket: Option<Ticket>,
}

impl Abandon<'_> {
    fn give_up(mut self) -> ProposeError {
        match self.ticket.take() {
            Some(ticket) if self.pending.abandon(ticket) => ProposeError::NoLeader,
            _ => ProposeError::Unknown,
        }
    }

    fn disarm(mut self) {
        self.ticket = None;
    }
}

impl Drop for Abandon<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.pending.abandon(ticket);
        }
    }
}
