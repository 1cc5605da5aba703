//! Messages between registries as bytes: protobuf (proto/naming.proto), one message per frame.
//!
//! Whatever comes in is checked for being possible, and bounded by the frame it comes in; nothing here
//! panics. What it means is checked by its reader.

mod size;

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use proto::naming as pb;

use super::forward::{Act, Done, Frame, Reply, Request, What};
use crate::distro::{Heard, Lacks, Message};
use crate::model::{Endpoint, NamespaceId, ServiceKey};
use crate::naming::{
    BUCKETS, Batch, Body, Bucket, Delta, Instance, Kind, Origin, Owner, RecordKey, Revision, Stamp, Times,
};

/// A frame is no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// No protobuf.
    #[error("not a message of naming: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// A value that no message has.
    #[error("a message of naming with {0}")]
    Impossible(&'static str),
}

/// A message of the protocol.
pub fn encode_message(message: &Message) -> Bytes {
    use pb::distro::Message as Wire;
    let wire = match message {
        Message::Hello { origin, knows, lacks } => Wire::Hello(pb::Hello {
            origin: some_origin(*origin),
            knows_origin: knows.and_then(|(origin, _)| some_origin(origin)),
            knows_revision: knows.map(|(_, revision)| revision.0).unwrap_or_default(),
            lacks: lacks.is_some(),
            awaits_ms: awaits_ms(lacks),
        }),
        Message::Changes(batch) => Wire::Changes(pb::Batch {
            origin: some_origin(batch.origin),
            from: batch.from.0,
            through: batch.through.0,
            services: deltas_to_wire(&batch.deltas),
        }),
        Message::Known { origin, known, go_on } => Wire::Known(pb::Known {
            origin: some_origin(*origin),
            known: known.0,
            go_on: *go_on,
        }),
        Message::Verify {
            heard,
            times,
            lacks,
            begin_again,
        } => Wire::Verify(pb::Verify {
            heard: heard.iter().map(heard_to_wire).collect(),
            clock: times.lists.0,
            acts_clock: times.acts.0,
            lacks: lacks.is_some(),
            begin_again: *begin_again,
            awaits_ms: awaits_ms(lacks),
        }),
        Message::Alive { times } => Wire::Alive(pb::Alive {
            clock: times.lists.0,
            acts_clock: times.acts.0,
        }),
        Message::Tell => Wire::Tell(pb::Tell {}),
        Message::Ask {
            origin,
            buckets,
            after,
        } => Wire::Ask(pb::Ask {
            origin: some_origin(*origin),
            buckets: buckets.iter().map(|bucket| *bucket as u32).collect(),
            after: after.as_ref().map(name_to_wire),
        }),
        Message::Bucket(bucket) => Wire::Bucket(pb::Bucket {
            origin: some_origin(bucket.origin),
            bucket: bucket.bucket as u32,
            through: bucket.through.0,
            services: deltas_to_wire(&bucket.deltas),
            after: bucket.after.as_ref().map(name_to_wire),
            more: bucket.more,
        }),
        Message::Stamps(stamps) => Wire::Stamps(pb::Stamps {
            stamps: stamps.iter().map(stamp_to_wire).collect(),
        }),
    };
    pb::Distro { message: Some(wire) }.encode_to_vec().into()
}

/// The message in a frame; `None` for one of a kind that only newer versions know.
///
/// # Errors
/// See [`WireError`].
pub fn decode_message(frame: Bytes) -> Result<Option<Message>, WireError> {
    use pb::distro::Message as Wire;
    size::check(&frame, &size::DISTRO)?;
    let Some(wire) = pb::Distro::decode(frame)?.message else {
        return Ok(None);
    };
    Ok(Some(match wire {
        Wire::Hello(hello) => Message::Hello {
            origin: origin(hello.origin)?,
            knows: hello
                .knows_origin
                .map(|origin| (of_wire(origin), Revision(hello.knows_revision))),
            lacks: lacks(hello.lacks, hello.awaits_ms),
        },
        Wire::Changes(batch) => Message::Changes(Arc::new(Batch {
            origin: origin(batch.origin)?,
            from: Revision(batch.from),
            through: Revision(batch.through),
            deltas: deltas(batch.services)?,
        })),
        Wire::Known(known) => Message::Known {
            origin: origin(known.origin)?,
            known: Revision(known.known),
            go_on: known.go_on,
        },
        Wire::Verify(verify) => Message::Verify {
            heard: verify.heard.into_iter().map(heard).collect::<Result<_, _>>()?,
            times: times(verify.clock, verify.acts_clock),
            lacks: lacks(verify.lacks, verify.awaits_ms),
            begin_again: verify.begin_again,
        },
        Wire::Alive(alive) => Message::Alive {
            times: times(alive.clock, alive.acts_clock),
        },
        Wire::Tell(pb::Tell {}) => Message::Tell,
        Wire::Ask(ask) => Message::Ask {
            origin: origin(ask.origin)?,
            buckets: buckets(ask.buckets)?,
            after: ask.after.map(name).transpose()?,
        },
        Wire::Bucket(all) => Message::Bucket(Bucket {
            origin: origin(all.origin)?,
            bucket: bucket(all.bucket)?,
            through: Revision(all.through),
            after: all.after.map(name).transpose()?,
            more: all.more,
            deltas: deltas(all.services)?,
        }),
        Wire::Stamps(all) => {
            let stamped = |one: pb::ServiceStamp| Ok((service(one.service)?, Stamp(one.stamp)));
            let stamps: Result<_, WireError> = all.stamps.into_iter().map(stamped).collect();
            Message::Stamps(stamps?)
        }
    }))
}

