//! Watching all configs, or all services, that match a pattern (Nacos 3): what comes and what goes, not what is
//! in it. A service has come with its first instance and gone with its last.
//!
//! A client says what it knows; it is told the difference to what there is, in batches of twenty, and from
//! then on what comes and goes. All of it is one thing here: for each pattern the node remembers what the
//! client *knows* (it said so, or acknowledged it), and tells the difference to the present. What a push says
//! is decided when it is sent, a retry included, so nothing older can follow anything newer; what changed
//! while a push was under way is told afterwards.
//!
//! As with listeners (`service::watch`), a node that lags tells nothing before it has caught up with the
//! moment at which the client said what it knows.

mod watchable;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Services;
use super::freshness::Moment;
use super::listen::Truth as _;
use crate::clock;
use crate::error::{Error, Result};
use crate::model::Named;
use crate::push::{Failed, FuzzyMarks, FuzzyPattern, FuzzyPush, FuzzySession, MATCHES_MAX, Outbox, UnderWay};

pub use self::watchable::Watchable;

/// Patterns one connection may watch (contract 00).
pub const PATTERNS_MAX: usize = 20;
/// Names in one batch.
const BATCH: usize = 20;
/// Names a client may say it knows of one pattern; what is beyond is not looked at.
const KNOWN_MAX: usize = 2 * MATCHES_MAX;
/// Times somebody looks for what matches a pattern while so much comes and goes that it does not count.
const LOOKS_MAX: usize = 10;
/// As with listeners.
const PROOF_WITHIN: Duration = Duration::from_secs(10);
const PROOF_REST: Duration = Duration::from_millis(100);

/// The patterns one connection watches. Dropping it ends all its watching.
#[derive(Debug)]
pub struct FuzzyWatch<K: Named> {
    push: Arc<FuzzyPush<K>>,
    number: u64,
    session: Arc<FuzzySession<K>>,
    wanted: Mutex<Wanted<K>>,
}

#[derive(Debug)]
struct Wanted<K> {
    /// By its text; what the client said that it knows, until the task that tells has taken it.
    patterns: BTreeMap<Arc<str>, Option<Said<K>>>,
}

/// What a client said with a watch.
#[derive(Clone, Debug)]
struct Said<K> {
    pattern: FuzzyPattern,
    known: BTreeSet<K>,
    initializing: bool,
    /// A moment before it said so.
    asked: Moment,
}

/// What was said of which pattern.
type News<K> = Vec<(Arc<str>, Said<K>)>;

/// How a watch was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// Everything that matches is told.
    Whole,
    /// More matches than a watch can hold; the rest is not told.
    Partly,
    /// The connection, or the node, watches too many patterns; this one is not watched.
    TooMany,
}

/// Takes pushes of fuzzy watches to a client.
pub trait FuzzyCourier: Sized {
    /// Sends one, when it is polled first; true once the client has taken it.
    fn carry(&self, push: FuzzyNotice) -> impl Future<Output = bool> + Send + 'static + use<Self>;
}

/// A push of a fuzzy watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FuzzyNotice {
    /// Some of the difference between what the client knew and what there is.
    Batch {
        /// The pattern.
        pattern: Arc<str>,
        /// Whether it is the first sync of this connection.
        initializing: bool,
        /// Names as Nacos writes them, and whether they exist.
        contexts: Vec<(String, bool)>,
        /// Which batch, from 1, of how many.
        number: (usize, usize),
    },
    /// The client has been told everything there was when it began.
    Finished {
        /// The pattern.
        pattern: Arc<str>,
    },
    /// The name came (true) or went.
    Change(String, bool),
}

impl Services {
    /// Registers a connection that watches no pattern yet.
    pub fn open_fuzzy_watch<K: Watchable>(&self) -> FuzzyWatch<K> {
        FuzzyWatch::new(K::push(self))
    }

