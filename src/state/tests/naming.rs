//! Naming in the state: against a naive model with random commands, and what is promised besides.

use std::collections::BTreeMap;
use std::sync::Arc;

use raft::Index;

use super::support::{Node, Random};
use super::{run, workload};
use crate::model::{Endpoint, NamespaceId, ServiceKey};
use crate::naming::{
    ClusterMetadata, Filter, Instance, InstanceOverride, Metadata, MetadataPatch, Origin, OverridePatch,
    Persistent, Refusal, Registry, Replicated, ServiceMetadata, StampClock, View,
};
use crate::state::{Applied, Command, Event, OVERRIDE_TEXT_MAX, Outcome, ReadError};

fn service(name: &str) -> ServiceKey {
    ServiceKey::new(&NamespaceId::new("dev"), "g", name)
}

fn at(port: u16) -> Endpoint {
    Endpoint::new("10.0.0.1", port, "c1")
}

fn some_service(random: &mut Random) -> ServiceKey {
    let namespace = NamespaceId::new(random.word(&["", "dev"]));
    ServiceKey::new(&namespace, "g", random.word(&["a", "ab"]))
}

fn some_endpoint(random: &mut Random) -> Endpoint {
    let (ip, cluster) = (
        random.word(&["10.0.0.1", "10.0.0.11"]),
        random.word(&["c1", "c2"]),
    );
    Endpoint::new(ip, random.below(2) as u16, cluster)
}

fn some_metadata(random: &mut Random) -> Metadata {
    let pairs = (0..random.below(3)).map(|_| (random.word(&["x", "y", "z"]), random.word(&["1", "2"])));
    pairs.collect()
}

fn some_settings(random: &mut Random) -> ServiceMetadata {
    ServiceMetadata {
        ephemeral: random.once_in(3),
        protect_threshold: *random.pick(&[0.0, 0.5]),
        selector: random.word(&["", "{}"]).into(),
        metadata: some_metadata(random),
    }
}

fn some_persistent(random: &mut Random) -> Persistent {
    Persistent {
        instance: Arc::new(Instance {
            weight: *random.pick(&[0.0, 1.0, 2.5]),
            enabled: !random.once_in(5),
            metadata: some_metadata(random),
        }),
        healthy: !random.once_in(4),
    }
}

fn some_patch(random: &mut Random) -> OverridePatch {
    OverridePatch {
        weight: random.once_in(2).then_some(7.0),
        enabled: random.once_in(2).then_some(false),
        metadata: match random.below(4) {
            0 => MetadataPatch::Keep,
            1 => MetadataPatch::Set(some_metadata(random)),
            2 => MetadataPatch::Merge(some_metadata(random)),
            _ => MetadataPatch::Remove([Box::from(random.word(&["x", "y"]))].into()),
        },
    }
}

/// Draws a command over few names, so that they meet. `index` is about where the log stands.
pub(super) fn command(random: &mut Random, index: Index) -> Command {
    let seen = |random: &mut Random| Index(index.0.saturating_sub(random.below(30)));
    match random.below(15) {
        0..=3 => Command::NamingInstancePut {
            service: some_service(random),
            endpoint: some_endpoint(random),
            persistent: some_persistent(random),
        },
        4..=5 => Command::NamingInstanceRemove {
            service: some_service(random),
            endpoint: some_endpoint(random),
        },
        6 => Command::NamingHealth(
            (0..random.below(5))
                .map(|_| (some_service(random), some_endpoint(random), random.once_in(2)))
                .collect(),
        ),
        7 => Command::NamingServiceCreate {
            service: some_service(random),
            set: some_settings(random),
        },
        8 => Command::NamingServicePut {
            service: some_service(random),
            set: some_settings(random),
        },
        9 => Command::NamingServiceRemove(some_service(random)),
        10 => Command::NamingClusterPut {
            service: some_service(random),
            cluster: random.word(&["c1", "c2"]).into(),
            set: ClusterMetadata {
                check_port: random.below(3) as u16,
                use_instance_port: random.once_in(2),
                checker: "{}".into(),
                metadata: some_metadata(random),
            },
            ephemeral: random.once_in(2),
        },
        13 => Command::NamingSwitchPut {
            name: random.word(&["check", "distro"]).into(),
            value: random.word(&["true", "false", ""]).into(),
        },
        11..=12 => Command::NamingOverridePut {
            service: some_service(random),
            endpoints: (0..random.below(3)).map(|_| some_endpoint(random)).collect(),
            patch: some_patch(random),
        },
        _ => Command::NamingSweep {
            services: (0..random.below(3))
                .map(|_| (some_service(random), seen(random)))
                .collect(),
            overrides: (0..random.below(3))
                .map(|_| (some_service(random), some_endpoint(random), seen(random)))
                .collect(),
        },
    }
}

