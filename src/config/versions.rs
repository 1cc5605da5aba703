//! All versions of a config at one moment, by MD5.

use super::{Client, GrayVersions};
use crate::model::Md5;

/// What clients can see of a config at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Versions {
    /// MD5 of the formal version; `None` when there is none.
    pub formal: Option<Md5>,
    /// The variants.
    pub grays: GrayVersions,
}

impl Versions {
    /// MD5 of what this client sees; `None` when it sees nothing.
    pub fn seen_by(&self, client: &Client<'_>) -> Option<Md5> {
        let gray = self.grays.select(client).map(|gray| gray.md5);
        gray.or(self.formal)
    }
}
