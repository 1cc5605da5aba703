//! One connection: hyper's loop, and the way of each request through it.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use http::header::{ALLOW, CONNECTION, CONTENT_LENGTH, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::error::Elapsed;

use super::limits::{
    BODIES_BYTES_MAX, BODY_BYTES_MAX, BODY_SMALL_BYTES_MAX, BODY_WAIT, HEADER_BYTES_MAX, HEADERS_MAX,
    READ_BUFFER_BYTES_MAX,
};
use super::reply::{self, Reply, TEXT};
use super::request::Request;
use super::router::{self, Found};
use super::routes::{Answer, Dialect, Route, Verb};
use super::v1;
use super::wire::{Exchange, LongQuery, Wire};
use crate::api_code::quoted;
use crate::clock;
use crate::error::{Error, Result};
use crate::service::Services;
use crate::shutdown::Shutdown;

/// Room for the bodies that are being read, in the whole process.
static BODIES: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(BODIES_BYTES_MAX);

/// Serves a connection until it ends; after `shutdown`, until the request under way is answered.
pub(super) async fn serve(socket: TcpStream, peer: SocketAddr, services: Arc<Services>, shutdown: Shutdown) {
    let exchange = Arc::new(Exchange::new(clock::now()));
    let io = TokioIo::new(Wire::new(socket, Arc::clone(&exchange)));
    let service = service_fn(move |request| {
        let (services, exchange) = (Arc::clone(&services), Arc::clone(&exchange));
        async move { Ok::<_, Infallible>(exchange_one(&services, &exchange, peer, request).await) }
    });
    let mut hyper = http1::Builder::new();
    // NOTE: no `pipeline_flush`: with bytes left in the read buffer it holds back what was written, and a
    // head that cannot be parsed leaves some: its 400, 414 or 431 would never leave (hyper 1.12, io.rs).
    hyper
        .max_headers(HEADERS_MAX)
        .max_buf_size(READ_BUFFER_BYTES_MAX)
        .header_read_timeout(None);
    let mut connection = pin!(hyper.serve_connection(io, service));
    // How a connection ends is the client's business; what went wrong inside was answered and counted.
    tokio::select! {
        biased;
        ended = connection.as_mut() => {
            if let Err(error) = ended {
                tracing::debug!(%peer, %error, "connection");
            }
            return;
        }
        () = shutdown.begun() => {}
    }
    connection.as_mut().graceful_shutdown();
    drop(connection.await);
}

/// One request: read, routed, answered, counted.
async fn exchange_one(
    services: &Arc<Services>,
    exchange: &Exchange,
    peer: SocketAddr,
    request: http::Request<Incoming>,
) -> Reply {
    let started = clock::now();
    exchange.begin();
    let counts = &services.metrics.http;
    let in_flight = InFlight::new(services);
    let (head, body) = request.into_parts();
    let found = router::find(&head.method, head.uri.path());
    let told =
        tracing::enabled!(tracing::Level::DEBUG).then(|| (head.method.clone(), head.uri.path().to_owned()));
    let long_query = exchange.take_long_query();
    let mut read = Read {
        announced: Some(0),
        to_the_end: body.is_end_stream(),
    };
    let mut reply = match admit(&head, long_query) {
        Err(refusal) => refusal,
        Ok(long_query) => match read_body(body, &head.headers, &mut read).await {
            Err(refusal) => refusal,
            Ok(body) => {
                let request = Request {
                    method: head.method,
                    uri: head.uri,
                    headers: head.headers,
                    body,
                    long_query,
                    peer,
                };
                answer(services, found, request).await
            }
        },
    };
    if !read.to_the_end {
        reply
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let ended = clock::now();
    drop(in_flight);
    tell(&told, peer, &reply, ended.saturating_duration_since(started));
    let position = if let Found::Route(position, ..) = found {
        Some(position)
    } else {
        None
    };
    counts.answered(
        position,
        reply.status().as_u16(),
        ended.saturating_duration_since(started),
    );
    exchange.end(read.announced.filter(|_| read.to_the_end), ended);
    reply
}

/// A line for each request at debug. Without the query: contents and secrets may stand there.
fn tell(told: &Option<(http::Method, String)>, peer: SocketAddr, reply: &Reply, took: std::time::Duration) {
    if let Some((method, path)) = told {
        tracing::debug!(
            %peer, %method, path, status = reply.status().as_u16(), us = took.as_micros(), "http.request"
        );
    }
}

/// Counts a request while it is served. A client that closes its connection meanwhile ends it too: a long
/// poll that nobody waits for any more is dropped where it stands.
struct InFlight<'a>(&'a Services);

