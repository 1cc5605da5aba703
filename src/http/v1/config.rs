//! `/v1/cs/configs`: one path, many calls, told apart by marker parameters (contract 02 §1).

use std::sync::Arc;

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, LAST_MODIFIED};
use http::{HeaderMap, StatusCode};
use serde::Serialize;

use super::super::form::Params;
use super::super::reply::{self, JSON_UTF8, Reply, RestResult, TEXT};
use super::super::request::Request;
use super::super::routes::Answer;
use super::{PageJson, caller, name, no_cache, or_null, page, yes};
use crate::config::{Client, ConfigId, Detail, Entry, Gray, Pattern, Query, RuleKind, Variant};
use crate::error::{Error, Result};
use crate::model::{ConfigKey, ConfigType, HttpDate, Md5Hex, NamespaceId};
use crate::service::Services;
use crate::service::config::{NewConfig, Reading};
use crate::settings::Consistency;

const CONFIG_TYPE: HeaderName = HeaderName::from_static("config-type");
const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");
const ENCRYPTED_DATA_KEY: HeaderName = HeaderName::from_static("encrypted-data-key");
const IS_BETA: HeaderName = HeaderName::from_static("isbeta");
const TAG: HeaderName = HeaderName::from_static("tag");

/// GET: reads one, unless a marker asks for a list, a detail or the beta variant.
pub(in super::super) fn get(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let params = request.params()?;
    if let Some(mode) = params.get("search") {
        return search(services, &params, mode);
    }
    if params.get("show") == Some("all") {
        return show_all(services, &params);
    }
    if params.get("beta") == Some("true") {
        let key = name(&params).key()?;
        let data = services
            .beta(&key)
            .map(|gray| GrayJson::from(gray.as_ref()).to_value());
        let body = RestResult {
            code: 200,
            message: Some("query beta ok"),
            data,
        };
        return Ok(Answer::Ready(reply::json(JSON_UTF8, &body)));
    }
    read(services, request, &params)
}

fn read(services: &Arc<Services>, request: &Request, params: &Params<'_>) -> Result<Answer> {
    let key = name(params).key()?;
    let tag = params.get("tag");
    tag.map_or(Ok(()), crate::model::validate::tag)
        .map_err(|invalid| Error::Invalid(invalid.to_string()))?;
    if !is_linearizable(services, params)? {
        let read = reading(services, request_client(request), &key, tag);
        return read.map(Answer::Ready);
    }
    let (services, client) = (Arc::clone(services), request_client(request));
    let tag = tag.map(str::to_owned);
    Ok(Answer::later(async move {
        services.catch_up().await?;
        reading(&services, client, &key, tag.as_deref())
    }))
}

/// `consistency=local|linearizable`; without it, what the settings say.
fn is_linearizable(services: &Services, params: &Params<'_>) -> Result<bool> {
    match params.get("consistency") {
        None | Some("") => Ok(services.reads_are_linearizable()),
        Some(text) => match Consistency::parse(text) {
            Some(consistency) => Ok(consistency == Consistency::Linearizable),
            None => Err(Error::Invalid(format!("invalid consistency : {text}"))),
        },
    }
}

/// What gray rules look at.
struct RequestClient {
    ip: String,
    tag: Option<String>,
}

fn request_client(request: &Request) -> RequestClient {
    RequestClient {
        ip: request.client_ip(),
        tag: request.header("vipserver-tag").map(str::to_owned),
    }
}

fn reading(services: &Services, client: RequestClient, key: &ConfigKey, tag: Option<&str>) -> Result<Reply> {
    let client = Client {
        ip: &client.ip,
        tag: client.tag.as_deref(),
    };
    Ok(match services.read(key, tag, &client) {
        // A client deletes its own copy when it hears that a config does not exist.
        None if !services.readiness.is_current() => return Err(Error::Unavailable(
            "server is STARTING now: it finds no leader and may not know this config, please try again later!"
                .to_owned(),
        )),
        None => reply::reply(StatusCode::NOT_FOUND, Some(JSON_UTF8), "config data not exist\n"),
        Some(Reading::Formal(entry)) => {
            let key = entry.encrypted_data_key();
            let headers = headers(entry.kind, entry.md5_hex, entry.last_modified, key);
            reply::with_headers(headers, entry.content.clone())
        }
        Some(Reading::Matched(gray)) => {
            let mut headers = gray_headers(&gray);
            if gray.rule.kind == RuleKind::Beta {
                headers.insert(IS_BETA, HeaderValue::from_static("true"));
            }
            reply::with_headers(headers, gray.content.clone())
        }
        Some(Reading::Tag(gray, tag)) => {
            let mut headers = gray_headers(&gray);
            if let Ok(tag) = HeaderValue::try_from(tag) {
                headers.insert(TAG, tag);
            }
            reply::with_headers(headers, gray.content.clone())
        }
    })
}

