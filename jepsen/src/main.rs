//! `jepsen`: one subcommand per promise. Exit code 0 passed, 1 violated, 2 void, 3 not carried out.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use loadtest::process::Scratch;

use jepsen::chaos::faults::Group;
use jepsen::chaos::network::{self, Kind};
use jepsen::verdict::{Report, Verdict, tell};
use jepsen::{
    announcement, chaos, errors, first_starts, hostile, kill_all, leader_kill, naming, pause_leader,
    power_cut, scale, seeded, syncs,
};

/// Black-box proofs against real server processes.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    /// Server binary.
    #[arg(long, global = true, default_value = "target/release/rnacos")]
    server: PathBuf,
    /// Folder in which data folders and logs are made; the system's temporary folder if not given.
    #[arg(long, global = true)]
    scratch: Option<PathBuf>,
    /// Keep data folders and logs even if the run passed.
    #[arg(long, global = true)]
    keep: bool,
    /// Print the report as JSON as well.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Debug, Subcommand)]
enum Scenario {
    /// The announcement's three-node example for configs: publish on each node, get on each.
    Announcement {
        /// Take the announcement's ports (8848 to 8850, 9848 to 9850) instead of free ones.
        #[arg(long)]
        own_ports: bool,
    },
    /// The announcement's three-node example for instances: register on each node, list on each.
    NamingAnnouncement {
        /// Take the announcement's ports (8848 to 8850, 9848 to 9850) instead of free ones.
        #[arg(long)]
        own_ports: bool,
    },
    /// Faults from a seed while instances are registered, kept, moved and ended; who is alive is listed, who is not is not.
    Naming(Naming),
    /// First starts on fresh folders while the machine is busy: N of N serve what they acknowledge.
    FirstStarts {
        /// Number of starts.
        #[arg(long, default_value_t = 30)]
        count: usize,
        /// Load beside them: `spin:N`, `none`, or a shell command that is repeated.
        #[arg(long, default_value = "spin:16")]
        load: String,
        /// Load average that must be exceeded before each start.
        #[arg(long, default_value_t = 8.0)]
        load_average: f64,
    },
    /// kill -9 of the leader under load: nothing acknowledged is lost, the first write follows soon.
    LeaderKill(LeaderKill),
    /// kill -9 of all nodes at once under load: everything acknowledged is there.
    KillAll(Rounds),
    /// As kill-all, and everything that was not synced is gone (needs root and loop devices).
    PowerCut(Rounds),
    /// A leader stopped with requests queued on it: what it then acknowledges stays.
    PauseLeader {
        /// Number of pauses.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Seconds of each pause.
        #[arg(long, default_value_t = 9.0)]
        seconds: f64,
    },
    /// 1, 3, 5 and 3 nodes under writes, a rolling restart, a lost disk, by `rnacos cluster`.
    Scale {
        /// Clients that write all the time.
        #[arg(long, default_value_t = 4)]
        writers: usize,
        /// Writes per second and client.
        #[arg(long, default_value_t = 50.0)]
        rate: f64,
    },
    /// strace: a sync on a majority before each answer, and how many writes share one.
    Syncs,
    /// Faults from a seed while clients compare, set and read registers; linearizability is checked.
    Chaos(Chaos),
    /// Servers built to be wrong (`--features seeded-bugs`): chaos, or naming, finds each bug.
    Seeded(Seeded),
    /// Strangers do their worst to the gRPC port; clients that behave are served all the same.
    Hostile(Hostile),
    /// Clean errors with a next step.
    Errors {
        /// Only these cases.
        #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(errors::CASES))]
        only: Vec<String>,
    },
}

