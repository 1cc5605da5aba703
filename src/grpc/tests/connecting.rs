//! Coming, being there, going.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use proto::nacos::Message as _;
use proto::nacos::config::ConfigPublishRequest;
use proto::nacos::remote::{ConnectionSetupRequest, SetupAckRequest};
use tokio::time::{Instant, sleep};

use super::support::*;
use crate::service::clients::{Connected as _, Destination};

#[tokio::test(start_paused = true)]
async fn a_client_comes_as_java_does_and_is_known_by_what_it_said() {
    let port = Port::open();
    let (_client, _stream, ours) = port.registered().await;
    assert_eq!(&*ours.setup.client_ip, "10.1.2.3");
    assert_eq!(&*ours.setup.version, "Nacos-Java-Client:v2.1.0");
    assert_eq!(&*ours.setup.app_name, "shop");
    assert_eq!(ours.setup.label("Module"), Some("config"));
    assert_eq!(ours.setup.abilities, None);
    let [since, ip, number] = ours.id.split('_').collect::<Vec<_>>()[..] else {
        panic!("{}", ours.id);
    };
    assert!(since.parse::<u64>().is_ok() && number.parse::<u16>().is_ok());
    assert_eq!(ip, "10.0.0.9");
    assert_eq!(port.gateway.registry().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn abilities_are_told_only_to_those_who_told_theirs() {
    let port = Port::open();
    let mut client = port.client().await;
    let mut stream = client.stream().await;
    let mut with_table = setup();
    with_table.ability_table = Some([("fuzzyWatch".into(), true)].into());
    stream.send(&with_table).await;
    let ack = stream.next().await.expect("a setup ack");
    assert_eq!(ack.type_name(), SetupAckRequest::TYPE);
    assert!(json(&ack)["abilityTable"].is_object() && json(&ack)["headers"].is_object());

    let (_other, mut silent, ours) = port.registered().await;
    ours.close();
    assert!(silent.next().await.is_none(), "nothing but the end");
}

/// Rust: stream and setup, then health check, then server check; and the call may overtake the setup.
#[tokio::test(start_paused = true)]
async fn a_call_that_comes_before_the_setup_waits_for_it() {
    let port = Port::open();
    let mut client = port.client().await;
    let mut stream = client.stream().await;
    let begun = Instant::now();
    let (health, ()) = tokio::join!(client.health(), async {
        sleep(Duration::from_millis(100)).await;
        stream.send(&setup()).await;
    });
    assert_eq!(health.codes(), (200, 0));
    assert_eq!(begun.elapsed(), Duration::from_millis(100), "and no longer");
    client.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_setup_is_told_so() {
    let port = Port::open();
    let mut client = port.client().await;
    let begun = Instant::now();
    assert_eq!(client.health().await.codes(), (301, 301));
    assert_eq!(begun.elapsed(), Duration::from_millis(200));
    let mut stream = client.stream().await;
    stream.send(&setup()).await;
    assert_eq!(client.health().await.codes(), (200, 0));
    // A stream that ends unregisters, and a call after it need not wait.
    stream.out.send_data(bytes::Bytes::new(), true).expect("the end");
    assert!(stream.next().await.is_none());
    let begun = Instant::now();
    assert_eq!(client.health().await.codes(), (301, 301));
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert!(port.gateway.registry().is_empty());
    // The same connection may register again.
    client.registered().await;
    assert_eq!(port.gateway.registry().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_starting_says_so_and_takes_nobody() {
    let port = Port::loading();
    let mut client = port.client().await;
    for kind in ["ServerCheckRequest", "HealthCheckRequest", "WhoKnows"] {
        assert_eq!(client.call_as(kind, b"{}").await.codes(), (300, 300), "{kind}");
    }
    let mut stream = client.stream().await;
    stream.send(&setup()).await;
    assert!(stream.next().await.is_none());
    client.closed().await;
    assert!(port.gateway.registry().is_empty());
    assert_eq!(port.metrics.setups_refused.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_node_without_a_leader_takes_clients_and_tells_nothing_of_configs() {
    let port = Port::loading();
    port.gateway.readiness.set_naming();
    let (mut client, _stream, _) = port.registered().await;
    assert_eq!(client.health().await.codes(), (200, 0));
    let begun = Instant::now();
    assert_eq!(
        client
            .call_as("ConfigQueryRequest", b"{\"dataId\":\"1\"}")
            .await
            .codes(),
        (300, 300)
    );
    assert_eq!(
        begun.elapsed(),
        Duration::from_secs(2),
        "a leader might have been found"
    );
    // One is found meanwhile.
    let begun = Instant::now();
    let (found, ()) = tokio::join!(
        client.call_as("ConfigQueryRequest", b"{\"dataId\":\"1\"}"),
        async {
            sleep(Duration::from_millis(300)).await;
            port.gateway.readiness.set_current();
        }
    );
    assert_eq!(found.codes(), (200, 0));
    assert_eq!(begun.elapsed(), Duration::from_millis(300));
    assert!(port.gateway.readiness.is_current());
    port.gateway.readiness.set_naming();
    assert!(port.gateway.readiness.is_current(), "what was reached stays");
}

#[tokio::test(start_paused = true)]
async fn a_second_setup_and_a_second_stream_change_nothing() {
    let port = Port::open();
    let (mut client, mut stream, ours) = port.registered().await;
    stream
        .send(&ConnectionSetupRequest {
            client_version: "another".into(),
            ability_table: Some([].into()),
            ..setup()
        })
        .await;
    assert_eq!(client.try_stream().await.err().as_deref(), Some("8"));
    assert_eq!(client.health().await.codes(), (200, 0));
    assert!(!ours.is_gone());
    assert_eq!(
        port.gateway.registry().clients()[0].setup.version,
        ours.setup.version
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_for_a_client_goes_with_it() {
    let port = Port::open();
    let (client, stream, ours) = port.registered().await;
    let kept = ours.extension(|| 7_u32).expect("it is there");
    assert_eq!(*ours.extension(|| 8_u32).expect("it is there"), 7, "made once");
    let weak = std::sync::Arc::downgrade(&kept);
    drop(kept);
    assert!(weak.upgrade().is_some());
    client.driver.abort();
    drop((client.send, stream));
    sleep(Duration::from_secs(1)).await;
    assert!(weak.upgrade().is_none());
    assert!(ours.is_gone() && ours.extension(|| 9_u32).is_none());
    assert!(port.gateway.registry().is_empty());
    assert_eq!(port.metrics.registered.load(Relaxed), 0);
    assert_eq!(port.metrics.open.load(Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_asked_and_stays_if_it_answers_anything() {
    let port = Port::open();
    let (_client, mut stream, ours) = port.registered().await;
    let ask = stream.next().await.expect("it is asked");
    assert_eq!(ask.type_name(), "ClientDetectionRequest");
    assert!(
        (20_000..24_000).contains(&ours.silent_ms()),
        "{}",
        ours.silent_ms()
    );
    stream.acknowledge(&ask, "WhateverResponse", 200).await;
    sleep(Duration::from_secs(15)).await;
    assert!(!ours.is_gone());
    // Now it does not answer.
    let begun = Instant::now();
    assert!(stream.next().await.is_some());
    assert!(stream.next().await.is_none(), "its stream is ended");
    assert!(ours.is_gone());
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!(port.metrics.detection_closes.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_talks_is_never_asked() {
    let port = Port::open();
    let (mut client, _stream, ours) = port.registered().await;
    for _ in 0..20 {
        sleep(Duration::from_secs(5)).await;
        assert_eq!(client.health().await.codes(), (200, 0));
    }
    assert_eq!(port.metrics.detections.load(Relaxed), 0);
    assert!(!ours.is_gone());
}

#[tokio::test(start_paused = true)]
async fn clients_are_asked_to_move_a_few_at_a_time_and_the_newest_first() {
    let port = Port::open();
    let mut clients = Vec::new();
    for _ in 0..150 {
        clients.push(port.registered().await);
    }
    let to = Destination {
        ip: "10.0.0.2".to_owned(),
        port: 8848,
    };
    let registry = port.gateway.registry();
    assert_eq!(registry.list().len(), 150);
    assert_eq!(registry.move_all_but(30, Some(&to)), 120);
    sleep(Duration::from_millis(100)).await;
    assert_eq!(port.metrics.resets.load(Relaxed), 100, "the first batch");
    sleep(Duration::from_millis(200)).await;
    assert_eq!(port.metrics.resets.load(Relaxed), 120);
    let mut asked = 0;
    for (_, stream, ours) in &mut clients {
        let Ok(push) = tokio::time::timeout(Duration::from_millis(1), stream.next()).await else {
            continue;
        };
        let push = push.expect("a push");
        assert_eq!(push.type_name(), "ConnectResetRequest");
        let body = json(&push);
        assert_eq!(
            (&body["serverIp"], &body["serverPort"]),
            (&"10.0.0.2".into(), &"8848".into())
        );
        assert_eq!(body["connectionId"], *ours.id);
        asked += 1;
    }
    assert_eq!(asked, 120);
    assert!(!registry.move_one("nobody", None));
    assert!(registry.move_one(&clients[0].2.id, None));
    let push = clients[0].1.next().await.expect("a push");
    assert!(json(&push).get("serverIp").is_none(), "no recommendation");
}

/// The stream ends at once, so that the client goes elsewhere; what is being answered is answered.
#[tokio::test(start_paused = true)]
async fn a_node_that_stops_sends_its_clients_away_and_answers_what_it_has_begun() {
    let port = Port::open();
    let (mut client, mut stream, _) = port.registered().await;
    let slow = ConfigPublishRequest::default();
    let (answer, ()) = tokio::join!(client.call(&slow), async {
        sleep(Duration::from_millis(500)).await;
        let begun = Instant::now();
        port.clients.begin();
        assert!(stream.next().await.is_none());
        assert_eq!(begun.elapsed(), Duration::ZERO);
    });
    assert_eq!(answer.codes(), (200, 0));
    assert!(port.clients.drained(Duration::from_secs(1)).await);
    client.closed().await;
    // Whoever comes now is not served, and hears why.
    let mut late = port.client().await;
    let Outcome::Status(status, why) = late.health().await else {
        panic!("it is served");
    };
    assert_eq!((&*status, &*why), ("14", "this node is stopping"));
    assert_eq!(late.try_stream().await.err().as_deref(), Some("14"));
    port.network.begin();
    assert!(port.network.drained(Duration::from_secs(20)).await);
}

/// It would take the whole drain otherwise: nobody knows it, so nobody would end its stream.
#[tokio::test(start_paused = true)]
async fn a_stream_that_never_said_whose_it_is_holds_up_no_stop() {
    let port = Port::open();
    let mut client = port.client().await;
    let mut stream = client.stream().await;
    let begun = Instant::now();
    port.clients.begin();
    assert!(stream.next().await.is_none());
    client.closed().await;
    assert!(port.clients.drained(Duration::from_secs(20)).await);
    assert_eq!(begun.elapsed(), Duration::ZERO);
}
