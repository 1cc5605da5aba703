//! Links over loopback sockets: who dials, what arrives, and how they end.

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use h2::Reason;
use http::StatusCode;
use raft::{Incarnation, NodeId};

use self::support::*;
use super::support::*;
use crate::cluster::link::{DISTRO_PATH, FORWARD_PATH};
use crate::cluster::*;

use LinkKind::{Distro, Forward};

#[tokio::test]
async fn every_pair_of_members_has_one_link_of_each_kind() {
    let nodes = [Linked::start(1), Linked::start(2), Linked::start(3)];
    let members = nodes.each_ref().map(|linked| linked.node.member());
    nodes
        .iter()
        .for_each(|linked| linked.set_members(&membership(&members)));
    for linked in &nodes {
        let mut seen = BTreeMap::new();
        while seen.len() < 4 {
            let (kind, peer, link) = linked
                .wait_for("a link", |told| match told {
                    Told::Opened(kind, peer, link) => Some((kind, peer, link)),
                    _ => None,
                })
                .await;
            let hello = format!("{kind:?} from {} to {peer}", linked.node.id);
            link.send(hello.into()).unwrap();
            seen.insert((kind, peer), link);
        }
    }
    for linked in &nodes {
        let mut heard = Vec::new();
        while heard.len() < 4 {
            let frame = linked.wait_for("a frame", |told| match told {
                Told::Received(_, _, frame) => Some(frame),
                _ => None,
            });
            heard.push(String::from_utf8(frame.await.to_vec()).unwrap());
        }
        heard.sort();
        let peers = || {
            nodes
                .iter()
                .map(|other| other.node.id)
                .filter(|id| *id != linked.node.id)
        };
        let expected = LinkKind::ALL
            .into_iter()
            .flat_map(|kind| peers().map(move |peer| format!("{kind:?} from {peer} to {}", linked.node.id)));
        assert_eq!(heard, expected.collect::<Vec<_>>());
        assert_eq!(linked.links().views().len(), 4);
        assert_eq!(linked.links().counts().opened.load(Ordering::Relaxed), 4);
    }
}

#[tokio::test]
async fn frames_arrive_in_order_both_ways_whatever_their_size() {
    let pair = linked_pair().await;
    let (here, there) = (&pair.here[&Distro], &pair.there[&Distro]);
    let sizes = (0..2_000).map(|number| match number % 100 {
        7 => 0,
        50 => 20_000,
        _ if number == 1_234 => 20 << 20,
        small => small,
    });
    let frames: Vec<Bytes> = sizes
        .enumerate()
        .map(|(number, size)| Bytes::from(vec![number as u8; size]))
        .collect();
    for frame in &frames {
        here.send(frame.clone()).unwrap();
        there.send(frame.clone()).unwrap();
    }
    assert!(pair.second.frames(there, frames.len()).await == frames);
    assert!(pair.first.frames(here, frames.len()).await == frames);
    assert_eq!((here.waiting_bytes(), there.waiting_bytes()), (0, 0));
}

/// Beyond the bound the sender is told, nothing that was taken is lost, and the other kind goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_full_link_says_so_and_holds_up_no_other() {
    let pair = linked_pair().await;
    let here = &pair.here[&Forward];
    pair.second.notes.shut(Some(Forward));
    let mut taken = 0;
    // The window and the buffers of the sockets fill up before the outbox does.
    while here.send(numbered(taken)) == Ok(()) {
        taken += 1;
        tokio::task::yield_now().await;
        assert!(taken < 10_000, "nothing is bounded");
    }
    assert!(here.waiting_bytes() <= 8 << 20, "{} bytes", here.waiting_bytes());
    pair.here[&Distro].send("past it".into()).unwrap();
    assert_eq!(pair.second.frames(&pair.there[&Distro], 1).await, ["past it"]);
    pair.second.notes.shut(None);
    // Some of them were told before what went past them.
    let last = pair.second.wait_for("the last frame", |told| match told {
        Told::Received(Forward, _, frame) if frame == numbered(taken - 1) => Some(()),
        Told::Closed(..) => panic!("it closed"),
        _ => None,
    });
    last.await;
    let received = pair.second.links().counts().received.load(Ordering::Relaxed);
    assert_eq!(received, taken as u64 + 1);
    assert_eq!(here.send(Bytes::new()), Ok(()), "there is room again");
}

