//! Servers to be compared: how they are started, by a description in JSON, and how it is known that they serve.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout};

use crate::http::{Connection, encode, write_form, write_request};
use crate::ports::{self, GRPC_OFFSET};
use crate::process::{Child, Program};
use crate::run::{CONFIGS, Check};

/// A peer must serve what it acknowledged within this time after its start (Java takes up to a minute).
const START_PATIENCE: Duration = Duration::from_secs(120);

/// A server that acknowledges and does not give back for so long will not do so later either; r-nacos 0.8.8
/// now and then ends so when it is started for the first time on a busy machine.
const MUTE_PATIENCE: Duration = Duration::from_secs(15);

/// Times a peer is started, each on fresh folders, before it is given up as [`Mute`].
const STARTS_MAX: usize = 4;

/// A single question whether a peer serves may take this long.
const PROBE_PATIENCE: Duration = Duration::from_secs(5);

/// One of those compared: a lone server or a cluster.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Name in the report.
    pub name: String,
    /// Its processes, started one after the other.
    pub nodes: Vec<Node>,
    /// How closely its answers are looked at; `length` is for the floor.
    #[serde(default = "default_check")]
    pub check: Check,
    /// Counter of syncs in its `/metrics`, if it has one.
    #[serde(default)]
    pub sync_metric: String,
}

/// One process of a peer.
///
/// In command and environment these are replaced: `{http}` and `{grpc}` (a free pair), `{spare}` (another
/// free port), `{dir}` (an empty folder of its own), and `{http.N}`, `{grpc.N}` of the peer's N-th node.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Its whole environment (besides PATH, HOME and TMPDIR).
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
}

fn default_check() -> Check {
    Check::Content
}

/// A started peer; its processes end with it.
#[derive(Debug)]
pub struct Running {
    /// Its description.
    pub peer: Peer,
    /// HTTP `host:port` of each node.
    pub addresses: Vec<String>,
    programs: Vec<Program>,
    children: Vec<Child>,
}

/// A server acknowledged a config and did not give it back.
#[derive(Debug)]
struct Mute(String);

impl std::fmt::Display for Mute {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "acknowledged and not given back: {}", self.0)
    }
}

impl std::error::Error for Mute {}

impl Running {
    /// Starts the nodes one after the other, each once the one before serves what it acknowledged. A peer one of
    /// whose nodes does not is started anew, some times.
    pub async fn start(peer: &Peer, directory: &Path) -> anyhow::Result<Self> {
        let mut starts = 0;
        loop {
            starts += 1;
            match Self::start_once(peer, &directory.join(format!("start{starts}"))).await {
                Err(error) if error.root_cause().is::<Mute>() && starts < STARTS_MAX => {}
                started => return started,
            }
        }
    }

    async fn start_once(peer: &Peer, directory: &Path) -> anyhow::Result<Self> {
        let ports = ports::pairs(peer.nodes.len() * 2)?;
        let http: Vec<u16> = ports.iter().copied().step_by(2).collect();
        let mut running = Self {
            peer: peer.clone(),
            addresses: Vec::new(),
            programs: Vec::new(),
            children: Vec::new(),
        };
        for (number, node) in peer.nodes.iter().enumerate() {
            let own = directory.join(format!("node{}", number + 1));
            std::fs::create_dir_all(&own)?;
            let fill = |text: &String| fill(text, number, &http, ports[number * 2 + 1], &own);
            let mut words = node.command.iter().map(fill);
            let path = words.next().context("a node's command is empty")?;
            // A path relative to where the harness was called; a bare name is looked up on the PATH.
            let path = if path.contains('/') {
                std::fs::canonicalize(&path).with_context(|| format!("find {path}"))?
            } else {
                path.into()
            };
            let program = Program {
                path,
                arguments: words.map(Into::into).collect(),
                environment: node
                    .environment
                    .iter()
                    .map(|(name, value)| (name.clone(), fill(value)))
                    .collect(),
                directory: own.clone(),
                output: own.join("output.log"),
            };
            running.children.push(program.start()?);
            running.programs.push(program);
            running.addresses.push(format!("127.0.0.1:{}", http[number]));
            let address = running.addresses[number].clone();
            let served = wait_until_it_serves(&address, peer.check, || running.still_alive()).await;
            served.with_context(|| format!("node {}", number + 1))?;
        }
        Ok(running)
    }

