//! Takes away what belongs to nothing any more: services that have been empty for a minute, with their
//! settings, and what was set for instances that have been gone for as long (contract 03 §1, §6). The leader
//! alone looks; what it finds goes through the log, where it is left alone if it was changed meanwhile.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use raft::Index;

use crate::clock;
use crate::consensus::Handle;
use crate::discovery::{Discovery, Readiness};
use crate::model::{Endpoint, ServiceKey};
use crate::state::{Command, NAMING_BATCH_MAX, Outcome, Reader};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// What has been of no use for so long goes (Nacos: `empty-service.expired-time`), ms.
const KEPT_MS: u64 = 60_000;
/// A sweep is applied within this, or tried again at the next look.
const SWEEP_WITHIN: Duration = Duration::from_secs(10);
/// So many are looked up in the registry under one lock.
const LOOKED_UP: usize = 256;

/// Since when each thing has been of no use, and the log index it was last changed at.
#[derive(Debug)]
struct Idle<T>(HashMap<T, (u64, Index)>);

impl<T: Clone + Eq + Hash> Idle<T> {
    /// These are of no use now; gives back those that have been so, unchanged, for long enough.
    fn look(&mut self, now_ms: u64, idle: Vec<(T, Index)>) -> Vec<(T, Index)> {
        let mut since = HashMap::with_capacity(idle.len());
        let mut due = Vec::new();
        for (thing, changed) in idle {
            let began_ms = match self.0.get(&thing) {
                Some((began_ms, before)) if *before == changed => *began_ms,
                _ => now_ms,
            };
            if now_ms >= began_ms + KEPT_MS {
                due.push((thing.clone(), changed));
            }
            since.insert(thing, (began_ms, changed));
        }
        self.0 = since;
        due
    }

    fn forget(&mut self) {
        self.0.clear();
    }
}

/// Sweeps for ever; ends with its task. `keep_services`: only what was set for instances goes.
pub(super) async fn sweep(
    handle: Handle,
    reader: Arc<Reader>,
    discovery: Arc<Discovery>,
    keep_services: bool,
) {
    let mut services = Idle(HashMap::new());
    let mut instances = Idle(HashMap::new());
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        // A registry that does not know yet what there is calls everything empty.
        if !handle.status().leads() || discovery.readiness() != Readiness::Ready {
            services.forget();
            instances.forget();
            continue;
        }
        let (state, registry) = (Arc::clone(&reader), Arc::clone(&discovery));
        let found = tokio::task::spawn_blocking(move || find(&state, &registry, keep_services)).await;
        let Ok(Some((empty, gone))) = found else { continue };
        let now_ms = discovery.now_ms();
        let empty = services.look(now_ms, empty);
        let gone = instances.look(now_ms, gone);
        propose(&handle, empty, gone).await;
    }
}

type Services = Vec<(ServiceKey, Index)>;
type Instances = Vec<((ServiceKey, Endpoint), Index)>;

/// Services with settings and without instances; places without an instance for which something is set.
/// `None` when the state cannot be read just now.
fn find(reader: &Reader, discovery: &Discovery, keep_services: bool) -> Option<(Services, Instances)> {
    let mut empty = Vec::new();
    let services = if keep_services {
        Vec::new()
    } else {
        reader.naming_services().ok()?
    };
    for part in services.chunks(LOOKED_UP) {
        discovery.look(|registry, _| {
            let idle = part
                .iter()
                .filter(|(service, _)| registry.is_without_instances(service));
            empty.extend(idle.cloned());
        });
    }
    let mut gone = Vec::new();
    for part in reader.naming_overrides().ok()?.chunks(LOOKED_UP) {
        discovery.look(|registry, _| {
            for (service, endpoint, index) in part {
                if registry.instance(service, endpoint).is_none() {
                    gone.push(((service.clone(), endpoint.clone()), *index));
                }
            }
        });
    }
    Some((empty, gone))
}

async fn propose(handle: &Handle, empty: Services, gone: Instances) {
    let (mut empty, mut gone) = (empty.into_iter().peekable(), gone.into_iter().peekable());
    while empty.peek().is_some() || gone.peek().is_some() {
        let overrides = gone.by_ref().take(NAMING_BATCH_MAX);
        let command = Command::NamingSweep {
            services: empty.by_ref().take(NAMING_BATCH_MAX).collect(),
            overrides: overrides
                .map(|((service, endpoint), index)| (service, endpoint, index))
                .collect(),
        };
        match handle.propose(command, clock::now() + SWEEP_WITHIN).await {
            Ok(Outcome::NamingChanged(count)) => {
                tracing::info!(
                    count,
                    "settings of empty services and of gone instances are removed"
                );
            }
            Ok(outcome) => tracing::warn!(?outcome, "empty services were not removed"),
            Err(error) => {
                tracing::debug!(%error, "empty services are removed later");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_of_no_use_counts_from_the_newest_change() {
        let mut idle = Idle(HashMap::new());
        let one = |index| vec![("a", Index(index))];
        assert_eq!(idle.look(0, one(1)), []);
        assert_eq!(idle.look(59_999, one(1)), []);
        assert_eq!(idle.look(60_000, one(1)), one(1));
        assert_eq!(idle.look(60_001, one(2)), [], "changed");
        assert_eq!(idle.look(120_000, vec![]), [], "of use again");
        assert_eq!(idle.look(130_000, one(2)), []);
        assert_eq!(idle.look(190_000, one(2)), one(2));
        idle.forget();
        assert_eq!(idle.look(200_000, one(2)), []);
    }
}
