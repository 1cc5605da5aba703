//! Changes of configs, brought to those who watch them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::session::Session;
use crate::clock;
use crate::config::{Listeners, Seen, Slot, WatcherId};
use crate::metrics::Push;
use crate::model::ConfigKey;
use crate::state::Event;

/// Memory that all watches together may take ([`Listeners::cost_of`]): about 600,000 watches of names of
/// ordinary length. Beyond it a listener is refused.
const COST_BYTES_MAX: usize = 256 << 20;

/// Watches made or taken away while the lock is held; the applier gets in between. About 50 µs.
const LOCKED_STEP: usize = 256;

/// Sessions marked before other tasks of the thread get their turn.
const MARKS_PER_TURN: usize = 1_024;

/// There is no room for another listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many configs are being listened to on this node")]
pub struct Full;

/// Who watches which config on this node, and the way to wake them.
#[derive(Debug, Default)]
pub struct ConfigPush {
    shared: Mutex<Shared>,
    /// Something is due.
    changed: Notify,
    /// Counters.
    pub metrics: Push,
}

#[derive(Debug, Default)]
struct Shared {
    listeners: Listeners<Watcher>,
    /// Changed and watched, not yet told; with the moment of the first change. No larger than the number of
    /// watched configs.
    due: HashMap<ConfigKey, Instant>,
    /// The whole state was replaced; everybody is to look again.
    reloaded: Option<Instant>,
}

#[derive(Debug)]
struct Watcher {
    /// Address of the client.
    ip: Box<str>,
    session: Arc<Session>,
}

impl ConfigPush {
    /// Nobody watches anything.
    pub fn new() -> Arc<ConfigPush> {
        Arc::new(ConfigPush::default())
    }

    /// Notes what changed. Called on the applier's thread, in log order, after readers can see the changes:
    /// takes one short lock and waits for nobody.
    pub fn on_change(&self, events: Vec<Event>) {
        let now = clock::now();
        let mut shared = self.lock();
        for event in events {
            match event {
                Event::ConfigChanged { key, .. } if shared.listeners.is_watched(&key) => {
                    shared.due.entry(key).or_insert(now);
                }
                Event::Reloaded { .. } => {
                    shared.reloaded.get_or_insert(now);
                }
                Event::ConfigChanged { .. }
                | Event::NamespaceChanged { .. }
                | Event::FeatureLevelRaised { .. } => {}
            }
        }
        let anything = !shared.due.is_empty() || shared.reloaded.is_some();
        drop(shared);
        if anything {
            self.changed.notify_one();
        }
    }

    /// Brings changes to those who watch, for ever.
    ///
    /// # Cancel safety
    /// What was taken and not yet told is lost: drop it only when nobody waits any more.
    pub async fn run(self: Arc<Self>) {
        loop {
            self.changed.notified().await;
            self.tell_all().await;
        }
    }

    async fn tell_all(&self) {
        let (due, reloaded) = {
            let mut shared = self.lock();
            (std::mem::take(&mut shared.due), shared.reloaded.take())
        };
        let mut marked = 0;
        if let Some(since) = reloaded {
            let everybody: Vec<_> = {
                let shared = self.lock();
                let owners = shared.listeners.owners();
                owners.map(|(_, watcher)| Arc::clone(&watcher.session)).collect()
            };
            for session in everybody {
                session.mark_all(since);
                give_way(&mut marked).await;
            }
        }
        for (key, since) in due {
            // Only the handles are copied under the lock: to wake a task takes far longer.
            let watchers: Vec<_> = {
                let shared = self.lock();
                let watches = shared.listeners.of_key(&key);
                watches
                    .map(|(watcher, slot, _)| (Arc::clone(&watcher.session), slot))
                    .collect()
            };
            for (session, slot) in watchers {
                session.mark(slot, since);
                give_way(&mut marked).await;
            }
        }
    }

    /// Registers a client with everything it watches. From the moment this returns, no change of any of
    /// `keys` is missed; slots are counted from 0 in their order. `keys` are replaced by equal ones that
    /// share memory with those of other watchers.
    ///
    /// # Errors
    /// Too much is watched; nothing is registered.
    pub fn watch<'a>(
        self: &Arc<Self>,
        ip: &str,
        keys: impl Iterator<Item = (&'a mut ConfigKey, Seen)>,
    ) -> Result<Watch, Full> {
        let session = Arc::new(Session::default());
        let watcher = Watcher {
            ip: ip.into(),
            session: Arc::clone(&session),
        };
        let id = self.lock().listeners.add(watcher);
        let mut watch = Watch {
            push: Arc::clone(self),
            id,
            session,
            slots: 0,
        };
        let mut keys = keys.peekable();
        while keys.peek().is_some() {
            let mut shared = self.lock();
            if shared.listeners.cost_bytes() >= COST_BYTES_MAX {
                drop(shared);
                // The watch takes away what was registered so far.
                return Err(Full);
            }
            for (key, seen) in keys.by_ref().take(LOCKED_STEP) {
                let (slot, name) = shared.listeners.watch(id, key, seen);
                assert!(
                    slot == Slot(watch.slots),
                    "slots of a new watcher are counted from 0"
                );
                *key = name;
                watch.slots += 1;
            }
        }
        Ok(watch)
    }

    /// Addresses of the clients that watch a config, and what they have of it.
    pub fn listeners_of(&self, key: &ConfigKey) -> BTreeMap<String, Seen> {
        let shared = self.lock();
        let found = shared.listeners.of_key(key);
        found
            .map(|(watcher, _, seen)| (watcher.ip.to_string(), seen))
            .collect()
    }

