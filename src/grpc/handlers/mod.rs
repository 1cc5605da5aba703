//! Who answers which type of request. Adapters: they read, call a service, and write.

mod config;
mod fuzzy;
mod internal;
mod naming;

use super::dispatch::Row;

/// Every row of the table.
pub(super) fn rows() -> impl Iterator<Item = &'static Row> {
    let named = internal::ROWS.iter().chain(fuzzy::ROWS);
    named.chain(config::rows()).chain(naming::rows())
}
