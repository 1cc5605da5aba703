//! `/v2/core/loader`: who is connected over gRPC, and sending clients to other nodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::reply::{self, JSON, TEXT};
use super::super::request::Request;
use super::super::routes::Answer;
use crate::error::{Error, Result};
use crate::service::Services;

/// GET `/current`: every client of this node, by the id of its connection.
pub(in super::super) fn current(services: &Arc<Services>, _request: &Request) -> Result<Answer> {
    let clients = services.connected_clients().into_iter().map(|client| {
        let labels: BTreeMap<_, _> = client.labels.into_iter().collect();
        let shown = json!({
            "connectionId": client.id,
            "clientIp": client.client_ip,
            "remoteIp": client.remote.ip().to_canonical().to_string(),
            "remotePort": client.remote.port(),
            "version": client.version,
            "appName": client.app_name,
            "namespaceId": client.namespace,
            "createTime": client.registered_ms,
            "lastActiveTime": client.heard_ms,
            "labels": labels,
        });
        (client.id, shown)
    });
    let clients: serde_json::Map<String, Value> = clients.collect();
    Ok(Answer::Ready(reply::json(JSON, &clients)))
}

/// GET `/reloadCurrent`: keeps `count` clients and asks the others to go.
pub(in super::super) fn reload_current(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let params = request.params()?;
    let count = params.get("count").ok_or(Error::Missing {
        name: "count",
        kind: "Integer",
    })?;
    let count = count.parse().map_err(|_| Error::Unreadable {
        kind: "java.lang.Integer",
        text: count.to_owned(),
    })?;
    services.move_clients(count, params.get("redirectAddress"))?;
    Ok(Answer::Ready(success()))
}

/// GET `/reloadClient`: asks one client to go.
pub(in super::super) fn reload_client(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let params = request.params()?;
    let id = params.get("connectionId").ok_or(Error::missing("connectionId"))?;
    // As the Java server: nobody called so is a success.
    match services.move_client(id, params.get("redirectAddress")) {
        Ok(()) | Err(Error::NotFound(_)) => Ok(Answer::Ready(success())),
        Err(error) => Err(error),
    }
}

fn success() -> reply::Reply {
    reply::reply(http::StatusCode::OK, Some(TEXT), "success")
}
