//! How soon a registration on one node is seen on the others: by asking them again and again, and by a
//! subscription there.
//!
//! One registration at a time, each of a service of its own, in turn on every node and in turn over HTTP and
//! gRPC. Times are from the moment the registration is sent, so its own way is in them.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use hdrhistogram::Histogram;
use proto::nacos::naming::NotifySubscriberRequest;
use proto::nacos::{Message as _, Payload};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::fanout::{register, subscribe};
use super::{Listed, Registration, instance_of, list_request};
use crate::figures::{Latency, histogram, record};
use crate::grpc::{OnPush, Sdk, beside, silent, wait_until_open};
use crate::http::Connection;
use crate::run::resolve;
use crate::stored::join_all;

/// What is not seen by then is missing.
const PATIENCE: Duration = Duration::from_secs(10);

/// Time between two questions to a node.
const POLL: Duration = Duration::from_millis(1);

/// Pause between two registrations.
const PAUSE: Duration = Duration::from_millis(20);

/// Pushes that wait to be looked at, at most; more are not looked at, which would show as missing.
const PUSHES_MAX: usize = 1024;

/// A measurement.
#[derive(Debug, Clone)]
pub struct SpreadPlan {
    /// Whom it is about, for the report.
    pub name: String,
    /// HTTP `host:port` of each node.
    pub addresses: Vec<String>,
    /// Registrations.
    pub registrations: u32,
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct SpreadFigures {
    /// Whom it is about.
    pub name: String,
    /// Registrations.
    pub registrations: u32,
    /// Until the registration was acknowledged: over HTTP, over gRPC.
    pub acknowledged_us: [Latency; 2],
    /// Until another node listed it: over HTTP, over gRPC.
    pub listed_us: [Latency; 2],
    /// Until a subscriber at another node was told: over HTTP, over gRPC.
    pub told_us: [Latency; 2],
    /// Not listed, and not told, within ten seconds.
    pub missing: (u64, u64),
}

impl fmt::Display for SpreadFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<24} spread {} registrations", self.name, self.registrations)?;
        let kinds = ["HTTP", "gRPC"].iter().enumerate();
        for (place, kind) in kinds {
            let (acknowledged, listed, told) = (
                self.acknowledged_us[place],
                self.listed_us[place],
                self.told_us[place],
            );
            write!(
                f,
                "\n  {kind}: acknowledged p50 {} p99 {} µs; listed by the others p50 {} p99 {} max {} µs; \
                 told p50 {} p99 {} max {} µs",
                acknowledged.p50,
                acknowledged.p99,
                listed.p50,
                listed.p99,
                listed.max,
                told.p50,
                told.p99,
                told.max
            )?;
        }
        let (listed, told) = self.missing;
        if listed + told > 0 {
            write!(f, "\n  MISSING: not listed {listed}, not told {told}")?;
        }
        Ok(())
    }
}

/// A node, and what is said to it.
struct Node {
    address: SocketAddr,
    /// For registrations over HTTP, and for lists.
    http: Connection,
    owner: Sdk,
    subscriber: Sdk,
    told: mpsc::Receiver<(Instant, u32)>,
}

impl Node {
    async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let (sender, told) = mpsc::channel(PUSHES_MAX);
        let on_push: OnPush = Arc::new(move |push: &Payload| {
            let at = Instant::now();
            if push.type_name() != NotifySubscriberRequest::TYPE {
                return;
            }
            let Ok(notify) = push.read::<NotifySubscriberRequest<'_>>() else {
                return;
            };
            for host in &notify.service_info.hosts {
                if let Some(instance) = instance_of(&host.ip) {
                    // A full queue is told by what is missing.
                    let _ = sender.try_send((at, instance));
                }
            }
        });
        Ok(Self {
            address,
            http: Connection::open(address).await?,
            owner: Sdk::open(beside(address), silent()).await?,
            subscriber: Sdk::open(beside(address), on_push).await?,
            told,
        })
    }

    /// When the node lists the instance; `None` if it does not in time.
    async fn listed(&mut self, service: &str, instance: u32) -> anyhow::Result<Option<Instant>> {
        let mut request = Vec::new();
        list_request(&mut request, &self.address.to_string(), service);
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let answer = timeout(PATIENCE, self.http.exchange(&request))
                .await
                .context("list")??;
            if answer.status == 200 && Listed::read(answer.body)?.instances().contains(&instance) {
                return Ok(Some(Instant::now()));
            }
            sleep(POLL).await;
        }
        Ok(None)
    }

    /// When the node's subscriber was told of the instance.
    async fn told(&mut self, instance: u32) -> Option<Instant> {
        let found = async {
            loop {
                match self.told.recv().await {
                    Some((at, told)) if told == instance => return Some(at),
                    Some(_) => {}
                    None => return None,
                }
            }
        };
        timeout(PATIENCE, found).await.ok().flatten()
    }
}

