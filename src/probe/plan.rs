//! What is to be checked, when, and what has been found: a plain value that is told the time.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::model::{Endpoint, ServiceKey};
use crate::naming::{Checker, ClusterMetadata, Replicated};

/// So many equal results in a row change the health of an instance (Nacos: `checkTimes`).
const EQUAL_RESULTS: u8 = 3;
/// The first check of an instance comes after this, and up to [`SPREAD_MS`] more, ms.
const FIRST_MS: u64 = 2_000;
/// First checks are spread over so long, by a hash of the instance: after a start they do not come at once.
const SPREAD_MS: u64 = 5_000;
/// An instance of another node's services is looked at again after this, ms.
const NOT_OURS_MS: u64 = 5_000;

/// An instance.
pub type Place = (ServiceKey, Endpoint);

/// What a check has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It answers as it should, after so long.
    Well {
        /// How long it took, ms.
        took_ms: u64,
    },
    /// It does not answer in time, or says that it is busy.
    Ill,
    /// It refuses: nobody is there, or something else.
    Dead,
    /// It was not asked: the operator does not allow it. The health stays as it is.
    Forbidden,
    /// It was not asked: too many names are being looked up. The health stays as it is.
    Unasked,
}

/// A check that is due.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// The instance.
    pub place: Place,
    /// The port to ask.
    pub port: u16,
    /// How.
    pub checker: Arc<Checker>,
    /// Tells this check from others of the same instance.
    pub number: u64,
}

/// All persistent instances, with their checks.
#[derive(Debug, Default)]
pub struct Plan {
    clusters: BTreeMap<(ServiceKey, Arc<str>), Cluster>,
    instances: BTreeMap<Place, Checked>,
    /// What is due when; the number makes it unique, and stale where the instance has another one.
    due: BTreeMap<(u64, u64), Place>,
    /// The newest number that was given out.
    newest: u64,
    /// Clusters whose checker is one that is not made here, ever.
    pub mysql_seen: u64,
}

#[derive(Debug)]
struct Cluster {
    checker: Arc<Checker>,
    /// Instead of the port of the instance.
    port: Option<u16>,
}

#[derive(Debug)]
struct Checked {
    /// As the log says.
    healthy: bool,
    /// The same results in a row, the newest of which were these.
    equal: (bool, u8),
    /// How long it takes, with less weight to what is long ago: the interval, within the bounds of its
    /// checker. ms.
    normal_ms: u64,
    /// Number of the check that is due or under way.
    number: u64,
}

/// How intervals adapt (Nacos `SwitchDomain.*HealthParams`).
struct Bounds {
    least_ms: u64,
    most_ms: u64,
    /// Weight of what was, in percent.
    inertia: u64,
}

impl Bounds {
    fn of(checker: &Checker) -> Bounds {
        match checker {
            Checker::Http(_) => Bounds {
                least_ms: 500,
                most_ms: 5_000,
                inertia: 85,
            },
            Checker::Tcp | Checker::None | Checker::Mysql => Bounds {
                least_ms: 1_000,
                most_ms: 5_000,
                inertia: 75,
            },
        }
    }

    fn next(&self, normal_ms: u64, took_ms: u64) -> u64 {
        let mixed = (normal_ms * self.inertia + took_ms.min(self.most_ms * 2) * (100 - self.inertia)) / 100;
        mixed.clamp(self.least_ms, self.most_ms)
    }
}

impl Plan {
    /// The replicated state says something.
    pub fn tell(&mut self, now_ms: u64, change: &Replicated) {
        match change {
            Replicated::Cluster {
                service,
                cluster,
                set,
            } => {
                self.set_cluster(service, cluster, set.as_ref());
                self.plan_cluster(now_ms, service, cluster);
            }
            Replicated::Instance {
                service,
                endpoint,
                set,
            } => {
                let place = (service.clone(), endpoint.clone());
                let Some(set) = set else {
                    self.instances.remove(&place);
                    return;
                };
                if let Some(known) = self.instances.get_mut(&place) {
                    if set.healthy != known.healthy && set.healthy != known.equal.0 {
                        // Not what was found here: it was registered anew, and begins anew.
                        known.equal.1 = 0;
                    }
                    known.healthy = set.healthy;
                    return;
                }
                let checked = Checked {
                    healthy: set.healthy,
                    equal: (set.healthy, 0),
                    normal_ms: 0,
                    number: 0,
                };
                self.instances.insert(place.clone(), checked);
                self.plan_first(now_ms, place);
            }
            Replicated::Service { .. } | Replicated::Override { .. } => {}
        }
    }

