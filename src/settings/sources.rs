//! Where values come from, and what is wrong with them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use super::table::{NOT_TAKEN, SETTINGS, find};
use super::{env_file, value};

/// The file that is read when none is named.
const DEFAULT_FILE: &str = ".env";

/// Where a value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// On the command line.
    Flag,
    /// In the environment.
    Environment,
    /// In an env file.
    File(PathBuf),
    /// Nowhere.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag => f.write_str("flag"),
            Origin::Environment => f.write_str("environment"),
            Origin::File(path) => write!(f, "{}", path.display()),
            Origin::Default => f.write_str("default"),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Name of the setting, or of the file.
    pub name: String,
    /// Its value, when it has one that may be shown, and where that stands.
    pub given: Option<(String, Origin)>,
    /// What is expected.
    pub expected: String,
}

/// Everything that is wrong. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => writeln!(f, "a setting is wrong:")?,
            n => writeln!(f, "{n} settings are wrong:")?,
        }
        for mistake in &self.0 {
            match &mistake.given {
                Some((given, origin)) => {
                    writeln!(f, "  {}={given} ({origin}): {}", mistake.name, mistake.expected)?
                }
                None => writeln!(f, "  {}: {}", mistake.name, mistake.expected)?,
            }
        }
        f.write_str("`rnacos --help` lists every setting with its default.")
    }
}

/// The values of one process, and what was found wrong while taking them.
#[derive(Debug)]
pub struct Sources {
    flags: BTreeMap<String, String>,
    environment: BTreeMap<String, String>,
    file: BTreeMap<String, String>,
    /// Where `file` was read from.
    path: PathBuf,
    mistakes: Vec<Mistake>,
    /// Name, value in force (secrets hidden), origin; in the order they were taken.
    taken: Vec<(String, String, Origin)>,
}

impl Sources {
    /// Values of the command line and of the environment. An empty value is none.
    pub fn new(flags: BTreeMap<String, String>, environment: BTreeMap<String, String>) -> Sources {
        let [flags, environment] = [flags, environment].map(without_empty);
        let path = PathBuf::from(DEFAULT_FILE);
        Sources {
            flags,
            environment,
            file: BTreeMap::new(),
            path,
            mistakes: Vec::new(),
            taken: Vec::new(),
        }
    }

    /// Adds a file: the named one, which must be there, or ./.env if that is there.
    pub fn add_file(&mut self, named: Option<&Path>, read: impl Fn(&Path) -> std::io::Result<String>) {
        self.path = named.unwrap_or(Path::new(DEFAULT_FILE)).to_owned();
        let text = match read(&self.path) {
            Ok(text) => text,
            Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => return,
            Err(error) => {
                let expected = format!("a readable text file of KEY=VALUE lines is expected ({error})");
                return self.mistakes.push(Mistake {
                    name: self.path.display().to_string(),
                    given: None,
                    expected,
                });
            }
        };
        match env_file::parse(&text) {
            Ok(values) => self.file = without_empty(values),
            Err(malformed) => self.mistakes.extend(malformed.into_iter().map(|line| Mistake {
                name: self.path.display().to_string(),
                given: None,
                expected: line.to_string(),
            })),
        }
    }

    /// The value of a setting, or its default.
    pub(super) fn take<T>(
        &mut self,
        name: &'static str,
        parse: impl Fn(&str) -> value::Parsed<T>,
        default: impl FnOnce() -> T,
    ) -> T {
        self.take_optional(name, parse).unwrap_or_else(default)
    }

    /// The value of a setting that may be absent. A wrong one is remembered and counts as absent.
    pub(super) fn take_optional<T>(
        &mut self,
        name: &'static str,
        parse: impl Fn(&str) -> value::Parsed<T>,
    ) -> Option<T> {
        let setting = find(name).unwrap_or_else(|| panic!("{name} has no row in the table of settings"));
        let Some((text, origin)) = self.look_up(name) else {
            self.taken
                .push((name.to_owned(), setting.default.to_owned(), Origin::Default));
            return None;
        };
        let shown = if setting.secret {
            "(hidden)".to_owned()
        } else {
            text.clone()
        };
        self.taken.push((name.to_owned(), shown.clone(), origin.clone()));
        match parse(&text) {
            Ok(value) => Some(value),
            Err(expected) => {
                self.mistakes.push(Mistake {
                    name: name.to_owned(),
                    given: Some((shown, origin)),
                    expected,
                });
                None
            }
        }
    }

