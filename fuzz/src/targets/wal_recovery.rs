//! `storage::Folder::start`: a real folder, damaged anywhere, opened twice.
//!
//! * It opens, or is refused with a text; it does not panic.
//! * What it opens with is a prefix of what was written, entry by entry, row by row; never another entry.
//! * Healthy (not suspect) means: everything up to the mark is there, no intact batch was thrown away, term
//!   and vote are those that were promised.
//! * A suspicion or a refusal outlives the next start; a healthy folder stays as it is.
//!
//! The folder holds the batches of a member of three: as a crash leaves it (the mark far behind), after an
//! orderly end (the mark at the end), and with a snapshot and a log that was cut. It is made once, with the
//! real storage; an input chooses files and what happens to them.

use std::fs::{self, File};
use std::panic;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once, OnceLock, mpsc};

use bytes::Bytes;
use raft::{Boot, Entry, EntryId, EntryKind, HardState, Index, LogBase, NodeId, Persist, Term, Token};
use storage::mark::{Mark, Slots};
use storage::{ClusterId, Completion, Folder, Opened, Options, Table, Volume, WriterHandle};

use crate::damage::Damage;
use crate::input::Input;
use crate::messages::{incarnation, membership};

const CLUSTER: ClusterId = ClusterId(0xc1);
const ROWS: Table = Table(1);

/// Batches of a folder and entries of a batch.
const BATCHES: u64 = 4;
const BATCH_ENTRIES: u64 = 3;

/// Things that happen to one folder.
const DAMAGES_MAX: usize = 3;

/// See the module.
pub fn check(data: &[u8]) {
    quiet_third_parties();
    let mut input = Input::new(data);
    let images = images();
    let image = &images[input.below(images.len())];
    let files = image.damaged(&mut input);
    let dir = temp_dir();
    image.write(dir.path(), &files);
    let mark = readable_mark(&files);
    let first = image.open(dir.path(), &files, mark);
    let second = image.open(dir.path(), &files, mark);
    match first {
        Outcome::Healthy { last } => assert_eq!(second, Outcome::Healthy { last }),
        Outcome::Suspect | Outcome::Refused => {
            let healed = matches!(second, Outcome::Healthy { .. });
            assert!(!healed, "{first:?}, and after a restart nobody knows of it");
        }
    }
}

/// What an open came to.
#[derive(Debug, PartialEq)]
enum Outcome {
    Healthy { last: Index },
    Suspect,
    Refused,
}

/// A file of an image: its name, its bytes without the zeros at its end, its length.
#[derive(Clone, Debug)]
struct Content {
    name: PathBuf,
    bytes: Vec<u8>,
    length: u64,
}

/// A folder, and what was written into it.
struct Image {
    /// Every folder below the root: fjall misses an empty one.
    folders: Vec<PathBuf>,
    files: Vec<Content>,
    /// From index 1 on.
    entries: Vec<Entry>,
    /// Where each batch lies in the journal, and its last index.
    batches: Vec<(usize, usize, Index)>,
    /// The journal of `wal/`.
    journal: String,
    hard: HardState,
    boot: Boot,
    applied: Index,
    /// The mark of the folder as it was.
    mark: Mark,
}

// --- what must hold -------------------------------------------------------------------------------

impl Image {
    fn damaged(&self, input: &mut Input<'_>) -> Vec<Content> {
        let mut files = self.files.clone();
        for _ in 0..input.below(DAMAGES_MAX + 1) {
            // Half of it happens where it matters most.
            let chosen = match input.u8() {
                0..=95 => files.iter().position(|file| file.name.ends_with(&self.journal)),
                96..=127 => files.iter().position(|file| file.name == Path::new("mark")),
                other => Some(usize::from(other) % files.len()),
            };
            let file = &mut files[chosen.expect("journal and mark are there")];
            if let Some(damage) = Damage::choose(input, file.bytes.len()) {
                damage.apply(&mut file.bytes);
                file.length = match damage {
                    Damage::Cut { length } if input.flag() => length as u64,
                    _ => file.length,
                };
            }
        }
        files
    }

