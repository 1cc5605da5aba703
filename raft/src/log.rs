//! The log as the core sees it: where it starts, which terms it has, and its newest entries.
//!
//! ```text
//!   base          first cached        durable           last
//!    |--- on disk ----|--- on disk and in memory ---|--- in memory, being written ---|
//! ```
//!
//! Terms are kept as runs, one number pair per leader that wrote here, so any question about a term is
//! answered without the disk. Entries are kept while they are not durable, and beyond that up to a
//! limit in bytes; older ones come back through [`crate::Effects::load`].

use std::collections::VecDeque;

use bytes::Bytes;

use crate::entry::{Entry, EntryKind};
use crate::recovered::Recovered;
use crate::types::{Checksum, EntryId, Index, LogBase, Term};

/// Terms, cursors and newest entries of the log.
#[derive(Debug)]
pub(crate) struct Log {
    /// What the log starts after.
    base: LogBase,
    /// First index and term of each run of entries of one term, ascending in both.
    runs: VecDeque<(Index, Term)>,
    /// Last entry; the base's when there is none.
    last: EntryId,
    /// Checksum of the last entry: what the next one hangs on.
    last_checksum: Checksum,
    /// Last index known to be on the disk, at its present term. durable <= last; only a truncation
    /// or a restart after a snapshot lowers it.
    durable: Index,
    /// The newest entries, contiguous up to `last`; never lacks one that is not durable.
    cache: VecDeque<Entry>,
    /// Their sum by [`Entry::size_bytes`].
    cache_bytes: usize,
    /// Where the bytes of the log lie, for compaction.
    sizes: SizeMarks,
}

