//! Copies of other nodes' records, and what is sent to keep them true.
//!
//! Per origin one number says how much a copy knows: every change of the origin up to its *floor*. A batch
//! of changes begins at a revision and goes through to another; it is taken if it begins at or below the
//! floor, and moves it. A batch that begins above it is refused with the floor, and the sender begins there
//! again. A record that the copy does not have and whose change is not above the floor was removed since:
//! so nothing late brings anything back. Where a change has been forgotten by the origin, or digests
//! differ, a bucket of services is replaced as a whole (`bucket`).

use std::sync::Arc;

use crate::model::{Endpoint, ServiceKey};

use super::bugs::{Bug, has};
use super::changes::{BUCKETS, Change, Digest, bucket_of};
use super::own::RecordId;
use super::record::{Body, Origin, Owner, Record, RecordKey, Revision};
use super::registry::{Event, Registry};
use super::service::Service;
use super::stamp::Stamp;

/// What this node knows of another one's records.
#[derive(Debug, Default)]
pub(super) struct Copies {
    pub(super) floor: Revision,
    /// The newest change of a record that is here: above the floor when it came before others.
    newest: Revision,
    pub(super) digest: Digest,
    pub(super) records: usize,
    /// While they are being dropped: the bucket to go on with, and the floor. Meanwhile that is 0: what is not here
    /// of them says nothing to anybody.
    pub(super) dropping: Option<(usize, Revision)>,
}

/// How far [`Registry::drop_origin`] has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// Nothing is left.
    All,
    /// There is more to drop: call it again soon.
    More,
    /// What is left covers something: call it again later.
    Covering,
}

/// Records of an origin that are dropped at a time, before the bucket is looked at in which this was reached:
/// some 3 µs each.
const DROP_COUNT: usize = 1_000;

/// One change, on its way.
#[derive(Clone, Debug, PartialEq)]
pub struct Delta {
    /// Which record.
    pub key: RecordKey,
    /// The change.
    pub revision: Revision,
    /// What it says now; `None` when it was removed.
    pub written: Option<(Stamp, Body)>,
    /// The stamp of the service at the sender: the receiver's does not stay below.
    pub service_stamp: Stamp,
}

/// Changes of one origin, all of them behind `from` and up to `through` that still count.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Whose.
    pub origin: Origin,
    /// The first one is behind this.
    pub from: Revision,
    /// The last one is not behind this.
    pub through: Revision,
    /// In the order of their revisions.
    pub deltas: Vec<Delta>,
}

/// Why a batch was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Something before it is missing: begin at the floor.
    #[error("changes behind revision {} are missing", .floor.0)]
    Gap {
        /// What is known.
        floor: Revision,
    },
    /// The origin is this node, and only its earlier boots are heard of from others.
    #[error("the changes are said to be this node's own")]
    Own,
}

impl Registry {
    /// This node, as others know it.
    pub fn me(&self) -> Origin {
        self.me
    }

    /// The newest change of this node.
    pub fn newest(&self) -> Revision {
        self.changes.newest()
    }

    /// Digest of this node's records at [`Registry::newest`].
    pub fn own_digest(&self) -> &Digest {
        &self.digest
    }

    /// What this node has changed behind `known`, at most `count_max` changes; `None` if removals behind it
    /// have been forgotten, and buckets must be sent.
    pub fn batch(&self, known: Revision, count_max: usize) -> Option<Batch> {
        let mut through = self.changes.newest();
        let mut deltas = room(known, through, count_max);
        for (revision, change) in self.changes.behind(known)? {
            if deltas.len() == count_max {
                break;
            }
            let delta = match change {
                Change::Gone(_) if has(Bug::RemovalsAreNotSent) => continue,
                Change::Gone(key) => self.delta((**key).clone(), revision, None),
                Change::Written(id) => match self.own.get(*id) {
                    Some(key) => self.own_delta(key, revision),
                    None => continue,
                },
            };
            deltas.push(delta);
            if deltas.len() == count_max {
                through = revision;
            }
        }
        Some(Batch {
            origin: self.me,
            from: known,
            through,
            deltas,
        })
    }

