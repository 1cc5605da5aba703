//! Is the history of one register linearizable?
//!
//! The search of Wing and Gong (Testing and verifying concurrent objects, 1993) as improved by Lowe
//! (Testing for linearizability, 2017): walk the events in order, try each operation that has been
//! invoked as the next to take effect, go back when an operation has to have taken effect and cannot;
//! remember each pair (set of operations placed, state) so that it is looked at once.
//!
//! Unknown outcomes are open-ended: such an operation may take effect at any time after its invocation,
//! or never. They are what makes the search expensive, hence a first try without those writes whose value
//! nobody ever saw; leaving one out can only make a right history look wrong, never the reverse, and what
//! looks wrong is tried again with all of them.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::history::{ABSENT, Action, Answer, Operation};

/// Pairs (operations placed, state) remembered at most, per register; about 100 bytes each. Beyond it the
/// register counts as undecided, and the run as void.
const CONFIGURATIONS_MAX: usize = 3_000_000;

/// What was found about one register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// There is an order that explains every answer.
    Linearizable,
    /// There is none; the operation that could not be placed after the longest attempt.
    Violation(String),
    /// Too many unknown outcomes at the same time to decide.
    Undecided,
}

/// Checks every register of a history on its own (linearizability is local: Herlihy and Wing 1990).
#[must_use]
pub fn check(operations: &[Operation]) -> BTreeMap<u32, Finding> {
    let mut of_key: BTreeMap<u32, Vec<&Operation>> = BTreeMap::new();
    for operation in operations {
        of_key.entry(operation.key).or_default().push(operation);
    }
    of_key
        .into_iter()
        .map(|(key, operations)| (key, check_register(&operations)))
        .collect()
}

/// Checks the operations of one register.
#[must_use]
pub fn check_register(operations: &[&Operation]) -> Finding {
    let all: Vec<&Operation> = operations
        .iter()
        .copied()
        .filter(|operation| says_something(operation))
        .collect();
    let seen: HashSet<u32> = all.iter().copied().flat_map(observed).collect();
    let without_unseen: Vec<&Operation> = all
        .iter()
        .copied()
        .filter(|operation| match (operation.answer, operation.action) {
            (Answer::Unknown, Action::Write(value) | Action::Cas { new: value, .. }) => seen.contains(&value),
            _ => true,
        })
        .collect();
    match Search::new(&without_unseen).run() {
        found if found == Finding::Linearizable || without_unseen.len() == all.len() => found,
        _ => Search::new(&all).run(),
    }
}

/// Refused operations did nothing, and a read nobody answered says nothing.
fn says_something(operation: &Operation) -> bool {
    match operation.answer {
        Answer::Refused => false,
        Answer::Unknown => operation.action != Action::Read,
        Answer::Value(_) | Answer::Applied | Answer::Mismatch => true,
    }
}

/// Values an operation proves to have been there.
fn observed(operation: &Operation) -> Option<u32> {
    match (operation.action, operation.answer) {
        (Action::Read, Answer::Value(value)) => Some(value),
        (Action::Cas { expected, .. }, Answer::Applied | Answer::Unknown) => Some(expected),
        _ => None,
    }
}

/// The value after this operation took effect on `value`; `None` if its answer rules that out.
fn apply(operation: &Operation, value: u32) -> Option<u32> {
    match (operation.action, operation.answer) {
        (Action::Read, Answer::Value(read)) => (read == value).then_some(value),
        (Action::Write(new), _) => Some(new),
        (Action::Delete, _) => Some(ABSENT),
        (Action::Cas { expected, .. }, Answer::Mismatch) => (expected != value).then_some(value),
        (Action::Cas { expected, new }, _) => (expected == value).then_some(new),
        (Action::Read, _) => None,
    }
}

/// What the operations placed so far have left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    value: u32,
    /// The last one placed is of unknown outcome, so the next one must be able to tell that it happened.
    to_be_seen: bool,
}

impl State {
    /// The state after this operation; `None` if it cannot be the next one, or need not be considered.
    ///
    /// An unknown operation may as well never happen. Placing one is of use only if it changes the value
    /// and the next operation notices: followed by a blind write, the same order without it explains as
    /// much. This keeps dozens of unknown outcomes affordable, where otherwise each doubles the search.
    fn after(self, operation: &Operation) -> Option<Self> {
        let blind = matches!(operation.action, Action::Write(_) | Action::Delete);
        if self.to_be_seen && blind {
            return None;
        }
        let value = apply(operation, self.value)?;
        let unknown = operation.answer == Answer::Unknown;
        if unknown && value == self.value {
            return None;
        }
        Some(Self {
            value,
            to_be_seen: unknown,
        })
    }
}

/// Operations placed so far, as sets of bits.
#[derive(Debug)]
struct Placed {
    known: Vec<u64>,
    unknown: Vec<u64>,
}

