//! The only source of chance: one value-stable generator per world, so that a seed means the same for
//! ever and on every machine.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A seeded generator with the few draws the simulator needs.
pub(crate) struct Dice(ChaCha8Rng);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Any value.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Below `bound`, which must not be 0. The bias of the modulo is far below what any rate here means.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0.next_u64() % bound
    }

    /// From `low` to `high`, both included.
    pub(crate) fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// The same for sizes.
    pub(crate) fn size(&mut self, low: usize, high: usize) -> usize {
        self.range(low as u64, high as u64) as usize
    }

    /// True in `ppm` of a million draws.
    pub(crate) fn chance_ppm(&mut self, ppm: u32) -> bool {
        ppm != 0 && self.below(1_000_000) < u64::from(ppm)
    }

    /// True once in `n`.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of the values.
    pub(crate) fn pick<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len() as u64) as usize]
    }

    /// A waiting time around `mean`: mostly shorter, now and then four times as long.
    pub(crate) fn around(&mut self, mean: u64) -> u64 {
        let spread = if self.one_in(8) { 4 * mean } else { mean + mean / 2 };
        1 + self.below(spread.max(1))
    }
}
