//! What the state says of naming, from the tables. The registry of the node holds all of it, too, and
//! answers faster; who is about to change something reads it here.

use std::sync::Arc;

use raft::Index;

use super::{ReadError, Reader};
use crate::model::{Endpoint, ServiceKey};
use crate::naming::{InstanceOverride, Persistent, Replicated, ServiceMetadata};
use crate::state::rows::naming as rows;

impl Reader {
    /// What is set for a service, and the log index of the newest change to that or to its clusters.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn naming_service(
        &self,
        service: &ServiceKey,
    ) -> Result<Option<(ServiceMetadata, Index)>, ReadError> {
        let row = self.tables.get(rows::SERVICES, service.as_bytes())?;
        self.whole(row.map(rows::read_service).transpose()?)
    }

    /// A persistent instance.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn naming_instance(
        &self,
        service: &ServiceKey,
        endpoint: &Endpoint,
    ) -> Result<Option<Persistent>, ReadError> {
        let key = rows::endpoint_key(service, endpoint);
        let row = self.tables.get(rows::INSTANCES, &key)?;
        self.whole(row.map(rows::read_instance).transpose()?)
    }

    /// What is set for an instance, and the log index of the newest change to that.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn naming_override(
        &self,
        service: &ServiceKey,
        endpoint: &Endpoint,
    ) -> Result<Option<(InstanceOverride, Index)>, ReadError> {
        let key = rows::endpoint_key(service, endpoint);
        let row = self.tables.get(rows::OVERRIDES, &key)?;
        self.whole(row.map(rows::read_instance_override).transpose()?)
    }

    /// Calls `found` for all that the state says of naming at one moment, and tells which: changes with
    /// an index up to this one are in it. Whoever keeps a registry notes the changes that come from now
    /// on, feeds it all of this, then those that are behind the index.
    ///
    /// # Errors
    /// See [`ReadError`]; some of it may have been told then.
    pub fn for_each_of_naming(&self, mut found: impl FnMut(Replicated)) -> Result<Index, ReadError> {
        let tables = self.tables()?;
        for row in tables.scan(rows::SERVICES, &[]) {
            let (key, row) = row?;
            let (set, _) = rows::read_service(row)?;
            found(Replicated::Service {
                service: rows::read_service_key(&key)?,
                set: Some(set),
            });
        }
        for row in tables.scan(rows::CLUSTERS, &[]) {
            let (key, row) = row?;
            let (service, cluster) = rows::read_cluster_key(&key)?;
            found(Replicated::Cluster {
                service,
                cluster: Arc::from(cluster),
                set: Some(rows::read_cluster(row)?),
            });
        }
        // Before the instances: who sees one for the first time sees it as it is set.
        for row in tables.scan(rows::OVERRIDES, &[]) {
            let (key, row) = row?;
            let (service, endpoint) = rows::read_override_key(&key)?;
            let (set, _) = rows::read_instance_override(row)?;
            found(Replicated::Override {
                service,
                endpoint,
                set: Some(set),
            });
        }
        for row in tables.scan(rows::INSTANCES, &[]) {
            let (key, row) = row?;
            let (service, endpoint) = rows::read_instance_key(&key)?;
            found(Replicated::Instance {
                service,
                endpoint,
                set: Some(rows::read_instance(row)?),
            });
        }
        self.whole(tables.applied().id.index)
    }

    /// Switches that were turned on all nodes, by their names, with their values.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn naming_switches(&self) -> Result<Vec<rows::NamingSwitch>, ReadError> {
        let mut found = Vec::new();
        for row in self.tables()?.scan(rows::SWITCHES, &[]) {
            let (key, row) = row?;
            found.push(rows::read_switch(&key, row)?);
        }
        self.whole(found)
    }

    /// Services with settings, and the log index of the newest change to each.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn naming_services(&self) -> Result<Vec<(ServiceKey, Index)>, ReadError> {
        let mut found = Vec::new();
        for row in self.tables()?.scan(rows::SERVICES, &[]) {
            let (key, row) = row?;
            found.push((rows::read_service_key(&key)?, rows::read_service(row)?.1));
        }
        self.whole(found)
    }

    /// Instances for which something is set, there or not, and the log index of the newest change to that.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn naming_overrides(&self) -> Result<Vec<(ServiceKey, Endpoint, Index)>, ReadError> {
        let mut found = Vec::new();
        for row in self.tables()?.scan(rows::OVERRIDES, &[]) {
            let (key, row) = row?;
            let (service, endpoint) = rows::read_override_key(&key)?;
            found.push((service, endpoint, rows::read_instance_override(row)?.1));
        }
        self.whole(found)
    }
}
