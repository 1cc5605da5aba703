//! Who answers which type of request. Adapters: they read, call a service, and write.

mod config;
mod fuzzy;
mod internal;
mod naming;

use std::sync::Arc;

use super::connection::Client;
use super::dispatch::Row;
use super::gateway::Gateway;

/// Every row of the table.
pub(super) fn rows() -> impl Iterator<Item = &'static Row> {
    let named = internal::ROWS.iter().chain(fuzzy::ROWS);
    named.chain(config::rows()).chain(naming::rows())
}

/// A client has registered.
pub(super) fn registered(client: &Arc<Client>, gateway: &Gateway) {
    config::expect(client, gateway);
}

/// The stream of a client ends after this.
pub(super) fn parting(client: &Client) {
    config::part(client);
}

#[cfg(test)]
mod tests {
    use crate::grpc::dispatch::is_about_configs;

    /// A new row stands here too, so that somebody has thought of it.
    #[test]
    fn what_waits_for_the_log_and_what_does_not() {
        let (mut waits, does_not): (Vec<&str>, Vec<&str>) = super::rows()
            .map(|row| row.name)
            .partition(|name| is_about_configs(name));
        waits.sort_unstable();
        assert_eq!(
            waits,
            [
                "ConfigBatchListenRequest",
                "ConfigFuzzyWatchRequest",
                "ConfigPublishRequest",
                "ConfigQueryRequest",
                "ConfigRemoveRequest",
            ]
        );
        let naming = [
            "Instance",
            "Service",
            "NamingFuzzyWatch",
            "HealthCheck",
            "Subscribe",
        ];
        for name in does_not {
            assert!(naming.iter().any(|part| name.contains(part)), "{name}");
        }
    }
}
