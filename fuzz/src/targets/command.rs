//! `rnacos::state`: the commands in the log.
//!
//! * Any bytes are an error, or an envelope that comes back from its own encoding (its level excepted: a
//!   server writes its own); the keys in it are storable and come back from their own bytes.
//! * A command that was made comes back as it was.
//! * Memory stays within a multiple of the input that protobuf and its smallest elements ask for.

mod naming;

use bytes::Bytes;
use raft::{Boot, Incarnation, NodeId};
use rnacos::config::{ConfigId, Expectation, GrayRule, Origin, Publish, Removal, RuleKind, Variant};
use rnacos::model::{ConfigKey, ConfigType, Md5, NamespaceId, OperationId};
use rnacos::namespace::Wanted;
use rnacos::state::{Command, CommandError, ENVELOPE_VERSION, Envelope, REMOVE_BATCH_MAX};

use crate::alloc::bounded;
use crate::input::Input;

/// Bytes of memory for a byte of input: two bytes make an empty element of a batch, which takes up to 136, and
/// a growing list holds its old half while it moves.
const EXPANSION_MAX: usize = 224;

/// Kinds of commands.
const KINDS: usize = 9 + naming::KINDS;

/// See the module.
pub fn check(data: &[u8]) {
    any_bytes(data);
    let mut enveloped = vec![ENVELOPE_VERSION];
    enveloped.extend_from_slice(data);
    any_bytes(&enveloped);
    a_command(data);
}

fn any_bytes(data: &[u8]) {
    let payload = Bytes::copy_from_slice(data);
    let bytes_max = EXPANSION_MAX * data.len() + (4 << 10);
    let decoded = bounded("an envelope", bytes_max, || Envelope::decode(&payload));
    let Ok(envelope) = decoded else {
        return;
    };
    let Ok(command) = &envelope.command else { return };
    let operation = envelope.operation.unwrap_or_default();
    let encoded = command.encode(operation, envelope.low_watermark);
    let again = Envelope::decode(&encoded).expect("what was encoded can be read");
    assert_eq!(again.command.as_ref(), Ok(command));
    assert_eq!(again.operation, Some(operation));
    assert_eq!(again.low_watermark, envelope.low_watermark);
    for key in keys(command) {
        assert!(key.is_storable(), "{key} cannot be stored");
        assert_eq!(ConfigKey::from_bytes(key.as_bytes()).as_ref(), Some(key));
    }
    for place in naming::places(command) {
        assert!(place.is_storable(), "{place:?} cannot be stored");
    }
    // What is written by this version reads the same bytes.
    assert_eq!(command.encode(operation, envelope.low_watermark), encoded);
}

fn keys(command: &Command) -> Vec<&ConfigKey> {
    match command {
        Command::ConfigPut(publish) => vec![&publish.key],
        Command::ConfigRemove(removal) => vec![&removal.key],
        Command::ConfigRemoveBatch { configs, .. } => {
            assert!(configs.len() <= REMOVE_BATCH_MAX);
            configs.iter().map(|(key, _)| key).collect()
        }
        _ => Vec::new(),
    }
}

fn a_command(data: &[u8]) {
    let mut input = Input::new(data);
    let operation = OperationId {
        node: NodeId(input.number()),
        incarnation: Incarnation(input.number()),
        boot: Boot(input.number()),
        counter: input.number(),
    };
    let low_watermark = input.number();
    let command = command(&mut input);
    let encoded = command.encode(operation, low_watermark);
    let envelope = Envelope::decode(&encoded).expect("an envelope");
    assert_eq!(
        (envelope.operation, envelope.low_watermark),
        (Some(operation), low_watermark)
    );
    let impossible = keys(&command).iter().any(|key| !key.is_storable())
        || naming::places(&command).iter().any(|place| !place.is_storable())
        || !naming::numbers_are_possible(&command)
        || matches!(&command, Command::NamespaceCreate(wanted) if wanted.id.as_str().contains('\0'))
        || matches!(&command, Command::NamingSwitchPut { name, .. } if name.is_empty() || name.contains('\0'));
    match envelope.command {
        Ok(found) => {
            assert!(!impossible);
            assert_eq!(found, command);
        }
        Err(error) => assert!(
            impossible && matches!(error, CommandError::Malformed(_)),
            "{error}"
        ),
    }
}

