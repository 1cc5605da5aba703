//! The HTTP door over real sockets: what it takes, what it refuses and in which words, and that nothing
//! changes when it refuses.

#[path = "http_door/support.rs"]
mod support;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use self::support::{Door, read_answer};

const CONFIGS: &str = "/nacos/v1/cs/configs";

#[tokio::test(flavor = "multi_thread")]
async fn the_checks_of_the_announcement() {
    let door = Door::open(&[]).await;
    assert_eq!(
        door.post(CONFIGS, "dataId=t001&group=foo&content=contentTest")
            .await
            .body,
        "true"
    );
    let read = door.get("/nacos/v1/cs/configs?dataId=t001&group=foo").await;
    assert_eq!((read.status, read.body.as_str()), (200, "contentTest"));
    assert_eq!(
        read.header("content-md5"),
        Some("9f67e6977b100e00cab385a75597db58")
    );
    assert_eq!(read.header("config-type"), Some("text"));
    assert_eq!(
        door.get("/v1/cs/configs/?dataId=t001&group=foo").await.body,
        "contentTest"
    );
    assert_eq!(
        door.get("/nacos/v1/cs/configs?dataId=t001&group=foo&consistency=linearizable")
            .await
            .body,
        "contentTest"
    );
    assert_eq!(
        door.get("/nacos/v1/cs/configs?dataId=t001&group=foo&consistency=local")
            .await
            .body,
        "contentTest"
    );
    assert_eq!(
        door.get("/nacos/v1/cs/configs?dataId=t001&group=foo&consistency=maybe")
            .await
            .status,
        400
    );
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_logs_in_is_welcome_while_there_are_no_users() {
    let door = Door::open(&[]).await;
    for path in ["/v1/auth/login", "/v1/auth/users/login", "/v3/auth/user/login"] {
        // Java: the name in the query, the password in the body.
        let path = format!("/nacos{path}?username=dev");
        let welcome = door.post(&path, "password=secret").await;
        assert_eq!(welcome.status, 200, "{}", welcome.body);
        assert_eq!(welcome.header("authorization"), Some("Bearer AUTH_DISABLED"));
        assert_eq!(
            welcome.body,
            r#"{"accessToken":"AUTH_DISABLED","globalAdmin":true,"tokenTtl":18000,"username":"dev"}"#
        );
    }
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_python_clients_publish_up_to_a_megabyte_in_the_request_line() {
    let door = Door::open(&[]).await;
    let line = |method: &str, length: usize| {
        let content = "x".repeat(length);
        format!(
            "{method} {CONFIGS}?dataId=long&group=g&content={content} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
        )
    };
    let mut socket = TcpStream::connect(door.address()).await.unwrap();
    // Twice on one connection, with an ordinary request between: each start of a request is known.
    for length in [900_000, 100_000] {
        socket.write_all(line("POST", length).as_bytes()).await.unwrap();
        let answer = read_answer(&mut socket).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "true"));
        let get = format!("GET {CONFIGS}?dataId=long&group=g HTTP/1.1\r\nhost: x\r\n\r\n");
        socket.write_all(get.as_bytes()).await.unwrap();
        assert_eq!(read_answer(&mut socket).await.body.len(), length);
    }
    assert_eq!(door.raw(line("POST", 1_100_000)).await.status, 414);
    assert_eq!(door.raw(line("GET", 70_000)).await.status, 414);
    assert_eq!(
        door.get(&format!("{CONFIGS}?dataId=long&group=g"))
            .await
            .body
            .len(),
        100_000,
        "nothing changed"
    );
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bounds_are_told_and_nothing_changes() {
    let door = Door::open(&[("RNACOS_CONFIG_MAX_CONTENT", "1000")]).await;
    let headers = (0..101).map(|n| format!("x-{n}: 1\r\n")).collect::<String>();
    assert_eq!(
        door.raw(format!("GET /health HTTP/1.1\r\nhost: x\r\n{headers}\r\n"))
            .await
            .status,
        431
    );
    let large = "y".repeat(17 << 10);
    assert_eq!(
        door.raw(format!("GET /health HTTP/1.1\r\nhost: x\r\nx: {large}\r\n\r\n"))
            .await
            .status,
        431
    );
    let announced = format!("POST {CONFIGS} HTTP/1.1\r\nhost: x\r\ncontent-length: 33554433\r\n\r\ndataId=");
    let refused = door.raw(announced).await;
    assert_eq!(
        (refused.status, refused.header("connection")),
        (413, Some("close"))
    );
    let content = "z".repeat(1_001);
    let refused = door
        .post(CONFIGS, &format!("dataId=a&group=g&content={content}"))
        .await;
    assert_eq!(
        (refused.status, refused.body.as_str()),
        (400, "caused: invalid content, over 1000;")
    );
    for broken in [
        "dataId=a&group=g&content=%zz",
        "dataId=a&group=g&content=%ff%fe",
        "dataId=a&group=g&content=%",
    ] {
        assert_eq!(door.post(CONFIGS, broken).await.status, 400, "{broken}");
    }
    let cas = door
        .post(CONFIGS, "dataId=a&group=g&content=c&casMd5=nonsense")
        .await;
    assert_eq!(cas.status, 400);
    assert_eq!(door.get(&format!("{CONFIGS}?dataId=a&group=g")).await.status, 404);
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_paths_and_methods_are_told() {
    let door = Door::open(&[]).await;
    let nothing = door.get("/nacos/v1/nosuch").await;
    assert_eq!(
        (nothing.status, nothing.header("content-type")),
        (404, Some("application/json"))
    );
    assert!(
        nothing.body.contains("\"path\":\"/nacos/v1/nosuch\""),
        "{}",
        nothing.body
    );
    let naming = door.get("/nacos/v1/ns/nosuch").await;
    assert_eq!(
        (naming.status, naming.body.as_str()),
        (501, "no such api:GET:/nacos/v1/ns/nosuch")
    );
    let method = door
        .raw("PATCH /nacos/v1/cs/configs HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    assert_eq!(
        (method.status, method.header("allow")),
        (500, Some("GET, POST, DELETE"))
    );
    let method = door.raw("DELETE /health HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!((method.status, method.header("allow")), (405, Some("GET")));
    assert_eq!(door.raw("nonsense\r\n\r\n").await.status, 400);
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_come_whole_in_pieces_and_in_chunks_and_requests_may_be_pipelined() {
    let door = Door::open(&[]).await;
    let mut socket = TcpStream::connect(door.address()).await.unwrap();
    let head = format!("POST {CONFIGS} HTTP/1.1\r\nhost: x\r\n");
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n10\r\ndataId=c&group=g\r\n");
    socket.write_all(chunked.as_bytes()).await.unwrap();
    socket.write_all(b"a\r\n&content=1\r\n0\r\n\r\n").await.unwrap();
    assert_eq!(read_answer(&mut socket).await.body, "true");
    let get = format!("GET {CONFIGS}?dataId=c&group=g HTTP/1.1\r\nhost: x\r\n\r\n");
    let publish = format!("{head}content-length: 26\r\n\r\ndataId=c&group=g&content=2");
    socket
        .write_all(format!("{get}{publish}{get}").as_bytes())
        .await
        .unwrap();
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n2") {
        assert!(socket.read_buf(&mut bytes).await.unwrap() > 0);
    }
    let text = String::from_utf8_lossy(&bytes);
    let bodies: Vec<_> = text
        .split("HTTP/1.1 ")
        .skip(1)
        .filter_map(|one| one.split("\r\n\r\n").nth(1))
        .collect();
    assert_eq!(bodies, ["1", "true", "2"]);
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_megabytes_of_content_go_in_and_out() {
    let door = Door::open(&[]).await;
    let content = "%41".repeat(10 << 20);
    let answer = door
        .post(CONFIGS, &format!("dataId=big&group=g&content={content}"))
        .await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "true"));
    let read = door.get(&format!("{CONFIGS}?dataId=big&group=g")).await;
    assert_eq!(read.body.len(), 10 << 20);
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_message_of_a_publish_is_in_its_history() {
    let door = Door::open(&[]).await;
    door.post(CONFIGS, "dataId=m&group=g&content=1&message=because")
        .await;
    let history = door
        .get("/nacos/v1/cs/history?search=accurate&dataId=m&group=g")
        .await;
    assert!(
        history.body.contains(r#"\"message\":\"because\""#),
        "{}",
        history.body
    );
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_state_and_metrics_tell_of_a_working_node() {
    let door = Door::open(&[]).await;
    assert_eq!(
        door.post(CONFIGS, "dataId=a&group=g&content=c").await.body,
        "true"
    );
    for path in ["/health", "/nacos/health", "/rnacos/health"] {
        assert_eq!(door.get(path).await.body, "success", "{path}");
    }
    assert_eq!(door.get("/nacos/v1/console/health/readiness").await.body, "OK");
    let raft: serde_json::Value =
        serde_json::from_str(&door.get("/nacos/v1/raft/metrics").await.body).unwrap();
    assert_eq!(raft["state"], "Leader");
    assert_eq!((&raft["id"], &raft["current_leader"]), (&1.into(), &1.into()));
    assert_eq!(raft["membership_config"]["members"], serde_json::json!([1]));
    assert!(raft["last_log_index"].as_u64() >= raft["last_applied"].as_u64());
    let metrics = door.get("/metrics").await;
    assert!(
        metrics
            .header("content-type")
            .is_some_and(|kind| kind.starts_with("text/plain; version=0.0.4"))
    );
    for family in rnacos::metrics::names::FAMILIES {
        // tests/metrics.rs looks at those of three nodes.
        let of_others = family.name.contains("_peer_");
        assert!(
            of_others || metrics.body.contains(&format!("# TYPE {} ", family.name)),
            "{} is missing",
            family.name
        );
    }
    let published = r#"rnacos_http_requests_total{method="POST",path="/v1/cs/configs",status="2xx"} 1"#;
    assert!(metrics.body.contains(published), "{}", metrics.body);
    assert!(metrics.body.contains("\nrnacos_configs 1\n"));
    door.close().await;

    let silent = Door::open(&[("RNACOS_ENABLE_METRICS", "false")]).await;
    assert_eq!(silent.get("/metrics").await.status, 404);
    silent.close().await;
}

/// Every route answers nonsense with an error of its own, not with a panic, and changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn every_route_survives_nonsense() {
    let door = Door::open(&[]).await;
    let nonsense = [
        "",
        "dataId=%00&group=%00&namespaceId=%00",
        "pageNo=-1&pageSize=99999999999",
        "dataId&dataId&&&==&=%20",
    ];
    for route in rnacos::http::routes::ROUTES {
        for text in nonsense {
            let method = route.verb.as_str();
            let answer = door
                .raw(format!(
                    "{method} /nacos{}?{text} HTTP/1.1\r\nhost: x\r\n\r\n",
                    route.path
                ))
                .await;
            assert!(answer.status < 600, "{method} {}?{text}", route.path);
            assert!(
                !answer.head.contains('\0') && !answer.body.contains("failed on this request"),
                "{answer:?}"
            );
        }
    }
    let metrics = door.get("/metrics").await.body;
    assert!(metrics.contains("\nrnacos_http_panics_total 0\n"));
    assert!(metrics.contains("\nrnacos_configs 0\n"), "nothing was published");
    door.close().await;
}

/// A stop answers what is under way and closes what is idle.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_closes_idle_connections_and_lets_requests_end() {
    let door = Door::open(&[]).await;
    let mut idle = TcpStream::connect(door.address()).await.unwrap();
    idle.write_all(b"GET /nacos/v1/console/health/liveness HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(read_answer(&mut idle).await.status, 200);
    let address = door.address();
    door.close().await;
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap_or(0), 0, "closed");
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_bound_are_refused_politely() {
    let door = Door::open(&[("RNACOS_HTTP_CONNECTIONS_MAX", "2")]).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut socket = TcpStream::connect(door.address()).await.unwrap();
        socket
            .write_all(b"GET /nacos/v1/console/health/liveness HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        assert_eq!(read_answer(&mut socket).await.status, 200);
        held.push(socket);
    }
    let mut third = TcpStream::connect(door.address()).await.unwrap();
    assert_eq!(read_answer(&mut third).await.status, 503);
    drop(held);
    door.close().await;
}
