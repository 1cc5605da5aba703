//! Clients that listen to something and do not say to what when they come: they are told whatever changes in their
//! namespace, and has changed a short while ago, until they say it.
//!
//! The Rust SDK (0.8.3) listens anew a minute after its connection broke, at its next comparison, and ignores what
//! it is told of configs that it does not know. The node that knew what it listens to is dead.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::config::ConfigPush;
use crate::model::{ConfigKey, NamespaceId};

/// Changes that are remembered. At the bound the oldest are forgotten: who would have had to be told of them finds
/// them at its next comparison.
const CHANGES_MAX: usize = 1_024;

/// What changed before a client came is told to it if it is no older than this: clients are away for so long when
/// their node dies, at most.
const LOOKS_BACK: Duration = Duration::from_secs(60);

/// The configs that changed last, in the order of their changes. A value without a clock.
#[derive(Debug, Default)]
pub(super) struct Recent {
    changes: VecDeque<(Instant, ConfigKey)>,
    /// Changes that were ever noted; the last in `changes` is this one.
    noted: u64,
}

impl Recent {
    /// A config has changed.
    pub(super) fn note(&mut self, key: ConfigKey, now: Instant) {
        if self.changes.len() >= CHANGES_MAX {
            self.changes.pop_front();
        }
        self.changes.push_back((now, key));
        self.noted += 1;
    }

    /// Number of the last change.
    pub(super) fn noted(&self) -> u64 {
        self.noted
    }

    /// What changed after the change with this number, as far as it is remembered, and not before `since`; the newest
    /// first, some perhaps twice.
    fn after(&self, number: u64, since: Option<Instant>) -> impl Iterator<Item = &ConfigKey> {
        let count = usize::try_from(self.noted.saturating_sub(number)).unwrap_or(usize::MAX);
        let newest = self.changes.iter().rev().take(count);
        newest
            .take_while(move |(at, _)| since.is_none_or(|since| *at >= since))
            .map(|(_, key)| key)
    }
}

/// A client that has not said yet what it listens to.
#[derive(Debug)]
pub struct Newcomer {
    push: Arc<ConfigPush>,
    namespace: NamespaceId,
    /// Number of the last change that was looked at.
    looked_at: u64,
    /// What is looked at first is no older.
    since: Option<Instant>,
    /// Number of the last change of which newcomers are to hear.
    told: watch::Receiver<u64>,
}

impl Newcomer {
    pub(super) fn new(
        push: Arc<ConfigPush>,
        namespace: NamespaceId,
        told: watch::Receiver<u64>,
        now: Instant,
    ) -> Newcomer {
        Newcomer {
            push,
            namespace,
            looked_at: 0,
            since: now.checked_sub(LOOKS_BACK),
            told,
        }
    }

    /// What has changed in its namespace since it was asked last, or a short while before it came; waits for something.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it: changes are taken in the poll that returns them.
    pub async fn changes(&mut self) -> Vec<ConfigKey> {
        loop {
            let changes = self.take();
            if !changes.is_empty() {
                return changes;
            }
            if self.told.changed().await.is_err() {
                // It holds the sender.
                std::future::pending::<()>().await;
            }
        }
    }

    fn take(&mut self) -> Vec<ConfigKey> {
        let shared = self.push.lock();
        let changes = shared.recent.after(self.looked_at, self.since.take());
        let mut changes: Vec<_> = changes
            .filter(|key| key.namespace() == self.namespace.as_str())
            .cloned()
            .collect();
        self.looked_at = shared.recent.noted();
        drop(shared);
        changes.sort_unstable();
        changes.dedup();
        changes
    }
}

#[cfg(test)]
mod tests {
    use raft::Index;

    use super::*;
    use crate::clock;
    use crate::config::Versions;
    use crate::state::Event;

    fn key(namespace: &str, name: &str) -> ConfigKey {
        ConfigKey::new(&NamespaceId::new(namespace), "g", name)
    }

    fn change(push: &Arc<ConfigPush>, namespace: &str, name: &str) {
        push.on_change(vec![Event::ConfigChanged {
            key: key(namespace, name),
            index: Index(1),
            before: Versions::default(),
            after: Versions::default(),
        }]);
    }

    async fn told(push: &Arc<ConfigPush>, newcomer: &mut Newcomer) -> Option<Vec<String>> {
        let changes = tokio::select! {
            changes = tokio::time::timeout(Duration::from_secs(1), newcomer.changes()) => changes.ok()?,
            () = Arc::clone(push).run() => unreachable!("the pusher does not end"),
        };
        Some(changes.iter().map(|key| key.data_id().to_owned()).collect())
    }

    fn names(names: &[&str]) -> Option<Vec<String>> {
        Some(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[tokio::test(start_paused = true)]
    async fn what_changes_and_has_changed_lately_in_its_namespace_is_told() {
        let push = ConfigPush::new();
        change(&push, "dev", "old");
        tokio::time::advance(LOOKS_BACK / 2).await;
        change(&push, "dev", "lately");
        change(&push, "other", "foreign");
        tokio::time::advance(LOOKS_BACK / 2 + Duration::from_secs(1)).await;
        let mut newcomer = push.expect("dev");
        assert_eq!(told(&push, &mut newcomer).await, names(&["lately"]));
        assert_eq!(told(&push, &mut newcomer).await, None);
        for name in ["b", "a", "b"] {
            change(&push, "dev", name);
        }
        change(&push, "other", "foreign");
        assert_eq!(told(&push, &mut newcomer).await, names(&["a", "b"]));
        change(&push, "other", "foreign");
        assert_eq!(told(&push, &mut newcomer).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_expects_wakes_nobody_and_is_bounded() {
        let push = ConfigPush::new();
        for number in 0..2 * CHANGES_MAX {
            change(&push, "dev", &format!("{number:05}"));
        }
        let mut newcomer = push.expect("dev");
        let told = told(&push, &mut newcomer).await.expect("changes");
        assert_eq!(told.len(), CHANGES_MAX);
        assert_eq!(told.first(), Some(&format!("{CHANGES_MAX:05}")), "the newest");
        assert_eq!(push.lock().recent.changes.len(), CHANGES_MAX);
        let now = clock::now();
        push.lock().recent.note(key("dev", "x"), now);
        assert_eq!(
            push.lock().recent.after(0, Some(now)).count(),
            CHANGES_MAX,
            "all at one moment"
        );
    }
}
