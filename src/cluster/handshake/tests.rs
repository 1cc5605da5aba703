//! Every way a handshake can end, without a socket.

use raft::{Boot, Incarnation, NodeId};
use storage::ClusterId;

use super::*;

const CLUSTER: ClusterId = ClusterId(0xc1);

#[test]
fn both_sides_learn_who_the_other_is() {
    let token = ClusterToken::new("secret");
    let (verdict, answer) = meet(
        &token,
        &token,
        Kind::Member,
        &node(1),
        Target::default(),
        &node(2),
    );
    assert_eq!(verdict.result, Ok(VERSION));
    assert_eq!(verdict.caller, Some((Kind::Member, node(1), Target::default())));
    assert_eq!(answer, Ok((VERSION, node(2))));
}

#[test]
fn a_wrong_or_missing_token_is_told_without_parsing_anything() {
    let (set, unset) = (ClusterToken::new("secret"), ClusterToken::unset());
    let cases = [
        (ClusterToken::new("guess"), set.clone(), Refused::TokenWrong),
        (unset.clone(), set.clone(), Refused::TokenMissing),
        (set, unset, Refused::TokenUnset),
    ];
    for (caller, door, expected) in cases {
        let (verdict, answer) = meet(
            &caller,
            &door,
            Kind::Member,
            &node(1),
            Target::default(),
            &node(2),
        );
        assert_eq!(verdict.caller, None);
        assert_eq!(verdict.result, Err(expected.clone()));
        assert_eq!(answer, Err(HandshakeError::Refused(expected)));
    }
}

#[test]
fn a_proof_without_sense_is_refused() {
    let token = ClusterToken::new("secret");
    let challenge = fresh_nonce();
    for hello in [&b"\xff\xff"[..], b""] {
        let hello = Bytes::copy_from_slice(hello);
        let proof = token.caller_proof(&challenge, &hello);
        let verdict = judge(&token, &node(2), &challenge, &proof, &hello);
        assert_eq!(verdict.result, Err(Refused::Malformed));
    }
}

#[test]
fn a_hello_is_worth_nothing_at_the_next_challenge() {
    let token = ClusterToken::new("secret");
    let (frame, _) = Caller::answer(&token, fresh_nonce(), Kind::Member, &node(1), Target::default());
    let Frame::Hello(proof, hello) = frame else {
        panic!("not a hello")
    };
    let verdict = judge(&token, &node(2), &fresh_nonce(), &proof, &hello);
    assert_eq!(verdict.result, Err(Refused::TokenWrong));
}

#[test]
fn a_proof_handed_back_to_its_maker_is_worth_nothing() {
    let token = ClusterToken::new("secret");
    let challenge = fresh_nonce();
    let (frame, caller) = Caller::answer(&token, challenge, Kind::Member, &node(1), Target::default());
    let Frame::Hello(proof, hello) = frame else {
        panic!("not a hello")
    };
    assert_eq!(
        caller.judge(Frame::Answer(proof, hello)),
        Err(HandshakeError::Unproved)
    );
    let forged = pb::Answer {
        body: Some(pb::answer::Body::Welcome(pb::Welcome::default())),
    };
    let forged = Bytes::from(forged.encode_to_vec());
    assert_eq!(
        caller.judge(Frame::Answer([0; 32], forged)),
        Err(HandshakeError::Unproved)
    );
}

/// R33: an address reused, a folder restored elsewhere, a node wiped.
#[test]
fn whoever_is_not_the_one_meant_is_refused_with_its_reason() {
    let incarnation = |of: u64| Some(Incarnation(of));
    let target = |node_id, incarnation| Target {
        cluster_id: Some(CLUSTER),
        node_id: Some(node_id),
        incarnation,
    };
    let mut stranger = node(1);
    stranger.cluster_id = Some(ClusterId(0xbad));
    let mut outside = node(1);
    outside.cluster_id = None;
    let cases = [
        (
            node(1),
            target(NodeId(3), None),
            Refused::OtherNode {
                expected: NodeId(3),
                found: NodeId(2),
            },
        ),
        (
            node(1),
            target(NodeId(2), incarnation(9)),
            Refused::OtherIncarnation {
                node: NodeId(2),
                expected: Incarnation(9),
                found: Incarnation(102),
            },
        ),
        (
            stranger,
            Target {
                cluster_id: Some(ClusterId(0xbad)),
                ..Target::default()
            },
            Refused::OtherCluster {
                ours: Some(ClusterId(0xbad)),
                theirs: Some(CLUSTER),
                node: NodeId(2),
            },
        ),
        (node(2), target(NodeId(2), None), Refused::SameNode(NodeId(2))),
    ];
    let token = ClusterToken::new("secret");
    for (caller, target, expected) in cases {
        let (verdict, answer) = meet(&token, &token, Kind::Member, &caller, target, &node(2));
        assert_eq!(verdict.result, Err(expected.clone()));
        assert_eq!(
            verdict.caller,
            Some((Kind::Member, caller, target)),
            "the owner is told who came"
        );
        assert_eq!(answer, Err(HandshakeError::Refused(expected)));
    }
    let (verdict, _) = meet(
        &token,
        &token,
        Kind::Member,
        &outside,
        Target::default(),
        &node(2),
    );
    assert!(matches!(verdict.result, Err(Refused::OtherCluster { .. })));
}

