//! How records change, and what follows from it.

use crate::model::{Endpoint, ServiceKey};

use super::super::bugs::{Bug, has};
use super::super::overlay::Overlay;
use super::super::record::{Body, Owner, Record};
use super::super::service::{Entry, Service};
use super::super::stamp::{Stamp, StampClock};
use super::listed::Listed;
use super::{Event, Kind, Registry, WrongKind};

impl Registry {
    pub(crate) fn entry(&self, service: &ServiceKey, endpoint: &Endpoint) -> Option<&Entry> {
        self.services.get(service)?.entries.get(endpoint)
    }

    pub(in crate::naming) fn own_record(
        &self,
        service: &ServiceKey,
        endpoint: &Endpoint,
        owner: &Owner,
    ) -> Option<&Record> {
        self.entry(service, endpoint)?.record(self.me, owner)
    }

    /// A service that holds persistent instances takes no ephemeral ones, but what is there already: both kinds may
    /// have been registered at the same moment on two nodes ([`Registry::kind`]).
    pub(super) fn expect_ephemeral<'a>(
        &self,
        service: &ServiceKey,
        mut endpoints: impl Iterator<Item = &'a Endpoint>,
    ) -> Result<(), WrongKind> {
        let is_there = |endpoint: &Endpoint| {
            let seen = self.instance(service, endpoint);
            seen.is_some_and(|seen| seen.ephemeral)
        };
        match self.kind(service) {
            Some(Kind::Persistent) if !endpoints.all(is_there) => Err(WrongKind {
                service: service.clone(),
                holds: Kind::Persistent,
            }),
            _ => Ok(()),
        }
    }

    /// A sign of life that changes nothing.
    pub(super) fn touch(&mut self, now_ms: u64, service: &ServiceKey, endpoint: &Endpoint, owner: &Owner) {
        let me = self.me;
        let entry = self
            .services
            .get_mut(service)
            .and_then(|service| service.entries.get_mut(endpoint));
        if let Some(record) = entry.and_then(|entry| entry.record_mut(me, owner)) {
            record.heard_ms = now_ms;
        }
    }

    /// Writes this node's record with a stamp above all that is known of the instance.
    pub(in crate::naming) fn write_above(
        &mut self,
        now_ms: u64,
        service: &ServiceKey,
        endpoint: &Endpoint,
        owner: &Owner,
        body: Body,
    ) {
        let highest = self
            .entry(service, endpoint)
            .map(Entry::highest)
            .unwrap_or_default();
        let stamp = self.clocks.acts.draw(now_ms, highest);
        self.write_own(now_ms, service, endpoint, owner, stamp, body);
    }

    /// Changes what is said about an instance, and tells if readers see it. `stamp` is one that the
    /// service's may not stay below.
    pub(in crate::naming) fn edit(
        &mut self,
        now_ms: u64,
        key: &ServiceKey,
        endpoint: &Endpoint,
        stamp: Stamp,
        edit: impl FnOnce(&mut Entry),
    ) {
        let begun = self.clocks.lists.now(now_ms);
        let new = || Service::new(key.clone(), now_ms, begun);
        let service = self.services.get_or_insert(key, new);
        let mut shown = Shown {
            listed: &mut self.listed,
            events: &mut self.events,
            clock: &mut self.clocks.lists,
            restamped: (!self.is_alone).then_some(&mut self.restamped),
        };
        shown.edit(now_ms, service, endpoint, stamp, edit);
    }

    /// Raises the stamp of a service above what readers have, and tells.
    pub(in crate::naming) fn changed(&mut self, now_ms: u64, key: &ServiceKey, at_least: Stamp) {
        if let Some(service) = self.services.get_mut(key) {
            let restamped = (!self.is_alone).then_some(&mut self.restamped);
            self.events.push(raised(
                &mut self.clocks.lists,
                now_ms,
                service,
                at_least,
                restamped,
            ));
        }
    }

    pub(in crate::naming) fn service_mut(&mut self, now_ms: u64, key: &ServiceKey) -> &mut Service {
        let stamp = self.clocks.lists.now(now_ms);
        let new = || Service::new(key.clone(), now_ms, stamp);
        self.services.get_or_insert(key, new)
    }

    /// Forgets what is in a bucket, has been empty since `before_ms` or longer, and has no settings.
    pub(in crate::naming) fn forget_empty(&mut self, bucket: usize, before_ms: u64) {
        self.services.retain_in(bucket, |service| {
            let idle = service.empty_since.is_some_and(|since| since <= before_ms);
            !idle || !service.entries.is_empty() || service.overlay != Overlay::default()
        });
    }
}

/// What changes with what readers see: borrowed apart from the services, so that one is looked up once.
pub(in crate::naming) struct Shown<'a> {
    pub(in crate::naming) listed: &'a mut Listed,
    pub(in crate::naming) events: &'a mut Vec<Event>,
    pub(in crate::naming) clock: &'a mut StampClock,
    /// `None` while there is nobody to tell.
    pub(in crate::naming) restamped: Option<&'a mut Vec<ServiceKey>>,
}

impl Shown<'_> {
    /// See [`Registry::edit`].
    pub(in crate::naming) fn edit(
        &mut self,
        now_ms: u64,
        service: &mut Service,
        endpoint: &Endpoint,
        stamp: Stamp,
        edit: impl FnOnce(&mut Entry),
    ) {
        let (was_empty, instances) = (service.empty_since.is_some(), service.live);
        let differs = service.edit(endpoint, now_ms, edit);
        self.listed.instances = self.listed.instances + service.live - instances;
        let is_empty = service.empty_since.is_some();
        match (was_empty, is_empty) {
            (true, false) => self.events.push(Event::Appeared(service.key.clone())),
            (false, true) => self.events.push(Event::Vanished(service.key.clone())),
            _ => {}
        }
        if was_empty != is_empty {
            self.listed.set(&service.key, service.is_listed());
        }
        if differs {
            let restamped = self.restamped.as_deref_mut();
            self.events
                .push(raised(self.clock, now_ms, service, stamp, restamped));
        }
    }
}

/// Readers see something else of a service: a stamp above what they have, and the word of it.
fn raised(
    clock: &mut StampClock,
    now_ms: u64,
    service: &mut Service,
    at_least: Stamp,
    restamped: Option<&mut Vec<ServiceKey>>,
) -> Event {
    clock.hear(now_ms, at_least);
    service.stamp = if has(Bug::StampsDoNotRise) {
        clock.now(now_ms)
    } else {
        // Above `at_least` too: whoever shows that may show something else.
        clock.draw(now_ms, service.stamp.max(at_least))
    };
    service.content = service.stamp;
    if let Some(restamped) = restamped
        && !std::mem::replace(&mut service.is_restamped, true)
    {
        restamped.push(service.key.clone());
    }
    Event::Changed {
        service: service.key.clone(),
        stamp: service.stamp,
    }
}
