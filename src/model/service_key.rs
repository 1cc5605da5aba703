//! The name of a service.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::NamespaceId;

/// `(namespace, group, service)`: the name of a service.
///
/// One shared allocation holds `namespace\0group@@service`; clones share it. The order is by namespace,
/// then by the grouped name, so the services of a group stand together.
#[derive(Clone)]
pub struct ServiceKey {
    text: Arc<str>,
    grouped_at: u32,
    name_at: u32,
}

impl ServiceKey {
    /// What joins group and service into the *grouped name*.
    pub const JOINT: &'static str = "@@";
    /// The group of whoever names none.
    pub const DEFAULT_GROUP: &'static str = "DEFAULT_GROUP";

    /// Joins the parts. Any text is taken: names that are not valid are refused at the edge.
    pub fn new(namespace: &NamespaceId, group: &str, name: &str) -> ServiceKey {
        let namespace = namespace.as_str();
        let grouped_at = namespace.len() + 1;
        let name_at = grouped_at + group.len() + ServiceKey::JOINT.len();
        let mut text = String::with_capacity(name_at + name.len());
        for part in [namespace, "\0", group, ServiceKey::JOINT, name] {
            text.push_str(part);
        }
        ServiceKey {
            text: text.into(),
            grouped_at: grouped_at as u32,
            name_at: name_at as u32,
        }
    }

    /// The service a client means: a name that is grouped already (`group@@service`) says its group
    /// itself, and a blank group is the default one.
    pub fn of_client(namespace: &NamespaceId, group: &str, name: &str) -> ServiceKey {
        let (group, name) = match name.split_once(ServiceKey::JOINT) {
            Some((own, name)) if !own.is_empty() => (own, name),
            _ => (group, name),
        };
        let group = match group.trim() {
            "" => ServiceKey::DEFAULT_GROUP,
            group => group,
        };
        ServiceKey::new(namespace, group, name.trim())
    }

    /// Text of the namespace's id; empty for the default namespace.
    pub fn namespace(&self) -> &str {
        &self.text[..self.grouped_at as usize - 1]
    }

    /// The namespace.
    pub fn namespace_id(&self) -> NamespaceId {
        NamespaceId::new(self.namespace())
    }

    /// `group@@service`.
    pub fn grouped(&self) -> &str {
        &self.text[self.grouped_at as usize..]
    }

    /// The group.
    pub fn group(&self) -> &str {
        &self.text[self.grouped_at as usize..self.name_at as usize - ServiceKey::JOINT.len()]
    }

    /// The service, without its group.
    pub fn name(&self) -> &str {
        &self.text[self.name_at as usize..]
    }

    /// `namespace\0group@@service`: what is hashed, stored and compared.
    pub fn as_bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// True for a key whose bytes tell its parts without doubt: no part but the namespace is empty, none
    /// holds a zero byte, and the first joint is the one behind the group.
    pub fn is_storable(&self) -> bool {
        let zeros = self.text.bytes().filter(|byte| *byte == 0).count();
        let parts = !self.group().is_empty() && !self.name().is_empty();
        let joint = self.grouped().find(ServiceKey::JOINT);
        zeros == 1 && parts && joint == Some(self.group().len())
    }

    /// The key with these bytes; `None` if they are not those of a storable key.
    pub fn from_bytes(bytes: &[u8]) -> Option<ServiceKey> {
        let (namespace, grouped) = std::str::from_utf8(bytes).ok()?.split_once('\0')?;
        let (group, name) = grouped.split_once(ServiceKey::JOINT)?;
        let key = ServiceKey::new(&NamespaceId::new(namespace), group, name);
        (key.is_storable() && key.as_bytes() == bytes).then_some(key)
    }
}

impl PartialEq for ServiceKey {
    fn eq(&self, other: &ServiceKey) -> bool {
        self.text == other.text
    }
}

impl Eq for ServiceKey {}

impl Hash for ServiceKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl PartialOrd for ServiceKey {
    fn partial_cmp(&self, other: &ServiceKey) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ServiceKey {
    fn cmp(&self, other: &ServiceKey) -> std::cmp::Ordering {
        self.text.cmp(&other.text)
    }
}

impl fmt::Debug for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace_id(), self.grouped())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back() {
        let key = ServiceKey::new(&NamespaceId::new("dev"), "g", "s@@x");
        assert_eq!((key.namespace(), key.group(), key.name()), ("dev", "g", "s@@x"));
        assert_eq!(key.grouped(), "g@@s@@x");
        assert_eq!(key.to_string(), "dev/g@@s@@x");
    }

    #[test]
    fn storable_keys_come_back_from_their_bytes() {
        let dev = NamespaceId::new("dev");
        for (namespace, group, name) in [
            (&dev, "g", "s"),
            (&NamespaceId::default(), "g", "s"),
            (&dev, "g", "@@s@@x@@"),
        ] {
            let key = ServiceKey::new(namespace, group, name);
            let back = ServiceKey::from_bytes(key.as_bytes()).expect("storable");
            assert_eq!((&back, back.group(), back.name()), (&key, group, name));
        }
        let doubtful = [
            ("", "s"),
            ("g", ""),
            ("a@@b", "s"),
            ("g@", "s"),
            ("g\0", "s"),
            ("g", "\0s"),
        ];
        for (group, name) in doubtful {
            let key = ServiceKey::new(&dev, group, name);
            assert!(!key.is_storable(), "{key}");
        }
        for bytes in [&b"dev\0g@s"[..], b"g@@s", b"public\0g@@s", b"\xff\0g@@s", b""] {
            assert_eq!(ServiceKey::from_bytes(bytes), None);
        }
    }

    #[test]
    fn clients_may_group_the_name_themselves() {
        let public = NamespaceId::default();
        let plain = ServiceKey::of_client(&public, "", " s ");
        assert_eq!(plain.grouped(), "DEFAULT_GROUP@@s");
        assert_eq!(ServiceKey::of_client(&public, "other", "DEFAULT_GROUP@@s"), plain);
        assert_eq!(ServiceKey::of_client(&public, "g", "s").group(), "g");
        assert_eq!(ServiceKey::of_client(&public, "g", "@@s").grouped(), "g@@@@s");
    }
}
