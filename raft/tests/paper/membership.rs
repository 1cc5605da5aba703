//! Membership: thesis §4.1-4.3, with the correction of 2015 (no change before an entry of the own term
//! is committed).

use super::*;
use cluster::{describe_configuration, member, voters};
use raft::{Change, Configuration, ProposalId, Refusal};

fn change(node: &mut Lone, change: Change) {
    node.cluster.step(
        ME,
        Input::Change {
            id: ProposalId(900),
            change,
        },
    );
}

fn refusal(node: &mut Lone) -> Option<String> {
    node.happened()
        .into_iter()
        .find_map(|line| line.split_once("refused: ").map(|parts| parts.1.to_owned()))
}

/// R4: no change before the no-op of the term is committed.
#[test]
fn no_change_before_the_no_op_is_committed() {
    let mut node = Lone::new();
    node.win();
    node.happened();
    change(&mut node, Change::Remove(NodeId(3)));
    assert_eq!(refusal(&mut node), Some(Refusal::TermNotCommitted.to_string()));
}

/// R5: one change at a time; the first is over when its last configuration is committed.
#[test]
fn changes_do_not_overlap() {
    let mut node = Lone::leading();
    node.happened();
    change(&mut node, Change::Remove(NodeId(3)));
    assert_eq!(refusal(&mut node), None);
    change(&mut node, Change::Add(member(4)));
    assert_eq!(refusal(&mut node), Some(Refusal::ChangeInProgress.to_string()));
    node.hear(2, 1, accepted(2));
    assert!(
        !node.status().configuration.is_joint(),
        "the leader leaves the joint membership by itself"
    );
    change(&mut node, Change::Add(member(4)));
    assert_eq!(refusal(&mut node), Some(Refusal::ChangeInProgress.to_string()));
    node.hear(2, 1, accepted(3));
    change(&mut node, Change::Add(member(4)));
    assert_eq!(refusal(&mut node), None);
}

/// Thesis §4.1: a configuration is in force once it is appended, on the follower too, and (R5) no longer
/// once it is truncated.
#[test]
fn a_membership_is_rolled_back_with_its_entry() {
    let mut node = Lone::new();
    let mut wider = voters(&[1, 2, 3]);
    wider.members.insert(NodeId(4), member(4));
    let entry = Entry::seal(id(1, 1), EntryKind::Configuration, wider.encode(), Checksum(0));
    let append = Append {
        previous: EntryId::default(),
        entries: vec![entry],
        commit: Index(0),
    };
    node.hear(2, 1, Body::Append(append));
    assert_eq!(node.status().configuration, wider);
    node.hear(3, 2, super::append(&[2], 0, 0));
    assert_eq!(node.status().configuration, voters(&[1, 2, 3]));
}

/// Thesis §4.3: while joint, majorities of both sets decide.
#[test]
fn a_joint_membership_needs_both_majorities() {
    let mut node = Lone::leading();
    change(&mut node, Change::Remove(NodeId(1)));
    assert_eq!(
        describe_configuration(&node.status().configuration),
        "voters 2,3 and 1,2,3"
    );
    node.hear(2, 1, accepted(2));
    assert_eq!(
        node.status().committed,
        Index(1),
        "1 and 2 are a majority of the old set, not of the new"
    );
    node.hear(3, 1, accepted(2));
    assert_eq!(node.status().committed, Index(2));
}

/// Thesis §4.2.2: a leader that is not in the new membership leads until that is committed.
#[test]
fn a_removed_leader_steps_down_after_the_commit() {
    let mut node = Lone::leading();
    change(&mut node, Change::Remove(NodeId(1)));
    node.hear(2, 1, accepted(2));
    node.hear(3, 1, accepted(2));
    node.hear(2, 1, accepted(3));
    assert_eq!(
        node.status().role,
        RoleKind::Leader,
        "its own copy does not count any more"
    );
    node.hear(3, 1, accepted(3));
    assert_eq!(
        (node.status().role, node.status().committed),
        (RoleKind::Learner, Index(3))
    );
    assert!(
        node.said().iter().any(|(_, body)| *body == Body::TimeoutNow),
        "hands over"
    );
    node.tick(200);
    assert_eq!(
        node.status().role,
        RoleKind::Learner,
        "a removed node does not campaign"
    );
}

