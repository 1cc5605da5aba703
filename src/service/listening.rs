//! Who listens to what, on all nodes, for operators. A node that does not answer in time is left out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Services;
use super::nodes::Question;
use crate::config::Seen;
use crate::model::{ConfigKey, NamespaceId};

/// Bytes that a node tells another one of at a time, as [`cost_bytes`] counts them; what is more is not told. Room for
/// 30,000 configs of names of ordinary length: more than an operator reads.
const TOLD_BYTES_MAX: usize = 6 << 20;

/// Those who listen to a config: address, and the MD5 of what it has (empty: nothing).
type Addresses = BTreeMap<String, String>;

/// A config that somebody listens to, on the way between nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Listened {
    namespace: String,
    group: String,
    data_id: String,
    /// MD5 of what the client has; empty: nothing.
    md5: String,
}

impl Services {
    /// Clients of this node that listen to a config: address, and what it has.
    pub fn listeners_of(&self, key: &ConfigKey) -> BTreeMap<String, Seen> {
        self.push.listeners_of(key)
    }

    /// What clients with this address listen to on this node, and what they have of it.
    pub fn listened_from(&self, ip: &str) -> BTreeMap<ConfigKey, Seen> {
        self.push.listened_from(ip)
    }

    /// Clients of all nodes that listen to a config: address, and what it has. Of an address with clients on several
    /// nodes, this node's word counts.
    pub async fn listeners_everywhere(&self, key: &ConfigKey) -> BTreeMap<String, Seen> {
        let question = Question::Listeners {
            namespace: key.namespace().to_owned(),
            group: key.group().to_owned(),
            data_id: key.data_id().to_owned(),
        };
        let others = self.ask_others::<Addresses>(&question).await;
        let others = others.into_iter().filter_map(|(_, answer)| answer);
        let mut all: BTreeMap<_, _> = others
            .flatten()
            .map(|(ip, md5)| (ip, Seen::parse(&md5)))
            .collect();
        all.extend(self.listeners_of(key));
        all
    }

    /// What clients with this address listen to on all nodes, and what they have of it.
    pub async fn listened_everywhere(&self, ip: &str) -> BTreeMap<ConfigKey, Seen> {
        let question = Question::Listened { ip: ip.to_owned() };
        let others = self.ask_others::<Vec<Listened>>(&question).await;
        let others = others.into_iter().filter_map(|(_, answer)| answer);
        let mut all: BTreeMap<_, _> = others.flatten().map(|one| one.read()).collect();
        all.extend(self.listened_from(ip));
        all
    }

    /// The answer to [`Question::Listeners`].
    pub(super) fn told_listeners(&self, key: &ConfigKey) -> Addresses {
        let all = self.listeners_of(key).into_iter();
        all.map(|(ip, seen)| (ip, text(seen))).collect()
    }

    /// The answer to [`Question::Listened`].
    pub(super) fn told_listened(&self, ip: &str) -> Vec<Listened> {
        let mut bytes = 0;
        let all = self.listened_from(ip).into_iter();
        all.take_while(|(key, _)| {
            bytes += cost_bytes(key);
            bytes <= TOLD_BYTES_MAX
        })
        .map(|(key, seen)| Listened {
            namespace: key.namespace().to_owned(),
            group: key.group().to_owned(),
            data_id: key.data_id().to_owned(),
            md5: text(seen),
        })
        .collect()
    }
}

impl Listened {
    fn read(&self) -> (ConfigKey, Seen) {
        let namespace = NamespaceId::new(&self.namespace);
        let key = ConfigKey::new(&namespace, &self.group, &self.data_id);
        (key, Seen::parse(&self.md5))
    }
}

/// What a config takes as JSON, at most for the characters that names may have.
fn cost_bytes(key: &ConfigKey) -> usize {
    100 + key.as_bytes().len()
}

/// Nothing, and what is no MD5, look the same to an operator.
fn text(seen: Seen) -> String {
    match seen {
        Seen::Md5(md5) => md5.to_string(),
        Seen::Nothing | Seen::Other => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Md5;

    #[test]
    fn what_is_told_comes_back() {
        for (namespace, seen) in [
            ("", Seen::Nothing),
            ("dev", Seen::Md5(Md5::of(b"x"))),
            ("dev", Seen::Other),
        ] {
            let key = ConfigKey::new(&NamespaceId::new(namespace), "g", "d");
            let listened = Listened {
                namespace: namespace.to_owned(),
                group: "g".to_owned(),
                data_id: "d".to_owned(),
                md5: text(seen),
            };
            let bytes = serde_json::to_vec(&listened).expect("JSON");
            let back: Listened = serde_json::from_slice(&bytes).expect("JSON");
            let shown = if seen == Seen::Other { Seen::Nothing } else { seen };
            assert_eq!(back.read(), (key, shown));
        }
        let newer = br#"{"group":"g","data_id":"d","port":7}"#;
        assert!(serde_json::from_slice::<Listened>(newer).is_ok());
    }
}
