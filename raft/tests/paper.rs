//! Claims of the raft paper ("In search of an understandable consensus algorithm"), of Ongaro's thesis,
//! and of the hazards named in the design (R1...): one test each.
//!
//! Method: one real node with its disk in memory; the test plays its peers by hand and looks at
//! everything the node says. Where a claim is about several nodes, a whole cluster runs.

#[path = "scenarios/cluster.rs"]
#[expect(dead_code, reason = "the cluster serves several tests")]
mod cluster;

#[path = "paper/elections.rs"]
mod elections;
#[path = "paper/hazards.rs"]
mod hazards;
#[path = "paper/membership.rs"]
mod membership;
#[path = "paper/replication.rs"]
mod replication;

use bytes::Bytes;
use cluster::{Cluster, small_config};
use raft::{
    Append, AppendReply, Body, Boot, Checksum, Entry, EntryId, EntryKind, Incarnation, Index, Input, Message,
    NodeId, Persist, RoleKind, Sender, Space, Status, Term, VoteReply, VoteRequest,
};

/// A node whose peers are the test.
struct Lone {
    cluster: Cluster,
}

const ME: u64 = 1;

impl Lone {
    /// A voter beside 2 and 3.
    fn new() -> Lone {
        let mut cluster = Cluster::new(&[1, 2, 3], small_config());
        cluster.nodes.retain(|id, _| *id == NodeId(ME));
        Lone { cluster }
    }

    /// The same, as the leader of term 1 with its no-op committed.
    fn leading() -> Lone {
        let mut lone = Lone::new();
        lone.win();
        lone.hear(
            2,
            1,
            Body::AppendReply(AppendReply::Accepted { matched: Index(1) }),
        );
        lone.hear(
            3,
            1,
            Body::AppendReply(AppendReply::Accepted { matched: Index(1) }),
        );
        lone.said();
        lone
    }

    /// Wins the next election, with the vote of 2.
    fn win(&mut self) {
        let mut patience = 100;
        while self.status().role != RoleKind::PreCandidate {
            self.tick(1);
            patience -= 1;
            assert!(patience > 0, "does not campaign");
        }
        let asked = self.status().term.next();
        self.hear(
            2,
            asked.0 - 1,
            Body::PreVoteReply(VoteReply {
                term: asked,
                granted: true,
            }),
        );
        self.hear(
            2,
            asked.0,
            Body::VoteReply(VoteReply {
                term: asked,
                granted: true,
            }),
        );
        assert_eq!(self.status().role, RoleKind::Leader);
    }

    fn status(&self) -> Status {
        self.cluster.node(ME).raft.status()
    }

    fn tick(&mut self, count: u32) {
        self.cluster.tick(ME, count);
    }

    fn hear(&mut self, from: u64, term: u64, body: Body) {
        self.hear_from(sender(from), term, body);
    }

    fn hear_from(&mut self, sender: Sender, term: u64, body: Body) {
        self.cluster.step(
            ME,
            Input::Message(Message {
                sender,
                term: Term(term),
                body,
            }),
        );
    }

    /// What left the node since the last call.
    fn said(&mut self) -> Vec<(u64, Body)> {
        self.cluster
            .network
            .drain(..)
            .map(|(_, to, message)| (to.0, message.body))
            .collect()
    }

    /// What happened since the last call, in words.
    fn happened(&mut self) -> Vec<String> {
        std::mem::take(&mut self.cluster.trace)
    }

    fn hold_disk(&mut self) {
        self.cluster.hold_disk(ME, true);
    }

    fn release_disk(&mut self) {
        self.cluster.hold_disk(ME, false);
    }

    /// Writes that were handed over and are not durable.
    fn queue(&self) -> Vec<&Persist> {
        self.cluster.node(ME).queue.iter().collect()
    }
}

fn sender(id: u64) -> Sender {
    Sender {
        id: NodeId(id),
        incarnation: Incarnation(id * 10),
        boot: Boot(1),
        suspicion: None,
        space: Space::Ample,
    }
}

fn id(term: u64, index: u64) -> EntryId {
    EntryId {
        term: Term(term),
        index: Index(index),
    }
}

/// Chained no-op entries of these terms, starting at index 1.
fn entries(terms: &[u64]) -> Vec<Entry> {
    let mut previous = Checksum(0);
    let mut made = Vec::new();
    for (index, term) in (1..).zip(terms) {
        let entry = Entry::seal(
            id(*term, index),
            EntryKind::Command,
            Bytes::from_static(b"e"),
            previous,
        );
        previous = entry.checksum;
        made.push(entry);
    }
    made
}

/// An append of the last entries of a log with these terms, after its first `skip`.
fn append(terms: &[u64], skip: usize, commit: u64) -> Body {
    let all = entries(terms);
    let previous = if skip == 0 {
        EntryId::default()
    } else {
        all[skip - 1].id
    };
    Body::Append(Append {
        previous,
        entries: all[skip..].to_vec(),
        commit: Index(commit),
    })
}

fn vote(term: u64, last: EntryId) -> Body {
    Body::Vote(VoteRequest {
        term: Term(term),
        last,
        transfer: false,
    })
}

fn accepted(matched: u64) -> Body {
    Body::AppendReply(AppendReply::Accepted {
        matched: Index(matched),
    })
}

fn granted(said: &[(u64, Body)]) -> Vec<(u64, bool)> {
    said.iter()
        .filter_map(|(to, body)| match body {
            Body::VoteReply(reply) => Some((*to, reply.granted)),
            _ => None,
        })
        .collect()
}
