//! What is done to the servers: when each fault comes, how it is carried out, and how it is taken back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use loadtest::content::Dice;
use tokio::time::{Instant, sleep_until};

use super::disks::Disks;
use super::faults::{Fault, Group, Passes};
use super::history::{Broken, History};
use super::network::Network;
use crate::cluster::Cluster;
use crate::node::Node;
use crate::verdict::tell;

/// Time from one fault's begin to the next one's.
const GAP_MS: (u64, u64) = (1500, 4500);

/// How long a fault lasts; longer than a gap can be, so that faults overlap.
const LASTS_MS: (u64, u64) = (800, 5000);

/// A disk stays nearly full so much longer: servers look at it once in a while only.
const FULL_LASTS_MS: u64 = 1500;

/// Room left on a disk that is nearly full: below the reserve, a tenth of it; below a quarter of that.
const LEFT_BYTES: [u64; 2] = [100 << 20, 24 << 20];

/// Quiet time at the beginning, so that there is something to lose.
const LEAD_IN: Duration = Duration::from_secs(2);

/// Everything that can be broken, and where it is noted.
#[derive(Debug)]
pub struct Ground<'a> {
    /// The servers.
    pub cluster: &'a mut Cluster,
    /// The links between them.
    pub network: &'a mut Network,
    /// Their disks.
    pub disks: &'a mut Disks,
    /// Where faults are noted.
    pub history: &'a History,
    /// SIGTERM must end a node within this time, leadership handed over.
    pub terminates: Duration,
}

/// How a fault is taken back.
#[derive(Debug)]
enum Undo {
    Start(Vec<usize>),
    /// This process of this node was asked to end: it must do so, and the node is started again.
    StartAfterEnd(usize, Option<u32>),
    Resume(usize),
    Heal(Vec<(usize, usize)>),
    PowerOn(Vec<usize>),
    MakeRoom(Vec<usize>),
}

impl Undo {
    /// What is broken until then. A disk that is nearly full breaks nothing that others would see.
    fn broken(&self) -> Vec<Broken> {
        match self {
            Self::Start(places) | Self::PowerOn(places) => {
                places.iter().map(|place| Broken::Dead(*place)).collect()
            }
            Self::StartAfterEnd(place, _) => vec![Broken::Dead(*place)],
            Self::Resume(place) => vec![Broken::Paused(*place)],
            Self::Heal(links) => links.iter().map(|(from, to)| Broken::Cut(*from, *to)).collect(),
            Self::MakeRoom(_) => Vec::new(),
        }
    }
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
    passes: Passes,
    active: Vec<Active>,
    /// How often each group happened.
    done: BTreeMap<Group, usize>,
}

impl Nemesis {
    /// A nemesis of these groups for so many nodes.
    #[must_use]
    pub fn new(seed: u64, groups: &[Group], nodes: usize) -> Self {
        let groups: BTreeSet<Group> = groups.iter().copied().collect();
        Self {
            dice: Dice::new(seed),
            passes: Passes::new(&groups, nodes),
            groups,
            active: Vec::new(),
            done: BTreeMap::new(),
        }
    }

    /// Groups that were asked for and did not happen. A full disk happens when a write is refused for it.
    #[must_use]
    pub fn missing(&self, history: &History) -> Vec<Group> {
        let happened = |group: &Group| {
            self.done.contains_key(group) && (*group != Group::Disk || history.refused_for_space() > 0)
        };
        self.groups
            .iter()
            .copied()
            .filter(|group| !happened(group))
            .collect()
    }

    /// How often each group happened.
    #[must_use]
    pub fn done(&self) -> &BTreeMap<Group, usize> {
        &self.done
    }

    /// Breaks things until `end`, and longer (until `latest`) while a demanded group has not happened: a
    /// slow machine makes a run longer, not void. Then takes everything back.
    pub async fn rage(
        &mut self,
        ground: &mut Ground<'_>,
        end: Instant,
        latest: Instant,
    ) -> anyhow::Result<()> {
        let mut next = Instant::now() + LEAD_IN;
        while next < end || (next < latest && !self.missing(ground.history).is_empty()) {
            let first_end = self.active.iter().map(|active| active.until).min();
            sleep_until(first_end.map_or(next, |until| until.min(next))).await;
            let now = Instant::now();
            self.take_back(ground, |active| active.until <= now).await?;
            if now >= next {
                self.begin(ground).await?;
                next = Instant::now() + Duration::from_millis(self.dice.between(GAP_MS.0, GAP_MS.1));
            }
        }
        sleep_until(end).await;
        self.take_back(ground, |_| true).await
    }

