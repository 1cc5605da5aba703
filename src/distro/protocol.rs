//! The protocol between nodes, as a plain value.

mod fetch;
mod stamps;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::naming::bugs::{Bug, has};
use crate::naming::{BUCKETS, Batch, Digest, Dropped, Origin, RecordKey, Refused, Registry, Revision};

use super::message::{Heard, Lacks, Message};
use fetch::Pull;
use stamps::Stamps;

/// Changes of one batch.
const BATCH_COUNT: usize = 256;
/// Batches on their way to a peer that it has not confirmed.
const BATCHES_IN_FLIGHT: usize = 4;
/// Records of buckets that are told at a time, before the bucket is looked at in which this was reached: some 1 µs
/// each.
const TOLD_COUNT: usize = 4_000;
/// Buckets that a peer has asked for and not been told yet. Beyond it they are told at once.
const ASKED_MAX: usize = 16 * BUCKETS;
/// How often digests are told, ms.
const VERIFY_MS: u64 = 5_000;
/// How often an idle stream shows that it lives, ms.
const ALIVE_MS: u64 = 1_000;
/// A stream that is silent for so long is dead, ms.
const SILENT_MS: u64 = 5_000;
/// A node whose wait for clients would end while a peer tells it what there is waits so much longer, again and
/// again, ms.
const HEARS_OUT_MS: u64 = 1_000;
/// Records of a node that nobody hears are kept for so long, ms: its clients need up to 14 s to notice, then back
/// off and register again. The Python SDK does that on a timer of 30 s, whatever happens; its 2.0 needs 10 s before
/// that to see that the connection is broken. Whoever died with the node is listed for as long: a provider too many
/// costs its callers a retry, one too few is an outage.
pub const GRACE_MS: u64 = 45_000;
/// The monotonic time at which a node begins, ms. Not 0: for how long nobody has heard an origin is told by
/// others, and reaches back before this node was there.
pub const BEGINNING_MS: u64 = 24 * 3_600 * 1_000;
/// A starting node that finds nobody who has data stops waiting, ms.
const LOAD_MS: u64 = 5_000;
/// After a start, while no other node has told this one what there is, readers wait so long: by then the clients of
/// nearly all SDKs have noticed and registered again (contract 05 §2.5; the Rust SDK takes 13 s), ms.
pub const REDO_MS: u64 = 15_000;

/// Something to send.
#[derive(Clone, Debug, PartialEq)]
pub struct Out {
    /// To which node.
    pub to: u64,
    /// What.
    pub message: Message,
}

/// How much there is of what, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Peers that are connected.
    pub peers: usize,
    /// Changes that the slowest of them has not confirmed.
    pub behind: u64,
    /// Origins nobody hears whose records are still kept.
    pub absent: usize,
}

/// A peer, while its stream lives.
#[derive(Debug)]
struct Peer {
    /// Who it says it is; `None` before its first message.
    origin: Option<Origin>,
    /// What it has confirmed of this node's changes.
    confirmed: Revision,
    /// What has been sent of them.
    sent: Revision,
    in_flight: usize,
    /// It fetches buckets, and will say where to go on.
    waits: bool,
    /// Up to where its own changes went when it first told; until they are here this node loads.
    load_to: Option<Revision>,
    heard_ms: u64,
    said_ms: u64,
    /// It cannot tell what there is.
    lacks: Option<Lacks>,
    /// Which other origins it holds, and whether it hears them itself.
    hears: BTreeMap<Origin, bool>,
    pulls: BTreeMap<Origin, Pull>,
    /// Buckets that it has asked for and not been told yet, and behind which record of them.
    asks: BTreeMap<(Origin, usize), Option<RecordKey>>,
}

impl Peer {
    /// True if there are changes of this node that it has not been sent, and it takes some.
    fn takes_changes(&self, registry: &Registry) -> bool {
        let takes = self.origin.is_some() && !self.waits && self.in_flight < BATCHES_IN_FLIGHT;
        takes && self.sent < registry.newest()
    }
}

