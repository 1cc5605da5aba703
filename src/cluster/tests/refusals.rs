//! Who is not let in, and what each side is told.

use super::support::*;
use crate::cluster::*;
use raft::{Incarnation, Member, NodeId};
use storage::ClusterId;

#[tokio::test]
async fn a_wrong_token_is_refused_and_both_sides_stay_well() {
    let first = Node::with(Setup {
        token: ClusterToken::new("other"),
        ..Setup::new(1)
    });
    let second = Node::start(2);
    first
        .transport
        .set_members(&membership(&[first.member(), second.member()]));
    let why = first
        .wait_for("a refusal", |event| match event {
            Event::RefusedBy(_, why) => Some(why),
            Event::Met(_) => panic!("let in"),
            _ => None,
        })
        .await;
    assert_eq!(why, Refused::TokenWrong);
    assert_eq!(
        second
            .door
            .counts()
            .admitted
            .load(std::sync::atomic::Ordering::Relaxed),
        0
    );
    let view = first.transport.peers().remove(0);
    assert!(view.last_error.unwrap().contains("RNACOS_CLUSTER_TOKEN"));
    let third = Node::start(3);
    introduce(&second, &third).await;
}

#[tokio::test]
async fn without_a_token_the_door_serves_this_machine_only() {
    let unset = || Setup {
        token: ClusterToken::unset(),
        ..Setup::new(1)
    };
    let near = Node::with(unset());
    assert!(call(&near, ClusterToken::unset()).await.is_ok());
    let far = Node::with(Setup {
        is_local: elsewhere,
        ..unset()
    });
    for token in [ClusterToken::unset(), ClusterToken::new("secret")] {
        let error = call(&far, token).await.err().unwrap();
        assert_eq!(refused(&error), Some(&Refused::LoopbackOnly));
        assert!(error.to_string().contains("RNACOS_CLUSTER_TOKEN"), "{error}");
    }
    // And this side dials no other machine without one: whoever answers there could be anybody.
    let credentials = operator(ClusterToken::unset()).with_is_local(elsewhere);
    let address = near.address.to_string();
    let error = PeerClient::connect(&address, &credentials, Target::default(), PATIENCE)
        .await
        .err()
        .unwrap();
    assert!(matches!(error, DialError::TokenNeeded { .. }));
    assert!(error.to_string().contains("RNACOS_CLUSTER_TOKEN"), "{error}");
}

#[tokio::test]
async fn one_side_with_a_token_and_one_without_are_told_apart() {
    let with = Node::start(1);
    let without = Node::with(Setup {
        token: ClusterToken::unset(),
        ..Setup::new(2)
    });
    let error = call(&with, ClusterToken::unset()).await.err().unwrap();
    assert_eq!(refused(&error), Some(&Refused::TokenMissing), "{error:?}");
    let error = call(&without, ClusterToken::new("secret")).await.err().unwrap();
    assert_eq!(refused(&error), Some(&Refused::TokenUnset));
}

/// R33: the address of a member was taken over by another node, or by the same node after it lost its data.
#[tokio::test]
async fn another_node_at_a_members_address_is_not_spoken_to() {
    let (first, second) = (Node::start(1), Node::start(2));
    let wrong_id = Member {
        id: NodeId(3),
        ..second.member()
    };
    first
        .transport
        .set_members(&membership(&[first.member(), wrong_id]));
    let why = refusal_of(&first, NodeId(3)).await;
    assert_eq!(
        why,
        Refused::OtherNode {
            expected: NodeId(3),
            found: NodeId(2)
        }
    );
    let wrong_life = Member {
        incarnation: Incarnation(5),
        ..second.member()
    };
    first
        .transport
        .set_members(&membership(&[first.member(), wrong_life]));
    let why = refusal_of(&first, NodeId(2)).await;
    let expected = Incarnation(5);
    assert_eq!(
        why,
        Refused::OtherIncarnation {
            node: NodeId(2),
            expected,
            found: Incarnation(1002)
        }
    );
}

