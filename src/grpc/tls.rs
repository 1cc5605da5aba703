//! TLS on the gRPC port: a certificate and its key from two files, taken anew when they change.
//!
//! TLS and clear text share the port; the first byte of a connection tells which it is. Peers use clear text
//! and prove the cluster token; SDKs use what their `tls.enable` says, unless TLS is required of them: then what a
//! client asks in clear text is refused, and its connection ended.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use tokio_rustls::rustls::{self, ServerConfig};
use tokio_rustls::server::TlsStream;
use tracing::{error, info};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Where certificate and key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The chain in PEM, the server's own certificate first.
    pub certificates: PathBuf,
    /// Its key in PEM: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

/// Certificate and key are of no use.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds something else.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// There is no certificate in the file.
    #[error("{} holds no certificate (PEM is expected)", .0.display())]
    Empty(PathBuf),
    /// They do not fit one another, or are of a kind that is not supported.
    #[error("certificate and key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
}

/// The certificate in use.
#[derive(Debug)]
pub struct Tls {
    files: Files,
    config: ArcSwap<ServerConfig>,
    /// Clients have no other choice.
    required: bool,
}

impl Tls {
    /// Reads the files. Waits for the disk.
    ///
    /// # Errors
    /// [`TlsError`], which says what to do.
    pub fn load(files: Files) -> Result<Tls, TlsError> {
        let config = ArcSwap::new(read(&files)?);
        Ok(Tls {
            files,
            config,
            required: false,
        })
    }

    /// Clients in clear text are refused, if `required`.
    #[must_use]
    pub fn required(self, required: bool) -> Tls {
        Tls { required, ..self }
    }

    pub(super) fn is_required(&self) -> bool {
        self.required
    }

    /// Reads the files again. Connections that are open keep what they have. Waits for the disk.
    ///
    /// # Errors
    /// [`TlsError`]; what was in use stays in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.config.store(read(&self.files)?);
        Ok(())
    }

    /// TLS on a connection whose client has begun with it.
    pub(super) async fn accept(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let acceptor = tokio_rustls::TlsAcceptor::from(self.config.load_full());
        acceptor.accept(stream).await
    }

    /// Takes the files anew when they change and when the process gets SIGHUP, for ever.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub async fn follow(self: Arc<Tls>) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut hangup = signal(SignalKind::hangup()).ok();
        let mut seen = self.clone().stamps().await;
        loop {
            let asked = tokio::select! {
                _ = ticks.tick() => false,
                () = next(&mut hangup) => true,
            };
            let now = self.clone().stamps().await;
            if now != seen || asked {
                seen = now;
                self.clone().try_reload().await;
            }
        }
    }

    async fn try_reload(self: Arc<Tls>) {
        let reloaded = tokio::task::spawn_blocking(move || self.reload()).await;
        match reloaded {
            Ok(Ok(())) => info!("the TLS certificate was read again"),
            // The two files of a renewal are not written at one instant: the next change is looked at again.
            Ok(Err(error)) => error!("the TLS certificate stays the one in use: {error}"),
            Err(_) => error!("the TLS certificate stays the one in use: reading it panicked"),
        }
    }

    /// By which a change of the files is seen.
    async fn stamps(self: Arc<Tls>) -> [Option<(SystemTime, u64)>; 2] {
        let stamps = move || [stamp(&self.files.certificates), stamp(&self.files.key)];
        tokio::task::spawn_blocking(stamps).await.unwrap_or_default()
    }
}

async fn next(hangup: &mut Option<tokio::signal::unix::Signal>) {
    match hangup {
        Some(hangup) => drop(hangup.recv().await),
        None => std::future::pending().await,
    }
}

fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let about = std::fs::metadata(path).ok()?;
    Some((about.modified().ok()?, about.len()))
}

fn read(files: &Files) -> Result<Arc<ServerConfig>, TlsError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::File { path, source }
    };
    let certificates = CertificateDer::pem_file_iter(&files.certificates)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(failed(&files.certificates))?;
    if certificates.is_empty() {
        return Err(TlsError::Empty(files.certificates.clone()));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(failed(&files.key))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}
