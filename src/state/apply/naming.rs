//! Applying the commands of naming. Their rows are not kept in memory: what stands before a command is in
//! the tables, or was written by the same range ([`Written`]).

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use raft::Index;
use storage::{StorageError, Table, Tables};

use super::{ApplyFault, Pending};
use crate::model::{Endpoint, ServiceKey};
use crate::naming::{
    ClusterMetadata, InstanceOverride, OverridePatch, Persistent, Refusal, Replicated, ServiceMetadata,
};
use crate::state::command::Command;
use crate::state::event::Event;
use crate::state::outcome::Outcome;
use crate::state::rows::naming as rows;
use crate::state::{OVERRIDE_TEXT_MAX, State};

/// Rows of naming that the range has written and the tables do not have yet; `None` for a removed one.
#[derive(Debug, Default)]
pub(super) struct Written(BTreeMap<(Table, Vec<u8>), Option<Bytes>>);

impl Written {
    fn get(&self, tables: &Tables, table: Table, key: Vec<u8>) -> Result<Option<Bytes>, StorageError> {
        let place = (table, key);
        match self.0.get(&place) {
            Some(row) => Ok(row.clone()),
            None => tables.get(table, &place.1),
        }
    }

    /// Keys that begin with this, in order.
    fn keys(&self, tables: &Tables, table: Table, prefix: &[u8]) -> Result<Vec<Vec<u8>>, StorageError> {
        let mut keys = BTreeMap::new();
        for row in tables.scan(table, prefix) {
            keys.insert(row?.0.to_vec(), true);
        }
        let written = self.beginning_with(table, prefix);
        keys.extend(written.map(|(key, row)| (key.to_vec(), row.is_some())));
        Ok(keys
            .into_iter()
            .filter_map(|(key, there)| there.then_some(key))
            .collect())
    }

    /// True when there is a key that begins with this; looks no further than the first.
    fn any(&self, tables: &Tables, table: Table, prefix: &[u8]) -> Result<bool, StorageError> {
        if self.beginning_with(table, prefix).any(|(_, row)| row.is_some()) {
            return Ok(true);
        }
        for row in tables.scan(table, prefix) {
            let place = (table, row?.0.to_vec());
            // Written and still in the tables means removed here: the others were looked at above.
            if !self.0.contains_key(&place) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn beginning_with<'a>(
        &'a self,
        table: Table,
        prefix: &'a [u8],
    ) -> impl Iterator<Item = (&'a [u8], &'a Option<Bytes>)> {
        let from = Bound::Included((table, prefix.to_vec()));
        let behind = self.0.range((from, Bound::Unbounded));
        behind
            .take_while(move |((other, key), _)| *other == table && key.starts_with(prefix))
            .map(|((_, key), row)| (key.as_slice(), row))
    }
}

impl Pending {
    fn write(&mut self, table: Table, key: Vec<u8>, row: Option<Bytes>) {
        match &row {
            Some(row) => self.batch.put(table, &key, row.clone()),
            None => self.batch.delete(table, &key),
        }
        self.naming.0.insert((table, key), row);
    }

    fn tell(&mut self, change: Replicated, index: Index) {
        self.done.events.push(Event::NamingChanged { change, index });
    }
}

impl State {
    pub(super) fn execute_naming(
        &self,
        pending: &mut Pending,
        command: Command,
        index: Index,
    ) -> Result<Outcome, ApplyFault> {
        match command {
            Command::NamingInstancePut {
                service,
                endpoint,
                persistent,
            } => self.put_instance(pending, service, endpoint, persistent, index),
            Command::NamingInstanceRemove { service, endpoint } => {
                self.remove_instance(pending, service, endpoint, index)
            }
            Command::NamingHealth(results) => self.set_health(pending, results, index),
            Command::NamingSwitchPut { name, value } => {
                pending.write(
                    rows::SWITCHES,
                    name.as_bytes().to_vec(),
                    Some(rows::switch(&value)),
                );
                pending
                    .done
                    .events
                    .push(Event::NamingSwitched { name, value, index });
                Ok(Outcome::NamingDone)
            }
            Command::NamingServiceCreate { service, set } => {
                if self.has_instances(pending, &service)? || self.service(pending, &service)?.is_some() {
                    return Ok(Outcome::NamingRefused(Refusal::Exists));
                }
                write_service(pending, service, set, index);
                Ok(Outcome::NamingDone)
            }
            Command::NamingServicePut { service, set } => self.put_service(pending, service, set, index),
            Command::NamingServiceRemove(service) => {
                if self.has_instances(pending, &service)? {
                    return Ok(Outcome::NamingRefused(Refusal::NotEmpty));
                }
                if self.service(pending, &service)?.is_none() {
                    return Ok(Outcome::NamingRefused(Refusal::Missing));
                }
                self.remove_service(pending, &service, index)?;
                Ok(Outcome::NamingDone)
            }
            Command::NamingClusterPut {
                service,
                cluster,
                set,
                ephemeral,
            } => self.put_cluster(pending, service, cluster, set, ephemeral, index),
            Command::NamingOverridePut {
                service,
                endpoints,
                patch,
            } => self.put_overrides(pending, &service, endpoints, &patch, index),
            Command::NamingSweep { services, overrides } => self.sweep(pending, services, overrides, index),
            _ => unreachable!("not a command of naming"),
        }
    }