    /// This is all that the replicated state says.
    pub fn tell_all(&mut self, now_ms: u64, rows: impl IntoIterator<Item = Replicated>) {
        self.clusters.clear();
        self.instances.clear();
        self.due.clear();
        for row in rows {
            self.tell(now_ms, &row);
        }
    }

    fn set_cluster(&mut self, service: &ServiceKey, cluster: &Arc<str>, set: Option<&ClusterMetadata>) {
        let place = (service.clone(), Arc::clone(cluster));
        let Some(set) = set else {
            self.clusters.remove(&place);
            return;
        };
        // Whoever stored it has checked it; a text that cannot be read asks for nothing.
        let checker = Checker::parse(&set.checker).unwrap_or(Checker::None);
        self.mysql_seen += u64::from(checker == Checker::Mysql);
        let cluster = Cluster {
            checker: Arc::new(checker),
            port: (!set.use_instance_port).then_some(set.check_port),
        };
        self.clusters.insert(place, cluster);
    }

    /// What is set for a cluster has changed: those who were not checked may be now.
    fn plan_cluster(&mut self, now_ms: u64, service: &ServiceKey, cluster: &Arc<str>) {
        let first = Endpoint {
            ip: "".into(),
            port: 0,
            cluster: "".into(),
        };
        let from = Bound::Included((service.clone(), first));
        let of_service = self.instances.range((from, Bound::Unbounded));
        let of_service = of_service.take_while(|((other, _), _)| other == service);
        let of_cluster = of_service.filter(|((_, endpoint), _)| endpoint.cluster == *cluster);
        let places: Vec<Place> = of_cluster.map(|(place, _)| place.clone()).collect();
        for place in places {
            self.plan_first(now_ms, place);
        }
    }

    fn plan_first(&mut self, now_ms: u64, place: Place) {
        let hash = xxhash_rust::xxh3::xxh3_64_with_seed(
            place.1.ip.as_bytes(),
            xxhash_rust::xxh3::xxh3_64_with_seed(place.0.as_bytes(), place.1.port.into()),
        );
        self.plan_at(now_ms + FIRST_MS + hash % SPREAD_MS, place);
    }

    /// The next check of an instance is due then, if its cluster has checks; any other is forgotten.
    fn plan_at(&mut self, at_ms: u64, place: Place) {
        let checker = self.how(&place).0;
        let Some(checked) = self.instances.get_mut(&place) else {
            return;
        };
        self.newest += 1;
        checked.number = self.newest;
        if !matches!(*checker, Checker::None | Checker::Mysql) {
            self.due.insert((at_ms, self.newest), place);
        }
    }

    fn how(&self, place: &Place) -> (Arc<Checker>, u16) {
        let (service, endpoint) = place;
        let cluster = (service.clone(), Arc::clone(&endpoint.cluster));
        match self.clusters.get(&cluster) {
            Some(cluster) => (
                Arc::clone(&cluster.checker),
                cluster.port.unwrap_or(endpoint.port),
            ),
            None => (Arc::default(), endpoint.port),
        }
    }

    /// When the next check is due; it may turn out to be none.
    pub fn next_due_ms(&self) -> Option<u64> {
        self.due.keys().next().map(|(at_ms, _)| *at_ms)
    }

    /// The next check that is due by now, of a service that is ours.
    pub fn take_due(&mut self, now_ms: u64, is_ours: impl Fn(&ServiceKey) -> bool) -> Option<Probe> {
        loop {
            let entry = self.due.first_entry()?;
            if entry.key().0 > now_ms {
                return None;
            }
            let ((_, number), place) = entry.remove_entry();
            if self
                .instances
                .get(&place)
                .is_none_or(|checked| checked.number != number)
            {
                continue;
            }
            if !is_ours(&place.0) {
                if let Some(checked) = self.instances.get_mut(&place) {
                    checked.equal.1 = 0;
                }
                self.plan_at(now_ms + NOT_OURS_MS, place);
                continue;
            }
            let (checker, port) = self.how(&place);
            return Some(Probe {
                place,
                port,
                checker,
                number,
            });
        }
    }

