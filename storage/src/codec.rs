//! The log record: the bytes of an entry on the disk and between nodes.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | version, 1 |
//! | 1 | 1 | kind ([`raft::EntryKind::as_byte`]) |
//! | 2 | 4 | length of the payload, little-endian |
//! | 6 | 8 | index |
//! | 14 | 8 | term |
//! | 22 | 4 | checksum of the entry before |
//! | 26 | 4 | checksum of this entry: crc32 over kind, length, index, term, previous, payload |
//! | 30 | n | payload |
//!
//! The checksum is the core's own ([`raft::Entry::is_intact`]): it is made once, by the leader, and
//! neither disk nor wire ever makes another one. crc32 finds every flipped bit; the version byte is
//! outside of it and has one valid value.

use bytes::{BufMut, Bytes};
use raft::{Checksum, Entry, EntryId, EntryKind, Index, Term};

/// The only version of a record so far.
pub const VERSION: u8 = 1;

/// Bytes of a record before its payload.
pub const HEADER_BYTES: usize = 30;

/// Largest payload a record may claim. The core's limit for entries is lower (12 MiB by default); this
/// one only keeps a damaged length from being believed.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 20;

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Fewer bytes than a record of this length has.
    #[error("the record is cut off: {have} of {need} bytes")]
    Short {
        /// Bytes there.
        have: usize,
        /// Bytes needed.
        need: usize,
    },
    /// Written by another version, or damaged.
    #[error("record version {0} is not known")]
    Version(u8),
    /// No such kind.
    #[error("entry kind {0} is not known")]
    Kind(u8),
    /// A length beyond [`PAYLOAD_BYTES_MAX`].
    #[error("the record claims {0} bytes, more than any record has")]
    Length(usize),
    /// The checksum does not fit.
    #[error("the checksum of entry {0} does not fit its bytes")]
    Checksum(Index),
    /// An entry of another place, or not linked to the one before it.
    #[error("entry {found} is not linked to entry {before}")]
    Chain {
        /// The entry found.
        found: Index,
        /// The one before it.
        before: Index,
    },
}

/// Bytes that [`encode`] appends for this entry.
pub fn encoded_len(entry: &Entry) -> usize {
    HEADER_BYTES + entry.payload.len()
}

/// Appends the record of `entry`.
pub fn encode(entry: &Entry, out: &mut impl BufMut) {
    assert!(
        entry.payload.len() <= PAYLOAD_BYTES_MAX,
        "an entry of {} bytes",
        entry.payload.len()
    );
    let mut head = [0u8; HEADER_BYTES];
    {
        let mut head = &mut head[..];
        head.put_u8(VERSION);
        head.put_u8(entry.kind.as_byte());
        head.put_u32_le(entry.payload.len() as u32);
        head.put_u64_le(entry.id.index.0);
        head.put_u64_le(entry.id.term.0);
        head.put_u32_le(entry.previous.0);
        head.put_u32_le(entry.checksum.0);
    }
    out.put_slice(&head);
    out.put_slice(&entry.payload);
}

/// Reads the record at the start of `bytes`: the entry and how many bytes it took. The payload shares
/// the memory of `bytes`.
///
/// # Errors
/// Whatever the bytes are, the answer is an intact entry or a [`CodecError`].
pub fn decode(bytes: &Bytes) -> Result<(Entry, usize), CodecError> {
    let head = Head::read(bytes)?;
    let end = HEADER_BYTES + head.length;
    if bytes.len() < end {
        return Err(CodecError::Short {
            have: bytes.len(),
            need: end,
        });
    }
    let entry = head.entry(bytes.slice(HEADER_BYTES..end));
    if !entry.is_intact() {
        return Err(CodecError::Checksum(entry.id.index));
    }
    Ok((entry, end))
}

/// As [`decode`], from borrowed bytes; copies the payload, and only once the record is known to be
/// there in full.
///
/// # Errors
/// As [`decode`].
pub fn decode_slice(bytes: &[u8]) -> Result<(Entry, usize), CodecError> {
    let head = Head::read(bytes)?;
    let end = HEADER_BYTES + head.length;
    let Some(payload) = bytes.get(HEADER_BYTES..end) else {
        return Err(CodecError::Short {
            have: bytes.len(),
            need: end,
        });
    };
    let entry = head.entry(Bytes::copy_from_slice(payload));
    if !entry.is_intact() {
        return Err(CodecError::Checksum(entry.id.index));
    }
    Ok((entry, end))
}

/// The fields before the payload.
struct Head {
    kind: EntryKind,
    length: usize,
    id: EntryId,
    previous: Checksum,
    checksum: Checksum,
}

impl Head {
    fn read(bytes: &[u8]) -> Result<Head, CodecError> {
        let Some((head, _)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Err(CodecError::Short {
                have: bytes.len(),
                need: HEADER_BYTES,
            });
        };
        let mut fields = Fields(head);
        let version = fields.u8();
        if version != VERSION {
            return Err(CodecError::Version(version));
        }
        let kind = fields.u8();
        let kind = EntryKind::from_byte(kind).ok_or(CodecError::Kind(kind))?;
        let length = fields.u32() as usize;
        if length > PAYLOAD_BYTES_MAX {
            return Err(CodecError::Length(length));
        }
        let index = Index(fields.u64());
        let term = Term(fields.u64());
        let previous = Checksum(fields.u32());
        let checksum = Checksum(fields.u32());
        Ok(Head {
            kind,
            length,
            id: EntryId { term, index },
            previous,
            checksum,
        })
    }

    fn entry(self, payload: Bytes) -> Entry {
        Entry {
            id: self.id,
            kind: self.kind,
            payload,
            previous: self.previous,
            checksum: self.checksum,
        }
    }
}

/// Little-endian fields off the front of a slice. What is missing reads as zero: callers check lengths
/// first, and a checksum afterwards.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk::<N>() {
            Some((head, rest)) => {
                self.0 = rest;
                *head
            }
            None => {
                self.0 = &[];
                [0; N]
            }
        }
    }

    pub(crate) fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.take())
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    pub(crate) fn u128(&mut self) -> u128 {
        u128::from_le_bytes(self.take())
    }

    /// The next `n` bytes, or `None` when there are fewer.
    pub(crate) fn bytes(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }
}
