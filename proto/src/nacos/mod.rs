//! What Nacos SDKs and this server say to each other over gRPC: a protobuf envelope with JSON inside.
//!
//! [`Payload`] is the envelope: type name, headers, JSON. [`remote`], [`config`] and [`naming`] are the JSON
//! messages, one struct each, used in both directions: texts are borrowed from the received body when read
//! and from the caller when written. How they are read and written is told in [`message`].
//!
//! ```
//! use proto::nacos::{self, Message as _, Payload, Response as _, config};
//!
//! let frame = nacos::request_frame(
//!     &config::ConfigQueryRequest { data_id: "app.yaml".into(), group: "DEFAULT_GROUP".into(), ..Default::default() },
//!     &[("AppName", "shop")],
//!     "10.0.0.7",
//! );
//! let payload = Payload::decode(frame.slice(proto::grpc::PREFIX_BYTES..)).unwrap();
//! assert_eq!(payload.type_name(), config::ConfigQueryRequest::TYPE);
//! assert_eq!(payload.header("appname"), Some("shop"));
//! let request: config::ConfigQueryRequest<'_> = payload.read().unwrap();
//! let answer = config::ConfigQueryResponse {
//!     content: Some("a=1".into()),
//!     ..config::ConfigQueryResponse::ok().answering(request.request_id)
//! };
//! let frame = nacos::frame(&answer);
//! assert!(frame.ends_with(b"}"));
//! ```

use std::collections::BTreeMap;

pub mod config;
pub mod message;
pub mod naming;
mod payload;
pub mod remote;
mod value;

/// The generated envelope: `nacos_grpc_service.proto`.
pub mod wire {
    include!("../generated/nacos_grpc_service.rs");
}

pub use message::{Message, Response, Text, TextMap};
pub use payload::{
    HEADERS_MAX, Payload, PayloadError, ReadError, frame, frame_around, frame_with, payload, read,
    request_frame,
};
pub use value::{LIST_ITEMS_MAX, MAP_ENTRIES_MAX};

/// `resultCode` of a success.
pub const SUCCESS: i32 = 200;
/// `resultCode` of a failure.
pub const FAILURE: i32 = 500;

/// Error codes that stand in answers over gRPC.
pub mod code {
    /// The node is starting; also "config not found" in a query's answer.
    pub const STARTING: i32 = 300;
    /// See [`STARTING`]: the same number with another meaning in `ConfigQueryResponse`.
    pub const CONFIG_NOT_FOUND: i32 = 300;
    /// The connection is not registered; the client connects anew.
    pub const UNREGISTERED: i32 = 301;
    /// Nothing handles this type.
    pub const NO_HANDLER: i32 = 302;
    /// A parameter is missing or malformed; also "being changed" in a query's answer.
    pub const BAD_PARAMETER: i32 = 400;
    /// The right is missing.
    pub const NO_RIGHT: i32 = 403;
    /// Anything else, compare-and-set that lost included.
    pub const FAILED: i32 = 500;
    /// The body is not the message it says, or this source may not send it.
    pub const BAD_REQUEST: i32 = 502;
    /// Too many requests.
    pub const OVER_THRESHOLD: i32 = 503;
}
