//! How much there is in the registry: for the page of metrics, and as operators of Nacos ask for it.

use serde::Serialize;

use super::Services;
use super::switches::ServerStatus;
use crate::metrics::{Page, names, process};

/// `/v1/ns/operator/metrics?onlyStatus=false`. Fields and names are those of Nacos 2.5.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NamingMetrics {
    status: &'static str,
    service_count: usize,
    instance_count: usize,
    subscribe_count: usize,
    /// What this node has written itself, and the persistent ones that it checks: on a lone node all, as recorded.
    responsible_instance_count: usize,
    client_count: usize,
    connection_based_client_count: usize,
    /// Over HTTP every instance is a client of its own.
    ephemeral_ip_port_client_count: usize,
    persistent_ip_port_client_count: usize,
    responsible_client_count: usize,
    /// The load as a share of the machine's processors, 0 to 1.
    cpu: f64,
    /// Of the last minute.
    load: f64,
    /// Share of the machine's memory that is in use, 0 to 1.
    mem: f64,
}

impl Services {
    /// What there is. Walks all services.
    pub fn naming_metrics(&self) -> NamingMetrics {
        let (services, instances, connections, kept, own) = self.discovery.look(|registry, _| {
            let (connections, kept) = registry.connection_counts();
            let own = registry.own_records();
            let (services, instances) = (registry.listed_count(), registry.instance_count());
            (services, instances, connections, kept, own)
        });
        let mut of_services = Vec::new();
        self.scan_all(|registry, service| {
            let all = registry.instances(service);
            let persistent = all.filter(|(_, seen)| !seen.ephemeral).count();
            if persistent > 0 {
                of_services.push((service.clone(), persistent));
            }
        });
        let persistent: usize = of_services.iter().map(|(_, count)| count).sum();
        // Those that this node checks.
        let here = of_services
            .iter()
            .filter(|(service, _)| self.discovery.is_responsible(service));
        let checked: usize = here.map(|(_, count)| count).sum();
        let beating = instances.saturating_sub(persistent + kept);
        let machine = process::machine();
        NamingMetrics {
            status: self.naming_status(),
            service_count: services,
            instance_count: instances,
            subscribe_count: self.subscriber_count(),
            responsible_instance_count: own.min(instances - persistent.min(instances)) + checked,
            client_count: connections + beating + persistent,
            connection_based_client_count: connections,
            ephemeral_ip_port_client_count: beating,
            persistent_ip_port_client_count: persistent,
            responsible_client_count: connections + beating.min(own) + checked,
            cpu: machine.load_share,
            load: machine.load,
            mem: machine.memory_share,
        }
    }

    /// What this node says of itself: that it is UP, unless an operator has told it to say something else. One that
    /// still begins does not answer at all.
    pub fn naming_status(&self) -> &'static str {
        let told = self.switches().overridden_server_status;
        told.unwrap_or(ServerStatus::Up).as_str()
    }

    /// The registry's part of the page of metrics.
    pub(super) fn naming_page(&self, page: &mut Page) {
        let (services, instances) = self
            .discovery
            .look(|registry, _| (registry.listed_count(), registry.instance_count()));
        let figures = self.discovery.figures();
        for (family, value) in [
            (&names::NAMING_SERVICES, services),
            (&names::NAMING_INSTANCES, instances),
            (&names::NAMING_OWN_RECORDS, figures.own_records),
            (&names::NAMING_COPIES, figures.copies),
            (&names::NAMING_ANSWER_BYTES, figures.answer_bytes),
            (&names::NAMING_UDP, self.udp_push.count()),
            (&names::NAMING_FORWARDED, figures.forwarded),
            (&names::DISTRO_PEERS, figures.distro.peers),
            (&names::DISTRO_ABSENT, figures.distro.absent),
        ] {
            page.count(family, &[], value as u64);
        }
        page.count(&names::DISTRO_BEHIND, &[], figures.distro.behind);
        let ready = self.naming_is_ready().is_ok();
        page.count(&names::NAMING_READY, &[], u64::from(ready));
    }
}
