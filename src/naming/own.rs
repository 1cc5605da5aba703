//! The records of this node: what they are about, and how they change.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use crate::model::{Endpoint, ServiceKey};

use super::bugs::{Bug, has};
use super::changes::bucket_of;
use super::expiry::TIMER_MAX_MS;
use super::record::{Body, Owner, Record, RecordKey};
use super::registry::{Registry, Shown, Timer};
use super::service::Service;
use super::stamp::Stamp;
use super::wheel::Wheel;

/// Names a record of this node in four bytes. A record keeps its id as long as it is there; afterwards
/// another one may get it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RecordId(pub(super) u32);

impl RecordId {
    /// Of the copy of another node's record.
    pub(super) const NONE: RecordId = RecordId(u32::MAX);
}

/// What each record of this node is about. Timers, the order of changes and connections name a record by its
/// id, so that its key stands in memory once.
#[derive(Debug, Default)]
pub(super) struct Own {
    keys: Vec<Option<RecordKey>>,
    /// Places without a record; the lowest is taken first, so that what a burst leaves is behind all others.
    free: BinaryHeap<Reverse<RecordId>>,
}

/// So many places that nobody uses are no reason to give memory back.
const SPARE: usize = 4_096;

impl Own {
    fn add(&mut self, key: RecordKey) -> RecordId {
        if let Some(Reverse(id)) = self.free.pop()
            && let Some(slot) = self.keys.get_mut(id.0 as usize)
        {
            *slot = Some(key);
            return id;
        }
        // A node writes a million records at most (its owner sees to that).
        let id = RecordId(u32::try_from(self.keys.len()).unwrap_or(u32::MAX));
        self.keys.push(Some(key));
        id
    }

    fn remove(&mut self, id: RecordId) -> Option<RecordKey> {
        let key = self.keys.get_mut(id.0 as usize)?.take()?;
        self.free.push(Reverse(id));
        Some(key)
    }

    /// What a record is about; `None` for one that is not there any more.
    pub(super) fn get(&self, id: RecordId) -> Option<&RecordKey> {
        self.keys.get(id.0 as usize)?.as_ref()
    }

    /// Gives back the places behind the last record, if they are many.
    pub(super) fn shrink(&mut self) {
        if self.free.len() < SPARE.max(self.keys.len() / 2) {
            return;
        }
        let last = self.keys.iter().rposition(Option::is_some);
        let len = last.map_or(0, |last| last + 1);
        self.keys.truncate(len);
        self.keys.shrink_to_fit();
        self.free.retain(|Reverse(id)| (id.0 as usize) < len);
        self.free.shrink_to_fit();
    }

    /// Places that take memory.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.keys.capacity()
    }

    /// Records that are there.
    pub(super) fn len(&self) -> usize {
        self.keys.len() - self.free.len()
    }
}

impl Registry {
    /// Records of this node, tombstones among them.
    pub fn own_records(&self) -> usize {
        self.own.len()
    }

    /// Number of instances that a connection keeps alive.
    pub fn kept(&self, connection: &str) -> usize {
        self.connections.get(connection).map_or(0, BTreeSet::len)
    }

    /// What a connection keeps alive in a service, sorted. Costs what the connection keeps or what the service
    /// has, whichever is less.
    pub(super) fn kept_by(&self, connection: &str, service: &ServiceKey) -> Vec<Endpoint> {
        let Some(kept) = self.connections.get(connection) else {
            return Vec::new();
        };
        let Some(entries) = self.services.get(service).map(|service| &service.entries) else {
            return Vec::new();
        };
        if entries.len() < kept.len() {
            let is_kept = |record: &Record| {
                record.origin == self.me
                    && matches!(&record.owner, Owner::Connection(id) if **id == *connection)
            };
            let entries = entries.iter();
            return entries
                .filter(|(_, entry)| entry.records.iter().any(is_kept))
                .map(|(endpoint, _)| endpoint.clone())
                .collect();
        }
        let keys = kept.iter().filter_map(|id| self.own.get(*id));
        let mut endpoints: Vec<_> = keys
            .filter(|key| key.service == *service)
            .map(|key| key.endpoint.clone())
            .collect();
        endpoints.sort();
        endpoints
    }

