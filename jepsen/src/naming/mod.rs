//! Naming under faults: clients register, beat, move, deregister and die while servers are killed, stopped and cut
//! off from each other; a checker with a model of who is alive.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::api::Client;
use crate::chaos::disks::Disks;
use crate::chaos::faults::Group;
use crate::chaos::history::History;
use crate::chaos::nemesis::{Ground, Nemesis};
use crate::chaos::network::{Kind, Network};
use crate::chaos::{Limits, form};
use crate::cluster::Cluster;
use crate::node::POLL;
use crate::verdict::{Durations, Report, tell};
use checker::{EXPIRY_SLACK, Findings, GRACE, QUIET};
use clients::{PATIENCE, SERVICES, World};
use observers::Told;
use record::{Ending, Log, Micros, Record, SECOND, Shown, Troubles, Via, What};

pub mod announcement;
pub mod checker;
pub mod clients;
mod grpc_client;
pub mod observers;
pub mod record;

/// Clients, an instance each.
pub const CLIENTS: usize = 30;

/// After healing all nodes give the same lists within this time.
const EQUAL_WITHIN: Duration = Duration::from_secs(5);

/// Clients have what they want so soon after they were told to settle: a broken connection, and some tries.
const SETTLE_PATIENCE: Duration = Duration::from_secs(30);

/// Fewest acknowledged registrations, beats and endings per second of the plan for a run to count.
const ACTS_PER_SECOND: usize = 5;

/// Fewest requests answered by nodes cut off alone, if links were to be cut.
const ALONE_MIN: usize = 5;

/// A run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Seed of faults, moments and whims.
    pub seed: u64,
    /// Length of the part with faults.
    pub duration: Duration,
    /// Number of nodes.
    pub nodes: usize,
    /// Groups of faults that must happen.
    pub faults: Vec<Group>,
    /// How links are cut.
    pub network: Kind,
    /// How long servers may take to start.
    pub limits: Limits,
    /// How many times the usual nodes may take to give the same lists.
    pub patience: u32,
    /// For how long lists must stay what they are at the end; [`REST`] is long enough for all that may come late.
    pub rest: Duration,
    /// Further variables of the servers.
    pub environment: Vec<(String, String)>,
}

/// What nodes keep of those that are gone has ended by then: nothing of it may be seen.
pub const REST: Duration = Duration::from_micros(GRACE + QUIET);

/// Runs, checks, and leaves `record.json` and `report.json` in `output`.
pub async fn run(server: &Path, directory: &Path, output: &Path, plan: &Plan) -> anyhow::Result<Report> {
    let mut report = Report::new("naming");
    report.figure("seed", plan.seed);
    fs::create_dir_all(directory)?;
    fs::create_dir_all(output)?;
    let mut specs = Cluster::specs(&std::path::absolute(server)?, plan.nodes, directory)?;
    for spec in &mut specs {
        spec.extra.extend(plan.environment.iter().cloned());
    }
    let mut network = Network::make(plan.network, &mut specs, directory).await?;
    report.figure("links are cut by", network.kind());
    let mut cluster = form(specs, &network, plan.limits).await?;

    let history = History::begin();
    let world = Arc::new(World {
        log: Arc::new(Log::begin(history.begun())),
        addresses: cluster.addresses(),
        settle: AtomicBool::new(false),
        settled: AtomicUsize::new(0),
    });
    let mut readers = readers(&world);
    report.figure(
        "a new cluster answers lists after",
        millis(all_answer(&world, &mut readers, plan.limits.start).await?),
    );
    // What they were answered before is no part of the run.
    world.log.forget_requests();
    let told = Told::default();
    let observers = Tasks(observers::start(&world, &told));
    let clients = Tasks(clients::start(CLIENTS, plan.seed, &world));
    let mut nemesis = Nemesis::new(plan.seed, &plan.faults, plan.nodes);
    let mut disks = Disks::default();
    let end = Instant::now() + plan.duration;
    let mut ground = Ground {
        cluster: &mut cluster,
        network: &mut network,
        disks: &mut disks,
        history: &history,
        terminates: plan.limits.terminates,
    };
    if let Err(error) = nemesis.rage(&mut ground, end, end + plan.limits.prolonged).await {
        report.violate(format!("{error:#}"));
    }
    for (place, node) in cluster.nodes.iter_mut().enumerate() {
        if !node.runs() {
            report.violate(format!("node {} has ended by itself: {}", place + 1, node.said()));
        }
    }
    cluster.repair(plan.limits.start).await?;
    converge(&world, &told, plan, &mut report).await;
    drop((clients, observers));
    let record = world.log.take(history.faults());
    judge(&record, &nemesis, &history, plan, &mut report);
    serde_json::to_writer(fs::File::create(output.join("record.json"))?, &record)?;
    serde_json::to_writer_pretty(fs::File::create(output.join("report.json"))?, &report)?;
    tell(format!("the record is in {}", output.display()));
    Ok(report)
}

