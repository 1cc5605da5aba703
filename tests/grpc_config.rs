//! Configs over gRPC, from a client's socket to a server's disk: the answers that SDKs parse strictly, and
//! notifications. Everything is answered in JSON and looked at as JSON: a field too many counts, too.

#[path = "grpc_client/mod.rs"]
mod client;

#[path = "grpc_client/node.rs"]
mod node;

#[path = "grpc_config/support.rs"]
mod support;

use proto::nacos::Message;
use proto::nacos::config::{
    ConfigBatchListenRequest, ConfigFuzzyWatchRequest, ConfigPublishRequest, ConfigQueryRequest,
    ConfigRemoveRequest,
};
use serde_json::{Value, json};
use support::{Node, batch, key_of, publish};

const MD5_OF_ONE: &str = "c4ca4238a0b923820dcc509a6f75849b";

#[tokio::test]
async fn what_is_published_is_read_at_once_in_the_shape_every_sdk_reads() {
    let node = Node::start().await;
    let mut client = node.client().await;
    let published = client
        .ask(&ConfigPublishRequest {
            request_id: Some("7".into()),
            addition_map: [
                ("type", "properties"),
                ("appName", "shop"),
                ("src_user", "ann"),
                ("config_tags", "a,b"),
                ("desc", "d"),
                ("use", "u"),
                ("effect", "e"),
                ("schema", "s"),
                ("encryptedDataKey", "k"),
            ]
            .map(|(key, value)| (key.into(), value.into()))
            .into(),
            ..publish("app", "1")
        })
        .await;
    assert_eq!(published.type_name, "ConfigPublishResponse");
    assert_eq!(
        published.body,
        json!({"resultCode": 200, "errorCode": 0, "success": true, "requestId": "7"})
    );
    let mut read = client.query("app").await;
    let modified = read.body["lastModified"].take();
    assert!(modified.as_i64().is_some_and(|ms| ms > 1_600_000_000_000));
    assert_eq!(read.type_name, "ConfigQueryResponse");
    assert_eq!(
        read.body,
        json!({"resultCode": 200, "errorCode": 0, "success": true, "content": "1", "md5": MD5_OF_ONE,
            "contentType": "properties", "encryptedDataKey": "k", "lastModified": null, "beta": false})
    );
    node.stop().await;
}

#[tokio::test]
async fn what_is_not_there_is_told_in_its_own_type_with_every_number() {
    let node = Node::start().await;
    let mut client = node.client().await;
    let not_found = json!({"resultCode": 500, "errorCode": 300, "success": false,
        "message": "config data not exist", "lastModified": 0, "beta": false});
    let read = client.query("none").await;
    assert_eq!(
        (read.type_name.as_str(), &read.body),
        ("ConfigQueryResponse", &not_found)
    );
    client.publish("app", "1").await;
    let tagged = ConfigQueryRequest {
        tag: Some("blue".into()),
        ..support::query("app")
    };
    assert_eq!(client.ask(&tagged).await.body, not_found, "no fall-through");
    let removal = ConfigRemoveRequest {
        data_id: "none".into(),
        group: "g".into(),
        ..ConfigRemoveRequest::default()
    };
    let removed = client.ask(&removal).await;
    assert_eq!(removed.type_name, "ConfigRemoveResponse");
    assert_eq!(
        removed.body,
        json!({"resultCode": 200, "errorCode": 0, "success": true})
    );
    node.stop().await;
}

