//! The state machine as a whole, on real tables.

mod dedup;
mod determinism;
mod history;
mod model;
mod naming;
mod support;
mod workload;

use std::sync::Arc;

use bytes::Bytes;
use raft::EntryKind;

use super::*;
use crate::config::{
    Client, ConfigId, GrayError, GrayVersions, Pattern, Publish, Query, Removal, Selected, Variant, Versions,
};
use crate::model::{Md5, NamespaceId, PageRequest};
use crate::namespace::{Refusal, Wanted};
use support::{Log, Node, key, origin, put};

fn page(number: usize, size: usize) -> PageRequest {
    PageRequest::new(number, size).expect("a page")
}

/// Applies one command in a range of its own.
fn run(node: &mut Node, log: &mut Log, command: Command) -> Outcome {
    let entry = log.command(command);
    let done = node.state_mut().apply(&[entry]).expect("applies");
    assert_eq!(done.applied.len(), 1);
    done.applied[0].outcome
}

#[test]
fn a_publish_is_readable_with_everything_it_brought() {
    let (mut node, mut log) = Node::with_session();
    let publish = Publish {
        description: "about".into(),
        tags: Some(vec!["t1".into()]),
        app_name: Some("app".into()),
        ..Publish::new(key("d"), "content", origin(1_000))
    };
    let outcome = run(&mut node, &mut log, Command::ConfigPut(Box::new(publish)));
    let id = ConfigId(log.last_index().0 << 12);
    assert_eq!(outcome, Outcome::ConfigInserted(id));
    let reader = node.reader();
    assert_eq!(reader.applied(), log.last_index());
    let entry = reader.get(&key("d")).expect("readable");
    assert_eq!(
        (&entry.content[..], entry.md5, entry.id),
        (&b"content"[..], Md5::of(b"content"), id)
    );
    assert_eq!(entry.last_modified.as_str(), "Thu, 01 Jan 1970 00:00:01 GMT");
    let detail = reader.detail(&key("d")).expect("reads").expect("is there");
    assert_eq!((&detail.entry, detail.description.as_str()), (&*entry, "about"));
    assert_eq!(reader.by_id(id).as_ref(), Some(&entry));
    let by_tag = Query {
        tags: vec![Pattern::accurate("t1")],
        ..Query::all(NamespaceId::default())
    };
    assert_eq!(reader.search(&by_tag, page(1, 10)).items, vec![entry]);
}

#[test]
fn events_tell_what_a_client_can_notice_in_log_order() {
    let (mut node, mut log) = Node::with_session();
    let entries = [
        log.command(put("d", "one", 1)),
        log.command(put("d", "one", 2)),
        log.command(put("d", "two", 3)),
        log.command(Command::ConfigPut(Box::new(Publish {
            variant: Variant::beta("10.0.0.1"),
            ..Publish::new(key("d"), "beta", origin(4))
        }))),
        log.command(Command::ConfigRemove(Removal {
            key: key("d"),
            variant: None,
            origin: origin(5),
        })),
        log.command(Command::ConfigRemove(Removal {
            key: key("d"),
            variant: None,
            origin: origin(6),
        })),
    ];
    let done = node.state_mut().apply(&entries).expect("applies");
    let beta = node.reader().grays(&key("d"));
    let none = GrayVersions::default;
    let versions = |content: Option<&str>, grays| Versions {
        formal: content.map(|content| Md5::of(content.as_bytes())),
        grays,
    };
    let event = |entry: usize, before, after| Event::ConfigChanged {
        key: key("d"),
        index: entries[entry].index(),
        before,
        after,
    };
    let (one, two) = (versions(Some("one"), none()), versions(Some("two"), none()));
    let both = versions(Some("two"), beta.clone());
    let expected = vec![
        event(0, versions(None, none()), one.clone()),
        event(2, one, two.clone()),
        event(3, two, both.clone()),
        event(4, both, versions(None, beta)),
    ];
    assert_eq!(done.events, expected);
    assert_eq!(done.applied[4].outcome, Outcome::ConfigsRemoved(1));
    assert_eq!(done.applied[5].outcome, Outcome::ConfigsRemoved(0));
    // Removing the formal version leaves the variant.
    let client = Client {
        ip: "10.0.0.1",
        tag: None,
    };
    assert!(matches!(
        node.reader().select(&key("d"), &client),
        Some(Selected::Gray(_))
    ));
    assert!(node.reader().select(&key("d"), &Client::default()).is_none());
}

