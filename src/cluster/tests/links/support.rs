//! Nodes with links, whose services write down what they are told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use bytes::Bytes;
use http::Request;
use raft::{Configuration, NodeId};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::cluster::dial::{Dialled, dial};
use crate::cluster::tests::support::*;
use crate::cluster::*;
use crate::shutdown::Shutdown;

use LinkKind::Forward;

/// What a service was told.
#[derive(Debug)]
pub(super) enum Told {
    Opened(LinkKind, NodeId, Link),
    Received(LinkKind, LinkId, Bytes),
    Closed(LinkKind, NodeId, LinkId),
}

/// Writes down what it is told, and insists on the order in which it must be told.
#[derive(Debug)]
pub(super) struct Notes {
    told: mpsc::Sender<Told>,
    pub(super) open: Mutex<BTreeMap<(LinkKind, NodeId), LinkId>>,
    pub(super) late: AtomicBool,
    /// Frames of this kind are held up while it is set.
    shut: (Mutex<Option<LinkKind>>, Condvar),
}

impl LinkService for Notes {
    fn opened(&self, kind: LinkKind, peer: NodeId, link: Link) {
        assert_eq!((link.kind(), link.peer()), (kind, peer));
        let older = self.open.lock().unwrap().insert((kind, peer), link.id());
        assert_eq!(older, None, "the older link is closed first");
        self.tell(Told::Opened(kind, peer, link));
    }

    fn received(&self, kind: LinkKind, peer: NodeId, link: LinkId, frame: Bytes) -> Result<(), Malformed> {
        let open = self.open.lock().unwrap().get(&(kind, peer)).copied();
        assert_eq!(open, Some(link), "a frame of a link that does not stand");
        if frame == "nonsense" {
            return Err(Malformed("nonsense".to_owned()));
        }
        let (shut, changed) = &self.shut;
        // Told under the lock: who has heard of a frame and shuts then holds up the next one, not this one.
        let mut shut = shut.lock().unwrap();
        self.tell(Told::Received(kind, link, frame));
        let held_up = |shut: &mut Option<LinkKind>| *shut == Some(kind);
        if held_up(&mut shut) {
            // Other tasks of this thread go on elsewhere.
            tokio::task::block_in_place(|| drop(changed.wait_while(shut, held_up).unwrap()));
        }
        Ok(())
    }

    fn closed(&self, kind: LinkKind, peer: NodeId, link: LinkId) {
        let open = self.open.lock().unwrap().remove(&(kind, peer));
        assert_eq!(open, Some(link), "closed once, and only what stood");
        self.tell(Told::Closed(kind, peer, link));
    }

    fn is_late(&self, kind: LinkKind) -> bool {
        kind == Forward && self.late.load(Ordering::SeqCst)
    }
}

impl Notes {
    fn tell(&self, told: Told) {
        let result = self.told.try_send(told);
        // The end of a test takes its ears away before its links end.
        assert!(
            !matches!(result, Err(TrySendError::Full(_))),
            "a test that is told too much"
        );
    }

    pub(super) fn shut(&self, kind: Option<LinkKind>) {
        *self.shut.0.lock().unwrap() = kind;
        self.shut.1.notify_all();
    }
}

/// A node with links.
pub(super) struct Linked {
    pub(super) node: Node,
    pub(super) notes: Arc<Notes>,
    told: Mutex<mpsc::Receiver<Told>>,
    _opens: Opens,
}

/// A test that fails while its service holds up a frame must not wait for that.
struct Opens(Arc<Notes>);

impl Drop for Opens {
    fn drop(&mut self) {
        self.0.shut(None);
    }
}

impl Linked {
    pub(super) fn start(id: u64) -> Linked {
        Linked::with(Setup::new(id))
    }

    pub(super) fn with(setup: Setup) -> Linked {
        let (told, received) = mpsc::channel(1 << 16);
        let notes = Arc::new(Notes {
            told,
            open: Mutex::default(),
            late: AtomicBool::new(false),
            shut: (Mutex::new(None), Condvar::new()),
        });
        let node = Node::with(Setup {
            links: Some(notes.clone()),
            ..setup
        });
        Linked {
            node,
            _opens: Opens(notes.clone()),
            notes,
            told: Mutex::new(received),
        }
    }

