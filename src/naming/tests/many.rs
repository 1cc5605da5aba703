//! What is done for many is done in steps, and what a burst leaves is given back.

use super::*;

fn fill(registry: &mut Registry, owner: &Owner, count: usize) {
    for number in 0..count {
        let name = format!("s{}", number / 10);
        register(registry, 0, owner, &name, (number % 10) as u16 + 1);
    }
}

#[test]
fn an_origin_of_many_is_dropped_in_steps_and_tells_nobody_meanwhile() {
    let (mut a, mut b) = (registry(ME), registry(OTHER));
    fill(&mut a, &connection("c"), 5_000);
    send(1, &a, &mut b);
    let mut steps = 0;
    while b.drop_origin(2, ME) == Dropped::More {
        steps += 1;
        assert_eq!(
            b.known(ME),
            Revision::default(),
            "nobody takes what is left for all there is"
        );
        assert_eq!(b.bucket(ME, 0, None).through, Revision::default());
    }
    assert!((3..=5).contains(&steps), "{steps} steps");
    assert_eq!(b.origins().count(), 0);
    assert_eq!(b.instance_count(), 0);
    assert!(!b.take_restamped().is_empty());
}

#[test]
fn an_origin_that_comes_back_while_it_is_dropped_is_known_whole() {
    let (mut a, mut b) = (registry(ME), registry(OTHER));
    fill(&mut a, &connection("c"), 3_000);
    send(1, &a, &mut b);
    assert_eq!(b.drop_origin(2, ME), Dropped::More);
    // As it says it to whoever knows nothing.
    assert!(send(3, &a, &mut b));
    assert_eq!(b.instance_count(), 3_000);
    while b.drop_origin(4, ME) == Dropped::More {}
    assert_eq!(
        b.instance_count(),
        0,
        "from the beginning, and not from where the last one ended"
    );
}

#[test]
fn a_tombstone_that_covers_something_outlives_the_drop_of_many() {
    let (mut a, mut b) = (registry(ME), registry(OTHER));
    fill(&mut a, &connection("c"), 2_000);
    register(&mut b, 0, &connection("d"), "covered", 1);
    send(1, &b, &mut a);
    a.deregister(2, &service("covered"), &at(1));
    send(3, &a, &mut b);
    let known = b.known(ME);
    let mut dropped = b.drop_origin(4, ME);
    while dropped == Dropped::More {
        dropped = b.drop_origin(4, ME);
    }
    assert_eq!(dropped, Dropped::Covering);
    assert_eq!(b.origins().collect::<Vec<_>>(), [(ME, known, 1)]);
    assert_eq!(seen(&b, "covered"), []);
}

#[test]
fn many_deadlines_are_looked_at_in_steps() {
    let mut registry = registry(ME);
    fill(&mut registry, &Owner::Beats, 2_500);
    let mut steps = 1;
    while registry.tick(15_000) {
        steps += 1;
    }
    assert_eq!(steps, 3);
    let ill = (0..250).flat_map(|number| seen(&registry, &format!("s{number}")));
    assert_eq!(ill.filter(|(_, healthy)| !healthy).count(), 2_500);
}

#[test]
fn renewed_deadlines_count_for_who_was_there_and_for_who_is_not_covered() {
    let (mut a, mut b) = (registry(ME), registry(OTHER));
    register(&mut a, 0, &Owner::Beats, "s", 1);
    register(&mut a, 0, &Owner::Beats, "s", 2);
    send(1, &a, &mut b);
    b.deregister(2, &service("s"), &at(2));
    send(3, &b, &mut a);
    a.renew_deadlines(10_000);
    register(&mut a, 12_000, &Owner::Beats, "s", 3);
    let tick_until = |a: &mut Registry, to_ms: u64| {
        (0..=to_ms).step_by(100).for_each(|now| {
            a.tick(now);
        })
    };
    tick_until(&mut a, 24_900);
    assert_eq!(seen(&a, "s"), [(1, true), (3, true)]);
    tick_until(&mut a, 25_100);
    assert_eq!(seen(&a, "s"), [(1, false), (3, true)]);
    assert_eq!(a.own_records(), 3);
    tick_until(&mut a, 30_100);
    assert_eq!(a.own_records(), 2, "what is covered has no client");
    tick_until(&mut a, 40_100);
    assert_eq!(seen(&a, "s"), [(3, false)]);
}

#[test]
fn a_connection_of_many_goes_in_steps() {
    let mut registry = registry(ME);
    fill(&mut registry, &connection("c"), 25);
    let id = Arc::from("c");
    assert!(registry.disconnect_some(1, &id, 10));
    assert_eq!((registry.instance_count(), registry.kept("c")), (15, 15));
    assert!(registry.disconnect_some(1, &id, 10));
    assert!(!registry.disconnect_some(1, &id, 10));
    assert_eq!(
        (registry.instance_count(), registry.connection_counts()),
        (0, (0, 0))
    );
    assert!(!registry.disconnect_some(1, &id, 10));
}

#[test]
fn what_a_burst_leaves_is_given_back() {
    let mut registry = registry(ME);
    fill(&mut registry, &connection("stays"), 100);
    for number in 0..20_000u16 {
        let owner = connection(&format!("c{number}"));
        register(&mut registry, 0, &owner, "burst", number);
    }
    fill(&mut registry, &connection("late"), 100);
    let room = registry.own.room();
    assert!(room >= 20_200, "{room}");
    for number in 0..20_000u16 {
        registry.disconnect(1, &Arc::from(format!("c{number}").as_str()));
    }
    registry.shrink();
    // The places of those who came last hold the others' up, until they go, too.
    registry.disconnect(2, &Arc::from("late"));
    registry.shrink();
    let room = registry.own.room();
    assert!(room <= 200, "{room}");
    assert!(registry.connections.capacity() < 100);
    fill(&mut registry, &connection("again"), 100);
    assert_eq!(
        (
            registry.own_records(),
            registry.kept("stays"),
            registry.kept("again")
        ),
        (200, 100, 100)
    );
}

#[test]
fn a_bucket_is_replaced_page_by_page_whatever_happens_between_two_pages() {
    let (mut a, mut b) = (registry(ME), registry(OTHER));
    let bucket = bucket_of(&service("s"));
    for port in (2..40).step_by(2) {
        register(&mut a, 0, &connection("c"), "s", port);
    }
    register(&mut a, 0, &connection("d"), "s", 10);
    replace_whole(1, &a, &mut b, bucket);
    assert_eq!(b.digest_of(ME), Some(a.own_digest()));
    // Gone before the first page, behind the last, and what is new anywhere.
    for port in [2, 20, 38] {
        a.withdraw(2, &"c".into(), &service("s"), &at(port));
    }
    for port in [1, 9, 39] {
        register(&mut a, 2, &connection("c"), "s", port);
    }
    let first = a.bucket(ME, bucket, None);
    let mut after = first.next_after().cloned();
    assert!(after.is_some());
    b.replace(3, first).unwrap();
    // Between the pages: before and behind what has been turned.
    a.withdraw(4, &"c".into(), &service("s"), &at(1));
    a.withdraw(4, &"c".into(), &service("s"), &at(30));
    let through = a.newest();
    while let Some(behind) = after {
        let page = a.bucket(ME, bucket, Some(&behind));
        after = page.next_after().cloned();
        b.replace(5, page).unwrap();
    }
    assert_ne!(b.digest_of(ME), Some(a.own_digest()), "the first page is older");
    replace_whole(6, &a, &mut b, bucket);
    b.replaced_all(ME, through);
    assert_eq!(b.digest_of(ME), Some(a.own_digest()));
}
