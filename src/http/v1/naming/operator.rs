//! `/v1/ns/operator`, also known as `/v1/ns/ops`: how the registry is, and its switches.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::super::form::Params;
use super::super::super::reply::{self, JSON};
use super::super::super::request::Request;
use super::super::super::routes::Answer;
use super::{Done, flag_of, ok, once_done, port};
use crate::error::{Error, Result};
use crate::model::validate;
use crate::service::Services;
use crate::service::nodes::Node;

/// GET `/metrics`: SDKs of 1.x take it for the health of the server.
pub(in crate::http) fn metrics(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let params = request.params()?;
    if flag_of(&params, &["onlyStatus"]).unwrap_or(true) {
        let body = json!({"status": services.naming_status()});
        return Ok(Answer::Ready(reply::json(JSON, &body)));
    }
    Ok(Answer::blocking(services, |services| {
        Ok(reply::json(JSON, &services.naming_metrics()))
    }))
}

/// GET `/switches`.
pub(in crate::http) fn switches(services: &Arc<Services>, _request: &Request) -> Result<Answer> {
    Ok(Answer::Ready(reply::json(JSON, &**services.switches())))
}

/// PUT `/switches`: turns one, on all nodes or (`debug=true`) on this one.
pub(in crate::http) fn set_switch(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    set_switch_as(services, request, ok)
}

pub(in crate::http) fn set_switch_as(
    services: &Arc<Services>,
    request: &Request,
    done: Done,
) -> Result<Answer> {
    let params = request.params()?;
    let (entry, value) = (bound(&params, "entry")?, bound(&params, "value")?);
    let (entry, value) = (entry.to_owned(), value.to_owned());
    let here = flag_of(&params, &["debug"]).unwrap_or(false);
    let services = Arc::clone(services);
    Ok(once_done(done, async move {
        services.set_switch(&entry, &value, here).await
    }))
}

fn bound<'a>(params: &'a Params<'_>, name: &'static str) -> Result<&'a str> {
    params.get(name).ok_or(Error::missing(name))
}

/// GET `/push/state`: how pushes of changes went since this node began, or was asked to forget.
pub(in crate::http) fn push_state(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let params = request.params()?;
    let flag = |name| flag_of(&params, &[name]).unwrap_or(false);
    let state = services.push_state(flag("reset"));
    // Whole numbers where the Java server has them.
    let ratio = if state.total == 0 {
        json!(0)
    } else {
        json!(state.succeeded as f64 / state.total as f64)
    };
    let mut body = json!({
        "succeed": state.succeeded,
        "total": state.total,
        "ratio": ratio,
        "reset": flag("reset"),
    });
    if flag("detail") {
        let detail = json!({"avgPushCost": state.average_ms, "maxPushCost": state.longest_ms});
        if let Some(body) = body.as_object_mut() {
            body.insert("detail".to_owned(), detail);
        }
    }
    Ok(Answer::Ready(reply::json(JSON, &body)))
}

/// GET `/distro/client`: the node that handles what a client writes. All nodes name the same one. Responsibility goes
/// by service here, not by client, so it may be another one that does it: whichever is asked passes a write on.
pub(in crate::http) fn responsible(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let params = request.params()?;
    let client = client_address(&params)?;
    let services = Arc::clone(services);
    Ok(Answer::later(async move {
        let address = services.responsible_server(&client).await;
        Ok(reply::json(JSON, &json!({"responsibleServer": address})))
    }))
}

/// `ip:port` of a client over HTTP.
pub(in crate::http) fn client_address(params: &Params<'_>) -> Result<String> {
    let (ip, _) = (bound(params, "ip")?, bound(params, "port")?);
    let port = port(params)?.ok_or(Error::missing("port"))?;
    if ip.trim().is_empty() {
        return Err(Error::missing("ip"));
    }
    validate::ip(ip.trim()).map_err(|invalid| Error::Illegal(invalid.to_string()))?;
    Ok(format!("{}:{port}", ip.trim()))
}

/// GET `/servers`: the nodes, in the words of 1.2 and (from `servePort` on) of those before it. `healthy=true`:
/// those that answer.
pub(in crate::http) fn servers(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let params = request.params()?;
    let healthy = flag_of(&params, &["healthy"]).unwrap_or(false);
    let services = Arc::clone(services);
    Ok(Answer::later(async move {
        let nodes = services.nodes().await;
        let shown = nodes.iter().filter(|node| node.load.is_some() || !healthy);
        let shown: Vec<_> = shown.map(server).collect();
        Ok(reply::json(JSON, &json!({ "servers": shown })))
    }))
}

fn server(node: &Node) -> Value {
    let (ip, port) = node.address.rsplit_once(':').unwrap_or((&node.address, ""));
    let port: u16 = port.parse().unwrap_or_default();
    let alive = node.load.is_some();
    json!({
        "ip": ip,
        "port": port,
        "address": node.address,
        "state": if alive { "UP" } else { "DOWN" },
        "extendInfo": {},
        "failAccessCnt": 0,
        "servePort": port,
        "site": "unknown",
        "weight": 1,
        "adWeight": 0,
        "alive": alive,
        "key": node.address,
    })
}

/// PUT `/log`: levels of single loggers do not exist here (RNACOS_LOG sets them at the start); taken, so
/// that tools go on.
pub(in crate::http) fn log(_services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let params = request.params()?;
    bound(&params, "logName")?;
    bound(&params, "logLevel")?;
    Ok(Answer::Ready(ok()))
}