    /// Process ids of its nodes.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.children.iter().map(Child::pid).collect()
    }

    /// Kills a node, by its place, and starts it again; does not wait until it serves.
    pub fn kill_and_start(&mut self, place: usize) -> anyhow::Result<()> {
        self.children[place].kill()?;
        self.children[place] = self.programs[place].start()?;
        Ok(())
    }

    /// Fails, with the node's own words, if one has ended.
    pub fn still_alive(&mut self) -> anyhow::Result<()> {
        for (number, child) in self.children.iter_mut().enumerate() {
            if let Some(status) = child.ended()? {
                let how = crate::process::describe(status);
                anyhow::bail!(
                    "{}: node {} ended ({how}); it said:\n{}",
                    self.peer.name,
                    number + 1,
                    child.said()
                );
            }
        }
        Ok(())
    }
}

fn fill(text: &str, number: usize, http: &[u16], spare: u16, directory: &Path) -> String {
    let mut out = text
        .replace("{http}", &http[number].to_string())
        .replace("{grpc}", &(http[number] + GRPC_OFFSET).to_string())
        .replace("{spare}", &spare.to_string())
        .replace("{dir}", &directory.to_string_lossy());
    for (other, port) in http.iter().enumerate() {
        out = out
            .replace(&format!("{{http.{}}}", other + 1), &port.to_string())
            .replace(
                &format!("{{grpc.{}}}", other + 1),
                &(port + GRPC_OFFSET).to_string(),
            );
    }
    out
}

/// Waits until the address gives back what it acknowledged; fails after two minutes, or as soon as
/// `alive`, asked before each try, fails.
pub async fn wait_until_it_serves(
    address: &str,
    check: Check,
    mut alive: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + START_PATIENCE;
    let (mut last, mut mute_since) = (String::new(), None);
    while Instant::now() < deadline {
        alive()?;
        match timeout(PROBE_PATIENCE, serves(address, check)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => {
                last = error.to_string();
                if error.is::<Mute>() {
                    let since = *mute_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > MUTE_PATIENCE {
                        return Err(error.context(format!("{address} does not serve")));
                    }
                }
            }
            Err(_) => last = format!("no answer within {} s", PROBE_PATIENCE.as_secs()),
        }
        sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("{address} does not serve what it acknowledges: {last}")
}

/// Publishes one config and reads it back: r-nacos may acknowledge what it does not serve.
async fn serves(address: &str, check: Check) -> anyhow::Result<()> {
    let mut connection = Connection::open(address.parse()?).await?;
    let mut request = Vec::new();
    let form = encode(&[
        ("dataId", "loadtest.probe"),
        ("group", "loadtest"),
        ("content", "here"),
    ]);
    write_form(&mut request, "POST", address, CONFIGS, form.as_bytes());
    let answer = connection.exchange(&request).await?;
    anyhow::ensure!(
        answer.status == 200 && answer.body == b"true",
        "publish: {} {}",
        answer.status,
        answer.text()
    );
    let query = encode(&[("dataId", "loadtest.probe"), ("group", "loadtest")]);
    write_request(&mut request, "GET", address, &format!("{CONFIGS}?{query}"));
    let answer = connection.exchange(&request).await?;
    let right = check == Check::Length || answer.body == b"here";
    if answer.status == 200 && right {
        return Ok(());
    }
    Err(Mute(format!("{} {}", answer.status, answer.text())).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_name_own_and_other_ports() {
        let text = "{http} {grpc} {spare} {dir} {http.1} {grpc.1}";
        let filled = fill(text, 1, &[20000, 22000], 24000, Path::new("/x"));
        assert_eq!(filled, "22000 23000 24000 /x 20000 21000");
    }
}
