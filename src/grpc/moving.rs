//! Sending clients to other nodes: `ConnectResetRequest`.
//!
//! It is a request: the client builds a new connection first and closes this one then, so for a moment it is
//! registered twice. One that does not go is not forced to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use proto::nacos::remote::ConnectResetRequest;
use serde_json::Value;
use tokio::time::sleep;

use super::connection::{Client, Registry};
use super::metering;
use crate::clock;
use crate::cluster::BoxFuture;
use crate::service::clients::{Connected, ConnectedClient, Destination, Metered};

/// Clients that are sent away together: whoever they go to has to take them.
const BATCH: usize = 100;
/// Between two batches.
const PAUSE: Duration = Duration::from_millis(200);

impl Client {
    /// Asks it to connect to another node. False: it could not be told.
    pub fn ask_to_move(&self, to: Option<&Destination>) -> bool {
        let told = self.push_unacknowledged(|id| ConnectResetRequest {
            request_id: Some(id),
            server_ip: to.map(|to| to.ip.as_str().into()),
            server_port: to.map(|to| to.port.to_string().into()),
            connection_id: Some((&*self.id).into()),
            ..ConnectResetRequest::default()
        });
        told.is_ok()
    }

    fn as_connected(&self) -> ConnectedClient {
        let labels = self.setup.labels.iter();
        ConnectedClient {
            id: self.id.to_string(),
            client_ip: self.setup.client_ip.to_string(),
            remote: self.remote,
            version: self.setup.version.to_string(),
            app_name: self.setup.app_name.to_string(),
            namespace: self.setup.namespace.to_string(),
            labels: labels
                .map(|(label, value)| (label.to_string(), value.to_string()))
                .collect(),
            registered_ms: self.registered_ms,
            heard_ms: clock::wall_ms() - i64::try_from(self.silent_ms()).unwrap_or(i64::MAX),
        }
    }
}

impl Connected for Registry {
    fn list(&self) -> Vec<ConnectedClient> {
        self.clients()
            .iter()
            .map(|client| client.as_connected())
            .collect()
    }

    fn count(&self) -> usize {
        self.len()
    }

    fn metrics<'a>(&'a self, asked: &'a Metered) -> BoxFuture<'a, BTreeMap<String, Value>> {
        Box::pin(metering::config_metrics(self, asked))
    }

    fn move_one(&self, id: &str, to: Option<&Destination>) -> bool {
        let Some(client) = self.find(id) else { return false };
        self.metrics().resets.fetch_add(1, Relaxed);
        client.ask_to_move(to)
    }

    fn move_all_but(&self, keep: usize, to: Option<&Destination>) -> usize {
        let mut clients = self.clients();
        // Those that came last go first: they have the least to take along.
        clients.sort_by_key(|client| client.registered_ms);
        let leaving = clients.split_off(keep.min(clients.len()));
        let count = leaving.len();
        let (metrics, to) = (Arc::clone(self.metrics()), to.cloned());
        self.stopping().spawn_while_running(async move {
            for batch in leaving.chunks(BATCH) {
                for client in batch {
                    metrics.resets.fetch_add(1, Relaxed);
                    client.ask_to_move(to.as_ref());
                }
                sleep(PAUSE).await;
            }
        });
        count
    }
}
