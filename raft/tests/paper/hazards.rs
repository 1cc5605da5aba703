//! Hazards of real disks, restarts and limits, by their number in the design.

use super::*;
use raft::{Cleared, Config, HeartbeatReply, Proposal, ProposalId, ProposalOutcome, Raft, ReadId, Refusal};

fn echo(round: u64) -> Body {
    Body::HeartbeatReply(HeartbeatReply {
        round,
        durable: Index(0),
    })
}

/// R13: an acknowledgement of the own disk for an entry that was overwritten meanwhile counts for
/// nothing, although an entry of the same index (and term) is there.
#[test]
fn a_late_completion_does_not_prove_what_was_overwritten() {
    let mut node = Lone::new();
    node.hold_disk();
    node.hear(2, 1, append(&[1, 1], 0, 0));
    node.hear(3, 2, append(&[2], 0, 0));
    node.hear(2, 3, append(&[1, 1, 3], 0, 0));
    let tokens: Vec<_> = node.queue().iter().map(|persist| persist.token).collect();
    node.cluster.step(ME, Input::Persisted(tokens[0]));
    assert_eq!(node.status().durable, Index(0));
    node.cluster.step(ME, Input::Persisted(tokens[2]));
    assert_eq!(node.status().durable, Index(3));
}

/// R30: a node that was wiped comes back under its id; nothing it says counts as the member's.
#[test]
fn another_incarnation_is_another_node() {
    let mut node = Lone::leading();
    node.cluster.propose(ME, &["a"]);
    let wiped = Sender {
        incarnation: Incarnation(77),
        boot: Boot(9),
        ..sender(2)
    };
    node.hear_from(wiped, 1, accepted(2));
    node.hear_from(
        wiped,
        9,
        Body::VoteReply(VoteReply {
            term: Term(9),
            granted: true,
        }),
    );
    assert_eq!((node.status().committed, node.status().term), (Index(1), Term(1)));
    node.hear(2, 1, accepted(2));
    assert_eq!(
        node.status().committed,
        Index(2),
        "nor does its boot number count as the member's"
    );
}

/// R30, the other side: a voter that lags behind the removal and the new membership of a node knows its
/// earlier incarnation only. As a candidate the node is judged by its log, or with the third voter away
/// neither could ever be elected: the one is refused as a stranger, the other for its shorter log.
#[test]
fn a_candidate_of_another_incarnation_is_judged_by_its_log() {
    let mut node = Lone::new();
    node.hear(3, 1, append(&[1], 0, 1));
    node.tick(40);
    node.said();
    let anew = Sender {
        incarnation: Incarnation(77),
        ..sender(2)
    };
    let ask = |last: EntryId| VoteRequest {
        term: Term(9),
        last,
        transfer: false,
    };
    node.hear_from(anew, 8, Body::PreVote(ask(id(1, 5))));
    let grant = VoteReply {
        term: Term(9),
        granted: true,
    };
    assert_eq!(node.said(), [(2, Body::PreVoteReply(grant))]);
    node.hear_from(anew, 9, Body::Vote(ask(EntryId::default())));
    node.hear_from(anew, 9, Body::Vote(ask(id(1, 5))));
    assert_eq!(granted(&node.said()), [(2, false), (2, true)]);
}

/// R23: a member without room is asked for its snapshot again after a while, not at each refusal: the two
/// would talk as fast as the network goes.
#[test]
fn a_full_member_is_not_flooded_with_questions() {
    let mut node = Lone::leading();
    node.cluster.propose(ME, &["a", "b"]);
    node.hear(2, 1, accepted(3));
    node.cluster.step(ME, Input::Compact(Index(3)));
    assert_eq!(node.status().base, Index(3));
    node.cluster.step(ME, Input::Unreachable(NodeId(3)));
    let questions = |node: &mut Lone| {
        let said = node.said();
        said.iter()
            .filter(|(to, body)| *to == 3 && matches!(body, Body::Snapshot(_)))
            .count()
    };
    assert_eq!(questions(&mut node), 1);
    let full = Sender {
        space: Space::Critical,
        ..sender(3)
    };
    let election_ticks = cluster::small_config().election_ticks;
    for _ in 0..election_ticks - 1 {
        node.hear_from(full, 1, Body::AppendReply(AppendReply::NoSpace));
        node.hear(2, 1, echo(0));
        node.tick(1);
    }
    assert_eq!(questions(&mut node), 0);
    node.tick(1);
    assert_eq!(questions(&mut node), 1);
}

