//! What a leader does from time to time.

use std::sync::Arc;
use std::time::Duration;

use crate::clock;
use crate::consensus::Handle;
use crate::state::{Command, Outcome, Reader, TRIM_ROWS_MAX};

/// History is kept so long (contract 00 §3).
const HISTORY_KEPT_MS: i64 = 30 * 86_400_000;

/// Between two looks for history that is too old.
const TRIM_EVERY: Duration = Duration::from_secs(600);

/// A trim is applied within this, or tried again at the next look.
const TRIM_WITHIN: Duration = Duration::from_secs(10);

/// Has history rows removed that are older than 30 days: by logged commands, so that every node drops the
/// same rows, and in small portions, so that no publish waits for them. Ends with its task.
pub(super) async fn trim_history(handle: Handle, reader: Arc<Reader>) {
    loop {
        tokio::time::sleep(TRIM_EVERY).await;
        if handle.status().leads()
            && let Err(error) = trim(&handle, &reader).await
        {
            tracing::warn!(error, "old history could not be trimmed, it is tried again later");
        }
    }
}

async fn trim(handle: &Handle, reader: &Reader) -> Result<(), String> {
    let before_ms = clock::wall_ms() - HISTORY_KEPT_MS;
    while reader
        .history_is_due(before_ms)
        .map_err(|error| error.to_string())?
    {
        let command = Command::TrimHistory {
            before_ms,
            rows_max: TRIM_ROWS_MAX,
        };
        let outcome = handle.propose(command, clock::now() + TRIM_WITHIN).await;
        match outcome.map_err(|error| error.to_string())? {
            Outcome::HistoryTrimmed { more: true, .. } => {}
            _ => break,
        }
    }
    Ok(())
}
