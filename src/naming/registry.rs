//! Everything this node knows about services: its own records and the copies of other nodes' records.

mod listed;
mod reads;
mod writes;

pub(super) use writes::Shown;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::model::{Endpoint, ServiceKey};

use super::bugs::{Bug, has};
use super::changes::{Changes, Digest};
use super::expiry::TOMBSTONE_MAX_MS;
use super::instance::{BEAT_INTERVAL_MS, DELETE_TIMEOUT_MS, Instance};
use super::own::{Own, RecordId};
use super::record::{Body, Origin, Owner, Record, RecordKey, Revision};
use super::replica::Copies;
use super::service::Entry;
use super::services::{Seeded, Services};
use super::stamp::{Clocks, Stamp};
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

impl Kind {
    /// Of what is ephemeral, or not.
    pub fn of(ephemeral: bool) -> Kind {
        match ephemeral {
            true => Kind::Ephemeral,
            false => Kind::Persistent,
        }
    }
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
    pub(super) clocks: Clocks,
    pub(super) services: Services,
    /// Those that lists show.
    pub(super) listed: listed::Listed,
    /// What each connection of this node keeps alive.
    pub(super) connections: HashMap<Arc<str>, BTreeSet<RecordId>, Seeded>,
    /// What the records of this node are about.
    pub(super) own: Own,
    pub(super) changes: Changes,
    pub(super) digest: Digest,
    pub(super) copies: BTreeMap<Origin, Copies>,
    pub(super) timers: Wheel<Timer>,
    pub(super) events: Vec<Event>,
    /// See [`Registry::take_restamped`].
    pub(super) restamped: Vec<ServiceKey>,
    /// There are no other nodes.
    pub(super) is_alone: bool,
    /// Up to where every member has confirmed the changes of this node.
    pub(super) confirmed_by_all: Revision,
    /// Tombstones of this node.
    pub(super) tombstones: usize,
    /// See [`Registry::renew_deadlines`].
    pub(super) renewed_ms: u64,
}

impl Registry {
    /// An empty one.
    pub fn new(me: Origin, clocks: impl Into<Clocks>) -> Registry {
        Registry {
            me,
            clocks: clocks.into(),
            services: Services::default(),
            listed: listed::Listed::default(),
            connections: HashMap::default(),
            own: Own::default(),
            changes: Changes::default(),
            digest: Digest::default(),
            copies: BTreeMap::new(),
            timers: Wheel::default(),
            events: Vec::new(),
            restamped: Vec::new(),
            is_alone: false,
            confirmed_by_all: Revision::default(),
            tombstones: 0,
            renewed_ms: 0,
        }
    }

    /// Whether there are other nodes, which may hold older words.
    pub fn set_alone(&mut self, is_alone: bool) {
        self.is_alone = is_alone;
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
        self.expect_ephemeral(service, std::iter::once(endpoint))?;
        self.register_checked(now_ms, owner, service, endpoint, (instance, healthy), above);
        Ok(())
    }

    /// The service may hold it.
    fn register_checked(
        &mut self,
        now_ms: u64,
        owner: &Owner,
        service: &ServiceKey,
        endpoint: &Endpoint,
        (instance, healthy): (Instance, bool),
        above: Stamp,
    ) {
        let body = Body::Live {
            instance: Arc::new(instance),
            healthy,
        };
        let entry = self.entry(service, endpoint);
        let highest = entry.map(Entry::highest).unwrap_or_default();
        let wins = |record: &&Record| record.origin == self.me && record.owner == *owner;
        let winner = entry.and_then(Entry::winner).filter(wins);
        if winner.is_some_and(|record| record.body == body && record.stamp >= above) {
            // A redo: nothing is new but the sign of life.
            return self.touch(now_ms, service, endpoint, owner);
        }
        self.clocks.acts.hear(now_ms, Stamp(above.0.saturating_add(1)));
        let stamp = self.clocks.acts.draw(now_ms, highest);
        self.write_own(now_ms, service, endpoint, owner, stamp, body);
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
        self.expect_ephemeral(service, set.iter().map(|(endpoint, ..)| endpoint))?;
        let mut gone = self.kept_by(connection, service);
        if !gone.is_empty() {
            let kept: BTreeSet<&Endpoint> = set.iter().map(|(endpoint, _, _)| endpoint).collect();
            gone.retain(|before| !kept.contains(before));
        }
        for endpoint in gone {
            self.withdraw(now_ms, connection, service, &endpoint);
        }
        let owner = Owner::Connection(Arc::clone(connection));
        for (endpoint, instance, healthy) in set {
            let said = (instance, healthy);
            self.register_checked(now_ms, &owner, service, &endpoint, said, Stamp::default());
        }
        Ok(())
    }

    /// A client takes an instance away; what other nodes say about it until now is covered. False if
    /// nobody here knows of it: another node may, so a tombstone is written all the same.
    pub fn deregister(&mut self, now_ms: u64, service: &ServiceKey, endpoint: &Endpoint) -> bool {
        let me = self.me;
        let records = self.entry(service, endpoint).map(|entry| entry.records.iter());
        let own = records
            .into_iter()
            .flatten()
            .filter(|record| record.is_live() && record.origin == me && record.owner != Owner::Beats);
        let own: Vec<Owner> = own.map(|record| record.owner.clone()).collect();
        let known = self.cover(now_ms, service, endpoint);
        for owner in own {
            self.remove_own(now_ms, service, endpoint, &owner);
        }
        known
    }

    /// Writes a tombstone above all that is said about an instance. False, as [`Registry::deregister`] says.
    pub(super) fn cover(&mut self, now_ms: u64, service: &ServiceKey, endpoint: &Endpoint) -> bool {
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
        let _all = self.disconnect_some(now_ms, connection, usize::MAX);
    }

    /// As [`Registry::disconnect`], for at most so many instances; true: there are more.
    pub fn disconnect_some(&mut self, now_ms: u64, connection: &Arc<str>, count_max: usize) -> bool {
        let Some(kept) = self.connections.get(connection) else {
            return false;
        };
        let owner = Owner::Connection(Arc::clone(connection));
        let ids: Vec<RecordId> = kept.iter().take(count_max).copied().collect();
        let more = ids.len() < kept.len();
        if !more {
            self.connections.remove(connection);
        }
        for id in ids {
            if let Some(RecordKey {
                service, endpoint, ..
            }) = self.own.get(id).cloned()
            {
                self.remove_own(now_ms, &service, &endpoint, &owner);
            }
        }
        more
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
}

fn taken(instance: &Instance) -> Beat {
    Beat::Taken {
        interval_ms: instance.beat_interval_ms().unwrap_or(BEAT_INTERVAL_MS),
    }
}
