//! A node raises its term only when a majority would vote for it, or the leader asked it to (thesis §9.6,
//! R34): so a node that hears nobody, or is heard by nobody, cannot drive terms up and unseat a leader.

use raft::{Configuration, Term};

use super::suspects_do_not_count::Grants;
use super::{Checked, Roll, Uid, Violation};

/// The node campaigns in `term`. `asked`: the term that a leader's order to start an election leads to.
pub(crate) fn campaigns(
    roll: &Roll,
    configuration: &Configuration,
    uid: Uid,
    term: Term,
    pre_grants: Grants,
    asked: Option<Term>,
) -> Checked {
    if asked == Some(term) || roll.is_quorum(configuration, pre_grants.of(term) | uid.bit()) {
        return Ok(());
    }
    let text = format!(
        "member #{} campaigns in term {term} with the pre-votes {:#b}",
        uid.0,
        pre_grants.of(term)
    );
    Err(Violation::new("bounded_terms", text))
}
