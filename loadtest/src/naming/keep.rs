//! Instances that are registered over HTTP and kept alive by beats, as old SDKs do it.
//!
//! Registering and beating go on side by side from the first instance on: a hundred thousand registrations
//! may take longer than an instance lives without a beat.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{Registration, beat_code};
use crate::content::Dice;
use crate::figures::{histogram, record};
use crate::http::Connection;

/// Time between two beats of an instance, as SDKs have it.
pub const BEAT: Duration = Duration::from_secs(5);

/// A request may take this long; SDKs give it three seconds.
const PATIENCE: Duration = Duration::from_secs(3);

/// Pause after a request that failed.
const FAILED_PAUSE: Duration = Duration::from_millis(50);

/// What all connections have found.
#[derive(Debug)]
pub struct Found {
    /// Registrations acknowledged.
    pub registered: AtomicUsize,
    /// Beats answered with 10200.
    pub beats: AtomicU64,
    /// Beats answered with 20404: the server does not know the instance (any more).
    pub unknown: AtomicU64,
    /// Requests without an answer, or with another one.
    pub failed: AtomicU64,
    first_failure: Mutex<Option<String>>,
    latencies: Mutex<Histogram<u64>>,
}

impl Found {
    fn new() -> Self {
        Self {
            registered: AtomicUsize::new(0),
            beats: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            first_failure: Mutex::default(),
            latencies: Mutex::new(histogram()),
        }
    }

    /// Latencies of beats so far.
    pub fn latencies(&self) -> MutexGuard<'_, Histogram<u64>> {
        self.latencies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first failure, in words.
    #[must_use]
    pub fn first_failure(&self) -> Option<String> {
        self.first_failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn fail(&self, words: String) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let mut first = self.first_failure.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(words);
    }
}

/// The connections that keep instances alive; they end when dropped.
#[derive(Debug)]
pub struct Keepers {
    tasks: JoinSet<()>,
    found: Arc<Found>,
    instances: usize,
}

/// One connection and the instances it is for.
struct Keeper {
    addresses: Arc<[SocketAddr]>,
    /// Place of the address it talks to; the next one after a failure, as SDKs do.
    at: usize,
    connection: Option<Connection>,
    found: Arc<Found>,
    service_of: Arc<dyn Fn(u32) -> String + Send + Sync>,
    /// Not registered yet, or not any more.
    fresh: VecDeque<u32>,
    /// When each of the others is to be beaten for, in order.
    due: VecDeque<(Instant, u32)>,
    dice: Dice,
    request: Vec<u8>,
}

impl Keepers {
    /// Begins to register `instances` over so many connections, which are spread over the addresses.
    #[must_use]
    pub fn start(
        addresses: &[SocketAddr],
        connections: usize,
        instances: u32,
        service_of: Arc<dyn Fn(u32) -> String + Send + Sync>,
    ) -> Self {
        let (found, addresses) = (Arc::new(Found::new()), Arc::from(addresses));
        let mut tasks = JoinSet::new();
        for number in 0..connections.max(1) {
            let keeper = Keeper {
                addresses: Arc::clone(&addresses),
                at: number,
                connection: None,
                found: Arc::clone(&found),
                service_of: Arc::clone(&service_of),
                fresh: (0..instances).skip(number).step_by(connections.max(1)).collect(),
                due: VecDeque::new(),
                dice: Dice::new(number as u64),
                request: Vec::new(),
            };
            tasks.spawn(keeper.run());
        }
        Self {
            tasks,
            found,
            instances: instances as usize,
        }
    }

    /// What they have found so far.
    #[must_use]
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// Waits until each instance was acknowledged once.
    pub async fn registered(&mut self, patience: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        while self.found.registered.load(Ordering::Relaxed) < self.instances {
            anyhow::ensure!(
                Instant::now() < deadline && !self.tasks.is_empty(),
                "{} of {} instances were registered within {} s: {}",
                self.found.registered.load(Ordering::Relaxed),
                self.instances,
                patience.as_secs(),
                self.found.first_failure().unwrap_or_default()
            );
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

impl Keeper {
    async fn run(mut self) {
        loop {
            let now = Instant::now();
            if let Some((_, instance)) = self.due.pop_front_if(|(due, _)| *due <= now) {
                self.beat(instance).await;
            } else if let Some(instance) = self.fresh.pop_front() {
                self.register(instance).await;
            } else if let Some((due, _)) = self.due.front() {
                sleep_until(*due).await;
            } else {
                return;
            }
        }
    }

    async fn register(&mut self, instance: u32) {
        let service = (self.service_of)(instance);
        let registration = Registration {
            service: &service,
            instance,
            metadata: "",
        };
        let authority = self.address().to_string();
        registration.register(&mut self.request, &authority);
        match self.exchange().await {
            Ok(body) if body == b"ok" => {
                self.found.registered.fetch_add(1, Ordering::Relaxed);
                // Spread over one interval, as those of clients that came one by one; the order of what is
                // due stays nearly right, and nobody is late by more than it.
                let first = self.dice.between(0, BEAT.as_millis() as u64);
                self.due
                    .push_back((Instant::now() + Duration::from_millis(first), instance));
            }
            outcome => {
                self.refused("register", outcome).await;
                self.fresh.push_back(instance);
            }
        }
    }

    async fn beat(&mut self, instance: u32) {
        let service = (self.service_of)(instance);
        let registration = Registration {
            service: &service,
            instance,
            metadata: "",
        };
        let authority = self.address().to_string();
        registration.beat(&mut self.request, &authority);
        let begun = Instant::now();
        match self.exchange().await.map(|body| (beat_code(&body), body)) {
            Ok((Some(10200), _)) => {
                self.found.beats.fetch_add(1, Ordering::Relaxed);
                record(&mut self.found.latencies(), begun.elapsed());
                self.due.push_back((begun + BEAT, instance));
            }
            Ok((Some(20404), _)) => {
                self.found.unknown.fetch_add(1, Ordering::Relaxed);
                self.found.registered.fetch_sub(1, Ordering::Relaxed);
                self.fresh.push_back(instance);
            }
            outcome => {
                self.refused("beat", outcome.map(|(_, body)| body)).await;
                self.due.push_front((Instant::now(), instance));
            }
        }
    }

    fn address(&self) -> SocketAddr {
        self.addresses[self.at % self.addresses.len()]
    }

    async fn refused(&mut self, what: &str, outcome: anyhow::Result<Vec<u8>>) {
        let words = match outcome {
            Ok(body) => String::from_utf8_lossy(&body).into_owned(),
            Err(error) => format!("{error:#}"),
        };
        self.found.fail(format!("{what} at {}: {words}", self.address()));
        self.connection = None;
        self.at += 1;
        sleep(FAILED_PAUSE).await;
    }

    /// Sends the request; the body of an answer with status 200.
    async fn exchange(&mut self) -> anyhow::Result<Vec<u8>> {
        let address = self.address();
        let mut connection = match self.connection.take() {
            Some(connection) if connection.usable() => connection,
            _ => timeout(PATIENCE, Connection::open(address)).await??,
        };
        let answer = timeout(PATIENCE, connection.exchange(&self.request))
            .await
            .context("no answer in time")??;
        anyhow::ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
        let body = answer.body.to_vec();
        self.connection = Some(connection);
        Ok(body)
    }
}
