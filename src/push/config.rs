//! Changes of configs, brought to those who watch them.

use std::collections::hash_map::Entry as MapEntry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::fuzzy::FuzzyPush;
use super::listeners::Listeners;
use super::newcomers::{Newcomer, Recent};
use super::session::Session;
use super::watch::Watch;
use crate::clock;
use crate::config::{Seen, Versions};
use crate::metrics::Push;
use crate::model::{ConfigKey, NamespaceId};
use crate::state::Event;

/// Memory that all watches together may take ([`Listeners::cost_of`]): about 450,000 watches of names of
/// ordinary length, a client a quarter of what is left ([`Listeners::has_room`]). Beyond it a listener is refused.
pub(super) const COST_BYTES_MAX: usize = 256 << 20;

/// Watches made, taken away or copied while the lock is held; the applier gets in between. About 50 µs.
pub(super) const LOCKED_STEP: usize = 256;

/// Sessions marked before other tasks of the thread get their turn.
const MARKS_PER_TURN: usize = 1_024;

/// There is no room for another listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many configs are being listened to on this node, or by this client")]
pub struct Full;

/// Who watches which config on this node, and the way to wake them.
#[derive(Debug, Default)]
pub struct ConfigPush {
    shared: Mutex<Shared>,
    /// Something is due.
    changed: Notify,
    /// Number of the last change of which newcomers are to hear.
    newcomers: watch::Sender<u64>,
    /// Counters.
    pub metrics: Push,
    /// Who watches patterns.
    pub fuzzy: Arc<FuzzyPush<ConfigKey>>,
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) listeners: Listeners<ConfigKey, Seen, Arc<Session>>,
    /// What changed last, for those who come.
    pub(super) recent: Recent,
    /// Changed and watched, not yet told. No larger than the number of watched configs.
    due: HashMap<ConfigKey, Change>,
    /// The whole state was replaced; everybody is to look again.
    reloaded: Option<Instant>,
}

/// What has become of a config since the pusher looked last.
#[derive(Debug)]
struct Change {
    /// The moment of the first change.
    since: Instant,
    /// What the one change did; `None` after several.
    ///
    /// NOTE: several must not be folded into "before the first, after the last". A content that went from 1
    /// to 2 and back to 1 looks unchanged that way, and a client that read in between would keep 2.
    once: Option<Box<(Versions, Versions)>>,
}

