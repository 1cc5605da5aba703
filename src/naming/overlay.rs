//! What operators set, apart from what clients register; replicated through the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::Endpoint;

use super::instance::{Instance, Metadata};

/// What is set for a service as a whole.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceMetadata {
    /// True for a service that holds ephemeral instances.
    pub ephemeral: bool,
    /// Share of healthy instances, 0 to 1, at or below which all are shown as healthy; 0 never.
    pub protect_threshold: f64,
    /// The selector as its JSON text; only `none` has an effect, for labels of clients are not known.
    pub selector: Box<str>,
    /// What the operator attaches.
    pub metadata: Metadata,
}

/// What is set for a cluster of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterMetadata {
    /// Port for health checks, unless the instance's own is used.
    pub check_port: u16,
    /// Checks go to the port of the instance.
    pub use_instance_port: bool,
    /// The health checker as its JSON text.
    pub checker: Box<str>,
    /// What the operator attaches.
    pub metadata: Metadata,
}

/// What an operator sets for an instance; survives its registrations. `None` leaves the client's word.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InstanceOverride {
    /// Instead of the client's weight.
    pub weight: Option<f64>,
    /// Instead of the client's word.
    pub enabled: Option<bool>,
    /// Instead of all of the client's metadata.
    pub metadata: Option<Metadata>,
}

impl InstanceOverride {
    /// The instance as readers see it.
    pub fn over(&self, instance: &Arc<Instance>) -> Arc<Instance> {
        if *self == InstanceOverride::default() {
            return Arc::clone(instance);
        }
        Arc::new(Instance {
            weight: self.weight.unwrap_or(instance.weight),
            enabled: self.enabled.unwrap_or(instance.enabled),
            metadata: self.metadata.clone().unwrap_or_else(|| instance.metadata.clone()),
        })
    }
}

/// All that is set for a service and what belongs to it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overlay {
    /// For the service; `None` for one that only clients have made.
    pub service: Option<ServiceMetadata>,
    /// For its clusters, by name.
    pub clusters: BTreeMap<Arc<str>, ClusterMetadata>,
    /// For its instances.
    pub instances: BTreeMap<Endpoint, InstanceOverride>,
}
