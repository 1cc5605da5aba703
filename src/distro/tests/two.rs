//! Stories of few nodes, told message by message.

use std::collections::BTreeMap;

use crate::distro::{BEGINNING_MS, Distro, GRACE_MS, Out, REDO_MS};
use crate::model::{Endpoint, NamespaceId, ServiceKey};
use crate::naming::{Filter, Instance, Origin, Owner, Registry, Stamp, StampClock, Times};

/// The wall clock at the beginning.
const WALL_MS: u64 = 1_000_000_000;

struct Node {
    registry: Registry,
    distro: Distro,
    started_ms: u64,
}

/// Nodes whose messages arrive at once.
#[derive(Default)]
struct Nodes {
    nodes: BTreeMap<u64, Node>,
    now_ms: u64,
}

impl Nodes {
    fn of(count: u64) -> Nodes {
        let mut nodes = Nodes::default();
        for id in 1..=count {
            nodes.start(id, count);
        }
        nodes.pass(1_000);
        nodes
    }

    /// Starts a node anew, connected to all others.
    fn start(&mut self, id: u64, count: u64) {
        let me = Origin {
            node: id,
            boot: self.now_ms + 1,
        };
        let node = Node {
            registry: Registry::new(me, StampClock::new(WALL_MS + self.now_ms, BEGINNING_MS)),
            distro: Distro::new(me, 1..=count, BEGINNING_MS),
            started_ms: self.now_ms,
        };
        self.nodes.insert(id, node);
        let others: Vec<u64> = self.nodes.keys().copied().filter(|other| *other != id).collect();
        for other in others {
            self.connect(id, other);
        }
        self.deliver();
    }

    fn connect(&mut self, one: u64, other: u64) {
        for (a, b) in [(one, other), (other, one)] {
            self.at(a, |node, now_ms| {
                assert!(node.distro.on_connected(now_ms, &node.registry, b));
            });
        }
    }

    fn part(&mut self, one: u64, other: u64) {
        for (a, b) in [(one, other), (other, one)] {
            self.at(a, |node, _| node.distro.on_disconnected(b));
        }
    }

    fn stop(&mut self, id: u64) {
        self.nodes.remove(&id);
        for node in self.nodes.values_mut() {
            node.distro.on_disconnected(id);
        }
    }

    fn at<T>(&mut self, id: u64, act: impl FnOnce(&mut Node, u64) -> T) -> T {
        let now_ms = self.now_ms;
        let node = self.nodes.get_mut(&id).expect("it runs");
        let local = BEGINNING_MS + now_ms - node.started_ms;
        act(node, local)
    }

    fn deliver(&mut self) {
        while self.deliver_some() {}
    }

    /// What has been said until now; false if that is nothing.
    fn deliver_some(&mut self) -> bool {
        let mut under_way = Vec::new();
        for (id, node) in &mut self.nodes {
            under_way.extend(node.distro.take_out().into_iter().map(|out| (*id, out)));
        }
        let any = !under_way.is_empty();
        for (from, Out { to, message }) in under_way {
            if self.nodes.contains_key(&to) {
                self.at(to, |node, now_ms| {
                    node.distro.on_message(now_ms, &mut node.registry, from, message);
                });
            }
        }
        any
    }

    fn pass(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        while self.now_ms < end {
            self.now_ms += 100;
            let ids: Vec<u64> = self.nodes.keys().copied().collect();
            for id in ids {
                self.at(id, |node, now_ms| {
                    node.registry.tick(now_ms);
                    node.distro.poll(now_ms, &mut node.registry);
                });
            }
            self.deliver();
        }
    }

    fn register(&mut self, id: u64, owner: &Owner, port: u16) {
        self.at(id, |node, now_ms| {
            let endpoint = Endpoint::new("10.0.0.1", port, "");
            let done =
                node.registry
                    .register(now_ms, owner, &service(), &endpoint, Instance::default(), true);
            done.expect("the first kind");
        });
    }

