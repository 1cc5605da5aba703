//! The registry of this node, under its lock and in time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use storage::WatermarkFile;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::answers::Answers;
use super::forward::{Act, Done, Reply, Request, What};
use super::last_known::{Keeper, LastKnown, newest_act};
use super::network::{FORWARD_WITHIN, Forwards};
use super::reserve::{Known, Left, Reserve};
use super::rows::{Fed, Reads};
use crate::clock;
use crate::cluster::{Link, LinkKind, Links};
use crate::distro::{BEGINNING_MS, Distro, GRACE_MS, REDO_MS, Sizes, responsible};
use crate::error::{Error, Result};
use crate::model::{Endpoint, NamespaceId, ServiceKey};
use crate::naming::{
    BUCKETS, Beat, Clocks, Delta, Event, Instance, Kind, Origin, Owner, Registry, Replicated, Stamp,
    StampClock, WrongKind,
};
use crate::seeded::{self, Bug};

/// Timers and the protocol are looked at so often.
const TICK: Duration = Duration::from_millis(100);
/// Changes that come one after the other are gathered for so long before they are sent; one that comes alone is
/// sent at once. Each message costs its sender and its receiver a wake-up and a system call, 15 µs together: sent
/// every millisecond they cost more than what is in them.
const GATHER: Duration = Duration::from_millis(10);
/// Between two buckets of services in which what is empty is looked for: all are in 10 s.
const SWEEP_MS: u64 = 10_000 / BUCKETS as u64;
/// Buckets at a time, after a pause.
const SWEEP_COUNT: u64 = 16;
/// A node whose time stood still for so long may have been given up by the others, ms.
const GIVEN_UP_MS: u64 = GRACE_MS - 5_000;

/// Told what has happened, in order and at once: it is called under the lock, so it may only take a note.
pub type OnEvents = Box<dyn Fn(Vec<Event>) + Send + Sync>;

/// Reads all that the replicated state says of naming. Blocks.
pub type Rows = Box<dyn Fn() -> Result<Vec<Replicated>> + Send + Sync>;

/// Ends every connection of a client: what it kept alive here is forgotten.
pub type HangUp = Box<dyn Fn() + Send + Sync>;

/// What a [`Discovery`] is made of.
pub struct Parts {
    /// Id of this node.
    pub node: u64,
    /// The data folder, for the high-water mark of stamps.
    pub folder: PathBuf,
    /// Who is told what has happened.
    pub on_events: OnEvents,
    /// What the replicated state says.
    pub rows: Rows,
}

/// Whether readers may be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Yes.
    Ready,
    /// Other nodes, or the disk, are still being asked what there is.
    Loading,
    /// Clients of the run before have not had time to come back yet.
    AwaitingClients,
    /// As before, but what the run before knew is here: of a service with instances readers are told. One without
    /// may be a service whose instances have not come back ([`Discovery::readiness_of`]).
    Provisional,
}

/// The running registry of this node. One per server.
pub struct Discovery {
    shared: Mutex<Shared>,
    started: Instant,
    /// There is something to send.
    changed: Notify,
    on_events: OnEvents,
    pub(super) rows: Rows,
    hang_up: OnceLock<HangUp>,
    reserve: Mutex<Reserve>,
    keeper: Mutex<Keeper>,
    node: u64,
    /// When time was looked at last.
    ticked_ms: AtomicU64,
    /// Streams to peers, once there are any.
    hub: OnceLock<Links>,
    pub(super) forwards: Forwards,
    /// Held by whoever makes an answer that takes milliseconds.
    pub(super) long_jobs: Mutex<()>,
    /// Readers may be answered; once they may, they may until this node begins anew.
    ready: AtomicBool,
    /// False while an operator keeps what does not beat.
    expires: AtomicBool,
    /// The disk says that clients will come back after a restart, or is being told so.
    marked: AtomicBool,
}

/// What the lock holds.
pub(super) struct Shared {
    pub(super) registry: Registry,
    pub(super) distro: Distro,
    /// Streams of the protocol, by node.
    pub(super) links: BTreeMap<u64, Link>,
    members: BTreeSet<u64>,
    pub(super) answers: Answers,
    pub(super) fed: Fed,
    swept_ms: u64,
    pub(super) last_known: LastKnown,
    /// All of it is in the registry.
    pub(super) taken_back: bool,
    /// The bucket that is swept next.
    sweeps: usize,
}

