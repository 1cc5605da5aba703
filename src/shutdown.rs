//! Stopping in order: one token that tells, one tracker that waits.
//!
//! Every task of the server is started by [`Shutdown::spawn`] and looks at the token, so that nothing is
//! left behind when the process ends, and tests that start ten servers leak none.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;

/// The server's stop signal and the list of its tasks. Clones are the same signal.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    token: CancellationToken,
    tasks: TaskTracker,
}

impl Shutdown {
    /// A signal that has not been given.
    pub fn new() -> Shutdown {
        Shutdown::default()
    }

    /// Starts a task that [`Shutdown::drained`] waits for.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        tokio::spawn(self.tasks.track_future(task))
    }

    /// Starts a task that is dropped, wherever it waits, when the signal is given: for loops that leave
    /// nothing half done at their `await`s.
    pub fn spawn_while_running(&self, task: impl Future<Output = ()> + Send + 'static) {
        let token = self.token.clone();
        drop(self.spawn(async move {
            let _stopped = token.run_until_cancelled_owned(task).await;
        }));
    }

    /// Tells every task to finish. Doing it twice changes nothing.
    pub fn begin(&self) {
        self.token.cancel();
        self.tasks.close();
    }

    /// True once [`Shutdown::begin`] was called.
    pub fn has_begun(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Completes when the signal is given.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub fn begun(&self) -> WaitForCancellationFutureOwned {
        self.token.clone().cancelled_owned()
    }

    /// A stop signal of a part: told by this one, but may also be given alone. Its tasks are its own.
    pub fn part(&self) -> Shutdown {
        Shutdown {
            token: self.token.child_token(),
            tasks: TaskTracker::new(),
        }
    }

    /// Waits until every task is done, at most `within`. False: some were still running, they end with
    /// the process.
    pub async fn drained(&self, within: Duration) -> bool {
        self.tasks.close();
        tokio::time::timeout(within, self.tasks.wait()).await.is_ok()
    }

    /// Tasks that still run.
    pub fn running(&self) -> usize {
        self.tasks.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn drained_waits_for_tasks_and_gives_up_at_the_deadline() {
        let shutdown = Shutdown::new();
        let polite = shutdown.clone();
        drop(shutdown.spawn(async move { polite.begun().await }));
        assert_eq!(shutdown.running(), 1);
        shutdown.begin();
        assert!(shutdown.drained(Duration::from_secs(1)).await);

        let stubborn = Shutdown::new();
        drop(stubborn.spawn(std::future::pending::<()>()));
        stubborn.begin();
        assert!(!stubborn.drained(Duration::from_secs(1)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_is_dropped_when_the_signal_is_given() {
        let shutdown = Shutdown::new();
        shutdown.spawn_while_running(std::future::pending());
        shutdown.begin();
        assert!(shutdown.drained(Duration::from_secs(1)).await);
    }

    #[tokio::test]
    async fn a_part_stops_with_the_whole_but_not_the_reverse() {
        let whole = Shutdown::new();
        let part = whole.part();
        part.begin();
        assert!(!whole.has_begun());
        let other = whole.part();
        whole.begin();
        assert!(other.has_begun());
    }
}
