//! Rows of naming.

use bytes::{BufMut, Bytes};
use prost::Message;
use proto::tables as wire;
use raft::Index;
use storage::Table;

use super::{RowError, row_error};
use crate::model::{Endpoint, ServiceKey};
use crate::naming::{ClusterMetadata, InstanceOverride, Persistent, ServiceMetadata};
use crate::state::command::{
    cluster_from_wire, cluster_to_wire, instance_from_wire, instance_to_wire, metadata_from_wire,
    metadata_to_wire, service_from_wire, service_to_wire,
};

pub(in crate::state) const SERVICES: Table = Table(11);
pub(in crate::state) const CLUSTERS: Table = Table(12);
pub(in crate::state) const INSTANCES: Table = Table(13);
pub(in crate::state) const OVERRIDES: Table = Table(14);
pub(in crate::state) const SWITCHES: Table = Table(15);

const IN_SERVICES: &str = "naming services";
const IN_CLUSTERS: &str = "naming clusters";
const IN_INSTANCES: &str = "naming instances";
const IN_OVERRIDES: &str = "naming overrides";
const IN_SWITCHES: &str = "naming switches";

/// What the keys of everything that belongs to a service begin with: no other service's do.
pub(in crate::state) fn parts_key(service: &ServiceKey) -> Vec<u8> {
    let mut key = Vec::with_capacity(service.as_bytes().len() + 32);
    key.put_slice(service.as_bytes());
    key.put_u8(0);
    key
}

pub(in crate::state) fn cluster_key(service: &ServiceKey, cluster: &str) -> Vec<u8> {
    let mut key = parts_key(service);
    key.put_slice(cluster.as_bytes());
    key
}

pub(in crate::state) fn endpoint_key(service: &ServiceKey, endpoint: &Endpoint) -> Vec<u8> {
    let mut key = parts_key(service);
    key.put_slice(endpoint.ip.as_bytes());
    key.put_u8(0);
    key.put_u16(endpoint.port);
    key.put_slice(endpoint.cluster.as_bytes());
    key
}

pub(in crate::state) fn read_service_key(key: &[u8]) -> Result<ServiceKey, RowError> {
    ServiceKey::from_bytes(key).ok_or_else(|| row_error(IN_SERVICES)("the key is malformed"))
}

pub(in crate::state) fn read_cluster_key(key: &[u8]) -> Result<(ServiceKey, &str), RowError> {
    let (service, cluster) = split(key, IN_CLUSTERS)?;
    let cluster = std::str::from_utf8(cluster).map_err(row_error(IN_CLUSTERS))?;
    Ok((service, cluster))
}

pub(in crate::state) fn read_instance_key(key: &[u8]) -> Result<(ServiceKey, Endpoint), RowError> {
    read_endpoint_key(key, IN_INSTANCES)
}

pub(in crate::state) fn read_override_key(key: &[u8]) -> Result<(ServiceKey, Endpoint), RowError> {
    read_endpoint_key(key, IN_OVERRIDES)
}

fn read_endpoint_key(key: &[u8], table: &'static str) -> Result<(ServiceKey, Endpoint), RowError> {
    let malformed = || row_error(table)("the key is malformed");
    let (service, endpoint) = split(key, table)?;
    let zero = endpoint
        .iter()
        .position(|&byte| byte == 0)
        .ok_or_else(malformed)?;
    let (ip, rest) = endpoint.split_at(zero);
    let Some((&[_, high, low], cluster)) = rest.split_first_chunk() else {
        return Err(malformed());
    };
    let endpoint = Endpoint {
        ip: std::str::from_utf8(ip).map_err(row_error(table))?.into(),
        port: u16::from_be_bytes([high, low]),
        cluster: std::str::from_utf8(cluster).map_err(row_error(table))?.into(),
    };
    Ok((service, endpoint))
}

/// The service and what follows it: the second zero byte ends it, the first one its namespace.
fn split<'a>(key: &'a [u8], table: &'static str) -> Result<(ServiceKey, &'a [u8]), RowError> {
    let malformed = || row_error(table)("the key is malformed");
    let mut zeros = key.iter().enumerate().filter(|(_, byte)| **byte == 0);
    let (end, _) = zeros.nth(1).ok_or_else(malformed)?;
    let (service, rest) = key.split_at(end);
    let service = ServiceKey::from_bytes(service).ok_or_else(malformed)?;
    Ok((service, rest.get(1..).unwrap_or_default()))
}

pub(in crate::state) fn service(set: &ServiceMetadata, changed: Index) -> Bytes {
    let row = wire::NamingServiceRow {
        settings: Some(service_to_wire(set)),
        changed_index: changed.0,
    };
    row.encode_to_vec().into()
}

pub(in crate::state) fn read_service(row: Bytes) -> Result<(ServiceMetadata, Index), RowError> {
    let row = wire::NamingServiceRow::decode(row).map_err(row_error(IN_SERVICES))?;
    let set = service_from_wire(row.settings).map_err(row_error(IN_SERVICES))?;
    Ok((set, Index(row.changed_index)))
}

pub(in crate::state) fn cluster(set: &ClusterMetadata) -> Bytes {
    let row = wire::NamingClusterRow {
        settings: Some(cluster_to_wire(set)),
    };
    row.encode_to_vec().into()
}

