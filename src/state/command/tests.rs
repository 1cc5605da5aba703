//! The bytes of commands: round trips, damage, and a fixture that must be readable for ever.

use super::*;
use crate::naming::{Instance, Metadata, MetadataPatch};

/// Every kind of command with every field set, by name.
fn all() -> Vec<(&'static str, Command)> {
    let key = ConfigKey::new(&NamespaceId::new("dev"), "DEFAULT_GROUP", "app.yaml");
    let origin = Origin {
        now_ms: 1_763_802_000_123,
        user: "nacos".into(),
        ip: "10.0.0.7".into(),
        message: "because".into(),
        history_max: 100,
    };
    let full = Publish {
        kind: ConfigType::Yaml,
        app_name: Some("app".into()),
        tags: Some(vec!["a".into(), "b".into()]),
        description: "desc".into(),
        purpose: "use".into(),
        effect: "effect".into(),
        schema: "schema".into(),
        encrypted_data_key: "key".into(),
        expectation: Expectation::Md5(Md5::of(b"before")),
        ..Publish::new(key.clone(), "a: 1", origin.clone())
    };
    let wanted = Wanted {
        id: NamespaceId::new("dev"),
        name: "Dev".into(),
        description: "d".into(),
        now_ms: 1_763_802_000_123,
    };
    let removal = Removal {
        key: key.clone(),
        variant: None,
        origin: origin.clone(),
    };
    vec![
        ("open-session", Command::OpenSession),
        ("put-full", Command::ConfigPut(Box::new(full.clone()))),
        (
            "put-plain",
            Command::ConfigPut(Box::new(Publish::new(key.clone(), "x", Origin::default()))),
        ),
        (
            "put-no-tags",
            Command::ConfigPut(Box::new(Publish {
                tags: Some(vec![]),
                ..full.clone()
            })),
        ),
        (
            "put-beta",
            Command::ConfigPut(Box::new(Publish {
                variant: Variant::beta("10.0.0.1,10.0.0.2"),
                ..full
            })),
        ),
        ("remove", Command::ConfigRemove(removal.clone())),
        (
            "remove-tag",
            Command::ConfigRemove(Removal {
                variant: Some("tag_t1".into()),
                ..removal
            }),
        ),
        (
            "remove-batch",
            Command::ConfigRemoveBatch {
                configs: vec![(key.clone(), ConfigId(4_096)), (key, ConfigId(7))],
                origin,
            },
        ),
        ("namespace-create", Command::NamespaceCreate(wanted.clone())),
        ("namespace-update", Command::NamespaceUpdate(wanted)),
        (
            "namespace-delete",
            Command::NamespaceDelete(NamespaceId::new("dev")),
        ),
        (
            "trim-history",
            Command::TrimHistory {
                before_ms: 1_763_000_000_000,
                rows_max: 1_000,
            },
        ),
        ("raise-feature-level", Command::RaiseFeatureLevel(1)),
    ]
    .into_iter()
    .chain(of_naming())
    .collect()
}

