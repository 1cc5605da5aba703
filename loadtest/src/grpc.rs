//! A Nacos client over gRPC, on bare h2: one HTTP/2 connection, registered as an SDK's is.
//!
//! It does what SDKs do and no more: server check, the two-way stream with the setup, unary calls, answers
//! to whatever the server pushes. The setup carries no abilities, so servers treat it as a client of
//! before 2.3.

use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Uri};
use proto::grpc::FrameDecoder;
use proto::nacos::remote::{
    ClientDetectionResponse, ConnectResetResponse, ConnectionSetupRequest, HealthCheckRequest,
    HealthCheckResponse, ServerCheckRequest, ServerCheckResponse,
};
use proto::nacos::{self, Message as _, Payload, SUCCESS, Text, config, naming, remote};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::ports::GRPC_OFFSET;

/// What the client calls itself.
const VERSION: &str = "rnacos-loadtest:1.0";

/// Flow-control window per stream and connection: no answer waits for a window update.
const WINDOW_BYTES: u32 = 1 << 20;

/// After its setup a connection must be registered within this time.
const REGISTER_PATIENCE: Duration = Duration::from_secs(5);

/// How often a client that is not registered yet asks again.
const REGISTER_POLL: Duration = Duration::from_millis(5);

/// Called with every push, before it is answered. Must not block.
pub type OnPush = Arc<dyn Fn(&Payload) + Send + Sync>;

/// What does nothing with pushes; they are answered all the same.
#[must_use]
pub fn silent() -> OnPush {
    Arc::new(|_| {})
}

/// Why a call gave no answer. Whether it was carried out is unknown.
#[derive(Debug)]
pub enum CallError {
    /// The connection is gone.
    Broken(String),
    /// Answered, but not in gRPC, or with a status other than OK, which no Nacos server sends.
    NotNacos(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(what) => write!(f, "connection broken: {what}"),
            Self::NotNacos(what) => write!(f, "no answer of a Nacos server: {what}"),
        }
    }
}

impl std::error::Error for CallError {}

impl From<h2::Error> for CallError {
    fn from(error: h2::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

/// A registered connection. Dropping it closes the connection.
pub struct Sdk {
    requests: SendRequest<Bytes>,
    unary: Uri,
    connection_id: String,
    /// Set when the stream has ended; the server then no longer knows the connection.
    ended: Arc<AtomicBool>,
    tasks: [tokio::task::AbortHandle; 2],
}

impl fmt::Debug for Sdk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sdk").field(&self.connection_id).finish()
    }
}

impl Drop for Sdk {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// The gRPC address that belongs to an HTTP address.
#[must_use]
pub fn beside(http: SocketAddr) -> SocketAddr {
    SocketAddr::new(http.ip(), http.port() + GRPC_OFFSET)
}

impl Sdk {
    /// Connects and registers; returns once the server knows the connection. No time limit besides that
    /// of the registration: the caller sets one.
    pub async fn open(address: SocketAddr, on_push: OnPush) -> Result<Self, CallError> {
        let broken = |error: std::io::Error| CallError::Broken(error.to_string());
        let socket = TcpStream::connect(address).await.map_err(broken)?;
        socket.set_nodelay(true).map_err(broken)?;
        let own_ip = socket.local_addr().map_err(broken)?.ip().to_string();
        let (requests, connection) = h2::client::Builder::new()
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .enable_push(false)
            .handshake::<_, Bytes>(socket)
            .await?;
        let ended = Arc::new(AtomicBool::new(false));
        let driver_ended = Arc::clone(&ended);
        let driver = tokio::spawn(async move {
            // How it ended is told by the calls that fail.
            let _ = connection.await;
            driver_ended.store(true, Ordering::Relaxed);
        });
        let mut sdk = Self {
            requests,
            unary: uri(address, "/Request/request"),
            connection_id: String::new(),
            ended,
            tasks: [driver.abort_handle(), driver.abort_handle()],
        };
        let answer = sdk.ask(&ServerCheckRequest::default()).await?;
        let check: ServerCheckResponse<'_> = understood(&answer)?;
        sdk.connection_id = check.connection_id.into_owned();
        sdk.set_up(uri(address, "/BiRequestStream/requestBiStream"), own_ip, on_push)
            .await?;
        sdk.wait_until_registered().await?;
        Ok(sdk)
    }