    fn open(&self, dir: &Path, files: &[Content], mark: Option<Mark>) -> Outcome {
        let opened = match Folder::open(dir).and_then(|folder| folder.start(options())) {
            Ok(opened) => opened,
            Err(error) => {
                assert!(error.to_string().len() > 20, "refused without a word: {error}");
                return Outcome::Refused;
            }
        };
        self.expect_prefix(&opened);
        self.expect_rows(&opened);
        let last = opened.recovered.last.index;
        if opened.recovered.suspicion.is_some() {
            return Outcome::Suspect;
        }
        let mark = mark.expect("a folder without a mark is refused");
        assert!(
            last >= mark.synced.id.index,
            "healthy, and it ends at {last} before the mark"
        );
        self.expect_no_loss(last, files);
        let is_newest_mark = mark == self.mark;
        if is_newest_mark {
            let found = opened.recovered.hard_state;
            assert_eq!(
                (found.term, found.vote),
                (self.hard.term, self.hard.vote),
                "another promise"
            );
            assert!(opened.identity.boot > self.boot, "a boot number twice");
        }
        Outcome::Healthy { last }
    }

    /// The log is a piece of what was written.
    fn expect_prefix(&self, opened: &Opened) {
        let (base, last) = (opened.recovered.base, opened.recovered.last);
        assert_eq!(opened.identity.id, NodeId(1));
        for (point, what) in [(base.id, "base"), (last, "end")] {
            let known = self.entry(point.index).map(|entry| entry.id);
            assert!(
                point.index == Index(0) || known == Some(point),
                "a {what} that was not written: {point:?}"
            );
        }
        if last.index == base.id.index {
            return;
        }
        let range = base.id.index.next()..last.index.next();
        let found = opened
            .reader
            .entries(range.clone(), usize::MAX)
            .expect("what it says it has");
        assert_eq!(found.len() as u64, range.end.0 - range.start.0);
        for entry in found {
            assert_eq!(
                Some(&entry),
                self.entry(entry.id.index),
                "an entry that was not written"
            );
        }
    }

    fn entry(&self, index: Index) -> Option<&Entry> {
        self.entries.get(usize::try_from(index.0.checked_sub(1)?).ok()?)
    }

    /// The state is that of an applied point: the row of each entry up to it, and no other.
    fn expect_rows(&self, opened: &Opened) {
        let applied = opened.tables.applied().id.index;
        assert!(applied <= self.applied, "applied {applied} of {}", self.applied);
        let mut expected = self.entries.iter().take(applied.0 as usize);
        for row in opened.tables.scan(ROWS, &[]) {
            // A table file that rots is an error when it is read.
            let Ok((key, value)) = row else { return };
            let entry = expected.next().expect("a row beyond the applied point");
            assert_eq!(key[..], entry.id.index.0.to_be_bytes());
            assert_eq!(value, entry.payload);
        }
        assert!(expected.next().is_none(), "rows are missing");
    }

    /// Batches that are gone were damaged, all of them from the first one on: an intact batch behind a bad
    /// one proves that the bad one had been synced.
    fn expect_no_loss(&self, last: Index, files: &[Content]) {
        let now = content(files, &format!("wal/{}", self.journal));
        let before = content(&self.files, &format!("wal/{}", self.journal));
        for (start, end, batch_last) in &self.batches {
            let is_intact = now.get(*start..*end) == before.get(*start..*end);
            assert!(
                !is_intact || *batch_last <= last,
                "the batch that ends at {batch_last} is intact, and the log ends at {last} and is healthy"
            );
        }
    }
}

/// What the mark says after the damage.
fn readable_mark(files: &[Content]) -> Option<Mark> {
    match Slots::parse(content(files, "mark")) {
        Slots::Read { mark, .. } => Some(mark),
        Slots::Missing | Slots::Lost => None,
    }
}

fn content<'a>(files: &'a [Content], name: &str) -> &'a [u8] {
    let file = files.iter().find(|file| file.name == Path::new(name));
    file.map_or(&[], |file| &file.bytes)
}

// --- the folders ----------------------------------------------------------------------------------

fn images() -> &'static [Image] {
    static IMAGES: OnceLock<Vec<Image>> = OnceLock::new();
    IMAGES.get_or_init(|| vec![make(false, false), make(true, false), make(true, true)])
}

/// A running log writer.
struct Writer {
    handle: Option<WriterHandle>,
    completions: mpsc::Receiver<Completion>,
    token: u64,
    last: LogBase,
    entries: Vec<Entry>,
}

impl Writer {
    fn persist(&mut self, persist: Persist) {
        self.token += 1;
        let token = Token(self.token);
        let handle = self.handle.as_ref().expect("running");
        handle.submit(Persist { token, ..persist });
        loop {
            match self.completions.recv().expect("an answer") {
                Completion::Persisted { token: done, .. } if done == token => return,
                Completion::Failed(error) => panic!("the disk of this machine failed: {error}"),
                _ => {}
            }
        }
    }

