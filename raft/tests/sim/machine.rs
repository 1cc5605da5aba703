//! The replicated state machine of the simulated cluster: a few registers with version numbers, the
//! sessions that make an operation happen once (R16, R17, R48), and a digest over everything applied.
//!
//! Deterministic: it sees the entry and its own state, nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use raft::{Checksum, Configuration, Entry, EntryId, EntryKind, LogBase};

use super::bug::SimBug;

/// Results kept per session; the window of the proposer is the same, so an operation that still waits
/// for its answer is never below the watermark.
pub(crate) const WINDOW: u64 = 16;

/// Keys at most.
pub(crate) const KEYS_MAX: usize = 4;

/// Names an operation for ever: the node, its incarnation and boot, and a counter of that boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct OpId {
    pub(crate) node: u64,
    pub(crate) incarnation: u64,
    pub(crate) boot: u64,
    pub(crate) counter: u64,
}

/// A command of the state machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Opens the session of (incarnation, boot) and closes an earlier one of that node.
    Open(OpId),
    /// Writes a key. The state machine knows the write by `op`; the oracle by `stamp`, which no two writes
    /// of clients share even when the runtime makes a mistake with operation ids.
    Put { op: OpId, stamp: u64, key: u8 },
}

const COMMAND_BYTES: usize = 42;

impl Command {
    /// The payload, padded to `bytes` when that is more.
    pub(crate) fn encode(self, bytes: usize) -> Bytes {
        let (tag, op, stamp, key) = match self {
            Command::Open(op) => (1, op, 0, 0),
            Command::Put { op, stamp, key } => (2, op, stamp, key),
        };
        let mut out = Vec::with_capacity(bytes.max(COMMAND_BYTES));
        out.push(tag);
        for field in [op.node, op.incarnation, op.boot, op.counter, stamp] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.push(key);
        out.resize(bytes.max(COMMAND_BYTES), 0);
        Bytes::from(out)
    }

    /// The reverse; `None` for anything this module did not make.
    pub(crate) fn decode(payload: &[u8]) -> Option<Command> {
        if payload.len() < COMMAND_BYTES {
            return None;
        }
        let field = |at: usize| Some(u64::from_le_bytes(payload.get(at..at + 8)?.try_into().ok()?));
        let op = OpId {
            node: field(1)?,
            incarnation: field(9)?,
            boot: field(17)?,
            counter: field(25)?,
        };
        match payload[0] {
            1 => Some(Command::Open(op)),
            2 => Some(Command::Put {
                op,
                stamp: field(33)?,
                key: payload[41],
            }),
            _ => None,
        }
    }
}

/// What applying an entry did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A no-op.
    Nothing,
    /// The membership changed.
    Membership,
    /// The session is open now.
    Opened(OpId),
    /// An older or repeated open.
    OpenIgnored(OpId),
    /// The key has this version now.
    Written {
        op: OpId,
        stamp: u64,
        key: u8,
        version: u64,
    },
    /// Written before.
    Duplicate(OpId),
    /// Below the watermark or of a closed session: never applied.
    Unknown(OpId),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Session {
    incarnation: u64,
    boot: u64,
    /// Removed with its member. The row stays, so that a straggler of the session finds it closed.
    closed: bool,
    /// Below it nothing is applied any more.
    low: u64,
    /// Bit i: the counter `low + i` was applied.
    seen: u64,
}

/// The state of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    /// Last entry applied.
    pub(crate) applied: LogBase,
    /// Hash over the checksums of all entries applied, one after the other: an entry applied twice,
    /// left out or out of order shows for ever.
    pub(crate) digest: u64,
    /// Version of each key: how many writes it has seen.
    pub(crate) versions: [u64; KEYS_MAX],
    sessions: BTreeMap<u64, Session>,
    /// The membership at `applied`.
    pub(crate) configuration: Arc<Configuration>,
}

impl Machine {
    /// Applies the next entry.
    pub(crate) fn apply(&mut self, entry: &Entry, bug: Option<SimBug>) -> Outcome {
        self.applied = LogBase {
            id: entry.id,
            checksum: entry.checksum,
        };
        self.digest = (self.digest ^ u64::from(entry.checksum.0))
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .rotate_left(23);
        match entry.kind {
            EntryKind::Noop => Outcome::Nothing,
            EntryKind::Configuration => self.apply_configuration(&entry.payload),
            EntryKind::Command => match Command::decode(&entry.payload) {
                Some(Command::Open(op)) => self.open(op),
                Some(Command::Put { op, stamp, key }) => self.put(op, stamp, key, bug),
                None => Outcome::Nothing,
            },
        }
    }

