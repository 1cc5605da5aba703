//! What readers ask of the registry.

use std::ops::Bound;

use crate::model::{Endpoint, ServiceKey};

use super::super::overlay::Overlay;
use super::super::record::Origin;
use super::super::service::{Entry, Seen};
use super::super::stamp::{Stamp, Times};
use super::super::view::{Filter, Tally, View, Whole};
use super::{Kind, Registry};

impl Registry {
    /// What a reader sees of a service; `None` for one that nobody ever registered, or that was forgotten.
    pub fn view(&self, service: &ServiceKey, filter: &Filter) -> Option<View> {
        Some(self.services.get(service)?.view(filter))
    }

    /// All of a service that can be seen, to be looked at without the registry.
    pub fn whole(&self, service: &ServiceKey) -> Option<Whole> {
        Some(self.services.get(service)?.whole())
    }

    /// The state of a service, and its stamp. What readers see is the same as long as the state is; the stamp
    /// may have been raised since. `None` for a service that is not known.
    pub fn version(&self, service: &ServiceKey) -> Option<(Stamp, Stamp)> {
        let service = self.services.get(service)?;
        Some((service.content, service.stamp))
    }

    /// Services that are known.
    pub fn service_count(&self) -> usize {
        self.services.len()
    }

    /// The highest stamp of anything that is said about an instance here; the lowest of all for nothing.
    pub fn highest(&self, service: &ServiceKey, endpoint: &Endpoint) -> Stamp {
        let entry = self.entry(service, endpoint);
        entry.map(Entry::highest).unwrap_or_default()
    }

    /// Whose word on an instance counts here.
    pub fn said_by(&self, service: &ServiceKey, endpoint: &Endpoint) -> Option<Origin> {
        Some(self.entry(service, endpoint)?.winner()?.origin)
    }

    /// The present in logical time, for peers.
    pub fn times(&self, now_ms: u64) -> Times {
        self.clocks.now(now_ms)
    }

    /// A peer's logical time: nothing below it is drawn any more.
    pub fn hear(&mut self, now_ms: u64, times: Times) {
        self.clocks.hear(now_ms, times);
    }

    /// When another node was asked for an act: nothing below it is drawn for acts any more.
    pub fn hear_act(&mut self, now_ms: u64, asked: Stamp) {
        self.clocks.acts.hear(now_ms, asked);
    }

    /// Raises the stamp of a service for a new subscriber, who may have heard a higher one elsewhere.
    pub fn raise(&mut self, now_ms: u64, service: &ServiceKey) -> Stamp {
        match self.services.get_mut(service) {
            Some(service) => {
                service.stamp = self.clocks.lists.draw(now_ms, service.stamp);
                service.stamp
            }
            None => self.clocks.lists.draw(now_ms, Stamp::default()),
        }
    }

    /// What readers see of one instance.
    pub fn instance(&self, service: &ServiceKey, endpoint: &Endpoint) -> Option<Seen> {
        self.services.get(service)?.seen(endpoint)
    }

    /// True for a service that has instances, had some until a moment ago, or was made by an operator.
    pub fn knows(&self, service: &ServiceKey) -> bool {
        self.services.contains_key(service)
    }

    /// True while a service has an instance.
    pub fn has_instances(&self, service: &ServiceKey) -> bool {
        let service = self.services.get(service);
        service.is_some_and(|service| service.empty_since.is_none())
    }

    /// Services with instances behind `after` within its namespace: of the next `count` names; and the last of
    /// those names, `None` behind the last.
    pub fn populated_after(&self, after: &ServiceKey, count: usize) -> (Vec<ServiceKey>, Option<ServiceKey>) {
        let names = self
            .services
            .names()
            .range((Bound::Excluded(after), Bound::Unbounded));
        let names: Vec<&ServiceKey> = names
            .take_while(|name| name.namespace() == after.namespace())
            .take(count)
            .collect();
        let last = names.last().map(|name| (*name).clone());
        let populated = names.into_iter().filter(|name| self.has_instances(name));
        (populated.cloned().collect(), last)
    }

    /// Services behind `after` in the order of their names.
    pub fn services(&self, after: Option<&ServiceKey>) -> impl Iterator<Item = (&ServiceKey, Tally)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let names = self.services.names().range((from, Bound::Unbounded));
        names.filter_map(|name| Some((name, self.services.get(name)?.tally())))
    }

    /// What operators have set for a service.
    pub fn overlay(&self, service: &ServiceKey) -> Option<&Overlay> {
        Some(&self.services.get(service)?.overlay)
    }

    /// The kind of instances a service holds; `None` while it may take either.
    ///
    /// A registration is checked by what its node knows, so a service may get both kinds at the same moment on two
    /// nodes, or on two sides of a cut. What the log says then counts, on every node alike: the service is
    /// persistent. Ephemeral instances that are there are shown, and stay as long as their clients keep them; no
    /// others come.
    pub fn kind(&self, service: &ServiceKey) -> Option<Kind> {
        let service = self.services.get(service)?;
        let ephemeral = match service.holds_ephemeral() {
            Some(ephemeral) => ephemeral,
            None => service.overlay.service.as_ref()?.ephemeral,
        };
        Some(match ephemeral {
            true => Kind::Ephemeral,
            false => Kind::Persistent,
        })
    }
}
