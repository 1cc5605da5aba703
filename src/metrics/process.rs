//! What the kernel says of this process. Linux only; elsewhere the families are left out.

use super::names;
use super::render::Page;

/// Adds CPU, memory, threads and descriptors.
pub fn render(page: &mut Page) {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else {
        return;
    };
    let Some(stat) = Stat::parse(&stat) else { return };
    let page_bytes = rustix::param::page_size() as u64;
    let ticks = rustix::param::clock_ticks_per_second().max(1) as f64;
    page.number(&names::PROCESS_CPU, &[], stat.cpu_ticks as f64 / ticks);
    page.count(&names::PROCESS_RSS, &[], stat.rss_pages * page_bytes);
    page.count(&names::PROCESS_VSIZE, &[], stat.virtual_bytes);
    if let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") {
        // The listing itself has one open.
        page.count(
            &names::PROCESS_FDS,
            &[],
            (descriptors.count() as u64).saturating_sub(1),
        );
    }
    if let Some(limit) = descriptors_max() {
        page.count(&names::PROCESS_FDS_MAX, &[], limit);
    }
    page.count(&names::PROCESS_THREADS, &[], stat.threads);
}

/// The soft limit of open files; `None` without one.
pub fn descriptors_max() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

/// How busy the machine is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Machine {
    /// Load of the last minute.
    pub load: f64,
    /// The load as a share of the processors, at most 1.
    pub load_share: f64,
    /// Share of the memory that is not available, 0 to 1.
    pub memory_share: f64,
}

/// How busy the machine is; zeros where the kernel does not say.
pub fn machine() -> Machine {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().and_then(|load| load.parse().ok());
    let load: f64 = load.unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    Machine {
        load,
        load_share: (load / processors as f64).min(1.0),
        memory_share: memory_share(&memory).unwrap_or_default(),
    }
}

/// proc(5), meminfo: `MemTotal:       16384 kB`.
fn memory_share(meminfo: &str) -> Option<f64> {
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    };
    let (total, available) = (field("MemTotal:")?, field("MemAvailable:")?);
    (total > 0.0).then(|| (1.0 - available / total).clamp(0.0, 1.0))
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    virtual_bytes: u64,
    rss_pages: u64,
}

impl Stat {
    /// proc(5): fields are counted from 1, the second is the name in parentheses, which may hold blanks.
    fn parse(text: &str) -> Option<Stat> {
        let (_, rest) = text.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        let field = |number: usize| fields.get(number - 3)?.trim().parse::<u64>().ok();
        Some(Stat {
            cpu_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            virtual_bytes: field(23)?,
            rss_pages: field(24)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_of_a_process_with_an_odd_name() {
        let line = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 11 22 0 0 20 0 5 0 100 4096000 300 18446744073709551615 1";
        let stat = Stat {
            cpu_ticks: 33,
            threads: 5,
            virtual_bytes: 4_096_000,
            rss_pages: 300,
        };
        assert_eq!(Stat::parse(line), Some(stat));
        assert_eq!(Stat::parse("7 (a"), None);
        assert_eq!(Stat::parse("7 (a) S 1"), None);
    }

    #[test]
    fn this_process_has_memory_and_threads() {
        let mut page = Page::new();
        render(&mut page);
        let text = page.finish();
        assert!(text.contains("process_resident_memory_bytes "), "{text}");
        assert!(text.contains("process_threads "), "{text}");
    }
}
