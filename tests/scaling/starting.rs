//! A node that has not caught up yet tells nobody that something does not exist: clients would delete their own
//! copies of configs, and forget their providers.

use std::net::SocketAddr;

use rnacos::server::Tuning;

use super::cluster::{Cluster, Node, PATIENCE};
use super::writers::call;

/// So much that a node needs a while for it.
const CONFIGS: usize = 200;
const CONTENT_BYTES: usize = 20_000;

/// Configs of a name, and then a persistent instance.
async fn write(address: SocketAddr, name: &str) {
    let content = "x".repeat(CONTENT_BYTES);
    for number in 0..CONFIGS {
        let body = format!("dataId={name}-{number}&group=g&content={content}");
        assert_eq!(
            call(address, "POST", "/v1/cs/configs", &body).await,
            (200, "true".to_owned())
        );
    }
    let target = format!("/v1/ns/instance?serviceName={name}&ip=10.0.0.1&port=80&ephemeral=false");
    assert_eq!(call(address, "POST", &target, "").await, (200, "ok".to_owned()));
}

/// Asks a node that starts until it knows everything; what it does not know it has to say so.
async fn never_says_that_it_is_not_there(address: SocketAddr, name: &str) {
    let config = format!("/v1/cs/configs?dataId={name}-{}&group=g", CONFIGS - 1);
    let list = format!("/v1/ns/instance/list?serviceName={name}");
    let services = "/v1/ns/service/list?pageNo=1&pageSize=100";
    let knows = async {
        let mut known = 0;
        while known < 3 {
            known = 0;
            for (target, word) in [(&*config, "xxx"), (&*list, "10.0.0.1"), (services, name)] {
                match call(address, "GET", target, "").await {
                    (200, body) if body.contains(word) => known += 1,
                    (503, _) => {}
                    (status, body) => panic!("GET {target} of a starting node: {status} {body}"),
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, knows)
        .await
        .expect("it catches up");
    let (status, body) = call(address, "GET", "/v1/console/health/readiness", "").await;
    assert_eq!(status, 200, "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_comes_back_says_starting_and_not_that_something_is_not_there() {
    let mut cluster = Cluster::of(3, Tuning::default()).await;
    write(cluster.http()[0], "before").await;
    cluster.settle().await;
    let behind = cluster.take(3).halt().await;
    write(cluster.http()[0], "meanwhile").await;
    let back = behind.try_start().await.expect("it starts again");
    never_says_that_it_is_not_there(back.server().http_address(), "meanwhile").await;
    cluster.add(back);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_member_says_starting_and_not_that_something_is_not_there() {
    let mut cluster = Cluster::of(1, Tuning::default()).await;
    write(cluster.http()[0], "before").await;
    let new = Node::fresh(2).joining(cluster.door());
    let new = new.try_start().await.expect("it joins");
    never_says_that_it_is_not_there(new.server().http_address(), "before").await;
    cluster.add(new);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_leader_a_node_tells_what_it_has_and_of_nothing_that_it_is_not_there() {
    let mut cluster = Cluster::of(3, Tuning::default()).await;
    write(cluster.http()[0], "before").await;
    cluster.settle().await;
    let last = cluster.take(3).halt().await;
    cluster.stop().await;
    let alone = last.try_start().await.expect("it starts again");
    let http = alone.server().http_address();
    let known = "/v1/cs/configs?dataId=before-0&group=g";
    let tells = async {
        // It waits itself before it says that it cannot tell yet.
        while call(http, "GET", known, "").await.0 != 200 {}
    };
    tokio::time::timeout(PATIENCE, tells)
        .await
        .expect("it gives up waiting");
    let (status, body) = call(http, "GET", "/v1/cs/configs?dataId=unknown&group=g", "").await;
    assert_eq!(status, 503, "{body}");
    alone.stop().await;
}
