//! Many seeds on all cores: counts, the first failure, and how to see it again.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, Once};
use std::time::Instant;

use super::counters::Counters;
use super::invariants::{Checked, Violation};
use super::world::{Wish, World};

/// What to run.
pub(crate) struct Batch {
    pub(crate) first: u64,
    pub(crate) seeds: u64,
    pub(crate) steps: u64,
}

/// One seed's run.
pub(crate) struct Outcome {
    pub(crate) counters: Counters,
    pub(crate) result: Checked,
}

/// A number from the environment.
pub(crate) fn env_number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is not a number")),
    )
}

/// Runs one seed through both phases. A panic of the core or the simulator is a failure like any other.
pub(crate) fn run_seed(seed: u64, steps: u64, wish: Wish) -> Outcome {
    let mut counters = Counters::default();
    let run = AssertUnwindSafe(|| {
        let mut world = World::new(seed, wish)?;
        let result = world.run(steps);
        counters = world.counters.clone();
        result
    });
    let result = catch_unwind(run).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_default();
        Err(Violation::new("assertion", text))
    });
    Outcome { counters, result }
}

impl World {
    /// Faults for so many steps, then none.
    fn run(&mut self, steps: u64) -> Checked {
        while self.counters.steps < steps {
            self.advance()?;
        }
        self.heal()
    }
}

/// Results of a batch.
struct Summary {
    counters: Counters,
    seeds: u64,
    /// Failures, in the order in which they were seen.
    failures: Vec<(u64, Violation)>,
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Panics of this thread are findings of a bug that was put there, not something to read.
fn be_quiet(quiet: bool) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                print(panic);
            }
        }));
    });
    QUIET.set(quiet);
}

fn run(batch: &Batch, wish: Wish) -> Summary {
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let summary = Mutex::new(Summary {
        counters: Counters::default(),
        seeds: 0,
        failures: Vec::new(),
    });
    let failures_max = env_number("SIM_FAILURES").unwrap_or(1) as usize;
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                be_quiet(wish.sim_bug.is_some() || wish.core_bug.is_some());
                while !stop.load(Ordering::Relaxed) {
                    let offset = next.fetch_add(1, Ordering::Relaxed);
                    if offset >= batch.seeds {
                        return;
                    }
                    let seed = batch.first.wrapping_add(offset);
                    let outcome = run_seed(seed, batch.steps, wish);
                    let mut summary = summary.lock().expect("no run panics while it holds this");
                    summary.seeds += 1;
                    summary.counters.add(&outcome.counters);
                    if let Err(violation) = outcome.result {
                        summary.failures.push((seed, violation));
                        if summary.failures.len() >= failures_max {
                            stop.store(true, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    summary.into_inner().expect("all threads have ended")
}

/// Runs a batch that must pass, and prints its figures.
pub(crate) fn demand(name: &str, batch: &Batch) {
    let start = Instant::now();
    let summary = run(batch, Wish::default());
    let seconds = start.elapsed().as_secs_f64();
    let steps = summary.counters.steps;
    eprintln!(
        "sim, {name} seeds from {}: {} seeds, {steps} steps, {seconds:.1} s, {:.0} steps/s",
        batch.first,
        summary.seeds,
        steps as f64 / seconds
    );
    for (counter, count) in summary.counters.rows() {
        eprintln!("    {counter:<32} {count}");
    }
    for (seed, violation) in &summary.failures {
        eprintln!(
            "seed {seed} fails: {}: {}\nagain with SIM_SEED={seed} SIM_STEPS={} SIM_TRACE=1 cargo test -p raft --test sim one_seed",
            violation.invariant, violation.text, batch.steps
        );
    }
    assert!(
        summary.failures.is_empty(),
        "{} of {} seeds fail",
        summary.failures.len(),
        summary.seeds
    );
    let never: Vec<_> = summary
        .counters
        .rows()
        .into_iter()
        .filter(|(_, count)| *count == 0)
        .collect();
    assert!(
        never.is_empty() || batch.seeds < 200,
        "the batch is void, these never happened: {never:?}"
    );
}

/// Runs a batch with a bug: it must fail.
pub(crate) fn demand_found(name: &str, wish: Wish, seeds: u64, steps: u64) {
    // Panics of the core are findings here, not something to read.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let summary = run(
        &Batch {
            first: 0,
            seeds,
            steps,
        },
        wish,
    );
    std::panic::set_hook(hook);
    match summary.failures.into_iter().next() {
        Some((seed, violation)) => {
            let text: String = violation.text.chars().take(90).collect();
            eprintln!(
                "{name:<22} after {:>4} seeds (seed {seed}) by {}: {text}",
                summary.seeds, violation.invariant
            );
        }
        None => panic!("the simulator does not find {name} within {seeds} seeds"),
    }
}
