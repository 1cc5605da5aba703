//! Runs targets without libFuzzer: the corpus, seeded mutations of it, and single files.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

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
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.check)(data)));
    if let Err(panic) = outcome {
        let mut hex = String::with_capacity(2 * data.len());
        for byte in data {
            let _ = write!(hex, "{byte:02x}");
        }
        eprintln!(
            "{} breaks its promise on {origin}; as `xxd -r -p` reads it:\n{hex}",
            target.name
        );
        resume_unwind(panic);
    }
}

fn number_from(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
