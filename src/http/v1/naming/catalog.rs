//! `/v1/ns/catalog`: what consoles show.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::super::super::form::Params;
use super::super::super::reply::{self, JSON};
use super::super::super::request::Request;
use super::super::super::routes::Answer;
use super::shapes::{InstanceJson, MetadataJson, checker, selector};
use super::{bound_service, flag_of, namespace};
use crate::error::{Error, Result};
use crate::service::Services;
use crate::service::naming_lists::{Listed, Wanted, Window};

/// Services a page shows at most.
const PAGE_SIZE_MAX: usize = 500;

/// GET `/service`: a service with its settings and those of its clusters.
pub(in crate::http) fn service(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let params = request.params()?;
    let service = bound_service(&params)?;
    let Some(described) = services.describe(&service) else {
        return Err(Error::NotFound(format!(
            "service {} is not found!",
            service.grouped()
        )));
    };
    let clusters: Vec<_> = described
        .clusters
        .iter()
        .map(|(name, cluster)| ClusterJson {
            service_name: service.grouped(),
            name,
            health_checker: checker(cluster),
            default_port: 80,
            default_check_port: cluster.check_port,
            use_instance_port: cluster.use_instance_port,
            metadata: MetadataJson(&cluster.metadata),
        })
        .collect();
    let body = json!({
        "service": {
            "name": service.name(),
            "groupName": service.group(),
            "protectThreshold": described.set.protect_threshold,
            "selector": selector(&described.set.selector),
            "metadata": MetadataJson(&described.set.metadata),
        },
        "clusters": clusters,
    });
    Ok(Answer::Ready(reply::json(JSON, &body)))
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ClusterJson<'a> {
    service_name: &'a str,
    name: &'a str,
    health_checker: Value,
    default_port: u16,
    default_check_port: u16,
    #[serde(rename = "useIPPort4Check")]
    use_instance_port: bool,
    metadata: MetadataJson<'a>,
}

/// GET `/instances`: the instances of a cluster, page by page.
pub(in crate::http) fn instances(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let params = request.params()?;
    let service = bound_service(&params)?;
    let cluster = params.get("clusterName").ok_or(Error::missing("clusterName"))?;
    let window = bound_window(&params)?;
    let (count, found) = services.find_instances(&service, Some(cluster), window)?;
    let list: Vec<_> = found
        .iter()
        .map(|found| InstanceJson::of(&service, found))
        .collect();
    Ok(Answer::Ready(reply::json(
        JSON,
        &json!({"list": list, "count": count}),
    )))
}

/// `pageNo` and `pageSize`, both of which have to be there.
pub(in crate::http) fn bound_window(params: &Params<'_>) -> Result<Window> {
    let number = |name: &'static str| match params.get(name) {
        None => Err(Error::Missing { name, kind: "int" }),
        Some(text) => whole(text),
    };
    let (page, size) = (number("pageNo")?, number("pageSize")?);
    Ok(Window::of_page(page, size.min(PAGE_SIZE_MAX as i64)))
}

fn whole(text: &str) -> Result<i64> {
    let number: std::result::Result<i32, _> = text.trim().parse();
    let number = number.map_err(|_| Error::Unreadable {
        kind: "int",
        text: text.to_owned(),
    });
    number.map(i64::from)
}

/// GET `/services`: services by parts of their names. Walks a namespace.
pub(in crate::http) fn services(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let params = request.params()?;
    let namespace = namespace(&params)?;
    let text = |name: &str| params.get(name).map(str::trim).unwrap_or_default().to_owned();
    let wanted = Wanted {
        name: text("serviceNameParam"),
        group: text("groupNameParam"),
        instance: if params.get("instance").is_some() {
            text("instance")
        } else {
            text("containedInstance")
        },
        with_instances: flag_of(&params, &["hasIpCount"]).unwrap_or(false),
    };
    let with_instances = flag_of(&params, &["withInstances"]).unwrap_or(false);
    // Left out they are 0 in the Java server, and its page is the first, of no size.
    let window = bound_window(&params)?;
    Ok(Answer::blocking(services, move |services| {
        let (count, found) = services.find_services(&namespace, &wanted, window);
        if with_instances {
            let all: Vec<_> = found.iter().map(|listed| with_hosts(services, listed)).collect();
            return Ok(reply::json(JSON, &all));
        }
        let list: Vec<_> = found.iter().map(LineJson::of).collect();
        Ok(reply::json(JSON, &json!({"count": count, "serviceList": list})))
    }))
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LineJson<'a> {
    name: &'a str,
    group_name: &'a str,
    cluster_count: usize,
    ip_count: usize,
    healthy_instance_count: usize,
    /// A text in all generations.
    trigger_flag: &'static str,
}

impl<'a> LineJson<'a> {
    fn of(listed: &'a Listed) -> LineJson<'a> {
        LineJson {
            name: listed.service.name(),
            group_name: listed.service.group(),
            cluster_count: listed.tally.clusters,
            ip_count: listed.tally.instances,
            healthy_instance_count: listed.tally.healthy,
            trigger_flag: if listed.is_protected() { "true" } else { "false" },
        }
    }
}

/// A service with the instances of all its clusters.
fn with_hosts(services: &Services, listed: &Listed) -> Value {
    let service = &listed.service;
    let everything = Window {
        skip: 0,
        take: usize::MAX,
    };
    let found = services.find_instances(service, None, everything);
    let mut clusters = Map::new();
    for (place, seen) in found.map(|(_, found)| found).unwrap_or_default() {
        let cluster = clusters
            .entry(&*place.cluster)
            .or_insert_with(|| json!({"hosts": []}));
        let host = json!({
            "valid": seen.healthy,
            "metadata": MetadataJson(&seen.instance.metadata),
            "port": place.port,
            "ip": &*place.ip,
            "weight": seen.instance.weight,
            "enabled": seen.instance.enabled,
        });
        if let Some(hosts) = cluster.get_mut("hosts").and_then(Value::as_array_mut) {
            hosts.push(host);
        }
    }
    let described = services.describe(service);
    let metadata = described
        .map(|described| described.set.metadata)
        .unwrap_or_default();
    json!({
        "serviceName": service.name(),
        "groupName": service.group(),
        "clusterMap": clusters,
        "metadata": MetadataJson(&metadata),
    })
}
