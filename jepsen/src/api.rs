//! A client that says of every request: done, certainly not done, or unknown.
//!
//! The classification is the checker's foundation, and it takes the server at its word: a request counts
//! as not done if it was never sent, or if the answer is a 4xx or a 503, which promise that nothing was
//! written. A refused write that is found later is therefore a broken promise. A time limit, a broken
//! connection and every other 5xx may all hide a write that happened.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use loadtest::http::{Connection, encode, write_form, write_request};
use loadtest::run::CONFIGS;
use md5::{Digest as _, Md5};
use tokio::time::timeout;

/// Group of everything the harness publishes.
pub const GROUP: &str = "jepsen";

/// Stands between the words of an entry of a long poll.
const WORD: &str = "\u{2}";

/// Ends an entry.
const LINE: &str = "\u{1}";

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<T> {
    /// Answered.
    Done(T),
    /// It was certainly not carried out.
    Refused(String),
    /// It may have been carried out, now or even later.
    Unknown(String),
}

impl<T> Outcome<T> {
    /// Whether it was answered.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done(_))
    }

    /// The same, with another answer.
    pub fn map<U>(self, with: impl FnOnce(T) -> U) -> Outcome<U> {
        match self {
            Self::Done(value) => Outcome::Done(with(value)),
            Self::Refused(why) => Outcome::Refused(why),
            Self::Unknown(why) => Outcome::Unknown(why),
        }
    }
}

/// A status and a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Body as text.
    pub body: String,
}

/// What `/nacos/v1/raft/metrics` tells, in the form r-nacos users know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaftStatus {
    /// Whether the node says that it leads.
    pub leads: bool,
    /// Its term.
    pub term: u64,
    /// Index of its last log entry.
    pub last_log_index: u64,
    /// Index up to which its state is applied.
    pub last_applied: u64,
    /// Node id of the leader it knows.
    pub leader: Option<u64>,
}

/// A client of one node, with one connection that is opened when needed and dropped when it fails.
#[derive(Debug)]
pub struct Client {
    address: SocketAddr,
    patience: Duration,
    connection: Option<Connection>,
    /// How many there were.
    connections: u64,
    request: Vec<u8>,
}

impl Client {
    /// A client that waits at most `patience` for each answer, connecting included.
    #[must_use]
    pub fn new(address: SocketAddr, patience: Duration) -> Self {
        Self {
            address,
            patience,
            connection: None,
            connections: 0,
            request: Vec::new(),
        }
    }

    /// Connects now, so that a later request finds an open connection.
    pub async fn connect(&mut self) -> anyhow::Result<()> {
        let opened = timeout(self.patience, Connection::open(self.address))
            .await
            .context("connecting took too long")?;
        self.connection = Some(opened?);
        self.connections += 1;
        Ok(())
    }

    /// Publishes a content.
    pub async fn publish(&mut self, key: &str, content: &str) -> Outcome<()> {
        let form = encode(&[("dataId", key), ("group", GROUP), ("content", content)]);
        acknowledged(self.post(CONFIGS, &form).await)
    }

    /// Publishes a content if the present one has this md5: `true` if it was so, `false` if not.
    pub async fn compare_and_set(&mut self, key: &str, expected: &str, content: &str) -> Outcome<bool> {
        let md5 = md5_hex(expected);
        let form = encode(&[
            ("dataId", key),
            ("group", GROUP),
            ("content", content),
            ("casMd5", &md5),
        ]);
        let outcome = self.post(CONFIGS, &form).await;
        // A mismatch is definite: 500 with the body `false` or with Nacos 2.5's sentence.
        if let Outcome::Done(Reply { status: 500, body }) = &outcome
            && (body.trim() == "false" || body.contains("md5 may have changed"))
        {
            return Outcome::Done(false);
        }
        acknowledged(outcome).map(|()| true)
    }

    /// Removes a config; also done if there is none.
    pub async fn remove(&mut self, key: &str) -> Outcome<()> {
        let query = encode(&[("dataId", key), ("group", GROUP)]);
        acknowledged(self.call("DELETE", &format!("{CONFIGS}?{query}")).await)
    }

    /// Reads a config: `None` if there is none.
    pub async fn get(&mut self, key: &str, linearizable: bool) -> Outcome<Option<String>> {
        let mut query = encode(&[("dataId", key), ("group", GROUP)]);
        if linearizable {
            query.push_str("&consistency=linearizable");
        }
        match self.call("GET", &format!("{CONFIGS}?{query}")).await {
            Outcome::Done(Reply { status: 200, body }) => Outcome::Done(Some(body)),
            Outcome::Done(Reply { status: 404, body: _ }) => Outcome::Done(None),
            Outcome::Done(reply) => Outcome::Refused(format!("{} {}", reply.status, reply.body)),
            Outcome::Refused(why) => Outcome::Refused(why),
            Outcome::Unknown(why) => Outcome::Unknown(why),
        }
    }

