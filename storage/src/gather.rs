//! Rows that were applied and are not in fjall yet, with what views that look at them still need.
//!
//! A gather is written by one owner, commit after commit, until it is sealed; from then on it is only read,
//! and goes when its rows are stored. Each row carries the number of the commit that wrote it. While a
//! view is open, a row that it may see is kept behind the newer one; otherwise a newer row takes the
//! place of the older one, so that what changes often is stored once.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;

/// Bytes a row takes beside its key and value, roughly: its place in the map and two allocations.
const ROW_OVERHEAD_BYTES: usize = 160;

/// Bytes a commit counts for by itself, so that commits without rows are stored some day, too: the log is
/// kept until they are.
pub(crate) const COMMIT_OVERHEAD_BYTES: usize = 64;

/// A key and what it holds now; `None` for a row that was removed.
pub(crate) type Change = (Bytes, Option<Bytes>);

/// Rows of a run of commits.
#[derive(Debug, Default)]
pub(crate) struct Gather {
    rows: RwLock<Rows>,
}

#[derive(Debug, Default)]
struct Rows {
    /// By whole key, the table's byte first. Hashed: nearly all of them are only put and looked up.
    map: HashMap<Bytes, Row>,
    /// Keys of the tables that were scanned, in order; kept up from their first scan on.
    ordered: HashMap<u8, BTreeSet<Bytes>>,
    /// Bytes of all rows, older ones that views need included.
    bytes: usize,
    /// Views that are open, and at which commit the newest of them stands.
    views: usize,
    newest_view: u64,
}

#[derive(Debug)]
struct Row {
    /// The commit that wrote it.
    commit: u64,
    /// `None`: removed.
    value: Option<Bytes>,
    /// What views of earlier commits see.
    older: Option<Box<Row>>,
}

impl Row {
    /// The row as it was after `commit`.
    fn at(&self, commit: u64) -> Option<&Row> {
        let mut row = self;
        while row.commit > commit {
            row = row.older.as_deref()?;
        }
        Some(row)
    }

    fn size_bytes(&self) -> usize {
        self.value.as_ref().map_or(0, Bytes::len)
    }
}

impl Rows {
    fn put(&mut self, commit: u64, key: Bytes, value: Option<Bytes>) {
        let added = value.as_ref().map_or(0, Bytes::len);
        self.bytes += added;
        let is_seen = |row: &Row| self.views > 0 && row.commit <= self.newest_view;
        match self.map.entry(key) {
            Entry::Occupied(mut slot) => {
                let row = slot.get_mut();
                let older = if is_seen(row) {
                    self.bytes += ROW_OVERHEAD_BYTES;
                    let older = row.older.take();
                    Some(Box::new(Row {
                        commit: row.commit,
                        value: row.value.take(),
                        older,
                    }))
                } else {
                    self.bytes -= row.size_bytes();
                    row.older.take()
                };
                *row = Row { commit, value, older };
            }
            Entry::Vacant(slot) => {
                let key = slot.key();
                self.bytes += key.len() + ROW_OVERHEAD_BYTES;
                let scanned = key.first().and_then(|table| self.ordered.get_mut(table));
                if let Some(keys) = scanned {
                    keys.insert(key.clone());
                }
                slot.insert(Row {
                    commit,
                    value,
                    older: None,
                });
            }
        }
    }

    fn change(&self, key: &Bytes, commit: u64) -> Option<Change> {
        let row = self.map.get(key)?.at(commit)?;
        Some((key.clone(), row.value.clone()))
    }

    /// The rows of a scanned table whose keys begin with `prefix`.
    fn with_prefix(&self, keys: &BTreeSet<Bytes>, prefix: &[u8], commit: u64) -> Vec<Change> {
        keys.range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(|key| key.starts_with(prefix))
            .filter_map(|key| self.change(key, commit))
            .collect()
    }
}

impl Gather {
    /// Room for as many rows as this one has: the next one will have about as many.
    pub(crate) fn next(&self) -> Gather {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        let map = HashMap::with_capacity(rows.map.len());
        Gather {
            rows: RwLock::new(Rows {
                map,
                ..Rows::default()
            }),
        }
    }

    /// Writes the rows of a commit, in their order: a later one on the same key wins. Commits rise.
    ///
    /// Gives the bytes gathered so far.
    pub(crate) fn put(&self, commit: u64, changes: Vec<Change>) -> usize {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in changes {
            rows.put(commit, key, value);
        }
        rows.bytes += COMMIT_OVERHEAD_BYTES;
        rows.bytes
    }

    /// What this gather says of a key after `commit`: nothing, or its value, or that it was removed.
    pub(crate) fn get(&self, key: &[u8], commit: u64) -> Option<Option<Bytes>> {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        let row = rows.map.get(key)?.at(commit)?;
        Some(row.value.clone())
    }

