//! A node alone, in virtual time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use super::rows::{Fed, Reads};
use super::*;
use crate::error::Error;
use crate::model::{Endpoint, NamespaceId, ServiceKey};
use storage::{Watermark, WatermarkFile};

use crate::naming::{Body, Event, Filter, Instance, Persistent, Replicated};

fn service() -> ServiceKey {
    ServiceKey::new(&NamespaceId::default(), "g", "s")
}

fn act(what: What) -> Act {
    Act {
        service: service(),
        endpoint: Endpoint::new("10.0.0.1", 80, ""),
        what,
    }
}

fn register() -> Act {
    act(What::Register {
        instance: Arc::new(Instance::default()),
        healthy: true,
    })
}

fn open(folder: &std::path::Path) -> Arc<Discovery> {
    open_with(folder, Box::new(|| Ok(Vec::new())))
}

fn open_with(folder: &std::path::Path, rows: Rows) -> Arc<Discovery> {
    let parts = Parts {
        node: 1,
        folder: folder.to_owned(),
        on_events: Box::new(|_| {}),
        rows,
    };
    let discovery = Discovery::open(parts).expect("a folder");
    discovery.set_members([1].into());
    discovery
}

fn stamp(answer: &[u8]) -> u64 {
    let answer: serde_json::Value = serde_json::from_slice(answer).expect("JSON");
    answer["lastRefTime"].as_u64().expect("a number")
}

#[tokio::test(start_paused = true)]
async fn an_instance_lives_as_long_as_its_beats() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path());
    node.turn();
    let running = tokio::spawn(Arc::clone(&node).run());
    let hosts = || {
        let answer = node.query(&service(), &Filter::default(), Form::Http);
        let answer: serde_json::Value = serde_json::from_slice(&answer).expect("JSON");
        let hosts = answer["hosts"].as_array().expect("an array").clone();
        hosts
            .iter()
            .map(|host| host["healthy"] == true)
            .collect::<Vec<_>>()
    };
    assert_eq!(node.execute(act(What::Beat { full: None })), Done::UnknownBeat);
    assert_eq!(node.execute(register()), Done::Yes);
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let done = node.execute(act(What::Beat { full: None }));
        assert_eq!(done, Done::Beat { interval_ms: 5_000 });
        assert_eq!(hosts(), [true]);
    }
    tokio::time::sleep(Duration::from_secs(16)).await;
    assert_eq!(hosts(), [false]);
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert!(hosts().is_empty());
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn nothing_goes_while_an_operator_keeps_it() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path());
    let running = tokio::spawn(Arc::clone(&node).run());
    let healthy = || {
        let endpoint = Endpoint::new("10.0.0.1", 80, "");
        let seen = node.look(|registry, _| registry.instance(&service(), &endpoint));
        seen.map(|seen| seen.healthy)
    };
    assert_eq!(node.execute(register()), Done::Yes);
    node.set_expiry(false);
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(healthy(), Some(true));
    node.set_expiry(true);
    tokio::time::sleep(Duration::from_secs(14)).await;
    assert_eq!(healthy(), Some(true), "it has its full time again");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(healthy(), Some(false));
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(healthy(), None);
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn answers_are_shared_until_something_changes() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path());
    node.execute(register());
    let filter = Filter::default();
    let first = node.query(&service(), &filter, Form::Http);
    let again = node.query(&service(), &filter, Form::Http);
    assert_eq!(first.as_ptr(), again.as_ptr(), "the same bytes");
    let grpc = node.query(&service(), &filter, Form::Grpc);
    let name = |answer: &[u8]| serde_json::from_slice::<serde_json::Value>(answer).unwrap()["name"].clone();
    assert_eq!((name(&first), name(&grpc)), ("g@@s".into(), "s".into()));
    // A new subscriber gets the same with a higher stamp.
    let (_, raised) = node.first_answer(&service(), &filter, Form::Http);
    assert!(stamp(&raised) > stamp(&first));
    let strip = |answer: &[u8]| {
        let text = String::from_utf8(answer.to_vec()).unwrap();
        text.replace(&stamp(answer).to_string(), "")
    };
    assert_eq!(strip(&raised), strip(&first));
    node.execute(act(What::Deregister));
    let gone = node.query(&service(), &filter, Form::Http);
    assert!(stamp(&gone) > stamp(&raised));
}

