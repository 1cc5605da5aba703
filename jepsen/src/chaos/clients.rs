//! The clients of a chaos run: what they ask, of whom, and how long they wait.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use loadtest::content::Dice;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::history::{ABSENT, Action, Answer, History, Operation};
use crate::api::{Client, Outcome};

/// Registers in use at the same time. Several clients meet on each.
const REGISTERS: usize = 5;

/// Operations after which a register is replaced by a fresh one: the checker's cost grows steeply with
/// the length of a register's history.
const LIFE: (u64, u64) = (100, 300);

/// Pause of a client between two operations.
const PAUSE: (u64, u64) = (2, 30);

/// How often, in a hundred, a client asks the same register again.
const SAME_REGISTER: u64 = 40;

/// Pause after an operation that was refused, so that a dead node is not dialled in a tight loop.
const REFUSED_PAUSE: Duration = Duration::from_millis(50);

/// Kinds of clients, dealt out in turn.
#[derive(Debug, Clone, Copy)]
enum Habit {
    /// Asks one node only, and waits a second.
    Bound,
    /// Asks another node each time, and waits a second.
    Roaming,
    /// Asks another node each time, and waits long: its requests outlast a failover.
    Patient,
}

impl Habit {
    fn of(client: usize) -> Self {
        [Self::Bound, Self::Roaming, Self::Patient][client % 3]
    }

    fn patience(self) -> Duration {
        match self {
            Self::Bound | Self::Roaming => Duration::from_secs(1),
            Self::Patient => Duration::from_secs(8),
        }
    }
}

/// Key of a register in the configuration store.
#[must_use]
pub fn data_id(key: u32) -> String {
    format!("register.{key}")
}

/// Content of a value. Long enough that the md5 is not trivial, short enough to be cheap.
#[must_use]
pub fn content(value: u32) -> String {
    format!("value {value} of a chaos run")
}

/// The value of a content; `None` if it is none of ours.
#[must_use]
pub fn value(content: &str) -> Option<u32> {
    content
        .strip_prefix("value ")?
        .strip_suffix(" of a chaos run")?
        .parse()
        .ok()
}

/// Registers in use, and the source of unique values.
#[derive(Debug)]
pub struct Registers {
    slots: Mutex<Slots>,
    next_value: AtomicU32,
}

#[derive(Debug)]
struct Slots {
    /// Number of the register and operations it has left.
    current: Vec<(u32, u64)>,
    next: u32,
    dice: Dice,
}

impl Registers {
    /// Fresh registers.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let current = (0..REGISTERS as u32)
            .map(|key| (key, dice.between(LIFE.0, LIFE.1)))
            .collect();
        Self {
            slots: Mutex::new(Slots {
                current,
                next: REGISTERS as u32,
                dice,
            }),
            next_value: AtomicU32::new(1),
        }
    }

    /// The register for one more operation.
    fn draw(&self, slot: usize) -> u32 {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = slot % REGISTERS;
        if slots.current[slot].1 == 0 {
            let life = slots.dice.between(LIFE.0, LIFE.1);
            slots.current[slot] = (slots.next, life);
            slots.next += 1;
        }
        slots.current[slot].1 -= 1;
        slots.current[slot].0
    }

    /// Number of registers used so far; they are numbered from 0.
    #[must_use]
    pub fn used(&self) -> u32 {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).next
    }

    fn value(&self) -> u32 {
        self.next_value.fetch_add(1, Ordering::Relaxed)
    }
}

/// The running clients.
#[derive(Debug)]
pub struct Clients {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Clients {
    /// Starts `count` clients.
    #[must_use]
    pub fn start(
        count: usize,
        addresses: &[SocketAddr],
        seed: u64,
        registers: &Arc<Registers>,
        history: &Arc<History>,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let tasks = (0..count)
            .map(|number| {
                let one = OneClient {
                    number,
                    habit: Habit::of(number),
                    clients: addresses
                        .iter()
                        .map(|address| Client::new(*address, Habit::of(number).patience()))
                        .collect(),
                    dice: Dice::new(seed ^ ((number as u64 + 1) << 40)),
                    slot: 0,
                    seen: (0, ABSENT),
                    registers: Arc::clone(registers),
                    history: Arc::clone(history),
                };
                tokio::spawn(one.run(Arc::clone(&stop)))
            })
            .collect();
        Self { stop, tasks }
    }

