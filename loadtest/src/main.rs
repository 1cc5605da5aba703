//! `loadtest`: load over HTTP and gRPC, listeners, subscribers, idle connections, the floor server, peers side by
//! side.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};

use loadtest::compare::Comparison;
use loadtest::fanout::{FanoutPlan, config as fanout};
use loadtest::floor;
use loadtest::footprint::{self, Footprint};
use loadtest::peers::wait_until_it_serves;
use loadtest::ports;
use loadtest::process::{Child, Program, Scratch, describe};
use loadtest::run::{Check, Plan, Work, run};
use loadtest::sessions::{IdlePlan, idle};

mod naming_cli;

/// Load against any Nacos-compatible server, every answer checked.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    /// Threads of the generator (or of the floor server).
    #[arg(long, global = true, default_value_t = 2)]
    workers: usize,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Publish and read configs, register, beat for and ask for instances, over HTTP and gRPC.
    #[command(visible_alias = "config")]
    Run(ConfigArguments),
    /// Let many gRPC clients listen on one config, publish it, and time until each is told.
    Fanout(FanoutArguments),
    /// Let many gRPC clients subscribe to one service, change an instance, and time until each is told.
    Push(naming_cli::PushArguments),
    /// Restart the instances of a service one after the other, and count what its subscribers are told.
    Storm(naming_cli::StormArguments),
    /// Register many instances, keep them alive, and see what they take; restart a node of several.
    Fill(naming_cli::FillArguments),
    /// Register on each node of several in turn, and time until the others have it.
    Spread(naming_cli::SpreadArguments),
    /// Hold idle gRPC connections with heartbeats and churn, and look at the server's memory.
    Idle(IdleArguments),
    /// Publish many configs once and see what memory and disk a node takes to hold them.
    Footprint(FootprintArguments),
    /// Serve ready-made answers with hyper and a group commit: what a server costs above this is its own doing.
    Floor(FloorArguments),
    /// Start peers from a JSON file, let them take turns, print ratios.
    Compare(CompareArguments),
}

#[derive(Debug, Args)]
struct Target {
    /// HTTP address of a node, `host:port`; several are used in turn. Without one, --server is started.
    /// gRPC is looked for 1,000 ports above.
    #[arg(long)]
    address: Vec<String>,
    /// Server binary to start on a fresh folder, one node with default settings.
    #[arg(long, default_value = "../target/release/rnacos")]
    server: PathBuf,
    /// Server processes whose CPU, memory and written bytes are reported.
    #[arg(long)]
    pid: Vec<u32>,
    /// Print the figures as JSON, one object per run and line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct FanoutArguments {
    #[command(flatten)]
    target: Target,
    /// Listening clients, each a connection of its own; several numbers are several runs.
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1000])]
    clients: Vec<usize>,
    /// Publishes that are measured.
    #[arg(long, default_value_t = 20)]
    publishes: u32,
}

