//! The handshake as values: frames in, frames out. The streams they travel on are the business of
//! [`super::door`] and [`super::dial`].
//!
//! ```text
//! caller                                             door
//!   |  POST /rnacos.cluster.Peer/Handshake            |
//!   |------------------------------------------------>|  no token and not this machine: refused, number 1
//!   |                          challenge: 32 bytes    |
//!   |<------------------------------------------------|
//!   |  hello: caller's proof, Hello                   |
//!   |------------------------------------------------>|  proof checked over the bytes,
//!   |                                                 |  only then is Hello parsed
//!   |                     answer: door's proof, Answer|
//!   |<------------------------------------------------|  the caller checks the proof before it parses
//! ```
//!
//! The caller proves itself first, so that a port scanner gets nothing to guess the token from. Its proof
//! covers the door's challenge and all of Hello: its nonce, who it is and *whom it means to reach*; the
//! door's proof covers those and the answer. So neither can be replayed, handed back or used at another
//! door.
//!
//! | bytes | handshake frame |
//! |---|---|
//! | 1 | 1 challenge, 2 hello, 3 answer, 4 refused without proof |
//! | 4 | length of the rest, big-endian, at most 4 KiB |
//! | n | 1: nonce (32). 2: proof (32), `cluster.Hello`. 3: proof (32), `cluster.Answer`. 4: a number (1) |

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message as _;

use super::identity::{Hello, Identity, Kind, Target};
use super::limits::{HANDSHAKE_BYTES_MAX, VERSION, VERSION_MIN};
use super::refused::Refused;
use super::token::{ClusterToken, Nonce, Proof, fresh_nonce};
use proto::cluster as pb;

const CHALLENGE: u8 = 1;
const HELLO: u8 = 2;
const ANSWER: u8 = 3;
const REFUSED: u8 = 4;
/// Tag and length.
const HEAD_BYTES: usize = 5;

/// A handshake frame as it came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// The door's nonce.
    Challenge(Nonce),
    /// The caller's proof and the bytes it covers, not parsed yet.
    Hello(Proof, Bytes),
    /// The door's proof and the bytes it covers, not parsed yet.
    Answer(Proof, Bytes),
    /// Not let in; nobody proved anything.
    Refused(Refused),
}

/// Bytes that are no handshake frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadFrame;

impl Frame {
    /// The first frame of `buffer`, taken out of it; `None` while it is not complete.
    pub(super) fn take(buffer: &mut BytesMut) -> Result<Option<Frame>, BadFrame> {
        let Some((head, _)) = buffer.split_first_chunk::<HEAD_BYTES>() else {
            return Ok(None);
        };
        let [tag, length @ ..] = *head;
        let length = u32::from_be_bytes(length) as usize;
        if length > HANDSHAKE_BYTES_MAX || !(CHALLENGE..=REFUSED).contains(&tag) {
            return Err(BadFrame);
        }
        if buffer.len() < HEAD_BYTES + length {
            return Ok(None);
        }
        let body = buffer.split_to(HEAD_BYTES + length).freeze().slice(HEAD_BYTES..);
        Frame::parse(tag, &body).map(Some).ok_or(BadFrame)
    }

    fn parse(tag: u8, body: &Bytes) -> Option<Frame> {
        let proved = || Some((*body.first_chunk::<32>()?, body.slice(32..)));
        Some(match tag {
            CHALLENGE => Frame::Challenge(body.as_ref().try_into().ok()?),
            HELLO => proved().map(|(proof, bytes)| Frame::Hello(proof, bytes))?,
            ANSWER => proved().map(|(proof, bytes)| Frame::Answer(proof, bytes))?,
            _ => match body.as_ref() {
                [number] => Frame::Refused(Refused::from_unproved_number(*number)),
                _ => return None,
            },
        })
    }

    pub(super) fn to_bytes(&self) -> Bytes {
        match self {
            Frame::Challenge(nonce) => frame(CHALLENGE, nonce, &[]),
            Frame::Hello(proof, hello) => frame(HELLO, proof, hello),
            Frame::Answer(proof, answer) => frame(ANSWER, proof, answer),
            Frame::Refused(refused) => frame(REFUSED, &[refused.unproved_number().unwrap_or(0)], &[]),
        }
    }
}

