//! Sessions and operation ids: what is applied, what is repeated, what stays unknown.

use raft::Member;

use super::*;

const OUTCOME: Outcome = Outcome::NamespaceDone;

fn operation(node: u64, incarnation: u64, boot: u64, counter: u64) -> OperationId {
    OperationId {
        node: NodeId(node),
        incarnation: Incarnation(incarnation),
        boot: Boot(boot),
        counter,
    }
}

fn opened() -> Sessions {
    let mut sessions = Sessions::default();
    sessions.open(operation(1, 5, 1, 1), None);
    sessions
}

fn members(of: &[(u64, u64)]) -> Configuration {
    let member = |(id, incarnation): &(u64, u64)| {
        let (id, incarnation) = (NodeId(*id), Incarnation(*incarnation));
        (
            id,
            Member {
                id,
                incarnation,
                address: "localhost:1".into(),
            },
        )
    };
    Configuration {
        members: of.iter().map(member).collect(),
        ..Configuration::default()
    }
}

#[test]
fn the_window_moves_with_the_newest_counter() {
    let mut sessions = opened();
    for counter in [1, 2, 100] {
        assert_eq!(sessions.check(operation(1, 5, 1, counter), 1), Verdict::Fresh);
        sessions.record(operation(1, 5, 1, counter), OUTCOME);
    }
    let newest = operation(1, 5, 1, WINDOW + 1);
    assert_eq!(sessions.check(newest, 1), Verdict::Fresh);
    sessions.record(newest, OUTCOME);
    assert_eq!(
        sessions.check(operation(1, 5, 1, 1), 1),
        Verdict::Unknown,
        "just out of the window"
    );
    assert_eq!(
        sessions.check(operation(1, 5, 1, 2), 1),
        Verdict::Repeated(OUTCOME),
        "just inside"
    );
    assert_eq!(
        sessions.check(operation(1, 5, 1, 3), 1),
        Verdict::Fresh,
        "never seen"
    );
    let session = sessions.get(NodeId(1)).expect("a session");
    assert_eq!((session.low_watermark, session.outcomes.len()), (2, 3));
}

#[test]
fn extreme_counters_and_watermarks_are_harmless() {
    let mut sessions = opened();
    assert_eq!(
        sessions.check(operation(1, 5, 1, 7), u64::MAX),
        Verdict::Fresh,
        "above itself: taken as itself"
    );
    assert_eq!(sessions.check(operation(1, 5, 1, 6), 0), Verdict::Unknown);
    assert_eq!(sessions.check(operation(1, 5, 1, u64::MAX), 0), Verdict::Fresh);
    sessions.record(operation(1, 5, 1, u64::MAX), OUTCOME);
    assert_eq!(
        sessions.check(operation(1, 5, 1, u64::MAX), 0),
        Verdict::Repeated(OUTCOME)
    );
    assert_eq!(
        sessions
            .get(NodeId(1))
            .expect("a session")
            .block(u64::MAX / BLOCK)
            .count(),
        1
    );
}

#[test]
fn only_a_newer_start_of_a_member_opens_a_session() {
    let mut sessions = opened();
    sessions.record(operation(1, 5, 1, 9), OUTCOME);
    let present = sessions.clone();
    sessions.open(operation(1, 5, 1, 1), None);
    sessions.open(operation(1, 5, 0, 1), None);
    sessions.open(operation(1, 4, 7, 1), None);
    sessions.open(operation(1, 5, 2, 1), Some(&members(&[(1, 6)])));
    assert_eq!(sessions, present);
    sessions.open(operation(1, 5, 2, 1), Some(&members(&[(1, 5)])));
    assert_eq!(sessions.check(operation(1, 5, 1, 9), 1), Verdict::Unknown);
    assert_eq!(sessions.check(operation(1, 5, 2, 9), 1), Verdict::Fresh);
}

#[test]
fn another_incarnation_opens_after_the_removal_whatever_its_number() {
    let mut sessions = opened();
    sessions.close_strangers(&members(&[(2, 1)]));
    assert_eq!(sessions.check(operation(1, 5, 1, 1), 1), Verdict::Unknown);
    let back = members(&[(1, 3)]);
    sessions.open(operation(1, 5, 9, 1), Some(&back));
    assert_eq!(
        sessions.check(operation(1, 5, 9, 1), 1),
        Verdict::Unknown,
        "not a member any more"
    );
    sessions.open(operation(1, 3, 1, 1), Some(&back));
    assert_eq!(sessions.check(operation(1, 3, 1, 1), 1), Verdict::Fresh);
}

#[test]
fn changes_name_every_row_that_differs() {
    let mut sessions = opened();
    for counter in [1, 2, 64, 200] {
        assert_eq!(sessions.check(operation(1, 5, 1, counter), 1), Verdict::Fresh);
        sessions.record(operation(1, 5, 1, counter), OUTCOME);
    }
    let changes = sessions.take_changes();
    assert_eq!(changes.sessions, BTreeSet::from([NodeId(1)]));
    assert_eq!(
        changes.blocks,
        BTreeSet::from([(NodeId(1), 0), (NodeId(1), 1), (NodeId(1), 3)])
    );
    // The watermark empties the first block and a part of none of the others.
    assert_eq!(sessions.check(operation(1, 5, 1, 201), 3), Verdict::Fresh);
    let changes = sessions.take_changes();
    assert_eq!(changes.sessions, BTreeSet::from([NodeId(1)]));
    assert_eq!(changes.blocks, BTreeSet::from([(NodeId(1), 0)]));
    assert_eq!(sessions.get(NodeId(1)).expect("a session").block(0).count(), 0);
    assert_eq!(sessions.take_changes(), Changes::default());
}