/// A frame of a forwarding link.
pub fn encode_forward(frame: &Frame) -> Bytes {
    use pb::forward::Frame as Wire;
    let wire = match frame {
        Frame::Request(request) => pb::Forward {
            id: request.id,
            asked: request.asked.0,
            above: request.above.0,
            frame: Some(Wire::Act(act_to_wire(&request.act))),
        },
        Frame::Reply(reply) => pb::Forward {
            id: reply.id,
            frame: Some(Wire::Done(reply_to_wire(reply))),
            ..pb::Forward::default()
        },
    };
    wire.encode_to_vec().into()
}

/// What stands in a frame of a forwarding link; `None` as in [`decode_message`].
///
/// # Errors
/// See [`WireError`].
pub fn decode_forward(frame: Bytes) -> Result<Option<Frame>, WireError> {
    use pb::forward::Frame as Wire;
    size::check(&frame, &size::FORWARD)?;
    let pb::Forward {
        id,
        frame,
        asked,
        above,
    } = pb::Forward::decode(frame)?;
    Ok(match frame {
        None => None,
        Some(Wire::Act(act)) => act_of_wire(act)?.map(|act| {
            Frame::Request(Request {
                id,
                asked: Stamp(asked),
                above: Stamp(above),
                act,
            })
        }),
        Some(Wire::Done(done)) => Some(Frame::Reply(reply_of_wire(id, done)?)),
    })
}

fn some_origin(origin: Origin) -> Option<pb::Origin> {
    let Origin { node, boot } = origin;
    Some(pb::Origin { node, boot })
}

fn of_wire(origin: pb::Origin) -> Origin {
    let pb::Origin { node, boot } = origin;
    Origin { node, boot }
}

fn origin(origin: Option<pb::Origin>) -> Result<Origin, WireError> {
    origin.map(of_wire).ok_or(WireError::Impossible("no origin"))
}

fn bucket(bucket: u32) -> Result<usize, WireError> {
    let bucket = bucket as usize;
    let impossible = WireError::Impossible("a bucket that does not exist");
    (bucket < BUCKETS).then_some(bucket).ok_or(impossible)
}

fn buckets(asked: Vec<u32>) -> Result<Vec<usize>, WireError> {
    // Each is answered with all its records.
    if asked.len() > BUCKETS {
        return Err(WireError::Impossible("more buckets than there are"));
    }
    asked.into_iter().map(bucket).collect()
}

fn awaits_ms(lacks: &Option<Lacks>) -> u64 {
    lacks.map(|lacks| lacks.awaits_ms).unwrap_or_default()
}

fn times(lists: u64, acts: u64) -> Times {
    Times {
        lists: Stamp(lists),
        acts: Stamp(acts),
    }
}

fn lacks(lacks: bool, awaits_ms: u64) -> Option<Lacks> {
    lacks.then_some(Lacks { awaits_ms })
}

fn heard_to_wire(heard: &Heard) -> pb::Heard {
    pb::Heard {
        origin: some_origin(heard.origin),
        known: heard.known.0,
        sums: heard.sums.to_vec(),
        absent_ms: heard.absent_ms,
        newest: if heard.newest > heard.known {
            heard.newest.0
        } else {
            0
        },
        silent_ms: heard.silent_ms,
    }
}

fn heard(heard: pb::Heard) -> Result<Heard, WireError> {
    let sums: Result<Box<[u64; BUCKETS]>, _> = heard.sums.into_boxed_slice().try_into();
    Ok(Heard {
        origin: origin(heard.origin)?,
        known: Revision(heard.known),
        newest: Revision(heard.newest.max(heard.known)),
        sums: sums.map_err(|_| WireError::Impossible("a digest of another size"))?,
        silent_ms: heard.silent_ms,
        absent_ms: heard.absent_ms,
    })
}

fn service_to_wire(key: &ServiceKey) -> pb::Service {
    pb::Service {
        namespace: key.namespace().to_owned(),
        group: key.group().to_owned(),
        name: key.name().to_owned(),
    }
}

