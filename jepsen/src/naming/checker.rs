//! What a record of a naming run proves or breaks. A pure function; every rule is told with what it forgives.
//!
//! - **Losses.** A node that has shown a registration, or had a quiet time to learn of it, shows its instance in
//!   every list until the client ends it or the node dies. A connection that broke because its node died counts
//!   on for most of the grace: the client is about to register anew. Nor is a beat of what
//!   all nodes know answered with 20404.
//!   Forgiven: registrations that nobody kept
//!   (no acknowledged beat for a third of their time), and those that are made to expire fast, since beats and
//!   their owner may then be on different sides of a cut for long enough.
//! - **Ghosts.** Of what was deregistered, a node that no longer shows it does not show it again; after a quiet time
//!   nobody shows it. What died does not come back to a node that lacked it after a quiet time, and is gone after its time, plus the grace if there was trouble. Forgiven: instances for which a
//!   request with an unknown outcome may still be on its way, a tombstone that died with its node, the word of
//!   a node that died before the instance did, which is kept for the grace, and a deregistration within 50 ms
//!   of the answer to the last beat while nodes may not hear each other, by whose clocks the two are told apart.
//! - **Emptiness.** A node that was started does not list nobody where several were when it died, not even when all
//!   died with it: SDKs would drop every provider. It may answer 503.
//! - **Stamps.** On one node the stamp of a service never falls, over its restarts too, and rises with every
//!   change; one stamp is one content, in lists and pushes. What a connection is pushed never falls.
//! - **Availability.** A node that runs answers every registration, beat, deregistration and list within the
//!   client's patience, whatever is cut. Forgiven: dying, starting and stopped nodes.

use std::collections::{BTreeMap, BTreeSet};

use super::record::{
    Asked, Doubt, Ending, Life, Micros, Record, SECOND, Seen, Shown, Troubles, Via, Way, What,
};

/// After so long without trouble all nodes know everything.
pub const QUIET: Micros = 5 * SECOND;

/// For so long nodes keep what an absent node said.
pub const GRACE: Micros = 45 * SECOND;

/// An instance whose connection broke with its node is demanded for so long: less than the grace, so that it is
/// no matter when the others noticed.
const BROKEN_STAYS: Micros = 20 * SECOND;

/// A request without an answer may be carried out so much later: longer than any node is stopped.
const LATE: Micros = 15 * SECOND;

/// A node that dies so soon after it acknowledged may have told nobody.
const UNTOLD: Micros = 2 * SECOND;

/// Timeouts are looked at now and then, and a busy machine is late.
pub const EXPIRY_SLACK: Micros = 8 * SECOND;

/// Registrations that expire faster are not judged for losses.
const SLOW: Micros = 20 * SECOND;

/// After a start of all nodes clients need so long to be there again; until then what was known is shown, or nothing
/// is answered.
const REDO: Micros = 6 * SECOND;

/// Fewest instances that must have been there for an empty list to be wrong: one or two may have wished to go
/// just then.
const THERE_MIN: usize = 3;

/// A node that was stopped may be slow for so long.
const WAKING: Micros = SECOND;

/// Nodes that do not hear each other order what comes to them by their wall clocks. On one machine these differ by
/// milliseconds: each counts from its own start, in whole ones.
const CLOSE: Micros = 50_000;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Broken promises.
    pub violations: Vec<String>,
    /// Lists that showed or lacked what they should, looked at for losses.
    pub judged_present: usize,
    /// The same for ghosts.
    pub judged_absent: usize,
    /// Requests to nodes that were cut off alone.
    pub alone: BTreeMap<What, usize>,
}

/// A registration as it is judged.
struct Judged<'r> {
    life: &'r Life,
    acknowledged: Micros,
    /// Until then its instance is to be listed; `MAX` if it never ended.
    until: Micros,
}

