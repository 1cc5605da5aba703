//! The network between nodes: links that can be cut one way, and messages on their way.

use raft::{Incarnation, Message};

use super::dice::Dice;
use super::plan::{NODES_MAX, Plan};

/// A message on its way.
#[derive(Clone, Debug)]
pub(crate) struct Envelope {
    pub(crate) from: usize,
    pub(crate) to: usize,
    /// The member the sender means, by its membership and by whom it heard last; the handshake refuses
    /// another one (R33). Empty: the sender does not care.
    pub(crate) meant: [Option<Incarnation>; 2],
    pub(crate) message: Message,
}

/// Links and what is on them.
#[derive(Debug, Default)]
pub(crate) struct Network {
    /// Bit `to` of `cut[from]`: nothing gets through in this direction.
    cut: [u8; NODES_MAX],
    /// Newest arrival on each link, so that a link that keeps its order can.
    arrival: [[u64; NODES_MAX]; NODES_MAX],
    slots: Vec<Option<Envelope>>,
    free: Vec<u32>,
}

impl Network {
    /// Puts a message on its way; the number names it until it is taken.
    pub(crate) fn put(&mut self, envelope: Envelope) -> u32 {
        match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(envelope);
                slot
            }
            None => {
                self.slots.push(Some(envelope));
                self.slots.len() as u32 - 1
            }
        }
    }

    /// Takes a message that has arrived.
    pub(crate) fn take(&mut self, slot: u32) -> Envelope {
        self.free.push(slot);
        self.slots[slot as usize].take().expect("a message arrives once")
    }

    /// When a message sent now arrives.
    pub(crate) fn arrival(
        &mut self,
        plan: &Plan,
        dice: &mut Dice,
        calm: bool,
        now: u64,
        from: usize,
        to: usize,
    ) -> u64 {
        let mut delay = dice.range(plan.delay_min_us, plan.delay_max_us);
        if !calm && dice.chance_ppm(plan.delay_spike_ppm) {
            delay *= dice.range(2, 60);
        }
        let at = now + delay;
        let newest = &mut self.arrival[from][to];
        *newest = at.max(*newest);
        if plan.fifo { *newest } else { at }
    }

    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut[from] & (1 << to) != 0
    }

    /// Cuts one direction.
    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        self.cut[from] |= 1 << to;
    }

    /// Mends every link.
    pub(crate) fn mend(&mut self) {
        self.cut = [0; NODES_MAX];
    }
}
