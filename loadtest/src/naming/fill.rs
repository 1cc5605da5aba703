//! What many instances take: memory for each, CPU at rest with their beats, what nodes say to each other about
//! them, and how long a node that was killed needs until it has them all again.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::fanout::register;
use super::keep::Keepers;
use super::{Listed, list_request};
use crate::figures::Latency;
use crate::grpc::{Sdk, silent, wait_until_open};
use crate::http::Connection;
use crate::procfs;
use crate::run::resolve;
use crate::sessions::open_many;
use crate::stored::join_all;
use crate::traffic::Traffic;

/// All instances must be registered within this time.
const FILL_PATIENCE: Duration = Duration::from_secs(600);

/// After the last acknowledgement every node must list everything within this time.
const SPREAD_PATIENCE: Duration = Duration::from_secs(120);

/// A node that was killed must list everything within this time of its start.
const LOAD_PATIENCE: Duration = Duration::from_secs(120);

/// One question may take this long.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections over which lists are asked for.
const READERS: usize = 16;

/// Connections over which instances are registered and beaten for over HTTP.
const HTTP_CONNECTIONS: usize = 64;

/// Time between the last registration and the look at a server at rest.
const SETTLE: Duration = Duration::from_secs(10);

/// How instances are registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Over {
    /// HTTP, with a beat every five seconds each.
    Http,
    /// gRPC, over connections that hold many each.
    Grpc,
}

/// What is filled, and with what.
#[derive(Debug, Clone)]
pub struct FillPlan {
    /// Whom it is about, for the report.
    pub name: String,
    /// HTTP `host:port` of each node. With more than one, the last takes no clients: it may be restarted.
    pub addresses: Vec<String>,
    /// Processes of the nodes.
    pub pids: Vec<u32>,
    /// How.
    pub over: Over,
    /// Instances in all.
    pub instances: u32,
    /// Services they are of.
    pub services: u32,
    /// gRPC connections that own them.
    pub connections: usize,
    /// How long the servers are looked at when nothing but beats happens.
    pub rest: Duration,
}

impl FillPlan {
    fn service(&self, instance: u32) -> String {
        service_name(instance % self.services.max(1))
    }

    /// Instances of a service.
    fn of_service(&self, service: u32) -> usize {
        let services = self.services.max(1);
        let one_more = u32::from(service < self.instances % services);
        (self.instances / services + one_more) as usize
    }

    /// The connection that registers an instance: two of one service are never of one connection.
    fn owner(&self, instance: u32) -> usize {
        let (service, host) = (instance % self.services.max(1), instance / self.services.max(1));
        let per_service = self.instances.div_ceil(self.services.max(1));
        (service as usize * per_service as usize + host as usize) % self.connections.max(1)
    }
}

fn service_name(service: u32) -> String {
    format!("load.fill.{service}")
}

/// What was measured.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Filled {
    /// Whom it is about.
    pub name: String,
    /// `http` or `grpc`.
    pub over: String,
    /// Instances.
    pub instances: u32,
    /// Services.
    pub services: u32,
    /// Nodes.
    pub nodes: usize,
    /// How long registering took, in seconds.
    pub fill_seconds: f64,
    /// CPU of all nodes for each registration, in µs.
    pub fill_cpu_us: f64,
    /// From the last acknowledgement until every node listed everything, in seconds; the looking takes part of it.
    pub spread_seconds: f64,
    /// Growth of the resident memory of all nodes, per instance and node, in bytes.
    pub rss_bytes_per_instance: f64,
    /// Resident memory of all nodes at rest, in MiB.
    pub rss_mib: f64,
    /// CPU of all nodes at rest, in percent of one core, beats included.
    pub rest_cpu_percent: f64,
    /// The same before anything was registered.
    pub empty_cpu_percent: f64,
    /// Beats per second at rest.
    pub beats_per_second: f64,
    /// Of beats.
    pub beat_us: Option<Latency>,
    /// Beats for instances that the server did not know, and requests that failed.
    pub trouble: (u64, u64),
    /// What the nodes said to each other at rest, in bytes per second and node; and before.
    pub peer_bytes_per_second: Option<(f64, f64)>,
    /// Instances that were not listed by a node.
    pub missing: u64,
    /// The restart of the last node.
    pub load: Option<Load>,
}