/// Plain maps, written as the contract reads.
#[derive(Default)]
struct Model {
    services: BTreeMap<ServiceKey, (ServiceMetadata, Index)>,
    clusters: BTreeMap<(ServiceKey, Arc<str>), ClusterMetadata>,
    instances: BTreeMap<(ServiceKey, Endpoint), Persistent>,
    overrides: BTreeMap<(ServiceKey, Endpoint), (InstanceOverride, Index)>,
    switches: BTreeMap<Box<str>, Box<str>>,
}

impl Model {
    fn has_instances(&self, service: &ServiceKey) -> bool {
        self.instances.keys().any(|(other, _)| other == service)
    }

    fn is_for(&self, service: &ServiceKey, ephemeral: bool) -> bool {
        match self.services.get(service) {
            Some((set, _)) => set.ephemeral == ephemeral,
            None => !ephemeral || !self.has_instances(service),
        }
    }

    fn forget(&mut self, service: &ServiceKey) {
        self.services.remove(service);
        self.clusters.retain(|(other, _), _| other != service);
        self.overrides.retain(|(other, _), _| other != service);
    }

    fn apply(&mut self, command: Command, index: Index) -> Outcome {
        match command {
            Command::NamingInstancePut { service, .. } if !self.is_for(&service, false) => {
                return Outcome::NamingRefused(Refusal::WrongKind);
            }
            Command::NamingInstancePut {
                service,
                endpoint,
                persistent,
            } => {
                self.instances.insert((service, endpoint), persistent);
            }
            Command::NamingInstanceRemove { service, endpoint } => {
                let gone = self.instances.remove(&(service, endpoint));
                return Outcome::NamingChanged(gone.is_some().into());
            }
            Command::NamingHealth(results) => {
                let mut changed = 0;
                for (service, endpoint, healthy) in results {
                    if let Some(there) = self.instances.get_mut(&(service, endpoint)) {
                        changed += u32::from(there.healthy != healthy);
                        there.healthy = healthy;
                    }
                }
                return Outcome::NamingChanged(changed);
            }
            Command::NamingServiceCreate { service, set } => {
                if self.services.contains_key(&service) || self.has_instances(&service) {
                    return Outcome::NamingRefused(Refusal::Exists);
                }
                self.services.insert(service, (set, index));
            }
            Command::NamingServicePut { service, mut set } => {
                if let Some((before, _)) = self.services.get(&service) {
                    set.ephemeral = before.ephemeral;
                } else if !self.is_for(&service, set.ephemeral) {
                    return Outcome::NamingRefused(Refusal::WrongKind);
                }
                self.services.insert(service, (set, index));
            }
            Command::NamingServiceRemove(service) => {
                if self.has_instances(&service) {
                    return Outcome::NamingRefused(Refusal::NotEmpty);
                }
                if !self.services.contains_key(&service) {
                    return Outcome::NamingRefused(Refusal::Missing);
                }
                self.forget(&service);
            }
            Command::NamingClusterPut {
                service,
                cluster,
                set,
                ephemeral,
            } => {
                if !self.services.contains_key(&service) && !self.is_for(&service, ephemeral) {
                    return Outcome::NamingRefused(Refusal::WrongKind);
                }
                let plain = ServiceMetadata {
                    ephemeral,
                    ..ServiceMetadata::default()
                };
                let settings = self.services.entry(service.clone()).or_insert((plain, index));
                settings.1 = index;
                self.clusters.insert((service, cluster), set);
            }
            Command::NamingOverridePut {
                service,
                endpoints,
                patch,
            } => {
                for endpoint in endpoints {
                    let place = (service.clone(), endpoint);
                    let before = self.overrides.remove(&place).unwrap_or_default().0;
                    let after = before.patched(&patch);
                    if after != InstanceOverride::default() {
                        self.overrides.insert(place, (after, index));
                    }
                }
            }
            Command::NamingSweep { services, overrides } => {
                let mut changed = 0;
                for (service, seen) in services {
                    let untouched = self.services.get(&service).is_some_and(|(_, at)| *at <= seen);
                    if untouched && !self.has_instances(&service) {
                        self.forget(&service);
                        changed += 1;
                    }
                }
                for (service, endpoint, seen) in overrides {
                    let place = (service, endpoint);
                    if self.overrides.get(&place).is_some_and(|(_, at)| *at <= seen) {
                        self.overrides.remove(&place);
                        changed += 1;
                    }
                }
                return Outcome::NamingChanged(changed);
            }
            Command::NamingSwitchPut { name, value } => {
                self.switches.insert(name, value);
            }
            other => panic!("not of naming: {other:?}"),
        }
        Outcome::NamingDone
    }

