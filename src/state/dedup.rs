//! Sessions and operation ids: whatever is proposed twice under one id is applied once.
//!
//! A proposer may lose sight of a proposal: the leader it was forwarded to fell silent. It sends it
//! again, and both copies may end up in the log. The state therefore remembers, per node, its current
//! session, which of the session's operations were applied, and with what outcome.
//!
//! It need not remember for ever:
//! - Each command carries the proposer's *low watermark*: operations below it are answered and never sent
//!   again. Their outcomes are forgotten, and a late copy of one is *not applied*.
//! - At most [`WINDOW`] counters are remembered in any case (the proposer has fewer in flight).
//! - A new start of a node opens a new session, which closes the one before it: its operations are never
//!   applied from then on. Copies that were under way across the restart can do no harm (hazard R48).
//! - Removing a member closes its session.
//!
//! What is refused like that is answered *unknown*: an earlier copy may have been applied.
//!
//! All of it lies in two tables, written in the batch of the commands themselves. Outcomes are stored in
//! blocks of [`BLOCK`] counters: one row per block instead of one per operation, and what a block holds
//! depends on the session alone, not on how the log was cut into batches.

use std::collections::{BTreeMap, BTreeSet};

use raft::{Boot, Configuration, Incarnation, NodeId};

use super::outcome::Outcome;
use crate::model::OperationId;
use crate::seeded::{self, Bug};

/// Counters of a session whose outcomes are remembered at most.
pub const WINDOW: u64 = 65_536;

/// Counters whose outcomes share a row.
pub(super) const BLOCK: u64 = 64;

/// What is to be done with a command, by its operation id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Never seen: apply it, then [`Sessions::record`] its outcome.
    Fresh,
    /// Applied before, with this outcome: not again.
    Repeated(Outcome),
    /// Not applied, and perhaps never: [`Outcome::Unknown`].
    Unknown,
}

/// The newest session of every node that ever opened one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sessions {
    nodes: BTreeMap<NodeId, Session>,
    /// What differs from the tables since [`Sessions::take_changes`].
    changes: Changes,
}

/// One session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) incarnation: Incarnation,
    pub(super) boot: Boot,
    /// The node was removed: nothing of this session is applied any more. Kept, so that a late copy of
    /// its open cannot revive it.
    pub(super) closed: bool,
    /// Operations below are never applied. At least 1: counter 0 names the session.
    pub(super) low_watermark: u64,
    /// Applied operations from the watermark on, and their outcomes.
    pub(super) outcomes: BTreeMap<u64, Outcome>,
}

/// Rows to be written again, from what the sessions then hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Rows of sessions.
    pub(super) sessions: BTreeSet<NodeId>,
    /// Rows of outcomes: node and block.
    pub(super) blocks: BTreeSet<(NodeId, u64)>,
}

impl Sessions {
    /// Takes in a session as it was stored.
    pub(super) fn restore(&mut self, node: NodeId, session: Session) {
        self.nodes.insert(node, session);
    }

    /// Takes in an outcome as it was stored; its session was restored before. False when it was not.
    pub(super) fn restore_outcome(&mut self, node: NodeId, counter: u64, outcome: Outcome) -> bool {
        let session = self.nodes.get_mut(&node);
        session.is_some_and(|session| session.outcomes.insert(counter, outcome).is_none())
    }

    /// The newest session of a node.
    pub(super) fn get(&self, node: NodeId) -> Option<&Session> {
        self.nodes.get(&node)
    }

    /// Nodes with a session, closed or not.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Opens the session of this operation if it is newer than the node's present one, which it then
    /// closes. Anything else changes nothing: a repeated open is already open, an older one stays closed.
    ///
    /// `members` is the membership in force; a node that is not in it with this incarnation opens
    /// nothing, or a late copy would give a removed node a session again.
    pub(super) fn open(&mut self, operation: OperationId, members: Option<&Configuration>) {
        let OperationId {
            node,
            incarnation,
            boot,
            ..
        } = operation;
        let is_member = members.is_none_or(|members| {
            members
                .members
                .get(&node)
                .is_some_and(|member| member.incarnation == incarnation)
        });
        let is_newer = self.nodes.get(&node).is_none_or(|present| {
            if present.incarnation == incarnation {
                boot > present.boot
            } else {
                // Incarnations are drawn at random and have no order among themselves; the log gives
                // them one: another incarnation becomes a member only after the earlier one's removal.
                present.closed || incarnation > present.incarnation
            }
        });
        if is_member && is_newer {
            self.forget_outcomes(node);
            let outcomes = BTreeMap::new();
            self.nodes.insert(
                node,
                Session {
                    incarnation,
                    boot,
                    closed: false,
                    low_watermark: 1,
                    outcomes,
                },
            );
            self.changes.sessions.insert(node);
        }
    }

