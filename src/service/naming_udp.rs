//! Telling SDKs of Nacos 1.x of changes over UDP (contract 03 §5).
//!
//! Who is told: a client that asks for a list, names a port, and says that it is an SDK that listens there.
//! NOTE: a datagram goes to the address from which the request came, over TCP, and nowhere else: a client that
//! names another one (behind a translator of addresses, or for mischief) is not told and asks every ten
//! seconds. So nobody can have this server send anything to somebody else, and what is sent is at most one
//! datagram each half second and service, for as long as the client keeps asking.

use std::collections::HashMap;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Deserialize;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until};

use super::Services;
use super::naming;
use super::switches::{Sdk, Switches, version_parts};
use crate::clock;
use crate::discovery::Form;
use crate::model::ServiceKey;
use crate::naming::Filter;
use crate::push::{UdpDue, UdpTarget, UdpWho};

/// Datagrams sent before anything else is looked at.
const AT_ONCE: usize = 64;
/// Datagrams from this size on are compressed; clients look for the mark of gzip.
const COMPRESSED_FROM_BYTES: usize = 1_024;
/// The most that a datagram over IPv4 can carry. What is larger is not told; clients ask.
const DATAGRAM_BYTES_MAX: usize = 65_507;
/// Beyond this it does not fit, however well it is compressed.
const JSON_BYTES_MAX: usize = 2 << 20;
/// From here on it is compressed on a thread that may take its time.
const LARGE_BYTES: usize = 64 << 10;
/// An acknowledgement has less than a hundred.
const ACK_BYTES_MAX: usize = 1_024;
/// Those who have stopped asking are forgotten so often.
const SWEEP: Duration = Duration::from_secs(5);

/// What a list request says of a client that wants to hear of changes.
#[derive(Clone, Copy, Debug)]
pub struct UdpWish<'a> {
    /// The service.
    pub service: &'a ServiceKey,
    /// Which part of it.
    pub filter: &'a Filter,
    /// Where the client listens; 0: nowhere.
    pub port: u16,
    /// The address it says it has; empty: that of the connection.
    pub told_ip: &'a str,
    /// The address of the connection.
    pub peer: IpAddr,
    /// What it says it is.
    pub agent: &'a str,
    /// Its application.
    pub app: &'a str,
}

impl Services {
    /// Notes that a client wants to hear of changes, if it can be told.
    pub fn subscribe_udp(&self, wish: &UdpWish<'_>) {
        if wish.port == 0 {
            return;
        }
        let peer = wish.peer.to_canonical();
        let told: Option<IpAddr> = wish.told_ip.trim().parse().ok();
        let is_own = wish.told_ip.trim().is_empty() || told.is_some_and(|told| told.to_canonical() == peer);
        let switches = self.switches();
        if !is_own || !switches.push_enabled || !listens(&switches, wish.agent) {
            return;
        }
        let target = UdpTarget {
            address: SocketAddr::new(peer, wish.port),
            clusters: wish.filter.clusters.clone(),
        };
        let short = |text: &str| text.chars().take(128).collect::<String>().into_boxed_str();
        let who = UdpWho {
            agent: short(wish.agent),
            app: short(wish.app),
        };
        let taken = self.udp_push.subscribe(clock::now(), wish.service, target, who);
        if !taken {
            tracing::debug!(%peer, "too many subscribers over UDP: this one is not told of changes");
        }
    }

    /// Sends datagrams and takes acknowledgements, for ever.
    ///
    /// # Cancel safety
    /// What was not sent by then never will be; clients ask.
    pub async fn serve_udp(self: Arc<Self>, socket: UdpSocket) {
        let mut sender = Sender {
            services: self,
            socket,
            // Above those of the run before: an acknowledgement of that run matches nothing.
            reference: u64::try_from(clock::wall_ms()).unwrap_or_default() * 1_000_000,
        };
        let mut sweeps_at = clock::now() + SWEEP;
        let mut buffer = [0; ACK_BYTES_MAX];
        loop {
            let push = Arc::clone(&sender.services.udp_push);
            let wakes_at = push.wakes_at().map_or(sweeps_at, |at| at.min(sweeps_at));
            tokio::select! {
                received = sender.socket.recv_from(&mut buffer) => match received {
                    Ok((length, from)) => sender.on_ack(buffer.get(..length).unwrap_or_default(), from),
                    // Of no datagram in particular; a pause, lest a broken socket keeps a processor busy.
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                },
                () = push.changed() => {}
                () = sleep_until(wakes_at) => {}
            }
            let now = clock::now();
            if now >= sweeps_at {
                sweeps_at = now + SWEEP;
                push.sweep(now);
            }
            sender.send_due(now).await;
        }
    }
}