    /// True when somebody has given the setting.
    pub(super) fn has(&self, name: &str) -> bool {
        self.look_up(name).is_some()
    }

    /// Remembers that a value does not go with another.
    pub(super) fn mistake(&mut self, name: &'static str, expected: &str) {
        let given = self.look_up(name);
        self.mistakes.push(Mistake {
            name: name.to_owned(),
            given,
            expected: expected.to_owned(),
        });
    }

    fn look_up(&self, name: &str) -> Option<(String, Origin)> {
        let value = |map: &BTreeMap<String, String>| map.get(name).cloned();
        value(&self.flags)
            .map(|value| (value, Origin::Flag))
            .or_else(|| value(&self.environment).map(|value| (value, Origin::Environment)))
            .or_else(|| value(&self.file).map(|value| (value, Origin::File(self.path.clone()))))
    }

    /// Names that do nothing here, with the reason or the nearest name.
    pub fn warnings(&self) -> Vec<String> {
        self.foreign_names()
            .filter_map(
                |name| match NOT_TAKEN.iter().find(|variable| variable.name == name) {
                    Some(variable) if self.is_refused(variable.name) => None,
                    Some(variable) => Some(format!("{name} is not taken: {}", variable.why)),
                    None => Some(match nearest(name) {
                        Some(near) => format!("{name} is no setting of this server; do you mean {near}?"),
                        None => format!("{name} is no setting of this server"),
                    }),
                },
            )
            .collect()
    }

    /// The settings in force, as an env file with comments.
    pub fn printed(&self) -> String {
        let mut text = String::new();
        for (name, value, origin) in &self.taken {
            let set = *origin != Origin::Default && value != "(hidden)";
            text.push_str(&if set {
                format!("{name}={value}  # {origin}\n")
            } else {
                format!("# {name}: {value} ({origin})\n")
            });
        }
        text
    }

    /// Ends the taking.
    ///
    /// # Errors
    /// Every mistake, and every variable whose silent absence would be dangerous.
    pub fn finish(mut self) -> Result<(), Mistakes> {
        let refused: Vec<_> = NOT_TAKEN
            .iter()
            .filter(|variable| self.is_refused(variable.name))
            .collect();
        for variable in refused {
            let given = self.look_up(variable.name);
            self.mistakes.push(Mistake {
                name: variable.name.to_owned(),
                given,
                expected: variable.why.to_owned(),
            });
        }
        if self.mistakes.is_empty() {
            Ok(())
        } else {
            Err(Mistakes(self.mistakes))
        }
    }

    fn is_refused(&self, name: &str) -> bool {
        let dangerous = NOT_TAKEN
            .iter()
            .any(|variable| variable.name == name && variable.refused_when_true);
        dangerous
            && self
                .look_up(name)
                .is_some_and(|(text, _)| value::boolean(&text) == Ok(true))
    }

    /// RNACOS_* names of the environment and of the file that no row of the table has.
    fn foreign_names(&self) -> impl Iterator<Item = &str> {
        let names: BTreeSet<&str> = self
            .environment
            .keys()
            .chain(self.file.keys())
            .map(String::as_str)
            .collect();
        names
            .into_iter()
            .filter(|name| name.starts_with("RNACOS_") && find(name).is_none())
    }
}

fn without_empty(mut values: BTreeMap<String, String>) -> BTreeMap<String, String> {
    values.retain(|_, value| !value.trim().is_empty());
    values
}

/// The setting whose name is at most three edits away.
fn nearest(name: &str) -> Option<&'static str> {
    let near = SETTINGS
        .iter()
        .map(|setting| (edits(name, setting.name), setting.name))
        .min()?;
    (near.0 <= 3).then_some(near.1)
}

/// Levenshtein distance.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(b.bytes()) {
            let replaced = diagonal + usize::from(x != y);
            diagonal = *cell;
            left = replaced.min(diagonal + 1).min(left + 1);
            *cell = left;
        }
        row[0] = i + 1;
    }
    row.last().copied().unwrap_or(0)
}