/// This node's part of the protocol.
#[derive(Debug)]
pub struct Distro {
    me: Origin,
    /// Ids of all members, this node among them.
    members: BTreeSet<u64>,
    /// False while this node has not been told who they are: it may be about to join others.
    members_known: bool,
    peers: BTreeMap<u64, Peer>,
    /// Origins that nobody hears, and since when.
    absent: BTreeMap<Origin, u64>,
    /// When other origins were heard last, by this node until its stream to them ended, or by others.
    heard_ms: BTreeMap<Origin, u64>,
    /// Per node the newest boot whose records were given up: they are not taken from others again, who
    /// may give them up a little later.
    given_up: BTreeMap<u64, u64>,
    /// Who shared responsibility when it was looked at last.
    lived: BTreeSet<u64>,
    verified_ms: u64,
    stamps: Stamps,
    /// A peer was lost since the last [`Distro::poll`].
    lost: bool,
    /// Since when this node loads; `None` when it has done so.
    loading_since: Option<u64>,
    /// A peer that had something to give has told it all.
    fed: bool,
    /// Up to where this node's changes are on its disk; `None`: nobody puts them there.
    kept: Option<Revision>,
    /// What this node held before it began is brought back by its clients until then.
    awaits_until_ms: u64,
    out: Vec<Out>,
}

impl Distro {
    /// A node that begins, with nobody connected. Without `members` it loads until it is told who they are.
    pub fn new(me: Origin, members: impl IntoIterator<Item = u64>, now_ms: u64) -> Distro {
        assert!(
            now_ms >= BEGINNING_MS,
            "a node's time begins above the ages it is told"
        );
        let mut distro = Distro {
            me,
            members: BTreeSet::from([me.node]),
            members_known: false,
            peers: BTreeMap::new(),
            absent: BTreeMap::new(),
            heard_ms: BTreeMap::new(),
            given_up: BTreeMap::new(),
            lived: BTreeSet::from([me.node]),
            verified_ms: now_ms,
            stamps: Stamps::new(now_ms),
            lost: false,
            loading_since: Some(now_ms),
            fed: false,
            kept: None,
            awaits_until_ms: 0,
            out: Vec::new(),
        };
        let members: BTreeSet<u64> = members.into_iter().collect();
        if !members.is_empty() {
            distro.set_members(members);
        }
        distro
    }

    /// The members of the cluster have changed.
    pub fn set_members(&mut self, members: impl IntoIterator<Item = u64>) {
        self.members_known = true;
        self.members = members.into_iter().collect();
        self.members.insert(self.me.node);
        self.peers.retain(|peer, _| self.members.contains(peer));
    }

    /// True while reads must not be answered: what this node has may not be all there is.
    pub fn is_loading(&self) -> bool {
        self.loading_since.is_some()
    }

    /// What this node knew before it began is with its clients alone, who come back until then. Peers that have
    /// something to give are better.
    pub fn await_clients(&mut self, until_ms: u64) {
        self.awaits_until_ms = until_ms;
    }

    /// This node's changes are on its disk up to here: removals behind it are remembered as for a peer that has
    /// not confirmed them.
    pub fn set_kept(&mut self, kept: Option<Revision>) {
        self.kept = kept;
    }

    /// True while nobody but clients can tell what there is, and they need some time.
    pub fn awaits_clients(&self, now_ms: u64) -> bool {
        !self.fed && now_ms < self.awaits_until_ms
    }

    /// True if a peer is this origin.
    pub fn hears(&self, origin: Origin) -> bool {
        self.peers.values().any(|peer| peer.origin == Some(origin))
    }

    /// Why peers that begin had better ask others.
    fn lacks(&self, now_ms: u64) -> Option<Lacks> {
        let lacks = self.is_loading() || self.awaits_clients(now_ms);
        lacks.then(|| Lacks {
            awaits_ms: self.awaits_until_ms.saturating_sub(now_ms),
        })
    }

    /// Members that are heard, this node among them: who shares responsibility.
    pub fn living(&self) -> impl Iterator<Item = u64> {
        let heard = self.peers.iter().filter(|(_, peer)| peer.origin.is_some());
        heard.map(|(id, _)| *id).chain([self.me.node])
    }

