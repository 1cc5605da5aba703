//! The formal version of a config.

use bytes::Bytes;

use crate::model::{ConfigKey, ConfigType, HttpDate, Md5, Md5Hex};

/// Id of a config, for listings and for deleting by id. Made from the log index of its first publish; a
/// config that is removed and published again gets a new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConfigId(pub u64);

/// What reading a config needs, kept in memory and shared by readers. What only a detail view shows
/// ([`Detail`]) stays in the tables: 100,000 configs of 1 KiB are to fit into 200 MiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub key: ConfigKey,
    /// Its id.
    pub id: ConfigId,
    /// UTF-8 text in an allocation of its own: it must not keep a log entry or a network frame alive.
    pub content: Bytes,
    /// MD5 of the content.
    pub md5: Md5,
    /// `md5` as every answer shows it.
    pub md5_hex: Md5Hex,
    /// Format of the content.
    pub kind: ConfigType,
    /// First publish since it exists, milliseconds since the epoch, on the proposer's clock.
    pub created_ms: i64,
    /// Newest publish, milliseconds since the epoch.
    pub modified_ms: i64,
    /// `modified_ms` as the `Last-Modified` header.
    pub last_modified: HttpDate,
    /// Opaque to the server; most configs have none.
    pub encrypted_data_key: Option<Box<str>>,
    /// What searches look at; most configs have none.
    pub labels: Option<Box<Labels>>,
}

impl Entry {
    /// Application, empty for none.
    pub fn app_name(&self) -> &str {
        self.labels.as_ref().map_or("", |labels| &labels.app_name)
    }

    /// Tags, empty for none.
    pub fn tags(&self) -> &[Box<str>] {
        self.labels.as_ref().map_or(&[], |labels| &labels.tags)
    }

    /// The encrypted data key, empty for none.
    pub fn encrypted_data_key(&self) -> &str {
        self.encrypted_data_key.as_deref().unwrap_or_default()
    }
}

/// Attributes of a config by which it is found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// Application, empty for none.
    pub app_name: Box<str>,
    /// In the order in which they were given.
    pub tags: Vec<Box<str>>,
}

impl Labels {
    /// Nothing at all for no labels.
    pub fn new(app_name: &str, tags: &[Box<str>]) -> Option<Box<Labels>> {
        let empty = app_name.is_empty() && tags.is_empty();
        (!empty).then(|| {
            Box::new(Labels {
                app_name: app_name.into(),
                tags: tags.to_vec(),
            })
        })
    }
}

/// Everything there is to know about the formal version of a config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detail {
    /// What readers see.
    pub entry: Entry,
    /// `desc`, empty for none, as the following are.
    pub description: String,
    /// `use`
    pub purpose: String,
    /// `effect`
    pub effect: String,
    /// `schema`
    pub schema: String,
    /// Who published last (`createUser` of Nacos, which overwrites it with every publish).
    pub user: String,
    /// From where (`createIp`).
    pub ip: String,
}