    /// Closes the sessions of all nodes that are not members any more.
    pub(super) fn close_strangers(&mut self, members: &Configuration) {
        let is_stranger = |node: &NodeId, session: &Session| {
            let member = members.members.get(node);
            !session.closed && member.is_none_or(|member| member.incarnation != session.incarnation)
        };
        let strangers: Vec<NodeId> = self
            .nodes
            .iter()
            .filter(|(node, session)| is_stranger(node, session))
            .map(|(node, _)| *node)
            .collect();
        for node in strangers {
            self.forget_outcomes(node);
            if let Some(session) = self.nodes.get_mut(&node) {
                session.closed = true;
            }
            self.changes.sessions.insert(node);
        }
    }

    /// Says what to do with an operation, and notes the watermark it carries.
    pub(super) fn check(&mut self, operation: OperationId, low_watermark: u64) -> Verdict {
        let Some(session) = self.nodes.get_mut(&operation.node) else {
            return Verdict::Unknown;
        };
        let current = (session.incarnation, session.boot) == (operation.incarnation, operation.boot);
        if !current || session.closed {
            return Verdict::Unknown;
        }
        // A watermark above the operation itself contradicts it; the window moves with the newest one.
        let counter = operation.counter;
        let window_start = counter.saturating_sub(WINDOW - 1);
        let low_watermark = low_watermark.min(counter).max(window_start);
        self.raise_watermark(operation.node, low_watermark);
        let Some(session) = self.nodes.get(&operation.node) else {
            return Verdict::Unknown;
        };
        if counter < session.low_watermark {
            return Verdict::Unknown;
        }
        match session.outcomes.get(&counter) {
            Some(outcome) if !seeded::has(Bug::DoubleApply) => Verdict::Repeated(*outcome),
            Some(_) | None => Verdict::Fresh,
        }
    }

    /// Remembers the outcome of an operation that was fresh.
    pub(super) fn record(&mut self, operation: OperationId, outcome: Outcome) {
        let Some(session) = self.nodes.get_mut(&operation.node) else {
            return;
        };
        let before = session.outcomes.insert(operation.counter, outcome);
        assert!(
            before.is_none() || seeded::has(Bug::DoubleApply),
            "operation {operation:?} was applied twice"
        );
        self.changes
            .blocks
            .insert((operation.node, operation.counter / BLOCK));
    }

    /// What must be written to make the tables equal to this.
    pub(super) fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    fn raise_watermark(&mut self, node: NodeId, low_watermark: u64) {
        let Some(session) = self.nodes.get_mut(&node) else {
            return;
        };
        if low_watermark <= session.low_watermark {
            return;
        }
        let kept = session.outcomes.split_off(&low_watermark);
        for counter in session.outcomes.keys() {
            self.changes.blocks.insert((node, counter / BLOCK));
        }
        session.outcomes = kept;
        session.low_watermark = low_watermark;
        self.changes.sessions.insert(node);
    }

    fn forget_outcomes(&mut self, node: NodeId) {
        let Some(session) = self.nodes.get_mut(&node) else {
            return;
        };
        for counter in std::mem::take(&mut session.outcomes).into_keys() {
            self.changes.blocks.insert((node, counter / BLOCK));
        }
    }
}

impl Session {
    /// The outcomes of one block.
    pub(super) fn block(&self, block: u64) -> impl Iterator<Item = (u64, Outcome)> {
        let first = block * BLOCK;
        self.outcomes
            .range(first..=first + (BLOCK - 1))
            .map(|(counter, outcome)| (*counter, *outcome))
    }
}

#[cfg(test)]
mod tests;
