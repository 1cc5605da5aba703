//! Golden transcripts: what a cluster says and does, word for word.
//!
//! `scenarios/*.txt` hold commands (lines that start with `> `), remarks (`#`) and, below each command,
//! everything that was seen. `REWRITE=1 cargo test -p raft --test scenarios` writes the files anew; the
//! reviewer reads the difference.

#[path = "scenarios/cluster.rs"]
mod cluster;

use std::path::{Path, PathBuf};

use cluster::{Cluster, describe_configuration, member, small_config};
use raft::{Boot, Change, Config, Index, Input, NodeId, Space};

#[test]
fn transcripts_are_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    assert!(paths.len() >= 10, "only {} transcripts", paths.len());
    let mut differing = Vec::new();
    for path in paths {
        let written = std::fs::read_to_string(&path).unwrap();
        let seen = play(&written);
        if std::env::var_os("REWRITE").is_some() {
            std::fs::write(&path, &seen).unwrap();
        } else if seen != written {
            differing.push(format!(
                "{}: {}",
                path.display(),
                first_difference(&written, &seen)
            ));
        }
    }
    assert!(
        differing.is_empty(),
        "transcripts differ (REWRITE=1 rewrites them):\n{}",
        differing.join("\n")
    );
}

fn first_difference(written: &str, seen: &str) -> String {
    let pairs = written.lines().chain(["end"]).zip(seen.lines().chain(["end"]));
    let difference = pairs.enumerate().find(|(_, (old, new))| old != new);
    difference.map_or("lengths".to_owned(), |(line, (old, new))| {
        format!("line {}\n- {old}\n+ {new}", line + 1)
    })
}

/// Runs the commands of a transcript and writes it anew.
fn play(text: &str) -> String {
    let mut cluster = None;
    let mut seen = String::new();
    let kept = text.lines().filter(|line| !line.starts_with("  "));
    for line in kept {
        seen.push_str(line);
        seen.push('\n');
        let Some(command) = line.strip_prefix("> ") else {
            continue;
        };
        let words: Vec<&str> = command.split_whitespace().collect();
        match &mut cluster {
            None => cluster = Some(begin(&words)),
            Some(cluster) => obey(cluster, &words),
        }
        for happening in cluster.as_mut().unwrap().trace.drain(..) {
            seen.push_str(&format!("  {happening}\n"));
        }
    }
    seen
}

fn begin(words: &[&str]) -> Cluster {
    assert_eq!(words[0], "nodes", "a scenario begins with its nodes");
    let ids: Vec<u64> = words[1..].iter().filter_map(|word| word.parse().ok()).collect();
    let mut config = small_config();
    for (key, value) in words[1..].iter().filter_map(|word| word.split_once('=')) {
        set(&mut config, key, value.parse().unwrap());
    }
    Cluster::new(&ids, config)
}

fn set(config: &mut Config, key: &str, value: usize) {
    match key {
        "inflight" => config.inflight_count_max = value,
        "append" => config.append_bytes_max = value,
        "retained" => config.retained_bytes_max = value,
        "cache" => config.cache_bytes_max = value,
        other => panic!("no setting {other}"),
    }
}

