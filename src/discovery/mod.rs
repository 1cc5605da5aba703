//! The running registry of this node: [`crate::naming`] and [`crate::distro`] are values, this is what gives
//! them time, a lock, peers and readers.
//!
//! ```text
//!   service::naming ──act, execute──▶ Discovery ◀──── links of peers (distro, forwarding)
//!        ▲   query: ready bytes          │ one mutex: registry, protocol, rendered answers
//!        │                               ├─ 100 ms: timers, digests, signs of life
//!     http, grpc                         └─ events ──▶ push
//! ```
//!
//! Every act holds the lock for microseconds and waits for nothing inside it; answers are rendered without it
//! (`reading`), and what is done for many is done in steps of a few milliseconds. [`Act`]s over HTTP go to the
//! responsible node (`forward`); what cannot be brought there within two seconds is done here.
//!
//! What is not in here: parameters and answers of protocols (`service`, `http`, `grpc`), who watches what
//! (`push`), rules of the registry (`naming`).

mod answers;
pub mod forward;
mod last_known;
mod network;
mod node;
mod reading;
mod reserve;
mod rows;
pub mod wire;

pub use answers::{CACHE_MS, Form, instance_id};
pub use forward::{Act, Done, What};
pub use network::LinkEnd;
pub use node::{Discovery, Figures, HangUp, OnEvents, Parts, Readiness, Rows};

#[cfg(test)]
mod tests;
