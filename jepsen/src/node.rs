//! One server process: started by environment variables, killed and paused by signals.

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Context as _;
use loadtest::process::{Child, Program, describe};
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use crate::api::{Client, Outcome, RaftStatus};

/// How often a wait asks again.
pub const POLL: Duration = Duration::from_millis(20);

/// How a node is started; the same at every start, as an operator would do it.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Server binary.
    pub server: PathBuf,
    /// Words before the binary (`nsenter …`, `strace …`); may be empty.
    pub wrapper: Vec<OsString>,
    /// RNACOS_RAFT_NODE_ID.
    pub id: u64,
    /// Address it listens on and is asked at.
    pub host: IpAddr,
    /// HTTP port.
    pub http: u16,
    /// gRPC port.
    pub grpc: u16,
    /// RNACOS_RAFT_NODE_ADDR: where the other nodes dial it.
    pub advertised: String,
    /// RNACOS_RAFT_JOIN_ADDR; `None` founds.
    pub join: Option<String>,
    /// Working directory and place of the log.
    pub directory: PathBuf,
    /// RNACOS_CONFIG_DB_DIR.
    pub data: PathBuf,
    /// Further variables; they win over the ones above.
    pub extra: Vec<(String, String)>,
}

impl Spec {
    /// A lone node on loopback in `directory`, which is made.
    pub fn lone(server: PathBuf, id: u64, http: u16, directory: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&directory)?;
        let grpc = http + loadtest::ports::GRPC_OFFSET;
        Ok(Self {
            server,
            wrapper: Vec::new(),
            id,
            host: IpAddr::from([127, 0, 0, 1]),
            http,
            grpc,
            advertised: format!("127.0.0.1:{grpc}"),
            join: None,
            data: directory.join("db"),
            directory,
            extra: Vec::new(),
        })
    }

    /// HTTP address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.http)
    }

    /// The environment of the announcement.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let mut environment: Vec<(String, String)> = [
            ("RNACOS_HTTP_PORT", self.http.to_string()),
            ("RNACOS_GRPC_PORT", self.grpc.to_string()),
            ("RNACOS_SDK_HOST", self.host.to_string()),
            ("RNACOS_RAFT_NODE_ADDR", self.advertised.clone()),
            ("RNACOS_CONFIG_DB_DIR", self.data.to_string_lossy().into_owned()),
            ("RNACOS_RAFT_NODE_ID", self.id.to_string()),
            ("RUST_LOG", "info".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        match &self.join {
            Some(join) => environment.push(("RNACOS_RAFT_JOIN_ADDR".to_owned(), join.clone())),
            None => environment.push(("RNACOS_RAFT_AUTO_INIT".to_owned(), "true".to_owned())),
        }
        environment.retain(|(name, _)| self.extra.iter().all(|(other, _)| other != name));
        environment.extend(self.extra.iter().cloned());
        environment
    }

    fn program(&self) -> Program {
        let mut words = self
            .wrapper
            .iter()
            .cloned()
            .chain([self.server.clone().into_os_string()]);
        let path = words.next().unwrap_or_default().into();
        Program {
            path,
            arguments: words.collect(),
            environment: self.environment(),
            directory: self.directory.clone(),
            output: self.directory.join("output.log"),
        }
    }
}

/// A node: its spec and, while it runs, its process.
#[derive(Debug)]
pub struct Node {
    /// How it is started.
    pub spec: Spec,
    child: Option<Child>,
    paused: bool,
    starts: u32,
}

impl Node {
    /// A node that is not started yet.
    #[must_use]
    pub fn new(spec: Spec) -> Self {
        Self {
            spec,
            child: None,
            paused: false,
            starts: 0,
        }
    }

    /// Starts the process; does not wait until it serves.
    pub fn start(&mut self) -> anyhow::Result<()> {
        anyhow::ensure!(!self.runs(), "node {} is running already", self.spec.id);
        let child = self
            .spec
            .program()
            .start()
            .with_context(|| format!("start node {}", self.spec.id))?;
        self.child = Some(child);
        self.paused = false;
        self.starts += 1;
        Ok(())
    }

    /// Whether the process is alive, paused or not.
    pub fn runs(&mut self) -> bool {
        self.child
            .as_mut()
            .is_some_and(|child| matches!(child.ended(), Ok(None)))
    }

    /// Whether the process is alive and not paused.
    pub fn serves(&mut self) -> bool {
        !self.paused && self.runs()
    }

