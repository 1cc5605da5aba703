//! Whole clusters of the core in virtual time, from a seed: first everything breaks, then nothing does,
//! and all must be well again. See `sim/invariants` for what is checked after every step, `sim/plan.rs`
//! for what a seed decides, `sim/heal.rs` for the second phase.
//!
//! ```text
//! cargo test -p raft --test sim                                    what CI runs
//! SIM_SEED=17 SIM_TRACE=1 cargo test -p raft --test sim one_seed   one seed, every event on stderr
//! SIM_SEEDS=100000 SIM_STEPS=5000 cargo test -p raft --test sim fresh_seeds -- --nocapture
//!                                                                  a long run over fresh seeds
//! SIM_FAILURES=10 ...                                              goes on until so many seeds have failed
//! cargo test -p raft --test sim --features seeded-bugs seeded      the simulator finds its seeded bugs
//! ```
//!
//! A *step* is a delivered message, a disk completion, a client operation or a fault; idle ticks do not
//! count. A batch in which one of the counted events never happened is void and fails.

mod sim {
    pub(crate) mod batch;
    pub(crate) mod bug;
    pub(crate) mod counters;
    pub(crate) mod dice;
    pub(crate) mod disk;
    mod drive;
    mod faults;
    mod heal;
    pub(crate) mod invariants;
    mod machine;
    mod network;
    mod node;
    mod oracle;
    mod plan;
    mod workload;
    pub(crate) mod world;
}

use sim::batch::{self, Batch, env_number};
use sim::world::Wish;

/// Steps of a seed before it heals.
const STEPS: u64 = 5_000;

/// Seeds that are the same in every run of CI, and those that are new.
const FIXED_SEEDS: u64 = 2_000;
const FRESH_SEEDS: u64 = 600;

#[test]
fn fixed_seeds() {
    if std::env::var("SIM_SEED").is_ok() || std::env::var("SIM_SEEDS").is_ok() {
        return;
    }
    let batch = Batch {
        first: 0,
        seeds: FIXED_SEEDS,
        steps: env_number("SIM_STEPS").unwrap_or(STEPS),
    };
    batch::demand("fixed", &batch);
}

#[test]
fn fresh_seeds() {
    if std::env::var("SIM_SEED").is_ok() {
        return;
    }
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let first = since_epoch.expect("a clock after 1970").as_nanos() as u64;
    let seeds = env_number("SIM_SEEDS").unwrap_or(FRESH_SEEDS);
    let batch = Batch {
        first,
        seeds,
        steps: env_number("SIM_STEPS").unwrap_or(STEPS),
    };
    batch::demand("fresh", &batch);
}

#[test]
fn one_seed() {
    let seed = env_number("SIM_SEED").unwrap_or(1);
    let steps = env_number("SIM_STEPS").unwrap_or(STEPS);
    let trace = std::env::var("SIM_TRACE").is_ok();
    let outcome = batch::run_seed(
        seed,
        steps,
        Wish {
            trace,
            ..Wish::default()
        },
    );
    if let Err(violation) = outcome.result {
        panic!("seed {seed}: {}: {}", violation.invariant, violation.text);
    }
    // The same seed is the same run.
    let again = batch::run_seed(seed, steps, Wish::default());
    assert_eq!(format!("{:?}", outcome.counters), format!("{:?}", again.counters));
}

/// Each bug put into the simulated storage, state machine or runtime is found within CI's fixed seeds.
#[test]
fn seeded_bugs_around_the_core_are_found() {
    for bug in sim::bug::SimBug::ALL {
        batch::demand_found(
            &format!("{bug:?}"),
            Wish {
                sim_bug: Some(bug),
                ..Wish::default()
            },
            FIXED_SEEDS,
            STEPS,
        );
    }
}

/// The same for the bugs inside the core.
#[cfg(feature = "seeded-bugs")]
#[test]
fn seeded_bugs_of_the_core_are_found() {
    for bug in raft::Bug::ALL {
        batch::demand_found(
            &format!("{bug:?}"),
            Wish {
                core_bug: Some(bug),
                ..Wish::default()
            },
            FIXED_SEEDS,
            STEPS,
        );
    }
}
