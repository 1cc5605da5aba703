//! A refusal is definite (design, R19: "overload definite and bounded"): what was refused and not sent
//! again never takes effect.

use super::{Checked, Violation, WordMap};

#[derive(Debug, Default)]
pub(crate) struct DefiniteRefusals {
    refused: WordMap<u64, ()>,
}

impl DefiniteRefusals {
    /// The client was told that the operation will never happen.
    pub(crate) fn refused(&mut self, stamp: u64, took_effect: bool) -> Checked {
        self.refused.insert(stamp, ());
        if took_effect { broken(stamp) } else { Ok(()) }
    }

    /// An operation took effect.
    pub(crate) fn applied(&self, stamp: u64) -> Checked {
        if self.refused.contains_key(&stamp) {
            broken(stamp)
        } else {
            Ok(())
        }
    }
}

fn broken(stamp: u64) -> Checked {
    Err(Violation::new(
        "definite_refusals",
        format!("write {stamp} was refused and took effect"),
    ))
}
