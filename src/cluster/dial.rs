//! Calling a peer door: resolve, connect, prove, and check that it is the node meant.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::SendStream;
use h2::client::{Connection, ResponseFuture, SendRequest};
use http::{Method, Request, StatusCode};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::door::{HANDSHAKE_PATH, IsLocal, is_loopback};
use super::handshake::{Caller, Frame, HandshakeError};
use super::identity::{Identity, Kind, PeerIdentity, Target};
use super::limits::{SEND_BUFFER_BYTES, UNACKED_WITHIN, WINDOW_BYTES};
use super::stream::{StreamError, next_frame, send_all};
use super::token::ClusterToken;

/// As what this side comes, and with what it proves itself.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The cluster token.
    pub token: ClusterToken,
    /// As what.
    pub kind: Kind,
    /// Who.
    pub identity: Identity,
    is_local: IsLocal,
}

impl Credentials {
    /// Credentials of this node, or of an operator.
    pub fn new(token: ClusterToken, kind: Kind, identity: Identity) -> Credentials {
        Credentials {
            token,
            kind,
            identity,
            is_local: is_loopback,
        }
    }

    /// Another idea of which addresses are on this machine; for tests, which have no other.
    #[must_use]
    pub fn with_is_local(mut self, is_local: IsLocal) -> Credentials {
        self.is_local = is_local;
        self
    }
}

/// Why a peer door could not be used.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name has no address.
    #[error("{address} cannot be resolved")]
    Resolve {
        /// As configured.
        address: String,
        /// What the resolver says.
        #[source]
        source: io::Error,
    },
    /// Nobody listens there, or the way there is cut.
    #[error("{address} cannot be reached")]
    Connect {
        /// As configured.
        address: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Without a token nodes talk within one machine only: another machine could be anybody.
    #[error(
        "{address} is on another machine and this node has no cluster token: \
         set RNACOS_CLUSTER_TOKEN to the same secret on every node"
    )]
    TokenNeeded {
        /// As configured.
        address: String,
    },
    /// What listens there speaks no HTTP/2, or hung up.
    #[error("{address}: what listens there is no peer door (is it the gRPC port, HTTP port + 1000?)")]
    NoDoor {
        /// As configured.
        address: String,
        /// What HTTP/2 says.
        #[source]
        source: h2::Error,
    },
    /// The handshake failed.
    #[error("{address}: {source}")]
    Handshake {
        /// As configured.
        address: String,
        /// Why.
        source: HandshakeError,
    },
    /// Not within the time given.
    #[error("{address} did not answer within {} ms", within.as_millis())]
    Timeout {
        /// As configured.
        address: String,
        /// The time given.
        within: Duration,
    },
}

/// A connection on which both sides have proved themselves.
pub(super) struct Dialled {
    /// Opens streams on it.
    pub(super) send: SendRequest<Bytes>,
    /// Must be polled for anything to move.
    pub(super) connection: Connection<TcpStream, Bytes>,
    /// Who answers.
    pub(super) door: PeerIdentity,
}

/// Calls `address` (`host:port`, a name is resolved now) within the time given.
pub(super) async fn dial(
    address: &str,
    credentials: &Credentials,
    target: Target,
    within: Duration,
) -> Result<Dialled, DialError> {
    match timeout(within, try_dial(address, credentials, target)).await {
        Ok(result) => result,
        Err(_) => Err(DialError::Timeout {
            address: address.to_owned(),
            within,
        }),
    }
}

async fn try_dial(address: &str, credentials: &Credentials, target: Target) -> Result<Dialled, DialError> {
    let stream = connect(address, credentials).await?;
    let no_door = |source| DialError::NoDoor {
        address: address.to_owned(),
        source,
    };
    let remote = stream.peer_addr().map_err(|source| DialError::Connect {
        address: address.to_owned(),
        source,
    })?;
    let (send, mut connection) = h2::client::Builder::new()
        .initial_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .max_header_list_size(16 << 10)
        .enable_push(false)
        .handshake::<_, Bytes>(stream)
        .await
        .map_err(no_door)?;
    let shake = shake_hands(send, credentials, target);
    tokio::pin!(shake);
    let finished = tokio::select! {
        biased;
        result = &mut shake => Some(result),
        _ = &mut connection => None,
    };
    let result = match finished {
        Some(result) => result,
        // The door said its last word and hung up: the word is still to be read.
        None => shake.await,
    };
    let (send, version, identity) = result.map_err(|error| error.at(address))?;
    Ok(Dialled {
        send,
        connection,
        door: PeerIdentity {
            kind: Kind::Member,
            version,
            identity,
            remote,
        },
    })
}

