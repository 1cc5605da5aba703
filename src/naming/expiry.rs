//! What time does to the registry.

use super::bugs::{Bug, has};
use super::changes::BUCKETS;
use super::record::{Body, Owner, Record, RecordKey};
use super::registry::{Registry, Timer};
use super::service::Entry;

/// A timer waits no longer than this and looks again: what it is for may be gone long before, ms.
pub(super) const TIMER_MAX_MS: u64 = 60_000;
/// After so long without instances a service that nobody made on purpose is forgotten, ms.
const EMPTY_SERVICE_MS: u64 = 60_000;
/// How often a tombstone that not every member has confirmed is looked at again, ms.
const TOMBSTONE_AGAIN_MS: u64 = 5_000;
/// Deadlines that are looked at in one go, some 3 µs each where something comes of it.
const DEADLINES_COUNT: usize = 1_000;
/// Nothing keeps a tombstone longer, ms.
pub(super) const TOMBSTONE_MAX_MS: u64 = 3_600_000;

impl Record {
    /// For how long after its last sign of life a record that is kept alive by beats, or a tombstone, need not
    /// be looked at, ms.
    pub(super) fn rests_ms(&self) -> u64 {
        match &self.body {
            Body::Live {
                instance,
                healthy: true,
            } => instance.beat_timeout_ms().min(instance.delete_timeout_ms()),
            Body::Live { instance, .. } => instance.delete_timeout_ms(),
            Body::Tombstone { keep_ms } => *keep_ms,
        }
    }
}

/// What a due record comes to.
enum Verdict {
    Later(u64),
    Unhealthy,
    Gone,
}

impl Registry {
    /// Lets time pass: instances whose beats stay away turn unhealthy and go, tombstones are forgotten. To
    /// be called every 100 ms or so; true: more is due already, call it again soon.
    pub fn tick(&mut self, now_ms: u64) -> bool {
        let due = self.timers.take_due(now_ms, DEADLINES_COUNT);
        let more = due.len() == DEADLINES_COUNT;
        for timer in due {
            self.ring(now_ms, timer);
        }
        more
    }

    /// Forgets the services of one bucket that stay empty.
    pub fn sweep_bucket(&mut self, now_ms: u64, bucket: usize) {
        if let Some(before) = now_ms.checked_sub(EMPTY_SERVICE_MS) {
            self.forget_empty(bucket, before);
        }
    }

    /// Forgets what stays empty in all buckets, and gives memory back that a burst has left. Looks at all services:
    /// whoever must not be held up for so long calls [`Registry::sweep_bucket`] again and again, and
    /// [`Registry::shrink`].
    pub fn sweep(&mut self, now_ms: u64) {
        for bucket in 0..BUCKETS {
            self.sweep_bucket(now_ms, bucket);
        }
        self.shrink();
    }

    /// Gives memory back that a burst has left; nearly always there is none.
    pub fn shrink(&mut self) {
        self.own.shrink();
        if self.connections.len() < self.connections.capacity() / 4 {
            self.connections.shrink_to(self.connections.len() * 2);
        }
    }

    /// Responsibility for services has changed: every instance that beats has its full time again, so that
    /// its client can find the node that hears it now. What is covered by a tombstone has no client: its time
    /// runs on, so that it is gone before the tombstone is.
    pub fn renew_deadlines(&mut self, now_ms: u64) {
        // There may be a million of them: their timers find it.
        self.renewed_ms = now_ms;
    }

    /// The last sign of life of a record, or what stands for one.
    fn counts_from_ms(&self, entry: &Entry, record: &Record) -> u64 {
        let renewed = record.is_live() && entry.winner().is_some_and(Record::is_live);
        match renewed {
            true => record.heard_ms.max(self.renewed_ms),
            false => record.heard_ms,
        }
    }

    fn ring(&mut self, now_ms: u64, timer: Timer) {
        let Timer { record: id, at_ms } = timer;
        let Some(RecordKey {
            service, endpoint, ..
        }) = self.own.get(id).cloned()
        else {
            return;
        };
        let Some(entry) = self.entry(&service, &endpoint) else {
            return;
        };
        let Some(record) = entry.record(self.me, &Owner::Beats) else {
            return;
        };
        if record.timer_ms != at_ms {
            return;
        }
        let from_ms = self.counts_from_ms(entry, record);
        let again_ms = match self.verdict(now_ms, from_ms, record) {
            Verdict::Later(at_ms) => at_ms,
            Verdict::Gone => return self.remove_own(now_ms, &service, &endpoint, &Owner::Beats),
            Verdict::Unhealthy => {
                let (mut stamp, body) = (record.stamp, record.body.clone());
                if has(Bug::TimerDrawsStamp) {
                    stamp = self.clocks.acts.now(now_ms);
                }
                let Body::Live { instance, .. } = body else { return };
                let at_ms = from_ms + instance.delete_timeout_ms();
                let body = Body::Live {
                    instance,
                    healthy: false,
                };
                self.write_own(now_ms, &service, &endpoint, &Owner::Beats, stamp, body);
                at_ms
            }
        };
        let me = self.me;
        let entry = self
            .services
            .get_mut(&service)
            .and_then(|service| service.entries.get_mut(&endpoint));
        if let Some(record) = entry.and_then(|entry| entry.record_mut(me, &Owner::Beats)) {
            let again_ms = again_ms.min(now_ms + TIMER_MAX_MS);
            record.timer_ms = again_ms;
            let timer = Timer {
                record: id,
                at_ms: again_ms,
            };
            self.timers.set(again_ms, timer);
        }
    }

    /// What comes of a record whose last sign of life counts from then.
    fn verdict(&self, now_ms: u64, from_ms: u64, record: &Record) -> Verdict {
        let due_ms = from_ms + record.rests_ms();
        if due_ms > now_ms {
            return Verdict::Later(due_ms);
        }
        match &record.body {
            Body::Live {
                instance,
                healthy: true,
            } if now_ms < from_ms + instance.delete_timeout_ms() => Verdict::Unhealthy,
            Body::Live { .. } => Verdict::Gone,
            Body::Tombstone { .. }
                if record.revision > self.confirmed_by_all
                    && now_ms < record.heard_ms + TOMBSTONE_MAX_MS
                    && !has(Bug::TombstoneForgotten) =>
            {
                Verdict::Later(now_ms + TOMBSTONE_AGAIN_MS)
            }
            Body::Tombstone { .. } => Verdict::Gone,
        }
    }
}
