//! The registry over HTTP and UDP, on real sockets: what SDKs of Nacos 1.x do.

#[path = "http_door/support.rs"]
mod support;

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use flate2::read::GzDecoder;
use serde_json::{Value, json};
use tokio::net::UdpSocket;

use self::support::Door;

const INSTANCE: &str = "/nacos/v1/ns/instance";

/// A server that serves the registry, too: a node looks around before it tells anybody what there is.
async fn open() -> Door {
    let door = Door::open(&[]).await;
    while door.get("/nacos/v1/ns/operator/metrics").await.status != 200 {
        tokio::task::yield_now().await;
    }
    door
}

async fn send(door: &Door, verb: &str, target: &str, headers: &str) -> support::Answer {
    door.raw(format!(
        "{verb} {target} HTTP/1.1\r\nhost: x\r\n{headers}content-length: 0\r\n\r\n"
    ))
    .await
}

async fn hosts(door: &Door, query: &str) -> Vec<Value> {
    let answer = door.get(&format!("{INSTANCE}/list?{query}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let list: Value = serde_json::from_str(&answer.body).expect("JSON");
    list["hosts"].as_array().expect("hosts").clone()
}

fn ports(hosts: &[Value]) -> Vec<u64> {
    hosts.iter().filter_map(|host| host["port"].as_u64()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_comes_beats_and_goes() {
    let door = open().await;
    let place = "serviceName=s&ip=10.0.0.1&port=80";
    let light = format!("{INSTANCE}/beat?{place}");
    let unknown = json!({"clientBeatInterval": 5000, "code": 20404, "lightBeatEnabled": true});
    let beat = send(&door, "PUT", &light, "").await;
    assert_eq!(serde_json::from_str::<Value>(&beat.body).expect("JSON"), unknown);
    let metadata = "metadata=%7B%22v%22%3A%221%22%7D&weight=2.5&clusterName=c1";
    let registered = door.post(INSTANCE, &format!("{place}&{metadata}")).await;
    assert_eq!((registered.status, registered.body.as_str()), (200, "ok"));
    let all = hosts(&door, "serviceName=DEFAULT_GROUP@@s").await;
    assert_eq!(all.len(), 1);
    assert_eq!(all[0]["instanceId"], "10.0.0.1#80#c1#DEFAULT_GROUP@@s");
    assert_eq!(
        (&all[0]["weight"], &all[0]["metadata"]["v"]),
        (&json!(2.5), &json!("1"))
    );
    let beat = send(&door, "PUT", &format!("{light}&clusterName=c1"), "").await;
    assert!(beat.body.contains("10200"), "{beat:?}");
    assert!(hosts(&door, "serviceName=s&clusters=c2").await.is_empty());
    assert_eq!(hosts(&door, "serviceName=s&clusters=c2,c1").await.len(), 1);
    assert!(hosts(&door, "serviceName=s&namespaceId=other").await.is_empty());
    let detail = door.get(&format!("{INSTANCE}?{place}&cluster=c1")).await;
    assert_eq!(detail.status, 200);
    assert!(
        detail.body.contains(r#""service":"DEFAULT_GROUP@@s""#),
        "{detail:?}"
    );
    let gone = send(&door, "DELETE", &format!("{INSTANCE}?{place}&clusterName=c1"), "").await;
    assert_eq!(gone.body, "ok");
    assert!(hosts(&door, "serviceName=s").await.is_empty());
    let detail = door.get(&format!("{INSTANCE}?{place}")).await;
    assert_eq!(detail.status, 404);
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_beats_is_registered() {
    let door = open().await;
    for port in [80, 81] {
        let beat = format!("%7B%22ip%22%3A%22a%22%2C%22port%22%3A{port}%2C%22cluster%22%3A%22c%22%7D");
        let target = format!("{INSTANCE}/beat?serviceName=g@@s&beat={beat}");
        let answer = send(&door, "PUT", &target, "").await;
        assert!(answer.body.contains("10200"), "{answer:?}");
    }
    assert_eq!(ports(&hosts(&door, "serviceName=s&groupName=g").await), [80, 81]);
    let statuses = door
        .get(&format!("{INSTANCE}/statuses?key=public%23%23g@@s"))
        .await;
    assert_eq!(statuses.body, r#"{"ips":["a:80_true","a:81_true"]}"#);
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn disabled_instances_are_kept_from_readers() {
    let door = open().await;
    for form in [
        "port=1&enabled=false",
        "port=2&enable=false",
        "port=3&healthy=false",
        "port=4",
    ] {
        let form = format!("serviceName=s&ip=a&{form}");
        assert_eq!(door.post(INSTANCE, &form).await.body, "ok");
    }
    assert_eq!(ports(&hosts(&door, "serviceName=s").await), [3, 4]);
    assert_eq!(ports(&hosts(&door, "serviceName=s&healthyOnly=true").await), [4]);
    door.close().await;
}

/// Contract 00 §2.3, 05 §7: an address has one instance in a service, of the kind that the service holds.
#[tokio::test(flavor = "multi_thread")]
async fn who_goes_need_not_name_cluster_and_kind() {
    let door = open().await;
    let clusters = async |service: &str| {
        let hosts = hosts(&door, &format!("serviceName={service}")).await;
        let names = hosts.iter().map(|host| host["clusterName"].as_str());
        names
            .map(|name| name.expect("a name").to_owned())
            .collect::<Vec<_>>()
    };
    for (service, kind) in [("e", ""), ("p", "&ephemeral=false")] {
        let place = format!("serviceName={service}&ip=10.0.0.1&port=80");
        for cluster in ["c1", "DEFAULT", "c2"] {
            let form = format!("{place}&clusterName={cluster}{kind}");
            assert_eq!(door.post(INSTANCE, &form).await.body, "ok");
            assert_eq!(clusters(service).await, [cluster]);
        }
        let delete = async |query: &str| {
            let target = format!("{INSTANCE}?{place}{query}");
            let gone = send(&door, "DELETE", &target, "").await;
            assert_eq!((gone.status, gone.body.as_str()), (200, "ok"));
            clusters(service).await
        };
        assert_eq!(
            delete("&clusterName=c1").await,
            ["c2"],
            "another cluster is named"
        );
        let other = if kind.is_empty() { "false" } else { "true" };
        assert_eq!(
            delete(&format!("&ephemeral={other}")).await,
            ["c2"],
            "another kind is"
        );
        assert!(delete("&clusterName=").await.is_empty());
        assert_eq!(door.post(INSTANCE, &format!("{place}{kind}")).await.body, "ok");
        let v2 = format!("/nacos/v2/ns/instance?{place}&ephemeral=");
        assert!(send(&door, "DELETE", &v2, "").await.body.contains("\"code\":0"));
        assert!(clusters(service).await.is_empty());
    }
    door.close().await;
}

const JAVA: &str = "user-agent: Nacos-Java-Client:v1.4.2\r\n";

/// The next datagram as the SDK reads it, and where it came from.
async fn datagram(socket: &UdpSocket) -> (Value, Value, std::net::SocketAddr) {
    let mut buffer = vec![0; 65_536];
    let received = tokio::time::timeout(Duration::from_secs(60), socket.recv_from(&mut buffer));
    let (length, from) = received.await.expect("a datagram").expect("a socket");
    let bytes = &buffer[..length];
    let mut text = String::new();
    if bytes.starts_with(&[0x1f, 0x8b]) {
        GzDecoder::new(bytes).read_to_string(&mut text).expect("gzip");
    } else {
        text = String::from_utf8(bytes.to_vec()).expect("text");
    }
    let outer: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(outer["type"], "dom");
    let inner = serde_json::from_str(outer["data"].as_str().expect("a text")).expect("JSON");
    (outer, inner, from)
}

/// Story: a Java SDK of 1.4 lists with its port and hears of the next instances, first plainly, then, when there
/// are more of them, compressed; what it acknowledges is counted. Others who only say they are listed are not.
#[tokio::test(flavor = "multi_thread")]
async fn sdks_of_1x_are_told_over_udp() {
    let door = open().await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let port = socket.local_addr().expect("an address").port();
    let list = |rest: &str| format!("{INSTANCE}/list?serviceName=s&udpPort={port}&app=shop{rest}");
    let subscribers = "/nacos/v1/ns/service/subscribers?serviceName=s";
    for (target, agent) in [
        (list("&clientIP=10.1.1.1"), JAVA),
        (list(""), "user-agent: curl/8\r\n"),
        (list("&clientIP=127.0.0.1").replace("udpPort", "x"), JAVA),
    ] {
        assert_eq!(send(&door, "GET", &target, agent).await.status, 200);
        let told = door.get(subscribers).await.body;
        assert_eq!(told, r#"{"count":0,"subscribers":[]}"#, "{target}");
    }
    let listed = send(&door, "GET", &list("&clientIP=127.0.0.1"), JAVA).await;
    let first: Value = serde_json::from_str(&listed.body).expect("JSON");
    assert_eq!(first["hosts"], json!([]));
    let told: Value = serde_json::from_str(&door.get(subscribers).await.body).expect("JSON");
    assert_eq!(told["count"], 1);
    assert_eq!(told["subscribers"][0]["addrStr"], format!("127.0.0.1:{port}"));
    assert_eq!(told["subscribers"][0]["agent"], "Nacos-Java-Client:v1.4.2");
    assert_eq!(told["subscribers"][0]["app"], "shop");

    assert_eq!(door.post(INSTANCE, "serviceName=s&ip=a&port=1").await.body, "ok");
    let (outer, inner, from) = datagram(&socket).await;
    assert_eq!(inner["name"], "DEFAULT_GROUP@@s");
    assert_eq!(ports(inner["hosts"].as_array().expect("hosts")), [1]);
    assert!(inner["lastRefTime"].as_u64() > first["lastRefTime"].as_u64());
    let ack = json!({"type": "push-ack", "lastRefTime": outer["lastRefTime"].to_string(), "data": ""});
    socket
        .send_to(ack.to_string().as_bytes(), from)
        .await
        .expect("sent");
    let state = "/nacos/v1/ns/operator/push/state?detail=true";
    while !door.get(state).await.body.contains(r#""succeed":1"#) {
        tokio::task::yield_now().await;
    }
    for other in 2..8 {
        let form = format!("serviceName=s&ip=a&port={other}");
        assert_eq!(door.post(INSTANCE, &form).await.body, "ok");
    }
    let mut last = inner["lastRefTime"].as_u64();
    loop {
        // Renewed as the SDK does, however slow this machine is.
        send(&door, "GET", &list("&clientIP=127.0.0.1"), JAVA).await;
        let (_, inner, _) = datagram(&socket).await;
        assert!(
            inner["lastRefTime"].as_u64() >= last,
            "what is pushed never grows older"
        );
        last = inner["lastRefTime"].as_u64();
        if inner["hosts"].as_array().expect("hosts").len() == 7 {
            break;
        }
    }
    door.close().await;
}

/// While a node is what an operator says it is, it serves accordingly, and can be turned back.
#[tokio::test(flavor = "multi_thread")]
async fn switches_have_their_effect() {
    let door = open().await;
    let switches = "/nacos/v1/ns/operator/switches";
    let set = |entry: &str, value: &str| format!("{switches}?entry={entry}&value={value}");
    let turn = async |entry: &str, value: &str| {
        let answer = send(&door, "PUT", &set(entry, value), "").await;
        assert_eq!(answer.body, "ok", "{entry} {value}");
    };
    let read = async || door.get(&format!("{INSTANCE}/list?serviceName=s")).await.status;
    let write = async || door.post(INSTANCE, "serviceName=s&ip=a&port=1").await.status;
    for (status, reads, writes) in [
        ("DOWN", 503, 503),
        ("READ_ONLY", 200, 503),
        ("WRITE_ONLY", 503, 200),
        ("NULL", 200, 200),
    ] {
        turn("overriddenServerStatus", status).await;
        assert_eq!((read().await, write().await), (reads, writes), "{status}");
    }
    turn("limitedUrlMap", "/nacos/v1/ns/instance/list:504").await;
    assert_eq!((read().await, write().await), (504, 200));
    turn("limitedUrlMap", "").await;
    turn("clientBeatInterval", "7000").await;
    turn("lightBeatEnabled", "false").await;
    let beat = send(
        &door,
        "PUT",
        &format!("{INSTANCE}/beat?serviceName=s&ip=a&port=1"),
        "",
    )
    .await;
    assert_eq!(
        beat.body,
        r#"{"clientBeatInterval":7000,"code":10200,"lightBeatEnabled":false}"#
    );
    turn("defaultInstanceEphemeral", "false").await;
    let answer = door.post(INSTANCE, "serviceName=p&ip=a&port=1").await;
    assert_eq!(answer.body, "ok");
    assert_eq!(hosts(&door, "serviceName=p").await[0]["ephemeral"], false);
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_node_lists_after_a_restart_what_it_listed_before() {
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    let door = Door::open_in(Arc::clone(&folder), &[]).await;
    for ip in ["10.0.0.1", "10.0.0.2"] {
        let registered = door
            .post(INSTANCE, &format!("serviceName=s&ip={ip}&port=80"))
            .await;
        assert_eq!(registered.status, 200);
    }
    let file = folder.path().join("instances");
    while !std::fs::read(&file).is_ok_and(|bytes| bytes.windows(8).any(|found| found == b"10.0.0.2")) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    door.close().await;
    let door = Door::open_in(folder, &[]).await;
    let list = format!("{INSTANCE}/list?serviceName=s");
    while door.get(&list).await.status == 503 {
        tokio::task::yield_now().await;
    }
    assert_eq!(ports(&hosts(&door, "serviceName=s").await), [80, 80]);
    let unknown = door.get(&format!("{INSTANCE}/list?serviceName=unknown")).await;
    assert_eq!(unknown.status, 503, "an empty list is not told as truth yet");
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_publishes_and_who_listens_is_told_by_client() {
    let door = open().await;
    let clients = "/nacos/v2/ns/client";
    for form in [
        "serviceName=s&ip=10.0.0.1&port=80",
        "serviceName=t&ip=10.0.0.1&port=80&clusterName=c",
        "serviceName=p&ip=10.0.0.2&port=81&ephemeral=false",
    ] {
        assert_eq!(door.post(INSTANCE, form).await.body, "ok", "{form}");
    }
    let data = async |target: String| {
        let answer = door.get(&format!("{clients}{target}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let mut body: Value = serde_json::from_str(&answer.body).expect("JSON");
        body["data"].take()
    };
    let ids = data("/list".to_owned()).await;
    assert_eq!(ids, json!(["10.0.0.1:80#true", "10.0.0.2:81#false"]));
    let published = data("/publish/list?clientId=10.0.0.1:80%23true".to_owned()).await;
    let of = |name: &str, cluster: &str| {
        json!({"namespace": "public", "group": "DEFAULT_GROUP", "serviceName": name,
            "registeredInstance": {"ip": "10.0.0.1", "port": 80, "cluster": cluster}})
    };
    assert_eq!(published, json!([of("s", "DEFAULT"), of("t", "c")]));
    let one = data("?clientId=10.0.0.2:81%23false".to_owned()).await;
    assert_eq!(
        (&one["clientType"], &one["ephemeral"], &one["clientPort"]),
        (&json!("ipPort"), &json!(false), &json!("81"))
    );
    let listened = data("/subscribe/list?clientId=10.0.0.2:81%23false".to_owned()).await;
    assert_eq!(listened, json!([]));
    let publishers = data("/service/publisher/list?serviceName=t&ip=10.0.0.1&port=80".to_owned()).await;
    let publisher = json!({"ip": "10.0.0.1", "port": 80, "cluster": "c", "clientId": "10.0.0.1:80#true"});
    assert_eq!(publishers, json!([publisher]));
    door.close().await;
}

/// An instance that asks for a number in its id has one, the same wherever it is shown and however often it
/// registers; without its wish the id is its place.
#[tokio::test(flavor = "multi_thread")]
async fn ids_are_made_as_instances_wish() {
    let door = open().await;
    let snowflake = "&metadata=preserved.instance.id.generator=snowflake";
    let id = async |form: String| {
        assert_eq!(door.post(INSTANCE, &form).await.body, "ok");
        let listed = hosts(&door, "serviceName=s").await[0]["instanceId"].clone();
        let place = "serviceName=s&ip=10.0.0.1&port=80";
        let detail: Value =
            serde_json::from_str(&door.get(&format!("{INSTANCE}?{place}")).await.body).expect("JSON");
        assert_eq!(detail["instanceId"], listed);
        listed.as_str().expect("a text").to_owned()
    };
    let place = "serviceName=s&ip=10.0.0.1&port=80";
    let plain = id(place.to_owned()).await;
    assert_eq!(plain, "10.0.0.1#80#DEFAULT#DEFAULT_GROUP@@s");
    let first = id(format!("{place}{snowflake}")).await;
    let (number, rest) = first.split_once('#').expect("a number");
    assert!(number.parse::<i64>().is_ok_and(|number| number > 0), "{first}");
    assert_eq!(rest, "DEFAULT#DEFAULT_GROUP@@s");
    assert_eq!(id(format!("{place}{snowflake},v=2")).await, first);
    door.close().await;
}

/// What is said of the wrong kind of instance changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn kinds_are_not_mixed_up() {
    let door = open().await;
    for form in [
        "serviceName=e&ip=a&port=1",
        "serviceName=p&ip=a&port=1&ephemeral=false",
    ] {
        assert_eq!(door.post(INSTANCE, form).await.body, "ok", "{form}");
    }
    for (target, status) in [
        ("?serviceName=e&ip=a&port=1&weight=5&ephemeral=false", 400),
        ("?serviceName=p&ip=a&port=1&weight=5&ephemeral=true", 400),
        ("/beat?serviceName=e&ip=a&port=1&ephemeral=false", 400),
        ("/beat?serviceName=never&ip=a&port=1&ephemeral=false", 400),
        ("/beat?serviceName=p&ip=a&port=1&ephemeral=false", 200),
        ("?serviceName=e&ip=a&port=1&weight=6&ephemeral=true", 200),
    ] {
        let answer = send(&door, "PUT", &format!("{INSTANCE}{target}"), "").await;
        assert_eq!(answer.status, status, "{target}: {answer:?}");
        assert!(
            !answer.body.contains("20404"),
            "a client would register: {answer:?}"
        );
    }
    assert_eq!(hosts(&door, "serviceName=e").await[0]["weight"], 6.0);
    assert_eq!(hosts(&door, "serviceName=p").await[0]["weight"], 1.0);
    let empty = door.post(INSTANCE, "serviceName=g@@&ip=a&port=1").await;
    assert_eq!(empty.status, 400, "{empty:?}");
    // Numbers may be texts.
    let chosen = r#"[{"ip":"a","port":"1"}]"#;
    let batch = format!("{INSTANCE}/metadata/batch?serviceName=e&metadata=k=v&instances={chosen}");
    let answer = send(&door, "PUT", &batch.replace('"', "%22"), "").await;
    assert_eq!(answer.body, r#"{"updated":["a:1:unknown:DEFAULT:ephemeral"]}"#);
    door.close().await;
}
