//! What names of configs and of services have in common: patterns are watched over either.

use std::fmt::Debug;
use std::hash::Hash;

use super::{ConfigKey, NamespaceId, ServiceKey};

/// A name of three parts. A clone shares the text.
pub trait Named: Clone + Debug + Eq + Hash + Ord + Send + Sync + Unpin + 'static {
    /// The namespace.
    fn namespace_id(&self) -> NamespaceId;

    /// Text of the namespace's id; empty for the default namespace.
    fn namespace(&self) -> &str;

    /// The group.
    fn group(&self) -> &str;

    /// What it is called within its group.
    fn item(&self) -> &str;

    /// Bytes of its text.
    fn text_bytes(&self) -> usize;

    /// The name as fuzzy watches write it. The default namespace is `public` there.
    fn group_key(&self) -> String;

    /// The reverse of [`Named::group_key`]; `None` for a text that names nothing.
    fn from_group_key(text: &str) -> Option<Self>;
}

impl Named for ConfigKey {
    fn namespace_id(&self) -> NamespaceId {
        self.namespace_id()
    }

    fn namespace(&self) -> &str {
        self.namespace()
    }

    fn group(&self) -> &str {
        self.group()
    }

    fn item(&self) -> &str {
        self.data_id()
    }

    fn text_bytes(&self) -> usize {
        self.as_bytes().len()
    }

    /// `dataId+group+namespace`, where `+` and `%` within a part are escaped.
    fn group_key(&self) -> String {
        let namespace = self.namespace_id();
        let mut text = String::new();
        for part in [self.data_id(), self.group(), namespace.as_public_str()] {
            if !text.is_empty() {
                text.push('+');
            }
            for character in part.chars() {
                match character {
                    '+' => text.push_str("%2B"),
                    '%' => text.push_str("%25"),
                    other => text.push(other),
                }
            }
        }
        text
    }

    fn from_group_key(text: &str) -> Option<ConfigKey> {
        let mut parts = text
            .split('+')
            .map(|part| part.replace("%2B", "+").replace("%25", "%"));
        let (data_id, group) = (parts.next()?, parts.next()?);
        let namespace = parts.next().unwrap_or_default();
        let key = ConfigKey::new(&NamespaceId::new(&namespace), &group, &data_id);
        (parts.next().is_none() && key.is_storable()).then_some(key)
    }
}

impl Named for ServiceKey {
    fn namespace_id(&self) -> NamespaceId {
        self.namespace_id()
    }

    fn namespace(&self) -> &str {
        self.namespace()
    }

    fn group(&self) -> &str {
        self.group()
    }

    fn item(&self) -> &str {
        self.name()
    }

    fn text_bytes(&self) -> usize {
        self.as_bytes().len()
    }

    /// `namespace@@group@@service`.
    fn group_key(&self) -> String {
        format!("{}@@{}", self.namespace_id().as_public_str(), self.grouped())
    }

    fn from_group_key(text: &str) -> Option<ServiceKey> {
        let (namespace, grouped) = text.split_once(ServiceKey::JOINT)?;
        let (group, name) = grouped.split_once(ServiceKey::JOINT)?;
        let key = ServiceKey::new(&NamespaceId::new(namespace), group, name);
        key.is_storable().then_some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_keys_of_configs_come_back() {
        let key = |namespace: &str, group: &str, data_id: &str| {
            ConfigKey::new(&NamespaceId::new(namespace), group, data_id)
        };
        for name in [key("", "g", "d"), key("dev", "g+%", "%2B+d")] {
            assert_eq!(ConfigKey::from_group_key(&name.group_key()), Some(name));
        }
        assert_eq!(key("", "g+", "50%").group_key(), "50%25+g%2B+public");
        assert_eq!(ConfigKey::from_group_key("d+g"), Some(key("", "g", "d")));
        for none in ["", "d", "+g+public", "a+b+c+d"] {
            assert_eq!(ConfigKey::from_group_key(none), None, "{none}");
        }
    }

    #[test]
    fn group_keys_of_services_come_back() {
        let key = |namespace: &str, group: &str, name: &str| {
            ServiceKey::new(&NamespaceId::new(namespace), group, name)
        };
        for name in [key("", "g", "s"), key("dev", "g+", "a.b:c")] {
            assert_eq!(ServiceKey::from_group_key(&name.group_key()), Some(name));
        }
        assert_eq!(key("", "g", "s").group_key(), "public@@g@@s");
        for none in ["", "public", "public@@g", "public@@@@s", "public@@g@@"] {
            assert_eq!(ServiceKey::from_group_key(none), None, "{none}");
        }
    }
}
