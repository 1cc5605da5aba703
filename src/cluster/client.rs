//! Calls from outside the membership: a node that wants to join, and `rnacos cluster …`.

use std::time::Duration;

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::calls::{Call, CallDecodeError, CallReply};
use super::dial::{Credentials, DialError, Dialled, dial, is_answer, open_stream};
use super::door::CALL_PATH;
use super::identity::{PeerIdentity, Target};
use super::limits::ANSWER_BYTES_MAX;
use super::stream::{StreamError, read_all, send_all};

/// A proved connection to one node, for calls one after the other. It has no task of its own: it moves
/// while it is used.
pub struct PeerClient {
    send: SendRequest<Bytes>,
    connection: Connection<TcpStream, Bytes>,
    door: PeerIdentity,
}

/// A call was not answered. Except for [`CallError::Unanswered`] it was not begun.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The connection broke or the time ran out: it may have been done all the same. Every call may be
    /// made again.
    #[error("node {node} did not answer; it is not known whether it was done, asking again is safe")]
    Unanswered {
        /// The node asked.
        node: u64,
    },
    /// The node could not be called.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The node does not know this call path, or answered what this version does not understand.
    #[error("the node's answer is of another version: {0}")]
    Answer(#[from] CallDecodeError),
}

impl PeerClient {
    /// Calls the door at `address` and proves the token; `target` says whom it is meant to be.
    ///
    /// # Errors
    /// See [`DialError`]: each says what to change.
    pub async fn connect(
        address: &str,
        credentials: &Credentials,
        target: Target,
        within: Duration,
    ) -> Result<PeerClient, DialError> {
        let Dialled {
            send,
            connection,
            door,
        } = dial(address, credentials, target, within).await?;
        Ok(PeerClient {
            send,
            connection,
            door,
        })
    }

    /// Who answers.
    pub fn door(&self) -> &PeerIdentity {
        &self.door
    }

    /// Makes a call and waits for its answer.
    ///
    /// # Errors
    /// See [`CallError`].
    ///
    /// # Cancel safety
    /// A dropped call may be done all the same.
    pub async fn call(&mut self, call: &Call, within: Duration) -> Result<CallReply, CallError> {
        let exchange = exchange(self.send.clone(), Bytes::from(call.encode()));
        tokio::pin!(exchange);
        let work = async {
            let finished = tokio::select! {
                biased;
                result = &mut exchange => Some(result),
                _ = &mut self.connection => None,
            };
            match finished {
                Some(result) => result,
                // A door that stops may have answered before.
                None => exchange.await,
            }
        };
        match timeout(within, work).await {
            Ok(Ok(bytes)) => Ok(CallReply::decode(&bytes)?),
            Ok(Err(_)) | Err(_) => Err(CallError::Unanswered {
                node: self.door.identity.node_id.0,
            }),
        }
    }
}

async fn exchange(send: SendRequest<Bytes>, call: Bytes) -> Result<Bytes, StreamError> {
    let (_send, response, mut stream) = open_stream(send, CALL_PATH).await?;
    send_all(&mut stream, call, true).await?;
    let response = response.await?;
    if !is_answer(response.status(), response.headers()) {
        return Err(StreamError::Ended);
    }
    Ok(read_all(&mut response.into_body(), ANSWER_BYTES_MAX)
        .await?
        .freeze())
}
