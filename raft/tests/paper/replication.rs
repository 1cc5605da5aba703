//! Replication and commitment: paper §5.3, §5.4.2, §7; thesis §6.4, §10.2.

use super::*;
use raft::{Heartbeat, HeartbeatReply, SnapshotChunk, SnapshotMeta, SnapshotReply};

fn appends(said: &[(u64, Body)], to: u64) -> Vec<(u64, Vec<u64>, u64)> {
    said.iter()
        .filter_map(|(receiver, body)| match body {
            Body::Append(append) if *receiver == to => {
                let indices = append.entries.iter().map(|entry| entry.index().0).collect();
                Some((append.previous.index.0, indices, append.commit.0))
            }
            _ => None,
        })
        .collect()
}

/// Paper §5.3: a leader starts with a no-op (paper §8), replicates, commits with a majority, applies, and
/// tells the others at once.
#[test]
fn three_nodes_elect_replicate_and_apply() {
    let mut cluster = Cluster::new(&[1, 2, 3], small_config());
    cluster.elect(1);
    cluster.propose(1, &["a", "b"]);
    cluster.settle();
    for id in 1..=3 {
        let node = cluster.node(id);
        assert_eq!(node.raft.status().leader, Some(NodeId(1)));
        let state: Vec<_> = node
            .disk
            .state
            .iter()
            .map(|(index, text)| (index.0, &text[..]))
            .collect();
        assert_eq!(
            state,
            [(2, &b"a"[..]), (3, &b"b"[..])],
            "without a single tick after the proposal"
        );
    }
}

/// Paper §5.3: the append is refused when the entry before it is not there; the answer skips whole
/// terms.
#[test]
fn a_gap_or_another_term_before_is_refused() {
    let mut node = Lone::new();
    node.hear(2, 5, append(&[1, 1, 4, 4], 0, 0));
    node.said();
    let at = |asked| Append {
        previous: asked,
        entries: Vec::new(),
        commit: Index(9),
    };
    node.hear(2, 5, Body::Append(at(id(5, 9))));
    node.hear(2, 5, Body::Append(at(id(3, 4))));
    node.hear(2, 5, Body::Append(at(id(0, 3))));
    let rejected = |asked, hint| {
        (
            2,
            Body::AppendReply(AppendReply::Rejected {
                asked: Index(asked),
                hint,
            }),
        )
    };
    assert_eq!(
        node.said(),
        [
            rejected(9, id(4, 4)),
            rejected(4, id(1, 2)),
            rejected(3, id(0, 0))
        ]
    );
    assert_eq!(node.status().committed, Index(0));
}

/// Paper §5.3: entries that conflict are deleted with all that follow; the rest is appended.
#[test]
fn conflicting_entries_give_way() {
    let mut node = Lone::new();
    node.hear(2, 1, append(&[1, 1, 1, 1], 0, 1));
    node.hear(3, 2, append(&[1, 1, 2], 1, 2));
    let disk = &node.cluster.node(ME).disk;
    let terms: Vec<u64> = disk.entries.iter().map(|entry| entry.term().0).collect();
    assert_eq!((terms, node.status().committed), (vec![1, 1, 2], Index(2)));
}

/// R12: an old append, late or twice, removes nothing.
#[test]
fn an_old_append_truncates_nothing() {
    let mut node = Lone::new();
    node.hear(2, 1, append(&[1, 1, 1, 1], 0, 0));
    node.said();
    node.hear(2, 1, append(&[1, 1], 0, 0));
    node.hear(2, 1, append(&[1, 1, 1], 1, 0));
    assert_eq!(node.status().last, Index(4));
    assert_eq!(node.said(), [(2, accepted(2)), (2, accepted(3))]);
}

/// R12: an append from before a compaction neither harms nor asks for what is gone.
#[test]
fn an_append_from_before_the_base_is_harmless() {
    let mut node = Lone::new();
    node.hear(2, 1, append(&[1, 1, 1, 1], 0, 4));
    node.cluster.step(ME, Input::Compact(Index(3)));
    assert_eq!(node.status().base, Index(3));
    node.said();
    node.hear(2, 1, append(&[1, 1], 0, 0));
    node.hear(2, 1, append(&[1, 1, 1, 1, 1], 1, 0));
    assert_eq!(node.said(), [(2, accepted(3)), (2, accepted(5))]);
    assert_eq!((node.status().base, node.status().last), (Index(3), Index(5)));
}

/// R2: an append is acknowledged after the sync, in the write that holds it.
#[test]
fn follower_acks_only_after_sync() {
    let mut node = Lone::new();
    node.hear(2, 1, append(&[1], 0, 0));
    node.said();
    node.hold_disk();
    node.hear(2, 1, append(&[1, 1, 1], 1, 3));
    assert!(node.said().is_empty());
    assert_eq!(node.status().committed, Index(3));
    assert_eq!(
        node.status().applied,
        Index(1),
        "applied what is not durable here"
    );
    node.hear(2, 1, append(&[1, 1, 1], 3, 3));
    assert!(
        node.said().is_empty(),
        "an empty append must not acknowledge what is not durable either"
    );
    node.release_disk();
    assert_eq!(node.said(), [(2, accepted(3)), (2, accepted(3))]);
    assert_eq!(node.status().applied, Index(3));
}