impl InFlight<'_> {
    fn new(services: &Services) -> InFlight<'_> {
        services.metrics.http.in_flight.fetch_add(1, Relaxed);
        InFlight(services)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.metrics.http.in_flight.fetch_sub(1, Relaxed);
    }
}

/// How much of the body has been taken from the connection.
struct Read {
    /// Its length on the wire; `None` when chunked.
    announced: Option<u64>,
    to_the_end: bool,
}

/// Bounds of the head.
#[expect(
    clippy::result_large_err,
    reason = "its only caller sends the refusal at once"
)]
fn admit(
    head: &http::request::Parts,
    long_query: Option<LongQuery>,
) -> std::result::Result<Option<Bytes>, Reply> {
    let header_bytes: usize = head
        .headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    if header_bytes > HEADER_BYTES_MAX {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Err(refusal(status, "the headers are larger than 16 KiB"));
    }
    match long_query {
        None => Ok(None),
        Some(LongQuery::Query(query)) => Ok(Some(query)),
        Some(LongQuery::TooLong) => Err(refusal(
            StatusCode::URI_TOO_LONG,
            "the request line is longer than 1 MiB: send the content as a form body",
        )),
        Some(LongQuery::TooMany) => Err(refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many requests with a very long request line at once: nothing was done, try again",
        )),
    }
}

fn refusal(status: StatusCode, text: &'static str) -> Reply {
    reply::reply(status, Some(TEXT), text)
}

/// Reads a body whole, within its bounds.
async fn read_body(
    mut body: Incoming,
    headers: &HeaderMap,
    read: &mut Read,
) -> std::result::Result<Bytes, Reply> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let too_large = || refusal(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 32 MiB");
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    read.announced = announced.map(|length| length as u64);
    if announced.is_some_and(|length| length > BODY_BYTES_MAX) {
        return Err(too_large());
    }
    let expected = announced.unwrap_or(BODY_BYTES_MAX);
    let _room = if expected > BODY_SMALL_BYTES_MAX {
        // A permit is a byte; 32 MiB fit into u32.
        match BODIES.try_acquire_many(u32::try_from(expected).unwrap_or(u32::MAX)) {
            Ok(room) => Some(room),
            Err(_) => {
                let text = "too many large bodies at once: nothing was done, try again";
                return Err(refusal(StatusCode::SERVICE_UNAVAILABLE, text));
            }
        }
    } else {
        None
    };
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    loop {
        let frame = match next_frame(&mut body).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => break,
            Ok(Some(Err(_))) => return Err(refusal(StatusCode::BAD_REQUEST, "the body ended too early")),
            Err(_) => {
                return Err(refusal(
                    StatusCode::REQUEST_TIMEOUT,
                    "the body did not arrive in time",
                ));
            }
        };
        let Ok(data) = frame.into_data() else { continue };
        if first.is_empty() && whole.is_empty() {
            first = data;
            if body.is_end_stream() {
                break;
            }
            continue;
        }
        if whole.is_empty() {
            whole.reserve(announced.unwrap_or(2 * first.len()));
            whole.extend_from_slice(&std::mem::take(&mut first));
        }
        if whole.len() + data.len() > BODY_BYTES_MAX {
            return Err(too_large());
        }
        whole.extend_from_slice(&data);
    }
    read.to_the_end = true;
    Ok(if whole.is_empty() { first } else { whole.freeze() })
}

