//! Leader Completeness (Raft paper, figure 3; §5.4): an entry committed in a term is in the log of every
//! leader of a later term. With it goes R3 (paper, figure 8): a leader's first commit is an entry of its
//! own term.

use raft::{Index, LogBase, Term};

use super::state_machine_safety::History;
use super::{Checked, Violation};

/// A node has become leader of `term`; `held(index)` tells what its log (with its base) has there and
/// `base` what is only in its state.
pub(crate) fn check(
    history: &History,
    term: Term,
    base: Index,
    held: impl FnOnce(Index) -> Option<LogBase>,
) -> Checked {
    // Newest entry known to be committed before this term. Terms of observation never fall with the
    // index by more than what is in flight, so looking back a little is enough.
    let mut index = history.last();
    while index.0 > 0
        && history
            .get(index)
            .is_some_and(|committed| committed.seen_in >= term)
    {
        index = index.prev();
    }
    let Some(committed) = history.get(index) else {
        return Ok(());
    };
    if index < base || held(index) == Some(committed.at) {
        return Ok(());
    }
    let text = format!(
        "the leader of term {term} lacks {:?}, committed in term {}",
        committed.at.id, committed.seen_in
    );
    Err(Violation::new("leader_completeness", text))
}

/// A leader has committed something for the first time: `entry_term` is the term of the newest.
pub(crate) fn first_commit(term: Term, entry_term: Term) -> Checked {
    if entry_term == term {
        return Ok(());
    }
    let text = format!("the leader of term {term} commits an entry of term {entry_term} by counting");
    Err(Violation::new("leader_completeness", text))
}
