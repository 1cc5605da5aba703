//! What clients ask of the registry over HTTP, and what comes of it: on this node or, forwarded, on the
//! responsible one.

use std::sync::Arc;

use crate::model::{Endpoint, ServiceKey};
use crate::naming::{Delta, Instance, Kind, Origin, Stamp};

/// An act of a client whose instance is kept alive by beats.
#[derive(Clone, Debug, PartialEq)]
pub struct Act {
    /// In this service.
    pub service: ServiceKey,
    /// On this instance.
    pub endpoint: Endpoint,
    /// What.
    pub what: What,
}

/// What a client does.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// Registers, or says something new.
    Register {
        /// What it says.
        instance: Arc<Instance>,
        /// Whether it takes traffic.
        healthy: bool,
    },
    /// Goes.
    Deregister,
    /// Goes, and has named no cluster: from the one of the place or, if it is not there, from whatever it is in.
    DeregisterAnywhere,
    /// Says that it lives.
    Beat {
        /// What a full beat says of the instance; `None` for a light one.
        full: Option<Arc<Instance>>,
    },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// It was done.
    Yes,
    /// The beat is taken.
    Beat {
        /// When the next one is asked for, ms.
        interval_ms: u64,
    },
    /// No such instance, and the beat was light: the client registers.
    UnknownBeat,
    /// The service holds instances of the other kind.
    WrongKind(Kind),
    /// The registry is full; nothing was done.
    Full,
    /// The node that was asked cannot answer for it (it begins, or its time stood still); nothing was done.
    NotHere,
}

/// An act on its way to the responsible node.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Names it among those of its stream.
    pub id: u64,
    /// The sender's logical time when it was asked.
    pub asked: Stamp,
    /// The highest stamp of the instance that the sender knows.
    pub above: Stamp,
    /// The act.
    pub act: Act,
}

/// The answer on its way back.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// Whose answer.
    pub id: u64,
    /// What came of it.
    pub done: Done,
    /// What the node that did it says of the instance now, and who that is: whoever asked shows it at once. `None`
    /// where nothing has changed.
    pub word: Option<(Origin, Delta)>,
}

/// What travels on a stream of acts, either way.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// Asks.
    Request(Request),
    /// Answers.
    Reply(Reply),
}
