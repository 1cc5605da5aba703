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
        cluster && (seen.instance.enabled || self.with_disabled)
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
    /// What a reader sees: cluster, enabled, healthy, then the protection threshold over what is left, in
    /// this order (Nacos 2.5 `ServiceUtil.selectInstancesWithHealthyProtection`). Unlike there a threshold
    /// of 0 never protects, so that a service whose instances are all ill is seen so.
    pub(super) fn view(&self, filter: &Filter) -> View {
        let mut hosts: Vec<(Endpoint, Seen)> = self
            .instances()
            .filter(|(endpoint, seen)| filter.takes(endpoint, seen) && (seen.healthy || !filter.healthy_only))
            .map(|(endpoint, seen)| (endpoint.clone(), seen))
            .collect();
        let threshold = self
            .overlay
            .service
            .as_ref()
            .map_or(0.0, |set| set.protect_threshold);
        let healthy = hosts.iter().filter(|(_, seen)| seen.healthy).count();
        let share = healthy as f64 / hosts.len() as f64;
        let reach_protection = threshold > 0.0 && !hosts.is_empty() && share <= threshold;
        if reach_protection {
            for (_, seen) in &mut hosts {
                seen.healthy = true;
            }
        }
        View {
            stamp: self.stamp,
            hosts,
            reach_protection,
        }
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
