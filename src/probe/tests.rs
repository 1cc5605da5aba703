//! Checks against real listeners on loopback, in moved time: a pause of seconds takes none.

use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;
use crate::model::{Endpoint, NamespaceId, ServiceKey};
use crate::naming::{ClusterMetadata, Persistent, Replicated};
use crate::shutdown::Shutdown;

fn service() -> ServiceKey {
    ServiceKey::new(&NamespaceId::default(), "g", "s")
}

fn instance(port: u16, healthy: bool) -> Replicated {
    Replicated::Instance {
        service: service(),
        endpoint: Endpoint::new("127.0.0.1", port, "c"),
        set: Some(Persistent {
            instance: Arc::default(),
            healthy,
        }),
    }
}

fn cluster(checker: &str) -> Replicated {
    Replicated::Cluster {
        service: service(),
        cluster: "c".into(),
        set: Some(ClusterMetadata {
            check_port: 0,
            use_instance_port: true,
            checker: checker.into(),
            metadata: Default::default(),
        }),
    }
}

type Told = mpsc::Receiver<(u16, bool)>;

/// Checks that run, whose reports reach the plan again as the log would bring them.
fn start(allowed: Allowed, networks: &[&str], shutdown: &Shutdown) -> (Arc<Probes>, Told) {
    let (sender, told) = mpsc::channel(1_000);
    let probes: Arc<Mutex<Option<Arc<Probes>>>> = Arc::default();
    let log = Arc::clone(&probes);
    let report = move |changes: Vec<(ServiceKey, Endpoint, bool)>| {
        for (_, endpoint, healthy) in changes {
            if let Some(probes) = &*log.lock().expect("the log") {
                probes.tell(&instance(endpoint.port, healthy));
            }
            sender.try_send((endpoint.port, healthy)).expect("room");
        }
        Box::pin(std::future::ready(())) as std::pin::Pin<Box<dyn Future<Output = ()> + Send>>
    };
    let networks = networks.iter().map(|text| text.parse().expect("a network"));
    let made = Probes::new(Parts {
        allowed,
        asker: Arc::new(Asker {
            connect_timeout: NEVER,
            answer_timeout: NEVER,
            ..Asker::new(Guard::new(networks.collect(), vec![1..=u16::MAX]))
        }),
        is_ours: Box::new(|_| true),
        report: Box::new(report),
        report_max: 10,
    });
    *probes.lock().expect("the log") = Some(Arc::clone(&made));
    shutdown.spawn_while_running(Arc::clone(&made).run());
    (made, told)
}

/// Answers every request with the status that is in force, and counts.
async fn http_server(status: Arc<AtomicU16>, asked: Arc<AtomicUsize>, shutdown: &Shutdown) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    shutdown.spawn_while_running(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut request = [0; 4_096];
            let read = stream.read(&mut request).await.unwrap_or(0);
            assert!(request[..read].starts_with(b"GET /up HTTP/1.1\r\nhost: 127.0.0.1:"));
            asked.fetch_add(1, Ordering::Relaxed);
            let status = status.load(Ordering::Relaxed);
            let answer =
                format!("HTTP/1.1 {status} X\r\nlocation: http://10.9.9.9/\r\ncontent-length: 0\r\n\r\n");
            drop(stream.write_all(answer.as_bytes()).await);
        }
    });
    port
}

/// While the kernel takes its time to hand a byte from one end of a connection to the other, moved time
/// jumps from timer to timer: what is given up after this is not given up for that.
const NEVER: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Waits in moved time; fails when nothing comes in many years of it.
async fn next(told: &mut Told) -> (u16, bool) {
    let told = tokio::time::timeout(NEVER, told.recv()).await;
    told.expect("something is told").expect("the checks run")
}

