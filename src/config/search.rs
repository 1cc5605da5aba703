//! Selecting configs.

use super::Entry;
use crate::model::{ConfigType, NamespaceId};

/// A condition on one field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Pattern {
    /// No condition.
    #[default]
    Any,
    /// Equal.
    Exact(Box<str>),
    /// `*` stands for any characters, none included; every other character for itself.
    Glob(Box<str>),
}

impl Pattern {
    /// `search=accurate`: blank means any, else equal.
    pub fn accurate(text: &str) -> Pattern {
        if text.trim().is_empty() {
            Pattern::Any
        } else {
            Pattern::Exact(text.into())
        }
    }

    /// `search=blur`: blank means any, `*` is a wildcard, without one equal.
    pub fn blur(text: &str) -> Pattern {
        let wild = text.contains('*');
        match text.trim() {
            "" => Pattern::Any,
            trimmed if trimmed.bytes().all(|byte| byte == b'*') => Pattern::Any,
            _ if wild => Pattern::Glob(text.into()),
            _ => Pattern::Exact(text.into()),
        }
    }

    /// Somewhere inside; `*` is a wildcard. Blank means any.
    pub fn contains(text: &str) -> Pattern {
        if text.trim().is_empty() {
            Pattern::Any
        } else {
            Pattern::Glob(format!("*{text}*").into())
        }
    }

    /// True when the text meets the condition.
    pub fn matches(&self, text: &str) -> bool {
        self.matches_bytes(text.as_bytes())
    }

    /// As [`Pattern::matches`]; UTF-8 is compared byte for byte.
    pub fn matches_bytes(&self, text: &[u8]) -> bool {
        match self {
            Pattern::Any => true,
            Pattern::Exact(wanted) => wanted.as_bytes() == text,
            Pattern::Glob(pattern) => glob(pattern.as_bytes(), text),
        }
    }
}

/// Which configs are wanted. All conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// In this namespace.
    pub namespace: NamespaceId,
    /// By data id.
    pub data_id: Pattern,
    /// By group.
    pub group: Pattern,
    /// By application.
    pub app_name: Pattern,
    /// At least one of the config's tags meets one of these; empty for any.
    pub tags: Vec<Pattern>,
    /// Of one of these types; empty for any.
    pub kinds: Vec<ConfigType>,
    /// By content.
    pub content: Pattern,
}

impl Query {
    /// All of a namespace.
    pub fn all(namespace: NamespaceId) -> Query {
        Query {
            namespace,
            ..Query::default()
        }
    }

    /// True when the config meets every condition. The cheap ones are tried first, the content last.
    pub fn matches(&self, entry: &Entry) -> bool {
        self.data_id.matches(entry.key.data_id())
            && self.group.matches(entry.key.group())
            && self.namespace.as_str() == entry.key.namespace()
            && self.app_name.matches(entry.app_name())
            && (self.kinds.is_empty() || self.kinds.contains(&entry.kind))
            && self.matches_tags(entry)
            && self.content.matches_bytes(&entry.content)
    }

    fn matches_tags(&self, entry: &Entry) -> bool {
        self.tags.is_empty()
            || entry
                .tags()
                .iter()
                .any(|tag| self.tags.iter().any(|wanted| wanted.matches(tag)))
    }
}

/// Splits the pattern at its stars: the first piece must start the text, the last one end it, those in
/// between are found one after the other, each at the earliest place. That is enough: if any places do,
/// the earliest ones do.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let mut pieces = pattern.split(|&byte| byte == b'*');
    let Some(first) = pieces.next() else {
        return text.is_empty();
    };
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let Some(last) = pieces.next_back() else {
        return rest.is_empty();
    };
    for piece in pieces {
        let Some(at) = find(rest, piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

/// First place of `needle`. The first byte is searched for on its own: that is what the compiler turns
/// into wide instructions, and contents can be large.
fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    let Some((&first, tail)) = needle.split_first() else {
        return Some(0);
    };
    let mut from = 0;
    while let Some(at) = text.get(from..)?.iter().position(|&byte| byte == first) {
        let start = from + at;
        if text[start + 1..].starts_with(tail) {
            return Some(start);
        }
        from = start + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        let cases = [
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "abcd", false),
            ("*", "", true),
            ("*b*", "abc", true),
            ("*b*", "ac", false),
            ("a*", "ba", false),
            ("*a*b*a", "xaxbxa", true),
            ("ab*ba", "aba", false),
            ("a_%c", "abbc", false),
            ("**a", "a", true),
            ("t-*-run", "t-json-run", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(
                glob(pattern.as_bytes(), text.as_bytes()),
                expected,
                "{pattern} {text}"
            );
        }
    }

    #[test]
    fn patterns_follow_the_kind_of_search() {
        assert_eq!(Pattern::accurate(" "), Pattern::Any);
        assert_eq!(Pattern::accurate("a*"), Pattern::Exact("a*".into()));
        assert_eq!(Pattern::blur("*"), Pattern::Any);
        assert_eq!(Pattern::blur("a"), Pattern::Exact("a".into()));
        assert!(!Pattern::blur("a").matches("ab"));
        assert!(Pattern::blur("a*").matches("ab"));
        assert!(Pattern::contains("b").matches("abc"));
        assert!(!Pattern::contains("d").matches("abc"));
    }

    /// Against the definition, over all short patterns and texts of a small alphabet.
    #[test]
    fn glob_agrees_with_its_definition() {
        fn naive(pattern: &[u8], text: &[u8]) -> bool {
            match pattern.split_first() {
                None => text.is_empty(),
                Some((b'*', rest)) => (0..=text.len()).any(|skip| naive(rest, &text[skip..])),
                Some((byte, rest)) => text.first() == Some(byte) && naive(rest, &text[1..]),
            }
        }
        fn words(alphabet: &[u8], length_max: usize) -> Vec<Vec<u8>> {
            let mut all = vec![vec![]];
            let mut last = all.clone();
            for _ in 0..length_max {
                last = last
                    .iter()
                    .flat_map(|word: &Vec<u8>| alphabet.iter().map(|&c| [&word[..], &[c]].concat()))
                    .collect();
                all.extend(last.clone());
            }
            all
        }
        for pattern in words(b"ab*", 5) {
            for text in words(b"ab", 6) {
                assert_eq!(
                    glob(&pattern, &text),
                    naive(&pattern, &text),
                    "{pattern:?} {text:?}"
                );
            }
        }
    }
}
