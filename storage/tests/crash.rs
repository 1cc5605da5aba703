//! Crashes at every point where something becomes durable, power cuts inside every batch, failed I/O.
//!
//! A hook copies the folder at each point: that is what a crash of the process leaves. For a power cut
//! the bytes of the batch that was under way are cut, zeroed by sectors or kept out of order. Whatever
//! the image: it opens, without suspicion, with everything that was acknowledged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use raft::{EntryKind, HardState, Index, NodeId, Persist, Term};
use storage::Table;
use storage::fault::{Faults, Point};

use crate::support::{
    Node, content, copy_folder, form, form_with, members, newest_journal, open, read_sparse, temp_dir,
    write_sparse,
};

/// What has been acknowledged, and what is under way.
#[derive(Clone, Default)]
struct Promise {
    /// Payload of each acknowledged entry.
    entries: BTreeMap<u64, Vec<u8>>,
    /// Acknowledged term and vote.
    vote: (u64, Option<u64>),
    /// A truncation under way may already have taken these, and everything after.
    truncating_from: Option<u64>,
}

struct Image {
    point: Point,
    dir: PathBuf,
    promise: Promise,
}

/// Copies the folder at each point.
struct Camera {
    source: PathBuf,
    album: PathBuf,
    promise: Arc<Mutex<Promise>>,
    images: Arc<Mutex<Vec<Image>>>,
}

impl Camera {
    fn new(source: &Path, album: &Path) -> Camera {
        let (promise, images) = Default::default();
        Camera {
            source: source.to_owned(),
            album: album.to_owned(),
            promise,
            images,
        }
    }

    fn faults(&self) -> Faults {
        let (source, album) = (self.source.clone(), self.album.clone());
        let (promise, images) = (self.promise.clone(), self.images.clone());
        Faults::new(move |point| {
            let mut images = images.lock().unwrap();
            let dir = album.join(images.len().to_string());
            copy_folder(&source, &dir);
            images.push(Image {
                point,
                dir,
                promise: promise.lock().unwrap().clone(),
            });
            Ok(())
        })
    }

    fn promise(&self, change: impl FnOnce(&mut Promise)) {
        change(&mut self.promise.lock().unwrap());
    }
}

/// Opens an image twice (the first open repairs, the second must find nothing left to repair) and
/// compares with what was promised when it was taken.
fn check(image: &Image, name: &str) {
    for round in ["first", "second"] {
        let name = format!("{name}, {round} open");
        let opened = open(&image.dir).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(opened.recovered.suspicion, None, "{name}: {:?}", opened.findings);
        let node = Node::start(opened);
        let first = node.reader.first().0;
        for (index, payload) in &image.promise.entries {
            let may_be_cut = image.promise.truncating_from.is_some_and(|from| *index >= from);
            if *index < first || may_be_cut {
                continue;
            }
            let entries = node.reader.entries(Index(*index)..Index(index + 1), usize::MAX);
            let entries = entries.unwrap_or_else(|error| panic!("{name}: entry {index}: {error}"));
            assert_eq!(entries[0].payload, payload, "{name}: entry {index}");
        }
        let hard_state = node.recovered.hard_state;
        let (term, vote) = image.promise.vote;
        assert!(hard_state.term >= Term(term), "{name}: the term went back");
        if hard_state.term == Term(term) && vote.is_some() {
            assert_eq!(hard_state.vote, vote.map(NodeId), "{name}: the vote is forgotten");
        }
        assert!(
            node.recovered.applied >= node.recovered.base.id.index,
            "{name}: state behind the log"
        );
        assert!(
            node.recovered.applied <= node.recovered.last.index,
            "{name}: state ahead of the log"
        );
        let rows = node.tables.scan(Table(1), b"").map(|row| row.expect("a row").0);
        let expected = (1..=node.recovered.applied.0).map(|index| index.to_be_bytes().to_vec());
        assert!(rows.eq(expected), "{name}: rows beside their applied point");
        // It goes on.
        let mut node = node;
        let term = hard_state.term.0.max(node.recovered.last.term.0);
        node.append(term, &[b"after"])
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        node.close();
    }
}

