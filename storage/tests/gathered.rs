//! Rows on their way from a commit into table files: whoever looks sees all of them, at any moment, and what a
//! crash leaves is whole.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use bytes::Bytes;
use raft::{Index, LogBase};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use storage::fault::{Faults, Point};
use storage::{Table, Tables, TablesView};

use crate::support::{Node, copy_folder, form, open, temp_dir};

type Model = BTreeMap<(Table, Vec<u8>), Bytes>;

/// A folder whose log holds this many entries; the points they are, by index.
fn with_log(dir: &Path, entries: u64) -> Vec<LogBase> {
    form(dir, &[1]);
    let mut node = Node::open(dir);
    let payloads = vec![&b"x"[..]; usize::try_from(entries).unwrap() - 1];
    node.append(1, &payloads).unwrap();
    let read = node
        .reader
        .entries(Index(1)..Index(entries + 1), usize::MAX)
        .unwrap();
    assert_eq!(read.len() as u64, entries);
    node.close();
    let points = read.iter().map(|entry| LogBase {
        id: entry.id,
        checksum: entry.checksum,
    });
    std::iter::once(LogBase::default()).chain(points).collect()
}

fn all(tables: &TablesView) -> Model {
    let of_table = |table| {
        let rows = tables.scan(table, b"").map(Result::unwrap);
        rows.map(move |(key, value)| ((table, key.to_vec()), value))
    };
    (1..4).flat_map(|table| of_table(Table(table))).collect()
}

/// A random commit, in the model too.
fn commit(tables: &Tables, model: &mut Model, random: &mut StdRng, point: LogBase) {
    let mut batch = tables.batch();
    for _ in 0..random.random_range(1..20) {
        let table = Table(random.random_range(1..4));
        let key = random.random_range(0..4_000u32).to_be_bytes();
        if random.random_ratio(1, 4) {
            batch.delete(table, &key);
            model.remove(&(table, key.to_vec()));
        } else {
            let value = Bytes::from(vec![random.random::<u8>(); random.random_range(0..6_000)]);
            batch.put(table, &key, value.clone());
            model.insert((table, key.to_vec()), value);
        }
    }
    batch.commit(point).unwrap();
}

/// Some 60 MiB of rows, overwritten and removed, through several stores and merges, compared with a map: gets,
/// scans and views; then a restart, from whatever had been stored, and the same again from there.
#[test]
fn gathered_and_stored_rows_are_one_table_to_whoever_looks() {
    let dir = temp_dir();
    let points = with_log(dir.path(), 2_000);
    let mut random = StdRng::seed_from_u64(7);
    let mut models = vec![Model::new()];
    for round in 0..2 {
        let node = Node::start(open(dir.path()).unwrap());
        let tables = &node.tables;
        let applied = usize::try_from(tables.applied().id.index.0).unwrap();
        assert!(round == 0 || applied > 0, "something was stored by itself");
        assert!(tables.durable().id.index <= tables.applied().id.index);
        models.truncate(applied + 1);
        let mut model = models[applied].clone();
        assert_eq!(all(&tables.view()), model, "round {round}, at {applied}");
        let mut views = Vec::new();
        for (index, point) in points.iter().enumerate().skip(applied + 1).take(1_000) {
            commit(tables, &mut model, &mut random, *point);
            models.push(model.clone());
            let key = random.random_range(0..4_000u32).to_be_bytes();
            let expected = model.get(&(Table(2), key.to_vec())).cloned();
            assert_eq!(tables.get(Table(2), &key).unwrap(), expected);
            if index % 150 == 0 {
                views.push((tables.view(), model.clone()));
                let narrow: Vec<_> = tables.scan(Table(3), &[0, 0, 1]).map(Result::unwrap).collect();
                let expected = model
                    .iter()
                    .filter(|((table, key), _)| *table == Table(3) && key[2] == 1);
                assert!(
                    narrow
                        .into_iter()
                        .eq(expected.map(|((_, key), value)| (key.clone().into(), value.clone())))
                );
            }
            if index % 400 == 0 {
                drop(views.remove(0));
            }
        }
        for (view, was) in &views {
            assert!(
                all(view) == *was,
                "a view of {} has moved",
                view.applied().id.index
            );
        }
        assert!(
            tables.durable().id.index > Index(applied as u64),
            "stored by itself"
        );
        drop(views);
        node.close();
    }
}

