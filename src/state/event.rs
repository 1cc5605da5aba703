//! What changed, for those who push it on.

use raft::Index;

use crate::config::Versions;
use crate::model::{ConfigKey, NamespaceId};
use crate::naming::Replicated;

/// A change of the replicated state, handed out in log order after readers can see it.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A client that listens to this config may see something else now.
    ConfigChanged {
        /// The config.
        key: ConfigKey,
        /// The log index of the change. A reader that has applied this index sees the change.
        index: Index,
        /// What there was.
        before: Versions,
        /// What there is. A content or a rule differs from `before`.
        after: Versions,
    },
    /// A namespace was made, renamed or deleted.
    NamespaceChanged {
        /// The namespace.
        id: NamespaceId,
        /// The log index of the change.
        index: Index,
    },
    /// Something that the registry holds is another from now on.
    NamingChanged {
        /// What, and what it is now.
        change: Replicated,
        /// The log index of the change.
        index: Index,
    },
    /// A switch of naming was turned on all nodes.
    NamingSwitched {
        /// Its name.
        name: Box<str>,
        /// What it is from now on.
        value: Box<str>,
        /// The log index of the change.
        index: Index,
    },
    /// The cluster allows the commands of this feature level.
    FeatureLevelRaised {
        /// The level.
        level: u32,
        /// The log index of the change.
        index: Index,
    },
    /// A snapshot took the place of the whole state: anything may have changed.
    Reloaded {
        /// The log index the state now stands at.
        index: Index,
    },
}
