//! A connection takes back what it registered.

use std::sync::Arc;

use crate::model::{Endpoint, ServiceKey};

use super::record::{Body, Owner, Record};
use super::registry::{Event, Registry};

impl Registry {
    /// A connection takes its instance away, known or not.
    ///
    /// Of several that keep one instance alive each has its own say: while an SDK moves, its new connection
    /// registers what the old one still keeps (contract 05 §2.4). So
    /// 1. other connections of this node stay owners, but are asked to prove that they live
    ///    ([`Event::Covered`]): the old connection of the same client may be dead without a word;
    /// 2. what another node says stays if it is newer than what this connection said: the client has moved
    ///    there;
    /// 3. otherwise a tombstone covers it, whether or not it has been heard of here. It is the old connection of
    ///    the same client, on a node that may be gone or paused, and what was deregistered never comes back; a
    ///    connection that lives after all answers for itself over there.
    pub fn withdraw(
        &mut self,
        now_ms: u64,
        connection: &Arc<str>,
        service: &ServiceKey,
        endpoint: &Endpoint,
    ) {
        let owner = Owner::Connection(Arc::clone(connection));
        let me = self.me;
        let records = self
            .entry(service, endpoint)
            .map(|entry| entry.records.as_slice());
        let live = records
            .unwrap_or_default()
            .iter()
            .filter(|record| record.is_live());
        let (own, others): (Vec<&Record>, Vec<&Record>) =
            live.partition(|record| record.origin == me && record.owner == owner);
        let said = own.first().map(|record| record.stamp);
        let stays = others
            .iter()
            .any(|record| record.origin == me || said.is_some_and(|said| record.stamp > said));
        if stays {
            self.remove_own(now_ms, service, endpoint, &owner);
        } else if said.is_some() || !others.is_empty() {
            self.deregister(now_ms, service, endpoint);
        }
        let asked = self
            .entry(service, endpoint)
            .map_or_else(Vec::new, |entry| self.own_connections(entry));
        self.events.extend(asked.into_iter().map(Event::Covered));
    }

    /// Connections of this node that keep an instance alive.
    pub(super) fn own_connections(&self, entry: &super::service::Entry) -> Vec<Arc<str>> {
        let own = entry.records.iter().filter(|record| record.origin == self.me);
        own.filter_map(|record| match (&record.owner, &record.body) {
            (Owner::Connection(id), Body::Live { .. }) => Some(Arc::clone(id)),
            _ => None,
        })
        .collect()
    }
}