#[tokio::test]
async fn a_link_that_one_side_closes_is_made_anew() {
    let mut pair = linked_pair().await;
    for kind in LinkKind::ALL {
        pair.here[&kind].close();
        assert_eq!(pair.here[&kind].send(Bytes::new()), Err(Full));
        pair.is_made_anew(kind).await;
        pair.there[&kind].close();
        pair.is_made_anew(kind).await;
    }
}

/// What a service does not understand ends this link, on whichever side; frames before it count.
#[tokio::test]
async fn nonsense_ends_a_link_and_nothing_else() {
    let mut pair = linked_pair().await;
    for round in 1..=2 {
        let (here, there) = (&pair.here[&Forward], &pair.there[&Forward]);
        for frame in ["good", "nonsense", "never told"] {
            here.send(frame.into()).unwrap();
        }
        assert_eq!(pair.second.frames(there, 1).await, ["good"]);
        pair.is_made_anew(Forward).await;
        let counted = pair.second.links().counts().malformed.load(Ordering::Relaxed);
        assert_eq!(counted, round);
        pair.there[&Forward].send("nonsense".into()).unwrap();
        pair.is_made_anew(Forward).await;
        let counted = pair.first.links().counts().malformed.load(Ordering::Relaxed);
        assert_eq!(counted, round);
    }
    assert_eq!(pair.first.links().views()[0].id, pair.here[&Distro].id());
}

#[tokio::test]
async fn a_frame_longer_than_any_may_be_ends_the_link() {
    let node = listing(&identity(1)).await;
    let (response, mut stream) = ask_for(&node, &identity(1), DISTRO_PATH).await;
    assert_eq!(response.status(), StatusCode::OK);
    let link = node.opened(Distro, NodeId(1)).await;
    stream
        .send_data(Bytes::from_static(b"\0\0\0\x02ok\x04\0\0\x01"), false)
        .unwrap();
    assert_eq!(node.frames(&link, 1).await, ["ok"]);
    node.closed(&link).await;
    let error = response
        .into_body()
        .data()
        .await
        .expect("a reset")
        .expect_err("a reset");
    assert_eq!(error.reason(), Some(Reason::PROTOCOL_ERROR));
    assert_eq!(node.links().counts().malformed.load(Ordering::Relaxed), 1);
}

/// A process that comes back finds a connection it has forgotten in the place of its own.
#[tokio::test]
async fn a_newer_link_takes_the_place_of_the_older_one() {
    let node = listing(&identity(1)).await;
    let (older, _stream) = ask_for(&node, &identity(1), FORWARD_PATH).await;
    let older_link = node.opened(Forward, NodeId(1)).await;
    let (_newer, mut stream) = ask_for(&node, &identity(1), FORWARD_PATH).await;
    match node.next("the end of the older one").await {
        Told::Closed(Forward, NodeId(1), id) => assert_eq!(id, older_link.id()),
        other => panic!("{other:?}"),
    }
    let newer_link = node.opened(Forward, NodeId(1)).await;
    assert!(newer_link.id() > older_link.id());
    assert!(older.into_body().data().await.expect("a reset").is_err());
    stream
        .send_data(Bytes::from_static(b"\0\0\0\x02ok"), false)
        .unwrap();
    assert_eq!(node.frames(&newer_link, 1).await, ["ok"]);
    assert_eq!(older_link.send(Bytes::new()), Err(Full));
}

/// The lower id dials, and only members are answered.
#[tokio::test]
async fn links_are_not_taken_from_others() {
    let node = listing(&identity(1)).await;
    let earlier = Identity {
        incarnation: Incarnation(1),
        ..identity(1)
    };
    for stranger in [identity(7), identity(3), earlier] {
        let (response, _stream) = ask_for(&node, &stranger, DISTRO_PATH).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{stranger:?}");
    }
    for kind in [Kind::Joiner, Kind::Operator] {
        let credentials = Credentials::new(node.node.token.clone(), kind, identity(1));
        let (response, _stream) = ask_as(&node, &credentials, DISTRO_PATH).await;
        assert_eq!(response.headers()["grpc-status"], "12");
    }
    assert!(node.links().views().is_empty());
}

