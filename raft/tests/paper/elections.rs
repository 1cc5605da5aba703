//! Elections: paper §5.1, §5.2, §5.4.1; thesis §3.10, §4.2.3, §6.2, §9.6.

use super::*;

/// Paper §5.1: a leader that hears of a higher term steps down.
#[test]
fn leader_steps_down_at_a_higher_term() {
    let mut node = Lone::leading();
    node.hear(
        2,
        5,
        Body::AppendReply(AppendReply::Rejected {
            asked: Index(1),
            hint: id(0, 0),
        }),
    );
    let status = node.status();
    assert_eq!(
        (status.role, status.term, status.leader),
        (RoleKind::Follower, Term(5), None)
    );
}

/// Paper §5.1: requests of an older term are rejected; the sender is told the term (R7: a node of a
/// higher term that said nothing would be stuck beside a leader of a lower one for ever).
#[test]
fn an_outdated_leader_is_told_the_term() {
    let mut node = Lone::new();
    node.hear(2, 7, append(&[7], 0, 0));
    node.said();
    node.hear(3, 6, append(&[6], 0, 0));
    let replies = std::mem::take(&mut node.cluster.network);
    assert_eq!(replies.len(), 1);
    assert_eq!((replies[0].1, replies[0].2.term), (NodeId(3), Term(7)));
    assert_eq!(node.status().leader, Some(NodeId(2)));
}

/// Paper §5.2, thesis §9.6: a follower that hears no leader asks whether it would win, and raises no
/// term before a quorum says so.
#[test]
fn pre_vote_raises_no_term() {
    let mut node = Lone::new();
    node.tick(200);
    let status = node.status();
    assert_eq!((status.role, status.term), (RoleKind::PreCandidate, Term(0)));
    assert!(
        node.said()
            .iter()
            .all(|(_, body)| matches!(body, Body::PreVote(_)))
    );
    assert!(node.queue().is_empty() && node.cluster.node(ME).disk.hard_state.term == Term(0));
}

/// Paper §5.2: timeouts are spread over election_ticks..2 * election_ticks and drawn anew.
#[test]
fn election_timeouts_are_spread() {
    let mut node = Lone::new();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..60 {
        let mut waited = 0;
        while node.said().is_empty() {
            node.tick(1);
            waited += 1;
        }
        assert!((10..20).contains(&waited), "waited {waited}");
        seen.insert(waited);
    }
    assert!(seen.len() >= 6, "only {seen:?}");
}

/// R1: vote requests leave after the own vote is durable, and the own vote counts only then.
#[test]
fn vote_requests_wait_for_the_own_vote() {
    let mut node = Lone::new();
    node.hold_disk();
    while node.status().role != RoleKind::PreCandidate {
        node.tick(1);
    }
    node.said();
    node.hear(
        2,
        0,
        Body::PreVoteReply(VoteReply {
            term: Term(1),
            granted: true,
        }),
    );
    assert_eq!(node.status().role, RoleKind::Candidate);
    assert!(
        node.said().is_empty(),
        "a vote request left before the vote was durable"
    );
    let hard = node.queue()[0].hard_state.unwrap();
    assert_eq!(
        (hard.term, hard.vote, node.queue()[0].then_send.len()),
        (Term(1), Some(NodeId(1)), 2)
    );
    node.hear(
        2,
        1,
        Body::VoteReply(VoteReply {
            term: Term(1),
            granted: true,
        }),
    );
    assert_eq!(
        node.status().role,
        RoleKind::Candidate,
        "the own vote counted before it was durable"
    );
    node.release_disk();
    assert_eq!(node.status().role, RoleKind::Leader);
}

/// Paper §9.3 (time of a broadcast far below the timeout): a candidate whose disk is slow waits for its
/// own vote before it counts the time for answers; asking in ever new terms would only lengthen the outage.
#[test]
fn a_candidate_with_a_slow_disk_does_not_stand_again() {
    let mut node = Lone::new();
    node.hold_disk();
    while node.status().role != RoleKind::PreCandidate {
        node.tick(1);
    }
    let granted = VoteReply {
        term: Term(1),
        granted: true,
    };
    node.hear(2, 0, Body::PreVoteReply(granted));
    let term = node.status().term;
    node.tick(500);
    assert_eq!(
        (node.status().role, node.status().term),
        (RoleKind::Candidate, term)
    );
}

/// R1: a vote is told only once it is durable, in the very write that holds it.
#[test]
fn a_vote_waits_for_the_disk() {
    let mut node = Lone::new();
    node.hold_disk();
    node.hear(2, 1, vote(1, id(0, 0)));
    assert!(node.said().is_empty());
    assert_eq!(node.queue()[0].hard_state.unwrap().vote, Some(NodeId(2)));
    node.release_disk();
    assert_eq!(granted(&node.said()), [(2, true)]);
}

/// Paper §5.2: one vote per term, first come first served; the same candidate may ask again.
#[test]
fn one_vote_per_term() {
    let mut node = Lone::new();
    node.hear(2, 1, vote(1, id(0, 0)));
    node.hear(3, 1, vote(1, id(0, 0)));
    node.hear(2, 1, vote(1, id(0, 0)));
    assert_eq!(granted(&node.said()), [(2, true), (3, false), (2, true)]);
}

