//! Long-poll listeners on the registers of a chaos run, and what they must see.
//!
//! A node tells of a change only after it has caught up with everything that was visible anywhere when the
//! poll began (contract 02 §2 and 05 §2.7, hazard R41). So who is told of a change, and then reads the
//! content on the same connection, has made a *linearizable read* that began with the poll: nothing older
//! than what was acknowledged before it, nothing older than what this listener saw before, on whatever node,
//! and nothing that nobody wrote. It is noted as such a read, and the checker of the registers judges it.
//! On another connection nothing is promised (the node may have lost its memory meanwhile), and nothing is
//! noted.
//!
//! Besides: who is told of a change reads something else than he had; and after healing every listener
//! learns the last content of every register, sooner than its poll would end by itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use loadtest::content::Dice;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::clients::{Registers, content, data_id, value};
use super::history::{ABSENT, Action, Answer, History, Moment, Operation};
use crate::api::{Client, Outcome};
use crate::node::POLL;
use crate::verdict::Report;

/// Listeners that stay at one node, per node; one more goes from node to node.
const PER_NODE: usize = 1;

/// How long a poll is held, as SDKs have it.
const HOLD: Duration = Duration::from_millis(29_500);

/// Patience of a listener: a poll, and a node that is paused or slow at its end.
const PATIENCE: Duration = Duration::from_secs(45);

/// After a poll that told something: registers change all the time, and telling of it is not all the servers
/// are to do.
const PAUSE_MS: (u64, u64) = (30, 100);

/// After a poll that failed.
const FAILED_PAUSE: Duration = Duration::from_millis(100);

/// What a listener has of each register, and what it found wrong.
#[derive(Debug, Default)]
struct Notes {
    has: BTreeMap<u32, u32>,
    wrong: Vec<String>,
}

/// The running listeners; they end when dropped.
#[derive(Debug)]
pub struct Listeners {
    tasks: Vec<JoinHandle<()>>,
    notes: Vec<Arc<Mutex<Notes>>>,
    told: Arc<AtomicUsize>,
}

struct Listener {
    number: usize,
    /// Place of the node it stays at; `None` for the one that roams.
    bound: Option<usize>,
    clients: Vec<Client>,
    dice: Dice,
    registers: Arc<Registers>,
    history: Arc<History>,
    notes: Arc<Mutex<Notes>>,
    told: Arc<AtomicUsize>,
}

impl Listeners {
    /// Starts them; in the history they are clients from number `first` on.
    #[must_use]
    pub fn start(
        first: usize,
        addresses: &[SocketAddr],
        seed: u64,
        registers: &Arc<Registers>,
        history: &Arc<History>,
    ) -> Self {
        let told = Arc::new(AtomicUsize::new(0));
        let bound = (0..addresses.len() * PER_NODE).map(|number| Some(number % addresses.len()));
        let (mut tasks, mut notes) = (Vec::new(), Vec::new());
        for (number, bound) in bound.chain([None]).enumerate() {
            let listener = Listener {
                number: first + number,
                bound,
                clients: addresses
                    .iter()
                    .map(|address| Client::new(*address, PATIENCE))
                    .collect(),
                dice: Dice::new(seed ^ ((number as u64 + 1) << 48)),
                registers: Arc::clone(registers),
                history: Arc::clone(history),
                notes: Arc::default(),
                told: Arc::clone(&told),
            };
            notes.push(Arc::clone(&listener.notes));
            tasks.push(tokio::spawn(listener.run()));
        }
        Self { tasks, notes, told }
    }

    /// Changes told so far.
    #[must_use]
    pub fn told(&self) -> usize {
        self.told.load(Ordering::Relaxed)
    }

    /// Waits until every listener has these contents; says who has not after `patience`, and what else
    /// went wrong.
    pub async fn settle(self, last: &BTreeMap<u32, u32>, patience: Duration, report: &mut Report) {
        let begun = Instant::now();
        while begun.elapsed() < patience && self.notes.iter().any(|notes| lacks(notes, last).is_some()) {
            sleep(POLL).await;
        }
        for (number, notes) in self.notes.iter().enumerate() {
            if let Some((key, has)) = lacks(notes, last) {
                report.violate(format!(
                    "listener {number} was not told of the last value of register {key} within {} s: it has {has:?}",
                    patience.as_secs()
                ));
            }
            let notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
            notes.wrong.iter().for_each(|wrong| report.violate(wrong));
        }
        report.figure("changes told to listeners", self.told());
        report.figure(
            "listeners had the last values after",
            format!("{} ms", begun.elapsed().as_millis()),
        );
    }
}

/// The first register of which a listener has not the last value, and what it has.
fn lacks(notes: &Mutex<Notes>, last: &BTreeMap<u32, u32>) -> Option<(u32, Option<u32>)> {
    let notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
    last.iter()
        .find(|(key, value)| notes.has.get(key) != Some(value))
        .map(|(key, _)| (*key, notes.has.get(key).copied()))
}

impl Drop for Listeners {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Listener {
    async fn run(mut self) {
        loop {
            let node = self.bound.unwrap_or_else(|| self.dice.below(self.clients.len()));
            if self.poll(node).await {
                sleep(Duration::from_millis(self.dice.between(PAUSE_MS.0, PAUSE_MS.1))).await;
            } else {
                sleep(FAILED_PAUSE).await;
            }
        }
    }

    /// One poll, and a read of each register it tells of; false if it failed.
    async fn poll(&mut self, node: usize) -> bool {
        let has: Vec<(String, Option<String>)> = {
            let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
            let value = |key| notes.has.get(&key).copied().filter(|value| *value != ABSENT);
            (0..self.registers.used())
                .map(|key| (data_id(key), value(key).map(content)))
                .collect()
        };
        let polled = self.history.now();
        let has = has.iter().map(|(id, content)| (id.as_str(), content.as_deref()));
        let told = match self.clients[node].poll(has, HOLD).await {
            Outcome::Done(told) => told,
            Outcome::Refused(_) | Outcome::Unknown(_) => return false,
        };
        for id in told {
            match (0..self.registers.used()).find(|key| data_id(*key) == id) {
                Some(key) => self.read(node, key, polled).await,
                None => self.complain(format!("was told of {id}, to which it does not listen")),
            }
        }
        true
    }

    async fn read(&mut self, node: usize, key: u32, polled: Moment) {
        let client = &mut self.clients[node];
        let connections = client.connections();
        let Outcome::Done(found) = client.get(&data_id(key), false).await else {
            return;
        };
        let returned = self.history.now();
        let found = found.map_or(ABSENT, |found| value(&found).unwrap_or(u32::MAX));
        let on_one_connection = self.clients[node].connections() == connections;
        let had = self
            .notes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .has
            .insert(key, found);
        if !on_one_connection {
            return;
        }
        self.told.fetch_add(1, Ordering::Relaxed);
        // A register may be removed, written and removed again; a value never comes back.
        if had == Some(found) && found != ABSENT {
            self.complain(format!(
                "was told by node {} of a change of register {key}, which holds {found} as before",
                node + 1
            ));
        }
        self.history.note(Operation {
            client: self.number,
            node,
            key,
            action: Action::Read,
            invoked: polled,
            returned,
            answer: Answer::Value(found),
        });
    }

    fn complain(&self, what: String) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.wrong.push(format!("listener {} {what}", self.number));
    }
}
