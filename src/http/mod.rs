//! The HTTP door: adapters of the Nacos API over hyper.
//!
//! A request's way: `listener` takes the connection, `wire` its bytes, `connection` makes a
//! `Request` of them, `router` finds the row in [`routes`], the row's handler parses, calls
//! the service layer and renders. Handlers hold no business rules.

mod connection;
mod form;
mod limits;
mod listener;
mod login;
mod reply;
mod request;
mod router;
pub mod routes;
mod wire;

mod operation;
mod v1;
mod v2;

pub use listener::serve;

/// Counters for every route of the table.
pub fn counters() -> crate::metrics::Http {
    crate::metrics::Http::new(
        routes::ROUTES
            .iter()
            .map(|route| (route.verb.as_str(), route.path)),
    )
}
