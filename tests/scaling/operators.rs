//! What operators ask of any node about all of them: who watches a service, who listens to a config, what a client
//! holds, how clients are spread and sent elsewhere.

use std::net::SocketAddr;

use proto::nacos::Payload;
use proto::nacos::config::{ConfigBatchListenRequest, ListenContext};
use proto::nacos::naming::SubscribeServiceRequest;
use rnacos::server::Tuning;
use serde_json::{Value, json};

use super::cluster::{Cluster, PATIENCE};
use super::grpc_client::{Client, Stream, json as body_of, setup};
use super::writers::call;

/// A node that has just joined tells nobody of naming (503) until it knows what there is.
async fn get(address: SocketAddr, target: &str) -> Value {
    becomes_ready(address).await;
    let (status, body) = call(address, "GET", target, "").await;
    assert_eq!(status, 200, "{target}: {body}");
    serde_json::from_str(&body).expect("JSON")
}

/// Asks until the answer is right.
async fn becomes(address: SocketAddr, target: &str, is_right: impl Fn(&Value) -> bool) -> Value {
    let right = async {
        loop {
            let answer = get(address, target).await;
            if is_right(&answer) {
                return answer;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, right).await {
        Ok(answer) => answer,
        Err(_) => panic!("{target} at {address}: {}", get(address, target).await),
    }
}

/// A client of one node, with an address of its own.
async fn connected(cluster: &Cluster, node: u64, ip: &str) -> (Client, Stream) {
    let address = cluster.node(node).server().grpc_address();
    Client::introduced(address, &setup(), ip).await
}

#[tokio::test(flavor = "multi_thread")]
async fn any_node_tells_of_the_subscribers_of_all() {
    let cluster = Cluster::of(3, Tuning::default()).await;
    let http = cluster.http();
    let mut clients = Vec::new();
    for node in 1..=3 {
        let (mut client, stream) = connected(&cluster, node, &format!("10.1.0.{node}")).await;
        let subscribed = client
            .call(&SubscribeServiceRequest {
                group_name: "g".into(),
                service_name: "s".into(),
                subscribe: true,
                ..SubscribeServiceRequest::default()
            })
            .await;
        assert_eq!(subscribed.codes(), (200, 0));
        clients.push((client, stream));
    }
    let target = "/v1/ns/service/subscribers?serviceName=g@@s";
    let ips = |told: &Value| {
        let shown = told["subscribers"].as_array().expect("subscribers");
        shown
            .iter()
            .map(|one| one["ip"].as_str().expect("an address").to_owned())
            .collect::<Vec<_>>()
    };
    for node in &http {
        let told = becomes(*node, target, |told| told["count"] == 3).await;
        assert_eq!(ips(&told), ["10.1.0.1", "10.1.0.2", "10.1.0.3"]);
        let page = get(*node, &format!("{target}&pageNo=2&pageSize=2")).await;
        assert_eq!(
            (&page["count"], ips(&page)),
            (&json!(3), vec!["10.1.0.3".to_owned()])
        );
    }
    let own = get(http[1], &format!("{target}&aggregation=false")).await;
    assert_eq!(ips(&own), ["10.1.0.2"]);
    cluster.stop().await;
}

/// Listeners sit on nodes 1 and 3; whatever node is asked tells of both. A node that is gone is left out.
#[tokio::test(flavor = "multi_thread")]
async fn any_node_tells_who_listens_to_what() {
    let mut cluster = Cluster::of(3, Tuning::default()).await;
    let http = cluster.http();
    let md5 = "0123456789abcdef0123456789abcdef";
    let mut clients = Vec::new();
    for node in [1, 3] {
        let (mut client, stream) = connected(&cluster, node, &format!("10.1.3.{node}")).await;
        let context = |data_id: &'static str, tenant: &'static str| ListenContext {
            data_id: data_id.into(),
            group: "g".into(),
            tenant: tenant.into(),
            md5: md5.into(),
        };
        let listening = client
            .call(&ConfigBatchListenRequest {
                listen: true,
                config_listen_contexts: vec![context("d", ""), context("d", "dev")],
                ..ConfigBatchListenRequest::default()
            })
            .await;
        assert_eq!(listening.codes(), (200, 0));
        clients.push((client, stream));
    }
    let of_config = "/v1/cs/configs/listener?dataId=d&group=g&sampleTime=1";
    let of_address = "/v1/cs/listener?ip=10.1.3.3&all=true";
    let both = json!({"10.1.3.1": md5, "10.1.3.3": md5});
    let what = json!({"d+g": md5, "d+g+dev": md5});
    for node in &http {
        assert_eq!(get(*node, of_config).await["lisentersGroupkeyStatus"], both);
        assert_eq!(get(*node, of_address).await["lisentersGroupkeyStatus"], what);
    }
    let own = |target: &str| format!("{target}&aggregation=false");
    let told = get(http[0], &own(of_config)).await;
    assert_eq!(
        told,
        json!({"collectStatus": 200, "lisentersGroupkeyStatus": {"10.1.3.1": md5}})
    );
    let told = get(http[0], &own(of_address)).await;
    assert_eq!(told["lisentersGroupkeyStatus"], json!({}));
    cluster.take(3).halt().await;
    let told = get(http[1], of_config).await;
    assert_eq!(
        told,
        json!({"collectStatus": 200, "lisentersGroupkeyStatus": {"10.1.3.1": md5}})
    );
    cluster.stop().await;
}

/// A node that does not answer is left out, and said to be.
#[tokio::test(flavor = "multi_thread")]
async fn any_node_tells_how_clients_are_spread_and_spreads_them() {
    let mut cluster = Cluster::of(3, Tuning::default()).await;
    let http = cluster.http();
    let mut clients = Vec::new();
    for number in 0..10 {
        clients.push(connected(&cluster, 2, &format!("10.1.1.{number}")).await);
    }
    for target in ["/v2/core/loader/cluster", "/v3/admin/core/loader/cluster"] {
        let told = get(http[0], target).await;
        let told = told.get("data").unwrap_or(&told);
        assert_eq!(told["total"], 10, "{told}");
        assert_eq!(
            (&told["max"], &told["min"], &told["avg"]),
            (&json!(10), &json!(0), &json!(3))
        );
        assert_eq!(
            (&told["memberCount"], &told["completed"]),
            (&json!(3), &json!(true))
        );
    }
    let servers = get(http[2], "/v1/ns/operator/servers").await;
    let addresses = servers["servers"].as_array().expect("servers").iter();
    let addresses: Vec<_> = addresses.map(|one| one["address"].clone()).collect();
    let expected: Vec<_> = http.iter().map(|address| json!(address.to_string())).collect();
    assert_eq!(addresses, expected);

    // Of ten all above three, a tenth more than the average, are asked to go to a node that has none.
    let done = call(http[0], "GET", "/v2/core/loader/smartReloadCluster", "").await;
    assert_eq!(done, (200, "Ok".to_owned()));
    let mut moved = 0;
    // Who came first stays; each of the others is told once.
    for (_, stream) in clients.iter_mut().skip(3) {
        let push: Payload = stream.next().await.expect("the stream stands");
        assert_eq!(push.type_name(), "ConnectResetRequest");
        let to = body_of(&push);
        let there = format!(
            "{}:{}",
            to["serverIp"].as_str().unwrap(),
            to["serverPort"].as_str().unwrap()
        );
        assert_eq!(there, http[0].to_string());
        moved += 1;
    }
    assert_eq!(moved, 7);

    let _gone = cluster.take(3).halt().await;
    let told = get(http[0], "/v2/core/loader/cluster").await;
    assert_eq!(
        (&told["metricsCount"], &told["completed"]),
        (&json!(2), &json!(false))
    );
    let servers = get(http[0], "/v1/ns/operator/servers?healthy=true").await;
    assert_eq!(servers["servers"].as_array().map(Vec::len), Some(2));
    cluster.stop().await;
}

/// Story: an application at 10.1.2.1 does not see what was published. Whoever is asked asks its client, on
/// whatever node it is, and hands its words on; a client at another address is not asked, one that says nothing is
/// left out.
#[tokio::test(flavor = "multi_thread")]
async fn any_node_tells_what_clients_hold() {
    let cluster = Cluster::of(3, Tuning::default()).await;
    let http = cluster.http();
    let (_client, mut stream) = connected(&cluster, 3, "10.1.2.1").await;
    let (_other, _other_stream) = connected(&cluster, 3, "10.1.2.2").await;
    let answering = tokio::spawn(async move {
        let mut asked = Vec::new();
        for _ in 0..3 {
            let push = stream.next().await.expect("the stream stands");
            assert_eq!(push.type_name(), "ClientConfigMetricRequest");
            let question = body_of(&push);
            let answer = json!({
                "resultCode": 200,
                "requestId": question["requestId"],
                "metrics": {"app-1": {"listenConfigSize": "2"}},
            });
            let answer = serde_json::to_vec(&answer).expect("JSON");
            stream.send_as("ClientConfigMetricResponse", &answer).await;
            asked.push(question["metricsKeys"].clone());
        }
        (asked, stream)
    });
    let said = json!({"app-1": {"listenConfigSize": "2"}});
    let of = "ip=10.1.2.1&dataId=d&group=g&groupName=g";
    assert_eq!(get(http[0], &format!("/v1/cs/metrics/cluster?{of}")).await, said);
    assert_eq!(get(http[2], &format!("/v1/cs/metrics/current?{of}")).await, said);
    let v3 = get(http[1], &format!("/v3/admin/cs/metrics/cluster?{of}")).await;
    assert_eq!(v3["data"]["data"], said);
    let (asked, _stream) = answering.await.expect("the client");
    let keys = json!([
        {"type": "cacheData", "key": "d+g"},
        {"type": "snapshotData", "key": "d+g"},
        {"type": "cacheData", "key": "d+g+public"},
        {"type": "snapshotData", "key": "d+g+public"},
    ]);
    assert_eq!(asked, [keys.clone(), keys.clone(), keys]);
    // Its node has nobody like that.
    assert_eq!(
        get(http[0], &format!("/v1/cs/metrics/current?{of}")).await,
        json!({})
    );
    cluster.stop().await;
}

/// A switch that is turned anywhere is turned everywhere, and stays so over a restart; one that is turned for one
/// node is forgotten with it.
#[tokio::test(flavor = "multi_thread")]
async fn switches_are_turned_on_all_nodes_or_on_one() {
    let mut cluster = Cluster::of(3, Tuning::default()).await;
    let http = cluster.http();
    let switches = "/v1/ns/operator/switches";
    let turn = async |node: SocketAddr, entry: &str, value: &str, more: &str| {
        let target = format!("{switches}?entry={entry}&value={value}{more}");
        assert_eq!(
            call(node, "PUT", &target, "").await,
            (200, "ok".to_owned()),
            "{target}"
        );
    };
    turn(http[1], "clientBeatInterval", "7000", "").await;
    turn(http[1], "check", "false", "").await;
    turn(http[2], "defaultInstanceEphemeral", "false", "&debug=true").await;
    let is = |interval: u64, here: bool| {
        move |told: &Value| {
            told["clientBeatInterval"] == interval
                && told["healthCheckEnabled"] == false
                && told["defaultInstanceEphemeral"] == here
        }
    };
    for (node, here) in http.iter().zip([true, true, false]) {
        becomes(*node, switches, is(7_000, here)).await;
    }
    turn(http[0], "clientBeatInterval", "8000", "&debug=true").await;
    turn(http[2], "clientBeatInterval", "6000", "").await;
    for (node, here) in http.iter().zip([true, true, false]) {
        becomes(*node, switches, is(6_000, here)).await;
    }
    let stopped = cluster.take(3).halt().await;
    let back = stopped.try_start().await.expect("it starts");
    let address = back.server().http_address();
    cluster.add(back);
    becomes_ready(address).await;
    becomes(address, switches, is(6_000, true)).await;
    cluster.stop().await;
}

async fn becomes_ready(address: SocketAddr) {
    while call(address, "GET", "/v1/ns/operator/metrics", "").await.0 == 503 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
