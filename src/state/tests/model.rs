//! The state against a naive model, with random commands: the model is written as the contract reads,
//! with plain maps and everything kept.

use std::collections::BTreeMap;

use super::support::Node;
use super::workload::Workload;
use super::{page, support::Log};
use crate::config::{
    ConfigId, Expectation, GrayError, HistoryId, Operation, Origin, Publish, Query, Variant,
};
use crate::model::{ConfigKey, Md5, NamespaceId};
use crate::namespace::Refusal;
use crate::state::{Command, Outcome};

const DAY_MS: i64 = 86_400_000;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Stored {
    id: u64,
    content: Vec<u8>,
    kind: &'static str,
    app_name: String,
    tags: Vec<String>,
    encrypted_data_key: String,
    created_ms: i64,
    modified_ms: i64,
    variant: Variant,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    nid: u64,
    operation: Operation,
    gray: String,
    content: Vec<u8>,
    at_ms: i64,
    user: String,
}

/// By key and name of the variant (empty: formal).
type Name = (ConfigKey, String);

#[derive(Default)]
struct Model {
    stored: BTreeMap<Name, Stored>,
    /// Each row with the day that counts for its trimming.
    history: BTreeMap<ConfigKey, Vec<(Row, i64)>>,
    namespaces: Vec<(NamespaceId, String)>,
}

impl Model {
    fn apply(&mut self, command: &Command, index: u64) -> Outcome {
        match command {
            Command::ConfigPut(publish) => self.put(publish, index),
            Command::ConfigRemove(removal) => {
                let name = (removal.key.clone(), removal.variant.clone().unwrap_or_default());
                Outcome::ConfigsRemoved(self.remove(&name, &removal.origin, index << 12).into())
            }
            Command::ConfigRemoveBatch { configs, origin } => {
                let mut count = 0;
                for (position, (key, id)) in configs.iter().enumerate() {
                    let name = (key.clone(), String::new());
                    if self.stored.get(&name).is_some_and(|stored| stored.id == id.0) {
                        count += u32::from(self.remove(&name, origin, index << 12 | position as u64));
                    }
                }
                Outcome::ConfigsRemoved(count)
            }
            Command::NamespaceCreate(wanted) => {
                match self.namespaces.iter().any(|(id, _)| *id == wanted.id) {
                    _ if wanted.id.is_default() => Outcome::NamespaceRefused(Refusal::BuiltIn),
                    true => Outcome::NamespaceRefused(Refusal::Exists),
                    false => {
                        self.namespaces.push((wanted.id.clone(), wanted.name.clone()));
                        Outcome::NamespaceDone
                    }
                }
            }
            Command::NamespaceUpdate(wanted) => {
                match self.namespaces.iter_mut().find(|(id, _)| *id == wanted.id) {
                    _ if wanted.id.is_default() => Outcome::NamespaceRefused(Refusal::BuiltIn),
                    None => Outcome::NamespaceRefused(Refusal::Missing),
                    Some((_, name)) => {
                        name.clone_from(&wanted.name);
                        Outcome::NamespaceDone
                    }
                }
            }
            Command::NamespaceDelete(id) => {
                let before = self.namespaces.len();
                self.namespaces.retain(|(other, _)| other != id);
                match self.namespaces.len() < before {
                    _ if id.is_default() => Outcome::NamespaceRefused(Refusal::BuiltIn),
                    true => Outcome::NamespaceDone,
                    false => Outcome::NamespaceRefused(Refusal::Missing),
                }
            }
            Command::RaiseFeatureLevel(_) => Outcome::FeatureLevel(1),
            _ => unreachable!("not drawn here"),
        }
    }