/// R40: terms that descend along the log are no honest leader's, wherever the message hides them.
#[test]
fn terms_that_descend_have_no_effect() {
    let mut node = Lone::new();
    let before = Entry::seal(id(3, 9), EntryKind::Command, Bytes::new(), Checksum(1));
    let data = Bytes::from_static(b"snapshot ");
    let piece = |term: u64| {
        Body::Snapshot(raft::SnapshotChunk {
            meta: raft::SnapshotMeta {
                last: id(term, 9),
                checksum: before.checksum,
                configuration: cluster::voters(&[1, 2, 3]),
                size_bytes: data.len() as u64,
                file_checksum: crc32fast::hash(&data),
            },
            offset: 0,
            data: data.clone(),
            checksum: crc32fast::hash(&data),
        })
    };
    node.hear(2, 5, piece(6));
    assert_eq!(node.status().base, Index(0), "committed in a term to come");
    node.hear(2, 5, piece(5));
    assert_eq!(node.status().base, Index(9));
    let after = Entry::seal(id(3, 10), EntryKind::Command, Bytes::new(), before.checksum);
    node.hear(
        2,
        5,
        Body::Append(raft::Append {
            previous: id(3, 8),
            entries: vec![before.clone(), after],
            commit: Index(0),
        }),
    );
    assert_eq!(node.status().last, Index(9));
}

/// R40: a membership that contradicts itself could be neither stored nor passed on.
#[test]
fn a_snapshot_with_an_impossible_membership_has_no_effect() {
    let mut unknown_voter = cluster::voters(&[1, 2, 3]);
    unknown_voter.voters.insert(NodeId(9));
    let mut crowded = cluster::voters(&[1, 2, 3]);
    let member = |id| raft::Member {
        id: NodeId(id),
        incarnation: raft::Incarnation(id),
        address: format!("n{id}:1"),
    };
    let crowd = 10..=10 + raft::MEMBERS_MAX as u64;
    crowded.members.extend(crowd.map(|id| (NodeId(id), member(id))));
    let mut endless = cluster::voters(&[1, 2, 3]);
    let address = "a".repeat(raft::ADDRESS_BYTES_MAX + 1);
    endless
        .members
        .insert(NodeId(4), raft::Member { address, ..member(4) });
    let mut misfiled = cluster::voters(&[1, 2, 3]);
    misfiled.members.insert(NodeId(5), member(6));
    for configuration in [unknown_voter, crowded, endless, misfiled] {
        let mut node = Lone::new();
        let data = Bytes::from_static(b"snapshot ");
        let meta = raft::SnapshotMeta {
            last: id(3, 9),
            checksum: Checksum(1),
            configuration,
            size_bytes: data.len() as u64,
            file_checksum: crc32fast::hash(&data),
        };
        let checksum = crc32fast::hash(&data);
        let chunk = raft::SnapshotChunk {
            meta,
            offset: 0,
            data,
            checksum,
        };
        node.hear(2, 5, Body::Snapshot(chunk));
        assert_eq!(node.status().base, Index(0));
        assert_eq!(node.said(), []);
    }
}

/// R40: an entry that the log holds is not looked at again, unless it comes behind one that replaces it.
#[test]
fn what_stands_behind_a_conflict_is_looked_at() {
    let mut node = Lone::new();
    let append = |entries: [Entry; 2]| {
        Body::Append(raft::Append {
            previous: id(0, 0),
            entries: entries.into(),
            commit: Index(0),
        })
    };
    let command =
        |term, index, previous| Entry::seal(id(term, index), EntryKind::Command, Bytes::new(), previous);
    let first = command(2, 1, Checksum(0));
    let second = command(3, 2, first.checksum);
    node.hear(2, 5, append([first, second]));
    assert_eq!(node.status().last, Index(2));
    node.said();
    let other = command(3, 1, Checksum(0));
    let text = Bytes::from_static(b"not a membership");
    let garbage = Entry::seal(id(3, 2), EntryKind::Configuration, text, other.checksum);
    let mut rotten = command(3, 2, other.checksum);
    rotten.payload = Bytes::from_static(b"not what was sealed");
    for second in [garbage, rotten] {
        node.hear(2, 5, append([other.clone(), second]));
        assert_eq!(node.said(), [], "it is taken for a leader's");
    }
}

