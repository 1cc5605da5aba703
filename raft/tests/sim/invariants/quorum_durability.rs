//! What is committed is durable on a majority that counts (R2; Raft paper §5.4; thesis §10.2.1: the
//! leader counts itself only after its own sync).

use raft::{Configuration, EntryId};

use super::log_matching::LogMatching;
use super::{Checked, Roll, Violation};

/// A leader gave this entry out to be applied, the first to do so. `configurations`: its membership in
/// force and the one before, whichever was in force at the moment of the commit.
pub(crate) fn check<'a>(
    roll: &Roll,
    logs: &LogMatching,
    id: EntryId,
    configurations: impl Iterator<Item = &'a Configuration>,
) -> Checked {
    let holders = logs.holders(id);
    let mut known = false;
    for configuration in configurations {
        if roll.is_quorum(configuration, holders) {
            return Ok(());
        }
        known = true;
    }
    if !known {
        return Ok(());
    }
    let text = format!("{id:?} is committed; members with it durable: {holders:#b}");
    Err(Violation::new("quorum_durability", text))
}
