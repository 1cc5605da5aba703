//! Patterns over names of configs or services, and who watches which: maps, no waiting and no time.
//!
//! What matches a pattern is found once, by looking at every name of its namespace, when somebody first watches
//! it; from then on each name that comes or goes is matched against the patterns of its namespace and group. A
//! change of a content costs nothing here.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};

use crate::model::{Named, NamespaceId};

/// Names that a pattern can match (contract 00); those beyond are not told.
pub const MATCHES_MAX: usize = 500;

/// Different patterns that a node keeps. Beyond it a new one is refused.
const PATTERNS_MAX: usize = 10_000;

/// Bytes of a pattern: more than the longest names together need. A longer one is none.
const PATTERN_BYTES_MAX: usize = 1_024;

/// Names that come and go while somebody looks; beyond it he looks again. Far more than come in the
/// milliseconds that it takes.
const TOUCHED_MAX: usize = 10_000;

/// What stands between the parts of a pattern.
const SEPARATOR: &str = ">>";

/// `namespace>>group>>item`, the last two with stars at their ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FuzzyPattern {
    namespace: NamespaceId,
    group: Item,
    item: Item,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    Any,
    Exact(Box<str>),
    Prefix(Box<str>),
    Suffix(Box<str>),
    Contains(Box<str>),
    /// Stars in the middle only: the Java server lets them match nothing.
    Nothing,
}

impl Item {
    fn parse(text: &str) -> Item {
        let pure = || text.replace('*', "").into();
        match (text.starts_with('*'), text.ends_with('*')) {
            _ if text == "*" => Item::Any,
            (true, true) => Item::Contains(pure()),
            (true, false) => Item::Suffix(pure()),
            (false, true) => Item::Prefix(pure()),
            (false, false) if text.contains('*') => Item::Nothing,
            (false, false) => Item::Exact(text.into()),
        }
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Item::Any => true,
            Item::Exact(exact) => text == &**exact,
            Item::Prefix(prefix) => text.starts_with(&**prefix),
            Item::Suffix(suffix) => text.ends_with(&**suffix),
            Item::Contains(part) => text.contains(&**part),
            Item::Nothing => false,
        }
    }
}

impl FuzzyPattern {
    /// Reads a pattern; `None` for a text that is none.
    pub fn parse(text: &str) -> Option<FuzzyPattern> {
        if text.len() > PATTERN_BYTES_MAX {
            return None;
        }
        let mut parts = text.split(SEPARATOR);
        let (namespace, group, item) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || group.trim().is_empty() || item.trim().is_empty() {
            return None;
        }
        Some(FuzzyPattern {
            namespace: NamespaceId::new(namespace),
            group: Item::parse(group),
            item: Item::parse(item),
        })
    }

    /// Its namespace.
    pub fn namespace(&self) -> &NamespaceId {
        &self.namespace
    }

    /// True when this name matches.
    pub fn matches(&self, key: &impl Named) -> bool {
        self.namespace.as_str() == key.namespace()
            && self.group.matches(key.group())
            && self.item.matches(key.item())
    }

    /// Where it stands in the index: by its group, if that is one.
    fn place(&self) -> Place {
        let group = match &self.group {
            Item::Exact(group) => Some(group.clone()),
            _ => None,
        };
        (self.namespace.clone(), group)
    }
}

/// Namespace, and the group if the pattern names one.
type Place = (NamespaceId, Option<Box<str>>);

/// Who watches which pattern, and what matches it. `K` is a name, `T` the way to reach a watcher.
#[derive(Debug)]
pub struct FuzzyIndex<K, T> {
    patterns: HashMap<Box<str>, Watched<K, T>>,
    /// Texts of the patterns; no list is empty.
    by_place: HashMap<Place, Vec<Box<str>>>,
    /// Looks that were ever wanted.
    looks: u64,
}

#[derive(Debug)]
struct Watched<K, T> {
    pattern: FuzzyPattern,
    /// By a number of the watcher.
    watchers: HashMap<u64, T>,
    matched: BTreeSet<K>,
    knowledge: Knowledge<K>,
    /// There are more than `matched` holds.
    is_over: bool,
}

/// What is known of what matches a pattern.
#[derive(Debug)]
enum Knowledge<K> {
    /// Nothing, and nobody looks.
    None,
    /// Somebody looks, perhaps several; who began under another number has seen too little.
    Sought {
        look: Look,
        /// What came and went since: it is newer than what they will find.
        touched: HashMap<K, bool>,
    },
    /// `matched` is all there is, or `is_over`.
    Found,
}

/// A look for what matches a pattern, which has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look(u64);

/// There are too many patterns on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyPatterns;

