//! Swarm testing: every seed draws its own sizes, limits, windows, thresholds and fault rates, many of
//! them zero, so that rare combinations are not always drowned by the same mixture (Groce et al.,
//! "Swarm testing", 2012).

use raft::{Config, Entry};

use super::bug::SimBug;
use super::dice::Dice;

/// Milliseconds in the unit of virtual time, the microsecond.
pub(crate) const MS: u64 = 1_000;

/// Nodes of a world: voters and spares.
pub(crate) const NODES_MAX: usize = 7;

/// How likely each kind of fault is, relative to the others.
#[derive(Clone, Debug, Default)]
pub(crate) struct FaultWeights {
    pub(crate) kill: u64,
    pub(crate) power_cut: u64,
    pub(crate) blackout: u64,
    pub(crate) rot: u64,
    pub(crate) wipe: u64,
    pub(crate) partition: u64,
    pub(crate) one_way: u64,
    pub(crate) isolate: u64,
    pub(crate) pause: u64,
    pub(crate) low_space: u64,
    pub(crate) slow_disk: u64,
}

/// How likely each kind of client operation is.
#[derive(Clone, Debug, Default)]
pub(crate) struct WorkWeights {
    pub(crate) write: u64,
    pub(crate) read: u64,
    pub(crate) change: u64,
    pub(crate) transfer: u64,
}

/// All that a seed decides before the world starts.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Voters at the beginning: 1..=5, even numbers too (R37).
    pub(crate) voters: usize,
    /// Empty nodes that may be added.
    pub(crate) spares: usize,
    pub(crate) config: Config,
    /// Length of a tick of each node's clock, in µs: clocks run at different rates (R10).
    pub(crate) tick_us: Vec<u64>,
    pub(crate) delay_min_us: u64,
    pub(crate) delay_max_us: u64,
    /// A message now and then takes this many times longer.
    pub(crate) delay_spike_ppm: u32,
    /// Links keep their order, as one stream per peer does; otherwise any order.
    pub(crate) fifo: bool,
    pub(crate) drop_ppm: u32,
    pub(crate) duplicate_ppm: u32,
    /// A suspect that loses more becomes suspect anew.
    pub(crate) renews_suspicion: bool,
    /// The transport refuses a peer of another incarnation than the one meant (R33). Without it the core
    /// has to tell them apart alone.
    pub(crate) handshake: bool,
    /// How often a sender is told that its message got lost.
    pub(crate) unreachable_ppm: u32,
    pub(crate) sync_min_us: u64,
    pub(crate) sync_max_us: u64,
    pub(crate) sync_fail_ppm: u32,
    /// Persists folded into one sync.
    pub(crate) fold_max: usize,
    /// How often the mark is raised to the end after a sync.
    pub(crate) mark_raise_ppm: u32,
    pub(crate) apply_max_us: u64,
    /// Applied entries between two compactions; 0: never.
    pub(crate) compact_every: u64,
    pub(crate) payload_max: usize,
    pub(crate) keys: u8,
    pub(crate) client_every_us: u64,
    pub(crate) work: WorkWeights,
    /// Mean time between two faults; `None`: only what the network and disk rates do.
    pub(crate) fault_every_us: Option<u64>,
    pub(crate) faults: FaultWeights,
    /// Wipes and rots that one world may see, so that it also gets on with its work.
    pub(crate) damage_max: u32,
    /// The bug that lives in the simulated storage, state machine or runtime, if any.
    pub(crate) bug: Option<SimBug>,
}

