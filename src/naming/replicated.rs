//! What the replicated state says: persistent instances, and what operators have set. The state hands it
//! over value by value; the registry holds it beside what clients say.

use std::collections::HashSet;
use std::sync::Arc;

use crate::model::{Endpoint, ServiceKey};

use super::changes::{BUCKETS, bucket_of};
use super::overlay::{ClusterMetadata, InstanceOverride, Overlay, ServiceMetadata};
use super::registry::Registry;
use super::service::Persistent;
use super::stamp::Stamp;

/// One value of the replicated state as it is from now on; `None`: it is gone. Telling the same twice
/// changes nothing, so whoever is not sure tells it again.
#[derive(Clone, Debug, PartialEq)]
pub enum Replicated {
    /// What is set for a service.
    Service {
        /// The service.
        service: ServiceKey,
        /// Its settings.
        set: Option<ServiceMetadata>,
    },
    /// What is set for a cluster.
    Cluster {
        /// Of this service.
        service: ServiceKey,
        /// Its name.
        cluster: Arc<str>,
        /// Its settings.
        set: Option<ClusterMetadata>,
    },
    /// A persistent instance.
    Instance {
        /// Of this service.
        service: ServiceKey,
        /// Where it is.
        endpoint: Endpoint,
        /// What it is.
        set: Option<Persistent>,
    },
    /// What is set over what the client says of an instance.
    Override {
        /// Of this service.
        service: ServiceKey,
        /// Where the instance is, or was.
        endpoint: Endpoint,
        /// What is set.
        set: Option<InstanceOverride>,
    },
}

/// Why something of the replicated state stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// The service is there already.
    #[error("the service exists already")]
    Exists,
    /// There is no such service.
    #[error("there is no such service")]
    Missing,
    /// The service holds persistent instances.
    #[error("the service holds instances")]
    NotEmpty,
    /// The service is for instances of the other kind.
    #[error("the service is for instances of the other kind")]
    WrongKind,
    /// Patch by patch, too much text was set for an instance.
    #[error("too much metadata is set for the instance")]
    TooLarge,
}

impl Registry {
    /// A persistent instance is there, or its health has changed; `None`: it was deregistered.
    pub fn set_persistent(
        &mut self,
        now_ms: u64,
        service: &ServiceKey,
        endpoint: &Endpoint,
        persistent: Option<Persistent>,
    ) {
        if persistent.is_some() || self.services.contains_key(service) {
            self.edit(now_ms, service, endpoint, Stamp::default(), |entry| {
                entry.persistent = persistent;
            });
        }
    }

    /// What is set for a service; `None`: nothing any more.
    pub fn set_service(&mut self, now_ms: u64, service: &ServiceKey, set: Option<ServiceMetadata>) {
        self.overlay_changed(now_ms, service, |overlay| {
            let differs = overlay.service != set;
            overlay.service = set;
            differs
        });
    }

    /// What is set for a cluster; `None`: nothing any more.
    pub fn set_cluster(
        &mut self,
        now_ms: u64,
        service: &ServiceKey,
        cluster: &Arc<str>,
        set: Option<ClusterMetadata>,
    ) {
        self.overlay_changed(now_ms, service, |overlay| {
            let differs = overlay.clusters.get(cluster) != set.as_ref();
            match set {
                Some(set) => overlay.clusters.insert(Arc::clone(cluster), set),
                None => overlay.clusters.remove(cluster),
            };
            differs
        });
    }

    /// What is set for an instance; `None`: its client's word alone counts again.
    pub fn set_override(
        &mut self,
        now_ms: u64,
        service: &ServiceKey,
        endpoint: &Endpoint,
        set: Option<InstanceOverride>,
    ) {
        self.overlay_changed(now_ms, service, |overlay| {
            let differs = overlay.instances.get(endpoint) != set.as_ref();
            match set {
                Some(set) => overlay.instances.insert(endpoint.clone(), set),
                None => overlay.instances.remove(endpoint),
            };
            differs
        });
    }

