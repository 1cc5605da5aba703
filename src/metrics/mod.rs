//! What the server tells of itself in numbers: [`names`] lists every family, [`Page`] writes the text
//! form, [`Histogram`], [`Http`], [`Grpc`] and [`Push`] are the counters of the hot paths.
//!
//! Cursors and queues are not copied into metrics when they change; they are read from their owners when
//! somebody asks (`service::metrics`).

mod grpc;
mod histogram;
mod http;
pub mod names;
pub mod process;
mod push;
mod render;

pub use grpc::{Grpc, Pushes};
pub use histogram::{Buckets, Histogram};
pub use http::Http;
pub use push::{NamingPush, Push, PushState};
pub use render::{Label, Page};
