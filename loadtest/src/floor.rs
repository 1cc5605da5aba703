//! The least a server can do: hyper, two workers, ready-made answers, and for writes a group commit of
//! append + fdatasync.
//!
//! What a real server costs *above this* is its own doing. The floor is fixed: it is not made slower to
//! look better beside it. It answers the paths of config publish and get and of register, beat and list, and
//! knows nothing else: a config's GET gives the same content of a given size always, its POST is answered
//! `true` once its body is on disk; registrations and beats are taken without a look, and every service
//! has the same ten instances. The same over gRPC on the port 1,000 above (`floor_grpc`).

use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::floor_grpc::{self, Answers};
use crate::naming::{INSTANCE, list_json};
use crate::ports::GRPC_OFFSET;
use crate::run::CONFIGS;

/// Bytes gathered for one append at most; more waits for the next one.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// Writes waiting for the log thread at most; beyond it the connection waits, as its client does.
const QUEUE_MAX: usize = 64 << 10;

/// Instances of every service.
pub(crate) const INSTANCES: u32 = 10;

/// What beats are answered.
const BEAT: &[u8] = b"{\"clientBeatInterval\":5000,\"code\":10200,\"lightBeatEnabled\":true}";

/// A write on its way to the disk.
struct Write {
    body: Bytes,
    done: oneshot::Sender<bool>,
}

/// What all connections share.
pub(crate) struct Floor {
    content: Bytes,
    /// The list of every service.
    list: Bytes,
    log: mpsc::SyncSender<Write>,
    syncs: Arc<AtomicU64>,
}

/// Serves on 127.0.0.1 until the process ends.
///
/// `sync` false leaves out the fdatasync: the limit of a server that is not durable.
pub async fn serve(port: u16, directory: &Path, content_bytes: usize, sync: bool) -> anyhow::Result<()> {
    std::fs::create_dir_all(directory)?;
    let path = directory.join("floor.log");
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    let (log, queue) = mpsc::sync_channel(QUEUE_MAX);
    let syncs = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&syncs);
    std::thread::Builder::new()
        .name("floor-log".into())
        .spawn(move || write_log(file, &queue, sync, &counter))?;
    let floor = Arc::new(Floor {
        content: Bytes::from(vec![b'x'; content_bytes]),
        list: Bytes::from(list_json("floor", 0..INSTANCES)),
        log,
        syncs,
    });

    let answers = Arc::new(Answers::new(Arc::clone(&floor), content_bytes));
    let grpc = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port + GRPC_OFFSET))).await?;
    tokio::spawn(floor_grpc::serve(grpc, answers));
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let floor = Arc::clone(&floor);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&floor), request));
            // A client that goes away is no event.
            let _ = hyper::server::conn::http1::Builder::new()
                .pipeline_flush(true)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// One thread: waits for one write, takes what else is there, appends, syncs, answers all.
fn write_log(mut file: File, queue: &mpsc::Receiver<Write>, sync: bool, syncs: &AtomicU64) {
    let mut batch = Vec::with_capacity(BATCH_BYTES_MAX);
    let mut waiting = Vec::new();
    while let Ok(first) = queue.recv() {
        batch.clear();
        let mut next = Some(first);
        while let Some(write) = next {
            batch.extend_from_slice(&u32::try_from(write.body.len()).unwrap_or(u32::MAX).to_le_bytes());
            batch.extend_from_slice(&write.body);
            waiting.push(write.done);
            next = if batch.len() < BATCH_BYTES_MAX {
                queue.try_recv().ok()
            } else {
                None
            };
        }
        let done = file.write_all(&batch).is_ok() && (!sync || file.sync_data().is_ok());
        syncs.fetch_add(1, Ordering::Relaxed);
        for waiter in waiting.drain(..) {
            // A waiter whose client went away is no event.
            let _ = waiter.send(done);
        }
    }
}

async fn answer(floor: Arc<Floor>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path_is_configs = request.uri().path() == CONFIGS;
    if let Some(below) = request.uri().path().strip_prefix(INSTANCE) {
        return Ok(match (request.method().clone(), below) {
            (Method::GET, "/list") => text(StatusCode::OK, floor.list.clone()),
            (Method::PUT, "/beat") => text(StatusCode::OK, Bytes::from_static(BEAT)),
            (Method::POST, "") => match request.into_body().collect().await {
                Ok(_) => text(StatusCode::OK, Bytes::from_static(b"ok")),
                Err(_) => text(StatusCode::BAD_REQUEST, Bytes::new()),
            },
            _ => text(StatusCode::NOT_FOUND, Bytes::new()),
        });
    }
    Ok(match (request.method(), path_is_configs) {
        (&Method::GET, true) => text(StatusCode::OK, floor.content.clone()),
        (&Method::POST, true) => {
            let done = match request.into_body().collect().await {
                Ok(body) => floor.append(body.to_bytes()).await,
                Err(_) => false,
            };
            if done {
                text(StatusCode::OK, Bytes::from_static(b"true"))
            } else {
                text(StatusCode::INTERNAL_SERVER_ERROR, Bytes::new())
            }
        }
        (&Method::GET, false) if request.uri().path() == "/metrics" => {
            let count = floor.syncs.load(Ordering::Relaxed);
            text(
                StatusCode::OK,
                Bytes::from(format!("# TYPE floor_syncs counter\nfloor_syncs_total {count}\n")),
            )
        }
        _ => text(StatusCode::NOT_FOUND, Bytes::new()),
    })
}

impl Floor {
    /// A floor whose log is memory.
    #[cfg(test)]
    pub(crate) fn for_test() -> Self {
        let (log, queue) = mpsc::sync_channel::<Write>(QUEUE_MAX);
        std::thread::spawn(move || {
            for write in queue {
                let _ = write.done.send(true);
            }
        });
        Self {
            content: Bytes::new(),
            list: Bytes::new(),
            log,
            syncs: Arc::default(),
        }
    }

    /// Appends a body to the log; false when the disk refuses it.
    pub(crate) async fn append(&self, body: Bytes) -> bool {
        let (done, wait) = oneshot::channel();
        // The queue is never full: QUEUE_MAX is far above the number of connections a process may hold.
        self.log.try_send(Write { body, done }).is_ok() && wait.await.unwrap_or(false)
    }
}

fn text(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain;charset=UTF-8"));
    response
}