#[tokio::test(start_paused = true)]
async fn answers_that_nobody_asks_for_are_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path());
    let running = tokio::spawn(Arc::clone(&node).run());
    let asked = |name: &str| {
        let service = ServiceKey::new(&NamespaceId::default(), "g", name);
        node.query(&service, &Filter::default(), Form::Http)
    };
    for name in ["s", "t"] {
        node.act(|registry, now_ms| {
            let service = ServiceKey::new(&NamespaceId::default(), "g", name);
            let endpoint = Endpoint::new("10.0.0.1", 80, "");
            let owner = crate::naming::Owner::Connection("c".into());
            let done = registry.register(now_ms, &owner, &service, &endpoint, Instance::default(), true);
            done.expect("the first kind");
        });
    }
    let (one, other) = (asked("s").len(), asked("t").len());
    for _ in 0..10 {
        assert!(node.figures().answer_bytes >= one);
        tokio::time::sleep(Duration::from_secs(10)).await;
        asked("s");
    }
    assert_eq!(node.figures().answer_bytes, one, "without {other}");
    running.abort();
}

#[test]
fn what_clients_call_themselves_does_not_move_the_stamp() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path());
    let metadata = [("lastRefTime", "1"), ("x\"lastRefTime\":", "2")];
    let instance = Instance {
        metadata: metadata.into_iter().collect(),
        ..Instance::default()
    };
    node.execute(act(What::Register {
        instance: Arc::new(instance),
        healthy: true,
    }));
    let first = node.query(&service(), &Filter::default(), Form::Http);
    let (_, raised) = node.first_answer(&service(), &Filter::default(), Form::Http);
    let parsed: serde_json::Value = serde_json::from_slice(&raised).unwrap();
    assert_eq!(parsed["hosts"][0]["metadata"]["lastRefTime"], "1");
    assert!(stamp(&raised) > stamp(&first));
}

#[tokio::test(start_paused = true)]
async fn a_restarted_node_waits_for_its_clients() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path());
    first.turn();
    assert_eq!(first.readiness(), Readiness::Ready, "nobody was ever here");
    let running = tokio::spawn(Arc::clone(&first).run());
    first.execute(register());
    let before = stamp(&first.query(&service(), &Filter::default(), Form::Http));
    // The mark is written on a thread of its own.
    while storage::WatermarkFile::in_folder(folder.path())
        .load()
        .expect("it can be read")
        .is_none_or(|mark| !mark.in_use)
    {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    running.abort();
    let second = open(folder.path());
    second.turn();
    assert_eq!(second.readiness(), Readiness::AwaitingClients);
    second.execute(register());
    let after = stamp(&second.query(&service(), &Filter::default(), Form::Http));
    assert!(after > before, "{after} {before}");
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(second.readiness(), Readiness::Ready);
}

#[test]
fn events_are_told_as_they_happen() {
    let folder = tempfile::tempdir().unwrap();
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let notes = Arc::clone(&told);
    let node = Discovery::open(Parts {
        node: 1,
        folder: folder.path().to_owned(),
        on_events: Box::new(move |events| notes.lock().unwrap().extend(events)),
        rows: Box::new(|| Ok(Vec::new())),
    })
    .expect("a folder");
    node.execute(register());
    let told = told.lock().unwrap();
    assert_eq!(told[0], Event::Appeared(service()));
    assert!(matches!(&told[1], Event::Changed { service: named, .. } if *named == service()));
}

