//! The Rust SDK: throws the answer of a listen away, and says nothing for a minute after it has connected.

use super::*;

fn rust<'a>(module: &'a str, namespace: &'a str) -> Who<'a> {
    Who {
        ip: "ip",
        tag: None,
        agent: "Nacos-Rust-Client:0.8.3",
        module: Some(module),
        namespace,
    }
}

fn open_as(node: &Scripted, who: &Who<'_>) -> ConfigWatch {
    ConfigWatch::new(&node.push, who, node.moment())
}

async fn wait(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn what_changed_between_its_read_and_its_listen_is_told() {
    let node = Scripted::new(&[("a", "2"), ("b", "2")]);
    let (watch, client) = (open_as(&node, &rust("config", "")), Client::default());
    beside(&node, &watch, &client, async {
        wait(100).await;
        assert_eq!(listens(&node, &watch, &[("a", "1")]).await, names(&["a"]));
        settle().await;
        assert_eq!(client.told(), ["a"]);
        assert_eq!(listens(&node, &watch, &[("b", "2")]).await, names(&[]));
        // Its comparison is another matter: it looks at that answer.
        let has = [("a", "1"), ("b", "1")];
        assert_eq!(listens(&node, &watch, &has).await, names(&["a", "b"]));
        settle().await;
        assert_eq!(client.told(), [""; 0]);
        // It is told whoever answers nothing, too: as soon as there is a leader.
        node.leader.send_replace(false);
        assert!(listens(&node, &watch, &[("a", "0")]).await.is_err());
        wait(20).await;
        assert_eq!(client.told(), [""; 0]);
        node.leader.send_replace(true);
        wait(1).await;
        assert_eq!(client.told(), ["a"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_it_listened_to_elsewhere_is_told_before_it_says_so() {
    let node = Scripted::new(&[("a", "1"), ("b", "1"), ("c", "1")]);
    node.publish("a", "2");
    wait(5).await;
    let (watch, client) = (open_as(&node, &rust("config", "public")), Client::default());
    beside(&node, &watch, &client, async {
        wait(1).await;
        let told = std::mem::take(&mut *client.told.lock().unwrap());
        let expected = (0, "a".to_owned(), "public".to_owned());
        assert_eq!(told, [expected], "while it was away, in its own spelling");
        node.publish("b", "2");
        wait(1).await;
        assert_eq!(client.told(), ["b"]);
        // What it has spoken of is told as to everybody, and once.
        assert_eq!(listens(&node, &watch, &[("b", "2")]).await, names(&[]));
        node.publish("b", "3");
        node.publish("c", "2");
        wait(1).await;
        let mut told = client.told();
        told.sort_unstable();
        assert_eq!(told, ["b", "c"]);
        wait(70).await;
        client.told();
        node.publish("a", "3");
        wait(1).await;
        assert_eq!(client.told(), [""; 0], "it has said what it listens to by now");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nobody_else_is_told_what_he_has_not_asked_for() {
    let java = Who {
        agent: "Nacos-Java-Client:v3.0.3",
        ..rust("config", "")
    };
    for who in [java, rust("naming", ""), rust("config", "other")] {
        let node = Scripted::new(&[("a", "1")]);
        node.publish("a", "2");
        let (watch, client) = (open_as(&node, &who), Client::default());
        beside(&node, &watch, &client, async {
            node.publish("a", "3");
            wait(80).await;
            assert_eq!(client.told(), [""; 0], "{who:?}");
        })
        .await;
    }
}

/// R41: it comes from a node that has 3; told of 2, it would read 2 after 3.
#[tokio::test(start_paused = true)]
async fn r41_a_lagging_node_guesses_nothing() {
    let node = Scripted::new(&[("a", "1")]);
    node.publish("a", "2");
    node.leader.send_replace(false);
    *node.lag.lock().unwrap() = vec![("a", "3")];
    let (watch, client) = (open_as(&node, &rust("config", "")), Client::default());
    beside(&node, &watch, &client, async {
        wait(30).await;
        assert_eq!(client.told(), [""; 0]);
        node.leader.send_replace(true);
        wait(1).await;
        assert_eq!(node.md5_of("a"), Some(md5("3")));
        let mut told = client.told();
        told.dedup();
        assert_eq!(told, ["a"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_namespace_in_which_everything_changes_is_told_in_part() {
    let node = Scripted::new(&[]);
    let (watch, client) = (open_as(&node, &rust("config", "")), Client::default());
    beside(&node, &watch, &client, async {
        for round in 0..3 {
            for number in 0..800 {
                node.publish(&format!("{round}-{number}"), "1");
            }
            wait(1).await;
        }
        assert_eq!(client.told().len(), 1_000);
    })
    .await;
}
