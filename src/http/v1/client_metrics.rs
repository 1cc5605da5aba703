//! `/v1/cs/metrics`, and the same below `/v3/admin/cs`: what clients say they hold of a config. For operators who
//! wonder why an application does not see what was published.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::super::form::Params;
use super::super::reply::{self, JSON, Reply, ResultV2};
use super::super::request::Request;
use super::super::routes::Answer;
use super::name;
use crate::error::{Error, Result};
use crate::service::Services;
use crate::service::clients::Metered;

type Told = BTreeMap<String, Value>;

/// GET `/current`: of the clients of this node.
pub(in super::super) fn current(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    here(services, request, |told| reply::json(JSON, told))
}

/// GET `/ip`.
pub(in super::super) fn current_v3(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    here(services, request, |told| reply::json(JSON, &ResultV2::ok(told)))
}

fn here(services: &Arc<Services>, request: &Request, tell: fn(&Told) -> Reply) -> Result<Answer> {
    let asked = asked(&request.params()?)?;
    let services = Arc::clone(services);
    Ok(Answer::later(async move {
        Ok(tell(&services.client_metrics_here(&asked).await))
    }))
}

/// GET `/cluster`: of the clients of all nodes.
pub(in super::super) fn cluster(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    everywhere(services, request, |told| reply::json(JSON, told))
}

/// GET `/cluster`. Recorded: a result within a result.
pub(in super::super) fn cluster_v3(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    everywhere(services, request, |told| {
        reply::json(JSON, &ResultV2::ok(ResultV2::ok(told)))
    })
}

fn everywhere(services: &Arc<Services>, request: &Request, tell: fn(&Told) -> Reply) -> Result<Answer> {
    let asked = asked(&request.params()?)?;
    let services = Arc::clone(services);
    Ok(Answer::later(async move {
        Ok(tell(&services.client_metrics(asked).await))
    }))
}

/// Whose word is asked for, and on what; without a config clients tell of themselves alone.
fn asked(params: &Params<'_>) -> Result<Metered> {
    let ip = params.get("ip").ok_or(Error::missing("ip"))?.trim().to_owned();
    crate::model::validate::ip(&ip).map_err(|invalid| Error::Illegal(invalid.to_string()))?;
    let is_named = params.get("dataId").is_some_and(|name| !name.trim().is_empty());
    let keys = if is_named {
        let key = name(params).key()?;
        let named = format!("{}+{}", key.data_id(), key.group());
        match key.namespace() {
            // Clients of 2.x leave the default namespace out, those of 3.x call it so.
            "" => vec![named.clone(), format!("{named}+public")],
            namespace => vec![format!("{named}+{namespace}")],
        }
    } else {
        Vec::new()
    };
    Ok(Metered { ip, keys })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Metered> {
        asked(&Params::parse(query.as_bytes(), b"").expect("parameters"))
    }

    #[test]
    fn a_config_is_asked_for_in_every_spelling_of_its_namespace() {
        let keys = |query| read(query).map(|asked| asked.keys);
        assert_eq!(keys("ip=10.0.0.1"), Ok(vec![]));
        let default = Ok(vec!["d+g".to_owned(), "d+g+public".to_owned()]);
        assert_eq!(keys("ip=a&dataId=d&group=g"), default);
        assert_eq!(keys("ip=a&dataId=d&groupName=g&namespaceId=public"), default);
        assert_eq!(
            keys("ip=a&dataId=d&group=g&tenant=n"),
            Ok(vec!["d+g+n".to_owned()])
        );
        assert!(matches!(
            read("dataId=d&group=g"),
            Err(Error::Missing { name: "ip", .. })
        ));
        assert!(read("ip=a&dataId=d%20e&group=g").is_err());
        assert!(read("ip=a%20b").is_err());
    }
}
