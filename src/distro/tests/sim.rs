//! Several nodes, their clients and a faulty network, in virtual time and from a seed.
//!
//! Nodes crash, alone or all at once, lose their disks, sleep and are cut off; clients register, beat, move,
//! deregister and die. Meanwhile stamps of a service may only rise on each node, and nobody who beats may be missing
//! on a node that answers. After healing all nodes must show exactly those who are alive, with stamps above those
//! of all that any node ever showed instead.
//!
//! `DISTRO_SEEDS=2000 cargo test --lib distro::tests::sim` runs longer; `DISTRO_SEED=7` runs one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::model::{Endpoint, NamespaceId, ServiceKey};
use crate::naming::bugs::{Bug, make};
use crate::naming::{
    Beat, Clocks, Digest, Event, Filter, Instance, Origin, Owner, Registry, Stamp, StampClock,
};

use crate::distro::{BEGINNING_MS, Distro, Message, Out, REDO_MS, responsible};

const NODES: u64 = 3;
const SERVICES: u64 = 6;
const STEP_MS: u64 = 100;
/// A node that starts again begins so far above the lists of its earlier run.
const RESERVED_MS: u64 = 60_000;
/// Faults and changes of clients happen until then.
const STORM_MS: u64 = 120_000;
/// After which everybody must agree.
const CALM_MS: u64 = 90_000;

struct Node {
    registry: Registry,
    distro: Distro,
    up: bool,
    boot: u64,
    /// When it began; its monotonic clock counts from there.
    started_ms: u64,
    /// Its wall clock is off by this much.
    skew_ms: u64,
    stamps: BTreeMap<ServiceKey, Stamp>,
    /// Its disk is lost.
    wiped: bool,
}

enum Way {
    /// Beats over HTTP.
    Beats { next_ms: u64 },
    /// A connection to a node, if it has one; tried again at a time.
    Connected {
        to: Option<(u64, Arc<str>)>,
        next_ms: u64,
    },
}

struct Client {
    service: ServiceKey,
    endpoint: Endpoint,
    way: Way,
    /// Since when it has been registered without a break.
    known_since: Option<u64>,
    alive: bool,
    /// When its deregistration was answered, and by which node.
    deregistered: Option<(u64, u64)>,
}

struct World {
    seed: u64,
    random: StdRng,
    now_ms: u64,
    nodes: BTreeMap<u64, Node>,
    clients: Vec<Client>,
    wires: BTreeMap<(u64, u64), VecDeque<(u64, Message)>>,
    cut: BTreeMap<(u64, u64), u64>,
    /// When the last cut was mended.
    mended_ms: u64,
    /// Pairs whose stream stands.
    streams: BTreeSet<(u64, u64)>,
    connections: u64,
    /// With which stamp at most anybody ever showed what of a service.
    ever: BTreeMap<ServiceKey, BTreeMap<Shown, Stamp>>,
    /// Which state of a service each node showed when it was looked at last.
    looked: BTreeMap<(u64, ServiceKey), Option<(Stamp, Stamp)>>,
    services: Vec<ServiceKey>,
    /// No more than so many at a time; with few of them nodes are often without any.
    clients_max: usize,
    trace: bool,
}

/// Ports of instances, and whether they are shown as healthy.
type Shown = BTreeMap<u16, bool>;

fn service(place: u64) -> ServiceKey {
    ServiceKey::new(&NamespaceId::default(), "g", &format!("service-{place}"))
}

fn pair(a: u64, b: u64) -> (u64, u64) {
    (a.min(b), a.max(b))
}

/// What a node has on its disk.
#[derive(Clone, Copy, Default)]
struct Mark {
    /// Far above all stamps of lists that it drew.
    reserved: u64,
    /// By how much its acts were ahead of its wall clock, ms.
    ahead_ms: u64,
}

fn wall(now_ms: u64, skew_ms: u64) -> u64 {
    1_000_000_000 + now_ms + skew_ms
}

