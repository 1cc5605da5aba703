//! Writers that wait for their command to be applied on this node.
//!
//! A writer is told what happened, or that it cannot be known: `Unknown` is an outcome of its own. What
//! makes the difference is whether any attempt may still be in some leader's log. An attempt counts as
//! open from the moment it is handed to the core until the leader refuses it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use bytes::Bytes;
use raft::{Boot, Identity, Incarnation, ProposalId, Refusal, Term};
use tokio::sync::oneshot;

use super::handle::ProposeError;
use crate::seeded::{self, Bug};
use crate::state::Outcome;

/// Operations of one node that may be in flight at once. The state machine remembers the results of the
/// last 65,536 counters of a session, so the window must stay below that: an operation that is retried is
/// then always still known.
pub(crate) const OPERATIONS_MAX: usize = 16_384;

/// Bytes of commands that may wait for their apply; beyond it writers are refused `Overloaded`.
pub(crate) const PENDING_BYTES_MAX: usize = 128 << 20;

/// The operations in flight, by counter.
#[derive(Debug)]
pub(crate) struct Pending {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Next counter to be given out. Counters begin at 1.
    next: u64,
    /// In flight, by counter: the first key is the low watermark of the session.
    operations: BTreeMap<u64, Operation>,
    /// Their payloads.
    bytes: usize,
    /// Id of the newest attempt. Attempts begin at [`first_id`]: a refusal that was meant for an earlier life
    /// of this node must not be taken for one of ours, for it would turn "unknown" into "not written".
    last_attempt: u64,
    /// Attempts that nobody has refused, and whose they are.
    open_attempts: HashMap<ProposalId, u64>,
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
    open_attempts: Vec<ProposalId>,
}

/// Where the newest attempt stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    /// Handed to nobody, or refused by the one it was handed to.
    None,
    /// Handed to the core in this term at this tick; nothing heard yet.
    Sent { term: Term, tick: u64 },
    /// This node, as the leader of this term, has appended it. It is applied in that term or needs
    /// another attempt.
    Appended { term: Term },
}

/// An operation that is to be handed to the core (again).
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) id: ProposalId,
    pub(crate) payload: Bytes,
    pub(crate) essential: bool,
}

/// A writer's place: its operation, by counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

/// Ticks after which a forwarded attempt that is not applied is taken for lost and sent again (1 s); twice
/// as many after each further one, so that a slow cluster is not given ever more to do.
const FORWARD_LOST_TICKS: u64 = 50;

/// Ids of attempts and readers stay below the ids of control requests (bit 63): 19 bits of the boot, 44 of
/// a number.
const NUMBER_BITS: u32 = 44;
const BOOT_BITS: u32 = 19;

/// Where a life of a node begins to number its attempts and its readers, so that answers meant for another
/// life fit nothing: boots of one incarnation differ in the upper bits; another incarnation, whose boots are
/// numbered from 1 again, starts somewhere else below them.
pub(crate) fn first_id(incarnation: Incarnation, boot: Boot) -> u64 {
    let boot = boot.0 & ((1 << BOOT_BITS) - 1);
    // The upper bits of a product with an odd number depend on all bits; half of the numbers remain.
    let start = incarnation.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - NUMBER_BITS + 1);
    boot << NUMBER_BITS | start
}

impl Pending {
    pub(crate) fn new(identity: &Identity) -> Pending {
        Pending {
            inner: Mutex::new(Inner {
                next: 0,
                operations: BTreeMap::new(),
                bytes: 0,
                last_attempt: first_id(identity.incarnation, identity.boot),
                open_attempts: HashMap::new(),
                closed: None,
            }),
        }
    }

    /// Takes an operation: `encode` gets its counter and the low watermark of the session.
    pub(crate) fn register(
        &self,
        essential: bool,
        encode: impl FnOnce(u64, u64) -> Bytes,
    ) -> Result<(Ticket, oneshot::Receiver<Result<Outcome, ProposeError>>), ProposeError> {
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
        let operation = Operation {
            waiter: Some(waiter),
            payload,
            essential,
            attempt: Attempt::None,
            open_attempts: Vec::new(),
        };
        inner.operations.insert(counter, operation);
        Ok((Ticket(counter), outcome))
    }

    /// The first attempt of an operation; `None` when its writer has given up meanwhile.
    pub(crate) fn start(&self, ticket: Ticket, term: Term, tick: u64) -> Option<Ready> {
        let mut inner = self.lock();
        let operation = inner.operations.get(&ticket.0)?;
        if operation.attempt != Attempt::None {
            return None;
        }
        inner.hand_over(ticket.0, term, tick)
    }

