//! The outcome of a scenario, and how it is told.

use std::fmt;
use std::io::{self, Write as _};
use std::time::Duration;

use serde::Serialize;

/// What a run proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// What was promised was held, under the faults that were demanded.
    Passed,
    /// A promise was broken.
    Violated,
    /// Nothing was proved: a demanded fault did not happen, or too little succeeded. Counts as failed.
    Void,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passed => "PASSED",
            Self::Violated => "VIOLATED",
            Self::Void => "VOID",
        })
    }
}

/// Verdict and figures of one scenario, collected while it runs.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    scenario: String,
    figures: Vec<(String, String)>,
    violations: Vec<String>,
    voids: Vec<String>,
}

/// Violations printed one by one; the rest is only counted.
const SHOWN_MAX: usize = 20;

impl Report {
    /// A report without findings, which would pass.
    #[must_use]
    pub fn new(scenario: &str) -> Self {
        Self {
            scenario: scenario.to_owned(),
            figures: Vec::new(),
            violations: Vec::new(),
            voids: Vec::new(),
        }
    }

    /// Notes a figure.
    pub fn figure(&mut self, name: &str, value: impl fmt::Display) {
        self.figures.push((name.to_owned(), value.to_string()));
    }

    /// A figure noted before; empty if there is none of this name.
    #[must_use]
    pub fn figure_of(&self, name: &str) -> &str {
        let mut figures = self.figures.iter();
        figures
            .find(|(found, _)| found == name)
            .map_or("", |(_, value)| value)
    }

    /// Notes a broken promise.
    pub fn violate(&mut self, what: impl Into<String>) {
        self.violations.push(what.into());
    }

    /// Notes why this run proves nothing.
    pub fn void(&mut self, why: impl Into<String>) {
        self.voids.push(why.into());
    }

    /// Void unless the condition holds.
    pub fn demand(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.void(otherwise());
        }
    }

    /// The broken promises so far.
    #[must_use]
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// A broken promise outweighs a void run.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        if !self.violations.is_empty() {
            Verdict::Violated
        } else if !self.voids.is_empty() {
            Verdict::Void
        } else {
            Verdict::Passed
        }
    }

    /// 0 passed, 1 violated, 2 void.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self.verdict() {
            Verdict::Passed => 0,
            Verdict::Violated => 1,
            Verdict::Void => 2,
        }
    }

    /// Prints figures, findings and, last, the verdict.
    pub fn print(&self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        for (name, value) in &self.figures {
            writeln!(out, "  {name}: {value}")?;
        }
        for violation in self.violations.iter().take(SHOWN_MAX) {
            writeln!(out, "  VIOLATION: {violation}")?;
        }
        if self.violations.len() > SHOWN_MAX {
            writeln!(out, "  VIOLATION: {} more", self.violations.len() - SHOWN_MAX)?;
        }
        for void in &self.voids {
            writeln!(out, "  VOID: {void}")?;
        }
        writeln!(out, "{}: {}", self.scenario, self.verdict())
    }
}

/// Prints a line of progress to stderr; a closed stderr is no event.
pub fn tell(line: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Durations of one kind, as figures.
#[derive(Debug, Clone, Default)]
pub struct Durations(Vec<Duration>);

impl Durations {
    /// Adds one.
    pub fn add(&mut self, duration: Duration) {
        self.0.push(duration);
    }

    /// Their number.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The smallest value that at least `percent` in a hundred do not exceed (nearest rank); zero of none.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or_default()
    }

    /// The longest; zero of none.
    #[must_use]
    pub fn max(&self) -> Duration {
        self.0.iter().max().copied().unwrap_or_default()
    }
}

impl fmt::Display for Durations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |duration: Duration| duration.as_millis();
        let (p50, p99, max) = (self.percentile(50), self.percentile(99), self.max());
        write!(
            f,
            "p50 {} ms, p99 {} ms, max {} ms of {}",
            ms(p50),
            ms(p99),
            ms(max),
            self.count()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn void_fails_and_violation_outweighs_it() {
        let mut report = Report::new("test");
        assert_eq!((report.verdict(), report.exit_code()), (Verdict::Passed, 0));
        report.demand(true, || "not said".into());
        assert_eq!(report.verdict(), Verdict::Passed);
        report.demand(false, || "no leader was killed".into());
        assert_eq!((report.verdict(), report.exit_code()), (Verdict::Void, 2));
        report.violate("lost");
        assert_eq!((report.verdict(), report.exit_code()), (Verdict::Violated, 1));
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let mut durations = Durations::default();
        assert_eq!(durations.percentile(99), Duration::ZERO);
        for ms in (1..=50).rev() {
            durations.add(Duration::from_millis(ms));
        }
        assert_eq!(durations.percentile(50), Duration::from_millis(25));
        assert_eq!(durations.percentile(99), Duration::from_millis(50));
        assert_eq!(durations.max(), Duration::from_millis(50));
    }
}
