//! What is done to the servers: which faults, drawn from a seed, when, and how each is taken back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use loadtest::content::Dice;
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use super::history::History;
use super::network::Network;
use crate::cluster::Cluster;
use crate::verdict::tell;

/// Time from one fault's begin to the next one's.
const GAP_MS: (u64, u64) = (1500, 4500);

/// How long a fault lasts; longer than a gap can be, so that faults overlap.
const LASTS_MS: (u64, u64) = (800, 5000);

/// Quiet time at the beginning, so that there is something to lose.
const LEAD_IN: Duration = Duration::from_secs(2);

/// SIGTERM must end a node within this time, leadership handed over.
const TERMINATES: Duration = Duration::from_secs(20);

/// Groups of faults a run may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// kill -9 of the leader, of one, of all; SIGTERM.
    Kill,
    /// SIGSTOP and SIGCONT of the leader or of one.
    Pause,
    /// Cut links: leader alone, one alone, leader mute, leader deaf, one link.
    Partition,
}

/// One kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    KillLeader,
    KillOne,
    KillAll,
    Terminate,
    PauseLeader,
    PauseOne,
    /// The leader in a minority of one, both directions.
    IsolateLeader,
    IsolateOne,
    /// The leader's words are lost; it hears the others.
    MuteLeader,
    /// The leader hears nothing; the others hear it.
    DeafLeader,
    /// One link between the leader and a follower, both directions: a third node hears both.
    OneLink,
}

const FAULTS: [(Fault, Group, &str); 11] = [
    (Fault::KillLeader, Group::Kill, "kill leader"),
    (Fault::IsolateLeader, Group::Partition, "isolate leader"),
    (Fault::PauseLeader, Group::Pause, "pause leader"),
    (Fault::KillAll, Group::Kill, "kill all"),
    (Fault::MuteLeader, Group::Partition, "mute leader"),
    (Fault::KillOne, Group::Kill, "kill one"),
    (Fault::PauseOne, Group::Pause, "pause one"),
    (Fault::DeafLeader, Group::Partition, "deafen leader"),
    (Fault::Terminate, Group::Kill, "terminate leader"),
    (Fault::OneLink, Group::Partition, "cut one link"),
    (Fault::IsolateOne, Group::Partition, "isolate one"),
];

/// How a fault is taken back.
#[derive(Debug)]
enum Undo {
    Start(Vec<usize>),
    /// This process of this node was asked to end: it must do so, and the node is started again.
    StartAfterEnd(usize, Option<u32>),
    Resume(usize),
    Heal(Vec<(usize, usize)>),
}

/// A fault that lasts.
#[derive(Debug)]
struct Active {
    name: String,
    /// µs since the start of the history.
    from: u64,
    until: Instant,
    undo: Undo,
}

/// Carries out faults from a seed.
#[derive(Debug)]
pub struct Nemesis {
    dice: Dice,
    groups: BTreeSet<Group>,
    /// Faults still to come in this pass; each pass holds every kind once, in an order of its own.
    pass: Vec<(Fault, Group, &'static str)>,
    active: Vec<Active>,
    /// How often each group happened.
    done: BTreeMap<Group, usize>,
}

impl Nemesis {
    /// A nemesis of these groups.
    #[must_use]
    pub fn new(seed: u64, groups: &[Group]) -> Self {
        let groups = groups.iter().copied().collect();
        Self {
            dice: Dice::new(seed),
            groups,
            pass: Vec::new(),
            active: Vec::new(),
            done: BTreeMap::new(),
        }
    }

    /// Groups that were asked for and did not happen.
    #[must_use]
    pub fn missing(&self) -> Vec<Group> {
        self.groups
            .iter()
            .copied()
            .filter(|group| !self.done.contains_key(group))
            .collect()
    }

    /// How often each group happened.
    #[must_use]
    pub fn done(&self) -> &BTreeMap<Group, usize> {
        &self.done
    }

    /// Breaks things until `end`, then takes everything back.
    pub async fn rage(
        &mut self,
        cluster: &mut Cluster,
        network: &mut Network,
        history: &History,
        end: Instant,
    ) -> anyhow::Result<()> {
        let mut next = Instant::now() + LEAD_IN;
        while next < end {
            let first_end = self.active.iter().map(|active| active.until).min();
            let wake = first_end.map_or(next, |until| until.min(next));
            sleep_until(wake.min(end)).await;
            let now = Instant::now();
            self.take_back(cluster, network, history, |active| active.until <= now)
                .await?;
            if now >= next && now < end {
                self.begin(cluster, network, history).await?;
                next = Instant::now() + Duration::from_millis(self.dice.between(GAP_MS.0, GAP_MS.1));
            }
        }
        sleep_until(end).await;
        self.take_back(cluster, network, history, |_| true).await
    }

