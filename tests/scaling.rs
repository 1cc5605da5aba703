//! Scaling while serving: nodes that join, leave, die, come back wiped, move, fall far behind and are
//! restarted, while clients write. In each test clients keep a record of what they were told, and at the end
//! every node must have exactly what was acknowledged: a write may be refused (then it is nowhere) or
//! unknown (then it may be there), never silently lost.
//!
//! Nothing here sleeps to make things pass: waits are for a state, with a bound that only a bug reaches.

#[path = "scaling/cluster.rs"]
mod cluster;
#[path = "grpc_client/mod.rs"]
mod grpc_client;
#[path = "scaling/naming.rs"]
mod naming;
#[path = "scaling/operators.rs"]
mod operators;
#[path = "scaling/starting.rs"]
mod starting;
#[path = "scaling/writers.rs"]
mod writers;

use std::time::Duration;

use rnacos::server::Tuning;
use rnacos::settings::ClusterAsk;

use self::cluster::{Cluster, Node, PATIENCE, small};
use self::writers::Writers;

#[tokio::test(flavor = "multi_thread")]
async fn one_three_five_three_nodes_under_writes() {
    let mut cluster = Cluster::of(1, Tuning::default()).await;
    let writers = Writers::start(3, cluster.http());
    writers.progress(5).await;
    for id in 2..=5 {
        cluster.join(id).await;
        writers.reach(cluster.http());
        writers.progress(5).await;
    }
    cluster.has_voters(&[1, 2, 3, 4, 5]).await;
    for id in [5, 4] {
        let out = cluster.done(ClusterAsk::Remove { id }).await;
        assert!(out.contains("no longer a member"), "{out}");
        // Clients may still talk to it while it finds out; it must not tell them anything untrue.
        let gone = cluster.take(id);
        let sentence = tokio::time::timeout(PATIENCE, gone.server().failed())
            .await
            .expect("it finds out");
        assert!(sentence.contains("was removed from the cluster"), "{sentence}");
        gone.stop().await;
        writers.reach(cluster.http());
        writers.progress(5).await;
    }
    cluster.has_voters(&[1, 2, 3]).await;
    let record = writers.stop().await;
    cluster.settle().await;
    record.check(&cluster.http()).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_removed_hands_over_and_ends() {
    let mut cluster = Cluster::of(3, Tuning::default()).await;
    let writers = Writers::start(2, cluster.http());
    writers.progress(3).await;
    let leader = cluster.leader().await;
    cluster.done(ClusterAsk::Remove { id: leader }).await;
    let gone = cluster.take(leader);
    let sentence = tokio::time::timeout(PATIENCE, gone.server().failed())
        .await
        .expect("it finds out");
    assert!(sentence.contains("was removed from the cluster"), "{sentence}");
    gone.stop().await;
    writers.reach(cluster.http());
    writers.progress(3).await;
    let next = cluster.leader().await;
    assert_ne!(next, leader);
    let record = writers.stop().await;
    cluster.settle().await;
    record.check(&cluster.http()).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_is_removed_and_comes_back_wiped() {
    let mut cluster = Cluster::of(3, Tuning::default()).await;
    let writers = Writers::start(2, cluster.http());
    writers.progress(3).await;
    let dead = cluster.take(3);
    let port = dead.grpc_port();
    dead.stop().await;
    writers.reach(cluster.http());
    writers.progress(3).await;

    let view = cluster.view().await;
    assert!(!view.is_well(), "{view}");
    assert!(view.to_string().contains("rnacos cluster remove 3"), "{view}");
    // With node 3 down, taking node 2 out as well would leave nobody to decide anything.
    let refusal = cluster.refused(ClusterAsk::Remove { id: 2 }).await;
    assert!(refusal.contains("no majority"), "{refusal}");

    // Its id is taken by a life that is over: joining says what to do.
    let wiped = Node::fresh(3).at_port(port).joining(cluster.door());
    let error = wiped.try_start().await.err().expect("the id is still a member's");
    assert!(
        format!("{error:#}").contains("rnacos cluster remove 3"),
        "{error:#}"
    );

    cluster.done(ClusterAsk::Remove { id: 3 }).await;
    let again = cluster.refused(ClusterAsk::Remove { id: 3 }).await;
    assert!(again.contains("no member"), "{again}");
    let back = wiped.try_start().await.expect("it joins after the removal");
    cluster.add(back);
    cluster.has_voters(&[1, 2, 3]).await;
    writers.reach(cluster.http());
    writers.progress(3).await;
    let record = writers.stop().await;
    cluster.settle().await;
    record.check(&cluster.http()).await;
    let view = cluster.view().await;
    assert!(view.is_well(), "{view}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_come_back_at_other_addresses_are_found() {
    let mut cluster = Cluster::of(3, Tuning::default()).await;
    let writers = Writers::start(2, cluster.http());
    writers.progress(3).await;
    // One, then two at once: a majority that has moved must still find together.
    for moving in [&[2_u64][..], &[2, 3]] {
        let mut stopped = Vec::new();
        for id in moving {
            stopped.push(cluster.take(*id).halt().await);
        }
        if moving.len() == 2 {
            // Nobody leads who could be told where they are now.
            cluster
                .node(1)
                .wait("give up leading or following", |status| status.leader().is_none())
                .await;
        }
        for node in stopped {
            let before = node.grpc_port();
            let node = node.anywhere().try_start().await.expect("it starts elsewhere");
            assert_ne!(node.grpc_port(), before);
            cluster.add(node);
        }
        cluster.has_addresses().await;
        writers.reach(cluster.http());
        writers.progress(3).await;
    }
    let record = writers.stop().await;
    cluster.settle().await;
    record.check(&cluster.http()).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_far_behind_gets_a_snapshot_while_writes_go_on() {
    let mut cluster = Cluster::of(3, small()).await;
    let writers = Writers::start(2, cluster.http());
    writers.progress(3).await;
    let behind = cluster.take(3).halt().await;
    writers.reach(cluster.http());
    let end = behind.last();
    // Until the log of both others begins after the end of its log: only a snapshot can help it then.
    for id in [1, 2] {
        cluster
            .node(id)
            .wait("cut its log", |status| status.raft.base > end)
            .await;
    }
    let node = behind.try_start().await.expect("it starts");
    node.wait("install a snapshot", |status| {
        status.counts.snapshots_installed > 0
    })
    .await;
    cluster.add(node);
    writers.reach(cluster.http());
    writers.progress(10).await;
    let record = writers.stop().await;
    cluster.settle().await;
    record.check(&cluster.http()).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_loses_nothing_and_writes_go_on() {
    let mut cluster = Cluster::of(3, Tuning::default()).await;
    let writers = Writers::start(3, cluster.http());
    for id in 1..=3 {
        writers.progress(5).await;
        let stopped = cluster.take(id).halt().await;
        writers.reach(cluster.http());
        writers.progress(5).await;
        cluster.add(stopped.try_start().await.expect("it starts again"));
        cluster.settle_at_least(id).await;
        writers.reach(cluster.http());
    }
    writers.progress(5).await;
    let record = writers.stop().await;
    cluster.settle().await;
    record.check(&cluster.http()).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_leader_stops_at_once() {
    let mut cluster = Cluster::of(3, Tuning::default()).await;
    let leader = cluster.leader().await;
    let began = std::time::Instant::now();
    cluster.take(leader).stop().await;
    let took = began.elapsed();
    // Handing over takes one election without its timeout, the rest nothing. Far from it would mean that
    // something waits for a timer again (drains give up after 10 s).
    assert!(took < Duration::from_secs(2), "stopping took {took:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_goes_where_it_is_sent() {
    let cluster = Cluster::of(3, Tuning::default()).await;
    let leader = cluster.leader().await;
    let to = (1..=3).find(|id| *id != leader).expect("another one");
    let told = cluster.done(ClusterAsk::Transfer { id: Some(to) }).await;
    assert!(told.starts_with(&format!("node {to} leads now")), "{told}");
    assert_eq!(cluster.leader().await, to);
    let told = cluster.done(ClusterAsk::Transfer { id: Some(to) }).await;
    assert_eq!(told, format!("node {to} leads already"));
    let told = cluster.done(ClusterAsk::Transfer { id: None }).await;
    assert!(told.contains("leads now"), "{told}");
    assert_ne!(cluster.leader().await, to);
    let told = cluster.refused(ClusterAsk::Transfer { id: Some(9) }).await;
    assert!(told.contains("node 9 is not a member"), "{told}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn add_says_how_a_node_joins_and_does_not_invent_members() {
    let cluster = Cluster::of(1, Tuning::default()).await;
    let address = cluster.door();
    let add = |id, address: &str| ClusterAsk::Add {
        id,
        address: address.to_owned(),
    };
    let told = cluster.refused(add(2, "127.0.0.1:1")).await;
    for word in [
        "RNACOS_RAFT_NODE_ID=2",
        &format!("RNACOS_RAFT_JOIN_ADDR={address}"),
    ] {
        assert!(told.contains(word), "{told}");
    }
    let told = cluster.done(add(1, &address)).await;
    assert!(told.contains("already"), "{told}");
    let told = cluster.refused(add(1, "127.0.0.1:1")).await;
    assert!(told.contains("does not answer at 127.0.0.1:1"), "{told}");
    let told = cluster.refused(ClusterAsk::Remove { id: 1 }).await;
    assert!(told.contains("last voter"), "{told}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_tells_people_and_programs() {
    let cluster = Cluster::of(3, Tuning::default()).await;
    cluster.settle().await;
    let door = cluster.door();
    let (code, out, err) = command(&["cluster", "status", "--at", &door]).await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("ID  ADDRESS"), "{out}");
    assert_eq!(out.matches("ok\n").count(), 3, "{out}");
    let (code, out, _) = command(&["cluster", "status", "--json", "--at", &door]).await;
    assert_eq!(code, 0, "{out}");
    let view: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(view["members"].as_array().map(Vec::len), Some(3), "{out}");
    assert_eq!(view["attention"].as_array().map(Vec::len), Some(0), "{out}");
    let (code, _, err) = command(&["cluster", "remove", "7", "--at", &door]).await;
    assert_eq!(code, 1, "{err}");
    assert!(
        err.contains("node 7 is no member of this cluster (members: 1, 2, 3)"),
        "{err}"
    );
    let (code, out, _) = command(&["cluster", "transfer", "7", "--json", "--at", &door]).await;
    assert_eq!(code, 1, "{out}");
    assert!(out.starts_with(r#"{"outcome":"not-done","#), "{out}");
    let (code, _, err) = command(&["cluster", "remove", "0", "--at", &door]).await;
    assert_eq!(code, 2, "{err}");
    cluster.stop().await;
    let (code, _, err) = command(&["cluster", "status", "--at", &door]).await;
    assert_eq!(code, 1, "{err}");
    assert!(
        err.contains("no member answers") && err.contains("--at HOST:PORT"),
        "{err}"
    );
}

/// Runs the binary; exit code, standard output, standard error.
async fn command(arguments: &[&str]) -> (i32, String, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_rnacos"));
    command
        .args(arguments)
        .env_clear()
        .current_dir(std::env::temp_dir());
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    let output = output.expect("a thread").expect("the binary runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (
        output.status.code().unwrap_or(-1),
        text(output.stdout),
        text(output.stderr),
    )
}
