//! One connection's part in a run over instances, and what stands around it: instances that must be there
//! before, a look at what was acknowledged after, and clearing up.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use anyhow::Context as _;
use proto::nacos::Payload;
use proto::nacos::naming::{InstanceResponse, QueryServiceResponse, ServiceQueryRequest};
use tokio::time::{Instant, sleep, timeout};

use super::{GROUP, Listed, REGISTER, Registration, beat_code, list_request};
use crate::figures::Errors;
use crate::grpc::{Sdk, beside, silent, understood, wait_until_open};
use crate::http::Connection;
use crate::run::{CATCH_UP, PATIENCE, Plan, Problem, REDIAL, expect, refused};
use crate::stored::join_all;
use crate::work::{Check, Work};

/// Instances of a service that is listed.
pub(crate) const HOSTS: u32 = 10;

/// Requests side by side outside the measured part.
const HELPERS: usize = 32;

/// An instance that sends no beats is looked for only within this time of its registration: after 15 s it
/// is unhealthy, after 30 s gone.
const FRESH: Duration = Duration::from_secs(12);

/// Services that are looked at after a run of registrations, on each address; evenly picked.
const LOOKED_AT_MAX: usize = 2_000;

/// How the instances of a run lie on services.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    prefix: String,
    /// Connections that register new instances side by side in one service.
    side_by_side: u32,
    groups: u32,
}

impl Layout {
    pub(crate) fn new(plan: &Plan) -> Self {
        let connections = u32::try_from(plan.connections.max(1)).unwrap_or(u32::MAX);
        let groups = connections.div_ceil(HOSTS);
        Self {
            prefix: format!("load.{}.{:x}", plan.work.name(), plan.seed),
            side_by_side: connections.div_ceil(groups),
            groups,
        }
    }

    fn service(&self, number: u32) -> String {
        format!("{}.{number}", self.prefix)
    }

    /// Service and number of the `turn`-th new instance of a connection. No two of one connection are in one
    /// service, since a gRPC connection has one instance of a service at most.
    fn fresh(&self, connection: u32, turn: u32) -> (u32, u32) {
        let service = turn.wrapping_mul(self.groups) + connection % self.groups;
        let instance = service.wrapping_mul(self.side_by_side) + connection / self.groups;
        (service, instance)
    }

    /// Instances of a service that was filled before the run.
    fn filled(service: u32) -> Range<u32> {
        service * HOSTS..(service + 1) * HOSTS
    }

    /// Services that are filled before the run: `keys` instances in all.
    fn services(plan: &Plan) -> u32 {
        plan.keys.div_ceil(HOSTS).max(1)
    }
}

/// What one connection does.
#[derive(Debug)]
pub(crate) struct Part {
    layout: Layout,
    work: Work,
    check: Check,
    number: u32,
    connections: u32,
    services: u32,
    authority: String,
    request: Vec<u8>,
    /// The last right answer for each service: an equal one need not be read again.
    seen: HashMap<u32, Vec<u8>>,
    /// Turns that were acknowledged, and when.
    registered: Vec<(Instant, u32)>,
}

impl Part {
    pub(crate) fn new(plan: &Plan, number: usize, authority: &str) -> Self {
        Self {
            layout: Layout::new(plan),
            work: plan.work,
            check: plan.check,
            number: u32::try_from(number).unwrap_or(0),
            connections: u32::try_from(plan.connections.max(1)).unwrap_or(u32::MAX),
            services: Layout::services(plan),
            authority: authority.to_owned(),
            request: Vec::new(),
            seen: HashMap::new(),
            registered: Vec::new(),
        }
    }

