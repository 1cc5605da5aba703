//! Connections that listen, against a scripted truth and a scripted client, in virtual time.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;

use raft::Index;
use tokio::sync::oneshot;

use super::super::listen::tests::{Scripted, key, md5};
use super::*;
use crate::config::{GrayVersions, Versions};
use crate::model::Md5;
use crate::service::config::Name;
use crate::state::Event;

mod reminded;
mod unsaid;

fn soon() -> Instant {
    clock::now() + LISTEN_WITHIN
}

fn open(node: &Scripted, ip: &str) -> ConfigWatch {
    let who = Who {
        ip,
        agent: "Nacos-Java-Client:v3.0.3",
        ..Who::default()
    };
    ConfigWatch::new(&node.push, &who, node.moment())
}

fn listened(name: &str, content: &str) -> Listened {
    let seen = match content {
        "" => Seen::Nothing,
        content => Seen::Md5(md5(content)),
    };
    Listened {
        key: key(name),
        seen,
        spelling: Spelling::Absent,
    }
}

async fn listens(node: &Scripted, watch: &ConfigWatch, has: &[(&str, &str)]) -> Result<Vec<String>> {
    let entries = has.iter().map(|(name, content)| listened(name, content));
    let changed = listen(node, watch, entries.collect(), soon()).await?;
    Ok(changed
        .iter()
        .map(|entry| entry.key.data_id().to_owned())
        .collect())
}

fn names(names: &[&str]) -> Result<Vec<String>> {
    Ok(names.iter().map(|name| (*name).to_owned()).collect())
}

/// A client: what was sent to it, and how it acknowledges.
#[derive(Default)]
struct Client {
    /// Seconds since the start, data id, spelling.
    told: Mutex<Vec<(u64, String, String)>>,
    /// Acknowledgements that are not given yet.
    held: Mutex<Vec<(ConfigKey, oneshot::Sender<bool>)>>,
    /// Data ids it never acknowledges: their pushes fail after three seconds, as the connection has it.
    deaf_to: Vec<&'static str>,
    /// Acknowledgements are held until somebody releases them.
    slow: bool,
    outstanding_max: AtomicUsize,
    counts: metrics::Pushes,
}

impl Client {
    fn told(&self) -> Vec<String> {
        let told = std::mem::take(&mut *self.told.lock().unwrap());
        told.into_iter().map(|(_, name, _)| name).collect()
    }

    fn release(&self) {
        let held = std::mem::take(&mut *self.held.lock().unwrap());
        held.into_iter()
            .for_each(|(_, ack)| ack.send(true).expect("it waits"));
    }
}

impl Courier for Client {
    fn carry(&self, notice: Notice<'_>) -> impl Future<Output = bool> + Send + use<> {
        let at = START.with(|start| {
            clock::now()
                .saturating_duration_since(start.get().unwrap())
                .as_secs()
        });
        let name = notice.key.data_id();
        self.told
            .lock()
            .unwrap()
            .push((at, name.to_owned(), notice.namespace.to_owned()));
        let mut held = self.held.lock().unwrap();
        assert!(held.iter().all(|(key, _)| key != notice.key), "two outstanding");
        let (ack, acked) = oneshot::channel();
        let deaf = self.deaf_to.contains(&name);
        if deaf {
            drop(ack);
        } else if self.slow {
            held.push((notice.key.clone(), ack));
            self.outstanding_max.fetch_max(held.len(), Relaxed);
        } else {
            ack.send(true).expect("it waits");
        }
        async move {
            if deaf {
                tokio::time::sleep(Duration::from_secs(3)).await;
            }
            acked.await.unwrap_or(false)
        }
    }
}

thread_local! {
    static START: std::cell::Cell<Option<Instant>> = const { std::cell::Cell::new(None) };
}

