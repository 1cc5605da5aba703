//! A small Nacos client over bare HTTP/2, for tests: it does what SDKs do, in whatever order and as badly
//! as the test wants. Used by the tests of `src/grpc` (in memory, in virtual time) and by those that start a
//! whole server (over sockets).

#![allow(
    dead_code,
    reason = "each test that includes this uses a part of it; `expect` would fail where all of it is used"
)]

use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::Request;
use proto::grpc::{FrameDecoder, PREFIX_BYTES};
use proto::nacos::remote::{
    ConnectionSetupRequest, HealthCheckRequest, ServerCheckRequest, ServerCheckResponse,
};
use proto::nacos::{self, Message, Payload};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// Nothing in these tests takes longer; a test that hangs is told where.
const PATIENCE: Duration = Duration::from_secs(600);

/// One HTTP/2 connection.
pub(crate) struct Client {
    pub send: SendRequest<Bytes>,
    /// The connection itself; it ends when the server closes it.
    pub driver: JoinHandle<Result<(), h2::Error>>,
}

/// What a unary call came to.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// An answer, with the gRPC status OK.
    Answer(Payload),
    /// Another gRPC status, with its message.
    Status(String, String),
    /// HTTP/2 reset the stream or lost the connection.
    Broken(h2::Error),
}

impl Outcome {
    pub(crate) fn answer(self) -> Payload {
        match self {
            Outcome::Answer(payload) => payload,
            other => panic!("no answer: {other:?}"),
        }
    }

    /// `resultCode` and `errorCode` of the answer.
    pub(crate) fn codes(self) -> (i32, i32) {
        let payload = self.answer();
        let json = json(&payload);
        let code = |name: &str| json[name].as_i64().and_then(|code| i32::try_from(code).ok());
        (
            code("resultCode").expect("a number"),
            code("errorCode").expect("a number"),
        )
    }

    pub(crate) fn status(self) -> String {
        match self {
            Outcome::Status(status, _) => status,
            other => panic!("not a status: {other:?}"),
        }
    }
}

/// The body of a payload.
pub(crate) fn json(payload: &Payload) -> serde_json::Value {
    serde_json::from_slice(payload.json()).expect("JSON")
}

