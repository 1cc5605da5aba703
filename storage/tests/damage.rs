//! Damage: flipped bits, zeroed sectors, missing files. The outcome is "nothing acknowledged is lost" or
//! "refused / suspect", never silence; and the one documented limit is shown as what it is.

use std::path::{Path, PathBuf};

use raft::{Boot, Index, NodeId, Persist, Term};
use storage::journal::{Database, Scan, scan, scan_folder};
use storage::mark::{SLOT_BYTES, SLOT_STRIDE, Slots};
use storage::{Finding, OpenError};

use crate::support::{
    Node, content, copy_folder, form, newest_journal, open, options, temp_dir, write_sparse,
};

/// A node of three with three synced batches of four entries, as the damage table of fjall was measured;
/// the last entries lie above the mark when `marked` is false.
struct Sample {
    dir: tempfile::TempDir,
    /// Offsets at which the batches of this run begin, and the end.
    batches: Vec<usize>,
    journal: PathBuf,
}

const ENTRIES: u64 = 12;

fn sample(ids: &[u64], marked: bool) -> Sample {
    let dir = temp_dir();
    form(dir.path(), ids);
    let mut node = Node::open(dir.path());
    let mut batches = Vec::new();
    let copy = temp_dir();
    for batch in 0..3u8 {
        let payloads: Vec<Vec<u8>> = (0..4).map(|n| vec![b'a' + 4 * batch + n; 40]).collect();
        let payloads: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
        batches.push(content(&newest_journal(&dir.path().join("wal"))).len());
        node.append(1, &payloads).unwrap();
    }
    batches.push(content(&newest_journal(&dir.path().join("wal"))).len());
    if marked {
        node.close();
        let journal = newest_journal(&dir.path().join("wal"))
            .file_name()
            .unwrap()
            .into();
        return Sample {
            dir,
            batches,
            journal,
        };
    }
    // A crash right now: the mark is where the start left it.
    copy_folder(dir.path(), copy.path());
    node.close();
    let journal = newest_journal(&copy.path().join("wal"))
        .file_name()
        .unwrap()
        .into();
    Sample {
        dir: copy,
        batches,
        journal,
    }
}

/// What an open of a damaged copy came to.
#[derive(Debug, PartialEq)]
enum Outcome {
    /// Everything is there.
    Whole,
    /// It starts, and counts for nothing.
    Suspect,
    /// It does not start, and says why.
    Refused(String),
    /// Entries are missing and nobody says so.
    Silent { last: u64 },
}

impl Sample {
    fn damaged(&self, change: impl FnOnce(&mut Vec<u8>)) -> tempfile::TempDir {
        let copy = temp_dir();
        copy_folder(self.dir.path(), copy.path());
        let path = copy.path().join("wal").join(&self.journal);
        let mut bytes = content(&path);
        change(&mut bytes);
        write_sparse(&path, &bytes, 64 << 20);
        copy
    }

    fn outcome(&self, change: impl FnOnce(&mut Vec<u8>)) -> Outcome {
        outcome(self.damaged(change).path())
    }
}

fn outcome(dir: &Path) -> Outcome {
    let opened = match open(dir) {
        Ok(opened) => opened,
        Err(error) => return Outcome::Refused(error.to_string()),
    };
    if opened.recovered.suspicion.is_some() {
        return Outcome::Suspect;
    }
    let node = Node::start(opened);
    let last = node.recovered.last.index.0;
    if last != ENTRIES + 1 {
        return Outcome::Silent { last };
    }
    for (n, payload) in node.payloads()[1..].iter().enumerate() {
        assert_eq!(
            *payload,
            vec![b'a' + n as u8; 40],
            "entry {} is another one",
            n + 2
        );
    }
    Outcome::Whole
}

