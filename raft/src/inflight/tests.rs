//! The windows against plain lists.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::{Inflight, Sizes};
use crate::types::Index;

#[test]
fn inflight_counts_like_a_list() {
    for seed in 0..200 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut inflight = Inflight::default();
        let mut model: Vec<(u64, usize)> = Vec::new();
        let mut last = 0;
        for _ in 0..200 {
            if rng.next_u32() % 3 > 0 {
                last += 1 + u64::from(rng.next_u32() % 4);
                let bytes = rng.next_u32() as usize % 100;
                inflight.push(Index(last), bytes);
                model.push((last, bytes));
            } else {
                let to = u64::from(rng.next_u32()) % (last + 2);
                inflight.free_to(Index(to));
                model.retain(|append| append.0 > to);
            }
            let bytes: usize = model.iter().map(|append| append.1).sum();
            assert_eq!(
                (inflight.count(), inflight.bytes()),
                (model.len(), bytes),
                "seed {seed}"
            );
            let is_full = !model.is_empty() && (model.len() >= 5 || bytes >= 150);
            assert_eq!(inflight.is_full(5, 150), is_full, "seed {seed}");
        }
    }
}

#[test]
fn an_empty_window_lets_anything_through() {
    let mut inflight = Inflight::default();
    assert!(!inflight.is_full(0, 0));
    inflight.push(Index(1), 1 << 30);
    assert!(inflight.is_full(256, 1 << 20));
    inflight.free_to(Index(1));
    assert!(!inflight.is_full(256, 1 << 20));
}

#[test]
fn sizes_count_like_a_list() {
    for seed in 0..200 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut sizes = Sizes::default();
        let mut model: Vec<(u64, usize)> = Vec::new();
        let mut last = 0;
        for _ in 0..200 {
            match rng.next_u32() % 4 {
                0 | 1 => {
                    last += 1;
                    let bytes = rng.next_u32() as usize % 100;
                    sizes.push(Index(last), bytes);
                    model.push((last, bytes));
                }
                2 => {
                    let to = u64::from(rng.next_u32()) % (last + 2);
                    sizes.free_to(Index(to));
                    model.retain(|size| size.0 > to);
                }
                _ if rng.next_u32() % 8 == 0 => {
                    sizes.clear();
                    model.clear();
                }
                _ => {}
            }
            let bytes: usize = model.iter().map(|size| size.1).sum();
            assert_eq!(
                (sizes.bytes(), sizes.is_empty()),
                (bytes, model.is_empty()),
                "seed {seed}"
            );
        }
    }
}
