//! `/v1/ns/instance/metadata/batch`: what operators attach to many instances at once.

use std::collections::HashSet;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;

use super::super::super::form::Params;
use super::super::super::reply::{self, JSON, Reply};
use super::super::super::request::Request;
use super::super::super::routes::Answer;
use super::{metadata, number, required, service_key};
use crate::error::{Error, Result};
use crate::model::Endpoint;
use crate::naming::{Kind, MetadataPatch};
use crate::service::Services;
use crate::service::naming::{NewInstance, check_metadata};
use crate::service::naming_admin::Chosen;

/// How a generation of the API says which instances were changed.
pub(in crate::http) type Tell = fn(Vec<String>) -> Reply;

/// PUT: attaches names to what is there.
pub(in crate::http) fn update(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    update_as(services, request, updated)
}

/// DELETE: takes names away.
pub(in crate::http) fn delete(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    delete_as(services, request, updated)
}

pub(in crate::http) fn update_as(services: &Arc<Services>, request: &Request, tell: Tell) -> Result<Answer> {
    change(services, request, tell, MetadataPatch::Merge)
}

pub(in crate::http) fn delete_as(services: &Arc<Services>, request: &Request, tell: Tell) -> Result<Answer> {
    change(services, request, tell, |metadata| {
        MetadataPatch::Remove(metadata.iter().map(|(name, _)| name.into()).collect())
    })
}

fn change(
    services: &Arc<Services>,
    request: &Request,
    tell: Tell,
    patch: fn(crate::naming::Metadata) -> MetadataPatch,
) -> Result<Answer> {
    let params = request.params()?;
    let service = service_key(&params)?;
    let given = metadata::parse(Some(required(&params, "metadata")?))?;
    check_metadata(&given)?;
    let chosen = chosen(&params)?;
    let services = Arc::clone(services);
    Ok(Answer::later(async move {
        let changed = services.batch_metadata(service, chosen, patch(given)).await?;
        Ok(tell(changed.iter().map(name).collect()))
    }))
}

fn updated(names: Vec<String>) -> Reply {
    reply::json(JSON, &json!({ "updated": names }))
}

/// `unknown` stands where an id once was.
fn name((place, kind): &(Endpoint, Kind)) -> String {
    let kind = match kind {
        Kind::Ephemeral => "ephemeral",
        Kind::Persistent => "persist",
    };
    format!("{}:{}:unknown:{}:{kind}", place.ip, place.port, place.cluster)
}

/// One of `instances`; other fields are not looked at.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PlaceJson {
    ip: String,
    port: Port,
    #[serde(default)]
    cluster_name: Option<String>,
}

/// A number, or a text that is one: the Java server takes either.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Port {
    Number(u16),
    Text(String),
}

impl Port {
    fn number(&self) -> Result<u16> {
        match self {
            Port::Number(port) => Ok(*port),
            Port::Text(text) => number(text),
        }
    }
}

fn chosen(params: &Params<'_>) -> Result<Chosen> {
    let kind = match params.get("consistencyType").map(str::trim) {
        None | Some("") => None,
        Some("ephemeral") => Some(Kind::Ephemeral),
        Some("persist") => Some(Kind::Persistent),
        Some(other) => {
            return Err(Error::Invalid(format!("no such consistencyType: {other}")));
        }
    };
    let text = params.get("instances").map(str::trim).unwrap_or_default();
    let named: Vec<PlaceJson> = if text.is_empty() {
        Vec::new()
    } else {
        let parsed = serde_json::from_str(text);
        parsed
            .map_err(|error| Error::Invalid(format!("instances are no JSON array of instances: {error}")))?
    };
    let places = named.into_iter().map(|place| {
        let place = NewInstance {
            port: place.port.number()?,
            ip: place.ip.into(),
            cluster: place.cluster_name.unwrap_or_default().into(),
            ..NewInstance::default()
        };
        place.endpoint()
    });
    let places: HashSet<Endpoint> = places.collect::<Result<_>>()?;
    Ok(Chosen {
        kind,
        // None named: all are meant.
        endpoints: (!places.is_empty()).then_some(places),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Chosen> {
        chosen(&Params::parse(query.as_bytes(), b"").expect("parameters"))
    }

    #[test]
    fn instances_are_named_or_all_are_meant() {
        for all in ["", "instances=", "instances=[]", "consistencyType="] {
            let chosen = read(all).unwrap();
            assert!(chosen.endpoints.is_none() && chosen.kind.is_none(), "{all}");
        }
        let query = r#"consistencyType=persist&instances=[{"ip":"a","port":1,"x":2},{"ip":"b","port":"2","clusterName":"c"}]"#;
        let chosen = read(query).unwrap();
        assert_eq!(chosen.kind, Some(Kind::Persistent));
        let places = [Endpoint::new("a", 1, ""), Endpoint::new("b", 2, "c")];
        assert_eq!(chosen.endpoints, Some(places.into()));
        for wrong in [
            "instances=nope",
            "instances={}",
            r#"instances=[{"ip":"a"}]"#,
            r#"instances=[{"ip":"","port":1}]"#,
            r#"instances=[{"ip":"a","port":70000}]"#,
            r#"instances=[{"ip":"a","port":"70000"}]"#,
            r#"instances=[{"ip":"a","port":"x"}]"#,
            r#"instances=[{"ip":"a","port":[]}]"#,
            "consistencyType=other",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
