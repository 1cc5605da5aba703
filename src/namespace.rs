//! Namespaces: names for groups of configs and services.
//!
//! A namespace need not exist for something to be published into it (Nacos does not ask by default), and
//! deleting one deletes nothing in it. The default namespace is always there, cannot be made, changed or
//! deleted, and is not stored.

use std::collections::BTreeMap;

use crate::model::NamespaceId;

/// Namespaces a cluster can have besides the default one. Each list shows all of them.
pub const NAMESPACES_MAX: usize = 10_000;

/// What a namespace may hold according to Nacos, which shows the number and does not enforce it.
pub const QUOTA: u32 = 200;

/// A namespace somebody made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Shown name.
    pub name: String,
    /// Free text, empty for none.
    pub description: String,
    /// Log index of its creation: lists are in this order.
    pub created_index: u64,
    /// Creation, milliseconds since the epoch.
    pub created_ms: i64,
    /// Newest change, milliseconds since the epoch.
    pub modified_ms: i64,
}

/// What somebody wants a namespace to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Which one.
    pub id: NamespaceId,
    /// Shown name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Milliseconds since the epoch, on the proposer's clock.
    pub now_ms: i64,
}

/// Why a namespace was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// There is one of this id.
    #[error("the namespace exists")]
    Exists,
    /// There is none of this id.
    #[error("the namespace does not exist")]
    Missing,
    /// The default namespace is as it is.
    #[error("the default namespace cannot be changed")]
    BuiltIn,
    /// There are [`NAMESPACES_MAX`] already.
    #[error("there are {NAMESPACES_MAX} namespaces already")]
    TooMany,
}

/// One line of a list of namespaces, as Nacos shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its id.
    pub id: NamespaceId,
    /// Shown name; `public` for the default one.
    pub name: String,
    /// Free text, empty for none.
    pub description: String,
    /// Configs in it.
    pub config_count: usize,
    /// See [`QUOTA`].
    pub quota: u32,
    /// 0 for the default one, 2 for one that somebody made.
    pub kind: u8,
}

/// All namespaces but the default one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces(BTreeMap<NamespaceId, Namespace>);

impl Namespaces {
    /// One of them.
    pub fn get(&self, id: &NamespaceId) -> Option<&Namespace> {
        self.0.get(id)
    }

    /// True for the default namespace and for those that were made.
    pub fn exists(&self, id: &NamespaceId) -> bool {
        id.is_default() || self.0.contains_key(id)
    }

    /// How many were made.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True when none was made.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What a list shows of one, the default one included.
    pub fn summary(&self, id: &NamespaceId, config_count: usize) -> Option<Summary> {
        if id.is_default() {
            return Some(Summary {
                id: id.clone(),
                name: NamespaceId::PUBLIC.into(),
                description: String::new(),
                config_count,
                quota: QUOTA,
                kind: 0,
            });
        }
        self.0.get(id).map(|namespace| Summary {
            id: id.clone(),
            name: namespace.name.clone(),
            description: namespace.description.clone(),
            config_count,
            quota: QUOTA,
            kind: 2,
        })
    }

    /// Ids in the order of lists: the default one, then as they were made.
    pub fn in_order(&self) -> Vec<NamespaceId> {
        let mut made: Vec<_> = self
            .0
            .iter()
            .map(|(id, namespace)| (namespace.created_index, id.clone()))
            .collect();
        made.sort();
        std::iter::once(NamespaceId::default())
            .chain(made.into_iter().map(|(_, id)| id))
            .collect()
    }

    /// Makes one.
    ///
    /// # Errors
    /// Nothing changes.
    pub fn create(&mut self, wanted: &Wanted, index: u64) -> Result<&Namespace, Refusal> {
        if wanted.id.is_default() {
            return Err(Refusal::BuiltIn);
        }
        if self.0.contains_key(&wanted.id) {
            return Err(Refusal::Exists);
        }
        if self.0.len() >= NAMESPACES_MAX {
            return Err(Refusal::TooMany);
        }
        let namespace = Namespace {
            name: wanted.name.clone(),
            description: wanted.description.clone(),
            created_index: index,
            created_ms: wanted.now_ms,
            modified_ms: wanted.now_ms,
        };
        Ok(self.0.entry(wanted.id.clone()).or_insert(namespace))
    }

