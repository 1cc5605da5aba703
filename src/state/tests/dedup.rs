//! Operation ids through the log, the tables and restarts.

use raft::EntryKind;

use super::support::{Log, Node, key, members, put, session};
use crate::model::OperationId;
use crate::state::{Command, Outcome};

fn apply(node: &mut Node, entry: raft::Entry) -> Outcome {
    let done = node.state_mut().apply(&[entry]).expect("applies");
    done.applied[0].outcome
}

fn content(node: &Node) -> Vec<u8> {
    node.reader()
        .get(&key("d"))
        .map(|entry| entry.content.to_vec())
        .unwrap_or_default()
}

fn as_operation(log: &mut Log, node: u64, boot: u64, counter: u64, command: Command) -> raft::Entry {
    log.command_as(
        command,
        OperationId {
            counter,
            ..session(node, boot)
        },
        1,
    )
}

#[test]
fn r17_a_repeated_operation_is_answered_and_not_applied_again() {
    let (mut node, mut log) = Node::with_session();
    let first = apply(&mut node, as_operation(&mut log, 1, 1, 2, put("d", "one", 1)));
    let second = apply(&mut node, as_operation(&mut log, 1, 1, 3, put("d", "two", 2)));
    assert!(matches!(second, Outcome::ConfigUpdated(_)));
    assert_eq!(
        apply(&mut node, as_operation(&mut log, 1, 1, 2, put("d", "one", 1))),
        first
    );
    assert_eq!(content(&node), b"two");
    // The same over a restart.
    let mut node = node.restart(&log);
    assert_eq!(
        apply(&mut node, as_operation(&mut log, 1, 1, 2, put("d", "one", 1))),
        first
    );
    assert_eq!(
        apply(&mut node, as_operation(&mut log, 1, 1, 3, put("d", "two", 2))),
        second
    );
    assert_eq!(content(&node), b"two");
}

#[test]
fn r48_a_new_start_is_not_swallowed_by_the_counters_of_the_one_before() {
    let (mut node, mut log) = Node::with_session();
    let before = apply(&mut node, as_operation(&mut log, 1, 1, 2, put("d", "one", 1)));
    assert!(matches!(before, Outcome::ConfigInserted(_)));
    let mut node = node.restart(&log);
    // Nothing of a session that is not open.
    assert_eq!(
        apply(&mut node, as_operation(&mut log, 1, 2, 2, put("d", "early", 2))),
        Outcome::Unknown
    );
    assert_eq!(
        apply(&mut node, as_operation(&mut log, 1, 2, 1, Command::OpenSession)),
        Outcome::SessionOpened
    );
    let after = apply(&mut node, as_operation(&mut log, 1, 2, 2, put("d", "two", 3)));
    assert!(matches!(after, Outcome::ConfigUpdated(_)), "{after:?}");
    assert_eq!(content(&node), b"two");
}

#[test]
fn r48_late_copies_of_a_closed_session_are_never_applied() {
    let (mut node, mut log) = Node::with_session();
    apply_quietly(&mut node, as_operation(&mut log, 1, 2, 1, Command::OpenSession));
    apply_quietly(&mut node, as_operation(&mut log, 1, 2, 2, put("d", "new", 2)));
    assert_eq!(
        apply(&mut node, as_operation(&mut log, 1, 1, 2, put("d", "late", 1))),
        Outcome::Unknown
    );
    // A late or repeated open changes nothing either: the old session stays closed, the new one open.
    assert_eq!(
        apply(&mut node, as_operation(&mut log, 1, 1, 1, Command::OpenSession)),
        Outcome::Unknown
    );
    assert_eq!(
        apply(&mut node, as_operation(&mut log, 1, 1, 3, put("d", "late", 1))),
        Outcome::Unknown
    );
    assert_eq!(
        apply(&mut node, as_operation(&mut log, 1, 2, 1, Command::OpenSession)),
        Outcome::SessionOpened
    );
    assert_eq!(content(&node), b"new");
    apply_quietly(&mut node, as_operation(&mut log, 1, 2, 3, put("d", "newer", 3)));
    assert_eq!(content(&node), b"newer");
}