/// A forwarded act that was asked at a logical time, by a node that knows nothing of the instance.
fn forwarded(asked: crate::naming::Stamp, act: Act) -> forward::Request {
    forward::Request {
        id: 1,
        asked,
        above: crate::naming::Stamp::default(),
        act,
    }
}

fn done_in_time(node: &Discovery, request: forward::Request) -> Option<Done> {
    Some(node.execute_in_time(request)?.done)
}

#[tokio::test(start_paused = true)]
async fn who_forwards_an_act_is_told_what_came_of_it_and_nothing_of_beats_that_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path());
    node.turn();
    let says = |what: What| {
        let asked = node.look(|registry, now_ms| registry.times(now_ms).acts);
        let reply = node
            .execute_in_time(forwarded(asked, act(what)))
            .expect("in time");
        let word = reply.word.map(|(origin, delta)| {
            assert_eq!(origin, node.look(|registry, _| registry.me()));
            delta.written.expect("a record").1
        });
        (reply.done, word)
    };
    let beat = || What::Beat {
        full: Some(Arc::new(Instance::default())),
    };
    let taken = Done::Beat { interval_ms: 5_000 };
    let (done, born) = says(beat());
    assert!(matches!(born, Some(Body::Live { healthy: true, .. })), "{born:?}");
    assert_eq!((done, says(beat())), (taken.clone(), (taken, None)));
    let (done, registered) = says(register().what);
    assert_eq!((done, registered.is_some()), (Done::Yes, true));
    let (done, gone) = says(What::Deregister);
    assert_eq!(done, Done::Yes);
    assert!(matches!(gone, Some(Body::Tombstone { .. })), "{gone:?}");
    assert_eq!(says(What::Beat { full: None }), (Done::UnknownBeat, None));
}

#[tokio::test(start_paused = true)]
async fn an_act_that_was_long_under_way_is_not_done() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path());
    let running = tokio::spawn(Arc::clone(&node).run());
    let now = || node.look(|registry, now_ms| registry.times(now_ms).acts);
    let asked = now();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(done_in_time(&node, forwarded(asked, register())), Some(Done::Yes));
    let deregistered = forwarded(asked, act(What::Deregister));
    assert_eq!(
        done_in_time(&node, deregistered.clone()),
        Some(Done::NotHere),
        "the registration is newer"
    );
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(
        done_in_time(&node, forwarded(asked, register())),
        Some(Done::NotHere),
        "its sender has done it by now"
    );
    assert_eq!(
        done_in_time(&node, forwarded(now(), act(What::Deregister))),
        Some(Done::Yes)
    );
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_registration_stands_above_what_its_forwarder_knows() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path());
    node.execute(register());
    let highest = || node.look(|registry, _| registry.highest(&service(), &register().endpoint));
    let first = highest();
    let above = crate::naming::Stamp(first.0 + 5);
    let again = forward::Request {
        above,
        ..forwarded(above, register())
    };
    assert_eq!(done_in_time(&node, again), Some(Done::Yes));
    assert!(
        highest() > above,
        "no redo: a deregistration of that stamp would hide it"
    );
}

/// Where an address is, by cluster and whether beats keep it.
fn clusters(node: &Discovery) -> Vec<String> {
    let service = service();
    node.look(|registry, _| {
        let places = registry.instances(&service).map(|(place, _)| place);
        places.map(|place| place.cluster.to_string()).collect()
    })
}

