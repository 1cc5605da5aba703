//! A Nacos-compatible configuration centre: the server as a library, so that tests and tools can start it
//! in their own process. The binary is `main.rs`; what the parts are and who may use whom stands in
//! docs/architecture.md, and `tests/tidy.rs` holds everybody to it.

pub mod api_code;
pub mod clock;
pub mod cluster;
pub mod cluster_cli;
pub mod config;
pub mod consensus;
pub mod discovery;
pub mod distro;
pub mod error;
pub mod grpc;
pub mod http;
pub mod metrics;
pub mod model;
pub mod namespace;
pub mod naming;
pub mod probe;
pub mod push;
pub mod recover_cli;
pub mod seeded;
pub mod server;
pub mod service;
pub mod settings;
pub mod shutdown;
pub mod state;
pub mod telemetry;
