//! Whether this node may serve clients, and with what.
//!
//! A node that starts may lack what was acknowledged while it was away, or, as a new member, everything. A
//! client that hears "not found" deletes its own copy of a config, so configs are served only once this node has
//! caught up with a leader. A node that finds no leader serves them after a while all the same, if it has
//! data of its own: old configs are better than none. It knows that it is not current
//! ([`Readiness::is_current`]), and says "not found" for none of them.
//!
//! Naming does not wait for any of that: a node that was a member before takes clients at once, who register and
//! keep alive what they have. (What it may answer to readers, the registry knows itself.) What clients ask of configs
//! meanwhile waits for a moment, since a leader is nearly always there soon, and is then answered "starting".

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::clock;
use crate::service::Services;

/// A node with data of its own waits so long for a leader.
const ALONE_AFTER: Duration = Duration::from_secs(15);
/// Between two tries to catch up; each takes as long as it takes to find that there is no leader.
const RETRY: Duration = Duration::from_millis(50);
/// What is asked of configs waits so long for this node to catch up. SDKs wait 3 s for an answer.
const CONFIGS_WITHIN: Duration = Duration::from_secs(2);

const LOADING: u8 = 0;
const NAMING: u8 = 1;
const ALONE: u8 = 2;
const CURRENT: u8 = 3;

/// Whether this node may serve clients.
#[derive(Debug, Default)]
pub(super) struct Readiness {
    /// Only rises.
    stage: AtomicU8,
    /// It has risen.
    risen: Notify,
}

impl Readiness {
    fn stage(&self) -> u8 {
        self.stage.load(Ordering::Acquire)
    }

    fn rise(&self, stage: u8) {
        self.stage.fetch_max(stage, Ordering::AcqRel);
        self.risen.notify_waiters();
    }

    /// True until clients may be served.
    pub(super) fn is_loading(&self) -> bool {
        self.stage() == LOADING
    }

    /// True once this node has everything that was acknowledged before it started.
    pub(super) fn is_current(&self) -> bool {
        self.stage() == CURRENT
    }

    /// Waits until configs are served; false if that takes too long.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub(super) async fn serves_configs(&self) -> bool {
        let risen = async {
            loop {
                let mut risen = std::pin::pin!(self.risen.notified());
                // Before it is looked at: what rises in between is not missed.
                risen.as_mut().enable();
                if self.stage() >= ALONE {
                    return;
                }
                risen.await;
            }
        };
        self.stage() >= ALONE || timeout(CONFIGS_WITHIN, risen).await.is_ok()
    }

    pub(super) fn set_current(&self) {
        self.rise(CURRENT);
    }

    /// Clients are taken; configs are not there yet.
    pub(super) fn set_naming(&self) {
        self.rise(NAMING);
    }

    /// Catches up, once.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub(super) async fn run(&self, services: &Services) {
        let alone = clock::now() + ALONE_AFTER;
        loop {
            // One that was never a member may be about to join others, who know more.
            if services.has_data() {
                self.set_naming();
            }
            if services.catch_up().await.is_ok() {
                return self.set_current();
            }
            if clock::now() >= alone && self.stage() == NAMING {
                tracing::warn!("no leader found: clients are served what this node had when it stopped");
                self.rise(ALONE);
            }
            sleep(RETRY).await;
        }
    }
}
