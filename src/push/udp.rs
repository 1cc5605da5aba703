//! Subscribers of Nacos 1.x, who are told of changes over UDP: who they are, and when each is told.
//!
//! Best effort by design: whoever misses a datagram asks again within ten seconds anyway. A subscription is
//! renewed by every list that its client asks for, and forgotten when the client asks no more. One datagram a
//! client, service and half a second; one repetition if it is not acknowledged.
//!
//! A plain value under a lock; the socket and the content of datagrams are `service::naming_udp`'s.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::model::ServiceKey;
use crate::naming::Event;
use crate::seeded::{self, Bug};

/// Subscriptions on this node; about 20 MiB. Beyond it a client is not told, and asks.
const SUBSCRIBERS_MAX: usize = 50_000;
/// Subscriptions of one address. A client has one for each service it uses.
const PER_ADDRESS_MAX: usize = 2_000;
/// A list renews the subscription for so long; clients ask every ten seconds, some a little later.
const RENEWED_FOR: Duration = Duration::from_secs(15);
/// Changes of a service within this time are told together.
const REST: Duration = Duration::from_millis(500);
/// An acknowledgement is waited for so long.
const ACK_WITHIN: Duration = Duration::from_secs(10);
/// A datagram, and one repetition.
const TRIES: u8 = 2;

/// Where a subscriber listens, and which clusters it wants (separated by commas, empty: all).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UdpTarget {
    /// Where datagrams go.
    pub address: SocketAddr,
    /// As the client wrote them.
    pub clusters: Box<str>,
}

/// Who subscribes, as operators see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UdpWho {
    /// For example `Nacos-Java-Client:v1.4.2`.
    pub agent: Box<str>,
    /// Name of its application; may be empty.
    pub app: Box<str>,
}

/// Somebody is to be told of a service.
pub type UdpDue = (ServiceKey, UdpTarget);

/// Who is told of changes over UDP.
#[derive(Debug, Default)]
pub struct UdpPush {
    subscribers: Mutex<Subscribers>,
    /// Services that have changed since somebody looked; a lock of its own, because it is taken under that of
    /// the registry.
    noted: Mutex<HashSet<ServiceKey>>,
    /// Subscriptions; none is the usual case, in which nothing is noted.
    count: AtomicUsize,
    changed: Notify,
}

impl UdpPush {
    /// Notes what has happened. Called under the lock of the registry: takes one short lock.
    pub fn on_events(&self, events: &[Event]) {
        if self.count.load(Ordering::Acquire) == 0 || seeded::has(Bug::NeverTold) {
            return;
        }
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        for event in events {
            if let Event::Changed { service, .. } = event {
                noted.insert(service.clone());
            }
        }
        let any = !noted.is_empty();
        drop(noted);
        if any {
            self.changed.notify_one();
        }
    }

    /// A client has asked for a list and wants to hear of changes; false when there is no room. From the moment
    /// this returns no change is missed.
    pub fn subscribe(&self, now: Instant, service: &ServiceKey, target: UdpTarget, who: UdpWho) -> bool {
        let mut subscribers = self.lock();
        let taken = subscribers.subscribe(now, service, target, who);
        self.count.store(subscribers.count, Ordering::Release);
        taken
    }

    /// Who is told of a service, by address.
    pub fn subscribers_of(&self, now: Instant, service: &ServiceKey) -> Vec<(UdpTarget, UdpWho)> {
        let subscribers = self.lock();
        let all = subscribers.services.get(service).into_iter().flatten();
        let living = all.filter(|(_, one)| one.expires > now);
        living
            .map(|(target, one)| (target.clone(), one.who.clone()))
            .collect()
    }

    /// Where anybody listens.
    pub fn targets(&self, now: Instant) -> BTreeSet<SocketAddr> {
        let subscribers = self.lock();
        let all = subscribers.services.values().flatten();
        let living = all.filter(|(_, one)| one.expires > now);
        living.map(|(target, _)| target.address).collect()
    }

