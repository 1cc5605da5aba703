//! Polls against a scripted truth, in virtual time: the order of register, compare and ReadIndex, and
//! every way in which a poll ends.

use std::collections::HashMap;
use std::sync::Mutex;

use raft::Index;
use tokio::sync::watch;

use super::*;
use crate::config::{GrayVersions, Versions};
use crate::model::NamespaceId;
use crate::state::Event;

pub(in crate::service) fn key(name: &str) -> ConfigKey {
    ConfigKey::new(&NamespaceId::default(), "g", name)
}

pub(in crate::service) fn md5(content: &str) -> Md5 {
    Md5::of(content.as_bytes())
}

/// A node whose state, rounds and moments of change the test decides.
pub(in crate::service) struct Scripted {
    pub(in crate::service) state: Mutex<HashMap<ConfigKey, Md5>>,
    pub(in crate::service) push: Arc<ConfigPush>,
    pub(in crate::service) freshness: super::super::freshness::Freshness,
    /// True while a leader answers.
    pub(in crate::service) leader: watch::Sender<bool>,
    /// What the node applies before a round is done: it lags by this.
    pub(in crate::service) lag: Mutex<Vec<(&'static str, &'static str)>>,
    /// Applied right after the next look at the state, before anything else can happen.
    pub(in crate::service) after_next_look: Mutex<Option<(&'static str, &'static str)>>,
    pub(in crate::service) rounds: Mutex<usize>,
}

impl Scripted {
    pub(in crate::service) fn new(configs: &[(&str, &str)]) -> Arc<Scripted> {
        let state = configs.iter().map(|(name, content)| (key(name), md5(content)));
        Arc::new(Scripted {
            state: Mutex::new(state.collect()),
            push: ConfigPush::new(),
            freshness: Default::default(),
            leader: watch::Sender::new(true),
            lag: Mutex::default(),
            after_next_look: Mutex::default(),
            rounds: Mutex::default(),
        })
    }

    /// Applies a publish: shown first, told afterwards.
    pub(in crate::service) fn publish(&self, name: &str, content: &str) {
        let versions = |formal| Versions {
            formal,
            grays: GrayVersions::default(),
        };
        let before = self.state.lock().unwrap().insert(key(name), md5(content));
        self.push.on_change(vec![Event::ConfigChanged {
            key: key(name),
            index: Index(1),
            before: versions(before),
            after: versions(Some(md5(content))),
        }]);
    }

    /// What this node has now.
    pub(in crate::service) fn md5_of(&self, name: &str) -> Option<Md5> {
        self.state.lock().unwrap().get(&key(name)).copied()
    }

    /// Polls for thirty seconds, with a pusher beside it as in the server.
    async fn poll(self: &Arc<Self>, listened: &[(&str, &str)]) -> Result<Vec<String>> {
        self.poll_until(listened, &Shutdown::new()).await
    }

    async fn poll_until(self: &Arc<Self>, listened: &[(&str, &str)], stop: &Shutdown) -> Result<Vec<String>> {
        let deadline = clock::now() + Duration::from_secs(30);
        let poll = wait(&**self, &self.push, stop, listen(listened), deadline);
        let changed = tokio::select! {
            changed = poll => changed?,
            () = Arc::clone(&self.push).run() => unreachable!("the pusher does not end"),
        };
        Ok(changed
            .iter()
            .map(|entry| entry.key.data_id().to_owned())
            .collect())
    }
}

impl Truth for Scripted {
    fn md5(&self, key: &ConfigKey, _client: &Client<'_>) -> Option<Md5> {
        let seen = self.state.lock().unwrap().get(key).copied();
        if let Some((name, content)) = self.after_next_look.lock().unwrap().take() {
            self.publish(name, content);
        }
        seen
    }

    fn moment(&self) -> Moment {
        self.freshness.now()
    }

    async fn caught_up(&self, since: Moment, deadline: Instant) -> std::result::Result<(), ReadError> {
        let round = async {
            let mut leader = self.leader.subscribe();
            let answers = tokio::time::timeout_at(deadline, leader.wait_for(|leader| *leader));
            answers
                .await
                .map_err(|_| ReadError::NoLeader)?
                .expect("the sender lives");
            *self.rounds.lock().unwrap() += 1;
            let lag = std::mem::take(&mut *self.lag.lock().unwrap());
            for (name, content) in lag {
                self.publish(name, content);
            }
            Ok(())
        };
        self.freshness.since(since, deadline, round).await
    }
}