    /// Does it once over HTTP; `turn` counts, `roll` is random.
    pub(crate) async fn over_http(
        &mut self,
        connection: &mut Connection,
        turn: u32,
        roll: u32,
    ) -> Result<(), Problem> {
        let (service, instance) = match self.work {
            Work::Register => self.layout.fresh(self.number, turn),
            Work::Beat => {
                let all = self.services * HOSTS;
                let instance = turn.wrapping_mul(self.connections).wrapping_add(self.number) % all;
                (instance / HOSTS, instance)
            }
            _ => (roll % self.services, 0),
        };
        let name = self.layout.service(service);
        let registration = Registration {
            service: &name,
            instance,
            metadata: "",
        };
        match self.work {
            Work::Register => registration.register(&mut self.request, &self.authority),
            Work::Beat => registration.beat(&mut self.request, &self.authority),
            _ => list_request(&mut self.request, &self.authority, &name),
        }
        let answer = connection.exchange(&self.request).await?;
        let right = match self.work {
            Work::Register => answer.body == b"ok",
            Work::Beat => beat_code(answer.body) == Some(10200),
            _ => is_listed(&mut self.seen, self.check, service, answer.body),
        };
        expect(answer.status, answer.body, right)?;
        if self.work == Work::Register {
            self.registered.push((Instant::now(), turn));
        }
        Ok(())
    }

    /// Does it once over gRPC.
    pub(crate) async fn over_grpc(&mut self, sdk: &mut Sdk, turn: u32, roll: u32) -> Result<(), Problem> {
        if self.work == Work::GrpcRegister {
            let (service, instance) = self.layout.fresh(self.number, turn);
            let name = self.layout.service(service);
            register_over_grpc(sdk, &name, instance).await?;
            self.registered.push((Instant::now(), turn));
            return Ok(());
        }
        let service = roll % self.services;
        let name = self.layout.service(service);
        let request = ServiceQueryRequest {
            service_name: name.as_str().into(),
            group_name: GROUP.into(),
            ..Default::default()
        };
        let answer = sdk.ask(&request).await?;
        let Some(seen) = self.seen.get(&service).filter(|seen| *seen == answer.json()) else {
            return self.read_query(service, &answer);
        };
        debug_assert!(!seen.is_empty(), "only right answers are kept");
        Ok(())
    }

    fn read_query(&mut self, service: u32, answer: &Payload) -> Result<(), Problem> {
        let found: QueryServiceResponse<'_> = understood(answer).map_err(refused)?;
        let listed = found.service_info.map(Listed::of);
        if listed.is_some_and(|listed| is_right(self.check, service, &listed)) {
            self.seen.insert(service, answer.json().to_vec());
            return Ok(());
        }
        let shown = String::from_utf8_lossy(answer.json().get(..200).unwrap_or(answer.json())).into_owned();
        Err(Problem::Wrong(format!("an unexpected answer: {shown}")))
    }

    /// Service and number of every acknowledged registration, and when it was.
    pub(crate) fn registered(&self) -> impl Iterator<Item = (Instant, u32, u32)> + '_ {
        self.registered.iter().map(|(at, turn)| {
            let (service, instance) = self.layout.fresh(self.number, *turn);
            (*at, service, instance)
        })
    }
}

async fn register_over_grpc(sdk: &mut Sdk, service: &str, instance: u32) -> Result<(), Problem> {
    let registration = Registration {
        service,
        instance,
        metadata: "",
    };
    let answer = sdk.ask(&registration.message(REGISTER, &[])).await?;
    understood::<InstanceResponse<'_>>(&answer).map_err(refused)?;
    Ok(())
}

/// Whether the answer has the instances of this service, by its bytes if they were right before.
fn is_listed(seen: &mut HashMap<u32, Vec<u8>>, check: Check, service: u32, body: &[u8]) -> bool {
    if seen.get(&service).is_some_and(|seen| seen == body) {
        return true;
    }
    let right = Listed::read(body).is_ok_and(|listed| is_right(check, service, &listed));
    if right {
        seen.insert(service, body.to_vec());
    }
    right
}

fn is_right(check: Check, service: u32, listed: &Listed<'_>) -> bool {
    match check {
        Check::Content => listed.instances().into_iter().eq(Layout::filled(service)),
        Check::Length => listed.hosts.len() == HOSTS as usize,
    }
}

