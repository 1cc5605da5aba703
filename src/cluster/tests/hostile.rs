//! Whoever does not hold the token has no effect; whoever holds it and misbehaves ends its own stream.

use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{Request, Response};
use prost::Message as _;
use raft::{Boot, NodeId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::*;
use crate::cluster::door::{CALL_PATH, HANDSHAKE_PATH, RAFT_PATH};
use crate::cluster::handshake::{Caller, Frame};
use crate::cluster::stream::next_frame;
use crate::cluster::*;

/// R40: for a stranger the paths between nodes do not exist: not even the answer tells them from others.
#[tokio::test]
async fn a_stranger_cannot_tell_peer_paths_from_unknown_ones() {
    let node = Node::start(1);
    let mut send = stranger(node.address, &node.shutdown).await;
    let unknown = ask(&mut send, "/no.such.Service/Method").await;
    assert_eq!(unknown.headers()["grpc-status"], "12");
    for path in [RAFT_PATH, CALL_PATH, "/rnacos.cluster.Peer/Other"] {
        let answer = ask(&mut send, path).await;
        assert_eq!(
            (answer.status(), answer.headers()),
            (unknown.status(), unknown.headers()),
            "{path}"
        );
    }
    assert_eq!(node.door.counts().messages.load(Ordering::Relaxed), 0);
}

/// What was recorded from a real handshake is worth nothing on another connection.
#[tokio::test]
async fn a_replayed_handshake_is_refused() {
    let node = Node::start(1);
    let mut first = stranger(node.address, &node.shutdown).await;
    let (mut to_door, mut from_door, challenge) = begin_handshake(&mut first).await;
    let (hello, _) = Caller::answer(
        &node.token,
        challenge,
        Kind::Member,
        &identity(2),
        Target::default(),
    );
    to_door.send_data(hello.to_bytes(), true).unwrap();
    assert!(matches!(
        next_frame(&mut from_door, &mut BytesMut::new()).await,
        Ok(Frame::Answer(..))
    ));

    let mut second = stranger(node.address, &node.shutdown).await;
    let (mut to_door, mut from_door, _) = begin_handshake(&mut second).await;
    to_door.send_data(hello.to_bytes(), true).unwrap();
    let answer = next_frame(&mut from_door, &mut BytesMut::new()).await.unwrap();
    assert_eq!(answer, Frame::Refused(Refused::TokenWrong));
}

#[tokio::test]
async fn a_connection_has_one_handshake_only() {
    let node = Node::start(1);
    let mut send = stranger(node.address, &node.shutdown).await;
    let _first = begin_handshake(&mut send).await;
    let second = ask(&mut send, HANDSHAKE_PATH).await;
    assert_eq!(second.headers()["grpc-status"], "12");
}

#[tokio::test]
async fn a_failed_handshake_closes_the_connection() {
    let node = Node::start(1);
    for garbage in [
        &b"\x02\x00\x00\x00\x20"[..],
        &[2, 0xff, 0xff, 0xff, 0xff],
        &[0; 9000],
        b"",
    ] {
        let stream = TcpStream::connect(node.address).await.unwrap();
        let (mut send, connection) = h2::client::handshake::<_>(stream).await.unwrap();
        let closed = node.shutdown.spawn(connection);
        let (mut to_door, _from_door, _) = begin_handshake(&mut send).await;
        let padded = [garbage, &[0; 32]].concat();
        let _ = to_door.send_data(Bytes::from(padded), true);
        drop((to_door, _from_door, send));
        let _ = tokio::time::timeout(PATIENCE, closed)
            .await
            .expect("the door hangs up");
    }
    assert_eq!(node.door.counts().admitted.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn bytes_that_are_no_http2_are_hung_up_on() {
    let (first, second) = pair().await;
    for garbage in [
        &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
        &[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 3],
        &[0; 4096],
    ] {
        let mut stream = TcpStream::connect(second.address).await.unwrap();
        let _ = stream.write_all(garbage).await;
        let mut rest = Vec::new();
        let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        assert!(end.is_ok(), "the listener keeps such a connection");
    }
    first.transport.send(second.id, first.heartbeat(1));
    assert_eq!(second.receive(first.id, 1).await.len(), 1);
}

/// A member that sends what none would: its stream ends, what came before it counts, others go on.
#[tokio::test]
async fn a_malformed_stream_ends_and_nothing_else_does() {
    let (first, second) = pair().await;
    let mut good = BytesMut::new();
    encode(&message_of(&identity(7), raft::Body::TimeoutNow), &mut good).unwrap();
    let in_the_name_of_another = {
        let mut out = BytesMut::new();
        encode(&first.heartbeat(1), &mut out).unwrap();
        out
    };
    let of_another_boot = {
        let mut out = BytesMut::new();
        let later = Identity {
            boot: Boot(2),
            ..identity(7)
        };
        encode(&message_of(&later, raft::Body::TimeoutNow), &mut out).unwrap();
        out
    };
    let bad: [&[u8]; 4] = [
        &[0xff; 64],
        &[0, 0, 0, 4, 0, 0, 1, 0],
        &in_the_name_of_another,
        &of_another_boot,
    ];
    for (count, bad) in bad.into_iter().enumerate() {
        let mut send = proven(&second, &identity(7), &first.shutdown).await;
        let (response, mut stream) = send.send_request(post(RAFT_PATH), false).unwrap();
        stream
            .send_data(Bytes::from([&good[..], bad].concat()), false)
            .unwrap();
        assert_eq!(second.receive(NodeId(7), 1).await.len(), 1);
        // The reset may overtake the headers.
        let error = match response.await {
            Ok(response) => response
                .into_body()
                .data()
                .await
                .expect("a reset")
                .expect_err("a reset"),
            Err(error) => error,
        };
        assert_eq!(error.reason(), Some(h2::Reason::PROTOCOL_ERROR));
        assert_eq!(
            second.door.counts().malformed.load(Ordering::Relaxed),
            count as u64 + 1
        );
    }
    first.transport.send(second.id, first.heartbeat(1));
    assert_eq!(second.receive(first.id, 1).await.len(), 1);
}

/// R38: what a newer version sends is ignored and counted, and what follows it is not lost.
#[tokio::test]
async fn unknown_kinds_of_messages_are_ignored_and_counted() {
    let node = Node::start(1);
    let sender = identity(7);
    let mut send = proven(&node, &sender, &node.shutdown).await;
    let (_response, mut stream) = send.send_request(post(RAFT_PATH), false).unwrap();
    let mut head = ::proto::cluster::Message {
        sender_id: 7,
        ..Default::default()
    }
    .encode_to_vec();
    head.extend_from_slice(&[0x9a, 0x06, 0x01, 0x00]);
    let mut bytes = BytesMut::new();
    bytes.extend_from_slice(&(head.len() as u32 + 4).to_be_bytes());
    bytes.extend_from_slice(&(head.len() as u32).to_be_bytes());
    bytes.extend_from_slice(&head);
    let known = message_of(&sender, raft::Body::TimeoutNow);
    encode(&known, &mut bytes).unwrap();
    stream.send_data(bytes.freeze(), false).unwrap();
    assert_eq!(node.receive(NodeId(7), 1).await, [known]);
    assert_eq!(node.door.counts().unknown.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_joiner_or_operator_has_no_raft_stream() {
    let node = Node::start(1);
    for kind in [Kind::Joiner, Kind::Operator] {
        let credentials = Credentials::new(node.token.clone(), kind, identity(7));
        let address = node.address.to_string();
        let dialled = dial::dial(&address, &credentials, Target::default(), PATIENCE)
            .await
            .unwrap();
        let connection = dialled.connection;
        drop(node.shutdown.spawn(async move { drop(connection.await) }));
        let answer = ask(&mut { dialled.send }, RAFT_PATH).await;
        assert_eq!(answer.headers()["grpc-status"], "12");
    }
}

/// HTTP/2 rapid reset: ten thousand requests, each taken back at once.
#[tokio::test]
async fn ten_thousand_resets_hurt_nobody_else() {
    let (first, second) = pair().await;
    let mut taken_back = 0;
    while taken_back < 10_000 {
        let mut send = stranger(second.address, &first.shutdown).await;
        while taken_back < 10_000 {
            let Ok(ready) = send.clone().ready().await else {
                break;
            };
            send = ready;
            let Ok((_response, mut stream)) = send.send_request(post("/a.Service/Method"), false) else {
                break;
            };
            stream.send_reset(h2::Reason::CANCEL);
            taken_back += 1;
        }
    }
    first.transport.send(second.id, first.heartbeat(1));
    assert_eq!(second.receive(first.id, 1).await.len(), 1);
}

fn post(path: &str) -> Request<()> {
    Request::post(format!("http://peer{path}")).body(()).unwrap()
}

async fn ask(send: &mut SendRequest<Bytes>, path: &str) -> Response<RecvStream> {
    let mut ready = send.clone().ready().await.unwrap();
    let (response, _stream) = ready.send_request(post(path), true).unwrap();
    response.await.unwrap()
}

async fn begin_handshake(send: &mut SendRequest<Bytes>) -> (SendStream<Bytes>, RecvStream, [u8; 32]) {
    let (response, stream) = send.send_request(post(HANDSHAKE_PATH), false).unwrap();
    let mut body = response.await.unwrap().into_body();
    let Frame::Challenge(challenge) = next_frame(&mut body, &mut BytesMut::new()).await.unwrap() else {
        panic!("no challenge")
    };
    (stream, body, challenge)
}