/// Every row of the table of fjall's own behaviour (docs/storage-format.md), below the mark.
#[test]
fn r21_every_row_of_the_damage_table_is_suspect() {
    let sample = sample(&[1, 2, 3], true);
    let [first, second, third, end] = sample.batches[..] else {
        panic!("three batches")
    };
    type Damage = Box<dyn FnOnce(&mut Vec<u8>)>;
    let rows: Vec<(&str, Damage)> = vec![
        (
            "file cut inside the last batch",
            Box::new(move |b| b.truncate(third + 60)),
        ),
        (
            "end marker of the last batch zero",
            Box::new(move |b| b[end - 13..].fill(0)),
        ),
        (
            "last batch: value wrong",
            Box::new(move |b| b[third + 13 + 29 + 35] ^= 1),
        ),
        (
            "last batch: zeros inside a value",
            Box::new(move |b| b[third + 80..third + 100].fill(0)),
        ),
        (
            "middle batch: value flipped",
            Box::new(move |b| b[second + 13 + 29 + 35] ^= 1),
        ),
        ("middle batch: start tag", Box::new(move |b| b[second] = 9)),
        ("middle batch: item tag", Box::new(move |b| b[second + 13] = 9)),
        ("first batch: trailer", Box::new(move |b| b[second - 1] = 0)),
        (
            "middle batch: item count less",
            Box::new(move |b| b[second + 1] -= 1),
        ),
        (
            "middle batch: item count more",
            Box::new(move |b| b[second + 1] += 1),
        ),
        (
            "middle batch: sequence number",
            Box::new(move |b| b[second + 5 + 3] ^= 0x40),
        ),
        (
            "first batch: sequence number",
            Box::new(move |b| b[first + 5 + 3] ^= 0x40),
        ),
        (
            "a zeroed sector in the middle",
            Box::new(move |b| b[second & !511..(second & !511) + 512].fill(0)),
        ),
        (
            "a flipped bit in a length byte",
            Box::new(move |b| b[second + 13 + 11] ^= 4),
        ),
        ("everything gone", Box::new(|b| b.clear())),
    ];
    for (name, damage) in rows {
        assert_eq!(sample.outcome(damage), Outcome::Suspect, "{name}");
    }
}

/// The same, with the last batch acknowledged but above the mark: what lies before it is proven, damage
/// in it looks like a write that was never acknowledged. This is the known limit.
#[test]
fn r20_a_torn_tail_above_the_mark_is_cut_and_the_known_limit_is_the_last_batch() {
    let sample = sample(&[1, 2, 3], false);
    let [_, second, third, end] = sample.batches[..] else {
        panic!("three batches")
    };
    assert_eq!(sample.outcome(|_| ()), Outcome::Whole);
    assert_eq!(
        sample.outcome(|b| b[second + 60] ^= 1),
        Outcome::Suspect,
        "a later batch proves it"
    );
    assert_eq!(
        sample.outcome(|b| b.truncate(third + 60)),
        Outcome::Silent { last: 9 }
    );
    assert_eq!(sample.outcome(|b| b[end - 1] = 0), Outcome::Silent { last: 9 });
    let dir = sample.damaged(|b| b.truncate(third + 60));
    let opened = open(dir.path()).unwrap();
    let Some(Finding::TornTail { offset, copy, .. }) = opened.findings.first() else {
        panic!("the cut is told: {:?}", opened.findings)
    };
    assert_eq!(*offset as usize, third);
    let kept = std::fs::read(copy).unwrap();
    let cut = &content(&sample.dir.path().join("wal").join(&sample.journal))[third..third + 60];
    assert!(
        kept.len() > 40 && cut.starts_with(&kept),
        "what was cut off is kept, but for zeros"
    );
}

/// A sequence number that leaps ahead makes every later batch look out of order: they are intact all the
/// same and prove that what lies before them was synced. Acknowledged, above the mark: must not pass for
/// a torn write.
#[test]
fn r21_a_flipped_sequence_number_above_the_mark_is_never_taken_for_a_torn_tail() {
    let sample = sample(&[1, 2, 3], false);
    for batch in &sample.batches[..3] {
        for bit in 0..64 {
            let outcome = sample.outcome(|b| b[batch + 5 + bit / 8] ^= 1 << (bit % 8));
            let is_last = *batch == sample.batches[2];
            // In the last batch it keeps the order or is the known limit.
            let limit = is_last && outcome == Outcome::Silent { last: 9 };
            assert!(
                matches!(outcome, Outcome::Whole | Outcome::Suspect) || limit,
                "batch at {batch}, bit {bit}: {outcome:?}"
            );
        }
    }
}

