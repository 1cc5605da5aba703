//! From the type name of a request to whoever answers it, and from what came of it to an answer.

use std::any::Any;
use std::collections::HashMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use bytes::Bytes;
use proto::nacos::remote::ErrorResponse;
use proto::nacos::{self, Payload, Response, Text, code};

use super::connection::{Client, Registry};
use super::gateway::Gateway;
use crate::api_code;
use crate::cluster::BoxFuture;
use crate::error::Error;
use crate::service::{Caller, Services};
use crate::shutdown::Shutdown;

/// One type of request and who answers it. Handlers list theirs with `rows!`.
#[derive(Debug)]
pub struct Row {
    /// The type name, as it stands in the metadata of a payload.
    pub name: &'static str,
    pub(super) run: fn(Call) -> BoxFuture<'static, Answer>,
}

/// A request of a registered client.
#[derive(Debug)]
pub struct Call {
    /// Who asks.
    pub client: Arc<Client>,
    /// The request as it came: headers, and the JSON that the typed request borrows from.
    pub payload: Payload,
    pub(super) gateway: Arc<Gateway>,
}

impl Call {
    /// The use cases.
    pub fn services(&self) -> &Arc<Services> {
        self.gateway.services()
    }

    /// Everybody who is registered.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.gateway.registry
    }

    /// For tasks that serve clients: it begins when clients are to go.
    pub fn tasks(&self) -> &Shutdown {
        &self.gateway.stopping
    }

    /// Who asks, for the services.
    pub fn caller(&self) -> Caller {
        self.client.caller()
    }

    /// True once this node has seen everything that was acknowledged before it started. Until then (a node
    /// that finds no leader serves all the same after a while) "not found" may be wrong, and clients
    /// delete their copies when they hear it: answer [`Failure::starting`] instead.
    pub fn node_is_current(&self) -> bool {
        self.gateway.readiness.is_current()
    }
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Told in the request's own type of answer, with `resultCode` 500: the client takes it as the answer.
    Answer {
        /// `errorCode`
        code: i32,
        /// Words.
        message: String,
    },
    /// Told as an `ErrorResponse` whose `resultCode` is the code as well: clients throw it, and most try
    /// again, on this node or another one.
    Exception {
        /// `resultCode` and `errorCode`
        code: i32,
        /// Words.
        message: String,
    },
}

impl Failure {
    /// A parameter that is wrong.
    pub fn parameter(message: impl Into<String>) -> Failure {
        Failure::Answer {
            code: code::BAD_PARAMETER,
            message: message.into(),
        }
    }

    /// The client is not (or no longer) registered; it builds a new connection.
    pub fn unregistered() -> Failure {
        Failure::Exception {
            code: code::UNREGISTERED,
            message: "Connection is unregistered.".to_owned(),
        }
    }

    /// This node does not have its data yet; the client goes to another one or tries again.
    pub fn starting() -> Failure {
        Failure::Exception {
            code: code::STARTING,
            message: STARTING.to_owned(),
        }
    }

    /// As an `ErrorResponse`, also where it could be told in the request's own type of answer: for types
    /// that no SDK reads when they lack what was asked for.
    pub(super) fn thrown(self) -> Failure {
        let (Failure::Answer { code, message } | Failure::Exception { code, message }) = self;
        Failure::Exception { code, message }
    }

    /// The answer, in the place of one of type `R`.
    fn render<'a, R: Response<'a>>(self, request_id: Option<Text<'a>>) -> Bytes {
        match self {
            Failure::Answer { code, message } => {
                nacos::frame(&R::failed(code, message).answering(request_id))
            }
            Failure::Exception { code, message } => {
                nacos::frame(&ErrorResponse::with_code(code, message).answering(request_id))
            }
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let told = api_code::grpc(&error);
        let (code, message) = (told.code, told.message);
        match told.throws {
            true => Failure::Exception { code, message },
            false => Failure::Answer { code, message },
        }
    }
}

/// An answer, framed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The whole gRPC message.
    pub(super) frame: Bytes,
    /// For the counters.
    pub(super) succeeded: bool,
}

