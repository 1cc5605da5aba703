//! The checks of persistent instances in their place: fed by the applier, told by the registry which
//! services are this node's, heard by the log.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::blocking;
use crate::clock;
use crate::consensus::Handle;
use crate::discovery::Discovery;
use crate::probe::{Allowed, Asker, Guard, Parts, Probes};
use crate::settings::{HealthChecks, Naming};
use crate::shutdown::Shutdown;
use crate::state::{Command, Event, NAMING_BATCH_MAX, Reader};

/// A change of health is in the log within this, or found again by the next check.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

/// The checks, and their way to the log once there is one.
#[derive(Clone, Debug)]
pub(super) struct Checks {
    probes: Arc<Probes>,
    reader: Arc<Reader>,
    log: Arc<OnceLock<Handle>>,
}

impl Checks {
    /// Knows what the state says; checks nothing yet.
    pub(super) async fn open(
        settings: &Naming,
        discovery: Arc<Discovery>,
        reader: Arc<Reader>,
    ) -> anyhow::Result<Checks> {
        let log: Arc<OnceLock<Handle>> = Arc::default();
        let way = Arc::clone(&log);
        let guard = Guard::new(settings.check_networks.clone(), settings.check_ports.clone());
        let probes = Probes::new(Parts {
            allowed: match settings.health_checks {
                HealthChecks::Off => Allowed::Off,
                HealthChecks::Tcp => Allowed::Tcp,
                HealthChecks::All => Allowed::All,
            },
            asker: Arc::new(Asker::new(guard)),
            is_ours: Box::new(move |service| discovery.is_responsible(service)),
            report: Box::new(move |changes| {
                let handle = way.get().cloned();
                Box::pin(async move {
                    let Some(handle) = handle else { return };
                    let command = Command::NamingHealth(changes);
                    if let Err(error) = handle.propose(command, clock::now() + TOLD_WITHIN).await {
                        tracing::warn!(%error, "changes of health are not in the log yet: they are found again");
                    }
                })
            }),
            report_max: NAMING_BATCH_MAX,
        });
        let checks = Checks { probes, reader, log };
        let this = checks.clone();
        blocking(move || this.reload()).await?;
        Ok(checks)
    }

    /// Called on the applier's thread, in log order.
    pub(super) fn on_change(&self, events: &[Event]) {
        for event in events {
            match event {
                Event::NamingChanged { change, .. } => self.probes.tell(change),
                Event::Reloaded { .. } => self.reload(),
                _ => {}
            }
        }
    }

    fn reload(&self) {
        if self.probes.is_off() {
            return;
        }
        let mut rows = Vec::new();
        match self.reader.for_each_of_naming(|row| rows.push(row)) {
            Ok(_up_to) => self.probes.tell_all(rows),
            Err(error) => tracing::error!(%error, "persistent instances cannot be read: restart this node"),
        }
    }

    /// Checks from now on.
    pub(super) fn start(self, handle: Handle, node: &Shutdown) {
        let _first = self.log.set(handle);
        node.spawn_while_running(self.probes.run());
    }
}
