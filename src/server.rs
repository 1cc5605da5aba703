//! The server put together: every part in the order in which it needs the ones before it, and taken apart
//! in the reverse order. The only module that knows all others.

mod aside;
mod discovery;
mod feature_level;
mod formation;
mod health_checks;
mod housekeeping;
mod naming_sweep;
mod peers;
mod readdress;
mod removal;
mod tuning;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use raft::{Boot, Incarnation, NodeId};
use storage::{Folder, Opened};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;

use self::formation::{FOUNDER_LISTENS, Plan};
use self::health_checks::Checks;
use self::peers::Peers;
use self::removal::Removal;
pub use self::tuning::Tuning;
use crate::clock;
use crate::cluster::{ClusterToken, Credentials, Door, Identity, Kind, Links, Local, Transport};
use crate::consensus::{self, Handle, Node, NodeParts};
use crate::discovery::{Discovery, LinkEnd};
use crate::grpc::listener::{Limits, Listener, Unimplemented};
use crate::grpc::tls::{Files, Tls};
use crate::grpc::{self, Gateway};
use crate::push::{ConfigPush, NamingPush, UdpPush};
use crate::service::switches::Board;
use crate::service::{Parts, Services};
use crate::settings::Settings;
use crate::shutdown::Shutdown;
use crate::state::State;

/// A leader that stops hands leadership over first; it waits so long for the next one.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(3);

/// A running server.
#[derive(Debug)]
pub struct Server {
    http_address: SocketAddr,
    grpc_address: SocketAddr,
    handle: Handle,
    peers: Arc<Peers>,
    removed: watch::Receiver<Option<Removal>>,
    node_id: u64,
    shutdown_timeout: Duration,
    /// Connections of clients: they end first.
    clients: Shutdown,
    /// The core, its threads, and housekeeping.
    node: Shutdown,
    /// Connections of peers: they end last, so that a leader can hand over and an ack can leave.
    network: Shutdown,
    registry: Arc<Discovery>,
}

impl Server {
    /// Starts a server: takes the ports, forms or opens the data folder, starts the core, and answers.
    ///
    /// # Errors
    /// Whatever keeps it from serving, in words that name the next step. Nothing is left running.
    ///
    /// # Cancel safety
    /// Dropping it leaves a folder that the next start finishes.
    pub async fn start(settings: Settings) -> anyhow::Result<Server> {
        Box::pin(Server::start_tuned(settings, Tuning::default())).await
    }

