//! The promises of the storage, one file per kind of promise.

mod crash;
mod damage;
mod formation;
mod gathered;
mod golden;
mod outcomes;
mod recovery;
mod snapshot;
mod support;
