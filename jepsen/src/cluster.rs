//! Several nodes that form one cluster.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use loadtest::ports;
use tokio::time::{Instant, sleep};

use crate::api::RaftStatus;
use crate::node::{Node, POLL, Spec};

/// A first start, and a start under load, may take this long until the node takes writes.
pub const START_PATIENCE: Duration = Duration::from_secs(90);

/// A cluster without faults must have a leader, and all nodes the same state, within this time.
pub const HEAL_PATIENCE: Duration = Duration::from_secs(60);

/// The nodes of one cluster, by place: node id = place + 1.
#[derive(Debug)]
pub struct Cluster {
    /// The nodes.
    pub nodes: Vec<Node>,
}

impl Cluster {
    /// Specs of `count` nodes on loopback: node 1 founds, the others join it, exactly as in the announcement.
    pub fn specs(server: &Path, count: usize, directory: &Path) -> anyhow::Result<Vec<Spec>> {
        let mut specs: Vec<Spec> = Vec::new();
        for (place, port) in ports::pairs(count)?.into_iter().enumerate() {
            let id = place as u64 + 1;
            let mut spec = Spec::lone(
                PathBuf::from(server),
                id,
                port,
                directory.join(format!("node{id}")),
            )?;
            spec.join = specs.first().map(|founder| founder.advertised.clone());
            specs.push(spec);
        }
        Ok(specs)
    }

    /// Starts the nodes for the first time, one after the other, each once the one before takes writes.
    pub async fn form(specs: Vec<Spec>) -> anyhow::Result<Self> {
        let mut cluster = Self {
            nodes: specs.into_iter().map(Node::new).collect(),
        };
        for node in &mut cluster.nodes {
            node.start()?;
            node.wait_until_it_writes(START_PATIENCE).await?;
        }
        cluster.wait_until_equal(HEAL_PATIENCE).await?;
        Ok(cluster)
    }

    /// `count` nodes on loopback below `directory`, formed.
    pub async fn on_loopback(server: &Path, count: usize, directory: &Path) -> anyhow::Result<Self> {
        Self::form(Self::specs(server, count, directory)?).await
    }

    /// HTTP addresses.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.spec.address()).collect()
    }

    /// What every node that answers says of the group; `None` for the others.
    pub async fn statuses(&mut self) -> Vec<Option<RaftStatus>> {
        let mut statuses = Vec::new();
        for node in &mut self.nodes {
            statuses.push(if node.serves() {
                node.raft_status().await
            } else {
                None
            });
        }
        statuses
    }

    /// Place of the node that says it leads, in the highest term; `None` if none does.
    pub async fn leader(&mut self) -> Option<usize> {
        let statuses = self.statuses().await;
        let leads = statuses
            .iter()
            .enumerate()
            .filter_map(|(place, status)| Some((status.as_ref()?, place)));
        leads
            .filter(|(status, _)| status.leads)
            .max_by_key(|(status, _)| status.term)
            .map(|(_, place)| place)
    }

    /// Waits for a leader.
    pub async fn wait_for_leader(&mut self, patience: Duration) -> anyhow::Result<usize> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(leader) = self.leader().await {
                return Ok(leader);
            }
            anyhow::ensure!(
                Instant::now() < deadline,
                "no leader within {} s: {:?}",
                patience.as_secs(),
                self.statuses().await
            );
            sleep(POLL).await;
        }
    }

    /// Waits until all nodes name the same leader and have applied the same, the end of the leader's log.
    ///
    /// Meant for a cluster nobody writes to; under writes it may wait in vain.
    pub async fn wait_until_equal(&mut self, patience: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let statuses = self.statuses().await;
            if equal(&statuses) {
                return Ok(());
            }
            anyhow::ensure!(
                Instant::now() < deadline,
                "nodes differ after {} s: {statuses:?}",
                patience.as_secs()
            );
            sleep(POLL).await;
        }
    }

    /// kill -9 of these nodes at the same moment, returning once their processes are gone.
    pub fn kill(&mut self, places: &[usize]) -> anyhow::Result<()> {
        places
            .iter()
            .try_for_each(|place| self.nodes[*place].kill_now())?;
        places.iter().try_for_each(|place| self.nodes[*place].kill())
    }

    /// Starts every node that is not running, resumes the paused ones, and waits until each takes writes,
    /// `patience` for each.
    pub async fn repair(&mut self, patience: Duration) -> anyhow::Result<()> {
        for node in &mut self.nodes {
            node.resume()?;
            if !node.runs() {
                node.start()?;
            }
        }
        for node in &mut self.nodes {
            node.wait_until_it_writes(patience).await?;
        }
        Ok(())
    }

    /// Process ids of the running nodes.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.nodes.iter().filter_map(Node::pid).collect()
    }
}

/// Whether all answered, name one leader, and have applied the highest log index any of them has.
fn equal(statuses: &[Option<RaftStatus>]) -> bool {
    let Some(all) = statuses.iter().map(Option::as_ref).collect::<Option<Vec<_>>>() else {
        return false;
    };
    let Some(first) = all.first() else { return true };
    let end = all.iter().map(|status| status.last_log_index).max().unwrap_or(0);
    first.leader.is_some()
        && all.iter().all(|status| {
            status.leader == first.leader && status.term == first.term && status.last_applied == end
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(leader: Option<u64>, last_log_index: u64, last_applied: u64) -> Option<RaftStatus> {
        Some(RaftStatus {
            leads: false,
            term: 1,
            last_log_index,
            last_applied,
            leader,
        })
    }

    #[test]
    fn equal_means_one_leader_and_everything_applied() {
        assert!(equal(&[status(Some(1), 5, 5), status(Some(1), 5, 5)]));
        assert!(!equal(&[status(Some(1), 5, 5), status(Some(2), 5, 5)]));
        assert!(!equal(&[status(Some(1), 5, 5), status(Some(1), 4, 4)]));
        assert!(!equal(&[status(Some(1), 5, 5), status(Some(1), 5, 4)]));
        assert!(!equal(&[status(None, 5, 5), status(None, 5, 5)]));
        assert!(!equal(&[status(Some(1), 5, 5), None]));
    }
}
