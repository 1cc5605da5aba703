//! The tables of the state and the bytes of their rows.
//!
//! | table | key | row |
//! |---|---|---|
//! | 1 membership | nothing | log index and encoding of the configuration in force |
//! | 2 level | nothing | the feature level; absent: 1 |
//! | 3 sessions | node id | newest session of a node |
//! | 4 outcomes | node id, block number | outcomes of up to 64 operations of that session |
//! | 5 namespaces | id | a namespace that somebody made |
//! | 6 configs | config key | the formal version |
//! | 7 grays | config key, 0, name | a variant |
//! | 8 history heads | config key | which history rows there are |
//! | 9 history | config key, 0, sequence number | a history row |
//! | 10 history days | day of the epoch, config key | nothing: this config has rows of that day |
//! | 11 naming services | service key | what is set for a service |
//! | 12 naming clusters | service key, 0, cluster | what is set for a cluster |
//! | 13 naming instances | service key, 0, endpoint | a persistent instance |
//! | 14 naming overrides | service key, 0, endpoint | what is set over what a client says of an instance |
//!
//! Numbers in keys are 8 bytes, the highest first, so that rows come in their order. A config key is
//! `namespace 0 group 0 data_id`, a service key `namespace 0 group@@service`, an endpoint
//! `ip 0 port cluster` with two bytes of port; no text holds a zero byte. Rows are protobuf (`tables.proto`).

pub(super) mod naming;

use bytes::{BufMut, Bytes};
use prost::Message;
use proto::tables as wire;
use raft::{Boot, Configuration, Incarnation, Index, NodeId};
use storage::Table;

use super::command::{
    CommandError, md5_from_wire, rule_from_wire, rule_to_wire, type_from_wire, type_to_wire,
    variant_from_wire, variant_to_wire,
};
use super::dedup::{BLOCK, Session};
use super::outcome::Outcome;
use crate::config::{ConfigId, Detail, Entry, Gray, History, HistoryId, Labels, Operation, Variant};
use crate::model::{ConfigKey, HttpDate};
use crate::namespace::Namespace;

pub(super) const MEMBERSHIP: Table = Table(1);
pub(super) const LEVEL: Table = Table(2);
pub(super) const SESSIONS: Table = Table(3);
pub(super) const OUTCOMES: Table = Table(4);
pub(super) const NAMESPACES: Table = Table(5);
pub(super) const CONFIGS: Table = Table(6);
pub(super) const GRAYS: Table = Table(7);
pub(super) const HISTORY_HEADS: Table = Table(8);
pub(super) const HISTORY: Table = Table(9);
pub(super) const HISTORY_DAYS: Table = Table(10);

/// Key of the only row of a table that has one.
pub(super) const ONLY: &[u8] = &[];

/// A row that cannot be read: written by a newer version, or damaged in a way that the database's
/// checksums did not show.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a row of the table {table} cannot be read ({why}); this node may need a newer version of the server"
)]
pub struct RowError {
    /// Which table.
    pub table: &'static str,
    /// What is wrong.
    pub why: String,
}

/// Where a config's history rows are: exactly those numbered `oldest..next` exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HistoryHead {
    /// The first row there is.
    pub(super) oldest: u64,
    /// The next row gets this number.
    pub(super) next: u64,
    /// Day of the newest row. The table of days has a row for this config for each day of its rows.
    pub(super) day: u64,
}

pub(super) fn membership(index: Index, configuration: &Configuration) -> Bytes {
    wire::MembershipRow {
        index: index.0,
        configuration: configuration.encode(),
    }
    .encode_to_vec()
    .into()
}

pub(super) fn read_membership(row: Bytes) -> Result<(Index, Configuration), RowError> {
    let error = row_error("membership");
    let row = wire::MembershipRow::decode(row).map_err(&error)?;
    let configuration = Configuration::decode(&row.configuration).map_err(row_error("membership"))?;
    Ok((Index(row.index), configuration))
}

pub(super) fn level(level: u32) -> Bytes {
    wire::LevelRow { level }.encode_to_vec().into()
}

pub(super) fn read_level(row: Bytes) -> Result<u32, RowError> {
    Ok(wire::LevelRow::decode(row).map_err(row_error("level"))?.level)
}