    fn apply_configuration(&mut self, payload: &[u8]) -> Outcome {
        self.configuration = Arc::new(decode_configuration(payload));
        let members = &self.configuration.members;
        for (node, session) in &mut self.sessions {
            let member = members.get(&raft::NodeId(*node));
            if member.is_none_or(|member| member.incarnation.0 != session.incarnation) {
                session.closed = true;
            }
        }
        Outcome::Membership
    }

    fn open(&mut self, op: OpId) -> Outcome {
        let session = self.sessions.entry(op.node).or_default();
        if (op.incarnation, op.boot) <= (session.incarnation, session.boot) {
            return Outcome::OpenIgnored(op);
        }
        *session = Session {
            incarnation: op.incarnation,
            boot: op.boot,
            closed: false,
            low: 0,
            seen: 0,
        };
        Outcome::Opened(op)
    }

    fn put(&mut self, op: OpId, stamp: u64, key: u8, bug: Option<SimBug>) -> Outcome {
        if bug == Some(SimBug::NoDedup) {
            return self.write(op, stamp, key);
        }
        let Some(session) = self.sessions.get_mut(&op.node) else {
            return Outcome::Unknown(op);
        };
        let current = (session.incarnation, session.boot) == (op.incarnation, op.boot) && !session.closed;
        if !current || op.counter < session.low {
            if bug == Some(SimBug::DedupByHighest) && current {
                return Outcome::Duplicate(op);
            }
            return Outcome::Unknown(op);
        }
        if op.counter >= session.low + WINDOW {
            let low = op.counter + 1 - WINDOW;
            session.seen = session.seen.checked_shr((low - session.low) as u32).unwrap_or(0);
            session.low = low;
        }
        let bit = 1u64 << (op.counter - session.low);
        if session.seen & bit != 0 {
            return Outcome::Duplicate(op);
        }
        session.seen |= bit;
        if bug == Some(SimBug::DedupByHighest) {
            session.seen = 0;
            session.low = op.counter + 1;
        }
        self.write(op, stamp, key)
    }

    fn write(&mut self, op: OpId, stamp: u64, key: u8) -> Outcome {
        let version = &mut self.versions[usize::from(key) % KEYS_MAX];
        *version += 1;
        Outcome::Written {
            op,
            stamp,
            key,
            version: *version,
        }
    }

    /// The bytes of a snapshot. The membership travels in its header.
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(256);
        let id = self.applied.id;
        for field in [
            id.term.0,
            id.index.0,
            u64::from(self.applied.checksum.0),
            self.digest,
        ] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        for version in self.versions {
            out.extend_from_slice(&version.to_le_bytes());
        }
        for (node, session) in &self.sessions {
            let closed = u64::from(session.closed);
            for field in [
                *node,
                session.incarnation,
                session.boot,
                closed,
                session.low,
                session.seen,
            ] {
                out.extend_from_slice(&field.to_le_bytes());
            }
        }
        Bytes::from(out)
    }

    /// The reverse of [`Machine::encode`].
    pub(crate) fn decode(bytes: &[u8], configuration: &Configuration) -> Machine {
        let mut words = bytes
            .chunks_exact(8)
            .map(|word| u64::from_le_bytes(word.try_into().expect("8 bytes")));
        let mut next = || words.next();
        let mut machine = Machine {
            configuration: Arc::new(configuration.clone()),
            ..Machine::default()
        };
        let mut head = || next().expect("the head of a snapshot");
        machine.applied.id = EntryId {
            term: raft::Term(head()),
            index: raft::Index(head()),
        };
        machine.applied.checksum = Checksum(head() as u32);
        machine.digest = head();
        for version in &mut machine.versions {
            *version = head();
        }
        while let Some(node) = next() {
            let mut field = || next().expect("a whole session");
            let (incarnation, boot, closed) = (field(), field(), field() == 1);
            let session = Session {
                incarnation,
                boot,
                closed,
                low: field(),
                seen: field(),
            };
            machine.sessions.insert(node, session);
        }
        machine
    }
}

/// A membership as it stands in an entry. The core made it, so it decodes.
pub(crate) fn decode_configuration(payload: &[u8]) -> Configuration {
    Configuration::decode(payload).expect("a configuration entry holds a configuration")
}
