//! One address in several clusters of a service.
//!
//! In Nacos a client over HTTP is an address, and has one instance in a service: who registers in another cluster
//! has moved there, and who goes without naming a cluster goes from wherever it is (contract 00 §2.3). Here the cluster
//! is a part of an instance's name, because connections keep what they like; so the rule is kept by these acts.

use crate::model::{Endpoint, ServiceKey};

use super::record::{Owner, Record};
use super::registry::{Event, Kind, Registry};
use super::service::Entry;

impl Registry {
    /// Where the instance of an address is, of whoever names no cluster: there, or else in whatever clusters of the
    /// service it has one of this kind, kept by beats or by the log. Never empty: for what is not known it is the place itself.
    pub fn wherever(&self, service: &ServiceKey, there: &Endpoint, kind: Kind) -> Vec<Endpoint> {
        let is_of_kind = |entry: &Entry| match kind {
            Kind::Ephemeral => {
                let beats = |record: &Record| record.is_live() && record.owner == Owner::Beats;
                entry.winner().is_some_and(Record::is_live) && entry.records.iter().any(beats)
            }
            Kind::Persistent => entry.persistent.is_some(),
        };
        if self.entry(service, there).is_some_and(is_of_kind) {
            return vec![there.clone()];
        }
        let others = self.in_other_clusters(service, there);
        let found = others.filter(|(_, entry)| is_of_kind(entry));
        let found: Vec<Endpoint> = found.map(|(endpoint, _)| endpoint.clone()).collect();
        if found.is_empty() {
            vec![there.clone()]
        } else {
            found
        }
    }

    /// Persistent instances of the address in other clusters of the service.
    pub fn persistent_elsewhere(&self, service: &ServiceKey, here: &Endpoint) -> Vec<Endpoint> {
        let others = self.in_other_clusters(service, here);
        let persistent = others.filter(|(_, entry)| entry.persistent.is_some());
        persistent.map(|(endpoint, _)| endpoint.clone()).collect()
    }

    /// A client over HTTP takes its instance away, known or not. What connections keep alive is theirs (contract 05 §2.4):
    /// it stays, and those of this node, if they had to be covered, are asked to prove that they live
    /// ([`Event::Covered`]), as those of other nodes are there.
    pub fn leave(&mut self, now_ms: u64, service: &ServiceKey, endpoint: &Endpoint) {
        let me = self.me;
        let records = self.entry(service, endpoint).map(|entry| entry.records.iter());
        let live: Vec<&Record> = records
            .into_iter()
            .flatten()
            .filter(|record| record.is_live())
            .collect();
        let is_connected = live.iter().any(|record| record.owner != Owner::Beats);
        let beats_there = live
            .iter()
            .any(|record| record.owner == Owner::Beats && record.origin != me);
        if !is_connected {
            self.deregister(now_ms, service, endpoint);
        } else if beats_there {
            self.cover(now_ms, service, endpoint);
            let asked = self
                .entry(service, endpoint)
                .map_or_else(Vec::new, |entry| self.own_connections(entry));
            self.events.extend(asked.into_iter().map(Event::Covered));
        } else {
            self.remove_own(now_ms, service, endpoint, &Owner::Beats);
        }
    }

    /// A client that beats has registered here: what it had in other clusters of the service is gone. What a connection
    /// keeps alive is that connection's.
    pub fn move_here(&mut self, now_ms: u64, service: &ServiceKey, here: &Endpoint) {
        let beats_alone = |entry: &Entry| {
            let mut live = entry.records.iter().filter(|record| record.is_live());
            entry.winner().is_some_and(Record::is_live) && live.all(|record| record.owner == Owner::Beats)
        };
        let others = self.in_other_clusters(service, here);
        let left = others.filter(|(_, entry)| beats_alone(entry));
        let left: Vec<Endpoint> = left.map(|(endpoint, _)| endpoint.clone()).collect();
        for endpoint in left {
            self.deregister(now_ms, service, &endpoint);
        }
    }

    /// Costs what the address has, not what the service has: places are sorted by address, then by cluster.
    fn in_other_clusters<'a>(
        &'a self,
        service: &ServiceKey,
        here: &'a Endpoint,
    ) -> impl Iterator<Item = (&'a Endpoint, &'a Entry)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let same = |place: &(&Endpoint, &Entry)| place.0.ip == here.ip && place.0.port == here.port;
        let entries = self.services.get(service).map(|service| &service.entries);
        entries.into_iter().flat_map(move |entries| {
            let below = entries.range::<Endpoint, _>((Unbounded, Excluded(here)));
            let above = entries.range::<Endpoint, _>((Excluded(here), Unbounded));
            let below = below.rev().take_while(same);
            below.chain(above.take_while(same))
        })
    }
}
