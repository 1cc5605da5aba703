//! A rolling upgrade with a new feature level: the cluster goes on at the old level until the last member
//! runs the new version, then the level is raised, and the old version cannot come back.
//!
//! Versions are played by `Tuning::feature_level`. Nothing sleeps to make things pass: waits are for a state.

#[expect(dead_code, reason = "shared with the tests of scaling, which use all of it")]
#[path = "scaling/cluster.rs"]
mod cluster;

use std::net::SocketAddr;
use std::time::Duration;

use rnacos::server::Tuning;
use rnacos::state::FEATURE_LEVEL_MAX;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use self::cluster::{Cluster, Node, PATIENCE};

const OLD: u32 = FEATURE_LEVEL_MAX;
const NEW: u32 = OLD + 1;

fn version(feature_level: u32) -> Tuning {
    Tuning {
        feature_level,
        ..Tuning::default()
    }
}

/// The level a node's state is at, as its metrics tell it.
async fn level(http: SocketAddr) -> u32 {
    let mut socket = TcpStream::connect(http).await.expect("a connection");
    let request = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    socket.write_all(request.as_bytes()).await.expect("it takes it");
    let mut page = String::new();
    socket.read_to_string(&mut page).await.expect("an answer");
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix("rnacos_feature_level "));
    line.expect("the level").parse().expect("a number")
}

async fn has_level(cluster: &Cluster, wanted: u32) {
    let reached = async {
        for http in cluster.http() {
            while level(http).await != wanted {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    };
    let reached = tokio::time::timeout(PATIENCE, reached).await;
    assert!(reached.is_ok(), "not every node has reached level {wanted}");
}

async fn restart(cluster: &mut Cluster, id: u64, feature_level: u32) {
    let node = cluster.take(id).halt().await.tuned(version(feature_level));
    cluster.add(node.try_start().await.expect("it starts"));
    cluster.settle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_level_rises_with_the_last_member_and_the_old_version_cannot_come_back() {
    let mut cluster = Cluster::of(3, version(OLD)).await;
    for id in [3, 2] {
        restart(&mut cluster, id, NEW).await;
        has_level(&cluster, OLD).await;
    }
    // A step back is possible as long as nobody uses what is new.
    restart(&mut cluster, 2, OLD).await;
    restart(&mut cluster, 2, NEW).await;
    has_level(&cluster, OLD).await;
    restart(&mut cluster, 1, NEW).await;
    has_level(&cluster, NEW).await;

    let stopped = cluster.take(3).halt().await;
    let old = stopped.tuned(version(OLD));
    let refused = old.try_start().await.err().expect("it is too old");
    let sentence = format!("{refused:#}");
    assert!(
        sentence.contains("has reached feature level 2") && sentence.contains("knows levels up to 1"),
        "{sentence}"
    );
    let stranger = Node::fresh(4).tuned(version(OLD)).joining(cluster.door());
    let refused = stranger.try_start().await.err().expect("it is too old");
    let sentence = format!("{refused:#}");
    assert!(
        sentence.contains("has reached feature level 2") && sentence.contains("levels up to 1"),
        "{sentence}"
    );
    cluster.add(
        old.tuned(version(NEW))
            .try_start()
            .await
            .expect("its data is untouched"),
    );
    cluster.settle().await;
    has_level(&cluster, NEW).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_node_raises_its_level_by_itself() {
    let mut cluster = Cluster::of(1, version(OLD)).await;
    has_level(&cluster, OLD).await;
    restart(&mut cluster, 1, NEW).await;
    has_level(&cluster, NEW).await;
    cluster.stop().await;
}