    /// In the order in which the state tells them.
    fn rows(&self) -> Vec<Replicated> {
        let mut rows = Vec::new();
        for (service, (set, _)) in &self.services {
            rows.push(Replicated::Service {
                service: service.clone(),
                set: Some(set.clone()),
            });
        }
        for ((service, cluster), set) in &self.clusters {
            rows.push(Replicated::Cluster {
                service: service.clone(),
                cluster: cluster.clone(),
                set: Some(set.clone()),
            });
        }
        for ((service, endpoint), (set, _)) in &self.overrides {
            rows.push(Replicated::Override {
                service: service.clone(),
                endpoint: endpoint.clone(),
                set: Some(set.clone()),
            });
        }
        for ((service, endpoint), set) in &self.instances {
            rows.push(Replicated::Instance {
                service: service.clone(),
                endpoint: endpoint.clone(),
                set: Some(set.clone()),
            });
        }
        rows
    }
}

fn rows(node: &Node) -> Vec<Replicated> {
    let mut rows = Vec::new();
    let index = node.reader().for_each_of_naming(|row| rows.push(row));
    assert_eq!(index.expect("reads"), node.reader().applied());
    rows
}

fn registry() -> Registry {
    Registry::new(Origin { node: 1, boot: 1 }, StampClock::new(1_000, 0))
}

fn feed(registry: &mut Registry, events: &[Event]) {
    for event in events {
        if let Event::NamingChanged { change, .. } = event {
            registry.feed(0, change);
        }
    }
}

/// What everybody sees, without the stamps.
fn seen(registry: &Registry) -> BTreeMap<ServiceKey, (View, crate::naming::Overlay)> {
    let all = Filter {
        with_disabled: true,
        ..Filter::default()
    };
    let known = registry.services(None).map(|(service, _)| service.clone());
    let mut seen: BTreeMap<_, _> = known
        .map(|service| {
            let view = registry.view(&service, &all).expect("known");
            let overlay = registry.overlay(&service).expect("known").clone();
            let plain = View {
                stamp: Default::default(),
                ..view
            };
            (service, (plain, overlay))
        })
        .collect();
    seen.retain(|_, (view, overlay)| !view.hosts.is_empty() || *overlay != Default::default());
    seen
}

