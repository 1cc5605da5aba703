//! What goes through the log in naming: persistent instances, and what operators set for services, clusters
//! and instances (contract 03 §1, §6).
//!
//! Whether there are instances is looked up in this node's registry, which knows ephemeral ones; the state
//! decides about its own part once more when the command is applied. Two operators at once may so meet in
//! between; the worst that comes of it is a service deleted while its first ephemeral instance registers,
//! and that instance stays.

use std::collections::HashSet;
use std::sync::Arc;

use super::Services;
use super::config::unexpected;
use super::naming::wrong_kind;
use crate::error::{Error, NamingRefusal, Result};
use crate::model::{Endpoint, ServiceKey};
use crate::naming::{
    Checker, ClusterMetadata, Filter, Instance, Kind, MetadataPatch, OverridePatch, Persistent, Refusal,
    Registry, ServiceMetadata,
};
use crate::seeded::{self, Bug};
use crate::state::{Command, NAMING_BATCH_MAX, Outcome};

/// Longest selector or health checker, bytes of its JSON.
const JSON_BYTES_MAX: usize = 4_096;

/// The selector of a service, from its JSON; blank is none.
///
/// # Errors
/// No selector has this type.
pub fn selector(json: &str) -> Result<Box<str>> {
    let unknown = || refused(NamingRefusal::Selector, "not match any type of selector!");
    let json = json.trim();
    if json.is_empty() {
        return Ok(Box::default());
    }
    let value: serde_json::Value = serde_json::from_str(json).map_err(|_cause| unknown())?;
    match value.get("type").and_then(serde_json::Value::as_str) {
        Some("none" | "label") if json.len() <= JSON_BYTES_MAX => Ok(json.into()),
        _ => Err(unknown()),
    }
}

/// The health checker of a cluster, from its JSON.
///
/// # Errors
/// No checker can be made of it.
pub fn checker(json: &str) -> Result<Box<str>> {
    let json = json.trim();
    if json.len() > JSON_BYTES_MAX {
        return Err(Error::Invalid(format!(
            "the health checker is longer than {JSON_BYTES_MAX} bytes"
        )));
    }
    match Checker::parse(json) {
        Ok(_) => Ok(json.into()),
        Err(wrong) => Err(Error::Invalid(wrong.to_string())),
    }
}

/// Which instances of a service an operator means.
#[derive(Clone, Debug, Default)]
pub struct Chosen {
    /// Of this kind; `None`: either.
    pub kind: Option<Kind>,
    /// Among these; `None`: all.
    pub endpoints: Option<HashSet<Endpoint>>,
}

impl Services {
    /// Registers a persistent instance, or says something new about it. Without an error this node shows
    /// it; it stays until it is deregistered.
    ///
    /// # Errors
    /// The service holds ephemeral instances; else as any write.
    pub async fn register_persistent(
        &self,
        service: ServiceKey,
        endpoint: Endpoint,
        instance: Instance,
        healthy: bool,
    ) -> Result<()> {
        let named = service.grouped().to_owned();
        if self.kind(&service) == Some(Kind::Ephemeral) {
            return Err(wrong_kind(&named, Kind::Ephemeral));
        }
        let persistent = Persistent {
            instance: Arc::new(instance),
            healthy,
        };
        if seeded::has(Bug::PersistentForgotten) {
            self.discovery.act(|registry, now_ms| {
                registry.set_persistent(now_ms, &service, &endpoint, Some(persistent));
            });
            return Ok(());
        }
        // One address has one instance in a service (contract 00 §2.3). What it had before goes afterwards, so that
        // readers never see none.
        let before = |registry: &Registry, _| registry.persistent_elsewhere(&service, &endpoint);
        let before = self.discovery.look(before);
        let command = Command::NamingInstancePut {
            service: service.clone(),
            endpoint,
            persistent,
        };
        match self.propose(command).await? {
            Outcome::NamingDone => {
                for place in before {
                    self.deregister_persistent(service.clone(), place).await?;
                }
                Ok(())
            }
            Outcome::NamingRefused(Refusal::WrongKind) => Err(wrong_kind(&named, Kind::Ephemeral)),
            other => Err(unexpected(other)),
        }
    }

