//! Naming's commands on the wire. The pieces that are stored, too, are written here once.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::command as wire;
use raft::Index;

use super::{Command, CommandError, NAMING_BATCH_MAX, NAMING_SWITCH_BYTES_MAX};
use crate::model::{Endpoint, NamespaceId, ServiceKey};
use crate::naming::{
    ClusterMetadata, Instance, Metadata, MetadataPatch, OverridePatch, Persistent, ServiceMetadata,
};
use crate::state::KEY_BYTES_MAX;

/// Names and values on the wire: sorted by name, so that equal ones have equal bytes.
type Pairs = BTreeMap<String, String>;

impl Command {
    pub(super) fn naming_to_wire(&self) -> wire::envelope::Command {
        use wire::envelope::Command as Wire;
        match self {
            Command::NamingInstancePut {
                service,
                endpoint,
                persistent,
            } => Wire::NamingInstancePut(wire::NamingInstancePut {
                service: Some(service_key_to_wire(service)),
                endpoint: Some(endpoint_to_wire(endpoint)),
                instance: Some(instance_to_wire(persistent)),
            }),
            Command::NamingInstanceRemove { service, endpoint } => {
                Wire::NamingInstanceRemove(wire::NamingInstanceRemove {
                    service: Some(service_key_to_wire(service)),
                    endpoint: Some(endpoint_to_wire(endpoint)),
                })
            }
            Command::NamingHealth(results) => Wire::NamingHealth(wire::NamingHealth {
                results: results.iter().map(health_to_wire).collect(),
            }),
            Command::NamingServiceCreate { service, set } => {
                Wire::NamingServiceCreate(wire::NamingServiceCreate {
                    service: Some(service_key_to_wire(service)),
                    settings: Some(service_to_wire(set)),
                })
            }
            Command::NamingServicePut { service, set } => Wire::NamingServicePut(wire::NamingServicePut {
                service: Some(service_key_to_wire(service)),
                settings: Some(service_to_wire(set)),
            }),
            Command::NamingServiceRemove(service) => Wire::NamingServiceRemove(wire::NamingServiceRemove {
                service: Some(service_key_to_wire(service)),
            }),
            Command::NamingClusterPut {
                service,
                cluster,
                set,
                ephemeral,
            } => Wire::NamingClusterPut(wire::NamingClusterPut {
                service: Some(service_key_to_wire(service)),
                cluster: cluster.to_string(),
                settings: Some(cluster_to_wire(set)),
                ephemeral: *ephemeral,
            }),
            Command::NamingOverridePut {
                service,
                endpoints,
                patch,
            } => Wire::NamingOverridePut(override_put_to_wire(service, endpoints, patch)),
            Command::NamingSweep { services, overrides } => {
                Wire::NamingSweep(sweep_to_wire(services, overrides))
            }
            Command::NamingSwitchPut { name, value } => Wire::NamingSwitchPut(wire::NamingSwitchPut {
                name: name.to_string(),
                value: value.to_string(),
            }),
            _ => unreachable!("not a command of naming"),
        }
    }

    pub(super) fn naming_from_wire(command: wire::envelope::Command) -> Result<Command, CommandError> {
        use wire::envelope::Command as Wire;
        Ok(match command {
            Wire::NamingInstancePut(put) => Command::NamingInstancePut {
                service: service_key_from_wire(put.service)?,
                endpoint: endpoint_from_wire(put.endpoint)?,
                persistent: instance_from_wire(put.instance)?,
            },
            Wire::NamingInstanceRemove(remove) => Command::NamingInstanceRemove {
                service: service_key_from_wire(remove.service)?,
                endpoint: endpoint_from_wire(remove.endpoint)?,
            },
            Wire::NamingHealth(health) => Command::NamingHealth(each(health.results, health_from_wire)?),
            Wire::NamingServiceCreate(create) => Command::NamingServiceCreate {
                service: service_key_from_wire(create.service)?,
                set: service_from_wire(create.settings)?,
            },
            Wire::NamingServicePut(put) => Command::NamingServicePut {
                service: service_key_from_wire(put.service)?,
                set: service_from_wire(put.settings)?,
            },
            Wire::NamingServiceRemove(remove) => {
                Command::NamingServiceRemove(service_key_from_wire(remove.service)?)
            }
            Wire::NamingClusterPut(put) => Command::NamingClusterPut {
                service: service_key_from_wire(put.service)?,
                cluster: storable(&put.cluster)?.into(),
                set: cluster_from_wire(put.settings)?,
                ephemeral: put.ephemeral,
            },
            Wire::NamingOverridePut(put) => override_put_from_wire(put)?,
            Wire::NamingSweep(sweep) => Command::NamingSweep {
                services: each(sweep.services, |one| {
                    Ok((service_key_from_wire(one.service)?, Index(one.index)))
                })?,
                overrides: each(sweep.overrides, |one| {
                    let service = service_key_from_wire(one.service)?;
                    Ok((service, endpoint_from_wire(one.endpoint)?, Index(one.index)))
                })?,
            },
            Wire::NamingSwitchPut(put) if put.value.len() > NAMING_SWITCH_BYTES_MAX => {
                return Err(CommandError::Malformed("the value of a switch is too long"));
            }
            Wire::NamingSwitchPut(put) => Command::NamingSwitchPut {
                name: storable(&put.name)?.into(),
                value: put.value.into(),
            },
            _ => return Err(CommandError::Kind),
        })
    }
}

