//! Settings: flag over environment over env file over default, everything checked before anything starts,
//! every mistake reported at once.
//!
//! Sources are plain maps, so that tests need no process; only [`from_process`] looks at the real
//! environment.

mod env_file;
mod sources;
mod table;
mod value;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

pub use self::env_file::Malformed;
pub use self::sources::{Mistake, Mistakes, Origin, Sources};
pub use self::table::{NOT_TAKEN, NotTaken, SETTINGS, Setting, find, markdown, not_taken_markdown};
pub use self::value::Secret;
use crate::model::Subnet;

/// A content may have this many bytes at most, whatever the setting says (contract 00 §3: `maxContent`).
pub const CONTENT_BYTES_MAX: u64 = 10_485_760;
/// gRPC port = HTTP port + this: SDKs compute it so.
pub const GRPC_PORT_OFFSET: u16 = 1_000;

/// Everything the server is told when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Ports and sockets.
    pub network: Network,
    /// The data folder.
    pub storage: Storage,
    /// The raft group.
    pub cluster: Cluster,
    /// The configuration store.
    pub config: Config,
    /// The service registry.
    pub naming: Naming,
    /// Logs, deadlines, metrics.
    pub operation: Operation,
}

/// Ports and sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Address both ports listen on.
    pub host: IpAddr,
    /// HTTP port; 0 takes a free one.
    pub http_port: u16,
    /// Port of gRPC and of the peers; 0 takes a free one.
    pub grpc_port: u16,
    /// Threads of the runtime.
    pub workers: usize,
    /// HTTP connections at a time; `None`: what the open-file limit leaves.
    pub connections_max: Option<usize>,
    /// Certificate chain and key of the gRPC port, PEM files; `None`: no TLS there.
    pub grpc_tls: Option<(PathBuf, PathBuf)>,
    /// Clients over gRPC have to use TLS; never without a certificate.
    pub grpc_tls_required: bool,
}

impl Network {
    /// Where HTTP listens.
    pub fn http_address(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.http_port)
    }

    /// Where gRPC and the peers connect.
    pub fn grpc_address(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.grpc_port)
    }
}

/// The data folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Folder of all data of this node.
    pub dir: PathBuf,
    /// Free bytes below which writes are refused; `None`: 512 MiB, a tenth of a volume below 5 GiB.
    pub disk_reserve_bytes: Option<u64>,
}

/// The raft group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Id of this node, from 1.
    pub node_id: u64,
    /// Where the peers reach it, `host:port`.
    pub node_address: String,
    /// Found a cluster when the folder is empty.
    pub auto_init: bool,
    /// A member to join through when the folder is empty.
    pub join_address: Option<String>,
    /// What peers prove to one another; without it the peer door serves loopback only.
    pub token: Option<Secret>,
}

/// What a read without `consistency=` gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// The applied state of this node.
    #[default]
    Local,
    /// A state that has everything acknowledged before the read began (ReadIndex).
    Linearizable,
}

impl Consistency {
    /// The value of the request parameter.
    pub fn parse(text: &str) -> Option<Consistency> {
        match text {
            "local" => Some(Consistency::Local),
            "linearizable" => Some(Consistency::Linearizable),
            _ => None,
        }
    }
}

/// The configuration store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Largest content, bytes.
    pub content_bytes_max: usize,
    /// History rows per config.
    pub history_max: u32,
    /// For reads that do not say.
    pub default_consistency: Consistency,
}

/// The service registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naming {
    /// Which checks of persistent instances are made.
    pub health_checks: HealthChecks,
    /// Networks that checks may ask although they are none of other machines.
    pub check_networks: Vec<Subnet>,
    /// Ports that checks may ask.
    pub check_ports: Vec<RangeInclusive<u16>>,
    /// Services with settings stay when they are empty.
    pub keep_empty_services: bool,
}

/// Which checks of persistent instances are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HealthChecks {
    /// None.
    #[default]
    Off,
    /// Those that only open a connection.
    Tcp,
    /// HTTP requests, too.
    All,
}

/// Logs, deadlines, metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// A write or linearizable read is answered within this.
    pub write_timeout: Duration,
    /// How long a stop may take.
    pub shutdown_timeout: Duration,
    /// Serve /metrics.
    pub metrics: bool,
    /// tracing's filter.
    pub log_filter: String,
    /// Form of a line.
    pub log_format: LogFormat,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Run the server.
    Serve,
    /// Show the settings in force and stop.
    PrintSettings,
    /// Look at, or repair, the data folder of a stopped node.
    Recover(Recover),
    /// Look at, or change, the membership of a running cluster.
    Cluster(ClusterCommand),
}