/// R50: the member of a living cluster tells a founder with an empty disk that it is listed there.
#[tokio::test]
async fn a_founder_learns_of_the_cluster_that_lists_it() {
    let member = Node::start(1);
    let mut setup = Setup::new(2);
    setup.identity.cluster_id = None;
    let founder = Node::with(setup);
    member
        .transport
        .set_members(&membership(&[member.member(), founder.member()]));
    let (caller, target, why) = turned_away(&founder).await;
    assert_eq!(
        (caller.kind, caller.identity.cluster_id),
        (Kind::Member, Some(CLUSTER))
    );
    assert_eq!(
        (target.node_id, target.cluster_id),
        (Some(NodeId(2)), Some(CLUSTER))
    );
    assert!(matches!(why, Refused::NotFormed { node: NodeId(2), .. }));
    assert!(matches!(
        refusal_of(&member, NodeId(2)).await,
        Refused::NotFormed { .. }
    ));
}

#[tokio::test]
async fn a_formed_node_learns_of_another_cluster_that_lists_it() {
    let member = Node::start(1);
    let mut setup = Setup::new(2);
    setup.identity.cluster_id = Some(ClusterId(0xbad));
    let other = Node::with(setup);
    member
        .transport
        .set_members(&membership(&[member.member(), other.member()]));
    let (caller, target, why) = turned_away(&other).await;
    assert_eq!(
        (caller.identity.cluster_id, target.node_id),
        (Some(CLUSTER), Some(NodeId(2)))
    );
    assert!(matches!(why, Refused::OtherCluster { .. }));
    let expected = Refused::OtherCluster {
        ours: Some(CLUSTER),
        theirs: Some(ClusterId(0xbad)),
        node: NodeId(2),
    };
    assert_eq!(refusal_of(&member, NodeId(2)).await, expected);
}

#[tokio::test]
async fn a_port_that_is_no_peer_door_is_named_as_such() {
    let shutdown = crate::shutdown::Shutdown::new();
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = crate::grpc::Listener::bind(address, Default::default()).unwrap();
    let address = listener.local_address().to_string();
    listener.serve_until(None, std::sync::Arc::new(crate::grpc::Unimplemented), &shutdown);
    let credentials = operator(ClusterToken::new("secret"));
    let error = PeerClient::connect(&address, &credentials, Target::default(), PATIENCE)
        .await
        .err()
        .unwrap();
    assert!(
        matches!(
            error,
            DialError::Handshake {
                source: HandshakeError::NoDoor,
                ..
            }
        ),
        "{error:?}"
    );
    shutdown.begin();
    let error = PeerClient::connect("127.0.0.1:1", &credentials, Target::default(), PATIENCE)
        .await
        .err();
    assert!(matches!(error, Some(DialError::Connect { .. })), "{error:?}");
    let error = PeerClient::connect("nowhere.invalid:1", &credentials, Target::default(), PATIENCE)
        .await
        .err();
    assert!(matches!(error, Some(DialError::Resolve { .. })), "{error:?}");
}

fn operator(token: ClusterToken) -> Credentials {
    Credentials::new(token, Kind::Operator, Identity::operator())
}

async fn call(to: &Node, token: ClusterToken) -> Result<PeerClient, DialError> {
    PeerClient::connect(
        &to.address.to_string(),
        &operator(token),
        Target::default(),
        PATIENCE,
    )
    .await
}

fn refused(error: &DialError) -> Option<&Refused> {
    match error {
        DialError::Handshake {
            source: HandshakeError::Refused(refused),
            ..
        } => Some(refused),
        _ => None,
    }
}

async fn refusal_of(node: &Node, by: NodeId) -> Refused {
    node.wait_for("a refusal", |event| match event {
        Event::RefusedBy(peer, why) if peer == by => Some(why),
        _ => None,
    })
    .await
}

async fn turned_away(node: &Node) -> (PeerIdentity, Target, Refused) {
    node.wait_for("someone to be turned away", |event| match event {
        Event::TurnedAway(caller, target, why) => Some((caller, target, why)),
        _ => None,
    })
    .await
}
