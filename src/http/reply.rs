//! Answers: text, JSON, and the errors of each API generation.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

use crate::api_code::quoted;

/// An answer on its way to the connection.
pub(super) type Reply = Response<Full<Bytes>>;

/// Content type of text answers.
pub(super) const TEXT: HeaderValue = HeaderValue::from_static("text/plain;charset=UTF-8");
/// Content type of JSON under `/v1/cs`, as recorded.
pub(super) const JSON_UTF8: HeaderValue = HeaderValue::from_static("application/json;charset=UTF-8");
/// Content type of JSON elsewhere.
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const X_CONTENT_TYPE_OPTIONS: HeaderName = HeaderName::from_static("x-content-type-options");

/// An answer with a body and its type.
pub(super) fn reply(status: StatusCode, content_type: Option<HeaderValue>, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    if let Some(content_type) = content_type {
        reply.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    if status.is_client_error() || status.is_server_error() {
        // Error texts repeat what the client sent: no browser may take them for a page.
        reply.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    }
    reply
}

/// 200 with text.
pub(super) fn text(body: impl Into<Bytes>) -> Reply {
    reply(StatusCode::OK, Some(TEXT), body)
}

/// 200 with a JSON value.
pub(super) fn json(content_type: HeaderValue, value: &impl Serialize) -> Reply {
    json_with(StatusCode::OK, content_type, value)
}

/// A status with a JSON value.
pub(super) fn json_with(status: StatusCode, content_type: HeaderValue, value: &impl Serialize) -> Reply {
    match serde_json::to_vec(value) {
        Ok(body) => reply(status, Some(content_type), body),
        // Our own types do not fail to serialize; if one does, it is told and not hidden.
        Err(error) => reply(StatusCode::INTERNAL_SERVER_ERROR, Some(TEXT), error.to_string()),
    }
}

/// 200 with a prepared set of headers.
pub(super) fn with_headers(headers: HeaderMap, body: Bytes) -> Reply {
    let mut reply = Response::new(Full::new(body));
    *reply.headers_mut() = headers;
    reply
}

/// The answer to HEAD: the headers of GET, with the length its body would have, and no body.
pub(super) fn without_body(reply: Reply) -> Reply {
    use hyper::body::Body;
    let (mut head, body) = reply.into_parts();
    if let Some(length) = body.size_hint().exact() {
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Response::from_parts(head, Full::default())
}

/// `{"code":200,"message":...,"data":...}` of Nacos 1 and of some of Nacos 2.
#[derive(Debug, Serialize)]
pub(super) struct RestResult<T> {
    /// 200 is success.
    pub code: i32,
    /// Often null.
    pub message: Option<&'static str>,
    /// The value.
    pub data: T,
}

impl<T> RestResult<T> {
    /// Success without a message.
    pub(super) fn ok(data: T) -> RestResult<T> {
        RestResult {
            code: 200,
            message: None,
            data,
        }
    }
}

/// `{"code":0,"message":"success","data":...}` of Nacos 2 and 3.
#[derive(Debug, Serialize)]
pub(super) struct ResultV2<T> {
    /// 0 is success; see `api_code`.
    pub code: i32,
    /// Short text of the code.
    pub message: &'static str,
    /// The value; of errors a longer text.
    pub data: T,
}

impl<T> ResultV2<T> {
    /// Success.
    pub(super) fn ok(data: T) -> ResultV2<T> {
        ResultV2 {
            code: 0,
            message: "success",
            data,
        }
    }
}

/// The answer to a path nobody serves, as Spring writes it.
pub(super) fn not_found(path: &str) -> Reply {
    spring_error(StatusCode::NOT_FOUND, JSON, "No message available", path)
}

/// An error that the Java server leaves to its framework.
pub(super) fn spring_error(
    status: StatusCode,
    content_type: HeaderValue,
    message: &'static str,
    path: &str,
) -> Reply {
    #[derive(Serialize)]
    struct SpringError<'a> {
        timestamp: String,
        status: u16,
        error: &'static str,
        message: &'static str,
        path: Cow<'a, str>,
    }
    let body = SpringError {
        timestamp: super::v1::iso_time(crate::clock::wall_ms()),
        status: status.as_u16(),
        error: status.canonical_reason().unwrap_or_default(),
        message,
        path: quoted(path),
    };
    json_with(status, content_type, &body)
}
