//! Wire types, and nothing else.
//!
//! The modules are generated from the `.proto` files beside this crate's `Cargo.toml`; the Rust code is
//! checked in, so a build needs no `protoc`. `proto/tests/generated.rs` compares and regenerates it.
//! This crate knows neither the raft core nor the server: they convert.

/// Commands of the replicated state machine, as they stand in the log: `command.proto`.
pub mod command {
    include!("generated/command.rs");
}