    async fn begin(&mut self, ground: &mut Ground<'_>) -> anyhow::Result<()> {
        let Some((fault, group, name, _)) = self.passes.draw(&mut self.dice) else {
            return Ok(());
        };
        let count = ground.cluster.nodes.len();
        let leader = match ground.cluster.leader().await {
            Some(leader) => leader,
            None => self.dice.below(count),
        };
        let follower = (leader + 1 + self.dice.below(count - 1)) % count;
        let from = ground.history.micros();
        let (whom, undo) = match group {
            Group::Partition => {
                let (whom, links) = links(fault, leader, follower, count);
                for (from, to) in &links {
                    ground.network.cut(*from, *to)?;
                }
                (whom, Undo::Heal(links))
            }
            Group::Kill => kill(fault, leader, follower, ground)?,
            Group::Pause => {
                let whom = if fault == Fault::PauseLeader {
                    leader
                } else {
                    follower
                };
                ground.cluster.nodes[whom].pause()?;
                (whom, Undo::Resume(whom))
            }
            Group::Power => {
                let places = places(fault, leader, follower, count);
                let processes_first = self.dice.chance(50);
                ground.disks.cut(ground.cluster, &places, processes_first).await?;
                (places[0], Undo::PowerOn(places))
            }
            Group::Disk => {
                let places = places(fault, leader, follower, count);
                let left_bytes = LEFT_BYTES[self.dice.below(LEFT_BYTES.len())];
                ground.disks.fill(&places, left_bytes)?;
                (places[0], Undo::MakeRoom(places))
            }
        };
        let name = format!("{name} (node {})", whom + 1);
        tell(format!("{:>7.2} s  {name}", ground.history.micros() as f64 / 1e6));
        *self.done.entry(group).or_insert(0) += 1;
        let longer = if group == Group::Disk { FULL_LASTS_MS } else { 0 };
        let lasts = Duration::from_millis(longer + self.dice.between(LASTS_MS.0, LASTS_MS.1));
        self.active.push(Active {
            name,
            from,
            until: Instant::now() + lasts,
            undo,
        });
        Ok(())
    }

    async fn take_back(
        &mut self,
        ground: &mut Ground<'_>,
        which: impl Fn(&Active) -> bool,
    ) -> anyhow::Result<()> {
        let (over, active): (Vec<Active>, Vec<Active>) = self.active.drain(..).partition(which);
        self.active = active;
        for Active { name, from, undo, .. } in over {
            let broken = undo.broken();
            match undo {
                Undo::StartAfterEnd(place, pid) => {
                    let node = &mut ground.cluster.nodes[place];
                    // Another fault may have killed it, and started it anew, meanwhile.
                    if node.runs() && node.pid() == pid {
                        // Or have paused it; a process that is stopped cannot end.
                        node.resume()?;
                        let ended = node.wait_for_end(ground.terminates).await?;
                        let (id, seconds) = (place + 1, ground.terminates.as_secs());
                        anyhow::ensure!(
                            ended.is_some(),
                            "node {id} did not end within {seconds} s of SIGTERM"
                        );
                    }
                    start(ground, &[place])?;
                }
                Undo::Start(places) => start(ground, &places)?,
                Undo::Resume(place) => ground.cluster.nodes[place].resume()?,
                Undo::Heal(links) => links
                    .into_iter()
                    .try_for_each(|(from, to)| ground.network.heal(from, to))?,
                Undo::PowerOn(places) => {
                    ground.disks.power_on(&places)?;
                    start(ground, &places)?;
                }
                Undo::MakeRoom(places) => {
                    ground.disks.make_room(&places)?;
                    // One that met the end of its disk may have ended; an operator would start it again.
                    start(ground, &places)?;
                }
            }
            ground.history.note_fault(name, broken, from);
        }
        Ok(())
    }
}

