//! Listening to configs over a connection that stays: the batch listen of Nacos 2, and its notifications.
//!
//! # Why this order
//! 1. *Registered first, compared afterwards*, key by key: a change in between is in the answer, or told.
//! 2. *The node proves that it is fresh before it says "changed"*, in an answer or in a notification: a
//!    client that is told reads at once, and from a node that lags it would read older after newer (hazard
//!    R41; see `service::listen`). A ReadIndex is needed only when a client says something this node could
//!    not have told it: a key that is new on the connection, or an MD5 that is neither what it said last nor
//!    what this node has. So the round trips are those of reconnects, not those of changes.
//! 3. *A notification says "look again"* and carries no content. It leaves after this node can answer with
//!    what it is about, so nothing older can follow it.
//! 4. *What a client has is not known* between a notification and its next listen: Go and Python SDKs
//!    listen again only seconds later. So a content that goes back to what the client said last is told like
//!    any other change.
//!
//! 5. *While a listen is under way its connection is told nothing*, and for a moment afterwards: the Go SDK
//!    (2.3.5) takes every key of a listen for unchanged when the answer comes, those it was notified of
//!    meanwhile included, and would not look again for minutes. Python (2.0, 3.2) does the same with a key
//!    whose content it is reading after such an answer.
//! 6. *Whoever was told and has not looked is told again*, a few times ([`Reminders`]): the Go SDK handles an
//!    answer for longer than that when there is much in it. Looking is to listen to the config anew, as
//!    nearly all SDKs do after a notification, or to read it over this connection, as the Rust one does.
//!
//! 7. *Clients that do not do what this needs* (`silent`) are told of what they may listen to.
//!
//! Without a leader nothing is told that was not proved before; it is told when there is one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use self::silent::{Guesses, Silence, guess};
use super::Services;
use super::freshness::Moment;
use super::listen::{Listened, Spelling, Truth};
use crate::clock;
use crate::config::Seen;
use crate::error::{Error, Result};
use crate::metrics;
use crate::model::ConfigKey;
use crate::push::{ConfigPush, Due, Failed, Full, Outbox, Reminders, Session, Slot, UnderWay, Watch, Which};
use crate::seeded::{self, Bug};

mod silent;

pub use silent::Who;

/// Keys one connection may listen to. SDKs open a connection for every 3,000, or put all on one.
pub const WATCHED_MAX: usize = 100_000;

/// A listen that needs a leader is answered within this: SDKs wait 3 s.
const LISTEN_WITHIN: Duration = Duration::from_millis(2_500);

/// A notification that needs a leader asks again after this; only the log of warnings depends on it.
const PROOF_WITHIN: Duration = Duration::from_secs(10);

/// Rest after a round that could not even be begun.
const PROOF_REST: Duration = Duration::from_millis(100);

/// From the end of a listen to the next notification: its answer is to arrive first, and the client reads what
/// the answer names.
const AFTER_ANSWER: Duration = Duration::from_millis(20);

/// A client that listens all the time is told after this all the same.
const HELD_MAX: Duration = Duration::from_secs(3);

/// Keys registered or compared before other tasks of the thread get their turn; about 100 µs.
const KEYS_PER_TURN: usize = 256;

/// What one connection listens to.
#[derive(Debug)]
pub struct ConfigWatch {
    session: Arc<Session>,
    inner: Mutex<Inner>,
    listens: watch::Sender<Listens>,
    /// The client throws the answer of a listen of one config away.
    looks_away: bool,
    /// The client may listen to configs of which it has not spoken.
    silence: Option<Silence>,
}

/// The listens of a connection.
#[derive(Debug, Default)]
struct Listens {
    under_way: usize,
    /// When the last one ended.
    ended: Option<Instant>,
}

/// A listen under way.
struct Listening<'a>(&'a ConfigWatch);

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        self.0.listens.send_modify(|listens| {
            listens.under_way -= 1;
            listens.ended = Some(clock::now());
        });
    }
}

