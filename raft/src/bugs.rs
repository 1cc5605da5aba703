//! Mistakes put in on purpose (feature `seeded-bugs`), one guard disabled each.
//!
//! A simulator is trusted only while it still finds each of them. Without the feature there is
//! nowhere to set one, and every check for it is a constant `false`.

/// A guard to switch off; named after the hazard of the design that it guards against.
///
/// Hazards whose guard does not live in the core (R17, R50, R52 and the mark file's part of R44) are
/// seeded in the simulated disk and state machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bug {
    /// Votes, vote requests and the own vote count before they are durable.
    R1,
    /// A follower acknowledges, and a leader counts itself, before the sync.
    R2,
    /// Entries of older terms are committed by counting replicas (paper, figure 8).
    R3,
    /// Reads and membership changes pass before the no-op of the term is committed.
    R4,
    /// Membership changes overlap: a second one starts before the first is committed.
    R5,
    /// A membership is not rolled back when its entry is truncated.
    R5Rollback,
    /// A learner refuses to vote although the candidate counts it.
    R6,
    /// A node of a higher term says nothing to a leader of a lower one: stuck for ever (pre-vote with
    /// check-quorum).
    R7,
    /// A leader serves reads without asking a quorum whether it still leads.
    R9,
    /// Any append truncates what follows it, also an old duplicate.
    R12,
    /// A completion counts for whatever lies at its index now, not for what was written then (ABA).
    R13,
    /// A lost append is not repaired: heartbeat replies do not wake a stalled replication.
    R14,
    /// The log is restarted at the first piece of a snapshot, before the file is complete.
    R15,
    /// After a restart the state machine is fed from the base of the log again.
    R16,
    /// Replies of another incarnation of a node count as the member's own.
    R30,
    /// A suspicion is lifted at the first acknowledgement.
    R43,
    /// A peer that became suspect keeps the match it had before.
    R44,
    /// A node applies what is committed but not durable on it.
    R46,
    /// The suspicion found on the disk is forgotten at the start.
    R51,
}

impl Bug {
    /// Every bug, in the order of the hazards.
    pub const ALL: [Bug; 19] = [
        Bug::R1,
        Bug::R2,
        Bug::R3,
        Bug::R4,
        Bug::R5,
        Bug::R5Rollback,
        Bug::R6,
        Bug::R7,
        Bug::R9,
        Bug::R12,
        Bug::R13,
        Bug::R14,
        Bug::R15,
        Bug::R16,
        Bug::R30,
        Bug::R43,
        Bug::R44,
        Bug::R46,
        Bug::R51,
    ];
}