    /// True if more than half of the members are heard.
    pub fn sees_majority(&self) -> bool {
        self.living().count() * 2 > self.members.len()
    }

    /// Figures for metrics.
    pub fn sizes(&self, registry: &Registry) -> Sizes {
        let newest = registry.newest().0;
        let behind = self
            .peers
            .values()
            .map(|peer| newest - peer.confirmed.0.min(newest));
        Sizes {
            peers: self.peers.len(),
            behind: behind.max().unwrap_or_default(),
            absent: self.absent.len(),
        }
    }

    /// What is to be sent, in order per peer.
    pub fn take_out(&mut self) -> Vec<Out> {
        std::mem::take(&mut self.out)
    }

    /// A stream to a peer has begun; false if it is no member, as far as this node knows: nothing of the stream is
    /// heard then, so it is to be ended and begun again.
    pub fn on_connected(&mut self, now_ms: u64, registry: &Registry, peer: u64) -> bool {
        if !self.members.contains(&peer) || peer == self.me.node {
            return false;
        }
        let fresh = Peer {
            origin: None,
            confirmed: Revision::default(),
            sent: Revision::default(),
            in_flight: 0,
            waits: false,
            load_to: None,
            heard_ms: now_ms,
            said_ms: now_ms,
            lacks: None,
            hears: BTreeMap::new(),
            pulls: BTreeMap::new(),
            asks: BTreeMap::new(),
        };
        self.peers.insert(peer, fresh);
        let newest_boot = registry
            .origins()
            .filter(|(origin, _, _)| origin.node == peer)
            .map(|(origin, known, _)| (origin, known))
            .max();
        self.say(
            now_ms,
            peer,
            Message::Hello {
                origin: self.me,
                knows: newest_boot,
                lacks: self.lacks(now_ms),
            },
        );
        true
    }

    /// A stream to a peer has ended; what was on its way may be lost.
    ///
    /// A node that is loading asks the others again with the next [`Distro::poll`].
    pub fn on_disconnected(&mut self, peer: u64) {
        if let Some(peer) = self.peers.remove(&peer) {
            if let Some(origin) = peer.origin {
                let heard_ms = self.heard_ms.entry(origin).or_default();
                *heard_ms = peer.heard_ms.max(*heard_ms);
            }
            self.lost = true;
            self.stamps.may_be_lost();
        }
    }

    /// A message came from a peer.
    pub fn on_message(&mut self, now_ms: u64, registry: &mut Registry, from: u64, message: Message) {
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        peer.heard_ms = now_ms;
        match message {
            Message::Hello { origin, knows, lacks } if origin.node == from => {
                peer.origin = Some(origin);
                peer.lacks = lacks;
                let known = knows.filter(|(of, _)| *of == self.me).map(|(_, known)| known);
                peer.confirmed = known.unwrap_or_default();
                peer.sent = peer.confirmed;
                peer.in_flight = 0;
                self.absent.remove(&origin);
                self.verify(now_ms, registry, from, false);
            }
            Message::Changes(batch) if Some(batch.origin) == peer.origin => {
                self.on_changes(now_ms, registry, from, batch);
            }
            Message::Known { origin, known, go_on } if origin == self.me => {
                peer.in_flight = peer.in_flight.saturating_sub(1);
                peer.confirmed = peer.confirmed.max(known);
                if go_on {
                    peer.sent = known;
                    peer.waits = false;
                }
                self.on_confirmed(registry);
            }
            Message::Verify {
                heard,
                times,
                lacks,
                begin_again,
            } => {
                if peer.lacks.is_some() && lacks.is_none() {
                    // It knows now: what it has by now counts.
                    peer.load_to = None;
                }
                peer.lacks = lacks;
                registry.hear(now_ms, times);
                self.on_verify(now_ms, registry, from, heard, begin_again);
            }
            Message::Tell => self.verify(now_ms, registry, from, false),
            Message::Alive { times } => registry.hear(now_ms, times),
            Message::Ask {
                origin,
                buckets,
                after,
            } => {
                let asked = buckets.into_iter().filter(|bucket| *bucket < BUCKETS);
                peer.asks
                    .extend(asked.map(|bucket| ((origin, bucket), after.clone())));
                if peer.asks.len() > ASKED_MAX {
                    self.tell_buckets(now_ms, registry, from, usize::MAX);
                }
            }
            Message::Bucket(bucket) => self.on_bucket(now_ms, registry, from, bucket),
            Message::Stamps(stamps) => {
                for (service, stamp) in stamps {
                    registry.raise_to(now_ms, &service, stamp);
                }
            }
            // Words about others than those they may be about.
            Message::Hello { .. } | Message::Changes(_) | Message::Known { .. } => {}
        }
    }

