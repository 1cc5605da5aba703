//! Reads decisions and values from the bytes of an input.

/// The bytes of an input that are still unread. Where there are none any more, everything is zero: an
/// input that is cut short means the same as one filled up with zeros.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    /// All of `data`.
    pub fn new(data: &'a [u8]) -> Input<'a> {
        Input { rest: data }
    }

    /// True when nothing is left to decide.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// What is left.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let (taken, rest) = self.rest.split_at(self.rest.len().min(N));
        bytes[..taken.len()].copy_from_slice(taken);
        self.rest = rest;
        bytes
    }

    /// A byte.
    pub fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.take())
    }

    /// Two bytes, little-endian, as the following are.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    /// Four bytes.
    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    /// Sixteen bytes.
    pub fn u128(&mut self) -> u128 {
        u128::from_le_bytes(self.take())
    }

    /// True for odd bytes.
    pub fn flag(&mut self) -> bool {
        self.u8() & 1 == 1
    }

    /// True for one byte value in `n`; false when nothing is left.
    pub fn one_in(&mut self, n: u8) -> bool {
        self.u8() % n == n - 1
    }

    /// Below `bound`, which must not be 0.
    pub fn below(&mut self, bound: usize) -> usize {
        match bound {
            0..=0x100 => usize::from(self.u8()) % bound,
            0x101..=0x1_0000 => usize::from(self.u16()) % bound,
            _ => self.u32() as usize % bound,
        }
    }

    /// A number that is mostly small, sometimes any.
    pub fn number(&mut self) -> u64 {
        match self.u8() {
            0xff => self.u64(),
            0xfe => u64::MAX / 2 + u64::from(self.u8()) - 2,
            0xfd => u64::MAX - u64::from(self.u8()),
            small => u64::from(small),
        }
    }

    /// Up to `length` bytes.
    pub fn bytes(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(self.rest.len().min(length));
        self.rest = rest;
        taken
    }

    /// A length byte and so many bytes, fewer when the input ends.
    pub fn short_bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.u8());
        self.bytes(length)
    }

    /// A text made of [`Input::short_bytes`]; what is no UTF-8 is replaced.
    pub fn text(&mut self) -> String {
        String::from_utf8_lossy(self.short_bytes()).into_owned()
    }
}
