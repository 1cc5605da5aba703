//! Listening to configs: the long poll of Nacos 1, and who listens to what.
//!
//! # Why this order
//! 1. *The moment is taken first.* Whatever the client has seen, it saw before.
//! 2. *Then the client is registered, then compared.* The other way round, a change between the two would
//!    be seen by neither and the client would sleep on it (contract 05 §2.7).
//! 3. *A difference is believed only after a ReadIndex begun after that moment is applied* (hazard R41):
//!
//!    ```text
//!    client      reads version 3 from node A, then polls node B with its MD5
//!    node B      lags: it has version 2. "Changed!" would make the client read version 2: older after newer
//!    ```
//!
//!    This holds for what a change wakes as well: the next thing the lagging node applies may be version 2.
//!    Once one round has succeeded for a poll, everything this node applies from then on is newer than what
//!    the client has, and later wake-ups need no round.
//! 4. *Without a leader no change is reported.* The round waits for one as long as the poll is held; then
//!    the answer is an error, which sends the client to another node.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use super::Services;
use super::config::Name;
use super::freshness::Moment;
use crate::clock;
use crate::config::{Client, Seen, Selected};
use crate::consensus::ReadError;
use crate::error::{Error, Result};
use crate::model::{ConfigKey, Md5};
use crate::push::{ConfigPush, Slot, Which};
use crate::shutdown::Shutdown;

/// Configs one request may name.
pub const LISTENED_MAX: usize = 10_000;

/// An overloaded server answers after one to three seconds: many clients ask again at once.
const REFUSAL_AFTER_MS: std::ops::Range<u64> = 1_000..3_000;

/// What a client listens to.
#[derive(Clone, Debug, Default)]
pub struct Listen {
    /// In the order in which the client named them.
    pub entries: Vec<Listened>,
    /// Address of the client: decides which beta variant it sees.
    pub ip: String,
    /// Tag of the client: decides which tag variant it sees.
    pub tag: Option<String>,
}

/// A config a client listens to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listened {
    /// The config.
    pub key: ConfigKey,
    /// What the client has of it.
    pub seen: Seen,
    /// How the client spells its namespace.
    pub spelling: Spelling,
}

/// How a client spells a namespace. It looks its own cache up by the spelling, so the answer repeats it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// Not at all: the default namespace.
    Absent,
    /// As we do.
    Same,
    /// Otherwise: one of the many names of the default namespace.
    Other(Box<str>),
}

impl Listened {
    /// What a client listens to under this name; checked as every name is.
    ///
    /// # Errors
    /// No config can have this name.
    pub fn new(name: &Name<'_>, seen: Seen) -> Result<Listened> {
        let key = name.key()?;
        let spelling = match name.namespace {
            None => Spelling::Absent,
            Some(namespace) if namespace == key.namespace() => Spelling::Same,
            Some(namespace) => Spelling::Other(namespace.into()),
        };
        Ok(Listened { key, seen, spelling })
    }

    /// The namespace in the client's own spelling; `None` when it named none.
    pub fn namespace(&self) -> Option<&str> {
        match &self.spelling {
            Spelling::Absent => None,
            other => Some(other.as_sent(&self.key)),
        }
    }
}

impl Spelling {
    /// The namespace of this key in this spelling; empty when the client named none.
    pub fn as_sent<'a>(&'a self, key: &'a ConfigKey) -> &'a str {
        match self {
            Spelling::Absent => "",
            Spelling::Same => key.namespace(),
            Spelling::Other(spelling) => spelling,
        }
    }
}

impl Services {
    /// The configs a client has to read again, in its order. With `hold`, waits so long for one; empty when
    /// there was none, and when the server is stopping.
    ///
    /// # Errors
    /// `Unavailable`: something differs from what the client has, and no leader could be asked who is
    /// right. `Overloaded`: too much is listened to (after a while, so that the client does not ask again
    /// at once).
    ///
    /// # Cancel safety
    /// Dropping it forgets the client.
    pub async fn poll(&self, listen: Listen, hold: Option<Duration>) -> Result<Vec<Listened>> {
        match hold {
            None => compare_once(self, listen, clock::now() + self.write_timeout).await,
            Some(hold) => {
                let deadline = clock::now() + hold;
                wait(self, &self.push, &self.stopping, listen, deadline).await
            }
        }
    }
}

