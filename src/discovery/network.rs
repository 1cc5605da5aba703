//! The registry's way to its peers: streams of the protocol, and acts that belong to another node.
//!
//! **Nothing late.** An act that was under way for [`FORWARD_WITHIN`] or longer is not done: the node that sent it
//! has done it itself, and its client may have undone it since. How old it is is told by the logical clock, which
//! nodes share, and by this node's last look at its own; and an act is not done over a word about the same instance
//! that is newer than the act.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use raft::NodeId;
use tokio::sync::oneshot;

use super::forward::{Act, Done, Frame, Reply, Request};
use super::node::{Discovery, Shared};
use super::wire;
use crate::cluster::{Link, LinkId, LinkKind, LinkService, Malformed};
use crate::distro::Message;
use crate::naming::{Batch, Stamp};

/// An act that was forwarded is answered within this, or done here.
pub(super) const FORWARD_WITHIN: Duration = Duration::from_secs(2);
/// Acts on their way that this node waits for. Beyond it acts are done here.
const WAITING_MAX: usize = 65_536;

/// Acts on their way to other nodes.
#[derive(Debug, Default)]
pub(super) struct Forwards(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    /// By node.
    links: BTreeMap<u64, Link>,
    newest: u64,
    acts: HashMap<u64, (LinkId, oneshot::Sender<Done>)>,
}

impl Forwards {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opened(&self, peer: NodeId, link: Link) {
        self.lock().links.insert(peer.0, link);
    }

    /// Nobody answers what was sent there: those who wait hear it at once.
    fn closed(&self, peer: NodeId, link: LinkId) {
        let mut waiting = self.lock();
        if waiting.links.get(&peer.0).is_some_and(|open| open.id() == link) {
            waiting.links.remove(&peer.0);
        }
        waiting.acts.retain(|_, (sent_on, _)| *sent_on != link);
    }

    fn link(&self, peer: NodeId, link: LinkId) -> Option<Link> {
        let waiting = self.lock();
        let open = waiting.links.get(&peer.0)?;
        (open.id() == link).then(|| open.clone())
    }

    /// Puts an act on its way; `None` when there is none, or too many are.
    fn send(&self, to: u64, asked: Stamp, above: Stamp, act: &Act) -> Option<UnderWay<'_>> {
        let mut waiting = self.lock();
        if waiting.acts.len() >= WAITING_MAX {
            return None;
        }
        let link = waiting.links.get(&to)?.clone();
        waiting.newest += 1;
        let id = waiting.newest;
        let request = Request {
            id,
            asked,
            above,
            act: act.clone(),
        };
        link.send(wire::encode_forward(&Frame::Request(request))).ok()?;
        let (answer, answered) = oneshot::channel();
        waiting.acts.insert(id, (link.id(), answer));
        Some(UnderWay {
            forwards: self,
            id,
            answered,
        })
    }

    fn answered(&self, link: LinkId, reply: Reply) {
        let waits = {
            let mut waiting = self.lock();
            match waiting.acts.get(&reply.id) {
                Some((sent_on, _)) if *sent_on == link => waiting.acts.remove(&reply.id),
                _ => None,
            }
        };
        if let Some((_, answer)) = waits {
            // Whoever waited may have given up.
            let _given_up = answer.send(reply.done);
        }
    }

    /// Acts under way to others.
    pub(super) fn under_way(&self) -> usize {
        self.lock().acts.len()
    }
}

/// An act under way. Nobody waits for its answer any more once this is dropped, as it is when a client hangs up.
struct UnderWay<'a> {
    forwards: &'a Forwards,
    id: u64,
    answered: oneshot::Receiver<Done>,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.forwards.lock().acts.remove(&self.id);
    }
}

impl Discovery {
    /// Does an act where it belongs: on the responsible node, and here if that one does not answer within
    /// two seconds.
    ///
    /// # Cancel safety
    /// Dropped, the act may be done all the same; nothing waits for it here.
    pub async fn handle(&self, act: Act) -> Done {
        let (to, asked, above) = self.whose(&act);
        if to == self.node() {
            return self.execute(act);
        }
        let Some(mut under_way) = self.forwards.send(to, asked, above, &act) else {
            return self.execute(act);
        };
        let answer = tokio::time::timeout(FORWARD_WITHIN, &mut under_way.answered).await;
        // An answer that comes from now on is nobody's.
        drop(under_way);
        match answer {
            Ok(Ok(done)) if done != Done::NotHere => done,
            _ => self.execute(act),
        }
    }

    /// Brings what the protocol says on its way, in its order. A link that takes no more is ended: the next
    /// one goes on from what the peer has confirmed.
    pub(super) fn send_out(&self, shared: &mut Shared) {
        // Peers that are equally far are sent one batch, which is written once.
        let mut encoded: Vec<(Arc<Batch>, Bytes)> = Vec::new();
        for out in shared.distro.take_out() {
            let Some(link) = shared.links.get(&out.to) else {
                continue;
            };
            let frame = match &out.message {
                Message::Changes(batch) => {
                    match encoded.iter().find(|(known, _)| Arc::ptr_eq(known, batch)) {
                        Some((_, frame)) => frame.clone(),
                        None => {
                            let frame = wire::encode_message(&out.message);
                            encoded.push((Arc::clone(batch), frame.clone()));
                            frame
                        }
                    }
                }
                message => wire::encode_message(message),
            };
            if link.send(frame).is_err() {
                link.close();
            }
        }
    }