    fn shows(&mut self, id: u64) -> bool {
        self.at(id, |node, _| {
            let view = node.registry.view(&service(), &Filter::default());
            view.is_some_and(|view| !view.hosts.is_empty())
        })
    }

    fn is_loading(&mut self, id: u64) -> bool {
        self.at(id, |node, _| node.distro.is_loading())
    }
}

fn service() -> ServiceKey {
    ServiceKey::new(&NamespaceId::default(), "g", "s")
}

#[test]
fn a_node_starts_beside_peers_whose_records_are_all_gone() {
    let mut nodes = Nodes::of(3);
    nodes.register(1, &Owner::Beats, 1);
    nodes.register(2, &Owner::Beats, 2);
    nodes.pass(40_000);
    assert!(!nodes.shows(1), "no beats came");
    nodes.stop(3);
    nodes.start(3, 3);
    nodes.pass(1_000);
    assert!(!nodes.is_loading(3), "there is nothing to load");
}

#[test]
fn nodes_that_all_restart_wait_for_their_clients_and_one_that_does_alone_does_not() {
    let awaits = |nodes: &mut Nodes, id| nodes.at(id, |node, now_ms| node.distro.awaits_clients(now_ms));
    let mut nodes = Nodes::default();
    for id in 1..=3 {
        nodes.start(id, 3);
        nodes.at(id, |node, now_ms| node.distro.await_clients(now_ms + REDO_MS));
    }
    nodes.pass(1_000);
    // That one of them is back does not mean that all are.
    nodes.register(1, &Owner::Connection("c".into()), 1);
    nodes.pass(1_000);
    for id in 1..=3 {
        assert!(!nodes.is_loading(id) && awaits(&mut nodes, id), "node {id}");
    }
    nodes.pass(REDO_MS);
    assert!((1..=3).all(|id| !awaits(&mut nodes, id)));
    nodes.pass(6_000);
    nodes.stop(2);
    nodes.start(2, 3);
    nodes.at(2, |node, now_ms| node.distro.await_clients(now_ms + REDO_MS));
    nodes.pass(1_000);
    assert!(!awaits(&mut nodes, 2), "the others have told it");
    assert!(nodes.shows(2));
}

#[test]
fn what_one_node_drops_alone_is_shown_as_newer_by_nobody() {
    let mut nodes = Nodes::of(3);
    nodes.register(3, &Owner::Connection("c".into()), 3);
    nodes.register(1, &Owner::Connection("d".into()), 1);
    nodes.pass(1_000);
    nodes.stop(3);
    nodes.pass(GRACE_MS + 1_000);
    let stamps = [1, 2].map(|id| nodes.at(id, |node, _| node.registry.version(&service())));
    let [Some((dropped, one)), Some((_, two))] = stamps else {
        panic!("the service is there: {stamps:?}");
    };
    assert!(
        dropped.0 > WALL_MS + GRACE_MS,
        "{stamps:?}: what node 3 had said is dropped"
    );
    assert_eq!(one, two);
}

/// Its machine is gone: nothing ends its streams.
#[test]
fn a_grace_begins_when_the_node_was_heard_last() {
    let mut nodes = Nodes::of(3);
    nodes.register(3, &Owner::Connection("c".into()), 3);
    nodes.pass(1_000);
    nodes.nodes.remove(&3);
    nodes.pass(GRACE_MS - 2_000);
    assert!(nodes.shows(1) && nodes.shows(2));
    nodes.pass(3_000);
    assert!(!nodes.shows(1) && !nodes.shows(2));
}

#[test]
fn who_was_alone_drops_nothing_before_it_was_told_who_is_heard() {
    let mut nodes = Nodes::of(3);
    nodes.register(3, &Owner::Connection("c".into()), 3);
    nodes.pass(1_000);
    nodes.part(1, 2);
    nodes.part(1, 3);
    nodes.pass(GRACE_MS + 10_000);
    assert!(nodes.shows(1), "it sees no majority");
    nodes.connect(1, 2);
    assert!(nodes.deliver_some(), "who they are, and not more");
    nodes.at(1, |node, now_ms| node.distro.poll(now_ms, &mut node.registry));
    assert!(nodes.shows(1), "node 2 hears node 3");
    nodes.pass(1_000);
    assert!(nodes.shows(1));
}