/// Runs `script` with the pusher and the client's deliveries beside it.
async fn beside<R>(
    node: &Arc<Scripted>,
    watch: &ConfigWatch,
    client: &Client,
    script: impl Future<Output = R>,
) -> R {
    START.with(|start| start.set(Some(clock::now())));
    tokio::select! {
        biased;
        done = script => done,
        () = Arc::clone(&node.push).run() => unreachable!("the pusher does not end"),
        unresponsive = deliver(&**node, watch, client, &node.push.metrics, &client.counts) => panic!("{unresponsive}"),
    }
}

async fn settle() {
    tokio::time::sleep(AFTER_ANSWER + Duration::from_millis(10)).await;
}

#[tokio::test(start_paused = true)]
async fn what_differs_is_answered_in_the_order_of_the_client_and_later_changes_are_told() {
    let node = Scripted::new(&[("a", "1"), ("b", "1"), ("c", "1")]);
    let (watch, client) = (open(&node, "ip"), Client::default());
    beside(&node, &watch, &client, async {
        let has = [("c", "0"), ("a", "1"), ("gone", "1"), ("b", "0"), ("never", "")];
        assert_eq!(listens(&node, &watch, &has).await, names(&["c", "gone", "b"]));
        settle().await;
        assert_eq!(client.told(), [""; 0]);
        node.publish("a", "2");
        node.publish("other", "2");
        settle().await;
        assert_eq!(client.told(), ["a"]);
        node.publish("never", "1");
        settle().await;
        assert_eq!(client.told(), ["never"]);
    })
    .await;
}

/// The race that loses updates where the order is the other way round.
#[tokio::test(start_paused = true)]
async fn a_change_right_after_the_comparison_is_told() {
    let node = Scripted::new(&[("a", "1")]);
    let (watch, client) = (open(&node, "ip"), Client::default());
    *node.after_next_look.lock().unwrap() = Some(("a", "2"));
    beside(&node, &watch, &client, async {
        assert_eq!(listens(&node, &watch, &[("a", "1")]).await, names(&[]));
        settle().await;
        assert_eq!(client.told(), ["a"]);
    })
    .await;
}

/// Go and Python listen again only seconds after they were told: the client has 2, but said 1 last.
#[tokio::test(start_paused = true)]
async fn a_content_that_goes_back_to_what_the_client_said_last_is_told() {
    let node = Scripted::new(&[("a", "1")]);
    let (watch, client) = (open(&node, "ip"), Client::default());
    beside(&node, &watch, &client, async {
        assert_eq!(listens(&node, &watch, &[("a", "1")]).await, names(&[]));
        for content in ["2", "1", "2"] {
            node.publish("a", content);
            settle().await;
            assert_eq!(client.told(), ["a"], "{content}");
        }
        node.publish("a", "1");
        node.publish("a", "2");
        settle().await;
        assert_eq!(
            client.told(),
            ["a"],
            "there and back at once: it may have read in between"
        );
    })
    .await;
}

/// R41: the client comes from a node that has version 3, this one has version 1 and lags.
#[tokio::test(start_paused = true)]
async fn r41_a_lagging_node_tells_nothing_before_it_has_caught_up() {
    let node = Scripted::new(&[("a", "1"), ("b", "1")]);
    let (watch, client) = (open(&node, "ip"), Client::default());
    node.leader.send_replace(false);
    *node.lag.lock().unwrap() = vec![("a", "2"), ("a", "3")];
    beside(&node, &watch, &client, async {
        // It has what this node has, by chance: the next thing applied here may still be older.
        assert_eq!(listens(&node, &watch, &[("b", "1")]).await, names(&[]));
        let late = listens(&node, &watch, &[("a", "3")]).await;
        assert!(matches!(late, Err(Error::Unavailable(_))), "{late:?}");
        node.publish("a", "2");
        node.publish("b", "2");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(client.told(), [""; 0], "no leader, nothing told");
        node.leader.send_replace(true);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(node.md5_of("a"), Some(md5("3")));
        let mut told = client.told();
        told.sort_unstable();
        told.dedup();
        assert_eq!(told, ["a", "b"]);
        assert_eq!(listens(&node, &watch, &[("a", "3")]).await, names(&[]));
        let rounds = *node.rounds.lock().unwrap();
        node.publish("a", "4");
        settle().await;
        assert_eq!(client.told(), ["a"]);
        assert_eq!(listens(&node, &watch, &[("a", "3")]).await, names(&["a"]));
        assert_eq!(listens(&node, &watch, &[("a", "4")]).await, names(&[]));
        node.publish("a", "5");
        settle().await;
        assert_eq!(client.told(), ["a"]);
        assert_eq!(
            *node.rounds.lock().unwrap(),
            rounds,
            "what this node told itself needs no proof"
        );
        assert_eq!(listens(&node, &watch, &[("a", "6")]).await, names(&["a"]));
        assert_eq!(
            *node.rounds.lock().unwrap(),
            rounds + 1,
            "what it could not have told does"
        );
    })
    .await;
}

