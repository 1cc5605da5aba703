//! Service discovery over gRPC, from a client's socket to the registry and to the sockets of subscribers: the
//! answers that SDKs parse strictly, and pushes.

#[path = "grpc_client/mod.rs"]
mod client;

#[path = "grpc_client/node.rs"]
mod node;

#[path = "grpc_naming/support.rs"]
mod support;

use node::Node;
use proto::nacos::naming::{InstanceRequest, NamingFuzzyWatchRequest, PersistentInstanceRequest};
use serde_json::json;
use support::{at, batch, deregister, list, ports, query, register, stamp, subscribe};

#[tokio::test]
async fn what_is_registered_is_found_at_once_in_the_shape_every_sdk_reads() {
    let node = Node::start().await;
    let mut client = node.client().await;
    let registered = client
        .ask(&InstanceRequest {
            request_id: Some("7".into()),
            ..register("shop", 80)
        })
        .await;
    assert_eq!(registered.type_name, "InstanceResponse");
    assert_eq!(
        registered.body,
        json!({"resultCode": 200, "errorCode": 0, "success": true, "requestId": "7", "type": "registerInstance"})
    );
    let mut found = client.ask(&query("shop")).await;
    assert_eq!(found.type_name, "QueryServiceResponse");
    let stamp = found.body["serviceInfo"]["lastRefTime"].take();
    assert!(stamp.as_i64().is_some_and(|ms| ms > 1_600_000_000_000));
    assert_eq!(
        found.body,
        json!({"resultCode": 200, "errorCode": 0, "success": true, "serviceInfo": {
            "name": "shop", "groupName": "g", "clusters": "", "cacheMillis": 10_000, "lastRefTime": null,
            "checksum": "", "allIPs": false, "allIps": false, "reachProtectionThreshold": false, "valid": true,
            "hosts": [{"instanceId": "10.0.0.1#80#DEFAULT#g@@shop", "ip": "10.0.0.1", "port": 80,
                "weight": 1.0, "healthy": true, "enabled": true, "ephemeral": true,
                "clusterName": "DEFAULT", "serviceName": "g@@shop", "metadata": {"zone": "a"},
                "instanceHeartBeatInterval": 5_000, "instanceHeartBeatTimeOut": 15_000,
                "ipDeleteTimeout": 30_000, "instanceIdGenerator": "simple"}]}})
    );
    let gone = client.ask(&deregister("shop", 80)).await;
    assert_eq!(
        gone.body,
        json!({"resultCode": 200, "errorCode": 0, "success": true, "type": "deregisterInstance"})
    );
    assert_eq!(ports(&client.ask(&query("shop")).await.body), [0; 0]);
    node.stop().await;
}

#[tokio::test]
async fn a_service_that_nobody_knows_is_found_empty() {
    let node = Node::start().await;
    let mut client = node.client().await;
    let found = client.ask(&query("none")).await;
    assert_eq!(found.body["errorCode"], json!(0));
    assert_eq!(found.body["serviceInfo"]["hosts"], json!([]));
    assert!(found.body["serviceInfo"]["lastRefTime"].as_i64() > Some(1_600_000_000_000));
    let gone = client.ask(&deregister("none", 80)).await;
    assert_eq!(gone.body["resultCode"], json!(200));
    node.stop().await;
}

#[tokio::test]
async fn a_connection_says_all_that_it_keeps_in_a_service() {
    let node = Node::start().await;
    let (mut client, mut reader) = (node.client().await, node.client().await);
    client.ask(&register("shop", 80)).await;
    client.ask(&register("shop", 81)).await;
    assert_eq!(
        ports(&reader.ask(&query("shop")).await.body),
        [81],
        "it has moved"
    );
    let answer = client.ask(&batch("shop", &[82, 83])).await;
    assert_eq!(
        answer.body,
        json!({"resultCode": 200, "errorCode": 0, "success": true, "type": "batchRegisterInstance"})
    );
    assert_eq!(ports(&reader.ask(&query("shop")).await.body), [82, 83]);
    client.ask(&batch("shop", &[83, 84])).await;
    assert_eq!(ports(&reader.ask(&query("shop")).await.body), [83, 84]);
    client.ask(&register("other", 1)).await;
    drop(client);
    // What it kept goes with it.
    while !ports(&reader.ask(&query("shop")).await.body).is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    node.stop().await;
}

