//! The clients of a naming run: each has one instance and does with it what SDKs and their users do.
//!
//! They know only what an SDK knows: a request that fails is tried at the next node, a beat answered with 20404
//! or a broken connection is followed by a registration. What they wanted, and what they were told, goes into
//! the log; the last of it is the model of who is alive.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use loadtest::content::Dice;
use loadtest::naming::Registration;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::grpc_client::GrpcClient;
use super::record::{Asked, Doubt, End, Ending, Log, Micros, SECOND, Way, What};
use crate::api::{Client, Outcome, Reply};

/// Services that the instances are of.
pub const SERVICES: u32 = 4;

/// How long a client waits for an answer: as SDKs do, and longer than a node waits for the one it forwards to.
pub const PATIENCE: Duration = Duration::from_secs(4);

/// Time between two beats or health checks. SDKs take 5 s; more of them find more.
const BEAT_MS: (u64, u64) = (600, 1200);

/// Beats after which a client thinks of something else to do.
const BEATS: (u64, u64) = (4, 14);

/// How long an instance that was deregistered, or died, stays away.
const AWAY_MS: (u64, u64) = (1000, 6000);

/// Pause before the next node is tried.
const NEXT_PAUSE: Duration = Duration::from_millis(50);

/// The key in the metadata that tells whose registration is shown.
pub const KEEPER: &str = "keeper";

/// What kind of client it is, dealt out in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Habit {
    /// HTTP, asks one node as long as it answers.
    Bound,
    /// HTTP, asks another node each time.
    Roaming,
    /// HTTP, expires fast, and dies now and then; asks another node each time.
    Mortal,
    /// gRPC, moves, dies, deregisters.
    Connected,
}

impl Habit {
    const ALL: [Self; 6] = [
        Self::Bound,
        Self::Connected,
        Self::Roaming,
        Self::Connected,
        Self::Mortal,
        Self::Connected,
    ];

    fn of(client: usize) -> Self {
        Self::ALL[client % Self::ALL.len()]
    }

    fn expires(self) -> Duration {
        match self {
            Self::Mortal => Duration::from_secs(6),
            Self::Bound | Self::Roaming | Self::Connected => Duration::from_secs(30),
        }
    }
}

/// What all clients share.
#[derive(Debug)]
pub struct World {
    /// What happens is written here.
    pub log: Arc<Log>,
    /// HTTP addresses of the nodes, by place.
    pub addresses: Vec<SocketAddr>,
    /// Set when no client is to change its mind any more.
    pub settle: AtomicBool,
    /// Clients that have what they want, and only keep it.
    pub settled: AtomicUsize,
}

impl World {
    pub(super) fn is_settling(&self) -> bool {
        self.settle.load(Ordering::Relaxed)
    }

    pub(super) fn note(&self, node: usize, what: What, way: Way, asked: Micros, wrong: Option<String>) {
        self.log.asked(Asked {
            node,
            what,
            way,
            asked,
            answered: self.log.now(),
            wrong,
        });
    }

    pub(super) fn doubt(&self, instance: u32) {
        self.log.doubt(instance);
    }
}

/// What a client has in mind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whim {
    Stay,
    Deregister,
    Die,
    Move,
}

impl Whim {
    pub(super) fn draw(dice: &mut Dice, habit: Habit) -> Self {
        match (habit, dice.below(10)) {
            (Habit::Connected, 0..=2) => Self::Move,
            (Habit::Connected, 3..=5) | (Habit::Bound | Habit::Roaming, 0..=4) => Self::Deregister,
            (Habit::Connected, 6..=7) | (Habit::Mortal, 0..=5) => Self::Die,
            (Habit::Mortal, 6..=7) => Self::Deregister,
            _ => Self::Stay,
        }
    }
}

pub(super) fn between(dice: &mut Dice, (from, to): (u64, u64)) -> Duration {
    Duration::from_millis(dice.between(from, to))
}

pub(super) fn beat_pause(dice: &mut Dice) -> Duration {
    between(dice, BEAT_MS)
}

pub(super) fn beats(dice: &mut Dice) -> u64 {
    dice.between(BEATS.0, BEATS.1)
}

