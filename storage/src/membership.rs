//! The membership beside the log.
//!
//! The file `members` repeats the memberships the log holds (the one at its base and every later one
//! with its index). It is a copy for the day the log cannot be read: it tells whether this node is the
//! only voter *before* anything is repaired, and gives a log that must start anew its membership. The
//! log decides whenever it can be read.

use std::path::Path;

use bytes::BufMut;
use raft::{Configuration, Index, NodeId};

use crate::codec::Fields;
use crate::dir;
use crate::error::StorageError;
use crate::fault::Faults;

const MAGIC: &[u8; 8] = b"rnacosMB";

/// Memberships with the index each of them starts at, ascending.
pub(crate) type Memberships = Vec<(Index, Configuration)>;

/// True when `node` alone decides: no other voter could give back what it lost.
pub(crate) fn is_lone(memberships: &[(Index, Configuration)], node: NodeId) -> bool {
    memberships.last().is_some_and(|(_, newest)| {
        newest.voters.len() == 1
            && newest.voters.contains(&node)
            && newest.outgoing.iter().all(|id| *id == node)
    })
}

/// The membership in force at `index`: the newest that is not younger.
pub(crate) fn in_force_at(memberships: &[(Index, Configuration)], index: Index) -> Option<&Configuration> {
    memberships
        .iter()
        .rev()
        .find(|(start, _)| *start <= index)
        .map(|(_, configuration)| configuration)
}

/// Writes the file (a new one beside it, synced, renamed, folder synced).
pub(crate) fn store(
    path: &Path,
    memberships: &[(Index, Configuration)],
    faults: &Faults,
) -> Result<(), StorageError> {
    dir::replace_file(path, &encode_file(memberships), faults)
}

/// Reads the file; `None` when it is missing or damaged (it is a copy, not the truth).
pub(crate) fn load(path: &Path) -> Option<Memberships> {
    decode_file(&std::fs::read(path).ok()?)
}

fn encode_file(memberships: &[(Index, Configuration)]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.put_u32_le(memberships.len() as u32);
    for (index, configuration) in memberships {
        let bytes = configuration.encode();
        out.put_u64_le(index.0);
        out.put_u32_le(bytes.len() as u32);
        out.put_slice(&bytes);
    }
    let crc = crc32fast::hash(&out);
    out.put_u32_le(crc);
    out
}

fn decode_file(bytes: &[u8]) -> Option<Memberships> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    if !body.starts_with(MAGIC) || crc32fast::hash(body).to_le_bytes() != *crc {
        return None;
    }
    let mut fields = Fields(body.get(MAGIC.len()..)?);
    let count = fields.u32();
    let mut memberships = Memberships::new();
    for _ in 0..count {
        let index = Index(fields.u64());
        let length = fields.u32() as usize;
        memberships.push((index, Configuration::decode(fields.bytes(length)?).ok()?));
    }
    fields.0.is_empty().then_some(memberships)
}