impl<K, T> Default for FuzzyIndex<K, T> {
    fn default() -> FuzzyIndex<K, T> {
        FuzzyIndex {
            patterns: HashMap::new(),
            by_place: HashMap::new(),
            looks: 0,
        }
    }
}

impl<K: Named, T: Clone> FuzzyIndex<K, T> {
    /// Has a watcher watch a pattern. True when somebody has to look for what matches: to
    /// [`FuzzyIndex::begin_look`], to look, and to tell it by [`FuzzyIndex::found`].
    ///
    /// # Errors
    /// There is no room for another pattern.
    pub fn watch(
        &mut self,
        text: &str,
        pattern: &FuzzyPattern,
        watcher: (u64, T),
    ) -> Result<bool, TooManyPatterns> {
        if !self.patterns.contains_key(text) && self.patterns.len() >= PATTERNS_MAX {
            return Err(TooManyPatterns);
        }
        let watched = match self.patterns.entry(text.into()) {
            Entry::Occupied(watched) => watched.into_mut(),
            Entry::Vacant(place) => {
                let texts = self.by_place.entry(pattern.place()).or_default();
                texts.push(text.into());
                place.insert(Watched {
                    pattern: pattern.clone(),
                    watchers: HashMap::new(),
                    matched: BTreeSet::new(),
                    knowledge: Knowledge::None,
                    is_over: false,
                })
            }
        };
        watched.watchers.insert(watcher.0, watcher.1);
        Ok(!watched.is_found())
    }

    /// A watcher watches the pattern no longer.
    pub fn unwatch(&mut self, text: &str, watcher: u64) {
        let Some(watched) = self.patterns.get_mut(text) else {
            return;
        };
        watched.watchers.remove(&watcher);
        if !watched.watchers.is_empty() {
            return;
        }
        let place = watched.pattern.place();
        self.patterns.remove(text);
        if let Some(texts) = self.by_place.get_mut(&place) {
            texts.retain(|other| &**other != text);
            if texts.is_empty() {
                self.by_place.remove(&place);
            }
        }
    }

    /// To be called before somebody looks for what matches; `None` when nobody has to, or nobody watches
    /// the pattern.
    pub fn begin_look(&mut self, text: &str) -> Option<Look> {
        let watched = self.patterns.get_mut(text)?;
        match &watched.knowledge {
            Knowledge::Found => None,
            Knowledge::Sought { look, .. } => Some(*look),
            Knowledge::None => {
                self.looks += 1;
                let look = Look(self.looks);
                let touched = HashMap::new();
                watched.knowledge = Knowledge::Sought { look, touched };
                Some(look)
            }
        }
    }

    /// What matches the pattern, found by somebody who looked after [`FuzzyIndex::begin_look`]. What is out
    /// of date by now is ignored: whoever needs it looks again.
    pub fn found(&mut self, text: &str, began: Look, keys: Vec<K>) {
        let Some(watched) = self.patterns.get_mut(text) else {
            return;
        };
        let Knowledge::Sought { look, touched } = &mut watched.knowledge else {
            return;
        };
        if *look != began {
            return;
        }
        // Who found too many has not seen all there are.
        watched.is_over = keys.len() > MATCHES_MAX;
        watched.matched = keys.into_iter().collect();
        for (key, exists) in std::mem::take(touched) {
            if exists {
                watched.matched.insert(key);
            } else {
                watched.matched.remove(&key);
            }
        }
        while watched.matched.len() > MATCHES_MAX {
            watched.matched.pop_last();
            watched.is_over = true;
        }
        watched.knowledge = Knowledge::Found;
    }

    /// Everything has to be looked for again: the state was replaced.
    pub fn forget_found(&mut self) {
        for watched in self.patterns.values_mut() {
            watched.knowledge = Knowledge::None;
        }
    }

    /// A name has come or gone. Gives back who is to look at it.
    pub fn touched(&mut self, key: &K, exists: bool) -> Vec<T> {
        let mut told = Vec::new();
        for group in [Some(key.group().into()), None] {
            let place = (key.namespace_id(), group);
            for text in self.by_place.get(&place).into_iter().flatten() {
                if let Some(watched) = self.patterns.get_mut(text) {
                    watched.touch(key, exists, &mut told);
                }
            }
        }
        told
    }

    /// What matches, and whether there is more; `None` while nobody has looked.
    pub fn matched(&self, text: &str) -> Option<(&BTreeSet<K>, bool)> {
        let watched = self.patterns.get(text).filter(|watched| watched.is_found())?;
        Some((&watched.matched, watched.is_over))
    }

    /// Everybody, once for each pattern.
    pub fn watchers(&self) -> impl Iterator<Item = &T> {
        let patterns = self.patterns.values();
        patterns.flat_map(|watched| watched.watchers.values())
    }

    /// True when nobody watches anything.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }
}

