//! Everything this node knows about services: its own records and the copies of other nodes' records.

mod listed;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use crate::model::{Endpoint, ServiceKey};

use super::bugs::{Bug, has};
use super::changes::{Changes, Digest};
use super::expiry::TOMBSTONE_MAX_MS;
use super::instance::{BEAT_INTERVAL_MS, DELETE_TIMEOUT_MS, Instance};
use super::overlay::{ClusterMetadata, InstanceOverride, Overlay, ServiceMetadata};
use super::own::{Own, RecordId};
use super::record::{Body, Origin, Owner, Record, RecordKey, Revision};
use super::replica::Copies;
use super::service::{Entry, Persistent, Seen, Service};
use super::stamp::{Stamp, StampClock};
use super::view::{Filter, Tally, View};
use super::wheel::Wheel;

/// A tombstone is kept for the delete timeout of what it covers and this much more, ms.
const TOMBSTONE_EXTRA_MS: u64 = 60_000;
/// Of so many tombstones none more is written for what nobody here knows: whoever makes names up fills no
/// memory.
const BLIND_TOMBSTONES_MAX: usize = 10_000;
/// For so long after a deregistration a full beat does not bring an instance back: it may have been under
/// way, ms.
const BEAT_HELD_OFF_MS: u64 = 10_000;

/// Something that others may want to act upon; taken with [`Registry::take_events`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Readers see something else.
    Changed {
        /// Of this service.
        service: ServiceKey,
        /// Its stamp from now on.
        stamp: Stamp,
    },
    /// The first instance of a service is there.
    Appeared(ServiceKey),
    /// The last instance of a service is gone.
    Vanished(ServiceKey),
    /// Another node says that an instance was deregistered which a connection of this node keeps alive.
    /// Proof of life from after this moment writes it again: [`Registry::reassert`].
    Covered(Arc<str>),
}

/// The kind of instances that a service holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Kept alive by their clients.
    Ephemeral,
    /// Kept in the replicated state.
    Persistent,
}

/// The service holds instances of the other kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("service {service} holds {} instances", match .holds { Kind::Ephemeral => "ephemeral", Kind::Persistent => "persistent" })]
pub struct WrongKind {
    /// The service.
    pub service: ServiceKey,
    /// What it holds.
    pub holds: Kind,
}

/// Asks to look at the record that beats keep alive, or at the tombstone in its place.
#[derive(Debug)]
pub(super) struct Timer {
    /// The record, or another one that has got its id since; looking at that for nothing costs little.
    pub(super) record: RecordId,
    /// When it rings; the record knows which of its timers counts.
    pub(super) at_ms: u64,
}

/// What comes of a beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    /// The instance is known.
    Taken {
        /// When the next beat is asked for, ms.
        interval_ms: u64,
    },
    /// No such instance, and the beat does not say enough to make one.
    Unknown,
}

/// The registry. A plain value: it reads no clock (every act is told the monotonic time in milliseconds, and
/// times never go back), waits for nothing and does no I/O.
#[derive(Debug)]
pub struct Registry {
    pub(super) me: Origin,
    pub(super) clock: StampClock,
    pub(super) services: HashMap<ServiceKey, Service>,
    /// The names of `services`, in order, for pages.
    names: BTreeSet<ServiceKey>,
    /// Those that lists show.
    listed: listed::Listed,
    /// What each connection of this node keeps alive.
    pub(super) connections: HashMap<Arc<str>, BTreeSet<RecordId>>,
    /// What the records of this node are about.
    pub(super) own: Own,
    pub(super) changes: Changes,
    pub(super) digest: Digest,
    pub(super) copies: BTreeMap<Origin, Copies>,
    pub(super) timers: Wheel<Timer>,
    pub(super) events: Vec<Event>,
    /// See [`Registry::take_changed_alone`].
    pub(super) changed_alone: BTreeSet<ServiceKey>,
    /// There are no other nodes.
    pub(super) is_alone: bool,
    /// Up to where every member has confirmed the changes of this node.
    pub(super) confirmed_by_all: Revision,
    /// Tombstones of this node.
    pub(super) tombstones: usize,
}

impl Registry {
    /// An empty one.
    pub fn new(me: Origin, clock: StampClock) -> Registry {
        Registry {
            me,
            clock,
            services: HashMap::new(),
            names: BTreeSet::new(),
            listed: listed::Listed::default(),
            connections: HashMap::new(),
            own: Own::default(),
            changes: Changes::default(),
            digest: Digest::default(),
            copies: BTreeMap::new(),
            timers: Wheel::default(),
            events: Vec::new(),
            changed_alone: BTreeSet::new(),
            is_alone: false,
            confirmed_by_all: Revision::default(),
            tombstones: 0,
        }
    }

