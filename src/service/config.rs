//! Publishing, reading and removing configs.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use super::{Caller, Services};
use crate::clock;
use crate::config::{
    Client, ConfigId, Detail, Entry, Expectation, Gray, GrayError, History, HistoryId, Origin, Publish,
    Query, Removal, Selected, Variant,
};
use crate::error::{Error, Result};
use crate::model::validate::{self, Attributes, Invalid};
use crate::model::{ConfigKey, ConfigType, Md5, NamespaceId, Page, PageRequest};
use crate::seeded::{self, Bug};
use crate::state::{Command, Outcome, REMOVE_BATCH_MAX, ReadError};

/// Longest `encryptedDataKey`, `src_user` and list of beta addresses, in characters.
const SHORT_TEXT_MAX: usize = 1_024;
/// Longest message that explains a publish, in characters.
const MESSAGE_MAX: usize = 1_024;

/// The name of a config as a client gave it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Name<'a> {
    /// `tenant` or `namespaceId`.
    pub namespace: Option<&'a str>,
    /// `group` or `groupName`.
    pub group: Option<&'a str>,
    /// `dataId`
    pub data_id: Option<&'a str>,
}

impl Name<'_> {
    /// The key, after the checks every call makes, in the order of the Java server: characters and
    /// lengths of what is there, then presence, then blankness.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn key(&self) -> Result<ConfigKey> {
        self.check_characters()?;
        let data_id = self.data_id.ok_or(Error::missing("dataId"))?;
        let group = self.group.ok_or(Error::missing("group"))?;
        validate::key(data_id, group).map_err(invalid)?;
        let namespace = match self.namespace {
            Some("public") if seeded::has(Bug::PublicApart) => Some("public-apart"),
            namespace => namespace,
        };
        Ok(ConfigKey::new(&NamespaceId::from(namespace), group, data_id))
    }

    /// The first of those checks alone, for calls that do not need a whole name.
    ///
    /// # Errors
    /// A part that no name can have.
    pub fn check_characters(&self) -> Result<()> {
        let illegal = |invalid: Invalid| Error::Illegal(invalid.to_string());
        self.namespace
            .map_or(Ok(()), validate::namespace_id)
            .map_err(illegal)?;
        self.data_id.map_or(Ok(()), validate::data_id).map_err(illegal)?;
        self.group.map_or(Ok(()), validate::group).map_err(illegal)
    }
}

/// A publish as a client gave it.
#[derive(Clone, Debug, Default)]
pub struct NewConfig<'a> {
    /// Which config.
    pub name: Name<'a>,
    /// Its content.
    pub content: Option<Cow<'a, str>>,
    /// Tag of a tag variant.
    pub tag: Option<&'a str>,
    /// Addresses of a beta variant; wins over `tag`.
    pub beta_ips: Option<&'a str>,
    /// MD5 the stored content must have.
    pub cas_md5: Option<&'a str>,
    /// Application; absent leaves it.
    pub app_name: Option<&'a str>,
    /// Comma list of tags; absent leaves them.
    pub config_tags: Option<&'a str>,
    /// `desc`
    pub description: Option<&'a str>,
    /// `use`
    pub purpose: Option<&'a str>,
    /// `effect`
    pub effect: Option<&'a str>,
    /// `type`; unknown ones are `text`.
    pub kind: Option<&'a str>,
    /// `schema`
    pub schema: Option<&'a str>,
    /// `encryptedDataKey`
    pub encrypted_data_key: Option<&'a str>,
    /// Who is named as the author, for callers without a login.
    pub source_user: Option<&'a str>,
    /// Why: kept in the history.
    pub message: Option<&'a str>,
}

/// A checked publish, free of the request it came in.
#[derive(Debug)]
pub struct Publication(Box<Publish>);

