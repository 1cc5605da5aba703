//! The table of routes: one row each, and what rows have in common. Documentation, authorization and
//! metrics walk it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use http::StatusCode;

use super::reply::{self, JSON, JSON_UTF8, Reply, ResultV2, TEXT};
use super::request::Request;
use super::{login, operation, v1, v2};
use crate::api_code;
use crate::error::{Error, Result};
use crate::service::Services;

/// A row.
#[derive(Debug)]
pub struct Route {
    /// Method.
    pub verb: Verb,
    /// Path below the context `/nacos`.
    pub path: &'static str,
    /// What a caller must be allowed to do.
    pub access: Access,
    /// How errors are told.
    pub(super) dialect: Dialect,
    pub(super) handler: Handler,
}

impl Route {
    /// True for a route of the registry, in any generation of the API.
    pub(super) fn is_naming(&self) -> bool {
        matches!(self.access, Access::NamingRead | Access::NamingWrite) || self.dialect == Dialect::V1Naming
    }
}

/// Methods that routes have; HEAD is served as GET.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// GET
    Get,
    /// POST
    Post,
    /// PUT
    Put,
    /// DELETE
    Delete,
    /// PATCH
    Patch,
}

impl Verb {
    pub(super) const COUNT: usize = 5;

    /// As it stands in a request line.
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Get => "GET",
            Verb::Post => "POST",
            Verb::Put => "PUT",
            Verb::Delete => "DELETE",
            Verb::Patch => "PATCH",
        }
    }
}

/// What a caller must be allowed to do. Nothing checks it yet: there are no users. It stands here so that
/// no route is ever added without saying it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody: health, state, metrics.
    Open,
    /// Reads a config.
    ConfigRead,
    /// Writes a config.
    ConfigWrite,
    /// Reads services and instances.
    NamingRead,
    /// Registers, beats, deregisters; changes services, clusters and instances.
    NamingWrite,
    /// Reads namespaces.
    NamespaceRead,
    /// Writes namespaces.
    NamespaceWrite,
    /// Looks at the cluster.
    Operator,
    /// Changes something of the cluster or of who is connected to it.
    OperatorWrite,
}

/// How errors are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// API v1 below `/v1/cs`: text.
    V1Config,
    /// API v1 below `/v1/ns`: bare text, and nothing while the registry begins.
    V1Naming,
    /// The rest of v1: text.
    V1,
    /// API v2: `{code,message,data}`.
    V2,
    /// Not of Nacos: text and ordinary statuses.
    Plain,
}

impl Dialect {
    /// An error in its words.
    pub(super) fn render(self, error: &Error) -> Reply {
        let status = |status: u16| StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if matches!(error, Error::Illegal(_)) && self != Dialect::Plain {
            // One filter tells these in all generations; only below /v1/cs does the answer have a type.
            let told = api_code::v1(error);
            let content_type = (self == Dialect::V1Config).then_some(JSON_UTF8);
            let mut reply = reply::reply(status(told.status), content_type, told.text);
            v1::no_cache(reply.headers_mut());
            return reply;
        }
        match self {
            Dialect::V1Config | Dialect::V1 => {
                let told = api_code::v1(error);
                reply::reply(status(told.status), Some(TEXT), told.text)
            }
            Dialect::V1Naming => {
                let told = api_code::v1_naming(error);
                reply::reply(status(told.status), Some(TEXT), told.text)
            }
            Dialect::V2 => {
                let told = api_code::v2(error);
                let body = ResultV2 {
                    code: told.code,
                    message: told.message,
                    data: told.data,
                };
                reply::json_with(status(told.status), JSON, &body)
            }
            Dialect::Plain => reply::reply(status(api_code::status(error)), Some(TEXT), error.to_string()),
        }
    }

    /// The path is known, the method is not. Recorded for v1: status 500.
    pub(super) fn render_other_method(self, method: &str) -> Reply {
        match self {
            Dialect::V1Config | Dialect::V1Naming | Dialect::V1 | Dialect::V2 => {
                let text = format!("Request method '{method}' not supported");
                let text = format!("caused: {};", api_code::escape(&text));
                reply::reply(StatusCode::INTERNAL_SERVER_ERROR, Some(TEXT), text)
            }
            Dialect::Plain => reply::reply(
                StatusCode::METHOD_NOT_ALLOWED,
                Some(TEXT),
                "this method is not served here",
            ),
        }
    }
}

/// What a handler gives back: most are done at once, and then nothing is allocated for waiting.
pub(super) enum Answer {
    /// Done.
    Ready(Reply),
    /// Waits for the cluster, or for a thread that may block.
    Later(Pin<Box<dyn Future<Output = Result<Reply>> + Send>>),
}

impl Answer {
    pub(super) fn later(reply: impl Future<Output = Result<Reply>> + Send + 'static) -> Answer {
        Answer::Later(Box::pin(reply))
    }

