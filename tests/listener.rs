//! Long polls over real sockets: what wakes them, what they are told, and what becomes of them when the
//! client, the server or the leader goes.

#[path = "listener/support.rs"]
mod support;

use std::time::{Duration, Instant};

use self::support::{CONFIGS, LISTENER, Link, Node, entry, entry_in, form, until};

/// A wake-up is a matter of milliseconds; the bound is for a busy machine. A poll that is not woken ends
/// empty after 29.5 s, so nothing passes by accident.
const SOON: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn a_change_wakes_the_poll_and_only_the_changed_config_is_told() {
    let node = Node::start(&[]).await;
    let client = node.client();
    client.publish("", "a", "1").await;
    client.publish("", "b", "1").await;
    let poll = client.poll_aside(&(entry("a", "1") + &entry("b", "1") + &entry("none", "")));
    client.until_waiting(1).await;
    client.publish("", "other", "1").await;
    let started = Instant::now();
    client.publish("", "b", "2").await;
    assert_eq!(poll.await.unwrap(), "b|g;");
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    client.until_waiting(0).await;

    let poll = client.poll_aside(&(entry("a", "1") + &entry("none", "")));
    client.until_waiting(1).await;
    client.remove("a").await;
    assert_eq!(poll.await.unwrap(), "a|g;", "a removal is a change");
    let poll = client.poll_aside(&entry("none", ""));
    client.until_waiting(1).await;
    client.publish("", "none", "1").await;
    assert_eq!(poll.await.unwrap(), "none|g;", "so is a first publish");
    let metrics = client.send("GET", "/metrics", "").await.body;
    assert!(metrics.contains("\nrnacos_config_notifications_total 3\n"));
    assert!(metrics.contains("\nrnacos_config_notification_delay_seconds_count 3\n"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_spelling_of_a_namespace_listens_and_is_answered_in_its_own() {
    let node = Node::start(&[]).await;
    let client = node.client();
    client.publish("", "a", "1").await;
    client.publish("dev", "a", "1").await;
    let all = entry("a", "0")
        + &entry_in("public", "a", "0")
        + &entry_in("dev", "a", "0")
        + &entry_in("", "a", "0");
    assert_eq!(client.poll(&all).await, "a|g;a|g|public;a|g|dev;a|g|;");

    let public = client.poll_aside(&entry_in("public", "a", "1"));
    let blank = client.poll_aside(&entry("a", "1"));
    let dev = client.poll_aside(&entry_in("dev", "a", "1"));
    client.until_waiting(3).await;
    client.publish("public", "a", "2").await;
    assert_eq!(public.await.unwrap(), "a|g|public;");
    assert_eq!(blank.await.unwrap(), "a|g;");
    client.until_waiting(1).await;
    client.publish("dev", "a", "2").await;
    assert_eq!(dev.await.unwrap(), "a|g|dev;");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn variants_wake_those_who_see_them() {
    let node = Node::start(&[]).await;
    let client = node.client();
    client.publish("", "a", "1").await;
    let chosen = client.with("x-forwarded-for", "10.0.0.1");
    let tagged = client.with("vipserver-tag", "t1");
    let beta = chosen.poll_aside(&entry("a", "1"));
    let tag = tagged.poll_aside(&entry("a", "1"));
    let formal = client.poll_aside(&entry("a", "1"));
    client.until_waiting(3).await;
    let publish = format!("{CONFIGS}?group=g&dataId=a");
    let with_ips = client.with("betaips", "10.0.0.1");
    assert_eq!(with_ips.send("POST", &publish, "content=beta").await.body, "true");
    assert_eq!(beta.await.unwrap(), "a|g;");
    assert_eq!(chosen.read("a").await.as_deref(), Some("beta"));
    client.until_waiting(2).await;
    assert_eq!(
        client.send("POST", &publish, "content=tag&tag=t1").await.body,
        "true"
    );
    assert_eq!(tag.await.unwrap(), "a|g;");

    // The formal version is no news for those who see another one.
    let beta = chosen.poll_aside(&entry("a", "beta"));
    client.until_waiting(2).await;
    client.publish("", "a", "2").await;
    assert_eq!(formal.await.unwrap(), "a|g;");
    client.until_waiting(1).await;
    let stop = format!("{publish}&beta=true");
    assert_eq!(client.send("DELETE", &stop, "").await.status, 200);
    assert_eq!(beta.await.unwrap(), "a|g;");
    assert_eq!(chosen.read("a").await.as_deref(), Some("2"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_configs_in_one_request() {
    let node = Node::start(&[]).await;
    let client = node.client();
    client.publish("", "d2999", "1").await;
    let names = (0..3_000).map(|number| format!("d{number}"));
    let has: String = names
        .clone()
        .map(|name| entry(&name, if name == "d2999" { "1" } else { "" }))
        .collect();
    let poll = client.poll_aside(&has);
    client.until_waiting(1).await;
    client.publish("", "d1234", "1").await;
    assert_eq!(poll.await.unwrap(), "d1234|g;");
    let wrong: String = names.map(|name| entry(&name, "wrong")).collect();
    assert_eq!(client.poll(&wrong).await.matches(';').count(), 3_000);
    let too_many = entry("a", "").repeat(10_001);
    let refused = client.peek(&too_many).await;
    assert_eq!(
        (refused.status, refused.body.as_str()),
        (400, "caused: invalid probeModify;")
    );
    assert_eq!(client.peek(&entry("a", "").repeat(10_000)).await.status, 200);
    node.stop().await;
}

/// Several writers publish as fast as they can; clients that poll and read in a loop, as SDKs do, end with
/// the last content and never go without news for the length of a poll.
#[tokio::test(flavor = "multi_thread")]
async fn no_update_is_lost_under_concurrent_publishes() {
    let node = Node::start(&[]).await;
    let client = node.client();
    client.publish("", "a", "0-0").await;
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                let (mut has, mut seen) = ("0-0".to_owned(), 0);
                while has != "last" {
                    assert_eq!(client.poll(&entry("a", &has)).await, "a|g;");
                    has = client.read("a").await.expect("it is there");
                    seen += 1;
                }
                seen
            })
        })
        .collect();
    let writers: Vec<_> = (1..=3)
        .map(|writer| {
            let client = client.clone();
            tokio::spawn(async move {
                for version in 0..40 {
                    client.publish("", "a", &format!("{writer}-{version}")).await;
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    client.publish("", "a", "last").await;
    for reader in readers {
        assert!(reader.await.unwrap() >= 1);
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_listens_to_what_is_told() {
    let node = Node::start(&[]).await;
    let client = node.client().with("x-forwarded-for", "10.0.0.7");
    client.publish("", "a", "1").await;
    let poll = client.poll_aside(&(entry("a", "1") + &entry_in("dev", "b", "")));
    client.until_waiting(1).await;
    let ask = async |target: &str| client.send("GET", target, "").await.body;
    let md5 = "c4ca4238a0b923820dcc509a6f75849b";
    assert_eq!(
        ask(&format!("{LISTENER}?dataId=a&group=g")).await,
        format!(r#"{{"collectStatus":200,"lisentersGroupkeyStatus":{{"10.0.0.7":"{md5}"}}}}"#)
    );
    let by_ip = async |rest: &str| ask(&format!("/nacos/v1/cs/listener?ip=10.0.0.7{rest}")).await;
    let told = |map: &str| format!(r#"{{"collectStatus":200,"lisentersGroupkeyStatus":{map}}}"#);
    assert_eq!(by_ip("").await, told(&format!(r#"{{"a+g":"{md5}"}}"#)));
    assert_eq!(by_ip("&tenant=dev").await, told(r#"{"b+g+dev":""}"#));
    assert_eq!(
        by_ip("&all=true").await,
        told(&format!(r#"{{"a+g":"{md5}","b+g+dev":""}}"#))
    );
    client.publish("dev", "b", "1").await;
    assert_eq!(poll.await.unwrap(), "b|g|dev;");
    client.until_waiting(0).await;
    assert_eq!(by_ip("&all=true").await, told("{}"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_is_forgotten() {
    let node = Node::start(&[]).await;
    let client = node.client();
    let poll = client.poll_aside(&entry("a", ""));
    client.until_waiting(1).await;
    poll.abort();
    client.until_waiting(0).await;
    // The request that asks is the only one in flight.
    let alone = "\nrnacos_http_requests_in_flight 1\n";
    until("nothing is in flight", || async {
        client.send("GET", "/metrics", "").await.body.contains(alone)
    })
    .await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_polls_at_once() {
    let node = Node::start(&[]).await;
    let client = node.client();
    let polls: Vec<_> = (0..3).map(|_| client.poll_aside(&entry("a", ""))).collect();
    client.until_waiting(3).await;
    let started = Instant::now();
    node.stop().await;
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    for poll in polls {
        assert_eq!(
            poll.await.unwrap(),
            "",
            "an empty answer sends the client elsewhere"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_told_and_headers_decide_how_long_it_takes() {
    let node = Node::start(&[]).await;
    let client = node.client();
    client.publish("", "a", "1").await;
    for (form, status) in [
        ("", 400),
        ("Listening-Configs=", 400),
        ("Listening-Configs=%20", 400),
        ("Listening-Configs=abc", 500),
        ("Listening-Configs=a%02g%02m%02t%02x%01", 500),
        ("Listening-Configs=a%02g%01", 500),
        ("Listening-Configs=%01%01", 500),
        ("Listening-Configs=a%2520b%02g%02%01", 400),
        ("Listening-Configs=%25zz%02g%02%01", 400),
        ("Listening-Configs=%ff%02g%02%01", 400),
        ("Listening-Configs=%02g%02%01", 400),
    ] {
        let answer = client.send("POST", LISTENER, form).await;
        assert_eq!(answer.status, status, "{form}: {}", answer.body);
    }
    let never = client.with("long-pulling-timeout", "never");
    assert_eq!(
        never.send("POST", LISTENER, &form(&entry("a", "1"))).await.status,
        400
    );

    let unchanged = client.peek(&entry("a", "1")).await;
    assert_eq!((unchanged.status, unchanged.body.as_str()), (200, ""));
    let short = client.send("POST", LISTENER, &form(&entry("a", "0"))).await;
    assert_eq!(short.body, "a%02g%01\n");
    let header = |name: &str| short.headers.get(name).and_then(|value| value.to_str().ok());
    assert_eq!(header("probe-modify-response"), Some("a:g;"));
    assert_eq!(header("probe-modify-response-new"), Some("a%02g%01"));
    assert_eq!(header("cache-control"), Some("no-cache,no-store"));
    node.stop().await;
}

/// Three nodes: a poll on a follower is woken by a write through another node. Then the follower is cut
/// off, falls behind, and must not tell a client that what it has is new (R41).
#[tokio::test(flavor = "multi_thread")]
async fn r41_a_follower_that_lags_does_not_tell_older_as_new() {
    let first = Node::start(&[]).await;
    let member = first.server.grpc_address().to_string();
    let second = Node::start(&[("RNACOS_RAFT_NODE_ID", "2"), ("RNACOS_RAFT_JOIN_ADDR", &member)]).await;
    let link = Link::new().await;
    let third = Node::start(&[
        ("RNACOS_RAFT_NODE_ID", "3"),
        ("RNACOS_RAFT_JOIN_ADDR", &member),
        ("RNACOS_RAFT_NODE_ADDR", &link.address.to_string()),
        ("RNACOS_WRITE_TIMEOUT_MS", "1000"),
    ])
    .await;
    link.lead_to(third.server.grpc_address());
    let (writer, follower) = (first.client(), third.client());
    until("three voters", || async {
        let raft = writer.send("GET", "/nacos/v1/raft/metrics", "").await.body;
        raft.contains(r#""members":[1,2,3]"#)
    })
    .await;

    writer.publish("", "a", "1").await;
    until("the follower has it", || async {
        follower.read("a").await.as_deref() == Some("1")
    })
    .await;
    let poll = follower.poll_aside(&entry("a", "1"));
    follower.until_waiting(1).await;
    writer.publish("", "a", "2").await;
    assert_eq!(poll.await.unwrap(), "a|g;");
    assert_eq!(
        follower.read("a").await.as_deref(),
        Some("2"),
        "told after it can be read"
    );

    link.cut(true);
    writer.publish("", "a", "3").await;
    assert_eq!(follower.read("a").await.as_deref(), Some("2"), "it lags");
    let told = follower.peek(&entry("a", "3")).await;
    assert_eq!(told.status, 503, "{}", told.body);
    assert_eq!(
        follower.peek(&entry("a", "2")).await.body,
        "",
        "nothing differs as far as it knows"
    );
    let poll = follower.poll_aside(&entry("a", "3"));
    follower.until_waiting(1).await;
    link.cut(false);
    until("the follower catches up", || async {
        follower.read("a").await.as_deref() == Some("3")
    })
    .await;
    assert!(!poll.is_finished(), "the third version is no news");
    writer.publish("", "a", "4").await;
    assert_eq!(poll.await.unwrap(), "a|g;");
    assert_eq!(follower.read("a").await.as_deref(), Some("4"));
    for node in [third, second, first] {
        node.stop().await;
    }
}