#[test]
fn removing_by_id_spares_a_config_that_came_back() {
    let (mut node, mut log) = Node::with_session();
    let Outcome::ConfigInserted(old) = run(&mut node, &mut log, put("d", "one", 1)) else {
        panic!("no insert")
    };
    let Outcome::ConfigInserted(other) = run(&mut node, &mut log, put("e", "two", 1)) else {
        panic!("no insert")
    };
    run_quietly(
        &mut node,
        &mut log,
        Command::ConfigRemove(Removal {
            key: key("d"),
            variant: None,
            origin: origin(2),
        }),
    );
    run_quietly(&mut node, &mut log, put("d", "again", 3));
    let configs = vec![(key("d"), old), (key("e"), other), (key("nosuch"), ConfigId(7))];
    let batch = Command::ConfigRemoveBatch {
        configs,
        origin: origin(4),
    };
    assert_eq!(run(&mut node, &mut log, batch), Outcome::ConfigsRemoved(1));
    assert!(node.reader().get(&key("d")).is_some());
    assert!(node.reader().get(&key("e")).is_none());
}

fn run_quietly(node: &mut Node, log: &mut Log, command: Command) {
    let outcome = run(node, log, command);
    assert!(
        !matches!(outcome, Outcome::Refused(_) | Outcome::Unknown),
        "{outcome:?}"
    );
}

#[test]
fn a_rule_that_makes_no_sense_and_an_eleventh_variant_are_refused() {
    let (mut node, mut log) = Node::with_session();
    let gray = |variant| {
        Command::ConfigPut(Box::new(Publish {
            variant,
            ..Publish::new(key("d"), "gray", origin(1))
        }))
    };
    let refused = Outcome::GrayRefused(GrayError::RuleFormat);
    assert_eq!(run(&mut node, &mut log, gray(Variant::beta(" "))), refused);
    for number in 0..10 {
        let outcome = run(&mut node, &mut log, gray(Variant::tag(&format!("t{number}"))));
        assert!(matches!(outcome, Outcome::ConfigInserted(_)), "{outcome:?}");
    }
    assert_eq!(
        run(&mut node, &mut log, gray(Variant::tag("more"))),
        Outcome::GrayRefused(GrayError::TooMany)
    );
    assert_eq!(node.reader().grays(&key("d")).as_slice().len(), 10);
}

#[test]
fn namespaces_count_what_is_in_them() {
    let (mut node, mut log) = Node::with_session();
    let wanted = |id: &str, name: &str| Wanted {
        id: NamespaceId::new(id),
        name: name.into(),
        description: String::new(),
        now_ms: 1,
    };
    assert_eq!(
        run(
            &mut node,
            &mut log,
            Command::NamespaceCreate(wanted("dev", "Dev"))
        ),
        Outcome::NamespaceDone
    );
    let exists = Outcome::NamespaceRefused(Refusal::Exists);
    assert_eq!(
        run(
            &mut node,
            &mut log,
            Command::NamespaceCreate(wanted("dev", "Dev"))
        ),
        exists
    );
    let built_in = Outcome::NamespaceRefused(Refusal::BuiltIn);
    assert_eq!(
        run(
            &mut node,
            &mut log,
            Command::NamespaceCreate(wanted("public", "x"))
        ),
        built_in
    );
    let in_dev = ConfigKey::new(&NamespaceId::new("dev"), "g", "d");
    run_quietly(
        &mut node,
        &mut log,
        Command::ConfigPut(Box::new(Publish::new(in_dev, "x", origin(1)))),
    );
    run_quietly(&mut node, &mut log, put("d", "x", 1));
    let summaries = node.reader().namespaces();
    let shown: Vec<_> = summaries
        .iter()
        .map(|one| (one.id.as_str(), &*one.name, one.config_count, one.kind))
        .collect();
    assert_eq!(shown, [("", "public", 1, 0), ("dev", "Dev", 1, 2)]);
    run_quietly(
        &mut node,
        &mut log,
        Command::NamespaceUpdate(wanted("dev", "New")),
    );
    assert_eq!(
        node.reader()
            .namespace(&NamespaceId::new("dev"))
            .map(|one| one.name),
        Some("New".into())
    );
    run_quietly(
        &mut node,
        &mut log,
        Command::NamespaceDelete(NamespaceId::new("dev")),
    );
    assert_eq!(node.reader().namespace(&NamespaceId::new("dev")), None);
    let missing = Outcome::NamespaceRefused(Refusal::Missing);
    assert_eq!(
        run(
            &mut node,
            &mut log,
            Command::NamespaceDelete(NamespaceId::new("dev"))
        ),
        missing
    );
}

