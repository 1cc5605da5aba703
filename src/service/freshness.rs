//! Being sure that the local state is no older than what a client has seen elsewhere.
//!
//! MD5s have no order: when a client has another one than this node, either may be the newer. A ReadIndex
//! (Raft thesis §6.4) begun after the client asked decides it: once it is applied here, this node has
//! everything that any node had shown to anybody before the client asked. Many clients ask at once (a
//! change wakes thousands), so one round serves all who asked before it began.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::consensus::ReadError;

/// Shared ReadIndex rounds, one at a time.
#[derive(Debug, Default)]
pub(crate) struct Freshness {
    /// Rounds begun.
    begun: AtomicU64,
    /// The newest round whose index is applied here.
    done: AtomicU64,
    /// Held by whoever runs the round that all others wait for.
    turn: Mutex<()>,
}

/// A moment: what was visible anywhere before it is visible here once [`Freshness::since`] says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// The first round that is certain to begin after it.
    round: u64,
}

impl Freshness {
    /// This moment. To be taken before anything else is done for a client.
    pub(crate) fn now(&self) -> Moment {
        Moment {
            round: self.begun.load(SeqCst) + 1,
        }
    }

    /// Returns once a round begun after `moment` is applied here. `round` is a ReadIndex; whoever comes
    /// first runs it, for everybody who waits.
    ///
    /// # Errors
    /// The error of the round this caller ran itself; `NoLeader` when the deadline passed.
    ///
    /// # Cancel safety
    /// A dropped runner's round counts as not done, and the next one begins anew.
    pub(crate) async fn since(
        &self,
        moment: Moment,
        deadline: Instant,
        round: impl Future<Output = Result<(), ReadError>>,
    ) -> Result<(), ReadError> {
        if self.done.load(SeqCst) >= moment.round {
            return Ok(());
        }
        let turn = tokio::time::timeout_at(deadline, self.turn.lock()).await;
        let Ok(_turn) = turn else {
            return Err(ReadError::NoLeader);
        };
        if self.done.load(SeqCst) >= moment.round {
            return Ok(());
        }
        let number = self.begun.fetch_add(1, SeqCst) + 1;
        assert!(number >= moment.round, "a moment of the future");
        round.await?;
        let before = self.done.swap(number, SeqCst);
        assert!(before < number, "rounds are done in order");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::{pending, ready};
    use std::time::Duration;

    use super::*;
    use crate::clock;

    fn soon() -> Instant {
        clock::now() + Duration::from_secs(1)
    }

    #[tokio::test(start_paused = true)]
    async fn one_round_serves_all_who_asked_before_it_began_and_nobody_who_asked_later() {
        let (freshness, rounds) = (Freshness::default(), Cell::new(0));
        let round = || async {
            rounds.set(rounds.get() + 1);
            tokio::task::yield_now().await;
            Ok(())
        };
        let early = freshness.now();
        let all = (0..3).map(|_| freshness.since(early, soon(), round()));
        let [a, b, c]: [_; 3] = all.collect::<Vec<_>>().try_into().ok().unwrap();
        let late = async {
            // The round of the three has begun by now: it says nothing about what this one has seen.
            freshness.since(freshness.now(), soon(), round()).await
        };
        let (a, b, c, d) = tokio::join!(a, b, c, late);
        assert_eq!((a, b, c, d), (Ok(()), Ok(()), Ok(()), Ok(())));
        assert_eq!(rounds.get(), 2);
        assert_eq!(
            freshness.since(early, soon(), pending()).await,
            Ok(()),
            "known already"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_or_dropped_round_proves_nothing() {
        let freshness = Freshness::default();
        let moment = freshness.now();
        let failed = freshness.since(moment, soon(), ready(Err(ReadError::Overloaded)));
        assert_eq!(failed.await, Err(ReadError::Overloaded));
        let dropped = freshness.since(moment, soon(), pending());
        assert!(
            tokio::time::timeout(Duration::from_millis(1), dropped)
                .await
                .is_err()
        );
        let ran = Cell::new(false);
        let again = freshness.since(moment, soon(), async {
            ran.set(true);
            Ok(())
        });
        assert_eq!(again.await, Ok(()));
        assert!(ran.get());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_anothers_round_gives_up_at_his_own_deadline() {
        let freshness = Freshness::default();
        let moment = freshness.now();
        let stuck = freshness.since(moment, soon(), pending());
        let waits = freshness.since(moment, soon(), ready(Ok(())));
        tokio::select! {
            biased;
            _ = stuck => panic!("never ends"),
            late = waits => assert_eq!(late, Err(ReadError::NoLeader)),
        }
    }
}
