//! What one node says about one instance.

use std::sync::Arc;

use crate::model::{Endpoint, ServiceKey};

use super::instance::Instance;
use super::own::RecordId;
use super::stamp::Stamp;

/// What is digested of a record is no longer than this, nearly always.
const DIGESTED_BYTES: usize = 320;

/// A node since one of its starts. It alone changes the records that carry its name, so there is one
/// writer per record and nothing to merge. Nobody adopts the records of its own earlier boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The node's id.
    pub node: u64,
    /// Rises with every beginning of naming on that node.
    pub boot: u64,
}

/// Counts the changes of an origin, from 1. No two changes of one origin share one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// What keeps a record alive.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// Beats over HTTP. A tombstone has this owner too.
    Beats,
    /// A gRPC connection of the origin, by its id: while it lives, so do its records.
    Connection(Arc<str>),
}

/// Names a record among those of its origin.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey {
    /// The service.
    pub service: ServiceKey,
    /// The instance.
    pub endpoint: Endpoint,
    /// Who keeps it alive.
    pub owner: Owner,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// The instance is there.
    Live {
        /// What its client said.
        instance: Arc<Instance>,
        /// Beats come, or its client said so.
        healthy: bool,
    },
    /// The instance was deregistered: covers every record of it with a lower stamp.
    Tombstone {
        /// Time for which it is kept at least, ms: as long as a covered record could live on a node that
        /// has not heard of it, and some more.
        keep_ms: u64,
    },
}

/// One node's word on one instance.
#[derive(Clone, Debug)]
pub struct Record {
    /// Who says it.
    pub origin: Origin,
    /// Its place among the records of this node.
    pub(super) id: RecordId,
    /// What keeps it alive.
    pub owner: Owner,
    /// Of several records of one instance the highest stamp wins. Drawn by acts of clients alone, never by
    /// a timer: turning unhealthy must not beat what another node has just heard.
    pub stamp: Stamp,
    /// Rises with every change of the record, whoever caused it.
    pub revision: Revision,
    /// What it says.
    pub body: Body,
    /// When the last sign of life, or the tombstone, came to this node; monotonic ms of this node.
    pub heard_ms: u64,
    /// When the timer of an own record rings next, monotonic ms; an earlier or later ring is an old one.
    pub timer_ms: u64,
}

impl Record {
    /// True for a record that says the instance is there.
    pub fn is_live(&self) -> bool {
        matches!(self.body, Body::Live { .. })
    }

    /// The order in which records of one instance win; the same on every node.
    pub fn rank(&self) -> (Stamp, Origin, &Owner) {
        (self.stamp, self.origin, &self.owner)
    }

    /// A number that differs, all but surely, where anything that is replicated of two records differs.
    pub fn digest(&self, service: &ServiceKey, endpoint: &Endpoint) -> u64 {
        // Gathered first: hashing piece by piece costs five times as much.
        let mut bytes = Vec::with_capacity(DIGESTED_BYTES);
        // A length before each text, so that no two lists of texts look alike.
        let mut text = |text: &str| {
            bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        };
        text(service.namespace());
        text(service.grouped());
        text(&endpoint.ip);
        text(&endpoint.cluster);
        match &self.owner {
            Owner::Beats => text(""),
            Owner::Connection(id) => text(id),
        }
        if let Body::Live { instance, .. } = &self.body {
            for (name, value) in instance.metadata.iter() {
                text(name);
                text(value);
            }
        }
        let (flags, number) = match &self.body {
            Body::Live { instance, healthy } => (
                1 | u64::from(*healthy) << 1 | u64::from(instance.enabled) << 2,
                instance.weight.to_bits(),
            ),
            Body::Tombstone { keep_ms } => (0, *keep_ms),
        };
        let numbers = [
            u64::from(endpoint.port),
            self.stamp.0,
            self.revision.0,
            flags,
            number,
        ];
        for number in numbers {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        xxhash_rust::xxh3::xxh3_64(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::NamespaceId;

    #[test]
    fn digests_are_the_same_for_ever() {
        // Nodes of different versions compare them.
        let service = ServiceKey::new(&NamespaceId::new("dev"), "g", "shop");
        let endpoint = Endpoint::new("10.0.0.1", 8_080, "c");
        let record = |owner, body| Record {
            origin: Origin { node: 1, boot: 2 },
            id: RecordId::NONE,
            owner,
            stamp: Stamp(3),
            revision: Revision(4),
            body,
            heard_ms: 5,
            timer_ms: 6,
        };
        let instance = Arc::new(Instance {
            weight: 2.5,
            enabled: true,
            metadata: [("a", "x".repeat(400))].into_iter().collect(),
        });
        let live = Body::Live {
            instance,
            healthy: true,
        };
        let live = record(Owner::Connection("17_1.2.3.4_5".into()), live);
        let tombstone = record(Owner::Beats, Body::Tombstone { keep_ms: 7 });
        let digests = [live, tombstone].map(|record| record.digest(&service, &endpoint));
        assert_eq!(digests, EXPECTED);
    }

    const EXPECTED: [u64; 2] = [1_529_057_447_967_296_417, 16_826_917_015_780_965_578];
}