/// The first of the addresses of the name that answers.
async fn connect(address: &str, credentials: &Credentials) -> Result<TcpStream, DialError> {
    let resolve = |source| DialError::Resolve {
        address: address.to_owned(),
        source,
    };
    let candidates: Vec<SocketAddr> = tokio::net::lookup_host(address).await.map_err(resolve)?.collect();
    let is_allowed = |ip: IpAddr| credentials.token.is_set() || (credentials.is_local)(ip);
    let mut last_error = None;
    for candidate in candidates {
        if !is_allowed(candidate.ip()) {
            return Err(DialError::TokenNeeded {
                address: address.to_owned(),
            });
        }
        match TcpStream::connect(candidate)
            .await
            .and_then(|stream| tune(&stream).map(|()| stream))
        {
            Ok(stream) => return Ok(stream),
            Err(error) => last_error = Some(error),
        }
    }
    match last_error {
        Some(source) => Err(DialError::Connect {
            address: address.to_owned(),
            source,
        }),
        None => Err(resolve(io::Error::new(
            io::ErrorKind::NotFound,
            "the name has no address",
        ))),
    }
}

/// Small messages leave at once; a peer that vanished is noticed.
fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_user_timeout(Some(UNACKED_WITHIN))?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(Duration::from_secs(10))
            .with_interval(Duration::from_secs(5)),
    )
}

enum ShakeError {
    Stream(StreamError),
    Handshake(HandshakeError),
}

impl ShakeError {
    fn at(self, address: &str) -> DialError {
        match self {
            ShakeError::Handshake(source) => handshake_error(address, source),
            ShakeError::Stream(StreamError::Http(source)) => DialError::NoDoor {
                address: address.to_owned(),
                source,
            },
            ShakeError::Stream(_) => handshake_error(address, HandshakeError::NoDoor),
        }
    }
}

impl From<StreamError> for ShakeError {
    fn from(error: StreamError) -> ShakeError {
        ShakeError::Stream(error)
    }
}

impl From<h2::Error> for ShakeError {
    fn from(error: h2::Error) -> ShakeError {
        ShakeError::Stream(error.into())
    }
}

fn handshake_error(address: &str, source: HandshakeError) -> DialError {
    DialError::Handshake {
        address: address.to_owned(),
        source,
    }
}

async fn shake_hands(
    send: SendRequest<Bytes>,
    credentials: &Credentials,
    target: Target,
) -> Result<(SendRequest<Bytes>, u32, Identity), ShakeError> {
    let (send, response, mut stream) = open_stream(send, HANDSHAKE_PATH).await?;
    let response = response.await?;
    if !is_answer(response.status(), response.headers()) {
        return Err(ShakeError::Handshake(HandshakeError::NoDoor));
    }
    let mut body = response.into_body();
    let mut buffer = BytesMut::new();
    let challenge = match next_frame(&mut body, &mut buffer).await? {
        Frame::Challenge(challenge) => challenge,
        Frame::Refused(refused) => return Err(ShakeError::Handshake(HandshakeError::Refused(refused))),
        _ => return Err(ShakeError::Handshake(HandshakeError::NoDoor)),
    };
    let Credentials {
        token,
        kind,
        identity,
        ..
    } = credentials;
    let (hello, caller) = Caller::answer(token, challenge, *kind, identity, target);
    send_all(&mut stream, hello.to_bytes(), true).await?;
    let frame = next_frame(&mut body, &mut buffer).await?;
    let (version, door) = caller.judge(frame).map_err(ShakeError::Handshake)?;
    Ok((send, version, door))
}

/// A server without a peer door answers unknown paths as gRPC does: 200 with a status in the headers.
pub(super) fn is_answer(status: StatusCode, headers: &http::HeaderMap) -> bool {
    status == StatusCode::OK && !headers.contains_key("grpc-status")
}

/// Opens a stream to a path of the door.
pub(super) async fn open_stream(
    send: SendRequest<Bytes>,
    path: &'static str,
) -> Result<(SendRequest<Bytes>, ResponseFuture, SendStream<Bytes>), h2::Error> {
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = peer_uri(path);
    let mut send = send.ready().await?;
    let (response, stream) = send.send_request(request, false)?;
    Ok((send, response, stream))
}

/// HTTP/2 wants a scheme and an authority; the door looks at the path alone.
fn peer_uri(path: &'static str) -> http::Uri {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(http::uri::Scheme::HTTP);
    parts.authority = Some(http::uri::Authority::from_static("peer"));
    parts.path_and_query = Some(http::uri::PathAndQuery::from_static(path));
    http::Uri::from_parts(parts).unwrap_or_default()
}