/// The same in the only batch of a new journal: an intact batch is no torn write.
#[test]
fn r21_an_intact_batch_out_of_order_after_a_rotation_is_damage() {
    let sample = sample(&[1, 2, 3], true);
    let bytes = content(&sample.dir.path().join("wal").join(&sample.journal));
    let [_, second, third, end] = sample.batches[..] else {
        panic!("three batches")
    };
    let dir = temp_dir();
    std::fs::write(dir.path().join("0.jnl"), &bytes[..third]).unwrap();
    std::fs::write(dir.path().join("1.jnl"), &bytes[third..end]).unwrap();
    assert!(!scan_folder(dir.path(), Database::Wal).unwrap().is_damaged());
    std::fs::write(dir.path().join("1.jnl"), &bytes[second..third]).unwrap();
    assert!(scan_folder(dir.path(), Database::Wal).unwrap().is_damaged());
}

/// Each bit of the journal, on the scanner alone: a change is found, or it changes nothing that is read.
#[test]
fn r21_every_flipped_bit_of_a_journal_is_found_by_the_scanner() {
    let sample = sample(&[1, 2, 3], true);
    let bytes = content(&sample.dir.path().join("wal").join(&sample.journal));
    let whole = scan(&bytes);
    assert!(whole.bad.is_none());
    let items = |bytes: &[u8]| {
        let mut items = Vec::new();
        let scan = storage::journal::scan_items(bytes, &mut |item| {
            items.push((
                item.keyspace,
                item.key.to_vec(),
                item.value.to_vec(),
                item.removed,
            ));
        });
        (scan, items)
    };
    let (_, expected) = items(&bytes);
    let mut passed = Vec::new();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let (scan, found) = items(&flipped);
        if scan.bad.is_some() {
            continue;
        }
        // Only a sequence number that keeps the order may pass; it changes no key and no value.
        assert_eq!(found, expected, "bit {bit} changed what is read");
        let order: (Option<u64>, Option<u64>) = (scan.sequences.map(|s| s.0), scan.sequences.map(|s| s.1));
        assert!(order.0 < order.1);
        passed.push(bit);
    }
    // They lie in the sequence numbers of the batches: at most 62 of the 64 bits of each.
    assert!(
        passed.len() as u64 <= whole.batches * 64,
        "{} bits passed",
        passed.len()
    );
}

/// A sample of the same flips through a whole open: entries are never lost or changed in silence.
#[test]
fn r21_flipped_bits_below_the_mark_never_pass_in_silence() {
    let sample = sample(&[1, 2, 3], true);
    let length = content(&sample.dir.path().join("wal").join(&sample.journal)).len();
    for byte in (0..length).step_by(23) {
        let outcome = sample.outcome(|bytes| bytes[byte] ^= 1 << (byte % 8));
        assert!(
            matches!(outcome, Outcome::Whole | Outcome::Suspect),
            "byte {byte}: {outcome:?}"
        );
    }
}

#[test]
fn r21_a_zeroed_sector_anywhere_below_the_mark_is_suspect() {
    let sample = sample(&[1, 2, 3], true);
    let length = content(&sample.dir.path().join("wal").join(&sample.journal)).len();
    for sector in 0..length.div_ceil(512) {
        let outcome = sample.outcome(|bytes| {
            let end = ((sector + 1) * 512).min(bytes.len());
            bytes[sector * 512..end].fill(0);
        });
        assert_eq!(outcome, Outcome::Suspect, "sector {sector}");
    }
}