#[tokio::test]
async fn wrong_parameters_are_answered_in_the_own_type() {
    let node = Node::start().await;
    let mut client = node.client().await;
    let check = |answer: support::Answer, type_name: &str| {
        assert_eq!(answer.type_name, type_name);
        assert_eq!(
            (
                &answer.body["resultCode"],
                &answer.body["errorCode"],
                &answer.body["success"]
            ),
            (&json!(500), &json!(400), &json!(false))
        );
        let message = answer.body["message"].as_str().unwrap_or_default();
        assert!(message.starts_with("Param check invalid:"), "{message}");
    };
    for data_id in ["", " ", "a b", "名", &"d".repeat(257)] {
        check(client.query(data_id).await, "ConfigQueryResponse");
        check(client.publish(data_id, "1").await, "ConfigPublishResponse");
        let removal = ConfigRemoveRequest {
            data_id: data_id.into(),
            group: "g".into(),
            ..ConfigRemoveRequest::default()
        };
        check(client.ask(&removal).await, "ConfigRemoveResponse");
        let listen = batch(&[(data_id, "", "")]);
        check(client.ask(&listen).await, "ConfigChangeBatchListenResponse");
    }
    for content in ["", "  "] {
        check(client.publish("app", content).await, "ConfigPublishResponse");
    }
    let long_tag = ConfigPublishRequest {
        addition_map: [("tag".into(), "t".repeat(17).into())].into(),
        ..publish("app", "1")
    };
    check(client.ask(&long_tag).await, "ConfigPublishResponse");
    let read = client.query("app").await;
    assert_eq!(read.body["errorCode"], 300, "nothing was changed");
    node.stop().await;
}

#[tokio::test]
async fn variants_are_seen_by_address_and_tag() {
    let node = Node::start().await;
    let (mut client, mut other) = (node.client().await, node.client_at("10.9.9.9").await);
    client.publish("app", "formal").await;
    for (key, value, content) in [
        ("betaIps", "10.9.9.9,10.9.9.8", "beta"),
        ("tag", "blue", "tagged"),
    ] {
        let variant = ConfigPublishRequest {
            addition_map: [(key.into(), value.into())].into(),
            ..publish("app", content)
        };
        assert_eq!(client.ask(&variant).await.body["resultCode"], 200);
    }
    let formal = client.query("app").await.body;
    assert_eq!(
        (&formal["content"], &formal["beta"], formal.get("tag")),
        (&json!("formal"), &json!(false), None)
    );
    let beta = other.query("app").await.body;
    assert_eq!(
        (&beta["content"], &beta["beta"], beta.get("tag")),
        (&json!("beta"), &json!(true), None)
    );
    let asked = ConfigQueryRequest {
        tag: Some("blue".into()),
        ..support::query("app")
    };
    let tagged = other.ask(&asked).await.body;
    assert_eq!(
        (&tagged["content"], &tagged["tag"]),
        (&json!("tagged"), &json!("blue"))
    );
    let by_header = client
        .ask_with(&support::query("app"), &[("Vipserver-Tag", "blue")])
        .await
        .body;
    assert_eq!(
        (&by_header["content"], &by_header["tag"]),
        (&json!("tagged"), &json!("blue"))
    );

    let removal = ConfigRemoveRequest {
        data_id: "app".into(),
        group: "g".into(),
        tag: Some("blue".into()),
        ..ConfigRemoveRequest::default()
    };
    assert_eq!(client.ask(&removal).await.body["resultCode"], 200);
    assert_eq!(client.ask(&asked).await.body["errorCode"], 300);
    assert_eq!(client.query("app").await.body["content"], "formal");
    node.stop().await;
}

#[tokio::test]
async fn of_eight_racers_with_one_md5_one_wins() {
    let node = Node::start().await;
    let mut client = node.client().await;
    let compare = |content: String, md5: &'static str| ConfigPublishRequest {
        cas_md5: Some(md5.into()),
        content: content.into(),
        ..publish("app", "")
    };
    let absent = client.ask(&compare("1".to_owned(), MD5_OF_ONE)).await;
    assert_eq!(absent.body["resultCode"], 200, "what is absent is inserted");
    for round in 0..5 {
        client.publish("app", "1").await;
        let mut racers = Vec::new();
        for racer in 0..8 {
            let mut client = node.client().await;
            racers.push(tokio::spawn(async move {
                let content = format!("{round} {racer}");
                let answer = client.ask(&compare(content.clone(), MD5_OF_ONE)).await;
                (content, answer)
            }));
        }
        let mut winners = Vec::new();
        for racer in racers {
            let (content, answer) = racer.await.expect("no panic");
            assert_eq!(answer.type_name, "ConfigPublishResponse");
            if answer.body["resultCode"] == 200 {
                winners.push(content);
                continue;
            }
            assert_eq!(
                answer.body,
                json!({"resultCode": 500, "errorCode": 500, "success": false,
                    "message": "Cas publish fail, server md5 may have changed."})
            );
        }
        assert_eq!(winners.len(), 1, "round {round}: {winners:?}");
        assert_eq!(client.query("app").await.body["content"], json!(winners[0]));
    }
    node.stop().await;
}

