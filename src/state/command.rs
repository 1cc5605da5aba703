//! Commands of the replicated state machine and their bytes in the log.

mod naming;

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use proto::command as wire;
use raft::{Boot, Incarnation, Index, NodeId};

pub(super) use naming::{
    cluster_from_wire, cluster_to_wire, instance_from_wire, instance_to_wire, metadata_from_wire,
    metadata_to_wire, service_from_wire, service_to_wire,
};

use crate::config::{ConfigId, Expectation, GrayRule, Origin, Publish, Removal, RuleKind, Variant};
use crate::model::{ConfigKey, ConfigType, Endpoint, Md5, NamespaceId, OperationId, ServiceKey};
use crate::namespace::Wanted;
use crate::naming::{ClusterMetadata, OverridePatch, Persistent, ServiceMetadata};

/// Version of the envelope: the first byte of every command.
pub const ENVELOPE_VERSION: u8 = 1;

/// The feature level that all commands of this version belong to. A command that comes after the first
/// release needs a higher one (command.proto says why).
pub const COMMAND_LEVEL: u32 = 1;

/// Configs that one batch may remove.
pub const REMOVE_BATCH_MAX: usize = 4_096;

/// Instances, services or results of checks that one command of naming may name. Each is read from the
/// tables: about 5 ms together.
pub const NAMING_BATCH_MAX: usize = 1_024;
/// Bytes of the value of a switch of naming.
pub const NAMING_SWITCH_BYTES_MAX: usize = 16 << 10;

/// A change of the replicated state.
///
/// Commands are deterministic: times, hashes and random ids are made by who proposes them and travel
/// inside. What they do depends on nothing else but the state and the index they are applied at.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Opens the session that its operation id names; must be the first of its session.
    OpenSession,
    /// Publishes a config or a variant of it.
    ConfigPut(Box<Publish>),
    /// Removes a config or a variant of it.
    ConfigRemove(Removal),
    /// Removes the formal versions of configs that a listing showed.
    ConfigRemoveBatch {
        /// At most [`REMOVE_BATCH_MAX`]. One that has another id by now is another config and stays.
        configs: Vec<(ConfigKey, ConfigId)>,
        /// Who, when, from where, why.
        origin: Origin,
    },
    /// Makes a namespace.
    NamespaceCreate(Wanted),
    /// Renames a namespace.
    NamespaceUpdate(Wanted),
    /// Deletes a namespace; what is in it stays.
    NamespaceDelete(NamespaceId),
    /// Removes history rows by age.
    TrimHistory {
        /// Rows of days (UTC) that ended before this moment go.
        before_ms: i64,
        /// At most so many, and never more than [`super::TRIM_ROWS_MAX`].
        rows_max: u32,
    },
    /// Raises the feature level. Proposed only when every member supports the new one.
    RaiseFeatureLevel(u32),
    /// Registers a persistent instance, or says something new about it.
    NamingInstancePut {
        /// Of this service.
        service: ServiceKey,
        /// Where it is.
        endpoint: Endpoint,
        /// What it is.
        persistent: Persistent,
    },
    /// Deregisters a persistent instance.
    NamingInstanceRemove {
        /// Of this service.
        service: ServiceKey,
        /// Where it was.
        endpoint: Endpoint,
    },
    /// What checks of persistent instances have found, at most [`NAMING_BATCH_MAX`]. Instances that are
    /// gone are passed over.
    NamingHealth(Vec<(ServiceKey, Endpoint, bool)>),
    /// Makes a service.
    NamingServiceCreate {
        /// The service.
        service: ServiceKey,
        /// Its settings.
        set: ServiceMetadata,
    },
    /// Sets what belongs to a service as a whole; the kind of its instances stays, if it has settings.
    NamingServicePut {
        /// The service.
        service: ServiceKey,
        /// Its settings.
        set: ServiceMetadata,
    },
    /// Removes a service without persistent instances, and what is set for its parts. That there are no
    /// ephemeral ones is for the proposer to see.
    NamingServiceRemove(ServiceKey),
    /// Sets what belongs to a cluster. A service without settings gets plain ones.
    NamingClusterPut {
        /// Of this service.
        service: ServiceKey,
        /// Its name.
        cluster: Arc<str>,
        /// Its settings.
        set: ClusterMetadata,
        /// What a service without settings holds.
        ephemeral: bool,
    },
    /// Sets something over what clients say of instances.
    NamingOverridePut {
        /// Of this service.
        service: ServiceKey,
        /// At most [`NAMING_BATCH_MAX`]; each gets the same.
        endpoints: Vec<Endpoint>,
        /// What is set.
        patch: OverridePatch,
    },
    /// Removes what belongs to nothing any more, at most [`NAMING_BATCH_MAX`] of each. What an entry
    /// behind the given index has changed stays, as does a service with persistent instances.
    NamingSweep {
        /// Services that have been empty for long enough.
        services: Vec<(ServiceKey, Index)>,
        /// Instances that have been gone for long enough, and had something set.
        overrides: Vec<(ServiceKey, Endpoint, Index)>,
    },
    /// Turns a switch of naming on all nodes. What it means is for them to know.
    NamingSwitchPut {
        /// Its name.
        name: Box<str>,
        /// Its value, at most [`NAMING_SWITCH_BYTES_MAX`].
        value: Box<str>,
    },
}