#[test]
fn who_was_alone_gives_up_nobody_whom_another_one_has_just_heard() {
    let mut nodes = Nodes::of(3);
    nodes.register(3, &Owner::Connection("c".into()), 3);
    nodes.pass(1_000);
    nodes.part(1, 2);
    nodes.part(1, 3);
    nodes.pass(GRACE_MS + 15_000);
    nodes.stop(3);
    nodes.pass(5_000);
    nodes.connect(1, 2);
    nodes.pass(GRACE_MS - 7_000);
    assert!(
        nodes.shows(1) && nodes.shows(2),
        "node 2 heard node 3 less than the grace ago"
    );
    nodes.pass(4_000);
    assert!(!nodes.shows(1) && !nodes.shows(2));
}

#[test]
fn a_grace_goes_on_over_restarts_of_those_who_hold_the_copies() {
    let mut nodes = Nodes::of(3);
    nodes.register(3, &Owner::Connection("c".into()), 3);
    nodes.pass(1_000);
    nodes.stop(3);
    nodes.pass(GRACE_MS - 15_000);
    nodes.stop(2);
    nodes.start(2, 3);
    nodes.pass(5_000);
    assert!(nodes.shows(1) && nodes.shows(2), "the grace is not over");
    nodes.pass(12_000);
    assert!(!nodes.shows(1) && !nodes.shows(2));
}

#[test]
fn a_node_with_a_new_disk_waits_for_clients_as_long_as_the_others() {
    let awaits = |nodes: &mut Nodes, id| nodes.at(id, |node, now_ms| node.distro.awaits_clients(now_ms));
    let mut nodes = Nodes::default();
    for id in 1..=2 {
        nodes.start(id, 3);
        nodes.at(id, |node, now_ms| node.distro.await_clients(now_ms + REDO_MS));
    }
    // At once, and when the others have found long since that nobody knows.
    for after_ms in [100, 8_000] {
        nodes.pass(after_ms);
        nodes.start(3, 3);
        nodes.pass(1_000);
        assert!(!nodes.is_loading(3) && awaits(&mut nodes, 3));
        nodes.stop(3);
    }
    nodes.start(3, 3);
    nodes.pass(4_000);
    assert!(awaits(&mut nodes, 3), "14.1 s after the others began");
    nodes.pass(2_000);
    assert!(
        (1..=3).all(|id| !awaits(&mut nodes, id)),
        "nobody waits longer than the first"
    );
}

#[test]
fn nobody_stays_below_what_another_node_showed_between_two_changes() {
    let mut nodes = Nodes::of(3);
    let stamp = |nodes: &mut Nodes, id| {
        nodes.at(id, |node, _| {
            node.registry.version(&service()).map(|(_, stamp)| stamp)
        })
    };
    // Logical time of node 1 is ahead, and the others have not heard so yet.
    let ahead = Times {
        lists: Stamp(2 * WALL_MS),
        ..Times::default()
    };
    nodes.at(1, |node, now_ms| node.registry.hear(now_ms, ahead));
    nodes.register(3, &Owner::Connection("c".into()), 1);
    nodes.pass(100);
    let between = stamp(&mut nodes, 1);
    nodes.register(3, &Owner::Connection("c".into()), 2);
    nodes.pass(1_200);
    for id in 1..=3 {
        assert!(stamp(&mut nodes, id) > between, "node {id}");
    }
    // What was told while somebody was away reaches him later.
    nodes.stop(2);
    nodes.register(3, &Owner::Connection("c".into()), 3);
    nodes.pass(3_000);
    let highest = (1..=3)
        .filter(|id| *id != 2)
        .filter_map(|id| stamp(&mut nodes, id))
        .max();
    nodes.start(2, 3);
    nodes.pass(2_000);
    assert!(stamp(&mut nodes, 2) >= highest);
}