pub(in crate::state) fn read_cluster(row: Bytes) -> Result<ClusterMetadata, RowError> {
    let row = wire::NamingClusterRow::decode(row).map_err(row_error(IN_CLUSTERS))?;
    cluster_from_wire(row.settings).map_err(row_error(IN_CLUSTERS))
}

pub(in crate::state) fn instance(persistent: &Persistent) -> Bytes {
    let row = wire::NamingInstanceRow {
        instance: Some(instance_to_wire(persistent)),
    };
    row.encode_to_vec().into()
}

pub(in crate::state) fn read_instance(row: Bytes) -> Result<Persistent, RowError> {
    let row = wire::NamingInstanceRow::decode(row).map_err(row_error(IN_INSTANCES))?;
    instance_from_wire(row.instance).map_err(row_error(IN_INSTANCES))
}

pub(in crate::state) fn instance_override(set: &InstanceOverride, changed: Index) -> Bytes {
    let row = wire::NamingOverrideRow {
        weight: set.weight,
        enabled: set.enabled,
        metadata: metadata_to_wire(&set.metadata),
        hidden: set.hidden.iter().map(|name| name.to_string()).collect(),
        changed_index: changed.0,
    };
    row.encode_to_vec().into()
}

/// A switch of naming: its name and its value.
pub(in crate::state) type NamingSwitch = (Box<str>, Box<str>);

/// The value of a switch; its key is its name.
pub(in crate::state) fn switch(value: &str) -> Bytes {
    let row = wire::NamingSwitchRow {
        value: value.to_owned(),
    };
    row.encode_to_vec().into()
}

pub(in crate::state) fn read_switch(key: &[u8], row: Bytes) -> Result<NamingSwitch, RowError> {
    let name = std::str::from_utf8(key).map_err(row_error(IN_SWITCHES))?;
    let row = wire::NamingSwitchRow::decode(row).map_err(row_error(IN_SWITCHES))?;
    Ok((name.into(), row.value.into()))
}

pub(in crate::state) fn read_instance_override(row: Bytes) -> Result<(InstanceOverride, Index), RowError> {
    let row = wire::NamingOverrideRow::decode(row).map_err(row_error(IN_OVERRIDES))?;
    let set = InstanceOverride {
        weight: row.weight,
        enabled: row.enabled,
        metadata: metadata_from_wire(row.metadata),
        hidden: row.hidden.into_iter().map(String::into_boxed_str).collect(),
    };
    Ok((set, Index(row.changed_index)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::NamespaceId;

    #[test]
    fn keys_come_back_and_stand_in_the_order_of_what_they_name() {
        let public = ServiceKey::new(&NamespaceId::default(), "g", "s");
        let dev = ServiceKey::new(&NamespaceId::new("dev"), "g", "s");
        let longer = ServiceKey::new(&NamespaceId::new("dev"), "g", "s2");
        let mut places = Vec::new();
        for service in [&public, &dev, &longer] {
            for (ip, port, cluster) in [
                ("10.0.0.1", 0, "c"),
                ("10.0.0.1", 256, "b"),
                ("10.0.0.1", 256, "c"),
                ("10.0.0.10", 65_535, "c"),
            ] {
                places.push((service.clone(), Endpoint::new(ip, port, cluster)));
            }
        }
        let keys: Vec<_> = places
            .iter()
            .map(|(service, endpoint)| endpoint_key(service, endpoint))
            .collect();
        assert!(places.is_sorted() && keys.is_sorted());
        for (key, place) in keys.iter().zip(&places) {
            assert_eq!(read_instance_key(key).as_ref(), Ok(place));
            assert!(key.starts_with(&parts_key(&place.0)));
        }
        assert!(!parts_key(&longer).starts_with(&parts_key(&dev)));
        let key = cluster_key(&dev, "c1");
        assert_eq!(read_cluster_key(&key), Ok((dev, "c1")));
    }

    #[test]
    fn every_cut_of_a_key_or_a_row_is_an_answer_and_no_panic() {
        let service_key = ServiceKey::new(&NamespaceId::new("dev"), "g", "s");
        let key = endpoint_key(&service_key, &Endpoint::new("10.0.0.1", 80, "c"));
        for end in 0..key.len() {
            drop(read_override_key(&key[..end]));
            drop(read_cluster_key(&key[..end]));
            drop(read_service_key(&key[..end]));
        }
        assert!(read_instance_key(b"dev\0g@@s\0ip\0\0").is_err(), "half a port");
        assert!(read_instance_key(b"dev\0gs\0ip\0\0\0c").is_err(), "no group");
        let set = InstanceOverride {
            weight: Some(0.5),
            hidden: [Box::from("a")].into(),
            ..InstanceOverride::default()
        };
        let row = instance_override(&set, Index(7));
        assert_eq!(read_instance_override(row.clone()), Ok((set, Index(7))));
        for end in 0..row.len() {
            drop(read_instance_override(row.slice(..end)));
        }
        assert!(read_service(Bytes::new()).is_err(), "settings are missing");
        assert!(read_cluster(Bytes::new()).is_err() && read_instance(Bytes::new()).is_err());
    }
}