    fn batch(&mut self, term: Term) -> Vec<Entry> {
        let first = self.entries.len();
        for _ in 0..BATCH_ENTRIES {
            let index = self.last.id.index.next();
            let payload = Bytes::from(format!(
                "entry {index} of term {term}, {}",
                "x".repeat(index.0 as usize)
            ));
            let id = EntryId { term, index };
            let entry = Entry::seal(id, EntryKind::Command, payload, self.last.checksum);
            self.last = LogBase {
                id,
                checksum: entry.checksum,
            };
            self.entries.push(entry);
        }
        self.entries[first..].to_vec()
    }
}

/// Writes a folder. `is_closed`: ended in order, so that the mark is at the end. `is_cut`: a snapshot was
/// made half-way, and the log starts after it.
fn make(is_closed: bool, is_cut: bool) -> Image {
    let dir = temp_dir();
    let mut folder = Folder::open(dir.path()).expect("a folder");
    folder
        .begin(NodeId(1), incarnation(1), Some(CLUSTER))
        .expect("begun");
    folder
        .finish(CLUSTER, Some(&membership([1, 2, 3])))
        .expect("formed");
    let opened = folder.start(options()).expect("open");
    let boot = opened.identity.boot;
    let founding = opened
        .reader
        .entries(Index(1)..Index(2), usize::MAX)
        .expect("entry 1");
    let (completed, completions) = mpsc::channel();
    let handle = opened.writer.start(move |completion| {
        let _ = completed.send(completion);
    });
    let mut writer = Writer {
        handle: Some(handle.expect("a thread")),
        completions,
        token: 0,
        last: LogBase {
            id: opened.recovered.last,
            checksum: opened.recovered.last_checksum,
        },
        entries: founding,
    };
    let journal = newest_journal(&dir.path().join("wal"));
    let mut batches = Vec::new();
    let mut hard = opened.recovered.hard_state;
    for batch in 0..BATCHES {
        let start = trimmed(&journal).len();
        let term = Term(1 + batch / 2);
        let entries = writer.batch(term);
        hard = HardState {
            term,
            vote: Some(NodeId(1 + batch / 2)),
            commit: entries[0].id.index,
        };
        writer.persist(Persist {
            entries,
            hard_state: Some(hard),
            ..Persist::default()
        });
        batches.push((start, trimmed(&journal).len(), writer.last.id.index));
    }
    let applied = Index(1 + BATCH_ENTRIES * BATCHES / 2);
    apply(&opened.tables, &writer.entries, applied);
    if is_cut {
        let configuration = membership([1, 2, 3]);
        let meta = opened
            .snapshots
            .make(&opened.tables.view(), &configuration)
            .expect("a snapshot");
        let base = LogBase {
            id: meta.last,
            checksum: meta.checksum,
        };
        let start = trimmed(&journal).len();
        writer.persist(Persist {
            compact_to: Some(base),
            hard_state: Some(hard),
            ..Persist::default()
        });
        batches.push((start, trimmed(&journal).len(), writer.last.id.index));
    }
    if is_closed {
        writer.handle.take().expect("running").close();
    }
    // What a crash right now leaves: what was written is in the files, synced or not.
    let (folders, files) = read_files(dir.path());
    let mark = readable_mark(&files).expect("a mark");
    if let Some(handle) = writer.handle.take() {
        handle.close();
    }
    Image {
        folders,
        files,
        entries: writer.entries,
        batches,
        journal: journal
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned(),
        hard,
        boot,
        applied,
        mark,
    }
}

/// A row for each entry up to `applied`, synced.
fn apply(tables: &storage::Tables, entries: &[Entry], applied: Index) {
    for entry in entries.iter().take(applied.0 as usize) {
        let mut batch = tables.batch();
        batch.put(ROWS, &entry.id.index.0.to_be_bytes(), entry.payload.clone());
        let point = LogBase {
            id: entry.id,
            checksum: entry.checksum,
        };
        batch.commit(point).expect("applied");
    }
    tables.sync().expect("synced");
}

/// Plenty of room, whatever the disk of the machine says.
fn options() -> Options {
    let volume = Volume {
        free_bytes: 1 << 40,
        total_bytes: 1 << 41,
    };
    Options {
        space_probe: Some(Arc::new(move || Ok(volume))),
        ..Options::default()
    }
}

/// In memory where there is room for files: what is meant is their content, not the disk.
fn temp_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a folder for scratch files")
}

