//! `/v1/cs/history`.

use std::sync::Arc;

use http::StatusCode;
use serde::Serialize;

use super::super::reply::{self, JSON_UTF8, Reply};
use super::super::request::Request;
use super::super::routes::Answer;
use super::{PageJson, iso_time, name, page};
use crate::config::{ConfigId, History, HistoryId, Pattern, Query, Variant};
use crate::error::{Error, Result};
use crate::model::{NamespaceId, PageRequest};
use crate::service::Services;
use crate::service::config::Name;

/// Page of a list that does not say.
const DEFAULT_PAGE: PageRequest = PageRequest { number: 1, size: 100 };
/// When every history row was created, according to the Java server.
const CREATED: &str = "2010-05-05T00:00:00.000+00:00";
/// Configs that `/configs` shows at most.
const CONFIGS_MAX: usize = 10_000;

/// GET: with `search=accurate` a page of rows, else one row by `nid`.
pub(in super::super) fn list_or_detail(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let params = request.params()?;
    if params.get("search") == Some("accurate") {
        let key = name(&params).key()?;
        let page = page(&params, Some(DEFAULT_PAGE))?;
        return Ok(Answer::blocking(services, move |services| {
            let rows = services.history(&key, page)?;
            Ok(reply::json(
                JSON_UTF8,
                &PageJson::from(rows.map(|row| RowJson::of(&row, false))),
            ))
        }));
    }
    let key = name(&params).key()?;
    let nid = HistoryId(number(params.get("nid").ok_or(Error::Missing {
        name: "nid",
        kind: "Long",
    })?)?);
    Ok(Answer::blocking(services, move |services| {
        Ok(one(services.history_row(&key, nid)?))
    }))
}

/// GET `/previous`: the newest row of a config.
pub(in super::super) fn previous(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let params = request.params()?;
    let key = name(&params).key()?;
    let id = ConfigId(number(params.get("id").ok_or(Error::Missing {
        name: "id",
        kind: "Long",
    })?)?);
    Ok(Answer::blocking(services, move |services| {
        Ok(one(services.history_newest(&key, id)?))
    }))
}

/// GET `/configs`: the configs of a namespace, without their contents.
pub(in super::super) fn configs(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let params = request.params()?;
    let namespace = params
        .any(&["tenant", "namespaceId"])
        .ok_or(Error::missing("tenant"))?;
    Name {
        namespace: Some(namespace),
        ..Name::default()
    }
    .check_characters()?;
    let query = Query {
        data_id: Pattern::Any,
        ..Query::all(NamespaceId::new(namespace))
    };
    Ok(Answer::blocking(services, move |services| {
        let all = services.search(
            &query,
            PageRequest {
                number: 1,
                size: CONFIGS_MAX,
            },
        );
        let items: Vec<_> = all.items.iter().map(|entry| ConfigJson::of(entry)).collect();
        Ok(reply::json(JSON_UTF8, &items))
    }))
}

fn one(row: Option<History>) -> Reply {
    match row {
        None => reply::reply(StatusCode::OK, Some(JSON_UTF8), ""),
        Some(row) => reply::json(JSON_UTF8, &RowJson::of(&row, true)),
    }
}

fn number(text: &str) -> Result<u64> {
    text.trim().parse().map_err(|_| Error::Unreadable {
        kind: "java.lang.Long",
        text: text.to_owned(),
    })
}

/// `ConfigHistoryInfo`
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RowJson {
    id: String,
    last_id: i64,
    data_id: String,
    group: String,
    tenant: String,
    app_name: String,
    md5: Option<String>,
    content: Option<String>,
    src_ip: Option<String>,
    src_user: Option<String>,
    op_type: String,
    publish_type: &'static str,
    gray_name: String,
    ext_info: String,
    created_time: &'static str,
    last_modified_time: String,
    encrypted_data_key: Option<String>,
}

impl RowJson {
    /// Recorded: lists leave content and md5 out.
    fn of(row: &History, whole: bool) -> RowJson {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let publish_type = if row.variant == Variant::Formal {
            "formal"
        } else {
            "gray"
        };
        RowJson {
            id: row.id.0.to_string(),
            last_id: -1,
            data_id: row.key.data_id().to_owned(),
            group: row.key.group().to_owned(),
            tenant: row.key.namespace().to_owned(),
            app_name: row.app_name.to_string(),
            md5: whole.then(|| row.md5.hex().to_string()),
            content: whole.then(|| String::from_utf8_lossy(&row.content).into_owned()),
            src_ip: some(&row.ip),
            src_user: some(&row.user),
            // A CHAR(10) column in the Java server; its console trims.
            op_type: format!("{:<10}", row.operation.as_str()),
            publish_type,
            gray_name: row.variant.gray_name().to_owned(),
            ext_info: ext_info(row),
            created_time: CREATED,
            last_modified_time: iso_time(row.at_ms),
            encrypted_data_key: whole.then(|| row.encrypted_data_key.to_string()),
        }
    }
}

/// Type and, when there is one, the author's message, as JSON text.
fn ext_info(row: &History) -> String {
    let mut info = serde_json::Map::new();
    info.insert("type".to_owned(), row.kind.as_str().into());
    if !row.message.is_empty() {
        info.insert("message".to_owned(), row.message.to_string().into());
    }
    serde_json::Value::Object(info).to_string()
}

/// `ConfigInfoWrapper`
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ConfigJson<'a> {
    id: &'static str,
    data_id: &'a str,
    group: &'a str,
    content: Option<&'static str>,
    md5: Option<&'static str>,
    encrypted_data_key: Option<&'static str>,
    tenant: &'a str,
    app_name: &'a str,
    r#type: &'static str,
    last_modified: i64,
}

impl<'a> ConfigJson<'a> {
    fn of(entry: &'a crate::config::Entry) -> ConfigJson<'a> {
        ConfigJson {
            id: "0",
            data_id: entry.key.data_id(),
            group: entry.key.group(),
            content: None,
            md5: None,
            encrypted_data_key: None,
            tenant: entry.key.namespace(),
            app_name: entry.app_name(),
            r#type: entry.kind.as_str(),
            last_modified: entry.modified_ms,
        }
    }
}