    pub(super) fn links(&self) -> &Links {
        self.node.links.as_ref().unwrap()
    }

    pub(super) async fn next(&self, what: &str) -> Told {
        let next = std::future::poll_fn(|cx| self.told.lock().unwrap().poll_recv(cx));
        match timeout(PATIENCE, next).await {
            Ok(told) => told.expect("the service lives"),
            Err(_) => panic!("node {} waited in vain for {what}", self.node.id),
        }
    }

    /// The first thing `pick` finds; what comes before it is forgotten.
    pub(super) async fn wait_for<T>(&self, what: &str, mut pick: impl FnMut(Told) -> Option<T>) -> T {
        loop {
            if let Some(found) = pick(self.next(what).await) {
                return found;
            }
        }
    }

    pub(super) async fn opened(&self, kind: LinkKind, peer: NodeId) -> Link {
        self.wait_for("a link", |told| match told {
            Told::Opened(of, to, link) if (of, to) == (kind, peer) => Some(link),
            _ => None,
        })
        .await
    }

    pub(super) async fn both_opened(&self, peer: NodeId) -> BTreeMap<LinkKind, Link> {
        let mut links = BTreeMap::new();
        while links.len() < 2 {
            let (kind, link) = self
                .wait_for("a link", |told| match told {
                    Told::Opened(kind, to, link) if to == peer => Some((kind, link)),
                    _ => None,
                })
                .await;
            links.insert(kind, link);
        }
        links
    }

    pub(super) async fn closed(&self, link: &Link) {
        self.wait_for("the end of a link", |told| match told {
            Told::Closed(_, _, id) if id == link.id() => Some(()),
            _ => None,
        })
        .await;
    }

    /// The next frames of one link, until there are as many.
    pub(super) async fn frames(&self, link: &Link, count: usize) -> Vec<Bytes> {
        let mut all = Vec::new();
        while all.len() < count {
            let frame = self.wait_for("a frame", |told| match told {
                Told::Received(_, id, frame) if id == link.id() => Some(frame),
                Told::Closed(_, _, id) if id == link.id() => panic!("it closed"),
                _ => None,
            });
            all.push(frame.await);
        }
        all
    }

    pub(super) fn set_members(&self, members: &Configuration) {
        self.node.transport.set_members(members);
    }
}

/// Two nodes and the links between them, as each of them sees them.
pub(super) struct Pair {
    pub(super) first: Linked,
    pub(super) second: Linked,
    pub(super) here: BTreeMap<LinkKind, Link>,
    pub(super) there: BTreeMap<LinkKind, Link>,
}

pub(super) async fn linked_pair() -> Pair {
    introduce_links(Linked::start(1), Linked::start(2)).await
}

pub(super) async fn introduce_links(first: Linked, second: Linked) -> Pair {
    let members = membership(&[first.node.member(), second.node.member()]);
    second.set_members(&members);
    first.set_members(&members);
    let here = first.both_opened(second.node.id).await;
    let there = second.both_opened(first.node.id).await;
    Pair {
        first,
        second,
        here,
        there,
    }
}

impl Pair {
    /// Both sides hear of the end of this kind, and of a new link, over which frames pass.
    pub(super) async fn is_made_anew(&mut self, kind: LinkKind) {
        self.first.closed(&self.here[&kind]).await;
        self.second.closed(&self.there[&kind]).await;
        self.is_new(kind).await;
    }

    pub(super) async fn is_new(&mut self, kind: LinkKind) {
        let here = self.first.opened(kind, self.second.node.id).await;
        let there = self.second.opened(kind, self.first.node.id).await;
        assert!(here.id() > self.here[&kind].id());
        here.send("new".into()).unwrap();
        there.send("new".into()).unwrap();
        assert_eq!(self.first.frames(&here, 1).await, ["new"]);
        assert_eq!(self.second.frames(&there, 1).await, ["new"]);
        self.here.insert(kind, here);
        self.there.insert(kind, there);
    }
}

