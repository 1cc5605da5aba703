//! What readers and subscribers get. Under the lock an answer is looked up, or what it is made from is taken; the
//! rendering, which takes milliseconds for a wide service, holds nobody up but its reader.

use std::sync::PoisonError;

use bytes::Bytes;
use tokio::runtime::{Handle, RuntimeFlavor};

use super::answers::{Form, Found, Job, empty};
use super::node::{Discovery, Shared};
use crate::distro::BEGINNING_MS;
use crate::model::ServiceKey;
use crate::naming::{Filter, Stamp};
use crate::seeded::{self, Bug};

/// For how long [`Bug::EmptyAtOnce`] lists nothing: longer than it takes to hear from the other nodes, ms.
const EMPTY_MS: u64 = 3_000;

impl Shared {
    /// What there is for a reader, and the state that it shows.
    fn find(&mut self, now_ms: u64, service: &ServiceKey, filter: &Filter, form: Form) -> (Stamp, Found) {
        let state = self.registry.version(service).map(|(content, _)| content);
        let found = if seeded::has(Bug::EmptyAtOnce) && now_ms < BEGINNING_MS + EMPTY_MS {
            Found::Ready(empty(&self.registry, service, filter, form))
        } else {
            self.answers.find(&self.registry, now_ms, service, filter, form)
        };
        (state.unwrap_or_default(), found)
    }
}

impl Discovery {
    /// What a reader gets; ready bytes while nothing changes. The JSON of contract 03 §3 and 01 §5.2.
    pub fn query(&self, service: &ServiceKey, filter: &Filter, form: Form) -> Bytes {
        let (_, found) = self.lock().find(self.now_ms(), service, filter, form);
        self.made(found)
    }

    /// What a new subscriber gets first, and the state that it shows: its stamp is above whatever the subscriber
    /// may have heard elsewhere.
    pub fn first_answer(&self, service: &ServiceKey, filter: &Filter, form: Form) -> (Stamp, Bytes) {
        let (state, found) = {
            let mut shared = self.lock();
            let now_ms = self.now_ms();
            shared.registry.raise(now_ms, service);
            shared.find(now_ms, service, filter, form)
        };
        (state, self.made(found))
    }

    /// What a subscriber is told who knows the state `told`; `None` if that is still what there is.
    pub fn news(
        &self,
        service: &ServiceKey,
        filter: &Filter,
        form: Form,
        told: Stamp,
    ) -> Option<(Stamp, Bytes)> {
        let (state, found) = {
            let mut shared = self.lock();
            let state = shared.registry.version(service).map(|(content, _)| content);
            if state == Some(told) {
                return None;
            }
            if seeded::has(Bug::PushedEmpty) {
                let bytes = empty(&shared.registry, service, filter, form);
                return Some((state.unwrap_or_default(), bytes));
            }
            shared.find(self.now_ms(), service, filter, form)
        };
        Some((state, self.made(found)))
    }

    /// The answer, made if it has to be, without the lock. Two who ask at the same moment may both make it.
    fn made(&self, found: Found) -> Bytes {
        let job = match found {
            Found::Ready(bytes) => return bytes,
            Found::Job(job) => job,
        };
        if job.is_long() && on_a_worker() {
            return tokio::task::block_in_place(|| self.make_in_turn(*job));
        }
        let bytes = job.make();
        self.put_back(*job, &bytes);
        bytes
    }

    /// Makes an answer that takes milliseconds, one after the other: however many ask for wide services with filters of
    /// their own, they take one processor, and the workers are left to everybody else.
    fn make_in_turn(&self, job: Job) -> Bytes {
        let _turn = self.long_jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let meanwhile = self.lock().answers.made_meanwhile(&job);
        meanwhile.unwrap_or_else(|| {
            let bytes = job.make();
            self.put_back(job, &bytes);
            bytes
        })
    }

    fn put_back(&self, job: Job, bytes: &Bytes) {
        let mut shared = self.lock();
        let Shared {
            registry, answers, ..
        } = &mut *shared;
        answers.put_back(registry, job, bytes);
    }
}

/// True where other tasks can be given to another thread.
fn on_a_worker() -> bool {
    let runtime = Handle::try_current();
    runtime.is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread)
}
