//! `/v1/ns/health`: who checks whether instances are well.

use std::sync::Arc;

use serde_json::json;

use super::super::super::reply::{self, JSON};
use super::super::super::request::Request;
use super::super::super::routes::Answer;
use super::{Done, flag_of, ok, once_done, place, service_key};
use crate::error::{Error, Result};
use crate::service::Services;

/// PUT, with and without `/instance`: somebody outside tells the health of a persistent instance.
pub(in crate::http) fn update(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    update_as(services, request, ok)
}

pub(in crate::http) fn update_as(services: &Arc<Services>, request: &Request, done: Done) -> Result<Answer> {
    let params = request.params()?;
    let service = service_key(&params)?;
    let endpoint = place(&params)?.endpoint()?;
    let healthy = flag_of(&params, &["healthy", "valid"]).ok_or(Error::Missing {
        name: "healthy",
        kind: "",
    })?;
    let services = Arc::clone(services);
    Ok(once_done(done, async move {
        services.set_health(service, endpoint, healthy).await
    }))
}

/// GET `/checkers`: kinds of health checks with their settings. Recorded from Nacos 2.5.1, whose documents
/// show other fields.
pub(in crate::http) fn checkers(_services: &Arc<Services>, _request: &Request) -> Result<Answer> {
    let body = json!({
        "TCP": {},
        "HTTP": {"path": "", "headers": "", "expectedResponseCode": 200},
        "MYSQL": {"user": null, "pwd": null, "cmd": null},
        "NONE": {},
    });
    Ok(Answer::Ready(reply::json(JSON, &body)))
}

/// GET `/server`: a sentence for people.
pub(in crate::http) fn server(services: &Arc<Services>, _request: &Request) -> Result<Answer> {
    let (count, port) = (services.discovery().figures().services, services.http_port());
    let text = format!("Naming server is UP with {count} services on port {port}.");
    Ok(Answer::Ready(reply::json(JSON, &json!({ "msg": text }))))
}
