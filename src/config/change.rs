//! What a publish and a removal do to what is there.
//!
//! Functions of their arguments alone: no clock, no randomness, no lookup. Every node gets the same
//! result from the same log (design: "apply is a function of log and state").

use std::sync::Arc;

use bytes::Bytes;

use super::gray::{NAME_MAX, VARIANTS_MAX};
use super::{
    ConfigId, Detail, Entry, Gray, GrayError, GrayRule, GrayVersions, History, HistoryId, Labels, Operation,
};
use crate::model::{ConfigKey, ConfigType, HttpDate, Md5};

/// Which version of a config is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Variant {
    /// The one everybody sees who sees no other.
    #[default]
    Formal,
    /// One that only some see.
    Gray {
        /// Its name.
        name: Box<str>,
        /// Who sees it.
        rule: GrayRule,
    },
}

impl Variant {
    /// The beta variant, for clients with one of these addresses (comma list).
    pub fn beta(ips: &str) -> Variant {
        Variant::Gray {
            name: super::gray::BETA.into(),
            rule: GrayRule::beta(ips),
        }
    }

    /// The variant of a tag.
    pub fn tag(tag: &str) -> Variant {
        let name = format!("{}{tag}", super::gray::TAG_PREFIX).into();
        Variant::Gray {
            name,
            rule: GrayRule::tag(tag),
        }
    }

    /// Name of a gray variant; empty for the formal version, as history rows have it.
    pub fn gray_name(&self) -> &str {
        match self {
            Variant::Formal => "",
            Variant::Gray { name, .. } => name,
        }
    }
}

/// Who changes something, when, from where and why. Made by the proposer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Milliseconds since the epoch.
    pub now_ms: i64,
    /// User, empty when unknown.
    pub user: String,
    /// Client's address, empty when unknown.
    pub ip: String,
    /// What the author says about it, empty for nothing.
    pub message: String,
    /// History rows the config keeps after this change; 0 keeps none.
    pub history_max: u32,
}

/// What must be there for a publish to happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expectation {
    /// Whatever is there is overwritten.
    #[default]
    None,
    /// If the version exists, its MD5 must be this one. If it does not exist, it is made all the same:
    /// the Java server checks in its UPDATE only.
    Md5(Md5),
}

/// A publish. Attributes that are not given become empty, but for `app_name` and `tags`, which then stay
/// (contract 02 §1.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// The config.
    pub key: ConfigKey,
    /// UTF-8 text.
    pub content: Bytes,
    /// MD5 of the content, made by the proposer.
    pub md5: Md5,
    /// Format of the content.
    pub kind: ConfigType,
    /// Application; `None` leaves it.
    pub app_name: Option<String>,
    /// Tags; `None` leaves them.
    pub tags: Option<Vec<Box<str>>>,
    /// `desc`, empty for none, as the following are.
    pub description: String,
    /// `use`
    pub purpose: String,
    /// `effect`
    pub effect: String,
    /// `schema`
    pub schema: String,
    /// Opaque to the server.
    pub encrypted_data_key: String,
    /// Compare and set.
    pub expectation: Expectation,
    /// Which version.
    pub variant: Variant,
    /// Who, when, from where, why.
    pub origin: Origin,
}

impl Publish {
    /// A publish of the formal version with nothing but a content; the MD5 is computed here.
    pub fn new(key: ConfigKey, content: impl Into<Bytes>, origin: Origin) -> Publish {
        let content = content.into();
        let md5 = Md5::of(&content);
        Publish {
            key,
            content,
            md5,
            kind: ConfigType::Text,
            app_name: None,
            tags: None,
            description: String::new(),
            purpose: String::new(),
            effect: String::new(),
            schema: String::new(),
            encrypted_data_key: String::new(),
            expectation: Expectation::None,
            variant: Variant::Formal,
            origin,
        }
    }
}

/// A removal of one version of a config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// The config.
    pub key: ConfigKey,
    /// Name of the gray variant; `None` for the formal version.
    pub variant: Option<String>,
    /// Who, when, from where, why.
    pub origin: Origin,
}