    /// What clients of an address watch, and what they have of it.
    pub fn listened_from(&self, ip: &str) -> BTreeMap<ConfigKey, Seen> {
        let shared = self.lock();
        let watchers = shared
            .listeners
            .owners()
            .filter(|(_, watcher)| &*watcher.ip == ip);
        watchers
            .flat_map(|(id, _)| shared.listeners.of_watcher(id))
            .map(|(key, seen)| (key.clone(), seen))
            .collect()
    }

    /// Numbers of clients that wait, of configs that are watched, and of watches.
    pub fn load(&self) -> (usize, usize, usize) {
        let shared = self.lock();
        let listeners = &shared.listeners;
        (listeners.watchers(), listeners.keys(), listeners.watches())
    }

    /// Nothing panics while it holds the lock but an assertion of ours.
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets other tasks run now and then.
async fn give_way(marked: &mut usize) {
    *marked += 1;
    if marked.is_multiple_of(MARKS_PER_TURN) {
        tokio::task::yield_now().await;
    }
}

/// A registered client. Dropping it, as when the client closes its connection, forgets it.
#[derive(Debug)]
pub struct Watch {
    push: Arc<ConfigPush>,
    id: WatcherId,
    session: Arc<Session>,
    slots: usize,
}

impl Watch {
    /// What has changed, as soon as something has.
    pub fn session(&self) -> &Session {
        &self.session
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut slot = 0;
        while slot < self.slots {
            let mut shared = self.push.lock();
            for _ in 0..LOCKED_STEP.min(self.slots - slot) {
                shared.listeners.unwatch(self.id, Slot(slot));
                slot += 1;
            }
        }
        self.push.lock().listeners.remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use raft::Index;

    use super::super::session::Which;
    use super::*;
    use crate::model::{Md5, NamespaceId};

    fn key(name: &str) -> ConfigKey {
        ConfigKey::new(&NamespaceId::default(), "g", name)
    }

    fn changed(name: &str) -> Event {
        Event::ConfigChanged {
            key: key(name),
            index: Index(1),
            md5: None,
            gray: false,
        }
    }

    fn watch(push: &Arc<ConfigPush>, ip: &str, names: &[&str]) -> Watch {
        let mut keys: Vec<_> = names.iter().map(|name| key(name)).collect();
        let keys = keys.iter_mut().map(|key| (key, Seen::Nothing));
        push.watch(ip, keys).expect("there is room")
    }

    async fn told(watch: &Watch) -> Option<Which> {
        let due = tokio::time::timeout(Duration::from_secs(1), watch.session().due()).await;
        due.ok().map(|due| due.which)
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_wakes_its_watchers_and_nobody_else() {
        let push = ConfigPush::new();
        let (a, b) = (watch(&push, "1", &["x", "y"]), watch(&push, "2", &["y", "z"]));
        push.on_change(vec![changed("x"), changed("none"), changed("x")]);
        assert_eq!(push.lock().due.len(), 1, "what nobody watches is not kept");
        push.tell_all().await;
        assert_eq!(told(&a).await, Some(Which::Some([Slot(0)].into())));
        assert_eq!(told(&b).await, None);
        push.on_change(vec![changed("y")]);
        push.tell_all().await;
        assert_eq!(told(&a).await, Some(Which::Some([Slot(1)].into())));
        assert_eq!(told(&b).await, Some(Which::Some([Slot(0)].into())));
        push.on_change(vec![Event::Reloaded { index: Index(9) }]);
        push.tell_all().await;
        assert_eq!(
            (told(&a).await, told(&b).await),
            (Some(Which::All), Some(Which::All))
        );
    }

    #[test]
    fn a_dropped_watch_is_forgotten_whole() {
        let push = ConfigPush::new();
        let names: Vec<String> = (0..3 * LOCKED_STEP + 1).map(|n| n.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let many = watch(&push, "1", &names);
        let one = watch(&push, "2", &["5"]);
        assert_eq!(push.load(), (2, names.len(), names.len() + 1));
        drop(many);
        assert_eq!(push.load(), (1, 1, 1));
        drop(one);
        assert_eq!(push.load(), (0, 0, 0));
        assert_eq!(push.lock().listeners.cost_bytes(), 0);
    }

    #[test]
    fn beyond_the_bound_listeners_are_refused_and_leave_nothing() {
        let push = ConfigPush::new();
        let mut long = vec![key(&"d".repeat(1 << 20)); 128];
        let long = long.iter_mut().map(|key| (key, Seen::Nothing));
        let held = push.watch("1", long).expect("there is room");
        let before = push.load();
        let mut keys = [key("a"), key("b")];
        let refused = push.watch("2", keys.iter_mut().map(|key| (key, Seen::Nothing)));
        assert!(matches!(refused, Err(Full)));
        drop(refused);
        assert_eq!(push.load(), before);
        drop(held);
        drop(watch(&push, "2", &["a", "b"]));
    }

    #[test]
    fn who_listens_to_what() {
        let push = ConfigPush::new();
        let md5 = Md5::of(b"1");
        let mut keys = [key("a"), key("b")];
        let seen = [Seen::Md5(md5), Seen::Nothing];
        let _first = push.watch("10.0.0.1", keys.iter_mut().zip(seen)).unwrap();
        let _second = watch(&push, "10.0.0.2", &["b"]);
        assert_eq!(
            push.listeners_of(&key("a")),
            BTreeMap::from([("10.0.0.1".to_owned(), Seen::Md5(md5))])
        );
        assert_eq!(push.listeners_of(&key("b")).len(), 2);
        assert_eq!(
            push.listened_from("10.0.0.1"),
            BTreeMap::from([(key("a"), Seen::Md5(md5)), (key("b"), Seen::Nothing)])
        );
        assert!(push.listened_from("10.0.0.3").is_empty());
    }
}
