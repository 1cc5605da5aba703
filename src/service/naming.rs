//! Instances that their clients keep alive: registering, beating, going, and finding them.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use super::Services;
use crate::discovery::{Act, Discovery, Done, Form, Readiness, What};
use crate::error::{Error, NamingRefusal, Result};
use crate::model::{Endpoint, NamespaceId, ServiceKey, validate};
use crate::naming::{BEAT_INTERVAL_MS, Filter, Instance, Kind, Metadata, Registry};
use crate::seeded::{self, Bug};

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
        let service = self.service.unwrap_or_default().trim();
        if service.is_empty() {
            return Err(Error::Missing {
                name: "serviceName",
                kind: "",
            });
        }
        let namespace = self.namespace.unwrap_or_default().trim();
        validate::namespace_id(namespace).map_err(illegal)?;
        let namespace = match namespace {
            "public" if seeded::has(Bug::PublicApart) => "public-apart",
            namespace => namespace,
        };
        let group = match self.group.unwrap_or_default() {
            _ if seeded::has(Bug::GroupsMixed) => "",
            group => group,
        };
        let key = ServiceKey::of_client(&NamespaceId::new(namespace), group, service);
        validate::group(key.group()).map_err(illegal)?;
        validate::service_name(key.name()).map_err(illegal)?;
        if key.name().is_empty() {
            // `group@@`
            return Err(not_grouped());
        }
        Ok(key)
    }
}

/// What stands in for `group@@service` is nothing of the kind.
pub fn not_grouped() -> Error {
    Error::Invalid(
        "Param 'serviceName' is illegal, it should be format as 'groupName@@serviceName'".to_owned(),
    )
}

fn illegal(invalid: validate::Invalid) -> Error {
    Error::Illegal(invalid.to_string())
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
        let endpoint = self.endpoint()?;
        validate::host(&endpoint.ip).map_err(illegal)?;
        let mut instance = Instance {
            weight: weight(self.weight.unwrap_or(1.0))?,
            enabled: self.enabled.unwrap_or(true),
            metadata: self.metadata,
        };
        if seeded::has(Bug::WordsLost) {
            instance.weight = 1.0;
            instance.metadata = Metadata::default();
        }
        check_metadata(&instance.metadata)?;
        // Registration is stricter than reading.
        if endpoint.cluster.contains('_') {
            return Err(Error::Invalid(format!(
                "Instance 'clusterName' should be characters with only 0-9a-zA-Z-. (current: {})",
                endpoint.cluster
            )));
        }
        let interval_ms = instance.beat_interval_ms().unwrap_or(BEAT_INTERVAL_MS);
        if instance.beat_timeout_ms() < interval_ms || instance.delete_timeout_ms() < interval_ms {
            return Err(Error::Invalid(
                "Instance 'heart beat interval' must less than 'heart beat timeout' and 'ip delete timeout'."
                    .to_owned(),
            ));
        }
        Ok((endpoint, instance))
    }

    /// Where it is.
    ///
    /// # Errors
    /// No instance can be there.
    pub fn endpoint(&self) -> Result<Endpoint> {
        if self.ip.trim().is_empty() {
            return Err(Error::Missing { name: "ip", kind: "" });
        }
        let endpoint = Endpoint::new(&self.ip, self.port, &self.cluster);
        validate::ip(&endpoint.ip).map_err(illegal)?;
        check_cluster(&endpoint.cluster)?;
        Ok(endpoint)
    }
}

/// The instance that a client takes away.
#[derive(Clone, Debug)]
pub struct Leaving {
    /// Where it is.
    pub endpoint: Endpoint,
    /// No cluster was named: the place is that in the default one. If there is none, the instance of the address is
    /// meant in whatever clusters it is.
    pub anywhere: bool,
    /// What the client takes it for, if it says so. Nothing comes of the wrong word, as recorded.
    pub kind: Option<Kind>,
}

/// A weight that an instance may have: one that is nearly nothing still takes some traffic, as in Nacos.
///
/// # Errors
/// No instance may have it.
pub fn weight(given: f64) -> Result<f64> {
    if !(0.0..=10_000.0).contains(&given) {
        return Err(Error::Naming {
            refusal: NamingRefusal::Weight,
            text: "instance format invalid: The weights range from 0.0 to 10000.0".to_owned(),
        });
    }
    let least = if given > 0.0 { 0.01 } else { 0.0 };
    Ok(given.max(least))
}