#[derive(Debug)]
struct Inner {
    watch: Watch,
    by_key: HashMap<ConfigKey, Slot>,
    /// By slot.
    watched: Vec<Option<Watched>>,
    /// Notifications and answers wait until a round begun after this moment is applied; `None` while
    /// nothing is watched.
    asked: Option<Moment>,
}

#[derive(Debug)]
struct Watched {
    key: ConfigKey,
    spelling: Spelling,
    /// Told of a change since it listened last: what it has now is not known.
    told: bool,
    /// Told of a change, and has not looked since: it has neither listened to the config nor read it.
    owes_look: bool,
}

/// Takes notifications to a client.
pub trait Courier: Sized {
    /// Sends one, when it is polled first; true once the client has taken it, false when it has not
    /// within seconds, or could not.
    fn carry(&self, notice: Notice<'_>) -> impl Future<Output = bool> + Send + 'static + use<Self>;
}

/// A config has changed: look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice<'a> {
    /// The config.
    pub key: &'a ConfigKey,
    /// Its namespace as the client spells it; empty if it did not name one.
    pub namespace: &'a str,
}

/// The client did not acknowledge a notification, however often it was repeated: it is to be disconnected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a notification was never acknowledged")]
pub struct Unresponsive;

impl Services {
    /// Registers a connection that listens to nothing yet, or has not said to what.
    /// Dropping it ends all its listening.
    pub fn open_watch(&self, who: &Who<'_>) -> ConfigWatch {
        ConfigWatch::new(&self.push, who, self.freshness.now())
    }

    /// Has the connection listen to these configs too, or replaces what it has of them; gives back those
    /// that differ from what it has, in its order.
    ///
    /// # Errors
    /// `Overloaded`: too much is listened to; what was registered stays. `Unavailable`: something differs
    /// and no leader could be asked who is right; everything is registered.
    ///
    /// # Cancel safety
    /// What is registered stays so.
    pub async fn listen(
        &self,
        watch: &ConfigWatch,
        entries: Vec<Listened>,
        tag: Option<&str>,
    ) -> Result<Vec<Listened>> {
        let deadline = clock::now() + LISTEN_WITHIN.min(self.write_timeout);
        watch.session.set_tag(tag);
        let answer = listen(self, watch, entries, deadline).await;
        if let Err(Error::Overloaded(_)) = answer {
            self.push.metrics.refused.fetch_add(1, Relaxed);
        }
        answer
    }

    /// Sends the connection its notifications, as long as it lives.
    ///
    /// # Errors
    /// The only way to end: the client does not answer.
    ///
    /// # Cancel safety
    /// Drop it with the connection: what was not told by then never will be.
    pub async fn notify(&self, watch: &ConfigWatch, courier: &impl Courier) -> Unresponsive {
        deliver(
            self,
            watch,
            courier,
            &self.push.metrics,
            &self.metrics.grpc.pushes,
        )
        .await
    }
}

impl ConfigWatch {
    /// `came` is the moment of the connection: what the client has, it has from before, and perhaps from a node that
    /// is newer than this one.
    fn new(push: &Arc<ConfigPush>, who: &Who<'_>, came: Moment) -> ConfigWatch {
        let watch = push.open(who.ip, who.tag);
        let silence = Silence::of(who, push);
        ConfigWatch {
            session: Arc::clone(watch.session()),
            inner: Mutex::new(Inner {
                watch,
                by_key: HashMap::new(),
                watched: Vec::new(),
                asked: silence.is_some().then_some(came),
            }),
            listens: watch::Sender::default(),
            looks_away: who.looks_away(),
            silence,
        }
    }

