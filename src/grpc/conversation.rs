//! One connection of a client: its unary requests, and whether it is registered.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use proto::nacos::remote::{ServerCheckRequest, ServerCheckResponse};
use proto::nacos::{self, Message as _, Payload, Response as _, code};
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;

use super::body::{self, Budget, CONNECTION_BODIES_BYTES_MAX, Encoding, Room};
use super::connection::Client;
use super::dispatch::{self, Answer, Call, is_about_configs, is_node_only};
use super::gateway::Gateway;
use super::line::Line;
use super::listener::{Guest, UNIMPLEMENTED, refuse};
use super::outbox::Outbox;
use super::stream;
use crate::clock;
use crate::cluster::{BoxFuture, Exchange};

pub(super) const UNARY_PATH: &str = "/Request/request";
pub(super) const STREAM_PATH: &str = "/BiRequestStream/requestBiStream";

/// A call that comes before its connection is registered waits so long for that: SDKs send their first
/// calls a few milliseconds after the setup, on streams that may overtake it.
const REGISTRATION_WITHIN: Duration = Duration::from_millis(200);
/// An answer for which the client makes no room is given up after this. Beyond: the stream is reset.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Bytes of answers of one connection that wait for room. Beyond: the stream is reset.
const ANSWERS_BYTES_MAX: usize = 16 << 20;
/// Of an answer that had to wait, so much is handed over at a time.
const PIECE_BYTES: usize = 16 << 10;

/// One connection of a client.
pub(super) struct Conversation {
    pub(super) gateway: Arc<Gateway>,
    pub(super) line: Arc<Line>,
    pub(super) id: Arc<str>,
    client: Mutex<Option<Arc<Client>>>,
    /// It was registered once. A call that finds it unregistered then need not wait.
    was_registered: AtomicBool,
    /// It was registered, or never will be.
    settled: Notify,
    /// A stream stands.
    has_stream: AtomicBool,
    /// What is sent on it, from the stream's first moment on: whoever is to go may never have registered.
    outbox: Mutex<Option<Arc<Outbox>>>,
    /// Room for answers that wait, in KiB.
    answers: Semaphore,
    /// Room for requests that are read.
    pub(super) bodies: Budget,
}

impl Conversation {
    pub(super) fn new(gateway: Arc<Gateway>, line: Arc<Line>) -> Arc<Conversation> {
        let remote = line.remote;
        let id = format!(
            "{}_{}_{}",
            line.since_ms,
            remote.ip().to_canonical(),
            remote.port()
        );
        Arc::new(Conversation {
            gateway,
            line,
            id: id.into(),
            client: Mutex::new(None),
            was_registered: AtomicBool::new(false),
            settled: Notify::new(),
            has_stream: AtomicBool::new(false),
            outbox: Mutex::new(None),
            answers: Semaphore::new(ANSWERS_BYTES_MAX >> 10),
            bodies: Budget::new(CONNECTION_BODIES_BYTES_MAX),
        })
    }

    pub(super) fn client(&self) -> Option<Arc<Client>> {
        self.slot().clone()
    }

    /// From now on calls of this connection are those of `client`.
    pub(super) fn register(&self, client: Arc<Client>) {
        self.gateway.registry.add(client.clone());
        *self.slot() = Some(client);
        self.was_registered.store(true, Ordering::Release);
        self.settled.notify_waiters();
    }

    /// The stream is gone, and with it the registration.
    pub(super) fn unregister(&self) {
        let client = self.slot().take();
        if let Some(client) = client {
            self.gateway.registry.remove(&client);
        }
        // IMPORTANT: before the place of the stream is free; the next one's would be forgotten otherwise.
        let outbox = self.outbox_slot().take();
        drop(outbox);
        self.has_stream.store(false, Ordering::Release);
        self.settled.notify_waiters();
    }

    /// True once; then false until the stream is gone.
    pub(super) fn take_stream(&self) -> bool {
        !self.has_stream.swap(true, Ordering::AcqRel)
    }

    /// The stream sends this way.
    pub(super) fn send_by(&self, outbox: Arc<Outbox>) {
        *self.outbox_slot() = Some(outbox);
    }