#[test]
fn r51_suspicion_survives_restarts_until_a_leader_lifts_it() {
    let sample = sample(&[1, 2, 3], true);
    let dir = sample.damaged(|bytes| bytes.truncate(bytes.len() - 20));
    let since = open(dir.path()).unwrap().recovered.suspicion;
    assert_eq!(since, Some(Boot(2)));
    // Refilled by a leader, restarted twice: still suspect, with the same number.
    let mut node = Node::open(dir.path());
    node.append(1, &[b"refilled", b"refilled", b"refilled", b"refilled"])
        .unwrap();
    node.close();
    let mut node = Node::open(dir.path());
    assert_eq!(node.recovered.suspicion, since);
    node.persist(Persist {
        clear_suspicion: true,
        ..Persist::default()
    })
    .unwrap();
    node.close();
    let node = Node::open(dir.path());
    assert_eq!(node.recovered.suspicion, None);
}

/// What a suspect has lost again it must be refilled with again: the suspicion gets a new name, so that a
/// leader that was about to lift the old one starts anew.
#[test]
fn r51_a_suspect_that_loses_more_is_suspect_anew() {
    let sample = sample(&[1, 2, 3], true);
    let dir = sample.damaged(|bytes| bytes.truncate(bytes.len() - 20));
    let mut node = Node::open(dir.path());
    assert_eq!(node.recovered.suspicion, Some(Boot(2)));
    node.append(1, &[b"refilled", b"refilled"]).unwrap();
    node.close();
    let path = newest_journal(&dir.path().join("wal"));
    let bytes = content(&path);
    write_sparse(&path, &bytes[..bytes.len() - 20], 64 << 20);
    let opened = open(dir.path()).unwrap();
    assert_eq!(opened.recovered.suspicion, Some(Boot(3)), "{:?}", opened.findings);
    assert_eq!(opened.identity.boot, Boot(3));
    drop(opened);
    // Nothing more is lost: the name stays.
    assert_eq!(open(dir.path()).unwrap().recovered.suspicion, Some(Boot(3)));
}

#[test]
fn r51_a_rotten_slot_does_not_forget_a_suspicion() {
    let sample = sample(&[1, 2, 3], true);
    for slot in 0..2 {
        let dir = sample.damaged(|bytes| bytes.truncate(bytes.len() - 20));
        assert_eq!(outcome(dir.path()), Outcome::Suspect);
        let mut bytes = std::fs::read(dir.path().join("mark")).unwrap();
        bytes[slot * SLOT_STRIDE as usize + 30] ^= 1;
        std::fs::write(dir.path().join("mark"), bytes).unwrap();
        assert_eq!(outcome(dir.path()), Outcome::Suspect, "slot {slot}");
    }
}

#[test]
fn r51_suspicion_is_in_the_mark_before_anything_is_cut() {
    let sample = sample(&[1, 2, 3], true);
    let second = sample.batches[1];
    let dir = sample.damaged(|bytes| bytes[second + 60] ^= 1);
    let path = dir.path().to_owned();
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = seen.clone();
    let faults = storage::fault::Faults::new(move |point| {
        if point == storage::fault::Point::JournalCut {
            let Slots::Read { mark, .. } = Slots::read(&path.join("mark")).unwrap() else {
                panic!("no mark")
            };
            log.lock().unwrap().push(mark.suspicion);
            return Err(std::io::Error::other("a crash before the cut"));
        }
        Ok(())
    });
    assert!(crate::support::open_with(dir.path(), faults).is_err());
    assert_eq!(*seen.lock().unwrap(), [Some(Boot(2))]);
    assert_eq!(
        open(dir.path()).unwrap().recovered.suspicion,
        Some(Boot(3)),
        "found again, named anew"
    );
}

