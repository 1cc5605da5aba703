//! What a client says that it has.

use crate::model::Md5;

/// What a client has of a config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing: it believes that there is no such config, or never asked.
    Nothing,
    /// The content with this MD5.
    Md5(Md5),
    /// Something that is no MD5 and differs from every config.
    Other,
}

impl Seen {
    /// What a client means by this text.
    pub fn parse(text: &str) -> Seen {
        if text.trim().is_empty() {
            return Seen::Nothing;
        }
        Md5::from_hex(text.trim()).map_or(Seen::Other, Seen::Md5)
    }

    /// True when the config is what the client has; `None` is one that is not there.
    pub fn is(self, current: Option<Md5>) -> bool {
        match self {
            Seen::Nothing => current.is_none(),
            Seen::Md5(md5) => current == Some(md5),
            Seen::Other => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_has_is_compared_with_what_there_is() {
        let md5 = Md5::of(b"1");
        let seen = Seen::parse(&md5.to_string().to_uppercase());
        assert!(seen.is(Some(md5)));
        assert!(!seen.is(Some(Md5::of(b"2"))));
        assert!(!seen.is(None));
        assert!(Seen::parse("").is(None));
        assert!(!Seen::parse(" ").is(Some(md5)));
        assert!(!Seen::parse("nonsense").is(None));
        assert!(!Seen::parse("nonsense").is(Some(md5)));
    }
}