pub(super) fn session_key(node: NodeId) -> [u8; 8] {
    node.0.to_be_bytes()
}

pub(super) fn session(session: &Session) -> Bytes {
    let row = wire::SessionRow {
        incarnation: session.incarnation.0,
        boot: session.boot.0,
        closed: session.closed,
        low_watermark: session.low_watermark,
    };
    row.encode_to_vec().into()
}

pub(super) fn read_session(key: &[u8], row: Bytes) -> Result<(NodeId, Session), RowError> {
    let row = wire::SessionRow::decode(row).map_err(row_error("sessions"))?;
    let session = Session {
        incarnation: Incarnation(row.incarnation),
        boot: Boot(row.boot),
        closed: row.closed,
        low_watermark: row.low_watermark,
        outcomes: Default::default(),
    };
    Ok((NodeId(number_at_end(key, 0, "sessions")?), session))
}

pub(super) fn block_key(node: NodeId, block: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&node.0.to_be_bytes());
    key[8..].copy_from_slice(&block.to_be_bytes());
    key
}

/// `None` for a block without outcomes: its row goes.
pub(super) fn block(outcomes: impl Iterator<Item = (u64, Outcome)>) -> Option<Bytes> {
    let results: Vec<_> = outcomes
        .map(|(counter, outcome)| {
            let (kind, first, second) = outcome.as_row();
            wire::Result {
                counter,
                kind,
                first,
                second,
            }
        })
        .collect();
    (!results.is_empty()).then(|| wire::ResultBlock { results }.encode_to_vec().into())
}

pub(super) fn read_block(key: &[u8], row: Bytes) -> Result<(NodeId, Vec<(u64, Outcome)>), RowError> {
    let table = "outcomes";
    let block = number_at_end(key, 8, table)?;
    let node = number_at_end(key.get(..8).unwrap_or_default(), 0, table)?;
    let row = wire::ResultBlock::decode(row).map_err(row_error(table))?;
    let outcomes = row.results.into_iter().map(|result| {
        let outcome = Outcome::from_row((result.kind, result.first, result.second));
        let outcome = outcome.filter(|_| result.counter / BLOCK == block);
        Ok((
            result.counter,
            outcome.ok_or_else(|| row_error(table)("an outcome is not known"))?,
        ))
    });
    Ok((NodeId(node), outcomes.collect::<Result<_, RowError>>()?))
}

pub(super) fn namespace(namespace: &Namespace) -> Bytes {
    let row = wire::NamespaceRow {
        name: namespace.name.clone(),
        description: namespace.description.clone(),
        created_index: namespace.created_index,
        created_ms: namespace.created_ms,
        modified_ms: namespace.modified_ms,
    };
    row.encode_to_vec().into()
}

pub(super) fn read_namespace(row: Bytes) -> Result<Namespace, RowError> {
    let row = wire::NamespaceRow::decode(row).map_err(row_error("namespaces"))?;
    Ok(Namespace {
        name: row.name,
        description: row.description,
        created_index: row.created_index,
        created_ms: row.created_ms,
        modified_ms: row.modified_ms,
    })
}

pub(super) fn config(detail: &Detail) -> Bytes {
    let entry = &detail.entry;
    let row = wire::ConfigRow {
        id: entry.id.0,
        content: entry.content.clone(),
        md5: Bytes::copy_from_slice(entry.md5.as_bytes()),
        r#type: type_to_wire(entry.kind).into(),
        created_ms: entry.created_ms,
        modified_ms: entry.modified_ms,
        app_name: entry.app_name().into(),
        tags: entry.tags().iter().map(|tag| tag.to_string()).collect(),
        description: detail.description.clone(),
        purpose: detail.purpose.clone(),
        effect: detail.effect.clone(),
        schema: detail.schema.clone(),
        encrypted_data_key: entry.encrypted_data_key().into(),
        user: detail.user.clone(),
        ip: detail.ip.clone(),
    };
    row.encode_to_vec().into()
}