    fn put(&mut self, publish: &Publish, index: u64) -> Outcome {
        let name = (publish.key.clone(), publish.variant.gray_name().to_owned());
        if let Variant::Gray { rule, .. } = &publish.variant
            && rule.expression.trim().is_empty()
        {
            return Outcome::GrayRefused(GrayError::RuleFormat);
        }
        let old = self.stored.get(&name).cloned();
        if let (Expectation::Md5(md5), Some(old)) = (publish.expectation, &old)
            && md5 != Md5::of(&old.content)
        {
            return Outcome::CasMismatch;
        }
        let formal = publish.variant == Variant::Formal;
        let tags = publish
            .tags
            .as_ref()
            .map(|tags| tags.iter().map(|tag| tag.to_string()).collect());
        let old_tags = || old.as_ref().map(|old| old.tags.clone()).unwrap_or_default();
        let old_app = || old.as_ref().map(|old| old.app_name.clone()).unwrap_or_default();
        let new = Stored {
            id: old.as_ref().map_or(index << 12, |old| old.id),
            content: publish.content.to_vec(),
            kind: publish.kind.as_str(),
            app_name: publish.app_name.clone().unwrap_or_else(old_app),
            tags: if formal {
                tags.unwrap_or_else(old_tags)
            } else {
                vec![]
            },
            encrypted_data_key: publish.encrypted_data_key.clone(),
            created_ms: old.as_ref().map_or(publish.origin.now_ms, |old| old.created_ms),
            modified_ms: publish.origin.now_ms,
            variant: publish.variant.clone(),
        };
        let outcome = match &old {
            None => Outcome::ConfigInserted(ConfigId(new.id)),
            Some(old) => Outcome::ConfigUpdated(ConfigId(old.id)),
        };
        let operation = if old.is_none() {
            Operation::Insert
        } else {
            Operation::Update
        };
        let told = old.unwrap_or_else(|| new.clone());
        self.tell(&name, operation, &told, &publish.origin, index << 12);
        self.stored.insert(name, new);
        outcome
    }

    fn remove(&mut self, name: &Name, origin: &Origin, nid: u64) -> bool {
        let Some(old) = self.stored.remove(name) else {
            return false;
        };
        self.tell(name, Operation::Delete, &old, origin, nid);
        true
    }

    fn tell(&mut self, (key, gray): &Name, operation: Operation, told: &Stored, origin: &Origin, nid: u64) {
        let rows = self.history.entry(key.clone()).or_default();
        let day = origin
            .now_ms
            .div_euclid(DAY_MS)
            .max(rows.last().map_or(0, |(_, day)| *day));
        let row = Row {
            nid,
            operation,
            gray: gray.clone(),
            content: told.content.clone(),
            at_ms: origin.now_ms,
            user: origin.user.clone(),
        };
        rows.push((row, day));
        let surplus = rows.len().saturating_sub(origin.history_max as usize);
        rows.drain(..surplus.min(64));
    }

    /// Rows of days that have ended go.
    fn trim(&mut self, before_ms: i64) -> u32 {
        let end_day = before_ms.div_euclid(DAY_MS);
        let mut count = 0;
        for rows in self.history.values_mut() {
            let before = rows.len();
            rows.retain(|(_, day)| *day >= end_day);
            count += (before - rows.len()) as u32;
        }
        count
    }
}

fn compare(node: &Node, model: &Model, seed: u64) {
    let reader = node.reader();
    let everything = page(1, 10_000);
    for namespace in ["", "dev", "test"] {
        let query = Query::all(NamespaceId::new(namespace));
        let found = reader.search(&query, everything);
        let formal = |(key, gray): &Name| gray.is_empty() && key.namespace() == namespace;
        let mut expected: Vec<_> = model.stored.iter().filter(|(name, _)| formal(name)).collect();
        expected.sort_by_key(|(_, stored)| stored.id);
        assert_eq!(found.total, expected.len(), "seed {seed}");
        for (entry, ((key, _), stored)) in found.items.iter().zip(expected) {
            assert_eq!(&entry.key, key, "seed {seed}");
            let tags: Vec<String> = entry.tags().iter().map(|tag| tag.to_string()).collect();
            let got = Stored {
                id: entry.id.0,
                content: entry.content.to_vec(),
                kind: entry.kind.as_str(),
                app_name: entry.app_name().into(),
                tags,
                encrypted_data_key: entry.encrypted_data_key().into(),
                created_ms: entry.created_ms,
                modified_ms: entry.modified_ms,
                variant: Variant::Formal,
            };
            assert_eq!(&got, stored, "seed {seed}");
            assert_eq!(
                reader.detail(key).expect("reads").expect("is there").entry,
                **entry,
                "seed {seed}"
            );
        }
    }
    for ((key, name), stored) in model.stored.iter().filter(|((_, name), _)| !name.is_empty()) {
        let gray = reader
            .gray(key, name)
            .unwrap_or_else(|| panic!("{key} {name} is missing, seed {seed}"));
        let variant = Variant::Gray {
            name: gray.name.clone(),
            rule: gray.rule.clone(),
        };
        assert_eq!(
            (gray.id.0, &gray.content[..], &variant),
            (stored.id, &stored.content[..], &stored.variant)
        );
    }
    let grays: usize = model.stored.keys().filter(|(_, name)| !name.is_empty()).count();
    let keys: std::collections::BTreeSet<_> = model.stored.keys().map(|(key, _)| key).collect();
    assert_eq!(
        keys.iter()
            .map(|key| reader.grays(key).as_slice().len())
            .sum::<usize>(),
        grays,
        "seed {seed}"
    );
    compare_history(node, model, seed);
    let listed: Vec<_> = reader
        .namespaces()
        .into_iter()
        .skip(1)
        .map(|one| (one.id, one.name))
        .collect();
    assert_eq!(listed, model.namespaces, "seed {seed}");
}