impl Answer {
    /// What came of a request, as an answer of type `R` or what stands in its place.
    pub fn of<'a, R: Response<'a>>(result: Result<R, Failure>, request_id: Option<Text<'a>>) -> Answer {
        match result {
            Ok(answer) => Answer {
                frame: nacos::frame(&answer.answering(request_id)),
                succeeded: true,
            },
            Err(failure) => Answer {
                frame: failure.render::<R>(request_id),
                succeeded: false,
            },
        }
    }

    /// A success that is framed already.
    pub(super) fn framed(frame: Bytes) -> Answer {
        Answer {
            frame,
            succeeded: true,
        }
    }

    /// That this node does not have its data yet.
    pub(super) fn starting() -> Answer {
        Answer::error(code::STARTING, STARTING)
    }

    /// An `ErrorResponse`, whatever the request was.
    pub(super) fn error(code: i32, message: &str) -> Answer {
        Answer {
            frame: nacos::frame(&ErrorResponse::with_code(code, message)),
            succeeded: false,
        }
    }
}

/// Every type of request that is answered for registered clients.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<&'static Row>,
    by_name: HashMap<&'static str, usize>,
}

impl Table {
    pub(super) fn new(rows: impl Iterator<Item = &'static Row>) -> Table {
        let rows: Vec<_> = rows.collect();
        let by_name: HashMap<_, _> = rows.iter().enumerate().map(|(at, row)| (row.name, at)).collect();
        assert!(by_name.len() == rows.len(), "a type of request has one handler");
        Table { rows, by_name }
    }

    /// Its place in the table, and its row.
    pub(super) fn find(&self, name: &str) -> Option<(usize, &'static Row)> {
        let at = *self.by_name.get(name)?;
        Some((at, self.rows.get(at)?))
    }
}

/// Answers a call; a handler that panics is answered for.
pub(super) async fn run(row: &'static Row, call: Call) -> Answer {
    let metrics = call.gateway.metrics.clone();
    let caught = match catch_unwind(AssertUnwindSafe(|| (row.run)(call))) {
        Ok(work) => Caught(work).await,
        Err(panic) => Err(panic),
    };
    caught.unwrap_or_else(|_panic| {
        // What it said is in the log already, by the panic hook.
        metrics.panics.fetch_add(1, Relaxed);
        Answer::error(code::FAILED, "a fault of this server; the outcome is not known")
    })
}

/// A future whose panics are results.
struct Caught(BoxFuture<'static, Answer>);

impl Future for Caught {
    type Output = Result<Answer, Box<dyn Any + Send>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(answer)) => Poll::Ready(Ok(answer)),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    }
}

/// Rows of the table: `Request => Response: handler`, where the handler is
/// `async fn(&Call, Request<'_>) -> Result<Response<'_>, Failure>`.
///
/// The row reads the JSON (a body that cannot be read is answered 502), echoes the request id, and turns
/// a failure into the answer that stands for it. A metrics label is the type name of the request.
macro_rules! rows {
    ($($request:ident => $response:ident: $handler:path;)*) => {
        &[$($crate::grpc::dispatch::Row {
            name: stringify!($request),
            run: |call| Box::pin(async move {
                use $crate::grpc::dispatch::{Answer, bad_body};
                let request: $request<'_> = match call.payload.read() {
                    Ok(request) => request,
                    Err(error) => return bad_body(&call, &error),
                };
                let id = request.request_id.clone();
                let result: Result<$response<'_>, _> = $handler(&call, request).await;
                Answer::of(result, id)
            }),
        },)*]
    };
}

pub(super) use rows;

/// The answer to a body that is not what its type says.
pub(super) fn bad_body(call: &Call, error: &nacos::ReadError) -> Answer {
    let kind = call.payload.type_name();
    call.gateway
        .malformed(call.client.remote, &format_args!("{kind}: {error}"));
    Answer::error(code::BAD_REQUEST, &format!("{kind} cannot be read: {error}"))
}

/// What a node says that does not have its data yet.
const STARTING: &str = "Server is starting,please try later.";

/// Requests that need what the log says: they are answered only once this node has caught up.
pub(super) fn is_about_configs(name: &str) -> bool {
    name.starts_with("Config")
}

/// Names of requests that only nodes of the Java server send to one another.
pub(super) fn is_node_only(name: &str) -> bool {
    matches!(
        name,
        "DistroDataRequest"
            | "MemberReportRequest"
            | "ConfigChangeClusterSyncRequest"
            | "ServerLoaderInfoRequest"
            | "ServerReloadRequest"
    )
}