#[test]
fn random_commands_do_what_the_contract_says_and_a_registry_follows() {
    for seed in 200..212 {
        let (mut node, mut log) = Node::with_session();
        let (mut model, mut random) = (Model::default(), Random(seed));
        let mut following = registry();
        for round in 0..30 {
            let (mut entries, mut expected) = (Vec::new(), Vec::new());
            for _ in 0..1 + random.below(20) {
                let command = command(&mut random, log.last_index());
                let entry = log.command(command.clone());
                expected.push(model.apply(command, entry.index()));
                entries.push(entry);
            }
            let done = node.state_mut().apply(&entries).expect("applies");
            let outcomes: Vec<_> = done.applied.iter().map(|applied| applied.outcome).collect();
            assert_eq!(outcomes, expected, "seed {seed} round {round}");
            assert_eq!(rows(&node), model.rows(), "seed {seed} round {round}");
            compare_points(&node, &model, seed);
            feed(&mut following, &done.events);
            let mut loaded = registry();
            loaded.feed_all(0, rows(&node));
            assert_eq!(seen(&following), seen(&loaded), "seed {seed} round {round}");
        }
        node = node.restart(&log);
        assert_eq!(rows(&node), model.rows(), "seed {seed} after a restart");
        // A registry with the state of another time takes over the one of now.
        let mut older = registry();
        let (mut other, mut other_log) = Node::with_session();
        workload::run(&mut other, &mut other_log, seed, 100);
        older.feed_all(0, rows(&other));
        older.feed_all(1, rows(&node));
        assert_eq!(seen(&older), seen(&following), "seed {seed}");
    }
}

fn compare_points(node: &Node, model: &Model, seed: u64) {
    let reader = node.reader();
    let services = model.services.iter();
    let services: Vec<_> = services.map(|(key, (_, index))| (key.clone(), *index)).collect();
    assert_eq!(reader.naming_services().expect("reads"), services, "seed {seed}");
    let overrides = model.overrides.iter();
    let overrides: Vec<_> = overrides
        .map(|((key, endpoint), (_, index))| (key.clone(), endpoint.clone(), *index))
        .collect();
    assert_eq!(
        reader.naming_overrides().expect("reads"),
        overrides,
        "seed {seed}"
    );
    let mut random = Random(seed);
    for _ in 0..5 {
        let (service, endpoint) = (some_service(&mut random), some_endpoint(&mut random));
        let place = (service.clone(), endpoint.clone());
        let set = reader.naming_service(&service).expect("reads");
        assert_eq!(set.as_ref(), model.services.get(&service), "seed {seed}");
        let instance = reader.naming_instance(&service, &endpoint).expect("reads");
        assert_eq!(instance.as_ref(), model.instances.get(&place), "seed {seed}");
        let set = reader.naming_override(&service, &endpoint).expect("reads");
        assert_eq!(set.as_ref(), model.overrides.get(&place), "seed {seed}");
    }
}

#[test]
fn events_are_told_once_for_each_change_in_log_order() {
    let (mut node, mut log) = Node::with_session();
    let persistent = |healthy| Persistent {
        instance: Arc::new(Instance::default()),
        healthy,
    };
    let put = |healthy| Command::NamingInstancePut {
        service: service("s"),
        endpoint: at(1),
        persistent: persistent(healthy),
    };
    let entries = [
        log.command(put(true)),
        log.command(put(true)),
        log.command(Command::NamingHealth(vec![
            (service("s"), at(1), false),
            (service("s"), at(2), false),
        ])),
        log.command(Command::NamingInstanceRemove {
            service: service("s"),
            endpoint: at(1),
        }),
        log.command(Command::NamingInstanceRemove {
            service: service("s"),
            endpoint: at(1),
        }),
    ];
    let done = node.state_mut().apply(&entries).expect("applies");
    let event = |entry: usize, set| Event::NamingChanged {
        change: Replicated::Instance {
            service: service("s"),
            endpoint: at(1),
            set,
        },
        index: entries[entry].index(),
    };
    assert_eq!(
        done.events,
        [
            event(0, Some(persistent(true))),
            event(2, Some(persistent(false))),
            event(3, None)
        ]
    );
    let outcomes = |applied: Vec<Applied>| applied.into_iter().map(|one| one.outcome).collect::<Vec<_>>();
    assert_eq!(
        outcomes(done.applied),
        [
            Outcome::NamingDone,
            Outcome::NamingDone,
            Outcome::NamingChanged(1),
            Outcome::NamingChanged(1),
            Outcome::NamingChanged(0)
        ]
    );
}

