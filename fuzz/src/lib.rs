//! Fuzz targets of rnacos: each takes any bytes and holds a promise against them.
//!
//! A promise is more than "no panic": what is decoded encodes to the same bytes, a flipped bit is found, a
//! recovered log is a prefix of what was written. The promises stand at the head of each module in
//! [`targets`]. The same `check` is driven in three ways:
//!
//! * `cargo test` replays the corpus that is kept in `corpus/` and some thousand seeded mutations of it
//!   ([`replay`]): every change runs that;
//! * `cargo fuzz run TARGET` (libFuzzer; `--cfg fuzzing`) searches for new inputs;
//! * `cargo run --bin TARGET FILE...` runs the files it is given, to look at a finding in a debugger.
//!
//! Everything is a function of the input: no clock, no environment, no random numbers.

pub mod alloc;
pub mod damage;
pub mod input;
pub mod messages;
pub mod mutate;
pub mod replay;
pub mod targets;

/// What is allocated is counted, so that a target can say how much an input may cost.
#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

/// The program of a target: a libFuzzer entry under `--cfg fuzzing`, otherwise one that runs files.
#[macro_export]
macro_rules! target {
    ($name:ident) => {
        #[cfg(fuzzing)]
        libfuzzer_sys::fuzz_target!(|data: &[u8]| rnacos_fuzz::targets::$name::check(data));

        #[cfg(not(fuzzing))]
        fn main() -> std::io::Result<()> {
            rnacos_fuzz::replay::run_files(rnacos_fuzz::targets::$name::check)
        }
    };
}
