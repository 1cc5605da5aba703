//! Handing leadership over (thesis §3.10).
//!
//! Proposals are refused while it runs, so that the target can catch up; it is then told to campaign
//! at once. If it has not taken over within an election timeout, this leader goes on.

use crate::core::Core;
use crate::error::Refusal;
use crate::leader::Leader;
use crate::message::Body;
use crate::progress::Mode;
use crate::types::{NodeId, ProposalId, Space};

/// A transfer under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transfer {
    /// The next leader.
    pub(crate) to: NodeId,
    /// Tick at which it began.
    started: u64,
    /// It was told to campaign, and that message is not known to be lost.
    is_told: bool,
}

impl Leader {
    /// Starts a transfer that was asked for.
    pub(crate) fn start_transfer(&mut self, core: &mut Core, id: ProposalId, to: Option<NodeId>) {
        if let Err(refusal) = self.try_transfer(core, to) {
            core.outcome(id, Err(refusal));
        }
    }

    fn try_transfer(&mut self, core: &Core, to: Option<NodeId>) -> Result<(), Refusal> {
        let to = match to {
            Some(to) if to == core.id() => return Ok(()),
            Some(to) => to,
            None => match self.transfer {
                Some(_) => return Ok(()),
                None => self.best_target(core).ok_or(Refusal::CannotLead(core.id()))?,
            },
        };
        match self.transfer {
            Some(running) if running.to == to => return Ok(()),
            Some(_) => return Err(Refusal::Transferring),
            None => {}
        }
        if !core.configuration().members.contains_key(&to) {
            return Err(Refusal::UnknownMember(to));
        }
        if !self.can_lead(core, to) {
            return Err(Refusal::CannotLead(to));
        }
        self.transfer = Some(Transfer {
            to,
            started: core.now,
            is_told: false,
        });
        Ok(())
    }

    /// The own disk is getting full: a member that has room should lead, if there is one.
    pub(crate) fn hand_over(&mut self, core: &Core) {
        if self.transfer.is_none() {
            self.transfer = self.best_target(core).map(|to| Transfer {
                to,
                started: core.now,
                is_told: false,
            });
        }
    }

    /// Removed from the membership: the best of the others need not wait for an election timeout.
    pub(crate) fn part(&mut self, core: &mut Core) {
        if !core.is_voter()
            && let Some(to) = self.best_target(core)
        {
            core.send(to, Body::TimeoutNow);
        }
    }

    /// The member that could take over with the least delay: the one with the longest match, of those
    /// the one with the lowest id.
    pub(crate) fn best_target(&self, core: &Core) -> Option<NodeId> {
        let able = self.peers.iter().filter(|(id, _)| self.can_lead(core, **id));
        able.max_by_key(|(id, peer)| (peer.matched, std::cmp::Reverse(**id)))
            .map(|(id, _)| *id)
    }

    /// A voter that answers, is clean, has room, and is not so far behind that it needs a snapshot.
    fn can_lead(&self, core: &Core, id: NodeId) -> bool {
        core.configuration().voters.contains(&id)
            && self.peers.get(&id).is_some_and(|peer| {
                peer.suspect.is_none()
                    && peer.space == Space::Ample
                    && peer.is_active(core.now, core.config.election_ticks)
                    && !matches!(peer.mode, Mode::Snapshot(_))
            })
    }

    pub(crate) fn tick_transfer(&mut self, core: &Core) {
        let election_ticks = u64::from(core.config.election_ticks);
        if self
            .transfer
            .is_some_and(|transfer| core.now - transfer.started >= election_ticks)
        {
            self.transfer = None;
        }
    }

    /// The message that tells the target may have been lost.
    pub(crate) fn retry_transfer(&mut self, from: NodeId) {
        if let Some(transfer) = &mut self.transfer
            && transfer.to == from
        {
            transfer.is_told = false;
        }
    }

    /// Tells the target to campaign once it has the whole log.
    pub(crate) fn advance_transfer(&mut self, core: &mut Core) {
        let Some(transfer) = self.transfer else { return };
        if !self.can_lead(core, transfer.to) {
            self.transfer = None;
            return;
        }
        let Some(peer) = self.peers.get(&transfer.to) else {
            return;
        };
        if peer.matched == core.log.last().index && !transfer.is_told {
            core.send(transfer.to, Body::TimeoutNow);
            self.transfer = Some(Transfer {
                is_told: true,
                ..transfer
            });
        }
    }
}
