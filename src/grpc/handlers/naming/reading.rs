//! Answers and pushes that hold a service: its JSON is rendered once for everybody and put in as it is.

use bytes::Bytes;
use proto::nacos::naming::{
    QueryServiceResponse, ServiceQueryRequest, SubscribeServiceRequest, SubscribeServiceResponse,
};
use proto::nacos::{self, Message, Response, Text};

use super::connected::Connected;
use super::{SERVICE_INFO, ready_for, service};
use crate::cluster::BoxFuture;
use crate::discovery::Form;
use crate::grpc::dispatch::{Answer, Call, Failure, Row, bad_body};
use crate::service::naming::filter;

/// Failures are told as an `ErrorResponse`: SDKs do not read an answer of these types without a service.
pub(super) const ROWS: &[Row] = &[
    Row {
        name: ServiceQueryRequest::TYPE,
        run: query,
    },
    Row {
        name: SubscribeServiceRequest::TYPE,
        run: subscribe,
    },
];

fn query(call: Call) -> BoxFuture<'static, Answer> {
    Box::pin(async move {
        let request: ServiceQueryRequest<'_> = match call.payload.read() {
            Ok(request) => request,
            Err(error) => return bad_body(&call, &error),
        };
        let id = request.request_id.clone();
        with_service::<QueryServiceResponse<'_>>(found(&call, &request).await, id)
    })
}

async fn found(call: &Call, request: &ServiceQueryRequest<'_>) -> Result<Bytes, Failure> {
    let key = service(&request.namespace, &request.group_name, &request.service_name)?;
    let filter = filter(&request.cluster, request.healthy_only)?;
    ready_for(call, &key).await?;
    Ok(call.services().query(&key, &filter, Form::Grpc)?)
}

fn subscribe(call: Call) -> BoxFuture<'static, Answer> {
    Box::pin(async move {
        let request: SubscribeServiceRequest<'_> = match call.payload.read() {
            Ok(request) => request,
            Err(error) => return bad_body(&call, &error),
        };
        let id = request.request_id.clone();
        with_service::<SubscribeServiceResponse<'_>>(subscribed(&call, &request).await, id)
    })
}

async fn subscribed(call: &Call, request: &SubscribeServiceRequest<'_>) -> Result<Bytes, Failure> {
    let key = service(&request.namespace, &request.group_name, &request.service_name)?;
    let filter = filter(&request.clusters, false)?;
    ready_for(call, &key).await?;
    if request.subscribe {
        return Ok(Connected::of(call)?.client.subscribe(&key, filter)?);
    }
    if let Some(connected) = call.client.find_extension::<Connected>() {
        connected.client.unsubscribe(&key);
    }
    Ok(call.services().query(&key, &filter, Form::Grpc)?)
}

/// The answer with the service in it, or an `ErrorResponse`.
fn with_service<'a, R: Response<'a>>(found: Result<Bytes, Failure>, id: Option<Text<'a>>) -> Answer {
    match found {
        Ok(json) => Answer::framed(nacos::frame_with(&R::ok().answering(id), SERVICE_INFO, &json)),
        Err(failure) => Answer::of::<R>(Err(failure.thrown()), id),
    }
}
