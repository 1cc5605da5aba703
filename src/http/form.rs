//! `a=b&c=d`: the parameters of a query string or of a form body.
//!
//! Values are borrowed where nothing has to be decoded. Query and body are one list, the query first, and
//! the first value of a name counts: so Tomcat, and with it Nacos, reads them.

use std::borrow::Cow;

/// Parameters of one request; a request with more is refused.
pub(super) const PARAMETERS_MAX: usize = 1_000;

/// Why a form cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    /// A `%` without two hexadecimal digits behind it.
    #[error("a % in the parameters is not followed by two hexadecimal digits")]
    Escape,
    /// The decoded bytes are no text.
    #[error("the parameters are not UTF-8")]
    Encoding,
    /// More than [`PARAMETERS_MAX`].
    #[error("more than {PARAMETERS_MAX} parameters")]
    TooMany,
}

/// The parameters of a request.
#[derive(Debug, Default)]
pub(super) struct Params<'a> {
    pairs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Params<'a> {
    /// Reads a query and a body.
    ///
    /// # Errors
    /// See [`Broken`]. A broken parameter makes the whole request unreadable: guessing would publish
    /// something nobody wrote.
    pub(super) fn parse(query: &'a [u8], body: &'a [u8]) -> Result<Params<'a>, Broken> {
        let mut params = Params {
            pairs: Vec::with_capacity(8),
        };
        for source in [query, body] {
            for pair in source.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
                if params.pairs.len() == PARAMETERS_MAX {
                    return Err(Broken::TooMany);
                }
                params.pairs.push(decode_pair(pair)?);
            }
        }
        Ok(params)
    }

    /// The first value of `name`, which may be empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_ref())
    }

    /// The first value of any of these names (aliases), in the order of the names.
    pub(super) fn any(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| self.get(name))
    }

    /// Takes the first value of `name` out, without copying what was decoded.
    pub(super) fn take(&mut self, name: &str) -> Option<Cow<'a, str>> {
        let (_, value) = self.pairs.iter_mut().find(|(key, _)| key == name)?;
        Some(std::mem::take(value))
    }
}

fn decode_pair(pair: &[u8]) -> Result<(Cow<'_, str>, Cow<'_, str>), Broken> {
    let mut parts = pair.splitn(2, |byte| *byte == b'=');
    let name = parts.next().unwrap_or_default();
    let value = parts.next().unwrap_or_default();
    Ok((decode(name)?, decode(value)?))
}

/// `+` to space, `%xx` to the byte, the whole to text.
pub(super) fn decode(text: &[u8]) -> Result<Cow<'_, str>, Broken> {
    let Some(first) = text.iter().position(|byte| matches!(byte, b'%' | b'+')) else {
        return std::str::from_utf8(text)
            .map(Cow::Borrowed)
            .map_err(|_| Broken::Encoding);
    };
    let mut decoded = Vec::with_capacity(text.len());
    let (plain, mut rest) = text.split_at(first);
    decoded.extend_from_slice(plain);
    while let Some((byte, tail)) = rest.split_first() {
        rest = match byte {
            b'+' => {
                decoded.push(b' ');
                tail
            }
            b'%' => {
                let (digits, tail) = tail.split_at_checked(2).ok_or(Broken::Escape)?;
                decoded.push(hex(digits).ok_or(Broken::Escape)?);
                tail
            }
            _ => {
                let end = rest.iter().position(|byte| matches!(byte, b'%' | b'+'));
                let (plain, rest) = rest.split_at(end.unwrap_or(rest.len()));
                decoded.extend_from_slice(plain);
                rest
            }
        };
    }
    String::from_utf8(decoded)
        .map(Cow::Owned)
        .map_err(|_| Broken::Encoding)
}

fn hex(digits: &[u8]) -> Option<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    match digits {
        [high, low] => u8::try_from(digit(high)? << 4 | digit(low)?).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_wins_over_body_and_the_first_value_counts() {
        let params = Params::parse(b"a=1&b=&a=2", b"a=3&c=x%20y+z&d").unwrap();
        assert_eq!(params.get("a"), Some("1"));
        assert_eq!(params.get("b"), Some(""));
        assert_eq!(params.get("c"), Some("x y z"));
        assert_eq!(params.get("d"), Some(""));
        assert_eq!(params.get("e"), None);
        assert_eq!(params.any(&["x", "c"]), Some("x y z"));
    }

    #[test]
    fn decoding_borrows_where_it_can() {
        assert!(matches!(decode(b"plain=text"), Ok(Cow::Borrowed("plain=text"))));
        assert_eq!(decode("%e5%90%8D=名+%2B".as_bytes()).unwrap(), "名=名 +");
        assert_eq!(decode(b"").unwrap(), "");
    }

    #[test]
    fn broken_input_is_an_error_and_no_panic() {
        for broken in ["%", "%4", "%zz", "a%2", "%+1", "%-1"] {
            assert_eq!(decode(broken.as_bytes()), Err(Broken::Escape), "{broken}");
        }
        assert_eq!(decode(b"%ff"), Err(Broken::Encoding));
        assert_eq!(decode(b"\xff"), Err(Broken::Encoding));
        let many = "a&".repeat(PARAMETERS_MAX + 1);
        assert_eq!(Params::parse(many.as_bytes(), b"").unwrap_err(), Broken::TooMany);
    }

    /// Property: what is encoded by the rules of forms decodes to itself, whatever it is.
    #[test]
    fn decode_reverses_encode() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for round in 0..500 {
            let mut text = String::new();
            for _ in 0..round % 40 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                text.push(char::from_u32((state >> 40) as u32 % 0x3000).unwrap_or('+'));
            }
            let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
            assert_eq!(decode(encoded.as_bytes()).unwrap(), text);
        }
    }
}