impl Shared {
    /// No other node has a part of what there is.
    pub(super) fn is_alone(&self) -> bool {
        self.members.len() == 1
    }

    fn readiness(&self, now_ms: u64) -> Readiness {
        if self.distro.is_loading() || !matches!(self.fed, Fed::Yes) {
            return Readiness::Loading;
        }
        if !self.distro.awaits_clients(now_ms) {
            return Readiness::Ready;
        }
        // In a cluster each node has a part of it for now.
        if self.taken_back && self.is_alone() {
            return Readiness::Provisional;
        }
        Readiness::AwaitingClients
    }

    /// True while nodes of a cluster that began together hold what they knew before, and the word on an instance is
    /// such a one: another node may have had a newer one. A beat would confirm it above that; a client that is
    /// not known says all that there is to say.
    fn may_be_outdated(&self, now_ms: u64, act: &Act) -> bool {
        let outdated = |origin: Origin| origin != self.registry.me() && !self.distro.hears(origin);
        !self.is_alone()
            && self.distro.awaits_clients(now_ms)
            && self
                .registry
                .said_by(&act.service, &act.endpoint)
                .is_some_and(outdated)
    }

    /// The member that handles the HTTP writes of a service.
    fn responsible(&self, service: &ServiceKey) -> u64 {
        responsible(service, self.distro.living()).unwrap_or(self.registry.me().node)
    }

    /// Looks for what is empty or not asked for any more, a few buckets at a time.
    fn sweep(&mut self, now_ms: u64) {
        let due = now_ms.saturating_sub(self.swept_ms) / SWEEP_MS;
        if due == 0 {
            return;
        }
        self.swept_ms = now_ms;
        for _ in 0..due.min(SWEEP_COUNT) {
            self.registry.sweep_bucket(now_ms, self.sweeps);
            self.sweeps = (self.sweeps + 1) % BUCKETS;
            if self.sweeps == 0 {
                self.registry.shrink();
                self.answers.sweep();
            }
        }
    }
}

impl fmt::Debug for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Discovery").finish_non_exhaustive()
    }
}

/// How much there is of what, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Services that are known.
    pub services: usize,
    /// Records of this node.
    pub own_records: usize,
    /// Records of other nodes.
    pub copies: usize,
    /// Bytes of rendered answers.
    pub answer_bytes: usize,
    /// Acts on their way to other nodes.
    pub forwarded: usize,
    /// Of the protocol.
    pub distro: Sizes,
}

impl Discovery {
    /// The registry of a node that begins, and loads until it is told who the members are. Blocks for the disk.
    ///
    /// # Errors
    /// The high-water mark cannot be written, or the replicated state cannot be read.
    pub fn open(parts: Parts) -> Result<Arc<Discovery>> {
        let wall_ms = u64::try_from(clock::wall_ms()).unwrap_or_default();
        let file = WatermarkFile::in_folder(&parts.folder);
        let opened = Reserve::open(file, wall_ms);
        let Left {
            reserve,
            floor,
            acts_floor,
            held,
            away_ms,
        } = opened.map_err(|error| Error::Internal(error.to_string()))?;
        let me = Origin {
            node: parts.node,
            // Above that of every earlier run: their mark was above all that they drew.
            boot: floor,
        };
        let members = BTreeSet::new();
        let mut distro = Distro::new(me, [], BEGINNING_MS);
        let instances = parts.folder.join("instances");
        let (keeper, last_known) = Keeper::open(instances, me, away_ms, BEGINNING_MS);
        // What a client says from now on counts above what it said to the last run, even if the wall clock was set
        // back since.
        let clocks = Clocks {
            lists: StampClock::new(floor, BEGINNING_MS),
            acts: StampClock::new(acts_floor.max(newest_act(&last_known)), BEGINNING_MS),
        };
        let mut registry = Registry::new(me, clocks);
        registry.feed_all(BEGINNING_MS, (parts.rows)()?);
        if held || !last_known.is_empty() {
            distro.await_clients(BEGINNING_MS + REDO_MS);
        }
        Ok(Arc::new(Discovery {
            shared: Mutex::new(Shared {
                registry,
                distro,
                links: BTreeMap::new(),
                members,
                answers: Answers::default(),
                fed: Fed::Yes,
                swept_ms: BEGINNING_MS,
                last_known,
                taken_back: false,
                sweeps: 0,
            }),
            started: clock::now(),
            changed: Notify::new(),
            on_events: parts.on_events,
            rows: parts.rows,
            hang_up: OnceLock::new(),
            reserve: Mutex::new(reserve),
            keeper: Mutex::new(keeper),
            node: me.node,
            ticked_ms: AtomicU64::new(BEGINNING_MS),
            hub: OnceLock::new(),
            forwards: Forwards::default(),
            long_jobs: Mutex::default(),
            ready: AtomicBool::new(false),
            expires: AtomicBool::new(true),
            marked: AtomicBool::new(held),
        }))
    }

