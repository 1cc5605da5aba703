//! Clients that are connected over gRPC, as operators see and move them. Who they are is known to the
//! adapter; it tells this module through [`Connected`], so that other adapters can ask.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Services;
use crate::cluster::BoxFuture;
use crate::error::{Error, Result};
use crate::seeded::{self, Bug};

/// A registered client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectedClient {
    /// `<epochMillis>_<remoteIp>_<remotePort>`
    pub id: String,
    /// The client's own idea of its address.
    pub client_ip: String,
    /// Where the connection comes from.
    pub remote: std::net::SocketAddr,
    /// For example `Nacos-Java-Client:v2.5.1`.
    pub version: String,
    /// Name of its application; may be empty.
    pub app_name: String,
    /// The namespace as the client spells it.
    pub namespace: String,
    /// Labels it gave.
    pub labels: Vec<(String, String)>,
    /// When it was registered, milliseconds since 1970.
    pub registered_ms: i64,
    /// When it was heard last, milliseconds since 1970.
    pub heard_ms: i64,
}

/// Another node, as clients know it: its address and its HTTP port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Clients go there only if it is in their list of servers.
    pub ip: String,
    /// The main port.
    pub port: u16,
}

impl Destination {
    /// From `ip:port`.
    fn parse(text: &str) -> Option<Destination> {
        let (ip, port) = text.rsplit_once(':')?;
        let ip = ip.trim_start_matches('[').trim_end_matches(']');
        let ip: IpAddr = ip.parse().ok()?;
        Some(Destination {
            ip: ip.to_string(),
            port: port.parse().ok()?,
        })
    }
}

/// A question to clients: what do they hold?
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metered {
    /// Address of the clients, as they tell it or as it is seen.
    pub ip: String,
    /// Keys of the config that is asked for (`dataId+group+namespace`), in each spelling that a client may have for
    /// it; none: only about the clients themselves.
    pub keys: Vec<String>,
}

/// The adapter that has the clients.
pub trait Connected: Debug + Send + Sync {
    /// How many are registered.
    fn count(&self) -> usize;

    /// Asks those with an address what they hold of configs, and gives what they say, by whatever they call it.
    /// One that does not answer soon is left out.
    fn metrics<'a>(&'a self, asked: &'a Metered) -> BoxFuture<'a, BTreeMap<String, Value>>;

    /// Everybody who is registered.
    fn list(&self) -> Vec<ConnectedClient>;

    /// Asks one to connect elsewhere. False: nobody is called so.
    fn move_one(&self, id: &str, to: Option<&Destination>) -> bool;

    /// Asks as many as are more than `keep` to connect elsewhere, a few at a time; says how many.
    fn move_all_but(&self, keep: usize, to: Option<&Destination>) -> usize;
}

impl Services {
    /// From now on these are the clients. The first call counts.
    pub fn set_clients(&self, clients: std::sync::Arc<dyn Connected>) {
        // A second adapter with clients of its own would need a list here.
        let _first = self.clients.set(clients);
    }

    /// Everybody who is connected to this node over gRPC.
    pub fn connected_clients(&self) -> Vec<ConnectedClient> {
        self.clients.get().map_or_else(Vec::new, |clients| clients.list())
    }

    /// How many are connected to this node over gRPC.
    pub fn connected_count(&self) -> usize {
        self.clients.get().map_or(0, |clients| clients.count())
    }

    /// What the clients of this node with an address say of themselves.
    pub async fn client_metrics_here(&self, asked: &Metered) -> BTreeMap<String, Value> {
        match self.clients.get() {
            Some(clients) if !seeded::has(Bug::ClientsUnasked) => clients.metrics(asked).await,
            _ => BTreeMap::new(),
        }
    }

    /// Asks one client to connect elsewhere.
    ///
    /// # Errors
    /// Nobody is called so, or `to` is no address.
    pub fn move_client(&self, id: &str, to: Option<&str>) -> Result<()> {
        let to = destination(to)?;
        let clients = self.clients.get();
        match clients.is_some_and(|clients| clients.move_one(id, to.as_ref())) {
            true => Ok(()),
            false => Err(Error::NotFound(format!("no client is connected as {id}"))),
        }
    }

    /// Asks as many clients as are more than `keep` to connect elsewhere; says how many.
    ///
    /// # Errors
    /// `to` is no address.
    pub fn move_clients(&self, keep: usize, to: Option<&str>) -> Result<usize> {
        let to = destination(to)?;
        let clients = self.clients.get();
        Ok(clients.map_or(0, |clients| clients.move_all_but(keep, to.as_ref())))
    }
}

/// True for `ip:port`, where clients can be sent.
pub(super) fn is_address(text: &str) -> bool {
    Destination::parse(text).is_some()
}

fn destination(text: Option<&str>) -> Result<Option<Destination>> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let destination = Destination::parse(text);
    destination
        .map(Some)
        .ok_or_else(|| Error::Invalid(format!("redirectAddress {text:?} is not ip:port")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_addresses_with_a_port() {
        let parse = |text| Destination::parse(text).map(|to| (to.ip, to.port));
        assert_eq!(parse("10.0.0.1:8848"), Some(("10.0.0.1".to_owned(), 8848)));
        assert_eq!(parse("[::1]:1"), Some(("::1".to_owned(), 1)));
        for wrong in ["10.0.0.1", "host:8848", ":1", "10.0.0.1:99999", ""] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
