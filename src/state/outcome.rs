//! What came of a command.

use crate::config::{ConfigId, GrayError};
use crate::{namespace, naming};

/// What came of a command: the same on every node that applies it. Small, because the outcomes of the
/// newest operations of each session are kept for whoever asks again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub enum Outcome {
    /// It is not known whether the operation was applied: it lies below the watermark of its session, or
    /// the session is closed or was never opened. *This* copy was not applied.
    Unknown,
    /// The session is open (or was already).
    SessionOpened,
    /// A config or variant appeared.
    ConfigInserted(ConfigId),
    /// A config or variant was overwritten.
    ConfigUpdated(ConfigId),
    /// Configs that were there are gone; 0 when there was nothing, which is no error in Nacos.
    ConfigsRemoved(u32),
    /// Compare-and-set: the stored MD5 is another one. Nothing changed.
    CasMismatch,
    /// The variant cannot be published. Nothing changed.
    GrayRefused(GrayError),
    /// The namespace was made, renamed or deleted.
    NamespaceDone,
    /// The namespace is as it was.
    NamespaceRefused(namespace::Refusal),
    /// History rows are gone.
    HistoryTrimmed {
        /// How many.
        rows: u32,
        /// There are more that are old enough.
        more: bool,
    },
    /// The feature level is now this.
    FeatureLevel(u32),
    /// The command makes no sense; nothing changed.
    Refused(Refused),
    /// Naming: done.
    NamingDone,
    /// Naming: all is as it was.
    NamingRefused(naming::Refusal),
    /// Naming: so many of those that were named were there and are changed or gone.
    NamingChanged(u32),
}

/// Why a command makes no sense. None of these is the client's doing: the proposer checks first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refused {
    /// A value is missing or out of its range.
    #[error("the command is malformed")]
    Malformed,
    /// It needs a higher feature level than the cluster has reached.
    #[error("the cluster has not reached the feature level of this command")]
    FeatureLevel,
    /// It carries no operation id.
    #[error("the command has no operation id")]
    Anonymous,
}

impl Outcome {
    /// As a row of the table of results: kind and two numbers.
    pub(super) fn as_row(self) -> (u32, u64, u64) {
        match self {
            Outcome::Unknown => (0, 0, 0),
            Outcome::SessionOpened => (1, 0, 0),
            Outcome::ConfigInserted(id) => (2, id.0, 0),
            Outcome::ConfigUpdated(id) => (3, id.0, 0),
            Outcome::ConfigsRemoved(count) => (4, count.into(), 0),
            Outcome::CasMismatch => (5, 0, 0),
            Outcome::GrayRefused(error) => (6, position(&GRAY_ERRORS, &error), 0),
            Outcome::NamespaceDone => (7, 0, 0),
            Outcome::NamespaceRefused(refusal) => (8, position(&NAMESPACE_REFUSALS, &refusal), 0),
            Outcome::HistoryTrimmed { rows, more } => (9, rows.into(), more.into()),
            Outcome::FeatureLevel(level) => (10, level.into(), 0),
            Outcome::Refused(refused) => (11, position(&REFUSED, &refused), 0),
            Outcome::NamingDone => (12, 0, 0),
            Outcome::NamingRefused(refusal) => (13, position(&NAMING_REFUSALS, &refusal), 0),
            Outcome::NamingChanged(count) => (14, count.into(), 0),
        }
    }

    /// The reverse; `None` for a row that no version up to this one has written.
    pub(super) fn from_row((kind, first, second): (u32, u64, u64)) -> Option<Outcome> {
        let number = || u32::try_from(first).ok();
        Some(match kind {
            0 => Outcome::Unknown,
            1 => Outcome::SessionOpened,
            2 => Outcome::ConfigInserted(ConfigId(first)),
            3 => Outcome::ConfigUpdated(ConfigId(first)),
            4 => Outcome::ConfigsRemoved(number()?),
            5 => Outcome::CasMismatch,
            6 => Outcome::GrayRefused(*at(&GRAY_ERRORS, first)?),
            7 => Outcome::NamespaceDone,
            8 => Outcome::NamespaceRefused(*at(&NAMESPACE_REFUSALS, first)?),
            9 => Outcome::HistoryTrimmed {
                rows: number()?,
                more: second != 0,
            },
            10 => Outcome::FeatureLevel(number()?),
            11 => Outcome::Refused(*at(&REFUSED, first)?),
            12 => Outcome::NamingDone,
            13 => Outcome::NamingRefused(*at(&NAMING_REFUSALS, first)?),
            14 => Outcome::NamingChanged(number()?),
            _ => return None,
        })
    }
}

// IMPORTANT: stored by position; only ever appended to.
const GRAY_ERRORS: [GrayError; 4] = [
    GrayError::TooMany,
    GrayError::RuleFormat,
    GrayError::RuleVersion,
    GrayError::RuleKind,
];
const NAMESPACE_REFUSALS: [namespace::Refusal; 4] = [
    namespace::Refusal::Exists,
    namespace::Refusal::Missing,
    namespace::Refusal::BuiltIn,
    namespace::Refusal::TooMany,
];
const NAMING_REFUSALS: [naming::Refusal; 5] = [
    naming::Refusal::Exists,
    naming::Refusal::Missing,
    naming::Refusal::NotEmpty,
    naming::Refusal::WrongKind,
    naming::Refusal::TooLarge,
];
const REFUSED: [Refused; 3] = [Refused::Malformed, Refused::FeatureLevel, Refused::Anonymous];

fn position<T: PartialEq>(all: &[T], one: &T) -> u64 {
    let position = all.iter().position(|other| other == one);
    position.expect("every variant stands in its list") as u64
}

fn at<T>(all: &[T], position: u64) -> Option<&T> {
    all.get(usize::try_from(position).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back() {
        let mut outcomes = vec![
            Outcome::Unknown,
            Outcome::SessionOpened,
            Outcome::ConfigInserted(ConfigId(u64::MAX)),
            Outcome::ConfigUpdated(ConfigId(4_096)),
            Outcome::ConfigsRemoved(u32::MAX),
            Outcome::CasMismatch,
            Outcome::NamespaceDone,
            Outcome::HistoryTrimmed { rows: 5, more: true },
            Outcome::FeatureLevel(2),
            Outcome::NamingDone,
            Outcome::NamingChanged(u32::MAX),
        ];
        outcomes.extend(GRAY_ERRORS.map(Outcome::GrayRefused));
        outcomes.extend(NAMESPACE_REFUSALS.map(Outcome::NamespaceRefused));
        outcomes.extend(REFUSED.map(Outcome::Refused));
        outcomes.extend(NAMING_REFUSALS.map(Outcome::NamingRefused));
        for outcome in outcomes {
            assert_eq!(Outcome::from_row(outcome.as_row()), Some(outcome));
        }
        assert_eq!(Outcome::from_row((99, 0, 0)), None);
        assert_eq!(Outcome::from_row((6, 4, 0)), None);
    }
}
