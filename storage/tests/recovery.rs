//! A healthy life: form, write, close, open.

use crate::support::{Node, form, members, temp_dir};
use raft::{Index, NodeId, Persist, Term};

#[test]
fn r16_what_was_completed_is_there_after_a_restart() {
    let dir = temp_dir();
    form(dir.path(), &[1]);
    let mut node = Node::open(dir.path());
    assert_eq!(node.identity.boot.0, 1);
    assert_eq!(node.recovered.configurations, vec![(Index(1), members(&[1]))]);
    assert_eq!(node.recovered.last.index, Index(1));
    node.append(1, &[b"a", b"b"]).unwrap();
    node.vote(2, 1).unwrap();
    node.append(2, &[b"c"]).unwrap();
    node.apply_to(3);
    node.close();

    let node = Node::open(dir.path());
    assert_eq!(node.identity.boot.0, 2);
    assert!(node.findings.is_empty(), "{:?}", node.findings);
    assert_eq!(
        node.payloads()[1..],
        [b"a".to_vec(), b"b".to_vec(), b"c".to_vec()]
    );
    assert_eq!(
        node.recovered.terms,
        vec![(Index(1), Term(1)), (Index(4), Term(2))]
    );
    assert_eq!(node.recovered.hard_state.vote, Some(NodeId(1)));
    assert_eq!(node.recovered.applied, Index(3));
    assert_eq!(node.recovered.suspicion, None);
}

#[test]
fn truncated_entries_stay_away_and_new_ones_take_their_place() {
    let dir = temp_dir();
    form(dir.path(), &[1, 2, 3]);
    let mut node = Node::open(dir.path());
    node.append(1, &[b"a", b"b", b"c", b"d"]).unwrap();
    let truncate_from = Some(node.truncation(3));
    let entries = node.next_entries(2, &[b"B"]);
    let hard_state = Some(raft::HardState {
        term: Term(2),
        ..node.hard_state
    });
    node.persist(Persist {
        truncate_from,
        entries,
        hard_state,
        ..Persist::default()
    })
    .unwrap();
    assert_eq!(node.payloads()[1..], [b"a".to_vec(), b"B".to_vec()]);
    node.close();
    let node = Node::open(dir.path());
    assert_eq!(node.payloads()[1..], [b"a".to_vec(), b"B".to_vec()]);
    assert_eq!(node.recovered.last.index, Index(3));
}