#[test]
fn a_lone_suspect_is_refused_and_accept_loss_goes_on_without_what_is_missing() {
    let sample = sample(&[1], true);
    let third = sample.batches[2];
    let dir = sample.damaged(|bytes| bytes.truncate(third + 60));
    for _ in 0..2 {
        let Err(error) = open(dir.path()) else {
            panic!("a lone suspect serves")
        };
        assert!(
            matches!(error, OpenError::LoneSuspect { since: Boot(2), .. }),
            "{error}"
        );
        assert!(
            error.to_string().contains("rnacos recover accept-loss"),
            "{error}"
        );
    }
    let seen = storage::recover::inspect(dir.path()).unwrap();
    assert!(seen.lone);
    assert!(seen.to_string().contains("SUSPECT"), "{seen}");
    let report = storage::recover::accept_loss(dir.path()).unwrap();
    assert_eq!(
        (report.last.index, report.synced_before),
        (Index(9), Some(Index(13)))
    );
    let mut node = Node::open(dir.path());
    assert_eq!(node.recovered.suspicion, None);
    assert_eq!(node.recovered.last.index, Index(9));
    node.append(1, &[b"on"]).unwrap();
}

#[test]
fn damage_of_a_lone_node_is_not_cut_before_its_operator_says_so() {
    let sample = sample(&[1], true);
    let second = sample.batches[1];
    let dir = sample.damaged(|bytes| bytes[second + 60] ^= 1);
    let before = content(&dir.path().join("wal").join(&sample.journal));
    let Err(error) = open(dir.path()) else {
        panic!("a lone suspect serves")
    };
    assert!(error.to_string().contains("checksum"), "{error}");
    assert_eq!(
        content(&dir.path().join("wal").join(&sample.journal)),
        before,
        "the evidence was touched"
    );
}

#[test]
fn force_single_makes_a_member_the_only_voter_of_another_cluster() {
    let sample = sample(&[1, 2, 3], true);
    let dir = sample.damaged(|bytes| bytes.truncate(bytes.len() - 20));
    assert_eq!(outcome(dir.path()), Outcome::Suspect);
    let report = storage::recover::force_single(dir.path(), storage::ClusterId(0xd2)).unwrap();
    let opened = open(dir.path()).unwrap();
    assert_eq!(opened.cluster_id, storage::ClusterId(0xd2));
    assert_eq!(opened.recovered.suspicion, None);
    let (index, configuration) = opened.recovered.configurations.last().unwrap();
    assert_eq!(*index, report.last.index);
    assert_eq!(configuration.voters, [NodeId(1)].into());
    assert_eq!(configuration.members.len(), 1);
    assert!(opened.recovered.last.term > Term(1));
}

#[test]
fn every_flipped_bit_of_the_mark_is_found() {
    let dir = temp_dir();
    form(dir.path(), &[1, 2, 3]);
    Node::open(dir.path()).close();
    let good = std::fs::read(dir.path().join("mark")).unwrap();
    let Slots::Read {
        mark, one_bad: false, ..
    } = Slots::parse(&good)
    else {
        panic!("two good slots")
    };
    for slot in 0..2 {
        for bit in 0..SLOT_BYTES * 8 {
            let mut bytes = good.clone();
            bytes[slot * SLOT_STRIDE as usize + bit / 8] ^= 1 << (bit % 8);
            let Slots::Read {
                mark: found,
                one_bad: true,
                ..
            } = Slots::parse(&bytes)
            else {
                panic!("slot {slot} bit {bit} passed")
            };
            assert_eq!(found, mark);
        }
    }
}

#[test]
fn one_bad_slot_is_healed_and_with_a_cut_tail_it_makes_suspect() {
    let sample = sample(&[1, 2, 3], false);
    let third = sample.batches[2];
    let spoil = |dir: &Path| {
        let mut bytes = std::fs::read(dir.join("mark")).unwrap();
        bytes[20] ^= 1;
        std::fs::write(dir.join("mark"), bytes).unwrap();
    };
    let dir = sample.damaged(|_| ());
    spoil(dir.path());
    let opened = open(dir.path()).unwrap();
    assert_eq!(opened.recovered.suspicion, None);
    assert!(opened.findings.contains(&Finding::MarkSlot));
    drop(opened);
    assert!(
        open(dir.path()).unwrap().findings.is_empty(),
        "the slot is healed"
    );

    let dir = sample.damaged(|bytes| bytes.truncate(third + 60));
    spoil(dir.path());
    assert_eq!(outcome(dir.path()), Outcome::Suspect);
}

