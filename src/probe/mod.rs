//! Checks of persistent instances: is anybody there? (Nacos: health check; contract 03 §8.)
//!
//! ```text
//!   applier ──what the replicated state says──▶ Plan (a value: what is due, what was found)
//!                                                │ due              ▲ found
//!                                                ▼                  │
//!                              Guard (may it be asked at all?) ─▶ ask (TCP, HTTP)
//!                                                │
//!                                                └─ changes of health, in batches ─▶ the log
//! ```
//!
//! A check goes out from the node that is responsible for the service, to where somebody who may register
//! instances has pointed it. So it is off unless an operator turns it on, asks nothing of this machine and
//! its links ([`Guard`]), follows no redirect, reads one line, and a node has 64 under way at most.
//!
//! What is not in here: who is responsible, how the log is reached (both are handed in), what readers see.

mod ask;
mod guard;
mod plan;
mod runner;

pub use ask::Asker;
pub use guard::Guard;
pub use plan::{Found, Place, Plan, Probe};
pub use runner::{Allowed, Parts, Probes, Report, UNDER_WAY_MAX};

#[cfg(test)]
mod tests;
