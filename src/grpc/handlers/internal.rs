//! The connection itself. `ServerCheckRequest` is not here: it is answered before there is a client.

use proto::nacos::Response as _;
use proto::nacos::remote::{HealthCheckRequest, HealthCheckResponse};

use crate::grpc::dispatch::{Call, Failure, Row, rows};

pub(super) const ROWS: &[Row] = rows! {
    HealthCheckRequest => HealthCheckResponse: health_check;
};

/// That the client is registered was found out before this; its call has refreshed it.
async fn health_check<'a>(_: &Call, _: HealthCheckRequest<'_>) -> Result<HealthCheckResponse<'a>, Failure> {
    Ok(HealthCheckResponse::ok())
}
