//! One check over the network.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::guard::Guard;
use super::plan::{Found, Probe};
use crate::clock;
use crate::naming::{Checker, HttpCheck};

/// A name that has no address, or a connection that does not stand within this, counts as a failure
/// (contract 03 §8).
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// The answer to a request begins within this.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Names being looked up at a time. A resolver that does not answer holds a thread for half a minute,
/// whatever time is given up in here, and those threads are the whole process's.
const LOOKUPS_MAX: usize = 8;
/// So much of an answer is read at most: its first line is all that counts.
const ANSWER_BYTES_MAX: usize = 512;
/// Whoever is asked sees who asks.
const USER_AGENT: &str = concat!("rnacos-check/", env!("CARGO_PKG_VERSION"));

/// Asks instances, where the guard allows it.
#[derive(Clone, Debug)]
pub struct Asker {
    /// Where it may go.
    pub guard: Guard,
    /// For the name, and again for the connection.
    pub connect_timeout: Duration,
    /// For request and answer.
    pub answer_timeout: Duration,
    /// Room to look up names.
    pub(super) lookups: Arc<Semaphore>,
}

impl Asker {
    /// With the timeouts that users of Nacos know.
    pub fn new(guard: Guard) -> Asker {
        Asker {
            guard,
            connect_timeout: CONNECT_TIMEOUT,
            answer_timeout: ANSWER_TIMEOUT,
            lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
        }
    }

    /// Asks an instance.
    ///
    /// # Cancel safety
    /// Dropping it closes the connection; nothing is known then.
    pub(super) async fn ask(&self, probe: &Probe) -> Found {
        let (_, endpoint) = &probe.place;
        let host = endpoint.ip.trim_start_matches('[').trim_end_matches(']');
        let address = match host.parse::<IpAddr>() {
            Ok(address) => SocketAddr::new(address, probe.port),
            Err(_) => match self.look_up(host, probe.port).await {
                Ok(address) => address,
                Err(found) => return found,
            },
        };
        if !self.guard.allows(address.ip(), address.port()) {
            return Found::Forbidden;
        }
        let began = clock::now();
        let found = match &*probe.checker {
            Checker::Tcp => self.connect(address).await.map(drop),
            Checker::Http(check) => match self.connect(address).await {
                Ok(stream) => self.request(stream, &endpoint.ip, probe.port, check).await,
                Err(found) => Err(found),
            },
            Checker::None | Checker::Mysql => Err(Found::Forbidden),
        };
        match found {
            Ok(()) => Found::Well {
                took_ms: u64::try_from((clock::now() - began).as_millis()).unwrap_or(u64::MAX),
            },
            Err(found) => found,
        }
    }

    /// The first address of a name, and the very one that is connected to: a name that has another address
    /// a moment later gets nobody past the guard.
    async fn look_up(&self, host: &str, port: u16) -> Result<SocketAddr, Found> {
        let room = Arc::clone(&self.lookups).acquire_owned();
        let Ok(Ok(room)) = timeout(self.connect_timeout, room).await else {
            return Err(Found::Unasked);
        };
        let host = host.to_owned();
        let looking = tokio::task::spawn_blocking(move || {
            let address = (host.as_str(), port).to_socket_addrs().ok()?.next();
            drop(room);
            address
        });
        match timeout(self.connect_timeout, looking).await {
            Ok(Ok(Some(address))) => Ok(address),
            _ => Err(Found::Ill),
        }
    }

    async fn connect(&self, address: SocketAddr) -> Result<TcpStream, Found> {
        match timeout(self.connect_timeout, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => Err(Found::Dead),
            Ok(Err(_)) | Err(_) => Err(Found::Ill),
        }
    }

    async fn request(
        &self,
        mut stream: TcpStream,
        host: &str,
        port: u16,
        check: &HttpCheck,
    ) -> Result<(), Found> {
        let exchange = async {
            stream.write_all(head(host, port, check).as_bytes()).await.ok()?;
            status(&mut stream).await
        };
        match timeout(self.answer_timeout, exchange).await {
            Ok(Some(status)) if status == check.expected => Ok(()),
            // It is there, and says that it cannot just now, or that it is elsewhere: Nacos waits for more
            // of that, while any other answer counts at once.
            Ok(Some(301 | 302 | 303 | 307 | 308 | 503) | None) | Err(_) => Err(Found::Ill),
            Ok(Some(_)) => Err(Found::Dead),
        }
    }
}

fn head(host: &str, port: u16, check: &HttpCheck) -> String {
    let host = if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    let mut head = format!(
        "GET {} HTTP/1.1\r\nhost: {host}:{port}\r\nuser-agent: {USER_AGENT}\r\naccept: */*\r\nconnection: close\r\n",
        check.path
    );
    for (name, value) in &check.headers {
        for part in [name, ": ", value, "\r\n"] {
            head.push_str(part);
        }
    }
    head.push_str("\r\n");
    head
}

/// The status of the answer; `None` when what comes is none.
async fn status(stream: &mut TcpStream) -> Option<u16> {
    let mut answer = [0; ANSWER_BYTES_MAX];
    let mut read = 0;
    while let Some(rest) = answer.get_mut(read..).filter(|rest| !rest.is_empty()) {
        let count = stream.read(rest).await.ok().filter(|count| *count > 0)?;
        read += count;
        let so_far = answer.get(..read)?;
        if let Some(end) = so_far.iter().position(|byte| *byte == b'\n') {
            return parse_status(so_far.get(..end)?);
        }
    }
    None
}

/// `HTTP/1.1 200 OK`
fn parse_status(line: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(line).ok()?.trim_end_matches('\r');
    let rest = line.strip_prefix("HTTP/1.")?.get(1..)?.strip_prefix(' ')?;
    let code = rest.split(' ').next()?;
    code.parse().ok().filter(|code| (100..1_000).contains(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_lines_are_read() {
        for (line, status) in [
            ("HTTP/1.1 200 OK\r", Some(200)),
            ("HTTP/1.0 503", Some(503)),
            ("HTTP/1.1 200", Some(200)),
            ("HTTP/2 200", None),
            ("HTTP/1.1200 OK", None),
            ("HTTP/1.1  200", None),
            ("HTTP/1.1 99999", None),
            ("HTTP/1.\u{e9} 200", None),
            ("SSH-2.0-OpenSSH", None),
            ("", None),
        ] {
            assert_eq!(parse_status(line.as_bytes()), status, "{line:?}");
        }
        assert_eq!(parse_status(b"HTTP/1.1 \xff"), None);
    }

    #[test]
    fn a_request_is_one_request() {
        let check = HttpCheck {
            path: "/up?a=1".into(),
            headers: vec![("x-a".into(), "b c".into())],
            expected: 200,
        };
        let head = head("::1", 80, &check);
        assert!(
            head.starts_with("GET /up?a=1 HTTP/1.1\r\nhost: [::1]:80\r\n"),
            "{head}"
        );
        assert!(head.ends_with("\r\nx-a: b c\r\n\r\n"), "{head}");
        assert_eq!(head.matches("\r\n\r\n").count(), 1);
    }
}
