//! Listening to configs and being told of their changes (contract 01 §4.4, §4.5).

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use proto::nacos::config::{
    ConfigBatchListenRequest, ConfigChangeBatchListenResponse, ConfigChangeNotifyRequest,
    ConfigKey as ChangedKey, ListenContext,
};
use proto::nacos::{Message, Response};
use tokio::sync::oneshot;

use super::{TAG_HEADER, client_tag, name};
use crate::cluster::BoxFuture;
use crate::config::Seen;
use crate::grpc::connection::Client;
use crate::grpc::dispatch::{Answer, Call, Failure, Row, bad_body};
use crate::grpc::gateway::Gateway;
use crate::model::ConfigKey;
use crate::service::listen::Listened;
use crate::service::watch::{ConfigWatch, Courier, Notice, Who};

/// A client acknowledges a notification within this, or it did not arrive (contract 01 §3).
const ACK_WITHIN: Duration = Duration::from_secs(3);

/// The answer borrows from what was found, which lives no longer than the row.
pub(super) const ROWS: &[Row] = &[Row {
    name: ConfigBatchListenRequest::TYPE,
    run: listen,
}];

fn listen(call: Call) -> BoxFuture<'static, Answer> {
    Box::pin(async move {
        let request: ConfigBatchListenRequest<'_> = match call.payload.read() {
            Ok(request) => request,
            Err(error) => return bad_body(&call, &error),
        };
        let id = request.request_id.clone();
        let changed = changed(&call, &request).await;
        let answer = changed.as_deref().map(render).map_err(Clone::clone);
        Answer::of(answer, id)
    })
}

async fn changed(call: &Call, request: &ConfigBatchListenRequest<'_>) -> Result<Vec<Listened>, Failure> {
    let entries = request.config_listen_contexts.iter().map(entry);
    let entries = entries.collect::<Result<Vec<_>, Failure>>()?;
    if request.listen {
        let listening =
            Listening::of(&call.client, &call.gateway, client_tag(call)).ok_or(Failure::unregistered())?;
        let services = call.services();
        return Ok(services
            .listen(&listening.watch, entries, client_tag(call))
            .await?);
    }
    if let Some(listening) = call.client.find_extension::<Listening>() {
        listening.watch.unlisten(entries.iter().map(|entry| &entry.key));
    }
    Ok(Vec::new())
}

fn entry(context: &ListenContext<'_>) -> Result<Listened, Failure> {
    let name = name(&context.tenant, &context.group, &context.data_id);
    Ok(Listened::new(&name, Seen::parse(&context.md5))?)
}

/// The tenant is a text in every case, spelled as it came: SDKs look their own cache up by it, and the
/// Rust one does not read an answer without.
fn render(changed: &[Listened]) -> ConfigChangeBatchListenResponse<'_> {
    let changed = changed.iter().map(|entry| ChangedKey {
        group: entry.key.group().into(),
        data_id: entry.key.data_id().into(),
        tenant: entry.namespace().unwrap_or_default().into(),
    });
    ConfigChangeBatchListenResponse {
        changed_configs: changed.collect(),
        ..ConfigChangeBatchListenResponse::ok()
    }
}

/// The client has read a config over its connection.
pub(super) fn has_read(call: &Call, key: &ConfigKey) {
    if let Some(listening) = call.client.find_extension::<Listening>() {
        listening.watch.has_read(key);
    }
}

/// A client has registered. One that will not say for a while what it listens to is told of changes from now on.
pub(in crate::grpc) fn expect(client: &Arc<Client>, gateway: &Gateway) {
    if who(client, None).comes_silently() {
        let tag = client.setup.label(TAG_HEADER).filter(|tag| !tag.is_empty());
        // Gone already: nobody is told.
        drop(Listening::of(client, gateway, tag));
    }
}

/// The client's stream ends right after this. One that would not notice for seconds is given something to ask for,
/// which it does on its next connection.
pub(in crate::grpc) fn part(client: &Client) {
    let Some(listening) = client.find_extension::<Listening>() else {
        return;
    };
    let Some(key) = listening.watch.parting_key() else {
        return;
    };
    // A client that takes nothing at the moment comes later.
    let _ = client.push_unacknowledged(|id| ConfigChangeNotifyRequest {
        request_id: Some(id),
        data_id: key.data_id().into(),
        group: key.group().into(),
        tenant: (&*client.setup.namespace).into(),
        ..ConfigChangeNotifyRequest::default()
    });
}

fn who<'a>(client: &'a Client, tag: Option<&'a str>) -> Who<'a> {
    Who {
        ip: &client.setup.client_ip,
        tag,
        agent: &client.setup.version,
        module: client.setup.label("module"),
        namespace: &client.setup.namespace,
    }
}

/// What a connection listens to; kept with the connection and dropped with it.
struct Listening {
    watch: Arc<ConfigWatch>,
    /// Dropped with this, which ends the task that notifies.
    _alive: oneshot::Sender<Infallible>,
}

impl Listening {
    /// That of the client, made with the task that notifies it when this is its first listen; `None` when
    /// the client is gone.
    fn of(client: &Arc<Client>, gateway: &Gateway, tag: Option<&str>) -> Option<Arc<Listening>> {
        client.extension(|| {
            let services = Arc::clone(gateway.services());
            let watch = Arc::new(services.open_watch(&who(client, tag)));
            let (alive, gone) = oneshot::channel::<Infallible>();
            let (watched, courier) = (Arc::clone(&watch), ToClient(Arc::clone(client)));
            gateway.stopping.spawn_while_running(async move {
                tokio::select! {
                    _ = gone => {}
                    unresponsive = services.notify(&watched, &courier) => {
                        let client = &courier.0;
                        tracing::info!(remote = %client.remote, "{unresponsive}: the client is disconnected");
                        client.close();
                    }
                }
            });
            Listening { watch, _alive: alive }
        })
    }
}

/// Notifies over the client's stream.
struct ToClient(Arc<Client>);

impl Courier for ToClient {
    fn carry(&self, notice: Notice<'_>) -> impl Future<Output = bool> + Send + use<> {
        let client = Arc::clone(&self.0);
        let (key, namespace) = (notice.key.clone(), Box::<str>::from(notice.namespace));
        async move {
            let pushed = client.push(ACK_WITHIN, |id| ConfigChangeNotifyRequest {
                request_id: Some(id),
                data_id: key.data_id().into(),
                group: key.group().into(),
                tenant: (&*namespace).into(),
                ..ConfigChangeNotifyRequest::default()
            });
            pushed.await.is_ok()
        }
    }
}