/// Where datagrams come from.
struct Sender {
    services: Arc<Services>,
    socket: UdpSocket,
    /// Of the last datagram; each content has its own.
    reference: u64,
}

impl Sender {
    fn on_ack(&self, datagram: &[u8], from: SocketAddr) {
        let Some(reference) = acknowledged(datagram) else {
            return;
        };
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        let services = &self.services;
        if let Some(cost) = services.udp_push.acknowledged(clock::now(), from, reference) {
            services.naming_push.metrics.acknowledged(cost);
        }
    }

    async fn send_due(&mut self, now: Instant) {
        loop {
            let (due, given_up) = self.services.udp_push.take(now, AT_ONCE);
            let failed = &self.services.naming_push.metrics.failed;
            failed.fetch_add(given_up, std::sync::atomic::Ordering::Relaxed);
            if due.is_empty() {
                return;
            }
            // While this node does not know what there is, nobody is told that there is nothing.
            if self.services.switches().push_enabled && self.services.naming_is_ready().is_ok() {
                self.send(due).await;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Sends each its service as it is now; those who want the same get the same bytes.
    async fn send(&mut self, due: Vec<UdpDue>) {
        let mut made: HashMap<(ServiceKey, Box<str>), (u64, Option<Bytes>)> = HashMap::new();
        for due in due {
            let (service, target) = &due;
            let key = (service.clone(), target.clusters.clone());
            let (reference, datagram) = match made.get(&key) {
                Some(made) => made.clone(),
                None => {
                    self.reference += 1;
                    let datagram = self.make(service, &target.clusters).await;
                    let entry = (self.reference, datagram);
                    made.insert(key, entry.clone());
                    entry
                }
            };
            let Some(datagram) = datagram else { continue };
            // A full socket buffer is a lost datagram: it is repeated like any other.
            let _sent = self.socket.try_send_to(&datagram, target.address);
            self.services.udp_push.sent(clock::now(), &due, reference);
        }
    }

    async fn make(&self, service: &ServiceKey, clusters: &str) -> Option<Bytes> {
        let filter = naming::filter(clusters, false).ok()?;
        let json = self.services.query(service, &filter, Form::Http).ok()?;
        let reference = self.reference;
        if json.len() < LARGE_BYTES {
            return datagram(&json, reference);
        }
        let work = tokio::task::spawn_blocking(move || datagram(&json, reference));
        work.await.ok().flatten()
    }
}

/// True for an SDK that listens for datagrams, in a version that understands them.
fn listens(switches: &Switches, agent: &str) -> bool {
    const SDKS: [(&str, Sdk); 6] = [
        ("Nacos-Java-Client", Sdk::Java),
        ("Nacos-DNS", Sdk::Java),
        ("Nacos-C-Client", Sdk::C),
        ("vip-client4cpp", Sdk::C),
        ("Nacos-Go-Client", Sdk::Go),
        ("Nacos-CSharp-Client", Sdk::CSharp),
    ];
    let found = SDKS
        .iter()
        .find_map(|(name, sdk)| Some((*sdk, agent.strip_prefix(name)?)));
    let Some((sdk, rest)) = found else { return false };
    let version = rest.trim_start_matches([':', '/', ' ', 'v', 'V']);
    match (version_parts(version), version_parts(switches.push_version(sdk))) {
        (Some(version), Some(least)) => version >= least,
        _ => false,
    }
}

/// A datagram that tells a service; `None` for one that does not fit.
fn datagram(service_json: &[u8], reference: u64) -> Option<Bytes> {
    if service_json.len() > JSON_BYTES_MAX {
        return None;
    }
    let text = std::str::from_utf8(service_json).ok()?;
    let data = serde_json::to_string(text).ok()?;
    let plain = format!(r#"{{"type":"dom","data":{data},"lastRefTime":{reference}}}"#).into_bytes();
    let bytes = if plain.len() < COMPRESSED_FROM_BYTES {
        plain
    } else {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&plain).ok()?;
        gzip.finish().ok()?
    };
    (bytes.len() <= DATAGRAM_BYTES_MAX).then(|| bytes.into())
}

/// The reference in an acknowledgement, which is a text or a number; `None` for anything else.
fn acknowledged(datagram: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Ack<'a> {
        #[serde(borrow)]
        r#type: std::borrow::Cow<'a, str>,
        last_ref_time: serde_json::Value,
    }
    let ack: Ack<'_> = serde_json::from_slice(datagram).ok()?;
    if ack.r#type != "push-ack" {
        return None;
    }
    match &ack.last_ref_time {
        serde_json::Value::String(text) => text.parse().ok(),
        number => number.as_u64(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    #[test]
    fn sdks_that_listen() {
        let switches = Switches::default();
        for agent in [
            "Nacos-Java-Client:v1.4.2",
            "Nacos-Go-Client:v1.0.9",
            "Nacos-C-Client:v1.0.12",
            "vip-client4cpp:1.1.0",
            "Nacos-DNS:v0.9.9-SNAPSHOT",
            "Nacos-CSharp-Client:v0.9.0",
        ] {
            assert!(listens(&switches, agent), "{agent}");
        }
        for agent in [
            "",
            "curl/7.88.1",
            "Nacos-Java-Client",
            "Nacos-Java-Client:vx",
            "Nacos-C-Client:v1.0.11",
            "Nacos-Python-Client:1.0.0",
            "Nacos-Server:v2.0.0",
        ] {
            assert!(!listens(&switches, agent), "{agent}");
        }
    }

    #[test]
    fn datagrams_are_compressed_when_they_are_large_and_never_too_large() {
        let small = datagram(br#"{"name":"g@@s"}"#, 7).unwrap();
        let text = r#"{"type":"dom","data":"{\"name\":\"g@@s\"}","lastRefTime":7}"#;
        assert_eq!(small, text.as_bytes());
        let json = format!("\"{}\"", "ab".repeat(2_000));
        let large = datagram(json.as_bytes(), 7).unwrap();
        assert!(large.starts_with(&[0x1f, 0x8b]) && large.len() < 500);
        let mut plain = String::new();
        GzDecoder::new(&*large).read_to_string(&mut plain).unwrap();
        let parsed: serde_json::Value = serde_json::from_str(&plain).unwrap();
        assert_eq!(parsed["data"], json);
        assert_eq!(datagram(&vec![b'a'; JSON_BYTES_MAX + 1], 7), None);
        let mut state = 1_u64;
        let noise: String = (0..200_000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                char::from(b'!' + (state >> 58) as u8)
            })
            .collect();
        assert_eq!(datagram(noise.as_bytes(), 7), None, "it does not fit");
    }

    #[test]
    fn acknowledgements_are_read_and_nothing_else_is() {
        let ack = |text: &str| acknowledged(text.as_bytes());
        let text = r#"{"type": "push-ack", "lastRefTime":"1795342252852000000", "data":""}"#;
        assert_eq!(ack(text), Some(1_795_342_252_852_000_000));
        assert_eq!(ack(r#"{"type":"push-ack","lastRefTime":12}"#), Some(12));
        for other in [
            "",
            "x",
            "[]",
            r#"{"type":"unknown-ack","lastRefTime":"1"}"#,
            r#"{"type":"push-ack"}"#,
            r#"{"type":"push-ack","lastRefTime":"x"}"#,
            r#"{"type":"push-ack","lastRefTime":-1}"#,
            r#"{"type":"push-ack","lastRefTime":{}}"#,
        ] {
            assert_eq!(ack(other), None, "{other}");
        }
        assert_eq!(acknowledged(b"\xff\xfe"), None);
    }
}