/// Contract 00 §2.3: over HTTP an address is a client, and has one instance in a service.
#[tokio::test(start_paused = true)]
async fn an_address_that_beats_is_in_one_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path());
    let within = |cluster: &str, mut act: Act| {
        act.endpoint = Endpoint::new("10.0.0.1", 80, cluster);
        act
    };
    let other = |ip: &str, port| Act {
        endpoint: Endpoint::new(ip, port, "a"),
        ..register()
    };
    node.execute(other("10.0.0.1", 81));
    node.execute(other("10.0.0.0", 80));
    for cluster in ["b", "DEFAULT", "c"] {
        assert_eq!(node.execute(within(cluster, register())), Done::Yes);
        assert_eq!(clusters(&node), ["a", cluster, "a"]);
    }
    // A beat from before does not bring it back.
    let full = Some(Arc::new(Instance::default()));
    node.execute(within("b", act(What::Beat { full })));
    assert_eq!(clusters(&node), ["a", "c", "a"]);
    // What a connection keeps is the connection's.
    node.act(|registry, now_ms| {
        let owner = crate::naming::Owner::Connection("one".into());
        let place = Endpoint::new("10.0.0.1", 80, "d");
        registry
            .register(now_ms, &owner, &service(), &place, Instance::default(), true)
            .expect("ephemeral");
    });
    node.execute(within("b", register()));
    assert_eq!(clusters(&node), ["a", "b", "d", "a"]);
}

#[tokio::test(start_paused = true)]
async fn who_names_no_cluster_goes_from_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path());
    let running = tokio::spawn(Arc::clone(&node).run());
    let now = || node.look(|registry, now_ms| registry.times(now_ms).acts);
    let before = now();
    tokio::time::sleep(Duration::from_millis(10)).await;
    let in_c = Act {
        endpoint: Endpoint::new("10.0.0.1", 80, "c"),
        ..register()
    };
    node.execute(in_c.clone());
    node.execute(act(What::Deregister));
    assert_eq!(clusters(&node), ["c"], "it named the default one");
    let goes = act(What::DeregisterAnywhere);
    assert_eq!(
        done_in_time(&node, forwarded(before, goes.clone())),
        Some(Done::NotHere),
        "the registration is newer"
    );
    assert_eq!(clusters(&node), ["c"]);
    let reply = node
        .execute_in_time(forwarded(now(), goes.clone()))
        .expect("in time");
    let (_, word) = reply.word.expect("a tombstone");
    assert_eq!((reply.done, &*word.key.endpoint.cluster), (Done::Yes, "c"));
    assert!(clusters(&node).is_empty());
    let late = Act {
        what: What::Beat {
            full: Some(Arc::new(Instance::default())),
        },
        ..in_c
    };
    node.execute(late);
    assert!(clusters(&node).is_empty(), "as after any deregistration");
    // The one in the default cluster goes first.
    node.execute(register());
    node.act(|registry, now_ms| {
        let owner = crate::naming::Owner::Connection("one".into());
        let place = Endpoint::new("10.0.0.1", 80, "d");
        registry
            .register(now_ms, &owner, &service(), &place, Instance::default(), true)
            .expect("ephemeral");
    });
    node.execute(goes.clone());
    assert_eq!(clusters(&node), ["d"]);
    // What a connection keeps stays, whoever beats for it besides and goes.
    let in_d = |what| Act {
        endpoint: Endpoint::new("10.0.0.1", 80, "d"),
        ..act(what)
    };
    node.execute(goes);
    node.execute(in_d(What::Deregister));
    node.execute(in_d(What::Beat { full: None }));
    node.execute(in_d(What::Deregister));
    assert_eq!(clusters(&node), ["d"]);
    node.act(|registry, now_ms| registry.disconnect(now_ms, &"one".into()));
    assert!(clusters(&node).is_empty());
    running.abort();
}

#[derive(Clone, Copy)]
enum Kept {
    Whole,
    Damaged,
    Old,
}

/// Instances of one service that the node lists `after` it was opened again, or why it does not.
async fn listed(node: &Arc<Discovery>) -> Result<usize, Readiness> {
    match node.readiness_of(&service()) {
        Readiness::Ready => {
            let answer = node.query(&service(), &Filter::default(), Form::Http);
            let answer: serde_json::Value = serde_json::from_slice(&answer).expect("JSON");
            Ok(answer["hosts"].as_array().expect("an array").len())
        }
        readiness => Err(readiness),
    }
}

