//! Runs targets without libFuzzer: the corpus, seeded mutations of it, and single files.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::panic::{self, AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::Once;

use crate::mutate::{Dice, mutate};
use crate::targets::Target;

/// Where the inputs of a target are kept.
pub fn corpus_folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name)
}

/// The kept inputs of a target by name, in the order of their names.
///
/// # Errors
/// The folder or one of its files cannot be read.
pub fn corpus(name: &str) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut inputs = Vec::new();
    for entry in fs::read_dir(corpus_folder(name))? {
        let path = entry?.path();
        let file = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        inputs.push((file, fs::read(&path)?));
    }
    inputs.sort();
    Ok(inputs)
}

/// Runs the corpus of a target, then its mutations: `FUZZ_ROUNDS` of them (default: the target's own
/// number) from the seed `FUZZ_SEED` (default 1). The same numbers are the same inputs, on every machine.
///
/// # Panics
/// When a promise is broken; the input is printed before.
pub fn run(target: &Target) {
    let inputs = corpus(target.name).expect("the corpus can be read");
    assert!(!inputs.is_empty(), "{} has no corpus", target.name);
    for (name, data) in &inputs {
        guarded(target, &format!("corpus/{}/{name}", target.name), data);
    }
    let seed = number_from("FUZZ_SEED").unwrap_or(1);
    let rounds = number_from("FUZZ_ROUNDS").unwrap_or(target.rounds);
    for round in 0..rounds {
        let mut dice = Dice::new(seed.wrapping_mul(1 << 32).wrapping_add(round));
        let (_, first) = &inputs[dice.below(inputs.len())];
        let (_, other) = &inputs[dice.below(inputs.len())];
        let data = mutate(&mut dice, first, other);
        guarded(target, &format!("FUZZ_SEED={seed} round {round}"), &data);
    }
}

/// Runs the files named on the command line.
///
/// # Errors
/// A file that cannot be read.
pub fn run_files(check: fn(&[u8])) -> io::Result<()> {
    for path in std::env::args_os().skip(1) {
        check(&fs::read(path)?);
    }
    Ok(())
}

fn guarded(target: &Target, origin: &str, data: &[u8]) {
    tell_before_an_abort();
    RUNNING.with_borrow_mut(|running| *running = describe(target, origin, data));
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.check)(data)));
    let description = RUNNING.take();
    if let Err(panic) = outcome {
        eprintln!("{description}");
        resume_unwind(panic);
    }
}

thread_local! {
    /// What this thread is trying; empty between two inputs.
    static RUNNING: RefCell<String> = const { RefCell::new(String::new()) };
}

fn describe(target: &Target, origin: &str, data: &[u8]) -> String {
    let mut text = format!(
        "{} breaks its promise on {origin}; as `xxd -r -p` reads it:\n",
        target.name
    );
    for byte in data {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A panic within a panic ends the process at once, so nobody catches it: the input is told by the hook.
fn tell_before_an_abort() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            usual(info);
            let is_final = info
                .location()
                .is_some_and(|place| place.file().ends_with("core/src/panicking.rs"));
            if is_final {
                RUNNING.with_borrow(|running| eprintln!("{running}"));
            }
        }));
    });
}

fn number_from(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