    async fn begin(
        &mut self,
        cluster: &mut Cluster,
        network: &mut Network,
        history: &History,
    ) -> anyhow::Result<()> {
        let Some((fault, group, name)) = self.draw() else {
            return Ok(());
        };
        let count = cluster.nodes.len();
        let leader = match cluster.leader().await {
            Some(leader) => leader,
            None => self.dice.below(count),
        };
        let follower = (leader + 1 + self.dice.below(count - 1)) % count;
        let others: Vec<usize> = (0..count).filter(|place| *place != leader).collect();
        let from = history.micros();
        let (whom, undo) = match fault {
            Fault::KillLeader => (leader, kill(cluster, &[leader])?),
            Fault::KillOne => (follower, kill(cluster, &[follower])?),
            Fault::KillAll => (leader, kill(cluster, &(0..count).collect::<Vec<_>>())?),
            Fault::Terminate => {
                cluster.nodes[leader].ask_to_end()?;
                (leader, Undo::StartAfterEnd(leader, cluster.nodes[leader].pid()))
            }
            Fault::PauseLeader => (leader, pause(cluster, leader)?),
            Fault::PauseOne => (follower, pause(cluster, follower)?),
            Fault::IsolateLeader => (leader, cut(network, both(leader, &others))?),
            Fault::IsolateOne => {
                let others: Vec<usize> = (0..count).filter(|place| *place != follower).collect();
                (follower, cut(network, both(follower, &others))?)
            }
            Fault::MuteLeader => (
                leader,
                cut(network, others.iter().map(|other| (leader, *other)).collect())?,
            ),
            Fault::DeafLeader => (
                leader,
                cut(network, others.iter().map(|other| (*other, leader)).collect())?,
            ),
            Fault::OneLink => (follower, cut(network, both(leader, &[follower]))?),
        };
        let name = format!("{name} (node {})", whom + 1);
        tell(format!("{:>7.2} s  {name}", history.micros() as f64 / 1e6));
        *self.done.entry(group).or_insert(0) += 1;
        let until = Instant::now() + Duration::from_millis(self.dice.between(LASTS_MS.0, LASTS_MS.1));
        self.active.push(Active {
            name,
            from,
            until,
            undo,
        });
        Ok(())
    }

    /// The next fault: passes over all kinds asked for, each pass shuffled, the first kind of each group first.
    fn draw(&mut self) -> Option<(Fault, Group, &'static str)> {
        if self.pass.is_empty() {
            let mut all: Vec<_> = FAULTS
                .into_iter()
                .filter(|(_, group, _)| self.groups.contains(group))
                .collect();
            let first_pass = self.done.is_empty();
            // Even a short run meets every group: the first pass begins with one of each.
            let fixed = if first_pass { self.groups.len() } else { 0 };
            for at in (fixed + 1..all.len()).rev() {
                all.swap(at, fixed + self.dice.below(at - fixed + 1));
            }
            all.reverse();
            self.pass = all;
        }
        self.pass.pop()
    }

    async fn take_back(
        &mut self,
        cluster: &mut Cluster,
        network: &mut Network,
        history: &History,
        which: impl Fn(&Active) -> bool,
    ) -> anyhow::Result<()> {
        let (over, active): (Vec<Active>, Vec<Active>) = self.active.drain(..).partition(which);
        self.active = active;
        for Active { name, from, undo, .. } in over {
            match undo {
                Undo::StartAfterEnd(place, pid) => {
                    let node = &mut cluster.nodes[place];
                    // Another fault may have killed it, and started it anew, meanwhile.
                    if node.runs() && node.pid() == pid {
                        let ended = node.wait_for_end(TERMINATES).await?;
                        let (id, seconds) = (place + 1, TERMINATES.as_secs());
                        anyhow::ensure!(
                            ended.is_some(),
                            "node {id} did not end within {seconds} s of SIGTERM"
                        );
                    }
                    if !node.runs() {
                        node.start()?;
                    }
                    tell_pids(cluster, network);
                }
                Undo::Start(places) => {
                    for place in places {
                        if !cluster.nodes[place].runs() {
                            cluster.nodes[place].start()?;
                        }
                    }
                    network.know(
                        &cluster
                            .nodes
                            .iter()
                            .map(crate::node::Node::pid)
                            .collect::<Vec<_>>(),
                    );
                }
                Undo::Resume(place) => cluster.nodes[place].resume()?,
                Undo::Heal(links) => links
                    .into_iter()
                    .try_for_each(|(from, to)| network.heal(from, to))?,
            }
            history.note_fault(name, from);
        }
        Ok(())
    }
}

fn tell_pids(cluster: &Cluster, network: &Network) {
    network.know(
        &cluster
            .nodes
            .iter()
            .map(crate::node::Node::pid)
            .collect::<Vec<_>>(),
    );
}

fn both(one: usize, others: &[usize]) -> Vec<(usize, usize)> {
    others
        .iter()
        .flat_map(|other| [(one, *other), (*other, one)])
        .collect()
}

fn kill(cluster: &mut Cluster, places: &[usize]) -> anyhow::Result<Undo> {
    for place in places {
        cluster.nodes[*place].kill()?;
    }
    Ok(Undo::Start(places.to_vec()))
}

fn pause(cluster: &mut Cluster, place: usize) -> anyhow::Result<Undo> {
    cluster.nodes[place].pause()?;
    Ok(Undo::Resume(place))
}

fn cut(network: &mut Network, links: Vec<(usize, usize)>) -> anyhow::Result<Undo> {
    for (from, to) in &links {
        network.cut(*from, *to)?;
    }
    Ok(Undo::Heal(links))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_comes_first_and_every_kind_in_each_pass() {
        for seed in 0..50 {
            let mut nemesis = Nemesis::new(seed, &[Group::Kill, Group::Pause, Group::Partition]);
            let pass: Vec<_> = (0..FAULTS.len()).filter_map(|_| nemesis.draw()).collect();
            let first: BTreeSet<_> = pass.iter().take(3).map(|(_, group, _)| *group).collect();
            assert_eq!(first.len(), 3, "seed {seed}: {pass:?}");
            let kinds: BTreeSet<_> = pass.iter().map(|(fault, _, _)| *fault).collect();
            assert_eq!(kinds.len(), FAULTS.len(), "seed {seed}: {pass:?}");
        }
    }

    #[test]
    fn only_what_was_asked_for_is_drawn() {
        let mut nemesis = Nemesis::new(3, &[Group::Pause]);
        assert!((0..20).all(|_| nemesis.draw().is_some_and(|(_, group, _)| group == Group::Pause)));
        assert!(Nemesis::new(3, &[]).draw().is_none());
    }
}
