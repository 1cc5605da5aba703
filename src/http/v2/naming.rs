//! `/v2/ns`: services and instances, as API v2 says it. What it shares with v1 stands in `v1::naming`.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};

use super::super::form::Params;
use super::super::reply::{self, JSON, Reply, ResultV2};
use super::super::request::Request;
use super::super::routes::Answer;
use super::super::v1::naming::instance::ShownJson;
use super::super::v1::naming::shapes::{InstanceJson, MetadataJson, checker, selector};
use super::super::v1::naming::{
    batch, bound_service, catalog, flag_of, group, health as v1_health, instance, namespace, number,
    once_done, operator, service as v1_service, service_key,
};
use crate::error::{Error, Result};
use crate::model::ServiceKey;
use crate::service::Services;
use crate::service::naming_lists::{Found, Window};

/// Services of a page when nobody says how many.
const PAGE_SIZE: i64 = 20;
/// And at most.
const PAGE_SIZE_MAX: i64 = 500;

fn ok() -> Reply {
    reply::json(JSON, &ResultV2::ok("ok"))
}

fn told(value: impl Serialize) -> Result<Answer> {
    Ok(Answer::Ready(reply::json(JSON, &ResultV2::ok(value))))
}

/// POST `/instance`.
pub(in super::super) fn register(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    instance::register_as(services, request, ok)
}

/// DELETE `/instance`.
pub(in super::super) fn deregister(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    instance::deregister_as(services, request, ok)
}

/// PUT `/instance`.
pub(in super::super) fn update(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    instance::update_as(services, request, ok)
}

/// PATCH `/instance`. Recorded: API v2 wants the weight, and says that it is done as v1 does.
pub(in super::super) fn patch(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let params = request.params()?;
    if params.get("weight").is_none() {
        return Err(Error::Missing {
            name: "weight",
            kind: "Double",
        });
    }
    instance::patch(services, request)
}

/// GET `/instance/statuses/{key}`: nodes of Nacos ask each other; tools, too.
pub(in super::super) fn statuses(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    // Broken ones are refused, like everywhere.
    request.params()?;
    instance::statuses_of(services, &request.last_segment()?)
}

/// PUT `/instance/metadata/batch`.
pub(in super::super) fn attach(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    batch::update_as(services, request, updated)
}

/// DELETE `/instance/metadata/batch`.
pub(in super::super) fn detach(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    batch::delete_as(services, request, updated)
}

fn updated(names: Vec<String>) -> Reply {
    reply::json(JSON, &ResultV2::ok(json!({ "updated": names })))
}

/// GET `/instance/list`: the ready bytes of the registry, in their frame.
pub(in super::super) fn list(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    const BEFORE: &[u8] = br#"{"code":0,"message":"success","data":"#;
    let found = instance::found(services, request, "clusterName")?;
    let body = [BEFORE, &found, b"}"].concat();
    Ok(Answer::Ready(reply::reply(
        http::StatusCode::OK,
        Some(JSON),
        Bytes::from(body),
    )))
}

/// GET `/instance`.
pub(in super::super) fn detail(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct DetailJson<'a> {
        service_name: &'a str,
        #[serde(flatten)]
        shown: ShownJson<'a>,
    }
    let params = request.params()?;
    let (service, endpoint, seen) = instance::one(services, &params)?;
    told(DetailJson {
        service_name: service.grouped(),
        // Recorded: API v2 tells none here.
        shown: ShownJson::of(None, &endpoint, &seen),
    })
}

/// POST `/service`: makes one, for the kind of instances that it says.
pub(in super::super) fn create_service(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let params = request.params()?;
    let service = service_key(&params)?;
    let mut set = v1_service::settings(&params, threshold(&params)?)?;
    set.ephemeral = flag_of(&params, &["ephemeral"]).unwrap_or(false);
    let services = Arc::clone(services);
    Ok(once_done(ok, async move {
        services.create_service(service, set).await
    }))
}

/// PUT `/service`.
pub(in super::super) fn update_service(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let params = request.params()?;
    let service = service_key(&params)?;
    let set = v1_service::settings(&params, threshold(&params)?)?;
    let services = Arc::clone(services);
    Ok(once_done(ok, async move {
        services.update_service(service, set).await
    }))
}