/// Frames that were read, or wait in a buffer, when a link is reset are not handed on; the next link works.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reset_hands_on_nothing_that_waited() {
    let mut pair = linked_pair().await;
    for resetting in [1, 2] {
        let (of, sender, receiver, link) = match resetting {
            1 => (&pair.first, &pair.there, &pair.first, &pair.here),
            _ => (&pair.second, &pair.here, &pair.second, &pair.there),
        };
        receiver.notes.shut(Some(Forward));
        sender[&Forward].send("handed on".into()).unwrap();
        for _ in 0..100 {
            sender[&Forward].send("waits".into()).unwrap();
        }
        assert_eq!(receiver.frames(&link[&Forward], 1).await, ["handed on"]);
        // It is inside the service now, and the others are behind it.
        of.links().reset(Forward);
        assert_eq!(link[&Forward].send(Bytes::new()), Err(Full));
        receiver.notes.shut(None);
        match receiver.next("the end").await {
            Told::Closed(Forward, _, id) => assert_eq!(id, link[&Forward].id()),
            other => panic!("{other:?}"),
        }
        // The other side may have been first to hear of it.
        match resetting {
            1 => pair.second.closed(&pair.there[&Forward]).await,
            _ => pair.first.closed(&pair.here[&Forward]).await,
        }
        pair.is_new(Forward).await;
        let ids = pair.first.links().views();
        assert_eq!(ids[0].id, pair.here[&Distro].id(), "the other kind stays");
    }
}

/// A node whose time stood still acts on nothing that came meanwhile, whether or not it has reset its links.
#[tokio::test]
async fn a_late_node_hands_on_nothing() {
    let mut pair = linked_pair().await;
    for late in [1, 2] {
        let (notes, sender) = match late {
            1 => (&pair.first.notes, &pair.there),
            _ => (&pair.second.notes, &pair.here),
        };
        notes.late.store(true, Ordering::SeqCst);
        sender[&Forward].send("too late".into()).unwrap();
        match late {
            1 => pair.first.closed_without_frames(&pair.here[&Forward]).await,
            _ => pair.second.closed_without_frames(&pair.there[&Forward]).await,
        }
        notes.late.store(false, Ordering::SeqCst);
        match late {
            1 => pair.second.closed(&pair.there[&Forward]).await,
            _ => pair.first.closed(&pair.here[&Forward]).await,
        }
        pair.is_new(Forward).await;
    }
    // Nor does it send what waited in it.
    pair.first.notes.late.store(true, Ordering::SeqCst);
    pair.here[&Forward].send("too late".into()).unwrap();
    pair.second.closed_without_frames(&pair.there[&Forward]).await;
    assert!(pair.first.links().counts().late.load(Ordering::Relaxed) >= 2);
}

/// A link that was being made while its kind was reset does not stand: its peer may have sent on it before.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_link_from_before_a_reset_does_not_stand() {
    let node = listing(&identity(1)).await;
    let (_older, mut stream) = ask_for(&node, &identity(1), FORWARD_PATH).await;
    let older = node.opened(Forward, NodeId(1)).await;
    node.notes.shut(Some(Forward));
    stream
        .send_data(Bytes::from_static(b"\0\0\0\x02ok"), false)
        .unwrap();
    assert_eq!(node.frames(&older, 1).await, ["ok"]);
    // The older one is held up inside the service, so the newer one waits for its end.
    let (newer, mut stream) = ask_for(&node, &identity(1), FORWARD_PATH).await;
    stream
        .send_data(Bytes::from_static(b"\0\0\0\x02no"), false)
        .unwrap();
    node.links().reset(Forward);
    node.notes.shut(None);
    node.closed(&older).await;
    let end = newer
        .into_body()
        .data()
        .await
        .expect("a reset")
        .expect_err("a reset");
    assert_eq!(end.reason(), Some(Reason::CANCEL));
    let (_newest, mut stream) = ask_for(&node, &identity(1), FORWARD_PATH).await;
    match node.next("the newest").await {
        Told::Opened(Forward, _, newest) => {
            stream
                .send_data(Bytes::from_static(b"\0\0\0\x02ok"), false)
                .unwrap();
            assert_eq!(node.frames(&newest, 1).await, ["ok"]);
        }
        other => panic!("{other:?}"),
    }
}

