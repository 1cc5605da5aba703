//! Who is a member, and how that changes: joint consensus (thesis §4.3) with learners (§4.2.1).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::error::Refusal;
use crate::types::{Incarnation, Index, NodeId};

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// Its id.
    pub id: NodeId,
    /// Its incarnation; messages of another one are not this member's.
    pub incarnation: Incarnation,
    /// `host:port` of its peer door.
    pub address: String,
}

/// A membership. While `outgoing` is not empty it is joint: decisions need a majority of both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// Every member by id: voters (incoming and outgoing) and learners.
    pub members: BTreeMap<NodeId, Member>,
    /// Ids of the voters (of the incoming set while joint).
    pub voters: BTreeSet<NodeId>,
    /// Ids of the voters of the outgoing set; empty when not joint.
    pub outgoing: BTreeSet<NodeId>,
}

/// A change an operator (or a joining node) asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Adds a learner; the leader promotes it once it has caught up. Adding a member that is already
    /// there with the same incarnation and address succeeds and changes nothing; with another address
    /// it is a [`Change::Readdress`].
    Add(Member),
    /// Removes a voter or learner.
    Remove(NodeId),
    /// Gives a member another address.
    Readdress(Member),
}

/// Why bytes are no configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigurationError {
    /// The bytes end before the configuration does.
    #[error("the configuration is cut short")]
    Short,
    /// Written by a newer version.
    #[error("configuration format {0} is not known")]
    Version(u8),
    /// The bytes mean nothing, or not exactly one configuration.
    #[error("the configuration is malformed")]
    Malformed,
}

/// Members a configuration may have. A change beyond it is refused as too large.
pub const MEMBERS_MAX: usize = 64;
/// Bytes of an address. A change beyond it is refused as too large.
pub const ADDRESS_BYTES_MAX: usize = 512;

const VERSION: u8 = 1;
const FLAG_VOTER: u8 = 1;
const FLAG_OUTGOING: u8 = 2;

impl Configuration {
    /// The configuration of a founder: one voter.
    pub fn founding(member: Member) -> Configuration {
        let id = member.id;
        Configuration {
            members: BTreeMap::from([(id, member)]),
            voters: BTreeSet::from([id]),
            outgoing: BTreeSet::new(),
        }
    }

    /// True while decisions need a majority of two sets.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// True for a voter of either set.
    pub fn is_voter(&self, id: NodeId) -> bool {
        self.voters.contains(&id) || self.outgoing.contains(&id)
    }

    /// True for a member that does not vote.
    pub fn is_learner(&self, id: NodeId) -> bool {
        self.members.contains_key(&id) && !self.is_voter(id)
    }

    /// The incarnation of a member.
    pub fn incarnation_of(&self, id: NodeId) -> Option<Incarnation> {
        self.members.get(&id).map(|member| member.incarnation)
    }

    /// True when [`Configuration::encode`] takes it and somebody votes: what every member sends. From a peer
    /// it may be anything.
    pub(crate) fn is_sound(&self) -> bool {
        let is_known = |id: &NodeId| self.members.contains_key(id);
        let is_filed = |(id, member): (&NodeId, &Member)| {
            *id != NodeId(0) && member.id == *id && member.address.len() <= ADDRESS_BYTES_MAX
        };
        !self.voters.is_empty()
            && self.members.len() <= MEMBERS_MAX
            && self.voters.iter().chain(&self.outgoing).all(is_known)
            && self.members.iter().all(is_filed)
    }

    /// What a change makes of this configuration: `Ok(None)` when there is nothing to do. Changes to
    /// who votes go through a joint configuration; learners and addresses move no majority and do not.
    ///
    /// # Errors
    /// The change contradicts who is a member now.
    pub fn changed(&self, change: &Change) -> Result<Option<Configuration>, Refusal> {
        match change {
            Change::Add(member) => match self.members.get(&member.id) {
                Some(present) if present == member => Ok(None),
                Some(_) => self.with_member(member),
                None if member.id == NodeId(0) => Err(Refusal::UnknownMember(member.id)),
                None if self.members.len() >= MEMBERS_MAX => Err(Refusal::TooLarge),
                None => self.with_member(member),
            },
            Change::Readdress(member) => match self.members.get(&member.id) {
                None => Err(Refusal::UnknownMember(member.id)),
                Some(present) if present == member => Ok(None),
                Some(_) => self.with_member(member),
            },
            Change::Remove(id) => self.without_member(*id).map(Some),
        }
    }

