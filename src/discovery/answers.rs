//! What readers get, as bytes: rendered once per state of a service, filter and form, shared by all.

use std::collections::HashMap;

use bytes::Bytes;
use proto::nacos::naming as wire;

use crate::model::{Endpoint, ServiceKey};
use crate::naming::{BEAT_INTERVAL_MS, Filter, Registry, Seen, Stamp, View, preserved};

/// For how long clients may use an answer without asking again, ms: `cacheMillis`.
pub const CACHE_MS: u64 = 10_000;
/// Bytes of rendered answers kept. At the bound all are dropped: the next reader of each renders it again.
const BYTES_MAX: usize = 128 << 20;
/// An answer that nobody asked for during so many sweeps is dropped.
const IDLE_SWEEPS: u8 = 3;
/// Filters of one service whose answers are kept; clients choose them freely.
const PER_SERVICE_MAX: usize = 16;

/// The form of an answer: what differs between the protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// HTTP and UDP: `name` is `group@@service`.
    Http,
    /// gRPC: `name` is the service alone.
    Grpc,
}

/// Answers that are ready.
#[derive(Debug, Default)]
pub(super) struct Answers {
    by_service: HashMap<ServiceKey, Vec<Ready>>,
    bytes: usize,
}

#[derive(Debug)]
struct Ready {
    filter: Filter,
    form: Form,
    /// The state of the service that is shown.
    content: Stamp,
    /// The stamp that stands in `bytes`.
    stamp: Stamp,
    bytes: Bytes,
    /// Sweeps since somebody asked.
    idle: u8,
}

impl Answers {
    /// The answer to a query.
    pub(super) fn get(
        &mut self,
        registry: &Registry,
        now_ms: u64,
        service: &ServiceKey,
        filter: &Filter,
        form: Form,
    ) -> Bytes {
        let Some((content, stamp)) = registry.version(service) else {
            // Below what a registration draws within the same millisecond: what follows is newer.
            let Stamp(now) = registry.logical_now(now_ms);
            let view = View {
                stamp: Stamp(now.saturating_sub(1)),
                ..View::default()
            };
            return render(service, filter, form, &view).into();
        };
        let ready = self.by_service.get_mut(service);
        let ready = ready.and_then(|all| {
            all.iter_mut()
                .find(|ready| ready.form == form && ready.filter == *filter)
        });
        if let Some(ready) = ready
            && ready.content == content
        {
            ready.idle = 0;
            if ready.stamp != stamp {
                ready.bytes = restamped(&ready.bytes, stamp);
                ready.stamp = stamp;
            }
            return ready.bytes.clone();
        }
        let view = registry.view(service, filter).unwrap_or_default();
        let bytes = Bytes::from(render(service, filter, form, &view));
        self.keep(
            service,
            Ready {
                filter: filter.clone(),
                form,
                content,
                stamp,
                bytes: bytes.clone(),
                idle: 0,
            },
        );
        bytes
    }

    /// Drops what nobody has asked for lately: clients that poll do so every ten seconds, and what was pushed
    /// is not asked for again.
    pub(super) fn sweep(&mut self) {
        let mut bytes = 0;
        self.by_service.retain(|_, all| {
            all.retain_mut(|ready| {
                ready.idle += 1;
                ready.idle < IDLE_SWEEPS
            });
            bytes += all.iter().map(|ready| ready.bytes.len()).sum::<usize>();
            all.shrink_to_fit();
            !all.is_empty()
        });
        self.by_service.shrink_to(self.by_service.len() * 2);
        self.bytes = bytes;
    }

    /// A service is empty: nobody needs its answers before it is asked for again.
    pub(super) fn forget(&mut self, service: &ServiceKey) {
        for ready in self.by_service.remove(service).unwrap_or_default() {
            self.bytes = self.bytes.saturating_sub(ready.bytes.len());
        }
    }

