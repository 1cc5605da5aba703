//! What arrives, in which order, and what is said when it does not.

use std::sync::{Arc, Condvar, Mutex};

use bytes::Bytes;
use raft::{
    Append, Body, Checksum, Configuration, Entry, EntryId, EntryKind, Incarnation, Index, Member, Message,
    NodeId, Proposal, ProposalId, SnapshotChunk, SnapshotMeta, Term,
};
use tokio::net::TcpListener;

use super::support::*;
use crate::clock;
use crate::cluster::*;

#[tokio::test]
async fn messages_of_a_lane_arrive_in_order() {
    let (first, second) = pair().await;
    for round in 0..10_000 {
        first.transport.send(second.id, first.heartbeat(round));
    }
    let received = second.receive(first.id, 10_000).await;
    let sent: Vec<Message> = (0..10_000).map(|round| first.heartbeat(round)).collect();
    assert!(received == sent, "order or content is not what was sent");
    let lanes = &first.transport.peers()[0].lanes;
    assert_eq!(lanes.iter().map(|lane| lane.dropped).sum::<u64>(), 0);
}

#[tokio::test]
async fn entries_arrive_with_the_bytes_and_checksums_of_their_leader() {
    let (first, second) = pair().await;
    let sizes = [0, 1, 100, 70_000, raft::Config::default().entry_bytes_max];
    let mut link = Checksum(9);
    let entries = sizes.iter().enumerate().map(|(offset, size)| {
        let id = EntryId {
            term: Term(2),
            index: Index(11 + offset as u64),
        };
        let entry = Entry::seal(id, EntryKind::Command, Bytes::from(vec![7; *size]), link);
        link = entry.checksum;
        entry
    });
    let append = first.message(Body::Append(Append {
        previous: EntryId {
            term: Term(2),
            index: Index(10),
        },
        entries: entries.collect(),
        commit: Index(3),
    }));
    first.transport.send(second.id, append.clone());
    assert!(
        second.receive(first.id, 1).await == [append],
        "an append was changed on its way"
    );
}

#[tokio::test]
async fn many_forwarded_proposals_travel_as_several_messages() {
    let (first, second) = pair().await;
    let proposals: Vec<Proposal> = (0..20)
        .map(|id| Proposal {
            id: ProposalId(id),
            payload: Bytes::from(vec![1; 1 << 20]),
            essential: id == 3,
        })
        .collect();
    first
        .transport
        .send(second.id, first.message(Body::Forward(proposals.clone())));
    let mut received = Vec::new();
    while received.len() < proposals.len() {
        for message in second.receive(first.id, 1).await {
            let Body::Forward(part) = message.body else {
                panic!("not a forward")
            };
            assert!(part.len() <= 4);
            received.extend(part);
        }
    }
    assert!(received == proposals);
}

/// The lane of snapshots is dialled when there is something to say. That its peer was away once, when
/// there was, must not be the last time.
#[tokio::test]
async fn a_snapshot_reaches_a_member_that_was_away() {
    let first = Node::start(1);
    let listen = Node::start(2).stop().await;
    let away = Member {
        address: listen.to_string(),
        id: NodeId(2),
        incarnation: identity(2).incarnation,
    };
    first.transport.set_members(&membership(&[first.member(), away]));
    let is_dropped = || {
        let peers = first.transport.peers();
        let bulk = peers[0].lanes.iter().find(|lane| lane.class == Class::Bulk);
        bulk.is_some_and(|lane| lane.dropped > 0)
    };
    first.transport.send(NodeId(2), first.message(chunk(0)));
    first
        .wait_for("the loss of a piece", |event| {
            (matches!(event, Event::Unreachable(NodeId(2))) && is_dropped()).then_some(())
        })
        .await;
    let second = Node::with(Setup {
        listen,
        ..Setup::new(2)
    });
    second
        .transport
        .set_members(&membership(&[first.member(), second.member()]));
    let resend = async {
        loop {
            // As the core does: what was lost is sent again.
            first.transport.send(second.id, first.message(chunk(1)));
            first
                .wait_for("a loss", |event| {
                    matches!(event, Event::Unreachable(_)).then_some(())
                })
                .await;
        }
    };
    tokio::select! {
        received = second.receive(first.id, 1) => assert_eq!(received[0], first.message(chunk(1))),
        () = resend => {}
    }
}

