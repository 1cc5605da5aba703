//! Clean errors with a next step: every way to start or use a server wrongly that people have met.
//!
//! Each case starts a server wrongly on purpose, shows what it says, and checks three things: it does not
//! pretend to work, it leaves what is there untouched, and its sentence names what to do next.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use loadtest::ports;
use loadtest::process::{Scratch, describe};
use tokio::time::{Instant, sleep};

use crate::api::{Outcome, Reply};
use crate::cluster::START_PATIENCE;
use crate::node::{Node, POLL, Spec};
use crate::verdict::{Report, tell};
use loadtest::run::CONFIGS;

mod damage;
mod disk_full;

/// A server that is started wrongly says so within this time: it ends, or says what it waits for.
const SAYS_SO: Duration = Duration::from_secs(20);

/// The cases, in order, by the names `--only` takes.
pub const CASES: [&str; 11] = [
    "http-port-taken",
    "grpc-port-taken",
    "folder-locked",
    "folder-of-another-node",
    "folder-of-r-nacos",
    "damaged-log",
    "wrong-token",
    "missing-token",
    "join-address-unreachable",
    "contradicting-settings",
    "disk-nearly-full",
];

/// A place to start servers in.
struct Ground<'a> {
    server: &'a Path,
    directory: PathBuf,
}

impl Ground<'_> {
    /// A lone node `name` with a free pair of ports.
    fn node(&self, name: &str, id: u64) -> anyhow::Result<Node> {
        let spec = Spec::lone(
            self.server.into(),
            id,
            ports::pairs(1)?[0],
            self.directory.join(name),
        )?;
        Ok(Node::new(spec))
    }
}

/// Runs all cases, or only the named ones.
pub async fn run(server: &Path, scratch: &Scratch, only: &[String]) -> anyhow::Result<Report> {
    let mut report = Report::new("errors");
    for case in CASES
        .into_iter()
        .filter(|case| only.is_empty() || only.iter().any(|name| name == case))
    {
        let ground = Ground {
            server,
            directory: scratch.path().join(case),
        };
        match one_case(case, &ground).await {
            Ok(Shown::Said(words)) => {
                tell(format!("{case}:\n    {}", words.replace('\n', "\n    ")));
                report.figure(case, "clean");
            }
            Ok(Shown::NotPossibleHere(why)) => report.void(format!("{case}: {why}")),
            Err(error) => report.violate(format!("{case}: {error:#}")),
        }
    }
    Ok(report)
}

/// What a case showed.
enum Shown {
    /// The server's own words.
    Said(String),
    /// The case cannot be carried out on this machine.
    NotPossibleHere(String),
}

async fn one_case(case: &str, ground: &Ground<'_>) -> anyhow::Result<Shown> {
    match case {
        "http-port-taken" => port_taken(ground, 0, "RNACOS_HTTP_PORT").await,
        "grpc-port-taken" => port_taken(ground, ports::GRPC_OFFSET, "RNACOS_GRPC_PORT").await,
        "folder-locked" => folder_locked(ground).await,
        "folder-of-another-node" => folder_of_another_node(ground).await,
        "folder-of-r-nacos" => folder_of_r_nacos(ground).await,
        "damaged-log" => damage::log(ground).await,
        "wrong-token" => token(ground, Some("another-secret-of-the-same-length")).await,
        "missing-token" => token(ground, None).await,
        "join-address-unreachable" => join_address_unreachable(ground).await,
        "contradicting-settings" => contradicting_settings(ground).await,
        "disk-nearly-full" => disk_full::run(ground).await,
        other => anyhow::bail!("there is no case {other}; the cases are {}", CASES.join(", ")),
    }
}

/// Starts the node and waits until it has ended by itself, with an error and the given words.
async fn refuses(node: &mut Node, words: &[&str]) -> anyhow::Result<Shown> {
    node.start()?;
    let deadline = Instant::now() + SAYS_SO;
    loop {
        if let Some(status) = node.ended()? {
            anyhow::ensure!(!status.success(), "ended with success; it said:\n{}", node.said());
            anyhow::ensure!(
                status.code().is_some(),
                "ended by {}; it said:\n{}",
                describe(status),
                node.said()
            );
            return said_with(node, words);
        }
        anyhow::ensure!(
            Instant::now() < deadline,
            "still runs after {} s; it said:\n{}",
            SAYS_SO.as_secs(),
            node.said()
        );
        sleep(POLL).await;
    }
}

