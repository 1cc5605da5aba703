//! Servers in this process, each with a folder and ports of its own, and the operator's command.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use raft::{Index, NodeId};
use rnacos::cluster_cli::{self, Answer, Failure, View};
use rnacos::consensus::NodeStatus;
use rnacos::server::{Server, Tuning};
use rnacos::settings::{ClusterAsk, ClusterCommand, Settings};
use tempfile::TempDir;

/// Only a bug makes a wait as long as this, also on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Limits with which a log is cut after some hundred small writes.
pub(crate) fn small() -> Tuning {
    Tuning {
        raft: raft::Config {
            retained_bytes_max: 16 << 10,
            cache_bytes_max: 16 << 10,
            chunk_bytes_max: 4 << 10,
            ..raft::Config::default()
        },
        compact_every_bytes: 16 << 10,
        ..Tuning::default()
    }
}

/// A node that does not run: its folder, and how it is started.
pub(crate) struct Node {
    id: u64,
    folder: Arc<TempDir>,
    join: Option<String>,
    /// 0: any.
    port: u16,
    tuning: Tuning,
    last: Index,
}

impl Node {
    pub(crate) fn fresh(id: u64) -> Node {
        Node {
            id,
            folder: Arc::new(tempfile::tempdir().expect("a folder")),
            join: None,
            port: 0,
            tuning: Tuning::default(),
            last: Index(0),
        }
    }

    pub(crate) fn joining(mut self, door: String) -> Node {
        self.join = Some(door);
        self
    }

    pub(crate) fn at_port(mut self, port: u16) -> Node {
        self.port = port;
        self
    }

    /// On another port than before, so at another address.
    pub(crate) fn anywhere(mut self) -> Node {
        self.port = 0;
        self
    }

    pub(crate) fn tuned(mut self, tuning: Tuning) -> Node {
        self.tuning = tuning;
        self
    }

    pub(crate) fn grpc_port(&self) -> u16 {
        self.port
    }

    /// End of its log when it was stopped.
    pub(crate) fn last(&self) -> Index {
        self.last
    }

    pub(crate) async fn try_start(&self) -> anyhow::Result<Running> {
        let (id, port) = (self.id.to_string(), self.port.to_string());
        let dir = self.folder.path().display().to_string();
        let address = format!("127.0.0.1:{port}");
        let mut settings = vec![
            ("RNACOS_DATA_DIR", dir.as_str()),
            ("RNACOS_SDK_HOST", "127.0.0.1"),
            ("RNACOS_HTTP_PORT", "0"),
            ("RNACOS_RAFT_NODE_ID", id.as_str()),
        ];
        if self.port != 0 {
            settings.push(("RNACOS_GRPC_PORT", port.as_str()));
            settings.push(("RNACOS_RAFT_NODE_ADDR", address.as_str()));
        }
        if let Some(join) = &self.join {
            settings.push(("RNACOS_RAFT_JOIN_ADDR", join.as_str()));
        }
        let settings = Settings::with(&settings).expect("settings");
        let server = Box::pin(Server::start_tuned(settings, self.tuning)).await?;
        Ok(Running {
            node: Node {
                folder: self.folder.clone(),
                join: self.join.clone(),
                port: server.grpc_address().port(),
                ..*self
            },
            server,
        })
    }
}

/// A node that runs.
pub(crate) struct Running {
    node: Node,
    server: Server,
}

impl Running {
    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    pub(crate) fn grpc_port(&self) -> u16 {
        self.node.port
    }

    pub(crate) fn door(&self) -> String {
        self.server.grpc_address().to_string()
    }

    /// Stops it in order; its folder is gone with it.
    pub(crate) async fn stop(self) {
        drop(self.halt().await);
    }

    /// Stops it in order, to be started again.
    pub(crate) async fn halt(self) -> Node {
        let core = self.server.consensus().clone();
        assert!(
            self.server.stop().await,
            "node {} did not stop in order",
            self.node.id
        );
        // The last thing the core says; before the end more comes from the leader.
        let last = core.status().raft.last;
        Node { last, ..self.node }
    }

    /// Waits for a status.
    pub(crate) async fn wait(&self, what: &str, is_it: impl Fn(&NodeStatus) -> bool) -> Arc<NodeStatus> {
        let mut changes = self.server.consensus().status_changes();
        let found = tokio::time::timeout(PATIENCE, changes.wait_for(|status| is_it(status))).await;
        match found {
            Ok(Ok(status)) => status.clone(),
            _ => panic!(
                "node {} did not {what}: {:#?}",
                self.node.id,
                self.server.consensus().status()
            ),
        }
    }
}

/// Nodes that run.
pub(crate) struct Cluster {
    nodes: Vec<Running>,
    tuning: Tuning,
}