/// A run with two services of two instances each, of which the second service loses all; then killed.
async fn killed(folder: &std::path::Path) {
    let node = open(folder);
    let tasks = [
        tokio::spawn(Arc::clone(&node).run()),
        tokio::spawn(Arc::clone(&node).keep()),
    ];
    let place = |port| Endpoint::new("10.0.0.1", port, "");
    let mut said = register();
    for name in ["s", "gone"] {
        for port in [80, 81] {
            said.service = ServiceKey::new(&NamespaceId::default(), "g", name);
            said.endpoint = place(port);
            node.execute(said.clone());
        }
    }
    let connection = crate::naming::Owner::Connection("c".into());
    node.act(|registry, now_ms| {
        registry.register(
            now_ms,
            &connection,
            &service(),
            &place(82),
            Instance::default(),
            true,
        )
    })
    .expect("of one kind");
    tokio::time::sleep(Duration::from_secs(60)).await;
    // All but that of the connection have gone for want of beats.
    assert_eq!(listed(&node).await, Ok(1));
    for port in [80, 81] {
        said.service = service();
        said.endpoint = place(port);
        node.execute(said.clone());
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    for task in tasks {
        task.abort();
    }
}

/// The order: said, and stopped before any timer has rung.
#[tokio::test(start_paused = true)]
async fn what_was_said_last_before_a_stop_is_known_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path());
    node.execute(register());
    node.close();
    let node = open(folder.path());
    let tasks = [
        tokio::spawn(Arc::clone(&node).run()),
        tokio::spawn(Arc::clone(&node).keep()),
    ];
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(listed(&node).await, Ok(1));
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_dies_soon_after_its_first_registration_waits_for_clients() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path());
    let running = tokio::spawn(Arc::clone(&node).run());
    tokio::time::sleep(Duration::from_millis(250)).await;
    node.execute(register());
    tokio::time::sleep(Duration::from_millis(5)).await;
    running.abort();
    let node = open(folder.path());
    node.turn();
    assert_eq!(listed(&node).await, Err(Readiness::AwaitingClients));
}

#[tokio::test(start_paused = true)]
async fn a_lone_node_knows_after_a_restart_what_it_knew() {
    for kept in [Kept::Whole, Kept::Damaged, Kept::Old] {
        let folder = tempfile::tempdir().unwrap();
        killed(folder.path()).await;
        let file = folder.path().join("instances");
        match kept {
            Kept::Whole => {}
            Kept::Damaged => std::fs::write(&file, b"rnacosFR, but then").unwrap(),
            Kept::Old => WatermarkFile::in_folder(folder.path())
                .store(Watermark {
                    reserved: 1_000,
                    in_use: true,
                    ahead_ms: 0,
                })
                .unwrap(),
        }
        let node = open(folder.path());
        let running = tokio::spawn(Arc::clone(&node).run());
        let keeping = tokio::spawn(Arc::clone(&node).keep());
        tokio::time::sleep(Duration::from_millis(300)).await;
        let unknown = ServiceKey::new(&NamespaceId::default(), "g", "gone");
        assert_eq!(
            node.readiness_of(&unknown),
            Readiness::AwaitingClients,
            "never empty"
        );
        let Kept::Whole = kept else {
            assert_eq!(listed(&node).await, Err(Readiness::AwaitingClients));
            continue;
        };
        assert_eq!(node.readiness(), Readiness::Provisional);
        assert_eq!(listed(&node).await, Ok(3));
        // One beats, light, as before; one is taken away; one never comes back.
        let beaten = node.execute(act(What::Beat { full: None }));
        assert_eq!(beaten, Done::Beat { interval_ms: 5_000 });
        let mut gone = act(What::Deregister);
        gone.endpoint = Endpoint::new("10.0.0.1", 81, "");
        node.execute(gone);
        assert_eq!(listed(&node).await, Ok(2));
        // Killed once more before the clients had their time.
        tokio::time::sleep(Duration::from_secs(1)).await;
        running.abort();
        keeping.abort();
        let node = open(folder.path());
        let running = tokio::spawn(Arc::clone(&node).run());
        let keeping = tokio::spawn(Arc::clone(&node).keep());
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(listed(&node).await, Ok(2));
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_secs(5)).await;
            node.execute(act(What::Beat { full: None }));
        }
        assert_eq!(node.readiness(), Readiness::Ready);
        assert_eq!(listed(&node).await, Ok(1), "the grace is over");
        tokio::time::sleep(Duration::from_secs(1)).await;
        running.abort();
        keeping.abort();
        // What was written anew meanwhile holds no more than that.
        let node = open(folder.path());
        node.turn();
        assert_eq!(listed(&node).await, Ok(1));
    }
}