/// `rnacos cluster …`: what to ask, and whom.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct ClusterCommand {
    /// What to ask.
    #[command(subcommand)]
    pub ask: ClusterAsk,
    /// Ask this member first: its gRPC address (HTTP port + 1000). Otherwise the node of these settings
    /// (RNACOS_RAFT_NODE_ADDR), then the one it joined (RNACOS_RAFT_JOIN_ADDR). Whoever is asked sends
    /// on to the leader.
    #[arg(long, value_name = "HOST:PORT", global = true, value_parser = value::host_port)]
    pub at: Option<String>,
    /// Print one JSON object instead of text.
    #[arg(long, global = true)]
    pub json: bool,
}

/// What to ask of a running cluster.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum ClusterAsk {
    /// Show every member: role, term, how far it is, and what is wrong with it.
    Status,
    /// Say how node ID becomes a member at ADDRESS, or tell the cluster that it is there now.
    ///
    /// Nodes join by themselves (RNACOS_RAFT_JOIN_ADDR). For an id that is no member this says what to
    /// start; for a member it checks that the node answers at ADDRESS and makes that its address.
    Add {
        /// Node id.
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        id: u64,
        /// gRPC address of the node.
        #[arg(value_parser = value::host_port)]
        address: String,
    },
    /// Take a node out of the cluster, dead or alive, the leader too. It cannot come back with its data.
    Remove {
        /// Node id.
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        id: u64,
    },
    /// Hand leadership to node ID, or to the member that is furthest.
    Transfer {
        /// Node id.
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        id: Option<u64>,
    },
}

/// What to do with a damaged data folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum Recover {
    /// Say what the folder holds and what is wrong with it. Changes nothing.
    Inspect,
    /// Accept the loss of what the log can no longer give back, so that this node serves again.
    AcceptLoss {
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Make this node the only member of its cluster, when the others are gone for good.
    ForceSingle {
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// The command line besides the settings.
#[derive(Clone, Debug, Parser)]
#[command(name = "rnacos", version, about, long_about = None, after_help = EXAMPLES, disable_help_subcommand = true)]
struct Cli {
    /// File of KEY=VALUE lines; without it ./.env is read if it is there.
    #[arg(short = 'e', long, value_name = "FILE", global = true)]
    env_file: Option<PathBuf>,
    /// Show the settings in force, where each comes from, and stop.
    #[arg(long)]
    print_settings: bool,
    #[command(subcommand)]
    command: Option<CliCommand>,
}

#[derive(Clone, Debug, Subcommand)]
enum CliCommand {
    /// Look at, or repair, the data folder of a stopped node.
    #[command(subcommand)]
    Recover(Recover),
    /// Look at, or change, the membership of a running cluster.
    Cluster(ClusterCommand),
}

const EXAMPLES: &str = "\
Every setting may also stand in the environment or in an env file under its long name (RNACOS_...).
A flag wins over the environment, the environment over the file.

Examples:
  rnacos                                     one node, HTTP on 8848, data in ./nacos_db
  rnacos -e env01                            settings from a file
  rnacos --http-port 8849 --raft-node-id 2 --config-db-dir db02 \\
         --raft-node-addr 127.0.0.1:9849 --raft-join-addr 127.0.0.1:9848
                                             a second node that joins the first
  rnacos --print-settings                    what would be in force, and why
  rnacos recover inspect --data-dir db01     what a stopped node's folder holds
  rnacos -e env01 cluster status             every member of node 1's cluster
  rnacos cluster remove 3 --at 10.0.0.1:9848 take node 3 out";

/// A command line that was understood.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// What to do.
    pub action: Action,
    /// With which settings.
    pub settings: Settings,
    /// To be logged once logging runs: names nobody knows, settings that do nothing.
    pub warnings: Vec<String>,
    /// Text of `--print-settings`.
    pub printed: String,
}

/// Why there is no [`Invocation`].
#[derive(Debug)]
pub enum Refusal {
    /// The command line itself; also `--help` and `--version`, which clap treats alike. Print it with
    /// [`clap::Error::exit`].
    CommandLine(clap::Error),
    /// Values that are wrong.
    Mistakes(Mistakes),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::CommandLine(error) => error.fmt(f),
            Refusal::Mistakes(mistakes) => mistakes.fmt(f),
        }
    }
}

/// Reads the settings of this process.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn from_process() -> Result<Invocation, Refusal> {
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
        .collect();
    read(std::env::args_os(), environment, |path| {
        std::fs::read_to_string(path)
    })
}

