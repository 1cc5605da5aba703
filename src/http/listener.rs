//! Accepting connections, up to a bound.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::connection;
use super::limits::{CONNECTIONS_DEFAULT, DESCRIPTORS_RESERVED};
use crate::metrics::process;
use crate::service::Services;
use crate::shutdown::Shutdown;

/// After a failed accept (usually: out of file descriptors) the next try comes so much later.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);
/// What a connection beyond the bound is told.
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain;charset=UTF-8\r\n\
    content-length: 39\r\nretry-after: 1\r\nconnection: close\r\n\r\ntoo many connections: nothing was done.";

/// Serves HTTP on a listener until `shutdown` begins; then nothing is accepted any more, and every
/// connection ends with the request it is serving ([`Shutdown::drained`] waits for them).
///
/// # Cancel safety
/// Dropping it stops accepting; connections go on.
pub async fn serve(listener: TcpListener, services: Arc<Services>, shutdown: Shutdown) {
    let connections_max = services.connections_max.unwrap_or_else(connections_default);
    let places = Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS)));
    let mut stop = std::pin::pin!(shutdown.begun());
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => return,
            accepted = listener.accept() => accepted,
        };
        let counts = &services.metrics.http;
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_the_clients_fault(&error) => continue,
            Err(error) => {
                counts.accept_errors.fetch_add(1, Relaxed);
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            counts.refused.fetch_add(1, Relaxed);
            refuse(&socket);
            continue;
        };
        // Answers are written whole; waiting for more to send would only add a delayed ack.
        if socket.set_nodelay(true).is_err() {
            continue;
        }
        let open = Open::new(Arc::clone(&services));
        let connection = connection::serve(socket, peer, Arc::clone(&services), shutdown.clone());
        drop(shutdown.spawn(async move {
            connection.await;
            drop((open, place));
        }));
    }
}

/// Counts a connection while it is open, however its task ends.
struct Open(Arc<Services>);

impl Open {
    fn new(services: Arc<Services>) -> Open {
        services.metrics.http.connections.fetch_add(1, Relaxed);
        Open(services)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.metrics.http.connections.fetch_sub(1, Relaxed);
    }
}

/// Tells a client why, if its socket takes the words at once; nobody waits for it.
fn refuse(socket: &TcpStream) {
    let _told = socket.try_write(REFUSAL);
}

fn is_the_clients_fault(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

/// What the limit of open files leaves.
fn connections_default() -> usize {
    let descriptors = process::descriptors_max().and_then(|max| usize::try_from(max).ok());
    descriptors.map_or(CONNECTIONS_DEFAULT, |max| {
        max.saturating_sub(DESCRIPTORS_RESERVED).max(64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_is_one_whole_answer() {
        let text = std::str::from_utf8(REFUSAL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let length: usize = head
            .split("content-length: ")
            .nth(1)
            .unwrap()
            .lines()
            .next()
            .unwrap()
            .parse()
            .unwrap();
        assert_eq!(body.len(), length);
    }
}