    /// This configuration with the learner as a voter, joint with the one before.
    pub(crate) fn promoted(&self, learner: NodeId) -> Configuration {
        assert!(!self.is_joint(), "a joint configuration must be left first");
        assert!(self.is_learner(learner), "node {learner} is not a learner");
        let mut next = self.clone();
        next.outgoing = self.voters.clone();
        next.voters.insert(learner);
        next
    }

    /// The configuration after the joint one: who only was in the outgoing set is no longer a member.
    pub(crate) fn left(&self) -> Configuration {
        assert!(self.is_joint(), "only a joint configuration can be left");
        let mut next = self.clone();
        for id in &self.outgoing {
            if !self.voters.contains(id) {
                next.members.remove(id);
            }
        }
        next.outgoing.clear();
        next
    }

    fn with_member(&self, member: &Member) -> Result<Option<Configuration>, Refusal> {
        if let Some(present) = self.members.get(&member.id)
            && present.incarnation != member.incarnation
        {
            return Err(Refusal::OtherIncarnation(member.id));
        }
        if member.address.len() > ADDRESS_BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        let taken = self
            .members
            .values()
            .find(|other| other.id != member.id && other.address == member.address);
        if let Some(other) = taken {
            return Err(Refusal::AddressTaken(other.id));
        }
        let mut next = self.clone();
        next.members.insert(member.id, member.clone());
        Ok(Some(next))
    }

    fn without_member(&self, id: NodeId) -> Result<Configuration, Refusal> {
        if !self.members.contains_key(&id) {
            return Err(Refusal::UnknownMember(id));
        }
        let mut next = self.clone();
        if self.is_learner(id) {
            next.members.remove(&id);
            return Ok(next);
        }
        next.outgoing = self.voters.clone();
        next.voters.remove(&id);
        if next.voters.is_empty() {
            return Err(Refusal::LastVoter);
        }
        Ok(next)
    }

    /// The bytes of a configuration entry (all numbers little-endian):
    ///
    /// ```text
    /// version u8 = 1 | members u16 | per member, ascending by id:
    ///   id u64 | incarnation u64 | flags u8 (1 voter, 2 outgoing voter) | address length u16 | address
    /// ```
    ///
    /// Equal configurations have equal bytes.
    pub fn encode(&self) -> Bytes {
        assert!(
            self.members.len() <= MEMBERS_MAX,
            "{} members",
            self.members.len()
        );
        assert!(
            self.voters
                .iter()
                .chain(&self.outgoing)
                .all(|id| self.members.contains_key(id))
        );
        let mut out = Vec::with_capacity(3 + self.members.len() * 40);
        out.push(VERSION);
        out.extend_from_slice(&(self.members.len() as u16).to_le_bytes());
        for (id, member) in &self.members {
            assert!(*id == member.id, "member {} filed under {id}", member.id);
            assert!(
                member.address.len() <= ADDRESS_BYTES_MAX,
                "address of node {id} too long"
            );
            let voter = if self.voters.contains(id) { FLAG_VOTER } else { 0 };
            let outgoing = if self.outgoing.contains(id) {
                FLAG_OUTGOING
            } else {
                0
            };
            out.extend_from_slice(&id.0.to_le_bytes());
            out.extend_from_slice(&member.incarnation.0.to_le_bytes());
            out.push(voter | outgoing);
            out.extend_from_slice(&(member.address.len() as u16).to_le_bytes());
            out.extend_from_slice(member.address.as_bytes());
        }
        Bytes::from(out)
    }

    /// The reverse of [`Configuration::encode`], for bytes of any origin.
    ///
    /// # Errors
    /// Everything that `encode` would not have written: never a panic, and never more memory than a
    /// small multiple of the input.
    pub fn decode(bytes: &[u8]) -> Result<Configuration, ConfigurationError> {
        let mut input = Reader { rest: bytes };
        let version = input.u8()?;
        if version != VERSION {
            return Err(ConfigurationError::Version(version));
        }
        let count = input.u16()? as usize;
        if count > MEMBERS_MAX {
            return Err(ConfigurationError::Malformed);
        }
        let mut configuration = Configuration::default();
        for _ in 0..count {
            let member = input.member(&mut configuration)?;
            configuration.members.insert(member.id, member);
        }
        let learners_only = configuration.voters.is_empty() && count > 0;
        let orphaned = configuration.voters.is_empty() && !configuration.outgoing.is_empty();
        if !input.rest.is_empty() || orphaned || learners_only {
            return Err(ConfigurationError::Malformed);
        }
        Ok(configuration)
    }
}