    /// How many subscriptions there are.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Completes when something has changed since the last time.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// When [`UdpPush::take`] has something to give next.
    pub fn wakes_at(&self) -> Option<Instant> {
        self.lock().due.first().map(|(at, _)| *at)
    }

    /// At most `limit` who are to be told now, and how many acknowledgements were given up.
    pub fn take(&self, now: Instant, limit: usize) -> (Vec<UdpDue>, u64) {
        let noted = std::mem::take(&mut *self.noted.lock().unwrap_or_else(PoisonError::into_inner));
        let mut subscribers = self.lock();
        for service in noted {
            subscribers.mark(now, &service);
        }
        subscribers.take(now, limit)
    }

    /// Somebody was sent a datagram with this reference.
    pub fn sent(&self, now: Instant, (service, target): &UdpDue, reference: u64) {
        self.lock().sent(now, service, target, reference);
    }

    /// A datagram was acknowledged; after how long, unless nobody waits for it.
    pub fn acknowledged(&self, now: Instant, from: SocketAddr, reference: u64) -> Option<Duration> {
        self.lock().acknowledged(now, from, reference)
    }

    /// Forgets who has not asked for a while. Walks all.
    pub fn sweep(&self, now: Instant) {
        let mut subscribers = self.lock();
        subscribers.sweep(now);
        self.count.store(subscribers.count, Ordering::Release);
    }

    /// Nothing panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, Subscribers> {
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct Subscribers {
    services: HashMap<ServiceKey, BTreeMap<UdpTarget, Subscriber>>,
    count: usize,
    by_address: HashMap<IpAddr, usize>,
    /// Everybody who has something to wait for, by its time ([`Subscriber::due`]).
    due: BTreeSet<(Instant, UdpDue)>,
    /// Datagrams that wait for their acknowledgement.
    under_way: HashMap<(SocketAddr, u64), UdpDue>,
}

#[derive(Debug)]
struct Subscriber {
    who: UdpWho,
    expires: Instant,
    sent: Option<Instant>,
    /// A change has not been told.
    is_behind: bool,
    under_way: Option<UnderWay>,
    /// When to look at it; its place in [`Subscribers::due`].
    due: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct UnderWay {
    reference: u64,
    since: Instant,
    tries: u8,
}

impl Subscribers {
    fn subscribe(&mut self, now: Instant, service: &ServiceKey, target: UdpTarget, who: UdpWho) -> bool {
        let expires = now + RENEWED_FOR;
        let known = self.services.get_mut(service);
        if let Some(one) = known.and_then(|targets| targets.get_mut(&target)) {
            one.expires = expires;
            return true;
        }
        let ip = target.address.ip();
        let of_address = self.by_address.get(&ip).copied().unwrap_or_default();
        if self.count >= SUBSCRIBERS_MAX || of_address >= PER_ADDRESS_MAX {
            return false;
        }
        let fresh = Subscriber {
            who,
            expires,
            sent: None,
            is_behind: false,
            under_way: None,
            due: None,
        };
        self.services
            .entry(service.clone())
            .or_default()
            .insert(target, fresh);
        self.count += 1;
        self.by_address.insert(ip, of_address + 1);
        true
    }

    fn mark(&mut self, now: Instant, service: &ServiceKey) {
        let Some(targets) = self.services.get_mut(service) else {
            return;
        };
        for (target, one) in targets {
            one.is_behind = true;
            let at = one.sent.map_or(now, |sent| now.max(sent + REST));
            schedule(&mut self.due, service, target, one, Some(at));
        }
    }