    /// What the server calls this connection.
    #[must_use]
    pub fn connection_id(&self) -> &str {
        &self.connection_id
    }

    /// Whether another call makes sense.
    #[must_use]
    pub fn usable(&self) -> bool {
        !self.ended.load(Ordering::Relaxed)
    }

    async fn set_up(&mut self, stream: Uri, own_ip: String, on_push: OnPush) -> Result<(), CallError> {
        let (response, mut out) = self.request(stream).await?;
        let setup = ConnectionSetupRequest {
            client_version: VERSION.into(),
            labels: [
                ("source".into(), "sdk".into()),
                ("module".into(), "config".into()),
                ("AppName".into(), "loadtest".into()),
            ]
            .into(),
            ..Default::default()
        };
        out.send_data(nacos::request_frame(&setup, &[], &own_ip), false)?;
        let ended = Arc::clone(&self.ended);
        let pushes = tokio::spawn(async move {
            let _ = take_pushes(response, out, on_push).await;
            ended.store(true, Ordering::Relaxed);
        });
        self.tasks[1] = pushes.abort_handle();
        Ok(())
    }

    async fn wait_until_registered(&mut self) -> Result<(), CallError> {
        let deadline = Instant::now() + REGISTER_PATIENCE;
        loop {
            let answer = self.ask(&HealthCheckRequest::default()).await?;
            match understood::<HealthCheckResponse<'_>>(&answer) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => sleep(REGISTER_POLL).await,
            }
        }
    }

    /// A unary call with a message.
    pub async fn ask<M: nacos::Message>(&mut self, message: &M) -> Result<Payload, CallError> {
        self.call(nacos::request_frame(message, &[("AppName", "loadtest")], ""))
            .await
    }

    /// A unary call with a frame made before.
    ///
    /// Cancel safe: dropped half-way, the stream is reset and the connection can be used on; whether the
    /// request was carried out is unknown.
    pub async fn call(&mut self, frame: Bytes) -> Result<Payload, CallError> {
        let (response, mut out) = self.request(self.unary.clone()).await?;
        out.send_data(frame, true)?;
        let response = response.await?;
        let (head, mut body) = response.into_parts();
        if head.status != 200 {
            return Err(CallError::NotNacos(format!("HTTP status {}", head.status)));
        }
        let mut decoder = FrameDecoder::default();
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            body.flow_control().release_capacity(chunk.len())?;
            decoder.push(chunk);
        }
        check_status(&head.headers)?;
        if let Some(trailers) = body.trailers().await? {
            check_status(&trailers)?;
        }
        next_payload(&mut decoder)?.ok_or_else(|| CallError::NotNacos("an answer without a message".into()))
    }

    async fn request(&mut self, uri: Uri) -> Result<(ResponseFuture, SendStream<Bytes>), CallError> {
        poll_fn(|context| self.requests.poll_ready(context)).await?;
        let request = Request::post(uri)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .map_err(|error| CallError::Broken(error.to_string()))?;
        Ok(self.requests.send_request(request, false)?)
    }
}

fn uri(address: SocketAddr, path: &str) -> Uri {
    format!("http://{address}{path}")
        .parse()
        .unwrap_or_else(|_| unreachable!("an address and a constant path are a URI"))
}

/// The status may stand in the head, when there is nothing but a status, or in the trailers.
fn check_status(headers: &HeaderMap) -> Result<(), CallError> {
    match headers.get("grpc-status") {
        Some(status) if status != "0" => {
            let words = headers.get("grpc-message").map(|words| words.as_bytes());
            let words = String::from_utf8_lossy(words.unwrap_or_default());
            Err(CallError::NotNacos(format!("gRPC status {status:?} {words}")))
        }
        _ => Ok(()),
    }
}

fn next_payload(decoder: &mut FrameDecoder) -> Result<Option<Payload>, CallError> {
    let not_nacos = |error: &dyn fmt::Display| CallError::NotNacos(error.to_string());
    match decoder.next_frame().map_err(|error| not_nacos(&error))? {
        None => Ok(None),
        Some(frame) if frame.compressed => Err(CallError::NotNacos("compressed without being asked".into())),
        Some(frame) => Payload::decode(frame.message)
            .map(Some)
            .map_err(|error| not_nacos(&error)),
    }
}

