//! What a server really asked of the kernel: `strace` around it, and its output read back.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

/// One finished system call.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Its name.
    pub name: String,
    /// Arguments as strace shows them, paths of descriptors included.
    pub arguments: String,
    /// Wall clock at entry, in seconds since the epoch.
    pub entered: f64,
    /// Wall clock at return.
    pub returned: f64,
    /// Whether it returned a value that is no error.
    pub succeeded: bool,
}

/// Whether `strace` can be used here.
#[must_use]
pub fn available() -> bool {
    Command::new("strace")
        .args(["-o", "/dev/null", "true"])
        .status()
        .is_ok_and(|status| status.success())
}

/// The words before a server's own that trace these calls of all its threads into `output`.
///
/// Calls that are not traced are let through by a filter in the kernel (`--seccomp-bpf`), so that
/// counting syncs hardly slows the server. `arguments` is how many bytes of written data are shown.
#[must_use]
pub fn wrapper(calls: &str, arguments: usize, output: &Path) -> Vec<OsString> {
    let mut words: Vec<OsString> = ["strace", "-f", "--seccomp-bpf", "-ttt", "-T", "-y", "-s"]
        .map(Into::into)
        .into();
    words.push(arguments.to_string().into());
    words.push("-e".into());
    words.push(format!("trace={calls}").into());
    words.push("-e".into());
    words.push("signal=none".into());
    words.push("-o".into());
    words.push(output.into());
    // A killed strace leaves its tracee behind; this ties the server's life to strace's.
    words.extend(["--", "setpriv", "--pdeathsig", "KILL", "--"].map(Into::into));
    words
}

/// Reads strace's output. Lines it does not understand (exits, signals, a last line cut short) are left out.
#[must_use]
pub fn parse(text: &str) -> Vec<Call> {
    let mut begun: Vec<(&str, &str, f64)> = Vec::new();
    let mut calls = Vec::new();
    for line in text.lines() {
        let Some((thread, rest)) = line.split_once(char::is_whitespace) else {
            continue;
        };
        let Some((time, rest)) = rest.trim_start().split_once(' ') else {
            continue;
        };
        let Ok(time) = time.parse::<f64>() else { continue };
        if let Some(head) = rest.strip_suffix("<unfinished ...>") {
            begun.push((thread, head, time));
        } else if let Some(resumed) = rest.strip_prefix("<... ") {
            let Some(at) = begun.iter().position(|(of, _, _)| *of == thread) else {
                continue;
            };
            let (_, head, entered) = begun.swap_remove(at);
            let tail = resumed.split_once("resumed>").map_or("", |(_, tail)| tail);
            calls.extend(call(&format!("{head}{tail}"), entered, Some(time)));
        } else {
            calls.extend(call(rest, time, None));
        }
    }
    calls
}

/// `name(arguments) = value <duration>`.
fn call(text: &str, entered: f64, resumed: Option<f64>) -> Option<Call> {
    let (name, rest) = text.split_once('(')?;
    let (arguments, result) = rest.rsplit_once(") = ").or_else(|| rest.rsplit_once(')'))?;
    let result = result.trim_start_matches([' ', '=']);
    let duration = result
        .rsplit_once('<')
        .and_then(|(_, last)| last.strip_suffix('>')?.parse::<f64>().ok());
    // A resumed line carries the time of its return; its duration, where shown, is of the whole call.
    let returned = duration.map(|duration| entered + duration).or(resumed)?;
    let succeeded = result.starts_with(|first: char| first.is_ascii_digit());
    Some(Call {
        name: name.to_owned(),
        arguments: arguments.to_owned(),
        entered,
        returned,
        succeeded,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_and_interrupted_calls_are_read() {
        let text = "\
71 1700000000.100000 fdatasync(12</x/wal/0.jnl> <unfinished ...>
72 1700000000.100100 writev(9<TCP:[127.0.0.1:1->127.0.0.1:2]>, [{iov_base=\"HTTP/1.1 200 OK (x) = y\", iov_len=9}], 1) = 9 <0.000050>
71 1700000000.104000 <... fdatasync resumed>) = 0 <0.003900>
71 1700000000.105000 fsync(3</x/mark>) = -1 EIO (Input/output error) <0.000100>
71 1700000000.200000 +++ exited with 0 +++
71 1700000000.3";
        let calls = parse(text);
        let short: Vec<_> = calls
            .iter()
            .map(|call| (call.name.as_str(), call.succeeded))
            .collect();
        assert_eq!(short, [("writev", true), ("fdatasync", true), ("fsync", false)]);
        assert!(calls[0].arguments.contains("HTTP/1.1 200"));
        assert!(calls[1].arguments.contains("/wal/"));
        assert!((calls[1].entered - 1_700_000_000.1).abs() < 1e-6);
        assert!((calls[1].returned - 1_700_000_000.103_9).abs() < 1e-6);
    }
}