#[tokio::test]
async fn two_connections_may_keep_one_instance() {
    let node = Node::start().await;
    let (mut old, mut new) = (node.client().await, node.client().await);
    let mut reader = node.client().await;
    old.ask(&register("shop", 80)).await;
    new.ask(&register("shop", 80)).await;
    old.ask(&deregister("shop", 80)).await;
    assert_eq!(ports(&reader.ask(&query("shop")).await.body), [80]);
    new.ask(&deregister("shop", 80)).await;
    assert_eq!(ports(&reader.ask(&query("shop")).await.body), [0; 0]);
    node.stop().await;
}

#[tokio::test]
async fn names_come_by_pages_and_by_group() {
    let node = Node::start().await;
    let mut client = node.client().await;
    for name in ["c", "a", "d", "b"] {
        client.ask(&register(name, 80)).await;
    }
    client
        .ask(&InstanceRequest {
            group_name: "g2".into(),
            ..register("e", 80)
        })
        .await;
    let answer = client.ask(&list(2, 3)).await;
    assert_eq!(answer.type_name, "ServiceListResponse");
    assert_eq!(
        answer.body,
        json!({"resultCode": 200, "errorCode": 0, "success": true, "count": 4, "serviceNames": ["d"]})
    );
    let all = client.ask(&list(1, 10)).await;
    assert_eq!(all.body["serviceNames"], json!(["a", "b", "c", "d"]));
    let beyond = client.ask(&list(9, 10)).await;
    assert_eq!(beyond.body["serviceNames"], json!([]));
    assert_eq!(beyond.body["count"], json!(4));
    // As over HTTP.
    assert_eq!(client.ask(&list(0, 10)).await.body, all.body);
    let wrong = client.ask(&list(1, 0)).await;
    assert_eq!(
        (&wrong.body["errorCode"], &wrong.body["count"]),
        (&json!(400), &json!(0))
    );
    node.stop().await;
}

#[tokio::test]
async fn wrong_parameters_are_refused() {
    let node = Node::start().await;
    let mut client = node.client().await;
    let mut wrong = vec![register("", 80), register("shop", 80), register("shop", 80)];
    wrong[1].kind = "dance".into();
    wrong[2].instance.weight = 10_001.0;
    wrong.push(InstanceRequest {
        instance: proto::nacos::naming::Instance {
            port: 70_000,
            ..at(80)
        },
        ..register("shop", 80)
    });
    for request in wrong {
        let answer = client.ask(&request).await;
        assert_eq!(
            (answer.type_name.as_str(), &answer.body["errorCode"]),
            ("InstanceResponse", &json!(400)),
            "{request:?}"
        );
        assert_eq!(answer.body["type"], json!(""));
    }
    let nameless = client.ask(&query("")).await;
    assert_eq!(nameless.type_name, "ErrorResponse");
    assert_eq!(nameless.body["errorCode"], json!(400));
    node.stop().await;
}

#[tokio::test]
async fn subscribers_are_told_in_the_shape_every_sdk_reads_and_by_rising_stamps() {
    let node = Node::start().await;
    let (mut subscriber, mut publisher) = (node.client().await, node.client().await);
    let answer = subscriber.ask(&subscribe("shop", "")).await;
    assert_eq!(answer.type_name, "SubscribeServiceResponse");
    assert_eq!(
        (&answer.body["errorCode"], ports(&answer.body)),
        (&json!(0), vec![]),
        "a service that nobody knows yet"
    );
    let mut last = stamp(&answer.body);
    publisher.ask(&register("shop", 80)).await;
    let mut push = subscriber.told().await;
    assert!(push["requestId"].take().is_string());
    assert!(stamp(&push) > last);
    last = push["serviceInfo"]["lastRefTime"]
        .take()
        .as_i64()
        .expect("a stamp");
    assert_eq!(
        push,
        json!({"requestId": null, "module": "naming", "headers": {}, "serviceInfo": {
            "name": "shop", "groupName": "g", "clusters": "", "cacheMillis": 10_000, "lastRefTime": null,
            "checksum": "", "allIPs": false, "allIps": false, "reachProtectionThreshold": false, "valid": true,
            "hosts": [{"instanceId": "10.0.0.1#80#DEFAULT#g@@shop", "ip": "10.0.0.1", "port": 80,
                "weight": 1.0, "healthy": true, "enabled": true, "ephemeral": true,
                "clusterName": "DEFAULT", "serviceName": "g@@shop", "metadata": {"zone": "a"},
                "instanceHeartBeatInterval": 5_000, "instanceHeartBeatTimeOut": 15_000,
                "ipDeleteTimeout": 30_000, "instanceIdGenerator": "simple"}]}})
    );
    // Another subscription has a stamp of its own, and so has every push after it.
    let again = subscriber.ask(&subscribe("shop", "")).await;
    assert!(stamp(&again.body) > last);
    last = stamp(&again.body);
    drop(publisher);
    let push = subscriber.told_of(&[]).await;
    assert!(stamp(&push) > last);
    node.stop().await;
}

