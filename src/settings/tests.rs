//! Settings from scripted sources.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::*;

fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn no_file(_: &Path) -> io::Result<String> {
    Err(io::ErrorKind::NotFound.into())
}

fn invoke(arguments: &[&str], pairs: &[(&str, &str)], file: &str) -> Result<Invocation, Refusal> {
    let all = std::iter::once("rnacos").chain(arguments.iter().copied());
    read(all, environment(pairs), |path| {
        if file.is_empty() || path != Path::new("env01") {
            no_file(path)
        } else {
            Ok(file.to_owned())
        }
    })
}

fn mistakes(result: Result<Invocation, Refusal>) -> Vec<Mistake> {
    match result {
        Err(Refusal::Mistakes(mistakes)) => mistakes.0,
        other => panic!("mistakes expected, got {other:?}"),
    }
}

#[test]
fn defaults_are_those_of_the_announcement() {
    let settings = invoke(&[], &[], "").unwrap().settings;
    assert_eq!(settings.network.http_address().to_string(), "0.0.0.0:8848");
    assert_eq!(settings.network.grpc_address().to_string(), "0.0.0.0:9848");
    assert!(settings.network.workers >= 1);
    assert_eq!(settings.storage.dir, Path::new("nacos_db"));
    assert_eq!(settings.storage.disk_reserve_bytes, None);
    let cluster = settings.cluster;
    assert_eq!((cluster.node_id, cluster.auto_init), (1, true));
    assert_eq!(cluster.node_address, "127.0.0.1:9848");
    assert_eq!((cluster.join_address, cluster.token), (None, None));
    assert_eq!(settings.config.content_bytes_max, 10_485_760);
    assert_eq!(settings.config.history_max, 100);
    assert_eq!(settings.operation.log_filter, "info");
    assert_eq!(settings.operation.write_timeout, Duration::from_millis(2_500));
}

#[test]
fn the_three_node_example_of_the_announcement() {
    let file = "RNACOS_HTTP_PORT=8849\nRNACOS_GRPC_PORT=9849\nRNACOS_RAFT_NODE_ADDR=127.0.0.1:9849\n\
                RNACOS_CONFIG_DB_DIR=db02\nRNACOS_RAFT_NODE_ID=2\nRNACOS_RAFT_JOIN_ADDR=127.0.0.1:9848\n";
    let settings = invoke(&["-e", "env01"], &[], file).unwrap().settings;
    assert_eq!(
        (settings.network.http_port, settings.network.grpc_port),
        (8849, 9849)
    );
    assert_eq!(settings.storage.dir, Path::new("db02"));
    assert_eq!((settings.cluster.node_id, settings.cluster.auto_init), (2, false));
    assert_eq!(settings.cluster.join_address.as_deref(), Some("127.0.0.1:9848"));
}

#[test]
fn flag_wins_over_environment_over_file_over_default() {
    let file = "RNACOS_HTTP_PORT=1\nRNACOS_GRPC_PORT=11\nRNACOS_RAFT_NODE_ID=21\n";
    let env = [("RNACOS_HTTP_PORT", "2"), ("RNACOS_GRPC_PORT", "12")];
    let settings = invoke(&["-e", "env01", "--http-port", "3"], &env, file)
        .unwrap()
        .settings;
    assert_eq!((settings.network.http_port, settings.network.grpc_port), (3, 12));
    assert_eq!(settings.cluster.node_id, 21);
}

#[test]
fn data_dir_wins_over_config_db_dir_wherever_it_stands() {
    let file = "RNACOS_DATA_DIR=a\n";
    let settings = invoke(&["-e", "env01", "--config-db-dir", "b"], &[], file)
        .unwrap()
        .settings;
    assert_eq!(settings.storage.dir, Path::new("a"));
}