#[test]
fn r30_without_a_mark_a_member_is_wiped_and_says_what_to_do() {
    for ids in [&[1u64][..], &[1, 2, 3]] {
        for lose in [
            |path: &Path| std::fs::remove_file(path),
            |path: &Path| std::fs::write(path, [0; 8192]),
        ] {
            let sample = sample(ids, true);
            lose(&sample.dir.path().join("mark")).unwrap();
            let Err(error) = open(sample.dir.path()) else {
                panic!("it forgot its votes and starts")
            };
            assert!(matches!(error, OpenError::MarkLost { .. }), "{error}");
            assert!(error.to_string().contains("RNACOS_RAFT_JOIN_ADDR"), "{error}");
            let accepted = storage::recover::accept_loss(sample.dir.path());
            if ids.len() == 1 {
                assert_eq!(accepted.unwrap().last.index, Index(13));
                let opened = open(sample.dir.path()).unwrap();
                assert!(opened.identity.boot > Boot(2), "boots rise over the loss");
                assert_eq!(opened.recovered.suspicion, None);
            } else {
                assert!(matches!(accepted, Err(OpenError::MarkLost { .. })));
            }
        }
    }
}

#[test]
fn r45_two_votes_in_one_term_are_refused() {
    let dir = temp_dir();
    form(dir.path(), &[1, 2, 3]);
    let copy = temp_dir();
    let mut node = Node::open(dir.path());
    node.vote(4, 2).unwrap();
    copy_folder(dir.path(), copy.path());
    node.close();
    // The mark of another history of the same node.
    let slots = Slots::read(&copy.path().join("mark")).unwrap();
    let Slots::Read {
        mut mark, sequence, ..
    } = slots
    else {
        panic!("a mark")
    };
    mark.vote = Some(NodeId(3));
    let mut bytes = vec![0; 8192];
    for (slot, sequence) in [(0, sequence), (1, sequence + 1)] {
        let at = slot * SLOT_STRIDE as usize;
        bytes[at..at + SLOT_BYTES].copy_from_slice(&storage::mark::encode_slot(sequence, &mark));
    }
    std::fs::write(copy.path().join("mark"), bytes).unwrap();
    let Err(error) = open(copy.path()) else {
        panic!("two votes")
    };
    assert!(
        matches!(error, OpenError::TwoVotes { term: Term(4), .. }),
        "{error}"
    );
}

#[test]
fn r46_a_log_cut_below_the_applied_point_starts_anew_there_and_stays_suspect() {
    let sample = sample(&[1, 2, 3], true);
    let node = Node::open(sample.dir.path());
    node.apply_to(13);
    node.tables.sync().unwrap();
    node.close();
    let path = newest_journal(&sample.dir.path().join("wal"));
    let third = sample.batches[2];
    let bytes = content(&path);
    write_sparse(&path, &bytes[..third + 60], 64 << 20);
    let opened = open(sample.dir.path()).unwrap();
    assert!(opened.recovered.suspicion.is_some());
    assert_eq!(opened.recovered.base.id.index, Index(13));
    assert_eq!(opened.recovered.last.index, Index(13));
    assert_eq!(opened.recovered.applied, Index(13));
    assert_eq!(
        opened.recovered.configurations.last().unwrap().1.voters.len(),
        3,
        "the membership is known"
    );
    drop(opened);
    let mut node = Node::open(sample.dir.path());
    node.append(1, &[b"from the leader"]).unwrap();
    node.close();
    let node = Node::open(sample.dir.path());
    assert_eq!(node.recovered.last.index, Index(14));
    assert!(node.recovered.suspicion.is_some());
}