/// DELETE `/service`.
pub(in super::super) fn delete_service(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let service = bound_service(&request.params()?)?;
    let services = Arc::clone(services);
    Ok(once_done(
        ok,
        async move { services.delete_service(service).await },
    ))
}

fn threshold(params: &Params<'_>) -> Result<f64> {
    let text = params
        .get("protectThreshold")
        .filter(|text| !text.trim().is_empty());
    text.map_or(Ok(0.0), number)
}

/// GET `/service`.
pub(in super::super) fn service(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let service = bound_service(&request.params()?)?;
    let described = services.described(&service)?;
    let clusters: BTreeMap<&str, Value> = described
        .clusters
        .iter()
        .map(|(name, cluster)| {
            let shown = json!({
                "clusterName": &**name,
                "healthChecker": checker(cluster),
                "metadata": MetadataJson(&cluster.metadata),
                "hosts": null,
            });
            (&**name, shown)
        })
        .collect();
    told(json!({
        "namespace": service.namespace_id().to_string(),
        "serviceName": service.name(),
        "groupName": service.group(),
        "clusterMap": clusters,
        "metadata": MetadataJson(&described.set.metadata),
        "protectThreshold": described.set.protect_threshold,
        "selector": selector(&described.set.selector),
        "ephemeral": described.set.ephemeral,
    }))
}

/// GET `/service/list`.
pub(in super::super) fn services(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let params = request.params()?;
    let number_or = |name, other| match params.get(name).filter(|text| !text.trim().is_empty()) {
        Some(text) => number(text),
        None => Ok(other),
    };
    let size = number_or("pageSize", PAGE_SIZE)?.min(PAGE_SIZE_MAX);
    let window = Window::of_page(number_or("pageNo", 1)?, size);
    let (count, names) = services.service_names(&namespace(&params)?, group(&params)?, window);
    let names: Vec<_> = names.iter().map(ServiceKey::name).collect();
    told(json!({"count": count, "services": names}))
}

/// GET `/catalog/instances`: of all clusters, or of one. Of an unknown service: none.
pub(in super::super) fn instances(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let params = request.params()?;
    let service = bound_service(&params)?;
    let window = catalog::bound_window(&params)?;
    let cluster = params.get("clusterName").filter(|name| !name.trim().is_empty());
    let flag = |name| flag_of(&params, &[name]).unwrap_or(false);
    let (healthy_only, enabled_only) = (flag("healthyOnly"), flag("enabledOnly"));
    let everything = Window {
        skip: 0,
        take: usize::MAX,
    };
    let found = match services.find_instances(&service, cluster, everything) {
        Ok((_, found)) => found,
        Err(Error::NotFound(_)) => return told(json!({"count": 0})),
        Err(error) => return Err(error),
    };
    let is_wanted =
        |(_, seen): &&Found| (seen.healthy || !healthy_only) && (seen.instance.enabled || !enabled_only);
    let wanted: Vec<_> = found.iter().filter(is_wanted).collect();
    let shown = wanted.iter().skip(window.skip).take(window.take);
    let shown: Vec<_> = shown.map(|found| InstanceJson::of(&service, found)).collect();
    told(json!({"instances": shown, "count": wanted.len()}))
}

/// PUT `/health`, with and without `/instance`.
pub(in super::super) fn health(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    v1_health::update_as(services, request, ok)
}

/// GET `/ops/metrics`.
pub(in super::super) fn metrics(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let params = request.params()?;
    if flag_of(&params, &["onlyStatus"]).unwrap_or(true) {
        return told(json!({"status": services.naming_status()}));
    }
    Ok(Answer::blocking(services, |services| {
        Ok(reply::json(JSON, &ResultV2::ok(services.naming_metrics())))
    }))
}

/// GET `/ops/switches`.
pub(in super::super) fn switches(services: &Arc<Services>, _request: &Request) -> Result<Answer> {
    told(&**services.switches())
}

/// PUT `/ops/switches`.
pub(in super::super) fn set_switch(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    operator::set_switch_as(services, request, ok)
}
