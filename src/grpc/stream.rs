//! The stream of a client: it registers the connection, brings acknowledgements, and carries pushes.
//!
//! One small task for each client reads what comes and sends what could not be sent at once. Everything
//! else about pushing happens in the tasks of those who push (`push`, `outbox`).

use std::collections::BTreeMap;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::Request;
use proto::grpc::{FrameDecoder, MESSAGE_BYTES_MAX};
use proto::nacos::remote::{AbilityTable, Ack, ConnectionSetupRequest, SetupAckRequest};
use proto::nacos::{Message as _, Payload, TextMap};
use tokio::time::{Sleep, sleep};
use tracing::debug;

use super::body::{BODY_WITHIN, BodyError, Encoding, Room, STEP_BYTES, inflate};
use super::connection::{Client, Setup};
use super::conversation::{Conversation, head};
use super::listener::refuse;
use super::outbox::Outbox;
use crate::cluster::BoxFuture;

/// An unfinished message is counted as those of unary requests are, but for so much: what an innocent client sends
/// here is smaller, and may come in two pieces while others have taken all the room.
const UNCOUNTED_BYTES: usize = STEP_BYTES;
/// Messages read in one turn; other tasks of the thread get theirs then.
const MESSAGES_PER_TURN: usize = 32;
/// Labels and abilities of a setup; further ones are ignored.
const LABELS_MAX: usize = 64;
/// Bytes of a text of a setup that is kept; longer ones are cut.
const TEXT_BYTES_MAX: usize = 512;

/// Clients whose requests are two segments, the second sent when the first is acknowledged: Rust's (0.8.3). It has
/// no TCP_NODELAY, and writes head and body apart.
const SENDS_IN_PIECES: &str = "Nacos-Rust-Client";

/// What this server tells clients that it can do. What is not here makes them use their way around.
const ABILITIES: &[&str] = &["fuzzyWatch", "supportPersistentInstanceByGrpc"];

/// The work of a stream that has begun.
pub(super) fn begin(
    conversation: Arc<Conversation>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> BoxFuture<'static, ()> {
    if !conversation.take_stream() {
        refuse(respond, SECOND_STREAM);
        return Box::pin(ready(()));
    }
    let encoding = Encoding::of(request.headers());
    // The client waits for the head before it takes the stream to be open.
    let Ok(stream) = respond.send_response(head(), false) else {
        conversation.unregister();
        return Box::pin(ready(()));
    };
    let outbox = Arc::new(Outbox::new(conversation.line.clone(), stream));
    conversation.send_by(outbox.clone());
    Box::pin(Stream {
        outbox: Some(outbox),
        client: None,
        body: request.into_body(),
        decoder: FrameDecoder::new(MESSAGE_BYTES_MAX),
        encoding,
        unfinished: None,
        conversation,
        ended: false,
    })
}

/// The stream of one client, while it stands. Dropping it unregisters the client.
struct Stream {
    conversation: Arc<Conversation>,
    /// Until the client is registered; it is the client's then.
    outbox: Option<Arc<Outbox>>,
    client: Option<Arc<Client>>,
    body: RecvStream,
    decoder: FrameDecoder,
    encoding: Encoding,
    /// A message has begun and is not whole.
    unfinished: Option<Box<Unfinished>>,
    /// It has unregistered already; what is registered now came by the client's next stream.
    ended: bool,
}

/// A message whose end has not come.
struct Unfinished {
    /// For what there is of it.
    room: Room,
    /// When it is late.
    deadline: Pin<Box<Sleep>>,
}

/// Why a stream is ended.
enum End {
    /// The client ended it, or is gone, or this side has ended it already.
    Over,
    /// The client may not be here now.
    Refused(&'static str),
    /// The client sent what nobody can read.
    Malformed(BodyError),
}

impl Future for Stream {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        match this.poll_end(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(end) => {
                this.end(end);
                Poll::Ready(())
            }
        }
    }
}

impl Stream {
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        for _ in 0..MESSAGES_PER_TURN {
            let outbox = match &self.client {
                Some(client) => Some(client.pushes.outbox()),
                None => self.outbox.as_deref(),
            };
            if outbox.is_none_or(|outbox| outbox.poll_send(cx).is_ready()) {
                return Poll::Ready(End::Over);
            }
            let unfinished = self.unfinished.as_mut();
            if unfinished.is_some_and(|message| message.deadline.as_mut().poll(cx).is_ready()) {
                return Poll::Ready(End::Malformed(BodyError::Late));
            }
            match self.body.poll_data(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(chunk))) => {
                    if self.body.flow_control().release_capacity(chunk.len()).is_err() {
                        return Poll::Ready(End::Over);
                    }
                    self.decoder.push(chunk);
                    if let Err(end) = self.take_messages().and_then(|()| self.count_unfinished()) {
                        return Poll::Ready(end);
                    }
                }
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(End::Over),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn take_messages(&mut self) -> Result<(), End> {
        loop {
            let frame = self.decoder.next_frame();
            let Some(frame) = frame.map_err(|error| End::Malformed(error.into()))? else {
                return Ok(());
            };
            self.unfinished = None;
            let message = inflate(frame, self.encoding, MESSAGE_BYTES_MAX).map_err(End::Malformed)?;
            if let Some(client) = &self.client {
                client.heard();
            }
            match Payload::decode(message) {
                Ok(payload) => self.take(&payload)?,
                // The frame around it was sound: the next message can be read.
                Err(error) => self.complain(&error),
            }
        }
    }

