//! CPU load beside the servers, until the load average is above a bound.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use loadtest::process::{Child, Program};
use loadtest::procfs;
use tokio::time::{Instant, sleep};

/// The load average follows with a time constant of a minute: twice the bound reaches it in about 45 s.
const RAMP_PATIENCE: Duration = Duration::from_secs(240);

/// Load that goes on until dropped.
#[derive(Debug)]
pub struct Load {
    spinners: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    /// A command, again and again; killed with its group.
    _command: Option<Child>,
}

impl Load {
    /// Starts a load: `none`, `spin:N` (N threads that count), or a shell command that is run again
    /// whenever it ends, for example `cargo build --release` with a clean target folder before.
    pub fn start(what: &str, directory: &Path) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut load = Self {
            spinners: Vec::new(),
            stop,
            _command: None,
        };
        if let Some(count) = what.strip_prefix("spin:") {
            let count: usize = count
                .parse()
                .with_context(|| format!("load {what}: spin:N needs a number"))?;
            load.spinners = (0..count).map(|_| spinner(Arc::clone(&load.stop))).collect();
        } else if what != "none" {
            let program = Program {
                path: "/bin/sh".into(),
                arguments: vec!["-c".into(), format!("while :; do {what} || sleep 1; done").into()],
                environment: Vec::new(),
                directory: std::env::current_dir()?,
                output: directory.join("load.log"),
            };
            load._command = Some(program.start()?);
        }
        Ok(load)
    }

    /// Waits until the load average is above `bound`; false if it has not got there in four minutes.
    pub async fn wait_until_above(bound: f64) -> anyhow::Result<bool> {
        let deadline = Instant::now() + RAMP_PATIENCE;
        while procfs::load_average()? <= bound {
            if Instant::now() > deadline {
                return Ok(false);
            }
            sleep(Duration::from_millis(500)).await;
        }
        Ok(true)
    }
}

fn spinner(stop: Arc<AtomicBool>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut sum = 0_u64;
        while !stop.load(Ordering::Relaxed) {
            for value in 0..1_000_000_u64 {
                sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(value));
            }
        }
    })
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for spinner in self.spinners.drain(..) {
            // A spinner cannot fail.
            let _ = spinner.join();
        }
    }
}
