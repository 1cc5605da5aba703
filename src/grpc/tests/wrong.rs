//! Clients that do what no client should.

use std::io::Write;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use proto::nacos;
use proto::nacos::config::{ConfigQueryRequest, ConfigRemoveRequest};
use proto::nacos::remote::HealthCheckRequest;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::support::*;
use crate::grpc::body::BODIES_BYTES_MAX;

#[tokio::test(start_paused = true)]
async fn each_kind_of_wrong_has_its_code_in_the_order_of_the_contract() {
    let port = Port::open();
    let mut stranger = port.client().await;
    // Before it is registered: node-only, unknown, unregistered.
    assert_eq!(
        stranger.call_as("DistroDataRequest", b"no json").await.codes(),
        (502, 502)
    );
    assert_eq!(
        stranger.call_as("LockOperationRequest", b"no json").await.codes(),
        (302, 302)
    );
    assert_eq!(stranger.call_as("", b"{}").await.codes(), (302, 302));
    assert_eq!(
        stranger.raw(framed(b"", false)).await.codes(),
        (302, 302),
        "no metadata at all"
    );
    assert_eq!(
        stranger.call_as("ConfigQueryRequest", b"no json").await.codes(),
        (301, 301)
    );
    // Registered: the body counts.
    let (mut client, _stream, _) = port.registered().await;
    for body in [
        &b""[..],
        b"null",
        b"[]",
        b"7",
        b"{",
        b"{\"dataId\":{}}",
        b"\xff\xfe{}",
    ] {
        let codes = client.call_as("ConfigQueryRequest", body).await.codes();
        assert_eq!(codes, (502, 502), "{body:?}");
    }
    assert_eq!(
        client.call_as("ServerReloadRequest", b"{}").await.codes(),
        (502, 502)
    );
    assert_eq!(client.health().await.codes(), (200, 0));
}