/// A node that begins.
fn node(id: u64, boot: u64, now_ms: u64, skew_ms: u64, mark: Mark) -> Node {
    let me = Origin { node: id, boot };
    let wall_ms = wall(now_ms, skew_ms);
    let clocks = Clocks {
        lists: StampClock::new(wall_ms.max(mark.reserved), BEGINNING_MS),
        acts: StampClock::new(wall_ms + mark.ahead_ms, BEGINNING_MS),
    };
    Node {
        registry: Registry::new(me, clocks),
        distro: Distro::new(me, 1..=NODES, BEGINNING_MS),
        up: true,
        boot,
        started_ms: now_ms,
        skew_ms,
        stamps: BTreeMap::new(),
        wiped: false,
    }
}

impl Node {
    /// Whether readers are answered.
    fn answers(&self, now_ms: u64) -> bool {
        self.up && !self.distro.is_loading() && !self.distro.awaits_clients(now_ms)
    }
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = StdRng::seed_from_u64(seed);
        let nodes = (1..=NODES).map(|id| {
            let skew_ms = random.random_range(0..20_000);
            (id, node(id, 1, 0, skew_ms, Mark::default()))
        });
        World {
            seed,
            nodes: nodes.collect(),
            random,
            now_ms: 0,
            clients: Vec::new(),
            wires: BTreeMap::new(),
            cut: BTreeMap::new(),
            mended_ms: 0,
            streams: BTreeSet::new(),
            connections: 0,
            ever: BTreeMap::new(),
            looked: BTreeMap::new(),
            services: (0..SERVICES).map(service).collect(),
            clients_max: if seed.is_multiple_of(3) { 4 } else { 60 },
            trace: std::env::var_os("DISTRO_TRACE").is_some(),
        }
    }

    fn run(mut self) {
        while self.now_ms < STORM_MS {
            self.disturb();
            self.step();
            self.nobody_is_missing();
            self.nobody_comes_back();
        }
        self.heal();
        let end = self.now_ms + CALM_MS;
        while self.now_ms < end {
            self.step();
        }
        self.all_agree();
        self.nobody_stays_below();
        // A change may be on its way at any moment; none takes a second.
        let end = self.now_ms + 1_000;
        while !self.copies_are_true() {
            assert!(
                self.now_ms < end,
                "seed {}: copies differ from what they copy",
                self.seed
            );
            self.step();
        }
    }

    /// What happens, where `DISTRO_TRACE` asks for it.
    fn tell(&self, what: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:>7} {}", self.now_ms, what());
        }
    }

    fn alive(&self) -> usize {
        self.clients.iter().filter(|client| client.alive).count()
    }

    /// What time it is on a node.
    fn clock(&self, id: u64) -> u64 {
        BEGINNING_MS + self.now_ms - self.nodes[&id].started_ms
    }

    fn chance(&mut self, per_mille: u32) -> bool {
        self.random.random_range(0..1_000) < per_mille
    }

    /// Faults, and clients that come and go.
    fn disturb(&mut self) {
        if self.alive() < self.clients_max && self.clients.len() < 60 && self.chance(80) {
            self.new_client();
        }
        for place in 0..self.clients.len() {
            if self.clients[place].alive && self.chance(1) {
                let fate = self.random.random_range(0..5);
                let at = self.clients[place].endpoint.clone();
                self.tell(|| {
                    format!(
                        "client {at}: {}",
                        ["dies", "deregisters", "hangs up", "moves", "sleeps"][fate]
                    )
                });
                match fate {
                    0 => self.die(place),
                    1 => self.deregister(place),
                    3 => self.move_over(place),
                    4 => self.sleep(place),
                    _ => self.hang_up(place),
                }
            }
        }
        let id = self.random.random_range(1..=NODES);
        if self.chance(3) && self.nodes.values().filter(|node| node.up).count() == NODES as usize {
            let all = self.chance(200);
            let wiped = self.chance(200);
            for other in (1..=NODES).filter(|other| all || *other == id) {
                self.crash(other, wiped && other == id);
            }
        }
        if self.chance(10) {
            self.restart();
        }
        let other = id % NODES + 1;
        if self.chance(6) {
            // Shorter than the grace, so that nothing may be dropped.
            let until = self.now_ms + self.random.random_range(100..12_000);
            self.tell(|| format!("cut {id} {other} until {until}"));
            self.cut.entry(pair(id, other)).or_insert(until);
        }
    }

    fn heal(&mut self) {
        self.cut.clear();
        for id in 1..=NODES {
            self.restart_node(id);
        }
    }

    fn step(&mut self) {
        self.now_ms += STEP_MS;
        let now = self.now_ms;
        if !self.cut.is_empty() {
            self.mended_ms = now;
        }
        self.cut.retain(|_, until| *until > now);
        self.connect();
        self.deliver();
        for place in 0..self.clients.len() {
            self.client_acts(place);
        }
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        for id in ids {
            let now = self.clock(id);
            let Some(node) = self.nodes.get_mut(&id).filter(|node| node.up) else {
                continue;
            };
            node.registry.tick(now);
            node.registry.sweep(now);
            let events = node.registry.take_events();
            for event in events {
                match event {
                    Event::Changed { service, stamp } => {
                        let last = node.stamps.insert(service, stamp).unwrap_or_default();
                        assert!(stamp > last, "seed {}: a stamp does not rise", self.seed);
                    }
                    // The connection is alive in this world, and answers at once.
                    Event::Covered(connection) => node.registry.reassert(now, &connection),
                    _ => {}
                }
            }
            for dead in node.distro.poll(now, &mut node.registry) {
                self.streams.remove(&pair(id, dead));
            }
            self.collect(id);
        }
        self.look();
    }

    /// Puts what a node says on the wire.
    fn collect(&mut self, id: u64) {
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        for Out { to, message } in node.distro.take_out() {
            let at = self.now_ms + self.random.random_range(0..300);
            let wire = self.wires.entry((id, to)).or_default();
            // A stream keeps its order.
            let at = wire.back().map_or(at, |(last, _)| at.max(*last));
            wire.push_back((at, message));
        }
    }

    fn is_linked(&self, a: u64, b: u64) -> bool {
        self.nodes[&a].up && self.nodes[&b].up && !self.cut.contains_key(&pair(a, b))
    }

    fn connect(&mut self) {
        for a in 1..=NODES {
            for b in a + 1..=NODES {
                if self.streams.contains(&(a, b)) || !self.is_linked(a, b) {
                    continue;
                }
                self.wires.remove(&(a, b));
                self.wires.remove(&(b, a));
                self.streams.insert((a, b));
                for (id, peer) in [(a, b), (b, a)] {
                    let now = self.clock(id);
                    if let Some(node) = self.nodes.get_mut(&id) {
                        node.distro.on_disconnected(peer);
                        node.distro.on_connected(now, &node.registry, peer);
                    }
                    self.collect(id);
                }
            }
        }
    }

    fn deliver(&mut self) {
        let wires: Vec<(u64, u64)> = self.wires.keys().copied().collect();
        for (from, to) in wires {
            // A cut holds messages up, as TCP does; a stream that was given up loses them.
            if !self.streams.contains(&pair(from, to)) || !self.is_linked(from, to) {
                continue;
            }
            loop {
                let wire = self.wires.entry((from, to)).or_default();
                if wire.front().is_none_or(|(at, _)| *at > self.now_ms) {
                    break;
                }
                let Some((_, message)) = wire.pop_front() else {
                    break;
                };
                let now = self.clock(to);
                if let Some(node) = self.nodes.get_mut(&to) {
                    node.distro.on_message(now, &mut node.registry, from, message);
                }
                self.collect(to);
            }
        }
    }

    // Nodes.

    fn crash(&mut self, id: u64, wiped: bool) {
        self.tell(|| {
            format!(
                "node {id} crashes{}",
                if wiped { ", its disk is lost" } else { "" }
            )
        });
        let mut all_told = true;
        if let Some(node) = self.nodes.get_mut(&id) {
            let sizes = node.distro.sizes(&node.registry);
            all_told = sizes.behind == 0 && sizes.peers as u64 == NODES - 1;
            node.up = false;
            node.wiped = wiped;
        }
        self.streams.retain(|(a, b)| *a != id && *b != id);
        let others: Vec<u64> = (1..=NODES).filter(|other| *other != id).collect();
        for other in others {
            if let Some(node) = self.nodes.get_mut(&other) {
                node.distro.on_disconnected(id);
            }
        }
        // What it had not told anybody yet is lost: that instance goes by its timeout.
        for client in &mut self.clients {
            client.deregistered = client.deregistered.filter(|(_, by)| *by != id || all_told);
        }
        let (now, mut random) = (self.now_ms, self.random.random_range(0..3_000));
        for client in &mut self.clients {
            if let Way::Connected { to, next_ms } = &mut client.way
                && to.as_ref().is_some_and(|(node, _)| *node == id)
            {
                (*to, *next_ms) = (None, now + random);
                random = (random * 7 + 131) % 3_000;
            }
        }
    }

    fn restart(&mut self) {
        let down = self.nodes.iter().find(|(_, node)| !node.up).map(|(id, _)| *id);
        if let Some(id) = down {
            self.restart_node(id);
        }
    }

    fn restart_node(&mut self, id: u64) {
        let now = self.now_ms;
        self.tell(|| format!("node {id} starts, unless it runs"));
        if let Some(old) = self.nodes.get_mut(&id).filter(|node| !node.up) {
            let clock = BEGINNING_MS + now - old.started_ms;
            let mark = if old.wiped {
                Mark::default()
            } else {
                let times = old.registry.times(clock);
                Mark {
                    reserved: times.lists.0 + RESERVED_MS,
                    ahead_ms: times.acts.0.saturating_sub(wall(now, old.skew_ms)),
                }
            };
            let held = !old.wiped;
            *old = node(id, old.boot + 1, now, old.skew_ms, mark);
            if held {
                old.distro.await_clients(BEGINNING_MS + REDO_MS);
            }
        }
    }

    // Clients.

    fn new_client(&mut self) {
        let place = self.random.random_range(0..SERVICES);
        let way = if self.chance(500) {
            Way::Beats { next_ms: 0 }
        } else {
            Way::Connected { to: None, next_ms: 0 }
        };
        self.clients.push(Client {
            service: service(place),
            endpoint: Endpoint::new("10.0.0.1", self.clients.len() as u16, ""),
            way,
            known_since: None,
            alive: true,
            deregistered: None,
        });
    }

    /// A node that serves, as a client finds one.
    fn some_node(&mut self) -> Option<u64> {
        let id = self.random.random_range(1..=NODES);
        let node = &self.nodes[&id];
        (node.up && !node.distro.is_loading()).then_some(id)
    }

    /// Who handles a write that came to `id`.
    fn handler(&self, id: u64, service: &ServiceKey) -> u64 {
        let living: Vec<u64> = self.nodes[&id].distro.living().collect();
        let chosen = responsible(service, living).unwrap_or(id);
        let serves = self.is_linked(id, chosen) && !self.nodes[&chosen].distro.is_loading();
        if chosen == id || serves { chosen } else { id }
    }

    /// Who forwarded an act is told what came of it, before all others hear; false if it does not know the other one.
    fn tell_asked(&mut self, asked: u64, by: u64, service: &ServiceKey, endpoint: &Endpoint) -> bool {
        let registry = &self.nodes[&by].registry;
        let (origin, word) = (registry.me(), registry.word(service, endpoint));
        let here = self.clock(asked);
        let registry = &mut self.nodes.get_mut(&asked).expect("one of them").registry;
        let knows = registry.origins().any(|(known, ..)| known == origin);
        if let Some(word) = word.filter(|_| knows) {
            registry.take_word(here, origin, word);
        }
        knows
    }

    fn client_acts(&mut self, place: usize) {
        let now = self.now_ms;
        let client = &self.clients[place];
        let (service, endpoint) = (client.service.clone(), client.endpoint.clone());
        match &client.way {
            Way::Beats { next_ms } if client.alive && now >= *next_ms => {
                let Some(id) = self.some_node() else { return };
                let handler = self.handler(id, &service);
                let above = self.nodes[&id].registry.highest(&service, &endpoint);
                let there = self.clock(handler);
                let node = self.nodes.get_mut(&handler).expect("one of them");
                let beat = node.registry.beat(there, &service, &endpoint, None);
                self.tell(|| format!("client {endpoint} beats at {id}, node {handler} says {beat:?}"));
                let node = self.nodes.get_mut(&handler).expect("one of them");
                if beat == Beat::Unknown {
                    let said = (Instance::default(), true);
                    let registered =
                        node.registry
                            .register_over(there, &Owner::Beats, &service, &endpoint, said, above);
                    registered.expect("ephemeral");
                }
                let told = self.tell_asked(id, handler, &service, &endpoint);
                assert!(
                    !told
                        || beat != Beat::Unknown
                        || World::shown(&self.nodes[&id], &service).contains_key(&endpoint.port),
                    "seed {}: {endpoint} does not see at node {id} that node {handler} has registered it",
                    self.seed
                );
                let client = &mut self.clients[place];
                client.way = Way::Beats { next_ms: now + 5_000 };
                client.known_since.get_or_insert(now);
            }
            Way::Connected { to: None, next_ms } if client.alive && now >= *next_ms => {
                let Some(id) = self.some_node() else { return };
                self.connections += 1;
                self.tell(|| format!("client {endpoint} connects to {id}"));
                let connection: Arc<str> = format!("c{}", self.connections).into();
                let owner = Owner::Connection(Arc::clone(&connection));
                let there = self.clock(id);
                let node = self.nodes.get_mut(&id).expect("one of them");
                let instance = Instance::default();
                let registered = node
                    .registry
                    .register(there, &owner, &service, &endpoint, instance, true);
                registered.expect("ephemeral");
                let client = &mut self.clients[place];
                client.way = Way::Connected {
                    to: Some((id, connection)),
                    next_ms: 0,
                };
                client.known_since.get_or_insert(now);
            }
            _ => {}
        }
    }

    fn die(&mut self, place: usize) {
        self.clients[place].alive = false;
        self.disconnect(place);
    }

    /// The client builds a new connection before it closes the old one.
    fn move_over(&mut self, place: usize) {
        let Way::Connected { to, next_ms } = &mut self.clients[place].way else {
            return;
        };
        let old = to.take();
        *next_ms = 0;
        self.client_acts(place);
        let now = self.now_ms;
        if let Some((id, connection)) = old {
            let there = self.clock(id);
            let node = self.nodes.get_mut(&id).expect("one of them");
            node.registry.disconnect(there, &connection);
        }
        let client = &mut self.clients[place];
        // Others hear that the old one is gone before or after they hear of the new one.
        let held = matches!(client.way, Way::Connected { to: Some(_), .. });
        client.known_since = held.then_some(now);
    }

    /// The client does not beat for so long that it is taken to be ill, or gone.
    fn sleep(&mut self, place: usize) {
        let until = self.now_ms + self.random.random_range(10_000..40_000);
        if let Way::Beats { next_ms } = &mut self.clients[place].way {
            *next_ms = until;
            self.clients[place].known_since = None;
        }
    }

    /// The connection breaks; the client comes back.
    fn hang_up(&mut self, place: usize) {
        if matches!(self.clients[place].way, Way::Connected { .. }) {
            self.clients[place].known_since = None;
            self.disconnect(place);
        }
    }

    fn disconnect(&mut self, place: usize) {
        let now = self.now_ms;
        if let Way::Connected { to, next_ms } = &mut self.clients[place].way {
            *next_ms = now + 500;
            if let Some((id, connection)) = to.take() {
                let there = self.clock(id);
                let node = self.nodes.get_mut(&id).expect("one of them");
                node.registry.disconnect(there, &connection);
            }
        }
    }

    fn deregister(&mut self, place: usize) {
        let now = self.now_ms;
        let client = &self.clients[place];
        let (service, endpoint) = (client.service.clone(), client.endpoint.clone());
        let connection = match &client.way {
            Way::Connected {
                to: Some((_, connection)),
                ..
            } => Some(Arc::clone(connection)),
            _ => None,
        };
        let (asked, id) = match &client.way {
            Way::Connected {
                to: Some((id, _)), ..
            } => (*id, *id),
            Way::Connected { .. } => return,
            // Of acts on two nodes that have not heard of each other any may count; a client that waits a
            // second has the later stamp.
            Way::Beats { next_ms } if *next_ms > now + 4_000 => return,
            Way::Beats { .. } => match self.some_node() {
                Some(id) => (id, self.handler(id, &service)),
                None => return,
            },
        };
        let there = self.clock(id);
        let node = self.nodes.get_mut(&id).expect("one of them");
        match connection {
            Some(connection) => node.registry.withdraw(there, &connection, &service, &endpoint),
            None => drop(node.registry.deregister(there, &service, &endpoint)),
        }
        self.tell_asked(asked, id, &service, &endpoint);
        self.clients[place].alive = false;
        self.clients[place].deregistered = Some((now, id));
        self.disconnect(place);
    }

    // What must hold.

    /// Who is shown.
    fn shown(node: &Node, service: &ServiceKey) -> Shown {
        let view = node.registry.view(service, &Filter::default());
        let hosts = view.unwrap_or_default().hosts;
        hosts.iter().map(|(at, seen)| (at.port, seen.healthy)).collect()
    }

    /// What every node has of an instance, for whoever looks for a mistake.
    fn tell_records(&self, client: &Client) {
        for (id, node) in self.nodes.iter().filter(|(_, node)| node.up) {
            let living: Vec<u64> = node.distro.living().collect();
            let entry = node.registry.entry(&client.service, &client.endpoint);
            self.tell(|| format!("node {id} with {living:?}: {entry:#?}"));
        }
    }

    /// What was deregistered is shown by nobody who could have heard of it.
    fn nobody_comes_back(&self) {
        const HEARD_MS: u64 = 8_000;
        let gone = self.clients.iter().filter(|client| {
            client
                .deregistered
                .is_some_and(|(at, _)| self.now_ms >= at.max(self.mended_ms) + HEARD_MS)
        });
        for client in gone {
            for (id, node) in self
                .nodes
                .iter()
                .filter(|(id, node)| node.answers(self.clock(**id)))
            {
                let shown = World::shown(node, &client.service);
                if shown.contains_key(&client.endpoint.port) {
                    self.tell_records(client);
                }
                assert!(
                    !shown.contains_key(&client.endpoint.port),
                    "seed {} at {} ms: node {id} shows {} of {}, which was deregistered",
                    self.seed,
                    self.now_ms,
                    client.endpoint,
                    client.service,
                );
            }
        }
    }

    /// No cut is as long as the grace, so whoever was registered a while ago and lives is shown by every node
    /// that has loaded and was not cut off just now.
    fn nobody_is_missing(&self) {
        const SETTLED_MS: u64 = 14_000;
        /// A node that started while it was cut off has heard everybody out by then.
        const MENDED_MS: u64 = 2_000;
        if self.now_ms < self.mended_ms + MENDED_MS {
            return;
        }
        for client in &self.clients {
            let known = client
                .known_since
                .is_some_and(|since| self.now_ms >= since + SETTLED_MS);
            let held = match &client.way {
                Way::Beats { .. } => true,
                Way::Connected { to, .. } => to.is_some(),
            };
            if !client.alive || !known || !held {
                continue;
            }
            for (id, node) in &self.nodes {
                if node.answers(self.clock(*id)) {
                    let shown = World::shown(node, &client.service);
                    if shown.get(&client.endpoint.port) != Some(&true) {
                        self.tell_records(client);
                    }
                    assert!(
                        World::shown(node, &client.service).get(&client.endpoint.port) == Some(&true),
                        "seed {} at {} ms: node {id} does not show {} of {}",
                        self.seed,
                        self.now_ms,
                        client.endpoint,
                        client.service,
                    );
                }
            }
        }
    }

    /// Notes what is shown now.
    fn look(&mut self) {
        for (id, node) in &self.nodes {
            if !node.answers(self.clock(*id)) {
                continue;
            }
            for service in &self.services {
                let version = node.registry.version(service);
                let Some((_, stamp)) = version else { continue };
                if self.looked.insert((*id, service.clone()), version) == Some(version) {
                    continue;
                }
                let ever = self.ever.entry(service.clone()).or_default();
                let highest = ever.entry(World::shown(node, service)).or_default();
                *highest = stamp.max(*highest);
            }
        }
    }

    /// A client that has seen something else before, wherever, takes for newer what it is shown now.
    fn nobody_stays_below(&self) {
        for (id, node) in &self.nodes {
            for (service, ever) in &self.ever {
                let Some((_, stamp)) = node.registry.version(service) else {
                    continue;
                };
                let shown = World::shown(node, service);
                let others = ever.iter().filter(|(other, _)| **other != shown);
                let highest = others.map(|(_, stamp)| *stamp).max().unwrap_or_default();
                assert!(
                    stamp > highest,
                    "seed {}: node {id} shows {service} with {stamp:?}, and somebody showed it otherwise with {highest:?}",
                    self.seed
                );
            }
        }
    }

    fn all_agree(&self) {
        let mut expected: BTreeMap<ServiceKey, Shown> = BTreeMap::new();
        for client in &self.clients {
            let ports = expected.entry(client.service.clone()).or_default();
            if client.alive {
                ports.insert(client.endpoint.port, true);
            }
        }
        for (id, node) in &self.nodes {
            assert!(
                !node.distro.is_loading(),
                "seed {}: node {id} loads for ever",
                self.seed
            );
            for (service, ports) in &expected {
                assert_eq!(
                    &World::shown(node, service),
                    ports,
                    "seed {}: node {id} shows something else of {service}",
                    self.seed
                );
            }
        }
    }

    /// Every node's copies are what their origins have.
    fn copies_are_true(&self) -> bool {
        let nodes = || self.nodes.values();
        nodes().all(|node| {
            nodes().all(|origin| {
                let theirs = origin.registry.own_digest();
                let ours = node.registry.digest_of(origin.registry.me());
                ours.map_or(*theirs == Digest::default(), |ours| ours == theirs)
            })
        })
    }
}

