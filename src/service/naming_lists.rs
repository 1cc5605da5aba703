//! Lists of services and of what is in them: pages for SDKs, consoles and operators.
//!
//! What SDKs repeat (names of a group) costs what the page shows. What an operator looks for by a part of
//! a name walks the names of a namespace, a thousand at a time, so that acts of clients pass in between.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Services;
use crate::error::{Error, NamingRefusal, Result};
use crate::model::{Endpoint, NamespaceId, ServiceKey};
use crate::naming::{ClusterMetadata, Registry, Seen, ServiceMetadata, Tally};
use crate::seeded::{self, Bug};

/// Names that are looked at before the registry is given to others.
const SCAN_AT_ONCE: usize = 1_000;

/// Which part of a list: `skip` of its elements are left out, then come at most `take`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// How many stand before it.
    pub skip: usize,
    /// How many it holds at most.
    pub take: usize,
}

impl Window {
    /// The page with this number, from 1; a lower one counts as 1, as it does in Nacos.
    pub fn of_page(number: i64, size: i64) -> Window {
        let from_one = |number: i64| usize::try_from(number).unwrap_or(0);
        let take = from_one(size);
        Window {
            skip: from_one(number.saturating_sub(1)).saturating_mul(take),
            take,
        }
    }
}

/// What an operator looks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Stands somewhere in the name.
    pub name: String,
    /// Stands somewhere in the group.
    pub group: String,
    /// Stands somewhere in `ip:port` of an instance.
    pub instance: String,
    /// Only services with instances.
    pub with_instances: bool,
}

/// A line of a list of services.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// Its name.
    pub service: ServiceKey,
    /// How much is in it.
    pub tally: Tally,
    /// Share of healthy instances at or below which all are shown as healthy.
    pub protect_threshold: f64,
}

impl Listed {
    /// True while so few are healthy that all are shown as healthy.
    pub fn is_protected(&self) -> bool {
        let share = self.tally.healthy as f64 / self.tally.instances as f64;
        self.protect_threshold > 0.0 && self.tally.instances > 0 && share <= self.protect_threshold
    }
}

/// A service as an operator sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Described {
    /// Its name.
    pub service: ServiceKey,
    /// What is set for it; the defaults for one that only clients have made.
    pub set: ServiceMetadata,
    /// Its clusters: those with settings and those with instances.
    pub clusters: BTreeMap<Arc<str>, ClusterMetadata>,
}

/// An instance of a service, as an operator sees it.
pub type Found = (Endpoint, Seen);

impl Services {
    /// Names of the services of a group, and how many there are.
    pub fn service_names(
        &self,
        namespace: &NamespaceId,
        group: &str,
        window: Window,
    ) -> (usize, Vec<ServiceKey>) {
        self.discovery.look(|registry, _| {
            let Some(services) = registry.listed_in(namespace, group) else {
                return (0, Vec::new());
            };
            let skip = if seeded::has(Bug::PagesIgnored) {
                0
            } else {
                window.skip
            };
            let shown = services.iter().skip(skip).take(window.take);
            (services.len(), shown.cloned().collect())
        })
    }

    /// Services that an operator looks for, and how many there are. Walks a namespace.
    pub fn find_services(
        &self,
        namespace: &NamespaceId,
        wanted: &Wanted,
        window: Window,
    ) -> (usize, Vec<Listed>) {
        let (mut count, mut found) = (0, Vec::new());
        self.scan(namespace, |registry, service| {
            let named = service.name().contains(&wanted.name) && service.group().contains(&wanted.group);
            if !named || !holds(registry, service, wanted) {
                return;
            }
            if count >= window.skip && found.len() < window.take {
                found.push(listed(registry, service));
            }
            count += 1;
        });
        (count, found)
    }

    /// Grouped names that hold `part`, of one namespace or of all. Walks them.
    pub fn names_with(
        &self,
        namespace: Option<&NamespaceId>,
        part: &str,
    ) -> Vec<(NamespaceId, Vec<ServiceKey>)> {
        let namespaces = match namespace {
            Some(namespace) => vec![namespace.clone()],
            None => {
                let look = |registry: &Registry, _| registry.listed_namespaces().collect();
                self.discovery.look(look)
            }
        };
        let named = |namespace: NamespaceId| {
            let mut names = Vec::new();
            self.scan(&namespace, |_, service| {
                if matches(service.grouped(), part) {
                    names.push(service.clone());
                }
            });
            (namespace, names)
        };
        namespaces.into_iter().map(named).collect()
    }

    /// Visits every service that lists show.
    pub(super) fn scan_all(&self, mut visit: impl FnMut(&Registry, &ServiceKey)) {
        let look = |registry: &Registry, _| registry.listed_namespaces().collect::<Vec<_>>();
        for namespace in self.discovery.look(look) {
            self.scan(&namespace, &mut visit);
        }
    }

    fn scan(&self, namespace: &NamespaceId, mut visit: impl FnMut(&Registry, &ServiceKey)) {
        let mut last: Option<ServiceKey> = None;
        loop {
            let (seen, next) = self.discovery.look(|registry, _| {
                let (mut seen, mut next) = (0, None);
                for service in registry.listed_after(namespace, last.as_ref()).take(SCAN_AT_ONCE) {
                    visit(registry, service);
                    seen += 1;
                    next = Some(service);
                }
                (seen, next.cloned())
            });
            last = next;
            if seen < SCAN_AT_ONCE {
                return;
            }
        }
    }

