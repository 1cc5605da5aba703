//! Counts of the HTTP door: one cell per route, found by position, so that a request touches three atomics
//! and no map.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::histogram::Histogram;
use super::names;
use super::render::Page;

/// Counters of the HTTP door.
#[derive(Debug)]
pub struct Http {
    /// One per route of the table, then one for requests that meet no route.
    routes: Box<[Route]>,
    /// Requests being served.
    pub in_flight: AtomicU64,
    /// Open connections.
    pub connections: AtomicU64,
    /// Connections refused because there were too many.
    pub refused: AtomicU64,
    /// Failed accepts.
    pub accept_errors: AtomicU64,
    /// Handlers that panicked.
    pub panics: AtomicU64,
}

#[derive(Debug, Default)]
struct Route {
    method: &'static str,
    path: &'static str,
    /// By first digit of the status, 1 to 5.
    classes: [AtomicU64; 5],
    duration: Histogram,
}

impl Http {
    /// Counters for these routes, in their order.
    pub fn new(routes: impl Iterator<Item = (&'static str, &'static str)>) -> Http {
        let other = std::iter::once(("any", "other"));
        let route = |(method, path)| Route {
            method,
            path,
            ..Route::default()
        };
        Http {
            routes: routes.chain(other).map(route).collect(),
            in_flight: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            accept_errors: AtomicU64::new(0),
            panics: AtomicU64::new(0),
        }
    }

    /// Counts an answered request; `route` is its position in the table, `None` for no route.
    pub fn answered(&self, route: Option<usize>, status: u16, duration: Duration) {
        let other = self.routes.len().saturating_sub(1);
        let Some(route) = self.routes.get(route.unwrap_or(other)) else {
            return;
        };
        let class = usize::from(status / 100).saturating_sub(1);
        if let Some(count) = route.classes.get(class) {
            count.fetch_add(1, Relaxed);
        }
        route.duration.observe(duration);
    }

    /// Adds the families. Routes nobody has asked for are left out.
    pub fn render(&self, page: &mut Page) {
        let used = || {
            self.routes
                .iter()
                .filter(|route| route.classes.iter().any(|count| count.load(Relaxed) > 0))
        };
        for route in used() {
            for (count, class) in route.classes.iter().zip(["1xx", "2xx", "3xx", "4xx", "5xx"]) {
                let count = count.load(Relaxed);
                if count > 0 {
                    let labels = [("method", route.method), ("path", route.path), ("status", class)];
                    page.count(&names::HTTP_REQUESTS, &labels, count);
                }
            }
        }
        for route in used() {
            let labels = [("method", route.method), ("path", route.path)];
            page.histogram(&names::HTTP_DURATION, &labels, &route.duration.read());
        }
        page.count(&names::HTTP_IN_FLIGHT, &[], self.in_flight.load(Relaxed));
        page.count(&names::HTTP_CONNECTIONS, &[], self.connections.load(Relaxed));
        page.count(&names::HTTP_CONNECTIONS_REFUSED, &[], self.refused.load(Relaxed));
        page.count(&names::HTTP_ACCEPT_ERRORS, &[], self.accept_errors.load(Relaxed));
        page.count(&names::HTTP_PANICS, &[], self.panics.load(Relaxed));
    }
}