    /// Time has passed, or the registry has changed: says what there is to say. To be called at least every
    /// 100 ms. Returns the peers that have been silent for too long; their streams are to be closed.
    pub fn poll(&mut self, now_ms: u64, registry: &mut Registry) -> Vec<u64> {
        let silent = |peer: &Peer| now_ms >= peer.heard_ms + SILENT_MS;
        let dead: Vec<u64> = self
            .peers
            .iter()
            .filter(|(_, peer)| silent(peer))
            .map(|(id, _)| *id)
            .collect();
        for peer in &dead {
            self.on_disconnected(*peer);
        }
        self.hear_out_again(now_ms);
        registry.set_alone(self.members_known && self.members.len() == 1);
        // With nobody else there is nobody to wait for.
        self.on_confirmed(registry);
        let peers: Vec<u64> = self.peers.keys().copied().collect();
        if now_ms >= self.verified_ms + VERIFY_MS {
            self.verified_ms = now_ms;
            for peer in &peers {
                self.verify(now_ms, registry, *peer, false);
            }
        }
        let (mut room, mut made) = (TOLD_COUNT, Vec::new());
        for peer in peers {
            self.send_changes(now_ms, registry, peer, &mut made);
            self.ask(now_ms, registry, peer);
            room = self.tell_buckets(now_ms, registry, peer, room);
            if self
                .peers
                .get(&peer)
                .is_some_and(|peer| now_ms >= peer.said_ms + ALIVE_MS)
            {
                let times = registry.times(now_ms);
                self.say(now_ms, peer, Message::Alive { times });
            }
        }
        self.watch_living(now_ms, registry);
        self.watch_absent(now_ms, registry);
        self.tell_stamps(now_ms, registry);
        self.watch_load(now_ms, registry);
        dead
    }

    fn say(&mut self, now_ms: u64, to: u64, message: Message) {
        if let Some(peer) = self.peers.get_mut(&to) {
            peer.said_ms = now_ms;
            self.out.push(Out { to, message });
        }
    }

    /// True when [`Distro::poll`] has something to do that need not wait for its time.
    pub fn is_due(&self, registry: &Registry) -> bool {
        let to_say = |peer: &Peer| !peer.asks.is_empty() || peer.takes_changes(registry);
        self.is_loading() || self.peers.values().any(to_say)
    }

    /// Tells a peer buckets that it has asked for, until there is no room for more records; says how much is left.
    fn tell_buckets(&mut self, now_ms: u64, registry: &Registry, to: u64, mut room: usize) -> usize {
        while room > 0
            && let Some(peer) = self.peers.get_mut(&to)
            && let Some(((origin, bucket), after)) = peer.asks.pop_first()
        {
            let bucket = registry.bucket(origin, bucket, after.as_ref());
            room = room.saturating_sub(bucket.deltas.len().max(1));
            self.say(now_ms, to, Message::Bucket(bucket));
        }
        room
    }