    /// A service with its settings and clusters; `None` for one that no list shows.
    pub fn describe(&self, service: &ServiceKey) -> Option<Described> {
        self.discovery.look(|registry, _| {
            if !registry.is_listed(service) {
                return None;
            }
            let overlay = registry.overlay(service).cloned().unwrap_or_default();
            let mut clusters = overlay.clusters;
            for (endpoint, _) in registry.instances(service) {
                if !clusters.contains_key(&endpoint.cluster) {
                    clusters.insert(Arc::clone(&endpoint.cluster), unset_cluster());
                }
            }
            let ephemeral = registry.kind(service) == Some(crate::naming::Kind::Ephemeral);
            Some(Described {
                service: service.clone(),
                set: overlay.service.unwrap_or(ServiceMetadata {
                    ephemeral,
                    ..ServiceMetadata::default()
                }),
                clusters,
            })
        })
    }

    /// As [`Services::describe`].
    ///
    /// # Errors
    /// No list shows such a service.
    pub fn described(&self, service: &ServiceKey) -> Result<Described> {
        self.describe(service).ok_or_else(|| Error::Naming {
            refusal: NamingRefusal::NoService,
            text: format!(
                "service not found, namespace: {}, serviceName: {}",
                service.namespace_id(),
                service.grouped()
            ),
        })
    }

    /// Instances of a cluster (`None`: of all), disabled ones among them, and how many there are.
    ///
    /// # Errors
    /// There is no such service, or no such cluster in it.
    pub fn find_instances(
        &self,
        service: &ServiceKey,
        cluster: Option<&str>,
        window: Window,
    ) -> Result<(usize, Vec<Found>)> {
        self.discovery.look(|registry, _| {
            if !registry.is_listed(service) {
                let text = format!("service {} is not found!", service.grouped());
                return Err(Error::NotFound(text));
            }
            let is_meant = |endpoint: &Endpoint| cluster.is_none_or(|cluster| *endpoint.cluster == *cluster);
            let all = registry.instances(service);
            let found: Vec<_> = all.filter(|(place, _)| is_meant(place)).collect();
            let is_set = |cluster: &str| {
                let overlay = registry.overlay(service);
                overlay.is_some_and(|overlay| overlay.clusters.contains_key(cluster))
            };
            if let Some(cluster) = cluster
                && found.is_empty()
                && !is_set(cluster)
            {
                return Err(Error::NotFound(format!("cluster {cluster} is not found!")));
            }
            let count = found.len();
            let shown = found.into_iter().skip(window.skip).take(window.take);
            let shown = shown.map(|(place, seen)| (place.clone(), seen));
            Ok((count, shown.collect()))
        })
    }
}

/// A cluster for which nothing is set.
pub fn unset_cluster() -> ClusterMetadata {
    ClusterMetadata {
        check_port: 80,
        use_instance_port: true,
        checker: r#"{"type":"TCP"}"#.into(),
        metadata: crate::naming::Metadata::default(),
    }
}

fn holds(registry: &Registry, service: &ServiceKey, wanted: &Wanted) -> bool {
    let mut instances = registry.instances(service);
    if wanted.instance.is_empty() {
        return !wanted.with_instances || instances.next().is_some();
    }
    instances.any(|(place, _)| format!("{}:{}", place.ip, place.port).contains(&wanted.instance))
}

fn listed(registry: &Registry, service: &ServiceKey) -> Listed {
    let set = registry
        .overlay(service)
        .and_then(|overlay| overlay.service.as_ref());
    let clusters = registry.overlay(service).map(|overlay| &overlay.clusters);
    let mut tally = registry.tally(service);
    // A cluster with settings is one, whether or not anybody is in it.
    if let Some(clusters) = clusters.filter(|clusters| !clusters.is_empty()) {
        let used = registry.instances(service).map(|(place, _)| &place.cluster);
        tally.clusters = used.chain(clusters.keys()).collect::<BTreeSet<_>>().len();
    }
    Listed {
        service: service.clone(),
        tally,
        protect_threshold: set.map_or(0.0, |set| set.protect_threshold),
    }
}

/// Whether the parts of an expression stand in a name, in their order, with anything (`.*`) between, before and behind
/// them. Nacos takes a regular expression; what people write there are parts of names.
fn matches(name: &str, expression: &str) -> bool {
    let mut rest = Some(name);
    for part in expression.split(".*") {
        rest = rest.and_then(|rest| Some(rest.split_once(part)?.1));
    }
    rest.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_by_parts_of_them() {
        for part in ["", "sv", "gg", "gg@@sv1", "sv.*", ".*", "g.*v.*1"] {
            assert!(matches("gg@@sv1", part), "{part}");
        }
        for other in ["sv2", "v.*g", "sv1.*sv1"] {
            assert!(!matches("gg@@sv1", other), "{other}");
        }
    }

    #[test]
    fn pages_begin_at_one() {
        let window = |skip, take| Window { skip, take };
        assert_eq!(Window::of_page(1, 10), window(0, 10));
        assert_eq!(Window::of_page(3, 10), window(20, 10));
        assert_eq!(Window::of_page(0, 10), window(0, 10));
        assert_eq!(Window::of_page(-5, 10), window(0, 10));
        assert_eq!(Window::of_page(2, -1), window(0, 0));
        let most = Window::of_page(i64::MAX, i64::MAX);
        assert_eq!(most.skip, usize::MAX, "past every end");
    }
}