#[derive(Debug, Args)]
struct LeaderKill {
    /// Number of kills.
    #[arg(long, default_value_t = 50)]
    count: usize,
    /// Number of nodes.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Clients that write all the time.
    #[arg(long, default_value_t = 8)]
    writers: usize,
    /// Writes per second and client.
    #[arg(long, default_value_t = 50.0)]
    rate: f64,
    /// Seed of the pauses between the kills.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
struct Chaos {
    /// Seed of everything that is drawn; a fresh one if not given. It is printed.
    #[arg(long)]
    seed: Option<u64>,
    /// Seconds with faults, per run.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Number of runs; each further one takes the next seed.
    #[arg(long, default_value_t = 1)]
    runs: u64,
    /// Number of nodes.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Faults that must happen; all that are possible here if not given.
    #[arg(long, value_enum, value_delimiter = ',')]
    faults: Option<Vec<Group>>,
    /// How many times the usual the servers may take to start, to heal and to end: for slow machines.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=20))]
    patience: u32,
    /// A void run is tried again so many times, each time with the next seed.
    #[arg(long, default_value_t = 0)]
    again: u64,
    /// How links between nodes are cut.
    #[arg(long, value_enum, default_value_t = Kind::Auto)]
    network: Kind,
    /// Where history.json, timeline.html and report.json go, a folder per seed.
    #[arg(long, default_value = "target/chaos")]
    output: PathBuf,
}

#[derive(Debug, Args)]
struct Naming {
    /// Seed of everything that is drawn; a fresh one if not given. It is printed.
    #[arg(long)]
    seed: Option<u64>,
    /// Seconds with faults, per run.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Number of runs; each further one takes the next seed.
    #[arg(long, default_value_t = 1)]
    runs: u64,
    /// Number of nodes.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Faults that must happen: kill, pause, partition. `--faults=` is none at all.
    #[arg(long, value_delimiter = ',', default_value = "kill,pause,partition", value_parser = naming_fault)]
    faults: Vec<Option<Group>>,
    /// How many times the usual the servers may take to start, to heal and to end: for slow machines.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=20))]
    patience: u32,
    /// A void run is tried again so many times, each time with the next seed.
    #[arg(long, default_value_t = 0)]
    again: u64,
    /// How links between nodes are cut.
    #[arg(long, value_enum, default_value_t = Kind::Auto)]
    network: Kind,
    /// Seconds for which lists must stay what they are at the end: as long as what is late may come, by default.
    #[arg(long, default_value_t = naming::REST.as_secs())]
    rest: u64,
    /// Where record.json and report.json go, a folder per seed.
    #[arg(long, default_value = "target/naming")]
    output: PathBuf,
}

/// A group of faults that means something to instances; nothing of an empty word.
fn naming_fault(word: &str) -> Result<Option<Group>, String> {
    match word {
        "" => Ok(None),
        "kill" => Ok(Some(Group::Kill)),
        "pause" => Ok(Some(Group::Pause)),
        "partition" => Ok(Some(Group::Partition)),
        _ => Err("kill, pause or partition".to_owned()),
    }
}

#[derive(Debug, Args)]
struct Hostile {
    /// Seed of what is random.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds of each of the two rounds.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Only these attacks.
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(hostile::names()))]
    only: Vec<String>,
    /// Connections that send nothing.
    #[arg(long, default_value_t = 2_000)]
    silent: usize,
    /// Milliseconds within which 99 of 100 requests of those who behave must be answered.
    #[arg(long, default_value_t = 1_000)]
    p99: u64,
}

#[derive(Debug, Args)]
struct Seeded {
    /// Only these bugs.
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(seeded::BUGS.map(|bug| bug.name)))]
    only: Vec<String>,
    /// First seed; a fresh one if not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Seconds with faults, per run.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Runs within which a bug must be found.
    #[arg(long, default_value_t = 8)]
    runs: u64,
    /// How links between nodes are cut.
    #[arg(long, value_enum, default_value_t = Kind::Auto)]
    network: Kind,
    /// Where history.json, timeline.html and report.json go, a folder per bug and seed.
    #[arg(long, default_value = "target/chaos")]
    output: PathBuf,
}

