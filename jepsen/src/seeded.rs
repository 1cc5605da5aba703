//! Do chaos and naming find what they are there for? Servers with a bug put there on purpose, one at a time.
//!
//! The server is built with `--features seeded-bugs` (never the one that anybody uses) and told by
//! `SEEDED_BUG` what to do wrong. Each bug must be found within a number of runs; one that is not found is
//! a broken promise of this harness.

use std::path::Path;
use std::time::Duration;

use loadtest::process::Scratch;

use crate::chaos::faults::Group;
use crate::chaos::network::Kind;
use crate::chaos::{self, Limits};
use crate::cluster::{Cluster, START_PATIENCE};
use crate::naming;
use crate::node::Node;
use crate::verdict::{Report, Verdict, tell};

/// What the server is told, what it then does wrong, and the faults under which that shows.
#[derive(Debug, Clone, Copy)]
pub struct Bug {
    /// Value of `SEEDED_BUG`.
    pub name: &'static str,
    /// What is wrong, in words.
    pub what: &'static str,
    /// Who looks for it.
    pub finder: Finder,
    /// Faults to demand, so that a run is not spent on others; they all are part of an ordinary run.
    pub faults: &'static [Group],
}

/// What a bug shows in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finder {
    /// Configs: [`chaos`].
    Chaos,
    /// Instances: [`naming`].
    Naming,
}

/// Bugs of `src/seeded.rs` of the server; it has more, for tests of another kind.
pub const BUGS: [Bug; 8] = [
    Bug {
        name: "stale-read",
        what: "a node answers linearizable reads from what it has, without asking the leader",
        finder: Finder::Chaos,
        faults: &[Group::Kill, Group::Pause, Group::Partition],
    },
    Bug {
        name: "lost-ack",
        what: "a leader acknowledges what it has appended and not committed",
        finder: Finder::Chaos,
        faults: &[Group::Kill, Group::Pause, Group::Partition],
    },
    Bug {
        name: "double-apply",
        what: "a second copy of an operation that was sent again is applied",
        finder: Finder::Chaos,
        faults: &[Group::Kill, Group::Pause, Group::Partition],
    },
    Bug {
        name: "unsynced-ack",
        what: "followers acknowledge, and a leader counts itself, before the sync",
        finder: Finder::Chaos,
        faults: &[Group::Kill, Group::Power],
    },
    Bug {
        name: "no-grace",
        what: "the instances of a node that is gone are dropped at once",
        finder: Finder::Naming,
        faults: &[Group::Kill],
    },
    Bug {
        name: "empty-at-once",
        what: "a node that starts answers lists before it knows anything",
        finder: Finder::Naming,
        faults: &[Group::Kill],
    },
    Bug {
        name: "not-deregistered",
        what: "deregistering says yes and does nothing",
        finder: Finder::Naming,
        faults: &[],
    },
    Bug {
        name: "never-told",
        what: "subscribers are not told of changes",
        finder: Finder::Naming,
        faults: &[],
    },
];

/// What the server says at its start when it was built to be wrong.
const CONFESSION: &str = "built to be wrong";

/// How bugs are looked for.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Only these bugs; all if empty.
    pub only: Vec<String>,
    /// Seed of the first run; each further one takes the next.
    pub first_seed: u64,
    /// Length of the part with faults.
    pub duration: Duration,
    /// Runs within which a bug must be found.
    pub runs: u64,
    /// How links are cut.
    pub network: Kind,
}

/// Looks for each bug.
pub async fn run(server: &Path, scratch: &Scratch, output: &Path, plan: &Plan) -> anyhow::Result<Report> {
    let mut report = Report::new("seeded");
    report.figure("first seed", plan.first_seed);
    demand_a_wrong_server(server, scratch).await?;
    let wanted = |bug: &&Bug| plan.only.is_empty() || plan.only.iter().any(|only| only == bug.name);
    for bug in BUGS.iter().filter(wanted) {
        look_for(bug, server, scratch, output, plan, &mut report).await?;
    }
    Ok(report)
}

async fn look_for(
    bug: &Bug,
    server: &Path,
    scratch: &Scratch,
    output: &Path,
    plan: &Plan,
    report: &mut Report,
) -> anyhow::Result<()> {
    for run in 1..=plan.runs {
        let seed = plan.first_seed + run - 1;
        tell(format!("seeded bug {} ({}): seed {seed}", bug.name, bug.what));
        let name = format!("{}-{seed}", bug.name);
        let found = one(
            bug,
            server,
            &scratch.path().join(&name),
            &output.join(&name),
            plan,
            seed,
        )
        .await?;
        match found.verdict() {
            Verdict::Violated => {
                let first = found.violations().first().cloned().unwrap_or_default();
                report.figure(bug.name, format!("found in run {run}, seed {seed}: {first}"));
                return Ok(());
            }
            Verdict::Void if found.figure_of("disks").starts_with("none") => {
                report.void(format!("{}: no power can be cut here", bug.name));
                return Ok(());
            }
            Verdict::Void | Verdict::Passed => {}
        }
    }
    report.violate(format!(
        "{} was not found in {} runs from seed {} on",
        bug.name, plan.runs, plan.first_seed
    ));
    Ok(())
}

/// One run against a server with the bug.
async fn one(
    bug: &Bug,
    server: &Path,
    directory: &Path,
    output: &Path,
    plan: &Plan,
    seed: u64,
) -> anyhow::Result<Report> {
    let environment = vec![("SEEDED_BUG".to_owned(), bug.name.to_owned())];
    if bug.finder == Finder::Naming {
        let one = naming::Plan {
            seed,
            duration: plan.duration,
            nodes: 3,
            faults: bug.faults.to_vec(),
            network: plan.network,
            limits: Limits::default(),
            patience: 1,
            rest: Duration::ZERO,
            environment,
        };
        return naming::run(server, directory, output, &one).await;
    }
    let one = chaos::Plan {
        seed,
        duration: plan.duration,
        nodes: 3,
        faults: Some(bug.faults.to_vec()),
        network: plan.network,
        // Any seed: a server that sends again for long has more to apply twice.
        write_timeout: Some(chaos::LONG_WRITE_TIMEOUT),
        environment,
        limits: Limits::default(),
    };
    chaos::run(server, directory, output, &one).await
}

/// An ordinary server would pass every run, and prove nothing.
async fn demand_a_wrong_server(server: &Path, scratch: &Scratch) -> anyhow::Result<()> {
    let specs = Cluster::specs(server, 1, &scratch.path().join("confession"))?;
    for spec in specs {
        let mut node = Node::new(spec);
        node.start()?;
        node.wait_until_it_writes(START_PATIENCE).await?;
        anyhow::ensure!(
            node.said().contains(CONFESSION),
            "{} is an ordinary server: build one with --features seeded-bugs, in a target folder of its own",
            server.display()
        );
        node.kill()?;
    }
    Ok(())
}
