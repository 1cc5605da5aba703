//! The scanner: reads fjall 3.1's journals before fjall does.
//!
//! fjall's own recovery cuts a journal in place, often without an error: a zeroed sector in the middle
//! makes it drop every later batch silently, a flipped bit in a sequence number passes unnoticed, and a
//! torn last batch whose end reached the disk before its middle is refused although it hurt nobody. So
//! every journal is read here first, changing nothing, and fjall only ever sees what is whole.
//!
//! The format (fjall 3.1.13, `src/journal/entry.rs`; a test fails when it changes), little-endian:
//!
//! | part | bytes |
//! |---|---|
//! | start | 1, item count u32, sequence number u64 |
//! | item | 2, value type u8, compression u8, keyspace u64, key length u16, value length u32, stored length u32, key, value |
//! | clear | 4, keyspace u64 |
//! | end | 3, xxh3-64 of all items u64, `FJL` 3 |
//!
//! The checksum does not cover the start; sequence numbers are checked by their order instead: a wrong
//! one either breaks the order (found) or keeps it (and then changes nothing).
//!
//! **The proof.** In `wal/`, batch N+1 is written only after the sync of N has returned. So a bad batch
//! with an intact one after it, in the same journal or by the mere existence of a later journal, had
//! been synced: that is damage. A bad batch with nothing after it in the newest journal is the write
//! that was under way; it was never acknowledged. In `state/` nothing is synced per write and pages
//! arrive in any order: there a bad batch in the newest journal is always where the rows end, and the
//! log brings the rest back; sealed journals were synced, so there it is damage as well, and so is an
//! order that is broken between whole batches.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::SeekFrom;

use crate::codec::Fields;
use crate::dir::{self, Paths};
use crate::error::StorageError;
use crate::fault::{Faults, Point};

const TAG_START: u8 = 1;
const TAG_ITEM: u8 = 2;
const TAG_END: u8 = 3;
const TAG_CLEAR: u8 = 4;
const TRAILER: &[u8; 4] = b"FJL\x03";

/// Bytes of a start marker.
const START_BYTES: usize = 13;

/// No sequence number is this large: fjall keeps the highest bit for itself, and at a million batches a
/// second this lasts for 146 years.
const SEQUENCE_MAX: u64 = 1 << 62;

/// Sequence numbers of one database are taken by batches and by table changes; no journal leaps further
/// from one batch to the next.
const SEQUENCE_LEAP_MAX: u64 = 1 << 32;

/// Work the search for a later batch may cost, as a multiple of the bytes searched. Bytes that are made
/// to look like nested batches hit it; they are then taken for damage, which is the safe side.
const SEARCH_WORK_MAX: usize = 16;

/// Files are read in pieces of this size.
const READ_BYTES: usize = 1 << 20;

/// What a journal holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Intact batches from the start on.
    pub batches: u64,
    /// Where they end, in bytes.
    pub valid_bytes: u64,
    /// Sequence numbers of the first and the last of them.
    pub sequences: Option<(u64, u64)>,
    /// What follows, when it is not zeros up to the end.
    pub bad: Option<Bad>,
}

/// The first bad batch of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    /// What is wrong with it.
    pub reason: &'static str,
    /// Intact batches found from its first byte on, in whatever order (one that is bad for its sequence
    /// number alone counts itself); 1 when the search was given up.
    pub batches_after: u64,
    /// It is whole but for its place in the order: its sequence number has rotted, or that of a batch before
    /// it. A torn write does not look like this: the end of its start marker lies beside its items.
    pub is_out_of_order: bool,
    /// End of the bytes that are not zero.
    pub ends_at: u64,
}

/// One operation of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    /// fjall's number of the keyspace.
    pub keyspace: u64,
    /// The key.
    pub key: &'a [u8],
    /// The value; empty for a removal.
    pub value: &'a [u8],
    /// The key is removed.
    pub removed: bool,
}