/// A client's list: name and content it has, empty for none.
fn listen(listened: &[(&str, &str)]) -> Listen {
    let entries = listened.iter().map(|(name, content)| Listened {
        key: key(name),
        seen: if content.is_empty() {
            Seen::Nothing
        } else {
            Seen::Md5(md5(content))
        },
        spelling: Spelling::Absent,
    });
    Listen {
        entries: entries.collect(),
        ..Listen::default()
    }
}

fn names(names: &[&str]) -> Result<Vec<String>> {
    Ok(names.iter().map(|name| (*name).to_owned()).collect())
}

#[tokio::test(start_paused = true)]
async fn what_differs_is_told_at_once_and_in_the_order_of_the_client() {
    let node = Scripted::new(&[("a", "1"), ("b", "1"), ("c", "1")]);
    let started = clock::now();
    let told = node.poll(&[("c", "0"), ("a", "1"), ("gone", "1"), ("b", "0"), ("never", "")]);
    assert_eq!(told.await, names(&["c", "gone", "b"]));
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert_eq!(node.push.load(), (0, 0, 0), "nobody is left behind");
}

#[tokio::test(start_paused = true)]
async fn without_a_change_a_poll_ends_empty_at_its_deadline() {
    let node = Scripted::new(&[("a", "1")]);
    let started = clock::now();
    assert_eq!(node.poll(&[("a", "1"), ("b", "")]).await, names(&[]));
    assert_eq!(started.elapsed(), Duration::from_secs(30));
    assert_eq!(*node.rounds.lock().unwrap(), 0, "nobody is asked for nothing");
}

#[tokio::test(start_paused = true)]
async fn only_the_changed_config_is_told() {
    let node = Scripted::new(&[("a", "1"), ("b", "1")]);
    let client = [("a", "1"), ("b", "1")];
    let (told, ()) = tokio::join!(node.poll(&client), async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        node.publish("other", "1");
        node.publish("b", "2");
    });
    assert_eq!(told, names(&["b"]));
}

/// The race that loses updates where the order is the other way round: the state is looked at, it changes,
/// the client is registered, and sleeps.
#[tokio::test(start_paused = true)]
async fn a_change_right_after_the_comparison_is_not_lost() {
    let node = Scripted::new(&[("a", "1")]);
    *node.after_next_look.lock().unwrap() = Some(("a", "2"));
    let started = clock::now();
    assert_eq!(node.poll(&[("a", "1")]).await, names(&["a"]));
    assert_eq!(started.elapsed(), Duration::ZERO);
}

/// R41: the client has version 3, this node has version 1 and applies 2 and 3 only later.
#[tokio::test(start_paused = true)]
async fn r41_a_lagging_node_does_not_tell_older_as_new() {
    let node = Scripted::new(&[("a", "1")]);
    *node.lag.lock().unwrap() = vec![("a", "2"), ("a", "3")];
    let (told, ()) = tokio::join!(node.poll(&[("a", "3")]), async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        node.publish("a", "4");
    });
    assert_eq!(told, names(&["a"]), "only the fourth is news");
    assert_eq!(
        *node.rounds.lock().unwrap(),
        1,
        "what is applied after the round needs no other"
    );
}

