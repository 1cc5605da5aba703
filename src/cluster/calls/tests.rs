//! Calls and answers survive the wire; what is none is refused; what is newer is told as such.

use raft::{Incarnation, Space};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::*;

#[test]
fn calls_survive_the_wire() {
    let calls = [
        Call::Join(member(3)),
        Call::Status,
        Call::Change(Change::Add(member(4))),
        Call::Change(Change::Remove(NodeId(2))),
        Call::Change(Change::Readdress(member(1))),
        Call::Transfer(None),
        Call::Transfer(Some(NodeId(2))),
        Call::WhoAreYou,
        Call::Ask(Bytes::from_static(b"{}")),
    ];
    for call in calls {
        assert_eq!(Call::decode(&call.encode()), Ok(call));
    }
}

#[test]
fn answers_survive_the_wire() {
    for reply in replies() {
        assert_eq!(CallReply::decode(&reply.encode()), Ok(reply));
    }
}

#[test]
fn damaged_calls_and_answers_are_refused_without_a_panic() {
    for seed in 0..2_000 {
        let mut random = StdRng::seed_from_u64(seed);
        let replies = replies();
        let mut bytes = replies[random.random_range(0..replies.len())].encode();
        for _ in 0..random.random_range(1..4) {
            let place = random.random_range(0..bytes.len());
            bytes[place] ^= 1 << random.random_range(0..8);
        }
        let _ = (Call::decode(&bytes), CallReply::decode(&bytes));
        random.fill_bytes(&mut bytes);
        let _ = (Call::decode(&bytes), CallReply::decode(&bytes));
    }
}

#[test]
fn what_is_newer_is_told_from_what_is_wrong() {
    assert_eq!(Call::decode(&[]), Err(CallDecodeError::Unknown));
    // Field 99, empty.
    assert_eq!(Call::decode(&[0x9a, 0x06, 0x00]), Err(CallDecodeError::Unknown));
    assert_eq!(
        CallReply::decode(&[0x9a, 0x06, 0x00]),
        Err(CallDecodeError::Unknown)
    );
    assert_eq!(Call::decode(&[0xff]), Err(CallDecodeError::Malformed));
    let nobody = Call::Join(Member {
        id: NodeId(0),
        ..member(1)
    });
    assert_eq!(Call::decode(&nobody.encode()), Err(CallDecodeError::Malformed));
    let no_address = Call::Join(Member {
        address: "a\nb:1".into(),
        ..member(1)
    });
    assert_eq!(
        Call::decode(&no_address.encode()),
        Err(CallDecodeError::Malformed)
    );
    let newer = pb::CallRefused {
        kind: 99,
        sentence: "because".into(),
        ..Default::default()
    };
    let newer = pb::CallReply {
        body: Some(pb::call_reply::Body::Refused(newer)),
    }
    .encode_to_vec();
    assert_eq!(
        CallReply::decode(&newer),
        Ok(CallReply::refused(WhyRefused::Unavailable, "because"))
    );
}

fn replies() -> Vec<CallReply> {
    let at = EntryId {
        term: Term(3),
        index: Index(8),
    };
    let whys = [
        WhyRefused::NotLeader(None),
        WhyRefused::NotLeader(Some(member(2))),
        WhyRefused::Core(Refusal::OtherIncarnation(NodeId(3))),
        WhyRefused::Unavailable,
        WhyRefused::NotAllowed,
        WhyRefused::UnknownCall,
    ];
    let mut replies: Vec<CallReply> = whys
        .into_iter()
        .map(|why| CallReply::refused(why, "a sentence"))
        .collect();
    replies.extend([
        CallReply::Done(Done::default()),
        CallReply::Told(Bytes::from_static(b"[1]")),
        CallReply::Done(Done {
            at: Some(at),
            cluster_id: Some(ClusterId(7)),
            configuration: configuration(),
        }),
        CallReply::Presence(Presence {
            identity: identity(),
            configuration: configuration(),
        }),
        CallReply::Status(Box::new(StatusReport {
            identity: identity(),
            status: status(),
            space: Space::Critical,
            failure: Some("the log: a sync failed".to_owned()),
        })),
    ]);
    replies
}

fn member(id: u64) -> Member {
    Member {
        id: NodeId(id),
        incarnation: Incarnation(100 + id),
        address: format!("node-{id}:9848"),
    }
}

fn configuration() -> Configuration {
    let members = [1, 2, 3].map(|id| (NodeId(id), member(id)));
    Configuration {
        members: members.into(),
        voters: [NodeId(1), NodeId(2)].into(),
        outgoing: [NodeId(2)].into(),
    }
}

fn identity() -> Identity {
    Identity {
        cluster_id: Some(ClusterId(u128::MAX)),
        node_id: NodeId(2),
        incarnation: Incarnation(102),
        boot: Boot(4),
        feature_level: 1,
        address: "node-2:9848".to_owned(),
    }
}

fn status() -> Status {
    let peer = PeerStatus {
        id: NodeId(1),
        matched: Index(7),
        next: Index(9),
        inflight: 3,
        in_snapshot: true,
        active: true,
        suspect: true,
        space: Space::Low,
    };
    Status {
        term: Term(3),
        role: RoleKind::Leader,
        leader: Some(NodeId(2)),
        base: Index(1),
        last: Index(9),
        durable: Index(8),
        committed: Index(7),
        applied: Index(6),
        suspicion: Some(Boot(2)),
        configuration: configuration(),
        uncommitted_bytes: 77,
        peers: vec![peer],
    }
}
