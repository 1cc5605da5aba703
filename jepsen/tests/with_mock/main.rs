//! The harness against a server of its own making, right and wrong.
//!
//! A harness is trusted only while it still catches bugs put there on purpose. So this test plays the
//! server itself: started with the server's environment variables it is the mock (`server.rs`), a few
//! processes around a shared folder, which can lie in ways a real server must not. Run without them it
//! runs every scenario against the right mock, which must pass, and against each wrong one, which must be
//! found out. No root and no network but loopback is needed.

use std::path::PathBuf;
use std::time::Duration;

use jepsen::chaos::Limits;
use jepsen::chaos::faults::Group;
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
        stale_reads_double_applies_blind_cas_and_deaf_listeners_are_found().await;
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
        // How fast a mock is on a busy machine is nobody's promise.
        failover_p99: None,
    };
    leader_kill::run(&mock(&scratch, bug), &scratch, plan)
        .await
        .expect("carried out")
}

async fn chaos_run(bug: &str, seed: u64, seconds: u64) -> Report {
    let scratch = Scratch::new(None, "jepsen-mock").expect("scratch");
    let (directory, output) = (scratch.path().join("nodes"), scratch.path().join("out"));
    let mut limits = Limits::times(10);
    if bug == "deaf-listener" {
        // It never tells: nothing is gained by waiting for long.
        limits.listeners = Duration::from_secs(3);
    }
    let plan = chaos::Plan {
        seed,
        duration: Duration::from_secs(seconds),
        nodes: 3,
        faults: Some(vec![Group::Kill, Group::Pause]),
        network: Kind::Cutter,
        write_timeout: None,
        environment: Vec::new(),
        limits,
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
    // It goes on until each group has happened and enough was done. A slow machine may leave more unknown
    // than the checker can decide; then, and only then, another seed is tried.
    let mut report = chaos_run("right", 7, 6).await;
    for seed in 8..=10 {
        if report.verdict() == Verdict::Void {
            report = chaos_run("right", seed, 6).await;
        }
    }
    expect(&report, Verdict::Passed, "chaos");
}

/// A wrong server does wrong now and then: each run finds it most likely, a few find it for certain.
async fn finds(what: &str, run: impl AsyncFn(u64) -> Report) {
    const RUNS: u64 = 5;
    for seed in 7..7 + RUNS {
        let report = run(seed).await;
        if report.verdict() == Verdict::Violated {
            return;
        }
        report.print().expect("stdout");
    }
    panic!("{what} was not found in {RUNS} runs");
}

async fn lost_acknowledgements_are_found() {
    finds("lost acknowledgements", async |_| leader_kill("lost-ack").await).await;
}

async fn refused_writes_that_happen_are_found() {
    finds("refused writes that happen", async |_| {
        leader_kill("phantom").await
    })
    .await;
}

async fn a_leader_that_wakes_and_lies_is_found() {
    finds("stale reads after a pause", async |_| pause("late-stale").await).await;
}

async fn stale_reads_double_applies_blind_cas_and_deaf_listeners_are_found() {
    for bug in ["stale-read", "double-apply", "blind-cas", "deaf-listener"] {
        finds(bug, async |seed| chaos_run(bug, seed, 4).await).await;
    }
}

async fn load_is_measured_and_wrong_answers_are_counted() {
    for rate in [None, Some(300.0)] {
        let figures = load("right", rate, MEASURED).await;
        assert!(figures.operations > 0, "{figures:?}");
        assert_eq!(figures.errors.lost, 0, "{figures:?}");
        assert!(figures.server_rss_mib.is_some_and(|mib| mib > 0.0), "{figures:?}");
        if let Some(rate) = rate {
            // After a stall it sends more per second than was offered, and never more than was offered by then.
            let offered = rate * (WARM_UP + MEASURED).as_secs_f64();
            assert!(figures.operations as f64 <= offered + 1.0, "{figures:?}");
        }
    }
    // Only the last version of each key is looked for: it may take more than one try to lose such a one.
    let mut lost = 0;
    for doublings in 0..5 {
        if lost == 0 {
            lost = load("lost-ack", None, MEASURED * (1 << doublings))
                .await
                .errors
                .lost;
        }
    }
    assert!(lost > 0, "lost acknowledgements were not found");
}

/// Load before what is measured.
const WARM_UP: Duration = Duration::from_millis(100);

/// Length of the measured part.
const MEASURED: Duration = Duration::from_millis(700);

async fn load(bug: &str, rate: Option<f64>, duration: Duration) -> loadtest::figures::Figures {
    let scratch = Scratch::new(None, "jepsen-mock").expect("scratch");
    let port = loadtest::ports::pairs(1).expect("ports")[0];
    let spec =
        jepsen::node::Spec::lone(mock(&scratch, bug), 1, port, scratch.path().join("n")).expect("spec");
    let mut node = jepsen::node::Node::new(spec);
    node.start().expect("starts");
    node.wait_until_it_writes(Duration::from_secs(60))
        .await
        .expect("writes");
    let plan = load_plan(port, rate, duration, node.pid().into_iter().collect());
    loadtest::run::run(plan).await.expect("carried out")
}

fn load_plan(port: u16, rate: Option<f64>, duration: Duration, pids: Vec<u32>) -> Plan {
    Plan {
        name: "mock".into(),
        addresses: vec![format!("127.0.0.1:{port}")],
        work: Work::Write,
        connections: 4,
        duration,
        warm_up: WARM_UP,
        size: 200,
        keys: 40,
        rate,
        check: Check::Content,
        seed: 3,
        pids,
        sync_metric: String::new(),
    }
}
