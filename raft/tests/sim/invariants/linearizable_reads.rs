//! A read sees every write that was answered, and everything an earlier read saw, before it began
//! (Herlihy and Wing 1990; thesis §6.4; R9). With one log and reads that wait for an index, comparing
//! versions of the key decides this without a search.

use raft::Index;

use super::super::machine::KEYS_MAX;
use super::{Checked, Violation};

/// What every client has been told so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Told {
    /// Highest index of an answered write or a served read.
    pub(crate) index: Index,
    /// Highest version of each key in such an answer.
    pub(crate) versions: [u64; KEYS_MAX],
}

impl Told {
    /// A client was answered.
    pub(crate) fn tell(&mut self, key: u8, version: u64) {
        let known = &mut self.versions[usize::from(key)];
        *known = (*known).max(version);
    }

    /// An answer has shown this index.
    pub(crate) fn tell_index(&mut self, index: Index) {
        self.index = self.index.max(index);
    }
}

/// The core gave a reader this index; `before` is what clients knew when the reader asked.
pub(crate) fn index(before: &Told, index: Index) -> Checked {
    if index >= before.index {
        return Ok(());
    }
    let text = format!(
        "a reader is given index {index} after {} was shown to a client",
        before.index
    );
    Err(Violation::new("linearizable_reads", text))
}

/// A read is served with this version of its key.
pub(crate) fn served(before: &Told, key: u8, version: u64) -> Checked {
    let known = before.versions[usize::from(key)];
    if version >= known {
        return Ok(());
    }
    let text = format!("a read of key {key} sees version {version} after {known} was shown to a client");
    Err(Violation::new("linearizable_reads", text))
}
