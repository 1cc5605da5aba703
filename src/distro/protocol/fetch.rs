//! Comparing what peers hold with what is here, and fetching what differs.

use std::collections::BTreeSet;

use crate::naming::bugs::{Bug, has};
use crate::naming::{Bucket, Origin, RecordKey, Registry, Revision};

use super::{Distro, VERIFY_MS};
use crate::distro::GRACE_MS;
use crate::distro::message::{Heard, Message};

/// Buckets asked for at a time; a page of each fits into the peer's queue.
const BUCKETS_PER_ASK: usize = 16;

/// Buckets that are being fetched from a peer.
#[derive(Debug)]
pub(super) struct Pull {
    /// Not yet asked for.
    to_ask: BTreeSet<usize>,
    /// Asked for.
    asked: BTreeSet<usize>,
    /// Those of which a page has come, and there are more behind this record.
    rest: Vec<(usize, RecordKey)>,
    /// The least that any of them goes through to.
    through: Revision,
}

impl Distro {
    pub(super) fn on_verify(
        &mut self,
        now_ms: u64,
        registry: &mut Registry,
        from: u64,
        heard: Vec<Heard>,
        begin_again: bool,
    ) {
        let living: BTreeSet<Origin> = self.peers.values().filter_map(|peer| peer.origin).collect();
        let me = self.me.node;
        // What an earlier boot of this node said is a copy like others: kept for the grace, never adopted.
        let own = self.me;
        let others = heard.into_iter().filter(|heard| {
            heard.origin.node != me || (heard.origin.boot < own.boot && !has(Bug::OwnBootIgnored))
        });
        let others: Vec<Heard> = others.collect();
        self.note_hearing(now_ms, from, &others, &living);
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        for Heard {
            origin,
            known,
            newest,
            sums,
            silent_ms: _,
            absent_ms,
        } in others
        {
            let ours = registry.known(origin);
            let compare = if Some(origin) == peer.origin {
                peer.load_to.get_or_insert(known);
                // Otherwise changes are on their way, and no difference yet.
                ours == known || begin_again
            } else {
                let given_up = self.given_up.get(&origin.node);
                let given_up = given_up.is_some_and(|boot| origin.boot <= *boot);
                if absent_ms.is_some() && given_up {
                    continue;
                }
                // The origin itself tells better. Of two nodes that know equally much only one gives way; what either
                // was told ahead the other may lack, and nothing is lost by asking.
                let told_ahead = newest > known || registry.newest_of(origin) > ours;
                let gives_way = from < me || told_ahead;
                !living.contains(&origin) && (known > ours || (known == ours && gives_way))
            };
            // What is being fetched already is fetched as of now.
            if !compare || peer.pulls.contains_key(&origin) {
                continue;
            }
            let digest = registry.digest_of(origin).cloned().unwrap_or_default();
            let pull = Pull {
                to_ask: digest.differing(&sums).into_iter().collect(),
                asked: BTreeSet::new(),
                rest: Vec::new(),
                through: known,
            };
            peer.pulls.insert(origin, pull);
        }
        self.ask(now_ms, registry, from);
    }

    /// Notes whom a peer hears, and for how long nobody has heard the others.
    fn note_hearing(&mut self, now_ms: u64, from: u64, others: &[Heard], living: &BTreeSet<Origin>) {
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        peer.hears.clear();
        for heard in others.iter().filter(|heard| Some(heard.origin) != peer.origin) {
            let origin = heard.origin;
            peer.hears.insert(origin, heard.absent_ms.is_none());
            let Some(absent_ms) = heard.absent_ms else {
                let heard_ms = self.heard_ms.entry(origin).or_default();
                *heard_ms = now_ms.saturating_sub(heard.silent_ms).max(*heard_ms);
                continue;
            };
            if living.contains(&origin) {
                continue;
            }
            let since = now_ms.saturating_sub(absent_ms);
            let known = self.absent.entry(origin).or_insert(since);
            *known = since.min(*known);
            // Whoever heard it last counts. Of its own earlier boots a node has heard nothing, and who only looks again
            // at what it could not drop says nothing new.
            let is_hearing = origin.node != from && absent_ms < GRACE_MS - VERIFY_MS;
            let heard_ms = self.heard_ms.get_mut(&origin).filter(|_| is_hearing);
            if let Some(heard_ms) = heard_ms {
                *heard_ms = since.max(*heard_ms);
            }
        }
    }

    /// Asks for buckets that differ, and closes what is fetched.
    pub(super) fn ask(&mut self, now_ms: u64, registry: &mut Registry, from: u64) {
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        let mut messages = Vec::new();
        for (origin, pull) in &mut peer.pulls {
            if !pull.asked.is_empty() {
                continue;
            }
            for (bucket, after) in pull.rest.drain(..) {
                pull.asked.insert(bucket);
                messages.push(Message::Ask {
                    origin: *origin,
                    buckets: vec![bucket],
                    after: Some(after),
                });
            }
            if !pull.asked.is_empty() {
                continue;
            }
            if pull.to_ask.is_empty() {
                registry.replaced_all(*origin, pull.through);
                if Some(*origin) == peer.origin {
                    messages.push(Message::Known {
                        origin: *origin,
                        known: registry.known(*origin),
                        go_on: true,
                    });
                }
                continue;
            }
            let buckets: Vec<usize> = pull.to_ask.iter().take(BUCKETS_PER_ASK).copied().collect();
            for bucket in &buckets {
                pull.to_ask.remove(bucket);
                pull.asked.insert(*bucket);
            }
            messages.push(Message::Ask {
                origin: *origin,
                buckets,
                after: None,
            });
        }
        peer.pulls
            .retain(|_, pull| !pull.to_ask.is_empty() || !pull.asked.is_empty());
        for message in messages {
            self.say(now_ms, from, message);
        }
    }

    pub(super) fn on_bucket(&mut self, now_ms: u64, registry: &mut Registry, from: u64, bucket: Bucket) {
        let (origin, number, through) = (bucket.origin, bucket.bucket, bucket.through);
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        let Some(pull) = peer.pulls.get_mut(&origin) else {
            return;
        };
        if !pull.asked.remove(&number) {
            return;
        }
        let rest = bucket.next_after().cloned();
        match registry.replace(now_ms, bucket) {
            Ok(()) => {
                pull.through = pull.through.min(through);
                pull.rest.extend(rest.map(|after| (number, after)));
            }
            // The origin has begun anew meanwhile.
            Err(_) => drop(peer.pulls.remove(&origin)),
        }
        self.ask(now_ms, registry, from);
    }
}
