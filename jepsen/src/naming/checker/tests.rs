//! Records that are right, and the same with one thing wrong: the checker must tell them apart.

use super::super::record::End;
use super::*;
use crate::chaos::history::{Broken, FaultSpan};

/// A record of one service on three nodes, made step by step; times in milliseconds.
struct Made(Record);

const MS: Micros = 1_000;

impl Made {
    fn new() -> Self {
        Self(Record::default())
    }

    /// Instance 7 is registered at node 0 and acknowledged within a millisecond.
    fn registered(mut self, keeper: u32, way: Way, at: u64) -> Self {
        let life = Life {
            keeper,
            instance: 7,
            service: 0,
            way,
            node: 0,
            asked: at * MS,
            acknowledged: Some((at + 1) * MS),
            kept: Vec::new(),
            answered: None,
            expires: 30 * SECOND,
            end: None,
        };
        self.0.lives.insert(keeper, life);
        self
    }

    fn beats(mut self, keeper: u32, from: u64, to: u64) -> Self {
        let life = self.0.lives.get_mut(&keeper).expect("registered");
        life.kept.extend((from..to).step_by(1000).map(|at| at * MS));
        life.answered = life.kept.last().map(|sent| sent + MS);
        self
    }

    fn ends(mut self, keeper: u32, how: Ending, at: u64) -> Self {
        let life = self.0.lives.get_mut(&keeper).expect("registered");
        let acknowledged = (how == Ending::Deregistered).then_some((at + 1) * MS);
        life.end = Some(End {
            how,
            asked: at * MS,
            acknowledged,
            node: 0,
        });
        self
    }

    fn broken(mut self, what: Broken, from: u64, to: u64) -> Self {
        self.0.faults.push(FaultSpan {
            name: String::new(),
            broken: vec![what],
            from: from * MS,
            to: to * MS,
        });
        self
    }

    /// The node lists this (keeper of instance 7, or nothing) every 100 ms.
    fn lists(mut self, node: usize, keeper: Option<u32>, from: u64, to: u64) -> Self {
        for at in (from..to).step_by(100) {
            self.0.seen.push(Seen {
                node,
                service: 0,
                via: Via::List,
                asked: at * MS,
                answered: (at + 2) * MS,
                stamp: i64::try_from(from + 1).expect("small"),
                hosts: keeper.map(|keeper| (7, keeper, true)).into_iter().collect(),
            });
        }
        self
    }

    fn doubt(mut self, at: u64) -> Self {
        self.0.doubts.push(Doubt {
            instance: 7,
            at: at * MS,
        });
        self
    }

    fn found(&self) -> Vec<String> {
        check(&self.0, 3).violations
    }

    fn passes(&self) {
        assert_eq!(self.found(), Vec::<String>::new());
    }

    fn fails(&self, kind: &str) {
        let found = self.found();
        assert!(
            found.len() == 1 && found.iter().all(|one| one.starts_with(kind)),
            "{kind} wanted: {found:?}"
        );
    }
}

#[test]
fn a_right_life_passes_and_is_judged() {
    let made = Made::new()
        .registered(1, Way::Http, 1000)
        .beats(1, 2000, 20_000)
        .ends(1, Ending::Deregistered, 20_000)
        .lists(1, None, 0, 900)
        .lists(1, Some(1), 1100, 20_000)
        .lists(1, None, 20_100, 40_000);
    made.passes();
    let findings = check(&made.0, 3);
    assert!(findings.judged_present > 100 && findings.judged_absent > 100);
}

#[test]
fn a_node_that_showed_it_and_does_not_any_more_has_lost_it() {
    let lost = |made: Made| {
        made.registered(1, Way::Http, 1000)
            .beats(1, 2000, 20_000)
            .lists(1, Some(1), 1100, 4000)
            .lists(1, None, 4000, 4100)
    };
    lost(Made::new()).fails("loss");
    // A cut does not excuse it, nor does the death of another node.
    lost(Made::new().broken(Broken::Cut(0, 1), 3000, 4050)).fails("loss");
    lost(Made::new().broken(Broken::Dead(0), 3000, 4050)).fails("loss");
    // Its own death does: it may know nothing until links are whole.
    lost(Made::new().broken(Broken::Dead(1), 3000, 3990)).passes();
}

#[test]
fn a_node_that_never_showed_it_must_after_a_quiet_time() {
    let made = |faults: bool| {
        let made = Made::new()
            .registered(1, Way::Grpc, 1000)
            .lists(1, None, 1100, 9000);
        if faults {
            made.broken(Broken::Cut(0, 1), 2000, 8000)
        } else {
            made
        }
    };
    made(false).fails("loss");
    made(true).passes();
    made(true).lists(1, None, 14_000, 14_500).fails("loss");
}