    /// For work that reads tables or many configs: it goes to a thread where waiting is allowed.
    pub(super) fn blocking(
        services: &Arc<Services>,
        work: impl FnOnce(&Services) -> Result<Reply> + Send + 'static,
    ) -> Answer {
        let services = Arc::clone(services);
        Answer::later(async move {
            let work = tokio::task::spawn_blocking(move || work(&services));
            work.await
                .unwrap_or_else(|error| Err(Error::Internal(error.to_string())))
        })
    }
}

/// A handler: parses, calls the service layer, renders.
pub(super) type Handler = fn(&Arc<Services>, &Request) -> Result<Answer>;

const fn row(verb: Verb, path: &'static str, access: Access, dialect: Dialect, handler: Handler) -> Route {
    Route {
        verb,
        path,
        access,
        dialect,
        handler,
    }
}

use self::Access::{
    ConfigRead, ConfigWrite, NamespaceRead, NamespaceWrite, NamingRead, NamingWrite, Open, Operator,
    OperatorWrite,
};
use self::Dialect::{Plain, V1, V1Config, V1Naming, V2};
use self::Verb::{Delete, Get, Patch, Post, Put};

/// Every route.
pub static ROUTES: &[Route] = &[
    row(Get, "/v1/cs/configs", ConfigRead, V1Config, v1::config::get),
    row(Post, "/v1/cs/configs", ConfigWrite, V1Config, v1::config::publish),
    row(
        Delete,
        "/v1/cs/configs",
        ConfigWrite,
        V1Config,
        v1::config::remove,
    ),
    row(
        Get,
        "/v1/cs/configs/catalog",
        ConfigRead,
        V1Config,
        v1::config::catalog,
    ),
    row(
        Post,
        "/v1/cs/configs/listener",
        ConfigRead,
        V1Config,
        v1::listener::poll,
    ),
    row(
        Get,
        "/v1/cs/configs/listener",
        ConfigRead,
        V1Config,
        v1::listener::of_config,
    ),
    row(
        Get,
        "/v1/cs/listener",
        ConfigRead,
        V1Config,
        v1::listener::of_address,
    ),
    row(
        Get,
        "/v1/cs/communication/configWatchers",
        ConfigRead,
        V1Config,
        v1::listener::watchers,
    ),
    row(
        Get,
        "/v1/cs/communication/watcherConfigs",
        ConfigRead,
        V1Config,
        v1::listener::watched,
    ),
    row(
        Get,
        "/v1/cs/history",
        ConfigRead,
        V1Config,
        v1::history::list_or_detail,
    ),
    row(
        Get,
        "/v1/cs/history/previous",
        ConfigRead,
        V1Config,
        v1::history::previous,
    ),
    row(
        Get,
        "/v1/cs/history/configs",
        ConfigRead,
        V1Config,
        v1::history::configs,
    ),
    row(Get, "/v1/cs/health", Open, V1Config, operation::config_health),
    row(
        Get,
        "/v1/ns/instance/list",
        NamingRead,
        V1Naming,
        v1::naming::instance::list,
    ),
    row(
        Put,
        "/v1/ns/instance/beat",
        NamingWrite,
        V1Naming,
        v1::naming::beat::beat,
    ),
    row(
        Post,
        "/v1/ns/instance",
        NamingWrite,
        V1Naming,
        v1::naming::instance::register,
    ),
    row(
        Delete,
        "/v1/ns/instance",
        NamingWrite,
        V1Naming,
        v1::naming::instance::deregister,
    ),
    row(
        Get,
        "/v1/ns/instance",
        NamingRead,
        V1Naming,
        v1::naming::instance::detail,
    ),
    row(
        Get,
        "/v1/ns/instance/statuses",
        NamingRead,
        V1Naming,
        v1::naming::instance::statuses,
    ),
    row(
        Put,
        "/v1/ns/instance",
        NamingWrite,
        V1Naming,
        v1::naming::instance::update,
    ),
    row(
        Patch,
        "/v1/ns/instance",
        NamingWrite,
        V1Naming,
        v1::naming::instance::patch,
    ),
    row(
        Put,
        "/v1/ns/instance/metadata/batch",
        NamingWrite,
        V1Naming,
        v1::naming::batch::update,
    ),
    row(
        Delete,
        "/v1/ns/instance/metadata/batch",
        NamingWrite,
        V1Naming,
        v1::naming::batch::delete,
    ),
    row(
        Post,
        "/v1/ns/service",
        NamingWrite,
        V1Naming,
        v1::naming::service::create,
    ),
    row(
        Put,
        "/v1/ns/service",
        NamingWrite,
        V1Naming,
        v1::naming::service::update,
    ),
    row(
        Delete,
        "/v1/ns/service",
        NamingWrite,
        V1Naming,
        v1::naming::service::delete,
    ),
    row(
        Put,
        "/v1/ns/cluster",
        NamingWrite,
        V1Naming,
        v1::naming::cluster::update,
    ),
    row(
        Put,
        "/v1/ns/health",
        NamingWrite,
        V1Naming,
        v1::naming::health::update,
    ),
    row(
        Put,
        "/v1/ns/health/instance",
        NamingWrite,
        V1Naming,
        v1::naming::health::update,
    ),
    row(
        Get,
        "/v1/ns/service/list",
        NamingRead,
        V1Naming,
        v1::naming::service::list,
    ),
    row(
        Get,
        "/v1/ns/service",
        NamingRead,
        V1Naming,
        v1::naming::service::detail,
    ),
    row(
        Get,
        "/v1/ns/service/names",
        NamingRead,
        V1Naming,
        v1::naming::service::names,
    ),
    row(
        Get,
        "/v1/ns/service/subscribers",
        NamingRead,
        V1Naming,
        v1::naming::service::subscribers,
    ),
    row(
        Get,
        "/v1/ns/service/selector/types",
        NamingRead,
        V1Naming,
        v1::naming::service::selector_types,
    ),
    row(
        Get,
        "/v1/ns/catalog/service",
        NamingRead,
        V1Naming,
        v1::naming::catalog::service,
    ),
    row(
        Get,
        "/v1/ns/catalog/services",
        NamingRead,
        V1Naming,
        v1::naming::catalog::services,
    ),
    row(
        Get,
        "/v1/ns/catalog/instances",
        NamingRead,
        V1Naming,
        v1::naming::catalog::instances,
    ),
    row(
        Get,
        "/v1/ns/health/checkers",
        Open,
        V1Naming,
        v1::naming::health::checkers,
    ),
    row(
        Get,
        "/v1/ns/health/server",
        Open,
        V1Naming,
        v1::naming::health::server,
    ),
    row(
        Get,
        "/v1/ns/operator/metrics",
        Open,
        V1Naming,
        v1::naming::operator::metrics,
    ),
    row(
        Get,
        "/v1/ns/operator/switches",
        Operator,
        V1Naming,
        v1::naming::operator::switches,
    ),
    row(
        Put,
        "/v1/ns/operator/switches",
        OperatorWrite,
        V1Naming,
        v1::naming::operator::set_switch,
    ),
    row(
        Get,
        "/v1/ns/operator/push/state",
        Operator,
        V1Naming,
        v1::naming::operator::push_state,
    ),
    row(
        Get,
        "/v1/ns/operator/distro/client",
        Operator,
        V1Naming,
        v1::naming::operator::responsible,
    ),
    row(
        Put,
        "/v1/ns/operator/log",
        OperatorWrite,
        V1Naming,
        v1::naming::operator::log,
    ),
    row(
        Get,
        "/v1/ns/ops/metrics",
        Open,
        V1Naming,
        v1::naming::operator::metrics,
    ),
    row(
        Get,
        "/v1/ns/ops/switches",
        Operator,
        V1Naming,
        v1::naming::operator::switches,
    ),
    row(
        Put,
        "/v1/ns/ops/switches",
        OperatorWrite,
        V1Naming,
        v1::naming::operator::set_switch,
    ),
    row(
        Get,
        "/v1/ns/ops/push/state",
        Operator,
        V1Naming,
        v1::naming::operator::push_state,
    ),
    row(
        Get,
        "/v1/ns/ops/distro/client",
        Operator,
        V1Naming,
        v1::naming::operator::responsible,
    ),
    row(
        Put,
        "/v1/ns/ops/log",
        OperatorWrite,
        V1Naming,
        v1::naming::operator::log,
    ),
    row(
        Get,
        "/v1/console/namespaces",
        NamespaceRead,
        V1,
        v1::namespace::get,
    ),
    row(
        Post,
        "/v1/console/namespaces",
        NamespaceWrite,
        V1,
        v1::namespace::create,
    ),
    row(
        Put,
        "/v1/console/namespaces",
        NamespaceWrite,
        V1,
        v1::namespace::update,
    ),
    row(
        Delete,
        "/v1/console/namespaces",
        NamespaceWrite,
        V1,
        v1::namespace::delete,
    ),
    row(Get, "/v1/console/health/liveness", Open, V1, operation::liveness),
    row(
        Get,
        "/v1/console/health/readiness",
        Open,
        V1,
        operation::readiness,
    ),
    row(Get, "/v1/console/server/state", Open, V1, operation::server_state),
    row(Post, "/v1/auth/login", Open, V1, login::login),
    row(Post, "/v1/auth/users/login", Open, V1, login::login),
    row(Post, "/v3/auth/user/login", Open, V2, login::login),
    row(Get, "/v1/raft/metrics", Operator, Plain, operation::raft_metrics),
    row(Post, "/v2/ns/instance", NamingWrite, V2, v2::naming::register),
    row(Delete, "/v2/ns/instance", NamingWrite, V2, v2::naming::deregister),
    row(Put, "/v2/ns/instance", NamingWrite, V2, v2::naming::update),
    row(
        Patch,
        "/v2/ns/instance",
        NamingWrite,
        V2,
        v1::naming::instance::patch,
    ),
    row(Get, "/v2/ns/instance", NamingRead, V2, v2::naming::detail),
    row(Get, "/v2/ns/instance/list", NamingRead, V2, v2::naming::list),
    row(
        Put,
        "/v2/ns/instance/beat",
        NamingWrite,
        V2,
        v1::naming::beat::beat,
    ),
    row(
        Put,
        "/v2/ns/instance/metadata/batch",
        NamingWrite,
        V2,
        v2::naming::attach,
    ),
    row(
        Delete,
        "/v2/ns/instance/metadata/batch",
        NamingWrite,
        V2,
        v2::naming::detach,
    ),
    row(
        Post,
        "/v2/ns/service",
        NamingWrite,
        V2,
        v2::naming::create_service,
    ),
    row(Put, "/v2/ns/service", NamingWrite, V2, v2::naming::update_service),
    row(
        Delete,
        "/v2/ns/service",
        NamingWrite,
        V2,
        v2::naming::delete_service,
    ),
    row(Get, "/v2/ns/service", NamingRead, V2, v2::naming::service),
    row(Get, "/v2/ns/service/list", NamingRead, V2, v2::naming::services),
    row(
        Get,
        "/v2/ns/catalog/instances",
        NamingRead,
        V2,
        v2::naming::instances,
    ),
    row(Put, "/v2/ns/health", NamingWrite, V2, v2::naming::health),
    row(Put, "/v2/ns/health/instance", NamingWrite, V2, v2::naming::health),
    row(Get, "/v2/ns/operator/metrics", Open, V2, v2::naming::metrics),
    row(
        Get,
        "/v2/ns/operator/switches",
        Operator,
        V2,
        v2::naming::switches,
    ),
    row(
        Put,
        "/v2/ns/operator/switches",
        OperatorWrite,
        V2,
        v2::naming::set_switch,
    ),
    row(Get, "/v2/ns/ops/metrics", Open, V2, v2::naming::metrics),
    row(Get, "/v2/ns/ops/switches", Operator, V2, v2::naming::switches),
    row(
        Put,
        "/v2/ns/ops/switches",
        OperatorWrite,
        V2,
        v2::naming::set_switch,
    ),
    row(Get, "/v2/core/loader/current", Operator, V1, v2::loader::current),
    row(
        Get,
        "/v2/core/loader/reloadCurrent",
        OperatorWrite,
        V1,
        v2::loader::reload_current,
    ),
    row(
        Get,
        "/v2/core/loader/reloadClient",
        OperatorWrite,
        V1,
        v2::loader::reload_client,
    ),
    row(
        Get,
        "/v2/console/namespace",
        NamespaceRead,
        V2,
        v2::namespace::get,
    ),
    row(
        Post,
        "/v2/console/namespace",
        NamespaceWrite,
        V2,
        v2::namespace::create,
    ),
    row(
        Put,
        "/v2/console/namespace",
        NamespaceWrite,
        V2,
        v2::namespace::update,
    ),
    row(
        Delete,
        "/v2/console/namespace",
        NamespaceWrite,
        V2,
        v2::namespace::delete,
    ),
    row(
        Get,
        "/v2/console/namespace/list",
        NamespaceRead,
        V2,
        v2::namespace::list,
    ),
    row(Get, "/v2/console/health/liveness", Open, V2, v2::health::liveness),
    row(
        Get,
        "/v2/console/health/readiness",
        Open,
        V2,
        v2::health::readiness,
    ),
    row(Get, "/", Open, Plain, operation::index),
    row(Get, "/index.html", Open, Plain, operation::index),
    row(Get, "/actuator/health", Open, Plain, operation::actuator_health),
    row(Get, "/actuator/prometheus", Open, Plain, operation::metrics),
    row(Get, "/health", Open, Plain, operation::health),
    row(Get, "/metrics", Open, Plain, operation::metrics),
    row(Get, "/rnacos/health", Open, Plain, operation::health),
    row(Get, "/rnacos/metrics", Open, Plain, operation::metrics),
];

/// The routes as a table in Markdown, for docs/operations.md.
pub fn markdown() -> String {
    let mut text = String::from("| Method | Path below `/nacos` | Access |\n|---|---|---|\n");
    for route in ROUTES {
        text.push_str(&format!(
            "| {} | `{}` | {:?} |\n",
            route.verb.as_str(),
            route.path,
            route.access
        ));
    }
    text
}
