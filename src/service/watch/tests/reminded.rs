//! Clients that take notice of a change and do not look.

use super::*;

fn seconds(client: &Client) -> Vec<u64> {
    let told = std::mem::take(&mut *client.told.lock().unwrap());
    told.into_iter().map(|(at, ..)| at).collect()
}

async fn wait(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_look_is_told_three_times_more() {
    let node = Scripted::new(&[("a", "1")]);
    let (watch, client) = (open(&node, "ip"), Client::default());
    beside(&node, &watch, &client, async {
        assert_eq!(listens(&node, &watch, &[("a", "1")]).await, names(&[]));
        node.publish("a", "2");
        wait(600).await;
        assert_eq!(seconds(&client), [0, 6, 18, 42]);
        assert_eq!(client.counts.retried.load(Relaxed), 3);
        // Another change is told as often.
        node.publish("a", "3");
        wait(8).await;
        assert_eq!(seconds(&client), [600, 606]);
        node.publish("a", "4");
        wait(600).await;
        assert_eq!(seconds(&client), [608, 614, 626, 650]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_looks_is_not_told_again() {
    let node = Scripted::new(&[("a", "1"), ("b", "1"), ("c", "1")]);
    let (watch, client) = (open(&node, "ip"), Client::default());
    let has = [("a", "1"), ("b", "1"), ("c", "1")];
    beside(&node, &watch, &client, async {
        assert_eq!(listens(&node, &watch, &has).await, names(&[]));
        for name in ["a", "b", "c"] {
            node.publish(name, "2");
        }
        wait(5).await;
        let mut told = client.told();
        told.sort();
        assert_eq!(told, ["a", "b", "c"]);
        // One listens, one reads, one listens no longer.
        assert_eq!(listens(&node, &watch, &[("a", "1")]).await, names(&["a"]));
        assert_eq!(listens(&node, &watch, &[("a", "2")]).await, names(&[]));
        watch.has_read(&key("b"));
        watch.has_read(&key("unknown"));
        watch.unlisten([key("c")].iter());
        wait(600).await;
        assert_eq!(client.told(), [""; 0]);
    })
    .await;
}

/// What the Go SDK does (2.3.5): it asks about what it was told of first, and takes all other configs for up to
/// date when it has read that.
#[tokio::test(start_paused = true)]
async fn who_forgets_what_comes_together_hears_of_all_of_it() {
    let all: Vec<String> = (0..30).map(|number| format!("config {number:02}")).collect();
    let pairs: Vec<(&str, &str)> = all.iter().map(|name| (&**name, "1")).collect();
    let node = Scripted::new(&pairs);
    let (watch, client) = (open(&node, "ip"), Client::default());
    beside(&node, &watch, &client, async {
        assert_eq!(listens(&node, &watch, &pairs).await, names(&[]));
        for name in &all {
            node.publish(name, "2");
        }
        let mut heard = std::collections::BTreeSet::new();
        for _ in 0..1_000 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let Some(first) = client.told().into_iter().next() else {
                continue;
            };
            for changed in listens(&node, &watch, &[(&first, "1")]).await.expect("no limit") {
                tokio::time::sleep(Duration::from_millis(50)).await;
                let forgotten = client.told();
                assert!(forgotten.len() < 30, "{forgotten:?}");
                assert_eq!(listens(&node, &watch, &[(&changed, "2")]).await, names(&[]));
                heard.insert(changed);
            }
        }
        assert_eq!(heard.len(), 30, "within ten seconds: {heard:?}");
    })
    .await;
}
