//! Pushes and their acknowledgements.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use proto::nacos::config::ConfigChangeNotifyRequest;
use tokio::time::Instant;

use super::support::*;
use crate::grpc::{self, PushError};

const ACK: Duration = Duration::from_secs(3);

async fn notify(client: &grpc::Client, data_id: &str) -> Result<(), PushError> {
    let message = |id| ConfigChangeNotifyRequest {
        request_id: Some(id),
        data_id: data_id.into(),
        ..ConfigChangeNotifyRequest::default()
    };
    client.push(ACK, message).await
}

/// Go answers config pushes with the type of naming pushes, with `success` false beside 200.
#[tokio::test(start_paused = true)]
async fn an_answer_belongs_to_the_push_whose_id_it_has_whatever_its_type() {
    let port = Port::open();
    let (_client, mut stream, ours) = port.registered().await;
    let (first, second, ()) = tokio::join!(notify(&ours, "a"), notify(&ours, "b"), async {
        let (a, b) = (stream.next().await.unwrap(), stream.next().await.unwrap());
        assert_eq!(
            (json(&a)["dataId"].as_str(), json(&b)["dataId"].as_str()),
            (Some("a"), Some("b"))
        );
        assert!(json(&a)["headers"].is_object());
        stream
            .send_as(
                "NotifySubscriberResponse",
                br#"{"requestId":"999","resultCode":200}"#,
            )
            .await;
        stream
            .send_as("NotifySubscriberResponse", br#"{"resultCode":200}"#)
            .await;
        stream.acknowledge(&b, "NotifySubscriberResponse", 500).await;
        stream.acknowledge(&a, "NotifySubscriberResponse", 200).await;
    });
    assert_eq!(first, Ok(()));
    assert!(matches!(second, Err(PushError::Refused { code: 0, .. })));
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_result_is_a_failure_and_no_answer_is_late() {
    let port = Port::open();
    let (_client, mut stream, ours) = port.registered().await;
    let (refused, ()) = tokio::join!(notify(&ours, "a"), async {
        let push = stream.next().await.unwrap();
        let id = json(&push)["requestId"].as_str().unwrap().to_owned();
        stream
            .send_as(
                "ConfigChangeNotifyResponse",
                format!(r#"{{"requestId":"{id}"}}"#).as_bytes(),
            )
            .await;
    });
    assert!(matches!(refused, Err(PushError::Refused { .. })));
    let begun = Instant::now();
    assert_eq!(notify(&ours, "b").await, Err(PushError::Late));
    assert_eq!(begun.elapsed(), ACK);
    let push = stream.next().await.unwrap();
    stream.acknowledge(&push, "ConfigChangeNotifyResponse", 200).await;
    let pushes = &port.metrics.pushes;
    assert_eq!((pushes.sent.load(Relaxed), pushes.late.load(Relaxed)), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_a_client_that_goes_is_told() {
    let port = Port::open();
    let (client, mut stream, ours) = port.registered().await;
    let (gone, ()) = tokio::join!(notify(&ours, "a"), async {
        assert!(stream.next().await.is_some());
        client.driver.abort();
    });
    assert_eq!(gone, Err(PushError::Gone));
    assert_eq!(notify(&ours, "a").await, Err(PushError::Gone));
}

/// One client reads nothing at all, not even the socket. It is told less and less, holds a bounded amount of
/// memory, delays nobody, and is closed in the end.
#[tokio::test(start_paused = true)]
async fn a_client_that_never_reads_holds_nobody_up() {
    let port = Port::open();
    let (stuck_client, _stuck_stream, stuck) = port.registered().await;
    let (_client, mut stream, ours) = port.registered().await;
    // Its connection is not driven any more: the bytes stay where they are.
    let driver = stuck_client.driver;
    driver.abort();
    drop(driver.await);
    // Aborted, the connection would be dropped and closed: that is another test. A wire that nobody reads:
    let wire = port.wire();
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(1 << 30)
        .initial_connection_window_size(1 << 30);
    let (send, connection) = builder.handshake::<_, bytes::Bytes>(wire).await.unwrap();
    let mut connection = Box::pin(connection);
    let mut client = Client {
        send,
        driver: tokio::spawn(async { Ok(()) }),
    };
    let (mut mute_stream, mute) = tokio::select! {
        registered = async {
            let id = client.check().await;
            let mut stream = client.stream().await;
            stream.send(&setup()).await;
            assert_eq!(client.health().await.codes(), (200, 0));
            (stream, port.gateway.registry().find(&id).unwrap())
        } => registered,
        ended = &mut connection => panic!("{ended:?}"),
    };
    assert!(stuck.is_gone());
    let long = "d".repeat(10 << 10);
    let mut busy = 0;
    for _ in 0..200 {
        let pushed = mute.push_unacknowledged(|id| ConfigChangeNotifyRequest {
            request_id: Some(id),
            data_id: long.as_str().into(),
            ..ConfigChangeNotifyRequest::default()
        });
        busy += usize::from(pushed == Err(PushError::Busy));
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
    }
    assert!(
        (150..200).contains(&busy),
        "{busy} of 200 were not sent: 64 KiB are on the wire, few more wait"
    );
    // Nobody else notices.
    let begun = Instant::now();
    let (told, ()) = tokio::join!(notify(&ours, "a"), async {
        let push = stream.next().await.unwrap();
        stream.acknowledge(&push, "ConfigChangeNotifyResponse", 200).await;
    });
    assert_eq!((told, begun.elapsed()), (Ok(()), Duration::ZERO));
    // It is closed when it cannot even be asked.
    let begun = Instant::now();
    while !mute.is_gone() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(begun.elapsed() < Duration::from_secs(40));
    }
    drop((connection, mute_stream.out.send_data(bytes::Bytes::new(), true)));
}

/// The window of the stream is small, the socket is not: what does not fit waits and leaves in order.
#[tokio::test(start_paused = true)]
async fn a_small_window_delays_pushes_and_keeps_their_order() {
    let port = Port::open();
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(1_000);
    let client = Client::with(builder, port.wire()).await;
    let (_client, mut stream, id) = client.registered().await;
    let ours = port.gateway.registry().find(&id).unwrap();
    let mut sent = 0;
    for n in 0..1_000 {
        let pushed = ours.push_unacknowledged(|id| ConfigChangeNotifyRequest {
            request_id: Some(id),
            data_id: n.to_string().into(),
            ..ConfigChangeNotifyRequest::default()
        });
        match pushed {
            Ok(()) => sent += 1,
            Err(error) => {
                assert_eq!(error, PushError::Busy);
                break;
            }
        }
    }
    assert!((300..700).contains(&sent), "64 KiB wait: {sent}");
    for n in 0..sent {
        let push = stream.next().await.unwrap();
        assert_eq!(json(&push)["dataId"].as_str(), Some(n.to_string().as_str()));
    }
    assert!(ours.pushes.outbox().stuck_for_ms() == 0);
}

/// A push of ten megabytes goes to a client that has a small window, if nothing waits before it.
#[tokio::test(start_paused = true)]
async fn the_largest_message_gets_through() {
    let port = Port::open();
    let (_client, mut stream, ours) = port.registered().await;
    let long = "d".repeat(10_000_000);
    let pushed = ours.push_unacknowledged(|id| ConfigChangeNotifyRequest {
        request_id: Some(id),
        data_id: long.as_str().into(),
        ..ConfigChangeNotifyRequest::default()
    });
    assert_eq!(pushed, Ok(()));
    let push = stream.next().await.unwrap();
    assert_eq!(json(&push)["dataId"].as_str().map(str::len), Some(10_000_000));
}
