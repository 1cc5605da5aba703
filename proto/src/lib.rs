//! Wire types, and nothing else.
//!
//! [`command`], [`cluster`], [`naming`] and [`tables`] are generated from the `.proto` files beside this crate's
//! `Cargo.toml`; the Rust code is checked in, so a build needs no `protoc`. `proto/tests/generated.rs`
//! compares and regenerates it. [`nacos`] holds what SDKs say: one generated envelope and, by hand, the
//! JSON messages inside; [`grpc`] is the framing around it.
//! This crate knows neither the raft core nor the server: they convert.

/// Commands of the replicated state machine, as they stand in the log: `command.proto`.
#[expect(
    missing_docs,
    clippy::large_enum_variant,
    reason = "generated; an envelope lives for one call"
)]
pub mod command {
    include!("generated/command.rs");
}

/// What nodes and operators say through the peer door: `cluster.proto`.
#[expect(missing_docs, reason = "generated; cluster.proto has the words")]
pub mod cluster {
    include!("generated/cluster.rs");
}

/// What nodes say to each other about naming: `naming.proto`.
#[expect(missing_docs, reason = "generated; naming.proto has the words")]
pub mod naming {
    include!("generated/naming.rs");
}

/// Rows of the replicated state's tables, as they lie on disk: `tables.proto`.
pub mod tables {
    include!("generated/tables.rs");
}

pub mod grpc;
pub mod nacos;