impl Log {
    /// The log that was found on the disk, all of it durable. `retained_bytes` is what an earlier run
    /// kept at most: the best guess at the size of entries nobody has looked at.
    pub(crate) fn new(recovered: &Recovered, retained_bytes: usize) -> Log {
        let base = recovered.base;
        let last = recovered.last;
        assert!(
            last.index >= base.id.index,
            "log ends at {} before its base {}",
            last.index,
            base.id.index
        );
        let runs = VecDeque::from(recovered.terms.clone());
        if last.index == base.id.index {
            assert!(last == base.id, "an empty log ends at its base");
            assert!(runs.is_empty(), "an empty log has no terms");
        } else {
            assert!(
                runs.front().is_some_and(|run| run.0 == base.id.index.next()),
                "runs start after the base"
            );
            assert!(
                runs.back().is_some_and(|run| run.1 == last.term),
                "the last run has the last term"
            );
        }
        assert!(
            runs.iter().is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1),
            "runs must ascend"
        );
        let mut sizes = SizeMarks::new(base.id.index, retained_bytes);
        sizes.assume(last.index, retained_bytes);
        Log {
            base,
            runs,
            last,
            last_checksum: recovered.last_checksum,
            durable: last.index,
            cache: VecDeque::new(),
            cache_bytes: 0,
            sizes,
        }
    }

    pub(crate) fn base(&self) -> LogBase {
        self.base
    }

    pub(crate) fn last(&self) -> EntryId {
        self.last
    }

    pub(crate) fn durable(&self) -> Index {
        self.durable
    }

    /// First index whose entry is in memory; the one after the last when none is.
    pub(crate) fn first_cached(&self) -> Index {
        self.cache.front().map_or(self.last.index.next(), Entry::index)
    }

    /// Term of the entry at `index`: known for the base and everything after it.
    pub(crate) fn term(&self, index: Index) -> Option<Term> {
        if index > self.last.index || index < self.base.id.index {
            return None;
        }
        if index == self.base.id.index {
            return Some(self.base.id.term);
        }
        // The newest run is asked for nearly always.
        if let Some((first, term)) = self.runs.back()
            && *first <= index
        {
            return Some(*term);
        }
        let after = self.runs.partition_point(|(first, _)| *first <= index);
        assert!(after > 0, "no run of terms holds index {index}");
        Some(self.runs[after - 1].1)
    }

    /// True when the log holds this very entry (or starts after it).
    pub(crate) fn holds(&self, id: EntryId) -> bool {
        self.term(id.index) == Some(id.term)
    }

    /// The last entry at or before `asked.index` whose term is not above `asked.term`: the furthest
    /// point up to which this log and one that holds `asked` can agree. One answer skips whole terms
    /// (paper §5.3, end). Never before the base.
    pub(crate) fn agreeable(&self, asked: EntryId) -> EntryId {
        let mut index = asked.index.min(self.last.index);
        for (first, term) in self.runs.iter().rev() {
            if *first > index {
                continue;
            }
            if *term <= asked.term {
                return EntryId { term: *term, index };
            }
            index = first.prev();
        }
        self.base.id
    }

    /// Makes the entry that comes next.
    pub(crate) fn seal_next(&self, term: Term, kind: EntryKind, payload: Bytes) -> Entry {
        Entry::seal(
            EntryId {
                term,
                index: self.last.index.next(),
            },
            kind,
            payload,
            self.last_checksum,
        )
    }

    pub(crate) fn append(&mut self, entry: Entry) {
        assert!(
            entry.index() == self.last.index.next(),
            "gap: last {} next {}",
            self.last.index,
            entry.index()
        );
        assert!(
            entry.term() >= self.last.term,
            "term {} after {}",
            entry.term(),
            self.last.term
        );
        assert!(
            entry.previous == self.last_checksum,
            "entry {} does not continue the chain",
            entry.index()
        );
        if entry.term() > self.last.term || self.runs.is_empty() {
            self.runs.push_back((entry.index(), entry.term()));
        }
        self.last = entry.id;
        self.last_checksum = entry.checksum;
        self.cache_bytes += entry.size_bytes();
        self.sizes.push(entry.index(), entry.size_bytes());
        self.cache.push_back(entry);
    }

    /// Forgets the entry at `from` and all after it. `previous` is the checksum of the entry before
    /// it, which the entry that replaces it carries; it is checked where the log still knows better.
    pub(crate) fn truncate_from(&mut self, from: Index, previous: Checksum) {
        assert!(
            from > self.base.id.index,
            "truncation at {from} reaches the base {}",
            self.base.id.index
        );
        assert!(from <= self.last.index, "nothing to truncate at {from}");
        let kept = from.prev();
        let term = self.term(kept).expect("the entry before a truncation exists");
        if let Some(known) = self.checksum(kept) {
            assert!(known == previous, "truncation at {from} hangs on another chain");
        }
        while let Some(entry) = self.cache.back() {
            if entry.index() < from {
                break;
            }
            self.cache_bytes -= entry.size_bytes();
            self.cache.pop_back();
        }
        while self.runs.back().is_some_and(|(first, _)| *first >= from) {
            self.runs.pop_back();
        }
        self.last = EntryId { term, index: kept };
        self.last_checksum = previous;
        self.durable = self.durable.min(kept);
        self.sizes.truncate_from(from);
    }

    /// Starts anew after a snapshot; `durable` says how much of what was there is still promised.
    pub(crate) fn reset(&mut self, base: LogBase, durable: Index) {
        self.base = base;
        self.last = base.id;
        self.last_checksum = base.checksum;
        self.runs.clear();
        self.cache.clear();
        self.cache_bytes = 0;
        self.durable = durable.min(base.id.index);
        self.sizes.reset(base.id.index);
    }

    /// Everything up to `index` is on the disk at its present term.
    pub(crate) fn persisted(&mut self, index: Index) {
        assert!(
            index <= self.last.index,
            "durable up to {index}, but the log ends at {}",
            self.last.index
        );
        self.durable = self.durable.max(index);
    }

    /// Forgets everything up to `base`, which must be on the disk.
    pub(crate) fn compact_to(&mut self, base: LogBase) {
        let index = base.id.index;
        assert!(
            index > self.base.id.index,
            "compaction to {index} from {}",
            self.base.id.index
        );
        assert!(
            index <= self.durable,
            "compaction to {index} beyond the durable {}",
            self.durable
        );
        assert!(
            self.holds(base.id),
            "compaction to an entry that is not in the log"
        );
        while self.cache.front().is_some_and(|entry| entry.index() <= index) {
            self.pop_oldest();
        }
        while self.runs.get(1).is_some_and(|(first, _)| *first <= index.next()) {
            self.runs.pop_front();
        }
        match self.runs.front_mut() {
            Some(_) if index == self.last.index => self.runs.clear(),
            Some(run) => run.0 = run.0.max(index.next()),
            None => {}
        }
        self.base = base;
        self.sizes.compact_to(index);
    }

    /// Where to cut so that `retained_bytes` stay before `limit`, as well as the sizes are known.
    pub(crate) fn cut_before(&self, limit: Index, retained_bytes: usize) -> Index {
        self.sizes
            .cut_before(limit.min(self.last.index), self.last.index, retained_bytes)
            .max(self.base.id.index)
    }

    /// Drops the oldest entries beyond the limit, as far as they are on the disk.
    pub(crate) fn evict(&mut self, cache_bytes_max: usize) {
        while self.cache_bytes > cache_bytes_max
            && self
                .cache
                .front()
                .is_some_and(|entry| entry.index() <= self.durable)
        {
            self.pop_oldest();
        }
    }

    /// Drops the entries up to `index`, as far as they are on the disk.
    pub(crate) fn forget(&mut self, index: Index) {
        let end = index.min(self.durable);
        while self.cache.front().is_some_and(|entry| entry.index() <= end) {
            self.pop_oldest();
        }
    }

    /// The entry at `index`, when it is in memory.
    pub(crate) fn cached(&self, index: Index) -> Option<&Entry> {
        let first = self.cache.front()?.index();
        let offset = usize::try_from(index.0.checked_sub(first.0)?).ok()?;
        self.cache.get(offset)
    }

    /// Entries from `from` up to before `end`, until `bytes_max` is reached, at least one; `None` when
    /// the first of them is not in memory.
    pub(crate) fn cached_from(&self, from: Index, end: Index, bytes_max: usize) -> Option<Vec<Entry>> {
        let first = self.cache.front()?.index();
        let start = usize::try_from(from.0.checked_sub(first.0)?).ok()?;
        let count = usize::try_from(end.0.saturating_sub(from.0)).ok()?;
        let mut bytes = 0;
        let mut entries = Vec::new();
        for entry in self.cache.range(start.min(self.cache.len())..).take(count) {
            bytes += entry.size_bytes();
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        Some(entries)
    }

    /// Checksum of the entry at `index`, when it can be told without the disk.
    pub(crate) fn checksum(&self, index: Index) -> Option<Checksum> {
        if index == self.last.index {
            return Some(self.last_checksum);
        }
        if index == self.base.id.index {
            return Some(self.base.checksum);
        }
        if let Some(entry) = self.cached(index) {
            return Some(entry.checksum);
        }
        // The oldest entry in memory knows its predecessor.
        self.cached(index.next()).map(|entry| entry.previous)
    }

    fn pop_oldest(&mut self) {
        if let Some(entry) = self.cache.pop_front() {
            self.cache_bytes -= entry.size_bytes();
        }
    }
}

