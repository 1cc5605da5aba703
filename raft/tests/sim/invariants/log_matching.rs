//! Log Matching (Raft paper, figure 3; §5.3): if two logs hold an entry with the same index and term,
//! they are the same up to it. The chain of checksums makes one comparison enough.
//!
//! Also keeps who holds which entry durably, for [`super::quorum_durability`].

use raft::{Entry, EntryId};

use super::{Uid, Violation, WordMap};

#[derive(Clone, Copy, Debug)]
struct Seen {
    checksum: u32,
    /// Members that had it durable while they were not suspect.
    holders: u64,
}

#[derive(Debug, Default)]
pub(crate) struct LogMatching {
    entries: WordMap<(u64, u64), Seen>,
}

impl LogMatching {
    /// A node has taken this entry into its log. True when nobody had before.
    pub(crate) fn taken(&mut self, entry: &Entry) -> Result<bool, Violation> {
        let checksum = entry.checksum.0;
        let mut fresh = false;
        let seen = self.entries.entry(key(entry.id)).or_insert_with(|| {
            fresh = true;
            Seen { checksum, holders: 0 }
        });
        if seen.checksum != checksum {
            let text = format!(
                "two different logs end in index {} term {}",
                entry.index(),
                entry.term()
            );
            return Err(Violation::new("log_matching", text));
        }
        Ok(fresh)
    }

    /// A member that is not suspect has this entry on its platter.
    pub(crate) fn is_durable(&mut self, entry: &Entry, uid: Uid) {
        if let Some(seen) = self.entries.get_mut(&key(entry.id)) {
            seen.holders |= uid.bit();
        }
    }

    /// Members that had it durable.
    pub(crate) fn holders(&self, id: EntryId) -> u64 {
        self.entries.get(&key(id)).map_or(0, |seen| seen.holders)
    }
}

fn key(id: EntryId) -> (u64, u64) {
    (id.index.0, id.term.0)
}
