//! Telling peers with which stamps a node shows what has changed.

use std::collections::BTreeSet;

use crate::model::ServiceKey;
use crate::naming::bugs::{Bug, has};
use crate::naming::{Registry, Stamp};

use super::{Distro, SILENT_MS};
use crate::distro::message::Message;

/// Stamps of one message.
const STAMPS_COUNT: usize = 1_024;
/// How often stamps are told, ms: one that changes all the time is told once.
const STAMPS_MS: u64 = 1_000;
/// What was told on a stream has arrived after so long, or the stream has ended, ms.
const ARRIVED_MS: u64 = 3 * SILENT_MS;
/// Stamps told at a time of those that changed while somebody was away.
const STAMPS_AGAIN: usize = 8 * STAMPS_COUNT;

/// What there is to tell.
#[derive(Debug)]
pub(super) struct Stamps {
    /// When they were told last.
    since_ms: u64,
    /// Services whose stamps some member has not been told, because it was away.
    untold: BTreeSet<ServiceKey>,
    /// Those that were told of late, in the last period and in the one before: a stream that ends may have lost
    /// them.
    told: [BTreeSet<ServiceKey>; 2],
    /// When the last period began.
    told_since_ms: u64,
}

impl Stamps {
    pub(super) fn new(now_ms: u64) -> Stamps {
        Stamps {
            since_ms: now_ms,
            untold: BTreeSet::new(),
            told: [BTreeSet::new(), BTreeSet::new()],
            told_since_ms: now_ms,
        }
    }

    /// A stream has ended.
    pub(super) fn may_be_lost(&mut self) {
        self.untold.extend(self.told.iter().flatten().cloned());
    }

    /// What is to be told now; nothing most of the time.
    fn due(&mut self, now_ms: u64, registry: &mut Registry, all_hear: bool) -> Vec<(ServiceKey, Stamp)> {
        if now_ms < self.since_ms + STAMPS_MS || has(Bug::StampsAreKept) {
            return Vec::new();
        }
        self.since_ms = now_ms;
        let mut stamps = registry.take_restamped();
        if all_hear {
            let untold = std::iter::from_fn(|| self.untold.pop_first()).take(STAMPS_AGAIN);
            stamps.extend(untold.filter_map(|service| {
                let (_, stamp) = registry.version(&service)?;
                Some((service, stamp))
            }));
        } else {
            self.untold
                .extend(stamps.iter().map(|(service, _)| service.clone()));
        }
        if now_ms >= self.told_since_ms + ARRIVED_MS {
            self.told_since_ms = now_ms;
            let [last, before] = &mut self.told;
            *before = std::mem::take(last);
        }
        let [last, _] = &mut self.told;
        last.extend(stamps.iter().map(|(service, _)| service.clone()));
        stamps
    }
}

impl Distro {
    /// What one node shows must not look newer than what others show after it.
    pub(super) fn tell_stamps(&mut self, now_ms: u64, registry: &mut Registry) {
        let all_hear = self.living().count() == self.members.len();
        let stamps = self.stamps.due(now_ms, registry, all_hear);
        let peers: Vec<u64> = self.peers.keys().copied().collect();
        for some in stamps.chunks(STAMPS_COUNT) {
            for peer in &peers {
                self.say(now_ms, *peer, Message::Stamps(some.to_vec()));
            }
        }
    }
}
