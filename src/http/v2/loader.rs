//! `/v2/core/loader`, and the same below `/v3/admin/core`: who is connected over gRPC, and sending clients to other
//! nodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::super::reply::{self, JSON, Reply, ResultV2, TEXT};
use super::super::request::Request;
use super::super::routes::Answer;
use crate::error::{Error, Result};
use crate::service::Services;
use crate::service::nodes::{Load, Node};

/// How far from the average a node may be before clients are moved, when nobody says: a tenth.
const FACTOR: f64 = 0.1;

/// How a generation of the API says that something was done; `word` is what v2 says.
type Say = fn(word: &'static str) -> Reply;

fn text(word: &'static str) -> Reply {
    reply::reply(http::StatusCode::OK, Some(TEXT), word)
}

fn nothing(_word: &'static str) -> Reply {
    reply::json(JSON, &ResultV2::ok(Value::Null))
}

/// GET `/current`: every client of this node, by the id of its connection.
pub(in super::super) fn current(services: &Arc<Services>, _request: &Request) -> Result<Answer> {
    Ok(Answer::Ready(reply::json(JSON, &clients(services))))
}

/// GET `/current`.
pub(in super::super) fn current_v3(services: &Arc<Services>, _request: &Request) -> Result<Answer> {
    Ok(Answer::Ready(reply::json(JSON, &ResultV2::ok(clients(services)))))
}

fn clients(services: &Services) -> Map<String, Value> {
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
    clients.collect()
}

/// GET `/cluster`: how many clients each node has.
pub(in super::super) fn cluster(services: &Arc<Services>, _request: &Request) -> Result<Answer> {
    let services = Arc::clone(services);
    Ok(Answer::later(async move {
        let one = |node: &Node, load: &Load| {
            json!({
                "address": node.address,
                // Texts, as recorded.
                "metric": {
                    "sdkConCount": load.clients.to_string(),
                    "conCount": load.clients.to_string(),
                    "load": load.load.to_string(),
                    "cpu": load.cpu.to_string(),
                },
            })
        };
        let mut shown = cluster_load(&services.nodes().await, one);
        let threshold = threshold(&shown);
        shown.insert("threshold".to_owned(), threshold.into());
        Ok(reply::json(JSON, &shown))
    }))
}

/// GET `/cluster`.
pub(in super::super) fn cluster_v3(services: &Arc<Services>, _request: &Request) -> Result<Answer> {
    let services = Arc::clone(services);
    Ok(Answer::later(async move {
        let one = |node: &Node, load: &Load| {
            json!({
                "address": node.address,
                "sdkConCount": load.clients,
                "conCount": load.clients,
                "load": load.load.to_string(),
                "cpu": load.cpu.to_string(),
            })
        };
        let mut shown = cluster_load(&services.nodes().await, one);
        let threshold = format!("{:?}", threshold(&shown));
        shown.insert("threshold".to_owned(), threshold.into());
        Ok(reply::json(JSON, &ResultV2::ok(shown)))
    }))
}

fn cluster_load(nodes: &[Node], one: impl Fn(&Node, &Load) -> Value) -> Map<String, Value> {
    let loads = || nodes.iter().filter_map(|node| Some((node, node.load.as_ref()?)));
    let detail: Vec<_> = loads().map(|(node, load)| one(node, load)).collect();
    let counts = || loads().map(|(_, load)| load.clients);
    let (told, total) = (detail.len(), counts().sum::<usize>());
    let fields = [
        ("detail", json!(detail)),
        ("memberCount", json!(nodes.len())),
        ("metricsCount", json!(told)),
        ("completed", json!(told == nodes.len())),
        ("total", json!(total)),
        ("min", json!(counts().min().unwrap_or_default())),
        ("max", json!(counts().max().unwrap_or_default())),
        ("avg", json!(total / told.max(1))),
    ];
    fields
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// Above it a node has too many clients, by the default factor.
fn threshold(shown: &Map<String, Value>) -> f64 {
    let average = shown.get("avg").and_then(Value::as_f64).unwrap_or_default();
    average * (1.0 + FACTOR)
}

/// GET `/reloadCurrent`: keeps `count` clients and asks the others to go.
pub(in super::super) fn reload_current(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    reload_current_as(services, request, text)
}

/// POST `/reloadCurrent`.
pub(in super::super) fn reload_current_v3(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    reload_current_as(services, request, nothing)
}

fn reload_current_as(services: &Services, request: &Request, say: Say) -> Result<Answer> {
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
    Ok(Answer::Ready(say("success")))
}

/// GET `/reloadClient`: asks one client to go.
pub(in super::super) fn reload_client(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    reload_client_as(services, request, text)
}

/// POST `/reloadClient`.
pub(in super::super) fn reload_client_v3(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    reload_client_as(services, request, nothing)
}

fn reload_client_as(services: &Services, request: &Request, say: Say) -> Result<Answer> {
    let params = request.params()?;
    let id = params.get("connectionId").ok_or(Error::missing("connectionId"))?;
    // As the Java server: nobody called so is a success.
    match services.move_client(id, params.get("redirectAddress")) {
        Ok(()) | Err(Error::NotFound(_)) => Ok(Answer::Ready(say("success"))),
        Err(error) => Err(error),
    }
}

/// GET `/smartReloadCluster`: sends clients from nodes with many to nodes with few.
pub(in super::super) fn balance(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    balance_as(services, request, text)
}

/// POST `/smartReloadCluster`.
pub(in super::super) fn balance_v3(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    balance_as(services, request, nothing)
}

fn balance_as(services: &Arc<Services>, request: &Request, say: Say) -> Result<Answer> {
    let params = request.params()?;
    let factor = match params.get("loaderFactor").map(str::trim) {
        None | Some("") => FACTOR,
        Some(text) => match text.trim_end_matches(['f', 'F']).parse() {
            Ok(factor) if (0.0..=1.0).contains(&factor) => factor,
            _ => {
                return Err(Error::Unreadable {
                    kind: "float",
                    text: text.to_owned(),
                });
            }
        },
    };
    let services = Arc::clone(services);
    Ok(Answer::later(async move {
        let done = services.balance_clients(factor).await;
        Ok(say(if done { "Ok" } else { "Fail" }))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_answer_is_counted_as_a_member_alone() {
        let counts = [(1, Some(10)), (2, None), (3, Some(5))];
        let nodes = counts.map(|(id, clients)| Node::with_clients(id, clients));
        let shown = cluster_load(&nodes, |node, load| json!([node.address, load.clients]));
        let expected = json!({
            "detail": [["10.0.0.1:8848", 10], ["10.0.0.3:8848", 5]], "memberCount": 3, "metricsCount": 2, "completed": false,
            "total": 15, "min": 5, "max": 10, "avg": 7,
        });
        assert_eq!(Value::Object(shown), expected);
    }
}
