//! Clients of the registry that are connected: what they register lives as long as their connection, and what
//! they subscribe to is told to them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::Services;
use super::naming::{redoes_wrong, wrong_kind, wrong_redo};
use super::naming_lists::Window;
use crate::clock;
use crate::discovery::{Discovery, Form, Readiness};
use crate::error::{Error, Result};
use crate::metrics;
use crate::model::{Endpoint, Page, PageRequest, ServiceKey};
use crate::naming::{Filter, Instance, Owner, Stamp};
pub use crate::push::Who;
use crate::push::{NamingFull, NamingPush, NamingSession, NamingWatch, Slot, Subject};
use crate::seeded::{self, Bug};
use crate::shutdown::Shutdown;

/// Instances that one connection keeps alive; a program that mirrors another registry has thousands.
pub const KEPT_MAX: usize = 100_000;
/// Instances of one batch: all of them are written under one lock, in about 2 µs each.
pub const BATCH_MAX: usize = 10_000;
/// Of a connection that is gone so many instances are taken away under one lock, in about 2 µs each.
const LEAVE_COUNT: usize = 1_000;
/// Until the next of them are; others get the lock meanwhile.
const LEAVE_PAUSE: Duration = Duration::from_millis(1);
/// Services one connection subscribes to; gateways subscribe to all there are.
pub const SUBSCRIBED_MAX: usize = 100_000;

/// From the answer to a subscriber to the first push of that service: the answer is to arrive first. An SDK that
/// gets the older one later takes it for the present, and tells nobody.
pub(super) const AFTER_ANSWER: Duration = Duration::from_millis(20);

/// A connection, as the registry knows it.
#[derive(Debug)]
pub struct NamingClient {
    /// Names the connection among those of this node.
    id: Arc<str>,
    discovery: Arc<Discovery>,
    stopping: Shutdown,
    watch: NamingWatch,
    subscriptions: Mutex<HashMap<ServiceKey, Subscription>>,
}

#[derive(Debug)]
struct Subscription {
    slot: Slot,
    filter: Filter,
    /// The state that the client knows: of an answer, or of a push that it has acknowledged.
    told: Stamp,
    /// Nothing is pushed before.
    held_until: Instant,
}

impl Services {
    /// A connection that has registered nothing and subscribes to nothing yet. No other may have its id until
    /// [`NamingClient::leave`] was called.
    pub fn open_naming(&self, who: Who) -> NamingClient {
        NamingClient::new(&self.discovery, &self.naming_push, &self.stopping, who)
    }

    /// A page of the services of a group, and how many there are, by their names.
    pub fn services_of_group(&self, like: &ServiceKey, page: PageRequest) -> Page<ServiceKey> {
        let window = Window {
            skip: page.offset(),
            take: page.size,
        };
        let (count, names) = self.service_names(&like.namespace_id(), like.group(), window);
        Page::new(page, count, names)
    }

    /// Pushes to subscribers, and how many there are.
    pub fn naming_push(&self) -> &Arc<NamingPush> {
        &self.naming_push
    }
}

impl NamingClient {
    pub(super) fn new(
        discovery: &Arc<Discovery>,
        push: &Arc<NamingPush>,
        stopping: &Shutdown,
        who: Who,
    ) -> NamingClient {
        NamingClient {
            id: Arc::clone(&who.id),
            discovery: Arc::clone(discovery),
            stopping: stopping.clone(),
            watch: push.open(who),
            subscriptions: Mutex::default(),
        }
    }

