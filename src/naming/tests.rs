//! What the registry promises to clients, to readers and to other nodes.

use std::sync::Arc;

use crate::model::{Endpoint, NamespaceId, ServiceKey};

use super::*;

mod many;

const ME: Origin = Origin { node: 1, boot: 1 };
const OTHER: Origin = Origin { node: 2, boot: 1 };

fn registry(me: Origin) -> Registry {
    Registry::new(me, StampClock::new(1_000_000, 0))
}

fn service(name: &str) -> ServiceKey {
    ServiceKey::new(&NamespaceId::default(), "g", name)
}

fn at(port: u16) -> Endpoint {
    Endpoint::new("10.0.0.1", port, "")
}

fn connection(name: &str) -> Owner {
    Owner::Connection(name.into())
}

fn instance(weight: f64) -> Instance {
    Instance {
        weight,
        ..Instance::default()
    }
}

/// Ports and health of what everybody sees.
fn seen(registry: &Registry, name: &str) -> Vec<(u16, bool)> {
    let view = registry
        .view(&service(name), &Filter::default())
        .unwrap_or_default();
    view.hosts
        .iter()
        .map(|(at, seen)| (at.port, seen.healthy))
        .collect()
}

fn register(registry: &mut Registry, now_ms: u64, owner: &Owner, name: &str, port: u16) {
    registry
        .register(now_ms, owner, &service(name), &at(port), instance(1.0), true)
        .expect("ephemeral");
}

/// Brings `to` up to date with what `from` itself has changed; true if anything was sent.
fn send(now_ms: u64, from: &Registry, to: &mut Registry) -> bool {
    let mut known = to.known(from.me());
    let mut sent = false;
    while known < from.newest() {
        let batch = from.batch(known, 2).expect("nothing was forgotten");
        known = to.apply(now_ms, batch).expect("no gap");
        sent = true;
    }
    if sent {
        assert_eq!(to.digest_of(from.me()), Some(from.own_digest()));
    }
    sent
}

/// Page by page.
fn replace_whole(now_ms: u64, from: &Registry, to: &mut Registry, bucket: usize) {
    let mut after = None;
    loop {
        let page = from.bucket(from.me(), bucket, after.as_ref());
        after = page.next_after().cloned();
        to.replace(now_ms, page).expect("another's");
        if after.is_none() {
            return;
        }
    }
}

fn changed(registry: &mut Registry) -> usize {
    let events = registry.take_events();
    let changes = events
        .iter()
        .filter(|event| matches!(event, Event::Changed { .. }));
    changes.count()
}

#[test]
fn an_instance_that_beats_stays_and_one_that_stops_goes() {
    let mut registry = registry(ME);
    register(&mut registry, 0, &Owner::Beats, "s", 1);
    register(&mut registry, 0, &Owner::Beats, "s", 2);
    for now_ms in (0..60_000).step_by(100) {
        registry.tick(now_ms);
        if now_ms % 5_000 == 0 {
            assert_eq!(
                registry.beat(now_ms, &service("s"), &at(1), None),
                Beat::Taken { interval_ms: 5_000 }
            );
        }
        let second = match now_ms {
            0..15_000 => Some((2, true)),
            15_000..30_000 => Some((2, false)),
            _ => None,
        };
        let expected: Vec<_> = [Some((1, true)), second].into_iter().flatten().collect();
        assert_eq!(seen(&registry, "s"), expected, "at {now_ms}");
    }
    assert_eq!(registry.beat(60_000, &service("s"), &at(2), None), Beat::Unknown);
    let full = registry.beat(60_000, &service("s"), &at(2), Some(instance(2.0)));
    assert_eq!(full, Beat::Taken { interval_ms: 5_000 });
    assert_eq!(seen(&registry, "s"), [(1, true), (2, true)]);
}

#[test]
fn a_beat_revives_and_only_what_readers_see_is_told() {
    let mut registry = registry(ME);
    register(&mut registry, 0, &Owner::Beats, "s", 1);
    assert_eq!(changed(&mut registry), 1);
    register(&mut registry, 10, &Owner::Beats, "s", 1);
    assert_eq!(changed(&mut registry), 0, "a redo is no change");
    let newest = registry.newest();
    registry.beat(1_000, &service("s"), &at(1), None);
    assert_eq!(registry.newest(), newest, "a beat is not replicated");
    registry.tick(16_100);
    assert_eq!(
        (changed(&mut registry), seen(&registry, "s")),
        (1, vec![(1, false)])
    );
    registry.beat(17_000, &service("s"), &at(1), None);
    assert_eq!(
        (changed(&mut registry), seen(&registry, "s")),
        (1, vec![(1, true)])
    );
}

