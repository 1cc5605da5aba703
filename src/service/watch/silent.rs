//! Clients that do not do what a listener does: the Rust SDK (0.8.3).
//!
//! It reads a config, tells the server afterwards that it listens to it, and throws that answer away: what changed in
//! between has to be told. And when its connection breaks, it connects again and says nothing: it listens anew at
//! its next comparison, once a minute. Until then this node does not know what it listens to, and tells it of every
//! config of its namespace that changes; it ignores those that it does not listen to.
//!
//! It does not notice that its stream has ended before it wants to ask for something, for up to ten seconds. So it is
//! told of a config that it listens to right before the end: it wants to read that, finds its connection ended, and
//! reads it on the next one, two seconds later.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::ConfigWatch;
use crate::clock;
use crate::model::{ConfigKey, NamespaceId};
use crate::push::{ConfigPush, Newcomer, Outbox};
use crate::seeded::{self, Bug};

/// How the version of its SDK begins.
const RUST: &str = "Nacos-Rust-Client";

/// It compares every 60 s; a comparison that finds its connection broken is for nothing, and the next one comes a
/// minute later. What it listens to is known by then.
const SILENT_WITHIN: Duration = Duration::from_secs(70);

/// So many configs it is told of that it has not said to listen to. Beyond, it finds out by its comparison: a
/// namespace in which so much changes at a time would cost more than it is worth.
const TOLD_MAX: usize = 1_000;

/// Who listens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Who<'a> {
    /// Its address: decides which beta variant it sees.
    pub ip: &'a str,
    /// Its tag: decides which tag variant it sees.
    pub tag: Option<&'a str>,
    /// The version of its SDK, as it says it.
    pub agent: &'a str,
    /// The part of its SDK that this connection is for, if it says so: `config`, `naming`.
    pub module: Option<&'a str>,
    /// The namespace it is in, as it spells it.
    pub namespace: &'a str,
}

impl Who<'_> {
    /// True when it listens to configs and may not say to which for a while after it has connected.
    pub fn comes_silently(&self) -> bool {
        self.looks_away() && self.module.is_none_or(|module| module == "config")
    }

    /// True when it does not look at the answer of a listen of one config.
    pub(super) fn looks_away(&self) -> bool {
        self.agent.starts_with(RUST)
    }
}

/// A connection that may listen to configs of which it has not spoken.
#[derive(Debug)]
pub(super) struct Silence {
    namespace: NamespaceId,
    /// The namespace as the client spells it; it looks its own cache up by the spelling.
    spelling: Box<str>,
    /// It has spoken by then.
    until: Instant,
    /// Until [`Silence::begin`].
    newcomer: Mutex<Option<Newcomer>>,
}

impl Silence {
    /// `None` for a client that says what it listens to as soon as it has connected.
    pub(super) fn of(who: &Who<'_>, push: &Arc<ConfigPush>) -> Option<Silence> {
        who.comes_silently().then(|| Silence {
            namespace: NamespaceId::new(who.namespace),
            spelling: who.namespace.into(),
            until: clock::now() + SILENT_WITHIN,
            newcomer: Mutex::new(Some(push.expect(who.namespace))),
        })
    }

    /// How the client spells the namespace of a config that it may listen to; `None`: not this one, or not any more.
    pub(super) fn spelling_of(&self, key: &ConfigKey) -> Option<&str> {
        let may_listen = self.is_in_its_namespace(key) && clock::now() < self.until;
        may_listen.then_some(&*self.spelling)
    }

    pub(super) fn is_in_its_namespace(&self, key: &ConfigKey) -> bool {
        key.namespace() == self.namespace.as_str()
    }

    /// What it is told; `None` when called a second time.
    pub(super) fn begin(&self) -> Option<Guesses> {
        let mut newcomer = self.newcomer.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Guesses {
            newcomer: newcomer.take()?,
            until: self.until,
            left: TOLD_MAX,
        })
    }
}

/// Changed configs that a client may listen to.
#[derive(Debug)]
pub(super) struct Guesses {
    newcomer: Newcomer,
    until: Instant,
    /// So many more it is told of.
    left: usize,
}

impl Guesses {
    /// Waits for the next ones, for ever when there are none any more.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub(super) async fn next(guesses: &mut Option<Guesses>) -> Vec<ConfigKey> {
        if let Some(them) = guesses
            && them.left > 0
            && !seeded::has(Bug::NeverTold)
            && let Ok(mut changes) = timeout_at(them.until, them.newcomer.changes()).await
        {
            changes.truncate(them.left);
            them.left -= changes.len();
            return changes;
        }
        // What changes elsewhere need not wake it any more.
        *guesses = None;
        std::future::pending().await
    }
}

/// Puts what the client may listen to into the outbox; what it has said that it listens to is told of anyway.
pub(super) fn guess(watch: &ConfigWatch, changed: Vec<ConfigKey>, outbox: &mut Outbox<ConfigKey>) {
    let now = clock::now();
    let mut inner = watch.inner();
    for key in changed {
        if inner.watched_mut(&key).is_none() {
            outbox.mark(key, now);
        }
    }
}

impl ConfigWatch {
    /// A config that the client listens to, if it is one that does not notice the end of its connection by itself: told
    /// of it at the very end, it reads it on its next connection, which it makes for that.
    pub fn parting_key(&self) -> Option<ConfigKey> {
        let silence = self.silence.as_ref()?;
        let inner = self.inner();
        let mut keys = inner.by_key.keys();
        keys.find(|key| silence.is_in_its_namespace(key)).cloned()
    }
}