/// Connections that own the instances a run asks for; gone with them.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    _owners: Vec<Sdk>,
}

/// Registers what the run beats for or asks for, and waits until every address has it.
pub(crate) async fn prepare(plan: &Plan, addresses: &[SocketAddr]) -> anyhow::Result<Prepared> {
    let layout = Layout::new(plan);
    if plan.check == Check::Length || plan.work.is_register() {
        return Ok(Prepared::default());
    }
    let services = Layout::services(plan);
    let mut owners = Vec::new();
    if plan.work == Work::Beat {
        for_all_http(
            plan,
            addresses,
            services,
            |layout, service, host, out, authority| {
                let name = layout.service(service);
                let registration = Registration {
                    service: &name,
                    instance: service * HOSTS + host,
                    metadata: "",
                };
                registration.register(out, authority);
            },
        )
        .await?;
    } else {
        wait_until_open(addresses).await?;
        for host in 0..HOSTS {
            let address = beside(addresses[host as usize % addresses.len()]);
            let mut sdk = timeout(PATIENCE, Sdk::open(address, silent()))
                .await
                .context("no answer")??;
            for service in 0..services {
                let name = layout.service(service);
                let registered = register_over_grpc(&mut sdk, &name, service * HOSTS + host);
                let registered = timeout(PATIENCE, registered)
                    .await
                    .context("register before the run")?;
                registered.map_err(|problem| anyhow::anyhow!("register before the run: {problem}"))?;
            }
            owners.push(sdk);
        }
    }
    let expected = (0..services).map(|service| (service, Layout::filled(service).collect()));
    let errors = look_for(&layout, addresses, expected.collect()).await?;
    anyhow::ensure!(
        errors.total() == 0,
        "what was registered before the run is not listed: {}",
        errors.first.unwrap_or_default()
    );
    Ok(Prepared { _owners: owners })
}

/// Looks for the acknowledged instances of a run on every address.
pub(crate) async fn look_back(
    plan: &Plan,
    addresses: &[SocketAddr],
    parts: impl Iterator<Item = &Part>,
) -> anyhow::Result<Errors> {
    let begun = Instant::now();
    let mut expected: HashMap<u32, Vec<u32>> = HashMap::new();
    for (at, service, instance) in parts.flat_map(Part::registered) {
        // Beats keep nobody alive here; over gRPC the connections do.
        if plan.work == Work::GrpcRegister || begun.duration_since(at) < FRESH {
            expected.entry(service).or_default().push(instance);
        }
    }
    let step = expected.len().div_ceil(LOOKED_AT_MAX).max(1);
    let mut expected: Vec<(u32, Vec<u32>)> = expected.into_iter().collect();
    expected.sort_unstable();
    let picked = expected
        .into_iter()
        .step_by(step)
        .map(|(service, mut instances)| {
            instances.sort_unstable();
            (service, instances)
        });
    look_for(&Layout::new(plan), addresses, picked.collect()).await
}

/// Waits on each address for each of these services until it lists all these instances.
async fn look_for(
    layout: &Layout,
    addresses: &[SocketAddr],
    expected: Vec<(u32, Vec<u32>)>,
) -> anyhow::Result<Errors> {
    let mut errors = Errors::default();
    for address in addresses {
        let expected = &expected;
        let missing = (0..HELPERS).map(|helper| async move {
            let (mut missing, mut request) = (Vec::new(), Vec::new());
            let mut connection = Connection::open(*address).await?;
            for (service, instances) in expected.iter().skip(helper).step_by(HELPERS) {
                let deadline = Instant::now() + CATCH_UP;
                list_request(&mut request, &address.to_string(), &layout.service(*service));
                loop {
                    let answer = timeout(PATIENCE, connection.exchange(&request))
                        .await
                        .context("look back")??;
                    let found = match answer.status {
                        200 => Listed::read(answer.body)?.instances(),
                        _ => Vec::new(),
                    };
                    let lost: Vec<u32> = instances
                        .iter()
                        .copied()
                        .filter(|instance| !found.contains(instance))
                        .collect();
                    if lost.is_empty() {
                        break;
                    }
                    if Instant::now() > deadline {
                        missing.push((*service, lost));
                        break;
                    }
                    sleep(REDIAL).await;
                }
            }
            anyhow::Ok(missing)
        });
        for (service, lost) in join_all(missing).await?.into_iter().flatten() {
            errors.lost += lost.len() as u64;
            errors.first.get_or_insert_with(|| {
                let name = layout.service(service);
                format!("{lost:?} of {name} were acknowledged and are not on {address}")
            });
        }
    }
    Ok(errors)
}

