//! What a client is told, step by step.

use super::*;
use crate::model::{ConfigKey, NamespaceId};
use crate::service::freshness::Freshness;

const ALL: &str = "public>>g>>*";

fn key(name: &str) -> ConfigKey {
    ConfigKey::new(&NamespaceId::default(), "g", name)
}

fn keys(names: &[&str]) -> BTreeSet<ConfigKey> {
    names.iter().map(|name| key(name)).collect()
}

fn said(known: &[&str], initializing: bool) -> Said<ConfigKey> {
    Said {
        pattern: FuzzyPattern::parse(ALL).expect("a pattern"),
        known: keys(known),
        initializing,
        asked: Freshness::default().now(),
    }
}

/// A push that was sent: subject, what it says, and of which config.
type Sent = (Subject<ConfigKey>, FuzzyNotice, Vec<(ConfigKey, bool)>);

/// Sends what is due; `there` is what exists.
fn sent(teller: &mut Teller<ConfigKey>, there: &BTreeSet<ConfigKey>) -> Vec<Sent> {
    let mut sent = Vec::new();
    while let Some((subject, _)) = teller.outbox.take() {
        match teller.notice(&subject, |key| there.contains(key)) {
            Some((notice, told)) => sent.push((subject, notice, told)),
            None => teller.outbox.drop_sent(&subject),
        }
    }
    sent
}

fn ack(teller: &mut Teller<ConfigKey>, there: &BTreeSet<ConfigKey>, push: Sent) {
    let ended = teller.ended(&push.0, push.2, true, |key| there.contains(key));
    assert_eq!(ended, Failed::Rests);
}

#[tokio::test(start_paused = true)]
async fn the_difference_is_told_in_batches_and_then_that_it_is_complete() {
    let mut teller = Teller::default();
    let names: Vec<String> = (0..45).map(|n| format!("d{n:02}")).collect();
    let there: BTreeSet<_> = names.iter().map(|name| key(name)).collect();
    teller.begin(ALL.into(), said(&["d00", "gone"], true), &there);
    let pushes = sent(&mut teller, &there);
    let mut told = BTreeMap::new();
    for (at, (_, notice, _)) in pushes.iter().enumerate() {
        let FuzzyNotice::Batch {
            contexts,
            number,
            initializing,
            ..
        } = notice
        else {
            panic!("{notice:?}");
        };
        assert_eq!((*number, *initializing), ((at + 1, 3), true));
        assert!(contexts.len() <= 20);
        told.extend(contexts.iter().cloned());
    }
    assert_eq!(told.len(), 45);
    assert_eq!(told.get("gone+g+public"), Some(&false));
    assert_eq!(told.get("d01+g+public"), Some(&true));
    assert!(!told.contains_key("d00+g+public"), "it knows that one");
    for push in pushes {
        assert_eq!(sent(&mut teller, &there), [], "not before all are acknowledged");
        ack(&mut teller, &there, push);
    }
    let finish = sent(&mut teller, &there);
    assert_eq!(finish.len(), 1);
    assert_eq!(finish[0].1, FuzzyNotice::Finished { pattern: ALL.into() });
    assert_eq!(teller.patterns[ALL].keys, there);
}

#[tokio::test(start_paused = true)]
async fn a_later_watch_without_a_difference_is_silent_and_the_first_one_is_not() {
    let mut teller = Teller::default();
    let there = keys(&["a"]);
    teller.begin(ALL.into(), said(&["a"], false), &there);
    assert_eq!(sent(&mut teller, &there), []);
    teller.begin(ALL.into(), said(&["a"], true), &there);
    let pushes = sent(&mut teller, &there);
    assert_eq!(pushes[0].1, FuzzyNotice::Finished { pattern: ALL.into() });
}

#[tokio::test(start_paused = true)]
async fn what_comes_and_goes_is_told_once_and_as_it_is_when_it_is_sent() {
    let mut teller = Teller::default();
    let mut there = keys(&["a"]);
    teller.begin(ALL.into(), said(&["a"], false), &there);
    there.insert(key("b"));
    teller.touched(&key("b"), true);
    teller.touched(&key("a"), true);
    teller.touched(&ConfigKey::new(&NamespaceId::default(), "h", "x"), true);
    let mut pushes = sent(&mut teller, &there);
    assert_eq!(pushes[0].1, FuzzyNotice::Change("b+g+public".to_owned(), true));
    assert_eq!(pushes.len(), 1);
    // It goes again while the client is told that it came; nobody knows that it has heard so.
    there.remove(&key("b"));
    teller.touched(&key("b"), false);
    assert_eq!(sent(&mut teller, &there), []);
    ack(&mut teller, &there, pushes.remove(0));
    let mut pushes = sent(&mut teller, &there);
    assert_eq!(pushes[0].1, FuzzyNotice::Change("b+g+public".to_owned(), false));
    // A retry tells the present.
    let (subject, _, told) = pushes.remove(0);
    assert_eq!(teller.ended(&subject, told, false, |_| false), Failed::Rests);
    there.insert(key("b"));
    teller.outbox.wake(clock::now() + Duration::from_secs(2));
    let pushes = sent(&mut teller, &there);
    assert_eq!(pushes[0].1, FuzzyNotice::Change("b+g+public".to_owned(), true));
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ended_or_began_anew_is_told_no_more_of() {
    let mut teller = Teller::default();
    let there = keys(&["a"]);
    teller.begin(ALL.into(), said(&[], true), &there);
    let old = sent(&mut teller, &there).remove(0);
    teller.begin(ALL.into(), said(&[], true), &there);
    let new = sent(&mut teller, &there).remove(0);
    assert_ne!(old.0, new.0);
    ack(&mut teller, &there, old);
    assert_eq!(sent(&mut teller, &there), [], "the new one is not complete");
    teller.patterns.clear();
    ack(&mut teller, &there, new);
    teller.touched(&key("b"), true);
    assert_eq!(sent(&mut teller, &there), []);
    assert!(teller.outbox.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_replaced_state_is_compared_with_what_the_client_knows() {
    let mut teller = Teller::default();
    teller.begin(ALL.into(), said(&["a", "b"], false), &keys(&["a", "b"]));
    let there = keys(&["b", "c"]);
    teller.compare(ALL, &there);
    let told: Vec<_> = sent(&mut teller, &there).into_iter().map(|push| push.1).collect();
    let change = |name: &str, exists| FuzzyNotice::Change(format!("{name}+g+public"), exists);
    assert_eq!(told, [change("a", false), change("c", true)]);
}