/// Replies of an earlier boot speak of a disk that may have lost something since.
#[test]
fn replies_of_earlier_boots_are_ignored() {
    let mut node = Lone::leading();
    node.cluster.propose(ME, &["a"]);
    node.hear_from(
        Sender {
            boot: Boot(2),
            ..sender(2)
        },
        1,
        echo(0),
    );
    node.hear(2, 1, accepted(2));
    assert_eq!(node.status().committed, Index(1));
    node.hear_from(
        Sender {
            boot: Boot(2),
            ..sender(2)
        },
        1,
        accepted(2),
    );
    assert_eq!(node.status().committed, Index(2));
}

/// Rule 5 of the log: a suspect counts for nothing, its match starts anew, and it is cleared only when it
/// holds what the leader had as its last when it learned of the suspicion (R43).
#[test]
fn a_suspect_counts_again_only_after_it_is_refilled() {
    let mut node = Lone::leading();
    node.cluster.propose(ME, &["a", "b"]);
    node.hear(2, 1, accepted(2));
    assert_eq!(node.status().committed, Index(2));
    let suspect = Sender {
        boot: Boot(2),
        suspicion: Some(Boot(2)),
        ..sender(2)
    };
    node.hear_from(suspect, 1, echo(0));
    assert_eq!(node.status().peers[0].matched, Index(0));
    assert!(node.status().peers[0].suspect);
    node.said();
    node.hear_from(suspect, 1, accepted(2));
    let is_clearing = |said: &[(u64, Body)]| said.iter().any(|(_, body)| matches!(body, Body::Cleared(_)));
    assert!(
        !is_clearing(&node.said()),
        "cleared before it held all of the log"
    );
    node.hear_from(suspect, 1, accepted(3));
    assert_eq!(
        node.status().committed,
        Index(2),
        "a suspect's acknowledgement was counted"
    );
    let cleared = Cleared {
        suspicion: Boot(2),
        boot: Boot(2),
    };
    assert!(node.said().contains(&(2, Body::Cleared(cleared))));
    node.hear_from(
        Sender {
            boot: Boot(2),
            ..sender(2)
        },
        1,
        echo(0),
    );
    assert_eq!(
        node.status().committed,
        Index(3),
        "what it holds counts once it is cleared"
    );
}

/// A suspect neither votes nor campaigns, and (R51) a restart does not change that.
#[test]
fn a_suspect_neither_votes_nor_campaigns() {
    let mut node = Lone::new();
    node.cluster.crash(ME);
    node.cluster.restart(ME, |disk, boot| disk.suspicion = Some(boot));
    node.cluster.crash(ME);
    node.cluster.restart(ME, |_, _| {});
    assert_eq!(node.status().suspicion, Some(Boot(2)));
    node.tick(100);
    assert_eq!(node.status().role, RoleKind::Follower);
    node.hear(2, 1, vote(1, id(0, 0)));
    assert_eq!(granted(&node.said()), [(2, false)]);
}

/// A suspicion is lifted by its name and boot only, and only once that is durable.
#[test]
fn a_suspicion_is_lifted_by_name_and_after_the_sync() {
    let mut node = Lone::new();
    node.cluster.crash(ME);
    node.cluster.restart(ME, |disk, boot| disk.suspicion = Some(boot));
    node.hear(2, 1, append(&[1], 0, 0));
    node.hear(
        2,
        1,
        Body::Cleared(Cleared {
            suspicion: Boot(1),
            boot: Boot(2),
        }),
    );
    node.hear(
        2,
        1,
        Body::Cleared(Cleared {
            suspicion: Boot(2),
            boot: Boot(1),
        }),
    );
    node.hear(
        3,
        1,
        Body::Cleared(Cleared {
            suspicion: Boot(2),
            boot: Boot(2),
        }),
    );
    node.hold_disk();
    node.hear(
        2,
        1,
        Body::Cleared(Cleared {
            suspicion: Boot(2),
            boot: Boot(2),
        }),
    );
    assert_eq!(node.status().suspicion, Some(Boot(2)));
    node.release_disk();
    assert_eq!(
        (node.status().suspicion, node.cluster.node(ME).disk.suspicion),
        (None, None)
    );
}

