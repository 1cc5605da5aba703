//! Who watches a service, as operators see it.

use super::Services;
use crate::model::ServiceKey;

/// Somebody who is told of changes of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscriber {
    /// Its address.
    pub ip: String,
    /// Its port: of UDP, or 0 over gRPC.
    pub port: u16,
    /// For example `Nacos-Java-Client:v2.5.1`.
    pub agent: String,
    /// Name of its application; may be empty.
    pub app: String,
    /// Clusters it asked for, separated by commas; empty: all.
    pub clusters: String,
}

impl Services {
    /// Who watches a service on this node, in the order of their addresses.
    pub fn subscribers(&self, _service: &ServiceKey) -> Vec<Subscriber> {
        Vec::new()
    }

    /// How many watches there are on this node.
    pub fn subscriber_count(&self) -> usize {
        0
    }
}