    /// As [`Server::start`], with other limits inside.
    ///
    /// # Errors
    /// As [`Server::start`]; also limits that contradict one another.
    pub async fn start_tuned(mut settings: Settings, tuning: Tuning) -> anyhow::Result<Server> {
        let http = bind_http(settings.network.http_address()).await?;
        let http_address = http.local_addr()?;
        let tls = load_tls(&settings).await?;
        let listener = Listener::bind(settings.network.grpc_address(), Limits::default())?;
        let grpc_address = listener.local_address();
        if let Some(host) = settings.cluster.node_address.strip_suffix(":0") {
            settings.cluster.node_address = format!("{host}:{}", grpc_address.port());
        }
        let token = cluster_token(&settings);
        let (folder, listener) = form(&settings, &token, listener, tuning.feature_level).await?;
        let opened = open(folder, &settings).await?;

        let identity = opened.identity;
        let committed = opened.recovered.hard_state.commit;
        let local = Local::new(Identity {
            cluster_id: Some(opened.cluster_id),
            node_id: identity.id,
            incarnation: identity.incarnation,
            boot: identity.boot,
            feature_level: tuning.feature_level,
            address: settings.cluster.node_address.clone(),
        });
        let (clients, node, network) = (Shutdown::new(), Shutdown::new(), Shutdown::new());
        let peers = Peers::new(local.clone());
        let credentials = Credentials::new(token.clone(), Kind::Member, (*local.get()).clone());
        let transport = Transport::new(credentials.clone(), peers.clone(), network.clone());
        let tables = opened.tables.clone();
        let (state, reader) = blocking(move || State::open_knowing(tables, tuning.feature_level)).await??;
        let naming_push = NamingPush::new();
        let (subscribers, udp_push) = (Arc::clone(&naming_push), Arc::new(UdpPush::default()));
        let udp_subscribers = Arc::clone(&udp_push);
        let on_events = Box::new(move |events: Vec<_>| {
            udp_subscribers.on_events(&events);
            subscribers.on_events(events);
        });
        let folder = settings.storage.dir.clone();
        let registry = discovery::open(identity.id, folder, Arc::clone(&reader), on_events).await?;
        let links = Links::new(&transport, LinkEnd::of(&registry), network.clone());
        registry.attach(links.clone());
        let door = Door::new(
            local,
            token,
            peers.clone(),
            Some(transport.clone()),
            network.clone(),
        );
        let door = Arc::new(door.with_links(links));

        let (state_of, obeys) = (Arc::clone(&reader), Arc::clone(&registry));
        let board = blocking(move || Board::open(state_of, obeys)).await??;
        let checks = Checks::open(&settings.naming, Arc::clone(&registry), Arc::clone(&reader)).await?;
        let checked = checks.clone();
        let push = ConfigPush::new();
        let (changes, replicated) = (Arc::clone(&push), Arc::clone(&registry));
        let switched = Arc::clone(&board);
        let (core, handle, inbox) = Node::start(NodeParts {
            config: tuning.raft,
            identity,
            recovered: opened.recovered,
            seed: random_seed(),
            reader: opened.reader,
            writer: opened.writer,
            snapshots: opened.snapshots,
            state,
            transport: Arc::new(Wire(transport.clone())),
            compact_every_bytes: tuning.compact_every_bytes,
            on_change: Box::new(move |events| {
                discovery::on_change(&replicated, &events);
                checked.on_change(&events);
                switched.on_change(&events);
                changes.on_change(events);
            }),
            shutdown: node.clone(),
        })?;
        let log = core.log_metrics();
        peers.attach(handle.clone(), inbox, Arc::clone(&reader));
        drop(node.spawn(core.run()));
        node.spawn_while_running(Arc::clone(&push).run());
        let (removal, removed) = watch::channel(None);
        node.spawn_while_running(removal::watch(handle.clone(), transport.clone(), removal));
        node.spawn_while_running(readdress::announce(
            handle.clone(),
            transport.clone(),
            settings.cluster.node_address.clone(),
        ));
        node.spawn_while_running(housekeeping::trim_history(handle.clone(), reader.clone()));
        checks.start(handle.clone(), &node);
        node.spawn_while_running(naming_sweep::sweep(
            handle.clone(),
            Arc::clone(&reader),
            Arc::clone(&registry),
            settings.naming.keep_empty_services,
        ));
        node.spawn_while_running(feature_level::raise(
            handle.clone(),
            Arc::clone(&reader),
            Arc::clone(&peers),
            tuning.feature_level,
        ));

        node.spawn_while_running(Arc::clone(&registry).run());
        node.spawn_while_running(Arc::clone(&registry).keep());
        node.spawn_while_running(discovery::follow_members(handle.clone(), Arc::clone(&registry)));
        node.spawn_while_running(discovery::push(Arc::clone(&naming_push), Arc::clone(&registry)));
        let services = Arc::new(Services::new(Parts {
            consensus: handle.clone(),
            transport,
            credentials,
            feature_level: tuning.feature_level,
            state: reader,
            log,
            push,
            naming_push,
            udp_push,
            discovery: Arc::clone(&registry),
            board,
            stopping: clients.clone(),
            settings: &settings,
            http_port: http_address.port(),
            http: crate::http::counters(),
            grpc: Arc::new(grpc::counters()),
            log_lines_dropped: crate::telemetry::dropped_lines,
        }));
        peers.attach_services(&services);
        let gateway = Gateway::new(Arc::clone(&services), clients.clone());
        let connected = Arc::clone(gateway.registry());
        let watched = Arc::clone(services.naming_push());
        registry.set_hang_up(Box::new(move || {
            watched.on_reload();
            connected.close_all();
        }));
        let counters = Arc::clone(&services.metrics.grpc);
        if let Some(tls) = &tls {
            clients.spawn_while_running(Arc::clone(tls).follow());
        }
        let listener = listener.with_tls(tls);
        listener.serve(Some(door), gateway, counters, &clients, &network);
        let udp = UdpSocket::bind((http_address.ip(), 0)).await?;
        clients.spawn_while_running(Arc::clone(&services).serve_udp(udp));
        let starting = Arc::clone(&services);
        clients.spawn_while_running(async move { starting.readiness.run(&starting, committed).await });
        drop(clients.spawn(crate::http::serve(http, services, clients.clone())));
        tracing::info!(http = %http_address, grpc = %grpc_address, node = identity.id.0, boot = identity.boot.0, "serving");
        Ok(Server {
            http_address,
            grpc_address,
            handle,
            peers,
            removed,
            node_id: settings.cluster.node_id,
            shutdown_timeout: settings.operation.shutdown_timeout,
            clients,
            node,
            network,
            registry,
        })
    }