/// A command with what came around it.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    /// Who proposed it and under which number.
    pub operation: Option<OperationId>,
    /// Operations of the session below this counter are answered and never come again.
    pub low_watermark: u64,
    /// The feature level the command belongs to.
    pub level: u32,
    /// The command, or why it cannot be carried out.
    pub command: Result<Command, CommandError>,
}

/// Why an envelope or command cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Written by a newer version of the server: this node must not guess.
    #[error("envelope version {0} is not known; this node needs a newer version of the server")]
    Version(u8),
    /// A kind of command this version does not know.
    #[error("the kind of command is not known; this node needs a newer version of the server")]
    Kind,
    /// The bytes are no envelope, or a value in it is impossible.
    #[error("the command is malformed: {0}")]
    Malformed(&'static str),
}

impl Command {
    /// The bytes that stand in the log.
    pub fn encode(&self, operation: OperationId, low_watermark: u64) -> Bytes {
        let envelope = wire::Envelope {
            operation: Some(wire::OperationId {
                node: operation.node.0,
                incarnation: operation.incarnation.0,
                boot: operation.boot.0,
                counter: operation.counter,
            }),
            low_watermark,
            level: COMMAND_LEVEL,
            command: Some(self.to_wire()),
        };
        let mut bytes = BytesMut::with_capacity(1 + envelope.encoded_len());
        bytes.put_u8(ENVELOPE_VERSION);
        envelope.encode_raw(&mut bytes);
        bytes.freeze()
    }

    /// True for commands that make room: they pass when the disk is nearly full.
    pub fn frees_space(&self) -> bool {
        match self {
            Command::ConfigRemove(_)
            | Command::ConfigRemoveBatch { .. }
            | Command::NamespaceDelete(_)
            | Command::TrimHistory { .. }
            | Command::NamingInstanceRemove { .. }
            | Command::NamingServiceRemove(_)
            | Command::NamingSweep { .. } => true,
            Command::OpenSession
            | Command::ConfigPut(_)
            | Command::NamespaceCreate(_)
            | Command::NamespaceUpdate(_)
            | Command::RaiseFeatureLevel(_)
            | Command::NamingInstancePut { .. }
            | Command::NamingHealth(_)
            | Command::NamingServiceCreate { .. }
            | Command::NamingServicePut { .. }
            | Command::NamingClusterPut { .. }
            | Command::NamingOverridePut { .. }
            | Command::NamingSwitchPut { .. } => false,
        }
    }