/// Reads a journal. Pure: allocates nothing that grows with the input.
pub fn scan(bytes: &[u8]) -> Scan {
    scan_items(bytes, &mut |_| {})
}

/// As [`scan`]; `on_item` sees the operations of every intact batch before the first bad one.
pub fn scan_items<'a>(bytes: &'a [u8], on_item: &mut dyn FnMut(Item<'a>)) -> Scan {
    let mut scan = Scan::default();
    let mut position = 0;
    loop {
        let rest = bytes.get(position..).unwrap_or_default();
        let content = content_length(rest);
        if content == 0 {
            return scan;
        }
        let last = scan.sequences.map(|(_, last)| last);
        match parse_batch(rest, last) {
            Ok(batch) => {
                let items = rest.get(batch.items.clone()).unwrap_or_default();
                walk_items(items, on_item);
                position += batch.length;
                scan.batches += 1;
                scan.valid_bytes = position as u64;
                scan.sequences = Some((
                    scan.sequences.map_or(batch.sequence, |(first, _)| first),
                    batch.sequence,
                ));
            }
            Err(reason) => {
                let content = rest
                    .iter()
                    .rposition(|byte| *byte != 0)
                    .map_or(0, |last| last + 1);
                scan.bad = Some(Bad {
                    reason,
                    batches_after: batches_in(rest.get(..content).unwrap_or_default()),
                    is_out_of_order: parse_batch(rest, None).is_ok(),
                    ends_at: (position + content) as u64,
                });
                return scan;
            }
        }
    }
}

/// Length up to the last byte that is not zero. Journals are made with their full size, all zeros.
fn content_length(bytes: &[u8]) -> usize {
    if bytes.first().is_some_and(|first| *first != 0) {
        // The common case on the way through a journal: no need to look at its end each time.
        if parse_start(bytes).is_some() {
            return bytes.len();
        }
    }
    bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1)
}

struct ParsedBatch {
    sequence: u64,
    items: Range<usize>,
    length: usize,
}

fn parse_start(bytes: &[u8]) -> Option<(u32, u64)> {
    let (start, _) = bytes.split_first_chunk::<START_BYTES>()?;
    let mut fields = Fields(start);
    (fields.u8() == TAG_START).then(|| (fields.u32(), fields.u64()))
}

/// Reads the batch at the start of `bytes`, whose sequence number must lie above `after`.
fn parse_batch(bytes: &[u8], after: Option<u64>) -> Result<ParsedBatch, &'static str> {
    let (count, sequence) = parse_start(bytes).ok_or("its start marker is damaged")?;
    if !is_next_sequence(sequence, after) {
        return Err("its sequence number is out of order");
    }
    if count == 0 {
        return Err("it claims to be empty");
    }
    let mut fields = Fields(bytes.get(START_BYTES..).unwrap_or_default());
    let total = fields.0.len();
    for _ in 0..count {
        next_item(&mut fields)?;
    }
    let items = START_BYTES..START_BYTES + (total - fields.0.len());
    if fields.0.len() < 1 + 8 + TRAILER.len() {
        return Err("it is cut off");
    }
    if fields.u8() != TAG_END {
        return Err("its end marker is missing");
    }
    let checksum = fields.u64();
    if fields.bytes(TRAILER.len()) != Some(TRAILER) {
        return Err("its trailer is damaged");
    }
    if xxhash_rust::xxh3::xxh3_64(bytes.get(items.clone()).unwrap_or_default()) != checksum {
        return Err("its checksum does not fit");
    }
    Ok(ParsedBatch {
        sequence,
        length: items.end + 1 + 8 + TRAILER.len(),
        items,
    })
}

fn is_next_sequence(sequence: u64, after: Option<u64>) -> bool {
    let leap = |after: u64| sequence > after && sequence - after <= SEQUENCE_LEAP_MAX;
    sequence < SEQUENCE_MAX && after.is_none_or(leap)
}