    fn begin_listen(&self) -> Listening<'_> {
        self.listens.send_modify(|listens| listens.under_way += 1);
        Listening(self)
    }

    /// Returns once the answers of all listens are out, and the client has had a moment for the last one.
    async fn answered(&self) {
        let deadline = clock::now() + HELD_MAX;
        let mut listens = self.listens.subscribe();
        loop {
            let quiet = listens.wait_for(|listens| listens.under_way == 0);
            // Late, or never: this holds the sender.
            let Ok(Ok(last)) = tokio::time::timeout_at(deadline, quiet)
                .await
                .map(|quiet| quiet.map(|last| last.ended))
            else {
                return;
            };
            // A change right after the answer counts like one before it: the client is still at work with it.
            let Some(ended) = last else { return };
            let until = (ended + AFTER_ANSWER).min(deadline);
            if clock::now() >= until {
                return;
            }
            // Another listen may come meanwhile.
            tokio::time::sleep_until(until).await;
        }
    }

    /// Stops listening to these configs; others are not touched, and unknown ones are no error.
    pub fn unlisten<'a>(&self, keys: impl Iterator<Item = &'a ConfigKey>) {
        // One short lock for each: a request may name 10,000 keys, and notifications go on meanwhile.
        for key in keys {
            self.inner().remove(key);
        }
    }

    /// The client has read a config over this connection, whether or not it listens to it: what it was told of
    /// before needs no reminder.
    pub fn has_read(&self, key: &ConfigKey) {
        if let Some(watched) = self.inner().watched_mut(key) {
            watched.owes_look = false;
        }
    }

    /// True when the client was told of this config and has not looked at it since.
    fn owes_look(&self, key: &ConfigKey) -> bool {
        self.inner()
            .watched_mut(key)
            .is_some_and(|watched| watched.owes_look)
    }

    /// Number of configs it listens to.
    pub fn len(&self) -> usize {
        self.inner().by_key.len()
    }

    /// True when it listens to nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The client listens to this config alone, differs, and may not look at the answer: it is told besides.
    fn tell_besides(&self, key: &ConfigKey) {
        if self.looks_away
            && let Some(slot) = self.inner().by_key.get(key).copied()
        {
            self.session.mark(slot, clock::now());
        }
    }

    /// A notification of this config; `None` when the client listens to it no longer.
    fn carry<C: Courier>(
        &self,
        key: &ConfigKey,
        courier: &C,
    ) -> Option<impl Future<Output = bool> + Send + 'static + use<C>> {
        let mut inner = self.inner();
        let namespace = match inner.watched_mut(key) {
            Some(watched) => watched.spelling.as_sent(&watched.key),
            None => self.silence.as_ref()?.spelling_of(key)?,
        };
        Some(courier.carry(Notice { key, namespace }))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it holds the lock but an assertion of ours.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Registers what the client says that it has. `asked` is a moment before it said so.
    ///
    /// # Errors
    /// There is no room.
    fn put(
        &mut self,
        truth: &impl Truth,
        entry: &mut Listened,
        asked: Moment,
    ) -> std::result::Result<(), Full> {
        let is_full = self.by_key.len() >= WATCHED_MAX;
        let is_news = match self.by_key.entry(entry.key.clone()) {
            Entry::Occupied(found) => {
                let slot = *found.get();
                let said_before = self.watch.seen(slot);
                self.watch.set_seen(slot, entry.seen);
                if let Some(Some(watched)) = self.watched.get_mut(slot.0) {
                    watched.spelling = entry.spelling.clone();
                    watched.told = false;
                    watched.owes_look = false;
                    // One allocation for all who name it.
                    entry.key = watched.key.clone();
                }
                said_before != Some(entry.seen) && !self.is_seen(truth, entry)
            }
            Entry::Vacant(_) if is_full => return Err(Full),
            Entry::Vacant(place) => {
                let slot = self.watch.add(&mut entry.key, entry.seen)?;
                place.insert(slot);
                if self.watched.len() <= slot.0 {
                    self.watched.resize_with(slot.0 + 1, || None);
                }
                if let Some(watched) = self.watched.get_mut(slot.0) {
                    *watched = Some(Watched {
                        key: entry.key.clone(),
                        spelling: entry.spelling.clone(),
                        told: false,
                        owes_look: false,
                    });
                }
                true
            }
        };
        if is_news {
            self.asked = self.asked.max(Some(asked));
        }
        Ok(())
    }

    fn watched_mut(&mut self, key: &ConfigKey) -> Option<&mut Watched> {
        let slot = self.by_key.get(key)?;
        self.watched.get_mut(slot.0)?.as_mut()
    }

    /// True when the client has what it would see on this node.
    fn is_seen(&self, truth: &impl Truth, entry: &Listened) -> bool {
        let now = self
            .watch
            .session()
            .as_client(|client| truth.md5(&entry.key, client));
        entry.seen.is(now)
    }

    fn remove(&mut self, key: &ConfigKey) {
        let Some(slot) = self.by_key.remove(key) else {
            return;
        };
        self.watch.remove(slot);
        if let Some(watched) = self.watched.get_mut(slot.0) {
            *watched = None;
        }
    }

    /// The config in this slot, if the client is to be told of it.
    fn tell(&mut self, slot: usize) -> Option<ConfigKey> {
        let watched = self.watched.get_mut(slot)?.as_mut()?;
        watched.told = true;
        watched.owes_look = true;
        Some(watched.key.clone())
    }

    /// The same if the client may have something else than there is.
    fn tell_if_doubtful(&mut self, truth: &impl Truth, slot: usize) -> Option<ConfigKey> {
        let watched = self.watched.get_mut(slot)?.as_mut()?;
        if !watched.told {
            let seen = self.watch.seen(Slot(slot)).unwrap_or(Seen::Other);
            let session = self.watch.session();
            let now = session.as_client(|client| truth.md5(&watched.key, client));
            if seen.is(now) {
                return None;
            }
        }
        watched.told = true;
        watched.owes_look = true;
        Some(watched.key.clone())
    }
}

