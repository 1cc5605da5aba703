//! Seeded mutations of inputs: the plain part of what libFuzzer does, the same on every machine.

/// Longest input that is made.
const BYTES_MAX: usize = 4_096;

/// A generator whose values for a seed never change (splitmix64).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The generator of this seed.
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// The next value.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// Below `bound`, which must not be 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.bits() % bound as u64) as usize
    }

    /// So many bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.bits() as u8).collect()
    }
}

/// `seed` after a few changes; `other` is another input to take pieces from.
pub fn mutate(dice: &mut Dice, seed: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..1 + dice.below(6) {
        change(dice, &mut bytes, other);
    }
    bytes.truncate(BYTES_MAX);
    bytes
}

fn change(dice: &mut Dice, bytes: &mut Vec<u8>, other: &[u8]) {
    /// Numbers at which limits lie.
    const EDGES: [u8; 8] = [0, 1, 2, 0x7f, 0x80, 0xfd, 0xfe, 0xff];
    let place = dice.below(bytes.len() + 1);
    match dice.below(8) {
        0 => {
            if let Some(byte) = bytes.get_mut(place) {
                *byte ^= 1 << dice.below(8);
            }
        }
        1 => {
            if let Some(byte) = bytes.get_mut(place) {
                *byte = EDGES[dice.below(EDGES.len())];
            }
        }
        2 => {
            if let Some(byte) = bytes.get_mut(place) {
                *byte = dice.bits() as u8;
            }
        }
        3 => {
            let length = 1 + dice.below(8);
            let piece = dice.bytes(length);
            bytes.splice(place..place, piece);
        }
        4 => {
            let end = (place + 1 + dice.below(16)).min(bytes.len());
            bytes.drain(place.min(end)..end);
        }
        5 => {
            // A piece of itself, somewhere else.
            let end = (place + 1 + dice.below(64)).min(bytes.len());
            let piece = bytes[place.min(end)..end].to_vec();
            let target = dice.below(bytes.len() + 1);
            bytes.splice(target..target, piece);
        }
        6 if !other.is_empty() => {
            let start = dice.below(other.len());
            let end = (start + 1 + dice.below(128)).min(other.len());
            bytes.splice(place..place, other[start..end].iter().copied());
        }
        6 | 7 => {
            let length = 1 + dice.below(32);
            let piece = dice.bytes(length);
            bytes.truncate(place);
            bytes.extend(piece);
        }
        _ => {}
    }
}
