//! Instances that their clients keep alive: registering, beating, going, and finding them.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use super::Services;
use crate::discovery::{Act, Discovery, Done, Form, Readiness, What};
use crate::error::{Error, Result};
use crate::model::{Endpoint, NamespaceId, ServiceKey};
use crate::naming::{Filter, Instance, Kind, Metadata};

/// The name of a service as a client gave it.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServiceName<'a> {
    /// `namespaceId`; blank is `public`.
    pub namespace: Option<&'a str>,
    /// `groupName`; blank is `DEFAULT_GROUP`.
    pub group: Option<&'a str>,
    /// `serviceName`, which may be grouped itself.
    pub service: Option<&'a str>,
}

impl ServiceName<'_> {
    /// The service.
    ///
    /// # Errors
    /// A part is missing, or no name can have it.
    pub fn key(&self) -> Result<ServiceKey> {
        let service = self.service.ok_or(Error::missing("serviceName"))?;
        if service.trim().is_empty() {
            return Err(Error::Invalid("Param 'serviceName' is required.".to_owned()));
        }
        Ok(ServiceKey::of_client(
            &NamespaceId::from(self.namespace),
            self.group.unwrap_or_default(),
            service,
        ))
    }
}

/// An instance as a client gave it.
#[derive(Clone, Debug, Default)]
pub struct NewInstance<'a> {
    /// Address or host name.
    pub ip: Cow<'a, str>,
    /// 0 to 65,535.
    pub port: u16,
    /// Blank is `DEFAULT`.
    pub cluster: Cow<'a, str>,
    /// 0 to 10,000; `None`: 1.
    pub weight: Option<f64>,
    /// Readers see it; `None`: they do.
    pub enabled: Option<bool>,
    /// What the client attaches.
    pub metadata: Metadata,
}

impl NewInstance<'_> {
    /// Where it is and what it says.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(self) -> Result<(Endpoint, Instance)> {
        let weight = self.weight.unwrap_or(1.0);
        if !(0.0..=10_000.0).contains(&weight) {
            return Err(Error::Invalid(format!(
                "instance format invalid: The weights range from 0 to 10000, but {weight}"
            )));
        }
        let endpoint = Endpoint::new(&self.ip, self.port, &self.cluster);
        let instance = Instance {
            weight,
            enabled: self.enabled.unwrap_or(true),
            metadata: self.metadata,
        };
        Ok((endpoint, instance))
    }
}

impl Services {
    /// The running registry.
    pub fn discovery(&self) -> &Arc<Discovery> {
        &self.discovery
    }

    /// Registers an instance that beats, or says something new about it.
    ///
    /// # Errors
    /// The service holds persistent instances, or there is no room.
    pub async fn register(
        &self,
        service: ServiceKey,
        endpoint: Endpoint,
        instance: Instance,
        healthy: bool,
    ) -> Result<()> {
        let what = What::Register {
            instance: Arc::new(instance),
            healthy,
        };
        self.act(service, endpoint, what).await.map(drop)
    }

    /// Takes an instance that beats away, known or not.
    ///
    /// # Errors
    /// None for now but those of every act.
    pub async fn deregister(&self, service: ServiceKey, endpoint: Endpoint) -> Result<()> {
        self.act(service, endpoint, What::Deregister).await.map(drop)
    }

    /// A beat; `full` is what a full beat says. The interval in which the client is to beat, ms; `None`: the
    /// instance is not known, and the client registers.
    ///
    /// # Errors
    /// As [`Services::register`].
    pub async fn beat(
        &self,
        service: ServiceKey,
        endpoint: Endpoint,
        full: Option<Instance>,
    ) -> Result<Option<u64>> {
        let full = full.map(Arc::new);
        match self.act(service, endpoint, What::Beat { full }).await? {
            Done::Beat { interval_ms } => Ok(Some(interval_ms)),
            _ => Ok(None),
        }
    }

    async fn act(&self, service: ServiceKey, endpoint: Endpoint, what: What) -> Result<Done> {
        let act = Act {
            service,
            endpoint,
            what,
        };
        let named = act.service.grouped().to_owned();
        match self.discovery.handle(act).await {
            Done::WrongKind(holds) => Err(wrong_kind(&named, holds)),
            Done::Full => Err(Error::Overloaded(
                "this node holds as many instances as it may".to_owned(),
            )),
            Done::NotHere => Err(Error::Unavailable("the registry of this node begins".to_owned())),
            done @ (Done::Yes | Done::Beat { .. } | Done::UnknownBeat) => Ok(done),
        }
    }

    /// The JSON of a service as readers get it (contract 03 §3, 01 §5.2); ready bytes while nothing changes.
    ///
    /// # Errors
    /// This node does not know yet what there is; asking again is safe.
    pub fn query(&self, service: &ServiceKey, filter: &Filter, form: Form) -> Result<Bytes> {
        self.naming_is_ready()?;
        Ok(self.discovery.query(service, filter, form))
    }

    /// Whether readers of the registry may be answered.
    ///
    /// # Errors
    /// Not yet, in words.
    pub fn naming_is_ready(&self) -> Result<()> {
        match self.discovery.readiness() {
            Readiness::Ready => Ok(()),
            Readiness::Loading => Err(Error::Unavailable(
                "server is STARTING now, the registry is being loaded, please try again later!".to_owned(),
            )),
            Readiness::AwaitingClients => Err(Error::Unavailable(
                "server is STARTING now, clients are coming back, please try again later!".to_owned(),
            )),
        }
    }
}

fn wrong_kind(service: &str, holds: Kind) -> Error {
    let (other, kind) = match holds {
        Kind::Ephemeral => ("persistent", "ephemeral"),
        Kind::Persistent => ("ephemeral", "persistent"),
    };
    Error::Invalid(format!(
        "Current service {service} is {kind} service, can't register {other} instance."
    ))
}
