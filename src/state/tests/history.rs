//! History: what rows there are, and when they go.

use bytes::Bytes;

use super::support::{Log, Node, key, origin, put};
use super::{page, run};
use crate::config::{HistoryId, Operation, Origin, Publish, Removal, Variant};
use crate::state::{Command, Outcome};

const DAY_MS: i64 = 86_400_000;

fn put_keeping(content: &str, now_ms: i64, history_max: u32) -> Command {
    let origin = Origin {
        history_max,
        message: format!("to {content}"),
        ..origin(now_ms)
    };
    Command::ConfigPut(Box::new(Publish::new(key("d"), content.to_owned(), origin)))
}

/// Operation, content and message of every row, newest first.
fn history(node: &Node) -> Vec<(Operation, String, String)> {
    let rows = node.reader().history(&key("d"), page(1, 1_000)).expect("reads");
    assert_eq!(rows.total, rows.items.len());
    assert!(rows.items.is_sorted_by(|newer, older| newer.id > older.id));
    let text = |content: &[u8]| String::from_utf8_lossy(content).into_owned();
    rows.items
        .iter()
        .map(|row| (row.operation, text(&row.content), row.message.to_string()))
        .collect()
}

fn contents(node: &Node) -> Vec<String> {
    history(node).into_iter().map(|(_, content, _)| content).collect()
}

fn trim(node: &mut Node, log: &mut Log, before_ms: i64, rows_max: u32) -> Outcome {
    run(node, log, Command::TrimHistory { before_ms, rows_max })
}

#[test]
fn rows_hold_what_was_before_and_outlive_the_config() {
    let (mut node, mut log) = Node::with_session();
    let _inserted = run(&mut node, &mut log, put_keeping("one", 1, 100));
    let _updated = run(&mut node, &mut log, put_keeping("two", 2, 100));
    let beta = Publish {
        variant: Variant::beta("10.0.0.1"),
        ..Publish::new(key("d"), "gray", origin(3))
    };
    let _gray = run(&mut node, &mut log, Command::ConfigPut(Box::new(beta)));
    let removal = Removal {
        key: key("d"),
        variant: None,
        origin: origin(4),
    };
    let _removed = run(&mut node, &mut log, Command::ConfigRemove(removal));
    let expected = [
        (Operation::Delete, "two", ""),
        (Operation::Insert, "gray", ""),
        (Operation::Update, "one", "to two"),
        (Operation::Insert, "one", "to one"),
    ];
    let expected: Vec<_> = expected
        .map(|(op, content, message)| (op, content.into(), message.into()))
        .into();
    assert_eq!(history(&node), expected);
    let node = node.restart(&log);
    assert_eq!(history(&node), expected);
    let rows = node.reader().history(&key("d"), page(2, 3)).expect("reads");
    assert_eq!((rows.total, rows.available, rows.items.len()), (4, 2, 1));
    let gray = node
        .reader()
        .history(&key("d"), page(1, 4))
        .expect("reads")
        .items
        .remove(1);
    assert_eq!(gray.variant, Variant::beta("10.0.0.1"));
    assert_eq!(
        node.reader().history_row(&key("d"), gray.id).expect("reads"),
        Some(gray.clone())
    );
    assert_eq!(
        node.reader().history_row(&key("other"), gray.id).expect("reads"),
        None
    );
    assert_eq!(
        node.reader()
            .history_row(&key("d"), HistoryId(gray.id.0 + 1))
            .expect("reads"),
        None
    );
    let newest = node
        .reader()
        .history_newest(&key("d"), rows.items[0].config_id)
        .expect("reads");
    assert_eq!(newest.map(|row| row.operation), Some(Operation::Delete));
}

/// What a config was made with is stored once, and is told at every step of its life.
#[test]
fn the_row_of_an_insert_holds_no_content_and_shows_it() {
    let (mut node, mut log) = Node::with_session();
    let inserted = "inserted ".repeat(100);
    let insert_shows = |node: &Node, content: &str| {
        let rows = history(node);
        // The oldest row; a variant's insert is newer.
        let (operation, shown, _) = rows.last().expect("a row");
        assert_eq!((*operation, shown.as_str()), (Operation::Insert, content));
    };
    let _inserted = run(&mut node, &mut log, put("d", &inserted, 1));
    let stored = node.rows();
    let content = inserted.as_bytes();
    let holds = |row: &&Bytes| row.windows(content.len()).any(|window| window == content);
    assert_eq!(stored.values().filter(holds).count(), 1);
    insert_shows(&node, &inserted);
    let beta = Publish {
        variant: Variant::beta("10.0.0.1"),
        ..Publish::new(key("d"), "gray", origin(2))
    };
    let _gray = run(&mut node, &mut log, Command::ConfigPut(Box::new(beta)));
    insert_shows(&node, &inserted);
    let _updated = run(&mut node, &mut log, put_keeping("two", 3, 100));
    insert_shows(&node, &inserted);
    let removal = Removal {
        key: key("d"),
        variant: None,
        origin: origin(4),
    };
    let _removed = run(&mut node, &mut log, Command::ConfigRemove(removal));
    insert_shows(&node, &inserted);
    let node = node.restart(&log);
    insert_shows(&node, &inserted);
}

