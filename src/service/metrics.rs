//! The page of metrics: cursors and queues are read from their owners when somebody asks.

use super::{Services, cluster_metrics};
use crate::clock;
use crate::metrics::{Buckets, Page, names, process};

impl Services {
    /// The page in Prometheus' text form; `None` when metrics are switched off.
    pub fn metrics_page(&self) -> Option<String> {
        if !self.metrics_enabled {
            return None;
        }
        let mut page = Page::new();
        page.count(&names::BUILD, &[("version", env!("CARGO_PKG_VERSION"))], 1);
        let uptime = clock::now().saturating_duration_since(self.started);
        page.number(&names::UPTIME, &[], uptime.as_secs_f64());
        self.metrics.http.render(&mut page);
        self.metrics.grpc.render(&mut page);
        let status = self.consensus.status();
        cluster_metrics::raft(&mut page, &status, self.consensus.applied());
        cluster_metrics::peers(&mut page, &self.transport.peers(), self.transport.unknown());
        cluster_metrics::queues(&mut page, &self.consensus.queues());
        page.count(&names::FEATURE_LEVEL, &[], u64::from(self.state.feature_level()));
        page.count(&names::FEATURE_LEVEL_KNOWN, &[], u64::from(self.feature_level));
        let (operations, bytes) = self.consensus.load();
        page.count(&names::PENDING_OPERATIONS, &[], operations as u64);
        page.count(&names::PENDING_BYTES, &[], bytes as u64);
        self.log_page(&mut page);
        page.count(&names::CONFIGS, &[], self.state.config_count() as u64);
        page.count(&names::CONFIG_VARIANTS, &[], self.state.gray_count() as u64);
        page.count(
            &names::NAMESPACES,
            &[],
            self.state.namespaces().len().saturating_sub(1) as u64,
        );
        self.naming_page(&mut page);
        let (waiting, keys, watches) = self.push.load();
        page.count(&names::PUSH_WAITING, &[], waiting as u64);
        page.count(&names::PUSH_KEYS, &[], keys as u64);
        page.count(&names::PUSH_WATCHES, &[], watches as u64);
        self.push.metrics.render(&mut page);
        let (clients, services, subscriptions) = self.naming_push.load();
        page.count(&names::NAMING_CLIENTS, &[], clients as u64);
        page.count(&names::NAMING_SUBSCRIBED, &[], services as u64);
        page.count(&names::NAMING_SUBSCRIPTIONS, &[], subscriptions as u64);
        self.naming_push.metrics.render(&mut page);
        process::render(&mut page);
        page.count(&names::LOG_LINES_DROPPED, &[], (self.log_lines_dropped)());
        Some(page.finish())
    }

    fn log_page(&self, page: &mut Page) {
        use std::sync::atomic::Ordering::Relaxed;
        let log = &self.log;
        page.count(&names::LOG_SYNCS, &[], log.syncs.load(Relaxed));
        page.histogram(
            &names::LOG_SYNC_DURATION,
            &[],
            &buckets(&log.sync_us.counts(), log.sync_us.sum(), 1e-6),
        );
        page.histogram(
            &names::LOG_BATCH,
            &[],
            &buckets(&log.batch_entries.counts(), log.batch_entries.sum(), 1.0),
        );
        page.count(&names::LOG_ENTRIES, &[], log.entries.load(Relaxed));
        page.count(&names::LOG_BYTES, &[], log.bytes.load(Relaxed));
        page.count(&names::LOG_MARKS, &[], log.mark_writes.load(Relaxed));
        page.count(&names::DISK_FREE, &[], log.free_bytes.load(Relaxed));
    }
}

/// Numbers of a histogram of the log writer in the unit of the family.
fn buckets(counts: &[(Option<u64>, u64)], sum: u64, unit: f64) -> Buckets {
    Buckets {
        bounds: counts
            .iter()
            .filter_map(|(bound, _)| bound.map(|bound| bound as f64 * unit))
            .collect(),
        counts: counts.iter().map(|(_, count)| *count).collect(),
        sum: sum as f64 * unit,
    }
}