/// Reads the settings of a process with these arguments (the first is its name), this environment, and
/// these files.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn read<A>(
    arguments: impl IntoIterator<Item = A>,
    environment: std::collections::BTreeMap<String, String>,
    read_file: impl Fn(&std::path::Path) -> std::io::Result<String>,
) -> Result<Invocation, Refusal>
where
    A: Into<std::ffi::OsString> + Clone,
{
    let matches = command()
        .try_get_matches_from(arguments)
        .map_err(Refusal::CommandLine)?;
    let cli = Cli::from_arg_matches(&matches).map_err(Refusal::CommandLine)?;
    let flags = SETTINGS.iter().filter_map(|setting| {
        let value = deepest(&matches, setting.name)?;
        Some((setting.name.to_owned(), value))
    });
    let mut sources = Sources::new(flags.collect(), environment);
    sources.add_file(cli.env_file.as_deref(), read_file);
    let settings = Settings::from_sources(&mut sources);
    let action = match cli.command {
        Some(CliCommand::Recover(recover)) => Action::Recover(recover),
        Some(CliCommand::Cluster(command)) => Action::Cluster(command),
        None if cli.print_settings => Action::PrintSettings,
        None => Action::Serve,
    };
    let (warnings, printed) = (sources.warnings(), sources.printed());
    sources.finish().map_err(Refusal::Mistakes)?;
    Ok(Invocation {
        action,
        settings,
        warnings,
        printed,
    })
}

/// The command line: what is derived above plus one flag per row of the table.
fn command() -> clap::Command {
    Cli::command().args(SETTINGS.iter().map(|setting| {
        Arg::new(setting.name)
            .long(setting.flag)
            .value_name(setting.value)
            .help(format!(
                "{} [default: {}] [env: {}]",
                setting.help, setting.default, setting.name
            ))
            .help_heading(setting.group)
            .global(true)
    }))
}

/// A flag may stand before or behind a subcommand.
fn deepest(matches: &clap::ArgMatches, name: &str) -> Option<String> {
    let below = matches
        .subcommand()
        .and_then(|(_, matches)| deepest(matches, name));
    below.or_else(|| matches.try_get_one::<String>(name).ok().flatten().cloned())
}

impl Settings {
    /// The settings of a process that was told nothing, but for `overrides` (name, value); for tests and
    /// tools that start a server in their own process.
    ///
    /// # Errors
    /// As [`read`].
    pub fn with(overrides: &[(&str, &str)]) -> Result<Settings, Mistakes> {
        let given = overrides
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let mut sources = Sources::new(given, std::collections::BTreeMap::new());
        let settings = Settings::from_sources(&mut sources);
        sources.finish().map(|()| settings)
    }

    /// Takes every setting, leaving mistakes in `sources`; the result means something only if there are none.
    fn from_sources(sources: &mut Sources) -> Settings {
        let network = network(sources);
        let storage = storage(sources);
        let cluster = cluster(sources, network.grpc_port);
        let config = config(sources);
        let naming = naming(sources);
        let operation = operation(sources);
        Settings {
            network,
            storage,
            cluster,
            config,
            naming,
            operation,
        }
    }
}

fn network(sources: &mut Sources) -> Network {
    let http_port = sources.take("RNACOS_HTTP_PORT", value::port, || 8848);
    let derived = if http_port == 0 {
        Some(0)
    } else {
        http_port.checked_add(GRPC_PORT_OFFSET)
    };
    let grpc_port = sources.take("RNACOS_GRPC_PORT", value::port, || derived.unwrap_or(0));
    if derived.is_none() && !sources.has("RNACOS_GRPC_PORT") {
        sources.mistake(
            "RNACOS_HTTP_PORT",
            "HTTP port + 1000 must be a port too: at most 64535, or set RNACOS_GRPC_PORT",
        );
    }
    if http_port == grpc_port && http_port != 0 {
        sources.mistake("RNACOS_GRPC_PORT", "a port other than the HTTP port is expected");
    }
    let certificate = sources.take_optional("RNACOS_GRPC_TLS_CERT_FILE", value::text);
    let key = sources.take_optional("RNACOS_GRPC_TLS_KEY_FILE", value::text);
    if certificate.is_some() != key.is_some() {
        let missing = match certificate {
            Some(_) => "RNACOS_GRPC_TLS_KEY_FILE",
            None => "RNACOS_GRPC_TLS_CERT_FILE",
        };
        sources.mistake(
            missing,
            "certificate and key belong together: RNACOS_GRPC_TLS_CERT_FILE and RNACOS_GRPC_TLS_KEY_FILE",
        );
    }
    let grpc_tls_required = sources.take("RNACOS_GRPC_TLS_REQUIRED", value::boolean, || false);
    if grpc_tls_required && certificate.is_none() && key.is_none() {
        sources.mistake(
            "RNACOS_GRPC_TLS_REQUIRED",
            "nobody can use TLS without a certificate: set RNACOS_GRPC_TLS_CERT_FILE and RNACOS_GRPC_TLS_KEY_FILE",
        );
    }
    let cores = || std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    Network {
        host: sources.take("RNACOS_SDK_HOST", value::ip, || IpAddr::from([0, 0, 0, 0])),
        http_port,
        grpc_port,
        workers: sources.take("RNACOS_HTTP_WORKERS", value::count, cores),
        connections_max: sources.take_optional("RNACOS_HTTP_CONNECTIONS_MAX", value::count),
        grpc_tls: certificate
            .zip(key)
            .map(|(certificate, key)| (certificate.into(), key.into())),
        grpc_tls_required,
    }
}