#[tokio::test(start_paused = true)]
async fn a_listener_is_well_and_a_closed_port_is_not() {
    let shutdown = Shutdown::new();
    let (probes, mut told) = start(Allowed::Tcp, &["127.0.0.0/8"], &shutdown);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    probes.tell(&instance(port, false));
    assert_eq!(next(&mut told).await, (port, true), "after three results");
    drop(listener);
    assert_eq!(next(&mut told).await, (port, false), "refused: at once");
    shutdown.begin();
    assert!(shutdown.drained(Duration::from_secs(5)).await);
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_as_expected_or_not_and_no_redirect_is_followed() {
    let shutdown = Shutdown::new();
    let (status, asked) = (Arc::new(AtomicU16::new(204)), Arc::default());
    let port = http_server(Arc::clone(&status), Arc::clone(&asked), &shutdown).await;
    let (probes, mut told) = start(Allowed::All, &["127.0.0.1"], &shutdown);
    probes.tell(&cluster(
        "{\"type\":\"HTTP\",\"path\":\"/up\",\"expectedResponseCode\":204}",
    ));
    probes.tell(&instance(port, false));
    assert_eq!(next(&mut told).await, (port, true));
    assert!(asked.load(Ordering::Relaxed) >= 3);
    status.store(302, Ordering::Relaxed);
    let before = asked.load(Ordering::Relaxed);
    assert_eq!(next(&mut told).await, (port, false));
    assert!(
        asked.load(Ordering::Relaxed) >= before + 2,
        "it takes three of them"
    );
    status.store(204, Ordering::Relaxed);
    assert_eq!(next(&mut told).await, (port, true));
    status.store(404, Ordering::Relaxed);
    assert_eq!(next(&mut told).await, (port, false));
    shutdown.begin();
}

/// Connects, and says nothing: the time for an answer is over.
#[tokio::test(start_paused = true)]
async fn who_does_not_answer_is_ill() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let asker = Asker::new(Guard::new(
        vec!["127.0.0.1".parse().expect("a network")],
        vec![1..=u16::MAX],
    ));
    let mut plan = Plan::default();
    plan.tell(0, &cluster("{\"type\":\"HTTP\"}"));
    plan.tell(0, &instance(port, true));
    let probe = plan.take_due(60_000, |_| true).expect("due");
    assert_eq!(asker.ask(&probe).await, Found::Ill);
}

/// A name is as good as its address, and no way past the guard.
#[tokio::test]
async fn a_name_is_judged_by_its_address() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let mut plan = Plan::default();
    plan.tell(
        0,
        &Replicated::Instance {
            service: service(),
            endpoint: Endpoint::new("localhost", port, "c"),
            set: Some(Persistent {
                instance: Arc::default(),
                healthy: true,
            }),
        },
    );
    let probe = plan.take_due(60_000, |_| true).expect("due");
    let strict = Asker {
        connect_timeout: NEVER,
        ..Asker::new(Guard::default())
    };
    assert_eq!(strict.ask(&probe).await, Found::Forbidden);
}

/// What is not allowed is not asked, and the health stays as it was registered.
#[tokio::test(start_paused = true)]
async fn nobody_is_asked_unless_the_operator_allows_it() {
    for (allowed, networks, checker) in [
        (Allowed::Off, &["127.0.0.0/8"][..], "{\"type\":\"TCP\"}"),
        (Allowed::All, &[][..], "{\"type\":\"TCP\"}"),
        (Allowed::Tcp, &["127.0.0.0/8"][..], "{\"type\":\"HTTP\"}"),
        (Allowed::All, &["127.0.0.0/8"][..], "{\"type\":\"NONE\"}"),
        (Allowed::All, &["127.0.0.0/8"][..], "{\"type\":\"MYSQL\"}"),
    ] {
        let shutdown = Shutdown::new();
        let (probes, mut told) = start(allowed, networks, &shutdown);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("its address").port();
        probes.tell(&cluster(checker));
        probes.tell_all([cluster(checker), instance(port, false)]);
        let minute = Duration::from_secs(60);
        let silent = tokio::time::timeout(minute, told.recv()).await;
        assert!(silent.is_err(), "{allowed:?} {checker}: {silent:?}");
        let asked = tokio::time::timeout(minute, listener.accept()).await;
        assert!(asked.is_err(), "{allowed:?} {checker}");
        shutdown.begin();
    }
}

#[tokio::test(start_paused = true)]
async fn many_are_checked_a_few_at_a_time() {
    let shutdown = Shutdown::new();
    let (probes, mut told) = start(Allowed::Tcp, &["127.0.0.0/8"], &shutdown);
    // Ports that nobody listens on: bound by us, so that nobody else does, and not listening.
    let mut kept = Vec::new();
    for _ in 0..200 {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket
            .bind("127.0.0.1:0".parse().expect("an address"))
            .expect("a port");
        kept.push(socket);
    }
    let ports: std::collections::BTreeSet<u16> = kept
        .iter()
        .map(|socket| socket.local_addr().expect("its address").port())
        .collect();
    for port in &ports {
        probes.tell(&instance(*port, true));
    }
    let mut dead = std::collections::BTreeSet::new();
    while dead.len() < ports.len() {
        let (port, healthy) = next(&mut told).await;
        assert!(!healthy && dead.insert(port), "{port} is told once");
    }
    assert_eq!(dead, ports);
    shutdown.begin();
}