#[tokio::test]
async fn a_listen_answers_what_differs_and_repeats_the_spelling() {
    let node = Node::start().await;
    let mut client = node.client().await;
    client.publish("same", "1").await;
    client.publish("old", "1").await;
    let request = ConfigBatchListenRequest {
        request_id: Some("9".into()),
        ..batch(&[
            ("same", MD5_OF_ONE, "public"),
            ("old", "0123456789abcdef0123456789abcdef", "public"),
            ("old", "", "PUBLIC"),
            ("gone", MD5_OF_ONE, ""),
            ("never", "", ""),
        ])
    };
    let answer = client.ask(&request).await;
    assert_eq!(answer.type_name, "ConfigChangeBatchListenResponse");
    let key = |data_id: &str, tenant: &str| json!({"group": "g", "dataId": data_id, "tenant": tenant});
    assert_eq!(
        answer.body,
        json!({"resultCode": 200, "errorCode": 0, "success": true, "requestId": "9",
            "changedConfigs": [key("old", "public"), key("old", "PUBLIC"), key("gone", "")]})
    );
    // As Java writes it: no tenant, no md5, `listen` left out.
    let body = br#"{"configListenContexts":[{"group":"g","dataId":"same","tenant":null,"md5":null}]}"#;
    let answer = client.ask_as(ConfigBatchListenRequest::TYPE, body).await;
    assert_eq!(answer.body["changedConfigs"], json!([key("same", "")]));
    let stop = ConfigBatchListenRequest {
        listen: false,
        ..batch(&[("same", "", ""), ("old", "", ""), ("unknown", "", "")])
    };
    let answer = client.ask(&stop).await;
    assert_eq!(
        answer.body,
        json!({"resultCode": 200, "errorCode": 0, "success": true, "changedConfigs": []})
    );
    node.stop().await;
}

#[tokio::test]
async fn changes_are_pushed_in_the_shape_every_sdk_reads_and_read_afterwards() {
    let node = Node::start().await;
    let (mut client, mut writer) = (node.client().await, node.client().await);
    writer.publish("app", "0").await;
    let request = batch(&[
        ("app", "cfcd208495d565ef66e7dff9f98764da", "public"),
        ("new", "", ""),
    ]);
    assert_eq!(client.ask(&request).await.body["changedConfigs"], json!([]));
    for version in ["1", "2", "3"] {
        writer.publish("app", version).await;
        let push = client.pushed().await;
        assert_eq!(push.type_name(), "ConfigChangeNotifyRequest");
        let mut body: Value = client::json(&push);
        assert!(body["requestId"].take().is_string());
        assert_eq!(
            body,
            json!({"requestId": null, "module": "config", "headers": {}, "dataId": "app", "group": "g",
                "tenant": "public"})
        );
        assert_eq!(
            client.query("app").await.body["content"],
            version,
            "read your notification"
        );
        // Go acknowledges with another type, and says `success: false`.
        client.acknowledge(&push, "NotifySubscriberResponse").await;
    }
    writer.publish("app", "3").await;
    writer.publish("new", "1").await;
    let push = client.pushed().await;
    assert_eq!(
        key_of(&push),
        ("new".to_owned(), String::new()),
        "the same content again is no change"
    );
    client.acknowledge(&push, "ConfigChangeNotifyResponse").await;

    let stop = ConfigBatchListenRequest {
        listen: false,
        ..batch(&[("app", "", "")])
    };
    client.ask(&stop).await;
    writer.publish("app", "4").await;
    writer.publish("new", "2").await;
    assert_eq!(
        key_of(&client.pushed().await).0,
        "new",
        "nothing of what nobody listens to"
    );
    node.stop().await;
}

