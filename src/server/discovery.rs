//! The registry's place in the server: opened with the data folder, told of the members by raft's
//! configuration.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use raft::NodeId;

use super::blocking;
use crate::consensus::Handle;
use crate::discovery::{Discovery, OnEvents, Parts};

/// Opens the registry of this node.
pub(super) async fn open(
    node: NodeId,
    folder: PathBuf,
    on_events: OnEvents,
) -> anyhow::Result<Arc<Discovery>> {
    let parts = Parts {
        node: node.0,
        folder,
        on_events,
        load: Box::new(|_, _| {}),
    };
    Ok(blocking(move || Discovery::open(parts)).await??)
}

/// Tells the registry who the members are, now and whenever that changes. Ends with its task.
pub(super) async fn follow_members(handle: Handle, discovery: Arc<Discovery>) {
    let mut statuses = handle.status_changes();
    let mut told = BTreeSet::new();
    loop {
        let members: BTreeSet<u64> = {
            let status = statuses.borrow_and_update();
            status.raft.configuration.members.keys().map(|id| id.0).collect()
        };
        if members != told && !members.is_empty() {
            discovery.set_members(members.clone());
            told = members;
        }
        if statuses.changed().await.is_err() {
            return;
        }
    }
}
