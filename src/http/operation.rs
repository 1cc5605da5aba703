//! Health, state and metrics.

use std::sync::Arc;

use http::StatusCode;
use http::header::HeaderValue;

use super::reply::{self, JSON, TEXT};
use super::request::Request;
use super::routes::Answer;
use crate::error::{Error, Result};
use crate::service::Services;

/// `/health`: `success`, or 503 with the reason (the form r-nacos users know).
pub(super) fn health(services: &Arc<Services>, _request: &Request) -> Result<Answer> {
    Ok(Answer::Ready(match services.health() {
        Ok(()) => reply::text("success"),
        Err(reason) => reply::reply(
            StatusCode::SERVICE_UNAVAILABLE,
            Some(TEXT),
            format!("error: {reason}"),
        ),
    }))
}

/// `/v1/console/health/liveness`: the process answers.
pub(super) fn liveness(_services: &Arc<Services>, _request: &Request) -> Result<Answer> {
    Ok(Answer::Ready(reply::text("OK")))
}

/// `/v1/console/health/readiness`: the node can do its work.
pub(super) fn readiness(services: &Arc<Services>, _request: &Request) -> Result<Answer> {
    Ok(Answer::Ready(match services.health() {
        Ok(()) => reply::text("OK"),
        Err(reason) => reply::reply(StatusCode::INTERNAL_SERVER_ERROR, Some(TEXT), reason),
    }))
}

/// `/v1/cs/health`: `UP`, or `DOWN:` with the reason.
pub(super) fn config_health(services: &Arc<Services>, _request: &Request) -> Result<Answer> {
    Ok(Answer::Ready(match services.health() {
        Ok(()) => reply::text("UP"),
        Err(reason) => reply::text(format!("DOWN:{reason}")),
    }))
}

/// `/actuator/health`: for probes that were made for Spring.
pub(super) fn actuator_health(services: &Arc<Services>, _request: &Request) -> Result<Answer> {
    let (status, word) = match services.health() {
        Ok(()) => (StatusCode::OK, "UP"),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "DOWN"),
    };
    Ok(Answer::Ready(reply::json_with(
        status,
        JSON,
        &serde_json::json!({ "status": word }),
    )))
}

/// `/`: somebody looks with a browser.
pub(super) fn index(_services: &Arc<Services>, _request: &Request) -> Result<Answer> {
    const HTML: HeaderValue = HeaderValue::from_static("text/html;charset=UTF-8");
    const PAGE: &str = "<!doctype html><title>rnacos</title><p>rnacos is running. There is no web console yet; \
        see <a href=\"/health\">/health</a>, <a href=\"/metrics\">/metrics</a> and \
        <a href=\"/nacos/v1/raft/metrics\">/nacos/v1/raft/metrics</a>.";
    let mut page = reply::reply(StatusCode::OK, Some(HTML), PAGE);
    let policy = HeaderValue::from_static("default-src 'self'");
    page.headers_mut()
        .insert(http::header::CONTENT_SECURITY_POLICY, policy);
    Ok(Answer::Ready(page))
}

/// `/v1/console/server/state`.
pub(super) fn server_state(services: &Arc<Services>, _request: &Request) -> Result<Answer> {
    Ok(Answer::Ready(reply::json(JSON, &services.server_state())))
}

/// `/v1/raft/metrics`, in the form of r-nacos.
pub(super) fn raft_metrics(services: &Arc<Services>, _request: &Request) -> Result<Answer> {
    Ok(Answer::Ready(reply::json(JSON, &services.raft_metrics())))
}

/// `/metrics`, Prometheus' text form.
pub(super) fn metrics(services: &Arc<Services>, _request: &Request) -> Result<Answer> {
    const EXPOSITION: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    // It reads /proc: not on a thread that serves.
    Ok(Answer::blocking(services, |services| {
        match services.metrics_page() {
            Some(page) => Ok(reply::reply(StatusCode::OK, Some(EXPOSITION), page)),
            None => Err(Error::NotFound(
                "metrics are switched off (RNACOS_ENABLE_METRICS=false)".to_owned(),
            )),
        }
    }))
}
