//! Watching all configs that match a pattern (contract 01 §4.6).

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use proto::nacos::Response;
use proto::nacos::config::{
    ConfigFuzzyWatchChangeNotifyRequest, ConfigFuzzyWatchRequest, ConfigFuzzyWatchResponse,
    ConfigFuzzyWatchSyncRequest, FuzzyWatchContext,
};
use tokio::sync::oneshot;

use crate::grpc::connection::Client;
use crate::grpc::dispatch::{Call, Failure, Row, rows};
use crate::grpc::push::PushError;
use crate::service::fuzzy::{FuzzyCourier, FuzzyNotice, FuzzyWatch, Watched};

/// A client acknowledges within this, or the push did not arrive (contract 01 §3).
const ACK_WITHIN: Duration = Duration::from_secs(3);

/// Too many patterns: this one is not watched.
const TOO_MANY_PATTERNS: i32 = 50_310;
/// Too many matches: the rest is not told.
const TOO_MANY_MATCHES: i32 = 50_311;

pub(super) const ROWS: &[Row] = rows! {
    ConfigFuzzyWatchRequest => ConfigFuzzyWatchResponse: watch;
};

async fn watch<'a>(
    call: &'a Call,
    request: ConfigFuzzyWatchRequest<'a>,
) -> Result<ConfigFuzzyWatchResponse<'a>, Failure> {
    let pattern = &*request.group_key_pattern;
    match &*request.watch_type {
        "WATCH" => {}
        "CANCEL_WATCH" => {
            if let Some(watching) = call.client.find_extension::<Watching>() {
                watching.watch.cancel(pattern);
            }
            return Ok(ConfigFuzzyWatchResponse::ok());
        }
        other => {
            let text = format!("Param check invalid:invalid watchType : {other}");
            return Err(Failure::parameter(text));
        }
    }
    let watching = Watching::of(call).ok_or(Failure::unregistered())?;
    let known = request.received_group_keys.iter().map(AsRef::as_ref);
    let services = call.services();
    let watched = services.watch_fuzzy(&watching.watch, pattern, known, request.initializing);
    let (code, message) = match watched.await? {
        Watched::Whole => return Ok(ConfigFuzzyWatchResponse::ok()),
        Watched::Partly => (TOO_MANY_MATCHES, "the pattern matches too many configs"),
        Watched::TooMany => (TOO_MANY_PATTERNS, "too many patterns are watched"),
    };
    Ok(ConfigFuzzyWatchResponse::failed(code, message))
}

/// The patterns a connection watches; kept with the connection and dropped with it.
struct Watching {
    watch: Arc<FuzzyWatch>,
    /// Dropped with this, which ends the task that notifies.
    _alive: oneshot::Sender<Infallible>,
}

impl Watching {
    /// That of the client, made with the task that notifies it when this is its first pattern; `None` when
    /// the client is gone.
    fn of(call: &Call) -> Option<Arc<Watching>> {
        let client = &call.client;
        client.extension(|| {
            let watch = Arc::new(call.services().open_fuzzy_watch());
            let (alive, gone) = oneshot::channel::<Infallible>();
            let (services, courier) = (Arc::clone(call.services()), ToClient(Arc::clone(client)));
            let watched = Arc::clone(&watch);
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

/// Pushes over the client's stream.
struct ToClient(Arc<Client>);

impl FuzzyCourier for ToClient {
    fn carry(&self, notice: FuzzyNotice) -> impl Future<Output = bool> + Send + use<> {
        let client = Arc::clone(&self.0);
        async move {
            let pushed = match &notice {
                FuzzyNotice::Change(key, exists) => push_change(&client, key, *exists).await,
                sync => push_sync(&client, sync).await,
            };
            pushed.is_ok()
        }
    }
}

async fn push_change(client: &Client, key: &str, exists: bool) -> Result<(), PushError> {
    let push = client.push(ACK_WITHIN, |id| ConfigFuzzyWatchChangeNotifyRequest {
        request_id: Some(id),
        group_key: key.into(),
        change_type: changed_type(exists).into(),
        ..ConfigFuzzyWatchChangeNotifyRequest::default()
    });
    push.await
}

async fn push_sync(client: &Client, notice: &FuzzyNotice) -> Result<(), PushError> {
    let push = client.push(ACK_WITHIN, |id| {
        let sync = match notice {
            FuzzyNotice::Batch {
                pattern,
                initializing,
                contexts,
                number: (current, total),
            } => ConfigFuzzyWatchSyncRequest {
                group_key_pattern: (&**pattern).into(),
                contexts: contexts.iter().map(context).collect(),
                sync_type: sync_type(*initializing).into(),
                // A sync has at most 1,500 names.
                total_batch: i32::try_from(*total).unwrap_or(i32::MAX),
                current_batch: i32::try_from(*current).unwrap_or(i32::MAX),
                ..ConfigFuzzyWatchSyncRequest::default()
            },
            FuzzyNotice::Finished { pattern } => ConfigFuzzyWatchSyncRequest {
                group_key_pattern: (&**pattern).into(),
                sync_type: "FINISH_FUZZY_WATCH_INIT_NOTIFY".into(),
                ..ConfigFuzzyWatchSyncRequest::default()
            },
            FuzzyNotice::Change(..) => ConfigFuzzyWatchSyncRequest::default(),
        };
        ConfigFuzzyWatchSyncRequest {
            request_id: Some(id),
            ..sync
        }
    });
    push.await
}

fn context((key, exists): &(String, bool)) -> FuzzyWatchContext<'_> {
    FuzzyWatchContext {
        group_key: key.as_str().into(),
        changed_type: changed_type(*exists).into(),
    }
}

fn sync_type(initializing: bool) -> &'static str {
    match initializing {
        true => "FUZZY_WATCH_INIT_NOTIFY",
        false => "FUZZY_WATCH_DIFF_SYNC_NOTIFY",
    }
}

fn changed_type(exists: bool) -> &'static str {
    match exists {
        true => "ADD_CONFIG",
        false => "DELETE_CONFIG",
    }
}