    /// How often a config was written, by its history.
    pub async fn times_written(&mut self, key: &str) -> Outcome<u64> {
        let pairs = [
            ("search", "accurate"),
            ("dataId", key),
            ("group", GROUP),
            ("pageNo", "1"),
            ("pageSize", "1"),
        ];
        let target = format!("/nacos/v1/cs/history?{}", encode(&pairs));
        match self.call("GET", &target).await {
            Outcome::Done(Reply { status: 200, body }) => {
                let page: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
                match page.get("totalCount").and_then(serde_json::Value::as_u64) {
                    Some(count) => Outcome::Done(count),
                    None => Outcome::Unknown(format!("a history without totalCount: {body}")),
                }
            }
            Outcome::Done(reply) => Outcome::Unknown(format!("{} {}", reply.status, reply.body)),
            Outcome::Refused(why) => Outcome::Refused(why),
            Outcome::Unknown(why) => Outcome::Unknown(why),
        }
    }

    /// A long poll (`/configs/listener`) of these keys and the contents the client has of them, held for
    /// `hold` at most: the keys that are told to have changed. The client's patience must be longer.
    pub async fn poll(
        &mut self,
        has: impl Iterator<Item = (&str, Option<&str>)>,
        hold: Duration,
    ) -> Outcome<Vec<String>> {
        let mut listening = String::new();
        for (key, content) in has {
            let md5 = content.map(md5_hex).unwrap_or_default();
            listening.extend([key, WORD, GROUP, WORD, &md5, LINE]);
        }
        let form = encode(&[("Listening-Configs", &listening)]);
        let mut request = std::mem::take(&mut self.request);
        request.clear();
        // The server answers half a second before the time named here.
        let head = format!(
            "POST {CONFIGS}/listener HTTP/1.1\r\nHost: {}\r\nLong-Pulling-Timeout: {}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n",
            self.address,
            hold.as_millis() + 500,
            form.len()
        );
        request.extend_from_slice(head.as_bytes());
        request.extend_from_slice(form.as_bytes());
        match self.exchange(request).await {
            Outcome::Done(Reply { status: 200, body }) => Outcome::Done(told(&body)),
            Outcome::Done(reply) => Outcome::Refused(format!("{} {}", reply.status, reply.body)),
            Outcome::Refused(why) => Outcome::Refused(why),
            Outcome::Unknown(why) => Outcome::Unknown(why),
        }
    }

    /// Connections opened so far: two requests between which this did not change were sent on one.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections
    }

    /// The node's view of the raft group.
    pub async fn raft_status(&mut self) -> anyhow::Result<RaftStatus> {
        match self.call("GET", "/nacos/v1/raft/metrics").await {
            Outcome::Done(Reply { status: 200, body }) => raft_status(&body),
            other => anyhow::bail!("raft metrics: {other:?}"),
        }
    }

    /// Any request without a body; any answer is `Done`.
    pub async fn call(&mut self, method: &str, target: &str) -> Outcome<Reply> {
        let mut request = std::mem::take(&mut self.request);
        write_request(&mut request, method, &self.address.to_string(), target);
        self.exchange(request).await
    }

    /// A POST with a form; any answer is `Done`.
    pub async fn post(&mut self, target: &str, form: &str) -> Outcome<Reply> {
        let mut request = std::mem::take(&mut self.request);
        write_form(
            &mut request,
            "POST",
            &self.address.to_string(),
            target,
            form.as_bytes(),
        );
        self.exchange(request).await
    }

    /// A request written by somebody else; any answer is `Done`.
    pub async fn send(&mut self, request: &[u8]) -> Outcome<Reply> {
        let mut own = std::mem::take(&mut self.request);
        own.clear();
        own.extend_from_slice(request);
        self.exchange(own).await
    }

    async fn exchange(&mut self, request: Vec<u8>) -> Outcome<Reply> {
        self.request = request;
        let deadline = tokio::time::Instant::now() + self.patience;
        if self
            .connection
            .as_ref()
            .is_none_or(|connection| !connection.usable())
        {
            self.connection = match tokio::time::timeout_at(deadline, Connection::open(self.address)).await {
                Ok(Ok(connection)) => {
                    self.connections += 1;
                    Some(connection)
                }
                Ok(Err(error)) => return Outcome::Refused(format!("not connected: {error}")),
                Err(_) => return Outcome::Refused("not connected in time".to_owned()),
            };
        }
        let Some(connection) = self.connection.as_mut() else {
            return Outcome::Refused("not connected".to_owned());
        };
        match tokio::time::timeout_at(deadline, connection.exchange(&self.request)).await {
            Ok(Ok(answer)) => Outcome::Done(Reply {
                status: answer.status,
                body: answer.text(),
            }),
            Ok(Err(error)) => {
                self.connection = None;
                if error.may_have_happened() {
                    Outcome::Unknown(error.to_string())
                } else {
                    Outcome::Refused(error.to_string())
                }
            }
            Err(_) => {
                self.connection = None;
                Outcome::Unknown(format!("no answer within {} ms", self.patience.as_millis()))
            }
        }
    }
}

