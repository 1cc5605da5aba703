//! `/v1/ns/instance`: registering, going, finding.

use std::sync::Arc;

use serde::Serialize;

use super::super::super::form::Params;
use super::super::super::reply::{self, JSON, Reply};
use super::super::super::request::Request;
use super::super::super::routes::Answer;
use super::shapes::MetadataJson;
use super::{Done, flag_of, metadata, no_loop, number, ok, once_done, place, service_key};
use crate::discovery::{Form, instance_id};
use crate::error::{Error, Result};
use crate::model::{Endpoint, ServiceKey};
use crate::naming::{Filter, Kind, MetadataPatch, OverridePatch, Seen};
use crate::service::Services;
use crate::service::naming::{self, Leaving, NewInstance, ServiceName};
use crate::service::naming_udp::UdpWish;

/// GET `/list`: the hottest path of the registry. Ready bytes while nothing changes.
pub(in crate::http) fn list(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let bytes = found(services, request, "clusters")?;
    Ok(Answer::Ready(reply::reply(
        http::StatusCode::OK,
        Some(JSON),
        bytes,
    )))
}

/// What a list shows.
pub(in crate::http) fn found(services: &Services, request: &Request, clusters: &str) -> Result<bytes::Bytes> {
    let params = request.params()?;
    let service = service_key(&params)?;
    let healthy_only = flag_of(&params, &["healthyOnly"]).unwrap_or(false);
    let filter = naming::filter(params.get(clusters).unwrap_or_default(), healthy_only)?;
    let agent = request.header("user-agent").or(request.header("client-version"));
    services.subscribe_udp(&UdpWish {
        service: &service,
        filter: &filter,
        port: udp_port(&params)?,
        told_ip: params.get("clientIP").unwrap_or_default(),
        peer: request.peer.ip(),
        agent: agent.unwrap_or_default(),
        app: params.get("app").unwrap_or_default(),
    });
    services.query(&service, &filter, Form::Http)
}

fn udp_port(params: &Params<'_>) -> Result<u16> {
    match params.get("udpPort") {
        None | Some("") => Ok(0),
        Some(text) => number(text),
    }
}

/// POST: an instance is there, or says something new.
pub(in crate::http) fn register(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    register_as(services, request, ok)
}

pub(in crate::http) fn register_as(
    services: &Arc<Services>,
    request: &Request,
    done: Done,
) -> Result<Answer> {
    let params = request.params()?;
    let service = service_key(&params)?;
    let (endpoint, instance) = new_instance(&params)?.check()?;
    let healthy = flag_of(&params, &["healthy"]).unwrap_or(true);
    no_loop(services, request, &service)?;
    let ephemeral = is_ephemeral(services, &params);
    let services = Arc::clone(services);
    Ok(once_done(done, async move {
        if ephemeral {
            services.register(service, endpoint, instance, healthy).await
        } else {
            services
                .register_persistent(service, endpoint, instance, healthy)
                .await
        }
    }))
}

/// DELETE: it goes, known or not.
pub(in crate::http) fn deregister(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    deregister_as(services, request, ok)
}

pub(in crate::http) fn deregister_as(
    services: &Arc<Services>,
    request: &Request,
    done: Done,
) -> Result<Answer> {
    let params = request.params()?;
    let service = service_key(&params)?;
    let place = place(&params)?;
    let leaving = Leaving {
        endpoint: place.endpoint()?,
        anywhere: place.cluster.trim().is_empty(),
        kind: flag_of(&params, &["ephemeral"]).map(Kind::of),
    };
    no_loop(services, request, &service)?;
    let services = Arc::clone(services);
    Ok(once_done(done, async move {
        services.deregister(service, leaving).await
    }))
}

/// PUT: an operator sets weight, word and metadata over what the client says.
pub(in crate::http) fn update(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    update_as(services, request, ok)
}

pub(in crate::http) fn update_as(services: &Arc<Services>, request: &Request, done: Done) -> Result<Answer> {
    let params = request.params()?;
    let service = service_key(&params)?;
    let (endpoint, instance) = new_instance(&params)?.check()?;
    let meant = flag_of(&params, &["ephemeral"]).map(Kind::of);
    let services = Arc::clone(services);
    Ok(once_done(done, async move {
        services.set_instance(service, endpoint, instance, meant).await
    }))
}

