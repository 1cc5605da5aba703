//! Bad input on every route.
//!
//! Goal: whatever is wrong with a request, its client is told so in the words of the API it speaks, nothing
//! has changed, and the server and the connection live on. Method: the table of routes is walked; a route
//! without a row in `bad_input/cases.rs` fails the test, so does a row without a route. Each row's own
//! cases and those that concern any request (method, encoding, sizes, types) are sent over sockets; after
//! each row everything a client can see of the stored state is compared with what it was.

#[path = "bad_input/cases.rs"]
mod cases;
#[path = "bad_input/naming.rs"]
mod naming;
#[path = "http_door/support.rs"]
mod support;

use std::collections::BTreeSet;

use rnacos::http::routes::{ROUTES, WHATEVER_METHOD};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use self::cases::{CONTENT_MAX, Row, rows};
use self::support::{Answer, Door, read_answer};

const FORM: &str = "application/x-www-form-urlencoded";

/// The shapes of errors, by the generation of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// Text, mostly `caused: …;`.
    Text,
    /// `{"code","message","data"}`.
    Coded,
    /// Text and the statuses of HTTP.
    Plain,
}

fn shape(path: &str) -> Shape {
    match path {
        "/v1/raft/metrics" => Shape::Plain,
        path if path.starts_with("/v1/") || path.starts_with("/v2/core/loader/") => Shape::Text,
        path if path.starts_with("/v2/") || path.starts_with("/v3/") => Shape::Coded,
        _ => Shape::Plain,
    }
}

/// Everything a client can see of what is stored.
async fn state(door: &Door) -> Vec<String> {
    let kept = "dataId=kept&group=g";
    let configs = "/nacos/v1/cs/configs";
    let mut seen = Vec::new();
    for target in [
        format!("{configs}?search=blur&dataId=*&group=*&pageNo=1&pageSize=500"),
        format!("{configs}?show=all&{kept}"),
        format!("{configs}?beta=true&{kept}"),
        format!("{configs}?tag=t1&{kept}"),
        format!("/nacos/v1/cs/history?search=accurate&{kept}"),
        format!("{configs}/listener?{kept}"),
        "/nacos/v1/console/namespaces".to_owned(),
        "/nacos/v1/ns/instance/list?serviceName=kept".to_owned(),
        "/nacos/v1/ns/service?serviceName=kept".to_owned(),
        "/nacos/v1/ns/service/list?pageNo=1&pageSize=100".to_owned(),
        "/nacos/v1/ns/operator/switches".to_owned(),
    ] {
        let answer = door.get(&target).await;
        assert_eq!(answer.status, 200, "{target}: {answer:?}");
        seen.push(answer.body);
    }
    seen
}

async fn furnished() -> (Door, Vec<String>) {
    let max = CONTENT_MAX.to_string();
    let door = Door::open(&[("RNACOS_CONFIG_MAX_CONTENT", &max)]).await;
    let configs = "/nacos/v1/cs/configs";
    for form in [
        "dataId=kept&group=g&content=1&desc=d&config_tags=a,b",
        "dataId=kept&group=g&content=2&tag=t1",
        "dataId=kept&group=g&content=3&betaIps=10.9.9.9",
    ] {
        assert_eq!(door.post(configs, form).await.body, "true", "{form}");
    }
    let namespace = "customNamespaceId=kept&namespaceName=n";
    assert_eq!(
        door.post("/nacos/v1/console/namespaces", namespace).await.body,
        "true"
    );
    // A node looks around before it tells anybody what there is.
    while door.get("/nacos/v1/ns/operator/metrics").await.status != 200 {
        tokio::task::yield_now().await;
    }
    // It outlives the test without a beat.
    let instance = "serviceName=kept&ip=10.0.0.1&port=80&metadata=preserved.heart.beat.timeout=86400000,\
        preserved.ip.delete.timeout=86400000";
    let registered = door.post("/nacos/v1/ns/instance", instance).await;
    assert_eq!(registered.body, "ok");
    let before = state(&door).await;
    (door, before)
}