#[test]
fn auto_init_follows_node_id_and_join_address() {
    let auto_init = |pairs: &[(&str, &str)]| invoke(&[], pairs, "").unwrap().settings.cluster.auto_init;
    assert!(auto_init(&[]));
    assert!(!auto_init(&[("RNACOS_RAFT_NODE_ID", "2")]));
    assert!(!auto_init(&[("RNACOS_RAFT_JOIN_ADDR", "h:1")]));
    assert!(auto_init(&[
        ("RNACOS_RAFT_NODE_ID", "2"),
        ("RNACOS_RAFT_AUTO_INIT", "true")
    ]));
    let both = [
        ("RNACOS_RAFT_JOIN_ADDR", "h:1"),
        ("RNACOS_RAFT_AUTO_INIT", "true"),
    ];
    let wrong = mistakes(invoke(&[], &both, ""));
    assert_eq!(wrong.len(), 1);
    assert_eq!(wrong[0].name, "RNACOS_RAFT_AUTO_INIT");
}

#[test]
fn every_mistake_is_reported_at_once_with_name_value_and_expectation() {
    let env = [
        ("RNACOS_HTTP_PORT", "abc"),
        ("RNACOS_RAFT_NODE_ID", "0"),
        ("RNACOS_RAFT_NODE_ADDR", "nowhere"),
        ("RNACOS_CLUSTER_TOKEN", "short"),
        ("RNACOS_ENABLE_OPEN_API_AUTH", "true"),
    ];
    let wrong = mistakes(invoke(&["--config-max-content", "11MiB"], &env, ""));
    let names: Vec<_> = wrong.iter().map(|mistake| mistake.name.as_str()).collect();
    let expected = [
        "RNACOS_HTTP_PORT",
        "RNACOS_RAFT_NODE_ID",
        "RNACOS_RAFT_NODE_ADDR",
        "RNACOS_CLUSTER_TOKEN",
        "RNACOS_CONFIG_MAX_CONTENT",
        "RNACOS_ENABLE_OPEN_API_AUTH",
    ];
    assert_eq!(names, expected);
    let text = Mistakes(wrong).to_string();
    assert!(text.starts_with("6 settings are wrong:\n"), "{text}");
    assert!(
        text.contains("  RNACOS_HTTP_PORT=abc (environment): a port (0 to 65535) is expected\n"),
        "{text}"
    );
    assert!(text.contains("RNACOS_CONFIG_MAX_CONTENT=11MiB (flag)"), "{text}");
    assert!(!text.contains("short"), "a secret is shown: {text}");
}

#[test]
fn ports_must_fit_together() {
    assert_eq!(
        mistakes(invoke(&["--http-port", "65000"], &[], ""))[0].name,
        "RNACOS_HTTP_PORT"
    );
    assert!(invoke(&["--http-port", "65000", "--grpc-port", "9000"], &[], "").is_ok());
    assert_eq!(
        mistakes(invoke(&["--http-port", "9", "--grpc-port", "9"], &[], ""))[0].name,
        "RNACOS_GRPC_PORT"
    );
    let free = invoke(&["--http-port", "0"], &[], "").unwrap().settings;
    assert_eq!(free.network.grpc_port, 0);
}

#[test]
fn unknown_and_untaken_names_warn() {
    let env = [
        ("RNACOS_HTTP_PROT", "1"),
        ("RNACOS_NONSENSE", "1"),
        ("RNACOS_GMT_OFFSET_HOURS", "8"),
        ("PATH", "/bin"),
    ];
    let warnings = invoke(&[], &env, "").unwrap().warnings;
    assert_eq!(
        warnings,
        [
            "RNACOS_GMT_OFFSET_HOURS is not taken: logs are in UTC",
            "RNACOS_HTTP_PROT is no setting of this server; do you mean RNACOS_HTTP_PORT?",
            "RNACOS_NONSENSE is no setting of this server",
        ]
    );
    // Off is what the server does anyway.
    assert_eq!(
        invoke(&[], &[("RNACOS_ENABLE_OPEN_API_AUTH", "false")], "")
            .unwrap()
            .warnings
            .len(),
        1
    );
}

#[test]
fn a_named_file_must_be_there_and_readable() {
    let wrong = mistakes(invoke(&["-e", "missing"], &[], ""));
    assert_eq!(wrong[0].name, "missing");
    let wrong = mistakes(invoke(&["-e", "env01"], &[], "A=1\nnonsense\n"));
    assert_eq!(wrong[0].expected, "line 2: KEY=VALUE is expected");
}

