//! `/v2/console/namespace`.

use std::sync::Arc;

use super::super::form::Params;
use super::super::reply::{self, JSON, Reply, ResultV2};
use super::super::request::Request;
use super::super::routes::Answer;
use super::super::v1::namespace::{NamespaceJson, check_id};
use crate::error::{Error, Result};
use crate::service::{Caller, Services};

/// GET: one.
pub(in super::super) fn get(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let params = request.params()?;
    check_id(params.get("namespaceId"))?;
    let id = params.get("namespaceId").ok_or(Error::missing("namespaceId"))?;
    let namespace = services.namespace(id)?;
    Ok(Answer::Ready(reply::json(
        JSON,
        &ResultV2::ok(NamespaceJson::from(namespace)),
    )))
}

/// GET `/list`: all.
pub(in super::super) fn list(services: &Arc<Services>, _request: &Request) -> Result<Answer> {
    let all: Vec<_> = services
        .namespaces()
        .into_iter()
        .map(NamespaceJson::from)
        .collect();
    Ok(Answer::Ready(reply::json(JSON, &ResultV2::ok(all))))
}

/// POST: makes one.
pub(in super::super) fn create(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let form = Form::read(request)?;
    let services = Arc::clone(services);
    Ok(Answer::later(async move {
        services
            .create_namespace(&form.id, &form.name, &form.description, &form.caller)
            .await?;
        Ok(done())
    }))
}

/// PUT: renames one.
pub(in super::super) fn update(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let form = Form::read(request)?;
    let services = Arc::clone(services);
    Ok(Answer::later(async move {
        services
            .update_namespace(&form.id, &form.name, &form.description, &form.caller)
            .await?;
        Ok(done())
    }))
}

/// DELETE: deletes one.
pub(in super::super) fn delete(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let params = request.params()?;
    check_id(params.get("namespaceId"))?;
    let id = params
        .get("namespaceId")
        .ok_or(Error::missing("namespaceId"))?
        .to_owned();
    let (services, caller) = (Arc::clone(services), caller(request));
    Ok(Answer::later(async move {
        services.delete_namespace(&id, &caller).await?;
        Ok(done())
    }))
}

struct Form {
    id: String,
    name: String,
    description: String,
    caller: Caller,
}

impl Form {
    fn read(request: &Request) -> Result<Form> {
        let params = request.params()?;
        check_id(params.get("namespaceId"))?;
        Ok(Form {
            id: field(&params, "namespaceId")?,
            name: field(&params, "namespaceName")?,
            description: params.get("namespaceDesc").unwrap_or_default().to_owned(),
            caller: caller(request),
        })
    }
}

fn field(params: &Params<'_>, name: &'static str) -> Result<String> {
    params
        .get(name)
        .map(str::to_owned)
        .ok_or(Error::Missing { name, kind: "" })
}

fn caller(request: &Request) -> Caller {
    Caller {
        user: String::new(),
        ip: request.client_ip(),
    }
}

fn done() -> Reply {
    reply::json(JSON, &ResultV2::ok(true))
}