    /// What this node has written last behind `from` and not behind `through`, at most `count_max` records, for
    /// one who knows nothing of it and hears of what is changed or removed meanwhile by [`Registry::batch`]
    /// from `through` on.
    pub fn written_batch(&self, from: Revision, mut through: Revision, count_max: usize) -> Batch {
        let mut deltas = room(from, through, count_max);
        for (revision, id) in self.changes.written_within(from, through) {
            let Some(key) = self.own.get(id) else { continue };
            deltas.push(self.own_delta(key, revision));
            if deltas.len() == count_max {
                through = revision;
                break;
            }
        }
        Batch {
            origin: self.me,
            from,
            through,
            deltas,
        }
    }

    /// What this node's own record says now.
    fn own_delta(&self, key: &RecordKey, revision: Revision) -> Delta {
        let service = self.services.get(&key.service);
        let entry = service.and_then(|service| service.entries.get(&key.endpoint));
        let record = entry.and_then(|entry| entry.record(self.me, &key.owner));
        delta_of(key.clone(), revision, service, record)
    }

    pub(super) fn delta(&self, key: RecordKey, revision: Revision, record: Option<&Record>) -> Delta {
        let service = self.services.get(&key.service);
        delta_of(key, revision, service, record)
    }

    /// Up to where the changes of an origin are known here.
    pub fn known(&self, origin: Origin) -> Revision {
        if origin == self.me {
            return self.changes.newest();
        }
        let copies = self.copies.get(&origin);
        copies.map(|copies| copies.floor).unwrap_or_default()
    }

    /// The newest change of an origin that is here, whether or not all before it are: [`Registry::known`] or above it.
    pub fn newest_of(&self, origin: Origin) -> Revision {
        let copies = self
            .copies
            .get(&origin)
            .filter(|copies| copies.dropping.is_none());
        let newest = copies.map(|copies| copies.newest).unwrap_or_default();
        newest.max(self.known(origin))
    }

    /// Other origins whose records are here, with what is known of them and how many records there are.
    pub fn origins(&self) -> impl Iterator<Item = (Origin, Revision, usize)> {
        let copies = self.copies.iter();
        copies.map(|(origin, copies)| (*origin, copies.floor, copies.records))
    }

    /// Digest of the records of an origin, at [`Registry::known`].
    pub fn digest_of(&self, origin: Origin) -> Option<&Digest> {
        if origin == self.me {
            return Some(&self.digest);
        }
        Some(&self.copies.get(&origin)?.digest)
    }

    /// Takes changes of another node.
    ///
    /// # Errors
    /// See [`Refused`]; nothing is changed.
    pub fn apply(&mut self, now_ms: u64, batch: Batch) -> Result<Revision, Refused> {
        self.admit(batch.origin)?;
        let floor = self.known(batch.origin);
        if batch.from > floor {
            return Err(Refused::Gap { floor });
        }
        for delta in batch.deltas {
            self.write_copy(now_ms, batch.origin, delta, |known, change| {
                change > known.unwrap_or(floor)
            });
        }
        let copies = self.copies.entry(batch.origin).or_default();
        copies.dropping = None;
        copies.floor = copies.floor.max(batch.through);
        Ok(copies.floor)
    }

    /// What this node says of an instance that beats keep alive, or had deregistered: for the node that sent the act
    /// here, and shows it to its client before the change has come to it with all others.
    pub fn word(&self, service: &ServiceKey, endpoint: &Endpoint) -> Option<Delta> {
        let record = self.own_record(service, endpoint, &Owner::Beats)?;
        let key = RecordKey {
            service: service.clone(),
            endpoint: endpoint.clone(),
            owner: Owner::Beats,
        };
        Some(self.delta(key, record.revision, Some(record)))
    }

