//! What must hold after every step, one property per file, each with its source. They share nothing but
//! the names of members ([`Uid`]) and the way to fail ([`Violation`]).

pub(crate) mod acknowledged_writes;
pub(crate) mod bounded_terms;
pub(crate) mod configuration_safety;
pub(crate) mod definite_refusals;
pub(crate) mod durable_promises;
pub(crate) mod election_safety;
pub(crate) mod exactly_once;
pub(crate) mod justified_suspicion;
pub(crate) mod leader_completeness;
pub(crate) mod linearizable_reads;
pub(crate) mod log_matching;
pub(crate) mod monotone_progress;
pub(crate) mod quorum_durability;
pub(crate) mod state_machine_safety;
pub(crate) mod suspects_do_not_count;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use raft::{Configuration, Incarnation, Member, NodeId};

/// A property does not hold.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    /// Name of the property.
    pub(crate) invariant: &'static str,
    /// What was seen.
    pub(crate) text: String,
}

impl Violation {
    pub(crate) fn new(invariant: &'static str, text: String) -> Violation {
        Violation { invariant, text }
    }
}

/// Nothing wrong, or the first thing that is.
pub(crate) type Checked = Result<(), Violation>;

/// A member of one incarnation, numbered so that sets of them are bits of a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Uid(pub(crate) u8);

impl Uid {
    pub(crate) fn bit(self) -> u64 {
        1 << self.0
    }
}

/// Members ever seen; at most 64, a world draws fewer.
#[derive(Debug, Default)]
pub(crate) struct Roll(Vec<(NodeId, Incarnation)>);

impl Roll {
    /// The number of a member, given at the first call.
    pub(crate) fn uid(&mut self, id: NodeId, incarnation: Incarnation) -> Uid {
        let known = self.0.iter().position(|entry| *entry == (id, incarnation));
        let at = known.unwrap_or_else(|| {
            self.0.push((id, incarnation));
            self.0.len() - 1
        });
        assert!(at < 64, "more than 64 incarnations in one world");
        Uid(at as u8)
    }

    /// True when the member is in the set of bits.
    pub(crate) fn is_in(&self, member: &Member, set: u64) -> bool {
        let at = self
            .0
            .iter()
            .position(|entry| *entry == (member.id, member.incarnation));
        at.is_some_and(|at| set & (1 << at) != 0)
    }

    /// True when the set holds a majority of the voters, of both sets while joint.
    pub(crate) fn is_quorum(&self, configuration: &Configuration, set: u64) -> bool {
        is_quorum(configuration, |member| self.is_in(member, set))
    }
}

/// Majority of the voters, of both sets while joint (thesis §4.3). Naive on purpose.
pub(crate) fn is_quorum(configuration: &Configuration, mut holds: impl FnMut(&Member) -> bool) -> bool {
    let mut majority = |voters: &std::collections::BTreeSet<NodeId>| {
        let count = voters
            .iter()
            .filter(|id| configuration.members.get(id).is_some_and(&mut holds))
            .count();
        count > voters.len() / 2
    };
    majority(&configuration.voters)
        && (configuration.outgoing.is_empty() || majority(&configuration.outgoing))
}

/// Hashes one word; the maps here have keys of ours, not of an attacker.
#[derive(Default)]
pub(crate) struct WordHasher(u64);

impl Hasher for WordHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517C_C1B7_2722_0A95);
        self.0 ^= self.0 >> 32;
    }
}

/// A map that is only looked into, never walked: its order is no input of a run.
pub(crate) type WordMap<K, V> = HashMap<K, V, BuildHasherDefault<WordHasher>>;
