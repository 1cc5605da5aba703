//! What patterns are watched over: configs of the replicated state, services of the registry.

use std::sync::Arc;

use tokio::time::Instant;

use super::super::Services;
use super::super::freshness::Moment;
use super::super::listen::Truth;
use super::PROOF_REST;
use crate::clock;
use crate::config::Query;
use crate::error::Result;
use crate::model::{ConfigKey, Named, ServiceKey};
use crate::naming::Registry;
use crate::push::{FuzzyPattern, FuzzyPush, MATCHES_MAX};

/// Services that are looked at under one lock; about 20 µs.
const LOOKED_AT: usize = 256;

/// Names that patterns are watched over, and how this node knows of them.
pub trait Watchable: Named {
    /// Who watches, on this node.
    fn push(services: &Services) -> &Arc<FuzzyPush<Self>>;

    /// True when there is something of this name.
    fn exists(services: &Services, key: &Self) -> bool;

    /// What matches, and if that is more than a watch can hold, one more. It may take long, and is called where
    /// waiting holds up nobody.
    fn look(services: &Services, pattern: &FuzzyPattern) -> Vec<Self>;

    /// Returns once this node knows at least what a client could know at that moment.
    fn caught_up(
        services: &Services,
        asked: Moment,
        deadline: Instant,
    ) -> impl Future<Output = Result<()>> + Send;
}

impl Watchable for ConfigKey {
    fn push(services: &Services) -> &Arc<FuzzyPush<ConfigKey>> {
        &services.push.fuzzy
    }

    fn exists(services: &Services, key: &ConfigKey) -> bool {
        services.state.get(key).is_some()
    }

    fn look(services: &Services, pattern: &FuzzyPattern) -> Vec<ConfigKey> {
        let (mut found, query) = (Vec::new(), Query::all(pattern.namespace().clone()));
        services.state.for_each(&query, |entry| {
            if found.len() <= MATCHES_MAX && pattern.matches(&entry.key) {
                found.push(entry.key.clone());
            }
        });
        found
    }

    async fn caught_up(services: &Services, asked: Moment, deadline: Instant) -> Result<()> {
        Ok(Truth::caught_up(services, asked, deadline).await?)
    }
}

impl Watchable for ServiceKey {
    fn push(services: &Services) -> &Arc<FuzzyPush<ServiceKey>> {
        &services.naming_push.fuzzy
    }

    fn exists(services: &Services, key: &ServiceKey) -> bool {
        services.discovery.look(|registry, _| registry.has_instances(key))
    }

    fn look(services: &Services, pattern: &FuzzyPattern) -> Vec<ServiceKey> {
        // No name of the namespace is less.
        let mut after = ServiceKey::new(pattern.namespace(), "", "");
        let mut found = Vec::new();
        loop {
            let look = |registry: &Registry, _| registry.populated_after(&after, LOOKED_AT);
            let (names, last) = services.discovery.look(look);
            let ours = names.into_iter().filter(|name| pattern.matches(name));
            found.extend(ours.take(MATCHES_MAX + 1 - found.len()));
            match last {
                Some(last) if found.len() <= MATCHES_MAX => after = last,
                _ => return found,
            }
        }
    }

    /// The registry agrees without a leader; what it lacks while it begins must not be told as gone.
    async fn caught_up(services: &Services, _: Moment, deadline: Instant) -> Result<()> {
        loop {
            match services.naming_is_ready() {
                Err(_) if clock::now() < deadline => tokio::time::sleep(PROOF_REST).await,
                ready => return ready,
            }
        }
    }
}
