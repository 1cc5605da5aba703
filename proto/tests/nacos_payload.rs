//! The envelope, byte by byte, and the framing around it.

use bytes::Bytes;
use prost::Message as _;
use proto::grpc::{FrameDecoder, FrameError, MESSAGE_BYTES_MAX, PREFIX_BYTES, frame};
use proto::nacos::{self, HEADERS_MAX, Payload, PayloadError, Response, config, naming, remote, wire};

/// Written down from the field numbers alone.
const HEALTH_CHECK: &[u8] = b"\x12\x25\
    \x1a\x12HealthCheckRequest\
    \x3a\x06\x0a\x01a\x12\x01b\
    \x42\x071.2.3.4\
    \x1a\x04\x12\x02{}";

fn decode(bytes: &[u8]) -> Result<Payload, PayloadError> {
    Payload::decode(Bytes::copy_from_slice(bytes))
}

#[test]
fn golden_bytes_are_read() {
    let payload = decode(HEALTH_CHECK).expect("a payload");
    assert_eq!(payload.type_name(), "HealthCheckRequest");
    assert_eq!(payload.client_ip(), "1.2.3.4");
    assert_eq!(payload.headers().collect::<Vec<_>>(), [("a", "b")]);
    assert_eq!(payload.header("A"), Some("b"));
    assert_eq!(payload.header("c"), None);
    assert_eq!(payload.json(), b"{}");
}

#[test]
fn golden_bytes_are_written() {
    let answer = remote::HealthCheckResponse {
        request_id: Some("1".into()),
        ..Response::ok()
    };
    let json = br#"{"resultCode":200,"errorCode":0,"success":true,"requestId":"1"}"#;
    assert_eq!(json.len(), 0x3f);
    let golden = [
        b"\x12\x15\x1a\x13HealthCheckResponse\x1a\x41\x12\x3f".as_slice(),
        json,
    ]
    .concat();
    assert_eq!(nacos::payload(&answer), golden);
    let framed = [b"\0\0\0\0\x5a".as_slice(), &golden].concat();
    assert_eq!(nacos::frame(&answer), framed);
}