    /// The client; waits for a registration that is on its way.
    async fn registered(&self) -> Option<Arc<Client>> {
        if let Some(client) = self.client() {
            return Some(client);
        }
        if self.was_registered.load(Ordering::Acquire) {
            return None;
        }
        let settled = self.settled.notified();
        tokio::pin!(settled);
        // IMPORTANT: listening first, looking then; a registration in between would be missed otherwise.
        settled.as_mut().enable();
        if let Some(client) = self.client() {
            return Some(client);
        }
        let _in_time = timeout(REGISTRATION_WITHIN, settled).await;
        self.client()
    }

    async fn answer_unary(self: Arc<Self>, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        let encoding = Encoding::of(request.headers());
        let mut body = request.into_body();
        let room = Room::new(&self.bodies, &self.gateway.bodies);
        let read = body::read_one(&mut body, encoding, room).await;
        let message = match read {
            Ok(message) => message,
            Err(error) => {
                if !matches!(error, body::BodyError::Gone) {
                    self.gateway.malformed(self.line.remote, &error);
                }
                return refuse(respond, error.status());
            }
        };
        let payload = match Payload::decode(message.bytes.clone()) {
            Ok(payload) => payload,
            Err(error) => {
                self.gateway.malformed(self.line.remote, &error);
                return refuse(respond, NOT_A_PAYLOAD);
            }
        };
        let frame = self.answer(payload).await;
        // NOTE: `body` lives until here. Dropped before its end has come, HTTP/2 would reset the stream.
        self.send(respond, frame).await;
        drop((body, message));
    }

    /// The answer to a request, counted.
    async fn answer(self: &Arc<Self>, payload: Payload) -> Bytes {
        let begun = clock::now();
        let metrics = &self.gateway.metrics;
        let row = self.gateway.table.find(payload.type_name());
        let Some(_under_way) = UnderWay::begin(&self.gateway) else {
            metrics.overrun.fetch_add(1, Ordering::Relaxed);
            return Answer::error(
                code::OVER_THRESHOLD,
                "too many requests at a time, nothing was done",
            )
            .frame;
        };
        let answer = self.route(row.map(|(_, row)| row), payload).await;
        metrics.answered(
            row.map(|(at, _)| at),
            answer.succeeded,
            clock::now().saturating_duration_since(begun),
        );
        answer.frame
    }

    /// The order is part of the contract (01 §2.10).
    async fn route(self: &Arc<Self>, row: Option<&'static dispatch::Row>, payload: Payload) -> Answer {
        let name = payload.type_name();
        if is_node_only(name) {
            let refusal = format!("{name} is for nodes, and is not taken from clients.");
            self.gateway
                .complain(self.line.remote, "was refused", &format_args!("{refusal}"));
            return Answer::error(code::BAD_REQUEST, &refusal);
        }
        if self.gateway.readiness.is_loading() {
            return Answer::starting();
        }
        if name == ServerCheckRequest::TYPE {
            return self.check_server(&payload);
        }
        let Some(row) = row else {
            return Answer::error(
                code::NO_HANDLER,
                &format!("RequestHandler Not Found, type: {}", printable(name)),
            );
        };
        let Some(client) = self.registered().await else {
            return Answer::error(code::UNREGISTERED, "Connection is unregistered.");
        };
        client.heard();
        if is_about_configs(name) && self.gateway.readiness.log_is_told().await.is_err() {
            return Answer::starting();
        }
        let call = Call {
            client,
            payload,
            gateway: self.gateway.clone(),
        };
        dispatch::run(row, call).await
    }

    fn check_server(&self, payload: &Payload) -> Answer {
        // Nothing in the request matters; one that cannot be read is answered all the same.
        let request: ServerCheckRequest<'_> = payload.read().unwrap_or_default();
        let answer = ServerCheckResponse {
            connection_id: (&*self.id).into(),
            support_ability_negotiation: true,
            ..ServerCheckResponse::ok()
        };
        Answer {
            frame: nacos::frame(&answer.answering(request.request_id)),
            succeeded: true,
        }
    }

