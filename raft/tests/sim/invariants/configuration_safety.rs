//! Memberships change so that old and new majorities overlap (thesis §4.3), one change at a time, from
//! the append on and back on truncation (R5), and not before the leader has committed an entry of its
//! term (R4; the bug of single-server changes, raft-dev 2015).

use std::sync::Arc;

use raft::{Configuration, Entry, Index, Persist, SnapshotMeta, Term};

use super::super::machine::decode_configuration;
use super::{Checked, Violation};

/// The memberships of one node's log as submitted, from its base on; the last one is in force.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memberships {
    entries: Vec<(Index, Arc<Configuration>)>,
}

impl Memberships {
    /// As found on the disk.
    pub(crate) fn recovered(found: &[(Index, Configuration)]) -> Memberships {
        let entries = found
            .iter()
            .map(|(index, configuration)| (*index, Arc::new(configuration.clone())));
        Memberships {
            entries: entries.collect(),
        }
    }

    /// In force; `None` while no membership is known.
    pub(crate) fn in_force(&self) -> Option<&Arc<Configuration>> {
        self.entries.last().map(|(_, configuration)| configuration)
    }

    /// Where the one in force was appended.
    pub(crate) fn index(&self) -> Index {
        self.entries.last().map_or(Index(0), |(index, _)| *index)
    }

    /// The newest ones, newest first.
    pub(crate) fn newest(&self) -> impl Iterator<Item = &Configuration> {
        self.entries
            .iter()
            .rev()
            .take(3)
            .map(|(_, configuration)| &**configuration)
    }

    /// Every one that is remembered, oldest first.
    pub(crate) fn all(&self) -> Vec<(Index, Configuration)> {
        let all = self.entries.iter();
        all.map(|(index, configuration)| (*index, (**configuration).clone()))
            .collect()
    }

    /// A write is submitted; its entries follow one by one in [`Memberships::append`].
    pub(crate) fn submit(&mut self, persist: &Persist) {
        if let Some(meta) = &persist.reset_to {
            self.reset(meta);
        }
        if let Some(from) = persist.truncate_from {
            self.entries.retain(|(index, _)| *index < from);
        }
    }

    fn reset(&mut self, meta: &SnapshotMeta) {
        self.entries = vec![(meta.last.index, Arc::new(meta.configuration.clone()))];
    }

    /// A membership entry was appended. Returns the index of the one before it.
    pub(crate) fn append(&mut self, entry: &Entry) -> Result<Index, Violation> {
        let next = decode_configuration(&entry.payload);
        let before = self.index();
        if let Some(previous) = self.in_force() {
            follows(previous, &next)?;
        }
        if self.entries.len() > 8 {
            self.entries.remove(0);
        }
        self.entries.push((entry.index(), Arc::new(next)));
        Ok(before)
    }

    /// What the core reports must be what its log says.
    pub(crate) fn reported(&self, configuration: &Configuration) -> Checked {
        if self
            .in_force()
            .is_some_and(|in_force| **in_force == *configuration)
        {
            return Ok(());
        }
        let text = format!("reported {configuration:?}, the log says {:?}", self.in_force());
        Err(Violation::new("configuration_safety", text))
    }
}

/// A leader appended a membership at the end of its log: the one before must be committed, and so must an
/// entry of its own term.
pub(crate) fn appended_by_leader(
    term: Term,
    before: Index,
    commit: Index,
    commit_term: Option<Term>,
) -> Checked {
    if before > commit {
        let text = format!("a change is appended while the one at {before} is not committed ({commit})");
        return Err(Violation::new("configuration_safety", text));
    }
    if commit_term.is_some_and(|commit_term| commit_term != term) {
        let text = format!("a change in term {term} before an entry of it is committed ({commit})");
        return Err(Violation::new("configuration_safety", text));
    }
    Ok(())
}

/// `next` may stand after `previous` in a log.
fn follows(previous: &Configuration, next: &Configuration) -> Checked {
    let legal = match (previous.outgoing.is_empty(), next.outgoing.is_empty()) {
        (true, true) => previous.voters.symmetric_difference(&next.voters).count() <= 1,
        (true, false) => next.outgoing == previous.voters,
        (false, true) => next.voters == previous.voters,
        (false, false) => next.voters == previous.voters && next.outgoing == previous.outgoing,
    };
    let named = next
        .voters
        .iter()
        .chain(&next.outgoing)
        .all(|id| next.members.contains_key(id));
    let same = next.members.values().all(|member| {
        previous
            .members
            .get(&member.id)
            .is_none_or(|before| before.incarnation == member.incarnation)
    });
    if legal && named && same && !next.voters.is_empty() {
        return Ok(());
    }
    let text = format!("{next:?} may not follow {previous:?}");
    Err(Violation::new("configuration_safety", text))
}
