//! The gRPC port: SDKs and peers share it.
//!
//! ```text
//!  TCP -> listener -> session (one task a connection, HTTP/2)
//!                        |- /rnacos.cluster.Peer/*            -> cluster::Door
//!                        `- conversation (one a connection)
//!                             |- /Request/request             -> dispatch -> handlers -> service
//!                             `- /BiRequestStream/...         -> stream -> connection::Registry
//!                                                                            ^ push, detection
//! ```
//!
//! - [`listener`]: accepts and limits connections; `session` is the loop of one, `line` what others may know
//!   of it and order.
//! - `conversation`: a client's connection: unary requests in the order the contract wants (01 §2.10).
//! - `stream`: a client's stream registers it, brings acknowledgements, carries pushes.
//! - [`connection`]: registered clients, and what handlers keep for each until it goes.
//! - [`push`], `outbox`: pushes and their acknowledgements; a client that does not read is *busy* and holds
//!   nobody up.
//! - [`dispatch`]: the table of types; `handlers`: its rows.
//! - `moving`: asking clients to go to another node; `metering`: asking them what they hold.
//! - [`tls`]: the certificate, and its renewal.
//! - `detection`: clients that are silent or stuck. `readiness`: when clients are served at all.
//!
//! It must not know what a config is: that is in `handlers`, which call services.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)
)]

mod body;
pub mod connection;
mod conversation;
mod detection;
pub mod dispatch;
mod gateway;
mod handlers;
pub mod line;
pub mod listener;
mod metering;
mod moving;
mod outbox;
pub mod push;
mod session;
mod stream;
pub mod tls;

pub use connection::{Client, Registry, Setup};
pub use gateway::{Gateway, counters};
pub use line::Line;
pub use listener::{BindError, Guest, Handler, Limits, Listener, Unimplemented};
pub use push::PushError;

#[cfg(test)]
mod tests;