/// Stays away; comes back at once when the run settles, half of the time.
pub(super) async fn away(world: &World, dice: &mut Dice) -> bool {
    let back = dice.chance(50);
    let end = tokio::time::Instant::now() + between(dice, AWAY_MS);
    while tokio::time::Instant::now() < end && !world.is_settling() {
        sleep(Duration::from_millis(50)).await;
    }
    back || !world.is_settling()
}

/// Once it has what it wants at the end: counts itself.
pub(super) fn count_as_settled(world: &World, counted: &mut bool) {
    if !std::mem::replace(counted, true) {
        world.settled.fetch_add(1, Ordering::Relaxed);
    }
}

/// Name of a service.
#[must_use]
pub fn service(number: u32) -> String {
    format!("jepsen.naming.{number}")
}

/// Starts `count` clients; they run until aborted.
#[must_use]
pub fn start(count: usize, seed: u64, world: &Arc<World>) -> Vec<JoinHandle<()>> {
    (0..count)
        .map(|number| {
            let (world, habit) = (Arc::clone(world), Habit::of(number));
            let dice = Dice::new(seed ^ ((number as u64 + 1) << 40));
            let instance = u32::try_from(number).unwrap_or(0);
            if habit == Habit::Connected {
                tokio::spawn(GrpcClient::new(world, instance, dice).run())
            } else {
                tokio::spawn(HttpClient::new(world, instance, habit, dice).run())
            }
        })
        .collect()
}

/// A client over HTTP.
struct HttpClient {
    world: Arc<World>,
    instance: u32,
    habit: Habit,
    dice: Dice,
    /// One per node.
    clients: Vec<Client>,
    /// Place of the node it asks next.
    at: usize,
    request: Vec<u8>,
}

/// What became of a request that was tried at node after node.
struct Tried {
    node: usize,
    sent: Micros,
    body: String,
}

impl HttpClient {
    fn new(world: Arc<World>, instance: u32, habit: Habit, dice: Dice) -> Self {
        let clients = world
            .addresses
            .iter()
            .map(|address| Client::new(*address, PATIENCE))
            .collect();
        Self {
            at: instance as usize,
            world,
            instance,
            habit,
            dice,
            clients,
            request: Vec::new(),
        }
    }