    /// Has room and a deadline for the message that has begun, if one has.
    fn count_unfinished(&mut self) -> Result<(), End> {
        if self.decoder.is_between_messages() {
            return Ok(());
        }
        let unfinished = self.unfinished.get_or_insert_with(|| {
            let conversation = &self.conversation;
            Box::new(Unfinished {
                room: Room::new(&conversation.bodies, &conversation.gateway.bodies),
                deadline: Box::pin(sleep(BODY_WITHIN)),
            })
        });
        match self.decoder.held_bytes() {
            ..=UNCOUNTED_BYTES => Ok(()),
            held => unfinished.room.grow_to(held).map_err(End::Malformed),
        }
    }

    fn take(&mut self, payload: &Payload) -> Result<(), End> {
        if payload.type_name() == ConnectionSetupRequest::TYPE {
            return match payload.read() {
                Ok(setup) => self.set_up(payload, &setup),
                Err(error) => {
                    self.complain(&error);
                    Err(End::Refused("its setup cannot be read"))
                }
            };
        }
        // Whatever else it is, what counts is whether it has the id of a push.
        let Some(client) = &self.client else { return Ok(()) };
        match payload.read::<Ack<'_>>() {
            Ok(ack) => client.pushes.answered(&ack, payload.json()),
            Err(error) => self.complain(&error),
        }
        Ok(())
    }

    fn set_up(&mut self, payload: &Payload, setup: &ConnectionSetupRequest<'_>) -> Result<(), End> {
        let gateway = &self.conversation.gateway;
        if gateway.readiness.is_loading() {
            gateway.metrics.setups_refused.fetch_add(1, Ordering::Relaxed);
            return Err(End::Refused("this node is starting"));
        }
        if gateway.stopping.has_begun() {
            gateway.metrics.setups_refused.fetch_add(1, Ordering::Relaxed);
            return Err(End::Refused("this node is stopping"));
        }
        // A second setup changes nothing.
        let Some(outbox) = self.outbox.take() else {
            return Ok(());
        };
        let line = self.conversation.line.clone();
        let client = Arc::new(Client::new(
            self.conversation.id.clone(),
            line,
            read_setup(payload, setup, self.conversation.line.remote.ip()),
            outbox,
            gateway.metrics.clone(),
        ));
        if client.setup.version.starts_with(SENDS_IN_PIECES) {
            client.line.acknowledge_at_once();
        }
        debug!(id = %client.id, version = %client.setup.version, "a client was registered");
        self.client = Some(client.clone());
        self.conversation.register(client.clone());
        // A client that said nothing of abilities would log an error about a message it does not know.
        if setup.ability_table.is_some() {
            let told = client.push_unacknowledged(|id| SetupAckRequest {
                request_id: Some(id),
                ability_table: ABILITIES
                    .iter()
                    .map(|ability| ((*ability).into(), true))
                    .collect::<AbilityTable<'_>>(),
                ..SetupAckRequest::default()
            });
            // It waits for this and gives up without: it has to come again.
            told.map_err(|_| End::Refused("it takes nothing"))?;
        }
        self.conversation.gateway.registered(&client);
        Ok(())
    }

    fn complain(&self, why: &dyn std::fmt::Display) {
        let conversation = &self.conversation;
        conversation.gateway.malformed(conversation.line.remote, why);
    }

    fn end(&mut self, end: End) {
        let line = &self.conversation.line;
        match end {
            End::Over => {}
            End::Refused(why) => {
                debug!(remote = %line.remote, "a client was not registered: {why}");
                line.hang_up();
            }
            End::Malformed(error) => {
                self.complain(&error);
                line.hang_up();
            }
        }
        if let Some(outbox) = &self.outbox {
            outbox.end();
        }
        // The client's own outbox is ended with its registration.
        self.ended = true;
        self.conversation.unregister();
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.ended {
            self.conversation.unregister();
        }
    }
}

fn read_setup(payload: &Payload, setup: &ConnectionSetupRequest<'_>, ip: std::net::IpAddr) -> Setup {
    let labels = read_labels(&setup.labels);
    let app_name = ["AppName", "app"]
        .iter()
        .find_map(|name| labels.get(*name))
        .cloned()
        .unwrap_or_default();
    let client_ip = match payload.client_ip() {
        "" => ip.to_canonical().to_string(),
        told => cut(told).into(),
    };
    let abilities = setup.ability_table.as_ref().map(|table| {
        let told = table.iter().take(LABELS_MAX);
        told.map(|(ability, can)| (cut(ability).into(), *can)).collect()
    });
    Setup {
        client_ip: client_ip.into(),
        version: cut(&setup.client_version).into(),
        app_name,
        namespace: cut(&setup.tenant).into(),
        labels,
        abilities,
    }
}

fn read_labels(labels: &TextMap<'_>) -> BTreeMap<Box<str>, Box<str>> {
    let kept = labels.iter().take(LABELS_MAX);
    kept.map(|(label, value)| (cut(label).into(), cut(value).into()))
        .collect()
}

/// The beginning of a text, as long as texts of a setup may be.
fn cut(text: &str) -> &str {
    let end = text.floor_char_boundary(TEXT_BYTES_MAX);
    text.get(..end).unwrap_or_default()
}

const SECOND_STREAM: (&str, &str) = ("8", "a connection has one stream");
