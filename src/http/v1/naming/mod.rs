//! `/v1/ns`: services and instances (contract 03). Handlers that API v2 shares give what they found to a
//! function that says it in the words of the generation.

pub(in crate::http) mod batch;
pub(in crate::http) mod beat;
pub(in crate::http) mod catalog;
pub(in crate::http) mod cluster;
pub(in crate::http) mod health;
pub(in crate::http) mod instance;
mod metadata;
pub(in crate::http) mod operator;
pub(in crate::http) mod service;
pub(in crate::http) mod shapes;

use super::super::form::Params;
use super::super::reply::{self, Reply, TEXT};
use super::super::request::Request;
use super::super::routes::Answer;
use crate::error::{Error, Result};
use crate::model::{NamespaceId, ServiceKey, validate};
use crate::service::Services;
use crate::service::naming::{NewInstance, ServiceName};
use crate::service::switches::flag;
use http::{Method, StatusCode};

/// A request of another node of the cluster, by its own word. Our nodes do not speak HTTP to each other;
/// tools that play a Nacos node do.
const PEER_AGENT: &str = "Nacos-Server";

/// What keeps a request from being looked at: an operator has limited it, or readers have to wait until
/// this node knows what there is. Writes are taken before that: they are how it gets to know. (Some reads are sent with
/// other methods than GET, so the route says whether it `reads`.)
pub(in crate::http) fn refused(services: &Services, request: &Request, reads: bool) -> Option<Reply> {
    let switches = services.switches();
    let path = request.uri.path();
    let turns_switches = request.method == Method::PUT && path.ends_with("/switches");
    if turns_switches {
        // Otherwise nobody could turn back what was turned.
        return None;
    }
    if !switches.limited_url_map.is_empty() {
        let target = request
            .uri
            .path_and_query()
            .map_or(path, |target| target.as_str());
        let mut limited = switches.limited_url_map.iter();
        if let Some((_, status)) = limited.find(|(beginning, _)| target.starts_with(beginning.as_str())) {
            let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
            return Some(reply::reply(status, None, ""));
        }
    }
    if is_peer(request) {
        return None;
    }
    match switches.overridden_server_status {
        Some(status) if status.serves(reads) => None,
        Some(status) => {
            let text = format!("server is {} now, please try again later!", status.as_str());
            Some(reply::reply(StatusCode::SERVICE_UNAVAILABLE, Some(TEXT), text))
        }
        None if !reads => None,
        // Told by service.
        None if path.ends_with("/ns/instance/list") => None,
        None => {
            let error = services.naming_is_ready().err()?;
            let text = error.to_string();
            Some(reply::reply(StatusCode::SERVICE_UNAVAILABLE, Some(TEXT), text))
        }
    }
}

fn is_peer(request: &Request) -> bool {
    let agent = request.header("user-agent").or(request.header("client-version"));
    agent.is_some_and(|agent| agent.starts_with(PEER_AGENT))
}

/// A node has sent this one a write as the responsible one, and it is not: passing it on could go round in
/// circles.
fn no_loop(services: &Services, request: &Request, service: &ServiceKey) -> Result<()> {
    if is_peer(request) && !services.discovery().is_responsible(service) {
        let from = request.peer.ip();
        return Err(Error::Invalid(format!(
            "receive invalid redirect request from peer {from}"
        )));
    }
    Ok(())
}

/// The service that a request names as a parameter of its method, whose absence the framework of the Java
/// server tells in other words.
pub(in crate::http) fn bound_service(params: &Params<'_>) -> Result<ServiceKey> {
    if params.get("serviceName").is_none() {
        return Err(Error::missing("serviceName"));
    }
    service_key(params)
}

/// The service a request names.
pub(in crate::http) fn service_key(params: &Params<'_>) -> Result<ServiceKey> {
    let name = ServiceName {
        namespace: params.get("namespaceId"),
        group: params.get("groupName"),
        service: params.get("serviceName"),
    };
    name.key()
}

/// Where an instance is; what it says is left at its defaults.
fn place<'a>(params: &'a Params<'_>) -> Result<NewInstance<'a>> {
    // The type of the port is looked at before anything else, whether or not it is there.
    let port = port(params)?;
    let ip = required(params, "ip")?;
    Ok(NewInstance {
        ip: ip.into(),
        port: port.ok_or(Error::Missing {
            name: "port",
            kind: "",
        })?,
        cluster: params.any(&["clusterName", "cluster"]).unwrap_or_default().into(),
        ..NewInstance::default()
    })
}

fn port(params: &Params<'_>) -> Result<Option<u16>> {
    port_named(params, "port")
}

fn port_named(params: &Params<'_>, name: &str) -> Result<Option<u16>> {
    match params.get(name).map(str::trim) {
        None | Some("") => Ok(None),
        Some(text) => match text.parse() {
            Ok(port) => Ok(Some(port)),
            Err(_) => Err(Error::Illegal(
                "Param 'port' is illegal, the value should be between 0 and 65535.".to_owned(),
            )),
        },
    }
}

/// A parameter that has to be there, and not blank.
pub(in crate::http) fn required<'a>(params: &'a Params<'_>, name: &'static str) -> Result<&'a str> {
    let text = params.get(name).map(str::trim).unwrap_or_default();
    if text.is_empty() {
        return Err(Error::Missing { name, kind: "" });
    }
    Ok(text)
}

pub(in crate::http) fn namespace(params: &Params<'_>) -> Result<NamespaceId> {
    let text = params.get("namespaceId").map(str::trim).unwrap_or_default();
    let checked = validate::namespace_id(text).map_err(|invalid| Error::Illegal(invalid.to_string()));
    checked.map(|()| NamespaceId::new(text))
}

/// `groupName`, or the default one.
pub(in crate::http) fn group<'a>(params: &'a Params<'_>) -> Result<&'a str> {
    let text = params.get("groupName").map(str::trim).unwrap_or_default();
    validate::group(text).map_err(|invalid| Error::Illegal(invalid.to_string()))?;
    Ok(if text.is_empty() {
        ServiceKey::DEFAULT_GROUP
    } else {
        text
    })
}

/// One of several names of a flag.
pub(in crate::http) fn flag_of(params: &Params<'_>, names: &[&str]) -> Option<bool> {
    let text = names.iter().find_map(|name| params.get(name));
    text.filter(|text| !text.trim().is_empty()).map(flag)
}

/// The number that stands in a text, as `Double.parseDouble` and its like tell it.
pub(in crate::http) fn number<T: std::str::FromStr>(text: &str) -> Result<T> {
    let number = text.trim().parse();
    number.map_err(|_| Error::Invalid(format!("For input string: \"{text}\"")))
}

/// `ok`
fn ok() -> Reply {
    reply::text("ok")
}

/// A `fn` that says that something was done.
pub(in crate::http) type Done = fn() -> Reply;

/// Waits until something is done, and says that it is.
pub(in crate::http) fn once_done(
    done: Done,
    work: impl Future<Output = Result<()>> + Send + 'static,
) -> Answer {
    Answer::later(async move {
        work.await?;
        Ok(done())
    })
}
