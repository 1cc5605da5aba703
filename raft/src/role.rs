//! The role a node plays, with the data that only this role has.

use crate::candidate::Candidate;
use crate::follower::Follower;
use crate::leader::Leader;

/// What a node is just now.
#[derive(Debug)]
pub(crate) enum Role {
    /// Follows a leader or waits for one; also every learner.
    Follower(Follower),
    /// Asks for votes, or whether it would get them.
    Candidate(Candidate),
    /// Leads. Boxed: it is much larger than the others.
    Leader(Box<Leader>),
}

/// Counts towards an election.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timer {
    /// Ticks since it was wound up.
    pub(crate) elapsed: u32,
    /// Ticks at which it rings.
    pub(crate) timeout: u32,
}

impl Timer {
    pub(crate) fn new(timeout: u32) -> Timer {
        Timer { elapsed: 0, timeout }
    }

    /// One tick later; true when it rings.
    pub(crate) fn tick(&mut self) -> bool {
        self.elapsed = self.elapsed.saturating_add(1);
        self.elapsed >= self.timeout
    }
}