    fn to_wire(&self) -> wire::envelope::Command {
        use wire::envelope::Command as Wire;
        match self {
            Command::OpenSession => Wire::OpenSession(wire::OpenSession {}),
            Command::ConfigPut(publish) => Wire::ConfigPut(publish_to_wire(publish)),
            Command::ConfigRemove(removal) => Wire::ConfigRemove(wire::ConfigRemove {
                key: Some(key_to_wire(&removal.key)),
                variant: removal.variant.clone(),
                origin: Some(origin_to_wire(&removal.origin)),
            }),
            Command::ConfigRemoveBatch { configs, origin } => {
                let numbered = |(key, id): &(ConfigKey, ConfigId)| wire::Numbered {
                    key: Some(key_to_wire(key)),
                    id: id.0,
                };
                Wire::ConfigRemoveBatch(wire::ConfigRemoveBatch {
                    configs: configs.iter().map(numbered).collect(),
                    origin: Some(origin_to_wire(origin)),
                })
            }
            Command::NamespaceCreate(wanted) => Wire::NamespaceCreate(wire::NamespaceCreate {
                id: wanted.id.as_str().into(),
                name: wanted.name.clone(),
                description: wanted.description.clone(),
                now_ms: wanted.now_ms,
            }),
            Command::NamespaceUpdate(wanted) => Wire::NamespaceUpdate(wire::NamespaceUpdate {
                id: wanted.id.as_str().into(),
                name: wanted.name.clone(),
                description: wanted.description.clone(),
                now_ms: wanted.now_ms,
            }),
            Command::NamespaceDelete(id) => Wire::NamespaceDelete(wire::NamespaceDelete {
                id: id.as_str().into(),
            }),
            Command::TrimHistory { before_ms, rows_max } => Wire::TrimHistory(wire::TrimHistory {
                before_ms: *before_ms,
                rows_max: *rows_max,
            }),
            Command::RaiseFeatureLevel(level) => {
                Wire::RaiseFeatureLevel(wire::RaiseFeatureLevel { level: *level })
            }
            Command::NamingInstancePut { .. }
            | Command::NamingInstanceRemove { .. }
            | Command::NamingHealth(_)
            | Command::NamingServiceCreate { .. }
            | Command::NamingServicePut { .. }
            | Command::NamingServiceRemove(_)
            | Command::NamingClusterPut { .. }
            | Command::NamingOverridePut { .. }
            | Command::NamingSweep { .. }
            | Command::NamingSwitchPut { .. } => self.naming_to_wire(),
        }
    }

    fn from_wire(command: wire::envelope::Command) -> Result<Command, CommandError> {
        use wire::envelope::Command as Wire;
        Ok(match command {
            Wire::OpenSession(_) => Command::OpenSession,
            Wire::ConfigPut(put) => Command::ConfigPut(Box::new(publish_from_wire(put)?)),
            Wire::ConfigRemove(remove) => Command::ConfigRemove(Removal {
                key: key_from_wire(remove.key)?,
                variant: remove.variant,
                origin: origin_from_wire(remove.origin)?,
            }),
            Wire::ConfigRemoveBatch(batch) => {
                if batch.configs.len() > REMOVE_BATCH_MAX {
                    return Err(CommandError::Malformed("too many configs in a batch"));
                }
                let configs = batch.configs.into_iter();
                let configs = configs.map(|one| Ok((key_from_wire(one.key)?, ConfigId(one.id))));
                Command::ConfigRemoveBatch {
                    configs: configs.collect::<Result<_, CommandError>>()?,
                    origin: origin_from_wire(batch.origin)?,
                }
            }
            Wire::NamespaceCreate(wanted) => Command::NamespaceCreate(Wanted {
                id: namespace_from_wire(&wanted.id)?,
                name: wanted.name,
                description: wanted.description,
                now_ms: wanted.now_ms,
            }),
            Wire::NamespaceUpdate(wanted) => Command::NamespaceUpdate(Wanted {
                id: namespace_from_wire(&wanted.id)?,
                name: wanted.name,
                description: wanted.description,
                now_ms: wanted.now_ms,
            }),
            Wire::NamespaceDelete(delete) => Command::NamespaceDelete(namespace_from_wire(&delete.id)?),
            Wire::TrimHistory(trim) => Command::TrimHistory {
                before_ms: trim.before_ms,
                rows_max: trim.rows_max,
            },
            Wire::RaiseFeatureLevel(raise) => Command::RaiseFeatureLevel(raise.level),
            naming => return Command::naming_from_wire(naming),
        })
    }
}

