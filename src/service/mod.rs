//! Use cases: what the server does, whoever asks in whatever protocol.
//!
//! Adapters (HTTP now, gRPC later) parse and render; everything between stands here. Requests are plain
//! values, answers too; a [`Caller`] says who asks.

pub mod clients;
mod cluster_metrics;
pub mod config;
mod freshness;
pub mod fuzzy;
pub mod health;
pub mod listen;
mod listening;
pub mod metrics;
pub mod namespace;
pub mod naming;
pub mod naming_admin;
pub mod naming_client;
pub mod naming_clients;
pub mod naming_lists;
mod naming_metrics;
pub mod naming_subscribers;
pub mod naming_udp;
pub mod naming_watch;
pub mod nodes;
pub mod readiness;
pub mod switches;
pub mod watch;

use std::sync::Arc;
use std::time::Duration;

use storage::WriterMetrics;
use tokio::time::Instant;

use crate::clock;
use crate::cluster::{Credentials, Transport};
use crate::consensus::{self, Handle, ProposeError};
use crate::discovery::Discovery;
use crate::error::{Error, Result};
use crate::metrics::{Grpc, Http};
use crate::push::{ConfigPush, NamingPush, UdpPush};
use crate::settings::{self, Settings};
use crate::shutdown::Shutdown;
use crate::state::{Command, Outcome, Reader};
use freshness::Freshness;
use readiness::Readiness;

/// Who asks, and from where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Name of the user; empty while nobody logs in.
    pub user: String,
    /// Address of the client, as it or a proxy tells it.
    pub ip: String,
}

/// Everything adapters call. One per server, shared by all connections.
#[derive(Debug)]
pub struct Services {
    consensus: Handle,
    /// The way to the other nodes, for metrics.
    transport: Transport,
    /// As what this node asks others.
    credentials: Credentials,
    /// Highest feature level this server knows.
    feature_level: u32,
    state: Arc<Reader>,
    log: Arc<WriterMetrics>,
    /// Who listens to which config.
    push: Arc<ConfigPush>,
    /// Who subscribes to which service.
    naming_push: Arc<NamingPush>,
    /// Who is told of changes of services over UDP.
    udp_push: Arc<UdpPush>,
    /// The registry.
    discovery: Arc<Discovery>,
    /// What an operator turns while the node runs.
    board: Arc<switches::Board>,
    freshness: Freshness,
    /// Whether what the log says may be told.
    pub readiness: Arc<Readiness>,
    /// Ends what waits for changes.
    stopping: Shutdown,
    /// Who is connected over gRPC, once that adapter is there.
    clients: std::sync::OnceLock<Arc<dyn clients::Connected>>,
    /// Counters of the hot paths.
    pub metrics: Metrics,
    /// Bound of the HTTP connections; `None`: what the open-file limit leaves.
    pub connections_max: Option<usize>,
    config: settings::Config,
    /// A write or linearizable read is answered within this.
    write_timeout: Duration,
    metrics_enabled: bool,
    http_port: u16,
    /// Host or address by which other nodes, and so clients, reach this one.
    host: String,
    log_lines_dropped: fn() -> u64,
    started: Instant,
}

/// Counters that requests touch.
#[derive(Debug)]
pub struct Metrics {
    /// Of the HTTP door.
    pub http: Http,
    /// Of the gRPC port, which counts from before the services are there.
    pub grpc: Arc<Grpc>,
}

