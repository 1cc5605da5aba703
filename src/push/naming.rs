//! Changes of services, brought to those who subscribe to them.
//!
//! ```text
//!  under the registry's lock      pusher task                          a client's task
//!  on_events ──▶ Pacing ────────▶ tell: marks, a few at a time ──────▶ Marks ──▶ renders, sends, waits
//!   (a note)    (when)            (once per subscriber)                           for its acknowledgement
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::config::{LOCKED_STEP, give_way};
use super::fuzzy::FuzzyPush;
use super::listeners::{Listeners, Slot, WatcherId};
use super::marks::Marks;
use super::pacing::{Pacing, window};
use crate::clock;
use crate::metrics::NamingPush as Counters;
use crate::model::ServiceKey;
use crate::naming::Event;
use crate::seeded::{self, Bug};

/// Memory that all subscriptions together may take ([`Listeners::cost_of`]): about 700,000 of names of ordinary
/// length, a client a quarter of what is left. Beyond it a subscriber is refused.
const COST_BYTES_MAX: usize = 256 << 20;

/// There is no room for another subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this node, or this connection, has as many subscriptions as it may")]
pub struct Full;

/// Which clusters a subscriber wants, separated by commas; `None`: all of them.
pub type Clusters = Option<Arc<str>>;

/// What a client's task has to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// A service has changed.
    Service(ServiceKey),
    /// Another node says that an instance of the client was deregistered: it is asked whether it lives.
    Proof,
}

/// A connected client, as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// Id of the connection.
    pub id: Arc<str>,
    /// The client's own idea of its address.
    pub ip: Box<str>,
    /// Port from which the connection comes.
    pub port: u16,
    /// For example `Nacos-Java-Client:v2.5.1`.
    pub agent: Box<str>,
    /// Name of its application; may be empty.
    pub app: Box<str>,
}

/// A client that is connected, and what has to be looked at for it.
#[derive(Debug)]
pub struct NamingSession {
    /// Who it is.
    pub who: Who,
    /// What is to be done.
    pub marks: Marks<Subject>,
}

/// Who subscribes to which service on this node, and the way to wake them.
#[derive(Debug, Default)]
pub struct NamingPush {
    shared: Mutex<Shared>,
    /// Something is due.
    changed: Notify,
    /// Counters.
    pub metrics: Counters,
    /// Who watches patterns.
    pub fuzzy: Arc<FuzzyPush<ServiceKey>>,
}

#[derive(Debug, Default)]
struct Shared {
    listeners: Listeners<ServiceKey, Clusters, Arc<NamingSession>>,
    /// Clients by the id of their connection.
    sessions: HashMap<Arc<str>, Arc<NamingSession>>,
    /// Watched services that have changed.
    pacing: Pacing<ServiceKey>,
}

impl NamingPush {
    /// Nobody subscribes to anything.
    pub fn new() -> Arc<NamingPush> {
        Arc::new(NamingPush::default())
    }

    /// Notes what has happened. Called under the lock of the registry, in order: takes one short lock and waits
    /// for nobody.
    pub fn on_events(&self, events: Vec<Event>) {
        let now = clock::now();
        let mut shared = self.lock();
        let before = shared.pacing.wakes_at();
        for event in events {
            match event {
                Event::Changed { .. } if seeded::has(Bug::NeverTold) => {}
                Event::Changed { service, .. } if shared.listeners.is_watched(&service) => {
                    shared.pacing.mark(service, now);
                }
                Event::Covered(connection) => {
                    if let Some(session) = shared.sessions.get(&connection) {
                        session.marks.mark(Subject::Proof, now);
                    }
                }
                Event::Appeared(service) => self.fuzzy.on_existence(service, true),
                Event::Vanished(service) => self.fuzzy.on_existence(service, false),
                Event::Changed { .. } => {}
            }
        }
        let is_sooner = shared.pacing.wakes_at() != before;
        drop(shared);
        if is_sooner {
            self.changed.notify_one();
        }
    }

    /// The registry has begun anew: whoever watches patterns looks at everything. Subscribers are told of what
    /// comes; their connections end anyway.
    pub fn on_reload(&self) {
        self.fuzzy.on_reload();
    }

    /// Brings changes to those who subscribe, for ever. `bytes_of` makes what they will be told ready and says
    /// how much it is.
    ///
    /// # Cancel safety
    /// What was taken and not yet told is lost: drop it only when nobody waits any more.
    pub async fn run(self: Arc<Self>, bytes_of: impl Fn(&ServiceKey) -> usize + Send) {
        tokio::join!(self.run_services(bytes_of), self.fuzzy.run());
    }

    async fn run_services(&self, bytes_of: impl Fn(&ServiceKey) -> usize + Send) {
        loop {
            let wakes_at = self.lock().pacing.wakes_at();
            tokio::select! {
                () = self.changed.notified() => {}
                () = sleep_until(wakes_at.unwrap_or_else(clock::now)), if wakes_at.is_some() => {}
            }
            self.tell_all(&bytes_of).await;
        }
    }

