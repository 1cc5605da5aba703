//! The floor over gRPC: bare h2, the payload decoded, a ready-made answer.
//!
//! As [`floor`](crate::floor) it is fixed. It answers server check, health check, query and publish of configs,
//! registration and query of services, takes setups, and pushes nothing.

use std::sync::Arc;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use proto::grpc::FrameDecoder;
use proto::nacos::config::{
    ConfigPublishRequest, ConfigPublishResponse, ConfigQueryRequest, ConfigQueryResponse,
};
use proto::nacos::naming::{
    Instance, InstanceRequest, InstanceResponse, QueryServiceResponse, ServiceInfo, ServiceQueryRequest,
};
use proto::nacos::remote::{
    ErrorResponse, HealthCheckRequest, HealthCheckResponse, ServerCheckRequest, ServerCheckResponse,
};
use proto::nacos::{self, Message as _, Payload, Response as _};
use tokio::net::{TcpListener, TcpStream};

use crate::floor::{Floor, INSTANCES};
use crate::naming::{GROUP, PORT, REGISTER, ip};

/// The answers, encoded once.
pub(crate) struct Answers {
    floor: Arc<Floor>,
    check: Bytes,
    health: Bytes,
    query: Bytes,
    published: Bytes,
    registered: Bytes,
    hosts: Bytes,
    failed: Bytes,
    unknown: Bytes,
}

impl Answers {
    /// Answers whose content is `content_bytes` long.
    pub(crate) fn new(floor: Arc<Floor>, content_bytes: usize) -> Self {
        let check = ServerCheckResponse {
            connection_id: "1_127.0.0.1_1".into(),
            ..ServerCheckResponse::ok()
        };
        let query = ConfigQueryResponse {
            content: Some("x".repeat(content_bytes).into()),
            md5: Some("0".repeat(32).into()),
            content_type: Some("text".into()),
            last_modified: 1_763_802_000_123,
            ..ConfigQueryResponse::ok()
        };
        let registered = InstanceResponse {
            kind: REGISTER.into(),
            ..InstanceResponse::ok()
        };
        let hosts = QueryServiceResponse {
            service_info: Some(service()),
            ..QueryServiceResponse::ok()
        };
        Self {
            floor,
            registered: nacos::frame(&registered),
            hosts: nacos::frame(&hosts),
            check: nacos::frame(&check),
            health: nacos::frame(&HealthCheckResponse::ok()),
            query: nacos::frame(&query),
            published: nacos::frame(&ConfigPublishResponse::ok()),
            failed: nacos::frame(&ErrorResponse::with_code(500, "the log cannot be written")),
            unknown: nacos::frame(&ErrorResponse::with_code(302, "no handler")),
        }
    }
}

/// What every query is answered.
fn service() -> ServiceInfo<'static> {
    let instance = |number| Instance {
        instance_id: format!("{}#{PORT}#DEFAULT#{GROUP}@@floor", ip(number)).into(),
        ip: ip(number).to_string().into(),
        port: PORT.into(),
        service_name: format!("{GROUP}@@floor").into(),
        ..Default::default()
    };
    ServiceInfo {
        name: "floor".into(),
        group_name: GROUP.into(),
        hosts: (0..INSTANCES).map(instance).collect(),
        last_ref_time: 1_763_802_000_123,
        ..Default::default()
    }
}

/// Serves until the process ends.
pub(crate) async fn serve(listener: TcpListener, answers: Arc<Answers>) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let answers = Arc::clone(&answers);
        // A client that goes away is no event.
        tokio::spawn(async move { drop(connection(stream, answers).await) });
    }
}

async fn connection(stream: TcpStream, answers: Arc<Answers>) -> Result<(), h2::Error> {
    let mut connection = h2::server::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(1 << 20)
        .handshake::<_, Bytes>(stream)
        .await?;
    while let Some(accepted) = connection.accept().await {
        let (request, respond) = accepted?;
        let answers = Arc::clone(&answers);
        tokio::spawn(async move { drop(call(request, respond, &answers).await) });
    }
    Ok(())
}

async fn call(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    answers: &Answers,
) -> Result<(), h2::Error> {
    let is_unary = request.uri().path() == "/Request/request";
    let mut head = Response::new(());
    head.headers_mut()
        .insert("content-type", HeaderValue::from_static("application/grpc"));
    let mut body = request.into_body();
    let mut decoder = FrameDecoder::default();
    let mut out = None;
    if !is_unary {
        // The stream stays open, and silent, until the client ends it.
        out = Some(respond.send_response(head.clone(), false)?);
    }
    let mut answer = None;
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        decoder.push(chunk);
        while let Ok(Some(frame)) = decoder.next_frame() {
            if is_unary {
                answer = Some(answer_to(frame.message, answers).await);
            }
        }
    }
    let mut out = match out {
        Some(out) => out,
        None => respond.send_response(head, false)?,
    };
    if let Some(answer) = answer {
        out.send_data(answer, false)?;
    } else if is_unary {
        out.send_reset(Reason::PROTOCOL_ERROR);
        return Ok(());
    }
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    out.send_trailers(trailers)
}

async fn answer_to(message: Bytes, answers: &Answers) -> Bytes {
    let Ok(payload) = Payload::decode(message) else {
        return answers.unknown.clone();
    };
    let answer = match payload.type_name() {
        HealthCheckRequest::TYPE => &answers.health,
        ConfigQueryRequest::TYPE => &answers.query,
        InstanceRequest::TYPE => &answers.registered,
        ServiceQueryRequest::TYPE => &answers.hosts,
        ServerCheckRequest::TYPE => &answers.check,
        ConfigPublishRequest::TYPE => {
            let body = Bytes::copy_from_slice(payload.json());
            if answers.floor.append(body).await {
                &answers.published
            } else {
                &answers.failed
            }
        }
        _ => &answers.unknown,
    };
    answer.clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Contents;
    use crate::grpc::{Sdk, beside};
    use crate::grpc_work::{Expected, Line};
    use crate::run::{Check, Work};

    #[tokio::test]
    async fn every_kind_of_work_is_answered_and_a_wrong_content_is_seen() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let answers = Arc::new(Answers::new(Arc::new(Floor::for_test()), 100));
        tokio::spawn(serve(listener, answers));
        let contents = Contents::new(1, 100);
        let expected = |check, size| Expected {
            contents: &contents,
            key: 1,
            version: 1,
            check,
            size,
        };
        let mut line = Line::new(address);
        for work in [Work::GrpcBeat, Work::GrpcRead, Work::GrpcWrite, Work::GrpcBeat] {
            let outcome = line
                .once(work, "a", b"content", expected(Check::Length, 100))
                .await;
            assert!(outcome.is_ok(), "{work:?}");
        }
        let short = line
            .once(Work::GrpcRead, "a", b"", expected(Check::Length, 99))
            .await;
        assert!(short.is_err());
        let other = line
            .once(Work::GrpcRead, "a", b"", expected(Check::Content, 100))
            .await;
        assert!(other.is_err());
        let sdk = Sdk::open(address, Arc::new(|_| {})).await.expect("registers");
        assert_eq!(sdk.connection_id(), "1_127.0.0.1_1");
        assert!(sdk.usable());
        assert_eq!(beside("127.0.0.1:8848".parse().expect("an address")).port(), 9848);
    }
}
