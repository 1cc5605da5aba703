//! Hostile input over gRPC: strangers do their worst to one server while clients that behave are served.
//!
//! Passed when every request of those was answered rightly and soon, when the server's memory after the
//! second round is what it was after the first, and when its log names each culprit, and seldom.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use loadtest::content::Dice;
use loadtest::process::Scratch;
use loadtest::{ports, procfs};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::cluster::START_PATIENCE;
use crate::node::{Node, Spec};
use crate::verdict::{Report, tell};

use attacks::{ATTACKS, Attack, Stage};
use honest::Diary;

mod attacks;
mod honest;
mod naming;
mod wire;

/// What is done, and what is demanded.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Seed of what is random.
    pub seed: u64,
    /// How long each of the two rounds takes.
    pub attacked: Duration,
    /// Only these attacks; all if empty.
    pub only: Vec<String>,
    /// Connections that send nothing.
    pub silent: usize,
    /// 99 of 100 requests of those who behave are answered within this, while the strangers are at it.
    pub p99_max: Duration,
}

/// Quiet before the first round.
const QUIET: Duration = Duration::from_secs(8);
/// After a round: what the server gives up, it gives up within 30 s, and the memory follows.
const SETTLE: Duration = Duration::from_secs(36);
/// The server's memory, whatever is done to it.
const RSS_MAX_MIB: u64 = 768;
/// What the second round may add to the memory that is left after the first.
const GROWTH_MAX_MIB: u64 = 24;
/// Lines of the log about one culprit, in each minute or less.
const LINES_MAX: usize = 4;
/// A config for those who ask for much and take nothing.
const LARGE_KEY: &str = "large";
const LARGE_BYTES: usize = 512 << 10;
/// Between two looks at the server's memory.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A server that is asked to end does so within this: the last drain and a little.
const END_PATIENCE: Duration = Duration::from_secs(15);

/// Names of all attacks.
#[must_use]
pub fn names() -> Vec<&'static str> {
    ATTACKS.iter().map(|attack| attack.name).collect()
}

/// Runs two rounds against one server.
pub async fn run(server: &Path, scratch: &Scratch, plan: &Plan) -> anyhow::Result<Report> {
    let mut report = Report::new("hostile");
    report.figure("seed", plan.seed);
    let spec = Spec::lone(server.into(), 1, ports::pairs(1)?[0], scratch.path().join("node"))?;
    let mut node = Node::new(spec);
    node.start()?;
    node.wait_until_it_writes(START_PATIENCE).await?;
    let http = node.spec.address();
    loadtest::grpc::wait_until_open(&[http]).await?;
    let large = "x".repeat(LARGE_BYTES);
    let published = node.client(START_PATIENCE).publish(LARGE_KEY, &large).await;
    anyhow::ensure!(
        published.is_done(),
        "a config of {LARGE_BYTES} bytes: {published:?}"
    );

    let diaries = ["gRPC", "listeners", "HTTP", "registry"].map(|name| (name, Arc::new(Diary::default())));
    let mut clients = JoinSet::new();
    for number in 0..3 {
        let key = |kind: &str| format!("{kind}-{number}");
        clients.spawn(honest::over_grpc(http, key("grpc"), diaries[0].1.clone()));
        clients.spawn(honest::listening(http, key("listened"), diaries[1].1.clone()));
        clients.spawn(honest::over_http(http, key("http"), diaries[2].1.clone()));
        clients.spawn(naming::over_naming(http, key("registered"), diaries[3].1.clone()));
    }
    sleep(QUIET).await;
    let mut memory = Memory::default();
    memory.look(&node)?;
    report.figure("RSS before", format!("{} MiB", memory.now_mib));
    let mut left = Vec::new();
    let mut counts: Vec<(Attack, Arc<AtomicU64>)> = chosen(plan);
    for round in 1..=2 {
        under_attack(&diaries, true);
        attack(&node, plan, round, &mut counts, &mut memory).await?;
        under_attack(&diaries, false);
        memory.watch(&node, Instant::now() + SETTLE).await?;
        left.push(memory.now_mib);
        tell(format!(
            "round {round}: {} MiB now, {} at most",
            memory.now_mib, memory.most_mib
        ));
    }
    diaries
        .iter()
        .for_each(|(_, diary)| diary.ends.store(true, Ordering::Relaxed));
    while clients.join_next().await.is_some() {}

    report.figure("RSS at most", format!("{} MiB", memory.most_mib));
    report.figure("RSS after each round", format!("{left:?} MiB"));
    judge_memory(&mut report, &left, memory.most_mib);
    for (name, diary) in &diaries {
        judge_clients(&mut report, name, diary, plan.p99_max);
    }
    judge_log(&mut report, &node.said(), &counts);
    let ended = node.terminate(END_PATIENCE).await?;
    if ended.is_none() {
        report.violate("the server did not end when it was asked to");
    }
    Ok(report)
}