#[test]
fn a_service_changed_after_the_sweeper_looked_stays() {
    let (mut node, mut log) = Node::with_session();
    let create = Command::NamingServiceCreate {
        service: service("s"),
        set: ServiceMetadata::default(),
    };
    assert_eq!(run(&mut node, &mut log, create), Outcome::NamingDone);
    let (_, looked) = node
        .reader()
        .naming_service(&service("s"))
        .expect("reads")
        .expect("there");
    assert_eq!(looked, log.last_index());
    let cluster = Command::NamingClusterPut {
        service: service("s"),
        cluster: "c1".into(),
        set: ClusterMetadata {
            check_port: 80,
            use_instance_port: true,
            checker: "{}".into(),
            metadata: Metadata::default(),
        },
        ephemeral: false,
    };
    assert_eq!(run(&mut node, &mut log, cluster), Outcome::NamingDone);
    let sweep = |index| Command::NamingSweep {
        services: vec![(service("s"), index)],
        overrides: vec![],
    };
    assert_eq!(run(&mut node, &mut log, sweep(looked)), Outcome::NamingChanged(0));
    let now = log.last_index();
    assert_eq!(run(&mut node, &mut log, sweep(now)), Outcome::NamingChanged(1));
    assert_eq!(rows(&node), [], "its cluster is gone with it");
}

#[test]
fn what_is_set_for_an_instance_is_bounded_and_a_patch_is_for_all_or_none() {
    let (mut node, mut log) = Node::with_session();
    let big = "v".repeat(OVERRIDE_TEXT_MAX / 2);
    let patch = |name: &str, endpoints: Vec<Endpoint>| Command::NamingOverridePut {
        service: service("s"),
        endpoints,
        patch: OverridePatch {
            metadata: MetadataPatch::Merge([(name, big.as_str())].into_iter().collect()),
            ..OverridePatch::default()
        },
    };
    assert_eq!(
        run(&mut node, &mut log, patch("a", vec![at(1)])),
        Outcome::NamingDone
    );
    let before = rows(&node);
    assert_eq!(
        run(&mut node, &mut log, patch("b", vec![at(2), at(1)])),
        Outcome::NamingRefused(Refusal::TooLarge)
    );
    assert_eq!(rows(&node), before);
}

#[test]
fn a_deleted_namespace_keeps_its_services() {
    let (mut node, mut log) = Node::with_session();
    let create = Command::NamingServiceCreate {
        service: service("s"),
        set: ServiceMetadata::default(),
    };
    assert_eq!(run(&mut node, &mut log, create), Outcome::NamingDone);
    let wanted = crate::namespace::Wanted {
        id: NamespaceId::new("dev"),
        name: "Dev".into(),
        description: String::new(),
        now_ms: 1,
    };
    let create = Command::NamespaceCreate(wanted);
    assert_eq!(run(&mut node, &mut log, create), Outcome::NamespaceDone);
    let delete = Command::NamespaceDelete(NamespaceId::new("dev"));
    assert_eq!(run(&mut node, &mut log, delete), Outcome::NamespaceDone);
    assert_eq!(rows(&node).len(), 1);
}

/// A row that cannot be read is told by whoever needs it, and stops what would have to guess.
#[test]
fn a_damaged_row_is_told_and_applying_stops_at_it() {
    use crate::state::rows::naming as tables;
    let (mut node, mut log) = Node::with_session();
    let key = tables::endpoint_key(&service("s"), &at(1));
    let noop = log.entry(raft::EntryKind::Noop, bytes::Bytes::new());
    let mut batch = node.state().tables().batch();
    batch.put(tables::INSTANCES, &key, &b"\xff\xff"[..]);
    let (id, checksum) = (noop.id, noop.checksum);
    batch.commit(raft::LogBase { id, checksum }).expect("commits");
    node.state_mut().reload().expect("nobody needs the row yet");
    let reader = node.reader();
    assert!(matches!(
        reader.naming_instance(&service("s"), &at(1)),
        Err(ReadError::Row(_))
    ));
    let read = reader.for_each_of_naming(drop);
    let error = read.expect_err("the row is damaged").to_string();
    assert!(error.contains("naming instances"), "{error}");
    let put = log.command(Command::NamingInstanceRemove {
        service: service("s"),
        endpoint: at(1),
    });
    let before = node.rows();
    let fault = node
        .state_mut()
        .apply(&[put])
        .expect_err("it would have to guess");
    assert!(fault.to_string().contains("naming instances"), "{fault}");
    assert_eq!(node.rows(), before);
}