/// Carries out the plan.
pub async fn run(plan: &SpreadPlan) -> anyhow::Result<SpreadFigures> {
    let addresses = resolve(&plan.addresses)?;
    anyhow::ensure!(addresses.len() > 1, "one node has no others to spread to");
    wait_until_open(&addresses).await?;
    let mut nodes = Vec::new();
    for address in &addresses {
        let node = timeout(PATIENCE, Node::open(*address))
            .await
            .context("no answer")??;
        nodes.push(node);
    }
    let new = || [histogram(), histogram()];
    let (mut acknowledged, mut listed, mut told) = (new(), new(), new());
    let mut missing = (0, 0);
    for instance in 0..plan.registrations {
        let service = format!("load.spread.{}.{instance}", std::process::id());
        let (writer, over_grpc) = (
            instance as usize % nodes.len(),
            (instance as usize / nodes.len()) % 2,
        );
        for node in &mut nodes {
            subscribe(&mut node.subscriber, &service).await?;
        }
        let seen = seen(&mut nodes, writer, over_grpc == 1, &service, instance).await?;
        record(&mut acknowledged[over_grpc], seen.acknowledged);
        missing.0 += note(&mut listed[over_grpc], &seen.listed);
        missing.1 += note(&mut told[over_grpc], &seen.told);
        sleep(PAUSE).await;
    }
    let figures = |histograms: [Histogram<u64>; 2]| histograms.map(|one| Latency::of(&one));
    Ok(SpreadFigures {
        name: plan.name.clone(),
        registrations: plan.registrations,
        acknowledged_us: figures(acknowledged),
        listed_us: figures(listed),
        told_us: figures(told),
        missing,
    })
}

/// Notes what was seen and returns how many saw nothing.
fn note(histogram: &mut Histogram<u64>, seen: &[Option<Duration>]) -> u64 {
    seen.iter()
        .flatten()
        .for_each(|duration| record(histogram, *duration));
    seen.iter().filter(|one| one.is_none()).count() as u64
}

/// One registration, as the others saw it.
struct Seen {
    acknowledged: Duration,
    listed: Vec<Option<Duration>>,
    told: Vec<Option<Duration>>,
}

async fn seen(
    nodes: &mut [Node],
    writer: usize,
    over_grpc: bool,
    service: &str,
    instance: u32,
) -> anyhow::Result<Seen> {
    let mut request = Vec::new();
    let registration = Registration {
        service,
        instance,
        metadata: "",
    };
    registration.register(&mut request, &nodes[writer].address.to_string());
    let (before, rest) = nodes.split_at_mut(writer);
    let (writer, after) = rest.split_first_mut().context("a writer")?;
    let sent = Instant::now();
    let acknowledged = async {
        if over_grpc {
            register(&mut writer.owner, service, instance, &[]).await?;
        } else {
            let answer = timeout(PATIENCE, writer.http.exchange(&request))
                .await
                .context("register")??;
            anyhow::ensure!(
                answer.status == 200,
                "register: {} {}",
                answer.status,
                answer.text()
            );
        }
        anyhow::Ok(sent.elapsed())
    };
    let others = join_all(before.iter_mut().chain(after).map(|node| async move {
        let listed = node.listed(service, instance).await?;
        let told = node.told(instance).await;
        Ok((listed.map(|at| at - sent), told.map(|at| at - sent)))
    }));
    let (acknowledged, others) = tokio::join!(acknowledged, others);
    let (listed, told) = others?.into_iter().unzip();
    Ok(Seen {
        acknowledged: acknowledged?,
        listed,
        told,
    })
}
