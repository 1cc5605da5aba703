//! PUT `/v1/ns/cluster`: how the instances of a cluster are checked.

use std::sync::Arc;

use super::super::super::request::Request;
use super::super::super::routes::Answer;
use super::{Done, flag_of, metadata, ok, once_done, port_named, required, service_key};
use crate::error::{Error, Result};
use crate::naming::ClusterMetadata;
use crate::service::Services;
use crate::service::naming::{check_cluster, check_metadata};
use crate::service::naming_admin;

/// Sets what belongs to a cluster, whether or not anybody is in it.
pub(in crate::http) fn update(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    update_as(services, request, ok)
}

pub(in crate::http) fn update_as(services: &Arc<Services>, request: &Request, done: Done) -> Result<Answer> {
    let params = request.params()?;
    let check_port = port_named(&params, "checkPort")?;
    let service = service_key(&params)?;
    let cluster = required(&params, "clusterName")?.to_owned();
    check_cluster(&cluster)?;
    let missing = |name| Error::Missing { name, kind: "" };
    let set = ClusterMetadata {
        check_port: check_port.ok_or(missing("checkPort"))?,
        use_instance_port: flag_of(&params, &["useInstancePort4Check"])
            .ok_or(missing("useInstancePort4Check"))?,
        checker: naming_admin::checker(required(&params, "healthChecker")?)?,
        metadata: metadata::parse(params.get("metadata"))?,
    };
    check_metadata(&set.metadata)?;
    let services = Arc::clone(services);
    Ok(once_done(done, async move {
        services.update_cluster(service, &cluster, set).await
    }))
}