/// Takes a list that is not longer than it may be.
fn each<W, T>(list: Vec<W>, one: impl Fn(W) -> Result<T, CommandError>) -> Result<Vec<T>, CommandError> {
    if list.len() > NAMING_BATCH_MAX {
        return Err(CommandError::Malformed("too many of naming in a batch"));
    }
    list.into_iter().map(one).collect()
}

fn override_put_to_wire(
    service: &ServiceKey,
    endpoints: &[Endpoint],
    patch: &OverridePatch,
) -> wire::NamingOverridePut {
    use wire::naming_override_put::Metadata as Wire;
    let pairs = |metadata: &Metadata| wire::Metadata {
        pairs: metadata_to_wire(metadata),
    };
    wire::NamingOverridePut {
        service: Some(service_key_to_wire(service)),
        endpoints: endpoints.iter().map(endpoint_to_wire).collect(),
        weight: patch.weight,
        enabled: patch.enabled,
        metadata: match &patch.metadata {
            MetadataPatch::Keep => None,
            MetadataPatch::Set(metadata) => Some(Wire::Set(pairs(metadata))),
            MetadataPatch::Merge(metadata) => Some(Wire::Merge(pairs(metadata))),
            MetadataPatch::Remove(names) => Some(Wire::Remove(wire::Names {
                names: names.iter().map(|name| name.to_string()).collect(),
            })),
        },
    }
}

fn override_put_from_wire(put: wire::NamingOverridePut) -> Result<Command, CommandError> {
    use wire::naming_override_put::Metadata as Wire;
    let weight = put.weight.map(weight_from_wire).transpose()?;
    let metadata = match put.metadata {
        None => MetadataPatch::Keep,
        Some(Wire::Set(metadata)) => MetadataPatch::Set(metadata_from_wire(metadata.pairs)),
        Some(Wire::Merge(metadata)) => MetadataPatch::Merge(metadata_from_wire(metadata.pairs)),
        Some(Wire::Remove(names)) => {
            MetadataPatch::Remove(names.names.into_iter().map(String::into_boxed_str).collect())
        }
    };
    Ok(Command::NamingOverridePut {
        service: service_key_from_wire(put.service)?,
        endpoints: each(put.endpoints, |endpoint| endpoint_from_wire(Some(endpoint)))?,
        patch: OverridePatch {
            weight,
            enabled: put.enabled,
            metadata,
        },
    })
}

fn sweep_to_wire(
    services: &[(ServiceKey, Index)],
    overrides: &[(ServiceKey, Endpoint, Index)],
) -> wire::NamingSweep {
    let services = services.iter().map(|(service, index)| wire::SweptService {
        service: Some(service_key_to_wire(service)),
        index: index.0,
    });
    let overrides = overrides
        .iter()
        .map(|(service, endpoint, index)| wire::SweptOverride {
            service: Some(service_key_to_wire(service)),
            endpoint: Some(endpoint_to_wire(endpoint)),
            index: index.0,
        });
    wire::NamingSweep {
        services: services.collect(),
        overrides: overrides.collect(),
    }
}

fn health_to_wire((service, endpoint, healthy): &(ServiceKey, Endpoint, bool)) -> wire::HealthResult {
    wire::HealthResult {
        service: Some(service_key_to_wire(service)),
        endpoint: Some(endpoint_to_wire(endpoint)),
        healthy: *healthy,
    }
}

fn health_from_wire(result: wire::HealthResult) -> Result<(ServiceKey, Endpoint, bool), CommandError> {
    let service = service_key_from_wire(result.service)?;
    Ok((service, endpoint_from_wire(result.endpoint)?, result.healthy))
}

fn service_key_to_wire(service: &ServiceKey) -> wire::ServiceKey {
    wire::ServiceKey {
        namespace: service.namespace().into(),
        group: service.group().into(),
        name: service.name().into(),
    }
}