impl Envelope {
    /// Reads the payload of a log entry.
    ///
    /// # Errors
    /// Only when nothing can be said about it at all; a command that cannot be carried out comes inside
    /// the envelope, because its operation id still counts.
    pub fn decode(payload: &Bytes) -> Result<Envelope, CommandError> {
        match payload.first() {
            Some(&ENVELOPE_VERSION) => {}
            Some(&version) => return Err(CommandError::Version(version)),
            None => return Err(CommandError::Malformed("it is empty")),
        }
        let envelope = wire::Envelope::decode(payload.slice(1..))
            .map_err(|_cause| CommandError::Malformed("it is no envelope"))?;
        let operation = envelope.operation.map(|operation| OperationId {
            node: NodeId(operation.node),
            incarnation: Incarnation(operation.incarnation),
            boot: Boot(operation.boot),
            counter: operation.counter,
        });
        let command = envelope
            .command
            .ok_or(CommandError::Kind)
            .and_then(Command::from_wire);
        Ok(Envelope {
            operation,
            low_watermark: envelope.low_watermark,
            level: envelope.level,
            command,
        })
    }
}

fn publish_to_wire(publish: &Publish) -> wire::ConfigPut {
    let cas_md5 = match publish.expectation {
        Expectation::None => None,
        Expectation::Md5(md5) => Some(Bytes::copy_from_slice(md5.as_bytes())),
    };
    wire::ConfigPut {
        key: Some(key_to_wire(&publish.key)),
        content: publish.content.clone(),
        md5: Bytes::copy_from_slice(publish.md5.as_bytes()),
        r#type: type_to_wire(publish.kind).into(),
        app_name: publish.app_name.clone(),
        tags: publish.tags.as_ref().map(|tags| wire::Tags {
            tags: tags.iter().map(|tag| tag.to_string()).collect(),
        }),
        description: publish.description.clone(),
        purpose: publish.purpose.clone(),
        effect: publish.effect.clone(),
        schema: publish.schema.clone(),
        encrypted_data_key: publish.encrypted_data_key.clone(),
        cas_md5,
        origin: Some(origin_to_wire(&publish.origin)),
        variant: variant_to_wire(&publish.variant),
    }
}

