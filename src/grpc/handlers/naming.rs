//! The registry over gRPC: registering, finding, subscribing (contract 01 §5).

mod connected;
mod reading;

use proto::nacos::naming::{
    BatchInstanceRequest, BatchInstanceResponse, Instance as Sent, InstanceRequest, InstanceResponse,
    PersistentInstanceRequest, ServiceListRequest, ServiceListResponse,
};
use proto::nacos::{Response, Text};

use connected::Connected;

use crate::grpc::dispatch::{Call, Failure, Row, rows};
use crate::model::{Endpoint, PageRequest, ServiceKey};
use crate::naming::Instance;
use crate::service::Services;
use crate::service::naming::{NewInstance, ServiceName};

/// The field of answers and pushes that holds a service.
const SERVICE_INFO: &str = "serviceInfo";
/// Services of one page, at most.
const PAGE_MAX: i32 = 500;

/// Rows of the registry.
pub(super) fn rows() -> impl Iterator<Item = &'static Row> {
    ROWS.iter().chain(reading::ROWS)
}

const ROWS: &[Row] = rows! {
    InstanceRequest => InstanceResponse: instance;
    BatchInstanceRequest => BatchInstanceResponse: batch;
    PersistentInstanceRequest => InstanceResponse: persistent;
    ServiceListRequest => ServiceListResponse: list;
};

/// One ephemeral instance comes or goes. What the connection said of the service before is replaced: an
/// instance that changes its port moves.
async fn instance<'a>(call: &'a Call, request: InstanceRequest<'a>) -> Result<InstanceResponse<'a>, Failure> {
    let service = service(&request.namespace, &request.group_name, &request.service_name)?;
    let kind = request.kind;
    match &*kind {
        "registerInstance" => {
            let instance = one(request.instance)?;
            Connected::of(call)?.client.register(&service, vec![instance])?;
        }
        "deregisterInstance" => {
            let endpoint = new_instance(request.instance)?.endpoint()?;
            Connected::of(call)?.client.deregister(&service, &endpoint);
        }
        other => return Err(unknown_kind(other)),
    }
    Ok(InstanceResponse {
        kind,
        ..InstanceResponse::ok()
    })
}

/// All that the connection keeps alive in a service.
async fn batch<'a>(
    call: &'a Call,
    request: BatchInstanceRequest<'a>,
) -> Result<BatchInstanceResponse<'a>, Failure> {
    let service = service(&request.namespace, &request.group_name, &request.service_name)?;
    if request.kind != "batchRegisterInstance" {
        return Err(unknown_kind(&request.kind));
    }
    let set = request.instances.into_iter().map(one);
    let set = set.collect::<Result<Vec<_>, Failure>>()?;
    Connected::of(call)?.client.register(&service, set)?;
    Ok(BatchInstanceResponse {
        kind: request.kind,
        ..BatchInstanceResponse::ok()
    })
}

/// One instance that stays until it is deregistered, whoever registered it.
async fn persistent<'a>(
    call: &'a Call,
    request: PersistentInstanceRequest<'a>,
) -> Result<InstanceResponse<'a>, Failure> {
    let service = service(&request.namespace, &request.group_name, &request.service_name)?;
    let (kind, services) = (request.kind, call.services());
    match &*kind {
        "registerInstance" => {
            let (endpoint, instance, healthy) = one(request.instance)?;
            services
                .register_persistent(service, endpoint, instance, healthy)
                .await?;
        }
        "deregisterInstance" => {
            let endpoint = new_instance(request.instance)?.endpoint()?;
            services.deregister_persistent(service, endpoint).await?;
        }
        other => return Err(unknown_kind(other)),
    }
    Ok(InstanceResponse {
        kind,
        ..InstanceResponse::ok()
    })
}

async fn list<'a>(
    call: &'a Call,
    request: ServiceListRequest<'a>,
) -> Result<ServiceListResponse<'a>, Failure> {
    ready(call).await?;
    // Names a group; the service in it is not looked at.
    let like = service(&request.namespace, &request.group_name, "any")?;
    let number = |asked: i32| usize::try_from(asked.clamp(0, PAGE_MAX)).unwrap_or_default();
    // There are clients that count from 0. A lower page is the first one, as over HTTP.
    let page = usize::try_from(request.page_no.max(1))
        .ok()
        .and_then(|page| PageRequest::new(page, number(request.page_size)))
        .ok_or_else(|| Failure::parameter("Param check invalid:pageSize begins at 1"))?;
    let found = call.services().services_of_group(&like, page);
    Ok(ServiceListResponse {
        count: i32::try_from(found.total).unwrap_or(i32::MAX),
        service_names: found
            .items
            .iter()
            .map(|key| key.name().to_owned().into())
            .collect(),
        ..ServiceListResponse::ok()
    })
}

/// Nobody is told a list while this node does not know yet what there is: clients would take it for the truth
/// and forget the rest. They ask again; for the log this node waits a moment itself.
pub(super) async fn ready(call: &Call) -> Result<(), Failure> {
    ready_when(call, Services::naming_is_ready).await
}

/// As [`ready`], for one service.
async fn ready_for(call: &Call, service: &ServiceKey) -> Result<(), Failure> {
    ready_when(call, |services| services.naming_is_ready_for(service)).await
}

async fn ready_when(
    call: &Call,
    is_ready: impl Fn(&Services) -> crate::error::Result<()>,
) -> Result<(), Failure> {
    let services = call.services();
    if is_ready(services).is_ok() {
        return Ok(());
    }
    services
        .readiness
        .log_is_told()
        .await
        .map_err(|_| Failure::starting())?;
    is_ready(services).map_err(|_| Failure::starting())
}

fn service(namespace: &str, group: &str, name: &str) -> Result<ServiceKey, Failure> {
    let name = ServiceName {
        namespace: Some(namespace),
        group: Some(group),
        service: Some(name),
    };
    Ok(name.key()?)
}

fn one(sent: Sent<'_>) -> Result<(Endpoint, Instance, bool), Failure> {
    let healthy = sent.healthy;
    let (endpoint, instance) = new_instance(sent)?.check()?;
    Ok((endpoint, instance, healthy))
}

fn new_instance(sent: Sent<'_>) -> Result<NewInstance<'_>, Failure> {
    let port = u16::try_from(sent.port).map_err(|_| {
        Failure::parameter(format!(
            "Param check invalid:Param 'port' is illegal: {}",
            sent.port
        ))
    })?;
    let metadata = sent.metadata.into_iter();
    Ok(NewInstance {
        ip: sent.ip,
        port,
        cluster: sent.cluster_name,
        weight: Some(sent.weight),
        enabled: Some(sent.enabled),
        metadata: metadata
            .map(|(name, value)| (boxed(name), boxed(value)))
            .collect(),
    })
}

fn boxed(text: Text<'_>) -> Box<str> {
    text.into_owned().into()
}

fn unknown_kind(kind: &str) -> Failure {
    Failure::parameter(format!("Param check invalid:unsupported operation type : {kind}"))
}
