//! A whole node of its own: core, log, state machine and loop on a temporary folder, the network a stub.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use raft::{
    Body, Boot, Configuration, EntryId, Incarnation, Index, Member, Message, NodeId, Refusal, Sender, Space,
    Term, VoteRequest,
};
use storage::{ClusterId, Folder, Options, Volume};

use super::{Handle, Inbox, Node, NodeParts, NodeStatus, ProposeError, Transport};
use crate::clock;
use crate::model::NamespaceId;
use crate::namespace::Wanted;
use crate::shutdown::Shutdown;
use crate::state::{Command, Event, Outcome, State};

/// Only a bug takes so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// Loses every message, or panics when told to.
#[derive(Default)]
struct Stub {
    panics: AtomicBool,
}

impl Transport for Stub {
    fn send(&self, to: NodeId, _: Message) {
        assert!(!self.panics.load(Ordering::Relaxed), "a message to {to}");
    }

    fn set_members(&self, _: &Configuration) {}
}

struct Running {
    handle: Handle,
    inbox: Inbox,
    stub: Arc<Stub>,
    shutdown: Shutdown,
    _folder: tempfile::TempDir,
}

impl Running {
    /// Node 1 of a cluster of these voters.
    fn start(voters: &[u64], on_change: impl FnMut(Vec<Event>) + Send + 'static) -> Running {
        let folder = tempfile::tempdir().unwrap();
        let opened = open(folder.path(), voters);
        let (state, _) = State::open(opened.tables.clone()).unwrap();
        let (stub, shutdown) = (Arc::new(Stub::default()), Shutdown::new());
        let (node, handle, inbox) = Node::start(NodeParts {
            config: raft::Config::default(),
            identity: opened.identity,
            recovered: opened.recovered,
            seed: 1,
            reader: opened.reader,
            writer: opened.writer,
            snapshots: opened.snapshots,
            state,
            transport: stub.clone(),
            compact_every_bytes: 16 << 20,
            on_change: Box::new(on_change),
            shutdown: shutdown.clone(),
        })
        .unwrap();
        drop(shutdown.spawn(node.run()));
        Running {
            handle,
            inbox,
            stub,
            shutdown,
            _folder: folder,
        }
    }

    async fn create(&self, name: &str) -> Result<Outcome, ProposeError> {
        let wanted = Wanted {
            id: NamespaceId::new(name),
            name: name.to_owned(),
            description: String::new(),
            now_ms: 0,
        };
        let deadline = clock::now() + PATIENCE;
        self.handle
            .propose(Command::NamespaceCreate(wanted), deadline)
            .await
    }

    async fn failure(&self) -> String {
        let mut status = self.handle.status_changes();
        let failed = status.wait_for(|status: &Arc<NodeStatus>| status.failure.is_some());
        let status = tokio::time::timeout(PATIENCE, failed)
            .await
            .expect("it says so")
            .unwrap();
        status.failure.clone().unwrap()
    }

    async fn stop(self) {
        self.shutdown.begin();
        assert!(self.shutdown.drained(PATIENCE).await);
    }
}

fn open(folder: &Path, voters: &[u64]) -> storage::Opened {
    let members = voters.iter().map(|id| {
        let member = Member {
            id: NodeId(*id),
            incarnation: Incarnation(*id),
            address: format!("node-{id}:9848"),
        };
        (member.id, member)
    });
    let configuration = Configuration {
        members: members.collect(),
        voters: voters.iter().copied().map(NodeId).collect(),
        ..Configuration::default()
    };
    let mut folder = Folder::open(folder).unwrap();
    folder
        .begin(NodeId(1), Incarnation(1), Some(ClusterId(7)))
        .unwrap();
    folder.finish(ClusterId(7), Some(&configuration)).unwrap();
    let roomy = Volume {
        free_bytes: 1 << 40,
        total_bytes: 1 << 41,
    };
    let options = Options {
        space_probe: Some(Arc::new(move || Ok(roomy))),
        ..Options::default()
    };
    folder.start(options).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_node_writes_reads_and_stops() {
    let node = Running::start(&[1], |_| {});
    assert_eq!(node.create("dev").await, Ok(Outcome::NamespaceDone));
    node.handle.read_index(clock::now() + PATIENCE).await.unwrap();
    let handle = node.handle.clone();
    node.stop().await;
    let after = handle
        .propose(Command::OpenSession, clock::now() + PATIENCE)
        .await;
    assert_eq!(after, Err(ProposeError::Stopping));
}

/// A state machine that is gone without a word would leave a leader that commits and never answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_panic_of_the_state_machine_fails_the_node() {
    let node = Running::start(&[1], |events| assert!(events.is_empty(), "a seeded fault"));
    let unanswered = node.create("dev").await;
    assert!(
        matches!(unanswered, Err(ProposeError::Unknown)),
        "it was applied, and nobody was left to say so: {unanswered:?}"
    );
    let reason = node.failure().await;
    assert!(
        reason.contains("state machine") && reason.contains("a seeded fault"),
        "{reason}"
    );
    assert!(matches!(node.create("test").await, Err(ProposeError::Failed(_))));
    node.stop().await;
}

/// The same for the loop itself: the server must hear of it and end.
#[tokio::test(flavor = "multi_thread")]
async fn a_panic_of_the_core_fails_the_node() {
    let node = Running::start(&[1], |_| {});
    assert!(node.create("dev").await.is_ok());
    node.stub.panics.store(true, Ordering::Relaxed);
    let question = Message {
        sender: Sender {
            id: NodeId(2),
            incarnation: Incarnation(2),
            boot: Boot(1),
            suspicion: None,
            space: Space::Ample,
        },
        term: Term(1),
        body: Body::PreVote(VoteRequest {
            term: Term(2),
            last: EntryId {
                term: Term(1),
                index: Index(1),
            },
            transfer: false,
        }),
    };
    assert!(node.inbox.deliver(vec![question]));
    let reason = node.failure().await;
    assert!(
        reason.contains("the core") && reason.contains("a message to 2"),
        "{reason}"
    );
    node.stop().await;
}

/// "Handed over" would be a lie of a node that had nothing to hand over.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_lead_hands_nothing_over() {
    let node = Running::start(&[1, 2], |_| {});
    let result = node
        .handle
        .transfer(Some(NodeId(2)), clock::now() + PATIENCE)
        .await;
    assert_eq!(result, Err(Refusal::NoLeader));
    node.stop().await;
}