    /// Where HTTP is answered.
    pub fn http_address(&self) -> SocketAddr {
        self.http_address
    }

    /// Where peers (and SDKs over gRPC) are answered.
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc_address
    }

    /// The core.
    pub fn consensus(&self) -> &Handle {
        &self.handle
    }

    /// Completes when the server can serve no longer, with the reason and what to do.
    pub async fn failed(&self) -> String {
        let mut conflicts = self.peers.conflicts();
        let mut removed = self.removed.clone();
        let mut status = self.handle.status_changes();
        tokio::select! {
            Ok(conflict) = conflicts.wait_for(Option::is_some) => match &*conflict {
                Some(conflict) => formation::conflict_sentence(conflict, self.node_id, true),
                None => String::new(),
            },
            Ok(removal) = removed.wait_for(Option::is_some) => match &*removal {
                Some(removal) => removal.to_string(),
                None => String::new(),
            },
            // Its loop is gone without a word: nothing else would end this process then.
            status = status.wait_for(|status| status.failure.is_some()) => match status {
                Ok(status) => status.failure.clone().unwrap_or_default(),
                Err(_) => "the core has stopped".to_owned(),
            },
        }
    }

    /// Stops in order: a leader hands over, requests under way are answered, then the core and the
    /// connections to peers end. False when something did not end in time.
    pub async fn stop(self) -> bool {
        let Server {
            handle,
            clients,
            node,
            network,
            registry,
            shutdown_timeout,
            ..
        } = self;
        let status = handle.status();
        if status.leads() && status.raft.configuration.voters.len() > 1 && status.failure.is_none() {
            match handle.transfer(None, clock::now() + HAND_OVER_WITHIN).await {
                Ok(()) => tracing::info!("leadership handed over"),
                Err(refusal) => tracing::warn!(%refusal, "leadership not handed over: the others will elect"),
            }
        }
        clients.begin();
        let answered = clients.drained(shutdown_timeout).await;
        node.begin();
        let stopped = node.drained(shutdown_timeout).await;
        let closing = tokio::task::spawn_blocking(move || registry.close());
        if !matches!(tokio::time::timeout(shutdown_timeout, closing).await, Ok(Ok(()))) {
            tracing::warn!("what instances there are may not be on the disk: clients bring it back");
        }
        network.begin();
        let hung_up = network.drained(shutdown_timeout).await;
        if !(answered && stopped && hung_up) {
            tracing::warn!(answered, stopped, hung_up, "not everything ended in time");
        }
        answered && stopped && hung_up
    }
}

/// The transport, as the loop sees it.
struct Wire(Transport);

impl consensus::Transport for Wire {
    fn send(&self, to: NodeId, message: raft::Message) {
        self.0.send(to, message);
    }

    fn set_members(&self, configuration: &raft::Configuration) {
        self.0.set_members(configuration);
    }
}

/// Makes the folder a formed one; gives back the listener, which a founder uses meanwhile.
async fn form(
    settings: &Settings,
    token: &ClusterToken,
    mut grpc: Listener,
    feature_level: u32,
) -> anyhow::Result<(Folder, Listener)> {
    let dir = settings.storage.dir.clone();
    let mut folder = blocking(move || Folder::open(dir)).await??;
    match formation::plan(&folder, &settings.cluster)? {
        Plan::Open => {}
        Plan::Found {
            incarnation,
            cluster_id,
            begun,
        } => {
            if token.is_set() {
                grpc = listen_as_founder(settings, token, grpc, feature_level).await?;
            }
            formation::found(&mut folder, &settings.cluster, incarnation, cluster_id, begun)?;
        }
        Plan::Join { incarnation, begun } => {
            let joining = formation::Joining {
                incarnation,
                begun,
                feature_level,
            };
            formation::join(&mut folder, &settings.cluster, token, joining).await?;
        }
    }
    Ok((folder, grpc))
}

