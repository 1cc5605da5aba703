//! An operation takes effect once, however often it was sent (R16, R17), and an operation that was
//! answered as done has taken effect (R48; thesis §6.3).

use raft::Index;

use super::super::machine::Outcome;
use super::{Checked, Violation, WordMap};

#[derive(Debug, Default)]
pub(crate) struct ExactlyOnce {
    /// Where each write of a client took effect, by its stamp.
    effects: WordMap<u64, Index>,
}

impl ExactlyOnce {
    /// The first application of an index had this outcome; later ones are the same by
    /// [`super::state_machine_safety`].
    pub(crate) fn applied(&mut self, index: Index, outcome: Outcome) -> Checked {
        let Outcome::Written { op, stamp, .. } = outcome else {
            return Ok(());
        };
        match self.effects.insert(stamp, index) {
            None => Ok(()),
            Some(first) => {
                let text = format!("{op:?} (write {stamp}) took effect at {first} and again at {index}");
                Err(Violation::new("exactly_once", text))
            }
        }
    }

    /// The client is told that the operation is done.
    pub(crate) fn answered(&self, stamp: u64) -> Checked {
        if self.effects.contains_key(&stamp) {
            return Ok(());
        }
        Err(Violation::new(
            "exactly_once",
            format!("write {stamp} is answered as done and never took effect"),
        ))
    }

    pub(crate) fn took_effect(&self, stamp: u64) -> bool {
        self.effects.contains_key(&stamp)
    }
}
