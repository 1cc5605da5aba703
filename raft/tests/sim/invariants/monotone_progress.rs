//! Cursors only rise (Raft paper, figure 2: "increases monotonically"), and nothing is applied that is
//! not durable on the own disk (design, R46: applied ≤ min(commit, own durable)).

use raft::{Entry, Index, Term, Token};

use super::super::disk::Disk;
use super::{Checked, Violation};

/// Cursors of one run of a process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursors {
    term: Term,
    token: Token,
    commit: Index,
}

impl Cursors {
    /// At the start, with the term found on the disk.
    pub(crate) fn starting(term: Term) -> Cursors {
        Cursors {
            term,
            ..Cursors::default()
        }
    }

    /// The core says it is in this term.
    pub(crate) fn term(&mut self, term: Term) -> Checked {
        rises("term", self.term.0, term.0)?;
        self.term = term;
        Ok(())
    }

    /// A write was handed out.
    pub(crate) fn token(&mut self, token: Token) -> Checked {
        rises("token", self.token.0 + 1, token.0)?;
        self.token = token;
        Ok(())
    }

    /// The commit index in the hard state.
    pub(crate) fn commit(&mut self, commit: Index) -> Checked {
        rises("commit", self.commit.0, commit.0)?;
        self.commit = commit;
        Ok(())
    }
}

fn rises(what: &str, from: u64, to: u64) -> Checked {
    if to >= from {
        return Ok(());
    }
    Err(Violation::new(
        "monotone_progress",
        format!("{what} falls from {from} to {to}"),
    ))
}

/// The core gives this entry out to be applied after `previous`.
pub(crate) fn applies(disk: &Disk, previous: Index, entry: &Entry) -> Checked {
    if entry.index() != previous.next() {
        let text = format!("index {} is to be applied after {previous}", entry.index());
        return Err(Violation::new("monotone_progress", text));
    }
    let durable = disk.durable_log().at(entry.index());
    if durable.is_none_or(|at| at.checksum != entry.checksum) {
        let text = format!("{:?} is to be applied, the own disk has {durable:?}", entry.id);
        return Err(Violation::new("monotone_progress", text));
    }
    Ok(())
}