/// Java and Rust do not look at the answer when they subscribe anew on another connection.
#[tokio::test]
async fn what_some_sdks_do_not_look_at_is_pushed_to_them() {
    let node = Node::start().await;
    let mut publisher = node.client().await;
    publisher.ask(&register("shop", 80)).await;
    for sdk in ["Nacos-Java-Client:v3.2.1", "Nacos-Rust-Client:0.8.3"] {
        let mut subscriber = node.client_of(sdk, "10.1.2.3").await;
        let answer = subscriber.ask(&subscribe("shop", "")).await;
        let push = subscriber.told().await;
        assert_eq!(ports(&push), ports(&answer.body));
    }
    node.stop().await;
}

#[tokio::test]
async fn the_last_of_a_burst_reaches_every_subscriber() {
    let node = Node::start().await;
    let mut publisher = node.client().await;
    let mut subscribers = Vec::new();
    for _ in 0..10 {
        let mut subscriber = node.client().await;
        subscriber.ask(&subscribe("shop", "")).await;
        subscribers.push(subscriber);
    }
    for count in 1..=200 {
        let set: Vec<i32> = (1..=count).collect();
        publisher.ask(&batch("shop", &set)).await;
    }
    let all: Vec<i64> = (1..=200).collect();
    for subscriber in &mut subscribers {
        subscriber.told_of(&all).await;
    }
    node.stop().await;
}

#[tokio::test]
async fn a_subscriber_sees_the_clusters_that_it_asked_for_last() {
    let node = Node::start().await;
    let (mut subscriber, mut publisher) = (node.client().await, node.client().await);
    let mut set = batch("shop", &[80, 81]);
    set.instances[1].cluster_name = "other".into();
    publisher.ask(&set).await;
    let answer = subscriber.ask(&subscribe("shop", "other,more")).await;
    assert_eq!(ports(&answer.body), [81]);
    set.instances[1].port = 82;
    publisher.ask(&set).await;
    let push = subscriber.told().await;
    assert_eq!(ports(&push), [82]);
    assert_eq!(push["serviceInfo"]["clusters"], json!("other,more"));
    let answer = subscriber.ask(&subscribe("shop", "")).await;
    assert_eq!(ports(&answer.body), [80, 82]);
    set.instances[0].port = 83;
    publisher.ask(&set).await;
    assert_eq!(ports(&subscriber.told().await), [82, 83]);
    let ended = proto::nacos::naming::SubscribeServiceRequest {
        subscribe: false,
        ..subscribe("shop", "")
    };
    let answer = subscriber.ask(&ended).await;
    assert_eq!(ports(&answer.body), [82, 83]);
    assert_eq!(answer.body["errorCode"], json!(0));
    publisher.ask(&batch("shop", &[84])).await;
    // What comes next is about something else.
    subscriber.ask(&subscribe("other", "")).await;
    publisher.ask(&register("other", 1)).await;
    assert_eq!(subscriber.told().await["serviceInfo"]["name"], json!("other"));
    node.stop().await;
}

#[tokio::test]
async fn a_node_that_stops_tells_nobody_that_a_service_is_gone() {
    let node = Node::start().await;
    let (mut subscriber, mut publisher) = (node.client().await, node.client().await);
    publisher.ask(&register("shop", 80)).await;
    subscriber.ask(&subscribe("shop", "")).await;
    let (stopped, pushed) = tokio::join!(node.stop(), subscriber.next_push());
    assert_eq!(stopped, ());
    assert!(pushed.is_none(), "the stream ends, and nothing comes before that");
}

#[tokio::test]
async fn a_large_service_is_pushed_whole() {
    let node = Node::start().await;
    let (mut subscriber, mut publisher) = (node.client().await, node.client().await);
    subscriber.ask(&subscribe("shop", "")).await;
    let ports: Vec<i32> = (1..=3_000).collect();
    publisher.ask(&batch("shop", &ports)).await;
    let all: Vec<i64> = (1..=3_000).collect();
    subscriber.told_of(&all).await;
    node.stop().await;
}

