//! What readers get, as bytes: rendered once per state of a service, filter and form, shared by all.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use proto::nacos::naming as wire;

use crate::model::{Endpoint, ServiceKey};
use crate::naming::{BEAT_INTERVAL_MS, Filter, Metadata, Registry, Seen, Stamp, View, Whole, preserved};

/// For how long clients may use an answer without asking again, ms: `cacheMillis`.
pub const CACHE_MS: u64 = 10_000;
/// Bytes of answers kept, and of what they are made from. Beyond it all are dropped: the next reader of each makes it
/// again.
const BYTES_MAX: usize = 128 << 20;
/// An answer that nobody asked for during so many sweeps is dropped.
const IDLE_SWEEPS: u8 = 3;
/// Answers of one service that are kept; clients choose their filters freely.
const PER_SERVICE_MAX: usize = 16;
/// Of a service of so many instances what answers are made from is kept, too: taking it costs some 50 ns each.
const WIDE_HOSTS: usize = 256;
/// Rendering so many takes a millisecond.
const LONG_HOSTS: usize = 1_000;

/// The form of an answer: what differs between the protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// HTTP and UDP: `name` is `group@@service`.
    Http,
    /// gRPC: `name` is the service alone.
    Grpc,
}

/// Answers that are ready.
///
/// What is looked up is under the registry's lock, what takes long is not: an answer that is not ready comes back
/// as a [`Job`], is made by whoever asked, and put back for the next one.
#[derive(Debug, Default)]
pub(super) struct Answers {
    by_service: HashMap<ServiceKey, OfService>,
    bytes: usize,
    /// Answers that were given.
    given: u64,
}

/// What is ready of one service; all of it shows the same state.
#[derive(Debug)]
struct OfService {
    /// The state that is shown.
    content: Stamp,
    /// What answers to other filters are made from, of a wide service.
    whole: Option<Arc<Whole>>,
    ready: Vec<Ready>,
}

#[derive(Debug)]
struct Ready {
    filter: Filter,
    form: Form,
    /// The stamp that stands in `bytes`.
    stamp: Stamp,
    bytes: Bytes,
    /// Sweeps since somebody asked.
    idle: u8,
    /// [`Answers::given`] when somebody asked last.
    given: u64,
}

/// What there is for a query.
#[derive(Debug)]
pub(super) enum Found {
    /// The answer.
    Ready(Bytes),
    /// It is to be made.
    Job(Box<Job>),
}

/// An answer that is to be made.
#[derive(Debug)]
pub(super) struct Job {
    service: ServiceKey,
    filter: Filter,
    form: Form,
    content: Stamp,
    stamp: Stamp,
    from: Material,
}

#[derive(Debug)]
enum Material {
    Whole(Arc<Whole>),
    /// The same answer with a lower stamp.
    Before(Bytes),
}

impl Job {
    /// True if making it takes long enough to be felt by others who wait for this thread.
    pub(super) fn is_long(&self) -> bool {
        match &self.from {
            Material::Before(_) => false,
            Material::Whole(whole) => whole.len() >= LONG_HOSTS,
        }
    }

    /// The answer.
    pub(super) fn make(&self) -> Bytes {
        match &self.from {
            Material::Before(bytes) => restamped(bytes, self.stamp),
            Material::Whole(whole) => {
                let view = View {
                    stamp: self.stamp,
                    ..whole.view(&self.filter)
                };
                render(&self.service, &self.filter, self.form, &view).into()
            }
        }
    }
}

impl OfService {
    fn showing(content: Stamp) -> OfService {
        OfService {
            content,
            whole: None,
            ready: Vec::new(),
        }
    }

    fn bytes(&self) -> usize {
        let whole = self.whole.as_ref().map_or(0, |whole| whole.bytes());
        whole + self.ready.iter().map(|ready| ready.bytes.len()).sum::<usize>()
    }

    fn ready(&mut self, filter: &Filter, form: Form) -> Option<&mut Ready> {
        let mut all = self.ready.iter_mut();
        all.find(|ready| ready.form == form && ready.filter == *filter)
    }

    /// Puts an answer in the place of what it is newer than, or of the one that nobody has asked for the longest.
    fn keep(&mut self, answer: Ready) {
        if let Some(ready) = self.ready(&answer.filter, answer.form) {
            if ready.stamp < answer.stamp {
                *ready = answer;
            }
            return;
        }
        if self.ready.len() >= PER_SERVICE_MAX {
            let ages = self.ready.iter().enumerate();
            if let Some((oldest, _)) = ages.min_by_key(|(_, ready)| ready.given) {
                self.ready.swap_remove(oldest);
            }
        }
        self.ready.push(answer);
    }
}