    fn take(&mut self, now: Instant, limit: usize) -> (Vec<UdpDue>, u64) {
        let (mut taken, mut given_up) = (Vec::new(), 0);
        while taken.len() < limit {
            match self.due.first() {
                Some((at, _)) if *at <= now => {}
                _ => break,
            }
            let Some((_, (service, target))) = self.due.pop_first() else {
                break;
            };
            let targets = self.services.get_mut(&service);
            let Some(one) = targets.and_then(|targets| targets.get_mut(&target)) else {
                continue;
            };
            one.due = None;
            if one.expires <= now {
                self.remove(&service, &target);
                continue;
            }
            let tries = one.under_way.map_or(0, |under_way| under_way.tries);
            if one.is_behind || tries < TRIES {
                taken.push((service, target));
            } else {
                given_up += 1;
                if let Some(over) = one.under_way.take() {
                    self.under_way.remove(&(target.address, over.reference));
                }
            }
        }
        (taken, given_up)
    }

    fn sent(&mut self, now: Instant, service: &ServiceKey, target: &UdpTarget, reference: u64) {
        let targets = self.services.get_mut(service);
        let Some(one) = targets.and_then(|targets| targets.get_mut(target)) else {
            return;
        };
        let before = one.under_way.take();
        if let Some(before) = before {
            self.under_way.remove(&(target.address, before.reference));
        }
        // A change begins anew; otherwise it is the repetition.
        let tries = before.map_or(0, |before| if one.is_behind { 0 } else { before.tries }) + 1;
        one.is_behind = false;
        one.sent = Some(now);
        one.under_way = Some(UnderWay {
            reference,
            since: now,
            tries,
        });
        self.under_way
            .insert((target.address, reference), (service.clone(), target.clone()));
        schedule(&mut self.due, service, target, one, Some(now + ACK_WITHIN));
    }

    fn acknowledged(&mut self, now: Instant, from: SocketAddr, reference: u64) -> Option<Duration> {
        let (service, target) = self.under_way.remove(&(from, reference))?;
        let one = self.services.get_mut(&service)?.get_mut(&target)?;
        let under_way = one.under_way.take()?;
        if !one.is_behind {
            schedule(&mut self.due, &service, &target, one, None);
        }
        Some(now.saturating_duration_since(under_way.since))
    }

    fn sweep(&mut self, now: Instant) {
        let gone: Vec<UdpDue> = self
            .services
            .iter()
            .flat_map(|(service, targets)| {
                let gone = targets.iter().filter(|(_, one)| one.expires <= now);
                gone.map(|(target, _)| (service.clone(), target.clone()))
            })
            .collect();
        for (service, target) in gone {
            self.remove(&service, &target);
        }
    }

    fn remove(&mut self, service: &ServiceKey, target: &UdpTarget) {
        let Some(targets) = self.services.get_mut(service) else {
            return;
        };
        let Some(mut one) = targets.remove(target) else {
            return;
        };
        schedule(&mut self.due, service, target, &mut one, None);
        if let Some(under_way) = one.under_way {
            self.under_way.remove(&(target.address, under_way.reference));
        }
        if targets.is_empty() {
            self.services.remove(service);
        }
        self.count -= 1;
        let ip = target.address.ip();
        if let Some(count) = self.by_address.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&ip);
            }
        }
    }
}

