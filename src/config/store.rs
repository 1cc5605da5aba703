//! The applied configs in memory: what all readers share.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{Client, ConfigId, Entry, Gray, GrayVersions, Pattern, Query};
use crate::model::{ConfigKey, NamespaceId, Page, PageRequest};

/// Parts of the map, a power of two. One writer (the applier) and many readers: with this many parts they
/// hardly ever meet, and a part that grows stalls a hundredth of the keys.
const SHARDS: usize = 64;

/// Configs looked at while holding the index; a search over many lets the applier in between.
const SCAN_STEP: usize = 1_024;

/// All applied configs and variants.
///
/// Reads are hot (a client's get ends here) and never wait for more than one insertion into a small map.
/// There is one writer; it shows a change only after the tables have it, so whatever a reader finds in
/// here is at most as new as what the tables say.
#[derive(Debug)]
pub struct Store {
    hasher: RandomState,
    shards: Vec<RwLock<HashSet<ByKey>>>,
    /// Per namespace, by id: the order of listings. Changed only when a config appears or goes.
    index: RwLock<HashMap<NamespaceId, BTreeMap<ConfigId, ConfigKey>>>,
    /// Variants of the configs that have some; there may be variants without a formal version.
    grays: RwLock<HashMap<ConfigKey, GrayVersions>>,
    /// Number of keys in `grays`: while it is 0, which is usual, reads do not look there.
    grays_len: AtomicUsize,
}

/// An entry that is found by its name. A map from names to entries would hold each name twice: with
/// 100,000 configs that, and the room a hash table keeps free, were 3 MiB.
#[derive(Debug)]
struct ByKey(Arc<Entry>);

impl Borrow<ConfigKey> for ByKey {
    fn borrow(&self) -> &ConfigKey {
        &self.0.key
    }
}

impl Hash for ByKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key.hash(state);
    }
}

impl PartialEq for ByKey {
    fn eq(&self, other: &ByKey) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for ByKey {}

/// What a client gets to see under a name.
#[derive(Clone, Debug)]
pub enum Selected {
    /// The formal version.
    Formal(Arc<Entry>),
    /// A variant.
    Gray(Arc<Gray>),
}

impl Default for Store {
    fn default() -> Store {
        Store {
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            index: RwLock::default(),
            grays: RwLock::default(),
            grays_len: AtomicUsize::new(0),
        }
    }
}

impl Store {
    /// The formal version.
    pub fn get(&self, key: &ConfigKey) -> Option<Arc<Entry>> {
        read(self.shard(key)).get(key).map(|found| found.0.clone())
    }

    /// The variants, none for most configs.
    pub fn grays(&self, key: &ConfigKey) -> GrayVersions {
        if self.grays_len.load(Ordering::Acquire) == 0 {
            return GrayVersions::default();
        }
        read(&self.grays).get(key).cloned().unwrap_or_default()
    }

    /// What this client sees: the first variant whose rule matches it, else the formal version.
    pub fn select(&self, key: &ConfigKey, client: &Client<'_>) -> Option<Selected> {
        if let Some(gray) = self.grays(key).select(client) {
            return Some(Selected::Gray(gray.clone()));
        }
        self.get(key).map(Selected::Formal)
    }

    /// The config of this id in any namespace.
    pub fn by_id(&self, id: ConfigId) -> Option<Arc<Entry>> {
        let key = read(&self.index)
            .values()
            .find_map(|configs| configs.get(&id).cloned())?;
        self.get(&key).filter(|entry| entry.id == id)
    }

    /// Number of configs in a namespace.
    pub fn count(&self, namespace: &NamespaceId) -> usize {
        read(&self.index).get(namespace).map_or(0, BTreeMap::len)
    }

    /// Number of configs.
    pub fn len(&self) -> usize {
        read(&self.index).values().map(BTreeMap::len).sum()
    }

    /// True when there is no config.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of configs with variants.
    pub fn gray_count(&self) -> usize {
        self.grays_len.load(Ordering::Acquire)
    }

    /// The configs that meet the query, by id, oldest first. What changes meanwhile may or may not be in.
    pub fn search(&self, query: &Query, request: PageRequest) -> Page<Arc<Entry>> {
        let wanted = request.offset()..request.offset().saturating_add(request.size);
        let (mut total, mut items) = (0, Vec::new());
        self.for_each(query, |entry| {
            if wanted.contains(&total) {
                items.push(entry);
            }
            total += 1;
        });
        Page::new(request, total, items)
    }