/// A frame of 64 KiB that tells its place.
pub(super) fn numbered(number: usize) -> Bytes {
    let mut frame = vec![7; 1 << 16];
    frame[..8].copy_from_slice(&number.to_be_bytes());
    Bytes::from(frame)
}

impl Linked {
    pub(super) async fn all_closed(&self, links: &BTreeMap<LinkKind, Link>) {
        let mut left: BTreeSet<LinkId> = links.values().map(Link::id).collect();
        while !left.is_empty() {
            let closed = self.wait_for("the end of a link", |told| match told {
                Told::Closed(_, _, id) => Some(id),
                _ => None,
            });
            left.remove(&closed.await);
        }
    }

    pub(super) async fn closed_without_frames(&self, link: &Link) {
        self.wait_for("the end of a link", |told| match told {
            Told::Closed(_, _, id) if id == link.id() => Some(()),
            Told::Received(_, _, frame) => panic!("{frame:?} was handed on"),
            _ => None,
        })
        .await;
    }
}

/// Node 2, which lists this member (at an address where nobody is) and itself.
pub(super) async fn listing(other: &Identity) -> Linked {
    let node = Linked::start(2);
    let member = raft::Member {
        id: other.node_id,
        incarnation: other.incarnation,
        address: "127.0.0.1:1".to_owned(),
    };
    node.set_members(&membership(&[member, node.node.member()]));
    node
}

pub(super) type Opened = (http::Response<h2::RecvStream>, h2::SendStream<Bytes>);

pub(super) async fn ask_for(to: &Linked, identity: &Identity, path: &str) -> Opened {
    let credentials = Credentials::new(to.node.token.clone(), Kind::Member, identity.clone());
    ask_as(to, &credentials, path).await
}

/// As a node that does with its streams what it likes; the connection lives until the node stops.
pub(super) async fn ask_as(to: &Linked, credentials: &Credentials, path: &str) -> Opened {
    let address = to.node.address.to_string();
    let dialled = dial(&address, credentials, Target::default(), PATIENCE).await;
    let Dialled { send, connection, .. } = dialled.expect("the token is right");
    drop(to.node.shutdown.spawn(async move { drop(connection.await) }));
    let mut send = send.ready().await.unwrap();
    let request = Request::post(format!("http://peer{path}")).body(()).unwrap();
    let (response, stream) = send.send_request(request, false).unwrap();
    (response.await.unwrap(), stream)
}

/// What becomes of connections that go through a [`Way`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WayIs {
    Free,
    /// Those that are open are closed, new ones too.
    Cut,
    /// Nothing passes, and nobody is told.
    Silent,
}

/// A port in front of a node.
pub(super) struct Way {
    pub(super) address: String,
    to: watch::Sender<String>,
    state: watch::Sender<WayIs>,
    pub(super) shutdown: Shutdown,
}

impl Way {
    pub(super) async fn new() -> Way {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (to, _) = watch::channel(String::new());
        let (state, _) = watch::channel(WayIs::Free);
        let shutdown = Shutdown::new();
        let (target, now, all) = (to.subscribe(), state.subscribe(), shutdown.clone());
        shutdown.spawn_while_running(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    return;
                };
                all.spawn_while_running(pass(stream, target.borrow().clone(), now.clone()));
            }
        });
        Way {
            address,
            to,
            state,
            shutdown,
        }
    }

    pub(super) fn leads_to(&self, node: &Node) {
        self.to.send_replace(node.address.to_string());
    }

    pub(super) fn set(&self, state: WayIs) {
        self.state.send_replace(state);
    }
}

/// Carries bytes while the way is free. A connection that was ever held up is not continued.
pub(super) async fn pass(mut caller: TcpStream, to: String, state: watch::Receiver<WayIs>) {
    let changed = async |wanted: fn(WayIs) -> bool| {
        let _ = state.clone().wait_for(|state| wanted(*state)).await;
    };
    let carry = async {
        if let Ok(mut door) = TcpStream::connect(to).await {
            let _ = tokio::io::copy_bidirectional(&mut caller, &mut door).await;
        }
    };
    let held_up = tokio::select! {
        biased;
        () = changed(|state| state != WayIs::Free) => true,
        () = carry => false,
    };
    if held_up {
        changed(|state| state != WayIs::Silent).await;
    }
}