/// A node that was killed and started again.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Load {
    /// From its start until it listed everything, in seconds; the looking takes part of it.
    pub seconds: f64,
    /// Until it answered the first list with 200.
    pub first_answer_seconds: f64,
    /// Lists that it answered with 200 and with fewer instances than there are; of these, empty ones.
    pub partial: (u64, u64),
    /// Bytes that the nodes said to each other meanwhile.
    pub peer_bytes: Option<u64>,
}

impl fmt::Display for Filled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}, {} nodes: {} instances of {} services over {} in {:.1} s, {:.1} µs CPU each, all listed {:.1} s later",
            self.name,
            self.nodes,
            self.instances,
            self.services,
            self.over,
            self.fill_seconds,
            self.fill_cpu_us,
            self.spread_seconds
        )?;
        write!(
            f,
            "  memory {:.0} B/instance and node, {:.0} MiB in all; at rest {:.1} % CPU (empty {:.1}), {:.0} beats/s",
            self.rss_bytes_per_instance,
            self.rss_mib,
            self.rest_cpu_percent,
            self.empty_cpu_percent,
            self.beats_per_second
        )?;
        if let Some(latency) = self.beat_us {
            write!(f, " p50 {} p99 {} µs", latency.p50, latency.p99)?;
        }
        if let Some((rest, empty)) = self.peer_bytes_per_second {
            write!(f, "; between nodes {rest:.0} B/s each (empty {empty:.0})")?;
        }
        let (unknown, failed) = self.trouble;
        if unknown + failed + self.missing > 0 {
            write!(f, "; UNKNOWN {unknown} FAILED {failed} MISSING {}", self.missing)?;
        }
        let Some(load) = self.load else { return Ok(()) };
        let (partial, empty) = load.partial;
        write!(
            f,
            "\n  killed and started: first answer after {:.2} s, everything after {:.2} s, {partial} lists too short, {empty} of them empty",
            load.first_answer_seconds, load.seconds
        )?;
        if let Some(bytes) = load.peer_bytes {
            write!(f, ", {} KiB between nodes", bytes >> 10)?;
        }
        Ok(())
    }
}

/// What keeps the instances alive; they are gone with it.
enum Owners {
    Beats(Keepers),
    Connections { _held: Vec<Sdk> },
}

/// A filled server, still kept alive.
pub struct Full {
    plan: FillPlan,
    http: Vec<SocketAddr>,
    owners: Owners,
    /// What was measured so far.
    pub figures: Filled,
}

impl fmt::Debug for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Full").field(&self.figures).finish()
    }
}

