//! Servers in this process, a client that speaks HTTP to them, and a link that can be cut.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rnacos::model::Md5;
use rnacos::server::Server;
use rnacos::settings::Settings;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Nothing in these tests takes longer; a test that hangs is told where.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const CONFIGS: &str = "/nacos/v1/cs/configs";
pub(crate) const LISTENER: &str = "/nacos/v1/cs/configs/listener";

/// A server with a folder of its own.
pub(crate) struct Node {
    pub server: Server,
    _folder: TempDir,
}

impl Node {
    pub(crate) async fn start(settings: &[(&str, &str)]) -> Node {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().display().to_string();
        let base = [
            ("RNACOS_DATA_DIR", dir.as_str()),
            ("RNACOS_SDK_HOST", "127.0.0.1"),
            ("RNACOS_HTTP_PORT", "0"),
        ];
        let all: Vec<_> = base.iter().chain(settings).copied().collect();
        let settings = Settings::with(&all).expect("settings");
        let server = within("a start", Server::start(settings))
            .await
            .expect("a server");
        Node {
            server,
            _folder: folder,
        }
    }

    pub(crate) fn client(&self) -> Client {
        Client {
            address: self.server.http_address(),
            headers: Vec::new(),
        }
    }

    pub(crate) async fn stop(self) {
        assert!(
            within("a stop", self.server.stop()).await,
            "the server stops in order"
        );
    }
}

pub(crate) struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: String,
}

/// One connection per request; with headers that every request carries.
#[derive(Clone)]
pub(crate) struct Client {
    pub address: SocketAddr,
    headers: Vec<(&'static str, String)>,
}

impl Client {
    pub(crate) fn with(&self, name: &'static str, value: &str) -> Client {
        let mut client = self.clone();
        client.headers.push((name, value.to_owned()));
        client
    }

    pub(crate) async fn send(&self, method: &str, target: &str, form: &str) -> Answer {
        within(target, self.exchange(method, target, form)).await
    }

    async fn exchange(&self, method: &str, target: &str, form: &str) -> Answer {
        let socket = TcpStream::connect(self.address).await.expect("a connection");
        let (mut sender, connection) = http1::handshake(TokioIo::new(socket))
            .await
            .expect("a connection");
        let connection = tokio::spawn(connection);
        let mut request = http::Request::builder()
            .method(method)
            .uri(target)
            .header("host", "x");
        if method == "POST" {
            request = request.header("content-type", "application/x-www-form-urlencoded");
        }
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(form.as_bytes())));
        let answer = sender
            .send_request(request.expect("a request"))
            .await
            .expect("an answer");
        let (head, body) = answer.into_parts();
        let body = body.collect().await.expect("a whole body").to_bytes();
        drop(sender);
        drop(connection.await);
        Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body: String::from_utf8_lossy(&body).into_owned(),
        }
    }

    /// Publishes into the namespace and group `g`.
    pub(crate) async fn publish(&self, namespace: &str, data_id: &str, content: &str) {
        let form = format!("tenant={namespace}&group=g&dataId={data_id}&content={content}");
        let answer = self.send("POST", CONFIGS, &form).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "true"), "{data_id}");
    }

    pub(crate) async fn remove(&self, data_id: &str) {
        let target = format!("{CONFIGS}?group=g&dataId={data_id}");
        assert_eq!(self.send("DELETE", &target, "").await.body, "true");
    }

    /// The content on this node; `None` when there is none.
    pub(crate) async fn read(&self, data_id: &str) -> Option<String> {
        let answer = self
            .send("GET", &format!("{CONFIGS}?group=g&dataId={data_id}"), "")
            .await;
        (answer.status == 200).then_some(answer.body)
    }

    /// A long poll of thirty seconds; gives back the body, decoded.
    pub(crate) async fn poll(&self, listening: &str) -> String {
        let client = self.with("long-pulling-timeout", "30000");
        let answer = client.send("POST", LISTENER, &form(listening)).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        decoded(&answer.body)
    }

    /// The same in a task.
    pub(crate) fn poll_aside(&self, listening: &str) -> JoinHandle<String> {
        let (client, listening) = (self.clone(), listening.to_owned());
        tokio::spawn(async move { client.poll(&listening).await })
    }

    /// A poll that is answered at once.
    pub(crate) async fn peek(&self, listening: &str) -> Answer {
        let client = self
            .with("long-pulling-timeout", "30000")
            .with("long-pulling-timeout-no-hangup", "true");
        client.send("POST", LISTENER, &form(listening)).await
    }

    /// Waits until so many polls wait on this node.
    pub(crate) async fn until_waiting(&self, polls: usize) {
        let line = format!("\nrnacos_config_listeners_waiting {polls}\n");
        until(&format!("{polls} polls wait"), || async {
            self.send("GET", "/metrics", "").await.body.contains(&line)
        })
        .await;
    }
}

/// Asks again until it is so.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, is_so: impl Fn() -> F) {
    within(what, async { while !is_so().await {} }).await;
}

pub(crate) async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done,
        Err(_late) => panic!("not within {PATIENCE:?}: {what}"),
    }
}

/// An entry of `Listening-Configs` for a config that the client has with this content; empty for none.
pub(crate) fn entry(data_id: &str, content: &str) -> String {
    format!("{data_id}\u{2}g\u{2}{}\u{1}", md5(content))
}

/// The same with a namespace.
pub(crate) fn entry_in(namespace: &str, data_id: &str, content: &str) -> String {
    format!("{data_id}\u{2}g\u{2}{}\u{2}{namespace}\u{1}", md5(content))
}

fn md5(content: &str) -> String {
    if content.is_empty() {
        String::new()
    } else {
        Md5::of(content.as_bytes()).to_string()
    }
}

/// The form of a poll.
pub(crate) fn form(listening: &str) -> String {
    let listening = listening.replace('\u{1}', "%01").replace('\u{2}', "%02");
    format!("Listening-Configs={listening}")
}

/// A result with `|` between words and `;` after entries.
fn decoded(body: &str) -> String {
    assert!(body.is_empty() || body.ends_with('\n'), "{body:?}");
    body.trim_end().replace("%02", "|").replace("%01", ";")
}

/// A way to a node that can be cut: nothing comes through, and whoever was connected is not any more.
pub(crate) struct Link {
    pub address: SocketAddr,
    state: watch::Sender<State>,
}

#[derive(Clone, Copy, PartialEq)]
struct State {
    to: Option<SocketAddr>,
    is_cut: bool,
}

impl Link {
    /// A link that leads nowhere yet.
    pub(crate) async fn new() -> Link {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = watch::Sender::new(State {
            to: None,
            is_cut: false,
        });
        tokio::spawn(carry(listener, state.subscribe()));
        Link { address, state }
    }

    pub(crate) fn lead_to(&self, to: SocketAddr) {
        self.state.send_modify(|state| state.to = Some(to));
    }

    pub(crate) fn cut(&self, is_cut: bool) {
        self.state.send_modify(|state| state.is_cut = is_cut);
    }
}

async fn carry(listener: TcpListener, state: watch::Receiver<State>) {
    while let Ok((mut socket, _)) = listener.accept().await {
        let State {
            to: Some(to),
            is_cut: false,
        } = *state.borrow()
        else {
            continue;
        };
        let mut state = state.clone();
        tokio::spawn(async move {
            let Ok(mut other) = TcpStream::connect(to).await else {
                return;
            };
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut socket, &mut other) => {}
                _ = state.wait_for(|state| state.is_cut) => {}
            }
        });
    }
}
