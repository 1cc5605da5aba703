//! `/v1/console/namespaces`.

use std::sync::Arc;

use http::StatusCode;
use serde::Serialize;

use super::super::form::Params;
use super::super::reply::{self, JSON, Reply, RestResult};
use super::super::request::Request;
use super::super::routes::Answer;
use super::caller;
use crate::error::{Error, Result};
use crate::model::validate;
use crate::namespace::Summary;
use crate::service::Services;

/// A namespace, as v1 and v2 show it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct NamespaceJson {
    namespace: String,
    namespace_show_name: String,
    namespace_desc: Option<String>,
    quota: u32,
    config_count: usize,
    r#type: u8,
}

impl From<Summary> for NamespaceJson {
    fn from(summary: Summary) -> NamespaceJson {
        NamespaceJson {
            // Consoles and tools of Nacos 2 compare the default namespace to the empty text.
            namespace: summary.id.as_str().to_owned(),
            namespace_show_name: summary.name,
            namespace_desc: (!summary.description.is_empty()).then_some(summary.description),
            quota: summary.quota,
            config_count: summary.config_count,
            r#type: summary.kind,
        }
    }
}

/// Character and length rules, which the Java server checks before anything else.
pub(in super::super) fn check_id(id: Option<&str>) -> Result<()> {
    let illegal = |invalid: validate::Invalid| Error::Illegal(invalid.to_string());
    id.map_or(Ok(()), validate::namespace_id).map_err(illegal)
}

/// GET: the list, one (`show=all`), or whether an id is taken (`checkNamespaceIdExist=true`).
pub(in super::super) fn get(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let params = request.params()?;
    check_id(params.any(&["namespaceId", "customNamespaceId"]))?;
    if params.get("show") == Some("all") {
        let namespace = services.namespace(required(&params, "namespaceId")?)?;
        return Ok(Answer::Ready(reply::json(JSON, &NamespaceJson::from(namespace))));
    }
    if params.get("checkNamespaceIdExist") == Some("true") {
        let id = required(&params, "customNamespaceId")?;
        let exists = !id.trim().is_empty() && services.namespace_exists(id);
        return Ok(Answer::Ready(boolean(exists)));
    }
    let all: Vec<_> = services
        .namespaces()
        .into_iter()
        .map(NamespaceJson::from)
        .collect();
    Ok(Answer::Ready(reply::json(JSON, &RestResult::ok(all))))
}

/// POST: makes one; `false` when the id or name is not possible or the id is taken.
pub(in super::super) fn create(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let params = request.params()?;
    check_id(params.get("customNamespaceId"))?;
    let id = required(&params, "customNamespaceId")?.to_owned();
    let name = required(&params, "namespaceName")?.to_owned();
    let description = params.get("namespaceDesc").unwrap_or_default().to_owned();
    let (services, caller) = (Arc::clone(services), caller(request));
    Ok(Answer::later(async move {
        true_or_false(services.create_namespace(&id, &name, &description, &caller).await)
    }))
}

/// PUT: renames one.
pub(in super::super) fn update(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let params = request.params()?;
    let id = required(&params, "namespace")?.to_owned();
    let name = required(&params, "namespaceShowName")?.to_owned();
    let description = params.get("namespaceDesc").unwrap_or_default().to_owned();
    let (services, caller) = (Arc::clone(services), caller(request));
    Ok(Answer::later(async move {
        true_or_false(services.update_namespace(&id, &name, &description, &caller).await)
    }))
}

/// DELETE: deletes one.
pub(in super::super) fn delete(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let params = request.params()?;
    check_id(params.get("namespaceId"))?;
    let id = required(&params, "namespaceId")?.to_owned();
    let (services, caller) = (Arc::clone(services), caller(request));
    Ok(Answer::later(async move {
        true_or_false(services.delete_namespace(&id, &caller).await)
    }))
}

fn required<'a>(params: &'a Params<'_>, name: &'static str) -> Result<&'a str> {
    params.get(name).ok_or(Error::missing(name))
}

fn true_or_false(result: Result<()>) -> Result<Reply> {
    match result {
        Ok(()) => Ok(boolean(true)),
        Err(Error::NamespaceTaken { .. } | Error::NamespaceIllegal(_)) => Ok(boolean(false)),
        Err(error) => Err(error),
    }
}

fn boolean(value: bool) -> Reply {
    reply::reply(StatusCode::OK, Some(JSON), if value { "true" } else { "false" })
}