#[tokio::test(start_paused = true)]
async fn failures_are_told_in_the_type_that_makes_clients_do_the_right_thing() {
    let port = Port::open();
    let (mut client, _stream, _) = port.registered().await;
    let mut tell = async |name: &'static str| {
        let request = ConfigRemoveRequest {
            request_id: Some("7".into()),
            data_id: name.into(),
            ..ConfigRemoveRequest::default()
        };
        let answer = client.call(&request).await.answer();
        let body = json(&answer);
        assert_eq!(body["requestId"], "7");
        (
            answer.type_name().to_owned(),
            body["resultCode"].clone(),
            body["errorCode"].clone(),
        )
    };
    let own = || "ConfigRemoveResponse".to_owned();
    let thrown = || "ErrorResponse".to_owned();
    assert_eq!(tell("fine").await, (own(), 200.into(), 0.into()));
    assert_eq!(tell("parameter").await, (own(), 500.into(), 400.into()));
    assert_eq!(
        tell("leader").await,
        (thrown(), 503.into(), 503.into()),
        "nothing was done: retried"
    );
    assert_eq!(
        tell("unknown").await,
        (own(), 500.into(), 500.into()),
        "may be done: not retried"
    );
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_is_answered_for_and_the_next_call_is_served() {
    let port = Port::open();
    let (mut client, _stream, _) = port.registered().await;
    let panics = ConfigQueryRequest {
        data_id: "x".into(),
        ..ConfigQueryRequest::default()
    };
    assert_eq!(client.call(&panics).await.codes(), (500, 500));
    assert_eq!(port.metrics.panics.load(Relaxed), 1);
    assert_eq!(client.health().await.codes(), (200, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_message_has_a_status_and_ends_nothing_else() {
    let port = Port::open();
    let (mut client, _stream, _) = port.registered().await;
    assert_eq!(
        client.raw(Bytes::from_static(b"\x07garbage")).await.status(),
        "13"
    );
    assert_eq!(client.raw(framed(b"\xff\xff\xff\xff", false)).await.status(), "3");
    assert_eq!(
        client
            .raw(Bytes::from_static(b"\x00\xff\xff\xff\xff"))
            .await
            .status(),
        "8"
    );
    // Compressed by nothing that was announced.
    assert_eq!(client.raw(framed(b"x", true)).await.status(), "12");
    let brotli = [("grpc-encoding", "br")];
    assert_eq!(client.raw_with(&brotli, framed(b"x", true)).await.status(), "12");
    // A stream that ends in the middle of a message.
    assert_eq!(
        client
            .raw(Bytes::from_static(b"\x00\x00\x00\x00\x09half"))
            .await
            .status(),
        "1"
    );
    assert_eq!(client.health().await.codes(), (200, 0));
    assert_eq!(port.metrics.malformed.load(Relaxed), 5);
}

#[tokio::test(start_paused = true)]
async fn gzip_is_read_if_it_is_announced() {
    let port = Port::open();
    let (mut client, _stream, _) = port.registered().await;
    let plain = nacos::payload(&HealthCheckRequest::default());
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&plain).unwrap();
    let frame = framed(&encoder.finish().unwrap(), true);
    let gzip = [("grpc-encoding", "gzip")];
    assert_eq!(client.raw_with(&gzip, frame).await.codes(), (200, 0));
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    bomb.write_all(&vec![0; 32 << 20]).unwrap();
    let frame = framed(&bomb.finish().unwrap(), true);
    assert_eq!(client.raw_with(&gzip, frame).await.status(), "8");
}

#[tokio::test(start_paused = true)]
async fn messages_of_ten_megabytes_go_both_ways() {
    let port = Port::open();
    let (mut client, _stream, _) = port.registered().await;
    let large = ConfigRemoveRequest {
        tenant: "t".repeat(10_000_000).into(),
        ..ConfigRemoveRequest::default()
    };
    assert_eq!(client.call(&large).await.codes(), (200, 0));
    let query = ConfigQueryRequest {
        data_id: "10000000".into(),
        ..ConfigQueryRequest::default()
    };
    let answer = client.call(&query).await.answer();
    assert_eq!(json(&answer)["content"].as_str().map(str::len), Some(10_000_000));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_does_not_end_is_ended() {
    let port = Port::open();
    let mut client = port.client().await;
    let (response, mut body) = client.begin("/Request/request", &[]).await.unwrap();
    body.send_data(Bytes::from_static(b"\x00\x00\x00"), false)
        .unwrap();
    let begun = Instant::now();
    let head = response.await.unwrap();
    assert_eq!(head.headers()["grpc-status"], "4");
    assert_eq!(begun.elapsed(), Duration::from_secs(30));
}

/// Rapid reset: requests that are reset at once. The connection may be closed for it; others do not notice,
/// and nothing is left behind.
#[tokio::test(start_paused = true)]
async fn ten_thousand_resets_are_nothing_to_others() {
    let port = Port::open();
    let (mut other, _stream, _) = port.registered().await;
    let mut client = port.client().await;
    let frame = nacos::request_frame(&HealthCheckRequest::default(), &[], "");
    let mut sent = 0;
    for _ in 0..10_000 {
        let Ok((response, mut body)) = client.begin("/Request/request", &[]).await else {
            break;
        };
        let _ = body.send_data(frame.clone(), true);
        body.send_reset(h2::Reason::CANCEL);
        drop(response);
        sent += 1;
        if sent % 100 == 0 {
            assert_eq!(other.health().await.codes(), (200, 0));
        }
    }
    drop(client);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(port.metrics.in_flight.load(Relaxed), 0);
    assert_eq!(port.metrics.open.load(Relaxed), 1, "after {sent} resets");
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_no_http2_are_closed() {
    let port = Port::open();
    let mut wire = port.wire();
    wire.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut silent = port.wire();
    let mut end = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut wire, &mut end).await;
    assert!(read.is_ok());
    let read = tokio::io::AsyncReadExt::read_to_end(&mut silent, &mut end).await;
    assert!(read.is_ok(), "one that says nothing, too");
    assert_eq!(port.metrics.not_http2.load(Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn nonsense_on_the_stream_is_ignored_or_ends_it_and_is_no_business_of_others() {
    let port = Port::open();
    let (mut client, mut stream, ours) = port.registered().await;
    stream.send_as("Unknown", b"{}").await;
    stream.send_as("Unknown", b"no json").await;
    stream.raw(framed(b"\xff\xff", false)).await.unwrap();
    assert_eq!(client.health().await.codes(), (200, 0));
    assert!(!ours.is_gone());
    // A message that is longer than any client's: the stream cannot be read any further.
    stream
        .raw(Bytes::from_static(b"\x00\x7f\xff\xff\xff"))
        .await
        .unwrap();
    assert!(stream.next().await.is_none());
    client.closed().await;
    assert!(ours.is_gone());
}

#[tokio::test(start_paused = true)]
async fn a_connection_may_have_so_many_bytes_of_unfinished_requests_and_no_more() {
    let port = Port::open();
    let (mut greedy, _stream, _) = port.registered().await;
    let mut begun = Vec::new();
    for _ in 0..40 {
        let (response, mut body) = greedy.begin("/Request/request", &[]).await.expect("a stream");
        let mut half = framed(&vec![b'x'; 1 << 20], false).slice(..1 << 20);
        let sent = async {
            while !half.is_empty() {
                body.reserve_capacity(half.len());
                let room = std::future::poll_fn(|cx| body.poll_capacity(cx)).await;
                let Some(Ok(room)) = room else { return };
                if body
                    .send_data(half.split_to(room.min(half.len())), false)
                    .is_err()
                {
                    return;
                }
            }
        };
        sent.await;
        begun.push((response, body));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut refused = 0;
    for (response, _body) in begun {
        let answer = tokio::time::timeout(Duration::from_millis(1), response).await;
        if let Ok(Ok(answer)) = answer {
            assert_eq!(answer.headers()["grpc-status"], "8");
            refused += 1;
        }
    }
    assert!(
        refused >= 8,
        "40 MiB where there is room for 32: {refused} refused"
    );
    let (mut other, _stream, _) = port.registered().await;
    assert_eq!(other.health().await.codes(), (200, 0));
}

/// Of a setup, in two pieces.
fn halves(bytes: usize) -> (Bytes, Bytes) {
    let whole = framed(&vec![0xff; bytes], false);
    let half = whole.len() / 2;
    (whole.slice(..half), whole.slice(half..))
}

#[tokio::test(start_paused = true)]
async fn a_message_that_does_not_end_on_a_stream_is_counted_and_ended() {
    let port = Port::open();
    let whole_room = || port.gateway.bodies.take(BODIES_BYTES_MAX).is_some();
    let mut client = port.client().await;
    let mut stream = client.stream().await;
    let begun = Instant::now();
    let (first, second) = halves(1 << 19);
    // Slow, but it comes.
    for _ in 0..2 {
        stream.raw(first.clone()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert!(!whole_room(), "it is counted");
        stream.raw(second.clone()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(whole_room(), "a message that is whole is not kept");
    }
    // And then not: byte by byte is no better.
    let waited = Instant::now();
    stream.raw(first).await.unwrap();
    for byte in 0..3 {
        tokio::time::sleep(Duration::from_secs(9)).await;
        stream.raw(second.slice(byte..=byte)).await.unwrap();
    }
    assert!(stream.next().await.is_none());
    assert_eq!(waited.elapsed(), Duration::from_secs(30));
    client.closed().await;
    assert!(whole_room() && begun.elapsed() < Duration::from_secs(75));
}

#[tokio::test(start_paused = true)]
async fn without_room_large_messages_of_streams_end_them_and_acknowledgements_in_pieces_do_not() {
    let port = Port::open();
    let (mut innocent, mut acknowledging, ours) = port.registered().await;
    let (mut other, mut large, theirs) = port.registered().await;
    let _all = port
        .gateway
        .bodies
        .take(BODIES_BYTES_MAX)
        .expect("nobody has any");
    let (first, second) = halves(1 << 10);
    acknowledging.raw(first).await.unwrap();
    assert_eq!(innocent.health().await.codes(), (200, 0));
    acknowledging.raw(second).await.unwrap();
    large.raw(halves(64 << 10).0).await.unwrap();
    assert!(large.next().await.is_none());
    other.health().await;
    assert!(theirs.is_gone() && !ours.is_gone());
}

#[tokio::test(start_paused = true)]
async fn what_is_announced_has_its_room_before_it_is_there() {
    let port = Port::open();
    let (mut client, _stream, _) = port.registered().await;
    let mut begun = Vec::new();
    for _ in 0..600 {
        let (response, mut body) = client.begin("/Request/request", &[]).await.expect("a stream");
        let sent = body.send_data(framed(&[0; 1 << 16], false).slice(..9), false);
        sent.expect("the window has room");
        begun.push((response, body));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut refused = 0;
    for (response, _body) in begun {
        let answer = tokio::time::timeout(Duration::from_millis(1), response).await;
        refused += usize::from(answer.is_ok());
    }
    assert_eq!(refused, 600 - 512, "64 KiB each, of 32 MiB");
}