#[test]
fn what_the_generated_code_writes_is_read_and_the_other_way_round() {
    let request = config::ConfigQueryRequest {
        data_id: "app.yaml".into(),
        ..Default::default()
    };
    let headers = [("AppName", "shop"), ("accessToken", &"x".repeat(300)), ("", "")];
    let frame = nacos::request_frame(&request, &headers, "10.0.0.7");
    let generated = wire::Payload::decode(frame.slice(PREFIX_BYTES..)).expect("prost reads it");
    let metadata = generated.metadata.clone().expect("metadata");
    assert_eq!(metadata.r#type, "ConfigQueryRequest");
    assert_eq!(metadata.client_ip, "10.0.0.7");
    assert_eq!(metadata.headers.len(), 3);
    assert_eq!(metadata.headers["AppName"], "shop");

    let payload = decode(&generated.encode_to_vec()).expect("what prost writes is read");
    assert_eq!(payload.type_name(), "ConfigQueryRequest");
    assert_eq!(payload.header("accesstoken"), Some("x".repeat(300).as_str()));
    let again: config::ConfigQueryRequest<'_> = payload.read().expect("its body");
    assert_eq!(again, request);
}

/// One allocation: the lengths in front of a body take one to four bytes, and all must come out right.
#[test]
fn every_length_of_a_body_comes_back() {
    for length in [
        0, 1, 20, 100, 127, 128, 129, 200, 16_000, 16_383, 16_384, 16_500, 2_097_152, 3_000_000,
    ] {
        let content = "c".repeat(length);
        let answer = config::ConfigQueryResponse {
            content: Some(content.as_str().into()),
            ..Default::default()
        };
        let framed = nacos::frame(&answer);
        assert_eq!(framed.len() - PREFIX_BYTES, nacos::payload(&answer).len());
        let mut decoder = FrameDecoder::default();
        decoder.push(framed);
        let frame = decoder.next_frame().expect("a frame").expect("whole");
        assert!(!frame.compressed);
        assert!(decoder.is_between_messages());
        let payload = Payload::decode(frame.message).expect("a payload");
        let read: config::ConfigQueryResponse<'_> = payload.read().expect("an answer");
        assert_eq!(read.content.as_deref(), Some(content.as_str()), "length {length}");
    }
}

/// What many are told is rendered once: put in as it is it makes the bytes of the message as a whole, however
/// long it is.
#[test]
fn a_field_that_is_ready_is_put_in_as_it_is() {
    let bare = naming::QueryServiceResponse::ok().answering(Some("7".into()));
    for hosts in [0, 1, 2, 50, 500] {
        let service = naming::ServiceInfo {
            name: "shop".into(),
            hosts: vec![naming::Instance::default(); hosts],
            ..naming::ServiceInfo::default()
        };
        let json = Bytes::from(serde_json::to_vec(&service).expect("JSON"));
        let whole = nacos::frame(&naming::QueryServiceResponse {
            service_info: Some(service),
            ..bare.clone()
        });
        assert_eq!(nacos::frame_with(&bare, "serviceInfo", &json), whole);
        let pieces = nacos::frame_around(&bare, "serviceInfo", json.clone());
        assert_eq!(pieces.concat(), whole);
        assert!(std::ptr::eq(&*pieces[1], &*json), "shared, not copied");
    }
}

#[test]
fn unknown_fields_are_skipped_and_missing_ones_are_empty() {
    // Field 1 a number, field 9 text, field 15 a group's begin and end, field 5 eight bytes.
    let mut bytes = b"\x08\x05\x4a\x02hi\x7b\x7c\x29\0\0\0\0\0\0\0\0".to_vec();
    let payload = decode(&bytes).expect("nothing known is a payload, too");
    assert_eq!(
        (payload.type_name(), payload.client_ip(), payload.json()),
        ("", "", &b""[..])
    );
    bytes.extend_from_slice(HEALTH_CHECK);
    assert_eq!(
        decode(&bytes).expect("a payload").type_name(),
        "HealthCheckRequest"
    );
    // The type's address in an Any is never interpreted, whatever it is.
    assert_eq!(
        decode(b"\x1a\x06\x0a\x02\xff\xff\x12\x00")
            .expect("a payload")
            .json(),
        b""
    );
}

#[test]
fn of_a_header_given_twice_the_last_counts() {
    let payload = decode(b"\x12\x10\x3a\x06\x0a\x01a\x12\x01b\x3a\x06\x0a\x01A\x12\x01c").expect("a payload");
    assert_eq!(payload.header("a"), Some("c"));
}

#[test]
fn what_is_no_payload_is_refused() {
    assert!(matches!(
        decode(b"\x12\x05\x1a"),
        Err(PayloadError::BrokenOff { length: 5, left: 1 })
    ));
    assert!(matches!(
        decode(b"\x12\x04\x1a\x02\xff\xff"),
        Err(PayloadError::NotText)
    ));
    assert!(matches!(
        decode(b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
        Err(PayloadError::Protobuf(_))
    ));
    assert!(matches!(
        decode(b"GET / HTTP/1.1\r\n"),
        Err(PayloadError::Protobuf(_) | PayloadError::BrokenOff { .. })
    ));
    let headers = b"\x3a\x00".repeat(HEADERS_MAX + 1);
    let mut bytes = vec![0x12, 0x82, 0x04];
    bytes.extend_from_slice(&headers);
    assert!(matches!(decode(&bytes), Err(PayloadError::TooManyHeaders)));
}

#[test]
fn frames_are_cut_wherever_the_chunks_end() {
    let messages: [&[u8]; 4] = [b"", b"one", &[7; 300], b"x"];
    let stream: Vec<u8> = messages.iter().flat_map(|message| frame(message)).collect();
    for size in 1..=stream.len() {
        let mut decoder = FrameDecoder::default();
        let mut cut = Vec::new();
        for chunk in stream.chunks(size) {
            decoder.push(Bytes::copy_from_slice(chunk));
            while let Some(frame) = decoder.next_frame().expect("frames") {
                cut.push(frame.message);
            }
        }
        assert_eq!(cut, messages, "chunks of {size}");
        assert!(decoder.is_between_messages());
    }
}

#[test]
fn chunks_may_pile_up_before_they_are_cut() {
    let mut decoder = FrameDecoder::default();
    for piece in [b"\0\0\0\0".as_slice(), b"\x02a", b"b\x01\0\0", b"\0\0"] {
        decoder.push(Bytes::from_static(piece));
    }
    let first = decoder.next_frame().expect("a frame").expect("whole");
    assert_eq!((first.compressed, first.message.as_ref()), (false, &b"ab"[..]));
    let second = decoder.next_frame().expect("a frame").expect("whole");
    assert_eq!((second.compressed, second.message.as_ref()), (true, &b""[..]));
    assert_eq!(decoder.next_frame(), Ok(None));
}

#[test]
fn a_frame_in_one_chunk_is_not_copied() {
    let whole = frame(&[7; 300]);
    let mut decoder = FrameDecoder::default();
    decoder.push(whole.clone());
    let cut = decoder.next_frame().expect("a frame").expect("whole").message;
    assert_eq!(cut.as_ptr(), whole[PREFIX_BYTES..].as_ptr());
    let payload = Payload::decode(Bytes::from_static(HEALTH_CHECK)).expect("a payload");
    assert_eq!(
        payload.json().as_ptr(),
        HEALTH_CHECK[HEALTH_CHECK.len() - 2..].as_ptr()
    );
}

#[test]
fn an_error_stays_and_nothing_more_is_kept() {
    let mut decoder = FrameDecoder::default();
    decoder.push(Bytes::from_static(b"GET / HTTP/1.1"));
    assert_eq!(decoder.next_frame(), Err(FrameError::Flag(b'G')));
    decoder.push(frame(b"good"));
    assert_eq!(decoder.next_frame(), Err(FrameError::Flag(b'G')));
    assert!(!decoder.is_between_messages());
}

#[test]
fn a_message_may_be_ten_mebibytes_and_no_byte_more() {
    let limit = MESSAGE_BYTES_MAX;
    let mut decoder = FrameDecoder::default();
    decoder.push(Bytes::from_static(&[0, 0x00, 0xa0, 0x00, 0x00]));
    assert_eq!(decoder.next_frame(), Ok(None));
    let mut decoder = FrameDecoder::default();
    decoder.push(Bytes::from_static(&[0, 0x00, 0xa0, 0x00, 0x01]));
    assert_eq!(
        decoder.next_frame(),
        Err(FrameError::TooLong {
            length: limit + 1,
            limit
        })
    );
}
