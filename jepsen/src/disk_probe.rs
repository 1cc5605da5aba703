//! How long the disk itself takes, measured beside the servers.
//!
//! A vote and a write wait for a sync. On a machine whose disk is shared, a sync may take a second for
//! reasons that are not the server's; a figure that depends on time is worth nothing without knowing it.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::verdict::Durations;

/// Bytes written before each sync.
const BLOCK: [u8; 4096] = [7; 4096];

/// Pause between two syncs.
const EVERY: Duration = Duration::from_millis(25);

/// Writes and syncs a small file again and again until dropped.
#[derive(Debug)]
pub struct DiskProbe {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    samples: Mutex<Samples>,
}

#[derive(Debug, Default)]
struct Samples {
    finished: Vec<(Instant, Duration)>,
    /// Begin of the sync that goes on now.
    begun: Option<Instant>,
}

impl Shared {
    fn samples(&self) -> std::sync::MutexGuard<'_, Samples> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DiskProbe {
    /// Starts probing the disk of this folder.
    pub fn start(directory: &Path) -> std::io::Result<Self> {
        let file = File::create(directory.join("disk-probe"))?;
        file.write_all_at(&BLOCK, 0)?;
        file.sync_all()?;
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || probe(&file, &of_thread));
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// The longest sync that overlapped this span, the one under way included; zero if there was none.
    #[must_use]
    pub fn slowest(&self, from: Instant, to: Instant) -> Duration {
        let samples = self.shared.samples();
        let finished = samples
            .finished
            .iter()
            .filter(|(begun, taken)| *begun <= to && *begun + *taken >= from);
        let under_way = samples.begun.map(|begun| begun.elapsed());
        finished
            .map(|(_, taken)| *taken)
            .chain(under_way)
            .max()
            .unwrap_or_default()
    }

    /// All syncs so far.
    #[must_use]
    pub fn durations(&self) -> Durations {
        let mut durations = Durations::default();
        self.shared
            .samples()
            .finished
            .iter()
            .for_each(|(_, taken)| durations.add(*taken));
        durations
    }
}

fn probe(file: &File, shared: &Shared) {
    while !shared.stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        shared.samples().begun = Some(begun);
        let done = file.write_all_at(&BLOCK, 0).and_then(|()| file.sync_data());
        let mut samples = shared.samples();
        samples.begun = None;
        samples.finished.push((begun, begun.elapsed()));
        drop(samples);
        if done.is_err() {
            // A disk that fails is the servers' matter to tell.
            return;
        }
        std::thread::sleep(EVERY);
    }
}

impl Drop for DiskProbe {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // The probe cannot panic.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loadtest::process::Scratch;

    #[test]
    fn the_slowest_sync_of_a_span_is_known() {
        let scratch = Scratch::new(None, "jepsen-probe").expect("scratch");
        let from = Instant::now();
        let probe = DiskProbe::start(scratch.path()).expect("starts");
        while probe.durations().count() < 3 {
            std::thread::yield_now();
        }
        let all = probe.durations().max();
        assert!(probe.slowest(from, Instant::now()) >= all);
        assert!(all > Duration::ZERO);
    }
}
