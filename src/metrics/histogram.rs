//! A histogram that costs two atomic additions, no lock and no lookup.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds of the buckets in microseconds; one more bucket takes everything longer.
const BOUNDS_US: [u64; 18] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 30_000_000,
];

/// Durations by bucket.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    /// Counts one duration.
    pub fn observe(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.partition_point(|bound| *bound < us);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Relaxed);
        }
        self.sum_us.fetch_add(us, Relaxed);
    }

    /// Its numbers at this moment; those of different buckets may be some nanoseconds apart.
    pub fn read(&self) -> Buckets {
        Buckets {
            bounds: BOUNDS_US.iter().map(|us| *us as f64 / 1e6).collect(),
            counts: self.buckets.iter().map(|count| count.load(Relaxed)).collect(),
            sum: self.sum_us.load(Relaxed) as f64 / 1e6,
        }
    }
}

/// Numbers of a histogram in the unit of its family.
#[derive(Clone, Debug, PartialEq)]
pub struct Buckets {
    /// Upper bounds, inclusive, rising.
    pub bounds: Vec<f64>,
    /// One more than there are bounds; not cumulative.
    pub counts: Vec<u64>,
    /// Sum of everything counted.
    pub sum: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_the_bucket_whose_bound_they_do_not_exceed() {
        let histogram = Histogram::default();
        for us in [0, 50, 51, 30_000_000, 30_000_001] {
            histogram.observe(Duration::from_micros(us));
        }
        let read = histogram.read();
        assert_eq!(read.counts.first(), Some(&2));
        assert_eq!(read.counts.get(1), Some(&1));
        assert_eq!(read.counts.get(17), Some(&1));
        assert_eq!(read.counts.get(18), Some(&1));
        assert!((read.sum - 60.000_102).abs() < 1e-9);
    }
}