fn frame(tag: u8, first: &[u8], second: &[u8]) -> Bytes {
    let length = first.len() + second.len();
    let mut out = BytesMut::with_capacity(HEAD_BYTES + length);
    out.put_u8(tag);
    out.put_u32(length as u32);
    out.put_slice(first);
    out.put_slice(second);
    out.freeze()
}

// ------------------------------------------------------------------ the door's side

/// What the door says to a hello, and whom it has let in.
#[derive(Debug)]
pub(super) struct Verdict {
    /// To be sent.
    pub(super) reply: Frame,
    /// Who came; known only when the proof was right and its hello could be read.
    pub(super) caller: Option<(Kind, Identity, Target)>,
    /// Let in, with the protocol version agreed on, or why not.
    pub(super) result: Result<u32, Refused>,
}

/// Judges a hello. Nothing in `hello` is looked at before its proof is right.
pub(super) fn judge(
    token: &ClusterToken,
    door: &Identity,
    challenge: &Nonce,
    proof: &Proof,
    hello: &Bytes,
) -> Verdict {
    if !token.is_caller_proof(challenge, hello, proof) {
        return unproved(why_unproved(token, challenge, proof, hello));
    }
    let Some(parsed) = pb::Hello::decode(hello.as_ref()).ok().and_then(Hello::from_proto) else {
        return unproved(Refused::Malformed);
    };
    let (Some(kind), true) = (parsed.kind, parsed.has_nonce) else {
        return unproved(Refused::Malformed);
    };
    let result = admit(kind, &parsed, door);
    let body = match &result {
        Ok(version) => pb::answer::Body::Welcome(pb::Welcome {
            version: *version,
            door: Some(door.to_proto()),
        }),
        Err(refused) => pb::answer::Body::Refused(refused.to_proto(door)),
    };
    let answer = Bytes::from(pb::Answer { body: Some(body) }.encode_to_vec());
    let proof = token.door_proof(challenge, hello, &answer);
    Verdict {
        reply: Frame::Answer(proof, answer),
        caller: Some((kind, parsed.caller, parsed.target)),
        result,
    }
}

fn unproved(refused: Refused) -> Verdict {
    Verdict {
        reply: Frame::Refused(refused.clone()),
        caller: None,
        result: Err(refused),
    }
}

/// Which hint helps the operator most. An empty token is no secret, so telling that one was used tells
/// an attacker nothing.
fn why_unproved(token: &ClusterToken, challenge: &Nonce, proof: &Proof, hello: &[u8]) -> Refused {
    if !token.is_set() {
        Refused::TokenUnset
    } else if ClusterToken::unset().is_caller_proof(challenge, hello, proof) {
        Refused::TokenMissing
    } else {
        Refused::TokenWrong
    }
}

/// R33: an address may be reused, a folder restored elsewhere, a node wiped. Each side says who it is and
/// whom it means, and anything but a match is refused.
fn admit(kind: Kind, hello: &Hello, door: &Identity) -> Result<u32, Refused> {
    if hello.version < VERSION_MIN {
        return Err(Refused::Version {
            min: VERSION_MIN,
            max: VERSION,
        });
    }
    let Some(ours) = door.cluster_id else {
        return Err(Refused::NotFormed {
            node: door.node_id,
            incarnation: door.incarnation,
        });
    };
    let theirs = match kind {
        Kind::Member => hello.caller.cluster_id,
        // They may not know a cluster yet; if they name one, it must be this.
        Kind::Joiner | Kind::Operator => hello.caller.cluster_id.or(hello.target.cluster_id).or(Some(ours)),
    };
    let meant = hello.target.cluster_id.unwrap_or(ours);
    if theirs != Some(ours) || meant != ours {
        return Err(Refused::OtherCluster {
            ours: theirs,
            theirs: Some(ours),
            node: door.node_id,
        });
    }
    check_target(&hello.target, door)?;
    if kind == Kind::Member && (hello.caller.node_id == door.node_id || hello.caller.node_id.0 == 0) {
        return Err(Refused::SameNode(door.node_id));
    }
    Ok(hello.version.min(VERSION))
}

