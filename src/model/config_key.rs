//! The name of a config.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::NamespaceId;

/// `(namespace, group, dataId)`: the name of a config.
///
/// One shared allocation holds all three, separated by a zero byte, which no valid name contains
/// ([`super::validate`]); clones share it, and hashing and comparing walk one piece of memory. The order
/// is by namespace, group, data id, the same as the order of [`ConfigKey::as_bytes`], which is the key of
/// the config in the state's tables.
#[derive(Clone)]
pub struct ConfigKey {
    text: Arc<str>,
    group_at: u32,
    data_id_at: u32,
}

impl ConfigKey {
    /// What stands between the parts.
    pub const SEPARATOR: char = '\0';

    /// Joins the parts. Any text is taken: names that are not valid simply are not stored.
    pub fn new(namespace: &NamespaceId, group: &str, data_id: &str) -> ConfigKey {
        let namespace = namespace.as_str();
        let mut text = String::with_capacity(namespace.len() + group.len() + data_id.len() + 2);
        text.push_str(namespace);
        text.push(ConfigKey::SEPARATOR);
        let group_at = text.len() as u32;
        text.push_str(group);
        text.push(ConfigKey::SEPARATOR);
        let data_id_at = text.len() as u32;
        text.push_str(data_id);
        ConfigKey {
            text: text.into(),
            group_at,
            data_id_at,
        }
    }

    /// The reverse of [`ConfigKey::as_bytes`]; `None` for bytes that are no key.
    pub fn from_bytes(bytes: &[u8]) -> Option<ConfigKey> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut parts = text.split(ConfigKey::SEPARATOR);
        let (namespace, group, _data_id) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let group_at = namespace.len() + 1;
        let data_id_at = group_at + group.len() + 1;
        Some(ConfigKey {
            text: text.into(),
            group_at: group_at as u32,
            data_id_at: data_id_at as u32,
        })
    }

    /// Text of the namespace's id; empty for the default namespace.
    pub fn namespace(&self) -> &str {
        &self.text[..self.group_at as usize - 1]
    }

    /// The namespace.
    pub fn namespace_id(&self) -> NamespaceId {
        NamespaceId::new(self.namespace())
    }

    /// The group.
    pub fn group(&self) -> &str {
        &self.text[self.group_at as usize..self.data_id_at as usize - 1]
    }

    /// The data id.
    pub fn data_id(&self) -> &str {
        &self.text[self.data_id_at as usize..]
    }

    /// All three parts with a zero byte between them.
    pub fn as_bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// True when the parts are separated without doubt and none that must be there is empty: what the
    /// state machine demands before it stores anything under a name.
    pub fn is_storable(&self) -> bool {
        let separators = self
            .text
            .bytes()
            .filter(|&byte| byte == ConfigKey::SEPARATOR as u8)
            .count();
        separators == 2 && !self.group().is_empty() && !self.data_id().is_empty()
    }
}

impl PartialEq for ConfigKey {
    fn eq(&self, other: &ConfigKey) -> bool {
        self.text == other.text
    }
}

impl Eq for ConfigKey {}

impl Hash for ConfigKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl PartialOrd for ConfigKey {
    fn partial_cmp(&self, other: &ConfigKey) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ConfigKey {
    fn cmp(&self, other: &ConfigKey) -> std::cmp::Ordering {
        self.text.cmp(&other.text)
    }
}

impl fmt::Debug for ConfigKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `dataId+group+namespace`, as Nacos writes a group key in its logs.
impl fmt::Display for ConfigKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}+{}", self.data_id(), self.group(), self.namespace())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back() {
        let key = ConfigKey::new(&NamespaceId::new("dev"), "G", "app.yaml");
        assert_eq!(
            (key.namespace(), key.group(), key.data_id()),
            ("dev", "G", "app.yaml")
        );
        assert_eq!(ConfigKey::from_bytes(key.as_bytes()), Some(key.clone()));
        assert!(key.is_storable());
        let default = ConfigKey::new(&NamespaceId::default(), "G", "d");
        assert_eq!(
            (default.namespace(), default.group(), default.data_id()),
            ("", "G", "d")
        );
        assert!(default < key);
    }

    #[test]
    fn doubtful_names_are_not_storable_and_equal_no_storable_one() {
        let namespace = NamespaceId::new("n");
        for (group, data_id) in [("", "d"), ("g", ""), ("g\0h", "d"), ("g", "\0"), ("", "g\0d")] {
            assert!(
                !ConfigKey::new(&namespace, group, data_id).is_storable(),
                "{group:?} {data_id:?}"
            );
        }
        assert_eq!(ConfigKey::from_bytes(b"a\0b"), None);
        assert_eq!(ConfigKey::from_bytes(b"a\0b\0c\0d"), None);
        assert_eq!(ConfigKey::from_bytes(b"a\0b\0\xff"), None);
    }
}
