//! The targets, one module each: the promise, the check, and the inputs that it starts from.

pub mod cluster_frame;
pub mod command;
pub mod grpc_payload;
pub mod log_codec;
pub mod mark;
pub mod names;
pub mod naming_frame;
pub mod raft_steps;
pub mod scanner;
pub mod settings;
pub mod snapshot_stream;
pub mod wal_recovery;

/// A target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: that of the module, the program and the folder of its corpus.
    pub name: &'static str,
    /// Holds the promise against any bytes; panics when it is broken.
    pub check: fn(&[u8]),
    /// Inputs that reach the interesting places, by name: what a search starts from.
    pub seeds: fn() -> Vec<(String, Vec<u8>)>,
    /// Mutations that a replay runs: a second or two of work in a debug build.
    pub rounds: u64,
}

macro_rules! targets {
    ($($name:ident $rounds:literal,)*) => {
        /// All of them.
        pub const TARGETS: &[Target] = &[$(Target {
            name: stringify!($name),
            check: $name::check,
            seeds: $name::seeds,
            rounds: $rounds,
        }),*];

        #[cfg(test)]
        mod replay {
            $(#[test]
            fn $name() {
                let name = stringify!($name);
                let target = super::TARGETS.iter().find(|target| target.name == name);
                crate::replay::run(target.expect("a target"));
            })*
        }
    };
}

targets! {
    cluster_frame 4_000,
    command 6_000,
    grpc_payload 2_000,
    log_codec 6_000,
    mark 6_000,
    names 6_000,
    naming_frame 20_000,
    raft_steps 4_000,
    scanner 4_000,
    settings 500,
    snapshot_stream 4_000,
    wal_recovery 150,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A corpus that grows without bound is no longer read by anybody.
    #[test]
    fn the_corpus_is_small_and_holds_every_seed() {
        let mut bytes = 0;
        let mut files = 0;
        for target in TARGETS {
            let kept = crate::replay::corpus(target.name).expect("a corpus");
            files += kept.len();
            bytes += kept.iter().map(|(_, data)| data.len()).sum::<usize>();
            for (name, data) in (target.seeds)() {
                let found = kept.iter().find(|(kept, _)| *kept == name);
                let is_same = found.is_some_and(|(_, kept)| *kept == data);
                assert!(
                    is_same,
                    "{}/{name} is old: cargo run --bin seeds writes it anew",
                    target.name
                );
            }
        }
        assert!(files <= 500, "{files} files");
        assert!(bytes <= 1 << 20, "{bytes} bytes");
    }
}
