//! Each limit of the listener, seen from outside. Time limits are set to be short, never waited out by the
//! clock of the test.

use h2::client::SendRequest;
use http::Request;
use raft::{Boot, Incarnation, NodeId};
use storage::ClusterId;
use tokio::io::AsyncReadExt;
use tokio::sync::Notify;

use super::super::tls::Files;
use super::*;
use crate::cluster::{
    Call, CallReply, ClusterToken, Credentials, Identity, Kind, Local, PeerClient, PeerIdentity, PeerService,
    Target, WhyRefused,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// Peers prove the cluster token and use clear text, whatever clients have to use.
#[tokio::test]
async fn where_tls_is_required_peers_come_in_clear_text() {
    let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls");
    let files = Files {
        certificates: fixtures.join("first.cert.pem"),
        key: fixtures.join("first.key.pem"),
    };
    let tls = Tls::load(files).expect("a certificate").required(true);
    let server = Served::start_with(Limits::default(), Arc::new(Unimplemented), Some(tls));
    let mut client = server.connect().await;
    assert_eq!(status(&mut client, None).await, "7");
    let mut peer = server.peer().await;
    let reply = peer.call(&Call::Status, PATIENCE).await.unwrap();
    assert!(matches!(reply, CallReply::Refused(refused) if refused.why == WhyRefused::Unavailable));
}

#[tokio::test]
async fn beyond_the_limit_there_is_room_for_peers_only() {
    let limits = Limits {
        connections_max: 1,
        peer_reserve: 2,
        ..Limits::default()
    };
    let server = Served::start(limits, Arc::new(Unimplemented));
    let mut first = server.connect().await;
    assert_eq!(status(&mut first, None).await, "12");
    let mut second = server.connect().await;
    assert_eq!(
        status(&mut second, None).await,
        "14",
        "a connection of the reserve serves no SDK"
    );
    let mut peer = server.peer().await;
    let reply = peer.call(&Call::Status, PATIENCE).await.unwrap();
    assert!(matches!(reply, CallReply::Refused(refused) if refused.why == WhyRefused::Unavailable));
    let mut turned_away = TcpStream::connect(server.address).await.unwrap();
    // Closed without a byte; a reset says the same.
    assert_eq!(turned_away.read(&mut [0; 1]).await.unwrap_or(0), 0);
    assert_eq!(status(&mut first, None).await, "12", "those that are there stay");
    assert_eq!(server.metrics.turned_away.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_connection_of_the_reserve_that_proves_nothing_is_closed() {
    let limits = Limits {
        connections_max: 0,
        peer_reserve: 1,
        proof_within: Duration::from_millis(1),
        ..Limits::default()
    };
    let server = Served::start(limits, Arc::new(Unimplemented));
    let stream = TcpStream::connect(server.address).await.unwrap();
    let Ok((_send, connection)) = h2::client::handshake::<_>(stream).await else {
        return;
    };
    let ended = timeout(PATIENCE, connection).await;
    assert!(ended.is_ok(), "it may stay");
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let short = Duration::from_millis(1);
    let limits = Limits {
        preface_within: short,
        first_request_within: short,
        registered_within: short,
        ..Limits::default()
    };
    let server = Served::start(limits, Arc::new(Unimplemented));
    let mut mute = TcpStream::connect(server.address).await.unwrap();
    let end = timeout(PATIENCE, mute.read_to_end(&mut Vec::new())).await;
    assert!(end.is_ok(), "it may stay");
}

/// Asks, and never says who it is.
#[derive(Debug)]
struct Stranger;

impl Handler for Stranger {
    fn open(self: Arc<Self>, _: &Arc<Line>) -> Arc<dyn Guest> {
        self
    }
}

impl Guest for Stranger {
    fn handle(self: Arc<Self>, (_, respond): Exchange) -> BoxFuture<'static, ()> {
        refuse(respond, UNIMPLEMENTED);
        Box::pin(std::future::ready(()))
    }

    fn is_registered(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn a_connection_that_asks_and_never_registers_is_closed() {
    let limits = Limits {
        registered_within: Duration::from_millis(1),
        ..Limits::default()
    };
    let server = Served::start(limits, Arc::new(Stranger));
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (mut send, connection) = h2::client::handshake::<_>(stream).await.unwrap();
    let (response, _stream) = send.send_request(request(None), true).unwrap();
    let ended = timeout(PATIENCE, connection).await;
    assert!(ended.is_ok(), "it may stay");
    assert_eq!(response.await.unwrap().headers()["grpc-status"], "12");
}

#[tokio::test]
async fn headers_beyond_the_limit_are_refused_and_the_next_request_is_not() {
    let server = Served::start(Limits::default(), Arc::new(Unimplemented));
    let mut send = server.connect().await;
    assert_eq!(status(&mut send, Some("a".repeat(40 << 10))).await, "refused");
    assert_eq!(status(&mut send, Some("a".repeat(8 << 10))).await, "12");
}

#[tokio::test]
async fn open_streams_are_finished_when_the_server_stops() {
    let handler = Arc::new(Patient::default());
    let server = Served::start(Limits::default(), handler.clone());
    let send = server.connect().await;
    let (response, _stream) = send
        .clone()
        .ready()
        .await
        .unwrap()
        .send_request(request(None), true)
        .unwrap();
    handler.asked.notified().await;
    server.shutdown.begin();
    handler.go_on.notify_one();
    assert_eq!(response.await.unwrap().headers()["grpc-status"], "12");
    drop(send);
    assert!(server.shutdown.drained(PATIENCE).await);
    assert!(server.clients.drained(PATIENCE).await);
    assert_eq!(*handler.closed.lock().unwrap(), 1);
    assert!(
        TcpStream::connect(server.address).await.is_err(),
        "nobody listens any more"
    );
}

#[tokio::test]
async fn streams_that_never_end_are_cut_at_the_deadline() {
    let handler = Arc::new(Patient::default());
    let limits = Limits {
        drain_within: Duration::from_millis(1),
        ..Limits::default()
    };
    let server = Served::start(limits, handler.clone());
    let send = server.connect().await;
    let (response, _stream) = send
        .clone()
        .ready()
        .await
        .unwrap()
        .send_request(request(None), true)
        .unwrap();
    handler.asked.notified().await;
    server.shutdown.begin();
    assert!(timeout(PATIENCE, response).await.expect("cut").is_err());
    handler.go_on.notify_one();
    assert!(server.shutdown.drained(PATIENCE).await);
}

#[tokio::test]
async fn a_taken_port_is_named_with_what_to_do() {
    let server = Served::start(Limits::default(), Arc::new(Unimplemented));
    let error = Listener::bind(server.address, Limits::default()).err().unwrap();
    let sentence = error.to_string();
    assert!(
        sentence.contains("RNACOS_GRPC_PORT") && sentence.contains(&server.address.to_string()),
        "{sentence}"
    );
}

/// A listener on a free port, with a door that has the token "secret".
struct Served {
    address: SocketAddr,
    metrics: Arc<Grpc>,
    shutdown: Shutdown,
    /// Where the clients' connections run.
    clients: Shutdown,
}

impl Served {
    fn start(limits: Limits, handler: Arc<dyn Handler>) -> Served {
        Served::start_with(limits, handler, None)
    }

    fn start_with(limits: Limits, handler: Arc<dyn Handler>, tls: Option<Tls>) -> Served {
        let shutdown = Shutdown::new();
        let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0)), limits).unwrap();
        let listener = listener.with_tls(tls.map(Arc::new));
        let address = listener.local_address();
        let token = ClusterToken::new("secret");
        let door = Door::new(
            Local::new(identity(1)),
            token,
            Arc::new(Deaf),
            None,
            shutdown.clone(),
        );
        let metrics = Arc::new(Grpc::new(std::iter::empty()));
        listener.serve(
            Some(Arc::new(door)),
            handler,
            metrics.clone(),
            &shutdown,
            &shutdown,
        );
        Served {
            address,
            metrics,
            shutdown,
            clients: Shutdown::new(),
        }
    }

    async fn connect(&self) -> SendRequest<Bytes> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (send, connection) = h2::client::handshake(stream).await.unwrap();
        drop(self.clients.spawn(async move { drop(connection.await) }));
        send
    }

    async fn peer(&self) -> PeerClient {
        let credentials = Credentials::new(ClusterToken::new("secret"), Kind::Member, identity(2));
        let address = self.address.to_string();
        PeerClient::connect(&address, &credentials, Target::default(), PATIENCE)
            .await
            .unwrap()
    }
}