#[derive(Debug, Args)]
struct Rounds {
    /// Number of rounds.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Number of nodes.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Seed of the moments.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    match carry_out() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            tell(format!("not carried out: {error:#}"));
            ExitCode::from(3)
        }
    }
}

fn carry_out() -> anyhow::Result<u8> {
    let mut arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        // clap itself would exit with 2, which here means a void run.
        Err(error) => {
            error.print()?;
            return Ok(if error.use_stderr() { 3 } else { 0 });
        }
    };
    // Before any thread or folder is made: it may begin this command anew inside a namespace.
    match &mut arguments.scenario {
        Scenario::Chaos(chaos) => chaos.network = network::enter(chaos.network)?,
        Scenario::Seeded(seeded) => seeded.network = network::enter(seeded.network)?,
        Scenario::Naming(naming) => naming.network = network::enter(naming.network)?,
        _ => {}
    }
    let server = std::fs::canonicalize(&arguments.server).with_context(|| {
        format!(
            "{}: build the server first (cargo build --release), or give --server",
            arguments.server.display()
        )
    })?;
    let mut scratch = Scratch::new(arguments.scratch.as_deref(), "jepsen")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(Box::pin(run(arguments.scenario, &server, &scratch)));
    let passed = outcome.as_ref().is_ok_and(|report| report.exit_code() == 0);
    if arguments.keep || !passed {
        scratch.keep();
        tell(format!(
            "data folders and logs are kept in {}",
            scratch.path().display()
        ));
    }
    let report = outcome?;
    report.print()?;
    if arguments.json {
        tell(serde_json::to_string(&report)?);
    }
    Ok(report.exit_code())
}

async fn run(scenario: Scenario, server: &std::path::Path, scratch: &Scratch) -> anyhow::Result<Report> {
    match scenario {
        Scenario::Announcement { own_ports } => announcement::run(server, scratch, own_ports).await,
        Scenario::NamingAnnouncement { own_ports } => {
            naming::announcement::run(server, scratch, own_ports).await
        }
        Scenario::Naming(naming) => naming_runs(server, scratch, naming).await,
        Scenario::FirstStarts {
            count,
            load,
            load_average,
        } => first_starts::run(server, scratch, count, &load, load_average).await,
        Scenario::LeaderKill(LeaderKill {
            count,
            nodes,
            writers,
            rate,
            seed,
        }) => {
            leader_kill::run(
                server,
                scratch,
                leader_kill::Plan {
                    nodes,
                    count,
                    writers,
                    rate,
                    seed,
                    failover_p99: Some(leader_kill::FAILOVER_P99),
                },
            )
            .await
        }
        Scenario::KillAll(Rounds { rounds, nodes, seed }) => {
            kill_all::run(server, scratch, nodes, rounds, seed).await
        }
        Scenario::PowerCut(Rounds { rounds, nodes, seed }) => {
            power_cut::run(server, scratch, nodes, rounds, seed).await
        }
        Scenario::PauseLeader { rounds, seconds } => {
            pause_leader::run(server, scratch, rounds, Duration::from_secs_f64(seconds)).await
        }
        Scenario::Scale { writers, rate } => scale::run(server, scratch, writers, rate).await,
        Scenario::Syncs => syncs::run(server, scratch).await,
        Scenario::Chaos(chaos) => chaos_runs(server, scratch, chaos).await,
        Scenario::Seeded(seeded) => look_for_bugs(server, scratch, seeded).await,
        Scenario::Hostile(hostile) => strangers(server, scratch, hostile).await,
        Scenario::Errors { only } => errors::run(server, scratch, &only).await,
    }
}

async fn strangers(server: &std::path::Path, scratch: &Scratch, hostile: Hostile) -> anyhow::Result<Report> {
    let plan = hostile::Plan {
        seed: hostile.seed,
        attacked: Duration::from_secs(hostile.seconds),
        only: hostile.only,
        silent: hostile.silent,
        p99_max: Duration::from_millis(hostile.p99),
    };
    hostile::run(server, scratch, &plan).await
}