#[test]
fn empty_values_are_no_values() {
    let env = [("RNACOS_RAFT_JOIN_ADDR", ""), ("RNACOS_HTTP_PORT", " ")];
    let settings = invoke(&[], &env, "").unwrap().settings;
    assert_eq!(settings.network.http_port, 8848);
    assert!(settings.cluster.auto_init);
}

#[test]
fn printed_settings_tell_the_origin_and_no_secret() {
    let env = [("RNACOS_CLUSTER_TOKEN", "hunter2-hunter2")];
    let invocation = invoke(&["--print-settings", "--http-port", "1"], &env, "").unwrap();
    assert_eq!(invocation.action, Action::PrintSettings);
    assert!(
        invocation.printed.contains("RNACOS_HTTP_PORT=1  # flag\n"),
        "{}",
        invocation.printed
    );
    assert!(
        invocation
            .printed
            .contains("# RNACOS_CLUSTER_TOKEN: (hidden) (environment)\n"),
        "{}",
        invocation.printed
    );
    assert!(!format!("{invocation:?}").contains("hunter2"));
    for setting in SETTINGS {
        assert!(
            invocation.printed.contains(setting.name),
            "{} is never taken",
            setting.name
        );
    }
}

#[test]
fn recover_takes_settings_before_and_behind_it() {
    let behind = invoke(&["recover", "accept-loss", "--yes", "--data-dir", "x"], &[], "").unwrap();
    assert_eq!(behind.action, Action::Recover(Recover::AcceptLoss { yes: true }));
    assert_eq!(behind.settings.storage.dir, Path::new("x"));
    let before = invoke(&["--data-dir", "y", "recover", "inspect"], &[], "").unwrap();
    assert_eq!(before.action, Action::Recover(Recover::Inspect));
    assert_eq!(before.settings.storage.dir, Path::new("y"));
}

#[test]
fn cluster_commands_are_read() {
    let env = [("RNACOS_CLUSTER_TOKEN", "hunter22")];
    let asked = |arguments: &[&str]| match invoke(arguments, &env, "").unwrap().action {
        Action::Cluster(command) => command,
        other => panic!("{other:?}"),
    };
    let status = asked(&["cluster", "status"]);
    assert_eq!(
        (status.ask, status.at, status.json),
        (ClusterAsk::Status, None, false)
    );
    let remove = asked(&["cluster", "remove", "3", "--json", "--at", "10.0.0.1:9848"]);
    assert_eq!(remove.ask, ClusterAsk::Remove { id: 3 });
    assert_eq!((remove.at.as_deref(), remove.json), (Some("10.0.0.1:9848"), true));
    assert_eq!(
        asked(&["cluster", "transfer"]).ask,
        ClusterAsk::Transfer { id: None }
    );
    assert_eq!(
        asked(&["cluster", "transfer", "2"]).ask,
        ClusterAsk::Transfer { id: Some(2) }
    );
    for wrong in [
        &["cluster"][..],
        &["cluster", "remove"],
        &["cluster", "remove", "0"],
        &["cluster", "add", "2"],
        &["cluster", "add", "2", "nowhere"],
        &["cluster", "status", "--at", "nowhere"],
    ] {
        assert!(
            matches!(invoke(wrong, &[], ""), Err(Refusal::CommandLine(_))),
            "{wrong:?}"
        );
    }
}

#[test]
fn help_names_every_setting() {
    let Err(Refusal::CommandLine(help)) = invoke(&["--help"], &[], "") else {
        panic!("help expected")
    };
    let help = help.to_string();
    for setting in SETTINGS {
        assert!(
            help.contains(&format!("--{}", setting.flag)),
            "{} is missing in --help",
            setting.flag
        );
    }
    assert!(help.contains("Examples:"));
}

#[test]
fn names_and_flags_are_unique_and_taken_or_not() {
    let mut names: Vec<_> = SETTINGS
        .iter()
        .map(|setting| setting.name)
        .chain(NOT_TAKEN.iter().map(|no| no.name))
        .collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    let mut flags: Vec<_> = SETTINGS.iter().map(|setting| setting.flag).collect();
    flags.sort_unstable();
    flags.dedup();
    assert_eq!(flags.len(), SETTINGS.len());
}
