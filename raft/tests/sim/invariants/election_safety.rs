//! Election Safety (Raft paper, figure 3; §5.2): at most one leader per term.

use raft::Term;

use super::{Checked, Uid, Violation, WordMap};

#[derive(Debug, Default)]
pub(crate) struct ElectionSafety {
    leaders: WordMap<u64, Uid>,
}

impl ElectionSafety {
    /// A node leads in a term, or speaks as if it did.
    pub(crate) fn leads(&mut self, uid: Uid, term: Term) -> Checked {
        let leader = *self.leaders.entry(term.0).or_insert(uid);
        if leader != uid {
            let text = format!(
                "term {term} has two leaders: member #{} and member #{}",
                leader.0, uid.0
            );
            return Err(Violation::new("election_safety", text));
        }
        Ok(())
    }
}
