//! Logs: filter, form, and a writer that never makes the server wait.
//!
//! A log sink can block for ever: a full pipe nobody reads, a terminal in scroll lock (hazard R42). So
//! events are handed to a thread of their own through a bounded queue; when that is full, events are
//! dropped and counted, and the count is told with the next line that gets through.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::settings::LogFormat;

/// Lines that may wait for the sink; the next one is dropped and counted.
const QUEUE_LINES_MAX: usize = 8_192;
/// How long [`Guard`] waits for the sink at the end of the process.
const FLUSH_WAIT: Duration = Duration::from_millis(500);

/// Starts logging to standard error. Lines that cannot be written are dropped, never waited for.
///
/// # Errors
/// `filter` is not one of tracing's filters (`info`, `info,rnacos=debug`, ...), or logging was started before.
pub fn start(filter: &str, format: LogFormat) -> Result<Guard, String> {
    let filter = EnvFilter::try_new(with_defaults(filter))
        .map_err(|error| format!("log filter {filter:?}: {error}"))?;
    let (writer, guard) = writer(io::stderr());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(false);
    match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(|error| error.to_string())?;
    Ok(guard)
}

/// The filter, which may say otherwise. HTTP/2 warns, without saying of whom, of each connection that resets
/// too much: a stranger would fill the disk.
fn with_defaults(filter: &str) -> String {
    format!("h2=error,{filter}")
}

/// Lines dropped since the start of the process because the sink did not take them.
pub fn dropped_lines() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Process-wide, as the subscriber is; [`dropped_lines`] shows it.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Makes a writer that hands lines to a thread that owns `sink`.
pub fn writer(sink: impl Write + Send + 'static) -> (Writer, Guard) {
    let (lines, queue) = sync_channel(QUEUE_LINES_MAX);
    let done = Arc::new(AtomicBool::new(false));
    let thread = std::thread::Builder::new()
        .name("log-sink".to_owned())
        .spawn({
            let done = Arc::clone(&done);
            move || drain(&queue, sink, &done)
        })
        .ok();
    (Writer { lines }, Guard { done, thread })
}

/// Gives tracing its writers; cheap to clone.
#[derive(Clone, Debug)]
pub struct Writer {
    lines: SyncSender<Vec<u8>>,
}

/// One event on its way: tracing writes a whole line at once.
#[derive(Debug)]
pub struct Line {
    lines: SyncSender<Vec<u8>>,
}

impl<'a> MakeWriter<'a> for Writer {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line {
            lines: self.lines.clone(),
        }
    }
}

impl Write for Line {
    /// Never blocks and never fails: a log line is not worth an error in the code that wrote it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Err(TrySendError::Full(_)) = self.lines.try_send(line.to_vec()) {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Ends logging when dropped: what waits is written, unless the sink is blocked.
#[derive(Debug)]
pub struct Guard {
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Release);
        let Some(thread) = self.thread.take() else { return };
        let mut waited = Duration::ZERO;
        while !thread.is_finished() && waited < FLUSH_WAIT {
            std::thread::sleep(Duration::from_millis(5));
            waited += Duration::from_millis(5);
        }
    }
}

/// The sink's thread. Ends when told and nothing waits, or when nobody can write any more.
fn drain(queue: &Receiver<Vec<u8>>, mut sink: impl Write, done: &AtomicBool) {
    let mut told = DROPPED.load(Ordering::Relaxed);
    loop {
        let line = match queue.recv_timeout(Duration::from_millis(20)) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) if !done.load(Ordering::Acquire) => continue,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
        };
        // A sink that fails (closed pipe) takes nothing more; the server goes on without logs.
        if sink.write_all(&line).is_err() {
            return;
        }
        let dropped = DROPPED.load(Ordering::Relaxed);
        if dropped != told {
            let note = format!("(the log sink was too slow: {} lines dropped)\n", dropped - told);
            told = dropped;
            if sink.write_all(note.as_bytes()).is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A sink that blocks until the test lets it go.
    struct Blocked(mpsc::Receiver<()>);

    impl Write for Blocked {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.recv().map_err(io::Error::other)?;
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn strangers_fill_no_log_by_way_of_a_library_unless_it_is_asked_for() {
        for (given, shown) in [
            ("info", "h2=error,info"),
            ("", "h2=error"),
            ("h2=debug,warn", "h2=debug,warn"),
        ] {
            let filter = EnvFilter::try_new(with_defaults(given)).expect(given);
            assert_eq!(filter.to_string(), shown);
        }
    }

    #[test]
    fn r42_a_blocked_log_sink_makes_nobody_wait() {
        let (release, gate) = mpsc::channel();
        let (writer, guard) = writer(Blocked(gate));
        let before = dropped_lines();
        for _ in 0..QUEUE_LINES_MAX + 100 {
            let mut line = writer.make_writer();
            line.write_all(b"line\n").expect("a log line never fails");
        }
        // One line may be in the hands of the sink.
        assert!(dropped_lines() - before >= 99);
        drop(release);
        drop(writer);
        drop(guard);
    }

    #[test]
    fn lines_arrive_whole_and_in_order() {
        let (sender, lines) = mpsc::channel();
        struct Sink(mpsc::Sender<Vec<u8>>);
        impl Write for Sink {
            fn write(&mut self, line: &[u8]) -> io::Result<usize> {
                self.0.send(line.to_vec()).map_err(io::Error::other)?;
                Ok(line.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (writer, guard) = writer(Sink(sender));
        for n in 0..3 {
            writeln!(writer.make_writer(), "{n}").expect("a log line never fails");
        }
        drop(writer);
        drop(guard);
        let written: Vec<u8> = lines.iter().flatten().collect();
        assert_eq!(String::from_utf8_lossy(&written), "0\n1\n2\n");
    }
}