/// Paper §5.2: the vote survives a restart.
#[test]
fn a_vote_survives_a_crash() {
    let mut node = Lone::new();
    node.hear(2, 1, vote(1, id(0, 0)));
    node.said();
    node.cluster.crash(ME);
    node.cluster.restart(ME, |_, _| {});
    node.hear(3, 1, vote(1, id(0, 0)));
    assert_eq!(granted(&node.said()), [(3, false)]);
}

/// Paper §5.4.1: the vote is refused to a candidate whose log is less up-to-date: an older last term,
/// or the same and shorter.
#[test]
fn voters_refuse_logs_behind_their_own() {
    let cases = [
        (id(1, 9), false),
        (id(2, 1), false),
        (id(2, 2), true),
        (id(2, 3), true),
        (id(3, 1), true),
    ];
    for (last, expected) in cases {
        let mut node = Lone::new();
        node.hear(3, 2, append(&[1, 2], 0, 0));
        node.tick(30);
        node.said();
        node.hear(2, 5, vote(5, last));
        assert_eq!(granted(&node.said()), [(2, expected)], "{last:?}");
    }
}

/// Paper §5.2: a candidate that hears of a leader of its term follows it.
#[test]
fn a_candidate_yields_to_the_leader_of_its_term() {
    let mut node = Lone::new();
    node.hear(2, 3, vote(2, id(0, 0)));
    while node.status().role != RoleKind::PreCandidate {
        node.tick(1);
    }
    let term = node.status().term.0;
    node.hear(
        3,
        term,
        Body::PreVoteReply(VoteReply {
            term: Term(term + 1),
            granted: true,
        }),
    );
    assert_eq!(node.status().role, RoleKind::Candidate);
    node.hear(2, term + 1, append(&[term + 1], 0, 0));
    assert_eq!(
        (node.status().role, node.status().leader),
        (RoleKind::Follower, Some(NodeId(2)))
    );
}

/// Thesis §4.2.3: who hears a leader neither votes for another nor takes over its term.
#[test]
fn a_live_leader_is_not_voted_against() {
    let mut node = Lone::new();
    node.hear(2, 1, append(&[1], 0, 0));
    node.tick(9);
    node.said();
    node.hear(3, 8, vote(8, id(7, 7)));
    assert!(node.said().is_empty());
    assert_eq!(node.status().term, Term(1));
    let question = VoteRequest {
        term: Term(9),
        last: id(7, 7),
        transfer: false,
    };
    node.hear(3, 8, Body::PreVote(question));
    assert_eq!(
        node.said(),
        [(
            3,
            Body::PreVoteReply(VoteReply {
                term: Term(9),
                granted: false
            })
        )]
    );
    assert_eq!(node.status().term, Term(1));
}

/// Thesis §3.10: unless the leader itself asked for the election.
#[test]
fn a_transfer_passes_a_live_leader() {
    let mut node = Lone::new();
    node.hear(2, 1, append(&[1], 0, 0));
    node.said();
    node.hear(
        3,
        2,
        Body::Vote(VoteRequest {
            term: Term(2),
            last: id(1, 1),
            transfer: true,
        }),
    );
    assert_eq!(granted(&node.said()), [(3, true)]);
}

/// Thesis §6.2: a leader that no quorum answers for an election timeout steps down.
#[test]
fn a_leader_without_a_quorum_steps_down() {
    let mut node = Lone::leading();
    node.tick(10);
    assert_eq!(node.status().role, RoleKind::Leader);
    node.tick(1);
    assert_eq!(
        (node.status().role, node.status().leader),
        (RoleKind::Follower, None)
    );
    assert_eq!(node.status().term, Term(1));
}

/// R47: a node that was told of no cluster neither campaigns nor votes.
#[test]
fn an_empty_node_neither_campaigns_nor_votes() {
    let mut cluster = Cluster::new(&[1], small_config());
    cluster.start(4, cluster::Disk::default(), Boot(1));
    cluster.tick(4, 100);
    cluster.step(
        4,
        Input::Message(Message {
            sender: sender(2),
            term: Term(1),
            body: vote(1, id(0, 0)),
        }),
    );
    let replies: Vec<(u64, Body)> = cluster
        .network
        .drain(..)
        .map(|sent| (sent.1.0, sent.2.body))
        .collect();
    assert_eq!(granted(&replies), [(2, false)]);
}

/// A lone voter does not wait for an election timeout.
#[test]
fn a_lone_voter_leads_at_the_first_tick() {
    let mut cluster = Cluster::new(&[1], small_config());
    cluster.tick(1, 1);
    let status = cluster.node(1).raft.status();
    assert_eq!((status.role, status.applied), (RoleKind::Leader, Index(1)));
}

/// Thesis §3.10: the target of a transfer campaigns at once, without pre-vote, and says why.
#[test]
fn timeout_now_starts_an_election_at_once() {
    let mut node = Lone::new();
    node.hear(2, 1, append(&[1], 0, 0));
    node.said();
    node.hear(3, 1, Body::TimeoutNow);
    assert_eq!(
        node.status().role,
        RoleKind::Follower,
        "only the leader may ask for it"
    );
    node.hear(2, 1, Body::TimeoutNow);
    assert_eq!(
        (node.status().role, node.status().term),
        (RoleKind::Candidate, Term(2))
    );
    let asked = node.said();
    assert!(
        asked
            .iter()
            .all(|(_, body)| matches!(body, Body::Vote(request) if request.transfer)),
        "{asked:?}"
    );
    assert_eq!(asked.len(), 2);
}