#[derive(Debug, Args)]
struct IdleArguments {
    #[command(flatten)]
    target: Target,
    /// Connections held.
    #[arg(long, default_value_t = 1000)]
    clients: usize,
    /// Seconds they are held, after all are open.
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    /// Seconds between two heartbeats of a connection.
    #[arg(long, default_value_t = 5.0)]
    beat: f64,
    /// Connections closed, and opened anew, per second.
    #[arg(long, default_value_t = 0.0)]
    churn: f64,
    /// Seconds between two reports.
    #[arg(long, default_value_t = 5.0)]
    report: f64,
    /// Seed of the choice of the connections that are closed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
struct ConfigArguments {
    #[command(flatten)]
    target: Target,
    /// What to do.
    #[arg(long, value_enum, default_values_t = [Work::Write, Work::Read])]
    work: Vec<Work>,
    /// Connections, each with one request in flight.
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Seconds of load before.
    #[arg(long, default_value_t = 2.0)]
    warm_up: f64,
    /// Bytes of a content.
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// Number of different configs.
    #[arg(long, default_value_t = 1000)]
    keys: u32,
    /// Open loop with this many requests per second; closed loop without.
    #[arg(long)]
    rate: Option<f64>,
    /// How closely answers are looked at.
    #[arg(long, value_enum, default_value_t = Check::Content)]
    check: Check,
    /// Seed of contents and keys.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Counter of disk syncs in the servers' /metrics.
    #[arg(long, default_value = SYNC_METRIC)]
    sync_metric: String,
}

/// The counter of syncs of rnacos' log writer.
const SYNC_METRIC: &str = "rnacos_log_syncs_total";

#[derive(Debug, Args)]
struct FootprintArguments {
    /// Address of a running node, `host:port`; with --pid and --dir. Without one, --server is started.
    #[arg(long, requires_all = ["pid", "dir"])]
    address: Option<String>,
    /// Its process id.
    #[arg(long)]
    pid: Option<u32>,
    /// Its data folder.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Server binary to start on a fresh folder, one node with default settings, and to start again.
    #[arg(long, default_value = "../target/release/rnacos")]
    server: PathBuf,
    /// Number of configs.
    #[arg(long, default_value_t = 100_000)]
    configs: u32,
    /// Bytes of a content.
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// Seconds between the last write and the look at memory and disk.
    #[arg(long, default_value_t = 60.0)]
    settle: f64,
    /// Seed of contents and keys.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct FloorArguments {
    /// Port on 127.0.0.1.
    #[arg(long)]
    port: u16,
    /// Folder of its log.
    #[arg(long)]
    dir: PathBuf,
    /// Bytes of the content every GET is answered with.
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// Leave out the fdatasync.
    #[arg(long)]
    no_sync: bool,
}

#[derive(Debug, Args)]
struct CompareArguments {
    /// The comparison, in JSON.
    file: PathBuf,
    /// Only these kinds of work, instead of the file's.
    #[arg(long, value_enum)]
    work: Vec<Work>,
    /// Only these peers, by name.
    #[arg(long)]
    peer: Vec<String>,
    /// Rounds, instead of the file's.
    #[arg(long)]
    rounds: Option<usize>,
    /// Where the peers' folders are made; the system's temporary folder if not given.
    #[arg(long)]
    scratch: Option<PathBuf>,
    /// Print the whole report as JSON instead of the table.
    #[arg(long)]
    json: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(arguments.workers.max(1))
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match arguments.command {
            Command::Run(config) => Box::pin(load(config)).await,
            Command::Push(push) => Box::pin(naming_cli::push(push)).await,
            Command::Storm(storm) => Box::pin(naming_cli::storm(storm)).await,
            Command::Fill(fill) => Box::pin(naming_cli::fill(fill)).await,
            Command::Spread(spread) => Box::pin(naming_cli::spread(spread)).await,
            Command::Fanout(fanout) => Box::pin(fan_out(fanout)).await,
            Command::Idle(idle) => Box::pin(hold(idle)).await,
            Command::Footprint(arguments) => Box::pin(take_footprint(arguments)).await,
            Command::Floor(floor) => floor::serve(floor.port, &floor.dir, floor.size, !floor.no_sync).await,
            Command::Compare(compare) => Box::pin(side_by_side(compare)).await,
        }
    })
}

/// Nodes to talk to; a server started for this run ends with it.
struct Served {
    addresses: Vec<String>,
    pids: Vec<u32>,
    _server: Option<Child>,
    _scratch: Scratch,
}

impl Target {
    async fn serve(&self) -> anyhow::Result<Served> {
        let scratch = Scratch::new(None, "loadtest")?;
        let mut served = Served {
            addresses: self.address.clone(),
            pids: self.pid.clone(),
            _server: None,
            _scratch: scratch,
        };
        if !served.addresses.is_empty() {
            return Ok(served);
        }
        let port = ports::pairs(1)?[0];
        let address = format!("127.0.0.1:{port}");
        let child = serving(&lone_node(&self.server, port, &served._scratch)?, &address).await?;
        served.addresses.push(address);
        served.pids.push(child.pid());
        served._server = Some(child);
        Ok(served)
    }
}