    /// `change` says whether anything differs.
    fn overlay_changed(&mut self, now_ms: u64, key: &ServiceKey, change: impl FnOnce(&mut Overlay) -> bool) {
        if change(&mut self.service_mut(now_ms, key).overlay) {
            self.relist(key);
            self.changed(now_ms, key, Stamp::default());
        }
    }

    /// Takes over what the replicated state says.
    pub fn feed(&mut self, now_ms: u64, change: &Replicated) {
        match change {
            Replicated::Service { service, set } => self.set_service(now_ms, service, set.clone()),
            Replicated::Cluster {
                service,
                cluster,
                set,
            } => self.set_cluster(now_ms, service, cluster, set.clone()),
            Replicated::Instance {
                service,
                endpoint,
                set,
            } => self.set_persistent(now_ms, service, endpoint, set.clone()),
            Replicated::Override {
                service,
                endpoint,
                set,
            } => self.set_override(now_ms, service, endpoint, set.clone()),
        }
    }

    /// Puts these values in the place of all that the replicated state ever said: what is not among them
    /// is gone. Readers of what stays see no change.
    pub fn feed_all(&mut self, now_ms: u64, rows: impl IntoIterator<Item = Replicated>) {
        for (bucket, rows) in Replicated::by_bucket(rows).into_iter().enumerate() {
            self.feed_bucket(now_ms, bucket, rows);
        }
    }

    /// As [`Registry::feed_all`] for one bucket of [`Replicated::by_bucket`].
    fn feed_bucket(&mut self, now_ms: u64, bucket: usize, rows: Vec<Replicated>) {
        let mut gone = self.replicated(bucket);
        for row in rows {
            gone.remove(&row.place());
            self.feed(now_ms, &row);
        }
        for place in gone {
            self.feed(now_ms, &place.empty());
        }
    }

    /// True for a service without instances of either kind, known or not.
    pub fn is_without_instances(&self, service: &ServiceKey) -> bool {
        let service = self.services.get(service);
        service.is_none_or(|service| service.empty_since.is_some())
    }

    /// Where this registry holds values of the replicated state, in a bucket.
    fn replicated(&self, bucket: usize) -> HashSet<Place> {
        let mut places = HashSet::new();
        for service in self.services.in_bucket(bucket) {
            let (key, overlay) = (&service.key, &service.overlay);
            if overlay.service.is_some() {
                places.insert(Place::Service(key.clone()));
            }
            let clusters = overlay.clusters.keys();
            places.extend(clusters.map(|cluster| Place::Cluster(key.clone(), Arc::clone(cluster))));
            let overrides = overlay.instances.keys();
            places.extend(overrides.map(|endpoint| Place::Override(key.clone(), endpoint.clone())));
            let entries = service.entries.iter();
            let persistent = entries.filter(|(_, entry)| entry.persistent.is_some());
            places.extend(persistent.map(|(endpoint, _)| Place::Instance(key.clone(), endpoint.clone())));
        }
        places
    }
}

/// What a [`Replicated`] is the value of.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Place {
    Service(ServiceKey),
    Cluster(ServiceKey, Arc<str>),
    Instance(ServiceKey, Endpoint),
    Override(ServiceKey, Endpoint),
}

impl Place {
    /// Nothing stands here.
    fn empty(self) -> Replicated {
        match self {
            Place::Service(service) => Replicated::Service { service, set: None },
            Place::Cluster(service, cluster) => Replicated::Cluster {
                service,
                cluster,
                set: None,
            },
            Place::Instance(service, endpoint) => Replicated::Instance {
                service,
                endpoint,
                set: None,
            },
            Place::Override(service, endpoint) => Replicated::Override {
                service,
                endpoint,
                set: None,
            },
        }
    }
}

