//! A bucket of services as a whole, in pages: what is sent where changes will not do.
//!
//! A page is all that an origin has behind one record and up to another, in the order of their names. It takes the
//! place of what the receiver has in between, so pages may come from different moments, and from different nodes: each
//! says for itself which changes it knows.

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;

use crate::model::Endpoint;

use super::changes::bucket_of;
use super::record::{Origin, Record, RecordKey, Revision};
use super::registry::Registry;
use super::replica::{Delta, Refused};
use super::service::{Entry, Service};

/// Records of one page. Of the longest names and the most metadata that may be registered they take some 3 MiB, so a
/// bucket of any size can be sent.
pub const PAGE_COUNT: usize = 256;
/// So many are put into one; in tests so few that the simulation turns pages.
const PAGE: usize = if cfg!(test) { 3 } else { PAGE_COUNT };

/// Records of an origin in one bucket of services: a page of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Bucket {
    /// Whose.
    pub origin: Origin,
    /// Which.
    pub bucket: usize,
    /// Changes behind this are not in it.
    pub through: Revision,
    /// The page begins behind this record; `None`: with the first one.
    pub after: Option<RecordKey>,
    /// There are records behind the last of these.
    pub more: bool,
    /// The records, in the order of their keys.
    pub deltas: Vec<Delta>,
}

impl Bucket {
    /// The last record of the page, if there are more behind it.
    pub fn next_after(&self) -> Option<&RecordKey> {
        self.deltas.last().filter(|_| self.more).map(|delta| &delta.key)
    }

    /// True for a record that this page speaks of, whether or not it names it.
    fn covers(&self, key: &RecordKey) -> bool {
        let begun = self.after.as_ref().is_none_or(|after| key > after);
        begun && self.next_after().is_none_or(|last| key <= last)
    }
}

impl Registry {
    /// A page of the records of an origin, this node or another, in a bucket.
    pub fn bucket(&self, origin: Origin, bucket: usize, after: Option<&RecordKey>) -> Bucket {
        let mut deltas = Vec::new();
        let mut more = false;
        self.walk(origin, bucket, after, |key, record| {
            more = deltas.len() == PAGE;
            if !more {
                deltas.push(self.delta(key, record.revision, Some(record)));
            }
            !more
        });
        Bucket {
            origin,
            bucket,
            through: self.known(origin),
            after: after.cloned(),
            more,
            deltas,
        }
    }

    /// Replaces what is known of a part of a bucket of another node's records. Changes behind `through` that are
    /// known already stay.
    ///
    /// # Errors
    /// The origin is this node; nothing is changed.
    pub fn replace(&mut self, now_ms: u64, bucket: Bucket) -> Result<(), Refused> {
        self.admit(bucket.origin)?;
        let origin = bucket.origin;
        let listed: HashSet<&RecordKey> = bucket.deltas.iter().map(|delta| &delta.key).collect();
        let mut stale = Vec::new();
        self.walk(origin, bucket.bucket, bucket.after.as_ref(), |key, record| {
            let covered = bucket.covers(&key);
            if covered && record.revision <= bucket.through && !listed.contains(&key) {
                stale.push(key);
            }
            covered
        });
        for key in stale {
            self.remove_copy(now_ms, origin, &key);
        }
        let floor = self.known(origin);
        for delta in bucket.deltas {
            if bucket_of(&delta.key.service) != bucket.bucket {
                continue;
            }
            self.write_copy(now_ms, origin, delta, |known, change| match known {
                Some(known) => known <= change,
                // What is not here and not above what is known beyond this bucket was removed meanwhile.
                None => bucket.through >= floor || change > floor,
            });
        }
        self.copies.entry(origin).or_default().dropping = None;
        Ok(())
    }

    /// All records of an origin in a bucket.
    pub(super) fn copied(&self, origin: Origin, bucket: usize) -> Vec<RecordKey> {
        let mut keys = Vec::new();
        self.walk(origin, bucket, None, |key, _| {
            keys.push(key);
            true
        });
        keys
    }

    /// Records of an origin in a bucket behind one of them, in the order of their keys, as long as `visit` is true.
    fn walk<'a>(
        &'a self,
        origin: Origin,
        bucket: usize,
        after: Option<&RecordKey>,
        mut visit: impl FnMut(RecordKey, &'a Record) -> bool,
    ) {
        let begun = |service: &&Service| after.is_none_or(|after| service.key >= after.service);
        let mut services: Vec<&Service> = self.services.in_bucket(bucket).filter(begun).collect();
        services.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        for service in services {
            let after = after.filter(|after| after.service == service.key);
            for (endpoint, entry) in entries_from(&service.entries, after.map(|after| &after.endpoint)) {
                let records = entry.records.iter().filter(|record| record.origin == origin);
                let mut records: Vec<&Record> = records.collect();
                records.sort_unstable_by(|a, b| a.owner.cmp(&b.owner));
                for record in records {
                    let key = RecordKey {
                        service: service.key.clone(),
                        endpoint: endpoint.clone(),
                        owner: record.owner.clone(),
                    };
                    let skipped = after.is_some_and(|after| key <= *after);
                    if !skipped && !visit(key, record) {
                        return;
                    }
                }
            }
        }
    }
}

fn entries_from<'a>(
    entries: &'a BTreeMap<Endpoint, Entry>,
    from: Option<&Endpoint>,
) -> impl Iterator<Item = (&'a Endpoint, &'a Entry)> {
    let from = from.map_or(Bound::Unbounded, Bound::Included);
    entries.range::<Endpoint, _>((from, Bound::Unbounded))
}