    fn keep(&mut self, service: &ServiceKey, ready: Ready) {
        if self.bytes + ready.bytes.len() > BYTES_MAX {
            self.by_service.clear();
            self.bytes = 0;
        }
        let all = self.by_service.entry(service.clone()).or_default();
        // What shows an earlier state is of no use, whatever its filter.
        let mut freed = 0;
        all.retain(|other| {
            let keep = other.content == ready.content;
            freed += if keep { 0 } else { other.bytes.len() };
            keep
        });
        if all.len() >= PER_SERVICE_MAX {
            freed += all.remove(0).bytes.len();
        }
        self.bytes = (self.bytes + ready.bytes.len()).saturating_sub(freed);
        all.push(ready);
    }

    /// Bytes kept.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// `"lastRefTime":` stands behind the hosts, so that no text of a client comes after it.
const STAMP_NAME: &[u8] = b"\"lastRefTime\":";

/// The same answer with another stamp.
fn restamped(bytes: &[u8], stamp: Stamp) -> Bytes {
    let name = bytes
        .windows(STAMP_NAME.len())
        .rposition(|window| window == STAMP_NAME);
    let Some(at) = name.map(|at| at + STAMP_NAME.len()) else {
        return Bytes::copy_from_slice(bytes);
    };
    let (before, rest) = bytes.split_at(at);
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut out = Vec::with_capacity(bytes.len() + 1);
    out.extend_from_slice(before);
    out.extend_from_slice(stamp.0.to_string().as_bytes());
    out.extend_from_slice(rest.get(digits..).unwrap_or_default());
    out.into()
}

fn render(service: &ServiceKey, filter: &Filter, form: Form, view: &View) -> Vec<u8> {
    let info = wire::ServiceInfo {
        name: match form {
            Form::Http => service.grouped().into(),
            Form::Grpc => service.name().into(),
        },
        group_name: service.group().into(),
        clusters: (&*filter.clusters).into(),
        cache_ms: CACHE_MS as i64,
        hosts: view
            .hosts
            .iter()
            .map(|(endpoint, seen)| host(service, endpoint, seen))
            .collect(),
        last_ref_time: i64::try_from(view.stamp.0).unwrap_or(i64::MAX),
        reach_protection_threshold: view.reach_protection,
        ..wire::ServiceInfo::default()
    };
    // Nothing in it can fail to be written: all names are texts.
    serde_json::to_vec(&info).unwrap_or_default()
}

/// An instance as answers show it.
pub(super) fn host<'a>(
    service: &'a ServiceKey,
    endpoint: &'a Endpoint,
    seen: &'a Seen,
) -> wire::Instance<'a> {
    let instance = &seen.instance;
    let millis = |millis: u64| i64::try_from(millis).unwrap_or(i64::MAX);
    let generator = instance.metadata.get(preserved::ID_GENERATOR);
    wire::Instance {
        instance_id: instance_id(service, endpoint).into(),
        ip: (&*endpoint.ip).into(),
        port: i32::from(endpoint.port),
        weight: instance.weight,
        healthy: seen.healthy,
        enabled: instance.enabled,
        ephemeral: seen.ephemeral,
        cluster_name: (&*endpoint.cluster).into(),
        service_name: service.grouped().into(),
        metadata: instance
            .metadata
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect(),
        heart_beat_interval_ms: millis(instance.beat_interval_ms().unwrap_or(BEAT_INTERVAL_MS)),
        heart_beat_timeout_ms: millis(instance.beat_timeout_ms()),
        ip_delete_timeout_ms: millis(instance.delete_timeout_ms()),
        instance_id_generator: generator.unwrap_or("simple").into(),
    }
}

/// `ip#port#cluster#group@@service`.
pub fn instance_id(service: &ServiceKey, endpoint: &Endpoint) -> String {
    let Endpoint { ip, port, cluster } = endpoint;
    format!("{ip}#{port}#{cluster}#{}", service.grouped())
}