#[test]
fn nodes_agree_whatever_happens_on_the_way() {
    let number = |name: &str| -> Option<u64> { std::env::var(name).ok()?.parse().ok() };
    if let Some(seed) = number("DISTRO_SEED") {
        return World::new(seed).run();
    }
    let fresh: u64 = rand::rng().random_range(0..1 << 40);
    let seeds = number("DISTRO_SEEDS").unwrap_or(20);
    eprintln!("fixed seeds 0 to {seeds}, fresh ones from {fresh}");
    for seed in (0..seeds).chain(fresh..fresh + seeds) {
        World::new(seed).run();
    }
}

#[test]
fn mistakes_made_on_purpose_are_found() {
    const SEEDS: u64 = 300;
    let missed: Vec<Bug> = Bug::ALL
        .into_iter()
        .filter(|bug| {
            let found = (0..SEEDS).find(|seed| {
                // A thread of its own: what a panic leaves behind ends with it.
                let (bug, seed) = (*bug, *seed);
                let run = std::thread::spawn(move || {
                    make(Some(bug));
                    World::new(seed).run();
                });
                run.join().is_err()
            });
            eprintln!("{bug:?}: found with seed {found:?}");
            found.is_none()
        })
        .collect();
    assert_eq!(missed, [], "not found within {SEEDS} seeds");
}
