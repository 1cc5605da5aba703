//! Who watches what, by name, and what is known of each watch: maps, no waiting and no time.
//!
//! A watcher is whoever waits: a long poll, or a gRPC connection. Both directions are kept, so that
//! a change finds its watchers, and a watcher that goes is forgotten, in time that depends on nothing else:
//!
//! ```text
//!  by_name ──▶ keys[k] { name, watches: [(watcher, slot), ..] }
//!                            ▲                │
//!                            │ (key, position)▼
//!              watchers[w] { owner, watches[slot] }
//! ```
//!
//! Each side knows its place on the other one. Taking a watch away moves the last one of the key into the
//! gap and tells that one its new position: nothing is ever searched for.

use std::collections::HashMap;

use slab::Slab;

use crate::model::{ConfigKey, Named, ServiceKey};

/// What can be watched.
pub trait Name: Named {
    /// Memory that a watch takes besides its name, bytes: its two sides, the name's as if nobody shared it, and
    /// what a poll or a connection keeps itself.
    const WATCH_BYTES: usize;
}

impl Name for ConfigKey {
    /// Measured: 300,000 watches of as many names take 350 bytes each; a connection finds them by name, which
    /// is another 130 at most.
    const WATCH_BYTES: usize = 512;
}

impl Name for ServiceKey {
    /// Measured: 400,000 subscriptions of 10,000 clients to 1,000 services take 225 bytes each, what a client finds
    /// them by included. (A client takes 530 bytes and its task 720 besides.)
    const WATCH_BYTES: usize = 256;
}

/// What is left, divided by this, is what one watcher may have.
const SHARE_OF_ROOM: usize = 4;

/// A watcher, as long as it is registered; afterwards its id may be another one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatcherId(usize);

/// One of a watcher's watches. The first ones of a watcher are 0, 1, 2, … in the order in which they were
/// made; those of watches taken away are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub usize);

/// Who watches what. `K` names what is watched, `S` is what is known of a watch (what the client has, or which
/// part it wants), `T` what the owner keeps of a watcher: its address, the way to wake it.
#[derive(Debug)]
pub struct Listeners<K, S, T> {
    keys: Slab<Key<K>>,
    by_name: HashMap<K, usize>,
    watchers: Slab<Watcher<S, T>>,
    /// Watches of all watchers.
    watches: usize,
    /// Of all watches, see [`Listeners::cost_of`].
    cost_bytes: usize,
}

#[derive(Debug)]
struct Key<K> {
    /// One allocation for all who watch it.
    name: K,
    /// Never empty: a key nobody watches is gone.
    watches: Vec<Back>,
}

/// From a key to the watch of a watcher.
#[derive(Clone, Copy, Debug)]
struct Back {
    watcher: usize,
    slot: usize,
}

#[derive(Debug)]
struct Watcher<S, T> {
    owner: T,
    watches: Slab<Watch<S>>,
    /// Of these watches, see [`Listeners::cost_of`].
    cost_bytes: usize,
}

/// From a watcher to its place at the key.
#[derive(Debug)]
struct Watch<S> {
    key: usize,
    /// Index in the key's `watches`.
    position: usize,
    seen: S,
}

impl<K, S, T> Default for Listeners<K, S, T> {
    fn default() -> Listeners<K, S, T> {
        Listeners {
            keys: Slab::new(),
            by_name: HashMap::new(),
            watchers: Slab::new(),
            watches: 0,
            cost_bytes: 0,
        }
    }
}

impl<K: Name, S, T> Listeners<K, S, T> {
    /// Registers a watcher, which watches nothing yet.
    pub fn add(&mut self, owner: T) -> WatcherId {
        WatcherId(self.watchers.insert(Watcher {
            owner,
            watches: Slab::new(),
            cost_bytes: 0,
        }))
    }

