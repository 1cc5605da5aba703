//! The gRPC port: SDKs and peers share it.
//!
//! [`listener`] accepts and limits connections and knows two kinds of answers: those of the peer door
//! (`crate::cluster::Door`), and those of a [`Handler`] for every other path.

pub mod listener;

pub use listener::{BindError, Connection, Handler, Limits, Listener, Unimplemented};