impl Placed {
    fn none(operations: usize) -> Self {
        let words = operations.div_ceil(64);
        Self {
            known: vec![0; words],
            unknown: vec![0; words],
        }
    }

    fn set(&mut self, operation: usize, known: bool, to: bool) {
        let words = if known { &mut self.known } else { &mut self.unknown };
        let bit = 1 << (operation % 64);
        if to {
            words[operation / 64] |= bit;
        } else {
            words[operation / 64] &= !bit;
        }
    }
}

/// Configurations that were looked at already.
#[derive(Debug, Default)]
struct Remembered {
    /// By known operations placed and state: the sets of unknown ones spent to get there.
    spent: HashMap<(Vec<u64>, State), Vec<Vec<u64>>>,
    count: usize,
}

impl Remembered {
    /// Notes the configuration; false if nothing new can come of it: the same was reached before having
    /// spent only some of these unknown operations, so whatever is possible from here was possible there.
    fn insert(&mut self, placed: &Placed, state: State) -> bool {
        let spent = self.spent.entry((placed.known.clone(), state)).or_default();
        let covers = |less: &Vec<u64>| {
            less.iter()
                .zip(&placed.unknown)
                .all(|(less, more)| less & !more == 0)
        };
        if spent.iter().any(covers) {
            return false;
        }
        spent.push(placed.unknown.clone());
        self.count += 1;
        true
    }
}

/// An event: the invocation or the return of an operation. Unknown operations have no return.
#[derive(Debug, Clone, Copy)]
struct Event {
    operation: usize,
    returns: bool,
}

/// The list of events that are not yet accounted for, doubly linked by place; place 0 is its head.
struct Search<'a> {
    operations: &'a [&'a Operation],
    events: Vec<Event>,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Place of the return of each operation; 0 if it has none.
    return_of: Vec<usize>,
    /// For each delete of unknown outcome, the one invoked before it.
    delete_before: Vec<Option<usize>>,
    /// Operations with a known outcome that are not placed yet.
    required: usize,
}

