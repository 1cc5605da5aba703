//! All services, each in the bucket that digests sum it up in.
//!
//! One hash map a bucket, not one for all: whoever wants a bucket looks at nothing else, walks over all services
//! can stop between two buckets, and no map is so large that its growing or shrinking is felt (a thousand
//! services each, of a quarter of a million).

use std::collections::{BTreeSet, HashMap, hash_map::Entry};
use std::hash::{BuildHasher, Hasher, RandomState};

use crate::model::ServiceKey;

use super::changes::{BUCKETS, bucket_of};
use super::service::Service;

/// A map gives memory back once it holds less than this part of what it has room for.
const ROOM_MAX: usize = 4;

#[derive(Debug)]
pub(super) struct Services {
    /// [`BUCKETS`] of them.
    buckets: Vec<HashMap<ServiceKey, Service, Seeded>>,
    /// All names in order, for pages.
    names: BTreeSet<ServiceKey>,
}

impl Default for Services {
    fn default() -> Services {
        let hashing = Seeded::default();
        let empty = || HashMap::with_hasher(hashing);
        Services {
            buckets: std::iter::repeat_with(empty).take(BUCKETS).collect(),
            names: BTreeSet::new(),
        }
    }
}

impl Services {
    pub(super) fn get(&self, key: &ServiceKey) -> Option<&Service> {
        self.buckets.get(bucket_of(key))?.get(key)
    }

    pub(super) fn get_mut(&mut self, key: &ServiceKey) -> Option<&mut Service> {
        self.buckets.get_mut(bucket_of(key))?.get_mut(key)
    }

    pub(super) fn contains_key(&self, key: &ServiceKey) -> bool {
        self.get(key).is_some()
    }

    /// The service, made by `make` if it is not there.
    pub(super) fn get_or_insert(&mut self, key: &ServiceKey, make: impl FnOnce() -> Service) -> &mut Service {
        // A hash modulo their number.
        let bucket = &mut self.buckets[bucket_of(key)];
        match bucket.entry(key.clone()) {
            Entry::Occupied(found) => found.into_mut(),
            Entry::Vacant(free) => {
                self.names.insert(key.clone());
                free.insert(make())
            }
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// Their names in order.
    pub(super) fn names(&self) -> &BTreeSet<ServiceKey> {
        &self.names
    }

    /// Those of a bucket, in no order.
    pub(super) fn in_bucket(&self, bucket: usize) -> impl Iterator<Item = &Service> {
        self.buckets.get(bucket).into_iter().flat_map(HashMap::values)
    }

    /// Keeps those of a bucket of which `keep` is true.
    pub(super) fn retain_in(&mut self, bucket: usize, mut keep: impl FnMut(&Service) -> bool) {
        let Services { buckets, names } = self;
        let Some(bucket) = buckets.get_mut(bucket) else {
            return;
        };
        bucket.retain(|key, service| {
            let keep = keep(service);
            if !keep {
                names.remove(key);
            }
            keep
        });
        if bucket.len() < bucket.capacity() / ROOM_MAX {
            bucket.shrink_to(bucket.len() * 2);
        }
    }
}

/// Hashes names by XXH3 from a seed that nobody knows: a fifth of what the standard library's hash costs, and
/// names that collide cannot be made up. For maps that are asked several times for each act.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seeded(u64);

impl Default for Seeded {
    fn default() -> Seeded {
        Seeded(RandomState::new().hash_one(0))
    }
}

impl BuildHasher for Seeded {
    type Hasher = Chained;

    fn build_hasher(&self) -> Chained {
        Chained(self.0)
    }
}

/// Each piece is hashed from what came before it.
pub(super) struct Chained(u64);

impl Hasher for Chained {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxhash_rust::xxh3::xxh3_64_with_seed(bytes, self.0);
    }

    /// The end of a text; where one text is all there is it says nothing.
    fn write_u8(&mut self, end: u8) {
        self.0 = self.0.rotate_left(8) ^ u64::from(end);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::NamespaceId;
    use crate::naming::Stamp;

    fn key(number: usize) -> ServiceKey {
        ServiceKey::new(&NamespaceId::default(), "g", &format!("s{number:05}"))
    }

    #[test]
    fn buckets_hold_all_and_give_memory_back() {
        let mut services = Services::default();
        for number in 0..10_000 {
            let key = key(number);
            services.get_or_insert(&key, || Service::new(key.clone(), 0, Stamp::default()));
        }
        let names: Vec<_> = services.names().iter().cloned().collect();
        assert_eq!(names, (0..10_000).map(key).collect::<Vec<_>>());
        for bucket in 0..BUCKETS {
            for service in services.in_bucket(bucket) {
                assert_eq!(bucket_of(&service.key), bucket);
                assert!(services.contains_key(&service.key));
            }
        }
        let room = |services: &Services| services.buckets.iter().map(HashMap::capacity).sum::<usize>();
        assert!(room(&services) >= 10_000);
        for bucket in 0..BUCKETS {
            services.retain_in(bucket, |service| service.key < key(10));
        }
        assert_eq!(services.len(), 10);
        assert_eq!(
            (0..BUCKETS)
                .map(|bucket| services.in_bucket(bucket).count())
                .sum::<usize>(),
            10
        );
        assert!(room(&services) <= 40, "{}", room(&services));
    }
}
