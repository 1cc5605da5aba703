//! What the clients of a naming run did and saw, with the moments, and what was broken meanwhile.
//!
//! Moments are µs since the run began, of one clock: the harness's. One taken before a request is sent and one
//! after its answer was read enclose what the server did.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::time::Instant;

use crate::chaos::history::{Broken, FaultSpan};

/// µs since the run began.
pub type Micros = u64;

/// A second of them.
pub const SECOND: Micros = 1_000_000;

/// How an instance is registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// HTTP, kept by light beats.
    Http,
    /// gRPC, kept by a connection.
    Grpc,
}

/// Why a registration keeps its instance no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    /// Deregistered by the client.
    Deregistered,
    /// The client went away without a word: no beat any more, or the connection closed.
    Died,
    /// The client has another registration and closed the connection of this one.
    Moved,
    /// The connection broke, which the client did not want; it registers anew.
    Broken,
    /// A beat was answered with 20404; the client registers anew.
    Forgotten,
}

/// The end of a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct End {
    /// Why.
    pub how: Ending,
    /// Nothing of it can have happened before.
    pub asked: Micros,
    /// When a deregistration was acknowledged; the same as `asked` for the other endings.
    pub acknowledged: Option<Micros>,
    /// Place of the node that was told.
    pub node: usize,
}

/// One registration of an instance and what kept it alive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Life {
    /// Its number, unique in a run; it stands in the metadata, so that a list tells whose word it shows.
    pub keeper: u32,
    /// Number of the instance.
    pub instance: u32,
    /// Number of the service.
    pub service: u32,
    /// How.
    pub way: Way,
    /// Place of the node that acknowledged it, or was asked last.
    pub node: usize,
    /// When it was first asked for.
    pub asked: Micros,
    /// When it was acknowledged.
    pub acknowledged: Option<Micros>,
    /// When beats were sent that were acknowledged; ascending.
    pub kept: Vec<Micros>,
    /// When the newest of them was answered.
    pub answered: Option<Micros>,
    /// After how long without a beat it may be taken away, in µs.
    pub expires: Micros,
    /// Its end.
    pub end: Option<End>,
}

/// How a list came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// Asked for over HTTP.
    List,
    /// Pushed, or the answer to a subscription, over the connection of this number.
    Push(u32),
}

/// An instance as a list shows it: number, keeper (0: none is told), health.
pub type Shown = (u32, u32, bool);

/// A list that was answered with 200, or pushed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// Place of the node.
    pub node: usize,
    /// Number of the service.
    pub service: u32,
    /// How it came.
    pub via: Via,
    /// When it was asked for; of a push, when it came.
    pub asked: Micros,
    /// When it was read.
    pub answered: Micros,
    /// Version stamp.
    pub stamp: i64,
    /// Ascending.
    pub hosts: Vec<Shown>,
}

/// What a request was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// Register.
    Register,
    /// Beat, or health check over gRPC.
    Beat,
    /// Deregister.
    Deregister,
    /// List.
    List,
}

/// A request and whether it was answered as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Asked {
    /// Place of the node.
    pub node: usize,
    /// About what.
    pub what: What,
    /// How.
    pub way: Way,
    /// When it was sent.
    pub asked: Micros,
    /// When it was answered, or given up.
    pub answered: Micros,
    /// What was wrong; `None` if it was answered as it should be.
    pub wrong: Option<String>,
}

/// A request for an instance of which nobody knows whether, and when, it is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Doubt {
    /// The instance.
    pub instance: u32,
    /// When the client gave up waiting.
    pub at: Micros,
}

/// Everything that happened.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Record {
    /// Registrations, by keeper.
    pub lives: BTreeMap<u32, Life>,
    /// Lists and pushes.
    pub seen: Vec<Seen>,
    /// Requests.
    pub asked: Vec<Asked>,
    /// Requests with an unknown outcome.
    pub doubts: Vec<Doubt>,
    /// Faults.
    pub faults: Vec<FaultSpan>,
}

