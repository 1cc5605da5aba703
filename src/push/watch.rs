//! The watches of one registered client.

use std::sync::Arc;

use super::config::{COST_BYTES_MAX, ConfigPush, Full, LOCKED_STEP};
use super::listeners::{Slot, WatcherId};
use super::session::Session;
use crate::config::Seen;
use crate::model::ConfigKey;

/// A registered client: a long poll with all it listens to, or a connection that adds and drops watches as
/// it lives. Dropping it, as when the client closes its connection, forgets the client.
#[derive(Debug)]
pub struct Watch {
    push: Arc<ConfigPush>,
    id: WatcherId,
    session: Arc<Session>,
    /// All slots ever used are below.
    slots_end: usize,
}

impl Watch {
    pub(super) fn new(push: Arc<ConfigPush>, id: WatcherId, session: Arc<Session>) -> Watch {
        Watch {
            push,
            id,
            session,
            slots_end: 0,
        }
    }

    /// What has changed, as soon as something has.
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Watches one more config. From the moment this returns, no change of it is missed. `key` is replaced
    /// by an equal one that shares memory with those of other watchers. The same one twice counts twice.
    ///
    /// # Errors
    /// Too much is watched on this node, or by this client.
    pub fn add(&mut self, key: &mut ConfigKey, seen: Seen) -> Result<Slot, Full> {
        let mut shared = self.push.lock();
        if !shared.listeners.has_room(self.id, COST_BYTES_MAX) {
            return Err(Full);
        }
        let (slot, name) = shared.listeners.watch(self.id, key, seen);
        *key = name;
        self.slots_end = self.slots_end.max(slot.0 + 1);
        Ok(slot)
    }

    /// Watches some configs, few enough for one lock, in slots that follow those there are.
    pub(super) fn add_some<'a>(
        &mut self,
        keys: impl Iterator<Item = (&'a mut ConfigKey, Seen)>,
    ) -> Result<(), Full> {
        let mut shared = self.push.lock();
        if !shared.listeners.has_room(self.id, COST_BYTES_MAX) {
            return Err(Full);
        }
        for (key, seen) in keys {
            let (slot, name) = shared.listeners.watch(self.id, key, seen);
            assert!(
                slot == Slot(self.slots_end),
                "slots of a new watcher are counted from 0"
            );
            *key = name;
            self.slots_end += 1;
        }
        Ok(())
    }

    /// The client has something else now.
    pub fn set_seen(&self, slot: Slot, seen: Seen) {
        self.push.lock().listeners.set_seen(self.id, slot, seen);
    }

    /// What the client has, as it said last; `None` when there is no such watch.
    pub fn seen(&self, slot: Slot) -> Option<Seen> {
        self.push.lock().listeners.seen(self.id, slot).copied()
    }

    /// Watches it no longer.
    pub fn remove(&self, slot: Slot) {
        self.push.lock().listeners.unwatch(self.id, slot);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut slot = 0;
        while slot < self.slots_end {
            let mut shared = self.push.lock();
            for _ in 0..LOCKED_STEP.min(self.slots_end - slot) {
                shared.listeners.unwatch(self.id, Slot(slot));
                slot += 1;
            }
        }
        self.push.lock().listeners.remove(self.id);
    }
}