    /// From now on there are peers. The first call counts.
    pub fn attach(&self, links: Links) {
        let _first = self.hub.set(links);
    }

    /// How connections of clients are ended when this node has to begin anew. The first call counts.
    pub fn set_hang_up(&self, hang_up: HangUp) {
        let _first = self.hang_up.set(hang_up);
    }

    /// Id of this node.
    pub(super) fn node(&self) -> u64 {
        self.node
    }

    /// Records that this node writes at most: about 1 GiB of memory on each node of the cluster.
    pub const OWN_RECORDS_MAX: usize = 1_000_000;

    /// Monotonic time of the registry.
    pub fn now_ms(&self) -> u64 {
        BEGINNING_MS + millis(clock::now() - self.started)
    }

    /// Changes the registry. Whoever watches is told.
    pub fn act<T>(&self, act: impl FnOnce(&mut Registry, u64) -> T) -> T {
        let mut shared = self.lock();
        let now_ms = self.now_ms();
        let done = act(&mut shared.registry, now_ms);
        self.tell(&mut shared);
        done
    }

    /// Looks at the registry.
    pub fn look<T>(&self, look: impl FnOnce(&Registry, u64) -> T) -> T {
        let shared = self.lock();
        look(&shared.registry, self.now_ms())
    }

    /// Does an act here, whoever is responsible.
    pub fn execute(&self, act: Act) -> Done {
        let mut shared = self.lock();
        let now_ms = self.now_ms();
        self.execute_at(&mut shared, now_ms, act, Stamp::default())
    }

    fn execute_at(&self, shared: &mut Shared, now_ms: u64, act: Act, above: Stamp) -> Done {
        if matches!(act.what, What::Beat { full: None }) && shared.may_be_outdated(now_ms, &act) {
            return Done::UnknownBeat;
        }
        let done = execute(&mut shared.registry, now_ms, act, above);
        self.tell(shared);
        match done {
            // It may be on the way: another node knows better, and a client that hears this registers anew.
            Done::UnknownBeat if shared.distro.is_loading() => Done::NotHere,
            done => done,
        }
    }

    /// As [`Discovery::execute`], for an act of another node; `None` when this node's time has stood still
    /// for so long that the other one may have done it itself.
    pub(super) fn execute_in_time(&self, request: Request) -> Option<Reply> {
        let Request {
            id,
            asked,
            above,
            act,
        } = request;
        let mut shared = self.lock();
        let now_ms = self.now_ms();
        if self.late_ms(now_ms) > millis(FORWARD_WITHIN) {
            return None;
        }
        let registry = &mut shared.registry;
        registry.hear_act(now_ms, asked);
        let old = registry.times(now_ms).acts.0.saturating_sub(asked.0) >= millis(FORWARD_WITHIN);
        let places = places(registry, &act);
        let beaten = places
            .iter()
            .any(|place| registry.highest(&act.service, place) > asked);
        if old || (beaten && !matches!(act.what, What::Beat { .. })) {
            let (done, word) = (Done::NotHere, None);
            return Some(Reply { id, done, word });
        }
        // Of several places, which is rare, one is told at once; so is the new place of who has moved, and not the old one.
        let told = places.into_iter().next();
        let (service, endpoint) = (act.service.clone(), told.unwrap_or_else(|| act.endpoint.clone()));
        // Most beats say nothing new.
        let known = match act.what {
            What::Beat { .. } => Some(registry.newest()),
            What::Register { .. } | What::Deregister | What::DeregisterAnywhere => None,
        };
        let done = self.execute_at(&mut shared, now_ms, act, above);
        let registry = &shared.registry;
        let is_news = known != Some(registry.newest());
        let word = is_news.then(|| registry.word(&service, &endpoint)).flatten();
        let word = word.map(|word| (registry.me(), word));
        Some(Reply { id, done, word })
    }

