//! Links between nodes that can be cut, each direction on its own.
//!
//! Two ways to do it. *Namespaces*: each node has a network namespace and an address of its own on a
//! bridge; a cut is a permanent neighbour entry with a hardware address that nobody has, so packets leave
//! and vanish, which is what a broken switch does, and needs no packet filter. The run happens inside a
//! network namespace (`unshare`, as root or with `-Ur` as anybody), so the machine's own network is never
//! touched and everything is gone when the harness ends. *Cutter*: where namespaces are refused, a TCP
//! proxy per node, see [`super::cutter`].

use std::collections::HashMap;
use std::ffi::OsString;
use std::net::IpAddr;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use loadtest::process::{Child, Program};

use super::cutter::Cutter;
use crate::disk::call;
use crate::node::Spec;

/// Set for the harness that runs inside a network namespace of its own.
const INSIDE: &str = "JEPSEN_INSIDE_NAMESPACE";

/// Secret of the cluster in a namespace run: peers are not on loopback there.
const TOKEN: &str = "a-token-known-to-the-three-nodes-of-this-run";

/// A hardware address nobody has.
const NOBODY: &str = "02:00:00:00:00:01";

/// How links are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Namespaces if they may be made here, else the cutter.
    Auto,
    /// Network namespaces on a bridge.
    Namespaces,
    /// A TCP proxy per node.
    Cutter,
}

/// The network of a run.
#[derive(Debug)]
pub struct Network {
    links: Links,
    /// How many faults cut a direction at present; it is healed when the last of them is.
    cuts: HashMap<(usize, usize), usize>,
}

#[derive(Debug)]
enum Links {
    Namespaces {
        /// A sleeping process per node that keeps its namespace alive.
        holders: Vec<Child>,
    },
    Cutter(Cutter),
}

/// If namespaces are wanted and may be made: continues as the same command inside one, and does not
/// return. Otherwise returns the kind that is left.
pub fn enter(kind: Kind) -> anyhow::Result<Kind> {
    if kind == Kind::Cutter {
        return Ok(Kind::Cutter);
    }
    if std::env::var_os(INSIDE).is_some() {
        ip(&["link", "set", "lo", "up"])?;
        return Ok(Kind::Namespaces);
    }
    // Root may mount disks: with a namespace for mounts as well they are gone when the harness is, whatever
    // happened to it.
    let options = if rustix::process::geteuid().is_root() {
        "-nm"
    } else {
        "-Urn"
    };
    let allowed = Command::new("unshare")
        .args([options, "ip", "link", "add", "probe", "type", "bridge"])
        .output();
    if allowed.is_ok_and(|output| output.status.success()) {
        let myself = std::env::current_exe()?;
        let error = Command::new("unshare")
            .arg(options)
            .arg(myself)
            .args(std::env::args_os().skip(1))
            .env(INSIDE, "1")
            .exec();
        return Err(error).context("continue inside a network namespace");
    }
    anyhow::ensure!(
        kind == Kind::Auto,
        "network namespaces may not be made here (unshare {options})"
    );
    Ok(Kind::Cutter)
}

impl Network {
    /// Makes the network and moves the specs into it.
    pub async fn make(kind: Kind, specs: &mut [Spec], directory: &Path) -> anyhow::Result<Self> {
        let links = match kind {
            Kind::Namespaces => Links::Namespaces {
                holders: namespaces(specs, directory)?,
            },
            Kind::Auto | Kind::Cutter => Links::Cutter(Cutter::start(specs).await?),
        };
        let founder = specs[0].advertised.clone();
        specs
            .iter_mut()
            .skip(1)
            .for_each(|spec| spec.join = Some(founder.clone()));
        Ok(Self {
            links,
            cuts: HashMap::new(),
        })
    }