    /// What a check has found; gives back the health that the log is to be told, if it is another one.
    pub fn found(&mut self, now_ms: u64, probe: Probe, found: Found) -> Option<(Place, bool)> {
        let bounds = Bounds::of(&probe.checker);
        let checked = self.instances.get_mut(&probe.place)?;
        if checked.number != probe.number {
            return None;
        }
        let (well, took_ms) = match found {
            Found::Well { took_ms } => (true, took_ms),
            Found::Ill => (false, checked.normal_ms * 2),
            Found::Dead | Found::Forbidden | Found::Unasked => (false, bounds.most_ms),
        };
        checked.normal_ms = bounds.next(checked.normal_ms, took_ms);
        let asked = !matches!(found, Found::Forbidden | Found::Unasked);
        if !asked {
            checked.normal_ms = bounds.most_ms;
        } else if checked.equal.0 == well {
            checked.equal.1 = checked.equal.1.saturating_add(1);
        } else {
            checked.equal = (well, 1);
        }
        let sure = checked.equal.1 >= EQUAL_RESULTS || found == Found::Dead;
        let told = sure && asked && checked.healthy != well;
        let at_ms = now_ms + checked.normal_ms;
        self.plan_at(at_ms, probe.place.clone());
        // Told again with every further result until the log has it: a proposal may fail.
        told.then_some((probe.place, well))
    }

    /// Instances that are known.
    pub fn len(&self) -> usize {
        self.instances.len()
    }

