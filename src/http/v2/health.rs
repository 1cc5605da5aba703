//! `/v2/console/health`.

use std::sync::Arc;

use http::StatusCode;

use super::super::reply::{self, JSON, ResultV2};
use super::super::request::Request;
use super::super::routes::Answer;
use crate::error::Result;
use crate::service::Services;

/// The process answers.
pub(in super::super) fn liveness(_services: &Arc<Services>, _request: &Request) -> Result<Answer> {
    Ok(Answer::Ready(reply::json(JSON, &ResultV2::ok("ok"))))
}

/// The node can do its work.
pub(in super::super) fn readiness(services: &Arc<Services>, _request: &Request) -> Result<Answer> {
    Ok(Answer::Ready(match services.health() {
        Ok(()) => reply::json(JSON, &ResultV2::ok("ok")),
        Err(reason) => {
            let body = ResultV2 {
                code: 30_000,
                message: "server error",
                data: reason,
            };
            reply::json_with(StatusCode::INTERNAL_SERVER_ERROR, JSON, &body)
        }
    }))
}