/// Those of naming.
fn of_naming() -> Vec<(&'static str, Command)> {
    let service = ServiceKey::new(&NamespaceId::new("dev"), "DEFAULT_GROUP", "orders");
    let endpoint = Endpoint::new("10.0.0.7", 8_080, "c1");
    let metadata: Metadata = [("a", "1"), ("b", "")].into_iter().collect();
    let settings = ServiceMetadata {
        ephemeral: false,
        protect_threshold: 0.5,
        selector: "{\"type\":\"none\"}".into(),
        metadata: metadata.clone(),
    };
    let patch = |metadata| Command::NamingOverridePut {
        service: service.clone(),
        endpoints: vec![endpoint.clone(), Endpoint::new("10.0.0.8", 0, "")],
        patch: OverridePatch {
            weight: Some(2.5),
            enabled: Some(false),
            metadata,
        },
    };
    vec![
        (
            "naming-instance-put",
            Command::NamingInstancePut {
                service: service.clone(),
                endpoint: endpoint.clone(),
                persistent: Persistent {
                    instance: Arc::new(Instance {
                        weight: 3.0,
                        enabled: true,
                        metadata: metadata.clone(),
                    }),
                    healthy: true,
                },
            },
        ),
        (
            "naming-instance-remove",
            Command::NamingInstanceRemove {
                service: service.clone(),
                endpoint: endpoint.clone(),
            },
        ),
        (
            "naming-health",
            Command::NamingHealth(vec![
                (service.clone(), endpoint.clone(), true),
                (service.clone(), Endpoint::new("10.0.0.8", 1, ""), false),
            ]),
        ),
        (
            "naming-service-create",
            Command::NamingServiceCreate {
                service: service.clone(),
                set: settings.clone(),
            },
        ),
        (
            "naming-service-put",
            Command::NamingServicePut {
                service: service.clone(),
                set: ServiceMetadata {
                    ephemeral: true,
                    ..settings
                },
            },
        ),
        (
            "naming-service-remove",
            Command::NamingServiceRemove(service.clone()),
        ),
        (
            "naming-cluster-put",
            Command::NamingClusterPut {
                service: service.clone(),
                cluster: "c1".into(),
                set: ClusterMetadata {
                    check_port: 80,
                    use_instance_port: true,
                    checker: "{\"type\":\"TCP\"}".into(),
                    metadata: metadata.clone(),
                },
                ephemeral: true,
            },
        ),
        ("naming-override-put", patch(MetadataPatch::Set(metadata.clone()))),
        ("naming-override-merge", patch(MetadataPatch::Merge(metadata))),
        (
            "naming-override-remove",
            patch(MetadataPatch::Remove([Box::from("a"), Box::from("b")].into())),
        ),
        (
            "naming-override-plain",
            Command::NamingOverridePut {
                service: service.clone(),
                endpoints: vec![],
                patch: OverridePatch::default(),
            },
        ),
        (
            "naming-sweep",
            Command::NamingSweep {
                services: vec![(service.clone(), Index(7))],
                overrides: vec![(service, endpoint, Index(9))],
            },
        ),
        (
            "naming-switch-put",
            Command::NamingSwitchPut {
                name: "check".into(),
                value: "false".into(),
            },
        ),
    ]
}

