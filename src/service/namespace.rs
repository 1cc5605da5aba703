//! Namespaces.

use super::config::unexpected;
use super::{Caller, Services};
use crate::clock;
use crate::error::{Error, Result};
use crate::model::{NamespaceId, validate};
use crate::namespace::{Refusal, Summary, Wanted};
use crate::state::{Command, Outcome};

/// Longest description, in characters.
const DESCRIPTION_MAX: usize = 256;

impl Services {
    /// All namespaces, the default one first.
    pub fn namespaces(&self) -> Vec<Summary> {
        self.state.namespaces()
    }

    /// One of them.
    ///
    /// # Errors
    /// There is none of this id.
    pub fn namespace(&self, id: &str) -> Result<Summary> {
        self.state
            .namespace(&NamespaceId::new(id))
            .ok_or_else(|| Error::NoNamespace { id: id.to_owned() })
    }

    /// True when the id is taken.
    pub fn namespace_exists(&self, id: &str) -> bool {
        self.namespace(id).is_ok()
    }

    /// Makes a namespace; a blank id becomes a random UUID.
    ///
    /// # Errors
    /// The id or the name is not possible, or the id is taken; else as any write.
    pub async fn create_namespace(
        &self,
        id: &str,
        name: &str,
        description: &str,
        _caller: &Caller,
    ) -> Result<()> {
        let id = if id.trim().is_empty() {
            uuid_v4(rand::random())
        } else {
            id.trim().to_owned()
        };
        let key = NamespaceId::new(&id);
        if key.is_default() {
            return Err(Error::NamespaceTaken { id });
        }
        let wanted = wanted(key, name, description)?;
        match self.propose(Command::NamespaceCreate(wanted)).await? {
            Outcome::NamespaceDone => Ok(()),
            Outcome::NamespaceRefused(Refusal::Exists | Refusal::BuiltIn) => {
                Err(Error::NamespaceTaken { id })
            }
            Outcome::NamespaceRefused(refusal) => Err(Error::NamespaceIllegal(refusal.to_string())),
            other => Err(unexpected(other)),
        }
    }

    /// Renames a namespace. One that does not exist stays so, and that is no error, as in Nacos.
    ///
    /// # Errors
    /// The name is not possible; else as any write.
    pub async fn update_namespace(
        &self,
        id: &str,
        name: &str,
        description: &str,
        _caller: &Caller,
    ) -> Result<()> {
        let key = NamespaceId::new(id);
        let wanted = wanted(key.clone(), name, description)?;
        if key.is_default() {
            return Ok(());
        }
        match self.propose(Command::NamespaceUpdate(wanted)).await? {
            Outcome::NamespaceDone | Outcome::NamespaceRefused(_) => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// Deletes a namespace; what is in it stays. One that does not exist, and the default one, stay as
    /// they are, and that is no error, as in Nacos.
    ///
    /// # Errors
    /// As any write.
    pub async fn delete_namespace(&self, id: &str, _caller: &Caller) -> Result<()> {
        let key = NamespaceId::new(id);
        if key.is_default() {
            return Ok(());
        }
        match self.propose(Command::NamespaceDelete(key)).await? {
            Outcome::NamespaceDone | Outcome::NamespaceRefused(_) => Ok(()),
            other => Err(unexpected(other)),
        }
    }
}

fn wanted(id: NamespaceId, name: &str, description: &str) -> Result<Wanted> {
    let id_is_possible = validate::namespace_id(id.as_str()).is_ok();
    if !id_is_possible {
        return Err(Error::NamespaceIllegal(format!(
            "namespaceId [{}] mismatch the pattern",
            id.as_str()
        )));
    }
    if name.trim().is_empty() || validate::namespace_name(name).is_err() {
        return Err(Error::NamespaceIllegal(format!(
            "namespaceName [{name}] contains illegal char"
        )));
    }
    if description.chars().count() > DESCRIPTION_MAX {
        return Err(Error::NamespaceIllegal(format!(
            "namespaceDesc is longer than {DESCRIPTION_MAX} characters"
        )));
    }
    let (name, description) = (name.to_owned(), description.to_owned());
    Ok(Wanted {
        id,
        name,
        description,
        now_ms: clock::wall_ms(),
    })
}

/// RFC 9562 §5.4 of 128 random bits.
fn uuid_v4(random: u128) -> String {
    let bits = random & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!(
        "{}-{}-{}-{}-{}",
        part(0, 8),
        part(8, 12),
        part(12, 16),
        part(16, 20),
        part(20, 32)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_ids_are_version_4_uuids() {
        assert_eq!(uuid_v4(0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(uuid_v4(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert!(validate::namespace_id(&uuid_v4(7)).is_ok());
    }

    #[test]
    fn ids_names_and_descriptions_are_checked() {
        let check = |id: &str, name: &str, text: &str| wanted(NamespaceId::new(id), name, text).map(drop);
        assert_eq!(check("a", "n", ""), Ok(()));
        assert_eq!(check("a", "名", "any text: #$%"), Ok(()));
        for (id, name) in [("a b", "n"), ("a", "n#"), ("a", " "), ("a", "")] {
            assert!(
                matches!(check(id, name, ""), Err(Error::NamespaceIllegal(_))),
                "{id:?} {name:?}"
            );
        }
        assert!(check("a", "n", &"d".repeat(DESCRIPTION_MAX + 1)).is_err());
    }
}
