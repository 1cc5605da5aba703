//! What a run measured, as a line for people and as JSON for comparing.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::procfs::Usage;

/// Longest latency that is told apart, in µs; longer ones are counted as this.
pub const LATENCY_MICROS_MAX: u64 = 120_000_000;

/// A latency histogram in microseconds, three digits.
#[must_use]
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MICROS_MAX, 3)
        .unwrap_or_else(|_| unreachable!("constant bounds are valid"))
}

/// Adds one latency, clamped to what the histogram holds.
pub fn record(histogram: &mut Histogram<u64>, latency: Duration) {
    let micros = u64::try_from(latency.as_micros()).unwrap_or(LATENCY_MICROS_MAX);
    histogram.saturating_record(micros.max(1));
}

/// Latencies in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Latency {
    /// Half of the operations were at most this long.
    pub p50: u64,
    /// 90 of 100.
    pub p90: u64,
    /// 99 of 100.
    pub p99: u64,
    /// 999 of 1,000.
    pub p999: u64,
    /// The longest.
    pub max: u64,
}

impl Latency {
    /// Quantiles of a histogram; all 0 if it is empty.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile);
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max(),
        }
    }
}

/// What went wrong, by kind. All zero in a run worth quoting.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Errors {
    /// Answered, but with another status than 200.
    pub refused: u64,
    /// Answered 200 with a body that is not the expected one.
    pub wrong: u64,
    /// No answer: connection refused, broken, or out of time.
    pub broken: u64,
    /// Acknowledged writes that a read afterwards did not find on some address.
    pub lost: u64,
    /// The first problem met, in words.
    pub first: Option<String>,
}

impl Errors {
    /// Their number.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.refused + self.wrong + self.broken + self.lost
    }

    /// Adds the other's counts; the first problem stays.
    pub fn add(&mut self, other: Self) {
        self.refused += other.refused;
        self.wrong += other.wrong;
        self.broken += other.broken;
        self.lost += other.lost;
        if self.first.is_none() {
            self.first = other.first;
        }
    }
}

/// The figures of one run. Counts are of the measured part, after the warm-up.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// Whom it is about; the address unless a name was given.
    pub name: String,
    /// As [`Work::name`](crate::work::Work::name) has it.
    pub work: &'static str,
    /// Connections, each with one request in flight.
    pub connections: usize,
    /// Offered rate of an open loop, per second; absent in a closed loop.
    pub offered_per_second: Option<f64>,
    /// Bytes of one content.
    pub content_bytes: usize,
    /// Length of the measured part, in seconds.
    pub seconds: f64,
    /// Operations answered rightly.
    pub operations: u64,
    /// What was not.
    pub errors: Errors,
    /// Right answers per second.
    pub per_second: f64,
    /// Latency in µs. Open loop: from the moment a request was due if its connection was still busy
    /// then, so that a stall is counted for every request it delayed.
    pub latency_us: Latency,
    /// Processes whose usage was looked at.
    pub server_pids: Vec<u32>,
    /// CPU of these processes per right answer, in µs.
    pub server_cpu_us_per_op: Option<f64>,
    /// CPU of this generator per right answer, in µs.
    pub generator_cpu_us_per_op: f64,
    /// Memory of these processes at the end, in MiB.
    pub server_rss_mib: Option<f64>,
    /// Bytes they wrote to disk per right answer.
    pub written_bytes_per_op: Option<f64>,
    /// Right answers per disk sync, all addresses' syncs added, if the servers tell their syncs.
    pub operations_per_sync: Option<f64>,
}

/// Counters taken at the beginning and at the end of the measured part.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spent {
    /// Of the servers, if their process ids are known.
    pub server: Option<Usage>,
    /// Of this process.
    pub generator: Duration,
    /// Syncs by the servers' own count.
    pub syncs: Option<f64>,
}

impl Figures {
    /// Fills the figures that are quotients of usage and operations.
    pub fn account(&mut self, spent: Spent) {
        #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
        let (operations, mib) = (self.operations.max(1) as f64, |bytes: u64| {
            bytes as f64 / f64::from(1 << 20)
        });
        self.generator_cpu_us_per_op = spent.generator.as_secs_f64() * 1e6 / operations;
        if let Some(server) = spent.server {
            self.server_cpu_us_per_op = Some(server.cpu.as_secs_f64() * 1e6 / operations);
            self.server_rss_mib = Some(mib(server.rss_bytes));
            #[expect(clippy::cast_precision_loss, reason = "bytes of one run stay far below 2^52")]
            let written = server.written_bytes as f64;
            self.written_bytes_per_op = Some(written / operations);
        }
        self.operations_per_sync = spent
            .syncs
            .filter(|syncs| *syncs > 0.0)
            .map(|syncs| operations / syncs);
    }

    /// One line for people.
    #[must_use]
    pub fn line(&self) -> String {
        let optional = |value: Option<f64>, unit: &str| {
            value.map_or_else(String::new, |value| format!("  {value:.1} {unit}"))
        };
        let mut line = format!(
            "{:<24} {:<13} {:>4} conns {:>9.0}/s  p50 {} p99 {} max {} µs",
            self.name,
            self.work,
            self.connections,
            self.per_second,
            self.latency_us.p50,
            self.latency_us.p99,
            self.latency_us.max
        );
        line += &optional(self.server_cpu_us_per_op, "µs CPU/op");
        line += &optional(self.server_rss_mib, "MiB RSS");
        line += &optional(self.written_bytes_per_op, "B written/op");
        line += &optional(self.operations_per_sync, "ops/sync");
        if self.errors.total() > 0 {
            line += &format!("  ERRORS {:?}", self.errors);
        }
        line
    }
}
