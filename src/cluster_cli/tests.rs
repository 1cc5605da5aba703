//! What is shown, word by word.

use std::collections::BTreeMap;

use raft::{
    Boot, Configuration, Incarnation, Index, Member, NodeId, PeerStatus, RoleKind, Space, Status, Term,
};
use storage::ClusterId;

use super::report::{Reports, view};
use super::{Answer, Failure, exit_code, to_json};
use crate::cluster::{Identity, StatusReport};

#[test]
fn a_cluster_that_is_well_is_a_table_and_nothing_else() {
    let leader = report(1, RoleKind::Leader);
    let view = view(
        &leader,
        &leader,
        &heard([
            leader.clone(),
            report(2, RoleKind::Follower),
            report(3, RoleKind::Follower),
        ]),
    );
    assert!(view.is_well());
    assert_eq!(
        view.to_string(),
        "\
cluster 000000000000000000000000000000ab: leader node 1, term 7, committed 40

ID  ADDRESS      ROLE      TERM  LAST  COMMITTED  APPLIED  LAG  SPACE  STATE
1   node-1:9848  leader    7     41    40         40       0    ample  ok
2   node-2:9848  follower  7     41    40         38       2    ample  ok
3   node-3:9848  follower  7     41    40         37       3    ample  ok
"
    );
    assert_eq!(exit_code(&Ok(Answer::View(Box::new(view)))), 0);
}

#[test]
fn what_is_wrong_is_said_with_what_to_do() {
    let mut leader = report(1, RoleKind::Leader);
    leader.status.configuration.voters.remove(&NodeId(3));
    leader.status.peers = vec![PeerStatus {
        id: NodeId(3),
        matched: Index(5),
        next: Index(6),
        inflight: 1,
        in_snapshot: true,
        active: true,
        suspect: false,
        space: Space::Low,
    }];
    let mut suspect = report(2, RoleKind::Follower);
    suspect.status.suspicion = Some(Boot(4));
    let mut reports = heard([leader.clone(), suspect]);
    reports.push((
        member(3),
        Err("node-3:9848 cannot be reached: refused".to_owned()),
    ));
    let view = view(&leader, &leader, &reports);
    assert_eq!(
        view.to_string(),
        "\
cluster 000000000000000000000000000000ab: leader node 1, term 7, committed 40

ID  ADDRESS      ROLE      TERM  LAST  COMMITTED  APPLIED  LAG  SPACE  STATE
1   node-1:9848  leader    7     41    40         40       0    ample  ok
2   node-2:9848  follower  7     41    40         38       2    ample  suspect since boot 4
3   node-3:9848  learner   -     -     -          -        -    low    unreachable from here, the leader hears it

! node 2 may have lost what it acknowledged and counts for nothing until a leader has refilled it; if that does not \
happen, `rnacos recover inspect` on it
! node 3 does not answer (node-3:9848 cannot be reached: refused): start it; if its data is lost, `rnacos cluster \
remove 3`, then start it on an empty folder with RNACOS_RAFT_JOIN_ADDR set to another member
"
    );
    assert_eq!(exit_code(&Ok(Answer::View(Box::new(view)))), 4);
}

#[test]
fn a_node_that_was_taken_out_and_a_missing_leader_are_named() {
    let mut base = report(1, RoleKind::Follower);
    base.status.leader = None;
    let mut removed = report(4, RoleKind::PreCandidate);
    removed.status.leader = None;
    let view = view(&removed, &base, &heard([base.clone()]));
    assert_eq!(view.leader, None);
    assert!(!view.is_well());
    let text = view.to_string();
    assert!(text.contains("no leader answers"), "{text}");
    assert!(
        text.contains("node 4, which was asked first, is no member"),
        "{text}"
    );
    assert!(text.contains("knows no leader"), "{text}");
}

#[test]
fn programs_get_an_object_and_a_code() {
    let cases = [
        (Ok(Answer::Done("node 3 leads".to_owned())), "done", 0),
        (Err(Failure::NotDone("no".to_owned())), "not-done", 1),
        (Err(Failure::Unknown("perhaps".to_owned())), "unknown", 3),
    ];
    for (answer, outcome, code) in cases {
        assert_eq!(exit_code(&answer), code);
        let json: serde_json::Value = serde_json::from_str(&to_json(&answer)).expect("JSON");
        assert_eq!(json["outcome"], outcome);
    }
    let leader = report(1, RoleKind::Leader);
    let answer = Ok(Answer::View(Box::new(view(
        &leader,
        &leader,
        &heard([leader.clone()]),
    ))));
    let json: serde_json::Value = serde_json::from_str(&to_json(&answer)).expect("JSON");
    assert_eq!(json["leader"], 1);
    assert_eq!(json["members"][0]["role"], "leader");
}

fn heard<const N: usize>(reports: [StatusReport; N]) -> Reports {
    reports
        .map(|report| (member(report.identity.node_id.0), Ok(report)))
        .into()
}

fn member(id: u64) -> Member {
    Member {
        id: NodeId(id),
        incarnation: Incarnation(100 + id),
        address: format!("node-{id}:9848"),
    }
}

fn report(id: u64, role: RoleKind) -> StatusReport {
    let members: BTreeMap<_, _> = [1, 2, 3].map(|id| (NodeId(id), member(id))).into();
    StatusReport {
        identity: Identity {
            cluster_id: Some(ClusterId(0xab)),
            node_id: NodeId(id),
            incarnation: Incarnation(100 + id),
            boot: Boot(4),
            feature_level: 1,
            address: format!("node-{id}:9848"),
        },
        status: Status {
            term: Term(7),
            role,
            leader: Some(NodeId(1)),
            last: Index(41),
            durable: Index(41),
            committed: Index(40),
            applied: Index(if id == 1 { 40 } else { 40 - id }),
            configuration: Configuration {
                voters: members.keys().copied().collect(),
                members,
                ..Configuration::default()
            },
            ..Status::default()
        },
        space: Space::Ample,
        failure: None,
    }
}
