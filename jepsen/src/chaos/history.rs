//! What the clients did and what was done to the servers, in one order.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use tokio::time::Instant;

/// The value of a register that holds nothing. Written values begin at 1 and are unique in a run.
pub const ABSENT: u32 = 0;

/// What a client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Linearizable read.
    Read,
    /// Publish.
    Write(u32),
    /// Remove.
    Delete,
    /// Publish if the register holds `expected`.
    Cas {
        /// Value whose md5 is sent along.
        expected: u32,
        /// Value to publish.
        new: u32,
    },
}

/// What it was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// A read's value.
    Value(u32),
    /// A write, delete or CAS was carried out.
    Applied,
    /// A CAS found another value.
    Mismatch,
    /// May have been carried out, at any time after it was asked.
    Unknown,
    /// Certainly not carried out.
    Refused,
}

/// A moment: its place in the order of all moments, and its distance from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Moment {
    /// Place in the order; unique. Two moments of one process are ordered as they happened.
    pub order: u64,
    /// µs since the start of the run.
    pub micros: u64,
}

/// One operation on one register.
#[derive(Debug, Clone, Serialize)]
pub struct Operation {
    /// Number of the client.
    pub client: usize,
    /// Place of the node asked.
    pub node: usize,
    /// Number of the register.
    pub key: u32,
    /// What was asked.
    pub action: Action,
    /// When it was asked: it cannot have taken effect before.
    pub invoked: Moment,
    /// When it was answered (or given up): unless unknown, it cannot have taken effect later.
    pub returned: Moment,
    /// What was answered.
    pub answer: Answer,
}

/// What a fault takes away for a while. Nodes by place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Broken {
    /// The node does not run, or was asked to end.
    Dead(usize),
    /// The node is stopped.
    Paused(usize),
    /// What the first sends to the second is lost.
    Cut(usize, usize),
}

/// A fault, from when to when.
#[derive(Debug, Clone, Serialize)]
pub struct FaultSpan {
    /// Its name, with whom it met.
    pub name: String,
    /// What was broken.
    pub broken: Vec<Broken>,
    /// µs since the start.
    pub from: u64,
    /// µs since the start.
    pub to: u64,
}

/// Everything that happened in a run.
#[derive(Debug)]
pub struct History {
    start: Instant,
    order: AtomicU64,
    operations: Mutex<Vec<Operation>>,
    faults: Mutex<Vec<FaultSpan>>,
    counts: Counts,
}

/// What is asked for while the run goes on.
#[derive(Debug, Default)]
struct Counts {
    successes: AtomicUsize,
    compared: AtomicUsize,
    refused_for_space: AtomicUsize,
}

impl History {
    /// An empty history that begins now.
    #[must_use]
    pub fn begin() -> Self {
        Self {
            start: Instant::now(),
            order: AtomicU64::new(0),
            operations: Mutex::default(),
            faults: Mutex::default(),
            counts: Counts::default(),
        }
    }

    /// When it began: its µs are counted from then.
    #[must_use]
    pub fn begun(&self) -> Instant {
        self.start
    }

    /// The present moment.
    ///
    /// IMPORTANT: take it *before* a request is sent and *after* its answer was read; then "A returned
    /// before B was invoked" in this order implies the same in real time, which is all a checker may use.
    pub fn now(&self) -> Moment {
        let order = self.order.fetch_add(1, Ordering::SeqCst);
        Moment {
            order,
            micros: self.micros(),
        }
    }

    /// µs since the start.
    #[must_use]
    pub fn micros(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Notes an operation.
    pub fn note(&self, operation: Operation) {
        let is_applied = operation.answer == Answer::Applied;
        if is_applied || matches!(operation.answer, Answer::Value(_)) {
            self.counts.successes.fetch_add(1, Ordering::Relaxed);
        }
        if is_applied && matches!(operation.action, Action::Cas { .. }) {
            self.counts.compared.fetch_add(1, Ordering::Relaxed);
        }
        self.operations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(operation);
    }

    /// Reads answered and writes carried out.
    #[must_use]
    pub fn successes(&self) -> usize {
        self.counts.successes.load(Ordering::Relaxed)
    }

    /// Of these, compare-and-sets.
    #[must_use]
    pub fn compared(&self) -> usize {
        self.counts.compared.load(Ordering::Relaxed)
    }

    /// Writes refused because the disk was nearly full.
    #[must_use]
    pub fn refused_for_space(&self) -> usize {
        self.counts.refused_for_space.load(Ordering::Relaxed)
    }

    /// Notes such a refusal.
    pub fn note_refused_for_space(&self) {
        self.counts.refused_for_space.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes a fault that ends now.
    pub fn note_fault(&self, name: String, broken: Vec<Broken>, from: u64) {
        let span = FaultSpan {
            name,
            broken,
            from,
            to: self.micros(),
        };
        self.faults
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(span);
    }

    /// All operations noted so far, by the order of their invocation.
    #[must_use]
    pub fn operations(&self) -> Vec<Operation> {
        let mut operations = self
            .operations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        operations.sort_unstable_by_key(|operation| operation.invoked);
        operations
    }

    /// All faults noted so far.
    #[must_use]
    pub fn faults(&self) -> Vec<FaultSpan> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
