//! What strangers do to the port, each from a loopback address of its own so that the log can tell them
//! apart. None of them keeps to any limit, and none looks at answers.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use loadtest::content::Dice;
use tokio::time::{Instant, sleep, sleep_until};

use super::wire::{Raw, STREAM, UNARY, data, frame, framed, head, message, reset, zeros_in_gzip};

/// Every kind, and what is said of it. `logged`: the log must name who it was.
pub(super) const ATTACKS: &[Attack] = &[
    attack("fuzzed bodies", true),
    attack("garbage in frames", true),
    attack("garbage for HTTP/2", true),
    attack("stream resets", false),
    attack("rapid resets", true),
    attack("pushes never read", true),
    attack("half-open peers", false),
    attack("half requests", true),
    attack("silent connections", false),
    attack("too large", true),
    attack("gzip bombs", true),
    attack("a stranger as peer", true),
    attack("large instances", false),
    attack("large batches", false),
    attack("subscriptions", false),
    attack("patterns", false),
];

/// One kind of attack.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attack {
    pub(super) name: &'static str,
    pub(super) logged: bool,
}

const fn attack(name: &'static str, logged: bool) -> Attack {
    Attack { name, logged }
}

/// Where and how long, and how often it was done.
#[derive(Clone, Debug)]
pub(super) struct Stage {
    pub(super) from: Ipv4Addr,
    pub(super) to: SocketAddr,
    pub(super) until: Instant,
    /// Connections of the silent.
    pub(super) silent: usize,
    /// A config that changes all the time.
    pub(super) busy_key: String,
    pub(super) done: Arc<AtomicU64>,
}

/// Between two tries of the same connection; a dead one is replaced after it.
const REST: Duration = Duration::from_millis(50);

impl Stage {
    pub(super) fn goes_on(&self) -> bool {
        Instant::now() < self.until
    }

    pub(super) fn count(&self, more: u64) {
        self.done.fetch_add(more, Ordering::Relaxed);
    }

    /// Does it until the end. That the server closes the connection is the usual outcome, and no error.
    pub(super) async fn act(self, name: &'static str, seed: u64) {
        let mut dice = Dice::new(seed);
        while self.goes_on() {
            let _closed: io::Result<()> = match name {
                "fuzzed bodies" => self.fuzz(&mut dice).await,
                "garbage in frames" => self.garbage_in_frames(&mut dice).await,
                "garbage for HTTP/2" => self.garbage(&mut dice).await,
                "stream resets" => self.resets().await,
                "rapid resets" => self.rapid_resets().await,
                "pushes never read" => self.never_read().await,
                "half-open peers" => self.half_open().await,
                "half requests" => self.half_requests().await,
                "silent connections" => self.silent().await,
                "too large" => self.too_large().await,
                "gzip bombs" => self.bombs().await,
                "large instances" => self.large_instances(&mut dice).await,
                "large batches" => self.large_batches().await,
                "subscriptions" => self.subscribe(&mut dice).await,
                "patterns" => self.patterns(&mut dice).await,
                _ => self.pose_as_peer(&mut dice).await,
            };
            sleep(REST).await;
        }
    }

