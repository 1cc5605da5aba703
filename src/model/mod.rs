//! The nouns that every part of the server shares: names, ids, small values, and the rules for them.
//!
//! Nothing in here does I/O, reads a clock or knows who asks. Names are validated at the edge
//! ([`validate`]) and carried as types from there on; the types themselves accept any text, so that a
//! lookup of nonsense is a miss and not an error.

mod ascii;
mod config_key;
mod config_type;
mod endpoint;
mod md5;
mod named;
mod namespace_id;
mod operation_id;
mod page;
mod service_key;
mod subnet;
pub mod validate;

pub use ascii::{HttpDate, Md5Hex};
pub use config_key::ConfigKey;
pub use config_type::ConfigType;
pub use endpoint::Endpoint;
pub use md5::Md5;
pub use named::Named;
pub use namespace_id::NamespaceId;
pub use operation_id::OperationId;
pub use page::{Page, PageRequest};
pub use service_key::ServiceKey;
pub use subnet::{Subnet, WrongSubnet};