/// Thesis §4.2.1: a learner counts for nothing until it has caught up within a round; then the leader of
/// the term promotes it by a logged change.
#[test]
fn a_learner_is_promoted_once_it_has_caught_up() {
    let mut node = Lone::leading();
    change(&mut node, Change::Add(member(4)));
    node.hear(4, 1, accepted(2));
    assert_eq!(node.status().committed, Index(1), "a learner's copy was counted");
    node.hear(2, 1, accepted(2));
    assert_eq!(
        describe_configuration(&node.status().configuration),
        "voters 1,2,3,4 and 1,2,3"
    );
}

/// A learner that needs longer than an election timeout for a round starts another one.
#[test]
fn a_slow_learner_is_not_promoted() {
    let mut node = Lone::leading();
    change(&mut node, Change::Add(member(4)));
    node.hear(2, 1, accepted(2));
    for _ in 0..11 {
        node.tick(1);
        node.hear(2, 1, accepted(2));
    }
    node.hear(4, 1, accepted(2));
    assert!(node.status().configuration.is_learner(NodeId(4)));
    node.hear(4, 1, accepted(2));
    assert!(
        node.status().configuration.is_voter(NodeId(4)),
        "the next round was short"
    );
}

/// R6: a learner that a candidate counts must be able to vote: its own log may be behind its promotion.
#[test]
fn a_learner_votes_for_a_candidate_that_counts_it() {
    let mut cluster = Cluster::new(&[2, 3], small_config());
    let mut disk = cluster.node(2).disk.clone();
    disk.base_configuration.members.insert(NodeId(1), member(1));
    cluster.start(ME, disk, Boot(1));
    let mut node = Lone { cluster };
    assert_eq!(node.status().role, RoleKind::Learner);
    node.hear(2, 1, vote(1, id(0, 0)));
    assert_eq!(granted(&node.said()), [(2, true)]);
}

/// Changes that contradict who is a member are refused with the reason; those that change nothing
/// succeed.
#[test]
fn contradictory_changes_are_refused() {
    let mut other = member(2);
    other.incarnation = Incarnation(99);
    let mut moved = member(4);
    moved.address = "n3:1".to_owned();
    let three = voters(&[1, 2, 3]);
    assert_eq!(
        three.changed(&Change::Add(other.clone())),
        Err(Refusal::OtherIncarnation(NodeId(2)))
    );
    assert_eq!(
        three.changed(&Change::Readdress(other)),
        Err(Refusal::OtherIncarnation(NodeId(2)))
    );
    assert_eq!(
        three.changed(&Change::Add(moved.clone())),
        Err(Refusal::AddressTaken(NodeId(3)))
    );
    assert_eq!(
        three.changed(&Change::Readdress(moved)),
        Err(Refusal::UnknownMember(NodeId(4)))
    );
    assert_eq!(
        three.changed(&Change::Remove(NodeId(4))),
        Err(Refusal::UnknownMember(NodeId(4)))
    );
    assert_eq!(three.changed(&Change::Add(member(2))), Ok(None));
    assert_eq!(
        voters(&[1]).changed(&Change::Remove(NodeId(1))),
        Err(Refusal::LastVoter)
    );
    let mut elsewhere = member(2);
    elsewhere.address = "elsewhere:1".to_owned();
    let readdressed: Configuration = three.changed(&Change::Readdress(elsewhere)).unwrap().unwrap();
    assert_eq!(readdressed.members[&NodeId(2)].address, "elsewhere:1");
    assert!(!readdressed.is_joint());
}
