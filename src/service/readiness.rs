//! Whether this node may tell what the log says, and with how much trust.
//!
//! A node that starts may lack what was acknowledged while it was away, what a crash took from its state, or, as a new
//! member, everything. A client that hears "not found" deletes its own copy of a config, and one that is shown an empty
//! list forgets its providers. So what stands in the log (configs, namespaces, persistent instances) is told only once
//! this node has caught up with a leader. A node that finds no leader tells it after a while all the same, if it has
//! data of its own: old configs are better than none. It knows that it is not current ([`Readiness::is_current`]), and
//! says "not found" for none of them.
//!
//! Ephemeral instances do not wait for any of that: a node that was a member before takes clients at once, who register
//! and keep alive what they have. (What it may answer to readers, the registry knows itself.) What clients ask of the
//! log meanwhile waits for a moment, since a leader is nearly always there soon, and is then answered "starting".

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use raft::Index;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::Services;
use crate::clock;
use crate::error::{Error, Result};

/// A node with data of its own waits so long for a leader. An election takes a second.
const ALONE_AFTER: Duration = Duration::from_secs(5);
/// Where one is heard it waits as long as something comes of it, and so much longer: a node without room for more takes
/// no entries, and one that cannot reach its leader is told nothing.
const STUCK_AFTER: Duration = Duration::from_secs(15);
/// What was known to be committed is applied within this: it is on the own disk, and little.
const COMMITTED_WITHIN: Duration = Duration::from_secs(30);
/// Between two tries to catch up; each takes as long as it takes to find that there is no leader.
const RETRY: Duration = Duration::from_millis(50);
/// What is asked of the log waits so long for this node to catch up. SDKs wait 3 s for an answer.
const LOG_WITHIN: Duration = Duration::from_secs(2);

const LOADING: u8 = 0;
const NAMING: u8 = 1;
const ALONE: u8 = 2;
const CURRENT: u8 = 3;

/// How far this node has come since it started.
#[derive(Debug, Default)]
pub struct Readiness {
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
    pub fn is_loading(&self) -> bool {
        self.stage() == LOADING
    }

    /// True once this node has everything that was acknowledged before it started. Until then "not found" may be
    /// wrong.
    pub fn is_current(&self) -> bool {
        self.stage() == CURRENT
    }

    /// Whether it may be told what the log says.
    ///
    /// # Errors
    /// Not yet, in words.
    pub fn tells_log(&self) -> Result<()> {
        if self.stage() >= ALONE {
            return Ok(());
        }
        Err(Error::Unavailable(
            "server is STARTING now, it has not caught up with its leader, please try again later!"
                .to_owned(),
        ))
    }

    /// Waits a moment until it may be told what the log says.
    ///
    /// # Errors
    /// As of [`Readiness::tells_log`].
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub async fn log_is_told(&self) -> Result<()> {
        let risen = async {
            loop {
                let mut risen = std::pin::pin!(self.risen.notified());
                // Before it is looked at: what rises in between is not missed.
                risen.as_mut().enable();
                if self.tells_log().is_ok() {
                    return;
                }
                risen.await;
            }
        };
        if self.tells_log().is_err() {
            // What has come of it is looked at.
            let _late = timeout(LOG_WITHIN, risen).await;
        }
        self.tells_log()
    }

    /// Everything is there.
    pub(crate) fn set_current(&self) {
        self.rise(CURRENT);
    }

    /// Clients are taken; what the log says is not there yet.
    pub(crate) fn set_naming(&self) {
        self.rise(NAMING);
    }

    /// Catches up, once; `committed` is what this node knew to be committed when it was started.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub async fn run(&self, services: &Services, committed: Index) {
        let began = clock::now();
        let (mut applied, mut moved) = (services.consensus.applied(), began);
        loop {
            // One that was never a member may be about to join others, who know more.
            if services.has_data() {
                self.set_naming();
            }
            if services.catch_up().await.is_ok() {
                tracing::info!(
                    ms = began.elapsed().as_millis() as u64,
                    "caught up with the leader"
                );
                return self.set_current();
            }
            if services.consensus.applied() > applied {
                (applied, moved) = (services.consensus.applied(), clock::now());
            }
            let leader = services.consensus.status().raft.leader;
            let until = match leader {
                None => began + ALONE_AFTER,
                Some(_) => moved + STUCK_AFTER,
            };
            if clock::now() >= until && self.stage() == NAMING {
                let why = match leader {
                    None => "no leader found",
                    Some(_) => "nothing comes from the leader",
                };
                tracing::warn!("{why}: clients are told what this node knows to be committed");
                // A node that stops meanwhile answers nobody.
                let _stopping = services
                    .consensus
                    .wait_applied(committed, clock::now() + COMMITTED_WITHIN)
                    .await;
                self.rise(ALONE);
            }
            sleep(RETRY).await;
        }
    }
}
