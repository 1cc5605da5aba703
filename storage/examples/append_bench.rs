//! What an append costs: entries per second and CPU per entry at several batch sizes, through the real
//! log writer (fold, one fjall batch, one fdatasync, completion).
//!
//! `cargo run --release -p storage --example append_bench [FOLDER] [SECONDS]`

#![expect(clippy::print_stdout, reason = "a command line tool")]

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use raft::{
    Checksum, Configuration, Entry, EntryId, EntryKind, Incarnation, Index, Member, NodeId, Persist, Term,
    Token,
};
use storage::{ClusterId, Completion, Folder, Options};

const PAYLOAD_BYTES: usize = 256;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments
        .next()
        .map_or_else(|| PathBuf::from("append_bench.data"), PathBuf::from);
    let seconds = arguments.next().map_or(Ok(2), |text| text.parse())?;
    println!(
        "{PAYLOAD_BYTES} B entries, {seconds} s each, in {}",
        folder.display()
    );
    println!("batch   entries/s    syncs/s   CPU us/entry   RSS MiB");
    for batch in [1usize, 8, 64, 512] {
        let dir = folder.join(batch.to_string());
        let _ = std::fs::remove_dir_all(&dir);
        run(&dir, batch, Duration::from_secs(seconds))?;
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

fn run(dir: &Path, batch: usize, duration: Duration) -> Result<(), Box<dyn std::error::Error>> {
    form(dir)?;
    let opened = Folder::open(dir)?.start(Options::default())?;
    let (done, completions) = mpsc::channel();
    let handle = opened.writer.start(move |completion| {
        if let Completion::Persisted { token, .. } = completion {
            let _ = done.send(token);
        }
    })?;
    let mut last = (opened.recovered.last, opened.recovered.last_checksum);
    let payload = Bytes::from(vec![0x5a; PAYLOAD_BYTES]);
    let (started, cpu) = (Instant::now(), cpu_time()?);
    let mut entries = 0u64;
    let mut syncs = 0u64;
    while started.elapsed() < duration {
        let batch = (0..batch).map(|_| next(&mut last, &payload)).collect::<Vec<_>>();
        entries += batch.len() as u64;
        syncs += 1;
        handle.submit(Persist {
            token: Token(syncs),
            entries: batch,
            ..Persist::default()
        });
        completions.recv()?;
    }
    let (elapsed, cpu) = (started.elapsed().as_secs_f64(), cpu_time()? - cpu);
    println!(
        "{batch:5} {:11.0} {:10.0} {:14.2} {:9.1}",
        entries as f64 / elapsed,
        syncs as f64 / elapsed,
        cpu.as_secs_f64() * 1e6 / entries as f64,
        rss_mib()?
    );
    Ok(())
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
