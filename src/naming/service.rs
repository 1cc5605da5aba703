//! One service: what all nodes say about its instances, and what readers see of that.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{Endpoint, ServiceKey};

use super::instance::Instance;
use super::overlay::Overlay;
use super::record::{Body, Origin, Owner, Record};
use super::stamp::Stamp;

/// What readers see of an instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// What the client said, under what operators set.
    pub instance: Arc<Instance>,
    /// Takes traffic.
    pub healthy: bool,
    /// Kept alive by its client; false for one that stands in the replicated state.
    pub ephemeral: bool,
}

/// A persistent instance, as the replicated state has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Persistent {
    /// What was registered.
    pub instance: Arc<Instance>,
    /// As the last check found it.
    pub healthy: bool,
}

/// All that is said about one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    /// Of all origins; one, nearly always.
    pub(super) records: Vec<Record>,
    pub(super) persistent: Option<Persistent>,
}

impl Entry {
    /// The record that counts.
    pub(super) fn winner(&self) -> Option<&Record> {
        self.records.iter().max_by_key(|record| record.rank())
    }

    /// The record of an owner of an origin.
    pub(super) fn record(&self, origin: Origin, owner: &Owner) -> Option<&Record> {
        let mut records = self.records.iter();
        records.find(|record| record.origin == origin && record.owner == *owner)
    }

    pub(super) fn record_mut(&mut self, origin: Origin, owner: &Owner) -> Option<&mut Record> {
        let mut records = self.records.iter_mut();
        records.find(|record| record.origin == origin && record.owner == *owner)
    }

    /// Puts a record in the place of that of the same owner.
    pub(super) fn put(&mut self, record: Record) {
        match self.record_mut(record.origin, &record.owner) {
            Some(old) => *old = record,
            None => {
                // Nearly always the only one.
                self.records.reserve_exact(1);
                self.records.push(record);
            }
        }
    }

    /// The highest stamp of any record here.
    pub(super) fn highest(&self) -> Stamp {
        let stamps = self.records.iter().map(|record| record.stamp);
        stamps.max().unwrap_or_default()
    }

    fn is_empty(&self) -> bool {
        self.records.is_empty() && self.persistent.is_none()
    }
}

/// A service.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) key: ServiceKey,
    /// Rises whenever readers see something else: `lastRefTime`.
    pub(super) stamp: Stamp,
    /// The stamp at the last change of what readers see; `stamp` may have been raised since.
    pub(super) content: Stamp,
    /// Waits among those of [`Registry::take_restamped`](super::registry::Registry::take_restamped).
    pub(super) is_restamped: bool,
    pub(super) entries: BTreeMap<Endpoint, Entry>,
    /// Entries that readers may see: neither tombstones alone nor nothing.
    pub(super) live: usize,
    /// Entries that stand in the replicated state.
    pub(super) persistent: usize,
    pub(super) overlay: Overlay,
    /// Since when nothing is registered, monotonic ms; `None` while something is.
    pub(super) empty_since: Option<u64>,
}

impl Service {
    pub(super) fn new(key: ServiceKey, now_ms: u64, stamp: Stamp) -> Service {
        Service {
            key,
            stamp,
            content: stamp,
            is_restamped: false,
            entries: BTreeMap::new(),
            live: 0,
            persistent: 0,
            overlay: Overlay::default(),
            empty_since: Some(now_ms),
        }
    }

    /// Changes what is said about an endpoint; says whether readers see a difference.
    pub(super) fn edit(&mut self, endpoint: &Endpoint, now_ms: u64, edit: impl FnOnce(&mut Entry)) -> bool {
        let Service { entries, overlay, .. } = self;
        let (stood, stands);
        let (before, after) = match entries.get_mut(endpoint) {
            Some(entry) => {
                let before = seen_of(overlay, endpoint, entry);
                stood = entry.persistent.is_some();
                edit(entry);
                stands = entry.persistent.is_some();
                let after = seen_of(overlay, endpoint, entry);
                if entry.is_empty() {
                    entries.remove(endpoint);
                }
                (before, after)
            }
            None => {
                let mut entry = Entry::default();
                edit(&mut entry);
                (stood, stands) = (false, entry.persistent.is_some());
                let after = seen_of(overlay, endpoint, &entry);
                if !entry.is_empty() {
                    entries.insert(endpoint.clone(), entry);
                }
                (None, after)
            }
        };
        self.persistent = self.persistent + usize::from(stands) - usize::from(stood);
        self.live = self.live + usize::from(after.is_some()) - usize::from(before.is_some());
        self.empty_since = (self.live == 0).then(|| self.empty_since.unwrap_or(now_ms));
        before != after
    }

    /// True for a service that lists show.
    pub(super) fn is_listed(&self) -> bool {
        self.live > 0 || self.overlay.service.is_some()
    }

    /// What readers see of an endpoint.
    pub(super) fn seen(&self, endpoint: &Endpoint) -> Option<Seen> {
        seen_of(&self.overlay, endpoint, self.entries.get(endpoint)?)
    }

    /// True if its instances are kept alive by their clients; `None` without any. See [`Registry::kind`].
    ///
    /// [`Registry::kind`]: super::registry::Registry::kind
    pub(super) fn holds_ephemeral(&self) -> Option<bool> {
        (self.live > 0).then_some(self.persistent == 0)
    }

    /// Instances that are there, with what readers see of them.
    pub(super) fn instances(&self) -> impl Iterator<Item = (&Endpoint, Seen)> {
        let entries = self.entries.iter();
        entries.filter_map(|(endpoint, entry)| Some((endpoint, seen_of(&self.overlay, endpoint, entry)?)))
    }
}

fn seen_of(overlay: &Overlay, endpoint: &Endpoint, entry: &Entry) -> Option<Seen> {
    let (instance, healthy, ephemeral) = match (entry.winner().map(|record| &record.body), &entry.persistent)
    {
        (Some(Body::Live { instance, healthy }), _) => (instance, *healthy, true),
        (_, Some(persistent)) => (&persistent.instance, persistent.healthy, false),
        (Some(Body::Tombstone { .. }) | None, None) => return None,
    };
    let instance = match overlay.instances.get(endpoint) {
        Some(set) => set.over(instance),
        None => Arc::clone(instance),
    };
    Some(Seen {
        instance,
        healthy,
        ephemeral,
    })
}