    /// Its kind, for the report.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.links {
            Links::Namespaces { .. } => "network namespaces",
            Links::Cutter(_) => "TCP cutter",
        }
    }

    /// Loses everything one node sends to another, until healed as often as cut.
    pub fn cut(&mut self, from: usize, to: usize) -> anyhow::Result<()> {
        let count = self.cuts.entry((from, to)).or_insert(0);
        *count += 1;
        if *count == 1 {
            self.set(from, to, true)
        } else {
            Ok(())
        }
    }

    /// Takes one cut back.
    pub fn heal(&mut self, from: usize, to: usize) -> anyhow::Result<()> {
        let Some(count) = self.cuts.get_mut(&(from, to)) else {
            return Ok(());
        };
        *count -= 1;
        if *count == 0 {
            self.cuts.remove(&(from, to));
            return self.set(from, to, false);
        }
        Ok(())
    }

    fn set(&self, from: usize, to: usize, cut: bool) -> anyhow::Result<()> {
        match &self.links {
            Links::Cutter(cutter) => cutter.set(from, to, cut),
            Links::Namespaces { holders } => {
                let target = host(to).to_string();
                let words: &[&str] = if cut {
                    &[
                        "neigh",
                        "replace",
                        &target,
                        "lladdr",
                        NOBODY,
                        "nud",
                        "permanent",
                        "dev",
                        "eth0",
                    ]
                } else {
                    &["neigh", "del", &target, "dev", "eth0"]
                };
                inside(&holders[from], words)?;
            }
        }
        Ok(())
    }

    /// Tells the cutter which process listens behind which proxy; namespaces need not know.
    pub fn know(&self, pids: &[Option<u32>]) {
        if let Links::Cutter(cutter) = &self.links {
            cutter.know(pids);
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Links::Namespaces { holders } = &self.links {
            // The next run of this process makes its own. A namespace goes some time after its holder, so
            // the links are taken down by name; that of a namespace already gone is no longer there.
            for place in 0..holders.len() {
                let _ = ip(&["link", "del", &link(place)]);
            }
            let _ = ip(&["link", "del", "jepsen"]);
        }
    }
}

/// The bridge's end of a node's link.
fn link(place: usize) -> String {
    format!("node{}", place + 1)
}

/// Address of a node on the bridge.
fn host(place: usize) -> IpAddr {
    IpAddr::from([10, 77, 0, u8::try_from(place + 1).unwrap_or(u8::MAX)])
}

fn namespaces(specs: &mut [Spec], directory: &Path) -> anyhow::Result<Vec<Child>> {
    ip(&["link", "add", "jepsen", "type", "bridge"])?;
    ip(&["addr", "add", "10.77.0.254/24", "dev", "jepsen"])?;
    ip(&["link", "set", "jepsen", "up"])?;
    let mut holders = Vec::new();
    for (place, spec) in specs.iter_mut().enumerate() {
        let holder = Program {
            path: "unshare".into(),
            arguments: ["-n", "sleep", "infinity"].map(OsString::from).into(),
            environment: Vec::new(),
            directory: directory.to_path_buf(),
            output: directory.join("holders.log"),
        };
        let holder = holder.start()?;
        wait_for_namespace(holder.pid())?;
        let (link, pid, host) = (link(place), holder.pid().to_string(), host(place));
        ip(&[
            "link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &pid,
        ])?;
        ip(&["link", "set", &link, "master", "jepsen", "up"])?;
        inside(&holder, &["addr", "add", &format!("{host}/24"), "dev", "eth0"])?;
        inside(&holder, &["link", "set", "eth0", "up"])?;
        inside(&holder, &["link", "set", "lo", "up"])?;
        spec.host = host;
        spec.advertised = format!("{host}:{}", spec.grpc);
        spec.wrapper = vec!["nsenter".into(), net_of(&holder).into(), "--".into()];
        spec.extra
            .push(("RNACOS_CLUSTER_TOKEN".to_owned(), TOKEN.to_owned()));
        holders.push(holder);
    }
    Ok(holders)
}

/// `unshare` has made the namespace once the process is in another one than we are.
fn wait_for_namespace(pid: u32) -> anyhow::Result<()> {
    let own = std::fs::read_link("/proc/self/ns/net")?;
    let deadline = Instant::now() + Duration::from_secs(5);
    while std::fs::read_link(format!("/proc/{pid}/ns/net"))? == own {
        anyhow::ensure!(Instant::now() < deadline, "no network namespace after 5 s");
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn net_of(holder: &Child) -> String {
    format!("--net=/proc/{}/ns/net", holder.pid())
}

fn inside(holder: &Child, words: &[&str]) -> anyhow::Result<()> {
    call(Command::new("nsenter").arg(net_of(holder)).arg("ip").args(words))
}

fn ip(words: &[&str]) -> anyhow::Result<()> {
    call(Command::new("ip").args(words))
}
