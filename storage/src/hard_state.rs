//! The records of keyspace `hard`: term, vote, commit and boot; and the base of the log.
//!
//! They have a keyspace of their own: beside the indices, freeing the log's prefix could delete them or
//! be blocked by them.

use bytes::{BufMut, Bytes};
use raft::{Boot, Configuration, HardState, Index, LogBase, NodeId, Term};

use crate::codec::Fields;
use crate::log::log_base;

/// Term, vote and commit, and the boot that wrote them.
///
/// | offset | bytes | field |
/// |---|---|---|
/// | 0 | 1 | version, 1 |
/// | 1 | 8 | term |
/// | 9 | 8 | vote, 0 for none |
/// | 17 | 8 | commit |
/// | 25 | 8 | boot |
/// | 33 | 4 | crc32 of the bytes before |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HardRecord {
    pub(crate) hard_state: HardState,
    /// Newest boot that wrote this record. The mark decides; this one keeps boot numbers rising when
    /// the mark is lost.
    pub(crate) boot: Boot,
}

impl HardRecord {
    pub(crate) fn encode(self) -> Bytes {
        let mut out = Vec::with_capacity(37);
        out.put_u8(1);
        out.put_u64_le(self.hard_state.term.0);
        out.put_u64_le(self.hard_state.vote.map_or(0, |id| id.0));
        out.put_u64_le(self.hard_state.commit.0);
        out.put_u64_le(self.boot.0);
        seal(out)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<HardRecord> {
        let mut fields = Fields(unseal(bytes)?);
        if fields.0.len() != 33 || fields.u8() != 1 {
            return None;
        }
        let term = Term(fields.u64());
        let vote = fields.u64();
        let vote = (vote != 0).then_some(NodeId(vote));
        let commit = Index(fields.u64());
        Some(HardRecord {
            hard_state: HardState { term, vote, commit },
            boot: Boot(fields.u64()),
        })
    }
}

/// The entry before the first one of the log, and the membership in force there.
///
/// | offset | bytes | field |
/// |---|---|---|
/// | 0 | 1 | version, 1 |
/// | 1 | 8 | index |
/// | 9 | 8 | term |
/// | 17 | 4 | checksum of that entry |
/// | 21 | 8 | index since which the membership is in force |
/// | 29 | n | membership; empty when none is known |
/// | 29 + n | 4 | crc32 of the bytes before |
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BaseRecord {
    pub(crate) base: LogBase,
    pub(crate) membership: Option<(Index, Configuration)>,
}

impl BaseRecord {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(64);
        out.put_u8(1);
        put_base(&mut out, self.base);
        out.put_u64_le(self.membership.as_ref().map_or(0, |(since, _)| since.0));
        if let Some((_, configuration)) = &self.membership {
            out.put_slice(&configuration.encode());
        }
        seal(out)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<BaseRecord> {
        let mut fields = Fields(unseal(bytes)?);
        if fields.0.len() < 29 || fields.u8() != 1 {
            return None;
        }
        let base = take_base(&mut fields);
        let since = Index(fields.u64());
        let membership = match fields.0 {
            [] => None,
            bytes => Some((since, Configuration::decode(bytes).ok()?)),
        };
        Some(BaseRecord { base, membership })
    }
}

/// Index, term, checksum: 20 bytes.
pub(crate) fn put_base(out: &mut impl BufMut, base: LogBase) {
    out.put_u64_le(base.id.index.0);
    out.put_u64_le(base.id.term.0);
    out.put_u32_le(base.checksum.0);
}

pub(crate) fn take_base(fields: &mut Fields<'_>) -> LogBase {
    let index = fields.u64();
    let term = fields.u64();
    log_base(index, term, fields.u32())
}

/// Appends the crc32 of what is there.
pub(crate) fn seal(mut bytes: Vec<u8>) -> Bytes {
    let crc = crc32fast::hash(&bytes);
    bytes.put_u32_le(crc);
    bytes.into()
}

/// The bytes before a fitting crc32.
pub(crate) fn unseal(bytes: &[u8]) -> Option<&[u8]> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    (crc32fast::hash(body).to_le_bytes() == *crc).then_some(body)
}