impl Change {
    /// True when what this client sees has changed, or may have. To tell a client for nothing costs it two
    /// calls, and a beta publish for one of 10,000 listeners would cost 19,998; not to tell it loses an
    /// update.
    ///
    /// This narrows the contract (01 §4.5: "to all connections listening on the key") in this one way: a
    /// client that sees the same content before and after is not told. What a client *says* it has never
    /// counts: between a notification and its next listen a client has something else.
    fn concerns(&self, session: &Session) -> bool {
        match self.once.as_deref() {
            None => true,
            Some((before, after)) if before.grays.is_empty() && after.grays.is_empty() => true,
            Some((before, after)) => {
                session.as_client(|client| before.seen_by(client) != after.seen_by(client))
            }
        }
    }
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
            self.note_existence(&event);
            if let Event::ConfigChanged { key, .. } = &event {
                shared.recent.note(key.clone(), now);
            }
            match event {
                Event::ConfigChanged {
                    key, before, after, ..
                } if shared.listeners.is_watched(&key) => match shared.due.entry(key) {
                    MapEntry::Vacant(entry) => {
                        entry.insert(Change {
                            since: now,
                            once: Some(Box::new((before, after))),
                        });
                    }
                    MapEntry::Occupied(mut entry) => entry.get_mut().once = None,
                },
                Event::Reloaded { .. } => {
                    shared.reloaded.get_or_insert(now);
                }
                Event::ConfigChanged { .. }
                | Event::NamespaceChanged { .. }
                | Event::NamingChanged { .. }
                | Event::NamingSwitched { .. }
                | Event::FeatureLevelRaised { .. } => {}
            }
        }
        let anything =
            !shared.due.is_empty() || shared.reloaded.is_some() || self.newcomers.receiver_count() > 0;
        drop(shared);
        if anything {
            self.changed.notify_one();
        }
    }

    fn note_existence(&self, event: &Event) {
        match event {
            Event::ConfigChanged {
                key, before, after, ..
            } if before.formal.is_some() != after.formal.is_some() => {
                self.fuzzy.on_existence(key.clone(), after.formal.is_some());
            }
            Event::Reloaded { .. } => self.fuzzy.on_reload(),
            _ => {}
        }
    }

    /// Brings changes to those who watch, for ever.
    ///
    /// # Cancel safety
    /// What was taken and not yet told is lost: drop it only when nobody waits any more.
    pub async fn run(self: Arc<Self>) {
        tokio::join!(self.run_configs(), self.fuzzy.run());
    }

    async fn run_configs(&self) {
        loop {
            self.changed.notified().await;
            self.tell_all().await;
        }
    }

    async fn tell_all(&self) {
        let (due, reloaded, noted) = {
            let mut shared = self.lock();
            let due = std::mem::take(&mut shared.due);
            (due, shared.reloaded.take(), shared.recent.noted())
        };
        let mut marked = 0;
        if let Some(since) = reloaded {
            let everybody: Vec<_> = {
                let shared = self.lock();
                let owners = shared.listeners.owners();
                owners.map(|(_, session)| Arc::clone(session)).collect()
            };
            for session in everybody {
                session.mark_all(since);
                give_way(&mut marked).await;
            }
        }
        for (key, change) in due {
            self.tell(&key, &change, &mut marked).await;
        }
        self.newcomers.send_if_modified(|last| {
            let is_news = *last != noted;
            *last = noted;
            is_news
        });
    }

    /// Marks everybody who watches a config and is concerned.
    ///
    /// The watches of a key are walked from the last to the first, some at a time. Meanwhile the list may
    /// change, but only so that nobody is missed: one that is taken away is replaced by the last one, which
    /// was walked before, and one that is new was made after the change and compares by itself.
    async fn tell(&self, key: &ConfigKey, change: &Change, marked: &mut usize) {
        let mut below = usize::MAX;
        while below > 0 {
            // Only the handles are copied under the lock: to wake a task takes far longer.
            let step: Vec<_> = {
                let shared = self.lock();
                let (watches, next) = shared.listeners.of_key_below(key, below, LOCKED_STEP);
                below = next;
                watches
                    .map(|(session, slot, _)| (Arc::clone(session), slot))
                    .collect()
            };
            for (session, slot) in step {
                if change.concerns(&session) {
                    session.mark(slot, change.since);
                }
                give_way(marked).await;
            }
        }
    }

    /// Registers a client that watches nothing yet: its address, and its tag if it has one.
    pub fn open(self: &Arc<Self>, ip: &str, tag: Option<&str>) -> Watch {
        let session = Arc::new(Session::new(ip, tag));
        let id = self.lock().listeners.add(Arc::clone(&session));
        Watch::new(Arc::clone(self), id, session)
    }

    /// For a client that is expected to listen to configs of a namespace (any of its spellings) and has not said to
    /// which.
    pub fn expect(self: &Arc<Self>, namespace: &str) -> Newcomer {
        // Subscribed first, looked at afterwards.
        let told = self.newcomers.subscribe();
        Newcomer::new(Arc::clone(self), NamespaceId::new(namespace), told, clock::now())
    }

    /// Registers a client with everything it watches. From the moment this returns, no change of any of
    /// `keys` is missed; slots are counted from 0 in their order. `keys` are replaced by equal ones that
    /// share memory with those of other watchers.
    ///
    /// # Errors
    /// Too much is watched on this node, or by this client; nothing is registered.
    pub fn watch<'a>(
        self: &Arc<Self>,
        ip: &str,
        tag: Option<&str>,
        keys: impl Iterator<Item = (&'a mut ConfigKey, Seen)>,
    ) -> Result<Watch, Full> {
        let mut watch = self.open(ip, tag);
        let mut keys = keys.peekable();
        while keys.peek().is_some() {
            // A watch that is dropped takes away what was registered so far.
            watch.add_some(keys.by_ref().take(LOCKED_STEP))?;
        }
        Ok(watch)
    }

    /// Addresses of the clients that watch a config, and what they have of it.
    pub fn listeners_of(&self, key: &ConfigKey) -> BTreeMap<String, Seen> {
        let shared = self.lock();
        let found = shared.listeners.of_key(key);
        found
            .map(|(session, _, seen)| (session.ip().to_owned(), *seen))
            .collect()
    }

    /// What clients of an address watch, and what they have of it.
    pub fn listened_from(&self, ip: &str) -> BTreeMap<ConfigKey, Seen> {
        let shared = self.lock();
        let watchers = shared
            .listeners
            .owners()
            .filter(|(_, session)| session.ip() == ip);
        watchers
            .flat_map(|(id, _)| shared.listeners.of_watcher(id))
            .map(|(key, seen)| (key.clone(), *seen))
            .collect()
    }

    /// Numbers of clients that wait, of configs that are watched, and of watches.
    pub fn load(&self) -> (usize, usize, usize) {
        let shared = self.lock();
        let listeners = &shared.listeners;
        (listeners.watchers(), listeners.keys(), listeners.watches())
    }

    /// Nothing panics while it holds the lock but an assertion of ours.
    pub(super) fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets other tasks run now and then.