/// Checks everything but the end of a run, which is looked at while it lasts.
#[must_use]
pub fn check(record: &Record, nodes: usize) -> Findings {
    let troubles = Troubles::new(&record.faults, &record.seen);
    let mut findings = Findings::default();
    let mut lists: BTreeMap<(usize, u32), Vec<&Seen>> = BTreeMap::new();
    for seen in record.seen.iter().filter(|seen| seen.via == Via::List) {
        lists.entry((seen.node, seen.service)).or_default().push(seen);
    }
    for ((node, service), lists) in &mut lists {
        lists.sort_unstable_by_key(|seen| seen.asked);
        losses(record, &troubles, *node, *service, lists, &mut findings);
        ghosts(record, &troubles, *node, *service, lists, &mut findings);
        emptiness(record, &troubles, *node, *service, lists, &mut findings);
        stamps(*node, *service, lists, &mut findings);
    }
    pushes(record, &troubles, &mut findings);
    availability(record, &troubles, nodes, &mut findings);
    findings
}

fn seconds(at: Micros) -> String {
    format!("{:.2} s", at as f64 / SECOND as f64)
}

fn losses(
    record: &Record,
    troubles: &Troubles,
    node: usize,
    service: u32,
    lists: &[&Seen],
    findings: &mut Findings,
) {
    for judged in record
        .lives
        .values()
        .filter_map(|life| judge(record, troubles, life))
    {
        if judged.life.service != service {
            continue;
        }
        let mut known: Option<Micros> = None;
        // The first moment by which nobody can be without it; learnt anew after a death of this node.
        let taught = troubles.quiet_from(judged.acknowledged, QUIET) + QUIET;
        for seen in lists {
            if seen.answered >= judged.until {
                break;
            }
            let kept = is_kept(judged.life, seen.answered);
            if known.is_some_and(|since| troubles.dead(node, since, seen.answered)) || !kept {
                known = None;
            }
            if known.is_none() && kept && seen.asked >= taught && !troubles.dead(node, taught, seen.answered)
            {
                known = Some(taught);
            }
            let shows = seen
                .hosts
                .iter()
                .any(|(instance, ..)| *instance == judged.life.instance);
            if known.is_some() {
                findings.judged_present += 1;
                if !shows {
                    findings.violations.push(format!(
                        "loss: node {} did not list instance {} of service {service} at {}, registered as {} over \
                         {:?} at {} and never ended{}",
                        node + 1,
                        judged.life.instance,
                        seconds(seen.asked),
                        judged.life.keeper,
                        judged.life.way,
                        seconds(judged.acknowledged),
                        if judged.until == Micros::MAX { "" } else { " by then" }
                    ));
                    break;
                }
            }
            let is_his = |shown: &Shown| shown.0 == judged.life.instance && shown.1 == judged.life.keeper;
            // Seen by an answer before: whoever asks later must see it.
            if known.is_none() && kept && seen.hosts.iter().any(is_his) && seen.asked >= judged.acknowledged {
                known = Some(seen.asked);
            }
        }
        let Some(end) = judged
            .life
            .end
            .filter(|end| end.how == Ending::Forgotten && end.node == node)
        else {
            continue;
        };
        // The node may have asked another one, so all must have had time to learn of it.
        let all_knew = taught <= end.asked && !troubles.any_dead(taught, end.asked);
        if all_knew && is_kept(judged.life, end.asked) {
            findings.violations.push(format!(
                "loss: node {} answered 20404 to a beat of instance {} of service {service} at {}, which all nodes knew",
                node + 1,
                judged.life.instance,
                seconds(end.asked)
            ));
        }
    }
}

