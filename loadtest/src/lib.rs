//! Load against any Nacos-compatible server, and the pieces every black-box harness needs.
//!
//! Nothing here knows the server's code, only the wire types of `proto`: it is a program that is started
//! with environment variables, spoken to over HTTP/1.1 and gRPC and looked at through `/proc`. `jepsen` uses
//! the same pieces.
//!
//! - [`http`]: a client with one request in flight per connection and reused buffers, which says of
//!   every failure whether the request may have been carried out;
//! - [`grpc`]: a client registered as an SDK's is, on bare h2;
//! - [`process`]: child processes that die with their parent, whatever happens to it;
//! - [`ports`]: free HTTP/gRPC port pairs; [`procfs`]: CPU, memory and written bytes of a process;
//! - [`content`]: keys and contents that can be checked without being kept;
//! - [`metrics`]: what a server tells of itself;
//! - [`fanout`]: how soon listeners are told; [`sessions`]: many idle connections;
//! - [`footprint`]: memory and disk of a node that holds many configs;
//! - [`naming`]: instances, how soon subscribers are told of them, and what a hundred thousand of them take;
//! - [`run`]: closed and open loops; [`figures`]: what they measured, as text and as JSON;
//! - [`floor`]: the least a server can do, to compare with; [`peers`]: servers started by a description;
//!   [`compare`]: peers taking turns.

pub mod compare;
pub mod content;
pub mod fanout;
pub mod figures;
pub mod floor;
mod floor_grpc;
pub mod footprint;
pub mod grpc;
mod grpc_work;
pub mod http;
pub mod metrics;
pub mod naming;
pub mod peers;
pub mod ports;
pub mod process;
pub mod procfs;
pub mod run;
pub mod sessions;
mod stored;
pub mod traffic;
pub mod work;
