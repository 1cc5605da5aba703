//! Replays what Java Nacos answered, against a server in this process, and counts agreements.
//!
//! Goal: an SDK or tool that works with Nacos works with this server. Method: every recorded request of a
//! group is sent in the recorded order; *lenient* agreement (what a client would notice) is demanded for
//! every case but those listed in [`KNOWN`], and those must really differ, so that the list stays true.
//!
//! `REPLAY=v1.config cargo test --test conformance -- --nocapture` prints the strict differences of a group.

#[path = "conformance/diff.rs"]
mod diff;
#[path = "conformance/replay.rs"]
mod replay;

use std::collections::BTreeMap;

use serde_json::Value;

use self::diff::{Recorded, Rigour, diff};
use self::replay::{Case, Pass};

/// Groups that are served, and the least number of their cases that agree strictly. Raise it, never lower it.
const GROUPS: &[(&str, usize)] = &[
    ("v1.config", 84),
    ("v1.listener", 15),
    ("v1.history", 11),
    ("v1.console", 22),
    ("v1.csops", 2),
    ("v1.instance", 64),
    ("v1.service", 25),
    ("v1.protect", 0),
    ("v1.catalog", 10),
    ("v1.cluster", 8),
    ("v1.health", 4),
    ("v1.operator", 16),
    ("v2.console", 10),
    ("v2.client", 11),
    ("v2.instance", 18),
    ("v2.service", 12),
    ("v2.nsops", 3),
];

/// Cases that differ even leniently, and why.
const KNOWN: &[(&str, &str)] = &[
    (
        "v1-console-state",
        "there is no console yet, and the state says so",
    ),
    (
        "v1-console-announcement-bad",
        "announcements belong to the console",
    ),
    ("v1-console-guide", "the guide belongs to the console"),
    (
        "v1-console-prometheus-sd",
        "service discovery for Prometheus is to come",
    ),
    (
        "v1-console-prometheus-sd-ns",
        "service discovery for Prometheus is to come",
    ),
    (
        "v1-console-prometheus-sd-service",
        "service discovery for Prometheus is to come",
    ),
    ("v1-csops-log-no-param", "levels of loggers cannot be changed yet"),
    (
        "v1-csops-derby-not-select",
        "there is no SQL here, and there will be none",
    ),
    (
        "v1-csops-derby-import-no-file",
        "there is no SQL here, and there will be none",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn answers_agree_with_those_of_java_nacos() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().display().to_string();
    let settings = rnacos::settings::Settings::with(&[
        ("RNACOS_DATA_DIR", &dir),
        ("RNACOS_SDK_HOST", "127.0.0.1"),
        ("RNACOS_HTTP_PORT", "0"),
    ]);
    let server = rnacos::server::Server::start(settings.expect("settings"))
        .await
        .expect("a server");
    let run = format!("q{:07x}", rand::random::<u32>() & 0x0fff_ffff);
    eprintln!("names of this pass contain {run}");
    let mut pass = Pass::new(server.http_address(), &run);

    let cases: Vec<Value> = serde_json::from_str(include_str!("oracle/cases_base.json")).expect("cases");
    let recording: Value = serde_json::from_str(include_str!("oracle/oracle_base.json")).expect("answers");
    let (mut strict, mut failures) = (BTreeMap::<&str, (usize, usize)>::new(), Vec::new());
    let verbose = std::env::var("REPLAY").ok();
    for case in cases.into_iter().map(Case) {
        let group = GROUPS
            .iter()
            .find(|(group, _)| *group == case.group())
            .map(|(group, _)| *group);
        let Some(group) = group else { continue };
        let recorded = &recording["answers"][case.name()];
        let recorded = (!recorded.is_null()).then_some(Recorded(recorded));
        let agrees = |answer: &replay::Answer| {
            recorded
                .as_ref()
                .is_none_or(|recorded| diff(&case, recorded, answer, Rigour::Strict).is_empty())
        };
        let answer = pass.send(&case, agrees).await;
        let Some(recorded) = recorded.as_ref().filter(|_| !case.is_setup() && !case.is_quirk()) else {
            continue;
        };
        let differences = diff(&case, recorded, &answer, Rigour::Strict);
        let counts = strict.entry(group).or_default();
        counts.1 += 1;
        counts.0 += usize::from(differences.is_empty());
        if verbose.as_deref() == Some(group) && !differences.is_empty() {
            eprintln!("{}: {}", case.name(), differences.join("; "));
        }
        judge(
            &case,
            diff(&case, recorded, &answer, Rigour::Lenient),
            &mut failures,
        );
    }
    for (group, least) in GROUPS {
        let (agreed, of) = strict.get(group).copied().unwrap_or_default();
        eprintln!("{group}: {agreed} of {of} agree strictly");
        if agreed < *least {
            failures.push(format!(
                "{group}: only {agreed} of {of} agree strictly, {least} did before"
            ));
        }
    }
    assert!(server.stop().await, "the server stops in order");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn judge(case: &Case, differences: Vec<String>, failures: &mut Vec<String>) {
    let known = KNOWN.iter().find(|(name, _)| *name == case.name());
    match (differences.is_empty(), known) {
        (false, None) => failures.push(format!("{}: {}", case.name(), differences.join("; "))),
        (true, Some(_)) => failures.push(format!("{} agrees now: take it from the list", case.name())),
        (true, None) | (false, Some(_)) => {}
    }
}