impl Answers {
    /// The answer to a query, or what it is made from.
    pub(super) fn find(
        &mut self,
        registry: &Registry,
        now_ms: u64,
        service: &ServiceKey,
        filter: &Filter,
        form: Form,
    ) -> Found {
        let Some((content, stamp)) = registry.version(service) else {
            // Below what a registration draws within the same millisecond: what follows is newer.
            let Stamp(now) = registry.times(now_ms).lists;
            let view = View {
                stamp: Stamp(now.saturating_sub(1)),
                ..View::default()
            };
            return Found::Ready(render(service, filter, form, &view).into());
        };
        self.given += 1;
        let given = self.given;
        let shown = self.by_service.get_mut(service);
        let mut shown = shown.filter(|shown| shown.content == content);
        let mut before = None;
        if let Some(ready) = shown.as_mut().and_then(|shown| shown.ready(filter, form)) {
            (ready.idle, ready.given) = (0, given);
            if ready.stamp == stamp {
                return Found::Ready(ready.bytes.clone());
            }
            before = Some(Material::Before(ready.bytes.clone()));
        }
        let whole = shown.and_then(|shown| shown.whole.clone());
        let from = match (before, whole) {
            (Some(before), _) => before,
            (None, Some(whole)) => Material::Whole(whole),
            (None, None) => Material::Whole(self.whole(registry, content, service)),
        };
        Found::Job(Box::new(Job {
            service: service.clone(),
            filter: filter.clone(),
            form,
            content,
            stamp,
            from,
        }))
    }

    /// All of a service, kept for others if it is wide.
    fn whole(&mut self, registry: &Registry, content: Stamp, service: &ServiceKey) -> Arc<Whole> {
        let whole = Arc::new(registry.whole(service).unwrap_or_default());
        if whole.len() >= WIDE_HOSTS {
            self.change(service, content, |shown| shown.whole = Some(Arc::clone(&whole)));
        }
        whole
    }

    /// The answer that a job is to make, if somebody has made it meanwhile.
    pub(super) fn made_meanwhile(&mut self, job: &Job) -> Option<Bytes> {
        let shown = self.by_service.get_mut(&job.service);
        let shown = shown.filter(|shown| shown.content == job.content)?;
        let ready = shown.ready(&job.filter, job.form)?;
        (ready.stamp >= job.stamp).then(|| ready.bytes.clone())
    }

    /// Keeps an answer that was made, unless the service has changed meanwhile.
    pub(super) fn put_back(&mut self, registry: &Registry, job: Job, bytes: &Bytes) {
        let Job {
            service,
            filter,
            form,
            content,
            stamp,
            ..
        } = job;
        if registry.version(&service).map(|(content, _)| content) != Some(content) {
            return;
        }
        let answer = Ready {
            filter,
            form,
            stamp,
            bytes: bytes.clone(),
            idle: 0,
            given: self.given,
        };
        self.change(&service, content, |shown| shown.keep(answer));
    }

    /// Changes what is kept of a service; what shows an earlier state is of no use, whatever its filter.
    fn change(&mut self, service: &ServiceKey, content: Stamp, change: impl FnOnce(&mut OfService)) {
        if self.bytes > BYTES_MAX {
            self.by_service.clear();
            self.bytes = 0;
        }
        let shown = self.by_service.entry(service.clone());
        let shown = shown.or_insert_with(|| OfService::showing(content));
        self.bytes -= shown.bytes();
        if shown.content != content {
            *shown = OfService::showing(content);
        }
        change(shown);
        self.bytes += shown.bytes();
    }

    /// Drops what nobody has asked for lately: clients that poll do so every ten seconds, and what was pushed
    /// is not asked for again.
    pub(super) fn sweep(&mut self) {
        let mut bytes = 0;
        self.by_service.retain(|_, shown| {
            shown.ready.retain_mut(|ready| {
                ready.idle += 1;
                ready.idle < IDLE_SWEEPS
            });
            shown.ready.shrink_to_fit();
            let keep = !shown.ready.is_empty();
            bytes += if keep { shown.bytes() } else { 0 };
            keep
        });
        self.by_service.shrink_to(self.by_service.len() * 2);
        self.bytes = bytes;
    }

    /// A service is empty: nobody needs its answers before it is asked for again.
    pub(super) fn forget(&mut self, service: &ServiceKey) {
        if let Some(shown) = self.by_service.remove(service) {
            self.bytes -= shown.bytes();
        }
    }

