//! The checksum by which clients tell whether a config has changed.

use std::fmt;

use md5::Digest;

use super::Md5Hex;

/// MD5 of a content's UTF-8 bytes. It guards against nothing; it is what SDKs compare.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Md5(pub [u8; 16]);

impl Md5 {
    /// Of these bytes.
    pub fn of(content: &[u8]) -> Md5 {
        Md5(md5::Md5::digest(content).into())
    }

    /// From 32 hexadecimal digits of either case; `None` for anything else.
    pub fn from_hex(text: &str) -> Option<Md5> {
        let digits = text.as_bytes();
        if digits.len() != 32 {
            return None;
        }
        let mut digest = [0; 16];
        for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = (hex_digit(pair[0])? << 4) | hex_digit(pair[1])?;
        }
        Some(Md5(digest))
    }

    /// From the 16 bytes that [`Md5::as_bytes`] gave.
    pub fn from_bytes(bytes: &[u8]) -> Option<Md5> {
        bytes.try_into().ok().map(Md5)
    }

    /// The digest.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its digits.
    pub fn hex(&self) -> Md5Hex {
        Md5Hex::new(&self.0)
    }
}

fn hex_digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        b'A'..=b'F' => Some(character - b'A' + 10),
        _ => None,
    }
}

impl fmt::Debug for Md5 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Md5 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.hex().as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_comes_back() {
        let md5 = Md5::of(b"k=v");
        assert_eq!(md5.to_string(), "5a8a83c40ada249c61f6b20210c9448c");
        assert_eq!(Md5::from_hex("5A8A83C40ADA249C61F6B20210C9448C"), Some(md5));
        for bad in [
            "",
            "5a",
            "5a8a83c40ada249c61f6b20210c9448g",
            "5a8a83c40ada249c61f6b20210c9448cc",
        ] {
            assert_eq!(Md5::from_hex(bad), None, "{bad}");
        }
    }
}
