//! What this node has changed, in the order in which it did: the source of all deltas.

use std::collections::{BTreeMap, BTreeSet};

use super::own::RecordId;
use super::record::{RecordKey, Revision};

/// Removals that are remembered at most. Beyond it the oldest are forgotten, and a peer that has not heard
/// of them is sent everything instead.
const GONE_MAX: usize = 100_000;

/// Of removals that are of no use any more so many are forgotten at a time.
const FORGET_COUNT: usize = 2_000;

/// Numbers of buckets of a digest: two thousand bytes confirm a million records.
pub const BUCKETS: usize = 256;

/// Where each record stands in the order of this node's changes: every record once, at its newest change.
///
/// So what a peer has not heard yet is what lies behind the revision it has confirmed, newest change per
/// record, and can never be more than there are records and removals. No queue per peer exists.
#[derive(Debug, Default)]
pub(super) struct Changes {
    newest: Revision,
    by_revision: BTreeMap<Revision, Change>,
    /// Which of them are removals.
    gone: BTreeSet<Revision>,
    /// Removals up to here may have been forgotten.
    forgotten: Revision,
}

/// The newest change of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Written; the registry has what it says.
    Written(RecordId),
    /// Removed. In a box: nearly all changes are of the other kind.
    Gone(Box<RecordKey>),
}

impl Changes {
    /// The newest change.
    pub(super) fn newest(&self) -> Revision {
        self.newest
    }

    /// Notes that a record was written, in the place of its change `before`.
    pub(super) fn written(&mut self, record: RecordId, before: Option<Revision>) -> Revision {
        if let Some(before) = before {
            self.by_revision.remove(&before);
        }
        self.newest.0 += 1;
        self.by_revision.insert(self.newest, Change::Written(record));
        self.newest
    }

    /// Notes that a record was removed.
    pub(super) fn removed(&mut self, key: RecordKey, before: Revision) {
        self.by_revision.remove(&before);
        self.newest.0 += 1;
        self.by_revision.insert(self.newest, Change::Gone(Box::new(key)));
        self.gone.insert(self.newest);
        if self.gone.len() > GONE_MAX
            && let Some(oldest) = self.gone.first().copied()
        {
            self.forget(oldest);
        }
    }

    /// Forgets removals that every peer has confirmed: some of them, if there are many.
    pub(super) fn confirmed(&mut self, by_all: Revision) {
        let confirmed: Vec<_> = self.gone.range(..=by_all).take(FORGET_COUNT).copied().collect();
        for revision in confirmed {
            self.forget(revision);
        }
    }

    fn forget(&mut self, revision: Revision) {
        self.by_revision.remove(&revision);
        self.gone.remove(&revision);
        self.forgotten = self.forgotten.max(revision);
    }

    /// What was changed behind `known`, in order; `None` if removals behind it have been forgotten.
    pub(super) fn behind(&self, known: Revision) -> Option<impl Iterator<Item = (Revision, &Change)>> {
        let after = Revision(known.0.saturating_add(1));
        (known >= self.forgotten).then(|| {
            let range = self.by_revision.range(after..);
            range.map(|(revision, change)| (*revision, change))
        })
    }

    /// Records that were written last behind `from` and not behind `through`, in order.
    pub(super) fn written_within(
        &self,
        from: Revision,
        through: Revision,
    ) -> impl Iterator<Item = (Revision, RecordId)> {
        let after = Revision(from.0.saturating_add(1)).min(through);
        let range = self.by_revision.range(after..=through);
        range.filter_map(move |(revision, change)| match change {
            Change::Written(id) if *revision > from => Some((*revision, *id)),
            _ => None,
        })
    }
}

/// A sum over the records of an origin, per bucket of services; order does not count, and adding a record
/// twice takes it away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest(Box<[u64; BUCKETS]>);

impl Default for Digest {
    fn default() -> Digest {
        Digest(Box::new([0; BUCKETS]))
    }
}

impl Digest {
    /// Adds a record, or takes it away.
    pub fn toggle(&mut self, bucket: usize, digest: u64) {
        if let Some(sum) = self.0.get_mut(bucket) {
            *sum ^= digest;
        }
    }

    /// The sums.
    pub fn sums(&self) -> &[u64; BUCKETS] {
        &self.0
    }

    /// Buckets in which the other one differs.
    pub fn differing(&self, sums: &[u64; BUCKETS]) -> Vec<usize> {
        let pairs = self.0.iter().zip(sums).enumerate();
        pairs
            .filter(|(_, (ours, theirs))| ours != theirs)
            .map(|(bucket, _)| bucket)
            .collect()
    }
}

/// The bucket of a service; the same on every node.
pub fn bucket_of(service: &crate::model::ServiceKey) -> usize {
    let hash = xxhash_rust::xxh3::xxh3_64(service.as_bytes());
    usize::try_from(hash % BUCKETS as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Endpoint, NamespaceId, ServiceKey};
    use crate::naming::record::Owner;

    fn key(port: u16) -> RecordKey {
        RecordKey {
            service: ServiceKey::new(&NamespaceId::default(), "g", "s"),
            endpoint: Endpoint::new("10.0.0.1", port, ""),
            owner: Owner::Beats,
        }
    }

    #[test]
    fn each_record_stands_at_its_newest_change() {
        let mut changes = Changes::default();
        let first = changes.written(RecordId(1), None);
        changes.written(RecordId(2), None);
        let again = changes.written(RecordId(1), Some(first));
        changes.removed(key(1), again);
        let all: Vec<_> = changes.behind(Revision(0)).unwrap().collect();
        assert_eq!(
            all,
            [
                (Revision(2), &Change::Written(RecordId(2))),
                (Revision(4), &Change::Gone(Box::new(key(1))))
            ]
        );
        assert_eq!(changes.behind(Revision(2)).unwrap().count(), 1);
        changes.confirmed(Revision(4));
        assert!(
            changes.behind(Revision(2)).is_none(),
            "who missed it hears everything"
        );
        assert_eq!(changes.behind(Revision(4)).unwrap().count(), 0);
    }

    #[test]
    fn removals_are_bounded() {
        let mut changes = Changes::default();
        for _ in 0..GONE_MAX + 5 {
            let revision = changes.written(RecordId(1), None);
            changes.removed(key(1), revision);
        }
        assert_eq!(changes.by_revision.len(), GONE_MAX);
        assert!(changes.behind(Revision(9)).is_none());
        assert!(changes.behind(Revision(10)).is_some());
    }
}
