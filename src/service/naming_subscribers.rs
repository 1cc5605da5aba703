//! Who watches a service, as operators see it.

use serde::{Deserialize, Serialize};

use super::Services;
use crate::clock;
use crate::metrics::PushState;
use crate::model::ServiceKey;

/// Somebody who is told of changes of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Subscriber {
    /// Its address.
    pub ip: String,
    /// Where it is told over UDP; over gRPC the port from which it came.
    pub port: u16,
    /// For example `Nacos-Java-Client:v2.5.1`.
    pub agent: String,
    /// Name of its application; may be empty.
    pub app: String,
    /// Clusters it asked for, separated by commas; empty: all.
    pub clusters: String,
    /// Its id among clients of the registry.
    pub id: String,
}

impl Subscriber {
    /// About what it takes on the way to another node.
    fn cost_bytes(&self) -> usize {
        let texts = [&self.ip, &self.agent, &self.app, &self.clusters, &self.id];
        100 + texts.iter().map(|text| text.len()).sum::<usize>()
    }
}

/// Some of those who watch a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Watchers {
    /// How many there are.
    pub count: usize,
    /// The first of them, by address.
    pub first: Vec<Subscriber>,
}

/// Bytes of those of one service that a node tells of. A page behind them is empty.
const TOLD_BYTES_MAX: usize = 6 << 20;

impl Services {
    /// How many watch a service on this node, and the `first` of them by address.
    pub fn watchers(&self, service: &ServiceKey, first: usize) -> Watchers {
        let mut all = self.subscribers(service);
        let count = all.len();
        all.truncate(first);
        let mut bytes = 0;
        let fit = all.iter().take_while(|one| {
            bytes += one.cost_bytes();
            bytes <= TOLD_BYTES_MAX
        });
        let fit = fit.count();
        all.truncate(fit);
        Watchers { count, first: all }
    }

    /// Who watches a service on this node, in the order of their addresses.
    pub fn subscribers(&self, service: &ServiceKey) -> Vec<Subscriber> {
        let over_udp = self.udp_push.subscribers_of(clock::now(), service);
        let over_udp = over_udp.into_iter().map(|(target, who)| Subscriber {
            ip: target.address.ip().to_string(),
            port: target.address.port(),
            agent: who.agent.into(),
            app: who.app.into(),
            clusters: target.clusters.into(),
            id: format!("{}#true", target.address),
        });
        let over_grpc = self.naming_push.subscribers_of(service);
        let over_grpc = over_grpc.into_iter().map(|(session, clusters)| Subscriber {
            ip: session.who.ip.to_string(),
            port: session.who.port,
            agent: session.who.agent.to_string(),
            app: session.who.app.to_string(),
            clusters: clusters.map(|names| names.to_string()).unwrap_or_default(),
            id: session.who.id.to_string(),
        });
        let mut all: Vec<_> = over_udp.chain(over_grpc).collect();
        all.sort();
        all
    }

    /// What became of pushes of services, over gRPC and UDP. `reset` begins the average and the longest anew.
    pub fn push_state(&self, reset: bool) -> PushState {
        self.naming_push.metrics.state(reset)
    }

    /// How many watches there are on this node.
    pub fn subscriber_count(&self) -> usize {
        let (_clients, _services, watches) = self.naming_push.load();
        self.udp_push.count() + watches
    }
}