/// After a start no node says that nobody is there, while those who were there have not wished to go.
fn emptiness(
    record: &Record,
    troubles: &Troubles,
    node: usize,
    service: u32,
    lists: &[&Seen],
    findings: &mut Findings,
) {
    for (died, started) in troubles.starts(node) {
        let empty = lists
            .iter()
            .find(|seen| seen.asked >= started && seen.answered < started + REDO && seen.hosts.is_empty());
        // A later death has its own start, which is looked at for itself.
        let Some(empty) = empty.filter(|empty| !troubles.dead(node, started + 1, empty.asked)) else {
            continue;
        };
        let was_there = |life: &&Life| {
            let there = life.acknowledged.is_some_and(|at| at + SECOND < died) && is_kept(life, died);
            let left = life
                .end
                .is_some_and(|end| end.asked <= died && end.how != Ending::Broken);
            life.service == service && there && !left && next_wish_to_end(record, life, died) > empty.answered
        };
        let there: BTreeSet<u32> = record
            .lives
            .values()
            .filter(was_there)
            .map(|life| life.instance)
            .collect();
        let there = there.len();
        if there < THERE_MIN {
            continue;
        }
        findings.violations.push(format!(
            "empty: node {} listed nobody of service {service} at {}, {:.2} s after its start, though {there} were \
             there when it died at {}",
            node + 1,
            seconds(empty.asked),
            (empty.asked - started) as f64 / SECOND as f64,
            seconds(died)
        ));
    }
}

/// The registration, if it is one that must be listed.
fn judge<'r>(record: &'r Record, troubles: &Troubles, life: &'r Life) -> Option<Judged<'r>> {
    let acknowledged = life.acknowledged?;
    if life.expires < SLOW {
        return None;
    }
    let until = match life.end {
        None => Micros::MAX,
        Some(end) if end.how == Ending::Broken => {
            let with_its_node = troubles.dead(life.node, end.asked.saturating_sub(SECOND), end.asked);
            if with_its_node {
                (end.asked + BROKEN_STAYS).min(next_wish_to_end(record, life, end.asked))
            } else {
                end.asked
            }
        }
        Some(end) => end.asked,
    };
    Some(Judged {
        life,
        acknowledged,
        until,
    })
}

/// When the client first wanted this instance to end, from this moment on.
fn next_wish_to_end(record: &Record, life: &Life, from: Micros) -> Micros {
    let of_it = record
        .lives
        .values()
        .filter(|other| other.instance == life.instance);
    of_it
        .filter_map(|other| other.end)
        .filter(|other| matches!(other.how, Ending::Deregistered | Ending::Died) && other.asked >= from)
        .map(|other| other.asked)
        .min()
        .unwrap_or(Micros::MAX)
}

/// Whether beats have kept it alive up to this moment, as far as the client knows.
fn is_kept(life: &Life, at: Micros) -> bool {
    if life.way == Way::Grpc {
        return true;
    }
    let patience = life.expires / 3;
    let mut last = life.acknowledged.unwrap_or(0);
    for kept in life.kept.iter().chain([&at]) {
        if *kept >= at {
            return at.saturating_sub(last) <= patience;
        }
        if kept.saturating_sub(last) > patience {
            // Known again only by being seen.
            last = *kept;
            continue;
        }
        last = *kept;
    }
    at.saturating_sub(last) <= patience
}

/// A time in which an instance is meant not to be there.
#[derive(Debug, Clone, Copy)]
struct Gone {
    instance: u32,
    /// Nobody wants it from then on.
    from: Micros,
    /// Nobody may show it from then on; `MAX` if nothing can be said.
    nowhere: Micros,
    /// The next registration was asked for then; `MAX` if there was none.
    to: Micros,
    /// Deregistered, and not merely dead: who has forgotten it does not remember it, whatever is broken.
    for_good: bool,
    /// A request for it may still be on its way.
    in_doubt: bool,
}