/// Sends one request on a connection of its own, and demands that the connection is of use afterwards or
/// ends in order.
async fn send(door: &Door, request: &[u8]) -> Answer {
    let mut socket = TcpStream::connect(door.address()).await.expect("a connection");
    // The server may answer and close before it has everything.
    drop(socket.write_all(request).await);
    let answer = read_answer(&mut socket).await;
    if answer.header("connection") == Some("close") {
        let mut rest = Vec::new();
        // A reset is an end, too: the client was still writing what nobody reads.
        drop(socket.read_to_end(&mut rest).await);
        assert!(rest.is_empty(), "something follows {answer:?}");
    } else {
        let next = "GET /nacos/v1/console/health/liveness HTTP/1.1\r\nhost: x\r\n\r\n";
        socket
            .write_all(next.as_bytes())
            .await
            .expect("an open connection");
        let next = read_answer(&mut socket).await;
        assert_eq!((next.status, next.body.as_str()), (200, "OK"), "after {answer:?}");
    }
    answer
}

fn in_query(verb: &str, path: &str, input: &[u8]) -> Vec<u8> {
    let mut request = format!("{verb} /nacos{path}?").into_bytes();
    request.extend_from_slice(input);
    request.extend_from_slice(b" HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n");
    request
}

fn in_body(verb: &str, path: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "{verb} /nacos{path} HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

/// Both ways to send parameters, where the method has a body.
fn both_ways(verb: &str, path: &str, input: &[u8]) -> Vec<Vec<u8>> {
    let mut requests = Vec::new();
    // Longer lines have a bound of their own.
    if input.len() < 40_000 {
        requests.push(in_query(verb, path, input));
    }
    if matches!(verb, "POST" | "PUT") {
        requests.push(in_body(verb, path, FORM, input));
    }
    requests
}

fn check(row: &Row, input: &str, answer: &Answer, status: u16, text: &str) {
    let Row { verb, path, .. } = row;
    let shown = input.get(..120).unwrap_or(input);
    assert!(
        answer.status == status && answer.body.contains(text),
        "{verb} {path} {shown:?}: {status} with {text:?} expected, got {answer:?}"
    );
}

#[test]
fn every_route_has_its_bad_input() {
    let routes: BTreeSet<_> = ROUTES
        .iter()
        .map(|route| (route.verb.as_str(), route.path))
        .collect();
    let rows: Vec<_> = rows().iter().map(|row| (row.verb, row.path)).collect();
    let unique: BTreeSet<_> = rows.iter().copied().collect();
    assert_eq!(rows.len(), unique.len(), "two rows for one route");
    assert_eq!(
        routes, unique,
        "routes on the left, rows of tests/bad_input/cases.rs on the right"
    );
    for row in self::rows() {
        assert!(
            !row.reads || !row.cases.is_empty(),
            "{} {} has no cases",
            row.verb,
            row.path
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_parameters_are_told_and_change_nothing() {
    let (door, before) = furnished().await;
    for row in rows() {
        for case in &row.cases {
            for request in both_ways(row.verb, row.path, case.input.as_bytes()) {
                let answer = send(&door, &request).await;
                check(&row, &case.input, &answer, case.status, &case.text);
                if shape(row.path) == Shape::Coded
                    && !case.text.ends_with("\r\n")
                    && case.status >= 400
                    && !case.text.contains("exceed")
                {
                    let body: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
                    assert!(
                        body["code"].is_number() && body["message"].is_string(),
                        "{answer:?}"
                    );
                }
            }
        }
        assert_eq!(
            state(&door).await,
            before,
            "{} {} changed something",
            row.verb,
            row.path
        );
    }
    end(door).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_told_and_changes_nothing() {
    let (door, before) = furnished().await;
    let many = "a&".repeat(1_001);
    let broken: [(&[u8], &str); 8] = [
        (b"dataId=%", "two hexadecimal digits"),
        (b"dataId=kept&group=g&content=%4", "two hexadecimal digits"),
        (b"dataId=kept&group=g&content=%zz", "two hexadecimal digits"),
        (b"%+1=kept", "two hexadecimal digits"),
        (b"dataId=%ff%fe", "not UTF-8"),
        (b"dataId=kept&group=g&%c3=1", "not UTF-8"),
        (b"dataId=kept&group=g&content=\xff\xfe", "not UTF-8"),
        (many.as_bytes(), "more than 1000 parameters"),
    ];
    for row in rows() {
        for (input, text) in &broken {
            for request in both_ways(row.verb, row.path, input) {
                let answer = send(&door, &request).await;
                let shown = String::from_utf8_lossy(input);
                let is_in_line = request
                    .windows(input.len() + 1)
                    .any(|part| part.ends_with(input) && part[0] == b'?');
                if is_in_line && !input.is_ascii() {
                    // No request line at all: hyper refuses it before anybody knows the route.
                    assert_eq!((answer.status, answer.header("connection")), (400, Some("close")));
                } else if row.reads {
                    check(&row, &shown, &answer, 400, text);
                    let coded = serde_json::from_str::<serde_json::Value>(&answer.body)
                        .is_ok_and(|body| body["code"] == 20_002);
                    assert_eq!(coded, shape(row.path) == Shape::Coded, "{answer:?}");
                } else {
                    assert_eq!(answer.status, 200, "{} {shown:?}: {answer:?}", row.path);
                }
            }
        }
        assert_eq!(
            state(&door).await,
            before,
            "{} {} changed something",
            row.verb,
            row.path
        );
    }
    end(door).await;
}

/// A body of another type holds no parameters: the first required one is missing.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_another_type_are_no_forms() {
    let (door, before) = furnished().await;
    let all = r#"{"dataId":"kept","group":"g","content":"changed","namespaceId":"new","namespaceName":"n"}"#;
    let form = "dataId=kept&group=g&content=changed&namespaceId=new&namespaceName=n&customNamespaceId=new";
    for row in rows()
        .iter()
        .filter(|row| row.reads && matches!(row.verb, "POST" | "PUT"))
        // It needs no parameter.
        .filter(|row| !row.path.ends_with("/smartReloadCluster"))
    {
        for (kind, body) in [
            ("application/json", all),
            ("application/json", form),
            ("multipart/form-data; boundary=x", "--x\r\n\r\n--x--\r\n"),
            ("text/plain", form),
            ("application/octet-stream", form),
            ("\u{7f}", form),
            (FORM, all),
        ] {
            let request = in_body(row.verb, row.path, kind, body.as_bytes());
            let answer = send(&door, &request).await;
            assert!(
                (400..=500).contains(&answer.status),
                "{} {} {kind}: {answer:?}",
                row.verb,
                row.path
            );
        }
        assert_eq!(
            state(&door).await,
            before,
            "{} {} changed something",
            row.verb,
            row.path
        );
    }
    end(door).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_methods_are_told_by_every_path() {
    let (door, before) = furnished().await;
    let paths: BTreeSet<_> = ROUTES.iter().map(|route| route.path).collect();
    for path in paths {
        let known: Vec<_> = ROUTES
            .iter()
            .filter(|route| route.path == path)
            .map(|route| route.verb.as_str())
            .collect();
        for method in [
            "GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND",
        ] {
            let known = match WHATEVER_METHOD.contains(&path) {
                true => &["GET", "POST", "PUT", "DELETE", "PATCH"][..],
                false => &known,
            };
            if known.contains(&method) {
                continue;
            }
            let answer = send(
                &door,
                &in_query(method, path, b"dataId=kept&group=g&content=changed"),
            )
            .await;
            let allowed = answer
                .header("allow")
                .expect("Allow")
                .split(", ")
                .collect::<BTreeSet<_>>();
            assert_eq!(allowed, known.iter().copied().collect(), "{method} {path}");
            if path.starts_with("/v1/ns/") {
                let text = format!("no such api:{method}:/nacos{path}");
                assert_eq!((answer.status, &answer.body), (501, &text));
                continue;
            }
            let text = format!("caused: Request method &#39;{method}&#39; not supported;");
            match shape(path) {
                Shape::Plain => assert_eq!(answer.status, 405, "{method} {path}: {answer:?}"),
                Shape::Text => assert_eq!((answer.status, &answer.body), (500, &text), "{method} {path}"),
                Shape::Coded => {
                    let body = format!(r#"{{"code":500,"message":"{text}","data":null}}"#);
                    assert_eq!((answer.status, answer.body), (500, body), "{method} {path}");
                }
            }
        }
    }
    assert_eq!(state(&door).await, before);
    end(door).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_told_by_every_route() {
    let (door, before) = furnished().await;
    for row in rows() {
        let Row { verb, path, .. } = row;
        let announced =
            format!("{verb} /nacos{path} HTTP/1.1\r\nhost: x\r\ncontent-length: 33554433\r\n\r\ndataId=");
        let answer = send(&door, announced.as_bytes()).await;
        assert_eq!(
            (answer.status, answer.header("connection")),
            (413, Some("close")),
            "{verb} {path}"
        );
        let line = if matches!(verb, "POST" | "PUT") {
            1_100_000
        } else {
            70_000
        };
        let answer = send(&door, &in_query(verb, path, "x".repeat(line).as_bytes())).await;
        assert_eq!(answer.status, 414, "{verb} {path}");
        let headers = format!(
            "{verb} /nacos{path} HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n",
            "y".repeat(17 << 10)
        );
        assert_eq!(send(&door, headers.as_bytes()).await.status, 431, "{verb} {path}");
    }
    assert_eq!(state(&door).await, before);
    end(door).await;
}

/// However large what was sent is, the word about it is not.
#[tokio::test(flavor = "multi_thread")]
async fn no_answer_repeats_all_that_was_sent() {
    let (door, before) = furnished().await;
    let large = "x".repeat(30_000);
    let names = [
        "serviceName",
        "ip",
        "port",
        "weight",
        "metadata",
        "beat",
        "instances",
        "consistencyType",
        "pageNo",
        "entry",
        "value",
        "protectThreshold",
        "selector",
        "healthChecker",
        "clientId",
        "count",
        "loaderFactor",
        "dataId",
        "tenant",
        "namespaceId",
        "casMd5",
        "type",
        "nid",
        "key",
    ];
    let rest =
        "serviceName=kept&ip=10.0.0.1&port=80&weight=1&metadata=a=b&dataId=kept&group=g&pageNo=1&pageSize=1";
    for row in rows()
        .iter()
        .filter(|row| row.reads && !row.path.contains("/cs/configs"))
    {
        for name in names {
            let input = format!("{name}={large}&{rest}");
            let answer = send(&door, &in_query(row.verb, row.path, input.as_bytes())).await;
            let is_short = answer.status < 400 || answer.body.len() < 4_096;
            assert!(
                is_short,
                "{} {} {name}: {} bytes",
                row.verb,
                row.path,
                answer.body.len()
            );
        }
    }
    drop(before);
    end(door).await;
}

/// Headers that are read are checked, too.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_headers_are_told() {
    let (door, before) = furnished().await;
    let listener = "/v1/cs/configs/listener";
    let body = "Listening-Configs=a%02g%02%01";
    let with = |path: &str, header: &str, body: &str| {
        format!(
            "POST /nacos{path} HTTP/1.1\r\nhost: x\r\n{header}\r\ncontent-type: {FORM}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let answer = send(
        &door,
        with(listener, "Long-Pulling-Timeout: soon", body).as_bytes(),
    )
    .await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (400, "caused: For input string: \"soon\";")
    );
    let publish = "dataId=kept&group=g&content=changed";
    let answer = send(
        &door,
        with("/v1/cs/configs", "casMd5: nonsense", publish).as_bytes(),
    )
    .await;
    assert_eq!(answer.status, 400);
    let long = format!("betaIps: {}", "1".repeat(1_025));
    let answer = send(&door, with("/v1/cs/configs", &long, publish).as_bytes()).await;
    assert_eq!(answer.status, 400);
    assert_eq!(state(&door).await, before);
    end(door).await;
}

async fn end(door: Door) {
    let metrics = door.get("/metrics").await.body;
    assert!(
        metrics.contains("\nrnacos_http_panics_total 0\n"),
        "a handler panicked"
    );
    door.close().await;
}
