//! The plan in time.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::ask::Asker;
use super::plan::{Found, Place, Plan, Probe};
use crate::clock;
use crate::model::{Endpoint, ServiceKey};
use crate::naming::{Checker, Replicated};

/// Checks of a node under way at a time; the others wait for their turn.
pub const UNDER_WAY_MAX: usize = 64;
/// Without anything due the plan is looked at so often.
const IDLE: Duration = Duration::from_secs(60);
/// Changes of health that wait to be told; what comes when there are so many is found again by the next
/// check.
const WAITING_MAX: usize = 65_536;

/// Which checks an operator allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Allowed {
    /// None: instances stay as they were registered.
    #[default]
    Off,
    /// Those that only open a connection.
    Tcp,
    /// HTTP requests, too.
    All,
}

/// Has the log told of changes of health, at most so many as one command takes; completes when it has it, or
/// has it not: what is lost is found again.
pub type Report =
    Box<dyn Fn(Vec<(ServiceKey, Endpoint, bool)>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// What [`Probes`] are made of.
pub struct Parts {
    /// Which checks there are.
    pub allowed: Allowed,
    /// Who asks, and where that may go.
    pub asker: Arc<Asker>,
    /// True for services whose instances this node checks.
    pub is_ours: Box<dyn Fn(&ServiceKey) -> bool + Send + Sync>,
    /// Who tells the log.
    pub report: Report,
    /// Changes of health in one report.
    pub report_max: usize,
}

/// The checks of this node. One per server.
pub struct Probes {
    plan: Mutex<Plan>,
    began: Instant,
    changed: Notify,
    parts: Parts,
    told_of_mysql: AtomicBool,
    told_of_off: AtomicBool,
    told_of_forbidden: AtomicBool,
}

impl fmt::Debug for Probes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probes").finish_non_exhaustive()
    }
}

