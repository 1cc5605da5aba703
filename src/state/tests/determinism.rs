//! The same log gives the same state and the same outcomes, however it is cut and wherever it is
//! interrupted (R16).

use super::support::{Node, Random};
use super::workload;
use crate::state::{Applied, Event};

const SEEDS: u64 = 12;
const ENTRIES: usize = 400;

/// Applies everything in ranges of random lengths; restarts after some of them when asked to.
fn apply_cut(
    seed: u64,
    cut_seed: u64,
    longest: u64,
    restart_once_in: Option<u64>,
) -> (Node, Vec<Applied>, Vec<Event>) {
    let (mut node, mut log) = Node::founder();
    let entries = workload::entries(&mut log, seed, ENTRIES);
    let mut random = Random(cut_seed);
    let (mut applied, mut events) = (Vec::new(), Vec::new());
    let mut rest = &entries[..];
    while !rest.is_empty() {
        let length = (1 + random.below(longest) as usize).min(rest.len());
        let (range, after) = rest.split_at(length);
        let done = node.state_mut().apply(range).expect("applies");
        applied.extend(done.applied);
        events.extend(done.events);
        rest = after;
        if restart_once_in.is_some_and(|n| random.once_in(n)) {
            node = node.restart(&log);
        }
    }
    (node, applied, events)
}

#[test]
fn r16_however_the_log_is_cut_tables_and_outcomes_are_the_same() {
    for seed in 0..SEEDS {
        let (one, applied, events) = apply_cut(seed, seed, 1, None);
        for longest in [7, ENTRIES as u64] {
            let (other, other_applied, other_events) = apply_cut(seed, seed + 1, longest, None);
            assert_eq!(
                applied, other_applied,
                "outcomes differ: seed {seed}, ranges of up to {longest}"
            );
            assert_eq!(
                events, other_events,
                "events differ: seed {seed}, ranges of up to {longest}"
            );
            assert!(
                one.rows() == other.rows(),
                "tables differ: seed {seed}, ranges of up to {longest}"
            );
        }
    }
}

#[test]
fn r16_a_restart_after_any_range_changes_nothing() {
    for seed in 0..3 {
        let (one, applied, events) = apply_cut(seed, seed, 20, None);
        let (other, other_applied, other_events) = apply_cut(seed, seed, 20, Some(4));
        assert_eq!(applied, other_applied, "outcomes differ: seed {seed}");
        assert_eq!(events, other_events, "events differ: seed {seed}");
        assert!(one.rows() == other.rows(), "tables differ: seed {seed}");
        // What is in memory is what the tables say.
        let query = crate::config::Query::all(crate::model::NamespaceId::new("dev"));
        let page = crate::model::PageRequest::new(1, 1_000).expect("a page");
        assert_eq!(
            one.reader().search(&query, page),
            other.reader().search(&query, page)
        );
        assert_eq!(one.reader().namespaces(), other.reader().namespaces());
    }
}
