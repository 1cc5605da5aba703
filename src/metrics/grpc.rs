//! Counts of the gRPC port: its connections, what they ask, and what is pushed to them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::histogram::Histogram;
use super::names;
use super::render::Page;

/// Counters of the gRPC port.
#[derive(Debug)]
pub struct Grpc {
    /// One per type of request, then one for types nobody knows.
    requests: Box<[Request]>,
    /// Connections accepted since the start.
    pub accepted: AtomicU64,
    /// Open connections, peers and those that have said nothing yet included.
    pub open: AtomicU64,
    /// Open connections of clients that are registered.
    pub registered: AtomicU64,
    /// Open connections of peers.
    pub peers: AtomicU64,
    /// Connections closed at once because there were too many.
    pub turned_away: AtomicU64,
    /// Connections that spoke no HTTP/2 (or no TLS that this node understands), or not in time.
    pub not_http2: AtomicU64,
    /// Failed accepts.
    pub accept_errors: AtomicU64,
    /// Requests refused because of a limit of work or memory.
    pub overrun: AtomicU64,
    /// Requests and stream messages that could not be read.
    pub malformed: AtomicU64,
    /// Clients registered since the start.
    pub setups: AtomicU64,
    /// Registrations refused.
    pub setups_refused: AtomicU64,
    /// Unary requests being served.
    pub in_flight: AtomicU64,
    /// Handlers that panicked.
    pub panics: AtomicU64,
    /// Pushes by what became of them.
    pub pushes: Pushes,
    /// Silent clients that were asked whether they are still there.
    pub detections: AtomicU64,
    /// Connections closed because nothing came back, or nothing was taken.
    pub detection_closes: AtomicU64,
    /// Clients asked to move to another node.
    pub resets: AtomicU64,
}

#[derive(Debug, Default)]
struct Request {
    name: &'static str,
    succeeded: AtomicU64,
    failed: AtomicU64,
    duration: Histogram,
}

/// What became of pushes.
#[derive(Debug, Default)]
pub struct Pushes {
    /// Handed to a connection.
    pub sent: AtomicU64,
    /// Acknowledged with success.
    pub acked: AtomicU64,
    /// Acknowledged with an error.
    pub refused: AtomicU64,
    /// Not acknowledged in time.
    pub late: AtomicU64,
    /// Not sent, because the client takes nothing.
    pub busy: AtomicU64,
    /// Sent again after a failure, or because the client did not look.
    pub retried: AtomicU64,
    /// Given up after the last try.
    pub given_up: AtomicU64,
}

impl Grpc {
    /// Counters for these types of requests, in their order.
    pub fn new(types: impl Iterator<Item = &'static str>) -> Grpc {
        let request = |name| Request {
            name,
            ..Request::default()
        };
        Grpc {
            requests: types.chain(std::iter::once("other")).map(request).collect(),
            accepted: AtomicU64::new(0),
            open: AtomicU64::new(0),
            registered: AtomicU64::new(0),
            peers: AtomicU64::new(0),
            turned_away: AtomicU64::new(0),
            not_http2: AtomicU64::new(0),
            accept_errors: AtomicU64::new(0),
            overrun: AtomicU64::new(0),
            malformed: AtomicU64::new(0),
            setups: AtomicU64::new(0),
            setups_refused: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            pushes: Pushes::default(),
            detections: AtomicU64::new(0),
            detection_closes: AtomicU64::new(0),
            resets: AtomicU64::new(0),
        }
    }

    /// Counts an answered request; `kind` is its position in the table, `None` for a type nobody knows.
    pub fn answered(&self, kind: Option<usize>, succeeded: bool, duration: Duration) {
        let other = self.requests.len().saturating_sub(1);
        let Some(request) = self.requests.get(kind.unwrap_or(other)) else {
            return;
        };
        let count = if succeeded {
            &request.succeeded
        } else {
            &request.failed
        };
        count.fetch_add(1, Relaxed);
        request.duration.observe(duration);
    }

    /// Adds the families. Types nobody has asked for are left out, but for the first.
    pub fn render(&self, page: &mut Page) {
        let load = |count: &AtomicU64| count.load(Relaxed);
        // The first is always there, so that the families are.
        let used = || {
            let is_used = |(at, request): &(usize, &Request)| {
                *at == 0 || load(&request.succeeded) + load(&request.failed) > 0
            };
            let requests = self.requests.iter().enumerate().filter(is_used);
            requests.map(|(_, request)| request)
        };
        for request in used() {
            for (count, result) in [(&request.succeeded, "success"), (&request.failed, "failure")] {
                let labels = [("type", request.name), ("result", result)];
                page.count(&names::GRPC_REQUESTS, &labels, load(count));
            }
        }
        for request in used() {
            let labels = [("type", request.name)];
            page.histogram(&names::GRPC_DURATION, &labels, &request.duration.read());
        }
        page.count(&names::GRPC_IN_FLIGHT, &[], load(&self.in_flight));
        let (open, registered, peers) = (load(&self.open), load(&self.registered), load(&self.peers));
        let other = open.saturating_sub(registered + peers);
        for (kind, count) in [("client", registered), ("peer", peers), ("unregistered", other)] {
            page.count(&names::GRPC_CONNECTIONS, &[("kind", kind)], count);
        }
        page.count(&names::GRPC_ACCEPTED, &[], load(&self.accepted));
        for (count, why) in [(&self.turned_away, "too_many"), (&self.not_http2, "not_http2")] {
            page.count(&names::GRPC_CONNECTIONS_REFUSED, &[("reason", why)], load(count));
        }
        page.count(&names::GRPC_ACCEPT_ERRORS, &[], load(&self.accept_errors));
        page.count(&names::GRPC_OVERRUN, &[], load(&self.overrun));
        page.count(&names::GRPC_MALFORMED, &[], load(&self.malformed));
        for (count, result) in [(&self.setups, "registered"), (&self.setups_refused, "refused")] {
            page.count(&names::GRPC_SETUPS, &[("result", result)], load(count));
        }
        page.count(&names::GRPC_PANICS, &[], load(&self.panics));
        let pushes = &self.pushes;
        page.count(&names::GRPC_PUSHES, &[], load(&pushes.sent));
        let results = [
            (&pushes.acked, "acked"),
            (&pushes.refused, "refused"),
            (&pushes.late, "late"),
            (&pushes.busy, "busy"),
        ];
        for (count, result) in results {
            page.count(&names::GRPC_PUSH_RESULTS, &[("result", result)], load(count));
        }
        page.count(&names::GRPC_PUSH_RETRIES, &[], load(&pushes.retried));
        page.count(&names::GRPC_PUSHES_GIVEN_UP, &[], load(&pushes.given_up));
        page.count(&names::GRPC_DETECTIONS, &[], load(&self.detections));
        page.count(&names::GRPC_DETECTION_CLOSES, &[], load(&self.detection_closes));
        page.count(&names::GRPC_RESETS, &[], load(&self.resets));
    }
}