fn newest_journal(database: &Path) -> PathBuf {
    let files = fs::read_dir(database)
        .expect("readable")
        .flatten()
        .map(|entry| entry.path());
    let journals = files.filter(|path| path.extension().is_some_and(|extension| extension == "jnl"));
    journals.max().expect("a journal")
}

/// The content without the zeros at its end.
fn trimmed(path: &Path) -> Vec<u8> {
    let mut bytes = fs::read(path).expect("readable");
    let end = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    bytes.truncate(end);
    bytes.shrink_to_fit();
    bytes
}

/// The folders below `root` and the files in them, but for our lock.
fn read_files(root: &Path) -> (Vec<PathBuf>, Vec<Content>) {
    let (mut folders, mut files) = (Vec::new(), Vec::new());
    let mut unread = vec![root.to_owned()];
    while let Some(folder) = unread.pop() {
        for entry in fs::read_dir(&folder).expect("readable").flatten() {
            let path = entry.path();
            let name = path.strip_prefix(root).expect("below the root").to_owned();
            if path.is_dir() {
                unread.push(path);
                folders.push(name);
            } else if !name.ends_with("LOCK") {
                files.push(Content {
                    name,
                    length: entry.metadata().expect("a length").len(),
                    bytes: trimmed(&path),
                });
            }
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    (folders, files)
}

impl Image {
    /// Lays out the folder with these files.
    fn write(&self, root: &Path, files: &[Content]) {
        for folder in &self.folders {
            fs::create_dir_all(root.join(folder)).expect("created");
        }
        for content in files {
            let path = root.join(&content.name);
            fs::write(&path, &content.bytes).expect("written");
            let file = File::options().write(true).open(&path).expect("open");
            file.set_len(content.length).expect("sized");
        }
    }
}

/// fjall panics on some damage, storage catches that and makes an outcome of it. libFuzzer's hook would end
/// the process all the same, so panics that begin in third-party code are left to whoever catches them; one
/// that nobody catches still ends the run.
fn quiet_third_parties() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = Mutex::new(panic::take_hook());
        panic::set_hook(Box::new(move |info| {
            let is_ours = info
                .location()
                .is_none_or(|location| !location.file().contains("/registry/"));
            if is_ours && let Ok(usual) = usual.lock() {
                usual(info);
            }
        }));
    });
}

/// Nothing, and one of each damage in each place.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut seeds = vec![("seed-empty".to_owned(), Vec::new())];
    for image in 0..3u8 {
        seeds.push((format!("seed-{image}-whole"), vec![image, 0]));
        for (name, place) in [("wal", 0u8), ("mark", 100), ("other", 131), ("another", 138)] {
            for kind in [0u8, 2, 3] {
                let bytes = vec![image, 1, place, kind, 0x80, 0x01, 3, 1];
                seeds.push((format!("seed-{image}-{name}-{kind}"), bytes));
            }
        }
        seeds.push((
            format!("seed-{image}-two"),
            vec![image, 2, 0, 0, 0, 2, 5, 0, 100, 0, 30, 0, 1, 0],
        ));
    }
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A check that calls every folder refused would pass for ever.
    #[test]
    fn an_undamaged_folder_is_healthy_and_whole() {
        for image in images() {
            let dir = temp_dir();
            image.write(dir.path(), &image.files);
            for _ in 0..2 {
                let last = image.entries.last().expect("entries").id.index;
                let outcome = image.open(dir.path(), &image.files, Some(image.mark));
                assert_eq!(outcome, Outcome::Healthy { last });
            }
        }
    }

    /// Damage is met in every way: over some inputs each outcome comes up.
    #[test]
    fn every_outcome_comes_up() {
        quiet_third_parties();
        let mut seen = [0; 3];
        let mut dice = crate::mutate::Dice::new(7);
        for _ in 0..80 {
            let data = dice.bytes(24);
            let mut input = Input::new(&data);
            let image = &images()[input.below(images().len())];
            let files = image.damaged(&mut input);
            let dir = temp_dir();
            image.write(dir.path(), &files);
            match image.open(dir.path(), &files, readable_mark(&files)) {
                Outcome::Healthy { .. } => seen[0] += 1,
                Outcome::Suspect => seen[1] += 1,
                Outcome::Refused => seen[2] += 1,
            }
        }
        assert!(
            seen.iter().all(|count| *count > 0),
            "healthy, suspect, refused: {seen:?}"
        );
    }
}