fn apply_quietly(node: &mut Node, entry: raft::Entry) {
    let outcome = apply(node, entry);
    assert_ne!(outcome, Outcome::Unknown);
}

#[test]
fn r48_reordered_operations_are_each_applied_once() {
    let (mut node, mut log) = Node::with_session();
    for counter in [5, 3, 4, 2] {
        let data_id = format!("d{counter}");
        let outcome = apply(
            &mut node,
            as_operation(&mut log, 1, 1, counter, put(&data_id, "x", 1)),
        );
        assert!(
            matches!(outcome, Outcome::ConfigInserted(_)),
            "{counter}: {outcome:?}"
        );
    }
    for counter in [2, 3, 4, 5] {
        let data_id = format!("d{counter}");
        let outcome = apply(
            &mut node,
            as_operation(&mut log, 1, 1, counter, put(&data_id, "y", 2)),
        );
        assert!(
            matches!(outcome, Outcome::ConfigInserted(_)),
            "the outcome of the first time: {outcome:?}"
        );
        assert_eq!(
            &node.reader().get(&super::key(&data_id)).expect("there").content[..],
            b"x"
        );
    }
}

#[test]
fn below_the_watermark_nothing_is_applied_and_the_answer_is_unknown() {
    let (mut node, mut log) = Node::with_session();
    apply_quietly(&mut node, as_operation(&mut log, 1, 1, 2, put("d", "one", 1)));
    let operation = OperationId {
        counter: 9,
        ..session(1, 1)
    };
    let entry = log.command_as(put("d", "two", 2), operation, 9);
    apply_quietly(&mut node, entry);
    // Counter 5 was never seen; who sent it said that it was answered.
    for counter in [2, 5, 8] {
        assert_eq!(
            apply(
                &mut node,
                as_operation(&mut log, 1, 1, counter, put("d", "late", 3))
            ),
            Outcome::Unknown
        );
    }
    let mut node = node.restart(&log);
    assert_eq!(
        apply(&mut node, as_operation(&mut log, 1, 1, 8, put("d", "late", 3))),
        Outcome::Unknown
    );
    assert_eq!(content(&node), b"two");
}

#[test]
fn removing_a_member_closes_its_session_for_good() {
    let (mut node, mut log) = Node::with_session();
    let configure = |log: &mut Log, ids: &[u64]| log.entry(EntryKind::Configuration, members(ids).encode());
    let entries = [
        configure(&mut log, &[1, 2]),
        as_operation(&mut log, 2, 1, 1, Command::OpenSession),
        as_operation(&mut log, 2, 1, 2, put("d", "mine", 1)),
        configure(&mut log, &[1]),
        as_operation(&mut log, 2, 1, 3, put("d", "late", 2)),
        as_operation(&mut log, 2, 2, 1, Command::OpenSession),
        as_operation(&mut log, 2, 2, 2, put("d", "removed", 3)),
    ];
    let done = node.state_mut().apply(&entries).expect("applies");
    let outcomes: Vec<_> = done.applied.iter().map(|applied| applied.outcome).collect();
    assert_eq!(outcomes[0], Outcome::SessionOpened);
    assert_eq!(outcomes[2..], [Outcome::Unknown; 3]);
    assert_eq!(content(&node), b"mine");
    // Added again, it opens a session of a later start; the closed one stays closed.
    let mut node = node.restart(&log);
    let entries = [
        configure(&mut log, &[1, 2]),
        as_operation(&mut log, 2, 1, 1, Command::OpenSession),
        as_operation(&mut log, 2, 1, 4, put("d", "late", 4)),
        as_operation(&mut log, 2, 2, 1, Command::OpenSession),
        as_operation(&mut log, 2, 2, 2, put("d", "back", 5)),
    ];
    let done = node.state_mut().apply(&entries).expect("applies");
    let outcomes: Vec<_> = done.applied.iter().map(|applied| applied.outcome).collect();
    assert_eq!(outcomes[..2], [Outcome::Unknown; 2]);
    assert_eq!(outcomes[2], Outcome::SessionOpened);
    assert_eq!(content(&node), b"back");
}