/// R16: after a restart the state machine is fed from where it stands.
#[test]
fn applying_goes_on_where_the_state_machine_stands() {
    let mut cluster = Cluster::new(&[1], small_config());
    cluster.tick(1, 1);
    cluster.propose(1, &["a", "b"]);
    cluster.crash(1);
    cluster.restart(1, |disk, _| {
        disk.state.pop();
        disk.applied = Index(2);
    });
    cluster.tick(1, 1);
    let state: Vec<u64> = cluster
        .node(1)
        .disk
        .state
        .iter()
        .map(|(index, _)| index.0)
        .collect();
    assert_eq!(state, [2, 3]);
}

/// R39, R19: what is too large or too much is refused at once, and definitely; an empty pipeline lets
/// the largest entry through.
#[test]
fn limits_refuse_at_once() {
    let mut node = Lone::leading();
    node.happened();
    let propose = |node: &mut Lone, bytes: usize| {
        let payload = Bytes::from(vec![b'x'; bytes]);
        node.cluster.step(
            ME,
            Input::Propose(vec![Proposal {
                id: ProposalId(1),
                payload,
                essential: false,
            }]),
        );
        node.happened()
            .into_iter()
            .find(|line| line.contains("proposal"))
            .unwrap()
    };
    assert!(propose(&mut node, 513).contains(&Refusal::TooLarge.to_string()));
    for _ in 0..3 {
        assert!(propose(&mut node, 512).contains("is "));
    }
    assert!(propose(&mut node, 512).contains(&Refusal::Overloaded.to_string()));
    node.hear(2, 1, accepted(4));
    assert!(propose(&mut node, 512).contains("is "));
}

/// R18: a proposal that reaches a node that does not lead is refused definitely; the refusal comes out
/// where it was proposed.
#[test]
fn a_forward_to_a_node_that_does_not_lead_is_refused() {
    let mut node = Lone::new();
    let proposal = Proposal {
        id: ProposalId(5),
        payload: Bytes::from_static(b"x"),
        essential: false,
    };
    node.hear(2, 0, Body::Forward(vec![proposal]));
    let outcome = ProposalOutcome {
        id: ProposalId(5),
        result: Err(Refusal::NoLeader),
    };
    assert_eq!(node.said(), [(2, Body::ForwardReply(vec![outcome]))]);
    node.happened();
    node.hear(2, 0, Body::ForwardReply(vec![outcome]));
    assert_eq!(node.happened(), ["1 proposal 5 refused: no leader is known"]);
}

/// R40: terms that cannot be honest have no effect.
#[test]
fn absurd_terms_have_no_effect() {
    let mut node = Lone::leading();
    node.hear(2, u64::MAX, append(&[1], 0, 0));
    node.hear(2, u64::MAX, vote(u64::MAX, id(u64::MAX, u64::MAX)));
    node.hear(2, u64::MAX - 1, accepted(1));
    assert_eq!(
        (node.status().term, node.status().role),
        (Term(1), RoleKind::Leader)
    );
}

/// R23: without a quorum that has room nothing is appended that is not essential; a follower that is
/// critically full takes nothing.
#[test]
fn a_quorum_without_room_refuses_at_once() {
    let mut node = Lone::leading();
    node.hear_from(
        Sender {
            space: Space::Low,
            ..sender(2)
        },
        1,
        echo(0),
    );
    node.cluster.propose(ME, &["a"]);
    assert_eq!(node.status().last, Index(2), "two of three still have room");
    node.hear_from(
        Sender {
            space: Space::Low,
            ..sender(3)
        },
        1,
        echo(0),
    );
    node.happened();
    node.cluster.propose(ME, &["b", "!c"]);
    let told: Vec<String> = node
        .happened()
        .into_iter()
        .filter(|line| line.contains("proposal"))
        .collect();
    assert_eq!(
        told,
        [
            "1 proposal 2 refused: disk space is low on a quorum",
            "1 proposal 3 is 3@1"
        ]
    );

    let mut node = Lone::new();
    node.cluster.step(ME, Input::Space(Space::Critical));
    node.hear(2, 1, append(&[1], 0, 0));
    assert_eq!(node.said(), [(2, Body::AppendReply(AppendReply::NoSpace))]);
    node.hear(3, 2, vote(2, id(1, 9)));
    node.tick(40);
    node.hear(3, 2, vote(2, id(1, 9)));
    assert!(
        granted(&node.said()).contains(&(3, true)),
        "term and vote are always written"
    );
}