/// The Go SDK forgets notifications that come while it waits for the answer of a listen.
#[tokio::test(start_paused = true)]
async fn notifications_wait_for_the_answer_of_a_listen() {
    let node = Scripted::new(&[("a", "1"), ("b", "1")]);
    let (watch, client) = (open(&node, "ip"), Client::default());
    beside(&node, &watch, &client, async {
        assert_eq!(listens(&node, &watch, &[("a", "1")]).await, names(&[]));
        node.publish("a", "2");
        settle().await;
        assert_eq!(client.told(), ["a"]);
        node.leader.send_replace(false);
        let listening = async {
            assert_eq!(
                listens(&node, &watch, &[("b", "0")]).await,
                names(&["b"]),
                "what came meanwhile is in the answer"
            );
            assert_eq!(client.told(), [""; 0], "nothing before the answer");
        };
        tokio::join!(listening, async {
            settle().await;
            node.publish("b", "2");
            tokio::time::sleep(Duration::from_secs(1)).await;
            node.leader.send_replace(true);
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(client.told(), ["b"]);
    })
    .await;
}

/// The Python SDK reads a content after the answer and takes it for the newest, whatever it is notified of
/// meanwhile.
#[tokio::test(start_paused = true)]
async fn a_change_right_after_the_answer_of_a_listen_is_told_a_moment_later() {
    let node = Scripted::new(&[("a", "1")]);
    let (watch, client) = (open(&node, "ip"), Client::default());
    beside(&node, &watch, &client, async {
        assert_eq!(listens(&node, &watch, &[("a", "0")]).await, names(&["a"]));
        node.publish("a", "2");
        tokio::time::sleep(AFTER_ANSWER - Duration::from_millis(2)).await;
        assert_eq!(client.told(), [""; 0]);
        tokio::time::sleep(Duration::from_millis(4)).await;
        assert_eq!(client.told(), ["a"]);
        node.publish("a", "3");
        client.release();
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert_eq!(client.told(), ["a"], "without a listen nothing waits");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_burst_is_merged_and_its_last_change_is_always_told() {
    let node = Scripted::new(&[("a", "0"), ("b", "0")]);
    let watch = open(&node, "ip");
    let client = Client {
        slow: true,
        ..Client::default()
    };
    beside(&node, &watch, &client, async {
        let has = [("a", "0"), ("b", "0")];
        assert_eq!(listens(&node, &watch, &has).await, names(&[]));
        for content in 1..=1_000 {
            node.publish("a", &content.to_string());
            node.publish("b", &content.to_string());
            if content % 100 == 0 {
                settle().await;
            }
        }
        assert_eq!(client.told(), ["a", "b"], "one outstanding for each");
        client.release();
        settle().await;
        let mut told = client.told();
        told.sort_unstable();
        assert_eq!(told, ["a", "b"], "the last change");
        client.release();
        settle().await;
        assert_eq!(client.told(), [""; 0]);
        assert_eq!(client.outstanding_max.load(Relaxed), 2);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_never_acknowledged_holds_up_no_other_one() {
    let node = Scripted::new(&[("deaf", "0"), ("b", "0")]);
    let watch = open(&node, "ip");
    let client = Client {
        deaf_to: vec!["deaf"],
        ..Client::default()
    };
    beside(&node, &watch, &client, async {
        let has = [("deaf", "0"), ("b", "0")];
        assert_eq!(listens(&node, &watch, &has).await, names(&[]));
        node.publish("deaf", "1");
        for content in ["1", "2", "3"] {
            node.publish("b", content);
            settle().await;
        }
        assert_eq!(listens(&node, &watch, &[("b", "3")]).await, names(&[]));
        tokio::time::sleep(Duration::from_secs(40)).await;
        let mut told: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for (at, name, _) in client.told.lock().unwrap().drain(..) {
            told.entry(name).or_default().push(at);
        }
        assert_eq!(told["b"], [0, 0, 0]);
        assert_eq!(
            told["deaf"],
            [0, 5, 12, 21, 32],
            "3 s for the answer, then 2, 4, 6, 8 s"
        );
        watch.unlisten([key("deaf")].iter());
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert_eq!(client.told(), [""; 0], "nobody repeats what nobody listens to");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_answers_is_given_up_after_fifty_retries() {
    let node = Scripted::new(&[("deaf", "0")]);
    let watch = open(&node, "ip");
    let client = Client {
        deaf_to: vec!["deaf"],
        ..Client::default()
    };
    START.with(|start| start.set(Some(clock::now())));
    assert_eq!(listens(&node, &watch, &[("deaf", "0")]).await, names(&[]));
    node.publish("deaf", "1");
    tokio::select! {
        Unresponsive = deliver(&*node, &watch, &client, &node.push.metrics, &client.counts) => {}
        () = Arc::clone(&node.push).run() => unreachable!("the pusher does not end"),
    }
    let told = client.told.lock().unwrap();
    assert_eq!(told.len(), 51);
    // 50 timeouts of 3 s, and rests of 2 + 4 + … + 100 s.
    assert_eq!(told.last().map(|(at, _, _)| *at), Some(150 + 2_550));
    let (retried, given_up) = (&client.counts.retried, &client.counts.given_up);
    assert_eq!((retried.load(Relaxed), given_up.load(Relaxed)), (50, 1));
}

#[tokio::test(start_paused = true)]
async fn every_client_is_told_in_its_own_spelling() {
    let node = Scripted::new(&[("a", "1")]);
    let spellings = [None, Some(""), Some("public"), Some("PUBLIC"), Some("null")];
    for spelling in spellings {
        let (watch, client) = (open(&node, "ip"), Client::default());
        beside(&node, &watch, &client, async {
            let name = Name {
                namespace: spelling,
                group: Some("g"),
                data_id: Some("a"),
            };
            let entry = || Listened::new(&name, Seen::Other).expect("a name");
            let changed = listen(&*node, &watch, vec![entry()], soon()).await.unwrap();
            assert_eq!(changed, [entry()], "all of them are the default namespace");
            assert_eq!(changed[0].namespace(), spelling);
            node.publish("a", "2");
            settle().await;
            node.publish("a", "1");
            settle().await;
            let told = client.told.lock().unwrap();
            let spelling = spelling.unwrap_or_default().to_owned();
            assert_eq!(told[0], (0, "a".to_owned(), spelling));
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn listening_ends_key_by_key_and_with_the_connection() {
    let node = Scripted::new(&[("a", "1"), ("b", "1")]);
    let (watch, client) = (open(&node, "ip"), Client::default());
    beside(&node, &watch, &client, async {
        let has = [("a", "1"), ("b", "1")];
        assert_eq!(listens(&node, &watch, &has).await, names(&[]));
        assert_eq!(listens(&node, &watch, &has).await, names(&[]), "again");
        assert_eq!((node.push.load(), watch.len()), ((1, 2, 2), 2));
        watch.unlisten([key("a"), key("x")].iter());
        assert_eq!((node.push.load(), watch.len()), ((1, 1, 1), 1));
        node.publish("a", "2");
        node.publish("b", "2");
        settle().await;
        assert_eq!(client.told(), ["b"]);
        assert_eq!(
            listens(&node, &watch, &[("a", "1")]).await,
            names(&["a"]),
            "it may come back"
        );
        assert!(!watch.is_empty());
    })
    .await;
    drop(watch);
    assert_eq!(node.push.load(), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_replaced_state_is_told_where_the_client_may_have_something_else() {
    let node = Scripted::new(&[("a", "1"), ("b", "1"), ("c", "1")]);
    let (watch, client) = (open(&node, "ip"), Client::default());
    beside(&node, &watch, &client, async {
        let has = [("a", "1"), ("b", "1"), ("c", "1")];
        assert_eq!(listens(&node, &watch, &has).await, names(&[]));
        node.publish("c", "2");
        settle().await;
        assert_eq!(client.told(), ["c"]);
        node.state.lock().unwrap().insert(key("b"), md5("2"));
        // What the client said of `c` is right again, but it was told meanwhile.
        node.state.lock().unwrap().insert(key("c"), md5("1"));
        node.push.on_change(vec![Event::Reloaded { index: Index(7) }]);
        settle().await;
        let mut told = client.told();
        told.sort_unstable();
        assert_eq!(told, ["b", "c"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_keys_in_one_request() {
    let all: Vec<String> = (0..10_000).map(|n| format!("d{n}")).collect();
    let configs: Vec<(&str, &str)> = all.iter().map(|name| (name.as_str(), "1")).collect();
    let node = Scripted::new(&configs);
    let (watch, client) = (open(&node, "ip"), Client::default());
    beside(&node, &watch, &client, async {
        assert_eq!(listens(&node, &watch, &configs).await, names(&[]));
        assert_eq!(node.push.load(), (1, 10_000, 10_000));
        let old: Vec<_> = configs.iter().map(|(name, _)| (*name, "0")).collect();
        let changed = listens(&node, &watch, &old).await.expect("a leader");
        assert_eq!(changed, all);
        for (name, _) in &configs {
            node.publish(name, "2");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut told = client.told();
        told.sort_unstable();
        told.dedup();
        assert_eq!(told.len(), 10_000);
    })
    .await;
    drop(watch);
    assert_eq!(node.push.load(), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn beyond_the_bound_a_listen_is_refused_and_says_so() {
    let node = Scripted::new(&[]);
    let mut many = vec![key(&"d".repeat(1 << 20)); 128];
    let many = many.iter_mut().map(|key| (key, Seen::Nothing));
    let _held = node.push.watch("1", None, many).expect("there is room");
    let watch = open(&node, "ip");
    let refused = listens(&node, &watch, &[("a", "")]).await;
    assert!(matches!(refused, Err(Error::Overloaded(_))), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_may_go_on_to_other_configs_for_ever() {
    let node = Scripted::new(&[]);
    let watch = open(&node, "ip");
    let all: Vec<_> = (0..WATCHED_MAX).map(|n| listened(&n.to_string(), "")).collect();
    let keys: Vec<_> = all.iter().map(|entry| entry.key.clone()).collect();
    assert_eq!(listen(&*node, &watch, all, soon()).await, Ok(vec![]));
    let one_more = listens(&node, &watch, &[("more", "")]).await;
    assert!(matches!(one_more, Err(Error::Overloaded(_))), "{one_more:?}");
    watch.unlisten(keys.iter());
    assert_eq!(listens(&node, &watch, &[("more", "")]).await, names(&[]));
}

/// However publishes, listens, lost acknowledgements and reads interleave, a client that does what SDKs do
/// (told: listen with what it has; changed: read) ends with the last content, and never goes back.
#[tokio::test(start_paused = true)]
async fn whatever_the_timing_a_client_ends_with_the_last_content_and_never_goes_back() {
    for seed in 0..100_u64 {
        let mut random = seed;
        let mut next = move |below: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        let node = Scripted::new(&[("a", "0")]);
        let watch = open(&node, "ip");
        let client = Client {
            slow: true,
            ..Client::default()
        };
        let lifetime = Duration::from_secs(20);
        let (publish_pause, listen_pause) = (next(5) + 1, next(7) + 1);
        let publishes = async {
            for version in 1..=20 {
                tokio::time::sleep(Duration::from_millis(publish_pause)).await;
                node.publish("a", &version.to_string());
            }
        };
        let reads = async {
            let versions: Vec<Md5> = (0..=20).map(|version| md5(&version.to_string())).collect();
            let mut has = 0;
            assert_eq!(
                listens(&node, &watch, &[("a", "0")]).await.map(drop),
                Ok(()),
                "seed {seed}"
            );
            let ends = clock::now() + lifetime;
            while clock::now() < ends {
                tokio::time::sleep(Duration::from_millis(listen_pause)).await;
                if client.told().is_empty() {
                    continue;
                }
                client.release();
                let changed = listens(&node, &watch, &[("a", &has.to_string())]).await;
                if changed != names(&[]) {
                    let reads = node.md5_of("a");
                    let read = versions.iter().position(|version| Some(*version) == reads);
                    let read = read.expect("a version");
                    assert!(read >= has, "seed {seed}: back from {has} to {read}");
                    has = read;
                }
            }
            assert_eq!(has, 20, "seed {seed}");
        };
        beside(&node, &watch, &client, async { tokio::join!(publishes, reads) }).await;
    }
}

/// A beta publish for one of many: only the one that sees it is told.
#[tokio::test(start_paused = true)]
async fn a_variant_is_told_to_those_who_see_it() {
    use crate::config::change::{After, Before, Numbers, publish};
    use crate::config::{ConfigId, HistoryId, Origin, Publish, Variant};
    let variant = Publish {
        variant: Variant::beta("10.0.0.1"),
        ..Publish::new(key("a"), "beta", Origin::default())
    };
    let before = Before {
        formal: None,
        grays: &GrayVersions::default(),
    };
    let numbers = Numbers {
        config: ConfigId(1),
        history: HistoryId(1),
    };
    let Ok(After::Gray(_, grays)) = publish(before, &variant, numbers).map(|edit| edit.after) else {
        panic!("no variant");
    };
    let versions = |formal: &str, grays: &GrayVersions| Versions {
        formal: Some(md5(formal)),
        grays: grays.clone(),
    };
    let none = GrayVersions::default();
    let cases = [
        (versions("1", &none), versions("1", &grays), [true, false]),
        (versions("1", &grays), versions("2", &grays), [false, true]),
        (versions("1", &none), versions("2", &none), [true, true]),
        (versions("beta", &grays), versions("beta", &none), [false, false]),
    ];
    for (before, after, expected) in cases {
        let node = Scripted::new(&[("a", "1")]);
        for (ip, expected) in ["10.0.0.1", "10.0.0.2"].iter().zip(expected) {
            let (watch, client) = (open(&node, ip), Client::default());
            beside(&node, &watch, &client, async {
                assert_eq!(listens(&node, &watch, &[("a", "1")]).await, names(&[]));
                node.push.on_change(vec![Event::ConfigChanged {
                    key: key("a"),
                    index: Index(1),
                    before: before.clone(),
                    after: after.clone(),
                }]);
                settle().await;
                assert_eq!(client.told().len(), usize::from(expected), "{ip}: {before:?}");
            })
            .await;
        }
    }
}