    /// Takes a [`Registry::word`] of another node ahead of its other changes, if the node is known here. Its turn
    /// comes again with a batch; until then others hear of it as what is known beyond the floor
    /// ([`Registry::newest_of`]), lest copies differ should the origin never send it.
    pub fn take_word(&mut self, now_ms: u64, origin: Origin, word: Delta) {
        let Some(copies) = self
            .copies
            .get(&origin)
            .filter(|copies| copies.dropping.is_none())
        else {
            return;
        };
        let floor = copies.floor;
        self.write_copy(now_ms, origin, word, |known, change| {
            change > known.unwrap_or(floor)
        });
    }

    /// Every bucket of an origin was replaced by one that goes through to `through`.
    pub fn replaced_all(&mut self, origin: Origin, through: Revision) {
        if self.admit(origin).is_err() {
            return;
        }
        // None of them may have held anything.
        let copies = self.copies.entry(origin).or_default();
        copies.dropping = None;
        copies.floor = copies.floor.max(through);
    }

    /// Forgets the records of another origin: it is gone for good, or has begun anew. A tombstone stays as
    /// long as there is something that it covers. Of many records some are forgotten at a time.
    pub fn drop_origin(&mut self, now_ms: u64, origin: Origin) -> Dropped {
        if origin == self.me {
            return Dropped::All;
        }
        let Some(copies) = self.copies.get_mut(&origin) else {
            return Dropped::All;
        };
        let (from, floor) = copies.dropping.take().unwrap_or((0, copies.floor));
        copies.floor = Revision::default();
        copies.newest = Revision::default();
        let mut dropped = 0;
        for bucket in from..BUCKETS {
            if dropped >= DROP_COUNT {
                if let Some(copies) = self.copies.get_mut(&origin) {
                    copies.dropping = Some((bucket, floor));
                }
                return Dropped::More;
            }
            dropped += self.drop_bucket(now_ms, origin, bucket);
        }
        match self.copies.get_mut(&origin) {
            Some(copies) if copies.records > 0 => {
                copies.floor = floor;
                Dropped::Covering
            }
            _ => {
                self.copies.remove(&origin);
                Dropped::All
            }
        }
    }

    /// Forgets another origin's records in a bucket, but for what covers something; says how many there were.
    fn drop_bucket(&mut self, now_ms: u64, origin: Origin, bucket: usize) -> usize {
        let keys = self.copied(origin, bucket);
        let count = keys.len();
        for key in keys {
            if !self.covers_something(origin, &key) {
                self.remove_copy(now_ms, origin, &key);
            }
        }
        count
    }

    /// Services that readers see in another way than before, with their stamps, each once; none while there are no
    /// other nodes.
    ///
    /// Each node stamps what it shows by its own clock, which may be ahead of the others': of two changes that
    /// follow each other closely, another node may show the first with a higher stamp than the one who made them
    /// gives to the second, and a client that goes from there to here would take the second for the older one. So
    /// all tell each other, and nobody stays below.
    pub fn take_restamped(&mut self) -> Vec<(ServiceKey, Stamp)> {
        let services = std::mem::take(&mut self.restamped);
        let stamped = services.into_iter().filter_map(|key| {
            let service = self.services.get_mut(&key)?;
            service.is_restamped = false;
            Some((key, service.stamp))
        });
        stamped.collect()
    }

    /// A peer has shown a service with this stamp: what is shown here is not older.
    pub fn raise_to(&mut self, now_ms: u64, service: &ServiceKey, stamp: Stamp) {
        self.clocks.lists.hear(now_ms, stamp);
        if let Some(service) = self.services.get_mut(service) {
            service.stamp = service.stamp.max(stamp);
        }
    }

    /// True for a tombstone without which a lower record would be seen.
    fn covers_something(&self, origin: Origin, key: &RecordKey) -> bool {
        let Some(entry) = self.entry(&key.service, &key.endpoint) else {
            return false;
        };
        let tombstone = entry
            .record(origin, &key.owner)
            .is_some_and(|record| !record.is_live());
        tombstone && entry.records.iter().any(Record::is_live)
    }

    /// Every member has confirmed the changes of this node up to here.
    pub fn confirmed(&mut self, by_all: Revision) {
        self.confirmed_by_all = self.confirmed_by_all.max(by_all);
        self.changes.confirmed(self.confirmed_by_all);
    }