fn ghosts(
    record: &Record,
    troubles: &Troubles,
    node: usize,
    service: u32,
    lists: &[&Seen],
    findings: &mut Findings,
) {
    for gone in gone(record, troubles, service) {
        let mut forgotten: Option<Micros> = None;
        // Who lacks it from then on has heard everything there is to hear.
        let mut settled = troubles.quiet_from(gone.from, QUIET) + QUIET;
        let mut lacked_settled = false;
        let within = lists
            .iter()
            .filter(|seen| seen.asked > gone.from && seen.answered < gone.to);
        for seen in within {
            let shows = seen.hosts.iter().any(|(instance, ..)| *instance == gone.instance);
            if forgotten.is_some_and(|since| troubles.dead(node, since, seen.answered)) {
                (forgotten, lacked_settled) = (None, false);
                settled = troubles.quiet_from(seen.asked, QUIET) + QUIET;
            }
            let (again, too_late) = (
                (gone.for_good && forgotten.is_some()) || (lacked_settled && !gone.in_doubt),
                seen.asked >= gone.nowhere,
            );
            if again || too_late {
                findings.judged_absent += 1;
            }
            if shows && (again || too_late) {
                let why = if again {
                    "had forgotten it before"
                } else {
                    "should have learnt of it"
                };
                findings.violations.push(format!(
                    "ghost: node {} listed instance {} of service {service} at {}, which ended at {}, and {why}",
                    node + 1,
                    gone.instance,
                    seconds(seen.asked),
                    seconds(gone.from)
                ));
                break;
            }
            if !shows {
                // The moment is looked at for deaths since then: the newest will do.
                forgotten = Some(seen.answered);
                lacked_settled |= seen.asked >= settled;
            }
        }
    }
}

/// The times in which instances of a service are meant not to be there.
fn gone(record: &Record, troubles: &Troubles, service: u32) -> Vec<Gone> {
    let of_service = record.lives.values().filter(|life| life.service == service);
    let ended = of_service.filter_map(|life| Some((life, life.end?)));
    let mut all = Vec::new();
    for (life, end) in ended {
        if !matches!(end.how, Ending::Deregistered | Ending::Died) {
            continue;
        }
        let to = record
            .lives
            .values()
            .filter(|other| other.instance == life.instance && other.keeper > life.keeper)
            .map(|other| other.asked)
            .min()
            .unwrap_or(Micros::MAX);
        let from = end.acknowledged.unwrap_or(end.asked);
        let in_doubt = record.doubts.iter().any(|doubt: &Doubt| {
            doubt.instance == life.instance && doubt.at + LATE >= end.asked && doubt.at <= to
        });
        // A beat that one node took just before may stand above the word of another that does not hear it.
        let hurried = life.answered.is_some_and(|answered| answered + CLOSE > end.asked)
            && troubles.quiet_from(end.asked.saturating_sub(QUIET), QUIET) + QUIET > end.asked;
        let in_doubt = in_doubt || (hurried && end.how == Ending::Deregistered);
        let untold = end.acknowledged.is_some() && troubles.dead(end.node, from, from + UNTOLD);
        let deregistered = end.how == Ending::Deregistered && end.acknowledged.is_some();
        let for_good = deregistered && !in_doubt && !untold;
        // A request on its way may register it anew, and then it expires.
        let from_when = if in_doubt { from + LATE } else { from };
        let expires = match (for_good, life.way) {
            (true, _) => 0,
            (false, Way::Http) => life.expires + EXPIRY_SLACK,
            (false, Way::Grpc) => SECOND,
        };
        // A connection before this one broke with its node, whose words the others keep for the grace.
        let kept_elsewhere = record.lives.values().any(|other| {
            let broke = other
                .end
                .is_some_and(|end| end.how == Ending::Broken && end.asked + GRACE + EXPIRY_SLACK > from);
            other.instance == life.instance && other.keeper < life.keeper && broke
        });
        let at_once =
            troubles.quiet_from(from_when, expires + QUIET) == from_when && !in_doubt && !kept_elsewhere;
        let nowhere = if for_good || at_once {
            troubles.quiet_from(from_when + expires, QUIET) + QUIET
        } else {
            let at_worst = from_when + life.expires.max(expires) + GRACE + EXPIRY_SLACK;
            troubles.quiet_from(at_worst, QUIET) + QUIET
        };
        all.push(Gone {
            instance: life.instance,
            from,
            nowhere,
            to,
            for_good,
            in_doubt,
        });
    }
    all
}