pub(super) async fn give_way(marked: &mut usize) {
    *marked += 1;
    if marked.is_multiple_of(MARKS_PER_TURN) {
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use raft::Index;

    use super::super::listeners::Slot;
    use super::super::marks::Which;
    use super::*;
    use crate::model::{Md5, NamespaceId};

    fn key(name: &str) -> ConfigKey {
        ConfigKey::new(&NamespaceId::default(), "g", name)
    }

    fn changed(name: &str) -> Event {
        Event::ConfigChanged {
            key: key(name),
            index: Index(1),
            before: Versions::default(),
            after: Versions::default(),
        }
    }

    fn watch(push: &Arc<ConfigPush>, ip: &str, names: &[&str]) -> Watch {
        let mut keys: Vec<_> = names.iter().map(|name| key(name)).collect();
        let keys = keys.iter_mut().map(|key| (key, Seen::Nothing));
        push.watch(ip, None, keys).expect("there is room")
    }

    async fn told(watch: &Watch) -> Option<Which<Slot>> {
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
        let held = push.watch("1", None, long).expect("there is room");
        let before = push.load();
        let mut keys = [key("a"), key("b")];
        let refused = push.watch("2", None, keys.iter_mut().map(|key| (key, Seen::Nothing)));
        assert!(matches!(refused, Err(Full)));
        drop(refused);
        assert_eq!(push.load(), before);
        drop(held);
        drop(watch(&push, "2", &["a", "b"]));
    }

    /// What starved everybody else: six connections that listen to as much as they may.
    #[test]
    fn a_few_that_want_everything_leave_room_for_others() {
        let push = ConfigPush::new();
        let add = |watch: &mut Watch, number: usize| {
            watch
                .add(
                    &mut key(&format!("{}{number}", "d".repeat(64 << 10))),
                    Seen::Nothing,
                )
                .is_ok()
        };
        let mut greedy: Vec<_> = (0..6).map(|_| push.open("1", None)).collect();
        let taken: Vec<usize> = greedy
            .iter_mut()
            .map(|watch| (0..).take_while(|number| add(watch, *number)).count())
            .collect();
        // A fifth of everything, a fifth of the rest, and so on.
        assert!(taken[0] * 5 * (128 << 10) >= COST_BYTES_MAX * 9 / 10, "{taken:?}");
        assert!(
            push.lock().listeners.cost_bytes() < COST_BYTES_MAX * 3 / 4,
            "{taken:?}"
        );
        let mut other = push.open("2", None);
        assert!((0..80).all(|number| add(&mut other, number)), "10 MiB");
        // What one gives up, it may have again.
        greedy[0].remove(Slot(0));
        drop((greedy.split_off(1), other));
        assert!(add(&mut greedy[0], 0));
    }

    #[test]
    fn who_listens_to_what() {
        let push = ConfigPush::new();
        let md5 = Md5::of(b"1");
        let mut keys = [key("a"), key("b")];
        let seen = [Seen::Md5(md5), Seen::Nothing];
        let _first = push.watch("10.0.0.1", None, keys.iter_mut().zip(seen)).unwrap();
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
