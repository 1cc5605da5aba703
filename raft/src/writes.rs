//! What was given to the disk and what has come back.

use std::collections::VecDeque;

use crate::types::{HardState, Index, NodeId, Term, Token};

/// A write under way and what its completion proves.
#[derive(Clone, Copy, Debug)]
struct Claim {
    token: Token,
    /// The log is durable up to here once the token is confirmed.
    ///
    /// A completion speaks of the bytes that were written, not of what lies at the index now. Without
    /// lowering the claim on truncation this goes wrong (R13): entries 5 and 6 of term 1 are written
    /// (token 1); a leader of term 2 replaces 5 (token 2); a leader of term 3, which never saw that,
    /// brings back 5 and 6 of term 1 (token 3). Now token 1 comes back. Index 6 has the right term,
    /// yet the disk is about to execute token 2, and a crash after it leaves neither 5 nor 6.
    last: Index,
}

/// The cursor between the core and the disk.
#[derive(Debug)]
pub(crate) struct Writes {
    /// The token of the write that is being put together.
    next: Token,
    /// Newest confirmed token; 0 before the first.
    confirmed: Token,
    /// Oldest first.
    claims: VecDeque<Claim>,
    /// Term and vote as given to the disk last, and in which write.
    promise: (Term, Option<NodeId>),
    promise_token: Token,
    /// End of the log as given to the disk last: entries after it are in the write being put together.
    submitted: Index,
}

impl Writes {
    pub(crate) fn new(hard_state: HardState, last: Index) -> Writes {
        Writes {
            next: Token(1),
            confirmed: Token(0),
            claims: VecDeque::new(),
            promise: (hard_state.term, hard_state.vote),
            promise_token: Token(0),
            submitted: last,
        }
    }

    /// The token of the write that is being put together.
    pub(crate) fn next_token(&self) -> Token {
        self.next
    }

    /// True once the write with this token is durable.
    pub(crate) fn is_durable(&self, token: Token) -> bool {
        token <= self.confirmed
    }

    /// True when every write given out so far is durable.
    pub(crate) fn is_idle(&self) -> bool {
        self.confirmed.0 + 1 == self.next.0
    }

    /// True when this term and vote have been given to the disk.
    pub(crate) fn is_promised(&self, term: Term, vote: Option<NodeId>) -> bool {
        self.promise == (term, vote)
    }

    /// True when this term and vote would survive a crash.
    pub(crate) fn is_promise_durable(&self, term: Term, vote: Option<NodeId>) -> bool {
        self.is_promised(term, vote) && self.is_durable(self.promise_token)
    }

    pub(crate) fn submitted(&self) -> Index {
        self.submitted
    }

    /// The write leaves; the log ends at `last` with it.
    pub(crate) fn submit(&mut self, promise: Option<(Term, Option<NodeId>)>, last: Index) -> Token {
        let token = self.next;
        self.next = Token(token.0 + 1);
        if let Some(promise) = promise {
            self.promise = promise;
            self.promise_token = token;
        }
        self.submitted = last;
        self.claims.push_back(Claim { token, last });
        token
    }

    /// Entries from `from` on are replaced: what is under way no longer proves them.
    pub(crate) fn truncate_from(&mut self, from: Index) {
        for claim in &mut self.claims {
            claim.last = claim.last.min(from.prev());
        }
    }

    /// The end of the log on the disk moved back, in the write that is being put together.
    pub(crate) fn rewind_to(&mut self, last: Index) {
        self.submitted = last;
    }

    /// Everything up to `token` is durable. Gives the index up to which this proves the log.
    pub(crate) fn confirm(&mut self, token: Token) -> Option<Index> {
        assert!(
            token < self.next,
            "write {token} was confirmed and never given out"
        );
        self.confirmed = self.confirmed.max(token);
        let mut proven = None;
        while let Some(claim) = self.claims.front() {
            if claim.token > token {
                break;
            }
            proven = proven.max(Some(claim.last));
            self.claims.pop_front();
        }
        proven
    }
}
