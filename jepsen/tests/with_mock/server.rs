//! A fake of the HTTP API: processes around a shared folder, which is their only and instant truth.
//!
//! Linearizable by construction and as durable as kill -9 asks: every value of a register is a file of its
//! own, numbered, linked into its place whole and only where that number is still free. No lock is held, so
//! a process that is stopped at any point holds nobody up. The leader is the living, unpaused process with
//! the lowest id. Bugs are chosen by the program's own name.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A wrong server does wrong once in so many requests.
const EVERY: u64 = 25;

/// A process whose heart did not beat for so long was stopped.
const STOPPED_AFTER: Duration = Duration::from_millis(300);

/// How long a process that was stopped counts as just woken: the queued requests are served in this time
/// on a very busy machine, too.
const WAKING: Duration = Duration::from_secs(30);

/// A poll looks for changes so often.
const LOOKS_EVERY: Duration = Duration::from_millis(10);

/// The register that says who leads.
const LEADER: &str = "leader";

/// Stands before the content of a value; a value without it says that the register was removed.
const PRESENT: char = '=';

struct Mock {
    id: u64,
    store: PathBuf,
    bug: String,
    requests: AtomicU64,
    /// Numbers the files that wait to be linked.
    drafts: AtomicU64,
    /// The highest number seen of each register: only where the search for the newest begins.
    seen: std::sync::Mutex<HashMap<String, u64>>,
    /// What each register held before: for stale reads.
    before: std::sync::Mutex<HashMap<String, Option<String>>>,
    /// Heartbeat of this process: how long ago it last ran shows that it was stopped.
    alive: std::sync::Mutex<std::time::Instant>,
    woke: std::sync::Mutex<Option<std::time::Instant>>,
}

/// Serves until killed.
pub(crate) fn serve() {
    let variable = |name: &str| std::env::var(name).expect("set by the harness");
    let data = PathBuf::from(variable("RNACOS_CONFIG_DB_DIR"));
    let data = std::path::absolute(data).expect("a path");
    fs::create_dir_all(&data).expect("data folder");
    let store = data.ancestors().nth(2).expect("scratch/node/db").join("mock");
    fs::create_dir_all(store.join("configs")).expect("store");
    let name = std::env::args().next().unwrap_or_default();
    let bug = name.rsplit_once("mock-").map_or("", |(_, bug)| bug).to_owned();
    let id: u64 = variable("RNACOS_RAFT_NODE_ID").parse().expect("a number");
    fs::write(
        store.join(format!("node{id}.pid")),
        std::process::id().to_string(),
    )
    .expect("pid");
    let now = std::time::Instant::now();
    let mock = Arc::new(Mock {
        id,
        store,
        bug,
        requests: AtomicU64::new(0),
        drafts: AtomicU64::new(0),
        seen: std::sync::Mutex::default(),
        before: std::sync::Mutex::default(),
        alive: now.into(),
        woke: None.into(),
    });
    let heart = Arc::clone(&mock);
    std::thread::spawn(move || heart.beat());
    let address = format!("{}:{}", variable("RNACOS_SDK_HOST"), variable("RNACOS_HTTP_PORT"));
    for stream in TcpListener::bind(address).expect("port").incoming().flatten() {
        let mock = Arc::clone(&mock);
        std::thread::spawn(move || mock.connection(stream));
    }
}

impl Mock {
    fn beat(&self) {
        loop {
            std::thread::sleep(Duration::from_millis(20));
            let mut alive = self.alive.lock().expect("never poisoned");
            if alive.elapsed() > STOPPED_AFTER {
                *self.woke.lock().expect("never poisoned") = Some(std::time::Instant::now());
            }
            *alive = std::time::Instant::now();
        }
    }

