//! The links that this node dials.

use std::sync::Arc;
use std::time::Duration;

use raft::NodeId;
use tokio::time::{sleep_until, timeout};
use tracing::debug;

use super::super::dial::{Dialled, dial, is_answer, open_stream};
use super::super::lane::{Renewal, backoff, until_silent};
use super::super::limits::{DIAL_WITHIN, DISTRO_PING_WITHIN, PING_WITHIN};
use super::super::peer::Peer;
use super::super::stream::StreamError;
use super::LinkKind;
use super::links::{End, Hub};
use crate::clock;

/// Keeps a link to a member, until it leaves.
pub(super) async fn keep(hub: Arc<Hub>, peer: Arc<Peer>, kind: LinkKind) {
    tokio::select! {
        () = dial_again_and_again(&hub, &peer, kind) => {}
        () = peer.left() => {}
    }
}

async fn dial_again_and_again(hub: &Hub, peer: &Peer, kind: LinkKind) {
    let mut failures = 0;
    loop {
        let started = clock::now();
        let (mut renewal, mut calls) = (peer.renewal(), peer.calls());
        // Before the peer can send anything.
        let epoch = hub.epoch(kind);
        match dial(&peer.address(), peer.credentials(), peer.target(), DIAL_WITHIN).await {
            // The lanes to the same door speak of it in the log.
            Err(error) => debug!(peer = peer.id().0, ?kind, "no link: {error}"),
            Ok(dialled) => carry(hub, peer.id(), kind, epoch, dialled, &mut renewal).await,
        }
        // A link that stood shorter than this counts as a failure: a peer that takes and drops it (it does not
        // know this member yet, for one) is not asked in a loop.
        failures = if clock::now() < started + DIAL_WITHIN {
            failures + 1
        } else {
            0
        };
        let mut renewal = peer.renewal();
        tokio::select! {
            () = sleep_until(started + backoff(failures)) => {}
            // It is somewhere else, or there again.
            _ = renewal.changed() => {}
            _ = calls.changed() => {}
        }
    }
}

async fn carry(hub: &Hub, peer: NodeId, kind: LinkKind, epoch: u64, dialled: Dialled, renewal: &mut Renewal) {
    let Dialled {
        send, mut connection, ..
    } = dialled;
    let pings = connection.ping_pong();
    let link = hub.link(kind, peer, epoch);
    let talk = async {
        // Held to the end: an HTTP/2 connection without handles closes itself.
        let (_send, response, mut stream) = match open_stream(send, kind.path()).await {
            Ok(opened) => opened,
            Err(error) => return End::Broken(error.into()),
        };
        let response = match timeout(DIAL_WITHIN, response).await {
            Ok(Ok(response)) if is_answer(response.status(), response.headers()) => response,
            Ok(Ok(_)) | Err(_) => return End::Broken(StreamError::Ended),
            Ok(Err(error)) => return End::Broken(error.into()),
        };
        let end = hub.talk(&link, &mut response.into_body(), &mut stream).await;
        stream.send_reset(end.reason());
        end
    };
    let silence = async {
        match pings {
            Some(pings) => until_silent(pings, ping_within(kind)).await,
            None => std::future::pending().await,
        }
    };
    let end = tokio::select! {
        biased;
        end = talk => end,
        result = &mut connection => {
            End::Broken(result.err().map_or(StreamError::Ended, StreamError::Http))
        }
        () = silence => End::Broken(StreamError::Silent),
        _ = renewal.changed() => End::Closed,
    };
    hub.note(&link, &end);
}

/// Behind a window full of records an answer may rightly take longer than among small frames.
fn ping_within(kind: LinkKind) -> Duration {
    match kind {
        LinkKind::Distro => DISTRO_PING_WITHIN,
        LinkKind::Forward => PING_WITHIN,
    }
}
