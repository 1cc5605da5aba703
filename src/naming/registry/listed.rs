//! Services that lists show, and how many instances there are: kept up with every change, so that a page of
//! a list costs what it shows.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::model::{Endpoint, NamespaceId, ServiceKey};

use super::super::service::{Seen, Service};
use super::super::view::Tally;
use super::Registry;

/// Namespace, group, services: every level in the order of its names.
#[derive(Debug, Default)]
pub(in crate::naming) struct Listed {
    services: BTreeMap<Box<str>, BTreeMap<Box<str>, BTreeSet<ServiceKey>>>,
    /// Instances of all services that readers may see, disabled and unhealthy ones among them.
    pub(super) instances: usize,
    count: usize,
}

impl Listed {
    /// Notes whether lists show a service.
    pub(super) fn set(&mut self, key: &ServiceKey, listed: bool) {
        if listed {
            let groups = self.services.entry(key.namespace().into()).or_default();
            let services = groups.entry(key.group().into()).or_default();
            self.count += usize::from(services.insert(key.clone()));
            return;
        }
        let Some(groups) = self.services.get_mut(key.namespace()) else {
            return;
        };
        let Some(services) = groups.get_mut(key.group()) else {
            return;
        };
        self.count -= usize::from(services.remove(key));
        if services.is_empty() {
            groups.remove(key.group());
        }
        if groups.is_empty() {
            self.services.remove(key.namespace());
        }
    }

    fn groups(&self, namespace: &NamespaceId) -> Option<&BTreeMap<Box<str>, BTreeSet<ServiceKey>>> {
        self.services.get(namespace.as_str())
    }
}

/// What lists show: services that hold an instance, or that an operator has made. One that has just lost its
/// last instance is remembered for a while ([`Registry::knows`]), and not shown.
impl Registry {
    /// Services of a group, in the order of their names; `None` if there are none.
    pub fn listed_in(&self, namespace: &NamespaceId, group: &str) -> Option<&BTreeSet<ServiceKey>> {
        self.listed.groups(namespace)?.get(group)
    }

