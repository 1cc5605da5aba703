//! `/v1/ns/operator`, also known as `/v1/ns/ops`: how the registry is, and its switches.

use std::sync::Arc;

use super::super::super::reply::{self, JSON};
use super::super::super::request::Request;
use super::super::super::routes::Answer;
use crate::error::Result;
use crate::service::Services;

/// GET `/metrics`: SDKs of 1.x take it for the health of the server.
pub(in crate::http) fn metrics(_services: &Arc<Services>, _request: &Request) -> Result<Answer> {
    let up = bytes::Bytes::from_static(br#"{"status":"UP"}"#);
    Ok(Answer::Ready(reply::reply(http::StatusCode::OK, Some(JSON), up)))
}