/// What a reader gets.
#[derive(Clone, Debug)]
pub enum Reading {
    /// The version everybody sees.
    Formal(Arc<Entry>),
    /// A variant, chosen by the client's address or tag.
    Matched(Arc<Gray>),
    /// The tag variant that was asked for.
    Tag(Arc<Gray>, String),
}

impl Services {
    /// Checks a publish and makes it ready. Everything that depends on time, chance or who asks is fixed
    /// here and travels with the command.
    ///
    /// # Errors
    /// What is wrong with it; nothing was done.
    pub fn prepare(&self, new: NewConfig<'_>, caller: &Caller) -> Result<Publication> {
        new.name.check_characters()?;
        let NewConfig { content, name, .. } = new;
        let present = |text: Option<&str>| text.map(str::trim).is_some_and(|text| !text.is_empty());
        let attributes = Attributes {
            config_tags: new.config_tags.unwrap_or_default(),
            description: new.description.unwrap_or_default(),
            purpose: new.purpose.unwrap_or_default(),
            effect: new.effect.unwrap_or_default(),
            kind: new.kind.unwrap_or_default(),
            schema: new.schema.unwrap_or_default(),
            app_name: new.app_name.unwrap_or_default(),
        };
        if name.data_id.is_none() || name.group.is_none() {
            return Err(name.key().err().unwrap_or(Error::missing("dataId")));
        }
        let content = content.ok_or(Error::missing("content"))?;
        let key = name.key()?;
        validate::content(&content).map_err(invalid)?;
        if content.len() > self.config.content_bytes_max {
            return Err(invalid(Invalid::ContentTooLong {
                max: self.config.content_bytes_max,
            }));
        }
        new.tag.map_or(Ok(()), validate::tag).map_err(invalid)?;
        validate::attributes(&attributes).map_err(invalid)?;
        short("encryptedDataKey", new.encrypted_data_key, SHORT_TEXT_MAX)?;
        short("src_user", new.source_user, SHORT_TEXT_MAX)?;
        short("betaIps", new.beta_ips, SHORT_TEXT_MAX)?;
        short("message", new.message, MESSAGE_MAX)?;
        let owned = |text: Option<&str>| text.unwrap_or_default().to_owned();
        let author = new
            .source_user
            .filter(|user| !user.is_empty())
            .unwrap_or(&caller.user);
        let origin = Origin {
            user: author.to_owned(),
            message: owned(new.message),
            ..self.origin(caller)
        };
        let content = match content {
            Cow::Owned(text) => Bytes::from(text),
            Cow::Borrowed(text) => Bytes::copy_from_slice(text.as_bytes()),
        };
        let content = seeded::content(content);
        let publish = Publish {
            kind: ConfigType::from_name(attributes.kind),
            app_name: new.app_name.map(str::to_owned),
            tags: new.config_tags.map(split_tags),
            description: owned(new.description),
            purpose: owned(new.purpose),
            effect: owned(new.effect),
            schema: owned(new.schema),
            encrypted_data_key: owned(new.encrypted_data_key),
            expectation: if present(new.cas_md5) && !seeded::has(Bug::CasIgnored) {
                expectation(new.cas_md5)?
            } else {
                Expectation::None
            },
            variant: match (new.beta_ips, new.tag) {
                _ if seeded::has(Bug::GrayIsFormal) => Variant::Formal,
                (Some(ips), _) if present(Some(ips)) => Variant::beta(ips),
                (_, Some(tag)) if present(Some(tag)) => Variant::tag(tag),
                _ => Variant::Formal,
            },
            ..Publish::new(key, content, origin)
        };
        Ok(Publication(Box::new(publish)))
    }

    /// Publishes.
    ///
    /// # Errors
    /// See [`Error`]: all but `Indeterminate` mean that nothing was done.
    pub async fn publish(&self, publication: Publication) -> Result<()> {
        match self.propose(Command::ConfigPut(publication.0)).await? {
            Outcome::ConfigInserted(_) | Outcome::ConfigUpdated(_) => Ok(()),
            Outcome::CasMismatch => Err(Error::CasMismatch),
            Outcome::GrayRefused(refusal) => Err(gray_error(refusal)),
            other => Err(unexpected(other)),
        }
    }

