//! A server behind its HTTP door, and raw requests to it.

use std::net::SocketAddr;
use std::sync::Arc;

use rnacos::server::Server;
use rnacos::settings::Settings;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A server with a folder of its own, and the ways to talk to it.
pub(crate) struct Door {
    server: Server,
    _folder: Arc<TempDir>,
}

/// A parsed answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

impl Door {
    pub(crate) async fn open(settings: &[(&str, &str)]) -> Door {
        Door::open_in(Arc::new(tempfile::tempdir().expect("a folder")), settings).await
    }

    /// In a folder that outlives the server.
    pub(crate) async fn open_in(folder: Arc<TempDir>, settings: &[(&str, &str)]) -> Door {
        let dir = folder.path().display().to_string();
        let base = [
            ("RNACOS_DATA_DIR", dir.as_str()),
            ("RNACOS_SDK_HOST", "127.0.0.1"),
            ("RNACOS_HTTP_PORT", "0"),
        ];
        let all: Vec<_> = base.iter().chain(settings).copied().collect();
        let server = Server::start(Settings::with(&all).expect("settings"))
            .await
            .expect("a server");
        Door {
            server,
            _folder: folder,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.http_address()
    }

    /// Sends bytes on a connection of its own and reads the first answer.
    pub(crate) async fn raw(&self, request: impl AsRef<[u8]>) -> Answer {
        let mut socket = TcpStream::connect(self.address()).await.expect("a connection");
        // The server may answer and close before it has everything.
        drop(socket.write_all(request.as_ref()).await);
        read_answer(&mut socket).await
    }

    pub(crate) async fn get(&self, target: &str) -> Answer {
        self.raw(format!("GET {target} HTTP/1.1\r\nhost: x\r\n\r\n"))
            .await
    }

    pub(crate) async fn post(&self, target: &str, form: &str) -> Answer {
        let length = form.len();
        self.raw(format!(
            "POST {target} HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded\r\n\
             content-length: {length}\r\n\r\n{form}"
        ))
        .await
    }

    pub(crate) async fn close(self) {
        assert!(self.server.stop().await, "the server stops in order");
    }
}

pub(crate) async fn read_answer(socket: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    loop {
        if let Some(answer) = parse(&bytes) {
            return answer;
        }
        let read = socket.read_buf(&mut bytes).await.unwrap_or(0);
        assert!(
            read > 0,
            "the connection ended after {:?}",
            String::from_utf8_lossy(&bytes)
        );
    }
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let at = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(bytes.get(..at)?).into_owned();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let mut answer = Answer {
        status,
        head,
        body: String::new(),
    };
    let length: usize = answer
        .header("content-length")
        .and_then(|length| length.parse().ok())
        .unwrap_or(0);
    let body = bytes.get(at + 4..at + 4 + length)?;
    answer.body = String::from_utf8_lossy(body).into_owned();
    Some(answer)
}