    /// The connection says all that it keeps alive in a service; what it said before is replaced.
    ///
    /// # Errors
    /// The service holds persistent instances, or there is no room; nothing is changed then.
    pub fn register(&self, service: &ServiceKey, mut set: Vec<(Endpoint, Instance, bool)>) -> Result<()> {
        if set.len() > BATCH_MAX {
            return Err(Error::Invalid(format!(
                "a batch may have {BATCH_MAX} instances, not {}",
                set.len()
            )));
        }
        self.discovery.act(|registry, now_ms| {
            let room = Discovery::OWN_RECORDS_MAX.saturating_sub(registry.own_records());
            let room = room.min(KEPT_MAX.saturating_sub(registry.kept(&self.id)));
            // A redo finds its own.
            let is_new =
                |(endpoint, ..): &&(Endpoint, Instance, bool)| registry.instance(service, endpoint).is_none();
            if set.len() > room && set.iter().filter(is_new).count() > room {
                return Err(Error::Overloaded(
                    "this node, or this connection, keeps as many instances as it may".to_owned(),
                ));
            }
            if redoes_wrong() {
                set.retain_mut(|(endpoint, instance, _)| !wrong_redo(registry, service, endpoint, instance));
                if set.is_empty() {
                    return Ok(());
                }
            }
            let done = if seeded::has(Bug::BatchAdds) {
                let owner = Owner::Connection(Arc::clone(&self.id));
                set.into_iter().try_for_each(|(endpoint, instance, healthy)| {
                    registry.register(now_ms, &owner, service, &endpoint, instance, healthy)
                })
            } else {
                registry.register_set(now_ms, &self.id, service, set)
            };
            done.map_err(|wrong| wrong_kind(service.grouped(), wrong.holds))
        })
    }

    /// The connection takes an instance away, known or not.
    pub fn deregister(&self, service: &ServiceKey, endpoint: &Endpoint) {
        if seeded::has(Bug::NotDeregistered) {
            return;
        }
        self.discovery
            .act(|registry, now_ms| registry.withdraw(now_ms, &self.id, service, endpoint));
    }

    /// What this connection keeps alive, and a tombstone of another node covers, is written again: it has just
    /// proved that it lives.
    pub(super) fn reassert(&self) {
        self.discovery
            .act(|registry, now_ms| registry.reassert(now_ms, &self.id));
    }

    /// Subscribes to a service, or wants other clusters of it; the JSON of the service as it is now. Whatever
    /// changes after that is pushed.
    ///
    /// # Errors
    /// There are too many subscriptions.
    pub fn subscribe(&self, service: &ServiceKey, filter: Filter) -> Result<Bytes> {
        let service = self.remember(service, &filter).inspect_err(|_| {
            self.metrics().refused.fetch_add(1, Relaxed);
        })?;
        // Subscribed first, looked at afterwards: a change in between is in the answer, or pushed.
        let (state, bytes) = self.discovery.first_answer(&service, &filter, Form::Grpc);
        let now = clock::now();
        let looks_away = self.looks_away_from_answers();
        if let Some(subscription) = self.subscriptions().get_mut(&service) {
            if !looks_away {
                subscription.told = state;
            }
            subscription.held_until = now + AFTER_ANSWER;
        }
        if looks_away {
            self.session().marks.mark(Subject::Service(service), now);
        }
        Ok(bytes)
    }

    /// True for SDKs that do not look at the answer when they subscribe anew after a reconnect: what changed
    /// meanwhile has to be pushed to them (contract 01 §5.7; the Java server pushes to everybody).
    fn looks_away_from_answers(&self) -> bool {
        let agent = &self.session().who.agent;
        ["Nacos-Java-Client", "Nacos-Rust-Client"]
            .iter()
            .any(|sdk| agent.starts_with(sdk))
    }