/// A receiver that does not take pieces of a snapshot holds up neither heartbeats nor appends.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_stuck_snapshot_does_not_hold_up_heartbeats() {
    let open = Arc::new((Mutex::new(false), Condvar::new()));
    let gate = open.clone();
    let first = Node::start(1);
    let second = Node::with(Setup {
        gate: Some(Box::new(move |messages: &[Message]| {
            if messages
                .iter()
                .any(|message| matches!(message.body, Body::Snapshot(_)))
            {
                let (open, changed) = &*gate;
                drop(changed.wait_while(open.lock().unwrap(), |open| !*open).unwrap());
            }
        })),
        ..Setup::new(2)
    });
    introduce(&first, &second).await;
    for offset in 0..12 {
        first.transport.send(second.id, first.message(chunk(offset)));
    }
    for round in 0..100 {
        first.transport.send(second.id, first.heartbeat(round));
    }
    let heartbeats = second.receive(first.id, 100).await;
    assert!(
        heartbeats
            .iter()
            .all(|message| matches!(message.body, Body::Heartbeat(_)))
    );
    *open.0.lock().unwrap() = true;
    open.1.notify_all();
    assert_eq!(second.receive(first.id, 12).await.len(), 12);
}

#[tokio::test]
async fn a_full_queue_drops_and_says_so() {
    let first = Node::start(1);
    // Accepts, and says nothing.
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = mute.local_addr().unwrap().to_string();
    let silent = Member {
        id: raft::NodeId(2),
        incarnation: Incarnation(1),
        address,
    };
    first
        .transport
        .set_members(&membership(&[first.member(), silent.clone()]));
    for offset in 0..17 {
        first.transport.send(silent.id, first.message(chunk(offset)));
    }
    first
        .wait_for("the report of a loss", |event| match event {
            Event::Unreachable(peer) => (peer == silent.id).then_some(()),
            _ => None,
        })
        .await;
    let view = first.transport.peers().remove(0);
    let bulk = view.lanes.iter().find(|lane| lane.class == Class::Bulk).unwrap();
    assert!(bulk.dropped >= 1 && bulk.queued_bytes <= 16 << 20, "{bulk:?}");
}

#[tokio::test]
async fn a_peer_that_restarts_is_reached_again() {
    let (first, second) = pair().await;
    let member = second.member();
    let address = second.stop().await;
    first
        .wait_for("the report of a break", |event| match event {
            Event::Unreachable(peer) => (peer == member.id).then_some(()),
            _ => None,
        })
        .await;
    let mut setup = Setup {
        listen: address,
        ..Setup::new(2)
    };
    setup.identity.boot = raft::Boot(2);
    let again = Node::with(setup);
    first
        .wait_for("the second boot", |event| match event {
            Event::Met(peer) if peer.identity.boot == raft::Boot(2) => Some(()),
            _ => None,
        })
        .await;
    first.transport.send(again.id, first.heartbeat(7));
    assert_eq!(again.receive(first.id, 1).await, [first.heartbeat(7)]);
}

#[tokio::test]
async fn a_member_that_moves_is_followed_by_name_and_port() {
    let (first, second) = pair().await;
    second.stop().await;
    let moved = Node::start(2);
    let by_name = Member {
        address: format!("localhost:{}", moved.address.port()),
        ..moved.member()
    };
    first
        .transport
        .set_members(&membership(&[first.member(), by_name]));
    first.wait_connected(&moved).await;
    first.transport.send(moved.id, first.heartbeat(1));
    assert_eq!(moved.receive(first.id, 1).await, [first.heartbeat(1)]);
}

/// A new member is told of a leader that is not in the membership it knows, and must answer it.
#[tokio::test]
async fn a_caller_outside_the_known_membership_is_answered() {
    let (leader, learner) = (Node::start(1), Node::start(2));
    leader
        .transport
        .set_members(&membership(&[leader.member(), learner.member()]));
    leader.wait_connected(&learner).await;
    leader.transport.send(learner.id, leader.heartbeat(1));
    learner.receive(leader.id, 1).await;
    learner.transport.send(leader.id, learner.heartbeat(2));
    assert_eq!(leader.receive(learner.id, 1).await, [learner.heartbeat(2)]);
    assert!(learner.transport.peers()[0].guest);
    learner
        .transport
        .set_members(&membership(&[leader.member(), learner.member()]));
    let peers = learner.transport.peers();
    assert_eq!((peers.len(), peers[0].guest), (1, false));
}

