//! The disks of a chaos run: an image per node, whose power can be cut and whose room can be taken away.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::disk::Disk;
use crate::node::Spec;

/// How long servers run on a dead disk before they are killed: enough for one that ignores failed syncs to
/// acknowledge something.
const ON_A_DEAD_DISK: Duration = Duration::from_millis(200);

/// A disk per node, where disks can be mounted.
#[derive(Debug, Default)]
pub struct Disks {
    disks: Vec<Disk>,
    /// Places without power: their nodes cannot be started.
    off: BTreeSet<usize>,
}

impl Disks {
    /// Mounts a disk per node below `directory` and moves the data folders there. Needs root and loop
    /// devices.
    pub fn mount(specs: &mut [Spec], directory: &Path) -> anyhow::Result<Self> {
        let mut disks = Vec::new();
        for place in 1..=specs.len() {
            disks.push(Disk::new(directory, &format!("disk{place}"))?);
        }
        for (spec, disk) in specs.iter_mut().zip(&disks) {
            spec.data = disk.path().join("db");
        }
        Ok(Self {
            disks,
            off: BTreeSet::new(),
        })
    }

    /// Whether this node's disk has power, or is none of ours.
    #[must_use]
    pub fn is_on(&self, place: usize) -> bool {
        !self.off.contains(&place)
    }

    /// Cuts the power of these nodes: their processes are killed, and what they had not synced is gone.
    /// Either the processes die first, or the disks die under them.
    pub async fn cut(
        &mut self,
        cluster: &mut Cluster,
        places: &[usize],
        processes_first: bool,
    ) -> anyhow::Result<()> {
        if processes_first {
            cluster.kill(places)?;
        }
        for place in places {
            if self.off.insert(*place) {
                self.disks[*place].cut()?;
            }
        }
        if !processes_first {
            tokio::time::sleep(ON_A_DEAD_DISK).await;
            cluster.kill(places)?;
        }
        Ok(())
    }

    /// Gives these nodes their power back. Their processes do not run.
    pub fn power_on(&mut self, places: &[usize]) -> anyhow::Result<()> {
        for place in places {
            if self.off.remove(place) {
                self.disks[*place].power_on()?;
                // Room may have been taken away when the power was cut.
                self.disks[*place].make_room()?;
            }
        }
        Ok(())
    }

    /// Leaves so little room to those of these nodes that have power.
    pub fn fill(&self, places: &[usize], left_bytes: u64) -> anyhow::Result<()> {
        places
            .iter()
            .filter(|place| self.is_on(**place))
            .try_for_each(|place| self.disks[*place].fill(left_bytes))
    }

    /// Gives the room back.
    pub fn make_room(&self, places: &[usize]) -> anyhow::Result<()> {
        for place in places.iter().filter(|place| self.is_on(**place)) {
            self.disks[*place].make_room()?;
        }
        Ok(())
    }
}