    fn put_instance(
        &self,
        pending: &mut Pending,
        service: ServiceKey,
        endpoint: Endpoint,
        persistent: Persistent,
        index: Index,
    ) -> Result<Outcome, ApplyFault> {
        let settings = self.service(pending, &service)?;
        if settings.is_some_and(|(set, _)| set.ephemeral) {
            return Ok(Outcome::NamingRefused(Refusal::WrongKind));
        }
        let before = self.instance(pending, &service, &endpoint)?;
        if before.as_ref() != Some(&persistent) {
            write_instance(pending, service, endpoint, Some(persistent), index);
        }
        Ok(Outcome::NamingDone)
    }

    fn remove_instance(
        &self,
        pending: &mut Pending,
        service: ServiceKey,
        endpoint: Endpoint,
        index: Index,
    ) -> Result<Outcome, ApplyFault> {
        let there = self.instance(pending, &service, &endpoint)?.is_some();
        if there {
            write_instance(pending, service, endpoint, None, index);
        }
        Ok(Outcome::NamingChanged(there.into()))
    }

    fn set_health(
        &self,
        pending: &mut Pending,
        results: Vec<(ServiceKey, Endpoint, bool)>,
        index: Index,
    ) -> Result<Outcome, ApplyFault> {
        let mut changed = 0;
        for (service, endpoint, healthy) in results {
            let before = self.instance(pending, &service, &endpoint)?;
            let Some(before) = before.filter(|before| before.healthy != healthy) else {
                continue;
            };
            let persistent = Persistent { healthy, ..before };
            write_instance(pending, service, endpoint, Some(persistent), index);
            changed += 1;
        }
        Ok(Outcome::NamingChanged(changed))
    }

    fn put_service(
        &self,
        pending: &mut Pending,
        service: ServiceKey,
        mut set: ServiceMetadata,
        index: Index,
    ) -> Result<Outcome, ApplyFault> {
        if let Some((before, _)) = self.service(pending, &service)? {
            set.ephemeral = before.ephemeral;
        } else if set.ephemeral && self.has_instances(pending, &service)? {
            return Ok(Outcome::NamingRefused(Refusal::WrongKind));
        }
        write_service(pending, service, set, index);
        Ok(Outcome::NamingDone)
    }

    fn put_cluster(
        &self,
        pending: &mut Pending,
        service: ServiceKey,
        cluster: Arc<str>,
        set: ClusterMetadata,
        ephemeral: bool,
        index: Index,
    ) -> Result<Outcome, ApplyFault> {
        let settings = match self.service(pending, &service)? {
            Some((settings, _)) => settings,
            None if ephemeral && self.has_instances(pending, &service)? => {
                return Ok(Outcome::NamingRefused(Refusal::WrongKind));
            }
            None => ServiceMetadata {
                ephemeral,
                ..ServiceMetadata::default()
            },
        };
        // The settings carry the index of the newest change to any part of them: a sweep looks at that.
        write_service(pending, service.clone(), settings, index);
        let key = rows::cluster_key(&service, &cluster);
        pending.write(rows::CLUSTERS, key, Some(rows::cluster(&set)));
        let set = Some(set);
        pending.tell(
            Replicated::Cluster {
                service,
                cluster,
                set,
            },
            index,
        );
        Ok(Outcome::NamingDone)
    }

    /// All of them, or none.
    fn put_overrides(
        &self,
        pending: &mut Pending,
        service: &ServiceKey,
        endpoints: Vec<Endpoint>,
        patch: &OverridePatch,
        index: Index,
    ) -> Result<Outcome, ApplyFault> {
        let mut patched = Vec::with_capacity(endpoints.len());
        for endpoint in endpoints {
            let before = self.instance_override(pending, service, &endpoint)?;
            let before = before.map(|(set, _)| set).unwrap_or_default();
            let after = before.patched(patch);
            if after.text_bytes() > OVERRIDE_TEXT_MAX {
                return Ok(Outcome::NamingRefused(Refusal::TooLarge));
            }
            patched.push((endpoint, after));
        }
        for (endpoint, set) in patched {
            let set = Some(set).filter(|set| *set != InstanceOverride::default());
            write_override(pending, service.clone(), endpoint, set, index);
        }
        Ok(Outcome::NamingDone)
    }