/// Tasks that end with their owner.
struct Tasks(Vec<JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// The lists of all services at one node.
type Lists = BTreeMap<u32, Vec<Shown>>;

/// After healing: all nodes answer, then they give the same lists, then those of the model, and so do subscribers.
async fn converge(world: &Arc<World>, told: &Told, plan: &Plan, report: &mut Report) {
    world.settle.store(true, Ordering::Relaxed);
    let mut readers = readers(world);
    match all_answer(world, &mut readers, plan.limits.start).await {
        Ok(taken) => report.figure("healed, all answer after", millis(taken)),
        Err(error) => {
            report.violate(format!("after healing: {error:#}"));
            return;
        }
    }
    let patience = EQUAL_WITHIN * plan.patience;
    match equal_within(world, &mut readers, patience).await {
        Ok(taken) => report.figure("all nodes equal after", millis(taken)),
        Err(differ) => report.violate(format!(
            "after healing nodes differ for {} s: {differ}",
            patience.as_secs()
        )),
    }
    let deadline = Instant::now() + SETTLE_PATIENCE * plan.patience;
    while world.settled.load(Ordering::Relaxed) < CLIENTS && Instant::now() < deadline {
        sleep(POLL).await;
    }
    let settled = world.settled.load(Ordering::Relaxed);
    report.demand(settled == CLIENTS, || {
        format!("{} clients could not get what they wanted", CLIENTS - settled)
    });
    // What died must expire first: its time, the grace, and what timers are late by.
    let expiry = Duration::from_micros(30 * SECOND + GRACE + EXPIRY_SLACK + QUIET);
    let begun = Instant::now();
    let mut wrong = model_differs(world, told, &mut readers).await;
    while wrong.is_some() && begun.elapsed() < expiry * plan.patience {
        sleep(Duration::from_millis(100)).await;
        wrong = model_differs(world, told, &mut readers).await;
    }
    match wrong {
        None => {
            report.figure(
                "lists and subscribers are the model's after",
                millis(begun.elapsed()),
            );
            sleep(plan.rest).await;
            if let Some(wrong) = model_differs(world, told, &mut readers).await {
                report.violate(format!("at the very end: {wrong}"));
            }
        }
        Some(wrong) => report.violate(format!("at the end: {wrong}")),
    }
    report.figure(
        "instances alive at the end",
        model(world).values().map(Vec::len).sum::<usize>(),
    );
    stamps_at_the_end(world, report);
}

/// A client for each node.
fn readers(world: &World) -> Vec<Client> {
    world
        .addresses
        .iter()
        .map(|address| Client::new(*address, PATIENCE))
        .collect()
}

/// Waits until every node answers lists: one that was just started says 503 until it has loaded.
async fn all_answer(world: &World, readers: &mut [Client], patience: Duration) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    while let Err(why) = all_lists(world, readers).await {
        anyhow::ensure!(begun.elapsed() < patience, "not all nodes answer lists: {why}");
        sleep(POLL).await;
    }
    Ok(begun.elapsed())
}