/// What readers of a service are told.
fn stamp(registry: &Registry, name: &str) -> Stamp {
    let version = registry.version(&service(name));
    version.expect("a service that is known").1
}

#[test]
fn stamps_of_a_service_rise_with_every_change() {
    let mut registry = registry(ME);
    let mut last = Stamp::default();
    for round in 0..50 {
        register(&mut registry, 0, &Owner::Beats, "s", round);
        let stamp = stamp(&registry, "s");
        assert!(stamp > last, "{stamp:?} after {last:?} in the same millisecond");
        last = stamp;
    }
    assert!(registry.raise(0, &service("s")) > last);
}

#[test]
fn who_takes_a_change_shows_a_higher_stamp_than_its_sender() {
    let (mut a, mut b) = (registry(ME), registry(OTHER));
    register(&mut b, 0, &Owner::Beats, "s", 2);
    register(&mut a, 9, &Owner::Beats, "s", 1);
    send(9, &a, &mut b);
    assert_ne!(seen(&a, "s"), seen(&b, "s"));
    assert!(
        stamp(&b, "s") > stamp(&a, "s"),
        "a client that comes from there must not take this for older"
    );
}

#[test]
fn two_connections_may_own_one_instance() {
    let mut registry = registry(ME);
    register(&mut registry, 0, &connection("old"), "s", 1);
    register(&mut registry, 5, &connection("new"), "s", 1);
    registry.take_events();
    registry.disconnect(10, &Arc::from("old"));
    assert_eq!(
        (changed(&mut registry), seen(&registry, "s")),
        (0, vec![(1, true)])
    );
    registry.disconnect(20, &Arc::from("new"));
    assert_eq!(seen(&registry, "s"), []);
}

fn covered(registry: &mut Registry) -> Vec<String> {
    let events = registry.take_events().into_iter();
    events
        .filter_map(|event| match event {
            Event::Covered(connection) => Some(connection.to_string()),
            _ => None,
        })
        .collect()
}

#[test]
fn what_is_withdrawn_stays_away_though_an_older_word_is_still_on_its_way() {
    let (mut other, mut registry) = (registry(OTHER), registry(ME));
    register(&mut other, 0, &connection("old"), "s", 1);
    register(&mut registry, 10, &connection("new"), "s", 1);
    registry.withdraw(20, &Arc::from("new"), &service("s"), &at(1));
    assert_eq!(seen(&registry, "s"), []);
    send(30, &other, &mut registry);
    assert_eq!(seen(&registry, "s"), []);
    send(30, &registry, &mut other);
    assert_eq!(seen(&other, "s"), []);
}

#[test]
fn who_withdraws_speaks_for_itself_and_others_are_asked() {
    let mut registry = registry(ME);
    register(&mut registry, 0, &connection("old"), "s", 1);
    register(&mut registry, 5, &connection("new"), "s", 1);
    registry.take_events();
    registry.withdraw(10, &"new".into(), &service("s"), &at(1));
    assert_eq!(seen(&registry, "s"), [(1, true)]);
    assert_eq!(covered(&mut registry), ["old"]);
    // It withdrew already, and never kept another one: nothing of anybody is touched.
    registry.withdraw(11, &"new".into(), &service("s"), &at(2));
    registry.withdraw(11, &"old".into(), &service("s"), &at(1));
    assert_eq!((seen(&registry, "s"), covered(&mut registry)), (vec![], vec![]));
    assert_eq!(
        registry.own_records(),
        1,
        "a tombstone: another node's word may be on its way"
    );
}

#[test]
fn what_an_older_connection_elsewhere_keeps_is_covered_and_what_a_newer_one_keeps_is_not() {
    let (mut a, mut b) = (registry(ME), registry(OTHER));
    register(&mut a, 0, &connection("first"), "s", 1);
    send(1, &a, &mut b);
    register(&mut b, 2, &connection("second"), "s", 1);
    send(3, &b, &mut a);
    // The client has moved to the other node, and this connection of it ends in order.
    let mut c = registry(Origin { node: 3, boot: 1 });
    send(3, &a, &mut c);
    send(3, &b, &mut c);
    a.withdraw(4, &"first".into(), &service("s"), &at(1));
    assert_eq!(seen(&a, "s"), [(1, true)]);
    assert_eq!(a.own_records(), 0);
    // The same where the first node was killed before it could say anything: its copy is covered.
    b.withdraw(5, &"second".into(), &service("s"), &at(1));
    send(6, &b, &mut c);
    assert_eq!((seen(&b, "s"), seen(&c, "s")), (vec![], vec![]));
}

