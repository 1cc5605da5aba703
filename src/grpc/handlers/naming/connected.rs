//! The registry's view of a client: kept with its connection, and taken back with it.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proto::nacos::naming::NotifySubscriberRequest;
use proto::nacos::remote::ClientDetectionRequest;
use proto::nacos::{Message, Text, TextMap};
use serde::Serialize;
use tokio::sync::oneshot;

use super::SERVICE_INFO;
use crate::grpc::connection::Client;
use crate::grpc::dispatch::{Call, Failure};
use crate::grpc::push::PushError;
use crate::service::naming_client::{NamingClient, Who};
use crate::service::naming_watch::NamingCourier;

/// A client acknowledges a push, and says that it lives, within this (contract 01 §3).
const ACK_WITHIN: Duration = Duration::from_secs(5);

/// A client that has registered or subscribed.
pub(super) struct Connected {
    pub(super) client: Arc<NamingClient>,
    /// Dropped with this, which ends the task that serves it.
    _alive: oneshot::Sender<Infallible>,
}

impl Drop for Connected {
    /// What the client registered ends here, and not with the task: a connection that is gone counts at once.
    fn drop(&mut self) {
        self.client.leave();
    }
}

impl Connected {
    /// That of the caller, made with the task that serves it when it registers or subscribes first.
    pub(super) fn of(call: &Call) -> Result<Arc<Connected>, Failure> {
        let client = &call.client;
        let connected = client.extension(|| {
            let naming = Arc::new(call.services().open_naming(who(client)));
            let (alive, gone) = oneshot::channel::<Infallible>();
            let (services, courier) = (Arc::clone(call.services()), ToClient(Arc::clone(client)));
            let served = Arc::clone(&naming);
            call.tasks().spawn_while_running(async move {
                tokio::select! {
                    _ = gone => {}
                    () = services.serve_naming(&served, &courier) => {}
                }
            });
            Connected {
                client: naming,
                _alive: alive,
            }
        });
        connected.ok_or(Failure::unregistered())
    }
}

fn who(client: &Client) -> Who {
    Who {
        id: Arc::clone(&client.id),
        ip: client.setup.client_ip.clone(),
        port: client.remote.port(),
        agent: client.setup.version.clone(),
        app: client.setup.app_name.clone(),
    }
}

/// Pushes over the client's stream.
struct ToClient(Arc<Client>);

impl NamingCourier for ToClient {
    fn carry(&self, service: Bytes) -> impl Future<Output = bool> + Send + use<> {
        let client = Arc::clone(&self.0);
        async move {
            let pushed = client.push_with(ACK_WITHIN, Notification::new, (SERVICE_INFO, service));
            pushed.await.is_ok()
        }
    }

    fn prove(&self) -> impl Future<Output = bool> + Send + use<> {
        let client = Arc::clone(&self.0);
        async move {
            let asked = client.push(ACK_WITHIN, |id| ClientDetectionRequest {
                request_id: Some(id),
                ..ClientDetectionRequest::default()
            });
            match asked.await {
                // An error is an answer: somebody is there.
                Ok(()) | Err(PushError::Refused { .. }) => true,
                Err(PushError::Busy | PushError::Gone) => false,
                Err(PushError::Late) => {
                    tracing::info!(id = %client.id, "a client does not say that it lives, though another node says that it is gone: its connection is closed");
                    client.close();
                    false
                }
            }
        }
    }
}

/// A [`NotifySubscriberRequest`] without the service, whose JSON is put in as it is.
#[derive(Serialize)]
struct Notification {
    module: &'static str,
    #[serde(rename = "requestId")]
    request_id: Text<'static>,
    headers: TextMap<'static>,
}

impl Notification {
    fn new(request_id: Text<'static>) -> Notification {
        Notification {
            module: "naming",
            request_id,
            headers: TextMap::new(),
        }
    }
}

impl Message for Notification {
    const TYPE: &'static str = NotifySubscriberRequest::TYPE;

    fn json_size(&self) -> usize {
        64 + self.request_id.len()
    }
}