/// A life with everything in it: appends, votes, a truncation, applying, a compaction, a snapshot.
fn live(node: &mut Node, camera: &Camera) {
    for round in 0..3u64 {
        let payload = format!("one {round}").into_bytes();
        node.append(1, &[&payload]).unwrap();
        camera.promise(|promise| drop(promise.entries.insert(round + 2, payload)));
    }
    node.vote(2, 3).unwrap();
    camera.promise(|promise| promise.vote = (2, Some(3)));
    // Lets the mark reach the end, so that the truncation goes below it (R44).
    camera.promise(|promise| promise.truncating_from = Some(3));
    let truncate_from = Some(node.truncation(3));
    let entries = node.next_entries(3, &[b"over", b"written"]);
    let hard_state = Some(HardState {
        term: Term(3),
        vote: None,
        ..node.hard_state
    });
    node.persist(Persist {
        truncate_from,
        entries,
        hard_state,
        ..Persist::default()
    })
    .unwrap();
    camera.promise(|promise| {
        promise.truncating_from = None;
        promise.entries.split_off(&3);
        promise.entries.insert(3, b"over".to_vec());
        promise.entries.insert(4, b"written".to_vec());
        promise.vote = (3, None);
    });
    let configuration = members(&[1, 2, 3]);
    let entry = node.next_entry(3, EntryKind::Configuration, &configuration.encode());
    node.persist(Persist {
        entries: vec![entry],
        ..Persist::default()
    })
    .unwrap();
    node.apply_to(4);
    let made = node.snapshots.make(&node.tables.view(), &members(&[1])).unwrap();
    assert_eq!(made.last.index, Index(4));
    node.tables.sync().unwrap();
    let compact_to = Some(node.point(3));
    node.persist(Persist {
        compact_to,
        ..Persist::default()
    })
    .unwrap();
}

#[test]
fn r16_r44_a_crash_at_every_point_loses_nothing() {
    let (dir, album) = (temp_dir(), temp_dir());
    form(dir.path(), &[1]);
    Node::open(dir.path()).close();
    let camera = Camera::new(dir.path(), album.path());
    let mut node = Node::open_with(dir.path(), camera.faults());
    live(&mut node, &camera);
    node.close();
    let images = camera.images.lock().unwrap();
    let seen = |point| images.iter().filter(|image| image.point == point).count();
    for point in [
        Point::WalCommit,
        Point::WalCommitted,
        Point::MarkSync,
        Point::StateCommit,
        Point::StateStored,
        Point::SnapshotRename,
    ] {
        assert!(seen(point) > 0, "the scenario never met {point:?}");
    }
    for (n, image) in images.iter().enumerate() {
        check(image, &format!("image {n} at {:?}", image.point));
    }
}

#[test]
fn r20_a_power_cut_inside_a_batch_leaves_what_was_acknowledged() {
    let (dir, album) = (temp_dir(), temp_dir());
    form(dir.path(), &[1]);
    let camera = Camera::new(dir.path(), album.path());
    let mut node = Node::open_with(dir.path(), camera.faults());
    for round in 0..3u64 {
        let payload = vec![b'a' + round as u8; 1_300];
        node.append(1, &[&payload, b"x"]).unwrap();
        camera.promise(|promise| {
            promise.entries.insert(2 * round + 2, payload);
            promise.entries.insert(2 * round + 3, b"x".to_vec());
        });
    }
    node.close();
    let images = camera.images.lock().unwrap();
    let mut variants = 0;
    for pair in images.windows(2) {
        if (pair[0].point, pair[1].point) == (Point::WalCommit, Point::WalCommitted) {
            variants += torn_variants(&pair[0], &pair[1], &album.path().join("torn"));
        }
    }
    assert!(variants >= 30, "{variants} variants");
}

/// Every way in which the bytes between `before` and `after` may have reached the disk.
fn torn_variants(before: &Image, after: &Image, scratch: &Path) -> usize {
    let journal = newest_journal(&after.dir.join("wal"));
    let old = content(&newest_journal(&before.dir.join("wal"))).len();
    let new = content(&journal);
    let length = std::fs::metadata(&journal).unwrap().len();
    let mut variants: Vec<(String, Vec<u8>)> = Vec::new();
    for cut in (old..new.len()).step_by(97) {
        variants.push((format!("cut at {cut}"), new[..cut].to_vec()));
    }
    let sectors = old / 512..new.len().div_ceil(512);
    for sector in sectors {
        // A sector of the new bytes is not there; what follows it is.
        let mut bytes = new.clone();
        let range = (sector * 512).max(old)..((sector + 1) * 512).min(new.len());
        bytes[range].fill(0);
        variants.push((format!("sector {sector} zeroed"), bytes));
    }
    let count = variants.len();
    for (name, bytes) in variants {
        let _ = std::fs::remove_dir_all(scratch);
        copy_folder(&after.dir, scratch);
        write_sparse(
            &scratch.join("wal").join(journal.file_name().unwrap()),
            &bytes,
            length,
        );
        let image = Image {
            point: after.point,
            dir: scratch.to_owned(),
            promise: before.promise.clone(),
        };
        check(&image, &name);
    }
    count
}