async fn fan_out(arguments: FanoutArguments) -> anyhow::Result<()> {
    let served = arguments.target.serve().await?;
    let mut missing = 0;
    for clients in &arguments.clients {
        let figures = fanout::run(&FanoutPlan {
            name: served.addresses.join(","),
            addresses: served.addresses.clone(),
            clients: *clients,
            publishes: arguments.publishes,
            pids: served.pids.clone(),
        })
        .await?;
        missing += figures.missing;
        say(&if arguments.target.json {
            serde_json::to_string(&figures)?
        } else {
            figures.to_string()
        })?;
    }
    anyhow::ensure!(missing == 0, "{missing} clients were not told");
    Ok(())
}

async fn hold(arguments: IdleArguments) -> anyhow::Result<()> {
    let served = arguments.target.serve().await?;
    let plan = IdlePlan {
        name: served.addresses.join(","),
        addresses: served.addresses.clone(),
        clients: arguments.clients,
        duration: Duration::from_secs_f64(arguments.seconds),
        beat: Duration::from_secs_f64(arguments.beat.max(0.001)),
        churn_per_second: arguments.churn,
        report: Duration::from_secs_f64(arguments.report.max(0.1)),
        pids: served.pids.clone(),
        seed: arguments.seed,
    };
    let json = arguments.target.json;
    let last = idle(&plan, |figures| {
        let line = if json {
            serde_json::to_string(figures).unwrap_or_default()
        } else {
            figures.line()
        };
        drop(say(&line));
    })
    .await?;
    anyhow::ensure!(
        last.errors == 0,
        "{} heartbeats or connections failed",
        last.errors
    );
    Ok(())
}

async fn load(arguments: ConfigArguments) -> anyhow::Result<()> {
    let served = arguments.target.serve().await?;
    let mut wrong = 0;
    for work in &arguments.work {
        let plan = Plan {
            name: served.addresses.join(","),
            addresses: served.addresses.clone(),
            work: *work,
            connections: arguments.connections,
            duration: Duration::from_secs_f64(arguments.seconds),
            warm_up: Duration::from_secs_f64(arguments.warm_up),
            size: arguments.size,
            keys: arguments.keys,
            rate: arguments.rate,
            check: arguments.check,
            seed: arguments.seed,
            pids: served.pids.clone(),
            sync_metric: arguments.sync_metric.clone(),
        };
        let figures = run(plan).await?;
        wrong += figures.errors.total();
        say(&if arguments.target.json {
            serde_json::to_string(&figures)?
        } else {
            figures.line()
        })?;
    }
    anyhow::ensure!(wrong == 0, "{wrong} requests were not answered rightly");
    Ok(())
}

/// Starts the program and waits until it serves.
async fn serving(program: &Program, address: &str) -> anyhow::Result<Child> {
    let mut child = program.start()?;
    wait_until_it_serves(address, Check::Content, || match child.ended()? {
        None => Ok(()),
        Some(status) => anyhow::bail!(
            "the server ended ({}); it said:\n{}",
            describe(status),
            child.said()
        ),
    })
    .await?;
    Ok(child)
}

/// How long memory may settle after a start before it is looked at.
const AFTER_START: Duration = Duration::from_secs(5);

/// How long a server may take to end.
const END_PATIENCE: Duration = Duration::from_secs(30);

async fn take_footprint(arguments: FootprintArguments) -> anyhow::Result<()> {
    let settle = Duration::from_secs_f64(arguments.settle);
    let found = match (&arguments.address, arguments.pid, &arguments.dir) {
        (Some(address), Some(pid), Some(folder)) => {
            let plan = footprint_plan(&arguments, address, pid);
            footprint::fill(&plan, folder, settle).await?
        }
        _ => footprint_of_own(&arguments, settle).await?,
    };
    say(&if arguments.json {
        serde_json::to_string(&found)?
    } else {
        found.text()
    })?;
    let wrong = found.wrong();
    anyhow::ensure!(wrong == 0, "{wrong} configs were not given back");
    Ok(())
}