    /// Services of a namespace behind `after`, by group and name.
    pub fn listed_after<'a>(
        &'a self,
        namespace: &NamespaceId,
        after: Option<&'a ServiceKey>,
    ) -> impl Iterator<Item = &'a ServiceKey> + use<'a> {
        let from = after.map_or(Bound::Unbounded, |after| Bound::Included(after.group()));
        let groups = self.listed.groups(namespace).into_iter();
        let groups = groups.flat_map(move |groups| groups.range::<str, _>((from, Bound::Unbounded)));
        groups.flat_map(move |(group, services)| {
            let from = after.filter(|after| after.group() == &**group);
            let from = from.map_or(Bound::Unbounded, Bound::Excluded);
            services.range::<ServiceKey, _>((from, Bound::Unbounded))
        })
    }

    /// Namespaces with a service that lists show.
    pub fn listed_namespaces(&self) -> impl Iterator<Item = NamespaceId> {
        self.listed.services.keys().map(|id| NamespaceId::new(id))
    }

    /// True for a service that lists show.
    pub fn is_listed(&self, service: &ServiceKey) -> bool {
        self.services.get(service).is_some_and(Service::is_listed)
    }

    /// Instances of a service as they are, disabled ones among them: for operators, whom no threshold
    /// protects from what is ill.
    pub fn instances(&self, service: &ServiceKey) -> impl Iterator<Item = (&Endpoint, Seen)> {
        self.services
            .get(service)
            .into_iter()
            .flat_map(Service::instances)
    }

    /// How much there is in a service.
    pub fn tally(&self, service: &ServiceKey) -> Tally {
        self.services.get(service).map(Service::tally).unwrap_or_default()
    }

    /// Connections of this node that keep something alive, and what they keep.
    pub fn connection_counts(&self) -> (usize, usize) {
        let kept = self.connections.values().map(BTreeSet::len).sum();
        (self.connections.len(), kept)
    }

    /// How many services lists show.
    pub fn listed_count(&self) -> usize {
        self.listed.count
    }

    /// Instances of all services, disabled and unhealthy ones among them.
    pub fn instance_count(&self) -> usize {
        self.listed.instances
    }

    /// A service has come, gone, or got other settings.
    pub(in crate::naming) fn relist(&mut self, key: &ServiceKey) {
        let listed = self.is_listed(key);
        self.listed.set(key, listed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Endpoint;
    use crate::naming::{Instance, Origin, Owner, ServiceMetadata, StampClock};

    fn key(namespace: &str, group: &str, name: &str) -> ServiceKey {
        ServiceKey::new(&NamespaceId::new(namespace), group, name)
    }

    fn registry() -> Registry {
        let me = Origin { node: 1, boot: 1 };
        Registry::new(me, StampClock::new(1_000, 0))
    }

    fn add(registry: &mut Registry, service: &ServiceKey, port: u16) {
        let place = Endpoint::new("10.0.0.1", port, "");
        let added = registry.register(0, &Owner::Beats, service, &place, Instance::default(), true);
        assert_eq!(added, Ok(()));
    }

    fn all<'a>(registry: &'a Registry, namespace: &str, after: Option<&'a ServiceKey>) -> Vec<&'a str> {
        let listed = registry.listed_after(&NamespaceId::new(namespace), after);
        listed.map(ServiceKey::grouped).collect()
    }

    #[test]
    fn pages_go_by_group_and_name() {
        let mut registry = registry();
        // In the order of whole names `b-1@@…` would come before `b@@…`.
        for (group, name) in [("b", "y"), ("b-1", "x"), ("b", "x"), ("1", "z"), ("a", "x")] {
            add(&mut registry, &key("", group, name), 1);
        }
        add(&mut registry, &key("dev", "a", "only"), 1);
        let names = ["1@@z", "a@@x", "b@@x", "b@@y", "b-1@@x"];
        assert_eq!(all(&registry, "", None), names);
        for (place, name) in names.iter().enumerate() {
            let (group, name) = name.split_once("@@").unwrap();
            let after = key("", group, name);
            assert_eq!(all(&registry, "", Some(&after)), names[place + 1..]);
        }
        assert_eq!(all(&registry, "", Some(&key("", "b", "xx"))), names[3..]);
        assert_eq!(all(&registry, "none", None), [""; 0]);
        let group = registry.listed_in(&NamespaceId::default(), "b").unwrap();
        assert_eq!(group.len(), 2);
        assert_eq!(registry.listed_count(), 6);
        let namespaces: Vec<_> = registry.listed_namespaces().collect();
        assert_eq!(namespaces, [NamespaceId::default(), NamespaceId::new("dev")]);
    }

    #[test]
    fn services_are_shown_while_they_hold_something_or_were_made() {
        let mut registry = registry();
        let (made, used) = (key("", "g", "made"), key("", "g", "used"));
        registry.set_service(0, &made, Some(ServiceMetadata::default()));
        add(&mut registry, &used, 1);
        add(&mut registry, &used, 2);
        add(&mut registry, &used, 2);
        assert_eq!((registry.listed_count(), registry.instance_count()), (2, 2));
        registry.deregister(1, &used, &Endpoint::new("10.0.0.1", 1, ""));
        assert_eq!((registry.listed_count(), registry.instance_count()), (2, 1));
        registry.deregister(1, &used, &Endpoint::new("10.0.0.1", 2, ""));
        assert_eq!((registry.listed_count(), registry.instance_count()), (1, 0));
        assert!(registry.knows(&used) && !registry.is_listed(&used));
        registry.deregister(1, &key("", "g", "never"), &Endpoint::new("10.0.0.1", 2, ""));
        assert_eq!(all(&registry, "", None), ["g@@made"]);
        registry.set_service(2, &made, None);
        assert_eq!((registry.listed_count(), all(&registry, "", None)), (0, vec![]));
        assert_eq!(registry.listed_namespaces().count(), 0);
    }
}