/// Thesis §10.2.1, R2: the leader sends while its disk works, and counts itself only after its sync.
#[test]
fn leader_counts_itself_only_after_sync() {
    let mut node = Lone::leading();
    node.hold_disk();
    node.cluster.propose(ME, &["a"]);
    assert_eq!(appends(&node.said(), 2), [(1, vec![2], 1)]);
    node.hear(2, 1, accepted(2));
    assert_eq!(
        node.status().committed,
        Index(1),
        "one follower and an unsynced leader are no majority"
    );
    node.release_disk();
    assert_eq!(
        (node.status().committed, node.status().applied),
        (Index(2), Index(2))
    );
}

/// Thesis §10.2.1: two followers are a majority without the leader's disk; the leader applies later.
#[test]
fn followers_commit_without_the_leaders_disk() {
    let mut node = Lone::leading();
    node.hold_disk();
    node.cluster.propose(ME, &["a"]);
    node.hear(2, 1, accepted(2));
    node.hear(3, 1, accepted(2));
    assert_eq!(
        (node.status().committed, node.status().applied),
        (Index(2), Index(1))
    );
    node.release_disk();
    assert_eq!(node.status().applied, Index(2));
}

/// Paper §5.4.2, figure 8, R3: an entry of an older term is not committed by counting, but by an entry
/// of the own term above it.
#[test]
fn older_terms_commit_only_beneath_the_own() {
    let mut node = Lone::new();
    node.hear(3, 2, append(&[1, 2], 0, 0));
    node.tick(30);
    node.said();
    node.win();
    let leader = node.status();
    assert_eq!((leader.term, leader.last), (Term(3), Index(3)));
    node.hear(2, 3, accepted(2));
    assert_eq!(
        node.status().committed,
        Index(0),
        "a majority holds entry 2, but it is of term 2"
    );
    node.hear(2, 3, accepted(3));
    assert_eq!(node.status().committed, Index(3));
}

/// Thesis §10.2.2: appends are sent ahead of acknowledgements, up to the window (R14: it opens again).
#[test]
fn appends_are_pipelined_within_the_window() {
    let mut node = Lone::leading();
    for payload in ["a", "b", "c", "d", "e", "f"] {
        node.cluster.propose(ME, &[payload]);
    }
    let sent: Vec<_> = appends(&node.said(), 2)
        .into_iter()
        .map(|append| append.1)
        .collect();
    assert_eq!(
        sent,
        [vec![2], vec![3], vec![4], vec![5]],
        "four appends are the window"
    );
    node.hear(2, 1, accepted(3));
    let sent: Vec<_> = appends(&node.said(), 2)
        .into_iter()
        .map(|append| append.1)
        .collect();
    assert_eq!(
        sent,
        [vec![6, 7]],
        "one acknowledgement answers for all before it"
    );
}

/// R14: the end of a pipeline is lost without a trace; the answer to a later heartbeat shows it.
#[test]
fn a_lost_append_is_found_by_the_next_heartbeat() {
    let mut node = Lone::leading();
    node.cluster.propose(ME, &["a"]);
    node.said();
    node.tick(2);
    let round = node.said().iter().find_map(|(_, body)| match body {
        Body::Heartbeat(Heartbeat { round, .. }) => Some(*round),
        _ => None,
    });
    let reply = HeartbeatReply {
        round: round.unwrap(),
        durable: Index(1),
    };
    node.hear(2, 1, Body::HeartbeatReply(reply));
    assert_eq!(
        appends(&node.said(), 2),
        [(2, vec![], 1)],
        "asks before it sends anything twice"
    );
    node.hear(
        2,
        1,
        Body::AppendReply(AppendReply::Rejected {
            asked: Index(2),
            hint: id(1, 1),
        }),
    );
    assert_eq!(appends(&node.said(), 2), [(1, vec![2], 1)]);
}

/// Design: followers hear of a commit at once, alone if there is nothing else to send.
#[test]
fn the_commit_index_is_told_at_once() {
    let mut node = Lone::leading();
    node.cluster.propose(ME, &["a"]);
    node.said();
    node.hear(2, 1, accepted(2));
    let said = node.said();
    assert_eq!(
        (appends(&said, 2), appends(&said, 3)),
        (vec![(2, vec![], 2)], vec![(2, vec![], 2)])
    );
}

