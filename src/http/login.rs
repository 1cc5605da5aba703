//! `POST /v1/auth/login`, `/v1/auth/users/login`, `/v3/auth/user/login`: one answer for all generations.

use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderValue};
use serde_json::json;

use super::reply::{self, JSON_UTF8};
use super::request::Request;
use super::routes::Answer;
use crate::error::{Error, Result};
use crate::service::Services;

/// What stands in the place of a token while nothing asks for one (contract 04 §2).
const NO_TOKEN: &str = "AUTH_DISABLED";
/// For how long clients keep it, seconds.
const TOKEN_TTL_S: u32 = 18_000;

/// Everybody may do everything: whoever says a name is given a token that means nothing. SDKs with a user
/// name in their settings log in first, and some do not go on without.
pub(super) fn login(_services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let params = request.params()?;
    let username = params.get("username").ok_or(Error::missing("username"))?;
    params.get("password").ok_or(Error::missing("password"))?;
    let mut welcome = reply::json(
        JSON_UTF8,
        &json!({
            "accessToken": NO_TOKEN,
            "tokenTtl": TOKEN_TTL_S,
            "globalAdmin": true,
            "username": username,
        }),
    );
    let bearer = HeaderValue::from_static("Bearer AUTH_DISABLED");
    welcome.headers_mut().insert(AUTHORIZATION, bearer);
    Ok(Answer::Ready(welcome))
}