impl<K: Named, T: Clone> Watched<K, T> {
    fn is_found(&self) -> bool {
        matches!(self.knowledge, Knowledge::Found)
    }

    fn touch(&mut self, key: &K, exists: bool, told: &mut Vec<T>) {
        if !self.pattern.matches(key) {
            return;
        }
        match &mut self.knowledge {
            // NOTE: nothing is kept while nobody looks: it may be long until somebody does.
            Knowledge::None => {}
            Knowledge::Sought { touched, .. } => {
                touched.insert(key.clone(), exists);
                if touched.len() > TOUCHED_MAX {
                    self.knowledge = Knowledge::None;
                }
            }
            Knowledge::Found if !exists => {
                self.matched.remove(key);
                // One of those beyond the bound may take the place: the next who watches looks.
                if self.is_over {
                    self.knowledge = Knowledge::None;
                }
            }
            Knowledge::Found if self.matched.len() < MATCHES_MAX => {
                self.matched.insert(key.clone());
            }
            Knowledge::Found if !self.matched.contains(key) => {
                self.is_over = true;
                return;
            }
            Knowledge::Found => {}
        }
        told.extend(self.watchers.values().cloned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ConfigKey;

    fn key(namespace: &str, group: &str, data_id: &str) -> ConfigKey {
        ConfigKey::new(&NamespaceId::new(namespace), group, data_id)
    }

    #[test]
    fn patterns_match_as_those_of_the_java_server() {
        let app = key("", "g1", "app.yaml");
        for (text, expected) in [
            ("public>>*>>*", true),
            (">>g1>>app.yaml", true),
            ("public>>g*>>*.yaml", true),
            ("public>>*1>>*pp*", true),
            ("public>>g1>>app*", true),
            ("dev>>*>>*", false),
            ("public>>g>>*", false),
            ("public>>*>>a*l", false),
            ("public>>*>>*.yml", false),
            ("public>>**>>*", true),
        ] {
            let pattern = FuzzyPattern::parse(text).expect(text);
            assert_eq!(pattern.matches(&app), expected, "{text}");
        }
        let long = format!("public>>g>>{}", "d".repeat(PATTERN_BYTES_MAX));
        for none in [
            "",
            &long,
            "public",
            "public>>g",
            "public>>>>d",
            "public>>g>> ",
            "a>>b>>c>>d",
        ] {
            assert_eq!(FuzzyPattern::parse(none), None, "{none}");
        }
    }

    fn watch(index: &mut FuzzyIndex<ConfigKey, u64>, text: &str, watcher: u64) -> bool {
        let pattern = FuzzyPattern::parse(text).expect("a pattern");
        index.watch(text, &pattern, (watcher, watcher)).expect("room")
    }

    fn look(index: &mut FuzzyIndex<ConfigKey, u64>, text: &str, found: Vec<ConfigKey>) {
        let began = index.begin_look(text).expect("nobody has looked");
        index.found(text, began, found);
    }

    fn names<'a>(index: &'a FuzzyIndex<ConfigKey, u64>, text: &str) -> Vec<&'a str> {
        let (matched, _) = index.matched(text).expect("found");
        matched.iter().map(ConfigKey::data_id).collect()
    }

    #[test]
    fn what_comes_and_goes_is_told_to_those_whose_patterns_match() {
        let mut index = FuzzyIndex::default();
        assert!(watch(&mut index, "public>>g>>*", 1));
        assert!(watch(&mut index, "public>>*>>a*", 2));
        look(&mut index, "public>>g>>*", vec![]);
        look(&mut index, "public>>*>>a*", vec![]);
        assert!(!watch(&mut index, "public>>g>>*", 3));
        let told = |index: &mut FuzzyIndex<ConfigKey, u64>, name: ConfigKey, exists| {
            let mut told = index.touched(&name, exists);
            told.sort_unstable();
            told
        };
        assert_eq!(told(&mut index, key("", "g", "a1"), true), [1, 2, 3]);
        assert_eq!(told(&mut index, key("", "g", "b1"), true), [1, 3]);
        assert_eq!(told(&mut index, key("", "h", "a1"), true), [2]);
        assert_eq!(told(&mut index, key("dev", "g", "a1"), true), [0; 0]);
        let (matched, is_over) = index.matched("public>>g>>*").expect("found");
        assert_eq!((matched.len(), is_over), (2, false));
        assert_eq!(told(&mut index, key("", "g", "a1"), false), [1, 2, 3]);
        assert_eq!(index.matched("public>>*>>a*").expect("found").0.len(), 1);
        for watcher in [1, 3] {
            index.unwatch("public>>g>>*", watcher);
        }
        index.unwatch("public>>*>>a*", 2);
        assert!(index.is_empty() && index.by_place.is_empty());
    }

