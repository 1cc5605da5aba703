//! Keys and contents that can be checked without being kept.
//!
//! A content is a pure function of seed, key and version, so the generator compares every answer byte by
//! byte and remembers nothing but versions. The filler is random: a server that compresses gains nothing.

/// Bytes of random filler beyond one content's size; contents are windows into it.
const POOL_BYTES: usize = 256 << 10;

/// Characters that need no encoding in a form, so that the generator spends nothing on it.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// A small random generator (splitmix64): the same seed gives the same numbers, for ever and everywhere.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// A generator that begins at `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// A number below `bound`; 0 if the bound is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = bound.max(1) as u64;
        usize::try_from(self.roll() % bound).unwrap_or(0)
    }

    /// A number in `from..to`; `from` if the range is empty.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.roll() % to.saturating_sub(from).max(1)
    }

    /// True with a probability of `percent` in a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.roll() % 100 < percent
    }

    /// One of the given values; `None` if there is none.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        let at = self.below(from.len());
        from.get(at)
    }
}

fn mix(value: u64) -> u64 {
    let mut z = value;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Makes and recognises contents of one size.
#[derive(Debug)]
pub struct Contents {
    seed: u64,
    size: usize,
    pool: Vec<u8>,
}

impl Contents {
    /// Contents of `size` bytes each (at least as long as their own head, about 40 bytes).
    #[must_use]
    pub fn new(seed: u64, size: usize) -> Self {
        let mut dice = Dice::new(seed);
        let pool = (0..POOL_BYTES + size)
            .map(|_| ALPHABET[dice.below(ALPHABET.len())])
            .collect();
        Self { seed, size, pool }
    }

    /// Appends the content of this version of this key.
    pub fn write(&self, key: u32, version: u32, out: &mut Vec<u8>) {
        let head = head(self.seed, key, version);
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(self.filler(key, version, head.len()));
    }

    /// Whether `body` is exactly the content of this version of this key.
    #[must_use]
    pub fn matches(&self, key: u32, version: u32, body: &[u8]) -> bool {
        let head = head(self.seed, key, version);
        body.strip_prefix(head.as_bytes())
            .is_some_and(|rest| rest == self.filler(key, version, head.len()))
    }

    fn filler(&self, key: u32, version: u32, head_bytes: usize) -> &[u8] {
        let at = mix((u64::from(key) << 32) | u64::from(version)) % (POOL_BYTES as u64);
        let at = usize::try_from(at).unwrap_or(0);
        &self.pool[at..at + self.size.saturating_sub(head_bytes)]
    }
}

fn head(seed: u64, key: u32, version: u32) -> String {
    format!("s{seed:x}-k{key}-v{version}-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_is_known_again_and_only_that_one() {
        let contents = Contents::new(7, 1024);
        let mut body = Vec::new();
        contents.write(3, 9, &mut body);
        assert_eq!(body.len(), 1024);
        assert!(contents.matches(3, 9, &body));
        assert!(!contents.matches(3, 8, &body));
        assert!(!contents.matches(4, 9, &body));
        assert!(!Contents::new(8, 1024).matches(3, 9, &body));
        body[700] ^= 1;
        assert!(!contents.matches(3, 9, &body));
    }
}
