//! Naming: a domain of pure values. Who is where, who says so, and what readers see.
//!
//! - [`Instance`] is what a client says of an instance; [`Record`] is what one node says about it, with a
//!   [`Stamp`] (which of several records counts) and a [`Revision`] (what a peer has heard already).
//! - Every node writes records of its own only, named by its [`Origin`]: there is one writer per record and
//!   nothing to merge. What readers see of an instance is the record with the highest stamp.
//! - [`Registry`] holds this node's records and the copies of all others. Its acts are what clients do, what
//!   time does, what peers send ([`Batch`], [`Bucket`]) and what the replicated state says (persistent
//!   instances, [`Overlay`]). What happened comes back as [`Event`]s.
//! - [`View`] is what a reader gets.
//!
//! Nothing in here reads a clock, waits or does I/O; times are monotonic milliseconds handed in. So a
//! simulation of many nodes is a loop over plain values.

mod bucket;
pub(crate) mod bugs;
mod changes;
mod checker;
mod expiry;
mod instance;
mod overlay;
mod own;
mod places;
mod publishers;
mod record;
mod registry;
mod replica;
mod replicated;
mod service;
mod services;
mod stamp;
mod view;
mod wheel;
mod withdraw;

pub use bucket::{Bucket, PAGE_COUNT};
pub use changes::{BUCKETS, Digest, bucket_of};
pub use checker::{Checker, HttpCheck, WrongChecker};
pub use instance::{BEAT_INTERVAL_MS, BEAT_TIMEOUT_MS, DELETE_TIMEOUT_MS, Instance, Metadata, preserved};
pub use overlay::{
    ClusterMetadata, InstanceOverride, MetadataPatch, Overlay, OverridePatch, ServiceMetadata,
};
pub use publishers::Publisher;
pub use record::{Body, Origin, Owner, Record, RecordKey, Revision};
pub use registry::{Beat, Event, Kind, Registry, WrongKind};
pub use replica::{Batch, Delta, Dropped, Refused};
pub use replicated::{Refusal, Replicated};
pub use service::{Persistent, Seen};
pub use stamp::{Clocks, Stamp, StampClock, Times};
pub use view::{Filter, Tally, View, Whole};

#[cfg(test)]
mod tests;