    /// What a client sees under a name. With `tag`, that variant or nothing.
    pub fn read(&self, key: &ConfigKey, tag: Option<&str>, client: &Client<'_>) -> Option<Reading> {
        match tag.filter(|tag| !tag.trim().is_empty()) {
            Some(tag) => {
                let variant = Variant::tag(tag);
                let gray = self.state.gray(key, variant.gray_name())?;
                Some(Reading::Tag(gray, tag.to_owned()))
            }
            None => Some(match self.state.select(key, client)? {
                Selected::Formal(entry) => Reading::Formal(entry),
                Selected::Gray(gray) => Reading::Matched(gray),
            }),
        }
    }

    /// Removes a config, or with `tag` that variant. Removing what is not there is no error.
    ///
    /// # Errors
    /// See [`Error`]: all but `Indeterminate` mean that nothing was done.
    pub async fn remove(&self, key: ConfigKey, variant: Variant, caller: &Caller) -> Result<()> {
        if seeded::has(Bug::RemoveIgnored) {
            return Ok(());
        }
        let variant = match variant {
            Variant::Formal => None,
            gray @ Variant::Gray { .. } => Some(gray.gray_name().to_owned()),
        };
        let removal = Removal {
            key,
            variant,
            origin: self.origin(caller),
        };
        match self.propose(Command::ConfigRemove(removal)).await? {
            Outcome::ConfigsRemoved(_) => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// Removes configs by id; unknown ids are no error.
    ///
    /// # Errors
    /// Too many at once; else as [`Services::remove`].
    pub async fn remove_by_ids(&self, ids: &[ConfigId], caller: &Caller) -> Result<()> {
        if ids.len() > REMOVE_BATCH_MAX {
            return Err(Error::Invalid(format!(
                "at most {REMOVE_BATCH_MAX} configs at once"
            )));
        }
        let found = ids
            .iter()
            .filter_map(|id| Some((self.state.by_id(*id)?.key.clone(), *id)));
        let configs: Vec<_> = found.collect();
        if configs.is_empty() {
            return Ok(());
        }
        match self
            .propose(Command::ConfigRemoveBatch {
                configs,
                origin: self.origin(caller),
            })
            .await?
        {
            Outcome::ConfigsRemoved(_) => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// The beta variant of a config.
    pub fn beta(&self, key: &ConfigKey) -> Option<Arc<Gray>> {
        self.state.gray(key, Variant::beta("").gray_name())
    }

    /// A page of the configs that meet the query, by id. May look at every config of a namespace: call it
    /// where waiting is allowed.
    pub fn search(&self, query: &Query, page: PageRequest) -> Page<Arc<Entry>> {
        self.state.search(query, page)
    }

    /// Everything there is to know about the formal version. Reads the tables: call it where waiting is
    /// allowed.
    ///
    /// # Errors
    /// The tables cannot be read.
    pub fn detail(&self, key: &ConfigKey) -> Result<Option<Detail>> {
        self.state.detail(key).map_err(unreadable)
    }

    /// A page of a config's history, newest first. Reads the tables.
    ///
    /// # Errors
    /// The tables cannot be read.
    pub fn history(&self, key: &ConfigKey, page: PageRequest) -> Result<Page<History>> {
        self.state.history(key, page).map_err(unreadable)
    }

    /// A row of a config's history by its number. Reads the tables.
    ///
    /// # Errors
    /// The tables cannot be read.
    pub fn history_row(&self, key: &ConfigKey, id: HistoryId) -> Result<Option<History>> {
        self.state.history_row(key, id).map_err(unreadable)
    }

    /// The newest history row of a config. Reads the tables.
    ///
    /// # Errors
    /// The tables cannot be read.
    pub fn history_newest(&self, key: &ConfigKey, config: ConfigId) -> Result<Option<History>> {
        self.state.history_newest(key, config).map_err(unreadable)
    }

    fn origin(&self, caller: &Caller) -> Origin {
        Origin {
            now_ms: clock::wall_ms(),
            user: caller.user.clone(),
            ip: caller.ip.clone(),
            message: String::new(),
            history_max: self.config.history_max,
        }
    }
}

fn unreadable(error: ReadError) -> Error {
    match error {
        ReadError::Reloading => Error::Unavailable(error.to_string()),
        other => Error::Internal(other.to_string()),
    }
}

/// An outcome the use case does not have.
pub(super) fn unexpected(outcome: Outcome) -> Error {
    match outcome {
        Outcome::Unknown => Error::from(crate::consensus::ProposeError::Unknown),
        Outcome::Refused(refused) => Error::Internal(refused.to_string()),
        other => Error::Internal(format!("unexpected outcome {other:?}")),
    }
}

fn invalid(invalid: Invalid) -> Error {
    Error::Invalid(invalid.to_string())
}

fn gray_error(refusal: GrayError) -> Error {
    let code = match refusal {
        GrayError::TooMany => 20_010,
        GrayError::RuleFormat => 20_011,
        GrayError::RuleVersion => 20_012,
        GrayError::RuleKind => 20_013,
    };
    Error::Gray {
        code,
        text: refusal.to_string(),
    }
}

fn short(name: &'static str, text: Option<&str>, max: usize) -> Result<()> {
    match text {
        Some(text) if text.len() > max && text.chars().count() > max => {
            Err(invalid(Invalid::TextTooLong { name, max }))
        }
        _ => Ok(()),
    }
}

fn expectation(md5: Option<&str>) -> Result<Expectation> {
    let text = md5.unwrap_or_default().trim();
    let md5 = Md5::from_hex(text)
        .ok_or_else(|| Error::Invalid("casMd5 is no md5: 32 hexadecimal digits".to_owned()))?;
    Ok(Expectation::Md5(md5))
}

fn split_tags(list: &str) -> Vec<Box<str>> {
    list.split(',')
        .map(str::trim)
        .filter(|tag| !tag.is_empty())
        .map(Box::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name<'a>(namespace: Option<&'a str>, group: Option<&'a str>, data_id: Option<&'a str>) -> Name<'a> {
        Name {
            namespace,
            group,
            data_id,
        }
    }

    #[test]
    fn names_are_checked_in_the_order_of_the_java_server() {
        let wrong = |name: Name<'_>| name.key().unwrap_err();
        // Illegal characters are told even when something else is missing.
        assert!(matches!(wrong(name(None, None, Some("a b"))), Error::Illegal(_)));
        assert!(matches!(wrong(name(Some("a b"), None, None)), Error::Illegal(_)));
        assert_eq!(wrong(name(None, None, None)), Error::missing("dataId"));
        assert_eq!(wrong(name(None, None, Some("a"))), Error::missing("group"));
        assert_eq!(
            wrong(name(None, Some("g"), Some(""))),
            Error::Invalid("invalid dataId : ".to_owned())
        );
        let key = name(Some("public"), Some("g"), Some("a")).key().unwrap();
        assert_eq!((key.namespace(), key.group(), key.data_id()), ("", "g", "a"));
    }

    #[test]
    fn tags_are_split_and_trimmed() {
        assert_eq!(
            split_tags(" a, b,,c "),
            [Box::from("a"), Box::from("b"), Box::from("c")]
        );
        assert!(split_tags("").is_empty());
    }

    #[test]
    fn cas_md5_must_be_one() {
        assert!(expectation(Some("0123456789abcdef0123456789ABCDEF")).is_ok());
        assert!(matches!(expectation(Some("x")), Err(Error::Invalid(_))));
    }
}