#[test]
fn r46_state_pages_arrive_in_any_order_and_the_log_brings_them_back() {
    let dir = temp_dir();
    form(dir.path(), &[1]);
    let mut node = Node::open(dir.path());
    for round in 0..4u64 {
        node.append(1, &[&[b'a' + round as u8; 700]]).unwrap();
        node.apply_journaled_to(round + 2);
    }
    node.close();
    let journal = newest_journal(&dir.path().join("state"));
    let (bytes, length) = read_sparse(&journal).unwrap();
    let used = content(&journal).len();
    let scratch = temp_dir();
    for sector in 0..used.div_ceil(512) {
        let image = scratch.path().join(sector.to_string());
        copy_folder(dir.path(), &image);
        let mut bytes = bytes.clone();
        bytes[sector * 512..((sector + 1) * 512).min(used)].fill(0);
        write_sparse(
            &image.join("state").join(journal.file_name().unwrap()),
            &bytes,
            length,
        );
        let node = Node::open(&image);
        assert_eq!(
            node.recovered.suspicion, None,
            "sector {sector}: {:?}",
            node.findings
        );
        assert_eq!(node.recovered.last.index, Index(5));
        assert!(node.recovered.applied < Index(5), "sector {sector}");
        node.apply_to(5);
        let rows: Vec<_> = node
            .tables
            .scan(storage::Table(1), b"")
            .map(|row| row.unwrap().1)
            .collect();
        assert_eq!(rows.len(), 5);
        node.close();
    }
}

#[test]
fn r22_a_failed_write_is_final_and_nothing_is_answered_after_it() {
    let points = [
        Point::WalCommit,
        Point::WalCommitted,
        Point::MarkWrite,
        Point::MarkSync,
    ];
    for point in points {
        let dir = temp_dir();
        form(dir.path(), &[1]);
        // Opening visits the mark's points itself: the fault is armed after it.
        let visits = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counter = visits.clone();
        let armed = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let trigger = armed.clone();
        let faults = Faults::new(move |at| {
            use std::sync::atomic::Ordering::SeqCst;
            if at == point && trigger.load(SeqCst) && counter.fetch_add(1, SeqCst) == 0 {
                return Err(std::io::Error::other("injected"));
            }
            Ok(())
        });
        let mut node = Node::open_with(dir.path(), faults);
        node.append(1, &[b"kept"]).unwrap();
        armed.store(true, std::sync::atomic::Ordering::SeqCst);
        let error = node.vote(5, 1).unwrap_err();
        assert!(error.contains("injected"), "{point:?}: {error}");
        // Later work is refused: no answer comes, not even after the handle is gone.
        node.submit(Persist::default());
        let completions = std::mem::replace(&mut node.completions, std::sync::mpsc::channel().1);
        assert_eq!(
            node.handle
                .as_ref()
                .unwrap()
                .metrics()
                .failed
                .load(std::sync::atomic::Ordering::Relaxed),
            1
        );
        node.close();
        assert!(
            completions.try_recv().is_err(),
            "{point:?}: something was answered after the failure"
        );
        let node = Node::open(dir.path());
        assert_eq!(node.recovered.last.index, Index(2));
        assert_eq!(node.recovered.suspicion, None, "{point:?}: {:?}", node.findings);
        node.close();
    }
}