    /// Sends a peer what it has not been sent yet. `made` are batches that were made in the same turn: peers that
    /// are equally far are sent the same ones.
    fn send_changes(&mut self, now_ms: u64, registry: &Registry, to: u64, made: &mut Vec<Arc<Batch>>) {
        loop {
            let Some(peer) = self.peers.get_mut(&to) else {
                return;
            };
            if !peer.takes_changes(registry) {
                return;
            }
            let batch = match made.iter().find(|batch| batch.from == peer.sent) {
                Some(batch) => Arc::clone(batch),
                None => {
                    let Some(batch) = registry.batch(peer.sent, BATCH_COUNT) else {
                        peer.waits = true;
                        return self.verify(now_ms, registry, to, true);
                    };
                    let batch = Arc::new(batch);
                    made.push(Arc::clone(&batch));
                    batch
                }
            };
            peer.sent = batch.through;
            peer.in_flight += 1;
            self.say(now_ms, to, Message::Changes(batch));
        }
    }

    fn on_changes(&mut self, now_ms: u64, registry: &mut Registry, from: u64, batch: Arc<Batch>) {
        let origin = batch.origin;
        // Whoever receives a batch has it for itself.
        let (known, go_on) = match registry.apply(now_ms, Arc::unwrap_or_clone(batch)) {
            Ok(known) => (known, false),
            Err(Refused::Gap { floor }) => (floor, true),
            Err(Refused::Own) => return,
        };
        self.say(now_ms, from, Message::Known { origin, known, go_on });
    }

    /// Removals and tombstones that every member has confirmed, and the disk, may be forgotten.
    fn on_confirmed(&mut self, registry: &mut Registry) {
        if !self.members_known {
            return;
        }
        let mut confirmed = self.kept.unwrap_or(registry.newest());
        for member in self.members.iter().filter(|member| **member != self.me.node) {
            let peer = self.peers.get(member);
            confirmed = confirmed.min(peer.map(|peer| peer.confirmed).unwrap_or_default());
        }
        registry.confirmed(confirmed);
    }

    fn verify(&mut self, now_ms: u64, registry: &Registry, to: u64, begin_again: bool) {
        let sums = |digest: &Digest| Box::new(*digest.sums());
        let own = Heard {
            origin: self.me,
            known: registry.newest(),
            newest: registry.newest(),
            sums: sums(registry.own_digest()),
            silent_ms: 0,
            absent_ms: None,
        };
        let peers = self.peers.values();
        let living: BTreeMap<Origin, u64> = peers
            .filter_map(|peer| Some((peer.origin?, peer.heard_ms)))
            .collect();
        let ago = |since: Option<&u64>| since.map_or(0, |since| now_ms.saturating_sub(*since));
        let copies = registry.origins().filter_map(|(origin, known, _)| {
            let heard_ms = living.get(&origin);
            let last_ms = || self.absent.get(&origin).max(self.heard_ms.get(&origin));
            Some(Heard {
                origin,
                known,
                newest: registry.newest_of(origin),
                sums: sums(registry.digest_of(origin)?),
                silent_ms: ago(heard_ms),
                absent_ms: heard_ms.is_none().then(|| ago(last_ms())),
            })
        });
        let heard = std::iter::once(own).chain(copies).collect();
        let times = registry.times(now_ms);
        let lacks = self.lacks(now_ms);
        self.say(
            now_ms,
            to,
            Message::Verify {
                heard,
                times,
                lacks,
                begin_again,
            },
        );
    }

    /// Clients whose beats go elsewhere from now on, or come here again, have time to be heard.
    fn watch_living(&mut self, now_ms: u64, registry: &mut Registry) {
        let living: BTreeSet<u64> = self.living().collect();
        if living != self.lived {
            self.lived = living;
            if !has(Bug::NoFreshDeadline) {
                registry.renew_deadlines(now_ms);
            }
        }
    }

