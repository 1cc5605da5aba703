//! Claims of the raft paper and thesis, one test each.

#[path = "scenarios/cluster.rs"]
mod cluster;

use cluster::{Cluster, small_config};
use raft::{Index, NodeId};

/// Paper §5: a leader is elected, entries are replicated, committed and applied everywhere.
#[test]
fn three_nodes_elect_replicate_and_apply() {
    let mut cluster = Cluster::new(&[1, 2, 3], small_config());
    cluster.elect(1);
    cluster.propose(1, &["a", "b"]);
    cluster.settle();
    for id in 1..=3 {
        let status = cluster.node(id).raft.status();
        assert_eq!(status.leader, Some(NodeId(1)), "{}", cluster.trace.join("\n"));
        assert_eq!(status.applied, Index(3), "{}", cluster.trace.join("\n"));
    }
}