fn gray_headers(gray: &Gray) -> HeaderMap {
    headers(
        gray.kind,
        gray.md5_hex,
        gray.last_modified,
        &gray.encrypted_data_key,
    )
}

/// The headers of a content. `Encrypted-Data-Key` is always there, as recorded, and mostly empty.
fn headers(kind: ConfigType, md5: Md5Hex, modified: HttpDate, encrypted_data_key: &str) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(12);
    headers.insert(CONTENT_TYPE, TEXT);
    headers.insert(CONFIG_TYPE, HeaderValue::from_static(kind.as_str()));
    insert(&mut headers, CONTENT_MD5, md5.as_bytes());
    insert(&mut headers, LAST_MODIFIED, modified.as_bytes());
    no_cache(&mut headers);
    if encrypted_data_key.is_empty() {
        headers.insert(ENCRYPTED_DATA_KEY, HeaderValue::from_static(""));
    } else {
        insert(&mut headers, ENCRYPTED_DATA_KEY, encrypted_data_key.as_bytes());
    }
    headers
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &[u8]) {
    // Only an encrypted data key with control characters cannot be a header; it is left out.
    if let Ok(value) = HeaderValue::from_bytes(value) {
        headers.insert(name, value);
    }
}

/// POST: publishes.
pub(in super::super) fn publish(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let mut params = request.params()?;
    for marker in ["import", "clone"] {
        if params.get(marker) == Some("true") {
            return Err(Error::Invalid(format!("{marker} is not served yet")));
        }
    }
    let content = params.take("content");
    // Nacos takes these two as headers; as parameters they are easier to send, and r-nacos users do.
    let header_or = |name: &str, params: &'_ Params<'_>| {
        request
            .header(name)
            .map(str::to_owned)
            .or_else(|| params.get(name).map(str::to_owned))
    };
    let cas_md5 = header_or("casMd5", &params);
    let beta_ips = header_or("betaIps", &params);
    let caller = caller(request);
    let new = NewConfig {
        name: name(&params),
        content,
        tag: params.get("tag"),
        beta_ips: beta_ips.as_deref(),
        cas_md5: cas_md5.as_deref(),
        app_name: params.get("appName"),
        config_tags: params.get("config_tags"),
        description: params.get("desc"),
        purpose: params.get("use"),
        effect: params.get("effect"),
        kind: params.get("type"),
        schema: params.get("schema"),
        encrypted_data_key: params.get("encryptedDataKey"),
        source_user: params.get("src_user"),
        message: params.any(&["message", "publishMessage"]),
    };
    let publication = services.prepare(new, &caller)?;
    let services = Arc::clone(services);
    Ok(Answer::later(async move {
        services.publish(publication).await?;
        Ok(yes())
    }))
}

/// DELETE: one config, a variant of it, or several by id.
pub(in super::super) fn remove(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let params = request.params()?;
    let (owner, caller) = (Arc::clone(services), caller(request));
    if params.get("delType") == Some("ids") {
        let ids = ids(params.get("ids").ok_or(Error::Missing {
            name: "ids",
            kind: "List",
        })?)?;
        return Ok(Answer::later(async move {
            owner.remove_by_ids(&ids, &caller).await?;
            Ok(reply::json(JSON_UTF8, &RestResult::ok(true)))
        }));
    }
    let key = name(&params).key()?;
    let is_beta = params.get("beta") == Some("true");
    let tag = params.get("tag").filter(|tag| !tag.trim().is_empty());
    tag.map_or(Ok(()), crate::model::validate::tag)
        .map_err(|invalid| Error::Invalid(invalid.to_string()))?;
    let variant = match tag {
        _ if is_beta => Variant::beta(""),
        Some(tag) => Variant::tag(tag),
        None => Variant::Formal,
    };
    Ok(Answer::later(async move {
        owner.remove(key, variant, &caller).await?;
        Ok(if is_beta {
            reply::json(
                JSON_UTF8,
                &RestResult {
                    code: 200,
                    message: Some("stop beta ok"),
                    data: true,
                },
            )
        } else {
            yes()
        })
    }))
}