    /// The changes of keys that begin with `prefix`, ascending; all of them for an empty one.
    pub(crate) fn with_prefix(&self, prefix: &[u8], commit: u64) -> Vec<Change> {
        let Some(&table) = prefix.first() else {
            return self.all(commit);
        };
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(keys) = rows.ordered.get(&table) {
            return rows.with_prefix(keys, prefix, commit);
        }
        drop(rows);
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        let of_table = rows.map.keys().filter(|key| key.first() == Some(&table));
        let keys: BTreeSet<Bytes> = of_table.cloned().collect();
        let found = rows.with_prefix(&keys, prefix, commit);
        rows.ordered.insert(table, keys);
        found
    }

    /// All changes, ascending.
    pub(crate) fn all(&self, commit: u64) -> Vec<Change> {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        let keys = rows.map.keys();
        let mut changes: Vec<_> = keys.filter_map(|key| rows.change(key, commit)).collect();
        drop(rows);
        changes.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        changes
    }

    /// A view of what `commit`, the newest one, has left. Nobody may put anything meanwhile.
    pub(crate) fn view(self: &Arc<Self>, commit: u64) -> GatherView {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        rows.views += 1;
        rows.newest_view = commit;
        drop(rows);
        GatherView {
            gather: Arc::clone(self),
            commit,
        }
    }
}

/// A gather as one commit has left it. What it may see is kept as long as it lives.
#[derive(Debug)]
pub(crate) struct GatherView {
    gather: Arc<Gather>,
    commit: u64,
}

impl GatherView {
    /// As [`Gather::get`].
    pub(crate) fn get(&self, key: &[u8]) -> Option<Option<Bytes>> {
        self.gather.get(key, self.commit)
    }

    /// As [`Gather::with_prefix`].
    pub(crate) fn with_prefix(&self, prefix: &[u8]) -> Vec<Change> {
        self.gather.with_prefix(prefix, self.commit)
    }
}

impl Drop for GatherView {
    fn drop(&mut self) {
        let mut rows = self.gather.rows.write().unwrap_or_else(PoisonError::into_inner);
        rows.views -= 1;
    }
}

/// Two ascending lists of changes as one; `newer` wins.
pub(crate) fn merged(newer: Vec<Change>, older: Vec<Change>) -> Vec<Change> {
    if older.is_empty() {
        return newer;
    }
    let mut changes = newer;
    changes.extend(older);
    // Stable: of two on one key the newer one comes first, and stays.
    changes.sort_by(|a, b| a.0.cmp(&b.0));
    changes.dedup_by(|later, kept| later.0 == kept.0);
    changes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn key(table: u8, number: u8) -> Bytes {
        Bytes::copy_from_slice(&[table, number])
    }

    /// Views, scans and gets of random histories say what a map of each moment says.
    #[test]
    fn random_histories_look_like_maps() {
        for seed in 0..200u64 {
            let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut next = |below: u64| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random % below
            };
            let gather = Arc::new(Gather::default());
            let mut model: BTreeMap<Bytes, Option<Bytes>> = BTreeMap::new();
            let mut views: Vec<(GatherView, BTreeMap<Bytes, Option<Bytes>>)> = Vec::new();
            for commit in 1..60u64 {
                let mut changes = Vec::new();
                for _ in 0..next(6) {
                    let key = key(1 + next(2) as u8, next(12) as u8);
                    let value = (next(4) > 0).then(|| Bytes::from(vec![next(256) as u8; next(9) as usize]));
                    model.insert(key.clone(), value.clone());
                    changes.push((key, value));
                }
                gather.put(commit, changes);
                match next(6) {
                    0 => views.push((gather.view(commit), model.clone())),
                    1 if !views.is_empty() => drop(views.remove(next(views.len() as u64) as usize)),
                    _ => {}
                }
                for (view, was) in &views {
                    let all: Vec<_> = was.clone().into_iter().collect();
                    assert_eq!(view.with_prefix(&[]), all, "seed {seed}, commit {commit}");
                    let table: Vec<_> = all.into_iter().filter(|(key, _)| key[0] == 2).collect();
                    assert_eq!(view.with_prefix(&[2]), table, "seed {seed}, commit {commit}");
                    let probe = key(1, next(12) as u8);
                    assert_eq!(view.get(&probe), was.get(&probe).cloned(), "seed {seed}");
                }
            }
            assert_eq!(gather.all(u64::MAX), model.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_changes_often_takes_its_room_once() {
        let gather = Gather::default();
        let mut bytes = 0;
        for commit in 1..1_000 {
            bytes = gather.put(commit, vec![(key(1, 1), Some(Bytes::from(vec![7; 1_000])))]);
        }
        assert!(bytes < 2_000 + 1_000 * COMMIT_OVERHEAD_BYTES, "{bytes}");
    }

    #[test]
    fn of_two_gathers_the_newer_one_is_believed() {
        let newer = vec![(key(1, 1), None), (key(1, 3), Some(Bytes::from("n")))];
        let older = vec![
            (key(1, 1), Some(Bytes::from("o"))),
            (key(1, 2), Some(Bytes::from("o"))),
        ];
        let expected = vec![
            (key(1, 1), None),
            (key(1, 2), Some(Bytes::from("o"))),
            (key(1, 3), Some(Bytes::from("n"))),
        ];
        assert_eq!(merged(newer, older), expected);
    }
}