/// The door is the node that was meant.
fn check_target(target: &Target, door: &Identity) -> Result<(), Refused> {
    if let Some(expected) = target.node_id.filter(|expected| *expected != door.node_id) {
        return Err(Refused::OtherNode {
            expected,
            found: door.node_id,
        });
    }
    if let Some(expected) = target
        .incarnation
        .filter(|expected| *expected != door.incarnation)
    {
        return Err(Refused::OtherIncarnation {
            node: door.node_id,
            expected,
            found: door.incarnation,
        });
    }
    Ok(())
}

// ------------------------------------------------------------------ the caller's side

/// A caller in the middle of its handshake.
#[derive(Debug)]
pub(super) struct Caller {
    token: ClusterToken,
    target: Target,
    challenge: Nonce,
    hello: Bytes,
}

/// Why a handshake did not succeed, on the caller's side.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The door does not let this node in.
    #[error("the node at that address refused: {0}")]
    Refused(#[source] Refused),
    /// What answers does not know the token, or is no peer door.
    #[error("what answers there did not prove the cluster token")]
    Unproved,
    /// What answers is no peer door of this protocol.
    #[error("what answers there is no peer door (is it the gRPC port, HTTP port + 1000, of a node?)")]
    NoDoor,
}

impl Caller {
    /// The answer to a challenge: the frame to send, and what is needed to judge what comes back.
    pub(super) fn answer(
        token: &ClusterToken,
        challenge: Nonce,
        kind: Kind,
        caller: &Identity,
        target: Target,
    ) -> (Frame, Caller) {
        let hello = Hello {
            version: VERSION,
            kind: Some(kind),
            has_nonce: true,
            caller: caller.clone(),
            target,
        };
        let hello = Bytes::from(hello.to_proto(kind, &fresh_nonce()).encode_to_vec());
        let proof = token.caller_proof(&challenge, &hello);
        let frame = Frame::Hello(proof, hello.clone());
        (
            frame,
            Caller {
                token: token.clone(),
                target,
                challenge,
                hello,
            },
        )
    }

    /// Judges what the door said: the version agreed on and who the door is.
    ///
    /// # Errors
    /// Also when the door lets this node in but is not the one meant: a door does not get to decide that.
    pub(super) fn judge(&self, frame: Frame) -> Result<(u32, Identity), HandshakeError> {
        let (proof, answer) = match frame {
            Frame::Answer(proof, answer) => (proof, answer),
            Frame::Refused(refused) => return Err(HandshakeError::Refused(refused)),
            Frame::Challenge(_) | Frame::Hello(..) => return Err(HandshakeError::NoDoor),
        };
        if !self
            .token
            .is_door_proof(&self.challenge, &self.hello, &answer, &proof)
        {
            return Err(HandshakeError::Unproved);
        }
        let answer = pb::Answer::decode(answer.as_ref()).map_err(|_| HandshakeError::NoDoor)?;
        let welcome = match answer.body.ok_or(HandshakeError::NoDoor)? {
            pb::answer::Body::Welcome(welcome) => welcome,
            pb::answer::Body::Refused(refused) => {
                return Err(HandshakeError::Refused(Refused::from_proto(
                    &refused,
                    &self.target,
                )));
            }
        };
        let door = welcome
            .door
            .and_then(Identity::from_proto)
            .ok_or(HandshakeError::NoDoor)?;
        self.check_door(&door).map_err(HandshakeError::Refused)?;
        Ok((welcome.version, door))
    }

    fn check_door(&self, door: &Identity) -> Result<(), Refused> {
        if self.target.cluster_id.is_some() && self.target.cluster_id != door.cluster_id {
            return Err(Refused::OtherCluster {
                ours: self.target.cluster_id,
                theirs: door.cluster_id,
                node: door.node_id,
            });
        }
        check_target(&self.target, door)
    }
}

#[cfg(test)]
mod tests;
