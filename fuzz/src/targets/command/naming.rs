//! Commands of naming.

use std::sync::Arc;

use raft::Index;
use rnacos::model::{Endpoint, NamespaceId, ServiceKey};
use rnacos::naming::{
    ClusterMetadata, Instance, Metadata, MetadataPatch, OverridePatch, Persistent, ServiceMetadata,
};
use rnacos::state::{Command, NAMING_BATCH_MAX};

use crate::input::Input;

/// Kinds of commands that [`command`] makes.
pub(super) const KINDS: usize = 10;

/// A service that a command names, and what of it.
#[derive(Debug)]
pub(super) struct Place<'a>(&'a ServiceKey, Vec<&'a str>);

impl Place<'_> {
    /// All names may stand in the key of a row, and the service comes back from there.
    pub(super) fn is_storable(&self) -> bool {
        let Place(service, names) = self;
        // A group that ends with half a joint reads back as another one: such a key is not storable.
        let whole = ServiceKey::from_bytes(service.as_bytes());
        let same = whole.is_some_and(|whole| whole.group() == service.group());
        assert_eq!(same, service.is_storable(), "{service}");
        service.is_storable() && names.iter().all(|name| !name.is_empty() && !name.contains('\0'))
    }
}

/// What a command names.
pub(super) fn places(command: &Command) -> Vec<Place<'_>> {
    fn place<'a>(service: &'a ServiceKey, endpoint: &'a Endpoint) -> Place<'a> {
        Place(service, vec![&endpoint.ip, &endpoint.cluster])
    }
    match command {
        Command::NamingInstancePut {
            service, endpoint, ..
        }
        | Command::NamingInstanceRemove { service, endpoint } => vec![place(service, endpoint)],
        Command::NamingHealth(results) => {
            assert!(results.len() <= NAMING_BATCH_MAX);
            let results = results.iter();
            results
                .map(|(service, endpoint, _)| place(service, endpoint))
                .collect()
        }
        Command::NamingServiceCreate { service, .. }
        | Command::NamingServicePut { service, .. }
        | Command::NamingServiceRemove(service) => vec![Place(service, vec![])],
        Command::NamingClusterPut { service, cluster, .. } => vec![Place(service, vec![cluster])],
        Command::NamingOverridePut {
            service, endpoints, ..
        } => {
            assert!(endpoints.len() <= NAMING_BATCH_MAX);
            let endpoints = endpoints.iter().map(|endpoint| place(service, endpoint));
            endpoints.chain([Place(service, vec![])]).collect()
        }
        Command::NamingSweep { services, overrides } => {
            assert!(services.len() <= NAMING_BATCH_MAX && overrides.len() <= NAMING_BATCH_MAX);
            let services = services.iter().map(|(service, _)| Place(service, vec![]));
            let overrides = overrides
                .iter()
                .map(|(service, endpoint, _)| place(service, endpoint));
            services.chain(overrides).collect()
        }
        _ => Vec::new(),
    }
}

/// False for weights and thresholds that are none.
pub(super) fn numbers_are_possible(command: &Command) -> bool {
    let weight = |weight: f64| weight.is_finite() && weight >= 0.0;
    match command {
        Command::NamingInstancePut { persistent, .. } => weight(persistent.instance.weight),
        Command::NamingServiceCreate { set, .. } | Command::NamingServicePut { set, .. } => {
            set.protect_threshold.is_finite()
        }
        Command::NamingOverridePut { patch, .. } => patch.weight.is_none_or(weight),
        _ => true,
    }
}

/// A command of this kind.
pub(super) fn command(kind: usize, input: &mut Input<'_>) -> Command {
    match kind {
        0 => Command::NamingInstancePut {
            service: service(input),
            endpoint: endpoint(input),
            persistent: Persistent {
                instance: Arc::new(Instance {
                    weight: weight(input),
                    enabled: input.flag(),
                    metadata: metadata(input),
                }),
                healthy: input.flag(),
            },
        },
        1 => Command::NamingInstanceRemove {
            service: service(input),
            endpoint: endpoint(input),
        },
        2 => Command::NamingHealth(
            (0..input.below(4))
                .map(|_| (service(input), endpoint(input), input.flag()))
                .collect(),
        ),
        3 => Command::NamingServiceCreate {
            service: service(input),
            set: settings(input),
        },
        4 => Command::NamingServicePut {
            service: service(input),
            set: settings(input),
        },
        5 => Command::NamingServiceRemove(service(input)),
        6 => Command::NamingClusterPut {
            service: service(input),
            cluster: input.text().into(),
            set: ClusterMetadata {
                check_port: input.u16(),
                use_instance_port: input.flag(),
                checker: input.text().into(),
                metadata: metadata(input),
            },
            ephemeral: input.flag(),
        },
        7 => Command::NamingOverridePut {
            service: service(input),
            endpoints: (0..input.below(4)).map(|_| endpoint(input)).collect(),
            patch: OverridePatch {
                weight: input.flag().then(|| weight(input)),
                enabled: input.flag().then(|| input.flag()),
                metadata: match input.below(4) {
                    0 => MetadataPatch::Keep,
                    1 => MetadataPatch::Set(metadata(input)),
                    2 => MetadataPatch::Merge(metadata(input)),
                    _ => MetadataPatch::Remove((0..input.below(4)).map(|_| input.text().into()).collect()),
                },
            },
        },
        8 => Command::NamingSwitchPut {
            name: input.text().into(),
            value: input.text().into(),
        },
        _ => Command::NamingSweep {
            services: (0..input.below(4))
                .map(|_| (service(input), Index(input.number())))
                .collect(),
            overrides: (0..input.below(4))
                .map(|_| (service(input), endpoint(input), Index(input.number())))
                .collect(),
        },
    }
}

fn service(input: &mut Input<'_>) -> ServiceKey {
    let namespace = NamespaceId::new(&input.text());
    let (group, name) = (input.text(), input.text());
    if input.flag() {
        return ServiceKey::new(&namespace, "DEFAULT_GROUP", "orders");
    }
    ServiceKey::new(&namespace, &group, &name)
}

fn endpoint(input: &mut Input<'_>) -> Endpoint {
    Endpoint::new(&input.text(), input.u16(), &input.text())
}

fn weight(input: &mut Input<'_>) -> f64 {
    f64::from_bits(input.u64())
}

fn metadata(input: &mut Input<'_>) -> Metadata {
    (0..input.below(4))
        .map(|_| (input.text(), input.text()))
        .collect()
}

fn settings(input: &mut Input<'_>) -> ServiceMetadata {
    ServiceMetadata {
        ephemeral: input.flag(),
        protect_threshold: weight(input),
        selector: input.text().into(),
        metadata: metadata(input),
    }
}