    /// Calls `found` for each config that meets the query, by id. Holds no lock while it does.
    pub fn for_each(&self, query: &Query, mut found: impl FnMut(Arc<Entry>)) {
        if let (Pattern::Exact(data_id), Pattern::Exact(group)) = (&query.data_id, &query.group) {
            let key = ConfigKey::new(&query.namespace, group, data_id);
            if let Some(entry) = self.get(&key).filter(|entry| query.matches(entry)) {
                found(entry);
            }
            return;
        }
        let mut from = ConfigId(0);
        loop {
            let keys: Vec<(ConfigId, ConfigKey)> = match read(&self.index).get(&query.namespace) {
                Some(configs) => configs
                    .range(from..)
                    .take(SCAN_STEP)
                    .map(|(id, key)| (*id, key.clone()))
                    .collect(),
                None => Vec::new(),
            };
            let Some((last, _)) = keys.last() else { return };
            from = ConfigId(last.0.saturating_add(1));
            let entries = keys.iter().filter_map(|(_, key)| self.get(key));
            entries.filter(|entry| query.matches(entry)).for_each(&mut found);
            if keys.len() < SCAN_STEP {
                return;
            }
        }
    }

    /// Shows a formal version to readers, or that there is none any more. For the one writer.
    pub(crate) fn publish(&self, key: &ConfigKey, entry: Option<Arc<Entry>>) {
        let new = entry.as_ref().map(|entry| entry.id);
        let old = match entry {
            Some(entry) => {
                assert!(entry.key == *key, "{} under the name of {key}", entry.key);
                write(self.shard(key)).replace(ByKey(entry))
            }
            None => write(self.shard(key)).take(key),
        };
        // Freed here, after the lock: readers need not wait for it.
        let old = old.map(|found| found.0.id);
        if old == new {
            return;
        }
        let namespace = key.namespace_id();
        let mut index = write(&self.index);
        let configs = index.entry(namespace.clone()).or_default();
        if let Some(id) = old {
            configs.remove(&id);
        }
        if let Some(id) = new {
            configs.insert(id, key.clone());
        }
        if configs.is_empty() {
            index.remove(&namespace);
        }
    }

    /// Shows the variants of a config to readers. For the one writer.
    pub(crate) fn publish_grays(&self, key: &ConfigKey, versions: GrayVersions) {
        let mut grays = write(&self.grays);
        if versions.is_empty() {
            grays.remove(key);
        } else {
            grays.insert(key.clone(), versions);
        }
        self.grays_len.store(grays.len(), Ordering::Release);
    }

    fn shard(&self, key: &ConfigKey) -> &RwLock<HashSet<ByKey>> {
        let hash = self.hasher.hash_one(key) as usize;
        &self.shards[hash % SHARDS]
    }
}

/// Nothing panics while it holds one of these locks, and a map is whole between two calls anyway.
fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::change::{After, Before, Numbers};
    use crate::config::{HistoryId, Origin, Publish, change};

    fn entry(namespace: &str, data_id: &str, content: &str, id: u64) -> Arc<Entry> {
        let key = ConfigKey::new(&NamespaceId::new(namespace), "g", data_id);
        let publish = Publish::new(key, content.to_owned(), Origin::default());
        let before = Before {
            formal: None,
            grays: &GrayVersions::default(),
        };
        let numbers = Numbers {
            config: ConfigId(id),
            history: HistoryId(id),
        };
        match change::publish(before, &publish, numbers)
            .expect("publishes")
            .after
        {
            After::Formal(detail) => Arc::new(detail.entry),
            other => panic!("{other:?}"),
        }
    }

    fn page(number: usize, size: usize) -> PageRequest {
        PageRequest::new(number, size).expect("a page")
    }

    #[test]
    fn search_goes_by_id_within_the_namespace() {
        let store = Store::default();
        for id in 0..3_000 {
            let entry = entry("dev", &format!("d{id}"), &format!("content {id}"), 10_000 - id);
            store.publish(&entry.key.clone(), Some(entry));
        }
        let other = entry("", "d1", "other", 1);
        store.publish(&other.key.clone(), Some(other.clone()));
        let query = Query::all(NamespaceId::new("dev"));
        let found = store.search(&query, page(2, 1_000));
        assert_eq!(
            (found.total, found.available, found.items.len()),
            (3_000, 3, 1_000)
        );
        assert_eq!(found.items[0].key.data_id(), "d1999");
        let by_content = Query {
            content: Pattern::contains("t 29"),
            ..query.clone()
        };
        assert_eq!(store.search(&by_content, page(1, 10)).total, 111);
        let exact = Query {
            data_id: Pattern::accurate("d7"),
            group: Pattern::accurate("g"),
            ..query
        };
        assert_eq!(store.search(&exact, page(1, 10)).total, 1);
        assert_eq!(
            store
                .search(&Query::all(NamespaceId::default()), page(1, 10))
                .items,
            vec![other]
        );
    }

    #[test]
    fn what_is_removed_is_in_no_index() {
        let store = Store::default();
        let entry = entry("dev", "d", "x", 5);
        store.publish(&entry.key, Some(entry.clone()));
        assert_eq!(store.by_id(ConfigId(5)), Some(entry.clone()));
        assert_eq!((store.len(), store.count(&NamespaceId::new("dev"))), (1, 1));
        store.publish(&entry.key, None);
        assert_eq!(store.get(&entry.key), None);
        assert_eq!(store.by_id(ConfigId(5)), None);
        assert!(store.is_empty());
    }
}