    /// Everything that needs another attempt, now that a leader is known.
    pub(crate) fn retry(&self, term: Term, tick: u64, self_leads: bool) -> Vec<Ready> {
        let mut inner = self.lock();
        let again: Vec<u64> = inner
            .operations
            .iter()
            .filter(|(_, operation)| operation.is_due(term, tick, self_leads))
            .map(|(counter, _)| *counter)
            .collect();
        again
            .into_iter()
            .filter_map(|counter| inner.hand_over(counter, term, tick))
            .collect()
    }

    /// This node, as the leader of `term`, has appended it.
    pub(crate) fn appended(&self, id: ProposalId, term: Term) {
        let mut inner = self.lock();
        let counter = inner.open_attempts.get(&id).copied();
        if let Some(operation) = counter.and_then(|counter| inner.operations.get_mut(&counter)) {
            operation.attempt = Attempt::Appended { term };
        }
        if seeded::has(Bug::LostAck)
            && let Some(counter) = counter
            && let Some(Operation { essential: false, .. }) = inner.operations.get(&counter)
        {
            inner.finish(counter, Ok(Outcome::ConfigUpdated(Default::default())));
        }
    }

    /// A leader (or the core, for want of one) has refused an attempt. Refusals that pass by themselves
    /// leave the operation waiting for the next attempt; the others are told to the writer, as definite
    /// only when no other attempt can be in a log.
    pub(crate) fn refused(&self, id: ProposalId, refusal: Refusal) {
        let mut inner = self.lock();
        let Some(counter) = inner.open_attempts.remove(&id) else {
            return;
        };
        let Some(operation) = inner.operations.get_mut(&counter) else {
            return;
        };
        let newest = operation.open_attempts.last() == Some(&id);
        operation.open_attempts.retain(|open| *open != id);
        if !newest {
            // What became of an older attempt says nothing about the one that is under way.
            return;
        }
        operation.attempt = Attempt::None;
        let error = match refusal {
            Refusal::Overloaded => ProposeError::Overloaded,
            Refusal::LowOnSpace => ProposeError::LowOnSpace,
            Refusal::TooLarge => ProposeError::TooLarge,
            _ => return,
        };
        let definite = operation.open_attempts.is_empty();
        inner.finish(counter, Err(if definite { error } else { ProposeError::Unknown }));
    }

    /// The operations are applied.
    pub(crate) fn complete(&self, outcomes: Vec<(u64, Outcome)>) {
        if outcomes.is_empty() {
            return;
        }
        let mut inner = self.lock();
        for (counter, outcome) in outcomes {
            inner.finish(counter, Ok(outcome));
        }
    }

    /// Its writer waits no longer. True when no attempt can be in any log.
    ///
    /// The low watermark of the session may pass the operation from now on; an attempt that is applied
    /// later than a command that carries that watermark changes nothing, which the writer, who was told
    /// "unknown", cannot tell from one that was lost.
    pub(crate) fn abandon(&self, ticket: Ticket) -> bool {
        match self.lock().remove(ticket.0) {
            Some(operation) => operation.open_attempts.is_empty(),
            None => false,
        }
    }