/// What those who listen ask. Two implementations: the server, and a scripted one in tests.
pub(super) trait Truth: Sync {
    /// MD5 of what this client sees now, on this node.
    fn md5(&self, key: &ConfigKey, client: &Client<'_>) -> Option<Md5>;

    /// This moment.
    fn moment(&self) -> Moment;

    /// Returns once this node has everything that was visible anywhere at that moment.
    fn caught_up(
        &self,
        since: Moment,
        deadline: Instant,
    ) -> impl Future<Output = std::result::Result<(), ReadError>> + Send;
}

impl Truth for Services {
    fn md5(&self, key: &ConfigKey, client: &Client<'_>) -> Option<Md5> {
        self.state.select(key, client).map(|selected| match selected {
            Selected::Formal(entry) => entry.md5,
            Selected::Gray(gray) => gray.md5,
        })
    }

    fn moment(&self) -> Moment {
        self.freshness.now()
    }

    async fn caught_up(&self, since: Moment, deadline: Instant) -> std::result::Result<(), ReadError> {
        let round = self.consensus.read_index(deadline);
        self.freshness.since(since, deadline, round).await
    }
}

/// Compares without registering.
async fn compare_once(truth: &impl Truth, mut listen: Listen, deadline: Instant) -> Result<Vec<Listened>> {
    let asked = truth.moment();
    let mut differing = differing(truth, &listen, &Which::All);
    if !differing.is_empty() {
        truth.caught_up(asked, deadline).await?;
        differing = self::differing(truth, &listen, &Which::All);
    }
    Ok(take(&mut listen, &differing))
}

/// Registers, compares, and waits. See the top of this file for the order.
async fn wait(
    truth: &impl Truth,
    push: &Arc<ConfigPush>,
    stopping: &Shutdown,
    mut listen: Listen,
    deadline: Instant,
) -> Result<Vec<Listened>> {
    let asked = truth.moment();
    let keys = listen
        .entries
        .iter_mut()
        .map(|entry| (&mut entry.key, entry.seen));
    let Ok(watch) = push.watch(&listen.ip, listen.tag.as_deref(), keys) else {
        push.metrics.refused.fetch_add(1, Relaxed);
        drop(listen);
        return Err(refuse_later(stopping).await);
    };
    let stop = stopping.begun();
    tokio::pin!(stop);
    let (mut which, mut since, mut is_fresh) = (Which::All, None, false);
    loop {
        let mut found = differing(truth, &listen, &which);
        if !found.is_empty() && !is_fresh {
            tokio::select! {
                biased;
                () = &mut stop => return Ok(Vec::new()),
                caught_up = truth.caught_up(asked, deadline) => caught_up?,
            }
            is_fresh = true;
            // What came meanwhile counts too: its mark will find nothing left to do.
            found = differing(truth, &listen, &Which::All);
        }
        if !found.is_empty() {
            if let Some(since) = since {
                let delay = clock::now().saturating_duration_since(since);
                push.metrics.delay.observe(delay);
            }
            push.metrics.notifications.fetch_add(found.len() as u64, Relaxed);
            return Ok(take(&mut listen, &found));
        }
        tokio::select! {
            biased;
            () = &mut stop => return Ok(Vec::new()),
            due = watch.session().due() => (which, since) = (due.which, Some(due.since)),
            () = tokio::time::sleep_until(deadline) => return Ok(Vec::new()),
        }
    }
}

/// Positions of the entries that differ from what the client has. Slots of a poll are positions.
fn differing(truth: &impl Truth, listen: &Listen, which: &Which<Slot>) -> Vec<usize> {
    let client = Client {
        ip: &listen.ip,
        tag: listen.tag.as_deref(),
    };
    let differs = |at: &usize| {
        let entry = listen.entries.get(*at);
        entry.is_some_and(|entry| !entry.seen.is(truth.md5(&entry.key, &client)))
    };
    match which {
        Which::All => (0..listen.entries.len()).filter(differs).collect(),
        Which::Some(slots) => slots.iter().map(|slot| slot.0).filter(differs).collect(),
    }
}

/// The entries at these positions, which rise.
fn take(listen: &mut Listen, positions: &[usize]) -> Vec<Listened> {
    let mut wanted = positions.iter().peekable();
    let entries = std::mem::take(&mut listen.entries).into_iter().enumerate();
    entries
        .filter_map(|(at, entry)| (wanted.next_if_eq(&&at)).map(|_| entry))
        .collect()
}

async fn refuse_later(stopping: &Shutdown) -> Error {
    let pause = Duration::from_millis(rand::random_range(REFUSAL_AFTER_MS));
    tokio::select! {
        () = stopping.begun() => {}
        () = tokio::time::sleep(pause) => {}
    }
    Error::Overloaded(crate::push::Full.to_string())
}

#[cfg(test)]
pub(super) mod tests;
