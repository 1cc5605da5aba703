//! `/v1/ns/service`: services, their names and who watches them.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::super::super::form::Params;
use super::super::super::reply::{self, JSON, RestResult};
use super::super::super::request::Request;
use super::super::super::routes::Answer;
use super::shapes::{MetadataJson, checker, selector};
use super::{
    bound_service, flag_of, group, metadata, namespace, number, ok, once_done, required, service_key,
};
use crate::error::{Error, Result};
use crate::model::ServiceKey;
use crate::naming::ServiceMetadata;
use crate::service::Services;
use crate::service::naming::check_metadata;
use crate::service::naming_admin;
use crate::service::naming_lists::{Described, Window};
use crate::service::naming_subscribers::Subscriber;

/// GET `/list`: names of the services of a group, which SDKs of 1.x ask for again and again.
pub(in crate::http) fn list(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let params = request.params()?;
    let window = Window::of_page(page_number(&params, "pageNo")?, page_number(&params, "pageSize")?);
    let (namespace, group) = (namespace(&params)?, group(&params)?);
    let (count, names) = services.service_names(&namespace, group, window);
    let doms = names.iter().map(ServiceKey::name).collect();
    Ok(Answer::Ready(reply::json(JSON, &NamesJson { count, doms })))
}

/// What is no number counts as 0, as recorded.
fn page_number(params: &Params<'_>, name: &'static str) -> Result<i64> {
    Ok(required(params, name)?.parse().unwrap_or(0))
}

#[derive(Debug, Serialize)]
struct NamesJson<'a> {
    count: usize,
    doms: Vec<&'a str>,
}

/// GET `/names`: grouped names of one namespace or of all. For operators: it walks them.
pub(in crate::http) fn names(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let params = request.params()?;
    let one = params
        .get("namespaceId")
        .is_some_and(|text| !text.trim().is_empty());
    let namespace = if one { Some(namespace(&params)?) } else { None };
    let part = params.get("expr").unwrap_or_default().to_owned();
    Ok(Answer::blocking(services, move |services| {
        let (mut count, mut all) = (0, Map::new());
        for (namespace, names) in services.names_with(namespace.as_ref(), &part) {
            count += names.len();
            let names: Vec<Value> = names.iter().map(|name| name.grouped().into()).collect();
            all.insert(namespace.as_public_str().to_owned(), names.into());
        }
        Ok(reply::json(
            JSON,
            &json!({"META-INF/services": all, "count": count}),
        ))
    }))
}

/// POST: makes one, for persistent instances.
pub(in crate::http) fn create(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let params = request.params()?;
    let service = bound_service(&params)?;
    let threshold = params.get("protectThreshold").filter(|text| !text.is_empty());
    let threshold = threshold.map_or(Ok(0.0), |text| {
        text.trim().parse().map_err(|_| Error::Unreadable {
            kind: "float",
            text: text.to_owned(),
        })
    });
    let set = settings(&params, threshold?)?;
    let services = Arc::clone(services);
    Ok(once_done(ok, async move {
        services.create_service(service, set).await
    }))
}

/// PUT: sets what belongs to the service as a whole.
pub(in crate::http) fn update(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let params = request.params()?;
    let service = service_key(&params)?;
    let set = settings(&params, number(required(&params, "protectThreshold")?)?)?;
    let services = Arc::clone(services);
    Ok(once_done(ok, async move {
        services.update_service(service, set).await
    }))
}

/// DELETE: removes one that is empty.
pub(in crate::http) fn delete(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let service = bound_service(&request.params()?)?;
    let services = Arc::clone(services);
    Ok(once_done(
        ok,
        async move { services.delete_service(service).await },
    ))
}

/// What is to be set for a service.
pub(in crate::http) fn settings(params: &Params<'_>, protect_threshold: f64) -> Result<ServiceMetadata> {
    let metadata = metadata::parse(params.get("metadata"))?;
    check_metadata(&metadata)?;
    Ok(ServiceMetadata {
        ephemeral: false,
        protect_threshold,
        selector: naming_admin::selector(params.get("selector").unwrap_or_default())?,
        metadata,
    })
}

/// GET: a service with its clusters.
pub(in crate::http) fn detail(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let service = bound_service(&request.params()?)?;
    let described = services.described(&service)?;
    Ok(Answer::Ready(reply::json(JSON, &DetailJson::of(&described))))
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DetailJson<'a> {
    namespace_id: String,
    group_name: &'a str,
    name: &'a str,
    protect_threshold: f64,
    metadata: MetadataJson<'a>,
    selector: Value,
    clusters: Vec<ClusterJson<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ClusterJson<'a> {
    name: &'a str,
    health_checker: Value,
    metadata: MetadataJson<'a>,
}

impl<'a> DetailJson<'a> {
    fn of(described: &'a Described) -> DetailJson<'a> {
        let Described {
            service,
            set,
            clusters,
        } = described;
        DetailJson {
            namespace_id: service.namespace_id().to_string(),
            group_name: service.group(),
            name: service.name(),
            protect_threshold: set.protect_threshold,
            metadata: MetadataJson(&set.metadata),
            selector: selector(&set.selector),
            clusters: clusters
                .iter()
                .map(|(name, cluster)| ClusterJson {
                    name,
                    health_checker: checker(cluster),
                    metadata: MetadataJson(&cluster.metadata),
                })
                .collect(),
        }
    }
}

/// GET `/subscribers`: who watches a service, on all nodes or (`aggregation=false`) on this one.
pub(in crate::http) fn subscribers(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let params = request.params()?;
    let service = service_key(&params)?;
    let number_or = |name, other| match params.get(name).filter(|text| !text.trim().is_empty()) {
        Some(text) => number(text),
        None => Ok(other),
    };
    let window = Window::of_page(number_or("pageNo", 1)?, number_or("pageSize", 1_000)?);
    let everywhere = flag_of(&params, &["aggregation"]).unwrap_or(true);
    let services = Arc::clone(services);
    Ok(Answer::later(async move {
        let first = window.skip.saturating_add(window.take);
        let found = match everywhere {
            true => services.watchers_everywhere(&service, first).await,
            false => services.watchers(&service, first),
        };
        let shown = found.first.iter().skip(window.skip).take(window.take);
        let shown: Vec<_> = shown.map(|one| SubscriberJson::of(&service, one)).collect();
        Ok(reply::json(
            JSON,
            &json!({"subscribers": shown, "count": found.count}),
        ))
    }))
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SubscriberJson<'a> {
    addr_str: String,
    agent: &'a str,
    app: &'a str,
    ip: &'a str,
    port: u16,
    namespace_id: String,
    service_name: &'a str,
    cluster: &'a str,
}

impl<'a> SubscriberJson<'a> {
    fn of(service: &'a ServiceKey, one: &'a Subscriber) -> SubscriberJson<'a> {
        SubscriberJson {
            addr_str: format!("{}:{}", one.ip, one.port),
            agent: &one.agent,
            app: &one.app,
            ip: &one.ip,
            port: one.port,
            namespace_id: service.namespace_id().to_string(),
            service_name: service.grouped(),
            cluster: &one.clusters,
        }
    }
}

/// GET `/selector/types`.
pub(in crate::http) fn selector_types(_services: &Arc<Services>, _request: &Request) -> Result<Answer> {
    Ok(Answer::Ready(reply::json(
        JSON,
        &RestResult::ok(["label", "none"]),
    )))
}