    /// Whether this process was stopped until a moment ago.
    fn just_woke(&self) -> bool {
        let slept = self.alive.lock().expect("never poisoned").elapsed() > STOPPED_AFTER;
        slept
            || self
                .woke
                .lock()
                .expect("never poisoned")
                .is_some_and(|woke| woke.elapsed() < WAKING)
    }

    fn connection(self: &Arc<Self>, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let mut reader = BufReader::new(stream.try_clone().expect("clone"));
        let mut writer = stream;
        while let Some((method, target, body)) = read_request(&mut reader) {
            let (path, query) = target.split_once('?').unwrap_or((&target, ""));
            let parameters = parse(&format!("{query}&{body}"));
            let (status, answer) = match path.strip_suffix("/listener") {
                Some(_) => self.listen(&parameters),
                None => self.answer(&method, path, &parameters),
            };
            let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", answer.len());
            if writer.write_all(format!("{head}{answer}").as_bytes()).is_err() {
                return;
            }
        }
    }

    fn answer(
        self: &Arc<Self>,
        method: &str,
        path: &str,
        parameters: &HashMap<String, String>,
    ) -> (u16, String) {
        let key = parameters.get("dataId").map(String::as_str).unwrap_or_default();
        let turn = self.requests.fetch_add(1, Ordering::Relaxed) % EVERY == EVERY - 1;
        match (method, path) {
            ("GET", "/nacos/v1/raft/metrics") => (200, self.metrics()),
            ("GET", "/nacos/v1/cs/history") => (200, format!(r#"{{"totalCount":{}}}"#, self.newest(key).0)),
            ("GET", "/nacos/v1/cs/configs") => {
                let (_, found) = self.newest(key);
                let stale =
                    (self.bug == "stale-read" && turn) || (self.bug == "late-stale" && self.just_woke());
                let before = self.before.lock().expect("never poisoned").get(key).cloned();
                match if stale { before.unwrap_or(None) } else { found } {
                    Some(content) => (200, content),
                    None => (404, "config data not exist".into()),
                }
            }
            ("POST", "/nacos/v1/cs/configs") => self.publish(key, parameters, turn && key != "probe"),
            ("DELETE", "/nacos/v1/cs/configs") => {
                self.set_where(key, None, |_| true);
                (200, "true".into())
            }
            _ => (404, String::new()),
        }
    }

    /// A long poll. All processes share one truth, so what differs has changed.
    fn listen(&self, parameters: &HashMap<String, String>) -> (u16, String) {
        let listening = parameters.get("Listening-Configs").cloned().unwrap_or_default();
        let has: Vec<(&str, &str)> = listening
            .split('\u{1}')
            .filter_map(|entry| {
                let mut words = entry.split('\u{2}');
                Some((words.next()?, words.nth(1)?))
            })
            .collect();
        let begun = std::time::Instant::now();
        let hold = Duration::from_secs(29);
        while begun.elapsed() < hold {
            let changed = has.iter().filter(|(key, md5)| {
                let (_, found) = self.newest(key);
                found
                    .map(|found| jepsen::api::md5_hex(&found))
                    .unwrap_or_default()
                    != **md5
            });
            let told: String = changed.map(|(key, _)| format!("{key}%02jepsen%01")).collect();
            let is_first_look = begun.elapsed() < LOOKS_EVERY;
            // A deaf one compares when it is asked, and never looks again.
            if !told.is_empty() && (is_first_look || self.bug != "deaf-listener") {
                return (200, told + "\n");
            }
            std::thread::sleep(LOOKS_EVERY);
        }
        (200, String::new())
    }

    fn publish(
        self: &Arc<Self>,
        key: &str,
        parameters: &HashMap<String, String>,
        turn: bool,
    ) -> (u16, String) {
        let content = parameters.get("content").cloned().unwrap_or_default();
        if self.bug == "lost-ack" && turn {
            return (200, "true".into());
        }
        let applied = self.set_where(key, Some(&content), |found| {
            parameters.get("casMd5").is_none_or(|wanted| {
                found.is_some_and(|found| jepsen::api::md5_hex(found) == *wanted) || self.bug == "blind-cas"
            })
        });
        if self.bug == "phantom" && turn {
            return (400, "refused".into());
        }
        if self.bug == "double-apply" && turn && applied {
            let (mock, key) = (Arc::clone(self), key.to_owned());
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(100));
                mock.set_where(&key, Some(&content), |_| true);
            });
        }
        if applied {
            (200, "true".into())
        } else {
            (500, "false".into())
        }
    }

    fn metrics(&self) -> String {
        let alive = |id: &u64| {
            let pid = fs::read_to_string(self.store.join(format!("node{id}.pid"))).ok()?;
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let state = stat.rsplit_once(") ")?.1.chars().next()?;
            (!"TtZX".contains(state)).then_some(*id)
        };
        let leader = (1..=9).find_map(|id| alive(&id)).unwrap_or(self.id);
        // The leader is a register like others, and the number of its value is the term.
        let name = leader.to_string();
        self.set_where(LEADER, Some(&name), |found| found != Some(&name));
        let (term, _) = self.newest(LEADER);
        let state = if leader == self.id { "Leader" } else { "Follower" };
        let id = self.id;
        format!(
            r#"{{"id":{id},"state":"{state}","current_term":{term},"last_log_index":1,"last_applied":1,"current_leader":{leader}}}"#
        )
    }

    /// The newest value of a register and its number; 0 and nothing for one that was never set.
    fn newest(&self, key: &str) -> (u64, Option<String>) {
        let mut number = self
            .seen
            .lock()
            .expect("never poisoned")
            .get(key)
            .copied()
            .unwrap_or(0);
        while self.value_file(key, number + 1).exists() {
            number += 1;
        }
        self.seen
            .lock()
            .expect("never poisoned")
            .insert(key.to_owned(), number);
        let text = match number {
            0 => String::new(),
            _ => fs::read_to_string(self.value_file(key, number)).expect("linked whole and never removed"),
        };
        (number, text.strip_prefix(PRESENT).map(str::to_owned))
    }

    /// Sets a register if `wanted` holds of its newest value; says whether it did.
    fn set_where(&self, key: &str, content: Option<&str>, wanted: impl Fn(Option<&str>) -> bool) -> bool {
        let draft = format!("draft{}.{}", self.id, self.drafts.fetch_add(1, Ordering::Relaxed));
        let draft = self.store.join(draft);
        let text = content.map_or(String::new(), |content| format!("{PRESENT}{content}"));
        fs::write(&draft, text).expect("write");
        let done = loop {
            let (number, found) = self.newest(key);
            if !wanted(found.as_deref()) {
                break false;
            }
            self.before
                .lock()
                .expect("never poisoned")
                .insert(key.to_owned(), found);
            // Fails where another process was first with this number: then its value is the newest.
            if fs::hard_link(&draft, self.value_file(key, number + 1)).is_ok() {
                break true;
            }
        };
        fs::remove_file(draft).expect("only this process knows it");
        done
    }

    fn value_file(&self, key: &str, number: u64) -> PathBuf {
        self.store.join("configs").join(format!("{}@{number}", name(key)))
    }
}

/// A key as a file name.
fn name(key: &str) -> String {
    key.replace('/', "_")
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<(String, String, String)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok().filter(|read| *read > 0)?;
        if header.trim().is_empty() {
            break;
        }
        if let Some(value) = header.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((method, target, String::from_utf8(body).ok()?))
}

fn parse(form: &str) -> HashMap<String, String> {
    form.split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}

fn decode(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next().unwrap_or(b'0'), bytes.next().unwrap_or(b'0')];
            let digits = std::str::from_utf8(&digits).unwrap_or("00");
            out.push(u8::from_str_radix(digits, 16).unwrap_or(b'?'));
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).expect("the harness sends UTF-8")
}