fn service(service: Option<pb::Service>) -> Result<ServiceKey, WireError> {
    let service = service.ok_or(WireError::Impossible("no service"))?;
    let namespace = NamespaceId::new(&service.namespace);
    Ok(ServiceKey::new(&namespace, &service.group, &service.name))
}

fn stamp_to_wire((service, stamp): &(ServiceKey, Stamp)) -> pb::ServiceStamp {
    pb::ServiceStamp {
        service: Some(service_to_wire(service)),
        stamp: stamp.0,
    }
}

fn endpoint(ip: &str, port: u32, cluster: &str) -> Result<Endpoint, WireError> {
    let port = u16::try_from(port).map_err(|_| WireError::Impossible("a port above 65535"))?;
    Ok(Endpoint::exact(ip, port, cluster))
}

/// Those of one service that stand together share its name.
fn deltas_to_wire(deltas: &[Delta]) -> Vec<pb::Deltas> {
    let of_one_service =
        |a: &Delta, b: &Delta| a.key.service == b.key.service && a.service_stamp == b.service_stamp;
    let groups = deltas.chunk_by(of_one_service);
    groups
        .filter_map(|group| {
            let first = group.first()?;
            Some(pb::Deltas {
                service: Some(service_to_wire(&first.key.service)),
                service_stamp: first.service_stamp.0,
                deltas: group.iter().map(delta_to_wire).collect(),
            })
        })
        .collect()
}

fn delta_to_wire(delta: &Delta) -> pb::Delta {
    let RecordKey { endpoint, owner, .. } = &delta.key;
    pb::Delta {
        ip: (&*endpoint.ip).into(),
        port: endpoint.port.into(),
        cluster: (&*endpoint.cluster).into(),
        connection: connection_of(owner),
        revision: delta.revision.0,
        stamp: delta
            .written
            .as_ref()
            .map(|(stamp, _)| stamp.0)
            .unwrap_or_default(),
        written: delta.written.as_ref().map(|(_, body)| match body {
            Body::Live { instance, healthy } => pb::delta::Written::Live(live_to_wire(instance, *healthy)),
            Body::Tombstone { keep_ms } => pb::delta::Written::Tombstone(pb::Tombstone { keep_ms: *keep_ms }),
        }),
    }
}

fn deltas(services: Vec<pb::Deltas>) -> Result<Vec<Delta>, WireError> {
    let mut all = Vec::with_capacity(services.iter().map(|group| group.deltas.len()).sum());
    for group in services {
        let service = service(group.service)?;
        for delta in group.deltas {
            all.push(delta_of_wire(&service, Stamp(group.service_stamp), delta)?);
        }
    }
    Ok(all)
}

fn name_to_wire(key: &RecordKey) -> pb::RecordName {
    pb::RecordName {
        service: Some(service_to_wire(&key.service)),
        ip: (&*key.endpoint.ip).into(),
        port: key.endpoint.port.into(),
        cluster: (&*key.endpoint.cluster).into(),
        connection: connection_of(&key.owner),
    }
}

fn name(name: pb::RecordName) -> Result<RecordKey, WireError> {
    Ok(RecordKey {
        service: service(name.service)?,
        endpoint: endpoint(&name.ip, name.port, &name.cluster)?,
        owner: owner(&name.connection),
    })
}

/// Empty for what beats keep alive.
fn connection_of(owner: &Owner) -> String {
    match owner {
        Owner::Beats => String::new(),
        Owner::Connection(id) => id.to_string(),
    }
}

fn owner(connection: &str) -> Owner {
    match connection {
        "" => Owner::Beats,
        id => Owner::Connection(id.into()),
    }
}

fn delta_of_wire(service: &ServiceKey, service_stamp: Stamp, delta: pb::Delta) -> Result<Delta, WireError> {
    let owner = owner(&delta.connection);
    let body = match delta.written {
        None => None,
        Some(pb::delta::Written::Live(live)) => {
            let (instance, healthy) = live_of_wire(live)?;
            let instance = Arc::new(instance);
            Some(Body::Live { instance, healthy })
        }
        Some(pb::delta::Written::Tombstone(pb::Tombstone { keep_ms })) => {
            if owner != Owner::Beats {
                return Err(WireError::Impossible("a tombstone that a connection keeps alive"));
            }
            Some(Body::Tombstone { keep_ms })
        }
    };
    Ok(Delta {
        key: RecordKey {
            service: service.clone(),
            endpoint: endpoint(&delta.ip, delta.port, &delta.cluster)?,
            owner,
        },
        revision: Revision(delta.revision),
        written: body.map(|body| (Stamp(delta.stamp), body)),
        service_stamp,
    })
}

