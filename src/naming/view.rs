//! What readers get.

use std::sync::Arc;

use crate::model::Endpoint;

use super::service::{Seen, Service};
use super::stamp::Stamp;

/// Which instances a reader asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Filter {
    /// Names of clusters, separated by commas, as the client wrote them; blank is all.
    pub clusters: Box<str>,
    /// Unhealthy ones are left out.
    pub healthy_only: bool,
    /// Disabled ones are shown, too: for operators alone.
    pub with_disabled: bool,
}

impl Filter {
    fn takes(&self, endpoint: &Endpoint, seen: &Seen) -> bool {
        let cluster = self.clusters.trim().is_empty()
            || self
                .clusters
                .split(',')
                .any(|cluster| cluster.trim() == &*endpoint.cluster);
        let healthy = seen.healthy || !self.healthy_only;
        cluster && healthy && (seen.instance.enabled || self.with_disabled)
    }
}

/// Instances of a service, as one reader sees them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// `lastRefTime`.
    pub stamp: Stamp,
    /// Sorted by endpoint.
    pub hosts: Vec<(Endpoint, Seen)>,
    /// So few are healthy that all are shown as healthy.
    pub reach_protection: bool,
}

impl Service {
    /// See [`Whole::view`].
    pub(super) fn view(&self, filter: &Filter) -> View {
        let seen = self.instances();
        let taken = seen.filter(|(endpoint, seen)| filter.takes(endpoint, seen));
        let hosts = taken.map(|(endpoint, seen)| (endpoint.clone(), seen)).collect();
        protected(self.stamp, self.protect_threshold(), hosts)
    }

    pub(super) fn whole(&self) -> Whole {
        let seen = self.instances();
        Whole {
            stamp: self.stamp,
            hosts: seen.map(|(endpoint, seen)| (endpoint.clone(), seen)).collect(),
            threshold: self.protect_threshold(),
        }
    }

    fn protect_threshold(&self) -> f64 {
        let set = self.overlay.service.as_ref();
        set.map_or(0.0, |set| set.protect_threshold)
    }
}

/// All instances of a service that can be seen, of which each reader sees some. Taking it costs some handles for
/// each instance; choosing and rendering, which cost a hundred times that, need no registry.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Whole {
    stamp: Stamp,
    /// Sorted by endpoint.
    hosts: Vec<(Endpoint, Seen)>,
    threshold: f64,
}

impl Whole {
    /// What a reader sees: cluster, enabled, healthy, then the protection threshold over what is left, in
    /// this order (Nacos 2.5 `ServiceUtil.selectInstancesWithHealthyProtection`). Unlike there a threshold
    /// of 0 never protects, so that a service whose instances are all ill is seen so.
    pub fn view(&self, filter: &Filter) -> View {
        let taken = self.hosts.iter();
        let taken = taken.filter(|(endpoint, seen)| filter.takes(endpoint, seen));
        protected(self.stamp, self.threshold, taken.cloned().collect())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Memory that it takes, besides what the registry holds anyway.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.hosts)
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }
}

fn protected(stamp: Stamp, threshold: f64, mut hosts: Vec<(Endpoint, Seen)>) -> View {
    let healthy = hosts.iter().filter(|(_, seen)| seen.healthy).count();
    let share = healthy as f64 / hosts.len() as f64;
    let reach_protection = threshold > 0.0 && !hosts.is_empty() && share <= threshold;
    if reach_protection {
        for (_, seen) in &mut hosts {
            seen.healthy = true;
        }
    }
    View {
        stamp,
        hosts,
        reach_protection,
    }
}

/// Number of instances, of healthy ones, and of clusters: what lists of services show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Instances.
    pub instances: usize,
    /// Those that take traffic.
    pub healthy: usize,
    /// Clusters with an instance.
    pub clusters: usize,
}

impl Service {
    pub(super) fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        let mut clusters: Vec<Arc<str>> = Vec::new();
        for (endpoint, seen) in self.instances() {
            tally.instances += 1;
            tally.healthy += usize::from(seen.healthy);
            if !clusters.contains(&endpoint.cluster) {
                clusters.push(Arc::clone(&endpoint.cluster));
            }
        }
        tally.clusters = clusters.len();
        tally
    }
}
