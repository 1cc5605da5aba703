//! The connection reader against a scripted client.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;

fn wire() -> (DuplexStream, Wire<DuplexStream>, Arc<Exchange>) {
    let (client, server) = duplex(1 << 20);
    let exchange = Arc::new(Exchange::new(clock::now()));
    (client, Wire::new(server, Arc::clone(&exchange)), exchange)
}

async fn read_some(wire: &mut Wire<DuplexStream>) -> Vec<u8> {
    let mut bytes = vec![0; 8 << 10];
    let n = wire.read(&mut bytes).await.unwrap();
    bytes.truncate(n);
    bytes
}

async fn read_until_end_of_head(wire: &mut Wire<DuplexStream>) -> Vec<u8> {
    let mut all = Vec::new();
    while !all.ends_with(b"\r\n\r\n") {
        let some = read_some(wire).await;
        assert!(!some.is_empty(), "the connection ended");
        all.extend(some);
    }
    all
}

fn long_post(length: usize) -> Vec<u8> {
    format!(
        "POST /nacos/v1/cs/configs?content={} HTTP/1.1\r\nhost: x\r\n\r\n",
        "x".repeat(length)
    )
    .into_bytes()
}

#[tokio::test]
async fn ordinary_requests_pass_unchanged() {
    let (mut client, mut wire, exchange) = wire();
    for request in ["GET /a?b HTTP/1.1\r\n\r\n", "POST /a?b HTTP/1.1\r\n\r\n"] {
        client.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(read_some(&mut wire).await, request.as_bytes());
        exchange.begin();
        assert_eq!(exchange.take_long_query(), None);
        exchange.end(Some(0), clock::now());
        assert!(exchange.in_step.load(Relaxed));
    }
}

#[tokio::test]
async fn the_query_of_an_over_long_post_is_put_aside() {
    let (mut client, mut wire, exchange) = wire();
    let length = 300 << 10;
    client.write_all(&long_post(length)).await.unwrap();
    let head = read_until_end_of_head(&mut wire).await;
    assert_eq!(head, b"POST /nacos/v1/cs/configs HTTP/1.1\r\nhost: x\r\n\r\n");
    exchange.begin();
    let Some(LongQuery::Query(query)) = exchange.take_long_query() else {
        panic!("no query")
    };
    assert_eq!(query.len(), "content=".len() + length);
    exchange.end(Some(0), clock::now());
    assert!(exchange.in_step.load(Relaxed), "the next one is rescued too");
}

#[tokio::test]
async fn a_line_that_arrives_in_drops_is_handed_on_whole() {
    let (mut client, mut wire, _exchange) = wire();
    for drop in ["PO", "ST /a?", "b HTTP/1.1\r", "\nhost: x\r\n\r\n"] {
        client.write_all(drop.as_bytes()).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(
        read_until_end_of_head(&mut wire).await,
        b"POST /a?b HTTP/1.1\r\nhost: x\r\n\r\n"
    );
}

#[tokio::test]
async fn a_line_over_the_limit_is_refused_and_the_client_can_read_why() {
    let (mut client, mut wire, exchange) = wire();
    let sender = tokio::task::spawn(async move {
        drop(client.write_all(&long_post(LONG_LINE_BYTES_MAX + 1)).await);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        answer
    });
    assert_eq!(read_until_end_of_head(&mut wire).await, STAND_IN);
    exchange.begin();
    assert_eq!(exchange.take_long_query(), Some(LongQuery::TooLong));
    exchange.end(None, clock::now());
    wire.write_all(b"414").await.unwrap();
    wire.shutdown().await.unwrap();
    drop(wire);
    assert_eq!(sender.await.unwrap(), "414");
}

/// What looks like a request line inside a body, or behind a request hyper still has in its buffer, is
/// not touched.
#[tokio::test]
async fn only_the_certain_start_of_a_request_is_rewritten() {
    let (mut client, mut wire, exchange) = wire();
    client
        .write_all(b"POST /a HTTP/1.1\r\ncontent-length: 99999\r\n\r\n")
        .await
        .unwrap();
    drop(read_some(&mut wire).await);
    exchange.begin();
    let body = [b"POST /x?", "y".repeat(7 << 10).as_bytes()].concat();
    client.write_all(&body).await.unwrap();
    assert_eq!(read_some(&mut wire).await, body);

    let (mut client, mut wire, exchange) = self::wire();
    client
        .write_all(b"GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\nx: ")
        .await
        .unwrap();
    drop(read_some(&mut wire).await);
    exchange.begin();
    exchange.end(Some(0), clock::now());
    client.write_all(&body).await.unwrap();
    assert_eq!(read_some(&mut wire).await, body);
}

#[tokio::test(start_paused = true)]
async fn a_head_must_arrive_soon_and_an_idle_connection_may_wait() {
    let (mut client, mut wire, exchange) = wire();
    let start = clock::now();
    client.write_all(b"GET /a HTTP").await.unwrap();
    assert_eq!(read_some(&mut wire).await.len(), 11);
    assert_eq!(read_some(&mut wire).await.len(), 0, "the end of the connection");
    assert_eq!(clock::now() - start, HEAD_WAIT);

    let (mut client, mut wire, exchange_2) = self::wire();
    drop(exchange);
    client.write_all(b"GET /a HTTP/1.1\r\n\r\n").await.unwrap();
    drop(read_some(&mut wire).await);
    exchange_2.begin();
    tokio::time::sleep(Duration::from_secs(100)).await;
    let idle = clock::now();
    exchange_2.end(Some(0), idle);
    assert_eq!(read_some(&mut wire).await.len(), 0);
    assert_eq!(clock::now() - idle, KEEP_ALIVE);
}

#[test]
fn queries_are_split_off_request_lines_only() {
    let split =
        |text: &str| split_query(text.as_bytes(), text.len()).map(|(line, query)| (line, query.to_vec()));
    assert_eq!(
        split("POST /a?b=c HTTP/1.1\r\n"),
        Some((b"POST /a HTTP/1.1\r\n".to_vec(), b"b=c".to_vec()))
    );
    for other in ["POST /a HTTP/1.1\r\n", "POST\n", "?\n", "POST /a?b\n", ""] {
        assert_eq!(split(other), None, "{other:?}");
    }
}