impl Plan {
    /// Draws the plan of a seed.
    pub(crate) fn draw(dice: &mut Dice, bug: Option<SimBug>) -> Plan {
        let voters = dice.pick(&[1, 2, 3, 3, 3, 3, 3, 4, 5, 5]);
        let spares = dice.size(0, 2);
        let config = draw_config(dice);
        let drift = dice.pick(&[0u64, 2, 10, 30]);
        let tick_us = (0..NODES_MAX)
            .map(|_| 20 * MS + 200 * dice.below(drift + 1))
            .collect();
        let calm_network = dice.one_in(3);
        let delay_min_us = dice.range(50, 500);
        let delay_max_us = delay_min_us + dice.pick(&[200, MS, 5 * MS, 20 * MS]);
        let sync_min_us = dice.range(50, 1_000);
        let sync_max_us = sync_min_us + dice.pick(&[100, MS, 8 * MS, 40 * MS]);
        Plan {
            voters,
            spares,
            payload_max: dice.size(40, config.entry_bytes_max),
            config,
            tick_us,
            delay_min_us,
            delay_max_us,
            delay_spike_ppm: if calm_network {
                0
            } else {
                dice.pick(&[0, 1_000, 20_000])
            },
            fifo: dice.one_in(2),
            drop_ppm: if calm_network {
                0
            } else {
                dice.pick(&[0, 5_000, 50_000, 200_000])
            },
            duplicate_ppm: if calm_network {
                0
            } else {
                dice.pick(&[0, 10_000, 100_000])
            },
            renews_suspicion: dice.one_in(2),
            handshake: dice.one_in(2),
            unreachable_ppm: dice.pick(&[0, 300_000]),
            sync_min_us,
            sync_max_us,
            sync_fail_ppm: dice.pick(&[0, 0, 200, 2_000]),
            fold_max: dice.pick(&[1, 2, 8, 1_000]),
            mark_raise_ppm: dice.pick(&[20_000, 200_000, 1_000_000]),
            apply_max_us: dice.pick(&[0, 0, MS, 30 * MS]),
            compact_every: dice.pick(&[0, 5, 10, 40, 40]),
            keys: dice.range(1, 4) as u8,
            client_every_us: dice.pick(&[300, MS, 4 * MS, 40 * MS]),
            work: WorkWeights {
                write: 100,
                read: dice.pick(&[0, 20, 100]),
                change: dice.pick(&[0, 1, 6]),
                transfer: dice.pick(&[0, 1, 6]),
            },
            fault_every_us: dice.pick(&[
                None,
                Some(60 * MS),
                Some(120 * MS),
                Some(200 * MS),
                Some(600 * MS),
            ]),
            faults: draw_faults(dice),
            damage_max: dice.pick(&[1, 3, 12]),
            bug,
        }
    }
}

/// Small limits, so that every window closes and opens again within a run.
fn draw_config(dice: &mut Dice) -> Config {
    // A membership of all nodes must fit.
    let entry_bytes_max = dice.size(450, 900);
    let minimum = 2 * (entry_bytes_max + Entry::OVERHEAD_BYTES);
    let heartbeat_ticks = dice.range(1, 4) as u32;
    Config {
        heartbeat_ticks,
        election_ticks: heartbeat_ticks * dice.range(2, 5) as u32 + dice.range(0, 4) as u32,
        entry_bytes_max,
        append_bytes_max: dice.pick(&[1, 300, 2_000, 1 << 20]),
        inflight_count_max: dice.pick(&[1, 2, 8, 256]),
        inflight_bytes_max: minimum * dice.pick(&[1, 2, 16]),
        uncommitted_bytes_max: minimum * dice.pick(&[1, 4, 64]),
        unapplied_bytes_max: minimum * dice.pick(&[1, 4, 64]),
        cache_bytes_max: dice.pick(&[0, 500, 4_000, 1 << 20]),
        retained_bytes_max: dice.pick(&[0, 1_000, 8_000]),
        chunk_bytes_max: dice.pick(&[32, 100, 300, 4_096]),
        chunk_inflight_max: dice.size(1, 4),
        readers_max: dice.pick(&[2, 16, 1_000]),
        #[cfg(feature = "seeded-bugs")]
        bug: None,
    }
}

fn draw_faults(dice: &mut Dice) -> FaultWeights {
    let mut weight = |high: u64| if dice.one_in(2) { dice.range(1, high) } else { 0 };
    FaultWeights {
        kill: weight(6),
        power_cut: weight(8),
        blackout: weight(3),
        rot: weight(10),
        wipe: weight(4),
        partition: weight(6),
        one_way: weight(8),
        isolate: weight(10),
        pause: weight(6),
        low_space: weight(3),
        slow_disk: weight(3),
    }
}
