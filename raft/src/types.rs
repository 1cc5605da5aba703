//! Ids, terms and indices. None of them is a bare integer in a signature.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// Id of a node, unique in its cluster, chosen by the operator (RNACOS_RAFT_NODE_ID). 0 is no node.
    NodeId
}
id! {
    /// A term of the raft paper (§5.1). 0 is before the first election.
    Term
}
id! {
    /// Position of an entry in the log. The first entry is 1; 0 is "before the log".
    Index
}
id! {
    /// Drawn at random when a node joins with an empty folder. The same id with another incarnation
    /// is another member: it has lost what the earlier one had promised.
    Incarnation
}
id! {
    /// Number of a start of one incarnation: raised and synced before the node sends anything.
    Boot
}
id! {
    /// Names a [`crate::Persist`]; strictly rising within one run.
    Token
}
id! {
    /// Names a reader that waits for a read index; never used twice, not even by another incarnation.
    ReadId
}
id! {
    /// Names a proposal towards its proposer; the core hands it back and gives it no other meaning.
    ProposalId
}
id! {
    /// Names a [`crate::Load`].
    LoadId
}

impl Index {
    /// The index after this one.
    pub fn next(self) -> Index {
        Index(self.0 + 1)
    }

    /// The index before this one; 0 stays 0.
    pub fn prev(self) -> Index {
        Index(self.0.saturating_sub(1))
    }
}

impl Term {
    /// The term after this one.
    pub fn next(self) -> Term {
        Term(self.0 + 1)
    }
}

/// Where an entry stands and who wrote it there: equal ids mean equal logs up to them (paper §5.3,
/// Log Matching).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct EntryId {
    /// Term of the leader that appended the entry.
    pub term: Term,
    /// Position in the log.
    pub index: Index,
}

impl EntryId {
    /// "At least as up-to-date" of the paper (§5.4.1): the later term wins, then the longer log.
    pub fn is_up_to_date_with(self, other: EntryId) -> bool {
        (self.term, self.index) >= (other.term, other.index)
    }
}

/// What must survive a crash besides the log: [`crate::Persist`] carries it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// Newest term this node has seen.
    pub term: Term,
    /// Whom it voted for in `term`.
    pub vote: Option<NodeId>,
    /// A lower bound of the commit index. Only an optimisation: it may be behind.
    pub commit: Index,
}

/// The point a log starts after: everything up to and including it is in the state (or a snapshot).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogBase {
    /// Last entry that is no longer in the log; default (0, 0) when the log begins at its beginning.
    pub id: EntryId,
    /// Checksum of that entry, so that the chain has something to hang on; 0 at the beginning.
    pub checksum: Checksum,
}

/// crc32 of an entry over its fields, its payload and the checksum of the entry before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Checksum(pub u32);

/// Room on the disk that holds the log, as the node's own watch reports it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Space {
    /// Above the reserve.
    #[default]
    Ample,
    /// Below the reserve: only essential proposals pass, followers do not append anything else.
    Low,
    /// Below a quarter of the reserve: nothing passes.
    Critical,
}