    /// Has the connection watch a pattern; `known` are the names the client knows.
    ///
    /// # Errors
    /// `Invalid`: it is no pattern.
    pub async fn watch_fuzzy<K: Watchable>(
        self: &Arc<Self>,
        watch: &FuzzyWatch<K>,
        text: &str,
        known: impl Iterator<Item = &str>,
        initializing: bool,
    ) -> Result<Watched> {
        let asked = self.moment();
        let pattern = FuzzyPattern::parse(text)
            .ok_or_else(|| Error::Invalid(format!("invalid groupKeyPattern : {text}")))?;
        let known = known.take(KNOWN_MAX).filter_map(K::from_group_key);
        let said = Said {
            known: known.filter(|key| pattern.matches(key)).collect(),
            pattern,
            initializing,
            asked,
        };
        let text: Arc<str> = text.into();
        let Some(must_look) = watch.register(&text, &said.pattern) else {
            return Ok(Watched::TooMany);
        };
        if must_look {
            self.look::<K>(&text, &said.pattern).await?;
        }
        let is_over = watch.push.matched(&text).is_some_and(|(_, over)| over);
        watch.say(text, said);
        Ok(if is_over { Watched::Partly } else { Watched::Whole })
    }

    /// Looks for what matches, on a thread that may wait: it may look at every name of the namespace.
    async fn look<K: Watchable>(self: &Arc<Self>, text: &str, pattern: &FuzzyPattern) -> Result<()> {
        let Some(began) = K::push(self).begin_look(text) else {
            return Ok(());
        };
        let (services, pattern) = (Arc::clone(self), pattern.clone());
        let found = tokio::task::spawn_blocking(move || K::look(&services, &pattern));
        let found = found.await.map_err(|panic| Error::Internal(panic.to_string()))?;
        K::push(self).found(text, began, found);
        Ok(())
    }

    /// Sends the connection the pushes of its fuzzy watches, as long as it lives; returns when the client
    /// does not answer.
    ///
    /// # Cancel safety
    /// Drop it with the connection.
    pub async fn notify_fuzzy<K: Watchable>(
        self: &Arc<Self>,
        watch: &FuzzyWatch<K>,
        courier: &impl FuzzyCourier,
    ) {
        let mut teller = Teller::default();
        let mut under_way = UnderWay::default();
        loop {
            while let Some((subject, _)) = teller.outbox.take() {
                let exists = |key: &K| K::exists(self, key);
                match teller.notice(&subject, exists) {
                    Some((notice, told)) => under_way.add((subject, told), courier.carry(notice)),
                    None => teller.outbox.drop_sent(&subject),
                }
            }
            let pushes = &self.metrics.grpc.pushes;
            pushes.retried.fetch_add(teller.outbox.take_retries(), Relaxed);
            let rest_ends = teller.outbox.wakes_at();
            tokio::select! {
                marks = watch.session.due() => {
                    self.take(watch, &mut teller, marks).await;
                }
                ended = under_way.ended() => for ((subject, told), taken) in ended {
                    let exists = |key: &K| K::exists(self, key);
                    if teller.ended(&subject, told, taken, exists) == Failed::GiveUp {
                        pushes.given_up.fetch_add(1, Relaxed);
                        return;
                    }
                },
                () = tokio::time::sleep_until(rest_ends.unwrap_or_else(clock::now)), if rest_ends.is_some() => {
                    teller.outbox.wake(clock::now());
                }
            }
        }
    }

    /// Takes in what the client said and what has changed.
    async fn take<K: Watchable>(
        self: &Arc<Self>,
        watch: &FuzzyWatch<K>,
        teller: &mut Teller<K>,
        marks: FuzzyMarks<K>,
    ) {
        let (texts, said) = watch.take_said();
        teller.patterns.retain(|text, _| texts.contains(text));
        teller.asked = said.iter().map(|(_, said)| said.asked).chain(teller.asked).max();
        while let Some(asked) = teller.asked
            && K::caught_up(self, asked, clock::now() + PROOF_WITHIN)
                .await
                .is_err()
        {
            tokio::time::sleep(PROOF_REST).await;
        }
        for (text, said) in said {
            if let Some(matched) = self.matched::<K>(&text, &said.pattern).await {
                teller.begin(text, said, &matched);
            }
        }
        if marks.everything {
            let patterns: Vec<_> = teller.patterns();
            for (text, pattern) in patterns {
                if let Some(matched) = self.matched::<K>(&text, &pattern).await {
                    teller.compare(&text, &matched);
                }
            }
        }
        for key in marks.keys {
            let exists = K::exists(self, &key);
            teller.touched(&key, exists);
        }
    }

    async fn matched<K: Watchable>(
        self: &Arc<Self>,
        text: &str,
        pattern: &FuzzyPattern,
    ) -> Option<BTreeSet<K>> {
        for _ in 0..LOOKS_MAX {
            if let Some((keys, _)) = K::push(self).matched(text) {
                return Some(keys);
            }
            self.look::<K>(text, pattern).await.ok()?;
        }
        K::push(self).matched(text).map(|(keys, _)| keys)
    }
}

