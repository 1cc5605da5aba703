//! What a client says about an instance.

use std::sync::Arc;

/// Beat interval of an instance that asks for none, ms.
pub const BEAT_INTERVAL_MS: u64 = 5_000;
/// Without a beat for so long an instance is unhealthy, unless it says otherwise, ms.
pub const BEAT_TIMEOUT_MS: u64 = 15_000;
/// Without a beat for so long an instance is removed, unless it says otherwise, ms.
pub const DELETE_TIMEOUT_MS: u64 = 30_000;
/// No instance asks for longer than a day: its record would outlive every reason to keep it.
const PRESERVED_MAX_MS: u64 = 24 * 3_600 * 1_000;

/// Keys of metadata that the server obeys (contract of Nacos 1.x to 3.x).
pub mod preserved {
    /// Interval of the client's beats, ms.
    pub const BEAT_INTERVAL: &str = "preserved.heart.beat.interval";
    /// Without a beat for so long: unhealthy, ms.
    pub const BEAT_TIMEOUT: &str = "preserved.heart.beat.timeout";
    /// Without a beat for so long: removed, ms.
    pub const DELETE_TIMEOUT: &str = "preserved.ip.delete.timeout";
    /// How the instance id is made: `simple` or `snowflake`.
    pub const ID_GENERATOR: &str = "preserved.instance.id.generator";
}

/// What a client attaches to an instance, a cluster or a service: sorted by name, each name once. An empty
/// one takes no memory of its own; clones share it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Metadata(Option<Arc<[Pair]>>);

/// A name and its value.
type Pair = (Box<str>, Box<str>);

impl Metadata {
    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        let pairs = self.0.as_deref()?;
        let place = pairs.binary_search_by(|(other, _)| (**other).cmp(name)).ok()?;
        pairs.get(place).map(|(_, value)| &**value)
    }

    /// Names and values, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.0.as_deref().unwrap_or_default();
        pairs.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Number of names.
    pub fn len(&self) -> usize {
        self.0.as_deref().map_or(0, <[_]>::len)
    }

    /// Nothing is attached.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// A duration in milliseconds as SDKs write it; what is no number above 0 counts as absent.
    fn millis(&self, name: &str) -> Option<u64> {
        let millis: u64 = self.get(name)?.trim().parse().ok()?;
        (millis > 0).then(|| millis.min(PRESERVED_MAX_MS))
    }
}

impl<N: Into<Box<str>>, V: Into<Box<str>>> FromIterator<(N, V)> for Metadata {
    /// Of values with the same name the last one counts.
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Metadata {
        let mut sorted: Vec<Pair> = pairs
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        // Stable, so that the last of equal names stays last.
        sorted.sort_by(|a, b| a.0.cmp(&b.0));
        sorted.reverse();
        sorted.dedup_by(|later, kept| later.0 == kept.0);
        sorted.reverse();
        Metadata((!sorted.is_empty()).then(|| sorted.into()))
    }
}

/// What a client registers, besides where it is and whether it is well.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// Share of the traffic, 0 to 10,000; 0 takes none.
    pub weight: f64,
    /// False: readers do not see it.
    pub enabled: bool,
    /// What the client attaches.
    pub metadata: Metadata,
}

impl Default for Instance {
    fn default() -> Instance {
        Instance {
            weight: 1.0,
            enabled: true,
            metadata: Metadata::default(),
        }
    }
}

impl Instance {
    /// Interval in which the client is asked to beat, ms; `None` where it leaves that to the server.
    pub fn beat_interval_ms(&self) -> Option<u64> {
        self.metadata.millis(preserved::BEAT_INTERVAL)
    }

    /// Unhealthy after so long without a beat, ms.
    pub fn beat_timeout_ms(&self) -> u64 {
        let asked = self.metadata.millis(preserved::BEAT_TIMEOUT);
        asked.unwrap_or(BEAT_TIMEOUT_MS)
    }

    /// Removed after so long without a beat, ms.
    pub fn delete_timeout_ms(&self) -> u64 {
        let asked = self.metadata.millis(preserved::DELETE_TIMEOUT);
        asked.unwrap_or(DELETE_TIMEOUT_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_sorted_and_the_last_value_counts() {
        let metadata: Metadata = [("b", "1"), ("a", "2"), ("b", "3")].into_iter().collect();
        assert_eq!(metadata.iter().collect::<Vec<_>>(), [("a", "2"), ("b", "3")]);
        assert_eq!((metadata.get("b"), metadata.get("c")), (Some("3"), None));
        assert_eq!(metadata.len(), 2);
        let none: Metadata = std::iter::empty::<(&str, &str)>().collect();
        assert_eq!(none, Metadata::default());
        assert!(none.is_empty());
    }

    #[test]
    fn preserved_times_are_obeyed_when_they_are_times() {
        let with = |pairs: &[(&str, &str)]| Instance {
            metadata: pairs.iter().copied().collect(),
            ..Instance::default()
        };
        let plain = Instance::default();
        assert_eq!(
            (
                plain.beat_timeout_ms(),
                plain.delete_timeout_ms(),
                plain.beat_interval_ms()
            ),
            (15_000, 30_000, None)
        );
        let asked = with(&[
            (preserved::BEAT_TIMEOUT, "3000"),
            (preserved::DELETE_TIMEOUT, " 6000 "),
        ]);
        assert_eq!(
            (asked.beat_timeout_ms(), asked.delete_timeout_ms()),
            (3_000, 6_000)
        );
        let wrong = with(&[
            (preserved::BEAT_TIMEOUT, "-1"),
            (preserved::DELETE_TIMEOUT, "soon"),
        ]);
        assert_eq!(
            (wrong.beat_timeout_ms(), wrong.delete_timeout_ms()),
            (15_000, 30_000)
        );
        let for_ever = with(&[(preserved::DELETE_TIMEOUT, "99999999999999")]);
        assert_eq!(for_ever.delete_timeout_ms(), PRESERVED_MAX_MS);
    }
}
