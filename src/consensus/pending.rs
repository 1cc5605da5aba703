//! Writers that wait for their command to be applied on this node.
//!
//! A writer is told what happened, or that it cannot be known: `Unknown` is an outcome of its own. What
//! makes the difference is whether any attempt may still be in some leader's log. An attempt counts as
//! open from the moment it is handed to the core until the leader refuses it.

use std::collections::BTreeMap;
use std::sync::Mutex;

use bytes::Bytes;
use raft::{ProposalId, Refusal, Term};
use tokio::sync::oneshot;

use super::handle::ProposeError;
use crate::state::Outcome;

/// Operations of one node that may be in flight at once. The state machine remembers the results of the
/// last 65,536 counters of a session, so the window must stay below that: an operation that is retried is
/// then always still known.
pub(crate) const OPERATIONS_MAX: usize = 16_384;

/// Bytes of commands that may wait for their apply; beyond it writers are refused `Overloaded`.
pub(crate) const PENDING_BYTES_MAX: usize = 128 << 20;

/// The operations in flight, by counter.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Next counter to be given out. Counters begin at 1.
    next: u64,
    /// In flight, by counter: the first key is the low watermark of the session.
    operations: BTreeMap<u64, Operation>,
    /// Their payloads.
    bytes: usize,
    /// No new operation is taken; holds why.
    closed: Option<ProposeError>,
}

#[derive(Debug)]
struct Operation {
    waiter: Option<oneshot::Sender<Result<Outcome, ProposeError>>>,
    payload: Bytes,
    essential: bool,
    attempt: Attempt,
    /// Attempts that no leader has refused: while there is one, the command may be in a log.
    open_attempts: u32,
}

/// Where the newest attempt stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    /// Handed to nobody, or refused by everyone it was handed to.
    None,
    /// Handed to the core in this term at this tick; nothing heard yet.
    Sent { term: Term, tick: u64 },
    /// A leader of this term has appended it. It is applied in that term or needs another attempt.
    Appended { term: Term },
}

/// An operation that is to be handed to the core (again).
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) id: ProposalId,
    pub(crate) payload: Bytes,
    pub(crate) essential: bool,
}

/// Ticks after which a forwarded attempt without any answer is taken for lost and sent again (500 ms).
const FORWARD_LOST_TICKS: u64 = 25;

impl Pending {
    /// Takes an operation: `encode` gets its counter and the low watermark of the session.
    pub(crate) fn register(
        &self,
        essential: bool,
        encode: impl FnOnce(u64, u64) -> Bytes,
    ) -> Result<(ProposalId, oneshot::Receiver<Result<Outcome, ProposeError>>), ProposeError> {
        let mut inner = self.lock();
        if let Some(reason) = &inner.closed {
            return Err(reason.clone());
        }
        if inner.operations.len() >= OPERATIONS_MAX || inner.bytes >= PENDING_BYTES_MAX {
            return Err(ProposeError::Overloaded);
        }
        inner.next += 1;
        let counter = inner.next;
        let watermark = inner.operations.keys().next().copied().unwrap_or(counter);
        let payload = encode(counter, watermark);
        let (waiter, outcome) = oneshot::channel();
        inner.bytes += payload.len();
        inner.operations.insert(
            counter,
            Operation {
                waiter: Some(waiter),
                payload,
                essential,
                attempt: Attempt::None,
                open_attempts: 0,
            },
        );
        Ok((ProposalId(counter), outcome))
    }

    /// What an operation carries, for its first attempt; `None` when its writer has given up meanwhile.
    pub(crate) fn start(&self, id: ProposalId, term: Term, tick: u64) -> Option<Ready> {
        let mut inner = self.lock();
        let operation = inner.operations.get_mut(&id.0)?;
        if operation.attempt != Attempt::None {
            return None;
        }
        Some(operation.hand_over(id, term, tick))
    }