    /// Has the watcher watch one more. The same one twice counts twice. Gives back the watch, and the
    /// name in the allocation that all its watchers share.
    ///
    /// # Panics
    /// The watcher is not registered.
    pub fn watch(&mut self, watcher: WatcherId, name: &K, seen: S) -> (Slot, K) {
        let key = match self.by_name.get(name) {
            Some(key) => *key,
            None => {
                let key = self.keys.insert(Key {
                    name: name.clone(),
                    watches: Vec::new(),
                });
                self.by_name.insert(name.clone(), key);
                key
            }
        };
        let at_key = &mut self.keys[key];
        let position = at_key.watches.len();
        let of_watcher = &mut self.watchers[watcher.0];
        let slot = of_watcher.watches.insert(Watch { key, position, seen });
        of_watcher.cost_bytes += Self::cost_of(name);
        at_key.watches.push(Back {
            watcher: watcher.0,
            slot,
        });
        self.watches += 1;
        self.cost_bytes += Self::cost_of(name);
        (Slot(slot), at_key.name.clone())
    }

    /// Takes a watch away; nothing happens when there is none.
    pub fn unwatch(&mut self, watcher: WatcherId, slot: Slot) {
        let watches = self
            .watchers
            .get_mut(watcher.0)
            .map(|watcher| &mut watcher.watches);
        let Some(watch) = watches.and_then(|watches| watches.try_remove(slot.0)) else {
            return;
        };
        let key = &mut self.keys[watch.key];
        let back = key.watches.swap_remove(watch.position);
        assert!(
            back.watcher == watcher.0 && back.slot == slot.0,
            "the two sides disagree"
        );
        if let Some(moved) = key.watches.get(watch.position) {
            self.watchers[moved.watcher].watches[moved.slot].position = watch.position;
        }
        let cost_bytes = Self::cost_of(&key.name);
        self.watches -= 1;
        self.cost_bytes -= cost_bytes;
        self.watchers[watcher.0].cost_bytes -= cost_bytes;
        if key.watches.is_empty() {
            let key = self.keys.remove(watch.key);
            self.by_name.remove(&key.name);
        }
    }

    /// Forgets a watcher and all its watches; `None` when it is not registered.
    pub fn remove(&mut self, watcher: WatcherId) -> Option<T> {
        let slots: Vec<usize> = self
            .watchers
            .get(watcher.0)?
            .watches
            .iter()
            .map(|(slot, _)| slot)
            .collect();
        for slot in slots {
            self.unwatch(watcher, Slot(slot));
        }
        self.watchers.try_remove(watcher.0).map(|watcher| watcher.owner)
    }

    /// True when somebody watches it.
    pub fn is_watched(&self, name: &K) -> bool {
        self.by_name.contains_key(name)
    }

    /// Everybody who watches it: by which of his watches, and what is known of that.
    pub fn of_key(&self, name: &K) -> impl Iterator<Item = (&T, Slot, &S)> {
        let key = self.by_name.get(name).map(|key| &self.keys[*key]);
        key.into_iter().flat_map(|key| &key.watches).map(|back| {
            let watcher = &self.watchers[back.watcher];
            (&watcher.owner, Slot(back.slot), &watcher.watches[back.slot].seen)
        })
    }

    /// Some of those who watch it: at most `max`, the ones before position `below` of its list,
    /// and the position to go on below; 0 when there are no more.
    pub fn of_key_below(
        &self,
        name: &K,
        below: usize,
        max: usize,
    ) -> (impl Iterator<Item = (&T, Slot, &S)>, usize) {
        let key = self.by_name.get(name).map(|key| &self.keys[*key]);
        let all = key.map_or(&[][..], |key| &key.watches);
        let end = below.min(all.len());
        let begin = end.saturating_sub(max);
        let watches = all[begin..end].iter().map(|back| {
            let watcher = &self.watchers[back.watcher];
            (&watcher.owner, Slot(back.slot), &watcher.watches[back.slot].seen)
        });
        (watches, begin)
    }

    /// What is known of a watch.
    pub fn seen(&self, watcher: WatcherId, slot: Slot) -> Option<&S> {
        let watches = &self.watchers.get(watcher.0)?.watches;
        watches.get(slot.0).map(|watch| &watch.seen)
    }

