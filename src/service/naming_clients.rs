//! Clients of the registry, as operators of Nacos 2 look at them: each connection is one, each instance that beats
//! is one (`ip:port#true`), and each that the replicated state keeps (`ip:port#false`).
//!
//! What a client publishes is known on every node. What it subscribes to is known where it is connected. Nothing
//! here is asked for by SDKs: the walks over all services give the registry to others every thousand names.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Services;
use super::naming_subscribers::Subscriber;
use crate::clock;
use crate::error::{Error, Result};
use crate::model::{Endpoint, ServiceKey};
use crate::naming::{Publisher, Stamp};
use crate::push::{NamingSession, Who};

/// A client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamingClientView {
    /// Its id.
    pub id: String,
    /// What it registers goes with it.
    pub ephemeral: bool,
    /// When it said something last, milliseconds since 1970.
    pub updated_ms: u64,
    /// The connection, as far as this node knows it; `None` for a client over HTTP, and one of another node has
    /// only its id.
    pub connection: Option<Option<Who>>,
}

impl Services {
    /// The ids of all clients. Walks all services.
    pub fn naming_client_ids(&self) -> BTreeSet<String> {
        let sessions = self.naming_push.sessions().into_iter();
        let mut ids: BTreeSet<String> = sessions.map(|session| session.who.id.to_string()).collect();
        ids.extend(
            self.udp_push
                .targets(clock::now())
                .iter()
                .map(|target| beating(target.ip(), target.port())),
        );
        self.scan_all(|registry, service| {
            let publishers = registry.publishers(service);
            ids.extend(publishers.map(|(endpoint, publisher, _)| id_of(endpoint, &publisher)));
        });
        ids
    }

    /// One client. Walks all services.
    ///
    /// # Errors
    /// There is none with this id.
    pub fn naming_client_view(&self, id: &str) -> Result<NamingClientView> {
        let session = self.session_of(id);
        let published = self.found_published(id);
        let newest = published.iter().map(|(_, _, since)| since.0).max();
        if newest.is_none() && session.is_none() && !self.is_listening(id) {
            return Err(unknown(id));
        }
        let is_connection = !id.ends_with("#true") && !id.ends_with("#false");
        Ok(NamingClientView {
            id: id.to_owned(),
            ephemeral: !id.ends_with("#false"),
            updated_ms: newest.unwrap_or_default(),
            connection: is_connection.then(|| session.map(|session| session.who.clone())),
        })
    }

    /// What a client publishes, by service. Walks all services.
    ///
    /// # Errors
    /// There is none with this id.
    pub fn published_by(&self, id: &str) -> Result<Vec<(ServiceKey, Endpoint)>> {
        let published = self.found_published(id);
        if published.is_empty() {
            self.naming_client_view(id)?;
        }
        let published = published.into_iter();
        Ok(published
            .map(|(service, endpoint, _)| (service, endpoint))
            .collect())
    }

    /// What a client subscribes to on this node, and as whom.
    ///
    /// # Errors
    /// There is none with this id.
    pub fn subscribed_by(&self, id: &str) -> Result<Vec<(ServiceKey, Who)>> {
        let Some(session) = self.session_of(id) else {
            // Over HTTP it is known by service alone.
            return self.naming_client_view(id).map(|_| Vec::new());
        };
        let services = self.naming_push.subscribed_by(id).into_iter();
        Ok(services.map(|service| (service, session.who.clone())).collect())
    }

    /// Who publishes an instance of a service.
    pub fn publishers_of(&self, service: &ServiceKey, ip: &str, port: u16) -> Vec<(String, Endpoint)> {
        let found: BTreeSet<_> = self.discovery.look(|registry, _| {
            let all = registry.publishers(service);
            let meant = all.filter(|(endpoint, ..)| *endpoint.ip == *ip && endpoint.port == port);
            meant
                .map(|(endpoint, publisher, _)| (id_of(endpoint, &publisher), endpoint.clone()))
                .collect()
        });
        found.into_iter().collect()
    }

    /// Who subscribes to a service on this node: those with an address, a port, or any.
    pub fn subscribers_at(
        &self,
        service: &ServiceKey,
        ip: Option<&str>,
        port: Option<u16>,
    ) -> Vec<Subscriber> {
        let mut all = self.subscribers(service);
        all.retain(|one| ip.is_none_or(|ip| one.ip == ip) && port.is_none_or(|port| one.port == port));
        all
    }

    fn session_of(&self, id: &str) -> Option<Arc<NamingSession>> {
        let mut sessions = self.naming_push.sessions().into_iter();
        sessions.find(|session| *session.who.id == *id)
    }

    fn is_listening(&self, id: &str) -> bool {
        let targets = self.udp_push.targets(clock::now());
        targets
            .iter()
            .any(|target| beating(target.ip(), target.port()) == id)
    }

    fn found_published(&self, id: &str) -> Vec<(ServiceKey, Endpoint, Stamp)> {
        let mut found: Vec<(ServiceKey, Endpoint, Stamp)> = Vec::new();
        self.scan_all(|registry, service| {
            for (endpoint, publisher, since) in registry.publishers(service) {
                let is_known = found
                    .last()
                    .is_some_and(|(other, place, _)| other == service && place == endpoint);
                if !is_known && is_called(endpoint, &publisher, id) {
                    found.push((service.clone(), endpoint.clone(), since));
                }
            }
        });
        found
    }
}

fn unknown(id: &str) -> Error {
    Error::NotFound(format!("clientId [ {id} ] not exist"))
}

fn beating(ip: impl std::fmt::Display, port: u16) -> String {
    format!("{ip}:{port}#true")
}

fn id_of(Endpoint { ip, port, .. }: &Endpoint, publisher: &Publisher) -> String {
    match publisher {
        Publisher::Beats => beating(ip, *port),
        Publisher::Persistent => format!("{ip}:{port}#false"),
        Publisher::Connection(id) => id.to_string(),
    }
}

/// As `id_of(..) == id`, with nothing made for those with another one: it is asked of every instance there is.
fn is_called(endpoint: &Endpoint, publisher: &Publisher, id: &str) -> bool {
    let end = match publisher {
        Publisher::Connection(own) => return **own == *id,
        Publisher::Beats => "#true",
        Publisher::Persistent => "#false",
    };
    let place = id.strip_suffix(end).and_then(|place| place.rsplit_once(':'));
    place.is_some_and(|(ip, port)| *ip == *endpoint.ip && port.parse() == Ok(endpoint.port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_name_their_clients() {
        let endpoint = Endpoint::new("10.0.0.1", 80, "c");
        let connection = Publisher::Connection("1_10.0.0.1_80".into());
        for (publisher, id) in [
            (Publisher::Beats, "10.0.0.1:80#true"),
            (Publisher::Persistent, "10.0.0.1:80#false"),
            (connection, "1_10.0.0.1_80"),
        ] {
            assert_eq!(id_of(&endpoint, &publisher), id);
            assert!(is_called(&endpoint, &publisher, id), "{id}");
            for other in [
                "",
                "10.0.0.1:81#true",
                "10.0.0.2:80#false",
                ":80#true",
                "10.0.0.1:x#true",
            ] {
                assert!(!is_called(&endpoint, &publisher, other), "{other}");
            }
        }
    }
}