/// What is under way.
struct Work {
    asking: JoinSet<(Probe, Found)>,
    /// Not told yet, newest per instance.
    waiting: BTreeMap<Place, bool>,
    telling: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Probes {
    /// Nothing to check yet.
    pub fn new(parts: Parts) -> Arc<Probes> {
        Arc::new(Probes {
            plan: Mutex::default(),
            began: clock::now(),
            changed: Notify::new(),
            parts,
            told_of_mysql: AtomicBool::new(false),
            told_of_off: AtomicBool::new(false),
            told_of_forbidden: AtomicBool::new(false),
        })
    }

    /// True when nothing is ever checked: then nothing need be told either.
    pub fn is_off(&self) -> bool {
        self.parts.allowed == Allowed::Off
    }

    /// The replicated state says something. Takes one short lock and waits for nobody.
    pub fn tell(&self, change: &Replicated) {
        let instance = matches!(change, Replicated::Instance { set: Some(_), .. });
        if self.is_off() {
            if instance && !self.told_of_off.swap(true, Ordering::Relaxed) {
                tracing::info!(
                    "persistent instances stay as healthy as they were registered: checks are off \
                     (RNACOS_NAMING_HEALTH_CHECKS)"
                );
            }
            return;
        }
        if matches!(change, Replicated::Instance { .. } | Replicated::Cluster { .. }) {
            self.lock().tell(self.now_ms(), change);
            self.changed.notify_one();
            self.tell_of_mysql();
        }
    }

    /// This is all that the replicated state says: at a start, and after a snapshot.
    pub fn tell_all(&self, rows: impl IntoIterator<Item = Replicated>) {
        if self.is_off() {
            return;
        }
        self.lock().tell_all(self.now_ms(), rows);
        self.changed.notify_one();
        self.tell_of_mysql();
    }

    fn tell_of_mysql(&self) {
        if self.lock().mysql_seen > 0 && !self.told_of_mysql.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "checks of type MYSQL are not made: the health of such instances is what somebody tells \
                 (PUT /v1/ns/health)"
            );
        }
    }

    /// Checks, for ever.
    ///
    /// # Cancel safety
    /// Dropping it drops the checks under way; nothing they would have found is lost for good.
    pub async fn run(self: Arc<Self>) {
        if self.is_off() {
            return;
        }
        let mut work = Work {
            asking: JoinSet::new(),
            waiting: BTreeMap::new(),
            telling: None,
        };
        loop {
            let next = self.begin_due(&mut work);
            self.begin_telling(&mut work);
            tokio::select! {
                () = sleep_until(next) => {}
                () = self.changed.notified() => {}
                Some(done) = work.asking.join_next() => match done {
                    Ok((probe, found)) => self.take(&mut work, probe, found),
                    // The instance is checked again when it is told of again; no code of ours panics.
                    Err(error) => tracing::error!(%error, "a health check panicked"),
                },
                () = told(&mut work.telling) => work.telling = None,
            }
        }
    }

    /// Begins what is due, as far as there is room. Gives back when to look again.
    fn begin_due(&self, work: &mut Work) -> Instant {
        let mut plan = self.lock();
        let now_ms = self.now_ms();
        while work.asking.len() < UNDER_WAY_MAX {
            let Some(probe) = plan.take_due(now_ms, |service| (self.parts.is_ours)(service)) else {
                break;
            };
            let asker = Arc::clone(&self.parts.asker);
            let allowed = self.allows(&probe.checker);
            work.asking.spawn(async move {
                let found = match allowed {
                    true => asker.ask(&probe).await,
                    false => Found::Forbidden,
                };
                (probe, found)
            });
        }
        let full = work.asking.len() >= UNDER_WAY_MAX;
        match plan.next_due_ms() {
            // A check that ends makes room, and has this looked at.
            Some(due_ms) if !full => self.began + Duration::from_millis(due_ms),
            _ => clock::now() + IDLE,
        }
    }

    fn allows(&self, checker: &Checker) -> bool {
        match (self.parts.allowed, checker) {
            (Allowed::All, _) | (Allowed::Tcp, Checker::Tcp) => true,
            (Allowed::Off | Allowed::Tcp, _) => false,
        }
    }

    fn take(&self, work: &mut Work, probe: Probe, found: Found) {
        if found == Found::Forbidden && !self.told_of_forbidden.swap(true, Ordering::Relaxed) {
            let (service, endpoint) = &probe.place;
            tracing::warn!(
                %service,
                %endpoint,
                "an instance is not checked, for checks may not go there or not in this way \
                 (RNACOS_NAMING_HEALTH_CHECKS, _NETWORKS, _PORTS); told once"
            );
        }
        let changed = self.lock().found(self.now_ms(), probe, found);
        if let Some((place, healthy)) = changed
            && (work.waiting.len() < WAITING_MAX || work.waiting.contains_key(&place))
        {
            work.waiting.insert(place, healthy);
        }
    }

    /// Tells what waits, in one go, unless a report is under way: so reports grow when there is much.
    fn begin_telling(&self, work: &mut Work) {
        if work.telling.is_some() || work.waiting.is_empty() {
            return;
        }
        let mut batch = Vec::new();
        while batch.len() < self.parts.report_max
            && let Some(((service, endpoint), healthy)) = work.waiting.pop_first()
        {
            tracing::debug!(%service, %endpoint, healthy, "the health of an instance has changed");
            batch.push((service, endpoint, healthy));
        }
        tracing::info!(count = batch.len(), "the health of instances has changed");
        work.telling = Some((self.parts.report)(batch));
    }

    fn now_ms(&self) -> u64 {
        u64::try_from((clock::now() - self.began).as_millis()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Completes when the report has; never without one.
async fn told(telling: &mut Option<Pin<Box<dyn Future<Output = ()> + Send>>>) {
    match telling {
        Some(telling) => telling.await,
        None => std::future::pending().await,
    }
}
