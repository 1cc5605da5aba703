//! Persistent instances through a whole server: the log, the registry, the checks, a restart. Nothing sleeps
//! to make things pass: waits are for a state.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rnacos::clock;
use rnacos::model::{Endpoint, NamespaceId, ServiceKey};
use rnacos::naming::{ClusterMetadata, Instance, OverridePatch, Persistent};
use rnacos::server::Server;
use rnacos::settings::Settings;
use rnacos::state::{Command, Outcome};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Only a bug makes a wait as long as this, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

async fn start(folder: &TempDir) -> Server {
    let dir = folder.path().display().to_string();
    let settings = Settings::with(&[
        ("RNACOS_DATA_DIR", dir.as_str()),
        ("RNACOS_SDK_HOST", "127.0.0.1"),
        ("RNACOS_HTTP_PORT", "0"),
        ("RNACOS_NAMING_HEALTH_CHECKS", "all"),
        ("RNACOS_NAMING_HEALTH_CHECK_NETWORKS", "127.0.0.0/8"),
    ]);
    let settings = settings.expect("settings");
    Box::pin(Server::start(settings)).await.expect("it starts")
}

async fn propose(server: &Server, command: Command) -> Outcome {
    let proposed = server.consensus().propose(command, clock::now() + PATIENCE).await;
    proposed.expect("applied")
}

fn service() -> ServiceKey {
    ServiceKey::new(&NamespaceId::default(), "DEFAULT_GROUP", "p")
}

fn at(port: u16) -> Endpoint {
    Endpoint::new("127.0.0.1", port, "")
}

fn put(port: u16, healthy: bool) -> Command {
    Command::NamingInstancePut {
        service: service(),
        endpoint: at(port),
        persistent: Persistent {
            instance: Arc::new(Instance::default()),
            healthy,
        },
    }
}

/// Port, weight and health of every instance; `None` while the node does not answer.
async fn listed(http: SocketAddr) -> Option<Vec<(u64, f64, bool)>> {
    list_of(http, "p").await
}

async fn list_of(http: SocketAddr, name: &str) -> Option<Vec<(u64, f64, bool)>> {
    let mut socket = TcpStream::connect(http).await.expect("a connection");
    let request = format!(
        "GET /nacos/v1/ns/instance/list?serviceName={name} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.expect("it takes it");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    if !head.starts_with("HTTP/1.1 200") {
        return None;
    }
    let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
    let hosts = body["hosts"].as_array().expect("hosts").iter();
    let mut hosts: Vec<_> = hosts
        .map(|host| {
            (
                host["port"].as_u64().expect("a port"),
                host["weight"].as_f64().expect("a weight"),
                host["healthy"].as_bool().expect("its health"),
            )
        })
        .collect();
    hosts.sort_by_key(|(port, ..)| *port);
    Some(hosts)
}

async fn shows(server: &Server, wanted: &[(u64, f64, bool)]) {
    let http = server.http_address();
    let reached = async {
        while listed(http).await.as_deref() != Some(wanted) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let reached = tokio::time::timeout(PATIENCE, reached).await;
    assert!(reached.is_ok(), "{:?}, wanted {wanted:?}", listed(http).await);
}

/// A port on which nobody listens, and nobody can while the socket lives.
fn closed_port() -> (TcpSocket, u16) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .bind(SocketAddr::from(([127, 0, 0, 1], 0)))
        .expect("a port");
    let port = socket.local_addr().expect("its address").port();
    (socket, port)
}

#[tokio::test(flavor = "multi_thread")]
async fn persistent_instances_are_shown_checked_and_there_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = start(&folder).await;
    // First where nobody checks: what is acknowledged is shown at once, and stays so.
    let set = ClusterMetadata {
        check_port: 80,
        use_instance_port: true,
        checker: "{\"type\":\"NONE\"}".into(),
        metadata: Default::default(),
    };
    let unchecked = Command::NamingClusterPut {
        service: service(),
        cluster: Endpoint::DEFAULT_CLUSTER.into(),
        set: set.clone(),
        ephemeral: false,
    };
    assert_eq!(propose(&server, unchecked).await, Outcome::NamingDone);
    let alive = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let alive_port = alive.local_addr().expect("its address").port();
    let (dead, dead_port) = closed_port();
    assert_eq!(
        propose(&server, put(alive_port, false)).await,
        Outcome::NamingDone
    );
    assert_eq!(propose(&server, put(dead_port, true)).await, Outcome::NamingDone);
    let patch = Command::NamingOverridePut {
        service: service(),
        endpoints: vec![at(alive_port)],
        patch: OverridePatch {
            weight: Some(3.0),
            ..OverridePatch::default()
        },
    };
    assert_eq!(propose(&server, patch).await, Outcome::NamingDone);
    let sorted = |mut all: Vec<(u64, f64, bool)>| {
        all.sort_by_key(|(port, ..)| *port);
        all
    };
    let registered = sorted(vec![
        (alive_port.into(), 3.0, false),
        (dead_port.into(), 1.0, true),
    ]);
    assert_eq!(listed(server.http_address()).await, Some(registered));
    // From now on they are asked.
    let checked = Command::NamingClusterPut {
        service: service(),
        cluster: Endpoint::DEFAULT_CLUSTER.into(),
        set: ClusterMetadata {
            checker: "{\"type\":\"TCP\"}".into(),
            ..set
        },
        ephemeral: false,
    };
    assert_eq!(propose(&server, checked).await, Outcome::NamingDone);
    let found = sorted(vec![
        (alive_port.into(), 3.0, true),
        (dead_port.into(), 1.0, false),
    ]);
    shows(&server, &found).await;
    assert!(server.stop().await);
    // The log has what the checks found; a node that comes back knows it before it checks.
    let server = start(&folder).await;
    shows(&server, &found).await;
    drop((alive, dead));
    assert!(server.stop().await);
}

/// While a node waits for the clients of its last run, it knows what the log has: that is told as soon as it leads.
#[tokio::test(flavor = "multi_thread")]
async fn persistent_instances_need_no_clients_to_come_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = start(&folder).await;
    assert_eq!(propose(&server, put(80, true)).await, Outcome::NamingDone);
    assert!(server.stop().await);
    // A mark that cannot be read is one of a node that had clients.
    std::fs::write(folder.path().join("naming"), "damaged").expect("it is written");
    let server = start(&folder).await;
    let http = server.http_address();
    assert_eq!(list_of(http, "somebody-elses").await, None);
    // Once it leads; clients are waited for much longer.
    let first = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            if let Some(first) = listed(http).await {
                return first;
            }
        }
    });
    let first = first.await.expect("an answer");
    assert_eq!(first.iter().map(|(port, ..)| *port).collect::<Vec<_>>(), [80]);
    assert!(server.stop().await);
}
