//! A gateway without services, whose table has handlers of the test.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proto::nacos::Response as _;
use proto::nacos::config::{
    ConfigPublishRequest, ConfigPublishResponse, ConfigQueryRequest, ConfigQueryResponse,
    ConfigRemoveRequest, ConfigRemoveResponse,
};
use proto::nacos::remote::{HealthCheckRequest, HealthCheckResponse};

pub(super) use super::client::{Client, Outcome, Stream, framed, json, setup};
use crate::error::Error;
use crate::grpc::Gateway;
use crate::grpc::dispatch::{Call, Failure, Row, Table, rows};
use crate::grpc::line::WireKind;
use crate::grpc::listener::{Limits, Listener, Server};
use crate::grpc::tls::Tls;
use crate::metrics::Grpc;
use crate::shutdown::Shutdown;

/// Bytes that are on their way in either direction at most, as the buffers of a socket would hold.
const SOCKET_BYTES: usize = 64 << 10;

/// The port of a node that has no services.
pub(super) struct Port {
    pub gateway: Arc<Gateway>,
    pub metrics: Arc<Grpc>,
    server: Arc<Server>,
    pub clients: Shutdown,
    pub network: Shutdown,
}

impl Port {
    /// A node that has its data.
    pub(super) fn open() -> Port {
        let port = Port::loading();
        port.gateway.readiness.set_current();
        port
    }

    /// A node that does not have its data yet.
    pub(super) fn loading() -> Port {
        let (clients, network) = (Shutdown::new(), Shutdown::new());
        let metrics = Arc::new(Grpc::new(ROWS.iter().map(|row| row.name)));
        let gateway = Gateway::with(None, Table::new(ROWS.iter()), metrics.clone(), clients.clone());
        let local = ([127, 0, 0, 1], 9848).into();
        let server = Server::new(
            None,
            gateway.clone(),
            Limits::default(),
            local,
            metrics.clone(),
            &clients,
            &network,
        );
        let server = Arc::new(server);
        drop(network.spawn(server.clone().tell_when_to_go()));
        Port {
            gateway,
            metrics,
            server,
            clients,
            network,
        }
    }

    /// A node that has its data, on a socket.
    pub(super) fn on_socket(tls: Option<Arc<Tls>>) -> (Port, SocketAddr) {
        let port = Port::open();
        let listener = Listener::bind(([127, 0, 0, 1], 0).into(), Limits::default()).expect("a free port");
        let address = listener.local_address();
        listener.with_tls(tls).serve(
            None,
            port.gateway.clone(),
            port.metrics.clone(),
            &port.clients,
            &port.network,
        );
        (port, address)
    }

    /// The client's end of a new connection; each comes from another port.
    pub(super) fn wire(&self) -> tokio::io::DuplexStream {
        static PORT: AtomicU64 = AtomicU64::new(1);
        let port = 10_000 + (PORT.fetch_add(1, Ordering::Relaxed) % 50_000) as u16;
        let (ours, theirs) = tokio::io::duplex(SOCKET_BYTES);
        let (remote, local) = (([10, 0, 0, 9], port).into(), ([127, 0, 0, 1], 9848).into());
        self.server.attend(remote, local, WireKind::Memory(ours));
        theirs
    }

    pub(super) async fn client(&self) -> Client {
        Client::over(self.wire()).await
    }

    /// A client that is registered, and this side of it.
    pub(super) async fn registered(&self) -> (Client, Stream, Arc<crate::grpc::Client>) {
        let (client, stream, id) = self.client().await.registered().await;
        let ours = self.gateway.registry().find(&id).expect("it is registered");
        (client, stream, ours)
    }
}

const ROWS: &[Row] = rows! {
    HealthCheckRequest => HealthCheckResponse: health;
    ConfigQueryRequest => ConfigQueryResponse: query;
    ConfigPublishRequest => ConfigPublishResponse: publish;
    ConfigRemoveRequest => ConfigRemoveResponse: remove;
};

async fn health<'a>(_: &Call, _: HealthCheckRequest<'_>) -> Result<HealthCheckResponse<'a>, Failure> {
    Ok(HealthCheckResponse::ok())
}

/// As many bytes as the name of the config says; with a name that is no number, it panics.
async fn query<'a>(_: &'a Call, request: ConfigQueryRequest<'a>) -> Result<ConfigQueryResponse<'a>, Failure> {
    let bytes = request.data_id.parse().expect("a panic on purpose");
    Ok(ConfigQueryResponse {
        content: Some("x".repeat(bytes).into()),
        ..ConfigQueryResponse::ok()
    })
}

/// Takes a second.
async fn publish<'a>(_: &'a Call, _: ConfigPublishRequest<'a>) -> Result<ConfigPublishResponse<'a>, Failure> {
    tokio::time::sleep(Duration::from_secs(1)).await;
    Ok(ConfigPublishResponse::ok())
}

/// Fails as its name says.
async fn remove<'a>(
    _: &'a Call,
    request: ConfigRemoveRequest<'a>,
) -> Result<ConfigRemoveResponse<'a>, Failure> {
    match &*request.data_id {
        "parameter" => Err(Error::Illegal("dataId".to_owned()).into()),
        "leader" => Err(Error::Unavailable("no leader".to_owned()).into()),
        "unknown" => Err(Error::Indeterminate("no majority answered".to_owned()).into()),
        _ => Ok(ConfigRemoveResponse::ok()),
    }
}