#[test]
fn who_knows_of_nothing_may_withdraw_what_a_lost_connection_left() {
    let (mut a, mut b) = (registry(ME), registry(OTHER));
    register(&mut a, 0, &connection("lost"), "s", 1);
    send(1, &a, &mut b);
    b.withdraw(2, &"fresh".into(), &service("s"), &at(1));
    assert_eq!(seen(&b, "s"), []);
    a.take_events();
    send(3, &b, &mut a);
    assert_eq!(
        (seen(&a, "s"), covered(&mut a)),
        (vec![], vec!["lost".to_owned()])
    );
    a.reassert(4, &"lost".into());
    send(5, &a, &mut b);
    assert_eq!((seen(&a, "s"), seen(&b, "s")), (vec![(1, true)], vec![(1, true)]));
}

#[test]
fn a_set_replaces_what_the_connection_kept_before() {
    let mut registry = registry(ME);
    let id: Arc<str> = "c".into();
    let set = |ports: &[u16]| {
        ports
            .iter()
            .map(|port| (at(*port), instance(1.0), true))
            .collect()
    };
    registry
        .register_set(0, &id, &service("s"), set(&[1, 2]))
        .unwrap();
    registry
        .register_set(1, &id, &service("s"), set(&[2, 3]))
        .unwrap();
    assert_eq!(seen(&registry, "s"), [(2, true), (3, true)]);
}

#[test]
fn what_was_deregistered_does_not_come_back_by_what_was_under_way() {
    let mut registry = registry(ME);
    register(&mut registry, 0, &Owner::Beats, "s", 1);
    assert!(registry.deregister(1_000, &service("s"), &at(1)));
    assert!(
        !registry.deregister(1_000, &service("s"), &at(1)),
        "known as gone"
    );
    assert_eq!(registry.beat(1_001, &service("s"), &at(1), None), Beat::Unknown);
    let beat = registry.beat(10_999, &service("s"), &at(1), Some(instance(1.0)));
    assert_eq!(
        (beat, seen(&registry, "s")),
        (Beat::Taken { interval_ms: 5_000 }, vec![])
    );
    registry.beat(11_000, &service("s"), &at(1), Some(instance(1.0)));
    assert_eq!(seen(&registry, "s"), [(1, true)]);
    registry.deregister(12_000, &service("s"), &at(1));
    register(&mut registry, 12_001, &Owner::Beats, "s", 1);
    assert_eq!(seen(&registry, "s"), [(1, true)], "a register counts at once");
}

#[test]
fn a_tombstone_goes_when_its_time_is_over_and_everybody_knows() {
    let mut registry = registry(ME);
    register(&mut registry, 0, &Owner::Beats, "s", 1);
    registry.deregister(0, &service("s"), &at(1));
    let tombstone = registry.newest();
    registry.tick(95_000);
    assert_eq!(registry.newest(), tombstone, "nobody has confirmed it");
    registry.confirmed(tombstone);
    registry.tick(100_000);
    assert!(registry.newest() > tombstone);
    assert!(registry.knows(&service("s")));
    registry.sweep(160_000);
    assert!(!registry.knows(&service("s")));
    assert_eq!(registry.services(None).count(), 0);
}

#[test]
fn timers_do_not_pile_up() {
    let mut registry = registry(ME);
    for now_ms in 0..1_000 {
        register(&mut registry, now_ms, &Owner::Beats, "s", 1);
        registry.deregister(now_ms, &service("s"), &at(1));
    }
    let mut taken = 0;
    for now_ms in (1_000..120_000).step_by(100) {
        taken += registry.timers.take_due(now_ms, usize::MAX).len();
    }
    assert!(taken <= 2, "{taken} timers for one instance");
}