#[test]
fn who_is_not_kept_may_vanish() {
    let made = |beats_to| {
        Made::new()
            .registered(1, Way::Http, 1000)
            .beats(1, 2000, beats_to)
            .lists(1, Some(1), 1100, 20_000)
            .lists(1, None, 20_000, 20_500)
    };
    made(20_000).fails("loss");
    // Ten seconds without an acknowledged beat.
    made(9000).passes();
}

#[test]
fn a_beat_of_what_all_know_is_not_answered_with_20404() {
    let made = |at: u64| {
        Made::new()
            .registered(1, Way::Http, 1000)
            .beats(1, 2000, at)
            .ends(1, Ending::Forgotten, at)
            .lists(0, Some(1), 1100, at - 100)
    };
    made(9000).fails("loss");
    made(5000).passes();
    made(9000).broken(Broken::Cut(1, 2), 2000, 8900).passes();
    made(9000).broken(Broken::Dead(1), 8000, 8900).passes();
}

#[test]
fn a_started_node_does_not_list_nobody_where_several_were() {
    let made = |instances: u32, empty_at| {
        let mut made = Made::new();
        for keeper in 1..=instances {
            made = made.registered(keeper, Way::Grpc, 1000);
            let life = made.0.lives.get_mut(&keeper).expect("registered");
            life.instance = keeper;
        }
        for place in 0..3 {
            made = made.broken(Broken::Dead(place), 5000, 6000);
        }
        for keeper in 1..=instances {
            made = made.ends(keeper, Ending::Broken, 5100);
        }
        made.lists(1, None, empty_at, empty_at + 100)
    };
    // The others have nothing to lose: all nodes died.
    made(3, 6500).fails("empty");
    // Who goes later was there.
    made(3, 6500).ends(1, Ending::Died, 9000).fails("empty");
    made(2, 6500).passes();
    made(3, 13_000).passes();
    made(4, 6500)
        .ends(1, Ending::Died, 5050)
        .ends(2, Ending::Died, 5050)
        .passes();
}

#[test]
fn a_broken_connection_is_demanded_if_its_node_died() {
    let made = |dead| {
        let made = Made::new()
            .registered(1, Way::Grpc, 1000)
            .ends(1, Ending::Broken, 4000)
            .lists(1, Some(1), 1100, 4000)
            .lists(1, None, 4500, 4600);
        if dead {
            made.broken(Broken::Dead(0), 3990, 6000)
        } else {
            made
        }
    };
    made(true).fails("loss");
    made(false).passes();
    // The client then wanted it to end.
    made(true)
        .registered(2, Way::Grpc, 4100)
        .ends(2, Ending::Died, 4200)
        .passes();
}

#[test]
fn what_was_forgotten_and_comes_back_is_a_ghost() {
    let ghost = |made: Made| {
        made.registered(1, Way::Http, 1000)
            .ends(1, Ending::Deregistered, 2000)
            .broken(Broken::Cut(0, 2), 1900, 60_000)
            .lists(1, Some(1), 1100, 2000)
            .lists(1, None, 2100, 3000)
            .lists(1, Some(1), 3000, 3200)
    };
    ghost(Made::new()).fails("ghost");
    // A request of which nobody knows the end may have done it.
    ghost(Made::new().doubt(1500)).passes();
    // A beat that another node answered a moment before may stand above it while they do not hear each other.
    ghost(Made::new()).beats(1, 1980, 1990).passes();
    ghost(Made::new()).beats(1, 1900, 1910).fails("ghost");
    // So may a client that registers again.
    ghost(Made::new()).registered(2, Way::Http, 2950).passes();
    // Or a start from the copies of one who has not heard; and a tombstone may die with its node.
    ghost(Made::new().broken(Broken::Dead(1), 2950, 2990)).passes();
    ghost(Made::new().broken(Broken::Dead(0), 2500, 2990)).passes();
}

#[test]
fn what_died_does_not_come_back_after_a_quiet_time() {
    let made = |lacked_until| {
        Made::new()
            .registered(1, Way::Grpc, 1000)
            .ends(1, Ending::Died, 2000)
            .broken(Broken::Cut(0, 1), 1500, 4000)
            .lists(1, None, 3000, lacked_until)
            .lists(1, Some(1), lacked_until, lacked_until + 200)
    };
    // The node may have lacked it for want of the link.
    made(8000).passes();
    made(30_000).fails("ghost");
    made(30_000).doubt(1900).passes();
}

