//! A log entry and its place in the chain of checksums.

use bytes::Bytes;

use crate::types::{Checksum, EntryId, Index, Term};

/// What an entry carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// The empty entry a leader appends at the start of its term (thesis §6.4, paper §8).
    Noop,
    /// A command of the state machine; the core does not look inside.
    Command,
    /// A [`crate::Configuration`] in its own encoding; in force from the moment it is appended.
    Configuration,
}

impl EntryKind {
    /// The byte that stands for the kind on disk, on the wire and in the checksum.
    pub fn as_byte(self) -> u8 {
        match self {
            EntryKind::Noop => 0,
            EntryKind::Command => 1,
            EntryKind::Configuration => 2,
        }
    }

    /// The reverse of [`EntryKind::as_byte`].
    pub fn from_byte(byte: u8) -> Option<EntryKind> {
        match byte {
            0 => Some(EntryKind::Noop),
            1 => Some(EntryKind::Command),
            2 => Some(EntryKind::Configuration),
            _ => None,
        }
    }
}

/// An entry as it stands in the log. Made once, by the leader that appends it ([`Entry::seal`]);
/// every other node stores and passes on exactly these values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Term and position.
    pub id: EntryId,
    /// What the payload is.
    pub kind: EntryKind,
    /// The command or configuration; empty for a no-op.
    pub payload: Bytes,
    /// Checksum of the entry before this one (of the [`crate::LogBase`] for the first).
    pub previous: Checksum,
    /// Checksum of this entry, `previous` included: a chain.
    pub checksum: Checksum,
}

impl Entry {
    /// Bytes an entry takes besides its payload, on disk and on the wire, rounded up. Used by every
    /// limit that counts bytes, so that a million empty entries are not free.
    pub const OVERHEAD_BYTES: usize = 64;

    /// Makes the entry and its checksum.
    pub fn seal(id: EntryId, kind: EntryKind, payload: Bytes, previous: Checksum) -> Entry {
        let checksum = checksum(id, kind, &payload, previous);
        Entry {
            id,
            kind,
            payload,
            previous,
            checksum,
        }
    }

    /// True when the checksum is the one its fields ask for.
    pub fn is_intact(&self) -> bool {
        self.checksum == checksum(self.id, self.kind, &self.payload, self.previous)
    }

    /// Position in the log.
    pub fn index(&self) -> Index {
        self.id.index
    }

    /// Term of the leader that appended it.
    pub fn term(&self) -> Term {
        self.id.term
    }

    /// What the limits count for this entry.
    pub fn size_bytes(&self) -> usize {
        self.payload.len() + Entry::OVERHEAD_BYTES
    }
}

/// crc32 over kind, length, index, term, previous checksum (little-endian, in this order) and payload.
fn checksum(id: EntryId, kind: EntryKind, payload: &[u8], previous: Checksum) -> Checksum {
    let mut hasher = crc32fast::Hasher::new();
    let mut head = [0u8; 25];
    head[0] = kind.as_byte();
    head[1..5].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    head[5..13].copy_from_slice(&id.index.0.to_le_bytes());
    head[13..21].copy_from_slice(&id.term.0.to_le_bytes());
    head[21..25].copy_from_slice(&previous.0.to_le_bytes());
    hasher.update(&head);
    hasher.update(payload);
    Checksum(hasher.finalize())
}