    async fn fuzz(&self, dice: &mut Dice) -> io::Result<()> {
        let mut raw = Raw::registered(self.from, self.to, true).await?;
        for _ in 0..200 {
            let body = fuzzed(dice);
            let name = dice.pick(TYPES).copied().unwrap_or_default();
            raw.ask(&message(name, &body, false), &[]).await?;
            self.count(1);
            if dice.chance(5) {
                raw.send(&data(1, &message(name, &fuzzed(dice), false), false))
                    .await?;
            }
            sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    async fn garbage_in_frames(&self, dice: &mut Dice) -> io::Result<()> {
        let mut raw = Raw::registered(self.from, self.to, true).await?;
        for _ in 0..100 {
            let noise = noise(dice, 200);
            let body = match dice.below(4) {
                0 => framed(&noise, false),
                1 => [&[7, 0, 0, 0, 4][..], &noise].concat(),
                2 => [&[0, 255, 255, 255, 255][..], &noise].concat(),
                _ => framed(&noise, true),
            };
            raw.ask(&body, &[("grpc-encoding", "gzip")]).await?;
            self.count(1);
            sleep(Duration::from_millis(5)).await;
        }
        // An unsound frame on the stream ends the connection.
        raw.send(&data(1, &noise(dice, 100), false)).await
    }

    async fn garbage(&self, dice: &mut Dice) -> io::Result<()> {
        for round in 0..20 {
            let bytes = match round % 4 {
                0 => noise(dice, 400),
                1 => [&[0x16, 3, 1, 2, 0, 1][..], &noise(dice, 200)].concat(),
                2 => b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
                _ => Vec::new(),
            };
            self.count(1);
            if bytes.is_empty() {
                let mut raw = Raw::http2(self.from, self.to, true).await?;
                let kind = u8::try_from(dice.below(12)).unwrap_or_default();
                let stream = u32::try_from(dice.below(4)).unwrap_or_default();
                let _closed = raw.send(&frame(kind, 0xff, stream, &noise(dice, 64))).await;
            } else {
                let mut raw = Raw::open(self.from, self.to, true).await?;
                let _closed = raw.send(&bytes).await;
                sleep(Duration::from_millis(10)).await;
            }
        }
        Ok(())
    }

    /// Resets what has been taken, a few at a time, so that no limit for rapid ones is met.
    async fn resets(&self) -> io::Result<()> {
        let mut raw = Raw::registered(self.from, self.to, true).await?;
        let body = message("ConfigQueryRequest", br#"{"dataId":"x","group":"g"}"#, false);
        for _ in 0..100 {
            let mut opened = Vec::new();
            let mut bytes = Vec::new();
            for _ in 0..20 {
                let stream = raw.stream();
                opened.push(stream);
                bytes.extend(head(stream, UNARY, &[], false));
                // Without its end: the server waits for more.
                bytes.extend(data(stream, body.get(..20).unwrap_or_default(), false));
            }
            raw.send(&bytes).await?;
            sleep(Duration::from_millis(10)).await;
            let resets: Vec<u8> = opened.iter().flat_map(|stream| reset(*stream)).collect();
            raw.send(&resets).await?;
            self.count(20);
        }
        Ok(())
    }

    async fn rapid_resets(&self) -> io::Result<()> {
        let mut raw = Raw::http2(self.from, self.to, true).await?;
        let mut bytes = Vec::new();
        for _ in 0..2_000 {
            let stream = raw.stream();
            bytes.extend(head(stream, UNARY, &[], false));
            bytes.extend(reset(stream));
        }
        self.count(2_000);
        raw.send(&bytes).await
    }

    /// Listens to a config that changes all the time, asks for much, and takes nothing.
    async fn never_read(&self) -> io::Result<()> {
        let mut raw = Raw::registered(self.from, self.to, false).await?;
        let listen = format!(
            r#"{{"listen":true,"configListenContexts":[{{"dataId":"{0}","group":"jepsen","tenant":"","md5":""}}]}}"#,
            self.busy_key
        );
        let listen = message("ConfigBatchListenRequest", listen.as_bytes(), false);
        let query = format!(r#"{{"dataId":"{}","group":"jepsen"}}"#, super::LARGE_KEY);
        let query = message("ConfigQueryRequest", query.as_bytes(), false);
        raw.ask(&listen, &[]).await?;
        while self.goes_on() {
            raw.ask(&query, &[]).await?;
            raw.ask(&listen, &[]).await?;
            self.count(2);
            sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// Connections that stop amid everything there is to stop in.
    async fn half_open(&self) -> io::Result<()> {
        let mut held = Vec::new();
        for _ in 0..20 {
            let mut raw = Raw::open(self.from, self.to, true).await?;
            raw.send(b"PRI * HTTP/2.0\r\n").await?;
            held.push(raw);
            let mut raw = Raw::http2(self.from, self.to, true).await?;
            let whole = head(1, UNARY, &[], false);
            raw.send(whole.get(..whole.len() / 2).unwrap_or_default()).await?;
            held.push(raw);
            let mut raw = Raw::http2(self.from, self.to, true).await?;
            raw.send(&head(1, STREAM, &[], false)).await?;
            held.push(raw);
            let mut raw = Raw::registered(self.from, self.to, true).await?;
            raw.send(&data(1, &[0, 0, 0, 1, 0, 1], false)).await?;
            held.push(raw);
            self.count(4);
        }
        sleep_until(self.until).await;
        Ok(())
    }

    /// A thousand requests on each of several connections, each all but whole.
    async fn half_requests(&self) -> io::Result<()> {
        let mut held = Vec::new();
        let most = framed(&vec![b'x'; 64 << 10], false);
        for _ in 0..8 {
            let mut raw = Raw::http2(self.from, self.to, true).await?;
            for _ in 0..900 {
                let stream = raw.stream();
                let mut bytes = head(stream, UNARY, &[], false);
                bytes.extend(data(stream, most.get(..60 << 10).unwrap_or_default(), false));
                // The windows of HTTP/2 are not looked at: half of a window is what is there for sure.
                if raw.send(&bytes).await.is_err() {
                    break;
                }
                self.count(1);
                sleep(Duration::from_millis(1)).await;
            }
            held.push(raw);
        }
        sleep_until(self.until).await;
        Ok(())
    }

    async fn silent(&self) -> io::Result<()> {
        let mut held = Vec::new();
        for _ in 0..self.silent {
            held.push(Raw::open(self.from, self.to, true).await?);
            self.count(1);
        }
        sleep_until(self.until).await;
        Ok(())
    }

    async fn too_large(&self) -> io::Result<()> {
        let mut raw = Raw::registered(self.from, self.to, true).await?;
        let long = "x".repeat(64 << 10);
        for _ in 0..20 {
            // Eleven megabytes are announced; ten lists of nothing; a head of 64 KiB; a stream's eleven.
            raw.ask(&[0, 0, 0xb0, 0, 0, 1, 2, 3], &[]).await?;
            let many = [
                br#"{"configListenContexts":["#.as_slice(),
                &b"{},".repeat(50_000),
                b"{}]}",
            ]
            .concat();
            raw.ask(&message("ConfigBatchListenRequest", &many, false), &[])
                .await?;
            let nested = [b"{\"x\":".repeat(20_000), b"}".repeat(20_000)].concat();
            raw.ask(&message("ConfigQueryRequest", &nested, false), &[])
                .await?;
            raw.ask(&message("HealthCheckRequest", b"{}", false), &[("x", &long)])
                .await?;
            self.count(4);
            sleep(Duration::from_millis(20)).await;
        }
        raw.send(&data(1, &[0, 0, 0xb0, 0, 0, 1], false)).await
    }

    async fn bombs(&self) -> io::Result<()> {
        let mut raw = Raw::registered(self.from, self.to, true).await?;
        let bomb = framed(&zeros_in_gzip(9 << 20), true);
        let larger = framed(&zeros_in_gzip(30 << 20), true);
        for _ in 0..20 {
            raw.ask(&bomb, &[("grpc-encoding", "gzip")]).await?;
            raw.ask(&larger, &[("grpc-encoding", "gzip")]).await?;
            self.count(2);
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Speaks as a peer, without the token.
    async fn pose_as_peer(&self, dice: &mut Dice) -> io::Result<()> {
        let mut raw = Raw::http2(self.from, self.to, true).await?;
        for path in ["Handshake", "Raft", "Call", "Raft", "Elsewhere"] {
            let stream = raw.stream();
            let path = format!("/rnacos.cluster.Peer/{path}");
            let mut bytes = head(stream, &path, &[], false);
            bytes.extend(data(stream, &framed(&noise(dice, 300), false), true));
            raw.send(&bytes).await?;
            self.count(1);
        }
        for name in ["DistroDataRequest", "ServerReloadRequest"] {
            raw.ask(&message(name, b"{}", false), &[]).await?;
            self.count(1);
        }
        sleep(Duration::from_millis(20)).await;
        Ok(())
    }
}

const TYPES: &[&str] = &[
    "ServerCheckRequest",
    "HealthCheckRequest",
    "ConnectionSetupRequest",
    "ConfigQueryRequest",
    "ConfigPublishRequest",
    "ConfigRemoveRequest",
    "ConfigBatchListenRequest",
    "ConfigFuzzyWatchRequest",
    "InstanceRequest",
    "ServiceQueryRequest",
    "SubscribeServiceRequest",
    "LockOperationRequest",
    "DistroDataRequest",
    "NoSuchRequest",
    "",
];

const NAMES: &[&str] = &[
    "dataId",
    "group",
    "tenant",
    "content",
    "casMd5",
    "additionMap",
    "listen",
    "configListenContexts",
    "groupKeyPattern",
    "receivedGroupKeys",
    "watchType",
    "initializing",
    "requestId",
    "headers",
    "labels",
    "abilityTable",
    "clientVersion",
    "tag",
    "module",
    "resultCode",
];

const VALUES: &[&str] = &[
    "null",
    "true",
    "-1",
    "1e308",
    "9223372036854775808",
    "\"\"",
    "\"x\"",
    "\"\\u0000\\ud83d\"",
    "[]",
    "{}",
    "[null,1,{}]",
    "{\"a\":{\"b\":[[[[]]]]}}",
    "[{\"dataId\":7,\"md5\":[]}]",
    "\"public>>*>>*\"",
    "\"WATCH\"",
    "{\"betaIps\":\"%00\",\"type\":3}",
    "\"\u{202e}\u{1F600}\"",
    "0x1",
    "\"\\",
    "NaN",
];

/// A body: names that mean something with values that do not, broken off or damaged now and then.
fn fuzzed(dice: &mut Dice) -> Vec<u8> {
    let mut json = String::from("{");
    for at in 0..dice.below(8) {
        let name = dice.pick(NAMES).copied().unwrap_or_default();
        let value = dice.pick(VALUES).copied().unwrap_or_default();
        json.push_str(if at > 0 { "," } else { "" });
        json.push_str(&format!("\"{name}\":{value}"));
    }
    json.push('}');
    let mut bytes = json.into_bytes();
    if dice.chance(20) {
        let at = dice.below(bytes.len());
        bytes.truncate(at);
    }
    if dice.chance(20) && !bytes.is_empty() {
        let at = dice.below(bytes.len());
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 0x80;
        }
    }
    bytes
}

fn noise(dice: &mut Dice, count: usize) -> Vec<u8> {
    let words = std::iter::repeat_with(|| dice.roll().to_le_bytes()).take(count.div_ceil(8));
    words.flatten().collect()
}