    fn remember(&self, service: &ServiceKey, filter: &Filter) -> Result<ServiceKey> {
        let full = || Error::Overloaded(NamingFull.to_string());
        let mut subscriptions = self.subscriptions();
        let is_full = subscriptions.len() >= SUBSCRIBED_MAX;
        let clusters = (!filter.clusters.is_empty()).then(|| Arc::from(&*filter.clusters));
        match subscriptions.entry(service.clone()) {
            Entry::Occupied(mut found) => {
                let subscription = found.get_mut();
                if subscription.filter != *filter {
                    subscription.filter = filter.clone();
                    self.watch.set_clusters(subscription.slot, clusters);
                }
                subscription.held_until = clock::now() + AFTER_ANSWER;
                Ok(found.key().clone())
            }
            Entry::Vacant(_) if is_full => Err(full()),
            Entry::Vacant(_) => {
                let (slot, name) = self.watch.add(service, clusters).map_err(|_| full())?;
                let subscription = Subscription {
                    slot,
                    filter: filter.clone(),
                    told: Stamp::default(),
                    held_until: clock::now() + AFTER_ANSWER,
                };
                // One allocation for all who name it.
                subscriptions.insert(name.clone(), subscription);
                Ok(name)
            }
        }
    }

    /// Subscribes no longer.
    pub fn unsubscribe(&self, service: &ServiceKey) {
        if let Some(subscription) = self.subscriptions().remove(service) {
            self.watch.remove(&[subscription.slot]);
        }
    }

    /// Number of services it subscribes to.
    pub fn subscribed(&self) -> usize {
        self.subscriptions().len()
    }

    /// The connection is gone: it subscribes to nothing, and what it registered is taken away.
    ///
    /// NOTE: the latter not when this node stops. Its clients are on their way to other nodes then and register
    /// there at once; the copies that peers have are kept until they have done so (the grace for a node that is
    /// gone), so that no subscriber sees a service without them in between.
    pub fn leave(&self) {
        let subscriptions = std::mem::take(&mut *self.subscriptions());
        let slots: Vec<Slot> = subscriptions
            .values()
            .map(|subscription| subscription.slot)
            .collect();
        self.watch.remove(&slots);
        if !self.stopping.has_begun() && !seeded::has(Bug::DeadStay) {
            self.take_away();
        }
    }

    /// Takes away what the connection registered: at once, or a part of it at once if it is so much that others would
    /// wait for the lock.
    fn take_away(&self) {
        let (discovery, id) = (Arc::clone(&self.discovery), Arc::clone(&self.id));
        let some =
            move || discovery.act(|registry, now_ms| registry.disconnect_some(now_ms, &id, LEAVE_COUNT));
        if some() {
            self.stopping.spawn_while_running(async move {
                while some() {
                    tokio::time::sleep(LEAVE_PAUSE).await;
                }
            });
        }
    }

    pub(super) fn metrics(&self) -> &metrics::NamingPush {
        &self.watch.push().metrics
    }

    /// True once this node knows what there is of a service.
    pub(super) fn registry_is_ready_for(&self, service: &ServiceKey) -> bool {
        self.discovery.readiness_of(service) == Readiness::Ready
    }

    pub(super) fn session(&self) -> &Arc<NamingSession> {
        self.watch.session()
    }

    /// When it may be told of a change of the service; `None`: it does not subscribe to it.
    pub(super) fn may_be_told(&self, service: &ServiceKey) -> Option<Instant> {
        Some(self.subscriptions().get(service)?.held_until)
    }

    /// What it is to be told of a service now, with the state that this shows; `None` when it knows that, or does
    /// not subscribe.
    pub(super) fn news(&self, service: &ServiceKey) -> Option<(Stamp, Bytes)> {
        let (filter, told) = {
            let subscriptions = self.subscriptions();
            let subscription = subscriptions.get(service)?;
            (subscription.filter.clone(), subscription.told)
        };
        self.discovery.news(service, &filter, Form::Grpc, told)
    }

    /// It knows this state of the service now.
    pub(super) fn knows(&self, service: &ServiceKey, state: Stamp) {
        if let Some(subscription) = self.subscriptions().get_mut(service) {
            subscription.told = subscription.told.max(state);
        }
    }

    /// Nothing panics while it holds the lock.
    fn subscriptions(&self) -> MutexGuard<'_, HashMap<ServiceKey, Subscription>> {
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