/// The name of one cluster.
///
/// # Errors
/// No cluster has such a name.
pub fn check_cluster(name: &str) -> Result<()> {
    if name.contains(',') {
        return Err(illegal(validate::Invalid::IllegalCharacters { name: "cluster" }));
    }
    validate::clusters(name).map_err(illegal)
}

/// Metadata of a size that a service or an instance may have.
///
/// # Errors
/// It is too much.
pub fn check_metadata(metadata: &Metadata) -> Result<()> {
    validate::metadata(metadata.iter()).map_err(illegal)
}

/// The clusters and the health that a reader asks for.
///
/// # Errors
/// No cluster has such a name.
pub fn filter(clusters: &str, healthy_only: bool) -> Result<Filter> {
    validate::clusters(clusters).map_err(illegal)?;
    Ok(Filter {
        clusters: match clusters {
            _ if seeded::has(Bug::ClustersIgnored) => Box::default(),
            clusters => clusters.into(),
        },
        healthy_only,
        with_disabled: seeded::has(Bug::DisabledShown),
    })
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
        mut instance: Instance,
        healthy: bool,
    ) -> Result<()> {
        let look = |registry: &Registry, _| wrong_redo(registry, &service, &endpoint, &mut instance);
        if redoes_wrong() && self.discovery.look(look) {
            return Ok(());
        }
        let what = What::Register {
            instance: Arc::new(instance),
            healthy,
        };
        self.act(service, endpoint, what).await.map(drop)
    }

    /// Takes an instance away, known or not.
    ///
    /// # Errors
    /// This node begins, and cannot say yet; of a persistent one as any write.
    pub async fn deregister(&self, service: ServiceKey, leaving: Leaving) -> Result<()> {
        let Leaving {
            endpoint,
            anywhere,
            kind,
        } = leaving;
        let kind = match kind.or_else(|| self.kind_at(&service, &endpoint)) {
            Some(kind) => kind,
            None => self.kind_by_log(&service, &endpoint).await,
        };
        match kind {
            _ if seeded::has(Bug::NotDeregistered) => Ok(()),
            Kind::Ephemeral => {
                let what = match anywhere {
                    true => What::DeregisterAnywhere,
                    false => What::Deregister,
                };
                self.act(service, endpoint, what).await.map(drop)
            }
            Kind::Persistent if anywhere => {
                let look = |registry: &Registry, _| registry.wherever(&service, &endpoint, kind);
                for place in self.discovery.look(look) {
                    self.deregister_persistent(service.clone(), place).await?;
                }
                Ok(())
            }
            Kind::Persistent => self.deregister_persistent(service, endpoint).await,
        }
    }

    /// The kind of an instance of which only the place is said, as far as it is known here: what is there, or what the
    /// service holds.
    fn kind_at(&self, service: &ServiceKey, endpoint: &Endpoint) -> Option<Kind> {
        self.discovery.look(|registry, _| {
            let seen = registry.instance(service, endpoint);
            seen.map_or_else(|| registry.kind(service), |seen| Some(Kind::of(seen.ephemeral)))
        })
    }

    /// As [`Services::kind_at`], where the log may know more than this node has applied; else what an operator has made
    /// the default.
    async fn kind_by_log(&self, service: &ServiceKey, endpoint: &Endpoint) -> Kind {
        // Without a majority there is nothing to be had from it.
        if self.readiness.log_is_told().await.is_err() || self.catch_up().await.is_err() {
            tracing::debug!(%service, "the kind of an instance that goes is not known: no majority answers");
        }
        let default = || Kind::of(self.switches().default_instance_ephemeral);
        self.kind_at(service, endpoint).unwrap_or_else(default)
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
        if seeded::has(Bug::BeatsIgnored) {
            return Ok(Some(BEAT_INTERVAL_MS));
        }
        let full = full.map(Arc::new);
        match self.act(service, endpoint, What::Beat { full }).await? {
            // The default of all nodes, unless an operator of this one has set another.
            Done::Beat {
                interval_ms: BEAT_INTERVAL_MS,
            } => Ok(Some(self.switches().client_beat_interval)),
            Done::Beat { interval_ms } => Ok(Some(interval_ms)),
            _ => Ok(None),
        }
    }

    /// A beat for an instance that its client takes for a persistent one: nothing comes of it. The interval in
    /// which the client may go on beating, ms.
    ///
    /// # Errors
    /// There is no such persistent instance. A client that heard "unknown" instead would register an ephemeral one.
    pub fn beat_in_vain(&self, service: &ServiceKey, endpoint: &Endpoint) -> Result<u64> {
        let found = self
            .discovery
            .look(|registry, _| registry.instance(service, endpoint));
        match found {
            Some(seen) if !seen.ephemeral => {
                let own = seen.instance.beat_interval_ms();
                Ok(own.unwrap_or_else(|| self.switches().client_beat_interval))
            }
            _ => Err(Error::Invalid(format!(
                "no persistent instance {}:{} of {} is known, and beats are for ephemeral ones",
                endpoint.ip,
                endpoint.port,
                service.grouped()
            ))),
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
        self.naming_is_ready_for(service)?;
        Ok(self.discovery.query(service, filter, form))
    }

    /// `ip:port_healthy` of every instance of a service.
    pub fn statuses(&self, service: &ServiceKey) -> Vec<String> {
        self.discovery.look(|registry, _| {
            let instances = registry.instances(service);
            instances
                .map(|(place, seen)| format!("{}:{}_{}", place.ip, place.port, seen.healthy))
                .collect()
        })
    }

    /// Whether readers may be told of a service. Of one that holds persistent instances they may once the log is read:
    /// it knows them, whoever else has yet to come. Of one that nobody knows they may then, too: it might hold
    /// some.
    ///
    /// # Errors
    /// Not yet, in words.
    pub fn naming_is_ready_for(&self, service: &ServiceKey) -> Result<()> {
        if let Err(not_yet) = self.readiness.tells_log() {
            return match self.kind(service) {
                Some(Kind::Ephemeral) => told(self.discovery.readiness_of(service)),
                Some(Kind::Persistent) | None => Err(not_yet),
            };
        }
        match told(self.discovery.readiness_of(service)) {
            Err(_) if self.kind(service) == Some(Kind::Persistent) => Ok(()),
            told => told,
        }
    }

    /// Whether readers of the registry may be answered.
    ///
    /// # Errors
    /// Not yet, in words.
    pub fn naming_is_ready(&self) -> Result<()> {
        self.readiness.tells_log()?;
        told(self.discovery.readiness())
    }
}

