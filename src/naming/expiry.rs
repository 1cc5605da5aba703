//! What time does to the registry.

use super::bugs::{Bug, has};
use super::record::{Body, Owner, Record, RecordKey};
use super::registry::{Registry, Timer};

/// A timer waits no longer than this and looks again: what it is for may be gone long before, ms.
pub(super) const TIMER_MAX_MS: u64 = 60_000;
/// After so long without instances a service that nobody made on purpose is forgotten, ms.
const EMPTY_SERVICE_MS: u64 = 60_000;
/// How often a tombstone that not every member has confirmed is looked at again, ms.
const TOMBSTONE_AGAIN_MS: u64 = 5_000;
/// Nothing keeps a tombstone longer, ms.
pub(super) const TOMBSTONE_MAX_MS: u64 = 3_600_000;

impl Record {
    /// When a record that is kept alive by beats, or a tombstone, has to be looked at, monotonic ms.
    pub(super) fn due_ms(&self) -> u64 {
        self.heard_ms
            + match &self.body {
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
    /// be called every 100 ms or so.
    pub fn tick(&mut self, now_ms: u64) {
        for timer in self.timers.take_due(now_ms) {
            self.ring(now_ms, timer);
        }
    }

    /// Forgets services that stay empty; looks at all of them, so once in a while is often enough.
    pub fn sweep(&mut self, now_ms: u64) {
        if let Some(before) = now_ms.checked_sub(EMPTY_SERVICE_MS) {
            self.forget_empty(before);
        }
    }

    /// Responsibility for services has changed: every instance that beats has its full time again, so that
    /// its client can find the node that hears it now. What is covered by a tombstone has no client: its time
    /// runs on, so that it is gone before the tombstone is.
    pub fn renew_deadlines(&mut self, now_ms: u64) {
        let me = self.me;
        for service in self.services.values_mut() {
            for entry in service.entries.values_mut() {
                if !entry.winner().is_some_and(Record::is_live) {
                    continue;
                }
                if let Some(record) = entry.record_mut(me, &Owner::Beats)
                    && record.is_live()
                {
                    record.heard_ms = now_ms;
                }
            }
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
        let Some(record) = self.own_record(&service, &endpoint, &Owner::Beats) else {
            return;
        };
        if record.timer_ms != at_ms {
            return;
        }
        let again_ms = match self.verdict(now_ms, record) {
            Verdict::Later(at_ms) => at_ms,
            Verdict::Gone => return self.remove_own(now_ms, &service, &endpoint, &Owner::Beats),
            Verdict::Unhealthy => {
                let (mut stamp, at_ms, body) = (record.stamp, record.heard_ms, record.body.clone());
                if has(Bug::TimerDrawsStamp) {
                    stamp = self.clock.now(now_ms);
                }
                let Body::Live { instance, .. } = body else { return };
                let at_ms = at_ms + instance.delete_timeout_ms();
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

    fn verdict(&self, now_ms: u64, record: &Record) -> Verdict {
        let due_ms = record.due_ms();
        if due_ms > now_ms {
            return Verdict::Later(due_ms);
        }
        match &record.body {
            Body::Live {
                instance,
                healthy: true,
            } if now_ms < record.heard_ms + instance.delete_timeout_ms() => Verdict::Unhealthy,
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