    /// Takes a persistent instance away, known or not.
    ///
    /// # Errors
    /// As any write.
    pub async fn deregister_persistent(&self, service: ServiceKey, endpoint: Endpoint) -> Result<()> {
        if seeded::has(Bug::NotDeregistered) {
            return Ok(());
        }
        let command = Command::NamingInstanceRemove { service, endpoint };
        match self.propose(command).await? {
            Outcome::NamingChanged(_) => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// Makes a service.
    ///
    /// # Errors
    /// It has settings or instances already; else as any write.
    pub async fn create_service(&self, service: ServiceKey, set: ServiceMetadata) -> Result<()> {
        check_threshold(&set)?;
        let exists = refused(
            NamingRefusal::ServiceExists,
            format!("specified service {} already exists!", service.grouped()),
        );
        if self.kind(&service).is_some() {
            return Err(exists);
        }
        match self
            .propose(Command::NamingServiceCreate { service, set })
            .await?
        {
            Outcome::NamingDone => Ok(()),
            Outcome::NamingRefused(Refusal::Exists) => Err(exists),
            other => Err(unexpected(other)),
        }
    }

    /// Sets what belongs to a service as a whole. Its kind stays.
    ///
    /// # Errors
    /// There is no such service; else as any write.
    pub async fn update_service(&self, service: ServiceKey, mut set: ServiceMetadata) -> Result<()> {
        check_threshold(&set)?;
        let named = service.grouped().to_owned();
        let Some(kind) = self.kind(&service) else {
            return Err(no_service(&service));
        };
        set.ephemeral = kind == Kind::Ephemeral;
        match self.propose(Command::NamingServicePut { service, set }).await? {
            Outcome::NamingDone => Ok(()),
            Outcome::NamingRefused(Refusal::WrongKind) => Err(wrong_kind(&named, Kind::Persistent)),
            other => Err(unexpected(other)),
        }
    }

    /// Removes a service, and what is set for its parts.
    ///
    /// # Errors
    /// There is no such service, or it has instances; else as any write.
    pub async fn delete_service(&self, service: ServiceKey) -> Result<()> {
        let missing = no_service(&service);
        let not_empty = refused(
            NamingRefusal::ServiceNotEmpty,
            format!(
                "Service {} is not empty, can't be delete. Please unregister instance first",
                service.grouped()
            ),
        );
        if self.kind(&service).is_none() {
            return Err(missing);
        }
        if !self.all_of(&service, &Chosen::default()).is_empty() {
            return Err(not_empty);
        }
        match self.propose(Command::NamingServiceRemove(service)).await? {
            Outcome::NamingDone => Ok(()),
            Outcome::NamingRefused(Refusal::Missing) => Err(missing),
            Outcome::NamingRefused(Refusal::NotEmpty) => Err(not_empty),
            other => Err(unexpected(other)),
        }
    }

    /// Sets what belongs to a cluster, known or not. The checker must be one that [`checker`] has seen.
    ///
    /// # Errors
    /// There is no such service; else as any write.
    pub async fn update_cluster(
        &self,
        service: ServiceKey,
        cluster: &str,
        set: ClusterMetadata,
    ) -> Result<()> {
        let named = service.grouped().to_owned();
        let Some(kind) = self.kind(&service) else {
            return Err(refused(
                NamingRefusal::Other,
                format!("service not found:{named}"),
            ));
        };
        let command = Command::NamingClusterPut {
            service,
            cluster: cluster.into(),
            set,
            ephemeral: kind == Kind::Ephemeral,
        };
        match self.propose(command).await? {
            Outcome::NamingDone => Ok(()),
            Outcome::NamingRefused(Refusal::WrongKind) => Err(wrong_kind(&named, Kind::Persistent)),
            other => Err(unexpected(other)),
        }
    }

    /// Sets weight, word and metadata of an instance over what its client says; the instance need not be
    /// there (yet). `meant` is the kind that the caller takes it for, if he says one.
    ///
    /// # Errors
    /// There is no such service, or it is for instances of the other kind; else as any write.
    pub async fn set_instance(
        &self,
        service: ServiceKey,
        endpoint: Endpoint,
        instance: Instance,
        meant: Option<Kind>,
    ) -> Result<()> {
        let kind = self.kind(&service);
        if let (Some(holds), Some(meant)) = (kind, meant)
            && holds != meant
        {
            return Err(wrong_kind(service.grouped(), holds));
        }
        if kind.is_none() {
            let namespace = service.namespace_id();
            // Recorded, with the fields of a Java class.
            return Err(refused(
                NamingRefusal::Instance,
                format!(
                    "service not found, namespace: {0}, service: Service{{namespace='{0}', group='{1}', name='{2}', \
                     ephemeral=true, revision=0}}",
                    namespace.as_public_str(),
                    service.group(),
                    service.name()
                ),
            ));
        }
        let patch = OverridePatch {
            weight: Some(instance.weight),
            enabled: Some(instance.enabled),
            metadata: MetadataPatch::Set(instance.metadata),
        };
        self.put_overrides(&service, vec![endpoint], patch).await
    }

    /// Sets what the patch names over what the client of an instance says.
    ///
    /// # Errors
    /// There is no such instance; else as any write.
    pub async fn patch_instance(
        &self,
        service: ServiceKey,
        endpoint: Endpoint,
        patch: OverridePatch,
    ) -> Result<()> {
        let known = self
            .discovery()
            .look(|registry, _| registry.instance(&service, &endpoint).is_some());
        if !known {
            return Err(Error::NotFound("no matched ip found!".to_owned()));
        }
        self.put_overrides(&service, vec![endpoint], patch).await
    }

    /// Changes what is set for the metadata of several instances at once. Gives back those that were
    /// there, with their kind.
    ///
    /// # Errors
    /// As any write; some of more than [`NAMING_BATCH_MAX`] may be done then.
    pub async fn batch_metadata(
        &self,
        service: ServiceKey,
        chosen: Chosen,
        metadata: MetadataPatch,
    ) -> Result<Vec<(Endpoint, Kind)>> {
        let updated = self.all_of(&service, &chosen);
        let patch = OverridePatch {
            metadata,
            ..OverridePatch::default()
        };
        for part in updated.chunks(NAMING_BATCH_MAX) {
            let endpoints = part.iter().map(|(endpoint, _)| endpoint.clone()).collect();
            self.put_overrides(&service, endpoints, patch.clone()).await?;
        }
        Ok(updated)
    }

    /// Tells the health of a persistent instance, known or not, where no check finds it.
    ///
    /// # Errors
    /// The service is for ephemeral instances, or the checker of the cluster is another one than `NONE`; else as any
    /// write.
    pub async fn set_health(&self, service: ServiceKey, endpoint: Endpoint, healthy: bool) -> Result<()> {
        let told = self.discovery().look(|registry, _| {
            let overlay = registry.overlay(&service)?;
            let set = overlay.clusters.get(&endpoint.cluster)?;
            Some(matches!(Checker::parse(&set.checker), Ok(Checker::None)))
        });
        if told != Some(true) {
            return Err(refused(
                NamingRefusal::Checked,
                format!(
                    "health check is still working, service: {}, cluster: {}",
                    service.grouped(),
                    endpoint.cluster
                ),
            ));
        }
        if self.kind(&service) == Some(Kind::Ephemeral) {
            let named = service.grouped();
            return Err(refused(
                NamingRefusal::Checked,
                format!(
                    "{named} is for ephemeral instances: their clients keep them healthy, and it cannot be told"
                ),
            ));
        }
        let command = Command::NamingHealth(vec![(service, endpoint, healthy)]);
        match self.propose(command).await? {
            Outcome::NamingChanged(_) => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    async fn put_overrides(
        &self,
        service: &ServiceKey,
        endpoints: Vec<Endpoint>,
        patch: OverridePatch,
    ) -> Result<()> {
        let command = Command::NamingOverridePut {
            service: service.clone(),
            endpoints,
            patch,
        };
        match self.propose(command).await? {
            Outcome::NamingDone => Ok(()),
            Outcome::NamingRefused(refusal @ Refusal::TooLarge) => {
                Err(refused(NamingRefusal::Instance, refusal.to_string()))
            }
            other => Err(unexpected(other)),
        }
    }

    /// The kind of instances that a service is for; `None` for one without instances or settings.
    pub(super) fn kind(&self, service: &ServiceKey) -> Option<Kind> {
        self.discovery().look(|registry, _| registry.kind(service))
    }

    fn all_of(&self, service: &ServiceKey, chosen: &Chosen) -> Vec<(Endpoint, Kind)> {
        let everything = Filter {
            with_disabled: true,
            ..Filter::default()
        };
        let view = self
            .discovery()
            .look(|registry, _| registry.view(service, &everything));
        let hosts = view.unwrap_or_default().hosts.into_iter();
        let hosts = hosts.map(|(endpoint, seen)| (endpoint, Kind::of(seen.ephemeral)));
        hosts
            .filter(|(endpoint, kind)| {
                chosen.kind.is_none_or(|wanted| wanted == *kind)
                    && chosen
                        .endpoints
                        .as_ref()
                        .is_none_or(|endpoints| endpoints.contains(endpoint))
            })
            .collect()
    }
}

fn refused(refusal: NamingRefusal, text: impl Into<String>) -> Error {
    Error::Naming {
        refusal,
        text: text.into(),
    }
}

fn no_service(service: &ServiceKey) -> Error {
    refused(
        NamingRefusal::NoService,
        format!("service {} not found!", service.grouped()),
    )
}

/// Any number is taken, as in Nacos: above 1 a service is always protected, below 0 never.
fn check_threshold(set: &ServiceMetadata) -> Result<()> {
    if set.protect_threshold.is_finite() {
        Ok(())
    } else {
        Err(Error::Invalid("protectThreshold is no number".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_have_a_type_that_is_known() {
        assert_eq!(selector(" "), Ok(Box::default()));
        assert_eq!(selector("{\"type\":\"none\"}"), Ok("{\"type\":\"none\"}".into()));
        assert!(selector("{\"type\":\"label\",\"expression\":\"\"}").is_ok());
        for unknown in ["{}", "{\"type\":\"nosuch\"}", "nope", "[]", "{\"type\":1}"] {
            let Err(Error::Naming { refusal, text }) = selector(unknown) else {
                panic!("{unknown} was taken")
            };
            assert_eq!(
                (refusal, text.as_str()),
                (NamingRefusal::Selector, "not match any type of selector!")
            );
        }
    }

    #[test]
    fn checkers_are_those_that_can_run() {
        assert!(checker("{\"type\":\"TCP\"}").is_ok());
        assert!(matches!(checker("{\"type\":\"NOSUCH\"}"), Err(Error::Invalid(_))));
        let long = format!(
            "{{\"type\":\"HTTP\",\"path\":\"/{}\"}}",
            "x".repeat(JSON_BYTES_MAX)
        );
        assert!(matches!(checker(&long), Err(Error::Invalid(_))));
    }
}