/// Listens for members of a living cluster that count this node as theirs (hazard R50). Answers nobody.
async fn listen_as_founder(
    settings: &Settings,
    token: &ClusterToken,
    grpc: Listener,
    feature_level: u32,
) -> anyhow::Result<Listener> {
    let address = grpc.local_address();
    let shutdown = Shutdown::new();
    let local = Local::new(Identity {
        cluster_id: None,
        node_id: NodeId(settings.cluster.node_id),
        incarnation: Incarnation(0),
        boot: Boot(0),
        feature_level,
        address: settings.cluster.node_address.clone(),
    });
    let peers = Peers::new(local.clone());
    let door = Arc::new(Door::new(
        local,
        token.clone(),
        peers.clone(),
        None,
        shutdown.clone(),
    ));
    grpc.serve_until(Some(door), Arc::new(Unimplemented), &shutdown);
    tracing::info!(
        seconds = FOUNDER_LISTENS.as_secs(),
        "empty folder: listening for a cluster that counts this node as a member before founding one"
    );
    let mut conflicts = peers.conflicts();
    let listed = tokio::time::timeout(FOUNDER_LISTENS, conflicts.wait_for(Option::is_some)).await;
    let conflict = listed
        .ok()
        .and_then(Result::ok)
        .and_then(|conflict| conflict.clone());
    shutdown.begin();
    shutdown.drained(Duration::from_secs(1)).await;
    match conflict {
        Some(conflict) => anyhow::bail!(formation::conflict_sentence(
            &conflict,
            settings.cluster.node_id,
            false
        )),
        None => Ok(Listener::bind(address, Limits::default())?),
    }
}

async fn open(folder: Folder, settings: &Settings) -> anyhow::Result<Opened> {
    let options = storage::Options {
        node_id: Some(NodeId(settings.cluster.node_id)),
        reserve_bytes: settings.storage.disk_reserve_bytes,
        ..storage::Options::default()
    };
    let opened = blocking(move || folder.start(options)).await??;
    for finding in &opened.findings {
        tracing::warn!("{finding}");
    }
    let dir = settings.storage.dir.clone();
    let kept = blocking(move || aside::bytes(&dir)).await?;
    if kept >= aside::TOLD_FROM_BYTES {
        tracing::warn!("{}", aside::sentence(kept));
    }
    if let Some(since) = opened.recovered.suspicion {
        tracing::error!(
            since_boot = since.0,
            "this node may have lost what it acknowledged: it counts for nothing until a leader has seen it catch up"
        );
    }
    Ok(opened)
}

async fn load_tls(settings: &Settings) -> anyhow::Result<Option<Arc<Tls>>> {
    let Some((certificates, key)) = settings.network.grpc_tls.clone() else {
        return Ok(None);
    };
    let loaded = blocking(move || Tls::load(Files { certificates, key })).await?;
    let required = settings.network.grpc_tls_required;
    let tls = loaded.context(
        "TLS of the gRPC port: correct or unset RNACOS_GRPC_TLS_CERT_FILE and RNACOS_GRPC_TLS_KEY_FILE",
    )?;
    Ok(Some(Arc::new(tls.required(required))))
}

async fn bind_http(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address} (HTTP port): stop the process that listens there, or set RNACOS_HTTP_PORT")
    })
}

fn cluster_token(settings: &Settings) -> ClusterToken {
    match &settings.cluster.token {
        Some(token) => ClusterToken::new(token.expose()),
        None => ClusterToken::unset(),
    }
}

/// Runs what waits for the disk on a thread of its own.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .context("a thread panicked while the server was starting")
}

fn random_seed() -> u64 {
    use rand::RngExt as _;
    rand::rng().random()
}