    /// Replaces what is known of a watch; nothing happens when there is no such watch.
    pub fn set_seen(&mut self, watcher: WatcherId, slot: Slot, seen: S) {
        let watcher = self.watchers.get_mut(watcher.0);
        if let Some(watch) = watcher.and_then(|watcher| watcher.watches.get_mut(slot.0)) {
            watch.seen = seen;
        }
    }

    /// All watchers.
    pub fn owners(&self) -> impl Iterator<Item = (WatcherId, &T)> {
        self.watchers
            .iter()
            .map(|(id, watcher)| (WatcherId(id), &watcher.owner))
    }

    /// Everything a watcher watches.
    pub fn of_watcher(&self, watcher: WatcherId) -> impl Iterator<Item = (&K, &S)> {
        let watches = self.watchers.get(watcher.0).map(|watcher| &watcher.watches);
        watches
            .into_iter()
            .flatten()
            .map(|(_, watch)| (&self.keys[watch.key].name, &watch.seen))
    }

    /// Number of watchers.
    pub fn watchers(&self) -> usize {
        self.watchers.len()
    }

    /// Number of names that somebody watches.
    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    /// Number of watches of all watchers.
    pub fn watches(&self) -> usize {
        self.watches
    }

    /// Memory that all watches are charged with.
    pub fn cost_bytes(&self) -> usize {
        self.cost_bytes
    }

    /// True when this watcher may have more, where all together may have `cost_bytes_max`: as long as it has less
    /// than its share of what nobody has yet. So a few never leave others without any, however much they want,
    /// and one that is alone gets a fifth of everything.
    ///
    /// (A fixed share would do the same to a few and nothing against more of them.)
    pub fn has_room(&self, watcher: WatcherId, cost_bytes_max: usize) -> bool {
        let own = self
            .watchers
            .get(watcher.0)
            .map_or(0, |watcher| watcher.cost_bytes);
        let left = cost_bytes_max.saturating_sub(self.cost_bytes);
        own < left / SHARE_OF_ROOM
    }

