//! Counters of the log writer, read by the metrics page while it works.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds of the sync time buckets, in microseconds; what is slower falls into one more bucket.
pub const SYNC_BUCKETS_US: [u64; 14] = [
    50, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200, 102_400, 409_600, 1_638_400,
];

/// Upper bounds of the batch size buckets, in entries; larger batches fall into one more bucket.
pub const BATCH_BUCKETS: [u64; 9] = [1, 2, 4, 8, 16, 64, 256, 1_024, 4_096];

/// A histogram: counts per bucket (not cumulative; the last one is "larger"), their number and sum.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    bounds: &'static [u64],
    buckets: [AtomicU64; N],
    sum: AtomicU64,
}

impl<const N: usize> Histogram<N> {
    fn new(bounds: &'static [u64]) -> Histogram<N> {
        assert!(bounds.len() + 1 == N, "a bucket per bound and one beyond");
        Histogram {
            bounds,
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            sum: AtomicU64::new(0),
        }
    }

    fn record(&self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Relaxed);
        }
        self.sum.fetch_add(value, Relaxed);
    }

    /// (upper bound, count) of each bucket; `None` is the one beyond all bounds.
    pub fn counts(&self) -> Vec<(Option<u64>, u64)> {
        let bounds = self.bounds.iter().copied().map(Some).chain([None]);
        bounds
            .zip(self.buckets.iter().map(|bucket| bucket.load(Relaxed)))
            .collect()
    }

    /// Sum of all values.
    pub fn sum(&self) -> u64 {
        self.sum.load(Relaxed)
    }
}

/// What the log writer has done since the start.
#[derive(Debug)]
pub struct WriterMetrics {
    /// Synced batches of the log.
    pub syncs: AtomicU64,
    /// Time of a commit (write, sync, memtable), in microseconds.
    pub sync_us: Histogram<15>,
    /// Persists completed.
    pub persists: AtomicU64,
    /// Entries written.
    pub entries: AtomicU64,
    /// Bytes of their records.
    pub bytes: AtomicU64,
    /// Entries per synced batch.
    pub batch_entries: Histogram<10>,
    /// Synced writes of the mark.
    pub mark_writes: AtomicU64,
    /// Free bytes on the volume, as last seen.
    pub free_bytes: AtomicU64,
    /// 1 after a failed write or sync.
    pub failed: AtomicU64,
    /// Last synced index.
    pub durable_index: AtomicU64,
    /// First index of the log.
    pub first_index: AtomicU64,
}

impl WriterMetrics {
    pub(crate) fn new() -> WriterMetrics {
        WriterMetrics {
            syncs: AtomicU64::new(0),
            sync_us: Histogram::new(&SYNC_BUCKETS_US),
            persists: AtomicU64::new(0),
            entries: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            batch_entries: Histogram::new(&BATCH_BUCKETS),
            mark_writes: AtomicU64::new(0),
            free_bytes: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            durable_index: AtomicU64::new(0),
            first_index: AtomicU64::new(0),
        }
    }

    pub(crate) fn batch(&self, entries: u64, bytes: u64, took: Duration) {
        self.syncs.fetch_add(1, Relaxed);
        self.sync_us
            .record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        self.entries.fetch_add(entries, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
        self.batch_entries.record(entries);
    }
}
