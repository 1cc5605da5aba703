//! ReadIndex (thesis §6.4): at which index is a read linearizable?
//!
//! The leader notes its commit index, asks a quorum in one heartbeat round whether it still leads, and
//! answers all readers of the round at once. A follower asks the leader and serves the read itself.
//! Rounds are numbered by the leader and never reused within its term; a reader's id is never reused, and
//! answers name the boot (R9). "Never" includes other incarnations: a round may wait for its quorum while
//! the node that asked is wiped and comes back under the same id and, it may be, the same boot number.

use std::collections::{BTreeMap, VecDeque};

use crate::error::Refusal;
use crate::types::{Boot, Index, NodeId, ReadId};

/// Rounds under way at once. More would not answer anyone sooner than the network does; fewer make a
/// reader wait for up to two round trips.
const ROUNDS_MAX: usize = 4;

/// Who wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reader {
    /// The node and boot that asked; `None` for a reader of the leader itself.
    pub(crate) asker: Option<(NodeId, Boot)>,
    pub(crate) id: ReadId,
}

/// Readers that one heartbeat round serves.
#[derive(Debug)]
struct Round {
    /// Serves everyone once a quorum has echoed this number or a later one.
    number: u64,
    /// The commit index when the round began: the answer.
    index: Index,
    readers: Vec<Reader>,
}

/// Readers that wait on a leader.
#[derive(Debug, Default)]
pub(crate) struct LeaderReads {
    /// Not yet part of a round, with the tick at which they came; oldest first.
    waiting: Vec<(u64, Reader)>,
    /// Oldest first.
    rounds: VecDeque<Round>,
    /// Readers in all of the above.
    count: usize,
}

impl LeaderReads {
    /// Takes a reader in, unless there are too many.
    ///
    /// # Errors
    /// [`Refusal::Overloaded`].
    pub(crate) fn add(&mut self, reader: Reader, now: u64, readers_max: usize) -> Result<(), Refusal> {
        if self.count >= readers_max {
            return Err(Refusal::Overloaded);
        }
        self.count += 1;
        self.waiting.push((now, reader));
        Ok(())
    }

    /// True when a round should be started for those who wait.
    pub(crate) fn wants_round(&self) -> bool {
        !self.waiting.is_empty() && self.rounds.len() < ROUNDS_MAX
    }

    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(crate) fn has_rounds(&self) -> bool {
        !self.rounds.is_empty()
    }

    /// Puts those who wait into the round that is about to be sent.
    pub(crate) fn start_round(&mut self, number: u64, index: Index) {
        assert!(
            self.rounds.back().is_none_or(|round| round.number < number),
            "round {number} used twice"
        );
        let readers = self.waiting.drain(..).map(|(_, reader)| reader).collect();
        self.rounds.push_back(Round {
            number,
            index,
            readers,
        });
    }

    /// Gives those whose round a quorum has echoed, with their index.
    pub(crate) fn take_served(&mut self, echoed: u64) -> Vec<(Index, Vec<Reader>)> {
        let mut served = Vec::new();
        while let Some(round) = self.rounds.pop_front_if(|round| round.number <= echoed) {
            self.count -= round.readers.len();
            served.push((round.index, round.readers));
        }
        served
    }

    /// Gives those who have waited too long for a round. A leader that is heard by a quorum whose disks
    /// take nothing leads on without ever committing its no-op, and before that no round may begin: without
    /// this, readers that gave up long ago would pile up until nobody is taken in any more. Those in a round
    /// need no such care: a round that no quorum echoes ends the leadership.
    pub(crate) fn take_expired(&mut self, now: u64, after_ticks: u64) -> Vec<Reader> {
        let is_late = |(since, _): &(u64, Reader)| now.saturating_sub(*since) >= after_ticks;
        let late = self.waiting.iter().take_while(|waiting| is_late(waiting)).count();
        self.count -= late;
        self.waiting.drain(..late).map(|(_, reader)| reader).collect()
    }

    /// Gives everyone: this node leads no longer.
    pub(crate) fn take_all(&mut self) -> Vec<Reader> {
        self.count = 0;
        let mut all: Vec<Reader> = self.rounds.drain(..).flat_map(|round| round.readers).collect();
        all.extend(self.waiting.drain(..).map(|(_, reader)| reader));
        all
    }
}

/// A reader of this node that waits for the answer of a leader elsewhere.
#[derive(Clone, Copy, Debug)]
struct Asked {
    /// When it came, in ticks.
    since: u64,
    /// When the leader was asked last; `None`: it is to be asked at the end of this turn.
    sent_at: Option<u64>,
}

/// Readers of this node that wait for the answer of a leader elsewhere.
#[derive(Debug, Default)]
pub(crate) struct AskedReads {
    readers: BTreeMap<ReadId, Asked>,
    /// Some reader is to be asked for at the end of this turn.
    is_due: bool,
}

impl AskedReads {
    pub(crate) fn count(&self) -> usize {
        self.readers.len()
    }

    pub(crate) fn add(&mut self, id: ReadId, now: u64) {
        self.readers.insert(
            id,
            Asked {
                since: now,
                sent_at: None,
            },
        );
        self.is_due = true;
    }

    /// True when this reader waits; it does so no longer.
    pub(crate) fn remove(&mut self, id: ReadId) -> bool {
        self.readers.remove(&id).is_some()
    }

    /// Those to ask the leader for now.
    pub(crate) fn take_due(&mut self, now: u64) -> Vec<ReadId> {
        if !std::mem::take(&mut self.is_due) {
            return Vec::new();
        }
        let due = self
            .readers
            .iter_mut()
            .filter(|(_, asked)| asked.sent_at.is_none());
        due.map(|(id, asked)| {
            asked.sent_at = Some(now);
            *id
        })
        .collect()
    }

    /// Asks again for those whose question or answer may be lost: the id is the reader's own, so two
    /// answers do no harm.
    pub(crate) fn retry(&mut self, now: u64, after_ticks: u64) {
        for asked in self.readers.values_mut() {
            if asked
                .sent_at
                .is_some_and(|at| now.saturating_sub(at) >= after_ticks)
            {
                asked.sent_at = None;
                self.is_due = true;
            }
        }
    }

    /// Gives up on those who have waited too long.
    pub(crate) fn take_expired(&mut self, now: u64, after_ticks: u64) -> Vec<ReadId> {
        let late = |asked: &Asked| now.saturating_sub(asked.since) >= after_ticks;
        let expired: Vec<ReadId> = self
            .readers
            .iter()
            .filter(|(_, asked)| late(asked))
            .map(|(id, _)| *id)
            .collect();
        for id in &expired {
            self.readers.remove(id);
        }
        expired
    }

    /// Gives everyone: this node leads now.
    pub(crate) fn take_all(&mut self) -> Vec<ReadId> {
        self.is_due = false;
        std::mem::take(&mut self.readers).into_keys().collect()
    }
}
