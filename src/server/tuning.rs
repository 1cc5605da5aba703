//! Limits inside the server that no operator has a reason to set.

/// What a server keeps and how often it tidies up. Not a setting: the defaults are part of what is proved
/// and measured. Tests make them small, so that what takes gigabytes in life happens within a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// The core's times and limits.
    pub raft: raft::Config,
    /// Feature levels this server knows go up to this; tests of rolling upgrades play other versions.
    /// Default: [`crate::state::FEATURE_LEVEL_MAX`].
    pub feature_level: u32,
    /// Applied bytes after which the state is synced and the log cut. Default 16 MiB.
    pub compact_every_bytes: usize,
}

impl Default for Tuning {
    fn default() -> Tuning {
        Tuning {
            raft: raft::Config::default(),
            feature_level: crate::state::FEATURE_LEVEL_MAX,
            compact_every_bytes: 16 << 20,
        }
    }
}