impl<K: Named> FuzzyWatch<K> {
    fn new(push: &Arc<FuzzyPush<K>>) -> FuzzyWatch<K> {
        FuzzyWatch {
            push: Arc::clone(push),
            number: push.open(),
            session: Arc::default(),
            wanted: Mutex::new(Wanted {
                patterns: BTreeMap::new(),
            }),
        }
    }

    /// Registers a pattern before anything is compared; true when somebody has to look for what matches,
    /// `None` when there are too many.
    fn register(&self, text: &Arc<str>, pattern: &FuzzyPattern) -> Option<bool> {
        let mut wanted = self.wanted();
        if !wanted.patterns.contains_key(text) && wanted.patterns.len() >= PATTERNS_MAX {
            return None;
        }
        let watched = self.push.watch(text, pattern, self.number, &self.session);
        let must_look = watched.ok()?;
        wanted.patterns.entry(Arc::clone(text)).or_default();
        Some(must_look)
    }

    fn say(&self, text: Arc<str>, said: Said<K>) {
        // It may have been cancelled meanwhile.
        if let Some(before) = self.wanted().patterns.get_mut(&text) {
            *before = Some(said);
            self.session.nudge();
        }
    }

    /// Watches a pattern no longer.
    pub fn cancel(&self, text: &str) {
        if self.wanted().patterns.remove(text).is_some() {
            self.push.unwatch(text, self.number);
            self.session.nudge();
        }
    }

    /// All patterns, and what was said of some since the last call.
    fn take_said(&self) -> (BTreeSet<Arc<str>>, News<K>) {
        let mut wanted = self.wanted();
        let patterns = wanted.patterns.iter_mut();
        let said = patterns.filter_map(|(text, said)| Some((Arc::clone(text), said.take()?)));
        let said = said.collect();
        (wanted.patterns.keys().cloned().collect(), said)
    }

    fn wanted(&self) -> MutexGuard<'_, Wanted<K>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Named> Drop for FuzzyWatch<K> {
    fn drop(&mut self) {
        let texts: Vec<_> = self.wanted().patterns.keys().cloned().collect();
        for text in texts {
            self.push.unwatch(&text, self.number);
        }
    }
}

/// What a push is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Subject<K> {
    /// Batch of a sync of a pattern: which sync, and which batch.
    Batch(Arc<str>, u64, usize),
    /// End of a sync.
    Finish(Arc<str>, u64),
    /// A name that came or went.
    Change(K),
}

/// What one client knows, and what it is to be told: a value without a clock but for retries.
#[derive(Debug)]
struct Teller<K> {
    patterns: BTreeMap<Arc<str>, Known<K>>,
    outbox: Outbox<Subject<K>>,
    /// Syncs begun.
    syncs: u64,
    /// Nothing is told before a round begun after this is applied.
    asked: Option<Moment>,
}

#[derive(Debug)]
struct Known<K> {
    pattern: FuzzyPattern,
    /// Names the client knows: it said so, or acknowledged it.
    keys: BTreeSet<K>,
    /// The sync under way, if any.
    sync: Option<Sync<K>>,
}

#[derive(Debug)]
struct Sync<K> {
    number: u64,
    initializing: bool,
    batches: Vec<Vec<K>>,
    /// Batches not acknowledged.
    left: usize,
}

impl<K> Default for Teller<K> {
    fn default() -> Teller<K> {
        Teller {
            patterns: BTreeMap::new(),
            outbox: Outbox::default(),
            syncs: 0,
            asked: None,
        }
    }
}

impl<K: Named> Teller<K> {
    fn patterns(&self) -> Vec<(Arc<str>, FuzzyPattern)> {
        let patterns = self.patterns.iter();
        patterns
            .map(|(text, known)| (Arc::clone(text), known.pattern.clone()))
            .collect()
    }