    /// Origins that nobody hears are given the grace, from when they were heard last, and then up.
    fn watch_absent(&mut self, now_ms: u64, registry: &mut Registry) {
        // A peer whose stream has just begun may hear whom this node has not heard for long.
        let may_drop = self.sees_majority() && self.peers.values().all(|peer| peer.load_to.is_some());
        let origins: Vec<Origin> = registry.origins().map(|(origin, _, _)| origin).collect();
        // What is still being fetched has its time already.
        let fetched = |origin: &Origin| self.peers.values().any(|peer| peer.pulls.contains_key(origin));
        self.absent
            .retain(|origin, _| origins.contains(origin) || fetched(origin));
        self.heard_ms
            .retain(|origin, _| origins.contains(origin) || fetched(origin));
        for origin in origins {
            let heard = self
                .peers
                .values()
                .any(|peer| peer.origin == Some(origin) || peer.hears.get(&origin) == Some(&true));
            if heard {
                self.absent.remove(&origin);
                continue;
            }
            let heard_ms = self.heard_ms.get(&origin).copied();
            let since = *self.absent.entry(origin).or_insert(heard_ms.unwrap_or(now_ms));
            let since = since.max(heard_ms.unwrap_or_default());
            let grace_ms = if has(Bug::NoGrace) { 0 } else { GRACE_MS };
            if now_ms >= since + grace_ms && may_drop && !has(Bug::GraceNeverEnds) {
                self.given_up.insert(origin.node, origin.boot);
                match registry.drop_origin(now_ms, origin) {
                    Dropped::All => drop(self.absent.remove(&origin)),
                    // The next poll goes on.
                    Dropped::More => {}
                    // What is left is looked at again before long.
                    Dropped::Covering => {
                        let again = (now_ms + VERIFY_MS).saturating_sub(GRACE_MS);
                        self.absent.insert(origin, again);
                    }
                }
            }
        }
    }

    /// While this node loads it takes an origin's records from the origin. If that is lost, others have
    /// copies of which they did not tell as long as it was heard.
    fn hear_out_again(&mut self, now_ms: u64) {
        if !std::mem::take(&mut self.lost) || !self.is_loading() {
            return;
        }
        let peers: Vec<u64> = self.peers.keys().copied().collect();
        for id in peers {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.load_to = None;
            }
            self.say(now_ms, id, Message::Tell);
        }
    }

    /// The load is done when everybody has been heard out, or when time is over and nobody who has data is
    /// still being listened to.
    ///
    /// If nobody knew what there is, this node waits for clients: as it was asked to or, if it held nothing itself, as
    /// long as the others do, since what it is told meanwhile is what few have brought back. And so it does if it
    /// did not hear all members, of which any may know more. Whoever has waited long enough knows again, and tells.
    fn watch_load(&mut self, now_ms: u64, registry: &Registry) {
        let told_all = |peer: &Peer| match (peer.origin, peer.load_to) {
            (Some(origin), Some(to)) => registry.known(origin) >= to && peer.pulls.is_empty(),
            _ => false,
        };
        let Some(since) = self.loading_since else {
            if !self.fed && now_ms < self.awaits_until_ms {
                let knows = |peer: &&Peer| peer.lacks.is_none() && peer.load_to.is_some();
                self.fed = self.peers.values().filter(knows).any(told_all);
                // Whoever has begun to tell is heard out.
                if self.peers.values().any(|peer| knows(&peer)) {
                    self.awaits_until_ms = self.awaits_until_ms.max(now_ms + HEARS_OUT_MS);
                }
            }
            return;
        };
        if has(Bug::NoLoad) {
            self.loading_since = None;
        }
        let heard_out = |peer: &Peer| peer.lacks.is_some() || told_all(peer);
        let all = self.members_known && self.peers.len() + 1 == self.members.len();
        let late = self.members_known && now_ms >= since + LOAD_MS;
        if (all || late) && self.peers.values().all(heard_out) {
            self.loading_since = None;
            self.fed = self.peers.values().any(|peer| peer.lacks.is_none());
            if self.awaits_until_ms == 0 && !has(Bug::NoCommonWait) {
                let awaited = self.peers.values().filter_map(|peer| peer.lacks);
                let longest_ms = awaited.map(|lacks| lacks.awaits_ms).max().unwrap_or_default();
                let alone_until_ms = if all { 0 } else { since + REDO_MS };
                self.awaits_until_ms = alone_until_ms.max(now_ms + longest_ms);
            }
        }
    }
}