/// Says of which file the name is now; each writing as a whole makes another one.
#[cfg(unix)]
fn inode(folder: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(folder.join("instances"))
        .expect("it is there")
        .ino()
}

#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn what_is_kept_is_written_anew_when_most_of_it_is_outdated_and_not_for_its_length() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path());
    let say = |word: &str| {
        for port in 1..=1_200 {
            let instance = Instance {
                metadata: [("word", word.repeat(4_096))].into_iter().collect(),
                ..Instance::default()
            };
            let mut act = act(What::Register {
                instance: Arc::new(instance),
                healthy: true,
            });
            act.endpoint = Endpoint::new("10.0.0.1", port, "");
            assert_eq!(node.execute(act), Done::Yes);
        }
        node.keep_now();
    };
    node.keep_now();
    let first = inode(folder.path());
    for word in ["a", "b"] {
        say(word);
        assert_eq!(inode(folder.path()), first, "every second change counts");
    }
    say("c");
    say("d");
    assert_ne!(inode(folder.path()), first);
    let again = open(folder.path());
    again.turn();
    assert_eq!(again.figures().copies, 1_200);
}

#[tokio::test(start_paused = true)]
async fn in_a_cluster_clients_are_waited_for_and_then_the_last_list_counts() {
    let folder = tempfile::tempdir().unwrap();
    killed(folder.path()).await;
    let node = open(folder.path());
    node.set_members([1, 2, 3].into());
    let running = tokio::spawn(Arc::clone(&node).run());
    tokio::time::sleep(Duration::from_secs(14)).await;
    assert_eq!(listed(&node).await, Err(Readiness::AwaitingClients));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(
        listed(&node).await,
        Ok(3),
        "nobody came back, and nobody said otherwise"
    );
    running.abort();
}

