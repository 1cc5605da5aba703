//! The page of metrics of three nodes that run: every family is there, queues and cursors make sense, and
//! what a leader knows of its followers is what they say of themselves.

#[expect(dead_code, reason = "shared with the tests of scaling, which use all of it")]
#[path = "scaling/cluster.rs"]
mod cluster;

use std::net::SocketAddr;
use std::time::Duration;

use rnacos::metrics::names::FAMILIES;
use rnacos::server::Tuning;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use self::cluster::{Cluster, PATIENCE};

async fn exchange(http: SocketAddr, request: &str) -> String {
    let mut socket = TcpStream::connect(http).await.expect("a connection");
    socket.write_all(request.as_bytes()).await.expect("it takes it");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("an answer");
    answer
}

async fn page(http: SocketAddr) -> String {
    exchange(
        http,
        "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    )
    .await
}

async fn publish(http: SocketAddr, number: u32) {
    let target = format!("/nacos/v1/cs/configs?dataId=d{number}&group=g&content=c");
    let request =
        format!("POST {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    let answer = exchange(http, &request).await;
    assert!(answer.ends_with("true"), "{answer}");
}

/// The value of a line that begins so.
fn value(page: &str, name: &str) -> f64 {
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {page}"))
        .parse()
        .expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_tell_of_every_queue_cursor_and_peer() {
    let cluster = Cluster::of(3, Tuning::default()).await;
    for (number, http) in (0..).zip(cluster.http().repeat(4)) {
        publish(http, number).await;
    }
    cluster.settle().await;
    let leader = cluster.leader().await;
    for (id, http) in (1..).zip(cluster.http()) {
        let page = page(http).await;
        for family in FAMILIES {
            let is_leaders = family.help.ends_with("(leader only).");
            assert!(
                (is_leaders && id != leader) || page.contains(&format!("# TYPE {} ", family.name)),
                "node {id} does not tell {}",
                family.name
            );
        }
        let cursor = |name: &str| value(&page, &format!("rnacos_raft_{name}_index"));
        assert!(cursor("base") <= cursor("applied"));
        assert!(cursor("applied") <= cursor("committed"));
        assert!(cursor("committed") <= cursor("last") && cursor("durable") <= cursor("last"));
        assert!(value(&page, "rnacos_log_syncs_total") >= 1.0);
        assert!(value(&page, "rnacos_log_sync_duration_seconds_count") >= 1.0);
        assert!(value(&page, "rnacos_log_batch_entries_count") >= 1.0);
        assert!(value(&page, "rnacos_log_entries_total") >= 12.0);
        for queue in ["peer_messages", "requests", "completions", "log", "apply", "load"] {
            let length = value(&page, &format!("rnacos_queue_length{{queue=\"{queue}\"}}"));
            assert!(length < 100.0, "{queue}: {length} on an idle node");
        }
        for peer in (1..=3).filter(|peer| *peer != id) {
            for lane in ["control", "log"] {
                let labels = format!("{{peer=\"{peer}\",lane=\"{lane}\"}}");
                assert!((value(&page, &format!("rnacos_peer_connected{labels}")) - 1.0).abs() < 0.1);
                assert!(value(&page, &format!("rnacos_peer_connects_total{labels}")) >= 1.0);
            }
        }
    }
    is_caught_up(&cluster, leader).await;
    cluster.stop().await;
}

/// Every follower's disk holds what the leader's log holds, by the leader's own page.
async fn is_caught_up(cluster: &Cluster, leader: u64) {
    let position = usize::try_from(leader - 1).expect("small");
    let http = cluster.http()[position];
    let caught_up = async {
        loop {
            let page = page(http).await;
            let last = value(&page, "rnacos_raft_last_index");
            let matched = |peer: &u64| {
                value(
                    &page,
                    &format!("rnacos_raft_peer_matched_index{{peer=\"{peer}\"}}"),
                )
            };
            if (1..=3)
                .filter(|peer| *peer != leader)
                .all(|peer| matched(&peer) >= last)
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, caught_up)
        .await
        .expect("followers catch up");
}