/// True for a server that is built to take registrations of what is there already for something else.
pub(super) fn redoes_wrong() -> bool {
    seeded::has(Bug::RedoChanges) || seeded::has(Bug::RedoIgnored)
}

/// What such a server makes of a registration; true: nothing.
pub(super) fn wrong_redo(
    registry: &Registry,
    service: &ServiceKey,
    endpoint: &Endpoint,
    instance: &mut Instance,
) -> bool {
    let Some(known) = registry.instance(service, endpoint) else {
        return false;
    };
    if seeded::has(Bug::RedoChanges) {
        instance.weight = known.instance.weight + 1.0;
    }
    seeded::has(Bug::RedoIgnored)
}

fn told(readiness: Readiness) -> Result<()> {
    let why = match readiness {
        Readiness::Ready | Readiness::Provisional => return Ok(()),
        Readiness::Loading => "the registry is being loaded",
        Readiness::AwaitingClients => "clients are coming back",
    };
    Err(Error::Unavailable(format!(
        "server is STARTING now, {why}, please try again later!"
    )))
}

pub(super) fn wrong_kind(service: &str, holds: Kind) -> Error {
    let (other, kind) = match holds {
        Kind::Ephemeral => ("persistent", "ephemeral"),
        Kind::Persistent => ("ephemeral", "persistent"),
    };
    // Recorded with the space at its end.
    let text = format!(
        "errCode: 400, errMsg: Current service {service} is {kind} service, can't register {other} instance. "
    );
    Error::Naming {
        refusal: NamingRefusal::WrongKind,
        text,
    }
}