    fn sweep(
        &self,
        pending: &mut Pending,
        services: Vec<(ServiceKey, Index)>,
        overrides: Vec<(ServiceKey, Endpoint, Index)>,
        index: Index,
    ) -> Result<Outcome, ApplyFault> {
        let mut changed = 0;
        for (service, seen) in services {
            let untouched = self.service(pending, &service)?;
            let untouched = untouched.is_some_and(|(_, changed)| changed <= seen);
            if untouched && !self.has_instances(pending, &service)? {
                self.remove_service(pending, &service, index)?;
                changed += 1;
            }
        }
        for (service, endpoint, seen) in overrides {
            let untouched = self.instance_override(pending, &service, &endpoint)?;
            if untouched.is_some_and(|(_, changed)| changed <= seen) {
                write_override(pending, service, endpoint, None, index);
                changed += 1;
            }
        }
        Ok(Outcome::NamingChanged(changed))
    }

    /// Removes the settings of a service, and what is set for its parts.
    fn remove_service(
        &self,
        pending: &mut Pending,
        service: &ServiceKey,
        index: Index,
    ) -> Result<(), ApplyFault> {
        let parts = rows::parts_key(service);
        for key in pending.naming.keys(&self.tables, rows::OVERRIDES, &parts)? {
            let (service, endpoint) = rows::read_override_key(&key)?;
            write_override(pending, service, endpoint, None, index);
        }
        for key in pending.naming.keys(&self.tables, rows::CLUSTERS, &parts)? {
            let (service, cluster) = rows::read_cluster_key(&key)?;
            let (cluster, set) = (Arc::from(cluster), None);
            pending.write(rows::CLUSTERS, key, None);
            pending.tell(
                Replicated::Cluster {
                    service,
                    cluster,
                    set,
                },
                index,
            );
        }
        pending.write(rows::SERVICES, service.as_bytes().to_vec(), None);
        let (service, set) = (service.clone(), None);
        pending.tell(Replicated::Service { service, set }, index);
        Ok(())
    }

    fn has_instances(&self, pending: &Pending, service: &ServiceKey) -> Result<bool, ApplyFault> {
        let parts = rows::parts_key(service);
        Ok(pending.naming.any(&self.tables, rows::INSTANCES, &parts)?)
    }

    fn service(
        &self,
        pending: &Pending,
        service: &ServiceKey,
    ) -> Result<Option<(ServiceMetadata, Index)>, ApplyFault> {
        let key = service.as_bytes().to_vec();
        let row = pending.naming.get(&self.tables, rows::SERVICES, key)?;
        Ok(row.map(rows::read_service).transpose()?)
    }

    fn instance(
        &self,
        pending: &Pending,
        service: &ServiceKey,
        endpoint: &Endpoint,
    ) -> Result<Option<Persistent>, ApplyFault> {
        let key = rows::endpoint_key(service, endpoint);
        let row = pending.naming.get(&self.tables, rows::INSTANCES, key)?;
        Ok(row.map(rows::read_instance).transpose()?)
    }

    fn instance_override(
        &self,
        pending: &Pending,
        service: &ServiceKey,
        endpoint: &Endpoint,
    ) -> Result<Option<(InstanceOverride, Index)>, ApplyFault> {
        let key = rows::endpoint_key(service, endpoint);
        let row = pending.naming.get(&self.tables, rows::OVERRIDES, key)?;
        Ok(row.map(rows::read_instance_override).transpose()?)
    }
}

fn write_service(pending: &mut Pending, service: ServiceKey, set: ServiceMetadata, index: Index) {
    let key = service.as_bytes().to_vec();
    pending.write(rows::SERVICES, key, Some(rows::service(&set, index)));
    let set = Some(set);
    pending.tell(Replicated::Service { service, set }, index);
}

fn write_instance(
    pending: &mut Pending,
    service: ServiceKey,
    endpoint: Endpoint,
    set: Option<Persistent>,
    index: Index,
) {
    let key = rows::endpoint_key(&service, &endpoint);
    pending.write(rows::INSTANCES, key, set.as_ref().map(rows::instance));
    pending.tell(
        Replicated::Instance {
            service,
            endpoint,
            set,
        },
        index,
    );
}

fn write_override(
    pending: &mut Pending,
    service: ServiceKey,
    endpoint: Endpoint,
    set: Option<InstanceOverride>,
    index: Index,
) {
    let key = rows::endpoint_key(&service, &endpoint);
    let row = set.as_ref().map(|set| rows::instance_override(set, index));
    pending.write(rows::OVERRIDES, key, row);
    pending.tell(
        Replicated::Override {
            service,
            endpoint,
            set,
        },
        index,
    );
}