    #[test]
    fn what_comes_while_somebody_looks_is_newer_than_what_he_finds() {
        let mut index = FuzzyIndex::default();
        let text = "public>>g>>*";
        assert!(watch(&mut index, text, 1));
        let began = index.begin_look(text).expect("nobody has looked");
        index.touched(&key("", "g", "new"), true);
        index.touched(&key("", "g", "old"), false);
        index.found(text, began, vec![key("", "g", "old"), key("", "g", "same")]);
        assert_eq!(names(&index, text), ["new", "same"]);
    }

    #[test]
    fn of_two_who_look_the_slower_one_takes_nothing_back() {
        let mut index = FuzzyIndex::default();
        let text = "public>>g>>*";
        assert!(watch(&mut index, text, 1) && watch(&mut index, text, 2));
        let (fast, slow) = (index.begin_look(text), index.begin_look(text));
        let seen = vec![key("", "g", "a")];
        index.found(text, fast.expect("a look"), seen.clone());
        index.touched(&key("", "g", "b"), true);
        index.found(text, slow.expect("a look"), seen);
        assert_eq!(names(&index, text), ["a", "b"]);
    }

    #[test]
    fn what_was_seen_before_the_state_was_replaced_does_not_count() {
        let mut index = FuzzyIndex::default();
        let text = "public>>g>>*";
        assert!(watch(&mut index, text, 1));
        let before = index.begin_look(text).expect("a look");
        index.forget_found();
        index.found(text, before, vec![key("", "g", "gone")]);
        assert_eq!(index.matched(text), None);
        let after = index.begin_look(text).expect("a look");
        index.found(text, before, vec![key("", "g", "gone")]);
        assert_eq!(index.matched(text), None);
        index.found(text, after, vec![key("", "g", "here")]);
        assert_eq!(names(&index, text), ["here"]);
        // The same for a pattern that was given up meanwhile, and is watched anew.
        index.unwatch(text, 1);
        assert!(watch(&mut index, text, 2));
        assert!(index.begin_look(text).is_some());
        index.found(text, after, vec![key("", "g", "gone")]);
        assert_eq!(index.matched(text), None);
    }

    #[test]
    fn nothing_is_kept_of_what_comes_and_goes_while_nobody_looks() {
        let mut index = FuzzyIndex::default();
        let text = "public>>g>>*";
        assert!(watch(&mut index, text, 1));
        let kept = |index: &FuzzyIndex<ConfigKey, u64>| match &index.patterns[text].knowledge {
            Knowledge::Sought { touched, .. } => touched.len(),
            Knowledge::None | Knowledge::Found => 0,
        };
        assert_eq!(
            index.touched(&key("", "g", "a"), true),
            [1],
            "it is told all the same"
        );
        assert_eq!(kept(&index), 0);
        let slow = index.begin_look(text).expect("a look");
        for number in 0..=TOUCHED_MAX {
            index.touched(&key("", "g", &number.to_string()), true);
            assert!(kept(&index) <= TOUCHED_MAX);
        }
        index.found(text, slow, vec![]);
        assert_eq!(
            index.matched(text),
            None,
            "too much has come since: he looks again"
        );
    }

    #[test]
    fn more_than_can_be_told_stay_more_when_one_goes_meanwhile() {
        let mut index = FuzzyIndex::default();
        let text = "public>>g>>*";
        assert!(watch(&mut index, text, 1));
        let began = index.begin_look(text).expect("a look");
        let all: Vec<_> = (0..=MATCHES_MAX)
            .map(|n| key("", "g", &format!("d{n:03}")))
            .collect();
        index.touched(&key("", "g", "d001"), false);
        index.touched(&key("", "g", "d002"), false);
        index.found(text, began, all);
        assert_eq!(
            index.matched(text).map(|(keys, over)| (keys.len(), over)),
            Some((MATCHES_MAX - 1, true))
        );
    }

    #[test]
    fn a_pattern_matches_five_hundred_and_says_when_there_are_more() {
        let mut index = FuzzyIndex::default();
        let text = "public>>g>>*";
        watch(&mut index, text, 1);
        let all: Vec<_> = (0..MATCHES_MAX)
            .map(|n| key("", "g", &format!("d{n:03}")))
            .collect();
        look(&mut index, text, all);
        assert_eq!(
            index.matched(text).map(|(keys, over)| (keys.len(), over)),
            Some((500, false))
        );
        assert_eq!(index.touched(&key("", "g", "more"), true), [0; 0]);
        assert_eq!(
            index.matched(text).map(|(keys, over)| (keys.len(), over)),
            Some((500, true))
        );
        assert_eq!(index.touched(&key("", "g", "d001"), false), [1]);
        assert_eq!(index.matched(text), None, "one of the others may have its place");
        assert!(watch(&mut index, text, 1), "somebody has to look");
    }
}