#[test]
fn a_node_that_should_have_learnt_of_the_end_shows_a_ghost() {
    let late = |made: Made, to| {
        made.registered(1, Way::Grpc, 1000)
            .ends(1, Ending::Died, 2000)
            .lists(1, Some(1), 1100, to)
    };
    late(Made::new(), 7000).passes();
    late(Made::new(), 20_000).fails("ghost");
    // With trouble the grace comes on top, and its time.
    late(Made::new().broken(Broken::Cut(0, 1), 1500, 9000), 20_000).passes();
    late(Made::new().broken(Broken::Cut(0, 1), 1500, 9000), 100_000).fails("ghost");
    // So it does if the word of a node that died before is still kept.
    let kept = |to| {
        Made::new()
            .registered(1, Way::Grpc, 200)
            .ends(1, Ending::Broken, 900)
            .registered(2, Way::Grpc, 1000)
            .ends(2, Ending::Died, 2000)
            .lists(1, Some(1), 1100, to)
    };
    kept(20_000).passes();
    kept(100_000).fails("ghost");
    let deregistered = Made::new()
        .registered(1, Way::Http, 1000)
        .ends(1, Ending::Deregistered, 2000)
        .broken(Broken::Cut(0, 1), 1500, 9000)
        .lists(1, Some(1), 1100, 16_000);
    deregistered.fails("ghost");
}

#[test]
fn stamps_never_fall_and_rise_with_every_change() {
    let with = |stamps: [i64; 2], keepers: [u32; 2]| {
        let mut made = Made::new();
        for (at, (stamp, keeper)) in (0..).zip(stamps.into_iter().zip(keepers)) {
            made.0.seen.push(Seen {
                node: 0,
                service: 0,
                via: Via::List,
                asked: at * 10 * MS,
                answered: (at * 10 + 5) * MS,
                stamp,
                hosts: vec![(9, keeper, true)],
            });
        }
        made
    };
    with([5, 5], [1, 1]).passes();
    with([5, 6], [1, 2]).passes();
    with([6, 5], [1, 1]).fails("stamp");
    assert!(!with([5, 5], [1, 2]).found().is_empty());
    assert!(!with([6, 5], [1, 2]).found().is_empty());
    // Asked for side by side, either may be the newer one.
    let mut beside = with([6, 5], [1, 1]);
    beside.0.seen[1].asked = 2 * MS;
    beside.passes();
}

#[test]
fn pushes_of_a_connection_never_fall_and_say_what_lists_say() {
    let push = |connection, at: u64, stamp, keeper| Seen {
        node: 0,
        service: 0,
        via: Via::Push(connection),
        asked: at * MS,
        answered: at * MS,
        stamp,
        hosts: vec![(9, keeper, true)],
    };
    let with = |pushes: &[Seen]| {
        let mut made = Made::new();
        made.0.seen.extend_from_slice(pushes);
        made
    };
    with(&[push(1, 1, 5, 1), push(1, 2, 6, 2), push(2, 3, 5, 1)]).passes();
    with(&[push(1, 1, 6, 2), push(1, 2, 5, 1)]).fails("stamp");
    with(&[push(1, 1, 5, 1), push(2, 2, 5, 2)]).fails("stamp");
}

#[test]
fn only_nodes_that_are_out_may_leave_a_request_unanswered() {
    let with = |made: Made, wrong: Option<&str>| {
        let mut made = made;
        made.0.asked.push(Asked {
            node: 1,
            what: What::Beat,
            way: Way::Http,
            asked: 5000 * MS,
            answered: 6000 * MS,
            wrong: wrong.map(str::to_owned),
        });
        made
    };
    let alone = || {
        Made::new()
            .broken(Broken::Cut(0, 1), 4000, 7000)
            .broken(Broken::Cut(1, 0), 4000, 7000)
            .broken(Broken::Cut(2, 1), 4000, 7000)
            .broken(Broken::Cut(1, 2), 4000, 7000)
    };
    with(Made::new(), Some("500")).fails("unavailable");
    with(alone(), Some("500")).fails("unavailable");
    with(Made::new().broken(Broken::Paused(1), 4500, 5500), Some("500")).passes();
    with(Made::new().broken(Broken::Dead(1), 3000, 4500), Some("503")).passes();
    let answered = with(alone(), None);
    answered.passes();
    assert_eq!(check(&answered.0, 3).alone.get(&What::Beat), Some(&1));
}