fn compare_history(node: &Node, model: &Model, seed: u64) {
    for (key, rows) in &model.history {
        let rows: Vec<Row> = rows.iter().map(|(row, _)| row.clone()).collect();
        let found = node.reader().history(key, page(1, 10_000)).expect("reads");
        let found: Vec<Row> = found
            .items
            .into_iter()
            .rev()
            .map(|row| Row {
                nid: row.id.0,
                operation: row.operation,
                gray: row.variant.gray_name().into(),
                content: row.content.to_vec(),
                at_ms: row.at_ms,
                user: row.user.into(),
            })
            .collect();
        assert_eq!(found, rows, "history of {key}, seed {seed}");
        for row in rows {
            let by_id = node.reader().history_row(key, HistoryId(row.nid)).expect("reads");
            assert_eq!(by_id.map(|found| found.at_ms), Some(row.at_ms), "seed {seed}");
        }
    }
}

/// Trims until nothing is due, and compares how much went.
fn trim(node: &mut Node, log: &mut Log, model: &mut Model, before_ms: i64, seed: u64) {
    let mut trimmed = 0;
    loop {
        let entry = log.command(Command::TrimHistory {
            before_ms,
            rows_max: 3,
        });
        let done = node.state_mut().apply(&[entry]).expect("applies");
        let Outcome::HistoryTrimmed { rows, more } = done.applied[0].outcome else {
            panic!("{done:?}")
        };
        trimmed += rows;
        if !more {
            break;
        }
    }
    assert_eq!(trimmed, model.trim(before_ms), "seed {seed}");
}

#[test]
fn random_commands_do_what_the_contract_says() {
    for seed in 100..110 {
        let (mut node, mut log) = Node::with_session();
        let (mut model, mut workload) = (Model::default(), Workload::new(seed));
        let mut ids: Vec<(ConfigKey, ConfigId)> = Vec::new();
        for round in 0..25 {
            let (mut entries, mut expected) = (Vec::new(), Vec::new());
            let mut before_ms = None;
            for _ in 0..1 + workload.random.below(30) {
                let command = workload.command(&ids);
                if let Command::TrimHistory {
                    before_ms: moment, ..
                } = command
                {
                    before_ms = Some(moment);
                    continue;
                }
                let entry = log.command(command.clone());
                let outcome = model.apply(&command, entry.index().0);
                if let (Outcome::ConfigInserted(id), Command::ConfigPut(publish)) = (outcome, &command) {
                    ids.push((publish.key.clone(), id));
                }
                expected.push(outcome);
                entries.push(entry);
            }
            let done = node.state_mut().apply(&entries).expect("applies");
            let outcomes: Vec<_> = done.applied.iter().map(|applied| applied.outcome).collect();
            assert_eq!(outcomes, expected, "seed {seed} round {round}");
            if let Some(before_ms) = before_ms {
                trim(&mut node, &mut log, &mut model, before_ms, seed);
            }
            compare(&node, &model, seed);
        }
    }
}