fn obey(cluster: &mut Cluster, words: &[&str]) {
    let number = |at: usize| words[at].parse::<u64>().unwrap();
    match words[0] {
        "elect" => cluster.elect(number(1)),
        "propose" => cluster.propose(number(1), &words[2..]),
        "propose-large" => {
            let payload = "x".repeat(number(2) as usize);
            cluster.propose(number(1), &[&payload]);
        }
        "read" => cluster.read(number(1)),
        "tick" => cluster.tick(number(1), number(2) as u32),
        "pass" => cluster.pass(number(1) as u32),
        "settle" => cluster.settle(),
        "deliver" => cluster.deliver(number(1) as usize),
        "lose" => lose(cluster, words),
        "hold" => cluster.hold_disk(number(1), true),
        "release" => cluster.hold_disk(number(1), false),
        "hold-snapshots" => {
            cluster.hold_snapshots(number(1), true);
        }
        "release-snapshots" => {
            cluster.hold_snapshots(number(1), false);
        }
        "crash" => cluster.crash(number(1)),
        "restart" => restart(cluster, number(1), &words[2..]),
        "partition" => {
            let (left, right) = words[1..].split_at(words[1..].iter().position(|word| *word == "|").unwrap());
            cluster.partition(&numbers(left), &numbers(&right[1..]));
        }
        "heal" => cluster.heal(),
        "join" => {
            cluster.start(number(2), cluster::Disk::default(), Boot(1));
            change(cluster, number(1), Change::Add(member(number(2))));
        }
        "remove" => change(cluster, number(1), Change::Remove(NodeId(number(2)))),
        "transfer" => {
            let id = cluster.next_proposal_id();
            let to = words[2].parse().ok().map(NodeId);
            cluster.step(number(1), Input::Transfer { id, to });
        }
        "space" => {
            let space = match words[2] {
                "ample" => Space::Ample,
                "low" => Space::Low,
                _ => Space::Critical,
            };
            cluster.step(number(1), Input::Space(space));
        }
        "compact" => cluster.step(number(1), Input::Compact(Index(number(2)))),
        "quietly" => {
            obey(cluster, &words[1..]);
            cluster.trace.clear();
        }
        "status" => status(cluster),
        other => panic!("no command {other}"),
    }
}

fn numbers(words: &[&str]) -> Vec<u64> {
    words.iter().map(|word| word.parse().unwrap()).collect()
}

fn change(cluster: &mut Cluster, leader: u64, change: Change) {
    let id = cluster.next_proposal_id();
    cluster.step(leader, Input::Change { id, change });
}

/// `lose` loses everything under way; `lose TO` what is under way to one node; `lose TO N` only the
/// first N of these.
fn lose(cluster: &mut Cluster, words: &[&str]) {
    let to = words.get(1).map(|word| NodeId(word.parse().unwrap()));
    let mut left = words.get(2).map_or(usize::MAX, |word| word.parse().unwrap());
    let mut kept = std::collections::VecDeque::new();
    for message in std::mem::take(&mut cluster.network) {
        if left > 0 && to.is_none_or(|to| message.1 == to) {
            left -= 1;
            let text = format!(
                "{}->{} {} LOST",
                message.0,
                message.1,
                cluster::describe(&message.2)
            );
            cluster.note(text);
        } else {
            kept.push_back(message);
        }
    }
    cluster.network = kept;
}

/// `restart N`, `restart N suspect`, `restart N suspect COUNT` (and lacks the last COUNT entries).
fn restart(cluster: &mut Cluster, id: u64, how: &[&str]) {
    let lost: usize = how.get(1).map_or(0, |word| word.parse().unwrap());
    let is_suspect = how.first() == Some(&"suspect");
    cluster.restart(id, |disk, boot| {
        if is_suspect {
            disk.suspicion = Some(boot);
        }
        let kept = disk.entries.len() - lost;
        disk.entries.truncate(kept);
        let last = disk.last();
        disk.applied = disk.applied.min(last);
        disk.state.retain(|(index, _)| *index <= last);
    });
}

fn status(cluster: &mut Cluster) {
    let mut lines = Vec::new();
    for (id, node) in cluster.nodes.iter().filter(|(_, node)| node.is_up) {
        let status = node.raft.status();
        let leader = status
            .leader
            .map_or("none".to_owned(), |leader| leader.to_string());
        let suspect = if status.suspicion.is_some() {
            ", suspect"
        } else {
            ""
        };
        lines.push(format!(
            "{id}: {:?} term {} leader {leader}, log {}..={} durable {} committed {} applied {}, {}{suspect}",
            status.role,
            status.term,
            status.base.next(),
            status.last,
            status.durable,
            status.committed,
            status.applied,
            describe_configuration(&status.configuration),
        ));
        for peer in status.peers {
            let snapshot = if peer.in_snapshot { " in snapshot" } else { "" };
            let suspect = if peer.suspect { " suspect" } else { "" };
            lines.push(format!(
                "  of {}: matched {} next {} inflight {}{snapshot}{suspect}",
                peer.id, peer.matched, peer.next, peer.inflight
            ));
        }
    }
    for line in lines {
        cluster.note(line);
    }
}