/// Starts the server, fills it, and starts it again on the same folder.
async fn footprint_of_own(arguments: &FootprintArguments, settle: Duration) -> anyhow::Result<Footprint> {
    let scratch = Scratch::new(None, "loadtest-footprint")?;
    let port = ports::pairs(1)?[0];
    let (address, folder) = (format!("127.0.0.1:{port}"), scratch.path().join("db"));
    let program = lone_node(&arguments.server, port, &scratch)?;
    let started = Instant::now();
    let mut child = serving(&program, &address).await?;
    let seconds = started.elapsed().as_secs_f64();
    tokio::time::sleep(AFTER_START).await;
    let plan = footprint_plan(arguments, &address, child.pid());
    let empty = footprint::look(&plan, &folder, seconds, false).await?;
    let mut found = footprint::fill(&plan, &folder, settle).await?;
    found.empty = Some(empty);
    let ended = child.terminate(END_PATIENCE)?;
    anyhow::ensure!(ended.is_some(), "the server did not end when it was asked to");
    let started = Instant::now();
    let child = serving(&program, &address).await?;
    let seconds = started.elapsed().as_secs_f64();
    tokio::time::sleep(AFTER_START).await;
    let plan = footprint_plan(arguments, &address, child.pid());
    found.again = Some(footprint::look(&plan, &folder, seconds, true).await?);
    Ok(found)
}

fn footprint_plan(arguments: &FootprintArguments, address: &str, pid: u32) -> Plan {
    Plan {
        name: address.to_owned(),
        addresses: vec![address.to_owned()],
        work: Work::Read,
        connections: 1,
        duration: Duration::ZERO,
        warm_up: Duration::ZERO,
        size: arguments.size,
        keys: arguments.configs,
        rate: None,
        check: Check::Content,
        seed: arguments.seed,
        pids: vec![pid],
        sync_metric: SYNC_METRIC.to_owned(),
    }
}

fn lone_node(server: &Path, port: u16, scratch: &Scratch) -> anyhow::Result<Program> {
    let path = std::fs::canonicalize(server)
        .with_context(|| format!("{} (build it, or give --server or --address)", server.display()))?;
    let environment = [
        ("RNACOS_HTTP_PORT", port.to_string()),
        ("RNACOS_GRPC_PORT", (port + ports::GRPC_OFFSET).to_string()),
        ("RNACOS_SDK_HOST", "127.0.0.1".to_owned()),
        (
            "RNACOS_CONFIG_DB_DIR",
            scratch.path().join("db").to_string_lossy().into_owned(),
        ),
        ("RUST_LOG", "warn".to_owned()),
    ];
    Ok(Program {
        path,
        arguments: Vec::new(),
        environment: environment
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
        directory: scratch.path().to_path_buf(),
        output: scratch.path().join("output.log"),
    })
}

async fn side_by_side(arguments: CompareArguments) -> anyhow::Result<()> {
    let mut comparison = Comparison::load(&arguments.file)?;
    comparison.keep(&arguments.peer)?;
    if !arguments.work.is_empty() {
        comparison.work = arguments.work;
    }
    comparison.rounds = arguments.rounds.unwrap_or(comparison.rounds).max(1);
    let scratch = Scratch::new(arguments.scratch.as_deref(), "loadtest-compare")?;
    let report = comparison
        .run(&scratch, |line| drop(writeln!(std::io::stderr(), "{line}")))
        .await?;
    say(&if arguments.json {
        serde_json::to_string_pretty(&report)?
    } else {
        report.table()
    })?;
    let wrong: u64 = report.rows.iter().map(|row| row.errors).sum();
    anyhow::ensure!(wrong == 0, "{wrong} requests were not answered rightly");
    Ok(())
}

fn say(line: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{line}")
}
