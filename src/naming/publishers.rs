//! Who says that an instance is there: for operators.

use std::sync::Arc;

use super::record::Owner;
use super::registry::Registry;
use super::stamp::Stamp;
use crate::model::{Endpoint, ServiceKey};

/// Who keeps an instance in the registry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Publisher {
    /// A client that beats over HTTP, at whatever node.
    Beats,
    /// A connection over gRPC, of this node or of another, by its id.
    Connection(Arc<str>),
    /// The replicated state.
    Persistent,
}

impl Registry {
    /// The instances of a service that readers may see, with everybody who keeps them, and when he said so last.
    /// An instance has several while its client moves from one connection to another.
    pub fn publishers(&self, service: &ServiceKey) -> impl Iterator<Item = (&Endpoint, Publisher, Stamp)> {
        let found = self.services.get(service);
        let content = found.map(|service| service.content).unwrap_or_default();
        let entries = found.into_iter().flat_map(|service| &service.entries);
        entries.flat_map(move |(endpoint, entry)| {
            // What a tombstone covers is not there.
            let lives = entry.winner().is_some_and(|winner| winner.is_live());
            let records = entry
                .records
                .iter()
                .filter(move |record| lives && record.is_live());
            let clients = records.map(|record| match &record.owner {
                Owner::Beats => (Publisher::Beats, record.stamp),
                Owner::Connection(id) => (Publisher::Connection(Arc::clone(id)), record.stamp),
            });
            let kept = entry
                .persistent
                .iter()
                .map(move |_| (Publisher::Persistent, content));
            clients
                .chain(kept)
                .map(move |(publisher, since)| (endpoint, publisher, since))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::NamespaceId;
    use crate::naming::{Instance, Origin, StampClock};

    #[test]
    fn everybody_who_keeps_an_instance_is_told_until_it_is_deregistered() {
        let me = Origin { node: 1, boot: 1 };
        let mut registry = Registry::new(me, StampClock::new(1_000, 0));
        let service = ServiceKey::new(&NamespaceId::default(), "g", "s");
        let endpoint = Endpoint::new("10.0.0.1", 80, "");
        let connection = Owner::Connection("1_a_2".into());
        for owner in [&Owner::Beats, &connection] {
            let said = Instance::default();
            let taken = registry.register(0, owner, &service, &endpoint, said, true);
            assert_eq!(taken, Ok(()));
        }
        let told = |registry: &Registry| {
            let all = registry.publishers(&service);
            let mut all: Vec<_> = all.map(|(_, publisher, _)| publisher).collect();
            all.sort();
            all
        };
        let both = vec![Publisher::Beats, Publisher::Connection("1_a_2".into())];
        assert_eq!(told(&registry), both);
        registry.deregister(1, &service, &endpoint);
        assert_eq!(told(&registry), vec![]);
    }
}