/// Fills and measures; the instances live as long as the result.
pub async fn fill(plan: FillPlan) -> anyhow::Result<Full> {
    anyhow::ensure!(
        plan.over == Over::Http || plan.connections as u32 >= plan.instances.div_ceil(plan.services.max(1)),
        "a connection has one instance of a service: more connections are needed"
    );
    let http = resolve(&plan.addresses)?;
    wait_until_open(&http).await?;
    let mut figures = Filled {
        name: plan.name.clone(),
        over: format!("{:?}", plan.over).to_lowercase(),
        instances: plan.instances,
        services: plan.services,
        nodes: http.len(),
        ..Filled::default()
    };
    let empty = at_rest(&plan, plan.rest.min(SETTLE)).await?;
    let before = procfs::usage(&plan.pids)?;
    let begun = Instant::now();
    let owners = own(&plan, &http).await?;
    figures.fill_seconds = begun.elapsed().as_secs_f64();
    let filled = procfs::usage(&plan.pids)?.since(before);
    figures.fill_cpu_us = filled.cpu.as_secs_f64() * 1e6 / f64::from(plan.instances.max(1));

    let begun = Instant::now();
    for address in &http {
        let swept = wait_until_complete(&plan, *address, begun + SPREAD_PATIENCE).await?;
        figures.missing += swept.missing;
    }
    figures.spread_seconds = begun.elapsed().as_secs_f64();
    sleep(SETTLE).await;
    let beats = owners.beats();
    let rest = at_rest(&plan, plan.rest).await?;
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    let per_second = owners.beats().saturating_sub(beats) as f64 / plan.rest.as_secs_f64().max(1e-3);
    figures.beats_per_second = per_second;
    let usage = procfs::usage(&plan.pids)?;
    #[expect(clippy::cast_precision_loss, reason = "bytes stay far below 2^52")]
    let (grown, rss, nodes) = (
        usage.rss_bytes.saturating_sub(before.rss_bytes) as f64,
        usage.rss_bytes as f64,
        plan.pids.len().max(1) as f64,
    );
    figures.rss_bytes_per_instance = grown / nodes / f64::from(plan.instances.max(1));
    figures.rss_mib = rss / f64::from(1 << 20);
    figures.rest_cpu_percent = rest.cpu_percent;
    figures.empty_cpu_percent = empty.cpu_percent;
    figures.peer_bytes_per_second = rest.peer_bytes_per_second.zip(empty.peer_bytes_per_second);
    Ok(Full {
        plan,
        http,
        owners,
        figures,
    })
}

impl Full {
    /// Looks at the last node, of which `restart` has just been killed and started, until it has everything.
    pub async fn load(&mut self, restart: impl FnOnce() -> anyhow::Result<Vec<u32>>) -> anyhow::Result<()> {
        let last = *self.http.last().context("no node")?;
        let before = Traffic::between(&self.plan.pids);
        let begun = Instant::now();
        self.plan.pids = restart()?;
        let swept = wait_until_complete(&self.plan, last, begun + LOAD_PATIENCE).await?;
        let traffic = Traffic::between(&self.plan.pids).zip(before);
        self.figures.missing += swept.missing;
        self.figures.load = Some(Load {
            seconds: begun.elapsed().as_secs_f64(),
            first_answer_seconds: swept.first_answer.map_or(0.0, |at| (at - begun).as_secs_f64()),
            partial: (swept.partial, swept.empty),
            peer_bytes: traffic.map(|(now, before)| now.since(&before)),
        });
        Ok(())
    }

    /// The figures, beats included.
    #[must_use]
    pub fn finish(mut self) -> Filled {
        if let Owners::Beats(keepers) = &self.owners {
            let found = keepers.found();
            self.figures.beat_us = Some(Latency::of(&found.latencies()));
            self.figures.trouble = (
                found.unknown.load(std::sync::atomic::Ordering::Relaxed),
                found.failed.load(std::sync::atomic::Ordering::Relaxed),
            );
        }
        self.figures
    }
}

impl Owners {
    fn beats(&self) -> u64 {
        match self {
            Self::Beats(keepers) => keepers.found().beats.load(std::sync::atomic::Ordering::Relaxed),
            Self::Connections { .. } => 0,
        }
    }
}

async fn own(plan: &FillPlan, http: &[SocketAddr]) -> anyhow::Result<Owners> {
    let for_clients = if http.len() > 1 {
        &http[..http.len() - 1]
    } else {
        http
    };
    match plan.over {
        Over::Http => {
            let named = plan.clone();
            let service_of = Arc::new(move |instance| named.service(instance));
            let mut keepers = Keepers::start(for_clients, HTTP_CONNECTIONS, plan.instances, service_of);
            keepers.registered(FILL_PATIENCE).await?;
            Ok(Owners::Beats(keepers))
        }
        Over::Grpc => {
            let connections = open_many(plan.connections, for_clients, &|_| silent()).await?;
            let mut registering = JoinSet::new();
            for (number, mut sdk) in connections.into_iter().enumerate() {
                let plan = plan.clone();
                registering.spawn(async move {
                    for instance in (0..plan.instances).filter(|instance| plan.owner(*instance) == number) {
                        register(&mut sdk, &plan.service(instance), instance, &[]).await?;
                    }
                    anyhow::Ok(sdk)
                });
            }
            let mut held = Vec::new();
            while let Some(sdk) = registering.join_next().await {
                held.push(sdk??);
            }
            Ok(Owners::Connections { _held: held })
        }
    }
}