/// Takes away what a run registered over HTTP, so that it does not expire beside the next one; what was
/// registered over gRPC goes with its connection, and is waited for.
pub(crate) async fn clear(plan: &Plan, addresses: &[SocketAddr], parts: Vec<Part>) -> anyhow::Result<()> {
    if plan.check == Check::Length {
        return Ok(());
    }
    match plan.work {
        Work::Beat => {
            let deregister = |layout: &Layout, service, host, out: &mut Vec<u8>, authority: &str| {
                let name = layout.service(service);
                let registration = Registration {
                    service: &name,
                    instance: service * HOSTS + host,
                    metadata: "",
                };
                registration.deregister(out, authority);
            };
            for_all_http(plan, addresses, Layout::services(plan), deregister).await
        }
        Work::Register => deregister_all(plan, addresses, &parts).await,
        Work::GrpcRegister => wait_until_gone(plan, addresses, &parts).await,
        _ => Ok(()),
    }
}

async fn deregister_all(plan: &Plan, addresses: &[SocketAddr], parts: &[Part]) -> anyhow::Result<()> {
    let layout = &Layout::new(plan);
    let of_part = parts.iter().enumerate().map(|(number, part)| async move {
        let address = addresses[number % addresses.len()];
        let mut connection = Connection::open(address).await?;
        let mut request = Vec::new();
        for (_, service, instance) in part.registered() {
            let name = layout.service(service);
            let registration = Registration {
                service: &name,
                instance,
                metadata: "",
            };
            registration.deregister(&mut request, &address.to_string());
            let answer = timeout(PATIENCE, connection.exchange(&request)).await??;
            anyhow::ensure!(
                answer.status == 200,
                "deregister: {} {}",
                answer.status,
                answer.text()
            );
        }
        anyhow::Ok(())
    });
    join_all(of_part).await.map(|_| ())
}

/// Waits until the last services of a run over gRPC are empty; how long that may take is no promise here.
async fn wait_until_gone(plan: &Plan, addresses: &[SocketAddr], parts: &[Part]) -> anyhow::Result<()> {
    let layout = Layout::new(plan);
    let mut request = Vec::new();
    for (_, service, _) in parts.iter().filter_map(|part| part.registered().last()) {
        let deadline = Instant::now() + CATCH_UP;
        let mut connection = Connection::open(addresses[0]).await?;
        list_request(&mut request, &addresses[0].to_string(), &layout.service(service));
        while Instant::now() < deadline {
            let answer = timeout(PATIENCE, connection.exchange(&request)).await??;
            if Listed::read(answer.body).is_ok_and(|listed| listed.hosts.is_empty()) {
                break;
            }
            sleep(REDIAL).await;
        }
    }
    Ok(())
}