/// Settings that could never let the largest entry through are refused.
#[test]
fn windows_hold_two_of_the_largest_entry() {
    let mut config = Config {
        entry_bytes_max: 1 << 20,
        inflight_bytes_max: 1 << 20,
        ..Config::default()
    };
    let identity = raft::Identity {
        id: NodeId(1),
        incarnation: Incarnation(1),
        boot: Boot(1),
    };
    assert!(Raft::new(config, identity, raft::Recovered::default(), 1).is_err());
    config.inflight_bytes_max = 3 << 20;
    assert!(Raft::new(config, identity, raft::Recovered::default(), 1).is_ok());
}

/// A leader that is heard by a quorum whose disks take nothing leads on and never commits its no-op; before
/// that it may give no reader an index (R4). The reader is told in time, and does not stay behind as one
/// more of those that will fill the queue.
#[test]
fn readers_are_told_when_the_no_op_cannot_be_committed() {
    let mut node = Lone::new();
    node.win();
    node.happened();
    node.cluster.step(ME, Input::ReadIndex(vec![ReadId(7)]));
    let asker = Body::ReadIndex(vec![ReadId(8)]);
    node.hear(3, 1, asker);
    let mut told = (Vec::new(), Vec::new());
    for _ in 0..100 {
        node.tick(1);
        node.hear(2, 1, echo(0));
        told.0
            .extend(node.happened().into_iter().filter(|line| line.contains("read 7")));
        told.1
            .extend(node.said().into_iter().filter_map(|(to, body)| match body {
                Body::ReadIndexReply(reply) => Some((to, reply.ids, reply.result)),
                _ => None,
            }));
    }
    assert_eq!(node.status().role, RoleKind::Leader, "it is heard");
    assert_eq!(told.0.len(), 1, "{told:?}");
    assert!(told.0[0].contains("refused"), "{told:?}");
    let refused = Err(Refusal::TermNotCommitted);
    assert_eq!(told.1, [(3, vec![ReadId(8)], refused)]);
}

/// R15: what arrived damaged is forgotten before its last piece counts as durable: the log is not restarted
/// after it, and the leader's next piece is answered by "nothing is here", so that it begins anew.
#[test]
fn a_snapshot_that_arrived_damaged_is_fetched_again() {
    let mut node = Lone::new();
    let meta = raft::SnapshotMeta {
        last: id(1, 9),
        checksum: Checksum(99),
        configuration: cluster::voters(&[1, 2, 3]),
        size_bytes: 9,
        file_checksum: crc32fast::hash(b"snapshot "),
    };
    node.hear(2, 1, append(&[1], 0, 0));
    node.hold_disk();
    let piece = |offset: u64, data: &'static [u8]| {
        Body::Snapshot(raft::SnapshotChunk {
            meta: meta.clone(),
            offset,
            data: Bytes::from_static(data),
            checksum: crc32fast::hash(data),
        })
    };
    node.hear(2, 1, piece(0, b"snapshot "));
    node.cluster.step(ME, Input::SnapshotRefused(meta.clone()));
    node.release_disk();
    let status = node.status();
    assert_eq!((status.base, status.last), (Index(0), Index(1)), "the log stays");
    node.said();
    node.hear(2, 1, piece(5, b"hot "));
    let nothing = Body::SnapshotReply(raft::SnapshotReply {
        last: meta.last,
        next_offset: 0,
        installed: None,
    });
    assert_eq!(node.said(), [(2, nothing)]);
    node.hear(2, 1, piece(0, b"snapshot "));
    assert_eq!(node.status().base, Index(9), "the second time it is whole");
}