    /// What has happened since the last call, in order.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    // What clients do.

    /// A client registers an instance, or says something new about it.
    ///
    /// # Errors
    /// The service holds persistent instances.
    pub fn register(
        &mut self,
        now_ms: u64,
        owner: &Owner,
        service: &ServiceKey,
        endpoint: &Endpoint,
        instance: Instance,
        healthy: bool,
    ) -> Result<(), WrongKind> {
        self.register_over(
            now_ms,
            owner,
            service,
            endpoint,
            (instance, healthy),
            Stamp::default(),
        )
    }

    /// As [`Registry::register`], over all that a node knows whose highest stamp of the instance is `above`:
    /// it may have heard of a deregistration that this one has not.
    ///
    /// # Errors
    /// As there.
    pub fn register_over(
        &mut self,
        now_ms: u64,
        owner: &Owner,
        service: &ServiceKey,
        endpoint: &Endpoint,
        (instance, healthy): (Instance, bool),
        above: Stamp,
    ) -> Result<(), WrongKind> {
        self.expect_kind(service, Kind::Ephemeral)?;
        let body = Body::Live {
            instance: Arc::new(instance),
            healthy,
        };
        let known = self.own_record(service, endpoint, owner);
        let wins = self.winner_is(service, endpoint, owner);
        if wins && known.is_some_and(|record| record.body == body && record.stamp >= above) {
            // A redo: nothing is new but the sign of life.
            self.touch(now_ms, service, endpoint, owner);
            return Ok(());
        }
        self.clock.hear(now_ms, Stamp(above.0.saturating_add(1)));
        self.write_above(now_ms, service, endpoint, owner, body);
        Ok(())
    }

    /// A connection says the whole set of instances that it keeps alive in a service; others that it kept
    /// there are gone.
    ///
    /// # Errors
    /// The service holds persistent instances; nothing is changed.
    pub fn register_set(
        &mut self,
        now_ms: u64,
        connection: &Arc<str>,
        service: &ServiceKey,
        set: Vec<(Endpoint, Instance, bool)>,
    ) -> Result<(), WrongKind> {
        self.expect_kind(service, Kind::Ephemeral)?;
        let owner = Owner::Connection(Arc::clone(connection));
        let kept: BTreeSet<&Endpoint> = set.iter().map(|(endpoint, _, _)| endpoint).collect();
        let mut gone = self.kept_by(connection, service);
        gone.retain(|before| !kept.contains(before));
        for endpoint in gone {
            self.withdraw(now_ms, connection, service, &endpoint);
        }
        for (endpoint, instance, healthy) in set {
            self.register(now_ms, &owner, service, &endpoint, instance, healthy)?;
        }
        Ok(())
    }

    /// A client takes an instance away; what other nodes say about it until now is covered. False if
    /// nobody here knows of it: another node may, so a tombstone is written all the same.
    pub fn deregister(&mut self, now_ms: u64, service: &ServiceKey, endpoint: &Endpoint) -> bool {
        let records = self
            .entry(service, endpoint)
            .map(|entry| entry.records.as_slice());
        let records = records.unwrap_or_default();
        let live: Vec<_> = records.iter().filter(|record| record.is_live()).collect();
        let known = !live.is_empty();
        if !known && (!records.is_empty() || self.tombstones >= BLIND_TOMBSTONES_MAX) {
            return false;
        }
        let longest = live.iter().filter_map(|record| match &record.body {
            Body::Live { instance, .. } => Some(instance.delete_timeout_ms()),
            Body::Tombstone { .. } => None,
        });
        let keep_ms = longest.max().unwrap_or(DELETE_TIMEOUT_MS) + TOMBSTONE_EXTRA_MS;
        let own: Vec<Owner> = live
            .iter()
            .filter(|record| record.origin == self.me && record.owner != Owner::Beats)
            .map(|record| record.owner.clone())
            .collect();
        // With nobody else only beats of this very instance may still be under way.
        let keep_ms = match self.is_alone {
            true => BEAT_HELD_OFF_MS,
            false => keep_ms.min(TOMBSTONE_MAX_MS),
        };
        if has(Bug::NoTombstone) {
            self.remove_own(now_ms, service, endpoint, &Owner::Beats);
        } else {
            let keep_ms = if has(Bug::TombstoneForgotten) {
                2_000
            } else {
                keep_ms
            };
            let tombstone = Body::Tombstone { keep_ms };
            self.write_above(now_ms, service, endpoint, &Owner::Beats, tombstone);
        }
        for owner in own {
            self.remove_own(now_ms, service, endpoint, &owner);
        }
        known
    }