/// See the top of this file for the order.
async fn listen(
    truth: &impl Truth,
    watch: &ConfigWatch,
    mut entries: Vec<Listened>,
    deadline: Instant,
) -> Result<Vec<Listened>> {
    let _listening = watch.begin_listen();
    let asked = truth.moment();
    let mut anything_differs = false;
    for step in entries.chunks_mut(KEYS_PER_TURN) {
        register(truth, watch, step, asked).map_err(|full| Error::Overloaded(full.to_string()))?;
        anything_differs |= !differing(truth, watch, step, false).is_empty();
        tokio::task::consume_budget().await;
    }
    if !anything_differs || seeded::has(Bug::ListenBlind) {
        return Ok(Vec::new());
    }
    if let [only] = &*entries {
        watch.tell_besides(&only.key);
    }
    let asked = watch.inner().asked.unwrap_or(asked);
    truth.caught_up(asked, deadline).await?;
    // What came meanwhile counts too; its notification finds nothing new, which does no harm.
    let mut changed = Vec::new();
    for step in entries.chunks(KEYS_PER_TURN) {
        changed.extend(differing(truth, watch, step, true).into_iter().cloned());
        tokio::task::consume_budget().await;
    }
    Ok(changed)
}

/// Registers some entries, few enough for one lock.
fn register(
    truth: &impl Truth,
    watch: &ConfigWatch,
    entries: &mut [Listened],
    asked: Moment,
) -> std::result::Result<(), Full> {
    let mut inner = watch.inner();
    entries
        .iter_mut()
        .try_for_each(|entry| inner.put(truth, entry, asked))
}

/// Those that differ from what the client has. With `telling`, it is going to be told.
fn differing<'a>(
    truth: &impl Truth,
    watch: &ConfigWatch,
    entries: &'a [Listened],
    telling: bool,
) -> Vec<&'a Listened> {
    let mut inner = watch.inner();
    let differ = entries.iter().filter(|entry| !inner.is_seen(truth, entry));
    let differ: Vec<_> = differ.collect();
    if telling {
        for entry in &differ {
            if let Some(slot) = inner.by_key.get(&entry.key).copied() {
                drop(inner.tell(slot.0));
            }
        }
    }
    differ
}