/// Numbers that a change may use: made from its log index and its position within the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// For a config or variant that appears.
    pub config: ConfigId,
    /// For the history row.
    pub history: HistoryId,
}

/// What is there before a change.
#[derive(Clone, Copy, Debug)]
pub struct Before<'a> {
    /// The formal version.
    pub formal: Option<&'a Entry>,
    /// The variants.
    pub grays: &'a GrayVersions,
}

/// What a change makes of a config; always one history row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// What is stored.
    pub after: After,
    /// The row that tells of it.
    pub history: History,
    /// Whether a client could notice: a content or a rule differs.
    pub noticeable: bool,
}

/// What is stored after a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum After {
    /// The formal version.
    Formal(Box<Detail>),
    /// There is no formal version any more.
    NoFormal,
    /// A variant, and all of them with it.
    Gray(Arc<Gray>, GrayVersions),
    /// The variant of this name is gone; what remains.
    NoGray(Box<str>, GrayVersions),
}

/// Why a publish changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The version that is there has another MD5 than expected.
    #[error("the stored md5 is another one than expected")]
    CasMismatch,
    /// The variant cannot be published.
    #[error(transparent)]
    Gray(#[from] GrayError),
}

/// What becomes of a config by this publish.
///
/// # Errors
/// Nothing changes.
pub fn publish(before: Before<'_>, publish: &Publish, numbers: Numbers) -> Result<Edit, Refusal> {
    match &publish.variant {
        Variant::Formal => publish_formal(before, publish, numbers),
        Variant::Gray { name, rule } => publish_gray(before, publish, (name, rule), numbers),
    }
}

/// What becomes of a config by this removal; `None` when there is nothing to remove.
pub fn remove(before: Before<'_>, removal: &Removal, numbers: Numbers) -> Option<Edit> {
    match &removal.variant {
        None => {
            let formal = before.formal?;
            let history = history_of_formal(formal, Operation::Delete, &removal.origin, numbers);
            Some(Edit {
                after: After::NoFormal,
                history,
                noticeable: true,
            })
        }
        Some(name) => {
            let gray = before.grays.by_name(name)?;
            let history = history_of_gray(gray, Operation::Delete, &removal.origin, numbers);
            let after = After::NoGray(name.as_str().into(), before.grays.with(name, None));
            Some(Edit {
                after,
                history,
                noticeable: true,
            })
        }
    }
}

fn publish_formal(before: Before<'_>, publish: &Publish, numbers: Numbers) -> Result<Edit, Refusal> {
    let old = before.formal;
    check_expectation(publish, old.map(|entry| entry.md5))?;
    let now_ms = publish.origin.now_ms;
    let app_name = publish
        .app_name
        .as_deref()
        .unwrap_or_else(|| old.map_or("", Entry::app_name));
    let tags = publish
        .tags
        .as_deref()
        .unwrap_or_else(|| old.map_or(&[], Entry::tags));
    let entry = Entry {
        key: old.map_or_else(|| publish.key.clone(), |entry| entry.key.clone()),
        id: old.map_or(numbers.config, |entry| entry.id),
        content: own(&publish.content),
        md5: publish.md5,
        md5_hex: publish.md5.hex(),
        kind: publish.kind,
        created_ms: old.map_or(now_ms, |entry| entry.created_ms),
        modified_ms: now_ms,
        last_modified: HttpDate::from_ms(now_ms),
        encrypted_data_key: some_text(&publish.encrypted_data_key),
        labels: Labels::new(app_name, tags),
    };
    let history = match old {
        Some(old) => history_of_formal(old, Operation::Update, &publish.origin, numbers),
        None => history_of_formal(&entry, Operation::Insert, &publish.origin, numbers),
    };
    let noticeable = old.is_none_or(|old| old.md5 != entry.md5);
    let detail = Detail {
        entry,
        description: publish.description.clone(),
        purpose: publish.purpose.clone(),
        effect: publish.effect.clone(),
        schema: publish.schema.clone(),
        user: publish.origin.user.clone(),
        ip: publish.origin.ip.clone(),
    };
    Ok(Edit {
        after: After::Formal(Box::new(detail)),
        history,
        noticeable,
    })
}