/// Stamps of one service in the lists of one node.
fn stamps(node: usize, service: u32, lists: &[&Seen], findings: &mut Findings) {
    // The answer with the highest stamp among those read before a later one was asked for.
    let mut by_answer = lists.to_vec();
    by_answer.sort_unstable_by_key(|seen| seen.answered);
    let mut read = by_answer.iter().peekable();
    let mut highest: Option<&Seen> = None;
    for seen in lists {
        while let Some(earlier) = read.next_if(|earlier| earlier.answered < seen.asked) {
            if highest.is_none_or(|highest| highest.stamp <= earlier.stamp) {
                highest = Some(earlier);
            }
        }
        let Some(highest) = highest else { continue };
        let changed = seen.hosts != highest.hosts;
        if seen.stamp < highest.stamp || (changed && seen.stamp == highest.stamp) {
            findings.violations.push(format!(
                "stamp: node {} answered service {service} with stamp {} at {}, after {} at {}{}",
                node + 1,
                seen.stamp,
                seconds(seen.asked),
                highest.stamp,
                seconds(highest.asked),
                if changed {
                    ", with another content"
                } else {
                    ", with the same content"
                }
            ));
            return;
        }
    }
}

/// Pushes of one connection never fall; one stamp is one content wherever a node showed it.
fn pushes(record: &Record, troubles: &Troubles, findings: &mut Findings) {
    let mut last: BTreeMap<(u32, u32), i64> = BTreeMap::new();
    let mut contents: BTreeMap<(usize, u32, i64), &Seen> = BTreeMap::new();
    let mut told: BTreeSet<(usize, u32)> = BTreeSet::new();
    for seen in &record.seen {
        if let Via::Push(connection) = seen.via {
            let before = last.insert((connection, seen.service), seen.stamp);
            if before.is_some_and(|before| before > seen.stamp) {
                findings.violations.push(format!(
                    "stamp: node {} pushed service {} with stamp {} at {} after {}",
                    seen.node + 1,
                    seen.service,
                    seen.stamp,
                    seconds(seen.asked),
                    before.unwrap_or(0)
                ));
            }
        }
        let first = *contents
            .entry((seen.node, seen.service, seen.stamp))
            .or_insert(seen);
        let restarted = troubles.dead(seen.node, first.asked, seen.answered);
        if first.hosts != seen.hosts && !restarted && told.insert((seen.node, seen.service)) {
            findings.violations.push(format!(
                "stamp: node {} showed service {} with stamp {} and two contents, {:?} at {} and {:?} at {}",
                seen.node + 1,
                seen.service,
                seen.stamp,
                first.hosts,
                seconds(first.asked),
                seen.hosts,
                seconds(seen.asked)
            ));
        }
    }
}

fn availability(record: &Record, troubles: &Troubles, nodes: usize, findings: &mut Findings) {
    let mut wrong: BTreeMap<(usize, What), Vec<&Asked>> = BTreeMap::new();
    for asked in &record.asked {
        if troubles.out(asked.node, asked.asked.saturating_sub(WAKING), asked.answered) {
            continue;
        }
        if troubles.alone(asked.node, nodes, asked.asked, asked.answered) && asked.wrong.is_none() {
            *findings.alone.entry(asked.what).or_insert(0) += 1;
        }
        if asked.wrong.is_some() {
            wrong.entry((asked.node, asked.what)).or_default().push(asked);
        }
    }
    for ((node, what), all) in wrong {
        let Some(first) = all.first() else { continue };
        findings.violations.push(format!(
            "unavailable: node {} did not answer {} times to {what:?} as it should, first over {:?} from {} to {}: {}",
            node + 1,
            all.len(),
            first.way,
            seconds(first.asked),
            seconds(first.answered),
            first.wrong.as_deref().unwrap_or_default()
        ));
    }
}

#[cfg(test)]
mod tests;
