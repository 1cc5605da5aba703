//! Asking clients what they hold of configs: `ClientConfigMetricRequest`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use proto::nacos::config::{ClientConfigMetricRequest, ClientConfigMetricResponse, MetricsKey};
use serde_json::Value;

use super::connection::{Client, Registry};
use crate::service::clients::Metered;

/// A client has so long to answer. Less than another node that has been asked has.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// Clients with one address that are asked; behind a translation of addresses there may be thousands.
const CLIENTS_MAX: usize = 100;
/// Bytes of all answers together. What does not fit is left out.
const ANSWERS_BYTES_MAX: usize = 4 << 20;

/// What a client holds, and what it has kept on its disk.
const KINDS: [&str; 2] = ["cacheData", "snapshotData"];

impl Client {
    /// True when this question can concern it: SDKs have connections for naming, too, and say so.
    fn is_metered(&self, ip: &str) -> bool {
        let is_there = *self.setup.client_ip == *ip
            || ip
                .parse::<IpAddr>()
                .is_ok_and(|ip| ip.to_canonical() == self.remote.ip().to_canonical());
        is_there && self.setup.label("module").is_none_or(|module| module != "naming")
    }

    async fn config_metrics(&self, asked: &Metered) -> Option<Vec<u8>> {
        let keys = asked.keys.iter();
        let asked = keys.flat_map(|key| {
            KINDS.map(|kind| MetricsKey {
                kind: kind.into(),
                key: key.as_str().into(),
            })
        });
        let asked = asked.collect();
        let answer = self.ask(ANSWER_WITHIN, |id| ClientConfigMetricRequest {
            request_id: Some(id),
            metrics_keys: asked,
            ..ClientConfigMetricRequest::default()
        });
        // One that cannot answer, or does not know the question, is left out.
        answer.await.ok().map(Vec::from)
    }
}

/// What the clients with an address say of themselves, by what each calls itself (mostly a random id).
pub(super) async fn config_metrics(clients: &Registry, asked: &Metered) -> BTreeMap<String, Value> {
    let mut metered = clients.clients();
    metered.retain(|client| client.is_metered(&asked.ip));
    metered.truncate(CLIENTS_MAX);
    let asked = Arc::new(asked.clone());
    let answers: Vec<_> = metered
        .into_iter()
        .map(|client| {
            let asked = Arc::clone(&asked);
            clients
                .stopping()
                .spawn(async move { client.config_metrics(&asked).await })
        })
        .collect();
    let (mut all, mut bytes) = (BTreeMap::new(), 0);
    for answer in answers {
        let Some(answer) = answer.await.ok().flatten() else {
            continue;
        };
        bytes += answer.len();
        if bytes > ANSWERS_BYTES_MAX {
            break;
        }
        let Ok(told) = proto::nacos::read::<ClientConfigMetricResponse<'_>>(&answer) else {
            continue;
        };
        let told = told.metrics.into_iter();
        all.extend(told.map(|(name, value)| (name.into_owned(), value)));
    }
    all
}
