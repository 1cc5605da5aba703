//! What a process has used so far, from `/proc/<pid>`.

use std::fs;
use std::io;
use std::time::Duration;

use serde::Serialize;

/// Totals since the process began, except for memory, which is of now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// User and system time of all threads, dead ones included; steps of one clock tick (10 ms).
    pub cpu: Duration,
    /// Resident memory of now.
    pub rss_bytes: u64,
    /// Highest resident memory so far.
    pub rss_peak_bytes: u64,
    /// Bytes this process caused to be written to the disk layer (`write_bytes` of `/proc/<pid>/io`).
    pub written_bytes: u64,
}

impl Usage {
    /// What was used since `before`; memory is of now.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            written_bytes: self.written_bytes.saturating_sub(before.written_bytes),
            ..self
        }
    }
}

/// Usage of several processes added up. Fails if one of them is gone or may not be looked at.
pub fn usage(pids: &[u32]) -> io::Result<Usage> {
    let mut sum = Usage::default();
    for pid in pids {
        let one = usage_of(*pid)?;
        sum.cpu += one.cpu;
        sum.rss_bytes += one.rss_bytes;
        sum.rss_peak_bytes += one.rss_peak_bytes;
        sum.written_bytes += one.written_bytes;
    }
    Ok(sum)
}

fn usage_of(pid: u32) -> io::Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let io_text = fs::read_to_string(format!("/proc/{pid}/io"))?;
    Ok(Usage {
        cpu: cpu(&stat).ok_or_else(|| unreadable("stat"))?,
        rss_bytes: line_number(&status, "VmRSS:").unwrap_or(0) * 1024,
        rss_peak_bytes: line_number(&status, "VmHWM:").unwrap_or(0) * 1024,
        written_bytes: line_number(&io_text, "write_bytes:").ok_or_else(|| unreadable("io"))?,
    })
}

fn unreadable(file: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("/proc/<pid>/{file} has no such field"),
    )
}

/// Fields 14 and 15, counted after the command name, which may itself hold spaces and parentheses.
fn cpu(stat: &str) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let ticks_per_second = rustix::param::clock_ticks_per_second().max(1);
    Some(Duration::from_micros(
        (user + system) * 1_000_000 / ticks_per_second,
    ))
}

fn line_number(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name))?
        .split_ascii_whitespace()
        .next()?
        .parse()
        .ok()
}

/// Average number of runnable tasks over the last minute.
pub fn load_average() -> io::Result<f64> {
    let text = fs::read_to_string("/proc/loadavg")?;
    text.split_ascii_whitespace()
        .next()
        .and_then(|first| first.parse().ok())
        .ok_or_else(|| unreadable("loadavg"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_usage_is_readable_and_grows() {
        let before = usage(&[std::process::id()]).expect("own process");
        assert!(before.rss_bytes > 0 && before.rss_peak_bytes >= before.rss_bytes);
        let mut sum = 0_u64;
        while usage(&[std::process::id()])
            .expect("own process")
            .since(before)
            .cpu
            .is_zero()
        {
            for value in 0..1_000_000_u64 {
                sum = std::hint::black_box(sum.wrapping_add(value));
            }
        }
    }

    #[test]
    fn a_command_name_with_spaces_does_not_shift_the_fields() {
        let line = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0";
        assert_eq!(
            cpu(line),
            Some(
                Duration::from_secs(200)
                    / u32::try_from(rustix::param::clock_ticks_per_second()).expect("small")
            )
        );
    }
}