    /// Bytes kept.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// A service as if nobody had registered: for servers that are built to be wrong.
pub(super) fn empty(registry: &Registry, service: &ServiceKey, filter: &Filter, form: Form) -> Bytes {
    let view = View {
        stamp: registry
            .version(service)
            .map(|(_, stamp)| stamp)
            .unwrap_or_default(),
        ..View::default()
    };
    render(service, filter, form, &view).into()
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
        instance_id: instance_id(service, endpoint, &instance.metadata).into(),
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

/// `ip#port#cluster#group@@service`; of an instance that asks for the generator `snowflake`
/// `number#cluster#group@@service` (contract 03 §12).
///
/// The number is none of a clock and a counter, as its name says, but a hash of where the instance is: it is the
/// same on every node and after every restart without being kept anywhere, which users of such ids rely on and
/// the Java server does not give them.
pub fn instance_id(service: &ServiceKey, endpoint: &Endpoint, metadata: &Metadata) -> String {
    let Endpoint { ip, port, cluster } = endpoint;
    if metadata.get(preserved::ID_GENERATOR) != Some("snowflake") {
        return format!("{ip}#{port}#{cluster}#{}", service.grouped());
    }
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    for part in [service.as_bytes(), ip.as_bytes(), cluster.as_bytes()] {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.update(&port.to_le_bytes());
    // A positive number of Java, as every snowflake is.
    let number = hash.digest() >> 1;
    format!("{number}#{cluster}#{}", service.grouped())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::NamespaceId;
    use crate::naming::{Instance, Origin, Owner, StampClock};

    fn service() -> ServiceKey {
        ServiceKey::new(&NamespaceId::default(), "g", "s")
    }

    fn of(clusters: &str) -> Filter {
        Filter {
            clusters: clusters.into(),
            ..Filter::default()
        }
    }

    fn registry(hosts: u16) -> Registry {
        let mut registry = Registry::new(Origin { node: 1, boot: 1 }, StampClock::new(1_000, 0));
        (1..=hosts).for_each(|port| register(&mut registry, port));
        registry
    }

    fn register(registry: &mut Registry, port: u16) {
        let place = Endpoint::new("10.0.0.1", port, "");
        let done = registry.register(0, &Owner::Beats, &service(), &place, Instance::default(), true);
        assert_eq!(done, Ok(()));
    }

    /// What has to be made for a query, or nothing if it is ready.
    fn job(answers: &mut Answers, registry: &Registry, clusters: &str) -> Option<Box<Job>> {
        match answers.find(registry, 0, &service(), &of(clusters), Form::Http) {
            Found::Ready(_) => None,
            Found::Job(job) => Some(job),
        }
    }

    fn is_ready(answers: &mut Answers, registry: &Registry, clusters: &str) -> bool {
        let Some(job) = job(answers, registry, clusters) else {
            return true;
        };
        let bytes = job.make();
        answers.put_back(registry, *job, &bytes);
        false
    }

    #[test]
    fn what_was_made_of_an_earlier_state_is_given_to_nobody_else() {
        let (mut answers, mut registry) = (Answers::default(), registry(2));
        let old = job(&mut answers, &registry, "").expect("nothing is ready");
        let bytes = old.make();
        register(&mut registry, 3);
        answers.put_back(&registry, *old, &bytes);
        assert_eq!(answers.bytes(), 0);
        assert!(!is_ready(&mut answers, &registry, ""));
        assert!(is_ready(&mut answers, &registry, ""));
        register(&mut registry, 4);
        assert!(!is_ready(&mut answers, &registry, ""));
    }

    #[test]
    fn an_answer_with_a_lower_stamp_takes_no_higher_ones_place() {
        let (mut answers, mut registry) = (Answers::default(), registry(1));
        assert!(!is_ready(&mut answers, &registry, ""));
        registry.raise(0, &service());
        let lower = job(&mut answers, &registry, "").expect("another stamp");
        assert!(matches!(lower.from, Material::Before(_)));
        registry.raise(0, &service());
        assert!(!is_ready(&mut answers, &registry, ""));
        let bytes = lower.make();
        answers.put_back(&registry, *lower, &bytes);
        assert!(is_ready(&mut answers, &registry, ""), "with the highest stamp");
    }

    #[test]
    fn what_somebody_else_has_made_meanwhile_is_not_made_again() {
        let (mut answers, mut registry) = (Answers::default(), registry(1));
        let waits = job(&mut answers, &registry, "").expect("nothing is ready");
        assert_eq!(answers.made_meanwhile(&waits), None);
        assert!(!is_ready(&mut answers, &registry, ""));
        assert_eq!(answers.made_meanwhile(&waits), Some(waits.make()));
        registry.raise(0, &service());
        let newer = job(&mut answers, &registry, "").expect("another stamp");
        assert_eq!(answers.made_meanwhile(&newer), None);
    }

    #[test]
    fn odd_filters_do_not_push_out_what_everybody_asks_for() {
        let (mut answers, registry) = (Answers::default(), registry(1));
        assert!(!is_ready(&mut answers, &registry, ""));
        for odd in 0..10 * PER_SERVICE_MAX {
            assert!(!is_ready(&mut answers, &registry, &format!("odd-{odd}")));
            assert!(is_ready(&mut answers, &registry, ""));
        }
        assert!(answers.by_service[&service()].ready.len() <= PER_SERVICE_MAX);
    }

    #[test]
    fn all_filters_of_a_wide_service_are_answered_from_one_look() {
        let (mut answers, mut registry) = (Answers::default(), registry(WIDE_HOSTS as u16));
        let looked = |job: Option<Box<Job>>| match job.map(|job| job.from) {
            Some(Material::Whole(whole)) => whole,
            other => panic!("{other:?}"),
        };
        let first = looked(job(&mut answers, &registry, "a"));
        assert!(Arc::ptr_eq(&first, &looked(job(&mut answers, &registry, "b"))));
        assert!(answers.bytes() > 0);
        register(&mut registry, 9_999);
        let changed = looked(job(&mut answers, &registry, "b"));
        assert_eq!(changed.len(), WIDE_HOSTS + 1);
        answers.sweep();
        assert_eq!(answers.bytes(), 0, "nobody asked for what was made of it");
    }
}