fn operation() -> OperationId {
    OperationId {
        node: NodeId(3),
        incarnation: Incarnation(0xdead_beef_0bad_cafe),
        boot: Boot(4),
        counter: 70_000,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn commands_come_back() {
    for (name, command) in all() {
        let bytes = command.encode(operation(), 69_000);
        let envelope = Envelope::decode(&bytes).expect(name);
        let expected = Envelope {
            operation: Some(operation()),
            low_watermark: 69_000,
            level: COMMAND_LEVEL,
            command: Ok(command),
        };
        assert_eq!(envelope, expected, "{name}");
    }
}

/// Logs and peers of an earlier version are read for ever: these bytes never change. A new kind of command
/// is added to the file with `REWRITE=1`; a line that is there must not differ afterwards.
#[test]
fn bytes_are_those_that_were_checked_in() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/state/command/fixtures/v1.txt");
    let fresh: String = all()
        .iter()
        .map(|(name, command)| format!("{name} {}\n", hex(&command.encode(operation(), 69_000))))
        .collect();
    if std::env::var_os("REWRITE").is_some() {
        std::fs::write(path, &fresh).expect("writes the fixture");
    }
    let checked_in = std::fs::read_to_string(path).expect("the fixture");
    assert_eq!(checked_in, fresh);
}

#[test]
fn every_cut_and_every_flipped_bit_is_an_answer_and_no_panic() {
    for (name, command) in all() {
        let bytes = command.encode(operation(), 69_000);
        for end in 0..bytes.len() {
            // Cut at a field's end it may still be an envelope; then it is only another command.
            if let Ok(envelope) = Envelope::decode(&bytes.slice(..end)) {
                assert_ne!(
                    (envelope.command, envelope.level),
                    (Ok(command.clone()), COMMAND_LEVEL),
                    "{name} {end}"
                );
            }
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            drop(Envelope::decode(&Bytes::from(flipped)));
        }
    }
}

#[test]
fn impossible_values_are_malformed() {
    let origin = Some(wire::Origin::default());
    let key = |data_id: &str| {
        Some(wire::ConfigKey {
            namespace: String::new(),
            group: "g".into(),
            data_id: data_id.into(),
        })
    };
    let put = wire::ConfigPut {
        key: key("d"),
        md5: Bytes::from_static(&[0; 16]),
        origin: origin.clone(),
        ..wire::ConfigPut::default()
    };
    assert!(publish_from_wire(put.clone()).is_ok());
    let long = "d".repeat(super::super::KEY_BYTES_MAX);
    let impossible = [
        wire::ConfigPut {
            key: None,
            ..put.clone()
        },
        wire::ConfigPut {
            key: key(""),
            ..put.clone()
        },
        wire::ConfigPut {
            key: key("a\0b"),
            ..put.clone()
        },
        wire::ConfigPut {
            key: key(&long),
            ..put.clone()
        },
        wire::ConfigPut {
            md5: Bytes::from_static(&[0; 15]),
            ..put.clone()
        },
        wire::ConfigPut {
            cas_md5: Some(Bytes::new()),
            ..put.clone()
        },
        wire::ConfigPut {
            origin: None,
            ..put.clone()
        },
        wire::ConfigPut {
            r#type: 99,
            ..put.clone()
        },
        wire::ConfigPut {
            content: Bytes::from_static(&[0xff]),
            ..put.clone()
        },
        wire::ConfigPut {
            variant: Some(wire::Variant::default()),
            ..put
        },
    ];
    for put in impossible {
        assert!(
            matches!(publish_from_wire(put.clone()), Err(CommandError::Malformed(_))),
            "{put:?}"
        );
    }
    let numbered = wire::Numbered { key: key("d"), id: 1 };
    let batch = wire::ConfigRemoveBatch {
        configs: vec![numbered; REMOVE_BATCH_MAX + 1],
        origin,
    };
    let batch = wire::envelope::Command::ConfigRemoveBatch(batch);
    assert!(matches!(
        Command::from_wire(batch),
        Err(CommandError::Malformed(_))
    ));
}

#[test]
fn impossible_values_of_naming_are_malformed() {
    use wire::envelope::Command as Wire;
    let service = wire::ServiceKey {
        namespace: String::new(),
        group: "g".into(),
        name: "s".into(),
    };
    let endpoint = wire::Endpoint {
        ip: "10.0.0.1".into(),
        port: 80,
        cluster: "c".into(),
    };
    let put = wire::NamingInstancePut {
        service: Some(service.clone()),
        endpoint: Some(endpoint.clone()),
        instance: Some(wire::Instance::default()),
    };
    let with_service = |service| wire::NamingInstancePut {
        service,
        ..put.clone()
    };
    let with_endpoint = |endpoint| wire::NamingInstancePut {
        endpoint,
        ..put.clone()
    };
    let with_weight = |weight| wire::NamingInstancePut {
        instance: Some(wire::Instance {
            weight,
            ..wire::Instance::default()
        }),
        ..put.clone()
    };
    let long = "s".repeat(super::super::KEY_BYTES_MAX);
    let name = |name: &str| {
        Some(wire::ServiceKey {
            name: name.into(),
            ..service.clone()
        })
    };
    let group = Some(wire::ServiceKey {
        group: "a@@b".into(),
        ..service.clone()
    });
    let at = |ip: &str, port, cluster: &str| {
        Some(wire::Endpoint {
            ip: ip.into(),
            port,
            cluster: cluster.into(),
        })
    };
    let mut impossible: Vec<Wire> = [
        with_service(None),
        with_service(name("")),
        with_service(name("a\0")),
        with_service(name(&long)),
        with_service(group),
        with_endpoint(None),
        with_endpoint(at("", 1, "c")),
        with_endpoint(at("ip", 1, "")),
        with_endpoint(at("a\0b", 1, "c")),
        with_endpoint(at("ip", 65_536, "c")),
        with_weight(f64::NAN),
        with_weight(f64::INFINITY),
        with_weight(-1.0),
        wire::NamingInstancePut {
            instance: None,
            ..put.clone()
        },
    ]
    .map(Wire::NamingInstancePut)
    .into();
    let result = wire::HealthResult {
        service: Some(service.clone()),
        endpoint: Some(endpoint.clone()),
        healthy: true,
    };
    impossible.push(Wire::NamingHealth(wire::NamingHealth {
        results: vec![result; NAMING_BATCH_MAX + 1],
    }));
    impossible.push(Wire::NamingOverridePut(wire::NamingOverridePut {
        service: Some(service.clone()),
        endpoints: vec![endpoint; NAMING_BATCH_MAX + 1],
        ..wire::NamingOverridePut::default()
    }));
    for (name, bytes) in [("", 1), ("a\0", 1), ("check", NAMING_SWITCH_BYTES_MAX + 1)] {
        impossible.push(Wire::NamingSwitchPut(wire::NamingSwitchPut {
            name: name.to_owned(),
            value: "v".repeat(bytes),
        }));
    }
    impossible.push(Wire::NamingServicePut(wire::NamingServicePut {
        service: Some(service),
        settings: Some(wire::ServiceSettings {
            protect_threshold: f64::NAN,
            ..wire::ServiceSettings::default()
        }),
    }));
    assert!(Command::from_wire(Wire::NamingInstancePut(put.clone())).is_ok());
    for command in impossible {
        let read = Command::from_wire(command.clone());
        assert!(matches!(read, Err(CommandError::Malformed(_))), "{command:?}");
    }
}
