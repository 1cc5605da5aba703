//! `/v2/ns/client`: who publishes and who subscribes, by client and by service (contract 03 §10).

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::reply::{self, JSON, Reply, ResultV2};
use super::super::request::Request;
use super::super::routes::Answer;
use super::super::v1::naming::{bound_service, number, operator};
use crate::error::{Error, Result};
use crate::model::ServiceKey;
use crate::service::Services;
use crate::service::naming_client::Who;
use crate::service::naming_clients::NamingClientView;

fn told(value: impl serde::Serialize) -> Reply {
    reply::json(JSON, &ResultV2::ok(value))
}

/// GET `/list`: ids of all clients.
pub(in super::super) fn list(services: &Arc<Services>, _request: &Request) -> Result<Answer> {
    Ok(Answer::blocking(services, |services| {
        Ok(told(services.naming_client_ids()))
    }))
}

/// Answers about one client, on a thread where all services may be walked.
fn of_one(
    services: &Arc<Services>,
    request: &Request,
    look: impl FnOnce(&Services, &str) -> Result<Reply> + Send + 'static,
) -> Result<Answer> {
    let params = request.params()?;
    let id = params
        .get("clientId")
        .ok_or(Error::missing("clientId"))?
        .to_owned();
    Ok(Answer::blocking(services, move |services| look(services, &id)))
}

/// GET: one client.
pub(in super::super) fn detail(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    of_one(services, request, |services, id| {
        Ok(told(shown(&services.naming_client_view(id)?)))
    })
}

fn shown(client: &NamingClientView) -> Value {
    let mut shown = json!({
        "clientId": client.id,
        "ephemeral": client.ephemeral,
        "lastUpdatedTime": client.updated_ms,
    });
    let (id, _) = client.id.split_once('#').unwrap_or((&client.id, ""));
    let more = match &client.connection {
        None => {
            let (ip, port) = id.rsplit_once(':').unwrap_or((id, ""));
            json!({"clientType": "ipPort", "clientIp": ip, "clientPort": port})
        }
        // Of another node's connection its id is known: time, address and port.
        Some(None) => {
            let mut parts = id.split('_').skip(1);
            let (ip, port) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            json!({"clientType": "connection", "connectType": "GRPC", "clientIp": ip, "clientPort": port})
        }
        Some(Some(who)) => json!({
            "clientType": "connection",
            "connectType": "GRPC",
            "appName": who.app,
            "version": who.agent,
            "clientIp": who.ip,
            "clientPort": who.port.to_string(),
        }),
    };
    if let (Some(shown), Value::Object(more)) = (shown.as_object_mut(), more) {
        shown.extend(more);
    }
    shown
}

/// GET `/publish/list`: what one client registers.
pub(in super::super) fn published(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    of_one(services, request, |services, id| {
        let published = services.published_by(id)?;
        let shown = published.iter().map(|(service, place)| {
            let place = json!({"ip": &*place.ip, "port": place.port, "cluster": &*place.cluster});
            of_service(service, "registeredInstance", place)
        });
        Ok(told(shown.collect::<Vec<_>>()))
    })
}

/// GET `/subscribe/list`: what one client, if it is connected here, subscribes to.
pub(in super::super) fn subscribed(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    of_one(services, request, |services, id| {
        let subscribed = services.subscribed_by(id)?;
        let shown = subscribed
            .iter()
            .map(|(service, who)| of_service(service, "subscriberInfo", subscriber(who)));
        Ok(told(shown.collect::<Vec<_>>()))
    })
}

fn subscriber(who: &Who) -> Value {
    json!({"app": who.app, "agent": who.agent, "addr": format!("{}:{}", who.ip, who.port)})
}

fn of_service(service: &ServiceKey, name: &str, value: Value) -> Value {
    json!({
        "namespace": service.namespace_id().to_string(),
        "group": service.group(),
        "serviceName": service.name(),
        name: value,
    })
}

/// GET `/service/publisher/list`: who registers one instance of a service. Recorded: without a place it is nobody.
pub(in super::super) fn publishers(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let params = request.params()?;
    let service = bound_service(&params)?;
    let port = params.get("port").map(number).transpose()?;
    let (Some(ip), Some(port)) = (params.get("ip"), port) else {
        return Ok(Answer::Ready(told(Vec::<Value>::new())));
    };
    let found = services.publishers_of(&service, ip, port);
    let shown = found.iter().map(|(id, place)| {
        json!({"clientId": id, "ip": &*place.ip, "port": place.port, "cluster": &*place.cluster})
    });
    Ok(Answer::Ready(told(shown.collect::<Vec<_>>())))
}

/// GET `/service/subscriber/list`: who subscribes to a service on this node.
pub(in super::super) fn subscribers(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let params = request.params()?;
    let service = bound_service(&params)?;
    let port = params.get("port").map(number).transpose()?;
    let found = services.subscribers_at(&service, params.get("ip"), port);
    let shown = found
        .iter()
        .map(|one| json!({"clientId": one.id, "ip": one.ip, "port": one.port}));
    Ok(Answer::Ready(told(shown.collect::<Vec<_>>())))
}

/// GET `/distro`: the node that handles what a client writes; see `v1::naming::operator::responsible`.
pub(in super::super) fn responsible(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let params = request.params()?;
    let client = operator::client_address(&params)?;
    let services = Arc::clone(services);
    Ok(Answer::later(async move {
        let address = services.responsible_server(&client).await;
        Ok(told(json!({"responsibleServer": address})))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_by_what_is_known_of_them() {
        let client = |id: &str, connection| NamingClientView {
            id: id.to_owned(),
            ephemeral: true,
            updated_ms: 7,
            connection,
        };
        let over_http = shown(&client("10.0.0.1:80#true", None));
        assert_eq!(
            over_http,
            json!({
                "clientId": "10.0.0.1:80#true", "ephemeral": true, "lastUpdatedTime": 7,
                "clientType": "ipPort", "clientIp": "10.0.0.1", "clientPort": "80",
            })
        );
        let elsewhere = shown(&client("1700_10.0.0.2_4711", Some(None)));
        assert_eq!(
            (
                &elsewhere["clientIp"],
                &elsewhere["clientPort"],
                &elsewhere["clientType"]
            ),
            (&json!("10.0.0.2"), &json!("4711"), &json!("connection"))
        );
        let who = Who {
            id: "1_a_2".into(),
            ip: "10.0.0.3".into(),
            port: 2,
            agent: "Nacos-Java-Client:v3".into(),
            app: "shop".into(),
        };
        let here = shown(&client("1_a_2", Some(Some(who))));
        assert_eq!(
            (&here["appName"], &here["clientPort"]),
            (&json!("shop"), &json!("2"))
        );
    }
}
