//! A server, and clients of it that do what SDKs do. Used by the tests that start a whole server.

#![allow(
    dead_code,
    reason = "each test that includes this uses a part of it; `expect` would fail where all of it is used"
)]

use proto::nacos::remote::ConnectionSetupRequest;
use proto::nacos::{self, Message, Payload};
use rnacos::server::Server;
use rnacos::settings::Settings;
use serde_json::Value;
use tempfile::TempDir;

use super::client::{self, Stream, within};

/// A server with a folder of its own.
pub(crate) struct Node {
    server: Server,
    _folder: TempDir,
}

impl Node {
    pub(crate) async fn start() -> Node {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().display().to_string();
        let settings = Settings::with(&[
            ("RNACOS_DATA_DIR", dir.as_str()),
            ("RNACOS_SDK_HOST", "127.0.0.1"),
            ("RNACOS_HTTP_PORT", "0"),
        ]);
        let server = Box::pin(Server::start(settings.expect("settings"))).await;
        Node {
            server: server.expect("a server"),
            _folder: folder,
        }
    }

    pub(crate) async fn client(&self) -> Client {
        self.client_at("10.1.2.3").await
    }

    /// A client that says that this is its address.
    pub(crate) async fn client_at(&self, ip: &str) -> Client {
        self.client_of("Nacos-Go-Client:v2.3.5", ip).await
    }

    /// A client of an SDK.
    pub(crate) async fn client_of(&self, version: &'static str, ip: &str) -> Client {
        let setup = ConnectionSetupRequest {
            client_version: version.into(),
            ..client::setup()
        };
        let address = self.server.grpc_address();
        let (client, stream) = client::Client::introduced(address, &setup, ip).await;
        Client { client, stream }
    }

    pub(crate) async fn stop(self) {
        assert!(self.server.stop().await, "everything ends in time");
    }
}

/// A registered client.
pub(crate) struct Client {
    client: client::Client,
    stream: Stream,
}

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) type_name: String,
    pub(crate) body: Value,
}

impl Answer {
    fn of(payload: &Payload) -> Answer {
        Answer {
            type_name: payload.type_name().to_owned(),
            body: client::json(payload),
        }
    }
}

impl Client {
    pub(crate) async fn ask<M: Message>(&mut self, message: &M) -> Answer {
        self.ask_with(message, &[]).await
    }

    pub(crate) async fn ask_with<M: Message>(&mut self, message: &M, headers: &[(&str, &str)]) -> Answer {
        let frame = nacos::request_frame(message, headers, "10.1.2.3");
        Answer::of(&self.client.raw(frame).await.answer())
    }

    /// Any body.
    pub(crate) async fn ask_as(&mut self, type_name: &str, body: &[u8]) -> Answer {
        Answer::of(&self.client.call_as(type_name, body).await.answer())
    }

    /// The next push.
    pub(crate) async fn pushed(&mut self) -> Payload {
        within(self.stream.next()).await.expect("the stream stands")
    }

    /// The next push; `None` when the server has ended the stream.
    pub(crate) async fn next_push(&mut self) -> Option<Payload> {
        within(self.stream.next()).await
    }

    pub(crate) async fn acknowledge(&mut self, push: &Payload, type_name: &str) {
        self.stream.acknowledge(push, type_name, 200).await;
    }
}