/// Thesis §6.4, R4: a read waits for the no-op of the term, and (R9) for a round of heartbeats that was
/// sent after it came.
#[test]
fn a_read_waits_for_the_no_op_and_a_later_round() {
    let mut node = Lone::new();
    node.win();
    node.cluster.read(ME);
    node.tick(2);
    node.hear(
        2,
        1,
        Body::HeartbeatReply(HeartbeatReply {
            round: 1,
            durable: Index(0),
        }),
    );
    let is_read = |line: &String| line.contains("read ");
    assert!(
        !node.happened().iter().any(is_read),
        "served before the no-op was committed"
    );
    node.hear(2, 1, accepted(1));
    assert!(!node.happened().iter().any(is_read));
    node.hear(
        2,
        1,
        Body::HeartbeatReply(HeartbeatReply {
            round: 1,
            durable: Index(1),
        }),
    );
    assert!(
        !node.happened().iter().any(is_read),
        "an echo of an earlier round proves nothing"
    );
    node.hear(
        2,
        1,
        Body::HeartbeatReply(HeartbeatReply {
            round: 2,
            durable: Index(1),
        }),
    );
    assert_eq!(
        node.happened().into_iter().filter(is_read).collect::<Vec<_>>(),
        ["1 read 1 at 1"]
    );
}

/// Paper §7: a snapshot that the log already holds leaves the log as it is, with its tail.
#[test]
fn a_snapshot_never_removes_a_matching_tail() {
    let mut node = Lone::new();
    node.hear(2, 1, append(&[1, 1, 1, 1], 0, 1));
    node.said();
    let all = entries(&[1, 1, 1, 1]);
    let meta = SnapshotMeta {
        last: all[2].id,
        checksum: all[2].checksum,
        configuration: cluster::voters(&[1, 2, 3]),
        size_bytes: 4,
        file_checksum: crc32fast::hash(b"file"),
    };
    let chunk = SnapshotChunk {
        meta,
        offset: 0,
        data: Bytes::new(),
        checksum: crc32fast::hash(b""),
    };
    node.hear(2, 1, Body::Snapshot(chunk));
    let reply = SnapshotReply {
        last: id(1, 3),
        next_offset: 4,
        installed: Some(Index(3)),
    };
    assert_eq!(node.said(), [(2, Body::SnapshotReply(reply))]);
    assert_eq!(
        (node.status().last, node.status().committed),
        (Index(4), Index(3))
    );
}

/// R15: while a snapshot is being made, writes go on and the log is cut all the time. It is not cut beyond
/// the snapshot, which would otherwise be useless when it is there, and so would the next one.
#[test]
fn the_log_waits_for_a_snapshot_that_is_being_made() {
    let mut cluster = Cluster::new(&[1, 2, 3], small_config());
    cluster.elect(1);
    cluster.crash(3);
    cluster.propose(1, &["a", "b", "c"]);
    cluster.settle();
    cluster.step(1, Input::Compact(Index(4)));
    assert_eq!(cluster.node(1).raft.status().base, Index(4));
    cluster.restart(3, |_, _| {});
    cluster.hold_snapshots(1, true);
    cluster.tick(1, 2);
    cluster.settle();
    for text in ["d", "e", "f"] {
        cluster.propose(1, &[text]);
        cluster.settle();
        let applied = cluster.node(1).raft.status().applied;
        cluster.step(1, Input::Compact(applied));
    }
    assert_eq!(cluster.hold_snapshots(1, true), 1, "asked for one, and only once");
    cluster.settle();
    let status = cluster.node(3).raft.status();
    assert_eq!((status.base, status.last), (Index(4), Index(7)));
    // Nobody needs it any more.
    cluster.step(1, Input::Compact(Index(7)));
    assert_eq!(cluster.node(1).raft.status().base, Index(7));
}

/// R15: the log restarts only after the whole file is durable, the state machine is fed only after
/// that, and the leader is told last.
#[test]
fn a_snapshot_is_installed_in_order() {
    let mut node = Lone::new();
    let meta = SnapshotMeta {
        last: id(1, 9),
        checksum: Checksum(99),
        configuration: cluster::voters(&[1, 2, 3]),
        size_bytes: 9,
        file_checksum: crc32fast::hash(b"snapshot "),
    };
    node.hear(2, 1, append(&[1], 0, 0));
    node.said();
    node.hold_disk();
    let data = Bytes::from_static(b"snapshot ");
    let checksum = crc32fast::hash(&data);
    node.hear(
        2,
        1,
        Body::Snapshot(SnapshotChunk {
            meta: meta.clone(),
            offset: 0,
            data,
            checksum,
        }),
    );
    assert_eq!(
        (node.queue().len(), node.queue()[0].reset_to.is_some()),
        (1, false)
    );
    assert_eq!(
        (node.status().last, node.status().base),
        (Index(1), Index(0)),
        "the log was cut too early"
    );
    node.release_disk();
    let status = node.status();
    assert_eq!(
        (status.base, status.last, status.applied),
        (Index(9), Index(9), Index(9))
    );
    let story: Vec<String> = node
        .happened()
        .into_iter()
        .filter(|line| line.starts_with('1'))
        .collect();
    let at = |what: &str| story.iter().position(|line| line.contains(what)).expect(what);
    assert!(
        at("the last") < at("restart after 9") && at("restart after 9") < at("installs"),
        "{story:?}"
    );
    let installed = SnapshotReply {
        last: id(1, 9),
        next_offset: 9,
        installed: Some(Index(9)),
    };
    assert_eq!(node.said().pop(), Some((2, Body::SnapshotReply(installed))));
}
