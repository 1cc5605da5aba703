//! The window of appends under way to one peer, bounded by count and by bytes.

use std::collections::VecDeque;

use crate::types::Index;

/// Appends that were sent and not acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inflight {
    /// Last index and bytes of each append, ascending by index.
    appends: VecDeque<(Index, usize)>,
    /// Sum of the bytes in `appends`.
    bytes: usize,
}

impl Inflight {
    /// True when nothing more may be sent. One append always fits, however large.
    pub(crate) fn is_full(&self, count_max: usize, bytes_max: usize) -> bool {
        !self.appends.is_empty() && (self.appends.len() >= count_max || self.bytes >= bytes_max)
    }

    /// Appends under way.
    pub(crate) fn count(&self) -> usize {
        self.appends.len()
    }

    /// Their bytes.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// An append that ends at `last` was sent.
    ///
    /// # Panics
    /// When it does not end after the one before it.
    pub(crate) fn push(&mut self, last: Index, bytes: usize) {
        if let Some((previous, _)) = self.appends.back() {
            assert!(
                *previous < last,
                "append up to {last} sent after one up to {previous}"
            );
        }
        self.appends.push_back((last, bytes));
        self.bytes += bytes;
    }

    /// Everything up to `index` is acknowledged.
    pub(crate) fn free_to(&mut self, index: Index) {
        while let Some((last, bytes)) = self.appends.front() {
            if *last > index {
                break;
            }
            self.bytes -= bytes;
            self.appends.pop_front();
        }
    }

    /// Forgets all of them: they will be sent again, or not at all.
    pub(crate) fn clear(&mut self) {
        self.appends.clear();
        self.bytes = 0;
    }
}

/// The sizes of a contiguous run of entries whose sum is bounded: what is uncommitted, what is being
/// applied. Freed entry by entry from the front.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Index of the first size; meaningless while `sizes` is empty.
    first: Index,
    sizes: VecDeque<u32>,
    bytes: usize,
}

impl Sizes {
    /// Their sum.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// True when there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.sizes.is_empty()
    }

    /// The entry after the last one.
    pub(crate) fn push(&mut self, index: Index, bytes: usize) {
        if self.sizes.is_empty() {
            self.first = index;
        }
        assert!(
            index.0 == self.first.0 + self.sizes.len() as u64,
            "sizes must be contiguous"
        );
        // Entries are bounded far below 4 GiB; a saturated size only makes the limit stricter on paper.
        let size = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.sizes.push_back(size);
        self.bytes += size as usize;
    }

    /// Forgets everything up to `index`.
    pub(crate) fn free_to(&mut self, index: Index) {
        while let Some(size) = self.sizes.front() {
            if self.first > index {
                break;
            }
            self.bytes -= *size as usize;
            self.sizes.pop_front();
            self.first = self.first.next();
        }
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.sizes.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests;