/// A burst of publishes over several connections: the listener ends with the last content.
#[tokio::test]
async fn the_last_of_a_burst_reaches_every_listener() {
    let node = Node::start().await;
    let mut writer = node.client().await;
    writer.publish("app", "first").await;
    let mut listeners = Vec::new();
    for _ in 0..8 {
        let mut client = node.client().await;
        listeners.push(tokio::spawn(async move {
            let mut md5 = String::new();
            loop {
                let changed = client.ask(&batch(&[("app", &md5, "")])).await.body;
                if changed["changedConfigs"] == json!([]) {
                    let push = client.pushed().await;
                    client.acknowledge(&push, "ConfigChangeNotifyResponse").await;
                    continue;
                }
                let read = client.query("app").await.body;
                md5 = read["md5"].as_str().expect("an md5").to_owned();
                if read["content"] == "last" {
                    return;
                }
            }
        }));
    }
    for version in 0..200 {
        writer.publish("app", &version.to_string()).await;
    }
    writer.publish("app", "last").await;
    for listener in listeners {
        client::within(listener)
            .await
            .expect("every listener sees the last one");
    }
    node.stop().await;
}

#[tokio::test]
async fn ten_thousand_keys_and_large_contents_pass() {
    let node = Node::start().await;
    let mut client = node.client().await;
    let names: Vec<String> = (0..10_000)
        .map(|n| format!("com.example.service-{n}.yaml"))
        .collect();
    let keys: Vec<_> = names.iter().map(|name| (name.as_str(), "", "")).collect();
    assert_eq!(client.ask(&batch(&keys)).await.body["changedConfigs"], json!([]));
    client.publish(&names[9_999], "1").await;
    let push = client.pushed().await;
    assert_eq!(key_of(&push).0, names[9_999]);
    client.acknowledge(&push, "ConfigChangeNotifyResponse").await;

    let content = "é\"\\\n€😀 ".repeat(500_000);
    assert_eq!(client.publish("large", &content).await.body["resultCode"], 200);
    let read = client.query("large").await;
    assert!(read.body["content"] == content, "the content comes back");
    node.stop().await;
}

/// A pattern is watched: what there is comes in batches that are acknowledged, then the word that it is
/// complete, then what comes and goes; contents do not matter.
#[tokio::test]
async fn patterns_are_synced_in_batches_and_followed() {
    let node = Node::start().await;
    let (mut client, mut writer) = (node.client().await, node.client().await);
    for n in 0..25 {
        writer.publish(&format!("app-{n:02}"), "1").await;
    }
    let watch = ConfigFuzzyWatchRequest {
        group_key_pattern: "public>>g>>app-*".into(),
        received_group_keys: vec!["app-00+g+public".into(), "app-gone+g+public".into()],
        watch_type: "WATCH".into(),
        initializing: true,
        ..ConfigFuzzyWatchRequest::default()
    };
    let answer = client.ask(&watch).await;
    assert_eq!(answer.type_name, "ConfigFuzzyWatchResponse");
    assert_eq!(
        answer.body,
        json!({"resultCode": 200, "errorCode": 0, "success": true})
    );
    let mut told = Vec::new();
    for batch in 1..=2 {
        let push = client.pushed().await;
        assert_eq!(push.type_name(), "ConfigFuzzyWatchSyncRequest");
        let body = client::json(&push);
        assert_eq!(
            (
                &body["syncType"],
                &body["totalBatch"],
                &body["currentBatch"],
                &body["headers"]
            ),
            (
                &json!("FUZZY_WATCH_INIT_NOTIFY"),
                &json!(2),
                &json!(batch),
                &json!({})
            )
        );
        told.extend(body["contexts"].as_array().expect("an array").clone());
        client.acknowledge(&push, "ConfigFuzzyWatchSyncResponse").await;
    }
    assert_eq!(told.len(), 25);
    assert!(told.contains(&json!({"groupKey": "app-gone+g+public", "changedType": "DELETE_CONFIG"})));
    assert!(told.contains(&json!({"groupKey": "app-24+g+public", "changedType": "ADD_CONFIG"})));
    let push = client.pushed().await;
    let body = client::json(&push);
    assert_eq!(
        (&body["syncType"], &body["contexts"]),
        (&json!("FINISH_FUZZY_WATCH_INIT_NOTIFY"), &json!([]))
    );
    client.acknowledge(&push, "ConfigFuzzyWatchSyncResponse").await;

    writer.publish("app-01", "2").await;
    writer.publish("other", "1").await;
    writer.publish("app-new", "1").await;
    let removal = ConfigRemoveRequest {
        data_id: "app-new".into(),
        group: "g".into(),
        ..ConfigRemoveRequest::default()
    };
    for change in ["ADD_CONFIG", "DELETE_CONFIG"] {
        let push = client.pushed().await;
        let mut body = client::json(&push);
        body["requestId"].take();
        assert_eq!(push.type_name(), "ConfigFuzzyWatchChangeNotifyRequest");
        assert_eq!(
            body,
            json!({"requestId": null, "module": "config", "headers": {}, "groupKey": "app-new+g+public",
                "changeType": change})
        );
        client
            .acknowledge(&push, "ConfigFuzzyWatchChangeNotifyResponse")
            .await;
        writer.ask(&removal).await;
    }
    node.stop().await;
}