    /// Answers every waiter and takes no more.
    pub(crate) fn close(&self, reason: &ProposeError) {
        let mut inner = self.lock();
        inner.closed = Some(reason.clone());
        let counters: Vec<u64> = inner.operations.keys().copied().collect();
        for counter in counters {
            let operation = inner.operations.get(&counter);
            let definite = operation.is_some_and(|operation| operation.open_attempts.is_empty());
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
        for attempt in &operation.open_attempts {
            self.open_attempts.remove(attempt);
        }
        Some(operation)
    }

    fn hand_over(&mut self, counter: u64, term: Term, tick: u64) -> Option<Ready> {
        let operation = self.operations.get_mut(&counter)?;
        self.last_attempt += 1;
        let id = ProposalId(self.last_attempt);
        operation.attempt = Attempt::Sent { term, tick };
        operation.open_attempts.push(id);
        self.open_attempts.insert(id, counter);
        Some(Ready {
            id,
            payload: operation.payload.clone(),
            essential: operation.essential,
        })
    }
}

impl Operation {
    fn is_due(&self, term: Term, tick: u64, self_leads: bool) -> bool {
        match self.attempt {
            Attempt::None => true,
            Attempt::Appended { term: appended } => appended < term,
            Attempt::Sent { term: sent, tick: at } => {
                let doublings = u32::try_from(self.open_attempts.len().saturating_sub(1))
                    .unwrap_or(u32::MAX)
                    .min(6);
                let lost = at + (FORWARD_LOST_TICKS << doublings);
                sent < term || (!self_leads && tick >= lost)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERM: Term = Term(3);

    fn life(incarnation: u64, boot: u64) -> Identity {
        Identity {
            id: raft::NodeId(1),
            incarnation: Incarnation(incarnation),
            boot: Boot(boot),
        }
    }

    fn pending() -> (Pending, Ticket, oneshot::Receiver<Result<Outcome, ProposeError>>) {
        let pending = Pending::new(&life(1, 7));
        let (ticket, outcome) = pending.register(false, |_, _| Bytes::from_static(b"x")).unwrap();
        (pending, ticket, outcome)
    }

    #[test]
    fn a_refused_first_attempt_is_definite() {
        let (pending, ticket, mut outcome) = pending();
        let ready = pending.start(ticket, TERM, 0).unwrap();
        pending.refused(ready.id, Refusal::Overloaded);
        assert_eq!(outcome.try_recv().unwrap(), Err(ProposeError::Overloaded));
        assert_eq!(pending.load(), (0, 0));
    }

    #[test]
    fn a_refusal_after_a_lost_attempt_is_unknown() {
        let (pending, ticket, mut outcome) = pending();
        let _lost = pending.start(ticket, TERM, 0).unwrap();
        let again = pending.retry(TERM.next(), 1, false);
        pending.refused(again[0].id, Refusal::Overloaded);
        assert_eq!(outcome.try_recv().unwrap(), Err(ProposeError::Unknown));
    }

    #[test]
    fn a_passing_refusal_waits_for_the_next_leader() {
        let (pending, ticket, mut outcome) = pending();
        let first = pending.start(ticket, TERM, 0).unwrap();
        pending.refused(first.id, Refusal::NoLeader);
        assert!(outcome.try_recv().is_err());
        assert_eq!(pending.retry(TERM, 1, true).len(), 1);
        assert!(pending.retry(TERM, 2, true).is_empty(), "it is under way");
    }

    #[test]
    fn r48_a_refusal_of_another_life_is_not_ours() {
        let (pending, ticket, mut outcome) = pending();
        let ready = pending.start(ticket, TERM, 0).unwrap();
        // Another boot; a wiped folder whose boots are numbered from 1 again.
        for (incarnation, boot) in [(1, 6), (2, 7), (u64::MAX, 7)] {
            let other = Pending::new(&life(incarnation, boot));
            let (old_ticket, _old_outcome) = other.register(false, |_, _| Bytes::new()).unwrap();
            let old = other.start(old_ticket, TERM, 0).unwrap();
            assert_ne!(old.id, ready.id);
            assert!(old.id.0 < 1 << 63, "ids of control requests begin there");
            pending.refused(old.id, Refusal::Overloaded);
            assert!(outcome.try_recv().is_err());
        }
        assert!(!pending.abandon(ticket), "it may be in a log");
    }

    #[test]
    fn an_operation_nobody_was_given_is_given_up_definitely() {
        let (pending, ticket, _outcome) = pending();
        assert!(pending.abandon(ticket));
        assert_eq!(pending.load(), (0, 0));
    }

    #[test]
    fn a_forwarded_attempt_is_sent_again_ever_more_seldom() {
        let (pending, ticket, _outcome) = pending();
        let _first = pending.start(ticket, TERM, 0).unwrap();
        assert!(pending.retry(TERM, FORWARD_LOST_TICKS - 1, false).is_empty());
        assert_eq!(pending.retry(TERM, FORWARD_LOST_TICKS, false).len(), 1);
        assert!(pending.retry(TERM, 3 * FORWARD_LOST_TICKS - 1, false).is_empty());
        assert_eq!(pending.retry(TERM, 3 * FORWARD_LOST_TICKS, false).len(), 1);
    }

    #[test]
    fn the_watermark_is_the_oldest_operation_in_flight() {
        let (pending, ticket, _outcome) = pending();
        let mut seen = (0, 0);
        let (_second, _waiting) = pending
            .register(false, |counter, watermark| {
                seen = (counter, watermark);
                Bytes::new()
            })
            .unwrap();
        assert_eq!(seen, (2, 1));
        pending.complete(vec![(ticket.0, Outcome::SessionOpened)]);
        let (_third, _waiting) = pending
            .register(false, |counter, watermark| {
                seen = (counter, watermark);
                Bytes::new()
            })
            .unwrap();
        assert_eq!(seen, (3, 2));
    }

    #[test]
    fn closing_tells_every_writer_what_is_known() {
        let (pending, ticket, mut under_way) = pending();
        let _ready = pending.start(ticket, TERM, 0).unwrap();
        let (_second, mut waiting) = pending.register(false, |_, _| Bytes::new()).unwrap();
        pending.close(&ProposeError::Stopping);
        assert_eq!(under_way.try_recv().unwrap(), Err(ProposeError::Unknown));
        assert_eq!(waiting.try_recv().unwrap(), Err(ProposeError::Stopping));
        assert!(pending.register(false, |_, _| Bytes::new()).is_err());
    }
}