    /// A beat; `full` is what a full beat says of the instance.
    pub fn beat(
        &mut self,
        now_ms: u64,
        service: &ServiceKey,
        endpoint: &Endpoint,
        full: Option<Instance>,
    ) -> Beat {
        let winner = self.entry(service, endpoint).and_then(Entry::winner);
        let (instance, fresh) = match winner {
            Some(Record {
                origin,
                owner,
                body: Body::Live { instance, healthy },
                ..
            }) => {
                let own = *origin == self.me && *owner == Owner::Beats;
                let below =
                    has(Bug::BeatStaysBelow) && self.own_record(service, endpoint, &Owner::Beats).is_some();
                let fresh = (own || below) && (*healthy || has(Bug::NoRevival));
                (Arc::clone(instance), fresh)
            }
            Some(Record {
                body: Body::Tombstone { .. },
                heard_ms,
                ..
            }) => match full {
                None => return Beat::Unknown,
                Some(instance) if now_ms < heard_ms + BEAT_HELD_OFF_MS => return taken(&instance),
                Some(instance) => (Arc::new(instance), false),
            },
            None => match full {
                None => return Beat::Unknown,
                Some(instance) => (Arc::new(instance), false),
            },
        };
        let answer = taken(&instance);
        if fresh {
            self.touch(now_ms, service, endpoint, &Owner::Beats);
        } else {
            let body = Body::Live {
                instance,
                healthy: true,
            };
            self.write_above(now_ms, service, endpoint, &Owner::Beats, body);
        }
        answer
    }

    /// A connection is gone, and with it what it kept alive.
    pub fn disconnect(&mut self, now_ms: u64, connection: &Arc<str>) {
        let owner = Owner::Connection(Arc::clone(connection));
        for id in self.connections.remove(connection).unwrap_or_default() {
            if let Some(RecordKey {
                service, endpoint, ..
            }) = self.own.get(id).cloned()
            {
                self.remove_own(now_ms, &service, &endpoint, &owner);
            }
        }
    }

    /// A connection has proved that it lives: what it keeps alive and other nodes' tombstones cover is
    /// written again.
    pub fn reassert(&mut self, now_ms: u64, connection: &Arc<str>) {
        let owner = Owner::Connection(Arc::clone(connection));
        for id in self.connections.get(connection).cloned().unwrap_or_default() {
            let Some(RecordKey {
                service, endpoint, ..
            }) = self.own.get(id).cloned()
            else {
                continue;
            };
            let winner = self.entry(&service, &endpoint).and_then(Entry::winner);
            if winner.is_some_and(Record::is_live) {
                continue;
            }
            if let Some(record) = self.own_record(&service, &endpoint, &owner) {
                let body = record.body.clone();
                self.write_above(now_ms, &service, &endpoint, &owner, body);
            }
        }
    }

    // What readers ask.

    /// What a reader sees of a service; `None` for one that nobody ever registered, or that was forgotten.
    pub fn view(&self, service: &ServiceKey, filter: &Filter) -> Option<View> {
        Some(self.services.get(service)?.view(filter))
    }

    /// The stamp of what readers see now.
    pub fn stamp(&self, now_ms: u64, service: &ServiceKey) -> Stamp {
        let service = self.services.get(service);
        service.map_or_else(|| self.clock.now(now_ms), |service| service.stamp)
    }

    /// The state of a service, and its stamp. What readers see is the same as long as the state is; the stamp
    /// may have been raised since. `None` for a service that is not known.
    pub fn version(&self, service: &ServiceKey) -> Option<(Stamp, Stamp)> {
        let service = self.services.get(service)?;
        Some((service.content, service.stamp))
    }

    /// Services that are known.
    pub fn service_count(&self) -> usize {
        self.services.len()
    }

    /// The highest stamp of anything that is said about an instance here; the lowest of all for nothing.
    pub fn highest(&self, service: &ServiceKey, endpoint: &Endpoint) -> Stamp {
        let entry = self.entry(service, endpoint);
        entry.map(Entry::highest).unwrap_or_default()
    }

    /// The present in logical time, for peers.
    pub fn logical_now(&self, now_ms: u64) -> Stamp {
        self.clock.now(now_ms)
    }

    /// A peer's logical time: nothing below it is drawn any more.
    pub fn hear(&mut self, now_ms: u64, clock: Stamp) {
        self.clock.hear(now_ms, clock);
    }