/// Crashes while rows are stored leave them with the point they belong to.
#[test]
fn rows_and_their_point_reach_the_disk_together() {
    let (dir, album) = (temp_dir(), temp_dir());
    form(dir.path(), &[1]);
    let count = Arc::new(AtomicUsize::new(0));
    let (from, to, taken) = (dir.path().to_owned(), album.path().to_owned(), Arc::clone(&count));
    let faults = Faults::new(move |at| {
        if matches!(at, Point::StateCommit | Point::StateStored) {
            let number = taken.fetch_add(1, Ordering::SeqCst);
            copy_folder(&from, &to.join(number.to_string()));
        }
        Ok(())
    });
    let mut node = Node::open_with(dir.path(), faults);
    for round in 0..5u64 {
        node.append(1, &[b"a", b"b"]).unwrap();
        node.apply_to(2 * round + 3);
        node.tables.sync().unwrap();
        assert_eq!(node.tables.durable(), node.tables.applied());
    }
    node.close();
    let images = count.load(Ordering::SeqCst);
    assert_eq!(images, 10);
    for image in 0..images {
        let node = Node::start(open(&album.path().join(image.to_string())).unwrap());
        let rounds = (image as u64).div_ceil(2);
        let applied = if rounds == 0 { 0 } else { 2 * rounds + 1 };
        assert_eq!(node.recovered.applied, Index(applied), "image {image}");
        assert_eq!(
            node.tables.scan(Table(1), b"").count() as u64,
            applied,
            "image {image}"
        );
        assert!(node.findings.is_empty(), "image {image}: {:?}", node.findings);
        node.close();
    }
}

#[test]
fn a_failed_store_is_final_and_told_to_whoever_comes() {
    let dir = temp_dir();
    form(dir.path(), &[1]);
    let mut node = Node::open_with(dir.path(), Faults::fail_nth(Point::StateCommit, 0));
    node.append(1, &[b"a", b"b"]).unwrap();
    node.apply_to(2);
    let error = node.tables.sync().unwrap_err().to_string();
    assert!(error.contains("injected at StateCommit"), "{error}");
    assert!(node.tables.sync().is_err());
    let batch = node.tables.batch();
    assert!(batch.commit(node.point(3)).is_err());
    assert_eq!(node.tables.durable(), LogBase::default());
    node.close();
    let node = Node::open(dir.path());
    assert_eq!(node.recovered.applied, Index(0), "nothing was stored");
    node.apply_to(3);
    node.tables.sync().unwrap();
    node.close();
}

/// While a store is under way there are two gathers at most: who commits more waits, and goes on after it.
#[test]
fn who_commits_faster_than_rows_are_stored_waits() {
    let dir = temp_dir();
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let shut = Arc::clone(&gate);
    let faults = Faults::new(move |at| {
        if at == Point::StateCommit {
            let opened = shut.1.wait_while(shut.0.lock().unwrap(), |open| !*open);
            drop(opened.unwrap());
        }
        Ok(())
    });
    let points = with_log(dir.path(), 40);
    let node = Node::open_with(dir.path(), faults);
    let tables = node.tables.clone();
    let (committed, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (counted, told) = (Arc::clone(&committed), Arc::clone(&done));
    let writing = std::thread::spawn(move || {
        for (index, point) in (1..=40u64).zip(&points[1..]) {
            let mut batch = tables.batch();
            batch.put(Table(1), &index.to_be_bytes(), vec![1; 1 << 20]);
            batch.commit(*point).unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
        }
        told.store(true, Ordering::SeqCst);
    });
    // 8 MiB are being stored, 8 more are gathered.
    while committed.load(Ordering::SeqCst) < 16 {
        std::thread::yield_now();
    }
    assert!(!done.load(Ordering::SeqCst));
    assert!(committed.load(Ordering::SeqCst) <= 17);
    assert_eq!(
        node.tables.scan(Table(1), b"").count() as u64,
        node.tables.applied().id.index.0
    );
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    writing.join().unwrap();
    node.tables.sync().unwrap();
    assert_eq!(node.tables.scan(Table(1), b"").count(), 40);
    node.close();
}

/// What an earlier version left in fjall's journal is older than what is stored now, restart after restart.
#[test]
fn rows_of_the_journal_stay_below_newer_ones() {
    let dir = temp_dir();
    let points = with_log(dir.path(), 4);
    let value = |path: &Path| {
        let node = Node::start(open(path).unwrap());
        let value = node.tables.get(Table(2), b"k").unwrap();
        let applied = node.tables.applied().id.index;
        node.close();
        (value.unwrap(), applied)
    };
    let put = |path: &Path, index: usize, text: &'static str, journaled: bool| {
        let node = Node::start(open(path).unwrap());
        let mut batch = node.tables.batch();
        batch.put(Table(2), b"k", text);
        if journaled {
            batch.commit_journaled(points[index]).unwrap();
        } else {
            batch.commit(points[index]).unwrap();
            node.tables.sync().unwrap();
        }
        assert_eq!(node.tables.get(Table(2), b"k").unwrap().unwrap(), text);
        node.close();
    };
    put(dir.path(), 1, "first", true);
    put(dir.path(), 2, "second", false);
    assert_eq!(value(dir.path()), ("second".into(), Index(2)));
    put(dir.path(), 3, "third", true);
    assert_eq!(value(dir.path()), ("third".into(), Index(3)));
    put(dir.path(), 4, "fourth", false);
    assert_eq!(value(dir.path()), ("fourth".into(), Index(4)));
}