    /// Lets each finish its operation and waits for it.
    pub async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            // A client that panicked has noted what it did; its last operation then counts as never asked,
            // which could only hide a write's origin and is told as a violation by the reads.
            let _ = task.await;
        }
    }
}

struct OneClient {
    number: usize,
    habit: Habit,
    /// One per node.
    clients: Vec<Client>,
    dice: Dice,
    /// Which of the registers in use it asked last.
    slot: usize,
    /// The register read last and what it held: what a CAS expects.
    seen: (u32, u32),
    registers: Arc<Registers>,
    history: Arc<History>,
}

impl OneClient {
    async fn run(mut self, stop: Arc<AtomicBool>) {
        while !stop.load(Ordering::Relaxed) {
            // Often the register it saw last: what is compared is what has been read.
            if !self.dice.chance(SAME_REGISTER) {
                self.slot = self.dice.below(REGISTERS);
            }
            let key = self.registers.draw(self.slot);
            let node = match self.habit {
                Habit::Bound => self.number % self.clients.len(),
                Habit::Roaming | Habit::Patient => self.dice.below(self.clients.len()),
            };
            let action = self.choose(key);
            let answer = self.carry_out(key, node, action).await;
            if answer == Answer::Refused {
                sleep(REFUSED_PAUSE).await;
            }
            sleep(Duration::from_millis(self.dice.between(PAUSE.0, PAUSE.1))).await;
        }
    }

    /// Registers with an even number are compared and set, those with an odd one deleted, never both:
    /// what a CAS does to a config that is absent differs between Nacos versions.
    fn choose(&mut self, key: u32) -> Action {
        let (seen_key, seen) = self.seen;
        match self.dice.below(10) {
            0..=4 => Action::Read,
            5..=7 if key.is_multiple_of(2) && seen_key == key && seen != ABSENT => {
                self.seen = (key, ABSENT);
                Action::Cas {
                    expected: seen,
                    new: self.registers.value(),
                }
            }
            5 if key % 2 == 1 => Action::Delete,
            _ => Action::Write(self.registers.value()),
        }
    }

    async fn carry_out(&mut self, key: u32, node: usize, action: Action) -> Answer {
        let client = &mut self.clients[node];
        let id = data_id(key);
        let invoked = self.history.now();
        let answer = match action {
            Action::Read => match client.get(&id, true).await {
                Outcome::Done(None) => Answer::Value(ABSENT),
                // Something nobody wrote is a value of its own, which no write explains.
                Outcome::Done(Some(found)) => Answer::Value(value(&found).unwrap_or(u32::MAX)),
                Outcome::Refused(_) | Outcome::Unknown(_) => Answer::Unknown,
            },
            Action::Write(value) => {
                let outcome = client.publish(&id, &content(value)).await;
                self.written(outcome.map(|()| true))
            }
            Action::Delete => {
                let outcome = client.remove(&id).await;
                self.written(outcome.map(|()| true))
            }
            Action::Cas { expected, new } => {
                let outcome = client
                    .compare_and_set(&id, &content(expected), &content(new))
                    .await;
                self.written(outcome)
            }
        };
        let returned = self.history.now();
        if let Answer::Value(found) = answer {
            self.seen = (key, found);
        }
        self.history.note(Operation {
            client: self.number,
            node,
            key,
            action,
            invoked,
            returned,
            answer,
        });
        answer
    }

    /// The answer to a write; `true` if it was carried out.
    fn written(&self, outcome: Outcome<bool>) -> Answer {
        match outcome {
            Outcome::Done(true) => Answer::Applied,
            Outcome::Done(false) => Answer::Mismatch,
            Outcome::Refused(why) => {
                if why.contains("space") {
                    self.history.note_refused_for_space();
                }
                Answer::Refused
            }
            Outcome::Unknown(_) => Answer::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_read_back_as_values_and_others_are_not() {
        assert_eq!(value(&content(17)), Some(17));
        assert_eq!(value("something else"), None);
    }

    #[test]
    fn a_register_lives_as_long_as_was_drawn() {
        let registers = Registers::new(1);
        let mut lives = std::collections::BTreeMap::new();
        for _ in 0..5000 {
            *lives.entry(registers.draw(0)).or_insert(0_u64) += 1;
        }
        lives.pop_last();
        assert!(lives.len() > 10);
        assert!(
            lives.values().all(|life| (LIFE.0..LIFE.1).contains(life)),
            "{lives:?}"
        );
    }
}