impl Replicated {
    /// Values by the bucket of their services.
    fn by_bucket(rows: impl IntoIterator<Item = Replicated>) -> Vec<Vec<Replicated>> {
        let mut buckets: Vec<Vec<Replicated>> = vec![Vec::new(); BUCKETS];
        for row in rows {
            if let Some(bucket) = buckets.get_mut(bucket_of(row.service())) {
                bucket.push(row);
            }
        }
        buckets
    }

    fn service(&self) -> &ServiceKey {
        match self {
            Replicated::Service { service, .. }
            | Replicated::Cluster { service, .. }
            | Replicated::Instance { service, .. }
            | Replicated::Override { service, .. } => service,
        }
    }

    fn place(&self) -> Place {
        match self {
            Replicated::Service { service, .. } => Place::Service(service.clone()),
            Replicated::Cluster { service, cluster, .. } => {
                Place::Cluster(service.clone(), Arc::clone(cluster))
            }
            Replicated::Instance {
                service, endpoint, ..
            } => Place::Instance(service.clone(), endpoint.clone()),
            Replicated::Override {
                service, endpoint, ..
            } => Place::Override(service.clone(), endpoint.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::NamespaceId;
    use crate::naming::{Filter, Instance, Origin, StampClock};

    fn service(name: &str) -> ServiceKey {
        ServiceKey::new(&NamespaceId::default(), "g", name)
    }

    fn at(port: u16) -> Endpoint {
        Endpoint::new("10.0.0.1", port, "c")
    }

    fn instance(port: u16, healthy: bool) -> Replicated {
        let persistent = Persistent {
            instance: Arc::new(Instance::default()),
            healthy,
        };
        Replicated::Instance {
            service: service("s"),
            endpoint: at(port),
            set: Some(persistent),
        }
    }

    fn override_of(port: u16, weight: f64) -> Replicated {
        Replicated::Override {
            service: service("s"),
            endpoint: at(port),
            set: Some(InstanceOverride {
                weight: Some(weight),
                ..InstanceOverride::default()
            }),
        }
    }

    fn settings(name: &str) -> Replicated {
        Replicated::Service {
            service: service(name),
            set: Some(ServiceMetadata::default()),
        }
    }

    fn cluster() -> Replicated {
        let set = crate::naming::ClusterMetadata {
            check_port: 80,
            use_instance_port: true,
            checker: "{}".into(),
            metadata: Default::default(),
        };
        Replicated::Cluster {
            service: service("s"),
            cluster: "c".into(),
            set: Some(set),
        }
    }

    fn hosts(registry: &Registry) -> Vec<(u16, f64, bool)> {
        let view = registry.view(&service("s"), &Filter::default());
        let hosts = view.unwrap_or_default().hosts.into_iter();
        hosts
            .map(|(endpoint, seen)| (endpoint.port, seen.instance.weight, seen.healthy))
            .collect()
    }

    fn registry() -> Registry {
        let me = Origin { node: 1, boot: 1 };
        Registry::new(me, StampClock::new(1_000, 0))
    }

    #[test]
    fn all_values_take_the_place_of_those_before() {
        let mut registry = registry();
        for change in [
            settings("s"),
            settings("t"),
            cluster(),
            instance(1, true),
            instance(2, true),
            override_of(2, 4.0),
        ] {
            registry.feed(0, &change);
        }
        assert_eq!(hosts(&registry), [(1, 1.0, true), (2, 4.0, true)]);
        registry.feed_all(1, vec![settings("s"), instance(2, false), instance(3, true)]);
        assert_eq!(hosts(&registry), [(2, 1.0, false), (3, 1.0, true)]);
        let overlay = registry.overlay(&service("s")).expect("known");
        assert!(overlay.clusters.is_empty() && overlay.instances.is_empty());
        assert_eq!(
            registry.overlay(&service("t")).map(|set| set.service.clone()),
            Some(None)
        );
        drop(registry.take_events());
        registry.feed_all(2, vec![settings("s"), instance(2, false), instance(3, true)]);
        assert_eq!(registry.take_events(), [], "the same again is no change");
        registry.feed_all(3, Vec::new());
        assert_eq!(hosts(&registry), []);
    }
}