/// The answer, if it is of this type and reports success.
pub fn understood<'a, R: nacos::Response<'a> + serde::Deserialize<'a>>(
    answer: &'a Payload,
) -> Result<R, CallError> {
    let refused = || {
        let shown = answer.json().get(..200).unwrap_or(answer.json());
        let shown = String::from_utf8_lossy(shown);
        CallError::NotNacos(format!(
            "{} where {} was expected: {shown}",
            answer.type_name(),
            R::TYPE
        ))
    };
    let outcome: remote::Ack<'_> = answer.read().map_err(|_| refused())?;
    if answer.type_name() != R::TYPE || outcome.result_code != SUCCESS {
        return Err(refused());
    }
    answer.read().map_err(|_| refused())
}

/// Reads and answers pushes until the stream ends.
async fn take_pushes(
    response: ResponseFuture,
    mut out: SendStream<Bytes>,
    on_push: OnPush,
) -> Result<(), CallError> {
    let mut body: RecvStream = response.await?.into_body();
    let mut decoder = FrameDecoder::default();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        decoder.push(chunk);
        while let Some(push) = next_payload(&mut decoder)? {
            on_push(&push);
            if let Some(answer) = answer_to(&push) {
                out.send_data(answer, false)?;
            }
        }
    }
    Ok(())
}

/// What an SDK answers; nothing to what it does not know and to the setup's acknowledgement.
fn answer_to(push: &Payload) -> Option<Bytes> {
    fn ok<'a, R: nacos::Response<'a>>(id: Option<Text<'a>>) -> Bytes {
        nacos::frame(&R::ok().answering(id))
    }
    // Reading a list of a thousand instances to its end for its id would be most of a generator's work.
    let id = match early_id(push.json()) {
        Some(id) => Some(id.into()),
        None => push.read::<remote::Ack<'_>>().ok()?.request_id,
    };
    match push.type_name() {
        remote::ClientDetectionRequest::TYPE => Some(ok::<ClientDetectionResponse<'_>>(id)),
        remote::ConnectResetRequest::TYPE => Some(ok::<ConnectResetResponse<'_>>(id)),
        config::ConfigChangeNotifyRequest::TYPE => Some(ok::<config::ConfigChangeNotifyResponse<'_>>(id)),
        naming::NotifySubscriberRequest::TYPE => Some(ok::<naming::NotifySubscriberResponse<'_>>(id)),
        _ => None,
    }
}

/// The request id of a message that begins with it, as servers write it.
fn early_id(json: &[u8]) -> Option<&str> {
    let id = json.strip_prefix(b"{\"requestId\":\"")?;
    let end = id.iter().position(|byte| *byte == b'"')?;
    let id = std::str::from_utf8(id.get(..end)?).ok()?;
    (!id.contains('\\')).then_some(id)
}

/// Waits until each address, given as HTTP addresses, registers gRPC connections; a server may open its
/// second port later than the first.
pub async fn wait_until_open(http: &[SocketAddr]) -> anyhow::Result<()> {
    const PATIENCE: Duration = Duration::from_secs(30);
    for address in http {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let opened = Sdk::open(beside(*address), silent());
            match tokio::time::timeout(PATIENCE, opened).await {
                Ok(Ok(_)) => break,
                Ok(Err(error)) if Instant::now() > deadline => {
                    return Err(error).with_context(|| format!("gRPC at {}", beside(*address)));
                }
                Err(_) => anyhow::bail!("gRPC at {}: no answer", beside(*address)),
                Ok(Err(_)) => sleep(Duration::from_millis(100)).await,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_found_where_it_comes_first() {
        assert_eq!(
            early_id(b"{\"requestId\":\"17\",\"module\":\"naming\"}"),
            Some("17")
        );
        assert_eq!(early_id(b"{\"requestId\":\"a\\\"b\"}"), None);
        assert_eq!(early_id(b"{\"headers\":{},\"requestId\":\"17\"}"), None);
        assert_eq!(early_id(b"{\"requestId\":\"17"), None);
    }
}