fn ids(list: &str) -> Result<Vec<ConfigId>> {
    let id = |text: &str| match text.trim().parse() {
        Ok(id) => Ok(ConfigId(id)),
        Err(_) => Err(Error::Unreadable {
            kind: "java.util.List",
            text: text.to_owned(),
        }),
    };
    list.split(',')
        .filter(|text| !text.trim().is_empty())
        .map(id)
        .collect()
}

fn search(services: &Arc<Services>, params: &Params<'_>, mode: &str) -> Result<Answer> {
    let pattern = match mode {
        "accurate" => Pattern::accurate,
        "blur" => Pattern::blur,
        other => return Err(Error::Invalid(format!("invalid search : {other}"))),
    };
    let asked = name(params);
    // In a search a wildcard is no illegal character; the namespace is an id as everywhere.
    crate::service::config::Name {
        group: None,
        data_id: None,
        ..asked
    }
    .check_characters()?;
    let data_id = asked.data_id.ok_or(Error::missing("dataId"))?;
    let group = asked.group.ok_or(Error::missing("group"))?;
    let page = page(params, None)?;
    let list = |name: &str| {
        let list = params.get(name).unwrap_or_default().split(',').map(str::trim);
        list.filter(|text| !text.is_empty())
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let query = Query {
        namespace: NamespaceId::from(asked.namespace),
        data_id: pattern(data_id),
        group: pattern(group),
        app_name: pattern(params.get("appName").unwrap_or_default()),
        tags: list("config_tags").iter().map(|tag| pattern(tag)).collect(),
        kinds: list("types")
            .iter()
            .map(|kind| ConfigType::from_name(kind))
            .collect(),
        content: Pattern::contains(params.get("config_detail").unwrap_or_default()),
    };
    // Recorded: four statements in the Java server, which select different columns.
    let (accurate, by_tags) = (mode == "accurate", !query.tags.is_empty());
    let columns = Columns {
        key: !accurate && !by_tags,
        kind: !(accurate && by_tags),
    };
    Ok(Answer::blocking(services, move |services| {
        let found = services.search(&query, page);
        let body = PageJson::from(found.map(|entry| ItemJson::of(&entry, columns)));
        Ok(reply::json(JSON_UTF8, &body))
    }))
}

fn show_all(services: &Arc<Services>, params: &Params<'_>) -> Result<Answer> {
    let key = name(params).key()?;
    Ok(Answer::blocking(services, move |services| {
        Ok(match services.detail(&key)? {
            None => reply::reply(StatusCode::OK, None, ""),
            Some(detail) => reply::json(JSON_UTF8, &DetailJson::from(&detail)),
        })
    }))
}

/// GET `/catalog`: what is known about a config besides its content.
pub(in super::super) fn catalog(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let key = name(&request.params()?).key()?;
    Ok(Answer::blocking(services, move |services| {
        let detail = services.detail(&key)?;
        let data = detail.as_ref().map(AdvanceJson::from);
        Ok(reply::json(JSON_UTF8, &RestResult::ok(data)))
    }))
}

/// Which of the columns that vary a list shows.
#[derive(Clone, Copy, Debug)]
struct Columns {
    /// An empty encrypted data key is an empty text, else null; one that is there is always shown.
    key: bool,
    kind: bool,
}

/// A line of a list (`ConfigInfo`).
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ItemJson {
    id: String,
    data_id: String,
    group: String,
    content: Option<String>,
    md5: Option<&'static str>,
    encrypted_data_key: Option<String>,
    tenant: String,
    app_name: String,
    r#type: Option<&'static str>,
}

impl ItemJson {
    fn of(entry: &Entry, columns: Columns) -> ItemJson {
        let key = entry.encrypted_data_key();
        ItemJson {
            id: entry.id.0.to_string(),
            data_id: entry.key.data_id().to_owned(),
            group: entry.key.group().to_owned(),
            content: Some(String::from_utf8_lossy(&entry.content).into_owned()),
            // Recorded: null in lists.
            md5: None,
            encrypted_data_key: (columns.key || !key.is_empty()).then(|| key.to_owned()),
            tenant: entry.key.namespace().to_owned(),
            app_name: entry.app_name().to_owned(),
            r#type: columns.kind.then_some(entry.kind.as_str()),
        }
    }
}

/// `ConfigAllInfo`
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DetailJson<'a> {
    id: String,
    data_id: &'a str,
    group: &'a str,
    content: std::borrow::Cow<'a, str>,
    md5: &'a str,
    encrypted_data_key: &'a str,
    tenant: &'a str,
    app_name: &'a str,
    #[serde(flatten)]
    advance: AdvanceJson<'a>,
}

