//! What happened in a run. A batch in which one of these never happened has tested nothing there, and
//! is void.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// Counts of one run or, summed, of a batch.
        #[derive(Clone, Debug, Default)]
        pub(crate) struct Counters {
            $($(#[$doc])* pub(crate) $name: u64,)+
        }

        impl Counters {
            /// Adds the counts of another run.
            pub(crate) fn add(&mut self, other: &Counters) {
                $(self.$name += other.$name;)+
            }

            /// Every count with its name, in the order of declaration.
            pub(crate) fn rows(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name)),+]
            }
        }
    };
}

counters! {
    /// Delivered messages, disk completions, client operations and faults; the currency of a run.
    steps,
    /// Nodes that became leader.
    elections,
    /// Writes that removed the end of a log.
    truncations,
    /// Logs cut at the front.
    compactions,
    /// Snapshots made by a node of its own state.
    snapshots_made,
    /// Pieces written by a receiver.
    snapshot_chunks,
    /// Snapshots loaded into a state machine.
    snapshots_installed,
    /// Reads of older entries from a disk for a slow member.
    loads,
    /// Changes of membership taken up by a leader.
    changes_accepted,
    /// Configuration entries that were applied for the first time.
    changes_committed,
    /// Nodes that found their disk damaged.
    suspicions_raised,
    /// Suspicions lifted by a leader.
    suspicions_cleared,
    /// Processes killed.
    kills,
    /// Power cuts of one node.
    power_cuts,
    /// Power cuts of all nodes at once (R37).
    blackouts,
    /// Crashes that hit a write which was not synced yet.
    crashes_in_flight,
    /// Crashes between the sync of the log and the sync of the mark.
    crashes_between_log_and_mark,
    /// Syncs that failed.
    failed_syncs,
    /// Failed syncs after which the page cache still showed the write.
    failed_syncs_cached,
    /// Disks that lost part of their log.
    rots,
    /// Disks that lost everything.
    wipes,
    /// Wiped nodes added again under a new incarnation.
    rejoins,
    /// Cuts between nodes, one-way cuts included.
    partitions,
    /// One-way cuts.
    partitions_one_way,
    /// Pauses of a process.
    pauses,
    /// Spells of low disk space.
    low_space,
    /// Messages thrown away.
    dropped,
    /// Messages delivered twice.
    duplicated,
    /// Leaderships handed over: the order to start an election was sent.
    transfers,
    /// Writes answered to a client.
    writes_acked,
    /// Writes sent again under the same operation id.
    retries,
    /// Entries whose operation had been applied before.
    duplicates_suppressed,
    /// Writes refused for certain.
    refusals,
    /// Writes with an unknown outcome: their node died.
    unknowns,
    /// Reads served.
    reads_served,
    /// Of these, on a node that did not lead.
    reads_served_by_followers,
    /// Reads refused.
    reads_refused,
}