fn millis(duration: Duration) -> String {
    format!("{} ms", duration.as_millis())
}

/// The lists of every node.
async fn all_lists(world: &World, readers: &mut [Client]) -> Result<Vec<Lists>, String> {
    let mut all = Vec::new();
    for (node, reader) in readers.iter_mut().enumerate() {
        let mut lists = Lists::new();
        for number in 0..SERVICES {
            let listed = observers::list_once(world, reader, node, number).await;
            lists.insert(number, listed.map_err(|why| format!("node {}: {why}", node + 1))?);
        }
        all.push(lists);
    }
    Ok(all)
}

async fn equal_within(world: &World, readers: &mut [Client], patience: Duration) -> Result<Duration, String> {
    let begun = Instant::now();
    loop {
        let found = all_lists(world, readers).await;
        let differ = match found {
            Ok(all) if all.iter().all(|lists| *lists == all[0]) => return Ok(begun.elapsed()),
            Ok(all) => format!("{all:?}"),
            Err(why) => why,
        };
        if begun.elapsed() > patience {
            return Err(differ);
        }
        sleep(POLL).await;
    }
}

/// Who is alive, by the clients' own account: the newest registration of each instance that has not ended.
fn model(world: &World) -> BTreeMap<u32, Vec<(u32, u32)>> {
    let mut model: BTreeMap<u32, Vec<(u32, u32)>> =
        (0..SERVICES).map(|number| (number, Vec::new())).collect();
    let lives = world.log.look(|record| record.lives.clone());
    for life in lives
        .values()
        .filter(|life| life.acknowledged.is_some() && life.end.is_none())
    {
        model
            .entry(life.service)
            .or_default()
            .push((life.instance, life.keeper));
    }
    model.values_mut().for_each(|instances| instances.sort_unstable());
    model
}

/// The first difference between what nodes or subscribers show and the model.
async fn model_differs(world: &World, told: &Told, readers: &mut [Client]) -> Option<String> {
    let all = match all_lists(world, readers).await {
        Ok(all) => all,
        Err(why) => return Some(why),
    };
    let (model, now) = (model(world), world.log.now());
    let doubts = world.log.look(|record| record.doubts.clone());
    // A registration with an unknown outcome may have been carried out last; whose word is shown is then open.
    let same = |shown: &[Shown], wanted: &[(u32, u32)]| {
        shown.len() == wanted.len()
            && shown
                .iter()
                .zip(wanted)
                .all(|((instance, keeper, healthy), (alive, wanted))| {
                    let since = now.saturating_sub(90 * SECOND);
                    let open = clients::is_in_doubt(&doubts, *instance, since);
                    instance == alive && *healthy && (keeper == wanted || open)
                })
    };
    let nothing = Vec::new();
    for (node, lists) in all.iter().enumerate() {
        for (number, wanted) in &model {
            let listed = lists.get(number).unwrap_or(&nothing);
            if !same(listed, wanted) {
                return Some(format!(
                    "node {} lists {listed:?} of service {number}, alive are {wanted:?}",
                    node + 1
                ));
            }
            let told = told.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(told) = told.get(&(node, *number)).filter(|told| !same(told, wanted)) {
                return Some(format!(
                    "the subscriber of node {} was told last of {told:?} of service {number}, alive are {wanted:?}",
                    node + 1
                ));
            }
        }
    }
    None
}