impl Cluster {
    /// `count` voters, ids from 1.
    pub(crate) async fn of(count: u64, tuning: Tuning) -> Cluster {
        let founder = Node::fresh(1).tuned(tuning).try_start().await.expect("a founder");
        let mut cluster = Cluster {
            nodes: vec![founder],
            tuning,
        };
        for id in 2..=count {
            cluster.join(id).await;
        }
        cluster.has_voters(&(1..=count).collect::<Vec<_>>()).await;
        cluster
    }

    pub(crate) async fn join(&mut self, id: u64) {
        let node = Node::fresh(id).tuned(self.tuning).joining(self.door());
        self.add(node.try_start().await.expect("it joins"));
    }

    pub(crate) fn add(&mut self, node: Running) {
        self.nodes.push(node);
    }

    pub(crate) fn take(&mut self, id: u64) -> Running {
        let place = self
            .nodes
            .iter()
            .position(|node| node.node.id == id)
            .expect("it runs");
        self.nodes.remove(place)
    }

    pub(crate) fn node(&self, id: u64) -> &Running {
        self.nodes
            .iter()
            .find(|node| node.node.id == id)
            .expect("it runs")
    }

    /// Peer door of the first node.
    pub(crate) fn door(&self) -> String {
        self.nodes[0].door()
    }

    pub(crate) fn http(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.server.http_address()).collect()
    }

    pub(crate) async fn stop(self) {
        for node in self.nodes {
            node.stop().await;
        }
    }

    /// Id of the leader, once one runs here that its term knows.
    pub(crate) async fn leader(&self) -> u64 {
        let status = self.nodes[0]
            .wait("hear of a leader", |status| {
                status
                    .leader()
                    .is_some_and(|leader| self.nodes.iter().any(|node| node.node.id == leader.0))
            })
            .await;
        let leader = status.leader().expect("a leader");
        self.node(leader.0)
            .wait("lead", |now| now.leads() || now.raft.term > status.raft.term)
            .await;
        leader.0
    }

    /// Waits until every node counts exactly these as voters, and nobody else as a member.
    pub(crate) async fn has_voters(&self, ids: &[u64]) {
        let ids: Vec<NodeId> = ids.iter().copied().map(NodeId).collect();
        for node in &self.nodes {
            node.wait(&format!("count {ids:?} as the voters"), |status| {
                let configuration = &status.raft.configuration;
                !configuration.is_joint()
                    && configuration.voters.iter().eq(&ids)
                    && configuration.members.keys().eq(&ids)
            })
            .await;
        }
    }

    /// Waits until every node knows where every other one is.
    pub(crate) async fn has_addresses(&self) {
        for node in &self.nodes {
            node.wait("learn the new addresses", |status| {
                self.nodes.iter().all(|other| {
                    let member = status.raft.configuration.members.get(&NodeId(other.node.id));
                    member.is_some_and(|member| member.address == other.door())
                })
            })
            .await;
        }
    }

    /// Waits until every node has applied what any node had committed when this began.
    pub(crate) async fn settle(&self) {
        let end = self
            .nodes
            .iter()
            .map(|node| node.server.consensus().applied())
            .max()
            .unwrap_or_default();
        for node in &self.nodes {
            let deadline = tokio::time::Instant::now() + PATIENCE;
            let applied = node.server.consensus().wait_applied(end, deadline).await;
            applied.unwrap_or_else(|error| panic!("node {} did not apply {end:?}: {error}", node.node.id));
            node.wait("hear of a leader", |status| status.leader().is_some())
                .await;
        }
    }

    /// Waits until one node has applied what any node had committed when this began.
    pub(crate) async fn settle_at_least(&self, id: u64) {
        let end = self
            .nodes
            .iter()
            .map(|node| node.server.consensus().applied())
            .max()
            .unwrap_or_default();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let applied = self.node(id).server.consensus().wait_applied(end, deadline).await;
        applied.unwrap_or_else(|error| panic!("node {id} did not apply {end:?}: {error}"));
    }

    /// `rnacos cluster …`, by way of the first node.
    pub(crate) async fn ask(&self, ask: ClusterAsk) -> Result<Answer, Failure> {
        let command = ClusterCommand {
            ask,
            at: Some(self.door()),
            json: false,
        };
        let settings = Settings::with(&[]).expect("settings");
        Box::pin(cluster_cli::carry_out(&command, &settings.cluster)).await
    }

    pub(crate) async fn done(&self, ask: ClusterAsk) -> String {
        match self.ask(ask.clone()).await {
            Ok(Answer::Done(told)) => told,
            other => panic!("{ask:?}: {other:?}"),
        }
    }

    pub(crate) async fn refused(&self, ask: ClusterAsk) -> String {
        match self.ask(ask.clone()).await {
            Err(Failure::NotDone(told)) => told,
            other => panic!("{ask:?}: {other:?}"),
        }
    }

    pub(crate) async fn view(&self) -> View {
        match self.ask(ClusterAsk::Status).await {
            Ok(Answer::View(view)) => *view,
            other => panic!("{other:?}"),
        }
    }
}