/// A record that is being written by many.
#[derive(Debug)]
pub struct Log {
    begun: Instant,
    record: Mutex<Record>,
}

impl Log {
    /// An empty one that begins at this moment of the history of faults.
    #[must_use]
    pub fn begin(begun: Instant) -> Self {
        Self {
            begun,
            record: Mutex::default(),
        }
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Micros {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn write(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A registration is about to be asked for; its keeper.
    pub fn begin_life(&self, instance: u32, service: u32, way: Way, node: usize, expires: Micros) -> u32 {
        let asked = self.now();
        let mut record = self.write();
        let keeper = record.lives.len() as u32 + 1;
        let life = Life {
            keeper,
            instance,
            service,
            way,
            node,
            asked,
            acknowledged: None,
            kept: Vec::new(),
            answered: None,
            expires,
            end: None,
        };
        record.lives.insert(keeper, life);
        keeper
    }

    /// Changes a registration's entry.
    pub fn change(&self, keeper: u32, change: impl FnOnce(&mut Life)) {
        if let Some(life) = self.write().lives.get_mut(&keeper) {
            change(life);
        }
    }

    /// Notes a list.
    pub fn saw(&self, mut seen: Seen) {
        seen.hosts.sort_unstable();
        self.write().seen.push(seen);
    }

    /// Notes a request.
    pub fn asked(&self, asked: Asked) {
        self.write().asked.push(asked);
    }

    /// Notes a request with an unknown outcome.
    pub fn doubt(&self, instance: u32) {
        let at = self.now();
        self.write().doubts.push(Doubt { instance, at });
    }

    /// Begins anew with requests and lists.
    pub fn forget_requests(&self) {
        let mut record = self.write();
        record.asked.clear();
        record.seen.clear();
    }

    /// All of it, with the faults.
    #[must_use]
    pub fn take(&self, faults: Vec<FaultSpan>) -> Record {
        Record {
            faults,
            ..self.write().clone()
        }
    }

    /// What is looked at while the run goes on.
    pub fn look<T>(&self, with: impl FnOnce(&Record) -> T) -> T {
        with(&self.write())
    }
}

/// A started process that has not answered a list for so long is not taken for one that starts any more.
pub const STARTING: Micros = 15 * SECOND;

/// When what was broken.
#[derive(Debug, Clone, Default)]
pub struct Troubles(Vec<Trouble>);

#[derive(Debug, Clone, Copy)]
struct Trouble {
    what: Broken,
    from: Micros,
    /// When it was taken back: a process started, a link whole.
    to: Micros,
    /// When a started process first answered a list; the same as `to` for the others.
    ready: Micros,
}

impl Troubles {
    /// From the faults of a run, and from what was seen of nodes after their starts.
    #[must_use]
    pub fn new(faults: &[FaultSpan], seen: &[Seen]) -> Self {
        let ready = |node: usize, to: Micros| {
            let answers = seen
                .iter()
                .filter(|seen| seen.node == node && seen.via == Via::List && seen.asked >= to);
            answers
                .map(|seen| seen.answered)
                .min()
                .unwrap_or(Micros::MAX)
                .min(to + STARTING)
        };
        let each = faults.iter().flat_map(|fault| {
            fault.broken.iter().map(|what| Trouble {
                what: *what,
                from: fault.from,
                to: fault.to,
                ready: match what {
                    Broken::Dead(node) => ready(*node, fault.to),
                    Broken::Paused(_) | Broken::Cut(..) => fault.to,
                },
            })
        });
        Self(each.collect())
    }

    /// Whether the node was dead at any time from `from` to `to`.
    #[must_use]
    pub fn dead(&self, node: usize, from: Micros, to: Micros) -> bool {
        self.0
            .iter()
            .any(|one| one.what == Broken::Dead(node) && one.from <= to && one.to >= from)
    }

    /// Whether any node was dead at any time from `from` to `to`.
    #[must_use]
    pub fn any_dead(&self, from: Micros, to: Micros) -> bool {
        let dead = |one: &&Trouble| matches!(one.what, Broken::Dead(_));
        self.0
            .iter()
            .filter(dead)
            .any(|one| one.from <= to && one.ready >= from)
    }

    /// When the node died and when it was started again, each time.
    pub fn starts(&self, node: usize) -> impl Iterator<Item = (Micros, Micros)> + '_ {
        let of_it = self.0.iter().filter(move |one| one.what == Broken::Dead(node));
        of_it.map(|one| (one.from, one.to))
    }

    /// Whether the node was dead, starting, or stopped, at any time from `from` to `to`.
    #[must_use]
    pub fn out(&self, node: usize, from: Micros, to: Micros) -> bool {
        self.0.iter().any(|one| {
            let it = one.what == Broken::Dead(node) || one.what == Broken::Paused(node);
            it && one.from <= to && one.ready >= from
        })
    }

    /// The first moment not before `from` after which nothing is broken, and nobody starting, for so long.
    #[must_use]
    pub fn quiet_from(&self, from: Micros, length: Micros) -> Micros {
        let mut at = from;
        loop {
            let touching = self
                .0
                .iter()
                .filter(|one| one.from <= at + length && one.ready >= at);
            match touching.map(|one| one.ready).max() {
                Some(last) => at = last + 1,
                None => return at,
            }
        }
    }

    /// Whether the node was cut off from all others, in both directions, all the time from `from` to `to`.
    #[must_use]
    pub fn alone(&self, node: usize, nodes: usize, from: Micros, to: Micros) -> bool {
        let all_the_time = |wanted: Broken| {
            self.0
                .iter()
                .any(|one| one.what == wanted && one.from <= from && one.to >= to)
        };
        (0..nodes)
            .filter(|other| *other != node)
            .all(|other| all_the_time(Broken::Cut(node, other)) && all_the_time(Broken::Cut(other, node)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quiet_begins_after_the_last_trouble_and_a_start() {
        let fault = |broken: Vec<Broken>, from, to| FaultSpan {
            name: String::new(),
            broken,
            from: from * SECOND,
            to: to * SECOND,
        };
        let answer = Seen {
            node: 1,
            service: 0,
            via: Via::List,
            asked: 23 * SECOND,
            answered: 24 * SECOND,
            stamp: 1,
            hosts: Vec::new(),
        };
        let faults = [
            fault(vec![Broken::Cut(0, 1), Broken::Cut(1, 0)], 2, 4),
            fault(vec![Broken::Cut(0, 2), Broken::Cut(2, 0)], 3, 5),
            fault(vec![Broken::Dead(1)], 20, 21),
        ];
        let troubles = Troubles::new(&faults, &[answer]);
        assert_eq!(troubles.quiet_from(0, SECOND), 0);
        assert_eq!(troubles.quiet_from(SECOND, 5 * SECOND), 5 * SECOND + 1);
        assert_eq!(troubles.quiet_from(16 * SECOND, 5 * SECOND), 24 * SECOND + 1);
        assert!(troubles.alone(0, 3, 3 * SECOND, 4 * SECOND));
        assert!(!troubles.alone(0, 3, 3 * SECOND, 5 * SECOND));
        assert!(!troubles.alone(1, 3, 3 * SECOND, 4 * SECOND));
        assert!(troubles.out(1, 22 * SECOND, 23 * SECOND));
        assert!(!troubles.dead(1, 22 * SECOND, 23 * SECOND));
        assert!(!troubles.out(1, 25 * SECOND, 26 * SECOND));
        let silent = Troubles::new(&faults, &[]);
        assert!(silent.out(1, 35 * SECOND, 36 * SECOND) && !silent.out(1, 37 * SECOND, 38 * SECOND));
    }
}
