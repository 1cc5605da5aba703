//! The thread that reads older entries and snapshot pieces from the disk for the core.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;

use raft::{Load, LoadWhat, Loaded};
use storage::{LogReader, ReadError, Snapshots};
use tokio::sync::mpsc;

use super::node::{Event, panicked};

/// Loads that may wait. The core keeps at most a few per member, so this cannot fill.
const LOADS_MAX: usize = 4_096;

#[derive(Debug)]
pub(super) struct Loader {
    loads: Option<mpsc::Sender<Load>>,
    thread: Option<JoinHandle<()>>,
}

impl Loader {
    pub(super) fn start(
        reader: LogReader,
        snapshots: Snapshots,
        events: mpsc::Sender<Event>,
    ) -> std::io::Result<Loader> {
        let (loads, mut queue) = mpsc::channel::<Load>(LOADS_MAX);
        let thread = std::thread::Builder::new().name("loader".into()).spawn(move || {
            while let Some(load) = queue.blocking_recv() {
                let work = AssertUnwindSafe(|| read(&reader, &snapshots, load.what));
                let event = match catch_unwind(work) {
                    Ok(Ok(result)) => Event::Loaded { id: load.id, result },
                    Ok(Err(error)) => Event::Failed(format!("the log could not be read: {error}")),
                    Err(panic) => Event::Failed(panicked("the reader of the log", &*panic)),
                };
                if events.blocking_send(event).is_err() {
                    return;
                }
            }
        })?;
        Ok(Loader {
            loads: Some(loads),
            thread: Some(thread),
        })
    }

    /// The queue, to look how full it is.
    pub(super) fn queue(&self) -> Option<mpsc::WeakSender<Load>> {
        self.loads.as_ref().map(mpsc::Sender::downgrade)
    }

    pub(super) fn submit(&self, load: Load) {
        if let Some(sender) = &self.loads
            && let Err(mpsc::error::TrySendError::Full(load)) = sender.try_send(load)
        {
            panic!(
                "more than {LOADS_MAX} loads wait, the last {:?}: the core asks without end",
                load.id
            );
        }
    }

    pub(super) fn stop(mut self) {
        self.loads = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the loader has panicked");
        }
    }
}

fn read(reader: &LogReader, snapshots: &Snapshots, what: LoadWhat) -> Result<Loaded, ReadError> {
    match what {
        LoadWhat::Entries { range, bytes_max } => match reader.entries(range, bytes_max) {
            Ok(entries) => Ok(Loaded::Entries(entries)),
            Err(ReadError::Gone { .. }) => Ok(Loaded::Gone),
            Err(error) => Err(error),
        },
        LoadWhat::Chunk {
            meta,
            offset,
            bytes_max,
        } => {
            let chunk = snapshots.read_chunk(&meta, offset, bytes_max)?;
            Ok(chunk.map_or(Loaded::Gone, Loaded::Chunk))
        }
    }
}
