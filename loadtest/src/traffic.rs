//! What the nodes of a cluster say to each other, in bytes, by the kernel's own count: `ss` of iproute2.
//!
//! A server's own metrics would do for one server only. A connection counts when both its ends belong to the
//! processes named, so what clients say is not in it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::Command;

/// Bytes sent so far over each connection end: own address, other address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traffic(HashMap<(SocketAddr, SocketAddr), u64>);

impl Traffic {
    /// Of connections between these processes. `None` without `ss`, or with one process only.
    #[must_use]
    pub fn between(pids: &[u32]) -> Option<Self> {
        if pids.len() < 2 {
            return None;
        }
        let output = Command::new("ss").arg("-tinpHO").output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| Self::read(&text, pids))
    }

    fn read(text: &str, pids: &[u32]) -> Self {
        let of_them: HashMap<_, _> = text.lines().filter_map(|line| end(line, pids)).collect();
        let both = of_them
            .iter()
            .filter(|((own, other), _)| of_them.contains_key(&(*other, *own)));
        Self(both.map(|(ends, bytes)| (*ends, *bytes)).collect())
    }

    /// Bytes sent since `before`. What a connection sent that has ended meanwhile is not in it.
    #[must_use]
    pub fn since(&self, before: &Self) -> u64 {
        let grown = self.0.iter().map(|(ends, bytes)| {
            let earlier = before.0.get(ends).copied().unwrap_or(0);
            bytes.saturating_sub(earlier)
        });
        grown.sum()
    }
}

/// The connection end of a line, if one of the processes holds it.
fn end(line: &str, pids: &[u32]) -> Option<((SocketAddr, SocketAddr), u64)> {
    let mut columns = line.split_ascii_whitespace().skip(3);
    let own: SocketAddr = columns.next()?.parse().ok()?;
    let other: SocketAddr = columns.next()?.parse().ok()?;
    let pid: u32 = line
        .split("pid=")
        .nth(1)?
        .split([',', ')'])
        .next()?
        .parse()
        .ok()?;
    if !pids.contains(&pid) {
        return None;
    }
    let sent = line
        .split_ascii_whitespace()
        .find_map(|word| word.strip_prefix("bytes_sent:"));
    // Absent as long as nothing was sent.
    Some(((own, other), sent.map_or(Some(0), |sent| sent.parse().ok())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = "\
ESTAB 0 0 127.0.0.1:100 127.0.0.1:200 users:((\"a\",pid=1,fd=5)) cubic bytes_sent:70 bytes_acked:70\n\
ESTAB 0 0 127.0.0.1:200 127.0.0.1:100 users:((\"b\",pid=2,fd=6)) cubic bytes_sent:30 bytes_acked:30\n\
ESTAB 0 0 127.0.0.1:100 127.0.0.1:300 users:((\"a\",pid=1,fd=7)) cubic bytes_sent:5000\n\
ESTAB 0 0 127.0.0.1:300 127.0.0.1:100 users:((\"client\",pid=9,fd=7)) cubic bytes_sent:5000\n";

    #[test]
    fn only_connections_between_the_nodes_count_each_end_once() {
        let none = Traffic::default();
        let now = Traffic::read(LINES, &[1, 2]);
        assert_eq!(now.since(&none), 100);
        assert_eq!(now.since(&now), 0);
        let later = Traffic::read(&LINES.replace("bytes_sent:30", "bytes_sent:80"), &[1, 2]);
        assert_eq!(later.since(&now), 50);
    }
}
