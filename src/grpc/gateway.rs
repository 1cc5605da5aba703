//! What all client connections of a node share.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tracing::warn;

use super::body::{BODIES_BYTES_MAX, Budget};
use super::connection::{Client, Registry};
use super::conversation::Conversation;
use super::dispatch::Table;
use super::handlers;
use super::line::Line;
use super::listener::{Guest, Handler};
use crate::clock;
use crate::cluster::Failures;
use crate::metrics::Grpc;
use crate::service::Services;
use crate::service::readiness::Readiness;
use crate::shutdown::Shutdown;

/// Serves SDKs: what the connections of a node's clients share.
pub struct Gateway {
    /// `None` in tests of what stands below the handlers.
    services: Option<Arc<Services>>,
    pub(super) registry: Arc<Registry>,
    pub(super) table: Table,
    pub(super) readiness: Arc<Readiness>,
    pub(super) metrics: Arc<Grpc>,
    /// Room for requests that are read.
    pub(super) bodies: Budget,
    /// Clients are served until this begins.
    pub(super) stopping: Shutdown,
    /// Whose nonsense was logged lately.
    nonsense: Failures<IpAddr>,
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").finish_non_exhaustive()
    }
}

/// Counters of the gRPC port, one for each type of request that has a handler.
pub fn counters() -> Grpc {
    Grpc::new(handlers::rows().map(|row| row.name))
}

impl Gateway {
    /// Serves the use cases of `services` until `stopping` begins.
    pub fn new(services: Arc<Services>, stopping: Shutdown) -> Arc<Gateway> {
        let metrics = services.metrics.grpc.clone();
        let table = Table::new(handlers::rows());
        let gateway = Gateway::with(Some(services.clone()), table, metrics, stopping);
        services.set_clients(gateway.registry.clone());
        gateway
    }

    pub(super) fn with(
        services: Option<Arc<Services>>,
        table: Table,
        metrics: Arc<Grpc>,
        stopping: Shutdown,
    ) -> Arc<Gateway> {
        let gateway = Arc::new(Gateway {
            registry: Arc::new(Registry::new(metrics.clone(), stopping.clone())),
            table,
            readiness: services
                .as_ref()
                .map(|services| Arc::clone(&services.readiness))
                .unwrap_or_default(),
            metrics,
            bodies: Budget::new(BODIES_BYTES_MAX),
            stopping,
            nonsense: Failures::new(),
            services,
        });
        let watched = gateway.clone();
        gateway
            .stopping
            .spawn_while_running(super::detection::watch(watched));
        gateway
    }

    /// The use cases.
    pub(super) fn services(&self) -> &Arc<Services> {
        match &self.services {
            Some(services) => services,
            None => unreachable!("a handler that needs services is in the table of a server that has them"),
        }
    }

    /// A client has registered, and has been told so.
    pub(super) fn registered(&self, client: &Arc<Client>) {
        if self.services.is_some() {
            handlers::registered(client, self);
        }
    }

    /// A client is asked to go: its stream ends after this.
    pub(super) fn parting(&self, client: &Client) {
        if self.services.is_some() {
            handlers::parting(client);
        }
    }

    /// Every registered client.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Counts what a client sent and nobody could read, and says so once a minute for each source.
    pub(super) fn malformed(&self, remote: SocketAddr, why: &dyn fmt::Display) {
        self.metrics.malformed.fetch_add(1, Relaxed);
        self.complain(remote, "sent what cannot be read", why);
    }

    /// Says once a minute for each source what a client does wrong.
    pub(super) fn complain(&self, remote: SocketAddr, what: &str, why: &dyn fmt::Display) {
        if let Some(silent) = self.nonsense.note(remote.ip(), clock::now()) {
            warn!(%remote, silent, "a client {what}: {why}");
        }
    }
}

impl Handler for Gateway {
    fn open(self: Arc<Self>, line: &Arc<Line>) -> Arc<dyn Guest> {
        Conversation::new(self, line.clone())
    }
}