/// Moves a subscriber to another time.
fn schedule(
    due: &mut BTreeSet<(Instant, UdpDue)>,
    service: &ServiceKey,
    target: &UdpTarget,
    one: &mut Subscriber,
    at: Option<Instant>,
) {
    let key = || (service.clone(), target.clone());
    if let Some(before) = one.due.take() {
        due.remove(&(before, key()));
    }
    if let Some(at) = at {
        due.insert((at, key()));
        one.due = Some(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::model::NamespaceId;
    use crate::naming::Stamp;

    fn service(name: &str) -> ServiceKey {
        ServiceKey::new(&NamespaceId::default(), "g", name)
    }

    fn target(port: u16) -> UdpTarget {
        UdpTarget {
            address: SocketAddr::from(([10, 0, 0, 1], port)),
            clusters: "".into(),
        }
    }

    fn change(push: &UdpPush, name: &str) {
        push.on_events(&[Event::Changed {
            service: service(name),
            stamp: Stamp(1),
        }]);
    }

    fn subscribe(push: &UdpPush, now: Instant, name: &str, port: u16) {
        assert!(push.subscribe(now, &service(name), target(port), UdpWho::default()));
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_change_is_told_at_once_and_the_next_ones_together() {
        let push = UdpPush::default();
        let start = clock::now();
        change(&push, "s");
        subscribe(&push, start, "s", 1);
        subscribe(&push, start, "other", 2);
        assert_eq!(push.take(start, 10), (vec![], 0), "nothing has changed since");
        change(&push, "s");
        let (due, _) = push.take(start, 10);
        assert_eq!(due, [(service("s"), target(1))]);
        push.sent(start, &due[0], 7);
        let soon = start + Duration::from_millis(10);
        assert!(
            push.acknowledged(soon, target(2).address, 7).is_none(),
            "another's"
        );
        assert!(push.acknowledged(soon, target(1).address, 8).is_none());
        let took = push.acknowledged(soon, target(1).address, 7);
        assert_eq!(took, Some(Duration::from_millis(10)));
        assert_eq!(push.wakes_at(), None);
        for _ in 0..3 {
            change(&push, "s");
            assert_eq!(push.take(soon, 10).0, []);
        }
        assert_eq!(push.wakes_at(), Some(start + REST));
        assert_eq!(push.take(start + REST, 10).0.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_acknowledged_is_sent_once_more() {
        let push = UdpPush::default();
        let start = clock::now();
        subscribe(&push, start, "s", 1);
        change(&push, "s");
        let (due, _) = push.take(start, 10);
        push.sent(start, &due[0], 1);
        let second = start + ACK_WITHIN;
        assert_eq!(push.take(second - Duration::from_millis(1), 10), (vec![], 0));
        let (again, _) = push.take(second, 10);
        assert_eq!(again, due);
        push.sent(second, &again[0], 2);
        assert!(
            push.acknowledged(second, target(1).address, 1).is_none(),
            "too late"
        );
        subscribe(&push, second, "s", 1);
        let (none, given_up) = push.take(second + ACK_WITHIN, 10);
        assert_eq!((none, given_up), (vec![], 1));
        assert_eq!(push.wakes_at(), None);
        change(&push, "s");
        assert_eq!(
            push.take(second + ACK_WITHIN, 10).0.len(),
            1,
            "the next change is told"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_no_more_is_forgotten() {
        let push = UdpPush::default();
        let start = clock::now();
        subscribe(&push, start, "s", 1);
        subscribe(&push, start, "s", 2);
        let later = start + Duration::from_secs(10);
        subscribe(&push, later, "s", 2);
        assert_eq!(push.count(), 2, "a renewal is no other one");
        let end = start + RENEWED_FOR;
        let living = push.subscribers_of(end, &service("s"));
        assert_eq!(living, [(target(2), UdpWho::default())]);
        change(&push, "s");
        assert_eq!(push.take(end, 10).0, [(service("s"), target(2))]);
        push.sweep(later + RENEWED_FOR);
        assert_eq!(push.count(), 0);
        let subscribers = push.lock();
        assert!(subscribers.services.is_empty() && subscribers.by_address.is_empty());
        assert!(subscribers.due.is_empty() && subscribers.under_way.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_has_its_share_and_no_more() {
        let push = UdpPush::default();
        let now = clock::now();
        for port in 0..PER_ADDRESS_MAX as u16 {
            subscribe(&push, now, "s", port);
        }
        let one_more = push.subscribe(now, &service("s"), target(60_000), UdpWho::default());
        assert!(!one_more);
        let other = UdpTarget {
            address: SocketAddr::from(([10, 0, 0, 2], 1)),
            clusters: "".into(),
        };
        assert!(push.subscribe(now, &service("s"), other, UdpWho::default()));
        change(&push, "s");
        assert_eq!(push.take(now, 64).0.len(), 64, "as many as asked for");
    }
}
