//! Counters a server tells of itself, in Prometheus' text form.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::timeout;

use crate::http::{Connection, write_request};

/// `/metrics` must be answered within this time.
const PATIENCE: Duration = Duration::from_secs(10);

/// The sum of a counter over all its label sets in the server's `/metrics`; `None` if it has none.
pub async fn metric(address: SocketAddr, name: &str) -> Option<f64> {
    let mut request = Vec::new();
    write_request(&mut request, "GET", &address.to_string(), "/metrics");
    let mut connection = timeout(PATIENCE, Connection::open(address)).await.ok()?.ok()?;
    let answer = timeout(PATIENCE, connection.exchange(&request))
        .await
        .ok()?
        .ok()?;
    if answer.status != 200 {
        return None;
    }
    metric_sum(&answer.text(), name)
}

/// The sum of a metric over all its label sets in a text of Prometheus' form.
#[must_use]
pub fn metric_sum(text: &str, name: &str) -> Option<f64> {
    text.lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix([' ', '{']).map(|_| line))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .reduce(|sum, one| sum + one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_added_over_their_labels() {
        let text = "# TYPE syncs counter\nsyncs{file=\"wal\"} 3\nsyncs{file=\"mark\"} 4\nsyncs_more 100\n";
        assert_eq!(metric_sum(text, "syncs"), Some(7.0));
        assert_eq!(metric_sum(text, "absent"), None);
    }
}