async fn look_for_bugs(
    server: &std::path::Path,
    scratch: &Scratch,
    seeded: Seeded,
) -> anyhow::Result<Report> {
    let plan = seeded::Plan {
        only: seeded.only,
        first_seed: seeded.seed.unwrap_or_else(chaos::fresh_seed),
        duration: Duration::from_secs(seeded.seconds),
        runs: seeded.runs,
        network: seeded.network,
    };
    seeded::run(server, scratch, &seeded.output, &plan).await
}

/// Runs that follow each other, each with the next seed.
struct Runs {
    seed: u64,
    passed: u64,
    wanted: u64,
    /// Void runs that are still forgiven.
    again: u64,
    table: Vec<String>,
}

impl Runs {
    fn new(seed: Option<u64>, wanted: u64, again: u64) -> Self {
        Self {
            seed: seed.unwrap_or_else(chaos::fresh_seed),
            passed: 0,
            wanted: wanted.max(1),
            again,
            table: Vec::new(),
        }
    }

    /// Takes a run's report and gives it back if it is the last: the first that did not pass, or the last of those wanted. A
    /// void one may be tried again. A table of all runs comes last.
    fn ends_with(&mut self, report: Report, figure: &str) -> anyhow::Result<Option<Report>> {
        let (seed, verdict) = (self.seed, report.verdict());
        self.table
            .push(format!("{seed}: {verdict}, {}", report.figure_of(figure)));
        match verdict {
            Verdict::Passed => self.passed += 1,
            Verdict::Void if self.again > 0 => self.again -= 1,
            Verdict::Void | Verdict::Violated => self.passed = u64::MAX,
        }
        if self.passed >= self.wanted {
            if self.table.len() > 1 {
                self.table.iter().for_each(tell);
            }
            return Ok(Some(report));
        }
        report.print()?;
        self.seed += 1;
        Ok(None)
    }
}

async fn naming_runs(
    server: &std::path::Path,
    scratch: &Scratch,
    arguments: Naming,
) -> anyhow::Result<Report> {
    let mut runs = Runs::new(arguments.seed, arguments.runs, arguments.again);
    loop {
        let seed = runs.seed;
        let plan = naming::Plan {
            seed,
            duration: Duration::from_secs(arguments.seconds),
            nodes: arguments.nodes,
            faults: arguments.faults.iter().copied().flatten().collect(),
            network: arguments.network,
            limits: chaos::Limits::times(arguments.patience),
            patience: arguments.patience,
            rest: Duration::from_secs(arguments.rest),
            environment: Vec::new(),
        };
        tell(format!("naming: seed {seed}"));
        let directory = scratch.path().join(format!("seed-{seed}"));
        let output = arguments.output.join(format!("seed-{seed}"));
        let report = naming::run(server, &directory, &output, &plan)
            .await
            .with_context(|| format!("seed {seed}"))?;
        if let Some(report) = runs.ends_with(report, "registrations")? {
            return Ok(report);
        }
    }
}

async fn chaos_runs(server: &std::path::Path, scratch: &Scratch, chaos: Chaos) -> anyhow::Result<Report> {
    let mut runs = Runs::new(chaos.seed, chaos.runs, chaos.again);
    loop {
        let seed = runs.seed;
        let plan = chaos::Plan {
            seed,
            duration: Duration::from_secs(chaos.seconds),
            nodes: chaos.nodes,
            faults: chaos.faults.clone(),
            network: chaos.network,
            write_timeout: None,
            environment: Vec::new(),
            limits: chaos::Limits::times(chaos.patience),
        };
        tell(format!("chaos: seed {seed}"));
        let directory = scratch.path().join(format!("seed-{seed}"));
        let output = chaos.output.join(format!("seed-{seed}"));
        let report = chaos::run(server, &directory, &output, &plan)
            .await
            .with_context(|| format!("seed {seed}"))?;
        if let Some(report) = runs.ends_with(report, "operations")? {
            return Ok(report);
        }
    }
}