/// What [`Services`] is made of.
#[derive(Debug)]
pub struct Parts<'a> {
    /// Writes and linearizable reads go here.
    pub consensus: Handle,
    /// The way to the other nodes, for metrics.
    pub transport: Transport,
    /// As what this node asks others.
    pub credentials: Credentials,
    /// Highest feature level this server knows.
    pub feature_level: u32,
    /// Local reads go here.
    pub state: Arc<Reader>,
    /// Numbers of the log writer.
    pub log: Arc<WriterMetrics>,
    /// Who listens to which config; told of changes by the applier.
    pub push: Arc<ConfigPush>,
    /// Who subscribes to which service; told of changes by the registry.
    pub naming_push: Arc<NamingPush>,
    /// Who is told of changes of services over UDP.
    pub udp_push: Arc<UdpPush>,
    /// The registry.
    pub discovery: Arc<Discovery>,
    /// What an operator turns while the node runs.
    pub board: Arc<switches::Board>,
    /// Given when clients are to go: long polls are then answered at once.
    pub stopping: Shutdown,
    /// The settings in force.
    pub settings: &'a Settings,
    /// The port HTTP listens on (the setting may be 0).
    pub http_port: u16,
    /// Counters of the HTTP door, one per route (`http::counters`).
    pub http: Http,
    /// Counters of the gRPC port (`grpc::counters`).
    pub grpc: Arc<Grpc>,
    /// Lines of the text log dropped so far.
    pub log_lines_dropped: fn() -> u64,
}

impl Services {
    /// Puts the parts together.
    pub fn new(parts: Parts<'_>) -> Services {
        let settings = parts.settings;
        Services {
            consensus: parts.consensus,
            transport: parts.transport,
            credentials: parts.credentials,
            feature_level: parts.feature_level,
            state: parts.state,
            log: parts.log,
            push: parts.push,
            naming_push: parts.naming_push,
            udp_push: parts.udp_push,
            discovery: parts.discovery,
            board: parts.board,
            freshness: Freshness::default(),
            readiness: Arc::default(),
            stopping: parts.stopping,
            clients: std::sync::OnceLock::new(),
            metrics: Metrics {
                http: parts.http,
                grpc: parts.grpc,
            },
            connections_max: settings.network.connections_max,
            config: settings.config,
            write_timeout: settings.operation.write_timeout,
            metrics_enabled: settings.operation.metrics,
            http_port: parts.http_port,
            host: host_of(&settings.cluster.node_address).to_owned(),
            log_lines_dropped: parts.log_lines_dropped,
            started: clock::now(),
        }
    }

    /// `host:port` of the HTTP port, as clients reach it.
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.http_port)
    }

    /// The HTTP port.
    pub fn http_port(&self) -> u16 {
        self.http_port
    }

    /// Has a command applied; what came of it is already visible to reads on this node.
    async fn propose(&self, command: Command) -> Result<Outcome> {
        let deadline = clock::now() + self.write_timeout;
        Ok(self.consensus.propose(command, deadline).await?)
    }

    /// Makes sure that a local read sees everything acknowledged before now, when that is wanted.
    ///
    /// # Errors
    /// No leader with a majority was heard in time. Reading again is safe.
    pub async fn catch_up(&self) -> Result<()> {
        let deadline = clock::now() + self.write_timeout;
        Ok(self.consensus.read_index(deadline).await?)
    }

    /// True when this node has applied anything: it is a member that was here before, not one whose first
    /// snapshot has yet to come.
    pub fn has_data(&self) -> bool {
        self.consensus.applied().0 > 0
    }

    /// True when a read that says nothing is to be linearizable.
    pub fn reads_are_linearizable(&self) -> bool {
        self.config.default_consistency == settings::Consistency::Linearizable
    }
}

fn host_of(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

impl From<ProposeError> for Error {
    /// IMPORTANT: everything but `Unknown` is definite. A client told "unavailable" relies on it.
    fn from(error: ProposeError) -> Error {
        let text = error.to_string();
        match error {
            ProposeError::NoLeader
            | ProposeError::Stopping
            | ProposeError::LowOnSpace
            | ProposeError::Failed(_) => Error::Unavailable(text),
            ProposeError::Overloaded => Error::Overloaded(text),
            ProposeError::TooLarge => Error::TooLarge(text),
            ProposeError::Unknown => Error::Indeterminate(text),
        }
    }
}

impl From<consensus::ReadError> for Error {
    fn from(error: consensus::ReadError) -> Error {
        match error {
            consensus::ReadError::NoLeader | consensus::ReadError::Stopping => {
                Error::Unavailable(error.to_string())
            }
            consensus::ReadError::Overloaded => Error::Overloaded(error.to_string()),
        }
    }
}