impl Client {
    pub(crate) async fn over(bytes: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Client {
        Client::with(h2::client::Builder::new(), bytes).await
    }

    pub(crate) async fn with(
        builder: h2::client::Builder,
        bytes: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Client {
        let (send, connection) = builder.handshake(bytes).await.expect("a connection");
        let driver = tokio::spawn(connection);
        Client { send, driver }
    }

    pub(crate) async fn connect(address: std::net::SocketAddr) -> Client {
        Client::over(TcpStream::connect(address).await.expect("a connection")).await
    }

    /// A connection that is registered as SDKs do it: check, stream, setup.
    pub(crate) async fn registered(self) -> (Client, Stream, String) {
        let mut client = self;
        let id = client.check().await;
        let mut stream = client.stream().await;
        stream.send(&setup()).await;
        assert_eq!(client.health().await.codes(), (200, 0));
        (client, stream, id)
    }

    /// As [`Client::registered`], with a setup and an address of its own, at a node that may be starting: SDKs ask
    /// again then.
    pub(crate) async fn introduced(
        address: std::net::SocketAddr,
        setup: &ConnectionSetupRequest<'_>,
        ip: &str,
    ) -> (Client, Stream) {
        let mut client = Client::connect(address).await;
        while client.call(&ServerCheckRequest::default()).await.codes().0 == 300 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let mut stream = client.stream().await;
        let setup = nacos::request_frame(setup, &[], ip);
        stream.raw(setup).await.expect("the stream takes it");
        assert_eq!(client.health().await.codes(), (200, 0));
        (client, stream)
    }

    /// `ServerCheckRequest`: the id of the connection.
    pub(crate) async fn check(&mut self) -> String {
        let answer = self.call(&ServerCheckRequest::default()).await.answer();
        assert_eq!(
            answer.type_name(),
            ServerCheckResponse::TYPE,
            "{:?}",
            json(&answer)
        );
        let check: ServerCheckResponse<'_> = answer.read().expect("an answer");
        assert!(check.success && check.support_ability_negotiation);
        check.connection_id.into_owned()
    }

    pub(crate) async fn health(&mut self) -> Outcome {
        self.call(&HealthCheckRequest::default()).await
    }

    pub(crate) async fn call<M: Message>(&mut self, message: &M) -> Outcome {
        self.raw(nacos::request_frame(message, &[], "10.1.2.3")).await
    }

    /// A payload of any type with any body.
    pub(crate) async fn call_as(&mut self, type_name: &str, body: &[u8]) -> Outcome {
        self.raw(frame_of(type_name, body)).await
    }

    /// Bytes as the body of a unary call.
    pub(crate) async fn raw(&mut self, frame: Bytes) -> Outcome {
        self.raw_with(&[], frame).await
    }

    pub(crate) async fn raw_with(&mut self, headers: &[(&'static str, &str)], frame: Bytes) -> Outcome {
        match within(self.exchange(headers, frame)).await {
            Ok(outcome) => outcome,
            Err(error) => Outcome::Broken(error),
        }
    }

    async fn exchange(
        &mut self,
        headers: &[(&'static str, &str)],
        frame: Bytes,
    ) -> Result<Outcome, h2::Error> {
        let (response, body) = self.begin("/Request/request", headers).await?;
        send_all(body, frame, true).await?;
        let (head, mut body) = response.await?.into_parts();
        if let Some(status) = head.headers.get("grpc-status") {
            let message = head.headers.get("grpc-message");
            return Ok(Outcome::Status(
                text(status),
                message.map(text).unwrap_or_default(),
            ));
        }
        let mut decoder = FrameDecoder::default();
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            body.flow_control().release_capacity(chunk.len())?;
            decoder.push(chunk);
        }
        let trailers = body.trailers().await?.expect("trailers");
        assert_eq!(trailers["grpc-status"], "0");
        let frame = decoder.next_frame().expect("a frame").expect("an answer");
        Ok(Outcome::Answer(
            Payload::decode(frame.message).expect("a payload"),
        ))
    }

    /// Sends the head of a request.
    pub(crate) async fn begin(
        &mut self,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<(h2::client::ResponseFuture, SendStream<Bytes>), h2::Error> {
        let mut request =
            Request::post(format!("http://server{path}")).header("content-type", "application/grpc");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut ready = self.send.clone().ready().await?;
        ready.send_request(request.body(()).expect("a request"), false)
    }

    /// Opens the stream.
    pub(crate) async fn stream(&mut self) -> Stream {
        within(self.try_stream()).await.expect("a stream")
    }

    pub(crate) async fn try_stream(&mut self) -> Result<Stream, String> {
        let begun = self.begin("/BiRequestStream/requestBiStream", &[]).await;
        let (response, out) = begun.map_err(|error| error.to_string())?;
        let (head, body) = response.await.map_err(|error| error.to_string())?.into_parts();
        match head.headers.get("grpc-status") {
            Some(status) => Err(text(status)),
            None => Ok(Stream {
                out,
                body,
                decoder: FrameDecoder::default(),
            }),
        }
    }

    /// Waits until the server has closed the connection.
    pub(crate) async fn closed(self) {
        let Client { send, driver } = self;
        let ended = within(driver).await;
        drop(send);
        drop(ended);
    }
}

/// The stream of a client.
pub(crate) struct Stream {
    pub out: SendStream<Bytes>,
    pub body: RecvStream,
    decoder: FrameDecoder,
}

impl Stream {
    pub(crate) async fn send<M: Message>(&mut self, message: &M) {
        let frame = nacos::request_frame(message, &[], "10.1.2.3");
        self.raw(frame).await.expect("the stream takes it");
    }

    pub(crate) async fn send_as(&mut self, type_name: &str, body: &[u8]) {
        self.raw(frame_of(type_name, body))
            .await
            .expect("the stream takes it");
    }

    pub(crate) async fn raw(&mut self, mut frame: Bytes) -> Result<(), h2::Error> {
        while !frame.is_empty() {
            self.out.reserve_capacity(frame.len());
            let room = within(poll_fn(|cx| self.out.poll_capacity(cx))).await;
            let room = room.transpose()?.unwrap_or(0).min(frame.len());
            self.out.send_data(frame.split_to(room), false)?;
        }
        Ok(())
    }

    /// The next push; `None` when the server has ended the stream as SDKs expect it.
    pub(crate) async fn next(&mut self) -> Option<Payload> {
        within(self.try_next())
            .await
            .expect("the stream stands or was ended")
    }

    pub(crate) async fn try_next(&mut self) -> Result<Option<Payload>, h2::Error> {
        loop {
            if let Some(frame) = self.decoder.next_frame().expect("frames") {
                return Ok(Some(Payload::decode(frame.message).expect("a payload")));
            }
            let Some(chunk) = self.body.data().await else {
                let trailers = self.body.trailers().await?;
                // Not OK: Python's SDK connects again only after an error.
                assert_eq!(trailers.expect("trailers")["grpc-status"], "14");
                return Ok(None);
            };
            let chunk = chunk?;
            self.body.flow_control().release_capacity(chunk.len())?;
            self.decoder.push(chunk);
        }
    }

    /// Answers a push, with an answer of any type.
    pub(crate) async fn acknowledge(&mut self, push: &Payload, type_name: &str, result_code: i32) {
        let id = json(push)["requestId"]
            .as_str()
            .expect("a push has an id")
            .to_owned();
        let body =
            format!(r#"{{"requestId":"{id}","resultCode":{result_code},"errorCode":0,"success":false}}"#);
        self.send_as(type_name, body.as_bytes()).await;
    }
}

/// A setup without abilities: of a client before 2.3.
pub(crate) fn setup() -> ConnectionSetupRequest<'static> {
    ConnectionSetupRequest {
        client_version: "Nacos-Java-Client:v2.1.0".into(),
        labels: [("source", "sdk"), ("module", "config"), ("AppName", "shop")]
            .into_iter()
            .map(|(label, value)| (label.into(), value.into()))
            .collect(),
        ..ConnectionSetupRequest::default()
    }
}

/// A framed payload of any type with any body.
pub(crate) fn frame_of(type_name: &str, body: &[u8]) -> Bytes {
    fn field(tag: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![tag];
        let mut rest = bytes.len();
        while rest >= 0x80 {
            out.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        out.push(rest as u8);
        out.extend_from_slice(bytes);
        out
    }
    let metadata = field(0x12, &field(0x1a, type_name.as_bytes()));
    let body = field(0x1a, &field(0x12, body));
    framed(&[metadata, body].concat(), false)
}

/// Any bytes as one gRPC message.
pub(crate) fn framed(message: &[u8], compressed: bool) -> Bytes {
    let mut frame = Vec::with_capacity(PREFIX_BYTES + message.len());
    frame.push(u8::from(compressed));
    frame.extend_from_slice(&u32::try_from(message.len()).expect("short").to_be_bytes());
    frame.extend_from_slice(message);
    frame.into()
}

async fn send_all(mut stream: SendStream<Bytes>, mut bytes: Bytes, end: bool) -> Result<(), h2::Error> {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let Some(room) = poll_fn(|cx| stream.poll_capacity(cx)).await.transpose()? else {
            return Ok(());
        };
        let piece = bytes.split_to(room.min(bytes.len()));
        stream.send_data(piece, end && bytes.is_empty())?;
    }
    Ok(())
}

pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work)
        .await
        .expect("it takes longer than anything in these tests")
}

fn text(value: &http::HeaderValue) -> String {
    value.to_str().unwrap_or_default().to_owned()
}