/// A server at rest.
struct Rest {
    cpu_percent: f64,
    peer_bytes_per_second: Option<f64>,
}

async fn at_rest(plan: &FillPlan, duration: Duration) -> anyhow::Result<Rest> {
    let (before, traffic) = (procfs::usage(&plan.pids)?, Traffic::between(&plan.pids));
    let begun = Instant::now();
    sleep(duration).await;
    let seconds = begun.elapsed().as_secs_f64().max(1e-3);
    let now = Traffic::between(&plan.pids);
    let cpu = procfs::usage(&plan.pids)?.since(before).cpu.as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "bytes and nodes stay far below 2^52")]
    let said = now
        .zip(traffic)
        .map(|(now, before)| now.since(&before) as f64 / seconds / plan.pids.len().max(1) as f64);
    Ok(Rest {
        cpu_percent: cpu / seconds * 100.0,
        peer_bytes_per_second: said,
    })
}

/// What lists of a node showed until it had everything.
#[derive(Debug, Default)]
struct Swept {
    first_answer: Option<Instant>,
    partial: u64,
    empty: u64,
    missing: u64,
}

/// Asks the node for every service, each again and again until it is complete.
async fn wait_until_complete(
    plan: &FillPlan,
    address: SocketAddr,
    deadline: Instant,
) -> anyhow::Result<Swept> {
    let readers = (0..READERS).map(|reader| async move {
        let (mut swept, mut request, mut connection) = (Swept::default(), Vec::new(), None);
        for service in (0..plan.services).skip(reader).step_by(READERS) {
            let wanted = plan.of_service(service);
            list_request(&mut request, &address.to_string(), &service_name(service));
            loop {
                let found = ask(&mut connection, address, &request).await;
                if let Some(hosts) = found {
                    swept.first_answer.get_or_insert_with(Instant::now);
                    if hosts >= wanted {
                        break;
                    }
                    swept.partial += 1;
                    swept.empty += u64::from(hosts == 0);
                }
                if Instant::now() > deadline {
                    swept.missing += (wanted - found.unwrap_or(0)) as u64;
                    break;
                }
                sleep(Duration::from_millis(10)).await;
            }
        }
        anyhow::Ok(swept)
    });
    let mut all = Swept::default();
    for swept in join_all(readers).await? {
        all.first_answer = all.first_answer.into_iter().chain(swept.first_answer).min();
        all.partial += swept.partial;
        all.empty += swept.empty;
        all.missing += swept.missing;
    }
    Ok(all)
}

/// Number of instances in the answer, if it was 200.
async fn ask(connection: &mut Option<Connection>, address: SocketAddr, request: &[u8]) -> Option<usize> {
    if connection.as_ref().is_none_or(|connection| !connection.usable()) {
        *connection = Some(timeout(PATIENCE, Connection::open(address)).await.ok()?.ok()?);
    }
    let answer = timeout(PATIENCE, connection.as_mut()?.exchange(request))
        .await
        .ok()?
        .ok()?;
    match answer.status {
        200 => Some(Listed::read(answer.body).ok()?.hosts.len()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_instance_has_one_owner_and_no_owner_two_of_a_service() {
        for (instances, services, connections) in [(100, 10, 10), (103, 10, 11), (1000, 100, 37), (7, 7, 1)] {
            let plan = FillPlan {
                name: String::new(),
                addresses: Vec::new(),
                pids: Vec::new(),
                over: Over::Grpc,
                instances,
                services,
                connections,
                rest: Duration::ZERO,
            };
            let mut pairs = BTreeSet::new();
            for instance in 0..instances {
                assert!(pairs.insert((plan.service(instance), plan.owner(instance))));
            }
            let sum: usize = (0..services).map(|service| plan.of_service(service)).sum();
            assert_eq!(sum, instances as usize);
        }
    }
}