/// Takes numbers off the front of outside bytes.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], ConfigurationError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or(ConfigurationError::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ConfigurationError> {
        self.take(N)?.try_into().map_err(|_| ConfigurationError::Short)
    }

    fn u8(&mut self) -> Result<u8, ConfigurationError> {
        self.array::<1>().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Result<u16, ConfigurationError> {
        self.array().map(u16::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, ConfigurationError> {
        self.array().map(u64::from_le_bytes)
    }

    /// One member; enters it into the sets of voters. Ids must ascend, so that equal configurations
    /// have equal bytes.
    fn member(&mut self, into: &mut Configuration) -> Result<Member, ConfigurationError> {
        let id = NodeId(self.u64()?);
        let incarnation = Incarnation(self.u64()?);
        let flags = self.u8()?;
        let length = self.u16()? as usize;
        let newest = into.members.last_key_value().map_or(NodeId(0), |(id, _)| *id);
        if id <= newest || flags > (FLAG_VOTER | FLAG_OUTGOING) || length > ADDRESS_BYTES_MAX {
            return Err(ConfigurationError::Malformed);
        }
        let address = std::str::from_utf8(self.take(length)?).map_err(|_| ConfigurationError::Malformed)?;
        if flags & FLAG_VOTER != 0 {
            into.voters.insert(id);
        }
        if flags & FLAG_OUTGOING != 0 {
            into.outgoing.insert(id);
        }
        Ok(Member {
            id,
            incarnation,
            address: address.to_owned(),
        })
    }
}

/// The memberships of the log: the one in force at its base and each later one.
///
/// A configuration is in force from the moment it is appended (thesis §4.1), so the last of these
/// rules; truncation takes it back (R5).
#[derive(Clone, Debug)]
pub(crate) struct Memberships {
    /// Ascending by index, never empty; the first is at or below the base of the log.
    history: Vec<(Index, Configuration)>,
}

impl Memberships {
    /// What was found on the disk. A log that starts at its beginning has no membership at its base.
    pub(crate) fn new(recovered: Vec<(Index, Configuration)>, base: Index) -> Memberships {
        let mut history = recovered;
        if history.first().is_none_or(|(index, _)| *index > base) {
            assert!(base == Index(0), "no membership at the base {base}");
            history.insert(0, (base, Configuration::default()));
        }
        assert!(
            history.is_sorted_by(|a, b| a.0 < b.0),
            "recovered configurations out of order"
        );
        Memberships { history }
    }

    /// The one in force.
    pub(crate) fn current(&self) -> &Configuration {
        &self.history[self.history.len() - 1].1
    }

    /// Index of the entry that put it in force.
    pub(crate) fn index(&self) -> Index {
        self.history[self.history.len() - 1].0
    }

    /// The one in force at `index`; `None` below the base of the log.
    pub(crate) fn at(&self, index: Index) -> Option<&Configuration> {
        self.history
            .iter()
            .rev()
            .find(|(at, _)| *at <= index)
            .map(|(_, configuration)| configuration)
    }

    pub(crate) fn push(&mut self, index: Index, configuration: Configuration) {
        assert!(
            index > self.index(),
            "configuration {index} after {}",
            self.index()
        );
        self.history.push((index, configuration));
    }

    /// The entries from `from` on are gone. True when that changed the membership in force.
    pub(crate) fn truncate_from(&mut self, from: Index) -> bool {
        let before = self.history.len();
        self.history.retain(|(index, _)| *index < from);
        assert!(
            !self.history.is_empty(),
            "the configuration at the base was truncated"
        );
        self.history.len() != before
    }

    /// The log starts after `base` now.
    pub(crate) fn compact_to(&mut self, base: Index) {
        let kept = self
            .history
            .iter()
            .rposition(|(index, _)| *index <= base)
            .unwrap_or(0);
        self.history.drain(..kept);
    }

    /// The log starts anew after a snapshot.
    pub(crate) fn reset(&mut self, base: Index, configuration: Configuration) {
        self.history = vec![(base, configuration)];
    }
}