    /// Writes this node's record with this stamp.
    pub(super) fn write_own(
        &mut self,
        now_ms: u64,
        service: &ServiceKey,
        endpoint: &Endpoint,
        owner: &Owner,
        stamp: Stamp,
        body: Body,
    ) {
        let me = self.me;
        let (key, begun) = (service, self.clocks.lists.now(now_ms));
        let new = || Service::new(key.clone(), now_ms, begun);
        let service = self.services.get_or_insert(key, new);
        let known = service.entries.get_key_value(endpoint);
        let before = known.and_then(|(_, entry)| entry.record(me, owner));
        let id = match before {
            Some(before) => before.id,
            // In the texts that the registry holds already.
            None => self.own.add(RecordKey {
                service: service.key.clone(),
                endpoint: known.map_or(endpoint, |(known, _)| known).clone(),
                owner: owner.clone(),
            }),
        };
        let revision = self.changes.written(id, before.map(|record| record.revision));
        // A timer that turns a record unhealthy is no sign of life.
        let heard_ms = match before {
            Some(record) if record.stamp == stamp => record.heard_ms,
            _ => now_ms,
        };
        let mut record = Record {
            origin: me,
            id,
            owner: owner.clone(),
            stamp,
            revision,
            body,
            heard_ms,
            timer_ms: before.map_or(u64::MAX, |record| record.timer_ms),
        };
        self.tombstones += usize::from(!record.is_live());
        let bucket = bucket_of(key);
        if let Some(before) = before {
            self.tombstones -= usize::from(!before.is_live());
            self.digest.toggle(bucket, before.digest(key, endpoint));
        }
        self.digest.toggle(bucket, record.digest(key, endpoint));
        match owner {
            Owner::Beats => arm(&mut self.timers, now_ms, &mut record),
            Owner::Connection(connection) => match self.connections.get_mut(connection) {
                Some(kept) => drop(kept.insert(id)),
                None => drop(self.connections.insert(connection.clone(), BTreeSet::from([id]))),
            },
        }
        let mut shown = Shown {
            listed: &mut self.listed,
            events: &mut self.events,
            clock: &mut self.clocks.lists,
            restamped: (!self.is_alone).then_some(&mut self.restamped),
        };
        shown.edit(now_ms, service, endpoint, stamp, |entry| entry.put(record));
    }

    /// Takes this node's record away.
    pub(super) fn remove_own(
        &mut self,
        now_ms: u64,
        service: &ServiceKey,
        endpoint: &Endpoint,
        owner: &Owner,
    ) {
        let Some(record) = self.own_record(service, endpoint, owner).cloned() else {
            return;
        };
        self.tombstones -= usize::from(!record.is_live());
        let bucket = bucket_of(service);
        if !has(Bug::RemovedStaysInDigest) {
            self.digest.toggle(bucket, record.digest(service, endpoint));
        }
        if let Some(key) = self.own.remove(record.id) {
            self.changes.removed(key, record.revision);
        }
        if let Owner::Connection(connection) = owner
            && let Some(kept) = self.connections.get_mut(connection)
        {
            kept.remove(&record.id);
        }
        let me = self.me;
        self.edit(now_ms, service, endpoint, Stamp::default(), |entry| {
            entry.records.retain(|record| {
                record.origin != me || (record.owner != *owner && !has(Bug::DisconnectTakesAll))
            });
        });
    }
}

/// Has the record looked at when it is due; a timer that rings earlier will do.
fn arm(timers: &mut Wheel<Timer>, now_ms: u64, record: &mut Record) {
    let at_ms = (record.heard_ms + record.rests_ms()).min(now_ms + TIMER_MAX_MS);
    if at_ms < record.timer_ms {
        record.timer_ms = at_ms;
        let record = record.id;
        timers.set(at_ms, Timer { record, at_ms });
    }
}
