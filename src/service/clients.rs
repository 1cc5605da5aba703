//! Clients that are connected over gRPC, as operators see and move them. Who they are is known to the
//! adapter; it tells this module through [`Connected`], so that other adapters can ask.

use std::fmt::Debug;
use std::net::IpAddr;

use super::Services;
use crate::error::{Error, Result};

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

/// The adapter that has the clients.
pub trait Connected: Debug + Send + Sync {
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
