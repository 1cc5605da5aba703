//! What operators set, apart from what clients register; replicated through the log.

use std::collections::{BTreeMap, BTreeSet};
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
    /// Over the client's metadata, name by name (Nacos 2.5 `InstanceUtil.updateInstanceMetadata`): what the
    /// next version of a client attaches under other names is seen.
    pub metadata: Metadata,
    /// Names of the client's that readers do not see. (Nacos 2.5 says that it has removed them, and does not.)
    pub hidden: BTreeSet<Box<str>>,
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
            metadata: self.metadata_over(&instance.metadata),
        })
    }

    fn metadata_over(&self, clients: &Metadata) -> Metadata {
        if self.metadata.is_empty() && self.hidden.is_empty() {
            return clients.clone();
        }
        let shown = clients.iter().filter(|(name, _)| !self.hidden.contains(*name));
        shown.chain(self.metadata.iter()).collect()
    }

    /// What stands here after a change.
    pub fn patched(&self, patch: &OverridePatch) -> InstanceOverride {
        let mut hidden = self.hidden.clone();
        let metadata = match &patch.metadata {
            MetadataPatch::Keep => self.metadata.clone(),
            MetadataPatch::Set(metadata) => {
                hidden.clear();
                metadata.clone()
            }
            MetadataPatch::Merge(metadata) => {
                hidden.retain(|name| metadata.get(name).is_none());
                self.metadata.iter().chain(metadata.iter()).collect()
            }
            MetadataPatch::Remove(names) => {
                hidden.extend(names.iter().cloned());
                let kept = self.metadata.iter().filter(|(name, _)| !names.contains(*name));
                kept.collect()
            }
        };
        InstanceOverride {
            weight: patch.weight.or(self.weight),
            enabled: patch.enabled.or(self.enabled),
            metadata,
            hidden,
        }
    }

    /// Bytes of all names and values.
    pub fn text_bytes(&self) -> usize {
        let pairs = self.metadata.iter().map(|(name, value)| name.len() + value.len());
        pairs.sum::<usize>() + self.hidden.iter().map(|name| name.len()).sum::<usize>()
    }
}

/// A change to what is set for an instance; `None` leaves what is there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OverridePatch {
    /// The new weight.
    pub weight: Option<f64>,
    /// The new word.
    pub enabled: Option<bool>,
    /// What becomes of the metadata.
    pub metadata: MetadataPatch,
}

/// A change to the metadata that is set for an instance.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum MetadataPatch {
    /// Stays as it is.
    #[default]
    Keep,
    /// This alone; what was hidden is seen again.
    Set(Metadata),
    /// This, too.
    Merge(Metadata),
    /// Readers see these names no longer, whoever attached them.
    Remove(BTreeSet<Box<str>>),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<Box<str>> {
        names.iter().map(|name| Box::from(*name)).collect()
    }

    #[test]
    fn metadata_covers_the_clients_name_by_name() {
        let instance = Arc::new(Instance {
            metadata: [("a", "1"), ("b", "2")].into_iter().collect(),
            ..Instance::default()
        });
        let seen = |set: &InstanceOverride| {
            let over = set.over(&instance);
            over.metadata
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect::<Vec<_>>()
        };
        let plain = InstanceOverride::default();
        let patch = |metadata| OverridePatch {
            metadata,
            ..OverridePatch::default()
        };
        let merged = plain.patched(&patch(MetadataPatch::Merge(
            [("b", "3"), ("c", "4")].into_iter().collect(),
        )));
        assert_eq!(seen(&merged), ["a=1", "b=3", "c=4"]);
        let less = merged.patched(&patch(MetadataPatch::Remove(names(&["a", "c"]))));
        assert_eq!(seen(&less), ["b=3"]);
        let again = less.patched(&patch(MetadataPatch::Merge([("a", "5")].into_iter().collect())));
        assert_eq!(seen(&again), ["a=5", "b=3"]);
        assert_eq!(again.hidden, names(&["c"]));
        let set = less.patched(&patch(MetadataPatch::Set([("d", "6")].into_iter().collect())));
        assert_eq!(seen(&set), ["a=1", "b=2", "d=6"]);
        assert_eq!(set.text_bytes(), 2);
    }

    #[test]
    fn a_patch_leaves_what_it_does_not_name() {
        let set = InstanceOverride::default().patched(&OverridePatch {
            weight: Some(3.0),
            enabled: Some(false),
            metadata: MetadataPatch::Keep,
        });
        let next = set.patched(&OverridePatch {
            weight: Some(4.0),
            ..OverridePatch::default()
        });
        assert_eq!((next.weight, next.enabled), (Some(4.0), Some(false)));
    }
}