/// The next frame, or that it did not come in time. What is there already, which is usual, needs no timer.
async fn next_frame(
    body: &mut Incoming,
) -> std::result::Result<Option<hyper::Result<Frame<Bytes>>>, Elapsed> {
    let mut frame = pin!(body.frame());
    let at_once = poll_fn(|cx| Poll::Ready(frame.as_mut().poll(cx))).await;
    match at_once {
        Poll::Ready(frame) => Ok(frame),
        Poll::Pending => tokio::time::timeout(BODY_WAIT, frame).await,
    }
}

/// Calls the row's handler and renders what comes of it.
async fn answer(services: &Arc<Services>, found: Found, request: Request) -> Reply {
    let (route, head_only) = match found {
        Found::Route(_, route, head_only) => (route, head_only),
        Found::OtherMethod(route) => return other_method(route, &request),
        Found::Nothing => return nothing(&request),
    };
    if route.tells_log()
        && let Err(not_yet) = services.readiness.log_is_told().await
    {
        return failure(route.dialect, &not_yet);
    }
    let called = catch_unwind(AssertUnwindSafe(|| {
        if route.is_naming()
            && let Some(refusal) = v1::naming::refused(services, &request, route.verb == Verb::Get)
        {
            return Ok(Answer::Ready(refusal));
        }
        (route.handler)(services, &request)
    }));
    // A long poll is held for half a minute: not with its body of up to 32 MiB.
    drop(request);
    let result = match called {
        Ok(Ok(Answer::Ready(reply))) => Ok(reply),
        Ok(Ok(Answer::Later(reply))) => catch_panic(reply)
            .await
            .unwrap_or_else(|()| Err(panicked(services, route))),
        Ok(Err(error)) => Err(error),
        Err(_panic) => Err(panicked(services, route)),
    };
    let reply = result.unwrap_or_else(|error| failure(route.dialect, &error));
    if head_only {
        reply::without_body(reply)
    } else {
        reply
    }
}

fn panicked(services: &Services, route: &Route) -> Error {
    services.metrics.http.panics.fetch_add(1, Relaxed);
    tracing::error!(path = route.path, "a handler panicked");
    Error::Internal("the server failed on this request; whether it was done is not known".to_owned())
}

/// Runs a handler's future; a panic inside becomes an error.
async fn catch_panic(future: impl Future<Output = Result<Reply>>) -> std::result::Result<Result<Reply>, ()> {
    let mut future = pin!(future);
    poll_fn(move |cx| {
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(Poll::Ready(result)) => Poll::Ready(Ok(result)),
            Ok(Poll::Pending) => Poll::Pending,
            // The future is dropped by the caller and never polled again.
            Err(_panic) => Poll::Ready(Err(())),
        }
    })
    .await
}

/// An error in the words of the API generation that was asked.
fn failure(dialect: Dialect, error: &Error) -> Reply {
    let mut reply = dialect.render(error);
    if error.retryable() {
        reply
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    reply
}

fn other_method(route: &Route, request: &Request) -> Reply {
    let mut reply = match route.dialect {
        Dialect::V1Naming => nothing(request),
        dialect => dialect.render_other_method(request.method.as_str()),
    };
    let allowed = router::allowed(request.uri.path());
    if let Ok(allowed) = HeaderValue::try_from(allowed) {
        reply.headers_mut().insert(ALLOW, allowed);
    }
    reply
}

fn nothing(request: &Request) -> Reply {
    let path = request.uri.path();
    if router::without_context(path).starts_with("/v1/ns/") {
        let (method, path) = (request.method.as_str(), quoted(path));
        let text = format!("no such api:{}:{path}", quoted(method));
        return reply::reply(StatusCode::NOT_IMPLEMENTED, Some(TEXT), text);
    }
    reply::not_found(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_in_a_handlers_future_is_caught() {
        let panics = async { panic!("deliberate") };
        assert!(catch_panic(panics).await.is_err());
        let fine = async { Ok(reply::text("x")) };
        assert!(matches!(catch_panic(fine).await, Ok(Ok(_))));
    }
}
