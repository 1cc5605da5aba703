//! Clients of the registry that are connected: what they register lives as long as their connection.

use std::sync::Arc;

use super::Services;
use super::naming::wrong_kind;
use crate::discovery::Discovery;
use crate::error::{Error, Result};
use crate::model::{Endpoint, Page, PageRequest, ServiceKey};
use crate::naming::Instance;
use crate::shutdown::Shutdown;

/// Instances that one connection keeps alive; a program that mirrors another registry has thousands.
pub const KEPT_MAX: usize = 100_000;
/// Instances of one batch: all of them are written under one lock, in about 2 µs each.
pub const BATCH_MAX: usize = 10_000;

/// A connection, as the registry knows it. Dropping it, as when the connection ends, takes what it
/// registered away.
///
/// NOTE: not when this node stops. Its clients are on their way to other nodes then and register there at
/// once; the copies that peers have are kept until they have done so (the grace for a node that is gone), so
/// that no subscriber sees a service without them in between.
#[derive(Debug)]
pub struct NamingClient {
    /// Names the connection among those of this node.
    id: Arc<str>,
    discovery: Arc<Discovery>,
    stopping: Shutdown,
}

impl Services {
    /// A connection that has registered nothing yet. No other may have its id as long as this lives.
    pub fn open_naming(&self, id: &Arc<str>) -> NamingClient {
        NamingClient {
            id: Arc::clone(id),
            discovery: Arc::clone(&self.discovery),
            stopping: self.stopping.clone(),
        }
    }

    /// A page of the services of a group, and how many there are, by their names.
    pub fn services_of_group(&self, like: &ServiceKey, page: PageRequest) -> Page<ServiceKey> {
        self.discovery.look(|registry, _| {
            let names = || registry.names_of_group(like);
            let items = names().skip(page.offset()).take(page.size).cloned();
            Page::new(page, names().count(), items.collect())
        })
    }
}

impl NamingClient {
    /// The connection says all that it keeps alive in a service; what it said before is replaced.
    ///
    /// # Errors
    /// The service holds persistent instances, or there is no room; nothing is changed then.
    pub fn register(&self, service: &ServiceKey, set: Vec<(Endpoint, Instance, bool)>) -> Result<()> {
        if set.len() > BATCH_MAX {
            return Err(Error::Invalid(format!(
                "a batch may have {BATCH_MAX} instances, not {}",
                set.len()
            )));
        }
        self.discovery.act(|registry, now_ms| {
            let room = Discovery::OWN_RECORDS_MAX.saturating_sub(registry.own_records());
            let own_room = KEPT_MAX.saturating_sub(registry.kept(&self.id));
            if set.len() > room.min(own_room) {
                // Unless it is there already: a redo finds its own.
                let known = |(endpoint, ..): &&(Endpoint, Instance, bool)| {
                    registry.instance(service, endpoint).is_some()
                };
                if set.len() - set.iter().filter(known).count() > room.min(own_room) {
                    return Err(Error::Overloaded(
                        "this node, or this connection, keeps as many instances as it may".to_owned(),
                    ));
                }
            }
            registry
                .register_set(now_ms, &self.id, service, set)
                .map_err(|wrong| wrong_kind(service.grouped(), wrong.holds))
        })
    }

    /// The connection takes an instance away, known or not.
    pub fn deregister(&self, service: &ServiceKey, endpoint: &Endpoint) {
        self.discovery
            .act(|registry, now_ms| registry.withdraw(now_ms, &self.id, service, endpoint));
    }
}

impl Drop for NamingClient {
    fn drop(&mut self) {
        if !self.stopping.has_begun() {
            self.discovery
                .act(|registry, now_ms| registry.disconnect(now_ms, &self.id));
        }
    }
}