pub(super) fn read_config(key: &[u8], row: Bytes) -> Result<Detail, RowError> {
    let table = "configs";
    let key = ConfigKey::from_bytes(key).ok_or_else(|| row_error(table)("the key is malformed"))?;
    let row = wire::ConfigRow::decode(row).map_err(row_error(table))?;
    let md5 = md5_from_wire(&row.md5).map_err(row_error(table))?;
    let tags: Vec<Box<str>> = row.tags.into_iter().map(String::into_boxed_str).collect();
    let entry = Entry {
        key,
        id: ConfigId(row.id),
        // In an allocation of its own: the row's bytes may be a part of a whole block.
        content: Bytes::copy_from_slice(&row.content),
        md5,
        md5_hex: md5.hex(),
        kind: type_from_wire(row.r#type).map_err(row_error(table))?,
        created_ms: row.created_ms,
        modified_ms: row.modified_ms,
        last_modified: HttpDate::from_ms(row.modified_ms),
        encrypted_data_key: (!row.encrypted_data_key.is_empty()).then(|| row.encrypted_data_key.into()),
        labels: Labels::new(&row.app_name, &tags),
    };
    Ok(Detail {
        entry,
        description: row.description,
        purpose: row.purpose,
        effect: row.effect,
        schema: row.schema,
        user: row.user,
        ip: row.ip,
    })
}

pub(super) fn gray_key(key: &ConfigKey, name: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(key.as_bytes().len() + 1 + name.len());
    bytes.put_slice(key.as_bytes());
    bytes.put_u8(0);
    bytes.put_slice(name.as_bytes());
    bytes
}

pub(super) fn gray(gray: &Gray) -> Bytes {
    let row = wire::GrayRow {
        id: gray.id.0,
        content: gray.content.clone(),
        md5: Bytes::copy_from_slice(gray.md5.as_bytes()),
        r#type: type_to_wire(gray.kind).into(),
        created_ms: gray.created_ms,
        modified_ms: gray.modified_ms,
        app_name: gray.app_name.to_string(),
        encrypted_data_key: gray.encrypted_data_key.to_string(),
        user: gray.user.to_string(),
        ip: gray.ip.to_string(),
        rule: Some(rule_to_wire(&gray.rule)),
    };
    row.encode_to_vec().into()
}

pub(super) fn read_gray(key: &[u8], row: Bytes) -> Result<Gray, RowError> {
    let table = "grays";
    let malformed = || row_error(table)("the key is malformed");
    let end = key.iter().rposition(|&byte| byte == 0).ok_or_else(malformed)?;
    let (key, name) = key.split_at(end);
    let name = std::str::from_utf8(name.get(1..).unwrap_or_default()).map_err(row_error(table))?;
    let key = ConfigKey::from_bytes(key).ok_or_else(malformed)?;
    let row = wire::GrayRow::decode(row).map_err(row_error(table))?;
    let md5 = md5_from_wire(&row.md5).map_err(row_error(table))?;
    let rule = row.rule.ok_or_else(|| row_error(table)("the rule is missing"))?;
    Ok(Gray {
        key,
        name: name.into(),
        rule: rule_from_wire(rule),
        id: ConfigId(row.id),
        content: Bytes::copy_from_slice(&row.content),
        md5,
        md5_hex: md5.hex(),
        kind: type_from_wire(row.r#type).map_err(row_error(table))?,
        created_ms: row.created_ms,
        modified_ms: row.modified_ms,
        last_modified: HttpDate::from_ms(row.modified_ms),
        app_name: row.app_name.into(),
        encrypted_data_key: row.encrypted_data_key.into(),
        user: row.user.into(),
        ip: row.ip.into(),
    })
}

pub(super) fn history_head(head: HistoryHead) -> Bytes {
    wire::HistoryHead {
        oldest: head.oldest,
        next: head.next,
        day: head.day,
    }
    .encode_to_vec()
    .into()
}

pub(super) fn read_history_head(row: Bytes) -> Result<HistoryHead, RowError> {
    let row = wire::HistoryHead::decode(row).map_err(row_error("history heads"))?;
    if row.oldest > row.next {
        return Err(row_error("history heads")("the range is reversed"));
    }
    Ok(HistoryHead {
        oldest: row.oldest,
        next: row.next,
        day: row.day,
    })
}

pub(super) fn history_key(key: &ConfigKey, sequence: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(key.as_bytes().len() + 9);
    bytes.put_slice(key.as_bytes());
    bytes.put_u8(0);
    bytes.put_u64(sequence);
    bytes
}

/// A history row as it is stored.
pub(super) struct StoredHistory {
    /// Without its content when that follows.
    pub(super) row: History,
    /// The content is that of the next row of the formal version; without one, that of the config itself.
    pub(super) content_follows: bool,
}

/// The row of an insert of a formal version leaves the content out: what was inserted is there until it is
/// overwritten or removed, and the row that tells of *that* holds it. Rows go from the oldest on, so
/// whoever follows is there as long as this one. Most configs are written once: this halves their rows.
pub(super) fn history(row: &History, day: u64) -> Bytes {
    let content_follows = row.operation == Operation::Insert && row.variant == Variant::Formal;
    let operation = match row.operation {
        Operation::Insert => wire::Operation::Insert,
        Operation::Update => wire::Operation::Update,
        Operation::Delete => wire::Operation::Delete,
    };
    let row = wire::HistoryRow {
        nid: row.id.0,
        config_id: row.config_id.0,
        operation: operation.into(),
        variant: variant_to_wire(&row.variant),
        content: if content_follows {
            Bytes::new()
        } else {
            row.content.clone()
        },
        md5: Bytes::copy_from_slice(row.md5.as_bytes()),
        r#type: type_to_wire(row.kind).into(),
        app_name: row.app_name.to_string(),
        encrypted_data_key: row.encrypted_data_key.to_string(),
        at_ms: row.at_ms,
        user: row.user.to_string(),
        ip: row.ip.to_string(),
        message: row.message.to_string(),
        day,
        content_follows,
    };
    row.encode_to_vec().into()
}

/// The day after which a row may be trimmed.
pub(super) fn read_history_day(row: Bytes) -> Result<u64, RowError> {
    Ok(wire::HistoryRow::decode(row).map_err(row_error("history"))?.day)
}

pub(super) fn read_history(key: &ConfigKey, row: Bytes) -> Result<StoredHistory, RowError> {
    let table = "history";
    let row = wire::HistoryRow::decode(row).map_err(row_error(table))?;
    let operation = match wire::Operation::try_from(row.operation).map_err(row_error(table))? {
        wire::Operation::Insert => Operation::Insert,
        wire::Operation::Update => Operation::Update,
        wire::Operation::Delete => Operation::Delete,
    };
    let wrong = |error: CommandError| row_error(table)(error);
    let content_follows = row.content_follows;
    let row = History {
        id: HistoryId(row.nid),
        key: key.clone(),
        config_id: ConfigId(row.config_id),
        operation,
        variant: variant_from_wire(row.variant).map_err(wrong)?,
        md5: md5_from_wire(&row.md5).map_err(wrong)?,
        kind: type_from_wire(row.r#type).map_err(wrong)?,
        content: row.content,
        app_name: row.app_name.into(),
        encrypted_data_key: row.encrypted_data_key.into(),
        at_ms: row.at_ms,
        user: row.user.into(),
        ip: row.ip.into(),
        message: row.message.into(),
    };
    Ok(StoredHistory { row, content_follows })
}

pub(super) fn day_key(day: u64, key: &ConfigKey) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8 + key.as_bytes().len());
    bytes.put_u64(day);
    bytes.put_slice(key.as_bytes());
    bytes
}

pub(super) fn read_day_key(key: &[u8]) -> Result<(u64, ConfigKey), RowError> {
    let malformed = || row_error("history days")("the key is malformed");
    let (day, key) = key.split_at_checked(8).ok_or_else(malformed)?;
    let key = ConfigKey::from_bytes(key).ok_or_else(malformed)?;
    Ok((number_at_end(day, 0, "history days")?, key))
}

/// The number in the 8 bytes from `at` on, which must be the last ones.
fn number_at_end(key: &[u8], at: usize, table: &'static str) -> Result<u64, RowError> {
    let bytes = key.get(at..).and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
    bytes
        .map(u64::from_be_bytes)
        .ok_or_else(|| row_error(table)("the key is malformed"))
}

fn row_error<E: ToString>(table: &'static str) -> impl Fn(E) -> RowError {
    move |why| RowError {
        table,
        why: why.to_string(),
    }
}
