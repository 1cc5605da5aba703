//! The Prometheus text form (version 0.0.4).

use std::fmt::Write;

use super::histogram::Buckets;
use super::names::{Family, Kind};

/// A label and its value.
pub type Label<'a> = (&'a str, &'a str);

/// A page of metrics in the making.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
    current: &'static str,
}

impl Page {
    /// An empty page.
    pub fn new() -> Page {
        Page {
            text: String::with_capacity(16 << 10),
            current: "",
        }
    }

    /// One number of a counter or gauge. Numbers of a family must come one after another.
    pub fn number(&mut self, family: &Family, labels: &[Label<'_>], value: impl Into<f64>) {
        debug_assert!(family.kind != Kind::Histogram);
        self.head(family);
        self.sample(family.name, "", labels, None, value.into());
    }

    /// A whole number, which may be larger than a float can hold exactly.
    pub fn count(&mut self, family: &Family, labels: &[Label<'_>], value: u64) {
        self.number(family, labels, value as f64);
    }

    /// A histogram.
    pub fn histogram(&mut self, family: &Family, labels: &[Label<'_>], buckets: &Buckets) {
        debug_assert!(family.kind == Kind::Histogram);
        self.head(family);
        let mut sum = 0;
        let bounds = buckets
            .bounds
            .iter()
            .copied()
            .chain(std::iter::once(f64::INFINITY));
        for (bound, count) in bounds.zip(&buckets.counts) {
            sum += count;
            let bound = if bound.is_infinite() {
                "+Inf".to_owned()
            } else {
                bound.to_string()
            };
            self.sample(family.name, "_bucket", labels, Some(("le", &bound)), sum as f64);
        }
        self.sample(family.name, "_sum", labels, None, buckets.sum);
        self.sample(family.name, "_count", labels, None, sum as f64);
    }

    /// The page.
    pub fn finish(self) -> String {
        self.text
    }

    fn head(&mut self, family: &Family) {
        if self.current != family.name {
            self.current = family.name;
            self.line(format_args!("# HELP {} {}", family.name, family.help));
            self.line(format_args!("# TYPE {} {}", family.name, family.kind.as_str()));
        }
    }

    fn sample(
        &mut self,
        name: &str,
        suffix: &str,
        labels: &[Label<'_>],
        extra: Option<Label<'_>>,
        value: f64,
    ) {
        self.text.push_str(name);
        self.text.push_str(suffix);
        let mut opened = false;
        for (label, text) in labels.iter().copied().chain(extra) {
            self.text.push(if opened { ',' } else { '{' });
            opened = true;
            self.text.push_str(label);
            self.text.push_str("=\"");
            for c in text.chars() {
                match c {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    c => self.text.push(c),
                }
            }
            self.text.push('"');
        }
        if opened {
            self.text.push('}');
        }
        self.line(format_args!(" {value}"));
    }

    fn line(&mut self, arguments: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ok = self.text.write_fmt(arguments);
        self.text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::super::names;
    use super::*;

    #[test]
    fn text_form() {
        let mut page = Page::new();
        page.count(&names::RAFT_TERM, &[], 3);
        page.count(&names::RAFT_ROLE, &[("role", "leader")], 1);
        page.count(&names::RAFT_ROLE, &[("role", "a\"b\\c\n")], 0);
        let buckets = Buckets {
            bounds: vec![0.001, 1.0],
            counts: vec![1, 2, 3],
            sum: 7.5,
        };
        page.histogram(&names::LOG_SYNC_DURATION, &[("x", "y")], &buckets);
        let expected = "\
# HELP rnacos_raft_term Current term.
# TYPE rnacos_raft_term gauge
rnacos_raft_term 3
# HELP rnacos_raft_role 1 for the role this node has, 0 for the others.
# TYPE rnacos_raft_role gauge
rnacos_raft_role{role=\"leader\"} 1
rnacos_raft_role{role=\"a\\\"b\\\\c\\n\"} 0
# HELP rnacos_log_sync_duration_seconds Time of one write and sync of the log.
# TYPE rnacos_log_sync_duration_seconds histogram
rnacos_log_sync_duration_seconds_bucket{x=\"y\",le=\"0.001\"} 1
rnacos_log_sync_duration_seconds_bucket{x=\"y\",le=\"1\"} 3
rnacos_log_sync_duration_seconds_bucket{x=\"y\",le=\"+Inf\"} 6
rnacos_log_sync_duration_seconds_sum{x=\"y\"} 7.5
rnacos_log_sync_duration_seconds_count{x=\"y\"} 6
";
        assert_eq!(page.finish(), expected);
    }

    #[test]
    fn names_are_unique_and_of_the_right_form() {
        let mut names: Vec<_> = names::FAMILIES.iter().map(|family| family.name).collect();
        for family in names::FAMILIES {
            assert!(
                family
                    .name
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            );
            assert_eq!(
                family.kind == Kind::Counter,
                family.name.ends_with("_total"),
                "{}",
                family.name
            );
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), names::FAMILIES.len());
    }
}
