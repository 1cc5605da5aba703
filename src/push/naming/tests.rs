//! Who is told when: in virtual time, without a registry.

use std::time::Duration;

use super::super::marks::{Due, Which};
use super::*;
use crate::model::NamespaceId;
use crate::naming::Stamp;

const MS: Duration = Duration::from_millis(1);

fn service(name: &str) -> ServiceKey {
    ServiceKey::new(&NamespaceId::default(), "g", name)
}

fn changed(name: &str) -> Event {
    Event::Changed {
        service: service(name),
        stamp: Stamp(1),
    }
}

fn who(id: &str) -> Who {
    Who {
        id: id.into(),
        ip: "10.0.0.1".into(),
        port: 1,
        agent: "".into(),
        app: "".into(),
    }
}

fn subscribed(push: &Arc<NamingPush>, id: &str, names: &[&str]) -> NamingWatch {
    let watch = push.open(who(id));
    for name in names {
        watch.add(&service(name), None).expect("there is room");
    }
    watch
}

fn services(watch: &NamingWatch) -> Vec<String> {
    let Some(Due {
        which: Which::Some(marked),
        ..
    }) = watch.session().marks.take()
    else {
        return Vec::new();
    };
    let names = marked.into_iter().map(|subject| match subject {
        Subject::Service(service) => service.name().to_owned(),
        Subject::Proof => "proof".to_owned(),
    });
    names.collect()
}

/// A pusher that runs; every service takes so many bytes.
fn running(bytes: usize) -> Arc<NamingPush> {
    let push = NamingPush::new();
    drop(tokio::spawn(Arc::clone(&push).run(move |_| bytes)));
    push
}

#[tokio::test(start_paused = true)]
async fn a_change_is_told_at_once_to_those_who_subscribe_and_to_nobody_else() {
    let push = running(300);
    let (a, b) = (
        subscribed(&push, "a", &["x", "y"]),
        subscribed(&push, "b", &["y"]),
    );
    push.on_events(vec![changed("x"), changed("none")]);
    assert_eq!(
        push.lock().pacing.len(),
        1,
        "what nobody subscribes to is not kept"
    );
    tokio::time::sleep(MS).await;
    assert_eq!((services(&a), services(&b)), (vec!["x".to_owned()], vec![]));
    push.on_events(vec![changed("y")]);
    tokio::time::sleep(MS).await;
    assert_eq!(
        (services(&a), services(&b)),
        (vec!["y".to_owned()], vec!["y".to_owned()])
    );
}

#[tokio::test(start_paused = true)]
async fn a_storm_is_told_a_few_times_and_the_last_change_always() {
    let push = running(100_000);
    let watches: Vec<_> = (0..100)
        .map(|client| subscribed(&push, &client.to_string(), &["x"]))
        .collect();
    let (mut told, mut last) = (0, false);
    for ms in 0..1_000 {
        if ms < 700 {
            push.on_events(vec![changed("x")]);
        }
        tokio::time::sleep(MS).await;
        if !services(&watches[50]).is_empty() {
            told += 1;
            last |= ms >= 699;
        }
    }
    // The window of a hundred subscribers with 100 kB each is 220 ms.
    assert_eq!((told, last), (5, true));
    tokio::time::sleep(500 * MS).await;
    assert!(push.lock().pacing.is_empty());
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_subscribers_are_all_told() {
    let push = running(300);
    let watches: Vec<_> = (0..10_000)
        .map(|client| subscribed(&push, &client.to_string(), &["x"]))
        .collect();
    push.on_events(vec![changed("x")]);
    tokio::time::sleep(MS).await;
    assert!(watches.iter().all(|watch| services(watch) == ["x"]));
    drop(watches);
    assert_eq!(push.load(), (0, 0, 0));
    let shared = push.lock();
    assert!(shared.sessions.is_empty());
    assert_eq!(shared.listeners.cost_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_is_covered_is_asked() {
    let push = running(300);
    let (a, b) = (subscribed(&push, "a", &[]), subscribed(&push, "b", &[]));
    push.on_events(vec![Event::Covered("a".into()), Event::Covered("gone".into())]);
    assert_eq!((services(&a), services(&b)), (vec!["proof".to_owned()], vec![]));
}

#[test]
fn beyond_the_bound_subscribers_are_refused_and_operators_see_the_others() {
    let push = NamingPush::new();
    let watch = push.open(who("a"));
    let long = "s".repeat(1 << 20);
    let taken = (0..)
        .take_while(|number| watch.add(&service(&format!("{long}{number}")), None).is_ok())
        .count();
    assert_eq!(
        taken,
        COST_BYTES_MAX / (2 << 20) / 5 + 1,
        "a quarter of what is left"
    );
    assert!(push.open(who("b")).add(&service("x"), None).is_ok());
    assert_eq!(push.load(), (1, taken, taken));
    assert_eq!(push.subscribed_by("a").len(), taken);
    assert_eq!(push.subscribed_by("b"), []);
    let found = push.subscribers_of(&service(&format!("{long}0")));
    assert_eq!((found.len(), &*found[0].0.who.id), (1, "a"));
    assert_eq!(push.subscribers_of(&service("none")).len(), 0);
}
