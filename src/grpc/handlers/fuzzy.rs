//! Watching all configs, or all services, that match a pattern (contract 01 §4.6, §5.10). The two differ in the
//! names of their messages and fields.

mod wording;

use std::convert::Infallible;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use proto::nacos::config::{ConfigFuzzyWatchRequest, ConfigFuzzyWatchResponse};
use proto::nacos::naming::{NamingFuzzyWatchRequest, NamingFuzzyWatchResponse};
use proto::nacos::{Response, Text};
use tokio::sync::oneshot;

use self::wording::Wording;
use super::naming;
use crate::grpc::connection::Client;
use crate::grpc::dispatch::{Call, Failure, Row, rows};
use crate::model::{ConfigKey, ServiceKey};
use crate::service::fuzzy::{FuzzyCourier, FuzzyNotice, FuzzyWatch, Watched};

/// A client acknowledges within this, or the push did not arrive (contract 01 §3).
const ACK_WITHIN: Duration = Duration::from_secs(3);

/// Too many patterns: this one is not watched.
const TOO_MANY_PATTERNS: i32 = 50_310;
/// Too many matches: the rest is not told.
const TOO_MANY_MATCHES: i32 = 50_311;

pub(super) const ROWS: &[Row] = rows! {
    ConfigFuzzyWatchRequest => ConfigFuzzyWatchResponse: watch_configs;
    NamingFuzzyWatchRequest => NamingFuzzyWatchResponse: watch_services;
};

async fn watch_configs<'a>(
    call: &'a Call,
    request: ConfigFuzzyWatchRequest<'a>,
) -> Result<ConfigFuzzyWatchResponse<'a>, Failure> {
    let asked = Asked {
        pattern: &request.group_key_pattern,
        kind: &request.watch_type,
        known: &request.received_group_keys,
        initializing: request.initializing,
    };
    watch::<ConfigKey, _>(call, asked).await
}

async fn watch_services<'a>(
    call: &'a Call,
    request: NamingFuzzyWatchRequest<'a>,
) -> Result<NamingFuzzyWatchResponse<'a>, Failure> {
    naming::ready(call).await?;
    let asked = Asked {
        pattern: &request.group_key_pattern,
        kind: &request.watch_type,
        known: &request.received_group_keys,
        initializing: request.initializing,
    };
    watch::<ServiceKey, _>(call, asked).await
}

/// What a client asks, in whatever words.
struct Asked<'r, 'a> {
    pattern: &'r str,
    kind: &'r str,
    known: &'r [Text<'a>],
    initializing: bool,
}

async fn watch<'a, K: Wording, R: Response<'a>>(call: &Call, asked: Asked<'_, '_>) -> Result<R, Failure> {
    match asked.kind {
        "WATCH" => {}
        "CANCEL_WATCH" => {
            if let Some(watching) = call.client.find_extension::<Watching<K>>() {
                watching.watch.cancel(asked.pattern);
            }
            return Ok(R::ok());
        }
        other => {
            let text = format!("Param check invalid:invalid watchType : {other}");
            return Err(Failure::parameter(text));
        }
    }
    let watching = Watching::<K>::of(call).ok_or(Failure::unregistered())?;
    let known = asked.known.iter().map(AsRef::as_ref);
    let services = call.services();
    let watched = services.watch_fuzzy(&watching.watch, asked.pattern, known, asked.initializing);
    let (code, message) = match watched.await? {
        Watched::Whole => return Ok(R::ok()),
        Watched::Partly => (TOO_MANY_MATCHES, K::TOO_MANY_MATCHES),
        Watched::TooMany => (TOO_MANY_PATTERNS, "too many patterns are watched"),
    };
    Ok(R::failed(code, message))
}

/// The patterns a connection watches; kept with the connection and dropped with it.
struct Watching<K: Wording> {
    watch: Arc<FuzzyWatch<K>>,
    /// Dropped with this, which ends the task that notifies.
    _alive: oneshot::Sender<Infallible>,
}

impl<K: Wording> Watching<K> {
    /// That of the client, made with the task that notifies it when this is its first pattern; `None` when
    /// the client is gone.
    fn of(call: &Call) -> Option<Arc<Watching<K>>> {
        let client = &call.client;
        client.extension(|| {
            let watch = Arc::new(call.services().open_fuzzy_watch::<K>());
            let (alive, gone) = oneshot::channel::<Infallible>();
            let courier = ToClient(Arc::clone(client), PhantomData::<fn() -> K>);
            let (services, watched) = (Arc::clone(call.services()), Arc::clone(&watch));
            call.tasks().spawn_while_running(async move {
                tokio::select! {
                    _ = gone => {}
                    () = services.notify_fuzzy(&watched, &courier) => {
                        let client = &courier.0;
                        tracing::info!(remote = %client.remote, "a fuzzy watch was never acknowledged: the client is disconnected");
                        client.close();
                    }
                }
            });
            Watching {
                watch,
                _alive: alive,
            }
        })
    }
}

/// Pushes over the client's stream, in the words for `K`.
struct ToClient<K>(Arc<Client>, PhantomData<fn() -> K>);

impl<K: Wording> FuzzyCourier for ToClient<K> {
    fn carry(&self, notice: FuzzyNotice) -> impl Future<Output = bool> + Send + 'static + use<K> {
        let client = Arc::clone(&self.0);
        async move {
            let pushed = match &notice {
                FuzzyNotice::Change(key, exists) => {
                    let push = client.push(ACK_WITHIN, |id| K::change(id, key, *exists));
                    push.await
                }
                sync => client.push(ACK_WITHIN, |id| K::sync(id, sync)).await,
            };
            pushed.is_ok()
        }
    }
}