#[test]
fn r47_forming_survives_a_crash_at_every_step() {
    let (dir, album) = (temp_dir(), temp_dir());
    let camera = Camera::new(dir.path(), album.path());
    form_with(dir.path(), &[1], camera.faults()).unwrap();
    let images = camera.images.lock().unwrap();
    assert!(images.len() >= 8, "{} images", images.len());
    for (n, image) in images.iter().enumerate() {
        let mut folder = storage::Folder::open(&image.dir).unwrap();
        let stage = folder
            .stage()
            .unwrap_or_else(|error| panic!("image {n} at {:?}: {error}", image.point));
        match stage {
            storage::Stage::Empty => {
                folder
                    .begin(crate::support::NODE, crate::support::INCARNATION, None)
                    .unwrap();
                folder
                    .finish(crate::support::CLUSTER, Some(&members(&[1])))
                    .unwrap();
            }
            storage::Stage::Begun { incarnation, .. } => {
                assert_eq!(incarnation, crate::support::INCARNATION);
                folder
                    .finish(crate::support::CLUSTER, Some(&members(&[1])))
                    .unwrap();
            }
            storage::Stage::Formed => {}
        }
        drop(folder);
        let node = Node::open(&image.dir);
        assert_eq!(
            node.recovered.configurations,
            vec![(Index(1), members(&[1]))],
            "image {n}"
        );
        assert_eq!(node.recovered.suspicion, None);
        node.close();
    }
}

#[test]
fn r52_entries_above_the_mark_are_written_again_before_anything_is_sent() {
    let (dir, album) = (temp_dir(), temp_dir());
    form(dir.path(), &[1]);
    let camera = Camera::new(dir.path(), album.path());
    let mut node = Node::open_with(dir.path(), camera.faults());
    node.append(1, &[b"above the mark"]).unwrap();
    node.close();
    // The image just after the commit: the entry lies above the mark.
    let images = camera.images.lock().unwrap();
    let image = images
        .iter()
        .find(|image| image.point == Point::WalCommitted)
        .unwrap();
    let before = content(&newest_journal(&image.dir.join("wal"))).len();
    let opened = open(&image.dir).unwrap();
    assert_eq!(opened.recovered.last.index, Index(2));
    drop(opened);
    let journal = content(&newest_journal(&image.dir.join("wal")));
    let mut rewritten = 0;
    storage::journal::scan_items(&journal[before..], &mut |item| {
        rewritten += usize::from(item.key == 2u64.to_be_bytes());
    });
    assert_eq!(rewritten, 1, "entry 2 is not in the journal a second time");
}

/// What a failed sync left in the page cache must not become a hole before what is synced later. That
/// the bytes stay the same is what every other test of this file sees.
#[test]
fn r52_the_newest_journal_is_written_again_before_anything_is_appended() {
    let dir = temp_dir();
    form(dir.path(), &[1]);
    let mut node = Node::open(dir.path());
    node.append(1, &[b"kept"]).unwrap();
    node.close();
    let order = Arc::new(Mutex::new(Vec::new()));
    let seen = order.clone();
    let faults = Faults::new(move |point| {
        seen.lock().unwrap().push(point);
        Ok(())
    });
    Node::open_with(dir.path(), faults).close();
    assert_eq!(order.lock().unwrap().first(), Some(&Point::JournalWrittenAgain));
    let failing = Faults::fail_nth(Point::JournalWrittenAgain, 0);
    assert!(crate::support::open_with(dir.path(), failing).is_err());
    let node = Node::open(dir.path());
    assert_eq!(
        (node.recovered.last.index, node.recovered.suspicion),
        (Index(2), None)
    );
}

#[test]
fn r45_a_vote_is_in_log_and_mark_before_it_is_given() {
    let (dir, album) = (temp_dir(), temp_dir());
    form(dir.path(), &[1, 2, 3]);
    let camera = Camera::new(dir.path(), album.path());
    let mut node = Node::open_with(dir.path(), camera.faults());
    node.vote(7, 2).unwrap();
    copy_folder(dir.path(), &album.path().join("answered"));
    node.close();
    let answered = album.path().join("answered");
    let Ok(storage::mark::Slots::Read { mark, .. }) = storage::mark::Slots::read(&answered.join("mark"))
    else {
        panic!("no mark");
    };
    assert_eq!((mark.term, mark.vote), (Term(7), Some(NodeId(2))));
    // The log alone still knows it when the mark is one behind, and the other way round.
    for image in camera
        .images
        .lock()
        .unwrap()
        .iter()
        .filter(|image| image.point == Point::MarkWrite)
    {
        let Ok(opened) = open(&image.dir) else {
            panic!("does not open")
        };
        assert!(opened.recovered.hard_state.term <= Term(7));
    }
}