/// Starts those of these nodes that do not run and whose disk has power; the others are started when it
/// comes back.
fn start(ground: &mut Ground<'_>, places: &[usize]) -> anyhow::Result<()> {
    for place in places {
        let node = &mut ground.cluster.nodes[*place];
        if !node.runs() && ground.disks.is_on(*place) {
            node.start()?;
        }
    }
    let pids: Vec<_> = ground.cluster.nodes.iter().map(Node::pid).collect();
    ground.network.know(&pids);
    Ok(())
}

fn kill(
    fault: Fault,
    leader: usize,
    follower: usize,
    ground: &mut Ground<'_>,
) -> anyhow::Result<(usize, Undo)> {
    if fault == Fault::Terminate {
        let node = &mut ground.cluster.nodes[leader];
        node.ask_to_end()?;
        return Ok((leader, Undo::StartAfterEnd(leader, node.pid())));
    }
    let places = places(fault, leader, follower, ground.cluster.nodes.len());
    ground.cluster.kill(&places)?;
    Ok((places[0], Undo::Start(places)))
}

/// Whom a fault meets, the one it is named after first.
fn places(fault: Fault, leader: usize, follower: usize, count: usize) -> Vec<usize> {
    match fault {
        Fault::KillAll | Fault::PowerAll | Fault::FillAll => {
            (0..count).map(|step| (leader + step) % count).collect()
        }
        Fault::KillOne | Fault::PowerOne | Fault::PauseOne => vec![follower],
        _ => vec![leader],
    }
}

/// Whom a partition is named after, and the directions it cuts.
fn links(fault: Fault, leader: usize, follower: usize, count: usize) -> (usize, Vec<(usize, usize)>) {
    let all = || (0..count).flat_map(|from| (0..count).map(move |to| (from, to)));
    let cut_where = |cut: &dyn Fn(usize, usize) -> bool| {
        all()
            .filter(|(from, to)| from != to && cut(*from, *to))
            .collect::<Vec<_>>()
    };
    // Places as seen from the leader: it and the next one are the minority of five, and neighbours.
    let step = |place: usize| (place + count - leader) % count;
    let is_near = |place: usize| step(place) < count.div_ceil(2) - 1;
    match fault {
        Fault::IsolateLeader => (leader, cut_where(&|from, to| from == leader || to == leader)),
        Fault::MuteLeader => (leader, cut_where(&|from, _| from == leader)),
        Fault::DeafLeader => (leader, cut_where(&|_, to| to == leader)),
        Fault::IsolateOne => (
            follower,
            cut_where(&|from, to| from == follower || to == follower),
        ),
        Fault::MuteOne => (follower, cut_where(&|from, _| from == follower)),
        Fault::DeafOne => (follower, cut_where(&|_, to| to == follower)),
        Fault::LeaderInMinority => (leader, cut_where(&|from, to| is_near(from) != is_near(to))),
        Fault::MajoritiesRing => (
            leader,
            cut_where(&|from, to| {
                let apart = from.abs_diff(to);
                apart != 1 && apart != count - 1
            }),
        ),
        _ => (follower, vec![(leader, follower), (follower, leader)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_cut_what_they_say() {
        let cuts = |fault, count| links(fault, 1, 2, count).1;
        assert_eq!(cuts(Fault::IsolateLeader, 3), [(0, 1), (1, 0), (1, 2), (2, 1)]);
        assert_eq!(cuts(Fault::MuteLeader, 3), [(1, 0), (1, 2)]);
        assert_eq!(cuts(Fault::DeafOne, 3), [(0, 2), (1, 2)]);
        assert_eq!(cuts(Fault::OneLink, 3), [(1, 2), (2, 1)]);
        // Nodes 1 and 2 against 0, 3 and 4: six links, both directions.
        assert_eq!(cuts(Fault::LeaderInMinority, 5).len(), 12);
        // Each of five hears two others, and so two fewer than it did.
        let ring = cuts(Fault::MajoritiesRing, 5);
        assert!((0..5).all(|place| ring.iter().filter(|(from, _)| *from == place).count() == 2));
    }

    #[test]
    fn nothing_has_happened_to_a_run_that_did_nothing() {
        let nemesis = Nemesis::new(1, &Group::ALL, 3);
        assert_eq!(nemesis.missing(&History::begin()), Group::ALL);
    }
}
