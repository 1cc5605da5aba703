//! The subcommands about instances: servers are named by address, or started from a comparison file and let
//! take turns.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use loadtest::compare::Comparison;
use loadtest::fanout::FanoutPlan;
use loadtest::naming::fill::{FillPlan, Over};
use loadtest::naming::spread::SpreadPlan;
use loadtest::naming::storm::StormPlan;
use loadtest::naming::{fanout, fill as filling, spread as spreading, storm as storming};
use loadtest::peers::Running;
use loadtest::process::Scratch;
use loadtest::run::Check;

use crate::say;

#[derive(Debug, Args)]
struct Servers {
    /// A comparison file whose peers are started and take turns; the floor is left out.
    #[arg(long, conflicts_with_all = ["address", "pid"], required_unless_present = "address")]
    peers: Option<PathBuf>,
    /// Only these of its peers, by name.
    #[arg(long, requires = "peers")]
    peer: Vec<String>,
    /// Turns that each takes.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// HTTP address of a running node, `host:port`; several are one cluster. gRPC is looked for 1,000 ports above.
    #[arg(long)]
    address: Vec<String>,
    /// Its processes, whose CPU and memory are reported.
    #[arg(long)]
    pid: Vec<u32>,
    /// Print the figures as JSON, one object per run and line.
    #[arg(long)]
    json: bool,
}

/// Servers under test: their names, addresses and processes.
struct Tested {
    name: String,
    addresses: Vec<String>,
    pids: Vec<u32>,
    running: Option<Running>,
}

impl Servers {
    /// The peers to be started; none if running servers were named.
    fn comparison(&self) -> anyhow::Result<Option<Comparison>> {
        let Some(file) = &self.peers else { return Ok(None) };
        let mut comparison = Comparison::load(file)?;
        comparison.keep(&self.peer)?;
        comparison.peers.retain(|peer| peer.check == Check::Content);
        Ok(Some(comparison))
    }

    /// All of them at once, for short turns.
    async fn all(&self, scratch: &Scratch) -> anyhow::Result<Vec<Tested>> {
        let Some(comparison) = self.comparison()? else {
            return Ok(vec![self.named()]);
        };
        let mut all = Vec::new();
        for (number, peer) in comparison.peers.iter().enumerate() {
            let directory = scratch.path().join(format!("peer{}", number + 1));
            all.push(Tested::of(Running::start(peer, &directory).await?));
        }
        Ok(all)
    }

    fn named(&self) -> Tested {
        Tested {
            name: self.address.join(","),
            addresses: self.address.clone(),
            pids: self.pid.clone(),
            running: None,
        }
    }

    fn tell(&self, figures: &(impl serde::Serialize + std::fmt::Display)) -> anyhow::Result<()> {
        Ok(say(&if self.json {
            serde_json::to_string(figures)?
        } else {
            figures.to_string()
        })?)
    }
}

impl Tested {
    fn of(running: Running) -> Self {
        Self {
            name: running.peer.name.clone(),
            addresses: running.addresses.clone(),
            pids: running.pids(),
            running: Some(running),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct PushArguments {
    #[command(flatten)]
    servers: Servers,
    /// Subscribing clients, each a connection of its own; several numbers are several runs.
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1000])]
    clients: Vec<usize>,
    /// Changes that are measured.
    #[arg(long, default_value_t = 10)]
    changes: u32,
}

pub(crate) async fn push(arguments: PushArguments) -> anyhow::Result<()> {
    let scratch = Scratch::new(None, "loadtest-push")?;
    let all = arguments.servers.all(&scratch).await?;
    let mut missing = 0;
    for _ in 0..arguments.servers.rounds.max(1) {
        for clients in &arguments.clients {
            for tested in &all {
                let plan = FanoutPlan {
                    name: tested.name.clone(),
                    addresses: tested.addresses.clone(),
                    clients: *clients,
                    publishes: arguments.changes,
                    pids: tested.pids.clone(),
                };
                let figures = fanout::run(&plan).await?;
                missing += figures.missing;
                arguments.servers.tell(&figures)?;
            }
        }
    }
    anyhow::ensure!(missing == 0, "{missing} subscribers were not told");
    Ok(())
}

#[derive(Debug, Args)]
pub(crate) struct StormArguments {
    #[command(flatten)]
    servers: Servers,
    /// Subscribing clients.
    #[arg(long, default_value_t = 1000)]
    clients: usize,
    /// Instances that are restarted.
    #[arg(long, default_value_t = 1000)]
    instances: u32,
    /// Seconds over which the restarts are spread.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
}