#[tokio::test]
async fn patterns_have_limits_that_are_told() {
    let node = Node::start().await;
    let mut client = node.client().await;
    let watch = |pattern: String, watch_type: &'static str| ConfigFuzzyWatchRequest {
        group_key_pattern: pattern.into(),
        watch_type: watch_type.into(),
        ..ConfigFuzzyWatchRequest::default()
    };
    for n in 0..20 {
        let answer = client.ask(&watch(format!("public>>g{n}>>*"), "WATCH")).await;
        assert_eq!(answer.body["resultCode"], 200);
    }
    let more = watch("public>>more>>*".to_owned(), "WATCH");
    let answer = client.ask(&more).await;
    assert_eq!(
        (&answer.body["resultCode"], &answer.body["errorCode"]),
        (&json!(500), &json!(50_310))
    );
    assert_eq!(answer.type_name, "ConfigFuzzyWatchResponse");
    let cancel = client
        .ask(&watch("public>>g0>>*".to_owned(), "CANCEL_WATCH"))
        .await;
    assert_eq!(cancel.body["resultCode"], 200);
    assert_eq!(client.ask(&more).await.body["resultCode"], 200);
    for wrong in [
        watch("public>>g".to_owned(), "WATCH"),
        watch("public>>g>>*".to_owned(), "LOOK"),
    ] {
        let answer = client.ask(&wrong).await;
        assert_eq!(
            (&answer.body["resultCode"], &answer.body["errorCode"]),
            (&json!(500), &json!(400))
        );
    }
    node.stop().await;
}

/// What a client listened to goes with its connection, and others go on.
#[tokio::test]
async fn what_a_connection_listened_to_goes_with_it() {
    let node = Node::start().await;
    let (client, mut other) = (node.listening("a").await, node.listening("a").await);
    drop(client);
    other.publish("a", "1").await;
    assert_eq!(key_of(&other.pushed().await).0, "a");
    node.stop().await;
}

/// The Rust SDK finds out that its connection has ended when it wants to ask for something: it is told of a config that
/// it listens to at the very end. Nobody else is.
#[tokio::test]
async fn who_does_not_notice_the_end_is_given_something_to_ask_for() {
    let node = Node::start().await;
    let mut rust = node.client_of("Nacos-Rust-Client:0.8.3", "10.1.2.4").await;
    let listening = rust.ask(&batch(&[("a", "", "")])).await;
    assert_eq!(listening.body["changedConfigs"], json!([]));
    let mut silent = node.client_of("Nacos-Rust-Client:0.8.3", "10.1.2.5").await;
    let mut other = node.listening("a").await;
    let pushes = async {
        let push = rust.pushed().await;
        assert_eq!(push.type_name(), "ConfigChangeNotifyRequest");
        assert_eq!(key_of(&push).0, "a");
        assert!(rust.next_push().await.is_none());
        assert!(silent.next_push().await.is_none(), "it listens to nothing");
        assert!(other.next_push().await.is_none());
    };
    tokio::join!(node.stop(), pushes);
}
