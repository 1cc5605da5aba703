//! What was there before.

use bytes::Bytes;

use super::{ConfigId, Variant};
use crate::model::{ConfigKey, ConfigType, Md5};

/// Number of a history row in the whole cluster (`nid` of Nacos); made from the log index, so later rows
/// have higher ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HistoryId(pub u64);

/// What a row tells of, and which content it therefore holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// The config or variant appeared: the content that appeared.
    Insert,
    /// It was overwritten: the content from before, so that rolling back to the row restores it.
    Update,
    /// It was removed: the content that was removed.
    Delete,
}

impl Operation {
    /// `I`, `U` or `D`.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Insert => "I",
            Operation::Update => "U",
            Operation::Delete => "D",
        }
    }
}

/// A row of a config's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// Its number.
    pub id: HistoryId,
    /// The config.
    pub key: ConfigKey,
    /// Id of the config or variant at that time.
    pub config_id: ConfigId,
    /// What happened.
    pub operation: Operation,
    /// Publish type `formal`, or `gray` with the name and rule of the variant.
    pub variant: Variant,
    /// See [`Operation`].
    pub content: Bytes,
    /// MD5 of `content`.
    pub md5: Md5,
    /// Format of `content`.
    pub kind: ConfigType,
    /// Application, empty for none.
    pub app_name: Box<str>,
    /// Opaque to the server, empty for none.
    pub encrypted_data_key: Box<str>,
    /// When it happened, milliseconds since the epoch.
    pub at_ms: i64,
    /// Who did it, empty when unknown.
    pub user: Box<str>,
    /// From where, empty when unknown.
    pub ip: Box<str>,
    /// What the author said about it, empty for nothing.
    pub message: Box<str>,
}
