//! Gray variants: contents that only some clients see (contract 02 §8).

use std::sync::Arc;

use bytes::Bytes;

use super::ConfigId;
use crate::model::{ConfigKey, ConfigType, HttpDate, Md5, Md5Hex};

/// Variants a config can have.
pub const VARIANTS_MAX: usize = 10;
/// Name of the beta variant.
pub const BETA: &str = "beta";
/// What the name of a tag variant begins with.
pub const TAG_PREFIX: &str = "tag_";
/// The only version of rules there is.
pub const RULE_VERSION: &str = "1.0.0";
/// Longest name of a variant in bytes; beta and tag variants cannot reach it.
pub const NAME_MAX: usize = 128;
/// Longest expression of a rule in bytes.
pub const EXPRESSION_MAX: usize = 32 << 10;

const BETA_PRIORITY: i32 = i32::MAX;
const TAG_PRIORITY: i32 = i32::MAX - 1;

/// A variant of a config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gray {
    /// The config it is a variant of.
    pub key: ConfigKey,
    /// Unique within the config.
    pub name: Box<str>,
    /// Who sees it.
    pub rule: GrayRule,
    /// Id of the variant.
    pub id: ConfigId,
    /// UTF-8 text in an allocation of its own.
    pub content: Bytes,
    /// MD5 of the content.
    pub md5: Md5,
    /// `md5` as every answer shows it.
    pub md5_hex: Md5Hex,
    /// Format of the content.
    pub kind: ConfigType,
    /// First publish, milliseconds since the epoch.
    pub created_ms: i64,
    /// Newest publish, milliseconds since the epoch.
    pub modified_ms: i64,
    /// `modified_ms` as the `Last-Modified` header.
    pub last_modified: HttpDate,
    /// Application, empty for none.
    pub app_name: Box<str>,
    /// Opaque to the server, empty for none.
    pub encrypted_data_key: Box<str>,
    /// Who published last.
    pub user: Box<str>,
    /// From where.
    pub ip: Box<str>,
}

/// Who sees a variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrayRule {
    /// How the expression is read.
    pub kind: RuleKind,
    /// Version of the expression language.
    pub version: Box<str>,
    /// Addresses separated by commas for `beta`, the tag for `tag`.
    pub expression: Box<str>,
    /// The highest one that matches wins; equal ones are tried by name.
    pub priority: i32,
}

/// How the expression of a rule is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleKind {
    /// The client's address is in the list.
    Beta,
    /// The client carries the tag.
    Tag,
    /// A kind this version does not know: matches nobody.
    Other(Box<str>),
}

impl RuleKind {
    /// The kind of this name.
    pub fn from_name(name: &str) -> RuleKind {
        match name {
            "beta" => RuleKind::Beta,
            "tag" => RuleKind::Tag,
            other => RuleKind::Other(other.into()),
        }
    }

    /// Its name on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            RuleKind::Beta => "beta",
            RuleKind::Tag => "tag",
            RuleKind::Other(name) => name,
        }
    }
}

/// Why a variant cannot be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum GrayError {
    /// Nacos code 20010.
    #[error("a config can have at most {VARIANTS_MAX} gray versions")]
    TooMany,
    /// Nacos code 20011.
    #[error("the gray rule has an invalid format")]
    RuleFormat,
    /// Nacos code 20012.
    #[error("the gray rule has an unknown version")]
    RuleVersion,
    /// Nacos code 20013.
    #[error("the gray rule has an unknown type")]
    RuleKind,
}

impl GrayRule {
    /// The rule of a beta variant: clients with one of these addresses, separated by commas.
    pub fn beta(ips: &str) -> GrayRule {
        let version = RULE_VERSION.into();
        GrayRule {
            kind: RuleKind::Beta,
            version,
            expression: ips.into(),
            priority: BETA_PRIORITY,
        }
    }

    /// The rule of a tag variant: clients with this tag.
    pub fn tag(tag: &str) -> GrayRule {
        let version = RULE_VERSION.into();
        GrayRule {
            kind: RuleKind::Tag,
            version,
            expression: tag.into(),
            priority: TAG_PRIORITY,
        }
    }