impl<'a> From<&'a Detail> for DetailJson<'a> {
    fn from(detail: &'a Detail) -> DetailJson<'a> {
        let entry = &detail.entry;
        DetailJson {
            id: entry.id.0.to_string(),
            data_id: entry.key.data_id(),
            group: entry.key.group(),
            content: String::from_utf8_lossy(&entry.content),
            md5: entry.md5_hex.as_str(),
            encrypted_data_key: entry.encrypted_data_key(),
            tenant: entry.key.namespace(),
            app_name: entry.app_name(),
            advance: AdvanceJson::from(detail),
        }
    }
}

/// `ConfigAdvanceInfo`
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AdvanceJson<'a> {
    r#type: &'a str,
    create_time: i64,
    modify_time: i64,
    create_user: Option<&'a str>,
    create_ip: Option<&'a str>,
    desc: Option<&'a str>,
    r#use: Option<&'a str>,
    effect: Option<&'a str>,
    schema: Option<&'a str>,
    config_tags: Option<String>,
}

impl<'a> From<&'a Detail> for AdvanceJson<'a> {
    fn from(detail: &'a Detail) -> AdvanceJson<'a> {
        let tags = detail.entry.tags();
        AdvanceJson {
            r#type: detail.entry.kind.as_str(),
            create_time: detail.entry.created_ms,
            modify_time: detail.entry.modified_ms,
            create_user: or_null(&detail.user),
            create_ip: or_null(&detail.ip),
            desc: or_null(&detail.description),
            r#use: or_null(&detail.purpose),
            effect: or_null(&detail.effect),
            schema: or_null(&detail.schema),
            config_tags: (!tags.is_empty()).then(|| tags.join(",")),
        }
    }
}

/// `ConfigInfo4Beta`
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct GrayJson<'a> {
    id: String,
    data_id: &'a str,
    group: &'a str,
    content: std::borrow::Cow<'a, str>,
    md5: &'a str,
    encrypted_data_key: Option<&'a str>,
    tenant: &'a str,
    app_name: &'a str,
    r#type: Option<&'static str>,
    beta_ips: &'a str,
}

impl<'a> From<&'a Gray> for GrayJson<'a> {
    fn from(gray: &'a Gray) -> GrayJson<'a> {
        GrayJson {
            id: gray.id.0.to_string(),
            data_id: gray.key.data_id(),
            group: gray.key.group(),
            content: String::from_utf8_lossy(&gray.content),
            md5: gray.md5_hex.as_str(),
            encrypted_data_key: or_null(&gray.encrypted_data_key),
            tenant: gray.key.namespace(),
            app_name: &gray.app_name,
            r#type: None,
            beta_ips: &gray.rule.expression,
        }
    }
}

impl GrayJson<'_> {
    fn to_value(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_ids() {
        assert_eq!(ids("1,2"), Ok(vec![ConfigId(1), ConfigId(2)]));
        assert_eq!(ids(""), Ok(vec![]));
        assert!(matches!(ids("1,abc"), Err(Error::Unreadable { .. })));
        assert!(matches!(ids("-1"), Err(Error::Unreadable { .. })));
    }

    #[test]
    fn an_encrypted_data_key_that_is_no_header_is_left_out() {
        let date = HttpDate::from_ms(0);
        let md5 = crate::model::Md5::of(b"").hex();
        assert_eq!(
            headers(ConfigType::Text, md5, date, "k")
                .get(ENCRYPTED_DATA_KEY)
                .unwrap(),
            "k"
        );
        assert_eq!(
            headers(ConfigType::Text, md5, date, "")
                .get(ENCRYPTED_DATA_KEY)
                .unwrap(),
            ""
        );
        assert_eq!(
            headers(ConfigType::Text, md5, date, "a\nb").get(ENCRYPTED_DATA_KEY),
            None
        );
    }
}