fn command(input: &mut Input<'_>) -> Command {
    match input.below(KINDS) {
        0 => Command::OpenSession,
        1 => Command::ConfigPut(Box::new(publish(input))),
        2 => Command::ConfigRemove(Removal {
            key: key(input),
            variant: input.flag().then(|| input.text()),
            origin: origin(input),
        }),
        3 => Command::ConfigRemoveBatch {
            configs: (0..input.below(5))
                .map(|_| (key(input), ConfigId(input.number())))
                .collect(),
            origin: origin(input),
        },
        4 => Command::NamespaceCreate(Wanted {
            id: NamespaceId::new(&input.text()),
            name: input.text(),
            description: input.text(),
            now_ms: input.u64() as i64,
        }),
        5 => Command::NamespaceUpdate(Wanted {
            id: NamespaceId::new("dev"),
            name: input.text(),
            description: input.text(),
            now_ms: input.u64() as i64,
        }),
        6 => Command::NamespaceDelete(NamespaceId::new("dev")),
        7 => Command::TrimHistory {
            before_ms: input.u64() as i64,
            rows_max: input.u32(),
        },
        8 => Command::RaiseFeatureLevel(input.u32()),
        kind => naming::command(kind - 9, input),
    }
}

fn publish(input: &mut Input<'_>) -> Publish {
    use ConfigType::{Html, Json, Properties, Text, Toml, Unset, Xml, Yaml};
    let content = input.text();
    let expectation = if input.flag() {
        Expectation::Md5(Md5(input.u128().to_le_bytes()))
    } else {
        Expectation::None
    };
    let variant = if input.flag() {
        let rule = GrayRule {
            kind: RuleKind::from_name(&input.text()),
            version: input.text().into(),
            expression: input.text().into(),
            priority: input.u32() as i32,
        };
        Variant::Gray {
            name: input.text().into(),
            rule,
        }
    } else {
        Variant::Formal
    };
    Publish {
        kind: [Text, Json, Xml, Yaml, Html, Properties, Toml, Unset][input.below(8)],
        app_name: input.flag().then(|| input.text()),
        tags: input
            .flag()
            .then(|| (0..input.below(4)).map(|_| input.text().into()).collect()),
        description: input.text(),
        purpose: input.text(),
        effect: input.text(),
        schema: input.text(),
        encrypted_data_key: input.text(),
        expectation,
        variant,
        ..Publish::new(key(input), content, origin(input))
    }
}

fn key(input: &mut Input<'_>) -> ConfigKey {
    let namespace = NamespaceId::new(&input.text());
    let (group, data_id) = (input.text(), input.text());
    if input.flag() {
        return ConfigKey::new(&namespace, "DEFAULT_GROUP", "app.yaml");
    }
    ConfigKey::new(&namespace, &group, &data_id)
}

fn origin(input: &mut Input<'_>) -> Origin {
    Origin {
        now_ms: input.u64() as i64,
        user: input.text(),
        ip: input.text(),
        message: input.text(),
        history_max: input.u32(),
    }
}

/// One command of each kind as it stands in the log, and the bytes that make one of each kind.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let operation = OperationId {
        node: NodeId(3),
        incarnation: Incarnation(0xdead),
        boot: Boot(4),
        counter: 70_000,
    };
    let mut seeds = vec![
        ("seed-empty".to_owned(), Vec::new()),
        ("seed-newer".to_owned(), vec![ENVELOPE_VERSION + 1, 8, 1]),
    ];
    for kind in 0..KINDS as u8 {
        let mut bytes = vec![3, 2, 1, 9, 5, kind];
        for n in 0..60 {
            bytes.extend([5, b'a' + n % 26, b'b', b'-', b'1' + n % 9, 1]);
        }
        let mut input = Input::new(&bytes[5..]);
        let encoded = command(&mut input).encode(operation, 9).to_vec();
        seeds.push((format!("seed-encoded-{kind}"), encoded));
        seeds.push((format!("seed-made-{kind}"), bytes));
    }
    seeds
}