/// The keys in the answer to a long poll: `dataId%02group%01` for each, then a newline.
fn told(body: &str) -> Vec<String> {
    let entries = body.trim().split("%01").filter(|entry| !entry.is_empty());
    entries
        .map(|entry| entry.split("%02").next().unwrap_or(entry).to_owned())
        .collect()
}

/// A write's answer: 200 `true` is done, 4xx and 503 certainly not, everything else unknown.
fn acknowledged(outcome: Outcome<Reply>) -> Outcome<()> {
    match outcome {
        Outcome::Done(Reply { status: 200, body }) if body.trim() == "true" => Outcome::Done(()),
        Outcome::Done(Reply {
            status: 400..=499 | 503,
            body,
        }) => Outcome::Refused(body),
        Outcome::Done(Reply { status, body }) => Outcome::Unknown(format!("{status} {body}")),
        Outcome::Refused(why) => Outcome::Refused(why),
        Outcome::Unknown(why) => Outcome::Unknown(why),
    }
}

fn raft_status(body: &str) -> anyhow::Result<RaftStatus> {
    let json: serde_json::Value =
        serde_json::from_str(body).with_context(|| format!("raft metrics: {body}"))?;
    let number = |name: &str| json.get(name).and_then(serde_json::Value::as_u64);
    Ok(RaftStatus {
        leads: json.get("state").and_then(serde_json::Value::as_str) == Some("Leader"),
        term: number("current_term").context("raft metrics without current_term")?,
        last_log_index: number("last_log_index").context("raft metrics without last_log_index")?,
        last_applied: number("last_applied").context("raft metrics without last_applied")?,
        leader: number("current_leader").filter(|leader| *leader > 0),
    })
}

/// The md5 of a content in lower-case hexadecimal, as Nacos writes it.
#[must_use]
pub fn md5_hex(content: &str) -> String {
    Md5::digest(content.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, body: &str) -> Outcome<Reply> {
        Outcome::Done(Reply {
            status,
            body: body.to_owned(),
        })
    }

    #[test]
    fn only_true_is_an_acknowledgement_and_only_4xx_and_503_are_definite() {
        assert_eq!(acknowledged(reply(200, "true")), Outcome::Done(()));
        assert!(matches!(acknowledged(reply(200, "<html>")), Outcome::Unknown(_)));
        assert!(matches!(
            acknowledged(reply(400, "content is blank")),
            Outcome::Refused(_)
        ));
        assert!(matches!(
            acknowledged(reply(503, "no leader")),
            Outcome::Refused(_)
        ));
        assert!(matches!(acknowledged(reply(500, "false")), Outcome::Unknown(_)));
        assert!(matches!(
            acknowledged(reply(504, "it may have happened")),
            Outcome::Unknown(_)
        ));
    }

    #[test]
    fn a_leader_is_told_by_its_state_and_no_leader_by_null() {
        let text = r#"{"id":1,"state":"Leader","current_term":3,"last_log_index":9,"last_applied":8,"current_leader":1}"#;
        let status = raft_status(text).expect("complete");
        assert_eq!(
            status,
            RaftStatus {
                leads: true,
                term: 3,
                last_log_index: 9,
                last_applied: 8,
                leader: Some(1)
            }
        );
        let text = r#"{"id":1,"state":"Follower","current_term":3,"last_log_index":9,"last_applied":8,"current_leader":null}"#;
        assert_eq!(raft_status(text).expect("complete").leader, None);
        assert!(raft_status("{}").is_err());
    }

    #[test]
    fn the_answer_to_a_long_poll_names_the_changed() {
        assert!(told("").is_empty());
        assert_eq!(told("a.1%02jepsen%01b%02jepsen%01\n"), ["a.1", "b"]);
    }

    #[test]
    fn md5_is_written_as_nacos_does() {
        assert_eq!(md5_hex(""), "d41d8cd98f00b204e9800998ecf8427e");
    }
}