/// One request for each instance of the filled services, each of which must be answered 200.
async fn for_all_http(
    plan: &Plan,
    addresses: &[SocketAddr],
    services: u32,
    write: impl Fn(&Layout, u32, u32, &mut Vec<u8>, &str),
) -> anyhow::Result<()> {
    let (layout, write) = (&Layout::new(plan), &write);
    let helpers = (0..HELPERS).map(|helper| async move {
        let address = addresses[helper % addresses.len()];
        let mut connection = Connection::open(address).await?;
        let mut request = Vec::new();
        for number in (0..services * HOSTS).skip(helper).step_by(HELPERS) {
            let (service, host) = (number / HOSTS, number % HOSTS);
            write(layout, service, host, &mut request, &address.to_string());
            let answer = timeout(PATIENCE, connection.exchange(&request)).await??;
            anyhow::ensure!(
                answer.status == 200,
                "outside the measured part: {} {}",
                answer.status,
                answer.text()
            );
        }
        anyhow::Ok(())
    });
    join_all(helpers).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::naming::list_json;

    #[test]
    fn new_instances_are_new_and_of_one_connection_never_in_one_service() {
        for connections in [1_usize, 5, 10, 11, 32, 256] {
            let plan = Plan::for_test(Work::Register, connections, 100);
            let layout = Layout::new(&plan);
            let mut all = BTreeSet::new();
            for connection in 0..u32::try_from(connections).expect("small") {
                let mut services = BTreeSet::new();
                for turn in 0..50 {
                    let (service, instance) = layout.fresh(connection, turn);
                    assert!(services.insert(service), "{connections} connections");
                    assert!(all.insert(instance), "{connections} connections");
                }
            }
        }
    }

    #[test]
    fn a_list_that_lacks_one_or_has_a_stranger_is_wrong() {
        let mut seen = HashMap::new();
        let right = list_json("s", Layout::filled(3));
        for _ in 0..2 {
            assert!(is_listed(&mut seen, Check::Content, 3, right.as_bytes()));
        }
        let short = list_json("s", Layout::filled(3).skip(1));
        assert!(!is_listed(&mut seen, Check::Content, 3, short.as_bytes()));
        let stranger = list_json("s", Layout::filled(3).skip(1).chain([99]));
        assert!(!is_listed(&mut seen, Check::Content, 3, stranger.as_bytes()));
        assert!(is_listed(&mut seen, Check::Length, 3, stranger.as_bytes()));
    }

    /// The floor answers every kind of work; what a real server would be asked about is not there.
    #[tokio::test]
    async fn every_kind_of_work_is_answered_by_the_floor_and_strangers_are_seen() {
        let scratch = crate::process::Scratch::new(None, "loadtest-naming").expect("scratch");
        let port = crate::ports::pairs(1).expect("free ports")[0];
        let folder = scratch.path().to_path_buf();
        tokio::spawn(async move { crate::floor::serve(port, &folder, 16, false).await });
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut connection = loop {
            match Connection::open(address).await {
                Ok(connection) => break connection,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        let part = |work, check| {
            let mut plan = Plan::for_test(work, 32, 100);
            plan.check = check;
            Part::new(&plan, 3, &address.to_string())
        };
        for work in [Work::Register, Work::Beat, Work::Query] {
            let mut part = part(work, Check::Length);
            for turn in 0..3 {
                let outcome = part.over_http(&mut connection, turn, turn).await;
                assert!(outcome.is_ok(), "{work:?}");
            }
            assert_eq!(
                part.registered().count(),
                if work == Work::Register { 3 } else { 0 }
            );
        }
        let wrong = part(Work::Query, Check::Content)
            .over_http(&mut connection, 0, 5)
            .await;
        assert!(matches!(wrong, Err(Problem::Wrong(_))));
        let mut sdk = Sdk::open(beside(address), silent()).await.expect("registers");
        for work in [Work::GrpcRegister, Work::GrpcQuery] {
            let outcome = part(work, Check::Length).over_grpc(&mut sdk, 1, 1).await;
            assert!(outcome.is_ok(), "{work:?}");
        }
        let wrong = part(Work::GrpcQuery, Check::Content)
            .over_grpc(&mut sdk, 1, 5)
            .await;
        assert!(matches!(wrong, Err(Problem::Wrong(_))));
    }
}
