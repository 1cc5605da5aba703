//! The registry's place in the server: opened with the data folder, told of the members by raft's
//! configuration.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use raft::NodeId;

use super::blocking;
use crate::consensus::Handle;
use crate::discovery::{Discovery, Form, OnEvents, Parts};
use crate::error::Error;
use crate::model::ServiceKey;
use crate::naming::Filter;
use crate::push::NamingPush;
use crate::state::{Event, Reader};

/// Opens the registry of this node.
pub(super) async fn open(
    node: NodeId,
    folder: PathBuf,
    state: Arc<Reader>,
    on_events: OnEvents,
) -> anyhow::Result<Arc<Discovery>> {
    let rows = move || {
        let mut rows = Vec::new();
        match state.for_each_of_naming(|row| rows.push(row)) {
            Ok(_up_to) => Ok(rows),
            Err(error) => Err(Error::Internal(error.to_string())),
        }
    };
    let parts = Parts {
        node: node.0,
        folder,
        on_events,
        rows: Box::new(rows),
    };
    Ok(blocking(move || Discovery::open(parts)).await??)
}

/// Tells the registry what the replicated state says of naming. Called on the applier's thread, in log
/// order.
pub(super) fn on_change(discovery: &Discovery, events: &[Event]) {
    let mut changes = Vec::new();
    for event in events {
        match event {
            Event::NamingChanged { change, .. } => changes.push(change.clone()),
            Event::Reloaded { .. } => {
                // What was read includes all changes before it.
                changes.clear();
                if let Err(error) = discovery.reload() {
                    tracing::error!(%error, "persistent instances cannot be read, older ones are shown: tried again");
                }
            }
            _ => {}
        }
    }
    if !changes.is_empty() {
        discovery.feed(&changes);
    }
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

/// Brings changes of services to their subscribers. What nearly all of them will be told is rendered on the way,
/// once.
pub(super) async fn push(push: Arc<NamingPush>, discovery: Arc<Discovery>) {
    let everything = Filter::default();
    let render = |service: &ServiceKey| discovery.query(service, &everything, Form::Grpc).len();
    push.run(render).await;
}
