//! Configs: a domain of pure values.
//!
//! - [`Entry`] is what readers of a config need, made ready once per write; [`Gray`] is a variant that
//!   only some clients see; [`History`] tells what was there before.
//! - [`change`] says what a publish or a removal does to what is there. It is a function of its arguments
//!   alone, so every node that applies the same log comes to the same configs.
//! - [`Store`] is the view that readers share: the newest applied configs, in memory.
//! - [`Query`] selects from it.
//! - [`Seen`] is what a client says that it has of one.
//!
//! Nothing in here knows of the log, the tables, HTTP or gRPC. `crate::state` applies commands by calling
//! [`change`], writes the result into the tables and then shows it to readers.

pub mod change;
mod entry;
pub mod gray;
mod history;
mod search;
mod seen;
mod store;
mod versions;

pub use change::{Edit, Expectation, Origin, Publish, Removal, Variant};
pub use entry::{ConfigId, Detail, Entry, Labels};
pub use gray::{Client, Gray, GrayError, GrayRule, GrayVersions, RuleKind};
pub use history::{History, HistoryId, Operation};
pub use search::{Pattern, Query};
pub use seen::Seen;
pub use store::{Selected, Store};
pub use versions::Versions;