    async fn run(mut self) {
        let mut counted = false;
        'registered: loop {
            let keeper = self.register().await;
            let mut beats_left = beats(&mut self.dice);
            loop {
                if self.world.is_settling() {
                    count_as_settled(&self.world, &mut counted);
                }
                sleep(beat_pause(&mut self.dice)).await;
                if !self.beat(keeper).await {
                    continue 'registered;
                }
                beats_left = beats_left.saturating_sub(1);
                if beats_left > 0 || self.world.is_settling() {
                    continue;
                }
                beats_left = beats(&mut self.dice);
                match Whim::draw(&mut self.dice, self.habit) {
                    Whim::Stay | Whim::Move => continue,
                    Whim::Deregister => self.deregister(keeper).await,
                    Whim::Die => self.end(keeper, Ending::Died, self.world.log.now(), None, self.at),
                }
                if !away(&self.world, &mut self.dice).await {
                    count_as_settled(&self.world, &mut counted);
                    return;
                }
                continue 'registered;
            }
        }
    }

    async fn register(&mut self) -> u32 {
        let (service_number, expires) = (self.instance % SERVICES, self.habit.expires());
        let node = self.node();
        let expires_us = Micros::try_from(expires.as_micros()).unwrap_or(30 * SECOND);
        let keeper = self
            .world
            .log
            .begin_life(self.instance, service_number, Way::Http, node, expires_us);
        let metadata = match self.habit {
            Habit::Mortal => format!(
                "{{\"{KEEPER}\":\"{keeper}\",\"preserved.heart.beat.interval\":\"1000\",\
                 \"preserved.heart.beat.timeout\":\"{}\",\"preserved.ip.delete.timeout\":\"{}\"}}",
                expires.as_millis() / 2,
                expires.as_millis()
            ),
            _ => format!("{{\"{KEEPER}\":\"{keeper}\"}}"),
        };
        let tried = self.try_all(What::Register, &metadata, |body| body == "ok").await;
        let answered = self.world.log.now();
        self.world.log.change(keeper, |life| {
            life.acknowledged = Some(answered);
            life.node = tried.node;
        });
        keeper
    }

    /// One beat; false if the servers know of no instance.
    async fn beat(&mut self, keeper: u32) -> bool {
        let right = |body: &str| {
            let code = loadtest::naming::beat_code(body.as_bytes());
            code == Some(10200) || code == Some(20404)
        };
        let tried = self.try_all(What::Beat, "", right).await;
        if loadtest::naming::beat_code(tried.body.as_bytes()) == Some(10200) {
            let answered = self.world.log.now();
            self.world.log.change(keeper, |life| {
                life.kept.push(tried.sent);
                life.answered = Some(answered);
            });
            return true;
        }
        self.end(keeper, Ending::Forgotten, tried.sent, None, tried.node);
        false
    }

    async fn deregister(&mut self, keeper: u32) {
        let asked = self.world.log.now();
        // Noted before it is sent: from then on nobody needs to list it.
        self.end(keeper, Ending::Deregistered, asked, None, self.at);
        let tried = self.try_all(What::Deregister, "", |body| body == "ok").await;
        let acknowledged = Some(self.world.log.now());
        self.end(keeper, Ending::Deregistered, asked, acknowledged, tried.node);
    }

    fn end(&self, keeper: u32, how: Ending, asked: Micros, acknowledged: Option<Micros>, node: usize) {
        self.world.log.change(keeper, |life| {
            life.end = Some(End {
                how,
                asked,
                acknowledged,
                node,
            });
        });
    }

    /// Place of the node to ask: the same one, or another each time.
    fn node(&mut self) -> usize {
        if self.habit != Habit::Bound {
            self.at = self.dice.below(self.clients.len());
        }
        self.at % self.clients.len()
    }

    /// Sends it to node after node until one answers as it should.
    async fn try_all(&mut self, what: What, metadata: &str, is_right: impl Fn(&str) -> bool) -> Tried {
        let mut node = self.node();
        loop {
            let sent = self.world.log.now();
            let connections = self.clients[node].connections();
            let outcome = self.send(node, what, metadata).await;
            // A connection that was idle may have ended meanwhile, with its node or not: libraries of HTTP try
            // again on a new one.
            let was_idle = self.clients[node].connections() == connections
                && matches!(outcome, Outcome::Unknown(_))
                && self.world.log.now() - sent < SECOND;
            let (tried, wrong, in_doubt) = match outcome {
                Outcome::Done(Reply { status: 200, body }) if is_right(&body) => (Some(body), None, false),
                Outcome::Done(Reply { status, body }) => {
                    (None, Some(format!("{status} {body}")), status != 503)
                }
                Outcome::Refused(why) => (None, Some(why), false),
                Outcome::Unknown(why) => (None, Some(why), true),
            };
            if in_doubt {
                self.world.doubt(self.instance);
            }
            if was_idle {
                continue;
            }
            self.world.note(node, what, Way::Http, sent, wrong);
            if let Some(body) = tried {
                return Tried { node, sent, body };
            }
            sleep(NEXT_PAUSE).await;
            // An SDK goes on at the next one, and stays there.
            node = (node + 1) % self.clients.len();
            self.at = node;
        }
    }

    async fn send(&mut self, node: usize, what: What, metadata: &str) -> Outcome<Reply> {
        let name = service(self.instance % SERVICES);
        let registration = Registration {
            service: &name,
            instance: self.instance,
            metadata,
        };
        let authority = self.world.addresses[node].to_string();
        match what {
            What::Register => registration.register(&mut self.request, &authority),
            What::Deregister => registration.deregister(&mut self.request, &authority),
            What::Beat | What::List => registration.beat(&mut self.request, &authority),
        }
        self.clients[node].send(&self.request).await
    }
}

/// Whether a request for the instance may still be on its way at this moment.
#[must_use]
pub fn is_in_doubt(doubts: &[Doubt], instance: u32, since: Micros) -> bool {
    doubts
        .iter()
        .any(|doubt| doubt.instance == instance && doubt.at >= since)
}