fn storage(sources: &mut Sources) -> Storage {
    let dir = sources.take("RNACOS_CONFIG_DB_DIR", value::text, || "nacos_db".to_owned());
    let dir = sources.take("RNACOS_DATA_DIR", value::text, || dir);
    Storage {
        dir: PathBuf::from(dir),
        disk_reserve_bytes: sources.take_optional("RNACOS_DISK_RESERVE", value::bytes),
    }
}

fn cluster(sources: &mut Sources, grpc_port: u16) -> Cluster {
    let node_id = sources.take("RNACOS_RAFT_NODE_ID", value::positive, || 1);
    let join_address = sources.take_optional("RNACOS_RAFT_JOIN_ADDR", value::host_port);
    let auto_init = sources.take("RNACOS_RAFT_AUTO_INIT", value::boolean, || {
        node_id == 1 && join_address.is_none()
    });
    if auto_init && join_address.is_some() {
        sources.mistake(
            "RNACOS_RAFT_AUTO_INIT",
            "a node either founds a cluster (RNACOS_RAFT_AUTO_INIT=true) or joins one (RNACOS_RAFT_JOIN_ADDR), not both",
        );
    }
    let node_address = sources.take("RNACOS_RAFT_NODE_ADDR", value::host_port, || {
        format!("127.0.0.1:{grpc_port}")
    });
    let token = sources.take_optional("RNACOS_CLUSTER_TOKEN", value::secret);
    Cluster {
        node_id,
        node_address,
        auto_init,
        join_address,
        token,
    }
}

fn config(sources: &mut Sources) -> Config {
    let content =
        |text: &str| value::bytes(text).and_then(|n| value::within(&n.to_string(), 1, CONTENT_BYTES_MAX));
    let history = |text: &str| value::within(text, 1, 10_000);
    let consistency =
        |text: &str| Consistency::parse(text).ok_or_else(|| "local or linearizable is expected".to_owned());
    let content_bytes_max = sources.take("RNACOS_CONFIG_MAX_CONTENT", content, || CONTENT_BYTES_MAX);
    let history_max = sources.take("RNACOS_CONFIG_HISTORY_MAX", history, || 100);
    Config {
        content_bytes_max: usize::try_from(content_bytes_max).unwrap_or(usize::MAX),
        history_max: u32::try_from(history_max).unwrap_or(u32::MAX),
        default_consistency: sources.take(
            "RNACOS_CONFIG_DEFAULT_CONSISTENCY",
            consistency,
            Consistency::default,
        ),
    }
}

fn naming(sources: &mut Sources) -> Naming {
    let checks = |text: &str| match text {
        "off" => Ok(HealthChecks::Off),
        "tcp" => Ok(HealthChecks::Tcp),
        "all" => Ok(HealthChecks::All),
        _ => Err("off, tcp or all is expected".to_owned()),
    };
    let keep = "RNACOS_NAMING_KEEP_EMPTY_SERVICES";
    Naming {
        health_checks: sources.take("RNACOS_NAMING_HEALTH_CHECKS", checks, HealthChecks::default),
        check_networks: sources.take("RNACOS_NAMING_HEALTH_CHECK_NETWORKS", value::networks, Vec::new),
        check_ports: sources.take("RNACOS_NAMING_HEALTH_CHECK_PORTS", value::port_ranges, || {
            vec![1..=u16::MAX]
        }),
        keep_empty_services: sources.take(keep, value::boolean, || false),
    }
}

fn operation(sources: &mut Sources) -> Operation {
    let timeout = |text: &str| value::within(text, 100, 60_000);
    let stop = |text: &str| value::within(text, 1, 600);
    let format = |text: &str| match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("text or json is expected".to_owned()),
    };
    Operation {
        write_timeout: Duration::from_millis(sources.take("RNACOS_WRITE_TIMEOUT_MS", timeout, || 2_500)),
        shutdown_timeout: Duration::from_secs(sources.take("RNACOS_SHUTDOWN_TIMEOUT_SECOND", stop, || 10)),
        metrics: sources.take("RNACOS_ENABLE_METRICS", value::boolean, || true),
        log_filter: sources.take("RUST_LOG", value::text, || "info".to_owned()),
        log_format: sources.take("RNACOS_LOG_FORMAT", format, LogFormat::default),
    }
}

#[cfg(test)]
mod tests;
