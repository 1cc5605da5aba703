//! Child processes that do not outlive the harness.
//!
//! A harness that leaves servers behind spoils the next run. Three lines of defence: [`Child`] kills its
//! process group when dropped (a panic unwinds through it); the kernel kills the child when the harness
//! itself is killed (`PDEATHSIG`); and output goes to a file, never to a pipe nobody reads.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

/// How often a wait looks again.
const POLL: Duration = Duration::from_millis(5);

/// What is to be started.
#[derive(Debug, Clone)]
pub struct Program {
    /// Path of the executable, or its name on the `PATH`.
    pub path: PathBuf,
    /// Arguments, without the name.
    pub arguments: Vec<OsString>,
    /// The whole environment, but for `PATH`, `HOME` and `TMPDIR`, which are passed on. A server must
    /// not be moved by what the caller happens to have set.
    pub environment: Vec<(String, String)>,
    /// Working directory; must exist. A folder of its own, so that no `.env` is found by accident.
    pub directory: PathBuf,
    /// File that receives stdout and stderr, appended to.
    pub output: PathBuf,
}

/// A running (or ended) child in a process group of its own; killed when dropped.
#[derive(Debug)]
pub struct Child {
    inner: std::process::Child,
    output: PathBuf,
    /// Length of the output file before this start, so that the words of earlier starts are not taken for ours.
    output_from: u64,
}

impl Program {
    /// Starts the program.
    ///
    /// IMPORTANT: call it on a thread that lives as long as the run (main or a runtime worker, not
    /// `spawn_blocking`): the kernel ties the child's life to the thread that started it.
    pub fn start(&self) -> io::Result<Child> {
        let output = OpenOptions::new().create(true).append(true).open(&self.output)?;
        let output_from = output.metadata()?.len();
        let mut command = Command::new(&self.path);
        command
            .args(&self.arguments)
            .env_clear()
            .current_dir(&self.directory)
            .process_group(0);
        for name in ["PATH", "HOME", "TMPDIR"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        die_with_parent(&mut command);
        let inner = command.spawn().map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("{} cannot be started: {error}", self.path.display()),
            )
        })?;
        Ok(Child {
            inner,
            output: self.output.clone(),
            output_from,
        })
    }
}

/// Asks the kernel to kill the child when the starting thread ends.
fn die_with_parent(command: &mut Command) {
    #[expect(
        unsafe_code,
        reason = "the only way to set PDEATHSIG before exec; one system call, which is \
                                    async-signal-safe, takes no lock and allocates nothing"
    )]
    // SAFETY: the closure runs between fork and exec and makes a single prctl call.
    unsafe {
        command.pre_exec(|| {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from)
        });
    }
}

impl Child {
    /// Process id; equals the process group.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.inner.id()
    }

    /// Sends a signal to the whole process group. An ended child is no error: once it has been waited
    /// for, its number may belong to somebody else and nothing is sent.
    pub fn signal(&mut self, signal: Signal) -> io::Result<()> {
        if self.inner.try_wait()?.is_some() {
            return Ok(());
        }
        let Some(pid) = i32::try_from(self.inner.id()).ok().and_then(Pid::from_raw) else {
            return Ok(());
        };
        match rustix::process::kill_process_group(pid, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// SIGKILL, then waits for the end.
    pub fn kill(&mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::KILL)?;
        self.inner.wait()
    }

    /// SIGTERM, then waits up to `patience`; `None` if it has not ended by then.
    pub fn terminate(&mut self, patience: Duration) -> io::Result<Option<ExitStatus>> {
        self.signal(Signal::TERM)?;
        self.wait_for(patience)
    }

    /// The exit status if the child has ended.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.inner.try_wait()
    }

    /// Waits up to `patience` for the end, blocking the thread.
    pub fn wait_for(&mut self, patience: Duration) -> io::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.inner.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            std::thread::sleep(POLL);
        }
    }

    /// What it has printed since this start; unreadable bytes replaced, empty if there is nothing yet.
    #[must_use]
    pub fn said(&self) -> String {
        let bytes = fs::read(&self.output).unwrap_or_default();
        let from = usize::try_from(self.output_from)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        String::from_utf8_lossy(&bytes[from..]).into_owned()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// An exit status in words: `exit code 1`, `signal 9`.
#[must_use]
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// A folder below `parent` (or the system's temporary folder) that is removed when dropped, unless kept.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    kept: bool,
}

impl Scratch {
    /// Makes `<parent>/<name>-<process id>-<number>`.
    pub fn new(parent: Option<&Path>, name: &str) -> io::Result<Self> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_path_buf);
        fs::create_dir_all(&parent)?;
        for number in 0..10_000_u32 {
            let path = parent.join(format!("{name}-{}-{number}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => {
                    return Ok(Self {
                        path: path.canonicalize()?,
                        kept: false,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "10,000 scratch folders of this process exist",
        ))
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves the folder for a person to look at.
    pub fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Empties or makes a file.
pub fn truncate(path: &Path) -> io::Result<()> {
    File::create(path).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(scratch: &Scratch, script: &str) -> Program {
        Program {
            path: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            environment: vec![("GREETING".into(), "hello".into())],
            directory: scratch.path().to_path_buf(),
            output: scratch.path().join("out.log"),
        }
    }

    #[test]
    fn a_dropped_child_takes_its_group_with_it() {
        let scratch = Scratch::new(None, "loadtest-process").expect("scratch");
        let child = shell(&scratch, "sleep 600 & echo $!; wait")
            .start()
            .expect("starts");
        let deadline = Instant::now() + Duration::from_secs(10);
        let grandchild = loop {
            if let Ok(pid) = child.said().trim().parse::<u32>() {
                break pid;
            }
            assert!(Instant::now() < deadline, "the shell said nothing");
            std::thread::yield_now();
        };
        drop(child);
        // The orphan is a zombie until init reaps it; gone or zombie are both dead.
        while let Ok(stat) = fs::read_to_string(format!("/proc/{grandchild}/stat")) {
            if stat
                .rsplit_once(')')
                .is_some_and(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
            {
                break;
            }
            assert!(Instant::now() < deadline, "grandchild {grandchild} lives on");
            std::thread::yield_now();
        }
    }

    #[test]
    fn words_of_an_earlier_start_are_not_taken_for_ours() {
        let scratch = Scratch::new(None, "loadtest-process").expect("scratch");
        let mut first = shell(&scratch, "echo $GREETING; exit 3").start().expect("starts");
        let status = first
            .wait_for(Duration::from_secs(10))
            .expect("waits")
            .expect("ends");
        assert_eq!(
            (first.said().as_str(), describe(status).as_str()),
            ("hello\n", "exit code 3")
        );
        let mut second = shell(&scratch, "echo again").start().expect("starts");
        second
            .wait_for(Duration::from_secs(10))
            .expect("waits")
            .expect("ends");
        assert_eq!(second.said(), "again\n");
    }
}