#[test]
fn lost_databases_are_suspect_or_rebuilt_never_silently_empty() {
    // wal/ gone: suspect, from the applied point.
    let sample_a = sample(&[1, 2, 3], true);
    let node = Node::open(sample_a.dir.path());
    node.apply_to(8);
    node.tables.sync().unwrap();
    node.close();
    std::fs::remove_dir_all(sample_a.dir.path().join("wal")).unwrap();
    let opened = open(sample_a.dir.path()).unwrap();
    assert!(opened.recovered.suspicion.is_some());
    assert_eq!(opened.recovered.last.index, Index(8));
    drop(opened);
    // state/ gone, log whole from its beginning: applied again, clean.
    let sample_b = sample(&[1, 2, 3], true);
    std::fs::remove_dir_all(sample_b.dir.path().join("state")).unwrap();
    let opened = open(sample_b.dir.path()).unwrap();
    assert_eq!(
        (opened.recovered.suspicion, opened.recovered.applied),
        (None, Index(0))
    );
    drop(opened);
    // A manifest of fjall gone: what it does with that is its business, ours is not to be silent.
    let sample_c = sample(&[1, 2, 3], true);
    std::fs::remove_dir_all(sample_c.dir.path().join("wal/keyspaces/0")).unwrap();
    assert_eq!(outcome(sample_c.dir.path()), Outcome::Suspect);
}

#[test]
fn r26_a_missing_journal_is_damage() {
    let dir = temp_dir();
    for number in [3, 5] {
        std::fs::write(dir.path().join(format!("{number}.jnl")), []).unwrap();
    }
    assert!(scan_folder(dir.path(), Database::Wal).unwrap().is_damaged());
    std::fs::write(dir.path().join("4.jnl"), []).unwrap();
    assert!(!scan_folder(dir.path(), Database::Wal).unwrap().is_damaged());
}

#[test]
fn damage_in_a_sealed_journal_is_damage_in_both_databases() {
    let sample = sample(&[1, 2, 3], true);
    let bytes = content(&sample.dir.path().join("wal").join(&sample.journal));
    let dir = temp_dir();
    std::fs::write(dir.path().join("0.jnl"), &bytes[..bytes.len() - 3]).unwrap();
    let newest = |database| scan_folder(dir.path(), database).unwrap();
    assert!(!newest(Database::Wal).is_damaged());
    assert!(!newest(Database::State).is_damaged());
    std::fs::write(dir.path().join("1.jnl"), []).unwrap();
    assert!(newest(Database::Wal).is_damaged());
    assert!(newest(Database::State).is_damaged());
}

#[test]
fn the_scanner_survives_any_bytes_and_a_search_has_an_end() {
    use rand::{RngExt, SeedableRng};
    let seed = 0x5ca7;
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    for round in 0..300 {
        let length = random.random_range(0..4_000);
        let bytes: Vec<u8> = (0..length)
            .map(|_| [0, 1, 1, 2, 3, 4, 255][random.random_range(0..7)])
            .collect();
        let Scan { valid_bytes, .. } = scan(&bytes);
        assert!(valid_bytes <= length as u64, "seed {seed} round {round}");
    }
    // Starts nested in starts: the worst case for a search at every offset.
    let mut bytes = Vec::new();
    while bytes.len() < 1 << 20 {
        bytes.push(1);
        bytes.extend_from_slice(&u32::MAX.to_le_bytes());
        bytes.extend_from_slice(&1u64.to_le_bytes());
        bytes.extend_from_slice(&[4, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
    bytes[0] = 9;
    assert!(scan(&bytes).bad.is_some());
}

#[test]
fn r31_the_folder_of_another_node_is_refused() {
    let dir = temp_dir();
    form(dir.path(), &[1]);
    let options = storage::Options {
        node_id: Some(NodeId(9)),
        ..options()
    };
    let Err(error) = storage::Folder::open(dir.path()).unwrap().start(options) else {
        panic!("opened")
    };
    assert!(error.to_string().contains("RNACOS_RAFT_NODE_ID=1"), "{error}");
}