/// Connections that break, and connections that fall silent: both sides hear of the end, and there are new
/// links once the way is free.
#[tokio::test]
async fn cut_and_silent_ways_are_noticed_by_both_sides() {
    let ways = [Way::new().await, Way::new().await];
    let nodes = [(1, &ways[0]), (2, &ways[1])].map(|(id, way)| {
        let linked = Linked::with(Setup {
            advertised: Some(way.address.clone()),
            ..Setup::new(id)
        });
        way.leads_to(&linked.node);
        linked
    });
    let [first, second] = nodes;
    let mut pair = introduce_links(first, second).await;
    for state in [WayIs::Cut, WayIs::Silent] {
        ways.iter().for_each(|way| way.set(state));
        pair.first.all_closed(&pair.here).await;
        pair.second.all_closed(&pair.there).await;
        assert!(pair.first.links().views().is_empty() && pair.second.links().views().is_empty());
        ways.iter().for_each(|way| way.set(WayIs::Free));
        pair.here = pair.first.both_opened(pair.second.node.id).await;
        pair.there = pair.second.both_opened(pair.first.node.id).await;
        pair.here[&Distro].send("again".into()).unwrap();
        assert_eq!(pair.second.frames(&pair.there[&Distro], 1).await, ["again"]);
    }
    ways.into_iter().for_each(|way| way.shutdown.begin());
}

#[tokio::test]
async fn links_follow_the_membership_and_where_members_are() {
    let Pair {
        first,
        second,
        here,
        there,
    } = linked_pair().await;
    let (first_member, second_member) = (first.node.member(), second.node.member());
    second.set_members(&membership(std::slice::from_ref(&second_member)));
    second.closed(&there[&Distro]).await;
    first.closed(&here[&Distro]).await;
    second.set_members(&membership(&[first_member.clone(), second_member.clone()]));
    let here = first.opened(Distro, second.node.id).await;
    // It comes back elsewhere. The first one still lists where it was, and hears where it is from itself.
    second.node.stop().await;
    first.closed(&here).await;
    let moved = Linked::start(2);
    assert_ne!(moved.node.address, second_member.address.parse().unwrap());
    moved.set_members(&membership(&[first_member.clone(), moved.node.member()]));
    let there = moved.opened(Distro, first.node.id).await;
    let here = first.opened(Distro, moved.node.id).await;
    here.send("there you are".into()).unwrap();
    assert_eq!(moved.frames(&there, 1).await, ["there you are"]);
    // A member that left is not dialled any more.
    first.set_members(&membership(&[first_member]));
    first.closed(&here).await;
    moved.closed(&there).await;
    assert!(first.links().views().is_empty());
}

#[tokio::test]
async fn links_end_with_the_node_and_their_owner_hears_of_it() {
    let Pair { first, second, .. } = linked_pair().await;
    let notes = [first.notes.clone(), second.notes.clone()];
    first.node.stop().await;
    second.node.stop().await;
    for notes in notes {
        assert!(notes.open.lock().unwrap().is_empty());
    }
}

/// Not a promise but a figure: `cargo test --release -p rnacos --lib throughput_of_links -- --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn throughput_of_links() {
    const FRAMES: usize = 200_000;
    const WINDOW: usize = 10_000;
    let pair = linked_pair().await;
    let (here, there) = (&pair.here[&Forward], &pair.there[&Forward]);
    let frame = Bytes::from_static(&[7; 200]);
    let started = crate::clock::now();
    let (mut sent, mut received) = (0, 0);
    while received < FRAMES {
        while sent < FRAMES && sent < received + WINDOW {
            here.send(frame.clone()).unwrap();
            sent += 1;
        }
        received += pair.second.frames(there, 1).await.len();
    }
    let rate = FRAMES as f64 / started.elapsed().as_secs_f64();
    eprintln!("{rate:.0} frames of 200 bytes per second");
    let started = crate::clock::now();
    for _ in 0..1_000 {
        here.send(frame.clone()).unwrap();
        pair.second.frames(there, 1).await;
        there.send(frame.clone()).unwrap();
        pair.first.frames(here, 1).await;
    }
    eprintln!("{:?} for a frame and its answer", started.elapsed() / 1_000);
}