#[tokio::test]
async fn a_persistent_instance_stays_when_its_client_goes() {
    let node = Node::start().await;
    let (mut client, mut reader) = (node.client().await, node.client().await);
    let persistent = |kind: &'static str| PersistentInstanceRequest {
        group_name: "g".into(),
        service_name: "shop".into(),
        kind: kind.into(),
        instance: at(80),
        ..PersistentInstanceRequest::default()
    };
    reader.ask(&subscribe("shop", "")).await;
    let answer = client.ask(&persistent("registerInstance")).await;
    assert_eq!(answer.type_name, "InstanceResponse");
    assert_eq!(
        answer.body,
        json!({"resultCode": 200, "errorCode": 0, "success": true, "type": "registerInstance"})
    );
    let push = reader.told_of(&[80]).await;
    assert_eq!(push["serviceInfo"]["hosts"][0]["ephemeral"], json!(false));
    let refused = reader.ask(&register("shop", 81)).await;
    assert_eq!(
        refused.body["errorCode"],
        json!(400),
        "no ephemeral one beside it: {}",
        refused.body
    );
    drop(client);
    assert_eq!(ports(&reader.ask(&query("shop")).await.body), [80]);
    reader.ask(&persistent("deregisterInstance")).await;
    reader.told_of(&[]).await;
    node.stop().await;
}

#[tokio::test]
async fn patterns_over_services_are_synced_and_followed() {
    let node = Node::start().await;
    let (mut watcher, mut publisher) = (node.client().await, node.client().await);
    for name in ["shop-a", "shop-b", "bank"] {
        publisher.ask(&register(name, 80)).await;
    }
    let watch = NamingFuzzyWatchRequest {
        group_key_pattern: "public>>g>>shop*".into(),
        received_group_keys: vec!["public@@g@@shop-b".into(), "public@@g@@shop-old".into()],
        watch_type: "WATCH".into(),
        initializing: true,
        ..NamingFuzzyWatchRequest::default()
    };
    let answer = watcher.ask(&watch).await;
    assert_eq!(answer.type_name, "NamingFuzzyWatchResponse");
    assert_eq!(
        answer.body,
        json!({"resultCode": 200, "errorCode": 0, "success": true})
    );
    let mut told = async |expected: serde_json::Value| {
        let push = watcher.pushed().await;
        let mut body = client::json(&push);
        assert!(body["requestId"].take().is_string());
        assert_eq!(body, expected);
        let answer = push.type_name().replace("Request", "Response");
        watcher.acknowledge(&push, &answer).await;
        push.type_name().to_owned()
    };
    let sync = |kind: &str, contexts: serde_json::Value, batches: i32| {
        json!({"requestId": null, "module": "naming", "headers": {}, "syncType": kind,
            "groupKeyPattern": "public>>g>>shop*", "contexts": contexts,
            "totalBatch": batches, "currentBatch": batches})
    };
    let difference = json!([
        {"serviceKey": "public@@g@@shop-a", "changedType": "ADD_SERVICE"},
        {"serviceKey": "public@@g@@shop-old", "changedType": "DELETE_SERVICE"}]);
    let kind = told(sync("FUZZY_WATCH_INIT_NOTIFY", difference, 1)).await;
    assert_eq!(kind, "NamingFuzzyWatchSyncRequest");
    told(sync("FINISH_FUZZY_WATCH_INIT_NOTIFY", json!([]), 0)).await;
    let changed = |name: &str, kind: &str| {
        json!({"requestId": null, "module": "naming", "headers": {},
            "syncType": "FUZZY_WATCH_RESOURCE_CHANGED",
            "serviceKey": format!("public@@g@@{name}"), "changedType": kind})
    };
    publisher.ask(&register("shop-c", 80)).await;
    let kind = told(changed("shop-c", "ADD_SERVICE")).await;
    assert_eq!(kind, "NamingFuzzyWatchChangeNotifyRequest");
    publisher.ask(&register("bank-b", 80)).await;
    publisher.ask(&batch("shop-c", &[80, 81])).await;
    publisher.ask(&deregister("shop-a", 80)).await;
    told(changed("shop-a", "DELETE_SERVICE")).await;
    let cancel = NamingFuzzyWatchRequest {
        group_key_pattern: "public>>g>>shop*".into(),
        watch_type: "CANCEL_WATCH".into(),
        ..NamingFuzzyWatchRequest::default()
    };
    assert_eq!(watcher.ask(&cancel).await.body["resultCode"], json!(200));
    publisher.ask(&register("shop-d", 80)).await;
    watcher.ask(&subscribe("shop-d", "")).await;
    publisher.ask(&register("shop-d", 81)).await;
    assert_eq!(watcher.pushed().await.type_name(), "NotifySubscriberRequest");
    node.stop().await;
}