/// Marks taken on one window's worth of retained bytes; between two of them positions are
/// interpolated, so a cut is right to about a hundredth of the window.
const MARKS_PER_WINDOW: u64 = 128;

/// How many bytes of log lie before which index, coarsely.
#[derive(Debug)]
struct SizeMarks {
    /// Index and bytes up to and including it, ascending in both; never empty.
    marks: VecDeque<(Index, u64)>,
    /// Bytes up to the last entry.
    total: u64,
    /// Bytes between two marks.
    step: u64,
}

impl SizeMarks {
    fn new(base: Index, retained_bytes: usize) -> SizeMarks {
        let step = (retained_bytes as u64 / MARKS_PER_WINDOW).max(1);
        SizeMarks {
            marks: VecDeque::from([(base, 0)]),
            total: 0,
            step,
        }
    }

    /// Entries up to `last` were found on the disk; they count as `bytes` together.
    fn assume(&mut self, last: Index, bytes: usize) {
        if self.marks.back().is_some_and(|mark| mark.0 < last) {
            self.total += bytes as u64;
            self.marks.push_back((last, self.total));
        }
    }

    fn push(&mut self, index: Index, bytes: usize) {
        self.total += bytes as u64;
        if self
            .marks
            .back()
            .is_none_or(|mark| self.total - mark.1 >= self.step)
        {
            self.marks.push_back((index, self.total));
        }
    }

    fn truncate_from(&mut self, from: Index) {
        while self.marks.len() > 1 && self.marks.back().is_some_and(|mark| mark.0 >= from) {
            self.marks.pop_back();
        }
        // What lay between the last mark and the cut is forgotten: less than a step.
        self.total = self.marks.back().map_or(0, |mark| mark.1);
    }

    fn compact_to(&mut self, index: Index) {
        while self.marks.get(1).is_some_and(|mark| mark.0 <= index) {
            self.marks.pop_front();
        }
    }

    fn reset(&mut self, base: Index) {
        self.total = 0;
        self.marks = VecDeque::from([(base, 0)]);
    }

    fn cut_before(&self, limit: Index, last: Index, retained_bytes: usize) -> Index {
        if retained_bytes == 0 {
            return limit;
        }
        let end = (last, self.total);
        let after = self.marks.partition_point(|mark| mark.0 <= limit);
        let left = self
            .marks
            .get(after.wrapping_sub(1))
            .copied()
            .unwrap_or((limit, 0));
        let right = self.marks.get(after).copied().unwrap_or(end);
        let at_limit = interpolate(limit.0, (left.0.0, left.1), (right.0.0, right.1));
        let Some(target) = at_limit.checked_sub(retained_bytes as u64) else {
            return Index(0);
        };
        let after = self.marks.partition_point(|mark| mark.1 <= target);
        if after == 0 {
            return Index(0);
        }
        let left = self.marks[after - 1];
        let right = self.marks.get(after).copied().unwrap_or(end);
        Index(interpolate(target, (left.1, left.0.0), (right.1, right.0.0))).min(limit)
    }
}

/// The height at `x` of the line through two points; the height of the left one where it is no line.
fn interpolate(x: u64, left: (u64, u64), right: (u64, u64)) -> u64 {
    if right.0 <= left.0 || x <= left.0 {
        return left.1;
    }
    let rise =
        u128::from(right.1.saturating_sub(left.1)) * u128::from(x - left.0) / u128::from(right.0 - left.0);
    left.1 + u64::try_from(rise).unwrap_or(0)
}

#[cfg(test)]
mod tests;