    /// Everything that needs another attempt now that `leader_known`.
    pub(crate) fn retry(&self, term: Term, tick: u64, self_leads: bool) -> Vec<Ready> {
        let mut inner = self.lock();
        let mut ready = Vec::new();
        for (counter, operation) in &mut inner.operations {
            let again = match operation.attempt {
                Attempt::None => true,
                Attempt::Appended { term: appended } => appended < term,
                Attempt::Sent { term: sent, tick: at } => {
                    sent < term || (!self_leads && tick >= at + FORWARD_LOST_TICKS)
                }
            };
            if again {
                ready.push(operation.hand_over(ProposalId(*counter), term, tick));
            }
        }
        ready
    }

    /// A leader has appended it.
    pub(crate) fn appended(&self, id: ProposalId, term: Term) {
        if let Some(operation) = self.lock().operations.get_mut(&id.0) {
            operation.attempt = Attempt::Appended { term };
        }
    }

    /// A leader (or the core, for want of one) has refused an attempt. Refusals that pass by themselves
    /// leave the operation waiting for the next attempt; the others are told to the writer, as definite
    /// only when no earlier attempt can be in a log.
    pub(crate) fn refused(&self, id: ProposalId, refusal: Refusal) {
        let mut inner = self.lock();
        let Some(operation) = inner.operations.get_mut(&id.0) else {
            return;
        };
        operation.open_attempts = operation.open_attempts.saturating_sub(1);
        if matches!(operation.attempt, Attempt::Appended { .. }) {
            return;
        }
        operation.attempt = Attempt::None;
        let error = match refusal {
            Refusal::Overloaded => ProposeError::Overloaded,
            Refusal::LowOnSpace => ProposeError::LowOnSpace,
            Refusal::TooLarge => ProposeError::TooLarge,
            _ => return,
        };
        let definite = operation.open_attempts == 0;
        inner.finish(id.0, Err(if definite { error } else { ProposeError::Unknown }));
    }

    /// The operation is applied.
    pub(crate) fn complete(&self, counter: u64, outcome: Outcome) {
        self.lock().finish(counter, Ok(outcome));
    }

    /// Its writer waits no longer. True when no attempt can be in any log.
    ///
    /// The low watermark of the session may pass the operation from now on; an attempt that is applied
    /// later than a command that carries that watermark changes nothing, which the writer, who was told
    /// "unknown", cannot tell from one that was lost.
    pub(crate) fn abandon(&self, id: ProposalId) -> bool {
        let mut inner = self.lock();
        let Some(operation) = inner.operations.get(&id.0) else {
            return false;
        };
        let definite = operation.open_attempts == 0;
        inner.remove(id.0);
        definite
    }

    /// Answers every waiter and takes no more.
    pub(crate) fn close(&self, reason: &ProposeError) {
        let mut inner = self.lock();
        inner.closed = Some(reason.clone());
        let counters: Vec<u64> = inner.operations.keys().copied().collect();
        for counter in counters {
            let definite = inner
                .operations
                .get(&counter)
                .is_some_and(|operation| operation.open_attempts == 0);
            let answer = if definite {
                reason.clone()
            } else {
                ProposeError::Unknown
            };
            inner.finish(counter, Err(answer));
        }
    }

    /// Operations and bytes in flight.
    pub(crate) fn load(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.operations.len(), inner.bytes)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        // A panic while the lock is held is a bug that has already been reported; the map itself is
        // never left half-changed.
        self.inner
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Inner {
    fn finish(&mut self, counter: u64, result: Result<Outcome, ProposeError>) {
        if let Some(mut operation) = self.remove(counter)
            && let Some(waiter) = operation.waiter.take()
        {
            // The writer may have gone; then nobody is left to tell.
            drop(waiter.send(result));
        }
    }

    fn remove(&mut self, counter: u64) -> Option<Operation> {
        let operation = self.operations.remove(&counter)?;
        self.bytes -= operation.payload.len();
        Some(operation)
    }
}

impl Operation {
    fn hand_over(&mut self, id: ProposalId, term: Term, tick: u64) -> Ready {
        self.attempt = Attempt::Sent { term, tick };
        self.open_attempts += 1;
        Ready {
            id,
            payload: self.payload.clone(),
            essential: self.essential,
        }
    }
}
