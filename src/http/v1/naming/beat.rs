//! PUT `/v1/ns/instance/beat`: a client says that its instance lives (contract 03 §4).

use std::sync::Arc;

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;

use super::super::super::form::Params;
use super::super::super::reply::{self, JSON, Reply};
use super::super::super::request::Request;
use super::super::super::routes::Answer;
use super::{flag_of, metadata, no_loop, number, port, service_key};
use crate::error::{Error, Result};
use crate::model::Endpoint;
use crate::naming::{Instance, Metadata};
use crate::service::Services;
use crate::service::naming::NewInstance;

/// The beat was taken.
const TAKEN: u32 = 10_200;
/// No such instance: the client registers it.
const UNKNOWN: u32 = 20_404;

/// A beat, light or full. The answer is the same bare object in all generations of the API.
pub(in crate::http) fn beat(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let params = request.params()?;
    let service = service_key(&params)?;
    let (endpoint, full) = read(&params)?;
    no_loop(services, request, &service)?;
    if flag_of(&params, &["ephemeral"]) == Some(false) {
        let asked_ms = services.beat_in_vain(&service, &endpoint)?;
        return Ok(Answer::Ready(answer(services, Some(asked_ms))));
    }
    let services = Arc::clone(services);
    Ok(Answer::later(async move {
        let asked_ms = services.beat(service, endpoint, full).await?;
        Ok(answer(&services, asked_ms))
    }))
}

fn answer(services: &Services, asked_ms: Option<u64>) -> Reply {
    let switches = services.switches();
    let (interval_ms, code) = match asked_ms {
        Some(interval_ms) => (interval_ms, TAKEN),
        None => (switches.client_beat_interval, UNKNOWN),
    };
    let light = switches.light_beat_enabled;
    let body = format!(r#"{{"clientBeatInterval":{interval_ms},"code":{code},"lightBeatEnabled":{light}}}"#);
    reply::reply(http::StatusCode::OK, Some(JSON), body)
}

/// Which instance beats and, of a full beat, what it says.
fn read(params: &Params<'_>) -> Result<(Endpoint, Option<Instance>)> {
    let port = port(params)?.unwrap_or(0);
    let ip = params.get("ip").unwrap_or_default();
    let cluster = params.any(&["clusterName", "cluster"]).unwrap_or_default();
    let place = NewInstance {
        ip: ip.into(),
        port,
        cluster: cluster.into(),
        ..NewInstance::default()
    };
    match params.get("beat").filter(|beat| !beat.trim().is_empty()) {
        None => Ok((place.endpoint()?, None)),
        Some(beat) => {
            let (endpoint, instance) = full(beat, cluster)?.check()?;
            Ok((endpoint, Some(instance)))
        }
    }
}

/// What a full beat says (`RsInfo`); fields that are not known are not looked at.
fn full<'a>(beat: &str, cluster: &'a str) -> Result<NewInstance<'a>> {
    let unreadable = || Error::Invalid(format!("the beat is no JSON object of an instance: {beat}"));
    // Apart, so that what stands in the metadata stays as it is written.
    let mut raw: BTreeMap<String, &RawValue> = serde_json::from_str(beat).map_err(|_| unreadable())?;
    let metadata = raw.remove("metadata").map(metadata::of_json);
    let metadata = metadata.map_or(Some(Metadata::default()), |read| read);
    let fields: serde_json::Map<String, Value> = serde_json::from_str(beat).map_err(|_| unreadable())?;
    let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
    let own_cluster = text("cluster");
    let port = match fields.get("port") {
        None | Some(Value::Null) => 0,
        Some(Value::String(text)) => number(text)?,
        Some(port) => port
            .as_u64()
            .and_then(|port| u16::try_from(port).ok())
            .ok_or_else(unreadable)?,
    };
    let weight = match fields.get("weight") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(number(text)?),
        Some(weight) => Some(weight.as_f64().ok_or_else(unreadable)?),
    };
    Ok(NewInstance {
        ip: text("ip").to_owned().into(),
        port,
        cluster: if own_cluster.trim().is_empty() {
            cluster.into()
        } else {
            own_cluster.to_owned().into()
        },
        weight,
        enabled: None,
        metadata: metadata.ok_or_else(unreadable)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat_of(query: &str) -> Result<(Endpoint, Option<Instance>)> {
        read(&Params::parse(query.as_bytes(), b"").expect("parameters"))
    }

    #[test]
    fn a_light_beat_names_its_instance() {
        let (endpoint, full) = beat_of("ip=10.0.0.1&port=80&beat=").unwrap();
        assert_eq!((endpoint, full), (Endpoint::new("10.0.0.1", 80, ""), None));
        assert_eq!(beat_of("port=80"), Err(Error::Missing { name: "ip", kind: "" }));
        assert!(matches!(beat_of("ip=a&port=-1"), Err(Error::Illegal(_))));
    }

    #[test]
    fn a_full_beat_says_all_itself() {
        let json =
            r#"{"ip":"10.0.0.2","port":81,"cluster":"c","weight":2,"metadata":{"a":"b"},"rt":1.5,"ak":null}"#;
        let (endpoint, full) = beat_of(&format!("ip=10.0.0.1&port=80&beat={json}")).unwrap();
        assert_eq!(endpoint, Endpoint::new("10.0.0.2", 81, "c"));
        let full = full.unwrap();
        assert_eq!((full.weight, full.metadata.get("a")), (2.0, Some("b")));
        let (endpoint, _) = beat_of(r#"clusterName=d&beat={"ip":"10.0.0.2","port":"81"}"#).unwrap();
        assert_eq!(endpoint, Endpoint::new("10.0.0.2", 81, "d"));
    }

    #[test]
    fn broken_beats_are_told() {
        for beat in [
            "{nope",
            "[]",
            "1",
            r#"{"port":80}"#,
            r#"{"ip":"a","port":70000}"#,
            r#"{"ip":"a","port":-1}"#,
            r#"{"ip":"a","port":[]}"#,
            r#"{"ip":"a","weight":{}}"#,
            r#"{"ip":"a","weight":20000}"#,
            r#"{"ip":"a","metadata":[]}"#,
            r#"{"ip":"a b"}"#,
            r#"{"ip":"a","cluster":"x,y"}"#,
        ] {
            assert!(beat_of(&format!("beat={beat}")).is_err(), "{beat}");
        }
    }
}