    /// No instance is known.
    pub fn is_empty(&self) -> bool {
        self.instances.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::NamespaceId;
    use crate::naming::Persistent;

    fn service() -> ServiceKey {
        ServiceKey::new(&NamespaceId::default(), "g", "s")
    }

    fn instance(port: u16, healthy: Option<bool>) -> Replicated {
        Replicated::Instance {
            service: service(),
            endpoint: Endpoint::new("10.0.0.1", port, "c"),
            set: healthy.map(|healthy| Persistent {
                instance: Arc::default(),
                healthy,
            }),
        }
    }

    fn cluster(checker: &str, port: Option<u16>) -> Replicated {
        Replicated::Cluster {
            service: service(),
            cluster: "c".into(),
            set: Some(ClusterMetadata {
                check_port: port.unwrap_or_default(),
                use_instance_port: port.is_none(),
                checker: checker.into(),
                metadata: Default::default(),
            }),
        }
    }

    /// The next check, at whatever time it is due.
    fn next(plan: &mut Plan) -> (u64, Probe) {
        let at_ms = plan.next_due_ms().expect("something is due");
        (at_ms, plan.take_due(at_ms, |_| true).expect("it is due"))
    }

    fn told(plan: &mut Plan, found: Found) -> Option<bool> {
        let (at_ms, probe) = next(plan);
        let told = plan.found(at_ms, probe, found);
        told.map(|(_, healthy)| healthy)
    }

    #[test]
    fn three_equal_results_flip_and_are_told_until_the_log_has_them() {
        let mut plan = Plan::default();
        plan.tell(0, &instance(1, Some(true)));
        let (at_ms, probe) = next(&mut plan);
        assert!((FIRST_MS..FIRST_MS + SPREAD_MS).contains(&at_ms), "{at_ms}");
        assert_eq!((probe.port, &*probe.checker), (1, &Checker::Tcp));
        assert_eq!(plan.next_due_ms(), None, "one at a time");
        assert_eq!(plan.found(at_ms, probe, Found::Ill), None);
        let well = Found::Well { took_ms: 3 };
        assert_eq!(told(&mut plan, well), None);
        for _ in 0..2 {
            assert_eq!(told(&mut plan, Found::Ill), None);
        }
        assert_eq!(told(&mut plan, Found::Ill), Some(false));
        assert_eq!(told(&mut plan, Found::Ill), Some(false), "the proposal was lost");
        plan.tell(1, &instance(1, Some(false)));
        assert_eq!(told(&mut plan, Found::Ill), None);
        for _ in 0..2 {
            assert_eq!(told(&mut plan, well), None);
        }
        assert_eq!(told(&mut plan, well), Some(true));
    }

    #[test]
    fn a_refused_connection_is_enough_and_what_is_forbidden_says_nothing() {
        let mut plan = Plan::default();
        plan.tell(0, &instance(1, Some(true)));
        for _ in 0..5 {
            assert_eq!(told(&mut plan, Found::Forbidden), None);
            assert_eq!(told(&mut plan, Found::Unasked), None);
        }
        assert_eq!(told(&mut plan, Found::Dead), Some(false));
        plan.tell(0, &instance(1, Some(false)));
        assert_eq!(told(&mut plan, Found::Dead), None);
    }

    #[test]
    fn who_registers_anew_begins_anew() {
        let mut plan = Plan::default();
        plan.tell(0, &instance(1, Some(true)));
        for result in [None, None, Some(false)] {
            assert_eq!(told(&mut plan, Found::Ill), result);
        }
        plan.tell(1, &instance(1, Some(false)));
        plan.tell(2, &instance(1, Some(true)));
        for result in [None, None, Some(false)] {
            assert_eq!(told(&mut plan, Found::Ill), result);
        }
    }

    #[test]
    fn intervals_follow_how_long_it_takes_within_bounds() {
        let mut plan = Plan::default();
        plan.tell(0, &instance(1, Some(true)));
        let gap = |plan: &mut Plan, found| {
            let (at_ms, probe) = next(plan);
            drop(plan.found(at_ms, probe, found));
            plan.next_due_ms().expect("the next") - at_ms
        };
        let quick = Found::Well { took_ms: 1 };
        assert_eq!(gap(&mut plan, quick), 1_000);
        let grown: Vec<u64> = (0..20).map(|_| gap(&mut plan, Found::Dead)).collect();
        assert!(grown.is_sorted() && grown[0] > 1_000, "{grown:?}");
        assert!(grown[19] > 4_900 && grown[19] <= 5_000, "{grown:?}");
        assert!(gap(&mut plan, quick) < 5_000);
        plan.tell(0, &cluster("{\"type\":\"HTTP\"}", None));
        let least = (0..20).map(|_| gap(&mut plan, quick)).min();
        assert_eq!(least, Some(500));
    }

    #[test]
    fn the_cluster_says_how_and_where() {
        let mut plan = Plan::default();
        plan.tell(0, &cluster("{\"type\":\"NONE\"}", None));
        plan.tell(0, &instance(1, Some(true)));
        assert_eq!(plan.next_due_ms(), None, "somebody tells");
        plan.tell(0, &cluster("{\"type\":\"HTTP\",\"path\":\"/up\"}", Some(99)));
        let (at_ms, probe) = next(&mut plan);
        assert_eq!(probe.port, 99);
        assert!(matches!(&*probe.checker, Checker::Http(check) if &*check.path == "/up"));
        // Changed while the check is under way: what it finds is of no use.
        plan.tell(at_ms, &cluster("{\"type\":\"MYSQL\"}", None));
        assert_eq!(plan.found(at_ms, probe, Found::Dead), None);
        assert_eq!((plan.next_due_ms(), plan.mysql_seen), (None, 1));
        let gone = Replicated::Cluster {
            service: service(),
            cluster: "c".into(),
            set: None,
        };
        plan.tell(at_ms, &gone);
        assert_eq!(*next(&mut plan).1.checker, Checker::Tcp);
    }

    #[test]
    fn what_is_gone_or_anothers_is_not_asked() {
        let mut plan = Plan::default();
        plan.tell(0, &instance(1, Some(true)));
        let far_ms = FIRST_MS + SPREAD_MS;
        assert_eq!(plan.take_due(far_ms, |_| false), None);
        assert_eq!(plan.next_due_ms(), Some(far_ms + NOT_OURS_MS));
        let probe = plan.take_due(far_ms + NOT_OURS_MS, |_| true).expect("now ours");
        plan.tell(0, &instance(1, None));
        assert_eq!(plan.found(far_ms, probe, Found::Dead), None);
        plan.tell(0, &instance(2, Some(true)));
        plan.tell(0, &instance(2, None));
        assert_eq!(plan.take_due(u64::MAX / 2, |_| true), None);
        assert!(plan.is_empty());
    }

    #[test]
    fn a_snapshot_takes_the_place_of_everything() {
        let mut plan = Plan::default();
        plan.tell(0, &cluster("{\"type\":\"NONE\"}", None));
        plan.tell(0, &instance(1, Some(true)));
        plan.tell_all(10, [instance(2, Some(true))]);
        assert_eq!(next(&mut plan).1.port, 2);
        assert_eq!(plan.len(), 1);
    }

    #[test]
    fn first_checks_are_spread() {
        let mut plan = Plan::default();
        for port in 0..1_000 {
            plan.tell(0, &instance(port, Some(true)));
        }
        let mut by_second = [0; 5];
        while let Some(at_ms) = plan.next_due_ms() {
            drop(plan.take_due(at_ms, |_| true));
            by_second[usize::try_from((at_ms - FIRST_MS) / 1_000).expect("small")] += 1;
        }
        assert!(
            by_second.iter().all(|count| (120..280).contains(count)),
            "{by_second:?}"
        );
    }
}
