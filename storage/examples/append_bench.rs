//! What an append costs: entries per second and CPU per entry at several batch sizes, through the real
//! log writer (queue, fold, checks, one fjall batch, one fdatasync, completion), and beside it the floor:
//! the same records as the same batches with the same settings, given to fjall by the calling thread.
//! The two take turns, so that what else the machine does meets both.
//!
//! `cargo run --release -p storage --example append_bench [FOLDER] [SECONDS] [BATCH ...]`
//!
//! The RSS is that of the whole process after the round: for the memory of one mode, give one batch size
//! and look at the first line.

#![expect(clippy::print_stdout, reason = "a command line tool")]

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use raft::{
    Checksum, Configuration, Entry, EntryId, EntryKind, Incarnation, Index, Member, NodeId, Persist, Term,
    Token,
};
use storage::{ClusterId, Completion, Folder, Options, codec};

const PAYLOAD_BYTES: usize = 256;

/// Turns of each mode per batch size.
const ROUNDS: usize = 2;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments
        .next()
        .map_or_else(|| PathBuf::from("append_bench.data"), PathBuf::from);
    let seconds = arguments.next().map_or(Ok(2), |text| text.parse())?;
    let mut batches = arguments
        .map(|text| text.parse())
        .collect::<Result<Vec<usize>, _>>()?;
    if batches.is_empty() {
        batches = vec![1, 8, 64, 512];
    }
    println!(
        "{PAYLOAD_BYTES} B entries, {seconds} s each, in {}",
        folder.display()
    );
    println!("mode    batch   entries/s    syncs/s   CPU us/entry   RSS MiB");
    for batch in batches {
        let mut cost = [f64::INFINITY; 2];
        for round in 0..2 * ROUNDS {
            let _ = std::fs::remove_dir_all(&folder);
            let mode = [Mode::Writer, Mode::Fjall][round % 2];
            let spent = run(&folder, mode, batch, Duration::from_secs(seconds))?;
            cost[round % 2] = cost[round % 2].min(spent);
        }
        println!(
            "ratio   {batch:5}  CPU {:.2}, best of {ROUNDS}",
            cost[0] / cost[1]
        );
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// The log writer.
    Writer,
    /// fjall alone.
    Fjall,
}

/// CPU microseconds per entry.
fn run(dir: &Path, mode: Mode, batch: usize, duration: Duration) -> Outcome<f64> {
    let (mut append, mut last) = match mode {
        Mode::Writer => writer(dir)?,
        Mode::Fjall => fjall_alone(dir)?,
    };
    let payload = Bytes::from(vec![0x5a; PAYLOAD_BYTES]);
    let (started, cpu) = (Instant::now(), cpu_time()?);
    let (mut entries, mut syncs) = (0u64, 0u64);
    while started.elapsed() < duration {
        let batch = (0..batch).map(|_| next(&mut last, &payload)).collect::<Vec<_>>();
        entries += batch.len() as u64;
        syncs += 1;
        append(batch)?;
    }
    let (elapsed, cpu) = (started.elapsed().as_secs_f64(), cpu_time()? - cpu);
    let cost = cpu.as_secs_f64() * 1e6 / entries as f64;
    println!(
        "{:6} {batch:6} {:11.0} {:10.0} {cost:14.2} {:9.1}",
        match mode {
            Mode::Writer => "writer",
            Mode::Fjall => "fjall",
        },
        entries as f64 / elapsed,
        syncs as f64 / elapsed,
        rss_mib()?
    );
    Ok(cost)
}

type Append = Box<dyn FnMut(Vec<Entry>) -> Outcome<()>>;

fn writer(dir: &Path) -> Outcome<(Append, (EntryId, Checksum))> {
    form(dir)?;
    let opened = Folder::open(dir)?.start(Options::default())?;
    let (done, completions) = mpsc::channel();
    let handle = opened.writer.start(move |completion| {
        if let Completion::Persisted { token, .. } = completion {
            let _ = done.send(token);
        }
    })?;
    let last = (opened.recovered.last, opened.recovered.last_checksum);
    let mut token = Token(0);
    let append = move |entries| {
        token = Token(token.0 + 1);
        handle.submit(Persist {
            token,
            entries,
            ..Persist::default()
        });
        completions.recv()?;
        Ok(())
    };
    Ok((Box::new(append), last))
}

/// The settings and keyspaces of the log, and nothing else of it.
fn fjall_alone(dir: &Path) -> Outcome<(Append, (EntryId, Checksum))> {
    let db = fjall::Database::builder(dir)
        .journal_compression(fjall::CompressionType::None)
        .max_journaling_size(64 << 20)
        .cache_size(1 << 20)
        .worker_threads(1)
        .open()?;
    let options = || fjall::KeyspaceCreateOptions::default().max_memtable_size(8 << 20);
    let log = db.keyspace("log", options)?;
    let append = move |entries: Vec<Entry>| {
        let bytes: usize = entries.iter().map(|entry| 8 + codec::encoded_len(entry)).sum();
        let mut buffer = BytesMut::with_capacity(bytes);
        let mut batch = db.batch().durability(Some(fjall::PersistMode::SyncData));
        for entry in &entries {
            buffer.put_u64(entry.id.index.0);
            let key = buffer.split().freeze();
            codec::encode(entry, &mut buffer);
            batch.insert(&log, key, buffer.split().freeze());
        }
        Ok(batch.commit()?)
    };
    Ok((Box::new(append), Default::default()))
}

fn next(last: &mut (EntryId, Checksum), payload: &Bytes) -> Entry {
    let id = EntryId {
        term: Term(1),
        index: Index(last.0.index.0 + 1),
    };
    let entry = Entry::seal(id, EntryKind::Command, payload.clone(), last.1);
    *last = (id, entry.checksum);
    entry
}

fn form(dir: &Path) -> Result<(), storage::OpenError> {
    let mut folder = Folder::open(dir)?;
    let id = NodeId(1);
    let incarnation = Incarnation(1);
    folder.begin(id, incarnation, None)?;
    let member = Member {
        id,
        incarnation,
        address: "127.0.0.1:9848".into(),
    };
    let configuration = Configuration {
        members: [(id, member)].into(),
        voters: [id].into(),
        outgoing: Default::default(),
    };
    folder.finish(ClusterId(1), Some(&configuration))
}

/// User and system time of all threads of this process.
fn cpu_time() -> std::io::Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<u64> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .map(|field| field.parse().unwrap_or(0))
        .collect();
    let ticks = fields.get(11).unwrap_or(&0) + fields.get(12).unwrap_or(&0);
    Ok(Duration::from_millis(ticks * 10))
}

fn rss_mib() -> std::io::Result<f64> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: f64 = statm
        .split_whitespace()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0.0);
    Ok(pages * 4096.0 / 1048576.0)
}
