//! What nodes say to each other about naming.

use std::sync::Arc;

use crate::model::ServiceKey;
use crate::naming::{BUCKETS, Batch, Bucket, Origin, RecordKey, Revision, Stamp, Times};

/// What a node holds of an origin.
#[derive(Clone, Debug, PartialEq)]
pub struct Heard {
    /// Whose records.
    pub origin: Origin,
    /// Up to which change.
    pub known: Revision,
    /// The newest change that is there; above `known` when it came before others.
    pub newest: Revision,
    /// Their digest.
    pub sums: Box<[u64; BUCKETS]>,
    /// How long ago the sender heard the origin last, ms, while it hears it. 0 from a node of an earlier version.
    pub silent_ms: u64,
    /// `None` while the sender hears the origin itself; else for how long nobody has, ms. It travels along,
    /// so that a grace is not begun again by whoever takes over the copies.
    pub absent_ms: Option<u64>,
}

/// A node that cannot tell what there is: it asks others, or nobody knew and it waits for clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lacks {
    /// Clients bring back what was known before, for so long from now on, ms; 0: it never held anything.
    pub awaits_ms: u64,
}

/// One message on the stream from a node to a peer.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// The first message of a stream.
    Hello {
        /// Who speaks.
        origin: Origin,
        /// What it knows of the peer: of which boot, and up to where.
        knows: Option<(Origin, Revision)>,
        /// It has nothing to give.
        lacks: Option<Lacks>,
    },
    /// Changes of the sender itself; one batch for all peers that are equally far.
    Changes(Arc<Batch>),
    /// The receiver's word on changes: it knows all up to here; after a refused batch, too.
    Known {
        /// Of whom.
        origin: Origin,
        /// Up to where.
        known: Revision,
        /// A batch was refused, or buckets took the place of changes: go on from there.
        go_on: bool,
    },
    /// What the sender holds, its own records first; a sign of life.
    Verify {
        /// Per origin.
        heard: Vec<Heard>,
        /// The sender's logical time.
        times: Times,
        /// As in [`Message::Hello`].
        lacks: Option<Lacks>,
        /// Removals that the receiver has not heard of are forgotten: it is to fetch what differs of the
        /// sender's own records, and to say then up to where it knows them.
        begin_again: bool,
    },
    /// A sign of life.
    Alive {
        /// The sender's logical time.
        times: Times,
    },
    /// Asks for a [`Message::Verify`] at once: the sender has lost a peer while it loads.
    Tell,
    /// Asks for all records of an origin in these buckets.
    Ask {
        /// Whose.
        origin: Origin,
        /// Which.
        buckets: Vec<usize>,
        /// What stands behind this record, of the only bucket that is asked for; `None`: from the first one on.
        after: Option<RecordKey>,
    },
    /// The answer, a page of a bucket at a time: the next one is to be asked for.
    Bucket(Bucket),
    /// Stamps of services that the sender shows in another way than before.
    Stamps(Vec<(ServiceKey, Stamp)>),
}