fn service_key_from_wire(key: Option<wire::ServiceKey>) -> Result<ServiceKey, CommandError> {
    let key = key.ok_or(CommandError::Malformed("a service is missing"))?;
    let key = ServiceKey::new(&NamespaceId::new(&key.namespace), &key.group, &key.name);
    if key.is_storable() && key.as_bytes().len() <= KEY_BYTES_MAX {
        Ok(key)
    } else {
        Err(CommandError::Malformed("a service is not possible"))
    }
}

fn endpoint_to_wire(endpoint: &Endpoint) -> wire::Endpoint {
    wire::Endpoint {
        ip: endpoint.ip.to_string(),
        port: endpoint.port.into(),
        cluster: endpoint.cluster.to_string(),
    }
}

fn endpoint_from_wire(endpoint: Option<wire::Endpoint>) -> Result<Endpoint, CommandError> {
    let endpoint = endpoint.ok_or(CommandError::Malformed("an endpoint is missing"))?;
    Ok(Endpoint {
        ip: storable(&endpoint.ip)?.into(),
        port: port_from_wire(endpoint.port)?,
        cluster: storable(&endpoint.cluster)?.into(),
    })
}

/// A text that may be a part of a row's key.
fn storable(text: &str) -> Result<&str, CommandError> {
    let possible = !text.is_empty() && !text.contains('\0') && text.len() <= KEY_BYTES_MAX;
    possible
        .then_some(text)
        .ok_or(CommandError::Malformed("a name is not possible"))
}

fn port_from_wire(port: u32) -> Result<u16, CommandError> {
    u16::try_from(port).map_err(|_cause| CommandError::Malformed("a port is not possible"))
}

/// Weights are compared and summed up: what is no number would be equal to nothing, itself included.
fn weight_from_wire(weight: f64) -> Result<f64, CommandError> {
    if weight.is_finite() && weight >= 0.0 {
        Ok(weight)
    } else {
        Err(CommandError::Malformed("a weight is not possible"))
    }
}

pub(in crate::state) fn metadata_to_wire(metadata: &Metadata) -> Pairs {
    metadata
        .iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

pub(in crate::state) fn metadata_from_wire(pairs: Pairs) -> Metadata {
    pairs.into_iter().collect()
}

pub(in crate::state) fn instance_to_wire(persistent: &Persistent) -> wire::Instance {
    let instance = &persistent.instance;
    wire::Instance {
        weight: instance.weight,
        enabled: instance.enabled,
        metadata: metadata_to_wire(&instance.metadata),
        healthy: persistent.healthy,
    }
}

pub(in crate::state) fn instance_from_wire(
    instance: Option<wire::Instance>,
) -> Result<Persistent, CommandError> {
    let instance = instance.ok_or(CommandError::Malformed("the instance is missing"))?;
    Ok(Persistent {
        instance: Arc::new(Instance {
            weight: weight_from_wire(instance.weight)?,
            enabled: instance.enabled,
            metadata: metadata_from_wire(instance.metadata),
        }),
        healthy: instance.healthy,
    })
}

pub(in crate::state) fn service_to_wire(set: &ServiceMetadata) -> wire::ServiceSettings {
    wire::ServiceSettings {
        ephemeral: set.ephemeral,
        protect_threshold: set.protect_threshold,
        selector: set.selector.to_string(),
        metadata: metadata_to_wire(&set.metadata),
    }
}

pub(in crate::state) fn service_from_wire(
    settings: Option<wire::ServiceSettings>,
) -> Result<ServiceMetadata, CommandError> {
    let settings = settings.ok_or(CommandError::Malformed("the settings are missing"))?;
    if !settings.protect_threshold.is_finite() {
        return Err(CommandError::Malformed("a threshold is not possible"));
    }
    Ok(ServiceMetadata {
        ephemeral: settings.ephemeral,
        protect_threshold: settings.protect_threshold,
        selector: settings.selector.into(),
        metadata: metadata_from_wire(settings.metadata),
    })
}

pub(in crate::state) fn cluster_to_wire(set: &ClusterMetadata) -> wire::ClusterSettings {
    wire::ClusterSettings {
        check_port: set.check_port.into(),
        use_instance_port: set.use_instance_port,
        checker: set.checker.to_string(),
        metadata: metadata_to_wire(&set.metadata),
    }
}

pub(in crate::state) fn cluster_from_wire(
    settings: Option<wire::ClusterSettings>,
) -> Result<ClusterMetadata, CommandError> {
    let settings = settings.ok_or(CommandError::Malformed("the settings are missing"))?;
    Ok(ClusterMetadata {
        check_port: port_from_wire(settings.check_port)?,
        use_instance_port: settings.use_instance_port,
        checker: settings.checker.into(),
        metadata: metadata_from_wire(settings.metadata),
    })
}
