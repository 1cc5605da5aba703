//! The registry over HTTP, on real sockets: what SDKs of Nacos 1.x do.

#[path = "http_door/support.rs"]
mod support;

use serde_json::{Value, json};

use self::support::Door;

const INSTANCE: &str = "/nacos/v1/ns/instance";

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
    let door = Door::open(&[]).await;
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
    let door = Door::open(&[]).await;
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
    let door = Door::open(&[]).await;
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