#[test]
fn a_node_without_a_cluster_lets_nobody_in_but_learns_who_came() {
    let token = ClusterToken::new("secret");
    let mut founder = node(2);
    founder.cluster_id = None;
    let target = Target {
        cluster_id: Some(CLUSTER),
        node_id: Some(NodeId(2)),
        incarnation: None,
    };
    let (verdict, answer) = meet(&token, &token, Kind::Member, &node(1), target, &founder);
    let expected = Refused::NotFormed {
        node: NodeId(2),
        incarnation: Incarnation(102),
    };
    assert_eq!(verdict.result, Err(expected.clone()));
    assert_eq!(verdict.caller, Some((Kind::Member, node(1), target)));
    assert_eq!(answer, Err(HandshakeError::Refused(expected)));
}

#[test]
fn joiners_and_operators_need_no_cluster_id() {
    let token = ClusterToken::new("secret");
    let mut joiner = node(3);
    joiner.cluster_id = None;
    for (kind, caller) in [(Kind::Joiner, joiner), (Kind::Operator, Identity::operator())] {
        let (verdict, answer) = meet(&token, &token, kind, &caller, Target::default(), &node(2));
        assert_eq!(verdict.result, Ok(VERSION));
        assert_eq!(answer, Ok((VERSION, node(2))));
    }
}

#[test]
fn the_caller_does_not_believe_a_door_that_is_not_the_one_meant() {
    let token = ClusterToken::new("secret");
    let target = Target {
        cluster_id: Some(CLUSTER),
        node_id: Some(NodeId(3)),
        incarnation: None,
    };
    let challenge = fresh_nonce();
    let (frame, caller) = Caller::answer(&token, challenge, Kind::Member, &node(1), target);
    let Frame::Hello(_, hello) = frame else {
        panic!("not a hello")
    };
    let welcome = pb::Welcome {
        version: VERSION,
        door: Some(node(2).to_proto()),
    };
    let answer = Bytes::from(
        pb::Answer {
            body: Some(pb::answer::Body::Welcome(welcome)),
        }
        .encode_to_vec(),
    );
    let proof = token.door_proof(&challenge, &hello, &answer);
    let expected = Refused::OtherNode {
        expected: NodeId(3),
        found: NodeId(2),
    };
    assert_eq!(
        caller.judge(Frame::Answer(proof, answer)),
        Err(HandshakeError::Refused(expected))
    );
}

#[test]
fn frames_survive_any_cut_and_garbage_is_refused() {
    let frames = [
        Frame::Challenge([7; 32]),
        Frame::Hello([1; 32], Bytes::from_static(b"hello")),
        Frame::Answer([2; 32], Bytes::new()),
        Frame::Refused(Refused::TokenMissing),
    ];
    for frame in frames {
        let bytes = frame.to_bytes();
        for cut in 0..bytes.len() {
            assert_eq!(Frame::take(&mut BytesMut::from(&bytes[..cut])), Ok(None));
        }
        let mut buffer = BytesMut::from(&bytes[..]);
        buffer.extend_from_slice(b"rest");
        assert_eq!(Frame::take(&mut buffer), Ok(Some(frame)));
        assert_eq!(&buffer[..], b"rest");
    }
    for bad in [
        &[1, 0, 0, 0, 1, 9][..],
        &[9, 0, 0, 0, 0],
        &[2, 0xff, 0, 0, 0],
        &[2, 0, 0, 0, 3, 1, 2, 3],
    ] {
        assert_eq!(Frame::take(&mut BytesMut::from(bad)), Err(BadFrame));
    }
}

fn node(id: u64) -> Identity {
    Identity {
        cluster_id: Some(CLUSTER),
        node_id: NodeId(id),
        incarnation: Incarnation(100 + id),
        boot: Boot(1),
        feature_level: 1,
        address: format!("node-{id}:9848"),
    }
}

/// One handshake, frames passed as bytes.
fn meet(
    caller_token: &ClusterToken,
    door_token: &ClusterToken,
    kind: Kind,
    caller: &Identity,
    target: Target,
    door: &Identity,
) -> (Verdict, Result<(u32, Identity), HandshakeError>) {
    let challenge = fresh_nonce();
    let (hello, caller) = Caller::answer(caller_token, challenge, kind, caller, target);
    let Frame::Hello(proof, hello) = over_the_wire(&hello) else {
        panic!("not a hello")
    };
    let verdict = judge(door_token, door, &challenge, &proof, &hello);
    let answer = caller.judge(over_the_wire(&verdict.reply));
    (verdict, answer)
}

fn over_the_wire(frame: &Frame) -> Frame {
    Frame::take(&mut BytesMut::from(&frame.to_bytes()[..]))
        .unwrap()
        .unwrap()
}
