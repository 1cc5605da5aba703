//! Telling a connected client what became of the services it subscribes to, and asking it whether it lives.
//!
//! - One push of a service is outstanding at a time; its content is made when it is sent, a retry included. So
//!   nothing older can follow anything newer, however slow the client is, and the last change always arrives.
//! - A client that does not take pushes, or does not acknowledge them, lags alone: it costs a mark for each
//!   service that has changed, and is told the present when it can be.
//! - What the client knows already, by an answer or by a push that told two changes at once, is not pushed.
//! - While this node does not know yet what there is, nothing is pushed: an empty list would be taken for the
//!   truth.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use tokio::time::Instant;

use super::Services;
use super::naming_client::NamingClient;
use crate::clock;
use crate::model::ServiceKey;
use crate::naming::Stamp;
use crate::push::{Due, Outbox, Retries, Subject, UnderWay, Which};

/// Takes pushes to a client.
pub trait NamingCourier: Sized {
    /// Sends a service, as JSON, when it is polled first; true once the client has taken it, false when it has not
    /// within seconds, or could not.
    fn carry(&self, service: Bytes) -> impl Future<Output = bool> + Send + 'static + use<Self>;

    /// Asks the client whether it is there; true once it has answered. The connection is closed if it does not.
    fn prove(&self) -> impl Future<Output = bool> + Send + 'static + use<Self>;
}

/// A push under way: what it is about, the state it tells, and when it was sent.
type Sent = (Subject, Stamp, Instant);

impl Services {
    /// Serves a client as long as it is connected: for ever.
    ///
    /// # Cancel safety
    /// Drop it with the connection: what was not told by then never will be.
    pub async fn serve_naming(&self, client: &NamingClient, courier: &impl NamingCourier) {
        serve(client, courier, &self.metrics.grpc.pushes.retried).await;
    }
}

async fn serve(client: &NamingClient, courier: &impl NamingCourier, retried: &AtomicU64) {
    let mut outbox = Outbox::new(Retries::STEADY);
    let mut under_way = UnderWay::default();
    loop {
        send_all(client, courier, &mut outbox, &mut under_way);
        retried.fetch_add(outbox.take_retries(), Relaxed);
        let rest_ends = outbox.wakes_at();
        tokio::select! {
            due = client.session().marks.due() => note(client, due, &mut outbox),
            ended = under_way.ended() => {
                // A tombstone that came before the answer is not answered by it.
                if let Some(due) = client.session().marks.take() {
                    note(client, due, &mut outbox);
                }
                for (sent, taken) in ended {
                    note_end(client, sent, taken, &mut outbox);
                }
            }
            () = tokio::time::sleep_until(rest_ends.unwrap_or_else(clock::now)), if rest_ends.is_some() => {
                outbox.wake(clock::now());
            }
        }
    }
}

/// Sends what is to be sent now.
fn send_all(
    client: &NamingClient,
    courier: &impl NamingCourier,
    outbox: &mut Outbox<Subject>,
    under_way: &mut UnderWay<Sent>,
) {
    while let Some((subject, since)) = outbox.take() {
        let now = clock::now();
        match &subject {
            Subject::Proof => under_way.add((subject, Stamp::default(), now), courier.prove()),
            Subject::Service(service) if !client.registry_is_ready_for(service) => {
                let _again = outbox.failed(&subject, now);
            }
            Subject::Service(service) => match client.news(service) {
                Some((state, bytes)) => {
                    let delay = now.saturating_duration_since(since);
                    client.metrics().delay.observe(delay);
                    under_way.add((subject, state, now), courier.carry(bytes));
                }
                None => outbox.drop_sent(&subject),
            },
        }
    }
}

/// A push has come to its end.
fn note_end(client: &NamingClient, sent: Sent, taken: bool, outbox: &mut Outbox<Subject>) {
    let (subject, state, sent_at) = sent;
    let now = clock::now();
    match (&subject, taken) {
        (Subject::Proof, true) => {
            // Asked again meanwhile: only an answer to that counts.
            if outbox.acked(&subject) {
                client.reassert();
            }
        }
        (Subject::Service(service), true) => {
            let cost = now.saturating_duration_since(sent_at);
            client.metrics().acknowledged(cost);
            client.knows(service, state);
            outbox.acked(&subject);
        }
        (Subject::Service(service), false) => {
            client.metrics().failed.fetch_add(1, Relaxed);
            if client.may_be_told(service).is_some() {
                outbox.failed(&subject, now);
            } else {
                outbox.drop_sent(&subject);
            }
        }
        (Subject::Proof, false) => drop(outbox.failed(&subject, now)),
    }
}

/// Puts what is due into the outbox.
fn note(client: &NamingClient, due: Due<Subject>, outbox: &mut Outbox<Subject>) {
    // Nobody marks everything.
    let Which::Some(subjects) = due.which else { return };
    for subject in subjects {
        match &subject {
            Subject::Proof => outbox.mark(subject, due.since),
            Subject::Service(service) => note_service(client, service.clone(), due.since, outbox),
        }
    }
}

fn note_service(client: &NamingClient, service: ServiceKey, since: Instant, outbox: &mut Outbox<Subject>) {
    match client.may_be_told(&service) {
        Some(at) if at > clock::now() => outbox.mark_later(Subject::Service(service), since, at),
        Some(_) => outbox.mark(Subject::Service(service), since),
        None => {}
    }
}

#[cfg(test)]
mod tests;
