//! Who handles the HTTP writes of a service.

use crate::model::ServiceKey;

/// The one of `members` (ids of nodes) that is responsible for a service: the one with the highest hash of
/// both, so that when a member comes or goes only services change hands that it takes or leaves. The order
/// of `members` does not matter; `None` when there are none.
pub fn responsible(service: &ServiceKey, members: impl IntoIterator<Item = u64>) -> Option<u64> {
    members.into_iter().max_by_key(|member| {
        let hash = xxhash_rust::xxh3::xxh3_64_with_seed(service.as_bytes(), *member);
        (hash, *member)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::NamespaceId;

    fn services() -> impl Iterator<Item = ServiceKey> {
        (0..3_000).map(|n| ServiceKey::new(&NamespaceId::default(), "g", &format!("service-{n}")))
    }

    #[test]
    fn services_are_spread_and_few_move() {
        let mut of: BTreeMap<u64, usize> = BTreeMap::new();
        let mut moved = 0;
        for service in services() {
            let three = responsible(&service, [1, 2, 3]).unwrap();
            *of.entry(three).or_default() += 1;
            let two = responsible(&service, [3, 1]).unwrap();
            assert!(three == 2 || two == three, "only what the second had moves");
            moved += usize::from(two != three);
        }
        assert!(of.values().all(|count| (900..1_100).contains(count)), "{of:?}");
        assert_eq!(moved, of[&2]);
        assert_eq!(responsible(&services().next().unwrap(), []), None);
    }

    #[test]
    fn the_choice_is_the_same_for_ever() {
        // Nodes of different versions must agree.
        let chosen: Vec<_> = services()
            .take(8)
            .map(|service| responsible(&service, [1, 2, 3]))
            .collect();
        assert_eq!(chosen.into_iter().flatten().collect::<Vec<_>>(), EXPECTED);
    }

    const EXPECTED: [u64; 8] = [1, 3, 3, 2, 1, 2, 1, 3];
}