#[test]
fn nodes_see_the_same_and_the_latest_act_counts() {
    let (mut a, mut b) = (registry(ME), registry(OTHER));
    register(&mut a, 0, &Owner::Beats, "s", 1);
    send(1, &a, &mut b);
    assert_eq!(seen(&b, "s"), [(1, true)]);
    // The client beats at the other node now.
    b.beat(2_000, &service("s"), &at(1), None);
    send(2_001, &b, &mut a);
    // The record of the first node times out there, hidden.
    for now_ms in (0..40_000).step_by(100) {
        a.tick(now_ms);
        if now_ms % 5_000 == 0 {
            b.beat(2_000 + now_ms, &service("s"), &at(1), None);
        }
        b.tick(now_ms);
        send(now_ms, &a, &mut b);
        send(now_ms, &b, &mut a);
        assert_eq!(seen(&a, "s"), [(1, true)]);
        assert_eq!(seen(&b, "s"), [(1, true)]);
    }
    assert_eq!(
        a.own_digest().sums().iter().sum::<u64>(),
        0,
        "nothing of a's own is left"
    );
    assert!(b.deregister(42_000, &service("s"), &at(1)));
    send(42_001, &b, &mut a);
    assert_eq!((seen(&a, "s"), seen(&b, "s")), (vec![], vec![]));
}

#[test]
fn nothing_late_brings_anything_back() {
    let (mut a, mut b) = (registry(ME), registry(OTHER));
    register(&mut a, 0, &connection("c"), "s", 1);
    let late = a.batch(Revision(0), 10).unwrap();
    let late_bucket = a.bucket(ME, bucket_of(&service("s")), None);
    a.disconnect(1, &Arc::from("c"));
    send(2, &a, &mut b);
    b.apply(3, late).expect("taken, and nothing in it is new");
    assert_eq!(seen(&b, "s"), []);
    b.replace(4, late_bucket)
        .expect("taken, and nothing in it is new");
    assert_eq!(seen(&b, "s"), []);
}

#[test]
fn a_gap_is_refused_and_buckets_repair_what_was_forgotten() {
    let (mut a, mut b) = (registry(ME), registry(OTHER));
    for port in 1..=3 {
        register(&mut a, 0, &connection("c"), "s", port);
    }
    let mut gap = a.batch(Revision(2), 10).unwrap();
    assert_eq!(b.apply(0, gap.clone()), Err(Refused::Gap { floor: Revision(0) }));
    send(0, &a, &mut b);
    a.deregister(1, &service("s"), &at(2));
    a.confirmed(a.newest());
    assert_eq!(
        a.batch(Revision(3), 10),
        None,
        "a removal behind it was forgotten"
    );
    let differing = a.own_digest().differing(b.digest_of(ME).unwrap().sums());
    assert_eq!(differing, [bucket_of(&service("s"))]);
    for bucket in differing {
        replace_whole(2, &a, &mut b, bucket);
    }
    b.replaced_all(ME, a.newest());
    assert_eq!(b.digest_of(ME).unwrap(), a.own_digest());
    assert_eq!(seen(&b, "s"), [(1, true), (3, true)]);
    gap.origin = OTHER;
    assert_eq!(b.apply(0, gap), Err(Refused::Own));
}

#[test]
fn a_living_connection_answers_a_tombstone_from_elsewhere() {
    let (mut a, mut b) = (registry(ME), registry(OTHER));
    register(&mut a, 0, &connection("c"), "s", 1);
    send(1, &a, &mut b);
    b.deregister(2, &service("s"), &at(1));
    send(3, &b, &mut a);
    assert_eq!(seen(&a, "s"), []);
    assert!(a.take_events().contains(&Event::Covered("c".into())));
    a.reassert(4, &Arc::from("c"));
    send(5, &a, &mut b);
    assert_eq!((seen(&a, "s"), seen(&b, "s")), (vec![(1, true)], vec![(1, true)]));
}

#[test]
fn an_origin_that_is_gone_leaves_nothing() {
    let (mut a, mut b) = (registry(ME), registry(OTHER));
    register(&mut a, 0, &connection("c"), "s", 1);
    register(&mut b, 0, &connection("d"), "s", 2);
    send(1, &a, &mut b);
    assert_eq!(b.origins().collect::<Vec<_>>(), [(ME, Revision(1), 1)]);
    b.drop_origin(2, ME);
    assert_eq!(seen(&b, "s"), [(2, true)]);
    assert_eq!(b.origins().count(), 0);
}

#[test]
fn operators_words_stand_over_those_of_clients() {
    let mut registry = registry(ME);
    register(&mut registry, 0, &Owner::Beats, "s", 1);
    let off = InstanceOverride {
        enabled: Some(false),
        ..InstanceOverride::default()
    };
    registry.set_override(1, &service("s"), &at(1), Some(off));
    assert_eq!(seen(&registry, "s"), []);
    register(&mut registry, 2, &Owner::Beats, "s", 1);
    assert_eq!(seen(&registry, "s"), [], "a register does not wipe it");
    let all = Filter {
        with_disabled: true,
        ..Filter::default()
    };
    assert_eq!(registry.view(&service("s"), &all).unwrap().hosts.len(), 1);
    registry.set_override(3, &service("s"), &at(1), None);
    assert_eq!(seen(&registry, "s"), [(1, true)]);
}

