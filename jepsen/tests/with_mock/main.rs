//! The harness against a server of its own making, right and wrong.
//!
//! A harness is trusted only while it still catches bugs put there on purpose. So this test plays the
//! server itself: started with the server's environment variables it is the mock (`server.rs`), a few
//! processes around a shared folder, which can lie in ways a real server must not. Run without them it
//! runs every scenario against the right mock, which must pass, and against each wrong one, which must be
//! found out. No root and no network but loopback is needed.

use std::path::PathBuf;
use std::time::Duration;

use jepsen::chaos::nemesis::Group;
use jepsen::chaos::network::Kind;
use jepsen::verdict::{Report, Verdict};
use jepsen::{announcement, chaos, first_starts, kill_all, leader_kill, pause_leader};
use loadtest::process::Scratch;
use loadtest::run::{Check, Plan, Work};

mod server;

fn main() {
    if std::env::var_os("RNACOS_RAFT_NODE_ID").is_some() {
        server::serve();
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("runtime");
    runtime.block_on(Box::pin(async {
        the_right_server_passes_every_scenario().await;
        lost_acknowledgements_are_found().await;
        refused_writes_that_happen_are_found().await;
        a_leader_that_wakes_and_lies_is_found().await;
        stale_reads_double_applies_and_blind_cas_are_found().await;
        load_is_measured_and_wrong_answers_are_counted().await;
        jepsen::verdict::tell("the harness passes the right mock and finds every seeded bug");
    }));
}

/// This program under a name that tells it which bug to have.
fn mock(scratch: &Scratch, bug: &str) -> PathBuf {
    let link = scratch.path().join(format!("mock-{bug}"));
    std::os::unix::fs::symlink(std::env::current_exe().expect("own path"), &link).expect("link");
    link
}

fn expect(report: &Report, verdict: Verdict, what: &str) {
    if report.verdict() != verdict {
        report.print().expect("stdout");
        panic!("{what}: {} where {verdict} was expected", report.verdict());
    }
}

async fn leader_kill(bug: &str) -> Report {
    let scratch = Scratch::new(None, "jepsen-mock").expect("scratch");
    let plan = leader_kill::Plan {
        nodes: 3,
        count: 2,
        writers: 4,
        rate: 100.0,
        seed: 1,
    };
    leader_kill::run(&mock(&scratch, bug), &scratch, plan)
        .await
        .expect("carried out")
}

async fn chaos_run(bug: &str, seconds: u64) -> Report {
    let scratch = Scratch::new(None, "jepsen-mock").expect("scratch");
    let (directory, output) = (scratch.path().join("nodes"), scratch.path().join("out"));
    let plan = chaos::Plan {
        seed: 7,
        duration: Duration::from_secs(seconds),
        nodes: 3,
        faults: vec![Group::Kill, Group::Pause],
        network: Kind::Cutter,
    };
    let report = chaos::run(&mock(&scratch, bug), &directory, &output, &plan)
        .await
        .expect("carried out");
    for name in ["history.json", "timeline.html", "report.json"] {
        assert!(
            output.join(name).metadata().is_ok_and(|file| file.len() > 100),
            "{name} is missing"
        );
    }
    report
}

async fn pause(bug: &str) -> Report {
    let scratch = Scratch::new(None, "jepsen-mock").expect("scratch");
    pause_leader::run(&mock(&scratch, bug), &scratch, 1, Duration::from_secs(2))
        .await
        .expect("carried out")
}

async fn the_right_server_passes_every_scenario() {
    let scratch = Scratch::new(None, "jepsen-mock").expect("scratch");
    let right = mock(&scratch, "right");
    let below = |name: &str| Scratch::new(Some(&scratch.path().join(name)), "run").expect("scratch");
    let report = announcement::run(&right, &below("announcement"), false)
        .await
        .expect("carried out");
    expect(&report, Verdict::Passed, "announcement");
    let report = first_starts::run(&right, &below("first"), 2, "none", 0.0)
        .await
        .expect("carried out");
    expect(&report, Verdict::Passed, "first-starts");
    let report = kill_all::run(&right, &below("all"), 3, 1, 1)
        .await
        .expect("carried out");
    expect(&report, Verdict::Passed, "kill-all");
    expect(&leader_kill("right").await, Verdict::Passed, "leader-kill");
    expect(&pause("right").await, Verdict::Passed, "pause-leader");
    // Long enough for one fault of each group; a void run would say that none happened.
    expect(&chaos_run("right", 8).await, Verdict::Passed, "chaos");
}

async fn lost_acknowledgements_are_found() {
    expect(
        &leader_kill("lost-ack").await,
        Verdict::Violated,
        "leader-kill with lost acknowledgements",
    );
}

async fn refused_writes_that_happen_are_found() {
    expect(
        &leader_kill("phantom").await,
        Verdict::Violated,
        "leader-kill with refused writes that happen",
    );
}

async fn a_leader_that_wakes_and_lies_is_found() {
    expect(
        &pause("late-stale").await,
        Verdict::Violated,
        "pause-leader with stale reads",
    );
}

async fn stale_reads_double_applies_and_blind_cas_are_found() {
    for bug in ["stale-read", "double-apply", "blind-cas"] {
        expect(&chaos_run(bug, 6).await, Verdict::Violated, bug);
    }
}

async fn load_is_measured_and_wrong_answers_are_counted() {
    for (bug, rate, wrong) in [
        ("right", None, false),
        ("right", Some(300.0), false),
        ("lost-ack", None, true),
    ] {
        let scratch = Scratch::new(None, "jepsen-mock").expect("scratch");
        let port = loadtest::ports::pairs(1).expect("ports")[0];
        let spec =
            jepsen::node::Spec::lone(mock(&scratch, bug), 1, port, scratch.path().join("n")).expect("spec");
        let mut node = jepsen::node::Node::new(spec);
        node.start().expect("starts");
        node.wait_until_it_writes(Duration::from_secs(20))
            .await
            .expect("writes");
        let figures = loadtest::run::run(load_plan(port, rate, node.pid().into_iter().collect()))
            .await
            .expect("carried out");
        assert!(figures.operations > 50, "{figures:?}");
        assert_eq!(figures.errors.lost > 0, wrong, "{bug}: {figures:?}");
        assert!(figures.server_rss_mib.is_some_and(|mib| mib > 0.0), "{figures:?}");
        if let Some(rate) = rate {
            assert!(
                figures.per_second < rate * 1.2,
                "an open loop sends no more than offered: {figures:?}"
            );
        }
    }
}

fn load_plan(port: u16, rate: Option<f64>, pids: Vec<u32>) -> Plan {
    Plan {
        name: "mock".into(),
        addresses: vec![format!("127.0.0.1:{port}")],
        work: Work::Write,
        connections: 4,
        duration: Duration::from_millis(700),
        warm_up: Duration::from_millis(100),
        size: 200,
        keys: 40,
        rate,
        check: Check::Content,
        seed: 3,
        pids,
        sync_metric: String::new(),
    }
}