fn next_item<'a>(fields: &mut Fields<'a>) -> Result<Option<Item<'a>>, &'static str> {
    if fields.0.len() < 9 {
        return Err("it is cut off");
    }
    match fields.u8() {
        TAG_ITEM => {}
        TAG_CLEAR => {
            fields.u64();
            return Ok(None);
        }
        _ => return Err("an item marker is damaged"),
    }
    if fields.0.len() < 20 {
        return Err("it is cut off");
    }
    // 0 value, 1 tombstone, 2 weak tombstone; nothing else is ever in a journal.
    let value_type = fields.u8();
    let compression = fields.u8();
    let keyspace = fields.u64();
    let key_length = usize::from(fields.u16());
    let value_length = fields.u32();
    let stored_length = fields.u32();
    if value_type > 2 || compression != 0 || value_length != stored_length {
        return Err("an item header is damaged");
    }
    let key = fields.bytes(key_length).ok_or("it is cut off")?;
    let value = fields.bytes(stored_length as usize).ok_or("it is cut off")?;
    Ok(Some(Item {
        keyspace,
        key,
        value,
        removed: value_type != 0,
    }))
}

fn walk_items<'a>(items: &'a [u8], on_item: &mut dyn FnMut(Item<'a>)) {
    let mut fields = Fields(items);
    while !fields.0.is_empty() {
        match next_item(&mut fields) {
            Ok(Some(item)) => on_item(item),
            Ok(None) => {}
            Err(_) => return,
        }
    }
}

/// Counts intact batches anywhere in `bytes`, at any offset.
///
/// NOTE: without regard to the order of their sequence numbers. A number that rots upwards puts all
/// batches behind it out of order; they were synced none the less. And a write that was torn never
/// leaves a whole batch: the start marker ends right before the items its checksum covers.
fn batches_in(bytes: &[u8]) -> u64 {
    let mut work_left = bytes
        .len()
        .saturating_mul(SEARCH_WORK_MAX)
        .saturating_add(1 << 16);
    let mut found = 0;
    let mut position = 0;
    while let Some(rest) = bytes.get(position..).filter(|rest| !rest.is_empty()) {
        let plausible = parse_start(rest).is_some_and(|(count, sequence)| {
            let marker = rest.get(START_BYTES).copied();
            count > 0 && is_next_sequence(sequence, None) && matches!(marker, Some(TAG_ITEM | TAG_CLEAR))
        });
        if !plausible {
            position += 1;
            continue;
        }
        let cost = plausible_length(rest);
        let Some(left) = work_left.checked_sub(cost) else {
            return found.max(1);
        };
        work_left = left;
        match parse_batch(rest, None) {
            Ok(batch) => {
                found += 1;
                position += batch.length;
            }
            Err(_) => position += 1,
        }
    }
    found
}

/// How many bytes [`parse_batch`] will look at.
fn plausible_length(bytes: &[u8]) -> usize {
    let Some((count, _)) = parse_start(bytes) else {
        return 0;
    };
    let mut fields = Fields(bytes.get(START_BYTES..).unwrap_or_default());
    let total = fields.0.len();
    // Walking costs little per item, hashing costs per byte; both are counted as bytes.
    let mut items = 0;
    for _ in 0..count {
        items += 1;
        if next_item(&mut fields).is_err() {
            return 64 * items;
        }
    }
    64 * items + total - fields.0.len()
}

/// Reads the content of a journal file, in memory: everything up to its last byte that is not zero.
/// Journals are made 64 MiB long and sparse; holes are skipped where the file system knows them.
pub(crate) fn read_content(path: &Path) -> Result<Vec<u8>, StorageError> {
    let error = |source| StorageError::file("cannot read", path, source);
    let file = File::open(path).map_err(error)?;
    let mut content = Vec::new();
    let mut keep = |bytes: &[u8], position: u64| {
        if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
            // Lossless: the position lies within the file, which fits into memory without its holes.
            content.resize(position as usize, 0);
            content.extend_from_slice(bytes.get(..=last).unwrap_or_default());
        }
        Ok(())
    };
    for_each_piece(&file, &mut keep).map_err(error)?;
    Ok(content)
}

