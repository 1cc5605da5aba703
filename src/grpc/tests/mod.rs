//! The gRPC port with clients in memory and in virtual time: there are no sockets, so time moves only when
//! every task waits, and a test that waits 300 seconds takes none.

mod connecting;
mod encrypted;
mod pushing;
mod support;
mod wrong;

#[path = "../../../tests/grpc_client/mod.rs"]
mod client;