    /// What a peer has done for a client of this node is shown here before the client has its answer.
    pub(super) fn take_word(&self, origin: Origin, word: Delta) {
        let mut shared = self.lock();
        shared.registry.take_word(self.now_ms(), origin, word);
        self.tell(&mut shared);
    }

    /// For how long nobody has looked at the clock, ms.
    fn late_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.ticked_ms.load(Ordering::Acquire))
    }

    /// See [`crate::cluster::LinkService::is_late`].
    pub(super) fn is_late_for(&self, kind: LinkKind) -> bool {
        let bound_ms = match kind {
            LinkKind::Forward => millis(FORWARD_WITHIN),
            LinkKind::Distro => GIVEN_UP_MS,
        };
        self.late_ms(self.now_ms()) > bound_ms
    }

    /// Who does an act, this node's logical time, and the highest stamp of the instance that it knows.
    pub(super) fn whose(&self, act: &Act) -> (u64, Stamp, Stamp) {
        let shared = self.lock();
        let registry = &shared.registry;
        let to = shared.responsible(&act.service);
        let asked = registry.times(self.now_ms()).acts;
        (to, asked, registry.highest(&act.service, &act.endpoint))
    }

    /// The member that handles the HTTP writes of a service.
    pub fn responsible(&self, service: &ServiceKey) -> u64 {
        self.lock().responsible(service)
    }

    /// The member that an operator is told for a client over HTTP, `ip:port`. Acts go by service.
    pub fn responsible_for_client(&self, client: &str) -> u64 {
        self.responsible(&ServiceKey::new(&NamespaceId::default(), "", client))
    }

    /// True when this node handles the HTTP writes of a service.
    pub fn is_responsible(&self, service: &ServiceKey) -> bool {
        self.responsible(service) == self.node
    }

    /// Whether readers may be answered: an empty list is never told as truth while more may be known.
    pub fn readiness(&self) -> Readiness {
        if self.ready.load(Ordering::Acquire) || seeded::has(Bug::EmptyAtOnce) {
            return Readiness::Ready;
        }
        let readiness = self.lock().readiness(self.now_ms());
        if readiness == Readiness::Ready {
            self.ready.store(true, Ordering::Release);
        }
        readiness
    }

    /// Whether readers may be told of a service; never [`Readiness::Provisional`].
    pub fn readiness_of(&self, service: &ServiceKey) -> Readiness {
        match self.readiness() {
            Readiness::Provisional => {
                let held = self.look(|registry, _| registry.instances(service).next().is_some());
                if held {
                    Readiness::Ready
                } else {
                    Readiness::AwaitingClients
                }
            }
            readiness => readiness,
        }
    }

    /// The members of the cluster, by raft's configuration.
    pub fn set_members(&self, members: BTreeSet<u64>) {
        let mut shared = self.lock();
        shared.distro.set_members(members.iter().copied());
        shared.members = members;
        drop(shared);
        self.wake();
    }

    /// Has time and the protocol looked at now.
    pub(super) fn wake(&self) {
        self.changed.notify_one();
    }

    /// How much there is of what.
    pub fn figures(&self) -> Figures {
        let shared = self.lock();
        let registry = &shared.registry;
        Figures {
            services: registry.service_count(),
            own_records: registry.own_records(),
            copies: registry.origins().map(|(_, _, records)| records).sum(),
            answer_bytes: shared.answers.bytes(),
            forwarded: self.forwards.under_way(),
            distro: shared.distro.sizes(registry),
        }
    }

    /// Whether instances whose beats stay away turn unhealthy and go on this node. Once they do again, all of
    /// them have their full time.
    pub fn set_expiry(&self, expires: bool) {
        let before = self.expires.swap(expires, Ordering::AcqRel);
        if expires && !before {
            self.act(Registry::renew_deadlines);
        }
    }

    /// Lets time pass, for ever.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub async fn run(self: Arc<Self>) {
        let (mut turned, mut reads) = (clock::now(), Reads::default());
        loop {
            tokio::select! {
                () = self.changed.notified() => sleep_until(turned + GATHER).await,
                () = sleep(TICK) => {}
            }
            self.turn();
            turned = clock::now();
            self.read_rows(&mut reads);
            if let Some(known) = self.reserve_due() {
                let this = Arc::clone(&self);
                let renewed = tokio::task::spawn_blocking(move || this.renew(known));
                if renewed.await.is_err() {
                    tracing::error!("the high-water mark of naming was not written: its thread panicked");
                }
            }
        }
    }

    /// One look at the clock and at what is to be sent.
    pub(super) fn turn(&self) {
        let mut shared = self.lock();
        let now_ms = self.now_ms();
        let late_ms = self.late_ms(now_ms);
        let begun_anew = late_ms > millis(FORWARD_WITHIN) && self.woke_late(&mut shared, now_ms, late_ms);
        self.ticked_ms.store(now_ms, Ordering::Release);
        let this = &mut *shared;
        let expires = self.expires.load(Ordering::Acquire) && !seeded::has(Bug::DeadStay);
        let more_rings = expires && this.registry.tick(now_ms);
        this.sweep(now_ms);
        for peer in this.distro.poll(now_ms, &mut this.registry) {
            if let Some(link) = this.links.get(&peer) {
                link.close();
            }
        }
        if Discovery::take_back(this, now_ms) {
            self.wake();
        }
        self.send_out(this);
        self.tell(this);
        if more_rings {
            self.wake();
        }
        self.wake_if_due(this);
        drop(shared);
        if let Some(hang_up) = self.hang_up.get().filter(|_| begun_anew) {
            hang_up();
        }
    }

    /// Time stood still here. What waited in streams is not acted on; if the others have given this node up,
    /// it begins anew (true), and its clients come back as they would after a restart.
    fn woke_late(&self, shared: &mut Shared, now_ms: u64, late_ms: u64) -> bool {
        tracing::warn!(
            late_ms,
            "this process stood still: what other nodes asked meanwhile is not done"
        );
        if let Some(links) = self.hub.get() {
            links.reset(LinkKind::Forward);
        }
        // Without others there was nobody who could have given it up.
        if late_ms <= GIVEN_UP_MS || shared.is_alone() {
            // Clients beat in vain meanwhile.
            shared.registry.renew_deadlines(now_ms);
            return false;
        }
        tracing::warn!("the other nodes have given this one up meanwhile: its registry begins anew");
        if let Some(links) = self.hub.get() {
            links.reset(LinkKind::Distro);
        }
        self.ready.store(false, Ordering::Release);
        // Above what this run has drawn, as after a restart; acts go on in their order.
        let times = shared.registry.times(now_ms);
        let boot = times.lists.0;
        let me = Origin {
            node: self.node,
            boot,
        };
        shared.registry = Registry::new(
            me,
            Clocks {
                lists: StampClock::new(times.lists.0, now_ms),
                acts: StampClock::new(times.acts.0, now_ms),
            },
        );
        shared.fed = Fed::No;
        shared.distro = Distro::new(me, shared.members.iter().copied(), now_ms);
        shared.links.clear();
        shared.answers = Answers::default();
        shared.last_known = LastKnown::new();
        shared.taken_back = false;
        shared.distro.await_clients(now_ms + REDO_MS);
        true
    }

    fn reserve_due(&self) -> Option<Known> {
        let (times, in_use) = {
            let shared = self.lock();
            let registry = &shared.registry;
            let copies = registry.origins().any(|(_, _, records)| records > 0);
            let in_use = copies || registry.own_records() > 0;
            (registry.times(self.now_ms()), in_use)
        };
        let wall_ms = u64::try_from(clock::wall_ms()).unwrap_or_default();
        let known = Known {
            lists_ms: times.lists.0,
            ahead_ms: times.acts.0.saturating_sub(wall_ms),
            in_use,
        };
        self.lock_reserve().is_due(known).then_some(known)
    }

    /// Blocks.
    fn renew(&self, known: Known) {
        self.marked.store(known.in_use, Ordering::Relaxed);
        self.lock_reserve().renew(known);
    }

    /// Brings to the disk what the next run has to know, when nobody changes anything any more. Blocks.
    pub fn close(&self) {
        if let Some(known) = self.reserve_due() {
            self.renew(known);
        }
        self.keep_now();
    }

    /// Hands on what has happened.
    pub(super) fn tell(&self, shared: &mut Shared) {
        let events = shared.registry.take_events();
        if events.is_empty() {
            return;
        }
        for event in &events {
            if let Event::Vanished(service) = event {
                shared.answers.forget(service);
            }
        }
        (self.on_events)(events);
        self.wake_if_due(shared);
    }

    /// Has what there is to say to peers said soon. The first instance is marked at once: a node that ends before
    /// would list nothing afterwards, as truth.
    pub(super) fn wake_if_due(&self, shared: &Shared) {
        let says = !shared.links.is_empty() && shared.distro.is_due(&shared.registry);
        if says || !self.marked.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    /// Nothing panics while it holds the lock but an assertion of ours.
    pub(super) fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lock_keeper(&self) -> MutexGuard<'_, Keeper> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_reserve(&self) -> MutexGuard<'_, Reserve> {
        self.reserve.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(duration: Duration) -> u64 {
    // In 500 million years it would be too much.
    duration.as_millis() as u64
}

/// The instances that an act is about.
fn places(registry: &Registry, act: &Act) -> Vec<Endpoint> {
    match act.what {
        What::DeregisterAnywhere => registry.wherever(&act.service, &act.endpoint, Kind::Ephemeral),
        What::Register { .. } | What::Deregister | What::Beat { .. } => vec![act.endpoint.clone()],
    }
}

/// Does an act on the registry of this node.
fn execute(registry: &mut Registry, now_ms: u64, act: Act, above: Stamp) -> Done {
    let Act {
        service,
        endpoint,
        what,
    } = act;
    let full = registry.own_records() >= Discovery::OWN_RECORDS_MAX;
    let goes = matches!(what, What::Deregister | What::DeregisterAnywhere);
    if full && !goes && registry.instance(&service, &endpoint).is_none() {
        return Done::Full;
    }
    match what {
        What::Register { instance, healthy } => {
            let said = (Instance::clone(&instance), healthy);
            match registry.register_over(now_ms, &Owner::Beats, &service, &endpoint, said, above) {
                Ok(()) => {
                    registry.move_here(now_ms, &service, &endpoint);
                    Done::Yes
                }
                Err(WrongKind { holds, .. }) => Done::WrongKind(holds),
            }
        }
        What::Deregister => {
            registry.leave(now_ms, &service, &endpoint);
            Done::Yes
        }
        What::DeregisterAnywhere => {
            for place in registry.wherever(&service, &endpoint, Kind::Ephemeral) {
                registry.leave(now_ms, &service, &place);
            }
            Done::Yes
        }
        // Nothing beats for what the log keeps. (A light beat is not found, as recorded.)
        What::Beat { full: Some(_) }
            if registry.kind(&service) == Some(Kind::Persistent)
                && registry
                    .instance(&service, &endpoint)
                    .is_none_or(|seen| !seen.ephemeral) =>
        {
            Done::WrongKind(Kind::Persistent)
        }
        What::Beat { full } => {
            let full = full.map(|instance| Instance::clone(&instance));
            match registry.beat(now_ms, &service, &endpoint, full) {
                Beat::Taken { interval_ms } => Done::Beat { interval_ms },
                Beat::Unknown => Done::UnknownBeat,
            }
        }
    }
}
