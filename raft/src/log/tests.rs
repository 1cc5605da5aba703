//! The log view against a plain vector, over random operations. The seed is printed on failure.

use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::Log;
use crate::entry::{Entry, EntryKind};
use crate::recovered::Recovered;
use crate::types::{EntryId, Index, LogBase, Term};
use crate::writes::Writes;

/// Everything the log ever needs to know, kept the simple way.
struct Model {
    base: LogBase,
    entries: Vec<Entry>,
    durable: Index,
}

impl Model {
    fn last(&self) -> EntryId {
        self.entries.last().map_or(self.base.id, |entry| entry.id)
    }

    fn get(&self, index: Index) -> Option<&Entry> {
        self.entries
            .get(index.0.checked_sub(self.base.id.index.0 + 1)? as usize)
    }

    fn term(&self, index: Index) -> Option<Term> {
        if index == self.base.id.index {
            Some(self.base.id.term)
        } else {
            self.get(index).map(Entry::term)
        }
    }

    fn agreeable(&self, asked: EntryId) -> EntryId {
        let all = self.entries.iter().rev();
        all.map(|entry| entry.id)
            .find(|id| id.index <= asked.index && id.term <= asked.term)
            .unwrap_or(self.base.id)
    }
}

fn below(rng: &mut ChaCha8Rng, end: u64) -> u64 {
    rng.next_u64() % end.max(1)
}

fn check(log: &Log, model: &Model, rng: &mut ChaCha8Rng) {
    assert_eq!(log.base(), model.base);
    assert_eq!(log.last(), model.last());
    assert_eq!(log.durable(), model.durable);
    let (first, last) = (model.base.id.index.0, model.last().index.0);
    for index in first.saturating_sub(2)..last + 3 {
        assert_eq!(
            log.term(Index(index)),
            model.term(Index(index)),
            "term at {index}"
        );
    }
    for _ in 0..4 {
        let asked = EntryId {
            term: Term(below(rng, 9)),
            index: Index(first + below(rng, last - first + 4)),
        };
        assert_eq!(
            log.agreeable(asked),
            model.agreeable(asked),
            "agreeable for {asked:?}"
        );
    }
    let cached = log.first_cached();
    assert!(
        cached.0 <= model.durable.0 + 1,
        "an entry that is not durable left the cache"
    );
    for index in cached.0..=last {
        assert_eq!(log.cached(Index(index)), model.get(Index(index)));
        assert_eq!(
            log.checksum(Index(index)),
            model.get(Index(index)).map(|entry| entry.checksum)
        );
    }
    let from = Index(first + 1 + below(rng, last - first + 1));
    let end = Index(from.0 + below(rng, 6));
    let bytes_max = below(rng, 400) as usize;
    let Some(slice) = log.cached_from(from, end, bytes_max) else {
        assert!(from < cached || cached > Index(last));
        return;
    };
    let wanted: Vec<Entry> = (from.0..end.0)
        .map_while(|index| model.get(Index(index)).cloned())
        .collect();
    assert_eq!(slice[..], wanted[..slice.len()]);
    assert_eq!(slice.is_empty(), wanted.is_empty());
    let bytes: usize = slice.iter().map(Entry::size_bytes).sum();
    assert!(
        bytes <= bytes_max || slice.len() <= 1,
        "{bytes} bytes of {bytes_max}"
    );
}

#[test]
fn log_behaves_like_a_vector() {
    for seed in 0..300 {
        let result = std::panic::catch_unwind(|| walk(seed));
        assert!(result.is_ok(), "seed {seed}");
    }
}

fn walk(seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let retained = [0, 300, 5_000][below(&mut rng, 3) as usize];
    let mut log = Log::new(&Recovered::default(), retained);
    let mut model = Model {
        base: LogBase::default(),
        entries: Vec::new(),
        durable: Index(0),
    };
    let mut term = Term(1);
    for _ in 0..120 {
        match below(&mut rng, 10) {
            0..=3 => {
                let payload = Bytes::from(vec![7; below(&mut rng, 100) as usize]);
                let entry = log.seal_next(term.max(log.last().term), EntryKind::Command, payload);
                log.append(entry.clone());
                model.entries.push(entry);
            }
            4 => term = term.next(),
            5 if !model.entries.is_empty() => {
                let kept = below(&mut rng, model.entries.len() as u64) as usize;
                let from = model.entries[kept].index();
                log.truncate_from(from, model.entries[kept].previous);
                model.entries.truncate(kept);
                model.durable = model.durable.min(from.prev());
            }
            6 | 7 => {
                let gap = log.last().index.0 - model.durable.0;
                let index = Index(model.durable.0 + below(&mut rng, gap + 1));
                log.persisted(index);
                model.durable = index;
            }
            8 => log.evict(below(&mut rng, 600) as usize),
            _ => {
                let limit = model.durable;
                let cut = log.cut_before(limit, retained);
                assert!(cut <= limit);
                if cut > model.base.id.index {
                    let entry = model.get(cut).unwrap().clone();
                    model.base = LogBase {
                        id: entry.id,
                        checksum: entry.checksum,
                    };
                    log.compact_to(model.base);
                    model.entries.retain(|kept| kept.index() > cut);
                }
            }
        }
        check(&log, &model, &mut rng);
    }
}

#[test]
fn a_cut_keeps_about_the_retained_bytes() {
    let retained = 10_000;
    let mut log = Log::new(&Recovered::default(), retained);
    for _ in 0..1_000 {
        let entry = log.seal_next(Term(1), EntryKind::Command, Bytes::from_static(&[0; 36]));
        log.append(entry);
    }
    log.persisted(Index(1_000));
    let cut = log.cut_before(Index(900), retained).0;
    // 100 bytes an entry: a hundred of them before the limit, to within a mark.
    assert!((798..=802).contains(&cut), "cut at {cut}");
    assert_eq!(log.cut_before(Index(50), retained), Index(0));
}

#[test]
fn recovered_entries_of_unknown_size_are_given_up_bit_by_bit() {
    let recovered = Recovered {
        terms: vec![(Index(1), Term(1))],
        last: EntryId {
            term: Term(1),
            index: Index(1_000),
        },
        ..Recovered::default()
    };
    let mut log = Log::new(&recovered, 100_000);
    assert_eq!(log.cut_before(Index(1_000), 100_000), Index(0));
    for _ in 0..500 {
        let entry = log.seal_next(Term(1), EntryKind::Command, Bytes::from_static(&[0; 36]));
        log.append(entry);
    }
    log.persisted(Index(1_500));
    // 50,000 new bytes push out half of the 100,000 that the old entries are taken for.
    let cut = log.cut_before(Index(1_500), 100_000).0;
    assert!((495..=505).contains(&cut), "cut at {cut}");
}

/// R13: entries 5 and 6 of term 1 are being written, are replaced by 5 of term 2, and come back. The
/// first completion proves nothing about them any more.
#[test]
fn a_completion_of_an_overwritten_entry_proves_nothing() {
    let mut writes = Writes::new(crate::types::HardState::default(), Index(4));
    let first = writes.submit(None, Index(6));
    writes.truncate_from(Index(5));
    let second = writes.submit(None, Index(5));
    writes.truncate_from(Index(5));
    let third = writes.submit(None, Index(6));
    assert_eq!(writes.confirm(first), Some(Index(4)));
    assert_eq!(writes.confirm(second), Some(Index(4)));
    assert_eq!(writes.confirm(third), Some(Index(6)));
    assert_eq!(writes.confirm(third), None);
}