/// Who saw another content before, on whatever node, must not take the final one for an older one.
fn stamps_at_the_end(world: &World, report: &mut Report) {
    let wrong = world.log.look(|record| {
        let mut last: BTreeMap<(usize, u32), (i64, &[Shown])> = BTreeMap::new();
        for seen in record.seen.iter().filter(|seen| seen.via == Via::List) {
            last.insert((seen.node, seen.service), (seen.stamp, &seen.hosts));
        }
        let mut wrong = Vec::new();
        for ((node, service), (stamp, hosts)) in last {
            let newer = record
                .seen
                .iter()
                .find(|seen| seen.service == service && seen.stamp >= stamp && seen.hosts != hosts);
            if let Some(newer) = newer {
                wrong.push(format!(
                    "stamp: at the end node {} shows service {service} with stamp {stamp}, but node {} showed another \
                     content with {} before: an SDK that comes from there drops it",
                    node + 1,
                    newer.node + 1,
                    newer.stamp
                ));
            }
        }
        wrong
    });
    wrong.into_iter().for_each(|wrong| report.violate(wrong));
}

/// The checker's findings, and the rules of a void run.
fn judge(record: &Record, nemesis: &Nemesis, history: &History, plan: &Plan, report: &mut Report) {
    let Findings {
        violations,
        judged_present,
        judged_absent,
        alone,
    } = checker::check(record, plan.nodes);
    violations
        .into_iter()
        .for_each(|violation| report.violate(violation));
    report.figure("faults", format!("{:?}", nemesis.done()));
    for group in nemesis.missing(history) {
        report.void(format!("the demanded fault {group:?} did not happen"));
    }
    let ended = |how: Ending| {
        let ends = record.lives.values().filter_map(|life| life.end);
        ends.filter(|end| end.how == how).count()
    };
    let registered = record.lives.values().filter(|life| life.acknowledged.is_some());
    let (registered, beats) = (
        registered.count(),
        record.lives.values().map(|life| life.kept.len()).sum::<usize>(),
    );
    report.figure(
        "registrations",
        format!(
            "{registered}; {} deregistered, {} died, {} moved, {} broke, {} forgotten",
            ended(Ending::Deregistered),
            ended(Ending::Died),
            ended(Ending::Moved),
            ended(Ending::Broken),
            ended(Ending::Forgotten)
        ),
    );
    let pushes = record.seen.iter().filter(|seen| seen.via != Via::List).count();
    report.figure("beats over HTTP", beats);
    report.figure("lists seen", record.seen.len() - pushes);
    report.figure("pushes seen", pushes);
    report.figure(
        "lists judged for losses, for ghosts",
        format!("{judged_present}, {judged_absent}"),
    );
    report.figure("answered by nodes cut off alone", format!("{alone:?}"));
    for what in [What::Register, What::Beat, What::Deregister, What::List] {
        report.figure(
            &format!("{what:?}, answered by nodes that ran"),
            latencies(record, what),
        );
    }
    let seconds = usize::try_from(plan.duration.as_secs()).unwrap_or(usize::MAX);
    report.demand(registered + beats >= ACTS_PER_SECOND * seconds, || {
        format!("only {registered} registrations and {beats} beats were acknowledged")
    });
    report.demand(judged_present > 0 && judged_absent > 0, || {
        "nothing was judged".to_owned()
    });
    let answered_alone: usize = alone.values().sum();
    let cuts = plan.faults.contains(&Group::Partition) && seconds >= 60;
    report.demand(!cuts || answered_alone >= ALONE_MIN, || {
        format!("nodes cut off alone answered {answered_alone} requests only")
    });
    report.demand(pushes > 0, || "nothing was pushed".to_owned());
}

/// How long right answers took of nodes that ran.
fn latencies(record: &Record, what: What) -> Durations {
    let troubles = Troubles::new(&record.faults, &record.seen);
    let mut durations = Durations::default();
    let of_it = record
        .asked
        .iter()
        .filter(|asked| asked.what == what && asked.wrong.is_none());
    for asked in of_it {
        if !troubles.out(asked.node, asked.asked, asked.answered) {
            let took: Micros = asked.answered - asked.asked;
            durations.add(Duration::from_micros(took));
        }
    }
    durations
}
