//! Random commands, from a seed.

use raft::{Entry, EntryKind};

use super::naming;
use super::support::{Log, Node, Random, members, session};
use crate::config::{ConfigId, Expectation, Origin, Publish, Removal, Variant};
use crate::model::{ConfigKey, ConfigType, Md5, NamespaceId, OperationId};
use crate::namespace::Wanted;
use crate::state::Command;

const DAY_MS: i64 = 86_400_000;

/// Draws commands over few names and contents, so that they meet.
pub(super) struct Workload {
    pub(super) random: Random,
    /// Moves on by up to half a day per command, now and then back.
    now_ms: i64,
}

impl Workload {
    pub(super) fn new(seed: u64) -> Workload {
        Workload {
            random: Random(seed),
            now_ms: 1_700_000_000_000,
        }
    }

    fn key(&mut self) -> ConfigKey {
        let namespace = NamespaceId::new(self.random.word(&["", "dev", "public"]));
        let data_id = format!("d{}", self.random.below(6));
        ConfigKey::new(&namespace, self.random.word(&["g", "h"]), &data_id)
    }

    fn origin(&mut self) -> Origin {
        self.now_ms += self.random.below(DAY_MS as u64 / 2) as i64;
        let late = if self.random.once_in(10) { 2 * DAY_MS } else { 0 };
        Origin {
            now_ms: self.now_ms - late,
            user: self.random.word(&["", "alice", "bob"]).into(),
            ip: "10.0.0.1".into(),
            message: self.random.word(&["", "because"]).into(),
            history_max: *self.random.pick(&[0, 1, 3, 3, 3, 100]),
        }
    }

    fn variant(&mut self) -> Variant {
        match self.random.below(10) {
            0 => Variant::beta(self.random.word(&["10.0.0.1", "10.0.0.1,10.0.0.2", " "])),
            1 => Variant::tag(self.random.word(&["t1", "t2"])),
            _ => Variant::Formal,
        }
    }

    fn publish(&mut self) -> Publish {
        let contents = ["one", "two", "three"];
        let content = *self.random.pick(&contents);
        let expected = Md5::of(self.random.pick(&contents).as_bytes());
        let some = |random: &mut Random, text: &str| random.once_in(3).then(|| text.to_owned());
        Publish {
            kind: *self.random.pick(&ConfigType::ALL),
            app_name: some(&mut self.random, "app"),
            tags: self.random.once_in(3).then(|| vec!["t".into(), "u".into()]),
            description: some(&mut self.random, "description").unwrap_or_default(),
            encrypted_data_key: some(&mut self.random, "secret").unwrap_or_default(),
            expectation: if self.random.once_in(4) {
                Expectation::Md5(expected)
            } else {
                Expectation::None
            },
            variant: self.variant(),
            ..Publish::new(self.key(), content, self.origin())
        }
    }

    fn wanted(&mut self) -> Wanted {
        Wanted {
            id: NamespaceId::new(self.random.word(&["dev", "test", "public"])),
            name: format!("name {}", self.random.below(3)),
            description: String::new(),
            now_ms: self.now_ms,
        }
    }

    /// The next command. `ids` are those that were given out, to be removed by.
    pub(super) fn command(&mut self, ids: &[(ConfigKey, ConfigId)]) -> Command {
        match self.random.below(20) {
            0..=11 => Command::ConfigPut(Box::new(self.publish())),
            12..=13 => Command::ConfigRemove(Removal {
                key: self.key(),
                variant: self
                    .random
                    .once_in(3)
                    .then(|| self.random.word(&["beta", "tag_t1"]).to_owned()),
                origin: self.origin(),
            }),
            14 if !ids.is_empty() => {
                let configs = (0..self.random.below(4))
                    .map(|_| self.random.pick(ids).clone())
                    .collect();
                Command::ConfigRemoveBatch {
                    configs,
                    origin: self.origin(),
                }
            }
            15 => Command::NamespaceCreate(self.wanted()),
            16 => Command::NamespaceUpdate(self.wanted()),
            17 => Command::NamespaceDelete(self.wanted().id),
            18 => Command::RaiseFeatureLevel(self.random.below(2) as u32),
            _ => Command::TrimHistory {
                before_ms: self.now_ms - 3 * DAY_MS,
                rows_max: *self.random.pick(&[0, 1, 5, 5_000]),
            },
        }
    }

    /// The next entry: a command of one of three nodes, a repeated one, an open of a session, a change of
    /// the membership or nothing.
    pub(super) fn entry(&mut self, log: &mut Log, sessions: &mut Sessions) -> Entry {
        let node = 1 + self.random.below(3);
        match self.random.below(24) {
            0 => log.entry(EntryKind::Noop, bytes::Bytes::new()),
            1 => {
                let ids = *self.random.pick(&[&[1, 2, 3][..], &[1, 2], &[1, 2, 3]]);
                log.entry(EntryKind::Configuration, members(ids).encode())
            }
            2 => {
                let boot = if self.random.once_in(3) {
                    self.random.below(9)
                } else {
                    sessions.boots[node as usize] + 1
                };
                sessions.boots[node as usize] = boot.max(sessions.boots[node as usize]);
                sessions.counters[node as usize] = 1;
                let operation = OperationId {
                    counter: 1,
                    ..session(node, boot)
                };
                log.command_as(Command::OpenSession, operation, 1)
            }
            3..=4 => {
                let commands = log
                    .entries
                    .iter()
                    .filter(|entry| entry.kind == EntryKind::Command);
                let payloads: Vec<_> = commands.map(|entry| entry.payload.clone()).collect();
                let payload = if payloads.is_empty() {
                    bytes::Bytes::new()
                } else {
                    self.random.pick(&payloads).clone()
                };
                log.entry(EntryKind::Command, payload)
            }
            _ => {
                let counter = &mut sessions.counters[node as usize];
                *counter += 1 + self.random.below(3);
                let operation = OperationId {
                    counter: *counter,
                    ..session(node, sessions.boots[node as usize])
                };
                // Not always in their order: forwarded proposals overtake one another.
                let operation = match operation.counter > 3 && self.random.once_in(5) {
                    true => OperationId {
                        counter: operation.counter - 2,
                        ..operation
                    },
                    false => operation,
                };
                let low_watermark = operation.counter.saturating_sub(self.random.below(200));
                let command = match self.random.once_in(3) {
                    true => naming::command(&mut self.random, log.last_index()),
                    false => self.command(&[]),
                };
                log.command_as(command, operation, low_watermark)
            }
        }
    }
}

/// Newest boot and counter by node id.
#[derive(Default)]
pub(super) struct Sessions {
    boots: [u64; 4],
    counters: [u64; 4],
}

/// A log of this length from a seed; the founding entry is not counted.
pub(super) fn entries(log: &mut Log, seed: u64, count: usize) -> Vec<Entry> {
    let mut workload = Workload::new(seed);
    let mut sessions = Sessions::default();
    (0..count).map(|_| workload.entry(log, &mut sessions)).collect()
}

/// Commands of the log's own session, applied in one range.
pub(super) fn run(node: &mut Node, log: &mut Log, seed: u64, count: usize) {
    let mut workload = Workload::new(seed);
    let entries: Vec<Entry> = (0..count)
        .map(|number| {
            let index = log.last_index();
            log.command(match number % 3 {
                0 => naming::command(&mut workload.random, index),
                _ => workload.command(&[]),
            })
        })
        .collect();
    node.state_mut().apply(&entries).map(drop).expect("applies");
}