    /// Memory that a watch is charged with.
    pub fn cost_of(name: &K) -> usize {
        K::WATCH_BYTES + 2 * name.text_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::Seen;
    use crate::model::{Md5, NamespaceId};

    fn key(number: u64) -> ConfigKey {
        ConfigKey::new(
            &NamespaceId::new(["", "dev"][number as usize % 2]),
            "g",
            &format!("d{number}"),
        )
    }

    #[test]
    fn slots_are_counted_from_zero_and_names_are_shared() {
        let mut listeners = Listeners::default();
        let (a, b) = (listeners.add("a"), listeners.add("b"));
        let (slot, name) = listeners.watch(a, &key(1), Seen::Nothing);
        let (other, shared) = listeners.watch(b, &key(1), Seen::Other);
        assert_eq!((slot, other), (Slot(0), Slot(0)));
        assert!(std::ptr::eq(name.as_bytes(), shared.as_bytes()));
        assert_eq!(listeners.watch(a, &key(2), Seen::Nothing).0, Slot(1));
        assert_eq!(
            (listeners.keys(), listeners.watches(), listeners.watchers()),
            (2, 3, 2)
        );
        assert_eq!(listeners.remove(a), Some("a"));
        assert_eq!(listeners.remove(a), None);
        listeners.unwatch(a, Slot(0));
        assert_eq!(
            listeners.of_key(&key(1)).collect::<Vec<_>>(),
            [(&"b", Slot(0), &Seen::Other)]
        );
        assert_eq!(listeners.remove(b), Some("b"));
        assert_eq!(
            (listeners.keys(), listeners.watches(), listeners.cost_bytes()),
            (0, 0, 0)
        );
    }

    /// The naive model: watches as a flat list.
    #[derive(Default)]
    struct Model(BTreeMap<(u64, usize), (ConfigKey, Seen)>);

    impl Model {
        fn of_key(&self, name: &ConfigKey) -> Vec<(u64, usize)> {
            let found = self.0.iter().filter(|(_, (key, _))| key == name);
            found.map(|(place, _)| *place).collect()
        }
    }

    /// Property: whatever is done in whatever order, both directions say what a flat list says.
    #[test]
    fn random_histories_agree_with_a_flat_list() {
        for seed in 0..200_u64 {
            let mut random = seed;
            let mut next = |below: u64| {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                (random >> 33) % below
            };
            let (mut listeners, mut model) = (Listeners::default(), Model::default());
            let mut alive: Vec<(WatcherId, u64)> = Vec::new();
            for step in 0..300 {
                let chosen = (!alive.is_empty()).then(|| next(alive.len() as u64) as usize);
                match (next(10), chosen) {
                    (0 | 1, _) | (_, None) => alive.push((listeners.add(step), step)),
                    (2, Some(at)) => {
                        let (id, owner) = alive.swap_remove(at);
                        assert_eq!(listeners.remove(id), Some(owner), "seed {seed}");
                        model.0.retain(|(of, _), _| *of != owner);
                    }
                    (3 | 4, Some(at)) => {
                        let (id, owner) = alive[at];
                        let slot = next(6) as usize;
                        listeners.unwatch(id, Slot(slot));
                        model.0.remove(&(owner, slot));
                    }
                    (5, Some(at)) => {
                        let (id, owner) = alive[at];
                        let slot = next(6) as usize;
                        listeners.set_seen(id, Slot(slot), Seen::Other);
                        if let Some((_, seen)) = model.0.get_mut(&(owner, slot)) {
                            *seen = Seen::Other;
                        }
                        let seen = model.0.get(&(owner, slot)).map(|(_, seen)| seen);
                        assert_eq!(listeners.seen(id, Slot(slot)), seen, "seed {seed}");
                    }
                    (_, Some(at)) => {
                        let (id, owner) = alive[at];
                        let seen = [Seen::Nothing, Seen::Other, Seen::Md5(Md5::of(b"x"))][next(3) as usize];
                        let name = key(next(8));
                        let (slot, _) = listeners.watch(id, &name, seen);
                        let before = model.0.insert((owner, slot.0), (name, seen));
                        assert_eq!(before, None, "seed {seed}: slot given twice");
                    }
                }
            }
            for name in (0..8).map(key) {
                let mut found: Vec<_> = listeners
                    .of_key(&name)
                    .map(|(owner, slot, seen)| {
                        assert_eq!(&model.0[&(*owner, slot.0)].1, seen, "seed {seed}");
                        (*owner, slot.0)
                    })
                    .collect();
                found.sort_unstable();
                assert_eq!(found, model.of_key(&name), "seed {seed} {name}");
                let (mut walked, mut below) = (Vec::new(), usize::MAX);
                while below > 0 {
                    let (step, next) = listeners.of_key_below(&name, below, 2);
                    walked.extend(step.map(|(owner, slot, _)| (*owner, slot.0)));
                    below = next;
                }
                walked.sort_unstable();
                assert_eq!(walked, found, "seed {seed} {name}: walked in steps");
                assert_eq!(listeners.is_watched(&name), !found.is_empty(), "seed {seed}");
            }
            let count: usize = alive
                .iter()
                .map(|(id, _)| listeners.of_watcher(*id).count())
                .sum();
            assert_eq!(
                (count, listeners.watches()),
                (model.0.len(), model.0.len()),
                "seed {seed}"
            );
            let cost = model
                .0
                .values()
                .map(|(name, _)| Listeners::<ConfigKey, Seen, u64>::cost_of(name))
                .sum::<usize>();
            assert_eq!(listeners.cost_bytes(), cost, "seed {seed}");
            let of_watchers = listeners.watchers.iter();
            let cost_of_each = of_watchers.map(|(_, watcher)| watcher.cost_bytes);
            assert_eq!(cost_of_each.sum::<usize>(), cost, "seed {seed}");
        }
    }
}