/// Sends notifications until the client does not answer.
async fn deliver(
    truth: &impl Truth,
    watch: &ConfigWatch,
    courier: &impl Courier,
    metrics: &metrics::Push,
    pushes: &metrics::Pushes,
) -> Unresponsive {
    let (mut outbox, mut under_way) = (Outbox::default(), UnderWay::default());
    let mut reminders = Reminders::default();
    let mut guesses = watch.silence.as_ref().and_then(Silence::begin);
    loop {
        while let Some((key, since)) = outbox.take() {
            match watch.carry(&key, courier) {
                Some(push) => {
                    under_way.add(key, push);
                    metrics
                        .delay
                        .observe(clock::now().saturating_duration_since(since));
                    metrics.notifications.fetch_add(1, Relaxed);
                }
                None => outbox.drop_sent(&key),
            }
        }
        pushes.retried.fetch_add(outbox.take_retries(), Relaxed);
        let (rest_ends, reminds_at) = (outbox.wakes_at(), reminders.wakes_at());
        tokio::select! {
            due = watch.session.due() => {
                watch.answered().await;
                prove(truth, watch).await;
                note(truth, watch, due, &mut outbox, &mut reminders).await;
            }
            changed = Guesses::next(&mut guesses) => {
                watch.answered().await;
                prove(truth, watch).await;
                guess(watch, changed, &mut outbox);
            }
            ended = under_way.ended() => for (key, taken) in ended {
                if taken {
                    outbox.acked(&key);
                    reminders.told(&key, clock::now());
                } else if !watch.inner().by_key.contains_key(&key) {
                    outbox.drop_sent(&key);
                } else if outbox.failed(&key, clock::now()) == Failed::GiveUp {
                    pushes.given_up.fetch_add(1, Relaxed);
                    return Unresponsive;
                }
            },
            () = tokio::time::sleep_until(rest_ends.unwrap_or_else(clock::now)), if rest_ends.is_some() => {
                outbox.wake(clock::now());
            }
            () = tokio::time::sleep_until(reminds_at.unwrap_or_else(clock::now)), if reminds_at.is_some() => {
                watch.answered().await;
                pushes.retried.fetch_add(remind(watch, &mut outbox, &mut reminders), Relaxed);
            }
        }
    }
}

/// Has the client told again of what it has not looked at; how many times.
fn remind(watch: &ConfigWatch, outbox: &mut Outbox<ConfigKey>, reminders: &mut Reminders<ConfigKey>) -> u64 {
    let now = clock::now();
    while let Some(key) = reminders.take(now) {
        if watch.owes_look(&key) {
            outbox.mark(key, now);
            reminders.rest(now);
            return 1;
        }
        reminders.forget(&key);
    }
    0
}

/// Returns once this node is at least as new as whatever the client has said that it has.
async fn prove(truth: &impl Truth, watch: &ConfigWatch) {
    loop {
        let Some(asked) = watch.inner().asked else { return };
        let deadline = clock::now() + PROOF_WITHIN;
        match truth.caught_up(asked, deadline).await {
            // A listen may have come meanwhile that says something newer.
            Ok(()) if watch.inner().asked == Some(asked) => return,
            Ok(()) => {}
            Err(_not_now) => tokio::time::sleep(PROOF_REST).await,
        }
    }
}

/// Puts what is due into the outbox.
async fn note(
    truth: &impl Truth,
    watch: &ConfigWatch,
    due: Due<Slot>,
    outbox: &mut Outbox<ConfigKey>,
    reminders: &mut Reminders<ConfigKey>,
) {
    match due.which {
        Which::Some(slots) => {
            let mut inner = watch.inner();
            for slot in slots {
                if let Some(key) = inner.tell(slot.0) {
                    reminders.forget(&key);
                    outbox.mark(key, due.since);
                }
            }
        }
        Which::All => {
            let (mut from, mut end) = (0, 1);
            while from < end {
                {
                    let mut inner = watch.inner();
                    end = inner.watched.len();
                    for slot in from..end.min(from + KEYS_PER_TURN) {
                        if let Some(key) = inner.tell_if_doubtful(truth, slot) {
                            reminders.forget(&key);
                            outbox.mark(key, due.since);
                        }
                    }
                }
                from += KEYS_PER_TURN;
                tokio::task::consume_budget().await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