pub(crate) async fn storm(arguments: StormArguments) -> anyhow::Result<()> {
    let scratch = Scratch::new(None, "loadtest-storm")?;
    let all = arguments.servers.all(&scratch).await?;
    let mut missing = 0;
    for _ in 0..arguments.servers.rounds.max(1) {
        for tested in &all {
            let plan = StormPlan {
                name: tested.name.clone(),
                addresses: tested.addresses.clone(),
                clients: arguments.clients,
                instances: arguments.instances,
                duration: Duration::from_secs_f64(arguments.seconds),
                pids: tested.pids.clone(),
            };
            let figures = storming::run(&plan).await?;
            missing += figures.missing;
            arguments.servers.tell(&figures)?;
        }
    }
    anyhow::ensure!(missing == 0, "{missing} subscribers were not told of the whole");
    Ok(())
}

#[derive(Debug, Args)]
pub(crate) struct FillArguments {
    #[command(flatten)]
    servers: Servers,
    /// Instances in all.
    #[arg(long, default_value_t = 100_000)]
    instances: u32,
    /// Services they are of.
    #[arg(long, default_value_t = 10_000)]
    services: u32,
    /// How they are registered; each on servers of its own.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Over::Http, Over::Grpc])]
    over: Vec<Over>,
    /// gRPC connections that own them.
    #[arg(long, default_value_t = 100)]
    connections: usize,
    /// Seconds the servers are looked at when nothing but beats happens.
    #[arg(long, default_value_t = 30.0)]
    rest: f64,
}

/// Each peer alone, on a fresh folder: memory is what is measured.
pub(crate) async fn fill(arguments: FillArguments) -> anyhow::Result<()> {
    let mut missing = 0;
    for _ in 0..arguments.servers.rounds.max(1) {
        for over in &arguments.over {
            let Some(comparison) = arguments.servers.comparison()? else {
                missing += fill_one(&arguments, *over, arguments.servers.named()).await?;
                continue;
            };
            for peer in &comparison.peers {
                let scratch = Scratch::new(None, "loadtest-fill")?;
                let tested = Tested::of(Running::start(peer, scratch.path()).await?);
                missing += fill_one(&arguments, *over, tested).await?;
            }
        }
    }
    anyhow::ensure!(missing == 0, "{missing} instances were not listed");
    Ok(())
}

async fn fill_one(arguments: &FillArguments, over: Over, mut tested: Tested) -> anyhow::Result<u64> {
    let plan = FillPlan {
        name: tested.name.clone(),
        addresses: tested.addresses.clone(),
        pids: tested.pids.clone(),
        over,
        instances: arguments.instances,
        services: arguments.services,
        connections: arguments.connections,
        rest: Duration::from_secs_f64(arguments.rest),
    };
    let mut full = filling::fill(plan).await?;
    let last = tested.addresses.len() - 1;
    if let Some(running) = tested.running.as_mut().filter(|_| last > 0) {
        full.load(|| {
            running.kill_and_start(last)?;
            Ok(running.pids())
        })
        .await?;
        running.still_alive()?;
    }
    let figures = full.finish();
    arguments.servers.tell(&figures)?;
    Ok(figures.missing)
}

#[derive(Debug, Args)]
pub(crate) struct SpreadArguments {
    #[command(flatten)]
    servers: Servers,
    /// Registrations.
    #[arg(long, default_value_t = 300)]
    registrations: u32,
}

pub(crate) async fn spread(arguments: SpreadArguments) -> anyhow::Result<()> {
    let scratch = Scratch::new(None, "loadtest-spread")?;
    let mut all = arguments.servers.all(&scratch).await?;
    // A comparison file may have lone nodes, which have nobody to spread to.
    all.retain(|tested| tested.addresses.len() > 1);
    anyhow::ensure!(!all.is_empty(), "there is no cluster among the servers");
    let mut missing = 0;
    for _ in 0..arguments.servers.rounds.max(1) {
        for tested in &all {
            let figures = spreading::run(&SpreadPlan {
                name: tested.name.clone(),
                addresses: tested.addresses.clone(),
                registrations: arguments.registrations,
            })
            .await?;
            missing += figures.missing.0 + figures.missing.1;
            arguments.servers.tell(&figures)?;
        }
    }
    anyhow::ensure!(missing == 0, "{missing} times a node did not see a registration");
    Ok(())
}