/// Of two nodes that do not hear each other one was started anew, so that its lists are a minute ahead.
#[test]
fn what_is_deregistered_stays_away_though_another_node_is_ahead() {
    let mut nodes = Nodes::of(2);
    nodes.register(2, &Owner::Beats, 1);
    nodes.pass(1_000);
    nodes.part(1, 2);
    nodes.at(1, |node, now_ms| {
        let mut times = node.registry.times(now_ms);
        times.lists.0 += 60_000;
        node.registry.hear(
            now_ms,
            Times {
                acts: Stamp(0),
                ..times
            },
        );
    });
    nodes.register(1, &Owner::Beats, 1);
    nodes.pass(100);
    nodes.at(2, |node, now_ms| {
        let endpoint = Endpoint::new("10.0.0.1", 1, "");
        assert!(node.registry.deregister(now_ms, &service(), &endpoint));
    });
    nodes.connect(1, 2);
    nodes.pass(1_000);
    assert!(!nodes.shows(1) && !nodes.shows(2));
}

#[test]
fn who_cannot_ask_all_members_claims_nothing_for_a_while() {
    let mut nodes = Nodes::default();
    nodes.start(1, 3);
    nodes.pass(REDO_MS - 100);
    let awaits = |nodes: &mut Nodes| nodes.at(1, |node, now_ms| node.distro.awaits_clients(now_ms));
    assert!(
        !nodes.is_loading(1) && awaits(&mut nodes),
        "it knew nothing, as with a new disk"
    );
    nodes.pass(200);
    assert!(!awaits(&mut nodes));
}

#[test]
fn a_node_loads_until_it_knows_who_the_members_are() {
    let me = Origin { node: 1, boot: 1 };
    let mut registry = Registry::new(me, StampClock::new(WALL_MS, BEGINNING_MS));
    let mut distro = Distro::new(me, [], BEGINNING_MS);
    drop(distro.poll(BEGINNING_MS + 60_000, &mut registry));
    assert!(distro.is_loading());
    distro.set_members([1]);
    drop(distro.poll(BEGINNING_MS + 60_100, &mut registry));
    assert!(!distro.is_loading() && !distro.awaits_clients(BEGINNING_MS + 60_100));
}

#[test]
fn who_held_something_waits_no_longer_than_its_own_time_or_until_others_know() {
    let mut nodes = Nodes::default();
    let awaits = |nodes: &mut Nodes, id| nodes.at(id, |node, now_ms| node.distro.awaits_clients(now_ms));
    let start = |nodes: &mut Nodes, id| {
        nodes.start(id, 3);
        nodes.at(id, |node, now_ms| node.distro.await_clients(now_ms + REDO_MS));
    };
    start(&mut nodes, 1);
    nodes.pass(3_000);
    start(&mut nodes, 2);
    nodes.pass(8_000);
    start(&mut nodes, 3);
    nodes.pass(3_500);
    assert!((1..=3).all(|id| awaits(&mut nodes, id)));
    nodes.register(1, &Owner::Connection("c".into()), 1);
    nodes.pass(1_000);
    assert!(!awaits(&mut nodes, 1), "its 15 s are over");
    nodes.pass(6_000);
    assert!(
        !awaits(&mut nodes, 2) && !awaits(&mut nodes, 3),
        "the first one knows, and has told them"
    );
    assert!(nodes.shows(3));
}

#[test]
fn a_stream_that_stands_before_its_peer_is_known_as_a_member_is_not_taken() {
    let me = Origin { node: 1, boot: 1 };
    let registry = Registry::new(me, StampClock::new(WALL_MS, BEGINNING_MS));
    let mut distro = Distro::new(me, [], BEGINNING_MS);
    assert!(!distro.on_connected(BEGINNING_MS, &registry, 2));
    assert!(distro.take_out().is_empty());
    distro.set_members([1, 2]);
    assert!(distro.on_connected(BEGINNING_MS, &registry, 2));
    assert_eq!(distro.take_out().len(), 1);
}