impl<'a> Search<'a> {
    fn new(operations: &'a [&'a Operation]) -> Self {
        let mut moments = Vec::new();
        let mut required = 0;
        for (index, operation) in operations.iter().enumerate() {
            moments.push((
                operation.invoked.order,
                Event {
                    operation: index,
                    returns: false,
                },
            ));
            if operation.answer != Answer::Unknown {
                moments.push((
                    operation.returned.order,
                    Event {
                        operation: index,
                        returns: true,
                    },
                ));
                required += 1;
            }
        }
        moments.sort_unstable_by_key(|(order, _)| *order);
        let head = Event {
            operation: usize::MAX,
            returns: true,
        };
        let events: Vec<Event> = std::iter::once(head)
            .chain(moments.into_iter().map(|(_, event)| event))
            .collect();
        let count = events.len();
        let mut return_of = vec![0; operations.len()];
        for (place, event) in events.iter().enumerate().skip(1) {
            if event.returns {
                return_of[event.operation] = place;
            }
        }
        let mut delete_before = vec![None; operations.len()];
        let mut last_delete = None;
        for event in events.iter().skip(1) {
            let Operation { action, answer, .. } = operations[event.operation];
            if *action == Action::Delete && *answer == Answer::Unknown {
                delete_before[event.operation] = last_delete.replace(event.operation);
            }
        }
        // A ring: after the last event comes the head again.
        let next = (0..count).map(|place| (place + 1) % count).collect();
        let previous = (0..count).map(|place| (place + count - 1) % count).collect();
        Self {
            operations,
            events,
            next,
            previous,
            return_of,
            delete_before,
            required,
        }
    }

    fn run(mut self) -> Finding {
        let mut remembered = Remembered::default();
        let mut placed = Placed::none(self.operations.len());
        let mut taken: Vec<(usize, State)> = Vec::new();
        let mut state = State {
            value: ABSENT,
            to_be_seen: false,
        };
        let mut at = self.next[0];
        let (mut deepest, mut stuck) = (0, 0);
        while self.required > 0 {
            assert!(
                at != 0,
                "an operation with a known outcome has a return before the end"
            );
            let Event { operation, returns } = self.events[at];
            if !returns {
                let known = self.return_of[operation] != 0;
                let after = state.after(self.operations[operation]);
                if let Some(after) = after.filter(|_| self.is_its_turn(operation, &placed)) {
                    placed.set(operation, known, true);
                    if remembered.insert(&placed, after) {
                        taken.push((at, state));
                        self.lift(at);
                        state = after;
                        at = self.next[0];
                        continue;
                    }
                    placed.set(operation, known, false);
                }
                at = self.next[at];
                continue;
            }
            // This operation has to have taken effect by now and has not: take back the last choice.
            if taken.len() >= deepest {
                (deepest, stuck) = (taken.len(), operation);
            }
            if remembered.count > CONFIGURATIONS_MAX {
                return Finding::Undecided;
            }
            let Some(before) = self.take_back(&mut taken, &mut placed) else {
                return Finding::Violation(format!("cannot be explained: {:?}", self.operations[stuck]));
            };
            (at, state) = before;
        }
        Finding::Linearizable
    }

    /// Takes the last choice back: where to look for another one, and the state it was made in.
    ///
    /// A read that fits changes nothing, and whatever comes of placing it later comes of placing it where it
    /// first fits: there is nothing to try instead, and the choice before it is taken back as well.
    fn take_back(&mut self, taken: &mut Vec<(usize, State)>, placed: &mut Placed) -> Option<(usize, State)> {
        loop {
            let (place, before) = taken.pop()?;
            let operation = self.events[place].operation;
            placed.set(operation, self.return_of[operation] != 0, false);
            self.unlift(place);
            if self.operations[operation].action != Action::Read {
                return Some((self.next[place], before));
            }
        }
    }

    /// Unknown deletes are all alike, and available for ever once invoked: they are used in their order.
    fn is_its_turn(&self, operation: usize, placed: &Placed) -> bool {
        self.delete_before[operation]
            .is_none_or(|before| placed.unknown[before / 64] & (1 << (before % 64)) != 0)
    }

    /// Takes an invocation and its return out of the list.
    fn lift(&mut self, place: usize) {
        self.unlink(place);
        let back = self.return_of[self.events[place].operation];
        if back != 0 {
            self.unlink(back);
            self.required -= 1;
        }
    }

    /// Puts them back; exactly the reverse of the last [`Self::lift`], in the reverse order.
    fn unlift(&mut self, place: usize) {
        let back = self.return_of[self.events[place].operation];
        if back != 0 {
            self.required += 1;
            self.link(back);
        }
        self.link(place);
    }

    fn unlink(&mut self, place: usize) {
        let (before, after) = (self.previous[place], self.next[place]);
        self.next[before] = after;
        self.previous[after] = before;
    }

    fn link(&mut self, place: usize) {
        let (before, after) = (self.previous[place], self.next[place]);
        self.next[before] = place;
        self.previous[after] = place;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::history::Moment;
    use loadtest::content::Dice;

    fn operation(action: Action, answer: Answer, from: u64, to: u64) -> Operation {
        let moment = |order| Moment { order, micros: order };
        Operation {
            client: 0,
            node: 0,
            key: 0,
            action,
            invoked: moment(from),
            returned: moment(to),
            answer,
        }
    }

    fn finding(operations: &[Operation]) -> Finding {
        check_register(&operations.iter().collect::<Vec<_>>())
    }

    fn write(value: u32, from: u64, to: u64) -> Operation {
        operation(Action::Write(value), Answer::Applied, from, to)
    }

    fn read(value: u32, from: u64, to: u64) -> Operation {
        operation(Action::Read, Answer::Value(value), from, to)
    }

    #[test]
    fn a_read_after_a_write_sees_it() {
        assert_eq!(finding(&[write(1, 0, 1), read(1, 2, 3)]), Finding::Linearizable);
        assert!(matches!(
            finding(&[write(1, 0, 1), read(0, 2, 3)]),
            Finding::Violation(_)
        ));
        assert_eq!(finding(&[write(1, 0, 3), read(0, 1, 2)]), Finding::Linearizable);
    }

    #[test]
    fn two_reads_do_not_go_back_in_time() {
        let back = [write(1, 0, 1), write(2, 2, 9), read(2, 3, 4), read(1, 5, 6)];
        assert!(matches!(finding(&back), Finding::Violation(_)));
        let forth = [write(1, 0, 1), write(2, 2, 9), read(1, 3, 4), read(2, 5, 6)];
        assert_eq!(finding(&forth), Finding::Linearizable);
    }

    #[test]
    fn an_unknown_write_may_happen_late_or_never_but_not_early_and_not_twice() {
        let unknown = |from, to| operation(Action::Write(7), Answer::Unknown, from, to);
        assert_eq!(
            finding(&[unknown(0, 1), write(1, 2, 3), read(1, 4, 5), read(7, 6, 8)]),
            Finding::Linearizable
        );
        assert_eq!(
            finding(&[unknown(0, 1), write(1, 2, 3), read(1, 4, 5)]),
            Finding::Linearizable
        );
        assert!(matches!(
            finding(&[read(7, 0, 1), unknown(2, 3)]),
            Finding::Violation(_)
        ));
        let twice = [
            unknown(0, 1),
            read(7, 2, 3),
            write(1, 4, 5),
            read(1, 6, 7),
            read(7, 8, 9),
        ];
        assert!(matches!(finding(&twice), Finding::Violation(_)));
    }

    #[test]
    fn an_unseen_write_may_be_what_a_mismatch_met() {
        let cas = operation(Action::Cas { expected: 1, new: 2 }, Answer::Mismatch, 4, 5);
        assert!(matches!(
            finding(&[write(1, 0, 1), cas.clone()]),
            Finding::Violation(_)
        ));
        let unseen = operation(Action::Write(3), Answer::Unknown, 2, 3);
        assert_eq!(finding(&[write(1, 0, 1), unseen, cas]), Finding::Linearizable);
    }

    #[test]
    fn of_two_cas_with_the_same_expectation_one_succeeds() {
        let cas = |new, from, to| operation(Action::Cas { expected: 1, new }, Answer::Applied, from, to);
        assert_eq!(
            finding(&[write(1, 0, 1), cas(2, 2, 3), read(2, 4, 5)]),
            Finding::Linearizable
        );
        assert!(matches!(
            finding(&[write(1, 0, 1), cas(2, 2, 6), cas(3, 3, 5)]),
            Finding::Violation(_)
        ));
    }

    #[test]
    fn a_deleted_register_is_absent() {
        let delete = operation(Action::Delete, Answer::Applied, 2, 3);
        assert_eq!(
            finding(&[write(1, 0, 1), delete.clone(), read(0, 4, 5)]),
            Finding::Linearizable
        );
        assert!(matches!(
            finding(&[write(1, 0, 1), delete, read(1, 4, 5)]),
            Finding::Violation(_)
        ));
    }

    /// Histories made by a real register with random delays are accepted; the same with one read changed
    /// to a value that was overwritten before the read began are refused. Compared with the definition:
    /// the generator knows where each operation took effect.
    #[test]
    fn histories_of_a_real_register_are_accepted_and_stale_ones_refused() {
        for seed in 0..100 {
            let mut history = real_history(seed);
            assert_eq!(finding(&history), Finding::Linearizable, "seed {seed}");
            if make_one_read_stale(&mut history, seed) {
                assert!(
                    matches!(finding(&history), Finding::Violation(_)),
                    "seed {seed}: {history:?}"
                );
            }
        }
    }

    /// Each operation takes effect in the middle of its span; one in fourteen is unknown.
    fn real_history(seed: u64) -> Vec<Operation> {
        let mut dice = Dice::new(seed);
        let mut history = Vec::new();
        let mut value = ABSENT;
        for number in 1..=100_u32 {
            // Moments are multiples of 1,000 with a unique offset, so that no two are equal.
            let effect = u64::from(number) * 1000;
            let unique = u64::from(number);
            let from = effect.saturating_sub(dice.between(0, 3) * 1000) + unique;
            let to = effect + dice.between(0, 3) * 1000 + 500 + unique;
            let unknown = dice.chance(7);
            let (action, answer) = match dice.below(4) {
                0 => (Action::Read, Answer::Value(value)),
                1 => (Action::Delete, Answer::Applied),
                2 => {
                    let expected = if dice.chance(50) { value } else { number + 1000 };
                    let hit = expected == value;
                    (
                        Action::Cas {
                            expected,
                            new: number,
                        },
                        if hit { Answer::Applied } else { Answer::Mismatch },
                    )
                }
                _ => (Action::Write(number), Answer::Applied),
            };
            let happens = !unknown || dice.chance(50);
            match (action, answer) {
                (Action::Write(new) | Action::Cas { new, .. }, Answer::Applied) if happens => value = new,
                (Action::Delete, _) if happens => value = ABSENT,
                _ => {}
            }
            history.push(operation(
                action,
                if unknown { Answer::Unknown } else { answer },
                from,
                to,
            ));
        }
        history
    }

    /// Changes one read to a value that a finished write, itself followed by another finished write, had
    /// put there. False if the history has no such place.
    fn make_one_read_stale(history: &mut [Operation], seed: u64) -> bool {
        let finished: Vec<(u32, u64, u64)> = history
            .iter()
            .filter_map(|operation| match (operation.action, operation.answer) {
                (Action::Write(value), Answer::Applied) => {
                    Some((value, operation.invoked.order, operation.returned.order))
                }
                _ => None,
            })
            .collect();
        let mut dice = Dice::new(seed ^ 0xBAD);
        let mut reads: Vec<usize> = (0..history.len())
            .filter(|at| matches!(history[*at].answer, Answer::Value(_)))
            .collect();
        while !reads.is_empty() {
            let at = reads.swap_remove(dice.below(reads.len()));
            let began = history[at].invoked.order;
            let stale = finished.iter().find(|(_, _, returned)| {
                finished
                    .iter()
                    .any(|(_, invoked, over)| invoked > returned && *over < began)
            });
            if let Some((value, _, _)) = stale {
                history[at].answer = Answer::Value(*value);
                return true;
            }
        }
        false
    }
}
