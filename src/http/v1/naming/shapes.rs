//! What answers of several routes, and of several generations of the API, are made of.

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::discovery::instance_id;
use crate::model::ServiceKey;
use crate::naming::{BEAT_INTERVAL_MS, ClusterMetadata, Metadata, preserved};
use crate::service::naming_lists::Found;

/// Names and values as an object.
#[derive(Debug)]
pub(in crate::http) struct MetadataJson<'a>(pub &'a Metadata);

impl Serialize for MetadataJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter())
    }
}

/// An instance with all that is known of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct InstanceJson<'a> {
    instance_id: String,
    ip: &'a str,
    port: u16,
    weight: f64,
    healthy: bool,
    enabled: bool,
    ephemeral: bool,
    cluster_name: &'a str,
    service_name: &'a str,
    metadata: MetadataJson<'a>,
    instance_heart_beat_interval: u64,
    instance_heart_beat_time_out: u64,
    ip_delete_timeout: u64,
    /// Left out, as the Java server does, when there is metadata that does not name one.
    #[serde(skip_serializing_if = "Option::is_none")]
    instance_id_generator: Option<&'a str>,
}

impl<'a> InstanceJson<'a> {
    pub(in crate::http) fn of(service: &'a ServiceKey, (place, seen): &'a Found) -> InstanceJson<'a> {
        let instance = &seen.instance;
        let metadata = &instance.metadata;
        let generator = metadata.get(preserved::ID_GENERATOR);
        InstanceJson {
            instance_id: instance_id(service, place, metadata),
            ip: &place.ip,
            port: place.port,
            weight: instance.weight,
            healthy: seen.healthy,
            enabled: instance.enabled,
            ephemeral: seen.ephemeral,
            cluster_name: &place.cluster,
            service_name: service.grouped(),
            metadata: MetadataJson(metadata),
            instance_heart_beat_interval: instance.beat_interval_ms().unwrap_or(BEAT_INTERVAL_MS),
            instance_heart_beat_time_out: instance.beat_timeout_ms(),
            ip_delete_timeout: instance.delete_timeout_ms(),
            instance_id_generator: generator.or(metadata.is_empty().then_some("simple")),
        }
    }
}

/// A selector as it was set; blank is the one that lets everything pass.
pub(in crate::http) fn selector(text: &str) -> Value {
    let set: Option<Value> = serde_json::from_str(text).ok();
    match set {
        Some(Value::Object(mut fields)) if fields.contains_key("type") => {
            let is_label = fields.get("type").and_then(Value::as_str) == Some("label");
            let context = if is_label { "CMDB" } else { "NONE" };
            fields.insert("contextType".to_owned(), context.into());
            fields.into()
        }
        _ => serde_json::json!({"type": "none", "contextType": "NONE"}),
    }
}

/// The health checker of a cluster as it was set.
pub(in crate::http) fn checker(cluster: &ClusterMetadata) -> Value {
    let set = serde_json::from_str(&cluster.checker).ok();
    set.unwrap_or_else(|| serde_json::json!({"type": "TCP"}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_say_what_they_look_at() {
        let none = json!({"type": "none", "contextType": "NONE"});
        assert_eq!(selector(""), none);
        assert_eq!(selector("nonsense"), none);
        assert_eq!(selector(r#"{"type":"none"}"#), none);
        let label = json!({"type": "label", "expression": "x", "contextType": "CMDB"});
        assert_eq!(selector(r#"{"type":"label","expression":"x"}"#), label);
    }
}