fn under_attack(diaries: &[(&str, Arc<Diary>)], is: bool) {
    let diaries = diaries.iter();
    diaries.for_each(|(_, diary)| diary.under_attack.store(is, Ordering::Relaxed));
}

fn chosen(plan: &Plan) -> Vec<(Attack, Arc<AtomicU64>)> {
    let attacks = ATTACKS.iter().copied();
    let chosen =
        attacks.filter(|attack| plan.only.is_empty() || plan.only.iter().any(|name| name == attack.name));
    chosen.map(|attack| (attack, Arc::default())).collect()
}

/// The loopback address from which an attack comes.
fn source(attack: &str) -> Ipv4Addr {
    let place = ATTACKS.iter().position(|known| known.name == attack);
    Ipv4Addr::new(
        127,
        0,
        66,
        u8::try_from(place.unwrap_or(0) + 1).unwrap_or(u8::MAX),
    )
}

async fn attack(
    node: &Node,
    plan: &Plan,
    round: u64,
    counts: &mut [(Attack, Arc<AtomicU64>)],
    memory: &mut Memory,
) -> anyhow::Result<()> {
    let until = Instant::now() + plan.attacked;
    let mut dice = Dice::new(plan.seed + round);
    let mut strangers = JoinSet::new();
    for (attack, done) in counts.iter() {
        let stage = Stage {
            from: source(attack.name),
            to: loadtest::grpc::beside(node.spec.address()),
            until,
            silent: plan.silent,
            busy_key: "listened-0".to_owned(),
            done: Arc::clone(done),
        };
        strangers.spawn(stage.act(attack.name, dice.roll()));
    }
    memory.watch(node, until).await?;
    // Whoever is amid a write may take two seconds more.
    while strangers.join_next().await.is_some() {}
    Ok(())
}

/// Resident memory of the server.
#[derive(Debug, Default)]
struct Memory {
    now_mib: u64,
    most_mib: u64,
}

impl Memory {
    fn look(&mut self, node: &Node) -> anyhow::Result<()> {
        let pids: Vec<u32> = node.pid().into_iter().collect();
        self.now_mib = procfs::usage(&pids)?.rss_bytes >> 20;
        self.most_mib = self.most_mib.max(self.now_mib);
        Ok(())
    }

    async fn watch(&mut self, node: &Node, until: Instant) -> anyhow::Result<()> {
        while Instant::now() < until {
            self.look(node)?;
            sleep_until((Instant::now() + LOOK_EVERY).min(until)).await;
        }
        self.look(node)
    }
}

fn judge_memory(report: &mut Report, left: &[u64], most_mib: u64) {
    if most_mib > RSS_MAX_MIB {
        report.violate(format!("the server took {most_mib} MiB, more than {RSS_MAX_MIB}"));
    }
    if let [first, second] = left
        && *second > first + GROWTH_MAX_MIB
    {
        report.violate(format!(
            "memory grows: {first} MiB after the first round, {second} after the second"
        ));
    }
}

fn judge_clients(report: &mut Report, name: &str, diary: &Diary, p99_max: Duration) {
    let found = diary.found();
    report.figure(&format!("{name}, quiet"), &found.quiet);
    report.figure(&format!("{name}, under attack"), &found.attacked);
    report.figure(&format!("{name}, errors"), found.errors.len());
    for error in &found.errors {
        report.violate(error.clone());
    }
    let p99 = found.attacked.percentile(99);
    if p99 > p99_max {
        report.violate(format!("{name}: p99 of {} ms under attack", p99.as_millis()));
    }
    report.demand(found.attacked.count() >= 100, || {
        format!("{name}: only {} requests under attack", found.attacked.count())
    });
}

fn judge_log(report: &mut Report, log: &str, counts: &[(Attack, Arc<AtomicU64>)]) {
    report.figure("lines of the log", log.lines().count());
    if log.contains("panicked") {
        report.violate("the server panicked: see its log");
    }
    for (attack, done) in counts {
        let done = done.load(Ordering::Relaxed);
        // With what follows an address in a line, or 1 would be found in 10.
        let who = format!("{}:", source(attack.name));
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(&who)).collect();
        let first = lines.first().copied().unwrap_or("not named in the log");
        report.figure(
            attack.name,
            format!("{done} times, {} lines: {first}", lines.len()),
        );
        report.demand(done > 0, || format!("{} did not happen", attack.name));
        if attack.logged && lines.is_empty() {
            report.violate(format!("{}: the log does not say who it was", attack.name));
        }
        if lines.len() > LINES_MAX {
            report.violate(format!("{}: {} lines in the log", attack.name, lines.len()));
        }
    }
}
