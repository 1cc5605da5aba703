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
    /// True for one that tells what the log says.
    pub(super) fn tells_log(&self) -> bool {
        matches!(self.access, Access::ConfigRead | Access::NamespaceRead)
    }

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
            Dialect::Plain => {
                reply::reply(status(api_code::status(error)), Some(TEXT), api_code::told(error))
            }
        }
    }

    /// The path is known, the method is not. Recorded for v1: status 500.
    pub(super) fn render_other_method(self, method: &str) -> Reply {
        match self {
            Dialect::V1Config | Dialect::V1Naming | Dialect::V1 | Dialect::V2 => {
                let text = format!("Request method '{}' not supported", api_code::quoted(method));
                let text = format!("caused: {};", api_code::escape(&text));
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                if self != Dialect::V2 {
                    return reply::reply(status, Some(TEXT), text);
                }
                #[derive(serde::Serialize)]
                struct OtherMethodJson {
                    code: u16,
                    message: String,
                    data: Option<()>,
                }
                let body = OtherMethodJson {
                    code: status.as_u16(),
                    message: text,
                    data: None,
                };
                reply::json_with(status, JSON, &body)
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

use self::Access::{
    ConfigRead, ConfigWrite, NamespaceRead, NamespaceWrite, NamingRead, NamingWrite, Open, Operator,
    OperatorWrite,
};
use self::Dialect::{Plain, V1, V1Config, V1Naming, V2};
use self::Verb::{Delete, Get, Patch, Post, Put};

/// One line a route: method and path, what a caller must be allowed to do, how errors are told, who answers.
macro_rules! routes {
    ($($verb:ident $path:literal $access:ident $dialect:ident $handler:path;)*) => {
        &[$(Route { verb: $verb, path: $path, access: $access, dialect: $dialect, handler: $handler },)*]
    };
}

/// Every route.
#[rustfmt::skip]
pub static ROUTES: &[Route] = routes! {
    Get    "/v1/cs/configs"                           ConfigRead     V1Config v1::config::get;
    Post   "/v1/cs/configs"                           ConfigWrite    V1Config v1::config::publish;
    Delete "/v1/cs/configs"                           ConfigWrite    V1Config v1::config::remove;
    Get    "/v1/cs/configs/catalog"                   ConfigRead     V1Config v1::config::catalog;
    Post   "/v1/cs/configs/listener"                  ConfigRead     V1Config v1::listener::poll;
    Get    "/v1/cs/configs/listener"                  ConfigRead     V1Config v1::listener::of_config;
    Get    "/v1/cs/listener"                          ConfigRead     V1Config v1::listener::of_address;
    Get    "/v1/cs/communication/configWatchers"      ConfigRead     V1Config v1::listener::watchers;
    Get    "/v1/cs/communication/watcherConfigs"      ConfigRead     V1Config v1::listener::watched;
    Get    "/v1/cs/history"                           ConfigRead     V1Config v1::history::list_or_detail;
    Get    "/v1/cs/history/previous"                  ConfigRead     V1Config v1::history::previous;
    Get    "/v1/cs/history/configs"                   ConfigRead     V1Config v1::history::configs;
    Get    "/v1/cs/health"                            Open           V1Config operation::config_health;
    Get    "/v1/cs/metrics/current"                   ConfigRead     V1Config v1::client_metrics::current;
    Get    "/v1/cs/metrics/cluster"                   ConfigRead     V1Config v1::client_metrics::cluster;
    Get    "/v1/ns/instance/list"                     NamingRead     V1Naming v1::naming::instance::list;
    Put    "/v1/ns/instance/beat"                     NamingWrite    V1Naming v1::naming::beat::beat;
    Post   "/v1/ns/instance"                          NamingWrite    V1Naming v1::naming::instance::register;
    Delete "/v1/ns/instance"                          NamingWrite    V1Naming v1::naming::instance::deregister;
    Get    "/v1/ns/instance"                          NamingRead     V1Naming v1::naming::instance::detail;
    Get    "/v1/ns/instance/statuses"                 NamingRead     V1Naming v1::naming::instance::statuses;
    Put    "/v1/ns/instance"                          NamingWrite    V1Naming v1::naming::instance::update;
    Patch  "/v1/ns/instance"                          NamingWrite    V1Naming v1::naming::instance::patch;
    Put    "/v1/ns/instance/metadata/batch"           NamingWrite    V1Naming v1::naming::batch::update;
    Delete "/v1/ns/instance/metadata/batch"           NamingWrite    V1Naming v1::naming::batch::delete;
    Post   "/v1/ns/service"                           NamingWrite    V1Naming v1::naming::service::create;
    Put    "/v1/ns/service"                           NamingWrite    V1Naming v1::naming::service::update;
    Delete "/v1/ns/service"                           NamingWrite    V1Naming v1::naming::service::delete;
    Put    "/v1/ns/cluster"                           NamingWrite    V1Naming v1::naming::cluster::update;
    Put    "/v1/ns/health"                            NamingWrite    V1Naming v1::naming::health::update;
    Put    "/v1/ns/health/instance"                   NamingWrite    V1Naming v1::naming::health::update;
    Get    "/v1/ns/service/list"                      NamingRead     V1Naming v1::naming::service::list;
    Get    "/v1/ns/service"                           NamingRead     V1Naming v1::naming::service::detail;
    Get    "/v1/ns/service/names"                     NamingRead     V1Naming v1::naming::service::names;
    Get    "/v1/ns/service/subscribers"               NamingRead     V1Naming v1::naming::service::subscribers;
    Get    "/v1/ns/service/selector/types"            NamingRead     V1Naming v1::naming::service::selector_types;
    Get    "/v1/ns/catalog/service"                   NamingRead     V1Naming v1::naming::catalog::service;
    Get    "/v1/ns/catalog/services"                  NamingRead     V1Naming v1::naming::catalog::services;
    Get    "/v1/ns/catalog/instances"                 NamingRead     V1Naming v1::naming::catalog::instances;
    Get    "/v1/ns/health/checkers"                   Open           V1Naming v1::naming::health::checkers;
    Get    "/v1/ns/health/server"                     Open           V1Naming v1::naming::health::server;
    Get    "/v1/ns/operator/metrics"                  Open           V1Naming v1::naming::operator::metrics;
    Get    "/v1/ns/operator/switches"                 Operator       V1Naming v1::naming::operator::switches;
    Put    "/v1/ns/operator/switches"                 OperatorWrite  V1Naming v1::naming::operator::set_switch;
    Get    "/v1/ns/operator/push/state"               Operator       V1Naming v1::naming::operator::push_state;
    Get    "/v1/ns/operator/distro/client"            Operator       V1Naming v1::naming::operator::responsible;
    Put    "/v1/ns/operator/log"                      OperatorWrite  V1Naming v1::naming::operator::log;
    Get    "/v1/ns/operator/servers"                  Operator       V1Naming v1::naming::operator::servers;
    Get    "/v1/ns/ops/metrics"                       Open           V1Naming v1::naming::operator::metrics;
    Get    "/v1/ns/ops/switches"                      Operator       V1Naming v1::naming::operator::switches;
    Put    "/v1/ns/ops/switches"                      OperatorWrite  V1Naming v1::naming::operator::set_switch;
    Get    "/v1/ns/ops/push/state"                    Operator       V1Naming v1::naming::operator::push_state;
    Get    "/v1/ns/ops/distro/client"                 Operator       V1Naming v1::naming::operator::responsible;
    Put    "/v1/ns/ops/log"                           OperatorWrite  V1Naming v1::naming::operator::log;
    Get    "/v1/ns/ops/servers"                       Operator       V1Naming v1::naming::operator::servers;
    Get    "/v1/console/namespaces"                   NamespaceRead  V1       v1::namespace::get;
    Post   "/v1/console/namespaces"                   NamespaceWrite V1       v1::namespace::create;
    Put    "/v1/console/namespaces"                   NamespaceWrite V1       v1::namespace::update;
    Delete "/v1/console/namespaces"                   NamespaceWrite V1       v1::namespace::delete;
    Get    "/v1/console/health/liveness"              Open           V1       operation::liveness;
    Get    "/v1/console/health/readiness"             Open           V1       operation::readiness;
    Get    "/v1/console/server/state"                 Open           V1       operation::server_state;
    Post   "/v1/auth/login"                           Open           V1       login::login;
    Post   "/v1/auth/users/login"                     Open           V1       login::login;
    Post   "/v3/auth/user/login"                      Open           V2       login::login;
    Get    "/v1/raft/metrics"                         Operator       Plain    operation::raft_metrics;
    Post   "/v2/ns/instance"                          NamingWrite    V2       v2::naming::register;
    Delete "/v2/ns/instance"                          NamingWrite    V2       v2::naming::deregister;
    Put    "/v2/ns/instance"                          NamingWrite    V2       v2::naming::update;
    Patch  "/v2/ns/instance"                          NamingWrite    V2       v2::naming::patch;
    Get    "/v2/ns/instance"                          NamingRead     V2       v2::naming::detail;
    Get    "/v2/ns/instance/list"                     NamingRead     V2       v2::naming::list;
    Get    "/v2/ns/instance/statuses/{key}"           NamingRead     V2       v2::naming::statuses;
    Put    "/v2/ns/instance/beat"                     NamingWrite    V2       v1::naming::beat::beat;
    Put    "/v2/ns/instance/metadata/batch"           NamingWrite    V2       v2::naming::attach;
    Delete "/v2/ns/instance/metadata/batch"           NamingWrite    V2       v2::naming::detach;
    Post   "/v2/ns/service"                           NamingWrite    V2       v2::naming::create_service;
    Put    "/v2/ns/service"                           NamingWrite    V2       v2::naming::update_service;
    Delete "/v2/ns/service"                           NamingWrite    V2       v2::naming::delete_service;
    Get    "/v2/ns/service"                           NamingRead     V2       v2::naming::service;
    Get    "/v2/ns/service/list"                      NamingRead     V2       v2::naming::services;
    Get    "/v2/ns/catalog/instances"                 NamingRead     V2       v2::naming::instances;
    Put    "/v2/ns/health"                            NamingWrite    V2       v2::naming::health;
    Put    "/v2/ns/health/instance"                   NamingWrite    V2       v2::naming::health;
    Get    "/v2/ns/operator/metrics"                  Open           V2       v2::naming::metrics;
    Get    "/v2/ns/operator/switches"                 Operator       V2       v2::naming::switches;
    Put    "/v2/ns/operator/switches"                 OperatorWrite  V2       v2::naming::set_switch;
    Get    "/v2/ns/ops/metrics"                       Open           V2       v2::naming::metrics;
    Get    "/v2/ns/ops/switches"                      Operator       V2       v2::naming::switches;
    Put    "/v2/ns/ops/switches"                      OperatorWrite  V2       v2::naming::set_switch;
    Get    "/v2/ns/client"                            Operator       V2       v2::client::detail;
    Get    "/v2/ns/client/list"                       Operator       V2       v2::client::list;
    Get    "/v2/ns/client/publish/list"               Operator       V2       v2::client::published;
    Get    "/v2/ns/client/subscribe/list"             Operator       V2       v2::client::subscribed;
    Get    "/v2/ns/client/service/publisher/list"     Operator       V2       v2::client::publishers;
    Get    "/v2/ns/client/service/subscriber/list"    Operator       V2       v2::client::subscribers;
    Get    "/v2/ns/client/distro"                     Operator       V2       v2::client::responsible;
    Get    "/v2/core/loader/current"                  Operator       V1       v2::loader::current;
    Get    "/v2/core/loader/reloadCurrent"            OperatorWrite  V1       v2::loader::reload_current;
    Get    "/v2/core/loader/reloadClient"             OperatorWrite  V1       v2::loader::reload_client;
    Get    "/v2/core/loader/cluster"                  Operator       V1       v2::loader::cluster;
    Get    "/v2/core/loader/smartReloadCluster"       OperatorWrite  V1       v2::loader::balance;
    Get    "/v3/admin/core/loader/current"            Operator       V2       v2::loader::current_v3;
    Get    "/v3/admin/core/loader/cluster"            Operator       V2       v2::loader::cluster_v3;
    Post   "/v3/admin/core/loader/reloadCurrent"      OperatorWrite  V2       v2::loader::reload_current_v3;
    Post   "/v3/admin/core/loader/reloadClient"       OperatorWrite  V2       v2::loader::reload_client_v3;
    Post   "/v3/admin/core/loader/smartReloadCluster" OperatorWrite  V2       v2::loader::balance_v3;
    Get    "/v3/admin/cs/metrics/ip"                  ConfigRead     V2       v1::client_metrics::current_v3;
    Get    "/v3/admin/cs/metrics/cluster"             ConfigRead     V2       v1::client_metrics::cluster_v3;
    Get    "/v2/console/namespace"                    NamespaceRead  V2       v2::namespace::get;
    Post   "/v2/console/namespace"                    NamespaceWrite V2       v2::namespace::create;
    Put    "/v2/console/namespace"                    NamespaceWrite V2       v2::namespace::update;
    Delete "/v2/console/namespace"                    NamespaceWrite V2       v2::namespace::delete;
    Get    "/v2/console/namespace/list"               NamespaceRead  V2       v2::namespace::list;
    Get    "/v2/console/health/liveness"              Open           V2       v2::health::liveness;
    Get    "/v2/console/health/readiness"             Open           V2       v2::health::readiness;
    Get    "/"                                        Open           Plain    operation::index;
    Get    "/index.html"                              Open           Plain    operation::index;
    Get    "/actuator/health"                         Open           Plain    operation::actuator_health;
    Get    "/actuator/prometheus"                     Open           Plain    operation::metrics;
    Get    "/health"                                  Open           Plain    operation::health;
    Get    "/metrics"                                 Open           Plain    operation::metrics;
    Get    "/rnacos/health"                           Open           Plain    operation::health;
    Get    "/rnacos/metrics"                          Open           Plain    operation::metrics;
};

/// Rows of GET that are served for any other method, too, as the mappings of the Java server are: probes and scripts
/// send POST there.
pub static WHATEVER_METHOD: &[&str] = &[
    "/v1/ns/catalog/instances",
    "/v1/ns/health/server",
    "/v1/ns/instance/statuses",
    "/v1/ns/operator/push/state",
    "/v1/ns/ops/push/state",
    "/v1/ns/service/names",
    "/v2/ns/catalog/instances",
    "/v2/ns/instance/statuses/{key}",
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