fn publish_from_wire(put: wire::ConfigPut) -> Result<Publish, CommandError> {
    let expectation = match put.cas_md5 {
        None => Expectation::None,
        Some(md5) => Expectation::Md5(md5_from_wire(&md5)?),
    };
    if std::str::from_utf8(&put.content).is_err() {
        return Err(CommandError::Malformed("the content is not UTF-8"));
    }
    Ok(Publish {
        key: key_from_wire(put.key)?,
        md5: md5_from_wire(&put.md5)?,
        kind: type_from_wire(put.r#type)?,
        content: put.content,
        app_name: put.app_name,
        tags: put
            .tags
            .map(|tags| tags.tags.into_iter().map(String::into_boxed_str).collect()),
        description: put.description,
        purpose: put.purpose,
        effect: put.effect,
        schema: put.schema,
        encrypted_data_key: put.encrypted_data_key,
        expectation,
        variant: variant_from_wire(put.variant)?,
        origin: origin_from_wire(put.origin)?,
    })
}

fn key_to_wire(key: &ConfigKey) -> wire::ConfigKey {
    wire::ConfigKey {
        namespace: key.namespace().into(),
        group: key.group().into(),
        data_id: key.data_id().into(),
    }
}

fn key_from_wire(key: Option<wire::ConfigKey>) -> Result<ConfigKey, CommandError> {
    let key = key.ok_or(CommandError::Malformed("a key is missing"))?;
    let key = ConfigKey::new(&NamespaceId::new(&key.namespace), &key.group, &key.data_id);
    let fits = key.as_bytes().len() <= super::KEY_BYTES_MAX;
    if key.is_storable() && fits {
        Ok(key)
    } else {
        Err(CommandError::Malformed("a key is not possible"))
    }
}

fn namespace_from_wire(id: &str) -> Result<NamespaceId, CommandError> {
    let possible = !id.contains(ConfigKey::SEPARATOR) && id.len() <= super::KEY_BYTES_MAX;
    if possible {
        Ok(NamespaceId::new(id))
    } else {
        Err(CommandError::Malformed("a namespace is not possible"))
    }
}

fn origin_to_wire(origin: &Origin) -> wire::Origin {
    wire::Origin {
        now_ms: origin.now_ms,
        user: origin.user.clone(),
        ip: origin.ip.clone(),
        message: origin.message.clone(),
        history_max: origin.history_max,
    }
}

fn origin_from_wire(origin: Option<wire::Origin>) -> Result<Origin, CommandError> {
    let origin = origin.ok_or(CommandError::Malformed("the origin is missing"))?;
    Ok(Origin {
        now_ms: origin.now_ms,
        user: origin.user,
        ip: origin.ip,
        message: origin.message,
        history_max: origin.history_max,
    })
}

pub(super) fn variant_to_wire(variant: &Variant) -> Option<wire::Variant> {
    match variant {
        Variant::Formal => None,
        Variant::Gray { name, rule } => Some(wire::Variant {
            name: name.to_string(),
            rule: Some(rule_to_wire(rule)),
        }),
    }
}

pub(super) fn variant_from_wire(variant: Option<wire::Variant>) -> Result<Variant, CommandError> {
    let Some(variant) = variant else {
        return Ok(Variant::Formal);
    };
    let rule = variant
        .rule
        .ok_or(CommandError::Malformed("a gray rule is missing"))?;
    Ok(Variant::Gray {
        name: variant.name.into(),
        rule: rule_from_wire(rule),
    })
}

pub(super) fn rule_to_wire(rule: &GrayRule) -> wire::GrayRule {
    wire::GrayRule {
        kind: rule.kind.as_str().into(),
        version: rule.version.to_string(),
        expression: rule.expression.to_string(),
        priority: rule.priority,
    }
}

pub(super) fn rule_from_wire(rule: wire::GrayRule) -> GrayRule {
    GrayRule {
        kind: RuleKind::from_name(&rule.kind),
        version: rule.version.into(),
        expression: rule.expression.into(),
        priority: rule.priority,
    }
}

pub(super) fn type_to_wire(kind: ConfigType) -> wire::ConfigType {
    match kind {
        ConfigType::Text => wire::ConfigType::Text,
        ConfigType::Json => wire::ConfigType::Json,
        ConfigType::Xml => wire::ConfigType::Xml,
        ConfigType::Yaml => wire::ConfigType::Yaml,
        ConfigType::Html => wire::ConfigType::Html,
        ConfigType::Properties => wire::ConfigType::Properties,
        ConfigType::Toml => wire::ConfigType::Toml,
        ConfigType::Unset => wire::ConfigType::Unset,
    }
}

pub(super) fn type_from_wire(kind: i32) -> Result<ConfigType, CommandError> {
    let kind = wire::ConfigType::try_from(kind).map_err(|_cause| CommandError::Malformed("unknown type"))?;
    Ok(match kind {
        wire::ConfigType::Text => ConfigType::Text,
        wire::ConfigType::Json => ConfigType::Json,
        wire::ConfigType::Xml => ConfigType::Xml,
        wire::ConfigType::Yaml => ConfigType::Yaml,
        wire::ConfigType::Html => ConfigType::Html,
        wire::ConfigType::Properties => ConfigType::Properties,
        wire::ConfigType::Toml => ConfigType::Toml,
        wire::ConfigType::Unset => ConfigType::Unset,
    })
}

pub(super) fn md5_from_wire(bytes: &[u8]) -> Result<Md5, CommandError> {
    Md5::from_bytes(bytes).ok_or(CommandError::Malformed("an md5 has not 16 bytes"))
}

#[cfg(test)]
mod tests;