    /// Renames one.
    ///
    /// # Errors
    /// Nothing changes.
    pub fn update(&mut self, wanted: &Wanted) -> Result<&Namespace, Refusal> {
        if wanted.id.is_default() {
            return Err(Refusal::BuiltIn);
        }
        let namespace = self.0.get_mut(&wanted.id).ok_or(Refusal::Missing)?;
        namespace.name.clone_from(&wanted.name);
        namespace.description.clone_from(&wanted.description);
        namespace.modified_ms = wanted.now_ms;
        Ok(namespace)
    }

    /// Removes one; what is in it stays.
    ///
    /// # Errors
    /// Nothing changes.
    pub fn delete(&mut self, id: &NamespaceId) -> Result<(), Refusal> {
        if id.is_default() {
            return Err(Refusal::BuiltIn);
        }
        self.0.remove(id).map(drop).ok_or(Refusal::Missing)
    }

    /// Takes one in as it was stored.
    pub(crate) fn restore(&mut self, id: NamespaceId, namespace: Namespace) {
        self.0.insert(id, namespace);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(id: &str, name: &str) -> Wanted {
        Wanted {
            id: NamespaceId::new(id),
            name: name.into(),
            description: "d".into(),
            now_ms: 7,
        }
    }

    #[test]
    fn the_default_one_is_built_in() {
        let mut namespaces = Namespaces::default();
        for id in ["", "public", "null"] {
            assert_eq!(namespaces.create(&wanted(id, "x"), 1), Err(Refusal::BuiltIn));
            assert_eq!(namespaces.update(&wanted(id, "x")), Err(Refusal::BuiltIn));
            assert_eq!(namespaces.delete(&NamespaceId::new(id)), Err(Refusal::BuiltIn));
        }
        assert!(namespaces.exists(&NamespaceId::default()));
        let summary = namespaces
            .summary(&NamespaceId::default(), 3)
            .expect("always there");
        assert_eq!(
            (
                summary.name.as_str(),
                summary.kind,
                summary.quota,
                summary.config_count
            ),
            ("public", 0, 200, 3)
        );
    }

    #[test]
    fn made_renamed_listed_in_order_and_deleted() {
        let mut namespaces = Namespaces::default();
        namespaces.create(&wanted("z", "first"), 1).expect("makes");
        namespaces.create(&wanted("a", "second"), 2).expect("makes");
        assert_eq!(namespaces.create(&wanted("z", "again"), 3), Err(Refusal::Exists));
        let order: Vec<_> = namespaces.in_order().iter().map(ToString::to_string).collect();
        assert_eq!(order, ["public", "z", "a"]);
        namespaces.update(&wanted("z", "new")).expect("renames");
        assert_eq!(
            namespaces
                .summary(&NamespaceId::new("z"), 0)
                .map(|s| (s.name, s.kind)),
            Some(("new".into(), 2))
        );
        assert_eq!(namespaces.update(&wanted("n", "x")), Err(Refusal::Missing));
        assert_eq!(namespaces.delete(&NamespaceId::new("z")), Ok(()));
        assert_eq!(namespaces.delete(&NamespaceId::new("z")), Err(Refusal::Missing));
    }

    #[test]
    fn their_number_is_bounded() {
        let mut namespaces = Namespaces::default();
        for number in 0..NAMESPACES_MAX {
            namespaces
                .create(&wanted(&format!("n{number}"), "x"), number as u64)
                .expect("makes");
        }
        assert_eq!(namespaces.create(&wanted("more", "x"), 0), Err(Refusal::TooMany));
    }
}
