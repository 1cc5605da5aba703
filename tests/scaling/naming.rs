//! Naming while nodes come and go: what was registered on any node is found on all, and no node ever shows
//! an empty list because it, or another one, has just started or stopped.

use std::net::SocketAddr;
use std::time::Duration;

use rnacos::server::Tuning;

use super::cluster::{Cluster, PATIENCE};
use super::grpc_client::{Client, Outcome};
use super::writers::call;

const SERVICES: usize = 20;

/// Registers an instance of each service.
async fn register(address: SocketAddr, ip: &str) {
    for service in 0..SERVICES {
        let target = format!("/v1/ns/instance?serviceName=s{service}&ip={ip}&port=80");
        assert_eq!(call(address, "POST", &target, "").await, (200, "ok".to_owned()));
    }
}

/// Addresses of a service's instances; `None` while the node says that it does not know yet.
async fn ips(address: SocketAddr, service: usize) -> Option<Vec<String>> {
    let (status, body) = call(
        address,
        "GET",
        &format!("/v1/ns/instance/list?serviceName=s{service}"),
        "",
    )
    .await;
    if status == 503 {
        return None;
    }
    let answer: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    let hosts = answer["hosts"].as_array().expect("hosts");
    let ip = |host: &serde_json::Value| host["ip"].as_str().expect("an address").to_owned();
    Some(hosts.iter().map(ip).collect())
}

/// Waits until a node shows exactly these instances in every service.
async fn shows(address: SocketAddr, expected: &[&str]) {
    for service in 0..SERVICES {
        let shown = async {
            while ips(address, service).await.is_none_or(|found| found != expected) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, shown).await.is_err() {
            panic!("s{service} at {address}: {:?}", ips(address, service).await);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_registered_on_any_node_is_found_on_all() {
    let cluster = Cluster::of(3, Tuning::default()).await;
    let http = cluster.http();
    for (node, ip) in http.iter().zip(["10.0.0.1", "10.0.0.2", "10.0.0.3"]) {
        register(*node, ip).await;
    }
    for node in &http {
        shows(*node, &["10.0.0.1", "10.0.0.2", "10.0.0.3"]).await;
    }
    for service in 0..SERVICES {
        let target = format!("/v1/ns/instance?serviceName=s{service}&ip=10.0.0.2&port=80");
        assert_eq!(call(http[0], "DELETE", &target, "").await.0, 200);
    }
    for node in &http {
        shows(*node, &["10.0.0.1", "10.0.0.3"]).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_back_knows_everything_or_says_that_it_does_not() {
    let mut cluster = Cluster::of(3, Tuning::default()).await;
    let http = cluster.http();
    register(http[0], "10.0.0.1").await;
    for node in &http {
        shows(*node, &["10.0.0.1"]).await;
    }
    let stopped = cluster.take(2).halt().await;
    for node in cluster.http() {
        shows(node, &["10.0.0.1"]).await;
    }
    let back = stopped.try_start().await.expect("it starts");
    let address = back.server().http_address();
    cluster.add(back);
    for service in 0..SERVICES {
        let answered = async {
            loop {
                match ips(address, service).await {
                    Some(found) => return found,
                    None => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        };
        let first = tokio::time::timeout(PATIENCE, answered)
            .await
            .expect("it gets ready");
        assert_eq!(first, ["10.0.0.1"], "s{service}: its first answer");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_alone_registers_beats_and_answers() {
    let mut cluster = Cluster::of(3, Tuning::default()).await;
    let http = cluster.http();
    register(http[0], "10.0.0.1").await;
    shows(http[2], &["10.0.0.1"]).await;
    let _others = (cluster.take(1).halt().await, cluster.take(2).halt().await);
    register(http[2], "10.0.0.3").await;
    shows(http[2], &["10.0.0.1", "10.0.0.3"]).await;
    for service in 0..SERVICES {
        for ip in ["10.0.0.1", "10.0.0.3"] {
            let target = format!("/v1/ns/instance/beat?serviceName=s{service}&ip={ip}&port=80");
            let (status, answer) = call(http[2], "PUT", &target, "").await;
            let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
            assert_eq!((status, &answer["code"]), (200, &10_200.into()), "{ip}");
        }
    }
    cluster.stop().await;
}

/// A client as soon as the node takes one, after so long.
async fn taken(address: SocketAddr) -> (Client, Duration) {
    let begun = tokio::time::Instant::now();
    let taken = async {
        loop {
            let mut client = Client::connect(address).await;
            if client.call_as("ServerCheckRequest", b"{}").await.codes() == (200, 0) {
                return client;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let client = tokio::time::timeout(PATIENCE, taken)
        .await
        .expect("it takes clients");
    (client, begun.elapsed())
}

/// Naming goes on where raft cannot: a node that starts and finds no majority takes clients at once, and says
/// nothing of configs that a client could take for "it was removed".
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_starts_without_a_majority_takes_clients_at_once() {
    let mut cluster = Cluster::of(3, Tuning::default()).await;
    let config = call(
        cluster.http()[0],
        "POST",
        "/v1/cs/configs",
        "dataId=c&group=g&content=x",
    );
    assert_eq!(config.await.0, 200);
    register(cluster.http()[1], "10.0.0.1").await;
    cluster.settle().await;
    let stopped = cluster.take(2).halt().await;
    cluster.take(1).stop().await;
    cluster.take(3).stop().await;

    let node = stopped.try_start().await.expect("it starts");
    let (client, after) = taken(node.server().grpc_address()).await;
    assert!(
        after < Duration::from_secs(10),
        "{after:?}: it waited for a leader"
    );
    let (mut client, _stream, _) = client.registered().await;
    let instance = r#"{"type":"registerInstance","serviceName":"s0","groupName":"DEFAULT_GROUP","namespace":"public",
        "instance":{"ip":"10.0.0.9","port":80,"ephemeral":true}}"#;
    let registered = client.call_as("InstanceRequest", instance.as_bytes()).await;
    assert_eq!(registered.codes(), (200, 0));
    for name in ["c", "unheard-of"] {
        let query = format!(r#"{{"dataId":"{name}","group":"g","tenant":""}}"#);
        let answer = client
            .call_as("ConfigQueryRequest", query.as_bytes())
            .await
            .answer();
        let kind = answer.type_name().to_owned();
        let told = (&*kind, Outcome::Answer(answer).codes());
        // On a slow machine so late that old configs are better than none.
        let old = name == "c" && told == ("ConfigQueryResponse", (200, 0));
        assert!(old || told == ("ErrorResponse", (300, 300)), "{name}: {told:?}");
    }
    // Whoever was there before has had the time to come back, and did not.
    let first = async {
        loop {
            match ips(node.server().http_address(), 0).await {
                Some(found) => return found,
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    let first = tokio::time::timeout(PATIENCE, first)
        .await
        .expect("it gets ready");
    assert_eq!(first, ["10.0.0.9"]);
    node.stop().await;
}
