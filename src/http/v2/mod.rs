//! API v2: `{code,message,data}`.

pub(super) mod client;
pub(super) mod health;
pub(super) mod loader;
pub(super) mod namespace;
pub(super) mod naming;
