//! The id of a namespace.

use std::fmt;
use std::sync::Arc;

/// Id of a namespace (*tenant* in the config API of Nacos 1 and 2).
///
/// The default namespace has many spellings: missing, blank, `public` and `null` in any case. All of them
/// are the same id here, written as the empty text. A client looks its cache up by the spelling it used,
/// so an adapter answers with that one, not with this.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespaceId(Arc<str>);

impl NamespaceId {
    /// How Nacos 3, and naming in all generations, spell the default namespace.
    pub const PUBLIC: &'static str = "public";

    /// The namespace a client means with this text.
    pub fn new(text: &str) -> NamespaceId {
        let blank = text.trim().is_empty();
        let default =
            blank || text.eq_ignore_ascii_case(NamespaceId::PUBLIC) || text.eq_ignore_ascii_case("null");
        NamespaceId(if default { Arc::from("") } else { Arc::from(text) })
    }

    /// True for the default namespace.
    pub fn is_default(&self) -> bool {
        self.0.is_empty()
    }

    /// The id; empty for the default namespace (the spelling of Nacos 1 and 2).
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id; `public` for the default namespace (the spelling of Nacos 3).
    pub fn as_public_str(&self) -> &str {
        if self.is_default() {
            NamespaceId::PUBLIC
        } else {
            &self.0
        }
    }
}

impl Default for NamespaceId {
    fn default() -> NamespaceId {
        NamespaceId::new("")
    }
}

impl From<Option<&str>> for NamespaceId {
    fn from(text: Option<&str>) -> NamespaceId {
        NamespaceId::new(text.unwrap_or_default())
    }
}

impl fmt::Display for NamespaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_public_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spellings_of_the_default_are_one() {
        for text in ["", " ", "public", "Public", "PUBLIC", "null", "NULL"] {
            assert_eq!(NamespaceId::new(text), NamespaceId::default(), "{text:?}");
        }
        assert_eq!(NamespaceId::from(None), NamespaceId::default());
        assert_eq!(NamespaceId::new("publicity").as_str(), "publicity");
        assert_eq!(NamespaceId::default().as_public_str(), "public");
    }
}
