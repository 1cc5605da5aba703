//! `proto::grpc` and `proto::nacos`: what anybody may send to the SDK port.
//!
//! * A stream of any bytes, cut anywhere, is the same frames or the same error; what is not yet a frame
//!   takes no more memory than has arrived.
//! * What the generated code has understood and writes anew is a payload of the same type, headers and body
//!   to us, unless it has more than [`HEADERS_MAX`] headers. On bytes that nobody writes the two may differ:
//!   prost takes a map for one whatever its wire type is, we skip it.
//! * Any text is an error or a message that is written and read again as itself, in whatever type it is
//!   read; memory stays within a multiple of the text.

use bytes::Bytes;
use prost::Message as _;
use proto::grpc::{Frame, FrameDecoder, FrameError, MESSAGE_BYTES_MAX, frame};
use proto::nacos::config::*;
use proto::nacos::naming::*;
use proto::nacos::remote::*;
use proto::nacos::{self, HEADERS_MAX, Message, Payload, PayloadError, wire};

use crate::alloc::bounded;
use crate::input::Input;

/// Bytes of memory for a byte of JSON: `{},` may become an [`Instance`] of some 250 bytes, and a list that
/// grows holds three times its elements for a moment.
const JSON_EXPANSION_MAX: usize = 320;

/// Bytes of memory for a byte of protobuf: an empty header of two bytes is kept as four numbers, and a
/// list that grows holds three times its elements for a moment.
const PAYLOAD_EXPANSION_MAX: usize = 64;

/// What any of it may take besides.
const SMALL: usize = 4 << 10;

/// See the module.
pub fn check(data: &[u8]) {
    stream(data);
    payload(data);
    json(data);
    made(data);
}

fn stream(data: &[u8]) {
    // Twice what has arrived (a message is gathered while its last chunk is still there), and what is
    // reserved for a message that has begun: never its announced length.
    let bound = 3 * data.len() + (64 << 10) + SMALL;
    let (whole, end) = bounded("frames", bound, || cut(data, data.len().max(1)));
    let size = 1 + usize::from(data.len() as u8 % 7);
    assert_eq!(cut(data, size), (whole.clone(), end), "pieces of {size}");
    for Frame { message, .. } in whole {
        assert!(message.len() <= MESSAGE_BYTES_MAX);
        payload(&message);
    }
}