/// PATCH: as PUT, for what is named alone. `healthy` is taken and has no effect, as in Nacos 2.
pub(in crate::http) fn patch(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let params = request.params()?;
    let service = service_key(&params)?;
    let endpoint = place(&params)?.endpoint()?;
    let given = params.get("metadata").filter(|text| !text.trim().is_empty());
    let metadata = given.map(|text| metadata::parse(Some(text))).transpose()?;
    if let Some(metadata) = &metadata {
        naming::check_metadata(metadata)?;
    }
    let patch = OverridePatch {
        weight: weight(&params)?.map(naming::weight).transpose()?,
        enabled: flag_of(&params, &["enabled", "enable"]),
        metadata: metadata.map_or(MetadataPatch::Keep, MetadataPatch::Set),
    };
    let services = Arc::clone(services);
    Ok(once_done(ok, async move {
        services.patch_instance(service, endpoint, patch).await
    }))
}

fn is_ephemeral(services: &Services, params: &Params<'_>) -> bool {
    let told = flag_of(params, &["ephemeral"]);
    told.unwrap_or_else(|| services.switches().default_instance_ephemeral)
}

fn new_instance<'a>(params: &'a Params<'_>) -> Result<NewInstance<'a>> {
    Ok(NewInstance {
        weight: weight(params)?,
        enabled: flag_of(params, &["enabled", "enable"]),
        metadata: metadata::parse(params.get("metadata"))?,
        ..place(params)?
    })
}

fn weight(params: &Params<'_>) -> Result<Option<f64>> {
    let text = params.get("weight").filter(|text| !text.trim().is_empty());
    text.map(number).transpose()
}

/// GET: one instance.
pub(in crate::http) fn detail(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let params = request.params()?;
    let (service, endpoint, seen) = one(services, &params)?;
    let id = instance_id(&service, &endpoint, &seen.instance.metadata);
    let body = DetailJson {
        service: service.grouped(),
        shown: ShownJson::of(Some(id), &endpoint, &seen),
    };
    Ok(Answer::Ready(reply::json(JSON, &body)))
}

/// The instance that a request names.
pub(in crate::http) fn one(services: &Services, params: &Params<'_>) -> Result<(ServiceKey, Endpoint, Seen)> {
    let service = service_key(params)?;
    let endpoint = place(params)?.endpoint()?;
    let found = services.discovery().look(|registry, _| {
        let Some(seen) = registry.instance(&service, &endpoint) else {
            let filter = Filter {
                clusters: (&*endpoint.cluster).into(),
                with_disabled: true,
                ..Filter::default()
            };
            let view = registry.view(&service, &filter);
            return Err(view.is_some_and(|view| !view.hosts.is_empty()));
        };
        Ok(seen)
    });
    match found {
        Ok(seen) => Ok((service, endpoint, seen)),
        Err(true) => Err(Error::NotFound("no matched ip found!".to_owned())),
        Err(false) => Err(Error::NotFound(format!(
            "no ips found for cluster {} in service {}",
            endpoint.cluster,
            service.grouped()
        ))),
    }
}

/// One instance, as v1 shows it.
#[derive(Debug, Serialize)]
struct DetailJson<'a> {
    service: &'a str,
    #[serde(flatten)]
    shown: ShownJson<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct ShownJson<'a> {
    ip: &'a str,
    port: u16,
    cluster_name: &'a str,
    weight: f64,
    healthy: bool,
    instance_id: Option<String>,
    metadata: MetadataJson<'a>,
}

impl<'a> ShownJson<'a> {
    pub(in crate::http) fn of(id: Option<String>, endpoint: &'a Endpoint, seen: &'a Seen) -> ShownJson<'a> {
        ShownJson {
            ip: &endpoint.ip,
            port: endpoint.port,
            cluster_name: &endpoint.cluster,
            weight: seen.instance.weight,
            healthy: seen.healthy,
            instance_id: id,
            metadata: MetadataJson(&seen.instance.metadata),
        }
    }
}

/// GET `/statuses`: `ip:port_healthy` of every instance. Nodes of Nacos ask each other; tools, too.
pub(in crate::http) fn statuses(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let params = request.params()?;
    let key = params.get("key").ok_or(Error::missing("key"))?;
    statuses_of(services, key)
}

pub(in crate::http) fn statuses_of(services: &Services, key: &str) -> Result<Answer> {
    let (namespace, grouped) = key.split_once("##").unwrap_or(("", key));
    if !grouped.contains(ServiceKey::JOINT) {
        return Err(naming::not_grouped());
    }
    let name = ServiceName {
        namespace: Some(namespace),
        group: None,
        service: Some(grouped),
    };
    let ips = services.statuses(&name.key()?);
    Ok(Answer::Ready(statuses_reply(&ips)))
}

fn statuses_reply(ips: &[String]) -> Reply {
    #[derive(Serialize)]
    struct StatusesJson<'a> {
        ips: &'a [String],
    }
    reply::json(JSON, &StatusesJson { ips })
}