    /// Raises the stamp of a service for a new subscriber, who may have heard a higher one elsewhere.
    pub fn raise(&mut self, now_ms: u64, service: &ServiceKey) -> Stamp {
        match self.services.get_mut(service) {
            Some(service) => {
                service.stamp = self.clock.draw(now_ms, service.stamp);
                service.stamp
            }
            None => self.clock.draw(now_ms, Stamp::default()),
        }
    }

    /// What readers see of one instance.
    pub fn instance(&self, service: &ServiceKey, endpoint: &Endpoint) -> Option<Seen> {
        self.services.get(service)?.seen(endpoint)
    }

    /// True for a service that has instances, had some until a moment ago, or was made by an operator.
    pub fn knows(&self, service: &ServiceKey) -> bool {
        self.services.contains_key(service)
    }

    /// True while a service has an instance.
    pub fn has_instances(&self, service: &ServiceKey) -> bool {
        let service = self.services.get(service);
        service.is_some_and(|service| service.empty_since.is_none())
    }

    /// Services with instances behind `after` within its namespace: of the next `count` names; and the last of
    /// those names, `None` behind the last.
    pub fn populated_after(&self, after: &ServiceKey, count: usize) -> (Vec<ServiceKey>, Option<ServiceKey>) {
        let names = self.names.range((Bound::Excluded(after), Bound::Unbounded));
        let names: Vec<&ServiceKey> = names
            .take_while(|name| name.namespace() == after.namespace())
            .take(count)
            .collect();
        let last = names.last().map(|name| (*name).clone());
        let populated = names.into_iter().filter(|name| self.has_instances(name));
        (populated.cloned().collect(), last)
    }