fn identity(id: u64) -> Identity {
    Identity {
        cluster_id: Some(ClusterId(1)),
        node_id: NodeId(id),
        incarnation: Incarnation(id),
        boot: Boot(1),
        feature_level: 1,
        address: String::new(),
    }
}

struct Deaf;

impl PeerService for Deaf {
    fn raft(&self, _: &PeerIdentity, _: Vec<raft::Message>) {}

    fn call<'a>(&'a self, _: &'a PeerIdentity, _: Call) -> BoxFuture<'a, CallReply> {
        Box::pin(async { CallReply::refused(WhyRefused::Unavailable, "deaf") })
    }

    fn unreachable(&self, _: NodeId) {}
}

/// Answers when it is told to.
#[derive(Default)]
struct Patient {
    asked: Arc<Notify>,
    go_on: Arc<Notify>,
    closed: Mutex<u32>,
}

impl Handler for Patient {
    fn open(self: Arc<Self>, _: &Arc<Line>) -> Arc<dyn Guest> {
        self
    }
}

impl Guest for Patient {
    fn handle(self: Arc<Self>, (_, respond): Exchange) -> BoxFuture<'static, ()> {
        self.asked.notify_one();
        let go_on = self.go_on.clone();
        Box::pin(async move {
            go_on.notified().await;
            refuse(respond, UNIMPLEMENTED);
        })
    }

    fn closed(&self) {
        *self.closed.lock().unwrap() += 1;
    }
}

fn request(header: Option<String>) -> Request<()> {
    let request = Request::post("http://server/a.Service/Method");
    match header {
        Some(value) => request.header("x-large", value).body(()).unwrap(),
        None => request.body(()).unwrap(),
    }
}

/// The gRPC status of a request; "refused" when it was not taken at all.
async fn status(send: &mut SendRequest<Bytes>, header: Option<String>) -> String {
    let mut ready = send.clone().ready().await.unwrap();
    let (response, _stream) = ready.send_request(request(header), true).unwrap();
    match response.await {
        Ok(response) if response.status().is_success() => {
            response.headers()["grpc-status"].to_str().unwrap().to_owned()
        }
        _ => "refused".to_owned(),
    }
}