    fn on_message(&self, peer: NodeId, link: LinkId, frame: Bytes) -> Result<(), Malformed> {
        let message = wire::decode_message(frame).map_err(|error| Malformed(error.to_string()))?;
        let Some(message) = message else { return Ok(()) };
        let mut shared = self.lock();
        let this = &mut *shared;
        if this.links.get(&peer.0).is_some_and(|open| open.id() == link) {
            this.distro
                .on_message(self.now_ms(), &mut this.registry, peer.0, message);
            self.send_out(this);
            self.tell(this);
            self.wake_if_due(this);
        }
        Ok(())
    }

    fn on_forwarded(&self, peer: NodeId, link: LinkId, frame: Bytes) -> Result<(), Malformed> {
        match wire::decode_forward(frame).map_err(|error| Malformed(error.to_string()))? {
            // Of a newer version: its sender does it itself when nobody answers.
            None => {}
            Some(Frame::Reply(mut reply)) => {
                let word = reply.word.take();
                if let Some((origin, word)) = word.filter(|(origin, _)| origin.node == peer.0) {
                    self.take_word(origin, word);
                }
                self.forwards.answered(link, reply);
            }
            Some(Frame::Request(request)) => {
                let Some(link) = self.forwards.link(peer, link) else {
                    return Ok(());
                };
                let Some(reply) = self.execute_in_time(request) else {
                    link.close();
                    return Ok(());
                };
                if link.send(wire::encode_forward(&Frame::Reply(reply))).is_err() {
                    link.close();
                }
            }
        }
        Ok(())
    }

    fn opened(&self, kind: LinkKind, peer: NodeId, link: Link) {
        if kind == LinkKind::Forward {
            return self.forwards.opened(peer, link);
        }
        let mut shared = self.lock();
        let this = &mut *shared;
        if !this.distro.on_connected(self.now_ms(), &this.registry, peer.0) {
            // A link may stand a moment before this node has heard who the members are. Kept, it would be silent until
            // the other side gives it up; dialled again, it is heard from its first message on.
            return link.close();
        }
        this.links.insert(peer.0, link);
        self.send_out(this);
    }

    fn closed(&self, kind: LinkKind, peer: NodeId, link: LinkId) {
        if kind == LinkKind::Forward {
            return self.forwards.closed(peer, link);
        }
        let mut shared = self.lock();
        if shared.links.get(&peer.0).is_some_and(|open| open.id() == link) {
            shared.links.remove(&peer.0);
            shared.distro.on_disconnected(peer.0);
        }
    }
}

/// The end of all links at this node. It does not keep the registry alive, which holds the links.
#[derive(Debug)]
pub struct LinkEnd(Weak<Discovery>);

impl LinkEnd {
    /// That of a registry.
    pub fn of(discovery: &Arc<Discovery>) -> Arc<LinkEnd> {
        Arc::new(LinkEnd(Arc::downgrade(discovery)))
    }
}

impl LinkService for LinkEnd {
    fn opened(&self, kind: LinkKind, peer: NodeId, link: Link) {
        if let Some(discovery) = self.0.upgrade() {
            discovery.opened(kind, peer, link);
        }
    }

    fn received(&self, kind: LinkKind, peer: NodeId, link: LinkId, frame: Bytes) -> Result<(), Malformed> {
        match (self.0.upgrade(), kind) {
            (None, _) => Ok(()),
            (Some(discovery), LinkKind::Distro) => discovery.on_message(peer, link, frame),
            (Some(discovery), LinkKind::Forward) => discovery.on_forwarded(peer, link, frame),
        }
    }

    fn closed(&self, kind: LinkKind, peer: NodeId, link: LinkId) {
        if let Some(discovery) = self.0.upgrade() {
            discovery.closed(kind, peer, link);
        }
    }

    fn is_late(&self, kind: LinkKind) -> bool {
        let discovery = self.0.upgrade();
        discovery.is_some_and(|discovery| discovery.is_late_for(kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// HTTP drops the work of a client that hangs up.
    #[test]
    fn an_act_that_nobody_waits_for_is_forgotten() {
        let forwards = Forwards::default();
        let (answer, answered) = oneshot::channel();
        forwards.lock().acts.insert(7, (LinkId(1), answer));
        let under_way = UnderWay {
            forwards: &forwards,
            id: 7,
            answered,
        };
        assert_eq!(forwards.under_way(), 1);
        drop(under_way);
        assert_eq!(forwards.under_way(), 0);
        // Its answer comes all the same.
        let reply = Reply {
            id: 7,
            done: Done::Yes,
            word: None,
        };
        forwards.answered(LinkId(1), reply);
    }
}