    /// Services behind `after` in the order of their names.
    pub fn services(&self, after: Option<&ServiceKey>) -> impl Iterator<Item = (&ServiceKey, Tally)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let names = self.names.range((from, Bound::Unbounded));
        names.filter_map(|name| Some((name, self.services.get(name)?.tally())))
    }

    /// What operators have set for a service.
    pub fn overlay(&self, service: &ServiceKey) -> Option<&Overlay> {
        Some(&self.services.get(service)?.overlay)
    }

    /// The kind of instances a service holds; `None` while it may take either.
    pub fn kind(&self, service: &ServiceKey) -> Option<Kind> {
        let service = self.services.get(service)?;
        if let Some((_, seen)) = service.instances().next() {
            return Some(if seen.ephemeral {
                Kind::Ephemeral
            } else {
                Kind::Persistent
            });
        }
        let set = service.overlay.service.as_ref()?;
        Some(if set.ephemeral {
            Kind::Ephemeral
        } else {
            Kind::Persistent
        })
    }

    /// Whether there are other nodes, which may hold older words.
    pub fn set_alone(&mut self, is_alone: bool) {
        self.is_alone = is_alone;
    }

    // What the replicated state says.

    /// A persistent instance is there, or its health has changed; `None`: it was deregistered.
    pub fn set_persistent(
        &mut self,
        now_ms: u64,
        service: &ServiceKey,
        endpoint: &Endpoint,
        persistent: Option<Persistent>,
    ) {
        if persistent.is_some() || self.services.contains_key(service) {
            self.edit(now_ms, service, endpoint, Stamp::default(), |entry| {
                entry.persistent = persistent;
            });
        }
    }

    /// What is set for a service; `None`: nothing any more.
    pub fn set_service(&mut self, now_ms: u64, service: &ServiceKey, set: Option<ServiceMetadata>) {
        self.overlay_changed(now_ms, service, |overlay| {
            let differs = overlay.service != set;
            overlay.service = set;
            differs
        });
    }

    /// What is set for a cluster; `None`: nothing any more.
    pub fn set_cluster(
        &mut self,
        now_ms: u64,
        service: &ServiceKey,
        cluster: &Arc<str>,
        set: Option<ClusterMetadata>,
    ) {
        self.overlay_changed(now_ms, service, |overlay| {
            let differs = overlay.clusters.get(cluster) != set.as_ref();
            match set {
                Some(set) => overlay.clusters.insert(Arc::clone(cluster), set),
                None => overlay.clusters.remove(cluster),
            };
            differs
        });
    }

    /// What is set for an instance; `None`: its client's word alone counts again.
    pub fn set_override(
        &mut self,
        now_ms: u64,
        service: &ServiceKey,
        endpoint: &Endpoint,
        set: Option<InstanceOverride>,
    ) {
        self.overlay_changed(now_ms, service, |overlay| {
            let differs = overlay.instances.get(endpoint) != set.as_ref();
            match set {
                Some(set) => overlay.instances.insert(endpoint.clone(), set),
                None => overlay.instances.remove(endpoint),
            };
            differs
        });
    }

    /// `change` says whether anything differs.
    fn overlay_changed(&mut self, now_ms: u64, key: &ServiceKey, change: impl FnOnce(&mut Overlay) -> bool) {
        if change(&mut self.service_mut(now_ms, key).overlay) {
            self.relist(key);
            self.changed(now_ms, key, Stamp::default());
        }
    }

    // How records change.

    pub(crate) fn entry(&self, service: &ServiceKey, endpoint: &Endpoint) -> Option<&Entry> {
        self.services.get(service)?.entries.get(endpoint)
    }

    pub(super) fn own_record(
        &self,
        service: &ServiceKey,
        endpoint: &Endpoint,
        owner: &Owner,
    ) -> Option<&Record> {
        self.entry(service, endpoint)?.record(self.me, owner)
    }

    fn winner_is(&self, service: &ServiceKey, endpoint: &Endpoint, owner: &Owner) -> bool {
        let winner = self.entry(service, endpoint).and_then(Entry::winner);
        winner.is_some_and(|record| record.origin == self.me && record.owner == *owner)
    }

    fn expect_kind(&self, service: &ServiceKey, kind: Kind) -> Result<(), WrongKind> {
        match self.kind(service) {
            Some(holds) if holds != kind => Err(WrongKind {
                service: service.clone(),
                holds,
            }),
            _ => Ok(()),
        }
    }

    /// A sign of life that changes nothing.
    fn touch(&mut self, now_ms: u64, service: &ServiceKey, endpoint: &Endpoint, owner: &Owner) {
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
    fn write_above(
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
        let stamp = self.clock.draw(now_ms, highest);
        self.write_own(now_ms, service, endpoint, owner, stamp, body);
    }

    /// Changes what is said about an instance, and tells if readers see it. `stamp` is one that the
    /// service's may not stay below.
    pub(super) fn edit(
        &mut self,
        now_ms: u64,
        key: &ServiceKey,
        endpoint: &Endpoint,
        stamp: Stamp,
        edit: impl FnOnce(&mut Entry),
    ) {
        let service = self.service_mut(now_ms, key);
        let (was_empty, instances) = (service.empty_since.is_some(), service.live);
        let differs = service.edit(endpoint, now_ms, edit);
        let (is_empty, instances_now) = (service.empty_since.is_some(), service.live);
        self.listed.instances = self.listed.instances + instances_now - instances;
        match (was_empty, is_empty) {
            (true, false) => self.events.push(Event::Appeared(key.clone())),
            (false, true) => self.events.push(Event::Vanished(key.clone())),
            _ => {}
        }
        if was_empty != is_empty {
            self.relist(key);
        }
        if differs {
            self.changed(now_ms, key, stamp);
        }
    }

    /// Raises the stamp of a service above what readers have, and tells.
    pub(super) fn changed(&mut self, now_ms: u64, key: &ServiceKey, at_least: Stamp) {
        self.clock.hear(now_ms, at_least);
        if let Some(service) = self.services.get_mut(key) {
            service.stamp = if has(Bug::StampsDoNotRise) {
                self.clock.now(now_ms)
            } else {
                // Above `at_least` too: whoever shows that may show something else.
                self.clock.draw(now_ms, service.stamp.max(at_least))
            };
            service.content = service.stamp;
            self.events.push(Event::Changed {
                service: key.clone(),
                stamp: service.stamp,
            });
        }
    }

    pub(super) fn service_mut(&mut self, now_ms: u64, key: &ServiceKey) -> &mut Service {
        if !self.services.contains_key(key) {
            self.names.insert(key.clone());
        }
        let stamp = self.clock.now(now_ms);
        self.services
            .entry(key.clone())
            .or_insert_with(|| Service::new(key.clone(), now_ms, stamp))
    }

    /// Forgets a service that has been empty since `before_ms` or longer and for which nothing is set.
    pub(super) fn forget_empty(&mut self, before_ms: u64) {
        let names = &mut self.names;
        self.services.retain(|key, service| {
            let idle = service.empty_since.is_some_and(|since| since <= before_ms);
            let keep = !idle || !service.entries.is_empty() || service.overlay != Overlay::default();
            if !keep {
                names.remove(key);
            }
            keep
        });
    }
}

fn taken(instance: &Instance) -> Beat {
    Beat::Taken {
        interval_ms: instance.beat_interval_ms().unwrap_or(BEAT_INTERVAL_MS),
    }
}