#[test]
fn a_command_that_makes_no_sense_is_a_result_and_the_next_one_is_applied() {
    let (mut node, mut log) = Node::with_session();
    let entries = [
        log.entry(EntryKind::Command, Bytes::new()),
        log.entry(
            EntryKind::Command,
            Bytes::from_static(&[ENVELOPE_VERSION, 0xff, 0xff]),
        ),
        log.raw(|envelope| envelope.operation = None),
        log.raw(|envelope| envelope.level = FEATURE_LEVEL_MAX + 1),
        log.raw(|envelope| envelope.command = Some(support::put_without_md5())),
        log.command(put("d", "fine", 1)),
    ];
    let done = node.state_mut().apply(&entries).expect("applies");
    let outcomes: Vec<_> = done.applied.iter().map(|applied| applied.outcome).collect();
    let refused = Outcome::Refused;
    assert_eq!(
        outcomes[..5],
        [
            refused(Refused::Malformed),
            refused(Refused::Malformed),
            refused(Refused::Anonymous),
            refused(Refused::FeatureLevel),
            refused(Refused::Malformed),
        ]
    );
    assert!(matches!(outcomes[5], Outcome::ConfigInserted(_)));
}

/// R49: a node that does not understand must not guess.
#[test]
fn r49_an_unknown_version_or_kind_stops_applying_and_changes_nothing() {
    let unknown: [fn(&mut Log) -> raft::Entry; 3] = [
        |log| {
            log.entry(
                EntryKind::Command,
                Bytes::from_static(&[ENVELOPE_VERSION + 1, 1, 2, 3]),
            )
        },
        |log| log.raw(|envelope| envelope.command = None),
        |log| log.command(Command::RaiseFeatureLevel(FEATURE_LEVEL_MAX + 1)),
    ];
    for make in unknown {
        let (mut node, mut log) = Node::with_session();
        let before = node.rows();
        let entries = [
            log.command(put("d", "x", 1)),
            make(&mut log),
            log.command(put("e", "x", 1)),
        ];
        let fault = node.state_mut().apply(&entries).expect_err("stops");
        assert!(
            matches!(
                fault,
                ApplyFault::UnknownCommand { .. } | ApplyFault::FeatureLevel { .. }
            ),
            "{fault}"
        );
        assert_eq!(node.rows(), before, "nothing of the range is stored");
        assert!(node.reader().get(&key("d")).is_none(), "nothing of it is shown");
        assert!(matches!(
            node.state_mut().apply(&entries[..1]),
            Err(ApplyFault::Stopped)
        ));
    }
}

#[test]
fn the_chain_of_the_log_is_checked() {
    let (mut node, mut log) = Node::with_session();
    let mut entry = log.command(put("d", "x", 1));
    entry.previous.0 ^= 1;
    let state = node.state_mut();
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| state.apply(&[entry]).map(drop)));
    assert!(caught.is_err(), "an entry of another log was applied");
}

#[test]
fn memberships_and_noops_move_the_applied_point() {
    let (mut node, mut log) = Node::with_session();
    let members = support::members(&[1, 2, 3]);
    let entries = [
        log.entry(EntryKind::Noop, Bytes::new()),
        log.entry(EntryKind::Configuration, members.encode()),
    ];
    let done = node.state_mut().apply(&entries).expect("applies");
    assert_eq!(done, AppliedRange::default());
    assert_eq!(node.state_mut().configuration(), members);
    assert_eq!(node.state_mut().applied().id, entries[1].id);
    let node = node.restart(&log);
    assert_eq!(node.state().configuration(), members);
}

#[test]
fn a_snapshot_carries_everything_to_another_node() {
    let (mut source, mut log) = Node::with_session();
    workload::run(&mut source, &mut log, 7, 300);
    let mut target = Node::joining(2);
    let view = source.state().tables().view();
    let meta = source
        .snapshots()
        .make(&view, &source.state().configuration())
        .expect("a snapshot");
    assert_eq!(meta.last.index, log.last_index());
    target.receive(source.snapshots(), &meta);
    let old_reader: Arc<Reader> = target.reader();
    let snapshots = target.snapshots().clone();
    let events = target.state_mut().install(&snapshots, &meta).expect("installs");
    assert_eq!(
        events,
        vec![Event::Reloaded {
            index: meta.last.index
        }]
    );
    assert_eq!(target.rows(), source.rows());
    assert_eq!(
        old_reader.applied(),
        meta.last.index,
        "readers go on with the new state"
    );
    assert_eq!(old_reader.config_count(), source.reader().config_count());
    // Both go on, the operation ids included: what was applied before the snapshot is not again.
    let repeated = log.repeat_last_command();
    let next = log.command(put("after", "x", 9));
    for node in [&mut source, &mut target] {
        let done = node
            .state_mut()
            .apply(&[repeated.clone(), next.clone()])
            .expect("applies");
        assert!(
            done.events
                .iter()
                .all(|event| matches!(event, Event::ConfigChanged { index, .. } if *index == next.index()))
        );
    }
    assert_eq!(target.rows(), source.rows());
    drop(old_reader);
    let target = target.restart(&log);
    assert_eq!(target.rows(), source.rows());
    assert_eq!(target.state().applied().id.index, next.index());
}