/// After a node was removed and added anew, a member that lags behind lists its earlier incarnation.
#[tokio::test]
async fn a_newer_incarnation_is_answered_by_a_member_that_lags_behind() {
    let (leader, lagging) = (Node::start(1), Node::start(2));
    let earlier = Member {
        incarnation: Incarnation(1),
        ..leader.member()
    };
    lagging
        .transport
        .set_members(&membership(&[earlier, lagging.member()]));
    lagging
        .wait_for("the refusal", |event| match event {
            Event::RefusedBy(peer, Refused::OtherIncarnation { expected, found, .. }) => {
                assert_eq!(
                    (peer, expected, found),
                    (leader.id, Incarnation(1), leader.identity.incarnation)
                );
                Some(())
            }
            _ => None,
        })
        .await;
    leader
        .transport
        .set_members(&membership(&[leader.member(), lagging.member()]));
    leader.wait_connected(&lagging).await;
    leader.transport.send(lagging.id, leader.heartbeat(1));
    lagging.receive(leader.id, 1).await;
    lagging.transport.send(leader.id, lagging.heartbeat(2));
    assert_eq!(leader.receive(lagging.id, 1).await, [lagging.heartbeat(2)]);
}

#[tokio::test]
async fn a_member_that_leaves_gets_what_is_queued_for_it() {
    let (first, second) = pair().await;
    for round in 0..1_000 {
        first.transport.send(second.id, first.heartbeat(round));
    }
    first.transport.set_members(&membership(&[first.member()]));
    assert_eq!(second.receive(first.id, 1_000).await.len(), 1_000);
    assert!(first.transport.peers().is_empty());
    first.transport.send(raft::NodeId(9), first.heartbeat(0));
    assert_eq!(first.transport.unknown(), 1);
}

#[tokio::test]
async fn calls_are_answered_by_kind_of_caller() {
    let node = Node::start(1);
    let within = PATIENCE;
    let joiner = Identity {
        cluster_id: None,
        ..identity(3)
    };
    let join = Call::Join(Member {
        id: raft::NodeId(3),
        incarnation: Incarnation(1003),
        address: "a:1".into(),
    });
    let cases = [
        (Kind::Joiner, joiner.clone(), join.clone(), true),
        (Kind::Joiner, joiner, Call::Transfer(None), false),
        (Kind::Operator, Identity::operator(), Call::Status, true),
        (Kind::Operator, Identity::operator(), join, false),
        (Kind::Member, identity(2), Call::Transfer(None), true),
    ];
    for (kind, identity, call, allowed) in cases {
        let credentials = Credentials::new(node.token.clone(), kind, identity);
        let address = node.address.to_string();
        let mut client = PeerClient::connect(&address, &credentials, Target::default(), within)
            .await
            .unwrap();
        assert_eq!(client.door().identity, node.identity);
        for _ in 0..2 {
            match client.call(&call, within).await.unwrap() {
                CallReply::Done(done) => assert!(allowed && done.cluster_id == Some(CLUSTER)),
                CallReply::Refused(refused) => assert!(!allowed && refused.why == WhyRefused::NotAllowed),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn everything_ends_with_the_shutdown() {
    let (first, second) = pair().await;
    first.transport.send(second.id, first.message(chunk(0)));
    second.receive(first.id, 1).await;
    first.stop().await;
    second.stop().await;
}

/// Not a promise but a figure: `cargo test --release -p rnacos --lib throughput -- --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn throughput_of_small_messages() {
    const MESSAGES: usize = 300_000;
    const WINDOW: usize = 20_000;
    let (first, second) = pair().await;
    let started = clock::now();
    let (mut sent, mut received) = (0, 0);
    while received < MESSAGES {
        while sent < MESSAGES && sent < received + WINDOW {
            first.transport.send(second.id, first.heartbeat(sent as u64));
            sent += 1;
        }
        received += second.receive(first.id, 1).await.len();
    }
    let rate = MESSAGES as f64 / started.elapsed().as_secs_f64();
    eprintln!("{rate:.0} small messages per second");
    let started = clock::now();
    for round in 0..1_000 {
        first.transport.send(second.id, first.heartbeat(round));
        second.receive(first.id, 1).await;
        second.transport.send(first.id, second.heartbeat(round));
        first.receive(second.id, 1).await;
    }
    eprintln!("{:?} for a message and its answer", started.elapsed() / 1_000);
}

fn chunk(offset: u64) -> Body {
    Body::Snapshot(SnapshotChunk {
        meta: SnapshotMeta {
            last: EntryId {
                term: Term(1),
                index: Index(1),
            },
            checksum: Checksum(0),
            configuration: Configuration::default(),
            size_bytes: 1 << 30,
            file_checksum: 0,
        },
        offset: offset << 20,
        data: Bytes::from(vec![1; 1 << 20]),
        checksum: 0,
    })
}