/// Another node that has begun with this one may know what was said of it last: a light beat, which says nothing of it,
/// would confirm what stands here, above that.
#[tokio::test(start_paused = true)]
async fn in_a_cluster_that_begins_a_beat_confirms_no_word_of_the_last_run() {
    let folder = tempfile::tempdir().unwrap();
    killed(folder.path()).await;
    let node = open(folder.path());
    node.set_members([1, 2, 3].into());
    let running = tokio::spawn(Arc::clone(&node).run());
    tokio::time::sleep(Duration::from_secs(8)).await;
    let known = node.look(|registry, _| registry.instance(&service(), &register().endpoint));
    assert!(known.is_some());
    let beat = || node.execute(act(What::Beat { full: None }));
    assert_eq!(beat(), Done::UnknownBeat);
    assert_eq!(node.execute(register()), Done::Yes);
    assert_eq!(beat(), Done::Beat { interval_ms: 5_000 });
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn who_begins_anew_answers_only_with_what_the_log_keeps() {
    let folder = tempfile::tempdir().unwrap();
    let (reads, fails) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (count, broken) = (Arc::clone(&reads), Arc::clone(&fails));
    let rows = move || {
        count.fetch_add(1, Relaxed);
        match broken.load(Relaxed) {
            true => Err(Error::Internal("the disk".to_owned())),
            false => Ok(vec![kept_in_the_log(80)]),
        }
    };
    let node = open_with(folder.path(), Box::new(rows));
    let running = tokio::spawn(Arc::clone(&node).run());
    let ports = || {
        let view = node.look(|registry, _| registry.view(&service(), &Filter::default()));
        let hosts = view.unwrap_or_default().hosts.into_iter();
        hosts.map(|(endpoint, _)| endpoint.port).collect::<Vec<_>>()
    };
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((node.readiness(), ports()), (Readiness::Ready, vec![80]));
    fails.store(true, Relaxed);
    // Another node has joined, and the process stands still for longer than that one keeps what it said.
    node.set_members([1, 2].into());
    tokio::time::sleep(Duration::from_secs(1)).await;
    tokio::time::advance(Duration::from_secs(50)).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!((node.readiness(), ports()), (Readiness::Loading, vec![]));
    assert!(reads.load(Relaxed) > 10, "it is tried again and again");
    fails.store(false, Relaxed);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!((node.readiness(), ports()), (Readiness::Ready, vec![80]));
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_lone_node_that_stood_still_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path());
    let hung_up = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&hung_up);
    node.set_hang_up(Box::new(move || flag.store(true, Relaxed)));
    let running = tokio::spawn(Arc::clone(&node).run());
    let healthy = || {
        let endpoint = Endpoint::new("10.0.0.1", 80, "");
        let seen = node.look(|registry, _| registry.instance(&service(), &endpoint));
        seen.map(|seen| seen.healthy)
    };
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(node.execute(register()), Done::Yes);
    tokio::time::advance(Duration::from_secs(120)).await;
    tokio::time::sleep(Duration::from_secs(14)).await;
    assert_eq!((node.readiness(), healthy()), (Readiness::Ready, Some(true)));
    assert!(
        !hung_up.load(Relaxed),
        "nobody else could have given its clients up"
    );
    // Who does not beat goes in its time.
    tokio::time::sleep(Duration::from_secs(17)).await;
    assert_eq!(healthy(), None);
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn what_is_applied_during_a_read_stands_above_it() {
    let folder = tempfile::tempdir().unwrap();
    // The read has seen what it gives, and is slow: the applier goes on meanwhile.
    let (begun, begins) = std::sync::mpsc::sync_channel(1);
    let (goes_on, go_on) = std::sync::mpsc::sync_channel::<()>(1);
    let go_on = std::sync::Mutex::new(go_on);
    let opened = AtomicBool::new(false);
    let rows = move || {
        if opened.swap(true, Relaxed) {
            begun.send(()).expect("the test waits");
            go_on.lock().unwrap().recv().expect("the test goes on");
        }
        Ok(vec![kept_in_the_log(80), kept_in_the_log(81)])
    };
    let node = open_with(folder.path(), Box::new(rows));
    node.lock().fed = Fed::No;
    node.read_rows(&mut Reads::default());
    begins.recv().expect("it is read");
    let gone = match kept_in_the_log(80) {
        Replicated::Instance {
            service, endpoint, ..
        } => Replicated::Instance {
            service,
            endpoint,
            set: None,
        },
        other => other,
    };
    node.feed(&[gone, kept_in_the_log(82)]);
    goes_on.send(()).expect("the read waits");
    while !matches!(node.lock().fed, Fed::Yes) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let view = node.look(|registry, _| registry.view(&service(), &Filter::default()));
    let hosts = view.unwrap_or_default().hosts.into_iter();
    assert_eq!(
        hosts.map(|(endpoint, _)| endpoint.port).collect::<Vec<_>>(),
        [81, 82]
    );
}

fn kept_in_the_log(port: u16) -> Replicated {
    Replicated::Instance {
        service: service(),
        endpoint: Endpoint::new("10.0.0.1", port, ""),
        set: Some(Persistent {
            instance: Arc::new(Instance::default()),
            healthy: true,
        }),
    }
}
