//! Registered clients: who they are, what the server keeps for each, and how to push to them.

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::line::Line;
use super::outbox::Outbox;
use super::push::Pushes;
use crate::metrics::Grpc;
use crate::service::Caller;
use crate::shutdown::Shutdown;

/// A client that is registered: it has sent its setup on the stream of its connection.
///
/// It is registered as long as its stream stands. Whoever keeps one for longer finds [`Client::is_gone`].
#[derive(Debug)]
pub struct Client {
    /// `<epochMillis>_<remoteIp>_<remotePort>`, as clients know it and consoles show it.
    pub id: Arc<str>,
    /// Where the connection comes from.
    pub remote: SocketAddr,
    /// What the client said of itself.
    pub setup: Setup,
    /// When it was registered, milliseconds since 1970.
    pub registered_ms: i64,
    pub(super) line: Arc<Line>,
    /// When it was heard last, by [`Line::age_ms`].
    heard_ms: AtomicU64,
    pub(super) pushes: Pushes,
    extensions: Mutex<Option<Extensions>>,
}

/// What a client says of itself when it registers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Setup {
    /// The client's own idea of its address (behind a translation of addresses many share the socket's);
    /// the socket's when it has none.
    pub client_ip: Box<str>,
    /// For example `Nacos-Java-Client:v2.5.1`.
    pub version: Box<str>,
    /// Name of the application, from the labels; may be empty.
    pub app_name: Box<str>,
    /// The namespace, as the client spells it; for listings only.
    pub namespace: Box<str>,
    /// `source`, `module`, `AppName`, `Vipserver-Tag`, `app_<name>` …
    pub labels: BTreeMap<Box<str>, Box<str>>,
    /// What the client can do; `None` when it did not say, as those before 2.3.
    pub abilities: Option<BTreeMap<Box<str>, bool>>,
}

impl Setup {
    /// The value of a label, its name in whatever case.
    pub fn label(&self, name: &str) -> Option<&str> {
        let mut labels = self.labels.iter();
        labels
            .find(|(label, _)| label.eq_ignore_ascii_case(name))
            .map(|(_, value)| &**value)
    }

    /// True when the client says it can.
    pub fn can(&self, ability: &str) -> bool {
        let table = self.abilities.as_ref();
        table
            .and_then(|table| table.get(ability))
            .copied()
            .unwrap_or(false)
    }
}

/// State that handlers keep for a client, by its type.
type Extensions = Vec<(TypeId, Arc<dyn Any + Send + Sync>)>;

impl Client {
    pub(super) fn new(
        id: Arc<str>,
        line: Arc<Line>,
        setup: Setup,
        outbox: Arc<Outbox>,
        metrics: Arc<Grpc>,
    ) -> Client {
        Client {
            id,
            remote: line.remote,
            setup,
            registered_ms: crate::clock::wall_ms(),
            heard_ms: AtomicU64::new(line.age_ms()),
            line,
            pushes: Pushes::new(outbox, metrics),
            extensions: Mutex::new(Some(Extensions::new())),
        }
    }

    /// Who asks, for the services.
    pub fn caller(&self) -> Caller {
        Caller {
            user: String::new(),
            ip: self.setup.client_ip.to_string(),
        }
    }

    /// What is kept of type `T` for this client, made by `init` when there is nothing yet. It is dropped
    /// when the client is unregistered: the one place for what has to end with the connection. `init`
    /// must not ask for an extension itself.
    ///
    /// `None`: the client is gone, and nothing may be kept for it any more (answer
    /// [`super::dispatch::Failure::unregistered`]).
    pub fn extension<T: Any + Send + Sync>(&self, init: impl FnOnce() -> T) -> Option<Arc<T>> {
        let mut extensions = self.extensions();
        let extensions = extensions.as_mut()?;
        let kind = TypeId::of::<T>();
        let kept = extensions.iter().find(|(of, _)| *of == kind);
        if let Some((_, kept)) = kept {
            return Arc::clone(kept).downcast().ok();
        }
        let made = Arc::new(init());
        extensions.push((kind, made.clone()));
        Some(made)
    }

    /// As [`Client::extension`], if it is there.
    pub fn find_extension<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        let extensions = self.extensions();
        let kind = TypeId::of::<T>();
        let (_, kept) = extensions.as_ref()?.iter().find(|(of, _)| *of == kind)?;
        Arc::clone(kept).downcast().ok()
    }

    /// True once it is unregistered.
    pub fn is_gone(&self) -> bool {
        self.extensions().is_none()
    }

    /// Ends the connection; what is kept for the client is dropped soon after.
    pub fn close(&self) {
        self.line.hang_up();
    }

    /// Milliseconds since anything was heard of it.
    pub fn silent_ms(&self) -> u64 {
        self.line.age_ms().saturating_sub(self.heard_ms())
    }

    /// When anything was heard of it last, by [`Line::age_ms`].
    pub(super) fn heard_ms(&self) -> u64 {
        self.heard_ms.load(Ordering::Relaxed)
    }

    pub(super) fn heard(&self) {
        self.heard_ms.store(self.line.age_ms(), Ordering::Relaxed);
    }

    /// Forgets what is kept for it. False when that has happened already.
    fn forget(&self) -> bool {
        let kept = self.extensions().take();
        self.pushes.end();
        // Dropped here and not under the lock: what is dropped may look at the client.
        kept.is_some()
    }

    fn extensions(&self) -> MutexGuard<'_, Option<Extensions>> {
        self.extensions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every registered client of this node.
#[derive(Debug)]
pub struct Registry {
    /// By the number of the line. No larger than the number of connections.
    clients: Mutex<HashMap<u64, Arc<Client>>>,
    metrics: Arc<Grpc>,
    /// Begins when clients are to go.
    stopping: Shutdown,
}

impl Registry {
    pub(super) fn new(metrics: Arc<Grpc>, stopping: Shutdown) -> Registry {
        Registry {
            clients: Mutex::default(),
            metrics,
            stopping,
        }
    }

    /// Everybody who is registered now.
    pub fn clients(&self) -> Vec<Arc<Client>> {
        self.lock().values().cloned().collect()
    }

    /// The client whose connection is called so.
    pub fn find(&self, id: &str) -> Option<Arc<Client>> {
        self.lock().values().find(|client| &*client.id == id).cloned()
    }

    /// Ends every connection: what this node knew of its clients is gone, and they come back.
    pub fn close_all(&self) {
        for client in self.clients() {
            client.close();
        }
    }

    /// How many are registered.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// True when nobody is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn metrics(&self) -> &Arc<Grpc> {
        &self.metrics
    }

    pub(super) fn stopping(&self) -> &Shutdown {
        &self.stopping
    }

    pub(super) fn add(&self, client: Arc<Client>) {
        self.metrics.setups.fetch_add(1, Ordering::Relaxed);
        self.metrics.registered.fetch_add(1, Ordering::Relaxed);
        let before = self.lock().insert(client.line.id, client);
        assert!(before.is_none(), "one stream of a connection stands at a time");
    }

    /// Unregisters: everything kept for the client is dropped before this returns.
    pub(super) fn remove(&self, client: &Client) {
        let removed = self.lock().remove(&client.line.id);
        if removed.is_some() {
            self.metrics.registered.fetch_sub(1, Ordering::Relaxed);
        }
        client.forget();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Client>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