/// Starts the node and waits until it has said the words, by ending or in its log, without ever taking a write.
async fn never_serves(node: &mut Node, words: &[&str]) -> anyhow::Result<Shown> {
    node.start()?;
    let deadline = Instant::now() + SAYS_SO;
    loop {
        let ended = node.ended()?;
        if let Some(status) = ended {
            anyhow::ensure!(!status.success(), "ended with success; it said:\n{}", node.said());
        }
        let written = node
            .client(Duration::from_secs(3))
            .publish("errors", "must not be taken")
            .await;
        anyhow::ensure!(!written.is_done(), "took a write");
        if ended.is_some() || missing(&node.said(), words).is_empty() || Instant::now() > deadline {
            return said_with(node, words);
        }
        sleep(POLL).await;
    }
}

/// Its words, if they hold all of the given ones. A word `a|b` stands for either.
fn said_with(node: &Node, words: &[&str]) -> anyhow::Result<Shown> {
    let said = node.said();
    let missing = missing(&said, words);
    anyhow::ensure!(
        missing.is_empty(),
        "its words do not name {missing:?}:\n{}",
        crate::node::tail(&said)
    );
    anyhow::ensure!(!said.contains("panicked"), "it panicked:\n{said}");
    Ok(Shown::Said(relevant(&said)))
}

fn missing<'w>(said: &str, words: &[&'w str]) -> Vec<&'w str> {
    let said = said.to_lowercase();
    let named = |word: &str| {
        word.split('|')
            .any(|either| said.contains(&either.to_lowercase()))
    };
    words.iter().copied().filter(|word| !named(word)).collect()
}

/// Lines that warn or complain; all of it if there are none.
fn relevant(said: &str) -> String {
    let lines: Vec<&str> = said
        .lines()
        .filter(|line| !line.contains(" INFO ") && !line.trim().is_empty())
        .collect();
    crate::node::tail(&if lines.is_empty() {
        said.to_owned()
    } else {
        lines.join("\n")
    })
}

async fn port_taken(ground: &Ground<'_>, offset: u16, setting: &str) -> anyhow::Result<Shown> {
    let mut node = ground.node("node", 1)?;
    let port = node.spec.http + offset;
    let _taken = TcpListener::bind(("127.0.0.1", port))?;
    refuses(&mut node, &[&port.to_string(), setting]).await
}

async fn folder_locked(ground: &Ground<'_>) -> anyhow::Result<Shown> {
    let mut first = ground.node("first", 1)?;
    first.start()?;
    first.wait_until_it_writes(START_PATIENCE).await?;
    let mut second = ground.node("second", 1)?;
    second.spec.data = first.spec.data.clone();
    let shown = refuses(
        &mut second,
        &[
            "another|other",
            "RNACOS_DATA_DIR|RNACOS_CONFIG_DB_DIR|stop it|stop the",
        ],
    )
    .await?;
    let still = first
        .client(Duration::from_secs(5))
        .publish("errors", "the first goes on")
        .await;
    anyhow::ensure!(still.is_done(), "the first server does not go on: {still:?}");
    Ok(shown)
}

async fn folder_of_another_node(ground: &Ground<'_>) -> anyhow::Result<Shown> {
    let mut first = ground.node("first", 1)?;
    first.start()?;
    first.wait_until_it_writes(START_PATIENCE).await?;
    first.terminate(Duration::from_secs(20)).await?;
    let mut second = ground.node("second", 2)?;
    second.spec.data = first.spec.data.clone();
    let shown = refuses(
        &mut second,
        &["RNACOS_RAFT_NODE_ID|RNACOS_DATA_DIR|RNACOS_CONFIG_DB_DIR", "1"],
    )
    .await?;
    first.start()?;
    first
        .wait_until_it_writes(START_PATIENCE)
        .await
        .context("the folder does not serve its own node any more")?;
    Ok(shown)
}