#[test]
fn few_healthy_ones_make_all_look_healthy_where_a_threshold_says_so() {
    let mut registry = registry(ME);
    for port in 1..=4 {
        let healthy = port == 1;
        let owner = connection("c");
        registry
            .register(0, &owner, &service("s"), &at(port), instance(1.0), healthy)
            .unwrap();
    }
    assert_eq!(
        seen(&registry, "s")
            .iter()
            .filter(|(_, healthy)| *healthy)
            .count(),
        1
    );
    let set = |protect_threshold| ServiceMetadata {
        ephemeral: true,
        protect_threshold,
        ..ServiceMetadata::default()
    };
    registry.set_service(1, &service("s"), Some(set(0.25)));
    let view = registry.view(&service("s"), &Filter::default()).unwrap();
    assert!(view.reach_protection && view.hosts.iter().all(|(_, seen)| seen.healthy));
    registry.set_service(1, &service("s"), Some(set(0.2)));
    assert!(
        !registry
            .view(&service("s"), &Filter::default())
            .unwrap()
            .reach_protection
    );
    registry.set_service(1, &service("s"), Some(set(0.0)));
    let healthy_only = Filter {
        healthy_only: true,
        ..Filter::default()
    };
    assert_eq!(
        registry.view(&service("s"), &healthy_only).unwrap().hosts.len(),
        1
    );
}

#[test]
fn a_service_holds_one_kind() {
    let mut registry = registry(ME);
    let persistent = Persistent {
        instance: Arc::new(instance(1.0)),
        healthy: true,
    };
    registry.set_persistent(0, &service("p"), &at(1), Some(persistent));
    let refused = registry.register(1, &Owner::Beats, &service("p"), &at(2), instance(1.0), true);
    assert_eq!(refused.unwrap_err().holds, Kind::Persistent);
    assert_eq!(seen(&registry, "p"), [(1, true)]);
    registry.set_persistent(2, &service("p"), &at(1), None);
    assert_eq!(registry.kind(&service("p")), None);
    register(&mut registry, 3, &Owner::Beats, "p", 2);
    assert_eq!(registry.kind(&service("p")), Some(Kind::Ephemeral));
}

/// Registering is checked by what a node knows, so of two nodes that are asked at the same moment each takes its kind.
#[test]
fn a_service_that_got_both_kinds_at_once_counts_as_persistent_and_loses_nobody() {
    let (mut a, mut b) = (registry(ME), registry(OTHER));
    let persistent = Persistent {
        instance: Arc::new(instance(1.0)),
        healthy: true,
    };
    register(&mut a, 0, &connection("c"), "s", 5);
    for port in [1, 9] {
        b.set_persistent(0, &service("s"), &at(port), Some(persistent.clone()));
        a.set_persistent(1, &service("s"), &at(port), Some(persistent.clone()));
    }
    send(1, &a, &mut b);
    for node in [&mut a, &mut b] {
        assert_eq!(seen(node, "s"), [(1, true), (5, true), (9, true)]);
        assert_eq!(node.kind(&service("s")), Some(Kind::Persistent));
        // Who is there goes on, on whatever node; nobody else comes.
        for (port, may) in [(5, true), (6, false), (1, false)] {
            let done = node.register(2, &connection("d"), &service("s"), &at(port), instance(1.0), true);
            assert_eq!(done.is_ok(), may, "{port}");
        }
        let set = |ports: &[u16]| {
            ports
                .iter()
                .map(|port| (at(*port), instance(1.0), true))
                .collect()
        };
        assert!(
            node.register_set(2, &"d".into(), &service("s"), set(&[5, 6]))
                .is_err()
        );
        assert!(
            node.register_set(2, &"d".into(), &service("s"), set(&[5]))
                .is_ok()
        );
    }
    // Gone with its clients, it does not come back.
    a.disconnect(3, &"c".into());
    a.disconnect(3, &"d".into());
    b.disconnect(3, &"d".into());
    send(4, &a, &mut b);
    assert_eq!(seen(&b, "s"), [(1, true), (9, true)]);
    assert!(
        b.register(5, &connection("e"), &service("s"), &at(5), instance(1.0), true)
            .is_err()
    );
    for port in [1, 9] {
        b.set_persistent(6, &service("s"), &at(port), None);
    }
    assert_eq!(b.kind(&service("s")), None);
}
