//! Applying again what a crash took from the state, before HTTP is answered.
//!
//! Rows of the state are stored many at once, so a process that is killed leaves a state that is up to some
//! MiB behind its log. What it had acknowledged must be read from it as soon as it answers again: it waits
//! until the log is applied as far as its leader says, itself when it is the only member. (gRPC clients
//! wait for that after every start: `grpc::readiness`.)

use std::time::Duration;

use raft::{Boot, Index, Recovered};

use crate::clock;
use crate::consensus::Handle;

/// Without a majority a node answers after this long, with what it knew to be committed. An election takes a
/// second.
const ALONE_AFTER: Duration = Duration::from_secs(3);

/// What was known to be committed is applied within this: it is on the own disk, and little.
const COMMITTED_WITHIN: Duration = Duration::from_secs(30);

/// What is to be applied again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Replay {
    applied: Index,
    committed: Index,
    last: Index,
}

impl Replay {
    /// A first start has acknowledged nothing before.
    pub(super) fn of(boot: Boot, recovered: &Recovered) -> Replay {
        if boot == Boot(1) {
            return Replay::default();
        }
        Replay {
            applied: recovered.applied,
            committed: recovered.hard_state.commit,
            last: recovered.last.index,
        }
    }

    /// Waits until it is applied, or cannot be for want of a leader. At once after a planned end.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub(super) async fn done(self, handle: &Handle) {
        if self.applied >= self.last {
            return;
        }
        let began = clock::now();
        // Both outcomes are right: a node that stops meanwhile answers nobody.
        let _ = handle
            .wait_applied(self.committed, began + COMMITTED_WITHIN)
            .await;
        match handle.read_index(clock::now() + ALONE_AFTER).await {
            Ok(()) => tracing::info!(
                entries = self.last.0 - self.applied.0,
                ms = began.elapsed().as_millis() as u64,
                "applied again what was not stored before the crash"
            ),
            Err(_) => tracing::warn!(
                applied = handle.applied().0,
                last = self.last.0,
                "no leader found: HTTP is answered with what this node knows to be committed"
            ),
        }
    }
}