/// Calls `piece` with the bytes of a file and their position, holes left out.
fn for_each_piece(file: &File, piece: &mut dyn FnMut(&[u8], u64) -> io::Result<()>) -> io::Result<()> {
    let length = file.metadata()?.len();
    let mut buffer = vec![0u8; READ_BYTES];
    let mut position = 0;
    while position < length {
        position = match rustix::fs::seek(file, SeekFrom::Data(position)) {
            Ok(data) => data,
            Err(rustix::io::Errno::NXIO) => break,
            // A file system without holes: everything is data.
            Err(_) => position,
        };
        let read = file.read_at(&mut buffer, position)?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        piece(bytes, position)?;
        position += read as u64;
    }
    Ok(())
}

/// Which database a journal belongs to: the same bytes mean different things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    /// Every batch was synced before the next one was written.
    Wal,
    /// Nothing was synced but sealed journals.
    State,
}

impl Database {
    /// True when its newest journal may simply end before this batch, whatever is behind it.
    ///
    /// NOTE: not where the order is broken. A number that has rotted upwards outranks what table files hold
    /// since: an old applied point would come back above newer rows, and the log be applied to them again.
    fn is_ended_by(self, bad: &Bad) -> bool {
        self == Database::State && !bad.is_out_of_order
    }
}

/// What the journals of a folder need before fjall may open it.
#[derive(Clone, Debug, Default)]
pub struct FolderScan {
    /// Ends that were never acknowledged (`wal/`), or that the log brings back (`state/`).
    pub torn: Vec<Cut>,
    /// Journals that have lost something that was synced.
    pub damaged: Vec<Cut>,
    /// What is damaged besides, in words.
    pub missing: Vec<String>,
    /// Intact batches in all journals.
    pub batches: u64,
}

/// A journal that ends earlier than its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The journal.
    pub path: PathBuf,
    /// Where its intact batches end.
    pub offset: u64,
    /// End of the bytes that are not zero.
    pub ends_at: u64,
    /// What is wrong there.
    pub reason: &'static str,
    /// As in [`Bad`].
    pub batches_after: u64,
}

impl FolderScan {
    /// True when something that was synced is gone.
    pub fn is_damaged(&self) -> bool {
        !self.damaged.is_empty() || !self.missing.is_empty()
    }

    /// The damage in a sentence.
    pub fn describe(&self) -> String {
        let cuts = self.damaged.iter().map(|cut| {
            let name = cut
                .path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            format!(
                "journal {name} at byte {}: {} ({} intact batches from there on)",
                cut.offset, cut.reason, cut.batches_after
            )
        });
        self.missing
            .iter()
            .cloned()
            .chain(cuts)
            .collect::<Vec<_>>()
            .join("; ")
    }
}

/// Scans the journals of a database folder, changing nothing.
///
/// # Errors
/// A folder or file that cannot be read.
pub fn scan_folder(folder: &Path, database: Database) -> Result<FolderScan, StorageError> {
    let mut result = FolderScan::default();
    let journals = journals(folder, &mut result)?;
    let newest = journals.last().map(|(number, _)| *number);
    let mut before: Option<(u64, Option<u64>)> = None;
    for (number, path) in journals {
        let content = read_content(&path)?;
        let mut scan = scan(&content);
        if let Some((number_before, sequence_before)) = before {
            if number != number_before + 1 {
                result.missing.push(format!(
                    "journals between {number_before} and {number} are missing"
                ));
            }
            if let (Some(last), Some((first, _))) = (sequence_before, scan.sequences)
                && !is_next_sequence(first, Some(last))
            {
                let ends_at = content.len() as u64;
                // They are intact, so each of them was written whole: never a torn write.
                let batches_after = scan.batches;
                let reason = "its sequence numbers do not follow those of the journal before";
                scan = Scan {
                    bad: Some(Bad {
                        reason,
                        batches_after,
                        is_out_of_order: true,
                        ends_at,
                    }),
                    ..Scan::default()
                };
            }
        }
        result.batches += scan.batches;
        if let Some(bad) = &scan.bad {
            let cut = Cut {
                path: path.clone(),
                offset: scan.valid_bytes,
                ends_at: bad.ends_at,
                reason: bad.reason,
                batches_after: bad.batches_after,
            };
            let active = Some(number) == newest;
            let torn = active && (database.is_ended_by(bad) || bad.batches_after == 0);
            if torn {
                result.torn.push(cut)
            } else {
                result.damaged.push(cut)
            }
        }
        let sequence = scan
            .sequences
            .map(|(_, last)| last)
            .or(before.and_then(|(_, last)| last));
        before = Some((number, sequence));
    }
    Ok(result)
}