#[test]
fn each_config_keeps_its_newest_rows() {
    let (mut node, mut log) = Node::with_session();
    for number in 0..20 {
        let _outcome = run(&mut node, &mut log, put_keeping(&number.to_string(), number, 5));
    }
    assert_eq!(contents(&node), ["18", "17", "16", "15", "14"]);
    // A lower limit takes effect with the next publish, none keeps nothing.
    let _outcome = run(&mut node, &mut log, put_keeping("20", 20, 2));
    assert_eq!(contents(&node), ["19", "18"]);
    let _outcome = run(&mut node, &mut log, put_keeping("21", 21, 0));
    assert_eq!(contents(&node), [""; 0]);
    let _outcome = run(&mut node, &mut log, put_keeping("22", 22, 100));
    assert_eq!(contents(&node), ["21"]);
}

#[test]
fn rows_go_by_age_in_days_and_in_bounded_steps() {
    let (mut node, mut log) = Node::with_session();
    for day in 0..6 {
        let _outcome = run(
            &mut node,
            &mut log,
            put_keeping(&day.to_string(), day * DAY_MS + 5, 100),
        );
        let _outcome = run(
            &mut node,
            &mut log,
            put("other", &day.to_string(), day * DAY_MS + 6),
        );
    }
    let cutoff = 3 * DAY_MS + 10;
    assert!(node.reader().history_is_due(cutoff).expect("reads"));
    assert_eq!(
        trim(&mut node, &mut log, cutoff, 0),
        Outcome::HistoryTrimmed { rows: 0, more: true }
    );
    let mut trimmed = 0;
    loop {
        match trim(&mut node, &mut log, cutoff, 2) {
            Outcome::HistoryTrimmed { rows, more } => {
                assert!(rows <= 2);
                trimmed += rows;
                if !more {
                    break;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    // Days 0 to 2 of both configs; day 3 has not ended at the cutoff's start of day.
    assert_eq!(trimmed, 6);
    assert_eq!(contents(&node), ["4", "3", "2"]);
    assert!(!node.reader().history_is_due(cutoff).expect("reads"));
    let mut node = node.restart(&log);
    assert_eq!(contents(&node), ["4", "3", "2"]);
    assert_eq!(
        trim(&mut node, &mut log, 9 * DAY_MS, 1_000),
        Outcome::HistoryTrimmed { rows: 6, more: false }
    );
    assert_eq!(contents(&node), [""; 0]);
    let rows = node.rows();
    assert!(
        !rows.keys().any(|(table, _)| (8..=10).contains(table)),
        "nothing of a history is left"
    );
    let _outcome = run(&mut node, &mut log, put_keeping("new", 10 * DAY_MS, 100));
    assert_eq!(contents(&node), ["5"]);
}

#[test]
fn a_trim_sees_what_stands_before_it_in_the_same_range() {
    let (mut node, mut log) = Node::with_session();
    let entries = [
        log.command(put_keeping("one", 1, 100)),
        log.command(put_keeping("two", 2, 100)),
        log.command(Command::TrimHistory {
            before_ms: 2 * DAY_MS,
            rows_max: 1_000,
        }),
        log.command(put_keeping("three", 3, 100)),
        log.command(Command::TrimHistory {
            before_ms: 2 * DAY_MS,
            rows_max: 1_000,
        }),
    ];
    let done = node.state_mut().apply(&entries).expect("applies");
    assert_eq!(done.applied.len(), entries.len());
    assert_eq!(
        done.applied[2].outcome,
        Outcome::HistoryTrimmed { rows: 2, more: false }
    );
    assert_eq!(
        done.applied[4].outcome,
        Outcome::HistoryTrimmed { rows: 1, more: false }
    );
    assert_eq!(done.events.len(), 3);
}