fn publish_gray(
    before: Before<'_>,
    publish: &Publish,
    (name, rule): (&str, &GrayRule),
    numbers: Numbers,
) -> Result<Edit, Refusal> {
    rule.check()?;
    if name.is_empty() || name.len() > NAME_MAX || name.contains(ConfigKey::SEPARATOR) {
        return Err(GrayError::RuleFormat.into());
    }
    let old = before.grays.by_name(name);
    check_expectation(publish, old.map(|gray| gray.md5))?;
    if old.is_none() && before.grays.as_slice().len() >= VARIANTS_MAX {
        return Err(GrayError::TooMany.into());
    }
    let now_ms = publish.origin.now_ms;
    let app_name = publish
        .app_name
        .as_deref()
        .unwrap_or_else(|| old.map_or("", |gray| &gray.app_name));
    let gray = Arc::new(Gray {
        key: publish.key.clone(),
        name: name.into(),
        rule: rule.clone(),
        id: old.map_or(numbers.config, |gray| gray.id),
        content: own(&publish.content),
        md5: publish.md5,
        md5_hex: publish.md5.hex(),
        kind: publish.kind,
        created_ms: old.map_or(now_ms, |gray| gray.created_ms),
        modified_ms: now_ms,
        last_modified: HttpDate::from_ms(now_ms),
        app_name: app_name.into(),
        encrypted_data_key: publish.encrypted_data_key.as_str().into(),
        user: publish.origin.user.as_str().into(),
        ip: publish.origin.ip.as_str().into(),
    });
    let history = match old {
        Some(old) => history_of_gray(old, Operation::Update, &publish.origin, numbers),
        None => history_of_gray(&gray, Operation::Insert, &publish.origin, numbers),
    };
    let noticeable = old.is_none_or(|old| old.md5 != gray.md5 || old.rule != gray.rule);
    let all = before.grays.with(name, Some(gray.clone()));
    Ok(Edit {
        after: After::Gray(gray, all),
        history,
        noticeable,
    })
}

fn check_expectation(publish: &Publish, stored: Option<Md5>) -> Result<(), Refusal> {
    match (publish.expectation, stored) {
        (Expectation::Md5(expected), Some(stored)) if expected != stored => Err(Refusal::CasMismatch),
        _ => Ok(()),
    }
}

fn history_of_formal(entry: &Entry, operation: Operation, origin: &Origin, numbers: Numbers) -> History {
    History {
        id: numbers.history,
        key: entry.key.clone(),
        config_id: entry.id,
        operation,
        variant: Variant::Formal,
        content: entry.content.clone(),
        md5: entry.md5,
        kind: entry.kind,
        app_name: entry.app_name().into(),
        encrypted_data_key: entry.encrypted_data_key().into(),
        at_ms: origin.now_ms,
        user: origin.user.as_str().into(),
        ip: origin.ip.as_str().into(),
        message: origin.message.as_str().into(),
    }
}

fn history_of_gray(gray: &Gray, operation: Operation, origin: &Origin, numbers: Numbers) -> History {
    History {
        id: numbers.history,
        key: gray.key.clone(),
        config_id: gray.id,
        operation,
        variant: Variant::Gray {
            name: gray.name.clone(),
            rule: gray.rule.clone(),
        },
        content: gray.content.clone(),
        md5: gray.md5,
        kind: gray.kind,
        app_name: gray.app_name.clone(),
        encrypted_data_key: gray.encrypted_data_key.clone(),
        at_ms: origin.now_ms,
        user: origin.user.as_str().into(),
        ip: origin.ip.as_str().into(),
        message: origin.message.as_str().into(),
    }
}

/// The content in an allocation of exactly its size. What came in is often a slice of a log entry or of a
/// network frame with many entries, which it would keep alive as long as the config lives.
fn own(content: &Bytes) -> Bytes {
    Bytes::copy_from_slice(content)
}

fn some_text(text: &str) -> Option<Box<str>> {
    (!text.is_empty()).then(|| text.into())
}

#[cfg(test)]
mod tests;