    /// Checks a rule that is to be published.
    ///
    /// # Errors
    /// What is wrong with it. A stored rule may fail here after all: it came from a newer version.
    pub fn check(&self) -> Result<(), GrayError> {
        if let RuleKind::Other(_) = self.kind {
            return Err(GrayError::RuleKind);
        }
        if &*self.version != RULE_VERSION {
            return Err(GrayError::RuleVersion);
        }
        let blank = self.expression.split(',').all(|part| part.trim().is_empty());
        if blank || self.expression.len() > EXPRESSION_MAX {
            return Err(GrayError::RuleFormat);
        }
        Ok(())
    }

    /// True when this client sees the variant.
    pub fn matches(&self, client: &Client<'_>) -> bool {
        if &*self.version != RULE_VERSION {
            return false;
        }
        match self.kind {
            RuleKind::Beta => self.expression.split(',').any(|ip| ip.trim() == client.ip),
            RuleKind::Tag => client.tag.is_some_and(|tag| self.expression.trim() == tag),
            RuleKind::Other(_) => false,
        }
    }
}

/// What the rules look at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Client<'a> {
    /// Its address as text; empty when unknown.
    pub ip: &'a str,
    /// Its tag (`Vipserver-Tag`), when it has one.
    pub tag: Option<&'a str>,
}

/// The variants of one config in the order in which they are tried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrayVersions(Arc<[Arc<Gray>]>);

impl GrayVersions {
    /// Puts them in order.
    pub fn new(mut variants: Vec<Arc<Gray>>) -> GrayVersions {
        variants.sort_by(|a, b| {
            b.rule
                .priority
                .cmp(&a.rule.priority)
                .then_with(|| a.name.cmp(&b.name))
        });
        GrayVersions(variants.into())
    }

    /// All of them, in this order.
    pub fn as_slice(&self) -> &[Arc<Gray>] {
        &self.0
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The one of this name.
    pub fn by_name(&self, name: &str) -> Option<&Arc<Gray>> {
        self.0.iter().find(|gray| &*gray.name == name)
    }

    /// The one this client sees, if any.
    pub fn select(&self, client: &Client<'_>) -> Option<&Arc<Gray>> {
        self.0.iter().find(|gray| gray.rule.matches(client))
    }

    /// The same without the one of this name, and with `gray` in its place when given.
    pub(super) fn with(&self, name: &str, gray: Option<Arc<Gray>>) -> GrayVersions {
        let others = self.0.iter().filter(|other| &*other.name != name).cloned();
        GrayVersions::new(others.chain(gray).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client<'a>(ip: &'a str, tag: Option<&'a str>) -> Client<'a> {
        Client { ip, tag }
    }

    #[test]
    fn beta_matches_addresses_and_tag_matches_the_tag() {
        let beta = GrayRule::beta("10.0.0.1, 10.0.0.2");
        assert!(beta.matches(&client("10.0.0.2", None)));
        assert!(!beta.matches(&client("10.0.0.3", Some("10.0.0.1"))));
        let tag = GrayRule::tag("t1");
        assert!(tag.matches(&client("", Some("t1"))));
        assert!(!tag.matches(&client("t1", None)));
    }

    #[test]
    fn unknown_kinds_and_versions_match_nobody_and_are_refused() {
        let mut rule = GrayRule::beta("10.0.0.1");
        rule.kind = RuleKind::from_name("percent");
        assert!(!rule.matches(&client("10.0.0.1", None)));
        assert_eq!(rule.check(), Err(GrayError::RuleKind));
        let mut rule = GrayRule::tag("t");
        rule.version = "2.0.0".into();
        assert!(!rule.matches(&client("", Some("t"))));
        assert_eq!(rule.check(), Err(GrayError::RuleVersion));
        assert_eq!(GrayRule::beta(" , ").check(), Err(GrayError::RuleFormat));
        assert_eq!(GrayRule::beta("10.0.0.1").check(), Ok(()));
    }
}