    async fn tell_all(&self, bytes_of: &(impl Fn(&ServiceKey) -> usize + Send)) {
        let due = self.lock().pacing.take(clock::now());
        let mut marked = 0;
        for (service, since) in due {
            let bytes = bytes_of(&service);
            let told = self.tell(&service, since, &mut marked).await;
            let until = clock::now() + window(told, bytes);
            self.lock().pacing.told(service, until);
        }
    }

    /// Marks everybody who subscribes; says how many they are. Walked as `ConfigPush::tell` does.
    async fn tell(&self, service: &ServiceKey, since: Instant, marked: &mut usize) -> usize {
        let (mut below, mut told) = (usize::MAX, 0);
        while below > 0 {
            let step: Vec<_> = {
                let shared = self.lock();
                let (watches, next) = shared.listeners.of_key_below(service, below, LOCKED_STEP);
                below = next;
                watches.map(|(session, ..)| Arc::clone(session)).collect()
            };
            told += step.len();
            for session in step {
                session.marks.mark(Subject::Service(service.clone()), since);
                give_way(marked).await;
            }
        }
        told
    }

    /// Registers a client that subscribes to nothing yet.
    pub fn open(self: &Arc<Self>, who: Who) -> NamingWatch {
        let session = Arc::new(NamingSession {
            who,
            marks: Marks::default(),
        });
        let mut shared = self.lock();
        let id = shared.listeners.add(Arc::clone(&session));
        let name = Arc::clone(&session.who.id);
        shared.sessions.insert(name, Arc::clone(&session));
        drop(shared);
        NamingWatch {
            push: Arc::clone(self),
            id,
            session,
        }
    }

    /// Every connection that has registered or subscribed to anything.
    pub fn sessions(&self) -> Vec<Arc<NamingSession>> {
        let shared = self.lock();
        let sessions = shared.listeners.owners();
        sessions.map(|(_, session)| Arc::clone(session)).collect()
    }

    /// Who subscribes to a service, and to which clusters of it.
    pub fn subscribers_of(&self, service: &ServiceKey) -> Vec<(Arc<NamingSession>, Clusters)> {
        let shared = self.lock();
        let found = shared.listeners.of_key(service);
        found
            .map(|(session, _, clusters)| (Arc::clone(session), clusters.clone()))
            .collect()
    }

    /// What a client subscribes to.
    pub fn subscribed_by(&self, connection: &str) -> Vec<ServiceKey> {
        let shared = self.lock();
        let watchers = shared.listeners.owners();
        let mut own = watchers.filter(|(_, session)| &*session.who.id == connection);
        let own = own.next().map(|(id, _)| shared.listeners.of_watcher(id));
        own.into_iter()
            .flatten()
            .map(|(service, _)| service.clone())
            .collect()
    }

    /// Numbers of clients, of services that are subscribed to, and of subscriptions.
    pub fn load(&self) -> (usize, usize, usize) {
        let shared = self.lock();
        let listeners = &shared.listeners;
        (listeners.watchers(), listeners.keys(), listeners.watches())
    }

    /// Nothing panics while it holds the lock but an assertion of ours.
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The subscriptions of one client. Dropping it forgets the client.
#[derive(Debug)]
pub struct NamingWatch {
    push: Arc<NamingPush>,
    id: WatcherId,
    session: Arc<NamingSession>,
}

impl NamingWatch {
    /// What is to be done for the client, as soon as there is something.
    pub fn session(&self) -> &Arc<NamingSession> {
        &self.session
    }

    /// The pusher.
    pub fn push(&self) -> &Arc<NamingPush> {
        &self.push
    }

    /// Subscribes to one more service. From the moment this returns no change of it is missed. Gives back the
    /// service's name in memory that all subscribers share.
    ///
    /// # Errors
    /// There are too many subscriptions on this node, or of this client.
    pub fn add(&self, service: &ServiceKey, clusters: Clusters) -> Result<(Slot, ServiceKey), Full> {
        let mut shared = self.push.lock();
        if !shared.listeners.has_room(self.id, COST_BYTES_MAX) {
            return Err(Full);
        }
        Ok(shared.listeners.watch(self.id, service, clusters))
    }

    /// The client wants other clusters.
    pub fn set_clusters(&self, slot: Slot, clusters: Clusters) {
        self.push.lock().listeners.set_seen(self.id, slot, clusters);
    }

    /// Ends some subscriptions, a few under one lock.
    pub fn remove(&self, slots: &[Slot]) {
        for some in slots.chunks(LOCKED_STEP) {
            let mut shared = self.push.lock();
            for slot in some {
                shared.listeners.unwatch(self.id, *slot);
            }
        }
    }
}

impl Drop for NamingWatch {
    /// Whoever owns this has ended the subscriptions before; what is left ends here, under one lock.
    fn drop(&mut self) {
        let mut shared = self.push.lock();
        shared.listeners.remove(self.id);
        let name = &self.session.who.id;
        let is_own = |kept: &Arc<NamingSession>| Arc::ptr_eq(kept, &self.session);
        if shared.sessions.get(name).is_some_and(is_own) {
            shared.sessions.remove(name);
        }
    }
}

#[cfg(test)]
mod tests;