/// Journals by number, ascending.
fn journals(folder: &Path, result: &mut FolderScan) -> Result<Vec<(u64, PathBuf)>, StorageError> {
    let error = |source| StorageError::file("cannot read", folder, source);
    let mut journals = Vec::new();
    for entry in fs::read_dir(folder).map_err(error)? {
        let path = entry.map_err(error)?.path();
        if path.extension().is_none_or(|extension| extension != "jnl") {
            continue;
        }
        let number = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .and_then(|stem| stem.parse().ok());
        match number {
            Some(number) => journals.push((number, path)),
            None => result
                .missing
                .push(format!("{} is not the name of a journal", path.display())),
        }
    }
    journals.sort();
    if journals.is_empty() {
        result.missing.push("no journal is there".to_owned());
    }
    Ok(journals)
}

/// Writes the bytes of the newest journal over themselves and syncs it.
///
/// After a sync that failed the kernel may take pages for written that are not (hazard R52): they read
/// well until a power cut takes them, and then stand as a hole before everything that was appended and
/// synced since. Written again they are dirty again, and the sync says whether they are there. Older
/// journals were synced before their successor was made.
pub(crate) fn write_again(folder: &Path, faults: &Faults) -> Result<(), StorageError> {
    let Some((_, path)) = journals(folder, &mut FolderScan::default())?.pop() else {
        return Ok(());
    };
    let error = |source| StorageError::file("cannot write", &path, source);
    faults.at(Point::JournalWrittenAgain).map_err(error)?;
    let file = File::options()
        .read(true)
        .write(true)
        .open(&path)
        .map_err(error)?;
    for_each_piece(&file, &mut |bytes, position| file.write_all_at(bytes, position)).map_err(error)?;
    file.sync_all().map_err(error)
}

/// Copies what follows `cut.offset` (for damage: the whole journal) into `aside/`, cuts the journal
/// there, and syncs file and folder. Gives back where the copy lies.
pub(crate) fn apply_cut(
    paths: &Paths,
    cut: &Cut,
    whole: bool,
    faults: &Faults,
) -> Result<PathBuf, StorageError> {
    let content = read_content(&cut.path)?;
    let database = cut
        .path
        .parent()
        .and_then(Path::file_name)
        .unwrap_or_default()
        .to_string_lossy();
    let journal = cut.path.file_name().unwrap_or_default().to_string_lossy();
    let from = if whole { 0 } else { cut.offset as usize };
    let end = (cut.ends_at as usize).min(content.len());
    let copy = dir::aside_path(paths, &format!("{database}-{journal}-from-{from}"))?;
    dir::replace_file(
        &copy,
        content.get(from..end).unwrap_or_default(),
        &Faults::default(),
    )?;
    let error = |source| StorageError::file("cannot cut", &cut.path, source);
    faults.at(Point::JournalCut).map_err(error)?;
    let file = File::options().write(true).open(&cut.path).map_err(error)?;
    file.set_len(cut.offset).map_err(error)?;
    file.sync_all().map_err(error)?;
    if let Some(folder) = cut.path.parent() {
        dir::sync_folder(folder)?;
    }
    Ok(copy)
}