    pub(super) fn admit(&self, origin: Origin) -> Result<(), Refused> {
        if origin.node == self.me.node && origin.boot >= self.me.boot {
            return Err(Refused::Own);
        }
        Ok(())
    }

    /// Takes a change of another node's record if `is_news`, which is told the revision of what is known of the
    /// record and that of the change.
    pub(super) fn write_copy(
        &mut self,
        now_ms: u64,
        origin: Origin,
        delta: Delta,
        is_news: impl FnOnce(Option<Revision>, Revision) -> bool,
    ) {
        let Delta {
            key,
            revision,
            written,
            service_stamp,
        } = delta;
        let before = self
            .entry(&key.service, &key.endpoint)
            .and_then(|entry| entry.record(origin, &key.owner));
        if !is_news(before.map(|record| record.revision), revision) {
            return;
        }
        let Some((stamp, body)) = written else {
            return self.remove_copy(now_ms, origin, &key);
        };
        let before = before.map(|record| record.digest(&key.service, &key.endpoint));
        self.clocks.acts.hear(now_ms, stamp);
        let covers = matches!(body, Body::Tombstone { .. });
        let record = Record {
            origin,
            id: RecordId::NONE,
            owner: key.owner.clone(),
            stamp,
            revision,
            body,
            heard_ms: now_ms,
            timer_ms: u64::MAX,
        };
        let digest = record.digest(&key.service, &key.endpoint);
        let copies = self.copies.entry(origin).or_default();
        copies.newest = copies.newest.max(revision);
        let bucket = bucket_of(&key.service);
        copies.digest.toggle(bucket, digest);
        match before {
            Some(before) => copies.digest.toggle(bucket, before),
            None => copies.records += 1,
        }
        self.edit(now_ms, &key.service, &key.endpoint, service_stamp, |entry| {
            entry.put(record)
        });
        if covers {
            self.tell_covered(&key.service, &key.endpoint);
        }
    }

    pub(super) fn remove_copy(&mut self, now_ms: u64, origin: Origin, key: &RecordKey) {
        let before = self
            .entry(&key.service, &key.endpoint)
            .and_then(|entry| entry.record(origin, &key.owner))
            .map(|record| record.digest(&key.service, &key.endpoint));
        let Some(before) = before else { return };
        if let Some(copies) = self.copies.get_mut(&origin) {
            copies.digest.toggle(bucket_of(&key.service), before);
            copies.records -= 1;
        }
        self.edit(now_ms, &key.service, &key.endpoint, Stamp::default(), |entry| {
            entry
                .records
                .retain(|record| record.origin != origin || record.owner != key.owner);
        });
    }

    /// Tells which connections of this node keep an instance alive that a tombstone now covers.
    fn tell_covered(&mut self, service: &ServiceKey, endpoint: &Endpoint) {
        let Some(entry) = self.entry(service, endpoint) else {
            return;
        };
        if entry.winner().is_some_and(Record::is_live) {
            return;
        }
        let covered: Vec<Arc<str>> = self.own_connections(entry);
        self.events.extend(covered.into_iter().map(Event::Covered));
    }
}

/// What a record says as a change: nothing more than that it was removed if there is none.
fn delta_of(key: RecordKey, revision: Revision, service: Option<&Service>, record: Option<&Record>) -> Delta {
    Delta {
        key,
        revision,
        written: record.map(|record| (record.stamp, record.body.clone())),
        service_stamp: service.map(|service| service.stamp).unwrap_or_default(),
    }
}

/// No batch that is sent has more changes, so no more room is taken beforehand.
const ROOM: usize = 256;

/// Room for the changes between two revisions: grown step by step, they would be copied again and again.
fn room(from: Revision, through: Revision, count_max: usize) -> Vec<Delta> {
    let most = usize::try_from(through.0.saturating_sub(from.0)).unwrap_or(ROOM);
    Vec::with_capacity(most.min(count_max).min(ROOM))
}