fn instance_to_wire(instance: &Instance) -> pb::Instance {
    let pair = |(name, value): (&str, &str)| pb::Pair {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    pb::Instance {
        weight: instance.weight,
        disabled: !instance.enabled,
        metadata: instance.metadata.iter().map(pair).collect(),
    }
}

fn instance_of_wire(instance: pb::Instance) -> Result<Instance, WireError> {
    if !instance.weight.is_finite() {
        return Err(WireError::Impossible("a weight that is no number"));
    }
    let pairs = instance.metadata.into_iter();
    Ok(Instance {
        weight: instance.weight,
        enabled: !instance.disabled,
        metadata: pairs.map(|pair| (pair.name, pair.value)).collect(),
    })
}

fn live_to_wire(instance: &Instance, healthy: bool) -> pb::Live {
    pb::Live {
        instance: Some(instance_to_wire(instance)),
        unhealthy: !healthy,
    }
}

fn live_of_wire(live: pb::Live) -> Result<(Instance, bool), WireError> {
    let instance = live.instance.ok_or(WireError::Impossible("no instance"))?;
    Ok((instance_of_wire(instance)?, !live.unhealthy))
}

fn act_to_wire(act: &Act) -> pb::Act {
    use pb::act::What as Wire;
    pb::Act {
        service: Some(service_to_wire(&act.service)),
        ip: (&*act.endpoint.ip).into(),
        port: act.endpoint.port.into(),
        cluster: (&*act.endpoint.cluster).into(),
        what: Some(match &act.what {
            What::Register { instance, healthy } => Wire::Register(live_to_wire(instance, *healthy)),
            What::Deregister => Wire::Deregister(pb::Deregister { anywhere: false }),
            What::DeregisterAnywhere => Wire::Deregister(pb::Deregister { anywhere: true }),
            What::Beat { full } => Wire::Beat(pb::Beat {
                full: full.as_deref().map(instance_to_wire),
            }),
        }),
    }
}

fn act_of_wire(act: pb::Act) -> Result<Option<Act>, WireError> {
    use pb::act::What as Wire;
    let what = match act.what {
        None => return Ok(None),
        Some(Wire::Register(live)) => {
            let (instance, healthy) = live_of_wire(live)?;
            What::Register {
                instance: Arc::new(instance),
                healthy,
            }
        }
        Some(Wire::Deregister(pb::Deregister { anywhere: false })) => What::Deregister,
        Some(Wire::Deregister(pb::Deregister { anywhere: true })) => What::DeregisterAnywhere,
        Some(Wire::Beat(pb::Beat { full })) => What::Beat {
            full: full.map(instance_of_wire).transpose()?.map(Arc::new),
        },
    };
    Ok(Some(Act {
        service: service(act.service)?,
        endpoint: endpoint(&act.ip, act.port, &act.cluster)?,
        what,
    }))
}

fn reply_to_wire(Reply { id: _, done, word }: &Reply) -> pb::Done {
    use pb::Outcome as Wire;
    let (outcome, interval_ms) = match done {
        Done::Yes => (Wire::Yes, 0),
        Done::Beat { interval_ms } => (Wire::Beat, *interval_ms),
        Done::UnknownBeat => (Wire::UnknownBeat, 0),
        Done::WrongKind(Kind::Ephemeral) => (Wire::HoldsEphemeral, 0),
        Done::WrongKind(Kind::Persistent) => (Wire::HoldsPersistent, 0),
        Done::Full => (Wire::Full, 0),
        Done::NotHere => (Wire::NotHere, 0),
    };
    let group = |delta| deltas_to_wire(std::slice::from_ref(delta)).pop();
    pb::Done {
        outcome: outcome.into(),
        interval_ms,
        origin: word.as_ref().and_then(|(origin, _)| some_origin(*origin)),
        word: word.as_ref().and_then(|(_, delta)| group(delta)),
    }
}

fn reply_of_wire(id: u64, done: pb::Done) -> Result<Reply, WireError> {
    use pb::Outcome as Wire;
    let outcome = match done.outcome() {
        Wire::Yes => Done::Yes,
        Wire::Beat => Done::Beat {
            interval_ms: done.interval_ms,
        },
        Wire::UnknownBeat => Done::UnknownBeat,
        Wire::HoldsEphemeral => Done::WrongKind(Kind::Ephemeral),
        Wire::HoldsPersistent => Done::WrongKind(Kind::Persistent),
        Wire::Full => Done::Full,
        // What a newer version says: the asker does it itself.
        Wire::NotHere | Wire::Unknown => Done::NotHere,
    };
    let word = match done.word {
        None => None,
        Some(word) => deltas(vec![word])?
            .pop()
            .map(|delta| Ok::<_, WireError>((origin(done.origin)?, delta)))
            .transpose()?,
    };
    Ok(Reply {
        id,
        done: outcome,
        word,
    })
}

#[cfg(test)]
mod tests;