    /// The client watches a pattern, perhaps anew: it is told the difference, in place of whatever it was
    /// being told of the pattern.
    fn begin(&mut self, text: Arc<str>, said: Said<K>, matched: &BTreeSet<K>) {
        let differing: Vec<_> = said.known.symmetric_difference(matched).cloned().collect();
        self.syncs += 1;
        let sync = Sync {
            number: self.syncs,
            initializing: said.initializing,
            batches: differing.chunks(BATCH).map(<[K]>::to_vec).collect(),
            left: differing.len().div_ceil(BATCH),
        };
        for batch in 0..sync.batches.len() {
            let subject = Subject::Batch(Arc::clone(&text), sync.number, batch);
            self.outbox.mark(subject, clock::now());
        }
        if sync.batches.is_empty() && sync.initializing {
            let finish = Subject::Finish(Arc::clone(&text), sync.number);
            self.outbox.mark(finish, clock::now());
        }
        let known = Known {
            pattern: said.pattern,
            keys: said.known,
            sync: Some(sync),
        };
        self.patterns.insert(text, known);
    }

    /// Everything may have changed: what differs from what the client knows is told.
    fn compare(&mut self, text: &str, matched: &BTreeSet<K>) {
        let Some(known) = self.patterns.get(text) else {
            return;
        };
        for key in known.keys.symmetric_difference(matched) {
            self.outbox.mark(Subject::Change(key.clone()), clock::now());
        }
    }

    /// A name came or went. It is told unless every watch knows, or is just being told: then the
    /// acknowledgement finds out.
    fn touched(&mut self, key: &K, exists: bool) {
        let mut watches = self.patterns.values().filter(|known| known.pattern.matches(key));
        if watches.any(|known| known.keys.contains(key) != exists) {
            self.outbox.mark(Subject::Change(key.clone()), clock::now());
        }
    }

    /// The push, with what is true now, and what it says of which name; `None` when it is about a watch
    /// that has ended or begun anew.
    fn notice(
        &self,
        subject: &Subject<K>,
        exists: impl Fn(&K) -> bool,
    ) -> Option<(FuzzyNotice, Vec<(K, bool)>)> {
        match subject {
            Subject::Change(key) => {
                let mut watches = self.patterns.values();
                watches.find(|known| known.pattern.matches(key))?;
                let now = exists(key);
                Some((
                    FuzzyNotice::Change(key.group_key(), now),
                    vec![(key.clone(), now)],
                ))
            }
            Subject::Batch(text, number, batch) => {
                let sync = self.sync(text, *number)?;
                let keys = sync.batches.get(*batch)?.iter();
                let told: Vec<_> = keys.map(|key| (key.clone(), exists(key))).collect();
                let notice = FuzzyNotice::Batch {
                    pattern: Arc::clone(text),
                    initializing: sync.initializing,
                    contexts: told
                        .iter()
                        .map(|(key, exists)| (key.group_key(), *exists))
                        .collect(),
                    number: (batch + 1, sync.batches.len()),
                };
                Some((notice, told))
            }
            Subject::Finish(text, number) => {
                self.sync(text, *number)?;
                let pattern = Arc::clone(text);
                Some((FuzzyNotice::Finished { pattern }, Vec::new()))
            }
        }
    }

    fn sync(&self, text: &str, number: u64) -> Option<&Sync<K>> {
        let sync = self.patterns.get(text)?.sync.as_ref();
        sync.filter(|sync| sync.number == number)
    }

    /// A push has come to its end.
    fn ended(
        &mut self,
        subject: &Subject<K>,
        told: Vec<(K, bool)>,
        taken: bool,
        exists: impl Fn(&K) -> bool,
    ) -> Failed {
        if !taken {
            return self.outbox.failed(subject, clock::now());
        }
        self.outbox.acked(subject);
        for (key, said) in told {
            let watches = self.patterns.values_mut();
            for known in watches.filter(|known| known.pattern.matches(&key)) {
                if said {
                    known.keys.insert(key.clone());
                } else {
                    known.keys.remove(&key);
                }
            }
            if exists(&key) != said {
                self.outbox.mark(Subject::Change(key), clock::now());
            }
        }
        if let Subject::Batch(text, number, _) = subject {
            self.batch_taken(text, *number);
        }
        Failed::Rests
    }

    /// The last batch of the first sync is followed by the word that it is complete.
    fn batch_taken(&mut self, text: &Arc<str>, number: u64) {
        let known = self.patterns.get_mut(text);
        let sync = known.and_then(|known| known.sync.as_mut());
        let Some(sync) = sync.filter(|sync| sync.number == number) else {
            return;
        };
        sync.left = sync.left.saturating_sub(1);
        if sync.left == 0 && sync.initializing {
            let finish = Subject::Finish(Arc::clone(text), number);
            self.outbox.mark(finish, clock::now());
        }
    }
}

#[cfg(test)]
mod tests;
