//! Whether this node may serve clients.
//!
//! A node that starts may lack what was acknowledged while it was away, or, as a new member, everything. A
//! client that hears "not found" deletes its own copy of a config, so nobody is served before this node has
//! caught up with a leader once. A node that finds no leader serves after a while all the same, if it has
//! data of its own: service discovery goes on without a majority, and old configs are better than none. It
//! knows that it is not current ([`Readiness::is_current`]), and says "not found" for none of them.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::time::sleep;

use crate::clock;
use crate::service::Services;

/// A node with data of its own waits so long for a leader.
const ALONE_AFTER: Duration = Duration::from_secs(15);
/// Between two tries to catch up; each takes as long as it takes to find that there is no leader.
const RETRY: Duration = Duration::from_millis(50);

const LOADING: u8 = 0;
const ALONE: u8 = 1;
const CURRENT: u8 = 2;

/// Whether this node may serve clients.
#[derive(Debug, Default)]
pub(super) struct Readiness(AtomicU8);

impl Readiness {
    /// True until clients may be served.
    pub(super) fn is_loading(&self) -> bool {
        self.0.load(Ordering::Acquire) == LOADING
    }

    /// True once this node has everything that was acknowledged before it started.
    pub(super) fn is_current(&self) -> bool {
        self.0.load(Ordering::Acquire) == CURRENT
    }

    pub(super) fn set_current(&self) {
        self.0.store(CURRENT, Ordering::Release);
    }

    /// Catches up, once.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub(super) async fn run(&self, services: &Services) {
        let alone = clock::now() + ALONE_AFTER;
        while services.catch_up().await.is_err() {
            if clock::now() >= alone && self.is_loading() && services.has_data() {
                tracing::warn!("no leader found: clients are served what this node had when it stopped");
                self.0.store(ALONE, Ordering::Release);
            }
            sleep(RETRY).await;
        }
        self.set_current();
    }
}