    /// Process id, if started.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::pid)
    }

    /// kill -9, returning at once. The process may linger for as long as the disk takes to finish a sync
    /// it is in, but none of its threads runs any more.
    pub fn kill_now(&mut self) -> anyhow::Result<()> {
        if let Some(child) = &mut self.child {
            child.signal(Signal::KILL)?;
        }
        self.paused = false;
        Ok(())
    }

    /// kill -9, returning once the process is gone. A dead node stays dead.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
        }
        self.paused = false;
        Ok(())
    }

    /// SIGTERM. The process may take its time to end; a dead node stays dead.
    pub fn ask_to_end(&mut self) -> anyhow::Result<()> {
        self.resume()?;
        if let Some(child) = &mut self.child {
            child.signal(Signal::TERM)?;
        }
        Ok(())
    }

    /// Waits for the end that was asked for, and kills the process if it has not ended after `patience`.
    /// How it ended by itself, if it did.
    pub async fn wait_for_end(&mut self, patience: Duration) -> anyhow::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.ended()? {
                self.child = None;
                return Ok(Some(status));
            }
            if self.child.is_none() || Instant::now() > deadline {
                self.kill()?;
                return Ok(None);
            }
            sleep(POLL).await;
        }
    }

    /// SIGTERM, then as [`Self::wait_for_end`].
    pub async fn terminate(&mut self, patience: Duration) -> anyhow::Result<Option<ExitStatus>> {
        self.ask_to_end()?;
        self.wait_for_end(patience).await
    }

    /// SIGSTOP.
    pub fn pause(&mut self) -> anyhow::Result<()> {
        if let Some(child) = &mut self.child {
            child.signal(Signal::STOP)?;
            self.paused = true;
        }
        Ok(())
    }

    /// SIGCONT.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        if let Some(child) = &mut self.child
            && self.paused
        {
            child.signal(Signal::CONT)?;
        }
        self.paused = false;
        Ok(())
    }

    /// A client of this node.
    #[must_use]
    pub fn client(&self, patience: Duration) -> Client {
        Client::new(self.spec.address(), patience)
    }

    /// What it printed since its last start.
    #[must_use]
    pub fn said(&self) -> String {
        self.child.as_ref().map(Child::said).unwrap_or_default()
    }

    /// The exit status, if it has ended by itself.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.child.as_mut().map_or(Ok(None), |child| Ok(child.ended()?))
    }

    /// Its view of the raft group; `None` if it does not answer within a second.
    pub async fn raft_status(&self) -> Option<RaftStatus> {
        self.client(Duration::from_secs(1)).raft_status().await.ok()
    }

    /// Waits until it acknowledges a publish. Fails if it ends or after `patience`, with its own words.
    pub async fn wait_until_it_writes(&mut self, patience: Duration) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let mut client = self.client(Duration::from_secs(3));
        let mut last = String::new();
        while begun.elapsed() < patience {
            if let Some(status) = self.ended()? {
                anyhow::bail!(
                    "node {} ended ({}); it said:\n{}",
                    self.spec.id,
                    describe(status),
                    tail(&self.said())
                );
            }
            match client
                .publish("probe", &format!("node {} start {}", self.spec.id, self.starts))
                .await
            {
                Outcome::Done(()) => return Ok(begun.elapsed()),
                Outcome::Refused(why) | Outcome::Unknown(why) => last = why,
            }
            sleep(POLL).await;
        }
        let said = tail(&self.said());
        anyhow::bail!(
            "node {} took no write within {} s ({last}); it said:\n{said}",
            self.spec.id,
            patience.as_secs()
        )
    }
}

/// The last lines of a log.
#[must_use]
pub fn tail(text: &str) -> String {
    const LINES: usize = 15;
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn further_variables_win() {
        let scratch = loadtest::process::Scratch::new(None, "jepsen-node").expect("scratch");
        let mut spec = Spec::lone("/bin/true".into(), 1, 20000, scratch.path().join("n1")).expect("spec");
        let value = |spec: &Spec, name: &str| {
            spec.environment()
                .into_iter()
                .filter(|(found, _)| found == name)
                .map(|(_, value)| value)
                .collect::<Vec<_>>()
        };
        assert_eq!(value(&spec, "RNACOS_RAFT_AUTO_INIT"), ["true"]);
        spec.extra.push(("RNACOS_RAFT_AUTO_INIT".into(), "false".into()));
        assert_eq!(value(&spec, "RNACOS_RAFT_AUTO_INIT"), ["false"]);
        spec.join = Some("127.0.0.1:1".into());
        assert_eq!(value(&spec, "RNACOS_RAFT_JOIN_ADDR"), ["127.0.0.1:1"]);
    }
}