async fn folder_of_r_nacos(ground: &Ground<'_>) -> anyhow::Result<Shown> {
    let mut node = ground.node("node", 1)?;
    fs::create_dir_all(&node.spec.data)?;
    for name in ["index", "log_1", "snapshot_1"] {
        fs::write(node.spec.data.join(name), format!("{name} of r-nacos"))?;
    }
    let shown = refuses(
        &mut node,
        &[
            "r-nacos",
            "RNACOS_DATA_DIR|RNACOS_CONFIG_DB_DIR|import|another folder|empty folder",
        ],
    )
    .await?;
    for name in ["index", "log_1", "snapshot_1"] {
        let left =
            fs::read_to_string(node.spec.data.join(name)).with_context(|| format!("{name} is gone"))?;
        anyhow::ensure!(left == format!("{name} of r-nacos"), "{name} was changed");
    }
    Ok(shown)
}

async fn token(ground: &Ground<'_>, of_joiner: Option<&str>) -> anyhow::Result<Shown> {
    const TOKEN: (&str, &str) = ("RNACOS_CLUSTER_TOKEN", "the-secret-that-the-founder-knows");
    let mut founder = ground.node("founder", 1)?;
    founder.spec.extra.push((TOKEN.0.to_owned(), TOKEN.1.to_owned()));
    founder.start()?;
    founder.wait_until_it_writes(START_PATIENCE).await?;
    let mut joiner = ground.node("joiner", 2)?;
    joiner.spec.join = Some(founder.spec.advertised.clone());
    joiner
        .spec
        .extra
        .extend(of_joiner.map(|token| (TOKEN.0.to_owned(), token.to_owned())));
    let shown = never_serves(&mut joiner, &[TOKEN.0]).await?;
    let status = founder
        .raft_status()
        .await
        .context("the founder does not answer")?;
    anyhow::ensure!(status.leads, "the founder does not lead any more: {status:?}");
    for node in [&founder, &joiner] {
        anyhow::ensure!(
            !node.said().contains(TOKEN.1),
            "the token stands in the log of node {}",
            node.spec.id
        );
    }
    Ok(shown)
}

async fn join_address_unreachable(ground: &Ground<'_>) -> anyhow::Result<Shown> {
    let mut node = ground.node("node", 2)?;
    let nobody = format!("127.0.0.1:{}", ports::pairs(2)?[1]);
    node.spec.join = Some(nobody.clone());
    never_serves(&mut node, &["RNACOS_RAFT_JOIN_ADDR", &nobody]).await
}

async fn contradicting_settings(ground: &Ground<'_>) -> anyhow::Result<Shown> {
    let mut node = ground.node("node", 2)?;
    node.spec.join = Some("127.0.0.1:1".to_owned());
    node.spec
        .extra
        .push(("RNACOS_RAFT_AUTO_INIT".to_owned(), "true".to_owned()));
    node.spec
        .extra
        .push(("RNACOS_HTTP_WORKERS".to_owned(), "many".to_owned()));
    // Both mistakes at once, not one per start.
    refuses(
        &mut node,
        &[
            "RNACOS_RAFT_AUTO_INIT",
            "RNACOS_RAFT_JOIN_ADDR",
            "RNACOS_HTTP_WORKERS",
        ],
    )
    .await
}

/// Publishes and returns the server's answer, whatever it is.
async fn publish_reply(node: &Node, key: &str, content: &str) -> Outcome<Reply> {
    let form = loadtest::http::encode(&[
        ("dataId", key),
        ("group", crate::api::GROUP),
        ("content", content),
    ]);
    node.client(Duration::from_secs(10)).post(CONFIGS, &form).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_looked_for_in_any_case_and_as_alternatives() {
        let said = "Port 8848 is taken: set RNACOS_HTTP_PORT";
        assert!(missing(said, &["8848", "rnacos_http_port", "nothing|PORT"]).is_empty());
        assert_eq!(missing(said, &["8849", "a|b|port"]), ["8849"]);
    }

    #[test]
    fn information_is_left_out_of_what_is_shown() {
        let said = "2026 INFO started\n2026 ERROR port taken\n";
        assert_eq!(relevant(said), "2026 ERROR port taken");
        assert_eq!(relevant("2026 INFO only\n"), "2026 INFO only");
    }
}