    /// Sends an answer and ends the stream.
    async fn send(&self, mut respond: SendResponse<Bytes>, frame: Bytes) {
        // The client may be gone; nobody waits for the answer then.
        let Ok(mut stream) = respond.send_response(head(), false) else {
            return;
        };
        if !self.line.is_blocked() {
            stream.reserve_capacity(frame.len());
            if stream.capacity() >= frame.len() {
                if stream.send_data(frame, false).is_ok() {
                    let _ = stream.send_trailers(ok_trailers());
                }
                return;
            }
        }
        // Bounded above: messages are far below four gigabytes.
        let room = u32::try_from(frame.len().div_ceil(1 << 10)).unwrap_or(u32::MAX);
        let Ok(_room) = self.answers.try_acquire_many(room) else {
            self.gateway.metrics.overrun.fetch_add(1, Ordering::Relaxed);
            self.gateway
                .complain(self.line.remote, "was cut short", &"it does not take its answers");
            stream.send_reset(Reason::ENHANCE_YOUR_CALM);
            return;
        };
        if timeout(ANSWER_WITHIN, self.send_slowly(&mut stream, frame))
            .await
            .is_err()
        {
            self.gateway
                .complain(self.line.remote, "was cut short", &"it took an answer too slowly");
            stream.send_reset(Reason::CANCEL);
        }
    }

    async fn send_slowly(&self, stream: &mut SendStream<Bytes>, mut frame: Bytes) {
        while !frame.is_empty() {
            self.line.unblocked().await;
            stream.reserve_capacity(frame.len().min(PIECE_BYTES));
            let mut room = stream.capacity();
            if room == 0 {
                match poll_fn(|cx| stream.poll_capacity(cx)).await {
                    Some(Ok(more)) => room = more,
                    _ => return,
                }
            }
            let piece = frame.split_to(room.min(frame.len()).min(PIECE_BYTES));
            if stream.send_data(piece, false).is_err() {
                return;
            }
            // The connection gets its turn, and with it the chance to find that the socket is full.
            tokio::task::yield_now().await;
        }
        let _ = stream.send_trailers(ok_trailers());
    }

    fn outbox_slot(&self) -> MutexGuard<'_, Option<Arc<Outbox>>> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<Client>>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guest for Conversation {
    fn handle(self: Arc<Self>, (request, respond): Exchange) -> BoxFuture<'static, ()> {
        match request.uri().path() {
            UNARY_PATH => Box::pin(self.answer_unary(request, respond)),
            STREAM_PATH => stream::begin(self, request, respond),
            _ => {
                refuse(respond, UNIMPLEMENTED);
                Box::pin(std::future::ready(()))
            }
        }
    }

    fn leave(&self) {
        if let Some(client) = self.client() {
            self.gateway.parting(&client);
            client.pushes.end();
        }
        // One that registers at this moment, and one that never has.
        let outbox = self.outbox_slot().clone();
        if let Some(outbox) = outbox {
            outbox.end();
        }
    }

    fn is_registered(&self) -> bool {
        self.client().is_some()
    }

    fn closed(&self) {
        self.unregister();
    }
}

/// A request that is being served.
struct UnderWay<'a>(&'a Gateway);

impl<'a> UnderWay<'a> {
    /// `None`: there are too many.
    fn begin(gateway: &'a Gateway) -> Option<UnderWay<'a>> {
        let before = gateway.metrics.in_flight.fetch_add(1, Ordering::Relaxed);
        let under_way = UnderWay(gateway);
        (before < REQUESTS_MAX).then_some(under_way)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.metrics.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Unary requests of all clients at a time. Beyond: 503, nothing is done.
const REQUESTS_MAX: u64 = 32_768;
const NOT_A_PAYLOAD: (&str, &str) = ("3", "the message is not a Nacos payload");

/// The head of every answer.
pub(super) fn head() -> Response<()> {
    let mut head = Response::new(());
    let grpc = HeaderValue::from_static("application/grpc");
    head.headers_mut().insert(header::CONTENT_TYPE, grpc);
    head
}

fn ok_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers
}

/// What a stranger calls a type, short enough for an answer.
fn printable(name: &str) -> String {
    name.chars().take(128).collect()
}