fn cut(data: &[u8], size: usize) -> (Vec<Frame>, Option<FrameError>) {
    let mut decoder = FrameDecoder::default();
    let mut frames = Vec::new();
    for piece in data.chunks(size) {
        decoder.push(Bytes::copy_from_slice(piece));
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

fn payload(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let bound = PAYLOAD_EXPANSION_MAX * data.len() + SMALL;
    let ours = bounded("a payload", bound, || Payload::decode(bytes));
    if let Ok(ours) = &ours {
        // None of these may panic, whatever was taken.
        let headers = ours
            .headers()
            .filter(|(key, _)| ours.header(key).is_some())
            .count();
        assert!(headers <= HEADERS_MAX);
        json(ours.json());
    }
    let Ok(generated) = wire::Payload::decode(data) else {
        return;
    };
    let ours = match Payload::decode(generated.encode_to_vec().into()) {
        Ok(ours) => ours,
        Err(error) => return assert!(matches!(error, PayloadError::TooManyHeaders), "{error}"),
    };
    let metadata = generated.metadata.unwrap_or_default();
    assert_eq!(ours.type_name(), metadata.r#type);
    assert_eq!(ours.client_ip(), metadata.client_ip);
    let headers = ours
        .headers()
        .map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(
        headers.collect::<std::collections::BTreeMap<_, _>>(),
        metadata.headers
    );
    assert_eq!(ours.json(), generated.body.unwrap_or_default().value);
}

/// Reads a text as every message there is.
fn json(text: &[u8]) {
    // What is written is read again as itself. A macro, since the two borrow from different texts.
    macro_rules! come_back {
        ($($name:ident)*) => {$(
            if let Some(message) = read::<$name<'_>>(text) {
                let payload = written(&message);
                let again: $name<'_> = payload.read().expect("what is written is read");
                assert_eq!(again, message);
            }
        )*};
    }
    come_back! {
        ServerCheckRequest ConnectionSetupRequest SetupAckRequest HealthCheckRequest ClientDetectionRequest
        ConnectResetRequest PushAckRequest ServerCheckResponse ErrorResponse
        ConfigQueryRequest ConfigPublishRequest ConfigRemoveRequest ConfigBatchListenRequest
        ConfigChangeNotifyRequest ConfigFuzzyWatchRequest ConfigFuzzyWatchSyncRequest
        ConfigFuzzyWatchChangeNotifyRequest ClientConfigMetricRequest ConfigQueryResponse
        ConfigChangeBatchListenResponse
        ServiceQueryRequest SubscribeServiceRequest ServiceListRequest NamingFuzzyWatchRequest
        NamingFuzzyWatchSyncRequest NamingFuzzyWatchChangeNotifyRequest InstanceResponse ServiceListResponse
    }
    // Of a number with a point the last digit may come back as another.
    are_written::<InstanceRequest<'_>>(text);
    are_written::<PersistentInstanceRequest<'_>>(text);
    are_written::<BatchInstanceRequest<'_>>(text);
    are_written::<NotifySubscriberRequest<'_>>(text);
    are_written::<QueryServiceResponse<'_>>(text);
    if let Some(ack) = read::<Ack<'_>>(text) {
        let _ = ack.is_success();
    }
    // What clients say of themselves is any JSON, null included.
    drop(read::<ClientConfigMetricResponse<'_>>(text));
}

fn are_written<'a, M: Message + serde::Deserialize<'a>>(text: &'a [u8]) {
    if let Some(message) = read::<M>(text) {
        drop(written(&message));
    }
}

fn read<'a, M: serde::Deserialize<'a>>(text: &'a [u8]) -> Option<M> {
    let bound = JSON_EXPANSION_MAX * text.len() + SMALL;
    bounded("a message", bound, || nacos::read::<M>(text)).ok()
}

fn written<M: Message>(message: &M) -> Payload {
    let payload = Payload::decode(nacos::payload(message)).expect("what is written is a payload");
    assert_eq!(payload.type_name(), M::TYPE);
    let value = serde_json::from_slice(payload.json()).expect("with JSON in it");
    assert!(!has_null(&value), "{value}");
    payload
}

fn has_null(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Null => true,
        serde_json::Value::Array(items) => items.iter().any(has_null),
        serde_json::Value::Object(fields) => fields.values().any(has_null),
        _ => false,
    }
}

/// A request made of the input, as a client frames it, is what the server reads.
fn made(data: &[u8]) {
    let mut input = Input::new(data);
    let headers: Vec<(String, String)> = (0..input.below(4))
        .map(|_| (input.text(), input.text()))
        .collect();
    let headers: Vec<(&str, &str)> = headers.iter().map(|(key, value)| (&**key, &**value)).collect();
    let client_ip = input.text();
    let content = String::from_utf8_lossy(input.rest());
    let request = ConfigPublishRequest {
        content,
        ..Default::default()
    };
    let framed = nacos::request_frame(&request, &headers, &client_ip);
    let (frames, end) = cut(&framed, framed.len());
    assert_eq!((frames.len(), end), (1, None));
    let payload = Payload::decode(frames[0].message.clone()).expect("a payload");
    assert_eq!(payload.client_ip(), client_ip);
    assert_eq!(payload.headers().collect::<Vec<_>>(), headers);
    assert_eq!(
        payload.read::<ConfigPublishRequest<'_>>().expect("a request"),
        request
    );
}

/// Frames, payloads and texts as SDKs send them, and such as none does.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let check = nacos::request_frame(&ServerCheckRequest::default(), &[("AppName", "shop")], "10.0.0.7");
    let query = ConfigQueryRequest {
        data_id: "app.yaml".into(),
        group: "g".into(),
        ..Default::default()
    };
    let query = nacos::request_frame(&query, &[("accessToken", "t"), ("ACCESSTOKEN", "u")], "");
    let mut zipped = check.to_vec();
    zipped[0] = 1;
    let header = b"\x3a\x00".repeat(HEADERS_MAX + 1);
    let texts: [(&str, &str); 8] = [
        (
            "setup",
            r#"{"clientVersion":"Nacos-Java-Client:v3.0.3","tenant":null,"labels":{"source":"sdk","taskId":0},"abilityTable":{"fuzzyWatch":true},"clientAbilities":{"remoteAbility":{}}}"#,
        ),
        (
            "publish",
            r#"{"dataId":"a","group":"g","content":"k: v\n","casMd5":"","additionMap":{"type":"yaml","betaIps":"1.1.1.1"}}"#,
        ),
        (
            "listen",
            r#"{"listen":"true","configListenContexts":[{"dataId":"a","group":"g","tenant":"","md5":null},{},null]}"#,
        ),
        (
            "instance",
            r#"{"type":"registerInstance","serviceName":"s","instance":{"ip":"::1","port":"80","weight":0.5,"metadata":{"a":1}},"instances":[{},{"weight":"2"}]}"#,
        ),
        (
            "service",
            r#"{"serviceInfo":{"name":"s","hosts":[{"ip":"a","healthy":"False"}],"lastRefTime":1,"allIPs":true},"serviceNames":["a"],"count":1}"#,
        ),
        (
            "ack",
            r#"{"requestId":7,"resultCode":"200","success":false,"errorCode":0,"message":"\u0000"}"#,
        ),
        (
            "watch",
            r#"{"groupKeyPattern":"public>>*>>*","receivedGroupKeys":["a+b+c"],"contexts":[{"groupKey":"k","changedType":"ADD_CONFIG"}],"metricsKeys":[{"type":"t"}]}"#,
        ),
        (
            "doubled",
            r#"{"dataId":"a","dataId":null,"\u0064ataId":"b","headers":{"a":"1","a":"2"}}"#,
        ),
    ];
    let mut seeds = vec![
        ("seed-empty".to_owned(), Vec::new()),
        ("seed-two-frames".to_owned(), [&check[..], &query[..]].concat()),
        ("seed-compressed".to_owned(), zipped),
        (
            "seed-huge-length".to_owned(),
            b"\0\x00\xa0\x00\x00begins".to_vec(),
        ),
        ("seed-payload".to_owned(), query[5..].to_vec()),
        (
            "seed-many-headers".to_owned(),
            [b"\x12\x82\x04".as_slice(), &header].concat(),
        ),
        (
            "seed-unknown-fields".to_owned(),
            [b"\x08\x05\x4a\x02hi\x7b\x7c".as_slice(), &query[5..]].concat(),
        ),
        ("seed-http".to_owned(), frame(b"GET / HTTP/1.1\r\n\r\n").to_vec()),
    ];
    for (name, text) in texts {
        seeds.push((format!("seed-text-{name}"), text.as_bytes().to_vec()));
    }
    seeds
}