/// R41 where the MD5s happen to agree: the content went from 1 to 2 and back to 1, the client has the last,
/// the node the first. The next thing it applies is older than what the client has.
#[tokio::test(start_paused = true)]
async fn r41_a_change_that_wakes_a_lagging_node_is_checked_too() {
    let node = Scripted::new(&[("a", "1")]);
    *node.lag.lock().unwrap() = vec![("a", "1")];
    let (told, ()) = tokio::join!(node.poll(&[("a", "1")]), async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        node.publish("a", "2");
    });
    assert_eq!(
        told,
        names(&[]),
        "the second version is not news for one who has the third"
    );
    assert_eq!(*node.rounds.lock().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn without_a_leader_nothing_is_told_until_there_is_one() {
    let node = Scripted::new(&[("a", "1")]);
    node.leader.send_replace(false);
    let started = clock::now();
    let (told, ()) = tokio::join!(node.poll(&[("a", "0")]), async {
        tokio::time::sleep(Duration::from_secs(7)).await;
        node.leader.send_replace(true);
    });
    assert_eq!(told, names(&["a"]));
    assert_eq!(started.elapsed(), Duration::from_secs(7));

    node.leader.send_replace(false);
    let started = clock::now();
    let told = node.poll(&[("a", "0")]).await;
    assert!(matches!(told, Err(Error::Unavailable(_))), "{told:?}");
    assert_eq!(started.elapsed(), Duration::from_secs(30));
    assert_eq!(
        node.poll(&[("a", "1")]).await,
        names(&[]),
        "what does not differ needs no leader"
    );
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_polls_at_once_whatever_they_wait_for() {
    let node = Scripted::new(&[("a", "1")]);
    for (has, leader) in [("1", true), ("0", false)] {
        node.leader.send_replace(leader);
        let stop = Shutdown::new();
        let started = clock::now();
        let client = [("a", has)];
        let (told, ()) = tokio::join!(node.poll_until(&client, &stop), async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            stop.begin();
        });
        assert_eq!(told, names(&[]));
        assert_eq!(started.elapsed(), Duration::from_secs(1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_poll_that_is_dropped_is_forgotten() {
    let node = Scripted::new(&[("a", "1")]);
    let poll = node.poll(&[("a", "1")]);
    assert!(tokio::time::timeout(Duration::from_secs(1), poll).await.is_err());
    assert_eq!(node.push.load(), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_replaced_state_is_looked_at_whole() {
    let node = Scripted::new(&[("a", "1"), ("b", "1")]);
    let client = [("a", "1"), ("b", "1")];
    let (told, ()) = tokio::join!(node.poll(&client), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        node.state.lock().unwrap().insert(key("b"), md5("2"));
        node.push.on_change(vec![Event::Reloaded { index: Index(7) }]);
    });
    assert_eq!(told, names(&["b"]));
}

#[tokio::test(start_paused = true)]
async fn a_short_poll_compares_and_waits_for_nothing_but_the_truth() {
    let node = Scripted::new(&[("a", "1")]);
    let soon = || clock::now() + Duration::from_secs(2);
    let told = compare_once(&*node, listen(&[("a", "1")]), soon()).await;
    assert_eq!(told, Ok(Vec::new()));
    *node.lag.lock().unwrap() = vec![("a", "2")];
    let told = compare_once(&*node, listen(&[("a", "2")]), soon()).await;
    assert_eq!(told, Ok(Vec::new()), "the node lagged");
    let told = compare_once(&*node, listen(&[("a", "1")]), soon()).await;
    assert_eq!(told.map(|told| told.len()), Ok(1));
    node.leader.send_replace(false);
    let told = compare_once(&*node, listen(&[("a", "1")]), soon()).await;
    assert!(matches!(told, Err(Error::Unavailable(_))), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn beyond_the_bound_the_refusal_comes_late() {
    let node = Scripted::new(&[]);
    let mut many = vec![key(&"d".repeat(1 << 20)); 128];
    let many = many.iter_mut().map(|key| (key, Seen::Nothing));
    let _held = node.push.watch("1", None, many).expect("there is room");
    let started = clock::now();
    assert!(matches!(node.poll(&[("a", "")]).await, Err(Error::Overloaded(_))));
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert_eq!(node.push.metrics.refused.load(Relaxed), 1);
}

/// However changes and polls interleave, a client that polls in a loop ends with the last content.
#[tokio::test(start_paused = true)]
async fn a_client_that_polls_on_ends_with_the_last_content() {
    for seed in 0..50_u64 {
        let mut random = seed;
        let mut next = move |below: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        let node = Scripted::new(&[("a", "0")]);
        let publishes = async {
            for version in 1..=20 {
                tokio::time::sleep(Duration::from_millis(next(4))).await;
                node.publish("a", &version.to_string());
            }
        };
        let client = async {
            let mut has = md5("0");
            while has != md5("20") {
                let mut listen = listen(&[("a", "x")]);
                listen.entries[0].seen = Seen::Md5(has);
                let deadline = clock::now() + Duration::from_secs(30);
                let changed = wait(&*node, &node.push, &Shutdown::new(), listen, deadline).await;
                assert_eq!(
                    changed.map(|changed| changed.len()),
                    Ok(1),
                    "seed {seed}: a lost update"
                );
                has = node.state.lock().unwrap()[&key("a")];
            }
        };
        tokio::select! {
            ((), ()) = async { tokio::join!(publishes, client) } => {}
            () = Arc::clone(&node.push).run() => unreachable!("the pusher does not end"),
        }
    }
}
